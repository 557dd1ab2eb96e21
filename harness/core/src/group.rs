//! The finite rotation groups, and two sets of quarter turns that are not groups.

use crate::Rotation;

/// A finite subgroup of SO(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FiniteGroup {
    /// 12 rotations of the tetrahedron; averages polynomials of degree ≤ 2 in the rotation exactly.
    Tetrahedral,
    /// 24 rotations of the cube; exact to degree 3.
    Octahedral,
    /// 60 rotations of the icosahedron; exact to degree 5.
    Icosahedral,
}

impl FiniteGroup {
    /// All elements, the identity first.
    #[must_use]
    pub fn elements(self) -> Vec<Rotation> {
        match self {
            Self::Octahedral => octahedral(),
            // The rotations of the cube that permute its diagonals evenly are its even axis permutations.
            Self::Tetrahedral => octahedral().into_iter().filter(is_even_on_axes).collect(),
            Self::Icosahedral => icosahedral(),
        }
    }

    /// Number of elements.
    #[must_use]
    pub const fn order(self) -> usize {
        match self {
            Self::Tetrahedral => 12,
            Self::Octahedral => 24,
            Self::Icosahedral => 60,
        }
    }

    /// Name in suites and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tetrahedral => "tetrahedral",
            Self::Octahedral => "octahedral",
            Self::Icosahedral => "icosahedral",
        }
    }
}

/// The signed axis permutations with determinant 1, exact in floating point.
fn octahedral() -> Vec<Rotation> {
    const AXES: [[usize; 3]; 6] = [
        [0, 1, 2],
        [1, 2, 0],
        [2, 0, 1],
        [0, 2, 1],
        [2, 1, 0],
        [1, 0, 2],
    ];
    let signed = AXES.iter().flat_map(|axes| {
        (0..8u8).map(move |signs| {
            let mut m = [[0.0; 3]; 3];
            for (r, &c) in axes.iter().enumerate() {
                m[r][c] = if signs >> r & 1 == 1 { -1.0 } else { 1.0 };
            }
            Rotation(m)
        })
    });
    signed.filter(|r| r.determinant() > 0.0).collect()
}

fn is_even_on_axes(rotation: &Rotation) -> bool {
    let m = rotation.0.map(|row| row.map(f64::abs));
    Rotation(m).determinant() > 0.0
}

/// The tetrahedral group extended by a fifth turn about a vertex of the icosahedron `(0, ±1, ±φ)` and its cyclic images.
fn icosahedral() -> Vec<Rotation> {
    let golden = 0.5 * (1.0 + 5f64.sqrt());
    let fifth =
        |k: usize| Rotation::about([0.0, 1.0, golden], std::f64::consts::TAU * k as f64 / 5.0);
    let tetrahedral = FiniteGroup::Tetrahedral.elements();
    // |I| = 60 = 5 · 12, and no tetrahedral rotation but the identity is a fifth turn, so these are all different.
    (0..5)
        .flat_map(|k| {
            tetrahedral
                .iter()
                .map(move |t| if k == 0 { *t } else { fifth(k).compose(t) })
        })
        .collect()
}

/// Set A of 16 quarter-turn rotations: `R_x(a) R_z(b)`, a and b of four quarter turns. Not a group.
#[must_use]
pub fn cube16_a() -> Vec<Rotation> {
    let x = quarter_turns([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]]);
    let z = quarter_turns([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
    x.iter()
        .flat_map(|a| z.iter().map(|b| a.compose(b)))
        .collect()
}

/// Set B of 16: the rotations that keep a coordinate axis as a line, all of the cube's but the eight third turns. Not a group.
#[must_use]
pub fn cube16_b() -> Vec<Rotation> {
    octahedral()
        .into_iter()
        .filter(|r| r.trace() != 0.0)
        .collect()
}

fn quarter_turns(turn: [[f64; 3]; 3]) -> [Rotation; 4] {
    let once = Rotation(turn);
    let twice = once.compose(&once);
    [Rotation::IDENTITY, once, twice, twice.compose(&once)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUPS: [FiniteGroup; 3] = [
        FiniteGroup::Tetrahedral,
        FiniteGroup::Octahedral,
        FiniteGroup::Icosahedral,
    ];

    fn contains(set: &[Rotation], r: &Rotation) -> bool {
        // 1e-12: products of three factors with entries of order one; elements differ by more than 0.3.
        set.iter().any(|s| s.distance(r) < 1e-12)
    }

    #[test]
    fn the_finite_groups_are_closed_and_hold_their_inverses() {
        for group in GROUPS {
            let set = group.elements();
            assert_eq!(set.len(), group.order());
            assert_eq!(set[0], Rotation::IDENTITY);
            for a in &set {
                assert!(contains(&set, &a.inverse()), "{group:?}");
                assert!(
                    set.iter().all(|b| contains(&set, &a.compose(b))),
                    "{group:?}"
                );
                assert_eq!(
                    set.iter().filter(|b| a.distance(b) < 1e-9).count(),
                    1,
                    "{group:?} repeats an element"
                );
            }
        }
    }

    #[test]
    fn characters_of_degree_up_to_the_design_strength_average_to_zero() {
        // χ_l = sin((2l+1) a/2) / sin(a/2); its mean over G counts the invariants of degree l: 0 for 1 ≤ l ≤ strength.
        let character = |l: i32, r: &Rotation| -> f64 {
            let cos = (0.5 * (r.trace() - 1.0)).clamp(-1.0, 1.0);
            1.0 + (1..=l)
                .map(|m| 2.0 * (f64::from(m) * cos.acos()).cos())
                .sum::<f64>()
        };
        for (group, strength) in GROUPS.into_iter().zip([2, 3, 5]) {
            let set = group.elements();
            let mean = |l| set.iter().map(|r| character(l, r)).sum::<f64>() / set.len() as f64;
            for l in 1..=strength {
                assert!(mean(l).abs() < 1e-12, "{group:?} degree {l}: {}", mean(l));
            }
            assert!(
                mean(strength + 1).abs() > 0.5,
                "{group:?} is not stronger than stated"
            );
        }
    }

    #[test]
    fn both_sets_of_sixteen_are_cube_rotations_but_no_group() {
        let cube = FiniteGroup::Octahedral.elements();
        for set in [cube16_a(), cube16_b()] {
            assert_eq!(set.len(), 16);
            assert!(
                set.iter()
                    .all(|r| cube.contains(r) && set.iter().filter(|s| *s == r).count() == 1)
            );
            let closed = set
                .iter()
                .all(|a| set.iter().all(|b| set.contains(&a.compose(b))));
            assert!(!closed);
        }
    }
}
