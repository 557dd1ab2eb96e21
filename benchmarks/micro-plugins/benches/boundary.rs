//! What it costs to cross the boundary: calls through a loaded library beside the same calls made directly, with a model whose own work
//! is next to nothing.

use equivbench_abi::{
    self as abi, ElementType,
    abi_stable::std_types::{RSlice, RStr},
    descriptor::ModelRequest,
};
use equivbench_core::{Batch, Field, FieldKind, Model, Rows, Values, Weights};
use equivbench_host::LoadedModel;
use equivbench_micro::{Case, run};
use equivbench_micro_plugins::library;
use equivbench_plugin::Trainer;
use equivbench_point_mlp::PointMlp;
use std::hint::black_box;

const SAMPLES: usize = 64;
const POINTS: usize = 25;
const ROWS: usize = SAMPLES * POINTS;

/// The smallest size of the model: four numbers for each hidden unit.
fn request() -> ModelRequest {
    ModelRequest {
        model: "point-mlp".into(),
        size: "tiny".into(),
        precision: "f32".into(),
        seed: 1,
        ..ModelRequest::default()
    }
}

fn loaded() -> Result<LoadedModel, String> {
    library("point_mlp")?
        .open_model(&request())
        .map_err(|e| e.to_string())
}

fn direct() -> Result<Trainer<PointMlp>, String> {
    Trainer::open(&request()).map_err(|e| e.to_string())
}

fn numbers() -> Vec<f64> {
    (0..3 * ROWS).map(|i| (i as f64 * 0.37).sin()).collect()
}

/// As the harness holds it: f64, positions, species and a target.
fn batch() -> Batch {
    let vectors = |name: &str| {
        Field::real(
            name,
            FieldKind::Vector,
            Rows::Point,
            vec![ROWS, 3],
            numbers(),
        )
    };
    let labels = Values::Index((0..ROWS as i64).map(|i| i % 9).collect());
    let species = Field {
        name: "species".into(),
        kind: FieldKind::Invariant,
        rows: Rows::Point,
        shape: vec![ROWS],
        values: labels,
    };
    Batch {
        offsets: (0..=SAMPLES).map(|s| s * POINTS).collect(),
        fields: vec![vectors("positions"), species, vectors("target")],
    }
}

/// As a plugin wants it: f32, lent.
struct Raw {
    offsets: Vec<u64>,
    singles: Vec<u8>,
    labels: Vec<u8>,
}

impl Raw {
    fn new() -> Self {
        Self {
            offsets: (0..=SAMPLES).map(|s| (s * POINTS) as u64).collect(),
            singles: numbers()
                .iter()
                .flat_map(|&x| (x as f32).to_ne_bytes())
                .collect(),
            labels: (0..ROWS as i64)
                .flat_map(|i| (i % 9).to_ne_bytes())
                .collect(),
        }
    }

    /// Lends the first so many of: positions, species, target.
    fn lend<R>(&self, fields: usize, call: impl FnOnce(abi::Batch<'_>) -> R) -> R {
        let (wide, flat) = ([ROWS as u64, 3], [ROWS as u64]);
        let field =
            |name: &'static str, kind: abi::FieldKind, element: ElementType, shape, bytes| {
                abi::Field {
                    name: RStr::from_str(name),
                    kind: kind.code(),
                    rows: abi::Rows::Point.code(),
                    element: element.code(),
                    shape: RSlice::from_slice(shape),
                    bytes: RSlice::from_slice(bytes),
                }
            };
        let all = [
            field(
                "positions",
                abi::FieldKind::Vector,
                ElementType::F32,
                &wide,
                &self.singles,
            ),
            field(
                "species",
                abi::FieldKind::Invariant,
                ElementType::I64,
                &flat,
                &self.labels,
            ),
            field(
                "target",
                abi::FieldKind::Vector,
                ElementType::F32,
                &wide,
                &self.singles,
            ),
        ];
        let (offsets, fields) = (
            RSlice::from_slice(&self.offsets),
            RSlice::from_slice(&all[..fields]),
        );
        call(abi::Batch {
            samples: SAMPLES as u64,
            offsets,
            fields,
        })
    }
}

/// Through the boundary: checks, conversion to f32, the call, conversion back, checks.
fn predict() -> Result<Case, String> {
    let (mut loaded, mut direct, batch, raw) = (loaded()?, direct()?, batch(), Raw::new());
    let (mut out, mut bytes) = (Vec::new(), vec![0_u8; 4 * 3 * ROWS]);
    let work = move || {
        loaded
            .predict_into(black_box(&batch), Weights::Raw, &mut out)
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let floor = move || {
        let answer = raw.lend(2, |raw| {
            abi::Model::predict_into(
                &mut direct,
                raw,
                abi::Weights::Raw.code(),
                bytes.as_mut_slice().into(),
            )
        });
        answer
            .into_result()
            .unwrap_or_else(|e| panic!("{}", e.message));
    };
    Ok(Case::new(
        "boundary/predict-64x25",
        "the same call made directly",
        work,
        floor,
    )
    .counting("atoms", ROWS as f64))
}

fn train_step() -> Result<Case, String> {
    let (mut loaded, mut direct, batch, raw) = (loaded()?, direct()?, batch(), Raw::new());
    let mut report = [0.0; 3];
    let work = move || {
        black_box(
            loaded
                .train_step(black_box(&batch))
                .unwrap_or_else(|e| panic!("{e}")),
        );
    };
    let floor = move || {
        let answer = raw.lend(3, |raw| {
            abi::Model::train_step(&mut direct, raw, report.as_mut_slice().into())
        });
        answer
            .into_result()
            .unwrap_or_else(|e| panic!("{}", e.message));
    };
    Ok(Case::new(
        "boundary/train-step-64x25",
        "the same call made directly",
        work,
        floor,
    )
    .counting("atoms", ROWS as f64))
}

/// The crossing alone: a call that moves no numbers and does nothing on a CPU.
fn synchronise() -> Result<Case, String> {
    let (mut loaded, mut direct) = (loaded()?, direct()?);
    let work = move || {
        black_box(&mut loaded)
            .synchronise()
            .unwrap_or_else(|e| panic!("{e}"))
    };
    let floor = move || {
        abi::Model::synchronise(black_box(&mut direct))
            .into_result()
            .unwrap_or_else(|e| panic!("{}", e.message))
    };
    Ok(Case::new(
        "boundary/synchronise",
        "the same call made directly",
        work,
        floor,
    ))
}

fn main() {
    run(&[predict, train_step, synchronise]);
}
