//! Data beside the project. A test that lacks them says so and counts as skipped.

use std::path::{Path, PathBuf};

/// The folder with fixtures and data: `EQUIVBENCH_SHARED`, or `../shared` beside the workspace, if it is there.
#[must_use]
pub fn shared_dir() -> Option<PathBuf> {
    let given = std::env::var_os("EQUIVBENCH_SHARED").map(PathBuf::from);
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    given
        .into_iter()
        .chain([beside])
        .find(|dir| dir.is_dir())
        .and_then(|dir| dir.canonicalize().ok())
}

/// Folders with parity fixtures of a model: the path list `EQUIVBENCH_PARITY`, or `parity/<model>` of the shared folder.
#[must_use]
pub fn parity_dirs(model: &str) -> Vec<PathBuf> {
    match std::env::var_os("EQUIVBENCH_PARITY") {
        Some(list) => std::env::split_paths(&list)
            .filter(|dir| dir.is_dir())
            .collect(),
        None => shared_dir()
            .map(|dir| dir.join("parity").join(model))
            .into_iter()
            .filter(|dir| dir.is_dir())
            .collect(),
    }
}

/// Everything that `read` makes of the `NAME.config.json` beside a `NAME.safetensors` among the fixtures of a model; it gives `None` for
/// those of other models. Says so where there is nothing.
///
/// # Panics
/// When a folder cannot be listed.
pub fn fixtures<T>(model: &str, read: impl Fn(&Path) -> Option<T>) -> Vec<T> {
    let mut configs: Vec<PathBuf> = parity_dirs(model)
        .iter()
        .filter_map(|d| std::fs::read_dir(d).ok())
        .flat_map(|entries| {
            entries.map(|e| {
                e.unwrap_or_else(|e| panic!("fixtures of {model}: {e}"))
                    .path()
            })
        })
        .filter(|p| {
            p.to_str().is_some_and(|p| p.ends_with(".config.json"))
                && p.with_extension("").with_extension("safetensors").exists()
        })
        .collect();
    configs.sort();
    let found: Vec<T> = configs.iter().filter_map(|path| read(path)).collect();
    if found.is_empty() {
        skip(&format!(
            "no parity fixtures of {model}; set EQUIVBENCH_PARITY or EQUIVBENCH_SHARED"
        ));
    }
    found
}

/// Says that a test did not run, in a line that the test command counts.
pub fn skip(reason: &str) {
    println!("skipped: {reason}");
}
