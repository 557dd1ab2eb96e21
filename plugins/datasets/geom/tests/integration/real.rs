//! Real files of many programs: each gives conformers or a clear refusal, and none a panic.

use crate::{check, left_out, open, refused, says, try_open};
use equivbench_plugin::DatasetPlugin;
use equivbench_testkit::shared_data;
use std::{collections::BTreeMap, path::PathBuf};

fn files() -> Vec<PathBuf> {
    let Some([root]) = shared_data(["real/druglike"]) else {
        return Vec::new();
    };
    let folders = std::fs::read_dir(root).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = folders
        .flat_map(|f| std::fs::read_dir(f).unwrap().map(|e| e.unwrap().path()))
        .collect();
    files.sort();
    files
}

#[test]
fn real_files_give_conformers_or_a_refusal() {
    let mut structures = 0.0;
    for path in files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        match try_open(&path, |o| {
            o.elements
                .extend(["P", "I", "Si", "B", "Na", "K", "Se"].map(Into::into))
        }) {
            Ok(data) => {
                let descriptor = data.describe();
                let lost: BTreeMap<&str, f64> = descriptor
                    .checks
                    .iter()
                    .filter(|c| c.name == "left out")
                    .map(|c| (c.about.split(['(', ':']).next().unwrap(), c.value))
                    .collect();
                let nearest = check(&descriptor, "median distance to the nearest atom");
                println!(
                    "{name}: {:?} groups, {} conformers, nearest {nearest:.2}, left out {lost:?}",
                    descriptor.splits[0].groups, descriptor.splits[0].samples
                );
                assert!((0.9..1.6).contains(&nearest), "{name}");
                structures += descriptor.splits[0].samples as f64 + lost.values().sum::<f64>();
            }
            Err(message) => {
                println!("{name}: {message}");
                assert!(message.contains(&name), "{message}");
            }
        }
    }
    println!("{structures} structures in files that were taken");
}

#[test]
fn drawings_and_files_without_hydrogens_are_refused_with_counts() {
    let Some([zinc, bzr, polar]) = shared_data([
        "real/druglike/rdkit/zinc.leads.500.q.sdf.gz",
        "real/druglike/rdkit/bzr.sdf.gz",
        "real/druglike/rdkit/actives_5ht3.sdf.gz",
    ]) else {
        return;
    };
    says(
        &refused(&zinc, |_| ()),
        &[
            "zinc.leads.500.q.sdf.gz: 500 of 500 structures are flat",
            "EmbedMolecule",
        ],
    );
    says(
        &refused(&bzr, |_| ()),
        &[
            "bzr.sdf.gz: 163 of 163 molecules with carbon have no hydrogen on it",
            "allow_missing_hydrogens",
        ],
    );
    // Counted with RDKit: 102 of 180 have a hydrogen, 38 one on carbon.
    says(&refused(&polar, |_| ()), &["142 of 180 molecules"]);
    let lenient = open(&bzr, |o| o.allow_missing_hydrogens = true).describe();
    assert_eq!(
        check(&lenient, "conformers with carbon and no hydrogen on it"),
        163.0
    );
    assert_eq!(
        lenient.splits[0].samples as f64
            + left_out(&lenient, "another element")
            + left_out(&lenient, "equal to one before"),
        163.0
    );
}
