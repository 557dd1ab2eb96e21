//! Fresh buffers filled in parallel, cut at fixed places.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::scalar::Scalar;

/// Elements per piece of element-wise work: 16 KiB of `f32`, which stays in the first-level cache.
pub(crate) const CHUNK: usize = 4096;

/// Pieces that one thread takes at least, so that small tensors do not pay for waking others.
pub(crate) const MIN_PIECES: usize = 4;

/// Rows of `width` elements that make one piece.
pub(crate) fn rows_per_chunk(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// A vector of `len` elements, filled piece by piece: `fill(first, piece)` gets pieces of `chunk` zeros (the last may be
/// shorter) and the number of their first element.
pub(crate) fn build<T: Scalar>(
    len: usize,
    chunk: usize,
    fill: impl Fn(usize, &mut [T]) + Sync,
) -> Vec<T> {
    build_with(len, chunk, fill).0
}

/// As [`build`], and collects what `fill` returns, in the order of the pieces.
pub(crate) fn build_with<T: Scalar, P: Send>(
    len: usize,
    chunk: usize,
    fill: impl Fn(usize, &mut [T]) -> P + Sync,
) -> (Vec<T>, Vec<P>) {
    let chunk = chunk.max(1);
    let min_pieces = (MIN_PIECES * CHUNK / chunk).max(1);
    let mut values: Vec<T> = Vec::with_capacity(len);
    let pieces = values.spare_capacity_mut()[..len]
        .par_chunks_mut(chunk)
        .enumerate()
        .with_min_len(min_pieces);
    let parts = pieces.map(|(index, piece)| fill(index * chunk, zeros(piece)));
    let parts = parts.collect();
    // SAFETY: the pieces cover the first `len` slots, and all of them were written.
    unsafe { values.set_len(len) };
    (values, parts)
}

/// Writes zeros and lends them.
fn zeros<T: Scalar>(slots: &mut [MaybeUninit<T>]) -> &mut [T] {
    for slot in slots.iter_mut() {
        slot.write(T::ZERO);
    }
    // SAFETY: every slot was just written.
    unsafe { slots.assume_init_mut() }
}

/// What `work(first, count)` returns for every piece of `chunk` of `len` elements (the last may have fewer), in their order.
pub(crate) fn each_piece<P: Send>(
    len: usize,
    chunk: usize,
    work: impl Fn(usize, usize) -> P + Sync,
) -> Vec<P> {
    let (chunk, min_pieces) = (chunk.max(1), (MIN_PIECES * CHUNK / chunk.max(1)).max(1));
    let pieces = (0..len.div_ceil(chunk))
        .into_par_iter()
        .with_min_len(min_pieces);
    pieces
        .map(|piece| work(piece * chunk, chunk.min(len - piece * chunk)))
        .collect()
}

/// A vector of `len` elements in groups of `group`, where elements depend on all of their group: `prepare(number of the group)`
/// comes first and returns what `fill(prepared, first, piece)` needs for each piece of `chunk` zeros (a group's last may be
/// shorter), and something to collect in the order of the groups.
///
/// A group is prepared and filled one right after the other, so that what the first reads is still in the cache for the second.
/// Threads without a group of their own help with the pieces of others.
pub(crate) fn build_groups<T: Scalar, S: Sync, R: Send>(
    len: usize,
    group: usize,
    chunk: usize,
    prepare: impl Fn(usize) -> (S, R) + Sync,
    fill: impl Fn(&S, usize, &mut [T]) + Sync,
) -> (Vec<T>, Vec<R>) {
    let [group, chunk] = [group, chunk].map(|elements| elements.max(1));
    let [min_groups, min_pieces] =
        [group, chunk].map(|elements| (MIN_PIECES * CHUNK / elements).max(1));
    let mut values: Vec<T> = Vec::with_capacity(len);
    let groups = values.spare_capacity_mut()[..len]
        .par_chunks_mut(group)
        .enumerate()
        .with_min_len(min_groups);
    let results = groups.map(|(index, slots)| {
        let (prepared, result) = prepare(index);
        let pieces = slots
            .par_chunks_mut(chunk)
            .enumerate()
            .with_min_len(min_pieces);
        pieces.for_each(|(piece, slots)| {
            fill(&prepared, index * group + piece * chunk, zeros(slots))
        });
        result
    });
    let results = results.collect();
    // SAFETY: the groups cover the first `len` slots, their pieces cover the groups, and all of them were written.
    unsafe { values.set_len(len) };
    (values, results)
}

/// `N` vectors, filled piece by piece together: piece `p` of vector `v` has `chunks[v]` elements (the last may have fewer),
/// and `fill(p, pieces)` gets piece `p` of each, zeros. Pieces of a vector that has ended are empty.
pub(crate) fn build_each<T: Scalar, const N: usize>(
    lens: [usize; N],
    chunks: [usize; N],
    fill: impl Fn(usize, [&mut [T]; N]) + Sync,
) -> [Vec<T>; N] {
    let chunks = chunks.map(|chunk| chunk.max(1));
    let pieces = lens
        .iter()
        .zip(chunks)
        .map(|(len, chunk)| len.div_ceil(chunk))
        .max()
        .unwrap_or(0);
    let min_pieces = (MIN_PIECES * CHUNK / chunks.iter().sum::<usize>()).max(1);
    let mut vectors = lens.map(|len| Vec::<T>::with_capacity(len));
    let sinks = vectors.each_mut().map(|vector| Sink(vector.as_mut_ptr()));
    (0..pieces)
        .into_par_iter()
        .with_min_len(min_pieces)
        .for_each(|piece| {
            let pieces = std::array::from_fn(|vector| {
                let begin = (piece * chunks[vector]).min(lens[vector]);
                let end = (begin + chunks[vector]).min(lens[vector]);
                // SAFETY: pieces lie within the capacity of their vector, do not overlap, and are taken by one task each.
                unsafe { sinks[vector].zeros(begin, end - begin) }
            });
            fill(piece, pieces);
        });
    for (vector, len) in vectors.iter_mut().zip(lens) {
        // SAFETY: the pieces cover the first `len` elements, and all of them were written.
        unsafe { vector.set_len(len) };
    }
    vectors
}

/// Begin of a vector whose pieces several tasks fill.
#[derive(Clone, Copy)]
struct Sink<T>(*mut T);

// SAFETY: `build_each` gives every piece to one task only.
unsafe impl<T: Send> Sync for Sink<T> {}

impl<T: Scalar> Sink<T> {
    /// Sets `count` elements from `begin` on to zero and lends them.
    ///
    /// # Safety
    /// They lie within the vector's capacity, and nobody else uses them while the result lives.
    unsafe fn zeros<'a>(self, begin: usize, count: usize) -> &'a mut [T] {
        // SAFETY: promised by the caller; all bytes of a number being 0 makes it 0.
        unsafe {
            let first = self.0.add(begin);
            first.write_bytes(0, count);
            std::slice::from_raw_parts_mut(first, count)
        }
    }
}

/// A matrix of `order.len()` rows of `width` elements, computed in the order of `order`: `fill` gets `batch` row numbers
/// at a time and writes these rows through the sink.
///
/// # Safety
/// `order` is a permutation of the row numbers, and `fill` writes all of the rows that it is given and no others.
pub(crate) unsafe fn build_rows<T: Scalar>(
    width: usize,
    order: &[u32],
    batch: usize,
    fill: impl Fn(&[u32], RowSink<T>) + Sync,
) -> Vec<T> {
    // SAFETY: promised by the caller; batches of a permutation do not overlap.
    unsafe {
        collect_rows(order.len(), width, |sink| {
            order.par_chunks(batch).for_each(|rows| fill(rows, sink))
        })
    }
}

/// A matrix of `rows` rows of `width` elements that `work` writes through the sink, in any order and from any threads.
///
/// # Safety
/// When `work` returns it has written all elements of the matrix, and no two tasks write the same row.
pub(crate) unsafe fn collect_rows<T: Scalar>(
    rows: usize,
    width: usize,
    work: impl FnOnce(RowSink<T>),
) -> Vec<T> {
    let mut values = Vec::with_capacity(rows * width);
    work(RowSink {
        first: values.as_mut_ptr(),
        rows,
        width,
    });
    // SAFETY: the caller promises that every row was written.
    unsafe { values.set_len(rows * width) };
    values
}

/// Takes the rows of a matrix that several tasks write, each row by one task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowSink<T> {
    first: *mut T,
    rows: usize,
    width: usize,
}

// SAFETY: the caller of `collect_rows` promises that no two tasks write the same row, and nobody reads.
unsafe impl<T: Send> Sync for RowSink<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for RowSink<T> {}

impl<T: Scalar> RowSink<T> {
    /// Writes `values` into a row from `column` on.
    ///
    /// # Safety
    /// No other task writes the row, as [`collect_rows`] demands.
    #[inline(always)]
    pub(crate) unsafe fn write(self, row: usize, column: usize, values: &[T]) {
        assert!(
            row < self.rows && column + values.len() <= self.width,
            "within the matrix"
        );
        // SAFETY: the target lies within the buffer (asserted), is written by this task alone, and `values` is elsewhere.
        unsafe {
            values
                .as_ptr()
                .copy_to_nonoverlapping(self.first.add(row * self.width + column), values.len())
        };
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
