//! What the dataset finds out about itself when it is opened: what is there, what was left out, whether lengths are angstrom.

use crate::{collect::Collected, store::Store};
use equivbench_dataset_tools::elements;
use equivbench_plugin::DataCheck;
use std::collections::BTreeSet;

/// Conformers whose distances are looked at, spread over all.
const SURVEYED: usize = 2048;
/// Å. X-H bonds have 0.96 to 1.35, bonds of heavy atoms up to 1.9; most atoms have a hydrogen next to them.
const NEAREST: std::ops::RangeInclusive<f64> = 0.9..=1.6;

/// Everything that does not depend on the task.
pub(crate) fn checks(collected: &Collected, passed_over: u64) -> Vec<DataCheck> {
    let store = &collected.store;
    let conformers = store.len() as f64;
    let mut checks = vec![
        check(
            "molecules",
            collected.groups.len() as f64,
            "",
            true,
            about_molecules(collected),
        ),
        check(
            "conformers",
            conformers,
            "",
            true,
            format!(
                "{:.2} of a molecule on average",
                conformers / collected.groups.len().max(1) as f64
            ),
        ),
        check("atoms", store.atoms() as f64, "", true, about_sizes(store)),
    ];
    checks.extend(left_out(collected, passed_over));
    let names: Vec<&str> = found_elements(store)
        .into_iter()
        .map(elements::symbol)
        .collect();
    checks.push(check(
        "elements",
        names.len() as f64,
        "",
        true,
        names.join(" "),
    ));
    checks.extend(nearest(store));
    checks
}

/// Conformers and files that are not served, and what was seen among all conformers.
fn left_out(collected: &Collected, passed_over: u64) -> Vec<DataCheck> {
    let counts = &collected.counts;
    let count = |name: &str, n: u64, about: String| check(name, n as f64, "", true, about);
    let mut checks: Vec<DataCheck> = counts
        .left_out
        .iter()
        .map(|(why, &n)| {
            let foreign = if *why == crate::filter::Reason::Element {
                format!(" ({})", counts.foreign_elements())
            } else {
                String::new()
            };
            count("left out", n, format!("{}{foreign}", why.about()))
        })
        .collect();
    if passed_over > 0 {
        let about = "their endings are of no format that is read here".into();
        checks.push(count("files passed over", passed_over, about));
    }
    if counts.files.without_hydrogen > 0 {
        let about = format!(
            "of {} conformers with carbon, before anything was left out",
            counts.files.organic
        );
        let name = "conformers with carbon and no hydrogen on it";
        checks.push(count(name, counts.files.without_hydrogen, about));
    }
    checks
}

pub(crate) fn check(name: &str, value: f64, unit: &str, passed: bool, about: String) -> DataCheck {
    DataCheck {
        name: name.into(),
        value,
        unit: unit.into(),
        passed,
        about,
    }
}

fn about_molecules(collected: &Collected) -> String {
    let counts = &collected.counts;
    format!(
        "splits keep them together; {} told apart by the graph of their SMILES or bonds (stereoisomers count as one), {} by name or formula",
        counts.known_by_graph, counts.known_by_name
    )
}

fn about_sizes(store: &Store) -> String {
    let sizes = (0..store.len() as u32).map(|c| store.numbers(c).len());
    let (least, most) = sizes.fold((usize::MAX, 0), |(least, most), n| {
        (least.min(n), most.max(n))
    });
    format!(
        "{least} to {most} in a conformer, {:.1} on average",
        store.atoms() as f64 / store.len().max(1) as f64
    )
}

fn found_elements(store: &Store) -> BTreeSet<u8> {
    (0..store.len() as u32)
        .flat_map(|c| store.numbers(c))
        .copied()
        .collect()
}

/// The median distance of an atom to its nearest neighbour tells another unit of length.
fn nearest(store: &Store) -> Option<DataCheck> {
    let count = SURVEYED.min(store.len());
    let picked = (0..count).map(|i| (i * store.len() / count) as u32);
    let mut distances: Vec<f64> = picked
        .flat_map(|c| nearest_distances(store.positions(c)))
        .collect();
    let middle = distances.len() / 2;
    if middle >= distances.len() {
        return None;
    }
    let median = *distances.select_nth_unstable_by(middle, f64::total_cmp).1;
    let about = format!(
        "over {count} conformers; about 1.1 with hydrogens, 1.4 without; 2 means bohr, 0.1 nanometres: convert the file"
    );
    Some(check(
        "median distance to the nearest atom",
        median,
        "angstrom",
        NEAREST.contains(&median),
        about,
    ))
}

fn nearest_distances(positions: &[[f32; 3]]) -> Vec<f64> {
    let square =
        |a: &[f32; 3], b: &[f32; 3]| (0..3).map(|k| f64::from(a[k] - b[k]).powi(2)).sum::<f64>();
    let nearest = |i: usize| {
        let others = positions.iter().enumerate().filter(|(j, _)| *j != i);
        others
            .map(|(_, b)| square(&positions[i], b))
            .fold(f64::INFINITY, f64::min)
            .sqrt()
    };
    // Each distance costs a pass over all atoms, and a molecule of a thousand says enough with its first.
    (0..positions.len().min(200)).map(nearest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(scale: f64) -> Store {
        let mut store = Store::default();
        let water = [
            [0.0; 3],
            [0.96 * scale, 0.0, 0.0],
            [-0.24 * scale, 0.93 * scale, 0.0],
        ];
        store.push(0, &[8, 1, 1], &water).unwrap();
        store
    }

    #[test]
    fn another_unit_of_length_is_seen() {
        for (scale, passed) in [(1.0, true), (1.889_73, false), (0.1, false)] {
            assert_eq!(nearest(&store(scale)).unwrap().passed, passed, "{scale}");
        }
        assert_eq!(nearest(&Store::default()), None);
    }
}
