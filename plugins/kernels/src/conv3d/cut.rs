//! How grids are cut into units that fit into the cache, and how their numbers lie there.
//!
//! Some items of the batch lie abreast, their numbers interleaved along rows, so that short rows fill whole vectors as well.
//! A dense block has no padding, except that rows are filled up to whole vectors.

use std::ops::Range;

use crate::lanes::LANES;
use crate::parallel::RowSink;
use crate::scalar::Scalar;

/// Bytes of a block of channels of a field: half of the second-level cache of common processors.
pub(super) const FIELD_BYTES: usize = 128 << 10;

/// Channels that should fit into [`FIELD_BYTES`].
const FIELD_CHANNELS: usize = 8;

/// Planes of cells in a unit, if the grid has as many: fewer would mostly be padding.
const PLANES: usize = 4;

/// Vectors of cells in a unit, if the batch has as many: fewer would not be worth reading the weights for.
const VECTORS: usize = 64;

/// A batch of cubic grids of cells, cut into units.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Grids in the batch.
    pub(super) items: usize,
    /// Cells per axis.
    pub(super) side: usize,
    /// Cells of zeros around a grid.
    pub(super) pad: usize,
    /// Items whose numbers are interleaved.
    pub(super) abreast: usize,
    /// Groups of items abreast in a unit.
    pub(super) bundle: usize,
    /// Planes of cells in a unit.
    pub(super) depth: usize,
}

/// Some planes of some items.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) number: usize,
    pub(super) items: Range<usize>,
    pub(super) planes: Range<usize>,
}

impl Cut {
    /// For fields of `points` numbers of type `T` per cell and channel; into `wanted` units or more, if the grid is not too
    /// small for it.
    pub(super) fn new<T>(
        items: usize,
        side: usize,
        pad: usize,
        points: usize,
        wanted: usize,
    ) -> Self {
        let vectors = |abreast: usize| items.div_ceil(abreast) * (side * abreast).div_ceil(LANES);
        let abreast = [1, 2, 4, 8]
            .into_iter()
            .min_by_key(|&abreast| vectors(abreast))
            .expect("four choices");
        let groups = items.div_ceil(abreast).max(1);
        let plane_bytes = points * (side + 2 * pad).pow(2) * abreast * size_of::<T>();
        let fitting = FIELD_BYTES / (FIELD_CHANNELS * plane_bytes).max(1);
        if fitting < side + 2 * pad || groups < wanted && side > PLANES {
            let slabs = side
                .div_ceil(fitting.saturating_sub(2 * pad).max(1))
                .max(wanted.div_ceil(groups).min(side.div_ceil(PLANES)));
            return Self {
                items,
                side,
                pad,
                abreast,
                bundle: 1,
                depth: side.div_ceil(slabs),
            };
        }
        let enough = VECTORS
            .div_ceil(side * side * (side * abreast).div_ceil(LANES))
            .max(groups.div_ceil(wanted));
        let bundle = (fitting / (side + 2 * pad)).min(enough).clamp(1, groups);
        Self {
            items,
            side,
            pad,
            abreast,
            bundle,
            depth: side,
        }
    }

    fn slabs(self) -> usize {
        self.side.div_ceil(self.depth)
    }

    /// Units in the batch.
    pub(super) fn units(self) -> usize {
        self.items.div_ceil(self.abreast * self.bundle) * self.slabs()
    }

    pub(super) fn unit(self, number: usize) -> Unit {
        let (first, plane) = (
            number / self.slabs() * self.abreast * self.bundle,
            number % self.slabs() * self.depth,
        );
        let last = (first + self.abreast * self.bundle).min(self.items);
        Unit {
            number,
            items: first..last,
            planes: plane..(plane + self.depth).min(self.side),
        }
    }

    pub(super) fn vectors_of_row(self) -> usize {
        (self.side * self.abreast).div_ceil(LANES)
    }

    /// Numbers of a channel of a dense block, of the largest unit.
    pub(super) fn dense_len(self) -> usize {
        self.bundle * self.depth * self.side * self.vectors_of_row() * LANES
    }

    /// The group of an item within the unit, and its place in the group.
    pub(super) fn place(self, unit: &Unit, item: usize) -> (usize, usize) {
        (
            (item - unit.items.start) / self.abreast,
            (item - unit.items.start) % self.abreast,
        )
    }

    /// Begin of a row of cells within a channel of a dense block of this unit.
    fn dense_row(self, unit: &Unit, group: usize, plane: usize, row: usize) -> usize {
        ((group * unit.planes.len() + plane) * self.side + row) * self.vectors_of_row() * LANES
    }

    /// Copies channels of `source`, of all in `source [items, all, side, side, side]`, into a dense block
    /// `[channels, dense_len]`, whose unused places become zero.
    pub(super) fn pack_dense<T: Scalar>(
        self,
        source: &[T],
        all: usize,
        channels: Range<usize>,
        unit: &Unit,
        dense: &mut [T],
    ) {
        let filled = (self.side * self.abreast).is_multiple_of(LANES)
            && unit.items.len().is_multiple_of(self.abreast);
        if !filled {
            dense.fill(T::ZERO);
        }
        for (channel, dense) in channels.zip(dense.chunks_exact_mut(self.dense_len())) {
            for item in unit.items.clone() {
                let (group, lane) = self.place(unit, item);
                for (plane, z) in unit.planes.clone().enumerate() {
                    for row in 0..self.side {
                        let from =
                            &source[(((item * all + channel) * self.side + z) * self.side + row)
                                * self.side..][..self.side];
                        let to = &mut dense[self.dense_row(unit, group, plane, row) + lane..];
                        copy_strided(from, 1, to, self.abreast, self.side);
                    }
                }
            }
        }
    }

    /// Copies a dense block `[channels, classes, dense_len]` into planes of points `[items, all, side', side', side']` for
    /// `split` points per cell and axis; `scratch` holds a plane of points. The channels are those from number `first` on.
    ///
    /// # Safety
    /// No other task writes these planes.
    pub(super) unsafe fn unpack<T: Scalar>(
        self,
        (dense, split): (&[T], usize),
        [all, first]: [usize; 2],
        unit: &Unit,
        scratch: &mut [T],
        sink: RowSink<T>,
    ) {
        let (fine, classes) = (self.side * split, split.pow(3));
        for (channel, dense) in dense.chunks_exact(classes * self.dense_len()).enumerate() {
            for item in unit.items.clone() {
                let (group, lane) = self.place(unit, item);
                for z in unit.planes.start * split..unit.planes.end * split {
                    let plane =
                        self.dense_row(unit, group, z / split - unit.planes.start, 0) + lane;
                    let target = (item * all + first + channel) * fine + z;
                    let of_class = |class: usize| {
                        &dense[(z % split * split * split + class) * self.dense_len() + plane..]
                    };
                    let whole = split == 1 && self.abreast == 1 && self.side.is_multiple_of(LANES);
                    let points = if whole {
                        &of_class(0)[..fine * fine]
                    } else {
                        &*self.merge(of_class, split, scratch)
                    };
                    // SAFETY: promised by the caller.
                    unsafe { sink.write(target, 0, points) };
                }
            }
        }
    }

    /// A plane of points from its classes, whose rows of cells begin where `of_class` says.
    #[inline(always)]
    fn merge<'a, 'b, T: Scalar>(
        self,
        of_class: impl Fn(usize) -> &'a [T],
        split: usize,
        plane: &'b mut [T],
    ) -> &'b mut [T] {
        for (y, points) in plane.chunks_exact_mut(self.side * split).enumerate() {
            for place in 0..split {
                let from = &of_class(y % split * split + place)
                    [y / split * self.vectors_of_row() * LANES..];
                copy_strided(from, self.abreast, &mut points[place..], split, self.side);
            }
        }
        plane
    }
}

/// `to[i * spread] = from[i * stride]` for `i < count`.
#[inline(always)]
pub(super) fn copy_strided<T: Scalar>(
    from: &[T],
    stride: usize,
    to: &mut [T],
    spread: usize,
    count: usize,
) {
    match (stride, spread) {
        (1, 1) => copy_row(&from[..count], &mut to[..count]),
        // Compilers vectorise the common distances if they know them.
        (2, 1) => {
            let (pairs, last) = from.as_chunks::<2>();
            to[..count]
                .iter_mut()
                .zip(pairs)
                .for_each(|(to, pair)| *to = pair[0]);
            if let ([last], true) = (last, pairs.len() < count) {
                to[pairs.len()] = *last;
            }
        }
        _ => to
            .iter_mut()
            .step_by(spread)
            .zip(from.iter().step_by(stride))
            .take(count)
            .for_each(|(to, from)| *to = *from),
    }
}

/// Rows are short: copies of a known length cost less than a call.
#[inline(always)]
fn copy_row<T: Scalar>(from: &[T], to: &mut [T]) {
    let ((from, from_rest), (to, to_rest)) =
        (from.as_chunks::<LANES>(), to.as_chunks_mut::<LANES>());
    to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    to_rest
        .iter_mut()
        .zip(from_rest)
        .for_each(|(to, from)| *to = *from);
}
