//! One seed, many named streams: adding a draw to one moves no other.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

/// A random stream of a seed.
pub type Stream = ChaCha8Rng;

/// The seed of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Seed(u64);

impl Seed {
    /// A seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The number it was made from.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The stream of a name: ChaCha8 keyed by `SHA-256(seed ‖ name)`.
    #[must_use]
    pub fn stream(self, name: &str) -> Stream {
        let mut hash = Sha256::new();
        hash.update(self.0.to_le_bytes());
        hash.update(name.as_bytes());
        ChaCha8Rng::from_seed(hash.finalize().into())
    }

    /// The stream of a name and an index, for one sample or one epoch.
    #[must_use]
    pub fn indexed_stream(self, name: &str, index: u64) -> Stream {
        self.stream(&format!("{name}/{index}"))
    }

    /// A number of a name, for a plugin that wants a seed of its own.
    #[must_use]
    pub fn derived(self, name: &str) -> u64 {
        self.stream(name).next_u64()
    }
}

/// A uniform draw from [0, 1) with 53 bits.
pub(crate) fn uniform(stream: &mut impl Rng) -> f64 {
    (stream.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Two standard normal draws (Box and Muller).
pub(crate) fn normal_pair(stream: &mut impl Rng) -> [f64; 2] {
    let radius = (-2.0 * (1.0 - uniform(stream)).ln()).sqrt();
    let (sin, cos) = (std::f64::consts::TAU * uniform(stream)).sin_cos();
    [radius * cos, radius * sin]
}

/// Standard normal numbers.
pub fn normals(stream: &mut impl Rng, count: usize) -> Vec<f64> {
    let pairs = (0..count.div_ceil(2)).flat_map(|_| normal_pair(stream));
    let mut numbers: Vec<f64> = pairs.collect();
    numbers.truncate(count);
    numbers
}

/// A uniform draw from `0..n`, by rejection.
pub(crate) fn below(stream: &mut impl Rng, n: u64) -> u64 {
    assert!(n > 0, "a draw from an empty range");
    let zone = u64::MAX - u64::MAX % n;
    loop {
        let draw = stream.next_u64();
        if draw < zone {
            return draw % n;
        }
    }
}

/// A seeded permutation of `0..n` (Fisher-Yates).
pub(crate) fn permutation(stream: &mut impl Rng, n: usize) -> Vec<u64> {
    let mut order: Vec<u64> = (0..n as u64).collect();
    for i in (1..n).rev() {
        order.swap(i, below(stream, i as u64 + 1) as usize);
    }
    order
}

impl Seed {
    /// A seeded permutation of `0..n`.
    #[must_use]
    pub fn permutation(self, name: &str, n: usize) -> Vec<u64> {
        permutation(&mut self.stream(name), n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_are_different_and_repeat() {
        let seed = Seed::new(3);
        assert_eq!(seed.derived("a"), seed.derived("a"));
        assert_ne!(seed.derived("a"), seed.derived("b"));
        assert_ne!(seed.derived("a"), Seed::new(4).derived("a"));
    }

    #[test]
    fn a_permutation_holds_every_index_once() {
        let mut order = Seed::new(1).permutation("order", 100);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        order.sort_unstable();
        assert_eq!(order, (0..100).collect::<Vec<_>>());
    }
}
