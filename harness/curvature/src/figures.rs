//! What a spectrum says: rank, condition, mass, and the condition number of the paper, which measures rounding.

/// Exponents `k` of the fractions of eigenvalues above `10^-k` of the largest.
pub const MASSES: [i32; 4] = [2, 4, 6, 8];

/// Figures of a spectrum.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Number of eigenvalues.
    pub count: usize,
    /// The largest eigenvalue.
    pub largest: f64,
    /// Below this an eigenvalue is rounding.
    pub floor: f64,
    /// Eigenvalues above the floor.
    pub rank: usize,
    /// The smallest eigenvalue above the floor.
    pub smallest: Option<f64>,
    /// `largest / smallest`.
    pub condition: Option<f64>,
    /// Sum of the eigenvalues over the largest: the effective rank.
    pub trace_over_largest: Option<f64>,
    /// Fractions of the eigenvalues above `10^-k` of the largest, for [`MASSES`].
    pub above: [f64; 4],
    /// Fraction of the eigenvalues below minus the floor.
    pub negative: f64,
    /// The paper's condition number: largest over smallest positive eigenvalue, however small.
    pub condition_paper: Option<f64>,
}

/// Figures of eigenvalues; those within `floor` of 0 are rounding.
#[must_use]
pub fn figures(values: &[f64], floor: f64) -> Figures {
    let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let least = |above: f64| {
        let above = values.iter().copied().filter(|v| *v > above);
        Some(above.fold(f64::INFINITY, f64::min)).filter(|v| v.is_finite())
    };
    let share = |holds: &dyn Fn(f64) -> bool| {
        values.iter().filter(|v| holds(**v)).count() as f64 / values.len().max(1) as f64
    };
    let over = |v: f64| Some(largest / v).filter(|c| largest > 0.0 && c.is_finite());
    let smallest = least(floor);
    Figures {
        count: values.len(),
        largest,
        floor,
        rank: values.iter().filter(|v| **v > floor).count(),
        smallest,
        condition: smallest.and_then(over),
        trace_over_largest: Some(values.iter().sum::<f64>() / largest)
            .filter(|r| largest > 0.0 && r.is_finite()),
        above: MASSES.map(|k| share(&|v| largest > 0.0 && v > largest * 10f64.powi(-k))),
        negative: share(&|v| v < -floor),
        condition_paper: least(0.0).and_then(over),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_spectrum_are_what_can_be_counted() {
        let values = [-1e-3, -1e-13, 1e-14, 1e-3, 0.5, 1.0, 10.0];
        let found = figures(&values, 1e-12);
        assert_eq!((found.rank, found.smallest), (4, Some(1e-3)));
        assert_eq!(found.condition, Some(1e4));
        assert_eq!(found.condition_paper, Some(10.0 / 1e-14));
        assert_eq!(found.above, [3.0 / 7.0, 3.0 / 7.0, 4.0 / 7.0, 4.0 / 7.0]);
        assert_eq!(found.negative, 1.0 / 7.0);
        let sum: f64 = values.iter().sum();
        assert_eq!(found.trace_over_largest, Some(sum / 10.0));
    }

    #[test]
    fn nothing_positive_has_no_condition() {
        let found = figures(&[0.0, -1.0], 1e-12);
        assert_eq!(
            (found.rank, found.condition, found.condition_paper),
            (0, None, None)
        );
        assert_eq!(found.trace_over_largest, None);
    }
}
