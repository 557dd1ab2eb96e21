//! Random draws of the generator: one ChaCha stream for each family and each chain.

use crate::geometry::{Point, Turn, unit};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{f64::consts::TAU, ops::RangeInclusive};

pub(crate) struct RandomStream(ChaCha8Rng);

impl RandomStream {
    /// The stream with this number; streams of one seed do not overlap.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self(rng)
    }

    /// Uniform on [0, 1), 53 bits.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform on -1 to 1.
    pub(crate) fn signed(&mut self) -> f64 {
        2.0 * self.uniform() - 1.0
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// A whole number of the range; the bias of the multiplication is below 1e-15.
    pub(crate) fn within(&mut self, range: RangeInclusive<usize>) -> usize {
        let count = range.end() - range.start() + 1;
        range.start() + (self.uniform() * count as f64) as usize
    }

    /// A standard normal draw (Box and Muller).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * libm::log(1.0 - self.uniform())).sqrt();
        radius * libm::cos(TAU * self.uniform())
    }

    /// An index, drawn with these weights.
    pub(crate) fn weighted(&mut self, weights: impl Iterator<Item = f64> + Clone) -> usize {
        let mut left = self.uniform() * weights.clone().sum::<f64>();
        let mut last = 0;
        for (i, weight) in weights.enumerate() {
            last = i;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
        last
    }

    /// A direction, uniform on the sphere.
    pub(crate) fn direction(&mut self) -> Point {
        unit([self.normal(), self.normal(), self.normal()])
    }

    /// A rotation, uniform on SO(3): a quaternion uniform on the sphere.
    pub(crate) fn rotation(&mut self) -> Turn {
        Turn::of_quaternion([self.normal(), self.normal(), self.normal(), self.normal()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_draws_have_mean_zero_and_variance_one() {
        let mut draws = RandomStream::new(1, 2);
        let n = 40_000;
        let x: Vec<f64> = (0..n).map(|_| draws.normal()).collect();
        let mean = x.iter().sum::<f64>() / f64::from(n);
        let variance = x.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        assert!(
            mean.abs() < 4.0 / f64::from(n).sqrt(),
            "{mean}: four standard errors"
        );
        assert!(
            (variance - 1.0).abs() < 4.0 * (2.0 / f64::from(n)).sqrt(),
            "{variance}: four standard errors"
        );
    }

    #[test]
    fn weights_are_relative_frequencies() {
        let mut draws = RandomStream::new(3, 0);
        let hits = (0..10_000)
            .filter(|_| draws.weighted([1.0, 3.0].into_iter()) == 1)
            .count() as f64;
        assert!(
            (hits / 10_000.0 - 0.75).abs() < 4.0 * (0.75f64 * 0.25 / 10_000.0).sqrt(),
            "{hits}: four standard errors"
        );
    }
}
