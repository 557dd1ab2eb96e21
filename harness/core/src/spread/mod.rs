//! How far a number can be trusted: what is random in it, and intervals that contain all of that.
//!
//! | what varies | where | interval |
//! |---|---|---|
//! | the samples that were measured | [`groups`] | studentised bootstrap over groups of samples |
//! | the seed of training | [`seeds`] | Student's t of the logarithm over seeds, plus the part of the samples |
//! | the seeds of two models | [`welch`] | Welch's t of the difference of mean logarithms |
//! | a value at the floor of rounding | [`floor`] | median and a one-sided bound |
//! | a threshold that some seeds never reach | [`censored`] | order statistics |
//!
//! What coverage these have is checked by simulation (`tests/spread_coverage.rs`); `docs/intervals.md` has the figures.

mod groups;
mod seeds;
mod student;

pub use groups::{
    group_interval, log_variance, mean_log_variance, paired_log_variance, sums_by_group,
};
pub use seeds::{LogMean, Sampling, SeedInterval, seed_interval};
