//! One set in several formats: the same molecules and, to the digits that each format keeps, the same coordinates.

use crate::{conformers, left_out, make, open, samples, shared, written};
use equivbench_plugin::DatasetPlugin;
use std::fmt::Write;

/// Counts taken with numpy from the npz: 6,365 conformers of 1,957 molecules, 6,018 of them of the eight elements.
#[test]
fn the_generated_set_has_the_counts_of_numpy() {
    for name in [
        "geomlike/geomlike_drugs.sdf.gz",
        "geomlike/geomlike_drugs.npz",
    ] {
        let Some(path) = shared(name) else { return };
        let data = open(&path, |_| ());
        assert_eq!(
            (
                samples(&data)[0].1,
                left_out(&data.describe(), "another element")
            ),
            (6018, 347.0),
            "{name}"
        );
        let all = open(&path, |o| {
            o.elements.extend(["Si", "P", "I"].map(Into::into))
        })
        .describe();
        assert_eq!(
            (
                all.splits[0].samples,
                all.splits[0].groups,
                crate::check(&all, "atoms")
            ),
            (6365, 1957, 241_676.0),
            "{name}"
        );
    }
}

#[test]
fn sdf_agrees_with_npz_to_four_decimals() {
    let (Some(sdf), Some(npz)) = (
        shared("geomlike/geomlike_drugs.sdf.gz"),
        shared("geomlike/geomlike_drugs.npz"),
    ) else {
        return;
    };
    let (sdf, npz) = (
        conformers(&open(&sdf, |_| ())),
        conformers(&open(&npz, |_| ())),
    );
    assert_eq!(sdf.len(), npz.len());
    for (a, b) in sdf.iter().zip(&npz) {
        assert_eq!((&a.0, &a.1), (&b.0, &b.1));
        for (x, y) in a.2.as_flattened().iter().zip(b.2.as_flattened()) {
            // Half a unit of the fourth decimal, and f32 of numbers up to 32.
            assert!((x - y).abs() <= 5.0e-5 + 4e-6, "{x} {y}");
        }
    }
}

/// What the file says in plain numbers is what is served.
#[test]
fn xyz_plain_and_extended_is_sdf_with_other_words() {
    let (mut plain, mut extended) = (String::new(), String::new());
    for i in 0..6 {
        let atoms = make::methanol(i);
        writeln!(plain, "{}\nmade by hand, \"energy = 3", atoms.len()).unwrap();
        writeln!(
            extended,
            "{}\nProperties=Z:I:1:pos:R:3 smiles=\"CO\" energy=-1",
            atoms.len()
        )
        .unwrap();
        for (symbol, [x, y, z]) in atoms {
            let number = match symbol {
                "C" => 6,
                "O" => 8,
                _ => 1,
            };
            writeln!(plain, "{symbol} {x:.4} {y:.4} {z:.4}").unwrap();
            writeln!(extended, "{number} {x:.4} {y:.4} {z:.4}").unwrap();
        }
    }
    let sdf: String = (0..6)
        .map(|i| make::record("CO", &make::methanol(i), ""))
        .collect();
    let (_a, plain) = written("a.xyz", plain.as_bytes());
    let (_b, extended) = written("b.extxyz.gz", &make::gzip(extended.as_bytes()));
    let (_c, sdf) = written("c.sdf", sdf.as_bytes());
    let [plain, extended, sdf] = [plain, extended, sdf].map(|p| conformers(&open(&p, |_| ())));
    assert_eq!(extended, sdf);
    assert_eq!(
        plain.iter().map(|c| (&c.1, &c.2)).collect::<Vec<_>>(),
        sdf.iter().map(|c| (&c.1, &c.2)).collect::<Vec<_>>()
    );
    assert_eq!(plain[0].0, "CH4O");
}

/// The layouts of GEOM and VoxMol hold conformers of the same 24 molecules, 78 in all.
#[test]
fn layouts_of_geom_and_voxmol_are_read_through_the_same_door() {
    let Some(folder) = shared("formats_samples/geom") else {
        return;
    };
    let crude = open(&folder.join("drugs_crude.msgpack"), |_| ()).describe();
    let torch = open(&folder.join("voxmol_train_data.pth"), |_| ()).describe();
    for descriptor in [crude, torch] {
        assert_eq!(
            (descriptor.splits[0].samples, descriptor.splits[0].groups),
            (78, 24),
            "{}",
            descriptor.source
        );
    }
    let real = open(&folder.join("geom_tutorial_real.msgpack"), |_| ());
    let mol = open(&folder.join("geom_tutorial_real.mol"), |_| ());
    let (real, mol) = (conformers(&real), conformers(&mol));
    assert_eq!(
        (real.len(), mol.len(), real[0].1.len(), mol[0].1.len()),
        (1, 1, 43, 41)
    );
}

#[test]
fn other_endings_are_told_by_their_content() {
    let text = make::molecules(5, 1);
    for name in ["data.txt", "data", "data.sdf.bak"] {
        let (_folder, path) = written(name, text.as_bytes());
        assert_eq!(samples(&open(&path, |_| ()))[0].1, 5, "{name}");
    }
}
