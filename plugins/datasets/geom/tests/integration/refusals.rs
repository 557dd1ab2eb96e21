//! What is refused, and what the message says.

use crate::{check, left_out, make, open, refused, samples, says, written};
use equivbench_plugin::DatasetPlugin;

#[test]
fn paths_that_lead_nowhere_are_named() {
    let folder = tempfile::tempdir().unwrap();
    says(
        &refused(&folder.path().join("none.sdf"), |_| ()),
        &["none.sdf: cannot be opened", "check the path"],
    );
    says(
        &refused(folder.path(), |_| ()),
        &[
            "the folder holds no file that can be read (0 others)",
            ".sdf",
        ],
    );
    says(
        &refused(folder.path(), |o| o.path = Some(" , ".into())),
        &["path is empty"],
    );
    std::fs::write(folder.path().join("a.docx"), "x").unwrap();
    says(&refused(folder.path(), |_| ()), &["(1 others)"]);
    let (_folder, path) = written("a.sdf", make::molecules(3, 1).as_bytes());
    let twice = format!("{0},{0}", path.display());
    says(
        &refused(&path, |o| o.path = Some(twice.as_str().into())),
        &["a.sdf twice"],
    );
}

#[test]
fn foreign_content_says_what_it_is() {
    for (name, bytes, parts) in [
        ("a.sdf", &b""[..], &["a.sdf: it holds no structure"][..]),
        ("a.bin", b"", &["a.bin: the file is empty"]),
        (
            "a.bin",
            b"\x7fELF\x02\x01\x01\x00\x00\x00",
            &[
                "known neither from its ending nor from its first bytes",
                ".npz",
            ],
        ),
        (
            "a.sdf",
            b"\x00\x01\x02\xff\xfe\x80garbage\x00",
            &["a.sdf", "ends inside a structure"],
        ),
        (
            "a.xyz",
            b"\x00\x01\x02\xff\xfe\x80garbage\x00",
            &["a.xyz", "a number of atoms was expected"],
        ),
        ("a.npz", b"garbage", &["a.npz"]),
        ("a.msgpack", b"\xc1garbage", &["a.msgpack"]),
        ("a.pth", b"garbage", &["a.pth"]),
        (
            "train_data.pickle",
            b"\x80\x04\x95\x00",
            &["Python pickle", "rdkit_to_sdf.py", "README.md"],
        ),
        ("train_data.pkl", b"x", &["rdkit_to_sdf.py"]),
        ("renamed.sdf", b"\x80\x04\x95\x00", &["rdkit_to_sdf.py"]),
    ] {
        let (_folder, path) = written(name, bytes);
        says(&refused(&path, |_| ()), parts);
    }
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    let (_folder, path) = written("drugs_crude.msgpack.tar.gz", &make::gzip(&tar));
    says(&refused(&path, |_| ()), &["it is a tar archive", "tar -xf"]);
}

#[test]
fn pickles_of_geom_and_midi_name_the_converter() {
    // `pickle.dumps([])`, and a folder of such files below one with their summary, as GEOM packs them.
    let (made, pickle) = written("train_data.pickle", b"\x80\x04]\x94.");
    says(&refused(&pickle, |_| ()), &["rdkit_to_sdf.py"]);
    let drugs = made.path().join("rdkit_folder/drugs");
    std::fs::create_dir_all(&drugs).unwrap();
    std::fs::copy(&pickle, drugs.join("CO.pickle")).unwrap();
    let folder = made.path().join("rdkit_folder");
    std::fs::write(folder.join("summary_drugs.json"), "{}").unwrap();
    let mut folders = vec![(folder.clone(), drugs)];
    folders.extend(
        equivbench_testkit::more_data("formats_samples/geom/rdkit_folder")
            .map(|folder| (folder.clone(), folder.join("drugs"))),
    );
    for (folder, drugs) in folders {
        says(
            &refused(&folder, |_| ()),
            &["no file that can be read", "rdkit_to_sdf.py"],
        );
        says(&refused(&drugs, |_| ()), &["rdkit_to_sdf.py"]);
    }
}

#[test]
fn conformers_that_cannot_be_used_are_counted() {
    let with = |change: fn(&mut Vec<make::Atom>)| {
        let mut atoms = make::methanol(90);
        change(&mut atoms);
        make::record("odd", &atoms, "")
    };
    let text = make::molecules(4, 1)
        + &with(|a| a[0].0 = "Si")
        + &with(|a| a[0].0 = "Xx")
        + &with(|a| a[2].0 = "D")
        + &with(|a| a[1].1[0] = f64::NAN)
        + &with(|a| a.truncate(1))
        + &with(|a| a.clear())
        + &with(|a| a.iter_mut().for_each(|a| a.1[2] = 0.0))
        + &with(|a| a[3].1 = a[2].1.map(|x| x + 0.05));
    let (_folder, path) = written("a.sdf", text.as_bytes());
    let descriptor = open(&path, |_| ()).describe();
    for (reason, count) in [
        ("another element", 1.0),
        ("no element", 1.0),
        ("deuterium", 1.0),
        ("not finite", 1.0),
        ("fewer than two", 2.0),
        ("flat", 1.0),
        ("closer than 0.1", 1.0),
    ] {
        assert_eq!(left_out(&descriptor, reason), count, "{reason}");
    }
    assert_eq!(descriptor.splits[0].samples, 4);
    assert!(descriptor.checks.iter().any(|c| c.about.contains("(Si 1)")));
    says(
        &refused(&path, |o| o.elements = vec!["H".into()]),
        &[
            "no conformer can be used",
            "9 conformers with another element",
            "(found: C 8, O 8, Si 1)",
        ],
    );
}

#[test]
fn atoms_are_limited_only_on_request() {
    let large: Vec<make::Atom> = (0..900)
        .map(|i| {
            (
                ["C", "H"][i % 2],
                [i as f64, (i % 7) as f64, (i % 11) as f64],
            )
        })
        .collect();
    let text = make::molecules(3, 1) + &make::record("large", &large, "");
    let (_folder, path) = written("a.sdf", text.as_bytes());
    let data = open(&path, |_| ());
    assert_eq!(samples(&data)[0].1, 4);
    // It reaches 450 angstrom from its middle: beyond any grid.
    assert_eq!(
        check(
            &data.describe(),
            "conformers with atoms outside of 64 voxels of 0.25 angstrom"
        ),
        1.0
    );
    let limited = open(&path, |o| o.max_atoms = Some(80)).describe();
    assert_eq!(
        (limited.splits[0].samples, left_out(&limited, "max_atoms")),
        (3, 1.0)
    );
}

#[test]
fn too_few_molecules_say_what_to_do() {
    let (_folder, path) = written("a.sdf", make::molecules(2, 3).as_bytes());
    says(
        &refused(&path, |o| (o.valid_fraction, o.test_fraction) = (0.1, 0.1)),
        &["2 molecule(s)", "valid_fraction or test_fraction to 0"],
    );
}
