//! The embedded sample against what it was made from.

use crate::{conformers, open, samples};
use equivbench_geom::{Geom, Options, embedded};
use equivbench_plugin::DatasetPlugin;
use equivbench_testkit::shared_data;
use std::collections::{BTreeMap, BTreeSet};

fn sample() -> Geom {
    Geom::open(
        Options {
            conformers: 0,
            valid_fraction: 0.0,
            test_fraction: 0.0,
            ..Options::default()
        },
        1,
    )
    .unwrap()
}

#[test]
fn the_sample_is_what_its_readme_says() {
    let data = sample();
    let descriptor = data.describe();
    let all = conformers(&data);
    let mut by_molecule = BTreeMap::<&str, usize>::new();
    all.iter()
        .for_each(|c| *by_molecule.entry(&c.0).or_default() += 1);
    let squares: f64 = all
        .iter()
        .flat_map(|c| c.2.as_flattened())
        .map(|&x| f64::from(x).powi(2))
        .sum();
    println!(
        "{} conformers, {} molecules, {} atoms, squares {squares}",
        all.len(),
        by_molecule.len(),
        crate::check(&descriptor, "atoms")
    );
    for check in &descriptor.checks {
        println!("{} = {} {}", check.name, check.value, check.about);
    }
    assert_eq!((all.len(), by_molecule.len()), (CONFORMERS, MOLECULES));
    assert!(by_molecule.values().all(|&n| (3..=4).contains(&n)));
    let elements: BTreeSet<u8> = all.iter().flat_map(|c| c.1.iter().copied()).collect();
    assert_eq!(
        elements.into_iter().collect::<Vec<_>>(),
        [1, 6, 7, 8, 9, 16, 17, 35]
    );
    assert!(
        descriptor
            .checks
            .iter()
            .all(|c| c.passed && c.name != "left out"),
        "{:#?}",
        descriptor.checks
    );
    // f32 and a sum of 200,000 numbers.
    assert!((squares / SQUARES - 1.0).abs() < 1e-6, "{squares}");
}

const CONFORMERS: usize = 1798;
const MOLECULES: usize = 490;
/// Å²: over all coordinates.
const SQUARES: f64 = 1_247_662.707_9;

/// Taken before the sample lay in a safetensors file: the hash covers atomic numbers and positions of all splits in their order,
/// by the fractions alone as at first.
#[test]
fn every_number_of_the_sample_is_served_as_ever() {
    let by_fractions = Options {
        min_valid_molecules: Some(0),
        min_test_molecules: Some(0),
        ..Options::default()
    };
    let data = Geom::open(by_fractions, 1).unwrap();
    assert_eq!(
        data.describe().content_hash,
        "3729f242afdc62e86992ba7abf988bd8151763d8f519cecb9f1ca6b848048a6e"
    );
}

/// The source agrees in every digit that it has: four decimals.
#[test]
fn the_sample_is_a_part_of_its_source() {
    let Some([path]) = shared_data(["geomlike/geomlike_drugs.sdf.gz"]) else {
        return;
    };
    let source = conformers(&open(&path, |_| ()));
    let mut found = 0;
    let mut of_molecule = BTreeMap::<&str, Vec<_>>::new();
    source
        .iter()
        .for_each(|c| of_molecule.entry(&c.0).or_default().push(c));
    let data = sample();
    for conformer in &conformers(&data) {
        let same = of_molecule[conformer.0.as_str()]
            .iter()
            .any(|c| c.1 == conformer.1 && c.2 == conformer.2);
        assert!(same, "{}", conformer.0);
        found += 1;
    }
    assert_eq!(found, samples(&data)[0].1);
}

#[test]
fn the_sample_can_be_made_again() {
    let Some([path]) = shared_data(["geomlike/geomlike_drugs.sdf.gz"]) else {
        return;
    };
    let committed = include_bytes!("../../data/geom-mini.safetensors");
    assert!(embedded::make(&path).unwrap() == committed);
}
