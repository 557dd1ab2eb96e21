//! Channels padded with zeros, so that every neighbour of a cell lies at a fixed distance from it.

use std::ops::Range;

use super::cut::{Cut, FIELD_BYTES, Unit, copy_strided};
use crate::lanes::LANES;
use crate::parallel::build;
use crate::scalar::Scalar;

/// Where the points of padded channels lie: `[channels, groups, classes, planes, rows, columns, items abreast]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) cut: Cut,
    split: usize,
}

impl Field {
    /// For numbers of type `T`: of points, if `split` is that of the stencil, or of cells, if it is 1;
    /// into `wanted` units or more, if the grid is not too small for it.
    pub(super) fn new<T>(
        [items, side]: [usize; 2],
        pad: usize,
        split: usize,
        wanted: usize,
    ) -> Self {
        Self {
            cut: Cut::new::<T>(items, side, pad, split.pow(3), wanted),
            split,
        }
    }

    /// Numbers of a padded row.
    fn row(&self) -> usize {
        (self.cut.side + 2 * self.cut.pad) * self.cut.abreast
    }

    fn plane(&self) -> usize {
        (self.cut.side + 2 * self.cut.pad) * self.row()
    }

    /// Numbers of a class of a group.
    fn class(&self) -> usize {
        (self.cut.depth + 2 * self.cut.pad) * self.plane()
    }

    /// Numbers of a channel.
    pub(super) fn channel(&self) -> usize {
        self.cut.bundle * self.split.pow(3) * self.class()
    }

    /// Channels of a block that stays in the cache.
    fn channels<T>(&self) -> usize {
        (FIELD_BYTES / (self.channel() * size_of::<T>()).max(1)).max(1)
    }

    /// Memory for some channels, all zeros.
    fn buffer<T: Scalar>(&self, channels: usize) -> Vec<T> {
        // The last vector of the last row may reach past its end.
        vec![T::ZERO; channels * self.channel() + LANES]
    }

    /// How far behind the first neighbour of a cell the neighbour lies that is `ahead` by so many cells.
    pub(super) fn offset(&self, class: usize, ahead: [isize; 3]) -> usize {
        let [z, y, x] = ahead.map(|ahead| {
            self.cut
                .pad
                .checked_add_signed(ahead)
                .expect("neighbours lie within the padding")
        });
        class * self.class() + z * self.plane() + y * self.row() + x * self.cut.abreast
    }

    /// Where the first neighbours of each vector of cells lie, in the order of a dense block.
    pub(super) fn starts(&self, unit: &Unit) -> Vec<usize> {
        let (side, vectors) = (self.cut.side, self.cut.vectors_of_row());
        let groups = unit.items.len().div_ceil(self.cut.abreast);
        let mut starts = Vec::with_capacity(self.cut.dense_len() / LANES);
        for group in 0..groups {
            for plane in 0..unit.planes.len() {
                for row in 0..side {
                    let begin = group * self.split.pow(3) * self.class()
                        + plane * self.plane()
                        + row * self.row();
                    starts.extend((0..vectors).map(|vector| begin + vector * LANES));
                }
            }
        }
        starts
    }

    /// Copies channels of `source [items, all, side', side', side']`, with `split` points per cell and axis.
    ///
    /// The padding is zero and stays so.
    fn pack<T: Scalar>(
        &self,
        source: &[T],
        all: usize,
        channels: Range<usize>,
        unit: &Unit,
        field: &mut [T],
    ) {
        let cut = self.cut;
        if unit.items.len() < cut.abreast * cut.bundle {
            field.fill(T::ZERO);
        }
        let fine = cut.side * self.split;
        for (slot, channel) in channels.enumerate() {
            for item in unit.items.clone() {
                let (group, lane) = cut.place(unit, item);
                let source = &source[(item * all + channel) * fine.pow(3)..][..fine.pow(3)];
                for class in 0..self.split.pow(3) {
                    let first = slot * self.channel()
                        + (group * self.split.pow(3) + class) * self.class()
                        + lane;
                    self.pack_class(source, class, unit, &mut field[first..]);
                }
            }
        }
    }

    /// Copies one class of the points of a grid, into the columns of its item.
    #[inline(always)]
    fn pack_class<T: Scalar>(&self, source: &[T], class: usize, unit: &Unit, field: &mut [T]) {
        let Cut {
            side, pad, abreast, ..
        } = self.cut;
        let (split, fine) = (self.split, side * self.split);
        let [place_z, place_y, place_x] = [
            class / (split * split),
            class / split % split,
            class % split,
        ];
        for plane in 0..unit.planes.len() + 2 * pad {
            let inside = (unit.planes.start + plane)
                .checked_sub(pad)
                .filter(|&z| z < side);
            for y in 0..side {
                let to =
                    &mut field[plane * self.plane() + (y + pad) * self.row() + pad * abreast..];
                match inside {
                    Some(z) => {
                        let from =
                            ((split * z + place_z) * fine + split * y + place_y) * fine + place_x;
                        copy_strided(&source[from..], split, to, abreast, side);
                    }
                    None => to
                        .iter_mut()
                        .step_by(abreast)
                        .take(side)
                        .for_each(|to| *to = T::ZERO),
                }
            }
        }
    }
}

/// All channels of a batch, from which fields are packed.
#[derive(Debug)]
pub(super) struct Source<'a, T> {
    /// `[items, channels, side', side', side']`
    values: &'a [T],
    pub(super) channels: usize,
    pub(super) field: Field,
    /// All fields, `[units, channels, ..]`, if they are needed several times.
    packed: Option<Vec<T>>,
}

impl<'a, T: Scalar> Source<'a, T> {
    pub(super) fn new(values: &'a [T], channels: usize, field: Field) -> Self {
        Self {
            values,
            channels,
            field,
            packed: None,
        }
    }

    /// Packs all fields now, if they are going to be used `times` times.
    pub(super) fn prepare(&mut self, times: usize) {
        if times < 2 {
            return;
        }
        let (len, cut) = (self.field.channel(), self.field.cut);
        // The last vector of the last row may reach past its end.
        self.packed = Some(build(
            cut.units() * self.channels * len + LANES,
            len,
            |first, field| {
                if field.len() == len {
                    let (unit, channel) =
                        (first / len / self.channels, first / len % self.channels);
                    self.field.pack(
                        self.values,
                        self.channels,
                        channel..channel + 1,
                        &cut.unit(unit),
                        field,
                    );
                }
            },
        ));
    }

    /// Consecutive channels that are used together.
    pub(super) fn blocks(&self) -> impl Iterator<Item = Range<usize>> {
        let (channels, block) = (self.channels, self.channels_of_block().max(1));
        (0..channels)
            .step_by(block)
            .map(move |begin| begin..(begin + block).min(channels))
    }

    fn channels_of_block(&self) -> usize {
        self.field.channels::<T>().min(self.channels)
    }

    /// Memory for [`Self::block`].
    pub(super) fn scratch(&self) -> Vec<T> {
        if self.packed.is_some() {
            Vec::new()
        } else {
            self.field.buffer(self.channels_of_block())
        }
    }

    /// The fields of some channels in a unit.
    pub(super) fn block<'b>(
        &'b self,
        channels: Range<usize>,
        unit: &Unit,
        scratch: &'b mut [T],
    ) -> &'b [T] {
        let len = self.field.channel();
        if let Some(packed) = &self.packed {
            return &packed[(unit.number * self.channels + channels.start) * len..]
                [..channels.len() * len + LANES];
        }
        self.field
            .pack(self.values, self.channels, channels, unit, scratch);
        scratch
    }
}
