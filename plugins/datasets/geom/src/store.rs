//! All conformers in a few arrays: 13 bytes for an atom and 12 for a conformer, so that 1.1 million of 45 atoms take
//! 0.66 GB.

use equivbench_plugin::{PluginError, PluginResult};
use std::ops::Range;

/// Conformers in the order of the files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    numbers: Vec<u8>,
    /// Å.
    positions: Vec<[f32; 3]>,
    /// For each conformer the atom after its last.
    ends: Vec<u64>,
    /// For each conformer the number of its group: the molecule it is split by.
    groups: Vec<u32>,
}

impl Store {
    /// Number of conformers.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Number of atoms of all.
    pub(crate) fn atoms(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Adds a conformer; positions are rounded to f32.
    ///
    /// # Errors
    /// More conformers than 32 bits can count.
    pub(crate) fn push(
        &mut self,
        group: u32,
        numbers: &[u8],
        positions: &[[f64; 3]],
    ) -> PluginResult<()> {
        if u32::try_from(self.len() + 1).is_err() {
            return Err(PluginError::BadRequest(
                "[dataset] more than 4 billion conformers; lower the option conformers".into(),
            ));
        }
        self.numbers.extend_from_slice(numbers);
        self.positions
            .extend(positions.iter().map(|x| x.map(|x| x as f32)));
        self.ends.push(self.numbers.len() as u64);
        self.groups.push(group);
        Ok(())
    }

    pub(crate) fn shrink(&mut self) {
        self.numbers.shrink_to_fit();
        self.positions.shrink_to_fit();
        self.ends.shrink_to_fit();
        self.groups.shrink_to_fit();
    }

    fn rows(&self, conformer: u32) -> Range<usize> {
        let i = conformer as usize;
        let start = i.checked_sub(1).map_or(0, |before| self.ends[before]);
        start as usize..self.ends[i] as usize
    }

    /// Atomic numbers `[atoms]`.
    pub(crate) fn numbers(&self, conformer: u32) -> &[u8] {
        &self.numbers[self.rows(conformer)]
    }

    /// Å, `[atoms, 3]`.
    pub(crate) fn positions(&self, conformer: u32) -> &[[f32; 3]] {
        &self.positions[self.rows(conformer)]
    }

    /// For each conformer the number of its group.
    pub(crate) fn groups(&self) -> &[u32] {
        &self.groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conformers_come_back_with_the_nearest_f32() {
        let mut store = Store::default();
        store
            .push(3, &[1, 1], &[[0.1, 0.2, 0.3], [-1.0, 0.0, 1e4]])
            .unwrap();
        store.push(1, &[6], &[[4.0, 5.0, 6.0]]).unwrap();
        assert_eq!(
            (store.len(), store.atoms(), store.groups()),
            (2, 3, &[3, 1][..])
        );
        assert_eq!(
            (store.numbers(0), store.positions(0)),
            (&[1, 1][..], &[[0.1_f32, 0.2, 0.3], [-1.0, 0.0, 1e4]][..])
        );
        assert_eq!(
            (store.numbers(1), store.positions(1)),
            (&[6][..], &[[4.0_f32, 5.0, 6.0]][..])
        );
    }
}
