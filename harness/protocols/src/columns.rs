//! Columns that tables of splits share.

use crate::{About, MeasuredSet, Moment, PROTOCOL_VERSION, SetAbout, Snapshot};
use equivbench_core::{
    Column, Condition, Interval, Split, Weights, condition_columns, task_columns, within,
};
use std::sync::Arc;

/// A row about one split at one moment.
pub struct SplitRow {
    /// Where in training.
    pub moment: Moment,
    /// What stays the same during a run.
    pub about: Arc<About>,
    /// Of which samples.
    pub set: Arc<SetAbout>,
    /// The split.
    pub split: Arc<Split>,
}

impl SplitRow {
    /// The rows of a set of samples at the moment of a snapshot.
    pub fn of<'a>(
        snapshot: &Snapshot<'_>,
        measured: &'a MeasuredSet,
    ) -> impl Iterator<Item = Self> + use<'a> {
        let (moment, about) = (*snapshot.moment(), Arc::clone(snapshot.about()));
        measured.splits.iter().map(move |split| Self {
            moment,
            about: Arc::clone(&about),
            set: Arc::clone(&measured.about),
            split: Arc::clone(split),
        })
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

/// Where in training.
#[must_use]
pub fn step<R: 'static>(of: impl Fn(&R) -> u64 + Send + Sync + 'static) -> Column<R> {
    Column::new("step", "steps", "optimiser steps done", of)
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
        step(|r: &SplitRow| r.moment.step),
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
            "cpu_s",
            "s",
            "processor seconds spent training so far, all threads of the worker together: less at the mercy of neighbours than train_s",
            |r: &SplitRow| r.moment.cpu_s,
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
            "equiv_percent_per_sample",
            "%",
            "the same percent when each sample's loss is averaged over its components first",
            |r: &SplitRow| defined(r.split.estimate.percent_per_sample),
        ),
        Column::new(
            "equiv_percent_plug_in",
            "%",
            "equiv_percent by the plug-in estimate, (1 - 1/n) of the unbiased loss_equiv for n random rotations: what the paper reports, with n = 10",
            |r: &SplitRow| defined(r.split.estimate.percent_plug_in),
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
            "100 loss_equiv / (twirled_power + loss_equiv): share of the prediction's own power that is not equivariant; at most 100",
            |r: &SplitRow| 100.0 * r.split.estimate.relative_equiv,
        ),
        Column::new(
            "power_below_zero",
            "",
            "whether the unbiased estimate twirled_power fell below 0: next to nothing is predicted, and relative_equiv_percent says no more than that",
            |r: &SplitRow| r.split.estimate.power_twirled < 0.0,
        ),
        Column::new(
            "baseline_loss",
            "target²",
            "L_b: loss of the best predictor that knows nothing, for the same samples with the same noise (force-field: predicting nothing; flow-matching: the best multiple of the input at that flow time; voxel-denoising: in each channel the best affine function of the noisy value), coefficients from training data",
            |r: &SplitRow| r.split.estimate.baseline_loss,
        ),
        Column::new(
            "skill",
            "",
            "1 - loss_twirled / baseline_loss: 0 for the baseline, 1 for a perfect prediction; squared error only",
            |r: &SplitRow| r.split.estimate.skill,
        ),
        Column::new(
            "skill_over_zero",
            "",
            "1 - loss_twirled / target_power: skill against predicting nothing, which a multiple of the input can have too; squared error only",
            |r: &SplitRow| r.split.estimate.skill_over_zero,
        ),
        Column::new(
            "learnable",
            "",
            "whether anything can be learnt here beyond the baseline; at flow time 0 the baseline is the best there is",
            |r: &SplitRow| r.split.learnable,
        ),
        Column::new(
            "learnt",
            "",
            "whether the lower end of the interval of skill is above 0 (above 1e-9, which is rounding); empty where nothing can be learnt beyond the baseline (flow time 0) or the interval is not known",
            |r: &SplitRow| r.split.is_learnt(),
        ),
        Column::new(
            "floor_percent",
            "%",
            "percent that rounding alone can cause: ten times what nudging each input by one unit in the last place does; measured where equiv_percent is below 1e-4",
            |r: &SplitRow| r.split.floor_percent,
        ),
        Column::new(
            "at_floor",
            "",
            "whether equiv_percent is at or below that floor: then it is \"at most the floor\", not a number to take a logarithm of",
            |r: &SplitRow| r.split.floor_percent.map(|_| r.split.is_at_floor()),
        ),
    ]
}

/// What the choice of measured groups leaves open. It says nothing of training: that takes several seeds (`summary.csv`).
#[must_use]
pub fn sampling() -> Vec<Column<SplitRow>> {
    let ends = |name: [&'static str; 2], unit, of: fn(&Split) -> Option<Interval>| {
        let about = [
            "lower end of the 95% sampling interval: studentised bootstrap over groups of samples, each with its samples and their rotations; empty for fewer than five groups. It does not contain training: that takes several seeds, see summary.csv",
            "upper end of that interval",
        ];
        [
            Column::new(name[0], unit, about[0], move |r: &SplitRow| {
                of(&r.split).map(|i| i.lower)
            }),
            Column::new(name[1], unit, about[1], move |r: &SplitRow| {
                of(&r.split).map(|i| i.upper)
            }),
        ]
    };
    let percent = ends(
        [
            "equiv_percent_sampling_lower",
            "equiv_percent_sampling_upper",
        ],
        "%",
        |s| s.estimate.sampling.percent,
    );
    let loss = ends(
        ["loss_total_sampling_lower", "loss_total_sampling_upper"],
        "target²",
        |s| s.estimate.sampling.loss,
    );
    let skill = ends(["skill_sampling_lower", "skill_sampling_upper"], "", |s| {
        s.estimate.sampling.skill
    });
    let relative = ends(
        [
            "relative_equiv_percent_sampling_lower",
            "relative_equiv_percent_sampling_upper",
        ],
        "%",
        |s| {
            s.estimate.sampling.relative_equiv.map(|i| Interval {
                lower: 100.0 * i.lower,
                upper: 100.0 * i.upper,
            })
        },
    );
    let errors = [
        Column::new(
            "equiv_percent_log_se",
            "",
            "standard error of the logarithm of equiv_percent over groups, by linearisation: the sampling part of intervals over seeds",
            |r: &SplitRow| r.split.estimate.sampling.percent_log_se,
        ),
        Column::new(
            "loss_total_log_se",
            "",
            "standard error of the logarithm of loss_total over groups",
            |r: &SplitRow| r.split.estimate.sampling.loss_log_se,
        ),
    ];
    let all = percent.into_iter().chain(loss).chain(skill).chain(relative);
    all.chain(errors).collect()
}

/// Of which samples a row is.
#[must_use]
pub fn samples_measured<R: 'static>(of: fn(&R) -> &SetAbout) -> Vec<Column<R>> {
    vec![
        Column::new(
            "set",
            "",
            "measured: the frozen samples of the curves; whole: the whole split that they are drawn from (as far as measure.whole_samples allows); test: samples of the split for reporting. The last two are measured once, after the last step",
            move |r: &R| of(r).name.name(),
        ),
        Column::new("split", "", "split of the dataset", move |r: &R| {
            of(r).split.clone()
        }),
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
            "groups",
            "groups",
            "independent groups of measured samples: molecules, sequence clusters; intervals are over these, and cover less than they say where groups are few or very different (docs/intervals.md)",
            |r: &SplitRow| r.split.estimate.groups as u64,
        ),
        Column::new(
            "split_samples",
            "samples",
            "samples that the split has",
            |r: &SplitRow| r.set.available,
        ),
        Column::new(
            "measure_seed",
            "",
            "seed that drew the measured samples, their rotations and their noise",
            |r: &SplitRow| r.about.measure_seed,
        ),
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
