//! What mmCIF and BinaryCIF have in common: the items that are read, and how rows become an entry.

use crate::{
    entry::{Entry, EntryBuilder, Residue, is_usable, letters},
    residues::one_letter,
};
use std::collections::HashMap;

/// Items of `_atom_site` that are read; [`Item`] numbers them.
pub(crate) const ATOM_ITEMS: [&str; 17] = [
    "group_PDB",
    "type_symbol",
    "label_atom_id",
    "auth_atom_id",
    "label_alt_id",
    "label_comp_id",
    "auth_comp_id",
    "auth_asym_id",
    "label_asym_id",
    "auth_seq_id",
    "label_seq_id",
    "pdbx_PDB_ins_code",
    "label_entity_id",
    "pdbx_PDB_model_num",
    "Cartn_x",
    "Cartn_y",
    "Cartn_z",
];

/// Place of an item in [`ATOM_ITEMS`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item {
    Group,
    Element,
    Atom,
    AuthorAtom,
    Alternate,
    Residue,
    AuthorResidue,
    AuthorChain,
    Chain,
    AuthorNumber,
    Number,
    Insertion,
    Entity,
    Model,
    X,
    Y,
    Z,
}

/// Checks that a table of atoms has places, from which of the items it has.
///
/// # Errors
/// Names the first coordinate that is missing.
pub(crate) fn check_columns(has: impl Fn(usize) -> bool) -> Result<(), String> {
    match [Item::X, Item::Y, Item::Z]
        .into_iter()
        .find(|&item| !has(item as usize))
    {
        Some(item) => Err(format!(
            "_atom_site has no column {}",
            ATOM_ITEMS[item as usize]
        )),
        None => Ok(()),
    }
}

/// Categories other than `_atom_site`, and their items.
pub(crate) const METADATA: [(&str, &[&str]); 4] = [
    ("exptl", &["method"]),
    ("refine", &["ls_d_res_high"]),
    ("em_3d_reconstruction", &["resolution"]),
    ("entity_poly_seq", &["entity_id", "num", "mon_id"]),
];

/// One row of `_atom_site`. A value is `None` where the column is missing or holds `.` or `?`.
pub(crate) trait AtomRow {
    fn text(&self, item: Item) -> Option<&str>;
    /// # Errors
    /// A value that is no integer.
    fn integer(&self, item: Item) -> Result<Option<i32>, String>;
    /// # Errors
    /// A value that is no number.
    fn real(&self, item: Item) -> Result<Option<f64>, String>;
}

/// Collects an entry row by row.
#[derive(Debug, Default)]
pub(crate) struct CifEntry {
    entry: EntryBuilder,
    model: Option<Option<i32>>,
    /// Names of residues by entity, with the number of the last one: at a position with two names the first counts.
    sequences: HashMap<String, (String, Vec<String>)>,
}

impl CifEntry {
    pub(crate) fn new(take_modified: bool) -> Self {
        Self {
            entry: EntryBuilder::new(take_modified),
            ..Self::default()
        }
    }

    pub(crate) fn has_atoms(&self) -> bool {
        self.entry.has_atoms
    }

    /// Takes a row of `_atom_site`.
    ///
    /// # Errors
    /// A residue without a number, a coordinate that cannot be used.
    pub(crate) fn atom(&mut self, row: &impl AtomRow) -> Result<(), String> {
        let model = row.integer(Item::Model)?;
        if *self.model.get_or_insert(model) != model {
            return Ok(());
        }
        let hetero = row.text(Item::Group) == Some("HETATM");
        let number = row
            .integer(Item::AuthorNumber)?
            .or(row.integer(Item::Number)?);
        let Some(number) = number else {
            // Water and ions may have no number; a residue of a polymer always has one.
            self.entry.has_atoms = true;
            return if hetero {
                Ok(())
            } else {
                Err("an atom has neither auth_seq_id nor label_seq_id".into())
            };
        };
        let either = |a, b| row.text(a).or_else(|| row.text(b)).unwrap_or_default();
        let residue = Residue {
            hetero,
            chain: either(Item::AuthorChain, Item::Chain),
            number,
            insertion: row.text(Item::Insertion).unwrap_or_default(),
            name: either(Item::Residue, Item::AuthorResidue),
            entity: row.text(Item::Entity).unwrap_or_default(),
        };
        self.entry.atom(&residue);
        if is_alpha(
            either(Item::Atom, Item::AuthorAtom),
            row.text(Item::Element),
            residue.name,
        ) && let Some(position) = position(row)?
        {
            self.entry
                .alpha(row.text(Item::Alternate).unwrap_or_default(), position);
        }
        Ok(())
    }

    /// Takes a row of the category `METADATA[category]`, its values in the order of the items there.
    pub(crate) fn metadata(&mut self, category: usize, values: &[Option<&str>]) {
        match (category, values) {
            (0, [Some(method)]) => self.entry.methods.push(method.to_uppercase()),
            (1 | 2, [Some(resolution)]) => {
                let stated = resolution.parse().ok().filter(|r| is_usable(*r));
                self.entry.resolution = self.entry.resolution.or(stated);
            }
            (3, [Some(entity), Some(number), Some(name)]) => {
                let (last, names) = self.sequences.entry((*entity).to_owned()).or_default();
                if last != number {
                    (*number).clone_into(last);
                    names.push((*name).to_owned());
                }
            }
            _ => {}
        }
    }

    /// The entry.
    ///
    /// # Errors
    /// There were no atoms.
    pub(crate) fn finish(mut self) -> Result<Entry, String> {
        if !self.has_atoms() {
            return Err("it holds no _atom_site category with atoms".into());
        }
        self.entry.stated = self
            .sequences
            .iter()
            .map(|(e, (_, names))| (e.clone(), letters(names.iter().map(String::as_str))))
            .collect();
        Ok(self.entry.finish())
    }
}

/// Calcium is `CA` too, but has another element; where no element is given, the residue decides.
fn is_alpha(atom: &str, element: Option<&str>, residue: &str) -> bool {
    atom == "CA"
        && element.map_or_else(
            || one_letter(residue).is_some(),
            |e| e.eq_ignore_ascii_case("C"),
        )
}

/// Coordinates in Å, `None` if one is `.` or `?`.
fn position(row: &impl AtomRow) -> Result<Option<[f64; 3]>, String> {
    let mut position = [0.0; 3];
    for (x, item) in position.iter_mut().zip([Item::X, Item::Y, Item::Z]) {
        let Some(value) = row.real(item)? else {
            return Ok(None);
        };
        if !is_usable(value) {
            return Err(format!(
                "{} holds {value}, which is no coordinate",
                ATOM_ITEMS[item as usize]
            ));
        }
        *x = value;
    }
    Ok(Some(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_numbered_as_they_are_listed() {
        assert_eq!(ATOM_ITEMS[Item::Group as usize], "group_PDB");
        assert_eq!(ATOM_ITEMS[Item::AuthorNumber as usize], "auth_seq_id");
        assert_eq!(ATOM_ITEMS[Item::Z as usize], "Cartn_z");
    }

    #[test]
    fn calcium_is_told_by_its_element_or_its_residue() {
        let cases = [
            (Some("C"), "ALA", true),
            (Some("CA"), "CA", false),
            (Some("Ca"), "ALA", false),
            (None, "GLY", true),
            (None, "CA", false),
        ];
        assert!(
            cases
                .iter()
                .all(|&(element, residue, alpha)| is_alpha("CA", element, residue) == alpha)
        );
        assert!(!is_alpha("CB", Some("C"), "ALA"));
    }
}
