//! What a model keeps of fixed batches below a parameter group, so that a prediction costs the group and not the network.

use crate::CoreError;
use std::ops::Range;

/// A parameter group in which the prediction is linear: `P[r, c] = Σ_k φ[r, (c,) k] θ[index(c, k)]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinearGroup {
    /// `C`: components of the prediction of a row (of a vector, or channels of a grid).
    pub blocks: usize,
    /// `K`: features.
    pub width: usize,
    /// Whether all components have the same features, `φ[r, k]`; else each its own, `φ[r, c, k]`.
    pub shared: bool,
    /// Where `θ[c, k]` stands in the group, `[C · K]`.
    pub index: Vec<usize>,
}

impl LinearGroup {
    /// Numbers of a row of features.
    #[must_use]
    pub const fn row(&self) -> usize {
        if self.shared {
            self.width
        } else {
            self.width * self.blocks
        }
    }
}

/// What a model keeps of fixed batches below a parameter group. A batch holds copies of the same samples, copy after copy, each rotated.
pub trait FrozenBelow {
    /// Keeps what lies below the group for a batch, under a number of its own.
    ///
    /// # Errors
    /// What the model reports.
    fn freeze(&mut self, slot: usize, batch: &crate::Batch, copies: usize)
    -> Result<(), CoreError>;
    /// Predicts a kept batch with the parameters that the group has now.
    ///
    /// # Errors
    /// A slot that keeps nothing, or what the model reports.
    fn predict_into(&mut self, slot: usize, out: &mut Vec<f64>) -> Result<(), CoreError>;
    /// Gradient of `sum(cotangent · prediction)` with respect to the group.
    ///
    /// # Errors
    /// As [`predict_into`](Self::predict_into).
    fn vjp_into(
        &mut self,
        slot: usize,
        cotangent: &[f64],
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError>;
    /// How the prediction is linear in the group, where it is.
    fn linear(&self) -> Option<LinearGroup>;
    /// Features of some rows of a kept batch: points, or voxels of each sample; see [`LinearGroup`].
    ///
    /// # Errors
    /// As [`predict_into`](Self::predict_into); a group in which the prediction is not linear.
    fn features_into(
        &mut self,
        slot: usize,
        rows: Range<usize>,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError>;
    /// Forgets all kept batches.
    ///
    /// # Errors
    /// What the model reports.
    fn release(&mut self) -> Result<(), CoreError>;
}
