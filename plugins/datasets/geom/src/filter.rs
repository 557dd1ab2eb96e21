//! Which conformers are kept, and what a file as a whole tells: flat drawings, hydrogens that were left out.

use crate::{
    conformer::{Conformer, HEAVY_HYDROGEN, UNKNOWN},
    options::Settings,
};
use equivbench_plugin::{PluginError, PluginResult};

/// Why a conformer was left out: the first reason that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    UnknownElement,
    HeavyHydrogen,
    Element,
    NotFinite,
    FewAtoms,
    ManyAtoms,
    Flat,
    Further,
    Coincident,
    Duplicate,
}

impl Reason {
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::UnknownElement => {
                "conformers with a symbol that is no element (query atoms, R groups, dummy atoms)"
            }
            Self::HeavyHydrogen => "conformers with deuterium or tritium",
            Self::Element => "conformers with another element than the option elements names",
            Self::NotFinite => {
                "conformers with a coordinate that is not finite or beyond 10,000 angstrom"
            }
            Self::FewAtoms => "conformers with fewer than two atoms",
            Self::ManyAtoms => "conformers with more atoms than max_atoms",
            Self::Flat => {
                "flat drawings: five or more atoms that share one Cartesian coordinate exactly"
            }
            Self::Further => {
                "conformers beyond the first ones of their molecule (option conformers)"
            }
            Self::Coincident => "conformers with two atoms closer than 0.1 angstrom",
            Self::Duplicate => {
                "conformers equal to one before them within 0.001 angstrom (another file or format)"
            }
        }
    }
}

/// Å. Molecules are not that large, and f32 resolves 0.001 Å up to here.
const LARGEST_COORDINATE: f64 = 1e4;
/// Two or three atoms always share a plane, and four often do.
const FEWEST_FLAT_ATOMS: usize = 5;
/// Å. The shortest bond, H-H, has 0.74.
pub(crate) const COINCIDENT: f64 = 0.1;

impl Settings {
    /// Why a conformer is left out whatever else is there, `None` if nothing speaks against it.
    pub(crate) fn refuses(&self, conformer: &Conformer) -> Option<Reason> {
        let numbers = &conformer.numbers;
        let coordinates = conformer.positions.as_flattened();
        match () {
            () if numbers.contains(&UNKNOWN) => Some(Reason::UnknownElement),
            () if numbers.contains(&HEAVY_HYDROGEN) => Some(Reason::HeavyHydrogen),
            () if !numbers.iter().all(|&z| self.elements[usize::from(z)]) => Some(Reason::Element),
            () if !coordinates.iter().all(|x| x.abs() <= LARGEST_COORDINATE) => {
                Some(Reason::NotFinite)
            }
            () if numbers.len() < 2 => Some(Reason::FewAtoms),
            () if numbers.len() > self.max_atoms => Some(Reason::ManyAtoms),
            () if is_flat(conformer) => Some(Reason::Flat),
            () => None,
        }
    }
}

/// Whether all atoms share one coordinate exactly, as in a drawing. Planar molecules in three dimensions do not, up to rounding.
pub(crate) fn is_flat(conformer: &Conformer) -> bool {
    let Some((first, rest)) = conformer.positions.split_first() else {
        return false;
    };
    conformer.positions.len() >= FEWEST_FLAT_ATOMS
        && (0..3).any(|axis| rest.iter().all(|x| x[axis] == first[axis]))
}

/// Whether two atoms lie closer than [`COINCIDENT`]: a sweep along x, so that large molecules cost little.
pub(crate) fn has_coincident(positions: &[[f64; 3]]) -> bool {
    let mut sorted: Vec<&[f64; 3]> = positions.iter().collect();
    sorted.sort_unstable_by(|a, b| a[0].total_cmp(&b[0]));
    sorted.iter().enumerate().any(|(i, a)| {
        let near = sorted[i + 1..]
            .iter()
            .take_while(|b| b[0] - a[0] < COINCIDENT);
        near.map(|b| (0..3).map(|k| (b[k] - a[k]).powi(2)).sum::<f64>())
            .any(|d2| d2 < COINCIDENT * COINCIDENT)
    })
}

/// Å. C-H bonds have 1.06 to 1.12; the next hydrogens are 1.9 away.
const LONGEST_CH_BOND: f64 = 1.3;

fn has_hydrogen_on_carbon(conformer: &Conformer) -> bool {
    let of = |is_wanted: fn(u8) -> bool| {
        let atoms = conformer.numbers.iter().zip(&conformer.positions);
        atoms.filter(move |(z, _)| is_wanted(**z)).map(|(_, x)| x)
    };
    let square = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f64>();
    of(|z| z == 6).any(|carbon| {
        of(|z| z == 1 || z == HEAVY_HYDROGEN)
            .any(|h| square(carbon, h) < LONGEST_CH_BOND * LONGEST_CH_BOND)
    })
}

/// What is counted over all conformers of a file, kept or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FileCounts {
    pub(crate) conformers: u64,
    pub(crate) flat: u64,
    /// With carbon.
    pub(crate) organic: u64,
    /// Of these, without a hydrogen bound to carbon: with none, or with those of O-H and N-H only.
    pub(crate) without_hydrogen: u64,
}

impl FileCounts {
    pub(crate) fn add(&mut self, conformer: &Conformer) {
        self.conformers += 1;
        self.flat += u64::from(is_flat(conformer));
        if conformer.numbers.contains(&6) {
            self.organic += 1;
            self.without_hydrogen += u64::from(!has_hydrogen_on_carbon(conformer));
        }
    }

    /// Refuses a file of drawings, and one without hydrogens.
    ///
    /// # Errors
    /// More than half of its conformers are flat, or more than half of its molecules with carbon have no hydrogen.
    pub(crate) fn check(&self, file: &str, settings: &Settings) -> PluginResult<()> {
        if 2 * self.flat > self.conformers {
            return Err(PluginError::BadData(format!(
                "{file}: {} of {} structures are flat (all atoms share one coordinate exactly), so these are drawings, not conformers; \
                 make conformers first, e.g. with RDKit: AddHs, EmbedMolecule, MMFFOptimizeMolecule",
                self.flat, self.conformers
            )));
        }
        if 2 * self.without_hydrogen > self.organic && !settings.options.allow_missing_hydrogens {
            return Err(PluginError::BadData(format!(
                "{file}: {} of {} molecules with carbon have no hydrogen on it, so hydrogens were left out when the file was written; add them \
                 with their positions, e.g. with RDKit: AddHs(mol, addCoords=True), or set allow_missing_hydrogens = true",
                self.without_hydrogen, self.organic
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn conformer(numbers: &[u8], positions: &[[f64; 3]]) -> Conformer {
        Conformer {
            numbers: numbers.to_vec(),
            positions: positions.to_vec(),
            ..Conformer::default()
        }
    }

    /// A row of atoms of these elements along the diagonal.
    fn row(numbers: &[u8]) -> Conformer {
        let positions: Vec<[f64; 3]> = (0..numbers.len()).map(|i| [i as f64; 3]).collect();
        conformer(numbers, &positions)
    }

    fn refuses(conformer: &Conformer) -> Option<Reason> {
        Settings::new(Options {
            max_atoms: Some(6),
            ..Options::default()
        })
        .unwrap()
        .refuses(conformer)
    }

    #[test]
    fn every_reason_is_found() {
        assert_eq!(refuses(&row(&[6, 1, 17, 35])), None);
        // Silicon, mercury and bismuth begin with the letters of sulphur, hydrogen and boron.
        for z in [14, 80, 83, 15, 53] {
            assert_eq!(refuses(&row(&[6, 1, z])), Some(Reason::Element));
        }
        assert_eq!(refuses(&row(&[6, UNKNOWN])), Some(Reason::UnknownElement));
        assert_eq!(
            refuses(&row(&[6, HEAVY_HYDROGEN])),
            Some(Reason::HeavyHydrogen)
        );
        assert_eq!(refuses(&row(&[6])), Some(Reason::FewAtoms));
        assert_eq!(refuses(&row(&[])), Some(Reason::FewAtoms));
        assert_eq!(refuses(&row(&[6; 7])), Some(Reason::ManyAtoms));
        for x in [f64::NAN, f64::INFINITY, 10_001.0] {
            assert_eq!(
                refuses(&conformer(&[6, 1], &[[0.0; 3], [0.0, x, 0.0]])),
                Some(Reason::NotFinite)
            );
        }
    }

    #[test]
    fn a_drawing_is_flat_and_a_planar_molecule_in_space_is_not() {
        let ring = |tilt: f64| {
            let positions: Vec<[f64; 3]> = (0..6)
                .map(|i| {
                    let (s, c) = (f64::from(i) * std::f64::consts::FRAC_PI_3).sin_cos();
                    [1.39 * c, 1.39 * s, 1.39 * tilt * c]
                })
                .collect();
            conformer(&[6; 6], &positions)
        };
        assert_eq!(refuses(&ring(0.0)), Some(Reason::Flat));
        assert_eq!(refuses(&ring(1e-3)), None);
        let water = conformer(
            &[8, 1, 1],
            &[[0.0; 3], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]],
        );
        assert_eq!(refuses(&water), None);
    }

    #[test]
    fn coincident_atoms_are_found_as_by_all_pairs() {
        let mut state = 1_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as f64 / 16_777_216.0
        };
        let mut found = 0;
        for _ in 0..400 {
            let positions: Vec<[f64; 3]> = (0..30)
                .map(|_| std::array::from_fn(|_| 2.0 * random()))
                .collect();
            let distance = |a: &[f64; 3], b: &[f64; 3]| {
                (0..3).map(|k| (a[k] - b[k]).powi(2)).sum::<f64>().sqrt()
            };
            let expected = (0..30)
                .any(|i| (0..i).any(|j| distance(&positions[i], &positions[j]) < COINCIDENT));
            assert_eq!(has_coincident(&positions), expected);
            found += u32::from(expected);
        }
        // Both answers occur: 435 pairs, each with a chance of 4/3 π 0.1³ / 8 = 0.0005.
        assert!((20..150).contains(&found), "{found}");
    }

    #[test]
    fn hydrogens_of_oxygen_alone_do_not_count() {
        let counts = |x: f64| {
            let mut counts = FileCounts::default();
            counts.add(&conformer(
                &[6, 8, 1],
                &[[0.0; 3], [1.43, 0.0, 0.0], [x, 0.5, 0.0]],
            ));
            (counts.organic, counts.without_hydrogen)
        };
        assert_eq!((counts(1.8), counts(-0.9)), ((1, 1), (1, 0)));
        let mut water = FileCounts::default();
        water.add(&row(&[8, 1, 1]));
        assert_eq!((water.organic, water.without_hydrogen), (0, 0));
    }

    #[test]
    fn files_are_refused_by_their_majority() {
        let settings = Settings::new(Options::default()).unwrap();
        let counts = |flat, without_hydrogen| FileCounts {
            conformers: 10,
            flat,
            organic: 8,
            without_hydrogen,
        };
        assert!(counts(5, 4).check("x", &settings).is_ok());
        assert!(
            counts(6, 0)
                .check("x", &settings)
                .unwrap_err()
                .to_string()
                .contains("x: 6 of 10 structures are flat")
        );
        assert!(
            counts(0, 5)
                .check("x", &settings)
                .unwrap_err()
                .to_string()
                .contains("5 of 8 molecules with carbon have no hydrogen on it")
        );
        let lenient = Settings::new(Options {
            allow_missing_hydrogens: true,
            ..Options::default()
        })
        .unwrap();
        assert!(counts(0, 8).check("x", &lenient).is_ok());
    }
}
