//! The sums of each group of samples, from `samples.csv`: what the choice of the measured groups adds to a spread over seeds.

use crate::places::Place;
use equivbench_core::{
    Censored, Sampling, mean_log_variance, mean_ratio_variance, paired_log_variance, sums_by_group,
};
use equivbench_report::{MergedTable, Row};
use std::collections::{BTreeMap, HashMap};

/// A ratio of sums over samples that has a logarithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantity {
    Percent,
    Relative,
    Loss,
    Twirled,
}

impl Quantity {
    pub(crate) const ALL: [Self; 4] = [Self::Percent, Self::Relative, Self::Loss, Self::Twirled];

    /// The column that holds it.
    pub(crate) const fn column(self) -> &'static str {
        match self {
            Self::Percent => "equiv_percent",
            Self::Relative => "relative_equiv_percent",
            Self::Loss => "loss_total",
            Self::Twirled => "loss_twirled",
        }
    }

    /// The column with the standard error of its logarithm, where there is one.
    pub(crate) const fn log_se_column(self) -> Option<&'static str> {
        match self {
            Self::Percent => Some("equiv_percent_log_se"),
            Self::Loss => Some("loss_total_log_se"),
            Self::Relative | Self::Twirled => None,
        }
    }

    /// Its value in a row, beside the floor of rounding where one was measured; `None` where the row has no value.
    pub(crate) fn value(self, row: Row<'_>) -> Option<Censored> {
        let floor = self.floor(row).unwrap_or(0.0);
        Some(Censored::of(row.find_real(self.column())?, floor))
    }

    /// What rounding alone would give: of the relative error the share of the prediction's power that as much equivariance error is.
    fn floor(self, row: Row<'_>) -> Option<f64> {
        let of = |column: &str| row.find_real(column);
        match self {
            Self::Percent => of("floor_percent"),
            Self::Relative => {
                let own = of("twirled_power")? + of("loss_equiv")?;
                Some(of("floor_percent")? * of("loss_total")? / own).filter(|_| own > 0.0)
            }
            Self::Loss | Self::Twirled => None,
        }
    }

    /// The most that it can be.
    pub(crate) const fn most(self) -> f64 {
        match self {
            Self::Percent | Self::Relative => 100.0,
            Self::Loss | Self::Twirled => f64::INFINITY,
        }
    }

    fn pair(self, row: Row<'_>) -> Option<(f64, f64)> {
        let of = |column: &str| row.real(column);
        let total = of("sum_total")?;
        Some(match self {
            Self::Percent => (of("sum_equiv")?, total),
            Self::Relative => {
                let spread = of("sum_spread")?;
                (spread, of("sum_twirled_power")? + spread)
            }
            Self::Loss => (total, of("components")?),
            Self::Twirled => (total - of("sum_equiv")?, of("components")?),
        })
    }
}

/// Samples of one run at one place and step.
#[derive(Default)]
struct Terms<'a> {
    rows: Vec<Row<'a>>,
}

/// Every sample of every run, by place, step and run.
pub(crate) struct GroupSums<'a>(HashMap<(Place, u64), BTreeMap<&'a str, Terms<'a>>>);

impl<'a> GroupSums<'a> {
    /// Reads the rows of `samples.csv`; nothing where that was not written.
    pub(crate) fn of(samples: Option<&'a MergedTable>) -> Self {
        let mut all: HashMap<(Place, u64), BTreeMap<&str, Terms<'_>>> = HashMap::new();
        let rows = samples.into_iter().flat_map(MergedTable::rows);
        for row in rows.filter(crate::places::is_of_run) {
            let step = row.count("step").unwrap_or_default();
            let runs = all.entry((Place::of(row), step)).or_default();
            runs.entry(row.text("run")).or_default().rows.push(row);
        }
        Self(all)
    }

    /// For each run the names of its groups and the sums of each, in one order. `None` unless all runs have the same groups.
    fn sums(
        &self,
        place: &Place,
        step: u64,
        pair: impl Fn(Row<'_>) -> Option<(f64, f64)>,
    ) -> Option<Common> {
        let runs = self.0.get(&(place.clone(), step))?;
        let mut common: Option<Vec<String>> = None;
        let mut sums = Vec::new();
        for terms in runs.values() {
            let mut names: Vec<String> = terms
                .rows
                .iter()
                .map(|r| r.text("group").to_owned())
                .collect();
            let pairs = terms.rows.iter().map(|r| pair(*r));
            let pairs: Vec<(f64, f64)> = pairs.collect::<Option<_>>()?;
            let mut sorted = names.clone();
            sorted.sort_unstable();
            sorted.dedup();
            let index = |name: &String| sorted.binary_search(name).unwrap_or_default() as u64;
            let groups: Vec<u64> = names.drain(..).map(|n| index(&n)).collect();
            if common.as_ref().is_some_and(|known| *known != sorted) {
                return None;
            }
            sums.push(sums_by_group(&pairs, &groups));
            common = Some(sorted);
        }
        Some(Common {
            names: common?,
            sums,
        })
    }

    /// What the groups add to the variance of the mean logarithm over so many seeds of a place; `None` unless all have rows.
    pub(crate) fn sampling(
        &self,
        place: &Place,
        step: u64,
        quantity: Quantity,
        seeds: usize,
    ) -> Option<Sampling> {
        let common = self.sums(place, step, |r| quantity.pair(r))?;
        common.sampling(seeds, mean_log_variance(&common.sums))
    }

    /// What the groups add to the variance of the mean skill over so many seeds, `1 − L_mean / L_b`.
    pub(crate) fn of_skill(&self, place: &Place, step: u64, seeds: usize) -> Option<Sampling> {
        let pair = |row: Row<'_>| {
            let twirled = row.real("sum_total")? - row.real("sum_equiv")?;
            Some((twirled, row.real("sum_baseline")?))
        };
        let common = self.sums(place, step, pair)?;
        common.sampling(seeds, mean_ratio_variance(&common.sums))
    }

    /// What the groups add to the variance of the difference of two places: paired where both were measured on the same
    /// samples, in groups of the same names.
    pub(crate) fn of_difference(
        &self,
        a: (&Place, u64),
        other: &Self,
        b: (&Place, u64),
        (quantity, same_samples): (Quantity, bool),
    ) -> Option<(Sampling, bool)> {
        let (one, two) = (
            self.sums(a.0, a.1, |r| quantity.pair(r))?,
            other.sums(b.0, b.1, |r| quantity.pair(r))?,
        );
        let groups = one.names.len().min(two.names.len());
        let (variance, paired) = if same_samples && one.names == two.names {
            (paired_log_variance(&one.sums, &two.sums)?, true)
        } else {
            let (a, b) = (mean_log_variance(&one.sums)?, mean_log_variance(&two.sums)?);
            (a + b, false)
        };
        let sampling = Sampling { variance, groups };
        Some((sampling, paired))
    }
}

struct Common {
    names: Vec<String>,
    sums: Vec<Vec<(f64, f64)>>,
}

impl Common {
    /// The part of the groups in a mean over so many seeds; `None` unless all of them have rows.
    fn sampling(&self, seeds: usize, variance: Option<f64>) -> Option<Sampling> {
        if self.sums.len() != seeds {
            return None;
        }
        Some(Sampling {
            variance: variance?,
            groups: self.names.len(),
        })
    }
}
