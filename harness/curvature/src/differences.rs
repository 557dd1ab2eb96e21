//! Hessians as differences of gradients, for subsets in which the prediction is not linear.
//!
//! Measured on 19,080 parameters, error over the largest eigenvalue at the best step: central differences of f64 gradients 3e-12 (step
//! 1e-4), with Richardson's extrapolation 1e-13 (1e-3); of f32 gradients 3e-6 (1e-1), so f64 it is.

use crate::number::mirror;
use equivbench_core::CoreError;
use faer::Mat;

/// How gradients are differenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Differences {
    /// Central differences: two gradients a direction.
    Central,
    /// Two central differences, extrapolated: four gradients a direction.
    Richardson,
}

impl Differences {
    /// Reads a name.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse(name: &str) -> Result<Self, CoreError> {
        match name {
            "central" => Ok(Self::Central),
            "richardson" => Ok(Self::Richardson),
            _ => Err(CoreError::Unknown {
                what: "way of differences",
                name: name.into(),
                known: "central, richardson".into(),
            }),
        }
    }

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Central => "central",
            Self::Richardson => "richardson",
        }
    }

    /// Steps and what the differences at them count.
    const fn stencil(self) -> &'static [(f64, f64)] {
        match self {
            Self::Central => &[(1e-4, 1.0)],
            Self::Richardson => &[(1e-3, -1.0 / 3.0), (5e-4, 4.0 / 3.0)],
        }
    }
}

/// Gradients of parts at parameters: the parameters as the model holds them, and one gradient for each part.
pub type GradientsAt<'a> = dyn FnMut(&[f64]) -> Result<(Vec<f64>, Vec<Vec<f64>>), CoreError> + 'a;

/// Difference quotients of the gradients of each part along a direction of length 1.
fn quotients(
    parameters: &[f64],
    direction: &dyn Fn(usize) -> f64,
    how: Differences,
    at: &mut GradientsAt<'_>,
) -> Result<Vec<Vec<f64>>, CoreError> {
    let mut sum: Vec<Vec<f64>> = Vec::new();
    for &(step, weight) in how.stencil() {
        let moved = |by: f64| -> Vec<f64> {
            let along = |(i, p): (usize, &f64)| p + by * direction(i);
            parameters.iter().enumerate().map(along).collect()
        };
        let (ahead, gradients_ahead) = at(&moved(step))?;
        let (behind, gradients_behind) = at(&moved(-step))?;
        // The way that was made, not the one that was asked for: parameters are rounded.
        let way = ahead.iter().zip(&behind).map(|(a, b)| a - b);
        let length: f64 = way.enumerate().map(|(i, d)| d * direction(i)).sum();
        sum.resize(gradients_ahead.len(), vec![0.0; parameters.len()]);
        for (sum, (a, b)) in sum
            .iter_mut()
            .zip(gradients_ahead.iter().zip(&gradients_behind))
        {
            for (sum, (a, b)) in sum.iter_mut().zip(a.iter().zip(b)) {
                *sum += weight * (a - b) / length;
            }
        }
    }
    Ok(sum)
}

/// The product of the Hessian of each part with a vector.
///
/// # Errors
/// What the gradients report.
pub fn product(
    parameters: &[f64],
    vector: &[f64],
    how: Differences,
    at: &mut GradientsAt<'_>,
) -> Result<Vec<Vec<f64>>, CoreError> {
    let length = vector.iter().map(|v| v * v).sum::<f64>().sqrt();
    if length == 0.0 {
        return Ok(Vec::new());
    }
    let mut found = quotients(parameters, &|i| vector[i] / length, how, at)?;
    found.iter_mut().flatten().for_each(|v| *v *= length);
    Ok(found)
}

/// The Hessian of each part, made symmetric, and the largest difference of an entry to its mirror image before that: an estimate of the
/// error of entries.
///
/// # Errors
/// What the gradients report.
pub fn hessians(
    parameters: &[f64],
    how: Differences,
    at: &mut GradientsAt<'_>,
) -> Result<Vec<(Mat<f64>, f64)>, CoreError> {
    let n = parameters.len();
    let mut found: Vec<Mat<f64>> = Vec::new();
    for j in 0..n {
        let columns = quotients(parameters, &|i| f64::from(i == j), how, at)?;
        if found.is_empty() {
            found.resize_with(columns.len(), || Mat::zeros(n, n));
        }
        for (matrix, column) in found.iter_mut().zip(&columns) {
            matrix
                .col_mut(j)
                .iter_mut()
                .zip(column)
                .for_each(|(m, c)| *m = *c);
        }
    }
    Ok(found.into_iter().map(symmetric).collect())
}

fn symmetric(mut matrix: Mat<f64>) -> (Mat<f64>, f64) {
    let mut asymmetry = 0.0_f64;
    for j in 0..matrix.ncols() {
        for i in j + 1..matrix.nrows() {
            let (a, b) = (matrix[(i, j)], matrix[(j, i)]);
            asymmetry = asymmetry.max((a - b).abs());
            matrix[(i, j)] = 0.5 * (a + b);
        }
    }
    mirror(&mut matrix);
    (matrix, asymmetry)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Σ sin(a_i · θ)`, with its gradient and its Hessian.
    const A: [[f64; 3]; 4] = [
        [0.3, -0.8, 0.5],
        [1.1, 0.2, -0.4],
        [-0.6, 0.9, 0.7],
        [0.1, 0.4, -1.2],
    ];

    fn along(a: &[f64; 3], p: &[f64]) -> f64 {
        a.iter().zip(p).map(|(a, p)| a * p).sum()
    }

    fn gradient(p: &[f64]) -> Vec<f64> {
        (0..3)
            .map(|i| A.iter().map(|a| a[i] * along(a, p).cos()).sum())
            .collect()
    }

    fn hessian(p: &[f64], i: usize, j: usize) -> f64 {
        A.iter().map(|a| -a[i] * a[j] * along(a, p).sin()).sum()
    }

    const AT: [f64; 3] = [0.4, -1.3, 0.9];

    #[test]
    fn differences_are_the_hessian_to_their_order() {
        // Fourth derivatives are below 4: h²/6 of them, and 2e-16 / h of rounding; with Richardson h⁴/30 of the sixth.
        for (how, tolerance) in [
            (Differences::Central, 1e-8),
            (Differences::Richardson, 2e-12),
        ] {
            let mut at = |p: &[f64]| Ok((p.to_vec(), vec![gradient(p), vec![0.0; 3]]));
            let found = hessians(&AT, how, &mut at).unwrap();
            let vector = [0.3, 2.0, -1.0];
            let products = product(&AT, &vector, how, &mut at).unwrap();
            for (i, product) in products[0].iter().enumerate() {
                for j in 0..3 {
                    assert!((found[0].0[(i, j)] - hessian(&AT, i, j)).abs() < tolerance);
                }
                let direct: f64 = (0..3).map(|j| hessian(&AT, i, j) * vector[j]).sum();
                assert!((product - direct).abs() < 3.0 * tolerance);
            }
            assert!(found[0].1 < 2.0 * tolerance);
            assert_eq!(found[1].0.norm_max(), 0.0);
        }
    }

    #[test]
    fn the_way_that_was_made_counts() {
        // Parameters that a model holds in f32: without reading them back the quotient is off by 1e-4.
        let rounded = |p: &[f64]| p.iter().map(|v| f64::from(*v as f32)).collect::<Vec<_>>();
        let mut at = |p: &[f64]| {
            let held = rounded(p);
            let gradients = vec![gradient(&held)];
            Ok((held, gradients))
        };
        let start = rounded(&AT);
        let found = hessians(&start, Differences::Central, &mut at).unwrap();
        for i in 0..3 {
            for j in 0..3 {
                // The middle of the way is off by 1e-7: that times the third derivative.
                assert!((found[0].0[(i, j)] - hessian(&start, i, j)).abs() < 1e-6);
            }
        }
    }
}
