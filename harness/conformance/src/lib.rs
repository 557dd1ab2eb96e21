//! The checks that every plugin must pass, ours or not: the kit behind `equivbench check PLUGIN`.
//!
//! [`list_checks`] names them, [`targets`] says what there is to check in a library, and [`run_check`] runs one check on one target. A
//! plugin may crash or hang in any of them, so a program that wants to live runs each in a child process.
//!
//! Each check opens its own instances and feeds them toy batches that are made from the model's own description of its inputs
//! (molecule-like points, a few samples of different sizes). The figure of a check that passed says how well.

mod abilities;
mod check;
mod data;
mod frozen;
mod gradient;
mod refusals;
mod subject;
mod toy;
mod training;
mod values;
mod verdict;

pub use check::{Check, list_checks, run_check};
pub use subject::{Target, targets};
pub use verdict::{CheckOutcome, Kind};
