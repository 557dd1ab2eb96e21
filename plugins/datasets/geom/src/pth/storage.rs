//! Reads what tensors view from the archive, only when it is asked for. Several tensors may share a storage.

use super::{
    CONVERT,
    machine::{Dtype, Tensor},
};
use crate::archive::{self, Archive, Entry, MAX_ATOMS};
use equivbench_dataset_tools::{DAMAGED, bad_data};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    collections::VecDeque,
    fmt::Display,
    io::{Read, Seek, SeekFrom},
    rc::Rc,
};

/// A storage up to this size is read at once, with its checksum; of a larger one only the part that is viewed.
pub(super) const MAX_WHOLE_BYTES: u64 = 1 << 24;
/// Coordinates and channels may be views of one storage each, for many molecules in turn.
const KEPT: usize = 4;

/// The storages of a torch file.
pub(super) struct Storages<'a, R> {
    archive: Archive<R>,
    source: &'a str,
    folder: &'a str,
    kept: VecDeque<(String, Rc<[u8]>)>,
}

impl<'a, R: Read + Seek> Storages<'a, R> {
    /// # Errors
    /// The numbers are big-endian.
    pub(super) fn new(
        mut archive: Archive<R>,
        source: &'a str,
        folder: &'a str,
    ) -> PluginResult<Self> {
        let name = format!("{folder}byteorder");
        if archive.index_for_name(&name).is_some() {
            let mut order = String::new();
            let read = archive::entry(&mut archive, source, &name)?
                .take(16)
                .read_to_string(&mut order);
            if read.is_err() || order.trim() != "little" {
                let what = format!("the byte order is {order:?}, not little");
                return Err(bad_data(
                    source,
                    &format!("entry {name}"),
                    what,
                    "save the file again on a little-endian machine",
                ));
            }
        }
        Ok(Self {
            archive,
            source,
            folder,
            kept: VecDeque::new(),
        })
    }

    /// The elements of a tensor of f32 or f64.
    pub(super) fn floats(&mut self, tensor: &Tensor) -> PluginResult<Vec<f64>> {
        let bytes = self.view(tensor)?;
        match tensor.storage.dtype {
            Dtype::F32 => Ok(bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b).into())
                .collect()),
            Dtype::F64 => Ok(bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|&b| f64::from_le_bytes(b))
                .collect()),
            dtype => Err(self.wrong(tensor, format!("coordinates of {dtype:?}"), CONVERT)),
        }
    }

    /// The elements of a tensor of i32 or i64.
    pub(super) fn integers(&mut self, tensor: &Tensor) -> PluginResult<Vec<i64>> {
        let bytes = self.view(tensor)?;
        match tensor.storage.dtype {
            Dtype::I32 => Ok(bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|&b| i32::from_le_bytes(b).into())
                .collect()),
            Dtype::I64 => Ok(bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|&b| i64::from_le_bytes(b))
                .collect()),
            dtype => Err(self.wrong(tensor, format!("channels of {dtype:?}"), CONVERT)),
        }
    }

    /// The bytes that a tensor views.
    fn view(&mut self, tensor: &Tensor) -> PluginResult<Vec<u8>> {
        if tensor.elements > 3 * MAX_ATOMS as u64 {
            return Err(self.wrong(
                tensor,
                format!("a molecule of {} elements", tensor.elements),
                DAMAGED,
            ));
        }
        let name = self.name(tensor);
        if let Some((_, whole)) = self.kept.iter().find(|(kept, _)| *kept == name) {
            return self.cut(tensor, whole);
        }
        let size = match self
            .archive
            .by_name(&name)
            .map_err(std::io::Error::from)
            .and_then(whole)
        {
            Ok(Ok(whole)) => {
                let part = self.cut(tensor, &whole);
                self.kept.truncate(KEPT - 1);
                self.kept.push_front((name, whole));
                return part;
            }
            Ok(Err(size)) => size,
            Err(e) => return Err(self.unreadable(tensor, &e)),
        };
        let (start, length) = self.extent(tensor, size)?;
        self.part(&name, start, length)
            .map_err(|e| self.unreadable(tensor, &e))
    }

    fn cut(&self, tensor: &Tensor, whole: &[u8]) -> PluginResult<Vec<u8>> {
        let (start, length) = self.extent(tensor, whole.len() as u64)?;
        let part = whole.get(start as usize..(start + length) as usize);
        part.map(<[u8]>::to_vec)
            .ok_or_else(|| self.wrong(tensor, "it ends early", DAMAGED))
    }

    /// Where a tensor begins in an entry of this size, and its length, in bytes.
    fn extent(&self, tensor: &Tensor, size: u64) -> PluginResult<(u64, u64)> {
        let item = tensor.storage.dtype.bytes();
        if tensor
            .storage
            .elements
            .checked_mul(item)
            .is_none_or(|promised| promised > size)
        {
            return Err(self.wrong(
                tensor,
                format!(
                    "it holds {size} bytes for {} elements",
                    tensor.storage.elements
                ),
                DAMAGED,
            ));
        }
        // Neither overflows: the view lies inside its storage.
        Ok((tensor.offset * item, tensor.elements * item))
    }

    fn part(&mut self, name: &str, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
        let mut entry = self.archive.by_name_seek(name)?;
        entry.seek(SeekFrom::Start(start))?;
        let mut bytes = vec![0; length as usize];
        entry.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn name(&self, tensor: &Tensor) -> String {
        format!("{}data/{}", self.folder, tensor.storage.key)
    }

    fn unreadable(&self, tensor: &Tensor, error: &std::io::Error) -> PluginError {
        self.wrong(tensor, format!("it cannot be read ({error})"), DAMAGED)
    }

    fn wrong(&self, tensor: &Tensor, what: impl Display, remedy: &str) -> PluginError {
        bad_data(
            self.source,
            &format!("entry {}", self.name(tensor)),
            what,
            remedy,
        )
    }
}

/// All bytes of an entry, or its size if that is too much.
fn whole<R: Read>(entry: Entry<'_, R>) -> std::io::Result<Result<Rc<[u8]>, u64>> {
    let size = entry.size();
    if size > MAX_WHOLE_BYTES {
        return Ok(Err(size));
    }
    let mut bytes = Vec::new();
    // One byte more than promised: only the end makes the archive compare the checksum.
    entry.take(size + 1).read_to_end(&mut bytes)?;
    Ok(Ok(bytes.into()))
}

impl Dtype {
    fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }
}
