//! Two pieces of work timed in one run, in turns, so that whatever else the machine does hits both alike.

use std::{fmt, time::Instant};

/// The ratio of two durations, over pairs that ran one after the other.
#[derive(Clone, Debug, PartialEq)]
pub struct Ratio {
    /// Lower quartile, median, upper quartile.
    pub quartiles: [f64; 3],
    /// Median seconds of the first and of the second.
    pub medians_s: [f64; 2],
    /// Number of pairs.
    pub pairs: usize,
}

/// Runs both in turns; the order within a pair alternates.
///
/// # Panics
/// With no pairs.
pub fn interleaved(pairs: usize, mut first: impl FnMut(), mut second: impl FnMut()) -> Ratio {
    assert!(pairs > 0, "a ratio needs a pair");
    first();
    second();
    let mut seconds = [Vec::new(), Vec::new()];
    for pair in 0..pairs {
        if pair % 2 == 0 {
            seconds[0].push(timed(&mut first));
            seconds[1].push(timed(&mut second));
        } else {
            seconds[1].push(timed(&mut second));
            seconds[0].push(timed(&mut first));
        }
    }
    let mut ratios: Vec<f64> = seconds[0].iter().zip(&seconds[1]).map(|(a, b)| a / b).collect();
    let quartiles = [0.25, 0.5, 0.75].map(|q| quantile(&mut ratios, q));
    let medians_s = seconds.map(|mut own| quantile(&mut own, 0.5));
    Ratio { quartiles, medians_s, pairs }
}

fn timed(work: &mut impl FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([low, median, high], [a, b]) = (self.quartiles, self.medians_s);
        write!(f, "{:.3} ms against {:.3} ms, ratio {median:.2} [{low:.2}, {high:.2}] over {} pairs", a * 1e3, b * 1e3, self.pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{thread::sleep, time::Duration};

    #[test]
    fn the_ratio_of_two_waits_is_that_of_their_lengths() {
        let wait = |ms| move || sleep(Duration::from_millis(ms));
        let ratio = interleaved(5, wait(20), wait(5));
        // A wait is never shorter than asked for, and some milliseconds longer on a busy machine.
        assert!(ratio.medians_s[0] >= 0.020 && ratio.medians_s[1] >= 0.005, "{ratio}");
        assert!(ratio.quartiles[0] <= ratio.quartiles[1] && ratio.quartiles[1] <= ratio.quartiles[2]);
        assert!(ratio.quartiles[2] > 1.0, "{ratio}");
    }
}
