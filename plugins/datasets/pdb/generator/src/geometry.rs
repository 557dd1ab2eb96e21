//! Points in space (ångström), pseudo-bond angles and torsions (degrees), rotations about an axis.
//!
//! Transcendental functions come from `libm` and not from the platform, so that the sample is the same on every machine.

/// A point or a vector in ångström.
pub type Point = [f64; 3];

pub(crate) fn add(a: Point, b: Point) -> Point {
    [a[0] + b[0], a[1] + b[1], a[2] + b[2]]
}

pub(crate) fn sub(a: Point, b: Point) -> Point {
    [a[0] - b[0], a[1] - b[1], a[2] - b[2]]
}

pub(crate) fn scale(a: Point, factor: f64) -> Point {
    [a[0] * factor, a[1] * factor, a[2] * factor]
}

pub(crate) fn dot(a: Point, b: Point) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

pub(crate) fn cross(a: Point, b: Point) -> Point {
    [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ]
}

pub(crate) fn norm(a: Point) -> f64 {
    dot(a, a).sqrt()
}

/// The vector of length one along `a`; the first axis where `a` has no length.
pub(crate) fn unit(a: Point) -> Point {
    let length = norm(a);
    if length > 0.0 {
        scale(a, 1.0 / length)
    } else {
        [1.0, 0.0, 0.0]
    }
}

/// Distance of two points in Å.
#[must_use]
pub fn distance(a: Point, b: Point) -> f64 {
    norm(sub(a, b))
}

/// The pseudo-bond angle at `b` in degrees, 0 to 180.
#[must_use]
pub fn angle_deg(a: Point, b: Point, c: Point) -> f64 {
    let (u, v) = (sub(a, b), sub(c, b));
    libm::atan2(norm(cross(u, v)), dot(u, v)).to_degrees()
}

/// The pseudo-torsion about the bond `b`–`c` in degrees, -180 to 180; positive for a right-handed helix.
#[must_use]
pub fn torsion_deg(a: Point, b: Point, c: Point, d: Point) -> f64 {
    let (u, v, w) = (sub(b, a), sub(c, b), sub(d, c));
    let (m, n) = (cross(u, v), cross(v, w));
    libm::atan2(norm(v) * dot(u, n), dot(m, n)).to_degrees()
}

/// A difference of angles brought into -180 to 180 degrees.
pub(crate) fn wrapped_deg(difference: f64) -> f64 {
    difference - 360.0 * libm::round(difference / 360.0)
}

/// Root mean square distance from the centroid, in Å.
#[must_use]
pub fn radius_of_gyration(points: &[Point]) -> f64 {
    let n = points.len() as f64;
    let centre = scale(points.iter().fold([0.0; 3], |sum, &p| add(sum, p)), 1.0 / n);
    (points
        .iter()
        .map(|&p| dot(sub(p, centre), sub(p, centre)))
        .sum::<f64>()
        / n)
        .sqrt()
}

/// A proper rotation, rows of its matrix.
#[derive(Clone, Copy)]
pub(crate) struct Turn([Point; 3]);

impl Turn {
    /// Rodrigues' formula: by `angle` radians about the unit vector `axis`, counterclockwise when the axis points at the viewer.
    pub(crate) fn about(axis: Point, angle: f64) -> Self {
        let [x, y, z] = axis;
        let (s, c) = (libm::sin(angle), libm::cos(angle));
        let k = 1.0 - c;
        Self([
            [c + k * x * x, k * x * y - s * z, k * x * z + s * y],
            [k * x * y + s * z, c + k * y * y, k * y * z - s * x],
            [k * x * z - s * y, k * y * z + s * x, c + k * z * z],
        ])
    }

    /// The rotation of a quaternion `[w, x, y, z]` of any length but zero.
    pub(crate) fn of_quaternion(q: [f64; 4]) -> Self {
        let s = 2.0 / q.iter().map(|x| x * x).sum::<f64>();
        let [w, x, y, z] = q;
        Self([
            [
                1.0 - s * (y * y + z * z),
                s * (x * y - w * z),
                s * (x * z + w * y),
            ],
            [
                s * (x * y + w * z),
                1.0 - s * (x * x + z * z),
                s * (y * z - w * x),
            ],
            [
                s * (x * z - w * y),
                s * (y * z + w * x),
                1.0 - s * (x * x + y * y),
            ],
        ])
    }

    pub(crate) fn apply(&self, p: Point) -> Point {
        self.0.map(|row| dot(row, p))
    }

    /// Turns `p` about an axis through `centre`.
    pub(crate) fn apply_at(&self, centre: Point, p: Point) -> Point {
        add(centre, self.apply(sub(p, centre)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The helix `(r cos a, r sin a, c a)` is right-handed for positive `c`; its chord and torsion have closed forms.
    #[test]
    fn a_right_handed_helix_has_the_angles_of_its_closed_form() {
        let (radius, turn, rise) = (2.3, 100f64.to_radians(), 1.5);
        let p: Vec<Point> = (0..4)
            .map(|k| f64::from(k) * turn)
            .map(|a| [radius * a.cos(), radius * a.sin(), rise * a / turn])
            .collect();
        let chord = (2.0 * radius * radius * (1.0 - turn.cos()) + rise * rise).sqrt();
        assert!(
            (distance(p[0], p[1]) - chord).abs() < 1e-12,
            "rounding only"
        );
        let far = 2.0 * radius * radius * (1.0 - (2.0 * turn).cos()) + 4.0 * rise * rise;
        let expected = (1.0 - far / (2.0 * chord * chord)).acos().to_degrees();
        assert!(
            (angle_deg(p[0], p[1], p[2]) - expected).abs() < 1e-10,
            "law of cosines, rounding only"
        );
        // Three successive bonds of a helix: tan(torsion) with the chord's slope, here from the angle between the plane normals.
        let torsion = torsion_deg(p[0], p[1], p[2], p[3]);
        let (m, n) = (
            cross(sub(p[1], p[0]), sub(p[2], p[1])),
            cross(sub(p[2], p[1]), sub(p[3], p[2])),
        );
        assert!(
            (torsion - (dot(m, n) / norm(m) / norm(n)).acos().to_degrees()).abs() < 1e-10,
            "rounding only"
        );
        let mirrored: Vec<Point> = p.iter().map(|q| [q[0], q[1], -q[2]]).collect();
        assert!(
            (torsion + torsion_deg(mirrored[0], mirrored[1], mirrored[2], mirrored[3])).abs()
                < 1e-10,
            "a mirror turns the sign"
        );
    }

    #[test]
    fn rotations_keep_lengths_and_handedness() {
        let axis = unit([1.0, -2.0, 0.5]);
        let (s, c) = ((0.35f64).sin(), (0.35f64).cos());
        for turn in [
            Turn::about(axis, 0.7),
            Turn::of_quaternion([c, s * axis[0], s * axis[1], s * axis[2]]),
        ] {
            let [x, y, z] =
                [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(|e| turn.apply(e));
            assert!(norm(sub(cross(x, y), z)) < 1e-15 * 10.0, "a few roundings");
            assert!(
                norm(sub(turn.apply(axis), axis)) < 1e-15 * 10.0,
                "a few roundings"
            );
            // The plane across the axis turns by 0.7 rad: trace = 1 + 2 cos(0.7).
            assert!(
                (x[0] + y[1] + z[2] - 1.0 - 2.0 * 0.7f64.cos()).abs() < 1e-14,
                "a few roundings"
            );
        }
    }
}
