//! How rough a function on a grid is.

/// Mean squared second difference over mean squared first difference of values on a square grid (the second axis the fastest): along the
/// first axis, along the second, and of both together. `None` where nothing changes, or on fewer than three points.
///
/// A slope has 0, a bowl little where it has many points, noise without slope 3.
#[must_use]
pub fn roughness(values: &[f64], side: usize) -> [Option<f64>; 3] {
    if side < 3 || values.len() != side * side {
        return [None; 3];
    }
    let along = |stride: usize, other: usize| {
        let (mut first, mut second) = ((0.0, 0.0), (0.0, 0.0));
        for line in 0..side {
            let at = |k: usize| values[line * other + k * stride];
            for k in 1..side {
                first.0 += (at(k) - at(k - 1)).powi(2);
                first.1 += 1.0;
            }
            for k in 1..side - 1 {
                second.0 += (at(k + 1) - 2.0 * at(k) + at(k - 1)).powi(2);
                second.1 += 1.0;
            }
        }
        [first.0 / first.1, second.0 / second.1]
    };
    let (a, b) = (along(side, 1), along(1, side));
    let over =
        |second: f64, first: f64| Some(second / first).filter(|r| first > 0.0 && r.is_finite());
    [
        over(a[1], a[0]),
        over(b[1], b[0]),
        over(a[1] + b[1], a[0] + b[0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_grid(of: impl Fn(f64, f64) -> f64) -> Vec<f64> {
        let at = |i: usize| i as f64 - 3.0;
        (0..49).map(|k| of(at(k / 7), at(k % 7))).collect()
    }

    #[test]
    fn a_slope_is_smooth_and_a_bowl_is_its_closed_form() {
        let [a, b, both] = roughness(&on_grid(|x, y| 3.0 * x + 0.5 * y), 7);
        // Differences of small multiples of a half are exact.
        assert_eq!((a, b, both), (Some(0.0), Some(0.0), Some(0.0)));
        // First differences of x² at the middles ±0.5, ±1.5, ±2.5: (2m)², mean 35/3; second differences 2.
        let [a, b, _] = roughness(&on_grid(|x, _| x * x), 7);
        assert!((a.unwrap() - 4.0 / (35.0 / 3.0)).abs() < 1e-14);
        assert_eq!(b, None);
    }

    #[test]
    fn alternating_values_are_as_rough_as_can_be() {
        let [a, _, both] = roughness(
            &on_grid(|x, y| if (x + y) as i64 % 2 == 0 { 1.0 } else { -1.0 }),
            7,
        );
        // First differences 2, second ones 4.
        assert_eq!((a, both), (Some(4.0), Some(4.0)));
        assert_eq!(roughness(&[1.0; 4], 2), [None; 3]);
    }
}
