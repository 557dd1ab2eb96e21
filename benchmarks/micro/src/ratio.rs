//! Two pieces of work timed in one run, in turns.

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

/// What a stretch of calls lasts at least: short work is repeated, so that the clock (some 30 ns a reading) does not count.
const STRETCH_S: f64 = 1e-3;
/// What is spent on a timing of work that is shorter. The best stretch counts: whoever else uses the machine only ever adds time.
const TIMING_S: f64 = 10e-3;

/// Runs both in turns; the order within a pair alternates. Seconds are those of one call.
///
/// # Panics
/// With no pairs.
pub fn interleaved(pairs: usize, first: impl FnMut(), second: impl FnMut()) -> Ratio {
    let start = Instant::now();
    timed_by(&|| start.elapsed().as_secs_f64(), pairs, first, second)
}

/// The same by any clock of seconds.
fn timed_by(
    clock: &impl Fn() -> f64,
    pairs: usize,
    mut first: impl FnMut(),
    mut second: impl FnMut(),
) -> Ratio {
    assert!(pairs > 0, "a ratio needs a pair");
    // A single pair is a trial of the code, not a measurement.
    let timings = if pairs == 1 {
        [Timing::ONCE; 2]
    } else {
        [
            Timing::of(clock, &mut first),
            Timing::of(clock, &mut second),
        ]
    };
    let mut seconds = [Vec::new(), Vec::new()];
    for pair in 0..pairs {
        if pair % 2 == 0 {
            seconds[0].push(timings[0].run(clock, &mut first));
            seconds[1].push(timings[1].run(clock, &mut second));
        } else {
            seconds[1].push(timings[1].run(clock, &mut second));
            seconds[0].push(timings[0].run(clock, &mut first));
        }
    }
    let mut ratios: Vec<f64> = seconds[0]
        .iter()
        .zip(&seconds[1])
        .map(|(a, b)| a / b)
        .collect();
    let quartiles = [0.25, 0.5, 0.75].map(|q| quantile(&mut ratios, q));
    let medians_s = seconds.map(|mut own| quantile(&mut own, 0.5));
    Ratio {
        quartiles,
        medians_s,
        pairs,
    }
}

/// How often work is called for one timing.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Timing {
    /// Calls of one stretch.
    calls: u32,
    stretches: u32,
}

impl Timing {
    const ONCE: Self = Self {
        calls: 1,
        stretches: 1,
    };

    /// That of some work; warms up on the way.
    fn of(clock: &impl Fn() -> f64, work: &mut impl FnMut()) -> Self {
        let mut calls = 1;
        loop {
            let stretch_s = f64::from(calls) * seconds_of_a_call(clock, calls, work);
            if stretch_s >= STRETCH_S {
                return Self {
                    calls,
                    stretches: (TIMING_S / stretch_s).ceil() as u32,
                };
            }
            // The first stretches are cold and long, so the number grows in steps.
            calls = (f64::from(calls) * (STRETCH_S / stretch_s.max(1e-9)).clamp(1.2, 8.0)).ceil()
                as u32;
        }
    }

    /// Seconds of one call in the best stretch.
    fn run(self, clock: &impl Fn() -> f64, work: &mut impl FnMut()) -> f64 {
        (0..self.stretches)
            .map(|_| seconds_of_a_call(clock, self.calls, work))
            .fold(f64::INFINITY, f64::min)
    }
}

fn seconds_of_a_call(clock: &impl Fn() -> f64, calls: u32, work: &mut impl FnMut()) -> f64 {
    let start = clock();
    for _ in 0..calls {
        work();
    }
    (clock() - start) / f64::from(calls)
}

fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// Seconds in the unit that a person would choose.
pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.1} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.2} us", s * 1e6),
        s => format!("{:.3} ms", s * 1e3),
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([low, median, high], [a, b]) = (self.quartiles, self.medians_s.map(duration));
        write!(
            f,
            "{a} against {b}, ratio {median:.2} [{low:.2}, {high:.2}] over {} pairs",
            self.pairs
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// A clock that only work moves.
    #[derive(Default)]
    struct Worked(Cell<f64>);

    impl Worked {
        fn now(&self) -> f64 {
            self.0.get()
        }

        /// Work that lasts so many seconds.
        fn of(&self, seconds: f64) -> impl FnMut() {
            move || self.0.set(self.0.get() + seconds)
        }
    }

    /// Differences of sums of some thousand terms of one second at most.
    fn assert_close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b, "{a} is not {b}");
    }

    #[test]
    fn the_ratio_of_two_works_is_that_of_their_lengths() {
        let clock = Worked::default();
        let ratio = timed_by(&|| clock.now(), 5, clock.of(0.020), clock.of(0.005));
        assert_close(ratio.medians_s[0], 0.020);
        assert_close(ratio.medians_s[1], 0.005);
        ratio.quartiles.iter().for_each(|q| assert_close(*q, 4.0));
        assert_eq!(ratio.pairs, 5);
    }

    #[test]
    fn what_disturbs_one_stretch_or_one_pair_moves_no_median() {
        let clock = Worked::default();
        let calls = Cell::new(0);
        let disturbed = || {
            calls.set(calls.get() + 1);
            // A neighbour that takes a second every now and then.
            clock.of(if calls.get() % 100 == 0 { 1.0 } else { 1e-4 })();
        };
        let ratio = timed_by(&|| clock.now(), 5, disturbed, clock.of(1e-4));
        assert!(calls.get() > 400, "it was disturbed some times");
        assert_close(ratio.medians_s[0], 1e-4);
        assert_close(ratio.quartiles[1], 1.0);
    }

    #[test]
    fn short_work_is_repeated_and_its_time_is_that_of_one_call() {
        let clock = Worked::default();
        let ratio = timed_by(&|| clock.now(), 3, clock.of(1e-4), clock.of(4e-3));
        assert_close(ratio.medians_s[0], 1e-4);
        assert_close(ratio.quartiles[1], 0.025);
        assert!(Timing::of(&|| clock.now(), &mut clock.of(1e-4)).calls > 1);
        let long = Timing::of(&|| clock.now(), &mut clock.of(0.011));
        assert_eq!(long, Timing::ONCE);
    }

    #[test]
    fn one_pair_is_one_call_of_each() {
        let calls = [Cell::new(0), Cell::new(0)];
        let count = |i: usize| calls[i].set(calls[i].get() + 1);
        interleaved(1, || count(0), || count(1));
        assert_eq!(calls.map(Cell::into_inner), [1, 1]);
    }

    #[test]
    fn durations_have_the_unit_of_their_size() {
        assert_eq!(
            [2.5e-8, 3.21e-5, 0.25].map(duration),
            ["25.0 ns", "32.10 us", "250.000 ms"]
        );
    }
}
