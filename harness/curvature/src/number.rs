//! The two precisions in which matrices are made and taken apart.

use faer::traits::{ComplexField, RealField};

/// `f32` or `f64`.
pub trait Number: RealField + Copy + Into<f64> + std::ops::AddAssign + 'static {
    /// Name in tables.
    const NAME: &'static str;
    /// Distance from 1 to the next number.
    const EPSILON: f64;
    /// Rounds a number.
    fn of(value: f64) -> Self;
}

impl Number for f64 {
    const NAME: &'static str = "f64";
    const EPSILON: f64 = f64::EPSILON;
    fn of(value: f64) -> Self {
        value
    }
}

impl Number for f32 {
    const NAME: &'static str = "f32";
    const EPSILON: f64 = f32::EPSILON as f64;
    fn of(value: f64) -> Self {
        value as Self
    }
}

/// Twice the product of a matrix with its transpose, `scale · AᵀA`, added to the lower triangle of another.
pub(crate) fn add_gram<N: Number + ComplexField>(
    to: &mut faer::Mat<N>,
    rows: faer::MatRef<'_, N>,
    scale: f64,
) {
    use faer::linalg::matmul::triangular::{BlockStructure, matmul};
    matmul(
        to.as_mut(),
        BlockStructure::TriangularLower,
        faer::Accum::Add,
        rows.transpose(),
        BlockStructure::Rectangular,
        rows,
        BlockStructure::Rectangular,
        N::of(scale),
        faer::Par::rayon(0),
    );
}

/// Copies the lower triangle onto the upper one.
pub(crate) fn mirror<N: Number>(matrix: &mut faer::Mat<N>) {
    for column in 0..matrix.ncols() {
        for row in column + 1..matrix.nrows() {
            matrix[(column, row)] = matrix[(row, column)];
        }
    }
}

/// A matrix times a number.
#[must_use]
pub fn scaled(matrix: &faer::Mat<f64>, by: f64) -> faer::Mat<f64> {
    faer::Scale(by) * matrix
}
