//! Laws of the whole model: what it refuses, what does not matter, what is deterministic, how fresh weights are distributed.

mod support;

use burn::{module::Module, tensor::Device};
use equivbench_abi::{
    Model as _, Weights, abi_stable::std_types::RSlice, descriptor::ModelRequest,
};
use equivbench_plugin::{
    Batch, ModelPlugin, PluginError, Precision, Trainer, parameters::Flat,
    testing::frozen_deviations,
};
use equivbench_proteina::{Proteina, ProteinaConfig};
use support::{Chains, OwnedBatch, noisy_chains, rotations, small};

/// With updates of the pair representation after every layer but the last.
fn triangular() -> ProteinaConfig {
    small().with_update_every(1)
}

fn trainer(config: &ProteinaConfig, precision: &str, recipe: &str, seed: u64) -> Trainer<Proteina> {
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

fn four_chains() -> (Chains, Vec<f64>) {
    noisy_chains(&[9, 14, 9, 1], &[0.4, 0.9, 0.4, 0.0], 7)
}

fn training_batch() -> OwnedBatch {
    let (chains, target) = four_chains();
    chains.batch().with_cloud("target", &target)
}

fn predict(trainer: &mut Trainer<Proteina>, batch: &OwnedBatch) -> Vec<f64> {
    batch.lend(|raw| {
        trainer
            .predict(raw, Weights::Raw)
            .unwrap()
            .into_data()
            .iter::<f64>()
            .collect()
    })
}

fn step(trainer: &mut Trainer<Proteina>, batch: &OwnedBatch) -> [f64; 3] {
    batch.lend(|raw| trainer.train_step(raw).unwrap())
}

fn refusal(trainer: &mut Trainer<Proteina>, batch: &OwnedBatch) -> PluginError {
    batch.lend(|raw| trainer.predict(raw, Weights::Raw).map(drop).unwrap_err())
}

fn doubles(trainer: &Trainer<Proteina>) -> Vec<Vec<f64>> {
    match &trainer.values() {
        Flat::F64(values) => values.clone(),
        Flat::F32(values) => values
            .iter()
            .map(|p| p.iter().map(|&v| f64::from(v)).collect())
            .collect(),
    }
}

/// Moves every weight: fresh models hold exact zeros, behind which much would hide.
fn shaken(config: &ProteinaConfig, precision: &str) -> Trainer<Proteina> {
    let mut trainer = trainer(config, precision, "", 5);
    let mut state = 1u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        0.2 * ((state >> 11) as f64 / (1u64 << 53) as f64 - 0.5)
    };
    let moved: Vec<Vec<f64>> = doubles(&trainer)
        .into_iter()
        .map(|p| p.into_iter().map(|v| v + next()).collect())
        .collect();
    trainer.restart_from(match precision {
        "f64" => Flat::F64(moved),
        _ => Flat::F32(
            moved
                .into_iter()
                .map(|p| p.into_iter().map(|v| v as f32).collect())
                .collect(),
        ),
    });
    trainer
}

#[test]
fn a_prediction_depends_neither_on_who_shares_the_batch_nor_on_the_order() {
    let (chains, _) = four_chains();
    let estimate: Vec<f64> = chains.positions.iter().map(|x| 0.8 * x + 0.05).collect();
    for config in [small(), triangular()] {
        let mut trainer = shaken(&config, "f64");
        let mut with_estimate = |selected: &[usize], conditioned: bool| {
            let own = selected.iter().flat_map(|&c| {
                estimate[3 * chains.range(c).start..3 * chains.range(c).end].to_vec()
            });
            let batch = chains.select(selected).batch();
            let batch = if conditioned {
                batch.with_cloud("self_conditioning", &own.collect::<Vec<_>>())
            } else {
                batch
            };
            predict(&mut trainer, &batch)
        };
        for conditioned in [false, true] {
            let together = with_estimate(&[0, 1, 2, 3], conditioned);
            let alone: Vec<f64> = (0..4)
                .flat_map(|chain| with_estimate(&[chain], conditioned))
                .collect();
            let mixed = with_estimate(&[3, 0, 2, 1], conditioned);
            let part = |from: usize, to: usize| &together[3 * from..3 * to];
            let reordered = [part(32, 33), part(0, 9), part(23, 32), part(9, 23)].concat();
            let largest = together.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            for (found, expected) in [(&alone, &together), (&mixed, &reordered)] {
                // Matrix products of another shape may add in another order.
                assert!(
                    found
                        .iter()
                        .zip(expected)
                        .all(|(a, b)| (a - b).abs() < 1e-12 * largest),
                    "{config}"
                );
            }
        }
    }
}

#[test]
fn moving_the_numbers_of_residues_together_changes_nothing_and_moving_one_does() {
    let (chains, _) = four_chains();
    let mut trainer = shaken(&small(), "f64");
    let base = predict(&mut trainer, &chains.batch());
    let mut shifted = chains.clone();
    shifted.residue_index.iter_mut().for_each(|k| *k -= 1000);
    assert_eq!(predict(&mut trainer, &shifted.batch()), base);
    let mut other = chains.clone();
    other.residue_index[3] += 1;
    assert_ne!(predict(&mut trainer, &other.batch()), base);
    let mut broken = chains;
    broken.chain_break[0] = 1;
    assert_ne!(predict(&mut trainer, &broken.batch()), base);
}

#[test]
fn an_estimate_of_zeros_is_not_the_same_as_none() {
    let (chains, _) = four_chains();
    let mut trainer = shaken(&small(), "f64");
    let zeros = chains
        .batch()
        .with_cloud("self_conditioning", &vec![0.0; chains.positions.len()]);
    assert_ne!(
        predict(&mut trainer, &zeros),
        predict(&mut trainer, &chains.batch())
    );
}

#[test]
fn weights_and_training_follow_from_the_seed_alone() {
    let batch = training_batch();
    for config in [small(), triangular()] {
        let run = |seed| {
            let mut trainer = trainer(&config, "f32", r#"{"lr": 1e-3}"#, seed);
            let losses: Vec<f64> = (0..4).map(|_| step(&mut trainer, &batch)[0]).collect();
            (losses, predict(&mut trainer, &batch))
        };
        assert_eq!(run(3), run(3));
        assert_ne!(run(3).0, run(4).0);
    }
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let batch = training_batch();
    let open = || trainer(&small(), "f32", r#"{"lr": 1e-3}"#, 3);
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
    // Half of the steps condition on a prediction of their own: the coin is part of the run.
    let rest: Vec<f64> = (0..4).map(|_| step(&mut resumed, &batch)[0]).collect();
    assert_eq!(rest, losses[4..]);
    assert_eq!(doubles(&resumed), doubles(&straight));
}

#[test]
fn both_precisions_start_from_the_same_weights() {
    assert_eq!(
        doubles(&trainer(&triangular(), "f32", "", 3)),
        doubles(&trainer(&triangular(), "f64", "", 3))
    );
}

#[test]
fn training_lowers_every_loss() {
    let batch = training_batch();
    for config in [small(), triangular()] {
        for loss in Proteina::losses() {
            let config = config.clone().with_self_conditioning_probability(0.0);
            let mut trainer = trainer(
                &config,
                "f32",
                &format!("{{\"loss\": \"{loss}\", \"lr\": 3e-3}}"),
                3,
            );
            let losses: Vec<f64> = (0..80).map(|_| step(&mut trainer, &batch)[0]).collect();
            assert!(
                losses[79] < 0.8 * losses[0],
                "{loss}: {} -> {}",
                losses[0],
                losses[79]
            );
        }
    }
}

/// The value of a loss in a training step: with a step of size zero, the weights stay.
fn training_losses(config: &ProteinaConfig, loss: &str, count: usize) -> Vec<f64> {
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
fn a_training_step_conditions_on_its_own_first_prediction_as_often_as_the_coin_says() {
    let never = training_losses(
        &small().with_self_conditioning_probability(0.0),
        "flow-matching",
        3,
    );
    let always = training_losses(
        &small().with_self_conditioning_probability(1.0),
        "flow-matching",
        3,
    );
    assert!(never.windows(2).all(|w| w[0] == w[1]) && always.windows(2).all(|w| w[0] == w[1]));
    assert_ne!(never[0], always[0]);
    let steps = 200;
    let coins = training_losses(&small(), "flow-matching", steps);
    let conditioned = coins.iter().filter(|&&loss| loss == always[0]).count();
    assert!(
        coins
            .iter()
            .all(|&loss| loss == always[0] || loss == never[0])
    );
    // Four standard deviations of a fair coin.
    assert!(
        (conditioned as f64 - 100.0).abs() < 4.0 * (0.25 * steps as f64).sqrt(),
        "{conditioned} of {steps}"
    );
    // Other losses are plain.
    for loss in ["velocity-mse", "mse"] {
        assert!(
            training_losses(&small().with_self_conditioning_probability(1.0), loss, 3)
                .windows(2)
                .all(|w| w[0] == w[1])
        );
    }
}

#[test]
fn the_second_pass_of_a_step_sees_the_clean_cloud_that_the_first_predicts() {
    for config in [small(), triangular()] {
        let config = config.with_self_conditioning_probability(1.0);
        let (chains, target) = four_chains();
        let mut trainer = trainer(&config, "f64", r#"{"lr": 0.0}"#, 3);
        let in_step = step(&mut trainer, &training_batch())[0];
        let velocity = predict(&mut trainer, &chains.batch());
        let mut clean = chains.positions.clone();
        for chain in 0..4 {
            for k in 3 * chains.range(chain).start..3 * chains.range(chain).end {
                clean[k] += (1.0 - chains.flow_time[chain]) * velocity[k];
            }
        }
        let given = chains
            .batch()
            .with_cloud("self_conditioning", &clean)
            .with_cloud("target", &target);
        // A given estimate is used as it is, without a coin.
        assert_eq!(step(&mut trainer, &given)[0], in_step);
    }
}

#[test]
fn the_loss_is_balanced_over_proteins_and_nearly_that_of_the_velocity() {
    let (chains, target) = four_chains();
    let mut trainer = trainer(
        &small().with_self_conditioning_probability(0.0),
        "f64",
        r#"{"lr": 0.0}"#,
        3,
    );
    let loss = step(&mut trainer, &training_batch())[0];
    let velocity = predict(&mut trainer, &chains.batch());
    let mean = |chain: usize| {
        let range = 3 * chains.range(chain).start..3 * chains.range(chain).end;
        velocity[range.clone()]
            .iter()
            .zip(&target[range.clone()])
            .map(|(v, u)| (v - u).powi(2))
            .sum::<f64>()
            / range.len() as f64
    };
    let factor = |t: f64| (1.0 - t).powi(2) / ((1.0 - t).powi(2) + 1e-5);
    let expected: f64 = (0..4)
        .map(|chain| factor(chains.flow_time[chain]) * mean(chain) / 4.0)
        .sum();
    assert!((loss - expected).abs() < 1e-13 * expected);
    let plain = training_losses(&small(), "velocity-mse", 1)[0];
    assert!((plain - (0..4).map(|chain| mean(chain) / 4.0).sum::<f64>()).abs() < 1e-13 * plain);
}

#[test]
fn a_fresh_distogram_costs_about_the_logarithm_of_its_classes_for_the_chains_that_are_late() {
    let weighted = |weight: f64| {
        training_losses(
            &triangular()
                .with_self_conditioning_probability(0.0)
                .with_distogram_weight(weight),
            "flow-matching",
            1,
        )[0]
    };
    let term = weighted(1.0) - weighted(0.0);
    assert!((weighted(2.0) - weighted(0.0) - 2.0 * term).abs() < 1e-12);
    // Three of four chains are later than 0.3, and fresh logits are small: within a third of ln 8.
    assert!((term / (0.75 * 8f64.ln()) - 1.0).abs() < 0.33, "{term}");
}

#[test]
fn groups_are_the_head_and_the_head_with_its_norm() {
    let trainer = trainer(&ProteinaConfig::new(512, 8, 1), "f32", "", 1);
    let groups = trainer.instance().unwrap().groups;
    let scalars = |name: &str| groups.iter().find(|g| g.name == name).unwrap().scalars;
    assert_eq!(scalars("head"), 1536);
    assert_eq!(scalars("head-norm"), 1536 + 1024);
}

#[test]
fn an_instantiated_model_has_as_many_parameters_as_the_formula_counts() {
    let nano = Proteina::sizes().remove(0).1;
    for config in [
        small(),
        triangular(),
        triangular().with_update_every(2),
        nano.clone(),
        nano.with_update_every(1),
    ] {
        assert_eq!(
            Proteina::init(&config, &Device::flex()).num_params() as u64,
            Proteina::parameter_count(&config),
            "{config}"
        );
    }
}

#[test]
fn unreadable_batches_are_refused_with_the_reason() {
    let mut trainer = trainer(&small(), "f32", "", 3);
    let (chains, target) = four_chains();
    let mut refused = |change: &dyn Fn(&mut Chains)| {
        let mut changed = chains.clone();
        change(&mut changed);
        refusal(&mut trainer, &changed.batch()).to_string()
    };
    assert!(
        refused(&|c| c.positions[7] = f64::NAN)
            .contains("\"positions\" is not finite at residue 2")
    );
    assert!(refused(&|c| c.positions[0] = f64::INFINITY).contains("residue 0"));
    assert!(refused(&|c| c.flow_time[1] = 1.5).contains("flow time of sample 1 is 1.5"));
    assert!(refused(&|c| c.flow_time[3] = f64::NAN).contains("flow time of sample 3"));
    assert!(
        refused(&|c| c.chain_break[4] = 2).contains("chain break of residue 4 of the batch is 2")
    );
    assert!(
        refused(&|c| c.sizes = vec![9, 14, 10, 0])
            .contains("sample 3 of the batch has no residues")
    );
    let mut refused = |batch: OwnedBatch| refusal(&mut trainer, &batch).to_string();
    let estimate = vec![f64::NAN; chains.positions.len()];
    assert!(
        refused(chains.batch().with_cloud("self_conditioning", &estimate))
            .contains("\"self_conditioning\" is not finite")
    );
    for name in ["positions", "flow_time", "residue_index", "chain_break"] {
        assert!(refused(chains.batch().without(name)).contains(name));
    }
    assert!(refused(Chains::default().batch()).contains("empty"));
    let mut untrained =
        |batch: OwnedBatch| batch.lend(|raw| trainer.train_step(raw).unwrap_err().to_string());
    assert!(untrained(chains.batch()).contains("target"));
    assert!(
        untrained(
            chains
                .batch()
                .with_cloud("target", &vec![f64::NAN; target.len()])
        )
        .contains("\"target\" is not finite")
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
        Trainer::<Proteina>::open(&request)
            .err()
            .unwrap()
            .to_string()
    };
    assert!(
        refused(r#"{"token_width": 30}"#, "")
            .contains("token_width = 30 is not divisible by heads = 4")
    );
    assert!(refused("", r#"{"loss": "huber"}"#).contains("flow-matching, velocity-mse, mse"));
    let trainer = trainer(&small(), "f32", "", 1);
    let device = Device::flex();
    let error = training_batch().lend(|raw| {
        trainer
            .model()
            .valid()
            .loss(
                "huber",
                &Batch::new(raw, &device, Precision::F32, None).unwrap(),
            )
            .unwrap_err()
    });
    assert!(error.to_string().contains("velocity-mse"));
}

/// Fresh weights against those of our PyTorch, and of the reference where its fixtures are there, parameter by parameter.
#[test]
fn fresh_weights_have_the_moments_of_the_reference() {
    let config = ProteinaConfig::new(512, 8, 2).with_update_every(2);
    let trainer = trainer(&config, "f32", "", 9);
    let ours: Vec<(String, Vec<f64>)> = trainer
        .parameters()
        .iter()
        .map(|p| p.name.clone())
        .zip(doubles(&trainer))
        .collect();
    let files: Vec<_> = equivbench_testkit::parity_dirs("proteina")
        .iter()
        .map(|dir| dir.join("init_stats.json"))
        .filter(|path| path.exists())
        .collect();
    assert!(!files.is_empty());
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let about: serde_json::Value = serde_json::from_str(&text).unwrap();
        let rows = about["rows"].as_array().unwrap();
        for row in rows {
            compare_moments(&ours, row);
        }
        // The file leaves out the second layer, which is like the first.
        assert!(rows.len() > 100);
    }
}

/// A row: name, shape, mean, standard deviation, least and largest value.
fn compare_moments(ours: &[(String, Vec<f64>)], row: &serde_json::Value) {
    let name = row[0].as_str().unwrap();
    let theirs = Moments::read(&(2..6).map(|k| row[k].as_f64().unwrap()).collect::<Vec<_>>());
    let Some((_, values)) = ours.iter().find(|(own, _)| own == name) else {
        panic!("{name} is not there")
    };
    Moments::of(values).check(&theirs, name, values.len() as f64);
}

#[derive(Debug)]
struct Moments {
    mean: f64,
    deviation: f64,
    low: f64,
    high: f64,
}

impl Moments {
    fn read(row: &[f64]) -> Self {
        Self {
            mean: row[0],
            deviation: row[1],
            low: row[2],
            high: row[3],
        }
    }

    fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let deviation =
            (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
        let edge = |pick: fn(f64, f64) -> f64| values.iter().copied().fold(values[0], pick);
        Self {
            mean,
            deviation,
            low: edge(f64::min),
            high: edge(f64::max),
        }
    }

    fn check(&self, theirs: &Self, name: &str, count: f64) {
        let what = || format!("{name}: {self:?} and {theirs:?}");
        if theirs.deviation == 0.0 {
            assert_eq!(
                [self.low, self.high],
                [theirs.low, theirs.high],
                "{}",
                what()
            );
            return;
        }
        // Five standard errors of a difference of two samples; the deviation of a deviation is σ / sqrt(2 n) for a normal law and less for
        // the others.
        let scale = self.deviation.max(theirs.deviation);
        assert!(
            (self.mean - theirs.mean).abs() <= 5.0 * scale * (2.0 / count).sqrt(),
            "{}",
            what()
        );
        assert!(
            (self.deviation - theirs.deviation).abs() <= 5.0 * scale / count.sqrt(),
            "{}",
            what()
        );
        // The largest of n numbers comes within n⁻¹ of a bound, give or take; the largest normal ones vary more.
        let unbounded = name == "registers" || name.contains("embedding_");
        let margin = if unbounded {
            0.5
        } else {
            (40.0 / count).clamp(0.01, 0.5)
        };
        assert!(
            (self.low / theirs.low - 1.0).abs() < margin
                && (self.high / theirs.high - 1.0).abs() < margin,
            "{}",
            what()
        );
    }
}

#[test]
fn fresh_triangles_and_pair_transitions_add_exactly_nothing() {
    let trainer = trainer(&triangular(), "f64", "", 9);
    let (chains, _) = four_chains();
    let device = Device::flex();
    let trace = chains.batch().lend(|raw| {
        trainer
            .model()
            .valid()
            .trace(&Batch::new(raw, &device, Precision::F64, None).unwrap())
            .unwrap()
    });
    let increments: Vec<_> = trace
        .notes
        .iter()
        .filter(|note| note.name.starts_with('p') && note.name.contains('.'))
        .collect();
    assert_eq!(increments.len(), 6);
    assert!(
        increments
            .iter()
            .all(|note| !note.values.is_empty() && note.values.iter().all(|&v| v == 0.0))
    );
    // σ(-2) of what a branch gives.
    let [out, scaled] = ["l0.attn_out", "l0.attn_scaled"]
        .map(|name| trace.notes.iter().find(|note| note.name == name).unwrap());
    let scale = 1.0 / (1.0 + 2f64.exp());
    assert!(
        out.values
            .iter()
            .zip(&scaled.values)
            .all(|(a, b)| (scale * a - b).abs() < 1e-15)
    );
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

#[test]
fn what_lies_frozen_below_the_head_answers_for_rotated_copies_as_the_whole_model_does() {
    let (chains, _) = four_chains();
    let four = chains.sizes.len();
    // Each chain of each copy rotated in its own way.
    let twelve = chains.select(&(0..3 * four).map(|k| k % four).collect::<Vec<_>>());
    let copies = twelve.rotated(&rotations(3 * four, 3));
    // Another one for every rotation, as the harness has it.
    let estimate: Vec<f64> = copies
        .positions
        .iter()
        .enumerate()
        .map(|(k, x)| (0.8 - 0.001 * k as f64) * x)
        .collect();
    let nano = ProteinaConfig::named().remove(0).1;
    for config in [small(), triangular(), nano] {
        for batch in [
            copies.batch(),
            copies.batch().with_cloud("self_conditioning", &estimate),
        ] {
            for group in ["head", "head-norm"] {
                let mut trainer = shaken(&config, "f64");
                let found = batch
                    .lend(|raw| frozen_deviations(&mut trainer, raw, 3, group))
                    .unwrap();
                println!("{group}: {found:?}");
                // f64 rounding of distances and through three layers.
                assert!(
                    found.predictions < 1e-11 && found.products < 1e-11,
                    "{group}: {found:?}"
                );
                assert_eq!(found.features.is_some(), group == "head");
                assert!(found.features.unwrap_or(0.0) < 1e-11, "{group}: {found:?}");
            }
        }
    }
}

#[test]
fn groups_below_which_it_can_be_frozen_end_with_the_linear_head() {
    let instance = trainer(&small(), "f32", "", 1).instance().unwrap();
    assert_eq!(instance.frozen_groups, ["head", "head-norm"]);
    let [head] = &instance.linear[..] else {
        panic!("one group is linear")
    };
    let group = instance
        .groups
        .iter()
        .find(|g| g.name == head.group)
        .unwrap();
    assert_eq!(group.scalars, head.blocks * head.width);
    assert_eq!(
        (head.blocks, head.shared, head.rows.as_str()),
        (3, true, "point")
    );
}
