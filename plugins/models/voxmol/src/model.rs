//! The model as the author crate sees it: denoised grids, losses, latents, names, groups, the equivariant subspace.

use crate::{
    VoxmolConfig,
    blocks::{Middle, Stage, ascend, decoder, descend, encoder},
    grids::density,
    layers::{Conv, Norm, Pass},
    neighbourhood::neighbourhoods,
    symmetry,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use equivbench_kernels::Conv3d;
use equivbench_plugin::{
    Batch, Draw, FieldDescriptor, LinearGroupDescriptor, ModelPlugin, Note, Notes, PluginError,
    PluginResult, Recipe, Shared, field, linear_convolution, parameters,
};
use std::ops::Range;

/// The last convolution.
const HEAD: &str = "head";

/// VoxMol: denoising of molecules on density grids.
#[derive(Module, Debug)]
pub struct Voxmol {
    grid_projection: Conv,
    down: Vec<Stage>,
    middle: Middle,
    up: Vec<Stage>,
    norm: Norm,
    head: Conv,
    #[module(skip)]
    config: VoxmolConfig,
}

/// Everything a traced pass saw, for parity tests and for people who look inside.
#[derive(Debug)]
pub struct Trace {
    /// Intermediate quantities in the order in which they were made, named as the parameters beside them: `down.3.attn`.
    pub notes: Vec<Note>,
    /// The denoised grids `[samples, elements, side, side, side]`.
    pub density: Tensor<5>,
}

impl Voxmol {
    /// The configuration the model was made with.
    #[must_use]
    pub fn config(&self) -> &VoxmolConfig {
        &self.config
    }

    /// A forward pass that keeps every intermediate tensor. Norms are noted with the activation behind them.
    ///
    /// # Errors
    /// A batch that the model cannot read.
    pub fn trace(&self, batch: &Batch<'_>) -> PluginResult<Trace> {
        let notes = Notes::kept();
        let density = self.denoised(
            density(batch, &self.config)?,
            &Pass::new(&self.config, batch, &notes),
        );
        Ok(Trace {
            notes: notes.into_vec(),
            density,
        })
    }

    fn denoised(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        let x = self.channels(x, pass);
        self.head.forward(x, Conv3d::Same3, &pass.inside("final"))
    }

    /// What the last convolution sees, `[samples, width, side, side, side]`.
    fn channels(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        let (encoded, skipped) = self.encoded(x, pass);
        let x = ascend(
            &self.up,
            self.bottleneck(encoded, pass),
            skipped,
            &pass.inside("up"),
        );
        self.norm.activate(x, &pass.inside("norm"))
    }

    /// What the way down gives, and what it skipped.
    fn encoded(&self, x: Tensor<5>, pass: &Pass<'_>) -> (Tensor<5>, Vec<Tensor<5>>) {
        let x = self
            .grid_projection
            .forward(x, Conv3d::Same3, &pass.inside("grid_projection"));
        descend(&self.down, x, &pass.inside("down"))
    }

    fn bottleneck(&self, encoded: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        self.middle.forward(encoded, &pass.inside("middle"))
    }

    /// The sum over the batch of the squared errors of all voxels and channels.
    fn squared_error(&self, batch: &Batch<'_>) -> PluginResult<Tensor<1>> {
        let (prediction, target) = (batch.in_full(self.forward(batch)?), batch.rows("target")?);
        let ([_, predicted], [_, given]) = (prediction.dims(), target.dims());
        if predicted != given {
            let message = format!(
                "voxmol: a target of {given} numbers in a sample; the density has {predicted}"
            );
            return Err(PluginError::BadRequest(message));
        }
        Ok((prediction - target).square().sum())
    }
}

/// Numbers in the target of a batch.
fn components(batch: &Batch<'_>) -> PluginResult<f64> {
    Ok(batch.shape("target")?.iter().product::<usize>() as f64)
}

impl ModelPlugin for Voxmol {
    type Config = VoxmolConfig;
    const NAME: &'static str = "voxmol";
    const ABOUT: &'static str =
        "VoxMol: denoising of density grids, convolutions that must learn to rotate";
    const TASKS: &'static [&'static str] = &["voxel-denoising"];
    const DEFAULT_DATASETS: &'static [&'static str] = &["geom"];
    const CAPABILITIES: &'static [&'static str] = &["equivariant-subspace"];

    fn sizes() -> Vec<(&'static str, VoxmolConfig)> {
        VoxmolConfig::named()
    }

    fn init(config: &VoxmolConfig, device: &Device) -> Self {
        let mut draw = Draw::from_device(device);
        let draw = &mut draw;
        Self {
            grid_projection: Conv::new(Conv3d::Same3, config.elements, config.width, draw),
            down: encoder(config, draw),
            middle: Middle::new(config.deepest_width(), draw),
            up: decoder(config, draw),
            norm: Norm::new(config.width, draw),
            head: Conv::new(Conv3d::Same3, config.width, config.elements, draw),
            config: config.clone(),
        }
    }

    /// Noisy grids `density [samples, elements, side, side, side]` to clean ones, flattened to `[samples, elements · side³]`.
    fn forward(&self, batch: &Batch<'_>) -> PluginResult<Tensor<2>> {
        let denoised = self.denoised(
            density(batch, &self.config)?,
            &Pass::new(&self.config, batch, &Notes::none()),
        );
        Ok(denoised.flatten(1, 4))
    }

    fn recipe(config: &VoxmolConfig) -> Recipe {
        config.recipe()
    }

    fn inputs() -> Vec<FieldDescriptor> {
        let elements = VoxmolConfig::named()
            .first()
            .map_or(0, |(_, config)| config.elements);
        vec![field(
            "density",
            "voxel-grid",
            "sample",
            "f32",
            &[elements as u64, 0, 0, 0],
            "",
        )]
    }

    fn inputs_for(config: &VoxmolConfig) -> Vec<FieldDescriptor> {
        let (elements, grid) = (config.elements as u64, config.grid as u64);
        vec![field(
            "density",
            "voxel-grid",
            "sample",
            "f32",
            &[elements, grid, grid, grid],
            "",
        )]
    }

    /// As wide as the input.
    fn output() -> FieldDescriptor {
        field("density", "voxel-grid", "sample", "f32", &[0, 0, 0, 0], "")
    }

    fn validate(config: &VoxmolConfig) -> PluginResult<()> {
        config.validate()
    }

    fn parameter_count(config: &VoxmolConfig) -> u64 {
        config.parameter_count()
    }

    fn losses() -> Vec<&'static str> {
        vec!["sse", "mse"]
    }

    fn loss(&self, name: &str, batch: &Batch<'_>) -> PluginResult<Tensor<1>> {
        match name {
            "sse" => self.squared_error(batch),
            // Not a division: its gradient would go through an f32, in an f64 model too.
            "mse" => Ok(self.squared_error(batch)? * components(batch)?.recip()),
            _ => {
                let known = Self::losses().join(", ");
                Err(PluginError::BadRequest(format!(
                    "loss \"{name}\" is not known to voxmol; use one of {known}"
                )))
            }
        }
    }

    /// The mean squared error of a component, for both losses.
    fn reported_loss(&self, name: &str, value: f64, batch: &Batch<'_>) -> PluginResult<f64> {
        Ok(if name == "sse" {
            value / components(batch)?
        } else {
            value
        })
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
            (HEAD, vec!["final."]),
            ("head-norm", vec!["norm.", "final."]),
            ("equivariant-subspace", vec![""]),
        ]
    }

    fn frozen_groups() -> Vec<&'static str> {
        vec![HEAD]
    }

    /// Copies have nothing in common: the channels of each, which pass through the network one copy after the other, so that only these
    /// are held for all of them at once.
    fn below(&self, _group: &str, batch: &Batch<'_>, copies: usize) -> PluginResult<Shared> {
        let samples = batch.samples() / copies;
        let channels = (0..copies)
            .map(|k| {
                let copy = batch.part(k * samples..(k + 1) * samples);
                let notes = Notes::none();
                let pass = Pass::new(&self.config, &copy, &notes);
                Ok(self.channels(density(&copy, &self.config)?, &pass))
            })
            .collect::<PluginResult<Vec<_>>>()?;
        Ok(Shared::new(Tensor::cat(channels, 0)))
    }

    fn above(&self, _group: &str, below: &Shared) -> PluginResult<Tensor<2>> {
        let channels = below.get::<Tensor<5>>()?.clone();
        Ok(self.head.apply(channels, Conv3d::Same3).flatten(1, 4))
    }

    fn linear_groups(config: &VoxmolConfig) -> Vec<LinearGroupDescriptor> {
        vec![linear_convolution(HEAD, config.elements, 27 * config.width)]
    }

    /// The neighbourhood of each voxel and 1, `[rows, 27 * width + 1]`.
    fn features(
        &self,
        _group: &str,
        below: &Shared,
        rows: Range<usize>,
    ) -> PluginResult<Tensor<2>> {
        neighbourhoods(below.get::<Tensor<5>>()?, rows)
    }

    /// With parameters of the subspace the model commutes with all rotations of the cube.
    fn project_equivariant(&self, values: &mut [f64]) -> PluginResult<()> {
        let parameters = parameters::list(self);
        let expected: usize = parameters.iter().map(parameters::ParameterInfo::len).sum();
        if values.len() != expected {
            return Err(PluginError::BadRequest(format!(
                "equivariant-subspace has {expected} numbers, {} were given",
                values.len()
            )));
        }
        let mut rest = values;
        for parameter in &parameters {
            let (own, others) = rest.split_at_mut(parameter.len());
            symmetry::project(&parameter.name, &parameter.shape, own);
            rest = others;
        }
        Ok(())
    }

    /// `enc`, what the way down gives, and `mid`, what the middle makes of it.
    fn latents(config: &VoxmolConfig) -> Vec<FieldDescriptor> {
        let (width, side) = (
            config.deepest_width() as u64,
            (config.grid / config.shrinkage()) as u64,
        );
        ["enc", "mid"]
            .map(|name| {
                field(
                    name,
                    "voxel-grid",
                    "sample",
                    "f32",
                    &[width, side, side, side],
                    "",
                )
            })
            .to_vec()
    }

    /// Flattened to `[samples, width · side³]`.
    fn latent(&self, name: &str, batch: &Batch<'_>) -> PluginResult<Tensor<2>> {
        if !["enc", "mid"].contains(&name) {
            return Err(PluginError::Unsupported(format!("latent:{name}")));
        }
        let notes = Notes::none();
        let pass = Pass::new(&self.config, batch, &notes);
        let encoded = self.encoded(density(batch, &self.config)?, &pass).0;
        let latent = if name == "mid" {
            self.bottleneck(encoded, &pass)
        } else {
            encoded
        };
        Ok(latent.flatten(1, 4))
    }
}

/// One segment of a path of ours in the words of the reference; `None` where the reference has no such level.
fn reference_name(segment: &str) -> Option<&str> {
    match segment {
        "Block" | "Down" | "Up" => None,
        "head" => Some("final"),
        name => Some(name),
    }
}
