//! What this machine can do at best: the rate of large matrix products and of copies, with the threads of rayon
//! (`RAYON_NUM_THREADS`). Floors of training steps rest on these two figures.

use burn::tensor::{Device, Distribution, Tensor};
use rayon::prelude::*;
use std::{hint::black_box, time::Instant};

const REPEATS: usize = 15;

fn main() {
    equivbench_kernels::tune_allocator();
    let device = Device::flex();
    println!("{} threads", rayon::current_num_threads());
    for side in [512, 1024, 2048] {
        let random = || Tensor::<2>::random([side, side], Distribution::Default, &device);
        let (a, b) = (random(), random());
        let seconds = fastest(|| drop(black_box(a.clone().matmul(b.clone()))));
        println!(
            "matrix product {side}^3, f32: {:.0} GFLOP/s",
            2.0 * (side as f64).powi(3) / seconds / 1e9
        );
    }
    // 64 MiB each: larger than the caches, as parameters and moments are.
    let from = vec![1.0_f32; 16 << 20];
    let mut to = vec![0.0_f32; from.len()];
    let seconds = fastest(|| {
        to.par_chunks_mut(1 << 16)
            .zip(from.par_chunks(1 << 16))
            .for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&mut to);
    });
    println!(
        "copy: {:.1} GB/s read and written",
        2.0 * (from.len() * 4) as f64 / seconds / 1e9
    );
}

/// Seconds of the fastest of some repeats.
fn fastest(mut work: impl FnMut()) -> f64 {
    let once = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..REPEATS)
        .map(|_| once(&mut work))
        .fold(f64::INFINITY, f64::min)
}
