//! Sequences that fit a structure: by secondary structure and by whether a residue looks into the protein.

use crate::{
    blueprint::SecondaryStructure,
    geometry::{Point, add, dot, scale, sub},
    random::RandomStream,
};

/// Letters and relative frequencies: typical preferences of real helices, strands and loops, inside and outside.
type Emission = &'static [(u8, f64)];

const HELIX_INSIDE: Emission = &[
    (b'L', 6.0),
    (b'A', 5.0),
    (b'I', 3.0),
    (b'V', 2.5),
    (b'M', 2.0),
    (b'F', 2.0),
    (b'W', 0.6),
    (b'Y', 1.0),
    (b'C', 0.5),
];
const HELIX_OUTSIDE: Emission = &[
    (b'E', 6.0),
    (b'K', 5.5),
    (b'R', 4.0),
    (b'A', 4.0),
    (b'Q', 3.5),
    (b'D', 2.5),
    (b'S', 2.0),
    (b'N', 1.5),
    (b'T', 1.5),
    (b'H', 1.0),
];
const STRAND_INSIDE: Emission = &[
    (b'V', 6.0),
    (b'I', 5.0),
    (b'L', 4.0),
    (b'F', 3.0),
    (b'A', 2.0),
    (b'Y', 1.5),
    (b'W', 0.8),
    (b'M', 1.0),
    (b'C', 1.2),
];
const STRAND_OUTSIDE: Emission = &[
    (b'T', 5.0),
    (b'K', 3.5),
    (b'R', 3.0),
    (b'E', 3.0),
    (b'S', 3.0),
    (b'Q', 2.0),
    (b'Y', 2.5),
    (b'V', 2.0),
    (b'H', 1.0),
    (b'N', 1.0),
];
const LOOP: Emission = &[
    (b'G', 6.0),
    (b'D', 4.5),
    (b'N', 4.0),
    (b'P', 4.0),
    (b'S', 4.0),
    (b'K', 3.0),
    (b'T', 3.0),
    (b'E', 2.5),
    (b'Q', 1.5),
    (b'R', 1.5),
    (b'A', 1.5),
    (b'H', 1.0),
    (b'L', 1.0),
    (b'Y', 0.8),
    (b'V', 0.8),
];

/// RandomStream one letter for each residue, given the kinds and a trace of the fold.
pub(crate) fn ancestor(
    kinds: &[SecondaryStructure],
    trace: &[Point],
    draws: &mut RandomStream,
) -> Vec<u8> {
    let inside = looks_inside(trace);
    kinds
        .iter()
        .zip(inside)
        .map(|(&kind, inside)| letter(kind, inside, draws))
        .collect()
}

/// Redraws each letter with a probability.
pub(crate) fn mutated(
    sequence: &[u8],
    rate: f64,
    kinds: &[SecondaryStructure],
    trace: &[Point],
    draws: &mut RandomStream,
) -> Vec<u8> {
    let inside = looks_inside(trace);
    let places = sequence.iter().zip(kinds).zip(inside);
    places
        .map(|((&old, &kind), inside)| {
            if draws.chance(rate) {
                letter(kind, inside, draws)
            } else {
                old
            }
        })
        .collect()
}

fn letter(kind: SecondaryStructure, inside: bool, draws: &mut RandomStream) -> u8 {
    let emission = match (kind, inside) {
        (SecondaryStructure::Helix, true) => HELIX_INSIDE,
        (SecondaryStructure::Helix, false) => HELIX_OUTSIDE,
        (SecondaryStructure::Strand, true) => STRAND_INSIDE,
        (SecondaryStructure::Strand, false) => STRAND_OUTSIDE,
        (SecondaryStructure::Loop, _) => LOOP,
    };
    emission[draws.weighted(emission.iter().map(|e| e.1))].0
}

/// Whether the side chain, which points along `2 r_i − r_{i−1} − r_{i+1}`, points to the side of the centroid.
fn looks_inside(trace: &[Point]) -> Vec<bool> {
    let n = trace.len();
    let centroid = scale(
        trace.iter().fold([0.0; 3], |sum, &p| add(sum, p)),
        1.0 / n as f64,
    );
    let side = |i: usize| {
        sub(
            scale(trace[i], 2.0),
            add(trace[i.saturating_sub(1)], trace[(i + 1).min(n - 1)]),
        )
    };
    (0..n)
        .map(|i| dot(side(i), sub(centroid, trace[i])) > 0.0)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_of_zero_keeps_the_sequence_and_one_redraws_it() {
        let kinds = vec![SecondaryStructure::Loop; 200];
        let trace: Vec<Point> = (0..200)
            .map(|i| [3.8 * f64::from(i), f64::from(i % 2), 0.0])
            .collect();
        let mut draws = RandomStream::new(0, 0);
        let old = ancestor(&kinds, &trace, &mut draws);
        assert_eq!(mutated(&old, 0.0, &kinds, &trace, &mut draws), old);
        let new = mutated(&old, 1.0, &kinds, &trace, &mut draws);
        let same = old.iter().zip(&new).filter(|(a, b)| a == b).count();
        assert!(
            same < 60,
            "{same}: letters of a loop agree by chance in 9 % of the places"
        );
    }
}
