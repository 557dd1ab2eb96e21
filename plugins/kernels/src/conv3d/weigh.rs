//! Gradients of weights: products of a dense grid with every neighbour of its cells.

use std::ops::Range;

use rayon::prelude::*;

use super::cut::{Cut, Unit};
use super::field::Source;
use super::stencil::Tap;
use crate::lanes::{LANES, Lanes, ROWS, total};
use crate::parallel::{RowSink, collect_rows};
use crate::scalar::Scalar;
use crate::simd::simd;

/// Tasks that the work is cut into, if it can be.
const TASKS: usize = 16;

/// Bytes of partial sums that all tasks together may use.
const PART_BYTES: usize = 4 << 20;

/// Columns that are computed together.
const TILE: usize = 3;

/// Pairs of a channel and a weight whose sums are kept in the first-level cache: 4 rows of them take 6.75 KiB of `f32`.
const COLUMNS: usize = 54;

/// Vectors of cells that are gone through for all these columns in turn: 4 rows of them are 8 KiB of `f32`.
const VECTORS: usize = 64;

/// `result[row, channel, weight] = sum over items and cells of dense[row, cell] * input[channel, cell + tap of weight]`.
pub(super) struct Weighing<'a, T> {
    /// `[items, rows, side, side, side]`
    pub(super) dense: &'a [T],
    pub(super) rows: usize,
    pub(super) input: Source<'a, T>,
    /// In the order of weights.
    pub(super) taps: Vec<Tap>,
}

/// What a task uses again for unit after unit.
struct Scratch<T> {
    /// A block of channels of the input.
    field: Vec<T>,
    /// A block of rows of the dense grid.
    dense: Vec<T>,
    /// Sums of this block.
    sums: Vec<T>,
}

impl<T: Scalar> Weighing<'_, T> {
    fn cut(&self) -> Cut {
        self.input.field.cut
    }

    /// The gradient, `[rows, channels, weights]`.
    pub(super) fn run(mut self) -> Vec<T> {
        let (width, parts) = (self.input.channels * self.taps.len(), self.parts());
        let rows_of_block = self
            .rows
            .div_ceil(TASKS.div_ceil(parts))
            .next_multiple_of(ROWS);
        let blocks = self.rows.div_ceil(rows_of_block);
        self.input.prepare(blocks);
        let work = |sink: RowSink<T>| {
            (0..parts * blocks).into_par_iter().for_each_init(
                || self.scratch(rows_of_block),
                |scratch, task| {
                    let first = task % blocks * rows_of_block;
                    let rows = first..(first + rows_of_block).min(self.rows);
                    self.compute(self.units_of(task / blocks), rows.clone(), scratch);
                    for (row, sums) in rows.zip(scratch.sums.chunks_exact(width.max(1))) {
                        // SAFETY: every task has rows of a part for itself.
                        unsafe { sink.write(task / blocks * self.rows + row, 0, sums) };
                    }
                },
            );
        };
        // SAFETY: tasks cover all rows of all parts.
        let all = unsafe { collect_rows(parts * self.rows, width, work) };
        sum_of_parts(all, parts)
    }

    /// How many partial sums there are of each number.
    fn parts(&self) -> usize {
        parts::<T>(self.rows * self.input.channels * self.taps.len())
            .min(self.cut().units())
            .max(1)
    }

    fn units_of(&self, part: usize) -> Range<usize> {
        let begin = |part: usize| part * self.cut().units() / self.parts();
        begin(part)..begin(part + 1)
    }

    fn scratch(&self, rows: usize) -> Scratch<T> {
        Scratch {
            field: self.input.scratch(),
            dense: vec![T::ZERO; rows * self.cut().dense_len()],
            sums: vec![T::ZERO; rows * self.input.channels * self.taps.len()],
        }
    }

    /// Leaves the sums over some units in `scratch`.
    fn compute(&self, units: Range<usize>, rows: Range<usize>, scratch: &mut Scratch<T>) {
        let Scratch { field, dense, sums } = scratch;
        let dense = &mut dense[..rows.len() * self.cut().dense_len()];
        sums.fill(T::ZERO);
        for unit in units.map(|unit| self.cut().unit(unit)) {
            self.cut()
                .pack_dense(self.dense, self.rows, rows.clone(), &unit, dense);
            self.add_unit(&unit, dense, field, sums);
        }
    }

    fn add_unit(&self, unit: &Unit, dense: &[T], field: &mut [T], sums: &mut [T]) {
        let (starts, weights, stride) = (
            self.input.field.starts(unit),
            self.taps.len(),
            self.input.field.channel(),
        );
        for channels in self.input.blocks() {
            let field = self.input.block(channels.clone(), unit, field);
            let of_channel = |channel: usize| {
                self.taps
                    .iter()
                    .map(move |tap| channel * stride + tap.input)
            };
            let columns: Vec<usize> = (0..channels.len()).flat_map(of_channel).collect();
            let pairs = Pairs {
                dense,
                stride: self.cut().dense_len(),
                field,
                starts: &starts,
                columns: &columns,
            };
            add_products(
                pairs,
                &mut sums[channels.start * weights..],
                self.input.channels * weights,
            );
        }
    }
}

/// How many partial sums of each of `len` numbers there may be.
pub(super) fn parts<T>(len: usize) -> usize {
    (PART_BYTES / (len * size_of::<T>()).max(1)).clamp(1, TASKS)
}

/// The sum of the equal parts of `all`, in order.
fn sum_of_parts<T: Scalar>(mut all: Vec<T>, parts: usize) -> Vec<T> {
    let len = all.len() / parts;
    let (total, rest) = all.split_at_mut(len);
    for part in rest.chunks_exact(len.max(1)) {
        for (total, &value) in total.iter_mut().zip(part) {
            *total += value;
        }
    }
    all.truncate(len);
    all
}

/// Rows of dense vectors, `stride` apart; a vector of row `r` belongs to the numbers of a field that begin at the sum of
/// its start and that of a column.
#[derive(Debug, Clone, Copy)]
struct Pairs<'a, T> {
    dense: &'a [T],
    stride: usize,
    field: &'a [T],
    starts: &'a [usize],
    columns: &'a [usize],
}

simd! {
    /// Adds the product of each dense row with each column to `sums`, whose rows are `stride` apart.
    ///
    /// # Panics
    /// If an index lies outside.
    fn add_products<T, L>(pairs: Pairs<'_, T>, sums: &mut [T], stride: usize) {
        let (Some(&last_start), Some(&last_column)) = (pairs.starts.iter().max(), pairs.columns.iter().max()) else { return };
        let Some(last_row) = (pairs.dense.len() / pairs.stride).checked_sub(1) else { return };
        assert!(pairs.starts.len() * LANES <= pairs.stride, "dense rows");
        assert!(last_start + last_column + LANES <= pairs.field.len(), "field");
        for row in (0..=last_row).step_by(ROWS) {
            let rows: [usize; ROWS] = std::array::from_fn(|offset| (row + offset).min(last_row));
            for (block, columns) in pairs.columns.chunks(COLUMNS).enumerate() {
                let mut totals = [[L::splat(T::ZERO); ROWS]; COLUMNS];
                // SAFETY: rows and columns lie inside, and so do their sums with starts.
                unsafe { tiles::<T, L>(pairs, rows, columns, &mut totals) };
                for (column, totals) in totals[..columns.len()].iter().enumerate() {
                    for (row, total) in (row..=last_row).zip(L::across(*totals)) {
                        sums[row * stride + block * COLUMNS + column] += total;
                    }
                }
            }
        }
    }
}

/// Adds to `totals` in tiles of [`ROWS`] rows and [`TILE`] columns; where fewer remain, the last one is computed several times.
///
/// # Safety
/// All indices lie inside.
#[inline(always)]
unsafe fn tiles<T: Scalar, L: Lanes<T>>(
    pairs: Pairs<'_, T>,
    rows: [usize; ROWS],
    columns: &[usize],
    totals: &mut [[L; ROWS]; COLUMNS],
) {
    for (chunk, starts) in pairs.starts.chunks(VECTORS).enumerate() {
        // SAFETY: promised by the caller.
        let dense = rows.map(|row| unsafe {
            pairs
                .dense
                .as_ptr()
                .add(row * pairs.stride + chunk * VECTORS * LANES)
        });
        for column in (0..columns.len()).step_by(TILE) {
            let places: [usize; TILE] =
                std::array::from_fn(|offset| (column + offset).min(columns.len() - 1));
            // SAFETY: promised by the caller.
            let fields = places.map(|place| unsafe { pairs.field.as_ptr().add(columns[place]) });
            let sums = std::array::from_fn(|row| places.map(|place| totals[place][row]));
            // SAFETY: promised by the caller.
            let sums = unsafe { tile::<T, L>(dense, fields, starts, sums) };
            for (row, sums) in sums.into_iter().enumerate() {
                for (place, sum) in places.into_iter().zip(sums) {
                    totals[place][row] = sum;
                }
            }
        }
    }
}

/// Adds the products of some vectors to a tile that is kept in registers.
///
/// # Safety
/// `dense` is readable for as many vectors as there are starts, and `fields` for a vector from each start on.
#[inline(always)]
unsafe fn tile<T: Scalar, L: Lanes<T>>(
    dense: [*const T; ROWS],
    fields: [*const T; TILE],
    starts: &[usize],
    mut sums: [[L; TILE]; ROWS],
) -> [[L; TILE]; ROWS] {
    for (vector, start) in starts.iter().enumerate() {
        // SAFETY: promised by the caller.
        unsafe {
            let inputs = fields.map(|field| L::load(field.add(*start)));
            L::add_products(
                &mut sums,
                dense.map(|dense| dense.add(vector * LANES)),
                inputs,
            );
        }
    }
    sums
}

simd! {
    /// The sum of each `volume` numbers.
    pub(super) fn totals<T, L>(values: &[T], volume: usize, sums: &mut [T]) {
        for (sum, values) in sums.iter_mut().zip(values.chunks_exact(volume.max(1))) {
            *sum = total::<T, L>(values);
        }
    }
}
