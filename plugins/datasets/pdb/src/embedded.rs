//! The sample that the plugin carries: 686 generated C-alpha traces of 196 families (see `data/README.md`).

use crate::chain::Chain;
use equivbench_dataset_tools::sample_file::{self, SampleArray, SampleFile};
use equivbench_plugin::PluginResult;
use serde::{Deserialize, Serialize};

/// The sample as it lies in the repository; `data/README.md` lists its arrays.
const BYTES: &[u8] = include_bytes!("../data/backbones-mini.safetensors");
/// Its name in every table.
pub const NAME: &str = "backbones-mini (generated)";
/// File name for messages.
pub const FILE: &str = "backbones-mini.safetensors (embedded)";
/// Terms under which it may be given away.
pub const LICENCE: &str = "CC0-1.0";
/// Where the structures come from, in place of an experimental method.
pub const LEVEL: &str = "generated, not experimental: Monte Carlo sampling of C-alpha traces with the pseudo-bond angles, pseudo-torsions, \
                         strand pairing and compactness of real chains";
/// `[residues of all chains, 3]`, chain by chain: whole steps.
const POSITIONS: &str = "positions_1e-3_angstrom";
/// Steps in an ångström: positions of the sample are whole steps, which are exact in the file and nearest in f64.
pub const STEPS: f64 = 1000.0;

/// What the sample says about itself.
#[derive(Serialize, Deserialize)]
struct Description {
    level: String,
    seed: u64,
    chains: Vec<ChainDescription>,
}

#[derive(Serialize, Deserialize)]
struct ChainDescription {
    id: String,
    family: u32,
    fold: String,
    sequence: String,
    /// First residue number and number of residues of each unbroken piece.
    pieces: Vec<(i64, usize)>,
}

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
    Sample::decode(BYTES)
}

impl Sample {
    fn decode(bytes: &[u8]) -> PluginResult<Self> {
        let file = SampleFile::open(FILE, bytes)?;
        let about: Description = file.about()?;
        let residues = about.chains.iter().map(|c| c.sequence.len()).sum();
        let steps: Vec<i32> = file.numbers(POSITIONS, &[residues, 3])?;
        let mut positions = steps
            .as_chunks::<3>()
            .0
            .iter()
            .map(|x| x.map(|x| f64::from(x) / STEPS));
        let mut chain = |c: &ChainDescription| {
            Ok(Chain {
                id: c.id.clone(),
                sequence: c.sequence.clone(),
                positions: positions.by_ref().take(c.sequence.len()).collect(),
                residue_numbers: c.residue_numbers().ok_or_else(|| {
                    file.damaged(format!(
                        "chain {} has other residue numbers than letters",
                        c.id
                    ))
                })?,
            })
        };
        Ok(Self {
            chains: about
                .chains
                .iter()
                .map(&mut chain)
                .collect::<PluginResult<_>>()?,
            families: about.chains.iter().map(|c| c.family).collect(),
            folds: about.chains.into_iter().map(|c| c.fold).collect(),
        })
    }

    /// The file of the sample, positions rounded to whole [`STEPS`]; `seed` is what its chains were generated from.
    ///
    /// # Errors
    /// None in a sample whose lists have one length.
    pub fn encode(&self, seed: u64) -> PluginResult<Vec<u8>> {
        let chains = self.chains.iter().zip(&self.families).zip(&self.folds);
        let about = Description {
            level: LEVEL.into(),
            seed,
            chains: chains
                .map(|((chain, &family), fold)| ChainDescription::of(chain, family, fold))
                .collect(),
        };
        let steps: Vec<i32> = self
            .chains
            .iter()
            .flat_map(|c| c.positions.as_flattened())
            .map(|x| (x * STEPS).round() as i32)
            .collect();
        let array = SampleArray::new(POSITIONS, &[steps.len() / 3, 3], &steps);
        sample_file::encode(&about, &[array])
    }
}

impl ChainDescription {
    fn of(chain: &Chain, family: u32, fold: &str) -> Self {
        let mut pieces: Vec<(i64, usize)> = Vec::new();
        for &number in &chain.residue_numbers {
            match pieces.last_mut() {
                Some((first, count)) if *first + *count as i64 == number => *count += 1,
                _ => pieces.push((number, 1)),
            }
        }
        Self {
            id: chain.id.clone(),
            family,
            fold: fold.into(),
            sequence: chain.sequence.clone(),
            pieces,
        }
    }

    /// `None` where there are not as many as letters.
    fn residue_numbers(&self) -> Option<Vec<i64>> {
        let residues = self.sequence.len();
        let numbers: Vec<i64> = self
            .pieces
            .iter()
            .flat_map(|&(first, count)| (first..).take(count))
            .take(residues + 1)
            .collect();
        (numbers.len() == residues).then_some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_sample_is_an_error_at_every_length() {
        for length in (0..BYTES.len()).step_by(BYTES.len() / 40) {
            assert!(Sample::decode(&BYTES[..length]).is_err(), "{length}");
        }
        assert!(Sample::decode(BYTES).is_ok());
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let chain = Chain {
            id: "X_A".into(),
            sequence: "GAV".into(),
            positions: vec![
                [-1.5, 0.25, 100.0],
                [2.3, 0.0, -99.125],
                [2.301, 0.002, 0.0],
            ],
            residue_numbers: vec![-1, 0, 5],
        };
        let sample = Sample {
            chains: vec![chain.clone(), chain],
            families: vec![3, 4],
            folds: vec!["test".into(), "other".into()],
        };
        assert_eq!(Sample::decode(&sample.encode(1).unwrap()).unwrap(), sample);
    }

    #[test]
    fn residue_numbers_that_do_not_fit_the_sequence_are_an_error() {
        let mut sample = Sample::decode(BYTES).unwrap();
        sample.chains[0].residue_numbers.pop();
        let bytes = sample.encode(1).unwrap();
        assert!(Sample::decode(&bytes).is_err());
    }
}
