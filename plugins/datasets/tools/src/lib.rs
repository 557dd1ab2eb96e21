//! What dataset plugins share, so that each stays about its own data. Not a plugin.
//!
//! | module | owns |
//! |---|---|
//! | [`elements`] | symbols, numbers, formulas, covalent radii |
//! | [`smiles`] | graphs of SMILES strings, and a key for each graph |
//! | [`xyz`] | frames of extended and plain XYZ |
//! | [`split`] | train, valid, test by group: seeded order, sizes, shuffles |
//! | [`input`] | plain and compressed files as streams, read ahead by a thread |
//! | [`sample_file`] | the sample that a plugin carries, as a safetensors document |
//!
//! Numbers that were measured with a plugin depend on these: a change here must leave splits and content hashes as they are, or the
//! plugin must raise its reader's version.

pub mod elements;
mod error;
pub mod input;
pub mod sample_file;
pub mod smiles;
pub mod split;
pub mod xyz;

pub use error::{DAMAGED, bad_data, file_name, is_usable};
