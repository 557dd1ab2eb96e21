//! The backbone: edge attributes, input block, attention blocks, readouts, output projection. All of it is invariant:
//! positions enter through distances and angles only.
//!
//! The affine maps of concatenated inputs are applied part by part: what belongs to the neighbour or the centre is
//! multiplied once per atom and then gathered, what belongs to the distance once per pair. The function is the same up to
//! the order of summation.

use crate::{
    EscaipConfig,
    layers::{Affine, Draw, Ffn, NodeEdgeNorm, RmsNorm, States, Table},
    pass::{NoteRows, Pass},
};
use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use equivbench_kernels::{SlotAttention, banded_radial, gather_rows, gelu, slot_attention};

/// Attributes of an edge, straight through the affine map that follows them:
/// `lin([radial ‖ source orders ‖ source element ‖ target orders ‖ target element])`.
#[derive(Module, Debug)]
pub(crate) struct EdgeAttributes {
    edge_distance_embedding: Affine,
    source_direction_embedding: Affine,
    source_atomic_embedding: Table,
    target_direction_embedding: Affine,
    target_atomic_embedding: Table,
    edge_linear: Affine,
}

impl EdgeAttributes {
    fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        let (orders, embedding) = (config.boo_orders, config.boo_embedding);
        Self {
            edge_distance_embedding: draw.affine(config.radial_functions, config.radial_embedding),
            source_direction_embedding: draw.affine(orders, embedding),
            source_atomic_embedding: draw.table(config.elements, config.atom_embedding),
            target_direction_embedding: draw.affine(orders, embedding),
            target_atomic_embedding: draw.table(config.elements, config.atom_embedding),
            edge_linear: draw.affine(config.attributes(), config.hidden),
        }
    }

    /// `[edges, hidden]`.
    fn forward(&self, pass: &Pass<'_, '_>, notes: &str) -> Tensor<2> {
        let [radial_width, hidden] = [self.edge_distance_embedding.bias.dims()[0], self.edge_linear.bias.dims()[0]];
        let width = self.edge_linear.weight.dims()[0];
        let middle = radial_width + (width - radial_width) / 2;
        let source = self.atom_part(&self.source_direction_embedding, &self.source_atomic_embedding, pass);
        let target = self.atom_part(&self.target_direction_embedding, &self.target_atomic_embedding, pass);
        let source = source.matmul(self.edge_linear.rows(radial_width, middle));
        let target = target.matmul(self.edge_linear.rows(middle, width)) + self.edge_linear.bias.val().reshape([1, hidden]);
        let radial = self.radial_part(pass, notes);
        let out = pass.dropout(gelu(radial + pass.of_sender(source) + pass.of_receiver(target)));
        pass.note(NoteRows::Edges, || format!("{notes}.edge_linear"), &out);
        out
    }

    /// `[atoms, V + A]`.
    fn atom_part(&self, orders: &Affine, table: &Table, pass: &Pass<'_, '_>) -> Tensor<2> {
        let element = gather_rows(table.weight.val(), &pass.features.species);
        Tensor::cat(vec![orders.activated(pass.features.orders.clone(), pass), element], 1)
    }

    /// The share of the distance, `[edges, hidden]`. Without dropout both directions of a pair share all of it, with
    /// dropout (each edge has its own mask, as in the reference) they share the embedding before the mask.
    fn radial_part(&self, pass: &Pass<'_, '_>, notes: &str) -> Tensor<2> {
        let embedding = &self.edge_distance_embedding;
        let embedded = gelu(banded_radial(&pass.features.radial, embedding.weight.val(), embedding.bias.val()));
        pass.note(NoteRows::Pairs, || format!("{notes}.edge_distance_embedding"), &embedded);
        let weight = self.edge_linear.rows(0, embedded.dims()[1]);
        if pass.drops() { pass.dropout(pass.of_pair(embedded)).matmul(weight) } else { pass.of_pair(embedded.matmul(weight)) }
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
        let edge_ffn = draw.ffn(config.hidden, 1, 1.0);
        let input_layer = InputLayer { attributes, edge_ffn, norm: draw.rms(config.hidden) };
        Self { input_layer, norm: draw.norms(config.hidden) }
    }

    fn forward(&self, pass: &Pass<'_, '_>) -> States {
        let layer = &self.input_layer;
        let edge = layer.attributes.forward(pass, "input");
        let edge = edge.clone() + layer.edge_ffn.forward(layer.norm.forward(edge), pass);
        let state = States { node: pass.mean_edges(edge.clone()), edge };
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
        Self {
            in_proj_weight: draw.xavier(config.hidden, 3 * config.hidden, 1.0),
            in_proj_bias: draw.zeros(3 * config.hidden),
            out_proj: draw.affine(config.hidden, config.hidden),
            heads: config.heads,
        }
    }

    /// `[edges, hidden]` to the same; the angle bias is scaled by `bias_scale [1]`.
    fn forward(&self, x: Tensor<2>, bias_scale: Tensor<1>, pass: &Pass<'_, '_>) -> Tensor<2> {
        let features = &pass.features;
        let [atoms, slots] = features.mask.dims();
        let packed = burn::tensor::module::linear(x, self.in_proj_weight.val(), Some(self.in_proj_bias.val()));
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
        let attended = slot_attention(padded.reshape([atoms, slots, width]), options).reshape([atoms * slots, width / 3]);
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
            node_linear: draw.affine(2 * config.hidden, config.hidden),
            message_linear: draw.affine(2 * config.hidden, config.hidden),
            multi_head_attention: MultiHeadAttention::new(config, draw),
            attn_scalar: draw.ones(1),
        }
    }

    /// The residual branch of both streams, from normed node states.
    fn forward(&self, node: Tensor<2>, pass: &Pass<'_, '_>, notes: &str) -> States {
        let hidden = node.dims()[1];
        let attributes = self.attributes.forward(pass, notes);
        let source = node.clone().matmul(self.node_linear.rows(0, hidden));
        let target = node.matmul(self.node_linear.rows(hidden, 2 * hidden)) + self.node_linear.bias.val().reshape([1, hidden]);
        let ends = pass.dropout(gelu(pass.of_sender(source) + pass.of_receiver(target)));
        pass.note(NoteRows::Edges, || format!("{notes}.node_linear"), &ends);
        let message = gelu(self.message_linear.forward(Tensor::cat(vec![attributes, ends], 1)));
        pass.note(NoteRows::Edges, || format!("{notes}.message"), &message);
        let edge = self.multi_head_attention.forward(message, self.attn_scalar.val(), pass);
        States { node: pass.mean_edges(edge.clone()), edge }
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
        let feedforward = FeedForward { mlp_node: draw.ffn(hidden, multiplier, 1.0), mlp_edge: draw.ffn(hidden, multiplier, 1.0) };
        Self { graph_attention, feedforward, norm_attn: draw.rms(hidden), norm_ffn: draw.norms(hidden) }
    }

    fn forward(&self, state: States, pass: &Pass<'_, '_>, notes: &str) -> States {
        let branch = self.graph_attention.forward(self.norm_attn.forward(state.node.clone()), pass, notes);
        branch.note(pass, &format!("{notes}.attention"));
        let state = state.plus(skipped(branch, pass));
        let normed = self.norm_ffn.forward(state.clone());
        let state = state.plus(States {
            node: self.feedforward.mlp_node.forward(normed.node, pass),
            edge: self.feedforward.mlp_edge.forward(normed.edge, pass),
        });
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
            States { node: branch.node * of_atom, edge: branch.edge * of_edge }
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
            energy_ffn: draw.ffn(hidden, multiplier, 1.0),
            force_ffn: draw.ffn(hidden, multiplier, 1.0),
            energy_norm: draw.rms(hidden),
            force_norm: draw.rms(hidden),
        }
    }

    fn forward(&self, state: &States, pass: &Pass<'_, '_>) -> States {
        state.clone().plus(States {
            node: self.energy_ffn.forward(self.energy_norm.forward(state.node.clone()), pass),
            edge: self.force_ffn.forward(self.force_norm.forward(state.edge.clone()), pass),
        })
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
            node_projection: draw.affine(wide, config.hidden),
            edge_projection: draw.affine(wide, config.hidden),
            readout_norm: draw.norms(wide),
            output_norm: draw.norms(config.hidden),
        }
    }

    fn forward(&self, readouts: Vec<States>) -> States {
        let (node, edge) = readouts.into_iter().map(|s| (s.node, s.edge)).unzip();
        let wide = self.readout_norm.forward(States { node: Tensor::cat(node, 1), edge: Tensor::cat(edge, 1) });
        self.output_norm
            .forward(States { node: gelu(self.node_projection.forward(wide.node)), edge: gelu(self.edge_projection.forward(wide.edge)) })
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
            transformer_blocks: (0..config.layers).map(|_| Block::new(config, draw)).collect(),
            readout_layers: (0..=config.layers).map(|_| Readout::new(config, draw)).collect(),
            output_projection: OutputProjection::new(config, draw),
        }
    }

    pub(crate) fn forward(&self, pass: &Pass<'_, '_>) -> States {
        let mut state = self.input_block.forward(pass);
        let mut readouts = Vec::with_capacity(self.readout_layers.len());
        for (t, readout) in self.readout_layers.iter().enumerate() {
            if t > 0 {
                state = self.transformer_blocks[t - 1].forward(state, pass, &format!("block{}", t - 1));
            }
            let read = readout.forward(&state, pass);
            read.note(pass, &format!("readout{t}"));
            readouts.push(read);
        }
        let projected = self.output_projection.forward(readouts);
        projected.note(pass, "projection");
        projected
    }
}

impl States {
    fn plus(self, other: Self) -> Self {
        Self { node: self.node + other.node, edge: self.edge + other.edge }
    }

    fn note(&self, pass: &Pass<'_, '_>, name: &str) {
        pass.note(NoteRows::Atoms, || format!("{name}.node"), &self.node);
        pass.note(NoteRows::Edges, || format!("{name}.edge"), &self.edge);
    }
}
