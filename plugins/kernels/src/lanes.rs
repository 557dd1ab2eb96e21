//! Eight numbers at once, and the sums that need them.
//!
//! Compilers vectorise element-wise loops well, but not sums, whose order they must keep, nor small matrix products.
//! Eight lanes at every level, and fused multiply-add, give the same bits everywhere.

#[cfg(target_arch = "x86_64")]
mod registers;

use crate::scalar::Scalar;

/// Numbers in one [`Lanes`].
pub(crate) const LANES: usize = 8;

/// Rows of the small products of [`Lanes::add_scaled`] and [`Lanes::add_products`].
pub(crate) const ROWS: usize = 4;

/// Eight numbers of type `T`.
///
/// # Safety
/// Methods may use instructions that not every processor has: who names an implementor has checked that this one has them.
/// The [`simd!`](crate::simd::simd) macro does.
pub(crate) unsafe trait Lanes<T>: Copy {
    fn splat(value: T) -> Self;
    /// # Safety
    /// `from` is readable for eight numbers.
    unsafe fn load(from: *const T) -> Self;
    /// # Safety
    /// `to` is writable for eight numbers.
    unsafe fn store(self, to: *mut T);
    fn add(self, other: Self) -> Self;
    /// `self * factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The greater of each pair; that of `other` where `self` is NaN.
    fn max(self, other: Self) -> Self;
    /// The sum over the lanes of each row.
    #[inline(always)]
    fn across(rows: [Self; ROWS]) -> [T; ROWS]
    where
        T: Scalar,
    {
        rows.map(|row| {
            let mut v = [T::ZERO; LANES];
            // SAFETY: the array holds LANES numbers.
            unsafe { row.store(v.as_mut_ptr()) };
            ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]))
        })
    }
    /// `sums[row][column] += factors[row] * inputs[column]`, with a number for each row.
    ///
    /// # Safety
    /// The factors are readable.
    #[inline(always)]
    unsafe fn add_scaled(sums: &mut [[Self; 3]; ROWS], factors: [*const T; ROWS], inputs: [Self; 3])
    where
        T: Scalar,
    {
        for (sums, factor) in sums.iter_mut().zip(factors) {
            // SAFETY: promised by the caller.
            let factor = Self::splat(unsafe { *factor });
            sums.iter_mut()
                .zip(inputs)
                .for_each(|(sum, input)| *sum = factor.mul_add(input, *sum));
        }
    }
    /// Three times [`Self::add_scaled`]: with consecutive factors, and with inputs that are `step` numbers apart.
    ///
    /// # Safety
    /// Factors and inputs are readable.
    #[inline(always)]
    unsafe fn add_three_scaled(
        sums: &mut [[Self; 3]; ROWS],
        factors: [*const T; ROWS],
        inputs: [*const T; 3],
        step: isize,
    ) where
        T: Scalar,
    {
        for tap in 0..3 {
            // SAFETY: promised by the caller.
            unsafe {
                let inputs = inputs.map(|input| Self::load(input.offset(tap * step)));
                Self::add_scaled(sums, factors.map(|factor| factor.offset(tap)), inputs);
            }
        }
    }
    /// `sums[row][column] += factors[row] * inputs[column]`, with eight numbers for each row.
    ///
    /// # Safety
    /// The factors are readable for eight numbers each.
    #[inline(always)]
    unsafe fn add_products(
        sums: &mut [[Self; 3]; ROWS],
        factors: [*const T; ROWS],
        inputs: [Self; 3],
    ) {
        for (sums, factor) in sums.iter_mut().zip(factors) {
            // SAFETY: promised by the caller.
            let factor = unsafe { Self::load(factor) };
            sums.iter_mut()
                .zip(inputs)
                .for_each(|(sum, input)| *sum = factor.mul_add(input, *sum));
        }
    }
}

// SAFETY: no special instructions.
unsafe impl<T: Scalar> Lanes<T> for [T; LANES] {
    #[inline(always)]
    fn splat(value: T) -> Self {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const T) -> Self {
        // SAFETY: promised by the caller.
        unsafe { from.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut T) {
        // SAFETY: promised by the caller.
        unsafe { to.cast::<Self>().write_unaligned(self) };
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + other[lane])
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        std::array::from_fn(|lane| self[lane].mul_add(factor[lane], term[lane]))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        std::array::from_fn(|lane| {
            if self[lane] > other[lane] {
                self[lane]
            } else {
                other[lane]
            }
        })
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Lanes, ROWS, registers};

    // SAFETY: needs AVX2 and FMA, as the trait says.
    unsafe impl Lanes<f32> for __m256 {
        #[inline(always)]
        fn across([a, b, c, d]: [Self; ROWS]) -> [f32; ROWS] {
            // SAFETY: as in `splat`; a vector of four numbers is an array of them.
            unsafe {
                let pairs = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
                let sums = _mm_add_ps(
                    _mm256_castps256_ps128(pairs),
                    _mm256_extractf128_ps::<1>(pairs),
                );
                std::mem::transmute::<__m128, [f32; ROWS]>(sums)
            }
        }

        #[inline(always)]
        unsafe fn add_scaled(
            sums: &mut [[Self; 3]; ROWS],
            factors: [*const f32; ROWS],
            inputs: [Self; 3],
        ) {
            // SAFETY: promised by the caller; and as in `splat`.
            unsafe { registers::add_scaled(sums, factors, inputs) };
        }

        #[inline(always)]
        unsafe fn add_three_scaled(
            sums: &mut [[Self; 3]; ROWS],
            factors: [*const f32; ROWS],
            inputs: [*const f32; 3],
            step: isize,
        ) {
            // SAFETY: promised by the caller; and as in `splat`.
            unsafe { registers::add_three_scaled(sums, factors, inputs, step) };
        }

        #[inline(always)]
        unsafe fn add_products(
            sums: &mut [[Self; 3]; ROWS],
            factors: [*const f32; ROWS],
            inputs: [Self; 3],
        ) {
            // SAFETY: promised by the caller; and as in `splat`.
            unsafe { registers::add_products(sums, factors, inputs) };
        }

        #[inline(always)]
        fn splat(value: f32) -> Self {
            // SAFETY: the processor has the instruction, see the trait.
            unsafe { _mm256_set1_ps(value) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: promised by the caller; and as above.
            unsafe { _mm256_loadu_ps(from) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: promised by the caller; and as above.
            unsafe { _mm256_storeu_ps(to, self) };
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { _mm256_add_ps(self, other) }
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { _mm256_fmadd_ps(self, factor, term) }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe { _mm256_max_ps(self, other) }
        }
    }

    // SAFETY: needs AVX2 and FMA, as the trait says.
    unsafe impl Lanes<f64> for [__m256d; 2] {
        #[inline(always)]
        fn splat(value: f64) -> Self {
            // SAFETY: the processor has the instruction, see the trait.
            unsafe { [_mm256_set1_pd(value); 2] }
        }

        #[inline(always)]
        unsafe fn load(from: *const f64) -> Self {
            // SAFETY: promised by the caller; and as above.
            unsafe { [_mm256_loadu_pd(from), _mm256_loadu_pd(from.add(4))] }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f64) {
            // SAFETY: promised by the caller; and as above.
            unsafe {
                _mm256_storeu_pd(to, self[0]);
                _mm256_storeu_pd(to.add(4), self[1]);
            }
        }

        #[inline(always)]
        fn add(self, other: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe {
                [
                    _mm256_add_pd(self[0], other[0]),
                    _mm256_add_pd(self[1], other[1]),
                ]
            }
        }

        #[inline(always)]
        fn mul_add(self, factor: Self, term: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe {
                [
                    _mm256_fmadd_pd(self[0], factor[0], term[0]),
                    _mm256_fmadd_pd(self[1], factor[1], term[1]),
                ]
            }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: as in `splat`.
            unsafe {
                [
                    _mm256_max_pd(self[0], other[0]),
                    _mm256_max_pd(self[1], other[1]),
                ]
            }
        }
    }
}

/// Independent sums of eight lanes, to hide the latency of additions.
const CHAINS: usize = 4;

/// `sum of a[i] * b[i]`, in an order that depends on the length only. The slices have one length.
#[inline(always)]
pub(crate) fn dot<T: Scalar, L: Lanes<T>>(a: &[T], b: &[T]) -> T {
    let len = a.len();
    assert_eq!(len, b.len(), "slices of one length");
    let mut chains = [L::splat(T::ZERO); CHAINS];
    let mut at = 0;
    while at + CHAINS * LANES <= len {
        for (chain, sum) in chains.iter_mut().enumerate() {
            let at = at + chain * LANES;
            // SAFETY: the loop ends where fewer than CHAINS * LANES elements remain in either slice.
            *sum =
                unsafe { L::load(a.as_ptr().add(at)).mul_add(L::load(b.as_ptr().add(at)), *sum) };
        }
        at += CHAINS * LANES;
    }
    while at + LANES <= len {
        // SAFETY: LANES elements remain.
        chains[0] =
            unsafe { L::load(a.as_ptr().add(at)).mul_add(L::load(b.as_ptr().add(at)), chains[0]) };
        at += LANES;
    }
    let mut rest = T::ZERO;
    while at < len {
        rest = a[at].mul_add(b[at], rest);
        at += 1;
    }
    across(chains[0].add(chains[1]).add(chains[2].add(chains[3]))) + rest
}

/// The sum of the slice, in an order that depends on the length only.
#[inline(always)]
pub(crate) fn total<T: Scalar, L: Lanes<T>>(values: &[T]) -> T {
    let mut chains = [L::splat(T::ZERO); CHAINS];
    let (mut at, mut chain) = (0, 0);
    while at + LANES <= values.len() {
        // SAFETY: LANES elements remain.
        chains[chain] = unsafe { L::load(values.as_ptr().add(at)) }.add(chains[chain]);
        chain = (chain + 1) % CHAINS;
        at += LANES;
    }
    let mut rest = T::ZERO;
    while at < values.len() {
        rest += values[at];
        at += 1;
    }
    across(chains[0].add(chains[1]).add(chains[2].add(chains[3]))) + rest
}

/// The sum over the lanes.
#[inline(always)]
fn across<T: Scalar, L: Lanes<T>>(lanes: L) -> T {
    let mut v = [T::ZERO; LANES];
    // SAFETY: the array holds LANES numbers.
    unsafe { lanes.store(v.as_mut_ptr()) };
    ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7]))
}

/// The highest of the values; [`Scalar::LOWEST`] if there are none.
#[inline(always)]
pub(crate) fn maximum<T: Scalar, L: Lanes<T>>(values: &[T]) -> T {
    let mut highest = L::splat(T::LOWEST);
    let mut at = 0;
    while at + LANES <= values.len() {
        // SAFETY: LANES elements remain.
        highest = unsafe { L::load(values.as_ptr().add(at)) }.max(highest);
        at += LANES;
    }
    let mut lanes = [T::LOWEST; LANES];
    // SAFETY: the array holds LANES numbers.
    unsafe { highest.store(lanes.as_mut_ptr()) };
    let mut highest = T::LOWEST;
    for &value in lanes.iter().chain(&values[at..]) {
        highest = if value > highest { value } else { highest };
    }
    highest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{simd, tests::at_every_level};

    simd! {
        fn sums<T, L>(a: &[T], b: &[T]) -> [T; 3] {
            [dot::<T, L>(a, b), total::<T, L>(a), maximum::<T, L>(a)]
        }
    }

    #[test]
    fn sums_are_right_for_every_length_at_every_level() {
        for len in 0..100 {
            let a: Vec<f64> = (0..len).map(|i| ((i * 7) % 13) as f64 - 5.0).collect();
            let b: Vec<f64> = (0..len).map(|i| ((i * 5) % 11) as f64 - 4.0).collect();
            let (a32, b32): (Vec<f32>, Vec<f32>) = a
                .iter()
                .zip(&b)
                .map(|(&a, &b)| (a as f32, b as f32))
                .unzip();
            let dot: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            let highest = a.iter().copied().fold(f64::MIN, f64::max);
            for [wide, narrow] in at_every_level(|| {
                [
                    sums(&a, &b),
                    sums(&a32, &b32).map(|sum| {
                        if len == 0 && sum == f32::MIN {
                            f64::MIN
                        } else {
                            sum.into()
                        }
                    }),
                ]
            }) {
                assert_eq!(
                    wide,
                    [dot, a.iter().sum(), highest],
                    "small integers have no rounding"
                );
                assert_eq!(narrow, wide);
            }
        }
    }
}
