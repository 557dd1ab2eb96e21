//! The key columns that open every row: which run it is of.

use equivbench_core::{Cell, Column};
use serde::{Deserialize, Serialize};

/// Declared once, in front of every table.
pub const KEY_COLUMNS: &[Column] = &[
    Column::new(
        "run",
        "",
        "run id: a hash of everything that can change a number",
    ),
    Column::new("model", "", "model family, the name its plugin declares"),
    Column::new("size", "", "named size of the model"),
    Column::new(
        "dataset",
        "",
        "data with their level of theory, the name the dataset plugin declares",
    ),
    Column::new("train_samples", "samples", "training samples used"),
    Column::new("seed", "", "seed of the run"),
];

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
    /// Seed.
    pub seed: u64,
}

impl RunKeys {
    /// The cells of [`KEY_COLUMNS`].
    #[must_use]
    pub fn cells(&self) -> Vec<Cell> {
        vec![
            self.run.as_str().into(),
            self.model.as_str().into(),
            self.size.as_str().into(),
            self.dataset.as_str().into(),
            self.train_samples.into(),
            self.seed.into(),
        ]
    }
}
