//! The configuration of one run: every key, its default and its meaning, in one place.

use equivbench_core::{CoreError, Scheme, Task, all_axes};
use equivbench_protocols::{PROTOCOLS, ProtocolInfo};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

/// The scheme that stands for one that is chosen by the model when a run begins.
const AUTO: &str = "auto";

/// Everything about one run. Unknown keys are refused before this type is read (see `suite`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Settings of protocols, a table for each.
    pub protocols: Table,
    /// How the run is carried out.
    pub run: ExecutionConfig,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            model: ModelConfig::default(),
            dataset: DatasetConfig::default(),
            task: Table::new(),
            train: TrainConfig::default(),
            measure: MeasureConfig::default(),
            protocols: protocol_settings(),
            run: ExecutionConfig::default(),
        }
    }
}

/// The settings of every protocol that has some, with their defaults.
fn protocol_settings() -> Table {
    let settings = |p: &ProtocolInfo| {
        let own = Value::try_from((p.settings)()).ok()?;
        let has_some = own.as_table().is_some_and(|t| !t.is_empty());
        has_some.then(|| (p.name.to_owned(), own))
    };
    PROTOCOLS.iter().filter_map(settings).collect()
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
#[serde(untagged, try_from = "Value")]
pub enum Examples {
    /// A number of samples.
    Count(u64),
    /// `all`, or a percentage such as `10%`.
    Text(String),
}

impl TryFrom<Value> for Examples {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(Self::Text(text)),
            Value::Integer(count) if count >= 0 => Ok(Self::Count(count.unsigned_abs())),
            other => Err(format!(
                "train.examples: {other} is neither \"all\", a count nor a percentage like \"10%\""
            )),
        }
    }
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
    /// Seed of measured samples, their rotations and their noise; the same for runs that are to be compared.
    pub seed: u64,
    /// Split of the measured samples: choices are made on it.
    pub split: String,
    /// Measured samples, chosen by `measure.seed`, one of each group first.
    pub samples: u64,
    /// Split that is measured once, after the last step, with as many samples: figures are reported on it; empty for none.
    pub test_split: String,
    /// Samples of the whole of `measure.split` that are measured once, after the last step, at most; 0 for none.
    pub whole_samples: u64,
    /// Samples in a batch of the measurement.
    pub batch_size: u64,
    /// Rotation scheme: `random-10`, `tetrahedral-x2`, `octahedral`, ...; empty for the task's own; `auto` for one that is chosen by the
    /// model when a run begins.
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
    /// Values on the axes of conditions, such as `flow_times` and `variants`; an empty list for the task's own.
    #[serde(flatten)]
    pub axes: Table,
}

impl MeasureConfig {
    /// Every axis is there, so that two ways to say the same are the same.
    pub(crate) fn complete(&mut self) {
        for axis in all_axes() {
            let own = self.axes.entry(axis.setting);
            own.or_insert_with(|| Value::Array(Vec::new()));
        }
    }

    /// Leaves out what is asked on axes that a task does not have: it cannot change a number.
    pub(crate) fn keep_axes_of(&mut self, task: &dyn Task) {
        for axis in all_axes() {
            if task.axes().iter().all(|own| own.name != axis.name) {
                let none = Value::Array(Vec::new());
                self.axes.insert(axis.setting.into(), none);
            }
        }
    }

    /// Writes out what a task says of the scheme: its own where none is named, and instead of `auto` where it has no choice.
    ///
    /// # Errors
    /// An unknown scheme.
    pub(crate) fn resolve_scheme(&mut self, task: &dyn Task) -> Result<(), String> {
        let any = Scheme::Random { rotations: 2 };
        let no_choice = self.scheme == AUTO && task.check_scheme(&any).is_err();
        if self.scheme.is_empty() || no_choice {
            self.scheme = task.default_scheme().into();
        }
        self.scheme_of(task).map(drop)
    }

    /// The scheme that a session begins with: the task's own until one is chosen.
    ///
    /// # Errors
    /// An unknown scheme.
    pub(crate) fn scheme_of(&self, task: &dyn Task) -> Result<Scheme, String> {
        let name = match self.is_scheme_chosen() {
            true => task.default_scheme(),
            false => &self.scheme,
        };
        let unknown = |e: CoreError| {
            format!("measure.scheme: {e}; or {AUTO}, which lets the model decide when a run begins")
        };
        Scheme::parse(name).map_err(unknown)
    }

    /// Whether the scheme is chosen by the model when a run begins.
    #[must_use]
    pub fn is_scheme_chosen(&self) -> bool {
        self.scheme == AUTO
    }

    /// The list of an axis' key.
    #[must_use]
    pub fn axis(&self, setting: &str) -> Option<serde_json::Value> {
        serde_json::to_value(self.axes.get(setting)?).ok()
    }
}

impl Default for MeasureConfig {
    fn default() -> Self {
        let mut config = Self {
            seed: 0,
            split: "valid".into(),
            samples: 64,
            test_split: "test".into(),
            whole_samples: 1024,
            batch_size: 16,
            scheme: String::new(),
            estimator: "unbiased".into(),
            loss: "mse".into(),
            weights: vec!["raw".into(), "ema".into()],
            points_per_decade: 8,
            sharing: true,
            axes: Table::new(),
        };
        config.complete();
        config
    }
}

/// How the run is carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecutionConfig {
    /// Seed of everything random in training: weights, order and subset of samples, noise, augmentation, dropout.
    pub seed: u64,
    /// `cpu`, `cuda:N`; `auto` is resolved when the run is planned.
    pub device: String,
    /// `f32`, `f64` or `bf16` (training steps in 16 bits, weights and evaluation in f32); `f32+f64` and `bf16+f64` evaluate in f64, as CUDA
    /// does in any case where it may round to TF32.
    pub precision: String,
    /// Threads of the model; 0 for all.
    pub threads: u64,
    /// Instruction set of a plugin's kernels on the processor: `auto`, `plain`, `avx2` or `avx512`. Numbers differ in their last bits.
    pub kernels: String,
    /// Steps between checkpoints.
    pub checkpoint_every_steps: u64,
    /// Steps whose checkpoints stay, for `equivbench measure`: numbers, or `last`.
    pub keep_checkpoints: Vec<KeptStep>,
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
            kernels: "auto".into(),
            checkpoint_every_steps: 200,
            keep_checkpoints: Vec::new(),
            time_limit_s: 0,
            stall_limit_s: 1800,
            clock: "system".into(),
        }
    }
}

/// A step whose checkpoint stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "Value")]
pub enum KeptStep {
    /// Optimiser steps done.
    Step(u64),
    /// `last`.
    Named(String),
}

impl TryFrom<Value> for KeptStep {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(name) => Ok(Self::Named(name)),
            Value::Integer(step) if step >= 0 => Ok(Self::Step(step.unsigned_abs())),
            other => Err(format!(
                "run.keep_checkpoints: {other} is neither a step nor \"last\"; write a list such as [500, \"last\"]"
            )),
        }
    }
}

impl KeptStep {
    /// The step in a run of this many.
    ///
    /// # Errors
    /// Another name than `last`, or a step beyond the last.
    pub fn of(&self, total: u64) -> Result<u64, String> {
        match self {
            Self::Step(step) if *step <= total => Ok(*step),
            Self::Step(step) => Err(format!(
                "run.keep_checkpoints names step {step}, the run ends with step {total}"
            )),
            Self::Named(name) if name == "last" => Ok(total),
            Self::Named(name) => Err(format!(
                "run.keep_checkpoints: \"{name}\" is neither a step nor \"last\""
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scheme_is_the_tasks_own_or_chosen_where_there_is_a_choice() {
        let resolved = |task: &str, scheme: &str| {
            let task = crate::plan::configure(task, &Table::new(), &|_| None).unwrap();
            let mut measure = MeasureConfig {
                scheme: scheme.into(),
                ..MeasureConfig::default()
            };
            measure.resolve_scheme(&*task)?;
            let begins = measure.scheme_of(&*task)?.name();
            Ok::<_, String>((measure.scheme, begins))
        };
        let both = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        for (task, scheme, expected) in [
            ("force-field", "", both("tetrahedral-x2", "tetrahedral-x2")),
            ("force-field", "random-10", both("random-10", "random-10")),
            ("force-field", "auto", both("auto", "tetrahedral-x2")),
            ("flow-matching", "auto", both("auto", "tetrahedral-x2")),
            // On grids the whole group is exact.
            ("voxel-denoising", "auto", both("octahedral", "octahedral")),
            ("voxel-denoising", "cube16-a", both("cube16-a", "cube16-a")),
        ] {
            assert_eq!(resolved(task, scheme), expected, "{task} {scheme}");
        }
        let said = resolved("force-field", "automatic").unwrap_err();
        assert!(said.contains("or auto"), "{said}");
    }

    #[test]
    fn kept_steps_are_numbers_or_the_last() {
        assert_eq!(KeptStep::Step(500).of(1000), Ok(500));
        assert_eq!(KeptStep::Named("last".into()).of(1000), Ok(1000));
        assert!(KeptStep::Step(1001).of(1000).unwrap_err().contains("1001"));
        assert!(
            KeptStep::Named("first".into())
                .of(1)
                .unwrap_err()
                .contains("first")
        );
    }

    #[test]
    fn a_step_that_cannot_be_kept_is_refused_with_what_can() {
        let read = |text: &str| toml::from_str::<ExecutionConfig>(text).map_err(|e| e.to_string());
        let kept = read("keep_checkpoints = [5, \"last\"]")
            .unwrap()
            .keep_checkpoints;
        assert_eq!(kept, [KeptStep::Step(5), KeptStep::Named("last".into())]);
        for wrong in ["-1", "1.5", "[2]"] {
            let said = read(&format!("keep_checkpoints = [{wrong}]")).unwrap_err();
            let expected = format!("run.keep_checkpoints: {wrong} is neither a step nor \"last\"");
            assert!(said.contains(&expected), "{said}");
        }
        let said = toml::from_str::<TrainConfig>("examples = -1").unwrap_err();
        assert!(
            said.to_string().contains("train.examples: -1 is neither"),
            "{said}"
        );
    }

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
