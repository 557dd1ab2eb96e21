//! Protocol 3, final percent loss with its interval: one row of `final.csv` for each kind of weights.

use crate::{
    About, Measured, Protocol, ProtocolInfo,
    protocol::{from_bytes, to_bytes},
    train_and_measure::{loss_cells, method_cells, progress_cells},
};
use equivbench_core::{Column, CoreError, Sink, Table};

/// Where a run ended.
pub(crate) static FINAL: Table = Table {
    name: "final",
    about: "where each run ended, with intervals",
    columns: &[
        Column::new("protocol_version", "", "version of the protocols; rows of different versions are not comparable"),
        Column::new("step", "steps", "optimiser steps of the run"),
        Column::new("epoch", "epochs", "passes over the training samples"),
        Column::timing("train_s", "s", "seconds spent training, evaluation excluded"),
        Column::timing("gpu_h", "h", "GPU-hours spent training; empty on a CPU"),
        Column::new("weights", "", "raw weights or their moving average (ema)"),
        Column::new("loss_total", "normalised²", "L: loss of the twisted predictions"),
        Column::new("loss_twirled", "normalised²", "L_mean: loss of the twirled prediction"),
        Column::new("loss_equiv", "normalised²", "L_equiv: equivariance error"),
        Column::new("equiv_percent", "%", "percent of the loss from equivariance error"),
        Column::new("equiv_percent_lower", "%", "lower end of its 95% interval"),
        Column::new("equiv_percent_upper", "%", "upper end of its 95% interval"),
        Column::new("equiv_percent_per_sample", "%", "the same percent when each sample's loss is averaged over its components first"),
        Column::new("loss_ratio", "", "loss_equiv / loss_twirled"),
        Column::new("target_power", "normalised²", "P_y: loss of predicting nothing"),
        Column::new("twirled_power", "normalised²", "P_mu: power of the twirled prediction"),
        Column::new("relative_equiv_percent", "%", "share of the prediction's own power that is not equivariant"),
        Column::new("skill", "", "1 - loss_twirled / target_power"),
        Column::new("measured_loss", "", "loss that is split"),
        Column::new("samples", "samples", "measured samples"),
        Column::new("rotations", "rotations", "twisted predictions of each sample"),
        Column::new("scheme", "", "how rotations are drawn"),
        Column::new("estimator", "", "unbiased, plug-in or exact"),
    ],
};

/// Keeps the latest evaluation of each kind of weights.
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
    fn on_evaluation(&mut self, _about: &About, measured: &Measured, _sink: &mut dyn Sink) -> Result<(), CoreError> {
        if measured.evaluation.step != self.step {
            self.latest.clear();
            self.step = measured.evaluation.step;
        }
        self.latest.push(*measured);
        Ok(())
    }

    /// The last step is always evaluated, so a checkpoint (which lies before an evaluation) has nothing to keep.
    fn on_finish(&mut self, about: &About, _peak_memory_bytes: Option<u64>, sink: &mut dyn Sink) -> Result<(), CoreError> {
        for measured in &self.latest {
            let mut cells = progress_cells(measured);
            cells.extend(loss_cells(measured));
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
