//! The words that host and plugins share: what crosses the boundary, and nothing else.
//!
//! A plugin is a shared library with one root module ([`PluginRoot`]). It lists the models and datasets inside it and opens
//! them as trait objects ([`Model`], [`Dataset`]). Everything that may grow (descriptors, requests) crosses as a JSON
//! document of the types in [`descriptor`], in which unknown keys are ignored and absent keys have defaults, so that an older
//! plugin and a newer host understand each other. Numbers cross in buffers that the host owns and reuses.
//!
//! Compatibility rules: add methods and root fields at the end only, with a default; never touch a struct that crosses by
//! value ([`Batch`], [`Field`], [`FieldMut`], [`AbiError`]); bump the patch version for additions while this crate is 0.x.

pub mod descriptor;
mod error;
mod fields;
mod objects;
mod root;

pub use abi_stable;
pub use error::{AbiError, AbiResult, code};
pub use fields::{Batch, ElementType, Field, FieldKind, FieldMut, Rows};
pub use objects::{
    Dataset, Dataset_TO, DatasetBox, FEATURES, FROZEN_BELOW, Model, Model_TO, ModelBox,
    PREDICT_ABOVE, SHARED_ROTATIONS, VJP_ABOVE, Weights,
};
pub use root::{PluginRoot, PluginRootRef};

/// Version of this contract, the one that plugin and host compare first.
pub const ABI_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Environment variable with the path of a file in which a plugin may say how far a long piece of work is, as
/// [`descriptor::LongWork`]. The host of a run sets it; without it nobody asks.
pub const PROGRESS_VARIABLE: &str = "EQUIVBENCH_PROGRESS_FILE";
