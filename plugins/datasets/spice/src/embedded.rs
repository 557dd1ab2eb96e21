//! The sample that the plugin carries: 2,082 conformations of 694 drug-like molecules, labelled with GFN2-xTB (see `data/README.md`).

use crate::{
    inventory::{Conformation, Frame, Identity, Inventory, Skip},
    options::Settings,
    source::Source,
    units::Units,
};
use equivbench_dataset_tools::sample_file::SampleFile;
use equivbench_plugin::PluginResult;
use serde::Deserialize;
use std::ops::Range;

/// The sample as it lies in the repository; `data/README.md` lists its arrays.
pub(crate) const BYTES: &[u8] = include_bytes!("../data/spice-mini.safetensors");
/// Its name in every table.
pub(crate) const NAME: &str = "spice-mini (GFN2-xTB)";
/// File name for messages.
pub(crate) const FILE: &str = "spice-mini.safetensors (embedded)";

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

/// What the sample says about itself.
#[derive(Deserialize)]
struct Description {
    level_of_theory: String,
    subset: String,
    molecules: Vec<MoleculeDescription>,
}

#[derive(Deserialize)]
struct MoleculeDescription {
    name: String,
    smiles: String,
    atoms: usize,
    conformations: usize,
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
        let file = SampleFile::open(FILE, bytes)?;
        let about: Description = file.about()?;
        let sum = |of: fn(&MoleculeDescription) -> usize| about.molecules.iter().map(of).sum();
        let rows: usize = sum(|m| m.atoms * m.conformations);
        let mut sample = Self {
            units: settings.units_or(Units::ATOMIC),
            sign: -1.0,
            positions: file.numbers("positions_bohr", &[rows, 3])?,
            gradient: file.numbers("gradient_hartree_per_bohr", &[rows, 3])?,
            energies: file.numbers("formation_energy_hartree", &[sum(|m| m.conformations)])?,
            molecules: Vec::new(),
            conformations: Vec::new(),
            level: about.level_of_theory.clone(),
        };
        let species: Vec<u8> = file.numbers("atomic_numbers", &[sum(|m| m.atoms)])?;
        sample.index(&about, &species, source, settings, inventory)?;
        Ok(sample)
    }

    fn index(
        &mut self,
        about: &Description,
        mut species: &[u8],
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<()> {
        let mut atom = 0;
        for (i, molecule) in about.molecules.iter().enumerate() {
            let atoms = molecule.atoms;
            let (own, others) = species.split_at(atoms);
            species = others;
            let identity = Identity {
                name: Some(&molecule.name),
                smiles: Some(&molecule.smiles),
                subset: Some(&about.subset),
                charge: None,
                species: own,
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
            self.molecules.push(own.to_vec());
        }
        Ok(())
    }
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
}
