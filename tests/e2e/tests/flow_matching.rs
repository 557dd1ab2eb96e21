//! Proteina through the boundary: an exactly equivariant model measures as one, the blind decomposition equals the reference's, and a
//! run gives every table for every flow time.

use equivbench_abi::descriptor::ModelRequest;
use equivbench_core::{
    Batch, Condition, Estimator, Field, FieldKind, FlowMatching, MeasuredSample, Measurement,
    Model, PointLoss, Portion, Reading, Rotation, RotationPlan, Rows, SampleTerms, Seed,
    Supervised, Task, Values, Weights, conditions_of, measure_stream, pool,
};
use equivbench_e2e::{csv_files, equivbench, library, numbers, table};
use equivbench_host::{Library, LoadedModel};
use equivbench_testkit::{Array, read_arrays, transpose};
use std::sync::Arc;
use std::{collections::BTreeMap, path::Path};

/// A reference model with its inputs and results.
struct Fixture {
    name: String,
    arrays: BTreeMap<String, Array>,
    config: String,
}

impl Fixture {
    /// The fixtures of this model: our own, and the reference's where they are there.
    fn all() -> Vec<Self> {
        equivbench_testkit::fixtures("proteina", |path| {
            let text = std::fs::read_to_string(path).unwrap();
            let config: serde_json::Value = serde_json::from_str(&text).unwrap();
            let file = path.file_name().unwrap().to_string_lossy();
            let name = file.strip_suffix(".config.json").unwrap().to_owned();
            config["nn"]["token_dim"].is_u64().then(|| Self {
                arrays: read_arrays(&path.with_file_name(format!("{name}.safetensors"))),
                name,
                config: our_config(&config["nn"]),
            })
        })
    }

    fn array(&self, name: &str) -> &Array {
        self.arrays
            .get(name)
            .unwrap_or_else(|| panic!("{}: no {name}", self.name))
    }

    fn scalar(&self, name: &str) -> f64 {
        self.array(name).values[0]
    }

    /// The rows of valid residues of a padded array `[proteins, residues, width]`.
    fn valid(&self, name: &str) -> Vec<f64> {
        let (array, mask) = (self.array(name), &self.array("in.mask").values);
        let width = array.values.len() / mask.len();
        let rows = array.values.chunks(width).zip(mask);
        rows.filter(|(_, m)| **m > 0.0)
            .flat_map(|(row, _)| row.iter().copied())
            .collect()
    }

    fn samples(&self) -> Supervised {
        let shape = &self.array("in.mask").shape;
        let sizes = self
            .array("in.mask")
            .values
            .chunks(shape[1])
            .map(|m| m.iter().filter(|v| **v > 0.0).count());
        let offsets: Vec<usize> = std::iter::once(0)
            .chain(sizes.scan(0, |end, n| {
                *end += n;
                Some(*end)
            }))
            .collect();
        let points = offsets[shape[0]];
        let cloud = |name: &str, from: &str| {
            Field::real(
                name,
                FieldKind::Vector,
                Rows::Point,
                vec![points, 3],
                self.valid(from),
            )
        };
        let labels = |name: &str, from: &str| Field {
            name: name.into(),
            kind: FieldKind::Invariant,
            rows: Rows::Point,
            shape: vec![points],
            values: Values::Index(self.valid(from).iter().map(|&v| v as i64).collect()),
        };
        let fields = vec![
            cloud("positions", "in.x_t"),
            labels("residue_index", "in.residue_pdb_idx"),
            labels("chain_break", "in.chain_breaks_per_residue"),
            Field::real(
                "flow_time",
                FieldKind::Invariant,
                Rows::Sample,
                vec![shape[0]],
                self.array("in.t").values.clone(),
            ),
        ];
        Supervised {
            inputs: Batch { offsets, fields },
            target: Some(cloud("target", "in.target")),
            labels: Vec::new(),
        }
    }

    /// The rotations of the fixture for every sample, as independent draws.
    fn plans(&self, samples: usize) -> Vec<RotationPlan> {
        let matrix =
            |m: &[f64]| Rotation([[m[0], m[1], m[2]], [m[3], m[4], m[5]], [m[6], m[7], m[8]]]);
        let rotations: Vec<Rotation> = self
            .array("in.rotations")
            .values
            .chunks(9)
            .map(matrix)
            .collect();
        vec![
            RotationPlan {
                cosets: rotations.len(),
                rotations
            };
            samples
        ]
    }

    /// The plugin's model with the weights of the fixture.
    fn model(&self, precision: &str) -> LoadedModel {
        let plugin = Library::open(&library("equivbench_proteina")).unwrap();
        let request = ModelRequest {
            model: "proteina".into(),
            size: "nano".into(),
            config: self.config.clone(),
            precision: precision.into(),
            ..Default::default()
        };
        let mut model = plugin.open_model(&request).unwrap();
        let values: Vec<f64> = model
            .instance()
            .parameters
            .iter()
            .flat_map(|p| self.weight(&p.name, &p.shape))
            .collect();
        model.set_parameters("all", &values).unwrap();
        model
    }

    /// A parameter in the layout of the plugin: matrices `[in, out]`.
    fn weight(&self, name: &str, shape: &[u64]) -> Vec<f64> {
        let array = self.array(&format!("w.{name}"));
        if shape.len() == 2 && name.ends_with(".weight") {
            return transpose(&array.values, array.shape[0], array.shape[1]);
        }
        array.values.clone()
    }

    /// The terms of every sample, each averaged over its components, for both variants.
    fn measure(&self, precision: &str, estimator: Estimator) -> Vec<Vec<SampleTerms>> {
        let samples = self.samples();
        let how = Measurement {
            weights: Weights::Raw,
            loss: PointLoss::Mse,
            estimator,
        };
        let plans = self.plans(samples.inputs.samples());
        let portion = Portion {
            readings: readings(),
            ..Portion::new(samples, &plans, how)
        };
        let portions = std::iter::once(Ok(portion));
        let mut model = self.model(precision);
        let measured = measure_stream(&mut model, &FlowMatching::default(), portions, &mut || {
            Ok(())
        })
        .unwrap();
        measured[0]
            .readings
            .iter()
            .map(|(_, terms)| terms.iter().map(SampleTerms::averaged).collect())
            .collect()
    }
}

/// Both variants at one flow time.
fn readings() -> Arc<[Reading]> {
    let conditions = conditions_of(&FlowMatching::default(), &|_| None, &|_| true).unwrap();
    let reading = |condition: &Condition| Reading {
        pass: FlowMatching::default().pass(condition),
        condition: condition.clone(),
    };
    conditions
        .iter()
        .take(VARIANTS.len())
        .map(reading)
        .collect()
}

const VARIANTS: [&str; 2] = ["plain", "self-conditioned"];

/// The keys of the reference's configuration in the words of the plugin.
fn our_config(nn: &serde_json::Value) -> String {
    let update = if nn["update_pair_repr"] == true {
        nn["update_pair_repr_every_n"].clone()
    } else {
        0.into()
    };
    serde_json::json!({
        "token_width": nn["token_dim"],
        "heads": nn["nheads"],
        "layers": nn["nlayers"],
        "conditioning_width": nn["dim_cond"],
        "pair_width": nn["pair_repr_dim"],
        "triangle_width": nn["tri_mult_c"].as_u64().unwrap_or(1),
        "time_width": nn["t_emb_dim"],
        "index_width": nn["idx_emb_dim"],
        "fold_width": nn["fold_emb_dim"],
        "position_bins": nn["xt_pair_dist_dim"],
        "position_from_nm": nn["xt_pair_dist_min"],
        "position_to_nm": nn["xt_pair_dist_max"],
        "self_conditioning_bins": nn["x_sc_pair_dist_dim"],
        "self_conditioning_from_nm": nn["x_sc_pair_dist_min"],
        "self_conditioning_to_nm": nn["x_sc_pair_dist_max"],
        "sequence_separation_bins": nn["seq_sep_dim"],
        "registers": nn["num_registers"],
        "distogram_bins": nn["num_buckets_predict_pair"],
        "update_every": update,
        "chain_break_first": nn["feats_init_seq"][1] == "chain_break_per_res",
    })
    .to_string()
}

#[test]
fn an_equivariant_control_has_no_equivariance_error_through_the_boundary() {
    let controls: Vec<Fixture> = Fixture::all()
        .into_iter()
        .filter(|f| f.name.ends_with("equivariant_control"))
        .collect();
    assert!(!controls.is_empty());
    for control in &controls {
        for (precision, bound) in [("f64", 1e-24), ("f32", 1e-8)] {
            check_control(control, precision, bound);
        }
    }
}

fn check_control(control: &Fixture, precision: &str, bound: f64) {
    for (terms, variant) in control
        .measure(precision, Estimator::Unbiased)
        .iter()
        .zip(VARIANTS)
    {
        let estimate = pool(&MeasuredSample::independent(terms), true, Seed::new(0));
        let ratio = estimate.pooled.equivariance / estimate.pooled.total();
        println!(
            "{} {precision} {}: L = {}, L_equiv/L = {ratio:.2e}",
            control.name,
            variant,
            estimate.pooled.total()
        );
        assert!(ratio < bound, "{precision} {}: {ratio:e}", variant);
        if variant == VARIANTS[0] {
            // The reference's own f32 velocities deviate by 6.3e-5 on a scale of 8.5.
            assert!((estimate.pooled.total() / control.scalar("out.L") - 1.0).abs() < 1e-4);
        }
    }
}

#[test]
fn the_blind_decomposition_equals_the_reference_in_both_variants() {
    let fixtures: Vec<Fixture> = Fixture::all()
        .into_iter()
        .filter(|f| f.arrays.contains_key("out.L_mean"))
        .collect();
    for fixture in fixtures {
        for (terms, prefix) in fixture
            .measure("f64", Estimator::PlugIn)
            .iter()
            .zip(["out.", "out.sc."])
        {
            let estimate = pool(&MeasuredSample::independent(terms), true, Seed::new(0));
            let loss = estimate.pooled;
            for (name, ours) in [
                ("L", loss.total()),
                ("L_mean", loss.twirled),
                ("L_equiv", loss.equivariance),
            ] {
                let theirs = fixture.scalar(&format!("{prefix}{name}"));
                println!(
                    "{} {prefix}{name}: {ours:.6} deviates by {:.1e}",
                    fixture.name,
                    (ours / theirs - 1.0).abs()
                );
                // The fixtures' own tolerance; rounding leaves 1e-14.
                assert!(
                    (ours / theirs - 1.0).abs() < 1e-10,
                    "{} {prefix}{name}: {ours} instead of {theirs}",
                    fixture.name
                );
            }
        }
    }
}

/// A small, fast run of Proteina.
fn run(out: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    let path = out.to_string_lossy();
    let mut arguments = vec![
        "run",
        "--quiet",
        "--plugins",
        "proteina",
        "--out",
        &path,
        "--set",
        "run.clock=steps",
        "--seeds",
        "1",
    ];
    arguments.extend([
        "--set",
        "train.steps=20",
        "--set",
        "measure.samples=3",
        "--set",
        "measure.scheme=random-3",
    ]);
    arguments.extend(more);
    equivbench(&arguments).assert()
}

#[test]
fn a_run_has_rows_for_every_flow_time_and_variant_and_repeats() {
    let folder = tempfile::tempdir().unwrap();
    let times = "measure.flow_times=[0.0, 0.5, 0.9]";
    let variants = r#"measure.variants=["plain", "self-conditioned"]"#;
    let outs = ["one", "two"].map(|name| folder.path().join(name));
    for (out, threads) in outs.iter().zip(["run.threads=1", "run.threads=2"]) {
        let settings = ["--set", times, "--set", variants, "--set", threads];
        run(out, &settings).success();
    }
    for ((name, one), (_, two)) in csv_files(&outs[0]).into_iter().zip(csv_files(&outs[1])) {
        // throughput.csv says how many threads there were.
        assert!(
            one == two || name == "throughput.csv",
            "{name} depends on the number of threads"
        );
    }
    let out = &outs[0];
    let column = |name: &str| numbers(out, "curve", name, |_| true);
    let (total, twirled, equiv, time) = (
        column("loss_total"),
        column("loss_twirled"),
        column("loss_equiv"),
        column("flow_time"),
    );
    for ((l, m), e) in total.iter().zip(&twirled).zip(&equiv) {
        // What the tables promise; they are written with all digits.
        assert!(
            (l - m - e).abs() <= 1e-9 * l.abs() && *e >= 0.0,
            "{l} is not {m} + {e}"
        );
    }
    for ((x1, l), t) in column("x1_loss_total").iter().zip(&total).zip(&time) {
        assert!(
            (x1 - (1.0 - t).powi(2) * l).abs() <= 1e-12 * l,
            "{x1} {l} {t}"
        );
    }
    // Every chain weighs the same, whatever its length: then both percents are one.
    for (pooled, per_sample) in column("equiv_percent")
        .iter()
        .zip(column("equiv_percent_per_sample"))
    {
        assert!(
            (pooled - per_sample).abs() <= 1e-9 * pooled,
            "{pooled} {per_sample}"
        );
    }
    // Three flow times, two variants, raw and averaged weights: in final.csv a row each for three sets, in dip.csv two quantities, six
    // thresholds and four readings.
    assert_eq!(table(out, "final").1.len(), 12 * 3);
    assert_eq!(table(out, "dip").1.len(), 12 * 12 * 4);
    let (header, rows) = table(out, "curve");
    let at = |name: &str| header.iter().position(|h| h == name).unwrap();
    assert!(
        rows.iter()
            .all(|r| r[at("dataset")].starts_with("backbones-mini")),
        "{:?}",
        rows[0]
    );
    // The targets of a sample are the same at every flow time: the noise is.
    let power = |t: f64| {
        numbers(out, "curve", "target_power", |cell| {
            cell("flow_time").parse() == Ok(t) && cell("step") == "0"
        })
    };
    assert_eq!(power(0.0), power(0.9));
    assert!(!power(0.0).is_empty());
}

#[test]
fn losses_of_the_clean_sample_are_for_squared_errors_only() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("l2");
    run(
        &out,
        &[
            "--set",
            "measure.loss=l2",
            "--set",
            "measure.flow_times=[0.5]",
            "--set",
            "train.steps=2",
        ],
    )
    .success();
    assert!(!numbers(&out, "final", "loss_total", |_| true).is_empty());
    assert!(numbers(&out, "final", "x1_loss_total", |_| true).is_empty());
}

#[test]
fn unknown_variants_and_impossible_flow_times_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |set: &str| {
        let assert = run(&folder.path().join("refused"), &["--set", set]).code(2);
        String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
    };
    assert!(refused("measure.flow_times=[0.5, 1.5]").contains("1.5"));
    assert!(refused("measure.variants=[\"twice\"]").contains("self-conditioned"));
    assert!(!folder.path().join("refused").exists());
}
