//! numpy archives: conformers as flat arrays with `ptr` (this project's layout), or all frames of one molecule (sGDML, MD17, rMD17).
//!
//! | layout | arrays |
//! |---|---|
//! | flat | `ptr [conformers + 1]`, `coords [atoms, 3]`, `atomic_numbers [atoms]`; optional `mol_id [conformers]` and `smiles` or `smiles_utf8` |
//! | frames | `R` or `coords` `[frames, atoms, 3]`, `z` or `nuclear_charges` `[atoms]`; optional `r_unit` |
//!
//! Arrays are streamed side by side; only SMILES are kept. With `mol_id`, SMILES are one per molecule, else one per conformer.

mod column;

use crate::{
    archive::{self, Archive, MAX_ATOMS},
    conformer::{Conformer, Sink},
};
use column::Column;
use equivbench_dataset_tools::{DAMAGED, bad_data};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    fs::File,
    io::{Read, Seek},
    path::Path,
};

const COORDINATES: [&str; 3] = ["coords", "R", "positions"];
const NUMBERS: [&str; 4] = ["atomic_numbers", "nuclear_charges", "z", "numbers"];
/// CODATA 2018.
const ANGSTROM_PER_BOHR: f64 = 0.529_177_210_903;
const LAYOUTS: &str = "give flat arrays (ptr, coords [atoms, 3], atomic_numbers [atoms]) or frames (R or coords [frames, atoms, 3], z or \
                       nuclear_charges [atoms])";

/// Reads an npz file.
///
/// # Errors
/// The file is damaged, cut off, or of another layout; what was handed over before stands in front of the damage.
pub(crate) fn read(path: &Path, source: &str, sink: &mut Sink<'_>) -> PluginResult<()> {
    let path = path.to_owned();
    let archive = archive::open(source, move || File::open(&path))?;
    Npz { archive, source }.read(sink)
}

struct Npz<'a, R> {
    archive: Archive<R>,
    source: &'a str,
}

impl<R: Read + Seek> Npz<'_, R> {
    fn read(&self, sink: &mut Sink<'_>) -> PluginResult<()> {
        if self.has("ptr") {
            self.flat(sink)
        } else {
            self.frames(sink)
        }
    }

    /// Conformers of several molecules, one after the other along one axis of atoms.
    fn flat(&self, sink: &mut Sink<'_>) -> PluginResult<()> {
        let mut archives: [Archive<R>; 4] = std::array::from_fn(|_| self.archive.clone());
        let [for_ptr, for_coords, for_numbers, for_molecules] = &mut archives;
        let mut ptr = self.column(for_ptr, "ptr")?;
        let mut coords = self.column(for_coords, self.one_of(&COORDINATES)?)?;
        let mut numbers = self.column(for_numbers, self.one_of(&NUMBERS)?)?;
        let molecules = if self.has("mol_id") {
            Some(self.column(for_molecules, "mol_id")?)
        } else {
            None
        };
        let [conformers, atoms] = flat_sizes(&ptr, &coords, &numbers)?;
        let mut keys = self.keys(molecules, conformers)?;
        let factor = self.length_factor()?;
        let mut from = ptr.integer()?;
        if from != 0 {
            return Err(ptr.wrong(
                format!(
                    "it begins at atom {from}, not at 0, so atoms would belong to no conformer"
                ),
                DAMAGED,
            ));
        }
        for conformer in 0..conformers {
            let to = ptr.integer()?;
            let size = to.checked_sub(from).and_then(|n| usize::try_from(n).ok());
            let size = size.filter(|&n| n <= MAX_ATOMS).ok_or_else(|| {
                ptr.wrong(
                    format!("conformer {conformer} would reach from atom {from} to atom {to}"),
                    DAMAGED,
                )
            })?;
            from = to;
            let (numbers, positions) = (numbers.elements(size)?, coords.positions(size, factor)?);
            sink(Conformer {
                molecule: keys.next(conformer)?,
                numbers,
                positions,
                ..Conformer::default()
            })?;
        }
        if from as u64 != atoms {
            return Err(ptr.wrong(
                format!("it ends at atom {from}, but coords holds {atoms}"),
                DAMAGED,
            ));
        }
        [ptr, coords, numbers]
            .into_iter()
            .chain(keys.molecules)
            .try_for_each(Column::finish)
    }

    /// Frames of one molecule, which is named after the file.
    fn frames(&self, sink: &mut Sink<'_>) -> PluginResult<()> {
        let mut archives = [self.archive.clone(), self.archive.clone()];
        let [for_coords, for_numbers] = &mut archives;
        let mut coords = self.column(for_coords, self.one_of(&COORDINATES)?)?;
        let mut numbers = self.column(for_numbers, self.one_of(&NUMBERS)?)?;
        let &[frames, atoms, 3] = coords.shape() else {
            return Err(coords.wrong("it should have the shape [frames, atoms, 3]", LAYOUTS));
        };
        if !(1..=MAX_ATOMS as u64).contains(&atoms) {
            return Err(coords.wrong(format!("frames of {atoms} atoms"), LAYOUTS));
        }
        if *numbers.shape() != [atoms] {
            return Err(numbers.wrong(
                format!(
                    "it should have the shape [{atoms}], as {} has",
                    coords.name()
                ),
                LAYOUTS,
            ));
        }
        let molecule = stem(self.source);
        let elements = numbers.elements(atoms as usize)?;
        numbers.finish()?;
        let factor = self.length_factor()?;
        for _ in 0..frames {
            let positions = coords.positions(atoms as usize, factor)?;
            sink(Conformer {
                molecule: molecule.clone(),
                numbers: elements.clone(),
                positions,
                ..Conformer::default()
            })?;
        }
        coords.finish()
    }

    /// Names of molecules for a flat archive.
    fn keys<'c>(&self, molecules: Option<Column<'c>>, conformers: u64) -> PluginResult<Keys<'c>> {
        let smiles = self.smiles()?;
        let wrong = |what: String| bad_data(self.source, "", what, LAYOUTS);
        match (&molecules, &smiles) {
            (Some(m), _) if *m.shape() != [conformers] => {
                Err(m.wrong(format!("it should have the shape [{conformers}]"), LAYOUTS))
            }
            (None, Some(s)) if s.len() as u64 != conformers => Err(wrong(format!(
                "it has {} SMILES for {conformers} conformers and no mol_id",
                s.len()
            ))),
            _ => Ok(Keys {
                source: self.source.to_owned(),
                stem: stem(self.source),
                molecules,
                smiles,
            }),
        }
    }

    fn smiles(&self) -> PluginResult<Option<Vec<String>>> {
        let mut archive = self.archive.clone();
        if self.has("smiles") {
            return self.column(&mut archive, "smiles")?.texts().map(Some);
        }
        if self.has("smiles_utf8") {
            self.column(&mut archive, "smiles_utf8")?.lines().map(Some)
        } else {
            Ok(None)
        }
    }

    /// Å per unit of the file; sGDML may say its unit.
    fn length_factor(&self) -> PluginResult<f64> {
        if !self.has("r_unit") {
            return Ok(1.0);
        }
        let mut archive = self.archive.clone();
        let column = self.column(&mut archive, "r_unit")?;
        let unit = column.texts()?.concat();
        match unit.to_lowercase().as_str() {
            "" | "a" | "ang" | "angstrom" | "å" => Ok(1.0),
            "bohr" | "au" | "a.u." | "a0" => Ok(ANGSTROM_PER_BOHR),
            _ => Err(bad_data(
                self.source,
                "r_unit.npy",
                format!("\"{unit}\" is no known unit of length"),
                "write Ang or bohr",
            )),
        }
    }

    fn column<'c>(&'c self, archive: &'c mut Archive<R>, name: &str) -> PluginResult<Column<'c>> {
        Column::open(archive, self.source, name)
    }

    fn has(&self, name: &str) -> bool {
        self.archive
            .index_for_name(&format!("{name}.npy"))
            .is_some()
    }

    fn one_of<'n>(&self, names: &[&'n str]) -> PluginResult<&'n str> {
        names
            .iter()
            .copied()
            .find(|name| self.has(name))
            .ok_or_else(|| self.lacks(names))
    }

    fn lacks(&self, names: &[&str]) -> PluginError {
        let offered: Vec<&str> = self
            .archive
            .file_names()
            .map(|n| n.trim_end_matches(".npy"))
            .take(20)
            .collect();
        let what = format!(
            "it has none of the arrays {}; it offers {}",
            names.join(", "),
            offered.join(", ")
        );
        bad_data(self.source, "", what, LAYOUTS)
    }
}

/// The molecule of each conformer, in order.
struct Keys<'c> {
    source: String,
    stem: String,
    molecules: Option<Column<'c>>,
    smiles: Option<Vec<String>>,
}

impl Keys<'_> {
    fn next(&mut self, conformer: u64) -> PluginResult<String> {
        let molecule = match &mut self.molecules {
            Some(molecules) => molecules.integer()?,
            None => conformer as i64,
        };
        let Some(smiles) = &self.smiles else {
            return Ok(format!("{}#{molecule}", self.stem));
        };
        let found = usize::try_from(molecule).ok().and_then(|m| smiles.get(m));
        let what = || {
            format!(
                "conformer {conformer} belongs to molecule {molecule}, but there are {} SMILES",
                smiles.len()
            )
        };
        found
            .cloned()
            .ok_or_else(|| bad_data(&self.source, "mol_id.npy", what(), DAMAGED))
    }
}

fn stem(source: &str) -> String {
    Path::new(source).file_stem().map_or_else(
        || source.to_owned(),
        |stem| stem.to_string_lossy().into_owned(),
    )
}

/// Conformers and atoms of an archive of several molecules, from the shapes of its arrays.
fn flat_sizes(
    ptr: &Column<'_>,
    coords: &Column<'_>,
    numbers: &Column<'_>,
) -> PluginResult<[u64; 2]> {
    let conformers = match *ptr.shape() {
        [bounds] if bounds > 0 => bounds - 1,
        _ => return Err(ptr.wrong("it should have the shape [conformers + 1]", LAYOUTS)),
    };
    let &[atoms, 3] = coords.shape() else {
        return Err(coords.wrong("it should have the shape [atoms, 3]", LAYOUTS));
    };
    if *numbers.shape() != [atoms] {
        return Err(numbers.wrong(
            format!("it should have the shape [{atoms}], as coords has"),
            LAYOUTS,
        ));
    }
    Ok([conformers, atoms])
}

#[cfg(test)]
mod tests;
