//! Tasks: how samples become inputs and targets, under which conditions they are measured, and how samples weigh. A file for each
//! task, one slice that lists them.

mod baseline;
mod cloud;
mod flow_matching;
mod force_field;
mod voxel_denoising;

pub use baseline::{Baseline, Examples, baseline_sums};
pub use cloud::CloudAugmentation;
pub use flow_matching::FlowMatching;
pub use force_field::ForceField;
pub use voxel_denoising::{Augmentation, VoxelDenoising, euler_rotation};

use crate::{
    Axis, AxisValue, Batch, Column, Condition, CoreError, Field, FieldKind, Scheme, Split, Stream,
    condition::{Axes, conditions, parse_axis},
};
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

    /// Some of the samples, in the order that is given.
    #[must_use]
    pub fn select(&self, samples: &[usize]) -> Self {
        let of = |field: &Field| self.inputs.select_field(field, samples);
        Self {
            inputs: self.inputs.select(samples),
            target: self.target.as_ref().map(of),
            labels: self.labels.iter().map(of).collect(),
        }
    }

    /// Whether only the rotations of the cube can act: something is on a voxel grid.
    #[must_use]
    pub fn has_grids(&self) -> bool {
        let mut fields = self.inputs.fields.iter().chain(&self.target);
        fields.any(|field| field.kind == FieldKind::VoxelGrid)
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

/// What samples are made ready for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Occasion<'a> {
    /// An optimiser step: augmented, everything random drawn.
    Training,
    /// A measurement under a condition, of which the axes of the role `AxisRole::Input` count.
    Measurement(&'a Condition),
}

/// What a task needs besides the samples.
pub struct Preparation<'a> {
    /// What for.
    pub occasion: Occasion<'a>,
    /// `(mean, scale)` of a field.
    pub normaliser: &'a (dyn Fn(&str) -> Option<(f64, f64)> + Sync),
    /// The random stream of a sample of the batch. In a measurement it is the same under every condition, so that noise is.
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

impl Balance {
    /// What sums over the components of a sample are divided by before they are added to those of others.
    #[must_use]
    pub const fn divisor(self, components: f64) -> f64 {
        match self {
            Self::Components => 1.0,
            Self::Samples => components,
        }
    }
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

    /// The best predictor that knows nothing, fitted to training data (prepared as measured samples are) or known in closed form: skill is
    /// measured against it. Predicts nothing unless a task says otherwise. `examples` may be left half read.
    ///
    /// # Errors
    /// Examples that cannot be read.
    fn fit_baseline(&self, _examples: &mut Examples<'_>) -> Result<Arc<dyn Baseline>, CoreError> {
        Ok(Arc::new(baseline::Nothing))
    }

    /// Whether anything can be learnt under a condition that its baseline does not know.
    fn is_learnable(&self, _condition: &Condition) -> bool {
        true
    }

    /// The axes of its conditions, the slowest in tables first.
    fn axes(&self) -> &'static [&'static Axis] {
        &[]
    }

    /// The values on an axis at which it is measured unless a suite says otherwise; of an axis of names, all there are.
    fn axis_values(&self, _axis: &Axis) -> Vec<AxisValue> {
        Vec::new()
    }

    /// Whether a value on an axis can be measured of a model with these capabilities; else why not.
    ///
    /// # Errors
    /// What is missing and what to do.
    fn offers(
        &self,
        _axis: &Axis,
        _value: &AxisValue,
        _has: &dyn Fn(&str) -> bool,
    ) -> Result<(), String> {
        Ok(())
    }

    /// Which pass of the model a condition reads: 0 for the first, `n` for the one whose input was fed `n` times with the prediction
    /// before (see [`feed_back`](Self::feed_back)).
    fn pass(&self, _condition: &Condition) -> usize {
        0
    }

    /// What a further pass sees of the one before: a field of the inputs, made of the inputs and the prediction for them. `None` for a
    /// task whose conditions all read the first pass.
    ///
    /// # Errors
    /// A prediction that does not fit the inputs.
    fn feed_back(&self, _inputs: &Batch, _prediction: &[f64]) -> Result<Option<Field>, CoreError> {
        Ok(None)
    }
}

/// A task and a model, as far as conditions go.
struct Offered<'a> {
    task: &'a dyn Task,
    has: &'a dyn Fn(&str) -> bool,
}

impl Axes for Offered<'_> {
    fn axes(&self) -> &'static [&'static Axis] {
        self.task.axes()
    }
    fn values(&self, axis: &Axis) -> Vec<AxisValue> {
        self.task.axis_values(axis)
    }
    fn offered(&self, axis: &Axis, value: &AxisValue) -> Result<(), String> {
        self.task.offers(axis, value, self.has)
    }
}

/// The conditions under which a task is measured, in the order of their rows. `setting` is a key of `[measure]`; `has` tells the
/// capabilities of the model.
///
/// # Errors
/// A value that an axis cannot have, or that this model does not understand.
pub fn conditions_of(
    task: &dyn Task,
    setting: &dyn Fn(&str) -> Option<Value>,
    has: &dyn Fn(&str) -> bool,
) -> Result<Vec<Condition>, CoreError> {
    conditions(&Offered { task, has }, &|axis| {
        parse_axis(axis, setting(axis.setting).as_ref())
    })
}

/// What a task is fitted to.
pub struct TaskRequest<'a> {
    /// Settings of a suite's `[task]` table.
    pub settings: &'a Map<String, Value>,
    /// The shape of one row of an input field of the model, where the model says; an axis may be 0 for any length.
    pub input_width: &'a dyn Fn(&str) -> Option<Vec<usize>>,
}

/// A task in the list.
struct TaskInfo {
    name: &'static str,
    /// Makes it, or says which setting is wrong.
    configure: fn(&TaskRequest<'_>) -> Result<Arc<dyn Task>, CoreError>,
    axes: &'static [&'static Axis],
    /// Columns that only this task fills.
    columns: fn() -> Vec<Column<Split>>,
}

/// All tasks.
const TASKS: &[TaskInfo] = &[
    TaskInfo {
        name: "force-field",
        configure: |request| Ok(Arc::new(ForceField::configure(request)?)),
        axes: &[],
        columns: Vec::new,
    },
    TaskInfo {
        name: "flow-matching",
        configure: |request| Ok(Arc::new(FlowMatching::configure(request)?)),
        axes: flow_matching::AXES,
        columns: flow_matching::columns,
    },
    TaskInfo {
        name: "voxel-denoising",
        configure: |request| Ok(Arc::new(VoxelDenoising::configure(request)?)),
        axes: &[],
        columns: Vec::new,
    },
];

/// The axes of all tasks: the columns of conditions in every table, and keys of `[measure]`.
#[must_use]
pub fn all_axes() -> Vec<&'static Axis> {
    let mut all: Vec<&'static Axis> = Vec::new();
    for axis in TASKS.iter().flat_map(|task| task.axes) {
        if all.iter().all(|known| known.name != axis.name) {
            all.push(axis);
        }
    }
    all
}

/// A column for each axis of any task.
#[must_use]
pub fn condition_columns() -> Vec<Column<Condition>> {
    let column = |axis: &'static Axis| {
        Column::new(axis.name, axis.unit, axis.about, |c: &Condition| {
            c.cell(axis)
        })
    };
    all_axes().into_iter().map(column).collect()
}

/// What only some tasks say of a split.
#[must_use]
pub fn task_columns() -> Vec<Column<Split>> {
    TASKS.iter().flat_map(|task| (task.columns)()).collect()
}

/// The task of a name with its settings, fitted to the inputs of a model.
///
/// # Errors
/// An unknown name, an unknown setting, or one that cannot be.
pub fn configure_task(name: &str, request: &TaskRequest<'_>) -> Result<Arc<dyn Task>, CoreError> {
    match TASKS.iter().find(|known| known.name == name) {
        Some(task) => (task.configure)(request),
        None => Err(CoreError::Unknown {
            what: "task",
            name: name.into(),
            known: TASKS
                .iter()
                .map(|known| known.name)
                .collect::<Vec<_>>()
                .join(", "),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldKind, Rows};

    #[test]
    fn some_of_the_samples_keep_their_inputs_targets_and_labels() {
        let field = |name: &str, kind, rows, shape: &[usize]| {
            let count = shape.iter().product::<usize>() as u32;
            Field::real(
                name,
                kind,
                rows,
                shape.to_vec(),
                (0..count).map(f64::from).collect(),
            )
        };
        let all = Supervised {
            inputs: Batch {
                offsets: vec![0, 2, 3, 5],
                fields: vec![field("positions", FieldKind::Vector, Rows::Point, &[5, 3])],
            },
            target: Some(field("target", FieldKind::Vector, Rows::Point, &[5, 3])),
            labels: vec![field("energy", FieldKind::Invariant, Rows::Sample, &[3])],
        };
        let some = all.select(&[2, 1]);
        assert_eq!(some.inputs.offsets, [0, 2, 3]);
        let expected = [9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 6.0, 7.0, 8.0];
        assert_eq!(some.target_values().unwrap(), expected);
        assert_eq!(some.inputs.fields[0].reals().unwrap(), expected);
        assert_eq!(some.labels[0].reals().unwrap(), [2.0, 1.0]);
        assert_eq!(all.select(&[0, 1, 2]), all);
        assert!(!all.has_grids());
    }
}
