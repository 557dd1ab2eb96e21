//! The two objects a plugin hands out. Calls on one object never overlap; different objects are independent.

use crate::{AbiResult, Batch, FieldMut};
use abi_stable::{
    sabi_trait,
    std_types::{RBox, ROk, RSlice, RSliceMut, RStr, RString, RVec},
};

/// The ability to share work among rotated copies of a batch, as a name for [`Model::capability`]. The call gives the batch and, as one f64,
/// the code of the weights; until the next call, [`Model::predict_into`] with these weights is asked for rotated copies of that batch
/// only. A call with an empty batch, a training step and new parameters end it.
pub const SHARED_ROTATIONS: &str = "shared-rotations";

/// The ability to keep what lies below a parameter group for a fixed batch, as `frozen-below:GROUP` for [`Model::capability`]; an instance
/// lists its groups in `frozen_groups`. Numbers cross in f64. With a batch of `copies` rotated copies of the same samples, one after the
/// other, and the input `[slot, copies]`, the call keeps everything in their prediction with the raw weights that does not depend on the
/// group; a slot is a small whole number, and what was in it before is dropped. With an empty batch and the input `[slot]` it empties
/// that slot of the group, with no input all of them. It writes nothing.
///
/// A training step, a loaded state and new parameters of anything outside the group empty its slots; new parameters of the group do not.
pub const FROZEN_BELOW: &str = "frozen-below";

/// `predict-above:GROUP`: writes the prediction of the batch in a slot, `[rows, width]`. Empty batch, input `[slot]`; see [`FROZEN_BELOW`].
pub const PREDICT_ABOVE: &str = "predict-above";

/// `vjp-above:GROUP`: writes the gradient of `sum(cotangent * prediction)` with respect to the group. Empty batch, input
/// `[slot, cotangent...]`; see [`FROZEN_BELOW`].
pub const VJP_ABOVE: &str = "vjp-above";

/// `features:GROUP` of a group in which the prediction is linear
/// ([`LinearGroupDescriptor`](crate::descriptor::LinearGroupDescriptor)): writes rows of `phi`, `[rows, width]` or
/// `[rows, blocks, width]`. Empty batch, input `[slot, first_row, rows]`; see [`FROZEN_BELOW`].
pub const FEATURES: &str = "features";

/// Which weights a prediction uses, as the `weights` argument of [`Model::predict_into`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Weights {
    /// The weights that the optimiser moves.
    Raw,
    /// Their exponential moving average, where the recipe keeps one.
    Ema,
}

impl Weights {
    /// The code that crosses the boundary.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Raw => 0,
            Self::Ema => 1,
        }
    }
    /// The variant of a code.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            0 => Some(Self::Raw),
            1 => Some(Self::Ema),
            _ => None,
        }
    }
    /// Name in tables and suites.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Ema => "ema",
        }
    }
}

#[expect(non_local_definitions, reason = "what #[sabi_trait] emits")]
mod traits {
    use super::*;

    /// A model in training. Floats cross in the precision of the instance (f32 or f64), as bytes.
    #[sabi_trait]
    pub trait Model: Send {
        /// `InstanceDescriptor` as JSON.
        fn describe(&self) -> AbiResult<RString>;
        /// One optimiser step on a batch that has the field `target`; returns a `StepReport` as JSON-free numbers:
        /// writes `[loss, learning rate, gradient norm before clipping]` into `report`.
        fn train_step(&mut self, batch: Batch<'_>, report: RSliceMut<'_, f64>) -> AbiResult<()>;
        /// Predicts in the frame of the input, in evaluation mode; `weights` is a `Weights::code`.
        fn predict_into(
            &mut self,
            batch: Batch<'_>,
            weights: u32,
            out: RSliceMut<'_, u8>,
        ) -> AbiResult<()>;
        /// Adds nothing, writes all: the gradient of `sum(cotangent * prediction)` with respect to a named parameter group,
        /// raw weights, evaluation mode.
        fn vjp_into(
            &mut self,
            batch: Batch<'_>,
            cotangent: RSlice<'_, u8>,
            group: RStr<'_>,
            out: RSliceMut<'_, u8>,
        ) -> AbiResult<()>;
        /// Writes the raw parameters of a group, flattened in the order of the descriptor.
        fn parameters_into(&self, group: RStr<'_>, out: RSliceMut<'_, u8>) -> AbiResult<()>;
        /// Replaces the raw parameters of a group.
        fn set_parameters(&mut self, group: RStr<'_>, values: RSlice<'_, u8>) -> AbiResult<()>;
        /// The complete training state: weights, moments, averages, step counter.
        fn save(&self) -> AbiResult<RVec<u8>>;
        /// Continues from a saved state, bit for bit on a CPU.
        fn load(&mut self, state: RSlice<'_, u8>) -> AbiResult<()>;
        /// Returns when all work given to the device is done.
        fn synchronise(&mut self) -> AbiResult<()>;
        /// An optional ability by name; writes into `out` and returns the number of bytes written.
        #[sabi(last_prefix_field)]
        fn capability(
            &mut self,
            name: RStr<'_>,
            batch: Batch<'_>,
            input: RSlice<'_, u8>,
            out: RSliceMut<'_, u8>,
        ) -> AbiResult<u64>;
    }

    /// An open dataset.
    #[sabi_trait]
    pub trait Dataset: Send {
        /// `DatasetDescriptor` as JSON.
        fn describe(&self) -> AbiResult<RString>;
        /// Writes the number of points of each sample, so that the host can size its buffers.
        fn points_into(
            &self,
            split: RStr<'_>,
            indices: RSlice<'_, u64>,
            out: RSliceMut<'_, u64>,
        ) -> AbiResult<()>;
        /// Fills the fields for the samples, in the order of `indices`.
        #[sabi(last_prefix_field)]
        fn samples_into(
            &mut self,
            split: RStr<'_>,
            indices: RSlice<'_, u64>,
            fields: RSliceMut<'_, FieldMut<'_>>,
        ) -> AbiResult<()>;
        /// Since 0.1.1. Writes for each sample the number of its group (molecule, sequence cluster): equal exactly where the group is
        /// the same, in every split, and never `u64::MAX`. The answer says whether they were written; `false` where the dataset does
        /// not know groups, which is also what a plugin of an older version answers.
        fn groups_into(
            &self,
            _split: RStr<'_>,
            _indices: RSlice<'_, u64>,
            _out: RSliceMut<'_, u64>,
        ) -> AbiResult<bool> {
            ROk(false)
        }
    }
}
pub use traits::{Dataset, Dataset_TO, Model, Model_TO};

/// An owned model object.
pub type ModelBox = Model_TO<'static, RBox<()>>;
/// An owned dataset object.
pub type DatasetBox = Dataset_TO<'static, RBox<()>>;
