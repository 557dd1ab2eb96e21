//! The mathematics: rotations and groups, their action on fields, twisted and twirled predictions, the decomposition of a
//! loss into its twirled and its equivariance part, estimators with intervals, and the timing of a dip.
//!
//! Nothing here reads a clock, a file or a random source that was not passed in. What the mathematics needs from above it
//! asks for through traits: [`Model`], [`Dataset`], [`Clock`], [`Sink`].
//!
//! ```
//! use equivbench_core::{Rotation, Seed};
//! let mut stream = Seed::new(7).stream("rotations");
//! let r = Rotation::haar(&mut stream);
//! let v = r.apply([1.0, 0.0, 0.0]);
//! assert!((v.iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-14);
//! ```

mod action;
mod batch;
mod bootstrap;
mod choice;
mod condition;
mod convergence;
mod cotangent;
mod decomposition;
mod degree;
mod deviation;
mod dip;
mod elements;
mod error;
mod estimate;
mod grid;
mod group;
mod latent;
mod linear;
mod measure;
mod nudge;
mod numbers;
mod principal_axes;
mod purity;
mod rotation;
mod roughness;
mod scheme;
mod seed;
mod split;
mod spread;
mod table;
mod task;
mod traits;
mod twirl;
mod twisted;
mod voxels;

pub use action::{act, act_inverse_on_rows};
pub use batch::{Batch, Field, FieldKind, Rows, Values};
pub use bootstrap::{Interval, Support, studentised_interval};
pub use choice::{ROTATION_SHARE, SchemeChoice, Spectrum, choose_scheme};
pub use condition::{Axis, AxisRole, AxisValue, Condition, parse_axis};
pub use convergence::{Spread, equiv_without_replacement, rms_beyond_reference};
pub use cotangent::{BlindCopies, GradientSum, LossPart, Pullback, pull_back};
pub use decomposition::{LossDecomposition, PointLoss};
pub use degree::{
    CUBE_REPRESENTATIONS, DEGREES, LieSquare, LieStep, Scatter, character, cube_energies,
    degree_energies, effective_degree,
};
pub use deviation::Deviation;
pub use dip::{Crossing, CrossingKind, DipTracker, Evaluation, THRESHOLDS};
pub use error::CoreError;
pub use estimate::{Estimate, Estimator, MeasuredSample, SampleTerms, Sampled, pool};
pub use grid::GridRotation;
pub use group::{FiniteGroup, cube16_a, cube16_b};
pub use latent::{LatentInfo, cosine, partners};
pub use linear::{LinearGroup, LinearRows};
pub use measure::{Checked, Measured, Measurement, Portion, Reading, measure, measure_stream};
pub use nudge::nudge_power;
pub use numbers::{Precision, first_that, map_into};
pub use principal_axes::{PrincipalAxes, symmetric_eigen};
pub use purity::{Basin, Descent, PartGradients, Purity, basin, dot, norm};
pub use rotation::Rotation;
pub use roughness::roughness;
pub use scheme::{RotationPlan, Scheme};
pub use seed::{Seed, Stream, normals};
pub use split::Split;
pub use spread::{
    Censored, Centre, Comparison, Contrast, Correlation, CrossingTimes, FEWEST_SEEDS,
    LogDifference, LogMean, NoVerdict, OrderInterval, Quartiles, RankTest, Sampling, SeedInterval,
    Slope, centre, compare, contrast, correlation, crossing_times, group_interval, log_difference,
    log_variance, mean_interval, mean_log_variance, mean_ratio_variance, paired_log_variance,
    quartiles, rank_test, seed_interval, seeds_needed, slope, sums_by_group,
};
pub use table::{Cell, Column, ColumnInfo, Sink, Table, TableInfo, within};
pub use task::{
    Augmentation, Balance, Baseline, CloudAugmentation, Examples, FlowMatching, ForceField,
    Occasion, Preparation, Supervised, Task, TaskRequest, VoxelDenoising, all_axes, baseline_sums,
    condition_columns, conditions_of, configure_task, euler_rotation, task_columns,
};
pub use traits::{Clock, Dataset, FrozenBelow, Model, StepFigures, Weights};
pub use twirl::TwirlAccumulator;
pub use twisted::RotatedCopies;
pub use voxels::{RADIUS_ANGSTROM, RESOLUTION_ANGSTROM, VoxelAtom, voxelise};
