//! Molecules stay together; the first conformers of each are kept; copies count once.

use crate::{conformers, fixture, left_out, make, open, samples, written};
use equivbench_geom::{Geom, Options, Paths};
use equivbench_plugin::DatasetPlugin;
use equivbench_testkit::more_data;
use std::collections::HashSet;

#[test]
fn no_molecule_of_the_sample_is_in_two_splits() {
    let data = Geom::open(Options::default(), 3).unwrap();
    let molecules = |split: &str, n: u64| {
        (0..n)
            .map(|i| data.molecule(split, i).unwrap().to_owned())
            .collect::<HashSet<_>>()
    };
    let sets: Vec<_> = samples(&data)
        .iter()
        .map(|(split, n)| molecules(split, *n))
        .collect();
    assert!(
        sets.len() == 3
            && sets[0].is_disjoint(&sets[1])
            && sets[0].is_disjoint(&sets[2])
            && sets[1].is_disjoint(&sets[2])
    );
    let descriptor = data.describe();
    assert_eq!(
        descriptor
            .splits
            .iter()
            .map(|s| s.groups as usize)
            .collect::<Vec<_>>(),
        sets.iter().map(HashSet::len).collect::<Vec<_>>()
    );
    let counts: Vec<_> = sets.iter().map(HashSet::len).collect();
    assert_eq!(counts, [362, 64, 64]);
    println!("{:?}", samples(&data));
}

#[test]
fn seed_and_content_make_the_hash_and_the_place_does_not() {
    let hash = |options: Options, seed| Geom::open(options, seed).unwrap().describe().content_hash;
    let text = make::molecules(40, 2);
    let (_a, first) = written("a.sdf", text.as_bytes());
    let (_b, packed) = written("b.sdf.gz", &make::gzip(text.as_bytes()));
    let of = |path: &std::path::Path| Options {
        path: Some(path.to_str().unwrap().into()),
        ..Options::default()
    };
    assert_eq!(hash(of(&first), 1), hash(of(&packed), 1));
    assert_ne!(hash(of(&first), 1), hash(of(&first), 2));
    assert_ne!(
        hash(of(&first), 1),
        hash(
            Options {
                conformers: 1,
                ..of(&first)
            },
            1
        )
    );
    let (_c, changed) = written("a.sdf", text.replacen("0.6685", "0.6686", 1).as_bytes());
    assert_ne!(hash(of(&first), 1), hash(of(&changed), 1));
}

#[test]
fn the_first_conformers_of_each_molecule_are_kept() {
    let (_folder, path) = written("a.sdf", make::molecules(10, 7).as_bytes());
    let data = open(&path, |o| o.conformers = 5);
    assert_eq!(
        (
            samples(&data)[0].1,
            left_out(&data.describe(), "beyond the first")
        ),
        (50, 20.0)
    );
    let carbon = make::methanol(0)[0].1[0];
    let moved = |x: f32| ((f64::from(x) - carbon) * 100.0).round();
    let kept: Vec<f64> = conformers(&data)
        .into_iter()
        .filter(|c| c.0 == "m0")
        .map(|c| moved(c.2[0][0]))
        .collect();
    assert_eq!(kept, [0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn the_same_conformers_in_two_files_count_once() {
    let text = make::molecules(20, 2);
    let (folder, first) = written("a.sdf", text.as_bytes());
    std::fs::write(folder.path().join("b.sdf.gz"), make::gzip(text.as_bytes())).unwrap();
    std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
    let data = open(folder.path(), |_| ());
    assert_eq!(
        (
            samples(&data)[0].1,
            left_out(&data.describe(), "equal to one before")
        ),
        (40, 40.0)
    );
    assert_eq!(crate::check(&data.describe(), "files passed over"), 1.0);
    let list = Paths::Many(
        ["a.sdf", "b.sdf.gz"]
            .map(|n| folder.path().join(n).to_str().unwrap().to_owned())
            .to_vec(),
    );
    let commas = Paths::One(
        ["a.sdf", "b.sdf.gz"]
            .map(|n| folder.path().join(n).to_str().unwrap().to_owned())
            .join(", "),
    );
    for paths in [list, commas] {
        assert_eq!(
            conformers(&open(&first, |o| o.path = Some(paths))),
            conformers(&data)
        );
    }
}

/// SDF with bonds and SMILES, npz with SMILES: molecules are the same, and conformers agree to the rounding of the SDF.
#[test]
fn sdf_and_npz_of_one_set_are_one_set() {
    let small = tempfile::tempdir().unwrap();
    for name in ["small.sdf.gz", "small.npz"] {
        std::fs::copy(fixture(name), small.path().join(name)).unwrap();
    }
    let mut folders = vec![(small.path().to_owned(), "small.npz")];
    folders.extend(more_data("geomlike").map(|folder| (folder, "geomlike_drugs.npz")));
    for (folder, npz) in folders {
        let both = open(&folder, |_| ()).describe();
        let one = open(&folder.join(npz), |_| ()).describe();
        assert_eq!(both.splits, one.splits);
        assert_eq!(
            left_out(&both, "equal to one before"),
            one.splits[0].samples as f64
        );
    }
}

/// The key of a molecule is the oracle: groups are equal exactly where keys are, in all splits and with another seed.
#[test]
fn groups_are_molecules_in_every_split_and_with_every_seed() {
    let mut key_of = std::collections::BTreeMap::new();
    for seed in [1, 2] {
        let data = Geom::open(Options::default(), seed).unwrap();
        for (split, n) in samples(&data) {
            let indices: Vec<u64> = (0..n).rev().collect();
            let groups = data.groups(&split, &indices).unwrap().unwrap();
            for (group, index) in groups.into_iter().zip(indices) {
                let key = data.molecule(&split, index).unwrap().to_owned();
                assert_eq!(*key_of.entry(group).or_insert_with(|| key.clone()), key);
            }
        }
        assert!(data.groups("valid", &[0, u64::MAX]).is_err());
    }
    assert_eq!(key_of.len(), 490);
    assert_eq!(key_of.values().collect::<HashSet<_>>().len(), 490);
}
