//! Where things lie: tokens of ragged chains one after the other, and the pairs of tokens of each chain.
//!
//! Nothing is padded. A chain of `n` residues owns `registers + n` consecutive rows of the tokens, the registers first, and the square
//! of that of the pairs, row by row. Consecutive chains of one length form a run, which is computed as one array.

use equivbench_kernels::{KernelError, RowChoice, RowIndex};
use std::ops::Range;

/// What the rows of a [note](equivbench_plugin::Note) stand for, chain after chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteRows {
    /// Chains.
    Chains,
    /// Residues.
    Residues,
    /// Registers and residues of every chain.
    Tokens,
    /// Pairs of residues of every chain.
    ResiduePairs,
    /// Pairs of tokens of every chain, registers included.
    TokenPairs,
}

/// Where a pass puts its notes.
pub(crate) type Notes = equivbench_plugin::Notes<NoteRows>;

/// Consecutive chains of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ChainRun {
    /// Number of chains.
    pub(crate) chains: usize,
    /// Tokens of each chain, registers included.
    pub(crate) tokens: usize,
    /// First row of the tokens.
    pub(crate) first_token: usize,
    /// First row of the pairs.
    pub(crate) first_pair: usize,
}

impl ChainRun {
    /// Rows of the tokens.
    pub(crate) fn token_rows(&self) -> Range<usize> {
        self.first_token..self.first_token + self.chains * self.tokens
    }

    /// Rows of the pairs.
    pub(crate) fn pair_rows(&self) -> Range<usize> {
        self.first_pair..self.first_pair + self.chains * self.tokens * self.tokens
    }
}

/// The rows of all chains of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    registers: usize,
    lengths: Vec<usize>,
    pub(crate) runs: Vec<ChainRun>,
}

impl Layout {
    /// From the offsets of the residues of each chain.
    pub(crate) fn new(offsets: &[usize], registers: usize) -> Self {
        let lengths: Vec<usize> = offsets.windows(2).map(|w| w[1] - w[0]).collect();
        let mut runs: Vec<ChainRun> = Vec::new();
        for tokens in lengths.iter().map(|n| registers + n) {
            match runs.last_mut() {
                Some(run) if run.tokens == tokens => run.chains += 1,
                last => {
                    let (first_token, first_pair) =
                        last.map_or((0, 0), |run| (run.token_rows().end, run.pair_rows().end));
                    runs.push(ChainRun {
                        chains: 1,
                        tokens,
                        first_token,
                        first_pair,
                    });
                }
            }
        }
        Self {
            registers,
            lengths,
            runs,
        }
    }

    /// Residues of each chain.
    pub(crate) fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    pub(crate) fn residues(&self) -> usize {
        self.lengths.iter().sum()
    }

    pub(crate) fn tokens(&self) -> usize {
        self.runs.last().map_or(0, |run| run.token_rows().end)
    }

    pub(crate) fn pairs(&self) -> usize {
        self.runs.last().map_or(0, |run| run.pair_rows().end)
    }

    /// For every chain its first token and its number of tokens.
    fn chains(&self) -> impl Iterator<Item = (usize, usize)> {
        self.lengths.iter().scan(0, |next, n| {
            let first = *next;
            *next += self.registers + n;
            Some((first, self.registers + n))
        })
    }

    /// `[tokens]` rows of `cat([registers, residues])`.
    pub(crate) fn sources_of_tokens(&self) -> Result<RowIndex, KernelError> {
        let mut residue = self.registers;
        let mut rows = Vec::with_capacity(self.tokens());
        for n in &self.lengths {
            rows.extend(0..self.registers);
            rows.extend(residue..residue + n);
            residue += n;
        }
        RowIndex::new(self.registers + self.residues(), &rows)
    }

    /// `[residues]` rows of the tokens.
    pub(crate) fn tokens_of_residues(&self) -> Result<RowIndex, KernelError> {
        let rows: Vec<usize> = self
            .chains()
            .flat_map(|(first, tokens)| first + self.registers..first + tokens)
            .collect();
        RowIndex::new(self.tokens(), &rows)
    }

    /// `[tokens]`: 0 for registers, `1 + of_chain[k]` for the residues of chain `k`.
    pub(crate) fn groups_of_tokens(&self, of_chain: &[usize]) -> Vec<usize> {
        let group = |(n, time): (&usize, &usize)| [(0, self.registers), (1 + time, *n)];
        let repeated = |(group, count)| std::iter::repeat_n(group, count);
        self.lengths
            .iter()
            .zip(of_chain)
            .flat_map(group)
            .flat_map(repeated)
            .collect()
    }

    /// `[pairs]` the tokens of rows and those of columns.
    pub(crate) fn ends_of_pairs(&self) -> Result<[RowChoice; 2], KernelError> {
        let pairs = || {
            self.chains().flat_map(|(first, n)| {
                (0..n * n).map(move |pair| (first + pair / n, first + pair % n))
            })
        };
        let rows: Vec<u32> = pairs().map(|(row, _)| row as u32).collect();
        let columns: Vec<u32> = pairs().map(|(_, column)| column as u32).collect();
        Ok([
            RowChoice::new(self.tokens(), rows)?,
            RowChoice::new(self.tokens(), columns)?,
        ])
    }

    /// Rows of the pairs whose both ends are residues, chain by chain, row by row.
    pub(crate) fn pairs_of_residues(&self) -> Result<RowIndex, KernelError> {
        let mut first = 0;
        let mut rows = Vec::new();
        for n in &self.lengths {
            let tokens = self.registers + n;
            for row in self.registers..tokens {
                rows.extend((self.registers..tokens).map(|column| first + row * tokens + column));
            }
            first += tokens * tokens;
        }
        RowIndex::new(self.pairs(), &rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_one_length_in_a_row_form_a_run() {
        let layout = Layout::new(&[0, 3, 6, 10, 13], 2);
        let run = |chains, tokens, first_token, first_pair| ChainRun {
            chains,
            tokens,
            first_token,
            first_pair,
        };
        assert_eq!(
            layout.runs,
            [run(2, 5, 0, 0), run(1, 6, 10, 50), run(1, 5, 16, 86)]
        );
        assert_eq!(
            (layout.tokens(), layout.residues(), layout.pairs()),
            (21, 13, 111)
        );
    }

    #[test]
    fn registers_lead_every_chain() {
        let layout = Layout::new(&[0, 1, 3], 2);
        assert_eq!(
            layout.sources_of_tokens().unwrap().index(),
            [0, 1, 2, 0, 1, 3, 4]
        );
        assert_eq!(layout.tokens_of_residues().unwrap().index(), [2, 5, 6]);
        assert_eq!(layout.groups_of_tokens(&[4, 0]), [0, 0, 5, 0, 0, 1, 1]);
    }

    #[test]
    fn pairs_run_over_rows_and_then_columns_of_their_own_chain() {
        let layout = Layout::new(&[0, 1, 3], 1);
        let [rows, columns] = layout.ends_of_pairs().unwrap();
        assert_eq!(rows.index(), [0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]);
        assert_eq!(columns.index(), [0, 1, 0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4]);
        assert_eq!(
            layout.pairs_of_residues().unwrap().index(),
            [3, 8, 9, 11, 12]
        );
    }
}
