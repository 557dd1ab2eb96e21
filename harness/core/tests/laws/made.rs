//! Made inputs: rotations, groups, clouds of points, and maps of clouds that are or are not equivariant.

use equivbench_core::{FiniteGroup, PointLoss, Rotation, Seed};
use proptest::prelude::*;

/// A point, or the prediction for one.
pub(crate) type Vector = [f64; 3];

/// Any rotation, all alike.
pub(crate) fn rotation() -> impl Strategy<Value = Rotation> {
    any::<u64>().prop_map(|seed| Rotation::haar(&mut Seed::new(seed).stream("rotation")))
}

/// The three groups, each with the degree up to which its averages are those of all rotations.
pub(crate) fn group() -> impl Strategy<Value = (FiniteGroup, usize)> {
    prop_oneof![
        Just((FiniteGroup::Tetrahedral, 2)),
        Just((FiniteGroup::Octahedral, 3)),
        Just((FiniteGroup::Icosahedral, 5)),
    ]
}

/// The losses that can be decomposed.
pub(crate) fn loss() -> impl Strategy<Value = PointLoss> {
    prop_oneof![
        Just(PointLoss::Mse),
        Just(PointLoss::Mae),
        Just(PointLoss::L2)
    ]
}

/// A vector with components of order one.
pub(crate) fn vector() -> impl Strategy<Value = Vector> {
    prop::array::uniform3(-2.0..2.0)
}

/// One to five points.
pub(crate) fn cloud() -> impl Strategy<Value = Vec<Vector>> {
    prop::collection::vec(vector(), 1..6)
}

/// Two clouds of the same number of points: an input and its target.
pub(crate) fn pair() -> impl Strategy<Value = (Vec<Vector>, Vec<Vector>)> {
    prop::collection::vec((vector(), vector()), 1..6).prop_map(|both| both.into_iter().unzip())
}

/// Three by three numbers of order one.
pub(crate) fn matrix() -> impl Strategy<Value = [Vector; 3]> {
    prop::array::uniform3(vector())
}

/// `x ↦ A x`.
pub(crate) fn linear(matrix: &[Vector; 3], x: Vector) -> Vector {
    matrix.map(|row| dot(row, x))
}

/// A smooth map of clouds with every kind of fault: a matrix, a bias, and neighbours seen through
/// one fixed axis.
#[derive(Clone, Debug)]
pub(crate) struct Skewed {
    matrix: [Vector; 3],
    bias: Vector,
    axis: Vector,
}

impl Skewed {
    pub(crate) fn any() -> impl Strategy<Value = Self> {
        (matrix(), vector(), vector()).prop_map(|(matrix, bias, axis)| Self { matrix, bias, axis })
    }

    pub(crate) fn predict(&self, cloud: &[Vector]) -> Vec<Vector> {
        let height: f64 = cloud.iter().map(|x| dot(self.axis, *x).sin()).sum();
        let of_point = |x: &Vector| {
            let (linear, bias) = (linear(&self.matrix, *x), self.bias);
            [0, 1, 2].map(|i| linear[i] + bias[i] * height)
        };
        cloud.iter().map(of_point).collect()
    }
}

/// An equivariant map of clouds: forces along the lines between points, and towards the origin.
pub(crate) fn radial(cloud: &[Vector]) -> Vec<Vector> {
    let force = |x: &Vector| {
        cloud.iter().fold(*x, |sum, other| {
            let between = [0, 1, 2].map(|i| other[i] - x[i]);
            let strength = (-0.5 * dot(between, between)).exp();
            [0, 1, 2].map(|i| sum[i] + strength * between[i])
        })
    };
    cloud.iter().map(force).collect()
}

/// `Z(T) = T⁻¹ f(T x)`.
pub(crate) fn twisted(
    f: impl Fn(&[Vector]) -> Vec<Vector>,
    rotation: &Rotation,
    cloud: &[Vector],
) -> Vec<f64> {
    let turned: Vec<Vector> = cloud.iter().map(|x| rotation.apply(*x)).collect();
    let back = rotation.inverse();
    f(&turned).iter().flat_map(|v| back.apply(*v)).collect()
}

pub(crate) fn dot(a: Vector, b: Vector) -> f64 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// A cloud as one row of numbers.
pub(crate) fn flat(cloud: &[Vector]) -> Vec<f64> {
    cloud.iter().flatten().copied().collect()
}

/// The points of a row of numbers.
pub(crate) fn points(flat: &[f64]) -> Vec<Vector> {
    flat.chunks_exact(3).map(|v| [v[0], v[1], v[2]]).collect()
}

/// The largest difference of two rows of numbers.
pub(crate) fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .fold(0.0, |most, (a, b)| most.max((a - b).abs()))
}
