//! The measured split of the loss under one condition, with one kind of weights.

use crate::{Condition, Deviation, Estimate, PointLoss, SampleTerms, Weights};

/// What one measured sample contributed.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredSample {
    /// Index in the measured split of the dataset.
    pub index: u64,
    /// Its sums, as the task balances samples.
    pub terms: SampleTerms,
}

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
    /// How far predictions from shared work were from blind ones, where that was compared.
    pub deviation: Deviation,
    /// Every sample, in the order in which they were frozen.
    pub samples: Vec<MeasuredSample>,
}
