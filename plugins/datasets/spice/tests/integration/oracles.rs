//! Sums over whole files against figures that h5py (HDF5) and ASE (extended XYZ, LMDB) gave for the same files.
//!
//! Tolerance 1e-12 relative for sums of the numbers of a file: both sides add in f64, in another order. Where units of the file were converted and
//! are converted back, 1e-11.

use crate::{left_out, open, shared};
use equivbench_plugin::DatasetPlugin;
use equivbench_spice::{Options, Spice, units};
use std::path::Path;

#[derive(Debug, Default, PartialEq)]
struct Sums {
    molecules: f64,
    conformations: u64,
    atoms: u64,
    energy: f64,
    force_square: f64,
    position_square: f64,
    species: u64,
}

fn sums(data: &mut Spice) -> Sums {
    let descriptor = data.describe();
    let mut sums = Sums {
        molecules: descriptor
            .checks
            .iter()
            .find(|c| c.name == "molecules")
            .unwrap()
            .value,
        ..Sums::default()
    };
    for split in &descriptor.splits {
        let indices: Vec<u64> = (0..split.samples).collect();
        let mut points = vec![0; indices.len()];
        data.points(&split.name, &indices, &mut points).unwrap();
        for (&i, &atoms) in indices.iter().zip(&points) {
            let c = data.conformation(&split.name, i).unwrap();
            assert_eq!(c.species.len() as u64, atoms);
            sums.conformations += 1;
            sums.atoms += atoms;
            sums.energy += c.energy;
            sums.force_square += c.forces.iter().map(|f| f * f).sum::<f64>();
            sums.position_square += c.positions.iter().map(|x| x * x).sum::<f64>();
            sums.species += c.species.iter().map(|&z| u64::from(z)).sum::<u64>();
        }
    }
    sums
}

fn close(what: &str, got: f64, expected: f64, tolerance: f64) {
    assert!(
        (got - expected).abs() <= tolerance * expected.abs(),
        "{what}: {got} instead of {expected}"
    );
}

fn compare(
    file: &Path,
    change: impl FnOnce(&mut Options),
    units: (f64, f64, f64),
    expected: &Sums,
    tolerance: f64,
) -> Spice {
    let mut data = open(file, change);
    let got = sums(&mut data);
    assert_eq!(
        (got.molecules, got.conformations, got.atoms, got.species),
        (
            expected.molecules,
            expected.conformations,
            expected.atoms,
            expected.species
        ),
        "{}",
        file.display()
    );
    let (length, energy, force) = units;
    close("energy", got.energy / energy, expected.energy, tolerance);
    close(
        "force²",
        got.force_square / (force * force),
        expected.force_square,
        tolerance,
    );
    close(
        "position²",
        got.position_square / (length * length),
        expected.position_square,
        tolerance,
    );
    data
}

const ATOMIC: (f64, f64, f64) = (units::BOHR, units::HARTREE, units::HARTREE / units::BOHR);
const ASE: (f64, f64, f64) = (1.0, 1.0, 1.0);

fn hdf5(file: &str, name: &str, expected: &Sums) {
    let Some(path) = shared(file) else { return };
    // Few groups: frames are divided so that nothing is left out of the sums.
    let data = compare(
        &path,
        |o| o.split_by = "frame".into(),
        ATOMIC,
        expected,
        1e-11,
    );
    assert_eq!(data.describe().name, name);
}

/// h5py.
#[test]
fn des_monomers_agree_with_h5py() {
    let expected = Sums {
        molecules: 378.0,
        conformations: 18_900,
        atoms: 243_300,
        energy: -48_049.853_373_834_37,
        force_square: 218.885_048_302_235_2,
        position_square: 4_582_554.009_171_187,
        species: 961_150,
    };
    hdf5(
        "xtb/des_monomers_gfn2.hdf5",
        "des_monomers_gfn2 (GFN2-xTB)",
        &expected,
    );
    let Some(path) = shared("xtb/des_monomers_gfn2.hdf5") else {
        return;
    };
    close(
        "force RMS",
        crate::check(&open(&path, |_| ()).describe(), "force RMS").0,
        0.890_483_548_519_861_1,
        1e-11,
    );
}

/// h5py.
#[test]
fn druglike_molecules_agree_with_h5py() {
    let expected = Sums {
        molecules: 694.0,
        conformations: 10_410,
        atoms: 330_750,
        energy: -76_004.211_009_959_33,
        force_square: 393.571_537_797_262,
        position_square: 18_673_358.720_590_61,
        species: 1_362_480,
    };
    hdf5(
        "xtb/druglike_gfn2.hdf5",
        "druglike_gfn2 (GFN2-xTB)",
        &expected,
    );
}

/// h5py.
#[test]
fn water_clusters_agree_with_h5py() {
    let expected = Sums {
        molecules: 1.0,
        conformations: 200,
        atoms: 18_000,
        energy: -3_144.717_959_105_361,
        force_square: 11.580_822_851_071_963,
        position_square: 1_426_341.469_034_697,
        species: 60_000,
    };
    hdf5(
        "xtb/water30_gfn2.hdf5",
        "water30_gfn2 (GFN2-xTB)",
        &expected,
    );
}

/// h5py.
#[test]
fn the_excerpt_of_spice_agrees_with_h5py_and_is_the_only_one_called_dft() {
    let expected = Sums {
        molecules: 2.0,
        conformations: 55,
        atoms: 1375,
        energy: -217.018_048_778_316_6,
        force_square: 1.155_043_853_609_903_5,
        position_square: 37_574.427_404_243_17,
        species: 3775,
    };
    hdf5(
        "real/spice/SPICE-1.1.4_n2.hdf5",
        "SPICE-1.1.4_n2 (wB97M-D3BJ)",
        &expected,
    );
    let Some(path) = shared("real/spice/SPICE-1.1.4_n2.hdf5") else {
        return;
    };
    let descriptor = open(&path, |_| ()).describe();
    assert_eq!(
        descriptor.normalisers["forces"].scale,
        1.075_799_982_214_481_3
    );
    assert_eq!(
        descriptor.normalisers["energy"].mean,
        -140.803_565_190_357_92
    );
    assert!(
        descriptor.checks.iter().all(|c| c.passed),
        "{:#?}",
        descriptor.checks
    );
}

/// h5py.
#[test]
fn uncompressed_arrays_agree_with_h5py() {
    let expected = Sums {
        molecules: 32.0,
        conformations: 1600,
        atoms: 20_800,
        energy: -4_085.400_044_840_616,
        force_square: 17.399_272_651_758_487,
        position_square: 376_687.388_404_151_2,
        species: 82_750,
    };
    hdf5(
        "formats_samples/spice_layout_contiguous.hdf5",
        "spice_layout_contiguous (GFN2-xTB)",
        &expected,
    );
}

/// h5py, over the groups of tests/fixtures/release.hdf5 that are not skipped; runs without shared data.
#[test]
fn the_fixture_agrees_with_h5py_without_any_download() {
    let (_folder, path) = crate::fixture("release.hdf5");
    let expected = Sums {
        molecules: 8.0,
        conformations: 27,
        atoms: 488,
        energy: -114.251_903_112_112_29,
        force_square: 0.696_172_479_448_429_6,
        position_square: 18_097.575_201_223_633,
        species: 2317,
    };
    let data = compare(
        &path,
        |o| o.split_by = "frame".into(),
        ATOMIC,
        &expected,
        1e-11,
    );
    assert_eq!(left_out(&data.describe(), "single atom"), 1.0);
    assert_eq!(left_out(&data.describe(), "without conformations"), 1.0);
}

fn xyz(file: &str, expected: &Sums) {
    let Some(path) = shared(file) else { return };
    compare(&path, |o| o.split_by = "frame".into(), ASE, expected, 1e-12);
}

/// ASE.
#[test]
fn trajectories_of_3bpa_agree_with_ase() {
    let expected = Sums {
        molecules: 1.0,
        conformations: 500,
        atoms: 13_500,
        energy: -8_830_216.209_191_523,
        force_square: 36_395.889_165_919_06,
        position_square: 213_925.195_289_883_82,
        species: 53_000,
    };
    xyz("real/qm/BOTNet/3BPA_train_300K.xyz.gz", &expected);
    let expected = Sums {
        energy: -8_829_558.856_034_97,
        force_square: 81_810.220_956_177_71,
        position_square: 217_205.056_338_720_46,
        ..expected
    };
    xyz("real/qm/BOTNet/3BPA_train_mixedT.xyz.gz", &expected);
}

/// ASE.
#[test]
fn trajectories_of_ethanol_agree_with_ase() {
    let expected = Sums {
        molecules: 1.0,
        conformations: 1000,
        atoms: 9000,
        energy: -4_209_622.109_428_346,
        force_square: 38_333.938_179_944_57,
        position_square: 22_903.353_425_254_176,
        species: 26_000,
    };
    xyz("real/qm/BOTNet/ethanol_test_MD.xyz.gz", &expected);
    let expected = Sums {
        energy: -4_209_617.132_528_299_5,
        force_square: 38_049.918_310_853_594,
        position_square: 22_927.546_114_170_71,
        ..expected
    };
    xyz("real/qm/BOTNet/ethanol_train.xyz.gz", &expected);
}

/// ASE, in the units of the file (kcal/mol).
#[test]
fn a_file_in_kilocalories_agrees_with_ase_once_the_unit_is_named() {
    let Some(path) = shared("real/qm/metatrain/ethanol_reduced_100.xyz.gz") else {
        return;
    };
    let expected = Sums {
        molecules: 1.0,
        conformations: 100,
        atoms: 900,
        energy: -9_707_614.929_243_12,
        force_square: 2_091_291.869_528_434_7,
        position_square: 2_284.833_793_406_222_4,
        species: 2600,
    };
    let kcal = (1.0, units::KCAL_PER_MOL, units::KCAL_PER_MOL);
    let data = compare(
        &path,
        |o| o.energy_unit = Some("kcal/mol".into()),
        kcal,
        &expected,
        1e-11,
    );
    assert!(
        data.describe().checks.iter().all(|c| c.passed),
        "{:#?}",
        data.describe().checks
    );
    let (rms, passed) = crate::check(&open(&path, |_| ()).describe(), "force RMS");
    assert!(
        !passed && rms > 20.0,
        "without the unit the check must fail: {rms}"
    );
}

/// ASE; the three one-atom frames are left out here, their energies and atoms are subtracted from ASE's sums.
#[test]
fn solvents_agree_with_ase_in_spite_of_integer_columns_and_reference_atoms() {
    let expected = Sums {
        molecules: 85.0,
        conformations: 1000,
        atoms: 30_076,
        energy: -1_509_627.727_143_808,
        force_square: 473_197.871_610_221,
        position_square: 716_295.867_626_347_2,
        species: 124_888,
    };
    xyz("real/qm/solvents/solvent_xtb_test.xyz.gz", &expected);

    let Some(path) = shared("real/qm/solvents/solvent_train.xyz.gz") else {
        return;
    };
    for (energy, forces, force_square) in [
        ("energy_xtb", "forces_xtb", 86_442.257_067_316_47),
        ("MACE_energy", "MACE_forces", 85_383.672_157_326_2),
    ] {
        let mut data = open(&path, |o| {
            (o.split_by, o.energy_key, o.forces_key) =
                ("frame".into(), Some(energy.into()), Some(forces.into()));
        });
        let got = sums(&mut data);
        assert_eq!(
            (
                got.conformations,
                got.atoms,
                left_out(&data.describe(), "single atom")
            ),
            (200, 5806, 3.0)
        );
        close("force²", got.force_square, force_square, 1e-12);
        close(
            "position²",
            got.position_square,
            143_939.018_364_390_74,
            1e-12,
        );
    }
}

/// ASE, the same 300 rows in both formats.
#[test]
fn extended_xyz_and_lmdb_of_one_set_agree_with_ase_and_with_each_other() {
    let expected = Sums {
        molecules: 60.0,
        conformations: 300,
        atoms: 3380,
        energy: -120_318.364_250_422_79,
        force_square: 8_771.714_436_014_943,
        position_square: 14_848.823_835_056_53,
        species: 13_650,
    };
    xyz("formats_samples/ase/sample.extxyz.gz", &expected);
    let expected = Sums {
        force_square: 8_771.714_436_120_05,
        position_square: 14_848.823_834_923_636,
        ..expected
    };
    xyz("formats_samples/ase/sample.aselmdb", &expected);
}

/// h5py, in the units of the file: the figures of data/README.md.
#[test]
fn the_embedded_sample_agrees_with_h5py() {
    let mut data = Spice::open(Options::default(), 7).unwrap();
    let got = sums(&mut data);
    assert_eq!(
        (got.molecules, got.conformations, got.atoms),
        (694.0, 2082, 66_150)
    );
    close(
        "energy",
        got.energy / ATOMIC.1,
        -15_200.836_771_531_183,
        1e-11,
    );
    close(
        "force²",
        got.force_square / (ATOMIC.2 * ATOMIC.2),
        79.047_195_635_492_81,
        1e-11,
    );
    close(
        "position²",
        got.position_square / (ATOMIC.0 * ATOMIC.0),
        3_734_053.414_608_802,
        1e-11,
    );
    let descriptor = data.describe();
    assert_eq!(descriptor.name, "spice-mini (GFN2-xTB)");
    assert!(
        descriptor.checks.iter().all(|c| c.passed),
        "{:#?}",
        descriptor.checks
    );
}

/// The sample is a part of the set it was cut from, number for number.
#[test]
fn every_embedded_conformation_lies_in_the_set_it_was_cut_from() {
    let Some(path) = shared("xtb/druglike_gfn2.hdf5") else {
        return;
    };
    let mut all = std::collections::HashSet::new();
    let mut collect = |data: &mut Spice, insert: bool| {
        for split in data.describe().splits {
            for i in 0..split.samples {
                let c = data.conformation(&split.name, i).unwrap();
                let bits = |v: &[f64]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                let entry = (
                    c.species.clone(),
                    bits(&c.positions),
                    bits(&c.forces),
                    c.energy.to_bits(),
                );
                assert!(if insert {
                    all.insert(entry)
                } else {
                    all.remove(&entry)
                });
            }
        }
    };
    collect(&mut open(&path, |_| ()), true);
    collect(&mut Spice::open(Options::default(), 1).unwrap(), false);
    assert_eq!(all.len(), 10_410 - 2082);
}
