//! Latents: what a model shows of its insides, how alike two of them are, and whom a sample is compared with (Figure 9 of the paper).
//!
//! With `φ` a latent and `R` a rotation, *invariance* is the cosine of `φ(R x)` with `φ(x)`, *equivariance* that with `R φ(x)`, where
//! `R` acts on the space that the latent has: it permutes voxels, rotates vectors, and leaves numbers of points alone. The mean over
//! space of channels that do not rotate is the same for `φ(x)` and `R φ(x)`, so the two readings of a pooled latent agree; they can
//! differ before pooling, and for vectors.

use crate::{Batch, CoreError, Field, FieldKind, Rows, Seed, seed::below};

/// An intermediate quantity that a model shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatentInfo {
    /// Name, for example `last`.
    pub name: String,
    /// How it would transform if it were equivariant.
    pub kind: FieldKind,
    /// What its rows count.
    pub rows: Rows,
    /// Shape of one row.
    pub width: Vec<usize>,
}

impl LatentInfo {
    /// The values of a batch of samples with these offsets, `[rows, width]`, as a batch of their own, which [`act`](crate::act) rotates.
    ///
    /// # Errors
    /// More or fewer numbers than declared, or one that is not finite.
    pub fn batch(&self, offsets: &[usize], values: Vec<f64>) -> Result<Batch, CoreError> {
        let rows = match self.rows {
            Rows::Sample => offsets.len().saturating_sub(1),
            Rows::Point => offsets.last().copied().unwrap_or(0),
        };
        let width: usize = self.width.iter().product();
        if values.len() != rows * width {
            return Err(CoreError::Shape(format!(
                "latent \"{}\" has {} numbers, {rows} rows of {width} were expected",
                self.name,
                values.len()
            )));
        }
        let shape = std::iter::once(rows).chain(self.width.iter().copied());
        let field = Field::real(&self.name, self.kind, self.rows, shape.collect(), values);
        let batch = Batch {
            offsets: offsets.to_vec(),
            fields: vec![field],
        };
        batch.check_finite()?;
        Ok(batch)
    }

    /// Whether a sample has more than one place in which the latent has values: points, or voxels.
    #[must_use]
    pub fn has_space(&self) -> bool {
        self.rows == Rows::Point || self.kind == FieldKind::VoxelGrid
    }

    /// Whether places of different samples can be told to be the same: voxels can, points cannot.
    #[must_use]
    pub fn shares_space(&self) -> bool {
        self.rows == Rows::Sample
    }

    /// The values of one sample, of a [batch](Self::batch) of this latent.
    ///
    /// # Errors
    /// A batch of something else.
    pub fn of_sample<'a>(&self, batch: &'a Batch, sample: usize) -> Result<&'a [f64], CoreError> {
        let (field, rows) = (batch.field(&self.name)?, batch.rows_of(self.rows, sample));
        let width = field.width();
        Ok(&field.reals()?[rows.start * width..rows.end * width])
    }

    /// The mean over space of the values of one sample: over points `[width]`, over voxels `[channels]`.
    #[must_use]
    pub fn pooled(&self, values: &[f64]) -> Vec<f64> {
        let width: usize = self.width.iter().product();
        let voxels: usize = match self.kind {
            FieldKind::VoxelGrid => self.width.iter().rev().take(3).product(),
            FieldKind::Invariant | FieldKind::Vector => 1,
        };
        let mut sums = vec![0.0; width / voxels.max(1)];
        for row in values.chunks_exact(width.max(1)) {
            for (sum, places) in sums.iter_mut().zip(row.chunks_exact(voxels)) {
                *sum += places.iter().sum::<f64>();
            }
        }
        let places = (values.len() / sums.len().max(1)) as f64;
        sums.iter().map(|sum| sum / places).collect()
    }
}

/// The cosine of the angle between two vectors; `None` where they have no such angle: one is 0, or they are not equally long.
#[must_use]
pub fn cosine(a: &[f64], b: &[f64]) -> Option<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    // Two roots: the product of squares of small numbers would underflow where the cosine is well defined.
    let norms = dot(a, a).sqrt() * dot(b, b).sqrt();
    let cosine = dot(a, b) / norms;
    // Rounding goes beyond 1 by a unit or two in the last place.
    (a.len() == b.len() && cosine.is_finite()).then(|| cosine.clamp(-1.0, 1.0))
}

/// For each of some `(sample, group)` the place of one of another group, drawn evenly from all of those by a stream of its own; `None`
/// where all are of one group.
#[must_use]
pub fn partners(samples: &[(u64, u64)], seed: Seed) -> Option<Vec<usize>> {
    let draw = |&(sample, group): &(u64, u64)| {
        let places = samples.iter().enumerate();
        let others = places.filter(|(_, (_, other))| *other != group);
        let others: Vec<usize> = others.map(|(place, _)| place).collect();
        if others.is_empty() {
            return None;
        }
        let stream = &mut seed.indexed_stream("latents/partner", sample);
        others
            .get(below(stream, others.len() as u64) as usize)
            .copied()
    };
    samples.iter().map(draw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FiniteGroup, Rotation, act, seed::uniform};

    fn latent(kind: FieldKind, rows: Rows, width: &[usize]) -> LatentInfo {
        LatentInfo {
            name: "h".into(),
            kind,
            rows,
            width: width.to_vec(),
        }
    }

    fn numbers(count: usize) -> Vec<f64> {
        let mut stream = Seed::new(8).stream("numbers");
        (0..count).map(|_| uniform(&mut stream) - 0.4).collect()
    }

    #[test]
    fn cosines_are_those_of_angles_in_the_plane() {
        for degrees in [0.0f64, 30.0, 90.0, 144.0, 180.0] {
            let (s, c) = degrees.to_radians().sin_cos();
            let found = cosine(&[2.0, 0.0], &[0.3 * c, 0.3 * s]).unwrap();
            // Two roundings of a number of order one.
            assert!((found - c).abs() < 1e-15, "{degrees}: {found}");
        }
        let tiny = [1e-170, 2e-170];
        assert_eq!(cosine(&tiny, &[2.0, 4.0]), None, "squares that underflow");
        assert!((cosine(&[1e-150, 2e-150], &[2.0, 4.0]).unwrap() - 1.0).abs() < 1e-15);
        assert_eq!(cosine(&[0.0, 0.0], &[1.0, 0.0]), None);
        assert_eq!(cosine(&[1.0], &[1.0, 0.0]), None);
        assert_eq!(cosine(&[], &[]), None);
    }

    #[test]
    fn a_vector_has_the_cosine_one_with_itself_and_never_more() {
        for count in 1..200 {
            let values = numbers(count);
            let scaled: Vec<f64> = values.iter().map(|v| v / 3.0).collect();
            let found = cosine(&values, &scaled).unwrap();
            // A unit in the last place for each of three sums.
            assert!(found <= 1.0 && 1.0 - found < 1e-15, "{found}");
        }
    }

    #[test]
    fn pooling_takes_the_mean_over_points_or_over_voxels() {
        let states = latent(FieldKind::Invariant, Rows::Point, &[2]);
        assert_eq!(states.pooled(&[1.0, 10.0, 3.0, 30.0]), [2.0, 20.0]);
        let arrows = latent(FieldKind::Vector, Rows::Point, &[3]);
        assert_eq!(
            arrows.pooled(&[1.0, 2.0, 3.0, 3.0, 2.0, 1.0]),
            [2.0, 2.0, 2.0]
        );
        let grids = latent(FieldKind::VoxelGrid, Rows::Sample, &[2, 2, 2, 2]);
        let values: Vec<f64> = (0..16).map(f64::from).collect();
        assert_eq!(grids.pooled(&values), [3.5, 11.5]);
        let whole = latent(FieldKind::Invariant, Rows::Sample, &[3]);
        assert_eq!(whole.pooled(&[1.0, 2.0, 3.0]), [1.0, 2.0, 3.0]);
        assert!(!whole.has_space() && states.has_space() && grids.has_space());
    }

    #[test]
    fn the_pool_of_a_grid_does_not_see_rotations_and_that_of_vectors_rotates() {
        let grids = latent(FieldKind::VoxelGrid, Rows::Sample, &[3, 4, 4, 4]);
        let arrows = latent(FieldKind::Vector, Rows::Point, &[2, 3]);
        let (offsets, mut moved) = ([0, 5], Batch::default());
        let grid = grids.batch(&offsets, numbers(192)).unwrap();
        let cloud = arrows.batch(&offsets, numbers(30)).unwrap();
        for t in FiniteGroup::Octahedral.elements() {
            act(&[t], &grid, &mut moved).unwrap();
            let pool = |batch: &Batch| grids.pooled(grids.of_sample(batch, 0).unwrap());
            for (a, b) in pool(&moved).iter().zip(pool(&grid)) {
                // The same 64 numbers of order one, added in another order.
                assert!((a - b).abs() < 1e-14);
            }
            act(&[t], &cloud, &mut moved).unwrap();
            let pool = |batch: &Batch| arrows.pooled(arrows.of_sample(batch, 0).unwrap());
            let rotated = pool(&cloud);
            let rotated = rotated.chunks(3).flat_map(|v| t.apply([v[0], v[1], v[2]]));
            for (a, b) in pool(&moved).iter().zip(rotated) {
                assert!((a - b).abs() < 1e-15);
            }
        }
    }

    #[test]
    fn numbers_that_do_not_fit_or_are_none_are_refused() {
        let states = latent(FieldKind::Invariant, Rows::Point, &[2]);
        let error = states.batch(&[0, 2, 3], vec![0.0; 4]).unwrap_err();
        assert!(error.to_string().contains("3 rows of 2"), "{error}");
        assert!(states.batch(&[0, 1], vec![0.0, f64::NAN]).is_err());
        let batch = states.batch(&[0, 2, 3], numbers(6)).unwrap();
        assert_eq!(states.of_sample(&batch, 1).unwrap(), &numbers(6)[4..]);
    }

    #[test]
    fn partners_are_of_other_groups_and_every_other_sample_is_one_as_often() {
        let samples: Vec<(u64, u64)> = (0..6).map(|s| (s, s / 2)).collect();
        let mut times = [0u32; 6];
        for seed in 0..2000 {
            let found = partners(&samples, Seed::new(seed)).unwrap();
            for (of, partner) in found.into_iter().enumerate() {
                assert_ne!(samples[of].1, samples[partner].1);
                times[partner] += u32::from(of == 0);
            }
        }
        assert_eq!(times[..2], [0, 0]);
        // Four others, 500 times each: five standard deviations of a binomial number, √(2000 · ¼ · ¾) = 19.
        assert!(times[2..].iter().all(|t| t.abs_diff(500) < 97), "{times:?}");
        assert_eq!(partners(&[(3, 1), (4, 1)], Seed::new(0)), None);
        let twice = [
            partners(&samples, Seed::new(1)),
            partners(&samples, Seed::new(1)),
        ];
        assert_eq!(twice[0], twice[1]);
    }

    #[test]
    fn quarter_turns_are_exact_and_others_are_those_of_any_axis() {
        for axis in 0..3 {
            let mut along = [0.0; 3];
            along[axis] = 1.0;
            for degrees in [0.0, 90.0, 180.0, 270.0, 360.0, -90.0, 450.0, 37.0] {
                let found = Rotation::about_coordinate(axis, degrees);
                let truth = Rotation::about(along, f64::to_radians(degrees));
                // A few roundings of an angle of up to 8 radian.
                assert!(found.distance(&truth) < 1e-14, "{axis} {degrees}");
                let of_cube = found.as_signed_permutation().is_some();
                assert_eq!(of_cube, degrees != 37.0);
            }
            let identity = Rotation::about_coordinate(axis, 360.0);
            assert_eq!(identity, Rotation::IDENTITY);
        }
    }
}
