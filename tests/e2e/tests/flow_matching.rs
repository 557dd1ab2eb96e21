//! Proteina through the boundary: an exactly equivariant model measures as one, the blind decomposition equals the reference's, and a
//! run gives every table for every flow time.

use equivbench_core::{
    Condition, Estimator, FlowMatching, MeasuredSample, Measurement, PointLoss, Portion, Reading,
    SampleTerms, Seed, Task, Weights, conditions_of, measure_stream, pool,
};
use equivbench_e2e::{csv_files, equivbench, numbers, reference::Reference, table};
use std::path::Path;
use std::sync::Arc;

/// The terms of every sample, each averaged over its components, for both variants.
fn measured(of: &Reference, precision: &str, estimator: Estimator) -> Vec<Vec<SampleTerms>> {
    let samples = of.samples();
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator,
    };
    let plans = of.plans(samples.inputs.samples());
    let portion = Portion {
        readings: readings(),
        ..Portion::new(samples, &plans, how)
    };
    let portions = std::iter::once(Ok(portion));
    let mut model = of.open(precision);
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

#[test]
fn an_equivariant_control_has_no_equivariance_error_through_the_boundary() {
    let controls: Vec<Reference> = Reference::all("proteina")
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

fn check_control(control: &Reference, precision: &str, bound: f64) {
    for (terms, variant) in measured(control, precision, Estimator::Unbiased)
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
    let fixtures: Vec<Reference> = Reference::all("proteina")
        .into_iter()
        .filter(|f| f.arrays.contains_key("out.L_mean"))
        .collect();
    for fixture in fixtures {
        for (terms, prefix) in measured(&fixture, "f64", Estimator::PlugIn)
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
