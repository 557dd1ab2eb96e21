//! Hessians of a squared error over parameters in which the prediction is linear: products of features.
//!
//! With `J_i` the derivative of the twisted prediction of copy `i` by the parameters, `n` copies in `K` cosets with means `J_k` and their
//! mean `J`, the Hessians of the parts of the loss of a sample are `2/n Σ J_iᵀJ_i` for `L`, and for `L_mean` without bias
//! `2/(K(K−1)) Σ_{j≠k} J_jᵀJ_k`, as plug-in `2 JᵀJ`; that of `L_equiv` is their difference. They are exact and, but for the unbiased
//! ones, positive.

use crate::{
    Number, Subset,
    number::{add_gram, mirror},
};
use equivbench_core::{
    CoreError, Estimator, FieldKind, LinearGroup, LossPart, PointLoss, Rotation,
};
use faer::{Mat, MatRef};

/// Hessians of the parts of a loss over a linear group.
pub struct GaussNewton<N: Number> {
    group: LinearGroup,
    /// Whether components mix when they rotate, so that the blocks of the group are coupled.
    mixes: bool,
    /// Of `L`: the block of each component, or one for all.
    total: Vec<Mat<N>>,
    /// Of `L_mean`: over all parameters where components mix, else as `total`.
    twirled: Vec<Mat<N>>,
}

impl<N: Number> GaussNewton<N> {
    fn zeros(group: LinearGroup, mixes: bool) -> Self {
        let k = group.width;
        let blocks = if group.shared { 1 } else { group.blocks };
        let square = |n: usize| Mat::zeros(n, n);
        Self {
            mixes,
            total: (0..blocks).map(|_| square(k)).collect(),
            twirled: match mixes {
                true => vec![square(k * group.blocks)],
                false => (0..blocks).map(|_| square(k)).collect(),
            },
            group,
        }
    }

    /// The Hessian of a part, in the order of the parameters of the group.
    #[must_use]
    pub fn hessian(&self, part: LossPart) -> Mat<N> {
        let p = self.group.blocks * self.group.width;
        let mut matrix = Mat::zeros(p, p);
        let (sign_total, sign_twirled) = match part {
            LossPart::Total => (1.0, 0.0),
            LossPart::Twirled => (0.0, 1.0),
            LossPart::Equivariance => (1.0, -1.0),
        };
        self.spread(&self.total, sign_total, &mut matrix);
        if self.mixes {
            self.place(&self.twirled[0], 0, sign_twirled, &mut matrix);
        } else {
            self.spread(&self.twirled, sign_twirled, &mut matrix);
        }
        mirror(&mut matrix);
        matrix
    }

    /// Blocks along the diagonal, one for each component.
    fn spread(&self, blocks: &[Mat<N>], sign: f64, to: &mut Mat<N>) {
        for c in 0..self.group.blocks {
            let block = &blocks[c.min(blocks.len() - 1)];
            self.place(block, c * self.group.width, sign, to);
        }
    }

    /// The lower triangle of a matrix, whose first row is a place of the group, into the lower triangle of another.
    fn place(&self, from: &Mat<N>, first: usize, sign: f64, to: &mut Mat<N>) {
        if sign == 0.0 {
            return;
        }
        let sign = N::of(sign);
        for j in 0..from.ncols() {
            for i in j..from.nrows() {
                let (a, b) = (self.group.index[first + i], self.group.index[first + j]);
                to[(a.max(b), a.min(b))] += sign * from[(i, j)];
            }
        }
    }
}

/// Hessians of the parts of the loss over a linear group, in the precision of the sums.
///
/// # Errors
/// A subset in which the prediction is not linear or a loss that is not the squared error, features of another size than they should
/// be, what the model reports, or a request to stop.
pub fn gauss_newton<N: Number>(subset: &mut Subset<'_>) -> Result<GaussNewton<N>, CoreError> {
    let group = subset.linear().ok_or_else(|| {
        CoreError::Model("it does not say how its prediction is linear in the group".into())
    })?;
    let how = subset.portion().how;
    if how.loss != PointLoss::Mse {
        let loss = how.loss.name();
        let message =
            format!("Gauss-Newton products are Hessians of the squared error, not of {loss}");
        return Err(CoreError::Shape(message));
    }
    let mixes = subset.copies().kind() == FieldKind::Vector;
    let mut found = GaussNewton::zeros(group, mixes);
    let weights = subset.weights();
    for (s, weight) in weights.into_iter().enumerate() {
        add_sample(subset, s, weight, &mut found)?;
    }
    Ok(found)
}

/// The derivative of the twisted predictions of a sample by the parameters, averaged over copies: `[rows, components, row]` where
/// components mix, else `[rows, row]`; see [`LinearGroup::row_width`].
struct MeanFeatures<N: Number> {
    /// Transposed: a column is a component of the prediction.
    columns: Mat<N>,
    count: usize,
}

/// Adds the products of the features of one sample.
fn add_sample<N: Number>(
    subset: &mut Subset<'_>,
    sample: usize,
    weight: f64,
    found: &mut GaussNewton<N>,
) -> Result<(), CoreError> {
    let copies = subset.copies();
    let portion = copies.portion();
    let plan = &portion.plans[sample];
    let (n, k) = (plan.rotations.len() as f64, plan.cosets as f64);
    let rows = Rows::of(subset, sample, &found.group);
    let mut cosets: Vec<MeanFeatures<N>> = Vec::new();
    let mut features = Vec::new();
    for (slot, block) in subset.slots().into_iter().enumerate() {
        for (at, copy) in block.enumerate() {
            let first = at * rows.all + rows.first;
            subset.features(slot, first..first + rows.own, &mut features)?;
            if features.len() != rows.own * found.group.row_width() {
                return Err(CoreError::Model(format!(
                    "features of {} rows have {} numbers; {} were expected",
                    rows.own,
                    features.len(),
                    rows.own * found.group.row_width()
                )));
            }
            rows.rotate(subset, sample, copy, &found.group, &mut features)?;
            let narrow: Vec<N> = features.iter().map(|v| N::of(*v)).collect();
            add_total(&narrow, 2.0 * weight / n, found);
            let coset = plan.coset_of(copy);
            if cosets.len() <= coset {
                cosets.push(MeanFeatures::zeros(&rows, found));
            }
            let back = plan.rotations[copy].inverse();
            cosets[coset].push(&narrow, &back, found);
        }
    }
    let is_unbiased = how_unbiased(portion.how.estimator, plan.cosets);
    let (of_mean, of_each) = if is_unbiased {
        (
            2.0 * weight * k / (k - 1.0),
            -2.0 * weight / (k * (k - 1.0)),
        )
    } else {
        (2.0 * weight, 0.0)
    };
    let mut mean = MeanFeatures::zeros(&rows, found);
    for coset in &cosets {
        if of_each != 0.0 {
            coset.add_twirled(of_each, found);
        }
        mean.add(coset, 1.0 / k);
    }
    mean.add_twirled(of_mean, found);
    Ok(())
}

fn how_unbiased(estimator: Estimator, cosets: usize) -> bool {
    estimator == Estimator::Unbiased && cosets > 1
}

/// The block of each component of features, or one for all, summed over copies: rotations of components do not change it.
fn add_total<N: Number>(features: &[N], scale: f64, found: &mut GaussNewton<N>) {
    let (row, width) = (found.group.row_width(), found.group.width);
    let rows = features.len() / row;
    // Rows of features are columns of memory here.
    let columns = MatRef::from_column_major_slice(features, row, rows);
    for (c, block) in found.total.iter_mut().enumerate() {
        let own = columns.subrows(c * width, width);
        add_gram(block, own.transpose(), scale);
    }
}

impl<N: Number> MeanFeatures<N> {
    fn zeros(rows: &Rows, found: &GaussNewton<N>) -> Self {
        let (components, each) = if found.mixes {
            (
                rows.own * found.group.blocks,
                found.group.width * found.group.blocks,
            )
        } else {
            (rows.own, found.group.row_width())
        };
        Self {
            columns: Mat::zeros(each, components),
            count: 0,
        }
    }

    /// Takes in the features of a copy; `back` rotates its prediction back.
    fn push(&mut self, features: &[N], back: &Rotation, found: &GaussNewton<N>) {
        self.count += 1;
        let weight = N::of(1.0 / self.count as f64);
        let (row, width, blocks) = (
            found.group.row_width(),
            found.group.width,
            found.group.blocks,
        );
        let shared = found.group.shared;
        // Columns of the matrix of the rotation.
        let back = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]].map(|axis| back.apply(axis));
        for (r, own) in features.chunks_exact(row).enumerate() {
            if !found.mixes {
                let column = self.columns.col_mut(r);
                for (mean, value) in column.iter_mut().zip(own) {
                    let difference = *value - *mean;
                    *mean += weight * difference;
                }
                continue;
            }
            for a in 0..blocks {
                let mut column = self.columns.col_mut(r * blocks + a);
                for (c, axis) in back.iter().enumerate() {
                    let turn = N::of(axis[a]);
                    let own = if shared {
                        own
                    } else {
                        &own[c * width..(c + 1) * width]
                    };
                    let to = column.as_mut().subrows_mut(c * width, width);
                    for (mean, value) in to.iter_mut().zip(own) {
                        let difference = turn * *value - *mean;
                        *mean += weight * difference;
                    }
                }
            }
        }
    }

    fn add(&mut self, other: &Self, weight: f64) {
        let weight = N::of(weight);
        for j in 0..self.columns.ncols() {
            let to = self.columns.col_mut(j);
            for (to, from) in to.iter_mut().zip(other.columns.col(j).iter()) {
                *to += weight * *from;
            }
        }
    }

    fn add_twirled(&self, scale: f64, found: &mut GaussNewton<N>) {
        let width = self.columns.nrows() / found.twirled.len();
        for (c, block) in found.twirled.iter_mut().enumerate() {
            let own = self.columns.as_ref().subrows(c * width, width);
            add_gram(block, own.transpose(), scale);
        }
    }
}

/// Where the rows of a sample stand among those of a copy.
struct Rows {
    first: usize,
    own: usize,
    all: usize,
}

impl Rows {
    /// A row of features is one of the prediction where components are its columns, and a voxel of a sample on grids.
    fn of(subset: &Subset<'_>, sample: usize, group: &LinearGroup) -> Self {
        let copies = subset.copies();
        let range = copies.range(sample);
        Self {
            first: range.start / group.blocks,
            own: range.len() / group.blocks,
            all: copies.len() / group.blocks,
        }
    }

    /// Permutes features on grids as the prediction is when it is rotated back.
    fn rotate(
        &self,
        subset: &Subset<'_>,
        sample: usize,
        copy: usize,
        group: &LinearGroup,
        features: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        let copies = subset.copies();
        if copies.kind() != FieldKind::VoxelGrid {
            return Ok(());
        }
        let side = (self.own as f64).cbrt().round() as usize;
        let back = copies.portion().plans[sample].rotations[copy].inverse();
        let turn = equivbench_core::GridRotation::new(&back, side).ok_or_else(|| {
            CoreError::Shape(format!(
                "a rotation that does not map a grid of side {side} to itself"
            ))
        })?;
        let row = group.row_width();
        let places: Vec<u32> = (0..self.own as u32).collect();
        let mut from = vec![0; self.own];
        turn.rotate(&places, &mut from);
        let moved = from.iter().flat_map(|&at| {
            features[at as usize * row..(at as usize + 1) * row]
                .iter()
                .copied()
        });
        *features = moved.collect();
        Ok(())
    }
}
