//! Doubles that tests of whole runs share: a model that is a rule, a clock that stands still, an observer that keeps rows.
#![allow(dead_code, reason = "not every file of tests uses all of it")]

use equivbench_core::{
    Batch, Cell, Clock, CoreError, FieldKind, Model, Rows, Sink, StepFigures, Weights,
};
use equivbench_protocols::{Observer, Progress, SessionState};
use std::collections::BTreeMap;

/// What a batch is answered with.
pub(crate) type Predict = Box<dyn FnMut(&Batch, Weights) -> Vec<f64>>;

/// Predicts by a rule that training does not change.
pub(crate) struct Rule {
    pub(crate) predict: Predict,
    pub(crate) output: (FieldKind, Rows, usize),
}

/// Vectors for each point.
pub(crate) const VECTORS: (FieldKind, Rows, usize) = (FieldKind::Vector, Rows::Point, 3);

impl Rule {
    /// One for all weights.
    pub(crate) fn new(
        output: (FieldKind, Rows, usize),
        mut predict: impl FnMut(&Batch) -> Vec<f64> + 'static,
    ) -> Self {
        Self {
            predict: Box::new(move |batch, _| predict(batch)),
            output,
        }
    }
}

impl Model for Rule {
    fn output_kind(&self) -> FieldKind {
        self.output.0
    }
    fn output_rows(&self) -> Rows {
        self.output.1
    }
    fn output_width(&self, _: &Batch) -> usize {
        self.output.2
    }
    fn predict_into(
        &mut self,
        batch: &Batch,
        weights: Weights,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        *out = (self.predict)(batch, weights);
        Ok(())
    }
    fn train_step(&mut self, _: &Batch) -> Result<StepFigures, CoreError> {
        Ok(StepFigures::default())
    }
    fn vjp_into(
        &mut self,
        _: &Batch,
        _: &[f64],
        _: &str,
        _: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        Err(CoreError::Model("a rule has no parameters".into()))
    }
    fn parameters_into(&self, _: &str, _: &mut Vec<f64>) -> Result<(), CoreError> {
        Ok(())
    }
    fn set_parameters(&mut self, _: &str, _: &[f64]) -> Result<(), CoreError> {
        Ok(())
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        Ok(Vec::new())
    }
    fn load(&mut self, _: &[u8]) -> Result<(), CoreError> {
        Ok(())
    }
    fn synchronise(&mut self) -> Result<(), CoreError> {
        Ok(())
    }
}

/// Always the same moment.
pub(crate) struct Still;

impl Clock for Still {
    fn now_s(&self) -> f64 {
        0.0
    }
    fn is_wall(&self) -> bool {
        false
    }
    fn peak_memory_bytes(&self) -> Option<u64> {
        None
    }
}

/// Rows by column name.
pub(crate) type Table = Vec<BTreeMap<&'static str, Cell>>;

/// Keeps rows; asks to stop when it was asked so often.
#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) rows: Vec<(&'static str, Vec<Cell>)>,
    pub(crate) asked: u64,
    pub(crate) stop_at: Option<u64>,
}

impl Kept {
    /// The rows of a table.
    pub(crate) fn table(&self, name: &str) -> Table {
        let tables = equivbench_protocols::tables();
        let table = tables.into_iter().find(|t| t.name == name).unwrap();
        let names: Vec<&'static str> = table.columns.iter().map(|c| c.name).collect();
        let own = self.rows.iter().filter(|(table, _)| *table == name);
        own.map(|(_, cells)| names.iter().copied().zip(cells.iter().cloned()).collect())
            .collect()
    }
}

impl Sink for Kept {
    fn row(&mut self, table: &'static str, cells: Vec<Cell>) -> Result<(), CoreError> {
        self.rows.push((table, cells));
        Ok(())
    }
}

impl Observer for Kept {
    fn progress(&mut self, _: &Progress) {}
    fn should_stop(&mut self) -> bool {
        self.asked += 1;
        self.stop_at.is_some_and(|at| self.asked >= at)
    }
    fn checkpoint(&mut self, _: &SessionState, _: &dyn Model) -> Result<(), CoreError> {
        Ok(())
    }
    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}
