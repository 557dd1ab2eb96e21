//! Attention among the few slots of each centre.
//!
//! Sequences of some twenty slots with heads of 8 or 16 components make matrices that fit into the first-level cache, so
//! one thread does a whole centre. The backward pass computes the attention weights again instead of storing them.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::dropout::{Dropout, random_bits};
use crate::lanes::{Lanes, dot};
use crate::parallel::{build, build_with};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;
use crate::softmax::{pull_back_row, softmax_row};
use crate::tile::{Left, Right, multiply, padded};

/// Everything but the packed queries, keys and values that [`slot_attention`] needs.
#[derive(Debug, Clone)]
pub struct SlotAttention {
    /// Number of heads; must divide the width.
    pub heads: usize,
    /// Added to the scores of all heads after scaling, `[n, slots, slots]` (query, key); a constant.
    pub bias: Tensor<3>,
    /// Learnt factor of the bias, `[1]`.
    pub bias_scale: Tensor<1>,
    /// 1 where a slot may be attended to, 0 where not, `[n, slots]`; a constant.
    pub key_mask: Tensor<2>,
    /// Dropout of the attention weights.
    pub dropout: Option<Dropout>,
}

/// Multi-head self-attention among the slots of each of `n` centres.
///
/// `qkv [n, slots, 3 * heads * dim]` holds queries, keys and values in this order, each head-major, as one affine map
/// makes them. Per centre and head: `softmax(q k^T / sqrt(dim) + bias_scale * bias + mask) v`, heads concatenated:
/// `[n, slots, heads * dim]`. A query whose centre has no valid key gets zeros.
///
/// # Panics
/// If the shapes do not fit together, or the dropout probability is not in `0.0..1.0`.
pub fn slot_attention(qkv: Tensor<3>, options: SlotAttention) -> Tensor<3> {
    let SlotAttention {
        heads,
        bias,
        bias_scale,
        key_mask,
        dropout,
    } = options;
    let [n, slots, packed] = qkv.dims();
    assert!(
        heads > 0 && packed.is_multiple_of(3 * heads),
        "slot_attention: {packed} columns for {heads} heads"
    );
    assert_eq!(
        bias.dims(),
        [n, slots, slots],
        "slot_attention: shape of the bias"
    );
    assert_eq!(
        bias_scale.dims(),
        [1],
        "slot_attention: shape of the bias scale"
    );
    assert_eq!(
        key_mask.dims(),
        [n, slots],
        "slot_attention: shape of the key mask"
    );
    let dropout = dropout.filter(Dropout::acts);

    let kernel = Attention {
        heads,
        slots,
        dim: packed / 3 / heads,
        dropout,
    };
    let inputs = [
        qkv.into_dispatch(),
        bias.into_dispatch(),
        bias_scale.into_dispatch(),
        key_mask.into_dispatch(),
    ];
    match fused(kernel, inputs) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([qkv, bias, bias_scale, key_mask]) => {
            let bias = Tensor::from_dispatch(bias);
            let bias_scale = Tensor::from_dispatch(bias_scale);
            let key_mask = Tensor::from_dispatch(key_mask);
            plain::slot_attention(
                Tensor::from_dispatch(qkv),
                SlotAttention {
                    heads,
                    bias,
                    bias_scale,
                    key_mask,
                    dropout,
                },
            )
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Attention {
    heads: usize,
    slots: usize,
    dim: usize,
    dropout: Option<Dropout>,
}

/// One of the three parts of the packed input.
#[derive(Debug, Clone, Copy)]
enum Part {
    Query,
    Key,
    Value,
}

impl Attention {
    /// Number of a head's block in the packed input.
    #[inline(always)]
    fn index(&self, part: Part, head: usize) -> usize {
        part as usize * self.heads + head
    }

    /// Elements of one centre in the result.
    fn centre(&self) -> usize {
        self.slots * self.heads * self.dim
    }
}

impl Kernel<4> for Attention {
    type Saved = [FlexTensor; 4];

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 4]) -> (FlexTensor, Self::Saved) {
        let inputs = inputs.map(|input| input.to_contiguous());
        let centres = Centres::<T>::of(&inputs);
        let n = inputs[0].shape()[0];
        let output = build(n * self.centre(), self.centre(), |first, output| {
            let number = first / self.centre();
            attend(*self, number, centres.get(self, number), output);
        });
        (
            tensor(output, [n, self.slots, self.heads * self.dim]),
            inputs,
        )
    }

    fn backward<T: Scalar>(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 4],
    ) -> [Option<FlexTensor>; 4] {
        let gradient = gradient.to_contiguous();
        let given = values::<T>(&gradient);
        let centres = Centres::<T>::of(&saved);
        let n = saved[0].shape()[0];
        let (for_qkv, for_scale) =
            build_with(n * 3 * self.centre(), 3 * self.centre(), |first, output| {
                let number = first / (3 * self.centre());
                let gradient = &given[number * self.centre()..][..self.centre()];
                pull_back(*self, number, centres.get(self, number), gradient, output)
            });
        let for_scale = T::of(for_scale.into_iter().sum());
        let for_qkv = wanted[0].then(|| tensor(for_qkv, saved[0].shape()));
        [
            for_qkv,
            None,
            wanted[2].then(|| tensor(vec![for_scale], [1])),
            None,
        ]
    }
}

/// The inputs of all centres.
struct Centres<'a, T> {
    qkv: &'a [T],
    bias: &'a [T],
    bias_scale: T,
    valid: &'a [T],
}

/// The inputs of one centre.
#[derive(Clone, Copy)]
struct Centre<'a, T> {
    qkv: &'a [T],
    bias: &'a [T],
    bias_scale: T,
    valid: &'a [T],
}

impl<'a, T: Scalar> Centres<'a, T> {
    fn of([qkv, bias, bias_scale, valid]: &'a [FlexTensor; 4]) -> Self {
        Self {
            qkv: values(qkv),
            bias: values(bias),
            bias_scale: values::<T>(bias_scale)[0],
            valid: values(valid),
        }
    }

    fn get(&self, shape: &Attention, number: usize) -> Centre<'a, T> {
        let slots = shape.slots;
        Centre {
            qkv: &self.qkv[number * 3 * shape.centre()..][..3 * shape.centre()],
            bias: &self.bias[number * slots * slots..][..slots * slots],
            bias_scale: self.bias_scale,
            valid: &self.valid[number * slots..][..slots],
        }
    }
}

simd! {
    /// Writes the result of one centre.
    fn attend<T, L>(shape: Attention, number: usize, centre: Centre<'_, T>, output: &mut [T]) {
        let (slots, dim) = (shape.slots, shape.dim);
        let (keys, columns) = (padded(slots), padded(dim));
        let qkv = HeadMajor::of(centre.qkv, slots, 3 * shape.heads, dim);
        let sides = Sides::of(&centre, slots);
        let mut weights = vec![T::ZERO; slots * keys];
        let mut result = vec![T::ZERO; slots * columns];
        for head in 0..shape.heads {
            sides.weights::<L>(&qkv, shape.index(Part::Query, head), shape.index(Part::Key, head), &mut weights);
            if let Some(dropout) = shape.dropout {
                drop_weights(dropout, shape, number, head, &mut weights);
            }
            let left = Left { values: &weights, row: keys, step: 1 };
            multiply::<T, L>(left, qkv.right(shape.index(Part::Value, head)), [slots, slots, columns], &mut result);
            for (slot, result) in result.chunks_exact(columns).enumerate() {
                output[(slot * shape.heads + head) * dim..][..dim].copy_from_slice(&result[..dim]);
            }
        }
    }
}

simd! {
    /// Writes the gradient of the packed input of one centre and returns that of the bias scale.
    fn pull_back<T, L>(shape: Attention, number: usize, centre: Centre<'_, T>, gradient: &[T], output: &mut [T]) -> f64 {
        let (slots, dim) = (shape.slots, shape.dim);
        let (keys, columns) = (padded(slots), padded(dim));
        let scale = T::of(1.0 / (dim as f64).sqrt());
        let qkv = HeadMajor::of(centre.qkv, slots, 3 * shape.heads, dim);
        let gradient = HeadMajor::of(gradient, slots, shape.heads, dim);
        let sides = Sides::of(&centre, slots);
        let mut weights = vec![T::ZERO; slots * keys];
        let mut dropped = vec![T::ZERO; slots * keys];
        let mut for_scores = vec![T::ZERO; slots * keys];
        let mut result = vec![T::ZERO; slots * columns];
        let mut for_scale = 0.0;
        for head in 0..shape.heads {
            let [query, key, value] = [Part::Query, Part::Key, Part::Value].map(|part| shape.index(part, head));
            let mut save = |part: usize, result: &[T], factor: T| {
                for (slot, result) in result.chunks_exact(columns).enumerate() {
                    let target = &mut output[(slot * 3 * shape.heads + part) * dim..][..dim];
                    for (target, &value) in target.iter_mut().zip(result) {
                        *target = factor * value;
                    }
                }
            };

            // Values: the transposed (dropped) weights times the gradient.
            sides.weights::<L>(&qkv, query, key, &mut weights);
            dropped.copy_from_slice(&weights);
            if let Some(dropout) = shape.dropout {
                drop_weights(dropout, shape, number, head, &mut dropped);
            }
            let left = Left { values: &dropped, row: 1, step: keys };
            multiply::<T, L>(left, gradient.right(head), [slots, slots, columns], &mut result);
            save(value, &result, T::ONE);

            // Scores: back through the product with the values, the dropout and the softmax.
            let values = qkv.transposed(value);
            let left = Left { values: gradient.block(head), row: columns, step: 1 };
            multiply::<T, L>(left, Right { values: &values, stride: keys }, [slots, dim, keys], &mut for_scores);
            if let Some(dropout) = shape.dropout {
                drop_weights(dropout, shape, number, head, &mut for_scores);
            }
            for (slot, (weights, for_scores)) in weights.chunks_exact(keys).zip(for_scores.chunks_exact_mut(keys)).enumerate() {
                pull_back_row::<T, L>(weights, for_scores);
                for_scale += dot::<T, L>(for_scores, sides.bias(slot)).wide();
            }

            // Queries and keys.
            let left = Left { values: &for_scores, row: keys, step: 1 };
            multiply::<T, L>(left, qkv.right(key), [slots, slots, columns], &mut result);
            save(query, &result, scale);
            let left = Left { values: &for_scores, row: 1, step: keys };
            multiply::<T, L>(left, qkv.right(query), [slots, slots, columns], &mut result);
            save(key, &result, scale);
        }
        for_scale
    }
}

/// Rows of one centre, `[slots, blocks * dim]`, sorted into `[blocks, slots, dim]` with `dim` padded by zeros.
///
/// Read once from begin to end: a walk head by head would touch each line of the memory alone and wait for it.
struct HeadMajor<T> {
    values: Vec<T>,
    slots: usize,
    dim: usize,
}

impl<T: Scalar> HeadMajor<T> {
    #[inline(always)]
    fn of(rows: &[T], slots: usize, blocks: usize, dim: usize) -> Self {
        let columns = padded(dim);
        let mut values = vec![T::ZERO; blocks * slots * columns];
        if dim > 0 {
            for (slot, row) in rows.chunks_exact(blocks * dim).enumerate() {
                for (block, part) in row.chunks_exact(dim).enumerate() {
                    let target = &mut values[(block * slots + slot) * columns..][..dim];
                    for (target, &value) in target.iter_mut().zip(part) {
                        *target = value;
                    }
                }
            }
        }
        Self { values, slots, dim }
    }

    /// One block, `[slots, padded dim]`.
    #[inline(always)]
    fn block(&self, block: usize) -> &[T] {
        let size = self.slots * padded(self.dim);
        &self.values[block * size..][..size]
    }

    #[inline(always)]
    fn right(&self, block: usize) -> Right<'_, T> {
        Right {
            values: self.block(block),
            stride: padded(self.dim),
        }
    }

    /// One block as `[dim, padded slots]`.
    #[inline(always)]
    fn transposed(&self, block: usize) -> Vec<T> {
        let (keys, columns) = (padded(self.slots), padded(self.dim));
        let block = self.block(block);
        let mut copy = vec![T::ZERO; self.dim * keys];
        for (component, copy) in copy.chunks_exact_mut(keys).enumerate() {
            for (slot, copy) in copy[..self.slots].iter_mut().enumerate() {
                *copy = block[slot * columns + component];
            }
        }
        copy
    }
}

/// What the heads of a centre share, with rows padded for [`multiply`]; padding is not a valid key.
struct Sides<T> {
    bias: Vec<T>,
    bias_scale: T,
    valid: Vec<T>,
}

impl<T: Scalar> Sides<T> {
    #[inline(always)]
    fn of(centre: &Centre<'_, T>, slots: usize) -> Self {
        let keys = padded(slots);
        let mut bias = vec![T::ZERO; slots * keys];
        for (bias, given) in bias
            .chunks_exact_mut(keys)
            .zip(centre.bias.chunks_exact(slots))
        {
            bias[..slots].copy_from_slice(given);
        }
        let mut valid = vec![T::ZERO; keys];
        valid[..slots].copy_from_slice(centre.valid);
        Self {
            bias,
            bias_scale: centre.bias_scale,
            valid,
        }
    }

    /// The padded bias of one query.
    #[inline(always)]
    fn bias(&self, slot: usize) -> &[T] {
        &self.bias[slot * self.valid.len()..][..self.valid.len()]
    }

    /// Writes the attention weights of one head, before dropout.
    #[inline(always)]
    fn weights<L: Lanes<T>>(
        &self,
        qkv: &HeadMajor<T>,
        query: usize,
        key: usize,
        weights: &mut [T],
    ) {
        let keys = self.valid.len();
        let transposed = qkv.transposed(key);
        let left = Left {
            values: qkv.block(query),
            row: padded(qkv.dim),
            step: 1,
        };
        multiply::<T, L>(
            left,
            Right {
                values: &transposed,
                stride: keys,
            },
            [qkv.slots, qkv.dim, keys],
            weights,
        );
        let scale = T::of(1.0 / (qkv.dim as f64).sqrt());
        for (slot, weights) in weights.chunks_exact_mut(keys).enumerate() {
            softmax_row::<T, L>(
                weights,
                scale,
                self.bias(slot),
                self.bias_scale,
                &self.valid,
            );
        }
    }
}

/// Applies the dropout mask of one head of one centre, the one that [`Dropout::mask`] spells out.
#[inline(always)]
fn drop_weights<T: Scalar>(
    dropout: Dropout,
    shape: Attention,
    number: usize,
    head: usize,
    weights: &mut [T],
) {
    let (scale, threshold) = (T::of(dropout.scale()), dropout.threshold());
    let first = (number * shape.heads + head) * shape.slots;
    for (slot, weights) in weights.chunks_exact_mut(padded(shape.slots)).enumerate() {
        let key = dropout.row_key((first + slot) as u64);
        for (column, weight) in weights.iter_mut().enumerate() {
            let kept = random_bits(key, column as u32) >= threshold;
            *weight = if kept { *weight * scale } else { T::ZERO };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, constant, numbers};

    fn check_attention([n, slots, heads, dim]: [usize; 4], dropout: Option<Dropout>) {
        let bias = numbers(n * slots * slots, 3);
        // Centre 1 has no valid key.
        let valid = |at: usize| at / slots != 1 && (at.is_multiple_of(slots) || at % 4 != 3);
        let mask: Vec<f64> = (0..n * slots)
            .map(|at| f64::from(u8::from(valid(at))))
            .collect();
        let apply = |attention: fn(Tensor<3>, SlotAttention) -> Tensor<3>, x: &[Tensor<1>]| {
            let options = SlotAttention {
                heads,
                bias: constant(&bias, [n, slots, slots], &x[0]),
                bias_scale: x[1].clone(),
                key_mask: constant(&mask, [n, slots], &x[0]),
                dropout,
            };
            attention(x[0].clone().reshape([n, slots, 3 * heads * dim]), options)
                .reshape([n * slots * heads * dim])
        };
        let inputs = [numbers(n * slots * 3 * heads * dim, 1), vec![0.7]];
        check(
            |x| apply(slot_attention, x),
            |x| apply(plain::slot_attention, x),
            &inputs,
        );
    }

    #[test]
    fn attention_agrees_with_its_composition_for_any_size() {
        for sizes in [
            [1, 1, 1, 1],
            [3, 5, 2, 3],
            [9, 20, 8, 16],
            [4, 20, 8, 8],
            [2, 33, 1, 20],
        ] {
            check_attention(sizes, None);
        }
    }

    #[test]
    fn dropped_weights_are_the_same_in_both_forms() {
        for sizes in [[3, 5, 2, 3], [9, 20, 8, 16]] {
            check_attention(
                sizes,
                Some(Dropout {
                    probability: 0.3,
                    seed: 11,
                }),
            );
        }
    }

    #[test]
    fn no_centres_give_nothing_and_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        let bias_scale = Tensor::<1>::ones([1], &device).require_grad();
        let options = SlotAttention {
            heads: 2,
            bias: Tensor::zeros([0, 4, 4], &device),
            bias_scale: bias_scale.clone(),
            key_mask: Tensor::zeros([0, 4], &device),
            dropout: None,
        };
        let output = slot_attention(Tensor::zeros([0, 4, 48], &device), options);
        assert_eq!(output.dims(), [0, 4, 16]);
        assert_eq!(
            bias_scale
                .grad(&output.sum().backward())
                .unwrap()
                .into_scalar::<f32>(),
            0.0
        );
    }

    #[test]
    #[should_panic(expected = "shape of the bias")]
    fn a_bias_of_another_shape_is_refused() {
        let device = burn::tensor::Device::flex();
        let options = SlotAttention {
            heads: 1,
            bias: Tensor::zeros([1, 2, 3], &device),
            bias_scale: Tensor::ones([1], &device),
            key_mask: Tensor::ones([1, 2], &device),
            dropout: None,
        };
        slot_attention(Tensor::zeros([1, 2, 3], &device), options);
    }
}
