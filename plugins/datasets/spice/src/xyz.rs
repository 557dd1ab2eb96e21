//! Extended XYZ: own parser for any order of columns, quoted values, booleans and integer columns; plain or gzip.
//! Small files are kept as numbers; of a large uncompressed one only the place of each frame is kept.

use crate::{
    catalogue::{Catalogue, Conformation, Frame, Identity, Skip, bad_data, is_usable},
    elements,
    options::Settings,
    source::{Source, file_name},
    units::Units,
};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
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
const FORCE_KEYS: [&str; 9] =
    ["forces", "force", "Forces", "REF_forces", "forces_xtb", "dft_forces", "DFT_forces", "dft_force", "MACE_forces"];
/// A compressed file cannot be read in parts, so it must fit into memory: 2 GB of numbers.
const MAX_ATOMS_IN_MEMORY: usize = 40_000_000;
const MAX_ATOMS_IN_FRAME: usize = 1_000_000;
const DAMAGED: &str = "the file is damaged or cut off: compare its size and checksum with the source and fetch it again";

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

#[derive(Clone, Copy)]
struct Place {
    offset: u64,
    bytes: u32,
    frame: u64,
    line: u64,
}

/// Names of the labels; found in the first frame that has them, the same for all.
#[derive(Clone, Debug, Default)]
struct Keys {
    energy: Option<String>,
    forces: Option<String>,
}

impl ExtendedXyz {
    pub(crate) fn open(path: &Path, source: u32, settings: &Settings, catalogue: &mut Catalogue) -> PluginResult<Self> {
        let name = file_name(path);
        let io = |e: std::io::Error| bad_data(&name, "", format!("it cannot be read ({e})"), DAMAGED);
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let mut magic = [0; 2];
        let compressed = file.read_exact(&mut magic).is_ok() && magic == [0x1f, 0x8b];
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        let reader: Box<dyn BufRead> = match compressed {
            true => Box::new(BufReader::with_capacity(1 << 16, flate2::read::MultiGzDecoder::new(BufReader::new(file)))),
            false => Box::new(BufReader::with_capacity(1 << 16, file)),
        };
        let store = match !compressed && size > settings.small_file_bytes {
            true => Store::Disk { file: File::open(path).map_err(io)?, frames: Vec::new() },
            false => Store::Memory(Vec::new()),
        };
        let options = &settings.options;
        let keys = Keys { energy: options.energy_key.clone(), forces: options.forces_key.clone() };
        let mut xyz = Self { name, keys, units: settings.units(), store };
        xyz.index(Frames { reader, name: xyz.name.clone(), line: 0, frame: 0, offset: 0 }, source, settings, catalogue)?;
        Ok(xyz)
    }

    fn index(&mut self, mut frames: Frames, source: u32, settings: &Settings, catalogue: &mut Catalogue) -> PluginResult<()> {
        let (mut total, mut atoms, mut kept) = (0_u64, 0, 0_u64);
        let mut unlabelled = None;
        while let Some((place, text)) = frames.next()? {
            total += 1;
            let frame = RawFrame::parse(&self.name, place, &text)?;
            let molecule = match admit(&frame, &mut self.keys, settings, catalogue)? {
                Ok(molecule) => molecule,
                Err(why) => {
                    catalogue.skip(why, 1);
                    if why == Skip::NoForces || why == Skip::NoEnergy {
                        unlabelled = Some((why, frame.names()));
                    }
                    continue;
                }
            };
            let conformation = frame.conformation(&self.keys, self.units)?;
            if !settings.limits.admit(conformation.forces.iter().copied()) {
                catalogue.skip(Skip::Force, 1);
                continue;
            }
            atoms += conformation.species.len();
            catalogue.frames.push(Frame { source, molecule, atoms: conformation.species.len() as u32, place: kept });
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
        let known = key.as_ref().map_or_else(|| "under a known name".to_owned(), |key| format!("named \"{key}\""));
        let what = format!("no frame has {missing} {known}; there are: {}", names.join(", "));
        bad_data(&self.name, "", what, &format!("name the right one with {option}, or label the structures first"))
    }
}

/// The molecule of a frame, or why it is left out.
fn admit(frame: &RawFrame<'_>, keys: &mut Keys, settings: &Settings, catalogue: &mut Catalogue) -> PluginResult<Result<u32, Skip>> {
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
    let charge = ["charge", "total_charge", "Charge"].into_iter().find_map(|k| frame.info(k)?.parse().ok());
    let identity = Identity {
        name: None,
        smiles: ["smiles", "SMILES", "smi"].into_iter().find_map(|k| frame.info(k)),
        subset: ["subset", "config_type"].into_iter().find_map(|k| frame.info(k)),
        charge,
        species: &species,
    };
    catalogue.admit(&identity, settings)
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
                let read = file.seek(SeekFrom::Start(place.offset)).and_then(|_| file.read_exact(&mut text));
                read.map_err(|e| {
                    bad_data(&self.name, &place.to_string(), format!("it cannot be read again ({e})"), "do not change a file in use")
                })?;
                *into = RawFrame::parse(&self.name, place, &text)?.conformation(&self.keys, self.units)?;
            }
        }
        Ok(())
    }

    fn about(&self) -> String {
        let name = |key: &Option<String>| key.clone().unwrap_or_else(|| "nothing".into());
        format!("{}: extended XYZ, forces from {}, energy from {}", self.name, name(&self.keys.forces), name(&self.keys.energy))
    }

    fn units(&self) -> Units {
        self.units
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "frame {} (line {})", self.frame, self.line)
    }
}

/// Cuts a stream into frames.
struct Frames {
    reader: Box<dyn BufRead>,
    name: String,
    line: u64,
    frame: u64,
    offset: u64,
}

impl Frames {
    /// The next frame's place and bytes.
    fn next(&mut self) -> PluginResult<Option<(Place, Vec<u8>)>> {
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
        let mut place = Place { offset: self.offset, bytes: 0, frame: self.frame, line: self.line };
        let atoms = self.count(&text, place)?;
        for row in 0..=atoms {
            if self.read_line(&mut text)? == 0 {
                let what = format!("the frame should have {atoms} atoms, but the file ends after {} of its lines", row + 1);
                return Err(bad_data(&self.name, &place.to_string(), what, DAMAGED));
            }
        }
        self.offset += text.len() as u64;
        place.bytes =
            u32::try_from(text.len()).map_err(|_| bad_data(&self.name, &place.to_string(), "the frame is larger than 4 GB", DAMAGED))?;
        Ok(Some((place, text)))
    }

    fn read_line(&mut self, text: &mut Vec<u8>) -> PluginResult<usize> {
        let read = self.reader.read_until(b'\n', text);
        let bytes =
            read.map_err(|e| bad_data(&self.name, &format!("after line {}", self.line), format!("reading failed ({e})"), DAMAGED))?;
        self.line += u64::from(bytes > 0);
        Ok(bytes)
    }

    fn count(&self, line: &[u8], place: Place) -> PluginResult<usize> {
        let text = String::from_utf8_lossy(line.trim_ascii());
        match text.parse::<usize>() {
            Ok(n) if (1..=MAX_ATOMS_IN_FRAME).contains(&n) => Ok(n),
            _ => {
                let shown: String = text.chars().take(40).collect();
                Err(bad_data(&self.name, &place.to_string(), format!("a number of atoms was expected, found \"{shown}\""), DAMAGED))
            }
        }
    }
}

/// A frame as text, with its header taken apart.
struct RawFrame<'a> {
    name: &'a str,
    place: Place,
    atoms: usize,
    info: Vec<(String, String)>,
    columns: Vec<Column>,
    rows: Vec<&'a str>,
}

struct Column {
    name: String,
    first: usize,
    count: usize,
}

impl<'a> RawFrame<'a> {
    fn parse(name: &'a str, place: Place, text: &'a [u8]) -> PluginResult<Self> {
        let wrong = |what: String, remedy: &str| bad_data(name, &place.to_string(), what, remedy);
        let text = std::str::from_utf8(text).map_err(|e| wrong(format!("it is not text ({e})"), DAMAGED))?;
        let mut lines = text.lines();
        let atoms: usize = lines.next().and_then(|l| l.trim().parse().ok()).ok_or_else(|| wrong("no number of atoms".into(), DAMAGED))?;
        let comment = lines.next().unwrap_or_default();
        let info = parse_info(comment).map_err(|what| wrong(format!("line {}: {what}", place.line + 1), DAMAGED))?;
        let Some(properties) = info.iter().find(|(k, _)| k == "Properties") else {
            return Err(wrong(
                "the second line has no Properties=, so this is plain XYZ without forces".into(),
                "write the labelled structures as extended XYZ, e.g. with ase.io.write(..., format=\"extxyz\")",
            ));
        };
        let columns = parse_properties(&properties.1).map_err(|what| wrong(format!("line {}: {what}", place.line + 1), DAMAGED))?;
        Ok(Self { name, place, atoms, columns, rows: lines.collect(), info })
    }

    fn info(&self, key: &str) -> Option<&str> {
        self.info.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// What a user could name in the options.
    fn names(&self) -> Vec<String> {
        let columns = self.columns.iter().map(|c| format!("column {}", c.name));
        columns.chain(self.info.iter().filter(|(k, _)| k != "Properties").map(|(k, _)| k.clone())).collect()
    }

    /// A cell without `pbc` is periodic, as in ASE.
    fn periodic(&self) -> PluginResult<bool> {
        let Some(pbc) = self.info("pbc") else { return Ok(self.info("Lattice").is_some()) };
        let truth = |word: &str| match word.trim_matches(|c| c == '[' || c == ']' || c == ',') {
            "T" | "True" | "true" | "1" => Some(true),
            "F" | "False" | "false" | "0" => Some(false),
            _ => None,
        };
        let words = pbc.split([' ', ',']).filter(|w| !w.is_empty() && *w != "_JSON").map(truth);
        let flags = words.collect::<Option<Vec<bool>>>();
        flags.map(|f| f.contains(&true)).ok_or_else(|| self.wrong(0, format!("pbc=\"{pbc}\" is not three of T and F")))
    }

    /// An error at a row of the frame, 1 the first atom; 0 the header.
    fn wrong(&self, row: u64, what: String) -> PluginError {
        bad_data(self.name, &format!("frame {}, line {}", self.place.frame, self.place.line + 1 + row), what, DAMAGED)
    }

    fn species(&self) -> PluginResult<Vec<u8>> {
        let symbols = ["species", "symbols", "element", "elements"].into_iter().find_map(|k| self.column(k));
        let column = symbols.or_else(|| ["Z", "numbers", "atomic_numbers"].into_iter().find_map(|k| self.column(k)));
        let column = column.ok_or_else(|| self.wrong(0, "Properties names no species column".into()))?;
        let parse = |(row, line): (usize, &&str)| {
            let word = line.split_ascii_whitespace().nth(column.first).unwrap_or_default();
            let z = elements::atomic_number(word).or_else(|| word.parse().ok().filter(|z| (1..=118).contains(z)));
            z.ok_or_else(|| self.wrong(row as u64 + 1, format!("\"{word}\" is no element")))
        };
        self.rows.iter().enumerate().map(parse).collect()
    }

    fn vectors(&self, column: &Column, factor: f64) -> PluginResult<Vec<f64>> {
        if column.count != 3 {
            return Err(self.wrong(0, format!("column {} has {} numbers for an atom, 3 were expected", column.name, column.count)));
        }
        let mut values = Vec::with_capacity(3 * self.rows.len());
        for (row, line) in self.rows.iter().enumerate() {
            let mut words = line.split_ascii_whitespace().skip(column.first);
            for _ in 0..3 {
                let word = words
                    .next()
                    .ok_or_else(|| self.wrong(row as u64 + 1, format!("the line ends before column {} is complete", column.name)))?;
                values.push(factor * self.number(row as u64 + 1, &column.name, word)?);
            }
        }
        Ok(values)
    }

    fn number(&self, row: u64, name: &str, word: &str) -> PluginResult<f64> {
        match word.parse::<f64>() {
            Ok(x) if is_usable(x) => Ok(x),
            Ok(_) => Err(bad_data(
                self.name,
                &format!("frame {}, line {}", self.place.frame, self.place.line + 1 + row),
                format!("{name} holds {word}, which is not finite"),
                "remove the frame or label it again",
            )),
            Err(_) => Err(self.wrong(row, format!("{name} holds \"{word}\", which is no number"))),
        }
    }

    fn conformation(&self, keys: &Keys, units: Units) -> PluginResult<Conformation> {
        if self.rows.len() != self.atoms {
            return Err(self.wrong(0, format!("{} rows for {} atoms", self.rows.len(), self.atoms)));
        }
        let missing = |what: &str| self.wrong(0, format!("{what} is missing"));
        let positions =
            ["pos", "positions", "position", "R"].into_iter().find_map(|k| self.column(k)).ok_or_else(|| missing("the column pos"))?;
        let forces = keys.forces.as_deref().and_then(|k| self.column(k)).ok_or_else(|| missing("the column of forces"))?;
        let energy = keys.energy.as_deref().and_then(|k| Some((k, self.info(k)?))).ok_or_else(|| missing("the energy"))?;
        Ok(Conformation {
            species: self.species()?,
            positions: self.vectors(positions, units.length)?,
            forces: self.vectors(forces, units.force)?,
            energy: units.energy * self.number(0, energy.0, energy.1)?,
        })
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
            return Err(format!("Properties: type \"{}\" is none of S, R, I, L", triple[1]));
        }
        columns.push(Column { name: triple[0].to_owned(), first, count });
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
            let end = text.find(|c: char| c.is_whitespace() || is_key && c == '=').unwrap_or(text.len());
            if end == 0 && is_key { Err("a value without a key".into()) } else { Ok((text[..end].to_owned(), &text[end..])) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let frame = RawFrame::parse("x", Place { offset: 0, bytes: 0, frame: 1, line: 1 }, text).unwrap();
        let keys = Keys { energy: Some("energy".into()), forces: Some("forces".into()) };
        let conformation = frame.conformation(&keys, Units::ASE).unwrap();
        assert_eq!(conformation.species, [1, 17]);
        assert_eq!(conformation.positions, [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        assert_eq!(conformation.forces, [1.0, 2.0, 3.0, -1.0, -2.0, -3.0]);
        assert_eq!(conformation.energy, -1.5);
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
            let frame = RawFrame::parse("x", Place { offset: 0, bytes: 0, frame: 1, line: 1 }, text.as_bytes()).unwrap();
            assert_eq!(frame.periodic().unwrap(), periodic, "{header}");
        }
    }

    #[test]
    fn frames_that_stay_on_disk_are_read_as_those_in_memory() {
        let frame = |i: usize| {
            format!(
                "{}\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-{i}.5\nO 0 0 0 0.1 {i} 0\nH 0 0 0.9 -0.1 0 0{}",
                2 + i % 2,
                if i.is_multiple_of(2) { "\n\n" } else { "\nH 1 0 0 0 0 0\n" }
            )
        };
        let text: String = (0..30).map(frame).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.xyz");
        std::fs::write(&path, text).unwrap();
        let read = |small_file_bytes| {
            let mut settings = Settings::new(crate::Options::default()).unwrap();
            settings.small_file_bytes = small_file_bytes;
            let mut catalogue = Catalogue::default();
            let mut xyz = ExtendedXyz::open(&path, 0, &settings, &mut catalogue).unwrap();
            assert_eq!(matches!(xyz.store, Store::Disk { .. }), small_file_bytes == 0);
            let mut into = Conformation::default();
            catalogue.frames.iter().map(|f| xyz.read(f.place, &mut into).map(|()| into.clone()).unwrap()).collect::<Vec<_>>()
        };
        let (memory, disk) = (read(u64::MAX), read(0));
        assert_eq!((memory.len(), memory[29].energy), (30, -29.5));
        assert_eq!(memory, disk);
    }
}
