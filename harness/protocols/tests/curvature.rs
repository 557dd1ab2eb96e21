//! Hessians, landscapes and subspaces along a run, of a force head whose truth is known: linear in its weights, equivariant where its
//! components have the same ones.

#[path = "../../curvature/tests/support/mod.rs"]
mod head;
mod support;

use equivbench_core::{
    Batch, Cell, CoreError, Dataset, Estimator, Field, FieldKind, ForceField, Model, PointLoss,
    Precision, Rows, Scheme, Seed, StepFigures, Values, Weights, conditions_of,
};
use equivbench_protocols::{
    About, Measuring, OpenDouble, Outcome, SampleSet, Schedule, Session, SessionConfig, SetName,
    Source, Training, evaluation_steps, protocol_by_name,
};
use head::{Features, Head};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use support::{Kept, Still};

const STEPS: u64 = 12;

/// Clouds of three points.
struct Clouds;

impl Dataset for Clouds {
    fn samples(&self, _: &str) -> usize {
        8
    }
    fn load(&mut self, _: &str, indices: &[u64]) -> Result<Batch, CoreError> {
        let cloud = |name: &str, shift: f64| {
            let of = |&i: &u64| (0..9).map(move |k| (i as f64 * 9.0 + f64::from(k) + shift).sin());
            let values = indices.iter().flat_map(of).collect();
            let shape = vec![3 * indices.len(), 3];
            Field::real(name, FieldKind::Vector, Rows::Point, shape, values)
        };
        let species = Field {
            name: "species".into(),
            kind: FieldKind::Invariant,
            rows: Rows::Point,
            shape: vec![3 * indices.len()],
            values: Values::Index(vec![6; 3 * indices.len()]),
        };
        Ok(Batch {
            offsets: (0..=indices.len()).map(|s| 3 * s).collect(),
            fields: vec![cloud("positions", 0.0), species, cloud("forces", 0.5)],
        })
    }
    fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
        BTreeMap::new()
    }
}

/// A run with one protocol.
fn run(
    features: Features,
    keeps: bool,
    protocol: &str,
    settings: serde_json::Value,
) -> Result<Kept, String> {
    run_with(&mut Head::new(features, keeps), None, protocol, settings)
}

fn run_with(
    model: &mut dyn Model,
    double: Option<OpenDouble<'static>>,
    protocol: &str,
    settings: serde_json::Value,
) -> Result<Kept, String> {
    let mut clouds = Clouds;
    let source = Source::new(&mut clouds);
    let total = STEPS;
    let schedule = Arc::new(Schedule {
        steps: evaluation_steps(total, 4),
        total,
    });
    let info = protocol_by_name(protocol).unwrap();
    let serde_json::Value::Object(settings) = settings else {
        panic!("settings are a table");
    };
    let started = (info.start)(settings, schedule).map_err(|e| e.to_string())?;
    let set = SampleSet {
        name: SetName::Measured,
        split: "valid".into(),
        samples: 5,
    };
    let config = SessionConfig {
        seed: Seed::new(3),
        training: Training {
            total_steps: total,
            batch_size: 2,
            samples: (0..6).collect(),
            checkpoint_every: 5,
            keep_checkpoints: BTreeSet::new(),
        },
        measuring: Measuring {
            seed: Seed::new(3),
            points_per_decade: 4,
            set,
            final_sets: Vec::new(),
            batch_size: 3,
            scheme: Scheme::parse("tetrahedral-x2").unwrap(),
            estimator: Estimator::Unbiased,
            loss: PointLoss::Mse,
            weights: vec![Weights::Raw],
            sharing: false,
            conditions: conditions_of(&ForceField::default(), &|_| None, &|_| false).unwrap(),
        },
    };
    let about = About {
        batch_size: 2,
        ..About::default()
    };
    let task = Arc::new(ForceField::default());
    let mut kept = Kept::default();
    let mut session = Session::new(config, about, model, &source, task, &Still, vec![started])
        .map_err(|e| e.to_string())?;
    if let Some(open) = double {
        session = session.with_double(open);
    }
    let outcome = session.run(&mut kept).map_err(|e| e.to_string())?;
    assert_eq!(outcome, Outcome::Finished);
    drop(session);
    Ok(kept)
}

fn real(row: &BTreeMap<&'static str, Cell>, column: &str) -> f64 {
    row[column]
        .real()
        .unwrap_or_else(|| panic!("{column} of {row:?}"))
}

fn text(row: &BTreeMap<&'static str, Cell>, column: &str) -> String {
    row[column].text()
}

#[test]
fn the_sandwich_holds_at_every_evaluation_and_the_powers_are_those_of_the_theorems() {
    let kept = run(Features::Own, true, "subspace", serde_json::json!({})).unwrap();
    let along = kept.table("subspace");
    assert_eq!(along.len(), evaluation_steps(STEPS, 4).len());
    for row in &along {
        let [loss, form] = ["loss_equiv", "quadratic_form"].map(|c| real(row, c));
        // The same number by predictions and by the form: sums of hundreds of f64 products.
        assert!((loss / form - 1.0).abs() < 1e-11, "{loss} {form}");
        assert!(real(row, "lower") <= loss && loss <= real(row, "upper"));
        assert_ne!(text(row, "theorem4"), "fails");
        let deviation = real(row, "deviation");
        assert!(
            (real(row, "upper") / real(row, "lambda_max") / deviation.powi(2) - 1.0).abs() < 1e-12
        );
        // Twelve weights, of which three for each feature are one equal triple and two others.
        assert_eq!(text(row, "dimensions"), "8");
    }
    let exponents = kept.table("subspace_exponents");
    let found: Vec<(String, f64)> = exponents
        .iter()
        .map(|r| (text(r, "quantity"), real(r, "exponent")))
        .collect();
    // A linear head has the exact powers at every scale: rounding of squares of 1e-3.
    assert_eq!(found.len(), 2);
    for ((quantity, exponent), (name, power)) in found
        .iter()
        .zip([("loss_equiv", 2.0), ("gradient_norm", 1.0)])
    {
        assert_eq!(quantity, name);
        assert!((exponent - power).abs() < 1e-6, "{name} {exponent}");
    }
    assert_eq!(kept.table("subspace_scaling").len(), 11);
}

#[test]
fn a_model_that_keeps_nothing_below_has_its_deviation_and_its_powers_still() {
    let kept = run(Features::Own, false, "subspace", serde_json::json!({})).unwrap();
    let along = kept.table("subspace");
    assert!(
        along
            .iter()
            .all(|r| r["lambda_min"] == Cell::Missing && real(r, "deviation") > 0.0)
    );
    assert!(
        kept.table("subspace_exponents")
            .iter()
            .all(|r| r["exponent"].real().is_some())
    );
    // One that names no subspace has no rows.
    assert!(
        run(Features::Shared, true, "subspace", serde_json::json!({}))
            .unwrap()
            .rows
            .is_empty()
    );
}

#[test]
fn curvature_is_of_the_steps_and_groups_that_are_asked_for() {
    let kept = run(
        Features::Own,
        true,
        "curvature",
        serde_json::json!({"at": [3, "last"]}),
    )
    .unwrap();
    let rows = kept.table("condition");
    // Two steps, all weights (the subspace of the head is named by as many), in f64, as in the paper, and
    // that in f64 too, three parts.
    assert_eq!(rows.len(), 2 * 3 * 3);
    let by = |precision: &str, part: &str| {
        let own = |r: &&BTreeMap<&'static str, Cell>| {
            text(r, "step") == "3" && text(r, "precision") == precision && text(r, "part") == part
        };
        rows.iter().find(own).unwrap()
    };
    for (precision, estimator, scheme) in [
        ("f64", "unbiased", "tetrahedral-x2"),
        ("f32", "plug-in", "random-10"),
    ] {
        let row = by(precision, "loss_equiv");
        assert_eq!(
            (text(row, "estimator"), text(row, "scheme")),
            (estimator.into(), scheme.into())
        );
        assert_eq!(text(row, "method"), "gauss-newton");
        // Theorem: the subspace of equal components, four dimensions, does not show in L_equiv.
        assert!(real(row, "rank") <= 8.0);
        assert_eq!(text(row, "group"), "all");
    }
    // L is the sum of its parts.
    let loss = |part: &str| real(by("f64", part), "loss");
    assert!((loss("loss_total") - loss("loss_twirled") - loss("loss_equiv")).abs() < 1e-14);
    let spectra = kept.table("spectra");
    assert_eq!(spectra.len(), rows.len() * 12);
    let weights: f64 = spectra[..12]
        .iter()
        .map(|r| real(r, "gradient_weight"))
        .sum();
    assert!((weights - 1.0).abs() < 1e-12);
    // Whether gradients are differenced or features multiplied.
    let blind = run(
        Features::Own,
        false,
        "curvature",
        serde_json::json!({"at": [3], "paper": false}),
    )
    .unwrap();
    for row in blind.table("condition") {
        assert_eq!(text(&row, "method"), "differences");
        let exact = by("f64", &text(&row, "part"));
        // Differences err by 1e-12 of the largest eigenvalue; in the sum of w/θ behind the steps the smallest ones, 1e-7 of it, count.
        for (column, tolerance) in [
            ("lambda_max", 1e-8),
            ("gradient_norm", 1e-12),
            ("loss", 1e-12),
            ("steps_half", 1e-4),
        ] {
            let (a, b) = (real(&row, column), real(exact, column));
            assert!((a / b - 1.0).abs() < tolerance, "{column} {a} {b}");
        }
    }
}

#[test]
fn a_group_that_is_not_named_and_a_setting_that_is_not_known_are_refused() {
    let refused = |settings: serde_json::Value| {
        run(Features::Own, true, "curvature", settings)
            .err()
            .unwrap()
    };
    let unknown = refused(serde_json::json!({"at": [3], "groups": ["heads"]}));
    assert!(
        unknown.contains("heads") && unknown.contains("equivariant-subspace"),
        "{unknown}"
    );
    assert!(refused(serde_json::json!({"atoms": 3})).contains("atoms"));
    let ways = refused(serde_json::json!({"at": [3], "differences": "forward"}));
    assert!(ways.contains("central, richardson"), "{ways}");
}

#[test]
fn the_landscape_of_a_linear_head_is_the_parabola_of_its_eigenvalues() {
    let settings = serde_json::json!({"at": [4], "grid": 5, "spacing": 2.0});
    let kept = run(Features::Own, true, "landscape", settings).unwrap();
    let points = kept.table("landscape");
    assert_eq!(points.len(), 25);
    // 2 · rate 0.01 · gradient 0.5.
    let spacing = 0.01;
    let at = |i: u64, j: u64, column: &str| {
        let own = |r: &&BTreeMap<&'static str, Cell>| {
            r["i"] == Cell::Count(i) && r["j"] == Cell::Count(j)
        };
        real(points.iter().find(own).unwrap(), column)
    };
    assert_eq!(at(2, 2, "along_largest"), 0.0);
    assert!((at(4, 1, "along_largest") - 2.0 * spacing).abs() < 1e-15);
    let rough = kept.table("roughness");
    assert_eq!(rough.len(), 3);
    let second = |ends: [f64; 2], middle: f64| (ends[0] - 2.0 * middle + ends[1]) / spacing.powi(2);
    let l = |i, j| at(i, j, "loss_total");
    for (ends, lambda) in [
        ([l(1, 2), l(3, 2)], real(&rough[0], "lambda_largest")),
        ([l(2, 1), l(2, 3)], real(&rough[0], "lambda_smallest")),
    ] {
        let found = second(ends, l(2, 2));
        // Rounding of L over the square of the spacing: 1e-16 / 1e-4.
        assert!((found - lambda).abs() < 1e-10, "{found} {lambda}");
    }
    for (i, j) in [(0, 0), (4, 2), (1, 3)] {
        let parts = at(i, j, "loss_twirled") + at(i, j, "loss_equiv");
        assert!((l(i, j) - parts).abs() < 1e-14);
    }
    // Before the first step there is no rate to measure a grid by.
    let none = run(
        Features::Own,
        true,
        "landscape",
        serde_json::json!({"at": [0]}),
    )
    .unwrap();
    assert!(none.rows.is_empty());
}

/// A head in single precision, beside which protocols are given one in double.
struct Single(Head);

impl Model for Single {
    fn precision(&self) -> Precision {
        Precision::Single
    }
    fn output_kind(&self) -> FieldKind {
        self.0.output_kind()
    }
    fn output_rows(&self) -> Rows {
        self.0.output_rows()
    }
    fn output_width(&self, batch: &Batch) -> usize {
        self.0.output_width(batch)
    }
    fn predict_into(
        &mut self,
        batch: &Batch,
        weights: Weights,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        self.0.predict_into(batch, weights, out)?;
        out.iter_mut().for_each(|v| *v = f64::from(*v as f32));
        Ok(())
    }
    fn vjp_into(
        &mut self,
        _: &Batch,
        _: &[f64],
        _: &str,
        _: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        Err(CoreError::Model(
            "gradients are asked of the instance in double precision".into(),
        ))
    }
    fn groups(&self) -> Vec<(String, usize)> {
        self.0.groups()
    }
    fn project_equivariant(&mut self, values: &mut Vec<f64>) -> Result<bool, CoreError> {
        self.0.project_equivariant(values)
    }
    fn train_step(&mut self, batch: &Batch) -> Result<StepFigures, CoreError> {
        self.0.train_step(batch)
    }
    fn parameters_into(&self, group: &str, out: &mut Vec<f64>) -> Result<(), CoreError> {
        self.0.parameters_into(group, out)
    }
    fn set_parameters(&mut self, group: &str, values: &[f64]) -> Result<(), CoreError> {
        self.0.set_parameters(group, values)
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        self.0.save()
    }
    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        self.0.load(state)
    }
    fn synchronise(&mut self) -> Result<(), CoreError> {
        Ok(())
    }
}

#[test]
fn a_model_in_single_precision_is_asked_in_double() {
    let open = || Ok(Box::new(Head::new(Features::Own, true)) as Box<dyn Model>);
    for protocol in ["subspace", "landscape"] {
        let settings = || match protocol {
            "landscape" => serde_json::json!({"at": [4], "grid": 3}),
            _ => serde_json::json!({}),
        };
        let direct = run(Features::Own, true, protocol, settings()).unwrap();
        let mut single = Single(Head::new(Features::Own, true));
        let asked = run_with(&mut single, Some(Box::new(open)), protocol, settings()).unwrap();
        // The same parameters, so the same numbers.
        assert_eq!(asked.rows, direct.rows, "{protocol}");
        assert!(!asked.rows.is_empty());
    }
}
