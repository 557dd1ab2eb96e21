//! Folds: which helices and strands follow each other, where they lie, how long they are.
//!
//! A fold is a list of elements along y (up or down) at points of the x-z plane: strands of one sheet side by side along x with one z,
//! helices 10 Å away from a sheet or from each other. Connections β-α-β are right-handed, as in real proteins: over the sheet (+z) a
//! strand that goes up is followed by one at larger x, below it by one at smaller x, and the other way round for strands that go down.

use crate::random::RandomStream;
use std::ops::RangeInclusive;

/// What a residue belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecondaryStructure {
    /// α-helix.
    Helix,
    /// β-strand.
    Strand,
    /// Anything else.
    Loop,
}

/// One helix or strand of a fold: place of its middle in the x-z plane (Å), direction along y.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) kind: SecondaryStructure,
    pub(crate) x: f64,
    pub(crate) z: f64,
    pub(crate) up: bool,
}

/// Distance of neighbouring strands in Å.
pub(crate) const STRAND_SPACING: f64 = 4.8;
/// Rise of a twisted strand and of an ideal helix for each residue in Å.
pub(crate) const STRAND_RISE: f64 = 3.3;
const HELIX_RISE: f64 = 1.5;
const UP: bool = true;
const DOWN: bool = false;

/// Strand in a column of the sheet at `z`.
const fn e(column: f64, z: f64, up: bool) -> Part {
    Part {
        kind: SecondaryStructure::Strand,
        x: column * STRAND_SPACING,
        z,
        up,
    }
}

/// Helix at `x`, `z` in Å.
const fn h(x: f64, z: f64, up: bool) -> Part {
    Part {
        kind: SecondaryStructure::Helix,
        x,
        z,
        up,
    }
}

/// A fold with its relative frequency and the residues of its helices and strands.
struct Fold {
    name: &'static str,
    weight: f64,
    /// Whether its mirror image (of the arrangement, not of the helices) is as good: true where no β-α-β unit decides.
    mirrors: bool,
    helix: RangeInclusive<usize>,
    strand: RangeInclusive<usize>,
    parts: &'static [Part],
}

const FOLDS: &[Fold] = &[
    Fold {
        name: "helical hairpin",
        weight: 0.5,
        mirrors: false,
        helix: 15..=20,
        strand: 0..=0,
        parts: &[h(0.0, 0.0, UP), h(9.5, 0.0, DOWN)],
    },
    Fold {
        name: "three-helix bundle",
        weight: 1.5,
        mirrors: true,
        helix: 11..=18,
        strand: 0..=0,
        parts: &[h(0.0, 0.0, UP), h(9.5, 0.0, DOWN), h(4.75, 8.2, UP)],
    },
    Fold {
        name: "four-helix bundle",
        weight: 1.6,
        mirrors: true,
        helix: 11..=20,
        strand: 0..=0,
        parts: &[
            h(0.0, 0.0, UP),
            h(9.5, 0.0, DOWN),
            h(9.5, 9.5, UP),
            h(0.0, 9.5, DOWN),
        ],
    },
    Fold {
        name: "five helices",
        weight: 0.6,
        mirrors: true,
        helix: 9..=14,
        strand: 0..=0,
        parts: &[
            h(0.0, 0.0, UP),
            h(9.5, 0.0, DOWN),
            h(9.5, 9.5, UP),
            h(0.0, 9.5, DOWN),
            h(-8.0, 4.5, UP),
        ],
    },
    Fold {
        name: "three-strand meander with helix",
        weight: 1.0,
        mirrors: true,
        helix: 10..=16,
        strand: 5..=8,
        parts: &[
            e(0.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
            e(2.0, 0.0, UP),
            h(4.8, 10.0, DOWN),
        ],
    },
    Fold {
        name: "four-strand meander",
        weight: 1.0,
        mirrors: true,
        helix: 0..=0,
        strand: 6..=9,
        parts: &[
            e(0.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
            e(2.0, 0.0, UP),
            e(3.0, 0.0, DOWN),
        ],
    },
    Fold {
        name: "five-strand meander",
        weight: 1.0,
        mirrors: true,
        helix: 0..=0,
        strand: 5..=8,
        parts: &[
            e(0.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
            e(2.0, 0.0, UP),
            e(3.0, 0.0, DOWN),
            e(4.0, 0.0, UP),
        ],
    },
    Fold {
        name: "six-strand sandwich",
        weight: 2.0,
        mirrors: true,
        helix: 0..=0,
        strand: 5..=8,
        parts: &[
            e(0.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
            e(2.0, 0.0, UP),
            e(2.0, 10.0, DOWN),
            e(1.0, 10.0, UP),
            e(0.0, 10.0, DOWN),
        ],
    },
    Fold {
        name: "eight-strand sandwich",
        weight: 1.5,
        mirrors: true,
        helix: 0..=0,
        strand: 5..=8,
        parts: &[
            e(0.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
            e(2.0, 0.0, UP),
            e(3.0, 0.0, DOWN),
            e(3.0, 10.0, UP),
            e(2.0, 10.0, DOWN),
            e(1.0, 10.0, UP),
            e(0.0, 10.0, DOWN),
        ],
    },
    Fold {
        name: "Greek key sandwich",
        weight: 1.5,
        mirrors: true,
        helix: 0..=0,
        strand: 5..=8,
        parts: &[
            e(0.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
            e(1.0, 10.0, UP),
            e(0.0, 10.0, DOWN),
            e(2.0, 0.0, UP),
            e(3.0, 0.0, DOWN),
            e(2.0, 10.0, UP),
        ],
    },
    Fold {
        name: "orthogonal barrel half",
        weight: 1.0,
        mirrors: true,
        helix: 0..=0,
        strand: 6..=10,
        parts: &[
            e(0.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
            e(2.0, 0.0, UP),
            e(1.5, 10.0, DOWN),
            e(0.5, 10.0, UP),
        ],
    },
    Fold {
        name: "hairpin and helix",
        weight: 1.0,
        mirrors: true,
        helix: 12..=18,
        strand: 5..=9,
        parts: &[e(0.0, 0.0, UP), e(1.0, 0.0, DOWN), h(2.4, 10.0, UP)],
    },
    Fold {
        name: "parallel three-strand sheet under two helices",
        weight: 1.5,
        mirrors: false,
        helix: 10..=16,
        strand: 5..=8,
        parts: &[
            e(0.0, 0.0, UP),
            h(0.0, 10.0, DOWN),
            e(1.0, 0.0, UP),
            h(9.6, 10.0, DOWN),
            e(2.0, 0.0, UP),
        ],
    },
    Fold {
        name: "parallel three-strand sheet between two helices",
        weight: 1.5,
        mirrors: false,
        helix: 10..=16,
        strand: 5..=8,
        parts: &[
            e(1.0, 0.0, UP),
            h(7.2, 10.0, DOWN),
            e(2.0, 0.0, UP),
            h(4.8, -10.0, DOWN),
            e(0.0, 0.0, UP),
        ],
    },
    Fold {
        name: "parallel four-strand sheet between helices",
        weight: 2.0,
        mirrors: false,
        helix: 10..=15,
        strand: 5..=7,
        parts: &[
            e(1.0, 0.0, UP),
            h(5.0, 10.0, DOWN),
            e(2.0, 0.0, UP),
            h(14.0, 10.0, DOWN),
            e(3.0, 0.0, UP),
            h(7.2, -10.0, DOWN),
            e(0.0, 0.0, UP),
        ],
    },
    Fold {
        name: "split β-α-β",
        weight: 1.0,
        mirrors: false,
        helix: 10..=15,
        strand: 5..=8,
        parts: &[
            e(0.0, 0.0, UP),
            h(4.8, 10.0, DOWN),
            e(2.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
        ],
    },
    Fold {
        name: "two split β-α-β, order 4132",
        weight: 2.0,
        mirrors: false,
        helix: 10..=16,
        strand: 5..=8,
        parts: &[
            e(1.0, 0.0, UP),
            h(11.0, 10.0, DOWN),
            e(3.0, 0.0, UP),
            e(2.0, 0.0, DOWN),
            h(1.4, 10.0, UP),
            e(0.0, 0.0, DOWN),
        ],
    },
    Fold {
        name: "two hairpins under a helix, order 2143",
        weight: 2.0,
        mirrors: false,
        helix: 12..=16,
        strand: 5..=8,
        parts: &[
            e(1.0, 0.0, DOWN),
            e(0.0, 0.0, UP),
            h(7.2, 10.0, DOWN),
            e(3.0, 0.0, UP),
            e(2.0, 0.0, DOWN),
        ],
    },
    Fold {
        name: "helix, three-strand meander, helix",
        weight: 1.0,
        mirrors: true,
        helix: 10..=16,
        strand: 5..=8,
        parts: &[
            h(0.0, 10.0, DOWN),
            e(0.0, 0.0, UP),
            e(1.0, 0.0, DOWN),
            e(2.0, 0.0, UP),
            h(9.6, 10.0, DOWN),
        ],
    },
];

/// Residues of a chain of the sample.
pub const LENGTHS: RangeInclusive<usize> = 40..=96;

/// A fold with all lengths drawn: what the members of one family have in common.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    pub(crate) fold: &'static str,
    pub(crate) elements: Vec<Element>,
    /// Residues before the first element, between each two and after the last.
    pub(crate) loops: Vec<usize>,
}

/// A part with its number of residues and, for strands, the row of its lowest residue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Element {
    pub(crate) part: Part,
    pub(crate) residues: usize,
    pub(crate) first_row: i32,
}

impl Blueprint {
    /// RandomStream a fold by weight, then lengths until the chain has a length of the sample.
    pub(crate) fn draw(draws: &mut RandomStream) -> Self {
        let fold = &FOLDS[draws.weighted(FOLDS.iter().map(|f| f.weight))];
        let mirrored = fold.mirrors && draws.chance(0.5);
        loop {
            let blueprint = Self::draw_lengths(fold, mirrored, draws);
            // Two residues more than the least, since members may lack one at either end.
            if (LENGTHS.start() + 2..=*LENGTHS.end()).contains(&blueprint.residues()) {
                return blueprint;
            }
        }
    }

    fn draw_lengths(fold: &Fold, mirrored: bool, draws: &mut RandomStream) -> Self {
        // Elements of one domain are about equally long, or they would stick out of it.
        let (common_helix, common_strand) = (
            draws.within(fold.helix.clone()),
            draws.within(fold.strand.clone()),
        );
        let elements: Vec<Element> = fold
            .parts
            .iter()
            .map(|&part| {
                let (common, range) = if part.kind == SecondaryStructure::Helix {
                    (common_helix, &fold.helix)
                } else {
                    (common_strand, &fold.strand)
                };
                let residues = (common + draws.within(0..=2))
                    .saturating_sub(1)
                    .clamp(*range.start(), *range.end());
                let first_row = draws.within(0..=1) as i32 - residues as i32 / 2;
                Element {
                    part: Part {
                        z: if mirrored { -part.z } else { part.z },
                        ..part
                    },
                    residues,
                    first_row,
                }
            })
            .collect();
        let loops = draw_loops(&elements, draws);
        Self {
            fold: fold.name,
            elements,
            loops,
        }
    }

    pub(crate) fn residues(&self) -> usize {
        self.loops.iter().sum::<usize>() + self.elements.iter().map(|e| e.residues).sum::<usize>()
    }

    /// The kind of each residue.
    pub(crate) fn kinds(&self) -> Vec<SecondaryStructure> {
        let mut kinds = vec![SecondaryStructure::Loop; self.loops[0]];
        for (element, &after) in self.elements.iter().zip(&self.loops[1..]) {
            kinds.extend(std::iter::repeat_n(element.part.kind, element.residues));
            kinds.extend(std::iter::repeat_n(SecondaryStructure::Loop, after));
        }
        kinds
    }

    /// First residue and length of the longest loop that has an element on both sides.
    pub(crate) fn longest_inner_loop(&self) -> (usize, usize) {
        let mut start = self.loops[0];
        let mut longest = (0, 0);
        for (element, &after) in self
            .elements
            .iter()
            .zip(&self.loops[1..self.elements.len()])
        {
            start += element.residues;
            if after > longest.1 {
                longest = (start, after);
            }
            start += after;
        }
        longest
    }
}

/// Each loop spans its gap with 3.1 Å for each of its bonds, with up to three residues to spare; tails have up to four residues.
fn draw_loops(elements: &[Element], draws: &mut RandomStream) -> Vec<usize> {
    let mut loops = vec![draws.within(0..=4)];
    for pair in elements.windows(2) {
        let gap = libm::ceil(gap_of(&pair[0], &pair[1]) / 3.1) as usize;
        loops.push(
            gap.saturating_sub(1).max(2) + draws.weighted([0.5, 0.3, 0.15, 0.05].into_iter()),
        );
    }
    loops.push(draws.within(0..=4));
    loops
}

/// Distance in Å from the end of one element to the start of the next.
fn gap_of(from: &Element, to: &Element) -> f64 {
    let (x, z) = (to.part.x - from.part.x, to.part.z - from.part.z);
    let y = to.entry_y() - from.exit_y();
    (x * x + y * y + z * z).sqrt()
}

impl Element {
    /// Rise along y for each residue in Å.
    pub(crate) fn rise(&self) -> f64 {
        if self.part.kind == SecondaryStructure::Helix {
            HELIX_RISE
        } else {
            STRAND_RISE
        }
    }

    /// y of its `k`-th residue along the chain. Strands lie on common rows, so that the pleats of a sheet match; helices are centred.
    pub(crate) fn y(&self, k: usize) -> f64 {
        let along = if self.part.up {
            k
        } else {
            self.residues - 1 - k
        };
        match self.part.kind {
            SecondaryStructure::Strand => self.rise() * f64::from(self.row(k)),
            _ => self.rise() * (along as f64 - (self.residues - 1) as f64 / 2.0),
        }
    }

    /// The row of its `k`-th residue along the chain.
    pub(crate) fn row(&self, k: usize) -> i32 {
        self.first_row
            + (if self.part.up {
                k
            } else {
                self.residues - 1 - k
            }) as i32
    }

    fn entry_y(&self) -> f64 {
        self.y(0)
    }

    fn exit_y(&self) -> f64 {
        self.y(self.residues - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_count_as_many_residues_as_the_blueprint() {
        for stream in 0..200 {
            let blueprint = Blueprint::draw(&mut RandomStream::new(5, stream));
            let kinds = blueprint.kinds();
            assert_eq!(kinds.len(), blueprint.residues());
            assert!(LENGTHS.contains(&kinds.len()));
            let (start, length) = blueprint.longest_inner_loop();
            assert!(
                length >= 2
                    && kinds[start..start + length]
                        .iter()
                        .all(|&k| k == SecondaryStructure::Loop),
                "{}",
                blueprint.fold
            );
            assert!(
                kinds[start - 1] != SecondaryStructure::Loop
                    && kinds[start + length] != SecondaryStructure::Loop
            );
        }
    }

    /// Along β-α-β the path turns about x in the same sense as it advances: (direction × side) has the sign of the step.
    #[test]
    fn strand_helix_strand_crossings_of_parallel_strands_are_right_handed() {
        for fold in FOLDS {
            for unit in fold.parts.windows(3) {
                let [a, b, c] = [unit[0], unit[1], unit[2]];
                let kinds = [a.kind, b.kind, c.kind];
                if kinds
                    == [
                        SecondaryStructure::Strand,
                        SecondaryStructure::Helix,
                        SecondaryStructure::Strand,
                    ]
                    && a.up == c.up
                {
                    let up = if a.up { 1.0 } else { -1.0 };
                    assert!(up * b.z * (c.x - a.x) > 0.0, "{}", fold.name);
                    assert!(!fold.mirrors, "{}", fold.name);
                }
            }
        }
    }
}
