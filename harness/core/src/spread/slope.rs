//! The slope of a line through points, with its interval.

use super::student::quantile;
use crate::Interval;

/// A line by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Slope {
    /// The slope.
    pub slope: f64,
    /// Student's interval of the slope, `n − 2` degrees of freedom; `None` for two points.
    pub interval: Option<Interval>,
    /// Points.
    pub points: usize,
}

/// The line through pairs `(x, y)` by least squares; `None` for fewer than two, and where `x` does not vary.
#[must_use]
pub fn slope(pairs: &[(f64, f64)], level: f64) -> Option<Slope> {
    let n = pairs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| pairs.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let xx: f64 = pairs.iter().map(|p| (p.0 - x).powi(2)).sum();
    if pairs.len() < 2 || xx <= 0.0 {
        return None;
    }
    let slope = pairs.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / xx;
    let rest = pairs.iter().map(|p| (p.1 - y - slope * (p.0 - x)).powi(2));
    let rest: f64 = rest.sum();
    let interval = (pairs.len() > 2).then(|| {
        let reach = quantile(0.5 * (1.0 + level), n - 2.0) * (rest / (n - 2.0) / xx).sqrt();
        Interval {
            lower: slope - reach,
            upper: slope + reach,
        }
    });
    Some(Slope {
        slope,
        interval,
        points: pairs.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_and_its_interval_are_those_of_a_textbook() {
        // x = 1..5, y = 1, 2, 1.3, 3.75, 2.25: slope 0.425, residual sum of squares 2.791, standard error 0.305, t(3) = 3.182.
        let pairs = [(1.0, 1.0), (2.0, 2.0), (3.0, 1.3), (4.0, 3.75), (5.0, 2.25)];
        let found = slope(&pairs, 0.95).unwrap();
        assert!((found.slope - 0.425).abs() < 1e-12);
        let interval = found.interval.unwrap();
        // The standard error to four digits: √(2.79075 / 3 / 10) = 0.30500.
        assert!((interval.upper - 0.425 - 3.182_446 * 0.304_999).abs() < 1e-4);
        assert!((interval.upper + interval.lower - 0.85).abs() < 1e-12);
        assert_eq!(slope(&pairs[..1], 0.95), None);
        assert_eq!(slope(&pairs[..2], 0.95).unwrap().interval, None);
    }
}
