//! Protocol 2, dip timing: when percent (and relative error) fall below each threshold and stay, as intervals between evaluations.

use crate::{
    NoSettings, Protocol, Schedule, Snapshot, columns,
    protocol::{from_bytes, to_bytes},
};
use equivbench_core::{
    Column, Condition, CoreError, Crossing, DipTracker, Evaluation, Sink, THRESHOLDS, Table,
    TableInfo, Weights,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, LazyLock};

/// A dip is learnt when the model predicts something at that moment.
const LEARNT_SKILL: f64 = 0.1;

/// When curves dip.
static DIP: LazyLock<Table<DipRow>> = LazyLock::new(|| Table {
    name: "dip",
    about: "when a curve falls below a threshold and stays for two evaluations; nothing is measured between evaluations, so a crossing is an interval",
    columns: [
        vec![columns::version(), columns::weights(|r: &DipRow| r.weights)],
        columns::condition(|r: &DipRow| &r.condition),
        dips(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// One threshold of one quantity of one curve.
struct DipRow {
    weights: Weights,
    condition: Condition,
    quantity: &'static str,
    threshold: f64,
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
}

fn dips() -> Vec<Column<DipRow>> {
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
        Column::new(
            "reached",
            "",
            "whether two consecutive evaluations lie below it; false is not a number: the run was too short or never fell",
            |r: &DipRow| r.at().is_some(),
        ),
        Column::new(
            "step_after",
            "steps",
            "last evaluation that was not below; empty when the first one already was (censored on the left)",
            |r: &DipRow| r.before().map(|e| e.step),
        ),
        Column::new(
            "step_reached",
            "steps",
            "first of the two evaluations below; empty when not reached",
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
            "skill at step_reached: near 0, the outputs shrank and nothing was learnt",
            |r: &DipRow| r.at().and_then(|e| e.skill),
        ),
        Column::new(
            "relative_equiv_percent_reached",
            "%",
            "relative equivariance error at step_reached",
            |r: &DipRow| r.at().map(|e| 100.0 * e.relative_equiv),
        ),
        Column::new(
            "learnt",
            "",
            "whether skill_reached is above 0.1: a learnt dip, not a trivial one (flow-matching: scaling the input can be enough); empty when not reached",
            |r: &DipRow| r.at().and_then(|e| e.skill).map(|s| s > LEARNT_SKILL),
        ),
        Column::new(
            "minimum_percent",
            "%",
            "smallest value of the quantity on the curve",
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
            "last over smallest value: how much is lost after the dip",
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
    const ABOUT: &'static str = "step, epoch and training time at which percent falls below 10, 5, 3, 1, 0.3, 0.1 and stays; minimum and rise";
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
                skill: split.estimate.skill,
                relative_equiv: split.estimate.relative_equiv,
            };
            self.tracker(split.weights, &split.condition)
                .push(evaluation);
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
    fn tracker(&mut self, weights: Weights, condition: &Condition) -> &mut DipTracker {
        let known = |c: &Curve| c.weights == weights && c.condition == *condition;
        let at = self.curves.iter().position(known).unwrap_or_else(|| {
            self.curves.push(Curve {
                weights,
                condition: condition.clone(),
                tracker: DipTracker::default(),
            });
            self.curves.len() - 1
        });
        &mut self.curves[at].tracker
    }
}

/// The same curve with the relative error in place of percent.
fn relative(curve: &DipTracker) -> DipTracker {
    let mut other = DipTracker::default();
    for e in curve.evaluations() {
        other.push(Evaluation {
            percent: 100.0 * e.relative_equiv,
            ..*e
        });
    }
    other
}

fn write(curve: &Curve, sink: &mut dyn Sink) -> Result<(), CoreError> {
    let quantities = [
        ("equiv_percent", curve.tracker.clone()),
        ("relative_equiv_percent", relative(&curve.tracker)),
    ];
    for (quantity, tracker) in &quantities {
        for threshold in THRESHOLDS {
            let row = DipRow {
                weights: curve.weights,
                condition: curve.condition.clone(),
                quantity,
                threshold,
                crossing: tracker.crossing(threshold),
                minimum: tracker.minimum(),
                rise: tracker.rise(),
                last_step: tracker.evaluations().last().map(|e| e.step),
            };
            DIP.write(sink, &row)?;
        }
    }
    Ok(())
}
