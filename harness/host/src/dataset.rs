//! A plugin's dataset as the harness sees it.

use crate::{
    HostError,
    convert::{kind_of, name_of, rows_of},
};
use equivbench_abi::{
    AbiError, DatasetBox, ElementType, FieldMut,
    abi_stable::std_types::{RSlice, RSliceMut, RStr},
    descriptor::{DatasetDescriptor, FieldDescriptor},
};
use equivbench_core::{Batch, CoreError, Dataset, Field, FieldKind, Rows, Values};
use std::collections::BTreeMap;

/// What no group is numbered: it stays where a plugin writes nothing.
const NO_GROUP: u64 = u64::MAX;

/// A dataset of a plugin, open.
pub struct LoadedDataset {
    plugin: String,
    object: DatasetBox,
    descriptor: DatasetDescriptor,
    layouts: Vec<Layout>,
    points: Vec<u64>,
}

/// How one field crosses.
#[derive(Clone, Debug)]
struct Layout {
    name: String,
    kind: FieldKind,
    rows: Rows,
    element: ElementType,
    width: Vec<u64>,
}

/// A field on its way from a plugin, in its own element type.
enum Buffer {
    Single(Vec<f32>),
    Double(Vec<f64>),
    Index(Vec<i64>),
}

impl LoadedDataset {
    pub(crate) fn new(plugin: &str, object: DatasetBox) -> Result<Self, HostError> {
        let descriptor = read_descriptor(plugin, &object)?;
        let layouts = descriptor
            .fields
            .iter()
            .map(|field| Layout::of(plugin, field))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            plugin: plugin.to_owned(),
            object,
            descriptor,
            layouts,
            points: Vec::new(),
        })
    }

    /// Fields, splits, provenance, content hash, checks.
    #[must_use]
    pub fn descriptor(&self) -> &DatasetDescriptor {
        &self.descriptor
    }

    /// Reads the description again.
    ///
    /// # Errors
    /// Whatever the dataset reports.
    pub fn describe(&self) -> Result<DatasetDescriptor, HostError> {
        read_descriptor(&self.plugin, &self.object)
    }

    /// Number of points of each sample, in the order of `indices`.
    ///
    /// # Errors
    /// Whatever the dataset reports.
    pub fn points(&mut self, split: &str, indices: &[u64]) -> Result<&[u64], HostError> {
        self.points.clear();
        self.points.resize(indices.len(), u64::MAX);
        let answer = self.object.points_into(
            split.into(),
            indices.into(),
            self.points.as_mut_slice().into(),
        );
        answer.into_result().map_err(|e| self.failed(e))?;
        match self.points.iter().position(|&n| n == u64::MAX) {
            Some(at) => Err(HostError::nonsense(
                &self.plugin,
                format!(
                    "dataset {}: the size of sample {} was left unwritten",
                    self.descriptor.name, indices[at]
                ),
            )),
            None => Ok(&self.points),
        }
    }

    /// The group of each sample, in the order of `indices`; `None` where the plugin does not say, as plugins before interface 0.1.1.
    ///
    /// # Errors
    /// Whatever the dataset reports; a sample without a group among others that have one.
    pub fn groups_of(&self, split: &str, indices: &[u64]) -> Result<Option<Vec<u64>>, HostError> {
        let mut groups = vec![NO_GROUP; indices.len()];
        let answer =
            self.object
                .groups_into(split.into(), indices.into(), groups.as_mut_slice().into());
        if !answer.into_result().map_err(|e| self.failed(e))? {
            return Ok(None);
        }
        match groups.iter().position(|&group| group == NO_GROUP) {
            Some(at) => Err(HostError::nonsense(
                &self.plugin,
                format!(
                    "dataset {}, split \"{split}\": the group of sample {} was left unwritten",
                    self.descriptor.name, indices[at]
                ),
            )),
            None => Ok(Some(groups)),
        }
    }

    /// Lends the object behind the boundary, for tests of what a plugin does with requests that the harness would never make.
    pub fn raw(&mut self) -> &mut DatasetBox {
        &mut self.object
    }

    /// Loads samples without checking that they are finite.
    ///
    /// # Errors
    /// Whatever the dataset reports.
    pub fn load_unchecked(&mut self, split: &str, indices: &[u64]) -> Result<Batch, HostError> {
        let offsets = offsets_of(self.points(split, indices)?);
        let rows_of = |rows| {
            if rows == Rows::Sample {
                indices.len()
            } else {
                offsets[indices.len()]
            }
        };
        let mut buffers: Vec<(Vec<u64>, Buffer)> = self
            .layouts
            .iter()
            .map(|layout| layout.allocate(rows_of(layout.rows)))
            .collect();
        let mut fields: Vec<FieldMut<'_>> = self
            .layouts
            .iter()
            .zip(&mut buffers)
            .map(|(layout, (shape, buffer))| layout.lend(shape, buffer))
            .collect();
        let answer =
            self.object
                .samples_into(split.into(), indices.into(), fields.as_mut_slice().into());
        answer.into_result().map_err(|e| self.failed(e))?;
        let fields = self
            .layouts
            .iter()
            .zip(buffers)
            .map(|(layout, (shape, buffer))| layout.finish(shape, buffer))
            .collect();
        Ok(Batch { offsets, fields })
    }

    fn failed(&self, error: AbiError) -> HostError {
        HostError::answered(&self.plugin, error)
    }

    fn check_finite(&self, batch: &Batch, split: &str, indices: &[u64]) -> Result<(), CoreError> {
        for field in &batch.fields {
            let Values::Real(values) = &field.values else {
                continue;
            };
            let Some(at) = values.iter().position(|v| !v.is_finite()) else {
                continue;
            };
            let row = at / field.width().max(1);
            let sample = field.rows.sample_of(&batch.offsets, row);
            let within = row - batch.rows_of(field.rows, sample).start;
            return Err(CoreError::NotFinite(format!(
                "dataset \"{}\", split \"{split}\", sample {}: field \"{}\" holds {} in row {within}. Correct or remove the sample in {}",
                self.descriptor.name,
                indices[sample],
                field.name,
                name_of(values[at]),
                self.descriptor.source,
            )));
        }
        Ok(())
    }
}

fn read_descriptor(plugin: &str, object: &DatasetBox) -> Result<DatasetDescriptor, HostError> {
    let text = object
        .describe()
        .into_result()
        .map_err(|e| HostError::answered(plugin, e))?;
    serde_json::from_str(text.as_str()).map_err(|e| {
        HostError::nonsense(
            plugin,
            format!("the description of a dataset cannot be read: {e}"),
        )
    })
}

fn offsets_of(points: &[u64]) -> Vec<usize> {
    let mut offsets = vec![0];
    offsets.extend(points.iter().scan(0, |end, &n| {
        *end += n as usize;
        Some(*end)
    }));
    offsets
}

impl Layout {
    fn of(plugin: &str, field: &FieldDescriptor) -> Result<Self, HostError> {
        let unknown = |what: &str, value: &str| {
            HostError::nonsense(
                plugin,
                format!(
                    "dataset field \"{}\": {what} \"{value}\" is not known to this program",
                    field.name
                ),
            )
        };
        let element = match field.element.as_str() {
            "f32" => ElementType::F32,
            "f64" => ElementType::F64,
            "i64" => ElementType::I64,
            other => return Err(unknown("element type", other)),
        };
        Ok(Self {
            name: field.name.clone(),
            kind: kind_of(&field.kind).ok_or_else(|| unknown("kind", &field.kind))?,
            rows: rows_of(&field.rows).ok_or_else(|| unknown("rows", &field.rows))?,
            element,
            width: field.width.clone(),
        })
    }

    /// Room for some rows; numbers that a plugin leaves unwritten stay NaN.
    fn allocate(&self, rows: usize) -> (Vec<u64>, Buffer) {
        let shape: Vec<u64> = std::iter::once(rows as u64)
            .chain(self.width.iter().copied())
            .collect();
        let elements = shape.iter().product::<u64>() as usize;
        let buffer = match self.element {
            ElementType::F32 => Buffer::Single(vec![f32::NAN; elements]),
            ElementType::F64 => Buffer::Double(vec![f64::NAN; elements]),
            ElementType::I64 => Buffer::Index(vec![i64::MIN; elements]),
        };
        (shape, buffer)
    }

    fn lend<'a>(&'a self, shape: &'a [u64], buffer: &'a mut Buffer) -> FieldMut<'a> {
        let bytes: &mut [u8] = match buffer {
            Buffer::Single(values) => bytemuck::cast_slice_mut(values),
            Buffer::Double(values) => bytemuck::cast_slice_mut(values),
            Buffer::Index(values) => bytemuck::cast_slice_mut(values),
        };
        FieldMut {
            name: RStr::from_str(&self.name),
            element: self.element.code(),
            shape: RSlice::from_slice(shape),
            bytes: RSliceMut::from_mut_slice(bytes),
        }
    }

    fn finish(&self, shape: Vec<u64>, buffer: Buffer) -> Field {
        let values = match buffer {
            Buffer::Single(values) => Values::Real(values.into_iter().map(f64::from).collect()),
            Buffer::Double(values) => Values::Real(values),
            Buffer::Index(values) => Values::Index(values),
        };
        let shape = shape.into_iter().map(|n| n as usize).collect();
        Field {
            name: self.name.clone(),
            kind: self.kind,
            rows: self.rows,
            shape,
            values,
        }
    }
}

impl Dataset for LoadedDataset {
    fn samples(&self, split: &str) -> usize {
        self.descriptor
            .splits
            .iter()
            .find(|s| s.name == split)
            .map_or(0, |s| s.samples as usize)
    }

    fn load(&mut self, split: &str, indices: &[u64]) -> Result<Batch, CoreError> {
        let batch = self
            .load_unchecked(split, indices)
            .map_err(HostError::of_dataset)?;
        self.check_finite(&batch, split, indices)?;
        Ok(batch)
    }

    fn groups(&mut self, split: &str, indices: &[u64]) -> Result<Option<Vec<u64>>, CoreError> {
        self.groups_of(split, indices)
            .map_err(HostError::of_dataset)
    }

    fn normalisers(&self) -> BTreeMap<String, (f64, f64)> {
        self.descriptor
            .normalisers
            .iter()
            .map(|(field, n)| (field.clone(), (n.mean, n.scale)))
            .collect()
    }
}
