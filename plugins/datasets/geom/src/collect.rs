//! Takes conformers from the readers: filters, molecules, duplicates, counts.

use crate::{
    conformer::Conformer,
    filter::{FileCounts, Reason, has_coincident},
    options::Settings,
    store::Store,
};
use equivbench_dataset_tools::{elements, smiles};
use equivbench_plugin::{PluginError, PluginResult};
use std::collections::{BTreeMap, HashMap};

/// Everything that was taken and what was counted on the way.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) store: Store,
    /// Keys of the groups that are kept together in one split.
    pub(crate) groups: Vec<String>,
    pub(crate) counts: Counts,
}

/// What the dataset reports on its reading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) left_out: BTreeMap<Reason, u64>,
    /// Over all files.
    pub(crate) files: FileCounts,
    /// Conformers by an element that is not admitted.
    pub(crate) foreign: BTreeMap<u8, u64>,
    /// Molecules that are known by a graph: of SMILES or of bonds.
    pub(crate) known_by_graph: u64,
    /// Molecules that are known by their name or formula only.
    pub(crate) known_by_name: u64,
}

/// Fills [`Collected`].
pub(crate) struct Collector<'a> {
    settings: &'a Settings,
    collected: Collected,
    /// By the text that names a molecule: its group, and conformers kept.
    molecules: HashMap<Name, CountedMolecule>,
    group_by_key: HashMap<String, u32>,
    duplicates: Duplicates,
    file: FileCounts,
}

#[derive(Clone, Copy)]
struct CountedMolecule {
    group: u32,
    kept: u64,
}

impl<'a> Collector<'a> {
    pub(crate) fn new(settings: &'a Settings) -> Self {
        Self {
            settings,
            collected: Collected::default(),
            molecules: HashMap::new(),
            group_by_key: HashMap::new(),
            duplicates: Duplicates::default(),
            file: FileCounts::default(),
        }
    }

    /// Conformers of the current file so far.
    pub(crate) fn seen(&self) -> u64 {
        self.file.conformers
    }

    /// Ends a file.
    ///
    /// # Errors
    /// Most of it is flat, or lacks hydrogens.
    pub(crate) fn end_file(&mut self, name: &str) -> PluginResult<()> {
        let file = std::mem::take(&mut self.file);
        let all = &mut self.collected.counts.files;
        all.conformers += file.conformers;
        all.flat += file.flat;
        all.organic += file.organic;
        all.without_hydrogen += file.without_hydrogen;
        file.check(name, self.settings)
    }

    /// Takes or counts one conformer.
    ///
    /// # Errors
    /// There are too many.
    pub(crate) fn take(&mut self, conformer: &Conformer) -> PluginResult<()> {
        self.file.add(conformer);
        if let Err(reason) = self.try_take(conformer)? {
            *self.collected.counts.left_out.entry(reason).or_default() += 1;
            if reason == Reason::Element {
                self.count_foreign(&conformer.numbers);
            }
        }
        Ok(())
    }

    fn count_foreign(&mut self, numbers: &[u8]) {
        let mut foreign: Vec<u8> = numbers
            .iter()
            .copied()
            .filter(|&z| !self.settings.elements[usize::from(z)])
            .collect();
        foreign.sort_unstable();
        foreign.dedup();
        foreign
            .into_iter()
            .for_each(|z| *self.collected.counts.foreign.entry(z).or_default() += 1);
    }

    fn try_take(&mut self, conformer: &Conformer) -> PluginResult<Result<(), Reason>> {
        if let Some(reason) = self.settings.refuses(conformer) {
            return Ok(Err(reason));
        }
        let name = molecule_name(conformer);
        let CountedMolecule { group, kept } = self.molecule(&name, conformer);
        if !name.is_formula && kept >= self.settings.conformers {
            return Ok(Err(Reason::Further));
        }
        if has_coincident(&conformer.positions) {
            return Ok(Err(Reason::Coincident));
        }
        if !self
            .duplicates
            .is_new(&self.collected.store, group, conformer)
        {
            return Ok(Err(Reason::Duplicate));
        }
        self.collected
            .store
            .push(group, &conformer.numbers, &conformer.positions)?;
        if let Some(molecule) = self.molecules.get_mut(&name) {
            molecule.kept += 1;
        }
        Ok(Ok(()))
    }

    /// The group of a molecule, and how many conformers of it are kept already.
    fn molecule(&mut self, name: &Name, conformer: &Conformer) -> CountedMolecule {
        if let Some(known) = self.molecules.get(name) {
            return *known;
        }
        let molecule = CountedMolecule {
            group: self.group(group_key(&name.text, conformer)),
            kept: 0,
        };
        self.molecules.insert(name.clone(), molecule);
        molecule
    }

    fn group(&mut self, key: Key) -> u32 {
        let next = self.collected.groups.len() as u32;
        let (text, by_graph) = match key {
            Key::Graph(text) => (text, true),
            Key::Name(text) => (text, false),
        };
        *self.group_by_key.entry(text).or_insert_with_key(|text| {
            self.collected.groups.push(text.clone());
            self.collected.counts.known_by_graph += u64::from(by_graph);
            self.collected.counts.known_by_name += u64::from(!by_graph);
            next
        })
    }

    /// What was taken.
    ///
    /// # Errors
    /// Nothing was.
    pub(crate) fn finish(mut self, files: &str) -> PluginResult<Collected> {
        if self.collected.store.len() == 0 {
            let reasons: Vec<String> = self
                .collected
                .counts
                .left_out
                .iter()
                .map(|(why, n)| format!("{n} {}", why.about()))
                .collect();
            let reasons = if reasons.is_empty() {
                "there is none".into()
            } else {
                format!("left out: {}", reasons.join("; "))
            };
            let foreign = self.collected.counts.foreign_elements();
            let foreign = if foreign.is_empty() {
                foreign
            } else {
                format!(" (found: {foreign})")
            };
            return Err(PluginError::BadData(format!(
                "{files}: no conformer can be used; {reasons}{foreign}. Change the option that removed them, or give other data"
            )));
        }
        self.collected.store.shrink();
        Ok(self.collected)
    }
}

impl Counts {
    /// `P 12, Si 3`.
    pub(crate) fn foreign_elements(&self) -> String {
        self.foreign
            .iter()
            .map(|(&z, n)| format!("{} {n}", elements::symbol(z)))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// How a molecule is known across names and files.
enum Key {
    /// By the graph of its SMILES or its bonds.
    Graph(String),
    Name(String),
}

/// What conformers are counted by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Name {
    text: String,
    /// Nothing else is known: many isomers may share it, so it says nothing about how many conformers a molecule has.
    is_formula: bool,
}

/// What the file says, else the graph of the bonds, else the formula.
fn molecule_name(conformer: &Conformer) -> Name {
    let said = Some(conformer.molecule.trim())
        .filter(|name| !name.is_empty())
        .map(ToOwned::to_owned);
    match said.or_else(|| graph_of_bonds(conformer)) {
        Some(text) => Name {
            text,
            is_formula: false,
        },
        None => Name {
            text: elements::formula(&conformer.numbers),
            is_formula: true,
        },
    }
}

/// The key under which conformers share a split: the graph of the SMILES, if the name is one and has these atoms, else that of the bonds,
/// else the name.
fn group_key(name: &str, conformer: &Conformer) -> Key {
    let mut heavy: Vec<u8> = conformer
        .numbers
        .iter()
        .copied()
        .filter(|&z| z != 1)
        .collect();
    heavy.sort_unstable();
    match smiles::parse(name) {
        Ok(graph) if graph.heavy_atoms() == heavy => Key::Graph(graph.key()),
        _ => graph_of_bonds(conformer).map_or_else(|| Key::Name(name.to_owned()), Key::Graph),
    }
}

fn graph_of_bonds(conformer: &Conformer) -> Option<String> {
    let atoms = conformer.numbers.len();
    let bonds = conformer
        .bonds
        .iter()
        .map(|&(a, b)| (a as usize, b as usize));
    let is_sound =
        !conformer.bonds.is_empty() && bonds.clone().all(|(a, b)| a < atoms && b < atoms);
    is_sound.then(|| smiles::key_of(&conformer.numbers, bonds))
}

/// Å. Formats round to 0.001 or better, and two minimised conformers differ by far more.
const SAME: f64 = 1e-3;

/// Finds conformers of one group whose coordinates all agree. Norms of equal conformers are nearly equal, so that only conformers
/// with a norm nearby need to be compared.
#[derive(Debug, Default)]
struct Duplicates {
    /// Last conformer of a group and a cell of norms.
    last: HashMap<(u32, i64), u32>,
    /// For each conformer the one before it in its cell.
    before: Vec<Option<u32>>,
}

/// Å. Wide against what [`SAME`] allows, so that most norms need one cell.
const CELL: f64 = 0.02;

impl Duplicates {
    /// Whether the conformer is not in the store, and puts it down as the next one there.
    fn is_new(&mut self, store: &Store, group: u32, conformer: &Conformer) -> bool {
        let squares: f64 = conformer
            .positions
            .as_flattened()
            .iter()
            .map(|x| x * x)
            .sum();
        let norm = (squares / conformer.numbers.len() as f64).sqrt();
        // If no coordinate differs by more than SAME, the norms differ by at most √3 SAME (triangle inequality); 2 leaves room for f32.
        let cell = |norm: f64| (norm / CELL).floor() as i64;
        for cell in cell(norm - 2.0 * SAME)..=cell(norm + 2.0 * SAME) {
            let mut other = self.last.get(&(group, cell)).copied();
            while let Some(conformer_there) = other {
                if is_same(store, conformer_there, conformer) {
                    return false;
                }
                other = self.before.get(conformer_there as usize).copied().flatten();
            }
        }
        let number = self.before.len() as u32;
        self.before
            .push(self.last.insert((group, cell(norm)), number));
        true
    }
}

fn is_same(store: &Store, there: u32, conformer: &Conformer) -> bool {
    let close = |(a, b): (&f32, &f64)| (f64::from(*a) - b).abs() <= SAME;
    store.numbers(there) == conformer.numbers
        && store
            .positions(there)
            .as_flattened()
            .iter()
            .zip(conformer.positions.as_flattened())
            .all(close)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;

    fn conformer(molecule: &str, shift: f64) -> Conformer {
        // Ethanol without care for its geometry: CCO and six hydrogens.
        let numbers = vec![6, 6, 8, 1, 1, 1, 1, 1, 1];
        let positions = (0..9)
            .map(|i| [f64::from(i), f64::from(i % 3) + shift, f64::from(i * i % 5)])
            .collect();
        let bonds = vec![
            (0, 1),
            (1, 2),
            (0, 3),
            (0, 4),
            (0, 5),
            (1, 6),
            (1, 7),
            (2, 8),
        ];
        Conformer {
            molecule: molecule.into(),
            numbers,
            positions,
            bonds,
        }
    }

    fn collect(conformers: &[Conformer], change: impl FnOnce(&mut Options)) -> Collected {
        // Nobody looks at the geometry here.
        let mut options = Options {
            allow_missing_hydrogens: true,
            ..Options::default()
        };
        change(&mut options);
        let settings = Settings::new(options).unwrap();
        let mut collector = Collector::new(&settings);
        conformers.iter().for_each(|c| collector.take(c).unwrap());
        collector.end_file("x").unwrap();
        collector.finish("x").unwrap()
    }

    #[test]
    fn names_smiles_and_bonds_of_one_molecule_are_one_group() {
        let mut without_bonds = conformer("C(C)O", 0.3);
        without_bonds.bonds.clear();
        let all = [
            conformer("CCO", 0.0),
            conformer("ethanol_1", 0.1),
            conformer("", 0.2),
            without_bonds,
            conformer("CCN", 0.4),
        ];
        let collected = collect(&all, |_| ());
        // "CCN" is no SMILES of these atoms, so the bonds decide.
        assert_eq!(
            (
                collected.store.len(),
                collected.groups.len(),
                collected.counts.known_by_graph
            ),
            (5, 1, 1)
        );
        let mut nameless = conformer("some name", 0.0);
        nameless.bonds.clear();
        let collected = collect(&[conformer("CCO", 0.0), nameless], |_| ());
        assert_eq!(
            (collected.store.groups(), collected.counts.known_by_name),
            (&[0, 1][..], 1)
        );
    }

    #[test]
    fn the_first_conformers_of_each_name_are_kept() {
        let all: Vec<Conformer> = (0..8)
            .map(|i| conformer(["a", "b"][i % 2], i as f64))
            .collect();
        let collected = collect(&all, |o| o.conformers = 3);
        assert_eq!(
            (
                collected.store.len(),
                collected.counts.left_out[&Reason::Further]
            ),
            (6, 2)
        );
        assert_eq!(collected.store.positions(5)[0][1], 5.0);
        assert_eq!(collect(&all, |o| o.conformers = 0).store.len(), 8);
    }

    #[test]
    fn isomers_of_which_only_the_formula_is_known_are_all_kept_and_share_a_split() {
        let nameless = |shift| Conformer {
            bonds: Vec::new(),
            ..conformer("", shift)
        };
        let mut all: Vec<Conformer> = (0..8).map(|i| nameless(f64::from(i))).collect();
        let collected = collect(&all, |o| o.conformers = 3);
        assert_eq!(
            (collected.store.len(), &collected.groups[..]),
            (8, &["C2H6O".to_owned()][..])
        );
        assert!(collected.counts.left_out.is_empty());
        // A file that says the same text as a name means one molecule.
        all.extend((8..16).map(|i| Conformer {
            molecule: "C2H6O".into(),
            ..nameless(f64::from(i))
        }));
        let collected = collect(&all, |o| o.conformers = 3);
        assert_eq!(
            (
                collected.store.len(),
                collected.groups.len(),
                collected.counts.left_out[&Reason::Further]
            ),
            (11, 1, 5)
        );
        // Bonds tell isomers apart.
        let bonded: Vec<Conformer> = (0..8).map(|i| conformer("", f64::from(i))).collect();
        assert_eq!(collect(&bonded, |o| o.conformers = 3).store.len(), 3);
    }

    #[test]
    fn equal_conformers_are_dropped_and_near_ones_are_not() {
        for (shift, kept) in [
            (0.0, 1),
            (0.000_9, 1),
            (-0.000_9, 1),
            (0.001_2, 2),
            (-0.001_2, 2),
        ] {
            // Norms near the border of a cell and away from it.
            for start in 0..40 {
                let first = f64::from(start) * 0.01;
                let collected = collect(
                    &[conformer("a", first), conformer("b", first + shift)],
                    |_| (),
                );
                assert_eq!(collected.store.len(), kept, "{shift} {start}");
            }
        }
        // Another molecule with the same coordinates is none.
        let mut other = conformer("a", 0.0);
        other.numbers[0] = 7;
        assert_eq!(
            collect(&[conformer("a", 0.0), other], |_| ()).store.len(),
            2
        );
    }

    #[test]
    fn foreign_elements_are_counted_by_conformer() {
        let mut foreign = conformer("a", 0.0);
        (foreign.numbers[0], foreign.numbers[1], foreign.numbers[2]) = (14, 14, 15);
        let collected = collect(&[conformer("b", 0.0), foreign.clone(), foreign], |_| ());
        assert_eq!(collected.counts.foreign_elements(), "Si 2, P 2");
        assert_eq!(collected.counts.left_out[&Reason::Element], 2);
    }

    #[test]
    fn nothing_left_says_why() {
        let settings = Settings::new(Options {
            elements: vec!["C".into()],
            ..Options::default()
        })
        .unwrap();
        let mut collector = Collector::new(&settings);
        collector.take(&conformer("a", 0.0)).unwrap();
        let message = collector.finish("x.sdf").unwrap_err().to_string();
        assert!(
            message.contains("x.sdf: no conformer can be used") && message.contains("H 1, O 1"),
            "{message}"
        );
    }
}
