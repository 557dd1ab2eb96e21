//! The file of a sample that a plugin carries: a safetensors document, so that any tool can open it.
//!
//! Arrays have names that say their units. What is no array (names, sequences, how the numbers were made) is one JSON text among the
//! metadata, under the key `about`. Nothing is compressed: version control compresses what it stores, and so the bytes follow from the
//! content alone and from no compressor.

use crate::bad_data;
use equivbench_plugin::{PluginError, PluginResult};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::HashMap, fmt::Display};

/// Key of the JSON text.
const ABOUT: &str = "about";

/// A number of an array.
pub trait ArrayNumber: Copy + sealed::Bytes {}

mod sealed {
    use safetensors::Dtype;

    /// How numbers lie in the file.
    pub trait Bytes: Sized {
        /// Their type.
        const DTYPE: Dtype;
        /// Numbers from little-endian bytes, as many as are whole.
        fn read(bytes: &[u8]) -> Vec<Self>;
        /// Little-endian bytes.
        fn write(numbers: &[Self]) -> Vec<u8>;
    }
}

macro_rules! array_numbers {
    ($($number:ty => $dtype:expr),*) => {$(
        impl ArrayNumber for $number {}
        impl sealed::Bytes for $number {
            const DTYPE: Dtype = $dtype;
            fn read(bytes: &[u8]) -> Vec<Self> {
                bytes.as_chunks().0.iter().map(|b| Self::from_le_bytes(*b)).collect()
            }
            fn write(numbers: &[Self]) -> Vec<u8> {
                numbers.iter().flat_map(|x| x.to_le_bytes()).collect()
            }
        }
    )*};
}
array_numbers!(u8 => Dtype::U8, i32 => Dtype::I32, f32 => Dtype::F32, f64 => Dtype::F64);

/// A sample, open for reading.
#[derive(Debug)]
pub struct SampleFile<'a> {
    name: &'static str,
    about: String,
    tensors: SafeTensors<'a>,
}

impl<'a> SampleFile<'a> {
    /// Opens the file of a sample; `name` stands in messages.
    ///
    /// # Errors
    /// Bytes that are damaged or cut off.
    pub fn open(name: &'static str, bytes: &'a [u8]) -> PluginResult<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| damaged(name, e))?;
        let about = header.metadata().as_ref().and_then(|m| m.get(ABOUT));
        Ok(Self {
            name,
            about: about
                .ok_or_else(|| damaged(name, "it says nothing about itself"))?
                .clone(),
            tensors: SafeTensors::deserialize(bytes).map_err(|e| damaged(name, e))?,
        })
    }

    /// What the sample says about itself.
    ///
    /// # Errors
    /// A text of another form.
    pub fn about<T: DeserializeOwned>(&self) -> PluginResult<T> {
        serde_json::from_str(&self.about).map_err(|e| self.damaged(e))
    }

    /// The numbers of an array, row-major.
    ///
    /// # Errors
    /// An array that is missing, or has another shape or type.
    pub fn numbers<T: ArrayNumber>(&self, array: &str, shape: &[usize]) -> PluginResult<Vec<T>> {
        let view = self.tensors.tensor(array).map_err(|e| self.damaged(e))?;
        if (view.dtype(), view.shape()) != (T::DTYPE, shape) {
            let (dtype, found) = (view.dtype(), view.shape());
            let expected = T::DTYPE;
            return Err(self.damaged(format!(
                "its array {array} is {dtype} {found:?}, not {expected} {shape:?}"
            )));
        }
        Ok(T::read(view.data()))
    }

    /// An error about the sample.
    pub fn damaged(&self, what: impl Display) -> PluginError {
        damaged(self.name, what)
    }
}

fn damaged(name: &str, what: impl Display) -> PluginError {
    let remedy = "the plugin was built from a damaged checkout; fetch the sample again and rebuild";
    bad_data(name, "", what, remedy)
}

/// An array that is to be written.
#[derive(Clone, Debug)]
pub struct SampleArray {
    name: &'static str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl SampleArray {
    /// An array of this row-major shape.
    #[must_use]
    pub fn new<T: ArrayNumber>(name: &'static str, shape: &[usize], numbers: &[T]) -> Self {
        Self {
            name,
            dtype: T::DTYPE,
            shape: shape.to_vec(),
            bytes: T::write(numbers),
        }
    }
}

/// The file of a sample. The same content gives the same bytes.
///
/// # Errors
/// An array whose shape is not that of its numbers; a text that is no JSON.
pub fn encode(about: &impl Serialize, arrays: &[SampleArray]) -> PluginResult<Vec<u8>> {
    let failed = |e: &dyn Display| PluginError::Other(format!("a sample cannot be written: {e}"));
    let about = serde_json::to_string(about).map_err(|e| failed(&e))?;
    let views = arrays
        .iter()
        .map(|a| {
            let view = TensorView::new(a.dtype, a.shape.clone(), &a.bytes);
            Ok((a.name, view.map_err(|e| failed(&e))?))
        })
        .collect::<PluginResult<Vec<_>>>()?;
    // One entry: a map of several is written in an order of its own each time.
    let metadata = HashMap::from([(ABOUT.to_owned(), about)]);
    safetensors::serialize(views, Some(metadata)).map_err(|e| failed(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let arrays = [
            SampleArray::new(
                "positions_bohr",
                &[2, 3],
                &[1.5_f32, -2.0, 0.0, 4.0, 5.0, 6.0],
            ),
            SampleArray::new("energy", &[1], &[f64::MIN_POSITIVE]),
            SampleArray::new("steps", &[3], &[-1_i32, 0, i32::MAX]),
            SampleArray::new("atomic_numbers", &[2], &[1_u8, 255]),
        ];
        encode(&vec!["water"], &arrays).unwrap()
    }

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = sample();
        let file = SampleFile::open("test", &bytes).unwrap();
        assert_eq!(file.about::<Vec<String>>().unwrap(), ["water"]);
        assert_eq!(
            file.numbers::<f32>("positions_bohr", &[2, 3]).unwrap(),
            [1.5, -2.0, 0.0, 4.0, 5.0, 6.0]
        );
        assert_eq!(
            file.numbers::<f64>("energy", &[1]).unwrap(),
            [f64::MIN_POSITIVE]
        );
        assert_eq!(
            file.numbers::<i32>("steps", &[3]).unwrap(),
            [-1, 0, i32::MAX]
        );
        assert_eq!(
            file.numbers::<u8>("atomic_numbers", &[2]).unwrap(),
            [1, 255]
        );
        assert_eq!(sample(), bytes, "the same content gives the same bytes");
    }

    #[test]
    fn another_shape_type_or_name_is_an_error() {
        let bytes = sample();
        let file = SampleFile::open("test", &bytes).unwrap();
        let message = file
            .numbers::<f32>("positions_bohr", &[3, 3])
            .unwrap_err()
            .to_string();
        assert!(message.contains("[2, 3], not F32 [3, 3]"), "{message}");
        assert!(file.numbers::<f64>("positions_bohr", &[2, 3]).is_err());
        assert!(file.numbers::<u8>("numbers", &[2]).is_err());
        assert!(file.about::<u8>().is_err());
    }

    #[test]
    fn a_file_that_is_cut_off_is_an_error_at_every_length() {
        let bytes = sample();
        for length in 0..bytes.len() {
            assert!(
                SampleFile::open("test", &bytes[..length]).is_err(),
                "{length}"
            );
        }
    }
}
