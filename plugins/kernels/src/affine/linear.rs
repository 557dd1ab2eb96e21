//! An affine map with what follows it: GELU and dropout.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::feed_forward::{activate, activate_and_pull_back};
use super::product::{Job, Matrix, add_rows, affine, block_rows, multiply, weight_gradients};
use crate::dispatch::{Kernel, fused, tensor, values};
use crate::dropout::Dropout;
use crate::parallel::build_each;
use crate::plain;
use crate::scalar::Scalar;

/// What follows an affine map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Then {
    Nothing,
    Gelu(Option<Dropout>),
}

/// `x W + b` for `x [rows, inputs]`, `W [inputs, outputs]`, `b [outputs]`, and what follows.
pub(crate) fn linear(
    x: Tensor<2>,
    (weight, bias): (Tensor<2>, Tensor<1>),
    then: Then,
) -> Tensor<2> {
    assert_eq!(
        weight.dims(),
        [x.dims()[1], bias.dims()[0]],
        "affine: shape of the weight"
    );
    let then = match then {
        Then::Gelu(dropout) => Then::Gelu(dropout.filter(Dropout::acts)),
        Then::Nothing => Then::Nothing,
    };
    match fused(
        Linear(then),
        [
            x.into_dispatch(),
            weight.into_dispatch(),
            bias.into_dispatch(),
        ],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x, weight, bias]) => composed(
            Tensor::from_dispatch(x),
            (Tensor::from_dispatch(weight), Tensor::from_dispatch(bias)),
            then,
        ),
    }
}

/// The same as ordinary tensor operations.
pub(crate) fn composed(
    x: Tensor<2>,
    (weight, bias): (Tensor<2>, Tensor<1>),
    then: Then,
) -> Tensor<2> {
    let mapped = plain::mapped(x, weight, bias);
    match then {
        Then::Nothing => mapped,
        Then::Gelu(None) => plain::gelu(mapped),
        Then::Gelu(Some(dropout)) => plain::dropout(plain::gelu(mapped), dropout),
    }
}

#[derive(Debug)]
struct Linear(Then);

#[derive(Debug, Clone)]
struct Saved {
    x: FlexTensor,
    weight: FlexTensor,
    /// Values before the activation, if there is one.
    before: Option<FlexTensor>,
}

impl Kernel<3> for Linear {
    type Saved = Saved;

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Saved) {
        let [x, weight, bias] = inputs.map(|input| input.to_contiguous());
        let (rows, inputs, outputs) = (x.shape()[0], x.shape()[1], bias.shape()[0]);
        let (given, map, bias) = (values::<T>(&x), values::<T>(&weight), values::<T>(&bias));
        let block = block_rows(rows);
        let kept = if self.0 == Then::Nothing { 0 } else { outputs };
        let [output, before] = build_each(
            [rows * outputs, rows * kept],
            [block * outputs, block * kept],
            |number, [output, before]| {
                let first = number * block;
                let count = output.len() / outputs.max(1);
                let x = Matrix::new(&given[first * inputs..][..count * inputs], inputs);
                match self.0 {
                    Then::Nothing => affine(x, Matrix::new(map, outputs), bias, output),
                    Then::Gelu(dropout) => {
                        affine(x, Matrix::new(map, outputs), bias, before);
                        activate(before, dropout, first * outputs, output);
                    }
                }
            },
        );
        let before = (kept > 0).then(|| tensor(before, [rows, outputs]));
        (tensor(output, [rows, outputs]), Saved { x, weight, before })
    }

    fn backward<T: Scalar>(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let gradient = gradient.to_contiguous();
        let (x, map, given) = (
            values::<T>(&saved.x),
            values::<T>(&saved.weight),
            values::<T>(&gradient),
        );
        let (rows, inputs, outputs) = (saved.x.shape()[0], saved.x.shape()[1], gradient.shape()[1]);
        let block = block_rows(rows);
        let blocks = rows.div_ceil(block);
        let kept = if saved.before.is_some() { outputs } else { 0 };
        let backward = if wanted[0] { inputs } else { 0 };
        let lens = [rows * backward, rows * kept, blocks * outputs];
        let [for_x, for_before, partial] = build_each(
            lens,
            [block * backward, block * kept, outputs],
            |number, parts| {
                let [for_x, for_before, for_bias] = parts;
                let first = number * block;
                let count = block.min(rows - first);
                let given = &given[first * outputs..][..count * outputs];
                let given = match (&saved.before, self.0) {
                    (Some(before), Then::Gelu(dropout)) => {
                        for_before.copy_from_slice(given);
                        let before = &values::<T>(before)[first * outputs..][..count * outputs];
                        activate_and_pull_back(
                            before,
                            dropout,
                            first * outputs,
                            for_before,
                            &mut vec![T::ZERO; before.len()],
                        );
                        &*for_before
                    }
                    _ => given,
                };
                add_rows(given, for_bias);
                if backward > 0 {
                    multiply(
                        Matrix::new(given, outputs),
                        Matrix::new(map, outputs).transposed(),
                        false,
                        for_x,
                    );
                }
            },
        );
        let right = if kept > 0 { &for_before } else { given };
        let for_weight = wanted[1].then(|| {
            let [for_weight] = weight_gradients([Job {
                left: x,
                inputs,
                right,
                outputs,
            }]);
            tensor(for_weight, [inputs, outputs])
        });
        let mut for_bias = vec![T::ZERO; outputs];
        add_rows(&partial, &mut for_bias);
        [
            wanted[0].then(|| tensor(for_x, [rows, inputs])),
            for_weight,
            wanted[2].then(|| tensor(for_bias, [outputs])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn affine_maps_agree_with_their_composition_for_any_size() {
        let dropout = Dropout {
            probability: 0.3,
            seed: 5,
        };
        for [rows, inputs, outputs] in [[1, 1, 1], [7, 3, 5], [150, 40, 70]] {
            for then in [Then::Nothing, Then::Gelu(None), Then::Gelu(Some(dropout))] {
                type Map = fn(Tensor<2>, (Tensor<2>, Tensor<1>), Then) -> Tensor<2>;
                let apply = |map: Map, x: &[Tensor<1>]| {
                    let weight = x[1].clone().reshape([inputs, outputs]) / (inputs as f64).sqrt();
                    map(
                        x[0].clone().reshape([rows, inputs]),
                        (weight, x[2].clone()),
                        then,
                    )
                    .reshape([rows * outputs])
                };
                let given = [
                    numbers(rows * inputs, 1),
                    numbers(inputs * outputs, 2),
                    numbers(outputs, 3),
                ];
                check(|x| apply(linear, x), |x| apply(composed, x), &given);
            }
        }
    }

    #[test]
    fn no_rows_and_no_inputs_are_maps_too() {
        let device = burn::tensor::Device::flex().autodiff();
        for [rows, inputs] in [[0, 3], [2, 0]] {
            let x = Tensor::<2>::ones([rows, inputs], &device).require_grad();
            let bias = Tensor::<1>::from_floats([1.5, -2.0], &device).require_grad();
            let weight = Tensor::<2>::ones([inputs, 2], &device).require_grad();
            let mapped = linear(x.clone(), (weight.clone(), bias.clone()), Then::Nothing);
            assert_eq!(
                mapped.clone().into_data().try_to_vec::<f32>().unwrap(),
                [1.5, -2.0].repeat(rows)
            );
            let gradients = mapped.sum().backward();
            assert_eq!(
                bias.grad(&gradients)
                    .unwrap()
                    .into_data()
                    .try_to_vec::<f32>()
                    .unwrap(),
                [rows as f32; 2]
            );
            assert_eq!(
                weight
                    .grad(&gradients)
                    .unwrap()
                    .into_data()
                    .try_to_vec::<f32>()
                    .unwrap(),
                vec![0.0; inputs * 2]
            );
            assert_eq!(x.grad(&gradients).unwrap().dims(), [rows, inputs]);
        }
    }
}
