//! Splits of real catalogues.

use crate::{fixture, left_out, open, written};
use equivbench_plugin::DatasetPlugin;
use equivbench_spice::{Options, Spice};
use equivbench_testkit::more_data;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

fn molecules(data: &Spice) -> BTreeMap<String, BTreeSet<String>> {
    let names = |s: &equivbench_plugin::SplitDescriptor| {
        (0..s.samples)
            .map(|i| data.molecule(&s.name, i).unwrap().to_owned())
            .collect()
    };
    data.describe()
        .splits
        .iter()
        .map(|s| (s.name.clone(), names(s)))
        .collect()
}

fn assert_disjoint(data: &Spice) {
    let sets: Vec<_> = molecules(data).into_values().collect();
    for (i, a) in sets.iter().enumerate() {
        assert!(sets[..i].iter().all(|b| a.is_disjoint(b)));
    }
}

#[test]
fn the_embedded_sample_needs_nothing_and_keeps_molecules_apart() {
    let data = Spice::open(Options::default(), 1).unwrap();
    let splits: Vec<_> = data
        .describe()
        .splits
        .iter()
        .map(|s| (s.name.clone(), s.samples, s.groups))
        .collect();
    assert_eq!(
        splits,
        [
            ("train".into(), 1698, 566),
            ("valid".into(), 192, 64),
            ("test".into(), 192, 64)
        ]
    );
    assert_disjoint(&data);
}

#[test]
fn the_seed_decides_and_nothing_else() {
    let (a, b) = (
        Spice::open(Options::default(), 1).unwrap(),
        Spice::open(Options::default(), 1).unwrap(),
    );
    let c = Spice::open(Options::default(), 2).unwrap();
    assert_eq!(molecules(&a), molecules(&b));
    assert_ne!(molecules(&a)["valid"], molecules(&c)["valid"]);
    assert_eq!(
        a.describe().content_hash,
        c.describe().content_hash,
        "the seed is no content"
    );
}

/// Taken when valid and test came to hold 64 molecules, and by the fractions alone when the first results were; results of two versions of this plugin can be compared only as long as they hold.
/// (The hash covers the bytes of the sample's file, and is that of the safetensors document; before, the same numbers had another.)
#[test]
fn neither_the_splits_of_the_sample_nor_its_hash_move_between_versions() {
    let first = "d81447976eee0ce7555ac3a7e069007aa1dc862d8eb3bdc578ce162657684ee7";
    let now = "01b33cbf2f1519d0c4370e9962f6641fceda6084b42d9a2e2408186d852326a4";
    for (options, seed, order, hash) in [
        (by_fractions(), 1, "5c77daabe6437b73", first),
        (by_fractions(), 7, "8c538f83a7d38b4b", first),
        (Options::default(), 1, "a40d82b01421e43b", now),
    ] {
        let data = Spice::open(options, seed).unwrap();
        let descriptor = data.describe();
        let mut hasher = Sha256::new();
        for split in &descriptor.splits {
            (0..split.samples).for_each(|i| {
                hasher.update(format!("{}\n", data.molecule(&split.name, i).unwrap()))
            });
        }
        let found: String = hasher
            .finalize()
            .iter()
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(found, order, "{seed}");
        assert_eq!(descriptor.content_hash, hash);
    }
}

/// The splits by the fractions alone, which were those of the sample at first.
fn by_fractions() -> Options {
    Options {
        min_valid_molecules: Some(0),
        min_test_molecules: Some(0),
        ..Options::default()
    }
}

/// Taken before the sample lay in a safetensors file: SHA-256 over atomic numbers, positions, forces and energies in the order of the
/// splits. Units are multiplied in f64, which is the same on every machine.
#[test]
fn every_number_of_the_sample_is_served_as_ever() {
    let mut data = Spice::open(by_fractions(), 1).unwrap();
    let mut hasher = Sha256::new();
    for split in data.describe().splits {
        for i in 0..split.samples {
            let conformation = data.conformation(&split.name, i).unwrap();
            hasher.update(&conformation.species);
            for x in conformation.positions.iter().chain(&conformation.forces) {
                hasher.update(x.to_le_bytes());
            }
            hasher.update(conformation.energy.to_le_bytes());
        }
    }
    let found: String = hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(
        found,
        "7907920709307c8dfec2f68e3e75f6518d69138202ba80104e49820e93ec9993"
    );
}

#[test]
fn the_first_64_of_the_validation_split_are_of_many_molecules() {
    let data = Spice::open(Options::default(), 1).unwrap();
    let first: BTreeSet<_> = (0..64)
        .map(|i| data.molecule("valid", i).unwrap())
        .collect();
    assert!(first.len() >= 25, "{}", first.len());
}

#[test]
fn a_molecule_in_two_subsets_and_two_orders_of_atoms_is_one() {
    let (_folder, path) = fixture("release.hdf5");
    for seed in 0..20 {
        let data = Spice::open(crate::options(&path, |_| ()), seed).unwrap();
        assert_disjoint(&data);
        // 8 groups of 9 are different molecules; water is there twice.
        assert_eq!(
            molecules(&data).values().map(BTreeSet::len).sum::<usize>(),
            8
        );
    }
}

/// The embedded sample has 694 molecules, the monomers of DES 378.
#[test]
fn molecules_are_divided_by_the_fractions() {
    let mut sets = vec![(Spice::open(by_fractions(), 7).unwrap(), [624, 35, 35])];
    sets.extend(
        more_data("xtb/des_monomers_gfn2.hdf5").map(|path| (open(&path, |_| ()), [340, 19, 19])),
    );
    for (data, expected) in sets {
        assert_disjoint(&data);
        let groups: Vec<u64> = data.describe().splits.iter().map(|s| s.groups).collect();
        assert_eq!(groups, expected);
    }
}

/// Frames of one molecule of OH, each with another bond length.
fn trajectory(frames: std::ops::Range<usize>) -> String {
    let header = "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc=\"F F F\"";
    frames
        .map(|i| {
            let bond = 0.9 + 1e-4 * i as f64;
            format!("2\n{header}\nO 0 0 0 0.1 0 0\nH 0 0 {bond} -0.1 0 0\n")
        })
        .collect()
}

#[test]
fn one_trajectory_is_cut_into_blocks_and_says_so() {
    let (_folder, made) = written("made_300K.xyz", trajectory(0..500).as_bytes());
    let real = more_data("real/qm/BOTNet/3BPA_train_300K.xyz.gz");
    let real = real.map(|path| (path, "3BPA_train_300K"));
    for (path, name) in [(made, "made_300K")].into_iter().chain(real) {
        let descriptor = open(&path, |_| ()).describe();
        assert_eq!(
            descriptor
                .splits
                .iter()
                .map(|s| s.samples)
                .collect::<Vec<_>>(),
            [450, 25, 25]
        );
        assert!(
            descriptor
                .checks
                .iter()
                .any(|c| c.about.contains("contiguous blocks"))
        );
        assert_eq!(descriptor.name, name);
        assert!(
            crate::refused(&path, |o| o.split_by = "molecule".into())
                .contains("training split is empty")
        );
    }
}

#[test]
fn several_files_are_one_dataset() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, frames| {
        let path = folder.path().join(name);
        std::fs::write(&path, trajectory(frames)).unwrap();
        path.display().to_string()
    };
    let first = file("a_train.xyz", 0..1000);
    let second = file("b_test.xyz", 1000..2000);
    file("c_more.xyz", 2000..3000);
    let opened = |path: String| {
        let options = Options {
            path: Some(path),
            ..Options::default()
        };
        Spice::open(options, 1).unwrap().describe()
    };
    let samples = |descriptor: &equivbench_plugin::DatasetDescriptor| {
        descriptor.splits.iter().map(|s| s.samples).sum::<u64>()
    };
    let both = opened(format!("{first}, {second}"));
    assert_eq!(samples(&both), 2000);
    assert_eq!(both.source, "a_train.xyz and 1 more");
    assert_eq!(samples(&opened(folder.path().display().to_string())), 3000);
}

#[test]
fn filters_leave_out_and_count() {
    let (_folder, path) = fixture("release.hdf5");
    let charged = open(&path, |o| o.neutral_only = true).describe();
    assert_eq!(left_out(&charged, "charged"), 1.0);
    let subset = open(&path, |o| {
        (o.subset, o.split_by) = (Some("SPICE Fixture A v9.9".into()), "frame".into())
    })
    .describe();
    assert_eq!(subset.splits.iter().map(|s| s.samples).sum::<u64>(), 24);
    let water = open(&path, |o| {
        (o.elements, o.split_by, o.test_fraction, o.train_fraction) =
            (vec!["H".into(), "O".into()], "frame".into(), 0.0, 0.95);
    });
    assert_eq!(
        water
            .describe()
            .splits
            .iter()
            .map(|s| s.samples)
            .sum::<u64>(),
        3
    );
    let calm = open(&path, |o| {
        (o.max_gradient_component, o.split_by) = (Some(0.02), "frame".into())
    })
    .describe();
    let kept: u64 = calm.splits.iter().map(|s| s.samples).sum();
    assert!(kept < 27 && kept as f64 + left_out(&calm, "max_gradient_component") == 27.0);
}

#[test]
fn options_and_bytes_change_the_hash_but_the_place_does_not() {
    let (_a, first) = fixture("release.hdf5");
    let (_b, second) = fixture("release.hdf5");
    let hash = |path, change: fn(&mut Options)| open(path, change).describe().content_hash;
    assert_eq!(hash(&first, |_| ()), hash(&second, |_| ()));
    assert_ne!(
        hash(&first, |_| ()),
        hash(&first, |o| o.neutral_only = true)
    );
    assert_eq!(hash(&first, |_| ()).len(), 64);
}

/// The key of a molecule is the oracle: groups are equal exactly where keys are, in all splits and with another seed.
#[test]
fn groups_are_molecules_in_every_split_and_with_every_seed() {
    let mut key_of = std::collections::BTreeMap::new();
    for seed in [1, 2] {
        let data = Spice::open(Options::default(), seed).unwrap();
        for split in data.describe().splits {
            let indices: Vec<u64> = (0..split.samples).rev().collect();
            let groups = data.groups(&split.name, &indices).unwrap().unwrap();
            for (group, index) in groups.into_iter().zip(indices) {
                let key = data.molecule(&split.name, index).unwrap().to_owned();
                assert_eq!(*key_of.entry(group).or_insert_with(|| key.clone()), key);
            }
        }
    }
    assert_eq!(key_of.len(), 694);
    assert_eq!(key_of.values().collect::<BTreeSet<_>>().len(), 694);
}

#[test]
fn frames_of_one_trajectory_are_no_group_and_unknown_samples_are_refused() {
    let (_folder, made) = written("made_300K.xyz", trajectory(0..500).as_bytes());
    assert_eq!(open(&made, |_| ()).groups("valid", &[0, 1]).unwrap(), None);
    let data = Spice::open(Options::default(), 1).unwrap();
    assert!(data.groups("valid", &[0, 192]).is_err());
    assert!(data.groups("nowhere", &[0]).is_err());
}
