//! Sums over whole files against figures that h5py (HDF5) and ASE (extended XYZ, LMDB) gave for the same files.
//!
//! Tolerance 1e-12 relative for sums of the numbers of a file: both sides add in f64, in another order. Where units of the file were converted and
//! are converted back, 1e-11.

use crate::{left_out, open};
use equivbench_plugin::DatasetPlugin;
use equivbench_spice::{Options, Spice, units};
use equivbench_testkit::{more_data, shared_data};
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

/// Files of the shared data, the names they get, and sums by h5py.
const HDF5: [(&str, &str, Sums); 5] = [
    (
        "xtb/des_monomers_gfn2.hdf5",
        "des_monomers_gfn2 (GFN2-xTB)",
        Sums {
            molecules: 378.0,
            conformations: 18_900,
            atoms: 243_300,
            energy: -48_049.853_373_834_37,
            force_square: 218.885_048_302_235_2,
            position_square: 4_582_554.009_171_187,
            species: 961_150,
        },
    ),
    (
        "xtb/druglike_gfn2.hdf5",
        "druglike_gfn2 (GFN2-xTB)",
        Sums {
            molecules: 694.0,
            conformations: 10_410,
            atoms: 330_750,
            energy: -76_004.211_009_959_33,
            force_square: 393.571_537_797_262,
            position_square: 18_673_358.720_590_61,
            species: 1_362_480,
        },
    ),
    (
        "xtb/water30_gfn2.hdf5",
        "water30_gfn2 (GFN2-xTB)",
        Sums {
            molecules: 1.0,
            conformations: 200,
            atoms: 18_000,
            energy: -3_144.717_959_105_361,
            force_square: 11.580_822_851_071_963,
            position_square: 1_426_341.469_034_697,
            species: 60_000,
        },
    ),
    // Uncompressed arrays.
    (
        "formats_samples/spice_layout_contiguous.hdf5",
        "spice_layout_contiguous (GFN2-xTB)",
        Sums {
            molecules: 32.0,
            conformations: 1600,
            atoms: 20_800,
            energy: -4_085.400_044_840_616,
            force_square: 17.399_272_651_758_487,
            position_square: 376_687.388_404_151_2,
            species: 82_750,
        },
    ),
    // The only one that is called DFT.
    (
        "real/spice/SPICE-1.1.4_n2.hdf5",
        "SPICE-1.1.4_n2 (wB97M-D3BJ)",
        Sums {
            molecules: 2.0,
            conformations: 55,
            atoms: 1375,
            energy: -217.018_048_778_316_6,
            force_square: 1.155_043_853_609_903_5,
            position_square: 37_574.427_404_243_17,
            species: 3775,
        },
    ),
];

#[test]
fn sets_in_hdf5_agree_with_h5py() {
    let Some(paths) = shared_data(HDF5.map(|(file, ..)| file)) else {
        return;
    };
    for (path, (_, name, expected)) in paths.iter().zip(HDF5) {
        // Few groups: frames are divided so that nothing is left out of the sums.
        let data = compare(
            path,
            |o| o.split_by = "frame".into(),
            ATOMIC,
            &expected,
            1e-11,
        );
        assert_eq!(data.describe().name, name);
    }
    close(
        "force RMS of the monomers",
        crate::check(&open(&paths[0], |_| ()).describe(), "force RMS").0,
        0.890_483_548_519_861_1,
        1e-11,
    );
    check_excerpt(&paths[4]);
}

/// An excerpt of SPICE gets the published normalisers.
fn check_excerpt(path: &Path) {
    let descriptor = open(path, |_| ()).describe();
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

fn frames(path: &Path, expected: &Sums) {
    compare(path, |o| o.split_by = "frame".into(), ASE, expected, 1e-12);
}

/// ASE. The three one-atom frames of the solvents are left out here, their energies and atoms are subtracted from ASE's sums.
#[test]
fn trajectories_agree_with_ase() {
    let files = [
        "real/qm/BOTNet/3BPA_train_300K.xyz.gz",
        "real/qm/BOTNet/3BPA_train_mixedT.xyz.gz",
        "real/qm/BOTNet/ethanol_test_MD.xyz.gz",
        "real/qm/BOTNet/ethanol_train.xyz.gz",
        "real/qm/solvents/solvent_xtb_test.xyz.gz",
    ];
    let Some(paths) = shared_data(files) else {
        return;
    };
    let [molecule, ethanol] =
        [(500, 13_500, 53_000), (1000, 9000, 26_000)].map(|(conformations, atoms, species)| Sums {
            molecules: 1.0,
            conformations,
            atoms,
            species,
            ..Sums::default()
        });
    let solvents = Sums {
        molecules: 85.0,
        conformations: 1000,
        atoms: 30_076,
        species: 124_888,
        ..Sums::default()
    };
    let expected = [
        (
            &molecule,
            [
                -8_830_216.209_191_523,
                36_395.889_165_919_06,
                213_925.195_289_883_82,
            ],
        ),
        (
            &molecule,
            [
                -8_829_558.856_034_97,
                81_810.220_956_177_71,
                217_205.056_338_720_46,
            ],
        ),
        (
            &ethanol,
            [
                -4_209_622.109_428_346,
                38_333.938_179_944_57,
                22_903.353_425_254_176,
            ],
        ),
        (
            &ethanol,
            [
                -4_209_617.132_528_299_5,
                38_049.918_310_853_594,
                22_927.546_114_170_71,
            ],
        ),
        (
            &solvents,
            [
                -1_509_627.727_143_808,
                473_197.871_610_221,
                716_295.867_626_347_2,
            ],
        ),
    ];
    for (path, (counts, [energy, force_square, position_square])) in paths.iter().zip(expected) {
        let expected = Sums {
            energy,
            force_square,
            position_square,
            ..*counts
        };
        frames(path, &expected);
    }
}

/// Frames of OH with these properties and values in the comment, and for each key a force that pulls the bond of 0.9 Å together;
/// bonds and forces grow by a hundredth (Å, of the force) from frame to frame.
fn made(frames: usize, properties: &str, comment: &str, forces: &[f64]) -> String {
    let columns = |i: usize, sign: f64| -> String {
        let stretch = 1.0 + 0.01 * i as f64;
        forces
            .iter()
            .map(|force| format!(" 0 0 {}", sign * stretch * force))
            .collect()
    };
    (0..frames)
        .map(|i| {
            let bond = 0.9 + 0.01 * i as f64;
            format!(
                "2\nProperties=species:S:1:pos:R:3{properties} {comment} pbc=\"F F F\"\n\
                 O 0 0 0{}\nH 0 0 {bond}{}\n",
                columns(i, 1.0),
                columns(i, -1.0)
            )
        })
        .collect()
}

/// Of the made frames by hand, of the real file by ASE, in the units of the file (kcal/mol).
#[test]
fn a_file_in_kilocalories_is_read_once_the_unit_is_named() {
    let text = made(30, ":forces:R:3", "energy=-1000.0", &[50.0]);
    let (_folder, path) = crate::written("kcal.xyz", text.as_bytes());
    let squares = |first: f64| {
        (0..30)
            .map(|i| (first + 0.01 * f64::from(i)).powi(2))
            .sum::<f64>()
    };
    let mut files = vec![(
        path,
        Sums {
            molecules: 1.0,
            conformations: 30,
            atoms: 60,
            energy: -30_000.0,
            force_square: 2.0 * 2500.0 * squares(1.0),
            position_square: squares(0.9),
            species: 270,
        },
    )];
    files.extend(
        more_data("real/qm/metatrain/ethanol_reduced_100.xyz.gz").map(|path| {
            let expected = Sums {
                molecules: 1.0,
                conformations: 100,
                atoms: 900,
                energy: -9_707_614.929_243_12,
                force_square: 2_091_291.869_528_434_7,
                position_square: 2_284.833_793_406_222_4,
                species: 2600,
            };
            (path, expected)
        }),
    );
    let kcal = (1.0, units::KCAL_PER_MOL, units::KCAL_PER_MOL);
    for (path, expected) in files {
        let named = |o: &mut Options| o.energy_unit = Some("kcal/mol".into());
        let data = compare(&path, named, kcal, &expected, 1e-11);
        let checks = data.describe().checks;
        assert!(checks.iter().all(|c| c.passed), "{checks:#?}");
        let (rms, passed) = crate::check(&open(&path, |_| ()).describe(), "force RMS");
        assert!(
            !passed && rms > 20.0,
            "without the unit the check must fail: {rms}"
        );
    }
}

/// Two labels in one file; of the real one by ASE, where three frames have one atom.
#[test]
fn labels_are_read_by_the_keys_that_are_named() {
    let read = |path: &Path, energy: &str, forces: &str| {
        open(path, |o| {
            (o.split_by, o.energy_key, o.forces_key) =
                ("frame".into(), Some(energy.into()), Some(forces.into()));
        })
    };
    let text = made(
        30,
        ":a_forces:R:3:b_forces:R:3",
        "a_energy=-1.0 b_energy=-2.0",
        &[1.0, 0.5],
    );
    let (_folder, path) = crate::written("two.xyz", text.as_bytes());
    let stretches: f64 = (0..30).map(|i| (1.0 + 0.01 * f64::from(i)).powi(2)).sum();
    for (key, energy, force_square) in
        [("a", -30.0, 2.0 * stretches), ("b", -60.0, 0.5 * stretches)]
    {
        let got = sums(&mut read(
            &path,
            &format!("{key}_energy"),
            &format!("{key}_forces"),
        ));
        assert_eq!((got.conformations, got.energy), (30, energy));
        close("force²", got.force_square, force_square, 1e-12);
    }
    let Some(path) = more_data("real/qm/solvents/solvent_train.xyz.gz") else {
        return;
    };
    for (energy, forces, force_square) in [
        ("energy_xtb", "forces_xtb", 86_442.257_067_316_47),
        ("MACE_energy", "MACE_forces", 85_383.672_157_326_2),
    ] {
        let mut data = read(&path, energy, forces);
        let got = sums(&mut data);
        let single = left_out(&data.describe(), "single atom");
        assert_eq!((got.conformations, got.atoms, single), (200, 5806, 3.0));
        close("force²", got.force_square, force_square, 1e-12);
        close(
            "position²",
            got.position_square,
            143_939.018_364_390_74,
            1e-12,
        );
    }
}

/// ASE, the same rows in both formats: 43 in the fixtures, 300 in the set they are cut from.
#[test]
fn extended_xyz_and_lmdb_of_one_set_agree_with_ase_and_with_each_other() {
    let few = Sums {
        molecules: 43.0,
        conformations: 43,
        atoms: 476,
        energy: -16_677.963_700_170_74,
        force_square: 1_201.033_631_230_275,
        position_square: 2_082.007_914_126_757,
        species: 1954,
    };
    for name in ["frames.extxyz", "frames.aselmdb"] {
        let (_folder, path) = crate::fixture(name);
        frames(&path, &few);
    }
    let all = Sums {
        molecules: 60.0,
        conformations: 300,
        atoms: 3380,
        energy: -120_318.364_250_422_79,
        force_square: 8_771.714_436_014_943,
        position_square: 14_848.823_835_056_53,
        species: 13_650,
    };
    if let Some(path) = more_data("formats_samples/ase/sample.extxyz.gz") {
        frames(&path, &all);
    }
    let exact = Sums {
        force_square: 8_771.714_436_120_05,
        position_square: 14_848.823_834_923_636,
        ..all
    };
    if let Some(path) = more_data("formats_samples/ase/sample.aselmdb") {
        frames(&path, &exact);
    }
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
    let Some([path]) = shared_data(["xtb/druglike_gfn2.hdf5"]) else {
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
