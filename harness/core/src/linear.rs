//! A parameter group in which a prediction is linear: there its Hessian has a closed form (Gauss-Newton, exact and positive).

/// What the rows of the features of a [`LinearGroup`] count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinearRows {
    /// The rows of the prediction, `[rows, blocks]`.
    Point,
    /// Voxels of all samples, one sample after the other; the prediction lies as `[samples, blocks, voxels]`.
    Voxel,
}

/// How a prediction depends on a group in which it is linear: `P[r, c] = sum_k phi[r, (c,) k] * theta[index[c, k]]`.
///
/// ```
/// use equivbench_core::{LinearGroup, LinearRows};
/// // A head without bias, `[width, blocks] = [2, 3]` row-major, on features that all three axes share.
/// let head = LinearGroup {
///     blocks: 3,
///     width: 2,
///     shared: true,
///     index: vec![0, 3, 1, 4, 2, 5],
///     rows: LinearRows::Point,
/// };
/// let theta = [1.0, 2.0, 3.0, 10.0, 20.0, 30.0];
/// assert_eq!(head.apply(&[1.0, 0.1], &theta), [2.0, 4.0, 6.0]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearGroup {
    /// Output components `c`: axes of a vector, channels of a grid.
    pub blocks: usize,
    /// Features `k` of a component.
    pub width: usize,
    /// Whether all components have the same features.
    pub shared: bool,
    /// Places in the flattened group, `[blocks, width]`; each place of the group once.
    pub index: Vec<usize>,
    /// What the rows `r` count.
    pub rows: LinearRows,
}

impl LinearGroup {
    /// Features in a row: `width`, or `blocks * width` where each component has its own.
    #[must_use]
    pub const fn row_width(&self) -> usize {
        if self.shared {
            self.width
        } else {
            self.blocks * self.width
        }
    }

    /// `P[r, c]`, `[rows, blocks]`, from whole rows of features and the parameters of the group, flattened.
    ///
    /// # Panics
    /// If there are fewer parameters than `index` names.
    #[must_use]
    pub fn apply(&self, features: &[f64], parameters: &[f64]) -> Vec<f64> {
        let component = |row: &[f64], c: usize| -> f64 {
            let first = if self.shared { 0 } else { c * self.width };
            let places = &self.index[c * self.width..(c + 1) * self.width];
            let own = &row[first..first + self.width];
            own.iter()
                .zip(places)
                .map(|(x, &at)| x * parameters[at])
                .sum()
        };
        features
            .chunks_exact(self.row_width().max(1))
            .flat_map(|row| (0..self.blocks).map(move |c| component(row, c)))
            .collect()
    }

    /// Where `P[row, block]` stands in the flattened prediction; `voxels` is the number of those of a sample, and without meaning where
    /// rows are points.
    #[must_use]
    pub const fn place(&self, row: usize, block: usize, voxels: usize) -> usize {
        match self.rows {
            LinearRows::Point => row * self.blocks + block,
            LinearRows::Voxel => (row / voxels * self.blocks + block) * voxels + row % voxels,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(shared: bool, rows: LinearRows) -> LinearGroup {
        LinearGroup {
            blocks: 2,
            width: 3,
            shared,
            index: vec![5, 0, 3, 1, 4, 2],
            rows,
        }
    }

    #[test]
    fn own_features_of_a_component_meet_its_own_parameters_only() {
        let theta = [1.0, 10.0, 100.0, 1e3, 1e4, 1e5];
        let own = group(false, LinearRows::Point);
        let row = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(own.apply(&row, &theta), [103_002.0, 50_640.0]);
        let shared = group(true, LinearRows::Point);
        assert_eq!(shared.apply(&row[..3], &theta), [103_002.0, 20_310.0]);
        assert_eq!(shared.apply(&row, &theta).len(), 4);
    }

    #[test]
    fn every_number_of_a_prediction_has_one_place() {
        for (rows, voxels) in [(LinearRows::Point, 1), (LinearRows::Voxel, 4)] {
            let group = group(true, rows);
            let mut places: Vec<usize> = (0..12)
                .flat_map(|row| (0..2).map(move |block| (row, block)))
                .map(|(row, block)| group.place(row, block, voxels))
                .collect();
            places.sort_unstable();
            assert_eq!(places, (0..24).collect::<Vec<_>>());
        }
        // Sample 1, channel 1, voxel 2 of [samples, 2, 4].
        assert_eq!(group(true, LinearRows::Voxel).place(6, 1, 4), 14);
    }
}
