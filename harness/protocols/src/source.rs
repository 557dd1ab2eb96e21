//! The dataset of a run, asked by the thread that makes batches and by protocols, one after the other.

use equivbench_core::{Batch, CoreError, Dataset};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Where samples come from, whoever else asks for some.
pub(crate) trait Samples: Sync {
    /// Loads samples in the order of `indices`.
    fn load(&self, split: &str, indices: &[u64]) -> Result<Batch, CoreError>;
    /// Number of samples in a split; 0 for one that is not there.
    fn samples(&self, split: &str) -> usize;
    /// The group of each sample; of a dataset that does not say, each sample its own.
    fn groups(&self, split: &str, indices: &[u64]) -> Result<Vec<u64>, CoreError>;
}

impl Samples for Source<'_> {
    fn samples(&self, split: &str) -> usize {
        self.hold().samples(split)
    }

    fn groups(&self, split: &str, indices: &[u64]) -> Result<Vec<u64>, CoreError> {
        let groups = self.hold().groups(split, indices)?;
        Ok(groups.unwrap_or_else(|| indices.to_vec()))
    }

    fn load(&self, split: &str, indices: &[u64]) -> Result<Batch, CoreError> {
        self.hold().load(split, indices)
    }
}

/// Lends a dataset to several threads; a call holds it while it loads.
pub struct Source<'a>(Mutex<&'a mut (dyn Dataset + Send)>);

impl<'a> Source<'a> {
    /// A source of this dataset's samples.
    #[must_use]
    pub fn new(dataset: &'a mut (dyn Dataset + Send)) -> Self {
        Self(Mutex::new(dataset))
    }

    /// A panic of another thread while it loaded is told by that thread; the dataset answers for itself.
    fn hold(&self) -> MutexGuard<'_, &'a mut (dyn Dataset + Send)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Suggested `(mean, scale)` of target fields by name.
    #[must_use]
    pub fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
        self.hold().normalisers()
    }
}
