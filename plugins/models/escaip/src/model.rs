//! The model as the author crate sees it: forces, losses, names, groups, closed forms.

use crate::{
    EscaipConfig,
    backbone::Backbone,
    frames::Frames,
    frozen::{Below, HEAD, LAST_MAP},
    heads::{ForceFactors, Heads},
    layers::States,
    pass::{Features, NoteRows, Pass},
    sharing::SharedFactors,
    twirl,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use equivbench_plugin::{
    Batch, Draw, LinearGroupDescriptor, ModelPlugin, Note, PluginError, PluginResult, Recipe,
    Shared, linear_map,
};
use std::ops::Range;

/// EScAIP with direct forces.
#[derive(Module, Debug)]
pub struct Escaip {
    backbone: Backbone,
    output_heads: Heads,
    #[module(skip)]
    config: EscaipConfig,
}

/// Everything a traced pass saw, for parity tests and for people who look inside.
#[derive(Debug)]
pub struct Trace {
    /// The graph and its features.
    pub features: Features,
    /// Intermediate tensors in the order in which they were made.
    pub notes: Vec<Note<NoteRows>>,
    /// `[atoms, 3]`.
    pub forces: Tensor<2>,
    /// `[molecules, 1]`, where there is an energy head.
    pub energies: Option<Tensor<2>>,
}

impl Escaip {
    /// The configuration the model was made with.
    #[must_use]
    pub fn config(&self) -> &EscaipConfig {
        &self.config
    }

    /// A forward pass of both heads that keeps every intermediate tensor.
    ///
    /// # Errors
    /// A batch that the model cannot read.
    pub fn trace(&self, batch: &Batch<'_>) -> PluginResult<Trace> {
        let pass = Pass::traced(batch, &self.config)?;
        let latent = self.backbone.forward(&pass);
        let energies = self.output_heads.energies(latent.node.clone(), &pass);
        let forces = self.forces(latent, &pass);
        let (features, notes) = pass.into_notes();
        Ok(Trace {
            features,
            notes,
            forces,
            energies,
        })
    }

    /// `[atoms, 3]`.
    fn forces(&self, latent: States, pass: &Pass<'_, '_>) -> Tensor<2> {
        let factors = self.output_heads.force_factors(latent, pass);
        factors.forces(&Frames::of(&pass.features))
    }

    fn force_factors(&self, pass: &Pass<'_, '_>) -> ForceFactors {
        self.output_heads
            .force_factors(self.backbone.forward(pass), pass)
    }

    /// `4 · mean |e − e₀| + 100 · mean_i ‖f_i − y_i‖`: molecules and atoms of the whole batch.
    fn reference_loss(&self, batch: &Batch<'_>) -> PluginResult<Tensor<1>> {
        let pass = Pass::new(batch, &self.config)?;
        let latent = self.backbone.forward(&pass);
        let Some(energies) = self.output_heads.energies(latent.node.clone(), &pass) else {
            return Err(PluginError::BadRequest(
                "escaip: the loss \"reference\" needs energy_head = true".into(),
            ));
        };
        let forces = self.forces(latent, &pass);
        let energy_error = (batch.in_full(energies) - batch.rows("energy")?)
            .abs()
            .mean();
        let force_error = (batch.in_full(forces) - batch.rows("target")?)
            .square()
            .sum_dim(1)
            .sqrt()
            .mean();
        Ok(energy_error * 4.0 + force_error * 100.0)
    }
}

impl ModelPlugin for Escaip {
    type Config = EscaipConfig;
    const NAME: &'static str = "escaip";
    const ABOUT: &'static str =
        "EScAIP: attention among neighbours, forces that must learn to rotate";
    const CAPABILITIES: &'static [&'static str] =
        &["equivariant-subspace", "exact-twirl", "shared-rotations"];

    fn sizes() -> Vec<(&'static str, EscaipConfig)> {
        EscaipConfig::named()
    }

    fn init(config: &EscaipConfig, device: &Device) -> Self {
        let mut draw = Draw::in_one_stream(device);
        let backbone = Backbone::new(config, &mut draw);
        Self {
            backbone,
            output_heads: Heads::new(config, &mut draw),
            config: config.clone(),
        }
    }

    /// `positions [atoms, 3]` in angstrom and `species [atoms]` (atomic numbers) to `forces [atoms, 3]`, normalised.
    fn forward(&self, batch: &Batch<'_>) -> PluginResult<Tensor<2>> {
        let pass = Pass::new(batch, &self.config)?;
        Ok(self.forces(self.backbone.forward(&pass), &pass))
    }

    fn recipe(config: &EscaipConfig) -> Recipe {
        config.recipe()
    }

    fn validate(config: &EscaipConfig) -> PluginResult<()> {
        config.validate()
    }

    fn parameter_count(config: &EscaipConfig) -> u64 {
        config.parameter_count()
    }

    fn losses() -> Vec<&'static str> {
        vec!["mse", "reference"]
    }

    fn loss(&self, name: &str, batch: &Batch<'_>) -> PluginResult<Tensor<1>> {
        match name {
            "mse" => Ok(
                (batch.in_full(self.forward(batch)?) - batch.rows("target")?)
                    .square()
                    .mean(),
            ),
            "reference" => self.reference_loss(batch),
            _ => Err(PluginError::BadRequest(format!(
                "loss \"{name}\" is not known to escaip; use mse or reference"
            ))),
        }
    }

    /// The names of the reference implementation, on which its weight-decay rule rests.
    fn parameter_name(path: &str) -> String {
        path.split('.')
            .filter_map(reference_name)
            .collect::<Vec<_>>()
            .join(".")
    }

    fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
        const DIRECTION: &str = "output_heads.forces.force_direction_layer.";
        const LAST: &str = "output_heads.forces.force_direction_layer.final_output.";
        vec![(HEAD, vec![DIRECTION]), (LAST_MAP, vec![LAST])]
    }

    fn frozen_groups() -> Vec<&'static str> {
        vec![HEAD, LAST_MAP]
    }

    /// Copies share the invariant latent of the first of them: only unit vectors differ.
    fn below(&self, group: &str, batch: &Batch<'_>, copies: usize) -> PluginResult<Shared> {
        let first = batch.part(0..batch.samples() / copies);
        let pass = Pass::new(&first, &self.config)?;
        let frames = Frames::of_copies(&pass.features, batch, copies)?;
        let latent = self.backbone.forward(&pass);
        let head = &self.output_heads.forces;
        Ok(Shared::new(Below::new(head, group, latent, &pass, frames)?))
    }

    fn above(&self, _group: &str, below: &Shared) -> PluginResult<Tensor<2>> {
        Ok(below.get::<Below>()?.forces(&self.output_heads.forces))
    }

    fn linear_groups(config: &EscaipConfig) -> Vec<LinearGroupDescriptor> {
        vec![linear_map(LAST_MAP, config.hidden, 3, false)]
    }

    fn features(
        &self,
        _group: &str,
        below: &Shared,
        rows: Range<usize>,
    ) -> PluginResult<Tensor<2>> {
        below.get::<Below>()?.features(rows)
    }

    /// The model is equivariant where the three columns of the last map `[hidden, 3]` are equal.
    fn project_equivariant(&self, values: &mut [f64]) -> PluginResult<()> {
        if values.len() != 3 * self.config.hidden {
            let expected = 3 * self.config.hidden;
            return Err(PluginError::BadRequest(format!(
                "equivariant-subspace has {expected} numbers, {} were given",
                values.len()
            )));
        }
        for axes in values.chunks_exact_mut(3) {
            let mean = (axes[0] + axes[1] + axes[2]) / 3.0;
            axes.fill(mean);
        }
        Ok(())
    }

    fn share(&self, batch: &Batch<'_>) -> PluginResult<Shared> {
        let pass = Pass::new(batch, &self.config)?;
        let graph = &pass.features.graph;
        Ok(Shared::new(SharedFactors::new(
            self.force_factors(&pass),
            &graph.offsets,
            &graph.senders,
            batch,
        )?))
    }

    fn forward_shared(&self, shared: &Shared, rotated: &Batch<'_>) -> PluginResult<Tensor<2>> {
        shared.get::<SharedFactors>()?.forces(rotated)
    }

    fn exact_twirl(&self, batch: &Batch<'_>) -> PluginResult<Vec<f64>> {
        let pass = Pass::new(batch, &self.config)?;
        let factors = self.force_factors(&pass);
        let numbers = |x: Tensor<2>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        let (direction, magnitude) = (numbers(factors.direction), numbers(factors.magnitude));
        let graph = &pass.features.graph;
        let matrices = twirl::direction_matrices(&graph.offsets, &direction, &graph.directions);
        let atoms = || magnitude.iter().zip(&matrices);
        let means = atoms().flat_map(|(&m, c)| twirl::mean(m, c));
        Ok(means
            .chain(atoms().map(|(&m, c)| twirl::variance(m, c)))
            .collect())
    }
}

/// One segment of a path of ours in the words of the reference; `None` where the reference has no such level.
fn reference_name(segment: &str) -> Option<String> {
    /// Modules that are a sequence of (affine, activation, dropout) there.
    const SEQUENCES: [&str; 9] = [
        "edge_distance_embedding",
        "source_direction_embedding",
        "target_direction_embedding",
        "edge_linear",
        "node_linear",
        "message_linear",
        "node_projection",
        "edge_projection",
        "final_output",
    ];
    match segment {
        "attributes" => None,
        "first" => Some("0.0".into()),
        "second" => Some("1.0".into()),
        name if SEQUENCES.contains(&name) => Some(format!("{name}.0")),
        name => Some(name.into()),
    }
}
