//! The dataset from outside: real files against sums of h5py and ASE, splits, refusals, damage, the boundary.

mod boundary;
mod conformations;
mod damage;
mod oracles;
mod refusals;
mod splits;

use equivbench_plugin::{DatasetDescriptor, DatasetPlugin};
use equivbench_spice::{Options, Spice};
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// A fixture of this crate, unpacked into a folder of its own.
fn fixture(name: &str) -> (tempfile::TempDir, PathBuf) {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(format!("{name}.gz"));
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(packed).unwrap())
        .read_to_end(&mut bytes)
        .unwrap();
    written(name, &bytes)
}

/// A file with this content in a folder of its own.
fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn options(path: &Path, change: impl FnOnce(&mut Options)) -> Options {
    let mut options = Options {
        path: Some(path.to_str().unwrap().into()),
        ..Options::default()
    };
    change(&mut options);
    options
}

fn open(path: &Path, change: impl FnOnce(&mut Options)) -> Spice {
    Spice::open(options(path, change), 7).unwrap()
}

fn refused(path: &Path, change: impl FnOnce(&mut Options)) -> String {
    match Spice::open(options(path, change), 7) {
        Ok(data) => panic!(
            "{} was opened: {:?}",
            path.display(),
            data.describe().splits
        ),
        Err(error) => error.to_string(),
    }
}

fn check(descriptor: &DatasetDescriptor, name: &str) -> (f64, bool) {
    let found = descriptor
        .checks
        .iter()
        .find(|c| c.name.contains(name))
        .unwrap_or_else(|| panic!("no check {name} in {:#?}", descriptor.checks));
    (found.value, found.passed)
}

/// Number of conformations that were left out for a reason.
fn left_out(descriptor: &DatasetDescriptor, reason: &str) -> f64 {
    descriptor
        .checks
        .iter()
        .find(|c| c.name == "left out" && c.about.contains(reason))
        .map_or(0.0, |c| c.value)
}
