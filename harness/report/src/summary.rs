//! The tables a person sees at the end of an experiment.

use crate::{MEASUREMENT, MergedTable, Row};
use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use equivbench_core::{Axis, AxisRole, all_axes};
use std::collections::{BTreeMap, BTreeSet};

/// Where each run ended: percent with its interval, losses, skill; of conditions that share inputs, the first reading only.
#[must_use]
pub fn final_summary(table: &MergedTable) -> String {
    let mut header = vec![
        "model",
        "size",
        "dataset",
        "train samples",
        "seed",
        "weights",
        "step",
    ];
    header.extend(input_axes().map(|axis| axis.heading));
    header.extend(["percent [95%]", "loss", "relative %", "skill"]);
    let cells = |row: Row<'_>| {
        let mut cells: Vec<String> = [
            "model",
            "size",
            "dataset",
            "train_samples",
            "seed",
            "weights",
            "step",
        ]
        .map(|c| row.text(c).to_owned())
        .into();
        cells.extend(input_axes().map(|axis| row.text(axis.name).to_owned()));
        let ends = row
            .real("equiv_percent_lower")
            .zip(row.real("equiv_percent_upper"));
        let interval = ends.map(|(low, high)| format!(" [{}, {}]", short(low), short(high)));
        cells.extend([
            format!(
                "{}{}",
                pretty(row, "equiv_percent"),
                interval.unwrap_or_default()
            ),
            pretty(row, "loss_total"),
            pretty(row, "relative_equiv_percent"),
            pretty(row, "skill"),
        ]);
        cells
    };
    render(&header, cells, table.rows().filter(is_shown))
}

/// When each curve dipped, learnt dips told from trivial ones; percent of the loss only, of conditions that share inputs the first
/// reading only. Where several inputs are measured, a curve shows the lowest threshold that it reached, else all of them.
#[must_use]
pub fn dip_summary(table: &MergedTable) -> String {
    let mut header = vec!["model", "size", "train samples", "seed", "weights"];
    header.extend(input_axes().map(|axis| axis.heading));
    header.extend([
        "below",
        "reached at step",
        "epoch",
        "skill there",
        "dip",
        "minimum",
    ]);
    let cells = |row: Row<'_>| {
        let mut cells: Vec<String> = ["model", "size", "train_samples", "seed", "weights"]
            .map(|c| row.text(c).to_owned())
            .into();
        cells.extend(input_axes().map(|axis| row.text(axis.name).to_owned()));
        let steps = match (row.count("step_reached"), row.count("step_after")) {
            (None, _) => "not reached".into(),
            (Some(reached), None) => format!("≤ {reached}"),
            (Some(reached), Some(after)) => format!("{after} – {reached}"),
        };
        let kind = match row.flag("learnt") {
            Some(true) => "learnt",
            Some(false) => "trivial: little is predicted yet",
            None => "",
        };
        cells.extend([
            format!("{}%", row.text("threshold_percent")),
            steps,
            pretty(row, "epoch_reached"),
            pretty(row, "skill_reached"),
            kind.into(),
            format!(
                "{}% at {}",
                pretty(row, "minimum_percent"),
                row.text("minimum_step")
            ),
        ]);
        cells
    };
    let percent = |row: &Row<'_>| row.text("quantity") == "equiv_percent";
    render(
        &header,
        cells,
        telling(table).into_iter().filter(percent).filter(is_shown),
    )
}

fn input_axes() -> impl Iterator<Item = &'static Axis> {
    all_axes()
        .into_iter()
        .filter(|axis| axis.role == AxisRole::Input)
}

/// Whether a row is of the run itself and of the first reading of its inputs.
fn is_shown(row: &Row<'_>) -> bool {
    let first = |axis: &&Axis| match axis.without {
        Some(first) if axis.role == AxisRole::Reading => row.text(axis.name) == first,
        _ => true,
    };
    row.text(MEASUREMENT.name).is_empty() && all_axes().iter().all(first)
}

/// The rows of dips that tell something: all of a task whose samples are seen in one way; else for each curve the lowest threshold that
/// it reached, or its highest if it reached none.
fn telling(table: &MergedTable) -> Vec<Row<'_>> {
    let curve = |row: &Row<'_>| -> Vec<String> {
        let axes = all_axes().into_iter().map(|axis| axis.name);
        let keys = ["run", MEASUREMENT.name, "weights", "quantity"]
            .into_iter()
            .chain(axes);
        keys.map(|c| row.text(c).to_owned()).collect()
    };
    let has_inputs = |row: &Row<'_>| input_axes().any(|axis| !row.text(axis.name).is_empty());
    let threshold = |row: &Row<'_>| row.real("threshold_percent").unwrap_or(f64::INFINITY);
    let reached = |row: &Row<'_>| row.flag("reached") == Some(true);
    // Reached before not reached; then the lowest of those reached, the highest of those not.
    let tells_more = |a: &Row<'_>, b: &Row<'_>| match (reached(a), reached(b)) {
        (true, true) => threshold(a) < threshold(b),
        (false, false) => threshold(a) > threshold(b),
        (a, _) => a,
    };
    let rows: Vec<Row<'_>> = table.rows().collect();
    let mut best: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| has_inputs(row)) {
        let entry = best.entry(curve(row)).or_insert(index);
        if tells_more(row, &rows[*entry]) {
            *entry = index;
        }
    }
    let chosen: BTreeSet<usize> = best.into_values().collect();
    let keep = |(index, row): &(usize, Row<'_>)| !has_inputs(row) || chosen.contains(index);
    let kept = rows.into_iter().enumerate().filter(keep);
    kept.map(|(_, row)| row).collect()
}

fn render<'a>(
    header: &[&str],
    cells: impl Fn(Row<'a>) -> Vec<String>,
    rows: impl Iterator<Item = Row<'a>>,
) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(cells(row));
    }
    table.to_string()
}

/// Three significant digits; an empty cell stays empty.
fn pretty(row: Row<'_>, column: &str) -> String {
    row.real(column).map(short).unwrap_or_default()
}

fn short(x: f64) -> String {
    if x == 0.0 {
        return "0".into();
    }
    let digits = (2 - x.abs().log10().floor() as i32).clamp(0, 6) as usize;
    if x.abs() < 1e-4 {
        format!("{x:.2e}")
    } else {
        format!("{x:.digits$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 20] = [
        "run",
        "model",
        "size",
        "train_samples",
        "seed",
        "measurement",
        "weights",
        "flow_time",
        "variant",
        "quantity",
        "threshold_percent",
        "reached",
        "step_after",
        "step_reached",
        "epoch_reached",
        "skill_reached",
        "learnt",
        "minimum_percent",
        "minimum_step",
        "other",
    ];

    /// Dips of one run: flow time, threshold, reached.
    fn dips(rows: &[(&str, &str, bool)]) -> MergedTable {
        let row = |(time, threshold, reached): &(&str, &str, bool)| {
            let named = [
                ("run", "r"),
                ("weights", "raw"),
                ("flow_time", time),
                ("variant", "plain"),
                ("quantity", "equiv_percent"),
                ("threshold_percent", threshold),
                ("reached", if *reached { "true" } else { "false" }),
            ];
            let of = |column: &str| {
                named
                    .iter()
                    .find(|(c, _)| *c == column)
                    .map_or("", |(_, v)| v)
            };
            HEADER.map(|c| of(c).to_owned()).to_vec()
        };
        MergedTable::of("dip", &HEADER, rows.iter().map(row).collect())
    }

    fn shown(table: &MergedTable) -> Vec<(&str, &str)> {
        let telling = telling(table).into_iter();
        telling
            .map(|row| (row.text("flow_time"), row.text("threshold_percent")))
            .collect()
    }

    #[test]
    fn a_curve_with_a_flow_time_shows_the_lowest_threshold_that_it_reached_or_the_highest() {
        let mut rows = [
            ("0", "10", true),
            ("0", "5", true),
            ("0", "3", false),
            ("0.9", "10", false),
            ("0.9", "5", false),
        ];
        assert_eq!(shown(&dips(&rows)), [("0", "5"), ("0.9", "10")]);
        // Whatever the order of the rows.
        rows.reverse();
        assert_eq!(shown(&dips(&rows)), [("0.9", "10"), ("0", "5")]);
    }

    #[test]
    fn a_task_without_flow_times_shows_every_threshold() {
        let table = dips(&[("", "10", true), ("", "5", true), ("", "3", false)]);
        assert_eq!(shown(&table).len(), 3);
        assert!(dip_summary(&table).contains("not reached"));
    }
}
