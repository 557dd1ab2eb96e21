//! Chemical elements that tasks name by symbol.

use crate::CoreError;

/// Symbol and atomic number, in the order of VoxMol's channels.
const ELEMENTS: [(&str, i64); 11] = [
    ("C", 6),
    ("H", 1),
    ("O", 8),
    ("N", 7),
    ("F", 9),
    ("S", 16),
    ("Cl", 17),
    ("Br", 35),
    ("P", 15),
    ("I", 53),
    ("B", 5),
];

/// The first elements in the order of VoxMol's channels; `None` for more than there are.
pub(crate) fn first_elements(count: usize) -> Option<Vec<String>> {
    Some(
        ELEMENTS
            .get(..count)?
            .iter()
            .map(|(symbol, _)| (*symbol).to_owned())
            .collect(),
    )
}

/// Atomic number of a symbol.
///
/// # Errors
/// A symbol that is not listed.
pub(crate) fn atomic_number(symbol: &str) -> Result<i64, CoreError> {
    ELEMENTS
        .iter()
        .find(|(s, _)| *s == symbol)
        .map(|(_, z)| *z)
        .ok_or_else(|| CoreError::Unknown {
            what: "element",
            name: symbol.into(),
            known: ELEMENTS.map(|(s, _)| s).join(", "),
        })
}
