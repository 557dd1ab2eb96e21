//! The file of the sample: gzip of a magic, a JSON header and coordinates in whole thousandths of an ångström.
//!
//! Layout: `EQBTRACE`, header length (u32, little-endian), header, then the differences of successive coordinates `[residues, 3]` over
//! all chains (the first against the origin, the first of a chain against the last of the one before) as i32, stored as planes: all
//! lowest bytes, then all second bytes, and so on.

use super::Trace;
use serde::{Deserialize, Serialize};
use std::io::Write;

/// First bytes of the unpacked file.
pub(crate) const MAGIC: &[u8; 8] = b"EQBTRACE";
/// Steps of a coordinate for each ångström.
pub(crate) const STEPS: f64 = 1000.0;

/// What the file says about itself and its chains.
#[derive(Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) level: String,
    pub(crate) seed: u64,
    pub(crate) chains: Vec<HeaderChain>,
}

/// One chain of the header.
#[derive(Serialize, Deserialize)]
pub(crate) struct HeaderChain {
    pub(crate) id: String,
    pub(crate) family: u32,
    pub(crate) fold: String,
    pub(crate) sequence: String,
    /// First residue number and number of residues of each unbroken piece.
    pub(crate) pieces: Vec<(i64, usize)>,
}

/// The sample as bytes; the compressed bytes depend on the compressor that the build chose, their content on the traces alone.
///
/// # Errors
/// When the header or the compressor cannot write, which memory alone decides.
pub fn encode(traces: &[Trace], seed: u64, level: &str) -> std::io::Result<Vec<u8>> {
    let header = Header {
        level: level.into(),
        seed,
        chains: traces.iter().map(header_of).collect(),
    };
    let header = serde_json::to_vec(&header)?;
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(MAGIC)?;
    out.write_all(&(header.len() as u32).to_le_bytes())?;
    out.write_all(&header)?;
    let steps = differences(traces);
    for plane in 0..4 {
        let bytes: Vec<u8> = steps.iter().map(|s| s.to_le_bytes()[plane]).collect();
        out.write_all(&bytes)?;
    }
    out.finish()
}

fn header_of(trace: &Trace) -> HeaderChain {
    let mut pieces: Vec<(i64, usize)> = Vec::new();
    for &number in &trace.residue_numbers {
        match pieces.last_mut() {
            Some((first, count)) if *first + *count as i64 == number => *count += 1,
            _ => pieces.push((number, 1)),
        }
    }
    let (id, sequence) = (trace.id.clone(), trace.sequence.clone());
    HeaderChain {
        id,
        family: trace.family,
        fold: trace.fold.into(),
        sequence,
        pieces,
    }
}

fn differences(traces: &[Trace]) -> Vec<i32> {
    let mut last = [0; 3];
    let mut steps = Vec::new();
    for &position in traces.iter().flat_map(|t| &t.positions) {
        for (last, x) in last.iter_mut().zip(position) {
            let now = libm::round(x * STEPS) as i32;
            steps.push(now - *last);
            *last = now;
        }
    }
    steps
}
