//! A linear map of inputs of which only a narrow band is not zero.

use std::ops::Range;
use std::sync::Arc;

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::gather::{ByRow, fits};
use crate::lanes::{LANES, Lanes};
use crate::parallel::{RowSink, build_rows};
use crate::scalar::Scalar;
use crate::simd::simd;
use crate::tile::{Left, Right, multiply, store, tile};
use crate::{KernelError, plain};

/// Values of a banded basis: row `r` has `width` values, for the basis functions from `start[r]` on. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Bands {
    pub(crate) basis: usize,
    pub(crate) start: Arc<[u32]>,
    /// Rows grouped by where they start, so that neighbours in the work list share rows of the weight.
    pub(crate) by_start: Arc<ByRow>,
    pub(crate) values: Tensor<2>,
}

impl Bands {
    /// Takes the first basis function of each row and its `values [rows, width]`, a constant.
    ///
    /// # Errors
    /// If the numbers of rows differ or a band reaches beyond `basis`, the number of basis functions.
    pub fn new(basis: usize, start: &[usize], values: Tensor<2>) -> Result<Self, KernelError> {
        let [rows, width] = values.dims();
        fits("bands", rows.max(basis))?;
        if rows != start.len() {
            return Err(KernelError::BandCount {
                starts: start.len(),
                rows,
            });
        }
        if let Some((row, &start)) = start
            .iter()
            .enumerate()
            .find(|&(_, &start)| start.saturating_add(width) > basis)
        {
            return Err(KernelError::BandOutOfRange {
                row,
                start,
                width,
                basis,
            });
        }
        let start: Arc<[u32]> = start.iter().map(|&start| start as u32).collect();
        let by_start = Arc::new(ByRow::new(basis + 1, &start));
        Ok(Self {
            basis,
            start,
            by_start,
            values,
        })
    }

    /// Number of basis functions.
    pub fn basis(&self) -> usize {
        self.basis
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.start.len()
    }

    /// The values, `[rows, width]`.
    pub fn values(&self) -> &Tensor<2> {
        &self.values
    }
}

/// `bias + phi W` for the banded matrix `phi [rows, basis]`: `weight [basis, out]`, `bias [out]`, result `[rows, out]`.
///
/// `weight` and `bias` get gradients; the bands are constants.
///
/// # Panics
/// If the shapes do not fit together.
pub fn banded_radial(bands: &Bands, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let [basis, out] = weight.dims();
    assert_eq!(basis, bands.basis(), "banded_radial: rows of the weight");
    assert_eq!(bias.dims(), [out], "banded_radial: length of the bias");
    let kernel = Banded {
        start: bands.start.clone(),
        by_start: bands.by_start.clone(),
        basis,
    };
    match fused(
        kernel,
        [
            bands.values.clone().into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
        ],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([_, weight, bias]) => plain::banded_radial(
            bands,
            Tensor::from_dispatch(weight),
            Tensor::from_dispatch(bias),
        ),
    }
}

#[derive(Debug)]
struct Banded {
    start: Arc<[u32]>,
    by_start: Arc<ByRow>,
    basis: usize,
}

/// Rows of work per task of the forward pass.
const ROWS: usize = 64;

/// Columns that are worked on at a time, so that a band of the weight stays in the first-level cache.
const COLUMNS: usize = 64;

/// Columns of the weight's gradient per task.
const GRADIENT_COLUMNS: usize = 6 * LANES;

/// Lanes of columns that are kept in registers.
const BLOCKS: usize = 2;

impl Kernel<3> for Banded {
    type Saved = FlexTensor;

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, FlexTensor) {
        let [phi, weight, bias] = inputs.map(|input| input.to_contiguous());
        let (rows, out) = (self.start.len(), weight.shape()[1]);
        let problem = Problem {
            start: &self.start,
            phi: values::<T>(&phi),
            width: phi.shape()[1],
            weight: values::<T>(&weight),
            bias: values::<T>(&bias),
        };
        let order = &self.by_start.positions;
        // SAFETY: a sort made the order, so each row occurs once; `map_rows` writes all columns of the rows it is given.
        let output =
            unsafe { build_rows(out, order, ROWS, |rows, sink| map_rows(problem, rows, sink)) };
        (tensor(output, [rows, out]), phi)
    }

    fn backward<T: Scalar>(
        &self,
        phi: FlexTensor,
        gradient: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let gradient = gradient.to_contiguous();
        let (out, width) = (gradient.shape()[1], phi.shape()[1]);
        let blocks = out.div_ceil(GRADIENT_COLUMNS);
        let gradients = (0..blocks).into_par_iter().map(|block| {
            let task = Gradients {
                by_start: &self.by_start,
                phi: values::<T>(&phi),
                width,
                given: values::<T>(&gradient),
                out,
            };
            pull_back(task, self.basis, block * GRADIENT_COLUMNS)
        });
        let gradients: Vec<_> = gradients.collect();
        let (for_weight, for_bias) = joined(&gradients, self.basis, out);
        [
            None,
            wanted[1].then(|| tensor(for_weight, [self.basis, out])),
            wanted[2].then(|| tensor(for_bias, [out])),
        ]
    }
}

/// What the forward pass reads.
#[derive(Debug, Clone, Copy)]
struct Problem<'a, T> {
    start: &'a [u32],
    phi: &'a [T],
    width: usize,
    weight: &'a [T],
    bias: &'a [T],
}

simd! {
    /// Computes the rows with the given numbers, which are ordered by where their bands start.
    fn map_rows<T, L>(problem: Problem<'_, T>, rows: &[u32], sink: RowSink<T>) {
        let out = problem.bias.len();
        for first in (0..out).step_by(COLUMNS) {
            let columns = first..out.min(first + COLUMNS);
            let mut rest = rows;
            while let [row, ..] = rest {
                let same = rest.iter().take(4).take_while(|&&other| problem.start[other as usize] == problem.start[*row as usize]);
                let (group, after) = rest.split_at(same.count());
                match *group {
                    [a, b, c, d] => map_group::<T, L, 4>(problem, [a, b, c, d], columns.clone(), sink),
                    _ => {
                        for &row in group {
                            map_group::<T, L, 1>(problem, [row], columns.clone(), sink);
                        }
                    }
                }
                rest = after;
            }
        }
    }
}

/// Some columns of rows whose bands start at the same basis function.
#[inline(always)]
fn map_group<T: Scalar, L: Lanes<T>, const R: usize>(
    problem: Problem<'_, T>,
    rows: [u32; R],
    columns: Range<usize>,
    sink: RowSink<T>,
) {
    let Problem {
        phi,
        width,
        weight,
        bias,
        ..
    } = problem;
    let first = problem.start[rows[0] as usize] as usize * bias.len();
    let left = Left {
        values: phi,
        row: width,
        step: 1,
    };
    let starts = rows.map(|row| row as usize * width);
    let mut column = columns.start;
    while column + BLOCKS * LANES <= columns.end {
        let right = Right {
            values: &weight[first + column..],
            stride: bias.len(),
        };
        let sums = tile::<T, L, R, BLOCKS>(left, starts, right, width);
        for (row, sums) in rows.into_iter().zip(sums) {
            let mut result = [T::ZERO; BLOCKS * LANES];
            store(sums, &mut result);
            for (result, &bias) in result.iter_mut().zip(&bias[column..]) {
                *result += bias;
            }
            // SAFETY: `map_rows` was given this row.
            unsafe { sink.write(row as usize, column, &result) };
        }
        column += BLOCKS * LANES;
    }
    for column in column..columns.end {
        for (row, start) in rows.into_iter().zip(starts) {
            let mut total = T::ZERO;
            for k in 0..width {
                total = phi[start + k].mul_add(weight[first + column + k * bias.len()], total);
            }
            // SAFETY: as above.
            unsafe { sink.write(row as usize, column, &[total + bias[column]]) };
        }
    }
}

/// What the backward pass reads.
#[derive(Debug, Clone, Copy)]
struct Gradients<'a, T> {
    by_start: &'a ByRow,
    phi: &'a [T],
    width: usize,
    given: &'a [T],
    out: usize,
}

simd! {
    /// Gradients of [`GRADIENT_COLUMNS`] columns of the weight, `[basis, GRADIENT_COLUMNS]`, and of the bias below them.
    /// Columns beyond the last are 0.
    fn pull_back<T, L>(task: Gradients<'_, T>, basis: usize, column: usize) -> Vec<T> {
        let mut result = vec![T::ZERO; (basis + 1) * GRADIENT_COLUMNS];
        let (for_weight, for_bias) = result.split_at_mut(basis * GRADIENT_COLUMNS);
        let taken = GRADIENT_COLUMNS.min(task.out - column);
        let bands = padded_rows(task.width);
        let (mut given, mut phi, mut part) = (Vec::new(), Vec::new(), vec![T::ZERO; bands * GRADIENT_COLUMNS]);
        for (start, run) in task.by_start.offsets.windows(2).enumerate() {
            // All rows of one start: their bands touch the same rows of the weight, which makes a small dense product.
            let rows = &task.by_start.positions[run[0] as usize..run[1] as usize];
            if rows.is_empty() {
                continue;
            }
            given.clear();
            given.resize(rows.len() * GRADIENT_COLUMNS, T::ZERO);
            phi.clear();
            phi.resize(rows.len() * bands, T::ZERO);
            for (index, &row) in rows.iter().enumerate() {
                let row = row as usize;
                given[index * GRADIENT_COLUMNS..][..taken].copy_from_slice(&task.given[row * task.out + column..][..taken]);
                phi[index * bands..][..task.width].copy_from_slice(&task.phi[row * task.width..][..task.width]);
            }
            let right = Right { values: &given, stride: GRADIENT_COLUMNS };
            multiply::<T, L>(Left { values: &phi, row: 1, step: bands }, right, [bands, rows.len(), GRADIENT_COLUMNS], &mut part);
            let target = &mut for_weight[start * GRADIENT_COLUMNS..][..task.width * GRADIENT_COLUMNS];
            for (target, &part) in target.iter_mut().zip(&part) {
                *target += part;
            }
            let mut total = [T::ZERO; GRADIENT_COLUMNS];
            for row in given.chunks_exact(GRADIENT_COLUMNS) {
                for (total, &value) in total.iter_mut().zip(row) {
                    *total += value;
                }
            }
            for (target, total) in for_bias.iter_mut().zip(total) {
                *target += total;
            }
        }
        result
    }
}

/// Rows of the left factor that [`multiply`] takes at full speed.
const fn padded_rows(rows: usize) -> usize {
    rows.next_multiple_of(4)
}

/// Puts the column blocks of [`pull_back`] side by side: the gradients of weight and bias.
fn joined<T: Scalar>(blocks: &[Vec<T>], basis: usize, out: usize) -> (Vec<T>, Vec<T>) {
    let mut rows = Vec::with_capacity((basis + 1) * out);
    for row in 0..=basis {
        for (index, block) in blocks.iter().enumerate() {
            let taken = GRADIENT_COLUMNS.min(out - index * GRADIENT_COLUMNS);
            rows.extend_from_slice(&block[row * GRADIENT_COLUMNS..][..taken]);
        }
    }
    let for_bias = rows.split_off(basis * out);
    (rows, for_bias)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, constant, numbers};

    fn check_bands([basis, width, out, rows]: [usize; 4]) {
        let start: Vec<usize> = (0..rows)
            .map(|row| (row * row + row / 3) % (basis - width + 1))
            .collect();
        let phi = numbers(rows * width, 3);
        let apply = |radial: fn(&Bands, Tensor<2>, Tensor<1>) -> Tensor<2>, x: &[Tensor<1>]| {
            let bands = Bands::new(basis, &start, constant(&phi, [rows, width], &x[0])).unwrap();
            radial(&bands, x[0].clone().reshape([basis, out]), x[1].clone()).reshape([rows * out])
        };
        let inputs = [numbers(basis * out, 1), numbers(out, 2)];
        check(
            |x| apply(banded_radial, x),
            |x| apply(plain::banded_radial, x),
            &inputs,
        );
    }

    #[test]
    fn banded_product_agrees_with_the_dense_one_for_any_size() {
        for sizes in [
            [1, 1, 1, 1],
            [9, 4, 5, 7],
            [40, 25, 100, 150],
            [30, 30, 64, 10],
            [17, 3, 16, 200],
            [3, 2, 33, 1],
        ] {
            check_bands(sizes);
        }
    }

    #[test]
    fn no_rows_give_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        let weight = Tensor::<2>::ones([5, 3], &device).require_grad();
        let bands = Bands::new(5, &[], Tensor::zeros([0, 2], &device.clone().inner())).unwrap();
        let output = banded_radial(&bands, weight.clone(), Tensor::ones([3], &device));
        assert_eq!(output.dims(), [0, 3]);
        let gradients = output.sum().backward();
        assert_eq!(
            weight
                .grad(&gradients)
                .unwrap()
                .into_data()
                .try_to_vec::<f32>()
                .unwrap(),
            [0.0; 15]
        );
    }

    #[test]
    fn bands_beyond_the_basis_are_refused() {
        let values = Tensor::<2>::zeros([2, 3], &burn::tensor::Device::flex());
        let error = Bands::new(5, &[0, 3], values.clone()).unwrap_err();
        assert_eq!(
            error,
            KernelError::BandOutOfRange {
                row: 1,
                start: 3,
                width: 3,
                basis: 5
            }
        );
        assert_eq!(
            Bands::new(5, &[0], values).unwrap_err(),
            KernelError::BandCount { starts: 1, rows: 2 }
        );
    }
}
