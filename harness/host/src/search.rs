//! Where plugins are looked for, and how names map to files: `point-mlp` is `libequivbench_point_mlp.so`.

use crate::{HostError, library::sha256_of};
use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::{Path, PathBuf},
};

/// What every plugin file's name begins with, after the platform's prefix.
const STEM: &str = "equivbench_";
/// A list of folders, separated as in `PATH`.
const PATH_VARIABLE: &str = "EQUIVBENCH_PLUGIN_PATH";

/// The folders in which plugins are looked for, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath {
    directories: Vec<PathBuf>,
}

impl SearchPath {
    /// The usual places: `plugin_dirs` (from `--plugin-dir`), the list in `EQUIVBENCH_PLUGIN_PATH`, beside the executable (which is
    /// where cargo puts plugins, too), `plugins/` beside it, `../lib/equivbench/plugins`, and `equivbench/plugins` in the user's
    /// data directory.
    #[must_use]
    pub fn standard(plugin_dirs: &[PathBuf]) -> Self {
        let mut directories = plugin_dirs.to_vec();
        if let Some(list) = std::env::var_os(PATH_VARIABLE) {
            directories.extend(std::env::split_paths(&list).filter(|p| !p.as_os_str().is_empty()));
        }
        let program = std::env::current_exe().and_then(|p| p.canonicalize()).ok();
        if let Some(beside) = program.as_deref().and_then(Path::parent) {
            directories.extend([
                beside.to_owned(),
                beside.join("plugins"),
                beside.join("../lib/equivbench/plugins"),
            ]);
        }
        directories.extend(
            directories::BaseDirs::new().map(|base| base.data_dir().join("equivbench/plugins")),
        );
        Self::of(directories)
    }

    /// These folders and no others. A folder that is named twice counts once.
    #[must_use]
    pub fn of(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut found: Vec<PathBuf> = Vec::new();
        for directory in directories {
            if !found.contains(&directory) {
                found.push(directory);
            }
        }
        Self { directories: found }
    }

    /// The folders, in order.
    #[must_use]
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// The file of a plugin. What contains a path separator or ends like a library is a path and is taken as given; anything else is
    /// a name.
    ///
    /// If two folders hold *different* files of that name, neither is taken: the user says which is meant. Copies of one file count
    /// as one, and the first in the order is taken.
    ///
    /// # Errors
    /// No such file, with every place that was tried; or two different ones.
    pub fn resolve(&self, name_or_path: &str) -> Result<PathBuf, HostError> {
        if is_path(name_or_path) {
            let path = PathBuf::from(name_or_path);
            let absent = || HostError::NotFound {
                name: name_or_path.into(),
                tried: vec![path.clone()],
                nearest: None,
            };
            return if path.exists() {
                Ok(path)
            } else {
                Err(absent())
            };
        }
        let tried: Vec<PathBuf> = self
            .directories
            .iter()
            .map(|d| d.join(file_name_of(name_or_path)))
            .collect();
        let mut there = tried.iter().filter(|path| path.is_file());
        let Some(first) = there.next() else {
            return Err(HostError::NotFound {
                name: name_or_path.into(),
                tried,
                nearest: self.nearest(name_or_path),
            });
        };
        match there.find(|other| !same_content(first, other)) {
            Some(second) => Err(HostError::Duplicate {
                name: name_or_path.into(),
                first: first.clone(),
                second: second.clone(),
            }),
            None => Ok(first.clone()),
        }
    }

    /// Every file that is named like a plugin, folder by folder, sorted within a folder.
    #[must_use]
    pub fn candidates(&self) -> Vec<PathBuf> {
        let of_folder = |directory: &PathBuf| {
            let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
            let mut files: Vec<PathBuf> = entries
                .map(|e| e.path())
                .filter(|p| plugin_name_of(p).is_some())
                .collect();
            files.sort();
            files
        };
        self.directories.iter().flat_map(of_folder).collect()
    }

    fn nearest(&self, name: &str) -> Option<String> {
        let names = self
            .candidates()
            .into_iter()
            .filter_map(|path| plugin_name_of(&path));
        nearest(name, names)
    }
}

/// The nearest of some names, unless nothing about it is near.
pub(crate) fn nearest(name: &str, names: impl Iterator<Item = String>) -> Option<String> {
    let distance = |other: &String| strsim::damerau_levenshtein(name, other);
    names
        .min_by_key(distance)
        .filter(|other| distance(other) < name.len().max(other.len()))
}

/// The file name of a plugin on this system.
#[must_use]
pub fn file_name_of(name: &str) -> String {
    format!("{DLL_PREFIX}{STEM}{}{DLL_SUFFIX}", name.replace('-', "_"))
}

/// The plugin's name that a file's name stands for, or `None` for a file that is not named like a plugin.
#[must_use]
pub fn plugin_name_of(path: &Path) -> Option<String> {
    let stem = path
        .file_name()?
        .to_str()?
        .strip_prefix(DLL_PREFIX)?
        .strip_prefix(STEM)?
        .strip_suffix(DLL_SUFFIX)?;
    (!stem.is_empty()).then(|| stem.replace('_', "-"))
}

pub(crate) fn is_path(name_or_path: &str) -> bool {
    name_or_path.contains(['/', std::path::MAIN_SEPARATOR]) || name_or_path.ends_with(DLL_SUFFIX)
}

/// Whether two paths lead to one file, or to two copies of it.
pub(crate) fn same_content(a: &Path, b: &Path) -> bool {
    let one_file = matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    one_file || matches!((sha256_of(a), sha256_of(b)), (Ok(a), Ok(b)) if a == b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_map_to_files_and_back() {
        let file = file_name_of("point-mlp");
        assert!(file.contains("equivbench_point_mlp"));
        assert_eq!(
            plugin_name_of(Path::new("/x").join(&file).as_path()).as_deref(),
            Some("point-mlp")
        );
        assert_eq!(plugin_name_of(Path::new("/x/libserde.so")), None);
    }
}
