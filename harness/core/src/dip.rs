//! When a curve dips: the first evaluation below a threshold that the next one confirms, as a censored statistic.
//!
//! Between two evaluations nothing was measured, so a crossing is an interval; "not reached" is not a number.

/// Thresholds in percent.
pub const THRESHOLDS: [f64; 6] = [10.0, 5.0, 3.0, 1.0, 0.3, 0.1];

/// One evaluation of a curve, with what was spent until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Evaluation {
    /// Optimiser steps done.
    pub step: u64,
    /// Passes over the training examples done.
    pub epoch: f64,
    /// Seconds spent training, evaluation excluded.
    pub train_s: f64,
    /// GPU-hours spent training, where there is a GPU.
    pub gpu_h: Option<f64>,
    /// The quantity that dips, in percent.
    pub percent: f64,
    /// Skill at the same moment, where it is defined.
    pub skill: Option<f64>,
    /// Relative equivariance error at the same moment.
    pub relative_equiv: f64,
}

/// A crossing of one threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// The threshold in percent.
    pub threshold: f64,
    /// The last evaluation that was not below it; `None` when the first one already was.
    pub before: Option<Evaluation>,
    /// The first of two consecutive evaluations below it.
    pub at: Evaluation,
}

/// Follows one curve. Serialised into checkpoints.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DipTracker {
    evaluations: Vec<Evaluation>,
}

impl DipTracker {
    /// Adds the next evaluation. One that does not come after the last is ignored: nothing confirms itself.
    pub fn push(&mut self, evaluation: Evaluation) {
        if self
            .evaluations
            .last()
            .is_some_and(|last| last.step >= evaluation.step)
        {
            return;
        }
        self.evaluations.push(evaluation);
    }

    /// All evaluations so far.
    #[must_use]
    pub fn evaluations(&self) -> &[Evaluation] {
        &self.evaluations
    }

    /// The confirmed crossing of a threshold, or `None` if it was not reached.
    #[must_use]
    pub fn crossing(&self, threshold: f64) -> Option<Crossing> {
        let below = |e: &Evaluation| e.percent < threshold;
        let first = self
            .evaluations
            .windows(2)
            .position(|w| below(&w[0]) && below(&w[1]))?;
        let before = first.checked_sub(1).map(|i| self.evaluations[i]);
        Some(Crossing {
            threshold,
            before,
            at: self.evaluations[first],
        })
    }

    /// The evaluation with the smallest percent, the earliest of equals.
    #[must_use]
    pub fn minimum(&self) -> Option<Evaluation> {
        self.evaluations
            .iter()
            .copied()
            .reduce(|best, e| if e.percent < best.percent { e } else { best })
    }

    /// Final over minimum percent: how much is lost after the dip. `None` where the minimum is 0.
    #[must_use]
    pub fn rise(&self) -> Option<f64> {
        let (minimum, last) = (self.minimum()?, self.evaluations.last()?);
        (minimum.percent > 0.0).then(|| last.percent / minimum.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker(percents: &[f64]) -> DipTracker {
        let mut tracker = DipTracker::default();
        for (i, &percent) in percents.iter().enumerate() {
            tracker.push(Evaluation {
                step: 10 * i as u64,
                percent,
                ..Evaluation::default()
            });
        }
        tracker
    }

    #[test]
    fn a_crossing_needs_two_evaluations_and_knows_the_last_one_above() {
        let t = tracker(&[40.0, 4.0, 6.0, 4.5, 2.0, 2.5]);
        let five = t.crossing(5.0).unwrap();
        assert_eq!((five.before.unwrap().step, five.at.step), (20, 30));
        assert_eq!(t.crossing(10.0).unwrap().at.step, 10);
        assert_eq!(t.crossing(1.0), None);
    }

    #[test]
    fn a_curve_that_starts_below_is_censored_on_the_left_and_a_last_dip_alone_does_not_count() {
        assert_eq!(tracker(&[0.5, 0.4]).crossing(1.0).unwrap().before, None);
        assert_eq!(tracker(&[5.0, 0.4]).crossing(1.0), None);
    }

    #[test]
    fn the_rise_is_the_last_over_the_smallest() {
        let t = tracker(&[10.0, 0.5, 1.5]);
        assert_eq!(t.minimum().unwrap().step, 10);
        assert_eq!(t.rise(), Some(3.0));
        assert_eq!(tracker(&[1.0, 0.0]).rise(), None);
    }
}
