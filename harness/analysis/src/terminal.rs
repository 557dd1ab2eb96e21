//! The tables a person sees at the end of an experiment, from `summary.csv`.

use crate::{
    compare::short,
    places::{Place, gather},
};
use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use equivbench_core::{Axis, AxisRole, all_axes};
use equivbench_report::{MergedTable, Row};

/// Where the seeds ended, with intervals that contain training: on the split for reporting where it was measured. Of conditions that
/// share inputs, the first reading only.
#[must_use]
pub fn final_summary(summary: &MergedTable) -> String {
    let last = || rows_of(summary, "last");
    let reports = last().any(|r| r.text("set") == "test");
    let set = if reports { "test" } else { "measured" };
    let mut header = vec![
        "model",
        "size",
        "train samples",
        "seeds",
        "weights",
        "samples",
    ];
    let several = has_several_settings(last());
    header.extend(several.then_some("settings"));
    header.extend(input_axes().map(|axis| axis.heading));
    header.extend([
        "percent [95%]",
        "loss [95%]",
        "relative % [95%]",
        "skill [95%]",
    ]);
    let shown = last()
        .filter(|r| r.text("set") == set)
        .filter(is_first_reading);
    let cells = |(place, rows): (Place, Vec<Row<'_>>)| {
        let of = |quantity: &str| {
            let row = rows.iter().find(|r| r.text("quantity") == quantity);
            row.map(|r| centre(*r)).unwrap_or_default()
        };
        let seeds = rows.first().map(|r| r.text("seeds").to_owned());
        let mut cells = vec![
            place.architecture.model.clone(),
            place.architecture.size.clone(),
            place.architecture.train_samples.to_string(),
            seeds.unwrap_or_default(),
            place.weights.clone(),
            set.to_owned(),
        ];
        cells.extend(several.then(|| place.architecture.settings.clone()));
        cells.extend(input_axes().map(|axis| place.axis(axis).to_owned()));
        cells.extend(
            [
                "equiv_percent",
                "loss_total",
                "relative_equiv_percent",
                "skill",
            ]
            .map(of),
        );
        cells
    };
    let places = gather(shown.map(|row| (Place::of(row), row)));
    render(&header, places.into_iter().map(cells))
}

/// Where the seeds lie, with their interval; `< floor` where rounding is all that is seen.
fn centre(row: Row<'_>) -> String {
    let Some(centre) = row.real("centre") else {
        return String::new();
    };
    if row.text("centre_is") == "median below" {
        return format!("< {}", short(centre));
    }
    match row.real("lower").zip(row.real("upper")) {
        Some((lower, upper)) => format!("{} [{}, {}]", short(centre), short(lower), short(upper)),
        None => short(centre),
    }
}

/// When the seeds dipped: first, learnt and settled beside each other; percent of the loss only. Where several inputs are measured, a
/// curve shows the lowest threshold that a seed reached, else the highest.
#[must_use]
pub fn dip_summary(summary: &MergedTable) -> String {
    let mut header = vec!["model", "size", "train samples", "weights"];
    let several = has_several_settings(rows_of(summary, "crossing"));
    header.extend(several.then_some("settings"));
    header.extend(input_axes().map(|axis| axis.heading));
    header.extend([
        "below",
        "first at step",
        "learnt at step",
        "settled at step",
    ]);
    let percent = |r: &Row<'_>| r.text("quantity") == "equiv_percent";
    let shown = rows_of(summary, "crossing")
        .filter(percent)
        .filter(is_first_reading);
    let curves = gather(shown.map(|row| (Place::of(row), row)));
    let mut lines = Vec::new();
    for (place, rows) in curves {
        let thresholds = gather(rows.into_iter().map(|r| (r.text("threshold_percent"), r)));
        for (threshold, rows) in telling(&place, thresholds) {
            let of = |kind: &str| {
                let row = rows.iter().find(|r| r.text("crossing") == kind);
                row.map(|r| when(*r)).unwrap_or_default()
            };
            let mut cells = vec![
                place.architecture.model.clone(),
                place.architecture.size.clone(),
                place.architecture.train_samples.to_string(),
                place.weights.clone(),
            ];
            cells.extend(several.then(|| place.architecture.settings.clone()));
            cells.extend(input_axes().map(|axis| place.axis(axis).to_owned()));
            cells.push(format!("{threshold}%"));
            cells.extend(["first", "learnt", "settled"].map(of));
            lines.push(cells);
        }
    }
    render(&header, lines.into_iter())
}

/// The thresholds of a curve that tell something.
fn telling<'a>(
    place: &Place,
    thresholds: Vec<(&'a str, Vec<Row<'a>>)>,
) -> Vec<(&'a str, Vec<Row<'a>>)> {
    let has_inputs = input_axes().any(|axis| !place.axis(axis).is_empty());
    if !has_inputs {
        return thresholds;
    }
    let is_reached = |(_, rows): &&(&str, Vec<Row<'_>>)| {
        rows.iter()
            .any(|r| r.text("crossing") == "first" && r.count("reached") > Some(0))
    };
    let value = |(threshold, _): &(&str, Vec<Row<'_>>)| threshold.parse().unwrap_or(f64::INFINITY);
    let lowest = thresholds
        .iter()
        .filter(is_reached)
        .min_by(|a, b| value(a).total_cmp(&value(b)));
    let highest = || {
        thresholds
            .iter()
            .max_by(|a, b| value(a).total_cmp(&value(b)))
    };
    lowest.or_else(highest).cloned().into_iter().collect()
}

/// Median, range or interval, and how many of the seeds.
fn when(row: Row<'_>) -> String {
    let (seeds, reached) = (
        row.count("seeds").unwrap_or(0),
        row.count("reached").unwrap_or(0),
    );
    if row.flag("nothing_to_learn") == Some(true) {
        return "nothing to learn".into();
    }
    if reached == 0 {
        return "not reached".into();
    }
    if row.count("from_the_start") == Some(seeds) {
        return "from the start".into();
    }
    let step = |column: &str| {
        row.real(column)
            .map_or("later".to_owned(), |s| s.to_string())
    };
    let range = match row.real("step_coverage") {
        Some(_) => format!(" [{}, {}]", step("step_lower"), step("step_upper")),
        None => String::new(),
    };
    format!("{}{range}, {reached} of {seeds}", step("step_median"))
}

/// Whether runs of one model differ in settings, which a table must then tell apart.
fn has_several_settings<'a>(rows: impl Iterator<Item = Row<'a>>) -> bool {
    let settings = rows.map(|row| {
        let who = Place::of(row).architecture;
        ((who.model, who.size, who.train_samples), who.settings)
    });
    let several = |(_, all): &(_, Vec<String>)| all.iter().any(|one| *one != all[0]);
    gather(settings).iter().any(several)
}

fn rows_of<'a>(summary: &'a MergedTable, moment: &'a str) -> impl Iterator<Item = Row<'a>> {
    summary.rows().filter(move |r| r.text("moment") == moment)
}

fn input_axes() -> impl Iterator<Item = &'static Axis> {
    all_axes()
        .into_iter()
        .filter(|axis| axis.role == AxisRole::Input)
}

/// Whether a row is of the first reading of its inputs.
fn is_first_reading(row: &Row<'_>) -> bool {
    let first = |axis: &&Axis| match axis.without {
        Some(first) if axis.role == AxisRole::Reading => row.find(axis.name) == Some(first),
        _ => true,
    };
    all_axes().iter().all(first)
}

fn render(header: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 24] = [
        "model",
        "size",
        "dataset",
        "train_samples",
        "settings",
        "weights",
        "set",
        "flow_time",
        "variant",
        "moment",
        "step",
        "quantity",
        "seeds",
        "centre",
        "centre_is",
        "lower",
        "upper",
        "crossing",
        "threshold_percent",
        "reached",
        "from_the_start",
        "nothing_to_learn",
        "step_median",
        "step_coverage",
    ];

    fn table(rows: &[&[(&str, &str)]]) -> MergedTable {
        let row = |named: &&[(&str, &str)]| {
            let of = |column: &&str| {
                let cell = named.iter().find(|(c, _)| c == column);
                let default = if *column == "variant" { "plain" } else { "" };
                cell.map_or(default, |(_, v)| v).to_owned()
            };
            HEADER.iter().map(of).collect()
        };
        MergedTable::of("summary", &HEADER, rows.iter().map(row).collect())
    }

    #[test]
    fn the_split_for_reporting_is_shown_and_rounding_is_called_so() {
        let of = |set, quantity, centre, kind| -> Vec<(&'static str, &'static str)> {
            vec![
                ("model", "m"),
                ("weights", "raw"),
                ("set", set),
                ("moment", "last"),
                ("quantity", quantity),
                ("seeds", "3"),
                ("centre", centre),
                ("centre_is", kind),
            ]
        };
        let rows = [
            of("measured", "equiv_percent", "7", "geometric mean"),
            of("test", "equiv_percent", "1e-12", "median below"),
            of("test", "skill", "0.5", "mean"),
        ];
        let rows: Vec<&[(&str, &str)]> = rows.iter().map(Vec::as_slice).collect();
        let text = final_summary(&table(&rows));
        assert!(
            text.contains("< 1.00e-12") && text.contains("0.500") && !text.contains('7'),
            "{text}"
        );
    }

    fn crossing<'a>(
        time: &'a str,
        threshold: &'a str,
        kind: &'a str,
        reached: &'a str,
    ) -> Vec<(&'a str, &'a str)> {
        let nothing = if time == "0" && kind == "learnt" {
            "true"
        } else {
            "false"
        };
        let median = if reached == "0" { "" } else { "300" };
        vec![
            ("moment", "crossing"),
            ("flow_time", time),
            ("quantity", "equiv_percent"),
            ("seeds", "3"),
            ("threshold_percent", threshold),
            ("crossing", kind),
            ("reached", reached),
            ("from_the_start", "0"),
            ("nothing_to_learn", nothing),
            ("step_median", median),
        ]
    }

    #[test]
    fn a_curve_with_a_flow_time_shows_the_lowest_threshold_that_was_reached_or_the_highest() {
        let mut rows = [
            crossing("0", "10", "first", "3"),
            crossing("0", "5", "first", "1"),
            crossing("0", "5", "learnt", "0"),
            crossing("0", "3", "first", "0"),
            crossing("0.9", "10", "first", "0"),
            crossing("0.9", "5", "first", "0"),
        ];
        for _ in 0..2 {
            let own: Vec<&[(&str, &str)]> = rows.iter().map(Vec::as_slice).collect();
            let text = dip_summary(&table(&own));
            for (shown, is) in [
                ("300, 1 of 3", true),
                ("nothing to learn", true),
                ("10%", true),
                (" 3%", false),
            ] {
                assert_eq!(text.contains(shown), is, "{shown}: {text}");
            }
            // Whatever the order of the rows.
            rows.reverse();
        }
    }

    #[test]
    fn a_task_without_flow_times_shows_every_threshold() {
        let rows = [
            crossing("", "10", "first", "3"),
            crossing("", "5", "first", "2"),
            crossing("", "3", "first", "0"),
        ];
        let rows: Vec<&[(&str, &str)]> = rows.iter().map(Vec::as_slice).collect();
        let text = dip_summary(&table(&rows));
        assert!(
            text.contains("300, 2 of 3") && text.contains("not reached") && text.contains("10%")
        );
    }
}
