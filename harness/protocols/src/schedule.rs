//! When to evaluate: log-spaced, with the round numbers a person expects.

use std::collections::BTreeSet;

/// Steps at which a run of `total` steps is evaluated: 0, 1, 2, 5, 10, ..., at least `per_decade` points a decade, and the last.
#[must_use]
pub fn evaluation_steps(total: u64, per_decade: u32) -> Vec<u64> {
    let mut steps = BTreeSet::from([0, total]);
    let mut decade = 1u64;
    while decade <= total {
        steps.extend(
            [1, 2, 5]
                .map(|m| decade.saturating_mul(m))
                .into_iter()
                .filter(|s| *s <= total),
        );
        let Some(next) = decade.checked_mul(10) else {
            break;
        };
        decade = next;
    }
    let per_decade = f64::from(per_decade.max(1));
    let points = ((total.max(1) as f64).log10() * per_decade).floor() as u64;
    steps.extend(
        (0..=points)
            .map(|k| 10f64.powf(k as f64 / per_decade).round() as u64)
            .filter(|s| *s <= total),
    );
    steps.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_has_the_ends_the_round_numbers_and_eight_points_a_decade() {
        let steps = evaluation_steps(2345, 8);
        assert!(
            [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 2345]
                .iter()
                .all(|s| steps.contains(s))
        );
        assert!(steps.windows(2).all(|w| w[0] < w[1]));
        assert!(steps.iter().filter(|s| (100..1000).contains(*s)).count() >= 8);
        assert_eq!(evaluation_steps(0, 8), [0]);
    }
}
