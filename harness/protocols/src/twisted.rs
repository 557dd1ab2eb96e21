//! All twisted predictions of a frozen sample together, under rotations of one's own.

use crate::{BatchKey, EachCopy, Snapshot};
use equivbench_core::{
    Batch, Condition, CoreError, PointLoss, Portion, RotationPlan, TwirlAccumulator, Weights,
};
use std::sync::Arc;

/// Bytes of twisted predictions that are held at a time, as far as one sample allows: grids of 64³ with eight channels under the 24
/// rotations of the cube take 400 MB a sample, those of a molecule under a thousand rotations 1 MB.
const HELD_BYTES: usize = 256 << 20;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Twisted<'a> {
    /// With which weights; such as are measured.
    pub weights: Weights,
    /// Under which condition, by the first pass.
    pub condition: &'a Condition,
    /// The first so many of the frozen samples.
    pub most: usize,
}

/// A frozen sample with its twisted predictions.
#[derive(Clone, Debug)]
pub struct TwistedSample<'a> {
    /// Index in the measured split.
    pub index: u64,
    /// The target, `[rows, width]` flattened.
    pub target: &'a [f64],
    /// Numbers in a row.
    pub width: usize,
    /// The loss that is measured.
    pub loss: PointLoss,
    /// For each rotation of its plan what is predicted, rotated back, laid out as the target.
    pub predictions: Vec<&'a [f64]>,
}

impl TwistedSample<'_> {
    /// The twirl over some of its predictions, by their place in the plan: independent cosets of equal length, one after the other.
    #[must_use]
    pub fn twirl(&self, copies: &[usize], cosets: usize) -> TwirlAccumulator {
        let target = self.target.to_vec();
        let mut twirl = TwirlAccumulator::new(target, self.width, cosets, self.loss);
        let length = copies.len() / cosets.max(1);
        for (i, &copy) in copies.iter().enumerate() {
            twirl.push(i / length.max(1), self.predictions[copy]);
        }
        twirl
    }

    /// What the sum of the loss over the sample is divided by.
    #[must_use]
    pub fn denominator(&self) -> f64 {
        self.loss.denominator(self.target.len(), self.width)
    }
}

/// Makes the rotations of a sample: its index in the measured split, the inputs, and its place among them. Plans are equally long.
pub type PlanOf<'a> = dyn FnMut(u64, &Batch, usize) -> Result<RotationPlan, CoreError> + 'a;

/// Takes in a sample.
pub type EachSample<'a> = dyn FnMut(&TwistedSample<'_>) -> Result<(), CoreError> + 'a;

impl Snapshot<'_> {
    /// The twisted predictions of frozen samples under rotations of one's own, sample after sample in the order in which they were frozen.
    /// As many samples are predicted together as memory allows, a batch at most.
    ///
    /// # Errors
    /// A condition that is not measured, plans of different lengths, what the model reports, what `plan` or `each` return, or a request to
    /// stop.
    pub fn twisted_samples(
        &mut self,
        asked: &Twisted<'_>,
        plan: &mut PlanOf<'_>,
        each: &mut EachSample<'_>,
    ) -> Result<(), CoreError> {
        let mut left = asked.most;
        for batch in self.frozen().batches() {
            let places: Vec<usize> = (0..self.frozen().indices(batch).len().min(left)).collect();
            if places.is_empty() {
                break;
            }
            left -= places.len();
            let portion = self.portion(batch, asked.weights, asked.condition)?;
            let plans: Vec<RotationPlan> = places
                .iter()
                .map(|&place| plan(portion.indices[place], &portion.samples.inputs, place))
                .collect::<Result<_, _>>()?;
            let copies = plans.first().map_or(0, |plan| plan.rotations.len());
            let numbers = portion.samples.target_values()?.len();
            let together = together(numbers.div_ceil(portion.indices.len()), copies);
            for places in places.chunks(together) {
                let own = places.iter().map(|&place| plans[place].clone());
                self.twist_samples(&part_of(&portion, places, own.collect()), each)?;
            }
        }
        Ok(())
    }

    /// [`twisted`](Self::twisted) of some samples of a batch with the raw weights, by their places in it, with a plan for each.
    ///
    /// # Errors
    /// As there.
    pub fn twisted_of(
        &mut self,
        (batch, places): (BatchKey, &[usize]),
        condition: &Condition,
        plans: &[RotationPlan],
        each: &mut EachCopy<'_>,
    ) -> Result<(), CoreError> {
        let whole = self.portion(batch, Weights::Raw, condition)?;
        self.twist(
            &part_of(&whole, places, plans.to_vec()),
            &mut |copies, index, twisted| each(copies, index, &twisted),
        )
    }

    fn twist_samples(
        &mut self,
        portion: &Portion,
        each: &mut EachSample<'_>,
    ) -> Result<(), CoreError> {
        let count = portion.plans[0].rotations.len();
        let mut held: Vec<Vec<f64>> = Vec::with_capacity(count);
        self.twist(portion, &mut |copies, _, twisted| {
            held.push(twisted);
            if held.len() < count {
                return Ok(());
            }
            (0..copies.samples()).try_for_each(|place| {
                each(&TwistedSample {
                    index: portion.indices[place],
                    target: copies.target(place),
                    width: copies.width(),
                    loss: copies.loss(),
                    predictions: held.iter().map(|z| &z[copies.range(place)]).collect(),
                })
            })
        })
    }
}

/// How many samples with so many numbers and copies are predicted together.
fn together(numbers: usize, copies: usize) -> usize {
    let bytes = numbers * copies * size_of::<f64>();
    (HELD_BYTES / bytes.max(1)).max(1)
}

/// Some samples of a portion, each with a plan.
fn part_of(portion: &Portion, places: &[usize], plans: Vec<RotationPlan>) -> Portion {
    let whole = places.len() == portion.indices.len();
    let samples = if whole {
        Arc::clone(&portion.samples)
    } else {
        Arc::new(portion.samples.select(places))
    };
    Portion {
        samples,
        indices: places.iter().map(|&place| portion.indices[place]).collect(),
        plans: plans.into(),
        ..portion.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn molecules_are_predicted_in_whole_batches_and_large_grids_one_by_one() {
        assert!(together(3 * 200, 1272) >= 32);
        assert_eq!(together(8 * 64 * 64 * 64, 24), 1);
        assert_eq!(together(8 * 32 * 32 * 32, 24), 5);
        assert!(together(0, 24) >= 1);
    }
}
