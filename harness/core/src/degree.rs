//! Twisted predictions taken apart by degree, and how fast they change: `Z(T)` as a function on the group.
//!
//! By Peter and Weyl `Z = Σ_l Z_l`, and the energy of degree `l` is `E‖Z_l‖² = (2l+1) E[χ_l(T⁻¹T') Z(T)·Z(T')]` over independent `T`, `T'`,
//! with the character `χ_l(w) = sin((2l+1) w/2) / sin(w/2)` of the angle `w`. Degree 0 is the twirled prediction, the others add up to
//! `L_equiv`, and `Σ_l l(l+1) E‖Z_l‖²` is the sum over three perpendicular axes of the mean square of the Lie derivative. On grids the
//! group is that of the cube, and its five irreducible representations take the place of the degrees.

use crate::Rotation;

/// Degrees that are told apart; those above are one sum.
pub const DEGREES: usize = 5;

/// The twisted predictions of one sample around their mean.
#[derive(Clone, Debug)]
pub struct Scatter {
    mean: Vec<f64>,
    largest: f64,
    count: usize,
    /// `[count][count]`: `(Z_i − μ̂)·(Z_j − μ̂)`.
    products: Vec<f64>,
}

impl Scatter {
    /// Of `count` twisted predictions of equal length, which become their differences from the mean.
    ///
    /// # Panics
    /// Where there is none, or lengths differ.
    #[must_use]
    pub fn of(mut twisted: Vec<Vec<f64>>) -> Self {
        let (count, length) = (twisted.len(), twisted[0].len());
        assert!(
            twisted.iter().all(|z| z.len() == length),
            "predictions of one sample are equally long"
        );
        let mut mean = vec![0.0; length];
        for z in &twisted {
            mean.iter_mut().zip(z).for_each(|(m, z)| *m += z);
        }
        mean.iter_mut().for_each(|m| *m /= count as f64);
        let mut largest: f64 = 0.0;
        for z in &mut twisted {
            for (z, m) in z.iter_mut().zip(&mean) {
                *z -= m;
                largest = largest.max(z.abs());
            }
        }
        let mut products = vec![0.0; count * count];
        for i in 0..count {
            for j in 0..=i {
                let product = twisted[i].iter().zip(&twisted[j]).map(|(a, b)| a * b);
                products[i * count + j] = product.sum();
                products[j * count + i] = products[i * count + j];
            }
        }
        Self {
            mean,
            largest,
            count,
            products,
        }
    }

    /// The twirled prediction `μ̂`.
    #[must_use]
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Number of predictions.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The largest `|component|` of `Z_i − μ̂`.
    #[must_use]
    pub const fn largest_component(&self) -> f64 {
        self.largest
    }

    /// The largest `‖Z_i − μ̂‖`.
    #[must_use]
    pub fn largest_norm(&self) -> f64 {
        self.squares().fold(0.0, f64::max).sqrt()
    }

    /// `‖Z_i − μ̂‖²` of each.
    pub fn squares(&self) -> impl Iterator<Item = f64> + '_ {
        (0..self.count).map(|i| self.product(i, i))
    }

    /// `Σ_i ‖Z_i − μ̂‖²`.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.squares().sum()
    }

    /// `Σ_{i≠j} ‖Z_i − Z_j‖²`, both orders of each pair.
    #[must_use]
    pub fn sum_of_pairs(&self) -> f64 {
        let pair = |i, j| self.product(i, i) + self.product(j, j) - 2.0 * self.product(i, j);
        2.0 * self.pairs().map(|(i, j)| pair(i, j)).sum::<f64>()
    }

    /// `tr C² / (tr C)²` of the covariance of the predictions: one over the number of directions in which they differ, if they do so alike
    /// in all of them. 1 where they do not differ.
    #[must_use]
    pub fn concentration(&self) -> f64 {
        let n = self.count as f64;
        let squares = self.pairs().map(|(i, j)| self.product(i, j).powi(2));
        let square = 2.0 * squares.sum::<f64>() / (n * (n - 1.0));
        let share = square / (self.sum() / (n - 1.0)).powi(2);
        if share.is_finite() {
            share.min(1.0)
        } else {
            1.0
        }
    }

    fn product(&self, i: usize, j: usize) -> f64 {
        self.products[i * self.count + j]
    }

    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> {
        (0..self.count).flat_map(|i| (0..i).map(move |j| (i, j)))
    }
}

/// The characters of degrees 0 to `highest` at the angle of a rotation with this trace: `χ_l = 1 + 2 Σ_m cos(m w)`.
fn characters(trace: f64, highest: usize) -> impl Iterator<Item = f64> {
    let cosine = 0.5 * (trace - 1.0);
    // Chebyshev: cos((m+1) w) = 2 cos w cos(m w) − cos((m−1) w).
    let (mut last, mut before, mut sum) = (1.0, cosine, 1.0);
    (0..=highest).map(move |l| {
        if l > 0 {
            (last, before) = (2.0 * cosine * last - before, last);
            sum += 2.0 * last;
        }
        sum
    })
}

/// The character of a degree.
#[must_use]
pub fn character(degree: usize, rotation: &Rotation) -> f64 {
    let mut all = characters(rotation.trace(), degree);
    all.nth(degree).unwrap_or(1.0)
}

/// The trace of `a⁻¹ b`.
fn trace_between(a: &Rotation, b: &Rotation) -> f64 {
    let (a, b) = (a.0.iter().flatten(), b.0.iter().flatten());
    a.zip(b).map(|(a, b)| a * b).sum()
}

/// The energies of degrees 1 to `highest`, without bias, from predictions under independent Haar rotations; they may fall below 0.
///
/// Every pair is a product of two independent predictions. Each is taken from the mean of the *other* predictions, which are independent
/// of both: that changes degree 0 alone, and without it the noise would be that of the whole prediction and not of its equivariance
/// error, `P_mu / L_equiv` times as much. With `a = 1/(n−2)` this is
/// `((1+a)² + a²) P_ij + a(1+a)(P_ii + P_jj)` of the products around the common mean.
///
/// `None` for fewer than three.
///
/// # Panics
/// Where there is not one rotation for each prediction.
#[must_use]
pub fn degree_energies(
    rotations: &[Rotation],
    scatter: &Scatter,
    highest: usize,
) -> Option<Vec<f64>> {
    let n = scatter.count();
    assert_eq!(rotations.len(), n, "a rotation for each prediction");
    if n < 3 {
        return None;
    }
    let a = 1.0 / (n as f64 - 2.0);
    let (of_pair, of_each) = ((1.0 + a).powi(2) + a * a, a * (1.0 + a));
    let mut energies = vec![0.0; highest];
    for (i, j) in scatter.pairs() {
        let product = of_pair * scatter.product(i, j)
            + of_each * (scatter.product(i, i) + scatter.product(j, j));
        let trace = trace_between(&rotations[i], &rotations[j]);
        let above_0 = characters(trace, highest).enumerate().skip(1);
        for (energy, (l, character)) in energies.iter_mut().zip(above_0) {
            *energy += (2 * l + 1) as f64 * character * product;
        }
    }
    let pairs = 0.5 * (n * (n - 1)) as f64;
    energies.iter_mut().for_each(|e| *e /= pairs);
    Some(energies)
}

/// The irreducible representations of the rotations of the cube but the trivial one, in the order of [`cube_energies`].
pub const CUBE_REPRESENTATIONS: [&str; 4] = ["A2", "E", "T1", "T2"];
const CUBE_DIMENSIONS: [f64; 4] = [1.0, 2.0, 3.0, 3.0];

/// Their characters; `None` for a rotation that is not of the cube.
fn cube_characters(rotation: &Rotation) -> Option<[f64; 4]> {
    let axes = rotation.as_signed_permutation()?;
    let keeps_axes = axes.iter().enumerate().all(|(r, (c, _))| r == *c);
    Some(match (rotation.trace(), keeps_axes) {
        (3.0, _) => [1.0, 2.0, 3.0, 3.0],
        // Third turns about a diagonal.
        (0.0, _) => [1.0, -1.0, 0.0, 0.0],
        // Half turns about an axis; about the middle of two axes.
        (-1.0, true) => [1.0, 2.0, -1.0, -1.0],
        (-1.0, false) => [-1.0, 0.0, -1.0, 1.0],
        // Quarter turns.
        _ => [-1.0, 0.0, 1.0, -1.0],
    })
}

/// The energies of A2, E, T1 and T2, exactly, from predictions under all rotations of the cube: `d_ρ/24² Σ χ_ρ(S⁻¹T) Z(S)·Z(T)`. They add
/// up to `L_equiv`.
///
/// `None` for other rotations.
///
/// # Panics
/// Where there is not one rotation for each prediction.
#[must_use]
pub fn cube_energies(rotations: &[Rotation], scatter: &Scatter) -> Option<[f64; 4]> {
    let n = scatter.count();
    assert_eq!(rotations.len(), n, "a rotation for each prediction");
    if n != crate::FiniteGroup::Octahedral.order() {
        return None;
    }
    let mut energies = [0.0; 4];
    for (i, s) in rotations.iter().enumerate() {
        for (j, t) in rotations.iter().enumerate() {
            let characters = cube_characters(&s.inverse().compose(t))?;
            let of = energies.iter_mut().zip(characters).zip(CUBE_DIMENSIONS);
            for ((energy, character), dimension) in of {
                *energy += dimension * character * scatter.product(i, j) / (n * n) as f64;
            }
        }
    }
    Some(energies)
}

/// The degree whose `l(l+1)` is the ratio of the summed squares of the Lie derivatives about three perpendicular axes to `L_equiv`: the
/// energy-weighted mean of `l(l+1)`, turned into a degree. `None` without equivariance error.
#[must_use]
pub fn effective_degree(lie_sum: f64, loss_equiv: f64) -> Option<f64> {
    let ratio = lie_sum / loss_equiv;
    (loss_equiv > 0.0 && ratio.is_finite() && ratio >= 0.0)
        .then(|| 0.5 * ((1.0 + 4.0 * ratio).sqrt() - 1.0))
}

/// How the Lie derivative `d/dt Z(R(t) T)` at `t = 0` is taken: central differences with a step and its half, extrapolated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LieStep(f64);

/// What four predictions say of a Lie derivative, both `‖·‖²`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LieSquare {
    /// Extrapolated.
    pub extrapolated: f64,
    /// Of the half step alone: how far it is from the other is how far the step can be wrong.
    pub half_step: f64,
}

impl LieStep {
    /// Predictions that a derivative takes.
    pub const PREDICTIONS: usize = 4;

    /// A step in radian.
    #[must_use]
    pub const fn new(radian: f64) -> Self {
        Self(radian)
    }

    /// In radian.
    #[must_use]
    pub const fn radian(self) -> f64 {
        self.0
    }

    /// The step for a precision. What is of degree `l` errs by `(h l)⁴/240` of its square, and predictions that are good to `ε` of their
    /// size add `3.6 (ε/h)²` of the square of that size. In f32 (ε of a network about 1e-6) 0.05 errs by 2.6e-4 at degree 10 and
    /// 1.4e-9 by rounding; in f64 0.002 by 7e-10 and 1e-24.
    #[must_use]
    pub const fn of(precision: crate::Precision) -> Self {
        match precision {
            crate::Precision::Single => Self(0.05),
            crate::Precision::Double => Self(0.002),
        }
    }

    /// The rotations whose predictions [`square`](Self::square) takes, near a base rotation, about an axis.
    #[must_use]
    pub fn near(self, base: &Rotation, axis: [f64; 3]) -> [Rotation; Self::PREDICTIONS] {
        [self.0, 0.5 * self.0, -0.5 * self.0, -self.0]
            .map(|angle| Rotation::about(axis, angle).compose(base))
    }

    /// The square of the Lie derivative.
    #[must_use]
    pub fn square(self, predictions: &[Vec<f64>; Self::PREDICTIONS]) -> LieSquare {
        let h = self.0;
        let [far, near, back, far_back] = predictions;
        let mut square = LieSquare::default();
        for i in 0..far.len() {
            let half = near[i] - back[i];
            // (4 D(h/2) − D(h)) / 3.
            let extrapolated = (8.0 * half - (far[i] - far_back[i])) / (6.0 * h);
            square.extrapolated += extrapolated * extrapolated;
            square.half_step += (half / h).powi(2);
        }
        square
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FiniteGroup, GridRotation, Seed, seed::uniform};

    const X: [f64; 6] = [0.3, -1.2, 0.7, 2.0, 0.1, -0.4];
    const A: [[f64; 3]; 3] = [[2.0, 0.3, -1.0], [0.0, 0.5, 0.7], [1.1, -0.2, -1.0]];
    const AXES: [[f64; 3]; 3] = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]];

    /// `Z(T) = T⁻¹ A T x` for both points.
    fn linear(t: &Rotation) -> Vec<f64> {
        let times = |x: [f64; 3]| A.map(|row| row[0] * x[0] + row[1] * x[1] + row[2] * x[2]);
        X.chunks_exact(3)
            .flat_map(|x| t.inverse().apply(times(t.apply([x[0], x[1], x[2]]))))
            .collect()
    }

    /// `T⁻¹ B T` is of degree 1 for an antisymmetric `B`, of degree 2 for a symmetric one without trace, and its mean square is
    /// `‖B‖²/3 ‖x‖²`.
    fn linear_energies() -> [f64; 2] {
        let power: f64 = X.iter().map(|x| x * x).sum();
        let trace = (A[0][0] + A[1][1] + A[2][2]) / 3.0;
        let mut squares = [0.0; 2];
        for (i, j) in (0..9).map(|k| (k / 3, k % 3)) {
            let diagonal = if i == j { trace } else { 0.0 };
            squares[0] += (0.5 * (A[i][j] - A[j][i])).powi(2);
            squares[1] += (0.5 * (A[i][j] + A[j][i]) - diagonal).powi(2);
        }
        squares.map(|s| s * power / 3.0)
    }

    fn scatter(rotations: &[Rotation], z: impl Fn(&Rotation) -> Vec<f64>) -> Scatter {
        Scatter::of(rotations.iter().map(z).collect())
    }

    #[test]
    fn characters_are_ratios_of_sines() {
        for angle in [0.3, 1.0, 2.5, 3.1] {
            let rotation = Rotation::about([1.0, -2.0, 0.5], angle);
            for l in 0..8_usize {
                let expected = ((2 * l + 1) as f64 * angle / 2.0).sin() / (angle / 2.0).sin();
                // The angle is read from a trace: near half a turn some 1e-16 times the squares of degrees.
                assert!((character(l, &rotation) - expected).abs() < 1e-12);
            }
        }
        assert!((character(3, &Rotation::IDENTITY) - 7.0).abs() < 1e-14);
    }

    #[test]
    fn pairs_of_products_are_those_around_the_mean_of_the_others() {
        let mut stream = Seed::new(1).stream("r");
        let rotations: Vec<Rotation> = (0..7).map(|_| Rotation::haar(&mut stream)).collect();
        let z: Vec<Vec<f64>> = rotations.iter().map(linear).collect();
        let found = degree_energies(&rotations, &scatter(&rotations, linear), 3).unwrap();
        let mut expected = [0.0; 3];
        for i in 0..7 {
            for j in (0..7).filter(|&j| j != i) {
                let others = || (0..7).filter(|&k| k != i && k != j);
                let centred =
                    |of: usize, c: usize| z[of][c] - others().map(|k| z[k][c]).sum::<f64>() / 5.0;
                let product: f64 = (0..6).map(|c| centred(i, c) * centred(j, c)).sum();
                let between = rotations[i].inverse().compose(&rotations[j]);
                for (l, expected) in (1..).zip(&mut expected) {
                    *expected += (2 * l + 1) as f64 * character(l, &between) * product / 42.0;
                }
            }
        }
        for (a, b) in found.iter().zip(expected) {
            // Sums of 42 numbers of order ten.
            assert!((a - b).abs() < 1e-12, "{found:?} {expected:?}");
        }
    }

    #[test]
    fn energies_of_a_linear_map_are_without_bias() {
        // Independent uniform draws from the icosahedral group, of which means of degree 5 and below are those of SO(3): here
        // `χ_2(S⁻¹T) Z(T)` has degree 4. Three draws, all 60³ of them.
        let group = FiniteGroup::Icosahedral.elements();
        let z: Vec<Vec<f64>> = group.iter().map(linear).collect();
        let (mut mean, mut equiv, draws) = ([0.0; 2], 0.0, (60.0_f64).powi(3));
        for i in 0..60 {
            for j in 0..=i {
                for k in 0..=j {
                    // In any order.
                    let orders = [6.0, 3.0, 1.0][usize::from(i == j) + usize::from(j == k)];
                    let of = [i, j, k];
                    let rotations = of.map(|i| group[i]);
                    let scatter = Scatter::of(of.map(|i| z[i].clone()).to_vec());
                    let found = degree_energies(&rotations, &scatter, 2).unwrap();
                    mean[0] += orders * found[0] / draws;
                    mean[1] += orders * found[1] / draws;
                    equiv += orders * scatter.sum() / 2.0 / draws;
                }
            }
        }
        let expected = linear_energies();
        // 38,000 numbers of order a hundred, added one after the other.
        assert!(
            (mean[0] - expected[0]).abs() < 1e-9,
            "{mean:?} {expected:?}"
        );
        assert!(
            (mean[1] - expected[1]).abs() < 1e-9,
            "{mean:?} {expected:?}"
        );
        assert!((equiv - expected[0] - expected[1]).abs() < 1e-9);
    }

    #[test]
    fn energies_of_haar_draws_are_within_their_sampling_error() {
        let mut stream = Seed::new(4).stream("r");
        let (repeats, n) = (200, 24);
        let mut all: Vec<Vec<f64>> = Vec::new();
        for _ in 0..repeats {
            let rotations: Vec<Rotation> = (0..n).map(|_| Rotation::haar(&mut stream)).collect();
            all.push(degree_energies(&rotations, &scatter(&rotations, linear), 4).unwrap());
        }
        let [antisymmetric, symmetric] = linear_energies();
        for (l, expected) in [antisymmetric, symmetric, 0.0, 0.0].into_iter().enumerate() {
            let own: Vec<f64> = all.iter().map(|e| e[l]).collect();
            let mean = own.iter().sum::<f64>() / f64::from(repeats);
            let square = own.iter().map(|e| (e - mean).powi(2)).sum::<f64>();
            let se = (square / f64::from(repeats * (repeats - 1))).sqrt();
            // Four standard errors, four times.
            assert!(
                (mean - expected).abs() < 4.0 * se,
                "{l}: {mean} ± {se}, {expected}"
            );
        }
    }

    #[test]
    fn the_lie_derivatives_have_the_energies_times_l_times_l_plus_1() {
        // Squares of derivatives of a function of degree 2 have degree 4: the icosahedral mean is that of SO(3).
        let step = LieStep::of(crate::Precision::Double);
        let (mut sum, mut half) = (0.0, 0.0);
        for base in FiniteGroup::Icosahedral.elements() {
            for axis in AXES {
                let square = step.square(&step.near(&base, axis).map(|t| linear(&t)));
                sum += square.extrapolated / 60.0;
                half += square.half_step / 60.0;
            }
        }
        let [antisymmetric, symmetric] = linear_energies();
        let expected = 2.0 * antisymmetric + 6.0 * symmetric;
        // (h l)⁴/240 is 1e-12; rounding of 1e-16/h, 1e-13, in some thousand terms.
        assert!((sum / expected - 1.0).abs() < 1e-10, "{sum} {expected}");
        // h² l²/12 of the half step: 1e-6.
        assert!((half / expected - 1.0).abs() < 2e-6 && half != sum);
        let equiv = antisymmetric + symmetric;
        assert!(equiv <= sum / 2.0);
        let degree = effective_degree(sum, equiv).unwrap();
        assert!(
            (degree * (degree + 1.0) - sum / equiv).abs() < 1e-12 && degree > 1.0 && degree < 2.0
        );
        assert_eq!(effective_degree(0.0, 0.0), None);
    }

    #[test]
    fn a_large_step_errs_as_it_says() {
        // z ↦ z cos(l w) about one axis: `(h l)⁴/480` of the derivative.
        let (l, step) = (10.0, LieStep::of(crate::Precision::Single));
        let at = |t: Rotation| vec![(l * t.0[1][0].atan2(t.0[0][0])).sin()];
        let near = step.near(&Rotation::IDENTITY, [0.0, 0.0, 1.0]);
        let square = step.square(&near.map(at));
        let error = 1.0 - square.extrapolated / (l * l);
        let expected = (step.radian() * l).powi(4) / 240.0;
        // The next order is a tenth of it at h l = 1/2.
        assert!((error / expected - 1.0).abs() < 0.1, "{error} {expected}");
    }

    #[test]
    fn representations_of_the_cube_are_orthogonal_and_of_their_dimensions() {
        let cube = FiniteGroup::Octahedral.elements();
        let table: Vec<[f64; 4]> = cube.iter().map(|r| cube_characters(r).unwrap()).collect();
        for a in 0..4 {
            let mean = table.iter().map(|row| row[a]).sum::<f64>();
            assert_eq!(mean, 0.0, "orthogonal to the trivial one");
            for b in 0..4 {
                let product: f64 = table.iter().map(|row| row[a] * row[b]).sum();
                assert_eq!(product, if a == b { 24.0 } else { 0.0 });
            }
        }
        assert_eq!(table[0], CUBE_DIMENSIONS);
        assert_eq!(CUBE_DIMENSIONS.map(|d| d * d).iter().sum::<f64>(), 23.0);
        // T1 is how vectors rotate.
        assert!(cube.iter().zip(&table).all(|(r, row)| row[2] == r.trace()));
        assert_eq!(
            cube_characters(&Rotation::about([1.0, 1.0, 0.0], 0.3)),
            None
        );
    }

    /// A model of grids with weights of its own for each voxel, and a square, which is not equivariant in any way.
    fn of_grid(side: usize) -> impl Fn(&Rotation) -> Vec<f64> {
        let mut stream = Seed::new(8).stream("grid");
        let points = side * side * side;
        let mut draw = || -> Vec<f64> { (0..points).map(|_| uniform(&mut stream) - 0.4).collect() };
        let (x, weights) = (draw(), draw());
        move |t: &Rotation| {
            let turn = |t: &Rotation, from: &[f64]| {
                let mut to = vec![0.0; points];
                GridRotation::new(t, side).unwrap().rotate(from, &mut to);
                to
            };
            let turned = turn(t, &x);
            let predicted: Vec<f64> = turned
                .iter()
                .zip(&weights)
                .zip(turned.iter().skip(1).chain([&0.3]))
                .map(|((v, w), next)| v + w * v * v + w * next)
                .collect();
            turn(&t.inverse(), &predicted)
        }
    }

    #[test]
    fn energies_on_grids_are_those_of_projections_and_add_up_to_the_equivariance_error() {
        let cube = FiniteGroup::Octahedral.elements();
        let z: Vec<Vec<f64>> = cube.iter().map(of_grid(3)).collect();
        let scatter = Scatter::of(z.clone());
        let found = cube_energies(&cube, &scatter).unwrap();
        for (rho, energy) in found.iter().enumerate() {
            // ‖d/24 Σ_S χ(T⁻¹S) Z(S)‖², averaged over T, of predictions as they are.
            let mut expected = 0.0;
            for t in &cube {
                for c in 0..27 {
                    let terms = cube.iter().zip(&z).map(|(s, z)| {
                        cube_characters(&t.inverse().compose(s)).unwrap()[rho] * z[c]
                    });
                    let projected = CUBE_DIMENSIONS[rho] / 24.0 * terms.sum::<f64>();
                    expected += projected * projected / 24.0;
                }
            }
            // A few hundred numbers of order one.
            assert!(
                (energy - expected).abs() < 1e-13,
                "{rho}: {energy} {expected}"
            );
            assert!(*energy > 0.0);
        }
        let sum: f64 = found.iter().sum();
        assert!((sum - scatter.sum() / 24.0).abs() < 1e-13);
        assert!((scatter.sum_of_pairs() / 576.0 - 2.0 * sum).abs() < 1e-13);
        assert_eq!(
            cube_energies(&cube[..3], &Scatter::of(z[..3].to_vec())),
            None
        );
    }

    #[test]
    fn extremes_of_a_scatter_are_those_of_its_differences() {
        let scatter = Scatter::of(vec![vec![1.0, 0.0], vec![3.0, -4.0]]);
        assert_eq!(scatter.mean(), [2.0, -2.0]);
        assert_eq!(scatter.largest_component(), 2.0);
        assert!((scatter.largest_norm() - 5.0_f64.sqrt()).abs() < 1e-15);
        assert_eq!((scatter.sum(), scatter.sum_of_pairs()), (10.0, 40.0));
    }
}
