//! What rows of different seeds have in common, so that they can be put together.

use equivbench_core::{Axis, all_axes};
use equivbench_report::{MEASUREMENT, Row};

/// An architecture with its data and settings, seen in one way: everything but the seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) model: String,
    pub(crate) size: String,
    pub(crate) dataset: String,
    pub(crate) train_samples: u64,
    pub(crate) settings: String,
    pub(crate) weights: String,
    pub(crate) set: String,
    pub(crate) split: String,
    /// The texts of all axes, in their order.
    pub(crate) condition: Vec<String>,
}

impl Place {
    /// The place of a row. Tables of curves alone have no set: they are of the measured samples.
    pub(crate) fn of(row: Row<'_>) -> Self {
        let text = |column: &str| row.find(column).unwrap_or_default().to_owned();
        let set = row.find("set").unwrap_or("measured").to_owned();
        Self {
            model: text("model"),
            size: text("size"),
            dataset: text("dataset"),
            train_samples: row
                .find("train_samples")
                .and_then(|n| n.parse().ok())
                .unwrap_or_default(),
            settings: text("settings"),
            weights: text("weights"),
            set,
            split: text("split"),
            condition: all_axes().iter().map(|axis| text(axis.name)).collect(),
        }
    }

    /// The text of an axis.
    pub(crate) fn axis(&self, axis: &Axis) -> &str {
        let at = all_axes().iter().position(|known| known.name == axis.name);
        at.map_or("", |at| &self.condition[at])
    }

    /// The same samples and the same question, whoever answers: what references and comparisons are held against.
    pub(crate) fn question(&self) -> (String, String, String, Vec<String>) {
        let Self {
            dataset,
            set,
            split,
            condition,
            ..
        } = self.clone();
        (dataset, set, split, condition)
    }
}

/// Whether a row is of the run itself, not of a measurement of one of its checkpoints.
pub(crate) fn is_of_run(row: &Row<'_>) -> bool {
    row.find(MEASUREMENT.name).unwrap_or_default().is_empty()
}

/// Puts things together that share a key, in the order of their first appearance.
pub(crate) fn gather<K: PartialEq, V>(items: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut all: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in items {
        match all.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => all.push((key, vec![value])),
        }
    }
    all
}
