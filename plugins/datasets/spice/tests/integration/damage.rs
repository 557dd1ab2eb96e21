//! Damaged files: cut at many lengths and with flipped bytes they give an error or other numbers, never a panic, and never a number that is not finite.

use crate::{options, written};
use equivbench_plugin::DatasetPlugin;
use equivbench_spice::Spice;
use std::{
    io::Read,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

fn unpacked(name: &str) -> Vec<u8> {
    let (_folder, path) = crate::fixture(name);
    std::fs::read(path).unwrap()
}

/// Opens a file and reads every sample: how many there are, or the error's text.
fn read_all(path: &Path) -> Result<u64, String> {
    let run = || {
        let mut data = Spice::open(options(path, |o| o.split_by = "frame".into()), 1)
            .map_err(|e| e.to_string())?;
        for split in data.describe().splits {
            for i in 0..split.samples {
                let c = data
                    .conformation(&split.name, i)
                    .map_err(|e| e.to_string())?;
                assert!(
                    c.positions
                        .iter()
                        .chain(&c.forces)
                        .chain([&c.energy])
                        .all(|x| x.is_finite())
                );
            }
        }
        Ok(data.describe().splits.iter().map(|s| s.samples).sum())
    };
    catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| panic!("the reader panicked on {}", path.display()))
}

/// The same with a larger file, where the shared data are there.
fn damage_more(file: &str) {
    if let Some(path) = equivbench_testkit::more_data(file) {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        truncations(name, &bytes, (0..bytes.len()).step_by(bytes.len() / 12 + 1));
        flips(name, &bytes, 12);
    }
}

fn truncations(name: &str, bytes: &[u8], lengths: impl Iterator<Item = usize>) {
    let (_folder, path) = written(name, bytes);
    let all = read_all(&path).unwrap();
    for length in lengths {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let message = match read_all(&path) {
            // The last pages of an LMDB file may be unused; without them nothing is missing.
            Ok(read) if name.ends_with("lmdb") && read == all => continue,
            Ok(_) => panic!(
                "{name} was cut to {length} of {} bytes and still opened",
                bytes.len()
            ),
            Err(message) => message,
        };
        assert!(
            message.contains(name) && !message.contains('\n'),
            "{message}"
        );
    }
}

/// `EQUIVBENCH_FUZZ_ROUNDS` multiplies the number of damaged copies.
fn flips(name: &str, bytes: &[u8], count: usize) {
    let rounds = std::env::var("EQUIVBENCH_FUZZ_ROUNDS")
        .ok()
        .and_then(|r| r.parse().ok())
        .unwrap_or(1_usize);
    let (_folder, path) = written(name, bytes);
    for i in 0..count * rounds {
        let mut damaged = bytes.to_vec();
        // A fixed sequence that reaches all parts of the file.
        let at = (i.wrapping_mul(0x9E37_79B9) >> 3) % bytes.len();
        damaged[at] ^= 1 << (i % 8);
        damaged[(at + 4096) % bytes.len()] = if i % 2 == 0 { 0xff } else { 0 };
        std::fs::write(&path, &damaged).unwrap();
        let _ = read_all(&path);
    }
}

#[test]
fn a_cut_hdf5_file_is_an_error() {
    let bytes = unpacked("release.hdf5");
    truncations(
        "cut.hdf5",
        &bytes,
        (0..bytes.len()).step_by(bytes.len() / 60 + 1),
    );
    damage_more("real/spice/SPICE-1.1.4_n2.hdf5");
}

#[test]
fn flipped_bytes_of_hdf5_never_panic() {
    flips("flip.hdf5", &unpacked("release.hdf5"), 600);
}

#[test]
fn a_cut_lmdb_file_is_an_error() {
    let bytes = unpacked("rows.aselmdb");
    truncations(
        "cut.aselmdb",
        &bytes,
        (0..bytes.len()).step_by(bytes.len() / 40 + 1),
    );
    damage_more("formats_samples/ase/sample.aselmdb");
}

#[test]
fn flipped_bytes_of_lmdb_never_panic() {
    flips("flip.aselmdb", &unpacked("rows.aselmdb"), 600);
}

fn trajectory() -> Vec<u8> {
    let header = "Properties=species:S:1:pos:R:3:forces:R:3 energy=-1.25 pbc=\"F F F\"";
    (0..40)
        .flat_map(|i| {
            format!("2\n{header}\nO 0.0 0.0 0.0 0.10 0.0 0.0\nH 0.0 0.0 0.9{i:02} -0.10 0.0 0.0\n")
                .into_bytes()
        })
        .collect()
}

#[test]
fn flipped_bytes_of_extended_xyz_never_panic() {
    flips("flip.xyz", &trajectory(), 600);
}

#[test]
fn a_cut_gzip_file_is_an_error() {
    let mut packed = Vec::new();
    flate2::read::GzEncoder::new(&trajectory()[..], flate2::Compression::default())
        .read_to_end(&mut packed)
        .unwrap();
    let lengths: Vec<usize> = (0..packed.len()).step_by(packed.len() / 40 + 1).collect();
    truncations("cut.xyz.gz", &packed, lengths.into_iter());
    flips("flip.xyz.gz", &packed, 300);
    damage_more("real/qm/BOTNet/ethanol_train.xyz.gz");
}
