//! What is measured together, and what is found of it.

use crate::{
    Batch, Condition, CoreError, Deviation, Estimator, FieldKind, PointLoss, Rotation,
    RotationPlan, Rows, SampleTerms, Supervised, Weights,
};
use std::sync::Arc;

/// How a batch is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measurement {
    /// Raw or averaged weights.
    pub weights: Weights,
    /// The loss that is split.
    pub loss: PointLoss,
    /// Plug-in or unbiased.
    pub estimator: Estimator,
}

/// A condition that is read from a series of predictions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// The condition.
    pub condition: Condition,
    /// The pass of the model that it reads: 0 for the first, `n` for the one fed `n` times.
    pub pass: usize,
}

/// What is measured together: a batch with the rotations of its samples.
#[derive(Clone, Debug)]
pub struct Portion {
    /// Inputs and target.
    pub samples: Arc<Supervised>,
    /// Index of each sample in the measured split.
    pub indices: Arc<[u64]>,
    /// The rotations of each sample; all plans have the same length. The `i`-th copy of a sample is rotated by its own `i`-th rotation.
    pub plans: Arc<[RotationPlan]>,
    /// The conditions that these inputs serve.
    pub readings: Arc<[Reading]>,
    /// With which weights, and what of it.
    pub how: Measurement,
    /// Whether the model shares work among the rotated copies.
    pub sharing: bool,
    /// What is then predicted by the blind path as well.
    pub checked: Option<Checked>,
}

/// What a measurement from shared work predicts by the blind path as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The copy, an index into the rotations of a plan.
    pub rotation: usize,
    /// Samples of the batch.
    pub samples: Vec<usize>,
}

/// What was measured of a portion.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The portion.
    pub of: Arc<Portion>,
    /// For each condition that it serves, the terms of every sample.
    pub readings: Vec<(Condition, Vec<SampleTerms>)>,
    /// How far shared predictions were from blind ones.
    pub deviation: Deviation,
}

/// How a prediction is laid out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) kind: FieldKind,
    pub(super) rows: Rows,
    pub(super) width: usize,
}

impl Portion {
    /// A batch that is measured blind, under one condition without axes. Other fields may be replaced.
    #[must_use]
    pub fn new(samples: Supervised, plans: &[RotationPlan], how: Measurement) -> Self {
        Self {
            samples: Arc::new(samples),
            indices: (0..plans.len() as u64).collect(),
            plans: plans.into(),
            readings: [Reading::default()].into(),
            how,
            sharing: false,
            checked: None,
        }
    }

    /// The first samples of it.
    #[must_use]
    pub fn first(&self, samples: usize) -> Self {
        let kept = samples.min(self.plans.len());
        let chosen: Vec<usize> = (0..kept).collect();
        Self {
            samples: Arc::new(self.samples.select(&chosen)),
            indices: self.indices[..kept].into(),
            plans: self.plans[..kept].into(),
            ..self.clone()
        }
    }

    /// Passes of the model over each copy.
    pub(super) fn passes(&self) -> usize {
        self.readings.iter().map(|r| r.pass + 1).max().unwrap_or(1)
    }

    /// Copies of each sample.
    pub(crate) fn copies(&self) -> Result<usize, CoreError> {
        let copies = self.plans.first().map_or(0, |p| p.rotations.len());
        let samples = self.samples.inputs.samples();
        if self.plans.len() != samples
            || copies == 0
            || self.plans.iter().any(|p| p.rotations.len() != copies)
        {
            return Err(CoreError::Shape(format!(
                "{} rotation plans for {samples} samples",
                self.plans.len()
            )));
        }
        Ok(copies)
    }

    /// The rotation of each sample in a copy.
    pub(crate) fn rotations(&self, copy: usize) -> Vec<Rotation> {
        self.plans.iter().map(|plan| plan.rotations[copy]).collect()
    }

    /// One list of terms for each condition, from those of each pass.
    pub(super) fn read(
        &self,
        of_passes: &[Vec<SampleTerms>],
    ) -> Vec<(Condition, Vec<SampleTerms>)> {
        let of = |r: &Reading| (r.condition.clone(), of_passes[r.pass].clone());
        self.readings.iter().map(of).collect()
    }

    /// The rows of some samples of a prediction.
    pub(super) fn rows_of(
        output: Output,
        copy: &Batch,
        prediction: &[f64],
        samples: &[usize],
    ) -> Vec<f64> {
        let own = |&s: &usize| {
            let range = crate::action::prediction_range(copy, output.rows, output.width, s);
            prediction[range].to_vec()
        };
        samples.iter().flat_map(own).collect()
    }
}
