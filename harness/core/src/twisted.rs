//! Twisted predictions: a batch whose samples are rotated, each by its own rotation, predicted, and rotated back.

use crate::{
    Batch, CoreError, Model, PointLoss, Portion, Rows,
    action::{act, act_inverse_on_rows, prediction_range},
};
use std::ops::Range;

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

    /// The loss that is measured.
    #[must_use]
    pub fn loss(&self) -> PointLoss {
        self.portion.how.loss
    }

    /// What the sum of the loss over a sample is divided by.
    #[must_use]
    pub fn denominator(&self, sample: usize) -> f64 {
        let components = self.target(sample).len();
        self.portion.how.loss.denominator(components, self.width)
    }

    /// Some copies of the samples as one batch, copy after copy.
    ///
    /// # Errors
    /// A rotation that cannot act on a field.
    pub fn batch(&self, copies: Range<usize>) -> Result<Batch, CoreError> {
        let inputs = &self.portion.samples.inputs;
        let rotations: Vec<_> = copies
            .clone()
            .flat_map(|copy| self.portion.rotations(copy))
            .collect();
        let mut rotated = Batch::default();
        if copies.len() == 1 {
            act(&rotations, inputs, &mut rotated)?;
        } else {
            let samples: Vec<usize> = copies.flat_map(|_| 0..inputs.samples()).collect();
            act(&rotations, &inputs.select(&samples), &mut rotated)?;
        }
        Ok(rotated)
    }

    /// Numbers in the prediction of one copy.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.target.len()
    }

    /// Whether a prediction has no numbers.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.target.is_empty()
    }

    /// Rotates the prediction of a copy back, in place.
    ///
    /// # Errors
    /// A prediction of another size than the target, or a rotation that cannot act on it.
    pub fn twist(&self, copy: usize, prediction: &mut [f64]) -> Result<(), CoreError> {
        self.check(prediction)?;
        for s in 0..self.samples() {
            let rotation = &self.portion.plans[s].rotations[copy];
            let own = &mut prediction[self.range(s)];
            act_inverse_on_rows(rotation, self.kind, self.shape(), own)?;
        }
        Ok(())
    }

    /// Rotates numbers in the frame of the samples, laid out as a prediction, into the frame of a copy, in place.
    ///
    /// # Errors
    /// As [`twist`](Self::twist).
    pub fn untwist(&self, copy: usize, twisted: &mut [f64]) -> Result<(), CoreError> {
        self.check(twisted)?;
        for s in 0..self.samples() {
            let rotation = self.portion.plans[s].rotations[copy].inverse();
            let own = &mut twisted[self.range(s)];
            act_inverse_on_rows(&rotation, self.kind, self.shape(), own)?;
        }
        Ok(())
    }

    fn check(&self, prediction: &[f64]) -> Result<(), CoreError> {
        if prediction.len() == self.target.len() {
            return Ok(());
        }
        Err(CoreError::Shape(format!(
            "the model predicts {} numbers, the target has {}",
            prediction.len(),
            self.target.len()
        )))
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
        let copy = self.batch(index..index + 1)?;
        let mut twisted = Vec::new();
        model.predict_into(&copy, self.portion.how.weights, &mut twisted)?;
        self.twist(index, &mut twisted)?;
        Ok((copy, twisted))
    }

    /// The portion.
    #[must_use]
    pub const fn portion(&self) -> &'a Portion {
        self.portion
    }

    fn shape(&self) -> &'a [usize] {
        let target = self.portion.samples.target.as_ref();
        target.map(|t| t.shape.as_slice()).unwrap_or_default()
    }
}
