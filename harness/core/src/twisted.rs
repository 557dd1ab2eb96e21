//! Twisted predictions: a batch whose samples are rotated, each by its own rotation, predicted, and rotated back.

use crate::{
    Batch, CoreError, Model, Portion, RotationPlan, Rows,
    action::{act, act_inverse_on_rows, prediction_range},
};

/// The rotated copies of a portion and how their predictions are laid out.
pub struct RotatedCopies<'a> {
    portion: &'a Portion,
    target: &'a [f64],
    kind: crate::FieldKind,
    rows: Rows,
    width: usize,
    count: usize,
}

impl<'a> RotatedCopies<'a> {
    /// Those of the first pass of a portion.
    ///
    /// # Errors
    /// Plans that do not fit the batch, no target, or a target of another size than the prediction.
    pub fn new(model: &dyn Model, portion: &'a Portion) -> Result<Self, CoreError> {
        let copies = Self {
            portion,
            target: portion.samples.target_values()?,
            kind: model.output_kind(),
            rows: model.output_rows(),
            width: model.output_width(&portion.samples.inputs),
            count: portion.copies()?,
        };
        let last = copies.range(copies.samples() - 1).end;
        if last != copies.target.len() {
            return Err(CoreError::Shape(format!(
                "the model predicts {last} numbers, the target has {}",
                copies.target.len()
            )));
        }
        Ok(copies)
    }

    /// Copies of each sample.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// How the prediction transforms.
    #[must_use]
    pub const fn kind(&self) -> crate::FieldKind {
        self.kind
    }

    /// Numbers in a row of the prediction.
    #[must_use]
    pub const fn width(&self) -> usize {
        self.width
    }

    /// Samples of the batch.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.portion.plans.len()
    }

    /// Where the prediction of a sample lies.
    #[must_use]
    pub fn range(&self, sample: usize) -> std::ops::Range<usize> {
        prediction_range(&self.portion.samples.inputs, self.rows, self.width, sample)
    }

    /// The target of a sample.
    #[must_use]
    pub fn target(&self, sample: usize) -> &'a [f64] {
        &self.target[self.range(sample)]
    }

    /// What the sum of the loss over a sample is divided by.
    #[must_use]
    pub fn denominator(&self, sample: usize) -> f64 {
        let components = self.target(sample).len();
        self.portion.how.loss.denominator(components, self.width)
    }

    /// A copy, and its prediction rotated back.
    ///
    /// # Errors
    /// What the model reports, or a prediction of another size than the target.
    pub fn predict(
        &self,
        model: &mut dyn Model,
        index: usize,
    ) -> Result<(Batch, Vec<f64>), CoreError> {
        let mut copy = Batch::default();
        let portion = self.portion;
        act(
            &portion.rotations(index),
            &portion.samples.inputs,
            &mut copy,
        )?;
        let mut twisted = Vec::new();
        model.predict_into(&copy, portion.how.weights, &mut twisted)?;
        if twisted.len() != self.target.len() {
            return Err(CoreError::Shape(format!(
                "the model predicts {} numbers, the target has {}",
                twisted.len(),
                self.target.len()
            )));
        }
        for s in 0..self.samples() {
            let rotation = &portion.plans[s].rotations[index];
            act_inverse_on_rows(
                rotation,
                self.kind,
                self.shape(),
                &mut twisted[self.range(s)],
            )?;
        }
        Ok((copy, twisted))
    }

    /// Rotates rows of a sample into the frame of a copy, in place.
    pub(crate) fn rotate(
        &self,
        sample: usize,
        plan: &RotationPlan,
        index: usize,
        rows: &mut [f64],
    ) -> Result<(), CoreError> {
        debug_assert_eq!(rows.len(), self.range(sample).len());
        act_inverse_on_rows(
            &plan.rotations[index].inverse(),
            self.kind,
            self.shape(),
            rows,
        )
    }

    fn shape(&self) -> &'a [usize] {
        let target = self.portion.samples.target.as_ref();
        target.map(|t| t.shape.as_slice()).unwrap_or_default()
    }
}
