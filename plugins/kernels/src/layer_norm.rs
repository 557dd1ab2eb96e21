//! Layer normalisation, with one affine map for all rows or one for each group of rows.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::choice::{PartialSums, RowChoice};
use crate::dispatch::{Kernel, fused, tensor, values};
use crate::lanes::{Lanes, dot, total};
use crate::parallel::{build, build_with, rows_per_chunk};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// `(x - mean) / sqrt(variance + epsilon) * weight + bias` over the last axis, with the biased variance `mean((x - mean)^2)`.
///
/// `x [.., width]`; `affine` holds weight and bias, both `[width]`; without it they are 1 and 0. All inputs get gradients.
///
/// # Panics
/// If the length of weight or bias is not that of the last axis.
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    affine: Option<(Tensor<1>, Tensor<1>)>,
    epsilon: f64,
) -> Tensor<D> {
    let Some((weight, bias)) = affine else {
        return match fused(Standardise { epsilon }, [x.into_dispatch()]) {
            Ok(output) => Tensor::from_dispatch(output),
            Err([x]) => plain::layer_norm(Tensor::<D>::from_dispatch(x), None, epsilon),
        };
    };
    let width = x.dims()[D - 1];
    assert_eq!(
        weight.dims(),
        [width],
        "layer_norm: the weight must have the length of the last axis"
    );
    assert_eq!(
        bias.dims(),
        [width],
        "layer_norm: the bias must have the length of the last axis"
    );
    let kernel = LayerNorm {
        epsilon,
        choice: None,
    };
    match fused(
        kernel,
        [
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
        ],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x, weight, bias]) => {
            let affine = (Tensor::from_dispatch(weight), Tensor::from_dispatch(bias));
            plain::layer_norm(Tensor::<D>::from_dispatch(x), Some(affine), epsilon)
        }
    }
}

/// Layer normalisation whose affine map depends on the group of the row: row `r` of the result is
/// `(x[r] - mean) / sqrt(variance + epsilon) * scale[g] + shift[g]` with `g = groups[r]`, and 0 where `r` has no group.
///
/// `x [rows, width]`, `scale` and `shift [groups, width]`; `groups` says for every row its row of these, or
/// [`RowChoice::NONE`] for a masked row, whose numbers are not read. Gradients of `x`, `scale` and `shift`, the latter two
/// summed over the rows of each group.
///
/// # Panics
/// If the shapes do not fit together.
pub fn adaptive_layer_norm(
    x: Tensor<2>,
    scale: Tensor<2>,
    shift: Tensor<2>,
    groups: &RowChoice,
    epsilon: f64,
) -> Tensor<2> {
    let [rows, width] = x.dims();
    assert_eq!(
        groups.index().len(),
        rows,
        "adaptive_layer_norm: one group for every row of x"
    );
    assert_eq!(
        scale.dims(),
        [groups.rows(), width],
        "adaptive_layer_norm: shape of the scale"
    );
    assert_eq!(
        shift.dims(),
        [groups.rows(), width],
        "adaptive_layer_norm: shape of the shift"
    );
    let kernel = LayerNorm {
        epsilon,
        choice: Some(groups.clone()),
    };
    match fused(
        kernel,
        [
            x.into_dispatch(),
            scale.into_dispatch(),
            shift.into_dispatch(),
        ],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x, scale, shift]) => {
            let [x, scale, shift] = [x, scale, shift].map(Tensor::from_dispatch);
            plain::adaptive_layer_norm(x, scale, shift, groups, epsilon)
        }
    }
}

/// No affine map: what [`LayerNorm`] does with weights 1 and biases 0.
#[derive(Debug)]
struct Standardise {
    epsilon: f64,
}

/// Inputs are `x`, scales and shifts. Without a choice, all rows use the only row of scales and shifts.
#[derive(Debug)]
struct LayerNorm {
    epsilon: f64,
    choice: Option<RowChoice>,
}

impl Kernel<1> for Standardise {
    type Saved = FlexTensor;

    fn forward<T: Scalar>(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, FlexTensor) {
        let x = x.to_contiguous();
        let (ones, zeros) = neutral::<T>(&x);
        (forward(&x, Affine::shared(&ones, &zeros), self.epsilon), x)
    }

    fn backward<T: Scalar>(
        &self,
        x: FlexTensor,
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let (ones, zeros) = neutral::<T>(&x);
        [Some(
            backward(&x, gradient, Affine::shared(&ones, &zeros), self.epsilon).0,
        )]
    }
}

impl Kernel<3> for LayerNorm {
    type Saved = [FlexTensor; 3];

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Self::Saved) {
        let saved = inputs.map(|input| input.to_contiguous());
        (
            forward::<T>(&saved[0], self.affine(&saved), self.epsilon),
            saved,
        )
    }

    fn backward<T: Scalar>(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let affine = self.affine::<T>(&saved);
        let (width, groups) = (affine.width, affine.scale.len() / affine.width.max(1));
        let (for_x, parts) = backward(&saved[0], gradient, affine, self.epsilon);
        let sums = PartialSums::total(&parts, groups, 2 * width);
        // Each row of the sums holds the gradient of the scale and then that of the shift.
        let half = |number: usize| {
            let rows = sums.chunks_exact((2 * width).max(1));
            let values: Vec<T> = rows
                .flat_map(|row| row[number * width..][..width].iter().copied())
                .collect();
            tensor(values, saved[1].shape())
        };
        [
            wanted[0].then_some(for_x),
            wanted[1].then(|| half(0)),
            wanted[2].then(|| half(1)),
        ]
    }
}

impl LayerNorm {
    fn affine<'a, T: Scalar>(&'a self, [x, scale, shift]: &'a [FlexTensor; 3]) -> Affine<'a, T> {
        let choice = self.choice.as_ref().map(RowChoice::index);
        Affine {
            width: last_axis(x),
            scale: values(scale),
            shift: values(shift),
            choice,
        }
    }
}

/// Scales of 1 and shifts of 0.
fn neutral<T: Scalar>(x: &FlexTensor) -> (Vec<T>, Vec<T>) {
    let width = last_axis(x);
    (vec![T::ONE; width], vec![T::ZERO; width])
}

fn last_axis(x: &FlexTensor) -> usize {
    let shape = x.shape();
    shape[shape.num_dims() - 1]
}

/// The affine maps of all rows.
#[derive(Debug, Clone, Copy)]
struct Affine<'a, T> {
    width: usize,
    scale: &'a [T],
    shift: &'a [T],
    choice: Option<&'a [u32]>,
}

impl<'a, T> Affine<'a, T> {
    fn shared(scale: &'a [T], shift: &'a [T]) -> Self {
        Self {
            width: scale.len(),
            scale,
            shift,
            choice: None,
        }
    }

    /// Which row of scales and shifts a row uses.
    #[inline(always)]
    fn chosen(&self, row: usize) -> Option<u32> {
        let chosen = self.choice.map_or(0, |choice| choice[row]);
        (chosen != RowChoice::NONE).then_some(chosen)
    }

    #[inline(always)]
    fn scale(&self, chosen: u32) -> &'a [T] {
        &self.scale[chosen as usize * self.width..][..self.width]
    }

    #[inline(always)]
    fn shift(&self, chosen: u32) -> &'a [T] {
        &self.shift[chosen as usize * self.width..][..self.width]
    }
}

fn forward<T: Scalar>(x: &FlexTensor, affine: Affine<'_, T>, epsilon: f64) -> FlexTensor {
    let (given, width) = (values::<T>(x), affine.width);
    let output = build(
        given.len(),
        rows_per_chunk(width) * width,
        |first, output| {
            normalise(
                &given[first..][..output.len()],
                affine,
                first / width,
                T::of(epsilon),
                output,
            );
        },
    );
    tensor(output, x.shape())
}

/// The gradient of `x`, and parts of those of scales and shifts side by side.
fn backward<T: Scalar>(
    x: &FlexTensor,
    gradient: FlexTensor,
    affine: Affine<'_, T>,
    epsilon: f64,
) -> (FlexTensor, Vec<PartialSums<T>>) {
    // Every piece leaves sums as long as one row or more, so it takes enough rows to outweigh them.
    const ROWS: usize = 4;
    let gradient = gradient.to_contiguous();
    let (given, cotangent, width) = (values::<T>(x), values::<T>(&gradient), affine.width);
    let (for_x, parts) = build_with(
        given.len(),
        ROWS * rows_per_chunk(width) * width,
        |first, output| {
            let range = first..first + output.len();
            pull_back(
                &given[range.clone()],
                &cotangent[range],
                affine,
                first / width,
                T::of(epsilon),
                output,
            )
        },
    );
    (tensor(for_x, x.shape()), parts)
}

/// Writes `x - mean(x)` and returns `1 / sqrt(variance + epsilon)`.
#[inline(always)]
fn centre<T: Scalar, L: Lanes<T>>(x: &[T], epsilon: T, centred: &mut [T]) -> T {
    let count = T::of(x.len() as f64);
    let mean = total::<T, L>(x) / count;
    for (centred, &x) in centred.iter_mut().zip(x) {
        *centred = x - mean;
    }
    T::ONE / (dot::<T, L>(centred, centred) / count + epsilon).sqrt()
}

simd! {
    /// Writes the rows from number `first` on; those without affine map stay zero.
    fn normalise<T, L>(x: &[T], affine: Affine<'_, T>, first: usize, epsilon: T, output: &mut [T]) {
        let rows = x.chunks_exact(affine.width).zip(output.chunks_exact_mut(affine.width));
        for (row, (x, output)) in rows.enumerate() {
            let Some(chosen) = affine.chosen(first + row) else { continue };
            let inverse = centre::<T, L>(x, epsilon, output);
            for ((output, &scale), &shift) in output.iter_mut().zip(affine.scale(chosen)).zip(affine.shift(chosen)) {
                *output = (*output * inverse).mul_add(scale, shift);
            }
        }
    }
}

simd! {
    /// Writes the gradient of the rows from number `first` on and returns the sums for scales and shifts.
    fn pull_back<T, L>(x: &[T], gradient: &[T], affine: Affine<'_, T>, first: usize, epsilon: T, for_x: &mut [T]) -> PartialSums<T> {
        let width = affine.width;
        let count = T::of(width as f64);
        let mut sums = PartialSums::new(2 * width);
        let mut centred = vec![T::ZERO; width];
        let rows = x.chunks_exact(width).zip(gradient.chunks_exact(width)).zip(for_x.chunks_exact_mut(width));
        for (row, ((x, gradient), for_x)) in rows.enumerate() {
            let Some(chosen) = affine.chosen(first + row) else { continue };
            let inverse = centre::<T, L>(x, epsilon, &mut centred);
            let (for_scale, for_shift) = sums.of(chosen).split_at_mut(width);
            for (((for_scale, for_shift), &gradient), &centred) in for_scale.iter_mut().zip(for_shift).zip(gradient).zip(&centred) {
                *for_scale = (gradient * inverse).mul_add(centred, *for_scale);
                *for_shift += gradient;
            }
            // The gradient of the normalised row, before it is made orthogonal to constants and to the row.
            for ((for_x, &gradient), &scale) in for_x.iter_mut().zip(gradient).zip(affine.scale(chosen)) {
                *for_x = gradient * scale;
            }
            let mean = total::<T, L>(for_x) / count;
            let slope = -dot::<T, L>(for_x, &centred) * inverse * inverse / count;
            for (for_x, &centred) in for_x.iter_mut().zip(&centred) {
                *for_x = inverse * slope.mul_add(centred, *for_x - mean);
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    const SIZES: [[usize; 2]; 5] = [[1, 1], [3, 5], [70, 128], [41, 77], [2, 5000]];

    #[test]
    fn layer_norm_agrees_with_its_composition_for_any_size() {
        for [rows, width] in SIZES {
            let (inputs, shape) = (
                [
                    numbers(rows * width, 1),
                    numbers(width, 2),
                    numbers(width, 3),
                ],
                [1, rows, width],
            );
            let apply = |norm: fn(Tensor<3>, Option<(Tensor<1>, Tensor<1>)>, f64) -> Tensor<3>,
                         x: &[Tensor<1>]| {
                norm(
                    x[0].clone().reshape(shape),
                    x.get(1).cloned().zip(x.get(2).cloned()),
                    1e-2,
                )
                .reshape([rows * width])
            };
            check(
                |x| apply(layer_norm, x),
                |x| apply(plain::layer_norm, x),
                &inputs,
            );
            check(
                |x| apply(layer_norm, x),
                |x| apply(plain::layer_norm, x),
                &inputs[..1],
            );
        }
    }

    /// Groups that repeat, alternate and are missing.
    fn groups(rows: usize, count: u32) -> RowChoice {
        let group = |row: u32| {
            if row % 7 == 3 {
                RowChoice::NONE
            } else {
                (row / 5 + row % 2) % count
            }
        };
        RowChoice::new(
            count as usize,
            (0..rows as u32).map(group).collect::<Vec<_>>(),
        )
        .unwrap()
    }

    #[test]
    fn adaptive_layer_norm_agrees_with_its_composition_for_any_size() {
        type Norm = fn(Tensor<2>, Tensor<2>, Tensor<2>, &RowChoice, f64) -> Tensor<2>;
        for ([rows, width], count) in SIZES.into_iter().zip([1, 2, 3, 11, 1]) {
            let (choice, table) = (groups(rows, count), [count as usize, width]);
            let apply = |norm: Norm, x: &[Tensor<1>]| {
                let [scale, shift] = [1, 2].map(|number: usize| x[number].clone().reshape(table));
                norm(
                    x[0].clone().reshape([rows, width]),
                    scale,
                    shift,
                    &choice,
                    1e-2,
                )
                .reshape([rows * width])
            };
            let inputs = [
                numbers(rows * width, 1),
                numbers(table[0] * width, 2),
                numbers(table[0] * width, 3),
            ];
            check(
                |x| apply(adaptive_layer_norm, x),
                |x| apply(plain::adaptive_layer_norm, x),
                &inputs,
            );
        }
    }

    #[test]
    fn one_group_is_plain_layer_norm_to_the_last_bit() {
        let device = burn::tensor::Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, -2.0, 0.5], [3.0, 0.0, 0.25]], &device);
        let [weight, bias] =
            [[2.0, 1.0, -1.0], [0.1, 0.2, 0.3]].map(|row| Tensor::<1>::from_floats(row, &device));
        let choice = RowChoice::new(1, [0, 0]).unwrap();
        let adaptive = adaptive_layer_norm(
            x.clone(),
            weight.clone().unsqueeze(),
            bias.clone().unsqueeze(),
            &choice,
            1e-5,
        );
        assert_eq!(
            layer_norm(x, Some((weight, bias)), 1e-5).into_data(),
            adaptive.into_data()
        );
    }

    #[test]
    fn a_row_of_two_numbers_becomes_minus_one_and_one() {
        let x = Tensor::<2>::from_floats([[1000.0, 1004.0]], &burn::tensor::Device::flex());
        assert_eq!(
            layer_norm(x, None, 0.0)
                .into_data()
                .try_to_vec::<f32>()
                .unwrap(),
            [-1.0, 1.0]
        );
    }

    #[test]
    fn masked_rows_are_zero_whatever_they_hold() {
        let device = burn::tensor::Device::flex();
        let x = Tensor::<2>::from_floats([[f32::NAN, 1.0], [3.0, 1.0]], &device);
        let ones = Tensor::<2>::ones([1, 2], &device);
        let choice = RowChoice::new(1, [RowChoice::NONE, 0]).unwrap();
        let output = adaptive_layer_norm(x, ones.clone(), ones, &choice, 0.0);
        assert_eq!(
            output.into_data().try_to_vec::<f32>().unwrap(),
            [0.0, 0.0, 2.0, 0.0]
        );
    }

    #[test]
    fn no_rows_give_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        let [scale, shift] =
            [2, 2].map(|groups| Tensor::<2>::ones([groups, 4], &device).require_grad());
        let choice = RowChoice::new(2, []).unwrap();
        let output = adaptive_layer_norm(
            Tensor::zeros([0, 4], &device),
            scale.clone(),
            shift.clone(),
            &choice,
            1e-5,
        );
        assert_eq!(output.dims(), [0, 4]);
        let gradients = output.sum().backward();
        for input in [scale, shift] {
            assert_eq!(
                input
                    .grad(&gradients)
                    .unwrap()
                    .into_data()
                    .try_to_vec::<f32>()
                    .unwrap(),
                [0.0; 8]
            );
        }
        assert_eq!(
            layer_norm(Tensor::<3>::zeros([2, 3, 0], &device), None, 1e-5).dims(),
            [2, 3, 0]
        );
    }
}
