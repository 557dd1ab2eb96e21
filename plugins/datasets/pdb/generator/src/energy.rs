//! The energy of a trace in units of kT.
//!
//! `E = −ln p(θ_0) − Σ_q ln p(τ_q, θ_{q+1} | θ_q)  local statistics, q over runs of four residues`
//! `  + Σ_{|i−j|≥3} ½ ((σ_ij − d_ij)/w)²        where d_ij < σ_ij: excluded volume`
//! `  + h Σ_{|i−j|≥6} s(d_ij)                   side chains fill the room between elements; s falls from 1 at 6.5 Å to 0 at 8 Å`
//! `  + Σ_pairs ½ ((|d_ij − D_ij| − t)/u)²      where |d_ij − D_ij| > t: strand pairs of a sheet`
//! `  + ½ ((Rg − R)/v)²                         size`
//! `  + Σ_i |r_i − r_i⁰|²/(2 λ²)                helices and strands stay near their ideal places`

use crate::{
    blueprint::SecondaryStructure,
    geometry::{Point, angle_deg, distance, dot, sub, torsion_deg},
    scaffold::{Pair, Scaffold},
    statistics::Statistics,
};
use std::ops::Range;

/// Width of the excluded-volume wall in Å.
const WALL: f64 = 0.25;
/// No pair three or more apart may come nearer than this (Å); of the pairs of real chains within 8 Å, 0.3 % are below 4.0 Å.
pub(crate) const HARD_FLOOR: f64 = 3.95;
/// Cost of a pair below the floor: finite, so that a first chain that overlaps can leave.
const OVERLAP: f64 = 1e3;
/// Side chains: height of the shoulder, where it is full, where it ends (Å).
const SHOULDER: f64 = 0.05;
const SHOULDER_FULL: f64 = 6.5;
const SHOULDER_NONE: f64 = 8.0;
/// Strand pairs: tolerance and width in Å. Real pairs alternate between 4.5 and 5.5 Å.
const PAIR_TOLERANCE: f64 = 0.6;
const PAIR_WIDTH: f64 = 0.4;
/// Width of the size term in Å.
const SIZE_WIDTH: f64 = 0.2;

/// The energy function of one chain; positions are passed in.
pub(crate) struct Energy {
    statistics: Statistics,
    kinds: Vec<SecondaryStructure>,
    targets: Vec<Option<Point>>,
    /// Partners and distances of each residue.
    pairs: Vec<Vec<(usize, f64)>>,
    target_size: f64,
    /// 1 / λ² in Å⁻².
    pub(crate) hold: f64,
}

impl Energy {
    pub(crate) fn new(scaffold: &Scaffold, target_size: f64) -> Self {
        let mut pairs = vec![Vec::new(); scaffold.kinds.len()];
        for &Pair {
            residues: [i, j],
            distance,
        } in &scaffold.pairs
        {
            pairs[i].push((j, distance));
            pairs[j].push((i, distance));
        }
        let (kinds, targets) = (scaffold.kinds.clone(), scaffold.targets.clone());
        Self {
            statistics: Statistics::new(),
            kinds,
            targets,
            pairs,
            target_size,
            hold: 0.0,
        }
    }

    /// Local term of residues `q..q + 4`.
    pub(crate) fn local(&self, r: &[Point], q: usize) -> f64 {
        let [a, b, c, d] = [r[q], r[q + 1], r[q + 2], r[q + 3]];
        let [first, next] = [angle_deg(a, b, c), angle_deg(b, c, d)];
        let kind = self.kind_of_four(q);
        let start = if q == 0 {
            self.statistics.angle_energy(kind, first)
        } else {
            0.0
        };
        start
            + self
                .statistics
                .local_energy(kind, first, torsion_deg(a, b, c, d), next)
    }

    /// Four residues follow the statistics of a helix or strand when all are in it.
    fn kind_of_four(&self, q: usize) -> SecondaryStructure {
        let first = self.kinds[q];
        if self.kinds[q + 1..q + 4].iter().all(|&k| k == first) {
            first
        } else {
            SecondaryStructure::Loop
        }
    }

    /// All terms between the residues of `moved` and the others, and those of each moved residue alone.
    pub(crate) fn of_moved(&self, r: &[Point], moved: &Range<usize>) -> f64 {
        let mut sum = 0.0;
        for i in moved.clone() {
            let others = (0..moved.start).chain(moved.end..r.len());
            sum += others.map(|j| self.non_bonded(i, j, r)).sum::<f64>();
            sum += self.pairs[i]
                .iter()
                .filter(|p| !moved.contains(&p.0))
                .map(|&(j, d)| pair(distance(r[i], r[j]), d))
                .sum::<f64>();
            sum += self.held(i, r[i]);
        }
        sum
    }

    fn non_bonded(&self, i: usize, j: usize, r: &[Point]) -> f64 {
        let apart = i.abs_diff(j);
        let step = sub(r[i], r[j]);
        let squared = dot(step, step);
        if apart < 3 || squared >= SHOULDER_NONE * SHOULDER_NONE {
            return 0.0;
        }
        let d = squared.sqrt();
        let wall = ((self.diameter(i, j, apart) - d) / WALL).max(0.0);
        let overlap = if d < HARD_FLOOR { OVERLAP } else { 0.0 };
        overlap
            + 0.5 * wall * wall
            + if apart >= 6 {
                SHOULDER * shoulder(d)
            } else {
                0.0
            }
    }

    /// σ in Å: about the distance below which 1 % of the near pairs of real chains lie, by kind.
    fn diameter(&self, i: usize, j: usize, apart: usize) -> f64 {
        match (self.kinds[i], self.kinds[j]) {
            _ if apart < 6 => 4.5,
            (SecondaryStructure::Helix, SecondaryStructure::Helix) => 5.8,
            (SecondaryStructure::Helix, _) | (_, SecondaryStructure::Helix) => 5.1,
            _ => 4.5,
        }
    }

    fn held(&self, i: usize, p: Point) -> f64 {
        self.targets[i].map_or(0.0, |target| {
            let step = sub(p, target);
            0.5 * self.hold * dot(step, step)
        })
    }

    /// The size term for a squared radius of gyration.
    pub(crate) fn size(&self, squared: f64) -> f64 {
        let x = (squared.max(0.0).sqrt() - self.target_size) / SIZE_WIDTH;
        0.5 * x * x
    }
}

/// The switch of the side-chain term: `s = 1 − 3x² + 2x³` between its ends.
fn shoulder(d: f64) -> f64 {
    let x = ((d - SHOULDER_FULL) / (SHOULDER_NONE - SHOULDER_FULL)).clamp(0.0, 1.0);
    1.0 - x * x * (3.0 - 2.0 * x)
}

fn pair(d: f64, ideal: f64) -> f64 {
    let x = (((d - ideal).abs() - PAIR_TOLERANCE) / PAIR_WIDTH).max(0.0);
    0.5 * x * x
}

#[cfg(test)]
impl Energy {
    /// The whole energy, term by term: slow and obvious.
    pub(crate) fn total(&self, r: &[Point]) -> f64 {
        let n = r.len();
        let local: f64 = (0..n - 3).map(|q| self.local(r, q)).sum();
        let non_bonded: f64 = (0..n)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| self.non_bonded(i, j, r))
            .sum();
        let partners = self
            .pairs
            .iter()
            .enumerate()
            .flat_map(|(i, partners)| partners.iter().map(move |&(j, d)| (i, j, d)));
        let twice_paired: f64 = partners
            .map(|(i, j, d)| pair(distance(r[i], r[j]), d))
            .sum();
        let held: f64 = (0..n).map(|i| self.held(i, r[i])).sum();
        local
            + non_bonded
            + twice_paired / 2.0
            + held
            + self.size(crate::geometry::radius_of_gyration(r).powi(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shoulder_and_the_pair_term_have_the_shape_they_are_said_to_have() {
        assert_eq!(
            [5.0, 6.5, 7.25, 8.0, 9.0].map(shoulder),
            [1.0, 1.0, 0.5, 0.0, 0.0]
        );
        assert_eq!(
            [4.8, 5.4, 4.2].map(|d| pair(d, 4.8) < 1e-20),
            [true; 3],
            "free within the tolerance"
        );
        // One width beyond the tolerance costs half a kT on either side.
        for d in [5.8, 3.8] {
            assert!((pair(d, 4.8) - 0.5).abs() < 1e-12, "rounding only");
        }
    }
}
