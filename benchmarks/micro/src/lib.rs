//! Benches of hot paths, each beside what it could cost at best, timed in turns so that whatever else the machine does hits both alike.
//!
//! A bench is a [`Case`]: some work, and the floor it is measured against. [`run`] is the whole `main` of a bench target. It prints
//! the ratio of every case, hands the times to criterion, and, where [`RATIOS`] names a file, only adds the ratios to that file:
//! `cargo xtask bench` compares them with the stored ones.

mod case;
mod main_of_a_bench;
mod ratio;

pub use case::{Amount, Case};
pub use main_of_a_bench::{RATIOS, run};
pub use ratio::{Ratio, interleaved};
