//! Splits: whole molecules by a seeded hash order, or contiguous blocks of a trajectory; then a seeded order inside each split.

use crate::{
    catalogue::Catalogue,
    options::{Options, Settings, SplitBy},
};
use equivbench_plugin::{PluginError, PluginResult};
use sha2::{Digest, Sha256};
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

/// Divides the frames of a catalogue.
///
/// # Errors
/// A split that would be empty.
pub(crate) fn divide(catalogue: &Catalogue, settings: &Settings, seed: u64) -> PluginResult<Splits> {
    let molecules = catalogue.molecules.len();
    let by_frame = match settings.split_by {
        SplitBy::Frame => true,
        SplitBy::Molecule => false,
        SplitBy::Auto => molecules < MIN_MOLECULES,
    };
    let units = if by_frame { catalogue.frames.len() } else { molecules };
    let [train, valid, test] = sizes(units, by_frame, &settings.options)?;
    let part_of_unit =
        if by_frame { blocks(train, valid, test, units) } else { shuffled_parts(&catalogue.molecules, train, valid, test, seed) };
    let mut splits: Vec<Split> = ["train", "valid", "test"].map(|name| Split { name, frames: Vec::new(), groups: 0 }).into_iter().collect();
    for (i, frame) in catalogue.frames.iter().enumerate() {
        let unit = if by_frame { i } else { frame.molecule as usize };
        if let Some(part) = part_of_unit[unit] {
            splits[part].frames.push(i as u32);
        }
    }
    for split in &mut splits {
        shuffle(&mut split.frames, stream(seed, split.name));
    }
    if let Some(keep) = settings.options.max_train_samples {
        splits[0].frames.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
    }
    splits.retain(|split| !split.frames.is_empty());
    for split in &mut splits {
        split.groups = split.frames.iter().map(|&f| catalogue.frames[f as usize].molecule).collect::<HashSet<_>>().len() as u64;
    }
    Ok(Splits { splits, by_frame })
}

/// Number of molecules or frames in each split; a fraction above 0 gets at least one.
fn sizes(units: usize, by_frame: bool, options: &Options) -> PluginResult<[usize; 3]> {
    let part = |fraction: f64| if fraction == 0.0 { 0 } else { ((units as f64 * fraction).round() as usize).max(1) };
    let (valid, test) = (part(options.valid_fraction), part(options.test_fraction));
    let left = units.saturating_sub(valid + test);
    let rest = 1.0 - options.train_fraction - options.valid_fraction - options.test_fraction;
    // Fractions that sum to 1 leave nothing over, whatever the rounding.
    let train = if rest.abs() < 1e-9 { left } else { part(options.train_fraction).min(left) };
    if train == 0 {
        let what = if by_frame { "conformation(s)" } else { "molecule(s)" };
        let frames = if by_frame { "" } else { ", or divide the frames of the trajectory with split_by = \"frame\"" };
        return Err(PluginError::BadRequest(format!(
            "the training split is empty: {units} {what} cannot be divided into {} / {} / {}; give more data, set valid_fraction or test_fraction to 0{frames}",
            options.train_fraction, options.valid_fraction, options.test_fraction
        )));
    }
    Ok([train, valid, test])
}

/// Blocks from the front: train, valid, test; what is over between train and valid is left out.
fn blocks(train: usize, valid: usize, test: usize, units: usize) -> Vec<Option<usize>> {
    let part = |i: usize| match i {
        i if i < train => Some(0),
        i if i >= units - test => Some(2),
        i if i >= units - test - valid => Some(1),
        _ => None,
    };
    (0..units).map(part).collect()
}

/// Molecules ordered by a hash of seed and key: the order of files and of groups in them does not matter.
fn shuffled_parts(keys: &[String], train: usize, valid: usize, test: usize, seed: u64) -> Vec<Option<usize>> {
    let mut order: Vec<(u64, usize)> = keys.iter().enumerate().map(|(i, key)| (stream(seed, &format!("molecule {key}")), i)).collect();
    order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| keys[a.1].cmp(&keys[b.1])));
    let mut parts = vec![None; keys.len()];
    let labels = std::iter::repeat_n(2, test).chain(std::iter::repeat_n(1, valid)).chain(std::iter::repeat_n(0, train));
    for ((_, molecule), part) in order.into_iter().zip(labels) {
        parts[molecule] = Some(part);
    }
    parts
}

/// A number that depends on the seed and a name only.
fn stream(seed: u64, name: &str) -> u64 {
    let digest = Sha256::new().chain_update(b"equivbench-spice split\0").chain_update(seed.to_le_bytes()).chain_update(name).finalize();
    u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
}

/// Fisher-Yates with SplitMix64; the bias of the modulo is below 2^-32 for any size that fits here.
fn shuffle(items: &mut [u32], mut state: u64) {
    for i in (1..items.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        items.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Frame;

    fn catalogue(molecules: u32, frames_each: u64) -> Catalogue {
        let frame = |molecule, place| Frame { source: 0, molecule, atoms: 3, place };
        let mut catalogue = Catalogue::default();
        catalogue.molecules = (0..molecules).map(|m| format!("molecule {m}")).collect();
        catalogue.frames = (0..molecules).flat_map(|m| (0..frames_each).map(move |p| frame(m, p))).collect();
        catalogue
    }

    fn split(molecules: u32, frames_each: u64, seed: u64, change: fn(&mut Options)) -> PluginResult<Splits> {
        let mut options = Options::default();
        change(&mut options);
        divide(&catalogue(molecules, frames_each), &Settings::new(options).unwrap(), seed)
    }

    #[test]
    fn no_molecule_is_in_two_splits_and_nothing_is_lost() {
        let all = catalogue(40, 7);
        let splits = split(40, 7, 3, |_| ()).unwrap();
        let molecules = |s: &Split| s.frames.iter().map(|&f| all.frames[f as usize].molecule).collect::<HashSet<_>>();
        let sets: Vec<_> = splits.splits.iter().map(molecules).collect();
        assert!(sets[0].is_disjoint(&sets[1]) && sets[0].is_disjoint(&sets[2]) && sets[1].is_disjoint(&sets[2]));
        assert_eq!(splits.splits.iter().map(|s| (s.frames.len(), s.groups)).collect::<Vec<_>>(), [(252, 36), (14, 2), (14, 2)]);
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
        let message = split(2, 50, 1, |o| o.split_by = "molecule".into()).unwrap_err().to_string();
        assert!(message.contains("training split is empty: 2 molecule(s)") && message.contains("split_by = \"frame\""), "{message}");
        assert_eq!(split(2, 50, 1, |o| (o.split_by, o.test_fraction) = ("molecule".into(), 0.0)).unwrap().splits.len(), 2);
    }

    #[test]
    fn training_can_be_cut_short_without_moving_the_others() {
        let full = split(40, 7, 3, |_| ()).unwrap();
        let short = split(40, 7, 3, |o| o.max_train_samples = Some(10)).unwrap();
        assert_eq!(short.splits[0].frames, full.splits[0].frames[..10]);
        assert_eq!(short.splits[1..], full.splits[1..]);
    }

    #[test]
    fn fractions_below_one_leave_the_rest_out() {
        let splits = split(40, 1, 3, |o| o.train_fraction = 0.5).unwrap();
        assert_eq!(splits.splits.iter().map(|s| s.frames.len()).collect::<Vec<_>>(), [20, 2, 2]);
    }
}
