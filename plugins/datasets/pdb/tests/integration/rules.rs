//! The rules by which atoms become traces, in every format.

use crate::{
    chains, check, left_out,
    make::{ALPHA, Atom, cif, folder, gzip, pdb, write},
    make_bcif::{Coordinates, bcif},
    open, samples,
};
use equivbench_pdb::Chain;
use equivbench_plugin::DatasetPlugin;

/// The same atoms in every format: what each makes of them.
fn in_all_formats(atoms: &[Atom]) -> Vec<(String, Vec<Chain>)> {
    let formats = [
        ("x.pdb", pdb(atoms).into_bytes()),
        ("x.ent.gz", gzip(pdb(atoms).as_bytes())),
        ("x.cif", cif(atoms).into_bytes()),
        ("x.cif.gz", gzip(cif(atoms).as_bytes())),
        ("x.bcif", bcif(atoms, Coordinates::Fixed)),
        ("x.bcif.gz", gzip(&bcif(atoms, Coordinates::Doubles))),
    ];
    formats
        .into_iter()
        .map(|(name, bytes)| {
            let folder = folder(&[(name, &bytes)]);
            (name.to_owned(), chains(&mut open(folder.path(), |_| ())))
        })
        .collect()
}

fn at(number: i32, x: f64) -> Atom {
    Atom {
        number,
        position: [x, -0.125, 1.001],
        ..ALPHA
    }
}

#[test]
fn every_trap_is_passed_in_every_format() {
    let atoms = [
        Atom {
            name: "N",
            element: "N",
            ..at(-1, 99.0)
        },
        at(-1, 1.111),
        // Alternate locations: the first in the file counts, whatever its name.
        Atom {
            alternate: "B",
            residue: "GLY",
            ..at(2, 4.5)
        },
        Atom {
            alternate: "A",
            residue: "GLY",
            ..at(2, 4.75)
        },
        // An insertion code is another residue, another name at the same place is not.
        Atom {
            insertion: "A",
            residue: "SER",
            ..at(2, 8.25)
        },
        Atom {
            insertion: "A",
            residue: "THR",
            alternate: "B",
            ..at(2, 8.5)
        },
        // A residue without C-alpha; unknown and calcium.
        Atom {
            name: "CB",
            ..at(3, 10.0)
        },
        Atom {
            residue: "LIG",
            ..at(4, 11.0)
        },
        // Twelve and more: a gap.
        Atom {
            residue: "HIE",
            ..at(10, 21.375)
        },
        Atom {
            chain: "B",
            residue: "TRP",
            ..at(7, 30.0)
        },
        Atom {
            chain: "B",
            residue: "TYR",
            ..at(8, 33.8)
        },
        Atom {
            record: "HETATM",
            element: "CA",
            residue: "CA",
            ..at(301, 1.0)
        },
        Atom {
            record: "HETATM",
            residue: "MSE",
            ..at(11, 25.0)
        },
        Atom {
            model: 2,
            ..at(-1, 50.0)
        },
    ];
    for (name, found) in in_all_formats(&atoms) {
        let [a, b] = &found[..] else {
            panic!("{name}: {found:?}")
        };
        assert_eq!(
            (a.id.as_str(), a.sequence.as_str(), &a.residue_numbers[..]),
            ("x_A", "AGSH", &[-1, 2, 2, 10][..]),
            "{name}"
        );
        assert_eq!(
            a.positions,
            [1.111, 4.5, 8.25, 21.375].map(|x| [x, -0.125, 1.001]),
            "{name}"
        );
        assert_eq!(a.breaks(), [0, 0, 1, 0]);
        assert_eq!(
            (b.id.as_str(), b.sequence.as_str()),
            ("x_B", "WY"),
            "{name}"
        );
    }
}

#[test]
fn what_is_dropped_is_counted() {
    let atoms = [
        at(1, 0.0),
        Atom {
            alternate: "A",
            ..at(2, 3.8)
        },
        Atom {
            alternate: "B",
            ..at(2, 4.0)
        },
        Atom {
            name: "C",
            ..at(3, 7.0)
        },
        Atom {
            record: "HETATM",
            residue: "MSE",
            ..at(4, 11.4)
        },
        Atom {
            residue: "LIG",
            ..at(5, 15.0)
        },
    ];
    let folder = folder(&[("a.cif", cif(&atoms).as_bytes())]);
    let descriptor = open(folder.path(), |_| ()).describe();
    let counts = [
        "residues without C-alpha",
        "alternate locations",
        "modified residues",
        "residues of unknown name",
        "chain breaks",
    ];
    assert_eq!(
        counts.map(|name| check(&descriptor, name)),
        [1.0, 1.0, 1.0, 1.0, 0.0]
    );
    let with = open(folder.path(), |o| o.hetatm = "modified".into()).describe();
    assert_eq!(
        counts.map(|name| check(&with, name)),
        [1.0, 1.0, 0.0, 1.0, 1.0]
    );
}

#[test]
fn quantised_coordinates_are_those_of_their_steps() {
    let atoms = crate::make::chain("A", 3, 60);
    let folder = folder(&[("x.bcif", &bcif(&atoms, Coordinates::Quantised))]);
    let found = chains(&mut open(folder.path(), |_| ()));
    for (position, atom) in found[0].positions.iter().zip(&atoms) {
        for (x, y) in position.iter().zip(atom.position) {
            // The step is a thousandth of an ångström in theory; min + i * step rounds a few times at 1e2.
            assert!((x - y).abs() < 1e-12, "{x} {y}");
        }
    }
}

#[test]
fn method_and_resolution_of_binary_cif_are_read() {
    let atoms = crate::make::chain("A", 3, 60);
    let folder = folder(&[("x.bcif", &bcif(&atoms, Coordinates::Fixed))]);
    assert_eq!(
        samples(&open(folder.path(), |o| o.experiments = "stated".into()).describe()),
        [1]
    );
    let message = crate::refused(folder.path(), |o| o.max_resolution = 1.4);
    assert!(
        message.contains("1 chains of entries with a resolution above max_resolution"),
        "{message}"
    );
}

#[test]
fn formats_are_told_by_content_where_the_name_is_wrong() {
    let atoms = crate::make::chain("A", 3, 60);
    let wrong: [(&str, Vec<u8>); 4] = [
        ("a.pdb", cif(&atoms).into_bytes()),
        (
            "b.cif",
            gzip(pdb(&crate::make::chain("A", 4, 60)).as_bytes()),
        ),
        (
            "c.ent.gz",
            bcif(&crate::make::chain("A", 5, 60), Coordinates::Fixed),
        ),
        ("d.bcif", cif(&crate::make::chain("A", 6, 60)).into_bytes()),
    ];
    let files: Vec<(&str, &[u8])> = wrong.iter().map(|(n, b)| (*n, &b[..])).collect();
    let folder = folder(&files);
    let descriptor = open(folder.path(), |_| ()).describe();
    assert_eq!(
        (samples(&descriptor), check(&descriptor, "files read")),
        (vec![4], 4.0)
    );
}

#[test]
fn copies_in_other_formats_are_kept_once() {
    let atoms = crate::make::chain("A", 3, 60);
    let mut moved = atoms.clone();
    moved[30].position[0] += 0.001;
    let folder = folder(&[
        ("a.pdb", pdb(&atoms).as_bytes()),
        ("b.cif", cif(&atoms).as_bytes()),
        ("c.bcif", &bcif(&atoms, Coordinates::Fixed)),
        ("sub/d.cif", cif(&moved).as_bytes()),
    ]);
    let descriptor = open(folder.path(), |_| ()).describe();
    assert_eq!(
        (samples(&descriptor), left_out(&descriptor, "copies")),
        (vec![2], 2.0)
    );
    // The copy with a coordinate moved by a thousandth has the same sequence, so it shares a cluster.
    assert_eq!(check(&descriptor, "clusters"), 1.0);
}

#[test]
fn folders_lists_archives_and_single_files_hold_the_same_chains() {
    let files: Vec<(String, String)> = (1..5)
        .map(|i| (format!("m{i}.cif"), cif(&crate::make::chain("A", i, 60))))
        .collect();
    let folder = folder(&[]);
    for (name, text) in &files {
        write(folder.path(), &format!("data/{name}"), text.as_bytes());
    }
    write(folder.path(), "data/README.md", b"not a structure");
    write(folder.path(), "data/.hidden.cif", b"not a structure");
    let list: String = files.iter().map(|(n, _)| format!("data/{n}\n")).collect();
    let list = write(
        folder.path(),
        "files.txt",
        format!("# four files\n\n{list}").as_bytes(),
    );
    let mut archive = tar::Builder::new(Vec::new());
    archive
        .append_dir_all("top", folder.path().join("data"))
        .unwrap();
    let archive = archive.into_inner().unwrap();
    let tar = write(folder.path(), "a.tar", &archive);
    let tgz = write(folder.path(), "a.tar.gz", &gzip(&archive));
    let all = chains(&mut open(&folder.path().join("data"), |_| ()));
    assert_eq!(
        all.iter().map(|c| c.id.as_str()).collect::<Vec<_>>(),
        ["m1_A", "m2_A", "m3_A", "m4_A"]
    );
    for path in [&list, &tar, &tgz] {
        assert_eq!(chains(&mut open(path, |_| ())), all, "{}", path.display());
    }
    assert_eq!(
        chains(&mut open(&folder.path().join("data/m2.cif"), |_| ())),
        all[1..2]
    );
}

#[test]
fn an_empty_chain_name_leaves_the_stem() {
    let mut atoms = crate::make::chain("A", 3, 60);
    atoms.iter_mut().for_each(|a| a.chain = " ");
    let folder = folder(&[("model_1.pdb", pdb(&atoms).as_bytes())]);
    assert_eq!(chains(&mut open(folder.path(), |_| ()))[0].id, "model_1");
}
