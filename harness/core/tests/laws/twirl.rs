//! The twirled prediction: a projection onto equivariant maps, whatever the order of its parts.

use crate::made::{
    Skewed, Vector, cloud, distance, flat, group, linear, loss, matrix, pair, points, radial,
    rotation, twisted,
};
use equivbench_core::{
    Estimator, FiniteGroup, PointLoss, Rotation, SampleTerms, Scheme, Seed, TwirlAccumulator,
};
use proptest::prelude::*;

/// Sums of sixty numbers of order ten, each a few roundings away.
const ROUNDING: f64 = 1e-12;

/// The twirled prediction of a map over a finite group used whole.
fn twirled(
    f: impl Fn(&[Vector]) -> Vec<Vector>,
    group: FiniteGroup,
    cloud: &[Vector],
) -> Vec<Vector> {
    let mut twirl = TwirlAccumulator::new(vec![0.0; 3 * cloud.len()], 3, 1, PointLoss::Mse);
    for t in group.elements() {
        twirl.push(0, &twisted(&f, &t, cloud));
    }
    points(&twirl.twirled())
}

fn numbers(terms: &SampleTerms) -> [f64; 5] {
    [
        terms.loss_total,
        terms.loss_equiv,
        terms.power_target,
        terms.power_twirled,
        terms.power_spread,
    ]
}

proptest! {
    #[test]
    fn twirling_twice_is_twirling_once(f in Skewed::any(), cloud in cloud(), (group, _) in group()) {
        let once = twirled(|x| f.predict(x), group, &cloud);
        let twice = twirled(|x| twirled(|x| f.predict(x), group, x), group, &cloud);
        prop_assert!(distance(&flat(&once), &flat(&twice)) < ROUNDING);
    }

    #[test]
    fn a_twirled_map_is_equivariant_under_the_group(
        f in Skewed::any(), cloud in cloud(), (group, _) in group(), i in any::<prop::sample::Index>(),
    ) {
        let elements = group.elements();
        let g = &elements[i.index(elements.len())];
        let mean = |x: &[Vector]| twirled(|x| f.predict(x), group, x);
        prop_assert!(distance(&twisted(mean, g, &cloud), &flat(&mean(&cloud))) < ROUNDING);
    }

    #[test]
    fn an_equivariant_map_is_its_own_twirl_and_has_no_equivariance_error(
        (cloud, target) in pair(), seed in any::<u64>(), loss in loss(), rotations in 2usize..12,
    ) {
        let plan = Scheme::Random { rotations }.plan(Seed::new(seed), 0);
        let mut twirl = TwirlAccumulator::new(flat(&target), 3, plan.cosets, loss);
        for (i, t) in plan.rotations.iter().enumerate() {
            twirl.push(plan.coset_of(i), &twisted(radial, t, &cloud));
        }
        let own = flat(&radial(&cloud));
        prop_assert!(distance(&twirl.twirled(), &own) < ROUNDING);
        let terms = twirl.finish(Estimator::Unbiased);
        let direct = loss.sum(&own, &flat(&target), 3);
        prop_assert!((terms.loss_total - direct).abs() < ROUNDING * (1.0 + direct));
        // Squares of roundings for the squared error; for other losses the difference of two sums.
        let bound = if loss == PointLoss::Mse { ROUNDING * ROUNDING } else { ROUNDING * (1.0 + direct) };
        prop_assert!(terms.loss_equiv.abs() < bound, "{}", terms.loss_equiv);
    }

    #[test]
    fn the_twirl_of_a_linear_map_is_a_third_of_its_trace_over_every_coset(
        a in matrix(), cloud in cloud(), (group, _) in group(), start in rotation(),
    ) {
        let third = (a[0][0] + a[1][1] + a[2][2]) / 3.0;
        let mut twirl = TwirlAccumulator::new(vec![0.0; 3 * cloud.len()], 3, 1, PointLoss::Mse);
        for g in group.elements() {
            let map = |x: &[Vector]| x.iter().map(|x| linear(&a, *x)).collect();
            twirl.push(0, &twisted(map, &start.compose(&g), &cloud));
        }
        let expected: Vec<f64> = flat(&cloud).iter().map(|x| third * x).collect();
        prop_assert!(distance(&twirl.twirled(), &expected) < ROUNDING);
    }

    #[test]
    fn the_order_of_predictions_and_of_cosets_changes_rounding_only(
        f in Skewed::any(), (cloud, target) in pair(), loss in loss(), cosets in 2usize..5,
        each in 1usize..7, seed in any::<u64>(),
        order in Just((0..30).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let plan = Scheme::Random { rotations: cosets * each }.plan(Seed::new(seed), 0);
        let pushes: Vec<(usize, Vec<f64>)> = plan.rotations.iter().enumerate()
            .map(|(i, t)| (i / each, twisted(|x| f.predict(x), t, &cloud)))
            .collect();
        let start = || TwirlAccumulator::new(flat(&target), 3, cosets, loss);
        let (mut plain, mut shuffled) = (start(), start());
        for (coset, z) in &pushes {
            plain.push(*coset, z);
        }
        for index in order.into_iter().filter(|i| *i < pushes.len()) {
            let (coset, z) = &pushes[index];
            // Cosets change their names too.
            shuffled.push((coset + 1) % cosets, z);
        }
        prop_assert!(distance(&plain.twirled(), &shuffled.twirled()) < ROUNDING);
        for estimator in [Estimator::PlugIn, Estimator::Unbiased] {
            let (a, b) = (plain.finish(estimator), shuffled.finish(estimator));
            // Sums of at most 15 squares of numbers of order ten.
            let scale = 1.0 + a.loss_total + a.power_twirled.abs();
            prop_assert!(distance(&numbers(&a), &numbers(&b)) < ROUNDING * scale, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_turned_cloud_is_measured_as_the_cloud_itself_over_a_whole_group(
        f in Skewed::any(), (cloud, target) in pair(), (group, _) in group(),
        i in any::<prop::sample::Index>(),
    ) {
        let elements = group.elements();
        let turn = |cloud: &[Vector], g: &Rotation| -> Vec<Vector> {
            cloud.iter().map(|x| g.apply(*x)).collect()
        };
        let g = &elements[i.index(elements.len())];
        let terms = |cloud: &[Vector], target: &[Vector]| {
            let mut twirl = TwirlAccumulator::new(flat(target), 3, 1, PointLoss::Mse);
            for t in &elements {
                twirl.push(0, &twisted(|x| f.predict(x), t, cloud));
            }
            twirl.finish(Estimator::Unbiased)
        };
        let (here, there) = (terms(&cloud, &target), terms(&turn(&cloud, g), &turn(&target, g)));
        prop_assert!(distance(&numbers(&here), &numbers(&there)) < ROUNDING * (1.0 + here.loss_total));
    }
}
