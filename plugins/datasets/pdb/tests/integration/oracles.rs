//! Real files against the traces that another reader (gemmi) makes of them, and counts of the whole collection.

use crate::{chains, check, everything, open, samples};
use equivbench_pdb::{Chain, Options, Pdb};
use equivbench_plugin::DatasetPlugin;
use equivbench_testkit::shared_data;
use std::{collections::BTreeMap, fs::File, path::Path, time::Instant};

/// Traces of the reference: 555 distinct chains of at least 50 residues.
struct Reference {
    paths: Vec<String>,
    chains: Vec<String>,
    ends: Vec<i64>,
    positions: ndarray::Array2<f32>,
    numbers: ndarray::Array1<i32>,
    insertions: ndarray::Array1<u8>,
}

impl Reference {
    fn read(path: &Path) -> Self {
        let mut npz = ndarray_npy::NpzReader::new(File::open(path).unwrap()).unwrap();
        let mut lines = |name: &str| -> Vec<String> {
            let bytes: ndarray::Array1<u8> = npz.by_name(name).unwrap();
            String::from_utf8(bytes.to_vec())
                .unwrap()
                .split('\n')
                .map(ToOwned::to_owned)
                .collect()
        };
        let (paths, chains) = (lines("path_utf8"), lines("chain_utf8"));
        let ends: ndarray::Array1<i64> = npz.by_name("ptr").unwrap();
        Self {
            paths,
            chains,
            ends: ends.to_vec(),
            positions: npz.by_name("ca_angstrom").unwrap(),
            numbers: npz.by_name("auth_seq_id").unwrap(),
            insertions: npz.by_name("ins_code").unwrap(),
        }
    }

    fn rows(&self, i: usize) -> std::ops::Range<usize> {
        self.ends[i] as usize..self.ends[i + 1] as usize
    }
}

/// All chains of one file, with their author names.
fn chains_of(path: &Path) -> BTreeMap<String, Chain> {
    let stem = path
        .file_name()
        .unwrap()
        .to_str()
        .unwrap()
        .split('.')
        .next()
        .unwrap()
        .to_owned();
    let found = chains(&mut open(path, |_| ()));
    found
        .into_iter()
        .map(|c| (c.id[stem.len()..].trim_start_matches('_').to_owned(), c))
        .collect()
}

/// The reference leaves out what its tables do not know: `HIE`, a histidine of force fields, which is read here.
fn without_histidines_of_force_fields(chain: &Chain, file: &str) -> Vec<([f64; 3], i64)> {
    let rows = chain
        .positions
        .iter()
        .copied()
        .zip(chain.residue_numbers.iter().copied());
    let foreign = file.ends_with("docking_receptor_1.pdb.gz");
    let is_histidine = |i: usize| chain.sequence.as_bytes()[i] == b'H';
    rows.enumerate()
        .filter(|(i, _)| !(foreign && is_histidine(*i)))
        .map(|(_, row)| row)
        .collect()
}

#[test]
fn every_trace_equals_the_reference() {
    let Some([reference, _]) = shared_data(["real/proteins_ca_reference.npz", "real/proteins"])
    else {
        return;
    };
    let root = reference.parent().unwrap();
    let reference = Reference::read(&reference);
    let mut files: BTreeMap<&str, BTreeMap<String, Chain>> = BTreeMap::new();
    let (mut compared, mut residues) = (0, 0);
    for (i, (path, name)) in reference.paths.iter().zip(&reference.chains).enumerate() {
        let chains = files
            .entry(path)
            .or_insert_with(|| chains_of(&root.join(path)));
        let chain = chains
            .get(name)
            .unwrap_or_else(|| panic!("{path}: no chain {name}"));
        let found = without_histidines_of_force_fields(chain, path);
        let rows = reference.rows(i);
        assert_eq!(found.len(), rows.len(), "{path} {name}");
        for ((position, number), row) in found.iter().zip(rows) {
            // The reference stores f32, so the double nearest to the decimal number must round to it.
            let expected: Vec<f32> = reference.positions.row(row).to_vec();
            assert_eq!(
                position.map(|x| x as f32).to_vec(),
                expected,
                "{path} {name} residue {number}"
            );
            assert_eq!(*number, i64::from(reference.numbers[row]), "{path} {name}");
            residues += 1;
        }
        compared += 1;
    }
    let inserted = reference.insertions.iter().filter(|&&c| c != b' ').count();
    println!(
        "{compared} chains of {} files, {residues} residues ({inserted} with an insertion code) equal the reference",
        files.len()
    );
    assert_eq!((compared, residues), (555, reference.positions.nrows()));
}

/// An entry in three formats is one set of chains, bit for bit.
#[test]
fn formats_of_one_entry_agree() {
    let Some([folder]) = shared_data(["real/proteins/biotite"]) else {
        return;
    };
    let mut compared = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let Some(stem) = path.to_str().unwrap().strip_suffix(".bcif") else {
            continue;
        };
        for other in [".cif.gz", ".pdb.gz"].map(|e| format!("{stem}{e}")) {
            if !Path::new(&other).exists() {
                continue;
            }
            let (binary, text) = (chains_of(&path), chains_of(Path::new(&other)));
            assert_eq!(binary, text, "{other}");
            compared += 1;
        }
    }
    println!("{compared} pairs of formats are equal");
    assert!(compared >= 30, "{compared}");
}

/// The numbers of chains are those of another reader (762 of 643 files in mmCIF and PDB) and of 34 BinaryCIF files (72).
#[test]
fn the_whole_collection_is_read_and_filtered() {
    let Some([folder]) = shared_data(["real/proteins"]) else {
        return;
    };
    let defaults = Options {
        path: everything(&folder).path,
        cache: Some("none".into()),
        ..Options::default()
    };
    let with = |experiments: &str| Options {
        experiments: experiments.into(),
        ..defaults.clone()
    };
    for (name, options, kept) in [
        ("everything", everything(&folder), 743),
        ("defaults", defaults.clone(), 424),
        ("experiments = stated", with("stated"), 120),
        ("experiments = any", with("any"), 430),
    ] {
        let start = Instant::now();
        let descriptor = Pdb::open(options, 1).unwrap().describe();
        println!(
            "{name}: {:?} in {:.2} s",
            samples(&descriptor),
            start.elapsed().as_secs_f64()
        );
        for check in &descriptor.checks {
            println!(
                "  {} {} {}: {}",
                check.name, check.value, check.unit, check.about
            );
        }
        assert!(descriptor.checks.iter().all(|c| c.passed));
        assert_eq!(
            (
                check(&descriptor, "files read"),
                check(&descriptor, "files that could not be read")
            ),
            (677.0, 0.0)
        );
        assert_eq!(samples(&descriptor).iter().sum::<u64>(), kept);
        let out: f64 = descriptor
            .checks
            .iter()
            .filter(|c| c.name == "left out")
            .map(|c| c.value)
            .sum();
        assert_eq!(
            kept as f64 + out,
            762.0 + 72.0,
            "every chain is kept or left out for a reason"
        );
    }
}
