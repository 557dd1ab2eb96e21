use super::*;
use crate::archive::testing::{
    collect, fixture, fixture_conformers, flipped, largest_difference, open_bytes, zip,
};
use equivbench_testkit::more_data;
use std::{collections::HashSet, path::Path};

/// f32 and i32, protocol 2, a storage per tensor.
const NARROW: &[u8] = include_bytes!("../../tests/fixtures/voxmol.pth");
/// f64 and i64, protocol 4, all tensors in two storages.
const WIDE: &[u8] = include_bytes!("../../tests/fixtures/voxmol_wide.pth");

const COORDS: [f32; 12] = [
    0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 999.0, 999.0, 999.0, 999.0, 999.0, 999.0,
];
const CHANNELS: [i32; 4] = [0, 1, 999, 999];

fn read_bytes(bytes: &[u8]) -> (Vec<Conformer>, PluginResult<()>) {
    collect(|sink| read_archive(&open_bytes(bytes)?, "memory", sink))
}

/// A torch file of this pickle, with coordinates in storage 0 and channels in storage 1.
fn torch(pickle: &[u8], is_deflated: bool) -> Vec<u8> {
    let coords: Vec<u8> = COORDS.iter().flat_map(|x| x.to_le_bytes()).collect();
    let channels: Vec<u8> = CHANNELS.iter().flat_map(|x| x.to_le_bytes()).collect();
    zip(
        &[
            ("a/data.pkl", pickle),
            ("a/byteorder", b"little"),
            ("a/data/0", &coords),
            ("a/data/1", &channels),
        ],
        is_deflated,
    )
}

fn refusal(pickle: &[u8]) -> String {
    read_bytes(&torch(pickle, false)).1.unwrap_err().to_string()
}

// ---- a pickle, operation by operation ----

fn text(text: &str) -> Vec<u8> {
    [
        b"X",
        &(text.len() as u32).to_le_bytes()[..],
        text.as_bytes(),
    ]
    .concat()
}

fn int(n: i32) -> Vec<u8> {
    [b"J", &n.to_le_bytes()[..]].concat()
}

fn ints(values: &[i32]) -> Vec<u8> {
    [
        b"(".to_vec(),
        values.iter().flat_map(|&n| int(n)).collect(),
        b"t".to_vec(),
    ]
    .concat()
}

/// `_rebuild_tensor_v2(storage(kind, key, elements), offset, shape, strides, ..)`.
fn tensor(
    kind: &str,
    key: &str,
    elements: i32,
    offset: i32,
    shape: &[i32],
    strides: &[i32],
) -> Vec<u8> {
    let storage = [
        b"(".to_vec(),
        text("storage"),
        format!("ctorch\n{kind}\n").into(),
        text(key),
        text("cpu"),
        int(elements),
        b"tQ".to_vec(),
    ];
    let arguments = [
        storage.concat(),
        int(offset),
        ints(shape),
        ints(strides),
        b"\x89ccollections\nOrderedDict\n)R".to_vec(),
    ];
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n(".to_vec(),
        arguments.concat(),
        b"tR".to_vec(),
    ]
    .concat()
}

fn coords() -> Vec<u8> {
    tensor("FloatStorage", "0", 12, 0, &[4, 3], &[3, 1])
}

fn channels() -> Vec<u8> {
    tensor("IntStorage", "1", 4, 0, &[4], &[1])
}

/// A list of one dict with these tensors.
fn list_of(coords: &[u8], channels: &[u8]) -> Vec<u8> {
    let items = [
        text("smiles"),
        text("CO"),
        text("coords"),
        coords.to_vec(),
        text("atoms_channel"),
        channels.to_vec(),
    ]
    .concat();
    [b"\x80\x02](}(", &items[..], b"ue."].concat()
}

/// A list whose first item is made by these operations.
fn list_with(operations: &[u8]) -> Vec<u8> {
    [b"\x80\x02](", operations, b"e."].concat()
}

#[test]
fn files_of_torch_give_the_conformers_of_the_script_without_padding() {
    for bytes in [NARROW, WIDE] {
        let (conformers, result) = read_bytes(bytes);
        result.unwrap();
        assert_eq!(conformers, fixture_conformers());
    }
}

#[test]
fn a_file_on_disk_is_read_and_one_of_old_torch_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train_data.pth");
    std::fs::write(&path, NARROW).unwrap();
    let (conformers, result) = collect(|sink| read(&path, "train_data.pth", sink));
    result.unwrap();
    assert_eq!(conformers, fixture_conformers());
    std::fs::write(&path, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.").unwrap();
    let (_, result) = collect(|sink| read(&path, "train_data.pth", sink));
    assert!(
        result
            .unwrap_err()
            .to_string()
            .contains("before version 1.6")
    );
    let (_, result) = collect(|sink| read(&folder.path().join("none"), "none", sink));
    assert!(result.unwrap_err().to_string().contains("check the path"));
}

#[test]
fn a_pickle_written_by_hand_is_read_stored_and_deflated() {
    for is_deflated in [false, true] {
        let (conformers, result) =
            read_bytes(&torch(&list_of(&coords(), &channels()), is_deflated));
        result.unwrap();
        assert_eq!(conformers.len(), 1);
        assert_eq!(
            (&conformers[0].molecule[..], &conformers[0].numbers[..]),
            ("CO", &[6, 1][..])
        );
        assert_eq!(conformers[0].positions, [[0.5, 1.0, 1.5], [2.0, 2.5, 3.0]]);
    }
}

#[test]
fn views_with_an_offset_into_a_shared_storage_are_read_and_others_are_refused() {
    let second = tensor("FloatStorage", "0", 12, 3, &[1, 3], &[3, 1]);
    let (conformers, result) = read_bytes(&torch(
        &list_of(&second, &tensor("IntStorage", "1", 4, 1, &[1], &[1])),
        false,
    ));
    result.unwrap();
    assert_eq!(
        (&conformers[0].positions[..], &conformers[0].numbers[..]),
        (&[[2.0, 2.5, 3.0]][..], &[1][..])
    );
    let cases = [
        (
            tensor("FloatStorage", "0", 12, 0, &[4, 3], &[1, 4]),
            "shape [4, 3] with strides [1, 4] is not contiguous",
        ),
        (
            tensor("FloatStorage", "0", 12, 3, &[4, 3], &[3, 1]),
            "12 elements from 3 on reaches beyond its storage of 12",
        ),
        (
            tensor("FloatStorage", "0", 13, 0, &[4, 3], &[3, 1]),
            "entry a/data/0: it holds 48 bytes for 13 elements",
        ),
        (
            tensor("DoubleStorage", "0", 12, 0, &[4, 3], &[3, 1]),
            "it holds 48 bytes for 12 elements",
        ),
        (
            tensor("FloatStorage", "7", 12, 0, &[4, 3], &[3, 1]),
            "entry a/data/7: it cannot be read",
        ),
        (
            tensor("FloatStorage", "../../etc/passwd", 12, 0, &[4, 3], &[3, 1]),
            "entry a/data/../../etc/passwd: it cannot be read",
        ),
        (
            tensor("IntStorage", "1", 4, 0, &[4], &[1]),
            "coords [4] and atoms_channel [4] should be",
        ),
        (
            tensor("IntStorage", "0", 12, 0, &[4, 3], &[3, 1]),
            "coordinates of I32",
        ),
        (
            tensor("FloatStorage", "0", 12, -1, &[4, 3], &[3, 1]),
            "are no counts",
        ),
        (
            tensor("FloatStorage", "0", 12, 0, &[4, 3], &[1]),
            "the shape [4, 3] and the strides [1]",
        ),
        (
            tensor(
                "FloatStorage",
                "0",
                i32::MAX,
                0,
                &[i32::MAX, i32::MAX, i32::MAX],
                &[0, 0, 0],
            ),
            "a tensor's shape overflows",
        ),
        (
            tensor("FloatStorage", "0", i32::MAX, 0, &[300_000_000, 3], &[3, 1]),
            "and atoms_channel [4] should be",
        ),
        (
            tensor("HalfStorage", "0", 12, 0, &[4, 3], &[3, 1]),
            "the name \"torch HalfStorage\" is refused",
        ),
    ];
    for (coords, expected) in cases {
        let message = refusal(&list_of(&coords, &channels()));
        assert!(message.contains(expected), "{message} | {expected}");
    }
    let many = tensor("FloatStorage", "0", i32::MAX, 0, &[500_000_000, 3], &[3, 1]);
    let message = refusal(&list_of(
        &many,
        &tensor("IntStorage", "1", i32::MAX, 0, &[500_000_000], &[1]),
    ));
    assert!(
        message.contains("a molecule of 1500000000 elements"),
        "{message}"
    );
}

#[test]
fn large_storages_are_read_in_parts() {
    let rows = 1_500_000_usize;
    let coords: Vec<u8> = (0..3 * rows)
        .flat_map(|i| (i as f32).to_le_bytes())
        .collect();
    assert!(coords.len() as u64 > storage::MAX_WHOLE_BYTES);
    let pickle = list_of(
        &tensor(
            "FloatStorage",
            "0",
            3 * rows as i32,
            3_000_000,
            &[1, 3],
            &[3, 1],
        ),
        &tensor("IntStorage", "1", 1, 0, &[1], &[1]),
    );
    let with = |is_deflated| {
        zip(
            &[
                ("data.pkl", &pickle[..]),
                ("data/0", &coords[..]),
                ("data/1", &[0, 0, 0, 0]),
            ],
            is_deflated,
        )
    };
    let (conformers, result) = read_bytes(&with(false));
    result.unwrap();
    assert_eq!(conformers[0].positions, [[3e6, 3_000_001.0, 3_000_002.0]]);
    assert!(
        read_bytes(&with(true))
            .1
            .unwrap_err()
            .to_string()
            .contains("entry data/0: it cannot be read")
    );
}

/// Reads a list of one record with one row.
fn one_atom(coords: &[f32; 3], channels: &[i32; 1]) -> (Vec<Conformer>, PluginResult<()>) {
    let coords: Vec<u8> = coords.iter().flat_map(|x| x.to_le_bytes()).collect();
    let pickle = list_of(
        &tensor("FloatStorage", "0", 3, 0, &[1, 3], &[3, 1]),
        &tensor("IntStorage", "1", 1, 0, &[1], &[1]),
    );
    read_bytes(&zip(
        &[
            ("data.pkl", &pickle),
            ("data/0", &coords),
            ("data/1", &channels[0].to_le_bytes()),
        ],
        false,
    ))
}

#[test]
fn senseless_rows_are_refused() {
    let with = |coords, channels| one_atom(coords, channels).1.unwrap_err().to_string();
    assert!(with(&[0.0; 3], &[11]).contains("record 0: 11 is no channel"));
    assert!(with(&[0.0; 3], &[-1]).contains("-1 is no channel"));
    assert!(with(&[999.0; 3], &[0]).contains("an atom lies at [999.0, 999.0, 999.0]"));
}

#[test]
fn coordinates_that_are_not_finite_are_handed_over() {
    let (conformers, result) = one_atom(&[0.0, f32::NAN, f32::INFINITY], &[0]);
    result.unwrap();
    let [x, y, z] = conformers[0].positions[0];
    assert!(x == 0.0 && y.is_nan() && z.is_infinite());
}

#[test]
fn archives_of_another_kind_are_refused() {
    let pickle = list_of(&coords(), &channels());
    let message =
        |entries: &[(&str, &[u8])]| read_bytes(&zip(entries, false)).1.unwrap_err().to_string();
    assert!(message(&[("x.npy", b"")]).contains("data.pkl is missing"));
    assert!(
        message(&[("a/data.pkl", &pickle), ("b/data.pkl", &pickle)])
            .contains("more than one data.pkl")
    );
    assert!(
        message(&[("data.pkl", &pickle), ("byteorder", b"big")])
            .contains("the byte order is \"big\"")
    );
    assert!(
        message(&[("data.pkl", b"\x80\x02}.")]).contains("it holds a dict and not a list of dicts")
    );
    assert!(message(&[("data.pkl", b"\x80\x02].x")]).contains("bytes follow its end"));
    assert!(message(&[("data.pkl", b"\x80\x02]](.")]).contains("unused values"));
    assert!(
        message(&[("data.pkl", &list_with(&int(5)))])
            .contains("an item of the list is the number 5 and not a dict")
    );
    assert!(
        message(&[("data.pkl", &list_with(b"}"))])
            .contains("record 0: its dict lacks \"smiles\", a str")
    );
    assert!(read_bytes(b"PK").1.is_err());
}

#[test]
fn what_could_run_code_is_refused_by_name_and_place() {
    let good = list_of(&coords(), &channels());
    let good = &good[4..good.len() - 2]; // "(}( .. u" without the frame around it
    let cases: [(&[u8], &str); 21] = [
        (
            b"cos\nsystem\nX\x02\0\0\0ls\x85R",
            "the name \"os system\" is refused",
        ),
        (
            b"cposix\nsystem\nX\x02\0\0\0ls\x85R",
            "the name \"posix system\" is refused",
        ),
        (
            b"c__builtin__\neval\nX\x01\0\0\x001\x85R",
            "the name \"__builtin__ eval\" is refused",
        ),
        (
            b"X\x02\0\0\0osX\x06\0\0\0system\x93X\x02\0\0\0ls\x85R",
            "the name \"os system\" is refused",
        ),
        (
            b"\x8c\x02os\x94\x8c\x06system\x94\x93\x94",
            "the name \"os system\" is refused",
        ),
        (b"K\x01K\x02\x93", "STACK_GLOBAL without names"),
        (b"(X\x02\0\0\0lsios\nsystem\n", "0x69 (INST) is refused"),
        (b"(cos\nsystem\nX\x02\0\0\0lso", "0x6f (OBJ) is refused"),
        (
            b"crdkit.Chem.rdchem\nMol\n)\x81",
            "0x81 (NEWOBJ) is refused",
        ),
        (b"\x82\x01", "0x82 (EXT1) is refused"),
        (b"Pos\n", "0x50 (PERSID) is refused"),
        (b"\x00", "0x00 is refused"),
        (b"}}b", "BUILD would change a dict"),
        (
            b"crdkit.Chem.rdchem\nMol\n}b",
            "BUILD would change Molecule",
        ),
        (
            b"ccollections\nOrderedDict\n)R}b",
            "BUILD would change a list or a plain value",
        ),
        (b"K\x05)R", "REDUCE would call the number 5"),
        (
            b"ctorch\nFloatStorage\n)R",
            "REDUCE would call Storage(F32)",
        ),
        (b"cbuiltins\nobject\n)R", "REDUCE would call Object"),
        (
            b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR",
            "copyreg would make something else",
        ),
        (b"crdkit.Chem.rdchem\nMol\nK\x05R", "REDUCE without a tuple"),
        (b"K\x05Q", "a storage is not named by a tuple"),
    ];
    for (operations, expected) in cases {
        let message = refusal(&list_with(&[good, operations].concat()));
        assert!(message.contains(expected), "{message} | {expected}");
        assert!(
            message.starts_with("memory, a/data.pkl, byte ") && message.contains("; "),
            "{message}"
        );
    }
    assert!(refusal(&list_with(b"cos\nsystem\n")).contains("data.pkl, byte 4: the name"));
}

#[test]
fn molecules_in_every_spelling_of_rdkit_are_passed_over() {
    let spellings: [&[u8]; 4] = [
        b"crdkit.Chem.rdchem\nMol\nB\x02\0\0\0\xef\xbe\x85R",
        b"crdkit.Chem.rdchem\nMol\nc_codecs\nencode\nX\x02\0\0\0\xc3\xaf\x8c\x06latin1\x86R\x85R}\x85b",
        b"ccopy_reg\n_reconstructor\n(crdkit.Chem.rdchem\nMol\nc__builtin__\nobject\nNtR}(X\x01\0\0\0a](K\x01K\x02eX\x01\0\0\0bNub",
        b"\x8c\x11rdkit.Chem.rdchem\x8c\x03Mol\x93C\x02\xef\xbe\x85R",
    ];
    for molecule in spellings {
        let items = [
            text("mol"),
            molecule.to_vec(),
            text("smiles"),
            text("CO"),
            text("coords"),
            coords(),
            text("atoms_channel"),
            channels(),
        ];
        let (conformers, result) = read_bytes(&torch(
            &list_with(&[b"}(", &items.concat()[..], b"u"].concat()),
            false,
        ));
        result.unwrap();
        assert_eq!(conformers.len(), 1);
    }
}

#[test]
fn damage_of_stack_and_memory_is_refused() {
    let cases: [(&[u8], &str); 10] = [
        (b"h\x09", "value 9 was never remembered"),
        (
            b"j\xff\xff\xff\xff",
            "value 4294967295 was never remembered",
        ),
        (b"\x94h\x07", "a value is missing on the stack"),
        (b"tt", "there is no mark"),
        (b"}(K\x01u", "a key has no value"),
        (b"\x86", "a value is missing on the stack"),
        (b"K\x01(K\x02\x86", "a value is missing on the stack"),
        (b"K\x01K\x02K\x03s", "a key is set in the number 1"),
        (b"K\x01K\x02a", "something is appended to the number 1"),
        (b"R", "a value is missing on the stack"),
    ];
    for (operations, expected) in cases {
        let message = refusal(&list_with(operations));
        assert!(message.contains(expected), "{message} | {expected}");
    }
}

#[test]
fn deep_nesting_and_endless_stacks_are_refused() {
    assert!(
        refusal(&list_with(&[b")".to_vec(), vec![0x85; 1_000_000]].concat()))
            .contains("a tuple of more than 8 levels")
    );
    assert!(refusal(&list_with(&[b'('; 1_000_000])).contains("values are waiting"));
    assert!(refusal(&list_with(&[b'N'; 1_000_000])).contains("values are waiting"));
    assert!(refusal(&list_with(&[&b"("[..], &[b'N'; 100], b"t"].concat())).contains("or 64 items"));
    // Each dict is put into the next, where it is forgotten: a chain of them would be released by recursion.
    let link = |i: u32| {
        [
            &b"}r"[..],
            &(i + 1).to_le_bytes(),
            b"X\x06\0\0\0coordsj",
            &i.to_le_bytes(),
            b"s",
        ]
        .concat()
    };
    let chain: Vec<u8> = (0..100_000).flat_map(link).collect();
    assert!(
        refusal(&list_with(&[b"}r\0\0\0\0".to_vec(), chain].concat())).contains("its dict lacks")
    );
}

#[test]
fn lengths_that_lie_are_refused_without_memory() {
    for operations in [
        &b"X\xff\xff\xff\xff"[..],
        b"B\xff\xff\xff\xff",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    ] {
        assert!(refusal(&list_with(operations)).contains("ends inside a value"));
    }
    assert!(refusal(&list_with(b"\x8a\xff")).contains("an integer of 255 bytes"));
    assert!(refusal(&list_with(&[b'c'; 1000])).contains("a name has no end within 256 bytes"));
}

#[test]
fn integers_of_every_length_are_read() {
    let pickle: &[u8] = b"K\xffM\xff\xffJ\xfe\xff\xff\xff\x8a\x00\x8a\x01\xfe\x8a\x05\0\0\0\0\x01\x8a\x08\0\0\0\0\0\0\0\x80\x88\x89.";
    let mut lexer = Lexer::new(BufReader::new(pickle), "memory", "data.pkl");
    let mut found = Vec::new();
    while let lexer::Op::Int(n) = lexer.step().unwrap() {
        found.push(n);
    }
    assert_eq!(found, [255, 65_535, -2, 0, -2, 1 << 32, i64::MIN, 1, 0]);
}

#[test]
fn only_what_is_asked_for_again_is_remembered() {
    let pickle = list_with(b"q\x01r\x02\0\0\0h\x01j\x07\0\0\0");
    let lexer = Lexer::new(BufReader::new(&pickle[..]), "memory", "data.pkl");
    assert_eq!(lexer.memo_indices_fetched().unwrap(), [1, 7].into());
}

#[test]
fn a_pickle_cut_anywhere_is_an_error() {
    let pickle = list_of(&coords(), &channels());
    for cut in 0..pickle.len() {
        let (conformers, result) = read_bytes(&torch(&pickle[..cut], false));
        assert!(result.is_err() && conformers.is_empty(), "{cut}");
    }
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    for whole in [NARROW, WIDE] {
        for cut in 0..whole.len() {
            let (conformers, result) = read_bytes(&whole[..cut]);
            assert!(result.is_err() && conformers.is_empty(), "{cut}");
        }
    }
}

#[test]
fn flipped_bits_of_a_file_are_found_by_the_checksums_or_change_nothing() {
    for whole in [NARROW, WIDE] {
        for bytes in flipped(whole, 5_000) {
            let (conformers, result) = read_bytes(&bytes);
            assert!(result.is_err() || conformers == fixture_conformers());
        }
    }
}

#[test]
fn flipped_bits_of_a_pickle_never_panic() {
    let pickle = list_of(&coords(), &channels());
    let refused = flipped(&pickle, 20_000)
        .filter(|pickle| read_bytes(&torch(pickle, false)).1.is_err())
        .count();
    assert!(refused > 15_000, "{refused}");
}

/// Files, flat arrays that begin with the same molecules, and numbers of molecules, conformers and atoms, counted with Python.
#[test]
fn files_agree_with_the_flat_arrays_of_the_same_molecules() {
    let small = (fixture("small.pth"), fixture("small.npz"));
    compare_with_flat_arrays(&small.0, &small.1, (12, 46, 1800));
    let sample = more_data("formats_samples/geom/voxmol_train_data.pth")
        .zip(more_data("geomlike/geomlike_drugs.npz"));
    if let Some((pth, npz)) = sample {
        compare_with_flat_arrays(&pth, &npz, (24, 78, 3073));
    }
}

fn compare_with_flat_arrays(pth: &Path, npz: &Path, counts: (usize, usize, usize)) {
    let (conformers, result) = collect(|sink| read(pth, "pth", sink));
    result.unwrap();
    let (flat, result) = collect(|sink| crate::npz::read(npz, "npz", sink));
    result.unwrap();
    let molecules: HashSet<&str> = conformers.iter().map(|c| &c.molecule[..]).collect();
    let atoms = conformers.iter().map(|c| c.numbers.len()).sum::<usize>();
    assert_eq!((molecules.len(), conformers.len(), atoms), counts);
    // VoxMol reads the coordinates back from an SDF with 4 decimals; f32 adds at most 1e-6 at 16 Å on both sides.
    assert!(largest_difference(&conformers, &flat[..conformers.len()]) < 0.5e-4 + 2e-6);
}
