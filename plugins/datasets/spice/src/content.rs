//! The content hash: SHA-256 over everything that can change a number.

use crate::options::{Options, Settings};
use equivbench_dataset_tools::{bad_data, file_name};
use equivbench_plugin::PluginResult;
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Raise it when the readers give other numbers for the same bytes.
const READER_VERSION: &str = "equivbench-spice reader 1\0";
/// The keys of options that do not count as text.
const NO_LEAST: &str = r#""min_valid_molecules":null,"min_test_molecules":null,"#;
const BLOCK: usize = 1 << 16;
/// Blocks that are read from a large file, spread evenly, the first and the last included.
const SAMPLED_BLOCKS: u64 = 256;

/// Hash of files and options. Up to 256 MB a file counts with all its bytes; a larger one with its size and 256 blocks of 64 kB spread
/// evenly over it, and [`ContentHash::index`] adds what its index pass found. Names, folders and dates do not count.
pub(crate) struct ContentHash {
    hasher: Sha256,
    small_file_bytes: u64,
}

impl ContentHash {
    pub(crate) fn new(settings: &Settings) -> Self {
        // The path is where the data lie, not what they are. Least numbers came later: they count as what they amount to, so that data
        // without them keep their hash.
        let options = serde_json::to_string(&Options {
            path: None,
            min_valid_molecules: None,
            min_test_molecules: None,
            ..settings.options.clone()
        });
        let options = options.unwrap_or_default().replace(NO_LEAST, "");
        let mut hasher = Sha256::new()
            .chain_update(READER_VERSION)
            .chain_update((options.len() as u64).to_le_bytes())
            .chain_update(options);
        let [valid, test] = settings.options.least();
        if [valid, test] != [0, 0] {
            hasher.update(format!("least molecules {valid} {test}\n"));
        }
        Self {
            hasher,
            small_file_bytes: settings.small_file_bytes,
        }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.hasher.update((bytes.len() as u64).to_le_bytes());
        self.hasher.update(bytes);
    }

    pub(crate) fn file(&mut self, path: &Path) -> PluginResult<()> {
        let result = self.read_file(path);
        result.map_err(|e| {
            bad_data(
                &file_name(path),
                "",
                format!("it cannot be read ({e})"),
                "check the disk and the permissions",
            )
        })
    }

    fn read_file(&mut self, path: &Path) -> std::io::Result<()> {
        let mut file = File::open(path)?;
        let size = file.metadata()?.len();
        self.hasher.update(size.to_le_bytes());
        let mut block = vec![0; BLOCK];
        if size <= self.small_file_bytes {
            loop {
                match file.read(&mut block)? {
                    0 => return Ok(()),
                    n => self.hasher.update(&block[..n]),
                }
            }
        }
        block.truncate(BLOCK.min(size as usize));
        let last = size - block.len() as u64;
        for i in 0..SAMPLED_BLOCKS {
            file.seek(SeekFrom::Start(
                (last as u128 * u128::from(i) / u128::from(SAMPLED_BLOCKS - 1)) as u64,
            ))?;
            file.read_exact(&mut block)?;
            self.hasher.update(&block);
        }
        Ok(())
    }

    /// What the index pass found: molecules and sizes of all conformations.
    pub(crate) fn index(&mut self, inventory: &crate::inventory::Inventory) {
        for molecule in &inventory.molecules {
            self.bytes(molecule.as_bytes());
        }
        for frame in &inventory.frames {
            self.hasher.update(frame.source.to_le_bytes());
            self.hasher.update(frame.molecule.to_le_bytes());
            self.hasher.update(frame.atoms.to_le_bytes());
            self.hasher.update(frame.place.to_le_bytes());
        }
    }

    pub(crate) fn finish(self) -> String {
        self.hasher
            .finalize()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(bytes: &[u8], small_file_bytes: u64) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, bytes).unwrap();
        let mut settings = Settings::new(Options::default()).unwrap();
        settings.small_file_bytes = small_file_bytes;
        let mut hash = ContentHash::new(&settings);
        hash.file(&path).unwrap();
        hash.finish()
    }

    #[test]
    fn every_byte_of_a_small_file_counts() {
        let mut bytes = vec![7; 200_000];
        let before = hash(&bytes, u64::MAX);
        for at in [0, 100_000, 199_999] {
            bytes[at] ^= 1;
            assert_ne!(hash(&bytes, u64::MAX), before);
            bytes[at] ^= 1;
        }
        assert_eq!(hash(&bytes, u64::MAX), before);
    }

    #[test]
    fn least_numbers_count_as_what_they_amount_to() {
        let hash = |options| ContentHash::new(&Settings::new(options).unwrap()).finish();
        let files = Options {
            path: Some("files".into()),
            ..Options::default()
        };
        let sample = Options {
            min_valid_molecules: Some(64),
            min_test_molecules: Some(64),
            ..files.clone()
        };
        assert_eq!(hash(sample), hash(Options::default()));
        let none = Options {
            min_valid_molecules: Some(0),
            min_test_molecules: Some(0),
            ..Options::default()
        };
        assert_eq!(hash(none), hash(files.clone()));
        assert_ne!(hash(files), hash(Options::default()));
        let text = serde_json::to_string(&Options::default()).unwrap();
        assert!(text.contains(NO_LEAST));
    }

    #[test]
    fn size_first_and_last_bytes_of_a_large_file_count() {
        let mut bytes = vec![7; 200_000];
        let before = hash(&bytes, 0);
        assert_ne!(hash(&bytes[1..], 0), before);
        for at in [0, 199_999] {
            bytes[at] ^= 1;
            assert_ne!(hash(&bytes, 0), before);
            bytes[at] ^= 1;
        }
        assert_eq!(hash(&bytes[..10], 0).len(), 64);
    }
}
