//! What the author of a dataset writes, and its glue.

use crate::{PluginError, PluginResult, guard::guard};
use equivbench_abi::{
    self as abi, AbiResult, FieldMut,
    abi_stable::std_types::{RSlice, RSliceMut, RStr, RString},
    descriptor::{DatasetDescriptor, DatasetRequest},
};
use serde::{Serialize, de::DeserializeOwned};

/// A dataset family.
pub trait DatasetPlugin: Send + Sized + 'static {
    /// Options of a suite's `[dataset]` table; `deny_unknown_fields` gives users good errors.
    type Options: Serialize + DeserializeOwned + Default;
    /// Name on the command line.
    const NAME: &'static str;
    /// One line for `equivbench list`.
    const ABOUT: &'static str = "";
    /// Tasks it serves.
    const TASKS: &'static [&'static str] = &["force-field"];
    /// Name of the data carried inside, used when no path is given.
    const EMBEDDED: Option<&'static str> = None;

    /// Opens the data: reads what is needed to know sizes, splits by group with the seed, checks units.
    ///
    /// # Errors
    /// Files that are missing, damaged, foreign or not finite; an empty split.
    fn open(options: Self::Options, seed: u64) -> PluginResult<Self>;

    /// As [`open`](Self::open), with everything else that the host says: threads, and the task that the samples are for.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    fn open_for(options: Self::Options, request: &DatasetRequest) -> PluginResult<Self> {
        Self::open(options, request.seed)
    }

    /// Fields, splits, provenance, content hash, checks.
    fn describe(&self) -> DatasetDescriptor;

    /// Number of points of each sample of `split` named by `indices`.
    ///
    /// # Errors
    /// An unknown split or an index beyond it.
    fn points(&self, split: &str, indices: &[u64], out: &mut [u64]) -> PluginResult<()>;

    /// Writes the samples one after the other, in the order of `indices`.
    ///
    /// # Errors
    /// An unknown split, an index beyond it, unreadable or non-finite data.
    fn samples(
        &mut self,
        split: &str,
        indices: &[u64],
        out: &mut FieldBuffers<'_>,
    ) -> PluginResult<()>;

    /// For each sample of `split` named by `indices` the number of its group: the molecule of a conformation, the sequence cluster of a
    /// chain. Samples of one group resemble each other, so intervals are computed over groups, and a group belongs to one split only.
    ///
    /// Two samples have the same number exactly if they are of the same group, also in different splits and when the same data are
    /// opened again, with another seed for example; `u64::MAX` is none. Small numbers read best in tables. `None`, the default: every
    /// sample is a group of its own.
    ///
    /// # Errors
    /// An unknown split or an index beyond it.
    fn groups(&self, _split: &str, _indices: &[u64]) -> PluginResult<Option<Vec<u64>>> {
        Ok(None)
    }
}

/// The host's buffers for one batch of samples, by field name.
pub struct FieldBuffers<'a> {
    fields: Vec<(String, &'a mut [u8])>,
}

impl FieldBuffers<'_> {
    /// Whether the host asked for the field.
    #[must_use]
    pub fn wants(&self, name: &str) -> bool {
        self.fields.iter().any(|(n, _)| n == name)
    }

    fn find<T: bytemuck::Pod>(&mut self, name: &str) -> PluginResult<&mut [T]> {
        let (_, bytes) = self
            .fields
            .iter_mut()
            .find(|(n, _)| n == name)
            .ok_or_else(|| {
                PluginError::BadRequest(format!("the host did not ask for field \"{name}\""))
            })?;
        bytemuck::try_cast_slice_mut(bytes)
            .map_err(|e| PluginError::BadRequest(format!("buffer of field \"{name}\": {e}")))
    }

    /// The buffer of an f64 field, row-major.
    ///
    /// # Errors
    /// A field the host did not ask for.
    pub fn f64(&mut self, name: &str) -> PluginResult<&mut [f64]> {
        self.find(name)
    }

    /// The buffer of an f32 field, row-major.
    ///
    /// # Errors
    /// A field the host did not ask for.
    pub fn f32(&mut self, name: &str) -> PluginResult<&mut [f32]> {
        self.find(name)
    }

    /// The buffer of an i64 field, row-major.
    ///
    /// # Errors
    /// A field the host did not ask for.
    pub fn i64(&mut self, name: &str) -> PluginResult<&mut [i64]> {
        self.find(name)
    }
}

/// A dataset behind the boundary.
pub(crate) struct Served<D>(pub(crate) D);

impl<D: DatasetPlugin> abi::Dataset for Served<D> {
    fn describe(&self) -> AbiResult<RString> {
        guard(|| crate::registry::to_json(&self.0.describe()))
    }
    fn points_into(
        &self,
        split: RStr<'_>,
        indices: RSlice<'_, u64>,
        mut out: RSliceMut<'_, u64>,
    ) -> AbiResult<()> {
        guard(|| {
            self.0
                .points(split.as_str(), indices.as_slice(), out.as_mut_slice())
        })
    }
    fn samples_into(
        &mut self,
        split: RStr<'_>,
        indices: RSlice<'_, u64>,
        mut fields: RSliceMut<'_, FieldMut<'_>>,
    ) -> AbiResult<()> {
        guard(|| {
            let fields = fields
                .as_mut_slice()
                .iter_mut()
                .map(|f| (f.name.as_str().to_owned(), f.bytes.as_mut_slice()))
                .collect();
            self.0.samples(
                split.as_str(),
                indices.as_slice(),
                &mut FieldBuffers { fields },
            )
        })
    }
    fn groups_into(
        &self,
        split: RStr<'_>,
        indices: RSlice<'_, u64>,
        mut out: RSliceMut<'_, u64>,
    ) -> AbiResult<bool> {
        guard(|| {
            let Some(groups) = self.0.groups(split.as_str(), indices.as_slice())? else {
                return Ok(false);
            };
            let out = out.as_mut_slice();
            if groups.len() != out.len() {
                return Err(PluginError::Other(format!(
                    "{} groups for {} samples",
                    groups.len(),
                    out.len()
                )));
            }
            out.copy_from_slice(&groups);
            Ok(true)
        })
    }
}
