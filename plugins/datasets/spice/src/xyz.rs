//! Extended XYZ with labels, plain or gzip.
//! Small files are kept as numbers; of a large uncompressed one only the place of each frame is kept.

use crate::{
    inventory::{Conformation, Frame, Identity, Inventory, Skip},
    options::Settings,
    source::Source,
    units::Units,
};
use equivbench_dataset_tools::{
    DAMAGED, bad_data, file_name, input,
    xyz::{Frames, Place, RawFrame},
};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    fs::File,
    io::{BufRead, Read, Seek, SeekFrom},
    path::Path,
};

const ENERGY_KEYS: [&str; 12] = [
    "energy",
    "Energy",
    "REF_energy",
    "energy_xtb",
    "TotEnergy",
    "dft_energy",
    "DFT_energy",
    "free_energy",
    "total_energy",
    "E",
    "potential_energy",
    "MACE_energy",
];
const FORCE_KEYS: [&str; 9] = [
    "forces",
    "force",
    "Forces",
    "REF_forces",
    "forces_xtb",
    "dft_forces",
    "DFT_forces",
    "dft_force",
    "MACE_forces",
];
/// A compressed file cannot be read in parts, so it must fit into memory: 2 GB of numbers.
const MAX_ATOMS_IN_MEMORY: usize = 40_000_000;

/// An open extended XYZ file.
pub(crate) struct ExtendedXyz {
    name: String,
    keys: Keys,
    units: Units,
    store: Store,
}

enum Store {
    Memory(Vec<Conformation>),
    Disk { file: File, frames: Vec<Place> },
}

/// Names of the labels; found in the first frame that has them, the same for all.
#[derive(Clone, Debug, Default)]
struct Keys {
    energy: Option<String>,
    forces: Option<String>,
}

impl ExtendedXyz {
    pub(crate) fn open(
        path: &Path,
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<Self> {
        let name = file_name(path);
        let io =
            |e: std::io::Error| bad_data(&name, "", format!("it cannot be read ({e})"), DAMAGED);
        let size = std::fs::metadata(path).map_err(io)?.len();
        let compressed = input::is_gzip(path).map_err(io)?;
        let reader = input::open(path).map_err(io)?;
        let store = match !compressed && size > settings.small_file_bytes {
            true => Store::Disk {
                file: File::open(path).map_err(io)?,
                frames: Vec::new(),
            },
            false => Store::Memory(Vec::new()),
        };
        let options = &settings.options;
        let keys = Keys {
            energy: options.energy_key.clone(),
            forces: options.forces_key.clone(),
        };
        let mut xyz = Self {
            name,
            keys,
            units: settings.units(),
            store,
        };
        xyz.index(Frames::new(reader, &xyz.name), source, settings, inventory)?;
        Ok(xyz)
    }

    fn index(
        &mut self,
        mut frames: Frames<impl BufRead>,
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<()> {
        let (mut total, mut atoms, mut kept) = (0_u64, 0, 0_u64);
        let mut unlabelled = None;
        while let Some((place, text)) = frames.next()? {
            total += 1;
            let frame = parse(&self.name, place, &text)?;
            let molecule = match admit(&frame, &mut self.keys, settings, inventory)? {
                Ok(molecule) => molecule,
                Err(why) => {
                    inventory.skip(why, 1);
                    if why == Skip::NoForces || why == Skip::NoEnergy {
                        unlabelled = Some((why, frame.names()));
                    }
                    continue;
                }
            };
            let conformation = conformation(&frame, &self.keys, self.units)?;
            if !settings.limits.admit(conformation.forces.iter().copied()) {
                inventory.skip(Skip::Force, 1);
                continue;
            }
            atoms += conformation.species.len();
            inventory.frames.push(Frame {
                source,
                molecule,
                atoms: conformation.species.len() as u32,
                place: kept,
            });
            kept += 1;
            match &mut self.store {
                Store::Memory(all) => all.push(conformation),
                Store::Disk { frames, .. } => frames.push(place),
            }
            if matches!(self.store, Store::Memory(_)) && atoms > MAX_ATOMS_IN_MEMORY {
                return Err(bad_data(
                    &self.name,
                    "",
                    "it is too large to be held in memory while it is compressed",
                    "decompress it first: gunzip FILE",
                ));
            }
        }
        if total == 0 {
            return Err(bad_data(&self.name, "", "it holds no frame", DAMAGED));
        }
        match unlabelled {
            Some((why, names)) if kept == 0 => Err(self.no_labels(why, &names)),
            _ => Ok(()),
        }
    }

    /// No frame at all with labels: almost always a question of names.
    fn no_labels(&self, why: Skip, names: &[String]) -> PluginError {
        let (missing, option, key) = match why {
            Skip::NoForces => ("forces", "forces_key", &self.keys.forces),
            _ => ("energy", "energy_key", &self.keys.energy),
        };
        let known = key.as_ref().map_or_else(
            || "under a known name".to_owned(),
            |key| format!("named \"{key}\""),
        );
        let what = format!(
            "no frame has {missing} {known}; there are: {}",
            names.join(", ")
        );
        bad_data(
            &self.name,
            "",
            what,
            &format!("name the right one with {option}, or label the structures first"),
        )
    }
}

/// The molecule of a frame, or why it is left out.
fn admit(
    frame: &RawFrame<'_>,
    keys: &mut Keys,
    settings: &Settings,
    inventory: &mut Inventory,
) -> PluginResult<Result<u32, Skip>> {
    if frame.atoms < 2 {
        return Ok(Err(Skip::OneAtom));
    }
    if !settings.options.ignore_pbc && frame.periodic()? {
        return Ok(Err(Skip::Periodic));
    }
    if !find_key(&mut keys.forces, &FORCE_KEYS, |k| frame.column(k).is_some()) {
        return Ok(Err(Skip::NoForces));
    }
    if !find_key(&mut keys.energy, &ENERGY_KEYS, |k| frame.info(k).is_some()) {
        return Ok(Err(Skip::NoEnergy));
    }
    let species = frame.species()?;
    let charge = ["charge", "total_charge", "Charge"]
        .into_iter()
        .find_map(|k| frame.info(k)?.parse().ok());
    let identity = Identity {
        name: None,
        smiles: ["smiles", "SMILES", "smi"]
            .into_iter()
            .find_map(|k| frame.info(k)),
        subset: ["subset", "config_type"]
            .into_iter()
            .find_map(|k| frame.info(k)),
        charge,
        species: &species,
    };
    inventory.admit(&identity, settings)
}

/// Whether the label is there; the first name that fits is kept for all later frames.
fn find_key(key: &mut Option<String>, known: &[&str], has: impl Fn(&str) -> bool) -> bool {
    match key {
        Some(key) => has(key),
        None => {
            *key = known.iter().find(|k| has(k)).map(|k| (*k).to_owned());
            key.is_some()
        }
    }
}

impl Source for ExtendedXyz {
    fn read(&mut self, place: u64, into: &mut Conformation) -> PluginResult<()> {
        match &mut self.store {
            Store::Memory(all) => into.clone_from(&all[place as usize]),
            Store::Disk { file, frames } => {
                let place = frames[place as usize];
                let mut text = vec![0; place.bytes as usize];
                let read = file
                    .seek(SeekFrom::Start(place.offset))
                    .and_then(|_| file.read_exact(&mut text));
                read.map_err(|e| {
                    bad_data(
                        &self.name,
                        &place.to_string(),
                        format!("it cannot be read again ({e})"),
                        "do not change a file in use",
                    )
                })?;
                *into = conformation(&parse(&self.name, place, &text)?, &self.keys, self.units)?;
            }
        }
        Ok(())
    }

    fn about(&self) -> String {
        let name = |key: &Option<String>| key.clone().unwrap_or_else(|| "nothing".into());
        format!(
            "{}: extended XYZ, forces from {}, energy from {}",
            self.name,
            name(&self.keys.forces),
            name(&self.keys.energy)
        )
    }

    fn units(&self) -> Units {
        self.units
    }
}

/// The labelled structure of a frame.
fn conformation(frame: &RawFrame<'_>, keys: &Keys, units: Units) -> PluginResult<Conformation> {
    let missing = |what: &str| frame.wrong(0, format!("{what} is missing"));
    let positions = frame.position_column()?;
    let forces = keys
        .forces
        .as_deref()
        .and_then(|k| frame.column(k))
        .ok_or_else(|| missing("the column of forces"))?;
    let energy = keys
        .energy
        .as_deref()
        .and_then(|k| Some((k, frame.info(k)?)))
        .ok_or_else(|| missing("the energy"))?;
    Ok(Conformation {
        species: frame.species()?,
        positions: frame.vectors(positions, units.length)?,
        forces: frame.vectors(forces, units.force)?,
        energy: units.energy * frame.number(0, energy.0, energy.1)?,
    })
}

/// A frame that says what its columns are.
fn parse<'a>(name: &'a str, place: Place, text: &'a [u8]) -> PluginResult<RawFrame<'a>> {
    let frame = RawFrame::parse(name, place, text)?;
    if frame.is_extended {
        return Ok(frame);
    }
    Err(bad_data(
        name,
        &place.to_string(),
        "the second line has no Properties=, so this is plain XYZ without forces",
        "write the labelled structures as extended XYZ, e.g. with ase.io.write(..., format=\"extxyz\")",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_from_columns_in_any_order() {
        let text = b"2\nProperties=id:I:1:forces:R:3:fixed:L:1:pos:R:3:species:S:1 energy=-1.5\n0 1 2 3 T 4 5 6 H\n1 -1 -2 -3 F 7 8 9 17\n";
        let frame = parse(
            "x",
            Place {
                offset: 0,
                bytes: 0,
                frame: 1,
                line: 1,
            },
            text,
        )
        .unwrap();
        let keys = Keys {
            energy: Some("energy".into()),
            forces: Some("forces".into()),
        };
        let conformation = conformation(&frame, &keys, Units::ASE).unwrap();
        assert_eq!(conformation.species, [1, 17]);
        assert_eq!(conformation.positions, [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(conformation.forces, [1.0, 2.0, 3.0, -1.0, -2.0, -3.0]);
        assert_eq!(conformation.energy, -1.5);
    }

    #[test]
    fn frames_that_stay_on_disk_are_read_as_those_in_memory() {
        let frame = |i: usize| {
            format!(
                "{}\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-{i}.5\nO 0 0 0 0.1 {i} 0\nH 0 0 0.9 -0.1 0 0{}",
                2 + i % 2,
                if i.is_multiple_of(2) {
                    "\n\n"
                } else {
                    "\nH 1 0 0 0 0 0\n"
                }
            )
        };
        let text: String = (0..30).map(frame).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.xyz");
        std::fs::write(&path, text).unwrap();
        let read = |small_file_bytes| {
            let mut settings = Settings::new(crate::Options::default()).unwrap();
            settings.small_file_bytes = small_file_bytes;
            let mut inventory = Inventory::default();
            let mut xyz = ExtendedXyz::open(&path, 0, &settings, &mut inventory).unwrap();
            assert_eq!(
                matches!(xyz.store, Store::Disk { .. }),
                small_file_bytes == 0
            );
            let mut into = Conformation::default();
            inventory
                .frames
                .iter()
                .map(|f| xyz.read(f.place, &mut into).map(|()| into.clone()).unwrap())
                .collect::<Vec<_>>()
        };
        let (memory, disk) = (read(u64::MAX), read(0));
        assert_eq!((memory.len(), memory[29].energy), (30, -29.5));
        assert_eq!(memory, disk);
    }
}
