//! Bad input: each refusal names the file, the place and the remedy.

use crate::{fixture, open, refused, written};
use equivbench_plugin::DatasetPlugin;
use equivbench_testkit::{more_data, shared_data};

const HEADER: &str = "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.0 pbc=\"F F F\"";

fn frames(count: usize) -> String {
    (0..count)
        .map(|i| {
            format!(
                "2\n{HEADER}\nO 0 0 0 0.1 0 0\nH 0 0 {} -0.1 0 0\n",
                0.9 + 0.01 * i as f64
            )
        })
        .collect()
}

/// Opens extended XYZ with one change to its text.
fn xyz(text: &str) -> String {
    let (_folder, path) = written("set.xyz", text.as_bytes());
    refused(&path, |_| ())
}

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "\"{part}\" is not in: {message}");
    }
    assert!(!message.contains('\n'), "one paragraph: {message}");
}

#[test]
fn good_frames_are_accepted_whatever_the_line_ends() {
    for text in [
        frames(30),
        frames(30).replace('\n', "\r\n"),
        frames(30) + "\n\n",
        frames(30).trim_end().to_owned(),
    ] {
        let (_folder, path) = written("set.extxyz", text.as_bytes());
        assert_eq!(
            open(&path, |_| ())
                .describe()
                .splits
                .iter()
                .map(|s| s.samples)
                .sum::<u64>(),
            30
        );
    }
}

#[test]
fn extended_xyz_is_refused_with_frame_and_line() {
    let good = frames(30);
    let broken = |from: &str, to: &str| xyz(&good.replacen(from, to, 1));
    says(
        &broken("O 0 0 0 0.1 0 0", "O 0 0 0 nan 0 0"),
        &[
            "set.xyz, frame 1, line 3",
            "forces holds nan, which is not finite",
            "remove the frame",
        ],
    );
    says(
        &broken("energy=-1.0", "energy=inf"),
        &["frame 1, line 2", "not finite"],
    );
    says(
        &broken("O 0 0 0 0.1 0 0", "O 0 0 zero 0.1 0 0"),
        &["frame 1, line 3", "pos holds \"zero\""],
    );
    says(
        &broken("O 0 0 0 0.1 0 0", "Oo 0 0 0 0.1 0 0"),
        &["line 3", "\"Oo\" is no element"],
    );
    says(
        &broken("O 0 0 0 0.1 0 0", "O 0 0 0 0.1 0"),
        &["line 3", "ends before column forces"],
    );
    says(
        &broken("species:S:1", "species:S"),
        &["frame 1 (line 1)", "line 2", "name:type:count"],
    );
    says(
        &broken("pbc=\"F F F\"", "pbc=\"maybe\""),
        &["pbc=\"maybe\""],
    );
    says(
        &xyz(&good.replacen("2\nProp", "3\nProp", 1)),
        &["frame 1, line 5", "ends before column pos"],
    );
    says(
        &xyz(&good.replacen("2\nProp", "1\nProp", 1)),
        &[
            "frame 2 (line 4)",
            "a number of atoms was expected, found \"H 0 0 0.9",
        ],
    );
    says(
        &xyz(&good[..good.len() - 40]),
        &["frame 30 (line 117)", "should have 2 atoms"],
    );
    says(
        &xyz("2\n\nO 0 0 0\nH 0 0 1\n"),
        &["plain XYZ without forces", "ase.io.write"],
    );
}

#[test]
fn missing_labels_list_the_names_that_are_there() {
    says(
        &xyz(&frames(30).replace("forces:R", "gradient_of:R")),
        &["no frame has forces", "column gradient_of", "forces_key"],
    );
    says(
        &xyz(&frames(30).replace("energy=", "U0=")),
        &["no frame has energy", "U0", "energy_key"],
    );
    let (_folder, path) = written("set.xyz", frames(30).as_bytes());
    says(
        &refused(&path, |o| o.forces_key = Some("F".into())),
        &["named \"F\"", "column forces"],
    );
    says(
        &refused(&path, |o| o.length_unit = Some("inch".into())),
        &["length unit \"inch\"", "angstrom, bohr, nanometre"],
    );
    says(
        &refused(&path, |o| o.neutral_only = true),
        &["neutral_only", "leave neutral_only out"],
    );
}

#[test]
fn periodic_frames_are_left_out_unless_asked_for() {
    let text = frames(30).replace("F F F", "T T T");
    says(
        &xyz(&text),
        &[
            "no conformation can be used",
            "30 periodic frames",
            "ignore_pbc = true",
        ],
    );
    let (_folder, path) = written("set.xyz", text.as_bytes());
    assert_eq!(
        open(&path, |o| o.ignore_pbc = true).describe().splits.len(),
        3
    );
    if let Some(path) = more_data("real/qm/metatrain/carbon_reduced_100.xyz.gz") {
        says(
            &refused(&path, |_| ()),
            &["carbon_reduced_100.xyz.gz", "100 periodic frames"],
        );
    }
}

#[test]
fn foreign_files_are_told_by_their_content() {
    for (name, bytes, parts) in [
        (
            "a.db",
            &b"SQLite format 3\0"[..],
            &["ASE database in SQLite", "ase convert"][..],
        ),
        ("a.npz", b"PK\x03\x04....", &["npz", "extended XYZ"]),
        ("a.pkl", b"\x80\x04\x95abc", &["pickle"]),
        (
            "a.txt",
            b"hello world\n",
            &["not known", "SPICE release HDF5"],
        ),
        ("a.hdf5", b"", &["the file is empty"]),
        (
            "a.hdf5",
            b"\x89HDF\r\n\x1a\n",
            &["cannot be read as HDF5", "damaged"],
        ),
        ("a.xyz.gz", b"\x1f\x8b\x08\x00garbage", &["a.xyz.gz"]),
    ] {
        let (_folder, path) = written(name, bytes);
        says(&refused(&path, |_| ()), parts);
    }
    let (_folder, path) = fixture("deep.lmdb");
    says(&refused(&path, |_| ()), &["not ASE's", "nextid", "convert"]);
    let folder = tempfile::tempdir().unwrap();
    says(
        &refused(folder.path(), |_| ()),
        &["the folder holds no file"],
    );
    says(
        &refused(&folder.path().join("none.hdf5"), |_| ()),
        &["none.hdf5: cannot be opened", "check the path"],
    );
}

#[test]
fn real_files_of_other_kinds_are_refused_with_a_remedy() {
    let refusals = [
        (
            "real/qm/ani1x_n5.hdf5",
            &["ani1x_n5.hdf5", "not a SPICE file"][..],
        ),
        ("real/qm/aimnet_dataset.h5", &["not a SPICE file"]),
        (
            "real/qm/ani2x_minimal.hdf5.gz",
            &["compressed HDF5", "gunzip"],
        ),
        (
            "real/qm/schnetpack_md_ethanol.xyz",
            &["plain XYZ without forces"],
        ),
        (
            "real/qm/metatrain/qm9_reduced_100.xyz.gz",
            &["no frame has forces", "U0"],
        ),
        (
            "real/qm/solvents/solvent_rotated.xyz.gz",
            &["no frame has forces"],
        ),
        ("formats_samples/ase/sample.db", &["SQLite"]),
        ("formats_samples/ase/rmd17_like.npz", &["npz"]),
        (
            "real/qm/deepmd/water_training.lmdb",
            &["no file that ends in"],
        ),
    ];
    let Some(paths) = shared_data(refusals.map(|(file, _)| file)) else {
        return;
    };
    for (path, (_, parts)) in paths.iter().zip(refusals) {
        says(&refused(path, |_| ()), parts);
    }
}

#[test]
fn missing_keys_of_hdf5_list_what_is_there() {
    let (_folder, path) = fixture("release.hdf5");
    says(
        &refused(&path, |o| o.gradient_key = Some("forces".into())),
        &[
            "release.hdf5, group",
            "\"forces\" is missing",
            "dft_total_gradient",
            "gradient_key",
        ],
    );
    says(
        &refused(&path, |o| o.energy_key = Some("total".into())),
        &["\"total\" is missing", "formation_energy", "energy_key"],
    );
    says(
        &refused(&path, |o| o.subset = Some("PubChem".into())),
        &["Subsets there: SPICE Fixture A v1.0"],
    );
}

#[test]
fn a_gradient_taken_for_forces_fails_the_sign_check() {
    let (_folder, fixture) = fixture("release.hdf5");
    // Few bonds of the fixture, many of the monomers.
    let monomers = more_data("xtb/des_monomers_gfn2.hdf5").map(|path| (path, -0.8));
    for (path, limit) in std::iter::once((fixture, -0.5)).chain(monomers) {
        let (right, passed) = crate::check(&open(&path, |_| ()).describe(), "correlation");
        assert!(passed && right < limit, "{right}");
        let (wrong, passed) = crate::check(
            &open(&path, |o| o.forces_key = Some("dft_total_gradient".into())).describe(),
            "correlation",
        );
        assert!(!passed && (right + wrong).abs() < 1e-12, "{wrong}");
    }
}

#[test]
fn rows_of_ase_that_cannot_be_used_are_counted() {
    let (_folder, path) = fixture("rows.aselmdb");
    let mut data = open(&path, |o| o.split_by = "frame".into());
    let descriptor = data.describe();
    // Rows 1, 3, 4, 6, 7: 2 and 5 are deleted, 8 is periodic, 9 a single atom.
    assert_eq!(descriptor.splits.iter().map(|s| s.samples).sum::<u64>(), 5);
    assert_eq!(
        (
            crate::left_out(&descriptor, "periodic"),
            crate::left_out(&descriptor, "single atom")
        ),
        (1.0, 1.0)
    );
    let mut energies: Vec<f64> = descriptor
        .splits
        .iter()
        .flat_map(|s| {
            (0..s.samples)
                .map(|i| (s.name.clone(), i))
                .collect::<Vec<_>>()
        })
        .map(|(s, i)| data.conformation(&s, i).unwrap().energy)
        .collect();
    energies.sort_by(f64::total_cmp);
    assert_eq!(energies, [-17.0, -16.0, -14.0, -13.0, -11.0]);
    assert_eq!(
        open(&path, |o| (o.split_by, o.ignore_pbc) =
            ("frame".into(), true))
        .describe()
        .splits
        .iter()
        .map(|s| s.samples)
        .sum::<u64>(),
        6
    );
}
