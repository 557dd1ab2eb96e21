//! Fixture files as plain numbers.

use safetensors::{Dtype, SafeTensors};
use std::{collections::BTreeMap, io::Read, path::Path};

/// An array of a file.
#[derive(Clone, Debug)]
pub struct Array {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// The numbers, whatever their type in the file.
    pub values: Vec<f64>,
    /// Whether the file holds them in f64.
    pub double: bool,
}

impl Array {
    /// The numbers as integers.
    #[must_use]
    pub fn ints(&self) -> Vec<i64> {
        self.values.iter().map(|&v| v as i64).collect()
    }
}

/// All arrays of a safetensors file by name; where it is not there, of the file of that name with `.gz`.
///
/// # Panics
/// When neither can be read.
#[must_use]
pub fn read_arrays(path: &Path) -> BTreeMap<String, Array> {
    let bytes = read_bytes(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file =
        SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F64 => bytemuck::pod_collect_to_vec(data),
            Dtype::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(data)
                .into_iter()
                .map(f64::from)
                .collect(),
            Dtype::I64 => bytemuck::pod_collect_to_vec::<u8, i64>(data)
                .into_iter()
                .map(|v| v as f64)
                .collect(),
            Dtype::I32 => bytemuck::pod_collect_to_vec::<u8, i32>(data)
                .into_iter()
                .map(f64::from)
                .collect(),
            Dtype::U8 | Dtype::BOOL => data.iter().map(|&v| f64::from(v)).collect(),
            other => panic!("{name}: element type {other:?}"),
        };
        (
            name,
            Array {
                shape: view.shape().to_vec(),
                values,
                double: view.dtype() == Dtype::F64,
            },
        )
    };
    file.tensors().into_iter().map(read).collect()
}

fn read_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    if path.exists() {
        return std::fs::read(path);
    }
    let packed = std::fs::File::open(path.with_added_extension("gz"))?;
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The transpose of a row-major matrix `[rows, columns]`.
#[must_use]
pub fn transpose(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns)
        .flat_map(|c| (0..rows).map(move |r| values[r * columns + c]))
        .collect()
}
