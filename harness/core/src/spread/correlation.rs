//! Pearson's correlation and its interval.

use crate::Interval;
use statrs::distribution::{ContinuousCDF, Normal};

/// A correlation over some points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correlation {
    /// Pearson's R.
    pub r: f64,
    /// Fisher's interval, `tanh(artanh R ± z / √(n − 3))`: of points that are independent of each other. `None` for fewer than four points,
    /// and where all lie on a line.
    pub interval: Option<Interval>,
    /// Points.
    pub points: usize,
}

/// Pearson's R of pairs; `None` for fewer than three, and where one of the two does not vary.
#[must_use]
pub fn correlation(pairs: &[(f64, f64)], level: f64) -> Option<Correlation> {
    let n = pairs.len();
    if n < 3 {
        return None;
    }
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n as f64;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let sum =
        |of: &dyn Fn(f64, f64) -> f64| -> f64 { pairs.iter().map(|p| of(p.0 - x, p.1 - y)).sum() };
    let (xx, yy, xy) = (sum(&|a, _| a * a), sum(&|_, b| b * b), sum(&|a, b| a * b));
    if xx <= 0.0 || yy <= 0.0 {
        return None;
    }
    let r = (xy / (xx.sqrt() * yy.sqrt())).clamp(-1.0, 1.0);
    let z = Normal::standard().inverse_cdf(0.5 * (1.0 + level));
    let reach = (n > 3 && r.abs() < 1.0).then(|| z / (n as f64 - 3.0).sqrt());
    Some(Correlation {
        r,
        interval: reach.map(|reach| Interval {
            lower: (r.atanh() - reach).tanh(),
            upper: (r.atanh() + reach).tanh(),
        }),
        points: n,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seed, seed::normal_pair};

    #[test]
    fn points_of_a_line_and_of_a_square_have_known_correlations() {
        let line: Vec<(f64, f64)> = (0..5)
            .map(|i| (f64::from(i), 3.0 - 2.0 * f64::from(i)))
            .collect();
        let found = correlation(&line, 0.95).unwrap();
        assert!((found.r + 1.0).abs() < 1e-15);
        let square = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)];
        assert_eq!(correlation(&square, 0.95).unwrap().r, 0.0);
        // 1, 2, 3 against 1, 3, 2: 1 / 2.
        let half = correlation(&[(1.0, 1.0), (2.0, 3.0), (3.0, 2.0)], 0.95).unwrap();
        assert!((half.r - 0.5).abs() < 1e-15);
        assert_eq!(half.interval, None);
        assert_eq!(
            correlation(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)], 0.95),
            None
        );
        assert_eq!(correlation(&line[..2], 0.95), None);
    }

    #[test]
    fn fishers_interval_covers_the_correlation_of_normal_pairs() {
        let mut stream = Seed::new(4).stream("correlated pairs");
        let (truth, repeats) = (0.6_f64, 2000);
        let mut covered = 0;
        for _ in 0..repeats {
            let pairs: Vec<(f64, f64)> = (0..12)
                .map(|_| {
                    let [a, b] = normal_pair(&mut stream);
                    (a, truth * a + (1.0 - truth * truth).sqrt() * b)
                })
                .collect();
            let interval = correlation(&pairs, 0.95).unwrap().interval.unwrap();
            covered += u32::from((interval.lower..=interval.upper).contains(&truth));
        }
        let share = f64::from(covered) / f64::from(repeats);
        // 95% nominal; three standard errors of 2,000 repeats are 1.5 points.
        assert!((share - 0.95).abs() < 0.015, "{share}");
    }
}
