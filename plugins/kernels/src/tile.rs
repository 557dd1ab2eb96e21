//! Products of small matrices, with factors and results where the caller has them, as fast as a general product is without them.

use crate::lanes::{LANES, Lanes};
use crate::scalar::Scalar;

/// The least number of whole [`LANES`] that holds `columns`: rows of the right factor and of the result are padded to it.
pub(crate) const fn padded(columns: usize) -> usize {
    columns.next_multiple_of(LANES)
}

/// Where the left factor `a(i, k)` is found: element `k` of row `i` at `i * row + k * step`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) row: usize,
    pub(crate) step: usize,
}

/// Where the right factor is found: rows of contiguous columns, `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Right<'a, T> {
    pub(crate) values: &'a [T],
    pub(crate) stride: usize,
}

/// `result[i, ..columns] = sum over k < inner of left(i, k) * right[k, ..columns]`; `columns` is a multiple of [`LANES`].
#[inline(always)]
pub(crate) fn multiply<T: Scalar, L: Lanes<T>>(
    left: Left<'_, T>,
    right: Right<'_, T>,
    [rows, inner, columns]: [usize; 3],
    result: &mut [T],
) {
    let mut column = 0;
    while column < columns {
        let right = Right {
            values: &right.values[column..],
            stride: right.stride,
        };
        match (columns - column) / LANES {
            0 => unreachable!("columns are padded"),
            1 => {
                column_block::<T, L, 1>(left, right, [rows, inner, columns], &mut result[column..])
            }
            // A third would need all registers of AVX2, and the compiler then spills: measured, it halves the speed.
            _ => {
                column_block::<T, L, 2>(left, right, [rows, inner, columns], &mut result[column..])
            }
        }
        column += 2 * LANES;
    }
}

/// `C` lanes of columns of all rows.
#[inline(always)]
fn column_block<T: Scalar, L: Lanes<T>, const C: usize>(
    left: Left<'_, T>,
    right: Right<'_, T>,
    [rows, inner, columns]: [usize; 3],
    result: &mut [T],
) {
    let start = |row| row * left.row;
    let mut row = 0;
    while row + 4 <= rows {
        let sums = tile::<T, L, 4, C>(
            left,
            [start(row), start(row + 1), start(row + 2), start(row + 3)],
            right,
            inner,
        );
        for (offset, sums) in sums.into_iter().enumerate() {
            store(sums, &mut result[(row + offset) * columns..]);
        }
        row += 4;
    }
    while row < rows {
        let [sums] = tile::<T, L, 1, C>(left, [start(row)], right, inner);
        store(sums, &mut result[row * columns..]);
        row += 1;
    }
}

/// `R` rows and `C` lanes of columns of a product, kept in registers; row `r` of the left factor begins at `starts[r]`.
///
/// # Panics
/// If an index lies outside the factors.
#[inline(always)]
pub(crate) fn tile<T: Scalar, L: Lanes<T>, const R: usize, const C: usize>(
    left: Left<'_, T>,
    starts: [usize; R],
    right: Right<'_, T>,
    inner: usize,
) -> [[L; C]; R] {
    let mut sums = [[L::splat(T::ZERO); C]; R];
    let Some(last) = inner.checked_sub(1) else {
        return sums;
    };
    assert!(
        last * right.stride + C * LANES <= right.values.len(),
        "right factor"
    );
    for start in starts {
        assert!(start + last * left.step < left.values.len(), "left factor");
    }
    for k in 0..inner {
        let mut row = [L::splat(T::ZERO); C];
        for (block, row) in row.iter_mut().enumerate() {
            // SAFETY: k is at most `last`, for which the end of the row was checked.
            *row = unsafe { L::load(right.values.as_ptr().add(k * right.stride + block * LANES)) };
        }
        for (sums, start) in sums.iter_mut().zip(starts) {
            // SAFETY: k is at most `last`, for which the index was checked.
            let factor = L::splat(unsafe { *left.values.get_unchecked(start + k * left.step) });
            for (sum, row) in sums.iter_mut().zip(row) {
                *sum = factor.mul_add(row, *sum);
            }
        }
    }
    sums
}

/// Writes lanes to the begin of a slice.
#[inline(always)]
pub(crate) fn store<T: Scalar, L: Lanes<T>, const C: usize>(lanes: [L; C], target: &mut [T]) {
    let target = &mut target[..C * LANES];
    for (block, lanes) in lanes.into_iter().enumerate() {
        // SAFETY: the slice holds C blocks of LANES numbers.
        unsafe { lanes.store(target.as_mut_ptr().add(block * LANES)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{simd, tests::at_every_level};

    simd! {
        fn multiply_at_level<T, L>(left: Left<'_, T>, right: Right<'_, T>, sizes: [usize; 3], result: &mut [T]) {
            multiply::<T, L>(left, right, sizes, result);
        }
    }

    #[test]
    fn product_of_transposed_factor_is_the_triple_sum_at_every_level() {
        for [rows, inner, columns] in [[1, 1, 8], [4, 3, 16], [5, 7, 24], [9, 20, 40], [3, 0, 8]] {
            let a: Vec<f64> = (0..rows * inner).map(|i| (i % 7) as f64 - 2.0).collect();
            let b: Vec<f64> = (0..inner * columns)
                .map(|i| (i % 11) as f64 - 4.0)
                .collect();
            for result in at_every_level(|| {
                let mut result = vec![f64::NAN; rows * columns];
                let left = Left {
                    values: &a,
                    row: 1,
                    step: rows,
                };
                multiply_at_level(
                    left,
                    Right {
                        values: &b,
                        stride: columns,
                    },
                    [rows, inner, columns],
                    &mut result,
                );
                result
            }) {
                for (at, &value) in result.iter().enumerate() {
                    let (row, column) = (at / columns, at % columns);
                    let exact: f64 = (0..inner)
                        .map(|k| a[k * rows + row] * b[k * columns + column])
                        .sum();
                    assert_eq!(value, exact, "small integers have no rounding");
                }
            }
        }
    }
}
