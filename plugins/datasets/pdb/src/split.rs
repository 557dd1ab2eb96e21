//! Splits: whole clusters in a seeded order, then a seeded order of the chains inside each split.

use crate::{clusters::Clusters, options::Options};
use equivbench_dataset_tools::split::{self as groups, Draws, NAMES};
use equivbench_plugin::{PluginError, PluginResult};

/// One split: numbers of records in the order in which they are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) name: &'static str,
    pub(crate) records: Vec<u32>,
    /// Clusters in it.
    pub(crate) clusters: u64,
}

/// Keeps the draws of this dataset apart from those of others.
const DOMAIN: &str = "equivbench-pdb split\0";

/// How many clusters valid and test have at least, as long as that is no more than a share of all.
struct HeldOut {
    least: u64,
    most: [usize; 2],
}

/// Of files.
const FILES: HeldOut = HeldOut {
    least: 24,
    most: [5, 10],
};
/// Of the embedded sample.
const EMBEDDED: HeldOut = HeldOut {
    least: groups::HELD_OUT,
    most: [3, 3],
};

/// Divides the chains by cluster. Splits of fraction 0 are left out.
///
/// # Errors
/// Too few clusters.
pub(crate) fn divide(
    clusters: &Clusters,
    options: &Options,
    seed: u64,
) -> PluginResult<Vec<Split>> {
    let sizes = sizes(clusters.keys.len(), options)?;
    let draws = Draws::new(DOMAIN, seed);
    let part = groups::parts(&draws.order("cluster", &clusters.keys), sizes);
    let mut splits: Vec<Split> = NAMES
        .iter()
        .zip(sizes)
        .map(|(&name, n)| Split {
            name,
            records: Vec::new(),
            clusters: n as u64,
        })
        .collect();
    for (record, cluster) in clusters.of_record.iter().enumerate() {
        if let Some(part) = cluster.and_then(|cluster| part[cluster as usize]) {
            splits[part].records.push(record as u32);
        }
    }
    for split in &mut splits {
        draws.shuffle(split.name, &mut split.records);
    }
    splits.retain(|split| !split.records.is_empty());
    Ok(splits)
}

/// Clusters in train, valid and test. As in Proteina's preparation fractions are rounded down and the rest is for training; small sets
/// get more for validation than the fraction says.
fn sizes(clusters: usize, options: &Options) -> PluginResult<[usize; 3]> {
    let held_out = if options.path.is_some() {
        FILES
    } else {
        EMBEDDED
    };
    let part = |fraction: f64, least: Option<u64>, most: usize| match fraction {
        0.0 => 0,
        _ => {
            let own = ((clusters as f64 * fraction) as usize).max(1);
            groups::at_least(own, least.unwrap_or(held_out.least), clusters, most)
        }
    };
    let [most_valid, most_test] = held_out.most;
    let valid = part(
        options.valid_fraction,
        options.min_valid_clusters,
        most_valid,
    );
    let test = part(options.test_fraction, options.min_test_clusters, most_test);
    match clusters.checked_sub(valid + test) {
        Some(train) if train > 0 => Ok([train, valid, test]),
        _ => Err(PluginError::BadRequest(format!(
            "the training split is empty: {clusters} cluster(s) of chains cannot be divided into {}; give more structures, or set \
             valid_fraction or test_fraction to 0",
            NAMES.join(", ")
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn files() -> Options {
        Options {
            path: Some("files".into()),
            ..Options::default()
        }
    }

    fn clusters(count: u32, chains_each: u32) -> Clusters {
        Clusters {
            of_record: (0..count * chains_each).map(|i| Some(i % count)).collect(),
            keys: (0..count).map(|c| format!("cluster {c}")).collect(),
            about: String::new(),
        }
    }

    fn counts(splits: &[Split]) -> Vec<(&str, usize, u64)> {
        splits
            .iter()
            .map(|s| (s.name, s.records.len(), s.clusters))
            .collect()
    }

    #[test]
    fn no_cluster_is_in_two_splits_and_nothing_is_lost() {
        let all = clusters(100, 7);
        let splits = divide(&all, &files(), 3).unwrap();
        assert_eq!(
            counts(&splits),
            [("train", 490, 70), ("valid", 140, 20), ("test", 70, 10)]
        );
        let sets: Vec<HashSet<_>> = splits
            .iter()
            .map(|s| {
                s.records
                    .iter()
                    .map(|&r| all.of_record[r as usize])
                    .collect()
            })
            .collect();
        assert!(
            sets[0].is_disjoint(&sets[1])
                && sets[0].is_disjoint(&sets[2])
                && sets[1].is_disjoint(&sets[2])
        );
        assert_eq!(sets.iter().map(HashSet::len).sum::<usize>(), 100);
    }

    #[test]
    fn large_sets_have_the_fractions_of_the_paper() {
        assert_eq!(sizes(30_000, &files()).unwrap(), [29_400, 570, 30]);
        assert_eq!(sizes(1000, &files()).unwrap(), [952, 24, 24]);
        assert_eq!(sizes(3, &files()).unwrap(), [1, 1, 1]);
        assert_eq!(
            sizes(
                1,
                &Options {
                    valid_fraction: 0.0,
                    test_fraction: 0.0,
                    ..files()
                }
            )
            .unwrap(),
            [1, 0, 0]
        );
    }

    #[test]
    fn the_embedded_sample_holds_out_more() {
        let sample = Options::default();
        assert_eq!(sizes(196, &sample).unwrap(), [68, 64, 64]);
        assert_eq!(sizes(30, &sample).unwrap(), [10, 10, 10]);
        let fewer = Options {
            min_test_clusters: Some(8),
            ..sample
        };
        assert_eq!(sizes(196, &fewer).unwrap(), [124, 64, 8]);
    }

    #[test]
    fn too_few_clusters_say_what_to_do() {
        let message = sizes(2, &files()).unwrap_err().to_string();
        assert!(
            message.contains("2 cluster(s)")
                && message.contains("valid_fraction or test_fraction to 0"),
            "{message}"
        );
    }

    #[test]
    fn the_seed_decides_and_chains_without_a_cluster_are_in_no_split() {
        let mut all = clusters(50, 3);
        let splits = divide(&all, &files(), 3).unwrap();
        assert_eq!(splits, divide(&all, &files(), 3).unwrap());
        assert_ne!(splits, divide(&all, &files(), 4).unwrap());
        all.of_record[17] = None;
        let fewer = divide(&all, &files(), 3).unwrap();
        assert!(fewer.iter().all(|s| !s.records.contains(&17)));
        assert_eq!(fewer.iter().map(|s| s.records.len()).sum::<usize>(), 149);
    }

    #[test]
    fn other_clusters_do_not_move_a_cluster_in_the_order() {
        let few = clusters(20, 1);
        let many = clusters(21, 1);
        let key = |c: &Clusters| {
            let s = divide(
                c,
                &Options {
                    min_valid_clusters: Some(1),
                    min_test_clusters: Some(1),
                    ..files()
                },
                9,
            )
            .unwrap();
            c.keys[s[2].records[0] as usize].clone()
        };
        assert!(key(&few) == key(&many) || key(&many) == "cluster 20");
    }
}
