//! From samples to batches: loaded, augmented and made noisy on another thread, so that the model does not wait for them.

use crate::BatchOrder;
use equivbench_core::{Batch, CoreError, Dataset, Occasion, Preparation, Seed, Supervised, Task};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread::Scope,
};

/// A training batch, or why there is none.
pub(crate) type Prepared = Result<Batch, CoreError>;

/// Batches that wait for the model at most, besides the one that is being made.
const AHEAD: usize = 2;

/// Makes batches; everything random in them is a function of seed, step and sample.
#[derive(Clone)]
pub(crate) struct Preparer {
    pub(crate) task: Arc<dyn Task>,
    pub(crate) order: BatchOrder,
    pub(crate) seed: Seed,
    pub(crate) normalisers: BTreeMap<String, (f64, f64)>,
}

impl Preparer {
    /// Starts a thread that makes the batches of some steps in order. It ends with the last, with the first error, or when nobody
    /// listens any more.
    pub(crate) fn ahead<'scope, 'env>(
        mut self,
        scope: &'scope Scope<'scope, 'env>,
        dataset: &'env mut (dyn Dataset + Send),
        steps: Range<u64>,
    ) -> Receiver<Prepared> {
        let (batches, listener) = sync_channel(AHEAD);
        scope.spawn(move || {
            for step in steps {
                let prepared = self.training(dataset, step);
                let is_last = prepared.is_err();
                if batches.send(prepared).is_err() || is_last {
                    break;
                }
            }
        });
        listener
    }

    fn training(&mut self, dataset: &mut dyn Dataset, step: u64) -> Prepared {
        let raw = dataset.load("train", &self.order.batch(step))?;
        let stream = |sample: usize| self.seed.indexed_stream(&format!("task/train/{step}"), sample as u64);
        let how = Preparation { occasion: Occasion::Training, normaliser: &|field| self.normalisers.get(field).copied(), stream: &stream };
        Ok(self.task.prepare(raw, &how)?.training_batch())
    }

    /// Measured samples at a flow time. Their noise and placement are the same at every step and every flow time.
    ///
    /// # Errors
    /// What the task refuses.
    pub(crate) fn measured(&self, raw: Batch, samples: &[u64], flow_time: Option<f64>) -> Result<Supervised, CoreError> {
        let stream = |sample: usize| self.seed.indexed_stream("task/measured", samples[sample]);
        let occasion = Occasion::Measurement { flow_time };
        self.task.prepare(raw, &Preparation { occasion, normaliser: &|field| self.normalisers.get(field).copied(), stream: &stream })
    }
}
