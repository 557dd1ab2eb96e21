//! Which rotations a sample is measured with, and what the estimate over them means.

use crate::{CoreError, FiniteGroup, Rotation, Seed, Stream, cube16_a, cube16_b};

/// A rotation scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// `n` independent Haar rotations for each sample.
    Random {
        /// Number of rotations.
        rotations: usize,
    },
    /// `U_k g`: `cosets` independent Haar rotations times every element of a finite group. Each is Haar distributed.
    Structured {
        /// The group.
        group: FiniteGroup,
        /// Number of independent rotations, at least 2 for an unbiased estimate.
        cosets: usize,
    },
    /// A finite group used whole: exact, no correction, no interval from rotations.
    Exhaustive(FiniteGroup),
    /// Set A of 16 quarter-turn rotations, a set and not a group.
    Cube16A,
    /// Set B of 16 rotations of the cube, a set and not a group.
    Cube16B,
}

/// Rotations or cosets at most: far beyond what lowers an error, and no memory is asked for in vain.
const MOST: usize = 100_000;

impl Scheme {
    /// Reads a name: `random-10`, `tetrahedral-x2`, `octahedral`, `cube16-a`, `cube16-b`.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse(name: &str) -> Result<Self, CoreError> {
        let unknown = || {
            CoreError::Unknown {
            what: "rotation scheme",
            name: name.into(),
            known: "random-N, tetrahedral-xK, octahedral-xK, icosahedral-xK, tetrahedral, octahedral, icosahedral, cube16-a, cube16-b"
                .into(),
        }
        };
        let group = |text: &str| {
            [
                FiniteGroup::Tetrahedral,
                FiniteGroup::Octahedral,
                FiniteGroup::Icosahedral,
            ]
            .into_iter()
            .find(|g| g.name() == text)
        };
        let count = |text: &str| {
            text.parse::<usize>()
                .ok()
                .filter(|n| (1..=MOST).contains(n))
        };
        match name {
            "cube16-a" => Ok(Self::Cube16A),
            "cube16-b" => Ok(Self::Cube16B),
            _ => match name.split_once('-') {
                None => group(name).map(Self::Exhaustive).ok_or_else(unknown),
                Some(("random", n)) => count(n)
                    .map(|rotations| Self::Random { rotations })
                    .ok_or_else(unknown),
                Some((g, k)) => match (group(g), k.strip_prefix('x').and_then(count)) {
                    (Some(group), Some(cosets)) => Ok(Self::Structured { group, cosets }),
                    _ => Err(unknown()),
                },
            },
        }
    }

    /// The name that [`parse`](Self::parse) reads.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Random { rotations } => format!("random-{rotations}"),
            Self::Structured { group, cosets } => format!("{}-x{cosets}", group.name()),
            Self::Exhaustive(group) => group.name().into(),
            Self::Cube16A => "cube16-a".into(),
            Self::Cube16B => "cube16-b".into(),
        }
    }

    /// Rotations of each sample.
    #[must_use]
    pub fn rotations(&self) -> usize {
        match self {
            Self::Random { rotations } => *rotations,
            Self::Structured { group, cosets } => group.order() * cosets,
            Self::Exhaustive(group) => group.order(),
            Self::Cube16A | Self::Cube16B => 16,
        }
    }

    /// Whether every rotation is drawn, so that averages estimate the Haar average over SO(3).
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        matches!(self, Self::Random { .. } | Self::Structured { .. })
    }

    /// The rotations of one sample, fixed by seed and sample index, the same at every evaluation of a run.
    #[must_use]
    pub fn plan(&self, seed: Seed, sample: u64) -> RotationPlan {
        self.draw(&mut seed.indexed_stream("rotations", sample))
    }

    /// Rotations from a stream of one's own.
    #[must_use]
    pub fn draw(&self, stream: &mut Stream) -> RotationPlan {
        let whole = |rotations: Vec<Rotation>| RotationPlan {
            cosets: 1,
            rotations,
        };
        match self {
            Self::Random { rotations } => RotationPlan {
                cosets: *rotations,
                rotations: (0..*rotations).map(|_| Rotation::haar(stream)).collect(),
            },
            Self::Structured { group, cosets } => {
                let elements = group.elements();
                let starts: Vec<Rotation> = (0..*cosets).map(|_| Rotation::haar(stream)).collect();
                let rotations = starts
                    .iter()
                    .flat_map(|u| elements.iter().map(|g| u.compose(g)))
                    .collect();
                RotationPlan {
                    cosets: *cosets,
                    rotations,
                }
            }
            Self::Exhaustive(group) => whole(group.elements()),
            Self::Cube16A => whole(cube16_a()),
            Self::Cube16B => whole(cube16_b()),
        }
    }
}

/// The rotations of one sample: `cosets` independent blocks of equal length.
#[derive(Clone, Debug, PartialEq)]
pub struct RotationPlan {
    /// Number of independent blocks; 1 when the set is used whole.
    pub cosets: usize,
    /// All rotations, block after block.
    pub rotations: Vec<Rotation>,
}

impl RotationPlan {
    /// The block of a rotation.
    #[must_use]
    pub fn coset_of(&self, rotation: usize) -> usize {
        rotation / (self.rotations.len() / self.cosets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for name in [
            "random-10",
            "tetrahedral-x2",
            "icosahedral-x3",
            "octahedral",
            "cube16-a",
            "cube16-b",
        ] {
            let scheme = Scheme::parse(name).unwrap();
            assert_eq!(scheme.name(), name);
            let plan = scheme.plan(Seed::new(1), 0);
            assert_eq!(scheme.rotations(), plan.rotations.len());
        }
        assert!(
            Scheme::parse("octaedral")
                .unwrap_err()
                .to_string()
                .contains("octahedral-xK")
        );
        assert!(Scheme::parse("random-0").is_err());
    }

    #[test]
    fn a_sample_keeps_its_rotations_and_its_neighbour_has_others() {
        let scheme = Scheme::Structured {
            group: FiniteGroup::Tetrahedral,
            cosets: 2,
        };
        let plan = scheme.plan(Seed::new(1), 5);
        assert_eq!(plan, scheme.plan(Seed::new(1), 5));
        assert_ne!(plan, scheme.plan(Seed::new(1), 6));
        assert_eq!(plan.rotations.len(), 24);
        assert_eq!((plan.coset_of(11), plan.coset_of(12)), (0, 1));
    }
}
