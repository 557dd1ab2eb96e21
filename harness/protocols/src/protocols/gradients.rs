//! Protocol 6, gradient purity: the gradients of `L`, `L_mean` and `L_equiv` along training, how they go together with the percent, and
//! whether the paper's Propositions 2 and 3 say anything here.

use crate::{Ending, Moment, Protocol, Schedule, Snapshot, columns, from_bytes, to_bytes};
use equivbench_core::{
    Basin, Column, Condition, CoreError, Correlation, Descent, LossDecomposition, LossPart,
    PartGradients, Purity, Sink, Table, TableInfo, Weights, basin, correlation, norm,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, LazyLock};

/// Level of the intervals.
const LEVEL: f64 = 0.95;

static GRADIENTS: LazyLock<Table<GradientRow>> = LazyLock::new(|| {
    Table {
    name: "gradients",
    about: "gradients of the parts of the loss of the measured samples along training, first passes with the raw weights: how pure the gradient of the loss is, and Proposition 2",
    columns: [
        vec![
            columns::version(),
            columns::step(|r: &GradientRow| r.moment.step),
            Column::new(
                "group",
                "",
                "parameters that the gradients are of; all of them, or a group that the model names",
                |r: &GradientRow| r.group.clone(),
            ),
        ],
        columns::condition(|r: &GradientRow| &r.condition),
        norms(),
        proposition2(),
    ]
    .into_iter()
    .flatten()
    .collect(),
}
});

static PURITY: LazyLock<Table<EndRow>> = LazyLock::new(|| Table {
    name: "purity",
    about: "whether gradient purity follows the percent over training, and Proposition 3 over the last half of the evaluations",
    columns: [
        vec![
            columns::version(),
            Column::new(
                "group",
                "",
                "parameters that the gradients are of",
                |r: &EndRow| r.key.group.clone(),
            ),
        ],
        columns::condition(|r: &EndRow| &r.key.condition),
        correlations(),
        proposition3(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

/// One evaluation of one group under one condition.
struct GradientRow {
    moment: Moment,
    group: String,
    condition: Condition,
    losses: LossDecomposition,
    purity: Purity,
    smoothness_path: Option<f64>,
}

impl GradientRow {
    fn bound(&self, smoothness: Option<f64>) -> Option<f64> {
        self.purity.proposition2(self.losses.twirled, smoothness?)
    }
}

/// What is known after the last step.
struct EndRow {
    key: Key,
    correlation: Option<Correlation>,
    basin: Option<Basin>,
    /// Of the last evaluation.
    ratio: Option<f64>,
    /// `L_mean` at the last evaluation over that at the first.
    remaining: Option<f64>,
}

fn norms() -> Vec<Column<GradientRow>> {
    vec![
        Column::new(
            "norm_total",
            "target²/parameter",
            "Euclidean norm of the gradient of L",
            |r: &GradientRow| r.purity.norm_total,
        ),
        Column::new(
            "norm_twirled",
            "target²/parameter",
            "of the gradient of L_mean",
            |r: &GradientRow| r.purity.norm_twirled,
        ),
        Column::new(
            "norm_equiv",
            "target²/parameter",
            "of the gradient of L_equiv; where the estimate is unbiased, it is of the unbiased loss (a plug-in gradient of L_mean would hold 1/n of it)",
            |r: &GradientRow| r.purity.norm_equiv,
        ),
        Column::new(
            "cosine",
            "",
            "cosine of the angle between the gradients of L_mean and L_equiv: below 0 the two are at odds",
            |r: &GradientRow| r.purity.cosine,
        ),
        Column::new(
            "cosine_total",
            "",
            "cosine of the angle between the gradients of L and L_mean: 1 where training goes the way of an equivariant model",
            |r: &GradientRow| r.purity.cosine_total,
        ),
        Column::new(
            "gradient_ratio",
            "",
            "norm_equiv / norm_twirled",
            |r: &GradientRow| r.purity.ratio,
        ),
        Column::new(
            "loss_ratio",
            "",
            "epsilon: loss_equiv / loss_twirled; empty where either is not positive",
            |r: &GradientRow| r.purity.epsilon,
        ),
    ]
}

fn proposition2() -> Vec<Column<GradientRow>> {
    vec![
        Column::new(
            "proposition2_left",
            "",
            "|grad L - grad L_mean| / |grad L_mean|: the relative error of the gradient",
            |r: &GradientRow| r.purity.relative_error,
        ),
        Column::new(
            "smoothness_here",
            "1/parameter²",
            "|grad epsilon|² / (2 epsilon): the least constant with which Proposition 2 can hold at this point",
            |r: &GradientRow| r.purity.smoothness_here,
        ),
        Column::new(
            "smoothness_path",
            "1/parameter²",
            "largest |change of grad epsilon| / |change of parameters| between evaluations so far: a lower estimate of the smoothness of epsilon; empty before the second evaluation, and where parameters are too many to be kept (protocols.gradients.path_max)",
            |r: &GradientRow| r.smoothness_path,
        ),
        Column::new(
            "proposition2_right_here",
            "",
            "right side of Proposition 2 with smoothness_here: never below the left side",
            |r: &GradientRow| r.bound(r.purity.smoothness_here),
        ),
        Column::new(
            "proposition2_right",
            "",
            "right side of Proposition 2 with smoothness_path",
            |r: &GradientRow| r.bound(r.smoothness_path),
        ),
        Column::new(
            "proposition2",
            "",
            "holds, vacuous (holds, but allows an error as large as the gradient itself) or exceeded (the smoothness along the path was too small an estimate); empty without smoothness_path",
            |r: &GradientRow| verdict(r.purity.relative_error, r.bound(r.smoothness_path)),
        ),
    ]
}

fn correlations() -> Vec<Column<EndRow>> {
    let interval = |r: &EndRow| r.correlation.and_then(|c| c.interval);
    vec![
        Column::new(
            "evaluations",
            "",
            "evaluations with a positive ratio and a positive percent",
            |r: &EndRow| r.correlation.map(|c| c.points as u64),
        ),
        Column::new(
            "pearson_r",
            "",
            "Pearson's R of log gradient_ratio against log percent over these evaluations (raw weights)",
            |r: &EndRow| r.correlation.map(|c| c.r),
        ),
        Column::new(
            "pearson_lower",
            "",
            "lower end of Fisher's 95% interval; evaluations of one training are not independent, so it is too short: compare seeds",
            move |r: &EndRow| interval(r).map(|i| i.lower),
        ),
        Column::new(
            "pearson_upper",
            "",
            "upper end of that interval",
            move |r: &EndRow| interval(r).map(|i| i.upper),
        ),
    ]
}

fn proposition3() -> Vec<Column<EndRow>> {
    vec![
        Column::new(
            "kl_c",
            "",
            "c of the inequality of Kurdyka and Lojasiewicz, |grad L_mean|² >= c L_mean^alpha: lower envelope of the last half of the evaluations",
            |r: &EndRow| r.basin.map(|b| b.c),
        ),
        Column::new(
            "kl_alpha",
            "",
            "its alpha, between 1 and 2",
            |r: &EndRow| r.basin.map(|b| b.alpha),
        ),
        Column::new(
            "smoothness_equiv",
            "target²/parameter²",
            "largest |grad L_equiv|² / (2 L_equiv) of these evaluations",
            |r: &EndRow| r.basin.map(|b| b.smoothness),
        ),
        Column::new(
            "proposition3_left",
            "",
            "gradient_ratio at the last evaluation",
            |r: &EndRow| r.ratio,
        ),
        Column::new(
            "proposition3_right",
            "",
            "sqrt(2 smoothness_equiv / kl_c) sqrt(loss_equiv / loss_twirled^kl_alpha) at the last evaluation",
            |r: &EndRow| r.basin.map(|b| b.right),
        ),
        Column::new(
            "loss_remaining",
            "",
            "loss_twirled at the last evaluation over that at the first; Proposition 3 supposes a minimum with loss_twirled = 0",
            |r: &EndRow| r.remaining,
        ),
        Column::new(
            "proposition3",
            "",
            "holds, vacuous or exceeded, as for Proposition 2; premise fails where more than a hundredth of loss_twirled remains",
            |r: &EndRow| match r.remaining {
                Some(remaining) if remaining > 0.01 => Some("premise fails"),
                _ => verdict(r.ratio, r.basin.map(|b| b.right)),
            },
        ),
    ]
}

/// Whether a bound holds, and whether it says anything.
fn verdict(left: Option<f64>, right: Option<f64>) -> Option<&'static str> {
    let (left, right) = left.zip(right)?;
    Some(match right {
        _ if left > right * (1.0 + 1e-9) => "exceeded",
        right if right >= 1.0 => "vacuous",
        _ => "holds",
    })
}

/// `[protocols.gradients]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GradientSettings {
    /// Parameter groups.
    pub groups: Vec<String>,
    /// Every so-manieth evaluation is asked, and the last.
    pub every: u64,
    /// Numbers that may be kept from one evaluation to the next to estimate smoothness, for each group and condition.
    pub path_max: u64,
}

impl Default for GradientSettings {
    fn default() -> Self {
        Self {
            groups: vec!["all".into()],
            every: 1,
            path_max: 1_000_000,
        }
    }
}

/// A group of parameters under a condition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    group: String,
    condition: Condition,
}

/// What is remembered of a key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Path {
    key: Key,
    descents: Vec<Descent>,
    /// Parameters and slope of epsilon at the last evaluation.
    last: Option<(Vec<f64>, Vec<f64>)>,
    smoothness: Option<f64>,
}

impl Path {
    fn new(key: Key) -> Self {
        Self {
            key,
            descents: Vec::new(),
            last: None,
            smoothness: None,
        }
    }

    /// Takes in the slope of epsilon at other parameters.
    fn moved(&mut self, parameters: Vec<f64>, slope: Vec<f64>) {
        if let Some((before, slope_before)) = &self.last {
            let distance = distance(&parameters, before);
            let bend = distance_over(&slope, slope_before, distance);
            self.smoothness = match (self.smoothness, bend) {
                (Some(known), Some(bend)) => Some(known.max(bend)),
                (known, bend) => known.or(bend),
            };
        }
        self.last = Some((parameters, slope));
    }

    fn end(&self) -> EndRow {
        let positive = |d: &&Descent| {
            d.norm_equiv > 0.0 && d.norm_twirled > 0.0 && d.loss_equiv > 0.0 && d.loss_twirled > 0.0
        };
        let logs = |d: &Descent| {
            let percent = 100.0 * d.loss_equiv / (d.loss_equiv + d.loss_twirled);
            (percent.ln(), (d.norm_equiv / d.norm_twirled).ln())
        };
        let pairs: Vec<(f64, f64)> = self.descents.iter().filter(positive).map(logs).collect();
        let (first, last) = (self.descents.first(), self.descents.last());
        let remaining = first
            .zip(last)
            .map(|(a, b)| b.loss_twirled / a.loss_twirled);
        EndRow {
            key: self.key.clone(),
            correlation: correlation(&pairs, LEVEL),
            basin: basin(&self.descents[self.descents.len() / 2..]),
            ratio: last
                .map(|d| d.norm_equiv / d.norm_twirled)
                .filter(|r| r.is_finite()),
            remaining: remaining.filter(|r| r.is_finite()),
        }
    }
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    let difference: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    norm(&difference)
}

fn distance_over(a: &[f64], b: &[f64], length: f64) -> Option<f64> {
    Some(distance(a, b) / length).filter(|bend| bend.is_finite())
}

/// Asks for gradients at every evaluation.
pub(super) struct Gradients {
    settings: GradientSettings,
    schedule: Arc<Schedule>,
    paths: Vec<Path>,
}

impl Gradients {
    fn ask(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        key: Key,
        losses: LossDecomposition,
    ) -> Result<GradientRow, CoreError> {
        let parts = [LossPart::Total, LossPart::Equivariance];
        let mut found = snapshot.gradients(&parts, &key.group, &key.condition)?;
        let equivariance = found.pop().unwrap_or_default();
        let total = found.pop().unwrap_or_default();
        let twirled: Vec<f64> = total
            .iter()
            .zip(&equivariance)
            .map(|(t, e)| t - e)
            .collect();
        let gradients = PartGradients {
            loss_twirled: losses.twirled,
            loss_equiv: losses.equivariance,
            total: &total,
            twirled: &twirled,
            equivariance: &equivariance,
        };
        let purity = gradients.purity();
        let at = self.paths.iter().position(|p| p.key == key);
        let at = at.unwrap_or_else(|| {
            self.paths.push(Path::new(key.clone()));
            self.paths.len() - 1
        });
        let path = &mut self.paths[at];
        path.descents.push(Descent {
            loss_twirled: losses.twirled,
            loss_equiv: losses.equivariance,
            norm_twirled: purity.norm_twirled,
            norm_equiv: purity.norm_equiv,
        });
        let slope = gradients.slope_of_epsilon();
        if let Some(slope) = slope.filter(|s| s.len() as u64 <= self.settings.path_max) {
            path.moved(snapshot.parameters(&key.group)?, slope);
        }
        Ok(GradientRow {
            moment: *snapshot.moment(),
            group: key.group,
            condition: key.condition,
            losses,
            purity,
            smoothness_path: path.smoothness,
        })
    }

    fn write_end(&self, sink: &mut dyn Sink) -> Result<(), CoreError> {
        let mut paths = self.paths.iter();
        paths.try_for_each(|path| PURITY.write(sink, &path.end()))
    }
}

impl Protocol for Gradients {
    const NAME: &'static str = "gradients";
    const ABOUT: &'static str = "gradients of the parts of the loss along training: norms, angles, and how they go together with the percent";
    type Settings = GradientSettings;

    fn tables() -> Vec<TableInfo> {
        vec![GRADIENTS.info(), PURITY.info()]
    }

    fn start(settings: GradientSettings, schedule: Arc<Schedule>) -> Self {
        Self {
            settings,
            schedule,
            paths: Vec::new(),
        }
    }

    fn due(&self, step: u64) -> bool {
        let place = self.schedule.steps.binary_search(&step);
        let is_turn = |at: usize| (at as u64).is_multiple_of(self.settings.every.max(1));
        place.is_ok_and(|at| is_turn(at) || step == self.schedule.total)
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let splits = snapshot.splits()?;
        for split in splits.iter().filter(|s| s.weights == Weights::Raw) {
            // What is fed back to a model is not differentiated.
            if snapshot.task().pass(&split.condition) > 0 {
                continue;
            }
            for group in self.settings.groups.clone() {
                let key = Key {
                    group,
                    condition: split.condition.clone(),
                };
                let row = self.ask(snapshot, key, split.estimate.pooled)?;
                GRADIENTS.write(sink, &row)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, _: &Ending, sink: &mut dyn Sink) -> Result<(), CoreError> {
        self.write_end(sink)
    }

    fn save(&self) -> Result<Vec<u8>, CoreError> {
        to_bytes(&self.paths)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        self.paths = from_bytes(state)?;
        Ok(())
    }
}
