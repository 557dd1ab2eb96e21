//! Times predictions of rotated copies of a batch: blind, and with what they have in common computed once.
//!
//! `sharing_speed [SIZE [CHAINS RESIDUES [ROTATIONS]]]` measures one size (`nano` and then `60M`, 3 chains of 128 residues and 10
//! rotations by default), without and with an estimate of the clean cloud for every copy. Blind and shared passes take turns; on a machine
//! that does other work too, the processor seconds say more than those of the clock.

#[path = "../tests/support/mod.rs"]
mod support;

use equivbench_abi::{Weights, descriptor::ModelRequest};
use equivbench_plugin::Trainer;
use equivbench_proteina::Proteina;
use std::time::Instant;
use support::{Chains, OwnedBatch, noisy_chains, rotations};

/// Turns of each.
const TURNS: usize = 7;

fn main() {
    equivbench_kernels::tune_allocator();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: usize| {
        arguments
            .get(place)
            .map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{n}?")))
    };
    let sizes = arguments
        .first()
        .map_or(vec!["nano", "60M"], |size| vec![size.as_str()]);
    for size in sizes {
        measure(size, number(1, 3), number(2, 128), number(3, 10));
    }
}

fn measure(size: &str, chains: usize, residues: usize, count: usize) {
    let mut trainer = Trainer::<Proteina>::open(&ModelRequest {
        size: size.into(),
        ..ModelRequest::default()
    })
    .unwrap_or_else(|e| panic!("{e}"));
    let (chains, _) = noisy_chains(&vec![residues; chains], &vec![0.5; chains], 7);
    for conditioned in [false, true] {
        let copies: Vec<OwnedBatch> = (0..count).map(|k| copy(&chains, k, conditioned)).collect();
        let [blind, shared] = take_turns(&mut trainer, &chains.batch(), &copies);
        let conditioned = if conditioned {
            ", self-conditioned"
        } else {
            ""
        };
        println!(
            "{size}, {} chains of {residues} residues, {count} rotations{conditioned}:",
            chains.sizes.len()
        );
        println!(
            "  seconds: blind {blind}, shared {shared}; shared / blind {}",
            shared.over(&blind)
        );
    }
}

/// What one way costs.
struct Cost {
    median_s: f64,
    min_s: f64,
    /// Mean over the turns.
    processor_s: f64,
}

impl Cost {
    fn new(mut seconds: Vec<f64>, processor_s: f64) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self {
            median_s: seconds[TURNS / 2],
            min_s: seconds[0],
            processor_s: processor_s / TURNS as f64,
        }
    }

    fn over(&self, other: &Self) -> Self {
        Self {
            median_s: self.median_s / other.median_s,
            min_s: self.min_s / other.min_s,
            processor_s: self.processor_s / other.processor_s,
        }
    }
}

impl std::fmt::Display for Cost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.3} (min {:.3}, processor {:.3})",
            self.median_s, self.min_s, self.processor_s
        )
    }
}

fn copy(chains: &Chains, number: usize, conditioned: bool) -> OwnedBatch {
    let rotated = chains.rotated(&rotations(chains.sizes.len(), number as u64));
    let estimate: Vec<f64> = rotated.positions.iter().map(|x| 0.9 * x).collect();
    let batch = rotated.batch();
    if conditioned {
        batch.with_cloud("self_conditioning", &estimate)
    } else {
        batch
    }
}

/// All copies, blind and shared.
fn take_turns(
    trainer: &mut Trainer<Proteina>,
    base: &OwnedBatch,
    copies: &[OwnedBatch],
) -> [Cost; 2] {
    let (mut seconds, mut processor) = ([Vec::new(), Vec::new()], [0.0; 2]);
    predict_all(trainer, copies);
    for _ in 0..TURNS {
        for way in 0..2 {
            let (start, before) = (Instant::now(), processor_seconds());
            if way == 1 {
                share(trainer, base);
            }
            predict_all(trainer, copies);
            seconds[way].push(start.elapsed().as_secs_f64());
            processor[way] += processor_seconds() - before;
            // An empty batch ends sharing.
            share(trainer, &Chains::default().batch());
        }
    }
    let [blind, shared] = seconds;
    [
        Cost::new(blind, processor[0]),
        Cost::new(shared, processor[1]),
    ]
}

/// User and system seconds of this process and its threads so far; 0 where /proc is missing.
fn processor_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // utime and stime are fields 14 and 15, in ticks of 10 ms; the name in field 2 may hold blanks.
    let fields = text
        .rsplit(')')
        .next()
        .into_iter()
        .flat_map(|rest| rest.split_whitespace().skip(11).take(2));
    fields
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

fn share(trainer: &mut Trainer<Proteina>, batch: &OwnedBatch) {
    batch.lend(|raw| {
        trainer
            .share(raw, Weights::Raw)
            .unwrap_or_else(|e| panic!("{e}"))
    });
}

fn predict_all(trainer: &mut Trainer<Proteina>, copies: &[OwnedBatch]) {
    for copy in copies {
        copy.lend(|raw| {
            drop(
                trainer
                    .predict(raw, Weights::Raw)
                    .unwrap_or_else(|e| panic!("{e}"))
                    .into_data(),
            )
        });
    }
}
