//! The two number types of the kernels, and the functions of them that the standard library lacks or does not vectorise.

use std::fmt::Debug;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub};

use burn::tensor::Element;

#[cfg(target_arch = "x86_64")]
use crate::lanes::Lanes;

/// `f32` or `f64`.
///
/// For `f32`, functions are polynomials without branches, so that loops over them vectorise. For `f64`, which serves
/// comparisons and not training, they are those of the mathematical library.
pub(crate) trait Scalar:
    Element
    + bytemuck::Pod
    + Debug
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
    + Sum
{
    /// Eight numbers, for processors with AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    type Avx2: Lanes<Self>;

    const ZERO: Self;
    const ONE: Self;
    /// The lowest finite number.
    const LOWEST: Self;

    fn of(value: f64) -> Self;
    fn wide(self) -> f64;
    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    fn sqrt(self) -> Self;
    /// `e^self`; 0 where that underflows.
    fn exp(self) -> Self;
    /// Distribution function and density of the normal distribution.
    fn normal(self) -> (Self, Self);
}

impl Scalar for f64 {
    #[cfg(target_arch = "x86_64")]
    type Avx2 = [std::arch::x86_64::__m256d; 2];

    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f64::MIN;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        self
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        f64::mul_add(self, factor, term)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f64::sqrt(self)
    }

    #[inline(always)]
    fn exp(self) -> Self {
        f64::exp(self)
    }

    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        const INVERSE_ROOT_TWO_PI: f64 = 0.398_942_280_401_432_7;
        let cumulative = 0.5 * libm::erfc(-self * std::f64::consts::FRAC_1_SQRT_2);
        (
            cumulative,
            INVERSE_ROOT_TWO_PI * f64::exp(-0.5 * self * self),
        )
    }
}

impl Scalar for f32 {
    #[cfg(target_arch = "x86_64")]
    type Avx2 = std::arch::x86_64::__m256;

    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;
    const LOWEST: Self = f32::MIN;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn wide(self) -> f64 {
        f64::from(self)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        f32::mul_add(self, factor, term)
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        f32::sqrt(self)
    }

    /// `2^n e^r` with `|r| <= ln 2 / 2`; relative error below 1.2e-7 on the range where the result is a normal number.
    #[inline(always)]
    fn exp(self) -> Self {
        const UNDERFLOW: f32 = -87.33;
        const OVERFLOW: f32 = 88.37;
        // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
        const ROUND: f32 = 12_582_912.0;
        const ONE_BITS: u32 = 127 << 23;
        // ln 2 in two parts, the first with trailing zeros so that its product with n is exact.
        const LN_2_HIGH: f32 = 0.693_359_4;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        // Least maximal error of (e^r - 1 - r) / r^2, fitted at 40 digits: 3e-9.
        const FIT: [f32; 5] = [
            0.499_999_94,
            0.166_665_2,
            0.041_668_393,
            0.008_368_781,
            0.001_381_446_5,
        ];

        let low = self < UNDERFLOW;
        let x = if low { UNDERFLOW } else { self };
        let x = if x > OVERFLOW { OVERFLOW } else { x };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
        let power = polynomial(r, FIT).mul_add(r * r, r) + 1.0;
        let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(ONE_BITS));
        if low { 0.0 } else { power * scale }
    }

    /// From the upper tail `e^(-z^2/2) q(u)`, `u = -0.265 z / (1 + 0.265 z)`, `z = |x|`: no cancellation, and one
    /// exponential for both results. Absolute error below 1.2e-7.
    #[inline(always)]
    fn normal(self) -> (Self, Self) {
        const INVERSE_ROOT_TWO_PI: f32 = 0.398_942_3;
        const POLE: f32 = 0.265;
        // Least maximal relative error of the tail over 0 <= z <= 14, fitted at 40 digits: 1.1e-8.
        const FIT: [f32; 10] = [
            0.5,
            1.505_443_8,
            2.054_587_8,
            1.531_941_8,
            0.415_769_5,
            -0.178_948_2,
            -0.040_145_73,
            0.174_573_81,
            0.133_775_62,
            0.030_976_249,
        ];

        let z = self.abs();
        let bell = Scalar::exp(-0.5 * z * z);
        let scaled = POLE * z;
        let tail = bell * polynomial(-scaled / (1.0 + scaled), FIT);
        let cumulative = if self < 0.0 { tail } else { 1.0 - tail };
        (cumulative, INVERSE_ROOT_TWO_PI * bell)
    }
}

/// `coefficients[0] + coefficients[1] x + ...`
#[inline(always)]
fn polynomial<const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut value = coefficients[N - 1];
    for coefficient in coefficients.into_iter().rev().skip(1) {
        value = value.mul_add(x, coefficient);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from `low` to `high`.
    fn grid(low: f64, high: f64) -> impl Iterator<Item = f32> {
        const POINTS: usize = 200_000;
        (0..=POINTS).map(move |i| (low + (high - low) * i as f64 / POINTS as f64) as f32)
    }

    #[test]
    fn exp_of_f32_is_right_to_one_unit_in_the_last_place() {
        for x in grid(-87.3, 88.3) {
            let exact = f64::from(x).exp();
            let relative = (f64::from(Scalar::exp(x)) / exact - 1.0).abs();
            assert!(relative < 1.3e-7, "exp({x}) is off by {relative:e}");
        }
    }

    #[test]
    fn exp_of_f32_vanishes_far_below_zero_and_passes_nan_on() {
        assert_eq!(Scalar::exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(Scalar::exp(f32::MIN), 0.0);
        assert_eq!(Scalar::exp(0.0_f32), 1.0);
        assert!(Scalar::exp(f32::NAN).is_nan());
        assert!(Scalar::exp(f32::INFINITY) > 2e38);
    }

    #[test]
    fn normal_distribution_of_f32_agrees_with_f64() {
        for x in grid(-15.0, 15.0) {
            let (cumulative, density) = x.normal();
            let (exact, exact_density) = f64::from(x).normal();
            // One unit in the last place of 1 is 1.2e-7; half of it is the rounding of the result.
            assert!(
                (f64::from(cumulative) - exact).abs() < 1.2e-7,
                "Phi({x}) is {cumulative}, not {exact}"
            );
            assert!(
                (f64::from(density) - exact_density).abs() < 0.6e-7,
                "phi({x}) is {density}, not {exact_density}"
            );
        }
        assert!(f32::NAN.normal().0.is_nan());
    }
}
