//! What the choice of the measured samples leaves open: samples of one group (a sequence cluster, a molecule) are alike, so
//! groups are resampled, each with all of its samples, and variances are those over groups.
//!
//! Every quantity here is a ratio of sums over samples, given as `(numerator, denominator)`:
//!
//! | quantity | numerator | denominator |
//! |---|---|---|
//! | percent | `100 · loss_equiv` | `loss_total` |
//! | L | `loss_total` | `components` |
//! | skill | `L_b,i − L_mean,i` | `L_b,i` |
//! | relative error, percent | `100 · power_spread` | `power_twirled + power_spread` |
//!
//! Which groups were drawn is what is random; how many samples a group has goes with it.

use std::collections::BTreeMap;

use crate::{Interval, Stream, Support, studentised_interval};

/// The pairs of each group, added; in the order of the groups' numbers.
///
/// # Panics
/// Where the two are not equally long.
#[must_use]
pub fn sums_by_group(terms: &[(f64, f64)], group: &[u64]) -> Vec<(f64, f64)> {
    assert_eq!(terms.len(), group.len(), "a group for each sample");
    let mut sums: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for (&(a, b), &g) in terms.iter().zip(group) {
        let sum = sums.entry(g).or_default();
        sum.0 += a;
        sum.1 += b;
    }
    sums.into_values().collect()
}

/// Interval of `Σ numerator / Σ denominator` by the studentised bootstrap over groups: a one-stage cluster bootstrap.
///
/// `None` for fewer than five groups or a vanishing denominator; a point where all groups agree. Where each sample is its own
/// group it is the interval over samples.
///
/// # Panics
/// Where there is not one group for each sample.
#[must_use]
pub fn group_interval(
    terms: &[(f64, f64)],
    group: &[u64],
    level: f64,
    support: Support,
    stream: &mut Stream,
) -> Option<Interval> {
    studentised_interval(&sums_by_group(terms, group), level, support, stream)
}

/// The variance of `ln(Σ a / Σ b)` over groups, from the sums of each group, by linearisation: with
/// `ψ_g = a_g/Σa − b_g/Σb`, `G/(G−1) Σ ψ_g²`.
///
/// `None` for fewer than two groups or where a sum is not positive.
#[must_use]
pub fn log_variance(sums: &[(f64, f64)]) -> Option<f64> {
    variance_of_influence(&influence(sums)?)
}

/// The variance over groups of the mean over seeds of `ln(Σ a_s / Σ b_s)`, all seeds measured on the same groups: what
/// [`crate::Sampling`] needs. `ψ_g` is the mean over seeds of those of [`log_variance`].
///
/// `None` where a seed has no logarithm, or for no seed.
///
/// # Panics
/// Where seeds have different numbers of groups.
#[must_use]
pub fn mean_log_variance(seeds: &[Vec<(f64, f64)>]) -> Option<f64> {
    variance_of_influence(&mean_influence(seeds)?)
}

/// The variance over groups of `mean_s ln p_A − mean_s ln p_B`, both measured on the same groups, given for each seed as sums
/// of each group: `ψ_g` is the difference of those of [`mean_log_variance`], so what both share drops out.
///
/// `None` where a seed has no logarithm, or for no seed.
///
/// # Panics
/// Where there are different numbers of groups.
#[must_use]
pub fn paired_log_variance(a: &[Vec<(f64, f64)>], b: &[Vec<(f64, f64)>]) -> Option<f64> {
    let (a, b) = (mean_influence(a)?, mean_influence(b)?);
    assert_eq!(a.len(), b.len(), "both on the same groups");
    let difference: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
    variance_of_influence(&difference)
}

/// What the choice of groups adds to the variance of the arithmetic mean over seeds of a ratio of sums, each seed with the sums of the
/// same groups; the ratio may be negative, its denominator not.
#[must_use]
pub fn mean_ratio_variance(seeds: &[Vec<(f64, f64)>]) -> Option<f64> {
    let mut mean = vec![0.0; seeds.first()?.len()];
    for sums in seeds {
        assert_eq!(sums.len(), mean.len(), "all seeds on the same groups");
        let (a, b) = totals(sums);
        if b <= 0.0 || !(a / b).is_finite() {
            return None;
        }
        for (m, (x, y)) in mean.iter_mut().zip(sums) {
            *m += (x - a / b * y) / b / seeds.len() as f64;
        }
    }
    variance_of_influence(&mean)
}

fn totals(sums: &[(f64, f64)]) -> (f64, f64) {
    let add = |(a, b): (f64, f64), (x, y): &(f64, f64)| (a + x, b + y);
    sums.iter().fold((0.0, 0.0), add)
}

/// `ψ_g = a_g/Σa − b_g/Σb`: how much `ln(Σ a / Σ b)` owes to each group.
fn influence(sums: &[(f64, f64)]) -> Option<Vec<f64>> {
    let (a, b) = totals(sums);
    let logarithm = a > 0.0 && b > 0.0 && (a / b).is_finite();
    logarithm.then(|| sums.iter().map(|(x, y)| x / a - y / b).collect())
}

fn mean_influence(seeds: &[Vec<(f64, f64)>]) -> Option<Vec<f64>> {
    let mut mean = vec![0.0; seeds.first()?.len()];
    for sums in seeds {
        assert_eq!(sums.len(), mean.len(), "all seeds on the same groups");
        for (m, psi) in mean.iter_mut().zip(influence(sums)?) {
            *m += psi / seeds.len() as f64;
        }
    }
    Some(mean)
}

/// `G/(G−1) Σ ψ_g²`; influences add up to zero.
fn variance_of_influence(psi: &[f64]) -> Option<f64> {
    let groups = psi.len() as f64;
    (psi.len() > 1).then(|| groups / (groups - 1.0) * psi.iter().map(|p| p * p).sum::<f64>())
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;
    use crate::Seed;

    /// Twelve groups of one to three samples.
    fn measured(shift: f64) -> (Vec<(f64, f64)>, Vec<u64>) {
        (0..24_u32)
            .map(|i| {
                let x = f64::from(i);
                let pair = (1.0 + (x + shift).sin().abs(), 10.0 + (x * 0.7).cos());
                (pair, u64::from(i * i % 13))
            })
            .unzip()
    }

    #[test]
    fn samples_of_a_group_are_added_whatever_their_order() {
        let terms = [(1.0, 2.0), (10.0, 20.0), (3.0, 4.0)];
        assert_eq!(
            sums_by_group(&terms, &[7, 2, 7]),
            [(10.0, 20.0), (4.0, 6.0)]
        );
    }

    #[test]
    fn samples_that_are_groups_of_their_own_have_the_interval_over_samples() {
        let (terms, _) = measured(0.0);
        let alone: Vec<u64> = (0..24).collect();
        let stream = || Seed::new(5).stream("bootstrap");
        let by_group = group_interval(&terms, &alone, 0.95, Support::Real, &mut stream());
        assert!(by_group.is_some());
        assert_eq!(
            by_group,
            studentised_interval(&terms, 0.95, Support::Real, &mut stream())
        );
    }

    #[test]
    fn copies_of_a_sample_add_no_knowledge_when_they_are_one_group() {
        let (terms, _) = measured(0.0);
        let twice: Vec<(f64, f64)> = terms.iter().flat_map(|&t| [t, t]).collect();
        let pairs: Vec<u64> = (0..24).flat_map(|g| [g, g]).collect();
        let once = log_variance(&terms).unwrap();
        let grouped = log_variance(&sums_by_group(&twice, &pairs)).unwrap();
        assert!((grouped / once - 1.0).abs() < 1e-12);
        // Taken for independent they would seem to halve the variance (times 48/47 for 24/23).
        let naive = log_variance(&twice).unwrap();
        assert!((naive / once - 0.5 * (48.0 / 47.0) / (24.0 / 23.0)).abs() < 1e-12);
    }

    #[test]
    fn the_variance_of_the_logarithm_is_near_that_of_the_jackknife() {
        let (terms, group) = measured(0.3);
        let sums = sums_by_group(&terms, &group);
        let log_without = |left: usize| {
            let kept = sums.iter().enumerate().filter(|(g, _)| *g != left);
            let (a, b) = kept.fold((0.0, 0.0), |(a, b), (_, s)| (a + s.0, b + s.1));
            (a / b).ln()
        };
        let logs: Vec<f64> = (0..sums.len()).map(log_without).collect();
        let n = logs.len() as f64;
        let mean = logs.iter().sum::<f64>() / n;
        let jackknife = (n - 1.0) / n * logs.iter().map(|l| (l - mean).powi(2)).sum::<f64>();
        // Linearisation and jackknife differ at second order: a few percent of seven groups.
        let found = log_variance(&sums).unwrap();
        assert!((found / jackknife - 1.0).abs() < 0.2, "{found} {jackknife}");
    }

    #[test]
    fn what_two_models_share_drops_out_of_their_difference() {
        let (a, group) = measured(0.0);
        let (b, _) = measured(1.0);
        let (a, b) = (sums_by_group(&a, &group), sums_by_group(&b, &group));
        let half: Vec<(f64, f64)> = a.iter().map(|(x, y)| (0.5 * x, *y)).collect();
        assert!(paired_log_variance(from_ref(&a), &[half]).unwrap() < 1e-30);
        let apart = paired_log_variance(from_ref(&a), from_ref(&b)).unwrap();
        // Var(A − B) = Var(A) + Var(B) − 2 Cov; of the mean over two "seeds", (Var(A) + Var(B) + 2 Cov)/4.
        let mean = mean_log_variance(&[a.clone(), b.clone()]).unwrap();
        let sum = log_variance(&a).unwrap() + log_variance(&b).unwrap();
        assert!((apart + 4.0 * mean - 2.0 * sum).abs() < 1e-15);
    }

    #[test]
    fn the_variance_of_a_ratio_is_that_of_its_logarithm_times_its_square() {
        let (terms, group) = measured(0.6);
        let sums = sums_by_group(&terms, &group);
        let (a, b) = totals(&sums);
        let found = mean_ratio_variance(from_ref(&sums)).unwrap();
        let expected = log_variance(&sums).unwrap() * (a / b).powi(2);
        assert!((found / expected - 1.0).abs() < 1e-12);
        // Turned round and of two seeds that cancel: a ratio may be negative.
        let negative: Vec<(f64, f64)> = sums.iter().map(|(x, y)| (-x, *y)).collect();
        assert!(mean_ratio_variance(&[sums, negative]).unwrap() < 1e-30);
        assert_eq!(mean_ratio_variance(&[vec![(1.0, 0.0), (1.0, 0.0)]]), None);
    }

    #[test]
    fn sums_without_a_logarithm_have_no_variance_of_it() {
        assert_eq!(log_variance(&[(1.0, 1.0), (-2.0, 1.0)]), None);
        assert_eq!(log_variance(&[(1.0, 1.0)]), None);
        assert_eq!(mean_log_variance(&[]), None);
    }
}
