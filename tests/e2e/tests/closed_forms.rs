//! EScAIP's exact Haar averages against the blind measurement through the boundary: the harness rotates, the plugin sees batches.

use equivbench_abi::descriptor::{DatasetRequest, ModelRequest};
use equivbench_core::{
    Condition, Dataset, Estimator, MeasuredSample, Measurement, Occasion, PointLoss, Preparation,
    Scheme, Seed, Supervised, TaskRequest, Weights, configure_task, measure, pool,
};
use equivbench_e2e::library;
use equivbench_host::{Library, LoadedModel};

fn samples() -> Supervised {
    let spice = Library::open(&library("equivbench_spice")).unwrap();
    let mut data = spice
        .open_dataset(&DatasetRequest {
            dataset: "spice".into(),
            ..Default::default()
        })
        .unwrap();
    let raw = Dataset::load(&mut data, "valid", &[0, 20, 40, 60]).unwrap();
    let task = configure_task(
        "force-field",
        &TaskRequest {
            settings: &Default::default(),
            input_width: &|_| None,
        },
    )
    .unwrap();
    let normalisers = Dataset::normalisers(&data);
    let condition = Condition::default();
    let how = Preparation {
        occasion: Occasion::Measurement(&condition),
        normaliser: &|field| normalisers.get(field).copied(),
        stream: &|sample| Seed::new(0).indexed_stream("task", sample as u64),
    };
    task.prepare(raw, &how).unwrap()
}

fn model(precision: &str) -> LoadedModel {
    let escaip = Library::open(&library("equivbench_escaip")).unwrap();
    let request = ModelRequest {
        model: "escaip".into(),
        size: "nano".into(),
        precision: precision.into(),
        seed: 5,
        ..Default::default()
    };
    escaip.open_model(&request).unwrap()
}

/// Largest relative deviation of the blind `L_equiv` and `L_mean` of each sample from the closed form.
fn deviation(precision: &str, scheme: &str) -> f64 {
    let (samples, mut model) = (samples(), model(precision));
    let exact = model
        .capability(
            "exact-twirl",
            &samples.inputs,
            &[],
            4 * samples.inputs.points(),
        )
        .unwrap();
    let atoms = samples.inputs.points();
    assert_eq!(
        exact.len(),
        4 * atoms,
        "the twirled prediction, then a variance for each atom"
    );
    let (mu, spread) = exact.split_at(3 * atoms);
    let target = samples.target_values().unwrap().to_vec();
    let scheme = Scheme::parse(scheme).unwrap();
    let plans: Vec<_> = (0..samples.inputs.samples())
        .map(|s| scheme.plan(Seed::new(9), s as u64))
        .collect();
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator: Estimator::Unbiased,
    };
    let terms = measure(&mut model, &samples, &plans, how).unwrap();
    let measured = MeasuredSample::independent(&terms);
    let estimate = pool(&measured, true, Seed::new(0));
    println!(
        "{precision} {}: percent {:.4}",
        scheme.name(),
        estimate.pooled.percent()
    );
    terms.iter().enumerate().fold(0.0, |worst: f64, (s, term)| {
        let rows = samples.inputs.offsets[s]..samples.inputs.offsets[s + 1];
        let equiv: f64 = spread[rows.clone()].iter().sum();
        let mean: f64 = (3 * rows.start..3 * rows.end)
            .map(|i| (mu[i] - target[i]).powi(2))
            .sum();
        worst
            .max((term.loss_equiv / equiv - 1.0).abs())
            .max(((term.loss_total - term.loss_equiv) / mean - 1.0).abs())
    })
}

#[test]
fn structured_rotations_measure_escaip_exactly() {
    for scheme in ["tetrahedral-x2", "octahedral-x2", "icosahedral-x2"] {
        let (single, double) = (deviation("f32", scheme), deviation("f64", scheme));
        println!("{scheme}: largest relative deviation f32 {single:.1e}, f64 {double:.1e}");
        // Degree 2 in the rotation is averaged exactly; what is left is rounding of the f32 model, or of f64.
        assert!(single < 1e-5, "{scheme} f32: {single:e}");
        assert!(double < 1e-12, "{scheme} f64: {double:e}");
    }
}

#[test]
fn the_plug_in_estimate_through_the_boundary_is_too_small_by_one_over_n() {
    let (samples, mut model) = (samples(), model("f32"));
    let exact = model
        .capability(
            "exact-twirl",
            &samples.inputs,
            &[],
            4 * samples.inputs.points(),
        )
        .unwrap();
    let truth: f64 = exact[3 * samples.inputs.points()..].iter().sum();
    let (rotations, repeats) = (4, 60u64);
    let mut ratios = Vec::new();
    for repeat in 0..repeats {
        let scheme = Scheme::Random { rotations };
        let plans: Vec<_> = (0..samples.inputs.samples())
            .map(|s| scheme.plan(Seed::new(repeat), s as u64))
            .collect();
        let how = Measurement {
            weights: Weights::Raw,
            loss: PointLoss::Mse,
            estimator: Estimator::PlugIn,
        };
        let terms = measure(&mut model, &samples, &plans, how).unwrap();
        ratios.push(terms.iter().map(|t| t.loss_equiv).sum::<f64>() / truth);
    }
    let n = repeats as f64;
    let mean = ratios.iter().sum::<f64>() / n;
    let error = (ratios.iter().map(|r| (r - mean).powi(2)).sum::<f64>() / (n * (n - 1.0))).sqrt();
    println!(
        "plug-in / exact = {mean:.4} ± {error:.4}, 1 - 1/n = {}",
        1.0 - 1.0 / rotations as f64
    );
    // Four standard errors, and the bias itself must stand out.
    assert!(
        (mean - (1.0 - 1.0 / rotations as f64)).abs() < 4.0 * error,
        "{mean} ± {error}"
    );
    assert!(4.0 * error < 1.0 / rotations as f64);
}
