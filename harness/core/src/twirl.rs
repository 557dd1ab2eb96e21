//! The twirled prediction of one sample: running coset means and variances of its twisted predictions, in f64.
//!
//! With coset means `m_k`, residuals `r_k = m_k − y`, `n` twisted predictions `Z_i` in `K` cosets:
//! `L = within + mean_k ‖r_k‖²` with `within = mean_i ‖Z_i − m_{k(i)}‖²`, and without bias
//! `L_equiv = within + Σ_k ‖r_k − r̄‖² / (K − 1)`, which equals `L` minus the cross products `r_j·r_k`, `j ≠ k`, but never
//! subtracts two large numbers. Independent rotations are the case of cosets with one element.

use crate::{
    GridRotation, PointLoss,
    estimate::{Estimator, SampleTerms},
};
use rayon::prelude::*;

/// Collects the twisted predictions of one sample.
#[derive(Clone, Debug)]
pub struct TwirlAccumulator {
    target: Vec<f64>,
    loss: PointLoss,
    width: usize,
    /// `[cosets][components]` running means.
    means: Vec<Vec<f64>>,
    counts: Vec<usize>,
    /// Σ ‖Z − m‖² inside cosets.
    scatter: f64,
    /// Σ loss(Z, y), for losses other than the square.
    pointwise: f64,
}

impl TwirlAccumulator {
    /// Starts a sample with the target `y` (`rows × width` numbers) and a number of cosets.
    #[must_use]
    pub fn new(target: Vec<f64>, width: usize, cosets: usize, loss: PointLoss) -> Self {
        let means = vec![vec![0.0; target.len()]; cosets];
        Self {
            target,
            loss,
            width,
            means,
            counts: vec![0; cosets],
            scatter: 0.0,
            pointwise: 0.0,
        }
    }

    /// Adds one twisted prediction to a coset.
    pub fn push(&mut self, coset: usize, twisted: &[f64]) {
        self.counts[coset] += 1;
        let weight = 1.0 / self.counts[coset] as f64;
        for (mean, &z) in self.means[coset].iter_mut().zip(twisted) {
            self.scatter += welford_one(mean, z, weight);
        }
        if self.loss != PointLoss::Mse {
            self.pointwise += self.loss.sum(twisted, &self.target, self.width);
        }
    }

    /// Adds one prediction on grids that is still to be rotated, which happens on the way: no rotated copy is made.
    ///
    /// The same as rotating and [`push`](Self::push), with the scatter summed grid by grid.
    pub fn push_rotated<T: Copy + Default + Into<f64> + Send + Sync>(
        &mut self,
        coset: usize,
        turn: &GridRotation,
        prediction: &[T],
    ) {
        if self.loss != PointLoss::Mse {
            let mut twisted = vec![0.0; prediction.len()];
            let grids = prediction
                .par_chunks_exact(turn.points())
                .zip(twisted.par_chunks_exact_mut(turn.points()));
            grids.for_each(|(from, to): (&[T], &mut [f64])| {
                let widen = |(to, from): (&mut f64, &T)| *to = (*from).into();
                turn.for_each_row(from, |offset, row| {
                    to[offset..].iter_mut().zip(row).for_each(widen)
                });
            });
            return self.push(coset, &twisted);
        }
        self.counts[coset] += 1;
        let weight = 1.0 / self.counts[coset] as f64;
        let grids = self.means[coset]
            .par_chunks_exact_mut(turn.points())
            .zip(prediction.par_chunks_exact(turn.points()));
        let add = |near: &mut Vec<T>, (mean, from): (&mut [f64], &[T])| {
            let mut scatter = 0.0;
            // Read in one stretch first: strided reads then meet the cache and not the memory (0.61 against 0.54 of a copy's bandwidth).
            near.clear();
            near.extend_from_slice(from);
            let from = near.as_slice();
            turn.for_each_row(from, |offset, row| {
                scatter += welford(&mut mean[offset..offset + row.len()], row, weight)
            });
            scatter
        };
        // In the widest registers that the machine has; every lane rounds as a single number does, so bits stay the same.
        let scatters: Vec<f64> = grids
            .map_init(Vec::new, |near, grid| {
                pulp::Arch::new().dispatch(|| add(near, grid))
            })
            .collect();
        // Collected in order: the sum does not depend on the number of threads.
        self.scatter += scatters.iter().sum::<f64>();
    }

    /// The twirled prediction μ̂, the mean of all.
    #[must_use]
    pub fn twirled(&self) -> Vec<f64> {
        let k = self.means.len() as f64;
        (0..self.target.len())
            .map(|i| self.means.iter().map(|m| m[i]).sum::<f64>() / k)
            .collect()
    }

    /// How uncertain the twirled prediction is: `Σ_k ‖m_k − μ̂‖² / (K (K − 1))`, an unbiased estimate of `E ‖μ̂ − μ‖²` from independent
    /// cosets, summed over components. `None` for one coset, which says nothing of itself.
    #[must_use]
    pub fn twirled_variance(&self) -> Option<f64> {
        let k = self.means.len() as f64;
        let twirled = self.twirled();
        let pairs = self.means.iter().flat_map(|m| m.iter().zip(&twirled));
        let between: f64 = pairs.map(|(m, mu)| (m - mu).powi(2)).sum();
        (self.means.len() > 1).then(|| between / (k * (k - 1.0)))
    }

    /// The terms of the sample, summed over its components (not yet divided by D).
    ///
    /// The unbiased estimator needs two cosets; a set used whole has one and is exact as it is.
    #[must_use]
    pub fn finish(&self, estimator: Estimator) -> SampleTerms {
        let n = self.counts.iter().sum::<usize>() as f64;
        let k = self.means.len() as f64;
        let twirled = self.twirled();
        let square = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>();
        let within = self.scatter / n;
        let residual: f64 = self
            .means
            .iter()
            .map(|m| square(&mut m.iter().zip(&self.target).map(|(m, y)| m - y)))
            .sum::<f64>()
            / k;
        let between: f64 = self
            .means
            .iter()
            .map(|m| square(&mut m.iter().zip(&twirled).map(|(m, mu)| m - mu)))
            .sum();
        let spread = match estimator {
            Estimator::PlugIn => between / k,
            Estimator::Unbiased if self.means.len() > 1 => between / (k - 1.0),
            Estimator::Unbiased => 0.0,
        };
        let power_plug_in = square(&mut twirled.iter().copied());
        let power_twirled = if estimator == Estimator::Unbiased && self.means.len() > 1 {
            // Var(mean of K cosets) = spread / K.
            power_plug_in - spread / k
        } else {
            power_plug_in
        };
        let (loss_total, loss_equiv, loss_equiv_plug_in) = if self.loss == PointLoss::Mse {
            (within + residual, within + spread, within + between / k)
        } else {
            // Any other convex loss: L_equiv := L − l(μ, y), non-negative by Jensen.
            let total = self.pointwise / n;
            let equiv = total - self.loss.sum(&twirled, &self.target, self.width);
            (total, equiv, equiv)
        };
        SampleTerms {
            components: self.loss.denominator(self.target.len(), self.width),
            loss_total,
            loss_equiv,
            loss_equiv_plug_in,
            power_target: square(&mut self.target.iter().copied()),
            power_twirled,
            power_spread: within + spread,
            prediction_components: self.target.len() as f64,
        }
    }
}

/// Welford: the mean moves by `d/n`, the scatter grows by `d · (z − new mean)`, which is returned.
#[inline(always)]
fn welford_one(mean: &mut f64, z: f64, weight: f64) -> f64 {
    let d = z - *mean;
    *mean += d * weight;
    d * (z - *mean)
}

/// A row of them, summed in eight lanes so that additions need not wait for each other.
#[inline(always)]
fn welford<T: Copy + Into<f64>>(means: &mut [f64], row: &[T], weight: f64) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    let (mut means, mut numbers) = (means.chunks_exact_mut(LANES), row.chunks_exact(LANES));
    for (means, numbers) in (&mut means).zip(&mut numbers) {
        for ((sum, mean), &z) in sums.iter_mut().zip(means).zip(numbers) {
            *sum += welford_one(mean, z.into(), weight);
        }
    }
    let rest = means.into_remainder().iter_mut().zip(numbers.remainder());
    sums.iter().sum::<f64>()
        + rest
            .map(|(mean, &z)| welford_one(mean, z.into(), weight))
            .sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FiniteGroup, Seed, seed::uniform};

    #[test]
    fn the_variance_of_a_twirl_is_its_squared_error_over_many_repeats() {
        // Predictions of variance 1/12 in each of two components, in three cosets of four: E ‖μ̂ − μ‖² = 2/12/12.
        let mut stream = Seed::new(3).stream("predictions");
        let (mut error, mut stated) = (0.0, 0.0);
        let repeats = 4000;
        for _ in 0..repeats {
            let mut twirl = TwirlAccumulator::new(vec![0.0; 2], 2, 3, PointLoss::Mse);
            for i in 0..12 {
                twirl.push(i / 4, &[uniform(&mut stream), uniform(&mut stream)]);
            }
            let of = |m: &f64| (m - 0.5).powi(2);
            error += twirl.twirled().iter().map(of).sum::<f64>() / f64::from(repeats);
            stated += twirl.twirled_variance().unwrap() / f64::from(repeats);
        }
        let truth = 2.0 / 144.0;
        // Squares of two (four) near-normal numbers: relative deviation 1 (0.7), over √4000; five of these.
        assert!((error / truth - 1.0).abs() < 5.0 / 63.0, "{error} {truth}");
        assert!(
            (stated / truth - 1.0).abs() < 5.0 / 63.0,
            "{stated} {truth}"
        );
        let alone = TwirlAccumulator::new(vec![0.0], 1, 1, PointLoss::Mse);
        assert_eq!(alone.twirled_variance(), None);
    }

    #[test]
    fn rotating_on_the_way_equals_rotating_first() {
        let (side, channels) = (5, 3);
        let mut stream = Seed::new(1).stream("grid");
        let mut draw =
            |n: usize| -> Vec<f64> { (0..n).map(|_| uniform(&mut stream) - 0.3).collect() };
        let size = channels * side * side * side;
        let target = draw(size);
        for loss in [PointLoss::Mse, PointLoss::Mae] {
            let start = || TwirlAccumulator::new(target.clone(), size, 1, loss);
            let (mut fused, mut single, mut plain) = (start(), start(), start());
            for rotation in FiniteGroup::Octahedral.elements() {
                let rounded: Vec<f32> = draw(size).into_iter().map(|v| v as f32).collect();
                let prediction: Vec<f64> = rounded.iter().map(|&v| f64::from(v)).collect();
                let turn = GridRotation::new(&rotation, side).unwrap();
                let mut twisted = vec![0.0; size];
                let grids = twisted
                    .chunks_exact_mut(turn.points())
                    .zip(prediction.chunks_exact(turn.points()));
                grids.for_each(|(to, from)| turn.rotate(from, to));
                fused.push_rotated(0, &turn, &prediction);
                single.push_rotated(0, &turn, &rounded);
                plain.push(0, &twisted);
            }
            assert_eq!(fused.twirled(), plain.twirled());
            let [fused, single, plain] =
                [fused, single, plain].map(|twirl| twirl.finish(Estimator::Unbiased));
            assert_eq!(
                single, fused,
                "numbers in single precision are widened exactly"
            );
            // The same squares, added in another order: 1e-16 for each of 9,000.
            assert!((fused.loss_equiv / plain.loss_equiv - 1.0).abs() < 1e-13);
            assert!((fused.loss_total / plain.loss_total - 1.0).abs() < 1e-13);
        }
    }
}
