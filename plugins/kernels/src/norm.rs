//! Root-mean-square normalisation.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::lanes::{Lanes, dot};
use crate::parallel::{build, build_with, rows_per_chunk, sum_in_order};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// `gain * x / sqrt(mean(x^2) + epsilon)` over the last axis; `gain` has its length.
///
/// # Panics
/// If the length of `gain` is not that of the last axis.
pub fn rms_norm<const D: usize>(x: Tensor<D>, gain: Tensor<1>, epsilon: f64) -> Tensor<D> {
    assert_eq!(
        x.dims()[D - 1],
        gain.dims()[0],
        "rms_norm: the gain must have the length of the last axis"
    );
    match fused(
        RmsNorm { epsilon },
        [x.into_dispatch(), gain.into_dispatch()],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x, gain]) => plain::rms_norm(
            Tensor::<D>::from_dispatch(x),
            Tensor::from_dispatch(gain),
            epsilon,
        ),
    }
}

#[derive(Debug)]
struct RmsNorm {
    epsilon: f64,
}

impl Kernel<2> for RmsNorm {
    type Saved = [FlexTensor; 2];

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 2]) -> (FlexTensor, Self::Saved) {
        let [x, gain] = inputs.map(|input| input.to_contiguous());
        let (rows, factors) = (values::<T>(&x), values::<T>(&gain));
        let chunk = rows_per_chunk(factors.len()) * factors.len();
        let output = build(rows.len(), chunk, |first, output| {
            normalise(
                &rows[first..][..output.len()],
                factors,
                T::of(self.epsilon),
                output,
            );
        });
        (tensor(output, x.shape()), [x, gain])
    }

    fn backward<T: Scalar>(
        &self,
        [x, gain]: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let gradient = gradient.to_contiguous();
        let (rows, factors, given) = (values::<T>(&x), values::<T>(&gain), values::<T>(&gradient));
        let chunk = rows_per_chunk(factors.len()) * factors.len();
        let (for_x, for_gain) = build_with(rows.len(), chunk, |first, output| {
            let mut for_gain = vec![T::ZERO; factors.len()];
            let range = first..first + output.len();
            pull_back(
                &rows[range.clone()],
                factors,
                &given[range],
                T::of(self.epsilon),
                output,
                &mut for_gain,
            );
            for_gain
        });
        let for_gain =
            wanted[1].then(|| tensor(sum_in_order(factors.len(), &for_gain), gain.shape()));
        [wanted[0].then(|| tensor(for_x, x.shape())), for_gain]
    }
}

/// `1 / sqrt(mean(x^2) + epsilon)`
#[inline(always)]
fn inverse_root<T: Scalar, L: Lanes<T>>(x: &[T], epsilon: T) -> T {
    let mean = dot::<T, L>(x, x) / T::of(x.len() as f64);
    T::ONE / (mean + epsilon).sqrt()
}

simd! {
    pub(crate) fn normalise<T, L>(x: &[T], gain: &[T], epsilon: T, output: &mut [T]) {
        let width = gain.len();
        for (x, output) in x.chunks_exact(width).zip(output.chunks_exact_mut(width)) {
            let inverse = inverse_root::<T, L>(x, epsilon);
            for ((output, &x), &gain) in output.iter_mut().zip(x).zip(gain) {
                *output = x * inverse * gain;
            }
        }
    }
}

simd! {
    /// Writes the gradient of `x` and adds that of the gain.
    pub(crate) fn pull_back<T, L>(x: &[T], gain: &[T], gradient: &[T], epsilon: T, for_x: &mut [T], for_gain: &mut [T]) {
        let width = gain.len();
        let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(for_x.chunks_exact_mut(width));
        for ((x, gradient), for_x) in rows {
            let inverse = inverse_root::<T, L>(x, epsilon);
            // The gradient of the normalised row, before it is made orthogonal to the row.
            for ((for_x, &gradient), &gain) in for_x.iter_mut().zip(gradient).zip(gain) {
                *for_x = gradient * gain;
            }
            let shrink = -dot::<T, L>(for_x, x) * inverse * inverse * inverse / T::of(width as f64);
            for (for_x, &x) in for_x.iter_mut().zip(x) {
                *for_x = for_x.mul_add(inverse, x * shrink);
            }
            for ((for_gain, &gradient), &x) in for_gain.iter_mut().zip(gradient).zip(x) {
                *for_gain = (gradient * inverse).mul_add(x, *for_gain);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn rms_norm_agrees_with_its_composition_for_any_size() {
        for [rows, width] in [[1, 1], [3, 5], [70, 128], [2, 5000]] {
            let inputs = [numbers(rows * width, 1), numbers(width, 2)];
            let shape = [1, rows, width];
            check(
                |x| {
                    rms_norm(x[0].clone().reshape(shape), x[1].clone(), 1e-6)
                        .reshape([rows * width])
                },
                |x| {
                    plain::rms_norm(x[0].clone().reshape(shape), x[1].clone(), 1e-6)
                        .reshape([rows * width])
                },
                &inputs,
            );
        }
    }

    #[test]
    fn columns_may_be_strided() {
        let view = |x: &Tensor<1>| x.clone().reshape([6, 10]).transpose();
        check(
            |x| rms_norm(view(&x[0]), x[1].clone(), 0.1).reshape([60]),
            |x| plain::rms_norm(view(&x[0]), x[1].clone(), 0.1).reshape([60]),
            &[numbers(60, 1), numbers(6, 2)],
        );
    }

    #[test]
    fn no_rows_give_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        let gain = Tensor::<1>::ones([4], &device).require_grad();
        let output = rms_norm(Tensor::<2>::zeros([0, 4], &device), gain.clone(), 1e-6);
        assert_eq!(output.dims(), [0, 4]);
        assert_eq!(
            gain.grad(&output.sum().backward())
                .unwrap()
                .into_data()
                .try_to_vec::<f32>()
                .unwrap(),
            [0.0; 4]
        );
    }

    #[test]
    fn only_wanted_gradients_are_made() {
        let device = burn::tensor::Device::flex().autodiff();
        let x = Tensor::<2>::ones([2, 3], &device).require_grad();
        let gradients = rms_norm(x.clone(), Tensor::ones([3], &device.clone().inner()), 0.0)
            .sum()
            .backward();
        // x / |x| does not change with the length of x.
        assert!(x.grad(&gradients).unwrap().abs().max().into_scalar::<f32>() < 1e-6);
    }
}
