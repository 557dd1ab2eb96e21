//! Predictions of rotated copies that share work are those that share nothing.

mod support;

use equivbench_abi::{Weights, descriptor::ModelRequest};
use equivbench_plugin::{PluginResult, Trainer};
use equivbench_proteina::{Proteina, ProteinaConfig};
use support::{Chains, OwnedBatch, Rotation, noisy_chains, rotations, small};

/// A configuration without and one with updates of the pairs, of the smallest size with a name and of a smaller one.
fn configurations() -> Vec<ProteinaConfig> {
    let tiny = small();
    let nano = ProteinaConfig::named().remove(0).1;
    // The other order of the columns of the token features, too.
    vec![
        tiny.clone(),
        tiny.with_update_every(1).with_chain_break_first(false),
        nano.clone(),
        nano.with_update_every(2),
    ]
}

fn open(config: &ProteinaConfig, precision: &str) -> Trainer<Proteina> {
    let recipe = r#"{"lr": 1e-2, "ema_decay": 0.5}"#.into();
    let config = serde_json::to_string(config).unwrap();
    Trainer::open(&ModelRequest {
        config,
        recipe,
        seed: 5,
        precision: precision.into(),
        ..ModelRequest::default()
    })
    .unwrap()
}

/// After some steps: fresh weights hold exact zeros, behind which much would hide.
fn trained(config: &ProteinaConfig, precision: &str) -> Trainer<Proteina> {
    let (chains, target) = four_chains();
    let mut trainer = open(config, precision);
    let batch = chains.batch().with_cloud("target", &target);
    for _ in 0..4 {
        batch.lend(|raw| trainer.train_step(raw).unwrap());
    }
    trainer
}

fn four_chains() -> (Chains, Vec<f64>) {
    noisy_chains(&[9, 14, 9, 1], &[0.4, 0.9, 0.4, 0.0], 7)
}

/// A rotated copy, and the same with an estimate of the clean cloud that is another one for every rotation.
fn copies(chains: &Chains, rotations: &[Rotation], number: usize) -> [OwnedBatch; 2] {
    let rotated = chains.rotated(rotations);
    let estimate: Vec<f64> = rotated
        .positions
        .iter()
        .map(|x| (0.8 - 0.1 * number as f64) * x + 0.05)
        .collect();
    [
        rotated.batch(),
        rotated.batch().with_cloud("self_conditioning", &estimate),
    ]
}

fn predict(
    trainer: &mut Trainer<Proteina>,
    batch: &OwnedBatch,
    weights: Weights,
) -> PluginResult<Vec<f64>> {
    batch.lend(|raw| {
        Ok(trainer
            .predict(raw, weights)?
            .into_data()
            .iter::<f64>()
            .collect())
    })
}

fn share(trainer: &mut Trainer<Proteina>, batch: &OwnedBatch, weights: Weights) {
    batch.lend(|raw| trainer.share(raw, weights).unwrap());
}

/// Ends sharing.
fn part(trainer: &mut Trainer<Proteina>) {
    share(trainer, &Chains::default().batch(), Weights::Raw);
}

/// Predictions of all copies, shared and then blind.
fn both_ways(
    trainer: &mut Trainer<Proteina>,
    base: &OwnedBatch,
    copies: &[OwnedBatch],
    weights: Weights,
) -> [Vec<Vec<f64>>; 2] {
    let all = |trainer: &mut Trainer<Proteina>| {
        copies
            .iter()
            .map(|copy| predict(trainer, copy, weights).unwrap())
            .collect()
    };
    share(trainer, base, weights);
    let shared = all(trainer);
    part(trainer);
    [shared, all(trainer)]
}

/// The largest difference over the largest number.
fn deviation(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let largest = b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    a.iter()
        .zip(b)
        .fold(0.0f64, |m, (a, b)| m.max((a - b).abs()))
        / largest
}

/// How close a distance of the cloud comes to the edge of a class, nm.
fn least_margin(chains: &Chains, config: &ProteinaConfig) -> f64 {
    let step =
        (config.position_to_nm - config.position_from_nm) / (config.position_bins - 2) as f64;
    let mut least = f64::INFINITY;
    for chain in 0..chains.sizes.len() {
        for (i, j) in chains
            .range(chain)
            .flat_map(|i| chains.range(chain).map(move |j| (i, j)))
        {
            let distance = (0..3)
                .map(|k| (chains.positions[3 * i + k] - chains.positions[3 * j + k]).powi(2))
                .sum::<f64>()
                .sqrt();
            let place = (distance - config.position_from_nm) / step;
            least = least.min((place - place.round()).abs() * step);
        }
    }
    least
}

#[test]
fn shared_predictions_are_the_blind_ones() {
    let (chains, _) = four_chains();
    let copies: Vec<OwnedBatch> = (0..3)
        .flat_map(|k| copies(&chains, &rotations(4, 11 + k as u64), k))
        .collect();
    // A rotation moves distances by rounding. As none lies on an edge, their classes stay, and all that follows is the same arithmetic on
    // the same numbers; only a matrix product may take another path where its operands lie elsewhere in memory.
    for (precision, rounding, tolerance) in [("f64", 1e-14, 1e-12), ("f32", 3e-6, 1e-5)] {
        for config in configurations() {
            assert!(
                least_margin(&chains, &config) > rounding,
                "a distance of the test lies on an edge"
            );
            let mut trainer = trained(&config, precision);
            let [shared, blind] = both_ways(&mut trainer, &chains.batch(), &copies, Weights::Raw);
            for (number, (shared, blind)) in shared.iter().zip(&blind).enumerate() {
                let found = deviation(shared, blind);
                assert!(
                    found < tolerance,
                    "{precision}, copy {number}: {found:e} for {config}"
                );
            }
            // Rotations and estimates do matter to what is compared.
            assert!(
                deviation(&blind[0], &blind[2]) > 1e-3 && deviation(&blind[0], &blind[1]) > 1e-4
            );
        }
    }
}

#[test]
fn classes_are_those_of_the_batch_that_was_shared() {
    // Two residues a billionth of a nanometre beyond 0.5 nm, which is one of nine edges from 0.1 to 1.7; in the copy they are just within.
    let config = configurations()
        .remove(0)
        .with_position_bins(10)
        .with_position_to_nm(1.7);
    let base = Chains {
        positions: vec![-0.25, 0.0, 0.0, 0.25 + 1e-9, 0.0, 0.0],
        ..pair()
    };
    let copy = Chains {
        positions: base.positions.iter().map(|x| x * (1.0 - 1e-8)).collect(),
        ..pair()
    };
    let mut trainer = trained(&config, "f64");
    let reference = predict(&mut trainer, &base.batch(), Weights::Raw).unwrap();
    let [shared, blind] = both_ways(&mut trainer, &base.batch(), &[copy.batch()], Weights::Raw);
    assert!(deviation(&shared[0], &reference) < 1e-6);
    assert!(deviation(&blind[0], &reference) > 1e-4);
}

/// A chain of two residues, without positions.
fn pair() -> Chains {
    Chains {
        sizes: vec![2],
        flow_time: vec![0.5],
        residue_index: vec![1, 2],
        chain_break: vec![0, 0],
        positions: vec![],
    }
}

#[test]
fn what_is_no_rotated_copy_is_refused() {
    let (chains, _) = four_chains();
    let mut trainer = open(&configurations()[0], "f32");
    share(&mut trainer, &chains.batch(), Weights::Raw);
    let mut refused = |batch: OwnedBatch| {
        predict(&mut trainer, &batch, Weights::Raw)
            .unwrap_err()
            .to_string()
    };
    for (other, what) in [
        (chains.select(&[0, 1, 2]), "the sizes of its samples differ"),
        (
            chains.select(&[1, 0, 2, 3]),
            "the sizes of its samples differ",
        ),
        (
            Chains {
                flow_time: vec![0.4, 0.9, 0.5, 0.0],
                ..chains.clone()
            },
            "\"flow_time\" differ",
        ),
        (
            Chains {
                residue_index: vec![1; 33],
                ..chains.clone()
            },
            "\"residue_index\" differ",
        ),
        (
            Chains {
                chain_break: vec![0; 33],
                ..chains.clone()
            },
            "\"chain_break\" differ",
        ),
    ] {
        let message = refused(other.batch());
        assert!(
            message.contains("no rotated copy") && message.contains(what),
            "{message}"
        );
    }
    assert!(refused(chains.batch().without("positions")).contains("positions"));
}

#[test]
fn sharing_is_for_the_weights_that_were_named_and_ends_with_a_step() {
    let (chains, target) = four_chains();
    let [copy, conditioned] = copies(&chains, &rotations(4, 3), 0);
    let other = chains.select(&[1]).batch();
    for config in configurations() {
        let mut trainer = trained(&config, "f64");
        let copies = [copy.clone(), conditioned.clone()];
        for weights in [Weights::Raw, Weights::Ema] {
            let [shared, blind] = both_ways(&mut trainer, &chains.batch(), &copies, weights);
            assert!(
                shared
                    .iter()
                    .zip(&blind)
                    .all(|(shared, blind)| deviation(shared, blind) < 1e-12)
            );
        }
        let averaged = predict(&mut trainer, &copy, Weights::Ema).unwrap();
        share(&mut trainer, &chains.batch(), Weights::Raw);
        assert_eq!(
            predict(&mut trainer, &copy, Weights::Ema).unwrap(),
            averaged
        );
        assert!(
            deviation(
                &predict(&mut trainer, &copy, Weights::Raw).unwrap(),
                &averaged
            ) > 1e-4
        );
        assert!(predict(&mut trainer, &other, Weights::Raw).is_err());
        chains
            .batch()
            .with_cloud("target", &target)
            .lend(|raw| trainer.train_step(raw).unwrap());
        assert!(predict(&mut trainer, &other, Weights::Raw).is_ok());
        let [shared, blind] = both_ways(&mut trainer, &chains.batch(), &copies, Weights::Raw);
        assert!(
            shared
                .iter()
                .zip(&blind)
                .all(|(shared, blind)| deviation(shared, blind) < 1e-12)
        );
    }
}

#[test]
fn an_estimate_of_the_shared_batch_is_of_no_account() {
    let (chains, _) = four_chains();
    let [copy, conditioned] = copies(&chains, &rotations(4, 3), 0);
    let estimate = vec![0.3; chains.positions.len()];
    let mut trainer = trained(&configurations()[0], "f64");
    let plain = both_ways(
        &mut trainer,
        &chains.batch(),
        &[copy.clone(), conditioned.clone()],
        Weights::Raw,
    );
    let with_estimate = chains.batch().with_cloud("self_conditioning", &estimate);
    assert_eq!(
        both_ways(
            &mut trainer,
            &with_estimate,
            &[copy, conditioned],
            Weights::Raw
        ),
        plain
    );
}
