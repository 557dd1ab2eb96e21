//! Latents of which the truth is known: invariant by construction, equivariant by construction, random, and on grids.

use equivbench_core::{
    Axis, AxisRole, AxisValue, Batch, Cell, Clock, CoreError, Dataset, Estimator, Field, FieldKind,
    LatentInfo, Model, Occasion, PointLoss, Preparation, Rows, Scheme, Seed, Sink, StepFigures,
    Supervised, Task, Weights, conditions_of,
};
use equivbench_protocols::{
    About, Measuring, Observer, Outcome, Progress, SampleSet, Schedule, Session, SessionConfig,
    SessionState, SetName, Source, Training, evaluation_steps, measure_once, protocol_by_name,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The numbers of a latent for a batch.
type Of = Box<dyn Fn(&Batch) -> Result<Vec<f64>, CoreError>>;

/// What a model shows.
type Shown = (LatentInfo, Of);

/// Predicts nothing and shows its latents.
struct Show(Vec<Shown>);

impl Model for Show {
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
        *out = vec![0.0; 3 * batch.points()];
        Ok(())
    }
    fn latents(&self) -> Vec<LatentInfo> {
        self.0.iter().map(|(info, _)| info.clone()).collect()
    }
    fn latent_into(
        &mut self,
        name: &str,
        batch: &Batch,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        let (_, of) = self.0.iter().find(|(info, _)| info.name == name).unwrap();
        *out = of(batch)?;
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
        Err(CoreError::Model("it has no parameters".into()))
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

fn shown(
    name: &str,
    kind: FieldKind,
    rows: Rows,
    width: &[usize],
    of: impl Fn(&Batch) -> Result<Vec<f64>, CoreError> + 'static,
) -> Shown {
    let info = LatentInfo {
        name: name.into(),
        kind,
        rows,
        width: width.to_vec(),
    };
    (info, Box::new(of))
}

fn positions(batch: &Batch) -> Result<Vec<f64>, CoreError> {
    Ok(batch.field("positions")?.reals()?.to_vec())
}

/// Squares and fourth powers of distances from the origin: no rotation changes them.
fn norms(batch: &Batch) -> Result<Vec<f64>, CoreError> {
    let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
    let of = |x: &[f64]| [square(x), square(x).powi(2)];
    Ok(positions(batch)?.chunks(3).flat_map(of).collect())
}

/// Eight numbers for each point that have nothing to do with each other, whatever is the least different in the input.
fn noise(seed: u64, batch: &Batch) -> Result<Vec<f64>, CoreError> {
    let of = |x: &[f64]| {
        let bits = x.iter().map(|v| v.to_bits().to_string());
        let name = bits.collect::<String>();
        (0..8).map(move |k| {
            let draw = Seed::new(8 * seed + k).derived(&name);
            (draw >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        })
    };
    Ok(positions(batch)?.chunks(3).flat_map(of).collect())
}

fn density(batch: &Batch) -> Result<Vec<f64>, CoreError> {
    Ok(batch.field("density")?.reals()?.to_vec())
}

const SAMPLES: usize = 40;

/// Clouds of three to five points; two samples in a row are of one group. With a density on a grid, or without.
struct Clouds {
    grids: bool,
}

fn points_of(index: u64) -> u64 {
    3 + index % 3
}

/// Coordinates of a sample of the measured split.
fn cloud(index: u64) -> Vec<f64> {
    let of = |k: u64| ((index * 17 + k) as f64 * 1.7).sin() + 0.3 * ((index * k) as f64).cos();
    (0..3 * points_of(index)).map(of).collect()
}

impl Dataset for Clouds {
    fn samples(&self, split: &str) -> usize {
        if split == "train" { 4 } else { SAMPLES }
    }
    fn load(&mut self, _: &str, indices: &[u64]) -> Result<Batch, CoreError> {
        let offsets: Vec<usize> = std::iter::once(0)
            .chain(indices.iter().scan(0, |end, &i| {
                *end += points_of(i) as usize;
                Some(*end)
            }))
            .collect();
        let values: Vec<f64> = indices.iter().flat_map(|&i| cloud(i)).collect();
        let field = |name: &str| {
            let shape = vec![values.len() / 3, 3];
            Field::real(name, FieldKind::Vector, Rows::Point, shape, values.clone())
        };
        let mut fields = vec![field("positions"), field("forces")];
        if self.grids {
            let of = |&i: &u64| (0..54).map(move |k| (i as f64 * 5.1 + f64::from(k)).sin());
            let shape = vec![indices.len(), 2, 3, 3, 3];
            let values = indices.iter().flat_map(of).collect();
            let kind = FieldKind::VoxelGrid;
            fields.push(Field::real("density", kind, Rows::Sample, shape, values));
        }
        Ok(Batch { offsets, fields })
    }
    fn groups(&mut self, _: &str, indices: &[u64]) -> Result<Option<Vec<u64>>, CoreError> {
        Ok(Some(indices.iter().map(|i| i / 2).collect()))
    }
    fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
        BTreeMap::new()
    }
}

/// A task with an axis that scales what the model sees.
struct Scaled;

static SCALE: Axis = Axis {
    name: "scale",
    unit: "",
    about: "factor of positions",
    heading: "scale",
    setting: "scales",
    role: AxisRole::Input,
    without: None,
    parse: |v| v.as_f64().map(AxisValue::Real).ok_or("no number".into()),
};

impl Task for Scaled {
    fn name(&self) -> &'static str {
        "scaled"
    }
    fn axes(&self) -> &'static [&'static Axis] {
        static AXES: [&Axis; 1] = [&SCALE];
        &AXES
    }
    fn axis_values(&self, _: &Axis) -> Vec<AxisValue> {
        [1.0, 2.0].map(AxisValue::Real).to_vec()
    }
    fn prepare(&self, mut raw: Batch, how: &Preparation<'_>) -> Result<Supervised, CoreError> {
        let mut target = raw.take("forces")?;
        target.name = "target".into();
        let scale = match how.occasion {
            Occasion::Training => 1.0,
            Occasion::Measurement(condition) => condition.real("scale").unwrap(),
        };
        let scaled: Vec<f64> = positions(&raw)?.iter().map(|x| scale * x).collect();
        let points = raw.points();
        raw.take("positions")?;
        let field = Field::real(
            "positions",
            FieldKind::Vector,
            Rows::Point,
            vec![points, 3],
            scaled,
        );
        raw.fields.push(field);
        Ok(Supervised {
            inputs: raw,
            target: Some(target),
            labels: Vec::new(),
        })
    }
}

#[derive(Default)]
struct Steps;

impl Clock for Steps {
    fn now_s(&self) -> f64 {
        0.0
    }
    fn peak_memory_bytes(&self) -> Option<u64> {
        None
    }
}

#[derive(Default)]
struct Kept {
    rows: Vec<(&'static str, Vec<Cell>)>,
    asked: u64,
    stop_at: Option<u64>,
}

impl Sink for Kept {
    fn row(&mut self, table: &'static str, cells: Vec<Cell>) -> Result<(), CoreError> {
        self.rows.push((table, cells));
        Ok(())
    }
}

impl Observer for Kept {
    fn progress(&mut self, _: &Progress) {}
    fn should_stop(&mut self) -> bool {
        self.asked += 1;
        self.stop_at.is_some_and(|at| self.asked >= at)
    }
    fn checkpoint(&mut self, _: &SessionState, _: &dyn Model) -> Result<(), CoreError> {
        Ok(())
    }
    fn sink(&mut self) -> &mut dyn Sink {
        self
    }
}

type Row = BTreeMap<&'static str, Cell>;

const TOTAL: u64 = 3;

fn config(task: &dyn Task) -> SessionConfig {
    SessionConfig {
        seed: Seed::new(3),
        training: Training {
            total_steps: TOTAL,
            batch_size: 2,
            samples: (0..4).collect(),
            checkpoint_every: 5,
            keep_checkpoints: BTreeSet::new(),
        },
        measuring: Measuring {
            seed: Seed::new(5),
            points_per_decade: 4,
            set: SampleSet {
                name: SetName::Measured,
                split: "valid".into(),
                samples: 6,
            },
            final_sets: Vec::new(),
            batch_size: 7,
            scheme: Scheme::parse("octahedral").unwrap(),
            estimator: Estimator::Unbiased,
            loss: PointLoss::Mse,
            weights: vec![Weights::Raw],
            sharing: false,
            conditions: conditions_of(task, &|_| None, &|_| false).unwrap(),
        },
    }
}

/// The rows of a run, or of the moment before its first step where `once`; its outcome, and how often it was asked to stop.
fn run_until(
    shown: Vec<Shown>,
    grids: bool,
    settings: serde_json::Value,
    once: bool,
    stop_at: Option<u64>,
) -> (Option<Outcome>, Kept) {
    let (mut model, mut clouds, task) = (Show(shown), Clouds { grids }, Arc::new(Scaled));
    let (source, clock) = (Source::new(&mut clouds), Steps);
    let schedule = Arc::new(Schedule {
        steps: evaluation_steps(TOTAL, 4),
        total: TOTAL,
    });
    let serde_json::Value::Object(settings) = settings else {
        panic!("settings are a table")
    };
    let info = protocol_by_name("latents").unwrap();
    let protocols = vec![(info.start)(settings, schedule).unwrap()];
    let (config, about) = (config(&*task), About::default());
    let session = Session::new(config, about, &mut model, &source, task, &clock, protocols);
    let mut session = session.unwrap();
    let mut kept = Kept {
        stop_at,
        ..Kept::default()
    };
    if once {
        measure_once(&mut session, &mut kept).unwrap();
        return (None, kept);
    }
    let outcome = session.run(&mut kept).unwrap();
    (Some(outcome), kept)
}

fn run(shown: Vec<Shown>, grids: bool, settings: serde_json::Value) -> Kept {
    run_until(shown, grids, settings, false, None).1
}

fn rows(kept: &Kept, table: &str) -> Vec<Row> {
    let info = (protocol_by_name("latents").unwrap().tables)();
    let info = info.into_iter().find(|t| t.name == table).unwrap();
    let names = info.columns.iter().map(|c| c.name);
    let own = kept.rows.iter().filter(|(name, _)| *name == table);
    own.map(|(_, cells)| names.clone().zip(cells.iter().cloned()).collect())
        .collect()
}

fn text(row: &Row, column: &str) -> String {
    row[column].text()
}

fn real(row: &Row, column: &str) -> f64 {
    row[column]
        .real()
        .unwrap_or_else(|| panic!("{column} of {row:?}"))
}

/// Rows of some columns' texts.
fn of<'a>(rows: &'a [Row], wanted: &'a [(&str, &str)]) -> Vec<&'a Row> {
    let fits = |row: &&Row| wanted.iter().all(|(c, v)| text(row, c) == *v);
    let found: Vec<&Row> = rows.iter().filter(fits).collect();
    assert!(!found.is_empty(), "{wanted:?}");
    found
}

fn known() -> Vec<Shown> {
    let (point, sample) = (Rows::Point, Rows::Sample);
    let whole = |batch: &Batch| {
        let x = norms(batch)?;
        let of = |s: usize| {
            let own = &x[2 * batch.offsets[s]..2 * batch.offsets[s + 1]];
            [own[0], own.iter().sum()]
        };
        Ok((0..batch.samples()).flat_map(of).collect())
    };
    vec![
        shown("norms", FieldKind::Invariant, point, &[2], norms),
        shown("positions", FieldKind::Vector, point, &[3], positions),
        shown("whole", FieldKind::Invariant, sample, &[2], whole),
    ]
}

#[test]
fn an_invariant_latent_is_told_from_different_samples_and_has_cosines_of_one() {
    let kept = run(known(), false, serde_json::json!({}));
    let rows = rows(&kept, "latent");
    for row in of(&rows, &[("latent", "norms")]) {
        // Rotated positions are rounded in the last place, and the cosine of nearly equal vectors sees the square of that.
        for column in ["same_lower_quartile", "same_median", "same_upper_quartile"] {
            assert!((1.0 - real(row, column)).abs() < 1e-14, "{row:?}");
        }
    }
    for reading in ["invariance", "equivariance"] {
        let pooled = [
            ("latent", "norms"),
            ("pooling", "pooled"),
            ("reading", reading),
        ];
        for row in of(&rows, &pooled) {
            let identity = ["0", "360"].contains(&text(row, "angle_degrees").as_str());
            assert!(real(row, "different_median") < 1.0);
            assert!(real(row, "cliffs_delta") > 0.99 && real(row, "rank_p") < 1e-6);
            assert!(real(row, "superiority") > 0.99);
            assert!(real(row, "median_difference_lower") > 0.0);
            let turns = if text(row, "axis") == "all" { 9 } else { 1 };
            assert_eq!(real(row, "same_count") as usize, turns * SAMPLES);
            assert_eq!((real(row, "samples"), real(row, "groups")), (40.0, 20.0));
            assert!(!identity || real(row, "same_median") == 1.0);
        }
        // Points of different molecules are not compared.
        let spatial = [
            ("latent", "norms"),
            ("pooling", "spatial"),
            ("reading", reading),
        ];
        for row in of(&rows, &spatial) {
            assert_eq!(row["different_count"], Cell::Count(0));
            assert!(row["different_median"].is_missing() && row["rank_p"].is_missing());
        }
    }
    // One row for a sample: nothing to pool.
    let whole = of(&rows, &[("latent", "whole")]);
    assert!(whole.iter().all(|row| text(row, "pooling") == "pooled"));
    // Two scales, two readings, 3 × 5 turns and all of them.
    assert_eq!(whole.len(), 2 * 2 * 16);
    assert_eq!(of(&rows, &[("latent", "norms")]).len(), 2 * 4 * 16);
}

#[test]
fn a_vector_latent_rotates_and_the_cosine_with_itself_is_that_of_the_angle() {
    let settings = serde_json::json!({"angles": [0, 30, 90, 180], "axes": ["z", "x"]});
    let kept = run(known(), false, settings);
    let samples = rows(&kept, "latent_samples");
    let own = [
        ("latent", "positions"),
        ("pooling", "spatial"),
        ("partner", ""),
    ];
    let mut seen = 0;
    for row in of(&samples, &own) {
        let axis = if text(row, "axis") == "z" { 2 } else { 0 };
        let x = cloud(real(row, "sample") as u64);
        let square = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>();
        let along: f64 = x.iter().skip(axis).step_by(3).map(|v| v * v).sum();
        let angle = real(row, "angle_degrees").to_radians();
        // x · R x = |x along the axis|² + cos(angle) |x across it|².
        let expected = (along + angle.cos() * (square(&x) - along)) / square(&x);
        let expected = if text(row, "reading") == "equivariance" {
            1.0
        } else {
            expected
        };
        // Sums of at most 15 products, a few roundings each.
        assert!((real(row, "cosine") - expected).abs() < 1e-14, "{row:?}");
        seen += 1;
    }
    assert_eq!(seen, 2 * 2 * 8 * SAMPLES);
    let latent = rows(&kept, "latent");
    let pooled = [("latent", "positions"), ("reading", "equivariance")];
    for row in of(&latent, &pooled) {
        assert!((real(row, "same_median") - 1.0).abs() < 1e-14);
    }
    let half = [
        ("latent", "positions"),
        ("reading", "invariance"),
        ("pooling", "pooled"),
        ("angle_degrees", "180"),
    ];
    for row in of(&latent, &half) {
        assert!(real(row, "same_median") < 0.9);
    }
}

#[test]
fn a_random_latent_tells_nothing_apart() {
    let one = |seed: u64| {
        let of = move |batch: &Batch| noise(seed, batch);
        shown(
            &format!("noise{seed}"),
            FieldKind::Invariant,
            Rows::Point,
            &[8],
            of,
        )
    };
    let settings = serde_json::json!({"angles": [90, 200], "axes": ["y"]});
    let kept = run((0..20).map(one).collect(), false, settings);
    let rows = rows(&kept, "latent");
    // Both readings agree: twenty latents at two scales.
    let once = [
        ("axis", "all"),
        ("pooling", "pooled"),
        ("reading", "invariance"),
    ];
    let once = of(&rows, &once);
    assert_eq!(once.len(), 40);
    let misses = |name: &str| {
        let ends = ["lower", "upper"].map(|end| format!("{name}_{end}"));
        let holds = |row: &&&Row| real(row, &ends[0]) <= 0.0 && 0.0 <= real(row, &ends[1]);
        once.len() - once.iter().filter(holds).count()
    };
    let counts = ["cliffs_delta", "median_difference"].map(misses);
    let small = once.iter().filter(|row| real(row, "rank_p") < 0.05).count();
    let delta: f64 = once
        .iter()
        .map(|row| real(row, "cliffs_delta"))
        .sum::<f64>()
        / 40.0;
    println!("misses {counts:?}, p below 0.05 {small}, mean delta {delta}");
    // Of twenty groups 92% or more are covered: three misses of forty, and three standard deviations (1.7) more.
    assert!(counts.iter().all(|misses| *misses <= 8), "{counts:?}");
    assert!(
        small <= 7,
        "{small}: two are expected, with a standard deviation of 1.4"
    );
    // One delta of 80 and 80 independent cosines has the standard deviation √(161 / 3 / 80²) = 0.092: four of the mean of forty.
    assert!(delta.abs() < 4.0 * 0.092 / 40f64.sqrt(), "{delta}");
}

#[test]
fn grids_turn_by_quarters_and_pooling_hides_it() {
    let grid = vec![
        shown(
            "density",
            FieldKind::VoxelGrid,
            Rows::Sample,
            &[2, 3, 3, 3],
            density,
        ),
        shown("norms", FieldKind::Invariant, Rows::Point, &[2], norms),
    ];
    let kept = run(grid, true, serde_json::json!({"angles": [0, 45, 90]}));
    let rows = rows(&kept, "latent");
    assert!(rows.iter().all(|row| text(row, "angle_degrees") != "45"));
    for row in of(&rows, &[("latent", "density"), ("reading", "equivariance")]) {
        assert!((real(row, "same_median") - 1.0).abs() < 1e-14);
    }
    let spatial = [
        ("latent", "density"),
        ("pooling", "spatial"),
        ("angle_degrees", "90"),
    ];
    for row in of(&rows, &spatial) {
        let invariance = text(row, "reading") == "invariance";
        assert_eq!(real(row, "same_median") < 0.9, invariance, "{row:?}");
        assert_eq!(row["different_count"], Cell::Count(SAMPLES as u64));
    }
    for row in of(&rows, &[("latent", "density"), ("pooling", "pooled")]) {
        assert!((real(row, "same_median") - 1.0).abs() < 1e-14);
    }
}

#[test]
fn samples_are_those_of_the_split_the_frozen_ones_first_and_partners_of_other_groups() {
    let settings = serde_json::json!({"samples": 9, "sample_rows": 6, "axes": ["x"]});
    let kept = run(known(), false, settings.clone());
    let samples = rows(&kept, "latent_samples");
    let mut partners: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for row in &samples {
        if !row["partner"].is_missing() {
            assert_ne!(text(row, "group"), text(row, "partner_group"));
            let partner = real(row, "partner") as u64;
            assert_eq!(text(row, "partner_group"), (partner / 2).to_string());
            partners
                .entry(real(row, "sample") as u64)
                .or_default()
                .insert(partner);
        }
    }
    assert_eq!(partners.len(), 6, "six samples leave rows");
    assert!(partners.values().all(|p| p.len() == 1), "one partner each");
    let order = Seed::new(5).permutation("measured", SAMPLES);
    let mut groups = BTreeSet::new();
    let first = order.into_iter().filter(|s| groups.insert(s / 2)).take(6);
    assert_eq!(
        partners.keys().copied().collect::<BTreeSet<_>>(),
        first.collect()
    );
    assert!(
        rows(&kept, "latent")
            .iter()
            .all(|r| real(r, "samples") == 9.0)
    );
    assert_eq!(run(known(), false, settings).rows, kept.rows);
}

#[test]
fn it_is_due_after_the_last_step_at_every_evaluation_or_when_asked() {
    let steps = |kept: &Kept| -> BTreeSet<u64> {
        let rows = rows(kept, "latent");
        rows.iter().map(|row| real(row, "step") as u64).collect()
    };
    let few = |evaluations: &str| serde_json::json!({"samples": 6, "evaluations": evaluations, "angles": [90], "axes": ["z"]});
    assert_eq!(steps(&run(known(), false, few("last"))), [TOTAL].into());
    let all = run(known(), false, few("all"));
    assert_eq!(
        steps(&all),
        evaluation_steps(TOTAL, 4).into_iter().collect()
    );
    let (_, asked) = run_until(known(), false, few("last"), true, None);
    assert_eq!(steps(&asked), [0].into());
    assert!(run(Vec::new(), false, few("all")).rows.is_empty());
    let none = serde_json::json!({"samples": 0});
    assert!(run(known(), false, none).rows.is_empty());
}

#[test]
fn a_stop_is_answered_in_the_middle_and_leaves_no_row() {
    let few = serde_json::json!({"samples": 6, "axes": ["y"]});
    let whole = run(known(), false, few.clone());
    for stop_at in [TOTAL + 3, whole.asked - 2] {
        let (outcome, kept) = run_until(known(), false, few.clone(), false, Some(stop_at));
        assert_eq!(outcome, Some(Outcome::Stopped));
        assert_eq!((kept.asked, kept.rows.len()), (stop_at, 0));
    }
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let info = protocol_by_name("latents").unwrap();
    for (key, value) in [
        ("axes", serde_json::json!(["w"])),
        ("angle", serde_json::json!([0])),
        ("samples", serde_json::json!(-1)),
    ] {
        let settings = [(key.to_owned(), value)].into_iter().collect();
        assert!((info.start)(settings, Arc::default()).is_err(), "{key}");
    }
}
