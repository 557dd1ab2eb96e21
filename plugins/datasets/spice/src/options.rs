//! What a suite's `[dataset]` table may say, and what of it is checked before a file is opened.

use crate::units::{self, Units};
use equivbench_dataset_tools::elements;
use equivbench_dataset_tools::split::least_groups;
use equivbench_plugin::{PluginError, PluginResult};
use serde::{Deserialize, Serialize};

/// Options of the dataset `spice`. Every key has a default; without `path` the embedded sample is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A file, a folder of files, or several of them separated by commas: SPICE release HDF5, extended XYZ (also `.gz`), `.aselmdb`.
    /// None serves the embedded sample.
    pub path: Option<String>,
    /// `molecule`: no molecule in two splits. `frame`: contiguous blocks of a trajectory. `auto`: by molecule from three molecules on.
    pub split_by: String,
    /// Fraction of the molecules (or frames) for training.
    pub train_fraction: f64,
    /// Fraction for validation; 0 leaves the split out.
    pub valid_fraction: f64,
    /// Fraction for the final test; 0 leaves the split out.
    pub test_fraction: f64,
    /// Validation has at least this many molecules, as long as that is no more than a third of all. Default: 64 for the embedded sample; for
    /// files the fraction decides.
    pub min_valid_molecules: Option<u64>,
    /// The test has at least this many molecules; else as `min_valid_molecules`.
    pub min_test_molecules: Option<u64>,
    /// Keep only this many conformations of the training split, drawn with the seed.
    pub max_train_samples: Option<u64>,
    /// Name of the energy. Default: `formation_energy` in HDF5, the first of the usual names elsewhere.
    pub energy_key: Option<String>,
    /// HDF5: name of the gradient, whose negative is the force. Default: `dft_total_gradient`.
    pub gradient_key: Option<String>,
    /// Name of the forces. Default: the first of the usual names; in HDF5 the gradient is used unless this is set.
    pub forces_key: Option<String>,
    /// Unit of positions. Default: what the HDF5 file says, else angstrom.
    pub length_unit: Option<String>,
    /// Unit of energies. Default: what the HDF5 file says, else eV.
    pub energy_unit: Option<String>,
    /// Unit of forces. Default: what the HDF5 file says, else energy unit per length unit.
    pub force_unit: Option<String>,
    /// Treat periodic frames as molecules without a cell; by default they are left out and counted.
    pub ignore_pbc: bool,
    /// Keep SPICE subsets whose name begins like this; a version at the end (`v1.2`) does not matter.
    pub subset: Option<String>,
    /// Keep molecules that consist of these elements only, e.g. `["H", "C", "N", "O"]`; empty keeps all.
    pub elements: Vec<String>,
    /// Keep molecules without net charge only.
    pub neutral_only: bool,
    /// Leave out conformations with a gradient component above this, in hartree/bohr. SPICE's own downloader used 1.0.
    pub max_gradient_component: Option<f64>,
    /// Leave out conformations with an atomic force above this, in eV/angstrom, as torchmd-net's loader does.
    pub max_force_norm: Option<f64>,
    /// `spice`: the constants of EScAIP on SPICE. `data`: from the training split. `auto`: `spice` for SPICE's DFT files, else `data`.
    pub normaliser: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: None,
            split_by: "auto".into(),
            train_fraction: 0.9,
            valid_fraction: 0.05,
            test_fraction: 0.05,
            min_valid_molecules: None,
            min_test_molecules: None,
            max_train_samples: None,
            energy_key: None,
            gradient_key: None,
            forces_key: None,
            length_unit: None,
            energy_unit: None,
            force_unit: None,
            ignore_pbc: false,
            subset: None,
            elements: Vec::new(),
            neutral_only: false,
            max_gradient_component: None,
            max_force_norm: None,
            normaliser: "auto".into(),
        }
    }
}

impl Options {
    /// Least numbers of molecules in valid and test.
    pub(crate) fn least(&self) -> [u64; 2] {
        let asked = [self.min_valid_molecules, self.min_test_molecules];
        least_groups(asked, self.path.is_none())
    }
}

/// How conformations are divided into splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SplitBy {
    Auto,
    Molecule,
    Frame,
}

/// Where the suggested normalisation comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Normalisation {
    Auto,
    Spice,
    Data,
}

const SMALL_FILE_BYTES: u64 = 1 << 28;

/// The options after checking, as the readers want them.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    pub(crate) split_by: SplitBy,
    pub(crate) normalisation: Normalisation,
    /// Atomic numbers to keep, `None` for all.
    pub(crate) elements: Option<Vec<u8>>,
    pub(crate) limits: ForceLimits,
    /// Files up to this size are hashed and checked completely when they are opened, and kept as numbers where the format allows.
    pub(crate) small_file_bytes: u64,
    length: Option<f64>,
    energy: Option<f64>,
    force: Option<f64>,
}

/// Conformations with forces beyond these are left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ForceLimits {
    /// eV/Å.
    component: Option<f64>,
    /// eV/Å.
    norm: Option<f64>,
}

impl ForceLimits {
    pub(crate) fn any(self) -> bool {
        self.component.is_some() || self.norm.is_some()
    }

    /// Whether forces `[atoms, 3]` in eV/Å stay within the limits.
    pub(crate) fn admit(self, forces: impl Iterator<Item = f64>) -> bool {
        let (component, norm) = (
            self.component.unwrap_or(f64::INFINITY),
            self.norm.unwrap_or(f64::INFINITY),
        );
        let mut square = 0.0;
        for (i, f) in forces.enumerate() {
            square = if i % 3 == 0 { f * f } else { square + f * f };
            if f.abs() > component || square > norm * norm {
                return false;
            }
        }
        true
    }
}

impl Settings {
    pub(crate) fn new(options: Options) -> PluginResult<Self> {
        check_fractions(&options)?;
        check_limits(&options)?;
        Ok(Self {
            split_by: choose(
                "split_by",
                &options.split_by,
                &[
                    ("auto", SplitBy::Auto),
                    ("molecule", SplitBy::Molecule),
                    ("frame", SplitBy::Frame),
                ],
            )?,
            normalisation: choose(
                "normaliser",
                &options.normaliser,
                &[
                    ("auto", Normalisation::Auto),
                    ("spice", Normalisation::Spice),
                    ("data", Normalisation::Data),
                ],
            )?,
            elements: parse_elements(&options.elements)?,
            limits: ForceLimits {
                component: options
                    .max_gradient_component
                    .map(|g| g * Units::ATOMIC.force),
                norm: options.max_force_norm,
            },
            length: options
                .length_unit
                .as_deref()
                .map(units::length)
                .transpose()?,
            energy: options
                .energy_unit
                .as_deref()
                .map(units::energy)
                .transpose()?,
            force: options
                .force_unit
                .as_deref()
                .map(units::force)
                .transpose()?,
            small_file_bytes: SMALL_FILE_BYTES,
            options,
        })
    }

    /// Units of a file that says nothing about them.
    pub(crate) fn units(&self) -> Units {
        let (length, energy) = (self.length.unwrap_or(1.0), self.energy.unwrap_or(1.0));
        Units {
            length,
            energy,
            force: self.force.unwrap_or(energy / length),
        }
    }

    /// Units of a file that names its own; options go first.
    pub(crate) fn units_or(&self, file: Units) -> Units {
        Units {
            length: self.length.unwrap_or(file.length),
            energy: self.energy.unwrap_or(file.energy),
            force: self.force.unwrap_or(file.force),
        }
    }
}

fn bad(what: String) -> PluginError {
    PluginError::BadRequest(format!("[dataset] {what}"))
}

/// Limits that would leave out everything are mistakes.
fn check_limits(options: &Options) -> PluginResult<()> {
    let positive = [
        ("max_gradient_component", options.max_gradient_component),
        ("max_force_norm", options.max_force_norm),
    ];
    if let Some((name, value)) = positive
        .into_iter()
        .find_map(|(n, v)| v.filter(|v| *v <= 0.0 || v.is_nan()).map(|v| (n, v)))
    {
        return Err(bad(format!(
            "{name} = {value} must be positive; leave it out to keep all conformations"
        )));
    }
    if options.max_train_samples == Some(0) {
        return Err(bad(
            "max_train_samples = 0 leaves nothing to train on; leave it out to use all".into(),
        ));
    }
    Ok(())
}

fn check_fractions(options: &Options) -> PluginResult<()> {
    let fractions = [
        ("train_fraction", options.train_fraction),
        ("valid_fraction", options.valid_fraction),
        ("test_fraction", options.test_fraction),
    ];
    for (name, value) in fractions {
        if !(0.0..=1.0).contains(&value) {
            return Err(bad(format!("{name} = {value} must lie between 0 and 1")));
        }
    }
    if options.train_fraction == 0.0 {
        return Err(bad(
            "train_fraction = 0 leaves nothing to train on; the default is 0.9".into(),
        ));
    }
    let sum: f64 = fractions.iter().map(|f| f.1).sum();
    // Room for the rounding of three decimal fractions.
    if sum > 1.0 + 1e-9 {
        return Err(bad(format!(
            "train_fraction + valid_fraction + test_fraction = {sum} is more than 1; lower one of them"
        )));
    }
    Ok(())
}

fn choose<T: Copy>(key: &str, value: &str, known: &[(&str, T)]) -> PluginResult<T> {
    let names = || known.iter().map(|k| k.0).collect::<Vec<_>>().join(", ");
    known
        .iter()
        .find(|k| k.0 == value)
        .map(|k| k.1)
        .ok_or_else(|| {
            bad(format!(
                "{key} = \"{value}\" is not known; use one of: {}",
                names()
            ))
        })
}

fn parse_elements(symbols: &[String]) -> PluginResult<Option<Vec<u8>>> {
    if symbols.is_empty() {
        return Ok(None);
    }
    let parse = |s: &String| {
        elements::atomic_number(s.trim()).ok_or_else(|| {
            bad(format!(
                "elements: \"{s}\" is not an element symbol, e.g. \"Cl\""
            ))
        })
    };
    symbols
        .iter()
        .map(parse)
        .collect::<PluginResult<_>>()
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Options)) -> String {
        let mut options = Options::default();
        change(&mut options);
        Settings::new(options).unwrap_err().to_string()
    }

    #[test]
    fn wrong_values_are_refused_with_the_key_and_the_remedy() {
        for (text, message) in [
            (
                refused(|o| o.split_by = "frames".into()),
                "split_by = \"frames\" is not known; use one of: auto, molecule, frame",
            ),
            (
                refused(|o| o.train_fraction = 0.95),
                "more than 1; lower one of them",
            ),
            (
                refused(|o| o.valid_fraction = -0.1),
                "valid_fraction = -0.1 must lie between 0 and 1",
            ),
            (
                refused(|o| o.test_fraction = f64::NAN),
                "test_fraction = NaN",
            ),
            (
                refused(|o| o.train_fraction = 0.0),
                "leaves nothing to train on",
            ),
            (
                refused(|o| o.energy_unit = Some("cal".into())),
                "energy unit \"cal\" is not known",
            ),
            (
                refused(|o| o.elements = vec!["cl".into()]),
                "not an element symbol",
            ),
            (
                refused(|o| o.max_force_norm = Some(0.0)),
                "must be positive",
            ),
        ] {
            assert!(text.contains(message), "{text}");
        }
    }

    #[test]
    fn the_force_unit_follows_from_energy_and_length() {
        let options = Options {
            energy_unit: Some("kcal/mol".into()),
            length_unit: Some("bohr".into()),
            ..Options::default()
        };
        let units = Settings::new(options).unwrap().units();
        assert_eq!(units.force, units::KCAL_PER_MOL / units::BOHR);
    }

    #[test]
    fn force_limits_look_at_components_and_at_norms() {
        let forces = [0.0, 0.0, 0.9, 0.8, 0.8, 0.8];
        let admit = |component, norm| ForceLimits { component, norm }.admit(forces.into_iter());
        assert!(admit(None, None) && admit(Some(0.95), None) && admit(None, Some(1.4)));
        assert!(!admit(Some(0.85), None) && !admit(None, Some(1.3)));
    }

    #[test]
    fn defaults_survive_json_and_unknown_keys_do_not() {
        let text = serde_json::to_string(&Options::default()).unwrap();
        assert_eq!(
            serde_json::from_str::<Options>(&text).unwrap(),
            Options::default()
        );
        assert!(serde_json::from_str::<Options>("{\"fractions\": 1}").is_err());
    }
}
