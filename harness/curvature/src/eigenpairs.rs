//! Eigenvalues and eigenvectors of a symmetric matrix.

use crate::Number;
use equivbench_core::CoreError;
use faer::{Mat, Side};

/// Eigenvalues with eigenvectors, and how well they fit.
pub struct Eigenpairs {
    /// Ascending.
    pub values: Vec<f64>,
    /// Eigenvectors as columns, in the order of the values.
    pub vectors: Mat<f64>,
    /// Largest `‖H v − λ v‖` over all pairs, over the largest `|λ|`.
    pub residual: f64,
}

impl Eigenpairs {
    /// Squares of the parts of a vector along each eigenvector.
    #[must_use]
    pub fn weights(&self, vector: &[f64]) -> Vec<f64> {
        let along = |j: usize| {
            let column = self.vectors.col(j);
            let dot: f64 = vector.iter().zip(column.iter()).map(|(a, b)| a * b).sum();
            dot * dot
        };
        (0..self.values.len()).map(along).collect()
    }

    /// An eigenvector.
    #[must_use]
    pub fn vector(&self, index: usize) -> Vec<f64> {
        self.vectors.col(index).iter().copied().collect()
    }
}

fn failed(error: &faer::linalg::solvers::EvdError) -> CoreError {
    CoreError::Shape(format!("eigenvalues of a Hessian: {error:?}"))
}

/// All eigenvalues, ascending; of the lower triangle.
///
/// # Errors
/// A matrix for which the iteration does not end.
pub fn eigenvalues<N: Number>(matrix: &Mat<N>) -> Result<Vec<f64>, CoreError> {
    let found = matrix.self_adjoint_eigenvalues(Side::Lower);
    Ok(found
        .map_err(|e| failed(&e))?
        .into_iter()
        .map(Into::into)
        .collect())
}

/// All eigenvalues and eigenvectors of a symmetric matrix, and their residual.
///
/// # Errors
/// As [`eigenvalues`].
pub fn eigenpairs(matrix: &Mat<f64>) -> Result<Eigenpairs, CoreError> {
    let found = matrix
        .self_adjoint_eigen(Side::Lower)
        .map_err(|e| failed(&e))?;
    let values: Vec<f64> = found.S().column_vector().iter().copied().collect();
    let vectors = found.U().to_owned();
    let mut rest = matrix * &vectors;
    let largest = values.iter().fold(0.0_f64, |a, v| a.max(v.abs()));
    let mut residual = 0.0_f64;
    for (j, value) in values.iter().enumerate() {
        let mut square = 0.0;
        for (r, v) in rest.col_mut(j).iter_mut().zip(vectors.col(j).iter()) {
            *r -= value * v;
            square += *r * *r;
        }
        residual = residual.max(square.sqrt());
    }
    Ok(Eigenpairs {
        residual: if largest > 0.0 {
            residual / largest
        } else {
            0.0
        },
        values,
        vectors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrix of second differences has the eigenvalues `2 − 2 cos(π j / (n + 1))`.
    #[test]
    fn eigenvalues_of_second_differences_are_their_closed_form() {
        let n = 40;
        let matrix = Mat::from_fn(n, n, |i, j| match i.abs_diff(j) {
            0 => 2.0,
            1 => -1.0,
            _ => 0.0,
        });
        let found = eigenpairs(&matrix).unwrap();
        let of =
            |j: usize| 2.0 - 2.0 * (std::f64::consts::PI * (j + 1) as f64 / (n + 1) as f64).cos();
        // A few units in the last place of the largest, 4.
        for (j, value) in found.values.iter().enumerate() {
            assert!((value - of(j)).abs() < 1e-14, "{j}: {value} {}", of(j));
        }
        assert!(found.residual < 1e-14);
        let alone = eigenvalues(&matrix).unwrap();
        assert!(
            alone
                .iter()
                .zip(&found.values)
                .all(|(a, b)| (a - b).abs() < 1e-14)
        );
        let vector: Vec<f64> = (0..n).map(|i| (i as f64).sin()).collect();
        let square: f64 = vector.iter().map(|v| v * v).sum();
        // The eigenvectors are a basis: Parseval.
        assert!((found.weights(&vector).iter().sum::<f64>() / square - 1.0).abs() < 1e-13);
    }
}
