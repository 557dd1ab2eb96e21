//! SDF and MOL files, V2000 and V3000: title, SMILES field, atoms, bonds, isotopes. Everything else is read over.
//!
//! V2000 stands in fixed columns; lines that do not are read by words. What ends a structure early, or contradicts its counts, is an error.

mod v2000;
mod v3000;

use crate::conformer::{Conformer, HEAVY_HYDROGEN, Sink, UNKNOWN};
use equivbench_dataset_tools::{DAMAGED, bad_data, elements, input};
use equivbench_plugin::{PluginError, PluginResult};
use std::io::{BufRead, Read};

/// A line longer than this is no line of an SDF file.
const LONGEST_LINE: u64 = 1 << 20;
/// No molecule is larger, but a damaged count may claim to be.
const MAX_ATOMS: usize = 1_000_000;

/// Reads all structures of a stream; the name is for messages.
///
/// # Errors
/// The stream cannot be read, ends inside a structure, or a structure contradicts its counts.
pub(crate) fn read(input: impl BufRead, source: &str, sink: &mut Sink<'_>) -> PluginResult<()> {
    let mut lines = Lines {
        input,
        source,
        line: Vec::new(),
        number: 0,
        record: 0,
    };
    let mut is_empty = true;
    while let Some(conformer) = record(&mut lines)? {
        sink(conformer)?;
        is_empty = false;
    }
    if is_empty {
        Err(bad_data(source, "", "it holds no structure", DAMAGED))
    } else {
        Ok(())
    }
}

/// The next structure, `None` at the end.
fn record(lines: &mut Lines<'_, impl BufRead>) -> PluginResult<Option<Conformer>> {
    let Some(title) = header(lines)? else {
        return Ok(None);
    };
    let mut conformer = Conformer {
        molecule: title,
        ..Conformer::default()
    };
    let counts = lines.line.clone();
    let complete = match find(&counts, b"V3000") {
        true => v3000::read(lines, &mut conformer)?,
        false => v2000::read(lines, &counts, &mut conformer)?,
    };
    if complete != End::Record
        && let Some(smiles) = fields(lines)?
    {
        conformer.molecule = smiles;
    }
    Ok(Some(conformer))
}

/// Reads the three lines of the header and the counts line; the title. `None` if nothing but blank lines is left.
fn header(lines: &mut Lines<'_, impl BufRead>) -> PluginResult<Option<String>> {
    let mut title = String::new();
    let mut blank = true;
    for number in 0..4 {
        if !lines.next()? {
            return if blank {
                Ok(None)
            } else {
                Err(lines.ends_early())
            };
        }
        if number == 0 {
            lines.record += 1;
            title = lines.text().trim().to_owned();
        }
        blank &= lines.line.trim_ascii().is_empty();
    }
    if blank {
        // Blank lines at the end of a file, more than a header has: only they may follow.
        while lines.next()? {
            if !lines.line.trim_ascii().is_empty() {
                return Err(lines.wrong("a structure was expected after blank lines"));
            }
        }
        return Ok(None);
    }
    Ok(Some(title))
}

/// What ended a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// `M  END`: data fields may follow.
    Structure,
    /// `$$$$`.
    Record,
}

/// Reads the data fields up to `$$$$` or the end of the file; the SMILES, if there is one.
fn fields(lines: &mut Lines<'_, impl BufRead>) -> PluginResult<Option<String>> {
    // The first field may have ended the structure.
    let (mut smiles, mut is_smiles) = (None, is_smiles_field(&lines.line));
    while lines.next()? && !lines.line.starts_with(b"$$$$") {
        if lines.line.first() == Some(&b'>') {
            is_smiles = is_smiles_field(&lines.line);
        } else if is_smiles {
            let text = lines.text().trim().to_owned();
            smiles = smiles.or(Some(text).filter(|t| !t.is_empty()));
            is_smiles = false;
        }
    }
    Ok(smiles)
}

/// Whether a line is `>  <NAME>  (1)` with a name for SMILES.
fn is_smiles_field(line: &[u8]) -> bool {
    let name = || {
        let start = line.strip_prefix(b">")?.iter().position(|&c| c == b'<')? + 2;
        let length = line.get(start..)?.iter().position(|&c| c == b'>')?;
        line.get(start..start + length)
    };
    name().is_some_and(|name: &[u8]| {
        let name = name.to_ascii_lowercase();
        name == b"smiles" || name.ends_with(b"_smiles")
    })
}

fn find(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|w| w == word)
}

/// Atomic number of an element symbol as SDF writes it; case matters, and nothing is taken for something else.
fn number(symbol: &[u8]) -> u8 {
    match symbol {
        b"D" | b"T" => HEAVY_HYDROGEN,
        // Some programs write these in capitals, and no other element can be meant.
        b"CL" => 17,
        b"BR" => 35,
        _ => std::str::from_utf8(symbol)
            .ok()
            .and_then(elements::atomic_number)
            .unwrap_or(UNKNOWN),
    }
}

/// Marks an atom whose isotope is stated: only those of hydrogen matter.
fn mark_isotope(number: &mut u8, mass: i64) {
    if *number == 1 && mass > 1 {
        *number = HEAVY_HYDROGEN;
    }
}

/// Lines of a stream, and where it is.
struct Lines<'a, R> {
    input: R,
    source: &'a str,
    /// The current line without its end.
    line: Vec<u8>,
    /// Its number, from 1.
    number: u64,
    /// Number of the structure, from 1.
    record: u64,
}

impl<R: BufRead> Lines<'_, R> {
    /// Reads the next line; `false` at the end.
    fn next(&mut self) -> PluginResult<bool> {
        self.line.clear();
        let read = self
            .input
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut self.line);
        let read =
            read.map_err(|e| bad_data(self.source, &self.place(), input::unreadable(&e), DAMAGED))?;
        self.number += u64::from(read > 0);
        if read as u64 == LONGEST_LINE {
            return Err(self.wrong("it is too long for a line of an SDF file"));
        }
        while matches!(self.line.last(), Some(b'\n' | b'\r')) {
            self.line.pop();
        }
        Ok(read > 0)
    }

    /// Reads a line that must be there.
    fn expect(&mut self) -> PluginResult<()> {
        if self.next()? {
            Ok(())
        } else {
            Err(self.ends_early())
        }
    }

    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.line)
    }

    fn place(&self) -> String {
        format!("structure {}, line {}", self.record, self.number)
    }

    fn wrong(&self, what: &str) -> PluginError {
        bad_data(self.source, &self.place(), what, DAMAGED)
    }

    /// An error about the current line, which it shows.
    fn unexpected(&self, expected: &str) -> PluginError {
        let shown: String = self
            .text()
            .chars()
            .filter(|c| !c.is_control())
            .take(50)
            .collect();
        self.wrong(&format!(
            "{expected} was expected, found \"{}\"",
            shown.trim_end()
        ))
    }

    fn ends_early(&self) -> PluginError {
        self.wrong("the file ends inside a structure")
    }
}

#[cfg(test)]
mod tests;
