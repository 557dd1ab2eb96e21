//! A confidence interval for a ratio of sums over samples: the studentised bootstrap.
//!
//! Samples are resampled with their rotations, so the interval covers both sources of spread. Of the percentile, BCa and
//! studentised bootstraps and the delta method, the studentised one came closest to its nominal coverage from 16 to 64
//! samples with skewed terms; `interval_coverage` checks it. Studentising the logarithm of the ratio instead changes coverage by
//! 0.2 points at most over 12 to 24 groups whose spread is 0.5 (10,000 repeats), and skill has no logarithm.

use crate::{Stream, seed::below};

/// Lower and upper end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// Which values the quantity can take: where its interval must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// From 0 up, as percents of a loss and losses: the lower end is at least 0.
    NonNegative,
    /// Any number, as skills and differences.
    Real,
}

/// Resamples of one interval; odd, so that quantiles fall on order statistics.
pub(crate) const RESAMPLES: usize = 1999;

/// Samples below which resampling says nothing: most resamples of two or three hold one sample only.
pub(crate) const FEWEST: usize = 5;

/// Interval of `Σ numerator / Σ denominator` over `(numerator, denominator)` pairs, at a level such as 0.95.
///
/// `None` for fewer than five samples or a vanishing denominator; a point when all samples agree. Of samples that come in
/// groups, give the sums of each group ([`crate::sums_by_group`]).
#[must_use]
pub fn studentised_interval(
    pairs: &[(f64, f64)],
    level: f64,
    support: Support,
    stream: &mut Stream,
) -> Option<Interval> {
    if pairs.len() < FEWEST {
        return None;
    }
    let (ratio, spread) = ratio_and_spread(pairs.iter().copied())?;
    if spread == 0.0 {
        return Some(Interval {
            lower: ratio,
            upper: ratio,
        });
    }
    let mut resample = vec![(0.0, 0.0); pairs.len()];
    let mut pivots: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            for pair in &mut resample {
                *pair = pairs[below(stream, pairs.len() as u64) as usize];
            }
            let (r, s) = ratio_and_spread(resample.iter().copied())?;
            // A resample of one repeated sample has no spread; it says nothing about the pivot.
            (s > 0.0).then(|| (r - ratio) / s)
        })
        .collect();
    if pivots.is_empty() {
        return None;
    }
    pivots.sort_by(f64::total_cmp);
    let tail = 0.5 * (1.0 - level);
    let quantile = |q: f64| {
        pivots
            .get(((q * (pivots.len() + 1) as f64) as usize).clamp(1, pivots.len()) - 1)
            .copied()
    };
    let (low, high) = (quantile(tail)?, quantile(1.0 - tail)?);
    let lower = ratio - high * spread;
    Some(Interval {
        lower: match support {
            Support::NonNegative => lower.max(0.0),
            Support::Real => lower,
        },
        upper: ratio - low * spread,
    })
}

/// The ratio and its standard error by linearisation: `s² = n/(n−1) Σ (a − r b)² / (Σ b)²`.
fn ratio_and_spread(pairs: impl Iterator<Item = (f64, f64)> + Clone) -> Option<(f64, f64)> {
    let (a, b, n) = pairs
        .clone()
        .fold((0.0, 0.0, 0.0), |(a, b, n), (x, y)| (a + x, b + y, n + 1.0));
    if b <= 0.0 || !f64::is_finite(a / b) {
        return None;
    }
    let ratio = a / b;
    let squares: f64 = pairs.map(|(x, y)| (x - ratio * y).powi(2)).sum();
    Some((ratio, (n / (n - 1.0) * squares).sqrt() / b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    #[test]
    fn equal_samples_give_a_point_and_four_samples_give_none() {
        let mut stream = Seed::new(0).stream("bootstrap");
        let point =
            studentised_interval(&[(1.0, 4.0); 5], 0.95, Support::Real, &mut stream).unwrap();
        assert_eq!((point.lower, point.upper), (0.25, 0.25));
        assert_eq!(
            studentised_interval(
                &[(1.0, 4.0), (2.0, 3.0), (1.0, 5.0), (0.5, 2.0)],
                0.95,
                Support::Real,
                &mut stream
            ),
            None
        );
    }

    #[test]
    fn an_interval_ends_at_zero_only_where_the_quantity_does() {
        // Around 0.1 with terms of both signs: the interval reaches below 0.
        let pairs: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i % 5) - 1.9, 1.0)).collect();
        let ends = |support| {
            studentised_interval(&pairs, 0.95, support, &mut Seed::new(3).stream("b")).unwrap()
        };
        let (real, clamped) = (ends(Support::Real), ends(Support::NonNegative));
        assert!(real.lower < 0.0, "{real:?}");
        assert_eq!((clamped.lower, clamped.upper), (0.0, real.upper));
    }

    #[test]
    fn the_interval_repeats_with_its_stream() {
        let pairs: Vec<(f64, f64)> = (1..20)
            .map(|i| (f64::from(i % 7), 10.0 + f64::from(i % 3)))
            .collect();
        let one = studentised_interval(&pairs, 0.95, Support::Real, &mut Seed::new(3).stream("b"));
        assert_eq!(
            one,
            studentised_interval(&pairs, 0.95, Support::Real, &mut Seed::new(3).stream("b"))
        );
        assert!(one.unwrap().lower < one.unwrap().upper);
    }
}
