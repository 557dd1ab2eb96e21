//! Values that are only known to be small: percents of an exactly equivariant model are rounding, 0, or below 0 where an
//! estimator subtracts. At or below the floor a value is left-censored; there is no logarithm of it, and no geometric mean.

use super::{LogDifference, LogMean, NoVerdict, Sampling, student, welch};

/// A positive value, or the floor that it does not rise above.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Censored {
    /// Above the floor.
    Value(f64),
    /// At or below this floor.
    Below(f64),
}

impl Censored {
    /// A value beside its floor, which is positive (a floor of 0 is taken as the smallest positive number, so that 0 and less
    /// are censored). A value that is not a number stays one.
    #[must_use]
    pub fn of(value: f64, floor: f64) -> Self {
        let floor = floor.max(f64::MIN_POSITIVE);
        if value <= floor {
            Self::Below(floor)
        } else {
            Self::Value(value)
        }
    }

    /// Whether only the floor is known.
    #[must_use]
    pub const fn is_censored(self) -> bool {
        matches!(self, Self::Below(_))
    }

    /// The largest number that it can be.
    #[must_use]
    pub const fn most(self) -> f64 {
        match self {
            Self::Value(v) | Self::Below(v) => v,
        }
    }

    /// The smallest number that it can be.
    const fn least(self) -> f64 {
        match self {
            Self::Value(v) => v,
            Self::Below(_) => f64::NEG_INFINITY,
        }
    }
}

/// Where the seeds lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Centre {
    /// All above the floor: geometric mean and spread.
    Geometric(LogMean),
    /// One or more at the floor: the median, itself possibly below a bound.
    Median(Censored),
}

/// The centre of a set of seeds; `None` for no seed or a value that is not finite.
#[must_use]
pub fn centre(seeds: &[Censored]) -> Option<Centre> {
    if seeds.is_empty() || !seeds.iter().all(|s| s.most().is_finite()) {
        return None;
    }
    if seeds.iter().any(|s| s.is_censored()) {
        return Some(Centre::Median(median(seeds)));
    }
    LogMean::of(&most(seeds)).map(Centre::Geometric)
}

/// Between the median of the smallest that all can be and that of the largest; a number where the two are one.
///
/// Of an even number of seeds it is the mean of the middle two.
fn median(seeds: &[Censored]) -> Censored {
    let middle = |of: fn(Censored) -> f64| {
        let mut values: Vec<f64> = seeds.iter().map(|&s| of(s)).collect();
        values.sort_by(f64::total_cmp);
        0.5 * (values[(values.len() - 1) / 2] + values[values.len() / 2])
    };
    let (least, most) = (middle(Censored::least), middle(Censored::most));
    if least == most {
        Censored::Value(most)
    } else {
        Censored::Below(most)
    }
}

fn most(seeds: &[Censored]) -> Vec<f64> {
    seeds.iter().map(|s| s.most()).collect()
}

/// What can be said of two architectures, one of which may lie at the floor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Comparison {
    /// Both above the floor.
    Difference(LogDifference),
    /// The second lies at the floor: one-sided bound, the first is at least this many times the second.
    AtLeast(f64),
    /// The first lies at the floor: it is at most this many times the second.
    AtMost(f64),
}

/// Compares two sets of seeds by their mean logarithms, at a level such as 0.95; `sampling` as in [`super::log_difference`].
///
/// Where one side has seeds at the floor, the floor takes their place. Their mean logarithm can only be smaller, so the
/// one-sided bound `exp(d − t_{level, df} se)` of the ratio of the other side to it covers at least as often as it says.
///
/// # Errors
/// Fewer than three seeds a side, seeds at the floor on both, or a value that is not positive and finite.
pub fn compare(
    a: &[Censored],
    b: &[Censored],
    level: f64,
    sampling: Option<Sampling>,
) -> Result<Comparison, NoVerdict> {
    let at_floor = |seeds: &[Censored]| seeds.iter().any(|s| s.is_censored());
    let least_ratio = |above: &[Censored], floor: &[Censored]| {
        let (d, se, df) = welch::difference(&most(above), &most(floor), sampling)?;
        Ok((d - student::quantile(level, df) * se).exp())
    };
    match (at_floor(a), at_floor(b)) {
        (false, false) => {
            welch::log_difference(&most(a), &most(b), level, sampling).map(Comparison::Difference)
        }
        (false, true) => least_ratio(a, b).map(Comparison::AtLeast),
        (true, false) => least_ratio(b, a).map(|ratio| Comparison::AtMost(1.0 / ratio)),
        (true, true) => Err(NoVerdict::BothAtFloor),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Censored::{Below, Value},
        *,
    };

    #[test]
    fn rounding_zero_and_less_are_below_the_floor() {
        assert_eq!(Censored::of(3e-13, 1e-12), Below(1e-12));
        assert_eq!(Censored::of(-1e-3, 1e-12), Below(1e-12));
        assert_eq!(Censored::of(0.5, 1e-12), Value(0.5));
        assert_eq!(Censored::of(0.0, 0.0), Below(f64::MIN_POSITIVE));
        assert_eq!(centre(&[Censored::of(f64::NAN, 1e-12)]), None);
    }

    #[test]
    fn a_seed_at_the_floor_leaves_no_geometric_mean() {
        let all = centre(&[Value(1.0), Value(4.0)]).unwrap();
        assert!(
            matches!(all, Centre::Geometric(logs) if (logs.geometric_mean() - 2.0).abs() < 1e-15)
        );
        let median = |seeds: &[Censored]| match centre(seeds) {
            Some(Centre::Median(median)) => median,
            other => panic!("{other:?}"),
        };
        assert_eq!(median(&[Value(3.0), Below(0.1), Value(1.0)]), Value(1.0));
        assert_eq!(median(&[Below(0.1), Below(0.1), Value(1.0)]), Below(0.1));
        // The middle two are somewhere below 0.1 and 1: their mean is below 0.55.
        assert_eq!(median(&[Below(0.1), Value(1.0)]), Below(0.55));
        // A floor above a value: the order of the two is open, and so is the median.
        assert_eq!(median(&[Below(2.0), Value(1.0), Value(3.0)]), Below(2.0));
        assert_eq!(centre(&[]), None);
    }

    #[test]
    fn at_the_floor_a_ratio_has_a_bound_on_one_side() {
        let above = [Value(1.0), Value(1.5), Value(2.0)];
        let floor = [Below(1e-10); 3];
        let Ok(Comparison::AtLeast(ratio)) = compare(&above, &floor, 0.95, None) else {
            panic!("a bound from below");
        };
        // mean − t_{0.95, 2} s/√3 of the three logarithms over the floor; t_{0.95, 2} is 2.91998558.
        let logs = LogMean::of(&[1.0, 1.5, 2.0]).unwrap();
        let truth = logs.mean - 2.919_985_580_353_73 * logs.sd.unwrap() / 3.0_f64.sqrt();
        assert!((ratio.ln() - truth - 1e10_f64.ln()).abs() < 1e-9);
        let Ok(Comparison::AtMost(inverse)) = compare(&floor, &above, 0.95, None) else {
            panic!("a bound from above");
        };
        assert!((ratio * inverse - 1.0).abs() < 1e-12);
        assert_eq!(
            compare(&floor, &floor, 0.95, None),
            Err(NoVerdict::BothAtFloor)
        );
        assert_eq!(
            compare(&above, &floor[..2], 0.95, None),
            Err(NoVerdict::TooFewSeeds)
        );
    }

    #[test]
    fn above_the_floor_the_comparison_is_welchs() {
        let (a, b) = ([1.0, 1.5, 2.0], [0.4, 0.5, 0.7]);
        assert_eq!(
            compare(&a.map(Value), &b.map(Value), 0.95, None),
            welch::log_difference(&a, &b, 0.95, None).map(Comparison::Difference)
        );
    }
}
