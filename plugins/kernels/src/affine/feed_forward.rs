//! A feed-forward network with its norm, its dropouts and its residual connection, block of rows by block of rows.
//!
//! The forward pass keeps the input and the hidden values before the activation; the backward pass makes the rest again,
//! which one evaluation of the normal distribution function gives together with the derivative.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::product::{Job, Matrix, add_rows, affine, block_rows, multiply, weight_gradients};
use crate::dispatch::{Kernel, fused, tensor, values};
use crate::dropout::Dropout;
use crate::norm::{normalise, pull_back};
use crate::parallel::build_each;
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// An affine map: weight `[inputs, outputs]` and bias `[outputs]`.
type Affine = (Tensor<2>, Tensor<1>);

/// See [`crate::feed_forward`].
pub(crate) fn feed_forward(
    x: Tensor<2>,
    norm: Option<(Tensor<1>, f64)>,
    [first, second]: [Affine; 2],
    dropouts: [Option<Dropout>; 2],
) -> Tensor<2> {
    let (width, hidden) = (x.dims()[1], first.1.dims()[0]);
    assert_eq!(
        first.0.dims(),
        [width, hidden],
        "feed_forward: shape of the first weight"
    );
    assert_eq!(
        second.0.dims(),
        [hidden, width],
        "feed_forward: shape of the second weight"
    );
    assert_eq!(
        second.1.dims(),
        [width],
        "feed_forward: length of the second bias"
    );
    let dropouts = dropouts.map(|dropout| dropout.filter(Dropout::acts));
    let [x, w1, b1, w2, b2] = [
        x.into_dispatch(),
        first.0.into_dispatch(),
        first.1.into_dispatch(),
        second.0.into_dispatch(),
        second.1.into_dispatch(),
    ];
    let plain = |[x, w1, b1, w2, b2]: [_; 5], norm| {
        let (first, second) = (
            (Tensor::from_dispatch(w1), Tensor::from_dispatch(b1)),
            (Tensor::from_dispatch(w2), Tensor::from_dispatch(b2)),
        );
        composed(Tensor::from_dispatch(x), norm, [first, second], dropouts)
    };
    let Some((gain, epsilon)) = norm else {
        let kernel = FeedForward {
            epsilon: None,
            dropouts,
        };
        return fused(kernel, [x, w1, b1, w2, b2])
            .map_or_else(|inputs| plain(inputs, None), Tensor::from_dispatch);
    };
    assert_eq!(gain.dims(), [width], "feed_forward: length of the gain");
    let kernel = FeedForward {
        epsilon: Some(epsilon),
        dropouts,
    };
    match fused(kernel, [x, w1, b1, w2, b2, gain.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x, w1, b1, w2, b2, gain]) => plain(
            [x, w1, b1, w2, b2],
            Some((Tensor::from_dispatch(gain), epsilon)),
        ),
    }
}

/// The same as ordinary tensor operations.
pub(crate) fn composed(
    x: Tensor<2>,
    norm: Option<(Tensor<1>, f64)>,
    [first, second]: [Affine; 2],
    [inner, outer]: [Option<Dropout>; 2],
) -> Tensor<2> {
    let drop = |x: Tensor<2>, dropout: Option<Dropout>| match dropout {
        Some(dropout) => plain::dropout(x, dropout),
        None => x,
    };
    let map = |x: Tensor<2>, (weight, bias): Affine| plain::mapped(x, weight, bias);
    let normed = match norm {
        Some((gain, epsilon)) => plain::rms_norm(x.clone(), gain, epsilon),
        None => x.clone(),
    };
    x + drop(
        map(drop(plain::gelu(map(normed, first)), inner), second),
        outer,
    )
}

#[derive(Debug, Clone, Copy)]
struct FeedForward {
    /// Of the norm, where there is one.
    epsilon: Option<f64>,
    dropouts: [Option<Dropout>; 2],
}

/// Without a norm.
impl Kernel<5> for FeedForward {
    type Saved = Saved;

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 5]) -> (FlexTensor, Saved) {
        let [x, w1, b1, w2, b2] = inputs.map(|input| input.to_contiguous());
        self.apply::<T>(x, [w1, b1, w2, b2], None)
    }

    fn backward<T: Scalar>(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        wanted: [bool; 5],
    ) -> [Option<FlexTensor>; 5] {
        let [x, w1, b1, w2, b2, _] = self.pull_back::<T>(&saved, &gradient);
        let mut wanted = wanted.into_iter();
        [x, w1, b1, w2, b2].map(|gradient| wanted.next().unwrap_or(false).then_some(gradient))
    }
}

/// With a norm, whose gain is the last input.
impl Kernel<6> for FeedForward {
    type Saved = Saved;

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 6]) -> (FlexTensor, Saved) {
        let [x, w1, b1, w2, b2, gain] = inputs.map(|input| input.to_contiguous());
        self.apply::<T>(x, [w1, b1, w2, b2], Some(gain))
    }

    fn backward<T: Scalar>(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        wanted: [bool; 6],
    ) -> [Option<FlexTensor>; 6] {
        let mut wanted = wanted.into_iter();
        self.pull_back::<T>(&saved, &gradient)
            .map(|gradient| wanted.next().unwrap_or(false).then_some(gradient))
    }
}

#[derive(Debug, Clone)]
struct Saved {
    x: FlexTensor,
    gain: Option<FlexTensor>,
    weights: [FlexTensor; 2],
    /// Hidden values before the activation, `[rows, hidden]`.
    before: FlexTensor,
}

impl FeedForward {
    /// Normed rows, or the rows themselves.
    fn normed<'a, T: Scalar>(
        &self,
        x: &'a [T],
        gain: Option<&FlexTensor>,
        scratch: &'a mut [T],
    ) -> &'a [T] {
        match (self.epsilon, gain) {
            (Some(epsilon), Some(gain)) => {
                normalise(x, values::<T>(gain), T::of(epsilon), scratch);
                scratch
            }
            _ => x,
        }
    }

    fn apply<T: Scalar>(
        &self,
        x: FlexTensor,
        [w1, b1, w2, b2]: [FlexTensor; 4],
        gain: Option<FlexTensor>,
    ) -> (FlexTensor, Saved) {
        let [rows, width] = [x.shape()[0], x.shape()[1]];
        let hidden = b1.shape()[0];
        let given = values::<T>(&x);
        let maps = [
            (values::<T>(&w1), values::<T>(&b1)),
            (values::<T>(&w2), values::<T>(&b2)),
        ];
        let block = block_rows(rows);
        let [output, before] = build_each(
            [rows * width, rows * hidden],
            [block * width, block * hidden],
            |number, [output, before]| {
                let first = number * block;
                let x = &given[first * width..][..output.len()];
                let mut scratch = vec![T::ZERO; output.len()];
                let normed = self.normed(x, gain.as_ref(), &mut scratch);
                affine(
                    Matrix::new(normed, width),
                    Matrix::new(maps[0].0, hidden),
                    maps[0].1,
                    before,
                );
                let mut activated = vec![T::ZERO; before.len()];
                activate(before, self.dropouts[0], first * hidden, &mut activated);
                affine(
                    Matrix::new(&activated, hidden),
                    Matrix::new(maps[1].0, width),
                    maps[1].1,
                    output,
                );
                drop_and_add(self.dropouts[1], first * width, x, output);
            },
        );
        let before = tensor(before, [rows, hidden]);
        (
            tensor(output, [rows, width]),
            Saved {
                x,
                gain,
                weights: [w1, w2],
                before,
            },
        )
    }

    /// Gradients of `x`, first weight and bias, second weight and bias, gain.
    fn pull_back<T: Scalar>(&self, saved: &Saved, gradient: &FlexTensor) -> [FlexTensor; 6] {
        let gradient = gradient.to_contiguous();
        let (given, x, before) = (
            values::<T>(&gradient),
            values::<T>(&saved.x),
            values::<T>(&saved.before),
        );
        let [w1, w2] = saved.weights.each_ref().map(values::<T>);
        let [rows, width] = [saved.x.shape()[0], saved.x.shape()[1]];
        let hidden = saved.before.shape()[1];
        let (block, normed_width) = (
            block_rows(rows),
            if saved.gain.is_some() { width } else { 0 },
        );
        let blocks = rows.div_ceil(block);
        let sums = hidden + 2 * width;
        let widths = [width, normed_width, hidden, hidden, width];
        let lens =
            [widths[0], widths[1], widths[2], widths[3], widths[4]].map(|width| rows * width);
        let chunks = widths.map(|width| block * width);
        let [for_x, normed, activated, for_before, for_second, partial] = build_each(
            [lens[0], lens[1], lens[2], lens[3], lens[4], blocks * sums],
            [chunks[0], chunks[1], chunks[2], chunks[3], chunks[4], sums],
            |number, [for_x, normed, activated, for_before, for_second, partial]| {
                let first = number * block;
                let elements = for_x.len();
                let (x, given) = (
                    &x[first * width..][..elements],
                    &given[first * width..][..elements],
                );
                let (for_bias, rest) = partial.split_at_mut(hidden);
                let (for_second_bias, for_gain) = rest.split_at_mut(width);
                drop_into(self.dropouts[1], first * width, given, for_second);
                add_rows(for_second, for_second_bias);
                multiply(
                    Matrix::new(for_second, width),
                    Matrix::new(w2, width).transposed(),
                    false,
                    for_before,
                );
                let before = &before[first * hidden..][..for_before.len()];
                activate_and_pull_back(
                    before,
                    self.dropouts[0],
                    first * hidden,
                    for_before,
                    activated,
                );
                add_rows(for_before, for_bias);
                let to_norm = Matrix::new(w1, hidden).transposed();
                let Some(gain) = &saved.gain else {
                    for_x.copy_from_slice(given);
                    multiply(Matrix::new(for_before, hidden), to_norm, true, for_x);
                    return;
                };
                let mut for_normed = vec![T::ZERO; elements];
                multiply(
                    Matrix::new(for_before, hidden),
                    to_norm,
                    false,
                    &mut for_normed,
                );
                let (gain, epsilon) = (values::<T>(gain), T::of(self.epsilon.unwrap_or_default()));
                normalise(x, gain, epsilon, normed);
                pull_back(x, gain, &for_normed, epsilon, for_x, for_gain);
                for (for_x, &given) in for_x.iter_mut().zip(given) {
                    *for_x += given;
                }
            },
        );
        let normed = if saved.gain.is_some() { &normed } else { x };
        let [for_w1, for_w2] = weight_gradients([
            Job {
                left: normed,
                inputs: width,
                right: &for_before,
                outputs: hidden,
            },
            Job {
                left: &activated,
                inputs: hidden,
                right: &for_second,
                outputs: width,
            },
        ]);
        let mut total = vec![T::ZERO; sums];
        add_rows(&partial, &mut total);
        let for_gain = total.split_off(hidden + width);
        let for_second_bias = total.split_off(hidden);
        [
            tensor(for_x, [rows, width]),
            tensor(for_w1, [width, hidden]),
            tensor(total, [hidden]),
            tensor(for_w2, [hidden, width]),
            tensor(for_second_bias, [width]),
            tensor(for_gain, [width]),
        ]
    }
}

simd! {
    /// `output = dropout(gelu(x))` for the elements of a tensor from number `first` on.
    pub(crate) fn activate<T, L>(x: &[T], dropout: Option<Dropout>, first: usize, output: &mut [T]) {
        for (output, &x) in output.iter_mut().zip(x) {
            *output = x * x.normal().0;
        }
        if let Some(dropout) = dropout {
            dropout.apply(first, output);
        }
    }
}

simd! {
    /// The gradient of `x` from that of `dropout(gelu(x))`, in place, and `dropout(gelu(x))` itself.
    pub(crate) fn activate_and_pull_back<T, L>(x: &[T], dropout: Option<Dropout>, first: usize, gradient: &mut [T], output: &mut [T]) {
        output.fill(T::ONE);
        if let Some(dropout) = dropout {
            dropout.apply(first, output);
        }
        for ((output, gradient), &x) in output.iter_mut().zip(gradient).zip(x) {
            let (cumulative, density) = x.normal();
            *gradient = *gradient * *output * x.mul_add(density, cumulative);
            *output *= x * cumulative;
        }
    }
}

simd! {
    /// `output = x + dropout(output)`
    fn drop_and_add<T, L>(dropout: Option<Dropout>, first: usize, x: &[T], output: &mut [T]) {
        if let Some(dropout) = dropout {
            dropout.apply(first, output);
        }
        for (output, &x) in output.iter_mut().zip(x) {
            *output += x;
        }
    }
}

simd! {
    /// `output = dropout(x)`
    pub(crate) fn drop_into<T, L>(dropout: Option<Dropout>, first: usize, x: &[T], output: &mut [T]) {
        output.copy_from_slice(x);
        if let Some(dropout) = dropout {
            dropout.apply(first, output);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    fn check_feed_forward(
        [rows, width, hidden]: [usize; 3],
        normed: bool,
        dropouts: [Option<Dropout>; 2],
    ) {
        // Weights small enough for sums of order one.
        let weight = |seed| {
            numbers(width * hidden, seed)
                .iter()
                .map(|w| w / (hidden as f64).sqrt())
                .collect::<Vec<_>>()
        };
        let mut inputs = vec![
            numbers(rows * width, 1),
            weight(2),
            numbers(hidden, 3),
            weight(4),
            numbers(width, 5),
        ];
        if normed {
            inputs.push(numbers(width, 6));
        }
        type Network =
            fn(Tensor<2>, Option<(Tensor<1>, f64)>, [Affine; 2], [Option<Dropout>; 2]) -> Tensor<2>;
        let apply = |network: Network, x: &[Tensor<1>]| {
            let first = (x[1].clone().reshape([width, hidden]), x[2].clone());
            let second = (x[3].clone().reshape([hidden, width]), x[4].clone());
            let norm = x.get(5).map(|gain| (gain.clone(), 1e-6));
            network(
                x[0].clone().reshape([rows, width]),
                norm,
                [first, second],
                dropouts,
            )
            .reshape([rows * width])
        };
        check(|x| apply(feed_forward, x), |x| apply(composed, x), &inputs);
    }

    #[test]
    fn feed_forward_agrees_with_its_composition_for_any_size() {
        for sizes in [[1, 1, 1], [5, 3, 7], [150, 16, 40]] {
            check_feed_forward(sizes, true, [None; 2]);
            check_feed_forward(sizes, false, [None; 2]);
        }
    }

    #[test]
    fn dropouts_have_the_masks_of_separate_operations() {
        let [inner, outer] = [3, 4].map(|seed| {
            Some(Dropout {
                probability: 0.3,
                seed,
            })
        });
        check_feed_forward([150, 8, 40], true, [inner, outer]);
        check_feed_forward([20, 8, 40], false, [inner, None]);
        check_feed_forward([20, 8, 40], true, [None, outer]);
    }

    #[test]
    fn no_rows_give_no_gradient() {
        let device = burn::tensor::Device::flex().autodiff();
        let weight = Tensor::<2>::ones([2, 3], &device).require_grad();
        let maps = [
            (weight.clone(), Tensor::ones([3], &device)),
            (Tensor::ones([3, 2], &device), Tensor::ones([2], &device)),
        ];
        let output = feed_forward(
            Tensor::zeros([0, 2], &device),
            Some((Tensor::ones([2], &device), 1e-6)),
            maps,
            [None; 2],
        );
        assert_eq!(output.dims(), [0, 2]);
        let gradients = output.sum().backward();
        assert_eq!(
            weight
                .grad(&gradients)
                .unwrap()
                .into_data()
                .try_to_vec::<f32>()
                .unwrap(),
            [0.0; 6]
        );
    }
}
