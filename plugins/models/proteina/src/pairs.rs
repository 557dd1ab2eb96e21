//! The pair representation: made from classes once for each kind of pair, and read as biases of the attention and by the distogram
//! head.

use crate::{
    ProteinaConfig,
    context::Base,
    features::Features,
    kinds::PairKinds,
    layers::{AdaptiveNorm, Affine, EPSILON, LayerNorm, Linear},
    layout::{Layout, NoteRows, Notes},
};
use burn::{
    module::Module,
    tensor::{Tensor, TensorData},
};
use equivbench_kernels::{
    RowChoice, RowIndex, adaptive_layer_norm, affine, gather_rows, is_host, layer_norm, lookup_sum,
};
use equivbench_plugin::Draw;

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
    pub(crate) fn each(self, kinds: &PairKinds) -> Tensor<2> {
        match self {
            Self::Each(rows) => rows,
            Self::OfKinds(rows) => of_pairs(rows, kinds),
        }
    }

    /// Layer normalisation without scale and shift: what all biases that are read from here share.
    pub(crate) fn standardised(&self) -> Self {
        self.with(layer_norm(self.rows().clone(), None, EPSILON))
    }

    /// The same numbers of other rows of the same pairs.
    fn with(&self, rows: Tensor<2>) -> Self {
        match self {
            Self::OfKinds(_) => Self::OfKinds(rows),
            Self::Each(_) => Self::Each(rows),
        }
    }

    /// Biases of several layers from [standardised](Self::standardised) rows, as rows of `h` numbers.
    ///
    /// Those of kinds stay so until [their layer](Self::of_runs) reads them: at 24 chains of 256 residues the biases of ten layers for
    /// every pair are 540 MB, for every kind at one flow time 3 MB, and picking rows is half a percent of a training step of `60M`.
    pub(crate) fn biases(&self, maps: &[&BiasMap]) -> Vec<Self> {
        let (weights, shifts): (Vec<_>, Vec<_>) = maps.iter().map(|map| map.folded()).unzip();
        let (rows, weight) = (self.rows().clone(), Tensor::cat(weights, 1));
        let shift = Tensor::cat(shifts, 1);
        let stacked = if is_host(&rows.device()) {
            rows.matmul(weight) + shift
        } else {
            affine(rows, (weight, shift.squeeze_dim(0)))
        };
        let heads = stacked.dims()[1] / maps.len();
        (0..maps.len())
            .map(|layer| self.with(stacked.clone().narrow(1, layer * heads, heads)))
            .collect()
    }

    /// Rows of `h` numbers for every run, `[chains, n, n, h]`.
    pub(crate) fn of_runs(&self, kinds: &PairKinds, layout: &Layout) -> Vec<Tensor<4>> {
        let width = self.rows().dims()[1];
        let runs = layout.runs.iter().zip(&kinds.of_run);
        runs.map(|(run, kinds)| {
            let own = match self {
                Self::OfKinds(rows) => gather_rows(rows.clone(), kinds),
                Self::Each(rows) => rows.clone().slice([run.pair_rows(), 0..width]),
            };
            own.reshape([run.chains, run.tokens, run.tokens, width])
        })
        .collect()
    }
}

/// Rows of kinds for every pair of tokens.
fn of_pairs(rows: Tensor<2>, kinds: &PairKinds) -> Tensor<2> {
    let runs = kinds
        .of_run
        .iter()
        .map(|kinds| gather_rows(rows.clone(), kinds));
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
        Self {
            pair_norm: LayerNorm::new(config.pair_width, draw),
            to_bias: Linear::new(config.pair_width, config.heads, draw),
        }
    }

    /// The norm's scale and shift as part of the map: `[p, h]` and `[1, h]`.
    fn folded(&self) -> (Tensor<2>, Tensor<2>) {
        let weight = self.to_bias.weight.val();
        let scale = self.pair_norm.weight.val().unsqueeze_dim::<2>(1);
        (
            weight.clone() * scale,
            self.pair_norm.bias.val().unsqueeze::<2>().matmul(weight),
        )
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
        let mut factory = |inputs, outputs| PairFactory {
            ln_out: LayerNorm::new(outputs, draw),
            linear_out: Linear::new(inputs, outputs, draw),
        };
        let (init_repr_factory, cond_factory) = (
            factory(config.pair_features(), pair),
            factory(config.time_width, conditioning),
        );
        Self {
            init_repr_factory,
            cond_factory,
            adaln: AdaptiveNorm::new(conditioning, pair, draw),
        }
    }

    /// `[times, p]` each: the scales and shifts of the norm that closes the making, from the flow times.
    pub(crate) fn modulation(&self, features: &Features, notes: &Notes) -> [Tensor<2>; 2] {
        let conditioning = self.cond_factory.ln_out.forward(
            self.cond_factory
                .linear_out
                .forward(features.time_embedding.clone()),
        );
        notes.add(
            NoteRows::ResiduePairs,
            || "pair_cond".into(),
            || times_of_residue_pairs(conditioning.clone(), features),
        );
        self.adaln.table(conditioning)
    }

    /// The first representation of every kind of pair.
    pub(crate) fn forward(
        &self,
        base: &Base,
        kinds: &PairKinds,
        config: &ProteinaConfig,
        notes: &Notes,
    ) -> Pairs {
        let layout = &base.features.layout;
        let first = self
            .init_repr_factory
            .ln_out
            .forward(self.looked_up(kinds, config));
        let [scale, shift] = base.pair_modulation.clone();
        notes.add(
            NoteRows::ResiduePairs,
            || "pair_bins".into(),
            || classes_of_residue_pairs(kinds, layout, &first),
        );
        notes.add(
            NoteRows::ResiduePairs,
            || "pair_init_repr".into(),
            || of_residue_pairs(of_pairs(first.clone(), kinds), layout),
        );
        let rows = adaptive_layer_norm(first, scale, shift, &kinds.times, EPSILON);
        notes.add(
            NoteRows::ResiduePairs,
            || "pair_repr".into(),
            || of_residue_pairs(of_pairs(rows.clone(), kinds), layout),
        );
        Pairs::OfKinds(rows)
    }

    /// One-hot classes times the weight: rows of its parts. Without self-conditioning its part is left out.
    fn looked_up(&self, kinds: &PairKinds, config: &ProteinaConfig) -> Tensor<2> {
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
fn of_residue_pairs(x: Tensor<2>, layout: &Layout) -> Tensor<2> {
    gather_rows(
        x,
        &layout
            .pairs_of_residues()
            .expect("pairs of residues are pairs of tokens"),
    )
}

/// `[pairs of residues, 2]`: the class of separation and that of the distance.
fn classes_of_residue_pairs(kinds: &PairKinds, layout: &Layout, like: &Tensor<2>) -> Tensor<2> {
    let classes = kinds
        .separations
        .index()
        .iter()
        .zip(kinds.distances.index());
    let known = |class: u32| {
        if class == RowChoice::NONE {
            0.0
        } else {
            f64::from(class)
        }
    };
    let values: Vec<f64> = classes
        .flat_map(|(&separation, &distance)| [known(separation), known(distance)])
        .collect();
    let data = TensorData::new(values, [kinds.times.index().len(), 2]);
    of_residue_pairs(
        of_pairs(
            Tensor::from_data(data, (&like.device(), like.dtype())),
            kinds,
        ),
        layout,
    )
}

/// Rows of times for every pair of residues.
fn times_of_residue_pairs(x: Tensor<2>, features: &Features) -> Tensor<2> {
    let chains = features.time_of_chain.iter().zip(features.layout.lengths());
    let times: Vec<usize> = chains
        .flat_map(|(&time, &n)| std::iter::repeat_n(time, n * n))
        .collect();
    let rows = RowIndex::new(x.dims()[0], &times).expect("chains have times that are there");
    gather_rows(x, &rows)
}

/// Logits of the classes of distances.
#[derive(Module, Debug)]
pub(crate) struct DistogramHead {
    head_norm: LayerNorm,
    head_linear: Affine,
}

impl DistogramHead {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        Self {
            head_norm: LayerNorm::new(config.pair_width, draw),
            head_linear: Affine::new(config.pair_width, config.distogram_bins, draw),
        }
    }

    /// `[pairs of residues, classes]`.
    pub(crate) fn forward(&self, pairs: Tensor<2>, layout: &Layout) -> Tensor<2> {
        self.head_linear
            .forward(self.head_norm.forward(of_residue_pairs(pairs, layout)))
    }
}
