//! What tests share: where fixtures and data lie, how they are read, how a test says that it lacks them.

mod arrays;
mod deviations;
mod shared;

pub use arrays::{Array, read_arrays, transpose};
pub use deviations::{Deviations, largest};
pub use shared::{fixtures, more_data, parity_dirs, shared_data, shared_dir, skip};
