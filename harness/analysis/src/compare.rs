//! Whether two architectures differ: Welch's t over seeds, paired by groups of samples where both were measured on the same ones.

use crate::{
    LEVEL,
    groups::{GroupSums, Quantity},
    places::{Architecture, Place, axis_columns, gather, is_of_run},
};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use equivbench_core::{
    Censored, Centre, Column, Comparison, CoreError, LogMean, NoVerdict, centre, compare,
    seeds_needed,
};
use equivbench_report::{MergedTable, Row};
use std::{
    collections::{BTreeSet, HashSet},
    path::{Path, PathBuf},
};

/// Factors whose cost in seeds is told.
const FACTORS: [f64; 2] = [1.5, 2.0];
/// Power of a comparison that is planned.
const POWER: f64 = 0.8;

/// One side of a comparison: a results directory and what is chosen of it, `DIR` or `DIR:model=escaip,size=nano`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The results directory.
    pub folder: PathBuf,
    /// Columns and the text that they must have.
    filters: Vec<(String, String)>,
}

/// Columns that a selection may name.
const SELECTABLE: [&str; 5] = ["model", "size", "dataset", "train_samples", "settings"];

/// Why there is no comparison.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A selection that cannot be read, or that leaves nothing to compare.
    #[error("{0}")]
    Selection(String),
    /// A number that is not finite.
    #[error(transparent)]
    Core(#[from] CoreError),
}

impl Selection {
    /// Reads `DIR[:COLUMN=VALUE,...]`.
    ///
    /// # Errors
    /// A column that cannot be chosen by.
    pub fn parse(text: &str) -> Result<Self, CompareError> {
        // A folder may have a colon in its name; what comes behind the last one chooses if it says so.
        let (folder, filters) = match text.rsplit_once(':') {
            Some((folder, filters)) if filters.contains('=') || !Path::new(text).exists() => {
                (folder, filters)
            }
            _ => (text, ""),
        };
        let filter = |part: &str| match part.split_once('=') {
            Some((column, value)) if SELECTABLE.contains(&column.trim()) => {
                Ok((column.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(CompareError::Selection(format!(
                "{text}: \"{part}\" chooses nothing; write DIR:COLUMN=VALUE,... with {}",
                SELECTABLE.join(", ")
            ))),
        };
        let parts = filters.split(',').filter(|part| !part.trim().is_empty());
        Ok(Self {
            folder: folder.into(),
            filters: parts.map(filter).collect::<Result<_, _>>()?,
        })
    }

    fn takes(&self, row: &Row<'_>) -> bool {
        let fits = |(column, value): &(String, String)| row.find(column) == Some(value);
        is_of_run(row) && self.filters.iter().all(fits)
    }
}

/// One quantity of two architectures, asked in one way.
#[derive(Clone, Debug)]
pub struct Compared {
    a: Architecture,
    b: Architecture,
    place: Place,
    quantity: Quantity,
    seeds: [usize; 2],
    centres: [Option<Centre>; 2],
    verdict: Result<Comparison, NoVerdict>,
    sampling: &'static str,
    needed: [Option<usize>; 2],
    /// Whether both sides have a spread over seeds, so that an empty `needed` means that no number of seeds is enough.
    has_spread: bool,
    differences: Differences,
}

/// Compares what two selections hold: two architectures, or each architecture of one experiment with the same in another.
///
/// # Errors
/// A selection without rows, or one that leaves open what is to be compared with what.
pub fn compare_tables(
    a: (&Selection, &[MergedTable]),
    b: (&Selection, &[MergedTable]),
) -> Result<Vec<Compared>, CompareError> {
    let (rows_a, rows_b) = (chosen(a)?, chosen(b)?);
    let pairs = pairs(&names(&rows_a), &names(&rows_b))?;
    let (groups_a, groups_b) = (group_sums(a.1), group_sums(b.1));
    let mut all = Vec::new();
    for (one, two) in pairs {
        let of_b = seeds_of(&rows_b, &two);
        for (place, rows) in seeds_of(&rows_a, &one) {
            let asked = |p: &Place| {
                (&p.weights, &p.set, &p.condition) == (&place.weights, &place.set, &place.condition)
            };
            let Some((other, rows_of_other)) = of_b.iter().find(|(p, _)| asked(p)) else {
                continue;
            };
            let a = Side::new(&place, &rows, &groups_a)?;
            let b = Side::new(other, rows_of_other, &groups_b)?;
            let differences = differences(&a, &b)?;
            for quantity in Quantity::ALL {
                all.push(one_quantity(&a, &b, quantity, &differences)?);
            }
        }
    }
    Ok(all)
}

/// The rows of an architecture at each of its places, one of each seed.
fn seeds_of<'a>(rows: &[Row<'a>], who: &Architecture) -> Vec<(Place, Vec<Row<'a>>)> {
    let own = rows.iter().filter(|r| Architecture::of(**r) == *who);
    gather(own.map(|r| (Place::of(*r), *r)))
}

fn group_sums(tables: &[MergedTable]) -> GroupSums<'_> {
    GroupSums::of(tables.iter().find(|t| t.name == "samples"))
}

/// The rows of a selection, of the last step.
fn chosen<'a>(
    (selection, tables): (&Selection, &'a [MergedTable]),
) -> Result<Vec<Row<'a>>, CompareError> {
    let folder = selection.folder.display();
    let last = tables.iter().find(|t| t.name == "final").ok_or_else(|| {
        CompareError::Selection(format!(
            "{folder} holds no final.csv; name a results directory, as `equivbench run` writes it"
        ))
    })?;
    if let Some(column) = ["settings", "set", "weights"]
        .iter()
        .find(|column| !last.has(column))
    {
        return Err(CompareError::Selection(format!(
            "{folder}/final.csv has no column {column}: it was written by another version"
        )));
    }
    let rows: Vec<Row<'_>> = last.rows().filter(|row| selection.takes(row)).collect();
    if rows.is_empty() {
        if !last.rows().any(|row| is_of_run(&row)) {
            return Err(CompareError::Selection(format!(
                "{folder}/final.csv has no rows: no run has finished there"
            )));
        }
        let known = names(&last.rows().filter(is_of_run).collect::<Vec<_>>());
        return Err(CompareError::Selection(format!(
            "nothing in {folder} is chosen; it holds {}",
            listed(&known)
        )));
    }
    Ok(rows)
}

fn names(rows: &[Row<'_>]) -> Vec<Architecture> {
    let mut all: Vec<Architecture> = Vec::new();
    for who in rows.iter().map(|r| Architecture::of(*r)) {
        if !all.contains(&who) {
            all.push(who);
        }
    }
    all
}

/// The selection that takes it and no other.
fn whole_name(who: &Architecture) -> String {
    format!(
        "model={},size={},dataset={},train_samples={},settings={}",
        who.model, who.size, who.dataset, who.train_samples, who.settings
    )
}

/// The same in two experiments.
fn same_but_settings(a: &Architecture, b: &Architecture) -> bool {
    let with_settings_of_b = Architecture {
        settings: b.settings.clone(),
        ..a.clone()
    };
    with_settings_of_b == *b
}

fn listed(all: &[Architecture]) -> String {
    let names: Vec<String> = all.iter().map(whole_name).collect();
    names.join("; ")
}

/// Architecture is compared with whom.
fn pairs(
    a: &[Architecture],
    b: &[Architecture],
) -> Result<Vec<(Architecture, Architecture)>, CompareError> {
    if let ([one], [two]) = (a, b) {
        if one == two {
            return Err(CompareError::Selection(format!(
                "both sides are {}: choose another on one of them, for example DIR:model=NAME",
                whole_name(one)
            )));
        }
        return Ok(vec![(one.clone(), two.clone())]);
    }
    let mut found = Vec::new();
    for one in a {
        let same: Vec<&Architecture> = b.iter().filter(|two| same_but_settings(two, one)).collect();
        match same.as_slice() {
            [] => {}
            [two] if *two != one => found.push((one.clone(), (*two).clone())),
            [_] => {}
            several => {
                let several: Vec<Architecture> = several.iter().map(|w| (*w).clone()).collect();
                return Err(CompareError::Selection(format!(
                    "{} is there more than once: {}; choose by settings=...",
                    one.name(),
                    listed(&several)
                )));
            }
        }
    }
    if found.is_empty() {
        return Err(CompareError::Selection(format!(
            "it is open what to compare: one side holds {}; the other {}. Choose one of each, DIR:model=NAME,size=NAME",
            listed(a),
            listed(b)
        )));
    }
    Ok(found)
}

/// One side of a comparison, asked in one way.
struct Side<'a> {
    place: &'a Place,
    /// The last row of each seed.
    rows: &'a [Row<'a>],
    step: u64,
    groups: &'a GroupSums<'a>,
}

impl<'a> Side<'a> {
    /// # Errors
    /// Two rows of one run.
    fn new(
        place: &'a Place,
        rows: &'a [Row<'a>],
        groups: &'a GroupSums<'a>,
    ) -> Result<Self, CompareError> {
        let mut known = HashSet::new();
        if let Some(twice) = rows.iter().find(|row| !known.insert(row.text("run"))) {
            return Err(CompareError::Selection(format!(
                "final.csv has two rows of run {} at one place: one seed would count twice; merge the experiment again (equivbench run --resume)",
                twice.text("run")
            )));
        }
        let step = rows.first().and_then(|row| row.count("step"));
        Ok(Self {
            place,
            rows,
            step: step.unwrap_or_default(),
            groups,
        })
    }

    /// One value for each seed, or none at all where the quantity was not measured.
    ///
    /// # Errors
    /// A seed without a number among others that have one.
    fn values(&self, quantity: Quantity) -> Result<Vec<Censored>, CompareError> {
        let column = quantity.column();
        if self
            .rows
            .iter()
            .all(|row| row.find(column).unwrap_or_default().is_empty())
        {
            return Ok(Vec::new());
        }
        let value = |row: &Row<'a>| {
            let finite = row.find_real(column).is_some_and(f64::is_finite);
            quantity.value(*row).filter(|_| finite).ok_or_else(|| {
                CompareError::Selection(format!(
                    "final.csv, run {}: {column} is \"{}\", no number; leaving the seed out would make the comparison another one",
                    row.text("run"),
                    row.find(column).unwrap_or_default()
                ))
            })
        };
        self.rows.iter().map(value).collect()
    }

    /// The texts that a column has.
    fn texts(&self, column: &str) -> BTreeSet<&'a str> {
        let text = |row: &Row<'a>| row.find(column).unwrap_or_default();
        self.rows.iter().map(text).collect()
    }
}

/// In what the two sides were measured differently.
#[derive(Clone, Debug, Default)]
struct Differences {
    /// A line for each.
    lines: Vec<String>,
    /// The samples themselves: targets are not the same.
    samples: bool,
    /// Data or split: losses are of other things.
    data: bool,
}

/// Columns that say how a row was measured.
const METHODS: [&str; 4] = ["measure_seed", "scheme", "estimator", "split"];

/// # Errors
/// Losses of different kinds.
fn differences(a: &Side<'_>, b: &Side<'_>) -> Result<Differences, CompareError> {
    let both = |column: &str| {
        let said = |texts: BTreeSet<&str>| texts.into_iter().collect::<Vec<_>>().join(", ");
        let (one, two) = (said(a.texts(column)), said(b.texts(column)));
        (one != two).then_some([one, two])
    };
    if let Some([one, two]) = both("measured_loss") {
        return Err(CompareError::Selection(format!(
            "A was measured by the loss {one}, B by {two}: there is nothing to compare; measure both by one, --set measure.loss=..."
        )));
    }
    let mut found = Differences {
        // The power of the targets is that of the samples, to the last bit, with the noise that they were given.
        samples: both("target_power").is_some(),
        ..Differences::default()
    };
    if a.place.architecture.dataset != b.place.architecture.dataset {
        let (one, two) = (&a.place.architecture.dataset, &b.place.architecture.dataset);
        found.lines.push(format!(
            "A is measured on {one}, B on {two}: losses are not comparable"
        ));
        found.data = true;
    }
    for column in METHODS {
        if let Some([one, two]) = both(column) {
            found
                .lines
                .push(format!("{column} differs: A {one}, B {two}"));
            found.data |= column == "split";
        }
    }
    if found.samples && found.lines.is_empty() {
        found.lines.push(
            "the measured samples differ, though their names do not: other data, or other options of the dataset".into(),
        );
        found.data = true;
    }
    found.samples |= found.data;
    Ok(found)
}

fn one_quantity(
    a: &Side<'_>,
    b: &Side<'_>,
    quantity: Quantity,
    differences: &Differences,
) -> Result<Compared, CompareError> {
    let (values_a, values_b) = (a.values(quantity)?, b.values(quantity)?);
    let sampling = a.groups.of_difference(
        (a.place, a.step),
        b.groups,
        (b.place, b.step),
        (quantity, !differences.samples),
    );
    let spread = |values: &[Censored]| match centre(values) {
        Some(Centre::Geometric(LogMean { sd, .. })) => sd,
        _ => None,
    };
    let spreads = spread(&values_a).zip(spread(&values_b));
    let needed = |factor| {
        let (a, b) = spreads?;
        seeds_needed(a, b, factor, POWER, 1.0 - LEVEL, sampling.map(|(s, _)| s))
    };
    Ok(Compared {
        a: a.place.architecture.clone(),
        b: b.place.architecture.clone(),
        place: a.place.clone(),
        quantity,
        seeds: [values_a.len(), values_b.len()],
        centres: [centre(&values_a), centre(&values_b)],
        verdict: compare(&values_a, &values_b, LEVEL, sampling.map(|(s, _)| s)),
        sampling: match sampling {
            Some((_, true)) => "paired by group",
            Some((_, false)) => "separate groups",
            None => "none: given the measured sets",
        },
        needed: FACTORS.map(needed),
        has_spread: spreads.is_some(),
        differences: differences.clone(),
    })
}

impl Compared {
    fn ratio(&self) -> String {
        match &self.verdict {
            Ok(Comparison::Difference(d)) => format!(
                "{} [{}, {}]",
                short(d.log_ratio.exp()),
                short(d.ratio.lower),
                short(d.ratio.upper)
            ),
            Ok(Comparison::AtLeast(ratio)) => format!("> {}", short(*ratio)),
            Ok(Comparison::AtMost(ratio)) => format!("< {}", short(*ratio)),
            Err(_) => String::new(),
        }
    }

    fn says(&self) -> String {
        let is_loss = matches!(self.quantity, Quantity::Loss | Quantity::Twirled);
        if is_loss && self.differences.data {
            return "not comparable".into();
        }
        match &self.verdict {
            Ok(Comparison::Difference(d)) if d.ratio.lower > 1.0 => "A is larger".into(),
            Ok(Comparison::Difference(d)) if d.ratio.upper < 1.0 => "B is larger".into(),
            Ok(Comparison::Difference(_)) => "not told apart".into(),
            Ok(Comparison::AtLeast(_)) => "B is at the floor".into(),
            Ok(Comparison::AtMost(_)) => "A is at the floor".into(),
            Err(why) => why.to_string(),
        }
    }

    fn columns() -> Vec<Column<Self>> {
        let mut columns = vec![
            Column::new("model_a", "", "", |c: &Self| c.a.model.clone()),
            Column::new("size_a", "", "", |c: &Self| c.a.size.clone()),
            Column::new("settings_a", "", "", |c: &Self| c.a.settings.clone()),
            Column::new("model_b", "", "", |c: &Self| c.b.model.clone()),
            Column::new("size_b", "", "", |c: &Self| c.b.size.clone()),
            Column::new("settings_b", "", "", |c: &Self| c.b.settings.clone()),
            Column::new("dataset_a", "", "", |c: &Self| c.a.dataset.clone()),
            Column::new("dataset_b", "", "", |c: &Self| c.b.dataset.clone()),
            Column::new("weights", "", "", |c: &Self| c.place.weights.clone()),
            Column::new("set", "", "", |c: &Self| c.place.set.clone()),
        ];
        columns.extend(axis_columns(|c: &Self| &c.place));
        columns.extend(Self::figures());
        columns
    }

    fn figures() -> Vec<Column<Self>> {
        let difference = |read: fn(&equivbench_core::LogDifference) -> f64| {
            move |c: &Self| match &c.verdict {
                Ok(Comparison::Difference(d)) => Some(read(d)),
                _ => None,
            }
        };
        let bound = |c: &Self| match c.verdict {
            Ok(Comparison::AtLeast(ratio)) => [Some(ratio), None],
            Ok(Comparison::AtMost(ratio)) => [None, Some(ratio)],
            _ => [None, None],
        };
        vec![
            Column::new("quantity", "", "", |c: &Self| c.quantity.column()),
            Column::new("seeds_a", "", "", |c: &Self| c.seeds[0] as u64),
            Column::new("seeds_b", "", "", |c: &Self| c.seeds[1] as u64),
            Column::new("centre_a", "", "", |c: &Self| number(c.centres[0])),
            Column::new("centre_b", "", "", |c: &Self| number(c.centres[1])),
            Column::new("ratio", "", "", difference(|d| d.log_ratio.exp())),
            Column::new("ratio_lower", "", "", difference(|d| d.ratio.lower)),
            Column::new("ratio_upper", "", "", difference(|d| d.ratio.upper)),
            Column::new("ratio_at_least", "", "", move |c: &Self| bound(c)[0]),
            Column::new("ratio_at_most", "", "", move |c: &Self| bound(c)[1]),
            Column::new("p_value", "", "", difference(|d| d.p_value)),
            Column::new("degrees_of_freedom", "", "", difference(|d| d.df)),
            Column::new("sampling", "", "", |c: &Self| c.sampling),
            Column::new("verdict", "", "", Self::says),
            Column::new("seeds_for_1.5", "", "", |c: &Self| {
                c.needed[0].map(|n| n as u64)
            }),
            Column::new("seeds_for_2", "", "", |c: &Self| {
                c.needed[1].map(|n| n as u64)
            }),
        ]
    }
}

fn number(of: Option<Centre>) -> Option<f64> {
    match of? {
        Centre::Geometric(logs) => Some(logs.geometric_mean()),
        Centre::Median(median) => Some(median.most()),
    }
}

fn shown(of: Option<Centre>) -> String {
    match of {
        Some(Centre::Median(Censored::Below(floor))) => format!("< {}", short(floor)),
        other => number(other).map(short).unwrap_or_default(),
    }
}

pub(crate) fn short(x: f64) -> String {
    if x == 0.0 {
        return "0".into();
    }
    let digits = (2 - x.abs().log10().floor() as i32).clamp(0, 6) as usize;
    if x.abs() < 1e-4 || x.abs() >= 1e6 {
        format!("{x:.2e}")
    } else {
        format!("{x:.digits$}")
    }
}

/// The comparisons as CSV, every set of samples and every quantity.
///
/// # Errors
/// A number that is not finite.
pub fn comparison_csv(all: &[Compared]) -> Result<Vec<u8>, CompareError> {
    let table = equivbench_core::Table {
        name: "comparison",
        about: "",
        columns: Compared::columns(),
    };
    let merged = MergedTable::made(&table, all)?;
    merged
        .to_csv()
        .map_err(|e| CompareError::Selection(e.to_string()))
}

/// The comparisons as a person reads them: raw and averaged weights, on the split for reporting where both have it.
#[must_use]
pub fn comparison_text(all: &[Compared]) -> String {
    let has_test = all.iter().any(|c| c.place.set == "test");
    let set = if has_test { "test" } else { "measured" };
    let mut text = String::new();
    let mut told: BTreeSet<String> = BTreeSet::new();
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header([
        "A",
        "B",
        "weights",
        "condition",
        "quantity",
        "seeds",
        "A",
        "B",
        "A / B [95%]",
        "p",
        "verdict",
        "seeds for 1.5, 2",
    ]);
    for c in all.iter().filter(|c| c.place.set == set) {
        let axes = c.place.condition.iter().filter(|text| !text.is_empty());
        let needed = c.needed.map(|n| match n {
            Some(n) => n.to_string(),
            None if c.has_spread => "more groups".to_owned(),
            None => "?".to_owned(),
        });
        let p = match &c.verdict {
            Ok(Comparison::Difference(d)) => short(d.p_value),
            _ => String::new(),
        };
        let name = |who: &Architecture| match c.a.name() == c.b.name() {
            true => format!("{} {}", who.name(), who.settings),
            false => who.name(),
        };
        table.add_row([
            name(&c.a),
            name(&c.b),
            c.place.weights.clone(),
            axes.cloned().collect::<Vec<_>>().join(" "),
            c.quantity.column().to_owned(),
            format!("{}, {}", c.seeds[0], c.seeds[1]),
            shown(c.centres[0]),
            shown(c.centres[1]),
            c.ratio(),
            p,
            c.says(),
            needed.join(", "),
        ]);
        told.insert(format!(
            "{}: groups of samples: {}",
            c.quantity.column(),
            c.sampling
        ));
        told.extend(c.differences.lines.iter().cloned());
    }
    text.push_str(&format!(
        "Samples: {set}. Geometric means over seeds; ratios by Welch's t over seeds, with what the choice of samples adds.\n{table}\n"
    ));
    told.iter()
        .for_each(|line| text.push_str(&format!("{line}\n")));
    text.push_str(&format!(
        "Seeds for a factor: a side, for a power of {POWER} at the spread that was seen; more groups: with so few groups of samples no number of seeds is enough.\n"
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables(percents: &[(&str, &[f64])]) -> Vec<MergedTable> {
        let header = [
            "run",
            "model",
            "size",
            "dataset",
            "train_samples",
            "settings",
            "measurement",
            "weights",
            "set",
            "step",
            "equiv_percent",
            "loss_total",
            "loss_twirled",
            "relative_equiv_percent",
        ];
        let mut rows = Vec::new();
        for (model, values) in percents {
            for (seed, value) in values.iter().enumerate() {
                let (run, value) = (format!("{model}{seed}"), value.to_string());
                rows.push(
                    [
                        &run, *model, "nano", "d", "10", *model, "", "raw", "test", "100", &value,
                        "2", "1", "3",
                    ]
                    .map(str::to_owned)
                    .to_vec(),
                );
            }
        }
        vec![MergedTable::of("final", &header, rows)]
    }

    fn percent(all: &[Compared]) -> &Compared {
        all.iter()
            .find(|c| c.quantity == Quantity::Percent)
            .unwrap()
    }

    fn compared(tables: &[MergedTable], a: &str, b: &str) -> Result<Vec<Compared>, CompareError> {
        let (a, b) = (Selection::parse(a)?, Selection::parse(b)?);
        compare_tables((&a, tables), (&b, tables))
    }

    #[test]
    fn two_models_of_one_experiment_are_told_apart_or_not() {
        let own = tables(&[
            ("far", &[2.0, 2.2, 1.8]),
            ("near", &[0.9, 1.1, 1.0]),
            ("two", &[1.0, 1.0]),
            ("exact", &[0.0, -1e-13, 0.0]),
        ]);
        let all = compared(&own, "r:model=far", "r:model=near").unwrap();
        let found = percent(&all);
        assert_eq!(found.says(), "A is larger");
        assert!(comparison_text(&all).contains("A is larger"));
        let csv = String::from_utf8(comparison_csv(&all).unwrap()).unwrap();
        assert_eq!(csv.lines().count(), 1 + 4);
        let few = compared(&own, "r:model=far", "r:model=two").unwrap();
        assert!(percent(&few).says().contains("fewer than 3 seeds"));
        let exact = compared(&own, "r:model=far", "r:model=exact").unwrap();
        assert_eq!(percent(&exact).says(), "B is at the floor");
        assert!(percent(&exact).ratio().starts_with("> "));
    }

    /// The rows of both models, one column replaced in those of one of them.
    fn with(column: &str, model: &str, text: impl Fn(usize) -> String) -> Vec<MergedTable> {
        let own = tables(&[("a", &[2.0, 2.2, 1.8]), ("b", &[0.9, 1.1, 1.0])]);
        let mut header: Vec<String> = own[0].header.clone();
        if !header.iter().any(|name| name == column) {
            header.push(column.into());
        }
        let rows = own[0].rows().enumerate().map(|(i, row)| {
            let cell = |name: &String| match name == column && row.text("model") == model {
                true => text(i),
                false => row.find(name).unwrap_or_default().to_owned(),
            };
            header.iter().map(cell).collect()
        });
        let rows: Vec<Vec<String>> = rows.collect();
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        vec![MergedTable::of("final", &header, rows)]
    }

    #[test]
    fn other_samples_other_losses_and_seeds_that_cannot_be_read_are_named() {
        let other = with("target_power", "b", |_| "0.7".into());
        let all = compared(&other, "r:model=a", "r:model=b").unwrap();
        let loss = all.iter().find(|c| c.quantity == Quantity::Loss).unwrap();
        assert_eq!(loss.says(), "not comparable");
        assert!(comparison_text(&all).contains("the measured samples differ"));
        let turned = with("scheme", "b", |_| "octahedral".into());
        let all = compared(&turned, "r:model=a", "r:model=b").unwrap();
        assert!(comparison_text(&all).contains("scheme differs: A , B octahedral"));
        for (tables, said) in [
            (with("measured_loss", "b", |_| "mae".into()), "by the loss"),
            (
                with("equiv_percent", "b", |i| {
                    if i == 4 { "NaN".into() } else { "1".into() }
                }),
                "run b1: equiv_percent is \"NaN\"",
            ),
            (with("run", "b", |_| "b0".into()), "two rows of run b0"),
        ] {
            let error = compared(&tables, "r:model=a", "r:model=b").unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn what_is_not_clear_is_asked_for() {
        let own = tables(&[("a", &[1.0; 3]), ("b", &[1.0; 3])]);
        for (a, b, said) in [
            ("r", "r", "it is open what to compare"),
            ("r:model=a", "r:model=a", "both sides are model=a"),
            ("r:model=c", "r", "nothing in r is chosen"),
            ("r:speed=1", "r", "\"speed=1\" chooses nothing"),
        ] {
            let error = compared(&own, a, b).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
