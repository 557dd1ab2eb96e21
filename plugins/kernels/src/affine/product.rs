//! Products of matrices on slices, and the gradients of weights.
//!
//! A fused operation computes the rows of its result block by block, all of its steps on a block while that is in the cache,
//! so that one wait of the threads for each other serves a whole chain of products and element-wise steps.

use std::mem::MaybeUninit;

use equivbench_instruction_set::{self as instruction_set, InstructionSet};
use rayon::prelude::*;

use crate::scalar::Scalar;

/// A matrix in memory: element `(i, k)` at `i * row + k * column`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a, T> {
    values: &'a [T],
    rows: usize,
    columns: usize,
    row: usize,
    column: usize,
}

impl<'a, T: Scalar> Matrix<'a, T> {
    /// Rows of `columns` elements, one after the other.
    pub(crate) fn new(values: &'a [T], columns: usize) -> Self {
        Self {
            values,
            rows: values.len() / columns.max(1),
            columns,
            row: columns,
            column: 1,
        }
    }

    pub(crate) fn transposed(self) -> Self {
        Self {
            rows: self.columns,
            columns: self.rows,
            row: self.column,
            column: self.row,
            ..self
        }
    }

    /// `count` rows from `first` on.
    fn rows(self, first: usize, count: usize) -> Self {
        assert!(first + count <= self.rows, "rows of a matrix");
        Self {
            values: self.values.get(first * self.row..).unwrap_or_default(),
            rows: count,
            ..self
        }
    }
}

/// `output = a b`, or `output += a b`; `output` has contiguous rows.
pub(crate) fn multiply<T: Scalar>(a: Matrix<'_, T>, b: Matrix<'_, T>, add: bool, output: &mut [T]) {
    if !add && a.columns == 0 {
        output.fill(T::ZERO);
    }
    // SAFETY: the slice has the length that is asserted there, and its elements can be read.
    unsafe { multiply_raw(a, b, add, output.len(), output.as_mut_ptr()) };
}

/// # Safety
/// `output` can be written for `len` elements, and read if `add`.
unsafe fn multiply_raw<T: Scalar>(
    a: Matrix<'_, T>,
    b: Matrix<'_, T>,
    add: bool,
    len: usize,
    output: *mut T,
) {
    // A matrix without columns does not know its rows.
    if len == 0 || a.columns == 0 {
        return;
    }
    assert_eq!(a.columns, b.rows, "inner size of a product");
    assert_eq!(len, a.rows * b.columns, "size of a product");
    for m in [a, b] {
        assert!(
            (m.rows - 1) * m.row + (m.columns - 1) * m.column < m.values.len(),
            "a factor reaches beyond its memory"
        );
    }
    if a.rows == 1 {
        // Alone it would take another way through `gemm`, and be rounded in another way than the same row among others.
        let mut twice = vec![T::ZERO; 2 * b.columns];
        // SAFETY: both rows are the one that is there; the result has two.
        unsafe {
            gemm_raw(
                Matrix {
                    rows: 2,
                    row: 0,
                    ..a
                },
                b,
                false,
                twice.as_mut_ptr(),
            )
        };
        for (column, &value) in twice[..b.columns].iter().enumerate() {
            // SAFETY: promised by the caller.
            unsafe {
                let slot = output.add(column);
                slot.write(if add { *slot + value } else { value });
            }
        }
        return;
    }
    // SAFETY: the factors lie within their slices (asserted), the result within what the caller promises.
    unsafe { gemm_raw(a, b, add, output) };
}

/// # Safety
/// The factors lie within their slices and are not empty; `output` can be written for all of the result, and read if `add`.
unsafe fn gemm_raw<T: Scalar>(a: Matrix<'_, T>, b: Matrix<'_, T>, add: bool, output: *mut T) {
    let stride = |step: usize| step as isize;
    // SAFETY: promised by the caller.
    unsafe {
        gemm::gemm(
            a.rows,
            b.columns,
            a.columns,
            output,
            1,
            stride(b.columns),
            add,
            a.values.as_ptr(),
            stride(a.column),
            stride(a.row),
            b.values.as_ptr(),
            stride(b.column),
            stride(b.row),
            T::ONE,
            T::ONE,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// The instruction set of matrix products, here and in Burn; `None` where their library chooses by itself: in a build whose crate
/// `gemm` is not that of `third_party/gemm`.
#[must_use]
pub fn product_set() -> Option<InstructionSet> {
    if !instruction_set::products() {
        // Only a product shows whose library it is.
        let one = Matrix::new(&[1.0_f32], 1);
        multiply(one, one, false, &mut [0.0]);
    }
    instruction_set::products().then(instruction_set::current)
}

/// `output[i] = bias + a[i] b`, row by row.
pub(crate) fn affine<T: Scalar>(a: Matrix<'_, T>, b: Matrix<'_, T>, bias: &[T], output: &mut [T]) {
    if !bias.is_empty() {
        output
            .chunks_exact_mut(bias.len())
            .for_each(|row| row.copy_from_slice(bias));
    }
    multiply(a, b, true, output);
}

/// Adds the sum of all rows to `total`.
pub(crate) fn add_rows<T: Scalar>(rows: &[T], total: &mut [T]) {
    for row in rows.chunks_exact(total.len().max(1)) {
        for (total, &value) in total.iter_mut().zip(row) {
            *total += value;
        }
    }
}

/// Rows of a block, a function of `rows` alone: at most 96, few enough for the second-level cache, and two blocks at least.
///
/// Each block packs the factors of its products again: blocks of 64 rows lose 7 to 18 percent of the speed of one large
/// product, blocks of 96 lose 8 to 12. Multiples of 6 fill the registers of the product.
pub(crate) fn block_rows(rows: usize) -> usize {
    const ROWS: usize = 96;
    const MULTIPLE: usize = 6;
    rows.div_ceil(rows.div_ceil(ROWS).next_multiple_of(2).max(1))
        .next_multiple_of(MULTIPLE)
        .max(MULTIPLE)
}

/// `left^T right` for matrices of equally many rows: the gradient of a weight whose inputs were `left`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a, T> {
    pub(crate) left: &'a [T],
    pub(crate) inputs: usize,
    pub(crate) right: &'a [T],
    pub(crate) outputs: usize,
}

/// The results of all jobs, in parallel.
pub(crate) fn weight_gradients<T: Scalar, const N: usize>(jobs: [Job<'_, T>; N]) -> [Vec<T>; N] {
    /// Rows of a result per task: each packs the whole right factor again.
    const ROWS: usize = 64;
    let mut results = jobs.map(|job| Vec::<T>::with_capacity(job.inputs * job.outputs));
    let pieces = results.iter_mut().zip(&jobs).flat_map(|(result, job)| {
        let slots = &mut result.spare_capacity_mut()[..job.inputs * job.outputs];
        slots
            .chunks_mut((ROWS * job.outputs).max(1))
            .enumerate()
            .map(move |(piece, slots)| (job, piece * ROWS, slots))
    });
    let pieces: Vec<_> = pieces.collect();
    pieces
        .into_par_iter()
        .with_max_len(1)
        .for_each(|(job, first, slots)| {
            let left = Matrix::new(job.left, job.inputs)
                .transposed()
                .rows(first, slots.len() / job.outputs);
            written(left, Matrix::new(job.right, job.outputs), slots);
        });
    for (result, job) in results.iter_mut().zip(&jobs) {
        // SAFETY: the pieces cover all elements, and `written` wrote all of a piece.
        unsafe { result.set_len(job.inputs * job.outputs) };
    }
    results
}

/// Writes `a b` into all of `slots`.
fn written<T: Scalar>(a: Matrix<'_, T>, b: Matrix<'_, T>, slots: &mut [MaybeUninit<T>]) {
    if a.columns == 0 {
        slots.fill(MaybeUninit::new(T::ZERO));
    }
    // SAFETY: the slots can be written, and `false` asks for no reading.
    unsafe { multiply_raw(a, b, false, slots.len(), slots.as_mut_ptr().cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::numbers;

    /// Small integers have no rounding.
    fn integers(count: usize, seed: u64) -> Vec<f64> {
        numbers(count, seed)
            .iter()
            .map(|x| (3.0 * x).round())
            .collect()
    }

    fn direct(
        a: impl Fn(usize, usize) -> f64,
        b: impl Fn(usize, usize) -> f64,
        [m, k, n]: [usize; 3],
    ) -> Vec<f64> {
        (0..m * n)
            .map(|at| (0..k).map(|k| a(at / n, k) * b(k, at % n)).sum())
            .collect()
    }

    #[test]
    fn products_are_the_triple_sum_for_any_layout() {
        for [m, k, n] in [[1, 1, 1], [3, 5, 7], [70, 33, 20], [4, 0, 3]] {
            let (a, b) = (integers(m * k, 1), integers(k * n, 2));
            let expected = direct(|i, j| a[i * k + j], |i, j| b[i * n + j], [m, k, n]);
            let mut output = vec![1.0; m * n];
            let (left, right) = (
                Matrix {
                    rows: m,
                    ..Matrix::new(&a, k)
                },
                Matrix::new(&b, n),
            );
            multiply(left, right, false, &mut output);
            assert_eq!(output, expected);
            multiply(left, right, true, &mut output);
            assert_eq!(output, expected.iter().map(|x| 2.0 * x).collect::<Vec<_>>());
            if k > 0 {
                let turned: Vec<f64> = (0..k * n).map(|at| b[at % k * n + at / k]).collect();
                multiply(
                    left,
                    Matrix::new(&turned, k).transposed(),
                    false,
                    &mut output,
                );
                assert_eq!(output, expected);
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_among_others() {
        let (k, n) = (67, 33);
        let (a, b) = (numbers(9 * k, 1), numbers(k * n, 2));
        let mut together = numbers(9 * n, 3);
        let mut alone = together.clone();
        for add in [false, true] {
            multiply(Matrix::new(&a, k), Matrix::new(&b, n), add, &mut together);
            for (row, output) in a.chunks_exact(k).zip(alone.chunks_exact_mut(n)) {
                multiply(Matrix::new(row, k), Matrix::new(&b, n), add, output);
            }
            assert_eq!(together, alone);
        }
    }

    #[test]
    fn gradients_of_weights_are_cut_without_a_trace() {
        for (rows, sizes) in [
            (5, [[3, 4], [200, 2]]),
            (0, [[2, 3], [1, 1]]),
            (130, [[64, 65], [65, 64]]),
        ] {
            let data = sizes
                .map(|[inputs, outputs]| (integers(rows * inputs, 3), integers(rows * outputs, 4)));
            let jobs = [0, 1].map(|at| {
                let ([inputs, outputs], (left, right)) = (sizes[at], &data[at]);
                Job {
                    left,
                    inputs,
                    right,
                    outputs,
                }
            });
            for (result, job) in weight_gradients(jobs).iter().zip(jobs) {
                let (left, right) = (
                    |i, r| job.left[r * job.inputs + i],
                    |r, o| job.right[r * job.outputs + o],
                );
                assert_eq!(
                    *result,
                    direct(left, right, [job.inputs, rows, job.outputs])
                );
            }
        }
    }

    #[test]
    fn two_threads_get_about_the_same_number_of_rows() {
        for (rows, blocks) in [
            (0, 0),
            (1, 1),
            (7, 2),
            (44, 2),
            (97, 2),
            (880, 10),
            (3700, 39),
        ] {
            let block = block_rows(rows);
            assert!(block <= 96);
            assert_eq!(
                rows.div_ceil(block),
                blocks,
                "{rows} rows in blocks of {block}"
            );
        }
    }
}
