//! The sample that the plugin carries: 2,082 conformations of 694 drug-like molecules, labelled with GFN2-xTB (see `data/README.md`).

use crate::{
    inventory::{Conformation, Frame, Identity, Inventory, Skip},
    options::Settings,
    source::Source,
    units::Units,
};
use equivbench_dataset_tools::bad_data;
use equivbench_plugin::{PluginError, PluginResult};
use serde::Deserialize;
use std::{io::Read, ops::Range};

/// The sample as it lies in the repository; `data/make_spice_mini.py` describes the layout.
pub(crate) const BYTES: &[u8] = include_bytes!("../data/spice-mini.bin.gz");
/// Its name in every table.
pub(crate) const NAME: &str = "spice-mini (GFN2-xTB)";
/// File name for messages.
pub(crate) const FILE: &str = "spice-mini.bin.gz (embedded)";

/// The open sample.
pub(crate) struct Embedded {
    level: String,
    units: Units,
    sign: f64,
    positions: Vec<f32>,
    gradient: Vec<f32>,
    energies: Vec<f64>,
    molecules: Vec<Vec<u8>>,
    /// Molecule and first atom of each conformation.
    conformations: Vec<(u32, usize)>,
}

#[derive(Deserialize)]
struct Header {
    level_of_theory: String,
    subset: String,
    molecules: Vec<HeaderMolecule>,
}

#[derive(Deserialize)]
struct HeaderMolecule {
    name: String,
    smiles: String,
    conformations: usize,
    atomic_numbers: Vec<u8>,
}

impl Embedded {
    pub(crate) fn open(
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<Self> {
        Self::parse(BYTES, source, settings, inventory)
    }

    fn parse(
        bytes: &[u8],
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<Self> {
        let mut body = Vec::new();
        flate2::read::GzDecoder::new(bytes)
            .read_to_end(&mut body)
            .map_err(|e| damaged(&e.to_string()))?;
        let text = body
            .strip_prefix(b"EQBSPICE")
            .ok_or_else(|| damaged("its magic is missing"))?;
        let (length, rest) = text
            .split_first_chunk::<4>()
            .ok_or_else(|| damaged("its header is cut off"))?;
        let (header, rest) = rest
            .split_at_checked(u32::from_le_bytes(*length) as usize)
            .ok_or_else(|| damaged("its header is cut off"))?;
        let header: Header = serde_json::from_slice(header).map_err(|e| damaged(&e.to_string()))?;
        let count: usize = header.molecules.iter().map(|m| m.conformations).sum();
        let numbers: usize = header
            .molecules
            .iter()
            .map(|m| 3 * m.conformations * m.atomic_numbers.len())
            .sum();
        if rest.len() != 8 * numbers + 8 * count {
            return Err(damaged("its arrays are cut off"));
        }
        let mut sample = Self {
            level: header.level_of_theory,
            units: settings.units_or(Units::ATOMIC),
            sign: -1.0,
            positions: planes(&rest[..4 * numbers])
                .map(f32::from_le_bytes)
                .collect(),
            gradient: planes(&rest[4 * numbers..8 * numbers])
                .map(f32::from_le_bytes)
                .collect(),
            energies: planes(&rest[8 * numbers..])
                .map(f64::from_le_bytes)
                .collect(),
            molecules: Vec::new(),
            conformations: Vec::new(),
        };
        sample.index(
            &header.molecules,
            &header.subset,
            source,
            settings,
            inventory,
        )?;
        Ok(sample)
    }

    fn index(
        &mut self,
        molecules: &[HeaderMolecule],
        subset: &str,
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<()> {
        let mut atom = 0;
        for (i, molecule) in molecules.iter().enumerate() {
            let atoms = molecule.atomic_numbers.len();
            let identity = Identity {
                name: Some(&molecule.name),
                smiles: Some(&molecule.smiles),
                subset: Some(subset),
                charge: None,
                species: &molecule.atomic_numbers,
            };
            let admitted = inventory.admit(&identity, settings)?;
            for _ in 0..molecule.conformations {
                let place = self.conformations.len();
                self.conformations.push((i as u32, atom));
                let forces = self.gradient[3 * atom..3 * (atom + atoms)]
                    .iter()
                    .map(|&g| f64::from(g) * self.units.force);
                atom += atoms;
                match admitted {
                    Err(why) => inventory.skip(why, 1),
                    Ok(_) if !settings.limits.admit(forces) => inventory.skip(Skip::Force, 1),
                    Ok(molecule) => inventory.frames.push(Frame {
                        source,
                        molecule,
                        atoms: atoms as u32,
                        place: place as u64,
                    }),
                }
            }
            self.molecules.push(molecule.atomic_numbers.clone());
        }
        Ok(())
    }
}

/// Elements of `N` bytes that are stored as planes: all first bytes, then all second bytes, ...
fn planes<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    let count = bytes.len() / N;
    (0..count).map(move |i| std::array::from_fn(|plane| bytes[plane * count + i]))
}

fn damaged(what: &str) -> PluginError {
    bad_data(
        FILE,
        "",
        what,
        "the plugin was built from a damaged checkout; fetch data/spice-mini.bin.gz again and rebuild",
    )
}

impl Source for Embedded {
    fn read(&mut self, place: u64, into: &mut Conformation) -> PluginResult<()> {
        let (molecule, atom) = self.conformations[place as usize];
        let species = &self.molecules[molecule as usize];
        let range: Range<usize> = 3 * atom..3 * (atom + species.len());
        into.species.clone_from(species);
        let scale = |values: &[f32], factor: f64, out: &mut Vec<f64>| {
            out.clear();
            out.extend(values.iter().map(|&x| f64::from(x) * factor));
        };
        scale(
            &self.positions[range.clone()],
            self.units.length,
            &mut into.positions,
        );
        scale(
            &self.gradient[range],
            self.sign * self.units.force,
            &mut into.forces,
        );
        into.energy = self.energies[place as usize] * self.units.energy;
        Ok(())
    }

    fn level(&self) -> Option<&str> {
        Some(&self.level)
    }

    fn about(&self) -> String {
        format!(
            "{FILE}: forces from the negative of the GFN2-xTB gradient, energy is the formation energy"
        )
    }

    fn units(&self) -> Units {
        self.units
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_sample_is_an_error_at_every_length() {
        let settings = Settings::new(crate::Options::default()).unwrap();
        for length in (0..BYTES.len()).step_by(BYTES.len() / 40) {
            assert!(
                Embedded::parse(&BYTES[..length], 0, &settings, &mut Inventory::default()).is_err(),
                "{length}"
            );
        }
        assert!(Embedded::parse(BYTES, 0, &settings, &mut Inventory::default()).is_ok());
    }

    #[test]
    fn planes_are_put_back_together() {
        assert_eq!(
            planes::<2>(&[1, 2, 3, 10, 20, 30]).collect::<Vec<_>>(),
            [[1, 10], [2, 20], [3, 30]]
        );
    }
}
