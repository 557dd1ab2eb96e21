//! A file in the layout of SPICE's releases.

use crate::{coordinate, folder};
use hdf5_writer::{DatasetBuilder, Error, Hdf5Builder, WriteOptions};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A release file of molecules of equal size, each with as many conformations.
pub struct Release {
    folder: TempDir,
    /// Molecules: groups of the file.
    pub molecules: usize,
    /// Conformations of each molecule.
    pub conformations: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// A drug-like molecule has two dozen atoms and more.
const ATOMS: usize = 25;
const HEAVY: usize = 12;

impl Release {
    /// Writes one.
    ///
    /// # Errors
    /// The temporary folder of the machine cannot be written.
    pub fn new(molecules: usize, conformations: usize) -> Result<Self, String> {
        let file = (0..molecules).try_fold(Hdf5Builder::new(), |file, molecule| {
            add(file, molecule, conformations)
        });
        let encoded = file.and_then(|file| file.into_plan()?.encode(WriteOptions::default()));
        let encoded = encoded.map_err(|e| format!("a release file could not be made: {e}"))?;
        let made = Self {
            folder: folder()?,
            molecules,
            conformations,
            bytes: encoded.len() as u64,
        };
        std::fs::write(made.path(), encoded)
            .map_err(|e| format!("{}: {e}", made.path().display()))?;
        Ok(made)
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::join(self.folder.path(), "release.hdf5")
    }
}

fn add(file: Hdf5Builder, molecule: usize, conformations: usize) -> Result<Hdf5Builder, Error> {
    let place = |name: &str| format!("molecule{molecule:05}/{name}");
    let numbers = 3 * ATOMS * conformations;
    let coordinates: Vec<f32> = (0..numbers)
        .map(|i| coordinate(molecule * numbers + i) as f32)
        .collect();
    let gradients: Vec<f32> = coordinates.iter().map(|x| 1e-3 * x).collect();
    let energies: Vec<f64> = (0..conformations).map(|c| -1.0 - 1e-3 * c as f64).collect();
    let species: Vec<i16> = (0..ATOMS)
        .map(|atom| if atom < HEAVY { 6 } else { 1 })
        .collect();
    let shape = vec![conformations as u64, ATOMS as u64, 3];
    Ok(file
        .dataset(DatasetBuilder::vlen_string_data(
            place("subset"),
            vec![1],
            &["SPICE Made v1.0"],
        )?)
        .dataset(DatasetBuilder::vlen_string_data(
            place("smiles"),
            vec![1],
            &[smiles(molecule)],
        )?)
        .dataset(DatasetBuilder::typed_data(
            place("atomic_numbers"),
            vec![ATOMS as u64],
            &species,
        )?)
        .dataset(DatasetBuilder::typed_data(
            place("conformations"),
            shape.clone(),
            &coordinates,
        )?)
        .dataset(DatasetBuilder::typed_data(
            place("dft_total_gradient"),
            shape,
            &gradients,
        )?)
        .dataset(DatasetBuilder::typed_data(
            place("formation_energy"),
            vec![conformations as u64],
            &energies,
        )?))
}

/// A chain of heavy atoms, another one for every number.
fn smiles(molecule: usize) -> String {
    (0..HEAVY as u32)
        .map(|i| ['C', 'N', 'O'][molecule / 3_usize.pow(i) % 3])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library;
    use equivbench_abi::descriptor::DatasetRequest;
    use equivbench_core::Dataset;

    #[test]
    fn the_reader_finds_what_was_written() {
        let made = Release::new(8, 4).unwrap();
        assert_eq!(std::fs::metadata(made.path()).unwrap().len(), made.bytes);
        let options = serde_json::json!({ "path": made.path(), "split_by": "frame" }).to_string();
        let request = DatasetRequest {
            dataset: "spice".into(),
            options,
            ..DatasetRequest::default()
        };
        let mut data = library("spice").unwrap().open_dataset(&request).unwrap();
        let descriptor = data.descriptor();
        assert_eq!(descriptor.splits.iter().map(|s| s.samples).sum::<u64>(), 32);
        assert_eq!(
            descriptor
                .checks
                .iter()
                .find(|c| c.name == "molecules")
                .unwrap()
                .value,
            8.0
        );
        let first = data.load("train", &[0]).unwrap();
        assert_eq!(
            (
                first.points(),
                first.field("positions").unwrap().reals().unwrap().len()
            ),
            (ATOMS, 3 * ATOMS)
        );
    }
}
