//! The configuration of one run: every key, its default and its meaning, in one place.

use serde::{Deserialize, Serialize};
use toml::Table;

/// Everything about one run. Unknown keys are refused before this type is read (see [`suite`](crate::suite)).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunConfig {
    /// Which model.
    pub model: ModelConfig,
    /// On which data.
    pub dataset: DatasetConfig,
    /// Settings of the task, where it has any: `grid`, `sigma`, ...
    pub task: Table,
    /// How it is trained.
    pub train: TrainConfig,
    /// How it is measured.
    pub measure: MeasureConfig,
    /// How the run is carried out.
    pub run: ExecutionConfig,
}

/// Which model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelConfig {
    /// Model family; filled in from `--plugins`.
    pub name: String,
    /// Named size; empty for the plugin's first.
    pub size: String,
    /// Keys of the model's own configuration.
    pub config: Table,
}

/// On which data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatasetConfig {
    /// Dataset family; empty for the model's default.
    pub name: String,
    /// Keys of the dataset's own options, `path` among them.
    pub options: Table,
}

/// How many training samples are used: all, a count, or a percentage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Examples {
    /// A number of samples.
    Count(u64),
    /// `all`, or a percentage such as `10%`.
    Text(String),
}

impl Default for Examples {
    fn default() -> Self {
        Self::Text("all".into())
    }
}

impl Examples {
    /// The number of samples out of `available`.
    ///
    /// # Errors
    /// A text that is neither, a count beyond what there is, or a fraction that leaves nothing.
    pub fn of(&self, available: u64) -> Result<u64, String> {
        let count = match self {
            Self::Count(n) => *n,
            Self::Text(t) if t == "all" => available,
            Self::Text(t) => {
                let percent = t
                    .strip_suffix('%')
                    .and_then(|p| p.trim().parse::<f64>().ok())
                    .filter(|p| *p > 0.0 && *p <= 100.0);
                let percent =
                    percent.ok_or_else(|| format!("train.examples = \"{t}\" is neither \"all\", a count nor a percentage like \"10%\""))?;
                (available as f64 * percent / 100.0).round() as u64
            }
        };
        if count == 0 {
            return Err(format!(
                "train.examples leaves 0 of {available} training samples; raise it"
            ));
        }
        if count > available {
            return Err(format!(
                "train.examples asks for {count} training samples, the dataset has {available}; lower it or use \"all\""
            ));
        }
        Ok(count)
    }
}

/// How it is trained. Any key of the recipe may stand here too: `lr`, `batch_size`, `optimiser`, ...
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainConfig {
    /// Optimiser steps; 0 for the recipe's epochs.
    pub steps: u64,
    /// Training samples.
    pub examples: Examples,
    /// Recipe keys that differ from the model's own recipe.
    pub recipe: Table,
}

/// How it is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeasureConfig {
    /// Split of the measured samples.
    pub split: String,
    /// Measured samples, chosen by seed.
    pub samples: u64,
    /// Samples in a batch of the measurement.
    pub batch_size: u64,
    /// Rotation scheme: `random-10`, `tetrahedral-x2`, `octahedral`, ...; empty for the task's own.
    pub scheme: String,
    /// `unbiased` or `plug-in`.
    pub estimator: String,
    /// Loss that is split: `mse`, `mae`, `l2`.
    pub loss: String,
    /// Kinds of weights: `raw`, `ema` (where the recipe keeps one).
    pub weights: Vec<String>,
    /// Evaluations a decade of steps.
    pub points_per_decade: u32,
    /// Whether models that can share work among rotated copies do. Random copies are then measured both ways and the difference is
    /// reported.
    pub sharing: bool,
    /// Flow times, for tasks that have one; empty for the task's own.
    pub flow_times: Vec<f64>,
    /// How predictions come about: `plain`, `self-conditioned`; empty for all that task and model know.
    pub variants: Vec<String>,
}

impl Default for MeasureConfig {
    fn default() -> Self {
        Self {
            split: "valid".into(),
            samples: 64,
            batch_size: 16,
            scheme: String::new(),
            estimator: "unbiased".into(),
            loss: "mse".into(),
            weights: vec!["raw".into(), "ema".into()],
            points_per_decade: 8,
            sharing: true,
            flow_times: Vec::new(),
            variants: Vec::new(),
        }
    }
}

/// How the run is carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionConfig {
    /// Seed of everything random.
    pub seed: u64,
    /// `cpu`, `cuda:N`; `auto` is resolved when the run is planned.
    pub device: String,
    /// `f32`, `f64` or `bf16` (training steps in 16 bits, weights and evaluation in f32); `f32+f64` and `bf16+f64` evaluate in f64, as CUDA
    /// does in any case where it may round to TF32.
    pub precision: String,
    /// Threads of the model; 0 for all.
    pub threads: u64,
    /// Steps between checkpoints.
    pub checkpoint_every_steps: u64,
    /// Seconds after which the run stops with a checkpoint; 0 for no limit.
    pub time_limit_s: u64,
    /// Seconds without a sign of life after which the run is ended; 0 for no limit.
    pub stall_limit_s: u64,
    /// `system`, or `steps`: a clock that counts 1/1024 s a step, so that timing columns repeat too.
    pub clock: String,
}

impl Default for ExecutionConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            device: "auto".into(),
            precision: "f32".into(),
            threads: 0,
            checkpoint_every_steps: 200,
            time_limit_s: 0,
            stall_limit_s: 1800,
            clock: "system".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_all_a_count_or_a_percentage() {
        let text = |t: &str| Examples::Text(t.into());
        assert_eq!(text("all").of(7), Ok(7));
        assert_eq!(Examples::Count(5).of(7), Ok(5));
        assert_eq!(text("10%").of(200), Ok(20));
        assert!(
            text("0.01%")
                .of(200)
                .unwrap_err()
                .contains("leaves 0 of 200")
        );
        assert!(Examples::Count(8).of(7).unwrap_err().contains("asks for 8"));
        assert!(text("ten").of(7).is_err());
    }
}
