//! What the author of a model writes.

use crate::{Batch, PluginError, PluginResult, Shared};
use burn::{
    config::Config,
    module::Module,
    tensor::{Device, Tensor},
};
use equivbench_abi::descriptor::{FieldDescriptor, LinearGroupDescriptor, Recipe};
use std::ops::Range;

/// A model family. Five items are required; the rest have sensible defaults.
pub trait ModelPlugin: Module + std::fmt::Debug + Send + 'static {
    /// Sizes and switches; every key can be overridden from a suite.
    type Config: Config + Send;
    /// Name on the command line and in tables.
    const NAME: &'static str;
    /// One line for `equivbench list`.
    const ABOUT: &'static str = "";
    /// Declared symmetry: `none`, `so3`.
    const SYMMETRY: &'static str = "none";
    /// Tasks it can be trained on.
    const TASKS: &'static [&'static str] = &["force-field"];
    /// Datasets it is trained on when none is named, the first that is found.
    const DEFAULT_DATASETS: &'static [&'static str] = &["spice"];
    /// Optional abilities: `equivariant-subspace`, `exact-twirl`, `shared-rotations`, or names of your own.
    const CAPABILITIES: &'static [&'static str] = &[];

    /// Named sizes; the first is the default.
    fn sizes() -> Vec<(&'static str, Self::Config)>;

    /// Fresh weights on the device. The device is seeded by the caller.
    fn init(config: &Self::Config, device: &Device) -> Self;

    /// The prediction in the frame of the input, `[rows, width]` (grids flattened).
    ///
    /// # Errors
    /// A batch that the model cannot read.
    fn forward(&self, batch: &Batch) -> PluginResult<Tensor<2>>;

    /// How this family is trained by default.
    fn recipe(config: &Self::Config) -> Recipe;

    /// Fields that [`forward`](Self::forward) reads.
    fn inputs() -> Vec<FieldDescriptor> {
        vec![
            field("positions", "vector", "point", "f32", &[3], "angstrom"),
            field("species", "invariant", "point", "i64", &[], ""),
        ]
    }

    /// Fields that a configuration reads, where their widths depend on it; the harness fits the task to them.
    fn inputs_for(_config: &Self::Config) -> Vec<FieldDescriptor> {
        Self::inputs()
    }

    /// What it predicts.
    fn output() -> FieldDescriptor {
        field("forces", "vector", "point", "f32", &[3], "normalised")
    }

    /// Checks a configuration before anything is allocated.
    ///
    /// # Errors
    /// A configuration that cannot work, with the remedy.
    fn validate(_config: &Self::Config) -> PluginResult<()> {
        Ok(())
    }

    /// Number of trained scalars without building the model; the default builds it.
    fn parameter_count(config: &Self::Config) -> u64 {
        Self::init(config, &Device::flex()).num_params() as u64
    }

    /// The training loss by name; `mse` is the mean over all components of the batch.
    ///
    /// # Errors
    /// An unknown loss or a batch without a target.
    fn loss(&self, name: &str, batch: &Batch) -> PluginResult<Tensor<1>> {
        match name {
            "mse" => Ok(
                (batch.in_full(self.forward(batch)?) - batch.rows("target")?)
                    .square()
                    .mean(),
            ),
            _ => Err(PluginError::BadRequest(format!(
                "loss \"{name}\" is not known to {}; use mse",
                Self::NAME
            ))),
        }
    }

    /// What tables show of a training loss of [`loss`](Self::loss): for a loss that is summed, its mean per component.
    ///
    /// # Errors
    /// A batch without a target.
    fn reported_loss(&self, _name: &str, value: f64, _batch: &Batch) -> PluginResult<f64> {
        Ok(value)
    }

    /// Losses that [`loss`](Self::loss) knows.
    fn losses() -> Vec<&'static str> {
        vec!["mse"]
    }

    /// Name of a parameter, from its path in the module tree; weight-decay rules and groups use it.
    fn parameter_name(path: &str) -> String {
        path.to_owned()
    }

    /// Named parameter groups, each a list of name prefixes. `all` is always there.
    fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
        vec![]
    }

    /// Projects the flattened parameters of the group `equivariant-subspace` onto the equivariant subset, in place.
    ///
    /// # Errors
    /// [`PluginError::Unsupported`] unless the model offers the capability.
    fn project_equivariant(&self, _values: &mut [f64]) -> PluginResult<()> {
        Err(PluginError::Unsupported("equivariant-subspace".into()))
    }

    /// Intermediate quantities that [`latent`](Self::latent) shows, for a configuration.
    fn latents(_config: &Self::Config) -> Vec<FieldDescriptor> {
        vec![]
    }

    /// An intermediate quantity of a prediction, `[rows, width]`.
    ///
    /// # Errors
    /// [`PluginError::Unsupported`] for a name that [`latents`](Self::latents) does not list, or a batch that the model cannot read.
    fn latent(&self, name: &str, _batch: &Batch) -> PluginResult<Tensor<2>> {
        Err(PluginError::Unsupported(format!("latent:{name}")))
    }

    /// What the predictions of all rotated copies of a batch have in common: quantities that no rotation changes. The harness asks for
    /// it once for a batch and then for [`forward_shared`](Self::forward_shared) of each rotated copy; on random copies it compares the
    /// result with [`forward`](Self::forward), and reports the difference.
    ///
    /// # Errors
    /// [`PluginError::Unsupported`] unless the model offers the capability `shared-rotations`; a batch that the model cannot read.
    fn share(&self, _batch: &Batch) -> PluginResult<Shared> {
        Err(PluginError::Unsupported("shared-rotations".into()))
    }

    /// As [`forward`](Self::forward) for a rotated copy of the batch that [`share`](Self::share) saw: each sample rotated in its own way,
    /// nothing else changed, but for fields that the copy has in addition (`self_conditioning`).
    ///
    /// # Errors
    /// As [`share`](Self::share).
    fn forward_shared(&self, _shared: &Shared, _rotated: &Batch) -> PluginResult<Tensor<2>> {
        Err(PluginError::Unsupported("shared-rotations".into()))
    }

    /// Groups of [`groups`](Self::groups) below which the model can be frozen: what lies [`below`](Self::below) such a group is computed
    /// once for a batch, and predictions and products with cotangents then cost what is [`above`](Self::above).
    fn frozen_groups() -> Vec<&'static str> {
        vec![]
    }

    /// Everything in the prediction of a batch, in evaluation mode, that does not change when only the parameters of a group do. The batch
    /// holds `copies` copies of the same samples, one after the other, that differ by rotations alone: sizes and invariant fields were
    /// compared. What no rotation changes can be computed once, from the [first](Batch::part) of them.
    ///
    /// # Errors
    /// [`PluginError::Unsupported`] for a group that [`frozen_groups`](Self::frozen_groups) does not list, or a batch that the model cannot
    /// read.
    fn below(&self, group: &str, _batch: &Batch, _copies: usize) -> PluginResult<Shared> {
        Err(PluginError::Unsupported(format!("frozen-below:{group}")))
    }

    /// As [`forward`](Self::forward) of the batch that [`below`](Self::below) saw. It is differentiated with respect to the group; best
    /// written so that `forward` calls it too.
    ///
    /// # Errors
    /// As [`below`](Self::below).
    fn above(&self, group: &str, _below: &Shared) -> PluginResult<Tensor<2>> {
        Err(PluginError::Unsupported(format!("predict-above:{group}")))
    }

    /// Those of the [`frozen_groups`](Self::frozen_groups) in which the prediction is linear, and how, for a configuration;
    /// [`linear_map`](crate::linear_map) and [`linear_convolution`](crate::linear_convolution) describe the usual cases.
    fn linear_groups(_config: &Self::Config) -> Vec<LinearGroupDescriptor> {
        vec![]
    }

    /// Some rows, at least one, of the features of a linear group, `[rows, width]`, or `[rows, blocks * width]` where each component has its own;
    /// [`rows_within`](crate::rows_within) checks the rows.
    ///
    /// # Errors
    /// [`PluginError::Unsupported`] for a group that [`linear_groups`](Self::linear_groups) does not list, or rows that are not there.
    fn features(
        &self,
        group: &str,
        _below: &Shared,
        _rows: Range<usize>,
    ) -> PluginResult<Tensor<2>> {
        Err(PluginError::Unsupported(format!("features:{group}")))
    }

    /// Exact Haar averages where the model has a closed form: the twirled prediction `[rows * width]`, then
    /// `E‖Z − μ‖²` for each row `[rows]`.
    ///
    /// # Errors
    /// [`PluginError::Unsupported`] unless the model offers the capability.
    fn exact_twirl(&self, _batch: &Batch) -> PluginResult<Vec<f64>> {
        Err(PluginError::Unsupported("exact-twirl".into()))
    }
}

/// Writes a [`FieldDescriptor`] in one line.
#[must_use]
pub fn field(
    name: &str,
    kind: &str,
    rows: &str,
    element: &str,
    width: &[u64],
    unit: &str,
) -> FieldDescriptor {
    FieldDescriptor {
        name: name.into(),
        kind: kind.into(),
        rows: rows.into(),
        element: element.into(),
        width: width.to_vec(),
        unit: unit.into(),
    }
}
