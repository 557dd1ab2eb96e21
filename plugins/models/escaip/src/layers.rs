//! The small parts: affine maps, feed-forward networks, norms, and the laws from which fresh weights are drawn.

use crate::pass::Pass;
use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Distribution, Tensor, TensorData},
};
use equivbench_kernels::{Dropout, activated_affine, affine, feed_forward, rms_norm};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Draws fresh weights, one stream for a whole model.
///
/// The device is asked for a single number, the seed of the stream: the weights do not depend on the generator of a
/// backend, nor on the order in which parameters are first used.
pub(crate) struct Draw<'a> {
    rng: ChaCha8Rng,
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
            rng: ChaCha8Rng::seed_from_u64(seed),
            device,
        }
    }

    fn uniform(&mut self, rows: usize, columns: usize, bound: f64) -> Param<Tensor<2>> {
        let values: Vec<f32> = (0..rows * columns)
            .map(|_| (bound * self.rng.random_range(-1.0..1.0)) as f32)
            .collect();
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, [rows, columns]),
            (self.device, DType::F32),
        ))
    }

    fn filled(&self, width: usize, value: f32) -> Param<Tensor<1>> {
        Param::from_tensor(Tensor::from_data(
            TensorData::new(vec![value; width], [width]),
            (self.device, DType::F32),
        ))
    }

    /// Xavier uniform weight `[inputs, outputs]`.
    pub(crate) fn xavier(&mut self, inputs: usize, outputs: usize, gain: f64) -> Param<Tensor<2>> {
        self.uniform(
            inputs,
            outputs,
            gain * (6.0 / (inputs + outputs) as f64).sqrt(),
        )
    }

    /// An atom table `[elements, width]`.
    pub(crate) fn table(&mut self, elements: usize, width: usize) -> Table {
        Table {
            weight: self.uniform(elements, width, 1e-3),
        }
    }

    pub(crate) fn zeros(&self, width: usize) -> Param<Tensor<1>> {
        self.filled(width, 0.0)
    }

    pub(crate) fn ones(&self, width: usize) -> Param<Tensor<1>> {
        self.filled(width, 1.0)
    }

    pub(crate) fn affine(&mut self, inputs: usize, outputs: usize) -> Affine {
        self.scaled_affine(inputs, outputs, 1.0)
    }

    fn scaled_affine(&mut self, inputs: usize, outputs: usize, gain: f64) -> Affine {
        Affine {
            weight: self.xavier(inputs, outputs, gain),
            bias: self.zeros(outputs),
        }
    }

    /// `width → multiplier · width → width`, the weights with a gain.
    pub(crate) fn ffn(&mut self, width: usize, multiplier: usize, gain: f64) -> Ffn {
        let hidden = multiplier * width;
        Ffn {
            first: self.scaled_affine(width, hidden, gain),
            second: self.scaled_affine(hidden, width, gain),
        }
    }

    pub(crate) fn rms(&self, width: usize) -> RmsNorm {
        RmsNorm {
            weight: self.ones(width),
        }
    }

    pub(crate) fn norms(&self, width: usize) -> NodeEdgeNorm {
        NodeEdgeNorm {
            node_norm: self.rms(width),
            edge_norm: self.rms(width),
        }
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
        affine(x, self.pair())
    }

    /// Affine map and GELU: the description's `lin'`, or `lin` with its dropout.
    pub(crate) fn activated(&self, x: Tensor<2>, dropout: Option<Dropout>) -> Tensor<2> {
        activated_affine(x, self.pair(), dropout)
    }

    /// Weight and bias.
    pub(crate) fn pair(&self) -> (Tensor<2>, Tensor<1>) {
        (self.weight.val(), self.bias.val())
    }
}

/// A linear map without bias, the last one of a head.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    /// `[inputs, outputs]`.
    pub(crate) weight: Param<Tensor<2>>,
}

/// One row for each element.
#[derive(Module, Debug)]
pub(crate) struct Table {
    /// `[elements, width]`.
    pub(crate) weight: Param<Tensor<2>>,
}

/// Affine, GELU, dropout, affine, dropout.
#[derive(Module, Debug)]
pub(crate) struct Ffn {
    pub(crate) first: Affine,
    pub(crate) second: Affine,
}

impl Ffn {
    /// `x + ffn(norm(x))`, or `x + ffn(x)`.
    pub(crate) fn added(
        &self,
        x: Tensor<2>,
        norm: Option<&RmsNorm>,
        pass: &Pass<'_, '_>,
    ) -> Tensor<2> {
        let norm = norm.map(|norm| (norm.weight.val(), epsilon(&x)));
        let maps = [&self.first, &self.second].map(Affine::pair);
        let dropouts = [pass.map_dropout(), pass.map_dropout()];
        feed_forward(x, norm, maps, dropouts)
    }
}

/// `g · x / sqrt(mean(x²) + eps)` with the machine epsilon of the precision.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Param<Tensor<1>>,
}

impl RmsNorm {
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let epsilon = epsilon(&x);
        rms_norm(x, self.weight.val(), epsilon)
    }
}

/// The machine epsilon of the precision.
fn epsilon(x: &Tensor<2>) -> f64 {
    if x.dtype() == DType::F64 {
        f64::EPSILON
    } else {
        f64::from(f32::EPSILON)
    }
}

/// A norm for node states and one for edge states.
#[derive(Module, Debug)]
pub(crate) struct NodeEdgeNorm {
    pub(crate) node_norm: RmsNorm,
    pub(crate) edge_norm: RmsNorm,
}

impl NodeEdgeNorm {
    pub(crate) fn forward(&self, state: States) -> States {
        States {
            node: self.node_norm.forward(state.node),
            edge: self.edge_norm.forward(state.edge),
        }
    }
}

/// The two streams that run through the network.
#[derive(Clone, Debug)]
pub(crate) struct States {
    /// `[atoms, width]`.
    pub(crate) node: Tensor<2>,
    /// `[edges, width]`.
    pub(crate) edge: Tensor<2>,
}
