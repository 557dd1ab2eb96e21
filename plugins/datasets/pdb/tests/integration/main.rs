//! The dataset from outside: real files against traces of another reader, splits, refusals, damage, the cache, the boundary.

mod boundary;
mod cache;
mod clusters;
mod damage;
mod embedded;
mod make;
mod make_bcif;
mod oracles;
mod refusals;
mod rules;

use equivbench_pdb::{Chain, Options, Pdb};
use equivbench_plugin::{DatasetDescriptor, DatasetPlugin};
use std::path::Path;

/// Options that take everything and write no cache.
fn everything(path: &Path) -> Options {
    Options {
        path: Some(path.to_str().unwrap().into()),
        min_length: Some(0),
        max_length: 1_000_000,
        min_resolved: 2,
        experiments: "any".into(),
        max_resolution: 1e3,
        standard_only: false,
        valid_fraction: 0.0,
        test_fraction: 0.0,
        cache: Some("none".into()),
        ..Options::default()
    }
}

fn open(path: &Path, change: impl FnOnce(&mut Options)) -> Pdb {
    let mut options = everything(path);
    change(&mut options);
    Pdb::open(options, 7).unwrap()
}

fn refused(path: &Path, change: impl FnOnce(&mut Options)) -> String {
    let mut options = everything(path);
    change(&mut options);
    match Pdb::open(options, 7) {
        Ok(data) => panic!(
            "{} was opened: {:?}",
            path.display(),
            data.describe().splits
        ),
        Err(error) => error.to_string(),
    }
}

/// All chains of all splits, by id.
fn chains(data: &mut Pdb) -> Vec<Chain> {
    let splits = data.describe().splits;
    let samples = splits
        .iter()
        .flat_map(|s| (0..s.samples).map(|i| (s.name.clone(), i)));
    let mut chains: Vec<Chain> = samples
        .map(|(split, i)| data.chain(&split, i).unwrap())
        .collect();
    chains.sort_by(|a, b| a.id.cmp(&b.id));
    chains
}

/// Value of a check, 0 if it is not there.
fn check(descriptor: &DatasetDescriptor, name: &str) -> f64 {
    descriptor
        .checks
        .iter()
        .find(|c| c.name == name)
        .map_or(0.0, |c| c.value)
}

/// Number of chains that were left out for a reason.
fn left_out(descriptor: &DatasetDescriptor, reason: &str) -> f64 {
    descriptor
        .checks
        .iter()
        .find(|c| c.name == "left out" && c.about.contains(reason))
        .map_or(0.0, |c| c.value)
}

fn samples(descriptor: &DatasetDescriptor) -> Vec<u64> {
    descriptor.splits.iter().map(|s| s.samples).collect()
}
