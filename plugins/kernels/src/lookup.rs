//! Sums of rows of small tables: what products of one-hot vectors with weights give.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;
use rayon::prelude::*;

use crate::choice::RowChoice;
use crate::dispatch::{Kernel, fused, tensor, values};
use crate::parallel::{CHUNK, build, rows_per_chunk};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// Row `r` of the result is the sum over tables `k` of row `choices[k][r]` of table `k`; a choice of none adds nothing.
///
/// One to three tables `[rows_k, width]`, one [`RowChoice`] for each, all of one length `n`; the result is `[n, width]`.
/// The gradient of a table adds up, for each of its rows, over the rows that chose it, in an order that `n` and the
/// tables' sizes fix.
///
/// # Panics
/// If there are no or more than three tables, or if the sizes do not fit together.
pub fn lookup_sum(tables: Vec<Tensor<2>>, choices: &[RowChoice]) -> Tensor<2> {
    assert_eq!(
        tables.len(),
        choices.len(),
        "lookup_sum: one list of choices for every table"
    );
    match (&tables[..], choices) {
        ([a], [x]) => lookup([a], [x]),
        ([a, b], [x, y]) => lookup([a, b], [x, y]),
        ([a, b, c], [x, y, z]) => lookup([a, b, c], [x, y, z]),
        _ => panic!("lookup_sum: one to three tables, not {}", tables.len()),
    }
}

fn lookup<const N: usize>(tables: [&Tensor<2>; N], choices: [&RowChoice; N]) -> Tensor<2> {
    let width = tables[0].dims()[1];
    for (table, choice) in tables.into_iter().zip(choices) {
        assert_eq!(
            table.dims(),
            [choice.rows(), width],
            "lookup_sum: shape of a table"
        );
        assert_eq!(
            choice.index().len(),
            choices[0].index().len(),
            "lookup_sum: number of choices"
        );
    }
    let kernel = Lookup {
        choices: choices.map(RowChoice::clone),
    };
    match fused(kernel, tables.map(|table| table.clone().into_dispatch())) {
        Ok(output) => Tensor::from_dispatch(output),
        Err(tables) => plain::lookup_sum(
            tables.map(Tensor::from_dispatch).to_vec(),
            &choices.map(RowChoice::clone),
        ),
    }
}

#[derive(Debug)]
struct Lookup<const N: usize> {
    choices: [RowChoice; N],
}

impl<const N: usize> Kernel<N> for Lookup<N> {
    type Saved = usize;

    fn forward<T: Scalar>(&self, tables: [FlexTensor; N]) -> (FlexTensor, usize) {
        let tables = tables.map(|table| table.to_contiguous());
        let given = tables.each_ref().map(values::<T>);
        let (rows, width) = (self.choices[0].index().len(), tables[0].shape()[1]);
        let output = build(
            rows * width,
            rows_per_chunk(width) * width,
            |first, output: &mut [T]| {
                for (table, choice) in given.iter().zip(&self.choices) {
                    add_chosen(
                        table,
                        &choice.index()[first / width..][..output.len() / width],
                        width,
                        output,
                    );
                }
            },
        );
        (tensor(output, [rows, width]), width)
    }

    fn backward<T: Scalar>(
        &self,
        width: usize,
        gradient: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N] {
        let gradient = gradient.to_contiguous();
        let sums = self.sums(width, values::<T>(&gradient));
        let mut offset = 0;
        std::array::from_fn(|number| {
            let rows = self.choices[number].rows();
            let sums = &sums[offset * width..][..rows * width];
            offset += rows;
            wanted[number].then(|| tensor(sums.to_vec(), [rows, width]))
        })
    }
}

impl<const N: usize> Lookup<N> {
    /// The gradients of all tables, one after the other.
    fn sums<T: Scalar>(&self, width: usize, gradient: &[T]) -> Vec<T> {
        // A piece of the rows leaves sums as large as all tables: it takes enough rows to outweigh them.
        const ROWS: usize = 1024;
        let table_rows: usize = self.choices.iter().map(RowChoice::rows).sum();
        let piece = ROWS.max(4 * table_rows);
        let pieces = self.choices[0].index().len().div_ceil(piece);
        let part = |number: usize| {
            let mut sums = vec![T::ZERO; table_rows * width];
            let mut rest = &mut sums[..];
            for choice in &self.choices {
                let (table, others) = rest.split_at_mut(choice.rows() * width);
                rest = others;
                let first = number * piece;
                let choice = &choice.index()[first..choice.index().len().min(first + piece)];
                add_to_chosen(
                    &gradient[first * width..][..choice.len() * width],
                    choice,
                    width,
                    table,
                );
            }
            sums
        };
        let parts: Vec<Vec<T>> = (0..pieces).into_par_iter().map(part).collect();
        build(table_rows * width, CHUNK, |first, output| {
            for part in &parts {
                add(&part[first..][..output.len()], output);
            }
        })
    }
}

simd! {
    /// Adds to every row of `output` the row of `table` that it chose.
    fn add_chosen<T, L>(table: &[T], choice: &[u32], width: usize, output: &mut [T]) {
        for (&chosen, output) in choice.iter().zip(output.chunks_exact_mut(width)) {
            if chosen != RowChoice::NONE {
                add_row(&table[chosen as usize * width..][..width], output);
            }
        }
    }
}

simd! {
    /// Adds every row of `gradient` to the row of `table` that it chose.
    fn add_to_chosen<T, L>(gradient: &[T], choice: &[u32], width: usize, table: &mut [T]) {
        for (&chosen, gradient) in choice.iter().zip(gradient.chunks_exact(width.max(1))) {
            if chosen != RowChoice::NONE {
                add_row(gradient, &mut table[chosen as usize * width..][..width]);
            }
        }
    }
}

simd! {
    fn add<T, L>(values: &[T], totals: &mut [T]) {
        add_row(values, totals);
    }
}

#[inline(always)]
fn add_row<T: Scalar>(values: &[T], totals: &mut [T]) {
    for (total, &value) in totals.iter_mut().zip(values) {
        *total += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    fn choice(rows: usize, n: usize, stride: usize) -> RowChoice {
        let chosen = |at: usize| {
            if at % 9 == 4 {
                RowChoice::NONE
            } else {
                ((at * stride + at / 3) % rows) as u32
            }
        };
        RowChoice::new(rows, (0..n).map(chosen).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn sums_of_one_two_and_three_tables_agree_with_one_hot_products() {
        for (n, width, rows) in [
            (1, 1, vec![1]),
            (50, 3, vec![4, 7]),
            (2500, 40, vec![5, 64, 33]),
        ] {
            let choices: Vec<_> = rows
                .iter()
                .enumerate()
                .map(|(number, &rows)| choice(rows, n, number + 1))
                .collect();
            let apply = |f: fn(Vec<Tensor<2>>, &[RowChoice]) -> Tensor<2>, x: &[Tensor<1>]| {
                let tables = x
                    .iter()
                    .zip(&rows)
                    .map(|(x, &rows)| x.clone().reshape([rows, width]))
                    .collect();
                f(tables, &choices).reshape([n * width])
            };
            let inputs: Vec<_> = rows
                .iter()
                .enumerate()
                .map(|(number, &rows)| numbers(rows * width, number as u64))
                .collect();
            check(
                |x| apply(lookup_sum, x),
                |x| apply(plain::lookup_sum, x),
                &inputs,
            );
        }
    }

    #[test]
    fn tables_may_be_transposed_and_rows_may_choose_nothing() {
        let choices = [
            RowChoice::new(4, [3, RowChoice::NONE, 3]).unwrap(),
            RowChoice::new(2, [1, RowChoice::NONE, 0]).unwrap(),
        ];
        let device = burn::tensor::Device::flex();
        let first = Tensor::<2>::from_floats([[0.0, 1.0, 2.0, 3.0]], &device).transpose();
        let second = Tensor::<2>::from_floats([[10.0], [20.0]], &device);
        let sums = lookup_sum(vec![first, second], &choices).into_data();
        assert_eq!(sums.try_to_vec::<f32>().unwrap(), [23.0, 0.0, 13.0]);
    }

    #[test]
    fn no_choices_give_no_rows_and_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        let table = Tensor::<2>::ones([2, 3], &device).require_grad();
        let sums = lookup_sum(vec![table.clone()], &[RowChoice::new(2, []).unwrap()]);
        assert_eq!(sums.dims(), [0, 3]);
        let gradients = sums.sum().backward();
        assert_eq!(
            table
                .grad(&gradients)
                .unwrap()
                .into_data()
                .try_to_vec::<f32>()
                .unwrap(),
            [0.0; 6]
        );
        let nothing = Tensor::<2>::ones([2, 0], &device);
        assert_eq!(
            lookup_sum(vec![nothing], &[RowChoice::new(2, [1]).unwrap()]).dims(),
            [1, 0]
        );
    }

    #[test]
    #[should_panic(expected = "shape of a table")]
    fn a_table_of_another_size_is_refused() {
        lookup_sum(
            vec![Tensor::ones([3, 2], &burn::tensor::Device::flex())],
            &[RowChoice::new(4, [0]).unwrap()],
        );
    }
}
