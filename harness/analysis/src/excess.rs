//! Percent of what could still be learnt: `100 L_equiv / (L − R*)`, with R* the lowest loss that any predictor can have.
//!
//! R* is known where the baseline is the best there is (flow time 0: its own loss). Elsewhere the lowest `L_mean` that any other run of
//! the experiment reached stands for it: no less than R*, so that the percent is then an upper bound.

use crate::places::{Place, is_of_run};
use equivbench_core::{Cell, ColumnInfo};
use equivbench_report::{MergedTable, Row};
use std::collections::HashMap;

/// The columns, of the merged tables `curve` and `final`.
pub const EXCESS: [ColumnInfo; 3] = [
    ColumnInfo {
        name: "reference_loss",
        unit: "target²",
        about: "merged tables only: R*, the loss below which nothing can be learnt; that of the baseline where it is the best there is, else the lowest loss_twirled of any other run of the experiment for the same samples; empty for rows of the run that has the lowest",
        timing: false,
    },
    ColumnInfo {
        name: "reference",
        unit: "",
        about: "merged tables only: exact, or lowest seen (then excess_percent is an upper bound)",
        timing: false,
    },
    ColumnInfo {
        name: "excess_percent",
        unit: "%",
        about: "merged tables only: 100 loss_equiv / (loss_total - reference_loss), percent of what could still be learnt; empty where the loss is not above the reference",
        timing: false,
    },
];

/// The question that a row answers: of which samples (as many, drawn by one seed), and which loss.
type Question = ((String, String, String, Vec<String>), [String; 3]);

fn question(row: Row<'_>) -> Question {
    let how = ["measured_loss", "samples", "measure_seed"];
    let how = how.map(|column| row.find(column).unwrap_or_default().to_owned());
    (Place::of(row).question(), how)
}

/// Adds the columns to the tables that have losses.
pub fn add_excess(tables: &mut [MergedTable]) {
    let has_losses = |t: &&mut MergedTable| ["curve", "final"].contains(&t.name);
    let lowest = lowest_losses(tables);
    for table in tables.iter_mut().filter(has_losses) {
        let cells = table.rows().map(|row| excess(row, &lowest)).collect();
        table.add_columns(&EXCESS.map(|c| c.name), cells);
    }
}

/// For each question the lowest `L_mean` and the run that has it.
fn lowest_losses(tables: &[MergedTable]) -> HashMap<Question, (f64, String)> {
    let mut lowest: HashMap<Question, (f64, String)> = HashMap::new();
    let with_losses = tables
        .iter()
        .filter(|t| ["curve", "final"].contains(&t.name));
    for row in with_losses.flat_map(MergedTable::rows).filter(is_of_run) {
        let Some(loss) = row.real("loss_twirled") else {
            continue;
        };
        let found = (loss, row.text("run").to_owned());
        let known = lowest.entry(question(row)).or_insert_with(|| found.clone());
        if loss < known.0 {
            *known = found;
        }
    }
    lowest
}

fn excess(row: Row<'_>, lowest: &HashMap<Question, (f64, String)>) -> Vec<Cell> {
    let nothing = vec![Cell::Missing; EXCESS.len()];
    let exact = row.flag("learnable") == Some(false);
    let reference = if exact {
        row.real("baseline_loss")
    } else {
        let other = lowest.get(&question(row));
        other
            .filter(|(_, run)| run != row.text("run"))
            .map(|(loss, _)| *loss)
    };
    let (Some(reference), Some(total), Some(equiv)) =
        (reference, row.real("loss_total"), row.real("loss_equiv"))
    else {
        return nothing;
    };
    let above = total - reference;
    vec![
        Cell::Real(reference),
        Cell::from(if exact { "exact" } else { "lowest seen" }),
        Cell::from((above > 0.0).then(|| 100.0 * equiv / above)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_that_of_another_run_or_exact() {
        let header = [
            "run",
            "dataset",
            "set",
            "split",
            "flow_time",
            "learnable",
            "loss_total",
            "loss_twirled",
            "loss_equiv",
            "baseline_loss",
        ];
        let rows: [[&str; 10]; 4] = [
            [
                "a", "d", "measured", "valid", "0.5", "true", "4", "3", "1", "9",
            ],
            [
                "a", "d", "measured", "valid", "0", "false", "4", "3", "1", "2",
            ],
            [
                "b", "d", "measured", "valid", "0.5", "true", "2.5", "2", "0.5", "9",
            ],
            [
                "b", "d", "test", "test", "0.5", "true", "1.9", "1.5", "0.4", "9",
            ],
        ];
        let rows = rows.map(|r| r.map(str::to_owned).to_vec()).to_vec();
        let mut tables = [MergedTable::of("curve", &header, rows)];
        add_excess(&mut tables);
        let found: Vec<_> = tables[0]
            .rows()
            .map(|r| {
                (
                    r.real("reference_loss"),
                    r.text("reference").to_owned(),
                    r.real("excess_percent"),
                )
            })
            .collect();
        assert_eq!(found[0], (Some(2.0), "lowest seen".into(), Some(50.0)));
        assert_eq!(found[1], (Some(2.0), "exact".into(), Some(50.0)));
        // It has the lowest itself, and on the split for reporting nobody else was measured.
        for own in &found[2..] {
            assert_eq!(*own, (None, String::new(), None));
        }
    }
}
