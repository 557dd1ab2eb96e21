//! Finite groups: closure, inverses, order, moments.

use crate::made::{Vector, dot, group, rotation, vector};
use equivbench_core::{FiniteGroup, Rotation, Scheme, Seed};
use proptest::prelude::*;

/// Products of some rotations with entries of at most one; elements of a group differ by 0.3.
const ROUNDING: f64 = 1e-12;

fn contains(set: &[Rotation], rotation: &Rotation) -> bool {
    set.iter().any(|r| r.distance(rotation) < ROUNDING)
}

/// `U g U⁻¹` for every element: the same group seen from a turned frame.
fn seen_from(frame: &Rotation, group: FiniteGroup) -> Vec<Rotation> {
    let conjugate = |g: Rotation| frame.compose(&g).compose(&frame.inverse());
    group.elements().into_iter().map(conjugate).collect()
}

fn determinant(rows: &[Vector]) -> f64 {
    Rotation([rows[0], rows[1], rows[2]]).determinant()
}

/// The average over all rotations of `Π_i a_i · T b_i`, up to degree 4.
fn haar_moment(a: &[Vector], b: &[Vector]) -> f64 {
    match a.len() {
        1 => 0.0,
        2 => dot(a[0], a[1]) * dot(b[0], b[1]) / 3.0,
        3 => determinant(a) * determinant(b) / 6.0,
        4 => {
            // The three ways of pairing four, and the inverse of their Gram matrix 3 · (2 + J).
            let pairings = |v: &[Vector]| {
                [[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2]]
                    .map(|[i, j, k, l]| dot(v[i], v[j]) * dot(v[k], v[l]))
            };
            let (p, q) = (pairings(a), pairings(b));
            let (sum_p, sum_q) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
            let same: f64 = p.iter().zip(&q).map(|(p, q)| p * q).sum();
            (5.0 * same - sum_p * sum_q) / 30.0
        }
        degree => panic!("no formula for degree {degree}"),
    }
}

/// The average of `Π_i a_i · T b_i` over some rotations.
fn moment(rotations: &[Rotation], a: &[Vector], b: &[Vector]) -> f64 {
    let factor = |t: &Rotation| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| dot(*a, t.apply(*b))).product()
    };
    rotations.iter().map(factor).sum::<f64>() / rotations.len() as f64
}

/// Vectors of a moment of some degree are of order one, and so is every factor: `(2 · √3)² = 12`.
fn moment_rounding(degree: usize) -> f64 {
    12f64.powi(degree as i32) * 1e-14
}

proptest! {
    #[test]
    fn products_and_inverses_stay_in_the_group_in_every_frame(
        (group, _) in group(), frame in rotation(), i in any::<prop::sample::Index>(),
        j in any::<prop::sample::Index>(),
    ) {
        let set = seen_from(&frame, group);
        let (a, b) = (&set[i.index(set.len())], &set[j.index(set.len())]);
        prop_assert!(contains(&set, &a.compose(b)));
        prop_assert!(contains(&set, &a.inverse()));
        prop_assert!(a.compose(&a.inverse()).distance(&Rotation::IDENTITY) < ROUNDING);
    }

    #[test]
    fn an_element_only_reorders_the_group(
        (group, _) in group(), frame in rotation(), i in any::<prop::sample::Index>(),
    ) {
        let set = seen_from(&frame, group);
        prop_assert_eq!(set.len(), group.order());
        let by = &set[i.index(set.len())];
        let left: Vec<Rotation> = set.iter().map(|g| by.compose(g)).collect();
        let right: Vec<Rotation> = set.iter().map(|g| g.compose(by)).collect();
        prop_assert!(set.iter().all(|g| contains(&left, g) && contains(&right, g)));
    }

    #[test]
    fn the_order_of_an_element_divides_that_of_the_group(
        (group, _) in group(), i in any::<prop::sample::Index>(),
    ) {
        let set = group.elements();
        let element = set[i.index(set.len())];
        let powers = std::iter::successors(Some(element), |p| Some(p.compose(&element)));
        let order = 1 + powers
            .take(group.order())
            .position(|p| p.distance(&Rotation::IDENTITY) < ROUNDING)
            .expect("some power is the identity");
        prop_assert_eq!(group.order() % order, 0);
        // No axis of these solids has more turns than five.
        prop_assert!(order <= 5);
    }

    #[test]
    fn moments_up_to_the_strength_are_those_of_all_rotations(
        (group, strength) in group(), frame in rotation(),
        vectors in prop::collection::vec((vector(), vector()), 4),
    ) {
        let coset: Vec<Rotation> = group.elements().iter().map(|g| frame.compose(g)).collect();
        let (a, b): (Vec<Vector>, Vec<Vector>) = vectors.into_iter().unzip();
        for degree in 1..=strength.min(4) {
            let (a, b) = (&a[..degree], &b[..degree]);
            let (own, all) = (moment(&coset, a, b), haar_moment(a, b));
            prop_assert!((own - all).abs() < moment_rounding(degree), "degree {degree}: {own} {all}");
        }
    }

    #[test]
    fn moments_up_to_the_strength_are_the_same_from_every_frame(
        (group, strength) in group(), frame in rotation(),
        vectors in prop::collection::vec((vector(), vector()), 5),
    ) {
        let set = group.elements();
        let coset: Vec<Rotation> = set.iter().map(|g| frame.compose(g)).collect();
        let (a, b): (Vec<Vector>, Vec<Vector>) = vectors.into_iter().unzip();
        let (a, b) = (&a[..strength], &b[..strength]);
        prop_assert!((moment(&set, a, b) - moment(&coset, a, b)).abs() < moment_rounding(strength));
    }

    #[test]
    fn a_structured_plan_holds_whole_cosets(
        (group, _) in group(), cosets in 1usize..4, seed in any::<u64>(), sample in any::<u64>(),
    ) {
        let plan = Scheme::Structured { group, cosets }.plan(Seed::new(seed), sample);
        prop_assert_eq!(plan.rotations.len(), cosets * group.order());
        let set = group.elements();
        for (block, own) in plan.rotations.chunks_exact(group.order()).enumerate() {
            prop_assert_eq!(plan.coset_of(block * group.order()), block);
            let from_first: Vec<Rotation> = own.iter().map(|r| own[0].inverse().compose(r)).collect();
            prop_assert!(set.iter().all(|g| contains(&from_first, g)));
        }
    }
}

/// A group is not stronger than stated: then the law above would hold for any set that is large.
#[test]
fn moments_beyond_the_strength_depend_on_the_frame() {
    let groups = [
        (FiniteGroup::Tetrahedral, 3),
        (FiniteGroup::Octahedral, 4),
        (FiniteGroup::Icosahedral, 6),
    ];
    for (group, degree) in groups {
        let frame = Rotation::about([0.3, -1.0, 0.7], 0.4);
        let set = group.elements();
        let coset: Vec<Rotation> = set.iter().map(|g| frame.compose(g)).collect();
        let (a, b) = ([[0.2, 0.5, 1.0]; 6], [[1.0, -0.3, 0.6]; 6]);
        let (a, b) = match degree {
            // An odd moment of equal vectors vanishes.
            3 => (
                vec![[1.0, 0.2, 0.1], [0.3, 1.0, 0.2], [0.1, 0.4, 1.0]],
                vec![b[0]; 3],
            ),
            _ => (a[..degree].to_vec(), b[..degree].to_vec()),
        };
        let difference = moment(&set, &a, &b) - moment(&coset, &a, &b);
        assert!(
            difference.abs() > 1e-3,
            "{group:?} degree {degree}: {difference}"
        );
    }
}
