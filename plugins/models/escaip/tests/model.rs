//! Laws of the whole model: what it refuses, what does not matter, what is deterministic.

mod support;

use burn::{module::Module, tensor::Device};
use equivbench_abi::{Weights, descriptor::ModelRequest};
use equivbench_escaip::{Escaip, EscaipConfig};
use equivbench_plugin::{
    Batch, ModelPlugin, PluginError, Precision, Trainer, parameters::Flat,
    testing::frozen_deviations,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::OwnedBatch;

fn small() -> EscaipConfig {
    EscaipConfig::new(8, 2, 2)
        .with_atom_embedding(4)
        .with_elements(20)
        .with_radial_functions(60)
        .with_radial_embedding(12)
        .with_boo_orders(5)
        .with_boo_embedding(4)
        .with_cutoff(6.0)
        .with_neighbours(7)
}

fn trainer(config: &EscaipConfig, precision: &str, recipe: &str, seed: u64) -> Trainer<Escaip> {
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

fn cloud(atoms: usize, seed: u64) -> (Vec<f64>, Vec<i64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let positions = (0..3 * atoms)
        .map(|_| f64::from(rng.random_range(-2.5f32..2.5)))
        .collect();
    (
        positions,
        (0..atoms).map(|_| rng.random_range(1..10)).collect(),
    )
}

fn batch_of(molecules: &[(Vec<f64>, Vec<i64>)]) -> OwnedBatch {
    let positions: Vec<f64> = molecules.iter().flat_map(|m| m.0.clone()).collect();
    let species: Vec<i64> = molecules.iter().flat_map(|m| m.1.clone()).collect();
    let sizes: Vec<usize> = molecules.iter().map(|m| m.1.len()).collect();
    let target: Vec<f64> = positions.iter().map(|x| 0.3 * x).collect();
    OwnedBatch::new(&positions, &species, &sizes)
        .with_target(&target)
        .with_energy(&vec![0.5; sizes.len()])
}

fn predict(trainer: &mut Trainer<Escaip>, batch: &OwnedBatch) -> Vec<f64> {
    batch.lend(|raw| {
        trainer
            .predict(raw, Weights::Raw)
            .unwrap()
            .into_data()
            .iter::<f64>()
            .collect()
    })
}

fn refusal(trainer: &mut Trainer<Escaip>, batch: &OwnedBatch) -> PluginError {
    batch.lend(|raw| trainer.predict(raw, Weights::Raw).map(drop).unwrap_err())
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn a_prediction_does_not_depend_on_who_shares_the_batch_to_the_last_bit() {
    let molecules = [cloud(9, 1), cloud(3, 2), cloud(23, 3), cloud(1, 4)];
    for precision in ["f32", "f64"] {
        for (_, config) in Escaip::sizes().into_iter().take(2) {
            let mut trainer = trainer(&config, precision, "", 5);
            let together = predict(&mut trainer, &batch_of(&molecules));
            let alone: Vec<f64> = molecules
                .iter()
                .flat_map(|m| predict(&mut trainer, &batch_of(std::slice::from_ref(m))))
                .collect();
            assert_eq!(
                bits(&together),
                bits(&alone),
                "{precision}, hidden {}",
                config.hidden
            );
        }
    }
}

#[test]
fn weights_and_training_follow_from_the_seed_alone() {
    let batch = batch_of(&[cloud(9, 1), cloud(6, 2)]);
    let config = small();
    let run = |seed| {
        let mut trainer = trainer(&config, "f32", r#"{"lr": 1e-3}"#, seed);
        let losses: Vec<f64> = (0..4)
            .map(|_| batch.lend(|raw| trainer.train_step(raw).unwrap()[0]))
            .collect();
        (losses, predict(&mut trainer, &batch))
    };
    assert_eq!(run(3), run(3));
    assert_ne!(run(3).0, run(4).0);
}

#[test]
fn both_precisions_start_from_the_same_weights() {
    let values = |precision| trainer(&small(), precision, "", 3).values();
    let (Flat::F32(single), Flat::F64(double)) = (values("f32"), values("f64")) else {
        panic!("precision was asked for")
    };
    let widened: Vec<Vec<f64>> = single
        .iter()
        .map(|p| p.iter().map(|&v| f64::from(v)).collect())
        .collect();
    assert_eq!(widened, double);
}

#[test]
fn fresh_weights_follow_the_laws_of_the_reference() {
    let config = EscaipConfig::new(64, 8, 1);
    let trainer = trainer(&config, "f64", "", 9);
    let Flat::F64(values) = &trainer.values() else {
        panic!("f64 was asked for")
    };
    for (parameter, values) in trainer.parameters().iter().zip(values) {
        let (name, shape) = (&parameter.name, &parameter.shape);
        let largest = values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        if name.contains("atomic_embedding") {
            assert!(largest <= 1e-3 && largest > 0.99e-3, "{name}: {largest}");
        } else if let [inputs, outputs] = shape[..] {
            let gain = if name.contains("output_heads.energy") {
                0.01
            } else {
                1.0
            };
            let bound = gain * (6.0 / (inputs + outputs) as f64).sqrt();
            assert!(
                largest <= bound * (1.0 + 1e-6) && largest > 0.9 * bound,
                "{name}: {largest} of {bound}"
            );
        } else {
            let constant = if name.contains("bias") { 0.0 } else { 1.0 };
            assert!(values.iter().all(|&v| v == constant), "{name}");
        }
    }
}

#[test]
fn dropout_acts_in_training_only_and_changes_from_step_to_step() {
    let batch = batch_of(&[cloud(9, 1)]);
    let losses = |config: &EscaipConfig| {
        let mut trainer = trainer(config, "f64", r#"{"lr": 0.0, "weight_decay": 0.0}"#, 3);
        let losses: Vec<f64> = (0..3)
            .map(|_| batch.lend(|raw| trainer.train_step(raw).unwrap()[0]))
            .collect();
        (losses, predict(&mut trainer, &batch))
    };
    let without = small().with_attention_dropout(0.0).with_mlp_dropout(0.0);
    let (plain, prediction) = losses(&without);
    assert!(plain.windows(2).all(|w| w[0] == w[1]));
    for config in [
        without.clone().with_mlp_dropout(0.2),
        without.clone().with_attention_dropout(0.3),
        without.with_stochastic_depth(0.5),
    ] {
        let (dropped, same) = losses(&config);
        assert_ne!(dropped[0], dropped[1], "{config}");
        assert_eq!(bits(&same), bits(&prediction), "{config}");
    }
}

#[test]
fn training_lowers_either_loss() {
    let batch = batch_of(&[cloud(9, 1), cloud(12, 2)]);
    for loss in ["mse", "reference"] {
        let mut trainer = trainer(
            &small(),
            "f32",
            &format!("{{\"loss\": \"{loss}\", \"lr\": 3e-3, \"schedule\": \"constant\"}}"),
            3,
        );
        let losses: Vec<f64> = (0..60)
            .map(|_| batch.lend(|raw| trainer.train_step(raw).unwrap()[0]))
            .collect();
        assert!(
            losses[59] < 0.7 * losses[0],
            "{loss}: {} -> {}",
            losses[0],
            losses[59]
        );
    }
}

#[test]
fn the_energy_head_is_left_alone_by_the_force_loss() {
    let batch = batch_of(&[cloud(9, 1)]);
    let mut trainer = trainer(&small(), "f32", r#"{"loss": "mse", "lr": 1e-3}"#, 3);
    let energy = |trainer: &Trainer<Escaip>| {
        let Flat::F32(values) = &trainer.values() else {
            panic!("f32 was asked for")
        };
        let named = trainer
            .parameters()
            .iter()
            .zip(values)
            .filter(|(p, _)| p.name.contains("output_heads.energy"));
        named.map(|(_, v)| v.clone()).collect::<Vec<_>>()
    };
    let before = energy(&trainer);
    batch.lend(|raw| trainer.train_step(raw).unwrap());
    assert_eq!(before.len(), 5);
    assert_eq!(energy(&trainer), before);
}

#[test]
fn projected_weights_make_the_model_equivariant() {
    let batch = batch_of(&[cloud(9, 1), cloud(12, 2)]);
    let trainer = trainer(&small(), "f64", "", 3);
    let index = trainer
        .parameters()
        .iter()
        .position(|p| {
            p.name
                .ends_with("force_direction_layer.final_output.0.weight")
        })
        .unwrap();
    let Flat::F64(mut values) = trainer.values() else {
        panic!("f64 was asked for")
    };
    trainer
        .model()
        .project_equivariant(&mut values[index])
        .unwrap();
    let model = equivbench_plugin::parameters::write(
        trainer.model().valid(),
        &Flat::F64(values),
        Precision::F64,
    );
    let twirl = |model: &Escaip| {
        batch.lend(|raw| {
            model
                .exact_twirl(&Batch::new(raw, &Device::flex(), Precision::F64, None).unwrap())
                .unwrap()
        })
    };
    let variance = |exact: &[f64]| exact[63..].iter().sum::<f64>();
    assert!(variance(&twirl(&trainer.model().valid())) > 1e-6);
    // Rounding of a mean of three equal rows.
    assert!(variance(&twirl(&model)) < 1e-28);
}

#[test]
fn groups_name_the_direction_branch_and_its_last_map() {
    let trainer = trainer(&EscaipConfig::new(128, 8, 1), "f32", "", 1);
    let groups = trainer.instance().unwrap().groups;
    let scalars = |name: &str| groups.iter().find(|g| g.name == name).unwrap().scalars;
    assert_eq!(scalars("head"), 66_304);
    assert_eq!(scalars("equivariant-subspace"), 384);
}

#[test]
fn unreadable_batches_are_refused_with_the_reason() {
    let mut trainer = trainer(&small(), "f32", "", 3);
    let (positions, species) = cloud(4, 1);
    let mut broken = positions.clone();
    broken[7] = f64::NAN;
    let text = |error: PluginError| error.to_string();
    assert!(
        text(refusal(
            &mut trainer,
            &OwnedBatch::new(&broken, &species, &[4])
        ))
        .contains("the position of atom 2 of the batch")
    );
    for z in [0, -3, 20, 109] {
        let error = text(refusal(
            &mut trainer,
            &OwnedBatch::new(&positions, &[1, 6, z, 8], &[4]),
        ));
        assert!(
            error.contains(&format!("atom 2 of the batch has atomic number {z}"))
                && error.contains("1 to 19"),
            "{error}"
        );
    }
    assert!(
        text(refusal(
            &mut trainer,
            &OwnedBatch::new(&positions, &species, &[4, 0])
        ))
        .contains("sample 1")
    );
    assert!(text(refusal(&mut trainer, &OwnedBatch::new(&[], &[], &[]))).contains("empty"));
}

#[test]
fn the_reference_loss_needs_the_energy_head() {
    let mut trainer = trainer(
        &small().with_energy_head(false),
        "f32",
        r#"{"loss": "reference"}"#,
        3,
    );
    let error = batch_of(&[cloud(4, 1)]).lend(|raw| trainer.train_step(raw).unwrap_err());
    assert!(error.to_string().contains("energy_head"));
}

#[test]
fn impossible_configurations_are_refused_before_anything_is_built() {
    let request = ModelRequest {
        config: r#"{"hidden": 30}"#.into(),
        ..ModelRequest::default()
    };
    let error = Trainer::<Escaip>::open(&request).err().unwrap().to_string();
    assert!(
        error.contains("hidden = 30 is not divisible by heads = 4"),
        "{error}"
    );
}

/// A rotation about an axis that is no axis of the frame.
fn rotation(angle: f64) -> [[f64; 3]; 3] {
    let ((sin, cos), axis) = (angle.sin_cos(), [2.0 / 3.0, -1.0 / 3.0, 2.0 / 3.0]);
    let cross = [
        [0.0, -axis[2], axis[1]],
        [axis[2], 0.0, -axis[0]],
        [-axis[1], axis[0], 0.0],
    ];
    std::array::from_fn(|i| {
        std::array::from_fn(|j| {
            f64::from(u8::from(i == j)) * cos + sin * cross[i][j] + (1.0 - cos) * axis[i] * axis[j]
        })
    })
}

fn rotated(molecules: &[(Vec<f64>, Vec<i64>)], first_angle: f64) -> OwnedBatch {
    batch_of(&turned(molecules, first_angle))
}

/// The molecules, each rotated in its own way.
fn turned(molecules: &[(Vec<f64>, Vec<i64>)], first_angle: f64) -> Vec<(Vec<f64>, Vec<i64>)> {
    let turn = |(m, (positions, species)): (usize, &(Vec<f64>, Vec<i64>))| {
        let r = rotation(first_angle + m as f64);
        let turned = positions
            .chunks_exact(3)
            .flat_map(|x| r.map(|row| row[0] * x[0] + row[1] * x[1] + row[2] * x[2]))
            .collect();
        (turned, species.clone())
    };
    molecules.iter().enumerate().map(turn).collect()
}

#[test]
fn predictions_of_rotated_copies_are_the_same_from_one_shared_pass() {
    // The last molecule is one atom without neighbours.
    let molecules = [cloud(9, 1), cloud(23, 3), cloud(1, 4)];
    let mut trainer = trainer(&small(), "f64", r#"{"lr": 1e-2, "ema_decay": 0.5}"#, 5);
    batch_of(&molecules).lend(|raw| trainer.train_step(raw).unwrap());
    for weights in [Weights::Raw, Weights::Ema] {
        let predict = |trainer: &mut Trainer<Escaip>, batch: &OwnedBatch| -> Vec<f64> {
            batch.lend(|raw| {
                trainer
                    .predict(raw, weights)
                    .unwrap()
                    .into_data()
                    .iter::<f64>()
                    .collect()
            })
        };
        for angle in [0.0, 0.8, 2.5] {
            let copy = rotated(&molecules, angle);
            let blind = predict(&mut trainer, &copy);
            batch_of(&molecules).lend(|raw| trainer.share(raw, weights).unwrap());
            let shared = predict(&mut trainer, &copy);
            let scale = blind.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
            // Sums over 23 neighbours of numbers that went through two blocks: f64 rounding, some hundred times.
            let difference = blind
                .iter()
                .zip(&shared)
                .fold(0.0, |most: f64, (a, b)| most.max((a - b).abs()));
            assert!(difference < 1e-13 * scale, "{difference:e} of {scale}");
            assert!(scale > 1e-3);
            let other = batch_of(&molecules[..2])
                .lend(|raw| trainer.predict(raw, weights).map(drop).unwrap_err());
            assert!(
                other.to_string().contains("rotated copy of 33 atoms"),
                "{other}"
            );
        }
        batch_of(&molecules).lend(|raw| trainer.train_step(raw).unwrap());
        // New weights end it: a batch of other sizes is read again.
        assert_eq!(predict(&mut trainer, &batch_of(&molecules[..1])).len(), 27);
    }
}

#[test]
fn steps_in_bf16_follow_those_in_f32_and_predictions_stay_in_f32() {
    let batch = batch_of(&[cloud(9, 1), cloud(6, 2)]);
    let run = |precision| {
        let mut trainer = trainer(&small(), precision, r#"{"lr": 1e-3}"#, 5);
        let fresh = predict(&mut trainer, &batch);
        let losses: Vec<f64> = (0..3)
            .map(|_| batch.lend(|raw| trainer.train_step(raw).unwrap()[0]))
            .collect();
        (bits(&fresh), losses)
    };
    let (f32_fresh, f32_losses) = run("f32");
    let (bf16_fresh, bf16_losses) = run("bf16");
    assert_eq!(f32_fresh, bf16_fresh);
    for (single, half) in f32_losses.iter().zip(&bf16_losses) {
        // A few percent: sums of products of numbers with 8 significant bits, through two blocks.
        assert!(
            (half / single - 1.0).abs() < 0.05 && half != single,
            "{half} in bf16, {single} in f32"
        );
    }
}

/// Three copies, one after the other, each molecule of the second and third rotated in its own way.
fn three_copies(molecules: &[(Vec<f64>, Vec<i64>)]) -> OwnedBatch {
    let copies = [
        turned(molecules, 0.0),
        turned(molecules, 0.8),
        turned(molecules, 2.5),
    ];
    batch_of(&copies.concat())
}

#[test]
fn what_lies_frozen_below_the_head_answers_for_rotated_copies_as_the_whole_model_does() {
    // The last molecule is one atom without neighbours.
    let molecules = [cloud(9, 1), cloud(23, 3), cloud(1, 4)];
    let nano = Escaip::sizes().remove(0).1;
    for config in [small(), nano] {
        for group in ["head", "equivariant-subspace"] {
            let mut trainer = trainer(&config, "f64", "", 5);
            let found = three_copies(&molecules)
                .lend(|raw| frozen_deviations(&mut trainer, raw, 3, group))
                .unwrap();
            println!("{group}, hidden {}: {found:?}", config.hidden);
            // Latents of the copies differ by f64 rounding, some hundred times.
            assert!(
                found.predictions < 1e-12 && found.products < 1e-12,
                "{group}: {found:?}"
            );
            assert_eq!(found.features.is_some(), group == "equivariant-subspace");
            assert!(found.features.unwrap_or(0.0) < 1e-12, "{group}: {found:?}");
        }
    }
}

#[test]
fn features_of_the_last_map_are_sums_of_what_enters_it_times_unit_vectors() {
    let molecules = [cloud(9, 1), cloud(12, 2)];
    let (batch, atoms, hidden) = (three_copies(&molecules), 21, small().hidden);
    let mut trainer = trainer(&small(), "f64", "", 5);
    let trace = batch.lend(|raw| {
        let batch = Batch::new(raw, &Device::flex(), Precision::F64, None).unwrap();
        trainer.model().valid().trace(&batch).unwrap()
    });
    let note = |name: &str| &trace.notes.iter().find(|n| n.name == name).unwrap().values;
    let (h, m, graph) = (
        note("head.h"),
        note("head.magnitude"),
        &trace.features.graph,
    );
    let phi = |atom: usize, axis: usize, k: usize| -> f64 {
        let edges = graph.offsets[atom]..graph.offsets[atom + 1];
        m[atom]
            * edges
                .map(|e| h[e * hidden + k] * graph.directions[e][axis])
                .sum::<f64>()
    };
    batch
        .lend(|raw| trainer.freeze("equivariant-subspace", 0, raw, 3))
        .unwrap();
    // From the middle of the second copy into the third.
    let rows = atoms + 4..2 * atoms + 5;
    let found: Vec<f64> = trainer
        .features("equivariant-subspace", 0, rows.clone())
        .unwrap()
        .into_data()
        .iter::<f64>()
        .collect();
    let expected: Vec<f64> = rows
        .flat_map(|atom| (0..3 * hidden).map(move |at| (atom, at / hidden, at % hidden)))
        .map(|(atom, axis, k)| phi(atom, axis, k))
        .collect();
    let scale = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    assert_eq!(found.len(), expected.len());
    assert!(scale > 1e-3);
    let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-12 * scale;
    assert!(found.iter().zip(&expected).all(near));
}

#[test]
fn copies_of_other_molecules_are_refused() {
    let mut trainer = trainer(&small(), "f64", "", 5);
    let mut refused = |molecules: &[(Vec<f64>, Vec<i64>)]| {
        let frozen = batch_of(molecules).lend(|raw| trainer.freeze("head", 0, raw, 2));
        frozen.unwrap_err().to_string()
    };
    let (positions, species) = cloud(9, 1);
    let mut other = species.clone();
    other[3] += 1;
    let text = refused(&[
        (positions.clone(), species.clone()),
        (positions.clone(), other),
    ]);
    assert!(
        text.contains("copy 1 of the samples has another field \"species\""),
        "{text}"
    );
    let text = refused(&[(positions, species), cloud(8, 1)]);
    assert!(
        text.contains("copy 1 of the samples has other sizes"),
        "{text}"
    );
}
