//! Element-wise activations: GELU (error-function form) and SiLU.

use std::fmt::Debug;

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::parallel::{CHUNK, build};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// `x * Phi(x)` with the exact normal distribution function `Phi` (the error-function form, not the tanh one).
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match fused(Gelu, [x.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x]) => plain::gelu(Tensor::<D>::from_dispatch(x)),
    }
}

/// `x / (1 + exp(-x))`, also called swish.
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match fused(Silu, [x.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x]) => plain::silu(Tensor::<D>::from_dispatch(x)),
    }
}

#[derive(Debug)]
struct Gelu;

#[derive(Debug)]
struct Silu;

/// A function of one number and its derivative, as loops over slices.
trait Elementwise: Debug + Send + Sync + 'static {
    fn apply<T: Scalar>(x: &[T], output: &mut [T]);
    /// `output = gradient * f'(x)`
    fn pull_back<T: Scalar>(x: &[T], gradient: &[T], output: &mut [T]);
}

impl<E: Elementwise> Kernel<1> for E {
    type Saved = FlexTensor;

    fn forward<T: Scalar>(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let x = x.to_contiguous();
        let input = values::<T>(&x);
        let output = build(input.len(), CHUNK, |first, output| {
            E::apply(&input[first..][..output.len()], output)
        });
        (tensor(output, x.shape()), x)
    }

    fn backward<T: Scalar>(
        &self,
        x: FlexTensor,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let gradient = gradient.to_contiguous();
        let (input, given) = (values::<T>(&x), values::<T>(&gradient));
        let output = build(input.len(), CHUNK, |first, output| {
            E::pull_back(
                &input[first..][..output.len()],
                &given[first..][..output.len()],
                output,
            );
        });
        [Some(tensor(output, x.shape()))]
    }
}

impl Elementwise for Gelu {
    fn apply<T: Scalar>(x: &[T], output: &mut [T]) {
        gelu_forward(x, output);
    }

    fn pull_back<T: Scalar>(x: &[T], gradient: &[T], output: &mut [T]) {
        gelu_backward(x, gradient, output);
    }
}

impl Elementwise for Silu {
    fn apply<T: Scalar>(x: &[T], output: &mut [T]) {
        silu_forward(x, output);
    }

    fn pull_back<T: Scalar>(x: &[T], gradient: &[T], output: &mut [T]) {
        silu_backward(x, gradient, output);
    }
}

simd! {
    fn gelu_forward<T, L>(x: &[T], output: &mut [T]) {
        for (output, &x) in output.iter_mut().zip(x) {
            *output = x * x.normal().0;
        }
    }
}

simd! {
    fn gelu_backward<T, L>(x: &[T], gradient: &[T], output: &mut [T]) {
        for ((output, &x), &gradient) in output.iter_mut().zip(x).zip(gradient) {
            let (cumulative, density) = x.normal();
            *output = gradient * x.mul_add(density, cumulative);
        }
    }
}

/// `1 / (1 + exp(-x))`
#[inline(always)]
pub(crate) fn sigmoid<T: Scalar>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

simd! {
    fn silu_forward<T, L>(x: &[T], output: &mut [T]) {
        for (output, &x) in output.iter_mut().zip(x) {
            *output = x * sigmoid(x);
        }
    }
}

simd! {
    fn silu_backward<T, L>(x: &[T], gradient: &[T], output: &mut [T]) {
        for ((output, &x), &gradient) in output.iter_mut().zip(x).zip(gradient) {
            let s = sigmoid(x);
            *output = gradient * s * x.mul_add(T::ONE - s, T::ONE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn activations_agree_with_their_composition_for_any_size() {
        for count in [0, 1, 7, 33, 3 * CHUNK + 5] {
            let x = [numbers(count, 1).iter().map(|x| 3.0 * x).collect()];
            check(|x| gelu(x[0].clone()), |x| plain::gelu(x[0].clone()), &x);
            check(|x| silu(x[0].clone()), |x| plain::silu(x[0].clone()), &x);
        }
    }

    #[test]
    fn transposed_and_sliced_inputs_are_read_in_their_own_order() {
        let view = |x: &Tensor<1>| x.clone().reshape([6, 10]).transpose().slice([2..9, 1..5]);
        check(
            |x| gelu(view(&x[0])).reshape([28]),
            |x| plain::gelu(view(&x[0])).reshape([28]),
            &[numbers(60, 2)],
        );
    }

    #[test]
    fn gelu_of_large_numbers_is_the_number_or_nothing() {
        let x = Tensor::<1>::from_floats([50.0, -50.0, 0.0], &burn::tensor::Device::flex());
        assert_eq!(
            gelu(x).into_data().try_to_vec::<f32>().unwrap(),
            [50.0, 0.0, 0.0]
        );
    }

    #[test]
    fn gelu_of_f32_is_within_two_units_of_the_seventh_digit() {
        let count = 100_001;
        let x: Vec<f32> = (0..count)
            .map(|i| -12.0 + 24.0 * i as f32 / count as f32)
            .collect();
        let device = burn::tensor::Device::flex();
        let y = gelu(Tensor::<1>::from_floats(x.as_slice(), &device))
            .into_data()
            .try_to_vec::<f32>()
            .unwrap();
        for (x, y) in x.into_iter().zip(y) {
            let exact = f64::from(x) * f64::from(x).normal().0;
            // Relative to the scale of the function, which is |x|.
            assert!(
                (f64::from(y) - exact).abs() <= 2e-7 * f64::from(x.abs()),
                "gelu({x})"
            );
        }
    }
}
