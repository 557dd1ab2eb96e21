//! The sample that the plugin carries: 322 generated C-alpha traces of 92 families (see `data/README.md`).

use crate::{
    chain::Chain,
    generator::file::{Header, HeaderChain, MAGIC, STEPS},
};
use equivbench_plugin::{PluginError, PluginResult};
use std::io::Read;

/// The sample as it lies in the repository; `generator/file.rs` describes the layout.
const BYTES: &[u8] = include_bytes!("../data/backbones-mini.bin.gz");
/// Its name in every table.
pub const NAME: &str = "backbones-mini (generated)";
/// File name for messages.
pub const FILE: &str = "backbones-mini.bin.gz (embedded)";
/// Terms under which it may be given away.
pub const LICENCE: &str = "CC0-1.0";
/// Where the structures come from, in place of an experimental method.
pub const LEVEL: &str = "generated, not experimental: Monte Carlo sampling of C-alpha traces with the pseudo-bond angles, pseudo-torsions, \
                         strand pairing and compactness of real chains";

/// The chains of the sample and the family of each.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The chains, in the order of the file.
    pub chains: Vec<Chain>,
    /// For each chain the number of its family: its cluster at 50 % sequence identity.
    pub families: Vec<u32>,
    /// For each chain the name of its fold.
    pub folds: Vec<String>,
}

/// The chains of the sample.
///
/// # Errors
/// When the file was damaged before the plugin was built.
pub fn chains() -> PluginResult<Vec<Chain>> {
    Ok(sample()?.chains)
}

/// The chains with their families and folds.
///
/// # Errors
/// When the file was damaged before the plugin was built.
pub fn sample() -> PluginResult<Sample> {
    parse(BYTES)
}

fn parse(bytes: &[u8]) -> PluginResult<Sample> {
    let mut body = Vec::new();
    flate2::read::GzDecoder::new(bytes)
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
    let residues: usize = header.chains.iter().map(|c| c.sequence.len()).sum();
    if rest.len() != 4 * 3 * residues {
        return Err(damaged("its coordinates are cut off"));
    }
    let mut positions = positions(rest).into_iter();
    let families = header.chains.iter().map(|c| c.family).collect();
    let chains = header
        .chains
        .iter()
        .map(|c| chain_of(c, positions.by_ref()))
        .collect::<PluginResult<_>>()?;
    Ok(Sample {
        chains,
        families,
        folds: header.chains.into_iter().map(|c| c.fold).collect(),
    })
}

/// Coordinates from planes of differences.
fn positions(planes: &[u8]) -> Vec<[f64; 3]> {
    let count = planes.len() / 4;
    let mut last = [0i32; 3];
    let mut positions = Vec::with_capacity(count / 3);
    for residue in 0..count / 3 {
        for (axis, last) in last.iter_mut().enumerate() {
            let step = std::array::from_fn(|plane| planes[plane * count + 3 * residue + axis]);
            *last = last.wrapping_add(i32::from_le_bytes(step));
        }
        positions.push(last.map(|steps| f64::from(steps) / STEPS));
    }
    positions
}

fn chain_of(
    header: &HeaderChain,
    positions: impl Iterator<Item = [f64; 3]>,
) -> PluginResult<Chain> {
    let residues = header.sequence.len();
    let residue_numbers: Vec<i64> = header
        .pieces
        .iter()
        .flat_map(|&(first, count)| (first..).take(count))
        .take(residues + 1)
        .collect();
    if residue_numbers.len() != residues {
        return Err(damaged(&format!(
            "chain {} has {residues} letters, but other residue numbers",
            header.id
        )));
    }
    let (id, sequence) = (header.id.clone(), header.sequence.clone());
    Ok(Chain {
        id,
        sequence,
        positions: positions.take(residues).collect(),
        residue_numbers,
    })
}

fn damaged(what: &str) -> PluginError {
    PluginError::BadData(format!(
        "{FILE}: {what}; the plugin was built from a damaged checkout; fetch data/backbones-mini.bin.gz again and rebuild"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator;

    #[test]
    fn a_damaged_sample_is_an_error_at_every_length() {
        for length in (0..BYTES.len()).step_by(BYTES.len() / 40) {
            assert!(parse(&BYTES[..length]).is_err(), "{length}");
        }
        assert!(parse(BYTES).is_ok());
    }

    /// The generator makes each chain from the seed and the chain's number alone; these were taken from all over the sample.
    #[test]
    fn the_generator_makes_the_chains_of_the_file() {
        let sample = sample().unwrap();
        let plan = generator::plan();
        assert_eq!(
            plan.iter().map(|p| p.0).collect::<Vec<_>>(),
            sample.families
        );
        // The second lacks part of a loop; the others are a first and a last chain of a family.
        for number in [0, 157, plan.len() - 1] {
            let (made, stored) = (
                generator::generate_chain(generator::SEED, number),
                &sample.chains[number],
            );
            assert_eq!(
                (&made.id, &made.sequence, &made.residue_numbers),
                (&stored.id, &stored.sequence, &stored.residue_numbers)
            );
            for (a, b) in made
                .positions
                .as_flattened()
                .iter()
                .zip(stored.positions.as_flattened())
            {
                assert!(
                    (a - b).abs() <= 0.5 / STEPS + 1e-9,
                    "chain {number}: half a step of the file, and rounding: {a} {b}"
                );
            }
        }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let trace = generator::Trace {
            id: "X_A".into(),
            family: 3,
            fold: "test",
            sequence: "GAV".into(),
            positions: vec![
                [-1.5, 0.25, 100.0],
                [2.3, 0.0, -99.125],
                [2.301, 0.002, 0.0],
            ],
            residue_numbers: vec![-1, 0, 5],
            kinds: vec![generator::Kind::Loop; 3],
        };
        let sample =
            parse(&generator::encode(&[trace.clone(), trace.clone()], 1, LEVEL).unwrap()).unwrap();
        assert_eq!(sample.families, [3, 3]);
        for chain in &sample.chains {
            assert_eq!(
                (&chain.sequence, &chain.residue_numbers),
                (&trace.sequence, &trace.residue_numbers)
            );
            assert_eq!(
                chain.positions, trace.positions,
                "thousandths are exact in the file and nearest in f64"
            );
        }
    }
}
