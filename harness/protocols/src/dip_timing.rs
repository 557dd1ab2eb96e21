//! Protocol 2, dip timing: when percent (and relative error) fall below each threshold and stay, as intervals between evaluations.

use crate::{
    About, Measured, PROTOCOL_VERSION, Protocol, ProtocolInfo, Totals,
    protocol::{from_bytes, to_bytes},
    train_and_measure::{CONDITION, condition_cells},
};
use equivbench_core::{
    Cell, Column, Condition, CoreError, DipTracker, Evaluation, Sink, THRESHOLDS, Table,
};
use serde::{Deserialize, Serialize};

/// A dip is learnt when the model predicts something at that moment.
const LEARNT_SKILL: f64 = 0.1;

/// When curves dip.
pub(crate) static DIP: Table = Table {
    name: "dip",
    about: "when a curve falls below a threshold and stays for two evaluations; nothing is measured between evaluations, so a crossing is an interval",
    groups: &[&CURVE_KEY, &CONDITION, &DIPS],
};

/// Whose curve.
static CURVE_KEY: [Column; 2] = [
    Column::new(
        "protocol_version",
        "",
        "version of the protocols; rows of different versions are not comparable",
    ),
    Column::new("weights", "", "raw weights or their moving average (ema)"),
];

/// Its dips.
static DIPS: [Column; 18] = [
    Column::new(
        "quantity",
        "",
        "what dips: equiv_percent, or relative_equiv_percent",
    ),
    Column::new("threshold_percent", "%", "the threshold"),
    Column::new(
        "reached",
        "",
        "whether two consecutive evaluations lie below it; false is not a number: the run was too short or never fell",
    ),
    Column::new(
        "step_after",
        "steps",
        "last evaluation that was not below; empty when the first one already was (censored on the left)",
    ),
    Column::new(
        "step_reached",
        "steps",
        "first of the two evaluations below; empty when not reached",
    ),
    Column::new("epoch_after", "epochs", "epoch at step_after"),
    Column::new("epoch_reached", "epochs", "epoch at step_reached"),
    Column::timing("train_s_reached", "s", "training seconds at step_reached"),
    Column::timing(
        "gpu_h_reached",
        "h",
        "GPU-hours at step_reached; empty on a CPU",
    ),
    Column::new("percent_reached", "%", "the quantity at step_reached"),
    Column::new(
        "skill_reached",
        "",
        "skill at step_reached: near 0, the outputs shrank and nothing was learnt",
    ),
    Column::new(
        "relative_equiv_percent_reached",
        "%",
        "relative equivariance error at step_reached",
    ),
    Column::new(
        "learnt",
        "",
        "whether skill_reached is above 0.1: a learnt dip, not a trivial one (flow-matching: scaling the input can be enough); empty when not reached",
    ),
    Column::new(
        "minimum_percent",
        "%",
        "smallest value of the quantity on the curve",
    ),
    Column::new("minimum_step", "steps", "step of the minimum"),
    Column::new("minimum_skill", "", "skill at the minimum"),
    Column::new(
        "rise_ratio",
        "",
        "last over smallest value: how much is lost after the dip",
    ),
    Column::new("last_step", "steps", "last evaluation"),
];

/// One curve of a run.
#[derive(Serialize, Deserialize)]
struct Curve {
    weights: String,
    condition: Condition,
    tracker: DipTracker,
}

/// Follows every curve of a run.
#[derive(Default)]
pub(crate) struct DipTiming {
    /// In the order in which they were first seen; the tracked percent is `equiv_percent`.
    curves: Vec<Curve>,
}

impl DipTiming {
    pub(crate) const INFO: ProtocolInfo = ProtocolInfo {
        name: "dip-timing",
        about: "step, epoch and training time at which percent falls below 10, 5, 3, 1, 0.3, 0.1 and stays; minimum and rise",
        tables: &[&DIP],
        start: || Box::<Self>::default(),
    };
}

impl Protocol for DipTiming {
    fn on_evaluation(
        &mut self,
        _about: &About,
        measured: &Measured,
        _sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let (weights, condition) = (measured.weights.name(), measured.condition);
        match self
            .curves
            .iter_mut()
            .find(|c| c.weights == weights && c.condition == condition)
        {
            Some(curve) => curve.tracker.push(measured.evaluation),
            None => {
                let mut tracker = DipTracker::default();
                tracker.push(measured.evaluation);
                self.curves.push(Curve {
                    weights: weights.into(),
                    condition,
                    tracker,
                });
            }
        }
        Ok(())
    }

    fn on_finish(
        &mut self,
        _about: &About,
        _totals: &Totals,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        for curve in &self.curves {
            for (quantity, tracker) in [
                ("equiv_percent", curve.tracker.clone()),
                ("relative_equiv_percent", relative(&curve.tracker)),
            ] {
                for threshold in THRESHOLDS {
                    sink.row(&DIP, cells(curve, quantity, threshold, &tracker))?;
                }
            }
        }
        Ok(())
    }

    fn save(&self) -> Result<Vec<u8>, CoreError> {
        to_bytes(&self.curves)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        self.curves = from_bytes(state)?;
        Ok(())
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

fn cells(curve: &Curve, quantity: &str, threshold: f64, tracker: &DipTracker) -> Vec<Cell> {
    let crossing = tracker.crossing(threshold);
    let (before, at) = (crossing.and_then(|c| c.before), crossing.map(|c| c.at));
    let minimum = tracker.minimum();
    let [flow_time, variant] = condition_cells(curve.condition);
    vec![
        PROTOCOL_VERSION.into(),
        curve.weights.as_str().into(),
        flow_time,
        variant,
        quantity.into(),
        threshold.into(),
        at.is_some().into(),
        before.map(|e| e.step).into(),
        at.map(|e| e.step).into(),
        before.map(|e| e.epoch).into(),
        at.map(|e| e.epoch).into(),
        at.map(|e| e.train_s).into(),
        at.and_then(|e| e.gpu_h).into(),
        at.map(|e| e.percent).into(),
        at.and_then(|e| e.skill).into(),
        at.map(|e| 100.0 * e.relative_equiv).into(),
        at.and_then(|e| e.skill).map(|s| s > LEARNT_SKILL).into(),
        minimum.map(|e| e.percent).into(),
        minimum.map(|e| e.step).into(),
        minimum.and_then(|e| e.skill).into(),
        tracker.rise().into(),
        tracker.evaluations().last().map(|e| e.step).into(),
    ]
}
