//! What a reader must know before the numbers: one line each.

use crate::places::{Architecture, gather, is_of_run};
use equivbench_report::MergedTable;

/// Groups below which a number that is reported deserves a word of warning.
const FEW_GROUPS: u64 = 64;

/// Lines about seeds and groups, from the merged tables.
#[must_use]
pub fn notes(tables: &[MergedTable]) -> Vec<String> {
    let Some(last) = tables.iter().find(|t| t.name == "final") else {
        return Vec::new();
    };
    let rows = || last.rows().filter(is_of_run);
    let of_architectures = gather(rows().map(|row| (Architecture::of(row), row.text("run"))));
    let alone = |runs: &[&str]| runs.iter().all(|run| *run == runs[0]);
    let single = of_architectures.iter().filter(|(_, runs)| alone(runs));
    let mut single: Vec<String> = single.map(|(who, _)| who.name()).collect();
    single.dedup();
    let mut notes = Vec::new();
    if !single.is_empty() {
        notes.push(format!(
            "one seed: the spread of training is not known ({}); add --seeds 3",
            single.join(", ")
        ));
    }
    let measured = rows().filter(|row| row.find("set") == Some("measured"));
    let groups = gather(measured.filter_map(|row| {
        let who = Architecture::of(row);
        row.count("groups")
            .map(|groups| ((who.name(), who.dataset), groups))
    }));
    let few: Vec<String> = groups
        .iter()
        .filter_map(|((who, dataset), groups)| {
            let fewest = groups.iter().min().filter(|&&n| n < FEW_GROUPS)?;
            Some(format!("{who} {fewest} of {dataset}"))
        })
        .collect();
    if !few.is_empty() {
        notes.push(format!(
            "fewer than {FEW_GROUPS} groups of measured samples: {}; what their intervals cover: docs/intervals.md",
            few.join(", ")
        ));
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_and_few_groups_are_named() {
        let header = [
            "run",
            "model",
            "size",
            "dataset",
            "train_samples",
            "settings",
            "measurement",
            "set",
            "groups",
        ];
        let rows = [
            ["a", "escaip", "nano", "d", "10", "s", "", "measured", "24"],
            ["a", "escaip", "nano", "d", "10", "s", "", "test", "24"],
            ["b", "painn", "small", "d", "10", "t", "", "measured", "64"],
            ["c", "painn", "small", "d", "10", "t", "", "measured", "64"],
        ];
        let rows = rows.map(|r| r.map(str::to_owned).to_vec()).to_vec();
        let notes = notes(&[MergedTable::of("final", &header, rows)]);
        assert_eq!(notes.len(), 2);
        assert!(
            notes[0].contains("one seed") && notes[0].contains("(escaip nano)"),
            "{notes:?}"
        );
        assert!(
            notes[1].contains("escaip nano 24 of d") && !notes[1].contains("painn"),
            "{notes:?}"
        );
    }
}
