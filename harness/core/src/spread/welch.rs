//! Whether two architectures differ: the difference of mean logarithms over seeds, by Welch's t.

use super::{FEWEST_SEEDS, LogMean, Sampling, student};
use crate::Interval;

/// Why two sets of seeds are not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoVerdict {
    /// A side has fewer seeds than [`FEWEST_SEEDS`]: its spread is hardly known.
    #[error("no verdict from fewer than {FEWEST_SEEDS} seeds a side")]
    TooFewSeeds,
    /// A value has no logarithm: not a number, infinite, or 0 and not given as censored.
    #[error("no verdict: a value is not positive and finite")]
    NotPositive,
    /// Both sides have seeds at the floor of rounding.
    #[error("no verdict: both sides have seeds at the floor of rounding")]
    BothAtFloor,
}

/// How far two architectures are apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogDifference {
    /// `d = mean_s ln p_A − mean_s ln p_B`.
    pub log_ratio: f64,
    /// `√(s_A²/S_A + s_B²/S_B + se²_groups)`.
    pub standard_error: f64,
    /// Degrees of freedom of that, by Welch and Satterthwaite.
    pub df: f64,
    /// Interval of the ratio of geometric means, `exp(d ± t_df se)`.
    pub ratio: Interval,
    /// Two-sided p value of `d = 0`.
    pub p_value: f64,
}

/// The difference of two sets of seeds in mean logarithm, at a level such as 0.95.
///
/// `sampling` is the variance of the *difference* that comes from the choice of the measured groups: paired where both were
/// measured on the same ones ([`crate::paired_log_variance`]), else the sum of two. Without it the difference is *given this
/// measured set*.
///
/// # Errors
/// Fewer than three seeds a side, or a value that is not positive and finite: see [`super::floor::compare`] for values at the
/// floor.
///
/// ```
/// # use equivbench_core::{NoVerdict, log_difference};
/// let d = log_difference(&[2.0, 2.2, 1.8], &[1.0, 1.1, 0.9], 0.95, None).unwrap();
/// assert!((d.log_ratio.exp() - 2.0).abs() < 1e-12 && d.ratio.lower > 1.0 && d.p_value < 0.05);
/// let two = log_difference(&[2.0, 2.2], &[1.0, 1.1, 0.9], 0.95, None);
/// assert_eq!(two, Err(NoVerdict::TooFewSeeds));
/// ```
pub fn log_difference(
    a: &[f64],
    b: &[f64],
    level: f64,
    sampling: Option<Sampling>,
) -> Result<LogDifference, NoVerdict> {
    let (log_ratio, standard_error, df) = difference(a, b, sampling)?;
    let reach = student::quantile(0.5 * (1.0 + level), df) * standard_error;
    Ok(LogDifference {
        log_ratio,
        standard_error,
        df,
        ratio: Interval {
            lower: (log_ratio - reach).exp(),
            upper: (log_ratio + reach).exp(),
        },
        p_value: match (log_ratio, standard_error) {
            (0.0, 0.0) => 1.0,
            (d, se) => student::two_sided_p(d / se, df),
        },
    })
}

/// Difference of mean logarithms, its standard error and the degrees of freedom of that.
pub(super) fn difference(
    a: &[f64],
    b: &[f64],
    sampling: Option<Sampling>,
) -> Result<(f64, f64, f64), NoVerdict> {
    if a.len().min(b.len()) < FEWEST_SEEDS {
        return Err(NoVerdict::TooFewSeeds);
    }
    let of = |values| {
        let logs = LogMean::of(values)?;
        Some((logs.mean, logs.variance_of_mean()?))
    };
    let (mean_a, part_a) = of(a).ok_or(NoVerdict::NotPositive)?;
    let (mean_b, part_b) = of(b).ok_or(NoVerdict::NotPositive)?;
    let mut parts = vec![part_a, part_b];
    parts.extend(sampling.map(Sampling::part));
    let variance: f64 = parts.iter().map(|p| p.0).sum();
    Ok((
        mean_a - mean_b,
        variance.sqrt(),
        student::satterthwaite(&parts),
    ))
}

/// Seeds above which Student's t is the normal distribution for every purpose: quantiles agree to 1e-5.
const MANY: f64 = 1e5;

/// How many seeds a side tell a factor between two geometric means, at a power such as 0.8 and a two-sided level such as 0.05.
///
/// The smallest `n` with `n ≥ (s_A² + s_B²) (t_{1−level/2, ν} + t_{power, ν})² / ln² factor`, where `ν` are Welch's degrees of
/// freedom of `n` seeds a side: the normal formula iterated with Student's t. What the choice of samples adds stays whatever the seeds,
/// so its variance is taken off `ln² factor / (t + t)²` first, with its degrees of freedom among Welch's. At a log-sd of 0.39 that is 16 for a factor of 1.5
/// and 7 for 2, as the noncentral t has it too (the normal formula says 15 and 5). At least three, below which nothing is
/// compared; `None` for a factor of 1 or one that is not positive, for a spread that is not finite, or where no number of seeds is enough
/// because the choice of samples alone leaves more open.
#[must_use]
pub fn seeds_needed(
    log_sd_a: f64,
    log_sd_b: f64,
    factor: f64,
    power: f64,
    level: f64,
    sampling: Option<Sampling>,
) -> Option<usize> {
    let (a, b) = (log_sd_a.powi(2), log_sd_b.powi(2));
    let distance = factor.ln();
    if !(distance.is_finite() && distance != 0.0 && (a + b).is_finite()) {
        return None;
    }
    let of_groups = sampling.map(Sampling::part);
    let fixed = of_groups.map_or(0.0, |(variance, _)| variance);
    // n with (a + b)/n + fixed = (distance / t)²; none where the choice of samples alone is as wide as that.
    let bound = |df: f64| {
        let t = student::quantile(1.0 - 0.5 * level, df) + student::quantile(power, df);
        let room = (distance / t).powi(2) - fixed;
        if room > 0.0 {
            (a + b) / room
        } else {
            f64::INFINITY
        }
    };
    let normal = bound(MANY).ceil();
    if normal > MANY {
        return normal.is_finite().then_some(normal as usize);
    }
    (FEWEST_SEEDS.max(normal as usize)..=MANY as usize).find(|&n| {
        let (count, own) = (n as f64, (n - 1) as f64);
        let mut parts = vec![(a / count, own), (b / count, own)];
        parts.extend(of_groups);
        count >= bound(student::satterthwaite(&parts))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn welch_agrees_with_another_program() {
        // scipy.stats.ttest_ind(ln a, ln b, equal_var=False) and its confidence_interval(0.95).
        let (a, b) = ([1.23, 2.12, 1.81, 1.49, 0.74], [0.9, 0.5, 0.61, 0.35]);
        let d = log_difference(&a, &b, 0.95, None).unwrap();
        for (found, truth) in [
            (d.log_ratio, 0.915_542_161_736_693),
            (d.df, 6.669_597_343_290_327),
            (d.p_value, 0.012_158_414_307_930_05),
            (d.ratio.lower.ln(), 0.274_217_183_564_877_8),
            (d.ratio.upper.ln(), 1.556_867_139_908_508),
        ] {
            assert!((found / truth - 1.0).abs() < 1e-9, "{found} {truth}");
        }
    }

    #[test]
    fn the_choice_of_samples_costs_seeds_and_more_than_seeds_can_pay() {
        let needed = |variance| {
            let sampling = Sampling {
                variance,
                groups: 1000,
            };
            seeds_needed(0.39, 0.39, 1.5, 0.8, 0.05, Some(sampling))
        };
        assert_eq!(needed(0.0), seeds_needed(0.39, 0.39, 1.5, 0.8, 0.05, None));
        // (ln 1.5 / 2.8)² = 0.021: half of it is gone, so twice the seeds, about; all of it, and none suffice.
        let half = needed(0.0105).unwrap();
        assert!((29..=32).contains(&half), "{half}");
        assert_eq!(needed(0.022), None);
    }

    #[test]
    fn the_part_of_the_samples_widens_the_interval_and_exchange_turns_it_around() {
        let (a, b) = ([1.0, 1.5, 2.0], [0.4, 0.5, 0.7]);
        let sampling = Sampling {
            variance: 0.02,
            groups: 20,
        };
        let given = log_difference(&a, &b, 0.95, None).unwrap();
        let with = log_difference(&a, &b, 0.95, Some(sampling)).unwrap();
        assert!((with.standard_error.powi(2) - given.standard_error.powi(2) - 0.02).abs() < 1e-15);
        assert!(with.df > given.df, "{} {}", with.df, given.df);
        let back = log_difference(&b, &a, 0.95, Some(sampling)).unwrap();
        assert!((back.ratio.lower * with.ratio.upper - 1.0).abs() < 1e-12);
        assert_eq!(back.p_value, with.p_value);
    }

    #[test]
    fn seeds_without_spread_differ_for_certain_or_not_at_all() {
        let same = log_difference(&[1.0; 3], &[1.0; 3], 0.95, None).unwrap();
        assert_eq!((same.p_value, same.log_ratio), (1.0, 0.0));
        let apart = log_difference(&[2.0; 3], &[1.0; 3], 0.95, None).unwrap();
        assert_eq!(apart.p_value, 0.0);
    }

    #[test]
    fn values_without_a_logarithm_have_no_verdict() {
        let none = log_difference(&[1.0, 0.0, 1.0], &[1.0; 3], 0.95, None);
        assert_eq!(none, Err(NoVerdict::NotPositive));
        assert_eq!(
            NoVerdict::TooFewSeeds.to_string(),
            "no verdict from fewer than 3 seeds a side"
        );
    }

    #[test]
    fn a_factor_of_one_and_a_half_takes_sixteen_seeds_a_side_and_of_two_seven() {
        let needed = |factor| seeds_needed(0.39, 0.39, factor, 0.8, 0.05, None);
        // The noncentral t (scipy.stats.nct) asks for 15.54 and 6.10.
        assert_eq!((needed(1.5), needed(2.0)), (Some(16), Some(7)));
        assert_eq!(needed(0.5), Some(7));
        assert_eq!((needed(1.0), needed(-1.0)), (None, None));
        assert_eq!(seeds_needed(0.0, 0.0, 2.0, 0.8, 0.05, None), Some(3));
        // ln² 1.0001 is 1e-8: 2 · 0.39² · 7.849 / 1e-8.
        let many = needed(1.0001).unwrap() as f64;
        assert!((many / 2.388e8 - 1.0).abs() < 1e-3, "{many}");
    }

    #[test]
    fn a_side_without_spread_leaves_the_degrees_of_freedom_of_the_other() {
        // Half the variance, but also half the degrees of freedom: more than half of 16.
        let one = seeds_needed(0.39, 0.0, 1.5, 0.8, 0.05, None).unwrap();
        assert!((9..=10).contains(&one), "{one}");
    }
}
