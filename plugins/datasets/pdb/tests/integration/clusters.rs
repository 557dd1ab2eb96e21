//! Clusters and splits: own clustering, cluster files, real chains.

use crate::{
    check, everything, left_out,
    make::{chain, cif, folder, write},
    open, refused, samples,
};
use equivbench_pdb::{Options, Pdb};
use equivbench_plugin::DatasetPlugin;
use equivbench_testkit::{more_data, shared_data};
use std::collections::{BTreeMap, BTreeSet};

/// Sixty families of two chains each: the second of a family is moved, so that it is no copy.
fn families() -> tempfile::TempDir {
    let folder = folder(&[]);
    for i in 1..=60 {
        let (first, mut second) = (chain("A", i, 60), chain("b", i, 60));
        second.iter_mut().for_each(|a| a.position[0] += 100.0);
        write(
            folder.path(),
            &format!("{}ab{}.cif", i / 10, i % 10),
            cif(&[first, second].concat()).as_bytes(),
        );
    }
    folder
}

fn splits_of(data: &mut Pdb) -> BTreeMap<String, BTreeSet<String>> {
    let splits = data.describe().splits;
    splits
        .iter()
        .map(|s| {
            (
                s.name.clone(),
                (0..s.samples)
                    .map(|i| data.cluster(&s.name, i).unwrap().to_owned())
                    .collect(),
            )
        })
        .collect()
}

fn assert_disjoint(data: &mut Pdb) {
    let sets: Vec<_> = splits_of(data).into_values().collect();
    for (i, a) in sets.iter().enumerate() {
        assert!(sets[..i].iter().all(|b| a.is_disjoint(b)));
    }
}

fn default_splits(o: &mut Options) {
    let default = Options::default();
    (o.valid_fraction, o.test_fraction) = (default.valid_fraction, default.test_fraction);
}

#[test]
fn members_follow_their_cluster() {
    let folder = families();
    let mut data = open(folder.path(), default_splits);
    assert_disjoint(&mut data);
    let descriptor = data.describe();
    let found: Vec<_> = descriptor
        .splits
        .iter()
        .map(|s| (s.name.as_str(), s.samples, s.groups))
        .collect();
    // A fifth of 60 clusters for validation, a tenth for the test.
    assert_eq!(
        found,
        [("train", 84, 42), ("valid", 24, 12), ("test", 12, 6)]
    );
    assert_eq!(
        (
            check(&descriptor, "clusters"),
            check(&descriptor, "largest cluster")
        ),
        (60.0, 2.0)
    );
    assert!(
        descriptor
            .level_of_theory
            .contains("clusters made here: greedy, sequence identity 0.5")
    );
    assert_eq!(check(&descriptor, "sampling"), 84.0);
}

#[test]
fn a_cluster_file_decides_where_it_is_given() {
    let folder = families();
    let text: String = (1..60)
        .map(|i| {
            // Two families to a cluster; the case of entries does not matter, that of chains does.
            let (root, i, j) = (i - i % 2, i / 10, i % 10);
            format!(
                "{}AB{}_A\t{i}AB{j}_A\n{}AB{}_A\t{i}ab{j}_b\n",
                root / 10,
                root % 10,
                root / 10,
                root % 10
            )
        })
        .collect();
    let table = write(folder.path(), "cluster.tsv", text.as_bytes());
    let mut data = open(folder.path(), |o| {
        default_splits(o);
        o.clusters = Some(table.to_str().unwrap().into());
    });
    assert_disjoint(&mut data);
    let descriptor = data.describe();
    assert_eq!(
        (
            check(&descriptor, "clusters"),
            check(&descriptor, "largest cluster")
        ),
        (30.0, 4.0)
    );
    // The last family is not in the file.
    assert_eq!(
        (
            left_out(&descriptor, "does not name"),
            samples(&descriptor).iter().sum::<u64>()
        ),
        (2.0, 118)
    );
    assert!(descriptor.level_of_theory.contains("read from"));
}

#[test]
fn a_cluster_file_of_other_chains_is_refused() {
    let folder = families();
    let refused = |text: &str| {
        let table = write(folder.path(), "cluster.tsv", text.as_bytes());
        refused(folder.path(), |o| {
            o.clusters = Some(table.to_str().unwrap().into())
        })
    };
    let message = refused("9xyz_A\t9xyz_A\n9xyz_A\t9xyz_B\n");
    assert!(
        message.contains("names 2 chains, but none of the 120 chains here")
            && message.contains("\"9xyz_A\"")
            && message.contains("\"0ab1_A\""),
        "{message}"
    );
    // The chain of `1ab1_b` in capitals is another chain.
    assert!(refused("1ab1_B\t1ab1_B\n").contains("none of the 120 chains"));
    assert!(refused("1ab1_A,1ab1_A\n").contains("line 1: 1 columns"));
    assert!(refused("").contains("is empty"));
    assert!(
        crate::refused(folder.path(), |o| o.clusters = Some("no.tsv".into()))
            .contains("no.tsv cannot be read")
    );
}

#[test]
fn clusters_are_kept_beside_the_index() {
    let folder = families();
    let first = open(folder.path(), |o| (o.cache, o.valid_fraction) = (None, 0.1)).describe();
    let mut place = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().path());
    let is_clusters = |p: &std::path::PathBuf| {
        p.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(".equivbench-pdb-clusters-")
    };
    let place = place.find(is_clusters).expect("clusters are kept");
    let whole = std::fs::read(&place).unwrap();
    assert_eq!(
        open(folder.path(), |o| (o.cache, o.valid_fraction) = (None, 0.1)).describe(),
        first
    );
    for at in (0..whole.len()).step_by(7) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&place, damaged).unwrap();
        assert_eq!(
            open(folder.path(), |o| (o.cache, o.valid_fraction) = (None, 0.1)).describe(),
            first
        );
        assert_eq!(std::fs::read(&place).unwrap(), whole, "made anew");
    }
}

#[test]
fn too_few_clusters_cannot_be_divided() {
    let folder = folder(&[("a.cif", cif(&chain("A", 1, 60)).as_bytes())]);
    let message = refused(folder.path(), default_splits);
    assert!(
        message.contains("1 cluster(s)")
            && message.contains("set valid_fraction or test_fraction to 0"),
        "{message}"
    );
}

/// Rough clusters of another method come with the collection; both call the same sequence the same, and find about as many.
#[test]
fn real_chains_form_about_as_many_clusters_as_another_method_finds() {
    let Some([folder, table]) = shared_data(["real/proteins", "real/chains_distinct.csv"]) else {
        return;
    };
    let text = std::fs::read_to_string(table).unwrap();
    let mut data = open(&folder, |o| (o.min_length, o.max_length) = (Some(49), 256));
    let mut here: BTreeMap<String, String> = BTreeMap::new();
    for i in 0..data.describe().splits[0].samples {
        let (sequence, cluster) = (
            data.chain("train", i).unwrap().sequence,
            data.cluster("train", i).unwrap().to_owned(),
        );
        assert_eq!(
            *here.entry(sequence).or_insert_with(|| cluster.clone()),
            cluster
        );
    }
    // path, chain, number of residues, rough cluster, sequence.
    let rows = text
        .lines()
        .skip(1)
        .map(|l| l.split(',').collect::<Vec<_>>());
    let both: Vec<(String, String)> = rows
        .filter_map(|c| Some((here.get(*c.get(4)?)?.clone(), (*c.get(3)?).to_owned())))
        .collect();
    let count = |names: BTreeSet<&String>| names.len();
    let (ours, theirs) = (
        count(both.iter().map(|b| &b.0).collect()),
        count(both.iter().map(|b| &b.1).collect()),
    );
    println!(
        "{} sequences: {ours} clusters here, {theirs} rough ones",
        both.len()
    );
    // Methods differ in what they call similar; a tenth is room for that, and none for a filter that finds nothing (one cluster each).
    assert!(both.len() > 300 && ours.abs_diff(theirs) * 10 <= theirs && ours < both.len());
}

#[test]
fn splits_share_no_cluster_whatever_the_seed() {
    let families = families();
    let mut made = everything(families.path());
    default_splits(&mut made);
    let real = more_data("real/proteins").map(|folder| Options {
        path: Some(folder.to_str().unwrap().into()),
        cache: Some("none".into()),
        ..Options::default()
    });
    for options in std::iter::once(made).chain(real) {
        for seed in 0..3 {
            assert_disjoint(&mut Pdb::open(options.clone(), seed).unwrap());
        }
    }
}
