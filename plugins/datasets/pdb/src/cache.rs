//! The cache: the index and the coordinates of all chains in one file, so that a folder of 200,000 entries is read once.
//!
//! A file is used again only if the options that select chains are the same, if every input has the size and the time of change that
//! it had (or, where the times differ or are too close to the reading to tell, the same SHA-256), and if every byte of the cache itself
//! has its checksum. Anything else is read anew. Files are written under another name and renamed, so that a reader never sees half of one.
//!
//! Layout: magic, length of the coordinates, length of the index (u64, little-endian), SHA-256 of the index; coordinates; index (JSON).

use crate::{
    index::{Index, IndexBuilder},
    inputs::{Input, Inputs},
    options::Settings,
    read::{self, Stamp},
    store::{ChainRecord, Store, checksum, hex},
};
use equivbench_plugin::{PluginError, PluginResult, Progress};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use tempfile::NamedTempFile;

const MAGIC: &[u8; 8] = b"EQBPDB\0\x01";
/// Names of cache files begin like this; hidden, so that no folder scan takes them for data.
const PREFIX: &str = ".equivbench-pdb-";
const HEADER: u64 = 8 + 8 + 8 + 32;
/// Raise it when the readers give other chains for the same bytes.
const READER: u32 = 1;
/// A file that was changed less than this before it was read could be changed again within one tick of the clock of its file system.
const TOO_CLOSE_NS: u64 = 2_000_000_000;
/// Chains whose checksums one thread compares at once.
const RECORDS_AT_ONCE: usize = 4096;

/// Index and coordinates of a path.
#[derive(Debug)]
pub(crate) struct OpenChains {
    pub(crate) index: Index,
    pub(crate) store: Store,
}

#[derive(Serialize, Deserialize)]
struct Document {
    key: String,
    /// When reading began, nanoseconds since 1970.
    began_ns: u64,
    stamps: Vec<Stamp>,
    index: Index,
}

/// Takes the index from a cache, or reads the files and writes one.
///
/// # Errors
/// A folder for the cache that was asked for and cannot be written; a full disk.
pub(crate) fn open(
    cache: &Cache,
    inputs: &Inputs,
    settings: &Settings,
) -> PluginResult<OpenChains> {
    let key = key(settings);
    let places = cache.places("index", &key);
    if let Some(found) = places.iter().find_map(|place| load(place, &key, inputs)) {
        return Ok(found);
    }
    for place in &places {
        match temporary(place) {
            Ok(file) => return build(file, place, key, inputs, settings),
            Err(error) if cache.asked_for => return Err(unwritable(place, &error)),
            Err(_) => {}
        }
    }
    let mut builder = IndexBuilder::new(Vec::new());
    read::read_all(&inputs.files, &settings.selection, &mut builder)
        .map_err(|e| PluginError::Other(e.to_string()))?;
    let (index, bytes, _) = builder.finish();
    Ok(OpenChains {
        index,
        store: Store::Memory(bytes),
    })
}

/// The folders in which a cache may lie.
#[derive(Debug)]
pub(crate) struct Cache {
    /// The best first; each with what keeps the data of one path apart from those of others in the same folder.
    folders: Vec<(PathBuf, String)>,
    /// A folder was named, so it must be writable.
    asked_for: bool,
}

impl Cache {
    pub(crate) fn new(inputs: &Inputs, settings: &Settings) -> Self {
        let whole = inputs
            .folder
            .canonicalize()
            .unwrap_or_else(|_| inputs.folder.clone())
            .join(&inputs.stem)
            .display()
            .to_string();
        let folders = match settings.options.cache.as_deref() {
            Some("none") => Vec::new(),
            Some(folder) => vec![(PathBuf::from(folder), whole)],
            None => {
                let user = directories::ProjectDirs::from("", "", "equivbench")
                    .map(|d| (d.cache_dir().to_owned(), whole));
                [(inputs.folder.clone(), inputs.stem.clone())]
                    .into_iter()
                    .chain(user)
                    .collect()
            }
        };
        Self {
            folders,
            asked_for: settings.options.cache.is_some(),
        }
    }

    fn places(&self, kind: &str, key: &str) -> Vec<PathBuf> {
        let name = |apart: &str| {
            let digest = Sha256::new()
                .chain_update(key)
                .chain_update([0])
                .chain_update(apart)
                .finalize();
            format!("{PREFIX}{kind}-{}", &hex(&digest)[..16])
        };
        self.folders
            .iter()
            .map(|(folder, apart)| folder.join(name(apart)))
            .collect()
    }

    /// Numbers that were put away under a key, which must name everything they depend on.
    pub(crate) fn recall(&self, kind: &str, key: &str) -> Option<Vec<u32>> {
        self.places(kind, key).iter().find_map(|place| {
            let bytes = std::fs::read(place).ok()?;
            let (digest, body) = bytes.split_at_checked(32)?;
            let whole = Sha256::new()
                .chain_update(key)
                .chain_update(body)
                .finalize()[..]
                == *digest;
            whole.then(|| {
                body.as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| u32::from_le_bytes(*b))
                    .collect()
            })
        })
    }

    /// Puts numbers away. They can be made again, so it is no error if no folder can be written.
    pub(crate) fn remember(&self, kind: &str, key: &str, numbers: &[u32]) {
        let body: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        let digest = Sha256::new()
            .chain_update(key)
            .chain_update(&body)
            .finalize();
        let write = |place: &PathBuf| -> io::Result<()> {
            let mut file = temporary(place)?;
            file.write_all(&digest)?;
            file.write_all(&body)?;
            persist(file, place).map(drop)
        };
        let _ = self
            .places(kind, key)
            .iter()
            .find(|place| write(place).is_ok());
    }
}

/// A new file beside a place, to be renamed. Makes the folder.
fn temporary(place: &Path) -> io::Result<NamedTempFile> {
    let folder = place.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(PREFIX).suffix(".part");
    // Others who may read the data may read the cache too, as far as the user's mask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Everything but the files that decides which chains there are.
fn key(settings: &Settings) -> String {
    format!(
        "reader {READER} {}",
        serde_json::to_string(&settings.selection).unwrap_or_default()
    )
}

fn unwritable(place: &Path, error: &io::Error) -> PluginError {
    PluginError::BadRequest(format!(
        "[dataset] cache: {} cannot be written ({error}); name another folder, or cache = \"none\" to keep the chains in memory",
        place.display()
    ))
}

fn build(
    file: NamedTempFile,
    place: &Path,
    key: String,
    inputs: &Inputs,
    settings: &Settings,
) -> PluginResult<OpenChains> {
    let write = || -> io::Result<(Index, NamedTempFile)> {
        let began_ns = now_ns();
        let mut output = BufWriter::with_capacity(1 << 20, file);
        output.write_all(&[0; HEADER as usize])?;
        let mut builder = IndexBuilder::new(output);
        let stamps = read::read_all(&inputs.files, &settings.selection, &mut builder)?;
        let (index, output, length) = builder.finish();
        let document = Document {
            key,
            began_ns,
            stamps,
            index,
        };
        let file = finish(
            output
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?,
            length,
            &document,
        )?;
        Ok((document.index, file))
    };
    let (index, file) = write().map_err(|e| unwritable(place, &e))?;
    let file = persist(file, place).map_err(|e| unwritable(place, &e))?;
    Ok(OpenChains {
        index,
        store: Store::File {
            file,
            start: HEADER,
        },
    })
}

/// Writes index and header behind and before the coordinates.
fn finish(mut file: NamedTempFile, length: u64, document: &Document) -> io::Result<NamedTempFile> {
    let text = serde_json::to_vec(document)?;
    file.seek(SeekFrom::Start(HEADER + length))?;
    file.write_all(&text)?;
    file.seek(SeekFrom::Start(0))?;
    let header = [
        &MAGIC[..],
        &length.to_le_bytes(),
        &(text.len() as u64).to_le_bytes(),
        &Sha256::digest(&text),
    ]
    .concat();
    file.write_all(&header)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Puts the file in its place.
fn persist(file: NamedTempFile, place: &Path) -> io::Result<File> {
    file.persist(place).map_err(|e| e.error)
}

fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// The cache at a place, if it is there, whole and up to date.
fn load(place: &Path, key: &str, inputs: &Inputs) -> Option<OpenChains> {
    let mut file = File::open(place).ok()?;
    let (length, mut document) = read_document(&mut file)?;
    if document.key != key {
        return None;
    }
    let fresh = freshness(&document, &inputs.files);
    if fresh == Freshness::Stale || !is_whole(place, length, &document.index.records) {
        return None;
    }
    if let Freshness::SameContent(stamps) = fresh {
        document.stamps = stamps;
        document.began_ns = now_ns();
        // Without the new times every file would be hashed again the next time; the cache is good even if they cannot be written.
        let _ = rewrite(&mut file, place, length, &document);
    }
    Some(OpenChains {
        index: document.index,
        store: Store::File {
            file,
            start: HEADER,
        },
    })
}

fn read_document(file: &mut File) -> Option<(u64, Document)> {
    let mut header = [0; HEADER as usize];
    file.read_exact(&mut header).ok()?;
    let (magic, rest) = header.split_at(8);
    let number = |at: usize| {
        rest.get(at..at + 8)?
            .try_into()
            .ok()
            .map(u64::from_le_bytes)
    };
    let (length, index_length) = (number(0)?, number(8)?);
    let whole = HEADER.checked_add(length)?.checked_add(index_length)?;
    if magic != MAGIC || file.metadata().ok()?.len() != whole {
        return None;
    }
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(HEADER + length)).ok()?;
    file.take(index_length).read_to_end(&mut text).ok()?;
    if Sha256::digest(&text)[..] != rest[16..] {
        return None;
    }
    Some((length, serde_json::from_slice(&text).ok()?))
}

#[derive(Debug, PartialEq, Eq)]
enum Freshness {
    Fresh,
    /// The times changed, the bytes did not; with the new stamps.
    SameContent(Vec<Stamp>),
    Stale,
}

/// Compares the inputs with those that were read.
fn freshness(document: &Document, files: &[Input]) -> Freshness {
    if document.stamps.len() != files.len()
        || document
            .stamps
            .iter()
            .zip(files)
            .any(|(s, f)| s.name != f.name)
    {
        return Freshness::Stale;
    }
    let progress = Progress::new(
        "bytes of structure files compared with the index",
        read::bytes_of(files),
    );
    let compare = |(stamp, file): (&Stamp, &Input)| {
        let (bytes, modified_ns) = read::quick_stamp(&file.path);
        let told_by_time = stamp.modified_ns.saturating_add(TOO_CLOSE_NS) < document.began_ns;
        if bytes != stamp.bytes {
            return None;
        }
        if modified_ns == stamp.modified_ns && told_by_time {
            progress.add(bytes);
            return Some(stamp.clone());
        }
        if read::sha256(&file.path, &progress) == stamp.sha256 {
            return Some(Stamp {
                modified_ns,
                ..stamp.clone()
            });
        }
        None
    };
    let stamps: Option<Vec<Stamp>> = document.stamps.par_iter().zip(files).map(compare).collect();
    match stamps {
        None => Freshness::Stale,
        Some(stamps) if stamps == document.stamps => Freshness::Fresh,
        Some(stamps) => Freshness::SameContent(stamps),
    }
}

/// Whether all coordinates have their checksums.
fn is_whole(place: &Path, length: u64, records: &[ChainRecord]) -> bool {
    let fits = |pair: &[ChainRecord]| pair[0].offset < pair[1].offset;
    if !records.windows(2).all(fits) || records.last().is_some_and(|r| r.offset >= length) {
        return false;
    }
    let ends: Vec<u64> = records
        .iter()
        .skip(1)
        .map(|r| r.offset)
        .chain([length])
        .collect();
    records
        .par_chunks(RECORDS_AT_ONCE)
        .zip(ends.par_chunks(RECORDS_AT_ONCE))
        .all(|(records, ends)| {
            let compare = || -> io::Result<bool> {
                let mut reader = BufReader::with_capacity(1 << 20, File::open(place)?);
                reader.seek(SeekFrom::Start(
                    HEADER + records.first().map_or(0, |r| r.offset),
                ))?;
                let mut bytes = Vec::new();
                for (record, end) in records.iter().zip(ends) {
                    bytes.clear();
                    (&mut reader)
                        .take(end - record.offset)
                        .read_to_end(&mut bytes)?;
                    if checksum(&bytes, &record.sequence) != record.checksum {
                        return Ok(false);
                    }
                }
                Ok(true)
            };
            compare().unwrap_or(false)
        })
}

/// Writes the same cache with other stamps.
fn rewrite(file: &mut File, place: &Path, length: u64, document: &Document) -> io::Result<()> {
    let mut copy = temporary(place)?;
    file.seek(SeekFrom::Start(0))?;
    io::copy(&mut file.take(HEADER + length), &mut copy)?;
    *file = persist(finish(copy, length, document)?, place)?;
    Ok(())
}
