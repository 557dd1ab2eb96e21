//! Protocol 1, train-and-measure: one row of `curve.csv` for each evaluation.

use crate::{About, Measured, PROTOCOL_VERSION, Protocol, ProtocolInfo};
use equivbench_core::{Cell, Column, Condition, CoreError, Sink, Table};

/// Where in training: the cells of [`progress_cells`].
pub(crate) static PROGRESS: [Column; 6] = [
    Column::new(
        "protocol_version",
        "",
        "version of the protocols; rows of different versions are not comparable",
    ),
    Column::new("step", "steps", "optimiser steps done"),
    Column::new(
        "epoch",
        "epochs",
        "passes over the training samples done, a fraction",
    ),
    Column::timing(
        "train_s",
        "s",
        "seconds spent training so far, evaluation excluded",
    ),
    Column::timing(
        "gpu_h",
        "h",
        "GPU-hours spent training so far; empty on a CPU",
    ),
    Column::new("weights", "", "raw weights or their moving average (ema)"),
];

/// Under which condition: the cells of [`condition_cells`].
pub(crate) static CONDITION: [Column; 2] = [
    Column::new(
        "flow_time",
        "",
        "flow time t in [0, 1], 0 for noise and 1 for data; empty for a task without",
    ),
    Column::new(
        "variant",
        "",
        "plain: one pass; self-conditioned: a second pass that is shown what the first predicts, each rotation its own",
    ),
];

/// The split of the loss: the cells of [`loss_cells`].
pub(crate) static LOSS: [Column; 12] = [
    Column::new(
        "loss_total",
        "target²",
        "L: loss of the twisted predictions, pooled over all components of the measured samples (force-field: normalised forces), or averaged over the components of each sample first (flow-matching: velocities in nm)",
    ),
    Column::new(
        "loss_twirled",
        "target²",
        "L_mean: loss of the twirled prediction",
    ),
    Column::new(
        "loss_equiv",
        "target²",
        "L_equiv: equivariance error; loss_total = loss_twirled + loss_equiv",
    ),
    Column::new(
        "equiv_percent",
        "%",
        "percent of the loss from equivariance error, 100 loss_equiv / loss_total",
    ),
    Column::new(
        "equiv_percent_lower",
        "%",
        "lower end of the 95% interval of equiv_percent (studentised bootstrap over samples; empty for fewer than five)",
    ),
    Column::new("equiv_percent_upper", "%", "upper end of that interval"),
    Column::new(
        "equiv_percent_per_sample",
        "%",
        "the same percent when each sample's loss is averaged over its components first",
    ),
    Column::new("loss_ratio", "", "loss_equiv / loss_twirled"),
    Column::new("target_power", "target²", "P_y: loss of predicting nothing"),
    Column::new(
        "twirled_power",
        "target²",
        "P_mu: power of the twirled prediction",
    ),
    Column::new(
        "relative_equiv_percent",
        "%",
        "100 loss_equiv / (twirled_power + loss_equiv): share of the prediction's own power that is not equivariant",
    ),
    Column::new(
        "skill",
        "",
        "1 - loss_twirled / target_power: 0 for predicting nothing, 1 for a perfect prediction; squared error only. Where inputs do not determine the target (flow-matching: noise and data are mixed) even the best model stays below 1, and a multiple of the input has some already",
    ),
];

/// The same losses for the clean-sample prediction: the cells of [`clean_sample_cells`].
pub(crate) static CLEAN_SAMPLE: [Column; 3] = [
    Column::new(
        "x1_loss_total",
        "nm²",
        "L of the clean-sample prediction x_t + (1 - t) v: (1 - t)² loss_total; squared error only, empty for a task without flow time",
    ),
    Column::new(
        "x1_loss_twirled",
        "nm²",
        "L_mean of the clean-sample prediction",
    ),
    Column::new(
        "x1_loss_equiv",
        "nm²",
        "L_equiv of the clean-sample prediction; percents are the same for both",
    ),
];

/// The last optimiser step.
pub(crate) static STEP: [Column; 3] = [
    Column::new(
        "train_loss",
        "recipe",
        "training loss of the last step; empty at step 0",
    ),
    Column::new("lr", "", "learning rate of the last step"),
    Column::new(
        "gradient_norm",
        "",
        "global L2 norm of the last step's gradient before clipping",
    ),
];

/// How it was measured: the cells of [`method_cells`].
pub(crate) static METHOD: [Column; 7] = [
    Column::new("measured_loss", "", "loss that is split: mse, mae or l2"),
    Column::new("samples", "samples", "measured samples"),
    Column::new(
        "rotations",
        "rotations",
        "twisted predictions of each sample",
    ),
    Column::new("scheme", "", "how rotations are drawn"),
    Column::new(
        "estimator",
        "",
        "unbiased, plug-in (biased by 1 - 1/n) or exact (a set used whole)",
    ),
    Column::new(
        "shared_deviation",
        "",
        "relative root-mean-square difference of predictions from work shared among rotated copies to blind ones, on random copies of this evaluation; empty where nothing is shared",
    ),
    Column::new(
        "shared_checked",
        "predictions",
        "predictions that were made both ways; empty where nothing is shared",
    ),
];

/// The curve of a run.
pub(crate) static CURVE: Table = Table {
    name: "curve",
    about: "loss and its split into twirled and equivariance part along training, one row for each evaluation, kind of weights and condition",
    groups: &[&PROGRESS, &CONDITION, &LOSS, &CLEAN_SAMPLE, &STEP, &METHOD],
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
    fn on_evaluation(
        &mut self,
        about: &About,
        measured: &Measured,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let mut cells = progress_cells(measured);
        cells.extend(condition_cells(measured.condition));
        cells.extend(loss_cells(measured));
        cells.extend(clean_sample_cells(measured));
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
    vec![
        PROTOCOL_VERSION.into(),
        at.step.into(),
        at.epoch.into(),
        at.train_s.into(),
        at.gpu_h.into(),
        measured.weights.name().into(),
    ]
}

/// `flow_time, variant`.
pub(crate) fn condition_cells(condition: Condition) -> [Cell; 2] {
    [condition.flow_time.into(), condition.variant.name().into()]
}

/// `x1_loss_total, x1_loss_twirled, x1_loss_equiv`.
pub(crate) fn clean_sample_cells(measured: &Measured) -> [Cell; 3] {
    let loss = &measured.estimate.pooled;
    [loss.total(), loss.twirled, loss.equivariance]
        .map(|l| measured.clean_sample_factor.map(|f| f * l).into())
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

/// `measured_loss, samples, rotations, scheme, estimator, shared_deviation, shared_checked`.
pub(crate) fn method_cells(about: &About, measured: &Measured) -> Vec<Cell> {
    vec![
        about.loss.as_str().into(),
        (measured.estimate.samples as u64).into(),
        about.rotations.into(),
        about.scheme.as_str().into(),
        about.estimator.as_str().into(),
        measured.deviation.relative().into(),
        Some(measured.deviation.predictions)
            .filter(|n| *n > 0)
            .into(),
    ]
}
