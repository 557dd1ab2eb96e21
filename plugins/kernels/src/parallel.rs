//! Fresh buffers filled in parallel, cut at fixed places.

use rayon::prelude::*;

use crate::scalar::Scalar;

/// Elements per piece of element-wise work: 16 KiB of `f32`, which stays in the first-level cache.
pub(crate) const CHUNK: usize = 4096;

/// Pieces that one thread takes at least, so that small tensors do not pay for waking others.
const MIN_PIECES: usize = 4;

/// Rows of `width` elements that make one piece.
pub(crate) fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// A vector of `len` elements, filled piece by piece: `fill(first, piece)` gets pieces of `chunk` zeros (the last may be
/// shorter) and the number of their first element.
pub(crate) fn build<T: Scalar>(len: usize, chunk: usize, fill: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
    build_with(len, chunk, fill).0
}

/// As [`build`], and collects what `fill` returns, in the order of the pieces.
pub(crate) fn build_with<T: Scalar, P: Send>(len: usize, chunk: usize, fill: impl Fn(usize, &mut [T]) -> P + Sync) -> (Vec<T>, Vec<P>) {
    let chunk = chunk.max(1);
    let min_pieces = (MIN_PIECES * CHUNK / chunk).max(1);
    let mut values: Vec<T> = Vec::with_capacity(len);
    let pieces = values.spare_capacity_mut()[..len].par_chunks_mut(chunk).enumerate().with_min_len(min_pieces);
    let parts = pieces.map(|(index, piece)| {
        for slot in piece.iter_mut() {
            slot.write(T::ZERO);
        }
        // SAFETY: every slot of the piece was just written.
        let piece = unsafe { piece.assume_init_mut() };
        fill(index * chunk, piece)
    });
    let parts = parts.collect();
    // SAFETY: the pieces cover the first `len` slots, and all of them were written.
    unsafe { values.set_len(len) };
    (values, parts)
}

/// A matrix of `order.len()` rows of `width` elements, computed in the order of `order`: `fill` gets `batch` row numbers
/// at a time and writes these rows through the sink.
///
/// # Safety
/// `order` is a permutation of the row numbers, and `fill` writes all of the rows that it is given and no others.
pub(crate) unsafe fn build_rows<T: Scalar>(width: usize, order: &[u32], batch: usize, fill: impl Fn(&[u32], RowSink<T>) + Sync) -> Vec<T> {
    let len = order.len() * width;
    let mut values = Vec::with_capacity(len);
    let sink = RowSink { first: values.as_mut_ptr(), rows: order.len(), width };
    order.par_chunks(batch).for_each(|rows| fill(rows, sink));
    // SAFETY: the caller promises that every row was written.
    unsafe { values.set_len(len) };
    values
}

/// Takes the rows of a matrix that several tasks write, each row by one task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSink<T> {
    first: *mut T,
    rows: usize,
    width: usize,
}

// SAFETY: the caller of `build_rows` promises that no two tasks write the same row, and nobody reads.
unsafe impl<T: Send> Sync for RowSink<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for RowSink<T> {}

impl<T: Scalar> RowSink<T> {
    /// Writes `values` into a row from `column` on.
    ///
    /// # Safety
    /// The row is one that the calling task was given by [`build_rows`].
    #[inline(always)]
    pub(crate) unsafe fn write(self, row: u32, column: usize, values: &[T]) {
        let row = row as usize;
        assert!(row < self.rows && column + values.len() <= self.width, "within the matrix");
        // SAFETY: the target lies within the buffer (asserted), is written by this task alone, and `values` is elsewhere.
        unsafe { values.as_ptr().copy_to_nonoverlapping(self.first.add(row * self.width + column), values.len()) };
    }
}

/// The sum of vectors of `width` elements, in order.
pub(crate) fn sum_in_order<T: Scalar>(width: usize, parts: &[Vec<T>]) -> Vec<T> {
    let mut total = vec![T::ZERO; width];
    for part in parts {
        for (total, &value) in total.iter_mut().zip(part) {
            *total += value;
        }
    }
    total
}
