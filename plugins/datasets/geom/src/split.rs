//! Splits: whole molecules by a seeded hash order, then a seeded order of the conformers inside each split.

use crate::options::Options;
use equivbench_dataset_tools::split::{self as groups, Draws, NAMES};
use equivbench_plugin::{PluginError, PluginResult};

/// One split: numbers of conformers in the order in which they are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) name: &'static str,
    pub(crate) conformers: Vec<u32>,
    /// Molecules in it.
    pub(crate) groups: u64,
}

/// Keeps the draws of this dataset apart from those of others.
const DOMAIN: &str = "equivbench-geom split\0";

/// Divides the conformers by molecule; `of_conformer` are indices into `keys`. Splits of fraction 0 are left out.
///
/// # Errors
/// Too few molecules.
pub(crate) fn divide(
    keys: &[String],
    of_conformer: &[u32],
    options: &Options,
    seed: u64,
) -> PluginResult<Vec<Split>> {
    let sizes = sizes(keys.len(), options)?;
    let draws = Draws::new(DOMAIN, seed);
    let part = groups::parts(&draws.order("molecule", keys), sizes);
    let mut splits: Vec<Split> = NAMES
        .iter()
        .zip(sizes)
        .map(|(&name, n)| Split {
            name,
            conformers: Vec::new(),
            groups: n as u64,
        })
        .collect();
    for (conformer, &group) in of_conformer.iter().enumerate() {
        if let Some(part) = part.get(group as usize).copied().flatten() {
            splits[part].conformers.push(conformer as u32);
        }
    }
    for split in &mut splits {
        draws.shuffle(split.name, &mut split.conformers);
    }
    splits.retain(|split| !split.conformers.is_empty());
    Ok(splits)
}

fn sizes(molecules: usize, options: &Options) -> PluginResult<[usize; 3]> {
    let (valid, test) = (options.valid_fraction, options.test_fraction);
    let fractions = [1.0 - valid - test, valid, test];
    groups::sizes(molecules, fractions, options.least()).ok_or_else(|| {
        PluginError::BadRequest(format!(
            "the training split is empty: {molecules} molecule(s) cannot be divided into {}; give more molecules, or set valid_fraction or \
             test_fraction to 0",
            NAMES.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Files have no least numbers.
    fn files() -> Options {
        Options {
            path: Some("files".into()),
            ..Options::default()
        }
    }

    fn keys(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("molecule {i}")).collect()
    }

    #[test]
    fn no_molecule_is_in_two_splits_and_nothing_is_lost() {
        let of_conformer: Vec<u32> = (0..350).map(|i| i % 50).collect();
        let splits = divide(&keys(50), &of_conformer, &files(), 3).unwrap();
        assert_eq!(
            splits
                .iter()
                .map(|s| (s.name, s.conformers.len(), s.groups))
                .collect::<Vec<_>>(),
            [("train", 280, 40), ("valid", 35, 5), ("test", 35, 5)]
        );
        let sets: Vec<HashSet<u32>> = splits
            .iter()
            .map(|s| {
                s.conformers
                    .iter()
                    .map(|&c| of_conformer[c as usize])
                    .collect()
            })
            .collect();
        assert!(
            sets[0].is_disjoint(&sets[1])
                && sets[0].is_disjoint(&sets[2])
                && sets[1].is_disjoint(&sets[2])
        );
        assert_eq!(
            splits,
            divide(&keys(50), &of_conformer, &files(), 3).unwrap()
        );
        assert_ne!(
            splits,
            divide(&keys(50), &of_conformer, &files(), 4).unwrap()
        );
        let embedded = divide(&keys(50), &of_conformer, &Options::default(), 3).unwrap();
        assert_eq!(
            embedded.iter().map(|s| s.groups).collect::<Vec<_>>(),
            [18, 16, 16]
        );
    }

    #[test]
    fn fractions_of_zero_leave_the_split_out_and_too_few_molecules_say_what_to_do() {
        let none = Options {
            valid_fraction: 0.0,
            test_fraction: 0.0,
            ..Options::default()
        };
        assert_eq!(divide(&keys(1), &[0, 0], &none, 1).unwrap().len(), 1);
        let message = divide(&keys(2), &[0, 1], &files(), 1)
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("2 molecule(s)")
                && message.contains("valid_fraction or test_fraction to 0"),
            "{message}"
        );
    }
}
