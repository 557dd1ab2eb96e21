//! What a suite's `[dataset]` table may say, and what of it is checked before a file is opened.

use equivbench_plugin::{PluginError, PluginResult};
use serde::{Deserialize, Serialize};

/// Options of the dataset `pdb`. Every key has a default; without `path` the embedded sample is served.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// A structure file, a folder (with its sub-folders), a `.tar` or `.tar.gz`, or a text file with one path on each line. Structures are
    /// mmCIF, PDB or BinaryCIF, also `.gz`. None serves the embedded sample.
    pub path: Option<String>,
    /// `none`: residues from `ATOM` records only. `modified`: modified amino acids (selenomethionine, ...) from `HETATM` records too.
    pub hetatm: String,
    /// Chains must be longer than this many residues, itself excluded. The length is that of SEQRES where the file states it, else
    /// the number of residues with a C-alpha. Default: 50 for files, 0 for the embedded sample, whose chains are shorter on purpose.
    pub min_length: Option<u64>,
    /// Chains must be shorter than this many residues, itself excluded.
    pub max_length: u64,
    /// Chains must have at least this many residues with a C-alpha.
    pub min_resolved: u64,
    /// `diffraction-or-em`: diffraction or electron microscopy, and files that state no method. `stated`: the same without files that
    /// state none. `any`: every method.
    pub experiments: String,
    /// Å. Entries with a resolution above this are left out, and so are those that state a method but no resolution (unless
    /// `experiments = "any"`).
    pub max_resolution: f64,
    /// Keep chains only whose sequence (SEQRES where stated) consists of the 20 standard amino acids and modifications of them.
    pub standard_only: bool,
    /// File with the clusters of the chains as MMseqs2 writes it: representative, tabulator, member. None clusters here.
    pub clusters: Option<String>,
    /// Own clustering: chains at least this similar (fraction of aligned pairs that are identical) share a cluster.
    pub identity: f64,
    /// Own clustering: the alignment must cover at least this fraction of the shorter chain.
    pub coverage: f64,
    /// Fraction of the clusters for validation; 0 leaves the split out.
    pub valid_fraction: f64,
    /// Fraction of the clusters for the final test; 0 leaves the split out.
    pub test_fraction: f64,
    /// Validation has at least this many clusters, as long as that is no more than a fifth of all. Default: 24 for files; 64 for the embedded
    /// sample, as long as that is no more than a third of all.
    pub min_valid_clusters: Option<u64>,
    /// The test has at least this many clusters, as long as that is no more than a tenth of all; else as `min_valid_clusters`.
    pub min_test_clusters: Option<u64>,
    /// Folder for the index of the files; `none` keeps it in memory. Default: beside the data, else the user's cache folder, else memory.
    pub cache: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            path: None,
            hetatm: "none".into(),
            min_length: None,
            max_length: 256,
            min_resolved: 40,
            experiments: "diffraction-or-em".into(),
            max_resolution: 5.0,
            standard_only: true,
            clusters: None,
            identity: 0.5,
            coverage: 0.8,
            valid_fraction: 0.019,
            test_fraction: 0.001,
            min_valid_clusters: None,
            min_test_clusters: None,
            cache: None,
        }
    }
}

/// Which experimental methods are admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Experiments {
    /// Diffraction or microscopy, or not stated.
    DiffractionOrEm,
    /// Diffraction or microscopy, and stated.
    Stated,
    Any,
}

/// What decides which chains there are; the cache is keyed by it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Selection {
    pub(crate) take_modified: bool,
    pub(crate) min_length: u64,
    pub(crate) max_length: u64,
    pub(crate) min_resolved: u64,
    pub(crate) experiments: Experiments,
    pub(crate) max_resolution: f64,
    pub(crate) standard_only: bool,
}

/// The options after checking.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) options: Options,
    pub(crate) selection: Selection,
}

/// The length that chains of files must exceed by default.
const MIN_LENGTH: u64 = 50;
/// A chain of one residue is a point, which no rotation moves once it is centred.
const FEWEST_RESIDUES: u64 = 2;

impl Settings {
    pub(crate) fn new(options: Options) -> PluginResult<Self> {
        check_fractions(&options)?;
        let min_length = options.min_length.unwrap_or(if options.path.is_some() {
            MIN_LENGTH
        } else {
            0
        });
        check_lengths(&options, min_length)?;
        let take_modified = choose(
            "hetatm",
            &options.hetatm,
            &[("none", false), ("modified", true)],
        )?;
        let experiments = choose(
            "experiments",
            &options.experiments,
            &[
                ("diffraction-or-em", Experiments::DiffractionOrEm),
                ("stated", Experiments::Stated),
                ("any", Experiments::Any),
            ],
        )?;
        if options.max_resolution.is_nan() || options.max_resolution <= 0.0 {
            return Err(bad(format!(
                "max_resolution = {} must be positive; a large number admits all",
                options.max_resolution
            )));
        }
        let selection = Selection {
            take_modified,
            min_length,
            max_length: options.max_length,
            min_resolved: options.min_resolved,
            experiments,
            max_resolution: options.max_resolution,
            standard_only: options.standard_only,
        };
        Ok(Self { options, selection })
    }
}

fn bad(what: String) -> PluginError {
    PluginError::BadRequest(format!("[dataset] {what}"))
}

fn check_fractions(options: &Options) -> PluginResult<()> {
    let splits = [
        ("valid_fraction", options.valid_fraction),
        ("test_fraction", options.test_fraction),
    ];
    for (name, value) in splits {
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
    for (name, value) in [
        ("identity", options.identity),
        ("coverage", options.coverage),
    ] {
        if !(value > 0.0 && value <= 1.0) {
            return Err(bad(format!(
                "{name} = {value} must be above 0 and at most 1"
            )));
        }
    }
    Ok(())
}

fn check_lengths(options: &Options, min_length: u64) -> PluginResult<()> {
    let Options {
        max_length,
        min_resolved,
        ..
    } = options;
    if max_length.saturating_sub(min_length) < 2 {
        return Err(bad(format!(
            "no length lies strictly between min_length = {min_length} and max_length = {max_length}"
        )));
    }
    if *min_resolved < FEWEST_RESIDUES {
        return Err(bad(format!(
            "min_resolved = {min_resolved} must be at least {FEWEST_RESIDUES}: a single residue is a point, and nothing rotates"
        )));
    }
    if min_resolved >= max_length {
        return Err(bad(format!(
            "min_resolved = {min_resolved} leaves no chain shorter than max_length = {max_length}; lower it"
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
                refused(|o| o.experiments = "nmr".into()),
                "experiments = \"nmr\" is not known; use one of: diffraction-or-em, stated, any",
            ),
            (
                refused(|o| o.hetatm = "all".into()),
                "hetatm = \"all\" is not known; use one of: none, modified",
            ),
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
                refused(|o| o.identity = 0.0),
                "identity = 0 must be above 0",
            ),
            (refused(|o| o.coverage = 1.5), "coverage = 1.5"),
            (
                refused(|o| (o.path, o.max_length) = (Some("x".into()), 51)),
                "no length lies strictly between min_length = 50 and max_length = 51",
            ),
            (
                refused(|o| o.min_resolved = 1),
                "a single residue is a point",
            ),
            (refused(|o| o.min_resolved = 256), "lower it"),
            (refused(|o| o.max_resolution = 0.0), "must be positive"),
        ] {
            assert!(text.contains(message), "{text}");
        }
    }

    #[test]
    fn defaults_survive_json_and_unknown_keys_do_not() {
        let text = serde_json::to_string(&Options::default()).unwrap();
        assert_eq!(
            serde_json::from_str::<Options>(&text).unwrap(),
            Options::default()
        );
        assert!(serde_json::from_str::<Options>("{\"lenght\": 1}").is_err());
    }
}
