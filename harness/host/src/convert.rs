//! Between the core's batches (f64 and i64, owned) and the boundary's (in the precision of an instance, lent).
//!
//! Conversion happens once for each call, in buffers that are reused. What is in the precision of the instance already is read where it
//! lies: everything by an f64 instance, and grids that the core has rounded by an f32 one.

use equivbench_abi::{
    self as abi, ElementType,
    abi_stable::std_types::{RSlice, RStr},
};
use equivbench_core::{
    Batch, CoreError, Field, FieldKind, Precision, Rows, Values, first_that, map_into,
};

/// The precision of a descriptor.
pub(crate) fn precision_of(name: &str) -> Option<Precision> {
    match name {
        "f32" => Some(Precision::Single),
        "f64" => Some(Precision::Double),
        _ => None,
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
    pub(crate) fn fill(
        &mut self,
        batch: &Batch,
        precision: Precision,
        keep: impl Fn(&str) -> bool,
    ) {
        self.offsets.clear();
        self.offsets.extend(batch.offsets.iter().map(|&o| o as u64));
        self.shapes.clear();
        self.shapes.extend(
            batch
                .fields
                .iter()
                .flat_map(|f| &f.shape)
                .map(|&n| n as u64),
        );
        self.singles
            .resize_with(self.singles.len().max(batch.fields.len()), Vec::new);
        for (field, single) in batch.fields.iter().zip(&mut self.singles) {
            match (&field.values, precision, keep(&field.name)) {
                (Values::Real(values), Precision::Single, true) => {
                    map_into(values, single, |v| v as f32)
                }
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
        let (offsets, fields) = (
            RSlice::from_slice(&self.offsets),
            RSlice::from_slice(&fields),
        );
        call(abi::Batch {
            samples: batch.samples() as u64,
            offsets,
            fields,
        })
    }
}

fn lent_field<'a>(
    field: &'a Field,
    shape: &'a [u64],
    single: &'a [f32],
    precision: Precision,
) -> abi::Field<'a> {
    let (element, bytes) = match (&field.values, precision) {
        (Values::Index(values), _) => (ElementType::I64, bytemuck::cast_slice(values)),
        (Values::Single(values), _) => (ElementType::F32, bytemuck::cast_slice(values)),
        (Values::Real(values), Precision::Double) => {
            (ElementType::F64, bytemuck::cast_slice(values))
        }
        (Values::Real(_), Precision::Single) => (ElementType::F32, bytemuck::cast_slice(single)),
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

/// Numbers on their way to a plugin, as bytes in its precision.
pub(crate) fn outgoing<'a>(
    values: &'a [f64],
    precision: Precision,
    single: &'a mut Vec<f32>,
) -> &'a [u8] {
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

/// Lets a call write `count` numbers in a plugin's precision and leaves them in `out`; `single` is a buffer.
pub(crate) fn incoming<E>(
    count: usize,
    precision: Precision,
    single: &mut Vec<f32>,
    out: &mut Vec<f64>,
    call: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    in_double(precision, single, out, |values| {
        received(count, precision, values, call)
    })
}

/// Lends a buffer in a plugin's precision and leaves what was written to it in `out`; `single` is that buffer for f32.
pub(crate) fn in_double<E>(
    precision: Precision,
    single: &mut Vec<f32>,
    out: &mut Vec<f64>,
    write: impl FnOnce(&mut Values) -> Result<(), E>,
) -> Result<(), E> {
    let mut values = match precision {
        Precision::Double => Values::Real(std::mem::take(out)),
        Precision::Single => Values::Single(std::mem::take(single)),
    };
    let written = write(&mut values);
    match values {
        Values::Real(numbers) => *out = numbers,
        Values::Single(numbers) => {
            map_into(&numbers, out, widen);
            *single = numbers;
        }
        Values::Index(_) => {}
    }
    written
}

/// Lets a call write `count` numbers and leaves them in `out` in the precision of the plugin.
pub(crate) fn received<E>(
    count: usize,
    precision: Precision,
    out: &mut Values,
    call: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Result<(), E> {
    match precision {
        Precision::Double => {
            let mut numbers = if let Values::Real(used) = out {
                std::mem::take(used)
            } else {
                Vec::new()
            };
            fill(&mut numbers, count, f64::from_bits(UNWRITTEN_F64));
            let answer = call(bytemuck::cast_slice_mut(&mut numbers));
            *out = Values::Real(numbers);
            answer
        }
        Precision::Single => {
            let mut numbers = if let Values::Single(used) = out {
                std::mem::take(used)
            } else {
                Vec::new()
            };
            fill(&mut numbers, count, f32::from_bits(UNWRITTEN_F32));
            let answer = call(bytemuck::cast_slice_mut(&mut numbers));
            *out = Values::Single(numbers);
            answer
        }
    }
}

fn fill<A: Copy>(numbers: &mut Vec<A>, count: usize, with: A) {
    numbers.clear();
    numbers.resize(count, with);
}

/// In double precision, with the mark of what was left unwritten.
pub(crate) fn widen(v: f32) -> f64 {
    if v.to_bits() == UNWRITTEN_F32 {
        f64::from_bits(UNWRITTEN_F64)
    } else {
        f64::from(v)
    }
}

/// What a number that is not finite is.
pub(crate) fn name_of(value: f64) -> String {
    if value.to_bits() == UNWRITTEN_F64 {
        "nothing (it was left unwritten)".into()
    } else {
        value.to_string()
    }
}

/// Whether the inputs that a plugin may see are finite, also after they were rounded to single precision.
pub(crate) fn check_inputs(
    batch: &Batch,
    precision: Precision,
    keep: impl Fn(&str) -> bool,
) -> Result<(), CoreError> {
    for field in batch.fields.iter().filter(|f| keep(&f.name)) {
        let found = match (&field.values, precision) {
            // Rounded, what is too large is infinite.
            (Values::Real(values), Precision::Single) => {
                first_that(values, |v| !(v as f32).is_finite()).map(|at| (at, values[at]))
            }
            // `Batch::round_grids` makes no others than finite ones, and turning them changes none.
            (Values::Single(_), Precision::Single) => None,
            (values, _) => values.not_finite(),
        };
        if let Some((at, value)) = found {
            let row = at / field.width().max(1);
            let sample = field.rows.sample_of(&batch.offsets, row);
            let what = format!(
                "field \"{}\" holds {value} in row {row} (sample {sample} of the batch)",
                field.name
            );
            return Err(CoreError::NotFinite(format!(
                "{what}, which a model cannot read"
            )));
        }
    }
    Ok(())
}
