//! The backbone: edge attributes, input block, attention blocks, readouts, output projection. All of it is invariant:
//! positions enter through distances and angles only.
//!
//! The affine maps of concatenated inputs are applied part by part: what belongs to the neighbour or the centre is
//! multiplied once per atom and then gathered, what belongs to the distance once per pair. The function is the same up to
//! the order of summation.

use crate::{
    EscaipConfig,
    layers::{Affine, ElementTable, Ffn, NodeEdgeNorm, RmsNorm, States},
    pass::{NoteRows, Pass},
};
use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use equivbench_kernels::{
    SlotAttention, banded_radial, edge_attributes, edge_messages, gather_rows, gelu, slot_attention,
};
use equivbench_plugin::{Draw, Law};

/// Attributes of an edge, straight through the affine map that follows them:
/// `lin([radial ‖ source orders ‖ source element ‖ target orders ‖ target element])`.
#[derive(Module, Debug)]
pub(crate) struct EdgeAttributes {
    edge_distance_embedding: Affine,
    source_direction_embedding: Affine,
    source_atomic_embedding: ElementTable,
    target_direction_embedding: Affine,
    target_atomic_embedding: ElementTable,
    edge_linear: Affine,
}

impl EdgeAttributes {
    fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        let (orders, embedding) = (config.boo_orders, config.boo_embedding);
        Self {
            edge_distance_embedding: Affine::new(
                config.radial_functions,
                config.radial_embedding,
                draw,
            ),
            source_direction_embedding: Affine::new(orders, embedding, draw),
            source_atomic_embedding: ElementTable::new(
                config.elements,
                config.atom_embedding,
                draw,
            ),
            target_direction_embedding: Affine::new(orders, embedding, draw),
            target_atomic_embedding: ElementTable::new(
                config.elements,
                config.atom_embedding,
                draw,
            ),
            edge_linear: Affine::new(config.attributes(), config.hidden, draw),
        }
    }

    /// `[edges, hidden]`.
    fn forward(&self, pass: &Pass<'_, '_>, notes: &str) -> Tensor<2> {
        let source = self.atom_part(
            &self.source_direction_embedding,
            &self.source_atomic_embedding,
            pass,
        );
        let target = self.atom_part(
            &self.target_direction_embedding,
            &self.target_atomic_embedding,
            pass,
        );
        let embedding = &self.edge_distance_embedding;
        let radial = banded_radial(
            &pass.features.radial,
            embedding.weight.val(),
            embedding.bias.val(),
        );
        if pass.is_traced() {
            pass.note(
                NoteRows::Pairs,
                || format!("{notes}.edge_distance_embedding"),
                &gelu(radial.clone()),
            );
        }
        // Each edge has its own mask, as in the reference; without dropout both directions of a pair share what is embedded.
        let dropouts = [
            if pass.drops() {
                pass.map_dropout()
            } else {
                None
            },
            pass.map_dropout(),
        ];
        let out = edge_attributes(
            &pass.features.pairs,
            pass.features.ends(),
            radial,
            [source, target],
            self.edge_linear.pair(),
            dropouts,
        );
        pass.note(NoteRows::Edges, || format!("{notes}.edge_linear"), &out);
        out
    }

    /// `[atoms, V + A]`.
    fn atom_part(&self, orders: &Affine, table: &ElementTable, pass: &Pass<'_, '_>) -> Tensor<2> {
        let element = gather_rows(table.weight.val(), &pass.features.species);
        Tensor::cat(
            vec![
                orders.activated(pass.features.orders.clone(), pass.map_dropout()),
                element,
            ],
            1,
        )
    }
}

/// Makes the first node and edge states.
#[derive(Module, Debug)]
pub(crate) struct InputLayer {
    attributes: EdgeAttributes,
    edge_ffn: Ffn,
    norm: RmsNorm,
}

/// The input layer and the norm around it.
#[derive(Module, Debug)]
pub(crate) struct InputBlock {
    input_layer: InputLayer,
    norm: NodeEdgeNorm,
}

impl InputBlock {
    fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        let attributes = EdgeAttributes::new(config, draw);
        let edge_ffn = Ffn::new(config.hidden, 1, 1.0, draw);
        let input_layer = InputLayer {
            attributes,
            edge_ffn,
            norm: RmsNorm::new(config.hidden, draw),
        };
        Self {
            input_layer,
            norm: NodeEdgeNorm::new(config.hidden, draw),
        }
    }

    fn forward(&self, pass: &Pass<'_, '_>) -> States {
        let layer = &self.input_layer;
        let edge = layer.attributes.forward(pass, "input");
        let edge = layer.edge_ffn.added(edge, Some(&layer.norm), pass);
        let state = States {
            node: pass.mean_edges(edge.clone()),
            edge,
        };
        state.note(pass, "input.layer");
        let state = self.norm.forward(state);
        state.note(pass, "input.block");
        state
    }
}

/// Packed self-attention over the edges of an atom.
#[derive(Module, Debug)]
pub(crate) struct MultiHeadAttention {
    /// `[hidden, 3 · hidden]`: queries, keys, values.
    in_proj_weight: Param<Tensor<2>>,
    in_proj_bias: Param<Tensor<1>>,
    out_proj: Affine,
    heads: usize,
}

impl MultiHeadAttention {
    fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        let (from, to) = (config.hidden, 3 * config.hidden);
        Self {
            in_proj_weight: draw.parameter([from, to], Law::xavier(from, to, 1.0)),
            in_proj_bias: draw.filled([to], 0.0),
            out_proj: Affine::new(config.hidden, config.hidden, draw),
            heads: config.heads,
        }
    }

    /// Attention among packed queries, keys and values `[edges, 3 · hidden]`, `[edges, hidden]`; the angle bias is scaled by
    /// `bias_scale [1]`.
    fn forward(&self, packed: Tensor<2>, bias_scale: Tensor<1>, pass: &Pass<'_, '_>) -> Tensor<2> {
        let features = &pass.features;
        let [atoms, slots] = features.mask.dims();
        let width = packed.dims()[1];
        let padded = match &features.padding {
            Some(padding) => gather_rows(packed, &padding.fill),
            None => packed,
        };
        let options = SlotAttention {
            heads: self.heads,
            bias: features.cosines.clone(),
            bias_scale,
            key_mask: features.mask.clone(),
            dropout: pass.attention_dropout(),
        };
        let attended = slot_attention(padded.reshape([atoms, slots, width]), options)
            .reshape([atoms * slots, width / 3]);
        let attended = match &features.padding {
            Some(padding) => gather_rows(attended, &padding.drop),
            None => attended,
        };
        self.out_proj.forward(attended)
    }
}

/// Messages from attributes and node states, and attention among them.
#[derive(Module, Debug)]
pub(crate) struct GraphAttention {
    attributes: EdgeAttributes,
    node_linear: Affine,
    message_linear: Affine,
    multi_head_attention: MultiHeadAttention,
    attn_scalar: Param<Tensor<1>>,
}

impl GraphAttention {
    fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        Self {
            attributes: EdgeAttributes::new(config, draw),
            node_linear: Affine::new(2 * config.hidden, config.hidden, draw),
            message_linear: Affine::new(2 * config.hidden, config.hidden, draw),
            multi_head_attention: MultiHeadAttention::new(config, draw),
            attn_scalar: draw.filled([1], 1.0),
        }
    }

    /// The residual branch of both streams, from normed node states.
    fn forward(&self, node: Tensor<2>, pass: &Pass<'_, '_>, notes: &str) -> States {
        let attributes = self.attributes.forward(pass, notes);
        self.note_message(&attributes, &node, pass, notes);
        let attention = &self.multi_head_attention;
        let packed = (attention.in_proj_weight.val(), attention.in_proj_bias.val());
        let maps = [self.node_linear.pair(), self.message_linear.pair(), packed];
        let packed = edge_messages(
            pass.features.ends(),
            attributes,
            node,
            maps,
            pass.map_dropout(),
        );
        let edge = attention.forward(packed, self.attn_scalar.val(), pass);
        States {
            node: pass.mean_edges(edge.clone()),
            edge,
        }
    }

    /// Notes what lies inside the fused operation, with the wide inputs written out.
    fn note_message(
        &self,
        attributes: &Tensor<2>,
        node: &Tensor<2>,
        pass: &Pass<'_, '_>,
        notes: &str,
    ) {
        if pass.is_traced() {
            let ends = Tensor::cat(
                vec![pass.of_sender(node.clone()), pass.of_receiver(node.clone())],
                1,
            );
            let ends = self.node_linear.activated(ends, None);
            pass.note(NoteRows::Edges, || format!("{notes}.node_linear"), &ends);
            let message = self
                .message_linear
                .activated(Tensor::cat(vec![attributes.clone(), ends], 1), None);
            pass.note(NoteRows::Edges, || format!("{notes}.message"), &message);
        }
    }
}

/// The feed-forward networks of a block.
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    mlp_node: Ffn,
    mlp_edge: Ffn,
}

/// Attention, then feed-forward networks, each normed before and added after.
#[derive(Module, Debug)]
pub(crate) struct Block {
    graph_attention: GraphAttention,
    feedforward: FeedForward,
    norm_attn: RmsNorm,
    norm_ffn: NodeEdgeNorm,
}

impl Block {
    fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        let (hidden, multiplier) = (config.hidden, config.block_multiplier);
        let graph_attention = GraphAttention::new(config, draw);
        let feedforward = FeedForward {
            mlp_node: Ffn::new(hidden, multiplier, 1.0, draw),
            mlp_edge: Ffn::new(hidden, multiplier, 1.0, draw),
        };
        Self {
            graph_attention,
            feedforward,
            norm_attn: RmsNorm::new(hidden, draw),
            norm_ffn: NodeEdgeNorm::new(hidden, draw),
        }
    }

    fn forward(&self, state: States, pass: &Pass<'_, '_>, notes: &str) -> States {
        let branch =
            self.graph_attention
                .forward(self.norm_attn.forward(state.node.clone()), pass, notes);
        branch.note(pass, &format!("{notes}.attention"));
        let state = state.plus(skipped(branch, pass));
        let state = States {
            node: self
                .feedforward
                .mlp_node
                .added(state.node, Some(&self.norm_ffn.node_norm), pass),
            edge: self
                .feedforward
                .mlp_edge
                .added(state.edge, Some(&self.norm_ffn.edge_norm), pass),
        };
        state.note(pass, &format!("{notes}.out"));
        state
    }
}

/// Stochastic depth: a molecule keeps the branch, scaled up, or loses it.
fn skipped(branch: States, pass: &Pass<'_, '_>) -> States {
    match pass.depth_factor() {
        None => branch,
        Some(of_atom) => {
            let of_edge = pass.of_receiver(of_atom.clone());
            States {
                node: branch.node * of_atom,
                edge: branch.edge * of_edge,
            }
        }
    }
}

/// What the output sees of the states after one block.
#[derive(Module, Debug)]
pub(crate) struct Readout {
    energy_ffn: Ffn,
    force_ffn: Ffn,
    energy_norm: RmsNorm,
    force_norm: RmsNorm,
}

impl Readout {
    fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        let (hidden, multiplier) = (config.hidden, config.readout_multiplier);
        Self {
            energy_ffn: Ffn::new(hidden, multiplier, 1.0, draw),
            force_ffn: Ffn::new(hidden, multiplier, 1.0, draw),
            energy_norm: RmsNorm::new(hidden, draw),
            force_norm: RmsNorm::new(hidden, draw),
        }
    }

    fn forward(&self, state: &States, pass: &Pass<'_, '_>) -> States {
        States {
            node: self
                .energy_ffn
                .added(state.node.clone(), Some(&self.energy_norm), pass),
            edge: self
                .force_ffn
                .added(state.edge.clone(), Some(&self.force_norm), pass),
        }
    }
}

/// From all readouts to one state.
#[derive(Module, Debug)]
pub(crate) struct OutputProjection {
    node_projection: Affine,
    edge_projection: Affine,
    readout_norm: NodeEdgeNorm,
    output_norm: NodeEdgeNorm,
}

impl OutputProjection {
    fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        let wide = (config.layers + 1) * config.hidden;
        Self {
            node_projection: Affine::new(wide, config.hidden, draw),
            edge_projection: Affine::new(wide, config.hidden, draw),
            readout_norm: NodeEdgeNorm::new(wide, draw),
            output_norm: NodeEdgeNorm::new(config.hidden, draw),
        }
    }

    fn forward(&self, readouts: Vec<States>) -> States {
        let (node, edge) = readouts.into_iter().map(|s| (s.node, s.edge)).unzip();
        let wide = self.readout_norm.forward(States {
            node: Tensor::cat(node, 1),
            edge: Tensor::cat(edge, 1),
        });
        self.output_norm.forward(States {
            node: self.node_projection.activated(wide.node, None),
            edge: self.edge_projection.activated(wide.edge, None),
        })
    }
}

/// The invariant network in front of the heads.
#[derive(Module, Debug)]
pub(crate) struct Backbone {
    input_block: InputBlock,
    transformer_blocks: Vec<Block>,
    readout_layers: Vec<Readout>,
    output_projection: OutputProjection,
}

impl Backbone {
    pub(crate) fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        Self {
            input_block: InputBlock::new(config, draw),
            transformer_blocks: (0..config.layers)
                .map(|_| Block::new(config, draw))
                .collect(),
            readout_layers: (0..=config.layers)
                .map(|_| Readout::new(config, draw))
                .collect(),
            output_projection: OutputProjection::new(config, draw),
        }
    }

    pub(crate) fn forward(&self, pass: &Pass<'_, '_>) -> States {
        let mut state = self.input_block.forward(pass);
        let mut readouts = Vec::with_capacity(self.readout_layers.len());
        for (t, readout) in self.readout_layers.iter().enumerate() {
            if t > 0 {
                state =
                    self.transformer_blocks[t - 1].forward(state, pass, &format!("block{}", t - 1));
            }
            let read = readout.forward(&state, pass);
            read.note(pass, &format!("readout{t}"));
            readouts.push(read);
        }
        let projected = self.output_projection.forward(readouts);
        projected.note(pass, "projection");
        projected
    }

    /// The states after the last block, which no readout has seen: what [`forward`](Self::forward) reads out last.
    pub(crate) fn last(&self, pass: &Pass<'_, '_>) -> States {
        let blocks = self.transformer_blocks.iter().enumerate();
        blocks.fold(self.input_block.forward(pass), |state, (t, block)| {
            block.forward(state, pass, &format!("block{t}"))
        })
    }
}

impl States {
    fn plus(self, other: Self) -> Self {
        Self {
            node: self.node + other.node,
            edge: self.edge + other.edge,
        }
    }

    fn note(&self, pass: &Pass<'_, '_>, name: &str) {
        pass.note(NoteRows::Atoms, || format!("{name}.node"), &self.node);
        pass.note(NoteRows::Edges, || format!("{name}.edge"), &self.edge);
    }
}
