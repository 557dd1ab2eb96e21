//! The tables a person sees at the end of an experiment.

use crate::MergedTable;
use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use std::collections::{BTreeMap, BTreeSet};

/// Where each run ended: percent with its interval, losses, skill; plain predictions only.
#[must_use]
pub fn final_summary(table: &MergedTable) -> String {
    let header = [
        "model",
        "size",
        "dataset",
        "train samples",
        "seed",
        "weights",
        "step",
        "flow time",
        "percent [95%]",
        "loss",
        "relative %",
        "skill",
    ];
    render(
        &header,
        |row| {
            let get = |name: &str| cell(table, row, name).to_owned();
            let interval = match (
                number(&get("equiv_percent_lower")),
                number(&get("equiv_percent_upper")),
            ) {
                (Some(low), Some(high)) => format!(" [{}, {}]", short(low), short(high)),
                _ => String::new(),
            };
            vec![
                get("model"),
                get("size"),
                get("dataset"),
                get("train_samples"),
                get("seed"),
                get("weights"),
                get("step"),
                get("flow_time"),
                format!("{}{interval}", pretty(&get("equiv_percent"))),
                pretty(&get("loss_total")),
                pretty(&get("relative_equiv_percent")),
                pretty(&get("skill")),
            ]
        },
        table.rows.iter().filter(|row| is_plain(table, row)),
    )
}

/// When each curve dipped, learnt dips told from trivial ones; percent of the loss of plain predictions only. Where there are flow times,
/// a curve shows the lowest threshold that it reached, else all of them.
#[must_use]
pub fn dip_summary(table: &MergedTable) -> String {
    let header = [
        "model",
        "size",
        "train samples",
        "seed",
        "weights",
        "flow time",
        "below",
        "reached at step",
        "epoch",
        "skill there",
        "dip",
        "minimum",
    ];
    render(
        &header,
        |row| {
            let get = |name: &str| cell(table, row, name).to_owned();
            let reached = get("reached") == "true";
            let steps = match (reached, get("step_after")) {
                (false, _) => "not reached".into(),
                (true, after) if after.is_empty() => format!("≤ {}", get("step_reached")),
                (true, after) => format!("{after} – {}", get("step_reached")),
            };
            let kind = match get("learnt").as_str() {
                "true" => "learnt",
                "false" => "trivial: little is predicted yet",
                _ => "",
            };
            vec![
                get("model"),
                get("size"),
                get("train_samples"),
                get("seed"),
                get("weights"),
                get("flow_time"),
                format!("{}%", get("threshold_percent")),
                steps,
                pretty(&get("epoch_reached")),
                pretty(&get("skill_reached")),
                kind.into(),
                format!(
                    "{}% at {}",
                    pretty(&get("minimum_percent")),
                    get("minimum_step")
                ),
            ]
        },
        telling(table)
            .into_iter()
            .filter(|row| cell(table, row, "quantity") == "equiv_percent" && is_plain(table, row)),
    )
}

fn is_plain(table: &MergedTable, row: &[String]) -> bool {
    cell(table, row, "variant") == "plain"
}

/// The rows of dips that tell something: all of a task without flow times; else for each curve the lowest threshold that it reached, or
/// its highest if it reached none.
fn telling(table: &MergedTable) -> Vec<&Vec<String>> {
    let curve = |row: &[String]| {
        ["run", "weights", "flow_time", "variant", "quantity"]
            .map(|c| cell(table, row, c).to_owned())
    };
    let threshold =
        |row: &[String]| number(cell(table, row, "threshold_percent")).unwrap_or(f64::INFINITY);
    let reached = |row: &[String]| cell(table, row, "reached") == "true";
    // Reached before not reached; then the lowest of those reached, the highest of those not.
    let tells_more = |a: &[String], b: &[String]| match (reached(a), reached(b)) {
        (true, true) => threshold(a) < threshold(b),
        (false, false) => threshold(a) > threshold(b),
        (a, _) => a,
    };
    let mut best: BTreeMap<[String; 5], usize> = BTreeMap::new();
    for (index, row) in table
        .rows
        .iter()
        .enumerate()
        .filter(|(_, row)| !cell(table, row, "flow_time").is_empty())
    {
        let entry = best.entry(curve(row)).or_insert(index);
        if tells_more(row, &table.rows[*entry]) {
            *entry = index;
        }
    }
    let chosen: BTreeSet<usize> = best.into_values().collect();
    let keep = |(index, row): &(usize, &Vec<String>)| {
        cell(table, row, "flow_time").is_empty() || chosen.contains(index)
    };
    table
        .rows
        .iter()
        .enumerate()
        .filter(keep)
        .map(|(_, row)| row)
        .collect()
}

fn render<'a>(
    header: &[&str],
    cells: impl Fn(&[String]) -> Vec<String>,
    rows: impl Iterator<Item = &'a Vec<String>>,
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

fn cell<'a>(table: &MergedTable, row: &'a [String], column: &str) -> &'a str {
    table
        .column(column)
        .and_then(|i| row.get(i))
        .map_or("", String::as_str)
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Three significant digits; an empty cell stays empty.
fn pretty(text: &str) -> String {
    number(text).map(short).unwrap_or_default()
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

    /// Dips of one run: flow time, threshold, reached.
    fn dips(rows: &[(&str, &str, bool)]) -> MergedTable {
        let header = [
            "run",
            "weights",
            "flow_time",
            "variant",
            "quantity",
            "threshold_percent",
            "reached",
        ];
        let row = |(time, threshold, reached): &(&str, &str, bool)| {
            [
                "r",
                "raw",
                time,
                "plain",
                "equiv_percent",
                threshold,
                if *reached { "true" } else { "false" },
            ]
            .map(String::from)
            .to_vec()
        };
        MergedTable {
            name: "dip",
            header: header.map(Into::into).to_vec(),
            rows: rows.iter().map(row).collect(),
        }
    }

    fn shown(table: &MergedTable) -> Vec<(&str, &str)> {
        telling(table)
            .into_iter()
            .map(|row| {
                (
                    cell(table, row, "flow_time"),
                    cell(table, row, "threshold_percent"),
                )
            })
            .collect()
    }

    #[test]
    fn a_curve_with_a_flow_time_shows_the_lowest_threshold_that_it_reached_or_the_highest() {
        let table = dips(&[
            ("0", "10", true),
            ("0", "5", true),
            ("0", "3", false),
            ("0.9", "10", false),
            ("0.9", "5", false),
        ]);
        assert_eq!(shown(&table), [("0", "5"), ("0.9", "10")]);
        // Whatever the order of the rows.
        let turned = MergedTable {
            rows: table.rows.iter().rev().cloned().collect(),
            ..table
        };
        assert_eq!(shown(&turned), [("0.9", "10"), ("0", "5")]);
    }

    #[test]
    fn a_task_without_flow_times_shows_every_threshold() {
        let table = dips(&[("", "10", true), ("", "5", true), ("", "3", false)]);
        assert_eq!(shown(&table).len(), 3);
        assert!(dip_summary(&table).contains("not reached"));
    }
}
