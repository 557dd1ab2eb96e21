//! Batches that own their memory, and safetensors files as plain numbers. Used by the tests and by the timing example.
#![allow(dead_code, reason = "each user needs another part")]

use equivbench_abi::{
    self as abi, ElementType, FieldKind, Rows,
    abi_stable::std_types::{RSlice, RStr},
};

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
        let batch = Self {
            offsets,
            fields: Vec::new(),
        };
        let bytes = bytemuck::cast_slice(species).to_vec();
        let shape = vec![species.len() as u64];
        let species = OwnedField {
            name: "species",
            kind: FieldKind::Invariant,
            rows: Rows::Point,
            element: ElementType::I64,
            shape,
            bytes,
        };
        batch
            .with("positions", FieldKind::Vector, Rows::Point, positions, 3)
            .push(species)
    }

    /// Adds the target forces `[atoms, 3]`.
    pub(crate) fn with_target(self, target: &[f64]) -> Self {
        self.with("target", FieldKind::Vector, Rows::Point, target, 3)
    }

    /// Adds the target energies `[molecules]`.
    pub(crate) fn with_energy(self, energy: &[f64]) -> Self {
        self.with("energy", FieldKind::Invariant, Rows::Sample, energy, 1)
    }

    fn with(
        self,
        name: &'static str,
        kind: FieldKind,
        rows: Rows,
        values: &[f64],
        width: usize,
    ) -> Self {
        let mut shape = vec![(values.len() / width) as u64];
        if width > 1 {
            shape.push(width as u64);
        }
        let bytes = bytemuck::cast_slice(values).to_vec();
        self.push(OwnedField {
            name,
            kind,
            rows,
            element: ElementType::F64,
            shape,
            bytes,
        })
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
        f(&abi::Batch {
            samples,
            offsets: RSlice::from_slice(&self.offsets),
            fields: RSlice::from_slice(&fields),
        })
    }
}

/// Whether the reference stores this parameter transposed: `[out, in]`, where ours is `[in, out]`.
pub(crate) fn is_transposed(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && !name.contains("atomic_embedding")
}
