//! Convolutions of grids whose gradients are products of matrices.
//!
//! A backend's own gradient of a weight is a convolution with a kernel as large as the grid, a few thousand threads with a million terms
//! each. Here every tap of the weight is a product of matrices for each plane of each grid, and the planes are added up in
//! stages.

use burn::backend::DispatchTensor;
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Int, Slice, Tensor, TensorData, module};

use super::collapse;
use super::function::{Function, apply};
use crate::Conv3d;

/// Numbers of the columns that are made at a time: 4 GB in f32.
const COLUMNS: usize = 1 << 30;

/// The convolution without its bias.
pub(crate) fn conv3d(x: Tensor<5>, weight: Tensor<5>, kind: Conv3d) -> Tensor<5> {
    let inputs = [x, weight].map(Tensor::into_dispatch);
    Tensor::from_dispatch(apply(Convolution(kind), inputs))
}

#[derive(Debug)]
struct Convolution(Conv3d);

impl Function<2> for Convolution {
    fn forward(&self, inputs: [DispatchTensor; 2]) -> DispatchTensor {
        let [x, weight] = inputs.map(Tensor::<5>::from_dispatch);
        forward(self.0, x, weight).into_dispatch()
    }

    fn backward(
        &self,
        inputs: [DispatchTensor; 2],
        gradient: DispatchTensor,
        [of_x, of_weight]: [bool; 2],
    ) -> [Option<DispatchTensor>; 2] {
        let [x, weight] = inputs.map(Tensor::<5>::from_dispatch);
        let gradient = Tensor::<5>::from_dispatch(gradient);
        let dims = weight.dims();
        let for_weight =
            of_weight.then(|| weight_gradient(self.0, x, gradient.clone(), dims).into_dispatch());
        let for_x = of_x.then(|| input_gradient(self.0, weight, gradient).into_dispatch());
        [for_x, for_weight]
    }
}

/// Stride and padding.
fn shape(kind: Conv3d) -> [usize; 2] {
    match kind {
        Conv3d::Same3 => [1, 1],
        Conv3d::Down3 | Conv3d::Up4 => [2, 1],
        Conv3d::Point => [1, 0],
    }
}

fn straight(stride: usize, padding: usize) -> ConvOptions<3> {
    ConvOptions::new([stride; 3], [padding; 3], [1; 3], 1)
}

fn transposed(stride: usize, padding: usize, out: usize) -> ConvTransposeOptions<3> {
    ConvTransposeOptions::new([stride; 3], [padding; 3], [out; 3], [1; 3], 1)
}

fn forward(kind: Conv3d, x: Tensor<5>, weight: Tensor<5>) -> Tensor<5> {
    let [stride, padding] = shape(kind);
    match kind {
        Conv3d::Same3 => same(x, weight),
        Conv3d::Point => point(x, weight),
        Conv3d::Down3 => module::conv3d(x, weight, None, straight(stride, padding)),
        Conv3d::Up4 => module::conv_transpose3d(x, weight, None, transposed(stride, padding, 0)),
    }
}

fn input_gradient(kind: Conv3d, weight: Tensor<5>, gradient: Tensor<5>) -> Tensor<5> {
    let [stride, padding] = shape(kind);
    match kind {
        // The convolution with the weight turned around, its channels exchanged.
        Conv3d::Same3 => same(gradient, weight.swap_dims(0, 1).flip([2, 3, 4])),
        Conv3d::Point => point(gradient, weight.swap_dims(0, 1)),
        // An even side ends with one voxel that no step reached.
        Conv3d::Down3 => {
            module::conv_transpose3d(gradient, weight, None, transposed(stride, padding, 1))
        }
        Conv3d::Up4 => module::conv3d(gradient, weight, None, straight(stride, padding)),
    }
}

/// A product of the weight with all voxels.
fn point(x: Tensor<5>, weight: Tensor<5>) -> Tensor<5> {
    let ([batch, channels, a, b, c], outputs) = (x.dims(), weight.dims()[0]);
    let weight = weight.reshape([1, outputs, channels]);
    let y = weight.matmul(x.reshape([batch, channels, a * b * c]));
    y.reshape([batch, outputs, a, b, c])
}

/// A product of the weight with columns that hold the 27 neighbours of every voxel, some grids at a time.
fn same(x: Tensor<5>, weight: Tensor<5>) -> Tensor<5> {
    let ([batch, channels, side, ..], outputs) = (x.dims(), weight.dims()[0]);
    let voxels = side.pow(3);
    let neighbours = Tensor::<1, Int>::from_data(
        TensorData::new(neighbours(side), [27 * voxels]),
        &x.device(),
    );
    let weight = weight.reshape([1, outputs, 27 * channels]);
    let each = (COLUMNS / (27 * channels * voxels)).clamp(1, batch);
    let parts = (0..batch).step_by(each).map(|first| {
        let count = each.min(batch - first);
        let own = x.clone().narrow(0, first, count);
        let own = own.reshape([count * channels, voxels]);
        // What lies outside of a grid is the voxel behind its last one.
        let nothing = Tensor::zeros([count * channels, 1], (&own.device(), own.dtype()));
        let columns = Tensor::cat(vec![own, nothing], 1).select(1, neighbours.clone());
        let columns = columns.reshape([count, channels * 27, voxels]);
        let y = weight.clone().matmul(columns);
        y.reshape([count, outputs, side, side, side])
    });
    let mut parts: Vec<_> = parts.collect();
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        Tensor::cat(parts, 0)
    }
}

/// `[27, voxels]`: the numbers of the neighbours of every voxel, that of no voxel for those outside.
fn neighbours(side: usize) -> Vec<i32> {
    let outside = side.pow(3);
    let mut numbers = Vec::with_capacity(27 * outside);
    // One more than where it lies; 0 and those above the side are outside.
    let moved = |place: usize, tap: usize| place + tap;
    for tap in 0..27 {
        let taps = [tap / 9, tap / 3 % 3, tap % 3];
        for a in 0..side {
            for b in 0..side {
                for c in 0..side {
                    let place = [moved(a, taps[0]), moved(b, taps[1]), moved(c, taps[2])];
                    let number = if place.iter().all(|p| (1..=side).contains(p)) {
                        ((place[0] - 1) * side + place[1] - 1) * side + place[2] - 1
                    } else {
                        outside
                    };
                    numbers.push(number as i32);
                }
            }
        }
    }
    numbers
}

fn weight_gradient(kind: Conv3d, x: Tensor<5>, gradient: Tensor<5>, dims: [usize; 5]) -> Tensor<5> {
    let [stride, padding] = shape(kind);
    let taps = dims[2];
    if kind == Conv3d::Up4 {
        products_of_taps(gradient, x, taps, stride, padding)
    } else {
        products_of_taps(x, gradient, taps, stride, padding)
    }
}

/// `result[s, l, tap] = Σ small[s, v] · padded large[l, stride · v + tap]`, over the voxels of `small` in all grids.
fn products_of_taps(
    large: Tensor<5>,
    small: Tensor<5>,
    taps: usize,
    stride: usize,
    padding: usize,
) -> Tensor<5> {
    let ([batch, channels, side, ..], [_, rows, steps, ..]) = (large.dims(), small.dims());
    let padded = side + 2 * padding;
    let large = if padding == 0 {
        large
    } else {
        let room = Tensor::zeros(
            [batch, channels, padded, padded, padded],
            (&large.device(), large.dtype()),
        );
        let inside = Slice::from(padding..padding + side);
        room.slice_assign(
            [
                Slice::from(0..batch),
                Slice::from(0..channels),
                inside,
                inside,
                inside,
            ],
            large,
        )
    };
    let planes = |x: Tensor<5>, channels: usize| {
        x.swap_dims(1, 2)
            .reshape([batch * steps, channels, steps * steps])
    };
    let small = planes(small, rows);
    let reach = |tap: usize| {
        Slice::new(
            tap as isize,
            Some((tap + stride * (steps - 1) + 1) as isize),
            stride as isize,
        )
    };
    let mut products = Vec::with_capacity(taps.pow(3));
    for tap in 0..taps.pow(3) {
        let [a, b, c] = [tap / (taps * taps), tap / taps % taps, tap % taps].map(reach);
        let moved = large
            .clone()
            .slice([Slice::from(0..batch), Slice::from(0..channels), a, b, c]);
        let of_planes = small
            .clone()
            .matmul(planes(moved, channels).swap_dims(1, 2));
        let sum = collapse(of_planes.reshape([1, batch * steps, rows * channels]));
        products.push(sum.reshape([rows, channels, 1]));
    }
    Tensor::cat(products, 2).reshape([rows, channels, taps, taps, taps])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain;
    use crate::testing::{check, numbers};

    #[test]
    fn every_kind_agrees_with_the_backend_s_own_gradients() {
        for (kind, taps, side, after) in [
            (Conv3d::Same3, 3, 4, 4),
            (Conv3d::Down3, 3, 4, 2),
            (Conv3d::Up4, 4, 2, 4),
            (Conv3d::Point, 1, 3, 3),
        ] {
            let (shape, size) = ([2, 3, side, side, side], 6 * side * side * side);
            let (from, to) = (3, 5);
            let dims = if kind == Conv3d::Up4 {
                [from, to, taps, taps, taps]
            } else {
                [to, from, taps, taps, taps]
            };
            let count = 2 * to * after * after * after;
            let inputs = [numbers(size, 1), numbers(15 * taps * taps * taps, 2)];
            check(
                |x| {
                    conv3d(
                        x[0].clone().reshape(shape),
                        x[1].clone().reshape(dims),
                        kind,
                    )
                    .reshape([count])
                },
                |x| {
                    let bias = Tensor::zeros([to], (&x[0].device(), x[0].dtype()));
                    plain::conv3d(
                        x[0].clone().reshape(shape),
                        x[1].clone().reshape(dims),
                        bias,
                        kind,
                    )
                    .reshape([count])
                },
                &inputs,
            );
        }
    }
}
