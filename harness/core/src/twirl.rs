//! The twirled prediction of one sample: running coset means and variances of its twisted predictions, in f64.
//!
//! With coset means `m_k`, residuals `r_k = m_k − y`, `n` twisted predictions `Z_i` in `K` cosets:
//! `L = within + mean_k ‖r_k‖²` with `within = mean_i ‖Z_i − m_{k(i)}‖²`, and without bias
//! `L_equiv = within + Σ_k ‖r_k − r̄‖² / (K − 1)`, which equals `L` minus the cross products `r_j·r_k`, `j ≠ k`, but never
//! subtracts two large numbers. Independent rotations are the case of cosets with one element.

use crate::{
    PointLoss,
    estimate::{Estimator, SampleTerms},
};

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
        Self { target, loss, width, means, counts: vec![0; cosets], scatter: 0.0, pointwise: 0.0 }
    }

    /// Adds one twisted prediction to a coset.
    pub fn push(&mut self, coset: usize, twisted: &[f64]) {
        self.counts[coset] += 1;
        let weight = 1.0 / self.counts[coset] as f64;
        // Welford: the mean moves by d/n, the scatter grows by d · (z − new mean).
        for (mean, &z) in self.means[coset].iter_mut().zip(twisted) {
            let d = z - *mean;
            *mean += d * weight;
            self.scatter += d * (z - *mean);
        }
        if self.loss != PointLoss::Mse {
            self.pointwise += self.loss.sum(twisted, &self.target, self.width);
        }
    }

    /// The twirled prediction μ̂, the mean of all.
    #[must_use]
    pub fn twirled(&self) -> Vec<f64> {
        let k = self.means.len() as f64;
        (0..self.target.len()).map(|i| self.means.iter().map(|m| m[i]).sum::<f64>() / k).collect()
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
        let residual: f64 = self.means.iter().map(|m| square(&mut m.iter().zip(&self.target).map(|(m, y)| m - y))).sum::<f64>() / k;
        let between: f64 = self.means.iter().map(|m| square(&mut m.iter().zip(&twirled).map(|(m, mu)| m - mu))).sum();
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
        let (loss_total, loss_equiv) = if self.loss == PointLoss::Mse {
            (within + residual, within + spread)
        } else {
            // Any other convex loss: L_equiv := L − l(μ, y), non-negative by Jensen.
            let total = self.pointwise / n;
            (total, total - self.loss.sum(&twirled, &self.target, self.width))
        };
        SampleTerms {
            components: self.loss.denominator(self.target.len(), self.width),
            loss_total,
            loss_equiv,
            power_target: square(&mut self.target.iter().copied()),
            power_twirled,
            power_spread: within + spread,
            prediction_components: self.target.len() as f64,
        }
    }
}
