//! Where conformations come from: which files a path names, which format each has (by content, not by name), and one trait for all.

use crate::{
    aselmdb::AseLmdb,
    inventory::{Conformation, Inventory},
    lmdb,
    options::Settings,
    release::Release,
    units::Units,
    xyz::ExtendedXyz,
};
use equivbench_dataset_tools::{bad_data, file_name};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

/// One open file.
pub(crate) trait Source: Send {
    /// Loads what the given places need, all at once.
    fn prepare(&mut self, _places: &[u64]) -> PluginResult<()> {
        Ok(())
    }
    /// Reads one conformation into a buffer that is reused.
    fn read(&mut self, place: u64, into: &mut Conformation) -> PluginResult<()>;
    /// How the labels were computed, if the file says so.
    fn level(&self) -> Option<&str> {
        None
    }
    /// Whether the file has the layout of SPICE's releases.
    fn is_release(&self) -> bool {
        false
    }
    /// One line for the report: format, keys.
    fn about(&self) -> String;
    /// Factors that were applied.
    fn units(&self) -> Units;
}

const SUFFIXES: [&str; 9] = [
    ".hdf5",
    ".h5",
    ".xyz",
    ".extxyz",
    ".xyz.gz",
    ".extxyz.gz",
    ".aselmdb",
    ".hdf",
    ".lmdb",
];
const READS: &str =
    "this plugin reads SPICE release HDF5, extended XYZ (also .gz) and ASE LMDB (.aselmdb)";

/// The files that a path names: itself, a folder's, or several separated by commas.
///
/// # Errors
/// A path that is not there, a folder without data, a file named twice.
pub(crate) fn expand(path: &str) -> PluginResult<Vec<PathBuf>> {
    let parts: Vec<&str> = match Path::new(path).exists() {
        true => vec![path],
        false => path
            .split(',')
            .map(str::trim)
            .filter(|p| !p.is_empty())
            .collect(),
    };
    let mut files = Vec::new();
    for part in parts {
        let part = Path::new(part);
        match std::fs::metadata(part) {
            Err(e) => return Err(unreadable(part, &e)),
            Ok(m) if m.is_dir() => files.extend(folder(part)?),
            Ok(_) => files.push(part.to_owned()),
        }
    }
    if files.is_empty() {
        return Err(PluginError::BadRequest(
            "[dataset] path is empty; name a file, or leave path out for the embedded sample"
                .into(),
        ));
    }
    let mut seen = std::collections::HashSet::new();
    if let Some(twice) = files
        .iter()
        .find(|f| !seen.insert(f.canonicalize().unwrap_or_else(|_| f.to_path_buf())))
    {
        return Err(PluginError::BadRequest(format!(
            "[dataset] path names {} twice; name it once",
            twice.display()
        )));
    }
    Ok(files)
}

fn folder(path: &Path) -> PluginResult<Vec<PathBuf>> {
    let entries = std::fs::read_dir(path).map_err(|e| unreadable(path, &e))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            p.is_file()
                && SUFFIXES
                    .iter()
                    .any(|s| file_name(p).to_lowercase().ends_with(s))
        })
        .collect();
    files.sort();
    if !files.is_empty() {
        return Ok(files);
    }
    let remedy = match path.join("data.mdb").exists() {
        true => {
            "it is an LMDB environment of DeePMD or OCP, not fairchem's .aselmdb: convert it, e.g. with dpdata or ASE"
        }
        false => READS,
    };
    Err(PluginError::BadData(format!(
        "{}: the folder holds no file that ends in {}; {remedy}",
        path.display(),
        SUFFIXES.join(", ")
    )))
}

fn unreadable(path: &Path, error: &std::io::Error) -> PluginError {
    PluginError::BadData(format!(
        "{}: cannot be opened ({error}); check the path (relative paths start at {}) and its permissions",
        path.display(),
        here()
    ))
}

fn here() -> String {
    std::env::current_dir().map_or_else(
        |_| "the working directory".into(),
        |d| d.display().to_string(),
    )
}

/// File name without the suffixes of its format.
pub(crate) fn file_stem(path: &Path) -> String {
    let name = file_name(path);
    let lower = name.to_lowercase();
    let mut suffixes = SUFFIXES;
    suffixes.sort_by_key(|s| std::cmp::Reverse(s.len()));
    let length = suffixes
        .iter()
        .find(|s| lower.ends_with(*s))
        .map_or(0, |s| s.len());
    name[..name.len() - length].to_owned()
}

/// Opens a file in the format that its first bytes show and adds its conformations to the inventory.
///
/// # Errors
/// A foreign format (with the way to convert it), damage, or what the reader of the format refuses.
pub(crate) fn open(
    path: &Path,
    number: u32,
    settings: &Settings,
    inventory: &mut Inventory,
) -> PluginResult<Box<dyn Source>> {
    let name = file_name(path);
    let head = read_head(path)?;
    match sniff(&head) {
        Some(Format::Hdf5) => Ok(Box::new(Release::open(path, number, settings, inventory)?)),
        Some(Format::Lmdb) => Ok(Box::new(AseLmdb::open(path, number, settings, inventory)?)),
        Some(Format::Text) => Ok(Box::new(ExtendedXyz::open(
            path, number, settings, inventory,
        )?)),
        Some(Format::Foreign(what, remedy)) => Err(bad_data(&name, "", what, remedy)),
        None if head.is_empty() => Err(bad_data(&name, "", "the file is empty", "fetch it again")),
        None => Err(bad_data(
            &name,
            "",
            "the format is not known from its first bytes",
            READS,
        )),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Hdf5,
    Lmdb,
    Text,
    Foreign(&'static str, &'static str),
}

fn read_head(path: &Path) -> PluginResult<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)
        .and_then(|f| f.take(4096).read_to_end(&mut head))
        .map_err(|e| unreadable(path, &e))?;
    Ok(head)
}

fn sniff(head: &[u8]) -> Option<Format> {
    const HDF5: &[u8] = b"\x89HDF\r\n\x1a\n";
    // A user block may move the superblock to 512, 1024, ...
    if [0, 512, 1024, 2048]
        .into_iter()
        .any(|at| head.get(at..).is_some_and(|h| h.starts_with(HDF5)))
    {
        return Some(Format::Hdf5);
    }
    if lmdb::has_magic(head) {
        return Some(Format::Lmdb);
    }
    match head {
        [0x1f, 0x8b, ..] => Some(sniff_gzip(head)),
        h if h.starts_with(b"SQLite format 3") => Some(Format::Foreign(
            "it is an ASE database in SQLite",
            "write it as extended XYZ: ase convert file.db file.extxyz",
        )),
        h if h.starts_with(b"PK\x03\x04") => Some(Format::Foreign(
            "it is a zip or npz archive",
            "unpack it, or write it as extended XYZ with ASE",
        )),
        [0x80, 2..=5, ..] => Some(Format::Foreign(
            "it is a Python pickle",
            "write it as extended XYZ with ASE",
        )),
        _ => starts_with_count(head).then_some(Format::Text),
    }
}

fn sniff_gzip(head: &[u8]) -> Format {
    let mut inner = Vec::new();
    // The head ends in the middle of the stream; what comes before that is enough.
    let _ = BufReader::new(flate2::read::GzDecoder::new(head))
        .take(1024)
        .read_to_end(&mut inner);
    if inner.starts_with(b"\x89HDF") {
        return Format::Foreign(
            "it is a compressed HDF5 file, which cannot be read in parts",
            "decompress it first: gunzip FILE",
        );
    }
    if inner.is_empty() || starts_with_count(&inner) {
        return Format::Text;
    }
    if inner.get(257..262) == Some(b"ustar") {
        return Format::Foreign("it is a tar archive", "unpack it first: tar -xzf FILE");
    }
    Format::Foreign("it is compressed, but not extended XYZ", READS)
}

/// Extended XYZ begins with the number of atoms on a line of its own.
fn starts_with_count(head: &[u8]) -> bool {
    let line = head.split(|&c| c == b'\n').next().unwrap_or_default();
    let line = line.trim_ascii();
    !line.is_empty() && line.len() < 12 && line.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        assert_eq!(sniff(b"\x89HDF\r\n\x1a\n...."), Some(Format::Hdf5));
        assert_eq!(sniff(b"12\nProperties=species"), Some(Format::Text));
        assert_eq!(sniff(b"hello"), None);
        assert!(matches!(
            sniff(b"SQLite format 3\0"),
            Some(Format::Foreign(..))
        ));
        assert!(matches!(sniff(b"PK\x03\x04"), Some(Format::Foreign(..))));
    }

    #[test]
    fn stems_lose_the_suffix_of_the_format_only() {
        for (name, stem) in [
            ("a/SPICE-2.0.1.hdf5", "SPICE-2.0.1"),
            ("3BPA.xyz.gz", "3BPA"),
            ("plain", "plain"),
            ("x.EXTXYZ", "x"),
        ] {
            assert_eq!(file_stem(Path::new(name)), stem);
        }
    }

    #[test]
    fn a_missing_file_is_named() {
        let message = expand("no/such.hdf5").unwrap_err().to_string();
        assert!(
            message.starts_with("no/such.hdf5: cannot be opened"),
            "{message}"
        );
        assert!(
            expand(" , ")
                .unwrap_err()
                .to_string()
                .contains("path is empty")
        );
    }
}
