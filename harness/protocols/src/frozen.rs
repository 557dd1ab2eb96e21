//! The measured samples of a run, frozen: which they are, how each is rotated, under which conditions they are seen. Everything has a
//! key of its own, so nothing is found again by counting.

use crate::{
    Measuring, SessionError,
    preparer::Preparer,
    source::{Samples, Source},
};
use equivbench_core::{
    Axis, Batch, Condition, CoreError, Estimator, Reading, RotationPlan, Seed, Supervised, Task,
};
use std::sync::{Arc, OnceLock};

/// Bytes of measured samples that are kept from one evaluation to the next.
const KEPT_BYTES: usize = 64 << 20;

/// Names a batch of frozen samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchKey(usize);

/// Names what a model may be shown of the frozen samples: the part of conditions that changes inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InputKey(usize);

/// The inputs that some conditions share.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The part of the conditions that changes inputs.
    pub condition: Condition,
    /// The conditions that read predictions of them.
    pub readings: Arc<[Reading]>,
}

/// Some measured samples as the dataset gave them, with their rotations. What a task makes of them may be a thousand times larger
/// (grids) and is a function of seed, sample and condition, so it is kept where it is small and made anew where it is not.
struct FrozenBatch {
    raw: Batch,
    indices: Arc<[u64]>,
    plans: Arc<[RotationPlan]>,
    /// What the task made of them, for each kind of inputs.
    made: Vec<OnceLock<Arc<Supervised>>>,
}

/// The fixed validation subset with its rotations and conditions: chosen by seed, the same at every evaluation.
pub struct Frozen {
    batches: Vec<FrozenBatch>,
    inputs: Vec<Inputs>,
    conditions: Vec<Condition>,
}

impl Frozen {
    /// Loads the samples and draws their rotations.
    ///
    /// # Errors
    /// An empty split, an unbiased estimate over one coset, or unreadable data.
    pub fn new(
        measuring: &Measuring,
        seed: Seed,
        task: &dyn Task,
        source: &Source<'_>,
    ) -> Result<Self, SessionError> {
        let available = source.samples(&measuring.split);
        if available == 0 || measuring.samples == 0 {
            return Err(SessionError::Empty(format!(
                "split \"{}\" has {available} samples and measure.samples is {}: there is nothing to measure",
                measuring.split, measuring.samples
            )));
        }
        let scheme = &measuring.scheme;
        if measuring.estimator == Estimator::Unbiased
            && scheme.is_sampled()
            && scheme.plan(seed, 0).cosets < 2
        {
            return Err(SessionError::Empty(format!(
                "scheme {} draws one rotation, an unbiased estimate needs two; use e.g. tetrahedral-x2 or random-10",
                scheme.name()
            )));
        }
        let inputs = inputs_of(&measuring.conditions, task);
        let mut chosen = seed.permutation("measured", available);
        chosen.truncate(measuring.samples);
        let freeze = |samples: &[u64]| -> Result<FrozenBatch, CoreError> {
            Ok(FrozenBatch {
                raw: source.load(&measuring.split, samples)?,
                indices: samples.into(),
                plans: samples.iter().map(|&s| scheme.plan(seed, s)).collect(),
                made: inputs.iter().map(|_| OnceLock::new()).collect(),
            })
        };
        let batches: Result<_, _> = chosen
            .chunks(measuring.batch_size.max(1))
            .map(freeze)
            .collect();
        Ok(Self {
            batches: batches.map_err(SessionError::at(0))?,
            inputs,
            conditions: measuring.conditions.clone(),
        })
    }

    /// The conditions, in the order of their rows.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// Every kind of inputs, in the order in which they are measured.
    pub fn inputs(&self) -> impl Iterator<Item = (InputKey, &Inputs)> {
        self.inputs
            .iter()
            .enumerate()
            .map(|(i, inputs)| (InputKey(i), inputs))
    }

    /// The inputs that a condition reads.
    ///
    /// # Errors
    /// A condition that is not measured.
    pub fn inputs_of(&self, condition: &Condition) -> Result<(InputKey, &Inputs), CoreError> {
        self.inputs()
            .find(|(_, inputs)| inputs.readings.iter().any(|r| r.condition == *condition))
            .ok_or_else(|| CoreError::Shape(format!("{condition:?} is no condition of this run")))
    }

    /// Every batch, in the order in which they are measured.
    pub fn batches(&self) -> impl Iterator<Item = BatchKey> + use<> {
        (0..self.batches.len()).map(BatchKey)
    }

    /// The batch and the kind of inputs that two draws name, and the samples and rotations of that batch; `None` without any.
    #[must_use]
    pub fn drawn(&self, batch: u64, inputs: u64) -> Option<(BatchKey, InputKey)> {
        let within = |draw: u64, count: usize| draw.checked_rem(count as u64).map(|i| i as usize);
        Some((
            BatchKey(within(batch, self.batches.len())?),
            InputKey(within(inputs, self.inputs.len())?),
        ))
    }

    /// The rotations of each sample of a batch.
    #[must_use]
    pub fn plans(&self, batch: BatchKey) -> &Arc<[RotationPlan]> {
        &self.batches[batch.0].plans
    }

    /// Index of each sample of a batch in the measured split.
    #[must_use]
    pub fn indices(&self, batch: BatchKey) -> &Arc<[u64]> {
        &self.batches[batch.0].indices
    }

    /// A batch as the task makes it for a kind of inputs. Kept where all of them take little memory.
    pub(crate) fn made(
        &self,
        batch: BatchKey,
        key: InputKey,
        preparer: &Preparer,
    ) -> Result<Arc<Supervised>, CoreError> {
        let frozen = &self.batches[batch.0];
        if let Some(made) = frozen.made[key.0].get() {
            return Ok(Arc::clone(made));
        }
        let condition = &self.inputs[key.0].condition;
        let made = preparer.measured(frozen.raw.clone(), &frozen.indices, condition)?;
        let made = Arc::new(made);
        if made.bytes() <= KEPT_BYTES / (self.inputs.len() * self.batches.len()).max(1) {
            // Whoever comes second made the same.
            let _ = frozen.made[key.0].set(Arc::clone(&made));
        }
        Ok(made)
    }
}

/// Groups conditions by the inputs that they read, in their order.
fn inputs_of(conditions: &[Condition], task: &dyn Task) -> Vec<Inputs> {
    let axes: &[&Axis] = task.axes();
    let mut found: Vec<(Condition, Vec<Reading>)> = Vec::new();
    for condition in conditions {
        let own = condition.of_inputs(axes);
        let reading = Reading {
            pass: task.pass(condition),
            condition: condition.clone(),
        };
        match found.iter_mut().find(|(known, _)| *known == own) {
            Some((_, readings)) => readings.push(reading),
            None => found.push((own, vec![reading])),
        }
    }
    let inputs = |(condition, readings): (Condition, Vec<Reading>)| Inputs {
        condition,
        readings: readings.into(),
    };
    found.into_iter().map(inputs).collect()
}
