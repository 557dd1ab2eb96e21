//! Which files a path names, and which format each has: by its ending, else by its first bytes.

use crate::options::Paths;
use equivbench_dataset_tools::{bad_data, file_name, input};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    collections::HashSet,
    io::Read,
    path::{Path, PathBuf},
};

/// What reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Sdf,
    Xyz,
    Npz,
    Crude,
    Torch,
}

impl Format {
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::Sdf => "SDF",
            Self::Xyz => "XYZ",
            Self::Npz => "npz",
            Self::Crude => "GEOM's crude msgpack",
            Self::Torch => "VoxMol's torch file",
        }
    }
}

/// One file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    /// Its name for messages.
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) bytes: u64,
}

/// The files of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(crate) files: Vec<Input>,
    /// Name of the whole, for tables.
    pub(crate) stem: String,
    /// Files of folders that are not of a known format.
    pub(crate) passed_over: u64,
}

/// Endings in lower case; those of text and msgpack also with `.gz`.
const ENDINGS: [(&str, Format); 9] = [
    (".sdf", Format::Sdf),
    (".sd", Format::Sdf),
    (".mol", Format::Sdf),
    (".xyz", Format::Xyz),
    (".extxyz", Format::Xyz),
    (".npz", Format::Npz),
    (".msgpack", Format::Crude),
    (".pth", Format::Torch),
    (".pt", Format::Torch),
];
const READS: &str =
    "this plugin reads .sdf, .mol, .xyz, .extxyz, .msgpack (each also .gz), .npz and .pth";
/// What to do about pickles: nothing in Rust decodes RDKit's molecules.
pub(crate) const PICKLE: &str = "it is a Python pickle of RDKit molecules (GEOM's rdkit_folder or a split of MiDi), which only RDKit can read: \
                                 convert it with plugins/datasets/geom/scripts/rdkit_to_sdf.py, as described in this plugin's README.md";

/// Finds the files of the paths, those of a folder by name.
///
/// # Errors
/// A path that is not there, a folder without readable files, a file of another kind, a file named twice.
pub(crate) fn find(paths: &Paths) -> PluginResult<Inputs> {
    let parts = parts(paths);
    let (mut files, mut passed_over) = (Vec::new(), 0);
    for part in &parts {
        let path = Path::new(part);
        match std::fs::metadata(path) {
            Err(e) => return Err(unreadable(path, &e)),
            Ok(m) if m.is_dir() => passed_over += folder(path, &mut files)?,
            Ok(m) if m.is_file() => files.push(Input {
                name: file_name(path),
                format: format(path)?,
                bytes: m.len(),
                path: path.to_owned(),
            }),
            Ok(_) => {
                return Err(bad_data(
                    &file_name(path),
                    "",
                    "it is neither a file nor a folder",
                    READS,
                ));
            }
        }
    }
    let Some(first) = parts.first() else {
        return Err(PluginError::BadRequest(
            "[dataset] path is empty; name a file, or leave path out for the embedded sample"
                .into(),
        ));
    };
    let mut seen = HashSet::new();
    if let Some(twice) = files
        .iter()
        .find(|f| !seen.insert(f.path.canonicalize().unwrap_or_else(|_| f.path.clone())))
    {
        return Err(PluginError::BadRequest(format!(
            "[dataset] path names {} twice; name it once",
            twice.path.display()
        )));
    }
    let path = Path::new(first);
    let stem = stem(
        &path
            .canonicalize()
            .map_or_else(|_| file_name(path), |p| file_name(&p)),
    );
    let more = if parts.len() > 1 {
        format!(" and {} more", parts.len() - 1)
    } else {
        String::new()
    };
    Ok(Inputs {
        files,
        stem: stem + &more,
        passed_over,
    })
}

fn parts(paths: &Paths) -> Vec<String> {
    match paths {
        // A comma may be part of a name.
        Paths::One(path) if Path::new(path).exists() => vec![path.clone()],
        Paths::One(path) => path
            .split(',')
            .map(|p| p.trim().to_owned())
            .filter(|p| !p.is_empty())
            .collect(),
        Paths::Many(paths) => paths
            .iter()
            .filter(|p| !p.trim().is_empty())
            .cloned()
            .collect(),
    }
}

/// Adds the readable files of a folder; the number of others.
fn folder(path: &Path, files: &mut Vec<Input>) -> PluginResult<u64> {
    let entries = std::fs::read_dir(path)
        .and_then(|entries| entries.collect::<Result<Vec<_>, _>>())
        .map_err(|e| unreadable(path, &e))?;
    let mut found: Vec<PathBuf> = entries
        .into_iter()
        .map(|e| e.path())
        .filter(|p| p.is_file() && !file_name(p).starts_with('.'))
        .collect();
    found.sort();
    let before = files.len();
    let mut others = Vec::new();
    for path in found {
        match by_ending(&file_name(&path)) {
            Some(format) => {
                let bytes = std::fs::metadata(&path)
                    .map_err(|e| unreadable(&path, &e))?
                    .len();
                files.push(Input {
                    name: file_name(&path),
                    format,
                    bytes,
                    path,
                });
            }
            None => others.push(path),
        }
    }
    if files.len() > before {
        return Ok(others.len() as u64);
    }
    let folder = path.display();
    let pickled = others.iter().any(|p| is_pickle_name(&file_name(p)))
        || path.join("summary_drugs.json").exists();
    let remedy = if pickled { PICKLE } else { READS };
    Err(PluginError::BadData(format!(
        "{folder}: the folder holds no file that can be read ({} others); {remedy}",
        others.len()
    )))
}

fn unreadable(path: &Path, error: &std::io::Error) -> PluginError {
    PluginError::BadData(format!(
        "{}: cannot be opened ({error}); check the path (relative paths start at {}) and its permissions",
        path.display(),
        std::env::current_dir().map_or_else(
            |_| "the working directory".into(),
            |d| d.display().to_string()
        )
    ))
}

fn plain_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    lower.strip_suffix(".gz").unwrap_or(&lower).to_owned()
}

fn by_ending(name: &str) -> Option<Format> {
    let plain = plain_name(name);
    ENDINGS
        .iter()
        .find(|(ending, _)| plain.len() > ending.len() && plain.ends_with(ending))
        .map(|e| e.1)
}

fn is_pickle_name(name: &str) -> bool {
    let plain = plain_name(name);
    [".pickle", ".pkl", ".p"].iter().any(|e| plain.ends_with(e))
}

/// The format of a file that was named by itself.
fn format(path: &Path) -> PluginResult<Format> {
    let name = file_name(path);
    let refuse = |what: &str, remedy: &str| Err(bad_data(&name, "", what, remedy));
    let mut head = Vec::new();
    // What cannot be unpacked is told by whoever reads it.
    let read = input::open(path)
        .map_err(|e| unreadable(path, &e))?
        .take(1 << 12)
        .read_to_end(&mut head);
    match (by_ending(&name), sniff(&head)) {
        (_, Sniffed::Pickle) => Err(PluginError::BadData(format!("{name}: {PICKLE}"))),
        (_, Sniffed::Tar) => refuse(TAR.0, TAR.1),
        (Some(format), _) | (None, Sniffed::Format(format)) => Ok(format),
        _ if is_pickle_name(&name) => Err(PluginError::BadData(format!("{name}: {PICKLE}"))),
        _ if read.is_err() => refuse("its compression is damaged", "fetch it again"),
        _ if head.is_empty() => refuse("the file is empty", "fetch it again"),
        _ => refuse(
            "the format is known neither from its ending nor from its first bytes",
            READS,
        ),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sniffed {
    Format(Format),
    Pickle,
    Tar,
    Unknown,
}

/// What is wrong with a tar archive, and what to do.
pub(crate) const TAR: (&str, &str) = (
    "it is a tar archive",
    "unpack it (tar -xf FILE) and give the file inside",
);

/// Whether a file begins like a tar archive; a header has 512 bytes.
pub(crate) fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar")
}

fn sniff(head: &[u8]) -> Sniffed {
    match head {
        [0x80, 2..=5, ..] => return Sniffed::Pickle,
        _ if is_tar(head) => return Sniffed::Tar,
        _ => {}
    }
    let mut lines = head.split(|&c| c == b'\n').map(<[u8]>::trim_ascii);
    let first = lines.next().unwrap_or_default();
    if !first.is_empty() && first.len() < 12 && first.iter().all(u8::is_ascii_digit) {
        return Sniffed::Format(Format::Xyz);
    }
    if lines
        .nth(2)
        .is_some_and(|counts| counts.ends_with(b"V2000") || counts.ends_with(b"V3000"))
    {
        return Sniffed::Format(Format::Sdf);
    }
    Sniffed::Unknown
}

/// Name without the endings of its format.
fn stem(name: &str) -> String {
    // Lower case of ASCII only keeps the lengths: the Kelvin sign is longer than the k that Unicode makes of it.
    let cut = |name: &str, ending: &str| match name.to_ascii_lowercase().strip_suffix(ending) {
        Some(rest) if !rest.is_empty() => name[..rest.len()].to_owned(),
        _ => name.to_owned(),
    };
    let plain = cut(name, ".gz");
    ENDINGS
        .iter()
        .map(|(ending, _)| cut(&plain, ending))
        .find(|cut| *cut != plain)
        .unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_ending_then_by_content() {
        for (name, format) in [
            ("a.SDF.gz", Some(Format::Sdf)),
            ("a.mol", Some(Format::Sdf)),
            ("a.extxyz", Some(Format::Xyz)),
            ("drugs_crude.msgpack", Some(Format::Crude)),
            ("train_data.pth", Some(Format::Torch)),
            (".sdf", None),
            ("a.txt", None),
            ("a.msgpac\u{212A}", None),
        ] {
            assert_eq!(by_ending(name), format, "{name}");
        }
        assert_eq!(sniff(b"\x80\x04\x95"), Sniffed::Pickle);
        assert_eq!(sniff(b"12\r\ncomment\r\n"), Sniffed::Format(Format::Xyz));
        assert_eq!(
            sniff(b"\n  RDKit\n\n  3  2  0  0  0  0            999 V2000\n"),
            Sniffed::Format(Format::Sdf)
        );
        assert_eq!(sniff(b"hello"), Sniffed::Unknown);
    }

    #[test]
    fn stems_lose_the_endings_of_the_format_only() {
        for (name, expected) in [
            ("geomlike.sdf.gz", "geomlike"),
            ("x.XYZ", "x"),
            ("plain", "plain"),
            ("v1.2.npz", "v1.2"),
            (".sdf", ".sdf"),
            ("a.msgpac\u{212A}", "a.msgpac\u{212A}"),
            ("\u{212A}.SDF.gz", "\u{212A}"),
        ] {
            assert_eq!(stem(name), expected);
        }
    }
}
