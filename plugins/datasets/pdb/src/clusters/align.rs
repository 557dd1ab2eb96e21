//! Local alignment of two sequences with affine gaps (Smith and Waterman, Gotoh), and what it says about their identity.

/// Scores of BLOSUM62 in half bits, rows and columns in the order of [`ORDER`].
const BLOSUM62: [[i8; 20]; 20] = [
    [
        4, -1, -2, -2, 0, -1, -1, 0, -2, -1, -1, -1, -1, -2, -1, 1, 0, -3, -2, 0,
    ],
    [
        -1, 5, 0, -2, -3, 1, 0, -2, 0, -3, -2, 2, -1, -3, -2, -1, -1, -3, -2, -3,
    ],
    [
        -2, 0, 6, 1, -3, 0, 0, 0, 1, -3, -3, 0, -2, -3, -2, 1, 0, -4, -2, -3,
    ],
    [
        -2, -2, 1, 6, -3, 0, 2, -1, -1, -3, -4, -1, -3, -3, -1, 0, -1, -4, -3, -3,
    ],
    [
        0, -3, -3, -3, 9, -3, -4, -3, -3, -1, -1, -3, -1, -2, -3, -1, -1, -2, -2, -1,
    ],
    [
        -1, 1, 0, 0, -3, 5, 2, -2, 0, -3, -2, 1, 0, -3, -1, 0, -1, -2, -1, -2,
    ],
    [
        -1, 0, 0, 2, -4, 2, 5, -2, 0, -3, -3, 1, -2, -3, -1, 0, -1, -3, -2, -2,
    ],
    [
        0, -2, 0, -1, -3, -2, -2, 6, -2, -4, -4, -2, -3, -3, -2, 0, -2, -2, -3, -3,
    ],
    [
        -2, 0, 1, -1, -3, 0, 0, -2, 8, -3, -3, -1, -2, -1, -2, -1, -2, -2, 2, -3,
    ],
    [
        -1, -3, -3, -3, -1, -3, -3, -4, -3, 4, 2, -3, 1, 0, -3, -2, -1, -3, -1, 3,
    ],
    [
        -1, -2, -3, -4, -1, -2, -3, -4, -3, 2, 4, -2, 2, 0, -3, -2, -1, -2, -1, 1,
    ],
    [
        -1, 2, 0, -1, -3, 1, 1, -2, -1, -3, -2, 5, -1, -3, -1, 0, -1, -3, -2, -2,
    ],
    [
        -1, -1, -2, -3, -1, 0, -2, -3, -2, 1, 2, -1, 5, 0, -2, -1, -1, -1, -1, 1,
    ],
    [
        -2, -3, -3, -3, -2, -3, -3, -3, -1, 0, 0, -3, 0, 6, -4, -2, -2, 1, 3, -1,
    ],
    [
        -1, -2, -2, -1, -3, -1, -1, -2, -2, -3, -3, -1, -2, -4, 7, -1, -1, -4, -3, -2,
    ],
    [
        1, -1, 1, 0, -1, 0, 0, 0, -1, -2, -2, 0, -1, -2, -1, 4, 1, -3, -2, -2,
    ],
    [
        0, -1, 0, -1, -1, -1, -1, -2, -2, -1, -1, -1, -1, -2, -1, 1, 5, -2, -2, 0,
    ],
    [
        -3, -3, -4, -4, -2, -2, -3, -2, -2, -3, -2, -3, -1, 1, -4, -3, -2, 11, 2, -3,
    ],
    [
        -2, -2, -2, -3, -2, -1, -2, -3, 2, -1, -1, -2, -1, 3, -3, -2, -2, 2, 7, -1,
    ],
    [
        0, -3, -3, -3, -1, -2, -2, -3, -3, 3, 1, -2, 1, -1, -2, -2, 0, -3, -1, 4,
    ],
];
/// Letters of the table.
const ORDER: &[u8; 20] = b"ARNDCQEGHILKMFPSTWYV";
/// Code of everything else.
pub(crate) const UNKNOWN: u8 = 20;
/// Score of a pair with an unknown residue, as in the table's own X row, rounded.
const UNKNOWN_SCORE: i32 = -1;
/// A gap of n residues costs `GAP_OPEN + (n - 1) GAP_EXTEND`; the usual pair for BLOSUM62.
const GAP_OPEN: i32 = 11;
const GAP_EXTEND: i32 = 1;

/// Letters as places in the table.
pub(crate) fn encode(sequence: &str) -> Vec<u8> {
    sequence
        .bytes()
        .map(|c| {
            ORDER
                .iter()
                .position(|o| *o == c)
                .map_or(UNKNOWN, |i| i as u8)
        })
        .collect()
}

/// What the best local alignment of two sequences says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alignment {
    /// Columns with the same residue twice.
    pub(crate) identical: usize,
    /// Columns, those with gaps included.
    pub(crate) columns: usize,
    /// Residues of the first and of the second sequence between its ends.
    pub(crate) spans: (usize, usize),
    pub(crate) score: i32,
}

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(crate) struct Aligner {
    /// For each column: the best score that ends here, and the best that ends with a gap in the first sequence.
    best: Vec<i32>,
    gap: Vec<i32>,
    /// Where each cell came from: see the bits below.
    from: Vec<u8>,
}

/// Bits of a cell of `from`: the state that the best score came from,
const STOP: u8 = 0;
const DIAGONAL: u8 = 1;
const UP: u8 = 2;
const LEFT: u8 = 3;
/// and whether the gap that ends here goes on further back.
const UP_GOES_ON: u8 = 4;
const LEFT_GOES_ON: u8 = 8;

impl Aligner {
    /// Aligns two encoded sequences. Of equal scores the one that ends first counts.
    pub(crate) fn align(&mut self, a: &[u8], b: &[u8]) -> Alignment {
        let width = b.len();
        self.best.clear();
        self.best.resize(width + 1, 0);
        self.gap.clear();
        self.gap.resize(width + 1, i32::MIN / 2);
        self.from.clear();
        self.from.resize(a.len() * width, STOP);
        let (mut score, mut end) = (0, (0, 0));
        for (i, &x) in a.iter().enumerate() {
            let top = self.row(x, b, i * width);
            if top.0 > score {
                (score, end) = (top.0, (i, top.1));
            }
        }
        if score == 0 {
            Alignment::default()
        } else {
            self.trace(a, b, end, score)
        }
    }

    /// Fills one row; the best score in it and its column.
    fn row(&mut self, x: u8, b: &[u8], start: usize) -> (i32, usize) {
        let scores = BLOSUM62.get(usize::from(x));
        let (mut diagonal, mut left) = (0, i32::MIN / 2);
        let mut top = (0, 0);
        let cells = self.best[1..]
            .iter_mut()
            .zip(&mut self.gap[1..])
            .zip(&mut self.from[start..start + b.len()]);
        let mut previous = 0;
        for (j, (((best, gap), from), &y)) in cells.zip(b).enumerate() {
            let pair = scores
                .and_then(|row| row.get(usize::from(y)))
                .map_or(UNKNOWN_SCORE, |s| i32::from(*s));
            let (open, extend) = (*best - GAP_OPEN, *gap - GAP_EXTEND);
            let mut bits = if extend > open { UP_GOES_ON } else { 0 };
            *gap = open.max(extend);
            let (open, extend) = (previous - GAP_OPEN, left - GAP_EXTEND);
            bits |= if extend > open { LEFT_GOES_ON } else { 0 };
            left = open.max(extend);
            let (mut value, mut state) = (diagonal + pair, DIAGONAL);
            if *gap > value {
                (value, state) = (*gap, UP);
            }
            if left > value {
                (value, state) = (left, LEFT);
            }
            if value <= 0 {
                (value, state) = (0, STOP);
            }
            *from = bits | state;
            diagonal = std::mem::replace(best, value);
            previous = value;
            if value > top.0 {
                top = (value, j);
            }
        }
        top
    }

    /// Walks back from the last cell.
    fn trace(&self, a: &[u8], b: &[u8], end: (usize, usize), score: i32) -> Alignment {
        let (mut i, mut j) = (end.0 + 1, end.1 + 1);
        let (mut identical, mut columns) = (0, 0);
        let mut state = None;
        while i > 0 && j > 0 {
            let bits = self.from[(i - 1) * b.len() + j - 1];
            match state.take().unwrap_or(bits & 3) {
                STOP => break,
                DIAGONAL => {
                    identical += usize::from(a[i - 1] == b[j - 1] && a[i - 1] != UNKNOWN);
                    (i, j) = (i - 1, j - 1);
                }
                UP => {
                    state = (bits & UP_GOES_ON != 0).then_some(UP);
                    i -= 1;
                }
                _ => {
                    state = (bits & LEFT_GOES_ON != 0).then_some(LEFT);
                    j -= 1;
                }
            }
            columns += 1;
        }
        Alignment {
            identical,
            columns,
            spans: (end.0 + 1 - i, end.1 + 1 - j),
            score,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn align(a: &str, b: &str) -> Alignment {
        Aligner::default().align(&encode(a), &encode(b))
    }

    #[test]
    fn the_table_is_symmetric_and_its_diagonal_is_largest() {
        for (i, row) in BLOSUM62.iter().enumerate() {
            assert!((0..20).all(|j| row[j] == BLOSUM62[j][i] && (i == j || row[j] < row[i])));
        }
    }

    #[test]
    fn equal_sequences_are_identical_and_foreign_ones_align_nowhere() {
        let same = align("MKVLAWCH", "MKVLAWCH");
        // 5 + 5 + 4 + 4 + 4 + 11 + 9 + 8.
        assert_eq!(
            same,
            Alignment {
                identical: 8,
                columns: 8,
                spans: (8, 8),
                score: 50
            }
        );
        assert_eq!(align("WWWW", "GGGG"), Alignment::default());
        assert_eq!(align("", "AAAA"), Alignment::default());
        assert_eq!(align("XXXX", "XXXX"), Alignment::default());
    }

    #[test]
    fn a_gap_is_a_column_and_no_identity() {
        // 23 pairs of the same residues score 120, the gap of two costs 12.
        let (a, b) = ("MKVLAWCHMKVLAWCHMKVLAWCH", "MKVLAWCHMKVAWCHMKVLAWCH");
        let found = align(a, b);
        assert_eq!(
            (found.identical, found.columns, found.spans),
            (23, 24, (24, 23))
        );
        assert_eq!(align(b, a).spans, (23, 24));
        let longer = align(a, &format!("{}PPP{}", &a[..12], &a[12..]));
        assert_eq!(
            (longer.identical, longer.columns, longer.spans),
            (24, 27, (24, 27))
        );
        assert_eq!(longer.score, 150 - (GAP_OPEN + 2 * GAP_EXTEND));
    }

    /// The recurrence as it is defined: the best of all alignments that end in a cell, gaps of every length tried one by one.
    fn slow_score(a: &[u8], b: &[u8]) -> i32 {
        let mut best = vec![vec![0; b.len() + 1]; a.len() + 1];
        let gap = |n: usize| GAP_OPEN + (n as i32 - 1) * GAP_EXTEND;
        let mut top = 0;
        for i in 1..=a.len() {
            for j in 1..=b.len() {
                let pair = i32::from(BLOSUM62[usize::from(a[i - 1])][usize::from(b[j - 1])]);
                let up = (1..=i).map(|n| best[i - n][j] - gap(n)).max().unwrap();
                let left = (1..=j).map(|n| best[i][j - n] - gap(n)).max().unwrap();
                best[i][j] = 0.max(best[i - 1][j - 1] + pair).max(up).max(left);
                top = top.max(best[i][j]);
            }
        }
        top
    }

    #[test]
    fn scores_equal_those_of_the_direct_recurrence() {
        let mut state = 1_u64;
        let mut letter = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % 20
        };
        let mut aligner = Aligner::default();
        for length in 1..40 {
            let a: Vec<u8> = (0..length).map(|_| letter() as u8).collect();
            // A relative: every fourth residue changed, a piece missing.
            let mut b: Vec<u8> = a
                .iter()
                .enumerate()
                .map(|(i, &c)| if i % 4 == 0 { letter() as u8 } else { c })
                .collect();
            b.drain(length / 3..length / 2);
            let found = aligner.align(&a, &b);
            assert_eq!(found.score, slow_score(&a, &b));
            assert!(
                found.identical <= found.columns
                    && found.columns >= found.spans.0.max(found.spans.1)
            );
        }
    }
}
