//! What a suite's `[dataset]` table may say, and what of it is checked before a file is opened.

use equivbench_dataset_tools::elements;
use equivbench_dataset_tools::split::least_groups;
use equivbench_plugin::{PluginError, PluginResult};
use serde::{Deserialize, Serialize};

/// Options of the dataset `geom`. Every key has a default; without `path` the embedded sample is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A file, a folder of files, several of them separated by commas, or a list: SDF, XYZ (both also `.gz`), npz, GEOM's crude msgpack,
    /// VoxMol's `.pth`. None serves the embedded sample.
    pub path: Option<Paths>,
    /// Keep the first so many conformers of each molecule, in the order of the files, as VoxMol does; 0 keeps all. Where
    /// only a formula is known, which many isomers may share, all are kept.
    pub conformers: u64,
    /// Keep molecules that consist of these elements only; any other element, or a symbol that is none, leaves the molecule out.
    pub elements: Vec<String>,
    /// Leave out molecules with more atoms than this. Default: no limit. (The limit of 80 in VoxMol's loader never takes effect.)
    pub max_atoms: Option<u64>,
    /// Serve files in which most molecules with carbon have no hydrogen on it. By default they are refused: hydrogens were left out on
    /// writing.
    pub allow_missing_hydrogens: bool,
    /// Fraction of the molecules for validation; 0 leaves the split out.
    pub valid_fraction: f64,
    /// Fraction of the molecules for the final test; 0 leaves the split out.
    pub test_fraction: f64,
    /// Validation has at least this many molecules, as long as that is no more than a third of all. Default: 64 for the embedded sample; for
    /// files the fraction decides.
    pub min_valid_molecules: Option<u64>,
    /// The test has at least this many molecules; else as `min_valid_molecules`.
    pub min_test_molecules: Option<u64>,
}

impl Options {
    /// Least numbers of molecules in valid and test.
    pub(crate) fn least(&self) -> [u64; 2] {
        let asked = [self.min_valid_molecules, self.min_test_molecules];
        least_groups(asked, self.path.is_none())
    }
}

/// One path, or a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Paths {
    /// A path; several may be separated by commas.
    One(String),
    /// Each a path of its own.
    Many(Vec<String>),
}

impl From<&str> for Paths {
    fn from(path: &str) -> Self {
        Self::One(path.into())
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: None,
            conformers: 5,
            elements: ["H", "C", "N", "O", "F", "S", "Cl", "Br"]
                .map(Into::into)
                .to_vec(),
            max_atoms: None,
            allow_missing_hydrogens: false,
            valid_fraction: 0.1,
            test_fraction: 0.1,
            min_valid_molecules: None,
            min_test_molecules: None,
        }
    }
}

/// The options after checking.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    /// By atomic number, whether it is kept.
    pub(crate) elements: [bool; 256],
    pub(crate) max_atoms: usize,
    /// Conformers kept of each molecule.
    pub(crate) conformers: u64,
}

impl Settings {
    pub(crate) fn new(options: Options) -> PluginResult<Self> {
        check_fractions(&options)?;
        if let Some(n) = options.max_atoms.filter(|&n| n < 2) {
            return Err(bad(format!(
                "max_atoms = {n} leaves nothing that a rotation moves; leave it out for no limit"
            )));
        }
        Ok(Self {
            elements: parse_elements(&options.elements)?,
            max_atoms: options
                .max_atoms
                .map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX)),
            conformers: if options.conformers == 0 {
                u64::MAX
            } else {
                options.conformers
            },
            options,
        })
    }
}

fn bad(what: String) -> PluginError {
    PluginError::BadRequest(format!("[dataset] {what}"))
}

fn check_fractions(options: &Options) -> PluginResult<()> {
    for (name, value) in [
        ("valid_fraction", options.valid_fraction),
        ("test_fraction", options.test_fraction),
    ] {
        if !(0.0..1.0).contains(&value) {
            return Err(bad(format!(
                "{name} = {value} must be at least 0 and below 1"
            )));
        }
    }
    let sum = options.valid_fraction + options.test_fraction;
    if sum >= 1.0 {
        return Err(bad(format!(
            "valid_fraction + test_fraction = {sum} leaves nothing to train on; lower one of them"
        )));
    }
    Ok(())
}

fn parse_elements(symbols: &[String]) -> PluginResult<[bool; 256]> {
    if symbols.is_empty() {
        return Err(bad(
            "elements = [] admits no molecule; leave it out for H, C, N, O, F, S, Cl, Br".into(),
        ));
    }
    let mut kept = [false; 256];
    for symbol in symbols {
        let number = elements::atomic_number(symbol.trim());
        let number = number.ok_or_else(|| {
            bad(format!(
                "elements: \"{symbol}\" is not an element symbol, e.g. \"Cl\""
            ))
        })?;
        kept[usize::from(number)] = true;
    }
    Ok(kept)
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
                refused(|o| o.valid_fraction = -0.1),
                "valid_fraction = -0.1 must be at least 0",
            ),
            (
                refused(|o| o.test_fraction = f64::NAN),
                "test_fraction = NaN",
            ),
            (
                refused(|o| (o.valid_fraction, o.test_fraction) = (0.5, 0.5)),
                "leaves nothing to train on",
            ),
            (
                refused(|o| o.elements = vec!["cl".into()]),
                "\"cl\" is not an element symbol",
            ),
            (refused(|o| o.elements.clear()), "admits no molecule"),
            (refused(|o| o.max_atoms = Some(1)), "max_atoms = 1"),
        ] {
            assert!(text.contains(message), "{text}");
        }
    }

    #[test]
    fn elements_are_those_of_the_option_and_no_placeholder_is_among_them() {
        let kept = Settings::new(Options::default()).unwrap().elements;
        assert_eq!(
            (0..256).filter(|&z| kept[z]).collect::<Vec<_>>(),
            [1, 6, 7, 8, 9, 16, 17, 35]
        );
    }

    #[test]
    fn defaults_survive_json_and_paths_may_be_a_list() {
        let text = serde_json::to_string(&Options::default()).unwrap();
        assert_eq!(
            serde_json::from_str::<Options>(&text).unwrap(),
            Options::default()
        );
        assert!(serde_json::from_str::<Options>("{\"conformer\": 1}").is_err());
        let list: Options = serde_json::from_str("{\"path\": [\"a.sdf\", \"b.sdf\"]}").unwrap();
        assert_eq!(
            list.path,
            Some(Paths::Many(vec!["a.sdf".into(), "b.sdf".into()]))
        );
        assert_eq!(
            serde_json::from_str::<Options>("{\"path\": \"a.sdf\"}")
                .unwrap()
                .path,
            Some("a.sdf".into())
        );
    }
}
