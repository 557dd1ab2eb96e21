//! Fixture files as plain numbers.

use safetensors::{Dtype, SafeTensors};
use std::{collections::BTreeMap, path::Path};

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

/// All arrays of a safetensors file by name.
///
/// # Panics
/// When the file cannot be read.
#[must_use]
pub fn read_arrays(path: &Path) -> BTreeMap<String, Array> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
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

/// The transpose of a row-major matrix `[rows, columns]`.
#[must_use]
pub fn transpose(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns)
        .flat_map(|c| (0..rows).map(move |r| values[r * columns + c]))
        .collect()
}
