//! Protocol 1, train-and-measure: one row of `curve.csv` for each evaluation.

use crate::{About, Measured, PROTOCOL_VERSION, Protocol, ProtocolInfo};
use equivbench_core::{Cell, Column, CoreError, Sink, Table};

/// Where in training: the cells of [`progress_cells`].
pub(crate) static PROGRESS: [Column; 6] = [
    Column::new("protocol_version", "", "version of the protocols; rows of different versions are not comparable"),
    Column::new("step", "steps", "optimiser steps done"),
    Column::new("epoch", "epochs", "passes over the training samples done, a fraction"),
    Column::timing("train_s", "s", "seconds spent training so far, evaluation excluded"),
    Column::timing("gpu_h", "h", "GPU-hours spent training so far; empty on a CPU"),
    Column::new("weights", "", "raw weights or their moving average (ema)"),
];

/// The split of the loss: the cells of [`loss_cells`].
pub(crate) static LOSS: [Column; 12] = [
    Column::new("loss_total", "normalised²", "L: loss of the twisted predictions, pooled over all components of the measured samples"),
    Column::new("loss_twirled", "normalised²", "L_mean: loss of the twirled prediction"),
    Column::new("loss_equiv", "normalised²", "L_equiv: equivariance error; loss_total = loss_twirled + loss_equiv"),
    Column::new("equiv_percent", "%", "percent of the loss from equivariance error, 100 loss_equiv / loss_total"),
    Column::new("equiv_percent_lower", "%", "lower end of the 95% interval of equiv_percent (studentised bootstrap over samples)"),
    Column::new("equiv_percent_upper", "%", "upper end of that interval"),
    Column::new("equiv_percent_per_sample", "%", "the same percent when each sample's loss is averaged over its components first"),
    Column::new("loss_ratio", "", "loss_equiv / loss_twirled"),
    Column::new("target_power", "normalised²", "P_y: loss of predicting nothing"),
    Column::new("twirled_power", "normalised²", "P_mu: power of the twirled prediction"),
    Column::new(
        "relative_equiv_percent",
        "%",
        "100 loss_equiv / (twirled_power + loss_equiv): share of the prediction's own power that is not equivariant",
    ),
    Column::new("skill", "", "1 - loss_twirled / target_power: 0 for predicting nothing, 1 for a perfect model; squared error only"),
];

/// The last optimiser step.
pub(crate) static STEP: [Column; 3] = [
    Column::new("train_loss", "recipe", "training loss of the last step; empty at step 0"),
    Column::new("lr", "", "learning rate of the last step"),
    Column::new("gradient_norm", "", "global L2 norm of the last step's gradient before clipping"),
];

/// How it was measured: the cells of [`method_cells`].
pub(crate) static METHOD: [Column; 5] = [
    Column::new("measured_loss", "", "loss that is split: mse, mae or l2"),
    Column::new("samples", "samples", "measured samples"),
    Column::new("rotations", "rotations", "twisted predictions of each sample"),
    Column::new("scheme", "", "how rotations are drawn"),
    Column::new("estimator", "", "unbiased, plug-in (biased by 1 - 1/n) or exact (a set used whole)"),
];

/// The curve of a run.
pub(crate) static CURVE: Table = Table {
    name: "curve",
    about: "loss and its split into twirled and equivariance part along training, one row for each evaluation and kind of weights",
    groups: &[&PROGRESS, &LOSS, &STEP, &METHOD],
};

/// Writes the curve.
pub(crate) struct TrainAndMeasure;

impl TrainAndMeasure {
    pub(crate) const INFO: ProtocolInfo = ProtocolInfo {
        name: "train-and-measure",
        about: "train by the recipe and split the loss on a fixed validation subset on a log-spaced schedule",
        tables: &[&CURVE],
        start: || Box::new(Self),
    };
}

impl Protocol for TrainAndMeasure {
    fn on_evaluation(&mut self, about: &About, measured: &Measured, sink: &mut dyn Sink) -> Result<(), CoreError> {
        let mut cells = progress_cells(measured);
        cells.extend(loss_cells(measured));
        cells.extend([
            measured.last_step.map(|s| s.loss).into(),
            measured.last_step.map(|s| s.lr).into(),
            measured.last_step.map(|s| s.gradient_norm).into(),
        ]);
        cells.extend(method_cells(about, measured));
        sink.row(&CURVE, cells)
    }
}

/// `protocol_version, step, epoch, train_s, gpu_h, weights`.
pub(crate) fn progress_cells(measured: &Measured) -> Vec<Cell> {
    let at = &measured.evaluation;
    vec![PROTOCOL_VERSION.into(), at.step.into(), at.epoch.into(), at.train_s.into(), at.gpu_h.into(), measured.weights.name().into()]
}

/// The losses, percents, powers and skill.
pub(crate) fn loss_cells(measured: &Measured) -> Vec<Cell> {
    let estimate = &measured.estimate;
    let loss = &estimate.pooled;
    vec![
        loss.total().into(),
        loss.twirled.into(),
        loss.equivariance.into(),
        loss.percent().into(),
        estimate.percent_interval.map(|i| i.lower).into(),
        estimate.percent_interval.map(|i| i.upper).into(),
        estimate.percent_per_sample.into(),
        loss.loss_ratio().into(),
        estimate.power_target.into(),
        estimate.power_twirled.into(),
        (100.0 * estimate.relative_equiv).into(),
        estimate.skill.into(),
    ]
}

/// `measured_loss, samples, rotations, scheme, estimator`.
pub(crate) fn method_cells(about: &About, measured: &Measured) -> Vec<Cell> {
    vec![
        about.loss.as_str().into(),
        (measured.estimate.samples as u64).into(),
        about.rotations.into(),
        about.scheme.as_str().into(),
        about.estimator.as_str().into(),
    ]
}
