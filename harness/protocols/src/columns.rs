//! Columns that tables of splits share.

use crate::{About, Moment, PROTOCOL_VERSION, Snapshot};
use equivbench_core::{Column, Condition, Split, Weights, condition_columns, task_columns, within};
use std::sync::Arc;

/// A row about one split at one moment.
pub struct SplitRow {
    /// Where in training.
    pub moment: Moment,
    /// What stays the same during a run.
    pub about: Arc<About>,
    /// The split.
    pub split: Arc<Split>,
}

impl SplitRow {
    /// A row for a split of a snapshot.
    #[must_use]
    pub fn new(snapshot: &Snapshot<'_>, split: &Arc<Split>) -> Self {
        Self {
            moment: *snapshot.moment(),
            about: Arc::clone(snapshot.about()),
            split: Arc::clone(split),
        }
    }
}

/// A ratio, where its denominator is not 0 (of a loss that vanishes, say).
fn defined(ratio: f64) -> Option<f64> {
    ratio.is_finite().then_some(ratio)
}

/// Version of the protocols.
#[must_use]
pub fn version<R: 'static>() -> Column<R> {
    Column::new(
        "protocol_version",
        "",
        "version of the protocols; rows of different versions are not comparable",
        |_| PROTOCOL_VERSION,
    )
}

/// Raw or averaged weights.
#[must_use]
pub fn weights<R: 'static>(of: fn(&R) -> Weights) -> Column<R> {
    Column::new(
        "weights",
        "",
        "raw weights or their moving average (ema)",
        move |row| of(row).name(),
    )
}

/// Where in training, and with which weights.
#[must_use]
pub fn progress() -> Vec<Column<SplitRow>> {
    vec![
        version(),
        Column::new("step", "steps", "optimiser steps done", |r: &SplitRow| {
            r.moment.step
        }),
        Column::new(
            "epoch",
            "epochs",
            "passes over the training samples done, a fraction",
            |r: &SplitRow| r.moment.epoch,
        ),
        Column::timing(
            "train_s",
            "s",
            "seconds spent training so far, evaluation excluded",
            |r: &SplitRow| r.moment.train_s,
        ),
        Column::timing(
            "gpu_h",
            "h",
            "GPU-hours spent training so far; empty on a CPU",
            |r: &SplitRow| r.moment.gpu_h,
        ),
        weights(|r: &SplitRow| r.split.weights),
    ]
}

/// Under which condition: a column for each axis of any task.
#[must_use]
pub fn condition<R: 'static>(of: fn(&R) -> &Condition) -> Vec<Column<R>> {
    within(condition_columns(), of)
}

/// The split of the loss.
#[must_use]
pub fn losses() -> Vec<Column<SplitRow>> {
    vec![
        Column::new(
            "loss_total",
            "target²",
            "L: loss of the twisted predictions, pooled over all components of the measured samples (force-field: normalised forces), or averaged over the components of each sample first (flow-matching: velocities in nm)",
            |r: &SplitRow| r.split.estimate.pooled.total(),
        ),
        Column::new(
            "loss_twirled",
            "target²",
            "L_mean: loss of the twirled prediction",
            |r: &SplitRow| r.split.estimate.pooled.twirled,
        ),
        Column::new(
            "loss_equiv",
            "target²",
            "L_equiv: equivariance error; loss_total = loss_twirled + loss_equiv",
            |r: &SplitRow| r.split.estimate.pooled.equivariance,
        ),
        Column::new(
            "equiv_percent",
            "%",
            "percent of the loss from equivariance error, 100 loss_equiv / loss_total",
            |r: &SplitRow| r.split.estimate.pooled.percent(),
        ),
        Column::new(
            "equiv_percent_lower",
            "%",
            "lower end of the 95% interval of equiv_percent (studentised bootstrap over samples; empty for fewer than five)",
            |r: &SplitRow| r.split.estimate.percent_interval.map(|i| i.lower),
        ),
        Column::new(
            "equiv_percent_upper",
            "%",
            "upper end of that interval",
            |r: &SplitRow| r.split.estimate.percent_interval.map(|i| i.upper),
        ),
        Column::new(
            "equiv_percent_per_sample",
            "%",
            "the same percent when each sample's loss is averaged over its components first",
            |r: &SplitRow| defined(r.split.estimate.percent_per_sample),
        ),
        Column::new(
            "loss_ratio",
            "",
            "loss_equiv / loss_twirled",
            |r: &SplitRow| defined(r.split.estimate.pooled.loss_ratio()),
        ),
        Column::new(
            "target_power",
            "target²",
            "P_y: loss of predicting nothing",
            |r: &SplitRow| r.split.estimate.power_target,
        ),
        Column::new(
            "twirled_power",
            "target²",
            "P_mu: power of the twirled prediction",
            |r: &SplitRow| r.split.estimate.power_twirled,
        ),
        Column::new(
            "relative_equiv_percent",
            "%",
            "100 loss_equiv / (twirled_power + loss_equiv): share of the prediction's own power that is not equivariant",
            |r: &SplitRow| 100.0 * r.split.estimate.relative_equiv,
        ),
        Column::new(
            "skill",
            "",
            "1 - loss_twirled / target_power: 0 for predicting nothing, 1 for a perfect prediction; squared error only. Where inputs do not determine the target (flow-matching: noise and data are mixed) even the best model stays below 1, and a multiple of the input has some already",
            |r: &SplitRow| r.split.estimate.skill,
        ),
    ]
}

/// What only some tasks say of a split.
#[must_use]
pub fn of_tasks() -> Vec<Column<SplitRow>> {
    within(task_columns(), |row: &SplitRow| &*row.split)
}

/// The last optimiser step.
#[must_use]
pub fn last_step() -> Vec<Column<SplitRow>> {
    vec![
        Column::new(
            "train_loss",
            "recipe",
            "training loss of the last step; empty at step 0",
            |r: &SplitRow| r.moment.last_step.map(|s| s.loss),
        ),
        Column::new(
            "lr",
            "",
            "learning rate of the last step",
            |r: &SplitRow| r.moment.last_step.map(|s| s.lr),
        ),
        Column::new(
            "gradient_norm",
            "",
            "global L2 norm of the last step's gradient before clipping",
            |r: &SplitRow| r.moment.last_step.map(|s| s.gradient_norm),
        ),
    ]
}

/// How it was measured.
#[must_use]
pub fn method() -> Vec<Column<SplitRow>> {
    vec![
        Column::new(
            "measured_loss",
            "",
            "loss that is split: mse, mae or l2",
            |r: &SplitRow| r.about.loss.as_str().to_owned(),
        ),
        Column::new("samples", "samples", "measured samples", |r: &SplitRow| {
            r.split.estimate.samples as u64
        }),
        Column::new(
            "rotations",
            "rotations",
            "twisted predictions of each sample",
            |r: &SplitRow| r.about.rotations,
        ),
        Column::new("scheme", "", "how rotations are drawn", |r: &SplitRow| {
            r.about.scheme.as_str().to_owned()
        }),
        Column::new(
            "estimator",
            "",
            "unbiased, plug-in (biased by 1 - 1/n) or exact (a set used whole)",
            |r: &SplitRow| r.about.estimator.as_str().to_owned(),
        ),
        Column::new(
            "shared_deviation",
            "",
            "relative root-mean-square difference of predictions from work shared among rotated copies to blind ones, on random copies of this evaluation; empty where nothing is shared",
            |r: &SplitRow| r.split.deviation.relative(),
        ),
        Column::new(
            "shared_checked",
            "predictions",
            "predictions that were made both ways; empty where nothing is shared",
            |r: &SplitRow| Some(r.split.deviation.predictions).filter(|n| *n > 0),
        ),
    ]
}
