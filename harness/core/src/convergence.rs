//! How good a twirled prediction over few rotations is: estimates from rotations of a finite group drawn without replacement, and the
//! spread over repeats.

/// `L_equiv` without bias from `drawn` different elements of a finite group of `order`, drawn at random without replacement, given the
/// plug-in estimate over them: `n/(n−1) · (N−1)/N` times that. With `n = N` it is the plug-in estimate itself, which is then exact.
///
/// `None` for fewer than two elements, or more than there are.
#[must_use]
pub fn equiv_without_replacement(plug_in: f64, drawn: usize, order: usize) -> Option<f64> {
    let (n, all) = (drawn as f64, order as f64);
    (drawn >= 2 && drawn <= order).then(|| plug_in * n / (n - 1.0) * (all - 1.0) / all)
}

/// Mean and standard deviation over repeats.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The standard deviation of one repeat, with `R − 1`; `None` for one repeat.
    pub deviation: Option<f64>,
}

impl Spread {
    /// Of some numbers; `None` of none.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
        (!values.is_empty()).then(|| Self {
            mean,
            deviation: (values.len() > 1).then(|| (squares / (count - 1.0)).sqrt()),
        })
    }
}

/// The root-mean-square distance of twirled predictions over few rotations from the exact one, given their mean square distance from a
/// reference that was drawn independently, and the mean square error of that reference: the two errors add in the square.
///
/// `None` where the reference is not good enough to tell.
#[must_use]
pub fn rms_beyond_reference(mean_square: f64, of_reference: f64) -> Option<f64> {
    (mean_square >= of_reference).then(|| (mean_square - of_reference).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every subset of `n` of these numbers.
    fn subsets(of: &[f64], n: usize) -> Vec<Vec<f64>> {
        match (n, of) {
            (0, _) => vec![Vec::new()],
            (_, []) => Vec::new(),
            (_, [first, rest @ ..]) => {
                let with = subsets(rest, n - 1).into_iter().map(|mut s| {
                    s.push(*first);
                    s
                });
                with.chain(subsets(rest, n)).collect()
            }
        }
    }

    fn variance(values: &[f64]) -> f64 {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64
    }

    #[test]
    fn drawn_without_replacement_the_estimate_is_right_on_average_over_all_subsets() {
        let predictions = [0.3, -1.0, 2.0, 0.7, 0.1, -0.4, 1.5];
        let truth = variance(&predictions);
        for n in 2..=7 {
            let all = subsets(&predictions, n);
            let mean = all
                .iter()
                .map(|s| equiv_without_replacement(variance(s), n, 7).unwrap())
                .sum::<f64>()
                / all.len() as f64;
            // A few dozen numbers of order one are added.
            assert!((mean / truth - 1.0).abs() < 1e-14, "{n}: {mean} {truth}");
        }
        assert_eq!(equiv_without_replacement(1.0, 1, 7), None);
        assert_eq!(equiv_without_replacement(1.0, 8, 7), None);
    }

    #[test]
    fn one_repeat_has_no_deviation_and_none_has_nothing() {
        assert_eq!(Spread::of(&[]), None);
        let one = Spread::of(&[2.0]).unwrap();
        assert_eq!((one.mean, one.deviation), (2.0, None));
        let three = Spread::of(&[1.0, 2.0, 6.0]).unwrap();
        assert_eq!((three.mean, three.deviation), (3.0, Some(7.0_f64.sqrt())));
    }

    #[test]
    fn errors_add_in_the_square_and_a_reference_that_is_no_better_tells_nothing() {
        assert_eq!(rms_beyond_reference(25.0, 16.0), Some(3.0));
        assert_eq!(rms_beyond_reference(0.0, 0.0), Some(0.0));
        assert_eq!(rms_beyond_reference(1.0, 2.0), None);
    }
}
