//! Which files a path names: a folder, a list, an archive or a single structure.

use crate::formats::{self, Format, SUFFIXES};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

/// One file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Input {
    pub(crate) path: PathBuf,
    /// Its name relative to the folder or list that named it, for messages and the cache.
    pub(crate) name: String,
}

/// The files of a path, in an order that depends on names only (or on the list).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(crate) files: Vec<Input>,
    /// Name of the whole, for tables.
    pub(crate) stem: String,
    /// Folder beside the data: where the cache lies by default.
    pub(crate) folder: PathBuf,
}

const READS: &str = "this plugin reads mmCIF (.cif), PDB (.pdb, .ent) and BinaryCIF (.bcif), each also .gz, folders of them, .tar archives \
                     and lists of paths";
/// A list longer than this is something else.
const LONGEST_LIST: u64 = 1 << 28;

/// Finds the files of a path.
///
/// # Errors
/// A path that is not there, a folder without structure files, a file that is neither a structure nor a list of paths.
pub(crate) fn find(path: &str) -> PluginResult<Inputs> {
    if path.trim().is_empty() {
        return Err(PluginError::BadRequest(
            "[dataset] path is empty; name a file or folder, or leave path out for the embedded sample".into(),
        ));
    }
    let path = Path::new(path);
    let metadata = std::fs::metadata(path).map_err(|e| {
        PluginError::BadData(format!(
            "{}: cannot be opened ({e}); check the path (relative paths start at {}) and its permissions",
            path.display(),
            std::env::current_dir().map_or_else(|_| "the working directory".into(), |d| d.display().to_string())
        ))
    })?;
    let stem = path
        .canonicalize()
        .ok()
        .as_deref()
        .map_or_else(|| stem(&file_name(path)), |p| stem(&file_name(p)));
    if metadata.is_dir() {
        return Ok(Inputs {
            files: folder(path)?,
            stem,
            folder: path.to_owned(),
        });
    }
    if !metadata.is_file() {
        return Err(PluginError::BadData(format!(
            "{} is neither a file nor a folder; {READS}",
            path.display()
        )));
    }
    let parent = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let files = match list(path, parent)? {
        Some(files) => files,
        None => vec![Input {
            path: path.to_owned(),
            name: file_name(path),
        }],
    };
    Ok(Inputs {
        files,
        stem,
        folder: parent.to_owned(),
    })
}

/// All structure files below a folder, by name. Hidden ones are passed over.
fn folder(path: &Path) -> PluginResult<Vec<Input>> {
    let visible =
        |e: &walkdir::DirEntry| e.depth() == 0 || !e.file_name().to_string_lossy().starts_with('.');
    let relative = |p: &Path| {
        p.strip_prefix(path)
            .unwrap_or(p)
            .to_string_lossy()
            .replace('\\', "/")
    };
    let mut files = Vec::new();
    let mut others = 0_u64;
    for entry in walkdir::WalkDir::new(path)
        .follow_links(true)
        .into_iter()
        .filter_entry(visible)
    {
        match entry {
            Ok(entry) if !entry.file_type().is_file() => {}
            Ok(entry) if has_suffix(&file_name(entry.path())) => {
                files.push(Input {
                    name: relative(entry.path()),
                    path: entry.into_path(),
                });
            }
            Ok(_) => others += 1,
            // A link to a structure that is gone counts as a file that cannot be read.
            Err(error) => match error.path() {
                Some(link) if has_suffix(&file_name(link)) => files.push(Input {
                    name: relative(link),
                    path: link.to_owned(),
                }),
                _ => return Err(unreadable_folder(path, &error)),
            },
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    if files.is_empty() {
        return Err(PluginError::BadData(format!(
            "{}: no structure file was found in the folder and its sub-folders ({others} other files); looked for names that end in {}, \
             each also with .gz",
            path.display(),
            SUFFIXES.join(", ")
        )));
    }
    Ok(files)
}

fn unreadable_folder(path: &Path, error: &walkdir::Error) -> PluginError {
    PluginError::BadData(format!(
        "{}: a folder or link in it cannot be read ({error}); repair it, or give a list of files instead",
        path.display()
    ))
}

/// The files that a list names, or `None` if the file is no list. Paths are relative to the list; empty lines and `#` are passed over.
fn list(path: &Path, parent: &Path) -> PluginResult<Option<Vec<Input>>> {
    let read = || -> std::io::Result<(Option<Format>, u64, Vec<u8>)> {
        let mut reader = BufReader::with_capacity(1 << 16, File::open(path)?);
        let format = formats::format(&mut reader).map_err(std::io::Error::other)?;
        let mut text = Vec::new();
        if format.is_none() {
            reader.take(LONGEST_LIST).read_to_end(&mut text)?;
        }
        Ok((format, std::fs::metadata(path)?.len(), text))
    };
    let (format, length, text) = read().map_err(|e| {
        PluginError::BadData(format!(
            "{}: cannot be read ({e}); check the disk and the permissions",
            path.display()
        ))
    })?;
    if format.is_some() {
        return Ok(None);
    }
    let refuse = |what: &str| {
        Err(PluginError::BadData(format!(
            "{}: {what}; {READS}",
            path.display()
        )))
    };
    if length == 0 {
        return refuse("the file is empty");
    }
    let Ok(text) = String::from_utf8(text) else {
        return refuse("its content is neither a structure nor a list of paths");
    };
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
        .collect();
    let files: Vec<Input> = lines
        .iter()
        .map(|l| Input {
            path: parent.join(l),
            name: (*l).to_owned(),
        })
        .collect();
    if files.is_empty() {
        return refuse("the list names no file");
    }
    // A text of another kind names nothing that exists.
    if !files.iter().take(1000).any(|f| f.path.exists()) {
        return refuse(&format!(
            "its content is not mmCIF, PDB or BinaryCIF, and as a list of paths it names nothing that exists (the first is \"{}\", \
             looked for in {})",
            shortened(&files[0].name),
            parent.display()
        ));
    }
    Ok(Some(files))
}

fn shortened(text: &str) -> String {
    text.chars().take(60).collect()
}

fn has_suffix(name: &str) -> bool {
    let lower = name.to_lowercase();
    let plain = lower.strip_suffix(".gz").unwrap_or(&lower);
    SUFFIXES
        .iter()
        .any(|s| plain.len() > s.len() && plain.ends_with(s))
}

/// Whether a member of an archive is a structure file. Hidden ones (`._name` of macOS) are not.
pub(crate) fn is_structure_name(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or(name);
    !name.starts_with('.') && has_suffix(name)
}

/// File name without its folders.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |n| n.to_string_lossy().into_owned(),
    )
}

/// File name without folders and without the endings of its format.
pub(crate) fn stem(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let cut = |name: &str, suffixes: &[&str]| {
        let lower = name.to_ascii_lowercase();
        let length = suffixes
            .iter()
            .find(|s| lower.len() > s.len() && lower.ends_with(*s))
            .map_or(0, |s| s.len());
        name[..name.len() - length].to_owned()
    };
    cut(
        &cut(name, &[".gz", ".tgz"]),
        &[&SUFFIXES[..], &[".tar", ".txt", ".list", ".lst"]].concat(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_lose_the_endings_of_the_format_only() {
        for (name, expected) in [
            ("a/b/1abc.cif.gz", "1abc"),
            ("pdb1abc.ent.gz", "pdb1abc"),
            ("x.PDB", "x"),
            ("plain", "plain"),
            ("a.b.bcif", "a.b"),
            (".cif", ".cif"),
        ] {
            assert_eq!(stem(name), expected);
        }
    }

    #[test]
    fn members_are_structures_by_their_ending() {
        assert!(is_structure_name("a/1abc.cif.gz") && is_structure_name("1abc.ENT"));
        assert!(
            !is_structure_name("a/._1abc.cif")
                && !is_structure_name("readme.txt")
                && !is_structure_name(".pdb")
        );
    }
}
