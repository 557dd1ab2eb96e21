//! Drug-like conformers for `equivbench`, as atoms that a task turns into voxel grids: SDF, XYZ, npz, GEOM's crude msgpack, VoxMol's torch
//! files, and an embedded sample.
//!
//! | module | owns |
//! |---|---|
//! | `geom` | the dataset behind the boundary |
//! | `options` | what a suite's `[dataset]` table may say |
//! | `inputs`, `read` | which files a path names; reading them one after the other |
//! | `conformer` | what every reader hands over |
//! | `sdf`, `xyz`, `npz`, `crude`, `pth` | one format each |
//! | `archive` | zip archives, on which npz and torch files stand |
//! | `filter`, `collect` | which conformers are kept; molecules, duplicates, counts |
//! | `store`, `split` | all conformers in memory; train, valid, test by molecule |
//! | `checks`, `reach` | the dataset's report on itself; what does not fit into the grid |
//! | [`embedded`] | the sample that the plugin carries, and what makes it |
//!
//! ```
//! use equivbench_geom::{Geom, Options};
//! use equivbench_plugin::DatasetPlugin;
//! let data = Geom::open(Options::default(), 1)?;
//! assert_eq!(data.describe().name, "geom-mini (MMFF94s)");
//! let (numbers, positions) = data.conformer("valid", 0)?;
//! assert_eq!(numbers.len(), positions.len());
//! # Ok::<(), equivbench_plugin::PluginError>(())
//! ```

mod archive;
mod checks;
mod collect;
mod conformer;
mod crude;
pub mod embedded;
mod filter;
mod geom;
mod inputs;
mod npz;
mod options;
mod pth;
mod reach;
mod read;
mod sdf;
mod split;
mod store;
mod xyz;

pub use geom::Geom;
pub use options::{Options, Paths};

equivbench_plugin::export_dataset!(Geom);
