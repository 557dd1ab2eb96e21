//! The dataset from outside: formats against each other, real files, splits, refusals, damage, the boundary.

mod boundary;
mod damage;
mod embedded;
mod formats;
mod make;
mod real;
mod refusals;
mod splits;

use equivbench_geom::{Geom, Options};
use equivbench_plugin::{DatasetDescriptor, DatasetPlugin};
use std::path::{Path, PathBuf};

/// A file of tests/fixtures, whose script says what it holds.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A file with this content in a folder of its own.
fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// All conformers of a path in one split.
fn everything(path: &Path) -> Options {
    Options {
        path: Some(path.to_str().unwrap().into()),
        conformers: 0,
        valid_fraction: 0.0,
        test_fraction: 0.0,
        ..Options::default()
    }
}

fn try_open(path: &Path, change: impl FnOnce(&mut Options)) -> Result<Geom, String> {
    let mut options = everything(path);
    change(&mut options);
    Geom::open(options, 7).map_err(|e| e.to_string())
}

fn open(path: &Path, change: impl FnOnce(&mut Options)) -> Geom {
    try_open(path, change).unwrap()
}

fn refused(path: &Path, change: impl FnOnce(&mut Options)) -> String {
    match try_open(path, change) {
        Ok(data) => panic!(
            "{} was opened: {:?}",
            path.display(),
            data.describe().splits
        ),
        Err(error) => error,
    }
}

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "\"{part}\" is not in: {message}");
    }
}

/// Names of splits and numbers of their samples.
fn samples(data: &Geom) -> Vec<(String, u64)> {
    data.describe()
        .splits
        .iter()
        .map(|s| (s.name.clone(), s.samples))
        .collect()
}

/// Molecule, numbers and positions.
type NamedConformer = (String, Vec<u8>, Vec<[f32; 3]>);

/// All samples, sorted, so that two datasets can be compared.
fn conformers(data: &Geom) -> Vec<NamedConformer> {
    let places = samples(data)
        .into_iter()
        .flat_map(|(split, n)| (0..n).map(move |i| (split.clone(), i)));
    let one = |(split, i): (String, u64)| {
        let (numbers, positions) = data.conformer(&split, i).unwrap();
        (
            data.molecule(&split, i).unwrap().to_owned(),
            numbers.to_vec(),
            positions.to_vec(),
        )
    };
    let mut all: Vec<_> = places.map(one).collect();
    all.sort_by(|a, b| {
        (&a.0, &a.1)
            .cmp(&(&b.0, &b.1))
            .then_with(|| a.2.partial_cmp(&b.2).unwrap())
    });
    all
}

/// Value of a check, 0 if it is not there.
fn check(descriptor: &DatasetDescriptor, name: &str) -> f64 {
    descriptor
        .checks
        .iter()
        .find(|c| c.name == name)
        .map_or(0.0, |c| c.value)
}

/// Number of conformers that were left out for a reason.
fn left_out(descriptor: &DatasetDescriptor, reason: &str) -> f64 {
    descriptor
        .checks
        .iter()
        .find(|c| c.name == "left out" && c.about.contains(reason))
        .map_or(0.0, |c| c.value)
}
