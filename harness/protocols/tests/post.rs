//! Post-processing and the number of rotations, of models whose twirled predictions are known in closed form.

mod support;

use equivbench_core::{
    AxisValue, Batch, Cell, CoreError, Dataset, Estimator, Field, FieldKind, FlowMatching,
    ForceField, PointLoss, PrincipalAxes, Rotation, Rows, Scheme, Seed, Task, TaskRequest, Values,
    VoxelDenoising, Weights, conditions_of,
};
use equivbench_protocols::{
    About, Measuring, Outcome, SampleSet, Schedule, Session, SessionConfig, SetName, Source,
    Training, evaluation_steps, protocol_by_name,
};
use std::{
    cell::Cell as Counter,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};
use support::{Kept, Rule, Still, Table, VECTORS};

const STEPS: u64 = 2;
const SAMPLES: u64 = 20;

/// What a target is, given the positions of a cloud.
type Target = fn(&[f64]) -> Vec<f64>;

/// Clouds of four to six points, a function of their index, all turned alike; two samples in a row are of one group. The last ones may be
/// rods, which have two equal principal axes.
#[derive(Clone, Copy)]
struct Clouds {
    turn: Rotation,
    target: Target,
    rods: u64,
}

impl Clouds {
    fn with(target: Target) -> Self {
        Self {
            turn: Rotation::IDENTITY,
            target,
            rods: 0,
        }
    }

    fn positions(&self, index: u64) -> Vec<f64> {
        let points = 4 + index % 3;
        let of = |k: u64| {
            let x = ((31 * index + k) as f64 * 1.7).sin() + 0.4 * ((index * k) as f64).cos();
            (1.0 + (k % 3) as f64) * x
        };
        let along = |k: u64| if k.is_multiple_of(3) { k as f64 } else { 0.0 };
        let rod = index + self.rods >= SAMPLES;
        (0..3 * points)
            .map(|k| if rod { along(k) } else { of(k) })
            .collect()
    }
}

fn turned(rotation: &Rotation, rows: &[f64]) -> Vec<f64> {
    let points = rows.chunks_exact(3);
    points
        .flat_map(|x| rotation.apply([x[0], x[1], x[2]]))
        .collect()
}

impl Dataset for Clouds {
    fn samples(&self, _: &str) -> usize {
        SAMPLES as usize
    }
    fn load(&mut self, _: &str, indices: &[u64]) -> Result<Batch, CoreError> {
        let clouds: Vec<Vec<f64>> = indices.iter().map(|&i| self.positions(i)).collect();
        let mut offsets = vec![0];
        clouds
            .iter()
            .for_each(|c| offsets.push(offsets[offsets.len() - 1] + c.len() / 3));
        let points = offsets[offsets.len() - 1];
        let field = |name: &str, of: &dyn Fn(&[f64]) -> Vec<f64>| {
            let values = clouds.iter().flat_map(|c| turned(&self.turn, &of(c)));
            let shape = vec![points, 3];
            Field::real(
                name,
                FieldKind::Vector,
                Rows::Point,
                shape,
                values.collect(),
            )
        };
        let species = Field {
            name: "species".into(),
            kind: FieldKind::Invariant,
            rows: Rows::Point,
            shape: vec![points],
            values: Values::Index(vec![6; points]),
        };
        Ok(Batch {
            fields: vec![
                field("positions", &<[f64]>::to_vec),
                species,
                field("forces", &|c| (self.target)(c)),
            ],
            offsets,
        })
    }
    fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
        BTreeMap::new()
    }
    fn groups(&mut self, _: &str, indices: &[u64]) -> Result<Option<Vec<u64>>, CoreError> {
        Ok(Some(indices.iter().map(|i| i / 2).collect()))
    }
}

/// A run of two steps with one protocol.
struct Trial<'a> {
    task: Arc<dyn Task>,
    scheme: &'a str,
    protocol: &'a str,
    settings: serde_json::Value,
    loss: PointLoss,
    weights: Vec<Weights>,
    stop_at: Option<u64>,
}

impl<'a> Trial<'a> {
    fn of(protocol: &'a str) -> Self {
        Self {
            task: Arc::new(ForceField::default()),
            scheme: "tetrahedral-x2",
            protocol,
            settings: serde_json::json!({}),
            loss: PointLoss::Mse,
            weights: vec![Weights::Raw],
            stop_at: None,
        }
    }

    fn run(self, mut clouds: Clouds, mut model: Rule) -> (Outcome, Kept) {
        let config = SessionConfig {
            seed: Seed::new(1),
            training: Training {
                total_steps: STEPS,
                batch_size: 2,
                samples: (0..SAMPLES).collect(),
                checkpoint_every: 100,
                keep_checkpoints: BTreeSet::new(),
            },
            measuring: Measuring {
                seed: Seed::new(7),
                points_per_decade: 4,
                set: SampleSet {
                    name: SetName::Measured,
                    split: "valid".into(),
                    samples: SAMPLES as usize,
                },
                final_sets: Vec::new(),
                batch_size: 8,
                scheme: Scheme::parse(self.scheme).unwrap(),
                estimator: Estimator::Unbiased,
                loss: self.loss,
                weights: self.weights,
                sharing: false,
                conditions: conditions_of(&*self.task, &|_| None, &|_| false).unwrap(),
            },
        };
        let schedule = Arc::new(Schedule {
            steps: evaluation_steps(STEPS, 4),
            total: STEPS,
        });
        let start = |name: &str, settings: serde_json::Value| {
            let info = protocol_by_name(name).unwrap();
            let settings = settings.as_object().unwrap().clone();
            (info.start)(settings, Arc::clone(&schedule)).unwrap()
        };
        let protocols = vec![
            start("final-percent", serde_json::json!({})),
            start(self.protocol, self.settings),
        ];
        let source = Source::new(&mut clouds);
        let about = About::default();
        let mut session = Session::new(
            config, about, &mut model, &source, self.task, &Still, protocols,
        )
        .unwrap();
        let mut kept = Kept {
            stop_at: self.stop_at,
            ..Kept::default()
        };
        let outcome = session.run(&mut kept).unwrap();
        (outcome, kept)
    }

    fn table(self, clouds: Clouds, model: Rule) -> Table {
        let name = self.protocol.to_owned();
        let (outcome, kept) = self.run(clouds, model);
        assert_eq!(outcome, Outcome::Finished);
        kept.table(&name)
    }
}

fn real(row: &BTreeMap<&'static str, Cell>, column: &str) -> f64 {
    row[column]
        .real()
        .unwrap_or_else(|| panic!("{column} is empty: {row:?}"))
}

fn method<'a>(rows: &'a Table, name: &str) -> &'a BTreeMap<&'static str, Cell> {
    let mut own = rows.iter().filter(|r| r["method"] == Cell::from(name));
    own.next().unwrap_or_else(|| panic!("no row {name}"))
}

fn scheme<'a>(rows: &'a Table, name: &str) -> &'a BTreeMap<&'static str, Cell> {
    let mut own = rows.iter().filter(|r| r["scheme"] == Cell::from(name));
    own.next().unwrap_or_else(|| panic!("no row {name}"))
}

/// A matrix that no rotation leaves as it is; a third of its trace is 0.5.
const A: [[f64; 3]; 3] = [[2.0, 0.3, -1.0], [0.0, 0.5, 0.7], [1.1, -0.2, -1.0]];
const TWIRLED: f64 = 0.5;

fn times(matrix: &[[f64; 3]; 3], rows: &[f64]) -> Vec<f64> {
    turned(&Rotation(*matrix), rows)
}

fn by_cloud(batch: &Batch, of: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    let x = batch.field("positions").unwrap().reals().unwrap();
    let cloud = |s: usize| of(&x[3 * batch.offsets[s]..3 * batch.offsets[s + 1]]);
    (0..batch.samples()).flat_map(cloud).collect()
}

/// `f(x) = A x`, with the averaged weights twice that.
fn linear() -> Rule {
    Rule {
        predict: Box::new(|batch, weights| {
            let factor = if weights == Weights::Ema { 2.0 } else { 1.0 };
            by_cloud(batch, |x| times(&A.map(|row| row.map(|a| factor * a)), x))
        }),
        output: VECTORS,
    }
}

/// Bends and shifts each coordinate: far from equivariant, of no finite degree.
fn bent() -> Rule {
    Rule::new(VECTORS, |batch| {
        by_cloud(batch, |x| {
            let bend = |(i, v): (usize, &f64)| (1.0 + i as f64) * v.sin() + 0.3 * (i % 3) as f64;
            x.iter().enumerate().map(bend).collect()
        })
    })
}

/// Towards the centroid, the farther the stronger.
fn attraction(x: &[f64]) -> Vec<f64> {
    let points = (x.len() / 3) as f64;
    let mean = [0, 1, 2].map(|i| x.iter().skip(i).step_by(3).sum::<f64>() / points);
    let pull = |p: &[f64]| {
        let d = [0, 1, 2].map(|i| p[i] - mean[i]);
        let square: f64 = d.iter().map(|v| v * v).sum();
        d.map(|v| -0.3 * v * square.sqrt())
    };
    x.chunks_exact(3).flat_map(pull).collect()
}

fn equivariant() -> Rule {
    Rule::new(VECTORS, |batch| by_cloud(batch, attraction))
}

/// The mean square of differences over all samples, all components alike.
fn loss_of(clouds: Clouds, predict: impl Fn(&[f64]) -> Vec<f64>) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for index in 0..SAMPLES {
        let x = clouds.positions(index);
        let y = (clouds.target)(&x);
        sum += PointLoss::Mse.sum(&predict(&x), &y, 3);
        count += y.len() as f64;
    }
    sum / count
}

fn halves(x: &[f64]) -> Vec<f64> {
    x.iter().map(|v| TWIRLED * v).collect()
}

#[test]
fn an_equivariant_model_has_the_same_loss_by_every_method_and_gains_nothing() {
    let rows = Trial::of("post").table(Clouds::with(halves), equivariant());
    let loss = loss_of(Clouds::with(halves), attraction);
    let calls = [
        ("as-is", 1),
        ("as-is-random-frame", 1),
        ("twirled-random-5", 5),
        ("twirled-random-10", 10),
        ("twirled-tetrahedral", 12),
        ("canonical-pca", 1),
        ("frame-average", 4),
    ];
    assert_eq!(rows.len(), calls.len());
    for (row, (name, calls)) in rows.iter().zip(calls) {
        assert_eq!(row["method"], Cell::from(name));
        assert_eq!(row["model_calls"], Cell::Count(calls));
        // Rounding of sums of three hundred numbers.
        assert!((real(row, "loss") / loss - 1.0).abs() < 1e-13, "{row:?}");
        assert!(real(row, "gain_percent").abs() < 1e-11, "{row:?}");
        let [lower, upper] = ["loss_sampling_lower", "loss_sampling_upper"].map(|c| real(row, c));
        assert!(lower < loss && loss < upper);
        assert!(real(row, "gain_percent_sampling_upper").abs() < 1e-11);
        assert_eq!(
            (&row["samples"], &row["groups"], &row["step"]),
            (&Cell::Count(20), &Cell::Count(10), &Cell::Count(2))
        );
    }
}

#[test]
fn a_chain_weighs_as_much_as_any_other_where_the_task_says_so() {
    let mut trial = Trial::of("post");
    trial.task = Arc::new(FlowMatching::default());
    let (_, kept) = trial.run(Clouds::with(halves), equivariant());
    let (rows, last) = (kept.table("post"), kept.table("final"));
    // Seven methods at eight flow times.
    assert_eq!((rows.len(), last.len()), (56, 8));
    for row in &rows {
        let own = last.iter().find(|r| r["flow_time"] == row["flow_time"]);
        let loss = real(own.unwrap(), "loss_total");
        assert!((real(row, "loss") / loss - 1.0).abs() < 1e-12, "{row:?}");
    }
}

#[test]
fn a_linear_map_has_the_losses_of_closed_forms() {
    // Something that no multiple of x gives.
    let clouds = Clouds::with(attraction);
    let rows = Trial::of("post").table(clouds, linear());
    let canonical = |x: &[f64]| PrincipalAxes::of(x).frames[0];
    let diagonal = [
        [A[0][0], 0.0, 0.0],
        [0.0, A[1][1], 0.0],
        [0.0, 0.0, A[2][2]],
    ];
    let in_frame = |x: &[f64], matrix: &[[f64; 3]; 3]| {
        let frame = canonical(x);
        turned(&frame.inverse(), &times(matrix, &turned(&frame, x)))
    };
    let as_is = loss_of(clouds, |x| times(&A, x));
    let twirled = loss_of(clouds, halves);
    for (name, loss) in [
        ("as-is", as_is),
        ("twirled-tetrahedral", twirled),
        ("canonical-pca", loss_of(clouds, |x| in_frame(x, &A))),
        // Over the four signs only the diagonal is left.
        ("frame-average", loss_of(clouds, |x| in_frame(x, &diagonal))),
    ] {
        let found = real(method(&rows, name), "loss");
        assert!(
            (found / loss - 1.0).abs() < 1e-12,
            "{name}: {found}, {loss}"
        );
    }
    // L_equiv = (|A|²/3 − (tr A/3)²) times the mean square of x.
    let power = loss_of(Clouds::with(|x| vec![0.0; x.len()]), <[f64]>::to_vec);
    let squares: f64 = A.iter().flatten().map(|a| a * a).sum();
    let equiv = (squares / 3.0 - TWIRLED * TWIRLED) * power;
    let random_frame = method(&rows, "as-is-random-frame");
    assert!((real(random_frame, "loss") / (twirled + equiv) - 1.0).abs() < 1e-12);
    assert_eq!(real(random_frame, "gain_percent"), 0.0);
    let gain = real(method(&rows, "twirled-tetrahedral"), "gain_percent");
    assert!((gain - 100.0 * equiv / (twirled + equiv)).abs() < 1e-10);
}

#[test]
fn the_mean_of_random_rotations_errs_by_the_equivariance_error_over_their_number() {
    let mut trial = Trial::of("post");
    trial.settings = serde_json::json!({"random": [4, 40]});
    // The target is the twirled prediction, so that this error is all there is.
    let (_, kept) = trial.run(Clouds::with(halves), linear());
    let rows = kept.table("post");
    let equiv = real(&kept.table("final")[0], "loss_equiv");
    for (name, n) in [("twirled-random-4", 4.0), ("twirled-random-40", 40.0)] {
        let found = real(method(&rows, name), "loss") * n / equiv;
        // Squares of eight near-normal entries of a matrix in each of 20 samples of unequal size, perhaps ten alike: 1/√40; four of these.
        assert!((found - 1.0).abs() < 0.64, "{name}: {found}");
    }
    assert!(real(method(&rows, "twirled-tetrahedral"), "loss") < 1e-28);
}

#[test]
fn predictions_in_frames_of_the_input_turn_with_it() {
    let run = |turn: Rotation| {
        let clouds = Clouds {
            turn,
            ..Clouds::with(halves)
        };
        Trial::of("post").table(clouds, bent())
    };
    let before = run(Rotation::IDENTITY);
    for seed in 0..3 {
        let after = run(Rotation::haar(&mut Seed::new(seed).stream("turn")));
        let change = |name: &str| {
            let losses = [&before, &after].map(|rows| real(method(rows, name), "loss"));
            (losses[0] / losses[1] - 1.0).abs()
        };
        for name in ["canonical-pca", "frame-average"] {
            // Axes are known to rounding over the smallest gap, some 1e-2.
            assert!(change(name) < 1e-11, "{name}: {}", change(name));
        }
        assert!(change("as-is") > 1e-3);
    }
}

#[test]
fn rods_are_ambiguous_and_methods_without_frames_do_not_say() {
    let clouds = Clouds {
        rods: 3,
        ..Clouds::with(halves)
    };
    let rows = Trial::of("post").table(clouds, bent());
    for row in &rows {
        let has_frame = ["canonical-pca", "frame-average"]
            .iter()
            .any(|name| row["method"] == Cell::from(*name));
        let expected = if has_frame {
            Cell::Count(3)
        } else {
            Cell::Missing
        };
        assert_eq!(row["ambiguous_samples"], expected);
    }
}

#[test]
fn averaged_weights_are_asked_where_they_are_measured_and_the_model_once_for_each_rotation() {
    let calls = Rc::new(Counter::new(0));
    let count = |mut rule: Rule| {
        let calls = Rc::clone(&calls);
        Rule {
            predict: Box::new(move |batch, weights| {
                calls.set(calls.get() + 1);
                (rule.predict)(batch, weights)
            }),
            output: VECTORS,
        }
    };
    let mut trial = Trial::of("post");
    trial.weights = vec![Weights::Raw, Weights::Ema];
    trial.loss = PointLoss::Mae;
    let rows = trial.table(Clouds::with(|x| vec![0.0; x.len()]), count(linear()));
    let of = |weights: Weights| -> Table {
        let own = |r: &&BTreeMap<_, _>| r["weights"] == Cell::from(weights.name());
        rows.iter().filter(own).cloned().collect()
    };
    let (raw, ema) = (of(Weights::Raw), of(Weights::Ema));
    assert_eq!((raw.len(), ema.len()), (7, 7));
    for (raw, ema) in raw.iter().zip(&ema) {
        // The mean absolute value of twice the prediction.
        assert!((real(ema, "loss") / real(raw, "loss") - 2.0).abs() < 1e-12);
        assert_eq!(raw["measured_loss"], Cell::from("mae"));
    }
    // Three batches, two kinds of weights: 24 rotations of the split; the frame of the data, ten and twelve rotations, four frames.
    assert_eq!(calls.get(), 3 * 2 * (24 + 27));
}

const GRID: usize = 6;

/// Voxel denoising of one channel.
fn voxels() -> Arc<dyn Task> {
    let settings = serde_json::json!({
        "grid": GRID, "elements": ["C"], "sigma": 0.5, "augmentation": "none"
    });
    let request = TaskRequest {
        settings: settings.as_object().unwrap(),
        input_width: &|_| None,
    };
    Arc::new(VoxelDenoising::configure(&request).unwrap())
}

/// The density times `1 + x/4`, which is the density itself when it is twirled.
fn slanted() -> Rule {
    let voxels = GRID * GRID * GRID;
    Rule::new((FieldKind::VoxelGrid, Rows::Sample, voxels), move |batch| {
        let density = batch
            .field("density")
            .unwrap()
            .values
            .widened()
            .into_owned();
        let middle = (GRID as f64 - 1.0) / 2.0;
        let weight = |i: usize| 1.0 + 0.25 * ((i % voxels / (GRID * GRID)) as f64 - middle);
        let values = density.iter().enumerate();
        values.map(|(i, v)| v * weight(i)).collect()
    })
}

#[test]
fn grids_are_turned_by_the_rotations_of_the_cube_and_have_no_frames() {
    let mut trial = Trial::of("post");
    (trial.task, trial.scheme) = (voxels(), "octahedral");
    let (_, kept) = trial.run(Clouds::with(halves), slanted());
    let (rows, last) = (kept.table("post"), kept.table("final"));
    let names: Vec<String> = rows.iter().map(|r| r["method"].text()).collect();
    assert_eq!(
        names,
        [
            "as-is",
            "as-is-random-frame",
            "twirled-random-5",
            "twirled-random-10",
            "twirled-tetrahedral",
            "twirled-octahedral"
        ]
    );
    let loss = |name: &str| real(method(&rows, name), "loss");
    let [twirled, equiv] = ["loss_twirled", "loss_equiv"].map(|c| real(&last[0], c));
    for name in ["twirled-tetrahedral", "twirled-octahedral"] {
        assert!((loss(name) / twirled - 1.0).abs() < 1e-12, "{name}");
    }
    assert!((loss("as-is-random-frame") / (twirled + equiv) - 1.0).abs() < 1e-12);
    // Drawn without replacement: L_equiv/n (24 − n)/23. A slant along one of six directions: a chi-square of three for each sample.
    for (name, n) in [("twirled-random-5", 5.0), ("twirled-random-10", 10.0)] {
        let expected = equiv / n * (24.0 - n) / 23.0;
        let found = (loss(name) - twirled) / expected;
        assert!(
            (found - 1.0).abs() < 5.0 * (2.0 / 60.0_f64).sqrt(),
            "{name}: {found}"
        );
    }
    assert_eq!(
        method(&rows, "twirled-octahedral")["model_calls"],
        Cell::Count(24)
    );
}

#[test]
fn structured_sets_twirl_a_linear_map_exactly_and_random_ones_err_by_the_spread_over_their_number()
{
    let repeats = 60;
    let mut trial = Trial::of("rotations");
    trial.settings = serde_json::json!({"repeats": repeats, "samples": 5});
    let rows = trial.table(Clouds::with(attraction), linear());
    let names: Vec<String> = rows.iter().map(|r| r["scheme"].text()).collect();
    assert_eq!(
        names,
        [
            "random-2",
            "random-3",
            "random-5",
            "random-10",
            "random-24",
            "tetrahedral-x1",
            "tetrahedral-x2",
            "octahedral-x1",
            "octahedral-x2",
            "icosahedral-x1"
        ]
    );
    for row in &rows {
        assert_eq!(
            (&row["samples"], &row["repeats"]),
            (&Cell::Count(5), &Cell::Count(repeats))
        );
        assert_eq!(row["model_calls"], Cell::Count(240 + 129 * repeats));
        assert!(real(row, "reference_rms") < 1e-14);
        let (percent, equiv) = (
            real(row, "equiv_percent_reference"),
            real(row, "loss_equiv_reference"),
        );
        let plug_in = real(row, "equiv_percent_plug_in");
        assert!((plug_in - percent - real(row, "equiv_percent_plug_in_bias")).abs() < 1e-12);
        let name = row["scheme"].text();
        let Some(n) = name.strip_prefix("random-") else {
            // Rounding of means of up to 60 numbers of order one to ten.
            assert!(real(row, "twirl_rms_uncorrected") < 1e-14, "{row:?}");
            assert!(real(row, "equiv_percent_plug_in_bias").abs() < 1e-11);
            let has_unbiased = name.ends_with("x2");
            assert_eq!(row["equiv_percent_unbiased"].is_missing(), !has_unbiased);
            assert_eq!(row["loss_equiv_unbiased_sd"].is_missing(), !has_unbiased);
            continue;
        };
        let n: f64 = n.parse().unwrap();
        let (rms, sd) = (real(row, "twirl_rms"), real(row, "twirl_rms_sd"));
        assert!((rms / real(row, "twirl_rms_uncorrected") - 1.0).abs() < 1e-12);
        let expected = (equiv / n).sqrt();
        let error = sd / (repeats as f64).sqrt();
        // Four standard errors.
        assert!((rms - expected).abs() < 4.0 * error, "{row:?}");
        let relative = real(row, "twirl_rms_relative") * real(row, "twirled_rms");
        assert!((relative / rms - 1.0).abs() < 1e-12);
        let error = real(row, "loss_equiv_plug_in_sd") / (repeats as f64).sqrt();
        let bias = real(row, "loss_equiv_plug_in_bias");
        assert!((bias + equiv / n).abs() < 4.0 * error, "{row:?}");
        let error = real(row, "loss_equiv_unbiased_sd") / (repeats as f64).sqrt();
        assert!(real(row, "loss_equiv_unbiased_bias").abs() < 4.0 * error);
    }
}

#[test]
fn the_error_of_a_sampled_reference_is_known_and_taken_out() {
    let mut trial = Trial::of("rotations");
    trial.settings = serde_json::json!({"repeats": 60, "samples": 20, "reference": "random-30"});
    let rows = trial.table(Clouds::with(halves), linear());
    for n in [2.0, 5.0, 24.0] {
        let row = scheme(&rows, &format!("random-{n}"));
        let equiv = real(row, "loss_equiv_reference");
        let reference = real(row, "reference_rms");
        // E = L_equiv/30, from 29 degrees of freedom in each of 20 samples.
        assert!(
            (reference.powi(2) * 30.0 / equiv - 1.0).abs() < 0.05,
            "{row:?}"
        );
        let corrected = real(row, "twirl_rms").powi(2) * n / equiv;
        let uncorrected = real(row, "twirl_rms_uncorrected").powi(2) * n / equiv;
        assert!((uncorrected - corrected - n / 30.0).abs() < 0.05 * n / 30.0);
        // The reference's own error is the same in all repeats: 20 samples with eight entries each, 1/√80 of it; four of these.
        let known = 4.0 * n / 30.0 / 80.0_f64.sqrt() + 0.1;
        assert!((corrected - 1.0).abs() < known, "{row:?}");
    }
    // A structured twirl is exact: the distance is the error of the reference.
    let row = scheme(&rows, "tetrahedral-x1");
    let ratio = real(row, "twirl_rms_uncorrected") / real(row, "reference_rms");
    assert!((ratio - 1.0).abs() < 4.0 / 160.0_f64.sqrt(), "{ratio}");
}

#[test]
fn a_group_that_is_summed_out_is_exact_and_its_subsets_err_as_finite_populations_do() {
    let mut trial = Trial::of("rotations");
    (trial.task, trial.scheme) = (voxels(), "octahedral");
    trial.settings = serde_json::json!({"repeats": 100, "samples": 6});
    let rows = trial.table(Clouds::with(halves), slanted());
    let names: Vec<String> = rows.iter().map(|r| r["scheme"].text()).collect();
    assert_eq!(
        names,
        [
            "random-2",
            "random-3",
            "random-5",
            "random-10",
            "tetrahedral",
            "cube16-a",
            "cube16-b",
            "octahedral"
        ]
    );
    for row in &rows {
        assert_eq!(row["model_calls"], Cell::Count(24));
        assert_eq!(row["reference_rms"], Cell::Real(0.0));
        assert!(row["cosets"].is_missing());
        let name = row["scheme"].text();
        let equiv = real(row, "loss_equiv_reference");
        let Some(n) = name.strip_prefix("random-") else {
            assert_eq!(row["repeats"], Cell::Count(1));
            assert!(row["equiv_percent_unbiased"].is_missing());
            assert!(row["twirl_rms_sd"].is_missing());
            continue;
        };
        let n: f64 = n.parse().unwrap();
        let expected = (equiv / n * (24.0 - n) / 23.0).sqrt();
        let error = real(row, "twirl_rms_sd") / 10.0;
        assert!(
            (real(row, "twirl_rms") - expected).abs() < 4.0 * error,
            "{row:?}"
        );
        let error = real(row, "loss_equiv_unbiased_sd") / 10.0;
        assert!(real(row, "loss_equiv_unbiased_bias").abs() < 4.0 * error);
        let error = real(row, "loss_equiv_plug_in_sd") / 10.0;
        let plug_in = equiv * (1.0 - (24.0 - n) / 23.0 / n);
        assert!((real(row, "loss_equiv_plug_in") - plug_in).abs() < 4.0 * error);
    }
    let rms = |name: &str| real(scheme(&rows, name), "twirl_rms");
    assert_eq!(rms("octahedral"), 0.0);
    // Every direction as often as its opposite: the slant is gone. Twelve numbers are added in another order than 24.
    assert!(rms("tetrahedral") < 1e-15);
    // So it is in both sets of sixteen.
    assert!(rms("cube16-a") < 1e-15 && rms("cube16-b") < 1e-15);
}

#[test]
fn steps_are_chosen_by_a_setting_and_wrong_settings_are_refused_before_a_run() {
    for name in ["post", "rotations"] {
        let info = protocol_by_name(name).unwrap();
        let start = |settings: serde_json::Value| {
            let schedule = Arc::new(Schedule {
                steps: vec![0, 9],
                total: 9,
            });
            (info.start)(settings.as_object().unwrap().clone(), schedule)
        };
        let due = |settings: serde_json::Value| -> Vec<u64> {
            let protocol = start(settings).unwrap();
            (0..=9).filter(|step| protocol.due(*step)).collect()
        };
        assert_eq!(due(serde_json::json!({})), [9]);
        assert_eq!(due(serde_json::json!({"at": [0, 4, "last"]})), [0, 4, 9]);
        let refused = |settings| start(settings).map(|_| ()).unwrap_err().to_string();
        let error = refused(serde_json::json!({"at": ["first"]}));
        assert!(error.contains("neither a step nor \"last\""), "{error}");
        assert!(refused(serde_json::json!({"att": []})).contains("`att`"));
        let (key, value, said) = match name {
            "post" => ("random", serde_json::json!([0]), "nonzero"),
            _ => (
                "reference",
                serde_json::json!("icosaedral-x4"),
                "icosahedral-xK",
            ),
        };
        let error = refused(serde_json::json!({ key: value }));
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_stop_in_the_middle_of_many_rotations_is_answered_and_leaves_no_row() {
    for (name, settings) in [
        ("post", serde_json::json!({})),
        ("rotations", serde_json::json!({"repeats": 2})),
    ] {
        let run = |stop_at| {
            let mut trial = Trial::of(name);
            (trial.settings, trial.stop_at) = (settings.clone(), stop_at);
            trial.run(Clouds::with(halves), linear())
        };
        let (outcome, whole) = run(None);
        assert_eq!(outcome, Outcome::Finished);
        for stop_at in [whole.asked / 2, whole.asked - 1] {
            let (outcome, kept) = run(Some(stop_at));
            assert_eq!((outcome, kept.asked), (Outcome::Stopped, stop_at));
            assert!(kept.table(name).is_empty());
        }
        let again = run(None).1;
        assert_eq!(again.rows, whole.rows, "the same numbers each time");
    }
}

#[test]
fn a_condition_value_is_in_every_row() {
    let mut trial = Trial::of("rotations");
    trial.task = Arc::new(FlowMatching::default());
    trial.settings = serde_json::json!({"repeats": 1, "samples": 2});
    let rows = trial.table(Clouds::with(halves), equivariant());
    assert_eq!(rows.len(), 8 * 10);
    let times: BTreeSet<String> = rows.iter().map(|r| r["flow_time"].text()).collect();
    assert_eq!(times.len(), 8);
    assert!(rows.iter().all(|r| r["twirl_rms_sd"].is_missing()));
    let zero = Cell::from(AxisValue::Real(0.0));
    assert!(rows.iter().any(|r| r["flow_time"] == zero));
}
