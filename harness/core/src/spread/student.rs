//! Student's t distribution, and how many degrees of freedom a sum of variances has.

use statrs::distribution::{Continuous, ContinuousCDF, StudentsT};

/// The value below which a share `p` of Student's t with `df` degrees of freedom (any positive number) lies.
pub(super) fn quantile(p: f64, df: f64) -> f64 {
    let t = distribution(df);
    let tail = p.min(1.0 - p);
    let start = t.inverse_cdf(tail);
    // The inverse alone is off by 1e-8 at 1e5 degrees of freedom; Newton squares that.
    let low = (0..2).fold(start, |x, _| x - (t.cdf(x) - tail) / t.pdf(x));
    if p < 0.5 { low } else { -low }
}

/// `P(|T| ≥ |t|)` for Student's t with `df` degrees of freedom.
pub(super) fn two_sided_p(t: f64, df: f64) -> f64 {
    // From the lower tail: the upper one is 1 minus something and loses its digits.
    2.0 * distribution(df).cdf(-t.abs())
}

fn distribution(df: f64) -> StudentsT {
    StudentsT::new(0.0, 1.0, df).expect("degrees of freedom are positive")
}

/// Satterthwaite's degrees of freedom of a sum of independent variances, each with its own:
/// `(Σ v)² / Σ (v² / df)`; the fewest of all where nothing varies. Each `df` is at least 1.
pub(super) fn satterthwaite(parts: &[(f64, f64)]) -> f64 {
    let sum: f64 = parts.iter().map(|(v, _)| v).sum();
    if sum == 0.0 {
        return parts.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
    }
    // Shares instead of variances: squares of tiny variances would underflow.
    let below: f64 = parts.iter().map(|(v, df)| (v / sum).powi(2) / df).sum();
    1.0 / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_closed_forms_for_one_and_two_degrees_of_freedom() {
        for p in [0.005, 0.1, 0.5 - 1e-6, 0.8, 0.975, 0.999] {
            // F⁻¹ is tan(π (p − ½)) for one, and 2 (p − ½) √(2 / (4 p (1 − p))) for two.
            let one = (std::f64::consts::PI * (p - 0.5)).tan();
            let two = 2.0 * (p - 0.5) * (2.0 / (4.0 * p * (1.0 - p))).sqrt();
            for (df, truth) in [(1.0, one), (2.0, two)] {
                let found = quantile(p, df);
                // 1e-9: what the committed intervals are held to by the oracle.
                assert!(
                    (found - truth).abs() < 1e-9 * truth.abs().max(1.0),
                    "{p} {df}: {found}"
                );
            }
        }
    }

    #[test]
    fn the_quantile_inverts_the_distribution_for_any_degrees_of_freedom() {
        for df in [1.0, 1.37, 2.5, 4.0, 17.2, 300.0, 1e5] {
            for p in [0.0005, 0.025, 0.2] {
                let back = 0.5 * two_sided_p(quantile(p, df), df);
                assert!((back / p - 1.0).abs() < 1e-9, "{df} {p}: {back}");
                assert!((quantile(p, df) + quantile(1.0 - p, df)).abs() < 1e-7);
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_another_program() {
        // scipy.stats.t.ppf(p, df), scipy 1.17.1.
        for (df, p, truth) in [
            (1.37, 0.025, -6.885_073_156_641_709),
            (2.5, 0.0005, -18.277_893_528_130_647),
            (17.2, 0.025, -2.107_948_313_457_025),
            (300.0, 0.2, -0.842_821_011_161_393),
            (1e5, 0.025, -1.959_987_707_534_61),
        ] {
            let found = quantile(p, df);
            assert!((found / truth - 1.0).abs() < 1e-9, "{df} {p}: {found}");
        }
    }

    #[test]
    fn equal_variances_add_their_degrees_of_freedom_and_one_alone_keeps_its_own() {
        assert!((satterthwaite(&[(3.0, 4.0), (3.0, 4.0)]) - 8.0).abs() < 1e-12);
        assert_eq!(satterthwaite(&[(1e-200, 4.0), (0.0, 1.0)]), 4.0);
        assert_eq!(satterthwaite(&[(0.0, 4.0), (0.0, 2.0)]), 2.0);
    }
}
