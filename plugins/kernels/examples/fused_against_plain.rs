//! Times every fused operation, forward and backward, next to its composition of ordinary tensor operations.
//!
//! `cargo run --release -p equivbench-kernels --example fused_against_plain -- [centres] [--default-allocator]`
//!
//! Sizes are those of a transformer over 20 neighbours per centre: width 128, 8 heads, 512 radial features. Runs are
//! interleaved and the smallest time of each is printed, so that other work on the machine disturbs little.

use std::hint::black_box;
use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use equivbench_kernels::{Bands, Dropout, RowIndex, Segments, SlotAttention, plain, tune_allocator};

const SLOTS: usize = 20;
const WIDTH: usize = 128;
const HEADS: usize = 8;
const RADIAL: usize = 512;
const BASIS: usize = 600;
const BAND: usize = 25;
const REPEATS: usize = 12;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let centres = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(256);
    if !arguments.iter().any(|argument| argument == "--default-allocator") {
        println!("allocator tuned: {}", tune_allocator());
    }
    let bench = Bench { centres, device: Device::flex().autodiff() };
    println!("{centres} centres, milliseconds, forward + backward\n{:<24}{:>10}{:>10}{:>8}", "operation", "fused", "plain", "ratio");
    bench.activations();
    bench.norm();
    bench.attention();
    bench.dropout();
    bench.rows();
    bench.radial();
}

struct Bench {
    centres: usize,
    device: Device,
}

impl Bench {
    fn random<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 1.0), &self.device).require_grad()
    }

    fn constant<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(0.0, 1.0), &self.device.clone().inner())
    }

    fn edges(&self) -> usize {
        self.centres * SLOTS
    }

    fn activations(&self) {
        let x = self.random([self.edges(), RADIAL]);
        compare("gelu", || x.clone(), equivbench_kernels::gelu, plain::gelu);
        compare("silu", || x.clone(), equivbench_kernels::silu, plain::silu);
    }

    fn norm(&self) {
        let (x, gain) = (self.random([self.edges(), WIDTH]), self.random([WIDTH]));
        let fused = |x| equivbench_kernels::rms_norm(x, gain.clone(), 1e-7);
        compare("rms_norm", || x.clone(), fused, |x| plain::rms_norm(x, gain.clone(), 1e-7));
    }

    fn attention(&self) {
        let qkv = self.random([self.centres, SLOTS, 3 * WIDTH]);
        let mut options = SlotAttention {
            heads: HEADS,
            bias: self.constant([self.centres, SLOTS, SLOTS]),
            bias_scale: self.random([1]),
            key_mask: Tensor::ones([self.centres, SLOTS], &self.device.clone().inner()),
            dropout: None,
        };
        for (name, dropout) in [("slot_attention", None), ("  with dropout", Some(Dropout { probability: 0.1, seed: 1 }))] {
            options.dropout = dropout;
            let fused = |qkv| equivbench_kernels::slot_attention(qkv, options.clone());
            compare(name, || qkv.clone(), fused, |qkv| plain::slot_attention(qkv, options.clone()));
        }
        let scores = self.random([self.centres, HEADS, SLOTS, SLOTS]);
        let SlotAttention { bias, bias_scale, key_mask, .. } = options;
        let softmax = |softmax: fn(_, _, _, _) -> Tensor<4>, scores| softmax(scores, bias.clone(), bias_scale.clone(), key_mask.clone());
        let fused = |scores| softmax(equivbench_kernels::masked_softmax, scores);
        compare("masked_softmax", || scores.clone(), fused, |scores| softmax(plain::masked_softmax, scores));
    }

    fn dropout(&self) {
        let x = self.random([self.edges(), RADIAL]);
        let plain = |x| plain::dropout(x, Dropout { probability: 0.05, seed: 1 });
        compare("dropout", || x.clone(), |x| equivbench_kernels::dropout(x, 0.05, 1), plain);
    }

    fn rows(&self) {
        let x = self.random([self.centres, WIDTH]);
        let index: Vec<usize> = (0..self.edges()).map(|edge| (edge * 7919 + edge / 3) % self.centres).collect();
        let index = RowIndex::new(self.centres, &index).expect("indices are in range");
        compare("gather_rows", || x.clone(), |x| equivbench_kernels::gather_rows(x, &index), |x| plain::gather_rows(x, &index));

        let x = self.random([self.edges(), WIDTH]);
        let offsets: Vec<usize> = (0..=self.centres).map(|centre| centre * SLOTS).collect();
        let segments = Segments::new(&offsets).expect("offsets ascend");
        let fused = |x| equivbench_kernels::segment_sum(x, &segments);
        compare("segment_sum", || x.clone(), fused, |x| plain::segment_sum(x, &segments));
    }

    fn radial(&self) {
        let start: Vec<usize> = (0..self.edges()).map(|edge| (edge * 7919) % (BASIS - BAND)).collect();
        let bands = Bands::new(BASIS, &start, self.constant([self.edges(), BAND])).expect("bands are in range");
        let (weight, bias) = (self.random([BASIS, RADIAL]), self.random([RADIAL]));
        let fused = |weight| equivbench_kernels::banded_radial(&bands, weight, bias.clone());
        compare("banded_radial", || weight.clone(), fused, |weight| plain::banded_radial(&bands, weight, bias.clone()));
    }
}

/// Prints the least time of forward and backward pass of both functions.
fn compare<const I: usize, const O: usize>(
    name: &str,
    input: impl Fn() -> Tensor<I>,
    fused: impl Fn(Tensor<I>) -> Tensor<O>,
    plain: impl Fn(Tensor<I>) -> Tensor<O>,
) {
    let output = fused(input()).detach().require_grad();
    let cotangent = Tensor::<O>::ones(output.shape(), &output.device().inner());
    let step = |function: &dyn Fn() -> Tensor<O>| {
        let begin = Instant::now();
        let loss = (function() * cotangent.clone()).sum();
        black_box(loss.backward());
        begin.elapsed()
    };
    // The product with the cotangent and the sum belong to neither.
    let mut least = [Duration::MAX; 3];
    for _ in 0..REPEATS {
        let times = [step(&|| fused(input())), step(&|| plain(input())), step(&|| output.clone())];
        least.iter_mut().zip(times).for_each(|(least, time)| *least = time.min(*least));
    }
    let [fused, plain, loss] = least.map(|time| 1e3 * time.as_secs_f64());
    let (fused, plain) = (fused - loss, plain - loss);
    println!("{name:<24}{fused:>10.2}{plain:>10.2}{:>8.1}", plain / fused);
}
