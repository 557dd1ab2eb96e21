//! Batches that own their memory, and safetensors files as plain numbers. Used by the tests and by the timing example.
#![allow(dead_code, reason = "each user needs another part")]

use equivbench_abi::{
    self as abi, ElementType, FieldKind, Rows,
    abi_stable::std_types::{RSlice, RStr},
};
use safetensors::{Dtype, SafeTensors};
use std::{collections::BTreeMap, path::Path};

/// A batch of molecules that owns its arrays.
#[derive(Clone, Default)]
pub(crate) struct OwnedBatch {
    pub(crate) offsets: Vec<u64>,
    fields: Vec<OwnedField>,
}

#[derive(Clone)]
struct OwnedField {
    name: &'static str,
    kind: FieldKind,
    rows: Rows,
    element: ElementType,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl OwnedBatch {
    /// `positions [atoms, 3]`, atomic numbers `[atoms]`, atoms of each molecule.
    pub(crate) fn new(positions: &[f64], species: &[i64], sizes: &[usize]) -> Self {
        let mut offsets = vec![0];
        offsets.extend(sizes.iter().scan(0, |end, &n| {
            *end += n as u64;
            Some(*end)
        }));
        let batch = Self { offsets, fields: Vec::new() };
        let bytes = bytemuck::cast_slice(species).to_vec();
        let shape = vec![species.len() as u64];
        let species =
            OwnedField { name: "species", kind: FieldKind::Invariant, rows: Rows::Point, element: ElementType::I64, shape, bytes };
        batch.with("positions", FieldKind::Vector, Rows::Point, positions, 3).push(species)
    }

    /// Adds the target forces `[atoms, 3]`.
    pub(crate) fn with_target(self, target: &[f64]) -> Self {
        self.with("target", FieldKind::Vector, Rows::Point, target, 3)
    }

    /// Adds the target energies `[molecules]`.
    pub(crate) fn with_energy(self, energy: &[f64]) -> Self {
        self.with("energy", FieldKind::Invariant, Rows::Sample, energy, 1)
    }

    fn with(self, name: &'static str, kind: FieldKind, rows: Rows, values: &[f64], width: usize) -> Self {
        let mut shape = vec![(values.len() / width) as u64];
        if width > 1 {
            shape.push(width as u64);
        }
        let bytes = bytemuck::cast_slice(values).to_vec();
        self.push(OwnedField { name, kind, rows, element: ElementType::F64, shape, bytes })
    }

    fn push(mut self, field: OwnedField) -> Self {
        self.fields.push(field);
        self
    }

    /// Calls `f` with the batch as it crosses the boundary.
    pub(crate) fn lend<R>(&self, f: impl FnOnce(&abi::Batch<'_>) -> R) -> R {
        let fields: Vec<abi::Field<'_>> = self
            .fields
            .iter()
            .map(|field| abi::Field {
                name: RStr::from_str(field.name),
                kind: field.kind.code(),
                rows: field.rows.code(),
                element: field.element.code(),
                shape: RSlice::from_slice(&field.shape),
                bytes: RSlice::from_slice(&field.bytes),
            })
            .collect();
        let samples = self.offsets.len() as u64 - 1;
        f(&abi::Batch { samples, offsets: RSlice::from_slice(&self.offsets), fields: RSlice::from_slice(&fields) })
    }
}

/// An array of a file.
#[derive(Clone, Debug)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f64>,
}

impl Array {
    /// The numbers as integers.
    pub(crate) fn ints(&self) -> Vec<i64> {
        self.values.iter().map(|&v| v as i64).collect()
    }
}

/// All arrays of a safetensors file.
pub(crate) fn read_arrays(path: &Path) -> BTreeMap<String, Array> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let data = view.data();
        let values = match view.dtype() {
            Dtype::F64 => bytemuck::pod_collect_to_vec(data),
            Dtype::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(data).into_iter().map(f64::from).collect(),
            Dtype::I64 => bytemuck::pod_collect_to_vec::<u8, i64>(data).into_iter().map(|v| v as f64).collect(),
            Dtype::U8 | Dtype::BOOL => data.iter().map(|&v| f64::from(v)).collect(),
            other => panic!("{name}: element type {other:?}"),
        };
        (name, Array { shape: view.shape().to_vec(), values })
    };
    file.tensors().into_iter().map(read).collect()
}

/// Whether the reference stores this parameter transposed: `[out, in]`, where ours is `[in, out]`.
pub(crate) fn is_transposed(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && !name.contains("atomic_embedding")
}

/// The transpose of a row-major matrix `[rows, columns]`.
pub(crate) fn transpose(values: &[f64], rows: usize, columns: usize) -> Vec<f64> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| values[r * columns + c])).collect()
}
