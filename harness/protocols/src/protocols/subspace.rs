//! Protocol 7, deviation from the equivariant parameters: how far training is from the subspace in which the model is equivariant, the
//! sandwich of the paper's Theorem 4, and how the equivariance error and its gradient vanish towards the subspace (Theorems 5 and 6).

use crate::{BatchKey, Protocol, Schedule, Snapshot, columns};
use equivbench_core::{
    Column, Condition, CoreError, LossPart, PointLoss, Portion, Sink, Slope, Table, TableInfo,
    norm, slope,
};
use equivbench_curvature::{Sandwich, Subset, gauss_newton, sandwich};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, LazyLock};

/// The group that the subspace lies in.
const GROUP: &str = "equivariant-subspace";
/// Level of the intervals.
const LEVEL: f64 = 0.95;
/// Halvings of the deviation.
const HALVINGS: i32 = 10;
/// Halvings from which exponents are fitted: near the subspace.
const NEAR: i32 = 5;

static SUBSPACE: LazyLock<Table<DeviationRow>> = LazyLock::new(|| Table {
    name: "subspace",
    about: "deviation of the parameters from the subspace in which the model is equivariant, along training, and the sandwich of Theorem 4 on the measured samples where the prediction is linear in the group",
    columns: [
        vec![columns::version(), columns::step(|r: &DeviationRow| r.step)],
        columns::condition(|r: &DeviationRow| &r.condition),
        deviation_columns(),
        sandwich_columns(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

static SCALING: LazyLock<Table<ScaleRow>> = LazyLock::new(|| Table {
    name: "subspace_scaling",
    about: "the equivariance error and its gradient when the deviation from the subspace is halved again and again (Theorems 5 and 6), on the first measured samples",
    columns: [
        vec![columns::version(), columns::step(|r: &ScaleRow| r.step)],
        columns::condition(|r: &ScaleRow| &r.condition),
        vec![
            Column::new(
                "scale",
                "",
                "what the deviation is multiplied by",
                |r: &ScaleRow| r.scale,
            ),
            Column::new(
                "deviation",
                "parameter",
                "norm of the scaled deviation",
                |r: &ScaleRow| r.deviation,
            ),
            Column::new("loss_equiv", "target²", "L_equiv there", |r: &ScaleRow| {
                r.loss_equiv
            }),
            Column::new(
                "gradient_norm",
                "target²/parameter",
                "norm of the part of the gradient of L_equiv that leaves the subspace",
                |r: &ScaleRow| r.gradient_norm,
            ),
            Column::new(
                "samples",
                "samples",
                "samples that this is of",
                |r: &ScaleRow| r.samples,
            ),
        ],
    ]
    .into_iter()
    .flatten()
    .collect(),
});

static EXPONENTS: LazyLock<Table<ExponentRow>> = LazyLock::new(|| {
    Table {
    name: "subspace_exponents",
    about: "powers of the deviation with which the equivariance error and its gradient vanish near the subspace: 2 and 1 by Theorems 5 and 6",
    columns: [
        vec![
            columns::version(),
            columns::step(|r: &ExponentRow| r.step),
        ],
        columns::condition(|r: &ExponentRow| &r.condition),
        vec![
            Column::new("quantity", "", "loss_equiv or gradient_norm", |r: &ExponentRow| {
                r.quantity
            }),
            Column::new("expected", "", "the power of the theorem", |r: &ExponentRow| r.expected),
            Column::new(
                "exponent",
                "",
                "slope of its logarithm against that of the deviation, over the scales from 2^-5 to 2^-10",
                |r: &ExponentRow| r.fitted.slope,
            ),
            Column::new("exponent_lower", "", "lower end of its 95% interval", |r: &ExponentRow| {
                r.fitted.interval.map(|i| i.lower)
            }),
            Column::new("exponent_upper", "", "upper end of that interval", |r: &ExponentRow| {
                r.fitted.interval.map(|i| i.upper)
            }),
            Column::new("points", "", "scales that were fitted", |r: &ExponentRow| {
                r.fitted.points as u64
            }),
        ],
    ]
    .into_iter()
    .flatten()
    .collect(),
}
});

struct DeviationRow {
    step: u64,
    condition: Condition,
    parameters: u64,
    deviation: f64,
    length: f64,
    loss_equiv: Option<f64>,
    sandwich: Option<Sandwich>,
}

struct ScaleRow {
    step: u64,
    condition: Condition,
    scale: f64,
    deviation: f64,
    loss_equiv: f64,
    gradient_norm: f64,
    samples: u64,
}

struct ExponentRow {
    step: u64,
    condition: Condition,
    quantity: &'static str,
    expected: u64,
    fitted: Slope,
}

fn deviation_columns() -> Vec<Column<DeviationRow>> {
    vec![
        Column::new(
            "parameters",
            "parameters",
            "scalars of the group",
            |r: &DeviationRow| r.parameters,
        ),
        Column::new(
            "deviation",
            "parameter",
            "distance of the parameters from the nearest equivariant ones (the head's rows apart from their mean; kernels apart from the mean over rotations)",
            |r: &DeviationRow| r.deviation,
        ),
        Column::new(
            "deviation_relative",
            "",
            "and over the norm of the parameters",
            |r: &DeviationRow| Some(r.deviation / r.length).filter(|v| v.is_finite()),
        ),
    ]
}

fn sandwich_columns() -> Vec<Column<DeviationRow>> {
    let bounds = |r: &DeviationRow| r.sandwich.map(|s| s.bounds());
    vec![
        Column::new(
            "loss_equiv",
            "target²",
            "L_equiv of the measured samples, by predictions in f64; empty where the prediction is not linear in the group",
            |r: &DeviationRow| r.loss_equiv,
        ),
        Column::new(
            "quadratic_form",
            "target²",
            "the same as p'Qp, p the deviation: Theorem 4's exact expression",
            |r: &DeviationRow| r.sandwich.map(|s| s.form),
        ),
        Column::new(
            "lambda_min",
            "target²/parameter²",
            "smallest eigenvalue of Q off the subspace",
            |r: &DeviationRow| r.sandwich.map(|s| s.least),
        ),
        Column::new(
            "lambda_max",
            "target²/parameter²",
            "largest",
            |r: &DeviationRow| r.sandwich.map(|s| s.largest),
        ),
        Column::new(
            "rank",
            "",
            "eigenvalues of Q above rounding: the lower bound is positive only if they are as many as dimensions",
            |r: &DeviationRow| r.sandwich.map(|s| s.rank as u64),
        ),
        Column::new(
            "dimensions",
            "",
            "dimensions off the subspace",
            |r: &DeviationRow| r.sandwich.map(|s| s.dimensions as u64),
        ),
        Column::new(
            "lower",
            "target²",
            "lambda_min deviation²",
            move |r: &DeviationRow| bounds(r).map(|b| b[0]),
        ),
        Column::new(
            "upper",
            "target²",
            "lambda_max deviation²",
            move |r: &DeviationRow| bounds(r).map(|b| b[1]),
        ),
        Column::new(
            "theorem4",
            "",
            "holds (lower <= loss_equiv <= upper), vacuous (holds, but the lower bound is not positive) or fails",
            move |r: &DeviationRow| verdict(bounds(r), r.loss_equiv),
        ),
    ]
}

fn verdict(bounds: Option<[f64; 2]>, loss: Option<f64>) -> Option<&'static str> {
    let ([lower, upper], loss) = bounds.zip(loss)?;
    // Both sides are sums of thousands of f64 products.
    let room = 1e-10 * upper.abs();
    Some(match lower {
        _ if loss < lower - room || loss > upper + room => "fails",
        lower if lower <= room => "vacuous",
        _ => "holds",
    })
}

/// `[protocols.subspace]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SubspaceSettings {
    /// Whether Theorem 4 is looked at where the prediction is linear in the group.
    pub sandwich: bool,
    /// Parameters of the form at most.
    pub max_dense: u64,
    /// Measured samples on which the deviation is scaled, after the last step; 0 to leave that out.
    pub scaling_samples: u64,
}

impl Default for SubspaceSettings {
    fn default() -> Self {
        Self {
            sandwich: true,
            max_dense: 2048,
            scaling_samples: 4,
        }
    }
}

/// Asks for the deviation at every evaluation, and scales it after the last step.
pub(super) struct Subspace {
    settings: SubspaceSettings,
    schedule: Arc<Schedule>,
}

/// The parameters of the group, and the nearest equivariant ones; `None` where the model names no subspace.
fn nearest(snapshot: &mut Snapshot<'_>) -> Result<Option<[Vec<f64>; 2]>, CoreError> {
    if !snapshot.groups().iter().any(|(name, _)| name == GROUP) {
        return Ok(None);
    }
    let parameters = snapshot.parameters(GROUP)?;
    let projected = snapshot.projected(&parameters)?;
    Ok(projected.map(|projected| [parameters, projected]))
}

fn away([parameters, projected]: &[Vec<f64>; 2]) -> Vec<f64> {
    parameters
        .iter()
        .zip(projected)
        .map(|(p, e)| p - e)
        .collect()
}

impl Subspace {
    fn deviation(
        &self,
        snapshot: &mut Snapshot<'_>,
        condition: &Condition,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let Some(both) = nearest(snapshot)? else {
            return Ok(());
        };
        let count = both[0].len();
        let is_small = self.settings.sandwich && count as u64 <= self.settings.max_dense;
        let found = match is_small {
            true => snapshot.in_double(|snapshot| theorem4(snapshot, condition))?,
            false => None,
        };
        let row = DeviationRow {
            step: snapshot.moment().step,
            condition: condition.clone(),
            parameters: count as u64,
            deviation: norm(&away(&both)),
            length: norm(&both[0]),
            loss_equiv: found.map(|(loss, _)| loss),
            sandwich: found.and_then(|(_, sandwich)| sandwich),
        };
        SUBSPACE.write(sink, &row)
    }

    fn scale(
        &self,
        snapshot: &mut Snapshot<'_>,
        condition: &Condition,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let Some(both) = nearest(snapshot)? else {
            return Ok(());
        };
        let Some(first) = snapshot.frozen().batches().next() else {
            return Ok(());
        };
        let portion = snapshot
            .measured_portion(first, condition)?
            .first(self.settings.scaling_samples as usize);
        let mut rows = Vec::new();
        for k in 0..=HALVINGS {
            let scale = 0.5f64.powi(k);
            let row = scaled(snapshot, &portion, condition, &both, scale)?;
            SCALING.write(sink, &row)?;
            rows.push(row);
        }
        let near = &rows[NEAR as usize..];
        let fits = [
            (
                "loss_equiv",
                2,
                near.iter().map(|r| r.loss_equiv).collect::<Vec<_>>(),
            ),
            (
                "gradient_norm",
                1,
                near.iter().map(|r| r.gradient_norm).collect(),
            ),
        ];
        for (quantity, expected, values) in fits {
            let pairs = near.iter().zip(values).filter(|(_, v)| *v > 0.0);
            let pairs: Vec<_> = pairs.map(|(r, v)| (r.deviation.ln(), v.ln())).collect();
            // A model that is equivariant already has no exponent.
            let Some(fitted) = slope(&pairs, LEVEL).filter(|f| f.slope.is_finite()) else {
                continue;
            };
            let row = ExponentRow {
                step: snapshot.moment().step,
                condition: condition.clone(),
                quantity,
                expected,
                fitted,
            };
            EXPONENTS.write(sink, &row)?;
        }
        Ok(())
    }
}

/// The equivariance error and its gradient with the deviation scaled.
fn scaled(
    snapshot: &mut Snapshot<'_>,
    portion: &Portion,
    condition: &Condition,
    both: &[Vec<f64>; 2],
    scale: f64,
) -> Result<ScaleRow, CoreError> {
    let deviation = away(both);
    let moved: Vec<f64> = both[1]
        .iter()
        .zip(&deviation)
        .map(|(e, d)| e + scale * d)
        .collect();
    let (loss, gradient) = snapshot.with_subset(portion, GROUP, |subset: &mut Subset<'_>| {
        subset.move_to(&moved)?;
        let losses = subset.losses()?;
        Ok((losses[2], subset.gradients(&[LossPart::Equivariance])?))
    })?;
    let gradient = gradient.into_iter().next().unwrap_or_default();
    let along = snapshot.projected(&gradient)?.unwrap_or_default();
    Ok(ScaleRow {
        step: snapshot.moment().step,
        condition: condition.clone(),
        scale,
        deviation: scale * norm(&deviation),
        loss_equiv: loss,
        gradient_norm: norm(&away(&[gradient, along])),
        samples: portion.plans.len() as u64,
    })
}

/// `L_equiv` of the measured samples, and the form of Theorem 4; `None` where the prediction is not linear in the group.
fn theorem4(
    snapshot: &mut Snapshot<'_>,
    condition: &Condition,
) -> Result<Option<(f64, Option<Sandwich>)>, CoreError> {
    let batches: Vec<BatchKey> = snapshot.frozen().batches().collect();
    let (mut hessian, mut loss, mut weight) = (None, 0.0, 0.0);
    for batch in batches {
        let portion = snapshot.measured_portion(batch, condition)?;
        if portion.how.loss != PointLoss::Mse {
            return Ok(None);
        }
        let found = snapshot.with_subset(&portion, GROUP, |subset| {
            if subset.linear().is_none() {
                return Ok(None);
            }
            let equiv = gauss_newton::<f64>(subset)?.hessian(LossPart::Equivariance);
            Ok(Some((equiv, subset.losses()?[2], subset.weight())))
        })?;
        let Some((own, equiv, counts)) = found else {
            return Ok(None);
        };
        let own = equivbench_curvature::scaled(&own, counts);
        hessian = Some(match hessian {
            Some(sum) => own + sum,
            None => own,
        });
        loss += counts * equiv;
        weight += counts;
    }
    let Some(sum) = hessian else {
        return Ok(None);
    };
    let parameters = snapshot.parameters(GROUP)?;
    let mean = equivbench_curvature::scaled(&sum, 1.0 / weight);
    let mut project = |v: &[f64]| Ok(snapshot.projected(v)?.unwrap_or_default());
    let found = sandwich(&mean, &parameters, &mut project)?;
    Ok(Some((loss / weight, found)))
}

impl Protocol for Subspace {
    const NAME: &'static str = "subspace";
    const ABOUT: &'static str = "distance of the parameters from the equivariant ones along training, the sandwich of Theorem 4, and the powers of Theorems 5 and 6";
    type Settings = SubspaceSettings;

    fn tables() -> Vec<TableInfo> {
        vec![SUBSPACE.info(), SCALING.info(), EXPONENTS.info()]
    }

    fn start(settings: SubspaceSettings, schedule: Arc<Schedule>) -> Self {
        Self { settings, schedule }
    }

    fn due(&self, step: u64) -> bool {
        self.schedule.holds(step)
    }

    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        for condition in &snapshot.first_passes() {
            self.deviation(snapshot, condition, sink)?;
            // Asked of a checkpoint it is of that moment, whichever it is.
            let is_last =
                snapshot.moment().step == self.schedule.total || !self.due(snapshot.moment().step);
            if is_last && self.settings.scaling_samples > 0 {
                snapshot.in_double(|snapshot| self.scale(snapshot, condition, sink))?;
            }
        }
        Ok(())
    }
}
