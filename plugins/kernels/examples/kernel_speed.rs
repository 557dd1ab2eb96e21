//! Times every fused operation, forward and backward, for a comparison with another program.
//!
//! `kernel_speed --serve` prints `ready {...}` with the names and shapes, and then answers each line on its standard input:
//! `check NAME` with a dot product and a norm of the result and of every gradient, `time NAME N` with the seconds of one run out of
//! `N`. `kernel_speed [PART]` prints milliseconds. `benchmarks/peers/torch/time_kernels.py` does the same with PyTorch, on the same
//! numbers: both take them from [`uniform`].
//!
//! Sizes are those of the models: EScAIP has 44 atoms of 20 slots (880 edges) and a width of 128, Proteina 3 chains of 128 residues
//! and 10 registers (414 tokens) and a width of 512, VoxMol 4 grids of side 32, and of side 16 further down.

#[path = "../../../benchmarks/peers/ours/lines.rs"]
mod lines;

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Instant;

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use equivbench_kernels as kernels;
use equivbench_kernels::{
    Bands, Conv3d, Dropout, ParameterUpdate, RowChoice, RowIndex, Segments, SlotAttention,
    UpdateFactors, UpdateRule,
};

const ATOMS: usize = 44;
const SLOTS: usize = 20;
const EDGES: usize = ATOMS * SLOTS;
const RADIAL: usize = 600;
const BAND: usize = 25;
const CHAINS: usize = 3;
const TOKENS: usize = 138;
const PAIRS: usize = CHAINS * 128 * 128;
/// Seeds of the cotangents of a result, and of the first gradient's.
const COTANGENT: u64 = 99;

/// Name, shape in words, and how to make it ready.
type Kernel = (&'static str, &'static str, fn(Inputs) -> Box<dyn Case>);

const KERNELS: &[Kernel] = &[
    ("silu", "414 x 512", |mut i| {
        let x = i.leaf([414, 512]);
        i.case(move || kernels::silu(x.clone()))
    }),
    ("gelu", "880 x 512", |mut i| {
        let x = i.leaf([EDGES, 512]);
        i.case(move || kernels::gelu(x.clone()))
    }),
    ("swiglu", "414 x 4096", |mut i| {
        let x = i.leaf([414, 4096]);
        i.case(move || kernels::swiglu(x.clone()))
    }),
    ("sigmoid_gate", "414 x 512", |mut i| {
        let [x, gate] = [(); 2].map(|()| i.leaf([414, 512]));
        i.case(move || kernels::sigmoid_gate(x.clone(), gate.clone()))
    }),
    ("gated_residual", "414 x 512, 3 groups", |mut i| {
        let [x, y] = [(); 2].map(|()| i.leaf([414, 512]));
        let (gates, groups) = (i.leaf([CHAINS, 512]), by_chain());
        i.case(move || kernels::gated_residual(x.clone(), y.clone(), gates.clone(), &groups))
    }),
    ("dropout", "880 x 512, 0.05", |mut i| {
        let x = i.leaf([EDGES, 512]);
        i.case(move || kernels::dropout(x.clone(), 0.05, 1))
    }),
    ("rms_norm", "880 x 128", |mut i| {
        let (x, gain) = (i.leaf([EDGES, 128]), i.leaf([128]));
        i.case(move || kernels::rms_norm(x.clone(), gain.clone(), 1e-7))
    }),
    ("layer_norm_tokens", "414 x 512", |i| {
        layer_norm(i, 414, 512)
    }),
    ("layer_norm_pairs", "49152 x 256", |i| {
        layer_norm(i, PAIRS, 256)
    }),
    ("adaptive_layer_norm", "414 x 512, 3 groups", |mut i| {
        let (x, scale, shift, groups) = (
            i.leaf([414, 512]),
            i.leaf([CHAINS, 512]),
            i.leaf([CHAINS, 512]),
            by_chain(),
        );
        i.case(move || {
            kernels::adaptive_layer_norm(x.clone(), scale.clone(), shift.clone(), &groups, 1e-5)
        })
    }),
    ("group_norm_silu_8", "4 x 8 x 32^3, 8 groups", |i| {
        group_norm(i, [8, 32], 8, None)
    }),
    ("group_norm_silu_32", "4 x 32 x 32^3, 16 groups", |i| {
        group_norm(i, [32, 32], 16, None)
    }),
    ("group_norm_silu_64", "4 x 64 x 16^3, 16 groups", |i| {
        group_norm(i, [64, 16], 16, None)
    }),
    (
        "group_norm_silu_dropout",
        "4 x 32 x 32^3, 16 groups, 0.1",
        |i| group_norm(i, [32, 32], 16, Some(0.1)),
    ),
    ("masked_softmax_slots", "44 x 8 x 20 x 20", |mut i| {
        let (scores, bias, scale) = (
            i.leaf([ATOMS, 8, SLOTS, SLOTS]),
            i.constant([ATOMS, SLOTS, SLOTS]),
            i.leaf([1]),
        );
        let mask = i.slot_mask();
        i.case(move || {
            kernels::masked_softmax(scores.clone(), bias.clone(), scale.clone(), mask.clone())
        })
    }),
    ("softmax", "4 x 1 x 512 x 512", |mut i| {
        let scores = i.leaf([4, 1, 512, 512]);
        i.case(move || kernels::softmax(scores.clone()))
    }),
    ("affine", "880 x 128 to 384", |mut i| {
        let (x, map) = (i.leaf([EDGES, 128]), i.map(128, 384));
        i.case(move || kernels::affine(x.clone(), map.clone()))
    }),
    ("activated_affine", "880 x 128 to 128", |mut i| {
        let (x, map) = (i.leaf([EDGES, 128]), i.map(128, 128));
        i.case(move || kernels::activated_affine(x.clone(), map.clone(), None))
    }),
    ("feed_forward", "880 x 128, 256 hidden", |mut i| {
        let (x, gain, maps) = (
            i.leaf([EDGES, 128]),
            i.leaf([128]),
            [i.map(128, 256), i.map(256, 128)],
        );
        i.case(move || {
            kernels::feed_forward(
                x.clone(),
                Some((gain.clone(), 1e-7)),
                maps.clone(),
                [None; 2],
            )
        })
    }),
    (
        "edge_attributes",
        "880 edges of 440 pairs, 512 + 2 x 192 to 128",
        |mut i| {
            let pairs: Vec<usize> = (0..EDGES).map(|edge| edge / 2).collect();
            let (pairs, ends) = (
                RowIndex::new(EDGES / 2, &pairs).expect("rows are in range"),
                ends(),
            );
            let (embedding, nodes, map) = (
                i.leaf([EDGES / 2, 512]),
                [(); 2].map(|()| i.leaf([ATOMS, 192])),
                i.map(896, 128),
            );
            i.case(move || {
                kernels::edge_attributes(
                    &pairs,
                    [&ends[0], &ends[1]],
                    embedding.clone(),
                    nodes.clone(),
                    map.clone(),
                    [None; 2],
                )
            })
        },
    ),
    ("edge_messages", "880 edges, 128", |mut i| {
        let ends = ends();
        let (attributes, node) = (i.leaf([EDGES, 128]), i.leaf([ATOMS, 128]));
        let maps = [i.map(256, 128), i.map(256, 128), i.map(128, 384)];
        i.case(move || {
            kernels::edge_messages(
                [&ends[0], &ends[1]],
                attributes.clone(),
                node.clone(),
                maps.clone(),
                None,
            )
        })
    }),
    ("slot_attention", "44 x 20 x 128, 8 heads", |i| {
        slot_attention(i, None)
    }),
    (
        "slot_attention_dropout",
        "44 x 20 x 128, 8 heads, 0.1",
        |i| slot_attention(i, Some(0.1)),
    ),
    (
        "pair_biased_attention",
        "3 x 138 x 512, 8 heads",
        |mut i| {
            let ([q, k, v], bias) = (
                [(); 3].map(|()| i.leaf([CHAINS * TOKENS, 512])),
                i.leaf([CHAINS, TOKENS, TOKENS, 8]),
            );
            i.case(move || {
                let heads =
                    |x: &Tensor<2>| x.clone().reshape([CHAINS, TOKENS, 8, 64]).swap_dims(1, 2);
                let mixed = kernels::pair_biased_attention(
                    heads(&q),
                    heads(&k),
                    heads(&v),
                    bias.clone(),
                    None,
                );
                mixed.swap_dims(1, 2).reshape([CHAINS * TOKENS, 512])
            })
        },
    ),
    ("gather_rows", "44 to 880 x 128", |mut i| {
        let index: Vec<usize> = (0..EDGES).map(|edge| scattered(edge, 3) % ATOMS).collect();
        let (x, index) = (
            i.leaf([ATOMS, 128]),
            RowIndex::new(ATOMS, &index).expect("rows are in range"),
        );
        i.case(move || kernels::gather_rows(x.clone(), &index))
    }),
    ("segment_sum", "880 to 44 x 128", |mut i| {
        let offsets: Vec<usize> = (0..=ATOMS).map(|atom| atom * SLOTS).collect();
        let (x, segments) = (
            i.leaf([EDGES, 128]),
            Segments::new(&offsets).expect("offsets ascend"),
        );
        i.case(move || kernels::segment_sum(x.clone(), &segments))
    }),
    ("lookup_sum", "3 tables to 49152 x 256", |mut i| {
        let rows = [127, 128, 64];
        let (tables, choices) = (rows.map(|rows| i.leaf([rows, 256])), rows.map(choice));
        i.case(move || kernels::lookup_sum(tables.to_vec(), &choices))
    }),
    ("banded_radial", "880 x 600 x 512", |mut i| {
        let starts: Vec<usize> = (0..EDGES)
            .map(|edge| scattered(edge, 1) % (RADIAL - BAND))
            .collect();
        let bands =
            Bands::new(RADIAL, &starts, i.constant([EDGES, BAND])).expect("bands are in range");
        let (weight, bias) = (i.leaf([RADIAL, 512]), i.leaf([512]));
        i.case(move || kernels::banded_radial(&bands, weight.clone(), bias.clone()))
    }),
    ("conv3d_same3_8", "4 x 8 x 32^3", |i| {
        conv(i, Conv3d::Same3, [8, 8, 32])
    }),
    ("conv3d_same3_32", "4 x 32 x 32^3", |i| {
        conv(i, Conv3d::Same3, [32, 32, 32])
    }),
    ("conv3d_same3_64", "4 x 64 x 16^3", |i| {
        conv(i, Conv3d::Same3, [64, 64, 16])
    }),
    ("conv3d_down3", "4 x 32 x 32^3", |i| {
        conv(i, Conv3d::Down3, [32, 32, 32])
    }),
    ("conv3d_up4", "4 x 32 x 16^3", |i| {
        conv(i, Conv3d::Up4, [32, 32, 16])
    }),
    ("conv3d_point", "4 x 64 to 32 x 32^3", |i| {
        conv(i, Conv3d::Point, [64, 32, 32])
    }),
    (
        "adamw_step",
        "104 tensors of 10^7 numbers, clipped, averaged",
        |mut i| Box::new(RefCell::new(AdamW::new(&mut i))),
    ),
];

/// Senders and receivers of the edges of a graph.
fn ends() -> [RowIndex; 2] {
    let senders: Vec<usize> = (0..EDGES).map(|edge| scattered(edge, 3) % ATOMS).collect();
    let receivers: Vec<usize> = (0..EDGES).map(|edge| edge / SLOTS).collect();
    [senders, receivers].map(|index| RowIndex::new(ATOMS, &index).expect("rows are in range"))
}

fn layer_norm(mut i: Inputs, rows: usize, width: usize) -> Box<dyn Case> {
    let (x, weight, bias) = (i.leaf([rows, width]), i.leaf([width]), i.leaf([width]));
    i.case(move || kernels::layer_norm(x.clone(), Some((weight.clone(), bias.clone())), 1e-5))
}

fn group_norm(
    mut i: Inputs,
    [channels, side]: [usize; 2],
    groups: usize,
    dropout: Option<f64>,
) -> Box<dyn Case> {
    let (x, scale, shift) = (
        i.leaf([4, channels, side, side, side]),
        i.leaf([channels]),
        i.leaf([channels]),
    );
    let dropout = dropout.map(|probability| Dropout {
        probability,
        seed: 1,
    });
    i.case(move || {
        kernels::group_norm_silu(
            x.clone(),
            scale.clone(),
            shift.clone(),
            groups,
            1e-5,
            dropout,
        )
    })
}

fn slot_attention(mut i: Inputs, dropout: Option<f64>) -> Box<dyn Case> {
    let (qkv, bias, bias_scale) = (
        i.leaf([ATOMS, SLOTS, 3 * 128]),
        i.constant([ATOMS, SLOTS, SLOTS]),
        i.leaf([1]),
    );
    let dropout = dropout.map(|probability| Dropout {
        probability,
        seed: 1,
    });
    let options = SlotAttention {
        heads: 8,
        bias,
        bias_scale,
        key_mask: i.slot_mask(),
        dropout,
    };
    i.case(move || kernels::slot_attention(qkv.clone(), options.clone()))
}

fn conv(mut i: Inputs, kind: Conv3d, [inputs, outputs, side]: [usize; 3]) -> Box<dyn Case> {
    let x = i.leaf([4, inputs, side, side, side]);
    let weight = match kind {
        Conv3d::Up4 => i.leaf([inputs, outputs, 4, 4, 4]),
        Conv3d::Point => i.leaf([outputs, inputs, 1, 1, 1]),
        Conv3d::Same3 | Conv3d::Down3 => i.leaf([outputs, inputs, 3, 3, 3]),
    };
    let bias = i.leaf([outputs]);
    i.case(move || kernels::conv3d(x.clone(), weight.clone(), bias.clone(), kind))
}

/// Every chain has the same number of consecutive tokens.
fn by_chain() -> RowChoice {
    let chains: Vec<u32> = (0..CHAINS * TOKENS)
        .map(|row| (row / TOKENS) as u32)
        .collect();
    RowChoice::new(CHAINS, chains).expect("tokens fall into chains")
}

fn choice(rows: usize) -> RowChoice {
    let rows_of_pairs: Vec<u32> = (0..PAIRS)
        .map(|pair| (scattered(pair, 128) % rows) as u32)
        .collect();
    RowChoice::new(rows, rows_of_pairs).expect("rows are in range")
}

/// A number that jumps about with `k`.
fn scattered(k: usize, divisor: usize) -> usize {
    k * 7919 + k / divisor
}

/// Number `index` of stream `seed` between -1 and 1, the same in every program: 24 bits of a splitmix64, exact in f32.
fn uniform(seed: u64, index: u64) -> f32 {
    let mut z = (index + (seed << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 40) as f32 / 8_388_608.0 - 1.0
}

/// Reads the gradient of one input.
type GradientOf = Box<dyn Fn(&Gradients) -> Vec<f32>>;

/// Hands out tensors, each from a stream of its own, and keeps a hold on those that get gradients.
struct Inputs {
    device: Device,
    seed: u64,
    gradients: Vec<GradientOf>,
}

impl Inputs {
    fn new() -> Self {
        Self {
            device: Device::flex().autodiff(),
            seed: 0,
            gradients: Vec::new(),
        }
    }

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        self.seed += 1;
        (0..count as u64)
            .map(|index| uniform(self.seed, index))
            .collect()
    }

    fn draw<const D: usize>(&mut self, shape: [usize; D], device: &Device) -> Tensor<D> {
        let values = self.numbers(shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    fn leaf<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        self.scaled_leaf(shape, 1.0)
    }

    /// A weight whose products with numbers of size one have size one, as a model's have, and a bias.
    fn map(&mut self, inputs: usize, outputs: usize) -> (Tensor<2>, Tensor<1>) {
        (
            self.scaled_leaf([inputs, outputs], (1.0 / (inputs as f64).sqrt()) as f32),
            self.leaf([outputs]),
        )
    }

    fn scaled_leaf<const D: usize>(&mut self, shape: [usize; D], scale: f32) -> Tensor<D> {
        let device = self.device.clone();
        let values: Vec<f32> = self
            .numbers(shape.iter().product())
            .into_iter()
            .map(|x| x * scale)
            .collect();
        let leaf = Tensor::from_data(TensorData::new(values, shape), &device).require_grad();
        let of = leaf.clone();
        self.gradients.push(Box::new(move |gradients| {
            numbers(of.grad(gradients).expect("every leaf has a gradient"))
        }));
        leaf
    }

    fn constant<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let device = self.device.clone().inner();
        self.draw(shape, &device)
    }

    /// Every tenth slot is empty, another one for each atom.
    fn slot_mask(&self) -> Tensor<2> {
        let valid = (0..ATOMS * SLOTS)
            .map(|k| f32::from(u8::from(!(k / SLOTS + k % SLOTS).is_multiple_of(10))));
        Tensor::from_data(
            TensorData::new(valid.collect::<Vec<_>>(), [ATOMS, SLOTS]),
            &self.device.clone().inner(),
        )
    }

    fn case<const D: usize>(self, function: impl Fn() -> Tensor<D> + 'static) -> Box<dyn Case> {
        Box::new(Ready {
            result: function().detach(),
            function,
            gradients: self.gradients,
        })
    }
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().expect("f32 data")
}

/// An operation with its inputs.
trait Case {
    /// A dot product with a random vector and the norm, of the result and of every gradient of the result's product with another one.
    fn check(&self) -> Vec<[f64; 2]>;

    /// Seconds of forward and backward pass, the mean of `runs` after one that is not counted.
    fn seconds(&self, runs: usize) -> f64;
}

struct Ready<const D: usize, F: Fn() -> Tensor<D>> {
    function: F,
    /// A constant in the shape of the result.
    result: Tensor<D>,
    gradients: Vec<GradientOf>,
}

impl<const D: usize, F: Fn() -> Tensor<D>> Case for Ready<D, F> {
    fn check(&self) -> Vec<[f64; 2]> {
        let result = (self.function)();
        let count = result.shape().num_elements() as u64;
        let cotangent: Vec<f32> = (0..count).map(|index| uniform(COTANGENT, index)).collect();
        let cotangent = Tensor::from_data(
            TensorData::new(cotangent, result.shape()),
            &result.device().inner(),
        );
        let gradients = (result.clone() * cotangent).sum().backward();
        let of_inputs = self.gradients.iter().map(|gradient| gradient(&gradients));
        let all = std::iter::once(numbers(result)).chain(of_inputs);
        all.zip(COTANGENT..)
            .map(|(values, seed)| dot_and_norm(&values, seed))
            .collect()
    }

    fn seconds(&self, runs: usize) -> f64 {
        black_box((self.function)().backward());
        let whole = mean_seconds(runs, || {
            black_box((self.function)().backward());
        });
        // The backward pass of a tensor starts by filling its cotangent with ones, which does not belong to the operation.
        let fill = mean_seconds(runs, || {
            black_box(self.result.clone().detach().require_grad().backward());
        });
        whole - fill
    }
}

/// Parameters, what the optimiser remembers of them, and their gradients.
#[derive(Clone)]
struct AdamW {
    values: Vec<Vec<f32>>,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
    average: Vec<Vec<f32>>,
    gradient: Vec<Vec<f32>>,
    steps: i32,
}

impl AdamW {
    /// Matrices of transformers and their biases: a count and a size of each.
    const TENSORS: [[usize; 2]; 3] = [[24, 512 * 512], [28, 1024 * 128], [52, 512]];
    const BETAS: [f64; 2] = [0.9, 0.999];
    const RATE: f64 = 0.1;
    const CLIP: f64 = 10.0;

    fn new(i: &mut Inputs) -> Self {
        let sizes: Vec<usize> = Self::TENSORS
            .iter()
            .flat_map(|&[count, size]| vec![size; count])
            .collect();
        let [values, gradient] = [(); 2].map(|()| {
            sizes
                .iter()
                .map(|&size| i.numbers(size))
                .collect::<Vec<_>>()
        });
        let zeros: Vec<Vec<f32>> = sizes.iter().map(|&size| vec![0.0; size]).collect();
        Self {
            average: values.clone(),
            values,
            first: zeros.clone(),
            second: zeros,
            gradient,
            steps: 0,
        }
    }

    fn step(&mut self) {
        self.steps += 1;
        let norm =
            kernels::global_norm(&self.gradient.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let [beta1, beta2] = Self::BETAS;
        let factors = UpdateFactors {
            gradient_scale: (Self::CLIP / (norm + 1e-6)).min(1.0),
            pull: 0.0,
            shrink: 1.0 - Self::RATE * 0.01,
            step: Self::RATE / (1.0 - beta1.powi(self.steps)),
            root_scale: 1.0 / (1.0 - beta2.powi(self.steps)).sqrt(),
        };
        let lists = self
            .values
            .iter_mut()
            .zip(&mut self.first)
            .zip(&mut self.second)
            .zip(&mut self.average)
            .zip(&self.gradient);
        let updates = lists.map(|((((values, first), second), average), gradient)| {
            let average = Some(average.as_mut_slice());
            ParameterUpdate {
                values,
                first,
                second,
                average,
                gradient,
                factors,
            }
        });
        kernels::optimiser_step(
            UpdateRule::Adam {
                beta1,
                beta2,
                eps: 1e-8,
            },
            0.999,
            updates.collect(),
        );
    }
}

impl Case for RefCell<AdamW> {
    /// Of what three steps change of the parameters and of their average.
    fn check(&self) -> Vec<[f64; 2]> {
        let start = self.borrow().values.concat();
        let mut trained = self.borrow().clone();
        (0..3).for_each(|_| trained.step());
        let change = |after: Vec<f32>| {
            after
                .iter()
                .zip(&start)
                .map(|(a, b)| a - b)
                .collect::<Vec<f32>>()
        };
        let changes = [trained.values.concat(), trained.average.concat()].map(change);
        changes
            .iter()
            .zip(COTANGENT..)
            .map(|(change, seed)| dot_and_norm(change, seed))
            .collect()
    }

    fn seconds(&self, runs: usize) -> f64 {
        self.borrow_mut().step();
        mean_seconds(runs, || self.borrow_mut().step())
    }
}

fn dot_and_norm(values: &[f32], seed: u64) -> [f64; 2] {
    let dot = values
        .iter()
        .zip(0..)
        .map(|(&x, index)| f64::from(x) * f64::from(uniform(seed, index)))
        .sum();
    [
        dot,
        values
            .iter()
            .map(|&x| f64::from(x).powi(2))
            .sum::<f64>()
            .sqrt(),
    ]
}

fn mean_seconds(runs: usize, run: impl Fn()) -> f64 {
    let start = Instant::now();
    (0..runs).for_each(|_| run());
    start.elapsed().as_secs_f64() / runs as f64
}

fn main() {
    kernels::tune_allocator();
    let argument = std::env::args().nth(1).unwrap_or_default();
    if argument == "--serve" {
        serve()
    } else {
        print(&argument)
    }
}

fn print(part: &str) {
    for (name, shape, make) in KERNELS.iter().filter(|(name, ..)| name.contains(part)) {
        let case = make(Inputs::new());
        let least = (0..15)
            .map(|_| case.seconds(3))
            .fold(f64::INFINITY, f64::min);
        println!("{name:<26}{shape:<32}{:>10.3} ms", 1e3 * least);
    }
}

fn serve() {
    let listed: Vec<[&str; 2]> = KERNELS
        .iter()
        .map(|(name, shape, _)| [*name, *shape])
        .collect();
    let mut ready: Option<(&str, Box<dyn Case>)> = None;
    lines::answer_lines(&format!(r#"{{"kernels": {listed:?}}}"#), |request| {
        let mut words = request.split_whitespace();
        let (what, name) = (words.next()?, words.next()?);
        let (name, _, make) = KERNELS.iter().find(|(known, ..)| *known == name)?;
        if ready.as_ref().is_none_or(|(held, _)| held != name) {
            ready = Some((name, make(Inputs::new())));
        }
        let (_, case) = ready.as_ref()?;
        match what {
            "check" => Some(format!(r#"{{"values": {:?}}}"#, case.check())),
            "time" => Some(format!(
                r#"{{"seconds": {}}}"#,
                case.seconds(words.next()?.parse().ok()?)
            )),
            _ => None,
        }
    });
}
