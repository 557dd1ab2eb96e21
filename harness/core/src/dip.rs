//! When a curve dips: the first evaluation below a threshold that the next one confirms, as a censored statistic.
//!
//! Between two evaluations nothing was measured, so a crossing is an interval; "not reached" is not a number. A model whose outputs have
//! shrunk to nothing has a small percent too, so a dip is told from a learnt one, and one that stays from one that does not.

/// Thresholds in percent.
pub const THRESHOLDS: [f64; 6] = [10.0, 5.0, 3.0, 1.0, 0.3, 0.1];

/// How much above the loss of its baseline a model may be to count where nothing can be learnt.
const NEAR_BASELINE: f64 = 1.1;

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
    /// Upper end of its interval, where one is known.
    pub percent_upper: Option<f64>,
    /// Skill at the same moment, where it is defined.
    pub skill: Option<f64>,
    /// Lower end of the interval of skill, where one is known.
    pub skill_lower: Option<f64>,
    /// Whether the model knows something that the baseline does not; `None` where that cannot be said.
    pub learnt: Option<bool>,
    /// Relative equivariance error at the same moment.
    pub relative_equiv: f64,
    /// Upper end of its interval, between 0 and 1, where one is known.
    pub relative_upper: Option<f64>,
    /// Loss over that of the baseline, where that is not 0.
    pub loss_over_baseline: Option<f64>,
}

/// What a crossing asks of two evaluations in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossingKind {
    /// Both lie below.
    First,
    /// Both lie below, and the model is learnt at both.
    Learnt,
    /// Both lie below, and so does every later one.
    Settled,
    /// The upper ends of the intervals of both lie below.
    Confident,
}

impl CrossingKind {
    /// All of them, in the order of rows.
    pub const ALL: [Self; 4] = [Self::First, Self::Learnt, Self::Settled, Self::Confident];

    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Learnt => "learnt",
            Self::Settled => "settled",
            Self::Confident => "confident",
        }
    }

    fn holds(self, e: &Evaluation, threshold: f64) -> bool {
        match self {
            Self::First | Self::Settled => e.percent < threshold,
            Self::Learnt => e.percent < threshold && e.learnt == Some(true),
            Self::Confident => e.percent_upper.is_some_and(|upper| upper < threshold),
        }
    }
}

/// A crossing of one threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// The threshold in percent.
    pub threshold: f64,
    /// The last evaluation of which it did not hold; `None` when it held of the first one already: from the start.
    pub before: Option<Evaluation>,
    /// The first of two consecutive evaluations of which it holds.
    pub at: Evaluation,
    /// The largest percent of all later evaluations: what smoothing would hide.
    pub largest_after: f64,
}

/// Follows one curve. Serialised into checkpoints.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DipTracker {
    evaluations: Vec<Evaluation>,
    learnable: bool,
}

impl DipTracker {
    /// A curve without evaluations; `learnable` says whether there is anything to learn that the baseline does not know.
    #[must_use]
    pub const fn new(learnable: bool) -> Self {
        Self {
            evaluations: Vec::new(),
            learnable,
        }
    }

    /// The same curve with another quantity in the place of its percent: value and upper end.
    #[must_use]
    pub fn of(&self, quantity: impl Fn(&Evaluation) -> (f64, Option<f64>)) -> Self {
        let replaced = |e: &Evaluation| {
            let (percent, percent_upper) = quantity(e);
            Evaluation {
                percent,
                percent_upper,
                ..*e
            }
        };
        Self {
            evaluations: self.evaluations.iter().map(replaced).collect(),
            learnable: self.learnable,
        }
    }

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

    /// Whether there is anything to learn that the baseline does not know.
    #[must_use]
    pub const fn is_learnable(&self) -> bool {
        self.learnable
    }

    /// The confirmed crossing of a threshold, or `None` if it was not reached.
    #[must_use]
    pub fn crossing(&self, threshold: f64, kind: CrossingKind) -> Option<Crossing> {
        let all = &self.evaluations;
        let holds = |e: &Evaluation| kind.holds(e, threshold);
        let from = match kind {
            CrossingKind::Settled => all.iter().rposition(|e| !holds(e)).map_or(0, |i| i + 1),
            _ => 0,
        };
        let confirmed = |w: &[Evaluation]| holds(&w[0]) && holds(&w[1]);
        let first = from + all[from..].windows(2).position(confirmed)?;
        let later = all[first + 1..].iter().map(|e| e.percent);
        Some(Crossing {
            threshold,
            before: first.checked_sub(1).map(|i| all[i]),
            at: all[first],
            largest_after: later.fold(f64::NEG_INFINITY, f64::max),
        })
    }

    /// Whether an evaluation says something about symmetry: the model is learnt; where nothing can be learnt, it is about as good as its
    /// baseline.
    fn counts(&self, e: &Evaluation) -> bool {
        if self.learnable {
            e.learnt == Some(true)
        } else {
            e.loss_over_baseline.is_some_and(|r| r <= NEAR_BASELINE)
        }
    }

    /// The evaluation with the smallest percent of those that count, the earliest of equals.
    #[must_use]
    pub fn minimum(&self) -> Option<Evaluation> {
        self.evaluations
            .iter()
            .copied()
            .filter(|e| self.counts(e))
            .reduce(|best, e| if e.percent < best.percent { e } else { best })
    }

    /// Last over smallest percent, of the evaluations that count: how much is lost after the dip. `None` where the minimum is 0.
    #[must_use]
    pub fn rise(&self) -> Option<f64> {
        let minimum = self.minimum()?;
        let last = self.evaluations.iter().rfind(|e| self.counts(e))?;
        (minimum.percent > 0.0).then(|| last.percent / minimum.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use CrossingKind::{Confident, First, Learnt, Settled};

    /// Percents, and from which evaluation on the model is learnt.
    fn tracker(percents: &[f64], learnt_from: usize) -> DipTracker {
        let mut tracker = DipTracker::new(true);
        for (i, &percent) in percents.iter().enumerate() {
            tracker.push(Evaluation {
                step: 10 * i as u64,
                percent,
                percent_upper: Some(1.5 * percent),
                learnt: Some(i >= learnt_from),
                ..Evaluation::default()
            });
        }
        tracker
    }

    #[test]
    fn a_crossing_needs_two_evaluations_and_knows_the_last_one_above() {
        let t = tracker(&[40.0, 4.0, 6.0, 4.5, 2.0, 2.5], 0);
        let five = t.crossing(5.0, First).unwrap();
        assert_eq!((five.before.unwrap().step, five.at.step), (20, 30));
        assert_eq!(five.largest_after, 2.5);
        assert_eq!(t.crossing(10.0, First).unwrap().at.step, 10);
        assert_eq!(t.crossing(10.0, First).unwrap().largest_after, 6.0);
        assert_eq!(t.crossing(1.0, First), None);
    }

    #[test]
    fn a_curve_that_starts_below_does_so_from_the_start_and_a_last_dip_alone_does_not_count() {
        let below = tracker(&[0.5, 0.4], 0);
        assert_eq!(below.crossing(1.0, First).unwrap().before, None);
        assert_eq!(below.crossing(1.0, Settled).unwrap().before, None);
        assert_eq!(tracker(&[5.0, 0.4], 0).crossing(1.0, First), None);
        assert_eq!(tracker(&[5.0, 0.4], 0).crossing(1.0, Settled), None);
    }

    #[test]
    fn a_learnt_dip_comes_later_than_the_trivial_one_and_a_settled_one_after_the_last_spike() {
        let t = tracker(&[40.0, 0.5, 0.4, 3.0, 0.7, 2.0, 0.6, 0.5], 4);
        assert_eq!(t.crossing(1.0, First).unwrap().at.step, 10);
        assert_eq!(t.crossing(1.0, First).unwrap().largest_after, 3.0);
        let learnt = t.crossing(1.0, Learnt).unwrap();
        assert_eq!((learnt.before.unwrap().step, learnt.at.step), (50, 60));
        assert_eq!(t.crossing(1.0, Settled).unwrap().at.step, 60);
        assert_eq!(t.crossing(5.0, Settled).unwrap().at.step, 10);
        // Upper ends are half as large again: 0.75, 0.6, ..., 0.9, 0.75.
        assert_eq!(t.crossing(0.8, Confident).unwrap().at.step, 10);
        assert_eq!(t.crossing(0.5, Confident), None);
    }

    #[test]
    fn minimum_and_rise_are_of_learnt_evaluations() {
        let t = tracker(&[10.0, 0.1, 2.0, 0.5, 1.5], 2);
        assert_eq!(t.minimum().unwrap().step, 30);
        assert_eq!(t.rise(), Some(3.0));
        assert_eq!(tracker(&[1.0, 0.0], 0).rise(), None);
        assert_eq!(tracker(&[1.0, 0.5], 2).minimum(), None);
    }

    #[test]
    fn where_nothing_can_be_learnt_evaluations_near_the_baseline_count() {
        let mut t = DipTracker::new(false);
        for (step, percent, ratio) in [(0, 9.0, 40.0), (1, 0.2, 1.2), (2, 3.0, 1.05), (3, 6.0, 1.0)]
        {
            t.push(Evaluation {
                step,
                percent,
                loss_over_baseline: Some(ratio),
                ..Evaluation::default()
            });
        }
        assert_eq!((t.minimum().unwrap().step, t.rise()), (2, Some(2.0)));
        assert_eq!(t.crossing(10.0, Learnt), None);
    }

    #[test]
    fn another_quantity_of_the_same_curve_has_its_own_crossings() {
        let mut t = DipTracker::new(true);
        for step in 0..3 {
            t.push(Evaluation {
                step,
                percent: 0.1,
                relative_equiv: 0.5 / (step + 1) as f64,
                ..Evaluation::default()
            });
        }
        let relative = t.of(|e| (100.0 * e.relative_equiv, None));
        assert_eq!(relative.crossing(30.0, First).unwrap().at.step, 1);
        assert_eq!(relative.crossing(30.0, Confident), None);
    }
}
