//! A model that is the baseline of its task has no skill and is never learnt; an exactly equivariant one that knows more is learnt from
//! the start, with a percent that is rounding; from pure noise there is nothing to learn.

mod support;

use equivbench_core::{
    Batch, Cell, CoreError, Dataset, Estimator, Field, FieldKind, FlowMatching, ForceField,
    Occasion, PointLoss, Preparation, Rows, Scheme, Seed, Task, TaskRequest, Values,
    VoxelDenoising, Weights, conditions_of,
};
use equivbench_protocols::{
    About, Measuring, Outcome, SampleSet, Schedule, Session, SessionConfig, SetName, Source,
    Training, evaluation_steps, protocol_by_name,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use support::{Kept, Rule, Still, Table, VECTORS};

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
    (kept.table("final"), kept.table("dip"))
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

#[test]
fn predicting_nothing_is_the_baseline_of_forces() {
    let nothing = Rule::new(VECTORS, |batch| vec![0.0; 3 * batch.points()]);
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
    let best = Rule::new(VECTORS, move |batch| {
        let times = batch.field("flow_time").unwrap().reals().unwrap();
        let x = batch.field("positions").unwrap().reals().unwrap();
        let of = |(i, x): (usize, &f64)| multiple(times[i / (3 * POINTS)]) * x;
        x.iter().enumerate().map(of).collect()
    });
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
    let affine = Rule::new(
        (FieldKind::VoxelGrid, Rows::Sample, 3 * voxels),
        move |batch| {
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
        },
    );
    // Moments from deviations here, from sums of squares there: 1e-12 of a variance.
    check_baseline(run(task, "octahedral", affine), 1e-9);
}

#[test]
fn an_exactly_equivariant_model_is_learnt_from_the_start_and_its_percent_is_rounding() {
    let towards_the_mean = Rule::new(VECTORS, |batch| {
        let x = batch.field("positions").unwrap().reals().unwrap();
        let clouds = x.chunks(3 * POINTS);
        clouds
            .flat_map(|cloud| centred(cloud.to_vec()).into_iter().map(|x| -0.9 * x))
            .collect()
    });
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
