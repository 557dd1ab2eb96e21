//! Finds, checks and loads plugins, and converts between the boundary and the harness's own types, once, at the edge.
//!
//! The life of a plugin file: [`SearchPath`] turns a name into a file; [`check_file`] looks at the file without opening it (a
//! truncated library would kill the process); [`describe_in_child`] lets a child process open it first, so that a library that
//! crashes takes nobody along; [`Catalogue`] holds what was found and what was refused; [`Library::open`] opens it here and
//! hands out [`LoadedModel`] and [`LoadedDataset`], which are a [`Model`](equivbench_core::Model) and a
//! [`Dataset`](equivbench_core::Dataset) of the core.
//!
//! Unsafe code lives in `library.rs` only.

mod cache;
mod catalogue;
mod child;
mod convert;
mod dataset;
mod describe;
mod elf;
mod error;
mod frozen;
mod layout;
mod library;
mod model;
mod search;

pub use catalogue::{Catalogue, Found};
pub use child::{ChildReport, Ending, run_child};
pub use dataset::LoadedDataset;
pub use describe::{
    DESCRIBE_COMMAND, DESCRIBE_LIMIT, describe_in_child, describe_in_process, describe_main,
};
pub use equivbench_abi::{PROGRESS_VARIABLE, descriptor};
pub use error::HostError;
pub use library::{Library, check_file, sha256_of};
pub use model::LoadedModel;
pub use search::{SearchPath, file_name_of, plugin_name_of};
