//! Splits: whole molecules by a seeded hash order, or contiguous blocks of a trajectory; then a seeded order inside each split.

use crate::{
    inventory::Inventory,
    options::{Options, Settings, SplitBy},
};
use equivbench_dataset_tools::split::{self as groups, Draws, NAMES};
use equivbench_plugin::{PluginError, PluginResult};
use std::collections::HashSet;

/// One split: numbers of frames in the order in which they are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Split {
    pub(crate) name: &'static str,
    pub(crate) frames: Vec<u32>,
    pub(crate) groups: u64,
}

/// All splits of a dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Splits {
    pub(crate) splits: Vec<Split>,
    /// Whether molecules were too few and frames were divided instead.
    pub(crate) by_frame: bool,
}

/// Fewer molecules than splits: nothing can be kept apart.
const MIN_MOLECULES: usize = 3;

/// Keeps the draws of this dataset apart from those of others.
const DOMAIN: &str = "equivbench-spice split\0";

/// Divides the frames of an inventory.
///
/// # Errors
/// A split that would be empty.
pub(crate) fn divide(
    inventory: &Inventory,
    settings: &Settings,
    seed: u64,
) -> PluginResult<Splits> {
    let molecules = inventory.molecules.len();
    let by_frame = match settings.split_by {
        SplitBy::Frame => true,
        SplitBy::Molecule => false,
        SplitBy::Auto => molecules < MIN_MOLECULES,
    };
    let units = if by_frame {
        inventory.frames.len()
    } else {
        molecules
    };
    let sizes = sizes(units, by_frame, &settings.options)?;
    let draws = Draws::new(DOMAIN, seed);
    // Molecules in the order of a hash of seed and key: the order of files and of groups in them does not matter.
    let part_of_unit = if by_frame {
        blocks(sizes, units)
    } else {
        groups::parts(&draws.order("molecule", &inventory.molecules), sizes)
    };
    let mut splits: Vec<Split> = NAMES
        .map(|name| Split {
            name,
            frames: Vec::new(),
            groups: 0,
        })
        .into_iter()
        .collect();
    for (i, frame) in inventory.frames.iter().enumerate() {
        let unit = if by_frame { i } else { frame.molecule as usize };
        if let Some(part) = part_of_unit[unit] {
            splits[part].frames.push(i as u32);
        }
    }
    for split in &mut splits {
        draws.shuffle(split.name, &mut split.frames);
    }
    if let Some(keep) = settings.options.max_train_samples {
        splits[0]
            .frames
            .truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }
    splits.retain(|split| !split.frames.is_empty());
    for split in &mut splits {
        split.groups = split
            .frames
            .iter()
            .map(|&f| inventory.frames[f as usize].molecule)
            .collect::<HashSet<_>>()
            .len() as u64;
    }
    Ok(Splits { splits, by_frame })
}

/// Number of molecules or frames in each split; a fraction above 0 gets at least one.
fn sizes(units: usize, by_frame: bool, options: &Options) -> PluginResult<[usize; 3]> {
    let fractions = [
        options.train_fraction,
        options.valid_fraction,
        options.test_fraction,
    ];
    let least = if by_frame { [0, 0] } else { options.least() };
    groups::sizes(units, fractions, least).ok_or_else(|| {
        let what = if by_frame { "conformation(s)" } else { "molecule(s)" };
        let frames = if by_frame { "" } else { ", or divide the frames of the trajectory with split_by = \"frame\"" };
        PluginError::BadRequest(format!(
            "the training split is empty: {units} {what} cannot be divided into {} / {} / {}; give more data, set valid_fraction or test_fraction to 0{frames}",
            options.train_fraction, options.valid_fraction, options.test_fraction
        ))
    })
}

/// Blocks from the front: train, valid, test; what is over between train and valid is left out.
fn blocks([train, valid, test]: [usize; 3], units: usize) -> Vec<Option<usize>> {
    let part = |i: usize| match i {
        i if i < train => Some(0),
        i if i >= units - test => Some(2),
        i if i >= units - test - valid => Some(1),
        _ => None,
    };
    (0..units).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::Frame;

    fn inventory(molecules: u32, frames_each: u64) -> Inventory {
        let frame = |molecule, place| Frame {
            source: 0,
            molecule,
            atoms: 3,
            place,
        };
        let mut inventory = Inventory::default();
        inventory.molecules = (0..molecules).map(|m| format!("molecule {m}")).collect();
        inventory.frames = (0..molecules)
            .flat_map(|m| (0..frames_each).map(move |p| frame(m, p)))
            .collect();
        inventory
    }

    fn split(
        molecules: u32,
        frames_each: u64,
        seed: u64,
        change: fn(&mut Options),
    ) -> PluginResult<Splits> {
        let mut options = Options {
            path: Some("files, which have no least numbers".into()),
            ..Options::default()
        };
        change(&mut options);
        divide(
            &inventory(molecules, frames_each),
            &Settings::new(options).unwrap(),
            seed,
        )
    }

    #[test]
    fn no_molecule_is_in_two_splits_and_nothing_is_lost() {
        let all = inventory(40, 7);
        let splits = split(40, 7, 3, |_| ()).unwrap();
        let molecules = |s: &Split| {
            s.frames
                .iter()
                .map(|&f| all.frames[f as usize].molecule)
                .collect::<HashSet<_>>()
        };
        let sets: Vec<_> = splits.splits.iter().map(molecules).collect();
        assert!(
            sets[0].is_disjoint(&sets[1])
                && sets[0].is_disjoint(&sets[2])
                && sets[1].is_disjoint(&sets[2])
        );
        assert_eq!(
            splits
                .splits
                .iter()
                .map(|s| (s.frames.len(), s.groups))
                .collect::<Vec<_>>(),
            [(252, 36), (14, 2), (14, 2)]
        );
    }

    #[test]
    fn the_seed_and_nothing_else_decides() {
        let a = split(40, 7, 3, |_| ()).unwrap();
        assert_eq!(a, split(40, 7, 3, |_| ()).unwrap());
        assert_ne!(a, split(40, 7, 4, |_| ()).unwrap());
    }

    #[test]
    fn a_single_trajectory_is_cut_into_blocks() {
        let splits = split(1, 100, 1, |_| ()).unwrap();
        assert!(splits.by_frame);
        let sorted = |i: usize| {
            let mut frames = splits.splits[i].frames.clone();
            frames.sort_unstable();
            frames
        };
        assert_eq!(sorted(0), (0..90).collect::<Vec<_>>());
        assert_eq!(sorted(1), (90..95).collect::<Vec<_>>());
        assert_eq!(sorted(2), (95..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_split_says_what_to_do() {
        let message = split(2, 50, 1, |o| o.split_by = "molecule".into())
            .unwrap_err()
            .to_string();
        assert!(
            message.contains("training split is empty: 2 molecule(s)")
                && message.contains("split_by = \"frame\""),
            "{message}"
        );
        assert_eq!(
            split(2, 50, 1, |o| (o.split_by, o.test_fraction) =
                ("molecule".into(), 0.0))
            .unwrap()
            .splits
            .len(),
            2
        );
    }

    #[test]
    fn training_can_be_cut_short_without_moving_the_others() {
        let full = split(40, 7, 3, |_| ()).unwrap();
        let short = split(40, 7, 3, |o| o.max_train_samples = Some(10)).unwrap();
        assert_eq!(short.splits[0].frames, full.splits[0].frames[..10]);
        assert_eq!(short.splits[1..], full.splits[1..]);
    }

    #[test]
    fn least_numbers_count_molecules_and_no_frames() {
        let counts = |molecules, change| {
            let splits = split(molecules, 7, 3, change).unwrap().splits;
            splits.iter().map(|s| s.groups).collect::<Vec<_>>()
        };
        assert_eq!(counts(40, |o| o.min_valid_molecules = Some(9)), [29, 9, 2]);
        assert_eq!(counts(40, |o| o.path = None), [14, 13, 13]);
        assert_eq!(
            split(1, 100, 1, |o| o.path = None).unwrap().splits[2]
                .frames
                .len(),
            5
        );
    }

    #[test]
    fn fractions_below_one_leave_the_rest_out() {
        let splits = split(40, 1, 3, |o| o.train_fraction = 0.5).unwrap();
        assert_eq!(
            splits
                .splits
                .iter()
                .map(|s| s.frames.len())
                .collect::<Vec<_>>(),
            [20, 2, 2]
        );
    }
}
