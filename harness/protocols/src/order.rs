//! In which order training samples come: a seeded shuffle for each epoch, the last short batch kept.

use equivbench_core::Seed;

/// The order of a run, a function of step and seed alone, so that a resumed run needs no memory of it.
#[derive(Clone, Debug)]
pub struct BatchOrder {
    samples: Vec<u64>,
    batch_size: usize,
    seed: Seed,
    /// The shuffled epoch that was used last.
    cached: Option<(u64, Vec<u64>)>,
}

impl BatchOrder {
    /// The order of these samples (indices into the training split).
    ///
    /// # Panics
    /// Without samples or with batches of none; the session refuses both before.
    #[must_use]
    pub fn new(samples: Vec<u64>, batch_size: usize, seed: Seed) -> Self {
        assert!(
            !samples.is_empty() && batch_size > 0,
            "an order needs samples and a batch size"
        );
        Self {
            samples,
            batch_size,
            seed,
            cached: None,
        }
    }

    /// Optimiser steps in one epoch.
    #[must_use]
    pub fn steps_per_epoch(&self) -> u64 {
        self.samples.len().div_ceil(self.batch_size) as u64
    }

    /// Epochs done after a number of steps.
    #[must_use]
    pub fn epoch_after(&self, steps: u64) -> f64 {
        let (whole, rest) = (
            steps / self.steps_per_epoch(),
            steps % self.steps_per_epoch(),
        );
        let seen = (rest as usize * self.batch_size).min(self.samples.len());
        whole as f64 + seen as f64 / self.samples.len() as f64
    }

    /// Samples of a step (0 for the first).
    pub fn batch(&mut self, step: u64) -> Vec<u64> {
        let (epoch, within) = (
            step / self.steps_per_epoch(),
            (step % self.steps_per_epoch()) as usize,
        );
        if self.cached.as_ref().is_none_or(|(e, _)| *e != epoch) {
            let order = self
                .seed
                .permutation(&format!("order/{epoch}"), self.samples.len());
            self.cached = Some((
                epoch,
                order.iter().map(|&i| self.samples[i as usize]).collect(),
            ));
        }
        let order = self
            .cached
            .as_ref()
            .map(|(_, order)| order.as_slice())
            .unwrap_or_default();
        let from = within * self.batch_size;
        order[from..(from + self.batch_size).min(order.len())].to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_holds_every_sample_once_and_the_next_has_another_order() {
        let mut order = BatchOrder::new((10..17).collect(), 3, Seed::new(1));
        assert_eq!(order.steps_per_epoch(), 3);
        let epoch = |order: &mut BatchOrder, e: u64| -> Vec<u64> {
            (3 * e..3 * e + 3).flat_map(|s| order.batch(s)).collect()
        };
        let (first, second) = (epoch(&mut order, 0), epoch(&mut order, 1));
        assert_ne!(first, second);
        for mut e in [first, second] {
            e.sort_unstable();
            assert_eq!(e, (10..17).collect::<Vec<_>>());
        }
        assert_eq!(order.batch(2).len(), 1);
        assert!((order.epoch_after(4) - (1.0 + 3.0 / 7.0)).abs() < 1e-15);
    }
}
