//! `summary.csv`: what several seeds of one architecture say together, with intervals that contain training.

use crate::{
    LEVEL,
    groups::{GroupSums, Quantity},
    places::{Place, axis_columns, gather, is_of_run},
};
use equivbench_core::{
    Cell, Censored, Centre, Column, CoreError, CrossingTimes, Interval, LogMean, Sampling, Table,
    TableInfo, centre, crossing_times, mean_interval, seed_interval,
};
use equivbench_report::{MergedTable, Row};
use std::sync::LazyLock;

/// When in training.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// After the last step.
    Last,
    /// After this many steps, a power of ten or none.
    Step(u64),
    /// Where each seed's loss on the measured samples was lowest.
    LowestLoss,
    /// When a threshold was crossed.
    Crossing,
}

impl Moment {
    const fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Step(_) => "step",
            Self::LowestLoss => "lowest loss",
            Self::Crossing => "crossing",
        }
    }
}

/// A row of `summary.csv`.
#[derive(Clone, Debug)]
struct SummaryRow {
    place: Place,
    moment: Moment,
    quantity: String,
    seeds: u64,
    /// The step that all seeds share.
    step: Option<u64>,
    centre: Option<Spread>,
    crossing: Option<Crossings>,
}

/// Where the seeds lie.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    kind: &'static str,
    centre: f64,
    /// The spread of training and the choice of samples.
    interval: Option<Interval>,
    degrees_of_freedom: Option<f64>,
    /// The spread of training alone.
    given_set: Option<Interval>,
    sd: Option<f64>,
    smallest: f64,
    largest: f64,
    sampling: Option<f64>,
    sampling_from: &'static str,
    at_floor: u64,
    groups: Option<u64>,
}

/// When the seeds crossed a threshold.
#[derive(Clone, Debug)]
struct Crossings {
    kind: String,
    threshold: f64,
    times: CrossingTimes,
    from_the_start: u64,
    nothing_to_learn: bool,
}

/// The table.
static SUMMARY: LazyLock<Table<SummaryRow>> = LazyLock::new(|| Table {
    name: "summary",
    about: "what the seeds of one architecture say together, with intervals that contain training; made of the other tables when they are merged. One seed: its spread is not known, and those cells are empty",
    columns: [
        places(),
        axis_columns(|r: &SummaryRow| &r.place),
        moments(),
        spreads(),
        seeds(),
        sampled(),
        crossings(),
    ]
    .into_iter()
    .flatten()
    .collect(),
});

fn places() -> Vec<Column<SummaryRow>> {
    vec![
        Column::new("model", "", "model family", |r: &SummaryRow| {
            r.place.architecture.model.clone()
        }),
        Column::new("size", "", "named size", |r: &SummaryRow| {
            r.place.architecture.size.clone()
        }),
        Column::new("dataset", "", "data", |r: &SummaryRow| {
            r.place.architecture.dataset.clone()
        }),
        Column::new(
            "train_samples",
            "samples",
            "training samples used",
            |r: &SummaryRow| r.place.architecture.train_samples,
        ),
        Column::new(
            "settings",
            "",
            "what runs share that differ in their seed only",
            |r: &SummaryRow| r.place.architecture.settings.clone(),
        ),
        Column::new(
            "weights",
            "",
            "raw weights or their moving average (ema)",
            |r: &SummaryRow| r.place.weights.clone(),
        ),
        Column::new(
            "set",
            "",
            "which samples: measured, whole, test",
            |r: &SummaryRow| r.place.set.clone(),
        ),
        Column::new(
            "split",
            "",
            "split of the dataset; empty for crossings, which are of the curves",
            |r: &SummaryRow| r.place.split.clone(),
        ),
    ]
}

fn moments() -> Vec<Column<SummaryRow>> {
    vec![
        Column::new(
            "moment",
            "",
            "last: after the last step; step: at a power of ten; lowest loss: where each seed's loss_total on the measured samples was lowest; crossing: when a threshold was crossed",
            |r: &SummaryRow| r.moment.name(),
        ),
        Column::new(
            "step",
            "steps",
            "optimiser steps done; empty where seeds differ. Powers of ten and step 0; the last step is the moment last",
            |r: &SummaryRow| r.step,
        ),
        Column::new(
            "quantity",
            "",
            "the column of curve.csv and final.csv that is put together",
            |r: &SummaryRow| r.quantity.clone(),
        ),
        Column::new(
            "seeds",
            "seeds",
            "runs that differ in their seed only",
            |r: &SummaryRow| r.seeds,
        ),
    ]
}

fn of<C: Into<Cell>>(
    read: impl Fn(&Spread) -> Option<C> + Send + Sync + 'static,
) -> impl Fn(&SummaryRow) -> Option<C> + Send + Sync + 'static {
    move |r: &SummaryRow| r.centre.as_ref().and_then(&read)
}

fn spreads() -> Vec<Column<SummaryRow>> {
    vec![
        Column::new(
            "centre",
            "",
            "geometric mean over seeds; with a seed at the floor of rounding their median; of skill the arithmetic mean; in the unit of the quantity",
            of(|s| Some(s.centre)),
        ),
        Column::new(
            "centre_is",
            "",
            "geometric mean, median, median below (at most this, at the floor), or mean",
            of(|s| Some(s.kind)),
        ),
        Column::new(
            "lower",
            "",
            "lower end of the 95% interval of the centre: Student's t of the logarithm over seeds, with the variance of sampling added (degrees of freedom by Satterthwaite); where sampling_from is none it is an interval given this measured set; of skill Student's t of the numbers themselves, likewise",
            of(|s| s.interval.map(|i| i.lower)),
        ),
        Column::new(
            "upper",
            "",
            "upper end of that interval; of a percentage at most 100 (or the centre, where that is more), of skill 1",
            of(|s| s.interval.map(|i| i.upper)),
        ),
        Column::new(
            "degrees_of_freedom",
            "",
            "of that interval",
            of(|s| s.degrees_of_freedom),
        ),
        Column::new(
            "given_set_lower",
            "",
            "lower end of the interval that contains training alone: given this measured set",
            of(|s| s.given_set.map(|i| i.lower)),
        ),
        Column::new(
            "given_set_upper",
            "",
            "upper end of that interval",
            of(|s| s.given_set.map(|i| i.upper)),
        ),
    ]
}

fn seeds() -> Vec<Column<SummaryRow>> {
    vec![
        Column::new(
            "seed_sd",
            "",
            "standard deviation over seeds of the logarithm (of skill: of the numbers): the spread of training",
            of(|s| s.sd),
        ),
        Column::new(
            "smallest",
            "",
            "smallest value of a seed",
            of(|s| Some(s.smallest)),
        ),
        Column::new(
            "largest",
            "",
            "largest value of a seed",
            of(|s| Some(s.largest)),
        ),
        Column::new(
            "at_floor",
            "seeds",
            "seeds at or below the floor of rounding",
            of(|s| Some(s.at_floor)),
        ),
    ]
}

fn sampled() -> Vec<Column<SummaryRow>> {
    vec![
        Column::new(
            "sampling_se",
            "",
            "what the choice of measured groups adds: standard error of the mean logarithm, of skill of the mean itself",
            of(|s| s.sampling),
        ),
        Column::new(
            "sampling_from",
            "",
            "samples: from the sums of each group in samples.csv, common to all seeds; rows: the mean over seeds of the squared ..._log_se, no less than that; none: not known",
            of(|s| Some(s.sampling_from).filter(|from| !from.is_empty())),
        ),
        Column::new(
            "groups",
            "groups",
            "independent groups of measured samples, the fewest of any seed",
            of(|s| s.groups),
        ),
    ]
}

fn crossings() -> Vec<Column<SummaryRow>> {
    let of = |read: fn(&Crossings) -> Cell| {
        move |r: &SummaryRow| r.crossing.as_ref().map_or(Cell::Missing, read)
    };
    vec![
        Column::new(
            "crossing",
            "",
            "reading of the crossing, as in dip.csv: first, learnt, settled, confident",
            of(|c| c.kind.as_str().into()),
        ),
        Column::new(
            "threshold_percent",
            "%",
            "the threshold",
            of(|c| c.threshold.into()),
        ),
        Column::new(
            "reached",
            "seeds",
            "seeds that reached it",
            of(|c| (c.times.reached as u64).into()),
        ),
        Column::new(
            "from_the_start",
            "seeds",
            "seeds of which it held at the first evaluation already",
            of(|c| c.from_the_start.into()),
        ),
        Column::new(
            "nothing_to_learn",
            "",
            "whether there is nothing to learn beyond the baseline",
            of(|c| c.nothing_to_learn.into()),
        ),
        Column::new(
            "step_median",
            "steps",
            "median over seeds of the step at which it was reached, those that did not reach it counted as later; empty where half of them or more did not",
            of(|c| c.times.median.into()),
        ),
        Column::new(
            "step_lower",
            "steps",
            "lower end of the interval of the median: an order statistic; empty where it is later than the end of training",
            of(|c| c.times.interval.and_then(|i| i.lower).into()),
        ),
        Column::new(
            "step_upper",
            "steps",
            "upper end of that interval",
            of(|c| c.times.interval.and_then(|i| i.upper).into()),
        ),
        Column::new(
            "step_coverage",
            "",
            "probability that the interval holds the median over all seeds: 1 - 2 P(Bin(S, 1/2) < k) for the k-th smallest and largest of S seeds; the range, 1 - 2^(1-S), up to eight",
            of(|c| c.times.interval.map(|i| i.coverage).into()),
        ),
    ]
}

/// What the table says of itself.
#[must_use]
pub fn summary_info() -> TableInfo {
    SUMMARY.info()
}

/// Puts the seeds together that the merged tables hold.
///
/// # Errors
/// A number that is not finite: a fault of this program.
pub fn summarise(tables: &[MergedTable]) -> Result<MergedTable, CoreError> {
    let table = |name: &str| tables.iter().find(|t| t.name == name);
    let groups = GroupSums::of(table("samples"));
    let mut rows = Vec::new();
    for (place, last) in table("final").into_iter().flat_map(Place::rows) {
        rows.extend(spreads_of(&place, Moment::Last, &last, &groups));
    }
    for (place, curve) in table("curve").into_iter().flat_map(Place::rows) {
        rows.extend(along(&place, &curve, &groups));
    }
    if let Some(dip) = table("dip") {
        rows.extend(crossings_of(dip));
    }
    MergedTable::made(&SUMMARY, &rows)
}

/// The curve of a place at powers of ten, at step 0, and where each seed's loss was lowest.
fn along(place: &Place, rows: &[Row<'_>], groups: &GroupSums<'_>) -> Vec<SummaryRow> {
    let mut all = Vec::new();
    let at_steps = gather(
        rows.iter()
            .map(|r| (r.count("step").unwrap_or_default(), *r)),
    );
    let last = at_steps.iter().map(|(step, _)| *step).max();
    for (step, rows) in &at_steps {
        if (*step == 0 || is_power_of_ten(*step)) && Some(*step) != last {
            all.extend(spreads_of(place, Moment::Step(*step), rows, groups));
        }
    }
    let of_runs = gather(rows.iter().map(|r| (r.text("run"), *r)));
    let loss = |r: &Row<'_>| r.real("loss_total").unwrap_or(f64::INFINITY);
    let lowest: Vec<Row<'_>> = of_runs
        .iter()
        .filter_map(|(_, rows)| {
            rows.iter()
                .copied()
                .min_by(|a, b| loss(a).total_cmp(&loss(b)))
        })
        .collect();
    all.extend(spreads_of(place, Moment::LowestLoss, &lowest, groups));
    all
}

fn is_power_of_ten(step: u64) -> bool {
    step > 0 && 10_u64.checked_pow(step.ilog10()) == Some(step)
}

/// One row for each quantity, from one row of each seed.
fn spreads_of(
    place: &Place,
    moment: Moment,
    rows: &[Row<'_>],
    groups: &GroupSums<'_>,
) -> Vec<SummaryRow> {
    let steps: Vec<u64> = rows.iter().filter_map(|r| r.count("step")).collect();
    let step = steps
        .first()
        .copied()
        .filter(|s| steps.iter().all(|t| t == s));
    let row = |quantity: &str, centre: Option<Spread>| SummaryRow {
        place: place.clone(),
        moment,
        quantity: quantity.into(),
        seeds: rows.len() as u64,
        step,
        centre,
        crossing: None,
    };
    let quantities = Quantity::ALL.map(|q| {
        let sampling = step.and_then(|step| groups.sampling(place, step, q, rows.len()));
        row(q.column(), logarithmic(q, rows, sampling))
    });
    let of_skill = step.and_then(|step| groups.of_skill(place, step, rows.len()));
    let skill = row("skill", arithmetic("skill", rows, of_skill));
    quantities.into_iter().chain([skill]).collect()
}

fn groups_of(rows: &[Row<'_>]) -> Option<u64> {
    rows.iter().filter_map(|r| r.count("groups")).min()
}

/// Of a quantity that has a logarithm.
fn logarithmic(quantity: Quantity, rows: &[Row<'_>], common: Option<Sampling>) -> Option<Spread> {
    let column = quantity.column();
    let seeds = rows.iter().map(|r| quantity.value(*r));
    let seeds: Vec<Censored> = seeds.collect::<Option<_>>()?;
    let values: Vec<f64> = rows.iter().filter_map(|r| r.find_real(column)).collect();
    let ends = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
    let mut spread = Spread {
        smallest: ends(f64::min)?,
        largest: ends(f64::max)?,
        at_floor: seeds.iter().filter(|s| s.is_censored()).count() as u64,
        groups: groups_of(rows),
        ..Spread::default()
    };
    let logs: LogMean = match centre(&seeds)? {
        Centre::Geometric(logs) => logs,
        Centre::Median(median) => {
            spread.centre = median.most();
            spread.kind = if median.is_censored() {
                "median below"
            } else {
                "median"
            };
            return Some(spread);
        }
    };
    spread.kind = "geometric mean";
    spread.centre = logs.geometric_mean();
    spread.sd = logs.sd;
    let (sampling, from) = match (common, of_rows(quantity, rows)) {
        (Some(common), _) => (Some(common), "samples"),
        (None, Some(own)) => (Some(own), "rows"),
        (None, None) => (None, "none"),
    };
    if values.len() > 1 {
        spread.sampling = sampling.map(|s| s.variance.sqrt());
        spread.sampling_from = from;
    }
    let interval = |sampling| seed_interval(&values, LEVEL, sampling);
    let most = quantity.most().max(spread.centre);
    let ends = |i: equivbench_core::SeedInterval| Interval {
        lower: i.lower,
        upper: i.upper.min(most),
    };
    let whole = interval(sampling);
    spread.degrees_of_freedom = whole.map(|i| i.df);
    spread.interval = whole.map(ends);
    spread.given_set = interval(None).map(ends);
    Some(spread)
}

/// The mean over seeds of their variances of sampling: no less than the variance of the mean of their logarithms.
fn of_rows(quantity: Quantity, rows: &[Row<'_>]) -> Option<Sampling> {
    let column = quantity.log_se_column()?;
    let square = |r: &Row<'_>| r.find_real(column).map(|se| se * se);
    let squares: Vec<f64> = rows.iter().map(square).collect::<Option<_>>()?;
    Some(Sampling {
        variance: squares.iter().sum::<f64>() / squares.len().max(1) as f64,
        groups: groups_of(rows)? as usize,
    })
}

/// Of a quantity that may be negative and is at most 1.
fn arithmetic(column: &str, rows: &[Row<'_>], sampling: Option<Sampling>) -> Option<Spread> {
    let values: Vec<f64> = rows
        .iter()
        .map(|r| r.find_real(column))
        .collect::<Option<_>>()?;
    let ends = |pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
    let most = ends(f64::max)?.max(1.0);
    let whole = mean_interval(&values, LEVEL, sampling);
    let within = |(i, _): (equivbench_core::SeedInterval, f64)| Interval {
        lower: i.lower,
        upper: i.upper.min(most),
    };
    Some(Spread {
        kind: "mean",
        centre: values.iter().sum::<f64>() / values.len() as f64,
        interval: whole.map(within),
        given_set: mean_interval(&values, LEVEL, None).map(within),
        degrees_of_freedom: whole.map(|(i, _)| i.df),
        sd: whole.map(|(_, sd)| sd),
        smallest: ends(f64::min)?,
        largest: ends(f64::max)?,
        sampling: sampling
            .filter(|_| whole.is_some())
            .map(|s| s.variance.sqrt()),
        sampling_from: match (whole, sampling) {
            (None, _) => "",
            (Some(_), Some(_)) => "samples",
            (Some(_), None) => "none",
        },
        groups: groups_of(rows),
        ..Spread::default()
    })
}

/// What rows about one crossing share: place, quantity, threshold and reading.
fn crossing_key(row: Row<'_>) -> ((Place, [String; 3]), Row<'_>) {
    let names = ["quantity", "threshold_percent", "crossing"].map(|c| row.text(c).to_owned());
    ((Place::of(row), names), row)
}

/// A row for each reading of each threshold of each quantity.
fn crossings_of(dip: &MergedTable) -> Vec<SummaryRow> {
    let found = gather(dip.rows().filter(is_of_run).map(crossing_key));
    let summary =
        |((place, [quantity, threshold, kind]), rows): ((Place, [String; 3]), Vec<Row<'_>>)| {
            let step = |r: &Row<'_>| r.count("step_reached").map(|s| s as f64);
            let times: Vec<Option<f64>> = rows.iter().map(step).collect();
            let with =
                |status: &str| rows.iter().filter(|r| r.text("status") == status).count() as u64;
            SummaryRow {
                place,
                moment: Moment::Crossing,
                quantity,
                seeds: rows.len() as u64,
                step: None,
                centre: None,
                crossing: Some(Crossings {
                    kind,
                    threshold: threshold.parse().unwrap_or_default(),
                    times: crossing_times(&times, LEVEL),
                    from_the_start: with("from the start"),
                    nothing_to_learn: with("nothing to learn") > 0,
                }),
            }
        };
    found.into_iter().map(summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &'static str, header: &[&str], rows: &[&[&str]]) -> MergedTable {
        let rows = rows
            .iter()
            .map(|r| r.iter().map(|c| (*c).to_owned()).collect());
        MergedTable::of(name, header, rows.collect())
    }

    const LAST: [&str; 15] = [
        "run",
        "model",
        "size",
        "dataset",
        "train_samples",
        "settings",
        "seed",
        "measurement",
        "weights",
        "set",
        "step",
        "equiv_percent",
        "loss_total",
        "skill",
        "groups",
    ];

    fn last(percents: &[&str]) -> MergedTable {
        let rows: Vec<Vec<String>> = percents
            .iter()
            .enumerate()
            .map(|(seed, percent)| {
                let (run, seed) = (format!("r{seed}"), seed.to_string());
                [
                    &run, "m", "nano", "d", "10", "abcd", &seed, "", "raw", "test", "100", percent,
                    "2", "0.5", "20",
                ]
                .map(str::to_owned)
                .to_vec()
            })
            .collect();
        let rows: Vec<Vec<&str>> = rows
            .iter()
            .map(|r| r.iter().map(String::as_str).collect())
            .collect();
        let rows: Vec<&[&str]> = rows.iter().map(Vec::as_slice).collect();
        table("final", &LAST, &rows)
    }

    fn row<'a>(summary: &'a MergedTable, quantity: &str) -> Row<'a> {
        summary
            .rows()
            .find(|r| r.text("quantity") == quantity)
            .unwrap()
    }

    #[test]
    fn three_seeds_have_a_geometric_mean_and_students_interval_of_the_logarithm() {
        let summary = summarise(&[last(&["0.5", "1", "2"])]).unwrap();
        let percent = row(&summary, "equiv_percent");
        assert_eq!(percent.count("seeds"), Some(3));
        assert!((percent.real("centre").unwrap() - 1.0).abs() < 1e-14);
        // Logarithms −ln 2, 0, ln 2: s = ln 2; t_0.975 with 2 degrees of freedom is 4.30265273.
        let upper = (4.302_652_729_749_46 * 2.0_f64.ln() / 3.0_f64.sqrt()).exp();
        assert!((percent.real("upper").unwrap() / upper - 1.0).abs() < 1e-9);
        assert_eq!(percent.text("sampling_from"), "none");
        let skill = row(&summary, "skill");
        assert_eq!(
            (skill.real("centre"), skill.text("centre_is")),
            (Some(0.5), "mean")
        );
    }

    #[test]
    fn of_one_seed_no_spread_is_told() {
        let summary = summarise(&[last(&["0.5"])]).unwrap();
        for quantity in ["equiv_percent", "skill"] {
            let row = row(&summary, quantity);
            assert_eq!(row.count("seeds"), Some(1));
            assert!(row.real("centre").is_some());
            for empty in [
                "lower",
                "upper",
                "given_set_lower",
                "seed_sd",
                "sampling_from",
            ] {
                assert_eq!(row.text(empty), "", "{quantity} {empty}");
            }
        }
    }

    #[test]
    fn a_seed_at_or_below_zero_leaves_a_median() {
        let summary = summarise(&[last(&["-1e-13", "1", "2"])]).unwrap();
        let percent = row(&summary, "equiv_percent");
        assert_eq!(
            (percent.real("centre"), percent.text("centre_is")),
            (Some(1.0), "median")
        );
        assert_eq!(percent.count("at_floor"), Some(1));
        assert_eq!(percent.text("lower"), "");
    }

    #[test]
    fn crossings_are_counted_and_their_median_is_censored() {
        let header = [
            "run",
            "model",
            "size",
            "dataset",
            "train_samples",
            "settings",
            "measurement",
            "weights",
            "quantity",
            "threshold_percent",
            "crossing",
            "status",
            "step_reached",
        ];
        let of = |run, status, step| -> [&str; 13] {
            [
                run,
                "m",
                "nano",
                "d",
                "10",
                "s",
                "",
                "raw",
                "equiv_percent",
                "1",
                "learnt",
                status,
                step,
            ]
        };
        let rows = [
            of("a", "reached", "300"),
            of("b", "not reached", ""),
            of("c", "from the start", "0"),
        ];
        let rows: Vec<&[&str]> = rows.iter().map(|r| r.as_slice()).collect();
        let summary = summarise(&[table("dip", &header, &rows)]).unwrap();
        let row = summary.rows().next().unwrap();
        assert_eq!(row.count("reached"), Some(2));
        assert_eq!(row.count("from_the_start"), Some(1));
        assert_eq!(row.real("step_median"), Some(300.0));
        assert_eq!(
            (row.real("step_lower"), row.text("step_upper")),
            (Some(0.0), "")
        );
    }
}
