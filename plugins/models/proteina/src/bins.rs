//! Classes of numbers: distances between equally spaced boundaries, differences of residue numbers. Pure functions on the host.
//!
//! Distances and boundaries are rounded to the precision of the model before they are compared, so that a distance on a boundary
//! falls where it would fall on the device.

use equivbench_plugin::Precision;

/// Boundaries of classes of distances.
#[derive(Clone, Debug)]
pub(crate) struct Boundaries {
    values: Vec<f64>,
    per_unit: f64,
}

impl Boundaries {
    /// `classes - 1` boundaries, equally spaced from `from` to `to` inclusive, rounded to a precision.
    pub(crate) fn new(from: f64, to: f64, classes: usize, precision: Precision) -> Self {
        let steps = classes.saturating_sub(2).max(1) as f64;
        let exact = |k: usize| from + (to - from) * (k as f64 / steps);
        Self {
            values: (0..classes - 1)
                .map(|k| round(exact(k), precision))
                .collect(),
            per_unit: steps / (to - from),
        }
    }

    /// The number of boundaries that are strictly smaller; 0 for NaN.
    pub(crate) fn class(&self, distance: f64) -> usize {
        let guess = (distance - self.values[0]) * self.per_unit;
        let mut class = (guess.max(0.0) as usize).min(self.values.len());
        while class > 0 && self.values[class - 1] >= distance {
            class -= 1;
        }
        while class < self.values.len() && self.values[class] < distance {
            class += 1;
        }
        class
    }
}

fn round(x: f64, precision: Precision) -> f64 {
    match precision {
        Precision::F32 | Precision::Bf16 => f64::from(x as f32),
        Precision::F64 => x,
    }
}

/// Points `[n, 3]` in the precision of a model.
#[derive(Clone, Debug)]
pub(crate) struct Cloud<'a> {
    points: &'a [f64],
    precision: Precision,
}

impl<'a> Cloud<'a> {
    /// Takes coordinates, three to a point.
    pub(crate) fn new(points: &'a [f64], precision: Precision) -> Self {
        Self { points, precision }
    }

    /// The precision in which distances are computed.
    pub(crate) fn precision(&self) -> Precision {
        self.precision
    }

    /// The distance of two points, every operation in the precision of the model.
    pub(crate) fn distance(&self, i: usize, j: usize) -> f64 {
        let (a, b) = (
            &self.points[3 * i..3 * i + 3],
            &self.points[3 * j..3 * j + 3],
        );
        match self.precision {
            Precision::F64 => a
                .iter()
                .zip(b)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f64>()
                .sqrt(),
            Precision::F32 | Precision::Bf16 => {
                let square = |(a, b): (&f64, &f64)| {
                    let difference = *a as f32 - *b as f32;
                    difference * difference
                };
                f64::from(a.iter().zip(b).map(square).sum::<f32>().sqrt())
            }
        }
    }
}

/// The class of a difference of residue numbers, row minus column, among an odd number of classes around 0.
pub(crate) fn separation_class(row: i64, column: i64, classes: usize) -> usize {
    let middle = (classes / 2) as i64;
    (row.saturating_sub(column).clamp(-middle, middle) + middle) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, one boundary at a time.
    fn counted(distance: f64, from: f64, to: f64, classes: usize) -> usize {
        (0..classes - 1)
            .filter(|&k| from + (to - from) * k as f64 / (classes - 2) as f64 <= distance - 1e-12)
            .count()
    }

    #[test]
    fn a_class_is_the_number_of_smaller_boundaries() {
        let boundaries = Boundaries::new(0.1, 3.0, 64, Precision::F64);
        for step in 0..4000 {
            // Irrational multiples: none on a boundary.
            let distance = f64::from(step) * 1e-3 * std::f64::consts::FRAC_1_SQRT_2 * 1.3;
            assert_eq!(
                boundaries.class(distance),
                counted(distance, 0.1, 3.0, 64),
                "{distance}"
            );
        }
        assert_eq!(
            [
                boundaries.class(0.0),
                boundaries.class(1e300),
                boundaries.class(f64::INFINITY)
            ],
            [0, 63, 63]
        );
        assert_eq!(boundaries.class(f64::NAN), 0);
    }

    #[test]
    fn a_distance_on_a_boundary_belongs_below_it() {
        for precision in [Precision::F32, Precision::F64] {
            let boundaries = Boundaries::new(0.0, 1.0, 9, precision);
            for (k, &value) in boundaries.values.iter().enumerate() {
                assert_eq!(boundaries.class(value), k);
                assert_eq!(boundaries.class(value + 1e-12), k + 1);
            }
        }
        assert_eq!(
            Boundaries::new(0.0, 1.0, 64, Precision::F64).values.len(),
            63
        );
    }

    #[test]
    fn distances_are_computed_in_the_precision_of_the_model() {
        let points = [0.1, 0.2, 0.3, 1.3, -0.7, 2.9];
        let exact = (1.44f64 + 0.81 + 6.76).sqrt();
        assert!((Cloud::new(&points, Precision::F64).distance(0, 1) - exact).abs() < 1e-15);
        let single = Cloud::new(&points, Precision::F32).distance(0, 1);
        assert!((single - exact).abs() < 1e-6 && single == f64::from(single as f32));
        assert_eq!(Cloud::new(&points, Precision::F32).distance(1, 1), 0.0);
    }

    #[test]
    fn separations_are_clipped_around_the_middle_class() {
        let classes = |difference: i64| separation_class(10 + difference, 10, 127);
        assert_eq!(
            [
                classes(0),
                classes(1),
                classes(-1),
                classes(62),
                classes(63),
                classes(64),
                classes(-64)
            ],
            [63, 64, 62, 125, 126, 126, 0]
        );
        assert_eq!(separation_class(i64::MAX, i64::MIN, 9), 8);
    }
}
