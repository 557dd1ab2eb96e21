//! The key columns that open every row: which run it is of.

use equivbench_core::{Column, ColumnInfo};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// The key cells of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunKeys {
    /// Run id.
    pub run: String,
    /// Model family.
    pub model: String,
    /// Named size.
    pub size: String,
    /// Data as the dataset plugin names them.
    pub dataset: String,
    /// Training samples used.
    pub train_samples: u64,
    /// Hash of everything but the seed: what the runs of an experiment that differ in nothing else have in common.
    pub settings: String,
    /// Seed.
    pub seed: u64,
}

/// Declared once, in front of every table.
static KEY_COLUMNS: LazyLock<Vec<Column<RunKeys>>> = LazyLock::new(|| {
    vec![
        Column::new(
            "run",
            "",
            "run id: a hash of everything that can change a number, the program, its plugins and the data among it",
            |k: &RunKeys| k.run.clone(),
        ),
        Column::new(
            "model",
            "",
            "model family, the name its plugin declares",
            |k: &RunKeys| k.model.clone(),
        ),
        Column::new("size", "", "named size of the model", |k: &RunKeys| {
            k.size.clone()
        }),
        Column::new(
            "dataset",
            "",
            "data with their level of theory, the name the dataset plugin declares",
            |k: &RunKeys| k.dataset.clone(),
        ),
        Column::new(
            "train_samples",
            "samples",
            "training samples used",
            |k: &RunKeys| k.train_samples,
        ),
        Column::new(
            "settings",
            "",
            "equal for runs that differ in their seed only: 8 digits of a hash of everything else that can change a number (program, plugins, data, settings)",
            |k: &RunKeys| k.settings.clone(),
        ),
        Column::new("seed", "", "seed of the run", |k: &RunKeys| k.seed),
    ]
});

/// The column that merged tables have after those of the keys.
pub const MEASUREMENT: ColumnInfo = ColumnInfo {
    name: "measurement",
    unit: "",
    about: "merged tables only: empty for rows that the run wrote while it trained, STEP-HASH for those that `equivbench measure` added",
    timing: false,
};

/// What the key columns of a run's tables say of themselves.
#[must_use]
pub fn key_columns() -> Vec<ColumnInfo> {
    KEY_COLUMNS.iter().map(|c| c.info).collect()
}

impl RunKeys {
    /// The texts of the key columns.
    pub(crate) fn texts(&self) -> Vec<String> {
        KEY_COLUMNS.iter().map(|c| c.read(self).text()).collect()
    }
}
