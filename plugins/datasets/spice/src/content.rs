//! The content hash: SHA-256 over everything that can change a number.

use crate::{catalogue::bad_data, options::Options, source::SMALL_FILE_BYTES, source::file_name};
use equivbench_plugin::PluginResult;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Raise it when the readers give other numbers for the same bytes.
const READER_VERSION: &str = "equivbench-spice reader 1\0";
const BLOCK: usize = 1 << 16;
/// Blocks that are read from a large file, spread evenly, the first and the last included.
const SAMPLED_BLOCKS: u64 = 256;

/// Hash of files and options. Up to 256 MB a file counts with all its bytes; a larger one with its size and 256 blocks of 64 kB spread
/// evenly over it, and [`ContentHash::index`] adds what its index pass found. Names, folders and dates do not count.
pub(crate) struct ContentHash(Sha256);

impl ContentHash {
    pub(crate) fn new(options: &Options) -> Self {
        // The path is where the data lie, not what they are.
        let options = serde_json::to_vec(&Options { path: None, ..options.clone() }).unwrap_or_default();
        Self(Sha256::new().chain_update(READER_VERSION).chain_update((options.len() as u64).to_le_bytes()).chain_update(options))
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    pub(crate) fn file(&mut self, path: &Path) -> PluginResult<()> {
        let result = self.read_file(path);
        result.map_err(|e| bad_data(&file_name(path), "", format!("it cannot be read ({e})"), "check the disk and the permissions"))
    }

    fn read_file(&mut self, path: &Path) -> std::io::Result<()> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        self.0.update(size.to_le_bytes());
        let mut block = vec![0; BLOCK];
        if size <= SMALL_FILE_BYTES {
            loop {
                match file.read(&mut block)? {
                    0 => return Ok(()),
                    n => self.0.update(&block[..n]),
                }
            }
        }
        for i in 0..SAMPLED_BLOCKS {
            let last = size - BLOCK as u64;
            file.seek(SeekFrom::Start((last as u128 * u128::from(i) / u128::from(SAMPLED_BLOCKS - 1)) as u64))?;
            file.read_exact(&mut block)?;
            self.0.update(&block);
        }
        Ok(())
    }

    /// What the index pass found: molecules and sizes of all conformations.
    pub(crate) fn index(&mut self, catalogue: &crate::catalogue::Catalogue) {
        for molecule in &catalogue.molecules {
            self.bytes(molecule.as_bytes());
        }
        for frame in &catalogue.frames {
            self.0.update(frame.source.to_le_bytes());
            self.0.update(frame.molecule.to_le_bytes());
            self.0.update(frame.atoms.to_le_bytes());
            self.0.update(frame.place.to_le_bytes());
        }
    }

    pub(crate) fn finish(self) -> String {
        self.0.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }
}
