//! Principal axes of a cloud of points, and the frames that they give: rotations that depend on the cloud alone and turn with it.
//!
//! With the orthonormal eigenvectors `v₁, v₂, v₃` of the scatter `Σ (x − c)(x − c)ᵀ` about the centroid `c` (no masses), the largest
//! eigenvalue first, a frame is a rotation `F` whose rows are `±v₁, ±v₂, ±v₃`: `F x` are coordinates along the axes. Of the cloud `R x` the
//! frames are `F R⁻¹`, so `F⁻¹ f(F x)` is exactly equivariant whatever `f` is. Four of the eight choices of signs are proper rotations:
//! their mean is frame averaging (Puny et al. 2022), one of them chosen by a convention is canonicalisation.

use crate::Rotation;

/// The principal axes of a cloud.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PrincipalAxes {
    /// Mean squared distances from the centroid along the axes, the largest first.
    pub variances: [f64; 3],
    /// The four frames. The first is the canonical one: the first and the second axis point where the third moments are positive.
    pub frames: [Rotation; 4],
}

/// Third moments below this share of `Σ |p|³` are rounding (1e-16 for each of a million points at most): they choose no sign.
const NO_THIRD_MOMENT: f64 = 1e-9;

impl PrincipalAxes {
    /// Those of points `[points, 3]`, laid out row after row; of none, or of one, the axes of coordinates.
    #[must_use]
    pub fn of(points: &[f64]) -> Self {
        let count = (points.len() / 3).max(1) as f64;
        let rows = || points.chunks_exact(3);
        let mut centroid = [0.0; 3];
        rows().for_each(|x| (0..3).for_each(|i| centroid[i] += x[i] / count));
        let centred: Vec<[f64; 3]> = rows()
            .map(|x| [0, 1, 2].map(|i| x[i] - centroid[i]))
            .collect();
        let scatter = [0, 1, 2]
            .map(|i| [0, 1, 2].map(|j| centred.iter().map(|x| x[i] * x[j]).sum::<f64>() / count));
        let (variances, [first, second, _]) = symmetric_eigen(scatter);
        let [first, second] = [first, second].map(|axis| directed(axis, &centred));
        let canonical = Rotation([first, second, cross(first, second)]);
        let signs = [
            [1.0, 1.0, 1.0],
            [1.0, -1.0, -1.0],
            [-1.0, 1.0, -1.0],
            [-1.0, -1.0, 1.0],
        ];
        let frame = |signs: [f64; 3]| {
            Rotation([0, 1, 2].map(|axis| canonical.0[axis].map(|v| signs[axis] * v)))
        };
        Self {
            variances,
            frames: signs.map(frame),
        }
    }

    /// The smallest difference of two variances over the largest variance, between 0 and 1: where it vanishes, axes are not defined, and
    /// near there they jump. 0 for a cloud without extent.
    #[must_use]
    pub fn relative_gap(&self) -> f64 {
        let [a, b, c] = self.variances;
        if a > 0.0 { (a - b).min(b - c) / a } else { 0.0 }
    }
}

/// The axis or its opposite: where the third moment is positive. Where there is none, where the first far point of the cloud lies: this
/// too turns with the cloud, but needs the order of its points.
fn directed(axis: [f64; 3], centred: &[[f64; 3]]) -> [f64; 3] {
    let along: Vec<f64> = centred.iter().map(|x| dot(axis, *x)).collect();
    let third: f64 = along.iter().map(|p| p.powi(3)).sum();
    let size: f64 = along.iter().map(|p| p.abs().powi(3)).sum();
    let farthest = along.iter().fold(0.0_f64, |most, p| most.max(p.abs()));
    // Half as far as the farthest is far: rounding does not change which point is the first.
    let far = || along.iter().find(|p| p.abs() > 0.5 * farthest);
    let is_opposite = if third.abs() > NO_THIRD_MOMENT * size {
        third < 0.0
    } else {
        far().is_some_and(|p| *p < 0.0)
    };
    axis.map(|v| if is_opposite { -v } else { v })
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

fn cross(a: [f64; 3], b: [f64; 3]) -> [f64; 3] {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

/// Sweeps at most: convergence is quadratic, a few suffice.
const SWEEPS: usize = 30;

/// Eigenvalues of a symmetric matrix, the largest first, and an orthonormal eigenvector for each: cyclic Jacobi rotations.
#[must_use]
pub fn symmetric_eigen(matrix: [[f64; 3]; 3]) -> ([f64; 3], [[f64; 3]; 3]) {
    let (mut a, mut vectors) = (matrix, Rotation::IDENTITY.0);
    let size = matrix.iter().flatten().map(|v| v * v).sum::<f64>();
    for _ in 0..SWEEPS {
        let off: f64 = [(0, 1), (0, 2), (1, 2)]
            .iter()
            .map(|&(p, q)| a[p][q] * a[p][q])
            .sum();
        if off <= size * f64::EPSILON * f64::EPSILON {
            break;
        }
        for (p, q) in [(0, 1), (0, 2), (1, 2)] {
            annihilate(&mut a, &mut vectors, p, q);
        }
    }
    let mut order = [0, 1, 2];
    order.sort_by(|&i, &j| a[j][j].total_cmp(&a[i][i]));
    (order.map(|i| a[i][i]), order.map(|i| vectors[i]))
}

/// Rotates rows and columns `p` and `q` so that the entry between them vanishes. Rows of `vectors` are eigenvectors in the end.
fn annihilate(a: &mut [[f64; 3]; 3], vectors: &mut [[f64; 3]; 3], p: usize, q: usize) {
    if a[p][q] == 0.0 {
        return;
    }
    // The smaller root t of t² + 2 θ t = 1, the tangent of the angle (Golub and Van Loan, section 8.5).
    let theta = (a[q][q] - a[p][p]) / (2.0 * a[p][q]);
    let t = 1.0_f64.copysign(theta) / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for row in a.iter_mut() {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
    for rows in [a, vectors] {
        let (one, other) = (rows[p], rows[q]);
        rows[p] = [0, 1, 2].map(|k| c * one[k] - s * other[k]);
        rows[q] = [0, 1, 2].map(|k| s * one[k] + c * other[k]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seed, seed::uniform};
    use proptest::prelude::*;

    fn cloud(points: usize, seed: u64) -> Vec<f64> {
        let mut stream = Seed::new(seed).stream("cloud");
        let mut draw = || uniform(&mut stream);
        (0..3 * points)
            .map(|i| (1.0 + (i % 3) as f64) * draw().powi(2))
            .collect()
    }

    fn moved(points: &[f64], rotation: &Rotation, by: [f64; 3]) -> Vec<f64> {
        let rotated = points
            .chunks_exact(3)
            .map(|x| rotation.apply([x[0], x[1], x[2]]));
        rotated
            .flat_map(|x| [x[0] + by[0], x[1] + by[1], x[2] + by[2]])
            .collect()
    }

    #[test]
    fn a_diagonal_matrix_has_its_entries_in_order_and_the_axes_of_coordinates() {
        let (values, vectors) =
            symmetric_eigen([[2.0, 0.0, 0.0], [0.0, 5.0, 0.0], [0.0, 0.0, -1.0]]);
        assert_eq!(values, [5.0, 2.0, -1.0]);
        assert_eq!(vectors, [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
    }

    #[test]
    fn a_matrix_of_known_eigenvalues_has_them() {
        // The chain [[2, -1, 0], [-1, 2, -1], [0, -1, 2]]: 2 + √2, 2, 2 − √2.
        let (values, vectors) =
            symmetric_eigen([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]]);
        let root = 2.0_f64.sqrt();
        for (value, truth) in values.iter().zip([2.0 + root, 2.0, 2.0 - root]) {
            // Some ten roundings of numbers up to 4.
            assert!((value - truth).abs() < 4e-15, "{values:?}");
        }
        // (1, −√2, 1)/2 belongs to the largest.
        let first = vectors[0].map(|v| v * vectors[0][0].signum());
        for (v, truth) in first.iter().zip([0.5, -0.5 * root, 0.5]) {
            assert!((v - truth).abs() < 4e-15, "{vectors:?}");
        }
    }

    #[test]
    fn a_multiple_of_the_identity_and_nothing_at_all_keep_the_axes_of_coordinates() {
        for matrix in [
            [[3.0, 0.0, 0.0], [0.0, 3.0, 0.0], [0.0, 0.0, 3.0]],
            [[0.0; 3]; 3],
        ] {
            let (values, vectors) = symmetric_eigen(matrix);
            assert_eq!((values, vectors), ([matrix[0][0]; 3], Rotation::IDENTITY.0));
        }
    }

    proptest! {
        #[test]
        fn a_matrix_made_of_eigenvalues_and_a_rotation_is_taken_apart_again(
            seed in 0u64..1000, scale in -6i32..6, close in prop::bool::ANY
        ) {
            let mut stream = Seed::new(seed).stream("matrix");
            let scale = 10.0_f64.powi(scale);
            let mut truth = [(); 3].map(|()| scale * (uniform(&mut stream) - 0.3));
            if close {
                truth[1] = truth[0] * (1.0 + 1e-12);
            }
            truth.sort_by(|a, b| b.total_cmp(a));
            let r = Rotation::haar(&mut stream);
            let matrix = [0, 1, 2].map(|i| [0, 1, 2].map(|j| {
                (0..3).map(|k| r.0[k][i] * truth[k] * r.0[k][j]).sum::<f64>()
            }));
            let (values, vectors) = symmetric_eigen(matrix);
            for (k, vector) in vectors.iter().enumerate() {
                // 1e-14 of the largest: a dozen roundings in a few sweeps.
                prop_assert!((values[k] - truth[k]).abs() < 1e-14 * scale);
                let image = matrix.map(|row| dot(row, *vector));
                for i in 0..3 {
                    prop_assert!((image[i] - values[k] * vector[i]).abs() < 1e-14 * scale);
                }
                for (l, other) in vectors.iter().enumerate() {
                    let expected = if k == l { 1.0 } else { 0.0 };
                    prop_assert!((dot(*vector, *other) - expected).abs() < 1e-14);
                }
            }
        }

        #[test]
        fn frames_turn_with_the_cloud_and_do_not_move_with_it(seed in 0u64..200) {
            let points = cloud(9, seed);
            let mut stream = Seed::new(seed).stream("motion");
            let r = Rotation::haar(&mut stream);
            let (before, after) = (
                PrincipalAxes::of(&points),
                PrincipalAxes::of(&moved(&points, &r, [3.0, -1.0, 0.5])),
            );
            // Axes are known to rounding over the gap.
            prop_assume!(before.relative_gap() > 1e-3);
            for (f, g) in before.frames.iter().zip(&after.frames) {
                prop_assert!(g.compose(&r).distance(f) < 1e-11);
                prop_assert!((f.determinant() - 1.0).abs() < 1e-14);
            }
        }
    }

    #[test]
    fn coordinates_along_the_axes_are_uncorrelated_with_the_variances_and_positive_third_moments() {
        let points = cloud(12, 4);
        let axes = PrincipalAxes::of(&points);
        let along = moved(&points, &axes.frames[0], [0.0; 3]);
        let mean = [0, 1, 2].map(|i| along.iter().skip(i).step_by(3).sum::<f64>() / 12.0);
        let moment = |powers: [i32; 3]| {
            let of = |x: &[f64]| {
                (0..3)
                    .map(|i| (x[i] - mean[i]).powi(powers[i]))
                    .product::<f64>()
            };
            along.chunks_exact(3).map(of).sum::<f64>() / 12.0
        };
        for (i, powers) in [[2, 0, 0], [0, 2, 0], [0, 0, 2]].into_iter().enumerate() {
            assert!((moment(powers) - axes.variances[i]).abs() < 1e-14);
        }
        for powers in [[1, 1, 0], [1, 0, 1], [0, 1, 1]] {
            assert!(moment(powers).abs() < 1e-14);
        }
        assert!(axes.variances[0] > axes.variances[1] && axes.variances[1] > axes.variances[2]);
        assert!(moment([3, 0, 0]) > 0.0 && moment([0, 3, 0]) > 0.0);
    }

    #[test]
    fn without_third_moments_the_first_far_point_tells_the_direction() {
        // A rectangle: symmetric along both of its axes.
        let points = [
            -2.0, -1.0, 0.0, -2.0, 1.0, 0.0, 2.0, 1.0, 0.0, 2.0, -1.0, 0.0,
        ];
        for k in 0..20 {
            let r = Rotation::haar(&mut Seed::new(k).stream("r"));
            let axes = PrincipalAxes::of(&moved(&points, &r, [1.0, 2.0, 3.0]));
            let first = axes.frames[0].apply(r.apply([-2.0, -1.0, 0.0]));
            assert!((first[0] - 2.0).abs() < 1e-14 && (first[1] - 1.0).abs() < 1e-14);
        }
    }

    #[test]
    fn the_gap_is_that_of_the_closest_two_and_none_where_axes_are_not_defined() {
        let line = [-1.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        assert_eq!(PrincipalAxes::of(&line).relative_gap(), 0.0);
        assert_eq!(PrincipalAxes::of(&[1.0, 2.0, 3.0]).relative_gap(), 0.0);
        assert_eq!(PrincipalAxes::of(&[]).frames[0], Rotation::IDENTITY);
        // Points at ±3, ±2, ±1 on the axes: variances 9, 4 and 1 thirds.
        let mut cross = Vec::new();
        for (axis, far) in [3.0, 2.0, 1.0].into_iter().enumerate() {
            for sign in [1.0, -1.0] {
                let mut x = [0.0; 3];
                x[axis] = sign * far;
                cross.extend(x);
            }
        }
        let axes = PrincipalAxes::of(&cross);
        assert!((axes.relative_gap() - 3.0 / 9.0).abs() < 1e-15);
    }
}
