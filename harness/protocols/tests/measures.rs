//! Other measures of equivariance of models whose figures are known in closed form, beside ours of the same run.

use equivbench_core::{
    Batch, Cell, Clock, CoreError, Dataset, Estimator, Field, FieldKind, FiniteGroup, Model,
    PointLoss, Precision, Preparation, Rows, Scheme, Seed, Sink, StepFigures, Supervised, Task,
    Weights, conditions_of,
};
use equivbench_protocols::{
    About, Measuring, Observer, Outcome, Progress, SampleSet, Schedule, Session, SessionConfig,
    SessionState, SetName, Source, Training, protocol_by_name,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a model does with one sample.
type Field3 = fn(&[f64]) -> Vec<f64>;

/// A fixed function of one field.
struct Fixed {
    of: Field3,
    kind: FieldKind,
    precision: Precision,
    calls: u64,
}

impl Model for Fixed {
    fn output_kind(&self) -> FieldKind {
        self.kind
    }
    fn output_rows(&self) -> Rows {
        if self.kind == FieldKind::VoxelGrid {
            Rows::Sample
        } else {
            Rows::Point
        }
    }
    fn output_width(&self, batch: &Batch) -> usize {
        batch.field("x").unwrap().width()
    }
    fn precision(&self) -> Precision {
        self.precision
    }
    fn predict_into(
        &mut self,
        batch: &Batch,
        _: Weights,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        self.calls += 1;
        out.clear();
        let x = batch.field("x")?.values.widened();
        let each = x.len() / batch.samples();
        out.extend(x.chunks(each).flat_map(self.of));
        if self.precision == Precision::Single {
            out.iter_mut().for_each(|v| *v = f64::from(*v as f32));
        }
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

const SIDE: usize = 3;
const SAMPLES: usize = 5;

/// Samples of two points, or of a grid with two channels, a function of their index.
struct Made(FieldKind);

impl Dataset for Made {
    fn samples(&self, _: &str) -> usize {
        SAMPLES
    }
    fn load(&mut self, _: &str, indices: &[u64]) -> Result<Batch, CoreError> {
        let n = indices.len();
        let (rows, shape) = match self.0 {
            FieldKind::VoxelGrid => (Rows::Sample, vec![n, 2, SIDE, SIDE, SIDE]),
            _ => (Rows::Point, vec![2 * n, 3]),
        };
        let numbers = shape.iter().product::<usize>() / n;
        let field = |name: &str, phase: f64| {
            let value = |i: u64, k: usize| (i as f64 * 2.3 + k as f64 * 1.7 + phase).sin();
            let values = indices
                .iter()
                .flat_map(|&i| (0..numbers).map(move |k| value(i, k)))
                .collect();
            Field::real(name, self.0, rows, shape.clone(), values)
        };
        Ok(Batch {
            offsets: (0..=n).map(|s| 2 * s).collect(),
            fields: vec![field("x", 0.0), field("y", 0.5)],
        })
    }
    fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
        BTreeMap::new()
    }
}

/// Predicts `y` from `x`.
struct Plain(FieldKind);

impl Task for Plain {
    fn name(&self) -> &'static str {
        "plain"
    }
    fn check_scheme(&self, scheme: &Scheme) -> Result<(), CoreError> {
        match (self.0, scheme.is_sampled()) {
            (FieldKind::VoxelGrid, true) => Err(CoreError::Shape("cube rotations only".into())),
            _ => Ok(()),
        }
    }
    fn prepare(&self, mut raw: Batch, _: &Preparation<'_>) -> Result<Supervised, CoreError> {
        let mut target = raw.take("y")?;
        target.name = "target".into();
        Ok(Supervised {
            inputs: raw,
            target: Some(target),
            labels: Vec::new(),
        })
    }
}

#[derive(Default)]
struct Still;

impl Clock for Still {
    fn now_s(&self) -> f64 {
        0.0
    }
    fn peak_memory_bytes(&self) -> Option<u64> {
        None
    }
}

/// Keeps rows; stops when it was asked this often.
#[derive(Default)]
struct Watcher {
    rows: Vec<(&'static str, Vec<Cell>)>,
    asked: u64,
    stop_at: Option<u64>,
    kept: Option<SessionState>,
}

impl Sink for Watcher {
    fn row(&mut self, table: &'static str, cells: Vec<Cell>) -> Result<(), CoreError> {
        self.rows.push((table, cells));
        Ok(())
    }
}

impl Observer for Watcher {
    fn progress(&mut self, _: &Progress) {}
    fn should_stop(&mut self) -> bool {
        self.asked += 1;
        self.stop_at.is_some_and(|at| self.asked >= at)
    }
    fn checkpoint(&mut self, state: &SessionState, _: &dyn Model) -> Result<(), CoreError> {
        self.kept = Some(state.clone());
        Ok(())
    }
    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}

type Row = BTreeMap<&'static str, Cell>;

/// What is measured, and what with.
struct Case {
    of: Field3,
    kind: FieldKind,
    precision: Precision,
    seed: u64,
    settings: Value,
    stop_at: Option<u64>,
    /// Whether the model chooses the scheme.
    chosen: bool,
}

impl Case {
    fn of(of: Field3) -> Self {
        Self {
            of,
            kind: FieldKind::Vector,
            precision: Precision::Double,
            seed: 1,
            settings: json!({}),
            stop_at: None,
            chosen: false,
        }
    }

    /// The outcome, the row of `measures`, that of `curve` at the same step, and calls into the model.
    fn run(&self) -> (Outcome, Option<[Row; 2]>, u64) {
        let (outcome, rows, calls, _) = self.run_from(None);
        (outcome, rows, calls)
    }

    /// The same from the beginning or from a checkpoint, and the last checkpoint.
    fn run_from(
        &self,
        from: Option<SessionState>,
    ) -> (Outcome, Option<[Row; 2]>, u64, Option<SessionState>) {
        let mut model = Fixed {
            of: self.of,
            kind: self.kind,
            precision: self.precision,
            calls: 0,
        };
        let schedule = Arc::new(Schedule {
            steps: vec![0, 1],
            total: 1,
        });
        let asked = ["train-and-measure", "measures"].map(|n| protocol_by_name(n).unwrap());
        let start = |name: &str| {
            let settings = match name {
                "measures" => self.settings.as_object().unwrap().clone(),
                _ => Default::default(),
            };
            (protocol_by_name(name).unwrap().start)(settings, Arc::clone(&schedule)).unwrap()
        };
        let protocols = asked.iter().map(|p| start(p.name)).collect();
        let scheme = match self.kind {
            FieldKind::VoxelGrid => Scheme::Exhaustive(FiniteGroup::Octahedral),
            _ => Scheme::parse("tetrahedral-x2").unwrap(),
        };
        let task: Arc<dyn Task> = Arc::new(Plain(self.kind));
        let config = SessionConfig {
            seed: Seed::new(0),
            training: Training {
                total_steps: 1,
                batch_size: 2,
                samples: (0..4).collect(),
                checkpoint_every: 100,
                keep_checkpoints: BTreeSet::new(),
            },
            measuring: Measuring {
                seed: Seed::new(self.seed),
                points_per_decade: 1,
                set: SampleSet {
                    name: SetName::Measured,
                    split: "valid".into(),
                    samples: SAMPLES,
                },
                final_sets: Vec::new(),
                batch_size: 3,
                scheme,
                estimator: Estimator::Unbiased,
                loss: PointLoss::Mse,
                weights: vec![Weights::Raw],
                sharing: false,
                conditions: conditions_of(&*task, &|_| None, &|_| false).unwrap(),
            },
        };
        let mut watcher = Watcher {
            stop_at: self.stop_at,
            ..Watcher::default()
        };
        let mut made = Made(self.kind);
        let source = Source::new(&mut made);
        let about = About::default();
        let mut session =
            Session::new(config, about, &mut model, &source, task, &Still, protocols).unwrap();
        if let Some(state) = from {
            session.restore(state).unwrap();
        }
        let outcome = match (self.chosen, session.chosen_scheme().cloned()) {
            (true, None) => session.choose_scheme(&mut watcher).unwrap(),
            (true, Some(choice)) => session
                .use_scheme(choice)
                .map(|()| Outcome::Finished)
                .unwrap(),
            (false, _) => Outcome::Finished,
        };
        let outcome = match outcome {
            Outcome::Finished => session.run(&mut watcher).unwrap(),
            Outcome::Stopped => Outcome::Stopped,
        };
        drop(session);
        let last = |table: &str| -> Option<Row> {
            let columns = asked.iter().flat_map(|p| (p.tables)());
            let info = columns.into_iter().find(|t| t.name == table)?;
            let names = info.columns.iter().map(|c| c.name);
            let (_, cells) = watcher.rows.iter().rfind(|(name, _)| *name == table)?;
            Some(names.zip(cells.iter().cloned()).collect())
        };
        let rows = last("measures").zip(last("curve"));
        (
            outcome,
            rows.map(|(m, c)| [m, c]),
            model.calls,
            watcher.kept,
        )
    }

    fn rows(&self) -> [Row; 2] {
        self.run().1.unwrap()
    }
}

fn real(row: &Row, column: &str) -> f64 {
    row[column]
        .real()
        .unwrap_or_else(|| panic!("{column} is empty: {row:?}"))
}

const A: [[f64; 3]; 3] = [[2.0, 0.3, -1.0], [0.0, 0.5, 0.7], [1.1, -0.2, -1.0]];
const BIAS: [f64; 3] = [0.4, -0.1, 0.3];

fn affine(x: &[f64]) -> Vec<f64> {
    let row = |x: &[f64], i: usize| (0..3).map(|j| A[i][j] * x[j]).sum::<f64>() + BIAS[i];
    x.chunks(3)
        .flat_map(|x| (0..3).map(move |i| row(x, i)))
        .collect()
}

/// Energies of degrees 1 and 2 per component: the antisymmetric part and the bias, and the symmetric part without trace.
fn affine_energies() -> [f64; 2] {
    let indices: Vec<u64> = (0..SAMPLES as u64).collect();
    let batch = Made(FieldKind::Vector).load("valid", &indices).unwrap();
    let x = batch.field("x").unwrap().reals().unwrap();
    let (points, power) = (x.len() as f64 / 3.0, x.iter().map(|x| x * x).sum::<f64>());
    let trace = (A[0][0] + A[1][1] + A[2][2]) / 3.0;
    let mut squares = [0.0; 2];
    for (i, j) in (0..9).map(|k| (k / 3, k % 3)) {
        let diagonal = if i == j { trace } else { 0.0 };
        squares[0] += (0.5 * (A[i][j] - A[j][i])).powi(2);
        squares[1] += (0.5 * (A[i][j] + A[j][i]) - diagonal).powi(2);
    }
    let bias: f64 = BIAS.iter().map(|b| b * b).sum();
    [
        (squares[0] * power / 3.0 + bias * points) / x.len() as f64,
        squares[1] * power / 3.0 / x.len() as f64,
    ]
}

#[test]
fn an_affine_map_has_the_energies_and_the_lie_derivative_of_its_closed_form() {
    let columns = [
        "energy_1",
        "energy_2",
        "energy_3",
        "energy_4",
        "energy_5",
        "energy_rest",
        "lee_sum",
        "loss_equiv",
        "pairwise",
    ];
    // Whole runs that differ in the seed of measuring.
    let runs: Vec<Row> = (0..16)
        .map(|seed| {
            let case = Case {
                seed,
                settings: json!({ "rotations": 48, "lie_rotations": 16 }),
                ..Case::of(affine)
            };
            let [own, curve] = case.rows();
            let [first, second] = affine_energies();
            // Structured rotations measure a map of degree 2 exactly.
            let ratio = real(&curve, "loss_equiv") / (first + second);
            assert!((ratio - 1.0).abs() < 1e-12, "{ratio}");
            own
        })
        .collect();
    let [first, second] = affine_energies();
    let equiv = first + second;
    let truths = [
        first,
        second,
        0.0,
        0.0,
        0.0,
        0.0,
        2.0 * first + 6.0 * second,
        equiv,
        2.0 * equiv,
    ];
    for (column, truth) in columns.into_iter().zip(truths) {
        let own: Vec<f64> = runs.iter().map(|row| real(row, column)).collect();
        let n = own.len() as f64;
        let mean = own.iter().sum::<f64>() / n;
        let se = (own.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n / (n - 1.0)).sqrt();
        // Four standard errors, nine times; and they are small enough to tell.
        assert!(
            (mean - truth).abs() < 4.0 * se,
            "{column}: {mean} ± {se}, {truth}"
        );
        assert!(se < 0.05 * truth.max(equiv), "{column}: ± {se}");
    }
}

#[test]
fn conversions_hold_in_every_row() {
    let case = Case::of(affine);
    let (_, rows, _) = case.run();
    let [own, curve] = rows.unwrap();
    let of = |column: &str| real(&own, column);
    let equiv = of("loss_equiv");
    // The same squares in another order.
    assert!((of("pairwise") / equiv / 2.0 - 1.0).abs() < 1e-12);
    let energies: f64 = (1..=5).map(|l| of(&format!("energy_{l}"))).sum();
    assert!((energies + of("energy_rest") - equiv).abs() < 1e-12 * equiv);
    assert!((of("equiv_percent") - 100.0 * equiv / of("loss_total")).abs() < 1e-12);
    assert!(equiv <= of("lee_sum") / 2.0);
    assert!((of("lee_sum") / of("lee") - 3.0).abs() < 1e-12);
    // Means of roots are at most roots of means.
    assert!(of("lee_norm") <= of("lee").sqrt());
    let degree = of("l_eff");
    assert!((degree * (degree + 1.0) * equiv / of("lee_sum") - 1.0).abs() < 1e-12);
    assert!(
        (1.0..2.0).contains(&degree),
        "degrees are 1 and 2: {degree}"
    );
    let db = 10.0 * (of("i_max").powi(2) / of("rotated_unrotated")).log10();
    assert!((of("eq_r_db") - db).abs() < 1e-12);
    assert!(of("maximum_relative") > 0.0 && of("maximum_absolute") > 0.0);
    assert_eq!((of("lee_step"), of("samples")), (0.002, SAMPLES as f64));
    // (h l)²/12 of the half step, 1.3e-6 at degree 2.
    assert!((0.0..1.4e-6).contains(&of("lee_step_change")));
    // Two batches of the measured samples: 64 rotations, the identity, 8 × 3 × 4 neighbours.
    assert_eq!(of("model_calls"), 2.0 * (64.0 + 1.0 + 96.0));
    // Sixty-four rotations of five samples against exact ones.
    let relative = real(&curve, "relative_equiv_percent") / 100.0;
    assert!((of("normalised_variance") / relative - 1.0).abs() < 0.1);
    for column in ["energy_a2", "energy_e", "energy_t1", "energy_t2"] {
        assert!(own[column].is_missing());
    }
    assert_eq!(case.rows()[0], own, "it repeats");
}

#[test]
fn what_differs_from_the_unrotated_prediction_is_the_spread_and_the_distance_from_the_twirled_one()
{
    // μ(x) = tr(A)/3 x, so |f(x) − μ(x)|² is known.
    let indices: Vec<u64> = (0..SAMPLES as u64).collect();
    let batch = Made(FieldKind::Vector).load("valid", &indices).unwrap();
    let x = batch.field("x").unwrap().reals().unwrap();
    let trace = (A[0][0] + A[1][1] + A[2][2]) / 3.0;
    let away = affine(x)
        .iter()
        .zip(x)
        .map(|(f, x)| (f - trace * x).powi(2))
        .sum::<f64>();
    let [first, second] = affine_energies();
    let truth = first + second + away / x.len() as f64;
    let runs: Vec<f64> = (0..16)
        .map(|seed| {
            real(
                &Case {
                    seed,
                    ..Case::of(affine)
                }
                .rows()[0],
                "rotated_unrotated",
            )
        })
        .collect();
    let n = runs.len() as f64;
    let mean = runs.iter().sum::<f64>() / n;
    let se = (runs.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n / (n - 1.0)).sqrt();
    assert!(
        (mean - truth).abs() < 4.0 * se && se < 0.05 * truth,
        "{mean} ± {se}, {truth}"
    );
}

#[test]
fn single_precision_gets_a_larger_step_and_the_same_lie_derivative() {
    let double = Case::of(affine).rows()[0].clone();
    let single = Case {
        precision: Precision::Single,
        ..Case::of(affine)
    };
    let single = single.rows()[0].clone();
    assert_eq!(real(&single, "lee_step"), 0.05);
    // (h l)⁴/240 at degree 2 is 4e-7; rounding of 6e-8 adds 3.6 (6e-8/0.05)² of the square of the prediction, and some 1e-6 of products.
    let ratio = real(&single, "lee_sum") / real(&double, "lee_sum");
    assert!((ratio - 1.0).abs() < 3e-6, "{ratio}");
    let set = Case {
        settings: json!({ "lie_step": 0.1, "lie_rotations": 2, "samples": 1 }),
        ..Case::of(affine)
    };
    let row = set.rows()[0].clone();
    assert_eq!((real(&row, "lee_step"), real(&row, "samples")), (0.1, 1.0));
    let none = Case {
        settings: json!({ "lie_rotations": 0 }),
        ..Case::of(affine)
    };
    let row = none.rows()[0].clone();
    for column in [
        "lee",
        "lee_sum",
        "lee_norm",
        "lee_step",
        "lee_step_change",
        "l_eff",
    ] {
        assert!(row[column].is_missing(), "{column}");
    }
    assert!(!row["energy_1"].is_missing());
}

#[test]
fn an_equivariant_model_has_nothing_but_rounding() {
    let row = Case::of(|x| x.iter().map(|x| 0.5 * x).collect()).rows()[0].clone();
    for column in [
        "loss_equiv",
        "pairwise",
        "rotated_unrotated",
        "normalised_variance",
    ] {
        // Squares of 1e-16.
        assert!(real(&row, column) < 1e-30, "{column}");
    }
    assert!(real(&row, "maximum_relative") < 1e-14);
    // (1e-16/0.002)².
    assert!(real(&row, "lee_sum") < 1e-24);
    assert!(real(&row, "eq_r_db") > 290.0);
    // Nothing is predicted: ratios have no value.
    let row = Case::of(|x| vec![0.0; x.len()]).rows()[0].clone();
    for column in [
        "maximum_relative",
        "eq_r_db",
        "normalised_variance",
        "l_eff",
        "lee_step_change",
    ] {
        assert!(row[column].is_missing(), "{column}");
    }
    assert_eq!(real(&row, "equiv_percent"), 0.0);
}

/// Neither equivariant nor linear.
fn of_grid(x: &[f64]) -> Vec<f64> {
    let each = |(k, v): (usize, &f64)| v * (1.0 + 0.2 * (k as f64).sin()) + 0.1 * v * v;
    x.iter().enumerate().map(each).collect()
}

#[test]
fn on_grids_everything_is_exact_and_equals_the_curve() {
    let case = Case {
        kind: FieldKind::VoxelGrid,
        ..Case::of(of_grid)
    };
    let [own, curve] = case.rows();
    let equiv = real(&own, "loss_equiv");
    for column in ["loss_total", "loss_equiv", "equiv_percent"] {
        let ratio = real(&own, column) / real(&curve, column);
        assert!((ratio - 1.0).abs() < 1e-12, "{column}: {ratio}");
    }
    let relative = real(&curve, "relative_equiv_percent") / 100.0;
    assert!((real(&own, "normalised_variance") / relative - 1.0).abs() < 1e-12);
    assert!((real(&own, "pairwise") / equiv / 2.0 - 1.0).abs() < 1e-12);
    let representations = ["energy_a2", "energy_e", "energy_t1", "energy_t2"];
    let sum: f64 = representations.iter().map(|c| real(&own, c)).sum();
    assert!((sum / equiv - 1.0).abs() < 1e-12);
    assert!(real(&own, "rotated_unrotated") >= equiv);
    assert_eq!(real(&own, "rotations"), 24.0);
    assert_eq!(real(&own, "model_calls"), 48.0);
    for column in [
        "lee",
        "lee_sum",
        "lee_norm",
        "lee_step",
        "l_eff",
        "energy_1",
        "energy_rest",
    ] {
        assert!(own[column].is_missing(), "{column}");
    }
}

#[test]
fn a_stop_is_answered_after_one_more_call_and_leaves_no_row() {
    let whole = Case::of(affine).run();
    assert_eq!(whole.0, Outcome::Finished);
    // The two evaluations of the curve take 24 calls for each of two batches.
    assert_eq!(whole.2, 2 * 48 + 2 * 161);
    for stop_at in [110, 200, 400] {
        let case = Case {
            stop_at: Some(stop_at),
            ..Case::of(affine)
        };
        let (outcome, rows, calls) = case.run();
        assert_eq!(outcome, Outcome::Stopped);
        assert!(rows.is_none());
        // Asked once before the first step and once before the second, then after every call.
        assert_eq!(calls, stop_at - 2);
    }
}

#[test]
fn a_scheme_that_the_model_chose_stays_for_the_run_and_stands_in_its_rows() {
    let case = Case {
        chosen: true,
        ..Case::of(affine)
    };
    let (outcome, rows, calls, _) = case.run_from(None);
    let whole = rows.unwrap();
    assert_eq!(outcome, Outcome::Finished);
    let Cell::Text(name) = whole[1]["scheme"].clone() else {
        panic!("{whole:?}")
    };
    let scheme = Scheme::parse(&name).unwrap();
    assert_ne!(name, "tetrahedral-x2", "of five samples it takes others");
    let rotations = scheme.rotations() as u64;
    assert_eq!(whole[1]["rotations"], Cell::from(rotations));
    // 64 rotations of two batches to choose by, two evaluations, and the other measures.
    assert_eq!(calls, 2 * (64 + 2 * rotations + 161));
    assert_eq!(case.rows(), whole, "it repeats");
    // What is measured is what the scheme measures where a suite names it.
    let measured = |row: &Row| real(row, "loss_equiv");
    let sampled = affine_energies().iter().sum::<f64>();
    assert!((measured(&whole[1]) / sampled - 1.0).abs() < 0.5);
    // Stopped while it chooses it has nothing to keep; stopped later it keeps the choice.
    let stopped = |at: u64| {
        let case = Case {
            stop_at: Some(at),
            chosen: true,
            ..Case::of(affine)
        };
        case.run_from(None)
    };
    let (outcome, rows, calls, kept) = stopped(30);
    assert_eq!(
        (outcome, rows, calls, kept),
        (Outcome::Stopped, None, 30, None)
    );
    let (outcome, _, _, kept) = stopped(128 + rotations + 3);
    let kept = kept.unwrap();
    assert_eq!(outcome, Outcome::Stopped);
    let choice = kept.scheme.clone().unwrap();
    assert_eq!(choice.scheme, name);
    assert!(choice.why.contains("of 5 samples err by"), "{}", choice.why);
    let (_, rows, resumed, _) = case.run_from(Some(kept));
    assert_eq!(rows.unwrap(), whole);
    assert_eq!(
        resumed,
        2 * (2 * rotations + 161),
        "it does not choose again"
    );
}

#[test]
fn where_there_is_no_equivariance_error_the_scheme_stays() {
    let case = Case {
        chosen: true,
        ..Case::of(|x| vec![0.0; x.len()])
    };
    assert_eq!(case.rows()[1]["scheme"], Cell::from("tetrahedral-x2"));
}

#[test]
fn settings_that_cannot_be_are_refused() {
    let start = protocol_by_name("measures").unwrap().start;
    for (settings, said) in [
        (
            json!({ "rotations": 2 }),
            "rotations = 2 lies outside of 3 to 4096",
        ),
        (json!({ "samples": 0 }), "samples = 0"),
        (json!({ "lie_step": -0.1 }), "lie_step = -0.1"),
        (json!({ "lie_steps": 1 }), "unknown field `lie_steps`"),
    ] {
        let settings = settings.as_object().unwrap().clone();
        let error = start(settings, Arc::default()).err().unwrap().to_string();
        assert!(
            error.contains("protocols.measures") && error.contains(said),
            "{error}"
        );
    }
}
