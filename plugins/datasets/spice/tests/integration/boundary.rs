//! The dataset as the host sees it: JSON requests, buffers of the host, errors with codes.

use equivbench_plugin::{
    DatasetDescriptor,
    private::{
        DatasetEntry,
        abi::{
            ElementType, FieldMut,
            abi_stable::std_types::{RErr, ROk, RSlice, RSliceMut},
            code,
        },
        open_dataset,
    },
};
use equivbench_spice::Spice;
use std::time::Instant;

static DATASETS: &[DatasetEntry] = &[DatasetEntry::of::<Spice>()];

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

fn bytes(values: &mut [f64]) -> &mut [u8] {
    // The host's buffers are raw bytes; here they are made from floats.
    bytemuck::cast_slice_mut(values)
}

#[test]
fn a_batch_crosses_the_boundary_in_order() {
    let ROk(mut data) = open_dataset(r#"{"dataset": "spice", "seed": 3}"#.into(), DATASETS) else {
        panic!("not opened")
    };
    let ROk(text) = data.describe() else {
        panic!("not described")
    };
    let descriptor: DatasetDescriptor = serde_json::from_str(&text).unwrap();
    assert_eq!(
        descriptor
            .fields
            .iter()
            .map(|f| f.name.as_str())
            .collect::<Vec<_>>(),
        ["positions", "species", "forces", "energy"]
    );
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
    let (mut positions, mut forces, mut energy) = (
        vec![0.0; 3 * atoms as usize],
        vec![0.0; 3 * atoms as usize],
        vec![0.0; 3],
    );
    let mut species = vec![0_i64; atoms as usize];
    let (rows, ones, samples) = ([atoms, 3], [atoms], [3]);
    let mut fields = [
        field("energy", ElementType::F64, &samples, bytes(&mut energy)),
        field("positions", ElementType::F64, &rows, bytes(&mut positions)),
        field(
            "species",
            ElementType::I64,
            &ones,
            bytemuck::cast_slice_mut(&mut species),
        ),
        field("forces", ElementType::F64, &rows, bytes(&mut forces)),
    ];
    assert!(matches!(
        data.samples_into(
            "valid".into(),
            (&indices[..]).into(),
            (&mut fields[..]).into()
        ),
        ROk(())
    ));
    let first = 3 * points[0] as usize;
    assert_eq!(positions[..first], positions[positions.len() - first..]);
    assert_eq!(
        (energy[0], species[0]),
        (energy[2], species[(points[0] + points[1]) as usize])
    );
    assert!(forces.iter().any(|f| *f != 0.0) && species.iter().all(|z| *z > 0));
}

#[test]
fn errors_cross_with_a_code_and_a_remedy() {
    let refused = |request: &str| match open_dataset(request.into(), DATASETS) {
        RErr(error) => (error.code, error.message.to_string()),
        ROk(_) => panic!("opened"),
    };
    let (found, message) = refused(r#"{"dataset": "spice", "options": "{\"path\": \"no.hdf5\"}"}"#);
    assert!(
        found == code::BAD_DATA && message.contains("no.hdf5"),
        "{message}"
    );
    let (found, message) = refused(r#"{"dataset": "spice", "options": "{\"fractoin\": 1}"}"#);
    assert!(
        found == code::BAD_REQUEST && message.contains("did you mean"),
        "{message}"
    );
    let ROk(mut data) = open_dataset(r#"{"dataset": "spice"}"#.into(), DATASETS) else {
        panic!("not opened")
    };
    let mut out = [0_u64];
    for (split, index) in [("validation", 0_u64), ("valid", 1_000_000)] {
        assert!(
            matches!(data.points_into(split.into(), (&[index][..]).into(), (&mut out[..]).into()), RErr(e) if e.code == code::BAD_REQUEST)
        );
    }
    let mut small = [0.0; 3];
    let shape = [1, 3];
    let mut fields = [field(
        "positions",
        ElementType::F64,
        &shape,
        bytes(&mut small),
    )];
    assert!(
        matches!(data.samples_into("valid".into(), (&[0_u64][..]).into(), (&mut fields[..]).into()), RErr(e) if e.message.contains("smaller"))
    );
}

/// Prints how long things take. A batch takes a 2,700th of an opening or less; a tenth says that nothing is opened again, on any machine and
/// beside any neighbours: the quickest of five batches is a fraction of one slice of a processor's time.
/// `EQUIVBENCH_SPICE_FILE` adds a file, for example a whole release.
#[test]
fn a_batch_is_read_without_opening_the_data_again() {
    let mut paths = vec![(String::new(), "embedded sample".to_owned())];
    if let Some(path) = equivbench_testkit::more_data("xtb/des_monomers_gfn2.hdf5") {
        paths.push((path.display().to_string(), "des_monomers_gfn2.hdf5".into()));
    }
    if let Ok(path) = std::env::var("EQUIVBENCH_SPICE_FILE") {
        paths.push((path, "the file given".into()));
    }
    for (path, name) in paths {
        let options = if path.is_empty() {
            String::new()
        } else {
            format!("{{\\\"path\\\": \\\"{path}\\\"}}")
        };
        let start = Instant::now();
        let ROk(mut data) = open_dataset(
            format!(r#"{{"dataset": "spice", "options": "{options}"}}"#)
                .as_str()
                .into(),
            DATASETS,
        ) else {
            panic!("not opened")
        };
        let opened = start.elapsed();
        let indices: Vec<u64> = (0..64).collect();
        let mut points = vec![0; 64];
        let mut times = Vec::new();
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
            let (mut x, mut f) = (
                vec![0.0; 3 * shape[0] as usize],
                vec![0.0; 3 * shape[0] as usize],
            );
            let mut fields = [
                field("positions", ElementType::F64, &shape, bytes(&mut x)),
                field("forces", ElementType::F64, &shape, bytes(&mut f)),
            ];
            assert!(matches!(
                data.samples_into(
                    "train".into(),
                    (&indices[..]).into(),
                    (&mut fields[..]).into()
                ),
                ROk(())
            ));
            times.push(start.elapsed().as_secs_f64());
        }
        let best = times.iter().copied().fold(f64::INFINITY, f64::min);
        println!(
            "{name}: opened in {:.3} s, first batch of 64 in {:.3} ms, then {:.3} ms",
            opened.as_secs_f64(),
            1e3 * times[0],
            1e3 * best
        );
        // A release is only indexed when it is opened, so that its batches are not to be compared with that.
        assert!(name != "embedded sample" || 10.0 * best < opened.as_secs_f64());
    }
}
