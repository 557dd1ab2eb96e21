//! One structure file as the plugin sees it, and the rules by which atoms become C-alpha traces. Every format reports its atoms here.
//!
//! 1. First model only.
//! 2. A residue is (chain, author number, insertion code): an insertion code makes a separate one, two residue names at one number do not.
//! 3. Amino acids only, from `ATOM` records; modified ones from `HETATM` records too if asked for.
//! 4. Of alternate locations the first in the file counts, which is `A` (or `1`) in files of the archive, whatever the occupancies are.
//! 5. A residue without a C-alpha does not exist. Residues keep the order of the file.

use crate::residues;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What the whole file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Entry {
    /// Chains with at least one C-alpha, in the order of the file.
    pub(crate) chains: Vec<EntryChain>,
    /// Experimental methods in capitals, as in the file: `X-RAY DIFFRACTION`.
    pub(crate) methods: Vec<String>,
    /// Å.
    pub(crate) resolution: Option<f64>,
    pub(crate) tally: Tally,
}

/// A chain of an entry.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct EntryChain {
    /// Author chain id; empty where the file leaves it blank.
    pub(crate) name: String,
    /// One-letter codes of the residues that have a C-alpha.
    pub(crate) sequence: String,
    /// Å.
    pub(crate) positions: Vec<[f64; 3]>,
    pub(crate) numbers: Vec<i32>,
    /// The sequence of the sample (SEQRES), if the file states it: one-letter codes, resolved or not.
    pub(crate) stated: Option<String>,
}

/// What was met in a file and is not in the traces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Tally {
    /// Amino acid residues without a C-alpha.
    pub(crate) without_alpha: u64,
    /// C-alphas of further alternate locations.
    pub(crate) alternates: u64,
    /// C-alphas of modified residues in `HETATM` records that were not asked for.
    pub(crate) modified: u64,
    /// C-alphas in `ATOM` records of residues that are no known amino acid.
    pub(crate) unknown: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.without_alpha += other.without_alpha;
        self.alternates += other.alternates;
        self.modified += other.modified;
        self.unknown += other.unknown;
    }
}

/// The residue that an atom belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Residue<'a> {
    /// From a `HETATM` record.
    pub(crate) hetero: bool,
    /// Author chain id.
    pub(crate) chain: &'a str,
    /// Author number.
    pub(crate) number: i32,
    /// Insertion code, empty for none.
    pub(crate) insertion: &'a str,
    pub(crate) name: &'a str,
    /// Key of the stated sequence: entity in mmCIF, chain in PDB.
    pub(crate) entity: &'a str,
}

/// The residue of the last atom, owned.
#[derive(Debug, Default)]
struct Current {
    hetero: bool,
    chain: String,
    number: i32,
    insertion: String,
    name: String,
    /// One-letter code if its C-alpha is wanted.
    letter: Option<u8>,
    /// A modified residue that was not asked for.
    modified: bool,
    has_alpha: bool,
}

impl Current {
    fn is(&self, residue: &Residue<'_>) -> bool {
        self.number == residue.number
            && self.hetero == residue.hetero
            && self.name == residue.name
            && self.chain == residue.chain
            && self.insertion == residue.insertion
    }

    fn set(&mut self, residue: &Residue<'_>) {
        let copy = |to: &mut String, from: &str| {
            to.clear();
            to.push_str(from);
        };
        copy(&mut self.chain, residue.chain);
        copy(&mut self.insertion, residue.insertion);
        copy(&mut self.name, residue.name);
        (self.hetero, self.number, self.has_alpha) = (residue.hetero, residue.number, false);
    }
}

#[derive(Debug, Default)]
struct ChainState {
    chain: EntryChain,
    entity: String,
    seen: HashSet<(i32, String)>,
    without_alpha: BTreeSet<(i32, String)>,
}

/// Collects an entry atom by atom.
#[derive(Debug, Default)]
pub(crate) struct EntryBuilder {
    /// Modified residues in `HETATM` records count.
    take_modified: bool,
    current: Option<Current>,
    chains: Vec<ChainState>,
    by_name: HashMap<String, usize>,
    tally: Tally,
    pub(crate) methods: Vec<String>,
    pub(crate) resolution: Option<f64>,
    /// One-letter codes by entity (mmCIF) or chain (PDB).
    pub(crate) stated: HashMap<String, String>,
    /// Whether any atom was there, of whatever kind.
    pub(crate) has_atoms: bool,
}

impl EntryBuilder {
    pub(crate) fn new(take_modified: bool) -> Self {
        Self {
            take_modified,
            ..Self::default()
        }
    }

    /// Takes note of the residue of an atom of the first model. Atoms of one residue come one after the other.
    pub(crate) fn atom(&mut self, residue: &Residue<'_>) {
        self.has_atoms = true;
        if self.current.as_ref().is_some_and(|c| c.is(residue)) {
            return;
        }
        let mut current = self.close().unwrap_or_default();
        current.set(residue);
        current.modified = residue.hetero && residues::is_modified(residue.name);
        let wanted = !residue.hetero || self.take_modified && current.modified;
        current.letter = if wanted {
            residues::one_letter(residue.name)
        } else {
            None
        };
        if current.letter.is_some() {
            self.chain(residue);
        }
        self.current = Some(current);
    }

    /// Adds the C-alpha of the residue of the last atom. `alternate` is its alternate location, empty for none.
    pub(crate) fn alpha(&mut self, alternate: &str, position: [f64; 3]) {
        let Some(current) = &mut self.current else {
            return;
        };
        let Some(letter) = current.letter else {
            self.tally.modified += u64::from(current.modified);
            self.tally.unknown += u64::from(!current.hetero);
            return;
        };
        let repeated = current.has_alpha;
        current.has_alpha = true;
        let Some(state) = self
            .by_name
            .get(&current.chain)
            .and_then(|&i| self.chains.get_mut(i))
        else {
            return;
        };
        let is_new = state
            .seen
            .insert((current.number, current.insertion.clone()));
        // The same number again without an alternate location is another molecule under the same chain id, not a second location.
        if !is_new && (repeated || !alternate.is_empty()) {
            self.tally.alternates += 1;
            return;
        }
        state.chain.sequence.push(char::from(letter));
        // Text may say -0.000, integers cannot: the sum turns it into 0, so that one entry in two formats is the same to the bit.
        state.chain.positions.push(position.map(|x| x + 0.0));
        state.chain.numbers.push(current.number);
    }

    /// Ends the current residue.
    fn close(&mut self) -> Option<Current> {
        let current = self.current.take()?;
        if current.letter.is_some()
            && !current.has_alpha
            && let Some(state) = self
                .by_name
                .get(&current.chain)
                .and_then(|&i| self.chains.get_mut(i))
        {
            state
                .without_alpha
                .insert((current.number, current.insertion.clone()));
        }
        Some(current)
    }

    fn chain(&mut self, residue: &Residue<'_>) {
        if self.by_name.contains_key(residue.chain) {
            return;
        }
        self.by_name
            .insert(residue.chain.to_owned(), self.chains.len());
        let chain = EntryChain {
            name: residue.chain.to_owned(),
            ..EntryChain::default()
        };
        self.chains.push(ChainState {
            chain,
            entity: residue.entity.to_owned(),
            ..ChainState::default()
        });
    }

    /// The entry. Sequences that the file states after its atoms find their chains here.
    pub(crate) fn finish(mut self) -> Entry {
        self.close();
        let mut chains = Vec::new();
        for mut state in self.chains {
            self.tally.without_alpha += state
                .without_alpha
                .difference(&state.seen.into_iter().collect())
                .count() as u64;
            state.chain.stated = self.stated.get(&state.entity).cloned();
            if !state.chain.positions.is_empty() {
                chains.push(state.chain);
            }
        }
        Entry {
            chains,
            methods: self.methods,
            resolution: self.resolution,
            tally: self.tally,
        }
    }
}

/// One-letter codes of a stated sequence; what is no known amino acid is `X`.
pub(crate) fn letters<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names
        .into_iter()
        .map(|name| char::from(residues::one_letter(name).unwrap_or(b'X')))
        .collect()
}

/// Whether a coordinate can be used: finite, and within 1e6 Å, far beyond any structure, so that a square stays in the range of f64.
pub(crate) fn is_usable(x: f64) -> bool {
    x.abs() < 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A residue as record, number, insertion, name, and its C-alphas as (alternate, x).
    type Made<'a> = (&'a str, i32, &'a str, &'a str, &'a [(&'a str, f64)]);

    fn entry(take_modified: bool, atoms: &[Made<'_>]) -> Entry {
        let mut builder = EntryBuilder::new(take_modified);
        for &(record, number, insertion, name, alphas) in atoms {
            builder.atom(&Residue {
                hetero: record == "HETATM",
                chain: "A",
                number,
                insertion,
                name,
                entity: "1",
            });
            for &(alternate, x) in alphas {
                builder.alpha(alternate, [x, 0.0, 0.0]);
            }
        }
        builder.finish()
    }

    fn trace(entry: &Entry) -> (String, Vec<f64>) {
        entry.chains.first().map_or_else(Default::default, |c| {
            (
                c.sequence.clone(),
                c.positions.iter().map(|p| p[0]).collect(),
            )
        })
    }

    #[test]
    fn the_first_alternate_location_counts_whatever_its_name() {
        let found = entry(
            false,
            &[
                ("ATOM", 1, "", "ALA", &[("B", 1.0), ("A", 2.0)]),
                ("ATOM", 2, "", "GLY", &[("1", 3.0), ("2", 4.0)]),
            ],
        );
        assert_eq!(
            (trace(&found), found.tally.alternates),
            (("AG".into(), vec![1.0, 3.0]), 2)
        );
    }

    #[test]
    fn two_names_at_one_number_are_one_residue_and_an_insertion_code_is_another() {
        let found = entry(
            false,
            &[
                ("ATOM", 22, "", "PRO", &[("A", 1.0)]),
                ("ATOM", 22, "", "SER", &[("B", 2.0)]),
                ("ATOM", 22, "A", "GLY", &[("", 3.0)]),
            ],
        );
        assert_eq!(
            (trace(&found), found.chains[0].numbers.clone()),
            (("PG".into(), vec![1.0, 3.0]), vec![22, 22])
        );
    }

    #[test]
    fn a_repeated_number_without_alternate_location_is_another_residue() {
        let found = entry(
            false,
            &[
                ("ATOM", 1, "", "ALA", &[("", 1.0)]),
                ("ATOM", 2, "", "GLY", &[("", 2.0)]),
                ("ATOM", 1, "", "ALA", &[("", 9.0)]),
            ],
        );
        assert_eq!(
            (trace(&found), found.tally.alternates),
            (("AGA".into(), vec![1.0, 2.0, 9.0]), 0)
        );
    }

    #[test]
    fn modified_residues_come_in_when_asked_for_and_ligands_never() {
        let atoms: &[Made<'_>] = &[
            ("ATOM", 1, "", "ALA", &[("", 1.0)]),
            ("HETATM", 2, "", "MSE", &[("", 2.0)]),
            ("HETATM", 3, "", "PLM", &[("", 3.0)]),
            ("HETATM", 4, "", "GLY", &[("", 4.0)]),
            ("ATOM", 5, "", "LIG", &[("", 5.0)]),
        ];
        let (without, with) = (entry(false, atoms), entry(true, atoms));
        assert_eq!(
            (
                trace(&without).0,
                without.tally.modified,
                without.tally.unknown
            ),
            ("A".into(), 1, 1)
        );
        assert_eq!(
            (trace(&with).0, with.tally.modified, with.tally.unknown),
            ("AM".into(), 0, 1)
        );
    }

    #[test]
    fn residues_without_alpha_are_counted_once_and_not_if_another_location_has_one() {
        let found = entry(
            false,
            &[
                ("ATOM", 1, "", "ALA", &[]),
                ("ATOM", 2, "", "SER", &[]),
                ("ATOM", 2, "", "THR", &[("B", 2.0)]),
                ("HETATM", 3, "", "HOH", &[]),
            ],
        );
        assert_eq!(
            (trace(&found).0, found.tally.without_alpha),
            ("T".into(), 1)
        );
        assert!(
            entry(false, &[("ATOM", 1, "", "ALA", &[])])
                .chains
                .is_empty()
        );
    }
}
