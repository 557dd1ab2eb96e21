//! The small parts: linear and affine maps, norms, SwiGLU networks, what depends on the conditioning, and the laws of fresh weights.

use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Distribution, Tensor, TensorData, module::linear},
};
use equivbench_kernels::{affine, is_host, layer_norm, product, sigmoid, swiglu};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Inside the square root of every norm.
pub(crate) const EPSILON: f64 = 1e-5;

/// A law of fresh weights.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Law {
    /// One number everywhere.
    Constant(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal cut at two standard deviations, with this standard deviation after the cut.
    Truncated(f64),
}

impl Law {
    /// What PyTorch gives a linear map: uniform within `1 / sqrt(inputs)`.
    pub(crate) fn usual(inputs: usize) -> Self {
        Self::Uniform(1.0 / (inputs as f64).sqrt())
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> f64 {
        /// Standard deviation of a standard normal number cut at 2.
        const CUT: f64 = 0.879_596_566;
        match self {
            Self::Constant(value) => value,
            Self::Uniform(bound) => bound * rng.random_range(-1.0..1.0),
            Self::Normal(deviation) => deviation * normal(rng),
            Self::Truncated(deviation) => loop {
                let x = normal(rng);
                if x.abs() <= 2.0 {
                    return deviation / CUT * x;
                }
            },
        }
    }
}

/// A standard normal number (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
    (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()
}

/// Draws fresh weights, a stream for every piece of every parameter.
///
/// The device is asked for a single number, the seed: the weights do not depend on the generator of a backend, on the order in
/// which parameters are first used, or on the number of threads.
pub(crate) struct Draw<'a> {
    seed: u64,
    parameters: u64,
    device: &'a Device,
}

impl<'a> Draw<'a> {
    pub(crate) fn from_device(device: &'a Device) -> Self {
        let options = (device, DType::F32);
        let draws =
            Tensor::<1>::random([2], Distribution::Uniform(0.0, 16_777_216.0), options).into_data();
        // 24 bits of each: what an f32 holds exactly.
        let seed = draws
            .iter::<f64>()
            .fold(0u64, |seed, x| (seed << 24) | x as u64);
        Self {
            seed,
            parameters: 0,
            device,
        }
    }

    fn values(&mut self, count: usize, law: Law) -> Vec<f32> {
        const PIECE: usize = 1 << 15;
        let (seed, parameter) = (self.seed, self.parameters);
        self.parameters += 1;
        let mut values = vec![0.0; count];
        values
            .par_chunks_mut(PIECE)
            .enumerate()
            .for_each(|(piece, values)| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream((parameter << 32) | piece as u64);
                values
                    .iter_mut()
                    .for_each(|value| *value = law.draw(&mut rng) as f32);
            });
        values
    }

    pub(crate) fn matrix(&mut self, rows: usize, columns: usize, law: Law) -> Param<Tensor<2>> {
        let values = self.values(rows * columns, law);
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, [rows, columns]),
            (self.device, DType::F32),
        ))
    }

    fn vector(&mut self, width: usize, law: Law) -> Param<Tensor<1>> {
        let values = self.values(width, law);
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, [width]),
            (self.device, DType::F32),
        ))
    }

    pub(crate) fn linear(&mut self, inputs: usize, outputs: usize) -> Linear {
        Linear {
            weight: self.matrix(inputs, outputs, Law::usual(inputs)),
        }
    }

    pub(crate) fn affine(&mut self, inputs: usize, outputs: usize) -> Affine {
        self.affine_of(inputs, outputs, Law::usual(inputs), Law::usual(inputs))
    }

    pub(crate) fn affine_of(
        &mut self,
        inputs: usize,
        outputs: usize,
        weight: Law,
        bias: Law,
    ) -> Affine {
        Affine {
            weight: self.matrix(inputs, outputs, weight),
            bias: self.vector(outputs, bias),
        }
    }

    pub(crate) fn norm(&mut self, width: usize) -> LayerNorm {
        LayerNorm {
            weight: self.vector(width, Law::Constant(1.0)),
            bias: self.vector(width, Law::Constant(0.0)),
        }
    }

    /// `width → 2 · hidden → hidden → width`.
    pub(crate) fn gated(&mut self, width: usize, hidden: usize) -> Gated {
        Gated {
            swish_linear: self.linear(width, 2 * hidden),
            linear_out: self.linear(hidden, width),
        }
    }

    pub(crate) fn adaptive_norm(&mut self, conditioning: usize, width: usize) -> AdaptiveNorm {
        AdaptiveNorm {
            norm_cond: self.norm(conditioning),
            to_gamma: self.affine(conditioning, width),
            to_beta: self.linear(conditioning, width),
        }
    }

    pub(crate) fn output_scale(&mut self, conditioning: usize, width: usize) -> OutputScale {
        OutputScale {
            to_adaln_zero_gamma: self.affine_of(
                conditioning,
                width,
                Law::Constant(0.0),
                Law::Constant(-2.0),
            ),
        }
    }
}

/// `x W`.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    /// `[inputs, outputs]`.
    pub(crate) weight: Param<Tensor<2>>,
}

impl Linear {
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        product(x, self.weight.val())
    }

    /// The rows `from..to` of the weight: the part that multiplies these columns of the input.
    pub(crate) fn rows(&self, from: usize, to: usize) -> Tensor<2> {
        self.weight.val().narrow(0, from, to - from)
    }
}

/// `x W + b`.
#[derive(Module, Debug)]
pub(crate) struct Affine {
    /// `[inputs, outputs]`.
    pub(crate) weight: Param<Tensor<2>>,
    pub(crate) bias: Param<Tensor<1>>,
}

impl Affine {
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = (self.weight.val(), self.bias.val());
        if is_host(&x.device()) {
            linear(x, weight, Some(bias))
        } else {
            affine(x, (weight, bias))
        }
    }
}

/// `(x - mean) / sqrt(variance + 1e-5) · weight + bias`.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    pub(crate) weight: Param<Tensor<1>>,
    pub(crate) bias: Param<Tensor<1>>,
}

impl LayerNorm {
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        layer_norm(x, Some((self.weight.val(), self.bias.val())), EPSILON)
    }
}

/// `W_out( a · silu(g) )` with `[a, g] = W_in x`.
#[derive(Module, Debug)]
pub(crate) struct Gated {
    pub(crate) swish_linear: Linear,
    pub(crate) linear_out: Linear,
}

impl Gated {
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.linear_out
            .forward(swiglu(self.swish_linear.forward(x)))
    }
}

/// A norm whose scale and shift come from the conditioning.
#[derive(Module, Debug)]
pub(crate) struct AdaptiveNorm {
    norm_cond: LayerNorm,
    to_gamma: Affine,
    to_beta: Linear,
}

impl AdaptiveNorm {
    /// Scales and shifts of every row of a conditioning table.
    pub(crate) fn table(&self, conditioning: Tensor<2>) -> [Tensor<2>; 2] {
        let normed = self.norm_cond.forward(conditioning);
        [
            sigmoid(self.to_gamma.forward(normed.clone())),
            self.to_beta.forward(normed),
        ]
    }
}

/// A factor between 0 and 1 that comes from the conditioning.
#[derive(Module, Debug)]
pub(crate) struct OutputScale {
    to_adaln_zero_gamma: Affine,
}

impl OutputScale {
    /// The factors of every row of a conditioning table, before the logistic function.
    pub(crate) fn gates(&self, conditioning: Tensor<2>) -> Tensor<2> {
        self.to_adaln_zero_gamma.forward(conditioning)
    }
}
