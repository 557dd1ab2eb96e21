//! Coordinates and residue numbers of all chains, in memory or in a file, read one chain at a time. Every chain has a checksum.

use equivbench_plugin::{PluginError, PluginResult};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

/// What is known of a chain without its coordinates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainRecord {
    /// `<file stem>_<author chain>`.
    pub(crate) id: String,
    /// One-letter codes `[residues]`.
    pub(crate) sequence: String,
    /// SHA-256 of what [`pack`] makes of the chain, and of its sequence.
    pub(crate) checksum: String,
    /// Where the chain begins in the store.
    pub(crate) offset: u64,
}

impl ChainRecord {
    pub(crate) fn residues(&self) -> usize {
        self.sequence.len()
    }
}

/// Three f64 coordinates and an i32 number for each residue.
const BYTES_PER_RESIDUE: usize = 3 * 8 + 4;

/// Coordinates (Å) and numbers of a chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct StoredTrace {
    pub(crate) positions: Vec<[f64; 3]>,
    pub(crate) numbers: Vec<i32>,
}

/// The bytes of a chain: all coordinates, then all numbers, little-endian.
pub(crate) fn pack(positions: &[[f64; 3]], numbers: &[i32]) -> Vec<u8> {
    let coordinates = positions
        .as_flattened()
        .iter()
        .flat_map(|x| x.to_le_bytes());
    coordinates
        .chain(numbers.iter().flat_map(|n| n.to_le_bytes()))
        .collect()
}

fn unpack(bytes: &[u8], residues: usize) -> StoredTrace {
    let (coordinates, numbers) = bytes.split_at(bytes.len().min(24 * residues));
    let axis = |chunk: &[[u8; 8]]| {
        std::array::from_fn(|k| chunk.get(k).map_or(f64::NAN, |b| f64::from_le_bytes(*b)))
    };
    StoredTrace {
        positions: coordinates
            .as_chunks::<8>()
            .0
            .chunks_exact(3)
            .map(axis)
            .collect(),
        numbers: numbers
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| i32::from_le_bytes(*b))
            .collect(),
    }
}

/// Hexadecimal SHA-256 of a chain.
pub(crate) fn checksum(packed: &[u8], sequence: &str) -> String {
    hex(&Sha256::new()
        .chain_update(packed)
        .chain_update(sequence)
        .finalize())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Store {
    Memory(Vec<u8>),
    /// A cache file; the bytes begin at `start`.
    File {
        file: File,
        start: u64,
    },
}

impl Store {
    /// Reads a chain and compares its checksum.
    ///
    /// # Errors
    /// The cache file cannot be read or was changed.
    pub(crate) fn read(&mut self, record: &ChainRecord) -> PluginResult<StoredTrace> {
        let bytes = self
            .bytes(record)
            .map_err(|e| damaged(record, &e.to_string()))?;
        if checksum(&bytes, &record.sequence) != record.checksum {
            return Err(damaged(record, "its checksum differs"));
        }
        Ok(unpack(&bytes, record.residues()))
    }

    fn bytes(&mut self, record: &ChainRecord) -> io::Result<Vec<u8>> {
        let length = BYTES_PER_RESIDUE * record.residues();
        match self {
            Self::Memory(bytes) => {
                let place = usize::try_from(record.offset)
                    .ok()
                    .and_then(|from| bytes.get(from..from.checked_add(length)?));
                place
                    .map(<[u8]>::to_vec)
                    .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            Self::File { file, start } => {
                let mut bytes = vec![0; length];
                file.seek(SeekFrom::Start(*start + record.offset))?;
                file.read_exact(&mut bytes)?;
                Ok(bytes)
            }
        }
    }
}

fn damaged(record: &ChainRecord, what: &str) -> PluginError {
    PluginError::BadData(format!(
        "chain {}: its coordinates cannot be read from the cache ({what}); something changed the cache file while it was open: start again, \
         it is rebuilt then",
        record.id
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_come_back_bit_for_bit_and_damage_is_seen() {
        let trace = StoredTrace {
            positions: vec![[0.1, -2.0, 1e-3], [12.345, 0.0, -0.0]],
            numbers: vec![-5, i32::MAX],
        };
        let packed = pack(&trace.positions, &trace.numbers);
        let record = ChainRecord {
            id: "x_A".into(),
            sequence: "AG".into(),
            checksum: checksum(&packed, "AG"),
            offset: 3,
        };
        let bytes = [&[1, 2, 3][..], &packed].concat();
        assert_eq!(Store::Memory(bytes.clone()).read(&record).unwrap(), trace);
        for at in 3..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(
                Store::Memory(wrong)
                    .read(&record)
                    .unwrap_err()
                    .to_string()
                    .contains("chain x_A")
            );
        }
        assert!(Store::Memory(bytes[..20].to_vec()).read(&record).is_err());
    }
}
