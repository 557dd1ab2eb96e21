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
    let valid = &descriptor.splits[1];
    assert!(valid.samples >= 24 && valid.groups >= 18, "{valid:?}");
    println!("{:?}", descriptor.splits);
}

/// Taken when the first results were: the hash covers the chains of all splits in their order.
#[test]
fn its_splits_do_not_move_between_versions() {
    for (seed, hash) in [
        (
            1,
            "26bcfb3f25b0b7dace8f1c10a1d0a1c2ce8184b368e0d6162c2db1fd5d163f2e",
        ),
        (
            7,
            "d581686fffcd12e2bfac4070d718e4c60d96a60dcd52bced2d742e7d33e4aa94",
        ),
    ] {
        assert_eq!(
            Pdb::open(Options::default(), seed)
                .unwrap()
                .describe()
                .content_hash,
            hash
        );
    }
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
