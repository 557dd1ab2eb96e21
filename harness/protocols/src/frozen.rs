//! The measured samples of a run, frozen: which they are, how each is rotated, under which conditions they are seen. Everything has a
//! key of its own, so nothing is found again by counting.

use crate::{Measuring, SampleSet, SessionError, SetName, preparer::Preparer, source::Samples};
use equivbench_core::{
    Axis, Baseline, Batch, Condition, CoreError, Estimator, PointLoss, Reading, RotationPlan,
    Scheme, Seed, Supervised, Task, baseline_sums,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

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
    /// The loss of the baseline for each sample, for each kind of inputs.
    baselines: Vec<OnceLock<Vec<f64>>>,
}

/// What a set of samples says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetAbout {
    /// Which.
    pub name: SetName,
    /// Split of the dataset.
    pub split: String,
    /// Samples that the split has.
    pub available: u64,
}

/// A fixed set of samples with its rotations and conditions: chosen by the seed of measurements, the same at every evaluation of every
/// run.
pub struct Frozen {
    about: Arc<SetAbout>,
    baseline: Arc<dyn Baseline>,
    loss: PointLoss,
    groups: BTreeMap<u64, u64>,
    batches: Vec<FrozenBatch>,
    inputs: Vec<Inputs>,
    conditions: Vec<Condition>,
}

impl Frozen {
    /// Chooses and loads the samples and draws their rotations.
    ///
    /// # Errors
    /// An empty split, an unbiased estimate over one coset, or unreadable data.
    pub(crate) fn new(
        measuring: &Measuring,
        set: &SampleSet,
        task: &dyn Task,
        baseline: Arc<dyn Baseline>,
        source: &dyn Samples,
    ) -> Result<Self, SessionError> {
        let available = source.samples(&set.split);
        if available == 0 || set.samples == 0 {
            return Err(SessionError::Empty(format!(
                "split \"{}\" has {available} samples and measure.samples is {}: there is nothing to measure",
                set.split, set.samples
            )));
        }
        let (scheme, seed) = (&measuring.scheme, measuring.seed);
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
        let chosen = choose(seed, set, source).map_err(SessionError::at(0))?;
        let freeze = |chosen: &[(u64, u64)]| -> Result<FrozenBatch, CoreError> {
            let samples: Vec<u64> = chosen.iter().map(|(sample, _)| *sample).collect();
            Ok(FrozenBatch {
                raw: source.load(&set.split, &samples)?,
                plans: samples.iter().map(|&s| scheme.plan(seed, s)).collect(),
                indices: samples.into(),
                made: inputs.iter().map(|_| OnceLock::new()).collect(),
                baselines: inputs.iter().map(|_| OnceLock::new()).collect(),
            })
        };
        let batches: Result<_, _> = chosen
            .chunks(measuring.batch_size.max(1))
            .map(freeze)
            .collect();
        Ok(Self {
            about: Arc::new(SetAbout {
                name: set.name,
                split: set.split.clone(),
                available: available as u64,
            }),
            baseline,
            loss: measuring.loss,
            groups: chosen.into_iter().collect(),
            batches: batches.map_err(SessionError::at(0))?,
            inputs,
            conditions: measuring.conditions.clone(),
        })
    }

    /// Draws other rotations for the same samples.
    pub(crate) fn rotate_by(&mut self, scheme: &Scheme, seed: Seed) {
        for batch in &mut self.batches {
            let indices = batch.indices.iter();
            batch.plans = indices.map(|&s| scheme.plan(seed, s)).collect();
        }
    }

    /// Which samples these are.
    #[must_use]
    pub fn about(&self) -> &Arc<SetAbout> {
        &self.about
    }

    /// The group of a frozen sample.
    #[must_use]
    pub fn group_of(&self, sample: u64) -> u64 {
        self.groups.get(&sample).copied().unwrap_or(sample)
    }

    /// The loss of the baseline for every sample, summed over its components, by index, with the components that it is divided by left
    /// to the caller.
    ///
    /// # Errors
    /// What the task refuses.
    pub(crate) fn baselines(
        &self,
        key: InputKey,
        preparer: &Preparer,
    ) -> Result<BTreeMap<u64, f64>, CoreError> {
        let mut all = BTreeMap::new();
        for (at, batch) in self.batches.iter().enumerate() {
            if batch.baselines[key.0].get().is_none() {
                self.made(BatchKey(at), key, preparer)?;
            }
            let sums = batch.baselines[key.0].get().into_iter().flatten();
            all.extend(batch.indices.iter().copied().zip(sums.copied()));
        }
        Ok(all)
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
        if frozen.baselines[key.0].get().is_none() {
            let sums = baseline_sums(&*self.baseline, &made, self.loss)?;
            let _ = frozen.baselines[key.0].set(sums);
        }
        let made = Arc::new(made);
        if made.bytes() <= KEPT_BYTES / (self.inputs.len() * self.batches.len()).max(1) {
            // Whoever comes second made the same.
            let _ = frozen.made[key.0].set(Arc::clone(&made));
        }
        Ok(made)
    }
}

/// The samples of a set with their groups, in the order in which they are taken: a larger set of a split begins with a smaller one.
///
/// # Errors
/// What the dataset reports.
pub(crate) fn choose(
    seed: Seed,
    set: &SampleSet,
    source: &dyn Samples,
) -> Result<Vec<(u64, u64)>, CoreError> {
    let order = seed.permutation("measured", source.samples(&set.split));
    let groups = source.groups(&set.split, &order)?;
    let mut chosen = one_of_each_first(&order, &groups);
    chosen.truncate(set.samples);
    Ok(chosen)
}

/// Samples with their groups: a first one of each group, then a second one of those that have two, and so on, else as they come.
fn one_of_each_first(samples: &[u64], groups: &[u64]) -> Vec<(u64, u64)> {
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let ranked = |(&sample, &group): (&u64, &u64)| {
        let rank = seen.entry(group).or_default();
        *rank += 1;
        (*rank, sample, group)
    };
    let mut all: Vec<(u64, u64, u64)> = samples.iter().zip(groups).map(ranked).collect();
    all.sort_by_key(|(rank, _, _)| *rank);
    all.into_iter()
        .map(|(_, sample, group)| (sample, group))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_sample_of_each_group_comes_before_any_second() {
        let chosen = one_of_each_first(&[5, 3, 8, 1, 9], &[70, 70, 71, 70, 72]);
        let order: Vec<u64> = chosen.iter().map(|(sample, _)| *sample).collect();
        assert_eq!(order, [5, 8, 9, 3, 1]);
        assert_eq!(chosen[3].1, 70);
        // Each its own group: as they come.
        let alone = one_of_each_first(&[5, 3, 8], &[5, 3, 8]);
        assert_eq!(alone, [(5, 5), (3, 3), (8, 8)]);
    }
}
