//! The unlabelled conformation files: refused as training data, read as conformations, bonds checked.

use crate::{fixture, refused};
use equivbench_spice::conformations::{BondReport, check_bonds, for_each_group};
use equivbench_testkit::{more_data, shared_data};

#[test]
fn conformations_without_labels_are_no_training_set() {
    let (_folder, path) = fixture("conformations.hdf5");
    let message = refused(&path, |_| ());
    assert!(
        message.contains("conformations.hdf5, group \"methanol\"")
            && message.contains("no energies/forces")
            && message.contains("label it first"),
        "{message}"
    );
    for file in [
        "des-monomers",
        "ions",
        "water",
        "solvated-amino-acids",
        "amino-acid-ligand-test",
    ] {
        if let Some(path) = more_data(&format!("real/spice/conformations/{file}.hdf5")) {
            assert!(refused(&path, |_| ()).contains("label it first"));
        }
    }
}

#[test]
fn elements_come_from_the_map_numbers_and_lengths_from_nanometres() {
    let (_folder, path) = fixture("conformations.hdf5");
    let mut found = Vec::new();
    assert_eq!(for_each_group(&path, |g| found.push(g)).unwrap(), 0);
    assert_eq!(
        found
            .iter()
            .map(|g| (g.name.as_str(), g.species.clone(), g.conformations()))
            .collect::<Vec<_>>(),
        [
            ("methanol", vec![6, 8, 1, 1, 1, 1], 3),
            ("water", vec![8, 1, 1], 3)
        ]
    );
    // f32 nanometres, so 1e-6 Å.
    assert!((found[1].positions[3] - 1.81 * equivbench_spice::units::BOHR).abs() < 1e-6);
}

#[test]
fn exchanged_rows_are_found() {
    let (_folder, path) = fixture("conformations.hdf5");
    let report = check_bonds(&path).unwrap();
    assert_eq!(
        report,
        BondReport {
            groups: 2,
            conformations: 6,
            empty_groups: 0,
            bad_groups: 1,
            bad_conformations: 1
        }
    );
}

/// 167 of 2,000 conformations in 37 of 200 groups, and none elsewhere: the figures of an independent check with RDKit.
#[test]
fn the_known_defect_of_the_amino_acid_ligand_test_set_is_found() {
    let Some([defect, monomers, solvated]) = shared_data([
        "real/spice/conformations/amino-acid-ligand-test.hdf5",
        "real/spice/conformations/des-monomers.hdf5",
        "real/spice/conformations/solvated-amino-acids.hdf5",
    ]) else {
        return;
    };
    for (path, groups, conformations, bad_groups, bad_conformations) in
        [(defect, 200, 2000, 37, 167), (monomers, 378, 18_900, 0, 0)]
    {
        let expected = BondReport {
            groups,
            conformations,
            empty_groups: 0,
            bad_groups,
            bad_conformations,
        };
        assert_eq!(check_bonds(&path).unwrap(), expected, "{}", path.display());
    }
    assert_eq!(check_bonds(&solvated).unwrap().bad_conformations, 0);
}
