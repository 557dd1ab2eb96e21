//! The sample that the plugin carries: conformers of drug-like molecules made by RDKit and MMFF94s (see `data/README.md`).

use crate::{
    Options,
    conformer::{Conformer, Sink},
    filter::has_coincident,
    options::Settings,
    sdf,
};
use equivbench_dataset_tools::{
    file_name, input,
    sample_file::{self, SampleArray, SampleFile},
};
use equivbench_plugin::{PluginError, PluginResult};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The sample as it lies in the repository; `data/README.md` lists its arrays.
pub(crate) const BYTES: &[u8] = include_bytes!("../data/geom-mini.safetensors");
/// Its name in every table.
pub(crate) const NAME: &str = "geom-mini (MMFF94s)";
/// File name for messages.
pub(crate) const FILE: &str = "geom-mini.safetensors (embedded)";
/// Terms under which it may be given away.
pub(crate) const LICENCE: &str = "CC0-1.0";
/// `[atoms of all conformers, 3]`, molecule by molecule, conformer by conformer: whole steps.
const POSITIONS: &str = "positions_1e-4_angstrom";
/// Steps in an ångström: the source has four decimals, and as whole numbers they are exact.
const STEPS: f64 = 1e4;
/// `[atoms of all molecules]`.
const NUMBERS: &str = "atomic_numbers";

/// What the sample says about itself.
#[derive(Serialize, Deserialize)]
struct Description {
    level_of_theory: String,
    molecules: Vec<MoleculeDescription>,
}

#[derive(Serialize, Deserialize)]
struct MoleculeDescription {
    smiles: String,
    atoms: usize,
    conformers: usize,
}

/// Conformers of one molecule.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleMolecule {
    /// SMILES without hydrogens.
    pub smiles: String,
    /// Atomic numbers `[atoms]`.
    pub numbers: Vec<u8>,
    /// Å, `[conformers][atoms, 3]`.
    pub conformers: Vec<Vec<[f64; 3]>>,
}

/// How the geometries were made.
///
/// # Errors
/// When the file was damaged before the plugin was built.
pub(crate) fn level() -> PluginResult<String> {
    let about: Description = SampleFile::open(FILE, BYTES)?.about()?;
    Ok(about.level_of_theory)
}

/// Reads the sample.
///
/// # Errors
/// When the file was damaged before the plugin was built.
pub(crate) fn read(sink: &mut Sink<'_>) -> PluginResult<()> {
    for molecule in decode(BYTES)? {
        for positions in molecule.conformers {
            sink(Conformer {
                molecule: molecule.smiles.clone(),
                numbers: molecule.numbers.clone(),
                positions,
                bonds: Vec::new(),
            })?;
        }
    }
    Ok(())
}

fn decode(bytes: &[u8]) -> PluginResult<Vec<SampleMolecule>> {
    let file = SampleFile::open(FILE, bytes)?;
    let about: Description = file.about()?;
    let sum = |of: fn(&MoleculeDescription) -> usize| about.molecules.iter().map(of).sum();
    let steps: Vec<i32> = file.numbers(POSITIONS, &[sum(|m| m.atoms * m.conformers), 3])?;
    let numbers: Vec<u8> = file.numbers(NUMBERS, &[sum(|m| m.atoms)])?;
    let mut positions = steps
        .as_chunks::<3>()
        .0
        .iter()
        .map(|x| x.map(|x| f64::from(x) / STEPS));
    let mut numbers = numbers.into_iter();
    let molecule = |m: MoleculeDescription| SampleMolecule {
        smiles: m.smiles,
        numbers: numbers.by_ref().take(m.atoms).collect(),
        conformers: (0..m.conformers)
            .map(|_| positions.by_ref().take(m.atoms).collect())
            .collect(),
    };
    Ok(about.molecules.into_iter().map(molecule).collect())
}

/// What the sample says of its geometries.
const LEVEL: &str =
    "generated: RDKit ETKDGv3 conformers minimised with MMFF94s, gas phase; not GEOM's GFN2-xTB";
/// Molecules with fewer conformers are passed over.
const FEWEST_CONFORMERS: usize = 3;
/// Of the others every third is taken.
const EVERY: usize = 3;

/// Makes the sample from the SDF file that `data/README.md` names: every third of the molecules that have at least three conformers and
/// no other elements than the default ones, with all their conformers, in the order of the file.
///
/// # Errors
/// The file cannot be read.
pub fn make(path: &Path) -> PluginResult<Vec<u8>> {
    let taken: Vec<SampleMolecule> = molecules(path)?
        .into_iter()
        .filter(|molecule| molecule.conformers.len() >= FEWEST_CONFORMERS)
        .step_by(EVERY)
        .collect();
    encode(LEVEL, &taken)
}

/// The molecules of an SDF file, without what the default options leave out.
fn molecules(path: &Path) -> PluginResult<Vec<SampleMolecule>> {
    let settings = Settings::new(Options::default())?;
    let text =
        input::open(path).map_err(|e| PluginError::Other(format!("{}: {e}", path.display())))?;
    let mut all: Vec<SampleMolecule> = Vec::new();
    sdf::read(text, &file_name(path), &mut |conformer| {
        if settings.refuses(&conformer).is_some() || has_coincident(&conformer.positions) {
            return Ok(());
        }
        let same = |last: &&mut SampleMolecule| {
            last.smiles == conformer.molecule && last.numbers == conformer.numbers
        };
        match all.last_mut().filter(same) {
            Some(molecule) => molecule.conformers.push(conformer.positions),
            None => all.push(SampleMolecule {
                smiles: conformer.molecule,
                numbers: conformer.numbers,
                conformers: vec![conformer.positions],
            }),
        }
        Ok(())
    })?;
    Ok(all)
}

/// The file of a sample of these molecules, each of whose conformers has as many positions as the molecule has atoms.
///
/// # Errors
/// A position that has no room in four bytes; a conformer with another number of atoms.
pub fn encode(level_of_theory: &str, molecules: &[SampleMolecule]) -> PluginResult<Vec<u8>> {
    let positions = molecules.iter().flat_map(|m| m.conformers.iter().flatten());
    let steps = positions
        .flatten()
        .map(|&x| whole_steps(x))
        .collect::<PluginResult<Vec<i32>>>()?;
    let numbers: Vec<u8> = molecules
        .iter()
        .flat_map(|m| m.numbers.iter().copied())
        .collect();
    let about = Description {
        level_of_theory: level_of_theory.into(),
        molecules: molecules
            .iter()
            .map(|m| MoleculeDescription {
                smiles: m.smiles.clone(),
                atoms: m.numbers.len(),
                conformers: m.conformers.len(),
            })
            .collect(),
    };
    let rows = about.molecules.iter().map(|m| m.atoms * m.conformers).sum();
    let arrays = [
        SampleArray::new(POSITIONS, &[rows, 3], &steps),
        SampleArray::new(NUMBERS, &[numbers.len()], &numbers),
    ];
    sample_file::encode(&about, &arrays)
}

/// A coordinate (Å) in whole steps.
fn whole_steps(x: f64) -> PluginResult<i32> {
    let steps = (x * STEPS).round();
    if steps.abs() <= f64::from(i32::MAX) {
        Ok(steps as i32)
    } else {
        Err(PluginError::Other(format!(
            "a coordinate of {x} angstrom has no room in the sample"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_sample_is_an_error_at_every_length() {
        for length in (0..BYTES.len()).step_by(BYTES.len() / 40) {
            assert!(decode(&BYTES[..length]).is_err(), "{length}");
        }
        assert!(decode(BYTES).is_ok());
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let molecule = |conformers: &[[[f64; 3]; 2]]| SampleMolecule {
            smiles: "[HH]".into(),
            numbers: vec![1, 1],
            conformers: conformers.iter().map(|c| c.to_vec()).collect(),
        };
        let molecules = [
            molecule(&[
                [[0.0, -0.000_1, 12.345_6], [-1.5, 2.0, -0.5]],
                [[0.1, 0.2, 0.3], [0.1, 0.2, 1.04]],
            ]),
            molecule(&[[[839.0, 0.0, 0.0], [0.0; 3]]]),
        ];
        let bytes = encode("none", &molecules).unwrap();
        assert_eq!(decode(&bytes).unwrap(), molecules);
        for x in [f64::NAN, 3e5] {
            let far = molecule(&[[[0.0; 3], [x, 0.0, 0.0]]]);
            assert!(encode("none", &[far]).is_err(), "{x}");
        }
    }
}
