//! The pair representation: made from classes once for each kind of pair, and read as biases of the attention and by the distogram
//! head.

use crate::{
    ProteinaConfig,
    features::Features,
    layers::{AdaptiveNorm, Affine, Draw, EPSILON, LayerNorm, Linear},
    notes::{NoteRows, Notes},
};
use burn::{
    module::Module,
    tensor::{Tensor, TensorData},
};
use equivbench_kernels::{RowChoice, adaptive_layer_norm, gather_rows, layer_norm, lookup_sum};

/// The pair representation at one place of the trunk.
#[derive(Clone, Debug)]
pub(crate) enum Pairs {
    /// `[kinds, p]`, before the first update.
    OfKinds(Tensor<2>),
    /// `[pairs, p]`, one row for each pair of tokens.
    Each(Tensor<2>),
}

impl Pairs {
    fn rows(&self) -> &Tensor<2> {
        match self {
            Self::OfKinds(rows) | Self::Each(rows) => rows,
        }
    }

    /// One row for each pair of tokens.
    pub(crate) fn each(self, features: &Features) -> Tensor<2> {
        match self {
            Self::Each(rows) => rows,
            Self::OfKinds(rows) => of_pairs(rows, features),
        }
    }

    /// Layer normalisation without scale and shift: what all biases that are read from here share.
    pub(crate) fn standardised(&self) -> Self {
        let normal = layer_norm(self.rows().clone(), None, EPSILON);
        match self {
            Self::OfKinds(_) => Self::OfKinds(normal),
            Self::Each(_) => Self::Each(normal),
        }
    }

    /// Biases of several layers from [standardised](Self::standardised) rows; for each layer and each run `[chains, n, n, h]`.
    pub(crate) fn biases(&self, maps: &[&BiasMap], features: &Features) -> Vec<Vec<Tensor<4>>> {
        let (weights, shifts): (Vec<_>, Vec<_>) = maps.iter().map(|map| map.folded()).unzip();
        let stacked = self.rows().clone().matmul(Tensor::cat(weights, 1)) + Tensor::cat(shifts, 1);
        let heads = stacked.dims()[1] / maps.len();
        let of_layer = |layer: usize| self.biases_of_runs(stacked.clone().narrow(1, layer * heads, heads), features);
        (0..maps.len()).map(of_layer).collect()
    }

    fn biases_of_runs(&self, rows: Tensor<2>, features: &Features) -> Vec<Tensor<4>> {
        let heads = rows.dims()[1];
        let runs = features.layout.runs.iter().zip(&features.kinds.of_run);
        runs.map(|(run, kinds)| {
            let own = match self {
                Self::OfKinds(_) => gather_rows(rows.clone(), kinds),
                Self::Each(_) => rows.clone().slice([run.pair_rows(), 0..heads]),
            };
            own.reshape([run.chains, run.tokens, run.tokens, heads])
        })
        .collect()
    }
}

/// Rows of kinds for every pair of tokens.
fn of_pairs(rows: Tensor<2>, features: &Features) -> Tensor<2> {
    let runs = features.kinds.of_run.iter().map(|kinds| gather_rows(rows.clone(), kinds));
    Tensor::cat(runs.collect(), 0)
}

/// The bias of the attention logits of a layer.
#[derive(Module, Debug)]
pub(crate) struct BiasMap {
    pair_norm: LayerNorm,
    to_bias: Linear,
}

impl BiasMap {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        Self { pair_norm: draw.norm(config.pair_width), to_bias: draw.linear(config.pair_width, config.heads) }
    }

    /// The norm's scale and shift as part of the map: `[p, h]` and `[1, h]`.
    fn folded(&self) -> (Tensor<2>, Tensor<2>) {
        let weight = self.to_bias.weight.val();
        let scale = self.pair_norm.weight.val().unsqueeze_dim::<2>(1);
        (weight.clone() * scale, self.pair_norm.bias.val().unsqueeze::<2>().matmul(weight))
    }
}

/// Classes to features.
#[derive(Module, Debug)]
pub(crate) struct PairFactory {
    ln_out: LayerNorm,
    linear_out: Linear,
}

/// Makes the first pair representation.
#[derive(Module, Debug)]
pub(crate) struct PairBuilder {
    init_repr_factory: PairFactory,
    cond_factory: PairFactory,
    adaln: AdaptiveNorm,
}

impl PairBuilder {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        let (pair, conditioning) = (config.pair_width, config.conditioning_width);
        let mut factory = |inputs, outputs| PairFactory { ln_out: draw.norm(outputs), linear_out: draw.linear(inputs, outputs) };
        let (init_repr_factory, cond_factory) = (factory(config.pair_features(), pair), factory(config.time_width, conditioning));
        Self { init_repr_factory, cond_factory, adaln: draw.adaptive_norm(conditioning, pair) }
    }

    pub(crate) fn forward(&self, features: &Features, config: &ProteinaConfig, notes: &Notes) -> Pairs {
        let kinds = &features.kinds;
        let first = self.init_repr_factory.ln_out.forward(self.looked_up(features, config));
        let conditioning = self.cond_factory.ln_out.forward(self.cond_factory.linear_out.forward(features.time_embedding.clone()));
        let [scale, shift] = self.adaln.table(conditioning.clone());
        notes.add(NoteRows::ResiduePairs, || "pair_bins".into(), || classes_of_residue_pairs(features));
        notes.add(NoteRows::ResiduePairs, || "pair_init_repr".into(), || of_residue_pairs(of_pairs(first.clone(), features), features));
        notes.add(NoteRows::ResiduePairs, || "pair_cond".into(), || times_of_residue_pairs(conditioning, features));
        let rows = adaptive_layer_norm(first, scale, shift, &kinds.times, EPSILON);
        notes.add(NoteRows::ResiduePairs, || "pair_repr".into(), || of_residue_pairs(of_pairs(rows.clone(), features), features));
        Pairs::OfKinds(rows)
    }

    /// One-hot classes times the weight: rows of its parts. Without self-conditioning its part is left out.
    fn looked_up(&self, features: &Features, config: &ProteinaConfig) -> Tensor<2> {
        let kinds = &features.kinds;
        let first = config.sequence_separation_bins;
        let second = first + config.self_conditioning_bins;
        let part = |from, to| self.init_repr_factory.linear_out.rows(from, to);
        let (mut tables, mut choices) = (vec![part(0, first)], vec![kinds.separations.clone()]);
        if let Some(own) = &kinds.self_conditioning {
            tables.push(part(first, second));
            choices.push(own.clone());
        }
        tables.push(part(second, second + config.position_bins));
        choices.push(kinds.distances.clone());
        lookup_sum(tables, &choices)
    }
}

/// Rows of pairs of tokens, for pairs of residues only.
fn of_residue_pairs(x: Tensor<2>, features: &Features) -> Tensor<2> {
    gather_rows(x, &features.layout.pairs_of_residues().expect("pairs of residues are pairs of tokens"))
}

/// `[pairs of residues, 2]`: the class of separation and that of the distance.
fn classes_of_residue_pairs(features: &Features) -> Tensor<2> {
    let kinds = &features.kinds;
    let like = &features.time_embedding;
    let classes = kinds.separations.index().iter().zip(kinds.distances.index());
    let known = |class: u32| if class == RowChoice::NONE { 0.0 } else { f64::from(class) };
    let values: Vec<f64> = classes.flat_map(|(&separation, &distance)| [known(separation), known(distance)]).collect();
    let data = TensorData::new(values, [kinds.times.index().len(), 2]);
    of_residue_pairs(of_pairs(Tensor::from_data(data, (&like.device(), like.dtype())), features), features)
}

/// Rows of times for every pair of residues.
fn times_of_residue_pairs(x: Tensor<2>, features: &Features) -> Tensor<2> {
    of_residue_pairs(of_pairs(lookup_sum(vec![x], std::slice::from_ref(&features.kinds.times)), features), features)
}

/// Logits of the classes of distances.
#[derive(Module, Debug)]
pub(crate) struct DistogramHead {
    head_norm: LayerNorm,
    head_linear: Affine,
}

impl DistogramHead {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        Self { head_norm: draw.norm(config.pair_width), head_linear: draw.affine(config.pair_width, config.distogram_bins) }
    }

    /// `[pairs of residues, classes]`.
    pub(crate) fn forward(&self, pairs: Tensor<2>, features: &Features) -> Tensor<2> {
        self.head_linear.forward(self.head_norm.forward(of_residue_pairs(pairs, features)))
    }
}
