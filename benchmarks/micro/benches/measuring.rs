//! What a measurement does around the model: rotate inputs, rotate predictions back, average, split the loss, pool with an interval.

use equivbench_core::{
    Batch, CoreError, Estimator, Field, FieldKind, MeasuredSample, Measurement, Model, PointLoss,
    RotationPlan, Rows, SampleTerms, Scheme, Seed, StepFigures, Supervised, TwirlAccumulator,
    Values, Weights, act, act_inverse_on_rows, measure, pool,
};
use equivbench_micro::{Case, run};
use rand::Rng;
use std::hint::black_box;

/// An evaluation of molecules as the quick suite has it.
const MOLECULES: Cloud = Cloud {
    samples: 64,
    points: 25,
};
/// A batch of chains.
const CHAINS: Cloud = Cloud {
    samples: 24,
    points: 128,
};
const ROTATIONS: usize = 10;

/// Samples of equal size.
#[derive(Clone, Copy)]
struct Cloud {
    samples: usize,
    points: usize,
}

impl Cloud {
    const fn rows(self) -> usize {
        self.samples * self.points
    }

    const fn numbers(self) -> usize {
        3 * self.rows()
    }

    fn vectors(self, name: &str) -> Field {
        let values = (0..self.numbers())
            .map(|i| (i as f64 * 0.37).sin())
            .collect();
        Field::real(
            name,
            FieldKind::Vector,
            Rows::Point,
            vec![self.rows(), 3],
            values,
        )
    }

    /// Positions and species.
    fn batch(self) -> Batch {
        let labels = Values::Index((0..self.rows() as i64).map(|i| i % 9).collect());
        let species = Field {
            name: "species".into(),
            kind: FieldKind::Invariant,
            rows: Rows::Point,
            shape: vec![self.rows()],
            values: labels,
        };
        Batch {
            offsets: (0..=self.samples).map(|s| s * self.points).collect(),
            fields: vec![self.vectors("positions"), species],
        }
    }

    fn plans(self) -> Vec<RotationPlan> {
        let scheme = Scheme::Random {
            rotations: ROTATIONS,
        };
        (0..self.samples as u64)
            .map(|sample| scheme.plan(Seed::new(1), sample))
            .collect()
    }

    /// Accumulators that have seen nothing.
    fn twirls(self) -> Vec<TwirlAccumulator> {
        let target = vec![0.5; 3 * self.points];
        (0..self.samples)
            .map(|_| TwirlAccumulator::new(target.clone(), 3, ROTATIONS, PointLoss::Mse))
            .collect()
    }

    /// Numbers of a prediction, one chunk for each sample.
    fn prediction(self) -> Vec<f64> {
        (0..self.numbers())
            .map(|i| (i as f64 * 0.73).cos())
            .collect()
    }
}

fn rotate_a_batch() -> Result<Case, String> {
    let (batch, mut rotated) = (MOLECULES.batch(), Batch::default());
    let rotations: Vec<_> = MOLECULES
        .plans()
        .iter()
        .map(|plan| plan.rotations[0])
        .collect();
    let (from, mut to) = (MOLECULES.batch(), MOLECULES.batch());
    let work = move || {
        act(black_box(&rotations), black_box(&batch), &mut rotated)
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let floor = move || {
        black_box(&mut to.fields)
            .iter_mut()
            .zip(black_box(&from.fields))
            .for_each(|(to, from)| copy(from, to))
    };
    Ok(
        Case::new("rotate/batch-64x25", "copying the batch", work, floor)
            .counting("atoms", MOLECULES.rows() as f64),
    )
}

fn copy(from: &Field, to: &mut Field) {
    match (&from.values, &mut to.values) {
        (Values::Real(from), Values::Real(to)) => to.copy_from_slice(from),
        (Values::Index(from), Values::Index(to)) => to.copy_from_slice(from),
        _ => unreachable!("fields of one batch and its copy are alike"),
    }
}

fn rotate_rows_back() -> Result<Case, String> {
    let (plans, mut prediction) = (MOLECULES.plans(), MOLECULES.prediction());
    let (shape, own) = ([MOLECULES.rows(), 3], 3 * MOLECULES.points);
    let (from, mut to) = (prediction.clone(), prediction.clone());
    let work = move || {
        for (plan, values) in plans
            .iter()
            .zip(black_box(&mut prediction).chunks_exact_mut(own))
        {
            act_inverse_on_rows(&plan.rotations[0], FieldKind::Vector, &shape, values)
                .unwrap_or_else(|e| panic!("{e}"));
        }
    };
    let floor = move || black_box(&mut to).copy_from_slice(black_box(&from));
    Ok(
        Case::new("rotate/rows-back-64x25", "copying the rows", work, floor)
            .counting("atoms", MOLECULES.rows() as f64),
    )
}

/// Pushing reads a prediction and moves a mean: a copy of each prediction reads and writes as much.
fn twirl(name: &'static str, cloud: Cloud) -> Case {
    let (fresh, prediction, own) = (cloud.twirls(), cloud.prediction(), 3 * cloud.points);
    let (from, mut to) = (prediction.clone(), prediction.clone());
    let work = move || {
        let mut twirls = fresh.clone();
        for rotation in 0..ROTATIONS {
            twirls
                .iter_mut()
                .zip(black_box(&prediction).chunks_exact(own))
                .for_each(|(t, values)| t.push(rotation, values));
        }
        black_box(twirls);
    };
    let floor =
        move || (0..ROTATIONS).for_each(|_| black_box(&mut to).copy_from_slice(black_box(&from)));
    Case::new(name, "copying the predictions", work, floor)
        .counting("predictions", (ROTATIONS * cloud.samples) as f64)
}

fn twirl_molecules() -> Result<Case, String> {
    Ok(twirl("twirl/64x25-by-10", MOLECULES))
}

fn twirl_chains() -> Result<Case, String> {
    Ok(twirl("twirl/24x128-by-10", CHAINS))
}

/// Accumulators that have seen ten predictions each.
fn twirled(cloud: Cloud) -> Vec<TwirlAccumulator> {
    let mut stream = Seed::new(2).stream("predictions");
    let mut draw = || (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    let mut twirls = cloud.twirls();
    for twirl in &mut twirls {
        for rotation in 0..ROTATIONS {
            let prediction: Vec<f64> = (0..3 * cloud.points).map(|_| draw()).collect();
            twirl.push(rotation, &prediction);
        }
    }
    twirls
}

fn terms() -> Vec<SampleTerms> {
    twirled(MOLECULES)
        .iter()
        .map(|t| t.finish(Estimator::Unbiased))
        .collect()
}

/// The means of all cosets are read twice at least: for their mean, and for their distance from it.
fn finish_terms() -> Result<Case, String> {
    let twirls = twirled(MOLECULES);
    let numbers = ROTATIONS * MOLECULES.numbers();
    let (from, mut to) = (vec![0.5; numbers], vec![0.0; numbers]);
    let work = move || {
        black_box(
            twirls
                .iter()
                .map(|t| black_box(t).finish(Estimator::Unbiased))
                .collect::<Vec<_>>(),
        );
    };
    let floor = move || black_box(&mut to).copy_from_slice(black_box(&from));
    Ok(Case::new(
        "decompose/finish-64x25-by-10",
        "copying the means",
        work,
        floor,
    )
    .counting("samples", MOLECULES.samples as f64))
}

/// Intervals of an estimate: percent, loss, skill, relative error.
const INTERVALS: usize = 4;

/// Each bootstrap draws 1999 samples of 64: drawing the random numbers is the floor.
fn pool_terms() -> Result<Case, String> {
    let samples = MeasuredSample::independent(&terms());
    let mut other = Seed::new(3).stream("bootstrap");
    let work = move || {
        black_box(pool(black_box(&samples), true, Seed::new(3)));
    };
    let floor = move || {
        for _ in 0..INTERVALS * 1999 * MOLECULES.samples {
            black_box(other.next_u64());
        }
    };
    Ok(Case::new(
        "decompose/pool-64",
        "drawing its random numbers",
        work,
        floor,
    )
    .counting("samples", MOLECULES.samples as f64))
}

/// Predicts its own input.
struct Echo;

impl Model for Echo {
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
        out.clear();
        out.extend_from_slice(batch.field("positions")?.reals()?);
        Ok(())
    }
    fn train_step(&mut self, _: &Batch) -> Result<StepFigures, CoreError> {
        Ok(StepFigures::default())
    }
    fn vjp_into(
        &mut self,
        _: &Batch,
        _: &[f64],
        _: &str,
        _: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        Ok(())
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

/// Everything that an evaluation costs beside the model, whose predictions are a copy here.
fn measure_a_batch() -> Result<Case, String> {
    let (inputs, plans) = (MOLECULES.batch(), MOLECULES.plans());
    let samples = Supervised {
        inputs: inputs.clone(),
        target: Some(MOLECULES.vectors("target")),
        labels: Vec::new(),
    };
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator: Estimator::Unbiased,
    };
    let mut out = Vec::new();
    let work = move || {
        black_box(
            measure(&mut Echo, black_box(&samples), &plans, how).unwrap_or_else(|e| panic!("{e}")),
        );
    };
    let floor = move || {
        for _ in 0..ROTATIONS {
            Echo.predict_into(black_box(&inputs), Weights::Raw, &mut out)
                .unwrap_or_else(|e| panic!("{e}"));
            black_box(&mut out);
        }
    };
    let amount = (ROTATIONS * MOLECULES.samples) as f64;
    Ok(
        Case::new("measure/64x25-by-10", "its predictions alone", work, floor)
            .counting("predictions", amount),
    )
}

fn main() {
    run(&[
        rotate_a_batch,
        rotate_rows_back,
        twirl_molecules,
        twirl_chains,
        finish_terms,
        pool_terms,
        measure_a_batch,
    ]);
}
