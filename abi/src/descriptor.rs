//! Documents that cross the boundary as JSON. Unknown keys are ignored, absent keys take defaults.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What one plugin library holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct PluginDescriptor {
    /// Name of the library, unique among the plugins of a search path: `escaip`.
    pub name: String,
    /// Version of the plugin.
    pub version: String,
    /// Version of this contract that it was built with.
    pub abi_version: String,
    /// Models inside.
    pub models: Vec<ModelDescriptor>,
    /// Datasets inside.
    pub datasets: Vec<DatasetSummary>,
    /// Device families it can run on: `cpu`, `cuda`.
    pub devices: Vec<String>,
}

/// A model family.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct ModelDescriptor {
    /// Name on the command line and in tables.
    pub name: String,
    /// One line for `equivbench list`.
    pub about: String,
    /// Named sizes; the first is the default.
    pub sizes: Vec<SizeDescriptor>,
    /// Tasks it can be trained on: `force-field`.
    pub tasks: Vec<String>,
    /// Datasets it is trained on when none is named, the first that is found.
    pub default_datasets: Vec<String>,
    /// Declared symmetry: `none`, `so3`.
    pub symmetry: String,
    /// Fields it reads.
    pub inputs: Vec<FieldDescriptor>,
    /// What it predicts.
    pub output: FieldDescriptor,
    /// Optional abilities, see the author crate.
    pub capabilities: Vec<String>,
}

/// A named size of a model family.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct SizeDescriptor {
    /// Name, for example `6M`.
    pub name: String,
    /// Number of trained parameters.
    pub parameters: u64,
    /// The configuration as JSON text, every key of which can be overridden.
    pub config: String,
}

/// A named array without its data.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct FieldDescriptor {
    /// Name, for example `positions`.
    pub name: String,
    /// `invariant`, `vector` or `voxel-grid`.
    pub kind: String,
    /// `sample` or `point`.
    pub rows: String,
    /// `f32`, `f64` or `i64`.
    pub element: String,
    /// Shape of one row: `[3]` for a vector, `[]` for a scalar.
    pub width: Vec<u64>,
    /// Unit, for example `angstrom`.
    pub unit: String,
}

/// A dataset family, before anything is opened.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct DatasetSummary {
    /// Name on the command line.
    pub name: String,
    /// One line for `equivbench list`.
    pub about: String,
    /// Tasks it serves.
    pub tasks: Vec<String>,
    /// Name of the data that it carries inside, if any: used when no path is given.
    pub embedded: Option<String>,
    /// Default options as JSON text, every key of which can be overridden.
    pub options: String,
}

/// An open dataset.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct DatasetDescriptor {
    /// Name as it stands in every table, for example `spice-mini (GFN2-xTB)`.
    pub name: String,
    /// File or origin.
    pub source: String,
    /// Licence of the data.
    pub licence: String,
    /// How the labels were computed.
    pub level_of_theory: String,
    /// SHA-256 over the content that can change a number, hexadecimal.
    pub content_hash: String,
    /// Tasks it serves.
    pub tasks: Vec<String>,
    /// Fields it fills.
    pub fields: Vec<FieldDescriptor>,
    /// Splits: `train`, `valid`, `test`.
    pub splits: Vec<SplitDescriptor>,
    /// Suggested affine normalisation of targets by field name: `(value - mean) / scale`.
    pub normalisers: BTreeMap<String, Normaliser>,
    /// What was checked and found: units, force sums, filters.
    pub checks: Vec<DataCheck>,
}

/// `(value - mean) / scale`.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq)]
pub struct Normaliser {
    /// Subtracted; must be 0 for vectors.
    pub mean: f64,
    /// Divided by; positive.
    pub scale: f64,
}

/// Size of a split.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct SplitDescriptor {
    /// `train`, `valid` or `test`.
    pub name: String,
    /// Number of samples (conformations, chains).
    pub samples: u64,
    /// Number of groups (molecules, clusters) that are kept together.
    pub groups: u64,
}

/// One line of a dataset's report on itself.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct DataCheck {
    /// What was checked, for example `force RMS`.
    pub name: String,
    /// The figure, in `unit`.
    pub value: f64,
    /// Unit of the figure.
    pub unit: String,
    /// Whether it lies where it should.
    pub passed: bool,
    /// What it means and what to do if it did not pass.
    pub about: String,
}

/// Opens a model.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct ModelRequest {
    /// Name of the model family.
    pub model: String,
    /// Named size; empty for the first.
    pub size: String,
    /// Configuration overrides, a JSON object as text.
    pub config: String,
    /// Recipe overrides, a JSON object as text (see [`Recipe`]).
    pub recipe: String,
    /// Seed of the weights and of everything random in training.
    pub seed: u64,
    /// `cpu`, `cuda:0`.
    pub device: String,
    /// `f32`, `f64`, `bf16`, or the first or last with `+f64` for evaluating in f64 (numbers cross as f32, but for `f64`).
    pub precision: String,
    /// Threads the plugin may use; 0 for all.
    pub threads: u64,
    /// Instruction set of the loops on the processor: `plain`, `avx2`, `avx512`; `auto` or nothing for the widest. Whatever the processor
    /// lacks is refused. Since 0.1.1.
    pub kernels: String,
    /// Optimiser steps in one pass over the training examples, for schedules that count epochs.
    pub steps_per_epoch: u64,
    /// Optimiser steps of the whole run, for schedules that end with it.
    pub total_steps: u64,
}

/// A model that is open.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct InstanceDescriptor {
    /// Name of the model family.
    pub model: String,
    /// Named size.
    pub size: String,
    /// Resolved configuration, JSON text.
    pub config: String,
    /// Resolved recipe.
    pub recipe: Recipe,
    /// Parameters in the order in which they are flattened.
    pub parameters: Vec<ParameterDescriptor>,
    /// Named parameter groups; `all` is always there.
    pub groups: Vec<GroupDescriptor>,
    /// `f32` or `f64`, of weights and of numbers at the boundary.
    pub precision: String,
    /// Of the arithmetic of training steps, where it is another one: `bf16`.
    pub training_precision: String,
    /// Device as a person would name it.
    pub device: String,
    /// `raw`, and `ema` where the recipe keeps one.
    pub weights: Vec<String>,
    /// Optional abilities.
    pub capabilities: Vec<String>,
    /// Fields it reads, with the widths of this configuration; empty where the family's description says all.
    pub inputs: Vec<FieldDescriptor>,
    /// Intermediate quantities it can show, each the capability `latent:NAME`.
    pub latents: Vec<FieldDescriptor>,
    /// Instruction set that its loops on the processor take: `plain`, `avx2`, `avx512`; empty where the plugin does not say. Since 0.1.1.
    pub kernels: String,
    /// Instruction set of matrix products, where the plugin chooses it; empty where their library chooses by itself. Since 0.1.1.
    pub matrix_products: String,
    /// Features of the processor that numbers or speed may depend on: `avx2`, `fma`. Since 0.1.1.
    pub processor_flags: Vec<String>,
    /// Parameter groups below which it can be frozen, each the capability [`FROZEN_BELOW`](crate::FROZEN_BELOW)`:GROUP` and those that go
    /// with it. Since 0.1.1.
    pub frozen_groups: Vec<String>,
    /// Those of them in which its prediction is linear. Since 0.1.1.
    pub linear: Vec<LinearGroupDescriptor>,
}

/// A parameter group in which the prediction is linear, and how: `P[r, c] = sum_k phi[r, (c,) k] * theta[index[c, k]]`. Since 0.1.1.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct LinearGroupDescriptor {
    /// Name of the group.
    pub group: String,
    /// Number of output components `c`: axes of a vector, channels of a grid.
    pub blocks: u64,
    /// Number of features `k` of a component.
    pub width: u64,
    /// Whether all components have the same features `phi[r, k]`, and not each its own `phi[r, c, k]`.
    pub shared: bool,
    /// Places in the flattened group, `[blocks, width]` row-major; each place of the group once.
    pub index: Vec<u64>,
    /// What the rows `r` count: `point`, the rows of the prediction, whose width is `blocks`; or `voxel`, those of all samples, one
    /// sample after the other, where the prediction lies as `[samples, blocks, voxels]`.
    pub rows: String,
}

/// A parameter.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct ParameterDescriptor {
    /// Dotted name.
    pub name: String,
    /// Shape.
    pub shape: Vec<u64>,
}

/// A named list of parameters.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct GroupDescriptor {
    /// Name, for example `head`.
    pub name: String,
    /// Number of scalars.
    pub scalars: u64,
    /// Names of its parameters, in order.
    pub parameters: Vec<String>,
}

/// How a model is trained: data, so that it can be printed, hashed and overridden.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// `adamw`, `adam` (decay added to the gradient) or `sgd`.
    pub optimiser: String,
    /// Peak learning rate.
    pub lr: f64,
    /// First-moment decay (momentum for `sgd`).
    pub beta1: f64,
    /// Second-moment decay.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Parameters whose name contains one of these are not decayed.
    pub no_decay: Vec<String>,
    /// Global L2 norm to which gradients are clipped; 0 for none.
    pub clip_norm: f64,
    /// Decay of the exponential moving average of the weights; 0 for none.
    pub ema_decay: f64,
    /// `constant` or `warmup-cosine`.
    pub schedule: String,
    /// `warmup-cosine`: epochs of linear warm-up.
    pub warmup_epochs: f64,
    /// `warmup-cosine`: the factor at step 0.
    pub warmup_factor: f64,
    /// `warmup-cosine`: epochs after which the factor stays at `min_factor`.
    pub schedule_epochs: f64,
    /// `warmup-cosine`: the last factor.
    pub min_factor: f64,
    /// Name of the training loss; the model says which it knows. `mse` always.
    pub loss: String,
    /// Samples in a batch.
    pub batch_size: u64,
    /// Passes over the training examples, when the suite gives no number of steps.
    pub epochs: f64,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            optimiser: "adamw".into(),
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            no_decay: Vec::new(),
            clip_norm: 0.0,
            ema_decay: 0.0,
            schedule: "constant".into(),
            warmup_epochs: 0.0,
            warmup_factor: 1.0,
            schedule_epochs: 0.0,
            min_factor: 1.0,
            loss: "mse".into(),
            batch_size: 16,
            epochs: 1.0,
        }
    }
}

impl Recipe {
    /// AdamW with a constant learning rate and no decay.
    #[must_use]
    pub fn adamw(lr: f64) -> Self {
        Self {
            lr,
            ..Self::default()
        }
    }
}

/// Opens a dataset.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct DatasetRequest {
    /// Name of the dataset family.
    pub dataset: String,
    /// Options, a JSON object as text.
    pub options: String,
    /// Seed of the split.
    pub seed: u64,
    /// Threads the plugin may use; 0 for all.
    pub threads: u64,
    /// The task that the samples are for, with its settings: a JSON object such as `{"name": "voxel-denoising", "grid": 32, ...}`.
    /// Empty where it is not known. A dataset may count what does not fit; what it serves must not depend on it.
    pub task: String,
}

/// How far a long piece of work of a plugin is; see [`PROGRESS_VARIABLE`](crate::PROGRESS_VARIABLE).
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
#[serde(default)]
pub struct LongWork {
    /// A few words, for example `reading structure files`.
    pub what: String,
    /// Pieces done.
    pub done: u64,
    /// Pieces altogether.
    pub total: u64,
    /// Counts replacements of the file: a sign of life.
    pub beat: u64,
}
