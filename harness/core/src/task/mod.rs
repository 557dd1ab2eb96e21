//! Tasks: how samples become inputs and targets, under which conditions they are measured, and how samples weigh. A file for each
//! task, one slice that lists them.

mod flow_matching;
mod force_field;

pub use flow_matching::FlowMatching;
pub use force_field::ForceField;

use crate::{Batch, CoreError, Field, Stream};
use serde::{Deserialize, Serialize};

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
    pub fn training_batch(&self) -> Batch {
        let mut batch = self.inputs.clone();
        batch.fields.extend(self.target.clone());
        batch.fields.extend(self.labels.iter().cloned());
        batch
    }

    /// The target's numbers.
    ///
    /// # Errors
    /// A task that gave none.
    pub fn target_values(&self) -> Result<&[f64], CoreError> {
        self.target.as_ref().ok_or_else(|| CoreError::Shape("the task made no target".into()))?.reals()
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
        Self::ALL.into_iter().find(|v| v.name() == name).ok_or_else(|| CoreError::Unknown {
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
    pub normaliser: &'a dyn Fn(&str) -> Option<(f64, f64)>,
    /// The random stream of a sample of the batch. In a measurement it is the same at every flow time, so that noise is.
    pub stream: &'a dyn Fn(usize) -> Stream,
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

/// All tasks.
const TASKS: &[&dyn Task] = &[&ForceField, &FlowMatching];

/// The task of a name.
///
/// # Errors
/// An unknown name.
pub fn task_by_name(name: &str) -> Result<&'static dyn Task, CoreError> {
    TASKS.iter().copied().find(|t| t.name() == name).ok_or_else(|| CoreError::Unknown {
        what: "task",
        name: name.into(),
        known: TASKS.iter().map(|t| t.name()).collect::<Vec<_>>().join(", "),
    })
}
