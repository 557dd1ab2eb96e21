//! Protocol 3, final percent loss with its interval: one row of `final.csv` for each kind of weights and condition.

use crate::{
    About, Measured, Protocol, ProtocolInfo, Totals,
    protocol::{from_bytes, to_bytes},
    train_and_measure::{
        CLEAN_SAMPLE, CONDITION, LOSS, METHOD, PROGRESS, clean_sample_cells, condition_cells,
        loss_cells, method_cells, progress_cells,
    },
};
use equivbench_core::{CoreError, Sink, Table};

/// Where a run ended.
pub(crate) static FINAL: Table = Table {
    name: "final",
    about: "where each run ended, with intervals",
    groups: &[&PROGRESS, &CONDITION, &LOSS, &CLEAN_SAMPLE, &METHOD],
};

/// Keeps the latest evaluation of each kind of weights and condition.
#[derive(Default)]
pub(crate) struct FinalPercent {
    /// Step of the latest evaluation.
    step: u64,
    latest: Vec<Measured>,
}

impl FinalPercent {
    pub(crate) const INFO: ProtocolInfo = ProtocolInfo {
        name: "final-percent",
        about: "percent loss from equivariance error at the end of training, with its interval",
        tables: &[&FINAL],
        start: || Box::<Self>::default(),
    };
}

impl Protocol for FinalPercent {
    fn on_evaluation(
        &mut self,
        _about: &About,
        measured: &Measured,
        _sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        if measured.evaluation.step != self.step {
            self.latest.clear();
            self.step = measured.evaluation.step;
        }
        self.latest.push(*measured);
        Ok(())
    }

    /// The last step is always evaluated, so a checkpoint (which lies before an evaluation) has nothing to keep.
    fn on_finish(
        &mut self,
        about: &About,
        _totals: &Totals,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        for measured in &self.latest {
            let mut cells = progress_cells(measured);
            cells.extend(condition_cells(measured.condition));
            cells.extend(loss_cells(measured));
            cells.extend(clean_sample_cells(measured));
            cells.extend(method_cells(about, measured));
            sink.row(&FINAL, cells)?;
        }
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, CoreError> {
        to_bytes(&self.step)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        self.step = from_bytes(state)?;
        Ok(())
    }
}
