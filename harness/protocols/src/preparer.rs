//! From samples to batches: loaded, augmented and made noisy on another thread, so that the model does not wait for them.

use crate::{BatchOrder, source::Samples};
use equivbench_core::{
    Baseline, Batch, Condition, CoreError, Occasion, Precision, Preparation, Seed, Supervised, Task,
};
use std::{
    any::Any,
    collections::BTreeMap,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::Scope,
};

/// A training batch, or why there is none.
pub(crate) type Prepared = Result<Batch, CoreError>;

/// Batches that wait for the model at most, besides the one that is made and the one in use. Batches of grids may fill gigabytes.
const AHEAD: usize = 1;

/// Makes batches; everything random in them is a function of seed, step and sample.
#[derive(Clone)]
pub(crate) struct Preparer {
    pub(crate) task: Arc<dyn Task>,
    pub(crate) order: BatchOrder,
    /// Of training.
    pub(crate) seed: Seed,
    /// Of measured samples.
    pub(crate) measure_seed: Seed,
    pub(crate) normalisers: BTreeMap<String, (f64, f64)>,
    /// What the model reads.
    pub(crate) precision: Precision,
}

impl Preparer {
    /// Starts a thread that makes the batches of some steps in order. It ends with the last, with the first error (a panic is one), or
    /// when nobody listens any more.
    pub(crate) fn ahead<'scope, 'env>(
        mut self,
        scope: &'scope Scope<'scope, 'env>,
        source: &'env dyn Samples,
        steps: Range<u64>,
    ) -> Receiver<Prepared> {
        let (batches, listener) = sync_channel(AHEAD);
        scope.spawn(move || {
            yield_to_the_model();
            for step in steps {
                let prepared = catch_unwind(AssertUnwindSafe(|| self.training(source, step)));
                let prepared = prepared.unwrap_or_else(|panic| {
                    Err(CoreError::Dataset(format!(
                        "panicked: {}",
                        message(&*panic)
                    )))
                });
                let is_last = prepared.is_err();
                if batches.send(prepared).is_err() || is_last {
                    break;
                }
            }
        });
        listener
    }

    /// The batch of a step (0 for the first), as it is trained on.
    ///
    /// # Errors
    /// What dataset or task refuse.
    pub(crate) fn training(&mut self, source: &dyn Samples, step: u64) -> Prepared {
        let raw = source.load("train", &self.order.batch(step))?;
        let stream = |sample: usize| {
            self.seed
                .indexed_stream(&format!("task/train/{step}"), sample as u64)
        };
        let how = Preparation {
            occasion: Occasion::Training,
            normaliser: &|field| self.normalisers.get(field).copied(),
            stream: &stream,
        };
        let mut batch = self.task.prepare(raw, &how)?.into_training_batch();
        batch.round_grids(self.precision)?;
        Ok(batch)
    }

    /// Training samples as they are trained on, the same for every run: chosen and made noisy by the seed of measurements. With their
    /// indices.
    ///
    /// # Errors
    /// What dataset or task refuse.
    pub(crate) fn fixed(
        &self,
        source: &dyn Samples,
        samples: usize,
    ) -> Result<(Supervised, Vec<u64>), CoreError> {
        let available = source.samples("train");
        let mut chosen = self.measure_seed.permutation("fixed-batch", available);
        chosen.truncate(samples);
        let stream = |sample: usize| {
            self.measure_seed
                .indexed_stream("task/fixed-batch", chosen[sample])
        };
        let how = Preparation {
            occasion: Occasion::Training,
            normaliser: &|field| self.normalisers.get(field).copied(),
            stream: &stream,
        };
        let mut supervised = self.task.prepare(source.load("train", &chosen)?, &how)?;
        supervised.inputs.round_grids(self.precision)?;
        Ok((supervised, chosen))
    }

    /// Measured samples under a condition. Their noise and placement are the same at every step and under every condition.
    ///
    /// # Errors
    /// What the task refuses.
    pub(crate) fn measured(
        &self,
        raw: Batch,
        samples: &[u64],
        condition: &Condition,
    ) -> Result<Supervised, CoreError> {
        self.as_measured(raw, samples, condition, "task/measured")
    }

    /// Samples as they are measured, with noise from another stream.
    fn as_measured(
        &self,
        raw: Batch,
        samples: &[u64],
        condition: &Condition,
        stream: &str,
    ) -> Result<Supervised, CoreError> {
        let stream = |sample: usize| self.measure_seed.indexed_stream(stream, samples[sample]);
        let how = Preparation {
            occasion: Occasion::Measurement(condition),
            normaliser: &|field| self.normalisers.get(field).copied(),
            stream: &stream,
        };
        let mut samples = self.task.prepare(raw, &how)?;
        samples.inputs.round_grids(self.precision)?;
        Ok(samples)
    }
}

/// Training samples that baselines are fitted to at most.
const BASELINE_EXAMPLES: usize = 256;

impl Preparer {
    /// The baseline of the task, fitted to training samples that do not depend on the run: every model is held against the same.
    ///
    /// # Errors
    /// What dataset or task refuse.
    pub(crate) fn fit_baseline(
        &self,
        source: &dyn Samples,
        condition: &Condition,
        batch_size: usize,
    ) -> Result<Arc<dyn Baseline>, CoreError> {
        let available = source.samples("train");
        let mut chosen = self.measure_seed.permutation("baseline", available);
        chosen.truncate(BASELINE_EXAMPLES);
        let mut examples = chosen.chunks(batch_size.max(1)).map(|samples| {
            let raw = source.load("train", samples)?;
            self.as_measured(raw, samples, condition, "task/baseline")
        });
        self.task.fit_baseline(&mut examples)
    }
}

/// The model's thread wakes this one by taking a batch, and should then go on itself: without this it was put off by a time slice of
/// 3.5 ms in one step of ten, on two cores. Batch threads have the same share of time and are not preferred when they wake up.
fn yield_to_the_model() {
    #[cfg(target_os = "linux")]
    {
        use thread_priority::unix::{
            NormalThreadSchedulePolicy, ThreadSchedulePolicy, set_thread_priority_and_policy,
            thread_native_id,
        };
        let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        let as_before = thread_priority::ThreadPriority::Os(Default::default());
        // Where the system does not allow it, batches are made all the same. A process that was made nice stays so.
        let _ = set_thread_priority_and_policy(thread_native_id(), as_before, batch);
    }
}

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a word")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Source;
    use equivbench_core::{Dataset, Field, FieldKind, ForceField, Rows, Values};

    /// One atom a sample; sample 3 is damaged, sample 5 makes it panic.
    struct Atoms;

    impl Dataset for Atoms {
        fn samples(&self, _: &str) -> usize {
            8
        }
        fn load(&mut self, _: &str, indices: &[u64]) -> Result<Batch, CoreError> {
            assert!(!indices.contains(&5), "sample 5 cannot be read");
            if indices.contains(&3) {
                return Err(CoreError::Dataset("sample 3 is damaged".into()));
            }
            let vectors = |name: &str| {
                let values = indices.iter().flat_map(|&i| [i as f64; 3]).collect();
                Field::real(
                    name,
                    FieldKind::Vector,
                    Rows::Point,
                    vec![indices.len(), 3],
                    values,
                )
            };
            let species = Field {
                name: "species".into(),
                kind: FieldKind::Invariant,
                rows: Rows::Point,
                shape: vec![indices.len()],
                values: Values::Index(vec![1; indices.len()]),
            };
            Ok(Batch {
                offsets: (0..=indices.len()).collect(),
                fields: vec![vectors("positions"), species, vectors("forces")],
            })
        }
        fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
            BTreeMap::from([("forces".to_owned(), (0.0, 2.0))])
        }
    }

    /// What comes from samples that are used in their order, one a step.
    fn prepared(samples: Vec<u64>, steps: Range<u64>) -> Vec<Result<Vec<f64>, String>> {
        let seed = Seed::new(1);
        let order = BatchOrder::new(samples, 1, seed);
        let preparer = Preparer {
            task: Arc::new(ForceField::default()),
            order,
            seed,
            measure_seed: seed,
            normalisers: Atoms.normalisers(),
            precision: Precision::Single,
        };
        let mut atoms = Atoms;
        let source = Source::new(&mut atoms);
        std::thread::scope(|scope| {
            let batches = preparer.ahead(scope, &source, steps);
            let target = |batch: Batch| batch.field("target").unwrap().reals().unwrap().to_vec();
            batches
                .iter()
                .map(|prepared| prepared.map(target).map_err(|e| e.to_string()))
                .collect()
        })
    }

    #[test]
    fn batches_come_in_the_order_of_steps_and_start_anywhere() {
        let all = prepared(vec![0, 1, 2, 4], 0..8);
        assert_eq!(all.len(), 8);
        assert_eq!(prepared(vec![0, 1, 2, 4], 3..8), all[3..]);
        let mut epoch: Vec<f64> = all[..4].iter().map(|b| b.as_ref().unwrap()[0]).collect();
        epoch.sort_by(f64::total_cmp);
        assert_eq!(epoch, [0.0, 0.5, 1.0, 2.0], "forces divided by their scale");
    }

    #[test]
    fn an_error_and_a_panic_are_the_last_that_comes() {
        for (sample, said) in [
            (3, "sample 3 is damaged"),
            (5, "panicked: sample 5 cannot be read"),
        ] {
            let all = prepared(vec![sample], 0..4);
            assert_eq!(all.len(), 1);
            assert!(all[0].as_ref().unwrap_err().contains(said), "{all:?}");
        }
    }

    #[test]
    fn a_listener_that_leaves_ends_the_thread() {
        let seed = Seed::new(1);
        let order = BatchOrder::new(vec![0, 1], 1, seed);
        let preparer = Preparer {
            task: Arc::new(ForceField::default()),
            order,
            seed,
            measure_seed: seed,
            normalisers: BTreeMap::new(),
            precision: Precision::Single,
        };
        let mut atoms = Atoms;
        let source = Source::new(&mut atoms);
        // The scope waits for the thread: a test that returns is one whose thread has ended.
        std::thread::scope(|scope| drop(preparer.ahead(scope, &source, 0..u64::MAX)));
    }
}
