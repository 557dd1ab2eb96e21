//! ASE's LMDB databases (`.aselmdb`, written by ase-db-backends and used by fairchem): rows 1..nextid, each zlib-compressed JSON.

use crate::{
    inventory::{Conformation, Frame, Identity, Inventory, Skip},
    lmdb::{Lmdb, ValuePlace},
    options::Settings,
    source::Source,
    units::Units,
};
use equivbench_dataset_tools::{DAMAGED, bad_data, file_name, is_usable};
use equivbench_plugin::{PluginError, PluginResult};
use flate2::read::ZlibDecoder;
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::Value as Json;
use std::{collections::HashMap, collections::HashSet, io::Read, path::Path};

/// A row of a molecule is a few kilobytes; a damaged one could claim to be anything.
const MAX_ROW_BYTES: u64 = 1 << 28;
/// Rows that are decompressed side by side while the index is made.
const ROWS_AT_ONCE: usize = 4096;

/// An open `.aselmdb` file.
pub(crate) struct AseLmdb {
    name: String,
    units: Units,
    energy_key: String,
    forces_key: String,
    ignore_pbc: bool,
    lmdb: Lmdb,
    /// Rows that were admitted.
    rows: Vec<(u64, ValuePlace)>,
    /// Their content, if the file is small.
    memory: Option<Vec<Conformation>>,
}

/// What a row may hold; everything else is ignored.
#[derive(Deserialize)]
struct AseRow {
    numbers: NdArray,
    positions: NdArray,
    #[serde(default)]
    pbc: Option<NdArray>,
    #[serde(default)]
    key_value_pairs: Json,
    #[serde(default)]
    data: Json,
    /// Labels, whatever their names are.
    #[serde(flatten)]
    rest: HashMap<String, Json>,
}

impl AseRow {
    /// Atomic numbers, if all of them are such.
    fn species(&self) -> Option<Vec<u8>> {
        let numbers = self.numbers.values()?;
        let species: Vec<u8> = numbers.into_iter().map(|z| z as u8).collect();
        species
            .iter()
            .all(|z| (1..=118).contains(z))
            .then_some(species)
    }

    fn is_periodic(&self) -> bool {
        self.pbc
            .as_ref()
            .and_then(NdArray::values)
            .is_some_and(|p| p.iter().any(|&p| p != 0.0))
    }

    /// What stands beside the labels, wherever writers of ASE put it.
    fn info(&self, key: &str) -> Option<&Json> {
        self.data
            .get("info")
            .and_then(|i| i.get(key))
            .or_else(|| self.key_value_pairs.get(key))
            .or_else(|| self.data.get(key))
    }

    fn text(&self, key: &str) -> Option<String> {
        Some(self.info(key)?.as_str()?.to_owned())
    }

    fn label(&self, key: &str) -> Option<&Json> {
        self.rest.get(key).or_else(|| self.info(key))
    }
}

/// `{"__ndarray__": [shape, dtype, flat values]}`.
#[derive(Deserialize)]
struct NdArray {
    #[serde(rename = "__ndarray__")]
    content: (Vec<usize>, String, Json),
}

impl NdArray {
    fn values(&self) -> Option<Vec<f64>> {
        let number = |v: &Json| v.as_f64().or_else(|| v.as_bool().map(f64::from));
        self.content.2.as_array()?.iter().map(number).collect()
    }
}

impl AseLmdb {
    pub(crate) fn open(
        path: &Path,
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<Self> {
        let name = file_name(path);
        let wrong = |what: String| {
            bad_data(
                &name,
                "",
                format!("it cannot be read as LMDB ({what})"),
                DAMAGED,
            )
        };
        let mut lmdb = Lmdb::open(path).map_err(wrong)?;
        let entries: Entries = lmdb.entries().map_err(wrong)?.into_iter().collect();
        let rows = row_places(&name, &mut lmdb, &entries)?;
        let small = std::fs::metadata(path).is_ok_and(|m| m.len() <= settings.small_file_bytes);
        let options = &settings.options;
        let mut this = Self {
            name,
            units: settings.units(),
            energy_key: options
                .energy_key
                .clone()
                .unwrap_or_else(|| "energy".into()),
            forces_key: options
                .forces_key
                .clone()
                .unwrap_or_else(|| "forces".into()),
            ignore_pbc: options.ignore_pbc,
            lmdb,
            rows: Vec::new(),
            memory: small.then(Vec::new),
        };
        for rows in rows.chunks(ROWS_AT_ONCE) {
            this.index(rows, source, settings, inventory)?;
        }
        Ok(this)
    }

    fn index(
        &mut self,
        rows: &[(u64, ValuePlace)],
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<()> {
        let raw: Vec<(u64, Vec<u8>)> = rows
            .iter()
            .map(|&(id, v)| Ok((id, self.bytes(id, v)?)))
            .collect::<PluginResult<_>>()?;
        let parsed: Vec<PluginResult<Parsed>> = raw
            .par_iter()
            .map(|(id, bytes)| self.parse(*id, bytes))
            .collect();
        for (&row, parsed) in rows.iter().zip(parsed) {
            let parsed = match parsed? {
                Parsed::Row(parsed) => parsed,
                Parsed::Skip(why) => {
                    inventory.skip(why, 1);
                    continue;
                }
            };
            let identity = Identity {
                smiles: parsed.smiles.as_deref(),
                charge: parsed.charge,
                species: &parsed.conformation.species,
                ..Identity::default()
            };
            let molecule = match inventory.admit(&identity, settings)? {
                Ok(molecule) => molecule,
                Err(why) => {
                    inventory.skip(why, 1);
                    continue;
                }
            };
            if !settings
                .limits
                .admit(parsed.conformation.forces.iter().copied())
            {
                inventory.skip(Skip::Force, 1);
                continue;
            }
            let atoms = parsed.conformation.species.len() as u32;
            inventory.frames.push(Frame {
                source,
                molecule,
                atoms,
                place: self.rows.len() as u64,
            });
            self.rows.push(row);
            if let Some(memory) = &mut self.memory {
                memory.push(parsed.conformation);
            }
        }
        Ok(())
    }

    fn bytes(&mut self, id: u64, value: ValuePlace) -> PluginResult<Vec<u8>> {
        self.lmdb
            .value(value)
            .map_err(|what| bad_data(&self.name, &format!("row {id}"), what, DAMAGED))
    }

    fn parse(&self, id: u64, bytes: &[u8]) -> PluginResult<Parsed> {
        let row: AseRow = self.json(id, bytes)?;
        let species = row
            .species()
            .ok_or_else(|| self.wrong(id, "\"numbers\" is no list of elements"))?;
        if species.len() < 2 {
            return Ok(Parsed::Skip(Skip::OneAtom));
        }
        if row.is_periodic() && !self.ignore_pbc {
            return Ok(Parsed::Skip(Skip::Periodic));
        }
        let Some(forces) = row.label(&self.forces_key) else {
            return Ok(Parsed::Skip(Skip::NoForces));
        };
        let Some(energy) = row.label(&self.energy_key) else {
            return Ok(Parsed::Skip(Skip::NoEnergy));
        };
        let energy = energy
            .as_f64()
            .or_else(|| single(energy))
            .filter(|&e| is_usable(e))
            .ok_or_else(|| self.wrong(id, "the energy is no finite number"))?;
        let forces = NdArray::deserialize(forces).ok().and_then(|a| a.values());
        let vectors = |name, values, factor| self.vectors(id, name, values, species.len(), factor);
        let (positions, forces) = (
            vectors("positions", row.positions.values(), self.units.length)?,
            vectors(&self.forces_key, forces, self.units.force)?,
        );
        Ok(Parsed::Row(Box::new(ParsedRow {
            conformation: Conformation {
                positions,
                forces,
                energy: energy * self.units.energy,
                species,
            },
            smiles: row.text("smiles").or_else(|| row.text("SMILES")),
            charge: row.info("charge").and_then(Json::as_f64),
        })))
    }

    fn json(&self, id: u64, bytes: &[u8]) -> PluginResult<AseRow> {
        let mut text = Vec::new();
        if let Err(e) = ZlibDecoder::new(bytes)
            .take(MAX_ROW_BYTES)
            .read_to_end(&mut text)
        {
            let remedy = match bytes.first() {
                Some(0x80) => {
                    "the row is a Python pickle (OCP's LMDB): convert the data with ASE to .aselmdb or extended XYZ"
                }
                _ => DAMAGED,
            };
            return Err(bad_data(
                &self.name,
                &format!("row {id}"),
                format!("it cannot be decompressed ({e})"),
                remedy,
            ));
        }
        let what =
            |e| format!("it is no row of ASE ({e}; JSON with NaN or Infinity is not accepted)");
        serde_json::from_slice(&text).map_err(|e| {
            bad_data(
                &self.name,
                &format!("row {id}"),
                what(e),
                "write the row again with ASE",
            )
        })
    }

    fn vectors(
        &self,
        id: u64,
        name: &str,
        values: Option<Vec<f64>>,
        atoms: usize,
        factor: f64,
    ) -> PluginResult<Vec<f64>> {
        match values {
            Some(v) if v.len() == 3 * atoms && v.iter().all(|&x| is_usable(x)) => {
                Ok(v.into_iter().map(|x| x * factor).collect())
            }
            Some(v) => Err(self.wrong(
                id,
                &format!(
                    "\"{name}\" should hold {} finite numbers, it holds {}",
                    3 * atoms,
                    v.len()
                ),
            )),
            None => Err(self.wrong(id, &format!("\"{name}\" is no array of numbers"))),
        }
    }

    fn wrong(&self, id: u64, what: &str) -> PluginError {
        bad_data(
            &self.name,
            &format!("row {id}"),
            what,
            "write the row again with ASE, or leave it out",
        )
    }
}

/// A number that was written as an array of one element.
fn single(value: &Json) -> Option<f64> {
    let values = NdArray::deserialize(value).ok()?.values()?;
    if let [one] = values[..] {
        Some(one)
    } else {
        None
    }
}

enum Parsed {
    Row(Box<ParsedRow>),
    Skip(Skip),
}

struct ParsedRow {
    conformation: Conformation,
    smiles: Option<String>,
    charge: Option<f64>,
}

type Entries = HashMap<Vec<u8>, ValuePlace>;

/// Rows 1..nextid in order of their numbers (keys are text, so "10" lies before "2"), without the deleted ones.
fn row_places(
    name: &str,
    lmdb: &mut Lmdb,
    entries: &Entries,
) -> PluginResult<Vec<(u64, ValuePlace)>> {
    let mut json = |key: &str| -> PluginResult<Option<Json>> {
        let Some(&value) = entries.get(key.as_bytes()) else {
            return Ok(None);
        };
        let bytes = lmdb
            .value(value)
            .map_err(|what| bad_data(name, &format!("key {key}"), what, DAMAGED))?;
        let mut text = Vec::new();
        let read = ZlibDecoder::new(&bytes[..])
            .take(MAX_ROW_BYTES)
            .read_to_end(&mut text)
            .map_err(|e| e.to_string());
        let parsed = read.and_then(|_| serde_json::from_slice(&text).map_err(|e| e.to_string()));
        parsed.map(Some).map_err(|e| {
            bad_data(
                name,
                &format!("key {key}"),
                format!("it cannot be read ({e})"),
                DAMAGED,
            )
        })
    };
    let Some(next) = json("nextid")? else {
        return Err(bad_data(
            name,
            "",
            "it is LMDB, but not ASE's: the key \"nextid\" is missing",
            "convert it: OCP's pickles and DeePMD's frames can be written as .aselmdb or extended XYZ with ASE or dpdata",
        ));
    };
    let next = next
        .as_u64()
        .ok_or_else(|| bad_data(name, "key nextid", "it is no number", DAMAGED))?;
    let deleted: HashSet<u64> = json("deleted_ids")?
        .and_then(|d| Some(d.as_array()?.iter().filter_map(Json::as_u64).collect()))
        .unwrap_or_default();
    let mut rows = Vec::new();
    for id in (1..next.min(entries.len() as u64 + deleted.len() as u64 + 1))
        .filter(|id| !deleted.contains(id))
    {
        let place = entries.get(id.to_string().as_bytes());
        rows.push((
            id,
            *place.ok_or_else(|| {
                bad_data(
                    name,
                    &format!("row {id}"),
                    "it is missing, though nextid counts it",
                    DAMAGED,
                )
            })?,
        ));
    }
    Ok(rows)
}

impl Source for AseLmdb {
    fn read(&mut self, place: u64, into: &mut Conformation) -> PluginResult<()> {
        if let Some(memory) = &self.memory {
            into.clone_from(&memory[place as usize]);
            return Ok(());
        }
        let (id, value) = self.rows[place as usize];
        let bytes = self.bytes(id, value)?;
        match self.parse(id, &bytes)? {
            Parsed::Row(row) => *into = row.conformation,
            Parsed::Skip(_) => return Err(self.wrong(id, "it changed since the file was opened")),
        }
        Ok(())
    }

    fn about(&self) -> String {
        format!(
            "{}: ASE LMDB, forces from {}, energy from {}",
            self.name, self.forces_key, self.energy_key
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
    fn rows_that_stay_on_disk_are_read_as_those_in_memory() {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&include_bytes!("../tests/fixtures/rows.aselmdb.gz")[..])
            .read_to_end(&mut bytes)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.aselmdb");
        std::fs::write(&path, bytes).unwrap();
        let read = |small_file_bytes| {
            let mut settings = Settings::new(crate::Options::default()).unwrap();
            settings.small_file_bytes = small_file_bytes;
            let mut inventory = Inventory::default();
            let mut rows = AseLmdb::open(&path, 0, &settings, &mut inventory).unwrap();
            assert_eq!(rows.memory.is_none(), small_file_bytes == 0);
            let mut into = Conformation::default();
            inventory
                .frames
                .iter()
                .map(|f| {
                    rows.read(f.place, &mut into)
                        .map(|()| into.clone())
                        .unwrap()
                })
                .collect::<Vec<_>>()
        };
        let (memory, disk) = (read(u64::MAX), read(0));
        assert_eq!(
            memory.iter().map(|c| c.energy).collect::<Vec<_>>(),
            [-11.0, -13.0, -14.0, -16.0, -17.0]
        );
        assert_eq!(memory, disk);
    }
}
