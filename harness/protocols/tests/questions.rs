//! Protocols that ask: what a snapshot answers, that it leaves the model as it was, that a stop is answered at once, and that a run
//! with protocols that ask is the same after an interruption.

use equivbench_core::{
    Axis, AxisRole, AxisValue, Batch, Cell, Clock, Column, Condition, CoreError, Dataset,
    Estimator, Field, FieldKind, LossPart, Model, Occasion, PointLoss, Preparation, RotatedCopies,
    Rows, Scheme, Seed, Sink, StepFigures, Supervised, Table, TableInfo, Task, Values, Weights,
    conditions_of,
};
use equivbench_protocols::{
    About, Measuring, NoSettings, Observer, Outcome, Progress, Protocol, ProtocolInfo, Running,
    SampleSet, Schedule, Session, SessionConfig, SessionState, SetName, Snapshot, Source, Training,
    protocol_by_name,
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::{Arc, LazyLock},
};

/// `f(x) = h A x + b` row by row, `h` the heat of the sample; a step moves its parameters by a fixed rule.
#[derive(Clone)]
struct Affine {
    parameters: Vec<f64>,
    calls: Rc<RefCell<u64>>,
}

impl Affine {
    fn new() -> Self {
        let parameters = (0..12).map(|i| (f64::from(i) * 0.7).sin()).collect();
        Self {
            parameters,
            calls: Rc::default(),
        }
    }

    fn each(batch: &Batch) -> Result<Vec<(f64, [f64; 3])>, CoreError> {
        let (x, heat) = (
            batch.field("positions")?.reals()?,
            batch.field("heat")?.reals()?,
        );
        let of = |row: usize| {
            let sample = Rows::Point.sample_of(&batch.offsets, row);
            (heat[sample], [x[3 * row], x[3 * row + 1], x[3 * row + 2]])
        };
        Ok((0..batch.points()).map(of).collect())
    }
}

impl Model for Affine {
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
        *self.calls.borrow_mut() += 1;
        out.clear();
        for (heat, x) in Self::each(batch)? {
            for i in 0..3 {
                let along: f64 = (0..3).map(|j| self.parameters[3 * i + j] * x[j]).sum();
                out.push(heat * along + self.parameters[9 + i]);
            }
        }
        Ok(())
    }
    fn vjp_into(
        &mut self,
        batch: &Batch,
        cotangent: &[f64],
        _: &str,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        *out = vec![0.0; 12];
        for ((heat, x), c) in Self::each(batch)?.into_iter().zip(cotangent.chunks(3)) {
            for i in 0..3 {
                (0..3).for_each(|j| out[3 * i + j] += heat * c[i] * x[j]);
                out[9 + i] += c[i];
            }
        }
        Ok(())
    }
    fn latent_into(
        &mut self,
        name: &str,
        batch: &Batch,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        assert_eq!(name, "norms");
        let norm = |(_, x): (f64, [f64; 3])| x.iter().map(|v| v * v).sum();
        *out = Self::each(batch)?.into_iter().map(norm).collect();
        Ok(())
    }
    fn train_step(&mut self, batch: &Batch) -> Result<StepFigures, CoreError> {
        let sum: f64 = batch.field("target")?.reals()?.iter().sum();
        self.parameters
            .iter_mut()
            .for_each(|p| *p = 0.9 * *p + 0.01 * sum);
        Ok(StepFigures {
            loss: sum,
            lr: 0.1,
            gradient_norm: 1.0,
        })
    }
    fn parameters_into(&self, _: &str, out: &mut Vec<f64>) -> Result<(), CoreError> {
        out.clone_from(&self.parameters);
        Ok(())
    }
    fn set_parameters(&mut self, _: &str, values: &[f64]) -> Result<(), CoreError> {
        self.parameters = values.to_vec();
        Ok(())
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        Ok(self
            .parameters
            .iter()
            .flat_map(|p| p.to_le_bytes())
            .collect())
    }
    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        let number = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap());
        self.parameters = state.chunks(8).map(number).collect();
        Ok(())
    }
    fn synchronise(&mut self) -> Result<(), CoreError> {
        Ok(())
    }
}

/// Clouds of two points, a function of their index.
struct Clouds;

impl Dataset for Clouds {
    fn samples(&self, split: &str) -> usize {
        if split == "train" { 6 } else { 4 }
    }
    fn load(&mut self, split: &str, indices: &[u64]) -> Result<Batch, CoreError> {
        let shift = if split == "train" { 0.0 } else { 100.0 };
        let values = |phase: f64| -> Vec<f64> {
            let of = |&i: &u64| {
                (0..6).map(move |k| (shift + i as f64 * 6.0 + f64::from(k) + phase).sin())
            };
            indices.iter().flat_map(of).collect()
        };
        let cloud = |name: &str, phase: f64| {
            let shape = vec![2 * indices.len(), 3];
            Field::real(name, FieldKind::Vector, Rows::Point, shape, values(phase))
        };
        Ok(Batch {
            offsets: (0..=indices.len()).map(|s| 2 * s).collect(),
            fields: vec![cloud("positions", 0.0), cloud("forces", 0.5)],
        })
    }
    fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
        BTreeMap::new()
    }
}

/// A task with an axis that the harness has never heard of.
struct Heated;

static HEAT: Axis = Axis {
    name: "heat",
    unit: "K",
    about: "how hot a sample is",
    heading: "heat",
    setting: "heats",
    role: AxisRole::Input,
    without: None,
    parse: |v| v.as_f64().map(AxisValue::Real).ok_or("no number".into()),
};

impl Task for Heated {
    fn name(&self) -> &'static str {
        "heated"
    }
    fn axes(&self) -> &'static [&'static Axis] {
        static AXES: [&Axis; 1] = [&HEAT];
        &AXES
    }
    fn axis_values(&self, _: &Axis) -> Vec<AxisValue> {
        [1.0, 2.0].map(AxisValue::Real).to_vec()
    }
    fn prepare(&self, mut raw: Batch, how: &Preparation<'_>) -> Result<Supervised, CoreError> {
        let mut target = raw.take("forces")?;
        target.name = "target".into();
        let heat = match how.occasion {
            Occasion::Training => 1.5,
            Occasion::Measurement(condition) => condition.real("heat").unwrap(),
        };
        let samples = raw.samples();
        let heats = vec![heat; samples];
        let field = Field::real(
            "heat",
            FieldKind::Invariant,
            Rows::Sample,
            vec![samples],
            heats,
        );
        raw.fields.push(field);
        Ok(Supervised {
            inputs: raw,
            target: Some(target),
            labels: Vec::new(),
        })
    }
}

/// Counts steps, 1/1024 s each.
#[derive(Default)]
struct Steps(std::cell::Cell<u64>);

impl Clock for Steps {
    fn now_s(&self) -> f64 {
        self.0.get() as f64 / 1024.0
    }
    fn step_done(&self) {
        self.0.set(self.0.get() + 1);
    }
    fn is_wall(&self) -> bool {
        false
    }
    fn peak_memory_bytes(&self) -> Option<u64> {
        None
    }
}

type WrittenRows = Vec<(String, Vec<Cell>)>;

/// Keeps rows and the last checkpoint; stops when it was asked this often.
#[derive(Default)]
struct Watcher {
    rows: WrittenRows,
    kept: Option<(SessionState, Vec<u8>, usize)>,
    asked: u64,
    stop_at: Option<u64>,
}

impl Sink for Watcher {
    fn row(&mut self, table: &'static str, cells: Vec<Cell>) -> Result<(), CoreError> {
        self.rows.push((table.into(), cells));
        Ok(())
    }
}

impl Observer for Watcher {
    fn progress(&mut self, _: &Progress) {}
    fn should_stop(&mut self) -> bool {
        self.asked += 1;
        self.stop_at.is_some_and(|at| self.asked >= at)
    }
    fn checkpoint(&mut self, state: &SessionState, model: &dyn Model) -> Result<(), CoreError> {
        self.kept = Some((state.clone(), model.save()?, self.rows.len()));
        Ok(())
    }
    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}

/// The gradients of one condition, by a step of the schedule, with a memory of its own.
struct Slopes {
    schedule: Arc<Schedule>,
    asked: u64,
}

static SLOPES: LazyLock<Table<(u64, u64, f64, f64)>> = LazyLock::new(|| Table {
    name: "slopes",
    about: "",
    columns: vec![
        Column::new("step", "", "", |r: &(u64, u64, f64, f64)| r.0),
        Column::new("asked", "", "", |r: &(u64, u64, f64, f64)| r.1),
        Column::new("gradient_norm", "", "", |r: &(u64, u64, f64, f64)| r.2),
        Column::new("elsewhere", "", "", |r: &(u64, u64, f64, f64)| r.3),
    ],
});

fn condition(heat: f64) -> Condition {
    Condition::default().with("heat", AxisValue::Real(heat))
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|v| v * v).sum::<f64>().sqrt()
}

impl Protocol for Slopes {
    const NAME: &'static str = "slopes";
    const ABOUT: &'static str = "";
    type Settings = NoSettings;
    fn tables() -> Vec<TableInfo> {
        vec![SLOPES.info()]
    }
    fn start(_: NoSettings, schedule: Arc<Schedule>) -> Self {
        Self { schedule, asked: 0 }
    }
    fn due(&self, step: u64) -> bool {
        self.schedule.holds(step)
    }
    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        self.asked += 1;
        let gradient = snapshot.gradient(LossPart::Equivariance, "all", &condition(2.0))?;
        let elsewhere = snapshot.with_parameters("all", &[0.5; 12], |snapshot| {
            snapshot.gradient(LossPart::Equivariance, "all", &condition(2.0))
        })?;
        let row = (
            snapshot.moment().step,
            self.asked,
            norm(&gradient),
            norm(&elsewhere),
        );
        SLOPES.write(sink, &row)
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        equivbench_protocols::to_bytes(&self.asked)
    }
    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        self.asked = equivbench_protocols::from_bytes(state)?;
        Ok(())
    }
}

const TOTAL: u64 = 12;

fn config() -> SessionConfig {
    SessionConfig {
        seed: Seed::new(3),
        training: Training {
            total_steps: TOTAL,
            batch_size: 2,
            samples: (0..6).collect(),
            checkpoint_every: 5,
            keep_checkpoints: BTreeSet::new(),
        },
        measuring: Measuring {
            seed: Seed::new(3),
            points_per_decade: 4,
            set: SampleSet {
                name: SetName::Measured,
                split: "valid".into(),
                samples: 4,
            },
            final_sets: Vec::new(),
            batch_size: 3,
            scheme: Scheme::parse("tetrahedral-x2").unwrap(),
            estimator: Estimator::Unbiased,
            loss: PointLoss::Mse,
            weights: vec![Weights::Raw],
            sharing: false,
            conditions: conditions_of(&Heated, &|_| None, &|_| false).unwrap(),
        },
    }
}

fn schedule() -> Arc<Schedule> {
    Arc::new(Schedule {
        steps: equivbench_protocols::evaluation_steps(TOTAL, 4),
        total: TOTAL,
    })
}

fn protocols() -> Vec<Box<dyn Running>> {
    let of = |name: &str| {
        let info = protocol_by_name(name).unwrap();
        (info.start)(Default::default(), schedule()).unwrap()
    };
    let mut all: Vec<_> = [
        "train-and-measure",
        "dip-timing",
        "final-percent",
        "gradients",
    ]
    .map(of)
    .into();
    let slopes = ProtocolInfo::of::<Slopes>();
    all.push((slopes.start)(Default::default(), schedule()).unwrap());
    all
}

/// Runs from the beginning or from a checkpoint with its rows.
fn run(
    protocols: Vec<Box<dyn Running>>,
    from: Option<(SessionState, Vec<u8>, WrittenRows)>,
    stop_at: Option<u64>,
) -> (Outcome, Watcher, u64) {
    let mut model = Affine::new();
    let mut watcher = Watcher {
        stop_at,
        ..Watcher::default()
    };
    let mut clouds = Clouds;
    let source = Source::new(&mut clouds);
    let clock = Steps::default();
    if let Some((_, state, _)) = &from {
        model.load(state).unwrap();
    }
    let calls = Rc::clone(&model.calls);
    let about = About::default();
    let task = Arc::new(Heated);
    let mut session = Session::new(
        config(),
        about,
        &mut model,
        &source,
        task,
        &clock,
        protocols,
    )
    .unwrap();
    if let Some((state, _, rows)) = from {
        session.restore(state).unwrap();
        watcher.rows = rows;
    }
    let outcome = session.run(&mut watcher).unwrap();
    let calls = *calls.borrow();
    (outcome, watcher, calls)
}

#[test]
fn an_interruption_at_any_moment_changes_no_row() {
    let (outcome, whole, _) = run(protocols(), None, None);
    assert_eq!(outcome, Outcome::Finished);
    assert!(whole.rows.iter().any(|(table, _)| table == "slopes"));
    assert!(whole.rows.iter().any(|(table, _)| table == "final"));
    // Every question of the run is a moment to stop at: between steps, and in the middle of an evaluation.
    let mut stops = 0;
    for stop_at in (1..whole.asked).step_by(37) {
        let (outcome, stopped, _) = run(protocols(), None, Some(stop_at));
        assert_eq!(outcome, Outcome::Stopped);
        let (state, model, rows) = stopped.kept.unwrap();
        assert_eq!(
            stopped.rows.len(),
            rows,
            "a moment that was not measured whole leaves no row"
        );
        let from = (state, model, stopped.rows);
        let (outcome, resumed, _) = run(protocols(), Some(from), None);
        assert_eq!(outcome, Outcome::Finished);
        assert_eq!(resumed.rows, whole.rows, "stopped at question {stop_at}");
        stops += 1;
    }
    assert!(stops > 20, "{stops}");
}

#[test]
fn a_stop_is_answered_after_one_more_call_into_the_model() {
    let (_, whole, _) = run(protocols(), None, None);
    for stop_at in [2, 9, 50] {
        assert!(stop_at < whole.asked);
        let (_, stopped, calls) = run(protocols(), None, Some(stop_at));
        // It is asked once before the first evaluation, then after every call.
        assert_eq!((stopped.asked, calls), (stop_at, stop_at - 1));
    }
}

/// Checks a snapshot and writes nothing.
struct Examiner(Arc<Schedule>);

impl Protocol for Examiner {
    const NAME: &'static str = "examiner";
    const ABOUT: &'static str = "";
    type Settings = NoSettings;
    fn tables() -> Vec<TableInfo> {
        Vec::new()
    }
    fn start(_: NoSettings, schedule: Arc<Schedule>) -> Self {
        Self(schedule)
    }
    fn due(&self, step: u64) -> bool {
        step == self.0.total
    }
    fn measure(&mut self, snapshot: &mut Snapshot<'_>, _: &mut dyn Sink) -> Result<(), CoreError> {
        let before = snapshot.parameters("all")?;
        for heat in [1.0, 2.0] {
            gradients_are_those_of_the_splits(snapshot, heat)?;
        }
        assert_eq!(snapshot.parameters("all")?, before);
        let failed: Result<(), _> = snapshot.with_parameters("all", &[1.0; 12], |_| {
            Err(CoreError::Model("no answer".into()))
        });
        assert!(failed.is_err());
        assert_eq!(
            snapshot.parameters("all")?,
            before,
            "also after a question that failed"
        );
        let batch = snapshot.frozen().batches().next().unwrap();
        let inputs = snapshot.inputs(batch, &condition(1.0))?;
        let latent = snapshot.latent("norms", &inputs.inputs)?;
        assert_eq!(latent.len(), inputs.inputs.points());
        let trained = snapshot.training_batch(4)?;
        assert_eq!(trained, snapshot.training_batch(4)?);
        assert_eq!(trained.field("heat")?.reals()?, [1.5, 1.5]);
        assert!(matches!(trained.field("target")?.values, Values::Real(_)));
        twisted_predictions_have_the_loss_of_the_split(snapshot)?;
        assert!(snapshot.split(Weights::Ema, &condition(1.0)).is_err());
        assert!(
            snapshot
                .gradient(LossPart::Total, "all", &condition(7.0))
                .is_err()
        );
        Ok(())
    }
}

fn twisted_predictions_have_the_loss_of_the_split(
    snapshot: &mut Snapshot<'_>,
) -> Result<(), CoreError> {
    let expected = snapshot
        .split(Weights::Raw, &condition(2.0))?
        .estimate
        .pooled
        .total();
    let batches: Vec<_> = snapshot.frozen().batches().collect();
    let (mut sum, mut count) = (0.0, 0.0);
    for batch in batches {
        let plans = Arc::clone(snapshot.frozen().plans(batch));
        let mut add = |copies: &RotatedCopies<'_>, _: usize, twisted: &[f64]| {
            for s in 0..copies.samples() {
                let errors = twisted[copies.range(s)].iter().zip(copies.target(s));
                sum += errors.map(|(z, y)| (z - y).powi(2)).sum::<f64>();
                count += copies.denominator(s);
            }
            Ok(())
        };
        snapshot.twisted(batch, Weights::Raw, &condition(2.0), plans, &mut add)?;
    }
    // The same sums in another order.
    assert!((sum / count / expected - 1.0).abs() < 1e-12);
    Ok(())
}

fn gradients_are_those_of_the_splits(
    snapshot: &mut Snapshot<'_>,
    heat: f64,
) -> Result<(), CoreError> {
    let (condition, before) = (condition(heat), snapshot.parameters("all")?);
    for (part, read) in [
        (LossPart::Total, 0),
        (LossPart::Twirled, 1),
        (LossPart::Equivariance, 2),
    ] {
        let gradient = snapshot.gradient(part, "all", &condition)?;
        for i in [0, 4, 11] {
            let h = 1e-4;
            let mut losses = [0.0; 2];
            for (loss, sign) in losses.iter_mut().zip([1.0, -1.0]) {
                let mut moved = before.clone();
                moved[i] += sign * h;
                *loss = snapshot.with_parameters("all", &moved, |snapshot| {
                    let pooled = snapshot.split(Weights::Raw, &condition)?.estimate.pooled;
                    Ok([pooled.total(), pooled.twirled, pooled.equivariance][read])
                })?;
            }
            let expected = (losses[0] - losses[1]) / (2.0 * h);
            // The loss is quadratic, so central differences err by rounding only: 1e-16 / h.
            assert!((gradient[i] - expected).abs() < 1e-10, "{part:?} {i}");
        }
    }
    Ok(())
}

#[test]
fn a_snapshot_answers_what_it_says_and_leaves_the_model_as_it_was() {
    let examiner = ProtocolInfo::of::<Examiner>();
    let only = vec![(examiner.start)(Default::default(), schedule()).unwrap()];
    let (outcome, watcher, _) = run(only, None, None);
    assert_eq!((outcome, watcher.rows.len()), (Outcome::Finished, 0));
}

#[test]
fn purity_follows_training_under_every_condition() {
    let info = protocol_by_name("gradients").unwrap();
    let own = vec![(info.start)(Default::default(), schedule()).unwrap()];
    let (_, watcher, _) = run(own, None, None);
    let rows = |table: &str| -> Vec<BTreeMap<&'static str, Cell>> {
        let info = (info.tables)()
            .into_iter()
            .find(|t| t.name == table)
            .unwrap();
        let names = info.columns.iter().map(|c| c.name);
        let own = watcher.rows.iter().filter(|(name, _)| name == table);
        let row =
            |(_, cells): &(String, Vec<Cell>)| names.clone().zip(cells.iter().cloned()).collect();
        own.map(row).collect()
    };
    let along = rows("gradients");
    assert_eq!(along.len(), 2 * schedule().steps.len());
    for row in &along {
        let real = |column: &str| row[column].real();
        let norms = ["norm_total", "norm_twirled", "norm_equiv"].map(|c| real(c).unwrap());
        // The gradient of L is the sum of the two others.
        let cosine = real("cosine").unwrap();
        let sum = norms[1].powi(2) + norms[2].powi(2) + 2.0 * cosine * norms[1] * norms[2];
        assert!((norms[0].powi(2) / sum - 1.0).abs() < 1e-9, "{row:?}");
        assert!((real("gradient_ratio").unwrap() * norms[1] / norms[2] - 1.0).abs() < 1e-12);
        let [left, right] = ["proposition2_left", "proposition2_right_here"].map(real);
        assert!(left <= right.map(|r| r * (1.0 + 1e-9)));
        let first = row["step"] == Cell::from(0_u64);
        assert_eq!(real("smoothness_path").is_none(), first);
    }
    let ends = rows("purity");
    assert_eq!(ends.len(), 2);
    assert!(
        ends.iter()
            .all(|row| row["pearson_r"].real().is_some_and(|r| r.abs() <= 1.0))
    );
}

#[test]
fn who_asks_second_is_told_what_the_first_was_told() {
    let of = |names: &[&str]| {
        let start = |name: &&str| {
            let info = protocol_by_name(name).unwrap();
            (info.start)(Default::default(), schedule()).unwrap()
        };
        run(names.iter().map(start).collect(), None, None).2
    };
    let one = of(&["train-and-measure"]);
    assert!(one > 0);
    assert_eq!(
        of(&["train-and-measure", "dip-timing", "final-percent"]),
        one
    );
    assert_eq!(of(&["throughput"]), 0, "nobody asks, nothing is measured");
}
