//! Convolutions of grids whose gradients are products of matrices.
//!
//! A backend's own gradient of a weight is a convolution with a kernel as large as the grid, a few thousand threads with a million terms
//! each. Here every tap of the weight is a product of matrices for each plane of each grid, and the planes are added up in
//! stages.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex,
};
use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{Slice, Tensor, module};

use super::{Reachable, collapse};
use crate::Conv3d;

/// The convolution without its bias.
pub(crate) fn conv3d(x: Tensor<5>, weight: Tensor<5>, kind: Conv3d) -> Tensor<5> {
    let [x, weight] = [x, weight].map(Tensor::into_dispatch);
    let autodiff = x.autodiff.merge(weight.autodiff);
    let kinds = [x.kind, weight.kind];
    let kind = match kinds.each_ref().map(innermost) {
        [DispatchTensorKind::Flex(_), _] => on_backend::<Flex>(kind, kinds, &autodiff),
        #[cfg(feature = "cuda")]
        [DispatchTensorKind::Cube(_), _] => {
            on_backend::<burn::backend::Cube>(kind, kinds, &autodiff)
        }
        [other, _] => unreachable!("a float tensor was expected, not {other:?}"),
    };
    Tensor::from_dispatch(DispatchTensor { kind, autodiff })
}

fn innermost(kind: &DispatchTensorKind) -> &DispatchTensorKind {
    match kind {
        DispatchTensorKind::Autodiff(inner) => innermost(inner),
        kind => kind,
    }
}

fn on_backend<B: Reachable>(
    kind: Conv3d,
    inputs: [DispatchTensorKind; 2],
    autodiff: &DispatchAutodiffContext,
) -> DispatchTensorKind {
    if matches!(autodiff, DispatchAutodiffContext::Disabled) {
        let [x, weight] = inputs.map(|input| tensor::<B>(B::reach(input).float()));
        return B::wrap(BackendTensor::Float(primitive::<B>(forward(
            kind, x, weight,
        ))));
    }
    let mut nodes = Vec::with_capacity(2);
    let saved = inputs.map(|input| {
        let (values, node) = tracked::<B>(input).into_parts();
        nodes.push(node);
        values
    });
    let Ok(nodes) = nodes.try_into() else {
        unreachable!("one node for each of two inputs")
    };
    let [x, weight] = saved.clone().map(tensor::<B>);
    let output = primitive::<B>(forward(kind, x, weight));
    // The strategy matters only for operations that ask to be recomputed; these never do.
    let prepared = Backward::<B, 2>::prepare::<NoCheckpointing>(Convolution(kind), nodes);
    let output = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish(saved, output),
        OpsKind::UnTracked(preparation) => preparation.finish(output),
    };
    DispatchTensorKind::Autodiff(Box::new(B::wrap(BackendTensor::Autodiff(output))))
}

/// The tensor as autodiff sees it; one that autodiff does not know becomes a constant.
fn tracked<B: Reachable>(kind: DispatchTensorKind) -> FloatTensor<Autodiff<B>> {
    match kind {
        DispatchTensorKind::Autodiff(inner) => tracked::<B>(*inner),
        kind => match B::reach(kind) {
            BackendTensor::Autodiff(tensor) => tensor,
            constant => FloatTensor::<Autodiff<B>>::new(constant.float()),
        },
    }
}

fn tensor<B: Reachable>(values: FloatTensor<B>) -> Tensor<5> {
    Tensor::from_dispatch(DispatchTensor {
        kind: B::wrap(BackendTensor::Float(values)),
        autodiff: DispatchAutodiffContext::Disabled,
    })
}

fn primitive<B: Reachable>(values: Tensor<5>) -> FloatTensor<B> {
    B::reach(values.into_dispatch().kind).float()
}

#[derive(Debug)]
struct Convolution(Conv3d);

impl<B: Reachable> Backward<B, 2> for Convolution {
    /// The input and the weight.
    type State = [FloatTensor<B>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = tensor::<B>(gradients.consume::<B>(&ops.node));
        let [x, weight] = ops.state.map(tensor::<B>);
        let [of_x, of_weight] = ops.parents;
        if let Some(parent) = of_weight {
            let found = weight_gradient(self.0, x.clone(), gradient.clone(), weight.dims());
            gradients.register::<B>(parent.id, primitive::<B>(found));
        }
        if let Some(parent) = of_x {
            let found = input_gradient(self.0, weight, gradient);
            gradients.register::<B>(parent.id, primitive::<B>(found));
        }
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
    if kind == Conv3d::Up4 {
        module::conv_transpose3d(x, weight, None, transposed(stride, padding, 0))
    } else {
        module::conv3d(x, weight, None, straight(stride, padding))
    }
}

fn input_gradient(kind: Conv3d, weight: Tensor<5>, gradient: Tensor<5>) -> Tensor<5> {
    let [stride, padding] = shape(kind);
    match kind {
        // The convolution with the weight turned around, its channels exchanged.
        Conv3d::Same3 | Conv3d::Point => {
            let turned = weight.swap_dims(0, 1).flip([2, 3, 4]);
            module::conv3d(gradient, turned, None, straight(stride, padding))
        }
        // An even side ends with one voxel that no step reached.
        Conv3d::Down3 => {
            module::conv_transpose3d(gradient, weight, None, transposed(stride, padding, 1))
        }
        Conv3d::Up4 => module::conv3d(gradient, weight, None, straight(stride, padding)),
    }
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
