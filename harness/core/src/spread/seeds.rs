//! What an architecture is worth: the mean over seeds of training, with an interval that says how well three or five seeds know it.
//!
//! Percents and losses of one recipe vary by factors over seeds, so everything happens in logarithms. Student's t, and no
//! bootstrap over seeds: that covers 77, 88 and 92% at 3, 5 and 10 seeds.

use super::student;

/// Mean and spread of the logarithm over seeds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogMean {
    /// Number of values.
    pub n: usize,
    /// `(1/n) Σ ln p_s`.
    pub mean: f64,
    /// `s = √(Σ (ln p_s − mean)² / (n − 1))`; `None` for one value, whose spread is not known.
    pub sd: Option<f64>,
}

impl LogMean {
    /// Of positive values; `None` where there are none, or where one is not positive and finite (values at the floor
    /// of rounding are [`crate::Censored`]).
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() || !values.iter().all(|&v| v > 0.0 && v.is_finite()) {
            return None;
        }
        let n = values.len();
        let mean = values.iter().map(|v| v.ln()).sum::<f64>() / n as f64;
        let squares: f64 = values.iter().map(|v| (v.ln() - mean).powi(2)).sum();
        Some(Self {
            n,
            mean,
            sd: (n > 1).then(|| (squares / (n - 1) as f64).sqrt()),
        })
    }

    /// `exp(mean)`.
    #[must_use]
    pub fn geometric_mean(&self) -> f64 {
        self.mean.exp()
    }

    /// The squared standard error of the mean, `s²/n`, with its `n − 1` degrees of freedom.
    pub(super) fn variance_of_mean(&self) -> Option<(f64, f64)> {
        let variance = self.sd?.powi(2) / self.n as f64;
        Some((variance, (self.n - 1) as f64))
    }
}

/// What the choice of the measured samples adds to the variance of a mean logarithm.
///
/// All seeds are measured on the same samples, so their spread does not show it: see [`crate::mean_log_variance`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// `se²` from groups of samples: of the logarithm, of the quantity itself where it may be negative.
    pub variance: f64,
    /// Number of groups that it was estimated from, at least 2: `groups − 1` degrees of freedom.
    pub groups: usize,
}

impl Sampling {
    /// Variance and degrees of freedom.
    pub(super) fn part(self) -> (f64, f64) {
        (self.variance, (self.groups.max(2) - 1) as f64)
    }
}

/// Where the geometric mean over all seeds lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeedInterval {
    /// Lower end, in the unit of the values.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Degrees of freedom of the t quantile.
    pub df: f64,
}

/// The t-interval of the mean logarithm over seeds, at a level such as 0.95:
/// `exp(mean ± t_df √(s²/S + se²_groups))`, degrees of freedom by Satterthwaite.
///
/// Without `sampling` it is an interval *given this measured set*, with `S − 1` degrees of freedom. `None` for fewer than two
/// values or one that is not positive.
///
/// ```
/// # use equivbench_core::seed_interval;
/// // Final percents of six seeds: a factor of 2.9 between the smallest and the largest.
/// let i = seed_interval(&[1.23, 2.12, 1.81, 1.49, 0.74, 1.98], 0.95, None).unwrap();
/// assert!(i.lower > 0.9 && i.lower < 1.1 && i.upper > 2.1 && i.upper < 2.3, "{i:?}");
/// ```
#[must_use]
pub fn seed_interval(
    values: &[f64],
    level: f64,
    sampling: Option<Sampling>,
) -> Option<SeedInterval> {
    LogMean::of(values)?;
    let logs: Vec<f64> = values.iter().map(|v| v.ln()).collect();
    let (interval, _) = mean_interval(&logs, level, sampling)?;
    Some(SeedInterval {
        lower: interval.lower.exp(),
        upper: interval.upper.exp(),
        ..interval
    })
}

/// The interval of the arithmetic mean of a quantity that may be negative, `mean ± t √(s²/S + se²)`, and `s`. Of fewer than two values
/// nothing is known; without the part of the samples it is "given this measured set".
#[must_use]
pub fn mean_interval(
    values: &[f64],
    level: f64,
    sampling: Option<Sampling>,
) -> Option<(SeedInterval, f64)> {
    let n = values.len() as f64;
    if values.len() < 2 || !values.iter().all(|v| v.is_finite()) {
        return None;
    }
    let mean = values.iter().sum::<f64>() / n;
    let sd = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt();
    let mut parts = vec![(sd * sd / n, n - 1.0)];
    parts.extend(sampling.map(Sampling::part));
    let df = student::satterthwaite(&parts);
    let variance: f64 = parts.iter().map(|p| p.0).sum();
    let reach = student::quantile(0.5 * (1.0 + level), df) * variance.sqrt();
    let interval = SeedInterval {
        lower: mean - reach,
        upper: mean + reach,
        df,
    };
    Some((interval, sd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_of_logarithms_is_that_of_a_geometric_series() {
        let logs = LogMean::of(&[1.0, 10.0, 100.0]).unwrap();
        assert!((logs.geometric_mean() - 10.0).abs() < 1e-13);
        assert!((logs.sd.unwrap() - 10.0_f64.ln()).abs() < 1e-14);
        assert_eq!(LogMean::of(&[2.0]).unwrap().sd, None);
        for none in [
            &[][..],
            &[1.0, 0.0],
            &[1.0, -1.0],
            &[f64::NAN],
            &[f64::INFINITY],
        ] {
            assert_eq!(LogMean::of(none), None);
        }
    }

    #[test]
    fn three_seeds_get_the_tabulated_quantile_of_two_degrees_of_freedom() {
        let e = std::f64::consts::E;
        // Logarithms −1, 0, 1: s = 1, and t_0.975 with 2 degrees of freedom is 4.30265273 in every table.
        let i = seed_interval(&[1.0 / e, 1.0, e], 0.95, None).unwrap();
        let reach = 4.302_652_729_749_46 / 3.0_f64.sqrt();
        assert!((i.upper.ln() - reach).abs() < 1e-9 && (i.lower.ln() + reach).abs() < 1e-9);
        assert_eq!(i.df, 2.0);
        assert_eq!(seed_interval(&[1.0], 0.95, None), None);
    }

    #[test]
    fn the_part_of_the_samples_adds_variance_and_degrees_of_freedom() {
        let e = std::f64::consts::E;
        let sampling = Sampling {
            variance: 1.0 / 3.0,
            groups: 3,
        };
        // Two equal variances of 1/3 with two degrees of freedom each: 2/3 with four; t_0.975 is 2.77644511.
        let i = seed_interval(&[1.0 / e, 1.0, e], 0.95, Some(sampling)).unwrap();
        assert!((i.df - 4.0).abs() < 1e-12);
        assert!((i.upper.ln() - 2.776_445_105_197_93 * (2.0_f64 / 3.0).sqrt()).abs() < 1e-9);
    }

    #[test]
    fn equal_seeds_leave_the_part_of_the_samples() {
        let sampling = Sampling {
            variance: 0.01,
            groups: 20,
        };
        let i = seed_interval(&[2.0; 3], 0.95, Some(sampling)).unwrap();
        assert_eq!(i.df, 19.0);
        assert!(i.lower < 2.0 && i.upper > 2.0);
        let point = seed_interval(&[2.0; 3], 0.95, None).unwrap();
        assert!((point.lower - 2.0).abs() < 1e-15 && (point.upper - 2.0).abs() < 1e-15);
    }

    #[test]
    fn the_interval_of_a_mean_is_students() {
        // t_0.975 with 2 degrees of freedom is 4.30265273; s = 1.
        let (interval, sd) = mean_interval(&[-1.0, 0.0, 1.0], 0.95, None).unwrap();
        assert!((sd - 1.0).abs() < 1e-15);
        assert!((interval.upper - 4.302_652_729_749_46 / 3.0_f64.sqrt()).abs() < 1e-9);
        assert_eq!(interval.lower, -interval.upper);
        assert_eq!(mean_interval(&[1.0], 0.95, None), None);
        // Two equal variances of 1/3 with two degrees of freedom each.
        let sampling = Sampling {
            variance: 1.0 / 3.0,
            groups: 3,
        };
        let (wider, _) = mean_interval(&[-1.0, 0.0, 1.0], 0.95, Some(sampling)).unwrap();
        assert!((wider.df - 4.0).abs() < 1e-12);
        assert!((wider.upper - 2.776_445_105_197_93 * (2.0_f64 / 3.0).sqrt()).abs() < 1e-9);
    }
}
