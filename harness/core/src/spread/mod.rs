//! How far a number can be trusted: what is random in it, and intervals that contain all of that.
//!
//! | what varies | file | interval |
//! |---|---|---|
//! | the samples that were measured | `groups.rs` | studentised bootstrap over groups of samples |
//! | the seed of training | `seeds.rs` | Student's t of the logarithm over seeds, plus the part of the samples |
//! | the seeds of two models | `welch.rs` | Welch's t of the difference of mean logarithms |
//! | a value at the floor of rounding | `floor.rs` | median and a one-sided bound |
//! | a threshold that some seeds never reach | `censored.rs` | order statistics |
//! | the samples of two kinds of pairs | `contrast.rs` | percentile bootstrap over groups of medians and Cliff's delta |
//! | points of a curve that go together | `correlation.rs` | Pearson's R with Fisher's interval |
//!
//! What coverage these have is checked by simulation (`tests/spread_coverage.rs`); `docs/intervals.md` has the figures.

mod censored;
mod contrast;
mod correlation;
mod floor;
mod groups;
mod seeds;
mod slope;
mod student;
mod welch;

pub use censored::{CrossingTimes, OrderInterval, crossing_times};
pub use contrast::{Contrast, Quartiles, RankTest, contrast, quartiles, rank_test};
pub use correlation::{Correlation, correlation};
pub use floor::{Censored, Centre, Comparison, centre, compare};
pub use groups::{
    group_interval, log_variance, mean_log_variance, mean_ratio_variance, paired_log_variance,
    sums_by_group,
};
pub use seeds::{LogMean, Sampling, SeedInterval, mean_interval, seed_interval};
pub use slope::{Slope, slope};
pub use welch::{LogDifference, NoVerdict, log_difference, seeds_needed};

/// Seeds a side below which two architectures are not compared.
pub const FEWEST_SEEDS: usize = 3;
