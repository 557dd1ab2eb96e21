//! Convolutions of cubic grids with many channels.
//!
//! Numbers are copied, a few channels and planes at a time, into padded blocks that stay in the cache; there every weight
//! connects cells with cells at one distance, and vectors of cells are multiplied with single weights in registers. Every
//! result is summed in one order, whatever the number of threads.

mod correlate;
mod cut;
mod field;
mod stencil;
mod weigh;

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::parallel::build;
use crate::plain;
use crate::scalar::Scalar;
use correlate::Correlation;
use field::{Field, Source};
use stencil::Stencil;
use weigh::Weighing;

/// Which convolution [`conv3d`] computes: its weights per axis, its steps and its padding with zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conv3d {
    /// 3 weights, padding 1: the grid keeps its side.
    Same3,
    /// 3 weights, padding 1, steps of 2: the side, which must be even, is halved.
    Down3,
    /// Transposed, 4 weights, padding 1, steps of 2: the side is doubled.
    Up4,
    /// 1 weight: each voxel for itself.
    Point,
}

/// Convolution of `x [batch, in, side, side, side]`, plus a `bias [out]`.
///
/// `weight` is `[out, in, k, k, k]`, not flipped; for [`Conv3d::Up4`] it is `[in, out, 4, 4, 4]`, and along each axis
/// `result[o, 2 j - 1 + k] += x[i, j] * weight[i, o, k]`. The result is `[batch, out, side', side', side']`, with `side'`
/// equal to, half of or twice `side`. Gradients of `x`, `weight` and `bias`.
///
/// # Panics
/// If the shapes do not fit together, the grid is not a cube or empty, or its side is odd with [`Conv3d::Down3`].
pub fn conv3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>, kind: Conv3d) -> Tensor<5> {
    let convolution = Convolution::new(kind, x.dims(), weight.dims());
    assert_eq!(
        bias.dims(),
        [convolution.outputs()],
        "conv3d: the bias must have one number for each channel of the result"
    );
    match fused(
        convolution,
        [
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
        ],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x, weight, bias]) => plain::conv3d(
            Tensor::from_dispatch(x),
            Tensor::from_dispatch(weight),
            Tensor::from_dispatch(bias),
            kind,
        ),
    }
}

impl Conv3d {
    fn stencil(self) -> Stencil {
        match self {
            Self::Same3 => Stencil {
                split: 1,
                width: 3,
                pad: 1,
            },
            Self::Down3 => Stencil {
                split: 2,
                width: 3,
                pad: 1,
            },
            Self::Up4 => Stencil {
                split: 2,
                width: 4,
                pad: 1,
            },
            Self::Point => Stencil {
                split: 1,
                width: 1,
                pad: 0,
            },
        }
    }

    /// Whether the result is on the fine grid.
    fn spreads(self) -> bool {
        self == Self::Up4
    }
}

/// Inputs are `x`, the weights and the bias.
#[derive(Debug, Clone, Copy)]
struct Convolution {
    kind: Conv3d,
    items: usize,
    /// Cells per axis of the dense grid.
    side: usize,
    /// Channels of the dense grid: those of the result, but of `x` if the convolution spreads.
    dense: usize,
    /// Channels of the fine grid.
    fine: usize,
}

impl Kernel<3> for Convolution {
    type Saved = [FlexTensor; 2];

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let [x, weight, bias] = inputs.map(|input| input.to_contiguous());
        let [given, weights, bias] = [&x, &weight, &bias].map(values::<T>);
        let output = if self.kind.spreads() {
            self.spread(given, weights, Some(bias))
        } else {
            self.gather(given, weights, Some(bias))
        };
        let shape = if self.kind.spreads() {
            self.fine_shape()
        } else {
            self.dense_shape()
        };
        (tensor(output, shape), [x, weight])
    }

    fn backward<T: Scalar>(
        &self,
        [x, weight]: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let gradient = gradient.to_contiguous();
        let [given, weights, cotangent] = [&x, &weight, &gradient].map(values::<T>);
        let for_x = || {
            if self.kind.spreads() {
                self.gather(cotangent, weights, None)
            } else {
                self.spread(cotangent, weights, None)
            }
        };
        let for_weight = || {
            if self.kind.spreads() {
                self.weigh(given, cotangent)
            } else {
                self.weigh(cotangent, given)
            }
        };
        [
            wanted[0].then(|| tensor(for_x(), x.shape())),
            wanted[1].then(|| tensor(for_weight(), weight.shape())),
            wanted[2].then(|| tensor(self.for_bias(cotangent), [self.outputs()])),
        ]
    }
}

impl Convolution {
    /// # Panics
    /// If the shapes do not fit together.
    fn new(
        kind: Conv3d,
        [items, inputs, side, height, width]: [usize; 5],
        weight: [usize; 5],
    ) -> Self {
        assert!(
            side == height && side == width,
            "conv3d: the grid must be a cube, not {side} x {height} x {width}"
        );
        assert!(side > 0, "conv3d: the grid must have voxels");
        assert!(
            weight[0] > 0 && weight[1] > 0,
            "conv3d: x and the result must have channels"
        );
        assert!(
            kind != Conv3d::Down3 || side % 2 == 0,
            "conv3d: a grid must have an even side to be halved, not {side}"
        );
        let taps = kind.stencil().width;
        assert_eq!(
            weight[2..],
            [taps; 3],
            "conv3d: weights per axis of {kind:?}"
        );
        let of_x = if kind.spreads() { 0 } else { 1 };
        assert_eq!(
            weight[of_x], inputs,
            "conv3d: axis {of_x} of the weights must have the length of the channels of x"
        );
        let side = if kind == Conv3d::Down3 {
            side / 2
        } else {
            side
        };
        Self {
            kind,
            items,
            side,
            dense: weight[0],
            fine: weight[1],
        }
    }

    /// Channels of the result.
    fn outputs(&self) -> usize {
        if self.kind.spreads() {
            self.fine
        } else {
            self.dense
        }
    }

    fn dense_shape(&self) -> [usize; 5] {
        [self.items, self.dense, self.side, self.side, self.side]
    }

    fn fine_shape(&self) -> [usize; 5] {
        let side = self.side * self.kind.stencil().split;
        [self.items, self.fine, side, side, side]
    }

    /// Cut into `wanted` units or more, if possible.
    fn field<T>(&self, split: usize, wanted: usize) -> Field {
        Field::new::<T>(
            [self.items, self.side],
            self.kind.stencil().pad,
            split,
            wanted,
        )
    }

    /// The dense grid from the fine one.
    fn gather<T: Scalar>(&self, fine: &[T], weights: &[T], bias: Option<&[T]>) -> Vec<T> {
        let stencil = self.kind.stencil();
        let field = self.field::<T>(stencil.split, correlate::UNITS);
        let correlation = Correlation {
            input: Source::new(fine, self.fine, field),
            weights,
            strides: [self.fine * stencil.weights(), stencil.weights()],
            rows: self.dense,
            split: 1,
            classes: vec![stencil.gathering(&field)],
            bias,
        };
        correlation.run()
    }

    /// The fine grid from the dense one.
    fn spread<T: Scalar>(&self, dense: &[T], weights: &[T], bias: Option<&[T]>) -> Vec<T> {
        let stencil = self.kind.stencil();
        let field = self.field::<T>(1, correlate::UNITS);
        let correlation = Correlation {
            input: Source::new(dense, self.dense, field),
            weights,
            strides: [stencil.weights(), self.fine * stencil.weights()],
            rows: self.fine,
            split: stencil.split,
            classes: stencil.spreading(&field),
            bias,
        };
        correlation.run()
    }

    /// The gradient of the weights.
    fn weigh<T: Scalar>(&self, dense: &[T], fine: &[T]) -> Vec<T> {
        let stencil = self.kind.stencil();
        let field = self.field::<T>(
            stencil.split,
            weigh::parts::<T>(self.dense * self.fine * stencil.weights()),
        );
        let taps = stencil.gathering(&field);
        Weighing {
            dense,
            rows: self.dense,
            input: Source::new(fine, self.fine, field),
            taps,
        }
        .run()
    }

    /// The gradient of the bias: sums over grids, then over items.
    fn for_bias<T: Scalar>(&self, gradient: &[T]) -> Vec<T> {
        let channels = self.outputs();
        let volume = gradient.len() / (self.items * channels).max(1);
        let of_grids = build(
            self.items * channels,
            (1 << 15) / volume.clamp(1, 1 << 15),
            |first, sums| {
                weigh::totals(
                    &gradient[first * volume..][..sums.len() * volume],
                    volume,
                    sums,
                );
            },
        );
        let of_channel = |channel: usize| {
            of_grids[channel..]
                .iter()
                .step_by(channels)
                .fold(T::ZERO, |sum, &value| sum + value)
        };
        (0..channels)
            .map(|channel| {
                if of_grids.is_empty() {
                    T::ZERO
                } else {
                    of_channel(channel)
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
