//! Gradient purity: how much of the gradient of the loss is that of its twirled part, and the paper's Propositions 2 and 3.

/// The losses and gradients of one moment. The gradient of `L` is the sum of the two.
#[derive(Clone, Copy, Debug)]
pub struct PartGradients<'a> {
    /// `L_mean`.
    pub loss_twirled: f64,
    /// `L_equiv`.
    pub loss_equiv: f64,
    /// `∇L`.
    pub total: &'a [f64],
    /// `∇L_mean`.
    pub twirled: &'a [f64],
    /// `∇L_equiv`.
    pub equivariance: &'a [f64],
}

/// What gradients say of each other.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Purity {
    /// `|∇L|`.
    pub norm_total: f64,
    /// `|∇L_mean|`.
    pub norm_twirled: f64,
    /// `|∇L_equiv|`.
    pub norm_equiv: f64,
    /// Cosine of the angle between `∇L_mean` and `∇L_equiv`.
    pub cosine: Option<f64>,
    /// Cosine of the angle between `∇L` and `∇L_mean`.
    pub cosine_total: Option<f64>,
    /// `|∇L_equiv| / |∇L_mean|`, the ratio of the paper's Figures 7 and 8.
    pub ratio: Option<f64>,
    /// `|∇L − ∇L_mean| / |∇L_mean|`, the left side of Proposition 2.
    pub relative_error: Option<f64>,
    /// `ε = L_equiv / L_mean`.
    pub epsilon: Option<f64>,
    /// `|∇ε|² / (2 ε)`: the smoothness of `ε` that Proposition 2 needs at this point.
    pub smoothness_here: Option<f64>,
}

/// The inner product.
#[must_use]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The Euclidean norm.
#[must_use]
pub fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

fn over(a: f64, b: f64) -> Option<f64> {
    Some(a / b).filter(|ratio| b > 0.0 && ratio.is_finite())
}

impl PartGradients<'_> {
    /// What they say of each other.
    #[must_use]
    pub fn purity(&self) -> Purity {
        let [total, twirled, equiv] = [self.total, self.twirled, self.equivariance].map(norm);
        let difference = self.total.iter().zip(self.twirled).map(|(a, b)| a - b);
        let error = difference.map(|d| d * d).sum::<f64>().sqrt();
        let epsilon = over(self.loss_equiv, self.loss_twirled).filter(|e| *e >= 0.0);
        let slope = self.slope_of_epsilon();
        let here = epsilon
            .zip(slope)
            .and_then(|(e, g)| over(dot(&g, &g), 2.0 * e));
        Purity {
            norm_total: total,
            norm_twirled: twirled,
            norm_equiv: equiv,
            cosine: over(dot(self.twirled, self.equivariance), twirled * equiv),
            cosine_total: over(dot(self.total, self.twirled), total * twirled),
            ratio: over(equiv, twirled),
            relative_error: over(error, twirled),
            epsilon,
            smoothness_here: here,
        }
    }

    /// `∇ε = (∇L_equiv − ε ∇L_mean) / L_mean`; `None` unless `L_mean` is positive.
    #[must_use]
    pub fn slope_of_epsilon(&self) -> Option<Vec<f64>> {
        let epsilon = over(self.loss_equiv, self.loss_twirled)?;
        let slope = |(e, m): (&f64, &f64)| (e - epsilon * m) / self.loss_twirled;
        Some(
            self.equivariance
                .iter()
                .zip(self.twirled)
                .map(slope)
                .collect(),
        )
    }
}

impl Purity {
    /// The right side of Proposition 2, `ε + L_mean/|∇L_mean| √(2 M ε)`, where `ε` is `M`-smooth.
    #[must_use]
    pub fn proposition2(&self, loss_twirled: f64, smoothness: f64) -> Option<f64> {
        let epsilon = self.epsilon?;
        let lever = over(loss_twirled, self.norm_twirled)?;
        Some(epsilon + lever * (2.0 * smoothness * epsilon).sqrt())
    }
}

/// One evaluation, for Proposition 3.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Descent {
    /// `L_mean`.
    pub loss_twirled: f64,
    /// `L_equiv`.
    pub loss_equiv: f64,
    /// `|∇L_mean|`.
    pub norm_twirled: f64,
    /// `|∇L_equiv|`.
    pub norm_equiv: f64,
}

/// Constants of Proposition 3 along a part of training, and its right side at the last point of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Basin {
    /// `c` of `|∇L_mean|² ≥ c L_mean^α`.
    pub c: f64,
    /// `α`, between 1 and 2.
    pub alpha: f64,
    /// `M`, the largest `|∇L_equiv|² / (2 L_equiv)`.
    pub smoothness: f64,
    /// `√(2 M / c) √(L_equiv / L_mean^α)` at the last point.
    pub right: f64,
}

/// Fits the inequality of Kurdyka and Łojasiewicz as the lower envelope of `ln |∇L_mean|²` against `ln L_mean`: of the lines below all points
/// with a slope from 1 to 2 the one that is closest to them. `None` without two points of different positive losses.
#[must_use]
pub fn basin(points: &[Descent]) -> Option<Basin> {
    let usable = |d: &&Descent| d.loss_twirled > 0.0 && d.norm_twirled > 0.0 && d.loss_equiv > 0.0;
    let points: Vec<&Descent> = points.iter().filter(usable).collect();
    let logs: Vec<(f64, f64)> = points
        .iter()
        .map(|d| (d.loss_twirled.ln(), 2.0 * d.norm_twirled.ln()))
        .collect();
    let mut slopes = vec![1.0, 2.0];
    for (i, a) in logs.iter().enumerate() {
        let between = |b: &(f64, f64)| (b.1 - a.1) / (b.0 - a.0);
        slopes.extend(
            logs[..i]
                .iter()
                .map(between)
                .filter(|s| (1.0..2.0).contains(s)),
        );
    }
    if logs.len() < 2 || logs.iter().all(|l| l.0 == logs[0].0) {
        return None;
    }
    let intercept = |alpha: f64| {
        logs.iter()
            .map(|l| l.1 - alpha * l.0)
            .fold(f64::INFINITY, f64::min)
    };
    let mean = logs.iter().map(|l| l.0).sum::<f64>() / logs.len() as f64;
    let height = |alpha: f64| intercept(alpha) + alpha * mean;
    let alpha = slopes
        .into_iter()
        .max_by(|a, b| height(*a).total_cmp(&height(*b)))?;
    let c = intercept(alpha).exp();
    let bends = points
        .iter()
        .map(|d| d.norm_equiv.powi(2) / (2.0 * d.loss_equiv));
    let smoothness = bends.fold(0.0, f64::max);
    let last = points.last()?;
    let right =
        (2.0 * smoothness / c).sqrt() * (last.loss_equiv / last.loss_twirled.powf(alpha)).sqrt();
    Some(Basin {
        c,
        alpha,
        smoothness,
        right,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `L_mean = a x²/2`, `L_equiv = b (x − s)²/2` in two dimensions.
    fn at(x: [f64; 2]) -> ([f64; 2], [Vec<f64>; 3]) {
        let shifted = [x[0] - 0.1, x[1]];
        let mean = 1.5 * (x[0] * x[0] + x[1] * x[1]);
        let equiv = 0.25 * (shifted[0].powi(2) + shifted[1].powi(2));
        let of_mean = x.map(|v| 3.0 * v).to_vec();
        let of_equiv = shifted.map(|v| 0.5 * v).to_vec();
        let total = of_mean.iter().zip(&of_equiv).map(|(a, b)| a + b).collect();
        ([mean, equiv], [total, of_mean, of_equiv])
    }

    fn gradients<'a>(losses: [f64; 2], g: &'a [Vec<f64>; 3]) -> PartGradients<'a> {
        PartGradients {
            loss_twirled: losses[0],
            loss_equiv: losses[1],
            total: &g[0],
            twirled: &g[1],
            equivariance: &g[2],
        }
    }

    #[test]
    fn the_slope_of_epsilon_is_that_of_differences() {
        let x = [0.4, -0.3];
        let (losses, g) = at(x);
        let slope = gradients(losses, &g).slope_of_epsilon().unwrap();
        for i in 0..2 {
            let epsilon = |h: f64| {
                let mut moved = x;
                moved[i] += h;
                let ([mean, equiv], _) = at(moved);
                equiv / mean
            };
            let expected = (epsilon(1e-5) - epsilon(-1e-5)) / 2e-5;
            // Third derivatives of some hundreds times h², 1e-10.
            assert!((slope[i] - expected).abs() < 1e-7, "{slope:?} {expected}");
        }
    }

    #[test]
    fn both_sides_of_proposition_2_are_in_order_wherever_the_smoothness_suffices() {
        for k in 0..50 {
            let angle = f64::from(k) * 0.7;
            let radius = 0.05 + 0.04 * f64::from(k);
            let (losses, g) = at([radius * angle.cos(), radius * angle.sin()]);
            let purity = gradients(losses, &g).purity();
            let left = purity.relative_error.unwrap();
            // `∇L` is the sum of the others.
            assert!((left - purity.ratio.unwrap()).abs() < 1e-12 * left);
            let right = purity.proposition2(losses[0], purity.smoothness_here.unwrap());
            assert!(left <= right.unwrap() * (1.0 + 1e-12));
        }
    }

    #[test]
    fn parallel_gradients_have_cosine_one_and_a_vanishing_one_has_none() {
        let g = [vec![3.0, 6.0], vec![1.0, 2.0], vec![2.0, 4.0]];
        let purity = gradients([1.0, 2.0], &g).purity();
        assert!((purity.cosine.unwrap() - 1.0).abs() < 1e-15);
        assert!((purity.ratio.unwrap() - 2.0).abs() < 1e-15);
        let none = [vec![1.0], vec![0.0], vec![1.0]];
        assert_eq!(gradients([1.0, 2.0], &none).purity().cosine, None);
        assert_eq!(gradients([0.0, 2.0], &g).slope_of_epsilon(), None);
    }

    #[test]
    fn a_quadratic_basin_has_exponent_one_and_its_own_constant() {
        // |∇(k x²/2)|² = 2 k L: α = 1, c = 2 k.
        let point = |x: f64| Descent {
            loss_twirled: 1.5 * x * x,
            loss_equiv: 0.5 * x * x,
            norm_twirled: 3.0 * x,
            norm_equiv: x,
        };
        let points: Vec<Descent> = [1.0, 0.5, 0.2, 0.01].into_iter().map(point).collect();
        let found = basin(&points).unwrap();
        assert!(
            (found.alpha - 1.0).abs() < 1e-9 && (found.c - 6.0).abs() < 1e-8,
            "{found:?}"
        );
        assert!((found.smoothness - 1.0).abs() < 1e-12);
        // √(2/6) √(0.5/1.5): the ratio itself, 1/3.
        assert!((found.right - 1.0 / 3.0).abs() < 1e-8);
        assert_eq!(basin(&points[..1]), None);
    }

    #[test]
    fn a_flatter_basin_has_a_larger_exponent() {
        // L = x⁴: |∇L|² = 16 x⁶ = 16 L^1.5.
        let point = |x: f64| Descent {
            loss_twirled: x.powi(4),
            loss_equiv: x,
            norm_twirled: 4.0 * x.powi(3),
            norm_equiv: 1.0,
        };
        let points: Vec<Descent> = [1.0, 0.6, 0.3, 0.1].into_iter().map(point).collect();
        let found = basin(&points).unwrap();
        assert!(
            (found.alpha - 1.5).abs() < 1e-9 && (found.c - 16.0).abs() < 1e-7,
            "{found:?}"
        );
    }
}
