//! How far predictions from shared work are from blind ones.

/// The difference between two ways to the same predictions, over everything that was compared.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Deviation {
    difference: f64,
    power: f64,
    numbers: u64,
    /// Predictions that were compared: samples, each rotation for itself.
    pub predictions: u64,
}

impl Deviation {
    /// Adds predictions of some samples that were made both ways.
    pub fn compare(&mut self, shared: &[f64], blind: &[f64], samples: usize) {
        self.difference += shared
            .iter()
            .zip(blind)
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f64>();
        self.power += blind.iter().map(|b| b * b).sum::<f64>();
        self.numbers += blind.len() as u64;
        self.predictions += samples as u64;
    }

    /// Adds what was compared elsewhere.
    pub fn add(&mut self, other: Self) {
        self.difference += other.difference;
        self.power += other.power;
        self.numbers += other.numbers;
        self.predictions += other.predictions;
    }

    /// Mean square of the difference of a number; `None` where nothing was compared.
    #[must_use]
    pub fn mean_square(&self) -> Option<f64> {
        (self.numbers > 0).then(|| self.difference / self.numbers as f64)
    }

    /// `sqrt(Σ (shared - blind)² / Σ blind²)`; `None` where nothing was compared, 0 where all predictions are 0 both ways.
    #[must_use]
    pub fn relative(&self) -> Option<f64> {
        let ratio = if self.difference == 0.0 {
            0.0
        } else {
            (self.difference / self.power).sqrt()
        };
        (self.predictions > 0).then_some(ratio)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deviation_is_relative_to_the_power_of_everything_compared() {
        let mut deviation = Deviation::default();
        assert_eq!(deviation.relative(), None);
        deviation.compare(&[0.0], &[0.0], 1);
        assert_eq!(deviation.relative(), Some(0.0));
        let mut other = Deviation::default();
        other.compare(&[3.0, 4.3], &[3.0, 4.0], 2);
        deviation.add(other);
        // 0.3 of 5, two roundings of 4.3 - 4.
        assert!((deviation.relative().unwrap() - 0.06).abs() < 1e-15);
        assert_eq!(deviation.predictions, 3);
        // 0.3² over three numbers.
        assert!((deviation.mean_square().unwrap() - 0.03).abs() < 1e-15);
        deviation.compare(&[f64::MIN_POSITIVE], &[0.0], 1);
        assert!(deviation.relative().unwrap().is_finite());
    }
}
