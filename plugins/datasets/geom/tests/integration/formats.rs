//! One set in several formats: the same molecules and, to the digits that each format keeps, the same coordinates.

use crate::{NamedConformer, conformers, fixture, left_out, make, open, samples, written};
use equivbench_plugin::DatasetPlugin;
use equivbench_testkit::more_data;
use std::{fmt::Write, path::PathBuf};

/// Files with their numbers of conformers and molecules, of all elements and of the eight, and of atoms, counted with numpy.
struct Counted {
    sdf: PathBuf,
    npz: PathBuf,
    conformers: [u64; 2],
    molecules: u64,
    atoms: f64,
}

fn sets() -> Vec<Counted> {
    let small = Counted {
        sdf: fixture("small.sdf.gz"),
        npz: fixture("small.npz"),
        conformers: [50, 46],
        molecules: 13,
        atoms: 1960.0,
    };
    let whole = more_data("geomlike").map(|folder| Counted {
        sdf: folder.join("geomlike_drugs.sdf.gz"),
        npz: folder.join("geomlike_drugs.npz"),
        conformers: [6365, 6018],
        molecules: 1957,
        atoms: 241_676.0,
    });
    std::iter::once(small).chain(whole).collect()
}

#[test]
fn sets_have_the_counts_of_numpy() {
    for set in sets() {
        let [conformers, of_the_eight] = set.conformers;
        for path in [&set.sdf, &set.npz] {
            let data = open(path, |_| ());
            let left_out = left_out(&data.describe(), "another element");
            assert_eq!(
                (samples(&data)[0].1, left_out),
                (of_the_eight, (conformers - of_the_eight) as f64),
                "{}",
                path.display()
            );
            let all = open(path, |o| {
                o.elements.extend(["Si", "P", "I"].map(Into::into))
            })
            .describe();
            assert_eq!(
                (
                    all.splits[0].samples,
                    all.splits[0].groups,
                    crate::check(&all, "atoms")
                ),
                (conformers, set.molecules, set.atoms),
                "{}",
                path.display()
            );
        }
    }
}

#[test]
fn sdf_agrees_with_npz_to_four_decimals() {
    for set in sets() {
        let [sdf, npz] = [&set.sdf, &set.npz].map(|path| conformers(&open(path, |_| ())));
        assert_same_to_four_decimals(&sdf, &npz);
    }
}

fn assert_same_to_four_decimals(a: &[NamedConformer], b: &[NamedConformer]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!((&a.0, &a.1), (&b.0, &b.1));
        for (x, y) in a.2.as_flattened().iter().zip(b.2.as_flattened()) {
            // Half a unit of the fourth decimal, and f32 of numbers up to 32.
            assert!((x - y).abs() <= 5.0e-5 + 4e-6, "{x} {y}");
        }
    }
}

/// GEOM's crude file and VoxMol's list hold the same conformers, written from the SDF.
#[test]
fn layouts_of_geom_and_voxmol_are_read_as_the_sdf_they_were_made_from() {
    let read = |name: &str| conformers(&open(&fixture(name), |_| ()));
    let (sdf, crude, torch) = (
        read("small.sdf.gz"),
        read("small.msgpack.gz"),
        read("small.pth"),
    );
    assert_same_to_four_decimals(&sdf, &read("small.npz"));
    assert_eq!(crude, sdf);
    assert_eq!(torch, sdf);
    check_samples();
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

/// Larger samples of both hold conformers of the same 24 molecules, 78 in all.
fn check_samples() {
    let Some(folder) = more_data("formats_samples/geom") else {
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
