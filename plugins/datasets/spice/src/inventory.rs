//! What a dataset consists of, before any coordinates are kept: molecules, conformations and where they lie, what was left out.

use crate::options::Settings;
use equivbench_dataset_tools::{elements, smiles};
use equivbench_plugin::{PluginError, PluginResult};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// One conformation in the units of this plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conformation {
    /// Atomic numbers `[atoms]`.
    pub species: Vec<u8>,
    /// Å, `[atoms, 3]`.
    pub positions: Vec<f64>,
    /// eV/Å, `[atoms, 3]`.
    pub forces: Vec<f64>,
    /// eV.
    pub energy: f64,
}

/// Where a conformation lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) source: u32,
    pub(crate) molecule: u32,
    pub(crate) atoms: u32,
    /// Meaning known to the source only.
    pub(crate) place: u64,
}

/// Why conformations were left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Skip {
    EmptyGroup,
    OneAtom,
    Periodic,
    NoForces,
    NoEnergy,
    Subset,
    Elements,
    Charged,
    Force,
}

impl Skip {
    pub(crate) const fn about(self) -> &'static str {
        match self {
            Self::EmptyGroup => {
                "groups without conformations (all were above the force limit of the downloader)"
            }
            Self::OneAtom => "conformations of a single atom (reference energies; nothing rotates)",
            Self::Periodic => {
                "periodic frames; the model takes molecules (ignore_pbc = true keeps them, without their cell)"
            }
            Self::NoForces => "frames without forces (forces_key names them)",
            Self::NoEnergy => "frames without energy (energy_key names it)",
            Self::Subset => "conformations of other subsets (option subset)",
            Self::Elements => "conformations with other elements (option elements)",
            Self::Charged => "conformations of charged molecules (option neutral_only)",
            Self::Force => "conformations above max_gradient_component or max_force_norm",
        }
    }
}

/// What is known of a molecule before it is admitted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity<'a> {
    /// Name of its group or of the frame's molecule.
    pub(crate) name: Option<&'a str>,
    pub(crate) smiles: Option<&'a str>,
    pub(crate) subset: Option<&'a str>,
    pub(crate) charge: Option<f64>,
    pub(crate) species: &'a [u8],
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    /// Keys of the molecules; [`Frame::molecule`] is an index into it.
    pub(crate) molecules: Vec<String>,
    pub(crate) frames: Vec<Frame>,
    pub(crate) skipped: BTreeMap<Skip, u64>,
    pub(crate) subsets: BTreeSet<String>,
    pub(crate) elements: BTreeSet<u8>,
    by_key: HashMap<String, u32>,
    /// Key by SMILES text, so that a long trajectory parses its SMILES once.
    by_smiles: HashMap<String, (String, i32)>,
}

impl Inventory {
    /// Number of the molecule, or why it is left out.
    ///
    /// # Errors
    /// A filter asks for what the file does not tell.
    pub(crate) fn admit(
        &mut self,
        identity: &Identity<'_>,
        settings: &Settings,
    ) -> PluginResult<Result<u32, Skip>> {
        if identity.species.len() < 2 {
            return Ok(Err(Skip::OneAtom));
        }
        if let Some(subset) = identity.subset
            && !self.subsets.contains(subset)
        {
            self.subsets.insert(subset.to_owned());
        }
        if settings
            .options
            .subset
            .as_deref()
            .is_some_and(|wanted| !subset_matches(identity.subset.unwrap_or(""), wanted))
        {
            return Ok(Err(Skip::Subset));
        }
        if settings
            .elements
            .as_ref()
            .is_some_and(|keep| !identity.species.iter().all(|z| keep.contains(z)))
        {
            return Ok(Err(Skip::Elements));
        }
        let (key, charge) = self.key_and_charge(identity);
        if settings.options.neutral_only {
            let charge = identity
                .charge
                .or(charge.map(f64::from))
                .ok_or_else(|| unknown_charge(&key))?;
            if charge.abs() > 1e-6 {
                return Ok(Err(Skip::Charged));
            }
        }
        self.elements.extend(identity.species);
        Ok(Ok(self.molecule(key)))
    }

    /// The key under which one molecule is known whatever file or subset it comes from, and its charge if the SMILES tells.
    fn key_and_charge(&mut self, identity: &Identity<'_>) -> (String, Option<i32>) {
        let Some(text) = identity.smiles else {
            let fallback = || elements::formula(identity.species);
            return (identity.name.map_or_else(fallback, ToOwned::to_owned), None);
        };
        if let Some((key, charge)) = self.by_smiles.get(text) {
            return (key.clone(), Some(*charge));
        }
        let Ok(graph) = smiles::parse(text) else {
            return (smiles::without_maps(text), None);
        };
        let known = (graph.key(), graph.charge());
        self.by_smiles.insert(text.to_owned(), known.clone());
        (known.0, Some(known.1))
    }

    fn molecule(&mut self, key: String) -> u32 {
        let next = self.molecules.len() as u32;
        *self.by_key.entry(key).or_insert_with_key(|key| {
            self.molecules.push(key.clone());
            next
        })
    }

    pub(crate) fn skip(&mut self, why: Skip, conformations: u64) {
        if conformations > 0 {
            *self.skipped.entry(why).or_default() += conformations;
        }
    }

    /// Frees what only building needs and refuses a dataset without conformations.
    ///
    /// # Errors
    /// Nothing is left.
    pub(crate) fn finish(&mut self, files: &str, settings: &Settings) -> PluginResult<()> {
        (self.by_key, self.by_smiles) = (HashMap::new(), HashMap::new());
        self.frames.shrink_to_fit();
        if !self.frames.is_empty() {
            return Ok(());
        }
        let reasons: Vec<String> = self
            .skipped
            .iter()
            .map(|(why, n)| format!("{n} {}", why.about()))
            .collect();
        let mut message = format!("{files}: no conformation can be used");
        if !reasons.is_empty() {
            message += &format!("; left out: {}", reasons.join("; "));
        }
        if settings.options.subset.is_some() {
            let subsets: Vec<&str> = self.subsets.iter().take(12).map(String::as_str).collect();
            message += &format!(
                ". Subsets there: {}",
                if subsets.is_empty() {
                    "none is named".into()
                } else {
                    subsets.join(", ")
                }
            );
        }
        Err(PluginError::BadData(
            message + ". Change the filter that removed them, or give other data",
        ))
    }
}

fn unknown_charge(key: &str) -> PluginError {
    PluginError::BadRequest(format!(
        "[dataset] neutral_only = true, but the charge of molecule {key} is not told (no SMILES, no charge=); leave neutral_only out"
    ))
}

/// Whether a subset's name begins with what is wanted; a version at the end of the wish (`v1.2`) does not count.
fn subset_matches(subset: &str, wanted: &str) -> bool {
    subset
        .to_lowercase()
        .starts_with(without_version(&wanted.trim().to_lowercase()))
}

fn without_version(name: &str) -> &str {
    match name.rsplit_once(" v") {
        Some((head, version))
            if !version.is_empty() && version.chars().all(|c| c.is_ascii_digit() || c == '.') =>
        {
            head
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn admit(
        inventory: &mut Inventory,
        smiles: &str,
        subset: &str,
        species: &[u8],
        options: &Options,
    ) -> Result<u32, Skip> {
        let settings = Settings::new(options.clone()).unwrap();
        let identity = Identity {
            smiles: Some(smiles),
            subset: Some(subset),
            species,
            ..Identity::default()
        };
        inventory.admit(&identity, &settings).unwrap()
    }

    #[test]
    fn one_molecule_in_two_subsets_is_one_molecule() {
        let mut inventory = Inventory::default();
        let options = Options::default();
        let first = admit(
            &mut inventory,
            "[O:1]([H:2])[H:3]",
            "A",
            &[8, 1, 1],
            &options,
        );
        let second = admit(&mut inventory, "[H:1][O:2][H:3]", "B", &[1, 8, 1], &options);
        assert_eq!(
            (first, second, inventory.molecules.len()),
            (Ok(0), Ok(0), 1)
        );
    }

    #[test]
    fn filters_say_why() {
        let mut inventory = Inventory::default();
        let mut with = |smiles, species: &[u8], change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            admit(
                &mut inventory,
                smiles,
                "SPICE PubChem Set 6 Single Points Dataset v1.2",
                species,
                &options,
            )
        };
        assert_eq!(
            with("[OH-]", &[8, 1], |o| o.neutral_only = true),
            Err(Skip::Charged)
        );
        assert_eq!(
            with("Cl", &[17, 1], |o| o.elements =
                vec!["H".into(), "C".into()]),
            Err(Skip::Elements)
        );
        assert_eq!(
            with("Cl", &[17, 1], |o| o.subset = Some("SPICE DES".into())),
            Err(Skip::Subset)
        );
        assert_eq!(
            with("Cl", &[17, 1], |o| o.subset =
                Some("SPICE PubChem Set 6 Single Points Dataset v1.3".into())),
            Ok(0)
        );
        assert_eq!(
            with("Cl", &[17, 1], |o| o.subset = Some("spice pubchem".into())),
            Ok(0)
        );
        assert_eq!(with("[Na+]", &[11], |_| ()), Err(Skip::OneAtom));
    }

    #[test]
    fn versions_are_cut_only_where_they_are_versions() {
        assert_eq!(without_version("Set 6 v1.2"), "Set 6");
        assert_eq!(without_version("Set with v in it"), "Set with v in it");
    }
}
