//! How the end-to-end tests run the program and read its tables. The tests themselves are in `tests/`.

#[cfg(target_os = "linux")]
pub mod process;
pub mod reference;

use assert_cmd::Command;
use std::path::{Path, PathBuf};

/// Folder of the build: programs, plugins and fixtures lie side by side.
///
/// # Panics
/// When a test is run outside of a cargo build.
#[must_use]
pub fn build_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.parent()
        .and_then(Path::parent)
        .expect("tests lie in <target>/release/deps")
        .to_owned()
}

/// The program.
///
/// # Panics
/// When it was not built before the tests.
#[must_use]
pub fn program() -> PathBuf {
    let path = build_folder().join("equivbench");
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --release --workspace` first, or `cargo xtask test`",
        path.display()
    );
    path
}

/// A plugin or fixture library by file stem, for example `fixture_misbehaving`.
///
/// # Panics
/// When it was not built before the tests.
#[must_use]
pub fn library(stem: &str) -> PathBuf {
    let path = build_folder().join(format!(
        "{}{stem}{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    ));
    assert!(
        path.is_file(),
        "{} is missing: run `cargo build --release --workspace` first",
        path.display()
    );
    path
}

/// A command of the program with nothing of the user's environment in the way.
#[must_use]
pub fn equivbench(arguments: &[&str]) -> Command {
    let mut command = Command::from_std(equivbench_command());
    command.args(arguments);
    command
}

/// The same for whoever waits for its end himself.
#[must_use]
pub fn equivbench_command() -> std::process::Command {
    let mut command = std::process::Command::new(program());
    command
        .env_remove("EQUIVBENCH_PLUGIN_PATH")
        .env("EQUIVBENCH_NO_CACHE", "1");
    command
}

/// A table of a results directory: header and rows.
///
/// # Panics
/// When it is not there or is no table.
#[must_use]
pub fn table(out: &Path, name: &str) -> (Vec<String>, Vec<Vec<String>>) {
    let path = out.join(format!("{name}.csv"));
    let mut reader =
        csv::Reader::from_path(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let header = reader
        .headers()
        .expect("a header")
        .iter()
        .map(Into::into)
        .collect();
    let rows = reader
        .records()
        .map(|r| r.expect("a row").iter().map(Into::into).collect())
        .collect();
    (header, rows)
}

/// One column of a table as numbers; empty cells are left out.
///
/// # Panics
/// When the column is not there.
#[must_use]
pub fn numbers(
    out: &Path,
    name: &str,
    column: &str,
    keep: impl Fn(&dyn Fn(&str) -> String) -> bool,
) -> Vec<f64> {
    let (header, rows) = table(out, name);
    let index = |c: &str| {
        header
            .iter()
            .position(|h| h == c)
            .unwrap_or_else(|| panic!("{name}.csv has no column {c}"))
    };
    let wanted = index(column);
    rows.iter()
        .filter(|row| keep(&|c: &str| row[index(c)].clone()))
        .filter_map(|row| row[wanted].parse().ok())
        .collect()
}

/// All CSV files of a results directory as bytes, by name.
///
/// # Panics
/// When the folder cannot be read.
#[must_use]
pub fn csv_files(out: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(out).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
    let paths = entries
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "csv"));
    let name = |p: &Path| {
        p.file_name()
            .expect("a file has a name")
            .to_string_lossy()
            .into_owned()
    };
    let mut files: Vec<_> = paths
        .map(|p| (name(&p), std::fs::read(&p).expect("a table can be read")))
        .collect();
    files.sort();
    files
}
