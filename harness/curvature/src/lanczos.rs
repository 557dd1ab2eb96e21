//! Lanczos with full reorthogonalisation: Gauss quadrature of a Hessian seen from a vector.

use crate::{Node, eigenpairs::eigenpairs};
use equivbench_core::{CoreError, dot, norm};
use faer::Mat;

/// What a start vector sees of a Hessian.
#[derive(Clone, Debug, PartialEq)]
pub struct Lanczos {
    /// Ritz values, ascending, with the share of the start vector along each: the nodes and weights of a quadrature that is exact for
    /// polynomials up to the degree `2 · steps − 1`.
    pub nodes: Vec<Node>,
    /// Products with the Hessian that were made; fewer than asked for where the start vector lies in a smaller invariant space.
    pub steps: usize,
    /// Residual `‖H v − θ v‖` of the largest node over the node.
    pub residual: f64,
    /// What cannot be told apart from 0: about `largest / steps²`.
    pub resolution: f64,
}

/// The end of a run: its quadrature, and what Ritz vectors are made of.
pub struct LanczosRun {
    /// The quadrature.
    pub found: Lanczos,
    basis: Vec<Vec<f64>>,
    /// Eigenvectors of the tridiagonal matrix as columns.
    rotation: Mat<f64>,
}

impl LanczosRun {
    /// The Ritz vector of a node, of length 1.
    #[must_use]
    pub fn vector(&self, node: usize) -> Vec<f64> {
        let mut vector = vec![0.0; self.basis[0].len()];
        for (known, part) in self.basis.iter().zip(self.rotation.col(node).iter()) {
            vector
                .iter_mut()
                .zip(known)
                .for_each(|(v, k)| *v += part * k);
        }
        vector
    }
}

/// Maps a vector onto another of its length, such as a product with a matrix.
pub type MapVector<'a> = dyn FnMut(&[f64]) -> Result<Vec<f64>, CoreError> + 'a;

/// Runs at most `steps` products from a start vector; `None` for a start of length 0. Keeps `steps` vectors.
///
/// # Errors
/// What the product reports.
pub fn lanczos(
    start: &[f64],
    steps: usize,
    product: &mut MapVector<'_>,
) -> Result<Option<LanczosRun>, CoreError> {
    let length = norm(start);
    if length == 0.0 || steps == 0 {
        return Ok(None);
    }
    let mut basis: Vec<Vec<f64>> = vec![start.iter().map(|v| v / length).collect()];
    let (mut diagonal, mut beside) = (Vec::new(), Vec::new());
    let mut scale = 0.0_f64;
    loop {
        let last = basis.len() - 1;
        let mut next = product(&basis[last])?;
        let along = dot(&next, &basis[last]);
        diagonal.push(along);
        // Twice is enough (Kahan, Parlett).
        for _ in 0..2 {
            for known in &basis {
                let part = dot(&next, known);
                next.iter_mut().zip(known).for_each(|(n, k)| *n -= part * k);
            }
        }
        let rest = norm(&next);
        scale = scale.max(along.abs()).max(rest);
        // An invariant space: what is left is rounding of the product, a few units in the last place for each of its sums.
        let is_closed = rest <= 1e-13 * scale * (start.len() as f64).sqrt();
        beside.push(if is_closed { 0.0 } else { rest });
        if is_closed || basis.len() == steps || basis.len() == start.len() {
            break;
        }
        next.iter_mut().for_each(|n| *n /= rest);
        basis.push(next);
    }
    read(&diagonal, &beside, basis).map(Some)
}

/// The nodes of the tridiagonal matrix.
fn read(diagonal: &[f64], beside: &[f64], basis: Vec<Vec<f64>>) -> Result<LanczosRun, CoreError> {
    let m = diagonal.len();
    let matrix = Mat::from_fn(m, m, |i, j| match i.abs_diff(j) {
        0 => diagonal[i],
        1 => beside[i.min(j)],
        _ => 0.0,
    });
    let found = eigenpairs(&matrix)?;
    let node = |j: usize| Node {
        value: found.values[j],
        weight: found.vectors[(0, j)].powi(2),
    };
    let largest = found.values[m - 1].abs();
    let residual = beside[m - 1] * found.vectors[(m - 1, m - 1)].abs();
    let is_closed = beside[m - 1] == 0.0 || m == basis[0].len();
    Ok(LanczosRun {
        found: Lanczos {
            nodes: (0..m).map(node).collect(),
            steps: m,
            residual: if largest > 0.0 {
                residual / largest
            } else {
                residual
            },
            resolution: if is_closed {
                0.0
            } else {
                largest / (m as f64).powi(2)
            },
        },
        basis,
        rotation: found.vectors,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decay;

    fn diagonal_product(values: &[f64]) -> impl FnMut(&[f64]) -> Result<Vec<f64>, CoreError> {
        move |v| Ok(v.iter().zip(values).map(|(v, d)| v * d).collect())
    }

    fn run(start: &[f64], steps: usize, values: &[f64]) -> LanczosRun {
        let found = lanczos(start, steps, &mut diagonal_product(values));
        found.unwrap().unwrap()
    }

    #[test]
    fn the_quadrature_is_exact_up_to_its_degree_and_sees_the_ends() {
        let values: Vec<f64> = (0..60).map(|i| 10f64.powf(-f64::from(i) / 10.0)).collect();
        let start: Vec<f64> = (0..60).map(|i| 1.0 + (f64::from(i) * 1.7).sin()).collect();
        let square: f64 = start.iter().map(|v| v * v).sum();
        let found = run(&start, 12, &values).found;
        for degree in 0..24 {
            let direct: f64 = start
                .iter()
                .zip(&values)
                .map(|(s, v)| s * s / square * v.powi(degree))
                .sum();
            let quadrature: f64 = found
                .nodes
                .iter()
                .map(|n| n.weight * n.value.powi(degree))
                .sum();
            // A sum of 60 numbers below 1.
            assert!((quadrature / direct - 1.0).abs() < 1e-11, "{degree}");
        }
        assert!((found.nodes[11].value - 1.0).abs() < 1e-9 && found.residual < 1e-4);
        let run = run(&start, 12, &values);
        let (vector, value) = (run.vector(11), found.nodes[11].value);
        let rest = |(i, v): (usize, &f64)| (values[i] - value) * v;
        let rest: f64 = vector.iter().enumerate().map(rest).map(|r| r * r).sum();
        assert!((rest.sqrt() - found.residual * value).abs() < 1e-12);
    }

    #[test]
    fn a_start_in_a_small_space_ends_early_and_exactly() {
        let values = [3.0, 1.0, 0.5, 0.0, 7.0];
        let start = [1.0, 2.0, 0.0, 0.0, 0.0];
        let found = run(&start, 5, &values).found;
        assert_eq!(found.steps, 2);
        assert!((found.nodes[0].value - 1.0).abs() < 1e-14);
        assert!((found.nodes[0].weight - 0.8).abs() < 1e-14);
        assert_eq!(found.resolution, 0.0);
        assert!(
            lanczos(&[0.0; 5], 5, &mut diagonal_product(&values))
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn as_many_steps_of_descent_as_products_are_exact() {
        let values: Vec<f64> = (1..=40).map(|i| 1.0 / f64::from(i * i)).collect();
        let start: Vec<f64> = (0..40).map(|i| (f64::from(i) + 0.3).cos()).collect();
        let square: f64 = start.iter().map(|v| v * v).sum();
        let all: Vec<Node> = start
            .iter()
            .zip(&values)
            .map(|(s, &value)| Node {
                value,
                weight: s * s / square,
            })
            .collect();
        let seen = run(&start, 20, &values).found;
        // What falls in 10 steps is a polynomial of degree 19 in the Hessian.
        let fallen = |nodes: &[Node]| -> f64 {
            nodes
                .iter()
                .map(|n| n.weight * (1.0 - (1.0 - n.value).powi(20)) / n.value)
                .sum()
        };
        assert!((fallen(&seen.nodes) / fallen(&all) - 1.0).abs() < 1e-11);
        let exact = decay(&all, square, 1e-12, 1.0);
        let quadrature = decay(&seen.nodes, square, 1e-12, 1.0);
        assert!((quadrature.half.unwrap() / exact.half.unwrap() - 1.0).abs() < 0.05);
    }
}
