//! What rows of different seeds have in common, so that they can be put together.

use equivbench_core::{Axis, Cell, Column, all_axes};
use equivbench_report::{MEASUREMENT, MergedTable, Row};

/// An architecture with its data and settings: everything but the seed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Architecture {
    pub(crate) model: String,
    pub(crate) size: String,
    pub(crate) dataset: String,
    pub(crate) train_samples: u64,
    pub(crate) settings: String,
}

impl Architecture {
    pub(crate) fn of(row: Row<'_>) -> Self {
        let samples = row.find("train_samples").and_then(|n| n.parse().ok());
        Self {
            model: text(row, "model"),
            size: text(row, "size"),
            dataset: text(row, "dataset"),
            train_samples: samples.unwrap_or_default(),
            settings: text(row, "settings"),
        }
    }

    /// As a person calls it.
    pub(crate) fn name(&self) -> String {
        format!("{} {}", self.model, self.size)
    }
}

/// An architecture seen in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) architecture: Architecture,
    pub(crate) weights: String,
    pub(crate) set: String,
    pub(crate) split: String,
    /// The texts of all axes, in their order.
    pub(crate) condition: Vec<String>,
}

impl Place {
    /// The place of a row. Tables of curves alone have no set: they are of the measured samples.
    pub(crate) fn of(row: Row<'_>) -> Self {
        Self {
            architecture: Architecture::of(row),
            weights: text(row, "weights"),
            set: row.find("set").unwrap_or("measured").to_owned(),
            split: text(row, "split"),
            condition: all_axes().iter().map(|axis| text(row, axis.name)).collect(),
        }
    }

    /// The rows of the runs themselves at each place.
    pub(crate) fn rows(table: &MergedTable) -> Vec<(Self, Vec<Row<'_>>)> {
        let rows = table.rows().filter(is_of_run);
        gather(rows.map(|row| (Self::of(row), row)))
    }

    /// The text of an axis.
    pub(crate) fn axis(&self, axis: &Axis) -> &str {
        let at = all_axes().iter().position(|known| known.name == axis.name);
        at.map_or("", |at| &self.condition[at])
    }

    /// The same samples and the same question, whoever answers: what references are held against.
    pub(crate) fn question(&self) -> (String, String, String, Vec<String>) {
        (
            self.architecture.dataset.clone(),
            self.set.clone(),
            self.split.clone(),
            self.condition.clone(),
        )
    }
}

fn text(row: Row<'_>, column: &str) -> String {
    row.find(column).unwrap_or_default().to_owned()
}

/// A column for each axis of any task.
pub(crate) fn axis_columns<R: 'static>(place: fn(&R) -> &Place) -> Vec<Column<R>> {
    let column = |axis: &'static Axis| {
        Column::new(axis.name, axis.unit, axis.about, move |row: &R| {
            Cell::parse(place(row).axis(axis))
        })
    };
    all_axes().into_iter().map(column).collect()
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
