//! Damaged files: cut at many lengths and with flipped bytes they give an error or other numbers, never a panic, and never a number
//! that is not finite.

use crate::{
    chains,
    make::{Atom, chain, cif, folder, gzip, pdb},
    make_bcif::{Coordinates, bcif},
};
use equivbench_pdb::Pdb;
use equivbench_plugin::DatasetPlugin;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

/// Opens a file and reads every chain: how many residues there are, or the error's text.
fn read_all(path: &Path) -> Result<usize, String> {
    let run = || {
        let mut data = Pdb::open(crate::everything(path), 1).map_err(|e| e.to_string())?;
        let found = chains(&mut data);
        assert!(
            found
                .iter()
                .flat_map(|c| c.positions.as_flattened())
                .all(|x| x.is_finite())
        );
        Ok(found.iter().map(|c| c.positions.len()).sum())
    };
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| panic!("the reader panicked on {}", path.display()))
}

fn atoms() -> Vec<Atom> {
    chain("A", 1, 40)
}

/// The same chain in all formats.
fn files() -> [(&'static str, Vec<u8>); 6] {
    let quantised = bcif(&atoms(), Coordinates::Quantised);
    [
        ("x.pdb", pdb(&atoms()).into_bytes()),
        ("x.cif", cif(&atoms()).into_bytes()),
        ("x.bcif", bcif(&atoms(), Coordinates::Fixed)),
        ("y.bcif", quantised),
        ("x.cif.gz", gzip(cif(&atoms()).as_bytes())),
        ("x.bcif.gz", gzip(&bcif(&atoms(), Coordinates::Fixed))),
    ]
}

#[test]
fn files_cut_anywhere_are_errors_or_lack_their_last_lines() {
    for (name, bytes) in files() {
        let place = folder(&[(name, &bytes)]);
        let path = place.path().join(name);
        assert_eq!(read_all(&path).unwrap(), 40, "{name}");
        for length in (0..bytes.len()).step_by(bytes.len() / 150 + 1) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            match read_all(&path) {
                // A text that ends with a line does not say that more should follow.
                Ok(residues) => assert!(
                    !name.contains("bcif") && !name.ends_with(".gz") && residues <= 40,
                    "{name} at {length}"
                ),
                Err(message) => {
                    assert!(
                        (message.contains(name) || message.contains("min_resolved"))
                            && !message.contains('\n'),
                        "{message}"
                    );
                }
            }
        }
    }
}

/// `EQUIVBENCH_FUZZ_ROUNDS` multiplies the number of damaged copies.
#[test]
fn flipped_bytes_never_panic() {
    let rounds = std::env::var("EQUIVBENCH_FUZZ_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(1_usize);
    for (name, bytes) in files() {
        let place = folder(&[(name, &bytes)]);
        let path = place.path().join(name);
        for i in 0..500 * rounds {
            let mut damaged = bytes.clone();
            // A fixed sequence that reaches all parts of the file.
            let at = (i.wrapping_mul(0x9E37_79B9) >> 3) % bytes.len();
            damaged[at] ^= 1 << (i % 8);
            let next = (at + 64) % bytes.len();
            damaged[next] = if i % 2 == 0 { 0xff } else { 0 };
            std::fs::write(&path, &damaged).unwrap();
            let _ = read_all(&path);
        }
    }
    damage_real_files();
}

/// Files of the shared data, cut and flipped at a few places; they are too large for many.
fn damage_real_files() {
    for file in ["pdb_1aki.bcif", "pdb_1aki.cif.gz", "pdb_1aki.pdb.gz"] {
        let path = equivbench_testkit::more_data(&format!("real/proteins/biotite/{file}"));
        let Some(path) = path else { continue };
        let bytes = std::fs::read(&path).unwrap();
        let place = folder(&[(file, &bytes)]);
        let path = place.path().join(file);
        for i in 0..40 {
            let cut = bytes.len() * i / 40;
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert!(read_all(&path).is_err(), "{file} cut to {cut}");
            let mut damaged = bytes.clone();
            damaged[cut] ^= 1 << (i % 8);
            std::fs::write(&path, &damaged).unwrap();
            let _ = read_all(&path);
        }
    }
}
