//! The neighbour graph of a batch: a pure function of positions, in f64, with nothing learnt and nothing random.
//!
//! Each atom keeps its nearest neighbours within the cutoff as directed edges (neighbour to centre), sorted by sender.
//! Edges of all atoms lie one after the other; nothing is padded. Molecules never see each other, so the graph of a
//! molecule does not depend on the batch it is in.
//!
//! **Ties.** Rotated copies of a molecule arrive as rounded f32 positions, whose distances differ by about 1e-6 angstrom.
//! Ordering neighbours by the exact distance would let atoms that are equally far by symmetry (the hydrogens of a methyl
//! group) swap places at the last kept slot, and the change of graph would look like an equivariance error of the model.
//! Distances that differ by less than [`TIE`] therefore count as equal, and equal ones are ordered by index.

use rayon::prelude::*;
use std::cmp::Ordering;

/// Neighbouring distances closer than this (angstrom) are ties: a hundred times what f32 positions lose in a rotation,
/// a hundred times less than any difference that means something in a conformation.
pub const TIE: f64 = 1e-4;

/// Pairs nearer than this (angstrom) are dropped, as in the reference.
const NEAREST: f64 = 1e-2;

/// What limits the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraphLimits {
    /// Cutoff radius in angstrom, inclusive.
    pub cutoff: f64,
    /// Neighbours that an atom keeps at most.
    pub neighbours: usize,
    /// Bond-orientational orders l = 0..orders.
    pub orders: usize,
}

/// The graph of a batch of molecules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NeighbourGraph {
    /// `[atoms + 1]`: atom `i` owns the edges `offsets[i]..offsets[i + 1]`, at least one.
    pub offsets: Vec<usize>,
    /// `[edges]`: the neighbour at the other end, ascending within an atom. A lonely atom is its own neighbour.
    pub senders: Vec<usize>,
    /// `[edges]`: unit vector from the neighbour to the centre; `(1, 0, 0)` for a lonely atom.
    pub directions: Vec<[f64; 3]>,
    /// `[edges]`: the pair of atoms that an edge belongs to; both directions of a pair share its number.
    pub pairs: Vec<usize>,
    /// `[pairs]`: distance in angstrom; infinite for a lonely atom, whose radial features are therefore all 0.
    pub distances: Vec<f64>,
    /// `[atoms, orders]`: bond-orientational order parameters; all 0 for a lonely atom.
    pub orders: Vec<f64>,
}

impl NeighbourGraph {
    /// Builds the graph of molecules that own the atoms `molecules[g]..molecules[g + 1]` of finite `positions [atoms, 3]`.
    #[must_use]
    pub fn build(positions: &[f64], molecules: &[usize], limits: GraphLimits) -> Self {
        let parts: Vec<Self> = molecules
            .par_windows(2)
            .map(|range| Self::of_molecule(&positions[3 * range[0]..3 * range[1]], limits))
            .collect();
        let mut whole = Self {
            offsets: vec![0],
            ..Self::default()
        };
        parts.into_iter().for_each(|part| whole.append(part));
        whole
    }

    /// Number of atoms.
    #[must_use]
    pub fn atoms(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of directed edges.
    #[must_use]
    pub fn edges(&self) -> usize {
        self.senders.len()
    }

    /// The centre of every edge.
    #[must_use]
    pub fn receivers(&self) -> Vec<usize> {
        let owned = self.offsets.windows(2).enumerate();
        owned
            .flat_map(|(centre, range)| std::iter::repeat_n(centre, range[1] - range[0]))
            .collect()
    }

    /// `u_ij · u_ik` of the edges of every atom, `[atoms, slots, slots]`, 0 in unused slots.
    #[must_use]
    pub fn cosines(&self, slots: usize) -> Vec<f64> {
        let mut cosines = vec![0.0; self.atoms() * slots * slots];
        cosines
            .par_chunks_mut(slots * slots)
            .zip(self.offsets.par_windows(2))
            .for_each(|(out, range)| {
                let units = &self.directions[range[0]..range[1]];
                for (j, a) in units.iter().enumerate() {
                    for (k, b) in units.iter().enumerate() {
                        out[j * slots + k] = dot(*a, *b);
                    }
                }
            });
        cosines
    }

    fn append(&mut self, part: Self) {
        let (atoms, edges, pairs) = (self.atoms(), self.edges(), self.distances.len());
        self.offsets
            .extend(part.offsets[1..].iter().map(|o| o + edges));
        self.senders.extend(part.senders.iter().map(|s| s + atoms));
        self.pairs.extend(part.pairs.iter().map(|p| p + pairs));
        self.directions.extend(part.directions);
        self.distances.extend(part.distances);
        self.orders.extend(part.orders);
    }

    fn of_molecule(positions: &[f64], limits: GraphLimits) -> Self {
        let points: Vec<[f64; 3]> = positions
            .chunks_exact(3)
            .map(|p| [p[0], p[1], p[2]])
            .collect();
        let mut graph = Self {
            offsets: vec![0],
            ..Self::default()
        };
        for centre in 0..points.len() {
            let kept = nearest(
                candidates(&points, centre, limits.cutoff),
                limits.neighbours,
            );
            graph.add_atom(&points, centre, &kept, limits.orders);
        }
        graph
    }

    /// `kept` holds (distance, sender), ascending by sender.
    fn add_atom(
        &mut self,
        points: &[[f64; 3]],
        centre: usize,
        kept: &[(f64, usize)],
        orders: usize,
    ) {
        let first = self.edges();
        if kept.is_empty() {
            self.add_edge(centre, centre, [1.0, 0.0, 0.0], f64::INFINITY);
            self.orders.extend(std::iter::repeat_n(0.0, orders));
        }
        for &(distance, sender) in kept {
            let unit = difference(points[centre], points[sender]).map(|x| x / distance);
            self.add_edge(sender, centre, unit, distance);
        }
        if !kept.is_empty() {
            self.orders
                .extend(bond_orders(&self.directions[first..], orders));
        }
        self.offsets.push(self.edges());
    }

    fn add_edge(&mut self, sender: usize, centre: usize, unit: [f64; 3], distance: f64) {
        let known = (sender < centre)
            .then(|| self.edge(centre, sender))
            .flatten();
        let pair = match known {
            Some(edge) => self.pairs[edge],
            None => {
                self.distances.push(distance);
                self.distances.len() - 1
            }
        };
        self.senders.push(sender);
        self.directions.push(unit);
        self.pairs.push(pair);
    }

    /// The edge from `sender` to an atom that was added before, if it was kept.
    fn edge(&self, sender: usize, centre: usize) -> Option<usize> {
        let (from, to) = (self.offsets[centre], self.offsets[centre + 1]);
        self.senders[from..to]
            .binary_search(&sender)
            .ok()
            .map(|k| from + k)
    }
}

/// Atoms within the cutoff of `centre`, as (distance, index).
fn candidates(points: &[[f64; 3]], centre: usize, cutoff: f64) -> Vec<(f64, usize)> {
    let here = points[centre];
    let near = |(j, &there): (usize, &[f64; 3])| {
        let d = difference(here, there);
        let square = dot(d, d);
        (j != centre && square > NEAREST * NEAREST && square <= cutoff * cutoff)
            .then(|| (square.sqrt(), j))
    };
    points.iter().enumerate().filter_map(near).collect()
}

/// Keeps the nearest `count`, ties broken by index; ascending by index.
fn nearest(mut found: Vec<(f64, usize)>, count: usize) -> Vec<(f64, usize)> {
    if found.len() > count {
        found.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        order_ties_at(&mut found, count);
        found.truncate(count);
    }
    found.sort_by_key(|&(_, sender)| sender);
    found
}

/// Reorders by index the run of tied distances that the cut before position `cut` would split. `found` is sorted by distance.
fn order_ties_at(found: &mut [(f64, usize)], cut: usize) {
    let tied = |k: usize| found[k].0 - found[k - 1].0 < TIE;
    if !tied(cut) {
        return;
    }
    let start = (1..cut).rev().find(|&k| !tied(k)).unwrap_or(0);
    let end = (cut + 1..found.len())
        .find(|&k| !tied(k))
        .unwrap_or(found.len());
    found[start..end].sort_by(|a, b| match a.1.cmp(&b.1) {
        Ordering::Equal => a.0.total_cmp(&b.0),
        order => order,
    });
}

/// `q_l = sqrt((2l + 1) / n² · Σ_jk P_l(u_j · u_k))` for l = 0..orders, by the addition theorem of spherical harmonics.
fn bond_orders(units: &[[f64; 3]], orders: usize) -> Vec<f64> {
    let n = units.len() as f64;
    // The diagonal: P_l(1) = 1.
    let mut sums = vec![n; orders];
    for (k, &a) in units.iter().enumerate() {
        for &b in &units[..k] {
            add_legendre(dot(a, b), &mut sums);
        }
    }
    sums.iter()
        .enumerate()
        .map(|(l, sum)| ((2 * l + 1) as f64 * sum / (n * n)).max(0.0).sqrt())
        .collect()
}

/// Adds `2 P_l(x)` (both orders of a pair) to `sums[l]`.
fn add_legendre(x: f64, sums: &mut [f64]) {
    let (mut before, mut now) = (0.0, 1.0);
    for (l, sum) in sums.iter_mut().enumerate() {
        *sum += 2.0 * now;
        let degree = l as f64;
        (before, now) = (
            now,
            ((2.0 * degree + 1.0) * x * now - degree * before) / (degree + 1.0),
        );
    }
}

fn difference(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const LIMITS: GraphLimits = GraphLimits {
        cutoff: 4.0,
        neighbours: 5,
        orders: 10,
    };

    fn cloud(atoms: usize, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..3 * atoms)
            .map(|_| rng.random_range(-3.0..3.0))
            .collect()
    }

    /// A slower and more obvious statement of the rule: an edge is kept if fewer than M others are nearer.
    fn naive_senders(positions: &[f64], centre: usize, limits: GraphLimits) -> Vec<usize> {
        let n = positions.len() / 3;
        let square = |j: usize| {
            (0..3)
                .map(|c| (positions[3 * centre + c] - positions[3 * j + c]).powi(2))
                .sum::<f64>()
        };
        let allowed =
            |j: usize| j != centre && square(j) > 1e-4 && square(j) <= limits.cutoff.powi(2);
        let rank = |j: usize| {
            (0..n)
                .filter(|&k| allowed(k) && square(k) < square(j))
                .count()
        };
        (0..n)
            .filter(|&j| allowed(j) && rank(j) < limits.neighbours)
            .collect()
    }

    #[test]
    fn the_graph_equals_a_naive_search() {
        for seed in 0..20 {
            let positions = cloud(12, seed);
            let graph = NeighbourGraph::build(&positions, &[0, 12], LIMITS);
            for centre in 0..12 {
                let kept = &graph.senders[graph.offsets[centre]..graph.offsets[centre + 1]];
                let naive = naive_senders(&positions, centre, LIMITS);
                assert_eq!(
                    kept,
                    if naive.is_empty() {
                        vec![centre]
                    } else {
                        naive
                    },
                    "seed {seed}, atom {centre}"
                );
            }
        }
    }

    #[test]
    fn both_directions_of_a_pair_share_one_distance_and_unkept_pairs_have_none() {
        let graph = NeighbourGraph::build(&cloud(30, 3), &[0, 30], LIMITS);
        let mut seen = std::collections::BTreeMap::new();
        for (edge, receiver) in graph.receivers().into_iter().enumerate() {
            let (a, b) = (graph.senders[edge], receiver);
            assert_eq!(
                *seen
                    .entry((a.min(b), a.max(b)))
                    .or_insert(graph.pairs[edge]),
                graph.pairs[edge]
            );
        }
        assert_eq!(seen.len(), graph.distances.len());
        assert!(
            graph.distances.len() < graph.edges(),
            "some pairs must be kept from both ends"
        );
    }

    #[test]
    fn the_graph_of_a_molecule_does_not_depend_on_its_batch() {
        let (a, b) = (cloud(7, 1), cloud(9, 2));
        let together = NeighbourGraph::build(&[a.clone(), b.clone()].concat(), &[0, 7, 16], LIMITS);
        let alone = NeighbourGraph::build(&b, &[0, 9], LIMITS);
        let first = together.offsets[7];
        let local = |senders: &[usize]| senders.iter().map(|s| s - 7).collect::<Vec<_>>();
        assert_eq!(local(&together.senders[first..]), alone.senders);
        assert_eq!(together.directions[first..], alone.directions);
        assert_eq!(together.orders[7 * LIMITS.orders..], alone.orders);
    }

    #[test]
    fn a_lonely_atom_points_at_itself_along_x_and_has_no_features() {
        let graph = NeighbourGraph::build(
            &[0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 30.0, 0.0, 0.0],
            &[0, 3],
            LIMITS,
        );
        assert_eq!(graph.offsets, [0, 1, 2, 3]);
        assert_eq!(graph.senders, [1, 0, 2]);
        assert_eq!(graph.directions[2], [1.0, 0.0, 0.0]);
        assert_eq!(
            graph.directions[0],
            [-1.0, 0.0, 0.0],
            "from the neighbour to the centre"
        );
        assert!(graph.distances[graph.pairs[2]].is_infinite());
        assert_eq!(graph.orders[2 * LIMITS.orders..], [0.0; 10]);
    }

    #[test]
    fn the_cutoff_is_inclusive_and_coinciding_atoms_do_not_see_each_other() {
        let graph = NeighbourGraph::build(
            &[0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.005],
            &[0, 3],
            LIMITS,
        );
        assert_eq!(graph.senders[..graph.offsets[1]], [1]);
    }

    #[test]
    fn one_neighbour_or_two_opposite_ones_have_closed_orders() {
        let root = |l: usize| ((2 * l + 1) as f64).sqrt();
        let single = bond_orders(&[[0.0, 0.6, 0.8]], 10);
        let line = bond_orders(&[[0.0, 0.6, 0.8], [0.0, -0.6, -0.8]], 10);
        for l in 0..10 {
            // P_l is steep near 1: 45 times the rounding of u·u for l = 9, and a root of it where the value is 0.
            assert!((single[l] - root(l)).abs() < 1e-12);
            assert!(
                (line[l] - if l % 2 == 0 { root(l) } else { 0.0 }).abs() < 1e-6,
                "l = {l}: {}",
                line[l]
            );
        }
    }

    #[test]
    fn orders_equal_the_explicit_harmonics_of_degree_one() {
        let graph = NeighbourGraph::build(
            &cloud(12, 5),
            &[0, 12],
            GraphLimits {
                cutoff: 12.0,
                ..LIMITS
            },
        );
        for (centre, range) in graph.offsets.windows(2).enumerate() {
            let units = &graph.directions[range[0]..range[1]];
            // sum_m (mean Y_1m)^2 = 3 |mean u|^2.
            let mean =
                [0, 1, 2].map(|c| units.iter().map(|u| u[c]).sum::<f64>() / units.len() as f64);
            let expected = (3.0 * dot(mean, mean)).sqrt();
            assert!((graph.orders[centre * LIMITS.orders + 1] - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn rotated_and_rounded_copies_of_a_symmetric_molecule_keep_their_neighbours() {
        // The corners of a cube around a centre: every cut but one goes through exact ties.
        let corners =
            (0..8).flat_map(|k| [0, 1, 2].map(|c| if k >> c & 1 == 1 { 1.1 } else { -1.1 }));
        let positions: Vec<f64> = [0.0; 3].into_iter().chain(corners).collect();
        for neighbours in 1..9 {
            let limits = GraphLimits {
                neighbours,
                ..LIMITS
            };
            let straight = NeighbourGraph::build(&positions, &[0, 9], limits);
            for step in 1..200 {
                let turned = NeighbourGraph::build(
                    &turn(&positions, 0.031 * f64::from(step)),
                    &[0, 9],
                    limits,
                );
                assert_eq!(
                    turned.senders, straight.senders,
                    "{neighbours} neighbours, turn {step}"
                );
            }
        }
    }

    /// Rotates about a skew axis and rounds to f32, as a host does.
    fn turn(positions: &[f64], angle: f64) -> Vec<f64> {
        let (s, c) = angle.sin_cos();
        let rotate = |p: &[f64]| {
            let (x, y, z) = (c * p[0] - s * p[1], s * p[0] + c * p[1], p[2]);
            [x, c * y - s * z, s * y + c * z].map(|v| f64::from(v as f32))
        };
        positions.chunks_exact(3).flat_map(rotate).collect()
    }
}
