//! Times every fused operation, forward and backward, next to its composition of ordinary tensor operations.
//!
//! `cargo run --release -p equivbench-kernels --example fused_against_plain -- [centres] [--default-allocator]`
//!
//! Sizes are first those of a transformer over 20 neighbours per centre: width 128, 8 heads, 512 radial features; then those
//! of a trunk over 3 chains of 128 tokens and all their pairs: width 512, 8 heads, 256 pair features. Those of grids are in
//! their names, for 4 samples and 8 groups where nothing else is said. Runs are interleaved.
//! The smallest time of each is printed, so that other work on the machine disturbs little, and the median and the quartiles
//! of the ratio of neighbouring runs.

use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use equivbench_kernels::{
    Bands, Dropout, RowChoice, RowIndex, Segments, SlotAttention, plain, tune_allocator,
};

const SLOTS: usize = 20;
const WIDTH: usize = 128;
const HEADS: usize = 8;
const RADIAL: usize = 512;
const BASIS: usize = 600;
const BAND: usize = 25;
const CHAINS: usize = 3;
const TOKENS: usize = 128;
const TOKEN_WIDTH: usize = 512;
const PAIR_WIDTH: usize = 256;
const EPSILON: f64 = 1e-5;
const REPEATS: usize = 15;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let centres = arguments
        .iter()
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(256);
    if !arguments
        .iter()
        .any(|argument| argument == "--default-allocator")
    {
        println!("allocator tuned: {}", tune_allocator());
    }
    let bench = Bench {
        centres,
        device: Device::flex().autodiff(),
    };
    println!(
        "{centres} centres; {CHAINS} chains of {TOKENS} tokens; milliseconds, forward + backward"
    );
    println!(
        "{:<28}{:>10}{:>10}{:>8}  quartiles",
        "operation", "fused", "plain", "ratio"
    );
    bench.activations();
    bench.norm();
    bench.attention();
    bench.dropout();
    bench.rows();
    bench.radial();
    bench.layer_norms();
    bench.group_norms();
    bench.gates();
    bench.lookup();
    bench.pair_attention();
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
        Tensor::random(
            shape,
            Distribution::Uniform(0.0, 1.0),
            &self.device.clone().inner(),
        )
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
        compare(
            "rms_norm",
            || x.clone(),
            fused,
            |x| plain::rms_norm(x, gain.clone(), 1e-7),
        );
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
        for (name, dropout) in [
            ("slot_attention", None),
            (
                "  with dropout",
                Some(Dropout {
                    probability: 0.1,
                    seed: 1,
                }),
            ),
        ] {
            options.dropout = dropout;
            let fused = |qkv| equivbench_kernels::slot_attention(qkv, options.clone());
            compare(
                name,
                || qkv.clone(),
                fused,
                |qkv| plain::slot_attention(qkv, options.clone()),
            );
        }
        let scores = self.random([self.centres, HEADS, SLOTS, SLOTS]);
        compare(
            "softmax",
            || scores.clone(),
            equivbench_kernels::softmax,
            plain::softmax,
        );
        let SlotAttention {
            bias,
            bias_scale,
            key_mask,
            ..
        } = options;
        let softmax = |softmax: fn(_, _, _, _) -> Tensor<4>, scores| {
            softmax(scores, bias.clone(), bias_scale.clone(), key_mask.clone())
        };
        let fused = |scores| softmax(equivbench_kernels::masked_softmax, scores);
        compare(
            "masked_softmax",
            || scores.clone(),
            fused,
            |scores| softmax(plain::masked_softmax, scores),
        );
    }

    fn dropout(&self) {
        let x = self.random([self.edges(), RADIAL]);
        let plain = |x| {
            plain::dropout(
                x,
                Dropout {
                    probability: 0.05,
                    seed: 1,
                },
            )
        };
        compare(
            "dropout",
            || x.clone(),
            |x| equivbench_kernels::dropout(x, 0.05, 1),
            plain,
        );
    }

    fn rows(&self) {
        let x = self.random([self.centres, WIDTH]);
        let index: Vec<usize> = (0..self.edges())
            .map(|edge| (edge * 7919 + edge / 3) % self.centres)
            .collect();
        let index = RowIndex::new(self.centres, &index).expect("indices are in range");
        compare(
            "gather_rows",
            || x.clone(),
            |x| equivbench_kernels::gather_rows(x, &index),
            |x| plain::gather_rows(x, &index),
        );

        let x = self.random([self.edges(), WIDTH]);
        let offsets: Vec<usize> = (0..=self.centres).map(|centre| centre * SLOTS).collect();
        let segments = Segments::new(&offsets).expect("offsets ascend");
        let fused = |x| equivbench_kernels::segment_sum(x, &segments);
        compare(
            "segment_sum",
            || x.clone(),
            fused,
            |x| plain::segment_sum(x, &segments),
        );
    }

    fn radial(&self) {
        let start: Vec<usize> = (0..self.edges())
            .map(|edge| (edge * 7919) % (BASIS - BAND))
            .collect();
        let bands = Bands::new(BASIS, &start, self.constant([self.edges(), BAND]))
            .expect("bands are in range");
        let (weight, bias) = (self.random([BASIS, RADIAL]), self.random([RADIAL]));
        let fused = |weight| equivbench_kernels::banded_radial(&bands, weight, bias.clone());
        compare(
            "banded_radial",
            || weight.clone(),
            fused,
            |weight| plain::banded_radial(&bands, weight, bias.clone()),
        );
    }

    fn layer_norms(&self) {
        for (name, rows, width) in [
            ("layer_norm, tokens", CHAINS * TOKENS, TOKEN_WIDTH),
            ("  pairs", CHAINS * TOKENS * TOKENS, PAIR_WIDTH),
        ] {
            let (x, weight, bias) = (
                self.random([rows, width]),
                self.random([width]),
                self.random([width]),
            );
            let affine = || Some((weight.clone(), bias.clone()));
            let fused = |x| equivbench_kernels::layer_norm(x, affine(), EPSILON);
            compare(
                name,
                || x.clone(),
                fused,
                |x| plain::layer_norm(x, affine(), EPSILON),
            );

            let (scale, shift, groups) = (
                self.random([CHAINS, width]),
                self.random([CHAINS, width]),
                by_chain(rows),
            );
            let fused = |x| {
                equivbench_kernels::adaptive_layer_norm(
                    x,
                    scale.clone(),
                    shift.clone(),
                    &groups,
                    EPSILON,
                )
            };
            let plain =
                |x| plain::adaptive_layer_norm(x, scale.clone(), shift.clone(), &groups, EPSILON);
            compare("  adaptive", || x.clone(), fused, plain);
        }
    }

    fn group_norms(&self) {
        const SIZES: [(&str, [usize; 5], usize); 4] = [
            ("group_norm_silu, 8 x 32^3", [4, 8, 32, 32, 32], 8),
            ("  16 x 16^3", [4, 16, 16, 16, 16], 8),
            ("  128 x 4^3", [4, 128, 4, 4, 4], 8),
            ("  32 x 64^3, one sample", [1, 32, 64, 64, 64], 16),
        ];
        for (name, shape, groups) in SIZES {
            let (x, scale, shift) = (
                self.random(shape),
                self.random([shape[1]]),
                self.random([shape[1]]),
            );
            for (name, dropout) in [
                (name, None),
                (
                    "  with dropout",
                    Some(Dropout {
                        probability: 0.1,
                        seed: 1,
                    }),
                ),
            ] {
                let fused = |x| {
                    equivbench_kernels::group_norm_silu(
                        x,
                        scale.clone(),
                        shift.clone(),
                        groups,
                        EPSILON,
                        dropout,
                    )
                };
                let plain = |x| {
                    plain::group_norm_silu(
                        x,
                        scale.clone(),
                        shift.clone(),
                        groups,
                        EPSILON,
                        dropout,
                    )
                };
                compare(name, || x.clone(), fused, plain);
            }
        }
    }

    fn gates(&self) {
        let rows = CHAINS * TOKENS;
        let x = self.random([rows, 8 * TOKEN_WIDTH]);
        compare(
            "swiglu",
            || x.clone(),
            equivbench_kernels::swiglu,
            plain::swiglu,
        );

        let (x, gate) = (
            self.random([rows * TOKENS, PAIR_WIDTH]),
            self.random([rows * TOKENS, PAIR_WIDTH]),
        );
        let fused = |x| equivbench_kernels::sigmoid_gate(x, gate.clone());
        compare(
            "sigmoid_gate, pairs",
            || x.clone(),
            fused,
            |x| plain::sigmoid_gate(x, gate.clone()),
        );

        let (x, y) = (
            self.random([rows, TOKEN_WIDTH]),
            self.random([rows, TOKEN_WIDTH]),
        );
        let (gates, groups) = (self.random([CHAINS, TOKEN_WIDTH]), by_chain(rows));
        let fused = |x| equivbench_kernels::gated_residual(x, y.clone(), gates.clone(), &groups);
        compare(
            "gated_residual, tokens",
            || x.clone(),
            fused,
            |x| plain::gated_residual(x, y.clone(), gates.clone(), &groups),
        );
    }

    fn lookup(&self) {
        const TABLES: [usize; 3] = [127, 128, 64];
        let pairs = CHAINS * TOKENS * TOKENS;
        let tables = TABLES.map(|rows| self.random([rows, PAIR_WIDTH]));
        let index = |rows: usize| (0..pairs).map(move |pair| (pair * 7919 + pair / 128) % rows);
        let choice = |rows| {
            RowChoice::new(rows, index(rows).map(|row| row as u32).collect::<Vec<_>>())
                .expect("choices are in range")
        };
        let choices = TABLES.map(choice);
        let all = |first| vec![first, tables[1].clone(), tables[2].clone()];
        let fused = |first| equivbench_kernels::lookup_sum(all(first), &choices);
        compare(
            "lookup_sum, 3 tables",
            || tables[0].clone(),
            fused,
            |first| plain::lookup_sum(all(first), &choices),
        );

        let indices = TABLES.map(|rows| {
            RowIndex::new(rows, &index(rows).collect::<Vec<_>>()).expect("indices are in range")
        });
        let gathered = |first| {
            let rows = all(first)
                .into_iter()
                .zip(&indices)
                .map(|(table, index)| equivbench_kernels::gather_rows(table, index));
            rows.reduce(Tensor::add).expect("three tables")
        };
        compare(
            "  against gather_rows",
            || tables[0].clone(),
            fused,
            gathered,
        );
    }

    fn pair_attention(&self) {
        const SIZES: [(&str, [usize; 3]); 4] = [
            ("pair attention, 74 x 32", [74, 8, 32]),
            ("  138 x 16", [138, 8, 16]),
            ("  138 x 64", [138, 8, 64]),
            ("  260 x 64", [260, 8, 64]),
        ];
        for (name, [n, heads, dim]) in SIZES {
            let qkv = self.random([CHAINS * n, 3 * heads * dim]);
            let bias = self.random([CHAINS, n, n, heads]);
            let attention = |attention: fn(_, _, _, _, _) -> Tensor<4>, qkv: Tensor<2>| {
                let part = |which| {
                    qkv.clone()
                        .narrow(1, which * heads * dim, heads * dim)
                        .reshape([CHAINS, n, heads, dim])
                };
                let [q, k, v] = [0, 1, 2].map(|which| part(which).swap_dims(1, 2));
                attention(q, k, v, bias.clone(), None)
                    .swap_dims(1, 2)
                    .reshape([CHAINS * n, heads * dim])
            };
            let fused = |qkv| attention(equivbench_kernels::pair_biased_attention, qkv);
            compare(
                name,
                || qkv.clone(),
                fused,
                |qkv| attention(plain::pair_biased_attention, qkv),
            );
        }
    }
}

/// Every chain has the same number of consecutive rows.
fn by_chain(rows: usize) -> RowChoice {
    let chains: Vec<u32> = (0..rows)
        .map(|row| (row / (rows / CHAINS)) as u32)
        .collect();
    RowChoice::new(CHAINS, chains).expect("rows fall into chains")
}

/// Prints the times of forward and backward pass of both functions.
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
        1e3 * begin.elapsed().as_secs_f64()
    };
    let rounds: Vec<_> = (0..REPEATS)
        .map(|_| {
            [
                step(&|| fused(input())),
                step(&|| plain(input())),
                step(&|| output.clone()),
            ]
        })
        .collect();
    let least = |which: usize| {
        rounds
            .iter()
            .map(|times| times[which])
            .fold(f64::INFINITY, f64::min)
    };
    // The product with the cotangent and the sum belong to neither.
    let loss = least(2);
    let mut ratios: Vec<f64> = rounds
        .iter()
        .map(|[fused, plain, _]| (plain - loss) / (fused - loss))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let [low, middle, high] = [1, 2, 3].map(|quarter| ratios[quarter * (REPEATS - 1) / 4]);
    println!(
        "{name:<28}{:>10.2}{:>10.2}{middle:>8.1}  {low:.1} to {high:.1}",
        least(0) - loss,
        least(1) - loss
    );
}
