//! The tables a person sees at the end of an experiment.

use crate::MergedTable;
use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};

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
        table,
        &header,
        |row| {
            let get = |name: &str| cell(table, row, name);
            let interval = match (number(&get("equiv_percent_lower")), number(&get("equiv_percent_upper"))) {
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
        |row| is_plain(table, row),
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
        table,
        &header,
        |row| {
            let get = |name: &str| cell(table, row, name);
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
                format!("{}% at {}", pretty(&get("minimum_percent")), get("minimum_step")),
            ]
        },
        |row| cell(table, row, "quantity") == "equiv_percent" && is_plain(table, row) && is_telling(table, row),
    )
}

fn is_plain(table: &MergedTable, row: &[String]) -> bool {
    cell(table, row, "variant") == "plain"
}

/// Whether a dip is the deepest of its curve, or its task has no flow times, or nothing was reached and this is the first threshold.
fn is_telling(table: &MergedTable, row: &[String]) -> bool {
    const CURVE: [&str; 5] = ["run", "weights", "flow_time", "variant", "quantity"];
    if cell(table, row, "flow_time").is_empty() {
        return true;
    }
    let of_curve = |other: &&Vec<String>| CURVE.iter().all(|c| cell(table, other, c) == cell(table, row, c));
    let reached = |other: &Vec<String>| cell(table, other, "reached") == "true";
    let deepest = table.rows.iter().filter(of_curve).rfind(|r| reached(r));
    let telling = deepest.or_else(|| table.rows.iter().find(of_curve));
    telling.is_some_and(|r| r.as_slice() == row)
}

fn render(source: &MergedTable, header: &[&str], cells: impl Fn(&[String]) -> Vec<String>, keep: impl Fn(&[String]) -> bool) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled).set_header(header.to_vec());
    for row in source.rows.iter().filter(|r| keep(r)) {
        table.add_row(cells(row));
    }
    table.to_string()
}

fn cell(table: &MergedTable, row: &[String], column: &str) -> String {
    table.column(column).and_then(|i| row.get(i)).cloned().unwrap_or_default()
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
    if x.abs() < 1e-4 { format!("{x:.2e}") } else { format!("{x:.digits$}") }
}
