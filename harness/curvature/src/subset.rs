//! The parts of the loss at a fixed batch with fixed rotations, as functions of a subset of the parameters.

use equivbench_core::{
    BlindCopies, CoreError, GradientSum, LinearGroup, LossPart, Model, Portion, Pullback,
    RotatedCopies, TwirlAccumulator, pull_back,
};
use std::ops::Range;

/// Points of copies that are kept as one batch at most: what lies between pairs of 60 of them is 0.1 GB at a width of 32 in f64.
const POINTS: usize = 4096;
/// Numbers of predictions of copies that are kept as one batch at most.
const NUMBERS: usize = 1 << 20;

/// Which parameters, and how samples weigh.
#[derive(Clone, Copy, Debug)]
pub struct SubsetOf<'a> {
    /// The group.
    pub group: &'a str,
    /// Whether each sample is averaged over its components first.
    pub weigh_samples: bool,
}

/// What is asked after each call into the model, and may end it.
pub type Watch<'a> = dyn FnMut() -> Result<(), CoreError> + 'a;

/// The parts of the loss at a fixed batch with fixed rotations, as functions of a subset of the parameters. What lies below the subset
/// is kept where the model can; parameters are as they were when it is dropped.
pub struct Subset<'a> {
    model: &'a mut dyn Model,
    copies: &'a RotatedCopies<'a>,
    of: SubsetOf<'a>,
    watch: &'a mut Watch<'a>,
    /// Parameters before the first move, once somebody asked: of a whole network they are gigabytes.
    start: Option<Vec<f64>>,
    has_moved: bool,
    /// Copies of each kept batch; `None` where the model keeps nothing.
    slots: Option<Vec<Range<usize>>>,
}

/// Kept batches as what predicts copies.
struct Kept<'a> {
    model: &'a mut dyn Model,
    group: &'a str,
    slots: &'a [Range<usize>],
}

impl Kept<'_> {
    fn below(&mut self) -> Result<Box<dyn equivbench_core::FrozenBelow + '_>, CoreError> {
        let group = self.group;
        self.model.frozen_below(group).ok_or_else(|| {
            CoreError::Model(format!(
                "it keeps nothing below the group \"{group}\" any more"
            ))
        })
    }
}

impl Pullback for Kept<'_> {
    fn blocks(&self) -> Vec<Range<usize>> {
        self.slots.to_vec()
    }
    fn predict(&mut self, block: usize, out: &mut Vec<f64>) -> Result<(), CoreError> {
        self.below()?.predict_into(block, out)
    }
    fn pull(
        &mut self,
        block: usize,
        cotangent: &[f64],
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        self.below()?.vjp_into(block, cotangent, out)
    }
}

impl<'a> Subset<'a> {
    /// Keeps what lies below the subset, where the model can.
    ///
    /// # Errors
    /// A condition that reads a further pass, an unknown group, what the model reports, a request to stop.
    pub fn new(
        model: &'a mut dyn Model,
        copies: &'a RotatedCopies<'a>,
        of: SubsetOf<'a>,
        watch: &'a mut Watch<'a>,
    ) -> Result<Self, CoreError> {
        let mut subset = Self {
            model,
            copies,
            of,
            watch,
            start: None,
            has_moved: false,
            slots: None,
        };
        subset.keep_below()?;
        Ok(subset)
    }

    fn keep_below(&mut self) -> Result<(), CoreError> {
        let copies = self.copies;
        let points = copies.portion().samples.inputs.points().max(1);
        let numbers = copies.len().max(1);
        let each = (POINTS / points)
            .min(NUMBERS / numbers)
            .clamp(1, copies.count());
        let Some(mut below) = self.model.frozen_below(self.of.group) else {
            return Ok(());
        };
        let mut slots = Vec::new();
        for first in (0..copies.count()).step_by(each) {
            let block = first..(first + each).min(copies.count());
            below.freeze(slots.len(), &copies.batch(block.clone())?, block.len())?;
            slots.push(block);
            (self.watch)()?;
        }
        drop(below);
        self.slots = Some(slots);
        Ok(())
    }

    /// Whether what lies below the subset is kept, so that a gradient costs the subset and not the network.
    #[must_use]
    pub const fn is_kept(&self) -> bool {
        self.slots.is_some()
    }

    /// Parameters at the start.
    ///
    /// # Errors
    /// An unknown group, or what the model reports.
    pub fn start(&mut self) -> Result<Vec<f64>, CoreError> {
        if let Some(start) = &self.start {
            return Ok(start.clone());
        }
        let mut start = Vec::new();
        self.model.parameters_into(self.of.group, &mut start)?;
        self.start = Some(start.clone());
        Ok(start)
    }

    /// The portion.
    #[must_use]
    pub const fn portion(&self) -> &'a Portion {
        self.copies.portion()
    }

    pub(crate) const fn copies(&self) -> &'a RotatedCopies<'a> {
        self.copies
    }

    /// What the sum of the loss over each sample counts in the mean.
    pub(crate) fn weights(&self) -> Vec<f64> {
        let all = self.weight();
        let over = (0..self.copies.samples()).map(|s| self.copies.denominator(s));
        over.map(|over| match self.of.weigh_samples {
            true => 1.0 / (all * over),
            false => 1.0 / all,
        })
        .collect()
    }

    /// What this batch counts in a mean over batches: its samples, or the components of their predictions.
    #[must_use]
    pub fn weight(&self) -> f64 {
        let samples = self.copies.samples();
        match self.of.weigh_samples {
            true => samples as f64,
            false => (0..samples).map(|s| self.copies.denominator(s)).sum(),
        }
    }

    /// How the prediction is linear in the subset, where it is and the model says so.
    pub fn linear(&mut self) -> Option<LinearGroup> {
        self.slots.as_ref()?;
        self.model.frozen_below(self.of.group)?.linear()
    }

    /// Features of some rows of the copies of a kept batch.
    pub(crate) fn features(
        &mut self,
        slot: usize,
        rows: Range<usize>,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        let group = self.of.group;
        let below = self.model.frozen_below(group);
        let lost = || CoreError::Model(format!("it keeps nothing below the group \"{group}\""));
        below.ok_or_else(lost)?.features_into(slot, rows, out)?;
        (self.watch)()
    }

    pub(crate) fn slots(&self) -> Vec<Range<usize>> {
        self.slots.clone().unwrap_or_default()
    }

    /// Moves to other parameters; returns them as the model holds them.
    ///
    /// # Errors
    /// What the model reports.
    pub fn move_to(&mut self, parameters: &[f64]) -> Result<Vec<f64>, CoreError> {
        self.start()?;
        self.has_moved = true;
        self.model.set_parameters(self.of.group, parameters)?;
        let mut held = Vec::new();
        self.model.parameters_into(self.of.group, &mut held)?;
        Ok(held)
    }

    fn with_copies<R>(
        &mut self,
        ask: impl FnOnce(&mut dyn Pullback, &mut Watch<'_>) -> Result<R, CoreError>,
    ) -> Result<R, CoreError> {
        let group = self.of.group;
        match &self.slots {
            Some(slots) => ask(
                &mut Kept {
                    model: self.model,
                    group,
                    slots,
                },
                self.watch,
            ),
            None => ask(
                &mut BlindCopies::new(self.model, self.copies, group),
                self.watch,
            ),
        }
    }

    /// Gradients of parts where the parameters are now.
    ///
    /// # Errors
    /// What the model reports, or a request to stop.
    pub fn gradients(&mut self, parts: &[LossPart]) -> Result<Vec<Vec<f64>>, CoreError> {
        let mut sum = GradientSum::of(parts);
        self.add_gradients(&mut sum)?;
        Ok(sum.means())
    }

    /// Adds these gradients to those of other batches.
    ///
    /// # Errors
    /// What the model reports, or a request to stop.
    pub fn add_gradients(&mut self, sum: &mut GradientSum) -> Result<(), CoreError> {
        let (copies, weigh) = (self.copies, self.of.weigh_samples);
        self.with_copies(|from, watch| pull_back(copies, from, weigh, sum, watch))
    }

    /// `L`, `L_mean` and `L_equiv` where the parameters are now.
    ///
    /// # Errors
    /// What the model reports, or a request to stop.
    pub fn losses(&mut self) -> Result<[f64; 3], CoreError> {
        let (copies, weights) = (self.copies, self.weights());
        self.with_copies(|from, watch| {
            let portion = copies.portion();
            let start = |s: usize| {
                let (target, cosets) = (copies.target(s).to_vec(), portion.plans[s].cosets);
                TwirlAccumulator::new(target, copies.width(), cosets, portion.how.loss)
            };
            let mut twirls: Vec<_> = (0..copies.samples()).map(start).collect();
            let mut predictions = Vec::new();
            for (b, block) in from.blocks().into_iter().enumerate() {
                from.predict(b, &mut predictions)?;
                for (copy, own) in block.zip(predictions.chunks_exact_mut(copies.len())) {
                    copies.twist(copy, own)?;
                    for (s, twirl) in twirls.iter_mut().enumerate() {
                        twirl.push(portion.plans[s].coset_of(copy), &own[copies.range(s)]);
                    }
                }
                watch()?;
            }
            let (mut total, mut equiv) = (0.0, 0.0);
            for (twirl, weight) in twirls.iter().zip(&weights) {
                let terms = twirl.finish(portion.how.estimator);
                total += weight * terms.loss_total;
                equiv += weight * terms.loss_equiv;
            }
            Ok([total, total - equiv, equiv])
        })
    }
}

impl Drop for Subset<'_> {
    fn drop(&mut self) {
        // Whoever asks next finds out where this failed.
        if let Some(start) = self.start.as_ref().filter(|_| self.has_moved) {
            let _ = self.model.set_parameters(self.of.group, start);
        }
        if self.slots.is_some()
            && let Some(mut below) = self.model.frozen_below(self.of.group)
        {
            let _ = below.release();
        }
    }
}
