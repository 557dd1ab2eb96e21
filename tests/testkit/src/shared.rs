//! Where fixtures and data lie: parity fixtures of our own in this repository, those of the reference implementations and large data
//! beside it. A test that lacks its data says so and counts as skipped.

use std::path::{Path, PathBuf};

/// The folder with fixtures and data: `EQUIVBENCH_SHARED`, by default `../shared` beside the workspace; `None` where it is not there.
#[must_use]
pub fn shared_dir() -> Option<PathBuf> {
    std::env::var_os("EQUIVBENCH_SHARED")
        .map_or_else(|| workspace().join("../shared"), PathBuf::from)
        .canonicalize()
        .ok()
        .filter(|dir| dir.is_dir())
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Folders with parity fixtures of a model: `tests/parity/<model>` of the workspace, and those of the path list
/// `EQUIVBENCH_PARITY` or `parity/<model>` of the shared folder.
#[must_use]
pub fn parity_dirs(model: &str) -> Vec<PathBuf> {
    let beside = match std::env::var_os("EQUIVBENCH_PARITY") {
        Some(list) => std::env::split_paths(&list).collect(),
        None => shared_dir()
            .map(|dir| vec![dir.join("parity").join(model)])
            .unwrap_or_default(),
    };
    std::iter::once(workspace().join("tests/parity").join(model))
        .chain(beside)
        .filter(|dir| dir.is_dir())
        .collect()
}

/// Everything that `read` makes of the `NAME.config.json` beside a `NAME.safetensors` (plain or `.gz`) among the fixtures of a
/// model; it gives `None` for those of other models.
///
/// # Panics
/// When a folder cannot be listed, and when nothing was found: the workspace has fixtures of every model.
pub fn fixtures<T>(model: &str, read: impl Fn(&Path) -> Option<T>) -> Vec<T> {
    let entries =
        |dir: &PathBuf| std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut configs: Vec<PathBuf> = parity_dirs(model)
        .iter()
        .flat_map(entries)
        .map(|e| {
            e.unwrap_or_else(|e| panic!("fixtures of {model}: {e}"))
                .path()
        })
        .filter(|path| path.to_string_lossy().ends_with(".config.json"))
        .collect();
    configs.sort();
    let found: Vec<T> = configs.iter().filter_map(|path| read(path)).collect();
    assert!(!found.is_empty(), "no parity fixtures of {model}");
    found
}

/// Files below `data` of the shared folder that a test cannot do without, all of them or `None`, with one line that says which is
/// not there.
#[must_use]
pub fn shared_data<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    if let Some(name) = names.iter().find(|name| more_data(name).is_none()) {
        skip(&format!("shared data {name} are not here"));
        return None;
    }
    let data = shared_dir()?.join("data");
    Some(names.map(|name| data.join(name)))
}

/// A file below `data` of the shared folder that a test takes in beside files of its own, if it is there.
#[must_use]
pub fn more_data(name: &str) -> Option<PathBuf> {
    let path = shared_dir()?.join("data").join(name);
    path.exists().then_some(path)
}

/// Says that a test did not run, in a line that the test command counts.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
}
