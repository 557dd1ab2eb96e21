//! Metropolis Monte Carlo on a chain with fixed virtual bonds.
//!
//! A move turns the residues between two others about the line through these (a crankshaft), or an end of the chain about a random
//! axis. Both keep every virtual bond and are their own reverse moves with the angle's sign turned, so that Metropolis' rule samples
//! `exp(−E/T)` (in the volume of turns, so that angles have the usual factor `sin θ`, which is 1 for helices and 0.84 for strands). The temperature falls from [`HOT`] to 1 over the first part of the run and stays there: what is stored is a sample at kT = 1,
//! not a minimum.

use crate::{
    energy::Energy,
    geometry::{Point, Turn, add, dot, scale, sub, unit},
    random::RandomStream,
};
use std::ops::Range;

/// Moves for each residue.
const MOVES: usize = 3000;
/// First temperature.
const HOT: f64 = 4.0;
/// Share of the run in which temperature and restraints change.
const COOLING: f64 = 0.6;
/// λ of the restraints on helices and strands in Å: at the start, at the end.
const HOLD: [f64; 2] = [0.8, 8.0];

/// Runs the annealing on a chain.
pub(crate) fn anneal(
    start: Vec<Point>,
    energy: &mut Energy,
    draws: &mut RandomStream,
) -> Vec<Point> {
    let mut walker = Walker::new(start, energy);
    let moves = MOVES * walker.r.len();
    for step in 0..moves {
        let progress = (step as f64 / (COOLING * moves as f64)).min(1.0);
        if step % 64 == 0 {
            let hold = HOLD[0] * libm::pow(HOLD[1] / HOLD[0], progress);
            walker.energy.hold = 1.0 / (hold * hold);
        }
        walker.step(libm::pow(HOT, 1.0 - progress), draws);
    }
    walker.r
}

struct Walker<'a> {
    energy: &'a mut Energy,
    r: Vec<Point>,
    /// Local term of each run of four residues.
    local: Vec<f64>,
    /// Sum of the positions and of their squares.
    sums: (Point, f64),
    saved: Vec<Point>,
}

/// The outcome of a move: change of the energy, new sums, new local terms of the runs of four that changed.
struct RotatedPiece {
    change: f64,
    sums: (Point, f64),
    locals: [Option<(usize, f64)>; 4],
}

impl<'a> Walker<'a> {
    fn new(r: Vec<Point>, energy: &'a mut Energy) -> Self {
        let local = (0..r.len() - 3).map(|q| energy.local(&r, q)).collect();
        let sums = sums(&r);
        Self {
            energy,
            r,
            local,
            sums,
            saved: Vec::new(),
        }
    }

    fn step(&mut self, temperature: f64, draws: &mut RandomStream) {
        let n = self.r.len();
        let Some((moved, reach)) = propose(n, draws) else {
            return;
        };
        let axis = match (moved.start, moved.end) {
            (0, _) | (_, _) if moved.start == 0 || moved.end == n => draws.direction(),
            (start, end) => unit(sub(self.r[end], self.r[start - 1])),
        };
        let pivot = if moved.start == 0 {
            self.r[moved.end]
        } else {
            self.r[moved.start - 1]
        };
        let wide = if draws.chance(0.1) { 5.0 } else { 1.0 };
        let turn = Turn::about(axis, wide * reach * temperature.sqrt() * draws.signed());
        self.try_turn(&moved, &turn, pivot, temperature, draws);
    }

    fn try_turn(
        &mut self,
        moved: &Range<usize>,
        turn: &Turn,
        pivot: Point,
        temperature: f64,
        draws: &mut RandomStream,
    ) {
        let turned = self.turn(moved, turn, pivot);
        if turned.change <= 0.0 || draws.uniform() < libm::exp(-turned.change / temperature) {
            self.sums = turned.sums;
            for (q, e) in turned.locals.into_iter().flatten() {
                self.local[q] = e;
            }
        } else {
            self.r[moved.clone()].copy_from_slice(&self.saved);
        }
    }

    /// Turns the window and says what that changed; the old positions are in `saved`.
    fn turn(&mut self, moved: &Range<usize>, turn: &Turn, pivot: Point) -> RotatedPiece {
        let before = self.energy.of_moved(&self.r, moved);
        let old_sums = sums(&self.r[moved.clone()]);
        self.saved.clear();
        self.saved.extend_from_slice(&self.r[moved.clone()]);
        for p in &mut self.r[moved.clone()] {
            *p = turn.apply_at(pivot, *p);
        }
        let new_sums = sums(&self.r[moved.clone()]);
        let sums = (
            sub(add(self.sums.0, new_sums.0), old_sums.0),
            self.sums.1 + new_sums.1 - old_sums.1,
        );
        let size = self.energy.size(self.squared_size(sums))
            - self.energy.size(self.squared_size(self.sums));
        let locals = changed_fours(moved, self.r.len())
            .map(|q| q.map(|q| (q, self.energy.local(&self.r, q))));
        let local: f64 = locals
            .iter()
            .flatten()
            .map(|&(q, e)| e - self.local[q])
            .sum();
        RotatedPiece {
            change: self.energy.of_moved(&self.r, moved) - before + size + local,
            sums,
            locals,
        }
    }

    fn squared_size(&self, (sum, squares): (Point, f64)) -> f64 {
        let n = self.r.len() as f64;
        squares / n - dot(scale(sum, 1.0 / n), scale(sum, 1.0 / n))
    }
}

/// A window of residues to turn and the largest usual angle (radians at temperature 1); `None` when it would be the whole chain.
fn propose(n: usize, draws: &mut RandomStream) -> Option<(Range<usize>, f64)> {
    let (length, reach) = match draws.weighted([0.55, 0.3, 0.15].into_iter()) {
        0 => (draws.within(1..=3), 0.25),
        1 => (draws.within(4..=8), 0.12),
        _ => (draws.within(9..=30), 0.05),
    };
    // Windows hang over both ends equally often, so that the ends move as much as the middle.
    let first = draws.within(0..=n + length - 2) as isize + 1 - length as isize;
    let start = first.max(0) as usize;
    let end = ((first + length as isize) as usize).min(n);
    (end - start < n - 1).then_some((start..end, reach))
}

/// The runs of four that hold residues on both sides of an end of the window: two for each end.
fn changed_fours(moved: &Range<usize>, n: usize) -> [Option<usize>; 4] {
    let around = |pivot: Option<usize>| {
        [2, 1].map(|back| {
            pivot
                .and_then(|p| p.checked_sub(back))
                .filter(|q| q + 3 < n)
        })
    };
    let left = around(moved.start.checked_sub(1));
    let right = around(Some(moved.end).filter(|&end| end < n));
    [left[0], left[1], right[0], right[1]]
}

fn sums(points: &[Point]) -> (Point, f64) {
    points.iter().fold(([0.0; 3], 0.0), |(sum, squares), &p| {
        (add(sum, p), squares + dot(p, p))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{blueprint::Blueprint, geometry::distance, scaffold::Scaffold};

    /// The change that a move reports is the difference of the whole energy, as the plain sum over everything gives it.
    #[test]
    fn a_move_changes_the_energy_by_what_it_says() {
        for stream in 0..6 {
            let mut draws = RandomStream::new(4, stream);
            let scaffold = Scaffold::draw(&Blueprint::draw(&mut draws), &mut draws);
            let mut energy = Energy::new(&scaffold, 11.0);
            energy.hold = 0.3;
            let mut walker = Walker::new(scaffold.start, &mut energy);
            for _ in 0..200 {
                let Some((moved, _)) = propose(walker.r.len(), &mut draws) else {
                    continue;
                };
                let pivot = if moved.start == 0 {
                    walker.r[moved.end]
                } else {
                    walker.r[moved.start - 1]
                };
                let is_end = moved.start == 0 || moved.end == walker.r.len();
                let axis = if is_end {
                    draws.direction()
                } else {
                    unit(sub(walker.r[moved.end], pivot))
                };
                let before = walker.energy.total(&walker.r);
                let turned = walker.turn(&moved, &Turn::about(axis, 0.2 * draws.signed()), pivot);
                let change = walker.energy.total(&walker.r) - before;
                // Totals reach 1e5 where the first chain overlaps; sums of thousands of terms lose a few digits of 1e-16 of that.
                assert!(
                    (turned.change - change).abs() < 1e-7,
                    "{moved:?}: {} {change}",
                    turned.change
                );
                walker.r[moved].copy_from_slice(&walker.saved.clone());
            }
        }
    }

    #[test]
    fn annealing_keeps_every_bond() {
        let mut draws = RandomStream::new(8, 0);
        let scaffold = Scaffold::draw(&Blueprint::draw(&mut draws), &mut draws);
        let mut energy = Energy::new(&scaffold, 11.0);
        let mut walker = Walker::new(scaffold.start.clone(), &mut energy);
        (0..20_000).for_each(|_| walker.step(2.0, &mut draws));
        for (old, new) in scaffold.start.windows(2).zip(walker.r.windows(2)) {
            let change = distance(old[0], old[1]) - distance(new[0], new[1]);
            assert!(
                change.abs() < 1e-10,
                "{change}: a few thousand turns with 1e-15 each"
            );
        }
        assert!(
            distance(walker.r[0], scaffold.start[0]) > 0.1,
            "the chain has moved"
        );
    }
}
