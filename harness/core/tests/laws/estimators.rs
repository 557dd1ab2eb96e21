//! Estimators: the split of a loss, no bias, no units, and the direct sums that they abbreviate.

use crate::made::{Skewed, distance, flat, loss, pair, twisted};
use equivbench_core::{
    Estimate, Estimator, MeasuredSample, PointLoss, Rotation, SampleTerms, Scheme, Seed,
    TwirlAccumulator, pool,
};
use proptest::prelude::*;

/// Relative to the loss: sums of at most some hundred squares.
const ROUNDING: f64 = 1e-12;

/// Twisted predictions of a map for one cloud, and the target.
#[derive(Clone, Debug)]
struct Twisted {
    predictions: Vec<Vec<f64>>,
    target: Vec<f64>,
}

impl Twisted {
    fn any(rotations: impl Strategy<Value = usize>) -> impl Strategy<Value = Self> {
        (Skewed::any(), pair(), rotations, any::<u64>()).prop_map(
            |(f, (cloud, target), rotations, seed)| {
                let plan = Scheme::Random { rotations }.plan(Seed::new(seed), 0);
                let of = |t: &Rotation| twisted(|x| f.predict(x), t, &cloud);
                Self {
                    predictions: plan.rotations.iter().map(of).collect(),
                    target: flat(&target),
                }
            },
        )
    }

    /// The terms when predictions `indices[k]` are coset `k`.
    fn terms(&self, cosets: &[Vec<usize>], loss: PointLoss, estimator: Estimator) -> SampleTerms {
        let mut twirl = TwirlAccumulator::new(self.target.clone(), 3, cosets.len(), loss);
        for (coset, indices) in cosets.iter().enumerate() {
            for &i in indices {
                twirl.push(coset, &self.predictions[i]);
            }
        }
        twirl.finish(estimator)
    }

    /// Equal neighbours as cosets.
    fn blocks(&self, each: usize) -> Vec<Vec<usize>> {
        let all: Vec<usize> = (0..self.predictions.len()).collect();
        all.chunks(each).map(<[usize]>::to_vec).collect()
    }

    fn times(&self, factor: f64) -> Self {
        let scaled = |v: &Vec<f64>| v.iter().map(|x| factor * x).collect();
        Self {
            predictions: self.predictions.iter().map(scaled).collect(),
            target: scaled(&self.target),
        }
    }
}

fn mean(vectors: &[&Vec<f64>]) -> Vec<f64> {
    let sum = |i: usize| vectors.iter().map(|v| v[i]).sum::<f64>();
    (0..vectors[0].len())
        .map(|i| sum(i) / vectors.len() as f64)
        .collect()
}

fn square(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum()
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn estimate(terms: &[SampleTerms]) -> Estimate {
    let samples = MeasuredSample::independent(terms);
    pool(&samples, true, Seed::new(1))
}

/// Every way of drawing `count` of `population`, with repetition.
fn draws(population: usize, count: usize) -> Vec<Vec<usize>> {
    (0..population.pow(count as u32))
        .map(|code| {
            (0..count as u32)
                .map(|place| code / population.pow(place) % population)
                .collect()
        })
        .collect()
}

proptest! {
    #[test]
    fn a_loss_is_that_of_the_twirled_prediction_plus_what_rotating_adds(
        twisted in Twisted::any(1usize..9), loss in loss(),
    ) {
        let terms = twisted.terms(&twisted.blocks(1), loss, Estimator::PlugIn);
        let direct = |z: &[f64]| loss.sum(z, &twisted.target, 3);
        let n = twisted.predictions.len() as f64;
        let total = twisted.predictions.iter().map(|z| direct(z)).sum::<f64>() / n;
        let of_mean = direct(&mean(&twisted.predictions.iter().collect::<Vec<_>>()));
        prop_assert!((terms.loss_total - total).abs() <= ROUNDING * total);
        prop_assert!((terms.loss_total - terms.loss_equiv - of_mean).abs() <= ROUNDING * total);
        // Jensen, but for rounding.
        prop_assert!(terms.loss_equiv >= -ROUNDING * total);
    }

    #[test]
    fn the_unbiased_error_is_the_loss_less_the_direct_double_sum_over_cosets(
        twisted in Twisted::any((2usize..6).prop_map(|cosets| 3 * cosets)),
    ) {
        let cosets = twisted.blocks(3);
        let terms = twisted.terms(&cosets, PointLoss::Mse, Estimator::Unbiased);
        let residuals: Vec<Vec<f64>> = cosets.iter()
            .map(|own| {
                let own: Vec<&Vec<f64>> = own.iter().map(|&i| &twisted.predictions[i]).collect();
                difference(&mean(&own), &twisted.target)
            })
            .collect();
        let (mut products, mut pairs) = (0.0, 0.0);
        for (j, a) in residuals.iter().enumerate() {
            for (_, b) in residuals.iter().enumerate().filter(|(k, _)| *k != j) {
                products += a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
                pairs += 1.0;
            }
        }
        let losses = twisted.predictions.iter().map(|z| square(&difference(z, &twisted.target)));
        let total = losses.sum::<f64>() / twisted.predictions.len() as f64;
        prop_assert!((terms.loss_total - total).abs() <= ROUNDING * total);
        // The double sum subtracts large numbers, whose rounding is that of the squares.
        let scale = total + residuals.iter().map(|r| square(r)).sum::<f64>();
        prop_assert!((terms.loss_equiv - (total - products / pairs)).abs() <= ROUNDING * scale);
    }

    #[test]
    fn over_all_draws_the_unbiased_estimate_is_right_and_the_plug_in_short_by_one_over_n(
        twisted in Twisted::any(2usize..6), count in 2usize..4,
    ) {
        let all: Vec<&Vec<f64>> = twisted.predictions.iter().collect();
        let mu = mean(&all);
        let average = |f: &dyn Fn(&Vec<f64>) -> f64| all.iter().map(|z| f(z)).sum::<f64>() / all.len() as f64;
        let total = average(&|z| square(&difference(z, &twisted.target)));
        let equiv = average(&|z| square(&difference(z, &mu)));
        let draws = draws(all.len(), count);
        let expected = |estimator, f: fn(&SampleTerms) -> f64| {
            let of = |draw: &Vec<usize>| {
                let cosets: Vec<Vec<usize>> = draw.iter().map(|i| vec![*i]).collect();
                f(&twisted.terms(&cosets, PointLoss::Mse, estimator))
            };
            draws.iter().map(of).sum::<f64>() / draws.len() as f64
        };
        let close = |a: f64, b: f64| (a - b).abs() <= ROUNDING * (total + square(&mu) + equiv);
        let short = 1.0 - 1.0 / count as f64;
        prop_assert!(close(expected(Estimator::Unbiased, |t| t.loss_total), total));
        prop_assert!(close(expected(Estimator::Unbiased, |t| t.loss_equiv), equiv));
        prop_assert!(close(expected(Estimator::Unbiased, |t| t.power_spread), equiv));
        prop_assert!(close(expected(Estimator::Unbiased, |t| t.power_twirled), square(&mu)));
        prop_assert!(close(expected(Estimator::PlugIn, |t| t.loss_total), total));
        prop_assert!(close(expected(Estimator::PlugIn, |t| t.loss_equiv), short * equiv));
    }

    #[test]
    fn over_all_draws_of_cosets_the_unbiased_estimate_is_right(
        twisted in Twisted::any((2usize..5).prop_map(|blocks| 4 * blocks)),
    ) {
        // Four predictions to a block, and two blocks to a draw, the same one twice included.
        let blocks = twisted.blocks(4);
        let all: Vec<&Vec<f64>> = twisted.predictions.iter().collect();
        let mu = mean(&all);
        let equiv = all.iter().map(|z| square(&difference(z, &mu))).sum::<f64>() / all.len() as f64;
        let draws = draws(blocks.len(), 2);
        let of = |draw: &Vec<usize>| {
            let cosets: Vec<Vec<usize>> = draw.iter().map(|k| blocks[*k].clone()).collect();
            twisted.terms(&cosets, PointLoss::Mse, Estimator::Unbiased)
        };
        let terms: Vec<SampleTerms> = draws.iter().map(of).collect();
        let expected = |f: fn(&SampleTerms) -> f64| terms.iter().map(f).sum::<f64>() / terms.len() as f64;
        let scale = equiv + square(&mu);
        prop_assert!((expected(|t| t.loss_equiv) - equiv).abs() <= ROUNDING * scale);
        prop_assert!((expected(|t| t.power_twirled) - square(&mu)).abs() <= ROUNDING * scale);
    }

    #[test]
    fn percents_have_no_unit(
        samples in prop::collection::vec(Twisted::any(Just(4)), 1..4), loss in loss(),
        factor in prop_oneof![1e-3..1.0, 1.0..1e3],
    ) {
        let terms = |factor: f64| -> Vec<SampleTerms> {
            let of = |t: &Twisted| t.times(factor).terms(&t.blocks(1), loss, Estimator::Unbiased);
            samples.iter().map(of).collect()
        };
        let (one, other) = (estimate(&terms(1.0)), estimate(&terms(factor)));
        let without_unit = |e: &Estimate| [
            e.pooled.percent(), e.percent_per_sample, 100.0 * e.relative_equiv,
        ];
        // A percent of 100 with the rounding of a ratio, each of whose terms is a sum.
        prop_assert!(
            distance(&without_unit(&one), &without_unit(&other)) < 1e-9,
            "{one:?} {other:?}"
        );
        let degree = if loss == PointLoss::Mse { 2 } else { 1 };
        let scaled = one.pooled.total() * factor.powi(degree);
        prop_assert!((other.pooled.total() - scaled).abs() <= ROUNDING * scaled);
    }

    #[test]
    fn the_order_of_samples_changes_rounding_only(
        samples in prop::collection::vec(Twisted::any(Just(4)), 1..8),
    ) {
        let of = |t: &Twisted| t.terms(&t.blocks(1), PointLoss::Mse, Estimator::Unbiased);
        let mut terms: Vec<SampleTerms> = samples.iter().map(of).collect();
        let one = estimate(&terms);
        terms.reverse();
        let other = estimate(&terms);
        let numbers = |e: &Estimate| [
            e.pooled.twirled, e.pooled.equivariance, e.percent_per_sample, e.power_target,
            e.power_twirled, e.relative_equiv,
        ];
        let scale = 100.0 + one.pooled.total() + one.power_twirled.abs();
        prop_assert!(distance(&numbers(&one), &numbers(&other)) < ROUNDING * scale);
    }
}
