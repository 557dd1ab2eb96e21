use super::*;
use crate::{
    AxisValue, Batch, Condition, Estimator, Field, FieldKind, FiniteGroup, FlowMatching, PointLoss,
    Rows, Scheme, Seed, StepFigures, Weights,
};
use std::sync::Arc;

const A: [[f64; 3]; 3] = [[2.0, 0.3, -1.0], [0.0, 0.5, 0.7], [1.1, -0.2, -1.0]];
const B: [[f64; 3]; 3] = [[0.1, 0.0, 0.4], [-0.3, 0.2, 0.0], [0.0, 0.6, -0.5]];
const TIME: f64 = 0.25;

fn times(m: &[[f64; 3]; 3], x: &[f64]) -> [f64; 3] {
    m.map(|row| row[0] * x[0] + row[1] * x[1] + row[2] * x[2])
}

/// `A x + B x_sc`, the second term where there is a self-conditioning input. Counts its passes.
#[derive(Default)]
struct Linear {
    passes: usize,
    /// Whether predictions are of rotated copies, and how much the shared path then adds to each number.
    sharing: bool,
    wrong_by: f64,
    /// The pass that predicts a number too few.
    short_at: Option<usize>,
}

impl Model for Linear {
    fn output_kind(&self) -> FieldKind {
        FieldKind::Vector
    }
    fn output_rows(&self) -> Rows {
        Rows::Point
    }
    fn output_width(&self, _: &Batch) -> usize {
        3
    }
    fn predict_into(
        &mut self,
        batch: &Batch,
        _: Weights,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        self.passes += 1;
        *out = batch
            .field("positions")?
            .reals()?
            .chunks(3)
            .flat_map(|x| times(&A, x))
            .collect();
        if let Ok(fed) = batch.field("self_conditioning") {
            let more = fed.reals()?.chunks(3).flat_map(|x| times(&B, x));
            out.iter_mut().zip(more).for_each(|(o, m)| *o += m);
        }
        if self.sharing {
            out.iter_mut().for_each(|o| *o += self.wrong_by);
        }
        if self.short_at == Some(self.passes) {
            out.pop();
        }
        Ok(())
    }
    fn shares_rotations(&self) -> bool {
        true
    }
    fn share(&mut self, base: &Batch, _: Weights) -> Result<(), CoreError> {
        assert_eq!(base.field("positions")?.reals()?, X);
        self.sharing = true;
        Ok(())
    }
    fn end_sharing(&mut self) -> Result<(), CoreError> {
        self.sharing = false;
        Ok(())
    }
    fn train_step(&mut self, _: &Batch) -> Result<StepFigures, CoreError> {
        Err(CoreError::Model("it does not train".into()))
    }
    fn vjp_into(
        &mut self,
        _: &Batch,
        _: &[f64],
        _: &str,
        _: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        Err(CoreError::Model("it has no gradient".into()))
    }
    fn parameters_into(&self, _: &str, _: &mut Vec<f64>) -> Result<(), CoreError> {
        Ok(())
    }
    fn set_parameters(&mut self, _: &str, _: &[f64]) -> Result<(), CoreError> {
        Ok(())
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        Ok(Vec::new())
    }
    fn load(&mut self, _: &[u8]) -> Result<(), CoreError> {
        Ok(())
    }
    fn synchronise(&mut self) -> Result<(), CoreError> {
        Ok(())
    }
}

/// The conditions of a flow-matching sample at one flow time: both variants.
fn readings() -> Arc<[Reading]> {
    let condition = |variant: &str| {
        Condition::default()
            .with("flow_time", AxisValue::Real(TIME))
            .with("variant", AxisValue::Name(variant.into()))
    };
    ["plain", "self-conditioned"]
        .map(condition)
        .map(|condition| Reading {
            pass: FlowMatching::default().pass(&condition),
            condition,
        })
        .into()
}

fn portion(plans: &[RotationPlan], how: Measurement) -> Portion {
    Portion {
        readings: readings(),
        ..Portion::new(sample(), plans, how)
    }
}

fn stream(
    model: &mut Linear,
    task: &dyn Task,
    portions: Vec<Result<Portion, CoreError>>,
) -> Result<Vec<Measured>, CoreError> {
    measure_stream(model, task, portions.into_iter(), &mut || Ok(()))
}

/// The terms of each condition of one portion.
fn terms_of(model: &mut Linear, portion: Portion) -> Vec<Vec<SampleTerms>> {
    let measured = stream(model, &FlowMatching::default(), vec![Ok(portion)])
        .unwrap()
        .swap_remove(0);
    measured
        .readings
        .into_iter()
        .map(|(_, terms)| terms)
        .collect()
}

const X: [f64; 6] = [0.3, -1.2, 0.7, 2.0, 0.1, -0.4];

fn sample() -> Supervised {
    let cloud = |name: &str, values: Vec<f64>| {
        Field::real(name, FieldKind::Vector, Rows::Point, vec![2, 3], values)
    };
    let inputs = Batch {
        offsets: vec![0, 2],
        fields: vec![
            cloud("positions", X.to_vec()),
            Field::real(
                "flow_time",
                FieldKind::Invariant,
                Rows::Sample,
                vec![1],
                vec![TIME],
            ),
        ],
    };
    Supervised {
        inputs,
        target: Some(cloud("target", vec![0.0; 6])),
        labels: Vec::new(),
    }
}

/// `E‖Z − μ‖²` of `x ↦ M x`: `(‖M‖²_F / 3 − (tr M / 3)²) ‖x‖²`.
fn spread(m: &[[f64; 3]; 3]) -> f64 {
    let trace = (m[0][0] + m[1][1] + m[2][2]) / 3.0;
    let frobenius: f64 = m.iter().flatten().map(|v| v * v).sum();
    (frobenius / 3.0 - trace * trace) * X.iter().map(|x| x * x).sum::<f64>()
}

#[test]
fn a_self_conditioned_linear_model_is_measured_as_its_two_pass_composite() {
    // f2(x) = A x + B (x + (1 − t) A x), linear again.
    let mut composite = A;
    for (i, row) in composite.iter_mut().enumerate() {
        for (j, entry) in row.iter_mut().enumerate() {
            let product: f64 = (0..3).map(|k| B[i][k] * A[k][j]).sum();
            *entry += B[i][j] + (1.0 - TIME) * product;
        }
    }
    let samples = sample();
    let plans = [Scheme::Exhaustive(FiniteGroup::Tetrahedral).plan(Seed::new(1), 0)];
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator: Estimator::Unbiased,
    };
    let mut model = Linear::default();
    let terms = terms_of(&mut model, portion(&plans, how));
    assert_eq!(
        model.passes, 24,
        "two passes for each of 12 rotations serve both variants"
    );
    // Linear maps are averaged exactly by the tetrahedral group; sums of 12 rotations round at 1e-15.
    assert!((terms[0][0].loss_equiv / spread(&A) - 1.0).abs() < 1e-13);
    assert!((terms[1][0].loss_equiv / spread(&composite) - 1.0).abs() < 1e-13);
    let plain = measure(&mut model, &samples, &plans, how).unwrap();
    assert_eq!((model.passes, &plain), (36, &terms[0]));
    let error = stream(
        &mut model,
        &crate::ForceField::default(),
        vec![Ok(portion(&plans, how))],
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("force-field feeds nothing back"),
        "{error}"
    );
}

fn exhaustive() -> ([RotationPlan; 1], Measurement) {
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator: Estimator::Unbiased,
    };
    (
        [Scheme::Exhaustive(FiniteGroup::Tetrahedral).plan(Seed::new(1), 0)],
        how,
    )
}

#[test]
fn shared_passes_are_checked_against_blind_ones_of_the_same_copies() {
    let (plans, how) = exhaustive();
    let blind = terms_of(&mut Linear::default(), portion(&plans, how));
    let shared = |wrong_by, checked: Option<usize>| {
        let mut model = Linear {
            wrong_by,
            ..Linear::default()
        };
        let portion = Portion {
            sharing: true,
            checked: checked.map(|rotation| Checked {
                rotation,
                samples: vec![0],
            }),
            ..portion(&plans, how)
        };
        let found = stream(&mut model, &FlowMatching::default(), vec![Ok(portion)])
            .unwrap()
            .swap_remove(0);
        assert!(!model.sharing);
        found
    };
    let Measured {
        readings,
        deviation,
        ..
    } = shared(0.0, Some(5));
    let terms: Vec<_> = readings.into_iter().map(|(_, terms)| terms).collect();
    assert_eq!(
        (terms, deviation.relative(), deviation.predictions),
        (blind, Some(0.0), 2)
    );
    assert!(shared(0.1, Some(5)).deviation.relative().unwrap() > 0.01);
    assert_eq!(shared(0.1, None).deviation.relative(), None);
}

#[test]
fn a_stream_of_portions_is_measured_as_each_for_itself_until_one_cannot_be_made() {
    let how = |weights| Measurement {
        weights,
        loss: PointLoss::Mse,
        estimator: Estimator::Unbiased,
    };
    let plans = |group| [Scheme::Exhaustive(group).plan(Seed::new(1), 0)];
    let portions = || {
        let of = |group, weights| portion(&plans(group), how(weights));
        let shared = |portion| Portion {
            sharing: true,
            checked: Some(Checked {
                rotation: 3,
                samples: vec![0],
            }),
            ..portion
        };
        let (short, long) = (
            of(FiniteGroup::Tetrahedral, Weights::Raw),
            of(FiniteGroup::Octahedral, Weights::Ema),
        );
        vec![
            Ok(short.clone()),
            Ok(shared(long.clone())),
            Ok(long),
            Ok(short),
        ]
    };
    let shown = |found: Vec<Measured>| -> Vec<_> {
        let of = |m: Measured| (m.of.how, m.readings, m.deviation);
        found.into_iter().map(of).collect()
    };
    let mut calls = 0;
    let mut model = Linear::default();
    let found = measure_stream(
        &mut model,
        &FlowMatching::default(),
        portions().into_iter(),
        &mut || {
            calls += 1;
            Ok(())
        },
    );
    let expected: Vec<_> = portions()
        .into_iter()
        .flat_map(|portion| {
            shown(
                stream(
                    &mut Linear::default(),
                    &FlowMatching::default(),
                    vec![portion],
                )
                .unwrap(),
            )
        })
        .collect();
    assert_eq!(shown(found.unwrap()), expected);
    // Two passes over 12 + 24 + 24 + 12 copies; predictions that check others are not watched.
    assert_eq!((calls, model.passes), (144, 146));
    let mut broken = portions();
    broken[2] = Err(CoreError::Dataset("sample 7 is damaged".into()));
    let mut model = Linear::default();
    let error = stream(&mut model, &FlowMatching::default(), broken).unwrap_err();
    assert!(error.to_string().contains("sample 7 is damaged"), "{error}");
    assert_eq!(
        model.passes,
        2 * (12 + 24 + 1),
        "what came before is predicted, and checked"
    );
    assert!(
        stream(&mut model, &FlowMatching::default(), Vec::new())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn whoever_watches_ends_a_measurement_after_one_more_call() {
    let (plans, how) = exhaustive();
    let (mut model, mut calls) = (Linear::default(), 0);
    let portions = (0..1000).map(|_| Ok(portion(&plans, how)));
    let ended = measure_stream(&mut model, &FlowMatching::default(), portions, &mut || {
        calls += 1;
        if calls == 30 {
            Err(CoreError::Stopped)
        } else {
            Ok(())
        }
    });
    assert!(matches!(ended, Err(CoreError::Stopped)));
    assert_eq!(model.passes, 30);
}

#[test]
fn what_goes_wrong_in_one_pass_is_told_and_ends_the_others() {
    let (plans, how) = exhaustive();
    let mut model = Linear {
        short_at: Some(3),
        ..Linear::default()
    };
    let shared = Portion {
        sharing: true,
        ..portion(&plans, how)
    };
    let error = stream(&mut model, &FlowMatching::default(), vec![Ok(shared)]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("predicts 5 numbers, the target has 6"),
        "{error}"
    );
    assert_eq!((model.passes, model.sharing), (3, false));
    let mut grid = sample();
    grid.inputs.fields.push(Field::real(
        "grid",
        FieldKind::VoxelGrid,
        Rows::Sample,
        vec![1, 1, 2, 2, 2],
        vec![0.0; 8],
    ));
    let skew = [Scheme::Random { rotations: 2 }.plan(Seed::new(1), 0)];
    let error = measure(&mut Linear::default(), &grid, &skew, how).unwrap_err();
    assert!(
        error.to_string().contains("rotations of the cube only"),
        "{error}"
    );
}
