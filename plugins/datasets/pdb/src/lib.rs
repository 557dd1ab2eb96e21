//! Protein backbones for `equivbench`: the C-alpha traces of mmCIF, PDB and BinaryCIF files, and an embedded sample.
//!
//! | module | owns |
//! |---|---|
//! | `pdb` | the dataset behind the boundary |
//! | `options` | what a suite's `[dataset]` table may say |
//! | [`chain`] | one C-alpha trace |
//! | `inputs`, `read` | which files a path names; reading them with all processors |
//! | `formats` | mmCIF, PDB, BinaryCIF, gzip |
//! | `entry`, `residues` | the rules by which atoms become traces |
//! | `filter` | which chains are kept |
//! | `index`, `store`, `cache` | all chains, their coordinates, and both in a file |
//! | `clusters`, `split` | clusters by sequence; train, valid, test by cluster |
//! | `checks` | the dataset's report on itself |
//! | [`embedded`] | the sample that the plugin carries; the crate in `generator/` makes it |
//!
//! ```
//! use equivbench_pdb::{Options, Pdb};
//! use equivbench_plugin::DatasetPlugin;
//! let mut data = Pdb::open(Options::default(), 1)?;
//! let chain = data.chain("valid", 0)?;
//! assert_eq!(chain.positions.len(), chain.residue_numbers.len());
//! # Ok::<(), equivbench_plugin::PluginError>(())
//! ```

mod cache;
pub mod chain;
mod checks;
mod clusters;
pub mod embedded;
mod entry;
mod filter;
mod formats;
mod index;
mod inputs;
mod options;
mod pdb;
mod read;
mod residues;
mod split;
mod store;

pub use chain::Chain;
pub use options::Options;
pub use pdb::Pdb;

equivbench_plugin::export_dataset!(Pdb);
