//! What every reader hands over: one conformer as it stands in its file.

use equivbench_plugin::PluginResult;

/// One conformer before any filter. Readers of formats without bonds use `..Conformer::default()`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conformer {
    /// What conformers of one molecule have in common: SMILES, title or file name. Empty if the file says nothing.
    pub(crate) molecule: String,
    /// Atomic numbers `[atoms]`; [`UNKNOWN`] and [`HEAVY_HYDROGEN`] for what is none.
    pub(crate) numbers: Vec<u8>,
    /// Å, `[atoms, 3]`.
    pub(crate) positions: Vec<[f64; 3]>,
    /// Pairs of atoms, from 0; empty where the format has none.
    pub(crate) bonds: Vec<(u32, u32)>,
}

/// In place of an atomic number: a symbol or number that is no element.
pub(crate) const UNKNOWN: u8 = 0;
/// In place of an atomic number: deuterium or tritium.
pub(crate) const HEAVY_HYDROGEN: u8 = u8::MAX;

/// Takes conformers in the order of the file and counts what it cannot use. Its error ends the reading.
pub(crate) type Sink<'a> = dyn FnMut(Conformer) -> PluginResult<()> + 'a;
