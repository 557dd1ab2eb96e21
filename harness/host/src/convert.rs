//! Between the core's batches (f64 and i64, owned) and the boundary's (in the precision of an instance, lent).
//!
//! Conversion happens once for each call, in buffers that are reused. An f64 instance reads the core's numbers where they lie.

use equivbench_abi::{
    self as abi, ElementType,
    abi_stable::std_types::{RSlice, RStr},
};
use equivbench_core::{Batch, CoreError, Field, FieldKind, Rows, Values};
use rayon::prelude::*;

/// The precision in which floats cross.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    Single,
    Double,
}

impl Precision {
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "f32" => Some(Self::Single),
            "f64" => Some(Self::Double),
            _ => None,
        }
    }

    const fn element(self) -> ElementType {
        match self {
            Self::Single => ElementType::F32,
            Self::Double => ElementType::F64,
        }
    }
}

/// The field kind of a descriptor.
pub(crate) fn kind_of(name: &str) -> Option<FieldKind> {
    match name {
        "invariant" => Some(FieldKind::Invariant),
        "vector" => Some(FieldKind::Vector),
        "voxel-grid" => Some(FieldKind::VoxelGrid),
        _ => None,
    }
}

/// What the rows of a descriptor count.
pub(crate) fn rows_of(name: &str) -> Option<Rows> {
    match name {
        "sample" => Some(Rows::Sample),
        "point" => Some(Rows::Point),
        _ => None,
    }
}

const fn kind_code(kind: FieldKind) -> u32 {
    match kind {
        FieldKind::Invariant => abi::FieldKind::Invariant.code(),
        FieldKind::Vector => abi::FieldKind::Vector.code(),
        FieldKind::VoxelGrid => abi::FieldKind::VoxelGrid.code(),
    }
}

const fn rows_code(rows: Rows) -> u32 {
    match rows {
        Rows::Sample => abi::Rows::Sample.code(),
        Rows::Point => abi::Rows::Point.code(),
    }
}

/// The sample of a batch that owns a row.
pub(crate) fn sample_of(offsets: &[usize], rows: Rows, row: usize) -> usize {
    match rows {
        Rows::Sample => row,
        Rows::Point => offsets.partition_point(|&first| first <= row).saturating_sub(1),
    }
}

/// Reused buffers for a batch on its way to a plugin.
#[derive(Default)]
pub(crate) struct Staging {
    offsets: Vec<u64>,
    shapes: Vec<u64>,
    /// One for each field of the batch; empty where nothing is converted.
    singles: Vec<Vec<f32>>,
}

impl Staging {
    /// Converts the fields that `keep` names.
    pub(crate) fn fill(&mut self, batch: &Batch, precision: Precision, keep: impl Fn(&str) -> bool) {
        self.offsets.clear();
        self.offsets.extend(batch.offsets.iter().map(|&o| o as u64));
        self.shapes.clear();
        self.shapes.extend(batch.fields.iter().flat_map(|f| &f.shape).map(|&n| n as u64));
        self.singles.resize_with(self.singles.len().max(batch.fields.len()), Vec::new);
        for (field, single) in batch.fields.iter().zip(&mut self.singles) {
            match (&field.values, precision, keep(&field.name)) {
                (Values::Real(values), Precision::Single, true) => map_into(values, single, |v| v as f32),
                _ => single.clear(),
            }
        }
    }

    /// Lends what [`fill`](Self::fill) converted, for one call.
    pub(crate) fn lend<R>(
        &self,
        batch: &Batch,
        precision: Precision,
        keep: impl Fn(&str) -> bool,
        call: impl FnOnce(abi::Batch<'_>) -> R,
    ) -> R {
        let mut shapes = self.shapes.as_slice();
        let mut fields = Vec::with_capacity(batch.fields.len());
        for (field, single) in batch.fields.iter().zip(&self.singles) {
            let (shape, rest) = shapes.split_at(field.shape.len());
            shapes = rest;
            if keep(&field.name) {
                fields.push(lent_field(field, shape, single, precision));
            }
        }
        let (offsets, fields) = (RSlice::from_slice(&self.offsets), RSlice::from_slice(&fields));
        call(abi::Batch { samples: batch.samples() as u64, offsets, fields })
    }
}

fn lent_field<'a>(field: &'a Field, shape: &'a [u64], single: &'a [f32], precision: Precision) -> abi::Field<'a> {
    let (element, bytes) = match (&field.values, precision) {
        (Values::Index(values), _) => (ElementType::I64, bytemuck::cast_slice(values)),
        (Values::Real(values), Precision::Double) => (precision.element(), bytemuck::cast_slice(values)),
        (Values::Real(_), Precision::Single) => (precision.element(), bytemuck::cast_slice(single)),
    };
    abi::Field {
        name: RStr::from_str(&field.name),
        kind: kind_code(field.kind),
        rows: rows_code(field.rows),
        element: element.code(),
        shape: RSlice::from_slice(shape),
        bytes: RSlice::from_slice(bytes),
    }
}

/// Numbers of one task: grids have millions.
const CHUNK: usize = 1 << 15;

/// Replaces `to` by the images of `from`.
fn map_into<A: Copy + Sync, B: Copy + Default + Send>(from: &[A], to: &mut Vec<B>, map: impl Fn(A) -> B + Sync) {
    // All of it is overwritten, so what a reused buffer holds may stay.
    to.resize(from.len(), B::default());
    let convert = |(to, from): (&mut [B], &[A])| to.iter_mut().zip(from).for_each(|(to, &from)| *to = map(from));
    if from.len() <= CHUNK {
        convert((to, from));
    } else {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(convert);
    }
}

/// The first number of a kind.
pub(crate) fn first_that(values: &[f64], is_it: impl Fn(f64) -> bool + Sync) -> Option<usize> {
    // Without a way out in the middle, a loop that compilers turn into vector instructions.
    let has_one = |chunk: &[f64]| chunk.iter().fold(false, |found, &v| found | is_it(v));
    let chunk = if values.len() <= CHUNK { has_one(values).then_some(0)? } else { values.par_chunks(CHUNK).position_first(has_one)? };
    let first = chunk * CHUNK;
    values[first..].iter().position(|&v| is_it(v)).map(|at| first + at)
}

/// Numbers on their way to a plugin, as bytes in its precision.
pub(crate) fn outgoing<'a>(values: &'a [f64], precision: Precision, single: &'a mut Vec<f32>) -> &'a [u8] {
    match precision {
        Precision::Double => bytemuck::cast_slice(values),
        Precision::Single => {
            map_into(values, single, |v| v as f32);
            bytemuck::cast_slice(single)
        }
    }
}

/// Not-a-number with a mark in it: what a plugin left unwritten can be told from a NaN that it computed.
const UNWRITTEN_F32: u32 = 0x7fc0_eb01;
const UNWRITTEN_F64: u64 = 0x7ff8_0000_eb01_eb01;

/// Lets a call write `count` numbers in a plugin's precision and leaves them in `out`.
pub(crate) fn incoming<E>(
    count: usize,
    precision: Precision,
    single: &mut Vec<f32>,
    out: &mut Vec<f64>,
    call: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    match precision {
        Precision::Double => {
            out.clear();
            out.resize(count, f64::from_bits(UNWRITTEN_F64));
            call(bytemuck::cast_slice_mut(out))
        }
        Precision::Single => {
            single.clear();
            single.resize(count, f32::from_bits(UNWRITTEN_F32));
            call(bytemuck::cast_slice_mut(single))?;
            let widen = |v: f32| if v.to_bits() == UNWRITTEN_F32 { f64::from_bits(UNWRITTEN_F64) } else { f64::from(v) };
            map_into(single, out, widen);
            Ok(())
        }
    }
}

/// What a number that is not finite is.
pub(crate) fn name_of(value: f64) -> String {
    if value.to_bits() == UNWRITTEN_F64 { "nothing (it was left unwritten)".into() } else { value.to_string() }
}

/// Whether the inputs that a plugin may see are finite, also after they were rounded to single precision.
pub(crate) fn check_inputs(batch: &Batch, precision: Precision, keep: impl Fn(&str) -> bool) -> Result<(), CoreError> {
    for field in batch.fields.iter().filter(|f| keep(&f.name)) {
        let Values::Real(values) = &field.values else { continue };
        let found = match precision {
            Precision::Double => first_that(values, |v| !v.is_finite()),
            Precision::Single => first_that(values, |v| !(v as f32).is_finite()),
        };
        if let Some(at) = found {
            let row = at / field.width().max(1);
            let sample = sample_of(&batch.offsets, field.rows, row);
            let what = format!("field \"{}\" holds {} in row {row} (sample {sample} of the batch)", field.name, values[at]);
            return Err(CoreError::NotFinite(format!("{what}, which a model cannot read")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conversions_and_searches_do_not_depend_on_where_work_is_cut() {
        for count in [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK + 7] {
            let from: Vec<f64> = (0..count).map(|i| i as f64 * 0.1).collect();
            let mut to = vec![7.0_f32; 5];
            map_into(&from, &mut to, |v| v as f32);
            assert_eq!(to, from.iter().map(|&v| v as f32).collect::<Vec<_>>());
            assert_eq!(first_that(&from, f64::is_nan), None);
            for at in [0, count / 2, count.saturating_sub(1)].into_iter().filter(|at| *at < count) {
                let mut bad = from.clone();
                bad[at..].fill(f64::NAN);
                assert_eq!(first_that(&bad, f64::is_nan), Some(at));
            }
        }
    }
}
