//! Theorem 4: the equivariance error as a quadratic form of the deviation from a subspace of equivariant parameters.

use crate::{MapVector, Number, eigenvalues};
use equivbench_core::CoreError;
use faer::Mat;

/// The extreme eigenvalues of a quadratic form off a subspace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sandwich {
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub largest: f64,
    /// Eigenvalues above rounding, of as many as the space off the subspace has dimensions.
    pub rank: usize,
    /// Dimensions of the space off the subspace.
    pub dimensions: usize,
    /// The form at the deviation, `pᵀ Q p`.
    pub form: f64,
    /// `‖p‖`.
    pub deviation: f64,
}

impl Sandwich {
    /// `λ_min ‖p‖²` and `λ_max ‖p‖²`, between which the equivariance error must lie.
    #[must_use]
    pub fn bounds(&self) -> [f64; 2] {
        [self.least, self.largest].map(|l| l * self.deviation * self.deviation)
    }
}

/// The form `½ H` off the subspace onto which `project` projects, at the deviation of `parameters`. `None` where the subspace is everything.
///
/// # Errors
/// What `project` reports.
pub fn sandwich(
    hessian: &Mat<f64>,
    parameters: &[f64],
    project: &mut MapVector<'_>,
) -> Result<Option<Sandwich>, CoreError> {
    let n = parameters.len();
    let off = |v: &[f64], project: &mut MapVector<'_>| {
        let on = project(v)?;
        Ok::<Vec<f64>, CoreError>(v.iter().zip(&on).map(|(v, on)| v - on).collect())
    };
    let mut away = Mat::<f64>::zeros(n, n);
    for j in 0..n {
        let unit: Vec<f64> = (0..n).map(|i| f64::from(i == j)).collect();
        let column = off(&unit, project)?;
        away.col_mut(j)
            .iter_mut()
            .zip(&column)
            .for_each(|(a, c)| *a = *c);
    }
    // The projection off the subspace has the eigenvalues 0 and 1: those with 1 are a basis.
    let found = crate::eigenpairs(&away)?;
    let first = found.values.iter().position(|v| *v > 0.5).unwrap_or(n);
    let dimensions = n - first;
    if dimensions == 0 {
        return Ok(None);
    }
    let basis = found.vectors.as_ref().subcols(first, dimensions);
    let half = faer::Scale(0.5) * hessian;
    let form = basis.transpose() * &half * basis;
    let values = eigenvalues(&form)?;
    let deviation = off(parameters, project)?;
    let vector = faer::ColRef::from_slice(&deviation);
    let at = vector.transpose() * (&half * vector);
    let largest = values.last().copied().unwrap_or(0.0);
    let floor = dimensions as f64 * f64::EPSILON * largest;
    Ok(Some(Sandwich {
        least: values[0],
        largest,
        rank: values.iter().filter(|v| **v > floor).count(),
        dimensions,
        form: Number::of(at),
        deviation: deviation.iter().map(|d| d * d).sum::<f64>().sqrt(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_seen_off_its_subspace_only() {
        // Parameters (a, b, c), the subspace a = b; the form sees a − b with 3 and c with 5, and a + b not at all.
        let hessian = Mat::from_fn(3, 3, |i, j| match (i, j) {
            (0, 0) | (1, 1) => 3.0,
            (0, 1) | (1, 0) => -3.0,
            (2, 2) => 10.0,
            _ => 0.0,
        });
        let mut project = |v: &[f64]| {
            let mean = 0.5 * (v[0] + v[1]);
            Ok(vec![mean, mean, 0.0])
        };
        let found = sandwich(&hessian, &[2.0, 1.0, 0.5], &mut project)
            .unwrap()
            .unwrap();
        // Along (1, −1) / √2: ½ · ½ (3 + 3 + 6) = 3; along c: ½ · 10 = 5.
        assert!((found.least - 3.0).abs() < 1e-13 && (found.largest - 5.0).abs() < 1e-13);
        assert_eq!((found.rank, found.dimensions), (2, 2));
        // ½ (3 · 4 + 3 − 12) + 5 / 4 = 1.5 + 1.25; ‖p‖² = ½ + ¼.
        assert!((found.form - 2.75).abs() < 1e-13);
        assert!((found.deviation.powi(2) - 0.75).abs() < 1e-14);
        let [lower, upper] = found.bounds();
        assert!(lower < found.form && found.form < upper);
    }

    #[test]
    fn where_everything_is_equivariant_there_is_no_form() {
        let found = sandwich(&Mat::zeros(2, 2), &[1.0, 2.0], &mut |v| Ok(v.to_vec())).unwrap();
        assert_eq!(found, None);
    }
}
