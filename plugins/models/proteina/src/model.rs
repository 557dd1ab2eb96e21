//! The model as the author crate sees it: velocities, losses, names, groups.

use crate::{
    ProteinaConfig,
    conditioning::Conditioning,
    context::{Base, Common, PairContext},
    features::Features,
    inputs::{Inputs, Site},
    kinds::PairKinds,
    layout::{NoteRows, Notes},
    losses::{Weighting, distogram_loss, velocity_loss},
    pairs::{DistogramHead, PairBuilder, Pairs},
    tokens::{CoordinateHead, Embedding},
    triangles::PairUpdate,
    trunk::{Layer, LayerInputs},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use equivbench_kernels::KernelError;
use equivbench_plugin::{
    Batch, Draw, FieldDescriptor, LinearGroupDescriptor, ModelPlugin, Note, PluginError,
    PluginResult, Recipe, Shared, field, linear_map, rows_within,
};
use std::ops::Range;

/// The linear head.
const HEAD: &str = "head";
/// The norm in front of it, and the head.
const HEAD_NORM: &str = "head-norm";

/// Proteina: flow matching on C-alpha traces.
#[derive(Module, Debug)]
pub struct Proteina {
    embedding: Embedding,
    conditioning: Conditioning,
    pair_repr_builder: PairBuilder,
    transformer_layers: Vec<Layer>,
    /// By layer; `None` where the pairs stay as they are.
    pair_update_layers: Vec<Option<PairUpdate>>,
    pair_head_prediction: Option<DistogramHead>,
    coors_3d_decoder: CoordinateHead,
    #[module(skip)]
    config: ProteinaConfig,
}

/// Everything a traced pass saw, for parity tests and for people who look inside.
#[derive(Debug)]
pub struct Trace {
    /// Intermediate quantities in the order in which they were made.
    pub notes: Vec<Note<NoteRows>>,
    /// `[residues, 3]`, nm.
    pub velocity: Tensor<2>,
    /// `[pairs of residues, classes]`, where the model updates its pairs.
    pub distogram: Option<Tensor<2>>,
}

/// What comes out of the trunk.
struct Latent {
    tokens: Tensor<2>,
    pairs: Pairs,
}

impl Proteina {
    /// The configuration the model was made with.
    #[must_use]
    pub fn config(&self) -> &ProteinaConfig {
        &self.config
    }

    /// A forward pass of both heads that keeps every intermediate tensor.
    ///
    /// # Errors
    /// A batch that the model cannot read.
    pub fn trace(&self, batch: &Batch<'_>) -> PluginResult<Trace> {
        let (inputs, notes) = (Inputs::read(batch)?, Notes::kept());
        let base = self.base(&inputs, &notes)?;
        let context = self.pair_context(&base, &inputs, &notes)?;
        let latent = self.latent(&base, &context, &inputs, &notes);
        let velocity = self
            .coors_3d_decoder
            .forward(latent.tokens, &base.features, &notes);
        let logits = |head: &DistogramHead| {
            head.forward(latent.pairs.each(&context.kinds), &base.features.layout)
        };
        let distogram = self.pair_head_prediction.as_ref().map(logits);
        Ok(Trace {
            notes: notes.into_vec(),
            velocity,
            distogram,
        })
    }

    /// What no rotation of the batch changes.
    fn base(&self, inputs: &Inputs, notes: &Notes) -> PluginResult<Base> {
        let features = Features::new(inputs, &self.config).map_err(refused)?;
        let conditioning = self.conditioning.table(&features, notes);
        Ok(Base {
            sequence: self.embedding.invariant(&features, notes),
            layers: self
                .transformer_layers
                .iter()
                .map(|layer| layer.modulation(&conditioning))
                .collect(),
            pair_modulation: self.pair_repr_builder.modulation(&features, notes),
            features,
        })
    }

    /// The pairs, with the classes of the estimate of the clean cloud where the inputs have one.
    fn pair_context(
        &self,
        base: &Base,
        inputs: &Inputs,
        notes: &Notes,
    ) -> PluginResult<PairContext> {
        let kinds = PairKinds::new(&base.features, inputs.estimate().as_ref(), &self.config)
            .map_err(refused)?;
        let pairs = self
            .pair_repr_builder
            .forward(base, &kinds, &self.config, notes);
        let biases = self.biases_from(0, &pairs);
        Ok(PairContext {
            kinds,
            pairs,
            biases,
        })
    }

    /// The trunk on the Cartesian numbers of the inputs; all else comes from the contexts.
    fn latent(&self, base: &Base, context: &PairContext, inputs: &Inputs, notes: &Notes) -> Latent {
        let features = &base.features;
        let mut tokens = self
            .embedding
            .forward(base, &inputs.cartesian(), &self.config, notes);
        let mut pairs = context.pairs.clone();
        let mut biases = context.biases.clone().into_iter();
        for (layer, (block, modulation)) in
            self.transformer_layers.iter().zip(&base.layers).enumerate()
        {
            let own = biases.next().unwrap_or_else(|| {
                biases = self.biases_from(layer, &pairs).into_iter();
                biases.next().expect("biases were made for this layer")
            });
            let biases_of_runs = own.of_runs(&context.kinds, &features.layout);
            tokens = block.forward(
                tokens,
                LayerInputs {
                    modulation,
                    biases: biases_of_runs,
                    features,
                    notes,
                    layer,
                },
            );
            if let Some(Some(update)) = self.pair_update_layers.get(layer) {
                pairs = Pairs::Each(update.forward(
                    pairs.each(&context.kinds),
                    tokens.clone(),
                    &features.layout,
                    notes,
                    layer,
                ));
            }
        }
        Latent { tokens, pairs }
    }

    /// Biases of a layer and of those after it that see the same pairs.
    fn biases_from(&self, layer: usize, pairs: &Pairs) -> Vec<Pairs> {
        let last = (layer..self.config.layers - 1)
            .find(|&l| self.config.updates_after(l))
            .unwrap_or(self.config.layers - 1);
        let maps: Vec<_> = self.transformer_layers[layer..=last]
            .iter()
            .map(|block| &block.mhba.mha.bias_map)
            .collect();
        pairs.standardised().biases(&maps)
    }

    /// `[residues, 3]`, nm.
    fn velocity(&self, inputs: &Inputs) -> PluginResult<Tensor<2>> {
        let notes = Notes::none();
        let base = self.base(inputs, &notes)?;
        let context = self.pair_context(&base, inputs, &notes)?;
        Ok(self.velocity_in(&base, &context, inputs))
    }

    /// `[residues, 3]`, nm, where everything but the Cartesian numbers is known.
    fn velocity_in(&self, base: &Base, context: &PairContext, inputs: &Inputs) -> Tensor<2> {
        let notes = Notes::none();
        self.coors_3d_decoder.forward(
            self.latent(base, context, inputs, &notes).tokens,
            &base.features,
            &notes,
        )
    }

    /// What all rotated copies of a batch have in common.
    fn common(&self, batch: &Batch<'_>) -> PluginResult<Common> {
        // An estimate belongs to one rotation.
        let inputs = Inputs {
            self_conditioning: None,
            ..Inputs::read(batch)?
        };
        let notes = Notes::none();
        let base = self.base(&inputs, &notes)?;
        let pairs = self.pair_context(&base, &inputs, &notes)?;
        Ok(Common {
            inputs,
            base,
            pairs,
        })
    }

    /// What comes out of the trunk for a rotated copy, `[tokens, d]`.
    fn tokens_shared(&self, common: &Common, rotated: &Inputs) -> PluginResult<Tensor<2>> {
        common.check(rotated)?;
        let notes = Notes::none();
        let latent = if rotated.self_conditioning.is_none() {
            self.latent(&common.base, &common.pairs, rotated, &notes)
        } else {
            let context = self.pair_context(&common.base, rotated, &notes)?;
            self.latent(&common.base, &context, rotated, &notes)
        };
        Ok(latent.tokens)
    }

    fn velocity_mse(&self, batch: &Batch<'_>) -> PluginResult<Tensor<1>> {
        let (inputs, target) = (Inputs::read(batch)?, Inputs::target(batch)?);
        Ok(velocity_loss(
            self.velocity(&inputs)?,
            &target,
            &inputs,
            Weighting::Velocity,
        ))
    }

    fn flow_matching(&self, batch: &Batch<'_>) -> PluginResult<Tensor<1>> {
        let (mut inputs, target) = (Inputs::read(batch)?, Inputs::target(batch)?);
        if inputs.self_conditioning.is_none() && self.conditions_on_itself(batch) {
            inputs.self_conditioning = Some(self.first_prediction(&inputs)?);
        }
        let notes = Notes::none();
        let base = self.base(&inputs, &notes)?;
        let context = self.pair_context(&base, &inputs, &notes)?;
        let Latent { tokens, pairs } = self.latent(&base, &context, &inputs, &notes);
        let velocity = self
            .coors_3d_decoder
            .forward(tokens, &base.features, &notes);
        let loss = velocity_loss(velocity, &target, &inputs, Weighting::FlowMatching);
        match &self.pair_head_prediction {
            Some(head) if self.config.distogram_weight > 0.0 => {
                let logits = head.forward(pairs.each(&context.kinds), &base.features.layout);
                Ok(loss
                    + distogram_loss(logits, &inputs.clean(&target), &inputs, &self.config)
                        * self.config.distogram_weight)
            }
            _ => Ok(loss),
        }
    }

    /// One coin for a batch; never in evaluation.
    fn conditions_on_itself(&self, batch: &Batch<'_>) -> bool {
        // The upper 53 bits: a number from [0, 1).
        let coin = |seed: u64| (seed >> 11) as f64 / (1u64 << 53) as f64;
        batch
            .next_dropout_seed()
            .is_some_and(|seed| coin(seed) < self.config.self_conditioning_probability)
    }

    /// The clean cloud that a pass without self-conditioning predicts, without a trace in the gradient.
    fn first_prediction(&self, inputs: &Inputs) -> PluginResult<Vec<f64>> {
        let site = Site {
            device: inputs.site.device.clone().inner(),
            precision: inputs.site.precision,
        };
        let velocity = self.valid().velocity(&Inputs {
            site,
            ..inputs.clone()
        })?;
        Ok(inputs.clean(&velocity.into_data().iter::<f64>().collect::<Vec<_>>()))
    }
}

impl ModelPlugin for Proteina {
    type Config = ProteinaConfig;
    const NAME: &'static str = "proteina";
    const ABOUT: &'static str =
        "Proteina: flow matching on C-alpha traces, velocities that must learn to rotate";
    const TASKS: &'static [&'static str] = &["flow-matching"];
    const DEFAULT_DATASETS: &'static [&'static str] = &["pdb"];
    const CAPABILITIES: &'static [&'static str] = &["self-conditioning", "shared-rotations"];

    fn sizes() -> Vec<(&'static str, ProteinaConfig)> {
        ProteinaConfig::named()
    }

    fn init(config: &ProteinaConfig, device: &Device) -> Self {
        let mut draw = Draw::from_device(device);
        let draw = &mut draw;
        let update = |layer: usize, draw: &mut Draw<'_>| {
            config
                .updates_after(layer)
                .then(|| PairUpdate::new(config, draw))
        };
        Self {
            embedding: Embedding::new(config, draw),
            conditioning: Conditioning::new(config, draw),
            pair_repr_builder: PairBuilder::new(config, draw),
            transformer_layers: (0..config.layers)
                .map(|_| Layer::new(config, draw))
                .collect(),
            pair_update_layers: (0..config.layers)
                .map(|layer| update(layer, draw))
                .collect(),
            pair_head_prediction: config
                .updates_pairs()
                .then(|| DistogramHead::new(config, draw)),
            coors_3d_decoder: CoordinateHead::new(config, draw),
            config: config.clone(),
        }
    }

    /// `positions [residues, 3]` in nm, `flow_time [samples]`, `residue_index` and `chain_break [residues]` to `velocity [residues, 3]`;
    /// with `self_conditioning [residues, 3]`, an estimate of the clean cloud, where the batch has it.
    fn forward(&self, batch: &Batch<'_>) -> PluginResult<Tensor<2>> {
        self.velocity(&Inputs::read(batch)?)
    }

    /// Without an estimate of the clean cloud, rotated copies share all but the trunk on their tokens (and, where pairs are updated,
    /// what follows from that); with one, the classes of pairs and what comes from the conditioning. Distances are those of the batch
    /// itself: its copies differ from it by rounding, which can only move a distance that lies on the edge of two classes.
    fn share(&self, batch: &Batch<'_>) -> PluginResult<Shared> {
        Ok(Shared::new(self.common(batch)?))
    }

    fn forward_shared(&self, shared: &Shared, rotated: &Batch<'_>) -> PluginResult<Tensor<2>> {
        let common = shared.get::<Common>()?;
        let tokens = self.tokens_shared(common, &Inputs::read(rotated)?)?;
        Ok(self
            .coors_3d_decoder
            .forward(tokens, &common.base.features, &Notes::none()))
    }

    fn frozen_groups() -> Vec<&'static str> {
        vec![HEAD, HEAD_NORM]
    }

    /// Rows of the residues `[copies * residues, d]`, normed for the group of the linear head alone. The trunk sees coordinates, so it runs
    /// for each copy; what it need not see is [shared](Self::share) from the first.
    fn below(&self, group: &str, batch: &Batch<'_>, copies: usize) -> PluginResult<Shared> {
        let samples = batch.samples() / copies;
        let copy = |k: usize| batch.part(k * samples..(k + 1) * samples);
        let common = self.common(&copy(0))?;
        let residues = (0..copies)
            .map(|k| {
                let tokens = self.tokens_shared(&common, &Inputs::read(&copy(k))?)?;
                Ok(CoordinateHead::residues(tokens, &common.base.features))
            })
            .collect::<PluginResult<Vec<_>>>()?;
        let residues = Tensor::cat(residues, 0);
        Ok(Shared::new(match group {
            HEAD => self.coors_3d_decoder.normed(residues),
            _ => residues,
        }))
    }

    fn above(&self, group: &str, below: &Shared) -> PluginResult<Tensor<2>> {
        let (head, rows) = (&self.coors_3d_decoder, below.get::<Tensor<2>>()?.clone());
        Ok(head.velocity(match group {
            HEAD => rows,
            _ => head.normed(rows),
        }))
    }

    fn linear_groups(config: &ProteinaConfig) -> Vec<LinearGroupDescriptor> {
        vec![linear_map(HEAD, config.token_width, 3, true)]
    }

    fn features(&self, group: &str, below: &Shared, rows: Range<usize>) -> PluginResult<Tensor<2>> {
        if group != HEAD {
            return Err(PluginError::Unsupported(format!("features:{group}")));
        }
        let normed = below.get::<Tensor<2>>()?;
        rows_within(&rows, normed.dims()[0])?;
        Ok(normed.clone().narrow(0, rows.start, rows.len()))
    }

    fn recipe(config: &ProteinaConfig) -> Recipe {
        config.recipe()
    }

    fn inputs() -> Vec<FieldDescriptor> {
        vec![
            field("positions", "vector", "point", "f32", &[3], "nm"),
            field("flow_time", "invariant", "sample", "f32", &[], ""),
            field("residue_index", "invariant", "point", "i64", &[], ""),
            field("chain_break", "invariant", "point", "i64", &[], ""),
        ]
    }

    fn output() -> FieldDescriptor {
        field("velocity", "vector", "point", "f32", &[3], "nm")
    }

    fn validate(config: &ProteinaConfig) -> PluginResult<()> {
        config.validate()
    }

    fn parameter_count(config: &ProteinaConfig) -> u64 {
        config.parameter_count()
    }

    fn losses() -> Vec<&'static str> {
        vec!["flow-matching", "velocity-mse", "mse"]
    }

    fn loss(&self, name: &str, batch: &Batch<'_>) -> PluginResult<Tensor<1>> {
        match name {
            "flow-matching" => self.flow_matching(batch),
            "velocity-mse" => self.velocity_mse(batch),
            "mse" => Ok(
                (batch.in_full(self.forward(batch)?) - batch.rows("target")?)
                    .square()
                    .mean(),
            ),
            _ => {
                let known = Self::losses().join(", ");
                Err(PluginError::BadRequest(format!(
                    "loss \"{name}\" is not known to proteina; use one of {known}"
                )))
            }
        }
    }

    /// The names of the reference implementation.
    fn parameter_name(path: &str) -> String {
        path.split('.')
            .filter_map(reference_name)
            .collect::<Vec<_>>()
            .join(".")
    }

    fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![
            (HEAD, vec!["coors_3d_decoder.1."]),
            (HEAD_NORM, vec!["coors_3d_decoder."]),
        ]
    }
}

fn refused(error: KernelError) -> PluginError {
    PluginError::Other(format!("proteina: {error}"))
}

/// One segment of a path of ours in the words of the reference; `None` where the reference has no such level.
fn reference_name(segment: &str) -> Option<&str> {
    match segment {
        "embedding" | "conditioning" | "bias_map" => None,
        "fold" => Some("feat_creators.1"),
        "embedding_c" => Some("embedding_C.weight"),
        "embedding_a" => Some("embedding_A.weight"),
        "embedding_t" => Some("embedding_T.weight"),
        // Modules that are sequences there.
        "head_norm" => Some("0"),
        "head_linear" => Some("1"),
        "swish_linear" => Some("swish_linear.0"),
        "to_gamma" => Some("to_gamma.0"),
        "to_adaln_zero_gamma" => Some("to_adaln_zero_gamma.0"),
        name => Some(name),
    }
}
