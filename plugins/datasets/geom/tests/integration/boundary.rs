//! The dataset as the host sees it: JSON requests, buffers of the host, errors with codes.

use crate::make;
use equivbench_geom::Geom;
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
use std::time::Instant;

static DATASETS: &[DatasetEntry] = &[DatasetEntry::of::<Geom>()];

fn opened(request: &str) -> DatasetBox {
    match open_dataset(request.into(), DATASETS) {
        ROk(data) => data,
        RErr(error) => panic!("{}", error.message),
    }
}

fn described(data: &DatasetBox) -> DatasetDescriptor {
    let ROk(text) = data.describe() else {
        panic!("not described")
    };
    serde_json::from_str(&text).unwrap()
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

#[test]
fn a_batch_crosses_the_boundary_in_order() {
    let mut data = opened(r#"{"dataset": "geom", "seed": 3}"#);
    let descriptor = described(&data);
    let fields: Vec<_> = descriptor
        .fields
        .iter()
        .map(|f| {
            (
                f.name.as_str(),
                f.kind.as_str(),
                f.element.as_str(),
                f.rows.as_str(),
                f.unit.as_str(),
            )
        })
        .collect();
    assert_eq!(
        fields,
        [
            ("positions", "vector", "f32", "point", "angstrom"),
            ("species", "invariant", "i64", "point", "")
        ]
    );
    assert_eq!(descriptor.tasks, ["voxel-denoising"]);
    let indices = [5_u64, 0, 5];
    let mut points = [0_u64; 3];
    assert!(matches!(
        data.points_into(
            "valid".into(),
            (&indices[..]).into(),
            (&mut points[..]).into()
        ),
        ROk(())
    ));
    let atoms: u64 = points.iter().sum();
    let (mut positions, mut species) = (
        vec![0.0_f32; 3 * atoms as usize],
        vec![0_i64; atoms as usize],
    );
    let (rows, ones) = ([atoms, 3], [atoms]);
    let mut fields = [
        field(
            "species",
            ElementType::I64,
            &ones,
            bytemuck::cast_slice_mut(&mut species),
        ),
        field(
            "positions",
            ElementType::F32,
            &rows,
            bytemuck::cast_slice_mut(&mut positions),
        ),
    ];
    assert!(matches!(
        data.samples_into(
            "valid".into(),
            (&indices[..]).into(),
            (&mut fields[..]).into()
        ),
        ROk(())
    ));
    let first = points[0] as usize;
    assert_eq!(
        positions[..3 * first],
        positions[positions.len() - 3 * first..]
    );
    assert_eq!(species[..first], species[species.len() - first..]);
    assert!(species.iter().all(|z| *z > 0) && positions.iter().any(|x| *x != 0.0));
}

#[test]
fn errors_cross_with_a_code_and_a_remedy() {
    let refused = |request: &str| match open_dataset(request.into(), DATASETS) {
        RErr(error) => (error.code, error.message.to_string()),
        ROk(_) => panic!("opened"),
    };
    let (found, message) = refused(r#"{"dataset": "geom", "options": "{\"path\": \"no.sdf\"}"}"#);
    assert!(
        found == code::BAD_DATA && message.contains("no.sdf: cannot be opened"),
        "{message}"
    );
    let (found, message) = refused(r#"{"dataset": "geom", "options": "{\"conformer\": 1}"}"#);
    assert!(
        found == code::BAD_REQUEST && message.contains("did you mean \"conformers\""),
        "{message}"
    );
    let mut data = opened(r#"{"dataset": "geom"}"#);
    let mut out = [0_u64];
    for (split, index) in [("validation", 0_u64), ("valid", 1_000_000)] {
        assert!(
            matches!(data.points_into(split.into(), (&[index][..]).into(), (&mut out[..]).into()), RErr(e) if e.code == code::BAD_REQUEST)
        );
    }
    let (mut small, shape) = ([0.0_f32; 3], [1, 3]);
    let mut fields = [field(
        "positions",
        ElementType::F32,
        &shape,
        bytemuck::cast_slice_mut(&mut small),
    )];
    assert!(
        matches!(data.samples_into("valid".into(), (&[0_u64][..]).into(), (&mut fields[..]).into()), RErr(e) if e.message.contains("smaller"))
    );
}

#[test]
fn the_task_changes_the_report_and_nothing_that_is_served() {
    let request = |task: &str| {
        serde_json::json!({ "dataset": "geom", "seed": 3, "threads": 1, "task": task }).to_string()
    };
    let plain = described(&opened(&request("")));
    // As the task sends it.
    let settings = r#"{"name":"voxel-denoising","grid":32,"elements":["C","H"],"sigma":0.9,"augmentation":"cube","shift_angstrom":0.5}"#;
    let with = described(&opened(&request(settings)));
    assert_eq!(
        (&plain.content_hash, &plain.splits),
        (&with.content_hash, &with.splits)
    );
    let value = |d: &DatasetDescriptor, size: &str| {
        d.checks
            .iter()
            .find(|c| c.name == format!("atoms outside of {size}"))
            .map(|c| c.value)
    };
    let small = value(&plain, "32 voxels of 0.25 angstrom").unwrap();
    assert_eq!(value(&with, "32 voxels of 0.25 angstrom"), Some(small));
    assert_eq!(value(&with, "64 voxels of 0.25 angstrom"), None);
    assert!(small > value(&plain, "64 voxels of 0.25 angstrom").unwrap());
}

/// Prints how long things take. A batch takes a 3,000th of an opening or less; a tenth says that nothing is opened again, on any machine and
/// beside any neighbours: the quickest of five batches is a fraction of one slice of a processor's time.
/// `EQUIVBENCH_GEOM_PATH` adds data, for example the crude
/// file of GEOM.
#[test]
fn a_batch_is_read_without_opening_the_data_again() {
    let (_folder, many) = crate::written("many.sdf", make::molecules(4000, 5).as_bytes());
    let mut paths = vec![
        ("embedded sample".to_owned(), None),
        ("20,000 conformers of methanol".into(), Some(many)),
    ];
    for name in [
        "geomlike/geomlike_drugs.sdf.gz",
        "geomlike/geomlike_drugs.npz",
    ] {
        paths.extend(equivbench_testkit::more_data(name).map(|p| (name.to_owned(), Some(p))));
    }
    paths.extend(
        std::env::var_os("EQUIVBENCH_GEOM_PATH").map(|p| ("the path given".into(), Some(p.into()))),
    );
    for (name, path) in paths {
        let options = path.map_or_else(
            || "{}".into(),
            |p| serde_json::json!({ "path": p }).to_string(),
        );
        let request = serde_json::json!({ "dataset": "geom", "options": options }).to_string();
        let start = Instant::now();
        let mut data = opened(&request);
        let opening_s = start.elapsed().as_secs_f64();
        let indices: Vec<u64> = (0..64).collect();
        let mut points = [0; 64];
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
            let mut positions = vec![0.0_f32; 3 * shape[0] as usize];
            let mut fields = [field(
                "positions",
                ElementType::F32,
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
            "{name}: opened in {opening_s:.3} s, a batch of 64 in {:.3} ms",
            1e3 * best_s
        );
        assert!(name == "the path given" || 10.0 * best_s < opening_s);
    }
}
