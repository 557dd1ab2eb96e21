//! HDF5 without trust: every call of the reader library is fenced, sizes are limited, and errors name file and place.

use equivbench_dataset_tools::{bad_data, file_name, is_usable};
use equivbench_plugin::{PluginError, PluginResult};
use hdf5_reader::{Dataset, Datatype, Hdf5File, OpenOptions, error::Error, group::Group};
use ndarray::ArrayD;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// A single array of a release file stays far below this; a damaged shape does not.
const MAX_READ_BYTES: usize = 1 << 30;
const MAX_CHUNK_BYTES: usize = 1 << 28;
const DAMAGED: &str = "the file is damaged or incomplete: compare its size and checksum with the source and fetch it again";

/// An open HDF5 file.
pub(crate) struct Hdf5 {
    path: PathBuf,
    /// File name for messages.
    pub(crate) name: String,
    file: Hdf5File,
}

/// Numbers as they are stored.
#[derive(Clone, Debug)]
pub(crate) enum Numbers {
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Numbers {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::F32(v) => 4 * v.len(),
            Self::F64(v) => 8 * v.len(),
        }
    }

    /// `numbers[range] * factor`, in f64.
    pub(crate) fn scaled(&self, range: std::ops::Range<usize>, factor: f64, out: &mut Vec<f64>) {
        out.clear();
        match self {
            Self::F32(v) => out.extend(v[range].iter().map(|&x| f64::from(x) * factor)),
            Self::F64(v) => out.extend(v[range].iter().map(|&x| x * factor)),
        }
    }

    /// Index of the first number that is not finite or absurdly large.
    pub(crate) fn first_unusable(&self) -> Option<usize> {
        match self {
            Self::F32(v) => v.iter().position(|&x| !is_usable(f64::from(x))),
            Self::F64(v) => v.iter().position(|&x| !is_usable(x)),
        }
    }
}

impl Hdf5 {
    pub(crate) fn open(path: &Path) -> PluginResult<Self> {
        let name = file_name(path);
        let file = fenced(&name, "", || open_raw(path))?;
        Ok(Self {
            path: path.to_owned(),
            name,
            file,
        })
    }

    /// Forgets everything the library has cached: headers of a release with 114,000 groups would fill the memory.
    pub(crate) fn reopen(&mut self) -> PluginResult<()> {
        self.file = fenced(&self.name, "", || open_raw(&self.path))?;
        Ok(())
    }

    pub(crate) fn root(&self) -> PluginResult<Group> {
        fenced(&self.name, "root group", || self.file.root_group())
    }

    /// Names of the groups below the root, in file order.
    pub(crate) fn group_names(&self) -> PluginResult<Vec<String>> {
        let root = self.root()?;
        Ok(fenced(&self.name, "root group", || root.member_names())?.0)
    }

    /// A text attribute of the root group, if it is there.
    pub(crate) fn root_text(&self, attribute: &str) -> PluginResult<Option<String>> {
        let root = self.root()?;
        let found = fenced_raw(|| root.attribute(attribute).and_then(|a| a.read_string()));
        Ok(found.ok())
    }

    /// A group below the root.
    pub(crate) fn group<'a>(
        &'a self,
        root: &Group,
        name: &'a str,
    ) -> PluginResult<MoleculeGroup<'a>> {
        let place = format!("group \"{name}\"");
        let group = fenced(&self.name, &place, || root.group(name))?;
        Ok(MoleculeGroup {
            file: &self.name,
            place,
            group,
        })
    }
}

/// One group of a file: a molecule.
pub(crate) struct MoleculeGroup<'a> {
    file: &'a str,
    place: String,
    group: Group,
}

impl MoleculeGroup<'_> {
    /// A dataset, or `None` if the group has none of this name.
    pub(crate) fn dataset(&self, name: &str) -> PluginResult<Option<Dataset>> {
        match fenced_raw(|| self.group.dataset(name)) {
            Ok(dataset) => Ok(Some(dataset)),
            Err(Failure::Library(error)) if is_missing(&error) => Ok(None),
            Err(failure) => Err(self.damaged(&format!("dataset \"{name}\""), failure)),
        }
    }

    /// Names of all datasets of the group, for messages.
    pub(crate) fn dataset_names(&self) -> String {
        let names = fenced_raw(|| self.group.member_names());
        names.map_or_else(
            |_| "(unreadable)".into(),
            |(_, mut datasets)| {
                datasets.sort();
                if datasets.is_empty() {
                    "none".into()
                } else {
                    datasets.join(", ")
                }
            },
        )
    }

    /// The single text of a dataset; `None` if it is not there.
    pub(crate) fn text(&self, name: &str) -> PluginResult<Option<String>> {
        let Some(dataset) = self.dataset(name)? else {
            return Ok(None);
        };
        let text = fenced_raw(|| dataset.read_strings()).map_err(|e| self.damaged(name, e))?;
        Ok(text.into_iter().next())
    }

    /// Floats of either width, in file order.
    pub(crate) fn numbers(&self, name: &str, dataset: &Dataset) -> PluginResult<Numbers> {
        let read = || match dataset.dtype() {
            Datatype::FloatingPoint { size: 4, .. } => {
                Ok(Numbers::F32(row_major(dataset.read_array()?)))
            }
            Datatype::FloatingPoint { size: 8, .. } => {
                Ok(Numbers::F64(row_major(dataset.read_array()?)))
            }
            other => Err(Error::InvalidData(format!(
                "floats of 32 or 64 bits were expected, not {other:?}"
            ))),
        };
        fenced_raw(read).map_err(|e| self.damaged(name, e))
    }

    /// Floats in f64.
    pub(crate) fn floats(&self, name: &str, dataset: &Dataset) -> PluginResult<Vec<f64>> {
        Ok(match self.numbers(name, dataset)? {
            Numbers::F32(v) => v.into_iter().map(f64::from).collect(),
            Numbers::F64(v) => v,
        })
    }

    /// Atomic numbers of any integer width.
    pub(crate) fn atomic_numbers(&self, dataset: &Dataset) -> PluginResult<Vec<u8>> {
        let read = || -> Result<Vec<i64>, Error> {
            macro_rules! integers {
                ($type:ty) => {
                    Ok(dataset
                        .read_array::<$type>()?
                        .into_iter()
                        .map(|z| z as i64)
                        .collect())
                };
            }
            match dataset.dtype() {
                Datatype::FixedPoint {
                    size: 1,
                    signed: false,
                    ..
                } => integers!(u8),
                Datatype::FixedPoint { size: 1, .. } => integers!(i8),
                Datatype::FixedPoint {
                    size: 2,
                    signed: false,
                    ..
                } => integers!(u16),
                Datatype::FixedPoint { size: 2, .. } => integers!(i16),
                Datatype::FixedPoint {
                    size: 4,
                    signed: false,
                    ..
                } => integers!(u32),
                Datatype::FixedPoint { size: 4, .. } => integers!(i32),
                Datatype::FixedPoint {
                    size: 8,
                    signed: false,
                    ..
                } => integers!(u64),
                Datatype::FixedPoint { size: 8, .. } => integers!(i64),
                other => Err(Error::InvalidData(format!(
                    "integers were expected, not {other:?}"
                ))),
            }
        };
        let numbers = fenced_raw(read).map_err(|e| self.damaged("atomic_numbers", e))?;
        let valid = |z: i64| u8::try_from(z).ok().filter(|z| (1..=118).contains(z));
        let bad = numbers.iter().position(|&z| valid(z).is_none());
        if let Some(i) = bad {
            return Err(self.wrong(
                format!("atomic_numbers[{i}] = {} is no element", numbers[i]),
                DAMAGED,
            ));
        }
        Ok(numbers.into_iter().filter_map(valid).collect())
    }

    /// A text attribute of a dataset, such as `units`, if it is there.
    pub(crate) fn attribute(&self, dataset: &Dataset, name: &str) -> Option<String> {
        fenced_raw(|| dataset.attribute(name).and_then(|a| a.read_string())).ok()
    }

    /// An error about this group.
    pub(crate) fn wrong(&self, what: impl std::fmt::Display, remedy: &str) -> PluginError {
        bad_data(self.file, &self.place, what, remedy)
    }

    fn damaged(&self, what: &str, failure: Failure) -> PluginError {
        self.wrong(format!("\"{what}\" cannot be read ({failure})"), DAMAGED)
    }
}

/// The numbers of an array in the order of the file: those it owns, where they lie in this order, as they do when fresh from the reader.
/// Walking over an array whose rank is not known at compile time took a quarter of the time of opening a release.
fn row_major<T: Clone>(array: ArrayD<T>) -> Vec<T> {
    if !array.is_standard_layout() {
        return array.into_iter().collect();
    }
    let count = array.len();
    let (mut values, offset) = array.into_raw_vec_and_offset();
    values.drain(..offset.unwrap_or(0));
    values.truncate(count);
    values
}

fn open_raw(path: &Path) -> Result<Hdf5File, Error> {
    let options = OpenOptions::default()
        .with_max_read_bytes(MAX_READ_BYTES)
        .with_max_chunk_bytes(MAX_CHUNK_BYTES)
        .with_chunk_cache_bytes(0);
    Hdf5File::open_with_options(path, options)
}

/// What can go wrong inside the library.
enum Failure {
    Library(Error),
    Panic,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Library(error) => error.fmt(f),
            Self::Panic => f.write_str("the reader gave up on it"),
        }
    }
}

fn fenced_raw<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Failure::Library),
        Err(_) => Err(Failure::Panic),
    }
}

fn fenced<T>(file: &str, place: &str, call: impl FnOnce() -> Result<T, Error>) -> PluginResult<T> {
    fenced_raw(call).map_err(|e| {
        bad_data(
            file,
            place,
            format!("it cannot be read as HDF5 ({e})"),
            DAMAGED,
        )
    })
}

fn is_missing(error: &Error) -> bool {
    match error {
        Error::DatasetNotFound(_) | Error::GroupNotFound(_) => true,
        Error::Context { source, .. } => is_missing(source),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, Axis, Slice};

    #[test]
    fn numbers_come_in_row_major_order_whatever_the_array_is_a_part_of() {
        let whole = Array3::from_shape_fn((4, 3, 2), |(i, j, k)| 100 * i + 10 * j + k).into_dyn();
        let mut transposed = whole.clone();
        transposed.swap_axes(0, 2);
        let mut part = whole.clone();
        part.slice_axis_inplace(Axis(0), Slice::from(1..3));
        let mut strided = whole.clone();
        strided.slice_axis_inplace(Axis(1), Slice::from(0..2));
        for array in [
            whole.clone(),
            transposed,
            part,
            strided,
            ArrayD::from_elem(vec![0, 3], 1),
            ArrayD::from_elem(vec![], 7),
        ] {
            assert_eq!(
                row_major(array.clone()),
                array.iter().copied().collect::<Vec<_>>()
            );
        }
    }
}
