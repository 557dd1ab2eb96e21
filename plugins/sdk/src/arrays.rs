//! One batch as a model sees it: the host's buffers, read as tensors on the model's device.

use crate::{PluginError, PluginResult, device};
use burn::tensor::{DType, Device, Tensor, TensorData};
use equivbench_abi::{ElementType, Field, FieldKind, Rows};
use std::{cell::Cell, ops::Range};

/// Floating-point precision of a model instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits.
    F32,
    /// 64 bits.
    F64,
    /// 16 bits with the exponents of 32, for training steps with weights kept in f32.
    Bf16,
}

impl Precision {
    /// Burn's name for it.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F64 => DType::F64,
            Self::Bf16 => DType::BF16,
        }
    }
    /// Bytes of one number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
            Self::Bf16 => 2,
        }
    }
    /// Of the weights that the optimiser moves, and of numbers at the boundary, where this is the arithmetic of a training step.
    #[must_use]
    pub const fn full(self) -> Self {
        match self {
            Self::F64 => Self::F64,
            Self::F32 | Self::Bf16 => Self::F32,
        }
    }
    /// Puts numbers on a device in this precision.
    #[must_use]
    pub fn upload<const D: usize>(
        self,
        values: Vec<f64>,
        shape: impl Into<Vec<usize>>,
        device: &Device,
    ) -> Tensor<D> {
        let options = (device, self.dtype());
        match self {
            Self::F64 => Tensor::from_data(TensorData::new(values, shape.into()), options),
            // Burn rounds to 16 bits.
            Self::F32 | Self::Bf16 => {
                let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
                Tensor::from_data(TensorData::new(values, shape.into()), options)
            }
        }
    }
    /// Reads the precisions of training and of evaluation: `f32`, `f64`, `bf16`, or the first and `+f64`; empty is `f32`.
    ///
    /// Predictions are made in f64 in any case where matrix products in f32 are rounded to TF32 (about 1e-3), which would put a floor
    /// under measured equivariance errors: on CUDA, if [`device::rounds_to_tf32`] was asked for.
    pub(crate) fn parse(name: &str, device: &str) -> PluginResult<(Self, Self)> {
        let (training, evaluation) = match name {
            "f32" | "" => (Self::F32, Self::F32),
            "f64" => (Self::F64, Self::F64),
            "bf16" => (Self::Bf16, Self::F32),
            "f32+f64" => (Self::F32, Self::F64),
            "bf16+f64" => (Self::Bf16, Self::F64),
            _ => {
                let known = "f32, f64, bf16, f32+f64 or bf16+f64 (train+evaluate)";
                return Err(PluginError::BadRequest(format!(
                    "precision \"{name}\" is not known; use {known}"
                )));
            }
        };
        if device.starts_with("cuda") && device::rounds_to_tf32() {
            return Ok((training, Self::F64));
        }
        Ok((training, evaluation))
    }
}

/// A field that was checked.
#[derive(Clone)]
struct Held<'a> {
    name: &'a str,
    kind: FieldKind,
    rows: Rows,
    element: ElementType,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

impl Held<'_> {
    /// Rows of consecutive samples that own these points.
    fn rows_of(&self, samples: &Range<usize>, points: &Range<usize>) -> Range<usize> {
        match self.rows {
            Rows::Sample => samples.clone(),
            Rows::Point => points.clone(),
        }
    }

    /// Bytes of one row.
    fn row_bytes(&self) -> usize {
        self.shape[1..].iter().product::<usize>() * self.element.bytes()
    }
}

/// Several samples side by side: named arrays over samples or over their points.
pub struct Batch<'a> {
    samples: usize,
    offsets: Vec<usize>,
    fields: Vec<Held<'a>>,
    device: Device,
    precision: Precision,
    /// Seed of the next dropout mask; `None` in evaluation mode.
    dropout_seed: Option<Cell<u64>>,
}

impl<'a> Batch<'a> {
    /// Reads what crossed the boundary.
    ///
    /// # Errors
    /// Offsets that do not cover the points, or a field whose bytes do not fit its shape.
    pub fn new(
        raw: &equivbench_abi::Batch<'a>,
        device: &Device,
        precision: Precision,
        dropout_seed: Option<u64>,
    ) -> PluginResult<Self> {
        let offsets: Vec<usize> = raw.offsets.iter().map(|&o| o as usize).collect();
        let samples = raw.samples as usize;
        if samples == 0 {
            return Err(PluginError::BadRequest(
                "the batch is empty: it has 0 samples".into(),
            ));
        }
        if offsets.len() != samples + 1
            || offsets[0] != 0
            || offsets.windows(2).any(|w| w[1] < w[0])
        {
            return Err(PluginError::BadRequest(format!(
                "offsets do not describe {samples} samples"
            )));
        }
        let points = offsets[samples];
        let held = |field: &Field<'a>| hold(field, samples, points);
        Ok(Self {
            samples,
            fields: raw.fields.iter().map(held).collect::<PluginResult<_>>()?,
            offsets,
            device: device.clone(),
            precision,
            dropout_seed: dropout_seed.map(Cell::new),
        })
    }

    /// Consecutive samples as a batch of their own. In a training step it draws dropout masks from the seed that the whole would draw
    /// the next one from.
    ///
    /// # Panics
    /// If there are no such samples.
    #[must_use]
    pub fn part(&self, samples: Range<usize>) -> Self {
        let points = self.offsets[samples.start]..self.offsets[samples.end];
        let cut = |field: &Held<'a>| {
            let (rows, width) = (field.rows_of(&samples, &points), field.row_bytes());
            let mut shape = field.shape.clone();
            shape[0] = rows.len();
            Held {
                shape,
                bytes: &field.bytes[rows.start * width..rows.end * width],
                ..field.clone()
            }
        };
        Self {
            samples: samples.len(),
            offsets: self.offsets[samples.start..=samples.end]
                .iter()
                .map(|o| o - points.start)
                .collect(),
            fields: self.fields.iter().map(cut).collect(),
            device: self.device.clone(),
            precision: self.precision,
            dropout_seed: self.dropout_seed.clone(),
        }
    }

    /// Checks that the batch is made of `copies` copies of the same samples, one after the other: of the same sizes, with the same
    /// invariant fields. That nothing but a rotation tells their other fields apart is the promise of whoever made it.
    ///
    /// # Errors
    /// Names what differs.
    pub(crate) fn check_copies(&self, copies: usize) -> PluginResult<()> {
        let bad = |what: String| Err(PluginError::BadRequest(what));
        if copies == 0 || !self.samples.is_multiple_of(copies) {
            let samples = self.samples;
            return bad(format!(
                "a batch of {samples} samples does not hold {copies} copies of the same ones"
            ));
        }
        let count = self.samples / copies;
        let first = self.part(0..count);
        for copy in 1..copies {
            let other = self.part(copy * count..(copy + 1) * count);
            if other.offsets != first.offsets {
                return bad(format!(
                    "copy {copy} of the samples has other sizes than the first"
                ));
            }
            let pairs = other.fields.iter().zip(&first.fields);
            if let Some((field, _)) = pairs
                .filter(|(field, _)| field.kind == FieldKind::Invariant)
                .find(|(field, same)| field.bytes != same.bytes)
            {
                let name = field.name;
                return bad(format!(
                    "copy {copy} of the samples has another field \"{name}\" than the first; copies differ by rotations alone"
                ));
            }
        }
        Ok(())
    }

    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Number of points of all samples.
    #[must_use]
    pub fn points(&self) -> usize {
        self.offsets[self.samples]
    }

    /// `[samples + 1]`: sample `s` owns the points `offsets[s]..offsets[s + 1]`.
    #[must_use]
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// The device of the model (with autodiff where gradients are wanted).
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The precision of the model.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Whether this batch is for an optimiser step (dropout on).
    #[must_use]
    pub fn is_training(&self) -> bool {
        self.dropout_seed.is_some()
    }

    /// Whether the batch has the field.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.fields.iter().any(|f| f.name == name)
    }

    fn find(&self, name: &str) -> PluginResult<&Held<'a>> {
        self.fields
            .iter()
            .find(|f| f.name == name)
            .ok_or_else(|| PluginError::MissingField {
                missing: name.to_owned(),
                offered: self
                    .fields
                    .iter()
                    .map(|f| f.name)
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// Row-major shape of a field.
    ///
    /// # Errors
    /// A missing field.
    pub fn shape(&self, name: &str) -> PluginResult<Vec<usize>> {
        Ok(self.find(name)?.shape.clone())
    }

    /// A field as plain numbers in f64, whatever its element type.
    ///
    /// # Errors
    /// A missing field.
    pub fn floats(&self, name: &str) -> PluginResult<Vec<f64>> {
        let field = self.find(name)?;
        let bytes = field.bytes;
        Ok(match field.element {
            ElementType::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(bytes)
                .into_iter()
                .map(f64::from)
                .collect(),
            ElementType::F64 => bytemuck::pod_collect_to_vec(bytes),
            ElementType::I64 => bytemuck::pod_collect_to_vec::<u8, i64>(bytes)
                .into_iter()
                .map(|v| v as f64)
                .collect(),
        })
    }

    /// An integer field.
    ///
    /// # Errors
    /// A missing field, or one that holds floats.
    pub fn ints(&self, name: &str) -> PluginResult<Vec<i64>> {
        let field = self.find(name)?;
        if field.element != ElementType::I64 {
            return Err(PluginError::BadRequest(format!(
                "field \"{name}\" holds floats, integers were asked for"
            )));
        }
        Ok(bytemuck::pod_collect_to_vec(field.bytes))
    }

    /// A field as a tensor of rank `D` in the precision of the model.
    ///
    /// # Errors
    /// A missing field or another rank.
    pub fn tensor<const D: usize>(&self, name: &str) -> PluginResult<Tensor<D>> {
        let shape = self.shape(name)?;
        if shape.len() != D {
            return Err(PluginError::BadRequest(format!(
                "field \"{name}\" has shape {shape:?}, rank {D} was asked for"
            )));
        }
        self.upload_field(name, shape, self.precision)
    }

    /// A field flattened to `[rows, width]`, as a loss compares it: in full precision also where the model computes in 16 bits.
    ///
    /// # Errors
    /// A missing field.
    pub fn rows(&self, name: &str) -> PluginResult<Tensor<2>> {
        let shape = self.shape(name)?;
        let width = shape[1..].iter().product();
        self.upload_field(name, vec![shape[0], width], self.precision.full())
    }

    /// A prediction as a loss compares it, in the precision of [`rows`](Self::rows).
    #[must_use]
    pub fn in_full<const D: usize>(&self, prediction: Tensor<D>) -> Tensor<D> {
        match self.precision {
            Precision::Bf16 => prediction.cast(Precision::F32.dtype()),
            Precision::F32 | Precision::F64 => prediction,
        }
    }

    /// Single precision stays as it is: grids are large.
    fn upload_field<const D: usize>(
        &self,
        name: &str,
        shape: Vec<usize>,
        precision: Precision,
    ) -> PluginResult<Tensor<D>> {
        let field = self.find(name)?;
        if precision != Precision::F64 && field.element == ElementType::F32 {
            let values: Vec<f32> = bytemuck::pod_collect_to_vec(field.bytes);
            return Ok(Tensor::from_data(
                TensorData::new(values, shape),
                (&self.device, precision.dtype()),
            ));
        }
        Ok(precision.upload(self.floats(name)?, shape, &self.device))
    }

    /// Puts numbers on the model's device, in its precision.
    #[must_use]
    pub fn upload<const D: usize>(
        &self,
        values: Vec<f64>,
        shape: impl Into<Vec<usize>>,
    ) -> Tensor<D> {
        self.precision.upload(values, shape, &self.device)
    }

    /// Dropout in an optimiser step, the identity otherwise. Masks depend on the run's seed, the step and the order of calls only.
    #[must_use]
    pub fn dropout<const D: usize>(&self, x: Tensor<D>, probability: f64) -> Tensor<D> {
        match self.next_dropout_seed() {
            Some(seed) if probability > 0.0 => equivbench_kernels::dropout(x, probability, seed),
            _ => x,
        }
    }

    /// The seed of the next dropout mask, for fused operations that draw their own; `None` in evaluation mode.
    #[must_use]
    pub fn next_dropout_seed(&self) -> Option<u64> {
        let cell = self.dropout_seed.as_ref()?;
        let seed = cell.get();
        cell.set(splitmix(seed));
        Some(seed)
    }
}

/// Reads a field of a batch.
fn hold<'a>(field: &Field<'a>, samples: usize, points: usize) -> PluginResult<Held<'a>> {
    let name = field.name.as_str();
    let bad = |what: String| Err(PluginError::BadRequest(format!("field \"{name}\": {what}")));
    let (Some(element), Some(rows), Some(kind)) = (
        ElementType::from_code(field.element),
        Rows::from_code(field.rows),
        FieldKind::from_code(field.kind),
    ) else {
        return bad("its kind, rows or element type is of a newer host".into());
    };
    let expected = match rows {
        Rows::Sample => samples,
        Rows::Point => points,
    };
    if field.shape.first().map(|&r| r as usize) != Some(expected) {
        return bad(format!(
            "shape {:?} should begin with {expected} rows",
            field.shape.as_slice()
        ));
    }
    let elements: u64 = field.shape.iter().product();
    if elements as usize * element.bytes() != field.bytes.len() {
        return bad(format!(
            "shape {:?} does not fit its {} bytes",
            field.shape.as_slice(),
            field.bytes.len()
        ));
    }
    Ok(Held {
        name,
        kind,
        rows,
        element,
        shape: field.shape.iter().map(|&n| n as usize).collect(),
        bytes: field.bytes.as_slice(),
    })
}

/// One step of SplitMix64: decorrelates consecutive seeds.
pub(crate) fn splitmix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
