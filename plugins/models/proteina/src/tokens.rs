//! The first tokens, the only place where Cartesian components enter, and the head, the only place where they leave.

use crate::{
    ProteinaConfig,
    context::Base,
    features::Features,
    inputs::Cartesian,
    layers::{LayerNorm, Linear},
    layout::{NoteRows, Notes},
};
use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use equivbench_kernels::gather_rows;
use equivbench_plugin::{Draw, Law};

/// Features to a representation.
#[derive(Module, Debug)]
pub(crate) struct SequenceFactory {
    linear_out: Linear,
}

/// Coordinates and features to tokens, registers in front.
#[derive(Module, Debug)]
pub(crate) struct Embedding {
    /// `[r, d]`.
    registers: Param<Tensor<2>>,
    linear_3d_embed: Linear,
    init_repr_factory: SequenceFactory,
}

impl Embedding {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        let width = config.token_width;
        Self {
            registers: draw.parameter([config.registers, width], Law::Normal(0.05)),
            linear_3d_embed: Linear::new(3, width, draw),
            init_repr_factory: SequenceFactory {
                linear_out: Linear::new(config.sequence_features(), width, draw),
            },
        }
    }

    /// `[residues, d]` from residue numbers and chain breaks: the part that no rotation changes.
    pub(crate) fn invariant(&self, features: &Features, notes: &Notes) -> Tensor<2> {
        let index_width = features.sequence.dims()[1] - 4;
        notes.add(
            NoteRows::Residues,
            || "idx_emb".into(),
            || features.sequence.clone().narrow(1, 0, index_width),
        );
        self.init_repr_factory
            .linear_out
            .forward(features.sequence.clone())
    }

    /// `[tokens, d]` from the [invariant](Self::invariant) part and all coordinates.
    pub(crate) fn forward(
        &self,
        base: &Base,
        cartesian: &Cartesian,
        config: &ProteinaConfig,
        notes: &Notes,
    ) -> Tensor<2> {
        let coordinates = self.linear_3d_embed.forward(cartesian.positions.clone());
        let sequence = match &cartesian.self_conditioning {
            Some(estimate) => {
                base.sequence.clone() + estimate.clone().matmul(self.rows_of_estimate(config))
            }
            None => base.sequence.clone(),
        };
        notes.add(
            NoteRows::Residues,
            || "coors_embed".into(),
            || coordinates.clone(),
        );
        notes.add(
            NoteRows::Residues,
            || "init_repr".into(),
            || sequence.clone(),
        );
        gather_rows(
            Tensor::cat(vec![self.registers.val(), coordinates + sequence], 0),
            &base.features.tokens,
        )
    }

    /// `[3, d]`: what multiplies the coordinates of the estimate of the clean cloud.
    fn rows_of_estimate(&self, config: &ProteinaConfig) -> Tensor<2> {
        let first = config.index_width + usize::from(config.chain_break_first);
        self.init_repr_factory.linear_out.rows(first, first + 3)
    }
}

/// Tokens to velocities: a norm and the linear head.
#[derive(Module, Debug)]
pub(crate) struct CoordinateHead {
    pub(crate) head_norm: LayerNorm,
    pub(crate) head_linear: Linear,
}

impl CoordinateHead {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        Self {
            head_norm: LayerNorm::new(config.token_width, draw),
            head_linear: Linear::new(config.token_width, 3, draw),
        }
    }

    /// `[residues, 3]`, nm.
    pub(crate) fn forward(
        &self,
        tokens: Tensor<2>,
        features: &Features,
        notes: &Notes,
    ) -> Tensor<2> {
        let hidden = self.normed(Self::residues(tokens, features));
        notes.add(NoteRows::Residues, || "head_ln".into(), || hidden.clone());
        self.velocity(hidden)
    }

    /// The tokens of residues `[residues, d]`, without the registers.
    pub(crate) fn residues(tokens: Tensor<2>, features: &Features) -> Tensor<2> {
        gather_rows(tokens, &features.residues)
    }

    /// What enters the linear head, `[residues, d]`.
    pub(crate) fn normed(&self, residues: Tensor<2>) -> Tensor<2> {
        self.head_norm.forward(residues)
    }

    /// The linear head: `[residues, 3]`, nm.
    pub(crate) fn velocity(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.head_linear.forward(hidden)
    }
}
