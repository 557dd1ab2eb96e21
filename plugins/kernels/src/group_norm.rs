//! Group normalisation of voxel grids, SiLU and dropout in one go.
//!
//! Mean and variance are those of blocks of [`BLOCK`] numbers, merged in f64 by the rule of Chan, Golub and LeVeque. Within a
//! block, which is in the cache, they are taken in two passes: the second one is over differences from the mean, so that
//! an offset of all numbers costs no digits, and corrects the mean for its own rounding. Sums of the backward pass, too, are in
//! the type of the numbers within blocks and in f64 across. Blocks and their order depend on the shape only.

use std::ops::Range;

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::Dropout;
use crate::activation::sigmoid;
use crate::dispatch::{Kernel, fused, tensor, values};
use crate::lanes::{dot, total};
use crate::parallel::{CHUNK, build_groups, build_with, each_piece};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// `silu((x - mean) / sqrt(variance + epsilon) * scale + shift)`, and then dropout if there is one.
///
/// `x [batch, channels, side, side, side]` (sides may differ), `scale` and `shift [channels]`. Mean and variance (the biased one)
/// are those of a sample over all voxels of `channels / groups` consecutive channels. `dropout` uses the mask that
/// [`dropout`](crate::dropout()) uses for a tensor of this shape. Gradients of `x`, `scale` and `shift`.
///
/// # Panics
/// If `groups` does not divide the channels, `scale` or `shift` have another length, or the probability is not in `0.0..1.0`.
pub fn group_norm_silu(
    x: Tensor<5>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    groups: usize,
    epsilon: f64,
    dropout: Option<Dropout>,
) -> Tensor<5> {
    let channels = x.dims()[1];
    assert!(
        groups > 0 && channels.is_multiple_of(groups),
        "group_norm_silu: {groups} groups do not divide {channels} channels"
    );
    assert_eq!(
        scale.dims(),
        [channels],
        "group_norm_silu: one scale for every channel"
    );
    assert_eq!(
        shift.dims(),
        [channels],
        "group_norm_silu: one shift for every channel"
    );
    let kernel = GroupNormSilu {
        groups,
        epsilon,
        dropout: dropout.filter(Dropout::acts),
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
            let (scale, shift) = (Tensor::from_dispatch(scale), Tensor::from_dispatch(shift));
            plain::group_norm_silu(
                Tensor::from_dispatch(x),
                scale,
                shift,
                groups,
                epsilon,
                dropout,
            )
        }
    }
}

/// Numbers that are summed in their own type: 32 additions one after the other in each lane, which leaves f32 sums right to 1e-6
/// at worst.
const BLOCK: usize = 1024;

/// Inputs are `x`, `scale` and `shift`.
#[derive(Debug)]
struct GroupNormSilu {
    groups: usize,
    epsilon: f64,
    dropout: Option<Dropout>,
}

/// What the backward pass reads.
#[derive(Debug, Clone)]
struct Saved {
    inputs: [FlexTensor; 3],
    /// Of every group of every sample.
    standards: Vec<Standard>,
}

impl Kernel<3> for GroupNormSilu {
    type Saved = Saved;

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 3]) -> (FlexTensor, Saved) {
        let inputs = inputs.map(|input| input.to_contiguous());
        let (given, norm) = (values::<T>(&inputs[0]), self.norm::<T>(&inputs));
        let standardise = |group: usize| {
            let standard = Standard::of(
                &given[group * norm.group_len()..][..norm.group_len()],
                self.epsilon,
            );
            (standard, standard)
        };
        let (output, standards) = build_groups(
            given.len(),
            norm.group_len(),
            CHUNK,
            standardise,
            |standard, first, output| {
                activate(
                    norm,
                    *standard,
                    first,
                    &given[first..][..output.len()],
                    output,
                );
            },
        );
        (
            tensor(output, inputs[0].shape()),
            Saved { inputs, standards },
        )
    }

    fn backward<T: Scalar>(
        &self,
        saved: Saved,
        gradient: FlexTensor,
        wanted: [bool; 3],
    ) -> [Option<FlexTensor>; 3] {
        let gradient = gradient.to_contiguous();
        let (given, cotangent, norm) = (
            values::<T>(&saved.inputs[0]),
            values::<T>(&gradient),
            self.norm::<T>(&saved.inputs),
        );
        let len = norm.group_len();
        let through_activation = |group: usize| {
            let (first, standard) = (group * len, saved.standards[group]);
            let (inner, parts) = build_with(len, CHUNK, |at, inner| {
                let range = first + at..first + at + inner.len();
                pull_through_activation(
                    norm,
                    standard,
                    range.start,
                    &given[range.clone()],
                    &cotangent[range],
                    inner,
                )
            });
            let sums = norm.sums_of_channels(&parts);
            let slopes = norm.slopes(group, &sums, standard);
            ((inner, first, standard, slopes), sums)
        };
        let (for_x, sums) = build_groups(
            given.len(),
            len,
            CHUNK,
            through_activation,
            |(inner, first, standard, slopes), at, for_x| {
                let inner = &inner[at - first..][..for_x.len()];
                pull_through_norm(
                    norm,
                    *standard,
                    *slopes,
                    at,
                    inner,
                    &given[at..][..for_x.len()],
                    for_x,
                );
            },
        );
        let for_channels = |which: fn(&Sums) -> f64| norm.sum_over_samples(&sums, which);
        [
            wanted[0].then(|| tensor(for_x, saved.inputs[0].shape())),
            wanted[1].then(|| {
                tensor(
                    for_channels(|sums| sums.times_normal),
                    saved.inputs[1].shape(),
                )
            }),
            wanted[2].then(|| tensor(for_channels(|sums| sums.plain), saved.inputs[2].shape())),
        ]
    }
}

impl GroupNormSilu {
    fn norm<'a, T: Scalar>(&self, [x, scale, shift]: &'a [FlexTensor; 3]) -> Norm<'a, T> {
        let shape = x.shape();
        let voxels = shape.iter().skip(2).product();
        let group = scale.shape()[0] / self.groups;
        Norm {
            voxels,
            group,
            scale: values(scale),
            shift: values(shift),
            dropout: self.dropout,
        }
    }
}

/// Count, mean and sum of squared differences from the mean.
#[derive(Debug, Clone, Copy)]
struct Moments {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Moments {
    const NONE: Self = Self {
        count: 0.0,
        mean: 0.0,
        squares: 0.0,
    };

    /// Those of both sets together; `other` is not empty.
    #[inline(always)]
    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        let (difference, share) = (other.mean - self.mean, other.count / count);
        Self {
            count,
            mean: self.mean + difference * share,
            squares: self.squares + other.squares + difference * difference * self.count * share,
        }
    }
}

simd! {
    fn moments<T, L>(x: &[T]) -> Moments {
        let mut moments = Moments::NONE;
        let mut centred = [T::ZERO; BLOCK];
        for block in x.chunks(BLOCK) {
            let count = block.len() as f64;
            let middle = T::of(total::<T, L>(block).wide() / count);
            let centred = &mut centred[..block.len()];
            for (centred, &x) in centred.iter_mut().zip(block) {
                *centred = x - middle;
            }
            let rest = total::<T, L>(centred).wide();
            let squares = dot::<T, L>(centred, centred).wide() - rest * rest / count;
            moments = moments.merge(Moments { count, mean: middle.wide() + rest / count, squares });
        }
        moments
    }
}

/// What makes a group standard.
#[derive(Debug, Clone, Copy)]
struct Standard {
    mean: f64,
    /// `1 / sqrt(variance + epsilon)`
    inverse: f64,
}

impl Standard {
    /// `x` is one group, not empty.
    fn of<T: Scalar>(x: &[T], epsilon: f64) -> Self {
        let parts = each_piece(x.len(), CHUNK, |first, count| moments(&x[first..][..count]));
        let Moments {
            count,
            mean,
            squares,
        } = parts.into_iter().fold(Moments::NONE, Moments::merge);
        // Rounding may leave equal numbers a negative variance.
        let variance = (squares / count).max(0.0);
        Self {
            mean,
            inverse: 1.0 / (variance + epsilon).sqrt(),
        }
    }
}

/// The affine maps of all channels and where channels lie.
#[derive(Debug, Clone, Copy)]
struct Norm<'a, T> {
    voxels: usize,
    /// Channels of a group.
    group: usize,
    scale: &'a [T],
    shift: &'a [T],
    dropout: Option<Dropout>,
}

/// Numbers of one channel within a piece.
struct Run {
    channel: usize,
    range: Range<usize>,
}

/// What becomes of `x` of one channel: `(x - mean) * slope + offset`, where the difference is exact for `x` near the mean.
#[derive(Debug, Clone, Copy)]
struct Affine<T> {
    mean: T,
    slope: T,
    offset: T,
}

impl<'a, T: Scalar> Norm<'a, T> {
    fn group_len(&self) -> usize {
        self.group * self.voxels
    }

    /// Cuts the `len` numbers from number `first` of the tensor on where a channel ends, and after [`BLOCK`] numbers.
    #[inline(always)]
    fn runs(self, first: usize, len: usize) -> impl Iterator<Item = Run> {
        let mut begin = 0;
        std::iter::from_fn(move || {
            let (channel, voxel) = ((first + begin) / self.voxels, (first + begin) % self.voxels);
            let end = (begin + BLOCK.min(self.voxels - voxel)).min(len);
            let range = std::mem::replace(&mut begin, end)..end;
            (!range.is_empty()).then(|| Run {
                channel: channel % self.scale.len(),
                range,
            })
        })
    }

    #[inline(always)]
    fn affine(&self, channel: usize, standard: Standard) -> Affine<T> {
        let mean = T::of(standard.mean);
        let slope = standard.inverse * self.scale[channel].wide();
        let offset = self.shift[channel].wide() - standard.rest(mean) * slope;
        Affine {
            mean,
            slope: T::of(slope),
            offset: T::of(offset),
        }
    }

    /// Applies the mask to the elements from number `first` on.
    #[inline(always)]
    fn drop(&self, first: usize, values: &mut [T]) {
        if let Some(dropout) = self.dropout {
            dropout.apply(first, values);
        }
    }

    /// Adds up parts of one group in order.
    fn sums_of_channels(&self, parts: &[PieceSums]) -> Vec<Sums> {
        let mut total = vec![Sums::default(); self.group];
        for part in parts {
            let channels = total.iter_mut().skip(part.first_channel % self.group);
            channels
                .zip(&part.sums)
                .for_each(|(total, sums)| *total = total.plus(*sums));
        }
        total
    }

    /// Which combination of the standard group and a constant the gradient of a group lacks, from the sums of its channels.
    fn slopes(&self, group: usize, sums: &[Sums], standard: Standard) -> Slopes<T> {
        let first = group * self.group % self.scale.len();
        let scales = self.scale[first..][..self.group]
            .iter()
            .map(|scale| scale.wide());
        let all = scales
            .zip(sums)
            .fold(Sums::default(), |all, (scale, sums)| {
                all.plus(sums.times(scale))
            });
        let mean = all.times(1.0 / self.group_len() as f64);
        let linear = -mean.times_normal * standard.inverse * standard.inverse;
        let constant =
            -mean.plain * standard.inverse - linear * standard.rest(T::of(standard.mean));
        Slopes {
            linear: T::of(linear),
            constant: T::of(constant),
        }
    }

    /// The gradient of a vector over channels, from the sums of all groups of all samples.
    fn sum_over_samples(&self, sums: &[Vec<Sums>], which: fn(&Sums) -> f64) -> Vec<T> {
        let mut total = vec![0.0; self.scale.len()];
        for (place, sums) in sums.iter().flatten().enumerate() {
            total[place % self.scale.len()] += which(sums);
        }
        total.into_iter().map(T::of).collect()
    }
}

impl Standard {
    /// What the mean has beyond its rounded value.
    #[inline(always)]
    fn rest<T: Scalar>(self, rounded: T) -> f64 {
        self.mean - rounded.wide()
    }
}

/// Sums over voxels of a channel.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    /// Of the gradient with respect to what SiLU reads.
    plain: f64,
    /// Of its product with `(x - mean) / sqrt(variance + epsilon)`.
    times_normal: f64,
}

impl Sums {
    fn plus(self, other: Self) -> Self {
        Self {
            plain: self.plain + other.plain,
            times_normal: self.times_normal + other.times_normal,
        }
    }

    fn times(self, factor: f64) -> Self {
        Self {
            plain: self.plain * factor,
            times_normal: self.times_normal * factor,
        }
    }
}

/// Sums of the consecutive channels that a piece has a share of.
struct PieceSums {
    first_channel: usize,
    sums: Vec<Sums>,
}

/// `linear * (x - mean) + constant` with the rounded mean.
#[derive(Debug, Clone, Copy)]
struct Slopes<T> {
    linear: T,
    constant: T,
}

simd! {
    /// Writes the result for the numbers from number `first` of the tensor on.
    fn activate<T, L>(norm: Norm<'_, T>, standard: Standard, first: usize, x: &[T], output: &mut [T]) {
        for Run { channel, range } in norm.runs(first, x.len()) {
            let Affine { mean, slope, offset } = norm.affine(channel, standard);
            let begin = first + range.start;
            let output = &mut output[range.clone()];
            for (output, &x) in output.iter_mut().zip(&x[range]) {
                let inner = (x - mean).mul_add(slope, offset);
                *output = inner * sigmoid(inner);
            }
            norm.drop(begin, output);
        }
    }
}

simd! {
    /// Writes the gradient with respect to what SiLU reads, and returns its sums.
    fn pull_through_activation<T, L>(
        norm: Norm<'_, T>,
        standard: Standard,
        first: usize,
        x: &[T],
        gradient: &[T],
        inner: &mut [T],
    ) -> PieceSums {
        let mut piece = PieceSums { first_channel: first / norm.voxels, sums: Vec::new() };
        let mut centred = [T::ZERO; BLOCK];
        for Run { channel, range } in norm.runs(first, x.len()) {
            let Affine { mean, slope, offset } = norm.affine(channel, standard);
            let (centred, inner) = (&mut centred[..range.len()], &mut inner[range.clone()]);
            inner.copy_from_slice(&gradient[range.clone()]);
            norm.drop(first + range.start, inner);
            for ((inner, centred), &x) in inner.iter_mut().zip(centred.iter_mut()).zip(&x[range.clone()]) {
                *centred = x - mean;
                let z = centred.mul_add(slope, offset);
                let s = sigmoid(z);
                *inner = *inner * s * z.mul_add(T::ONE - s, T::ONE);
            }
            let (plain, slanted) = (total::<T, L>(inner).wide(), dot::<T, L>(inner, centred).wide());
            let times_normal = (slanted - standard.rest(mean) * plain) * standard.inverse;
            piece.add((first + range.start) / norm.voxels, Sums { plain, times_normal });
        }
        piece
    }
}

impl PieceSums {
    /// Channels come in order.
    fn add(&mut self, channel: usize, sums: Sums) {
        self.sums
            .resize(channel - self.first_channel + 1, Sums::default());
        if let Some(last) = self.sums.last_mut() {
            *last = last.plus(sums);
        }
    }
}

simd! {
    /// Writes the gradient of the numbers from number `first` of the tensor on.
    fn pull_through_norm<T, L>(
        norm: Norm<'_, T>,
        standard: Standard,
        slopes: Slopes<T>,
        first: usize,
        inner: &[T],
        x: &[T],
        for_x: &mut [T],
    ) {
        for Run { channel, range } in norm.runs(first, x.len()) {
            let Affine { mean, slope, .. } = norm.affine(channel, standard);
            let numbers = inner[range.clone()].iter().zip(&x[range.clone()]);
            for (for_x, (&inner, &x)) in for_x[range].iter_mut().zip(numbers) {
                *for_x = inner.mul_add(slope, (x - mean).mul_add(slopes.linear, slopes.constant));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device};

    use super::*;
    use crate::dropout;
    use crate::testing::{check, constant, numbers, value_and_gradients};

    /// Shapes and numbers of groups: one group, a channel for each, one voxel, odd sides, pieces that end within channels.
    const SIZES: [([usize; 5], usize); 8] = [
        ([2, 4, 3, 3, 3], 2),
        ([1, 6, 5, 5, 5], 1),
        ([2, 5, 4, 4, 4], 5),
        ([3, 4, 1, 1, 1], 2),
        ([2, 3, 1, 1, 1], 3),
        ([2, 6, 1, 3, 2], 3),
        ([1, 2, 17, 17, 17], 1),
        ([2, 2, 13, 19, 17], 2),
    ];

    type Function = fn(Tensor<5>, Tensor<1>, Tensor<1>, usize, f64, Option<Dropout>) -> Tensor<5>;

    fn flat(
        function: Function,
        x: &[Tensor<1>],
        (shape, groups): ([usize; 5], usize),
        dropout: Option<Dropout>,
    ) -> Tensor<1> {
        function(
            x[0].clone().reshape(shape),
            x[1].clone(),
            x[2].clone(),
            groups,
            1e-2,
            dropout,
        )
        .flatten(0, 4)
    }

    fn inputs(shape: [usize; 5]) -> [Vec<f64>; 3] {
        [
            numbers(shape.iter().product(), 1),
            numbers(shape[1], 2),
            numbers(shape[1], 3),
        ]
    }

    #[test]
    fn group_norm_silu_agrees_with_its_composition_for_any_size() {
        for size in SIZES {
            for dropout in [
                None,
                Some(Dropout {
                    probability: 0.3,
                    seed: 5,
                }),
            ] {
                let apply =
                    |function: Function| move |x: &[Tensor<1>]| flat(function, x, size, dropout);
                check(
                    apply(group_norm_silu),
                    apply(plain::group_norm_silu),
                    &inputs(size.0),
                );
            }
        }
    }

    #[test]
    fn grids_may_be_strided() {
        let apply = |function: Function| {
            move |x: &[Tensor<1>]| {
                let grids = x[0]
                    .clone()
                    .reshape([4, 3, 2, 5, 2])
                    .permute([2, 0, 4, 1, 3]);
                function(grids, x[1].clone(), x[2].clone(), 2, 0.1, None)
                    .swap_dims(2, 4)
                    .flatten(0, 4)
            }
        };
        check(
            apply(group_norm_silu),
            apply(plain::group_norm_silu),
            &[numbers(240, 1), numbers(4, 2), numbers(4, 3)],
        );
    }

    #[test]
    fn the_mask_is_that_of_dropout() {
        let (shape, groups) = ([2, 4, 17, 13, 11], 2);
        let device = Device::flex();
        let like = Tensor::<1>::zeros([1], (&device, DType::F32));
        let x = constant(&numbers(shape.iter().product(), 1), shape, &like);
        let [scale, shift] = [2, 3].map(|seed| constant(&numbers(4, seed), [4], &like));
        let apply = |dropout| {
            group_norm_silu(
                x.clone(),
                scale.clone(),
                shift.clone(),
                groups,
                1e-5,
                dropout,
            )
        };
        let fused = apply(Some(Dropout {
            probability: 0.1,
            seed: 77,
        }));
        assert_eq!(fused.into_data(), dropout(apply(None), 0.1, 77).into_data());
        assert_eq!(
            apply(Some(Dropout {
                probability: 0.0,
                seed: 77
            }))
            .into_data(),
            apply(None).into_data()
        );
    }

    #[test]
    fn an_offset_of_all_numbers_changes_nothing() {
        // Multiples of 1/64 below 2, to which f32 adds 10000 exactly.
        let size = ([2, 4, 7, 8, 9], 2);
        let [x, scale, shift] = inputs(size.0);
        let coarse: Vec<f64> = x.iter().map(|x| (64.0 * x).round() / 64.0).collect();
        let far = coarse.iter().map(|x| x + 1e4).collect();
        let rounded = |values: &[f64]| -> Vec<f64> {
            values
                .iter()
                .map(|&value| f64::from(value as f32))
                .collect()
        };
        let [scale, shift] = [rounded(&scale), rounded(&shift)];
        let near = value_and_gradients(
            &|x: &[_]| flat(plain::group_norm_silu, x, size, None),
            &[coarse, scale.clone(), shift.clone()],
            DType::F64,
        );
        let far = value_and_gradients(
            &|x: &[_]| flat(group_norm_silu, x, size, None),
            &[far, scale, shift],
            DType::F32,
        );
        for (far, near) in far.iter().zip(&near) {
            let largest = near
                .iter()
                .fold(1.0_f64, |largest, value| largest.max(value.abs()));
            // Some roundings of 6e-8, as without an offset; squares of 1e8 in f32 would leave no digit of a variance of 1.
            far.iter().zip(near).for_each(|(far, near)| {
                assert!(
                    (far - near).abs() < 5e-6 * largest,
                    "{far} instead of {near}"
                )
            });
        }
    }

    #[test]
    fn moments_of_any_length_agree_with_direct_sums() {
        for len in [1, 2, 9, BLOCK, BLOCK + 1, 3 * BLOCK + 100] {
            let x: Vec<f64> = numbers(len, 4).iter().map(|x| 3.0 + x).collect();
            let mean = x.iter().sum::<f64>() / len as f64;
            let squares = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            let found = moments(&x);
            assert_eq!(found.count, len as f64);
            // Sums of thousands of terms of order one in f64.
            assert!(
                (found.mean - mean).abs() < 1e-13
                    && (found.squares - squares).abs() < 1e-13 * (1.0 + squares),
                "{len} numbers"
            );
        }
    }

    #[test]
    fn two_voxels_become_minus_one_and_one_before_the_activation() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([1000.0, 1004.0], &device).reshape([1, 1, 1, 1, 2]);
        let output = group_norm_silu(
            x,
            Tensor::ones([1], &device),
            Tensor::zeros([1], &device),
            1,
            0.0,
            None,
        );
        let [low, high] = [-1.0_f32, 1.0].map(sigmoid);
        assert_eq!(
            output.into_data().try_to_vec::<f32>().unwrap(),
            [-low, high]
        );
    }

    #[test]
    fn no_samples_give_no_gradient() {
        let device = Device::flex().autodiff();
        let [scale, shift] = [(); 2].map(|()| Tensor::<1>::ones([4], &device).require_grad());
        for shape in [[0, 4, 2, 2, 2], [3, 4, 0, 2, 2]] {
            let output = group_norm_silu(
                Tensor::zeros(shape, &device),
                scale.clone(),
                shift.clone(),
                2,
                1e-5,
                None,
            );
            assert_eq!(output.dims(), shape);
            let gradients = output.sum().backward();
            for input in [&scale, &shift] {
                assert_eq!(
                    input
                        .grad(&gradients)
                        .unwrap()
                        .into_data()
                        .try_to_vec::<f32>()
                        .unwrap(),
                    [0.0; 4]
                );
            }
        }
    }

    #[test]
    fn only_wanted_gradients_are_made() {
        let device = Device::flex().autodiff();
        let x = Tensor::<5>::ones([1, 2, 1, 1, 1], &device).require_grad();
        let constants = || Tensor::ones([2], &device.clone().inner());
        let gradients = group_norm_silu(x.clone(), constants(), constants(), 1, 1.0, None)
            .sum()
            .backward();
        // Equal gradients of all numbers of a group only say that their mean should move, which the norm ignores.
        assert!(x.grad(&gradients).unwrap().abs().max().into_scalar::<f32>() < 1e-6);
    }

    #[test]
    #[should_panic(expected = "2 groups do not divide 3 channels")]
    fn channels_that_groups_do_not_divide_are_refused() {
        let device = Device::flex();
        group_norm_silu(
            Tensor::zeros([1, 3, 2, 2, 2], &device),
            Tensor::ones([3], &device),
            Tensor::ones([3], &device),
            2,
            1e-5,
            None,
        );
    }
}
