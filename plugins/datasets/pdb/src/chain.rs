//! One protein chain as the plugin knows it: the C-alpha atoms of its residues, their author numbers, its sequence.

/// Two C-alphas that follow each other and lie further apart than this, in ångström, are not bonded: a residue is missing between them.
pub const BREAK_ABOVE: f64 = 4.0;

/// The C-alpha trace of one chain. All lists have one entry for each residue that has a C-alpha, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chain {
    /// Name in messages and in cluster files: `<file stem>_<author chain>`.
    pub id: String,
    /// One-letter codes, `X` where the residue is not one of the 20.
    pub sequence: String,
    /// C-alpha coordinates `[residues, 3]` in ångström, as in the file.
    pub positions: Vec<[f64; 3]>,
    /// Author residue numbers; residues that differ in the insertion code only share one.
    pub residue_numbers: Vec<i64>,
}

impl Chain {
    /// Distances `[residues - 1]` in ångström from each C-alpha to the next.
    pub fn steps(&self) -> impl Iterator<Item = f64> + '_ {
        steps(&self.positions)
    }

    /// For each residue whether the chain breaks after it: 1 if the next C-alpha is further away than [`BREAK_ABOVE`]; 0 for the last.
    #[must_use]
    pub fn breaks(&self) -> Vec<i64> {
        breaks(&self.positions)
    }
}

/// See [`Chain::steps`].
pub(crate) fn steps(positions: &[[f64; 3]]) -> impl Iterator<Item = f64> + '_ {
    positions.windows(2).map(|pair| {
        (0..3)
            .map(|k| (pair[1][k] - pair[0][k]).powi(2))
            .sum::<f64>()
            .sqrt()
    })
}

/// See [`Chain::breaks`].
pub(crate) fn breaks(positions: &[[f64; 3]]) -> Vec<i64> {
    let mut breaks: Vec<i64> = steps(positions)
        .map(|d| i64::from(d > BREAK_ABOVE))
        .collect();
    breaks.resize(positions.len(), 0);
    breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_breaks_where_the_next_residue_is_more_than_four_angstrom_away() {
        let at = |x| [x, 0.0, 0.0];
        let chain = Chain {
            positions: vec![at(0.0), at(3.8), at(7.8), at(11.9)],
            ..Chain::default()
        };
        assert_eq!(chain.breaks(), [0, 0, 1, 0]);
        assert_eq!(Chain::default().breaks(), [] as [i64; 0]);
        assert_eq!(
            Chain {
                positions: vec![at(1.0)],
                ..Chain::default()
            }
            .breaks(),
            [0]
        );
    }
}
