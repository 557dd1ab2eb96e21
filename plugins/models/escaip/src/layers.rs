//! The small parts: affine maps, feed-forward networks, norms, tables of elements.

use crate::pass::Pass;
use burn::{
    module::{Module, Param},
    tensor::{DType, Tensor},
};
use equivbench_kernels::{Dropout, activated_affine, affine, feed_forward, rms_norm};
use equivbench_plugin::{Draw, Law};

/// `x W + b`.
#[derive(Module, Debug)]
pub(crate) struct Affine {
    /// `[inputs, outputs]`.
    pub(crate) weight: Param<Tensor<2>>,
    pub(crate) bias: Param<Tensor<1>>,
}

impl Affine {
    pub(crate) fn new(inputs: usize, outputs: usize, draw: &mut Draw<'_>) -> Self {
        Self::scaled(inputs, outputs, 1.0, draw)
    }

    fn scaled(inputs: usize, outputs: usize, gain: f64, draw: &mut Draw<'_>) -> Self {
        Self {
            weight: draw.parameter([inputs, outputs], Law::xavier(inputs, outputs, gain)),
            bias: draw.filled([outputs], 0.0),
        }
    }

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

impl Linear {
    /// The weights with a gain.
    pub(crate) fn scaled(inputs: usize, outputs: usize, gain: f64, draw: &mut Draw<'_>) -> Self {
        Self {
            weight: draw.parameter([inputs, outputs], Law::xavier(inputs, outputs, gain)),
        }
    }
}

/// One row for each element.
#[derive(Module, Debug)]
pub(crate) struct ElementTable {
    /// `[elements, width]`.
    pub(crate) weight: Param<Tensor<2>>,
}

impl ElementTable {
    pub(crate) fn new(elements: usize, width: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            weight: draw.parameter([elements, width], Law::Uniform(1e-3)),
        }
    }
}

/// Affine, GELU, dropout, affine, dropout.
#[derive(Module, Debug)]
pub(crate) struct Ffn {
    pub(crate) first: Affine,
    pub(crate) second: Affine,
}

impl Ffn {
    /// `width → multiplier · width → width`, the weights with a gain.
    pub(crate) fn new(width: usize, multiplier: usize, gain: f64, draw: &mut Draw<'_>) -> Self {
        let hidden = multiplier * width;
        Self {
            first: Affine::scaled(width, hidden, gain, draw),
            second: Affine::scaled(hidden, width, gain, draw),
        }
    }

    /// `x + ffn(norm(x))`, or `x + ffn(x)`.
    pub(crate) fn added(
        &self,
        x: Tensor<2>,
        norm: Option<&RmsNorm>,
        pass: &Pass<'_, '_>,
    ) -> Tensor<2> {
        self.added_dropping(x, norm, [pass.map_dropout(), pass.map_dropout()])
    }

    /// The same with the dropouts of the two maps.
    pub(crate) fn added_dropping(
        &self,
        x: Tensor<2>,
        norm: Option<&RmsNorm>,
        dropouts: [Option<Dropout>; 2],
    ) -> Tensor<2> {
        let norm = norm.map(|norm| (norm.weight.val(), epsilon(&x)));
        let maps = [&self.first, &self.second].map(Affine::pair);
        feed_forward(x, norm, maps, dropouts)
    }
}

/// `g · x / sqrt(mean(x²) + eps)` with the machine epsilon of the precision.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Param<Tensor<1>>,
}

impl RmsNorm {
    pub(crate) fn new(width: usize, draw: &Draw<'_>) -> Self {
        Self {
            weight: draw.filled([width], 1.0),
        }
    }

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
    pub(crate) fn new(width: usize, draw: &Draw<'_>) -> Self {
        Self {
            node_norm: RmsNorm::new(width, draw),
            edge_norm: RmsNorm::new(width, draw),
        }
    }

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
