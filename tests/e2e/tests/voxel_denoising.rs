//! VoxMol through the boundary: the blind decomposition equals the reference's over all three sets of cube rotations, a model projected
//! onto its equivariant subspace measures as equivariant, and a run gives every table.

use equivbench_abi::descriptor::ModelRequest;
use equivbench_core::{
    Batch, Estimator, Field, FieldKind, MeasuredSample, Measurement, Model, PointLoss,
    RotationPlan, Rows, SampleTerms, Scheme, Seed, Supervised, Weights, measure, pool,
};
use equivbench_e2e::{csv_files, equivbench, library, numbers, reference::Reference, table};
use equivbench_host::{Library, LoadedModel};
use std::path::Path;

/// The terms of every sample.
fn measured(of: &Reference, model: &mut LoadedModel, scheme: &str) -> Vec<SampleTerms> {
    let samples = of.samples();
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator: Estimator::Unbiased,
    };
    let plan: RotationPlan = Scheme::parse(scheme).unwrap().plan(Seed::new(0), 0);
    measure(model, &samples, &vec![plan; samples.inputs.samples()], how).unwrap()
}

fn ratio(terms: &[SampleTerms]) -> f64 {
    let pooled = pool(&MeasuredSample::independent(terms), true, Seed::new(0)).pooled;
    pooled.equivariance / pooled.total()
}

#[test]
fn the_blind_decomposition_equals_the_reference_over_every_set_of_rotations() {
    let fixtures = Reference::all("voxmol");
    for fixture in fixtures {
        let mut model = fixture.open("f64");
        for (scheme, prefix) in [
            ("octahedral", "out."),
            ("cube16-a", "out.setA."),
            ("cube16-b", "out.setB."),
        ] {
            let samples = MeasuredSample::independent(&measured(&fixture, &mut model, scheme));
            let loss = pool(&samples, true, Seed::new(0)).pooled;
            for (name, ours) in [
                ("L", loss.total()),
                ("L_mean", loss.twirled),
                ("L_equiv", loss.equivariance),
            ] {
                let theirs = fixture.array(&format!("{prefix}{name}")).values[0];
                println!(
                    "{} {prefix}{name}: {ours:.6} deviates by {:.1e}",
                    fixture.name,
                    (ours / theirs - 1.0).abs()
                );
                // Rounding of some ten thousand squares leaves 3e-15.
                assert!(
                    (ours / theirs - 1.0).abs() < 1e-12,
                    "{} {prefix}{name}: {ours} instead of {theirs}",
                    fixture.name
                );
            }
        }
    }
}

#[test]
fn latents_cross_the_boundary_as_the_reference_has_them() {
    let fixtures = Reference::all("voxmol");
    for fixture in fixtures {
        let (mut model, inputs) = (fixture.open("f64"), fixture.samples().inputs);
        for name in ["enc", "mid"] {
            let pooled = fixture.array(&format!("out.latent_pool_{name}"));
            let values = model.latent(name, &inputs).unwrap();
            let voxels = values.len() / pooled.values.len();
            let means: Vec<f64> = values
                .chunks_exact(voxels)
                .map(|cell| cell.iter().sum::<f64>() / voxels as f64)
                .collect();
            let scale = pooled.values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let worst = means
                .iter()
                .zip(&pooled.values)
                .fold(0.0f64, |m, (a, b)| m.max((a - b).abs()))
                / scale;
            println!(
                "{} {name}: pooled latents deviate by {worst:.1e} of their largest",
                fixture.name
            );
            // Rounding through a hundred layers leaves 1e-15.
            assert!(
                voxels > 0 && worst < 1e-12,
                "{} {name}: {worst:e}",
                fixture.name
            );
        }
        assert!(
            model
                .latent("deep", &inputs)
                .unwrap_err()
                .to_string()
                .contains("it has: enc, mid")
        );
    }
}

#[test]
fn a_model_projected_onto_its_equivariant_subspace_has_no_equivariance_error() {
    let plugin = Library::open(&library("equivbench_voxmol")).unwrap();
    let config = r#"{"width": 4, "groups": 2, "elements": 2, "multipliers": [1, 2, 2], "attention": [false, true, true], "grid": 8}"#;
    let mut stream = Seed::new(3).stream("density");
    let shape = vec![2, 2, 8, 8, 8];
    let mut field = |name: &str| {
        use rand::Rng;
        let values = (0..2048)
            .map(|_| (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64)
            .collect();
        Field::real(
            name,
            FieldKind::VoxelGrid,
            Rows::Sample,
            shape.clone(),
            values,
        )
    };
    let inputs = Batch {
        offsets: vec![0; 3],
        fields: vec![field("density")],
    };
    let samples = Supervised {
        inputs,
        target: Some(field("target")),
        labels: Vec::new(),
    };
    let plans = vec![Scheme::parse("octahedral").unwrap().plan(Seed::new(0), 0); 2];
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator: Estimator::Unbiased,
    };
    // Squares of roundings: 1e-16 in f64, 1e-7 in f32, over a hundred layers.
    for (precision, bound) in [("f64", 1e-24), ("f32", 1e-8)] {
        let request = ModelRequest {
            model: "voxmol".into(),
            size: "nano".into(),
            config: config.into(),
            precision: precision.into(),
            seed: 1,
            ..Default::default()
        };
        let mut model = plugin.open_model(&request).unwrap();
        let free = ratio(&measure(&mut model, &samples, &plans, how).unwrap());
        let mut values = Vec::new();
        model
            .parameters_into("equivariant-subspace", &mut values)
            .unwrap();
        assert!(model.project_equivariant(&mut values).unwrap());
        model
            .set_parameters("equivariant-subspace", &values)
            .unwrap();
        let bound_now = ratio(&measure(&mut model, &samples, &plans, how).unwrap());
        println!("{precision}: L_equiv/L {free:.2e} before the projection, {bound_now:.2e} after");
        assert!(
            free > 1e-4 && bound_now < bound,
            "{precision}: {free:e} {bound_now:e}"
        );
    }
}

/// A small, fast run of VoxMol.
fn run(out: &Path, more: &[&str]) -> assert_cmd::assert::Assert {
    let path = out.to_string_lossy();
    let mut arguments = vec![
        "run",
        "--quiet",
        "--plugins",
        "voxmol",
        "--out",
        &path,
        "--set",
        "run.clock=steps",
        "--seeds",
        "1",
    ];
    arguments.extend([
        "--set",
        "train.steps=12",
        "--set",
        "measure.samples=5",
        "--set",
        "train.batch_size=2",
    ]);
    arguments.extend(["--set", "measure.points_per_decade=3"]);
    arguments.extend(more);
    equivbench(&arguments).assert()
}

#[test]
fn a_run_names_its_set_of_rotations_and_does_not_depend_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let outs = ["one", "two"].map(|name| folder.path().join(name));
    for (out, threads) in outs.iter().zip(["run.threads=1", "run.threads=2"]) {
        run(
            out,
            &[
                "--set",
                threads,
                "--set",
                "measure.scheme=[\"octahedral\", \"cube16-a\", \"cube16-b\"]",
            ],
        )
        .success();
    }
    for ((name, one), (other, two)) in csv_files(&outs[0]).into_iter().zip(csv_files(&outs[1])) {
        assert_eq!(name, other);
        // throughput.csv says how many threads there were.
        assert!(
            one == two || name == "throughput.csv",
            "{name} depends on the number of threads"
        );
    }
    let (header, rows) = table(&outs[0], "curve");
    let at = |name: &str| header.iter().position(|h| h == name).unwrap();
    assert!(
        rows.iter()
            .all(|r| r[at("dataset")].starts_with("geom-mini")),
        "{:?}",
        rows[0]
    );
    for (scheme, rotations) in [("octahedral", "24"), ("cube16-a", "16"), ("cube16-b", "16")] {
        let own: Vec<_> = rows.iter().filter(|r| r[at("scheme")] == scheme).collect();
        assert!(
            !own.is_empty()
                && own
                    .iter()
                    .all(|r| r[at("rotations")] == rotations && r[at("estimator")] == "exact")
        );
    }
    let of = |scheme: &str, column: &str| {
        numbers(&outs[0], "curve", column, |cell| cell("scheme") == scheme)
    };
    for scheme in ["octahedral", "cube16-a", "cube16-b"] {
        let (total, twirled, equiv) = (
            of(scheme, "loss_total"),
            of(scheme, "loss_twirled"),
            of(scheme, "loss_equiv"),
        );
        for ((l, m), e) in total.iter().zip(&twirled).zip(&equiv) {
            assert!(
                (l - m - e).abs() <= 1e-9 * l.abs() && *e >= 0.0,
                "{l} is not {m} + {e}"
            );
        }
    }
    // Losses are means per component, those of training too: a density is empty nearly everywhere, noise is not.
    let power = of("octahedral", "target_power");
    assert!(power.iter().all(|p| (1e-5..1e-1).contains(p)), "{power:?}");
    let train = of("octahedral", "train_loss");
    assert!(
        !train.is_empty() && train.iter().all(|l| (1e-6..10.0).contains(l)),
        "{train:?}"
    );
}

#[test]
fn augmentations_and_noise_are_settings_of_the_task() {
    let folder = tempfile::tempdir().unwrap();
    let power = |name: &str, sets: &[&str]| {
        let out = folder.path().join(name);
        let mut more = vec!["--set", "train.steps=1"];
        more.extend(sets.iter().flat_map(|s| ["--set", *s]));
        run(&out, &more).success();
        numbers(&out, "final", "target_power", |_| true)[0]
    };
    let plain = power("plain", &[]);
    for law in ["continuous-euler", "cube", "none"] {
        assert_ne!(
            plain,
            power(law, &[&format!("task.augmentation={law}")]),
            "{law}"
        );
    }
    assert_eq!(
        plain,
        power("noise", &["task.sigma=0.1"]),
        "noise is no part of the target"
    );
}

#[test]
fn rotations_and_grids_that_cannot_be_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |set: &str| {
        let assert = run(&folder.path().join("refused"), &["--set", set]).code(2);
        String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
    };
    assert!(refused("measure.scheme=random-10").contains("octahedral, cube16-a, cube16-b"));
    assert!(refused("task.sigma=-1").contains("task.sigma"));
    assert!(refused("task.gird=16").contains("unknown field `gird`"));
    assert!(!folder.path().join("refused").exists());
}
