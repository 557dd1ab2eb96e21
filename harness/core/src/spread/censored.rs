//! When seeds cross a threshold, some of which never do: order statistics, for which "not reached" is only the largest value.
//!
//! All seeds are followed equally far; one that did not cross is later than every one that did.

/// An interval between two order statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrderInterval {
    /// Lower end; `None` where it is later than the end of training.
    pub lower: Option<f64>,
    /// Upper end; `None` where it is later than the end of training.
    pub upper: Option<f64>,
    /// The probability that the median over all seeds lies in it: may be less than what was asked for, never said to be more.
    pub coverage: f64,
}

/// When a set of seeds crossed a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CrossingTimes {
    /// Seeds that were followed.
    pub seeds: usize,
    /// Seeds that crossed.
    pub reached: usize,
    /// The median; `None` where it is later than the end of training: half of the seeds or more did not cross.
    pub median: Option<f64>,
    /// Interval of the median; `None` for fewer than two seeds, or where none crossed.
    pub interval: Option<OrderInterval>,
}

/// Median and interval of crossing times (steps, seconds, ...), `None` for a seed that did not cross.
///
/// The interval runs from the `k`-th smallest to the `k`-th largest of `S` times and covers the median over all seeds with
/// probability `1 − 2 P(Bin(S, ½) < k)` (exactly for continuous times, at least for tied ones). `k` is the largest for which this
/// reaches the level. Below six seeds even the range does not reach 0.95: then it is the range, with 50, 75, 87.5 and 93.75% at
/// 2, 3, 4 and 5 seeds. Of an even number of seeds the median is the mean of the middle two.
///
/// ```
/// # use equivbench_core::crossing_times;
/// let times = crossing_times(&[Some(500.0), None, Some(300.0)], 0.95);
/// assert_eq!((times.reached, times.median), (2, Some(500.0)));
/// let range = times.interval.unwrap();
/// assert_eq!((range.lower, range.upper, range.coverage), (Some(300.0), None, 0.75));
/// ```
#[must_use]
pub fn crossing_times(times: &[Option<f64>], level: f64) -> CrossingTimes {
    let seeds = times.len();
    let mut sorted: Vec<f64> = times.iter().map(|t| t.unwrap_or(f64::INFINITY)).collect();
    sorted.sort_by(f64::total_cmp);
    let known = |time: f64| time.is_finite().then_some(time);
    let reached = times.iter().flatten().count();
    let median = (seeds > 0)
        .then(|| 0.5 * (sorted[(seeds - 1) / 2] + sorted[seeds / 2]))
        .and_then(known);
    let interval = (seeds > 1 && reached > 0).then(|| {
        let k = (2..=seeds / 2)
            .take_while(|&k| coverage(seeds, k) >= level)
            .last()
            .unwrap_or(1);
        OrderInterval {
            lower: known(sorted[k - 1]),
            upper: known(sorted[seeds - k]),
            coverage: coverage(seeds, k),
        }
    });
    CrossingTimes {
        seeds,
        reached,
        median,
        interval,
    }
}

/// `1 − 2 P(Bin(S, ½) < k)`: the median is below the `k`-th smallest of `S` where fewer than `k` are below the median.
fn coverage(seeds: usize, k: usize) -> f64 {
    let mut term = 0.5_f64.powi(seeds as i32);
    let mut below = 0.0;
    for i in 0..k {
        below += term;
        term *= (seeds - i) as f64 / (i + 1) as f64;
    }
    1.0 - 2.0 * below
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seed, seed::uniform};

    #[test]
    fn the_coverage_is_that_of_all_sides_that_coins_can_fall() {
        // Every order statistic is below the median with a fair coin: count the falls of S coins.
        for seeds in 2..=12_usize {
            for k in 1..=seeds / 2 {
                let inside = (0..1_u32 << seeds)
                    .filter(|coins| (k..=seeds - k).contains(&(coins.count_ones() as usize)))
                    .count();
                let truth = inside as f64 / f64::from(1_u32 << seeds);
                assert!((coverage(seeds, k) - truth).abs() < 1e-14, "{seeds} {k}");
            }
        }
    }

    #[test]
    fn the_interval_covers_the_median_as_often_as_it_says() {
        let mut stream = Seed::new(2).stream("times");
        for seeds in [3, 5, 10] {
            let (mut covered, mut said) = (0_u32, 0.0);
            for _ in 0..4000 {
                // Uniform on [0, 1), followed until 0.8: the median is 0.5.
                let times: Vec<Option<f64>> = (0..seeds)
                    .map(|_| Some(uniform(&mut stream)).filter(|&t| t < 0.8))
                    .collect();
                // Where none crossed there is no interval, and the median is missed.
                let Some(i) = crossing_times(&times, 0.95).interval else {
                    continue;
                };
                let below = i.lower.is_some_and(|l| l <= 0.5);
                covered += u32::from(below && i.upper.is_none_or(|u| u >= 0.5));
                said = i.coverage;
            }
            let share = f64::from(covered) / 4000.0;
            // Four standard errors of 4,000 repeats.
            assert!(
                (share - said).abs() < 4.0 * (said * (1.0 - said) / 4000.0).sqrt(),
                "{seeds}: {share} {said}"
            );
        }
    }

    #[test]
    fn ten_seeds_have_an_interval_inside_their_range() {
        let times: Vec<Option<f64>> = (1..=10).map(|t| Some(f64::from(t))).collect();
        let found = crossing_times(&times, 0.95);
        let interval = found.interval.unwrap();
        // 1 − 2 (1 + 10)/1024.
        assert_eq!((interval.lower, interval.upper), (Some(2.0), Some(9.0)));
        assert!((interval.coverage - (1.0 - 22.0 / 1024.0)).abs() < 1e-15);
        assert_eq!(found.median, Some(5.5));
    }

    #[test]
    fn a_median_that_was_not_reached_is_no_number() {
        let half = crossing_times(&[Some(1.0), None], 0.95);
        assert_eq!((half.reached, half.median), (1, None));
        let none = crossing_times(&[None, None, None], 0.95);
        assert_eq!((none.seeds, none.reached, none.interval), (3, 0, None));
        let one = crossing_times(&[Some(4.0)], 0.95);
        assert_eq!((one.median, one.interval), (Some(4.0), None));
        assert_eq!(crossing_times(&[], 0.95).median, None);
    }
}
