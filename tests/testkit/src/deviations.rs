//! How far numbers of ours are from those of a fixture: the largest deviation of each quantity, asserted and told.

use std::collections::BTreeMap;

/// Largest deviations by quantity.
#[derive(Clone, Debug)]
pub struct Deviations {
    about: String,
    worst: BTreeMap<String, (f64, String)>,
}

impl Deviations {
    /// Of a fixture in a precision, as messages name them.
    #[must_use]
    pub fn new(about: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            worst: BTreeMap::new(),
        }
    }

    /// Compares numbers: the largest deviation over `scale` must not exceed `limit`; what is no number deviates without bound.
    ///
    /// # Panics
    /// If it does, or if the sizes differ.
    pub fn compare(
        &mut self,
        [scale, limit]: [f64; 2],
        quantity: &str,
        name: &str,
        ours: &[f64],
        theirs: &[f64],
    ) {
        assert_eq!(
            ours.len(),
            theirs.len(),
            "{}: {name} has another size",
            self.about
        );
        let apart = |(a, b): (&f64, &f64)| {
            if (a - b).is_nan() {
                f64::INFINITY
            } else {
                (a - b).abs()
            }
        };
        let deviation = ours.iter().zip(theirs).map(apart).fold(0.0, f64::max) / scale;
        assert!(
            deviation <= limit,
            "{}: {quantity} {name} deviates by {deviation:.2e}",
            self.about
        );
        let worst = self.worst.entry(quantity.to_owned()).or_default();
        if deviation >= worst.0 {
            *worst = (deviation, name.to_owned());
        }
    }

    /// Prints a line for each quantity.
    pub fn print(&self) {
        for (quantity, (deviation, name)) in &self.worst {
            println!("{}: {quantity:<32} {deviation:.1e}  ({name})", self.about);
        }
    }
}

/// The largest absolute value; 0 of none.
pub fn largest<'a>(values: impl IntoIterator<Item = &'a f64>) -> f64 {
    values.into_iter().fold(0.0, |m, v| m.max(v.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_within_the_limit_passes() {
        Deviations::new("a").compare([2.0, 0.25], "q", "n", &[1.0, -3.5], &[1.0, -3.0]);
        assert_eq!(largest(&[1.0, -3.5]), 3.5);
    }

    #[test]
    #[should_panic(expected = "a: q n deviates by 2.50e-1")]
    fn what_lies_beyond_it_panics_with_its_name() {
        Deviations::new("a").compare([2.0, 0.24], "q", "n", &[1.0, -3.5], &[1.0, -3.0]);
    }

    #[test]
    #[should_panic(expected = "deviates by inf")]
    fn what_is_no_number_never_passes() {
        Deviations::new("a").compare([1.0, 1e300], "q", "n", &[f64::NAN, 0.0], &[0.0, 0.0]);
    }
}
