//! Atoms to densities on a grid, exactly as VoxMol's reference does it.
//!
//! With spacing `h = 0.25 Å` and radius `r = 0.5 Å` for every element, an atom at `p` has the continuous index `u = p/h + 65` along
//! each axis, grid index `i` the absolute index `n = i + 66 − G/2`, and
//!
//! `v = exp(−|u − (n + h/2)|² / (0.93 r/h)²)` where `⌊u⌋ − 4 ≤ n ≤ ⌊u⌋ + 6` on each axis, 0 elsewhere; `x = 1 − Π (1 − v)` over the
//! atoms of a channel.
//!
//! Kept from the reference: the offset `h/2` counts voxels, not ångströms, and the window reaches one voxel farther on the high side.
//! Not kept: there a single atom beyond 15 Å shifts the grids of the whole batch; here atoms outside are clipped.

/// Spacing of the grid, Å.
pub const RESOLUTION_ANGSTROM: f64 = 0.25;
/// Radius of every atom, Å.
pub const RADIUS_ANGSTROM: f64 = 0.5;
/// Width of the Gaussian in radii.
const WIDTH_FACTOR: f64 = 0.93;
/// Absolute index of the origin.
const ORIGIN: f64 = 65.0;
/// Voxels that an atom touches along an axis, from `⌊u⌋ − 4` on.
const WINDOW: i64 = 11;
const WINDOW_BELOW: i64 = 4;

/// One atom of a molecule that becomes a density.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VoxelAtom {
    /// Å.
    pub position: [f64; 3],
    /// Channel of its element.
    pub channel: usize,
}

/// The density of a molecule, `[channels, side, side, side]`; whatever lies outside of the grid is clipped.
///
/// # Panics
/// If `density` does not hold whole channels, or an atom's channel is not among them. Positions must be finite: others give nothing.
pub fn voxelise(atoms: &[VoxelAtom], side: usize, density: &mut [f64]) {
    let points = side * side * side;
    assert!(
        points > 0 && density.len().is_multiple_of(points),
        "a density has whole channels"
    );
    density.fill(0.0);
    for atom in atoms {
        add(atom, side, &mut density[atom.channel * points..][..points]);
    }
}

/// `1 − (1 − x)(1 − v) = x + v (1 − x)`, which keeps small values to the last digit.
fn add(atom: &VoxelAtom, side: usize, grid: &mut [f64]) {
    let [x, y, z] = atom.position.map(|p| Reach::of(p, side));
    for (i, vx) in x.values() {
        for (j, vy) in y.values() {
            let row = &mut grid[(i * side + j) * side..][..side];
            let vxy = vx * vy;
            for (value, vz) in row[z.first..z.first + z.count].iter_mut().zip(&z.factors) {
                *value += vxy * vz * (1.0 - *value);
            }
        }
    }
}

/// The voxels along one axis that an atom touches, with its Gaussian there; the density is a product over axes.
struct Reach {
    first: usize,
    count: usize,
    factors: [f64; WINDOW as usize],
}

impl Reach {
    fn of(coordinate: f64, side: usize) -> Self {
        let u = coordinate / RESOLUTION_ANGSTROM + ORIGIN;
        let nothing = Self {
            first: 0,
            count: 0,
            factors: [0.0; WINDOW as usize],
        };
        // Far outside the window cannot meet the grid, and indices would overflow.
        if !u.is_finite() || u.abs() > 1e6 {
            return nothing;
        }
        let origin = 66 - (side / 2) as i64;
        let low = u.floor() as i64 - WINDOW_BELOW - origin;
        let (first, end) = (low.max(0), (low + WINDOW).min(side as i64));
        if first >= end {
            return nothing;
        }
        let width = WIDTH_FACTOR * RADIUS_ANGSTROM / RESOLUTION_ANGSTROM;
        let mut reach = Self {
            first: first as usize,
            count: (end - first) as usize,
            ..nothing
        };
        for (i, factor) in (first..end).zip(&mut reach.factors) {
            let delta = (u - ((i + origin) as f64 + RESOLUTION_ANGSTROM / 2.0)) / width;
            *factor = (-delta * delta).exp();
        }
        reach
    }

    fn values(&self) -> impl Iterator<Item = (usize, f64)> {
        self.factors[..self.count]
            .iter()
            .enumerate()
            .map(|(i, &v)| (self.first + i, v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seed, seed::uniform};

    /// The formula voxel by voxel: no window arithmetic, no separation, the product written out.
    fn slowly(atoms: &[VoxelAtom], channels: usize, side: usize) -> Vec<f64> {
        let mut density = Vec::new();
        for channel in 0..channels {
            for voxel in 0..side * side * side {
                let index = [voxel / side / side, voxel / side % side, voxel % side]
                    .map(|i| (i + 66) as f64 - (side / 2) as f64);
                let mut empty = 1.0;
                for atom in atoms.iter().filter(|a| a.channel == channel) {
                    let u = atom.position.map(|p| p / 0.25 + 65.0);
                    let inside = (0..3)
                        .all(|k| u[k].floor() - 4.0 <= index[k] && index[k] <= u[k].floor() + 6.0);
                    let d2: f64 = (0..3).map(|k| (u[k] - (index[k] + 0.125)).powi(2)).sum();
                    empty *= if inside {
                        1.0 - (-d2 / (1.86 * 1.86)).exp()
                    } else {
                        1.0
                    };
                }
                density.push(1.0 - empty);
            }
        }
        density
    }

    fn molecule(atoms: usize, spread: f64) -> Vec<VoxelAtom> {
        let mut stream = Seed::new(3).stream("atoms");
        let mut draw = || (2.0 * uniform(&mut stream) - 1.0) * spread;
        (0..atoms)
            .map(|i| VoxelAtom {
                position: [draw(), draw(), draw()],
                channel: i % 3,
            })
            .collect()
    }

    #[test]
    fn densities_equal_the_formula_voxel_by_voxel() {
        // Close atoms overlap; wide ones lie at the edges and outside; sides odd in their half.
        for (side, spread) in [(8, 0.8), (16, 1.5), (18, 4.0), (22, 9.0)] {
            let atoms = molecule(14, spread);
            let mut density = vec![f64::NAN; 3 * side * side * side];
            voxelise(&atoms, side, &mut density);
            for (fast, slow) in density.iter().zip(slowly(&atoms, 3, side)) {
                // Numbers up to one, 1 − Π(1 − v) rounds each factor at 1e-16.
                assert!((fast - slow).abs() < 2e-15, "{fast} {slow} at side {side}");
            }
        }
    }

    #[test]
    fn an_isolated_atom_has_the_published_sums() {
        let mut density = vec![0.0; 32 * 32 * 32];
        voxelise(
            &[VoxelAtom {
                position: [0.1, 0.03, -0.08],
                channel: 0,
            }],
            32,
            &mut density,
        );
        let sum: f64 = density.iter().sum();
        let squares: f64 = density.iter().map(|v| v * v).sum();
        // (1.86 √π)³ = 35.83 and (1.86 √(π/2))³ = 12.67 voxels; the window cuts off 1e-3 of them.
        let (whole, half) = (
            (1.86 * std::f64::consts::PI.sqrt()).powi(3),
            (1.86 * (std::f64::consts::PI / 2.0).sqrt()).powi(3),
        );
        assert!(
            (sum / whole - 1.0).abs() < 2e-3 && (squares / half - 1.0).abs() < 1e-4,
            "{sum} {squares}"
        );
    }

    #[test]
    fn an_atom_on_a_voxel_centre_gives_one_and_one_far_outside_gives_nothing() {
        // The centre of index i lies at (i − G/2 + 1.125) h.
        let mut density = vec![0.0; 16 * 16 * 16];
        let centre = |i: f64| (i - 8.0 + 1.125) * 0.25;
        voxelise(
            &[VoxelAtom {
                position: [centre(5.0), centre(9.0), centre(2.0)],
                channel: 0,
            }],
            16,
            &mut density,
        );
        assert_eq!(density[(5 * 16 + 9) * 16 + 2], 1.0);
        for far in [17.0, -400.0, 1e300, f64::INFINITY] {
            voxelise(
                &[VoxelAtom {
                    position: [far, 0.0, 0.0],
                    channel: 0,
                }],
                16,
                &mut density,
            );
            assert!(density.iter().all(|&v| v == 0.0));
        }
    }
}
