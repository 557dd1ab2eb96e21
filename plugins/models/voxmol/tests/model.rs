//! Laws of the whole model: what it refuses, what does not matter, what is deterministic, how fresh weights are distributed.

mod support;

use burn::{module::Module, tensor::Device};
use equivbench_abi::{
    Model as _, Weights, abi_stable::std_types::RSlice, descriptor::ModelRequest,
};
use equivbench_plugin::{
    Batch, ModelPlugin, PluginError, Precision, Trainer,
    parameters::{Flat, ParameterInfo},
    testing::frozen_deviations,
};
use equivbench_voxmol::{Voxmol, VoxmolConfig};
use support::{Grids, OwnedBatch, noisy_blobs};

/// Three levels of 8, 4 and 2 voxels, the lower two with attention.
fn small() -> VoxmolConfig {
    VoxmolConfig::new(4, 2)
        .with_elements(3)
        .with_multipliers(vec![1, 2, 2])
        .with_attention(vec![false, true, true])
        .with_blocks(1)
        .with_grid(8)
}

fn trainer(config: &VoxmolConfig, precision: &str, recipe: &str, seed: u64) -> Trainer<Voxmol> {
    let config = serde_json::to_string(config).unwrap();
    let request = ModelRequest {
        config,
        seed,
        precision: precision.into(),
        recipe: recipe.into(),
        ..ModelRequest::default()
    };
    Trainer::open(&request).unwrap()
}

fn three_grids() -> (Grids, Grids) {
    noisy_blobs(3, 3, 8, 7)
}

fn training_batch() -> OwnedBatch {
    let (noisy, clean) = three_grids();
    noisy.batch().with_grids("target", &clean)
}

fn predict(trainer: &mut Trainer<Voxmol>, batch: &OwnedBatch) -> Vec<f64> {
    batch.lend(|raw| {
        trainer
            .predict(raw, Weights::Raw)
            .unwrap()
            .into_data()
            .iter::<f64>()
            .collect()
    })
}

fn step(trainer: &mut Trainer<Voxmol>, batch: &OwnedBatch) -> [f64; 3] {
    batch.lend(|raw| trainer.train_step(raw).unwrap())
}

fn refusal(trainer: &mut Trainer<Voxmol>, batch: &OwnedBatch) -> PluginError {
    batch.lend(|raw| trainer.predict(raw, Weights::Raw).map(drop).unwrap_err())
}

fn doubles(trainer: &Trainer<Voxmol>) -> Vec<Vec<f64>> {
    match &trainer.values() {
        Flat::F64(values) => values.clone(),
        Flat::F32(values) => values
            .iter()
            .map(|p| p.iter().map(|&v| f64::from(v)).collect())
            .collect(),
    }
}

fn with_model<R>(
    trainer: &Trainer<Voxmol>,
    batch: &OwnedBatch,
    f: impl FnOnce(&Voxmol, &Batch<'_>) -> R,
) -> R {
    let device = Device::flex();
    batch.lend(|raw| {
        f(
            &trainer.model().valid(),
            &Batch::new(raw, &device, Precision::F64, None).unwrap(),
        )
    })
}

#[test]
fn a_prediction_depends_neither_on_who_shares_the_batch_nor_on_the_order() {
    let (noisy, _) = three_grids();
    let mut trainer = trainer(&small(), "f64", "", 5);
    let together = predict(&mut trainer, &noisy.batch());
    let alone: Vec<f64> = (0..3)
        .flat_map(|sample| predict(&mut trainer, &noisy.select(&[sample]).batch()))
        .collect();
    let mixed = predict(&mut trainer, &noisy.select(&[2, 0, 1]).batch());
    let reordered = Grids {
        values: together.clone(),
        ..noisy.clone()
    }
    .select(&[2, 0, 1])
    .values;
    let largest = together.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (found, expected) in [(&alone, &together), (&mixed, &reordered)] {
        // Products of another shape may add in another order.
        assert!(
            found
                .iter()
                .zip(expected)
                .all(|(a, b)| (a - b).abs() < 1e-12 * largest)
        );
    }
}

#[test]
fn a_batch_may_bring_another_side() {
    let mut trainer = trainer(&small(), "f64", "", 5);
    for side in [4, 8, 12] {
        let (noisy, _) = noisy_blobs(2, 3, side, 3);
        assert_eq!(
            predict(&mut trainer, &noisy.batch()).len(),
            2 * 3 * side.pow(3)
        );
    }
}

#[test]
fn weights_and_training_follow_from_the_seed_alone() {
    let batch = training_batch();
    let run = |seed| {
        let mut trainer = trainer(&small(), "f32", r#"{"lr": 1e-3}"#, seed);
        let losses: Vec<f64> = (0..4).map(|_| step(&mut trainer, &batch)[0]).collect();
        (losses, predict(&mut trainer, &batch))
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let batch = training_batch();
    // Dropout is part of the run.
    let open = || {
        trainer(
            &small().with_dropout(0.3),
            "f32",
            r#"{"lr": 1e-3, "ema_decay": 0.9}"#,
            3,
        )
    };
    let mut straight = open();
    let losses: Vec<f64> = (0..8).map(|_| step(&mut straight, &batch)[0]).collect();
    let mut first = open();
    for _ in 0..4 {
        step(&mut first, &batch);
    }
    let saved = first.save().into_result().unwrap();
    let mut resumed = open();
    resumed
        .load(RSlice::from_slice(&saved))
        .into_result()
        .unwrap();
    let rest: Vec<f64> = (0..4).map(|_| step(&mut resumed, &batch)[0]).collect();
    assert_eq!(rest, losses[4..]);
    assert_eq!(doubles(&resumed), doubles(&straight));
}

#[test]
fn both_precisions_start_from_the_same_weights() {
    assert_eq!(
        doubles(&trainer(&small(), "f32", "", 3)),
        doubles(&trainer(&small(), "f64", "", 3))
    );
}

#[test]
fn training_lowers_every_loss() {
    let batch = training_batch();
    for loss in Voxmol::losses() {
        let mut trainer = trainer(
            &small(),
            "f32",
            &format!("{{\"loss\": \"{loss}\", \"lr\": 1e-3}}"),
            3,
        );
        let losses: Vec<f64> = (0..80).map(|_| step(&mut trainer, &batch)[0]).collect();
        assert!(
            losses[79] < 0.5 * losses[0],
            "{loss}: {} -> {}",
            losses[0],
            losses[79]
        );
    }
}

/// The value of a loss in training steps of size zero: the weights stay.
fn training_losses(config: &VoxmolConfig, loss: &str, count: usize) -> Vec<f64> {
    let mut trainer = trainer(
        config,
        "f64",
        &format!("{{\"loss\": \"{loss}\", \"lr\": 0.0}}"),
        3,
    );
    (0..count)
        .map(|_| step(&mut trainer, &training_batch())[0])
        .collect()
}

#[test]
fn both_losses_are_reported_as_the_mean_of_a_component() {
    let config = small().with_dropout(0.0);
    let (noisy, clean) = three_grids();
    let predicted = predict(&mut trainer(&config, "f64", "", 3), &noisy.batch());
    let total: f64 = predicted
        .iter()
        .zip(&clean.values)
        .map(|(p, y)| (p - y).powi(2))
        .sum();
    let count = clean.values.len() as f64;
    for loss in Voxmol::losses() {
        // Two orders of adding thousands of numbers.
        assert!(
            (training_losses(&config, loss, 1)[0] / (total / count) - 1.0).abs() < 1e-12,
            "{loss}"
        );
    }
    let trainer = trainer(&config, "f64", "", 3);
    for (loss, expected) in [("sse", total), ("mse", total / count)] {
        let value = with_model(&trainer, &training_batch(), |model, batch| {
            model.loss(loss, batch).unwrap()
        });
        assert!(
            (value.into_scalar::<f64>() / expected - 1.0).abs() < 1e-12,
            "{loss}"
        );
    }
}

/// Without epsilon the length of a step does not depend on a factor of the loss.
#[test]
fn the_sum_and_the_mean_of_squared_errors_train_alike() {
    let config = small().with_dropout(0.0);
    let after = |loss: &str| {
        let mut trainer = trainer(
            &config,
            "f64",
            &format!("{{\"loss\": \"{loss}\", \"lr\": 1e-3}}"),
            3,
        );
        for _ in 0..3 {
            step(&mut trainer, &training_batch());
        }
        predict(&mut trainer, &three_grids().0.batch())
    };
    let (sum, mean) = (after("sse"), after("mse"));
    let largest = sum.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    // Entries without a gradient but for rounding move either way; the prediction does not depend on them but for rounding.
    assert!(
        sum.iter()
            .zip(&mean)
            .all(|(a, b)| (a - b).abs() < 1e-9 * largest)
    );
}

#[test]
fn dropout_acts_in_training_only_and_differs_from_step_to_step() {
    let (with, without) = (small().with_dropout(0.5), small().with_dropout(0.0));
    let losses = training_losses(&with, "sse", 3);
    assert!(losses[0] != losses[1] && losses[1] != losses[2]);
    let still = training_losses(&without, "sse", 2);
    assert_eq!(still[0], still[1]);
    let predicted = |config: &VoxmolConfig| {
        predict(&mut trainer(config, "f64", "", 3), &three_grids().0.batch())
    };
    assert_eq!(predicted(&with), predicted(&without));
}

#[test]
fn norms_that_are_never_applied_never_move() {
    let mut trainer = trainer(&small(), "f32", r#"{"lr": 1e-2}"#, 3);
    let before = doubles(&trainer);
    for _ in 0..3 {
        step(&mut trainer, &training_batch());
    }
    let moved = |k: usize| doubles(&trainer)[k] != before[k];
    let parameters = trainer.parameters();
    let unused: Vec<usize> = (0..parameters.len())
        .filter(|&k| parameters[k].name.contains("attn.norm."))
        .collect();
    // Two blocks with attention on the way down, four on the way up, and the middle, a scale and a shift each.
    assert_eq!(unused.len(), 14);
    assert!((0..parameters.len()).all(|k| moved(k) != unused.contains(&k)));
}

#[test]
fn groups_are_the_head_the_head_with_its_norm_and_everything() {
    let request = ModelRequest {
        size: "7M".into(),
        seed: 1,
        ..ModelRequest::default()
    };
    let trainer = Trainer::<Voxmol>::open(&request).unwrap();
    let instance = trainer.instance().unwrap();
    let scalars = |name: &str| {
        instance
            .groups
            .iter()
            .find(|g| g.name == name)
            .unwrap()
            .scalars
    };
    assert_eq!(scalars("head"), 27 * 8 * 8 + 8);
    assert_eq!(scalars("head-norm"), scalars("head") + 16);
    assert_eq!(scalars("equivariant-subspace"), 6_982_256);
    assert_eq!(
        instance.groups[1].parameters,
        ["final.weight", "final.bias"]
    );
    assert_eq!(instance.inputs[0].width, [8, 64, 64, 64]);
    assert_eq!(
        instance
            .latents
            .iter()
            .map(|l| (l.name.as_str(), l.width[0], l.width[1]))
            .collect::<Vec<_>>(),
        [("enc", 128, 8), ("mid", 128, 8)]
    );
}

/// Numbers that the subspace leaves free: one for each orbit of taps, or for the eight taps of a mean.
fn free_numbers(parameters: &[ParameterInfo]) -> usize {
    let free = |p: &ParameterInfo| match p.shape[..] {
        [out, from, 3, 3, 3] => {
            out * from
                * if p.name.ends_with(".conv.weight") {
                    1
                } else {
                    4
                }
        }
        [from, out, 4, 4, 4] => out * from * 4,
        _ => p.len(),
    };
    parameters.iter().map(free).sum()
}

#[test]
fn the_equivariant_subspace_has_as_many_dimensions_as_its_orbits() {
    /// Draws of the estimate of a trace.
    const REPEATS: usize = 40;
    let tiny = VoxmolConfig::named()
        .into_iter()
        .find(|s| s.0 == "7M")
        .unwrap()
        .1;
    assert_eq!(
        free_numbers(trainer(&tiny, "f32", "", 1).parameters()),
        1_401_136
    );
    // The trace of a projection is its rank; Hutchinson estimates it with random signs.
    let trainer = trainer(&small(), "f64", "", 1);
    let (rank, count) = (
        free_numbers(trainer.parameters()),
        trainer.parameters().iter().map(ParameterInfo::len).sum(),
    );
    let mut state = 11u64;
    let mut sign = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        if state >> 63 == 1 { 1.0 } else { -1.0 }
    };
    let mut estimate = || {
        let signs: Vec<f64> = (0..count).map(|_| sign()).collect();
        let mut projected = signs.clone();
        trainer.model().project_equivariant(&mut projected).unwrap();
        signs
            .iter()
            .zip(&projected)
            .map(|(a, b)| a * b)
            .sum::<f64>()
    };
    let trace = (0..REPEATS).map(|_| estimate()).sum::<f64>() / REPEATS as f64;
    // The estimate scatters by at most sqrt(2 · rank / repeats); five of these.
    assert!(
        (trace - rank as f64).abs() < 5.0 * (2.0 * rank as f64 / REPEATS as f64).sqrt(),
        "{trace} instead of {rank}"
    );
    let error = trainer
        .model()
        .project_equivariant(&mut [0.0; 3])
        .unwrap_err()
        .to_string();
    assert!(error.contains(&format!("has {count} numbers, 3 were given")));
}

#[test]
fn latents_are_as_wide_as_declared() {
    let mut trainer = trainer(&small(), "f64", "", 5);
    let (noisy, _) = three_grids();
    let declared = trainer.instance().unwrap().latents;
    let mut read = |name: &str, count: usize| {
        let mut out = vec![0u8; count * 8];
        noisy.batch().lend(|raw| {
            let answer = trainer.capability(
                format!("latent:{name}").as_str().into(),
                raw_copy(raw),
                RSlice::from_slice(&[]),
                out.as_mut_slice().into(),
            );
            answer.into_result().map(|_| out.clone())
        })
    };
    assert_eq!(declared.len(), 2);
    let [enc, mid] = [0, 1].map(|k| {
        read(
            &declared[k].name,
            3 * declared[k].width.iter().product::<u64>() as usize,
        )
        .unwrap()
    });
    assert_ne!(enc, mid);
    assert!(read("head", 3).is_err());
}

/// The same arrays in a batch of its own, to be given away.
fn raw_copy<'a>(raw: &equivbench_abi::Batch<'a>) -> equivbench_abi::Batch<'a> {
    equivbench_abi::Batch {
        samples: raw.samples,
        offsets: raw.offsets,
        fields: raw.fields,
    }
}

#[test]
fn an_instantiated_model_has_as_many_parameters_as_the_formula_counts() {
    let sizes = |name: &str| {
        VoxmolConfig::named()
            .into_iter()
            .find(|s| s.0 == name)
            .unwrap()
            .1
    };
    let deep = small()
        .with_multipliers(vec![2, 1, 3, 1])
        .with_attention(vec![true, false, false, true])
        .with_blocks(2);
    for config in [
        small(),
        deep,
        sizes("nano"),
        sizes("7M"),
        small().with_multipliers(vec![2]).with_attention(vec![true]),
    ] {
        assert_eq!(
            Voxmol::init(&config, &Device::flex()).num_params() as u64,
            Voxmol::parameter_count(&config),
            "{config}"
        );
    }
}

#[test]
fn unreadable_batches_are_refused_with_the_reason() {
    let mut trainer = trainer(&small(), "f32", "", 3);
    let (noisy, clean) = three_grids();
    let mut refused = |batch: OwnedBatch| refusal(&mut trainer, &batch).to_string();
    let empty = || noisy.batch().without("density");
    assert!(refused(empty()).contains("density"));
    assert!(
        refused(empty().with_array("density", &[3, 1536], &noisy.values))
            .contains("[samples, elements, side, side, side]")
    );
    assert!(
        refused(empty().with_array("density", &[3, 3, 16, 8, 4], &noisy.values))
            .contains("16 x 8 x 4 voxels; they must be cubes")
    );
    let channels = refused(empty().with_array("density", &[3, 24, 4, 4, 4], &noisy.values));
    assert!(
        channels.contains("has 24 channels, the model 3; set elements = 24"),
        "{channels}"
    );
    let odd = noisy_blobs(1, 3, 6, 1).0;
    assert!(refused(odd.batch()).contains("side 6; 3 levels need one divisible by 4"));
    let mut broken = noisy.clone();
    broken.values[2 * noisy.width() + 5] = f64::NAN;
    assert!(refused(broken.batch()).contains("not finite in sample 2"));
    assert!(
        refused(
            Grids {
                samples: 0,
                values: vec![],
                ..noisy.clone()
            }
            .batch()
        )
        .contains("empty")
    );
    let mut untrained =
        |batch: OwnedBatch| batch.lend(|raw| trainer.train_step(raw).unwrap_err().to_string());
    assert!(untrained(noisy.batch()).contains("target"));
    let short = untrained(
        noisy
            .batch()
            .with_array("target", &[3, 512], &clean.values[..1536]),
    );
    assert!(
        short.contains("a target of 512 numbers in a sample; the density has 1536"),
        "{short}"
    );
}

#[test]
fn unknown_losses_and_impossible_configurations_are_refused_before_anything_is_built() {
    let refused = |config: &str, recipe: &str| {
        let request = ModelRequest {
            config: config.into(),
            recipe: recipe.into(),
            ..ModelRequest::default()
        };
        Trainer::<Voxmol>::open(&request).err().unwrap().to_string()
    };
    assert!(refused(r#"{"width": 5}"#, "").contains("width = 5 is not divisible by groups = 2"));
    assert!(refused("", r#"{"loss": "huber"}"#).contains("sse, mse"));
    let error = with_model(
        &trainer(&small(), "f64", "", 1),
        &training_batch(),
        |model, batch| model.loss("huber", batch).unwrap_err(),
    );
    assert!(error.to_string().contains("use one of sse, mse"));
}

/// Uniform between bounds that follow from the shape; norms are the identity.
#[test]
fn fresh_weights_and_biases_are_uniform_within_one_over_the_root_of_their_inputs() {
    let config = small()
        .with_multipliers(vec![2, 2, 2])
        .with_attention(vec![false, false, true]);
    let trainer = trainer(&config, "f32", "", 9);
    let named: Vec<(String, Vec<usize>, Vec<f64>)> = trainer
        .parameters()
        .iter()
        .zip(doubles(&trainer))
        .map(|(p, values)| (p.name.clone(), p.shape.clone(), values))
        .collect();
    for (name, _, values) in &named {
        let Some((module, kind)) = name.rsplit_once('.') else {
            panic!("{name}")
        };
        if module
            .split('.')
            .next_back()
            .is_some_and(|last| last.starts_with("norm"))
        {
            let expected = if kind == "weight" { 1.0 } else { 0.0 };
            assert!(values.iter().all(|&v| v == expected), "{name}");
            continue;
        }
        let shape = &named
            .iter()
            .find(|(other, ..)| *other == format!("{module}.weight"))
            .unwrap()
            .1;
        let inputs: usize = shape[1..].iter().product();
        let (bound, count) = (1.0 / (inputs as f64).sqrt(), values.len() as f64);
        let edge = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        assert!(edge <= bound, "{name}: {edge} beyond {bound}");
        // The largest of n uniform numbers falls short by 1 / (n + 1) on average; ten times that in one of 20 000 cases.
        assert!(
            edge > bound * (1.0 - 10.0 / (count + 1.0)),
            "{name}: {edge} of {bound}"
        );
        let mean = values.iter().sum::<f64>() / count;
        assert!(
            mean.abs() < 5.0 * bound / (3.0 * count).sqrt(),
            "{name}: mean {mean}"
        );
    }
}

#[test]
fn steps_in_bf16_follow_those_in_f32_and_predictions_stay_in_f32() {
    let batch = training_batch();
    let run = |precision| {
        let mut trainer = trainer(&small(), precision, r#"{"lr": 1e-3}"#, 5);
        let fresh = predict(&mut trainer, &batch);
        let losses: Vec<f64> = (0..3).map(|_| step(&mut trainer, &batch)[0]).collect();
        (fresh, losses)
    };
    let (f32_fresh, f32_losses) = run("f32");
    let (bf16_fresh, bf16_losses) = run("bf16");
    assert_eq!(f32_fresh, bf16_fresh);
    for (single, half) in f32_losses.iter().zip(&bf16_losses) {
        // A few percent: sums of products of numbers with 8 significant bits, through some blocks.
        assert!(
            (half / single - 1.0).abs() < 0.05 && half != single,
            "{half} in bf16, {single} in f32"
        );
    }
}

/// The grids and two rotations of them about the diagonal, one after the other.
fn three_copies(grids: &Grids) -> Grids {
    let side = grids.side;
    let cycled = |values: &[f64]| -> Vec<f64> {
        let source = |at: usize| {
            let (x, y, z) = (at / side / side % side, at / side % side, at % side);
            at / side.pow(3) * side.pow(3) + (y * side + z) * side + x
        };
        (0..values.len()).map(|at| values[source(at)]).collect()
    };
    let once = cycled(&grids.values);
    let twice = cycled(&once);
    Grids {
        samples: 3 * grids.samples,
        values: [grids.values.clone(), once, twice].concat(),
        ..grids.clone()
    }
}

#[test]
fn what_lies_frozen_below_the_head_answers_for_rotated_copies_as_the_whole_model_does() {
    let copies = three_copies(&noisy_blobs(2, 3, 8, 7).0);
    let mut trainer = trainer(&small(), "f64", "", 5);
    let found = copies
        .batch()
        .lend(|raw| frozen_deviations(&mut trainer, raw, 3, "head"))
        .unwrap();
    println!("{found:?}");
    // Rounding: products of another shape may add in another order.
    assert!(
        found.predictions < 1e-12 && found.products < 1e-12,
        "{found:?}"
    );
    assert!(found.features.unwrap() < 1e-12, "{found:?}");
}

#[test]
fn the_last_convolution_is_linear_in_its_kernel_and_bias() {
    let instance = trainer(&small(), "f32", "", 1).instance().unwrap();
    let [head] = &instance.linear[..] else {
        panic!("one group is linear")
    };
    assert_eq!(instance.frozen_groups, [head.group.as_str()]);
    let group = instance
        .groups
        .iter()
        .find(|g| g.name == head.group)
        .unwrap();
    assert_eq!(group.scalars, head.blocks * head.width);
    // Four channels of 27 taps and a bias.
    assert_eq!(
        (head.blocks, head.width, head.rows.as_str()),
        (3, 109, "voxel")
    );
}
