//! A batch says how it transforms: named arrays over samples or over their points.

use crate::{
    CoreError,
    numbers::{Precision, first_that, map_into},
};
use std::borrow::Cow;

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

impl Rows {
    /// The sample that owns a row, in a batch with these offsets.
    #[must_use]
    pub fn sample_of(self, offsets: &[usize], row: usize) -> usize {
        match self {
            Self::Sample => row,
            Self::Point => offsets
                .partition_point(|&first| first <= row)
                .saturating_sub(1),
        }
    }
}

/// The numbers of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Measured or computed quantities.
    Real(Vec<f64>),
    /// The same, rounded to the precision in which a model computes. In a batch all of them are finite ([`Batch::round_grids`]).
    Single(Vec<f32>),
    /// Labels: species, residue index.
    Index(Vec<i64>),
}

impl Default for Values {
    fn default() -> Self {
        Self::Real(Vec::new())
    }
}

impl Values {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Real(v) => v.len(),
            Self::Single(v) => v.len(),
            Self::Index(v) => v.len(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that they take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len()
            * if matches!(self, Self::Single(_)) {
                size_of::<f32>()
            } else {
                size_of::<f64>()
            }
    }

    /// The numbers in double precision, for what computes with a few of them.
    #[must_use]
    pub fn widened(&self) -> Cow<'_, [f64]> {
        match self {
            Self::Real(v) => Cow::Borrowed(v),
            Self::Single(v) => Cow::Owned(v.iter().map(|&v| f64::from(v)).collect()),
            Self::Index(v) => Cow::Owned(v.iter().map(|&v| v as f64).collect()),
        }
    }

    /// The first number that is not finite, and where it is.
    #[must_use]
    pub fn not_finite(&self) -> Option<(usize, f64)> {
        match self {
            Self::Real(v) => first_that(v, |v| !v.is_finite()).map(|at| (at, v[at])),
            Self::Single(v) => first_that(v, |v| !v.is_finite()).map(|at| (at, f64::from(v[at]))),
            Self::Index(_) => None,
        }
    }
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
    pub fn real(
        name: &str,
        kind: FieldKind,
        rows: Rows,
        shape: Vec<usize>,
        values: Vec<f64>,
    ) -> Self {
        Self {
            name: name.into(),
            kind,
            rows,
            shape,
            values: Values::Real(values),
        }
    }

    /// The real numbers of the field.
    ///
    /// # Errors
    /// A field of labels, or one that was rounded for a model.
    pub fn reals(&self) -> Result<&[f64], CoreError> {
        let held = match &self.values {
            Values::Real(v) => return Ok(v),
            Values::Single(_) => "numbers in single precision",
            Values::Index(_) => "labels",
        };
        Err(CoreError::Shape(format!(
            "field \"{}\" holds {held}, numbers in double precision were expected",
            self.name
        )))
    }

    /// Numbers in one row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Says where in a batch a number lies that cannot be used.
    fn not_finite(&self, offsets: &[usize], at: usize, value: f64, how: &str) -> CoreError {
        let row = at / self.width().max(1);
        let sample = self.rows.sample_of(offsets, row);
        CoreError::NotFinite(format!(
            "field \"{}\" holds {value}{how} in row {row} (sample {sample} of the batch)",
            self.name
        ))
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
        self.fields
            .iter()
            .find(|f| f.name == name)
            .ok_or_else(|| CoreError::MissingField {
                missing: name.into(),
                offered: self
                    .fields
                    .iter()
                    .map(|f| f.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// A batch of some of the samples, in the order that is given.
    #[must_use]
    pub fn select(&self, samples: &[usize]) -> Self {
        let mut offsets = vec![0];
        samples.iter().for_each(|&s| {
            offsets.push(offsets[offsets.len() - 1] + self.offsets[s + 1] - self.offsets[s])
        });
        let fields = self
            .fields
            .iter()
            .map(|field| self.select_field(field, samples))
            .collect();
        Self { offsets, fields }
    }

    pub(crate) fn select_field(&self, field: &Field, samples: &[usize]) -> Field {
        let width = field.width();
        let ranges = || {
            samples
                .iter()
                .map(|&s| self.rows_of(field.rows, s))
                .map(|rows| rows.start * width..rows.end * width)
        };
        let values = match &field.values {
            Values::Real(v) => Values::Real(ranges().flat_map(|r| v[r].iter().copied()).collect()),
            Values::Single(v) => {
                Values::Single(ranges().flat_map(|r| v[r].iter().copied()).collect())
            }
            Values::Index(v) => {
                Values::Index(ranges().flat_map(|r| v[r].iter().copied()).collect())
            }
        };
        let mut shape = field.shape.clone();
        shape[0] = samples
            .iter()
            .map(|&s| self.rows_of(field.rows, s).len())
            .sum();
        Field {
            name: field.name.clone(),
            kind: field.kind,
            rows: field.rows,
            shape,
            values,
        }
    }

    /// Takes a field out.
    ///
    /// # Errors
    /// A missing field.
    pub fn take(&mut self, name: &str) -> Result<Field, CoreError> {
        self.field(name)?;
        let index = self
            .fields
            .iter()
            .position(|f| f.name == name)
            .expect("the field was just found");
        Ok(self.fields.remove(index))
    }

    /// Rounds grids to the precision in which a model computes. Their rotations are permutations, which commute with rounding: what a model
    /// reads stays the same, and moves at half the cost. Other fields are rounded after they were rotated.
    ///
    /// # Errors
    /// A number that has no place in that precision.
    pub fn round_grids(&mut self, precision: Precision) -> Result<(), CoreError> {
        let Batch { offsets, fields } = self;
        for field in fields
            .iter_mut()
            .filter(|f| f.kind == FieldKind::VoxelGrid && precision == Precision::Single)
        {
            let Values::Real(values) = &field.values else {
                continue;
            };
            let mut rounded = Vec::new();
            map_into(values, &mut rounded, |v| v as f32);
            if let Some(at) = first_that(&rounded, |v| !v.is_finite()) {
                let how = if values[at].is_finite() {
                    ", too large for single precision,"
                } else {
                    ""
                };
                return Err(field.not_finite(offsets, at, values[at], how));
            }
            field.values = Values::Single(rounded);
        }
        Ok(())
    }

    /// Whether every real number is finite; names the first field and row that is not.
    ///
    /// # Errors
    /// [`CoreError::NotFinite`] with the place.
    pub fn check_finite(&self) -> Result<(), CoreError> {
        for field in &self.fields {
            if let Some((at, value)) = field.values.not_finite() {
                return Err(field.not_finite(&self.offsets, at, value, ""));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_samples(density: f64) -> Batch {
        let grids = vec![
            0.1, density, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8,
        ];
        let positions = vec![0.1, 0.2, 0.3, 1.1, 1.2, 1.3];
        Batch {
            offsets: vec![0, 1, 2],
            fields: vec![
                Field::real(
                    "positions",
                    FieldKind::Vector,
                    Rows::Point,
                    vec![2, 3],
                    positions,
                ),
                Field::real(
                    "density",
                    FieldKind::VoxelGrid,
                    Rows::Sample,
                    vec![2, 1, 2, 2, 2],
                    grids,
                ),
            ],
        }
    }

    #[test]
    fn grids_are_rounded_for_a_model_in_single_precision_and_nothing_else_is() {
        let (original, mut batch) = (two_samples(0.2), two_samples(0.2));
        batch.round_grids(Precision::Double).unwrap();
        assert_eq!(batch, original);
        batch.round_grids(Precision::Single).unwrap();
        assert_eq!(batch.fields[0], original.fields[0]);
        let rounded: Vec<f32> = original.fields[1]
            .reals()
            .unwrap()
            .iter()
            .map(|&v| v as f32)
            .collect();
        assert_eq!(batch.fields[1].values, Values::Single(rounded.clone()));
        assert_eq!(batch.fields[1].values.widened()[2], f64::from(0.3_f32));
        assert_eq!(
            batch.select(&[1]).fields[1].values,
            Values::Single(rounded[8..].to_vec())
        );
        let error = batch.fields[1].reals().unwrap_err().to_string();
        assert!(error.contains("numbers in single precision"), "{error}");
        batch.round_grids(Precision::Single).unwrap();
        batch.check_finite().unwrap();
    }

    #[test]
    fn a_number_that_single_precision_cannot_hold_is_named() {
        let rounded = |density| {
            two_samples(density)
                .round_grids(Precision::Single)
                .unwrap_err()
                .to_string()
        };
        let error = rounded(1e39);
        assert!(
            error.contains("\"density\"")
                && error.contains("too large for single precision, in row 0 (sample 0"),
            "{error}"
        );
        assert!(rounded(f64::NAN).contains("holds NaN in row 0"));
    }
}
