//! The small parts: linear and affine maps, norms, SwiGLU networks, what depends on the conditioning.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, module::linear},
};
use equivbench_kernels::{affine, is_host, layer_norm, product, sigmoid, swiglu};
use equivbench_plugin::{Draw, Law};

/// Inside the square root of every norm.
pub(crate) const EPSILON: f64 = 1e-5;

/// `x W`.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    /// `[inputs, outputs]`.
    pub(crate) weight: Param<Tensor<2>>,
}

impl Linear {
    pub(crate) fn new(inputs: usize, outputs: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            weight: draw.parameter([inputs, outputs], Law::usual(inputs)),
        }
    }

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
    pub(crate) fn new(inputs: usize, outputs: usize, draw: &mut Draw<'_>) -> Self {
        let law = Law::usual(inputs);
        Self::of_laws([inputs, outputs], [law, law], draw)
    }

    /// `[inputs, outputs]`, and the laws of weight and bias.
    pub(crate) fn of_laws(
        shape: [usize; 2],
        [weight, bias]: [Law; 2],
        draw: &mut Draw<'_>,
    ) -> Self {
        Self {
            weight: draw.parameter(shape, weight),
            bias: draw.parameter([shape[1]], bias),
        }
    }

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
    pub(crate) fn new(width: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            weight: draw.parameter([width], Law::Constant(1.0)),
            bias: draw.parameter([width], Law::Constant(0.0)),
        }
    }

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
    /// `width → 2 · hidden → hidden → width`.
    pub(crate) fn new(width: usize, hidden: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            swish_linear: Linear::new(width, 2 * hidden, draw),
            linear_out: Linear::new(hidden, width, draw),
        }
    }

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
    pub(crate) fn new(conditioning: usize, width: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            norm_cond: LayerNorm::new(conditioning, draw),
            to_gamma: Affine::new(conditioning, width, draw),
            to_beta: Linear::new(conditioning, width, draw),
        }
    }

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
    /// Nearly closed at first, whatever the conditioning: the logistic function of -2.
    pub(crate) fn new(conditioning: usize, width: usize, draw: &mut Draw<'_>) -> Self {
        let laws = [Law::Constant(0.0), Law::Constant(-2.0)];
        Self {
            to_adaln_zero_gamma: Affine::of_laws([conditioning, width], laws, draw),
        }
    }

    /// The factors of every row of a conditioning table, before the logistic function.
    pub(crate) fn gates(&self, conditioning: Tensor<2>) -> Tensor<2> {
        self.to_adaln_zero_gamma.forward(conditioning)
    }
}
