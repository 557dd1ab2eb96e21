//! Gradients of the parts of a loss: what the loss of one sample asks of each twisted prediction, and its product with the model.
//!
//! With `n` twisted predictions `Z_i` of a sample in `K` cosets of equal size, coset means `m_k` and their mean `μ`, the parts of the
//! squared error (see [`TwirlAccumulator`](crate::TwirlAccumulator)) have the derivatives
//! `∂L/∂Z_i = 2/n (Z_i − y)` and `∂L_equiv/∂Z_i = 2/n (Z_i − m_k) + c (m_k − μ)`, where `c = 2K/(n (K − 1))` without bias and `2/n` for
//! the plug-in estimate; of any other convex loss `l`, `∂L/∂Z_i = l'(Z_i − y)/n` and `∂L_mean/∂Z_i = l'(μ − y)/n`. Either way
//! `L = L_mean + L_equiv`. The cotangent of a copy is that derivative, rotated into the frame of the copy.

use crate::{Batch, CoreError, Estimator, Model, PointLoss, Portion, RotatedCopies};
use std::ops::Range;

/// A part of the loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LossPart {
    /// `L`, the loss of the twisted predictions.
    Total,
    /// `L_mean`, the loss of the twirled prediction.
    Twirled,
    /// `L_equiv`, the equivariance error.
    Equivariance,
}

impl LossPart {
    /// All parts.
    pub const ALL: [Self; 3] = [Self::Total, Self::Twirled, Self::Equivariance];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Total => "loss_total",
            Self::Twirled => "loss_twirled",
            Self::Equivariance => "loss_equiv",
        }
    }
}

/// The means of the twisted predictions of one sample: of each coset, and of all.
struct Means {
    cosets: Vec<Vec<f64>>,
    counts: Vec<usize>,
}

impl Means {
    fn new(cosets: usize, components: usize) -> Self {
        Self {
            cosets: vec![vec![0.0; components]; cosets],
            counts: vec![0; cosets],
        }
    }

    fn push(&mut self, coset: usize, twisted: &[f64]) {
        self.counts[coset] += 1;
        let weight = 1.0 / self.counts[coset] as f64;
        for (mean, z) in self.cosets[coset].iter_mut().zip(twisted) {
            *mean += weight * (z - *mean);
        }
    }

    fn twirled(&self) -> Vec<f64> {
        let k = self.cosets.len() as f64;
        let mean = |i: usize| self.cosets.iter().map(|m| m[i]).sum::<f64>() / k;
        (0..self.cosets[0].len()).map(mean).collect()
    }
}

/// What a part of the loss of one sample asks of one twisted prediction: its derivative, summed over components, not divided by D.
struct Cotangent<'a> {
    part: LossPart,
    loss: PointLoss,
    estimator: Estimator,
    target: &'a [f64],
    width: usize,
}

impl<'a> Cotangent<'a> {
    fn new(part: LossPart, portion: &Portion, copies: &RotatedCopies<'a>, sample: usize) -> Self {
        Self {
            part,
            loss: portion.how.loss,
            estimator: portion.how.estimator,
            target: copies.target(sample),
            width: copies.width(),
        }
    }

    fn of(&self, twisted: &[f64], coset: usize, means: &Means, twirled: &[f64]) -> Vec<f64> {
        let n = means.counts.iter().sum::<usize>() as f64;
        let pull = |prediction: &[f64]| {
            let mut slope = self.loss.slope(prediction, self.target, self.width);
            slope.iter_mut().for_each(|s| *s /= n);
            slope
        };
        if self.part == LossPart::Total {
            return pull(twisted);
        }
        let equivariance = match self.loss {
            PointLoss::Mse => self.spread(twisted, coset, means, twirled),
            _ => difference(&pull(twisted), &pull(twirled)),
        };
        match self.part {
            LossPart::Equivariance => equivariance,
            _ => difference(&pull(twisted), &equivariance),
        }
    }

    /// The derivative of `within + between / (K − 1)` (or `/ K`) of the squared error.
    fn spread(&self, twisted: &[f64], coset: usize, means: &Means, twirled: &[f64]) -> Vec<f64> {
        let (n, k) = (
            means.counts.iter().sum::<usize>() as f64,
            means.cosets.len() as f64,
        );
        let between = match self.estimator {
            Estimator::PlugIn => 2.0 / n,
            Estimator::Unbiased if k > 1.0 => 2.0 * k / (n * (k - 1.0)),
            Estimator::Unbiased => 0.0,
        };
        let own = &means.cosets[coset];
        let at = |i: usize| 2.0 / n * (twisted[i] - own[i]) + between * (own[i] - twirled[i]);
        (0..twisted.len()).map(at).collect()
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Gradients of parts of the loss of a group of parameters, summed over samples on their way to a mean.
#[derive(Clone, Debug)]
pub struct GradientSum {
    parts: Vec<LossPart>,
    gradients: Vec<Vec<f64>>,
    weight: f64,
}

impl GradientSum {
    /// Of these parts; nothing so far.
    #[must_use]
    pub fn of(parts: &[LossPart]) -> Self {
        Self {
            parts: parts.to_vec(),
            gradients: vec![Vec::new(); parts.len()],
            weight: 0.0,
        }
    }

    /// The gradients of the pooled loss, in the order of the parts.
    #[must_use]
    pub fn means(mut self) -> Vec<Vec<f64>> {
        let weight = self.weight;
        let all = self.gradients.iter_mut().flatten();
        all.for_each(|g| *g /= weight);
        self.gradients
    }
}

/// Where the predictions of rotated copies come from, and where cotangents go: block of copies by block of copies.
pub trait Pullback {
    /// The blocks: each holds the copies that follow those of the block before.
    fn blocks(&self) -> Vec<Range<usize>>;
    /// Predicts the copies of a block, copy after copy, each in its own frame.
    ///
    /// # Errors
    /// What the model reports.
    fn predict(&mut self, block: usize, out: &mut Vec<f64>) -> Result<(), CoreError>;
    /// Gradient of `sum(cotangent · prediction)` of a block with respect to the parameters.
    ///
    /// # Errors
    /// What the model reports.
    fn pull(
        &mut self,
        block: usize,
        cotangent: &[f64],
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError>;
}

/// The whole model, one copy at a time.
pub struct BlindCopies<'a> {
    model: &'a mut dyn Model,
    copies: &'a RotatedCopies<'a>,
    group: &'a str,
    /// The copy that was predicted last.
    last: (usize, Batch),
}

impl<'a> BlindCopies<'a> {
    /// Copies for products with the parameters of a group.
    pub fn new(model: &'a mut dyn Model, copies: &'a RotatedCopies<'a>, group: &'a str) -> Self {
        Self {
            model,
            copies,
            group,
            last: (usize::MAX, Batch::default()),
        }
    }

    fn turn_to(&mut self, copy: usize) -> Result<(), CoreError> {
        if self.last.0 != copy {
            self.last = (copy, self.copies.batch(copy..copy + 1)?);
        }
        Ok(())
    }
}

impl Pullback for BlindCopies<'_> {
    fn blocks(&self) -> Vec<Range<usize>> {
        (0..self.copies.count()).map(|i| i..i + 1).collect()
    }
    fn predict(&mut self, block: usize, out: &mut Vec<f64>) -> Result<(), CoreError> {
        self.turn_to(block)?;
        let weights = self.copies.portion().how.weights;
        self.model.predict_into(&self.last.1, weights, out)
    }
    fn pull(
        &mut self,
        block: usize,
        cotangent: &[f64],
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        self.turn_to(block)?;
        self.model
            .vjp_into(&self.last.1, cotangent, self.group, out)
    }
}

/// Numbers of twisted predictions that are kept rather than predicted again: a quarter of a gigabyte.
const KEPT_NUMBERS: usize = 1 << 25;

/// Adds the gradients of parts of the loss of rotated copies, wherever their predictions come from. Every copy is predicted once, or twice
/// where predictions take more than a quarter of a gigabyte, and multiplied once for each part.
///
/// # Errors
/// A condition that reads a further pass, what `pullback` reports, and whatever `watch` returns.
pub fn pull_back(
    copies: &RotatedCopies<'_>,
    pullback: &mut dyn Pullback,
    weigh_samples: bool,
    sum: &mut GradientSum,
    watch: &mut dyn FnMut() -> Result<(), CoreError>,
) -> Result<(), CoreError> {
    let mut readings = copies.portion().readings.iter();
    if readings.any(|reading| reading.pass > 0) {
        return Err(CoreError::Shape(
            "the gradient of a condition that reads a further pass is not defined: what is fed back is not differentiated".into(),
        ));
    }
    let blocks = pullback.blocks();
    let mut kept: Vec<Vec<f64>> = Vec::new();
    let keeps = copies.len() * copies.count() <= KEPT_NUMBERS;
    let mut means = Moments::new(copies);
    for (b, block) in blocks.iter().enumerate() {
        let twisted = twisted_block(copies, pullback, b, block)?;
        means.push(copies, block, &twisted);
        if keeps {
            kept.push(twisted);
        }
        watch()?;
    }
    let twirled: Vec<Vec<f64>> = means.0.iter().map(Means::twirled).collect();
    let mut product = Vec::new();
    for (b, block) in blocks.iter().enumerate() {
        let again;
        let twisted = match kept.get(b) {
            Some(kept) => kept,
            None => {
                again = twisted_block(copies, pullback, b, block)?;
                &again
            }
        };
        for (&part, gradient) in sum.parts.iter().zip(&mut sum.gradients) {
            let asked = Asked {
                part,
                weigh_samples,
                means: &means,
                twirled: &twirled,
            };
            pullback.pull(b, &asked.of(copies, block, twisted)?, &mut product)?;
            gradient.resize(product.len(), 0.0);
            gradient.iter_mut().zip(&product).for_each(|(g, p)| *g += p);
            watch()?;
        }
    }
    let over = (0..copies.samples()).map(|s| copies.denominator(s));
    sum.weight += over
        .map(|over| if weigh_samples { 1.0 } else { over })
        .sum::<f64>();
    Ok(())
}

/// The twisted predictions of a block, copy after copy.
fn twisted_block(
    copies: &RotatedCopies<'_>,
    pullback: &mut dyn Pullback,
    index: usize,
    block: &Range<usize>,
) -> Result<Vec<f64>, CoreError> {
    let mut twisted = Vec::new();
    pullback.predict(index, &mut twisted)?;
    if twisted.len() != block.len() * copies.len() {
        return Err(CoreError::Shape(format!(
            "the model predicts {} numbers for {} copies of {}",
            twisted.len(),
            block.len(),
            copies.len()
        )));
    }
    for (copy, own) in block.clone().zip(twisted.chunks_exact_mut(copies.len())) {
        copies.twist(copy, own)?;
    }
    Ok(twisted)
}

/// The means of every sample.
struct Moments(Vec<Means>);

impl Moments {
    fn new(copies: &RotatedCopies<'_>) -> Self {
        let of = |s: usize| Means::new(copies.portion().plans[s].cosets, copies.target(s).len());
        Self((0..copies.samples()).map(of).collect())
    }

    fn push(&mut self, copies: &RotatedCopies<'_>, block: &Range<usize>, twisted: &[f64]) {
        let plans = &copies.portion().plans;
        for (copy, twisted) in block.clone().zip(twisted.chunks_exact(copies.len())) {
            for (s, means) in self.0.iter_mut().enumerate() {
                means.push(plans[s].coset_of(copy), &twisted[copies.range(s)]);
            }
        }
    }
}

/// What a part of the loss asks of copies.
struct Asked<'a> {
    part: LossPart,
    weigh_samples: bool,
    means: &'a Moments,
    twirled: &'a [Vec<f64>],
}

impl Asked<'_> {
    /// The cotangents of a block, copy after copy, each in the frame of its copy.
    fn of(
        &self,
        copies: &RotatedCopies<'_>,
        block: &Range<usize>,
        twisted: &[f64],
    ) -> Result<Vec<f64>, CoreError> {
        let portion = copies.portion();
        let mut cotangents = vec![0.0; twisted.len()];
        let of_copies = twisted
            .chunks_exact(copies.len())
            .zip(cotangents.chunks_exact_mut(copies.len()));
        for (copy, (twisted, cotangent)) in block.clone().zip(of_copies) {
            for s in 0..copies.samples() {
                let asks = Cotangent::new(self.part, portion, copies, s);
                let coset = portion.plans[s].coset_of(copy);
                let (own, z) = (&mut cotangent[copies.range(s)], &twisted[copies.range(s)]);
                own.copy_from_slice(&asks.of(z, coset, &self.means.0[s], &self.twirled[s]));
                let over = if self.weigh_samples {
                    copies.denominator(s)
                } else {
                    1.0
                };
                own.iter_mut().for_each(|c| *c /= over);
            }
            copies.untwist(copy, cotangent)?;
        }
        Ok(cotangents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Field, FieldKind, LossDecomposition, Measurement, Rows, Scheme, Seed, StepFigures,
        Supervised, Weights, measure,
    };

    /// `f(x) = sin(A x) + b` row by row, with `A` (row-major) and `b` as parameters: neither equivariant nor linear.
    struct Bent(Vec<f64>);

    impl Bent {
        fn row(&self, x: &[f64]) -> [f64; 3] {
            [0, 1, 2].map(|i| {
                let along: f64 = (0..3).map(|j| self.0[3 * i + j] * x[j]).sum();
                along.sin() + self.0[9 + i]
            })
        }
    }

    impl Model for Bent {
        fn output_kind(&self) -> FieldKind {
            FieldKind::Vector
        }
        fn output_rows(&self) -> Rows {
            Rows::Point
        }
        fn output_width(&self, _: &Batch) -> usize {
            3
        }
        fn predict_into(
            &mut self,
            batch: &Batch,
            _: Weights,
            out: &mut Vec<f64>,
        ) -> Result<(), CoreError> {
            let x = batch.field("positions")?.reals()?;
            *out = x.chunks(3).flat_map(|x| self.row(x)).collect();
            Ok(())
        }
        fn vjp_into(
            &mut self,
            batch: &Batch,
            cotangent: &[f64],
            _: &str,
            out: &mut Vec<f64>,
        ) -> Result<(), CoreError> {
            *out = vec![0.0; 12];
            let x = batch.field("positions")?.reals()?;
            for (x, c) in x.chunks(3).zip(cotangent.chunks(3)) {
                for i in 0..3 {
                    let along: f64 = (0..3).map(|j| self.0[3 * i + j] * x[j]).sum();
                    (0..3).for_each(|j| out[3 * i + j] += c[i] * along.cos() * x[j]);
                    out[9 + i] += c[i];
                }
            }
            Ok(())
        }
        fn set_parameters(&mut self, _: &str, values: &[f64]) -> Result<(), CoreError> {
            self.0 = values.to_vec();
            Ok(())
        }
        fn parameters_into(&self, _: &str, out: &mut Vec<f64>) -> Result<(), CoreError> {
            out.clone_from(&self.0);
            Ok(())
        }
        fn train_step(&mut self, _: &Batch) -> Result<StepFigures, CoreError> {
            Ok(StepFigures::default())
        }
        fn save(&self) -> Result<Vec<u8>, CoreError> {
            Ok(Vec::new())
        }
        fn load(&mut self, _: &[u8]) -> Result<(), CoreError> {
            Ok(())
        }
        fn synchronise(&mut self) -> Result<(), CoreError> {
            Ok(())
        }
    }

    const START: [f64; 12] = [
        0.7, -0.2, 0.4, 0.1, 0.9, -0.5, -0.3, 0.2, 1.1, 0.3, -0.1, 0.2,
    ];

    /// Two samples of two and of one point.
    fn portion(scheme: &str, loss: PointLoss, estimator: Estimator) -> Portion {
        let cloud = |name: &str, shift: f64| {
            let values = (0..9).map(|i| (f64::from(i) * 1.3 + shift).sin()).collect();
            Field::real(name, FieldKind::Vector, Rows::Point, vec![3, 3], values)
        };
        let samples = Supervised {
            inputs: Batch {
                offsets: vec![0, 2, 3],
                fields: vec![cloud("positions", 0.2)],
            },
            target: Some(cloud("target", 2.0)),
            labels: Vec::new(),
        };
        let scheme = Scheme::parse(scheme).unwrap();
        let plans = [0, 1].map(|s| scheme.plan(Seed::new(5), s));
        let how = Measurement {
            weights: Weights::Raw,
            loss,
            estimator,
        };
        Portion::new(samples, &plans, how)
    }

    /// `L`, `L_mean`, `L_equiv` as they are measured.
    fn losses(portion: &Portion, parameters: &[f64], weigh_samples: bool) -> [f64; 3] {
        let mut model = Bent(parameters.to_vec());
        let (plans, how) = (&portion.plans, portion.how);
        let terms = measure(&mut model, &portion.samples, plans, how).unwrap();
        let terms: Vec<_> = terms
            .iter()
            .map(|t| if weigh_samples { t.averaged() } else { *t })
            .collect();
        let samples = crate::MeasuredSample::independent(&terms);
        let estimate = crate::pool(&samples, false, Seed::new(0));
        let LossDecomposition {
            twirled,
            equivariance,
        } = estimate.pooled;
        [twirled + equivariance, twirled, equivariance]
    }

    #[test]
    fn gradients_of_all_parts_are_those_of_the_measured_losses() {
        for (scheme, estimator) in [
            ("random-4", Estimator::Unbiased),
            ("random-4", Estimator::PlugIn),
            ("tetrahedral-x2", Estimator::Unbiased),
            ("tetrahedral-x3", Estimator::PlugIn),
            ("octahedral", Estimator::Unbiased),
        ] {
            for loss in [PointLoss::Mse, PointLoss::Mae, PointLoss::L2] {
                for weigh in [false, true] {
                    let portion = portion(scheme, loss, estimator);
                    check(
                        &portion,
                        weigh,
                        &format!("{scheme} {estimator:?} {loss:?} {weigh}"),
                    );
                }
            }
        }
    }

    fn add_gradients(
        model: &mut dyn Model,
        portion: &Portion,
        weigh_samples: bool,
        sum: &mut GradientSum,
        watch: &mut dyn FnMut() -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        let copies = RotatedCopies::new(model, portion)?;
        let mut blind = BlindCopies::new(model, &copies, "all");
        pull_back(&copies, &mut blind, weigh_samples, sum, watch)
    }

    /// Against central differences of the measured losses.
    fn check(portion: &Portion, weigh: bool, what: &str) {
        for (p, part) in LossPart::ALL.into_iter().enumerate() {
            let mut sum = GradientSum::of(&[part]);
            let mut model = Bent(START.to_vec());
            add_gradients(&mut model, portion, weigh, &mut sum, &mut || Ok(())).unwrap();
            let gradient = sum.means();
            for (i, found) in gradient[0].iter().enumerate() {
                let h = 1e-5;
                let at = |h: f64| {
                    let mut parameters = START;
                    parameters[i] += h;
                    losses(portion, &parameters, weigh)[p]
                };
                let expected = (at(h) - at(-h)) / (2.0 * h);
                // Third derivatives of order one times h² = 1e-10, and rounding of the losses, 1e-16 / h.
                assert!(
                    (found - expected).abs() < 1e-8,
                    "{what} {part:?} {i}: {found} {expected}"
                );
            }
        }
    }

    #[test]
    fn a_sum_over_portions_is_the_gradient_of_the_pooled_loss() {
        let one = portion("random-3", PointLoss::Mse, Estimator::Unbiased);
        let mut model = Bent(START.to_vec());
        let parts = [LossPart::Equivariance, LossPart::Total];
        let mut twice = GradientSum::of(&parts);
        let mut once = GradientSum::of(&parts);
        for sum in [&mut once, &mut twice] {
            add_gradients(&mut model, &one, false, sum, &mut || Ok(())).unwrap();
        }
        add_gradients(&mut model, &one, false, &mut twice, &mut || Ok(())).unwrap();
        for (a, b) in once
            .means()
            .iter()
            .flatten()
            .zip(twice.means().iter().flatten())
        {
            // The same sum twice over twice the weight.
            assert!((a - b).abs() < 1e-15);
        }
    }

    #[test]
    fn further_passes_have_no_gradient_and_a_watcher_ends_it() {
        let mut fed = portion("random-3", PointLoss::Mse, Estimator::Unbiased);
        let mut model = Bent(START.to_vec());
        let mut sum = GradientSum::of(&[LossPart::Total]);
        let stop = &mut || Err(CoreError::Stopped);
        let ended = add_gradients(&mut model, &fed, false, &mut sum, stop);
        assert!(matches!(ended, Err(CoreError::Stopped)));
        fed.readings = [crate::Reading {
            pass: 1,
            ..Default::default()
        }]
        .into();
        let error = add_gradients(&mut model, &fed, false, &mut sum, &mut || Ok(()));
        assert!(error.unwrap_err().to_string().contains("further pass"));
    }
}
