//! Frames of XYZ files: any order of columns, quoted values, booleans and integer columns of extended XYZ; plain XYZ too.

use crate::{DAMAGED, bad_data, elements, is_usable};
use equivbench_plugin::{PluginError, PluginResult};
use std::io::{BufRead, Read};

/// The columns of plain XYZ.
const PLAIN: &str = "species:S:1:pos:R:3";
const MAX_ATOMS_IN_FRAME: usize = 1_000_000;
/// A line longer than this is no line of an XYZ file.
const LONGEST_LINE: u64 = 1 << 24;

/// Where a frame lies in its file.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// First byte of the frame (of the unpacked text).
    pub offset: u64,
    /// Length.
    pub bytes: u32,
    /// Number of the frame, from 1.
    pub frame: u64,
    /// Number of its first line, from 1.
    pub line: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "frame {} (line {})", self.frame, self.line)
    }
}

/// Cuts a stream into frames.
pub struct Frames<R> {
    reader: R,
    name: String,
    line: u64,
    frame: u64,
    offset: u64,
}

impl<R: BufRead> Frames<R> {
    /// Frames of a file; the name is for messages.
    pub fn new(reader: R, name: &str) -> Self {
        Self {
            reader,
            name: name.to_owned(),
            line: 0,
            frame: 0,
            offset: 0,
        }
    }

    /// The next frame's place and bytes; `None` at the end.
    ///
    /// # Errors
    /// No number of atoms where one must stand, a frame that is cut off, a stream that cannot be read.
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not say which error ends it"
    )]
    pub fn next(&mut self) -> PluginResult<Option<(Place, Vec<u8>)>> {
        let mut text = Vec::new();
        loop {
            let bytes = self.read_line(&mut text)?;
            if bytes == 0 {
                return Ok(None);
            }
            if !text.trim_ascii().is_empty() {
                break;
            }
            // Blank lines between frames or at the end.
            self.offset += bytes as u64;
            text.clear();
        }
        self.frame += 1;
        let mut place = Place {
            offset: self.offset,
            bytes: 0,
            frame: self.frame,
            line: self.line,
        };
        let atoms = self.count(&text, place)?;
        for row in 0..=atoms {
            if self.read_line(&mut text)? == 0 {
                let what = format!(
                    "the frame should have {atoms} atoms, but the file ends after {} of its lines",
                    row + 1
                );
                return Err(bad_data(&self.name, &place.to_string(), what, DAMAGED));
            }
        }
        self.offset += text.len() as u64;
        place.bytes = u32::try_from(text.len()).map_err(|_| {
            bad_data(
                &self.name,
                &place.to_string(),
                "the frame is larger than 4 GB",
                DAMAGED,
            )
        })?;
        Ok(Some((place, text)))
    }

    fn read_line(&mut self, text: &mut Vec<u8>) -> PluginResult<usize> {
        let read = self
            .reader
            .by_ref()
            .take(LONGEST_LINE)
            .read_until(b'\n', text);
        let bytes = read.map_err(|e| {
            bad_data(
                &self.name,
                &format!("after line {}", self.line),
                format!("reading failed ({e})"),
                DAMAGED,
            )
        })?;
        self.line += u64::from(bytes > 0);
        if bytes as u64 == LONGEST_LINE {
            return Err(bad_data(
                &self.name,
                &format!("line {}", self.line),
                "it is too long for a line of an XYZ file",
                DAMAGED,
            ));
        }
        Ok(bytes)
    }

    fn count(&self, line: &[u8], place: Place) -> PluginResult<usize> {
        let text = String::from_utf8_lossy(line.trim_ascii());
        match text.parse::<usize>() {
            Ok(n) if (1..=MAX_ATOMS_IN_FRAME).contains(&n) => Ok(n),
            _ => {
                let shown: String = text.chars().take(40).collect();
                Err(bad_data(
                    &self.name,
                    &place.to_string(),
                    format!("a number of atoms was expected, found \"{shown}\""),
                    DAMAGED,
                ))
            }
        }
    }
}

/// A frame as text, with its header taken apart.
pub struct RawFrame<'a> {
    name: &'a str,
    place: Place,
    /// Number of atoms that the frame states.
    pub atoms: usize,
    info: Vec<(String, String)>,
    columns: Vec<Column>,
    rows: Vec<&'a str>,
    /// Whether the second line names the columns; otherwise they are those of plain XYZ: symbol, x, y, z.
    pub is_extended: bool,
}

/// Words of each row that belong together.
pub struct Column {
    /// Name, for example `pos`.
    pub name: String,
    first: usize,
    /// Words.
    pub count: usize,
}

impl<'a> RawFrame<'a> {
    /// Takes apart what [`Frames::next`] found.
    ///
    /// # Errors
    /// Text that is none, a header of extended XYZ that cannot be read.
    pub fn parse(name: &'a str, place: Place, text: &'a [u8]) -> PluginResult<Self> {
        let wrong = |what: String| bad_data(name, &place.to_string(), what, DAMAGED);
        let text = std::str::from_utf8(text).map_err(|e| wrong(format!("it is not text ({e})")))?;
        let mut lines = text.lines();
        let atoms: usize = lines
            .next()
            .and_then(|l| l.trim().parse().ok())
            .ok_or_else(|| wrong("no number of atoms".into()))?;
        let comment = lines.next().unwrap_or_default();
        let is_extended = comment.contains("Properties");
        let second = |what: String| wrong(format!("line {}: {what}", place.line + 1));
        // The comment of plain XYZ may be anything.
        let info = parse_info(comment).or_else(|what| {
            if is_extended {
                Err(second(what))
            } else {
                Ok(Vec::new())
            }
        })?;
        let properties = info
            .iter()
            .find(|(k, _)| k == "Properties")
            .map(|(_, v)| v.as_str());
        let columns = parse_properties(properties.unwrap_or(PLAIN)).map_err(second)?;
        Ok(Self {
            name,
            place,
            atoms,
            columns,
            rows: lines.collect(),
            is_extended: properties.is_some(),
            info,
        })
    }

    /// A value of the second line.
    #[must_use]
    pub fn info(&self, key: &str) -> Option<&str> {
        self.info
            .iter()
            .find(|(k, _)| k == key)
            .map(|(_, v)| v.as_str())
    }

    /// A column by name.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// What a user could name in the options.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let columns = self.columns.iter().map(|c| format!("column {}", c.name));
        columns
            .chain(
                self.info
                    .iter()
                    .filter(|(k, _)| k != "Properties")
                    .map(|(k, _)| k.clone()),
            )
            .collect()
    }

    /// Whether the frame repeats along an axis. A cell without `pbc` is periodic, as in ASE.
    ///
    /// # Errors
    /// `pbc` that is not made of T and F.
    pub fn periodic(&self) -> PluginResult<bool> {
        let Some(pbc) = self.info("pbc") else {
            return Ok(self.info("Lattice").is_some());
        };
        let truth = |word: &str| match word.trim_matches(|c| c == '[' || c == ']' || c == ',') {
            "T" | "True" | "true" | "1" => Some(true),
            "F" | "False" | "false" | "0" => Some(false),
            _ => None,
        };
        let words = pbc
            .split([' ', ','])
            .filter(|w| !w.is_empty() && *w != "_JSON")
            .map(truth);
        let flags = words.collect::<Option<Vec<bool>>>();
        flags
            .map(|f| f.contains(&true))
            .ok_or_else(|| self.wrong(0, format!("pbc=\"{pbc}\" is not three of T and F")))
    }

    /// An error at a row of the frame, 1 the first atom; 0 the header.
    #[must_use]
    pub fn wrong(&self, row: u64, what: String) -> PluginError {
        bad_data(
            self.name,
            &format!(
                "frame {}, line {}",
                self.place.frame,
                self.place.line + 1 + row
            ),
            what,
            DAMAGED,
        )
    }

    /// Atomic numbers `[atoms]`.
    ///
    /// # Errors
    /// No column of species, fewer or more rows than atoms, a word that is no element.
    pub fn species(&self) -> PluginResult<Vec<u8>> {
        self.species_with(|row, word| Err(self.wrong(row, format!("\"{word}\" is no element"))))
    }

    /// As [`species`](Self::species), with a say for the caller on words that are no element: row (1 the first atom) and word.
    ///
    /// # Errors
    /// As [`species`](Self::species); what the caller says.
    pub fn species_with(
        &self,
        unknown: impl Fn(u64, &str) -> PluginResult<u8>,
    ) -> PluginResult<Vec<u8>> {
        let symbols = ["species", "symbols", "element", "elements"]
            .into_iter()
            .find_map(|k| self.column(k));
        let column = symbols.or_else(|| {
            ["Z", "numbers", "atomic_numbers"]
                .into_iter()
                .find_map(|k| self.column(k))
        });
        let column =
            column.ok_or_else(|| self.wrong(0, "Properties names no species column".into()))?;
        let parse = |(row, line): (usize, &&str)| {
            let word = line
                .split_ascii_whitespace()
                .nth(column.first)
                .unwrap_or_default();
            let z = elements::atomic_number(word)
                .or_else(|| word.parse().ok().filter(|z| (1..=118).contains(z)));
            z.map_or_else(|| unknown(row as u64 + 1, word), Ok)
        };
        self.all_rows()?.iter().enumerate().map(parse).collect()
    }

    /// Positions `[atoms, 3]` in the unit of the file, as they stand there: they may be NaN.
    ///
    /// # Errors
    /// No column of positions, fewer or more rows than atoms, a word that is no number.
    pub fn positions(&self) -> PluginResult<Vec<f64>> {
        let column = self.position_column()?;
        self.numbers(column, |row, word| {
            word.parse()
                .map_err(|_| self.no_number(row, &column.name, word))
        })
    }

    /// The column of positions.
    ///
    /// # Errors
    /// There is none.
    pub fn position_column(&self) -> PluginResult<&Column> {
        let found = ["pos", "positions", "position", "R"]
            .into_iter()
            .find_map(|k| self.column(k));
        found.ok_or_else(|| self.wrong(0, "the column pos is missing".into()))
    }

    /// The numbers of a column `[atoms, 3]` times a factor.
    ///
    /// # Errors
    /// Fewer or more rows than atoms, a column of another width, words that are no finite number.
    pub fn vectors(&self, column: &Column, factor: f64) -> PluginResult<Vec<f64>> {
        self.numbers(column, |row, word| {
            Ok(factor * self.number(row, &column.name, word)?)
        })
    }

    fn numbers(
        &self,
        column: &Column,
        parse: impl Fn(u64, &str) -> PluginResult<f64>,
    ) -> PluginResult<Vec<f64>> {
        if column.count != 3 {
            return Err(self.wrong(
                0,
                format!(
                    "column {} has {} numbers for an atom, 3 were expected",
                    column.name, column.count
                ),
            ));
        }
        let rows = self.all_rows()?;
        let mut values = Vec::with_capacity(3 * rows.len());
        for (row, line) in rows.iter().enumerate() {
            let mut words = line.split_ascii_whitespace().skip(column.first);
            for _ in 0..3 {
                let word = words.next().ok_or_else(|| {
                    self.wrong(
                        row as u64 + 1,
                        format!("the line ends before column {} is complete", column.name),
                    )
                })?;
                values.push(parse(row as u64 + 1, word)?);
            }
        }
        Ok(values)
    }

    fn all_rows(&self) -> PluginResult<&[&'a str]> {
        match self.rows.len() == self.atoms {
            true => Ok(&self.rows),
            false => Err(self.wrong(
                0,
                format!("{} rows for {} atoms", self.rows.len(), self.atoms),
            )),
        }
    }

    /// A number that must be finite; row 0 is the header, 1 the first atom.
    ///
    /// # Errors
    /// It is none.
    pub fn number(&self, row: u64, name: &str, word: &str) -> PluginResult<f64> {
        match word.parse::<f64>() {
            Ok(x) if is_usable(x) => Ok(x),
            Ok(_) => Err(bad_data(
                self.name,
                &format!(
                    "frame {}, line {}",
                    self.place.frame,
                    self.place.line + 1 + row
                ),
                format!("{name} holds {word}, which is not finite"),
                "remove the frame or label it again",
            )),
            Err(_) => Err(self.no_number(row, name, word)),
        }
    }

    fn no_number(&self, row: u64, name: &str, word: &str) -> PluginError {
        self.wrong(row, format!("{name} holds \"{word}\", which is no number"))
    }
}

/// `species:S:1:pos:R:3` as columns.
fn parse_properties(text: &str) -> Result<Vec<Column>, String> {
    let words: Vec<&str> = text.split(':').collect();
    if !words.len().is_multiple_of(3) {
        return Err(format!("Properties={text} is not made of name:type:count"));
    }
    let (mut columns, mut first) = (Vec::new(), 0);
    for triple in words.chunks(3) {
        let count: usize = triple[2]
            .parse()
            .ok()
            .filter(|c| (1..=1000).contains(c))
            .ok_or_else(|| format!("Properties: \"{}\" is no number of columns", triple[2]))?;
        if !["S", "R", "I", "L"].contains(&triple[1]) {
            return Err(format!(
                "Properties: type \"{}\" is none of S, R, I, L",
                triple[1]
            ));
        }
        columns.push(Column {
            name: triple[0].to_owned(),
            first,
            count,
        });
        first += count;
    }
    Ok(columns)
}

/// `key=value` pairs of a header line. Values may be quoted or stand in brackets; a key alone means true.
fn parse_info(line: &str) -> Result<Vec<(String, String)>, String> {
    let mut rest = line.trim();
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (key, after) = take_value(rest, true)?;
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('=') {
            Some(value) => take_value(value.trim_start(), false)?,
            None => ("T".to_owned(), after),
        };
        pairs.push((key, value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// A quoted, bracketed or bare word from the front of the text, and what follows it.
fn take_value(text: &str, is_key: bool) -> Result<(String, &str), String> {
    let open = text.chars().next();
    match open {
        Some(quote @ ('"' | '\'')) => {
            let mut value = String::new();
            let mut characters = text.char_indices().skip(1);
            while let Some((at, c)) = characters.next() {
                match c {
                    '\\' => value.extend(characters.next().map(|(_, c)| c)),
                    c if c == quote => return Ok((value, &text[at + 1..])),
                    c => value.push(c),
                }
            }
            Err("a quote is not closed".into())
        }
        Some('[' | '{') if !is_key => {
            let mut depth = 0_i32;
            for (at, c) in text.char_indices() {
                depth += i32::from(c == '[' || c == '{') - i32::from(c == ']' || c == '}');
                if depth == 0 {
                    return Ok((text[1..at].to_owned(), &text[at + 1..]));
                }
            }
            Err("a bracket is not closed".into())
        }
        _ => {
            let end = text
                .find(|c: char| c.is_whitespace() || is_key && c == '=')
                .unwrap_or(text.len());
            if end == 0 && is_key {
                Err("a value without a key".into())
            } else {
                Ok((text[..end].to_owned(), &text[end..]))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Place = Place {
        offset: 0,
        bytes: 0,
        frame: 1,
        line: 1,
    };

    #[test]
    fn headers_are_taken_apart() {
        let line = r#" Lattice="1 0 0 0 1 0 0 0 1" Properties=species:S:1:pos:R:3 note='it''s' flag d="_JSON [1, 2]" box=[1, [2 3]] name = "a \"b\"" pbc="F F F""#;
        let line = line.replace("'it''s'", "'its'");
        let info = parse_info(&line).unwrap();
        let get = |k: &str| info.iter().find(|p| p.0 == k).map(|p| p.1.as_str());
        assert_eq!(get("Lattice"), Some("1 0 0 0 1 0 0 0 1"));
        assert_eq!(get("note"), Some("its"));
        assert_eq!(get("flag"), Some("T"));
        assert_eq!(get("d"), Some("_JSON [1, 2]"));
        assert_eq!(get("box"), Some("1, [2 3]"));
        assert_eq!(get("name"), Some("a \"b\""));
        assert_eq!(get("pbc"), Some("F F F"));
        for bad in ["a=\"open", "b=[1, 2", "=3"] {
            assert!(parse_info(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn columns_may_stand_in_any_order() {
        let text = b"2\nProperties=id:I:1:forces:R:3:fixed:L:1:pos:R:3:species:S:1 energy=-1.5\n0 1 2 3 T 4 5 6 H\n1 -1 -2 -3 F 7 8 9 17\n";
        let frame = RawFrame::parse("x", START, text).unwrap();
        assert_eq!(frame.species().unwrap(), [1, 17]);
        assert_eq!(frame.positions().unwrap(), [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(
            frame.vectors(frame.column("forces").unwrap(), 2.0).unwrap(),
            [2.0, 4.0, 6.0, -2.0, -4.0, -6.0]
        );
        assert_eq!(
            frame
                .number(0, "energy", frame.info("energy").unwrap())
                .unwrap(),
            -1.5
        );
    }

    #[test]
    fn periodicity_is_read_as_ase_reads_it() {
        for (header, periodic) in [
            ("pbc=\"T T T\"", true),
            ("pbc=\"F F F\"", false),
            ("pbc=\"F F T\"", true),
            ("pbc=[F, F, F]", false),
            ("Lattice=\"1 0 0 0 1 0 0 0 1\"", true),
            ("Lattice=\"1 0 0 0 1 0 0 0 1\" pbc=\"F F F\"", false),
            ("energy=1", false),
        ] {
            let text = format!("1\nProperties=species:S:1:pos:R:3 {header}\nH 0 0 0\n");
            let frame = RawFrame::parse("x", START, text.as_bytes()).unwrap();
            assert_eq!(frame.periodic().unwrap(), periodic, "{header}");
        }
    }

    #[test]
    fn plain_xyz_has_symbol_and_position_and_any_comment() {
        for comment in ["", "a \"quote that stays open", "E = -3.2 [kcal", "methane"] {
            let text = format!("2\n{comment}\nC 0 0 nan\nQq 1.5 -2 3 0.1\n");
            let frame = RawFrame::parse("x", START, text.as_bytes()).unwrap();
            assert!(!frame.is_extended);
            assert_eq!(
                frame
                    .species_with(|row, word| {
                        assert_eq!((row, word), (2, "Qq"));
                        Ok(0)
                    })
                    .unwrap(),
                [6, 0]
            );
            let positions = frame.positions().unwrap();
            assert!(positions[2].is_nan() && positions[3..] == [1.5, -2.0, 3.0]);
            assert!(
                frame
                    .species()
                    .unwrap_err()
                    .to_string()
                    .contains("line 4: \"Qq\" is no element")
            );
            assert!(
                frame
                    .vectors(frame.position_column().unwrap(), 1.0)
                    .unwrap_err()
                    .to_string()
                    .contains("not finite")
            );
        }
    }

    #[test]
    fn damage_names_the_line() {
        for (text, message) in [
            (
                "3\n\nC 0 0 0\nC 0 0 1\n",
                "frame 1 (line 1): the frame should have 3 atoms, but the file ends after 4 of its lines",
            ),
            (
                "2\n\nC 0 0 0\nC 0 0 1\n\nx",
                "frame 2 (line 6): a number of atoms was expected, found \"x\"",
            ),
            (
                "1\nProperties=species:S:1:pos:R:3 a=\"open\nC 0 0 0\n",
                "line 2: a quote is not closed",
            ),
            (
                "1\n\nC 0 0\n",
                "line 3: the line ends before column pos is complete",
            ),
            (
                "1\n\nC 0 0 zero\n",
                "line 3: pos holds \"zero\", which is no number",
            ),
            ("\u{0}\u{1}", "a number of atoms was expected"),
        ] {
            let mut frames = Frames::new(text.as_bytes(), "x.xyz");
            let error = loop {
                match frames.next().and_then(|f| {
                    let (place, text) = f.expect("an error comes first");
                    RawFrame::parse("x.xyz", place, &text)?.positions()
                }) {
                    Ok(_) => {}
                    Err(error) => break error.to_string(),
                }
            };
            assert!(
                error.contains(message) && error.contains("x.xyz"),
                "{error}"
            );
        }
    }
}
