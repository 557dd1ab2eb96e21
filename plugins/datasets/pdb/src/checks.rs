//! What the dataset says about itself: what was read, what was left out and why, whether lengths are what they should be.

use crate::{clusters::Clusters, index::ReadingReport};
use equivbench_plugin::DataCheck;

/// Å between C-alphas of bonded residues: 3.80 for trans peptides, 2.9 for the few cis ones.
const USUAL_STEP: std::ops::RangeInclusive<f64> = 3.7..=3.9;
/// Share of unreadable files above which the check fails.
const FEW: f64 = 0.01;

/// All checks. `train` is the number of training chains.
pub(crate) fn checks(
    report: &ReadingReport,
    clusters: &Clusters,
    kept: usize,
    train: usize,
) -> Vec<DataCheck> {
    let mut checks = files(report);
    checks.extend(chains(report, kept));
    checks.extend(structure(report));
    checks.extend(of_clusters(clusters));
    checks.push(count(
        "sampling",
        train as u64,
        "uniform over chains: an epoch of training visits each chain of the training split once, however large its cluster is",
    ));
    checks
}

fn files(report: &ReadingReport) -> Vec<DataCheck> {
    let mut checks = vec![count(
        "files read",
        report.files,
        "structure files and members of archives",
    )];
    if report.unreadable > 0 {
        let share = report.unreadable as f64 / (report.unreadable + report.files) as f64;
        let about = format!(
            "they were left out; among them {}. The check fails above {} %: fetch them again",
            report.first_unreadable.join("; "),
            100.0 * FEW
        );
        checks.push(check(
            "files that could not be read",
            report.unreadable as f64,
            "",
            share <= FEW,
            about,
        ));
    }
    push_some(
        &mut checks,
        "files without a protein chain",
        report.without_chain,
        "nucleic acids, ligands or solvent only",
    );
    checks
}

fn chains(report: &ReadingReport, kept: usize) -> Vec<DataCheck> {
    let mut checks = vec![count(
        "chains",
        kept as u64,
        &format!("kept of {} with a C-alpha", report.chains),
    )];
    checks.extend(
        report
            .left_out
            .iter()
            .map(|(reason, n)| count("left out", *n, reason.about())),
    );
    checks
}

fn structure(report: &ReadingReport) -> Vec<DataCheck> {
    let median = report.median_step.unwrap_or_default();
    let mut checks = vec![
        check(
            "median C-alpha step",
            median,
            "angstrom",
            USUAL_STEP.contains(&median),
            "between residues that follow each other, breaks apart; 3.80 in proteins, anything else means another unit or other atoms"
                .into(),
        ),
        count(
            "chain breaks",
            report.breaks,
            &format!("steps above 4 angstrom, of {} residues: residues are missing there", report.residues),
        ),
    ];
    let tally = report.tally;
    push_some(
        &mut checks,
        "residues without C-alpha",
        tally.without_alpha,
        "dropped, in all chains that were read",
    );
    push_some(
        &mut checks,
        "alternate locations",
        tally.alternates,
        "C-alphas dropped: the first location in the file counts",
    );
    push_some(
        &mut checks,
        "modified residues",
        tally.modified,
        "amino acids in HETATM records, dropped (hetatm = \"modified\" keeps them)",
    );
    push_some(
        &mut checks,
        "residues of unknown name",
        tally.unknown,
        "with a C-alpha in ATOM records, dropped",
    );
    checks
}

fn of_clusters(clusters: &Clusters) -> Vec<DataCheck> {
    let about = format!("of chains that stay in one split: {}", clusters.about);
    let mut checks = vec![
        count("clusters", clusters.keys.len() as u64, &about),
        count(
            "largest cluster",
            clusters.largest(),
            "chains of the cluster that has most",
        ),
    ];
    push_some(
        &mut checks,
        "left out",
        clusters.missing(),
        "chains that the cluster file does not name",
    );
    checks
}

fn push_some(checks: &mut Vec<DataCheck>, name: &str, value: u64, about: &str) {
    if value > 0 {
        checks.push(count(name, value, about));
    }
}

fn count(name: &str, value: u64, about: &str) -> DataCheck {
    check(name, value as f64, "", true, about.into())
}

fn check(name: &str, value: f64, unit: &str, passed: bool, about: String) -> DataCheck {
    DataCheck {
        name: name.into(),
        value,
        unit: unit.into(),
        passed,
        about,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(report: &ReadingReport, name: &str) -> bool {
        checks(report, &Clusters::default(), 1, 1)
            .iter()
            .find(|c| c.name == name)
            .unwrap()
            .passed
    }

    #[test]
    fn wrong_lengths_and_many_unreadable_files_are_seen() {
        let report = |median_step, unreadable| ReadingReport {
            files: 100,
            unreadable,
            median_step,
            ..ReadingReport::default()
        };
        assert!(passed(&report(Some(3.8), 0), "median C-alpha step"));
        // Nanometres taken for ångström, and no step at all.
        assert!(
            !passed(&report(Some(0.38), 0), "median C-alpha step")
                && !passed(&report(None, 0), "median C-alpha step")
        );
        let name = "files that could not be read";
        assert!(passed(&report(Some(3.8), 1), name) && !passed(&report(Some(3.8), 2), name));
    }
}
