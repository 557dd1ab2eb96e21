//! Tasks: how samples become inputs and targets, under which conditions they are measured, and how samples weigh. A file for each
//! task, one slice that lists them.

mod cloud;
mod flow_matching;
mod force_field;
mod voxel_denoising;

pub use flow_matching::FlowMatching;
pub use force_field::ForceField;
pub use voxel_denoising::{Augmentation, VoxelDenoising, euler_rotation};

use crate::{Batch, CoreError, Field, Scheme, Stream};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// Samples made ready for a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Supervised {
    /// What the model may see.
    pub inputs: Batch,
    /// What it should predict, in the frame of the inputs, named `target`.
    pub target: Option<Field>,
    /// Further labels a training loss may use.
    pub labels: Vec<Field>,
}

impl Supervised {
    /// Inputs, target and labels together, for an optimiser step.
    #[must_use]
    pub fn into_training_batch(self) -> Batch {
        let mut batch = self.inputs;
        batch.fields.extend(self.target);
        batch.fields.extend(self.labels);
        batch
    }

    /// Bytes that the numbers take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inputs
            .fields
            .iter()
            .chain(&self.target)
            .chain(&self.labels)
            .map(|field| field.values.bytes())
            .sum()
    }

    /// The target's numbers.
    ///
    /// # Errors
    /// A task that gave none.
    pub fn target_values(&self) -> Result<&[f64], CoreError> {
        self.target
            .as_ref()
            .ok_or_else(|| CoreError::Shape("the task made no target".into()))?
            .reals()
    }
}

/// How a prediction that is measured comes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Variant {
    /// One pass.
    #[default]
    Plain,
    /// Two passes: the second is shown what the first predicts, in the frame of the rotated input.
    SelfConditioned,
}

impl Variant {
    /// All variants, in the order of their rows.
    pub const ALL: [Self; 2] = [Self::Plain, Self::SelfConditioned];

    /// Name in suites and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::SelfConditioned => "self-conditioned",
        }
    }

    /// Reads `plain` or `self-conditioned`.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse(name: &str) -> Result<Self, CoreError> {
        Self::ALL
            .into_iter()
            .find(|v| v.name() == name)
            .ok_or_else(|| CoreError::Unknown {
                what: "variant",
                name: name.into(),
                known: Self::ALL.map(Self::name).join(", "),
            })
    }
}

/// One setting under which the measured samples are predicted; every row of a curve belongs to one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// Flow time in [0, 1], for tasks that have one.
    pub flow_time: Option<f64>,
    /// How the prediction comes about.
    pub variant: Variant,
}

/// What samples are made ready for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Occasion {
    /// An optimiser step: augmented, everything random drawn.
    Training,
    /// A measurement at a flow time, where the task has one.
    Measurement {
        /// In [0, 1].
        flow_time: Option<f64>,
    },
}

/// What a task needs besides the samples.
pub struct Preparation<'a> {
    /// What for.
    pub occasion: Occasion,
    /// `(mean, scale)` of a field.
    pub normaliser: &'a (dyn Fn(&str) -> Option<(f64, f64)> + Sync),
    /// The random stream of a sample of the batch. In a measurement it is the same at every flow time, so that noise is.
    pub stream: &'a (dyn Fn(usize) -> Stream + Sync),
}

/// How samples of different size weigh in a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Every component weighs the same.
    Components,
    /// Every sample weighs the same: its loss is averaged over its components first.
    Samples,
}

/// A learning task.
pub trait Task: Send + Sync {
    /// Name in suites, descriptors and tables.
    fn name(&self) -> &'static str;

    /// Every setting with its value, as they stand in manifests.
    fn settings(&self) -> Map<String, Value> {
        Map::new()
    }

    /// How rotations are drawn unless a suite says otherwise.
    fn default_scheme(&self) -> &'static str {
        "tetrahedral-x2"
    }

    /// Whether the rotations of a scheme can act on the fields of this task.
    ///
    /// # Errors
    /// Names the schemes that can.
    fn check_scheme(&self, _scheme: &Scheme) -> Result<(), CoreError> {
        Ok(())
    }

    /// Turns raw samples into inputs and target. Whatever is random comes from the streams of `how`.
    ///
    /// # Errors
    /// A missing field, or numbers that are not finite.
    fn prepare(&self, raw: Batch, how: &Preparation<'_>) -> Result<Supervised, CoreError>;

    /// How samples weigh in the measured loss.
    fn balance(&self) -> Balance {
        Balance::Components
    }

    /// Flow times at which the task is measured unless a suite says otherwise; empty where there is none.
    fn flow_times(&self) -> &'static [f64] {
        &[]
    }

    /// The factor from the squared error of the prediction to that of the clean sample, at a flow time.
    fn clean_sample_factor(&self, _flow_time: f64) -> Option<f64> {
        None
    }

    /// What the second pass of [`Variant::SelfConditioned`] sees of the first: a field of the inputs, made of the inputs and the
    /// prediction for them. `None` for a task without that variant.
    ///
    /// # Errors
    /// A prediction that does not fit the inputs.
    fn feed_back(&self, _inputs: &Batch, _prediction: &[f64]) -> Result<Option<Field>, CoreError> {
        Ok(None)
    }

    /// The capability with which a model says that it understands what [`feed_back`](Self::feed_back) makes.
    fn feed_back_capability(&self) -> Option<&'static str> {
        None
    }
}

/// What a task is fitted to.
pub struct TaskRequest<'a> {
    /// Settings of a suite's `[task]` table.
    pub settings: &'a Map<String, Value>,
    /// The shape of one row of an input field of the model, where the model says; an axis may be 0 for any length.
    pub input_width: &'a dyn Fn(&str) -> Option<Vec<usize>>,
}

/// Makes a task, or says which setting is wrong.
type Configure = fn(&TaskRequest<'_>) -> Result<Arc<dyn Task>, CoreError>;

/// All tasks.
const TASKS: &[(&str, Configure)] = &[
    ("force-field", |request| {
        without_settings("force-field", request, ForceField)
    }),
    ("flow-matching", |request| {
        without_settings("flow-matching", request, FlowMatching)
    }),
    ("voxel-denoising", |request| {
        Ok(Arc::new(VoxelDenoising::configure(request)?))
    }),
];

fn without_settings(
    name: &str,
    request: &TaskRequest<'_>,
    task: impl Task + 'static,
) -> Result<Arc<dyn Task>, CoreError> {
    match request.settings.keys().next() {
        Some(key) => Err(CoreError::Setting {
            task: name.into(),
            what: format!("task.{key} is not known: this task has no settings"),
        }),
        None => Ok(Arc::new(task)),
    }
}

/// The task of a name with its settings, fitted to the inputs of a model.
///
/// # Errors
/// An unknown name, an unknown setting, or one that cannot be.
pub fn configure_task(name: &str, request: &TaskRequest<'_>) -> Result<Arc<dyn Task>, CoreError> {
    match TASKS.iter().find(|(known, _)| *known == name) {
        Some((_, configure)) => configure(request),
        None => Err(CoreError::Unknown {
            what: "task",
            name: name.into(),
            known: TASKS
                .iter()
                .map(|(known, _)| *known)
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}
