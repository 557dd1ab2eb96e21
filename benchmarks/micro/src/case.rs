//! One bench: a piece of work and what it could cost at best.

use crate::Ratio;
use std::fmt::Write as _;

/// How much one call does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Amount {
    /// What is counted: `atoms`, `bytes`.
    pub unit: &'static str,
    /// How many by one call of the work.
    pub of_work: f64,
    /// How many by one call of the floor, where it does the same kind of thing: then the share of its rate is told.
    pub of_floor: Option<f64>,
}

/// A piece of work beside its floor.
pub struct Case {
    /// `group/name`; unique among all benches, without commas, as it is a cell of a table.
    pub name: &'static str,
    /// What the floor does, after "against"; without commas.
    pub against: &'static str,
    /// What one call does.
    pub amounts: Vec<Amount>,
    /// The work.
    pub work: Box<dyn FnMut()>,
    /// What must be done at least, or where nothing can be named, work of the same kind that the machine does.
    pub floor: Box<dyn FnMut()>,
}

impl Case {
    /// A case that counts nothing.
    pub fn new(
        name: &'static str,
        against: &'static str,
        work: impl FnMut() + 'static,
        floor: impl FnMut() + 'static,
    ) -> Self {
        Self {
            name,
            against,
            amounts: Vec::new(),
            work: Box::new(work),
            floor: Box::new(floor),
        }
    }

    /// Says how much one call of the work does.
    #[must_use]
    pub fn counting(self, unit: &'static str, of_work: f64) -> Self {
        self.counting_both(unit, of_work, None)
    }

    /// Says how much one call of the work and one of the floor does.
    #[must_use]
    pub fn sharing(self, unit: &'static str, of_work: f64, of_floor: f64) -> Self {
        self.counting_both(unit, of_work, Some(of_floor))
    }

    fn counting_both(mut self, unit: &'static str, of_work: f64, of_floor: Option<f64>) -> Self {
        self.amounts.push(Amount {
            unit,
            of_work,
            of_floor,
        });
        self
    }

    /// What a person reads of a measurement.
    pub(crate) fn tell(&self, ratio: &Ratio) -> String {
        let mut text = format!("{}, against {}: {ratio}", self.name, self.against);
        for amount in &self.amounts {
            text.push_str("\n  ");
            amount.tell(ratio, &mut text);
        }
        text
    }
}

impl Amount {
    fn tell(&self, ratio: &Ratio, text: &mut String) {
        let ([low, median, high], [work_s, floor_s]) = (ratio.quartiles, ratio.medians_s);
        let _ = write!(text, "{}", rate(self.of_work / work_s, self.unit));
        if let Some(of_floor) = self.of_floor {
            let share = |seconds: f64| self.of_work / of_floor / seconds;
            let _ = write!(text, " against {}", rate(of_floor / floor_s, self.unit));
            let _ = write!(
                text,
                ": share {:.2} [{:.2}, {:.2}]",
                share(median),
                share(high),
                share(low)
            );
        }
    }
}

/// A rate with a prefix of its size.
fn rate(per_s: f64, unit: &str) -> String {
    let (scale, prefix) = [(1e9, "G"), (1e6, "M"), (1e3, "k")]
        .into_iter()
        .find(|(s, _)| per_s >= *s)
        .unwrap_or((1.0, ""));
    format!("{:.3} {prefix} {unit}/s", per_s / scale).replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_the_ratio_of_rates_and_its_ends_change_places() {
        let ratio = Ratio {
            quartiles: [2.0, 4.0, 5.0],
            medians_s: [0.004, 0.001],
            pairs: 9,
        };
        let case = Case::new("group/name", "a copy", || (), || ())
            .sharing("bytes", 6e6, 2e6)
            .counting("atoms", 0.5);
        assert_eq!(
            case.tell(&ratio),
            "group/name, against a copy: 4.000 ms against 1.000 ms, ratio 4.00 [2.00, 5.00] over 9 pairs\n  \
             1.500 G bytes/s against 2.000 G bytes/s: share 0.75 [0.60, 1.50]\n  125.000 atoms/s"
        );
    }
}
