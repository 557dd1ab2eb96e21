//! The small parts: convolutions, group norms with their activation, attention among voxels.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use equivbench_kernels::{Conv3d, Dropout, conv3d, group_norm_silu, softmax};
use equivbench_plugin::{Batch, Draw, Law, Notes};

use crate::VoxmolConfig;

/// Inside the square root of every norm.
const EPSILON: f64 = 1e-5;

/// What every part of one pass needs to know.
pub(crate) struct Pass<'a> {
    /// Groups of every norm.
    groups: usize,
    dropout: f64,
    /// Knows whether this is a training step, and its random numbers.
    batch: &'a Batch<'a>,
    notes: &'a Notes,
    /// The module that the pass is in, as the parameters there are named: `down.3.attn`. Empty where nobody traces.
    path: String,
}

impl<'a> Pass<'a> {
    pub(crate) fn new(config: &VoxmolConfig, batch: &'a Batch<'a>, notes: &'a Notes) -> Self {
        Self {
            groups: config.groups,
            dropout: config.dropout,
            batch,
            notes,
            path: String::new(),
        }
    }

    /// The pass inside of a module.
    pub(crate) fn inside(&self, module: impl std::fmt::Display) -> Self {
        let path = match (self.notes.are_kept(), self.path.is_empty()) {
            (false, _) => String::new(),
            (true, true) => module.to_string(),
            (true, false) => format!("{}.{module}", self.path),
        };
        Self { path, ..*self }
    }

    /// Notes what the module gave.
    pub(crate) fn note<const D: usize>(&self, x: &Tensor<D>) {
        self.notes.add((), || self.path.clone(), || x.clone());
    }

    fn next_dropout(&self) -> Option<Dropout> {
        let seed = self
            .batch
            .next_dropout_seed()
            .filter(|_| self.dropout > 0.0)?;
        Some(Dropout {
            probability: self.dropout,
            seed,
        })
    }
}

/// A convolution with bias; what kind of one its place says.
#[derive(Module, Debug)]
pub(crate) struct Conv {
    /// `[out, in, k, k, k]`, or `[in, out, 4, 4, 4]` where it doubles the side.
    weight: Param<Tensor<5>>,
    bias: Param<Tensor<1>>,
}

impl Conv {
    /// Fresh weights. A convolution that doubles the side counts `k³ · out` inputs, as PyTorch does.
    pub(crate) fn new(kind: Conv3d, from: usize, to: usize, draw: &mut Draw<'_>) -> Self {
        let (shape, inputs) = match kind {
            Conv3d::Same3 | Conv3d::Down3 => ([to, from, 3, 3, 3], 27 * from),
            Conv3d::Point => ([to, from, 1, 1, 1], from),
            Conv3d::Up4 => ([from, to, 4, 4, 4], 64 * to),
        };
        Self {
            weight: draw.parameter(shape, Law::usual(inputs)),
            bias: draw.parameter([to], Law::usual(inputs)),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<5>, kind: Conv3d, pass: &Pass<'_>) -> Tensor<5> {
        let y = self.apply(x, kind);
        pass.note(&y);
        y
    }

    /// The same in a pass that nobody traces.
    pub(crate) fn apply(&self, x: Tensor<5>, kind: Conv3d) -> Tensor<5> {
        conv3d(x, self.weight.val(), self.bias.val(), kind)
    }
}

/// A convolution that changes the side of the grid; the name of its only part is that of the reference.
#[derive(Module, Debug)]
pub(crate) struct Resample {
    conv: Conv,
}

impl Resample {
    pub(crate) fn new(kind: Conv3d, width: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            conv: Conv::new(kind, width, width, draw),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<5>, kind: Conv3d, pass: &Pass<'_>) -> Tensor<5> {
        self.conv.forward(x, kind, pass)
    }
}

/// A group norm with scale and shift, and the activation behind it.
#[derive(Module, Debug)]
pub(crate) struct Norm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
}

impl Norm {
    pub(crate) fn new(width: usize, draw: &Draw<'_>) -> Self {
        Self {
            weight: draw.filled([width], 1.0),
            bias: draw.filled([width], 0.0),
        }
    }

    /// `silu(norm(x))`.
    pub(crate) fn activate(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        self.activate_and_drop(x, None, pass)
    }

    /// The same with elements dropped in a training step.
    pub(crate) fn activate_dropping(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        self.activate_and_drop(x, pass.next_dropout(), pass)
    }

    fn activate_and_drop(
        &self,
        x: Tensor<5>,
        dropout: Option<Dropout>,
        pass: &Pass<'_>,
    ) -> Tensor<5> {
        let y = group_norm_silu(
            x,
            self.weight.val(),
            self.bias.val(),
            pass.groups,
            EPSILON,
            dropout,
        );
        pass.note(&y);
        y
    }
}

/// A linear map of the channels of every voxel.
#[derive(Module, Debug)]
struct Linear {
    /// `[out, in]`
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

impl Linear {
    fn new(from: usize, to: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            weight: draw.parameter([to, from], Law::usual(from)),
            bias: draw.parameter([to], Law::usual(from)),
        }
    }

    fn forward(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        let weight = self.weight.val();
        let [to, from] = weight.dims();
        let y = conv3d(
            x,
            weight.reshape([to, from, 1, 1, 1]),
            self.bias.val(),
            Conv3d::Point,
        );
        pass.note(&y);
        y
    }
}

/// Attention among the voxels of a grid: one head, no mask, no positions.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    /// Declared by the reference and never applied. It counts, gets no gradient and never moves.
    norm: Norm,
    /// To queries, keys and values.
    projection: Linear,
    output: Linear,
}

impl Attention {
    pub(crate) fn new(width: usize, draw: &mut Draw<'_>) -> Self {
        Self {
            norm: Norm::new(width, draw),
            projection: Linear::new(width, 3 * width, draw),
            output: Linear::new(width, width, draw),
        }
    }

    /// `x + output( softmax(qᵀ k / √width) v )`; voxels are columns, so that nothing is transposed in memory.
    pub(crate) fn forward(&self, x: Tensor<5>, pass: &Pass<'_>) -> Tensor<5> {
        let shape @ [samples, width, a, b, c] = x.dims();
        let qkv = self
            .projection
            .forward(x.clone(), &pass.inside("projection"))
            .reshape([samples, 3 * width, a * b * c]);
        let [q, k, v] = [0, 1, 2].map(|third| qkv.clone().narrow(1, third * width, width));
        // Not a division by the root: its gradient would go through an f32, in an f64 model too.
        let scores = (q * (width as f64).sqrt().recip())
            .swap_dims(1, 2)
            .matmul(k);
        let mixed = v.matmul(softmax(scores).swap_dims(1, 2)).reshape(shape);
        let y = x + self.output.forward(mixed, &pass.inside("output"));
        pass.note(&y);
        y
    }
}
