//! Softmax over keys, plain or with a scaled bias and a key mask.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::lanes::{Lanes, dot, maximum, total};
use crate::parallel::{build, build_with, rows_per_chunk};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// Softmax over the last axis of `scores`: [`masked_softmax`] with all keys valid and without a bias, to the same bits.
pub fn softmax<const D: usize>(scores: Tensor<D>) -> Tensor<D> {
    match fused(Softmax, [scores.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([scores]) => plain::softmax(Tensor::from_dispatch(scores)),
    }
}

/// Softmax over the last axis of `scores + bias_scale * bias`, with masked keys left out.
///
/// `scores [n, heads, queries, keys]`, `bias [n, queries, keys]`, `bias_scale [1]`, `key_mask [n, keys]` (1 valid, 0 not).
/// Masked keys get weight 0; a row without a valid key is all zeros. `scores` and `bias_scale` get gradients,
/// `bias` and `key_mask` are constants.
///
/// # Panics
/// If the shapes do not fit together.
pub fn masked_softmax(
    scores: Tensor<4>,
    bias: Tensor<3>,
    bias_scale: Tensor<1>,
    key_mask: Tensor<2>,
) -> Tensor<4> {
    let [n, _, queries, keys] = scores.dims();
    assert_eq!(
        bias.dims(),
        [n, queries, keys],
        "masked_softmax: shape of the bias"
    );
    assert_eq!(
        bias_scale.dims(),
        [1],
        "masked_softmax: shape of the bias scale"
    );
    assert_eq!(
        key_mask.dims(),
        [n, keys],
        "masked_softmax: shape of the key mask"
    );
    let inputs = [
        scores.into_dispatch(),
        bias.into_dispatch(),
        bias_scale.into_dispatch(),
        key_mask.into_dispatch(),
    ];
    match fused(MaskedSoftmax, inputs) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([scores, bias, bias_scale, key_mask]) => plain::masked_softmax(
            Tensor::from_dispatch(scores),
            Tensor::from_dispatch(bias),
            Tensor::from_dispatch(bias_scale),
            Tensor::from_dispatch(key_mask),
        ),
    }
}

#[derive(Debug)]
struct Softmax;

impl Kernel<1> for Softmax {
    /// The weights.
    type Saved = FlexTensor;

    fn forward<T: Scalar>(&self, [scores]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let scores = scores.to_contiguous();
        let (given, keys) = (values::<T>(&scores), keys(&scores));
        let weights = build(given.len(), rows_per_chunk(keys) * keys, |first, output| {
            plain_rows(keys, &given[first..][..output.len()], output);
        });
        let weights = tensor(weights, scores.shape());
        (weights.clone(), weights)
    }

    fn backward<T: Scalar>(
        &self,
        weights: FlexTensor,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let gradient = gradient.to_contiguous();
        let (numbers, given, keys) = (
            values::<T>(&weights),
            values::<T>(&gradient),
            keys(&weights),
        );
        let for_scores = build(
            numbers.len(),
            rows_per_chunk(keys) * keys,
            |first, output| {
                let range = first..first + output.len();
                pull_back_plain_rows(keys, &numbers[range.clone()], &given[range], output);
            },
        );
        [Some(tensor(for_scores, weights.shape()))]
    }
}

/// Length of the last axis.
fn keys(scores: &FlexTensor) -> usize {
    scores.shape().last().copied().unwrap_or(1)
}

#[derive(Debug)]
struct MaskedSoftmax;

#[derive(Debug, Clone)]
struct Saved {
    weights: FlexTensor,
    bias: FlexTensor,
    bias_scale: FlexTensor,
}

/// Sizes that lead from the number of a row of scores to its rows of bias and mask.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    heads: usize,
    queries: usize,
    keys: usize,
}

impl Sizes {
    fn of(scores: &FlexTensor) -> Self {
        let shape = scores.shape();
        Self {
            heads: shape[1],
            queries: shape[2],
            keys: shape[3],
        }
    }

    fn chunk(self) -> usize {
        rows_per_chunk(self.keys) * self.keys
    }

    #[inline(always)]
    fn centre(self, row: usize) -> usize {
        row / (self.heads * self.queries)
    }

    /// First element of the bias of a row of scores.
    #[inline(always)]
    fn bias(self, row: usize) -> usize {
        (self.centre(row) * self.queries + row % self.queries) * self.keys
    }
}

impl Kernel<4> for MaskedSoftmax {
    type Saved = Saved;

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 4]) -> (FlexTensor, Saved) {
        let [scores, bias, bias_scale, key_mask] = inputs.map(|input| input.to_contiguous());
        let sizes = Sizes::of(&scores);
        let given = values::<T>(&scores);
        let weights = build(given.len(), sizes.chunk(), |first, output| {
            output.copy_from_slice(&given[first..][..output.len()]);
            softmax_rows(
                sizes,
                first,
                values(&bias),
                values::<T>(&bias_scale)[0],
                values(&key_mask),
                output,
            );
        });
        let weights = tensor(weights, scores.shape());
        (
            weights.clone(),
            Saved {
                weights,
                bias,
                bias_scale,
            },
        )
    }

    fn backward<T: Scalar>(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        wanted: [bool; 4],
    ) -> [Option<FlexTensor>; 4] {
        let gradient = gradient.to_contiguous();
        let sizes = Sizes::of(&saved.weights);
        let (weights, given) = (values::<T>(&saved.weights), values::<T>(&gradient));
        let (for_scores, for_scale) = build_with(weights.len(), sizes.chunk(), |first, output| {
            let range = first..first + output.len();
            pull_back_rows(
                sizes,
                first,
                &weights[range.clone()],
                &given[range],
                values(&saved.bias),
                output,
            )
        });
        let for_scale = T::of(for_scale.into_iter().sum());
        let for_scores = wanted[0].then(|| tensor(for_scores, saved.weights.shape()));
        [
            for_scores,
            None,
            wanted[2].then(|| tensor(vec![for_scale], saved.bias_scale.shape())),
            None,
        ]
    }
}

simd! {
    /// Writes the weights of scores, row by row.
    fn plain_rows<T, L>(keys: usize, scores: &[T], weights: &mut [T]) {
        for (scores, weights) in scores.chunks_exact(keys).zip(weights.chunks_exact_mut(keys)) {
            let highest = maximum::<T, L>(scores);
            for (weight, &score) in weights.iter_mut().zip(scores) {
                *weight = (score - highest).exp();
            }
            to_unit_sum::<T, L>(weights);
        }
    }
}

simd! {
    /// Writes the gradient of scores from that of their weights, row by row: as [`pull_back_row`], not in place.
    fn pull_back_plain_rows<T, L>(keys: usize, weights: &[T], gradient: &[T], output: &mut [T]) {
        let rows = weights.chunks_exact(keys).zip(gradient.chunks_exact(keys));
        for ((weights, gradient), output) in rows.zip(output.chunks_exact_mut(keys)) {
            let mean = dot::<T, L>(weights, gradient);
            for ((output, &gradient), &weight) in output.iter_mut().zip(gradient).zip(weights) {
                *output = weight * (gradient - mean);
            }
        }
    }
}

simd! {
    /// Turns scores into weights, row by row; `first` is the number of their first element.
    fn softmax_rows<T, L>(sizes: Sizes, first: usize, bias: &[T], bias_scale: T, valid: &[T], scores: &mut [T]) {
        for (row, scores) in scores.chunks_exact_mut(sizes.keys).enumerate() {
            let row = first / sizes.keys + row;
            let valid = &valid[sizes.centre(row) * sizes.keys..][..sizes.keys];
            softmax_row::<T, L>(scores, T::ONE, &bias[sizes.bias(row)..][..sizes.keys], bias_scale, valid);
        }
    }
}

simd! {
    /// Writes the gradient of the scores and returns that of the bias scale.
    fn pull_back_rows<T, L>(sizes: Sizes, first: usize, weights: &[T], gradient: &[T], bias: &[T], output: &mut [T]) -> f64 {
        let mut for_scale = 0.0;
        let rows = weights.chunks_exact(sizes.keys).zip(gradient.chunks_exact(sizes.keys));
        for (row, ((weights, gradient), output)) in rows.zip(output.chunks_exact_mut(sizes.keys)).enumerate() {
            let bias = &bias[sizes.bias(first / sizes.keys + row)..][..sizes.keys];
            output.copy_from_slice(gradient);
            pull_back_row::<T, L>(weights, output);
            for_scale += dot::<T, L>(output, bias).wide();
        }
        for_scale
    }
}

/// `scores <- softmax(scale * scores + bias_scale * bias)` over valid keys, 0 elsewhere. All slices have one length.
#[inline(always)]
pub(crate) fn softmax_row<T: Scalar, L: Lanes<T>>(
    scores: &mut [T],
    scale: T,
    bias: &[T],
    bias_scale: T,
    valid: &[T],
) {
    for ((score, &bias), &valid) in scores.iter_mut().zip(bias).zip(valid) {
        let biased = scale.mul_add(*score, bias_scale * bias);
        *score = if valid == T::ZERO { T::LOWEST } else { biased };
    }
    let highest = maximum::<T, L>(scores);
    for (score, &valid) in scores.iter_mut().zip(valid) {
        let weight = (*score - highest).exp();
        *score = if valid == T::ZERO { T::ZERO } else { weight };
    }
    to_unit_sum::<T, L>(scores);
}

/// Divides by the sum, where there is one.
#[inline(always)]
fn to_unit_sum<T: Scalar, L: Lanes<T>>(weights: &mut [T]) {
    let total = total::<T, L>(weights);
    let inverse = if total == T::ZERO {
        T::ZERO
    } else {
        T::ONE / total
    };
    for weight in weights.iter_mut() {
        *weight *= inverse;
    }
}

/// `gradient <- weights * (gradient - sum(weights * gradient))`, the gradient of the scores.
#[inline(always)]
pub(crate) fn pull_back_row<T: Scalar, L: Lanes<T>>(weights: &[T], gradient: &mut [T]) {
    let mean = dot::<T, L>(weights, gradient);
    for (gradient, &weight) in gradient.iter_mut().zip(weights) {
        *gradient = weight * (*gradient - mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, constant, numbers};

    /// All keys valid in centre 0, none in centre 1, every third not in the others.
    fn mask(n: usize, keys: usize) -> Vec<f64> {
        let valid = |at: usize| at / keys != 1 && (at / keys == 0 || !at.is_multiple_of(3));
        (0..n * keys)
            .map(|at| f64::from(u8::from(valid(at))))
            .collect()
    }

    #[test]
    fn softmax_agrees_with_its_composition_for_any_size() {
        for [n, heads, queries, keys] in [[1, 1, 1, 1], [3, 2, 5, 7], [4, 1, 3, 20], [2, 3, 40, 67]]
        {
            let (bias, mask) = (numbers(n * queries * keys, 3), mask(n, keys));
            let elements = n * heads * queries * keys;
            let apply = |softmax: fn(Tensor<4>, Tensor<3>, Tensor<1>, Tensor<2>) -> Tensor<4>,
                         x: &[Tensor<1>]| {
                let bias = constant(&bias, [n, queries, keys], &x[0]);
                let scores = x[0].clone().reshape([n, heads, queries, keys]);
                softmax(
                    scores,
                    bias,
                    x[1].clone(),
                    constant(&mask, [n, keys], &x[0]),
                )
                .reshape([elements])
            };
            let inputs = [numbers(elements, 1), vec![0.7]];
            check(
                |x| apply(masked_softmax, x),
                |x| apply(plain::masked_softmax, x),
                &inputs,
            );
        }
    }

    #[test]
    fn plain_softmax_agrees_with_its_composition_for_any_size() {
        for [rows, keys] in [[1, 1], [1, 9], [5, 7], [130, 67], [3, 4099]] {
            let apply = |softmax: fn(Tensor<2>) -> Tensor<2>, x: &[Tensor<1>]| {
                softmax(x[0].clone().reshape([rows, keys])).reshape([rows * keys])
            };
            check(
                |x| apply(softmax, x),
                |x| apply(plain::softmax, x),
                &[numbers(rows * keys, 1)],
            );
        }
    }

    #[test]
    fn plain_softmax_has_the_bits_of_the_masked_one_without_mask_and_bias() {
        let device = burn::tensor::Device::flex();
        let scores = Tensor::<1>::from_floats(numbers(2 * 3 * 5 * 19, 4).as_slice(), &device)
            .reshape([2, 3, 5, 19])
            * 20.0;
        let [bias, valid] = [
            Tensor::<3>::zeros([2, 5, 19], &device),
            Tensor::ones([2, 1, 19], &device),
        ];
        let masked = masked_softmax(
            scores.clone(),
            bias,
            Tensor::ones([1], &device),
            valid.squeeze_dim(1),
        );
        let plain = softmax(scores);
        assert_eq!(
            plain.into_data().try_to_vec::<f32>().unwrap(),
            masked.into_data().try_to_vec::<f32>().unwrap()
        );
    }

    #[test]
    fn no_centres_give_no_weights_and_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        let bias_scale = Tensor::<1>::ones([1], &device).require_grad();
        let [bias, mask] = [[0, 3, 4], [0, 1, 4]].map(|shape| Tensor::<3>::zeros(shape, &device));
        let weights = masked_softmax(
            Tensor::zeros([0, 2, 3, 4], &device),
            bias,
            bias_scale.clone(),
            mask.squeeze_dim(1),
        );
        assert_eq!(weights.dims(), [0, 2, 3, 4]);
        let gradients = weights.sum().backward();
        assert_eq!(
            bias_scale.grad(&gradients).unwrap().into_scalar::<f32>(),
            0.0
        );
        for shape in [[0, 4], [4, 0]] {
            let scores = Tensor::<2>::zeros(shape, &device).require_grad();
            let gradients = softmax(scores.clone()).sum().backward();
            assert_eq!(scores.grad(&gradients).unwrap().dims(), shape);
        }
    }

    #[test]
    fn a_row_without_valid_key_is_zero_and_others_sum_to_one() {
        let device = burn::tensor::Device::flex();
        let scores = Tensor::<4>::full([2, 1, 1, 3], 1e4, &device);
        let mask = Tensor::<2>::from_floats([[0.0, 0.0, 0.0], [0.0, 1.0, 1.0]], &device);
        let weights = masked_softmax(
            scores,
            Tensor::zeros([2, 1, 3], &device),
            Tensor::ones([1], &device),
            mask,
        );
        assert_eq!(
            weights.into_data().try_to_vec::<f32>().unwrap(),
            [0.0, 0.0, 0.0, 0.0, 0.5, 0.5]
        );
    }
}
