//! Dropout whose mask is a function of a seed and a position, and of nothing else.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::parallel::{CHUNK, build};
use crate::plain;
use crate::scalar::Scalar;
use crate::simd::simd;

/// How much to drop, and which stream of random bits decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dropout {
    /// Chance that an element becomes 0, in `0.0..1.0`; the others are scaled by `1 / (1 - probability)`.
    pub probability: f64,
    /// Names the mask; give every call of every step its own.
    pub seed: u64,
}

/// Sets elements to 0 with chance `probability` and scales the others by `1 / (1 - probability)`.
///
/// The mask depends on `seed` and on the position of an element in row-major order only: not on threads, dtype or device.
///
/// # Panics
/// If `probability` is not in `0.0..1.0`.
pub fn dropout<const D: usize>(x: Tensor<D>, probability: f64, seed: u64) -> Tensor<D> {
    let dropout = Dropout { probability, seed };
    if !dropout.acts() {
        return x;
    }
    match fused(dropout, [x.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x]) => plain::dropout(Tensor::<D>::from_dispatch(x), dropout),
    }
}

/// Forward and backward pass are the same product with the mask.
impl Kernel<1> for Dropout {
    type Saved = ();

    fn forward<T: Scalar>(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
        let x = x.to_contiguous();
        let given = values::<T>(&x);
        let output = build(given.len(), Self::COLUMNS, |first, output| {
            drop_row(
                *self,
                first / Self::COLUMNS,
                &given[first..][..output.len()],
                output,
            );
        });
        (tensor(output, x.shape()), ())
    }

    fn backward<T: Scalar>(
        &self,
        (): (),
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        [Some(self.forward::<T>([gradient]).0)]
    }
}

simd! {
    fn drop_row<T, L>(dropout: Dropout, row: usize, x: &[T], output: &mut [T]) {
        let (scale, threshold) = (T::of(dropout.scale()), dropout.threshold());
        let key = dropout.row_key(row as u64);
        for (column, (output, &x)) in (0_u32..).zip(output.iter_mut().zip(x)) {
            *output = if random_bits(key, column) >= threshold { x * scale } else { T::ZERO };
        }
    }
}

impl Dropout {
    /// [`dropout`] numbers the elements of a tensor as rows of this many columns.
    pub(crate) const COLUMNS: usize = CHUNK;

    /// Takes neighbouring columns apart before they are mixed.
    pub(crate) const SPREAD: u32 = 0x9E37_79B9;

    /// Of the two multiplications of a round.
    pub(crate) const MULTIPLIERS: [u32; 2] = [0x7FEB_352D, 0x846C_A68B];

    /// Whether any element can be dropped.
    ///
    /// # Panics
    /// If the probability is not in `0.0..1.0`.
    pub(crate) fn acts(&self) -> bool {
        assert!(
            (0.0..1.0).contains(&self.probability),
            "dropout probability {} is not in 0.0..1.0",
            self.probability
        );
        self.probability > 0.0
    }

    /// What survivors are multiplied by.
    pub(crate) fn scale(&self) -> f64 {
        1.0 / (1.0 - self.probability)
    }

    /// An element is dropped when its 32 random bits are below this.
    pub(crate) fn threshold(&self) -> u32 {
        (self.probability * 4_294_967_296.0) as u32
    }

    /// The key of one row of the mask.
    #[inline(always)]
    pub(crate) fn row_key(&self, row: u64) -> [u32; 2] {
        let mixed = split_mix(self.seed ^ split_mix(row));
        [mixed as u32, (mixed >> 32) as u32]
    }

    /// Applies the mask of [`dropout`] to the elements of a tensor from number `first` on.
    #[inline(always)]
    pub(crate) fn apply<T: Scalar>(self, first: usize, values: &mut [T]) {
        let (scale, threshold) = (T::of(self.scale()), self.threshold());
        let (mut rest, mut at) = (values, first);
        while !rest.is_empty() {
            let column = at % Self::COLUMNS;
            let (row, others) = rest.split_at_mut((Self::COLUMNS - column).min(rest.len()));
            let key = self.row_key((at / Self::COLUMNS) as u64);
            at += row.len();
            for (column, value) in (column as u32..).zip(row) {
                *value = if random_bits(key, column) >= threshold {
                    *value * scale
                } else {
                    T::ZERO
                };
            }
            rest = others;
        }
    }

    /// The mask of `rows` rows of `columns` columns: 0 or [`Self::scale`].
    pub(crate) fn mask(&self, rows: usize, columns: usize) -> Vec<f64> {
        let mut mask = Vec::with_capacity(rows * columns);
        for row in 0..rows as u64 {
            let key = self.row_key(row);
            let keep = |column| random_bits(key, column) >= self.threshold();
            mask.extend(
                (0..columns as u32).map(|column| if keep(column) { self.scale() } else { 0.0 }),
            );
        }
        mask
    }
}

/// 32 random bits for one column of a row: two rounds of multiply and shift, keyed before each.
#[inline(always)]
pub(crate) fn random_bits(key: [u32; 2], column: u32) -> u32 {
    mix(mix(column.wrapping_mul(Dropout::SPREAD) ^ key[0]).wrapping_add(key[1]))
}

#[inline(always)]
fn mix(mut bits: u32) -> u32 {
    let [first, second] = Dropout::MULTIPLIERS;
    bits = (bits ^ (bits >> 16)).wrapping_mul(first);
    bits = (bits ^ (bits >> 15)).wrapping_mul(second);
    bits ^ (bits >> 16)
}

/// Steele, Lea and Flood's finaliser of a 64-bit counter.
#[inline(always)]
fn split_mix(counter: u64) -> u64 {
    let mut bits = counter.wrapping_add(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn dropout_agrees_with_its_composition_for_any_size() {
        for count in [0, 1, 100, 2 * CHUNK + 17] {
            let plain = |x: &[Tensor<1>]| {
                plain::dropout(
                    x[0].clone(),
                    Dropout {
                        probability: 0.25,
                        seed: 5,
                    },
                )
            };
            check(
                |x| dropout(x[0].clone(), 0.25, 5),
                plain,
                &[numbers(count, 1)],
            );
        }
    }

    #[test]
    fn no_probability_keeps_everything() {
        let x = Tensor::<1>::ones([9], &burn::tensor::Device::flex());
        assert_eq!(dropout(x.clone(), 0.0, 1).into_data(), x.into_data());
    }

    #[test]
    #[should_panic(expected = "is not in 0.0..1.0")]
    fn dropping_everything_is_refused() {
        dropout(
            Tensor::<1>::ones([9], &burn::tensor::Device::flex()),
            1.0,
            1,
        );
    }

    /// A mask of 1024 rows, as +1 for dropped elements and 0 for others.
    fn dropped(probability: f64, seed: u64) -> Vec<f64> {
        let mask = Dropout { probability, seed }.mask(1024, 1024);
        mask.iter()
            .map(|&value| f64::from(u8::from(value == 0.0)))
            .collect()
    }

    #[test]
    fn the_dropped_fraction_is_the_probability() {
        for probability in [0.05, 0.1, 0.5] {
            let mask = dropped(probability, 3);
            let fraction = mask.iter().sum::<f64>() / mask.len() as f64;
            let deviation = (probability * (1.0 - probability) / mask.len() as f64).sqrt();
            assert!(
                (fraction - probability).abs() < 4.0 * deviation,
                "{fraction} instead of {probability}"
            );
        }
    }

    #[test]
    fn masks_of_neighbouring_elements_rows_and_seeds_are_not_correlated() {
        let correlation = |a: &[f64], b: &[f64]| {
            a.iter()
                .zip(b)
                .map(|(a, b)| (2.0 * a - 1.0) * (2.0 * b - 1.0))
                .sum::<f64>()
                / a.len() as f64
        };
        let mask = dropped(0.5, 3);
        let other = dropped(0.5, 4);
        let limit = 4.0 / 1024.0;
        for distance in [1, 2, 8, 16, 1023, 1024, 1025, 4096] {
            assert!(
                correlation(&mask[distance..], &mask).abs() < limit,
                "distance {distance}"
            );
        }
        assert!(correlation(&mask, &other).abs() < limit, "seeds");
    }

    #[test]
    fn row_and_column_sums_scatter_like_independent_draws() {
        let mask = dropped(0.5, 8);
        let rows: Vec<f64> = mask.chunks(1024).map(|row| row.iter().sum()).collect();
        let columns: Vec<f64> = (0..1024)
            .map(|column| mask.iter().skip(column).step_by(1024).sum())
            .collect();
        for sums in [rows, columns] {
            let variance = sums.iter().map(|sum| (sum - 512.0).powi(2)).sum::<f64>() / 1024.0;
            // The variance of a binomial is 256; that of its estimate from 1024 values is 11 wide.
            assert!((variance - 256.0).abs() < 4.0 * 11.4, "variance {variance}");
        }
    }
}
