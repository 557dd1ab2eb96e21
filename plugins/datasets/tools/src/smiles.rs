//! Just enough SMILES: elements, formal charges, atom maps and connectivity of the strings that data files carry, and a key
//! that is the same for every way of writing one molecule.

use crate::elements;
use std::collections::HashMap;

/// A parsed SMILES string: atoms in the order of the string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// Atoms as written.
    pub atoms: Vec<Atom>,
    /// Pairs of atom indices.
    pub bonds: Vec<(usize, usize)>,
    /// Sum of bond orders as written at each atom, aromatic bonds counted as 1.
    orders: Vec<u32>,
}

/// Atomic numbers by row, and bonds as pairs of rows.
pub type Rows = (Vec<u8>, Vec<(usize, usize)>);

/// One atom of a SMILES string.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Atom {
    /// Atomic number; 0 for `*`.
    pub element: u8,
    /// Formal charge.
    pub charge: i32,
    /// Atom map number; SPICE writes `row + 1`.
    pub map: Option<usize>,
    /// Hydrogens that are not atoms of their own.
    pub hydrogens: u32,
    aromatic: bool,
    bracket: bool,
}

/// Parses a SMILES string. Stereo marks are read and forgotten.
///
/// # Errors
/// What is wrong, and at which character.
pub fn parse(text: &str) -> Result<Graph, String> {
    let mut parser = Parser {
        bytes: text.trim().as_bytes(),
        ..Parser::default()
    };
    parser.run().map_err(|what| {
        format!(
            "{what} at character {} of SMILES \"{}\"",
            parser.at + 1,
            shorten(text)
        )
    })?;
    let mut graph = parser.graph;
    graph.fill_hydrogens();
    Ok(graph)
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.to_owned()
    } else {
        text.chars().take(57).chain("...".chars()).collect()
    }
}

/// The string without atom maps: `[C:3]` becomes `[C]`.
#[must_use]
pub fn without_maps(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    let mut inside = false;
    while let Some(c) = characters.next() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if inside => {
                while characters.next_if(char::is_ascii_digit).is_some() {}
                continue;
            }
            _ => {}
        }
        out.push(c);
    }
    out
}

impl Graph {
    /// Sum of the formal charges.
    #[must_use]
    pub fn charge(&self) -> i32 {
        self.atoms.iter().map(|a| a.charge).sum()
    }

    /// Atomic numbers and bonds by row, when map number `i` names row `i - 1` and no hydrogen is implicit.
    ///
    /// # Errors
    /// Map numbers that are not a permutation of 1..=n, or implicit hydrogens.
    pub fn by_map(&self) -> Result<Rows, String> {
        let n = self.atoms.len();
        let mut species = vec![0; n];
        let mut row_of = Vec::with_capacity(n);
        for (i, atom) in self.atoms.iter().enumerate() {
            let row = atom
                .map
                .and_then(|m| m.checked_sub(1))
                .filter(|&r| r < n && species[r] == 0);
            let row = row.ok_or_else(|| {
                format!(
                    "atom {} has no map number, or one that is not unique in 1..{n}",
                    i + 1
                )
            })?;
            if atom.hydrogens > 0 || atom.element == 0 {
                return Err(format!(
                    "atom {} has implicit hydrogens or no element, so rows cannot be told",
                    i + 1
                ));
            }
            species[row] = atom.element;
            row_of.push(row);
        }
        Ok((
            species,
            self.bonds
                .iter()
                .map(|&(a, b)| (row_of[a], row_of[b]))
                .collect(),
        ))
    }

    /// A key that depends on neither the order of the atoms nor the way of writing hydrogens, charges, bond orders and stereo:
    /// formula and Weisfeiler-Lehman hash of the graph. Two molecules may share a key (stereoisomers do), which only keeps them in one split.
    #[must_use]
    pub fn key(&self) -> String {
        let (species, neighbours) = self.with_hydrogens();
        key(&species, &neighbours)
    }

    /// Atomic numbers of the atoms that are not hydrogen, sorted.
    #[must_use]
    pub fn heavy_atoms(&self) -> Vec<u8> {
        let mut numbers: Vec<u8> = self
            .atoms
            .iter()
            .map(|a| a.element)
            .filter(|&z| z != 1)
            .collect();
        numbers.sort_unstable();
        numbers
    }

    /// Atomic numbers with all hydrogens as atoms, and the neighbours of each.
    fn with_hydrogens(&self) -> (Vec<u8>, Vec<Vec<usize>>) {
        let mut species: Vec<u8> = self.atoms.iter().map(|a| a.element).collect();
        let mut neighbours = vec![Vec::new(); species.len()];
        for &(a, b) in &self.bonds {
            neighbours[a].push(b);
            neighbours[b].push(a);
        }
        for (i, atom) in self.atoms.iter().enumerate() {
            for _ in 0..atom.hydrogens {
                neighbours[i].push(species.len());
                neighbours.push(vec![i]);
                species.push(1);
            }
        }
        (species, neighbours)
    }

    /// Hydrogens of the atoms that stand without brackets, by the valence model of OpenSMILES.
    fn fill_hydrogens(&mut self) {
        for (atom, &order) in self.atoms.iter_mut().zip(&self.orders) {
            if !atom.bracket {
                let used = order + u32::from(atom.aromatic);
                let valences = if atom.aromatic {
                    &valences(atom.element)[..1]
                } else {
                    valences(atom.element)
                };
                atom.hydrogens = valences
                    .iter()
                    .find(|&&v| v >= used)
                    .map_or(0, |v| v - used);
            }
        }
    }
}

/// [`Graph::key`] of a molecule that is given by atoms, hydrogens included, and pairs of bonded atoms.
///
/// # Panics
/// If a bond names an atom that is not there.
#[must_use]
pub fn key_of(species: &[u8], bonds: impl IntoIterator<Item = (usize, usize)>) -> String {
    let mut neighbours = vec![Vec::new(); species.len()];
    for (a, b) in bonds {
        neighbours[a].push(b);
        neighbours[b].push(a);
    }
    key(species, &neighbours)
}

fn key(species: &[u8], neighbours: &[Vec<usize>]) -> String {
    let mut colours: Vec<u64> = species
        .iter()
        .zip(neighbours)
        .map(|(&z, n)| mix(u64::from(z) << 8 | n.len() as u64))
        .collect();
    for _ in 0..WEISFEILER_LEHMAN_ROUNDS {
        colours = (0..colours.len())
            .map(|i| {
                fold(
                    colours[i],
                    neighbours[i].iter().map(|&j| colours[j]).collect(),
                )
            })
            .collect();
    }
    format!("{} {:016x}", elements::formula(species), fold(0, colours))
}

/// Enough to tell any two molecules apart that differ within eight bonds of some atom.
const WEISFEILER_LEHMAN_ROUNDS: usize = 8;

fn fold(own: u64, mut others: Vec<u64>) -> u64 {
    others.sort_unstable();
    others
        .into_iter()
        .fold(mix(own), |hash, colour| mix(hash ^ colour))
}

/// SplitMix64's finaliser: fixed for all time, unlike the hashers of the standard library.
fn mix(x: u64) -> u64 {
    let mut z = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

fn valences(element: u8) -> &'static [u32] {
    match element {
        5 => &[3],
        6 => &[4],
        7 | 15 => &[3, 5],
        8 => &[2],
        16 => &[2, 4, 6],
        9 | 17 | 35 | 53 => &[1],
        _ => &[0],
    }
}

#[derive(Default)]
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    graph: Graph,
    previous: Option<usize>,
    branches: Vec<Option<usize>>,
    rings: HashMap<u32, (usize, Option<u32>)>,
    /// Order of the next bond, if one was written.
    bond: Option<u32>,
}

type Step<T = ()> = Result<T, &'static str>;

impl Parser<'_> {
    fn run(&mut self) -> Step {
        while let Some(c) = self.peek() {
            self.token(c)?;
        }
        if !self.branches.is_empty() {
            return Err("a branch is not closed");
        }
        if !self.rings.is_empty() {
            return Err("a ring is not closed");
        }
        if self.graph.atoms.is_empty() {
            Err("no atom")
        } else {
            Ok(())
        }
    }

    fn token(&mut self, c: u8) -> Step {
        match c {
            b'[' => return self.bracket(),
            b'(' => self.branches.push(self.previous),
            b')' => {
                self.previous = self
                    .branches
                    .pop()
                    .ok_or("a branch is closed that was not opened")?
            }
            b'.' => self.previous = None,
            b'-' | b'/' | b'\\' | b':' | b'~' => self.bond = Some(1),
            b'=' => self.bond = Some(2),
            b'#' => self.bond = Some(3),
            b'$' => self.bond = Some(4),
            b'%' | b'0'..=b'9' => return self.ring(),
            _ => return self.organic(),
        }
        self.at += 1;
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, c: u8) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn number(&mut self) -> Option<u32> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        std::str::from_utf8(&self.bytes[start..self.at])
            .ok()?
            .parse()
            .ok()
    }

    fn organic(&mut self) -> Step {
        let rest = &self.bytes[self.at..];
        let two = ["Cl", "Br"]
            .into_iter()
            .find(|s| rest.starts_with(s.as_bytes()));
        let (symbol, aromatic) = match (two, rest[0]) {
            (Some(s), _) => (s, false),
            (None, b'*') => ("*", false),
            (None, b'B') => ("B", false),
            (None, b'C') => ("C", false),
            (None, b'N') => ("N", false),
            (None, b'O') => ("O", false),
            (None, b'P') => ("P", false),
            (None, b'S') => ("S", false),
            (None, b'F') => ("F", false),
            (None, b'I') => ("I", false),
            (None, b'b') => ("B", true),
            (None, b'c') => ("C", true),
            (None, b'n') => ("N", true),
            (None, b'o') => ("O", true),
            (None, b'p') => ("P", true),
            (None, b's') => ("S", true),
            _ => return Err("an unknown symbol"),
        };
        self.at += symbol.len();
        self.place(Atom {
            element: elements::atomic_number(symbol).unwrap_or(0),
            aromatic,
            ..Atom::default()
        })
    }

    /// `[isotope symbol chirality hydrogens charge :map]`.
    fn bracket(&mut self) -> Step {
        self.at += 1;
        self.number();
        let (element, aromatic) = self.bracket_symbol()?;
        while matches!(self.peek(), Some(b'@')) {
            self.at += 1;
        }
        let mut atom = Atom {
            element,
            aromatic,
            bracket: true,
            ..Atom::default()
        };
        if self.eat(b'H') {
            atom.hydrogens = self.number().unwrap_or(1).min(9);
        }
        atom.charge = self.charge();
        if self.eat(b':') {
            atom.map =
                Some(self.number().ok_or("a map number is missing")? as usize).filter(|&m| m > 0);
        }
        if !self.eat(b']') {
            return Err("a bracket is not closed");
        }
        self.place(atom)
    }

    fn bracket_symbol(&mut self) -> Step<(u8, bool)> {
        let rest = &self.bytes[self.at..];
        for length in [2, 1] {
            let Some(text) = rest
                .get(..length)
                .filter(|t| t.is_ascii())
                .and_then(|t| std::str::from_utf8(t).ok())
            else {
                continue;
            };
            let aromatic = ["b", "c", "n", "o", "p", "s", "se", "as", "te"].contains(&text);
            let capital: String = text[..1].to_uppercase() + &text[1..];
            let wanted = if aromatic { capital.as_str() } else { text };
            if wanted == "*" || elements::atomic_number(wanted).is_some() {
                self.at += length;
                return Ok((elements::atomic_number(wanted).unwrap_or(0), aromatic));
            }
        }
        Err("an unknown symbol")
    }

    fn charge(&mut self) -> i32 {
        let mut charge = 0;
        for (sign, unit) in [(b'+', 1), (b'-', -1)] {
            if self.eat(sign) {
                charge = unit * self.number().map_or(1, |n| n.min(99) as i32);
                while self.eat(sign) {
                    charge += unit;
                }
            }
        }
        charge
    }

    fn place(&mut self, atom: Atom) -> Step {
        let index = self.graph.atoms.len();
        self.graph.atoms.push(atom);
        self.graph.orders.push(0);
        let order = self.bond.take().unwrap_or(1);
        if let Some(previous) = self.previous {
            self.join(previous, index, order);
        }
        self.previous = Some(index);
        Ok(())
    }

    fn join(&mut self, a: usize, b: usize, order: u32) {
        self.graph.bonds.push((a, b));
        self.graph.orders[a] += order;
        self.graph.orders[b] += order;
    }

    fn ring(&mut self) -> Step {
        let label = if self.eat(b'%') {
            if self.eat(b'(') {
                let label = self.number().ok_or("a ring number is missing")?;
                if !self.eat(b')') {
                    return Err("a ring number is not closed");
                }
                label
            } else {
                let digits = self
                    .bytes
                    .get(self.at..self.at + 2)
                    .filter(|d| d.iter().all(u8::is_ascii_digit));
                let digits = digits.ok_or("a ring number is missing")?;
                self.at += 2;
                u32::from(digits[0] - b'0') * 10 + u32::from(digits[1] - b'0')
            }
        } else {
            let digit = self.bytes[self.at] - b'0';
            self.at += 1;
            u32::from(digit)
        };
        let here = self.previous.ok_or("a ring number without an atom")?;
        let bond = self.bond.take();
        match self.rings.remove(&label) {
            Some((other, _)) if other == here => return Err("a ring of one atom"),
            Some((other, first)) => self.join(other, here, bond.or(first).unwrap_or(1)),
            None => {
                self.rings.insert(label, (here, bond));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_smiles_gives_rows_and_bonds() {
        let graph = parse("[H:3][O:1][H:2]").unwrap();
        let (species, bonds) = graph.by_map().unwrap();
        assert_eq!(species, [8, 1, 1]);
        assert_eq!(bonds, [(2, 0), (0, 1)]);
    }

    #[test]
    fn the_key_does_not_depend_on_how_a_molecule_is_written() {
        for (a, b) in [
            ("[H:3][O:1][H:2]", "[O:3]([H:1])[H:2]"),
            ("c1ccccc1O", "Oc1ccccc1"),
            ("c1ccccc1O", "C1=CC=CC=C1O"),
            ("Cn1cccc1", "CN1C=CC=C1"),
            ("c1cc[nH]c1", "[nH]1cccc1"),
            ("OC(=O)C.[Na+]", "[Na+].CC(O)=O"),
            ("N[C@@H](C)C(=O)O", "C[C@@H](N)C(O)=O"),
            ("CS(=O)(=O)N", "NS(C)(=O)=O"),
            ("C%12CCCC%12", "C1CCCC1"),
            ("[H][C]([H])([H])[H]", "C"),
        ] {
            assert_eq!(parse(a).unwrap().key(), parse(b).unwrap().key(), "{a} {b}");
        }
    }

    #[test]
    fn atoms_and_bonds_have_the_key_of_their_smiles() {
        let methanol = key_of(
            &[1, 6, 1, 8, 1, 1],
            [(0, 1), (1, 2), (3, 1), (3, 4), (5, 1)],
        );
        let graph = parse("CO").unwrap();
        assert_eq!((methanol, graph.heavy_atoms()), (graph.key(), vec![6, 8]));
        assert_ne!(
            key_of(
                &[1, 6, 1, 8, 1, 1],
                [(0, 1), (1, 2), (3, 1), (3, 4), (5, 3)]
            ),
            graph.key()
        );
    }

    #[test]
    fn isomers_and_protonation_states_have_keys_of_their_own() {
        let keys: std::collections::BTreeSet<_> = [
            "CCCO",
            "CC(C)O",
            "COCC",
            "CC(=O)O",
            "CC(=O)[O-]",
            "OCC=O",
            "Cc1ccccc1O",
            "Cc1cccc(O)c1",
            "Cc1ccc(O)cc1",
        ]
        .iter()
        .map(|s| parse(s).unwrap().key())
        .collect();
        assert_eq!(keys.len(), 9);
    }

    #[test]
    fn charges_are_summed() {
        for (text, charge) in [
            ("[Na+].[Cl-]", 0),
            ("[Ca+2]", 2),
            ("[Ca++]", 2),
            ("[O-]C(=O)C[NH3+]", 0),
            ("[O-:1][H:2]", -1),
        ] {
            assert_eq!(parse(text).unwrap().charge(), charge, "{text}");
        }
    }

    #[test]
    fn bad_strings_say_where() {
        for text in [
            "", "C(", "C)", "C1CC", "[C", "[Xx]", "Q", "1C", "C%1", "[C:]", "C11", "é", "[é]",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!(
            parse("CCQ").unwrap_err(),
            "an unknown symbol at character 3 of SMILES \"CCQ\""
        );
        assert!(parse("[C:1][C:1]").unwrap().by_map().is_err());
        assert!(parse("[CH4:1]").unwrap().by_map().is_err());
    }

    #[test]
    fn maps_are_stripped_inside_brackets_only() {
        assert_eq!(without_maps("[C:12]([H:3])c:c[N+:4]"), "[C]([H])c:c[N+]");
    }
}
