//! Attention among some hundred tokens with a bias for every pair of them.
//!
//! Tasks take blocks of queries of one head, so that scores stay in the cache until they are weights. The weights are kept
//! for the backward pass, which goes over blocks of queries (scores, bias and queries) and then of keys (keys and values):
//! every row is written by one task, whatever the number of threads.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::parallel::{RowSink, build, collect_rows};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;
use crate::softmax::{pull_back_row, softmax_row};
use crate::tile::{Left, Right, multiply, padded};

/// Queries, or keys, that one task takes: 32 rows of 260 scores are 33 KiB of `f32`.
const BLOCK: usize = 32;

/// `softmax( q k^T / sqrt(dim) + bias ) v` over the valid keys, for each item of a batch and each head.
///
/// `q`, `k`, `v` and the result are `[batch, heads, n, dim]`; `bias [batch, n, n, heads]` (query, key, head) is added
/// after scaling; `key_mask [batch, n]`, a constant, is 1 for valid keys and 0 for others, which get weight 0. Without it
/// all keys are valid; a query without any gets zeros. Gradients of `q`, `k`, `v` and `bias`.
///
/// Inputs may be views: rows of `dim` components are read where they lie, so that `x.reshape([batch, n, heads, dim])
/// .swap_dims(1, 2)` costs no copy, and neither does undoing it on the result. Between forward and backward pass the
/// weights are kept, `[batch, heads, n, n]`.
///
/// # Panics
/// If the shapes do not fit together, or `dim` is 0.
pub fn pair_biased_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    key_mask: Option<Tensor<2>>,
) -> Tensor<4> {
    let [batch, heads, n, dim] = q.dims();
    assert!(dim > 0, "pair_biased_attention: heads need components");
    assert_eq!(
        k.dims(),
        q.dims(),
        "pair_biased_attention: shape of the keys"
    );
    assert_eq!(
        v.dims(),
        q.dims(),
        "pair_biased_attention: shape of the values"
    );
    assert_eq!(
        bias.dims(),
        [batch, n, n, heads],
        "pair_biased_attention: shape of the bias"
    );
    let masked = key_mask.is_some();
    let mask =
        key_mask.unwrap_or_else(|| Tensor::ones([batch, n], (&q.device().inner(), q.dtype())));
    assert_eq!(
        mask.dims(),
        [batch, n],
        "pair_biased_attention: shape of the key mask"
    );
    let sizes = Sizes {
        batch,
        heads,
        n,
        dim,
    };
    let inputs = [
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        bias.into_dispatch(),
        mask.into_dispatch(),
    ];
    match fused(sizes, inputs) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([q, k, v, bias, mask]) => {
            let [q, k, v, bias] = [q, k, v, bias].map(Tensor::from_dispatch);
            plain::pair_biased_attention(q, k, v, bias, masked.then(|| Tensor::from_dispatch(mask)))
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    batch: usize,
    heads: usize,
    n: usize,
    dim: usize,
}

#[derive(Debug, Clone)]
struct Saved {
    /// Queries, keys and values.
    qkv: [FlexTensor; 3],
    /// `[batch, heads, n, n]`
    weights: FlexTensor,
}

impl Kernel<5> for Sizes {
    type Saved = Saved;

    fn forward<T: Scalar>(&self, [q, k, v, bias, mask]: [FlexTensor; 5]) -> (FlexTensor, Saved) {
        let qkv = [q, k, v].map(readable);
        let [q, k, v] = qkv.each_ref().map(HeadRows::<T>::of);
        let (keys, values_padded) = (k.transposed(*self), v.padded(*self));
        let (bias, mask) = (bias.to_contiguous(), mask.to_contiguous());
        let mask = values::<T>(&mask);
        let mut weights = self.heads_first(values::<T>(&bias));
        let attend_all = |sink: RowSink<T>| {
            query_blocks(*self, &mut weights).for_each_init(
                || Scratch::new(*self),
                |scratch, (block, weights)| {
                    let inputs = Inputs {
                        queries: q.left(*self, block),
                        keys: self.of_head(&keys, block.head),
                        values: self.of_head(&values_padded, block.head),
                        valid: &mask[block.head / self.heads * self.n..][..self.n],
                    };
                    attend(*self, inputs, weights, scratch);
                    // SAFETY: the rows of a block belong to its task.
                    unsafe { self.write(sink, block, &scratch.rows) };
                },
            );
        };
        // SAFETY: blocks of queries cover every row of the result once.
        let output = unsafe { collect_rows(self.rows(), self.dim, attend_all) };
        let weights = tensor(weights, [self.batch, self.heads, self.n, self.n]);
        (self.tensor(output), Saved { qkv, weights })
    }

    fn backward<T: Scalar>(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        wanted: [bool; 5],
    ) -> [Option<FlexTensor>; 5] {
        let gradient = readable(gradient);
        let gradient = HeadRows::<T>::of(&gradient);
        let [q, k, v] = saved.qkv.each_ref().map(HeadRows::<T>::of);
        let weights = values::<T>(&saved.weights);
        let (for_scores, for_q) = self.through_queries(weights, gradient, k, v);
        let [for_k, for_v] = self.through_keys([weights, &for_scores], gradient, q);
        let for_bias = wanted[3].then(|| {
            tensor(
                self.heads_last(&for_scores),
                [self.batch, self.n, self.n, self.heads],
            )
        });
        let [for_q, for_k, for_v] = [for_q, for_k, for_v].map(|rows| Some(self.tensor(rows)));
        [for_q, for_k, for_v, for_bias, None]
    }
}

/// Consecutive rows of one head: queries of the forward pass, say.
#[derive(Debug, Clone, Copy)]
struct Block {
    /// Counted through all items of the batch.
    head: usize,
    first: usize,
    rows: usize,
}

/// What a block of queries reads, all of one head.
#[derive(Debug, Clone, Copy)]
struct Inputs<'a, T> {
    queries: Left<'a, T>,
    /// `[dim, padded n]`
    keys: &'a [T],
    /// `[n, padded dim]`
    values: &'a [T],
    /// `[n]`
    valid: &'a [T],
}

impl Sizes {
    /// Rows of `dim` components in all heads together.
    fn rows(self) -> usize {
        self.batch * self.heads * self.n
    }

    fn scale<T: Scalar>(self) -> T {
        T::of(1.0 / (self.dim as f64).sqrt())
    }

    /// All blocks of all heads.
    fn blocks(self) -> impl ParallelIterator<Item = Block> {
        let of_head = self.n.div_ceil(BLOCK);
        (0..self.batch * self.heads * of_head)
            .into_par_iter()
            .map(move |number| {
                let first = number % of_head * BLOCK;
                Block {
                    head: number / of_head,
                    first,
                    rows: BLOCK.min(self.n - first),
                }
            })
    }

    /// The part of one head of what all heads have the same amount of.
    #[inline(always)]
    fn of_head<T>(self, all: &[T], head: usize) -> &[T] {
        let size = all.len() / (self.batch * self.heads);
        &all[head * size..][..size]
    }

    /// Rows that [`Self::write`] has written, `[batch, n, heads, dim]`, seen as `[batch, heads, n, dim]`.
    fn tensor<T: Scalar>(self, rows: Vec<T>) -> FlexTensor {
        tensor(rows, [self.batch, self.n, self.heads, self.dim]).transpose(1, 2)
    }

    /// Writes the first `rows`, of `padded(dim)` elements each, into the places of the block in `[batch, n, heads, dim]`.
    ///
    /// # Safety
    /// No other task writes the rows of this block.
    unsafe fn write<T: Scalar>(self, sink: RowSink<T>, block: Block, rows: &[T]) {
        let (item, head) = (block.head / self.heads, block.head % self.heads);
        for (row, values) in
            (block.first..block.first + block.rows).zip(rows.chunks_exact(padded(self.dim)))
        {
            // SAFETY: promised by the caller.
            unsafe {
                sink.write(
                    (item * self.n + row) * self.heads + head,
                    0,
                    &values[..self.dim],
                )
            };
        }
    }

    /// `[batch, n, n, heads]` as `[batch, heads, n, n]`.
    fn heads_first<T: Scalar>(self, bias: &[T]) -> Vec<T> {
        let (n, heads) = (self.n, self.heads);
        let sort = |sink: RowSink<T>| {
            bias.par_chunks((n * heads).max(1))
                .enumerate()
                .for_each_init(
                    || vec![T::ZERO; n],
                    |row, (query, bias)| {
                        for head in 0..heads {
                            for (row, bias) in row.iter_mut().zip(bias.chunks_exact(heads)) {
                                *row = bias[head];
                            }
                            // SAFETY: each query of a batch item has these rows for itself.
                            unsafe {
                                sink.write((query / n * heads + head) * n + query % n, 0, row)
                            };
                        }
                    },
                );
        };
        // SAFETY: all queries and all heads are gone through.
        unsafe { collect_rows(self.rows(), n, sort) }
    }

    /// `[batch, heads, n, n]` as `[batch, n, n, heads]`.
    fn heads_last<T: Scalar>(self, scores: &[T]) -> Vec<T> {
        let (n, heads) = (self.n, self.heads);
        build(scores.len(), n * heads, |first, output| {
            let query = first / (n * heads);
            let row = |head| &scores[((query / n * heads + head) * n + query % n) * n..][..n];
            for head in 0..heads {
                for (output, &value) in output.chunks_exact_mut(heads).zip(row(head)) {
                    output[head] = value;
                }
            }
        })
    }

    /// Gradients of the scores `[batch, heads, n, n]`, and of the queries.
    fn through_queries<T: Scalar>(
        self,
        weights: &[T],
        gradient: HeadRows<'_, T>,
        k: HeadRows<'_, T>,
        v: HeadRows<'_, T>,
    ) -> (Vec<T>, Vec<T>) {
        let (keys, values_transposed) = (k.padded(self), v.transposed(self));
        let pull_back = |scores: RowSink<T>, queries: RowSink<T>| {
            let of_block = |scratch: &mut Scratch<T>, block: Block| {
                let inputs = QueryInputs {
                    gradient: gradient.left(self, block),
                    weights: &self.of_head(weights, block.head)[block.first * self.n..]
                        [..block.rows * self.n],
                    keys: self.of_head(&keys, block.head),
                    values: self.of_head(&values_transposed, block.head),
                };
                pull_back_queries(self, inputs, scratch);
                let first = block.head * self.n + block.first;
                for (row, scores_of_row) in
                    (first..first + block.rows).zip(scratch.scores.chunks_exact(padded(self.n)))
                {
                    // SAFETY: the rows of a block belong to its task.
                    unsafe { scores.write(row, 0, &scores_of_row[..self.n]) };
                }
                // SAFETY: as above.
                unsafe { self.write(queries, block, &scratch.rows) };
            };
            self.blocks().for_each_init(|| Scratch::new(self), of_block);
        };
        let mut for_queries = Vec::new();
        // SAFETY: blocks of queries cover every row of both once.
        let for_scores = unsafe {
            collect_rows(self.rows(), self.n, |scores| {
                for_queries =
                    collect_rows(self.rows(), self.dim, |queries| pull_back(scores, queries));
            })
        };
        (for_scores, for_queries)
    }

    /// Gradients of the keys and the values, from weights and the gradient of the scores.
    fn through_keys<T: Scalar>(
        self,
        scores: [&[T]; 2],
        gradient: HeadRows<'_, T>,
        q: HeadRows<'_, T>,
    ) -> [Vec<T>; 2] {
        let [weights, for_scores] = scores;
        let for_keys = self.weighted_sums(for_scores, &q.padded(self), self.scale());
        let for_values = self.weighted_sums(weights, &gradient.padded(self), T::ONE);
        [for_keys, for_values]
    }

    /// For every key `factor * sum over queries of scores[query, key] * rows[query]`.
    fn weighted_sums<T: Scalar>(self, scores: &[T], rows: &[T], factor: T) -> Vec<T> {
        let work = |sink: RowSink<T>| {
            let of_block = |scratch: &mut Scratch<T>, block: Block| {
                let scores = &self.of_head(scores, block.head)[block.first..];
                weighted_rows(
                    self,
                    block.rows,
                    scores,
                    self.of_head(rows, block.head),
                    factor,
                    scratch,
                );
                // SAFETY: the rows of a block belong to its task.
                unsafe { self.write(sink, block, &scratch.rows) };
            };
            self.blocks().for_each_init(|| Scratch::new(self), of_block);
        };
        // SAFETY: blocks of keys cover every row once.
        unsafe { collect_rows(self.rows(), self.dim, work) }
    }
}

/// Memory that a task uses again for block after block; what it holds before a block does not matter.
struct Scratch<T> {
    /// Scores of a block of queries `[BLOCK, padded n]`, or of keys `[n, BLOCK]`.
    scores: Vec<T>,
    /// `[BLOCK, padded dim]`
    rows: Vec<T>,
}

impl<T: Scalar> Scratch<T> {
    fn new(sizes: Sizes) -> Self {
        Self {
            scores: vec![T::ZERO; BLOCK * padded(sizes.n)],
            rows: vec![T::ZERO; BLOCK * padded(sizes.dim)],
        }
    }
}

/// All blocks of queries with their rows of a `[batch, heads, n, n]` matrix.
fn query_blocks<T: Scalar>(
    sizes: Sizes,
    matrix: &mut [T],
) -> impl ParallelIterator<Item = (Block, &mut [T])> {
    let n = sizes.n;
    matrix
        .par_chunks_mut((n * n).max(1))
        .enumerate()
        .flat_map(move |(head, matrix)| {
            let blocks = matrix.par_chunks_mut(BLOCK * n).enumerate();
            blocks.map(move |(number, rows)| {
                (
                    Block {
                        head,
                        first: number * BLOCK,
                        rows: rows.len() / n,
                    },
                    rows,
                )
            })
        })
}

/// The tensor, or a copy of it, with the components of a row side by side.
fn readable(x: FlexTensor) -> FlexTensor {
    let strides = x.layout().strides();
    if strides[3] == 1 && strides.iter().all(|&stride| stride >= 0) {
        x
    } else {
        x.to_contiguous()
    }
}

/// Rows of `dim` components, `[batch, heads, n]` of them, wherever they lie.
#[derive(Debug, Clone, Copy)]
struct HeadRows<'a, T> {
    values: &'a [T],
    /// Distances between batch items, heads and rows.
    strides: [usize; 3],
}

impl<'a, T: Scalar> HeadRows<'a, T> {
    /// Of a [`readable`] tensor.
    fn of(x: &'a FlexTensor) -> Self {
        let strides = x.layout().strides();
        let strides = [0, 1, 2].map(|axis| {
            usize::try_from(strides[axis]).expect("readable tensors have no negative stride")
        });
        let values = if x.shape().num_elements() == 0 {
            &[]
        } else {
            &x.storage::<T>()[x.layout().start_offset()..]
        };
        Self { values, strides }
    }

    /// The rows of one block and all that follow, as a left factor.
    fn left(&self, sizes: Sizes, block: Block) -> Left<'a, T> {
        let begin = self.begin(sizes, block.head) + block.first * self.strides[2];
        Left {
            values: &self.values[begin..],
            row: self.strides[2],
            step: 1,
        }
    }

    fn begin(&self, sizes: Sizes, head: usize) -> usize {
        head / sizes.heads * self.strides[0] + head % sizes.heads * self.strides[1]
    }

    fn row(&self, sizes: Sizes, head: usize, row: usize) -> &'a [T] {
        &self.values[self.begin(sizes, head) + row * self.strides[2]..][..sizes.dim]
    }

    /// Copies side by side, `[batch * heads, n, padded dim]`.
    fn padded(&self, sizes: Sizes) -> Vec<T> {
        let width = padded(sizes.dim);
        let of_head = sizes.n * width;
        build(
            sizes.batch * sizes.heads * of_head,
            of_head,
            |first, copy| {
                for (row, copy) in copy.chunks_exact_mut(width).enumerate() {
                    copy[..sizes.dim].copy_from_slice(self.row(sizes, first / of_head, row));
                }
            },
        )
    }

    /// Copies of columns as rows, `[batch * heads, dim, padded n]`.
    fn transposed(&self, sizes: Sizes) -> Vec<T> {
        let width = padded(sizes.n);
        let of_head = sizes.dim * width;
        build(
            sizes.batch * sizes.heads * of_head,
            of_head,
            |first, copy| {
                for row in 0..sizes.n {
                    for (component, &value) in
                        self.row(sizes, first / of_head, row).iter().enumerate()
                    {
                        copy[component * width + row] = value;
                    }
                }
            },
        )
    }
}

simd! {
    /// Turns the biases of a block of queries into their weights, and leaves the weighted values in the rows of the scratch.
    fn attend<T, L>(sizes: Sizes, inputs: Inputs<'_, T>, weights: &mut [T], scratch: &mut Scratch<T>) {
        let (n, width, columns) = (sizes.n, padded(sizes.n), padded(sizes.dim));
        let rows = weights.len() / n;
        let keys = Right { values: inputs.keys, stride: width };
        multiply::<T, L>(inputs.queries, keys, [rows, sizes.dim, width], &mut scratch.scores);
        for (scores, weights) in scratch.scores.chunks_exact_mut(width).zip(weights.chunks_exact_mut(n)) {
            let scores = &mut scores[..n];
            softmax_row::<T, L>(scores, sizes.scale(), weights, T::ONE, inputs.valid);
            weights.copy_from_slice(scores);
        }
        let left = Left { values: &scratch.scores, row: width, step: 1 };
        multiply::<T, L>(left, Right { values: inputs.values, stride: columns }, [rows, n, columns], &mut scratch.rows);
    }
}

/// What a block of queries reads in the backward pass, all of one head.
#[derive(Debug, Clone, Copy)]
struct QueryInputs<'a, T> {
    gradient: Left<'a, T>,
    /// `[queries, n]`
    weights: &'a [T],
    /// `[n, padded dim]`
    keys: &'a [T],
    /// `[dim, padded n]`
    values: &'a [T],
}

simd! {
    /// Leaves the gradients of the scores of a block of queries in the scratch, and those of the queries in its rows.
    fn pull_back_queries<T, L>(sizes: Sizes, inputs: QueryInputs<'_, T>, scratch: &mut Scratch<T>) {
        let (n, width, columns) = (sizes.n, padded(sizes.n), padded(sizes.dim));
        let rows = inputs.weights.len() / n;
        let values = Right { values: inputs.values, stride: width };
        multiply::<T, L>(inputs.gradient, values, [rows, sizes.dim, width], &mut scratch.scores);
        for (scores, weights) in scratch.scores.chunks_exact_mut(width).zip(inputs.weights.chunks_exact(n)) {
            pull_back_row::<T, L>(weights, &mut scores[..n]);
        }
        let left = Left { values: &scratch.scores, row: width, step: 1 };
        multiply::<T, L>(left, Right { values: inputs.keys, stride: columns }, [rows, n, columns], &mut scratch.rows);
        for value in &mut scratch.rows {
            *value *= sizes.scale();
        }
    }
}

simd! {
    /// Leaves `factor * sum over queries of scores[query, key] * rows[query]` in the rows of the scratch, for a block of keys
    /// of which `scores` begins with the first.
    fn weighted_rows<T, L>(sizes: Sizes, keys: usize, scores: &[T], rows: &[T], factor: T, scratch: &mut Scratch<T>) {
        let columns = padded(sizes.dim);
        // Side by side: the product would walk down the columns one cache line after the other.
        for (copy, scores) in scratch.scores.chunks_exact_mut(keys).zip(scores.chunks(sizes.n)) {
            copy.copy_from_slice(&scores[..keys]);
        }
        let left = Left { values: &scratch.scores, row: 1, step: keys };
        multiply::<T, L>(left, Right { values: rows, stride: columns }, [keys, sizes.n, columns], &mut scratch.rows);
        for value in &mut scratch.rows {
            *value *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, constant, numbers};

    type Attention = fn(Tensor<4>, Tensor<4>, Tensor<4>, Tensor<4>, Option<Tensor<2>>) -> Tensor<4>;

    /// All keys valid in item 0, none in item 1, every third not in the others.
    fn mask(batch: usize, n: usize) -> Vec<f64> {
        let valid = |at: usize| at / n != 1 && (at / n == 0 || !at.is_multiple_of(3));
        (0..batch * n)
            .map(|at| f64::from(u8::from(valid(at))))
            .collect()
    }

    fn check_attention([batch, heads, n, dim]: [usize; 4], masked: bool) {
        let elements = batch * heads * n * dim;
        let apply = |attention: Attention, x: &[Tensor<1>]| {
            let [q, k, v] =
                [0, 1, 2].map(|number: usize| x[number].clone().reshape([batch, heads, n, dim]));
            let key_mask = masked.then(|| constant(&mask(batch, n), [batch, n], &x[0]));
            attention(
                q,
                k,
                v,
                x[3].clone().reshape([batch, n, n, heads]),
                key_mask,
            )
            .reshape([elements])
        };
        let inputs = [
            numbers(elements, 1),
            numbers(elements, 2),
            numbers(elements, 3),
            numbers(batch * n * n * heads, 4),
        ];
        check(
            |x| apply(pair_biased_attention, x),
            |x| apply(plain::pair_biased_attention, x),
            &inputs,
        );
    }

    #[test]
    fn attention_agrees_with_its_composition_for_any_size() {
        for sizes in [[1, 1, 1, 1], [3, 2, 5, 3], [3, 2, 33, 16], [1, 3, 67, 20]] {
            check_attention(sizes, true);
            check_attention(sizes, false);
        }
    }

    #[test]
    fn views_of_packed_rows_are_read_where_they_lie() {
        let [batch, n, heads, dim] = [2, 9, 3, 8];
        let apply = |attention: Attention, x: &[Tensor<1>]| {
            let packed = x[0].clone().reshape([batch * n, 3 * heads * dim]);
            let part = |number: usize| packed.clone().narrow(1, number * heads * dim, heads * dim);
            let part = |number| part(number).reshape([batch, n, heads, dim]).swap_dims(1, 2);
            let bias = x[1].clone().reshape([batch, n, heads, n]).swap_dims(2, 3);
            attention(part(0), part(1), part(2), bias, None)
                .swap_dims(1, 2)
                .reshape([batch * n * heads * dim])
        };
        let inputs = [
            numbers(batch * n * 3 * heads * dim, 1),
            numbers(batch * n * n * heads, 2),
        ];
        check(
            |x| apply(pair_biased_attention, x),
            |x| apply(plain::pair_biased_attention, x),
            &inputs,
        );
    }

    #[test]
    fn rows_may_lie_along_columns() {
        let [batch, heads, n, dim] = [2, 2, 6, 4];
        let apply = |attention: Attention, x: &[Tensor<1>]| {
            let [q, k, v] = [0, 1, 2].map(|number: usize| {
                x[number]
                    .clone()
                    .reshape([batch, heads, dim, n])
                    .swap_dims(2, 3)
            });
            attention(q, k, v, x[3].clone().reshape([batch, n, n, heads]), None)
                .swap_dims(2, 3)
                .reshape([batch * heads * n * dim])
        };
        let elements = batch * heads * n * dim;
        let inputs = [
            numbers(elements, 1),
            numbers(elements, 2),
            numbers(elements, 3),
            numbers(batch * n * n * heads, 4),
        ];
        check(
            |x| apply(pair_biased_attention, x),
            |x| apply(plain::pair_biased_attention, x),
            &inputs,
        );
    }

    #[test]
    fn no_tokens_give_nothing_and_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        for shape in [[0, 2, 3, 4], [2, 3, 0, 4]] {
            let q = Tensor::<4>::zeros(shape, &device).require_grad();
            let bias = Tensor::<4>::zeros([shape[0], shape[2], shape[2], shape[1]], &device)
                .require_grad();
            let output = pair_biased_attention(q.clone(), q.clone(), q.clone(), bias.clone(), None);
            assert_eq!(output.dims(), shape);
            let gradients = output.sum().backward();
            assert_eq!(q.grad(&gradients).unwrap().dims(), shape);
            assert_eq!(bias.grad(&gradients).unwrap().dims(), bias.dims());
        }
    }

    #[test]
    fn a_large_bias_picks_its_value() {
        let device = burn::tensor::Device::flex();
        let zeros = Tensor::<4>::zeros([1, 1, 2, 1], &device);
        let values = Tensor::<4>::from_floats([[[[3.0], [5.0]]]], &device);
        let bias = Tensor::<4>::from_floats([[[[0.0], [1e4]], [[1e4], [0.0]]]], &device);
        let output = pair_biased_attention(zeros.clone(), zeros, values, bias, None);
        assert_eq!(output.into_data().try_to_vec::<f32>().unwrap(), [5.0, 3.0]);
    }

    #[test]
    #[should_panic(expected = "shape of the bias")]
    fn a_bias_with_heads_first_is_refused() {
        let q = Tensor::<4>::zeros([1, 2, 3, 4], &burn::tensor::Device::flex());
        pair_biased_attention(
            q.clone(),
            q.clone(),
            q.clone(),
            Tensor::zeros([1, 2, 3, 3], &q.device()),
            None,
        );
    }
}
