//! Times products with a cotangent for rotated copies of a batch: of the whole model, and from what lies frozen below the head.
//!
//! `frozen_speed [SIZE [MOLECULES ATOMS [COPIES]]]` (`nano`, 8 molecules of 20 atoms and 24 copies by default), in f64. A product comes
//! with new parameters of the head, as a Hessian takes them. Both ways take turns; the fastest turn is told.

#[path = "../tests/support/mod.rs"]
mod support;

use equivbench_abi::{
    self as abi, Model as _,
    abi_stable::std_types::{RSlice, RSliceMut, RStr},
    descriptor::ModelRequest,
};
use equivbench_escaip::Escaip;
use equivbench_plugin::Trainer;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Instant;
use support::OwnedBatch;

/// Turns of each way.
const TURNS: usize = 3;
/// Products from what is frozen in one turn.
const PRODUCTS: usize = 50;
const GROUP: &str = "head";

fn main() {
    equivbench_kernels::tune_allocator();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize, default: usize| {
        arguments
            .get(place)
            .map_or(default, |n| n.parse().unwrap_or_else(|_| panic!("{n}?")))
    };
    let size = arguments.first().map_or("nano", String::as_str);
    let (molecules, atoms, copies) = (number(1, 8), number(2, 20), number(3, 24));
    let mut trainer = Trainer::<Escaip>::open(&ModelRequest {
        size: size.into(),
        precision: "f64".into(),
        ..ModelRequest::default()
    })
    .unwrap_or_else(|e| panic!("{e}"));
    let batch = batch(molecules, atoms, copies);
    let numbers = 3 * molecules * atoms * copies;
    println!(
        "{size}, f64, {molecules} molecules of {atoms} atoms, {copies} copies, group {GROUP}:"
    );
    measure(&mut trainer, &batch, copies, numbers);
}

fn measure(trainer: &mut Trainer<Escaip>, batch: &OwnedBatch, copies: usize, numbers: usize) {
    let scalars = trainer.instance().map_or(0, |instance| {
        let group = instance.groups.iter().find(|g| g.name == GROUP);
        group.map_or(0, |g| g.scalars as usize)
    });
    let (group, cotangent) = (RStr::from_str(GROUP), vec![1.0; numbers]);
    let (mut parameters, mut product) = (vec![0u8; 8 * scalars], vec![0u8; 8 * scalars]);
    trainer
        .parameters_into(group, RSliceMut::from_mut_slice(&mut parameters))
        .unwrap();
    let (mut whole_s, mut below_s, mut above_s) = (f64::MAX, f64::MAX, f64::MAX);
    for _ in 0..TURNS {
        whole_s = whole_s.min(seconds(|| {
            batch.lend(|raw| {
                let cotangent = RSlice::from_slice(bytemuck::cast_slice(&cotangent));
                let out = RSliceMut::from_mut_slice(&mut product);
                trainer.vjp_into(*raw, cotangent, group, out).unwrap()
            });
        }));
        below_s = below_s.min(seconds(|| {
            batch
                .lend(|raw| trainer.freeze(GROUP, 0, raw, copies))
                .unwrap_or_else(|e| panic!("{e}"));
        }));
        let input: Vec<f64> = std::iter::once(0.0).chain(cotangent.clone()).collect();
        let all = seconds(|| {
            for _ in 0..PRODUCTS {
                trainer
                    .set_parameters(group, RSlice::from_slice(&parameters))
                    .unwrap();
                above(trainer, &input, &mut product);
            }
        });
        above_s = above_s.min(all / PRODUCTS as f64);
    }
    println!(
        "  whole model {whole_s:.4} s; frozen {above_s:.5} s, {:.0} times faster, after {below_s:.4} s once",
        whole_s / above_s
    );
}

fn above(trainer: &mut Trainer<Escaip>, input: &[f64], out: &mut [u8]) {
    let nothing = abi::Batch {
        samples: 0,
        offsets: RSlice::from_slice(&[0]),
        fields: RSlice::from_slice(&[]),
    };
    let name = format!("{}:{GROUP}", abi::VJP_ABOVE);
    trainer
        .capability(
            RStr::from_str(&name),
            nothing,
            RSlice::from_slice(bytemuck::cast_slice(input)),
            RSliceMut::from_mut_slice(out),
        )
        .unwrap();
}

fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Copies rotated about an axis by steps of 0.7, one after the other; atoms as dense as in a molecule.
fn batch(molecules: usize, atoms: usize, copies: usize) -> OwnedBatch {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let edge = (10.0 * atoms as f64).cbrt();
    let points: Vec<[f64; 3]> = (0..molecules * atoms)
        .map(|_| std::array::from_fn(|_| rng.random_range(0.0..edge)))
        .collect();
    let species: Vec<i64> = points
        .iter()
        .map(|_| [1, 6, 7, 8][rng.random_range(0..4)])
        .collect();
    let turned = |copy: usize| {
        let (sin, cos) = (0.7 * copy as f64).sin_cos();
        points
            .iter()
            .flat_map(move |p| [cos * p[0] - sin * p[1], sin * p[0] + cos * p[1], p[2]])
    };
    let positions: Vec<f64> = (0..copies).flat_map(turned).collect();
    OwnedBatch::new(
        &positions,
        &species.repeat(copies),
        &vec![atoms; molecules * copies],
    )
}
