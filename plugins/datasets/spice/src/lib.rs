//! Force-field data for `equivbench`: SPICE's release files (HDF5, streamed), extended XYZ, ASE LMDB, and an embedded sample.
//!
//! | module | owns |
//! |---|---|
//! | `spice` | the dataset behind the boundary |
//! | `options` | what a suite's `[dataset]` table may say |
//! | `source` | which files a path names, which format each has |
//! | `release`, `xyz`, `aselmdb`, `embedded` | one format each |
//! | `hdf5`, `lmdb`, `lru` | what these stand on |
//! | `inventory`, `split` | molecules, conformations, filters; train, valid, test by molecule |
//! | `checks`, `content` | the dataset's report on itself; its hash |
//! | [`conformations`], [`units`] | SPICE's unlabelled files and what reading them needs |
//!
//! ```
//! use equivbench_plugin::DatasetPlugin;
//! use equivbench_spice::{Options, Spice};
//! let mut data = Spice::open(Options::default(), 1)?;
//! assert_eq!(data.describe().name, "spice-mini (GFN2-xTB)");
//! let conformation = data.conformation("valid", 0)?;
//! assert_eq!(conformation.positions.len(), 3 * conformation.species.len());
//! # Ok::<(), equivbench_plugin::PluginError>(())
//! ```

mod aselmdb;
mod checks;
pub mod conformations;
mod content;
mod embedded;
mod hdf5;
mod inventory;
mod lmdb;
mod lru;
mod options;
mod release;
mod source;
mod spice;
mod split;
pub mod units;
mod xyz;

pub use equivbench_dataset_tools::{elements, smiles};
pub use inventory::Conformation;
pub use options::Options;
pub use spice::Spice;

equivbench_plugin::export_dataset!(Spice);
