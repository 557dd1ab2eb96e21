//! The measured split of the loss under one condition, with one kind of weights.

use crate::{Condition, Deviation, Estimate, MeasuredSample, PointLoss, Weights};

/// The loss of the frozen samples, split into its twirled and its equivariance part.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Raw or averaged weights.
    pub weights: Weights,
    /// Under which condition.
    pub condition: Condition,
    /// The loss that was split.
    pub loss: PointLoss,
    /// The estimate with its interval.
    pub estimate: Estimate,
    /// Percent that rounding alone can cause, ten times what nudging each input by one unit in the last place does; `None` where the
    /// percent lies far above and nobody asked.
    pub floor_percent: Option<f64>,
    /// Whether anything can be learnt here that the baseline does not know.
    pub learnable: bool,
    /// How far predictions from shared work were from blind ones, where that was compared.
    pub deviation: Deviation,
    /// Every sample, in the order in which they were frozen.
    pub samples: Vec<MeasuredSample>,
}

/// Skill that is no more than rounding: losses are sums of some thousand numbers, each good to 1e-16, of predictions in f32 at worst
/// averaged over them.
const ROUNDING: f64 = 1e-9;

impl Split {
    /// Whether the percent is no more than rounding: it is then "at most the floor", not a number.
    #[must_use]
    pub fn is_at_floor(&self) -> bool {
        self.floor_percent
            .is_some_and(|floor| self.estimate.pooled.percent() <= floor)
    }

    /// Whether the model knows something that the baseline does not: the lower end of the interval of its skill is above 0. `None` where
    /// nothing can be learnt or the interval is not known.
    #[must_use]
    pub fn is_learnt(&self) -> Option<bool> {
        let skill = self.estimate.sampling.skill.filter(|_| self.learnable)?;
        Some(skill.lower > ROUNDING)
    }
}
