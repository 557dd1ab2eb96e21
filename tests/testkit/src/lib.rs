//! What tests share: where fixtures and data lie, how they are read, how a test says that it lacks them.

mod arrays;
mod shared;

pub use arrays::{Array, read_arrays, transpose};
pub use shared::{parity_dirs, shared_dir, skip};
