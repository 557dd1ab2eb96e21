//! Bad input: each refusal names the file, the place and the remedy; a bad file among good ones is left out and counted.

use crate::{
    check, left_out,
    make::{ALPHA, Atom, chain, cif, folder, gzip, pdb, write},
    make_bcif::{Coordinates, bcif},
    open, refused, samples,
};
use equivbench_plugin::DatasetPlugin;

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "\"{part}\" is not in: {message}");
    }
    assert!(!message.contains('\n'), "one paragraph: {message}");
}

/// Opens a folder with one file.
fn alone(name: &str, bytes: &[u8]) -> String {
    refused(folder(&[(name, bytes)]).path(), |_| ())
}

#[test]
fn unreadable_files_are_named_with_the_reason() {
    let good = cif(&chain("A", 1, 60));
    let broken = |from: &str, to: &str| alone("a.cif", good.replacen(from, to, 1).as_bytes());
    says(
        &broken(" 0.000", " nan"),
        &[
            "no structure file could be read",
            "a.cif: line 17: Cartn_",
            "NaN, which is no coordinate",
            "fetch the files again",
        ],
    );
    says(
        &broken(" 0.000", " inf"),
        &["a.cif: line 17", "no coordinate"],
    );
    says(
        &broken(" 0.000", " 1e9"),
        &["a.cif: line 17", "no coordinate"],
    );
    says(
        &broken(" 0.000", " zero"),
        &["\"zero\", which is no number"],
    );
    says(
        &broken("_atom_site.auth_seq_id", "_atom_site.other"),
        &["neither auth_seq_id nor label_seq_id"],
    );
    says(
        &alone("a.cif", b"data_X\n_cell.length_a 10\n"),
        &["a.cif", "no _atom_site category"],
    );
    says(
        &alone("a.pdb", b"HEADER    NOTHING\nEND\n"),
        &["a.pdb", "no ATOM or HETATM records"],
    );
    says(
        &alone(
            "a.pdb",
            pdb(&chain("A", 1, 60))
                .replacen("   0.000", "     nan", 1)
                .as_bytes(),
        ),
        &["a.pdb: line 2", "\"nan\""],
    );
    says(&alone("a.pdb", b""), &["a.pdb: it is empty"]);
    says(&alone("a.pdb.gz", &gzip(b"")), &["a.pdb.gz: it is empty"]);
    says(
        &alone("a.pdb", b"\x89PNG\r\n\x1a\n0000"),
        &["a.pdb: its content is not mmCIF, PDB or BinaryCIF"],
    );
    let packed = gzip(good.as_bytes());
    says(
        &alone("a.cif.gz", &packed[..packed.len() / 2]),
        &["a.cif.gz", "ends too early", "cut off"],
    );
    says(
        &alone("a.cif.gz", &packed[..packed.len() - 4]),
        &["a.cif.gz", "ends too early"],
    );
    let mut wrong = packed.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 0xff;
    says(&alone("a.cif.gz", &wrong), &["a.cif.gz"]);
    says(&alone("a.cif.gz", &gzip(&packed)), &["compressed twice"]);
    let binary = bcif(&chain("A", 1, 60), Coordinates::Fixed);
    says(
        &alone("a.bcif", &binary[..binary.len() / 2]),
        &["a.bcif", "no MessagePack document"],
    );
}

#[test]
fn damaged_binary_cif_is_refused_before_memory_is_taken() {
    let binary = bcif(&chain("A", 1, 60), Coordinates::Fixed);
    let patched = |from: &[u8], to: &[u8]| {
        let at = binary.windows(from.len()).rposition(|w| w == from).unwrap();
        let bytes = [&binary[..at], to, &binary[at + from.len()..]].concat();
        alone("a.bcif", &bytes)
    };
    // The category of the atoms has 60 rows (0x3c); a promise of 2^31 is refused, one more than there are values is too.
    says(
        &patched(b"\xa8rowCount\x3c", b"\xa8rowCount\xce\x80\x00\x00\x00"),
        &["a.bcif", "_atom_site"],
    );
    says(
        &patched(b"\xa8rowCount\x3c", b"\xa8rowCount\x3d"),
        &["a.bcif", "60 values for 61 rows"],
    );
    says(
        &patched(b"\xa8rowCount\x3c", b"\xa8rowCount\x3b"),
        &["a.bcif", "59 rows"],
    );
    says(
        &patched(b"FixedPoint", b"FixedPaint"),
        &["column _atom_site.Cartn_", "\"FixedPaint\" is not known"],
    );
    says(
        &patched(b"\xa6factor", b"\xa6fuctor"),
        &["key \"factor\" is missing"],
    );
}

#[test]
fn bad_files_among_good_ones_are_left_out_and_counted() {
    let good = cif(&chain("A", 1, 60));
    let files: Vec<(String, Vec<u8>)> = (0..8)
        .map(|i| (format!("bad{i}.cif"), b"data_\n".to_vec()))
        .collect();
    let place = folder(&[("good.cif", good.as_bytes())]);
    for (name, bytes) in &files {
        write(place.path(), name, bytes);
    }
    let descriptor = open(place.path(), |_| ()).describe();
    assert_eq!(
        (
            check(&descriptor, "files read"),
            check(&descriptor, "files that could not be read")
        ),
        (1.0, 8.0)
    );
    let found = descriptor
        .checks
        .iter()
        .find(|c| c.name == "files that could not be read")
        .unwrap();
    assert!(
        !found.passed
            && found
                .about
                .contains("bad4.cif: line 1: it holds no _atom_site")
            && !found.about.contains("bad5.cif")
    );
}

#[test]
fn paths_that_lead_nowhere_say_what_was_looked_for() {
    let empty = folder(&[]);
    says(
        &refused(empty.path(), |_| ()),
        &[
            "no structure file was found",
            ".cif, .mmcif, .pdb, .ent, .bcif",
            "each also with .gz",
        ],
    );
    let others = folder(&[("readme.txt", b"text"), ("sub/.1abc.cif", b"hidden")]);
    says(
        &refused(others.path(), |_| ()),
        &["no structure file was found", "1 other files"],
    );
    says(
        &refused(&empty.path().join("none"), |_| ()),
        &["none: cannot be opened", "check the path"],
    );
    says(
        &refused(empty.path(), |o| o.path = Some(" ".into())),
        &["path is empty", "leave path out"],
    );
}

#[cfg(unix)]
#[test]
fn links_that_lead_nowhere_are_unreadable_files() {
    let place = folder(&[("good.cif", cif(&chain("A", 1, 60)).as_bytes())]);
    std::os::unix::fs::symlink(place.path().join("gone"), place.path().join("gone.cif")).unwrap();
    let descriptor = open(place.path(), |_| ()).describe();
    let found = descriptor
        .checks
        .iter()
        .find(|c| c.name == "files that could not be read")
        .unwrap();
    assert!(
        found.value == 1.0 && found.about.contains("gone.cif"),
        "{}",
        found.about
    );
    let round = folder(&[("sub/good.cif", cif(&chain("A", 1, 60)).as_bytes())]);
    std::os::unix::fs::symlink(round.path(), round.path().join("sub/round")).unwrap();
    says(
        &refused(round.path(), |_| ()),
        &[
            "a folder or link in it cannot be read",
            "give a list of files instead",
        ],
    );
}

#[test]
fn lists_and_single_files_of_other_kinds_are_refused() {
    let place = folder(&[]);
    let single = |name: &str, bytes: &[u8]| refused(&write(place.path(), name, bytes), |_| ());
    says(
        &single("a.txt", b"hello\nworld\n"),
        &[
            "a.txt",
            "as a list of paths it names nothing that exists",
            "\"hello\"",
        ],
    );
    says(
        &single("a.png", b"\x89PNG\r\n\x1a\n\xff\xfe"),
        &["a.png", "neither a structure nor a list"],
    );
    says(
        &single("empty.pdb", b""),
        &["empty.pdb", "the file is empty", "this plugin reads mmCIF"],
    );
    says(
        &single("list.txt", b"# nothing\n\n"),
        &["the list names no file"],
    );
    write(place.path(), "good.cif", cif(&chain("A", 1, 60)).as_bytes());
    let list = write(place.path(), "list.txt", b"good.cif\nmissing.cif\n");
    let descriptor = open(&list, |_| ()).describe();
    let found = descriptor
        .checks
        .iter()
        .find(|c| c.name == "files that could not be read")
        .unwrap();
    assert!(
        found.value == 1.0 && found.about.contains("missing.cif: it cannot be read"),
        "{}",
        found.about
    );
    says(
        &single(
            "a.tar",
            &tar::Builder::new(Vec::new()).into_inner().unwrap(),
        ),
        &["a.tar"],
    );
}

#[test]
fn broken_archives_keep_what_came_before() {
    let mut archive = tar::Builder::new(Vec::new());
    for i in 1..4 {
        let text = cif(&chain("A", i, 60));
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_cksum();
        archive
            .append_data(&mut header, format!("m{i}.cif"), text.as_bytes())
            .unwrap();
    }
    let bytes = archive.into_inner().unwrap();
    let place = folder(&[("a.tar", &bytes[..bytes.len() / 2])]);
    let descriptor = open(&place.path().join("a.tar"), |_| ()).describe();
    assert_eq!(
        (
            samples(&descriptor),
            check(&descriptor, "files that could not be read")
        ),
        (vec![1], 1.0)
    );
    let empty = folder(&[]);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_dir_all("x", empty.path()).unwrap();
    let place = folder(&[("a.tar", &archive.into_inner().unwrap())]);
    says(
        &refused(&place.path().join("a.tar"), |_| ()),
        &["the archive holds no structure file"],
    );
}

#[test]
fn chains_that_cannot_be_used_say_why() {
    let place = folder(&[("one.cif", cif(&[ALPHA]).as_bytes())]);
    says(
        &refused(place.path(), |_| ()),
        &[
            "none of the 1 chains in 1 files",
            "1 chains with fewer residues",
            "min_resolved",
        ],
    );
    says(
        &refused(place.path(), |o| o.min_resolved = 1),
        &["a single residue is a point"],
    );
    let water = Atom {
        record: "HETATM",
        name: "O",
        element: "O",
        residue: "HOH",
        ..ALPHA
    };
    says(
        &alone("water.pdb", pdb(&[water]).as_bytes()),
        &["1 files hold no protein chain"],
    );
    let nmr =
        pdb(&chain("A", 1, 60)).replacen("HEADER    MADE FOR A TEST", "EXPDTA    SOLUTION NMR", 1);
    let place = folder(&[
        ("nmr.pdb", nmr.as_bytes()),
        ("other.pdb", pdb(&chain("A", 2, 60)).as_bytes()),
    ]);
    let descriptor = open(place.path(), |o| o.experiments = "diffraction-or-em".into()).describe();
    assert_eq!(
        (
            samples(&descriptor),
            left_out(&descriptor, "another method")
        ),
        (vec![1], 1.0)
    );
    says(
        &refused(place.path(), |o| o.experiments = "stated".into()),
        &["another method", "state no method"],
    );
}
