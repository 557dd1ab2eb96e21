//! The trunk: attention with a bias from the pairs, and SwiGLU networks, each between a norm and a scale from the conditioning.

use crate::{
    ProteinaConfig,
    features::Features,
    layers::{AdaptiveNorm, Affine, EPSILON, Gated, LayerNorm, OutputScale},
    layout::{ChainRun, NoteRows, Notes},
    pairs::BiasMap,
};
use burn::{module::Module, tensor::Tensor};
use equivbench_kernels::{
    adaptive_layer_norm, gated_residual, lookup_sum, pair_biased_attention, sigmoid, sigmoid_gate,
};
use equivbench_plugin::Draw;

/// Attention among the tokens of a chain.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    node_norm: LayerNorm,
    /// Queries, keys, values.
    to_qkv: Affine,
    to_g: Affine,
    q_layer_norm: LayerNorm,
    k_layer_norm: LayerNorm,
    pub(crate) bias_map: BiasMap,
    to_out_node: Affine,
    heads: usize,
}

impl Attention {
    fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        let d = config.token_width;
        Self {
            node_norm: LayerNorm::new(d, draw),
            to_qkv: Affine::new(d, 3 * d, draw),
            to_g: Affine::new(d, d, draw),
            q_layer_norm: LayerNorm::new(d, draw),
            k_layer_norm: LayerNorm::new(d, draw),
            bias_map: BiasMap::new(config, draw),
            to_out_node: Affine::new(d, d, draw),
            heads: config.heads,
        }
    }

    /// `[tokens, d]` to the same; `biases` of every run `[chains, n, n, h]`.
    fn forward(&self, x: Tensor<2>, biases: Vec<Tensor<4>>, features: &Features) -> Tensor<2> {
        let y = self.node_norm.forward(x);
        let gate = self.to_g.forward(y.clone());
        let packed = self.to_qkv.forward(y);
        let d = gate.dims()[1];
        let third = |k: usize| packed.clone().narrow(1, k * d, d);
        let (q, k, v) = (
            self.q_layer_norm.forward(third(0)),
            self.k_layer_norm.forward(third(1)),
            third(2),
        );
        let runs = features.layout.runs.iter().zip(biases);
        let attended = runs.map(|(run, bias)| {
            let [q, k, v] = [&q, &k, &v].map(|x| self.heads_of_run(x, run));
            pair_biased_attention(q, k, v, bias, None)
                .swap_dims(1, 2)
                .reshape([run.token_rows().len(), d])
        });
        self.to_out_node
            .forward(sigmoid_gate(Tensor::cat(attended.collect(), 0), gate))
    }

    /// The rows of a run, `[chains, h, n, d / h]`.
    fn heads_of_run(&self, x: &Tensor<2>, run: &ChainRun) -> Tensor<4> {
        let [rows, d] = x.dims();
        let own = if run.token_rows() == (0..rows) {
            x.clone()
        } else {
            x.clone().slice([run.token_rows(), 0..d])
        };
        own.reshape([run.chains, run.tokens, self.heads, d / self.heads])
            .swap_dims(1, 2)
    }
}

/// The attention half of a layer.
#[derive(Module, Debug)]
pub(crate) struct AttentionHalf {
    adaln: AdaptiveNorm,
    pub(crate) mha: Attention,
    scale_output: OutputScale,
}

/// The feed-forward half of a layer.
#[derive(Module, Debug)]
pub(crate) struct TransitionHalf {
    adaln: AdaptiveNorm,
    transition: Gated,
    scale_output: OutputScale,
}

/// One layer of the trunk.
#[derive(Module, Debug)]
pub(crate) struct Layer {
    pub(crate) mhba: AttentionHalf,
    transition: TransitionHalf,
}

/// What the conditioning says to half a layer, `[1 + times, d]` each.
#[derive(Clone, Debug)]
pub(crate) struct Modulation {
    /// Of the norm in front of the branch.
    scale: Tensor<2>,
    shift: Tensor<2>,
    /// Factors of what the branch gives, before the logistic function.
    gates: Tensor<2>,
}

impl Modulation {
    fn new(adaln: &AdaptiveNorm, scale_output: &OutputScale, conditioning: &Tensor<2>) -> Self {
        let [scale, shift] = adaln.table(conditioning.clone());
        Self {
            scale,
            shift,
            gates: scale_output.gates(conditioning.clone()),
        }
    }

    /// `[tokens, d]` to the same, normalised.
    fn normed(&self, x: Tensor<2>, features: &Features) -> Tensor<2> {
        adaptive_layer_norm(
            x,
            self.scale.clone(),
            self.shift.clone(),
            &features.groups,
            EPSILON,
        )
    }

    /// `x` plus the scaled branch.
    fn added(&self, x: Tensor<2>, branch: Tensor<2>, features: &Features) -> Tensor<2> {
        gated_residual(x, branch, self.gates.clone(), &features.groups)
    }

    /// What [`added`](Self::added) adds.
    fn scaled(&self, branch: &Tensor<2>, features: &Features) -> Tensor<2> {
        branch.clone()
            * lookup_sum(
                vec![sigmoid(self.gates.clone())],
                std::slice::from_ref(&features.groups),
            )
    }
}

/// What the conditioning says to a layer: to its attention half and to its feed-forward half.
pub(crate) type LayerModulation = [Modulation; 2];

/// What a layer needs besides the tokens.
pub(crate) struct LayerInputs<'a> {
    pub(crate) modulation: &'a LayerModulation,
    pub(crate) biases: Vec<Tensor<4>>,
    pub(crate) features: &'a Features,
    pub(crate) notes: &'a Notes,
    /// Number of the layer.
    pub(crate) layer: usize,
}

impl Layer {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        let (d, c) = (config.token_width, config.conditioning_width);
        let (adaln, mha) = (AdaptiveNorm::new(c, d, draw), Attention::new(config, draw));
        let mhba = AttentionHalf {
            adaln,
            mha,
            scale_output: OutputScale::new(c, d, draw),
        };
        let (adaln, transition) = (AdaptiveNorm::new(c, d, draw), Gated::new(d, 4 * d, draw));
        Self {
            mhba,
            transition: TransitionHalf {
                adaln,
                transition,
                scale_output: OutputScale::new(c, d, draw),
            },
        }
    }

    /// From the conditioning table `[1 + times, c]`.
    pub(crate) fn modulation(&self, conditioning: &Tensor<2>) -> LayerModulation {
        let Self { mhba, transition } = self;
        [
            Modulation::new(&mhba.adaln, &mhba.scale_output, conditioning),
            Modulation::new(&transition.adaln, &transition.scale_output, conditioning),
        ]
    }

    /// `[tokens, d]` to the same.
    pub(crate) fn forward(&self, x: Tensor<2>, inputs: LayerInputs<'_>) -> Tensor<2> {
        let LayerInputs {
            modulation: [of_attention, of_transition],
            biases,
            features,
            notes,
            layer,
        } = inputs;
        let note = |name: &str, x: &Tensor<2>| {
            notes.add(
                NoteRows::Tokens,
                || format!("l{layer}.{name}"),
                || x.clone(),
            )
        };
        let normed = of_attention.normed(x.clone(), features);
        note("attn_adaln", &normed);
        let branch = self.mhba.mha.forward(normed, biases, features);
        note("attn_out", &branch);
        notes.add(
            NoteRows::Tokens,
            || format!("l{layer}.attn_scaled"),
            || of_attention.scaled(&branch, features),
        );
        let x = of_attention.added(x, branch, features);

        let normed = of_transition.normed(x.clone(), features);
        note("tr_adaln", &normed);
        let branch = self.transition.transition.forward(normed);
        note("tr_out", &branch);
        notes.add(
            NoteRows::Tokens,
            || format!("l{layer}.tr_scaled"),
            || of_transition.scaled(&branch, features),
        );
        let x = of_transition.added(x, branch, features);
        notes.add(
            NoteRows::Tokens,
            || format!("seq_after_layer{layer}"),
            || x.clone(),
        );
        x
    }
}
