//! Experiments become run directories; a worker executes or resumes exactly one; a local pool runs several.
//!
//! Suite + overrides → [`plan`](plan::plan) → run directories with `run.toml` → [`worker`] → tables, merged in a fixed order.

pub mod checkpoint;
pub mod clock;
pub mod config;
mod error;
pub mod experiment;
mod identity;
pub mod keeper;
mod measuring;
mod opening;
pub mod plan;
pub mod pool;
mod request;
pub mod run_dir;
pub mod suite;
mod watch;
pub mod worker;

pub use error::RunnerError;
pub use measuring::measure_checkpoint;
pub use request::MeasureRequest;
