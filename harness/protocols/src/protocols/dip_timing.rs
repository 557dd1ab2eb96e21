//! Protocol 2, dip timing: when percent (and relative error) fall below each threshold and stay, as intervals between evaluations.

use crate::{
    NoSettings, Protocol, Schedule, Snapshot, columns,
    protocol::{from_bytes, to_bytes},
};
use equivbench_core::{
    Column, Condition, CoreError, Crossing, CrossingKind, DipTracker, Evaluation, Sink, Split,
    THRESHOLDS, Table, TableInfo, Weights,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, LazyLock};

/// When curves dip.
static DIP: LazyLock<Table<DipRow>> = LazyLock::new(|| Table {
    name: "dip",
    about: "when a curve falls below a threshold and stays for two evaluations, in four readings; nothing is measured between evaluations, so a crossing is an interval",
    columns: [
        vec![columns::version(), columns::weights(|r: &DipRow| r.weights)],
        columns::condition(|r: &DipRow| &r.condition),
        vec![
            Column::new(
                "quantity",
                "",
                "what dips: equiv_percent, or relative_equiv_percent",
                |r: &DipRow| r.quantity,
            ),
            Column::new("threshold_percent", "%", "the threshold", |r: &DipRow| {
                r.threshold
            }),
        ],
        crossings(),
        curves(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// One reading of one threshold of one quantity of one curve.
struct DipRow {
    weights: Weights,
    condition: Condition,
    quantity: &'static str,
    threshold: f64,
    kind: CrossingKind,
    learnable: bool,
    crossing: Option<Crossing>,
    minimum: Option<Evaluation>,
    rise: Option<f64>,
    last_step: Option<u64>,
}

impl DipRow {
    fn before(&self) -> Option<Evaluation> {
        self.crossing?.before
    }

    fn at(&self) -> Option<Evaluation> {
        self.crossing.map(|c| c.at)
    }

    fn status(&self) -> &'static str {
        match self.crossing {
            Some(Crossing { before: None, .. }) => "from the start",
            Some(_) => "reached",
            None if self.kind == CrossingKind::Learnt && !self.learnable => "nothing to learn",
            None => "not reached",
        }
    }
}

/// What a reading of a crossing says.
fn crossings() -> Vec<Column<DipRow>> {
    vec![
        Column::new(
            "crossing",
            "",
            "first: two evaluations in a row below; learnt: the first such two at which the model is learnt; settled: below at every later evaluation too; confident: the upper ends of the sampling intervals below",
            |r: &DipRow| r.kind.name(),
        ),
        Column::new(
            "status",
            "",
            "reached; from the start: it held of the first evaluation already; not reached: the run was too short or it never held; nothing to learn: the baseline is the best there is (flow time 0)",
            |r: &DipRow| r.status(),
        ),
        Column::new(
            "reached",
            "",
            "whether it was reached, from the start or later",
            |r: &DipRow| r.at().is_some(),
        ),
        Column::new(
            "step_after",
            "steps",
            "last evaluation of which it did not hold; empty from the start (censored on the left)",
            |r: &DipRow| r.before().map(|e| e.step),
        ),
        Column::new(
            "step_reached",
            "steps",
            "first of the two evaluations; empty when not reached",
            |r: &DipRow| r.at().map(|e| e.step),
        ),
        Column::new(
            "epoch_after",
            "epochs",
            "epoch at step_after",
            |r: &DipRow| r.before().map(|e| e.epoch),
        ),
        Column::new(
            "epoch_reached",
            "epochs",
            "epoch at step_reached",
            |r: &DipRow| r.at().map(|e| e.epoch),
        ),
        Column::timing(
            "train_s_reached",
            "s",
            "training seconds at step_reached",
            |r: &DipRow| r.at().map(|e| e.train_s),
        ),
        Column::timing(
            "gpu_h_reached",
            "h",
            "GPU-hours at step_reached; empty on a CPU",
            |r: &DipRow| r.at().and_then(|e| e.gpu_h),
        ),
        Column::new(
            "percent_reached",
            "%",
            "the quantity at step_reached",
            |r: &DipRow| r.at().map(|e| e.percent),
        ),
        Column::new(
            "skill_reached",
            "",
            "skill at step_reached: 0 or less, and nothing was learnt that the baseline does not know",
            |r: &DipRow| r.at().and_then(|e| e.skill),
        ),
        Column::new(
            "skill_sampling_lower_reached",
            "",
            "lower end of the sampling interval of skill at step_reached",
            |r: &DipRow| r.at().and_then(|e| e.skill_lower),
        ),
        Column::new(
            "relative_equiv_percent_reached",
            "%",
            "relative equivariance error at step_reached",
            |r: &DipRow| r.at().map(|e| 100.0 * e.relative_equiv),
        ),
        Column::new(
            "largest_percent_after",
            "%",
            "largest value of the quantity at any later evaluation: spikes are not smoothed away",
            |r: &DipRow| r.crossing.map(|c| c.largest_after),
        ),
    ]
}

/// What the whole curve says.
fn curves() -> Vec<Column<DipRow>> {
    vec![
        Column::new(
            "minimum_percent",
            "%",
            "smallest value of the quantity over evaluations at which the model is learnt (where nothing can be learnt: at which its loss is at most 1.1 times that of the baseline)",
            |r: &DipRow| r.minimum.map(|e| e.percent),
        ),
        Column::new(
            "minimum_step",
            "steps",
            "step of the minimum",
            |r: &DipRow| r.minimum.map(|e| e.step),
        ),
        Column::new("minimum_skill", "", "skill at the minimum", |r: &DipRow| {
            r.minimum.and_then(|e| e.skill)
        }),
        Column::new(
            "rise_ratio",
            "",
            "last over smallest value, over the same evaluations: how much is lost after the dip",
            |r: &DipRow| r.rise.filter(|ratio| ratio.is_finite()),
        ),
        Column::new("last_step", "steps", "last evaluation", |r: &DipRow| {
            r.last_step
        }),
    ]
}

/// One curve of a run.
#[derive(Serialize, Deserialize)]
struct Curve {
    weights: Weights,
    condition: Condition,
    tracker: DipTracker,
}

/// Follows every curve of a run.
pub(super) struct DipTiming {
    schedule: Arc<Schedule>,
    /// In the order in which they were first seen; the tracked percent is `equiv_percent`.
    curves: Vec<Curve>,
}

impl Protocol for DipTiming {
    const NAME: &'static str = "dip-timing";
    const ABOUT: &'static str = "step, epoch and training time at which percent falls below 10, 5, 3, 1, 0.3, 0.1 (first, learnt, settled, confident); minimum and rise";
    const FOLLOWS_A_RUN: bool = true;
    type Settings = NoSettings;

    fn tables() -> Vec<TableInfo> {
        vec![DIP.info()]
    }

    fn start(_: NoSettings, schedule: Arc<Schedule>) -> Self {
        Self {
            schedule,
            curves: Vec::new(),
        }
    }

    fn due(&self, step: u64) -> bool {
        self.schedule.holds(step)
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let moment = *snapshot.moment();
        for split in snapshot.splits()?.iter() {
            let evaluation = Evaluation {
                step: moment.step,
                epoch: moment.epoch,
                train_s: moment.train_s,
                gpu_h: moment.gpu_h,
                percent: split.estimate.pooled.percent(),
                percent_upper: split.estimate.sampling.percent.map(|i| i.upper),
                relative_upper: split.estimate.sampling.relative_equiv.map(|i| i.upper),
                skill: split.estimate.skill,
                skill_lower: split.estimate.sampling.skill.map(|i| i.lower),
                learnt: split.is_learnt(),
                relative_equiv: split.estimate.relative_equiv,
                loss_over_baseline: over(
                    split.estimate.pooled.total(),
                    split.estimate.baseline_loss,
                ),
            };
            self.tracker(split).push(evaluation);
        }
        if moment.step < self.schedule.total {
            return Ok(());
        }
        self.curves.iter().try_for_each(|curve| write(curve, sink))
    }

    fn save(&self) -> Result<Vec<u8>, CoreError> {
        to_bytes(&self.curves)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        self.curves = from_bytes(state)?;
        Ok(())
    }
}

impl DipTiming {
    fn tracker(&mut self, split: &Split) -> &mut DipTracker {
        let known = |c: &Curve| c.weights == split.weights && c.condition == split.condition;
        let at = self.curves.iter().position(known).unwrap_or_else(|| {
            self.curves.push(Curve {
                weights: split.weights,
                condition: split.condition.clone(),
                tracker: DipTracker::new(split.learnable),
            });
            self.curves.len() - 1
        });
        &mut self.curves[at].tracker
    }
}

fn over(loss: f64, baseline: f64) -> Option<f64> {
    (baseline > 0.0).then(|| loss / baseline)
}

/// A row for each quantity, threshold and reading.
fn write(curve: &Curve, sink: &mut dyn Sink) -> Result<(), CoreError> {
    let relative = |e: &Evaluation| {
        let percent = |share: f64| 100.0 * share;
        (percent(e.relative_equiv), e.relative_upper.map(percent))
    };
    let quantities = [
        ("equiv_percent", curve.tracker.clone()),
        ("relative_equiv_percent", curve.tracker.of(relative)),
    ];
    for (quantity, tracker) in &quantities {
        for threshold in THRESHOLDS {
            for kind in CrossingKind::ALL {
                let row = DipRow {
                    weights: curve.weights,
                    condition: curve.condition.clone(),
                    quantity,
                    threshold,
                    kind,
                    learnable: tracker.is_learnable(),
                    crossing: tracker.crossing(threshold, kind),
                    minimum: tracker.minimum(),
                    rise: tracker.rise(),
                    last_step: tracker.evaluations().last().map(|e| e.step),
                };
                DIP.write(sink, &row)?;
            }
        }
    }
    Ok(())
}
