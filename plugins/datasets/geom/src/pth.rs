//! VoxMol's `{split}_data.pth`: what `torch.save` makes of a list of dicts {mol, smiles, coords, atoms_channel}.
//!
//! The container is a zip archive with a pickle (`data.pkl`) and one entry per tensor storage (`data/0`, `data/1`, ..). A pickle is a
//! program, so it is not run: `machine` follows the few steps that build such a list and refuses every other one by name. The RDKit
//! molecule is passed over. `coords [rows, 3]` (Å) and `atoms_channel [rows]` are padded with 999 to the longest molecule of the split.

mod lexer;
mod machine;
mod storage;

use crate::{
    archive::{self, Archive},
    conformer::{Conformer, Sink},
};
use equivbench_dataset_tools::{DAMAGED, bad_data};
use equivbench_plugin::{PluginError, PluginResult};
use lexer::Lexer;
use machine::{Machine, Record};
use std::{
    fs::File,
    io::{BufReader, Read, Seek},
    path::Path,
};
use storage::Storages;

/// Atomic numbers of VoxMol's channels: C H O N F S Cl Br P I B.
const ELEMENTS: [u8; 11] = [6, 1, 8, 7, 9, 16, 17, 35, 15, 53, 5];
const PADDING: f64 = 999.0;
const PICKLE: &str = "data.pkl";
/// What to do about a file that is not of this layout.
const CONVERT: &str =
    "convert the conformers to npz or SDF with the script in this plugin's README";

/// Reads a torch file of VoxMol's layout.
///
/// # Errors
/// The file is damaged, cut off, of another layout, or holds anything but such a list; what was handed over before stands in front of it.
pub(crate) fn read(path: &Path, source: &str, sink: &mut Sink<'_>) -> PluginResult<()> {
    refuse_old_layout(path, source)?;
    let path = path.to_owned();
    read_archive(
        &archive::open(source, move || File::open(&path))?,
        source,
        sink,
    )
}

/// Until version 1.6 torch wrote a bare sequence of pickles.
fn refuse_old_layout(path: &Path, source: &str) -> PluginResult<()> {
    let mut head = [0; 2];
    let read = File::open(path).and_then(|mut file| file.read(&mut head));
    read.map_err(|e| {
        bad_data(
            source,
            "",
            format!("it cannot be read ({e})"),
            "check the path and its permissions",
        )
    })?;
    if head[0] == 0x80 && head[1] < 6 {
        let remedy = "save it again with torch 1.6 or later (torch.save(torch.load(..), ..)) if you trust it";
        return Err(bad_data(
            source,
            "",
            "it is a bare pickle, as torch wrote before version 1.6",
            remedy,
        ));
    }
    Ok(())
}

fn read_archive<R: Read + Seek>(
    archive: &Archive<R>,
    source: &str,
    sink: &mut Sink<'_>,
) -> PluginResult<()> {
    let pickle = pickle_name(archive, source)?;
    let folder = pickle.strip_suffix(PICKLE).unwrap_or_default();
    let mut for_pickle = archive.clone();
    let fetched = lexer(&mut for_pickle, source, &pickle)?.memo_indices_fetched()?;
    let mut storages = Storages::new(archive.clone(), source, folder)?;
    let mut reading = Reading { source, record: 0 };
    Machine::new(fetched).run(
        &mut lexer(&mut for_pickle, source, &pickle)?,
        &mut |record| {
            let conformer = reading.conformer(&mut storages, record)?;
            reading.record += 1;
            sink(conformer)
        },
    )
}

fn lexer<'a, R: Read + Seek>(
    archive: &'a mut Archive<R>,
    source: &'a str,
    pickle: &'a str,
) -> PluginResult<Lexer<'a, impl Read + 'a>> {
    Ok(Lexer::new(
        BufReader::with_capacity(1 << 16, archive::entry(archive, source, pickle)?),
        source,
        pickle,
    ))
}

fn pickle_name<R: Read + Seek>(archive: &Archive<R>, source: &str) -> PluginResult<String> {
    let is_pickle = |name: &&str| name.rsplit('/').next() == Some(PICKLE);
    let mut names = archive.file_names().filter(is_pickle);
    match (names.next(), names.next()) {
        (Some(name), None) => Ok(name.to_owned()),
        (None, _) => Err(bad_data(
            source,
            "",
            "it is a zip archive, but not torch's: data.pkl is missing",
            CONVERT,
        )),
        _ => Err(bad_data(
            source,
            "",
            "it holds more than one data.pkl",
            CONVERT,
        )),
    }
}

/// Turns records into conformers.
struct Reading<'a> {
    source: &'a str,
    record: u64,
}

impl Reading<'_> {
    fn conformer<R: Read + Seek>(
        &self,
        storages: &mut Storages<'_, R>,
        record: &Record,
    ) -> PluginResult<Conformer> {
        let lacks = |what: &str| self.wrong(format!("its dict lacks {what}"), CONVERT);
        let smiles = record
            .smiles
            .as_deref()
            .ok_or_else(|| lacks("\"smiles\", a str"))?;
        let coords = record
            .coords
            .as_deref()
            .ok_or_else(|| lacks("\"coords\", a tensor"))?;
        let channels = record
            .channels
            .as_deref()
            .ok_or_else(|| lacks("\"atoms_channel\", a tensor"))?;
        let rows = match (&coords.shape[..], &channels.shape[..]) {
            (&[rows, 3], &[n]) if n == rows => rows,
            (c, a) => {
                return Err(self.wrong(
                    format!("coords {c:?} and atoms_channel {a:?} should be [rows, 3] and [rows]"),
                    CONVERT,
                ));
            }
        };
        let (coords, channels) = (storages.floats(coords)?, storages.integers(channels)?);
        let (positions, _) = coords.as_chunks::<3>();
        let mut conformer = Conformer {
            molecule: smiles.to_owned(),
            ..Conformer::default()
        };
        for (position, &channel) in positions.iter().zip(&channels).take(rows as usize) {
            if channel != PADDING as i64 {
                conformer.numbers.push(self.element(channel)?);
                conformer.positions.push(self.position(position)?);
            }
        }
        Ok(conformer)
    }

    fn element(&self, channel: i64) -> PluginResult<u8> {
        let element = usize::try_from(channel).ok().and_then(|c| ELEMENTS.get(c));
        let what = || {
            format!("{channel} is no channel (C H O N F S Cl Br P I B are 0 to 10, padding is 999)")
        };
        element.copied().ok_or_else(|| self.wrong(what(), CONVERT))
    }

    fn position(&self, position: &[f64; 3]) -> PluginResult<[f64; 3]> {
        if position.contains(&PADDING) {
            return Err(self.wrong(format!("an atom lies at {position:?}"), DAMAGED));
        }
        Ok(*position)
    }

    fn wrong(&self, what: impl std::fmt::Display, remedy: &str) -> PluginError {
        bad_data(
            self.source,
            &format!("record {}", self.record),
            what,
            remedy,
        )
    }
}

#[cfg(test)]
mod tests;
