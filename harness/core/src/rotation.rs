//! Rotations of 3-space, and the uniform (Haar) distribution on them.

use crate::seed::uniform;
use rand::Rng;

/// A proper rotation, row major: `T x` has the components `Σ_c m[r][c] x[c]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation(pub [[f64; 3]; 3]);

impl Rotation {
    /// The rotation that changes nothing.
    pub const IDENTITY: Self = Self([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]);

    /// A Haar-distributed rotation: a uniform unit quaternion (Shoemake 1992) from three uniform numbers.
    #[must_use]
    pub fn haar(stream: &mut impl Rng) -> Self {
        let (u, v, w) = (uniform(stream), uniform(stream), uniform(stream));
        let (a, b) = ((1.0 - u).sqrt(), u.sqrt());
        let (s1, c1) = (std::f64::consts::TAU * v).sin_cos();
        let (s2, c2) = (std::f64::consts::TAU * w).sin_cos();
        Self::from_quaternion([b * c2, a * s1, a * c1, b * s2])
    }

    /// The rotation of a unit quaternion `(w, x, y, z)`.
    #[must_use]
    pub fn from_quaternion([w, x, y, z]: [f64; 4]) -> Self {
        Self([
            [
                1.0 - 2.0 * (y * y + z * z),
                2.0 * (x * y - w * z),
                2.0 * (x * z + w * y),
            ],
            [
                2.0 * (x * y + w * z),
                1.0 - 2.0 * (x * x + z * z),
                2.0 * (y * z - w * x),
            ],
            [
                2.0 * (x * z - w * y),
                2.0 * (y * z + w * x),
                1.0 - 2.0 * (x * x + y * y),
            ],
        ])
    }

    /// The rotation by an angle (radian) about an axis of any length but zero.
    #[must_use]
    pub fn about(axis: [f64; 3], angle: f64) -> Self {
        let norm = axis.iter().map(|a| a * a).sum::<f64>().sqrt();
        let (s, c) = (0.5 * angle).sin_cos();
        Self::from_quaternion([
            c,
            s * axis[0] / norm,
            s * axis[1] / norm,
            s * axis[2] / norm,
        ])
    }

    /// The rotation by an angle in degrees about coordinate axis 0, 1 or 2 (x, y, z). Multiples of 90 degrees are exact, so that they
    /// permute voxels.
    ///
    /// # Panics
    /// On another axis.
    #[must_use]
    pub fn about_coordinate(axis: usize, degrees: f64) -> Self {
        let (s, c) = match degrees.rem_euclid(360.0) {
            0.0 => (0.0, 1.0),
            90.0 => (1.0, 0.0),
            180.0 => (0.0, -1.0),
            270.0 => (-1.0, 0.0),
            other => other.to_radians().sin_cos(),
        };
        let (from, to) = ((axis + 1) % 3, (axis + 2) % 3);
        let mut m = Self::IDENTITY.0;
        (m[axis][axis], m[from][from], m[to][to]) = (1.0, c, c);
        (m[from][to], m[to][from]) = (-s, s);
        Self(m)
    }

    /// `T x`.
    #[must_use]
    pub fn apply(&self, x: [f64; 3]) -> [f64; 3] {
        self.0
            .map(|row| row[0] * x[0] + row[1] * x[1] + row[2] * x[2])
    }

    /// `T⁻¹`, the transpose.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let m = &self.0;
        Self([
            [m[0][0], m[1][0], m[2][0]],
            [m[0][1], m[1][1], m[2][1]],
            [m[0][2], m[1][2], m[2][2]],
        ])
    }

    /// `self ∘ other`: first `other`, then `self`.
    #[must_use]
    pub fn compose(&self, other: &Self) -> Self {
        let columns = other.inverse();
        Self(self.0.map(|row| {
            columns
                .0
                .map(|column| row[0] * column[0] + row[1] * column[1] + row[2] * column[2])
        }))
    }

    /// The trace, `1 + 2 cos(angle)`.
    #[must_use]
    pub fn trace(&self) -> f64 {
        self.0[0][0] + self.0[1][1] + self.0[2][2]
    }

    /// The determinant, 1 for a proper rotation.
    #[must_use]
    pub fn determinant(&self) -> f64 {
        let m = &self.0;
        m[0][0] * (m[1][1] * m[2][2] - m[1][2] * m[2][1])
            - m[0][1] * (m[1][0] * m[2][2] - m[1][2] * m[2][0])
            + m[0][2] * (m[1][0] * m[2][1] - m[1][1] * m[2][0])
    }

    /// Largest difference of an entry.
    #[must_use]
    pub fn distance(&self, other: &Self) -> f64 {
        self.0
            .iter()
            .flatten()
            .zip(other.0.iter().flatten())
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max)
    }

    /// The signed permutation `axis r of T x = sign[r] · x[source[r]]`, if this rotation maps axes to axes exactly.
    #[must_use]
    pub fn as_signed_permutation(&self) -> Option<[(usize, bool); 3]> {
        let mut found = [(0, false); 3];
        for (r, row) in self.0.iter().enumerate() {
            let c = row.iter().position(|v| v.abs() == 1.0)?;
            if row.iter().enumerate().any(|(k, v)| k != c && *v != 0.0) {
                return None;
            }
            found[r] = (c, row[c] < 0.0);
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Seed;

    #[test]
    fn haar_rotations_are_orthogonal_and_proper() {
        let mut stream = Seed::new(1).stream("test");
        for _ in 0..1000 {
            let r = Rotation::haar(&mut stream);
            // 1e-14: a few roundings of numbers of order one.
            assert!(r.compose(&r.inverse()).distance(&Rotation::IDENTITY) < 1e-14);
            assert!((r.determinant() - 1.0).abs() < 1e-14);
        }
    }

    #[test]
    fn haar_characters_average_to_zero_and_their_squares_to_one() {
        // Orthogonality of characters: E[tr T] = 0 and E[(tr T)²] = 1 on SO(3), Var[(tr T)²] = 2.
        let mut stream = Seed::new(2).stream("test");
        let n = 100_000;
        let traces: Vec<f64> = (0..n)
            .map(|_| Rotation::haar(&mut stream).trace())
            .collect();
        let mean = traces.iter().sum::<f64>() / f64::from(n);
        let square = traces.iter().map(|t| t * t).sum::<f64>() / f64::from(n);
        // Five standard errors: 1/√n and √2/√n.
        assert!(mean.abs() < 5.0 / f64::from(n).sqrt(), "{mean}");
        assert!(
            (square - 1.0).abs() < 5.0 * (2.0 / f64::from(n)).sqrt(),
            "{square}"
        );
    }

    #[test]
    fn a_quarter_turn_about_z_maps_x_to_y() {
        let r = Rotation::about([0.0, 0.0, 2.0], std::f64::consts::FRAC_PI_2);
        let y = r.apply([1.0, 0.0, 0.0]);
        assert!((y[1] - 1.0).abs() < 1e-15 && y[0].abs() < 1e-15);
    }
}
