use super::*;
use crate::archive::testing::{collect, fixture, fixture_conformers, flipped, largest_difference};
use equivbench_testkit::{more_data, shared_data};
use std::{collections::HashSet, path::Path};

const CRUDE: &[u8] = include_bytes!("../../tests/fixtures/crude.msgpack");

fn read_bytes(bytes: &[u8]) -> (Vec<Conformer>, PluginResult<()>) {
    collect(|sink| read(bytes, "crude", sink))
}

fn refusal(bytes: &[u8]) -> String {
    read_bytes(bytes).1.unwrap_err().to_string()
}

fn read_file(name: &str, bytes: &[u8]) -> (Vec<Conformer>, PluginResult<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    collect(|sink| read(input::open(&path).unwrap(), name, sink))
}

/// A map with one SMILES, whose value is this.
fn entry(value: &[u8]) -> Vec<u8> {
    [b"\x81\xa1C", value].concat()
}

/// A map with one SMILES and one conformer with this `xyz`.
fn xyz(value: &[u8]) -> Vec<u8> {
    entry(&[b"\x81\xaaconformers\x91\x81\xa3xyz", value].concat())
}

#[test]
fn maps_with_keys_in_any_order_give_the_conformers_of_the_file_in_order() {
    let (conformers, result) = read_bytes(CRUDE);
    result.unwrap();
    assert_eq!(conformers, fixture_conformers());
}

#[test]
fn a_gzipped_file_is_read_like_a_plain_one() {
    let (plain, result) = read_file("crude.msgpack", CRUDE);
    result.unwrap();
    let packed = include_bytes!("../../tests/fixtures/crude.msgpack.gz");
    let (unpacked, result) = read_file("crude.msgpack.gz", packed);
    result.unwrap();
    assert_eq!(plain, unpacked);
    let (_, result) = read_file("cut.gz", &packed[..packed.len() - 12]);
    assert!(result.unwrap_err().to_string().contains("ends inside"));
}

#[test]
fn every_kind_of_number_is_read() {
    let rows: [&[u8]; 3] = [
        b"\x94\x08\xff\xcc\xfa\xd0\x9c", // 8, -1, u8 250, i8 -100
        b"\x94\xca\x41\x00\x00\x00\xcd\x01\x00\xd1\xff\x00\xce\x00\x00\x01\x00", // f32 8, u16 256, i16 -256, u32 256
        b"\x94\xcb\x40\x20\0\0\0\0\0\0\xd2\xff\xff\xff\xfe\xca\x3f\x80\0\0\0", // f64 8, i32 -2, f32 1, 0
    ];
    let (conformers, result) = read_bytes(&xyz(&[&[0x93][..], rows[0], rows[1], rows[2]].concat()));
    result.unwrap();
    assert_eq!(conformers[0].numbers, [8, 8, 8]);
    assert_eq!(
        conformers[0].positions,
        [
            [-1.0, 250.0, -100.0],
            [256.0, -256.0, 256.0],
            [-2.0, 1.0, 0.0]
        ]
    );
}

#[test]
fn unknown_values_of_every_kind_are_passed_over() {
    let values: [&[u8]; 22] = [
        b"\xc0",
        b"\xc2",
        b"\x05",
        b"\xe0",
        b"\xcc1",
        b"\xcd12",
        b"\xce1234",
        b"\xcf12345678",
        b"\xd312345678",
        b"\xca1234",
        b"\xcb12345678",
        b"\xa212",
        b"\xd9\x0212",
        b"\xda\0\x0212",
        b"\xdb\0\0\0\x0212",
        b"\xc4\x0212",
        b"\xd4t1",
        b"\xd8t0123456789abcdef",
        b"\xc7\x03t123",
        b"\xdc\0\x02\x01\x91\xc0",
        b"\xde\0\x01\xa1k\x81\x01\x02",
        b"\xdd\0\0\0\x01\xdf\0\0\0\x01\x01\x90",
    ];
    for value in values {
        let (conformers, result) = read_bytes(&entry(
            &[b"\x82\xa1u", value, b"\xaaconformers\x91\x81\xa3xyz\x90"].concat(),
        ));
        result.unwrap();
        assert_eq!(conformers.len(), 1, "{value:x?}");
    }
}

#[test]
fn a_foreign_or_senseless_file_is_refused_with_its_place() {
    let cases: [(&[u8], &str); 8] = [
        (b"", "it is empty"),
        (
            b"\x91\x01",
            "map 1, byte 1: it should hold a map here and holds FixArray(1)",
        ),
        (b"\x81\x05", "it should hold text here"),
        (
            &entry(b"\x81\xa1a\x01"),
            "entry \"C\", byte 7: the entry has no \"conformers\"",
        ),
        (
            &entry(b"\x81\xaaconformers\x91\x81\xa1a\x01"),
            "a conformer has no \"xyz\"; GEOM's crude files",
        ),
        (&xyz(b"\x91\x93\x08\x00\x00"), "is not [Z, x, y, z]"),
        (&xyz(b"\x91\x94\x00\x00\x00\x00"), "0 is no atomic number"),
        (
            &xyz(b"\x91\x94\xca\x41\x04\x00\x00\x00\x00\x00"),
            "8.25 is no atomic number",
        ),
    ];
    for (bytes, expected) in cases {
        let message = refusal(bytes);
        assert!(message.contains(expected), "{message}");
    }
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    assert!(refusal(&tar).contains("it is a tar archive; unpack it (tar -xf FILE)"));
}

#[test]
fn coordinates_that_are_not_finite_are_handed_over() {
    let (conformers, result) = read_bytes(&xyz(b"\x91\x94\x08\xca\x7f\xc0\0\0\x01\x02"));
    result.unwrap();
    let [x, y, z] = conformers[0].positions[0];
    assert!(x.is_nan() && (y, z) == (1.0, 2.0));
}

#[test]
fn lengths_that_lie_are_refused_without_memory() {
    assert!(refusal(b"\x81\xdb\xff\xff\xff\xff").contains("a key claims 4294967295 bytes"));
    assert!(refusal(&xyz(b"\xdd\xff\xff\xff\xff")).contains("claims 4294967295 atoms"));
    assert!(refusal(&entry(b"\x81\xa1a\xdb\xff\xff\xff\xff")).contains("ends inside a value"));
    assert!(refusal(&entry(b"\x81\xa1a\xdf\xff\xff\xff\xff")).contains("ends inside a value"));
    assert!(
        refusal(&entry(b"\x81\xaaconformers\xdd\xff\xff\xff\xff")).contains("ends inside a value")
    );
}

#[test]
fn deep_nesting_is_passed_over_without_recursion() {
    let nested = [vec![0x91; 1_000_000], vec![0xc0]].concat();
    let (_, result) = read_bytes(&entry(
        &[b"\x82\xa1u", &nested[..], b"\xaaconformers\x90"].concat(),
    ));
    result.unwrap();
}

#[test]
fn a_file_cut_anywhere_gives_an_error_or_the_maps_in_front_of_the_cut() {
    let whole = fixture_conformers();
    let mut complete = 0;
    for cut in 0..CRUDE.len() {
        let (conformers, result) = read_bytes(&CRUDE[..cut]);
        assert_eq!(conformers, whole[..conformers.len()]);
        complete += usize::from(result.is_ok());
    }
    // Only the end of the first of two maps is a place to stop.
    assert_eq!(complete, 1);
}

#[test]
fn flipped_bits_never_panic() {
    let refused = flipped(CRUDE, 20_000)
        .filter(|bytes| read_bytes(bytes).1.is_err())
        .count();
    // MessagePack has no checksum: flips of numbers stay unseen, flips of markers mostly do not.
    assert!((2_000..19_000).contains(&refused), "{refused}");
}

#[test]
fn an_error_of_the_taker_ends_the_reading() {
    let mut taken = 0;
    let result = read(CRUDE, "crude", &mut |_| {
        taken += 1;
        Err(PluginError::BadRequest("enough".into()))
    });
    assert_eq!(
        (taken, result.unwrap_err().to_string()),
        (1, "enough".into())
    );
}

#[test]
fn the_real_entry_agrees_with_its_json() {
    let Some([path]) = shared_data(["formats_samples/geom/geom_tutorial_real.msgpack"]) else {
        return;
    };
    let (conformers, result) = collect(|sink| read(input::open(&path).unwrap(), "real", sink));
    result.unwrap();
    let json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
    let (smiles, entry) = json.as_object().unwrap().iter().next().unwrap();
    let rows: Vec<[f64; 4]> =
        serde_json::from_value(entry["conformers"][0]["xyz"].clone()).unwrap();
    let expected = Conformer {
        molecule: smiles.clone(),
        numbers: rows.iter().map(|r| r[0] as u8).collect(),
        positions: rows.iter().map(|r| [r[1], r[2], r[3]]).collect(),
        ..Conformer::default()
    };
    assert_eq!((conformers.len(), conformers[0].numbers.len()), (1, 43));
    assert_eq!(conformers[0].molecule, expected.molecule);
    // A decimal may be rounded to either of two neighbouring f64.
    assert!(largest_difference(&conformers, &[expected]) < 1e-14);
}

/// Files, flat arrays with the same molecules, and numbers of molecules, conformers and atoms, counted with msgpack-python.
#[test]
fn files_agree_with_the_flat_arrays_of_the_same_molecules() {
    let small = (fixture("small.msgpack.gz"), fixture("small.npz"));
    compare_with_flat_arrays(&small.0, &small.1, (13, 50, 1960));
    let sample = more_data("formats_samples/geom/drugs_crude.msgpack")
        .zip(more_data("geomlike/geomlike_drugs.npz"));
    if let Some((crude, npz)) = sample {
        compare_with_flat_arrays(&crude, &npz, (24, 78, 3073));
    }
}

fn compare_with_flat_arrays(crude: &Path, npz: &Path, counts: (usize, usize, usize)) {
    let (mut conformers, result) = collect(|sink| read(input::open(crude).unwrap(), "crude", sink));
    result.unwrap();
    let (flat, result) = collect(|sink| crate::npz::read(npz, "npz", sink));
    result.unwrap();
    let molecules: HashSet<String> = conformers.iter().map(|c| c.molecule.clone()).collect();
    let atoms = conformers.iter().map(|c| c.numbers.len()).sum::<usize>();
    assert_eq!((molecules.len(), conformers.len(), atoms), counts);
    let mut same: Vec<Conformer> = flat
        .into_iter()
        .filter(|c| molecules.contains(&c.molecule))
        .collect();
    // A file may deal the molecules out to two maps; the order of a molecule's conformers stays.
    conformers.sort_by(|a, b| a.molecule.cmp(&b.molecule));
    same.sort_by(|a, b| a.molecule.cmp(&b.molecule));
    assert!(
        conformers
            .iter()
            .zip(&same)
            .all(|(a, b)| a.molecule == b.molecule)
    );
    // Written from text with 4 decimals; f32 adds at most 1e-6 at 16 Å.
    assert!(largest_difference(&conformers, &same) < 0.5e-4 + 1e-6);
}
