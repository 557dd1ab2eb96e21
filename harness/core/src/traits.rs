//! What the core needs from above: something that predicts and trains, something that yields samples, a clock, a sink.

use crate::{Batch, CoreError, FieldKind, LatentInfo, LinearGroup, Precision, Rows, Values};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, ops::Range};

/// Which weights a prediction uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weights {
    /// The weights that the optimiser moves.
    Raw,
    /// Their exponential moving average.
    Ema,
}

impl Weights {
    /// Name in tables and suites.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ema => "ema",
        }
    }
}

/// What one optimiser step did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepFigures {
    /// Training loss.
    pub loss: f64,
    /// Learning rate used.
    pub lr: f64,
    /// Global L2 norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// A model in training, as the harness sees it.
pub trait Model {
    /// How its prediction transforms.
    fn output_kind(&self) -> FieldKind;
    /// What the rows of its prediction count.
    fn output_rows(&self) -> Rows;
    /// Numbers in one row of its prediction, for a batch.
    fn output_width(&self, batch: &Batch) -> usize;
    /// Predicts in the frame of the input, `[rows, width]`, evaluation mode.
    ///
    /// # Errors
    /// Whatever the model reports; a prediction that is not finite.
    fn predict_into(
        &mut self,
        batch: &Batch,
        weights: Weights,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError>;
    /// The precision of the numbers that it reads and writes: those of a batch are rounded to it.
    fn precision(&self) -> Precision {
        Precision::Double
    }
    /// As [`predict_into`](Self::predict_into), as the model writes it: widening is left to whoever reads it, on another thread.
    ///
    /// # Errors
    /// As [`predict_into`](Self::predict_into).
    fn predict_values_into(
        &mut self,
        batch: &Batch,
        weights: Weights,
        out: &mut Values,
    ) -> Result<(), CoreError> {
        let mut numbers = if let Values::Real(used) = out {
            std::mem::take(used)
        } else {
            Vec::new()
        };
        self.predict_into(batch, weights, &mut numbers)?;
        *out = Values::Real(numbers);
        Ok(())
    }
    /// One optimiser step on a batch with the field `target`.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn train_step(&mut self, batch: &Batch) -> Result<StepFigures, CoreError>;
    /// Whether it can share work among rotated copies of a batch.
    fn shares_rotations(&self) -> bool {
        false
    }
    /// Until [`end_sharing`](Self::end_sharing), predictions with these weights are of rotated copies of this batch only.
    ///
    /// # Errors
    /// A model that shares nothing, or whatever it reports.
    fn share(&mut self, _batch: &Batch, _weights: Weights) -> Result<(), CoreError> {
        Err(CoreError::Model("it shares nothing among rotations".into()))
    }
    /// From now on every prediction is for itself.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn end_sharing(&mut self) -> Result<(), CoreError> {
        Ok(())
    }
    /// Seconds spent inside the model so far, where somebody counts them.
    fn busy_s(&self) -> Option<f64> {
        None
    }
    /// Gradient of `sum(cotangent · prediction)` with respect to a parameter group.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn vjp_into(
        &mut self,
        batch: &Batch,
        cotangent: &[f64],
        group: &str,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError>;
    /// The intermediate quantities that it shows.
    fn latents(&self) -> Vec<LatentInfo> {
        Vec::new()
    }
    /// An intermediate quantity of the prediction with the raw weights, `[rows, width]` as [`latents`](Self::latents) says.
    ///
    /// # Errors
    /// A name that the model does not show, or whatever it reports.
    fn latent_into(
        &mut self,
        name: &str,
        _batch: &Batch,
        _out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        Err(CoreError::Model(format!("it shows no \"{name}\"")))
    }
    /// Parameters of a group, flattened.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn parameters_into(&self, group: &str, out: &mut Vec<f64>) -> Result<(), CoreError>;
    /// Replaces the parameters of a group.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn set_parameters(&mut self, group: &str, values: &[f64]) -> Result<(), CoreError>;
    /// Named parameter groups with their numbers of scalars.
    fn groups(&self) -> Vec<(String, usize)> {
        vec![]
    }
    /// Projects parameters of the group `equivariant-subspace`, flattened, onto the subset with which the model is equivariant; `false`,
    /// and nothing changed, where the model names no such subset.
    ///
    /// # Errors
    /// Another number of parameters than the group has, or whatever the model reports.
    fn project_equivariant(&mut self, _values: &mut Vec<f64>) -> Result<bool, CoreError> {
        Ok(false)
    }
    /// The ability to keep what lies below a parameter group, where the model has it for this group. What is kept outlives the handle;
    /// [`FrozenBelow`] says when it ends.
    fn frozen_below(&mut self, _group: &str) -> Option<Box<dyn FrozenBelow + '_>> {
        None
    }
    /// The complete training state.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn save(&self) -> Result<Vec<u8>, CoreError>;
    /// Continues from a saved state.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn load(&mut self, state: &[u8]) -> Result<(), CoreError>;
    /// Returns when all work given to the device is done.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn synchronise(&mut self) -> Result<(), CoreError>;
}

/// What a model keeps of fixed batches below a parameter group, with the raw weights: predictions and products with cotangents then cost
/// the group and not the network. Each batch has a slot of its own, a small number.
///
/// Slots are emptied by a training step, a loaded state, and new parameters of anything outside the group; not by new parameters of the
/// group itself.
pub trait FrozenBelow {
    /// Keeps what lies below the group for `copies` rotated copies of the same samples, one after the other in one batch. The model may
    /// rely on it that copies differ by rotations alone.
    ///
    /// # Errors
    /// A batch that is not made of such copies, or whatever the model reports.
    fn freeze(&mut self, slot: usize, batch: &Batch, copies: usize) -> Result<(), CoreError>;
    /// The prediction of the batch in a slot, `[rows, width]`, for the present parameters of the group.
    ///
    /// # Errors
    /// An empty slot, or whatever the model reports.
    fn predict_into(&mut self, slot: usize, out: &mut Vec<f64>) -> Result<(), CoreError>;
    /// Gradient of `sum(cotangent · prediction)` with respect to the group.
    ///
    /// # Errors
    /// An empty slot, a cotangent of another shape than the prediction, or whatever the model reports.
    fn vjp_into(
        &mut self,
        slot: usize,
        cotangent: &[f64],
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError>;
    /// How the prediction depends on the group, where that is linear.
    fn linear(&self) -> Option<LinearGroup>;
    /// Some rows of the features of the [linear](Self::linear) group, `[rows, width]` or `[rows, blocks, width]`. There are as many rows
    /// as the batch has points, or voxels in all samples together.
    ///
    /// # Errors
    /// A group that is not linear, an empty slot, rows that are not there, or whatever the model reports.
    fn features_into(
        &mut self,
        slot: usize,
        rows: Range<usize>,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError>;
    /// Empties all slots of the group.
    ///
    /// # Errors
    /// Whatever the model reports.
    fn release(&mut self) -> Result<(), CoreError>;
}

/// A source of samples.
pub trait Dataset {
    /// Number of samples in a split; 0 for a split that is not there.
    fn samples(&self, split: &str) -> usize;
    /// Loads samples in the order of `indices`.
    ///
    /// # Errors
    /// Whatever the dataset reports; numbers that are not finite.
    fn load(&mut self, split: &str, indices: &[u64]) -> Result<Batch, CoreError>;
    /// The group of each sample: molecule, sequence cluster. Samples of one group are not independent of each other; those of
    /// different groups are taken to be. `None` where the dataset does not say: every sample is a group of its own.
    ///
    /// # Errors
    /// Whatever the dataset reports.
    fn groups(&mut self, _split: &str, _indices: &[u64]) -> Result<Option<Vec<u64>>, CoreError> {
        Ok(None)
    }
    /// Suggested `(mean, scale)` of target fields by name.
    fn normalisers(&self) -> BTreeMap<String, (f64, f64)>;
}

/// Time and memory, so that the mathematics reads neither.
pub trait Clock {
    /// Seconds since some fixed moment, monotonic.
    fn now_s(&self) -> f64;
    /// Processor seconds of this process so far, all threads together; `None` for a clock that does not tell.
    fn cpu_s(&self) -> Option<f64> {
        None
    }
    /// Called after each optimiser step, for clocks that count work instead of time.
    fn step_done(&self) {}
    /// Whether seconds are those of the wall.
    fn is_wall(&self) -> bool {
        true
    }
    /// Peak resident memory of the process in bytes, where it is known.
    fn peak_memory_bytes(&self) -> Option<u64>;
}
