//! An evaluation of EScAIP, 64 molecules in 10 orientations each, from work that the orientations share, beside ten full passes over the
//! same molecules and beside the blind evaluation: `escaip_evaluation [PAIRS [SIZE]]` (7 pairs of size 6M; minutes).
//!
//! The evaluation is a whole one: it rotates, predicts, un-rotates, gathers, and predicts four random molecules both ways.

use equivbench_abi::descriptor::ModelRequest;
use equivbench_core::{
    Batch, Checked, Deviation, Estimator, Field, FieldKind, ForceField, Measurement, Model,
    PointLoss, Portion, RotationPlan, Rows, Scheme, Seed, Supervised, Values, Weights,
    measure_stream,
};
use equivbench_host::LoadedModel;
use equivbench_micro::interleaved;
use equivbench_micro_plugins::library;
use std::hint::black_box;

const MOLECULES: usize = 64;
const ATOMS: usize = 25;
/// As suites measure: 64 molecules in batches of 16.
const BATCH: usize = 16;
const ROTATIONS: usize = 10;

/// Atoms near the points of a lattice of bond length, hydrogen, carbon, nitrogen and oxygen in turns; no two molecules alike.
fn molecules(first: usize) -> Supervised {
    let atoms = || (0..BATCH * ATOMS).map(|i| (first + i / ATOMS, i % ATOMS));
    let jitter = |i: f64| 0.25 * (i * 12.9898).sin();
    let place = |(m, a): (usize, usize)| {
        [a % 3, a / 3 % 3, a / 9]
            .into_iter()
            .enumerate()
            .map(move |(k, p)| 1.5 * p as f64 + jitter((7 * m + 3 * a + k) as f64))
    };
    let positions: Vec<f64> = atoms().flat_map(place).collect();
    let vectors = |name: &str, values| {
        Field::real(
            name,
            FieldKind::Vector,
            Rows::Point,
            vec![BATCH * ATOMS, 3],
            values,
        )
    };
    let species = Field {
        name: "species".into(),
        kind: FieldKind::Invariant,
        rows: Rows::Point,
        shape: vec![BATCH * ATOMS],
        values: Values::Index(atoms().map(|(m, a)| [1, 6, 7, 8][(m + a) % 4]).collect()),
    };
    let target = vectors("target", positions.iter().map(|x| x.cos()).collect());
    let inputs = Batch {
        offsets: (0..=BATCH).map(|m| m * ATOMS).collect(),
        fields: vec![vectors("positions", positions), species],
    };
    Supervised {
        inputs,
        target: Some(target),
        labels: Vec::new(),
    }
}

/// Everything that is measured.
struct Evaluation {
    model: LoadedModel,
    batches: Vec<(Supervised, Vec<RotationPlan>)>,
    how: Measurement,
}

impl Evaluation {
    fn open(size: &str) -> Result<Self, String> {
        let request = ModelRequest {
            model: "escaip".into(),
            size: size.into(),
            precision: "f32".into(),
            seed: 1,
            ..ModelRequest::default()
        };
        let model = library("escaip")?
            .open_model(&request)
            .map_err(|e| e.to_string())?;
        let scheme = Scheme::Random {
            rotations: ROTATIONS,
        };
        let plans = |first: usize| {
            (first..first + BATCH)
                .map(|m| scheme.plan(Seed::new(1), m as u64))
                .collect()
        };
        let batches = (0..MOLECULES)
            .step_by(BATCH)
            .map(|first| (molecules(first), plans(first)))
            .collect();
        let how = Measurement {
            weights: Weights::Raw,
            loss: PointLoss::Mse,
            estimator: Estimator::Unbiased,
        };
        Ok(Self {
            model,
            batches,
            how,
        })
    }

    fn shared(&mut self) -> Deviation {
        let mut deviation = Deviation::default();
        for at in 0..self.batches.len() {
            // As much as a session checks.
            let checked = (at == 0).then(|| Checked {
                rotation: 3,
                samples: vec![2, 5, 7, 11],
            });
            deviation.add(self.evaluate(at, true, checked));
        }
        deviation
    }

    fn blind(&mut self) {
        (0..self.batches.len()).for_each(|at| {
            self.evaluate(at, false, None);
        });
    }

    fn evaluate(&mut self, at: usize, sharing: bool, checked: Option<Checked>) -> Deviation {
        let (samples, plans) = &self.batches[at];
        let portion = Portion {
            sharing,
            checked,
            ..Portion::new(samples.clone(), plans, self.how)
        };
        let portions = std::iter::once(Ok(portion));
        let done = measure_stream(
            &mut self.model,
            &ForceField::default(),
            portions,
            &mut || Ok(()),
        );
        let found = black_box(done.unwrap_or_else(|e| panic!("{e}")));
        found[0].deviation
    }

    fn passes(&mut self) {
        let mut out = Vec::new();
        for _ in 0..ROTATIONS {
            for (samples, _) in &self.batches {
                self.model
                    .predict_into(&samples.inputs, Weights::Raw, &mut out)
                    .unwrap_or_else(|e| panic!("{e}"));
                black_box(&out);
            }
        }
    }
}

fn main() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let pairs = arguments
        .next()
        .map_or(Ok(7), |n| n.parse())
        .map_err(|_| "the first argument is a number of pairs")?;
    let size = arguments.next().unwrap_or_else(|| "6M".into());
    let evaluation = std::cell::RefCell::new(Evaluation::open(&size)?);
    let deviation = evaluation.borrow_mut().shared();
    println!("escaip {size}, {MOLECULES} molecules of {ATOMS} atoms, {ROTATIONS} rotations each");
    println!(
        "shared against blind predictions: relative difference {:.1e}",
        deviation.relative().unwrap_or(f64::NAN)
    );
    let shared = || {
        black_box(evaluation.borrow_mut().shared());
    };
    println!(
        "shared evaluation, against ten full passes: {}",
        interleaved(pairs, shared, || evaluation.borrow_mut().passes())
    );
    println!(
        "shared evaluation, against the blind one: {}",
        interleaved(pairs.div_ceil(3), shared, || evaluation
            .borrow_mut()
            .blind())
    );
    Ok(())
}
