use super::*;
use crate::archive::testing::{
    collect, fixture, fixture_conformers, flipped, largest_difference, open_bytes, zip,
};
use equivbench_testkit::{more_data, shared_data};

const FLAT: &[u8] = include_bytes!("../../tests/fixtures/flat.npz");
const FLAT_TEXT: &[u8] = include_bytes!("../../tests/fixtures/flat_text.npz");
const FRAMES: &[u8] = include_bytes!("../../tests/fixtures/frames.npz");

fn read_bytes(bytes: &[u8]) -> (Vec<Conformer>, PluginResult<()>) {
    collect(|sink| {
        Npz {
            archive: open_bytes(bytes)?,
            source: "memory.npz",
        }
        .read(sink)
    })
}

fn refusal(arrays: &[(&str, Vec<u8>)]) -> String {
    let entries: Vec<(&str, &[u8])> = arrays
        .iter()
        .map(|(name, bytes)| (*name, &bytes[..]))
        .collect();
    read_bytes(&zip(&entries, true)).1.unwrap_err().to_string()
}

/// An npy file.
fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n");
    [
        b"\x93NUMPY\x01\x00",
        &(header.len() as u16).to_le_bytes()[..],
        header.as_bytes(),
        data,
    ]
    .concat()
}

fn i8s(values: &[i64]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Arrays of one conformer of helium, one of which is replaced.
fn helium(name: &str, array: Vec<u8>) -> Vec<(&str, Vec<u8>)> {
    let mut arrays = vec![
        ("ptr.npy", npy("'<i8'", "(2,)", &i8s(&[0, 1]))),
        ("coords.npy", npy("'<f4'", "(1, 3)", &[0; 12])),
        ("atomic_numbers.npy", npy("'|u1'", "(1,)", &[2])),
    ];
    arrays.retain(|(n, _)| *n != name);
    arrays.push((name, array));
    arrays
}

#[test]
fn flat_arrays_of_numpy_give_the_conformers_of_the_script() {
    for bytes in [FLAT, FLAT_TEXT] {
        let (conformers, result) = read_bytes(bytes);
        result.unwrap();
        assert_eq!(conformers, fixture_conformers());
    }
}

#[test]
fn frames_in_bohr_and_fortran_order_become_one_molecule_in_angstrom() {
    let (frames, result) = read_bytes(FRAMES);
    result.unwrap();
    assert!(frames.iter().all(|f| f.molecule == "memory"));
    let water = &fixture_conformers()[..2];
    // Divided and multiplied by the same number: one rounding each.
    assert!(largest_difference(&frames, water) < 4.0 * f64::EPSILON);
}

#[test]
fn molecules_without_smiles_are_numbered() {
    let entries = helium("mol_id.npy", npy("'<i4'", "(1,)", &7_i32.to_le_bytes()));
    let entries: Vec<(&str, &[u8])> = entries
        .iter()
        .map(|(name, bytes)| (*name, &bytes[..]))
        .collect();
    let (conformers, result) = read_bytes(&zip(&entries, false));
    result.unwrap();
    assert_eq!(
        (&conformers[0].molecule[..], &conformers[0].numbers[..]),
        ("memory#7", &[2][..])
    );
    let (conformers, _) = read_bytes(&zip(&entries[..3], false));
    assert_eq!(conformers[0].molecule, "memory#0");
}

#[test]
fn a_foreign_or_senseless_archive_is_refused_by_the_name_of_its_array() {
    let huge = [u64::MAX.to_le_bytes(), u64::MAX.to_le_bytes()].concat();
    let frames = |coords: &str, z: &str| {
        let floats = npy("'<f8'", coords, &[0; 48]);
        vec![("R.npy", floats), ("z.npy", npy("'|u1'", z, &[1, 1]))]
    };
    let cases = [
        (
            vec![("x.npy", npy("'<f4'", "(1,)", &[0; 4]))],
            "none of the arrays coords, R, positions; it offers x",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(2,)", &i8s(&[0, 2]))),
            "atomic_numbers.npy: 2 more elements are needed, 1 are left",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(2,)", &i8s(&[1, 2]))),
            "ptr.npy: it begins at atom 1, not at 0",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(2,)", &i8s(&[i64::MIN, i64::MAX]))),
            "it begins at atom -9223372036854775808",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(2,)", &i8s(&[0, -1]))),
            "conformer 0 would reach from atom 0 to atom -1",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(3,)", &i8s(&[0, 1, i64::MIN]))),
            "conformer 1 would reach from atom 1 to atom -9",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(2,)", &i8s(&[0, 1 << 40]))),
            "would reach from atom 0",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(2,)", &i8s(&[0, 0]))),
            "it ends at atom 0, but coords holds 1",
        ),
        (
            helium("ptr.npy", npy("'<u8'", "(2,)", &huge)),
            "ptr.npy: it should hold integers",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(0,)", &[])),
            "the shape [conformers + 1]",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(1, 2)", &i8s(&[0, 1]))),
            "the shape [conformers + 1]",
        ),
        (
            helium("ptr.npy", npy("'<i8'", "(99999999999, 99999999999)", &[])),
            "its shape overflows",
        ),
        (
            helium("ptr.npy", npy("'<f8'", "(2,)", &[0; 16])),
            "ptr.npy: it should hold integers, not Float",
        ),
        (
            helium("coords.npy", npy("'<f4'", "(1, 3)", &[0; 11])),
            "coords.npy: it cannot be read, 3 elements before its end",
        ),
        (
            helium("coords.npy", npy("'<f4'", "(1, 3)", &[0; 13])),
            "bytes follow the last element",
        ),
        (
            helium("coords.npy", npy("'<i4'", "(1, 3)", &[0; 12])),
            "it should hold f4 or f8, not Signed of 4 bytes",
        ),
        (
            helium("coords.npy", npy("'<f4'", "(3,)", &[0; 12])),
            "the shape [atoms, 3]",
        ),
        (
            helium(
                "coords.npy",
                npy("'|O'", "(1, 3)", b"\x80\x03cos\nsystem\n"),
            ),
            "array of Python objects (a pickle), which is never unpacked",
        ),
        (
            helium("coords.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec()),
            "no npy header",
        ),
        (
            helium("atomic_numbers.npy", npy("'|u1'", "(1,)", &[119])),
            "no atomic number",
        ),
        (
            helium("atomic_numbers.npy", npy("'|u1'", "(2,)", &[1, 1])),
            "the shape [1], as coords has",
        ),
        (
            helium("mol_id.npy", npy("'<i4'", "(2,)", &[0; 8])),
            "mol_id.npy: it should have the shape [1]",
        ),
        (
            helium("smiles.npy", npy("'<U1'", "(2,)", b"C\0\0\0C\0\0\0")),
            "it has 2 SMILES for 1 conformers and no mol_id",
        ),
        (
            helium("smiles.npy", npy("'<U1'", "(1,)", &u32::MAX.to_le_bytes())),
            "a string is no text",
        ),
        (
            helium("smiles.npy", npy("'<f4'", "(1,)", &[0; 4])),
            "it should hold short text",
        ),
        (
            helium("smiles_utf8.npy", npy("'|u1'", "(1,)", &[0xff])),
            "no UTF-8",
        ),
        (
            helium("smiles_utf8.npy", npy("'|u1'", "(999999999999,)", b"C")),
            "at most 1 GiB",
        ),
        (
            helium("r_unit.npy", npy("'<U1'", "()", b"k\0\0\0")),
            "\"k\" is no known unit",
        ),
        (frames("(1, 2, 2)", "(2,)"), "the shape [frames, atoms, 3]"),
        (
            frames("(1, 2, 3)", "(1,)"),
            "z.npy: it should have the shape [2], as R.npy has",
        ),
        (frames("(999999999999, 0, 3)", "(0,)"), "frames of 0 atoms"),
    ];
    for (arrays, expected) in cases {
        let message = refusal(&arrays);
        assert!(message.contains(expected), "{message} | {expected}");
    }
    assert!(
        read_bytes(b"")
            .1
            .unwrap_err()
            .to_string()
            .contains("cannot be read as a zip archive")
    );
}

#[test]
fn coordinates_that_are_not_finite_are_handed_over() {
    let data = [f32::NAN.to_le_bytes(), f32::INFINITY.to_le_bytes(), [0; 4]].concat();
    let entries = helium("coords.npy", npy("'<f4'", "(1, 3)", &data));
    let entries: Vec<(&str, &[u8])> = entries
        .iter()
        .map(|(name, bytes)| (*name, &bytes[..]))
        .collect();
    let (conformers, result) = read_bytes(&zip(&entries, false));
    result.unwrap();
    let [x, y, z] = conformers[0].positions[0];
    assert!(x.is_nan() && y.is_infinite() && z == 0.0);
}

#[test]
fn a_molecule_number_without_smiles_is_refused() {
    let mut arrays = helium("mol_id.npy", npy("'<i4'", "(1,)", &(-1_i32).to_le_bytes()));
    arrays.push(("smiles_utf8.npy", npy("'|u1'", "(1,)", b"C")));
    assert!(
        refusal(&arrays).contains("conformer 0 belongs to molecule -1, but there are 1 SMILES")
    );
}

#[test]
fn an_archive_cut_anywhere_is_an_error() {
    for whole in [FLAT, FLAT_TEXT, FRAMES] {
        for cut in 0..whole.len() {
            let (conformers, result) = read_bytes(&whole[..cut]);
            assert!(result.is_err() && conformers.is_empty(), "{cut}");
        }
    }
}

#[test]
fn flipped_bits_are_found_by_the_checksums_or_change_no_atom() {
    for whole in [FLAT, FLAT_TEXT, FRAMES] {
        let intact = read_bytes(whole).0;
        for bytes in flipped(whole, 5_000) {
            let (conformers, result) = read_bytes(&bytes);
            // Names in the table of contents have no checksum, so the optional arrays (SMILES, the unit) can get lost.
            let is_intact = conformers.len() == intact.len()
                && conformers.iter().zip(&intact).all(|(a, b)| {
                    a.numbers == b.numbers && (a.positions == b.positions || whole == FRAMES)
                });
            assert!(result.is_err() || is_intact);
        }
    }
}

#[test]
fn real_and_sample_frames_have_the_counts_and_sums_of_numpy() {
    // (file, frames, atoms, sum of |coordinate|) by numpy.
    let oracles = [
        (
            "formats_samples/ase/rmd17_like.npz",
            50,
            5,
            28750.549153839012,
        ),
        ("real/qm/mlff_ethanol.npz", 2000, 9, 1820215.3795278599),
        (
            "real/qm/ethanol_ccsd_t-train.npz",
            1000,
            9,
            936029.1102828714,
        ),
    ];
    let Some(paths) = shared_data(oracles.map(|(file, ..)| file)) else {
        return;
    };
    for ((file, frames, atoms, sum), path) in oracles.into_iter().zip(paths) {
        let (conformers, result) = collect(|sink| read(&path, file, sink));
        result.unwrap();
        assert_eq!(conformers.len(), frames);
        assert!(
            conformers
                .iter()
                .all(|c| c.numbers.len() == atoms && c.molecule == conformers[0].molecule)
        );
        // Weighted by the row, so that exchanged axes or frames show.
        let rows = conformers
            .iter()
            .flat_map(|c| c.positions.iter().flatten())
            .enumerate();
        let found: f64 = rows.map(|(i, x)| x.abs() * (i % 97) as f64).sum();
        // Sums of up to 5e4 numbers in another order.
        assert!((found / sum - 1.0).abs() < 1e-12, "{file}: {found}");
    }
}

#[test]
fn the_flat_arrays_agree_with_the_sdf_of_the_same_run() {
    let mut sets = vec![(fixture("small.npz"), fixture("small.sdf.gz"), 50)];
    sets.extend(more_data("geomlike").map(|folder| {
        let file = |ending| folder.join(format!("geomlike_drugs.{ending}"));
        (file("npz"), file("sdf.gz"), 6365)
    }));
    for (npz, sdf, count) in sets {
        let (conformers, result) = collect(|sink| read(&npz, "npz", sink));
        result.unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(File::open(sdf).unwrap())
            .read_to_string(&mut text)
            .unwrap();
        let expected: Vec<Conformer> = text.split_terminator("$$$$\n").map(sdf_record).collect();
        assert_eq!(conformers.len(), count);
        assert!(
            conformers
                .iter()
                .zip(&expected)
                .all(|(a, b)| a.molecule == b.molecule)
        );
        // The SDF has 4 decimals; f32 adds at most 1e-6 at 16 Å.
        assert!(largest_difference(&conformers, &expected) < 0.5e-4 + 1e-6);
    }
}

/// The atoms of a V2000 record by its columns, and its SMILES.
fn sdf_record(record: &str) -> Conformer {
    let lines: Vec<&str> = record.lines().collect();
    let atoms: usize = lines[3][..3].trim().parse().unwrap();
    let number =
        |line: &str, column: usize| line[column..column + 10].trim().parse::<f64>().unwrap();
    let element = |symbol: &str| match symbol {
        "H" => 1,
        "B" => 5,
        "C" => 6,
        "N" => 7,
        "O" => 8,
        "F" => 9,
        "Si" => 14,
        "P" => 15,
        "S" => 16,
        "Cl" => 17,
        "Br" => 35,
        "I" => 53,
        other => panic!("{other}"),
    };
    let rows = &lines[4..4 + atoms];
    let title = lines
        .iter()
        .position(|line| line.starts_with(">  <SMILES>"))
        .unwrap();
    Conformer {
        molecule: lines[title + 1].into(),
        numbers: rows
            .iter()
            .map(|line| element(line[31..34].trim()))
            .collect(),
        positions: rows
            .iter()
            .map(|line| [number(line, 0), number(line, 10), number(line, 20)])
            .collect(),
        ..Conformer::default()
    }
}
