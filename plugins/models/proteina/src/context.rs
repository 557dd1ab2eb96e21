//! What a pass knows before it sees Cartesian numbers: the same for all rotations of a batch, and so computed once for all of them.
//!
//! [`Base`] never changes. [`PairContext`] does where an estimate of the clean cloud, which is another one for every rotation, adds classes
//! to the pairs.

use crate::{
    features::Features, inputs::Inputs, kinds::PairKinds, pairs::Pairs, trunk::LayerModulation,
};
use burn::tensor::Tensor;
use equivbench_plugin::{PluginError, PluginResult};

/// What follows from flow times, residue numbers, chain breaks and distances in the noisy cloud.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) features: Features,
    /// `[residues, d]`: the part of the tokens that no coordinate enters.
    pub(crate) sequence: Tensor<2>,
    /// Of every layer.
    pub(crate) layers: Vec<LayerModulation>,
    /// `[times, p]` each: scales and shifts of the first pair representation.
    pub(crate) pair_modulation: [Tensor<2>; 2],
}

/// The pairs before the first layer that updates them.
#[derive(Debug)]
pub(crate) struct PairContext {
    pub(crate) kinds: PairKinds,
    pub(crate) pairs: Pairs,
    /// Of every layer up to the first that updates the pairs, that one included.
    pub(crate) biases: Vec<Pairs>,
}

/// What all rotated copies of a batch have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// Of the batch itself.
    pub(crate) inputs: Inputs,
    pub(crate) base: Base,
    /// Without an estimate of the clean cloud.
    pub(crate) pairs: PairContext,
}

impl Common {
    /// Checks that a batch can be a rotated copy: all but its clouds is the same. Whether the clouds are is the caller's promise.
    ///
    /// # Errors
    /// Names what differs.
    pub(crate) fn check(&self, rotated: &Inputs) -> PluginResult<()> {
        let own = &self.inputs;
        let same = [
            ("the sizes of its samples", own.offsets == rotated.offsets),
            (
                "the field \"flow_time\"",
                own.flow_time == rotated.flow_time,
            ),
            (
                "the field \"residue_index\"",
                own.residue_index == rotated.residue_index,
            ),
            (
                "the field \"chain_break\"",
                own.chain_break == rotated.chain_break,
            ),
        ];
        match same.iter().find(|(_, same)| !same) {
            None => Ok(()),
            Some((what, _)) => Err(PluginError::BadRequest(format!(
                "proteina: a prediction was to share work with the batch that was given to share, but it is no rotated copy of it: {what} \
                 differ; share the batch anew, or end sharing with an empty batch"
            ))),
        }
    }
}
