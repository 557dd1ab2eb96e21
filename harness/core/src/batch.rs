//! A batch says how it transforms: named arrays over samples or over their points.

use crate::CoreError;

/// How a field changes when its sample is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldKind {
    /// Nothing changes.
    Invariant,
    /// The last axis has length 3 and rotates.
    Vector,
    /// The last three axes are a cubic grid whose voxels are permuted.
    VoxelGrid,
}

/// What the first axis of a field counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// Samples.
    Sample,
    /// Points of all samples, one sample after the other.
    Point,
}

/// The numbers of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Measured or computed quantities.
    Real(Vec<f64>),
    /// Labels: species, residue index.
    Index(Vec<i64>),
}

/// A named array.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Name, for example `positions`.
    pub name: String,
    /// How it transforms.
    pub kind: FieldKind,
    /// What its first axis counts.
    pub rows: Rows,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// The numbers.
    pub values: Values,
}

impl Field {
    /// A field of real numbers.
    #[must_use]
    pub fn real(name: &str, kind: FieldKind, rows: Rows, shape: Vec<usize>, values: Vec<f64>) -> Self {
        Self { name: name.into(), kind, rows, shape, values: Values::Real(values) }
    }

    /// The real numbers of the field.
    ///
    /// # Errors
    /// A field of labels.
    pub fn reals(&self) -> Result<&[f64], CoreError> {
        match &self.values {
            Values::Real(v) => Ok(v),
            Values::Index(_) => Err(CoreError::Shape(format!("field \"{}\" holds labels, numbers were expected", self.name))),
        }
    }

    /// Numbers in one row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }
}

/// Several samples side by side; nothing is padded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// `[samples + 1]`: sample `s` owns the points `offsets[s]..offsets[s + 1]`.
    pub offsets: Vec<usize>,
    /// The arrays.
    pub fields: Vec<Field>,
}

impl Batch {
    /// Number of samples.
    #[must_use]
    pub fn samples(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Number of points of all samples.
    #[must_use]
    pub fn points(&self) -> usize {
        self.offsets.last().copied().unwrap_or(0)
    }

    /// Rows of a field that belong to a sample.
    #[must_use]
    pub fn rows_of(&self, rows: Rows, sample: usize) -> std::ops::Range<usize> {
        match rows {
            Rows::Sample => sample..sample + 1,
            Rows::Point => self.offsets[sample]..self.offsets[sample + 1],
        }
    }

    /// A field by name.
    ///
    /// # Errors
    /// A missing field; the message lists what is there.
    pub fn field(&self, name: &str) -> Result<&Field, CoreError> {
        self.fields.iter().find(|f| f.name == name).ok_or_else(|| CoreError::MissingField {
            missing: name.into(),
            offered: self.fields.iter().map(|f| f.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// A batch of some of the samples, in the order that is given.
    #[must_use]
    pub fn select(&self, samples: &[usize]) -> Self {
        let mut offsets = vec![0];
        samples.iter().for_each(|&s| offsets.push(offsets[offsets.len() - 1] + self.offsets[s + 1] - self.offsets[s]));
        let fields = self.fields.iter().map(|field| self.select_field(field, samples)).collect();
        Self { offsets, fields }
    }

    fn select_field(&self, field: &Field, samples: &[usize]) -> Field {
        let width = field.width();
        let ranges = || samples.iter().map(|&s| self.rows_of(field.rows, s)).map(|rows| rows.start * width..rows.end * width);
        let values = match &field.values {
            Values::Real(v) => Values::Real(ranges().flat_map(|r| v[r].iter().copied()).collect()),
            Values::Index(v) => Values::Index(ranges().flat_map(|r| v[r].iter().copied()).collect()),
        };
        let mut shape = field.shape.clone();
        shape[0] = samples.iter().map(|&s| self.rows_of(field.rows, s).len()).sum();
        Field { name: field.name.clone(), kind: field.kind, rows: field.rows, shape, values }
    }

    /// Takes a field out.
    ///
    /// # Errors
    /// A missing field.
    pub fn take(&mut self, name: &str) -> Result<Field, CoreError> {
        self.field(name)?;
        let index = self.fields.iter().position(|f| f.name == name).expect("the field was just found");
        Ok(self.fields.remove(index))
    }

    /// Whether every real number is finite; names the first field and row that is not.
    ///
    /// # Errors
    /// [`CoreError::NotFinite`] with the place.
    pub fn check_finite(&self) -> Result<(), CoreError> {
        for field in &self.fields {
            let Values::Real(values) = &field.values else { continue };
            if let Some(at) = values.iter().position(|v| !v.is_finite()) {
                let row = at / field.width().max(1);
                let sample = match field.rows {
                    Rows::Sample => row,
                    Rows::Point => self.offsets.partition_point(|&o| o <= row).saturating_sub(1),
                };
                return Err(CoreError::NotFinite(format!(
                    "field \"{}\" holds {} in row {row} (sample {sample} of the batch)",
                    field.name, values[at]
                )));
            }
        }
        Ok(())
    }
}
