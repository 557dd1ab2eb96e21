//! A model that is the baseline of its task has no skill and is never learnt; an exactly equivariant one that knows more is learnt from
//! the start, with a percent that is rounding; from pure noise there is nothing to learn.

use equivbench_core::{
    Batch, Cell, Clock, CoreError, Dataset, Estimator, Field, FieldKind, FlowMatching, ForceField,
    Model, Occasion, PointLoss, Preparation, Rows, Scheme, Seed, Sink, StepFigures, Task,
    TaskRequest, Values, VoxelDenoising, Weights, conditions_of,
};
use equivbench_protocols::{
    About, Measuring, Observer, Outcome, Progress, SampleSet, Schedule, Session, SessionConfig,
    SessionState, SetName, Source, Training, evaluation_steps, protocol_by_name,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a batch is answered with.
type Predict = Box<dyn Fn(&Batch) -> Vec<f64>>;

/// Predicts by a rule that training does not change.
struct Rule {
    predict: Predict,
    output: (FieldKind, Rows, usize),
}

impl Model for Rule {
    fn output_kind(&self) -> FieldKind {
        self.output.0
    }
    fn output_rows(&self) -> Rows {
        self.output.1
    }
    fn output_width(&self, _: &Batch) -> usize {
        self.output.2
    }
    fn predict_into(
        &mut self,
        batch: &Batch,
        _: Weights,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        *out = (self.predict)(batch);
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
        Err(CoreError::Model("a rule has no parameters".into()))
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

const POINTS: usize = 4;
const TRAIN: usize = 20;

/// Clouds of four points, a function of their index; two samples in a row are of one group.
struct Clouds;

/// Coordinates of a sample: every split has its own.
fn coordinates(split: &str, index: u64) -> Vec<f64> {
    let start = split.bytes().map(u64::from).sum::<u64>() + 31 * index;
    let of = |k: u64| 1.3 * ((start + k) as f64 * 1.7).sin() + 0.4 * ((start * k) as f64).cos();
    (0..3 * POINTS as u64).map(of).collect()
}

fn centred(mut cloud: Vec<f64>) -> Vec<f64> {
    for axis in 0..3 {
        let mean = cloud.iter().skip(axis).step_by(3).sum::<f64>() / POINTS as f64;
        let own = cloud.iter_mut().skip(axis).step_by(3);
        own.for_each(|x| *x -= mean);
    }
    cloud
}

/// Forces towards the mean of the cloud, and something that no rule below knows.
fn forces(split: &str, index: u64) -> Vec<f64> {
    let cloud = centred(coordinates(split, index));
    let twist = |i: usize| 0.2 * cloud[(i + 1) % cloud.len()];
    (0..cloud.len()).map(|i| -cloud[i] + twist(i)).collect()
}

impl Dataset for Clouds {
    fn samples(&self, split: &str) -> usize {
        if split == "train" { TRAIN } else { 24 }
    }
    fn load(&mut self, split: &str, indices: &[u64]) -> Result<Batch, CoreError> {
        let points = POINTS * indices.len();
        let cloud = |name: &str, of: fn(&str, u64) -> Vec<f64>| {
            let values = indices.iter().flat_map(|&i| of(split, i)).collect();
            Field::real(
                name,
                FieldKind::Vector,
                Rows::Point,
                vec![points, 3],
                values,
            )
        };
        let species = Field {
            name: "species".into(),
            kind: FieldKind::Invariant,
            rows: Rows::Point,
            shape: vec![points],
            values: Values::Index([6, 8, 1, 1].repeat(indices.len())),
        };
        Ok(Batch {
            offsets: (0..=indices.len()).map(|s| POINTS * s).collect(),
            fields: vec![
                cloud("positions", coordinates),
                species,
                cloud("forces", forces),
            ],
        })
    }
    fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
        BTreeMap::new()
    }
    fn groups(&mut self, _: &str, indices: &[u64]) -> Result<Option<Vec<u64>>, CoreError> {
        Ok(Some(indices.iter().map(|i| i / 2).collect()))
    }
}

struct Still;

impl Clock for Still {
    fn now_s(&self) -> f64 {
        0.0
    }
    fn is_wall(&self) -> bool {
        false
    }
    fn peak_memory_bytes(&self) -> Option<u64> {
        None
    }
}

#[derive(Default)]
struct Kept(Vec<(&'static str, Vec<Cell>)>);

impl Sink for Kept {
    fn row(&mut self, table: &'static str, cells: Vec<Cell>) -> Result<(), CoreError> {
        self.0.push((table, cells));
        Ok(())
    }
}

impl Observer for Kept {
    fn progress(&mut self, _: &Progress) {}
    fn should_stop(&mut self) -> bool {
        false
    }
    fn checkpoint(&mut self, _: &SessionState, _: &dyn Model) -> Result<(), CoreError> {
        Ok(())
    }
    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}

/// Rows by column name.
type Table = Vec<BTreeMap<&'static str, Cell>>;

/// What a run of two steps with this rule writes: the rows of `final` and of `dip`.
fn run(task: Arc<dyn Task>, scheme: &str, mut model: Rule) -> (Table, Table) {
    const STEPS: u64 = 2;
    let set = |name, split: &str| SampleSet {
        name,
        split: split.into(),
        samples: 20,
    };
    let config = SessionConfig {
        seed: Seed::new(1),
        training: Training {
            total_steps: STEPS,
            batch_size: 2,
            samples: (0..TRAIN as u64).collect(),
            checkpoint_every: 100,
            keep_checkpoints: BTreeSet::new(),
        },
        measuring: Measuring {
            seed: Seed::new(0),
            points_per_decade: 4,
            set: set(SetName::Measured, "valid"),
            final_sets: vec![set(SetName::Test, "test")],
            batch_size: 5,
            scheme: Scheme::parse(scheme).unwrap(),
            estimator: Estimator::Unbiased,
            loss: PointLoss::Mse,
            weights: vec![Weights::Raw],
            sharing: false,
            conditions: conditions_of(&*task, &|_| None, &|_| false).unwrap(),
        },
    };
    let schedule = Arc::new(Schedule {
        steps: evaluation_steps(STEPS, 4),
        total: STEPS,
    });
    let names = ["dip-timing", "final-percent"];
    let protocols = names.map(|name| {
        let info = protocol_by_name(name).unwrap();
        (info.start)(Default::default(), Arc::clone(&schedule)).unwrap()
    });
    let mut clouds = Clouds;
    let source = Source::new(&mut clouds);
    let mut session = Session::new(
        config,
        About::default(),
        &mut model,
        &source,
        task,
        &Still,
        protocols.into(),
    )
    .unwrap();
    let mut kept = Kept::default();
    assert_eq!(session.run(&mut kept).unwrap(), Outcome::Finished);
    let of = |name: &str| -> Table {
        let tables = equivbench_protocols::tables();
        let table = tables.into_iter().find(|t| t.name == name).unwrap();
        let names: Vec<&'static str> = table.columns.iter().map(|c| c.name).collect();
        let own = kept.0.iter().filter(|(table, _)| *table == name);
        own.map(|(_, cells)| names.iter().copied().zip(cells.iter().cloned()).collect())
            .collect()
    };
    (of("final"), of("dip"))
}

/// The baseline itself: no skill, and learnt at no threshold.
fn check_baseline(rows: (Table, Table), allowance: f64) {
    let (last, dips) = rows;
    assert!(!last.is_empty());
    for row in &last {
        let skill = row["skill"].real().unwrap();
        assert!(skill.abs() <= allowance, "{row:?}");
        assert_ne!(row["learnt"], Cell::Flag(true));
        // Twenty samples, one of each group first: all twelve groups.
        assert_eq!(
            (&row["groups"], &row["samples"]),
            (&Cell::Count(12), &Cell::Count(20))
        );
    }
    let learnt = dips
        .iter()
        .filter(|r| r["crossing"] == Cell::from("learnt"));
    for row in learnt {
        assert_eq!(row["reached"], Cell::Flag(false), "{row:?}");
        let nothing = row["flow_time"] == Cell::Real(0.0);
        let says = if nothing {
            "nothing to learn"
        } else {
            "not reached"
        };
        assert_eq!(row["status"], Cell::from(says));
    }
}

const VECTORS: (FieldKind, Rows, usize) = (FieldKind::Vector, Rows::Point, 3);

#[test]
fn predicting_nothing_is_the_baseline_of_forces() {
    let nothing = Rule {
        predict: Box::new(|batch| vec![0.0; 3 * batch.points()]),
        output: VECTORS,
    };
    check_baseline(
        run(Arc::new(ForceField::default()), "tetrahedral-x2", nothing),
        0.0,
    );
}

#[test]
fn the_best_multiple_of_the_input_is_the_baseline_of_flows() {
    // P1 of the training clouds, P0 of centred noise.
    let power = |index| {
        centred(coordinates("train", index))
            .iter()
            .map(|x| x * x)
            .sum::<f64>()
    };
    let p1 = (0..TRAIN as u64).map(power).sum::<f64>() / (3 * POINTS * TRAIN) as f64;
    let p0 = 1.0 - 1.0 / POINTS as f64;
    let multiple = move |t: f64| (t * p1 - (1.0 - t) * p0) / ((1.0 - t).powi(2) * p0 + t * t * p1);
    let best = Rule {
        predict: Box::new(move |batch| {
            let times = batch.field("flow_time").unwrap().reals().unwrap();
            let x = batch.field("positions").unwrap().reals().unwrap();
            let of = |(i, x): (usize, &f64)| multiple(times[i / (3 * POINTS)]) * x;
            x.iter().enumerate().map(of).collect()
        }),
        output: VECTORS,
    };
    // P1 is added in another order, 1e-16 for each of 240 numbers.
    check_baseline(
        run(Arc::new(FlowMatching::default()), "tetrahedral-x2", best),
        1e-9,
    );
}

#[test]
fn an_affine_function_of_each_channel_is_the_baseline_of_voxels() {
    const GRID: usize = 8;
    let settings = serde_json::json!({
        "grid": GRID, "elements": ["C", "O", "H"], "sigma": 0.5, "augmentation": "none"
    });
    let task: Arc<dyn Task> = Arc::new(
        VoxelDenoising::configure(&TaskRequest {
            settings: settings.as_object().unwrap(),
            input_width: &|_| None,
        })
        .unwrap(),
    );
    let all: Vec<u64> = (0..TRAIN as u64).collect();
    let clean = task
        .prepare(
            Clouds.load("train", &all).unwrap(),
            &Preparation {
                occasion: Occasion::Training,
                normaliser: &|_| None,
                stream: &|_| Seed::new(5).stream("noise"),
            },
        )
        .unwrap();
    let voxels = GRID * GRID * GRID;
    let lines = [0, 1, 2].map(|channel| {
        let grids = clean.target_values().unwrap().chunks(voxels).enumerate();
        let own: Vec<f64> = grids
            .filter(|(i, _)| i % 3 == channel)
            .flat_map(|(_, grid)| grid.to_vec())
            .collect();
        let mean = own.iter().sum::<f64>() / own.len() as f64;
        let variance = own.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / own.len() as f64;
        let slope = variance / (variance + 0.25);
        (slope, (1.0 - slope) * mean)
    });
    let affine = Rule {
        predict: Box::new(move |batch| {
            let noisy = batch
                .field("density")
                .unwrap()
                .values
                .widened()
                .into_owned();
            let of = |(i, y): (usize, &f64)| {
                let (slope, offset) = lines[i / voxels % 3];
                slope * y + offset
            };
            noisy.iter().enumerate().map(of).collect()
        }),
        output: (FieldKind::VoxelGrid, Rows::Sample, 3 * voxels),
    };
    // Moments from deviations here, from sums of squares there: 1e-12 of a variance.
    check_baseline(run(task, "octahedral", affine), 1e-9);
}

#[test]
fn an_exactly_equivariant_model_is_learnt_from_the_start_and_its_percent_is_rounding() {
    let towards_the_mean = Rule {
        predict: Box::new(|batch| {
            let x = batch.field("positions").unwrap().reals().unwrap();
            let clouds = x.chunks(3 * POINTS);
            clouds
                .flat_map(|cloud| centred(cloud.to_vec()).into_iter().map(|x| -0.9 * x))
                .collect()
        }),
        output: VECTORS,
    };
    let (last, dips) = run(
        Arc::new(ForceField::default()),
        "tetrahedral-x2",
        towards_the_mean,
    );
    for row in &last {
        assert_eq!(row["at_floor"], Cell::Flag(true), "{row:?}");
        // Rounding in f64: squares of 1e-16 for each number, times what a hundred sums do.
        assert!(row["floor_percent"].real().unwrap() < 1e-22, "{row:?}");
        assert_eq!(row["learnt"], Cell::Flag(true));
    }
    let percent = |r: &&BTreeMap<&str, Cell>| r["quantity"] == Cell::from("equiv_percent");
    for row in dips.iter().filter(percent) {
        assert_eq!(row["status"], Cell::from("from the start"), "{row:?}");
    }
}
