//! Cube rotations of voxel grids: exact index permutations, row after row, with nothing in between.
//!
//! The content at grid point `p` moves to `T (p − mid) + mid`, `mid = (g − 1)/2`. Seen from the result, the value at `q` was at
//! `T⁻¹ (q − mid) + mid`, which is an affine function of `q` with steps `±1, ±g, ±g²`. Rows whose numbers lie far apart in the
//! source are gathered in small tiles, so that every cache line that was fetched is used.

use crate::Rotation;

/// Rows that are gathered together: their numbers lie side by side in the source, so that this many are read at a stretch. 64 rows of
/// 64 numbers fill 32 KB, which the first cache holds; with 16 the ends of unaligned stretches cost a third more.
const TILE: usize = 64;
/// Side of the blocks in which a tile is transposed.
const BLOCK: usize = 8;

/// One cube rotation of grids of one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GridRotation {
    side: usize,
    /// Where the source of grid point (0, 0, 0) lies.
    start: usize,
    /// How the source moves with each coordinate of the result.
    steps: [isize; 3],
}

impl GridRotation {
    /// A rotation of grids with `side` points along each axis; `None` for a rotation that does not map the cube to itself.
    #[must_use]
    pub fn new(rotation: &Rotation, side: usize) -> Option<Self> {
        let back = rotation.inverse().as_signed_permutation()?;
        let strides = [side * side, side, 1];
        let (mut start, mut steps) = (0, [0; 3]);
        for (stride, (axis, negative)) in strides.into_iter().zip(back) {
            steps[axis] = if negative {
                -(stride as isize)
            } else {
                stride as isize
            };
            start += if negative { (side - 1) * stride } else { 0 };
        }
        Some(Self { side, start, steps })
    }

    /// Number of points of a grid.
    #[must_use]
    pub const fn points(&self) -> usize {
        self.side * self.side * self.side
    }

    /// Writes the rotated grid.
    ///
    /// # Panics
    /// If the slices are not one grid long.
    pub fn rotate<T: Copy + Default>(&self, from: &[T], to: &mut [T]) {
        assert_eq!(to.len(), self.points(), "one grid is rotated into one grid");
        self.for_each_row(from, |offset, row| {
            to[offset..offset + row.len()].copy_from_slice(row)
        });
    }

    /// Visits the rows (along the last axis) of the rotated grid, each once, with its offset.
    ///
    /// # Panics
    /// If `from` is not one grid long.
    #[inline(always)]
    pub fn for_each_row<T: Copy + Default>(&self, from: &[T], visit: impl FnMut(usize, &[T])) {
        assert_eq!(from.len(), self.points(), "one grid is rotated");
        match self.steps[2] {
            1 => self.forward_rows(from, visit),
            -1 => self.backward_rows(from, visit),
            _ => self.gathered_rows(from, visit),
        }
    }

    /// Where the source of `(x, y, 0)` lies.
    #[inline(always)]
    fn source(&self, x: usize, y: usize) -> usize {
        self.start
            .wrapping_add_signed(x as isize * self.steps[0] + y as isize * self.steps[1])
    }

    #[inline(always)]
    fn forward_rows<T: Copy + Default>(&self, from: &[T], mut visit: impl FnMut(usize, &[T])) {
        for (x, y) in pairs(self.side) {
            let source = self.source(x, y);
            visit(
                (x * self.side + y) * self.side,
                &from[source..source + self.side],
            );
        }
    }

    #[inline(always)]
    fn backward_rows<T: Copy + Default>(&self, from: &[T], mut visit: impl FnMut(usize, &[T])) {
        let mut row = vec![T::default(); self.side];
        for (x, y) in pairs(self.side) {
            let last = self.source(x, y);
            row.iter_mut()
                .zip(from[last + 1 - self.side..=last].iter().rev())
                .for_each(|(to, from)| *to = *from);
            visit((x * self.side + y) * self.side, &row);
        }
    }

    /// The numbers of a row lie far apart; those of neighbouring rows along one of the other axes lie side by side.
    #[inline(always)]
    fn gathered_rows<T: Copy + Default>(&self, from: &[T], mut visit: impl FnMut(usize, &[T])) {
        let g = self.side;
        let near = if self.steps[1].abs() == 1 { 1 } else { 0 };
        let (near_stride, far_stride) = if near == 1 { (g, g * g) } else { (g * g, g) };
        let mut rows = vec![T::default(); TILE * g];
        for far in 0..g {
            for first in (0..g).step_by(TILE) {
                let count = TILE.min(g - first);
                let source = if near == 1 {
                    self.source(far, first)
                } else {
                    self.source(first, far)
                };
                self.gather(from, source, self.steps[near], &mut rows[..count * g]);
                for (row, numbers) in rows.chunks_exact(g).take(count).enumerate() {
                    visit(far * far_stride + (first + row) * near_stride, numbers);
                }
            }
        }
    }

    /// Transposes: row `r`, place `z` comes from `source + r·near + z·step`.
    #[inline(always)]
    fn gather<T: Copy>(&self, from: &[T], source: usize, near: isize, rows: &mut [T]) {
        let (g, count) = (self.side, rows.len() / self.side);
        for z in (0..g).step_by(BLOCK) {
            for r in (0..count).step_by(BLOCK) {
                let height = BLOCK.min(count - r);
                let block = &mut rows[r * g..(r + height) * g];
                for z in z..(z + BLOCK).min(g) {
                    let at =
                        source.wrapping_add_signed(z as isize * self.steps[2] + r as isize * near);
                    // The numbers of this place for the rows of the block lie side by side, forwards or backwards.
                    if near == 1 {
                        block
                            .chunks_exact_mut(g)
                            .zip(&from[at..at + height])
                            .for_each(|(row, value)| row[z] = *value);
                    } else {
                        block
                            .chunks_exact_mut(g)
                            .zip(from[at + 1 - height..=at].iter().rev())
                            .for_each(|(row, value)| row[z] = *value);
                    }
                }
            }
        }
    }
}

fn pairs(side: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..side).flat_map(move |x| (0..side).map(move |y| (x, y)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::FiniteGroup;

    /// The definition, written as it reads: content at `p` moves to `T (p − mid) + mid`.
    fn moved(rotation: &Rotation, side: usize, from: &[f64]) -> Vec<f64> {
        let mid = (side as f64 - 1.0) / 2.0;
        let mut to = vec![f64::NAN; from.len()];
        for (x, y) in pairs(side) {
            for z in 0..side {
                let p = rotation
                    .apply([x, y, z].map(|c| c as f64 - mid))
                    .map(|c| (c + mid).round() as usize);
                to[(p[0] * side + p[1]) * side + p[2]] = from[(x * side + y) * side + z];
            }
        }
        to
    }

    #[test]
    fn every_cube_rotation_moves_every_voxel_where_the_definition_says() {
        // Sides below, at, and beyond a tile, odd and even.
        for side in [1, 2, 3, 5, 8, 19, 66] {
            let from: Vec<f64> = (0..side * side * side).map(|i| i as f64).collect();
            for rotation in FiniteGroup::Octahedral.elements() {
                let mut to = vec![f64::NAN; from.len()];
                GridRotation::new(&rotation, side)
                    .unwrap()
                    .rotate(&from, &mut to);
                assert!(
                    to == moved(&rotation, side, &from),
                    "side {side}, {rotation:?}"
                );
            }
        }
    }

    #[test]
    fn every_row_is_visited_once() {
        let side = 7;
        for rotation in FiniteGroup::Octahedral.elements() {
            let mut offsets = Vec::new();
            let from = vec![0.0; side * side * side];
            GridRotation::new(&rotation, side)
                .unwrap()
                .for_each_row(&from, |offset, row| {
                    assert_eq!(row.len(), side);
                    offsets.push(offset);
                });
            offsets.sort_unstable();
            assert_eq!(
                offsets,
                (0..side * side).map(|row| row * side).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_rotation_that_is_not_of_the_cube_is_none() {
        assert_eq!(
            GridRotation::new(&Rotation::about([1.0, 1.0, 0.0], 0.3), 4),
            None
        );
    }
}
