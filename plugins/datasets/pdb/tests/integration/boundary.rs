//! The dataset as the host sees it: JSON requests, buffers of the host, errors with codes.

use crate::make::{chain, cif, folder};
use equivbench_pdb::Pdb;
use equivbench_plugin::{
    DatasetDescriptor,
    private::{
        DatasetEntry,
        abi::{
            DatasetBox, ElementType, FieldMut,
            abi_stable::std_types::{RErr, ROk, RSlice, RSliceMut},
            code,
        },
        open_dataset,
    },
};
use std::{path::Path, time::Instant};

static DATASETS: &[DatasetEntry] = &[DatasetEntry::of::<Pdb>()];

fn request(path: &Path) -> String {
    let options = serde_json::json!({
        "path": path, "cache": "none", "min_length": 0, "min_resolved": 2, "valid_fraction": 0.0, "test_fraction": 0.0
    });
    serde_json::json!({ "dataset": "pdb", "seed": 3, "options": options.to_string() }).to_string()
}

fn opened(request: &str) -> DatasetBox {
    match open_dataset(request.into(), DATASETS) {
        ROk(data) => data,
        RErr(error) => panic!("{}", error.message),
    }
}

fn field<'a>(
    name: &'a str,
    element: ElementType,
    shape: &'a [u64],
    bytes: &'a mut [u8],
) -> FieldMut<'a> {
    FieldMut {
        name: name.into(),
        element: element.code(),
        shape: RSlice::from_slice(shape),
        bytes: RSliceMut::from_mut_slice(bytes),
    }
}

/// Two chains of 3 and 5 residues; the second breaks after its second residue.
fn two_chains() -> tempfile::TempDir {
    let (first, mut second) = (chain("A", 1, 3), chain("B", 2, 5));
    for (i, atom) in second.iter_mut().enumerate() {
        atom.number = if i < 2 { -1 + i as i32 } else { 10 + i as i32 };
        atom.position[0] += if i < 2 { 0.0 } else { 4.5 };
    }
    folder(&[("x.cif", cif(&[first, second].concat()).as_bytes())])
}

#[test]
fn a_batch_crosses_the_boundary_in_nanometres_and_in_order() {
    let folder = two_chains();
    let mut data = opened(&request(folder.path()));
    let ROk(text) = data.describe() else {
        panic!("not described")
    };
    let descriptor: DatasetDescriptor = serde_json::from_str(&text).unwrap();
    let fields: Vec<_> = descriptor
        .fields
        .iter()
        .map(|f| {
            (
                f.name.as_str(),
                f.kind.as_str(),
                f.rows.as_str(),
                f.unit.as_str(),
            )
        })
        .collect();
    let expected = [
        ("positions", "vector", "point", "nm"),
        ("residue_index", "invariant", "point", ""),
        ("chain_break", "invariant", "point", ""),
    ];
    assert_eq!(
        (fields, descriptor.tasks),
        (expected.to_vec(), vec!["flow-matching".to_owned()])
    );
    let mut points = [0_u64; 2];
    assert!(matches!(
        data.points_into(
            "train".into(),
            (&[0_u64, 1][..]).into(),
            (&mut points[..]).into()
        ),
        ROk(())
    ));
    let mut indices = [0_u64, 1, 0];
    if points[0] == 3 {
        indices = [1, 0, 1];
    }
    let (mut positions, mut numbers, mut breaks) = ([0.0_f64; 39], [0_i64; 13], [7_i64; 13]);
    let (rows, ones) = ([13, 3], [13]);
    let mut fields = [
        field(
            "chain_break",
            ElementType::I64,
            &ones,
            bytemuck::cast_slice_mut(&mut breaks),
        ),
        field(
            "positions",
            ElementType::F64,
            &rows,
            bytemuck::cast_slice_mut(&mut positions),
        ),
        field(
            "residue_index",
            ElementType::I64,
            &ones,
            bytemuck::cast_slice_mut(&mut numbers),
        ),
    ];
    assert!(matches!(
        data.samples_into(
            "train".into(),
            (&indices[..]).into(),
            (&mut fields[..]).into()
        ),
        ROk(())
    ));
    assert_eq!(numbers, [-1, 0, 12, 13, 14, 1, 2, 3, -1, 0, 12, 13, 14]);
    assert_eq!(breaks, [0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    let atoms = chain("A", 1, 3);
    for (x, y) in positions[15..24]
        .iter()
        .zip(atoms.iter().flat_map(|a| a.position))
    {
        assert_eq!(*x, y / 10.0);
    }
    assert_eq!(positions[..15], positions[24..]);
}

#[test]
fn errors_cross_with_a_code_and_a_remedy() {
    let refused = |request: &str| match open_dataset(request.into(), DATASETS) {
        RErr(error) => (error.code, error.message.to_string()),
        ROk(_) => panic!("opened"),
    };
    let (found, message) = refused(r#"{"dataset": "pdb", "options": "{\"path\": \"no/folder\"}"}"#);
    assert!(
        found == code::BAD_DATA && message.contains("no/folder: cannot be opened"),
        "{message}"
    );
    let (found, message) = refused(r#"{"dataset": "pdb", "options": "{\"max_lenght\": 1}"}"#);
    assert!(
        found == code::BAD_REQUEST && message.contains("did you mean \"max_length\""),
        "{message}"
    );
    let folder = two_chains();
    let mut data = opened(&request(folder.path()));
    let mut out = [0_u64];
    for (split, index) in [("valid", 0_u64), ("train", 2)] {
        assert!(
            matches!(data.points_into(split.into(), (&[index][..]).into(), (&mut out[..]).into()), RErr(e) if e.code == code::BAD_REQUEST)
        );
    }
    let (mut small, shape) = ([0.0_f64; 6], [2, 3]);
    let mut fields = [field(
        "positions",
        ElementType::F64,
        &shape,
        bytemuck::cast_slice_mut(&mut small),
    )];
    assert!(
        matches!(data.samples_into("train".into(), (&[0_u64][..]).into(), (&mut fields[..]).into()), RErr(e) if e.message.contains("smaller"))
    );
}

/// Prints how long things take. A batch takes a 150th of an opening or less; a tenth says that nothing is opened again, on any machine and
/// beside any neighbours: the quickest of five batches is a fraction of one slice of a processor's time.
/// `EQUIVBENCH_PDB_PATH` adds data, for example the archive;
/// their cache lies in the folder `EQUIVBENCH_PDB_CACHE`, or in memory.
#[test]
fn a_batch_is_read_without_opening_the_data_again() {
    let mut requests = vec![("embedded sample", r#"{"dataset": "pdb"}"#.to_owned())];
    if let Ok(path) = std::env::var("EQUIVBENCH_PDB_PATH") {
        let cache = std::env::var("EQUIVBENCH_PDB_CACHE").unwrap_or_else(|_| "none".into());
        let options = serde_json::json!({ "path": path, "cache": cache }).to_string();
        let request = serde_json::json!({ "dataset": "pdb", "options": options }).to_string();
        requests.extend([
            ("the path given", request.clone()),
            ("the path given, again", request),
        ]);
    }
    for (name, request) in requests {
        let start = Instant::now();
        let mut data = opened(&request);
        let opening_s = start.elapsed().as_secs_f64();
        let indices: Vec<u64> = (0..24).collect();
        let mut points = [0; 24];
        let mut best_s = f64::INFINITY;
        for _ in 0..5 {
            let start = Instant::now();
            assert!(matches!(
                data.points_into(
                    "train".into(),
                    (&indices[..]).into(),
                    (&mut points[..]).into()
                ),
                ROk(())
            ));
            let shape = [points.iter().sum::<u64>(), 3];
            let mut positions = vec![0.0_f64; 3 * shape[0] as usize];
            let mut fields = [field(
                "positions",
                ElementType::F64,
                &shape,
                bytemuck::cast_slice_mut(&mut positions),
            )];
            assert!(matches!(
                data.samples_into(
                    "train".into(),
                    (&indices[..]).into(),
                    (&mut fields[..]).into()
                ),
                ROk(())
            ));
            best_s = best_s.min(start.elapsed().as_secs_f64());
        }
        println!(
            "{name}: opened in {opening_s:.3} s, a batch of 24 in {:.3} ms",
            1e3 * best_s
        );
        // With a cache an opening reads little, so that its batches are not to be compared with that.
        assert!(name != "embedded sample" || 10.0 * best_s < opening_s);
    }
}
