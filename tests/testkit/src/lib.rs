//! Why we believe it: analytic models and data, fakes, the fixture reader and the conformance kit.

mod shared;

pub use shared::{parity_dirs, shared_dir, skip};
