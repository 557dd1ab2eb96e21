//! Sums over weights and channels: gathering points into cells, and spreading cells over points.

use std::ops::Range;

use rayon::prelude::*;

use super::cut::{Cut, Unit};
use super::field::Source;
use super::stencil::{Tap, Terms};
use crate::lanes::{LANES, Lanes, ROWS};
use crate::parallel::{RowSink, collect_rows};
use crate::scalar::Scalar;
use crate::simd::simd;

/// Tasks that a convolution gives at least, if it has as many rows of four result channels.
const TASKS: usize = 16;

/// Units that a batch should give at least, if the grid is not too small for it.
pub(super) const UNITS: usize = 8;

/// Bytes of results that a task keeps in the cache.
const RESULT_BYTES: usize = 256 << 10;

/// `result[row, class, cell] = bias[row] + sum over channels and taps of the class of weights[row, channel, tap] * input[channel, cell + tap]`.
pub(super) struct Correlation<'a, T> {
    pub(super) input: Source<'a, T>,
    pub(super) weights: &'a [T],
    /// How far rows and channels of the weights are apart.
    pub(super) strides: [usize; 2],
    /// Channels of the result.
    pub(super) rows: usize,
    /// Points of the result per cell and axis.
    pub(super) split: usize,
    /// Terms of each class of points.
    pub(super) classes: Vec<Vec<Tap>>,
    pub(super) bias: Option<&'a [T]>,
}

/// What a task uses again for unit after unit.
struct Scratch<T> {
    /// A block of channels of the input.
    field: Vec<T>,
    /// A block of rows of the result.
    dense: Vec<T>,
    /// A plane of points of the result.
    plane: Vec<T>,
}

impl<T: Scalar> Correlation<'_, T> {
    fn cut(&self) -> Cut {
        self.input.field.cut
    }

    /// The result, `[items, rows, side', side', side']` with `split` points per cell and axis.
    pub(super) fn run(mut self) -> Vec<T> {
        let fine = self.cut().side * self.split;
        let blocks = self.rows.div_ceil(self.rows_of_block());
        self.input.prepare(blocks);
        let strides = [self.strides[1], self.input.field.channel()];
        let terms: Vec<Terms> = self
            .classes
            .iter()
            .map(|taps| Terms::new(taps, strides))
            .collect();
        let work = |sink: RowSink<T>| {
            (0..self.cut().units() * blocks)
                .into_par_iter()
                .for_each_init(
                    || self.scratch(),
                    |scratch, task| {
                        let first = task % blocks * self.rows_of_block();
                        let rows = first..(first + self.rows_of_block()).min(self.rows);
                        // SAFETY: every task has rows of channels, planes and items for itself.
                        unsafe {
                            self.compute(
                                &terms,
                                &self.cut().unit(task / blocks),
                                rows,
                                scratch,
                                sink,
                            )
                        };
                    },
                );
        };
        // SAFETY: units cover all planes of all items, and blocks all channels.
        unsafe { collect_rows(self.cut().items * self.rows * fine, fine * fine, work) }
    }

    fn rows_of_block(&self) -> usize {
        let fitting = RESULT_BYTES / (self.result_len() * size_of::<T>()).max(1);
        let shared = self
            .rows
            .div_ceil(TASKS.div_ceil(self.cut().units().max(1)));
        // A channel of a large grid may fill more than the cache; a block has one row of it all the same.
        fitting
            .min(shared)
            .max(1)
            .next_multiple_of(ROWS)
            .min(self.rows.max(1))
    }

    /// Numbers of a channel of the result.
    fn result_len(&self) -> usize {
        self.classes.len() * self.cut().dense_len()
    }

    fn scratch(&self) -> Scratch<T> {
        Scratch {
            field: self.input.scratch(),
            dense: vec![T::ZERO; self.rows_of_block() * self.result_len()],
            plane: vec![T::ZERO; (self.cut().side * self.split).pow(2)],
        }
    }

    /// Computes some channels of the result in one unit.
    ///
    /// # Safety
    /// No other task writes them.
    unsafe fn compute(
        &self,
        terms: &[Terms],
        unit: &Unit,
        rows: Range<usize>,
        scratch: &mut Scratch<T>,
        sink: RowSink<T>,
    ) {
        let Scratch {
            field,
            dense,
            plane,
        } = scratch;
        let (first, dense) = (rows.start, &mut dense[..rows.len() * self.result_len()]);
        for (row, dense) in rows.clone().zip(dense.chunks_exact_mut(self.result_len())) {
            dense.fill(self.bias.map_or(T::ZERO, |bias| bias[row]));
        }
        let starts = self.input.field.starts(unit);
        for channels in self.input.blocks() {
            let field = self.input.block(channels.clone(), unit, field);
            for (class, terms) in terms.iter().enumerate() {
                let weights = Weights {
                    values: self.weights,
                    strides: self.strides,
                    rows: rows.clone(),
                    channels: channels.clone(),
                };
                let input = Input {
                    field,
                    stride: self.input.field.channel(),
                    starts: &starts,
                };
                let mut result = Rows {
                    dense,
                    offset: class * self.cut().dense_len(),
                    stride: self.result_len(),
                };
                accumulate(terms, weights, input, &mut result);
            }
        }
        // SAFETY: promised by the caller.
        unsafe {
            self.cut()
                .unpack((dense, self.split), [self.rows, first], unit, plane, sink)
        };
    }
}

/// Weights of some rows and channels.
#[derive(Debug, Clone)]
struct Weights<'a, T> {
    values: &'a [T],
    strides: [usize; 2],
    rows: Range<usize>,
    channels: Range<usize>,
}

/// Channels of a field, `stride` apart, and where the neighbourhoods of vectors of cells begin in them.
#[derive(Debug, Clone, Copy)]
struct Input<'a, T> {
    field: &'a [T],
    stride: usize,
    starts: &'a [usize],
}

/// Vectors of cells of some rows, `stride` apart.
#[derive(Debug)]
struct Rows<'a, T> {
    dense: &'a mut [T],
    offset: usize,
    stride: usize,
}

simd! {
    /// Adds the terms of the channels to the result.
    ///
    /// # Panics
    /// If an index lies outside.
    fn accumulate<T, L>(terms: &Terms, weights: Weights<'_, T>, input: Input<'_, T>, result: &mut Rows<'_, T>) {
        let Some(last_row) = weights.rows.len().checked_sub(1) else { return };
        let Some(last_vector) = input.starts.len().checked_sub(1) else { return };
        assert!(result.offset + last_row * result.stride + (last_vector + 1) * LANES <= result.dense.len(), "result");
        let count = weights.channels.len();
        for first in (0..count).step_by(terms.channels) {
            let list = terms.of(terms.channels.min(count - first));
            let group = Group {
                list,
                step: terms.step,
                weights: &weights.values[weights.rows.start * weights.strides[0] + (weights.channels.start + first) * weights.strides[1]..],
                field: &input.field[first * input.stride..],
            };
            group.check(last_row * weights.strides[0], input.starts);
            // SAFETY: all indices were checked.
            unsafe { tiles::<T, L>(group, [weights.rows.len(), weights.strides[0]], input.starts, result) };
        }
    }
}

/// Terms of a group of channels, with the weights of the first row from there on, and the fields from there on.
#[derive(Debug, Clone, Copy)]
struct Group<'a, T> {
    list: &'a [Tap],
    step: Option<isize>,
    weights: &'a [T],
    field: &'a [T],
}

impl<T> Group<'_, T> {
    /// # Panics
    /// If a term lies outside, for weights up to `last_row` behind those of the first, or for any start.
    fn check(&self, last_row: usize, starts: &[usize]) {
        let last_start = starts.iter().max().copied().unwrap_or(0);
        let furthest = |of: fn(&Tap) -> usize| self.list.iter().map(of).max().unwrap_or(0);
        let (more, step) = if self.step.is_some() {
            (2, self.step.unwrap_or(0))
        } else {
            (0, 0)
        };
        assert!(
            last_row + furthest(|tap| tap.weight) + more < self.weights.len(),
            "weights"
        );
        let ahead = (furthest(|tap| tap.input) + last_start)
            .checked_add_signed((2 * step).max(0))
            .expect("an index");
        assert!(ahead + LANES <= self.field.len(), "field");
        assert!(
            self.list
                .iter()
                .all(|tap| tap.input.checked_add_signed((2 * step).min(0)).is_some()),
            "begin of the field"
        );
    }
}

/// Vectors of a tile.
const COLUMNS: usize = 3;

/// Goes through tiles of [`ROWS`] rows and [`COLUMNS`] vectors; where fewer remain, the last one is computed several times.
///
/// # Safety
/// All indices lie inside.
#[inline(always)]
unsafe fn tiles<T: Scalar, L: Lanes<T>>(
    group: Group<'_, T>,
    [count, stride]: [usize; 2],
    starts: &[usize],
    result: &mut Rows<'_, T>,
) {
    for row in (0..count).step_by(ROWS) {
        let rows: [usize; ROWS] = std::array::from_fn(|offset| (row + offset).min(count - 1));
        for vector in (0..starts.len()).step_by(COLUMNS) {
            let vectors: [usize; COLUMNS] =
                std::array::from_fn(|offset| (vector + offset).min(starts.len() - 1));
            let place =
                |row: usize, vector: usize| result.offset + row * result.stride + vector * LANES;
            let mut sums = [[L::splat(T::ZERO); COLUMNS]; ROWS];
            // SAFETY: promised by the caller.
            unsafe {
                let dense = result.dense.as_mut_ptr();
                for (row, sums) in rows.into_iter().zip(&mut sums) {
                    for (vector, sum) in vectors.into_iter().zip(sums) {
                        *sum = L::load(dense.add(place(row, vector)));
                    }
                }
                let factors = rows.map(|row| group.weights.as_ptr().add(row * stride));
                let inputs = vectors.map(|vector| group.field.as_ptr().add(starts[vector]));
                let sums = tile::<T, L>(group.list, group.step, factors, inputs, sums);
                for (row, sums) in rows.into_iter().zip(sums) {
                    for (vector, sum) in vectors.into_iter().zip(sums) {
                        sum.store(dense.add(place(row, vector)));
                    }
                }
            }
        }
    }
}

/// Adds the terms to a tile that is kept in registers.
///
/// # Safety
/// All indices lie inside.
#[inline(always)]
unsafe fn tile<T: Scalar, L: Lanes<T>>(
    list: &[Tap],
    step: Option<isize>,
    factors: [*const T; ROWS],
    inputs: [*const T; COLUMNS],
    mut sums: [[L; COLUMNS]; ROWS],
) -> [[L; COLUMNS]; ROWS] {
    for term in list {
        // SAFETY: promised by the caller.
        unsafe {
            let factors = factors.map(|factor| factor.add(term.weight));
            let inputs = inputs.map(|input| input.add(term.input));
            match step {
                Some(step) => L::add_three_scaled(&mut sums, factors, inputs, step),
                None => L::add_scaled(&mut sums, factors, inputs.map(|input| L::load(input))),
            }
        }
    }
    sums
}
