//! Which row of a small table each of many rows uses, and the sums over rows that made the same choice.

use std::sync::{Arc, OnceLock};

use crate::gather::fits;
use crate::scalar::Scalar;
use crate::{KernelError, RowIndex};

/// For each of many rows, the row of a small table that it uses, or none. Checked once, then cheap to clone.
///
/// The table may hold scales of groups of rows ([`crate::adaptive_layer_norm`], [`crate::gated_residual`]) or embeddings
/// of categories ([`crate::lookup_sum`]).
#[derive(Debug, Clone)]
pub struct RowChoice {
    rows: usize,
    index: Arc<[u32]>,
    /// With the row behind the last one for no choice.
    extended: Arc<OnceLock<RowIndex>>,
}

impl RowChoice {
    /// The entry of a row that uses no row of the table: a masked row, or a category that contributes nothing.
    pub const NONE: u32 = u32::MAX;

    /// Checks that every entry is [`RowChoice::NONE`] or below `rows`, the number of rows of the table.
    ///
    /// # Errors
    /// [`KernelError::RowOutOfRange`] names the first entry that is neither.
    pub fn new(rows: usize, index: impl Into<Arc<[u32]>>) -> Result<Self, KernelError> {
        let index = index.into();
        fits("row choice", rows.max(index.len()))?;
        let wrong = |&(_, &row): &(usize, &u32)| row != Self::NONE && row as usize >= rows;
        match index.iter().enumerate().find(wrong) {
            Some((position, &row)) => Err(KernelError::RowOutOfRange {
                position,
                index: row as usize,
                rows,
            }),
            None => Ok(Self {
                rows,
                index,
                extended: Arc::default(),
            }),
        }
    }

    /// Rows of the table.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The choices, [`RowChoice::NONE`] where there is none.
    pub fn index(&self) -> &[u32] {
        &self.index
    }

    /// As row numbers of a table with one more row, which stands for no choice.
    pub(crate) fn extended(&self) -> &RowIndex {
        self.extended.get_or_init(|| {
            let row = |&row: &u32| {
                if row == Self::NONE {
                    self.rows as u32
                } else {
                    row
                }
            };
            RowIndex::of_owners(self.rows + 1, self.index.iter().map(row).collect())
        })
    }
}

/// The sums, for every row of the table, over those of a few rows that chose it.
///
/// Neighbours mostly choose alike, so a piece of work sees few rows of the table: only those are held.
#[derive(Debug)]
pub(crate) struct PartialSums<T> {
    width: usize,
    chosen: Vec<u32>,
    sums: Vec<T>,
}

impl<T: Scalar> PartialSums<T> {
    pub(crate) fn new(width: usize) -> Self {
        Self {
            width,
            chosen: Vec::new(),
            sums: Vec::new(),
        }
    }

    /// The running sum of a row of the table.
    pub(crate) fn of(&mut self, row: u32) -> &mut [T] {
        let known = self.chosen.iter().rposition(|&chosen| chosen == row);
        let at = known.unwrap_or(self.chosen.len());
        if known.is_none() {
            self.chosen.push(row);
            self.sums.resize(self.sums.len() + self.width, T::ZERO);
        }
        &mut self.sums[at * self.width..][..self.width]
    }

    /// Adds up parts in order: the sums of all `rows` of the table.
    pub(crate) fn total(parts: &[Self], rows: usize, width: usize) -> Vec<T> {
        let mut total = vec![T::ZERO; rows * width];
        for part in parts {
            for (at, &row) in part.chosen.iter().enumerate() {
                let sums = &part.sums[at * width..][..width];
                for (total, &sum) in total[row as usize * width..][..width].iter_mut().zip(sums) {
                    *total += sum;
                }
            }
        }
        total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_choices_are_named() {
        let error = RowChoice::new(3, [0, RowChoice::NONE, 3]).unwrap_err();
        assert_eq!(
            error,
            KernelError::RowOutOfRange {
                position: 2,
                index: 3,
                rows: 3
            }
        );
        assert_eq!(
            RowChoice::new(0, [RowChoice::NONE; 2])
                .unwrap()
                .index()
                .len(),
            2
        );
    }

    #[test]
    fn partial_sums_add_up_by_row_whatever_the_order() {
        let part = |choices: &[(u32, f64)]| {
            let mut sums = PartialSums::<f64>::new(1);
            choices
                .iter()
                .for_each(|&(row, value)| sums.of(row)[0] += value);
            sums
        };
        let parts = [
            part(&[(2, 1.0), (0, 2.0), (2, 4.0)]),
            part(&[]),
            part(&[(0, 8.0)]),
        ];
        assert_eq!(PartialSums::total(&parts, 3, 1), [10.0, 0.0, 5.0]);
    }
}
