//! The subspace of parameters with which the network commutes with the rotations of the cube.
//!
//! A convolution that keeps or doubles the side commutes with a rotation where its kernel looks the same after it. One that halves the
//! side looks at every second voxel from the first on, which a half turn maps onto the others: it commutes where it is the mean over
//! the eight voxels that become one. Everything else commutes as it is.

/// What a kernel must be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Constraint {
    /// The same on all taps that a rotation maps onto each other.
    Symmetric,
    /// The same on the eight taps that become one voxel, 0 on the others.
    Mean,
    /// Anything.
    Free,
}

/// The constraint on a parameter by its name and shape: stages that halve the side are the only ones with `conv.weight` of three taps.
fn constraint(name: &str, shape: &[usize]) -> Constraint {
    match shape {
        [_, _, 3, 3, 3] if name.ends_with(".conv.weight") => Constraint::Mean,
        [_, _, 3, 3, 3] | [_, _, 4, 4, 4] => Constraint::Symmetric,
        _ => Constraint::Free,
    }
}

/// Projects a parameter onto the subspace, in place: the nearest point of it.
pub(crate) fn project(name: &str, shape: &[usize], values: &mut [f64]) {
    let side = shape.last().copied().unwrap_or(1);
    let (orbits, zeroed) = match constraint(name, shape) {
        Constraint::Free => return,
        Constraint::Symmetric => (orbits(side), Vec::new()),
        Constraint::Mean => {
            let inside = |&tap: &usize| coordinates(side, tap).iter().all(|&c| c > 0);
            let (kept, zeroed) = (0..side.pow(3)).partition(inside);
            (vec![kept], zeroed)
        }
    };
    for kernel in values.chunks_exact_mut(side.pow(3)) {
        for orbit in &orbits {
            let mean = orbit.iter().map(|&tap| kernel[tap]).sum::<f64>() / orbit.len() as f64;
            orbit.iter().for_each(|&tap| kernel[tap] = mean);
        }
        zeroed.iter().for_each(|&tap| kernel[tap] = 0.0);
    }
}

fn coordinates(side: usize, tap: usize) -> [usize; 3] {
    [tap / (side * side), tap / side % side, tap % side]
}

/// The taps of a cubic kernel, collected by what the rotations about its centre map onto each other: those with the same distances from
/// the centre along the axes, in any order. (Mirror images are among them up to a side of 5.)
fn orbits(side: usize) -> Vec<Vec<usize>> {
    let mut orbits = std::collections::BTreeMap::<[usize; 3], Vec<usize>>::new();
    for tap in 0..side.pow(3) {
        let mut distances = coordinates(side, tap).map(|c| (2 * c).abs_diff(side - 1));
        distances.sort_unstable();
        orbits.entry(distances).or_default().push(tap);
    }
    orbits.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The 24 rotations of the cube: signed permutations of the axes with determinant 1.
    fn rotations() -> Vec<[[i64; 3]; 3]> {
        let mut found = Vec::new();
        for (order, parity) in [
            ([0, 1, 2], 1),
            ([1, 2, 0], 1),
            ([2, 0, 1], 1),
            ([0, 2, 1], -1),
            ([2, 1, 0], -1),
            ([1, 0, 2], -1),
        ] {
            for signs in 0..8 {
                let sign = |axis: usize| if signs >> axis & 1 == 1 { -1 } else { 1 };
                if sign(0) * sign(1) * sign(2) == parity {
                    found.push([0, 1, 2].map(|row| {
                        [0, 1, 2].map(|column| if order[row] == column { sign(row) } else { 0 })
                    }));
                }
            }
        }
        found
    }

    /// The kernel after a rotation: the mean over all of these is the definition of the projection.
    fn rotated(kernel: &[f64], side: usize, rotation: &[[i64; 3]; 3]) -> Vec<f64> {
        let mut turned = vec![0.0; kernel.len()];
        for (tap, value) in kernel.iter().enumerate() {
            let centred = coordinates(side, tap).map(|c| 2 * c as i64 - (side as i64 - 1));
            let moved =
                rotation.map(|row| (0..3).map(|axis| row[axis] * centred[axis]).sum::<i64>());
            let [x, y, z] = moved.map(|c| ((c + side as i64 - 1) / 2) as usize);
            turned[(x * side + y) * side + z] = *value;
        }
        turned
    }

    fn numbers(count: usize, seed: u64) -> Vec<f64> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }

    const KERNELS: [(&str, [usize; 5]); 4] = [
        ("down.0.res.conv1.weight", [2, 3, 3, 3, 3]),
        ("down.2.conv.weight", [2, 2, 3, 3, 3]),
        ("up.3.conv.weight", [2, 2, 4, 4, 4]),
        ("up.3.res.shortcut.weight", [2, 5, 1, 1, 1]),
    ];

    #[test]
    fn kernels_become_the_mean_of_their_24_rotations() {
        assert_eq!(rotations().len(), 24);
        for (name, shape) in [KERNELS[0], KERNELS[2]] {
            let side = shape[4];
            let given = numbers(shape.iter().product(), 3);
            let mut projected = given.clone();
            project(name, &shape, &mut projected);
            for (given, projected) in given
                .chunks_exact(side.pow(3))
                .zip(projected.chunks_exact(side.pow(3)))
            {
                let turned: Vec<Vec<f64>> = rotations()
                    .iter()
                    .map(|r| rotated(given, side, r))
                    .collect();
                let mean = |tap: usize| turned.iter().map(|t| t[tap]).sum::<f64>() / 24.0;
                // Two orders of adding 24 numbers below 1.
                assert!(
                    projected
                        .iter()
                        .enumerate()
                        .all(|(tap, p)| (p - mean(tap)).abs() < 1e-15),
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn kernels_have_four_orbits() {
        let sizes = |side: usize| orbits(side).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(3), [1, 6, 12, 8]);
        assert_eq!(sizes(4), [8, 24, 24, 8]);
    }

    #[test]
    fn the_projection_is_idempotent_and_orthogonal() {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        for (name, shape) in KERNELS {
            let count = shape.iter().product();
            let (a, b) = (numbers(count, 5), numbers(count, 6));
            let projected = |values: &[f64]| {
                let mut values = values.to_vec();
                project(name, &shape, &mut values);
                values
            };
            let (pa, pb) = (projected(&a), projected(&b));
            // Rounding of sums of at most 256 numbers below 1.
            assert!(
                projected(&pa)
                    .iter()
                    .zip(&pa)
                    .all(|(twice, once)| (twice - once).abs() < 1e-15),
                "{name}"
            );
            assert!((dot(&pa, &b) - dot(&a, &pb)).abs() < 1e-13, "{name}");
            let rest: Vec<f64> = a.iter().zip(&pa).map(|(a, p)| a - p).collect();
            assert!(dot(&rest, &pb).abs() < 1e-13, "{name}");
        }
    }

    #[test]
    fn strided_kernels_become_the_mean_over_eight_voxels_and_points_stay() {
        let (name, shape) = KERNELS[1];
        let mut values = numbers(shape.iter().product(), 9);
        let given = values.clone();
        project(name, &shape, &mut values);
        for (given, kernel) in given.chunks_exact(27).zip(values.chunks_exact(27)) {
            let inside = [13, 14, 16, 17, 22, 23, 25, 26];
            let mean = inside.iter().map(|&tap| given[tap]).sum::<f64>() / 8.0;
            assert!(
                (0..27).all(|tap| kernel[tap] == if inside.contains(&tap) { mean } else { 0.0 })
            );
        }
        let (name, shape) = KERNELS[3];
        let mut values = given[..10].to_vec();
        project(name, &shape, &mut values);
        assert_eq!(values, given[..10]);
        assert_eq!(constraint("norm.weight", &[4]), Constraint::Free);
    }
}
