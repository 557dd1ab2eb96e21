//! Times [`conv3d`](equivbench_kernels::conv3d()) for the layers of voxel U-Nets.
//!
//! `cargo run --release -p equivbench-kernels --example conv_speed -- [batch] [repeats] [part of a name]`
//!
//! For every shape the least time of forward pass and of forward and backward pass, both in milliseconds, and the billions
//! of floating-point operations per second that this makes: two for every weight of every result, three times that with
//! the backward pass.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use equivbench_kernels::{Conv3d, conv3d, tune_allocator};

/// Channels of `x`, of the result, and the side of `x`.
const SHAPES: [(Conv3d, [usize; 3]); 30] = [
    (Conv3d::Same3, [8, 8, 32]),
    (Conv3d::Same3, [16, 8, 32]),
    (Conv3d::Same3, [16, 16, 16]),
    (Conv3d::Same3, [32, 16, 16]),
    (Conv3d::Same3, [32, 32, 8]),
    (Conv3d::Same3, [64, 32, 8]),
    (Conv3d::Same3, [128, 128, 4]),
    (Conv3d::Same3, [256, 128, 4]),
    (Conv3d::Same3, [32, 128, 4]),
    (Conv3d::Same3, [8, 8, 16]),
    (Conv3d::Same3, [16, 16, 8]),
    (Conv3d::Same3, [32, 32, 4]),
    (Conv3d::Same3, [16, 8, 16]),
    (Conv3d::Same3, [32, 32, 32]),
    (Conv3d::Same3, [64, 32, 32]),
    (Conv3d::Same3, [64, 64, 16]),
    (Conv3d::Same3, [128, 64, 16]),
    (Conv3d::Same3, [128, 128, 8]),
    (Conv3d::Same3, [256, 128, 8]),
    (Conv3d::Same3, [512, 512, 4]),
    (Conv3d::Same3, [1024, 512, 4]),
    (Conv3d::Down3, [8, 8, 32]),
    (Conv3d::Down3, [64, 64, 16]),
    (Conv3d::Down3, [32, 32, 8]),
    (Conv3d::Up4, [8, 8, 16]),
    (Conv3d::Up4, [64, 64, 8]),
    (Conv3d::Up4, [32, 32, 4]),
    (Conv3d::Point, [16, 8, 32]),
    (Conv3d::Point, [128, 64, 16]),
    (Conv3d::Point, [1024, 512, 4]),
];

fn main() {
    tune_allocator();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |which: usize, default| {
        arguments
            .get(which)
            .and_then(|argument| argument.parse().ok())
            .unwrap_or(default)
    };
    let (batch, repeats) = (number(0, 4), number(1, 15));
    let part = arguments.get(2).map_or("", String::as_str);
    println!(
        "{:<24}{:>10}{:>10}{:>12}{:>10}",
        format!("batch {batch}"),
        "forward",
        "GFLOP/s",
        "and back",
        "GFLOP/s"
    );
    for (kind, [inputs, outputs, side]) in SHAPES {
        let name = format!("{kind:?} {inputs}->{outputs}@{side}");
        if name.contains(part) {
            time(
                &name,
                Layer {
                    kind,
                    batch,
                    inputs,
                    outputs,
                    side,
                },
                repeats,
            );
        }
    }
}

struct Layer {
    kind: Conv3d,
    batch: usize,
    inputs: usize,
    outputs: usize,
    side: usize,
}

impl Layer {
    /// Multiplications and additions of the forward pass.
    fn operations(&self) -> f64 {
        let (volume, weights) = match self.kind {
            Conv3d::Same3 => (self.side.pow(3), 27),
            Conv3d::Down3 => ((self.side / 2).pow(3), 27),
            Conv3d::Up4 => (self.side.pow(3), 64),
            Conv3d::Point => (self.side.pow(3), 1),
        };
        2.0 * (self.batch * self.inputs * self.outputs * volume * weights) as f64
    }

    fn weight(&self) -> [usize; 5] {
        match self.kind {
            Conv3d::Same3 | Conv3d::Down3 => [self.outputs, self.inputs, 3, 3, 3],
            Conv3d::Up4 => [self.inputs, self.outputs, 4, 4, 4],
            Conv3d::Point => [self.outputs, self.inputs, 1, 1, 1],
        }
    }
}

fn time(name: &str, layer: Layer, repeats: usize) {
    let device = Device::flex().autodiff();
    let random = |shape: [usize; 5]| {
        Tensor::<5>::random(shape, Distribution::Normal(0.0, 1.0), &device).require_grad()
    };
    let x = random([
        layer.batch,
        layer.inputs,
        layer.side,
        layer.side,
        layer.side,
    ]);
    let weight = random(layer.weight());
    let bias = Tensor::<1>::zeros([layer.outputs], &device).require_grad();
    let forward = || conv3d(x.clone(), weight.clone(), bias.clone(), layer.kind);
    let output = forward().detach().require_grad();
    let cotangent = Tensor::<5>::ones(output.shape(), &device.clone().inner());
    let step = |function: &dyn Fn() -> Tensor<5>| {
        let begin = Instant::now();
        black_box((function() * cotangent.clone()).sum().backward());
        begin.elapsed().as_secs_f64()
    };
    let alone = || {
        let begin = Instant::now();
        black_box(forward());
        begin.elapsed().as_secs_f64()
    };
    let least = |run: &dyn Fn() -> f64| (0..repeats).map(|_| run()).fold(f64::INFINITY, f64::min);
    // The product with the cotangent and the sum are not part of the layer.
    let (forward_s, both_s) = (
        least(&alone),
        least(&|| step(&forward)) - least(&|| step(&|| output.clone())),
    );
    let speed = |passes: f64, seconds: f64| passes * layer.operations() / seconds / 1e9;
    println!(
        "{name:<24}{:>10.3}{:>10.1}{:>12.3}{:>10.1}",
        1e3 * forward_s,
        speed(1.0, forward_s),
        1e3 * both_s,
        speed(3.0, both_s)
    );
}
