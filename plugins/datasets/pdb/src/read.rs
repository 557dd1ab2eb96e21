//! Reads many files with all processors, in batches, so that memory stays bounded and the order is that of the list.

use crate::{
    formats::{self, Content},
    index::{IndexBuilder, Parsed},
    inputs::{Input, is_structure_name},
    options::Selection,
    store::hex,
};
use equivbench_plugin::Progress;
use flate2::read::MultiGzDecoder;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    time::UNIX_EPOCH,
};

/// Files that are read before their chains are put down.
const FILES_AT_ONCE: usize = 256;
/// Bytes of members of an archive that are taken before they are read.
const MEMBER_BYTES_AT_ONCE: usize = 1 << 26;
/// A member of an archive larger than this is passed over.
const MOST_MEMBER_BYTES: u64 = 1 << 30;
const BUFFER: usize = 1 << 16;

/// What a file was when it was read: enough to see that it changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) name: String,
    /// 0 if the file was not there.
    pub(crate) bytes: u64,
    /// Nanoseconds since 1970 of the last change.
    pub(crate) modified_ns: u64,
    /// SHA-256 of the content; empty if it could not be read.
    pub(crate) sha256: String,
}

/// Size and time of the last change of a file; zeros if it is not there.
pub(crate) fn quick_stamp(path: &Path) -> (u64, u64) {
    let Ok(metadata) = std::fs::metadata(path) else {
        return (0, 0);
    };
    let since = metadata
        .modified()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
    (
        metadata.len(),
        since.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
    )
}

/// SHA-256 of a file; empty if it cannot be read. Its bytes count as progress.
pub(crate) fn sha256(path: &Path, progress: &Progress) -> String {
    let hash = || -> io::Result<String> {
        let mut reader = Hashing::new(File::open(path)?, progress);
        io::copy(&mut reader, &mut io::sink())?;
        Ok(hex(&reader.hasher.finalize()))
    };
    hash().unwrap_or_default()
}

/// Bytes of all files, for a progress that counts them.
pub(crate) fn bytes_of(files: &[Input]) -> u64 {
    files.iter().map(|file| quick_stamp(&file.path).0).sum()
}

/// A reader that counts what goes through it.
struct Counting<'a, R> {
    inner: R,
    progress: &'a Progress,
}

impl<R: Read> Read for Counting<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(to)?;
        self.progress.add(n as u64);
        Ok(n)
    }
}

/// A reader that counts and hashes what goes through it.
struct Hashing<'a, R> {
    inner: Counting<'a, R>,
    hasher: Sha256,
}

impl<'a, R: Read> Hashing<'a, R> {
    fn new(inner: R, progress: &'a Progress) -> Self {
        Self {
            inner: Counting { inner, progress },
            hasher: Sha256::new(),
        }
    }
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(to)?;
        self.hasher.update(&to[..n]);
        Ok(n)
    }
}

/// What became of one file.
enum FileContent {
    Entry(Result<Parsed, String>),
    Archive,
}

/// Reads all files into a builder; one stamp for each.
///
/// # Errors
/// The builder cannot write. Files that cannot be read are no errors: the builder counts them.
pub(crate) fn read_all<W: Write>(
    files: &[Input],
    selection: &Selection,
    builder: &mut IndexBuilder<W>,
) -> io::Result<Vec<Stamp>> {
    let mut stamps = Vec::with_capacity(files.len());
    let progress = Progress::new("bytes of structure files read", bytes_of(files));
    for batch in files.chunks(FILES_AT_ONCE) {
        let read: Vec<(FileContent, Stamp)> = batch
            .par_iter()
            .with_max_len(1)
            .map(|file| read_file(file, selection, &progress))
            .collect();
        for (file, (outcome, stamp)) in batch.iter().zip(read) {
            match outcome {
                FileContent::Entry(result) => builder.file(&file.name, result)?,
                FileContent::Archive => read_archive(file, selection, builder)?,
            }
            stamps.push(stamp);
        }
    }
    Ok(stamps)
}

fn read_file(file: &Input, selection: &Selection, progress: &Progress) -> (FileContent, Stamp) {
    // Taken before reading, so that a change while reading is seen later.
    let (bytes, modified_ns) = quick_stamp(&file.path);
    let mut stamp = Stamp {
        name: file.name.clone(),
        bytes,
        modified_ns,
        sha256: String::new(),
    };
    let opened = match File::open(&file.path) {
        Ok(opened) => opened,
        Err(error) => return (FileContent::Entry(Err(formats::unreadable(&error))), stamp),
    };
    let mut reader = BufReader::with_capacity(BUFFER, Hashing::new(opened, progress));
    let outcome = parse(&mut reader, selection);
    // What the reader of the format left over counts for the hash.
    if io::copy(&mut reader, &mut io::sink()).is_ok() {
        stamp.sha256 = hex(&reader.into_inner().hasher.finalize());
    }
    (outcome, stamp)
}

fn parse(reader: &mut dyn BufRead, selection: &Selection) -> FileContent {
    match formats::read(reader, selection.take_modified) {
        Ok(Content::Archive) => FileContent::Archive,
        Ok(Content::Entry(entry)) => FileContent::Entry(Ok(Parsed::new(entry, selection))),
        Err(why) => FileContent::Entry(Err(why)),
    }
}

/// Reads the structures of a tar archive. If it breaks off, what came before counts, and the archive counts as unreadable once.
fn read_archive<W: Write>(
    file: &Input,
    selection: &Selection,
    builder: &mut IndexBuilder<W>,
) -> io::Result<()> {
    let mut members = Members {
        batch: Vec::new(),
        bytes: 0,
    };
    let mut found = 0;
    let result = for_each_member(&file.path, |name, content| {
        found += 1;
        members.push(format!("{}/{name}", file.name), content);
        if members.bytes < MEMBER_BYTES_AT_ONCE {
            Ok(())
        } else {
            members.flush(selection, builder)
        }
    });
    members.flush(selection, builder)?;
    match result {
        Err(Broken::Output(error)) => Err(error),
        Err(Broken::Archive(error)) => builder.file(
            &file.name,
            Err(format!(
                "the archive breaks off ({})",
                formats::unreadable(&error)
            )),
        ),
        Ok(()) if found == 0 => builder.file(
            &file.name,
            Err("the archive holds no structure file".into()),
        ),
        Ok(()) => Ok(()),
    }
}

enum Broken {
    Archive(io::Error),
    Output(io::Error),
}

/// Structures of an archive that wait to be read.
struct Members {
    batch: Vec<(String, Result<Vec<u8>, String>)>,
    bytes: usize,
}

impl Members {
    fn push(&mut self, name: String, content: Result<Vec<u8>, String>) {
        self.bytes += content.as_ref().map_or(0, Vec::len);
        self.batch.push((name, content));
    }

    fn flush<W: Write>(
        &mut self,
        selection: &Selection,
        builder: &mut IndexBuilder<W>,
    ) -> io::Result<()> {
        let read = |(name, content): (String, Result<Vec<u8>, String>)| {
            let outcome = content.map(|bytes| parse(&mut &bytes[..], selection));
            let result = match outcome {
                Ok(FileContent::Entry(result)) => result,
                Ok(FileContent::Archive) => Err("it is an archive inside of another".into()),
                Err(why) => Err(why),
            };
            (name, result)
        };
        let batch: Vec<_> = std::mem::take(&mut self.batch)
            .into_par_iter()
            .with_max_len(1)
            .map(read)
            .collect();
        self.bytes = 0;
        batch
            .into_iter()
            .try_for_each(|(name, result)| builder.file(&name, result))
    }
}

fn for_each_member(
    path: &Path,
    mut visit: impl FnMut(String, Result<Vec<u8>, String>) -> io::Result<()>,
) -> Result<(), Broken> {
    let progress = Progress::new("bytes of an archive read", quick_stamp(path).0);
    let mut archive = tar::Archive::new(unpacked(path, &progress).map_err(Broken::Archive)?);
    for member in archive.entries().map_err(Broken::Archive)? {
        let mut member = member.map_err(Broken::Archive)?;
        let name = String::from_utf8_lossy(&member.path_bytes()).into_owned();
        if !member.header().entry_type().is_file() || !is_structure_name(&name) {
            continue;
        }
        let content = if member.size() > MOST_MEMBER_BYTES {
            Err("it is too long for a structure file in an archive".into())
        } else {
            let mut bytes = Vec::new();
            member.read_to_end(&mut bytes).map_err(Broken::Archive)?;
            if (bytes.len() as u64) < member.size() {
                return Err(Broken::Archive(io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(bytes)
        };
        visit(name, content).map_err(Broken::Output)?;
    }
    Ok(())
}

/// The bytes of an archive, whether it is compressed or not.
fn unpacked<'a>(path: &Path, progress: &'a Progress) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(
        BUFFER,
        Counting {
            inner: File::open(path)?,
            progress,
        },
    );
    let compressed = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    Ok(if compressed {
        Box::new(MultiGzDecoder::new(reader))
    } else {
        Box::new(reader)
    })
}
