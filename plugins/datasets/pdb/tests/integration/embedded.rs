//! The sample that is served without a path.

use crate::{chains, check, samples};
use equivbench_pdb::{Options, Pdb, embedded};
use equivbench_plugin::DatasetPlugin;
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn all_of_it_is_served_and_every_check_passes() {
    let mut data = Pdb::open(Options::default(), 1).unwrap();
    let descriptor = data.describe();
    let mut expected = embedded::chains().unwrap();
    expected.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(chains(&mut data), expected);
    assert_eq!(
        (descriptor.name.as_str(), descriptor.licence.as_str()),
        (embedded::NAME, "CC0-1.0")
    );
    assert!(
        descriptor.checks.iter().all(|c| c.passed),
        "{:#?}",
        descriptor.checks
    );
    assert_eq!(
        descriptor
            .splits
            .iter()
            .map(|s| s.name.as_str())
            .collect::<Vec<_>>(),
        ["train", "valid", "test"]
    );
    let families: Vec<u64> = descriptor.splits.iter().map(|s| s.groups).collect();
    assert_eq!(families, [68, 64, 64]);
    println!("{:?}", descriptor.splits);
}

/// Taken when the sample grew to 196 families: the hash covers the chains of all splits in their order.
#[test]
fn its_splits_do_not_move_between_versions() {
    let hash = |seed| {
        let data = Pdb::open(Options::default(), seed).unwrap();
        data.describe().content_hash
    };
    assert_eq!(
        [hash(1), hash(7)],
        [
            "cef4e5481ce8e74f5184e834b97d705c7d08695826f01feae15fd696233eeeb5",
            "3d8c8994af830e05b7fdc26bb8c7b80f70df897be477477ed58f1f00b169accd",
        ]
    );
}

/// Clustering finds the families that the sample was made of.
#[test]
fn its_clusters_are_its_families() {
    let sample = embedded::sample().unwrap();
    let family: BTreeMap<String, u32> = sample
        .chains
        .iter()
        .map(|c| c.id.clone())
        .zip(sample.families)
        .collect();
    let mut data = Pdb::open(Options::default(), 1).unwrap();
    let (mut families, mut clusters): (BTreeMap<String, BTreeSet<u32>>, BTreeSet<u32>) =
        Default::default();
    for split in data.describe().splits {
        for i in 0..split.samples {
            let number = family[&data.chain(&split.name, i).unwrap().id];
            families
                .entry(data.cluster(&split.name, i).unwrap().to_owned())
                .or_default()
                .insert(number);
            clusters.insert(number);
        }
    }
    assert_eq!(
        (families.len(), clusters.len()),
        (
            clusters.len(),
            family.values().collect::<BTreeSet<_>>().len()
        )
    );
    assert!(families.values().all(|f| f.len() == 1));
    assert_eq!(check(&data.describe(), "clusters"), clusters.len() as f64);
}

#[test]
fn filters_that_are_asked_for_apply_to_it() {
    let some = |change: fn(&mut Options)| {
        let mut options = Options::default();
        change(&mut options);
        samples(&Pdb::open(options, 1).unwrap().describe())
            .iter()
            .sum::<u64>()
    };
    let all = some(|_| ());
    assert_eq!(all, embedded::chains().unwrap().len() as u64);
    assert!(some(|o| o.min_length = Some(60)) < all && some(|o| o.max_length = 60) < all);
}

/// The families that the sample was made of are the oracle: groups are equal exactly where families are, in all splits and with another
/// seed.
#[test]
fn groups_are_families_in_every_split_and_with_every_seed() {
    let sample = embedded::sample().unwrap();
    let ids = sample.chains.iter().map(|c| c.id.clone());
    let family: BTreeMap<String, u32> = ids.zip(sample.families).collect();
    let mut family_of = BTreeMap::new();
    for seed in [1, 2] {
        let mut data = Pdb::open(Options::default(), seed).unwrap();
        for split in data.describe().splits {
            let indices: Vec<u64> = (0..split.samples).rev().collect();
            let groups = data.groups(&split.name, &indices).unwrap().unwrap();
            for (group, index) in groups.into_iter().zip(indices) {
                let family = family[&data.chain(&split.name, index).unwrap().id];
                assert_eq!(*family_of.entry(group).or_insert(family), family);
            }
        }
        assert!(data.groups("valid", &[u64::MAX]).is_err());
    }
    assert_eq!(family_of.len(), 196);
    assert_eq!(family_of.values().collect::<BTreeSet<_>>().len(), 196);
}
