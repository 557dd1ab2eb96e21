//! Splits by group: a seeded order of groups that other groups do not move, numbers of groups for fractions, seeded shuffles.

use sha2::{Digest, Sha256};

/// Names of the splits in the order of every table.
pub const NAMES: [&str; 3] = ["train", "valid", "test"];

/// Draws that depend on a dataset's domain, the seed and a name only.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    domain: &'static str,
    seed: u64,
}

impl Draws {
    /// Draws of one dataset: the domain keeps them apart from those of other datasets, for example `equivbench-spice split\0`.
    #[must_use]
    pub const fn new(domain: &'static str, seed: u64) -> Self {
        Self { domain, seed }
    }

    /// The number of a name.
    #[must_use]
    pub fn number(&self, name: &str) -> u64 {
        let digest = Sha256::new()
            .chain_update(self.domain)
            .chain_update(self.seed.to_le_bytes())
            .chain_update(name)
            .finalize();
        u64::from_le_bytes(std::array::from_fn(|i| digest[i]))
    }

    /// Indices of the keys, ordered by the number of `kind` and key: neither the order of the keys nor a further key moves two of them
    /// against each other.
    #[must_use]
    pub fn order(&self, kind: &str, keys: &[String]) -> Vec<usize> {
        let mut order: Vec<(u64, usize)> = keys
            .iter()
            .enumerate()
            .map(|(i, key)| (self.number(&format!("{kind} {key}")), i))
            .collect();
        order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| keys[a.1].cmp(&keys[b.1])));
        order.into_iter().map(|(_, i)| i).collect()
    }

    /// Puts items into an order that the seed, the name and their number decide: Fisher-Yates with SplitMix64, whose modulo has a bias
    /// below 2^-32 for any number of items that fits here.
    pub fn shuffle(&self, name: &str, items: &mut [u32]) {
        let mut state = self.number(name);
        for i in (1..items.len()).rev() {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            items.swap(i, ((z ^ (z >> 31)) % (i as u64 + 1)) as usize);
        }
    }
}

/// For each group its split (0 train, 1 valid, 2 test), taken from the front of an order: first test, then valid, then train. Groups
/// beyond these have none.
///
/// # Panics
/// If the order names a group that is not one of `order.len()`.
#[must_use]
pub fn parts(order: &[usize], [train, valid, test]: [usize; 3]) -> Vec<Option<usize>> {
    let mut parts = vec![None; order.len()];
    let labels = std::iter::repeat_n(2, test)
        .chain(std::iter::repeat_n(1, valid))
        .chain(std::iter::repeat_n(0, train));
    for (&group, part) in order.iter().zip(labels) {
        parts[group] = Some(part);
    }
    parts
}

/// Number of groups for a fraction, rounded; a fraction above 0 gets at least one.
#[must_use]
pub fn part(groups: usize, fraction: f64) -> usize {
    if fraction == 0.0 {
        0
    } else {
        ((groups as f64 * fraction).round() as usize).max(1)
    }
}

/// Groups of valid and of test in an embedded sample: from 64 on, intervals over groups cover what they say.
pub const HELD_OUT: u64 = 64;

/// Least numbers of groups in valid and test: those asked for, else [`HELD_OUT`] for an embedded sample and none for files, where the
/// fraction decides.
#[must_use]
pub fn least_groups(asked: [Option<u64>; 2], is_embedded: bool) -> [u64; 2] {
    let usual = if is_embedded { HELD_OUT } else { 0 };
    asked.map(|least| least.unwrap_or(usual))
}

/// A number of groups, or so many at least, as long as that is no more than one part in `most` of all.
#[must_use]
pub fn at_least(own: usize, least: u64, groups: usize, most: usize) -> usize {
    own.max(
        usize::try_from(least)
            .unwrap_or(usize::MAX)
            .min(groups / most),
    )
}

/// A split takes no more than this share of the groups to reach its least number.
const MOST: usize = 3;

/// Numbers of groups in train, valid and test: valid and test have their fraction, and at least so many as long as that is no more than a
/// third of all; a split of fraction 0 is empty. Fractions that sum to 1 leave nothing over, whatever the rounding. `None` if nothing is
/// left to train on.
#[must_use]
pub fn sizes(
    groups: usize,
    [train, valid, test]: [f64; 3],
    [least_valid, least_test]: [u64; 2],
) -> Option<[usize; 3]> {
    let rest = 1.0 - train - valid - test;
    let held_out = |fraction: f64, least: u64| match part(groups, fraction) {
        0 => 0,
        own => at_least(own, least, groups, MOST),
    };
    let (valid, test) = (held_out(valid, least_valid), held_out(test, least_test));
    let left = groups.saturating_sub(valid + test);
    // Room for the rounding of three decimal fractions.
    let train = if rest.abs() < 1e-9 {
        left
    } else {
        part(groups, train).min(left)
    };
    (train > 0).then_some([train, valid, test])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const DRAWS: Draws = Draws::new("test\0", 7);

    fn keys(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("key {i}")).collect()
    }

    /// The number is the head of SHA-256 of domain, seed (8 bytes, little-endian) and name: checked against `sha256sum`.
    #[test]
    fn numbers_are_what_sha256sum_says() {
        assert_eq!(
            DRAWS.number("abc").to_le_bytes(),
            [0xca, 0x88, 0x81, 0xe6, 0xf5, 0xd7, 0x46, 0xe2]
        );
    }

    #[test]
    fn a_further_key_moves_no_two_others() {
        let (few, many) = (DRAWS.order("key", &keys(50)), DRAWS.order("key", &keys(51)));
        assert_eq!(
            few,
            many.into_iter().filter(|&i| i < 50).collect::<Vec<_>>()
        );
        assert_ne!(few, Draws::new("test\0", 8).order("key", &keys(50)));
        assert_ne!(few, Draws::new("other\0", 7).order("key", &keys(50)));
    }

    #[test]
    fn a_shuffle_keeps_everything_and_follows_seed_and_name() {
        let shuffled = |draws: Draws, name: &str| {
            let mut items: Vec<u32> = (0..1000).collect();
            draws.shuffle(name, &mut items);
            items
        };
        let items = shuffled(DRAWS, "train");
        assert_eq!(items.iter().collect::<HashSet<_>>().len(), 1000);
        assert_eq!(items, shuffled(DRAWS, "train"));
        assert_ne!(items, shuffled(DRAWS, "valid"));
        assert_ne!(items, shuffled(Draws::new("test\0", 8), "train"));
    }

    #[test]
    fn fractions_are_rounded_and_never_to_nothing() {
        let none = [0, 0];
        assert_eq!(sizes(40, [0.9, 0.05, 0.05], none), Some([36, 2, 2]));
        assert_eq!(sizes(3, [0.9, 0.05, 0.05], none), Some([1, 1, 1]));
        assert_eq!(sizes(2, [0.9, 0.05, 0.05], none), None);
        assert_eq!(sizes(40, [0.5, 0.05, 0.05], none), Some([20, 2, 2]));
        assert_eq!(sizes(1, [1.0, 0.0, 0.0], none), Some([1, 0, 0]));
    }

    #[test]
    fn a_least_number_takes_from_training_up_to_a_third_of_all() {
        let usual = [0.9, 0.05, 0.05];
        assert_eq!(sizes(694, usual, [64, 64]), Some([566, 64, 64]));
        assert_eq!(sizes(40, usual, [64, 8]), Some([19, 13, 8]));
        assert_eq!(sizes(3, usual, [64, 64]), Some([1, 1, 1]));
        assert_eq!(sizes(40, [0.9, 0.1, 0.0], [5, 64]), Some([35, 5, 0]));
        // The fraction goes first where it is more, and what is left out stays out while there is room.
        assert_eq!(sizes(100, [0.5, 0.2, 0.1], [4, 12]), Some([50, 20, 12]));
        assert_eq!(sizes(100, [0.9, 0.05, 0.0], [40, 0]), Some([67, 33, 0]));
    }

    #[test]
    fn parts_are_taken_from_the_front_of_the_order() {
        assert_eq!(
            parts(&[3, 1, 0, 2], [1, 1, 1]),
            [Some(0), Some(1), None, Some(2)]
        );
    }
}
