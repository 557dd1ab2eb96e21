//! Tables, their merging, manifests: how numbers reach files and come back. Nothing is computed here.

mod error;
mod fairness;
mod keys;
mod manifest;
mod merge;
mod writer;

pub use error::ReportError;
pub use fairness::unfair;
pub use keys::{MEASUREMENT, RunKeys, key_columns};
pub use manifest::{DataFacts, Manifest, MeasurementFacts, NOT_PASSED, PluginFacts, RunManifest};
pub use merge::{
    MergedTable, Row, TableSource, merge_tables, read_merged, write_atomically,
    write_parts_atomically,
};
pub use writer::{Extent, TableSync, TableWriter, header};
