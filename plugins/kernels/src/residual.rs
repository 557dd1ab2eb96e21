//! A residual branch whose output scale depends on the group of the row.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::activation::sigmoid;
use crate::choice::{PartialSums, RowChoice};
use crate::dispatch::{Kernel, fused, tensor, values};
use crate::parallel::{build, build_with, rows_per_chunk};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// Row `r` of the result is `x[r] + y[r] / (1 + exp(-gates[g]))` with `g = groups[r]`, and `x[r]` where `r` has no group.
///
/// `x` and `y [rows, width]`, `gates [groups, width]`. Gradients of all three, that of the gates summed over the rows of
/// each group.
///
/// # Panics
/// If the shapes do not fit together.
pub fn gated_residual(
    x: Tensor<2>,
    y: Tensor<2>,
    gates: Tensor<2>,
    groups: &RowChoice,
) -> Tensor<2> {
    let [rows, width] = x.dims();
    assert_eq!(
        y.dims(),
        [rows, width],
        "gated_residual: shape of the branch"
    );
    assert_eq!(
        groups.index().len(),
        rows,
        "gated_residual: one group for every row of x"
    );
    assert_eq!(
        gates.dims(),
        [groups.rows(), width],
        "gated_residual: shape of the gates"
    );
    match fused(
        GatedResidual(groups.clone()),
        [x.into_dispatch(), y.into_dispatch(), gates.into_dispatch()],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err(inputs) => {
            let [x, y, gates] = inputs.map(Tensor::from_dispatch);
            plain::gated_residual(x, y, gates, groups)
        }
    }
}

#[derive(Debug)]
struct GatedResidual(RowChoice);

/// What the backward pass reads.
#[derive(Debug, Clone)]
struct Saved {
    y: FlexTensor,
    /// `[groups, width]`: the gates after the logistic function.
    factors: FlexTensor,
}

impl Kernel<3> for GatedResidual {
    type Saved = Saved;

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Saved) {
        let [x, y, gates] = inputs.map(|input| input.to_contiguous());
        let (given, branch, width) = (values::<T>(&x), values::<T>(&y), x.shape()[1]);
        let mut factors = values::<T>(&gates).to_vec();
        apply_sigmoid(&mut factors);
        let output = build(
            given.len(),
            rows_per_chunk(width) * width,
            |first, output| {
                output.copy_from_slice(&given[first..][..output.len()]);
                let choice = &self.0.index()[first / width..];
                add_scaled(
                    &branch[first..][..output.len()],
                    &factors,
                    choice,
                    width,
                    output,
                );
            },
        );
        (
            tensor(output, x.shape()),
            Saved {
                y,
                factors: tensor(factors, gates.shape()),
            },
        )
    }

    fn backward<T: Scalar>(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        // A piece leaves sums as long as a row or more, so it takes enough rows to outweigh them.
        const ROWS: usize = 4;
        let given = gradient.to_contiguous();
        let (cotangent, branch, factors) = (
            values::<T>(&given),
            values::<T>(&saved.y),
            values::<T>(&saved.factors),
        );
        let width = given.shape()[1];
        let (for_y, parts) = build_with(
            branch.len(),
            ROWS * rows_per_chunk(width) * width,
            |first, output| {
                let (range, choice) = (
                    first..first + output.len(),
                    &self.0.index()[first / width..],
                );
                pull_back(
                    &branch[range.clone()],
                    factors,
                    &cotangent[range],
                    choice,
                    width,
                    output,
                )
            },
        );
        let mut for_gates = PartialSums::total(&parts, self.0.rows(), width);
        for (sum, &factor) in for_gates.iter_mut().zip(factors) {
            *sum *= factor * (T::ONE - factor);
        }
        let for_gates = wanted[2].then(|| tensor(for_gates, saved.factors.shape()));
        [
            wanted[0].then_some(gradient),
            wanted[1].then(|| tensor(for_y, saved.y.shape())),
            for_gates,
        ]
    }
}

simd! {
    fn apply_sigmoid<T, L>(values: &mut [T]) {
        for value in values.iter_mut() {
            *value = sigmoid(*value);
        }
    }
}

simd! {
    /// Adds to every row of `output` the row of `y` times the factors of its group.
    fn add_scaled<T, L>(y: &[T], factors: &[T], choice: &[u32], width: usize, output: &mut [T]) {
        for ((y, output), &chosen) in y.chunks_exact(width).zip(output.chunks_exact_mut(width)).zip(choice) {
            if chosen == RowChoice::NONE {
                continue;
            }
            let factors = &factors[chosen as usize * width..][..width];
            for ((output, &y), &factor) in output.iter_mut().zip(y).zip(factors) {
                *output = y.mul_add(factor, *output);
            }
        }
    }
}

simd! {
    /// Writes the gradient of `y` and returns the sums of `gradient * y` by group.
    fn pull_back<T, L>(y: &[T], factors: &[T], gradient: &[T], choice: &[u32], width: usize, for_y: &mut [T]) -> PartialSums<T> {
        let mut sums = PartialSums::new(width);
        let rows = y.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(for_y.chunks_exact_mut(width));
        for (((y, gradient), for_y), &chosen) in rows.zip(choice) {
            if chosen == RowChoice::NONE {
                continue;
            }
            let factors = &factors[chosen as usize * width..][..width];
            let outputs = for_y.iter_mut().zip(sums.of(chosen));
            for ((((for_y, sum), &y), &gradient), &factor) in outputs.zip(y).zip(gradient).zip(factors) {
                *for_y = gradient * factor;
                *sum = gradient.mul_add(y, *sum);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn gated_residual_agrees_with_its_composition_for_any_size() {
        for [rows, width, groups] in [[1, 1, 1], [5, 3, 2], [70, 128, 3], [300, 77, 9]] {
            let group = |row: usize| {
                if row % 7 == 3 {
                    RowChoice::NONE
                } else {
                    ((row / 5 + row % 2) % groups) as u32
                }
            };
            let choice = RowChoice::new(groups, (0..rows).map(group).collect::<Vec<_>>()).unwrap();
            let apply = |f: fn(Tensor<2>, Tensor<2>, Tensor<2>, &RowChoice) -> Tensor<2>,
                         x: &[Tensor<1>]| {
                let [given, branch] =
                    [0, 1].map(|number: usize| x[number].clone().reshape([rows, width]));
                f(
                    given,
                    branch,
                    x[2].clone().reshape([groups, width]),
                    &choice,
                )
                .reshape([rows * width])
            };
            let inputs = [
                numbers(rows * width, 1),
                numbers(rows * width, 2),
                numbers(groups * width, 3),
            ];
            check(
                |x| apply(gated_residual, x),
                |x| apply(plain::gated_residual, x),
                &inputs,
            );
        }
    }

    #[test]
    fn no_rows_give_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        let gates = Tensor::<2>::ones([2, 3], &device).require_grad();
        let nothing = Tensor::<2>::zeros([0, 3], &device);
        let output = gated_residual(
            nothing.clone(),
            nothing,
            gates.clone(),
            &RowChoice::new(2, []).unwrap(),
        );
        assert_eq!(output.dims(), [0, 3]);
        assert_eq!(
            gates
                .grad(&output.sum().backward())
                .unwrap()
                .into_data()
                .try_to_vec::<f32>()
                .unwrap(),
            [0.0; 6]
        );
    }

    #[test]
    fn a_row_without_group_passes_unchanged() {
        let device = burn::tensor::Device::flex();
        let [x, y] =
            [[[1.0], [2.0]], [[8.0], [8.0]]].map(|rows| Tensor::<2>::from_floats(rows, &device));
        let output = gated_residual(
            x,
            y,
            Tensor::zeros([1, 1], &device),
            &RowChoice::new(1, [RowChoice::NONE, 0]).unwrap(),
        );
        assert_eq!(output.into_data().try_to_vec::<f32>().unwrap(), [1.0, 6.0]);
    }
}
