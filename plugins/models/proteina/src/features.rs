//! Everything that follows from the inputs alone and that no rotation changes: embeddings, classes of pairs, and the rows where things
//! lie.

use crate::{ProteinaConfig, inputs::Inputs, kinds::PairClasses, layout::Layout};
use burn::tensor::Tensor;
use equivbench_kernels::{KernelError, RowChoice, RowIndex};
use std::f64::consts::PI;

/// The fixed inputs of the network, on its device.
#[derive(Clone, Debug)]
pub(crate) struct Features {
    pub(crate) layout: Layout,
    /// `[times, time_width]`, one row for each different flow time.
    pub(crate) time_embedding: Tensor<2>,
    /// `[chains]` rows of it.
    pub(crate) time_of_chain: Vec<usize>,
    /// `[residues, index_width + 4]`; zeros where the coordinates of an estimate would be.
    pub(crate) sequence: Tensor<2>,
    /// `[tokens]` rows of `cat([registers, residues])`.
    pub(crate) tokens: RowIndex,
    /// `[residues]` rows of the tokens.
    pub(crate) residues: RowIndex,
    /// `[tokens]` rows of the conditioning table: 0 for registers, one more than its time for a residue.
    pub(crate) groups: RowChoice,
    /// Of pairs of residues.
    pub(crate) classes: PairClasses,
}

impl Features {
    pub(crate) fn new(inputs: &Inputs, config: &ProteinaConfig) -> Result<Self, KernelError> {
        let layout = Layout::new(&inputs.offsets, config.registers);
        let (times, time_of_chain) = distinct(&inputs.flow_time);
        let embedded: Vec<f64> = times
            .iter()
            .flat_map(|&t| time_embedding(t, config.time_width))
            .collect();
        let groups: Vec<u32> = layout
            .groups_of_tokens(&time_of_chain)
            .into_iter()
            .map(|group| group as u32)
            .collect();
        let (site, residues) = (&inputs.site, layout.residues());
        Ok(Self {
            time_embedding: site.upload(embedded, [times.len(), config.time_width]),
            sequence: site.upload(
                sequence_features(inputs, config),
                [residues, config.sequence_features()],
            ),
            tokens: layout.sources_of_tokens()?,
            residues: layout.tokens_of_residues()?,
            groups: RowChoice::new(1 + times.len(), groups)?,
            classes: PairClasses::new(inputs, config, &time_of_chain),
            time_of_chain,
            layout,
        })
    }

    /// Number of different flow times.
    pub(crate) fn times(&self) -> usize {
        self.time_embedding.dims()[0]
    }
}

/// The different numbers in order of appearance, and the place of each number among them.
fn distinct(values: &[f64]) -> (Vec<f64>, Vec<usize>) {
    let mut found: Vec<f64> = Vec::new();
    let places = values
        .iter()
        .map(|value| {
            found.iter().position(|f| f == value).unwrap_or_else(|| {
                found.push(*value);
                found.len() - 1
            })
        })
        .collect();
    (found, places)
}

/// All sines, then all cosines of `2000 t 2000^(-k / (width/2 - 1))`; an odd width ends in 0.
fn time_embedding(t: f64, width: usize) -> Vec<f64> {
    let half = width / 2;
    let phase = |k: usize| 2000.0 * t * (-(k as f64) * 2000f64.ln() / (half - 1) as f64).exp();
    let mut values: Vec<f64> = (0..half)
        .map(|k| phase(k).sin())
        .chain((0..half).map(|k| phase(k).cos()))
        .collect();
    values.resize(width, 0.0);
    values
}

/// The angles of the first number of a chain: `pi / 2056^(2 k / width)`.
fn index_angles(width: usize) -> Vec<f64> {
    (0..width / 2)
        .map(|k| PI / 2056f64.powf(2.0 * k as f64 / width as f64))
        .collect()
}

/// `[residues, index_width + 4]` without an estimate of the clean cloud: its coordinates are zero.
fn sequence_features(inputs: &Inputs, config: &ProteinaConfig) -> Vec<f64> {
    let mut features = Vec::with_capacity(inputs.residue_index.len() * config.sequence_features());
    let angles = index_angles(config.index_width);
    for chain in inputs.offsets.windows(2) {
        let first = inputs.residue_index[chain[0]];
        for residue in chain[0]..chain[1] {
            let j = inputs.residue_index[residue]
                .saturating_sub(first)
                .saturating_add(1) as f64;
            // All sines, then all cosines, of a number that counts from 1.
            features.extend(angles.iter().map(|angle| (j * angle).sin()));
            features.extend(angles.iter().map(|angle| (j * angle).cos()));
            let chain_break = f64::from(u8::from(inputs.chain_break[residue]));
            let rest = if config.chain_break_first {
                [chain_break, 0.0, 0.0, 0.0]
            } else {
                [0.0, 0.0, 0.0, chain_break]
            };
            features.extend(rest);
        }
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::tests::three_chains;

    #[test]
    fn sequence_features_count_from_the_first_residue_and_keep_the_published_order() {
        let numbers = three_chains();
        let config = ProteinaConfig::new(8, 2, 1).with_index_width(2);
        let first = sequence_features(&numbers, &config);
        let last = sequence_features(&numbers, &config.with_chain_break_first(false));
        // Residue 2 of the first chain is number 5, the third; its chain is broken behind it.
        let (first, last) = (&first[12..18], &last[12..18]);
        assert!(
            (first[0] - (3.0 * PI).sin()).abs() < 1e-15
                && (first[1] - (3.0 * PI).cos()).abs() < 1e-15
        );
        assert_eq!((first[2], last[5]), (1.0, 1.0));
        assert_eq!((&first[3..], &last[2..5]), (&[0.0; 3][..], &[0.0; 3][..]));
    }

    #[test]
    fn an_odd_time_embedding_ends_in_zero_and_the_first_phase_is_two_thousand_times_the_time() {
        let embedded = time_embedding(0.3, 7);
        assert_eq!((embedded.len(), embedded[6]), (7, 0.0));
        assert!(
            (embedded[0] - 600f64.sin()).abs() < 1e-12
                && (embedded[3] - 600f64.cos()).abs() < 1e-12
        );
        assert!((embedded[2] - 0.3f64.sin()).abs() < 1e-12);
    }
}
