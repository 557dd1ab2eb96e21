//! Columns, tables, manifests and summaries: how numbers reach a reader. Nothing is computed here.

mod docs;
mod error;
mod fairness;
mod keys;
mod manifest;
mod merge;
mod summary;
mod writer;

pub use docs::{columns_json, columns_markdown};
pub use error::ReportError;
pub use fairness::unfair;
pub use keys::{MEASUREMENT, RunKeys, key_columns};
pub use manifest::{DataFacts, Manifest, MeasurementFacts, NOT_PASSED, PluginFacts, RunManifest};
pub use merge::{
    MergedTable, Row, TableSource, merge_tables, write_atomically, write_parts_atomically,
};
pub use summary::{dip_summary, final_summary};
pub use writer::{Extent, TableSync, TableWriter, header};
