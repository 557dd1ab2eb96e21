//! Exact averages over all rotations, in closed form from one pass.
//!
//! With `C_i = Σ_j a_ij u_ijᵀ` (row: output axis, column: space) and `P` that subtracts the mean over output axes, the twisted
//! prediction is `Z_i(T) = m_i Tᵀ diag(C_i Tᵀ)`, its Haar mean `μ_i = (m_i / 3) C_iᵀ 1` and its variance
//! `E‖Z_i − μ_i‖² = (m_i² / 3) ‖P C_i‖²`.

/// A 3x3 matrix by rows.
pub type Matrix = [[f64; 3]; 3];

/// `C_i` of every atom, from `direction [edges, 3]` and the unit vectors of the edges that each atom owns.
#[must_use]
pub fn direction_matrices(offsets: &[usize], direction: &[f64], units: &[[f64; 3]]) -> Vec<Matrix> {
    let of_atom = |range: &[usize]| {
        let mut c = [[0.0; 3]; 3];
        for edge in range[0]..range[1] {
            for (row, out) in c.iter_mut().enumerate() {
                for (column, value) in out.iter_mut().enumerate() {
                    *value += direction[3 * edge + row] * units[edge][column];
                }
            }
        }
        c
    };
    offsets.windows(2).map(of_atom).collect()
}

/// The twirled prediction of one atom.
#[must_use]
pub fn mean(magnitude: f64, c: &Matrix) -> [f64; 3] {
    [0, 1, 2].map(|column| magnitude / 3.0 * (c[0][column] + c[1][column] + c[2][column]))
}

/// The variance of the twisted predictions of one atom around their mean, summed over components.
#[must_use]
pub fn variance(magnitude: f64, c: &Matrix) -> f64 {
    let mut square = 0.0;
    for column in 0..3 {
        let average = (c[0][column] + c[1][column] + c[2][column]) / 3.0;
        square += c
            .iter()
            .map(|row| (row[column] - average).powi(2))
            .sum::<f64>();
    }
    magnitude * magnitude / 3.0 * square
}

/// The twisted prediction of one atom for a rotation `t`, from the same pass.
#[must_use]
pub fn twisted(magnitude: f64, c: &Matrix, t: &Matrix) -> [f64; 3] {
    let diagonal = [0, 1, 2].map(|axis| (0..3).map(|k| c[axis][k] * t[axis][k]).sum::<f64>());
    [0, 1, 2].map(|column| {
        magnitude
            * (0..3)
                .map(|row| t[row][column] * diagonal[row])
                .sum::<f64>()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const C: Matrix = [[0.3, -1.2, 0.5], [2.0, 0.1, -0.4], [-0.7, 0.9, 1.1]];

    /// The 24 rotations of the cube: exact for maps of degree two in the rotation, as the twisted prediction is.
    fn cube_rotations() -> Vec<Matrix> {
        let mut found = Vec::new();
        for order in [
            [0, 1, 2],
            [1, 2, 0],
            [2, 0, 1],
            [0, 2, 1],
            [2, 1, 0],
            [1, 0, 2],
        ] {
            for signs in 0..8 {
                let mut t = [[0.0; 3]; 3];
                for row in 0..3 {
                    t[row][order[row]] = if signs >> row & 1 == 1 { -1.0 } else { 1.0 };
                }
                if determinant(&t) > 0.0 {
                    found.push(t);
                }
            }
        }
        found
    }

    fn determinant(t: &Matrix) -> f64 {
        let minor = |a: usize, b: usize| t[1][a] * t[2][b] - t[1][b] * t[2][a];
        t[0][0] * minor(1, 2) - t[0][1] * minor(0, 2) + t[0][2] * minor(0, 1)
    }

    #[test]
    fn mean_and_variance_equal_those_over_the_cube_group() {
        let rotations = cube_rotations();
        assert_eq!(rotations.len(), 24);
        let twists: Vec<[f64; 3]> = rotations.iter().map(|t| twisted(1.7, &C, t)).collect();
        let average = [0, 1, 2].map(|c| twists.iter().map(|z| z[c]).sum::<f64>() / 24.0);
        let exact = mean(1.7, &C);
        let spread: f64 = twists
            .iter()
            .map(|z| (0..3).map(|c| (z[c] - exact[c]).powi(2)).sum::<f64>())
            .sum::<f64>()
            / 24.0;
        assert!((0..3).all(|c| (average[c] - exact[c]).abs() < 1e-14));
        assert!((spread - variance(1.7, &C)).abs() < 1e-13);
    }

    #[test]
    fn equal_rows_are_equivariant_and_leave_nothing_to_average() {
        let equal = [C[0], C[0], C[0]];
        assert!(variance(2.0, &equal) < 1e-30);
        let mu = mean(2.0, &equal);
        assert!((0..3).all(|c| (mu[c] - 2.0 * C[0][c]).abs() < 1e-15));
    }

    #[test]
    fn matrices_collect_the_edges_of_their_own_atom() {
        let c = direction_matrices(
            &[0, 1, 3],
            &[1.0, 2.0, 3.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            &[[1.0, 0.0, 0.0]; 3],
        );
        assert_eq!(c[0], [[1.0, 0.0, 0.0], [2.0, 0.0, 0.0], [3.0, 0.0, 0.0]]);
        assert_eq!(c[1], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0; 3]]);
    }
}
