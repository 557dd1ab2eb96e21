//! Products with gates: SwiGLU, and multiplication by the logistic function of another tensor.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::activation::sigmoid;
use crate::dispatch::{Kernel, fused, tensor, values};
use crate::parallel::{CHUNK, build, build_each, rows_per_chunk};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// `a * silu(g)` with `silu(g) = g / (1 + exp(-g))`, where `a` and `g` are the first and the second half of the last axis:
/// `x [.., 2 width]` gives `[.., width]`.
///
/// # Panics
/// If the last axis is odd.
pub fn swiglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    assert!(
        x.dims()[D - 1].is_multiple_of(2),
        "swiglu: the last axis must have two halves, not {} elements",
        x.dims()[D - 1]
    );
    match fused(SwiGlu, [x.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x]) => plain::swiglu(Tensor::<D>::from_dispatch(x)),
    }
}

/// `x / (1 + exp(-gate))`, element by element; `gate` has the shape of `x`. Both get gradients.
///
/// # Panics
/// If the shapes differ.
pub fn sigmoid_gate<const D: usize>(x: Tensor<D>, gate: Tensor<D>) -> Tensor<D> {
    assert_eq!(
        x.dims(),
        gate.dims(),
        "sigmoid_gate: the gate must have the shape of x"
    );
    match fused(SigmoidGate, [x.into_dispatch(), gate.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x, gate]) => {
            plain::sigmoid_gate(Tensor::<D>::from_dispatch(x), Tensor::from_dispatch(gate))
        }
    }
}

#[derive(Debug)]
struct SwiGlu;

impl Kernel<1> for SwiGlu {
    type Saved = FlexTensor;

    fn forward<T: Scalar>(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let x = x.to_contiguous();
        let mut shape = x.shape();
        let last = shape.num_dims() - 1;
        let width = shape[last] / 2;
        shape[last] = width;
        let given = values::<T>(&x);
        let output = build(
            given.len() / 2,
            rows_per_chunk(width) * width,
            |first, output| {
                swiglu_forward(&given[2 * first..][..2 * output.len()], width, output);
            },
        );
        (tensor(output, shape), x)
    }

    fn backward<T: Scalar>(
        &self,
        x: FlexTensor,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let gradient = gradient.to_contiguous();
        let (given, cotangent) = (values::<T>(&x), values::<T>(&gradient));
        let shape = x.shape();
        let width = shape[shape.num_dims() - 1];
        let output = build(
            given.len(),
            rows_per_chunk(width) * width,
            |first, output| {
                swiglu_backward(
                    &given[first..][..output.len()],
                    &cotangent[first / 2..][..output.len() / 2],
                    width / 2,
                    output,
                );
            },
        );
        [Some(tensor(output, shape))]
    }
}

#[derive(Debug)]
struct SigmoidGate;

impl Kernel<2> for SigmoidGate {
    type Saved = [FlexTensor; 2];

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [x, gate] = inputs.map(|input| input.to_contiguous());
        let (given, gates) = (values::<T>(&x), values::<T>(&gate));
        let output = build(given.len(), CHUNK, |first, output| {
            let range = first..first + output.len();
            gate_forward(&given[range.clone()], &gates[range], output);
        });
        (tensor(output, x.shape()), [x, gate])
    }

    fn backward<T: Scalar>(
        &self,
        [x, gate]: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let gradient = gradient.to_contiguous();
        let (given, gates, cotangent) =
            (values::<T>(&x), values::<T>(&gate), values::<T>(&gradient));
        let outputs = build_each([given.len(); 2], [CHUNK; 2], |piece, [for_x, for_gate]| {
            let range = piece * CHUNK..piece * CHUNK + for_x.len();
            gate_backward(
                &given[range.clone()],
                &gates[range.clone()],
                &cotangent[range],
                for_x,
                for_gate,
            );
        });
        let [for_x, for_gate] = outputs.map(|output| tensor(output, x.shape()));
        [wanted[0].then_some(for_x), wanted[1].then_some(for_gate)]
    }
}

simd! {
    fn swiglu_forward<T, L>(x: &[T], width: usize, output: &mut [T]) {
        for (x, output) in x.chunks_exact(2 * width).zip(output.chunks_exact_mut(width)) {
            let (a, g) = x.split_at(width);
            for ((output, &a), &g) in output.iter_mut().zip(a).zip(g) {
                *output = a * g * sigmoid(g);
            }
        }
    }
}

simd! {
    fn swiglu_backward<T, L>(x: &[T], gradient: &[T], width: usize, output: &mut [T]) {
        let rows = x.chunks_exact(2 * width).zip(gradient.chunks_exact(width));
        for ((x, gradient), output) in rows.zip(output.chunks_exact_mut(2 * width)) {
            let ((a, g), (for_a, for_g)) = (x.split_at(width), output.split_at_mut(width));
            for ((((for_a, for_g), &a), &g), &gradient) in for_a.iter_mut().zip(for_g).zip(a).zip(g).zip(gradient) {
                let s = sigmoid(g);
                *for_a = gradient * g * s;
                *for_g = gradient * a * s * g.mul_add(T::ONE - s, T::ONE);
            }
        }
    }
}

simd! {
    fn gate_forward<T, L>(x: &[T], gate: &[T], output: &mut [T]) {
        for ((output, &x), &gate) in output.iter_mut().zip(x).zip(gate) {
            *output = x * sigmoid(gate);
        }
    }
}

simd! {
    fn gate_backward<T, L>(x: &[T], gate: &[T], gradient: &[T], for_x: &mut [T], for_gate: &mut [T]) {
        for ((((for_x, for_gate), &x), &gate), &gradient) in for_x.iter_mut().zip(for_gate).zip(x).zip(gate).zip(gradient) {
            let s = sigmoid(gate);
            *for_x = gradient * s;
            *for_gate = gradient * x * s * (T::ONE - s);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn swiglu_agrees_with_its_composition_for_any_size() {
        for [rows, width] in [[1, 1], [5, 7], [70, 128], [2, 5000]] {
            let apply = |f: fn(Tensor<3>) -> Tensor<3>, x: &[Tensor<1>]| {
                let output = f(x[0].clone().reshape([1, rows, 2 * width]));
                assert_eq!(output.dims(), [1, rows, width]);
                output.reshape([rows * width])
            };
            let x = numbers(2 * rows * width, 1)
                .iter()
                .map(|x| 3.0 * x)
                .collect();
            check(|x| apply(swiglu, x), |x| apply(plain::swiglu, x), &[x]);
        }
    }

    #[test]
    fn nothing_gives_nothing() {
        let device = burn::tensor::Device::flex().autodiff();
        for shape in [[0, 4], [3, 0]] {
            let x = Tensor::<2>::zeros(shape, &device).require_grad();
            let output = swiglu(x.clone());
            assert_eq!(output.dims(), [shape[0], shape[1] / 2]);
            assert_eq!(x.grad(&output.sum().backward()).unwrap().dims(), shape);
        }
    }

    #[test]
    fn sigmoid_gate_agrees_with_its_composition_for_any_size() {
        for count in [0, 1, 7, 33, 3 * CHUNK + 5] {
            let inputs = [
                numbers(count, 1),
                numbers(count, 2).iter().map(|x| 3.0 * x).collect(),
            ];
            check(
                |x| sigmoid_gate(x[0].clone(), x[1].clone()),
                |x| plain::sigmoid_gate(x[0].clone(), x[1].clone()),
                &inputs,
            );
        }
    }

    #[test]
    fn the_second_half_is_the_gate() {
        let x = Tensor::<2>::from_floats([[3.0, -5.0, 40.0, -40.0]], &burn::tensor::Device::flex());
        // silu(40) = 40 and silu(-40) = -40 e^-40 = -1.7e-16.
        let output = swiglu(x).into_data().try_to_vec::<f32>().unwrap();
        assert_eq!(output[0], 120.0);
        assert!(output[1].abs() < 1e-14);
    }

    #[test]
    fn transposed_inputs_are_read_in_their_own_order() {
        let view = |x: &Tensor<1>| x.clone().reshape([6, 10]).transpose();
        check(
            |x| swiglu(view(&x[0])).reshape([30]),
            |x| plain::swiglu(view(&x[0])).reshape([30]),
            &[numbers(60, 2)],
        );
        check(
            |x| sigmoid_gate(view(&x[0]), view(&x[1])).reshape([60]),
            |x| plain::sigmoid_gate(view(&x[0]), view(&x[1])).reshape([60]),
            &[numbers(60, 2), numbers(60, 3)],
        );
    }

    #[test]
    #[should_panic(expected = "two halves, not 3 elements")]
    fn an_odd_axis_is_refused() {
        swiglu(Tensor::<2>::ones([2, 3], &burn::tensor::Device::flex()));
    }
}
