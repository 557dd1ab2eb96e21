//! The sample that the plugin carries: conformers of drug-like molecules made by RDKit and MMFF94s (see `data/README.md`).
//!
//! Layout: gzip of magic, length of the header (u32, little-endian), header (JSON), coordinates. Coordinates are integers of 1e-4 Å, each
//! minus that of the atom before it in its conformer, as zigzag numbers (0, -1, 1, -2, ...) in planes: all first bytes, all second
//! bytes, all third bytes.

use crate::{
    Options,
    conformer::{Conformer, Sink},
    filter::has_coincident,
    options::Settings,
    sdf,
};
use equivbench_dataset_tools::{file_name, input};
use equivbench_plugin::{PluginError, PluginResult};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use std::{
    io::{self, Read, Write},
    path::Path,
};

/// The sample as it lies in the repository.
pub(crate) const BYTES: &[u8] = include_bytes!("../data/geom-mini.bin.gz");
/// Its name in every table.
pub(crate) const NAME: &str = "geom-mini (MMFF94s)";
/// File name for messages.
pub(crate) const FILE: &str = "geom-mini.bin.gz (embedded)";
/// Terms under which it may be given away.
pub(crate) const LICENCE: &str = "CC0-1.0";
const MAGIC: &[u8; 8] = b"EQBGEOM1";
/// Steps in an ångström.
const STEPS: f64 = 1e4;
const PLANES: usize = 3;

#[derive(Serialize, Deserialize)]
struct Header {
    level_of_theory: String,
    molecules: Vec<Molecule>,
}

/// Conformers of one molecule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Molecule {
    /// SMILES without hydrogens.
    pub smiles: String,
    /// Atomic numbers `[atoms]`.
    pub numbers: Vec<u8>,
    /// How many conformers there are.
    pub conformers: usize,
}

/// How the geometries were made.
///
/// # Errors
/// When the file was damaged before the plugin was built.
pub(crate) fn level() -> PluginResult<String> {
    Ok(parse(BYTES)?.0.level_of_theory)
}

/// Reads the sample.
///
/// # Errors
/// When the file was damaged before the plugin was built.
pub(crate) fn read(sink: &mut Sink<'_>) -> PluginResult<()> {
    let (header, coordinates) = parse(BYTES)?;
    let mut positions = coordinates.as_chunks::<3>().0.iter();
    for molecule in &header.molecules {
        for _ in 0..molecule.conformers {
            let mut at = [0_i64; 3];
            let positions = positions.by_ref().take(molecule.numbers.len()).map(|step| {
                at = std::array::from_fn(|k| at[k] + step[k]);
                at.map(|x| x as f64 / STEPS)
            });
            sink(Conformer {
                molecule: molecule.smiles.clone(),
                numbers: molecule.numbers.clone(),
                positions: positions.collect(),
                bonds: Vec::new(),
            })?;
        }
    }
    Ok(())
}

/// The header, and the steps of all coordinates.
fn parse(bytes: &[u8]) -> PluginResult<(Header, Vec<i64>)> {
    let mut body = Vec::new();
    GzDecoder::new(bytes)
        .read_to_end(&mut body)
        .map_err(|e| damaged(&e.to_string()))?;
    let text = body
        .strip_prefix(MAGIC)
        .ok_or_else(|| damaged("its magic is missing"))?;
    let (length, rest) = text
        .split_first_chunk::<4>()
        .ok_or_else(|| damaged("its header is cut off"))?;
    let (header, rest) = rest
        .split_at_checked(u32::from_le_bytes(*length) as usize)
        .ok_or_else(|| damaged("its header is cut off"))?;
    let header: Header = serde_json::from_slice(header).map_err(|e| damaged(&e.to_string()))?;
    let count: usize = header
        .molecules
        .iter()
        .map(|m| 3 * m.conformers * m.numbers.len())
        .sum();
    if rest.len() != PLANES * count {
        return Err(damaged("its coordinates are cut off"));
    }
    let step = |i: usize| {
        let zigzag = (0..PLANES).fold(0_i64, |z, plane| {
            z | i64::from(rest[plane * count + i]) << (8 * plane)
        });
        (zigzag >> 1) ^ -(zigzag & 1)
    };
    let steps = (0..count).map(step).collect();
    Ok((header, steps))
}

fn damaged(what: &str) -> PluginError {
    PluginError::BadData(format!(
        "{FILE}: {what}; the plugin was built from a damaged checkout; fetch data/geom-mini.bin.gz again and rebuild"
    ))
}

/// What the header of the sample says.
const LEVEL: &str =
    "generated: RDKit ETKDGv3 conformers minimised with MMFF94s, gas phase; not GEOM's GFN2-xTB";
/// Molecules with fewer conformers are passed over.
const FEWEST_CONFORMERS: usize = 3;
/// Of the others every third is taken.
const EVERY: usize = 3;

/// Makes the sample from the SDF file that `data/README.md` names: every third of the molecules that have at least three conformers and
/// no other elements than the default ones, with all their conformers, in the order of the file.
///
/// # Errors
/// The file cannot be read.
pub fn make(path: &Path) -> PluginResult<Vec<u8>> {
    let settings = Settings::new(Options::default())?;
    let failed = |e: io::Error| PluginError::Other(format!("{}: {e}", path.display()));
    let mut all: Vec<(Molecule, Vec<[f64; 3]>)> = Vec::new();
    sdf::read(
        input::open(path).map_err(failed)?,
        &file_name(path),
        &mut |conformer| {
            if settings.refuses(&conformer).is_some() || has_coincident(&conformer.positions) {
                return Ok(());
            }
            match all.last_mut().filter(|(last, _)| {
                last.smiles == conformer.molecule && last.numbers == conformer.numbers
            }) {
                Some((molecule, positions)) => {
                    molecule.conformers += 1;
                    positions.extend(conformer.positions);
                }
                None => all.push((
                    Molecule {
                        smiles: conformer.molecule,
                        numbers: conformer.numbers,
                        conformers: 1,
                    },
                    conformer.positions,
                )),
            }
            Ok(())
        },
    )?;
    let taken = all
        .into_iter()
        .filter(|(molecule, _)| molecule.conformers >= FEWEST_CONFORMERS)
        .step_by(EVERY);
    let (molecules, positions): (Vec<Molecule>, Vec<Vec<[f64; 3]>>) = taken.unzip();
    encode(LEVEL, &molecules, &positions.concat()).map_err(failed)
}

/// Writes a file of this layout. `positions` (Å) are those of all conformers, molecule by molecule.
///
/// # Errors
/// A step between two atoms that has no room; an error of the compressor.
pub fn encode(
    level_of_theory: &str,
    molecules: &[Molecule],
    positions: &[[f64; 3]],
) -> io::Result<Vec<u8>> {
    let mut zigzags = Vec::with_capacity(3 * positions.len());
    let mut rows = positions.iter();
    for molecule in molecules {
        for _ in 0..molecule.conformers {
            let mut at = [0_i64; 3];
            for x in rows.by_ref().take(molecule.numbers.len()) {
                let next = x.map(|x| (x * STEPS).round() as i64);
                zigzags.extend(
                    (0..3)
                        .map(|k| next[k] - at[k])
                        .map(|step| (step << 1) ^ (step >> 63)),
                );
                at = next;
            }
        }
    }
    if let Some(far) = zigzags.iter().find(|&&z| z >> (8 * PLANES) != 0) {
        return Err(io::Error::other(format!(
            "a step of {far} is too large for three bytes"
        )));
    }
    let header = serde_json::to_vec(&Header {
        level_of_theory: level_of_theory.into(),
        molecules: molecules.to_vec(),
    })?;
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(MAGIC)?;
    encoder.write_all(
        &u32::try_from(header.len())
            .map_err(io::Error::other)?
            .to_le_bytes(),
    )?;
    encoder.write_all(&header)?;
    for plane in 0..PLANES {
        let bytes: Vec<u8> = zigzags.iter().map(|z| (z >> (8 * plane)) as u8).collect();
        encoder.write_all(&bytes)?;
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_sample_is_an_error_at_every_length() {
        for length in (0..BYTES.len()).step_by(BYTES.len() / 40) {
            assert!(parse(&BYTES[..length]).is_err(), "{length}");
        }
        assert!(parse(BYTES).is_ok());
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let molecule = |conformers| Molecule {
            smiles: "[HH]".into(),
            numbers: vec![1, 1],
            conformers,
        };
        let positions = [
            [0.0, -0.000_1, 12.345_6],
            [-1.5, 2.0, -0.5],
            [0.1, 0.2, 0.3],
            [0.1, 0.2, 1.04],
            [1.0, 0.0, 0.0],
            [0.0; 3],
        ];
        let bytes = encode("none", &[molecule(2), molecule(1)], &positions).unwrap();
        let (header, steps) = parse(&bytes).unwrap();
        assert_eq!(header.molecules, [molecule(2), molecule(1)]);
        assert_eq!(steps[..6], [0, -1, 123_456, -15_000, 20_001, -128_456]);
        assert_eq!(
            steps[6..],
            [1000, 2000, 3000, 0, 0, 7400, 10_000, 0, 0, -10_000, 0, 0]
        );
        assert!(encode("none", &[molecule(1)], &[[0.0; 3], [839.0, 0.0, 0.0]]).is_err());
    }
}
