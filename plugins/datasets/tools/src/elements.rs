//! Element symbols and covalent radii.

const SYMBOLS: [&str; 118] = [
    "H", "He", "Li", "Be", "B", "C", "N", "O", "F", "Ne", "Na", "Mg", "Al", "Si", "P", "S", "Cl",
    "Ar", "K", "Ca", "Sc", "Ti", "V", "Cr", "Mn", "Fe", "Co", "Ni", "Cu", "Zn", "Ga", "Ge", "As",
    "Se", "Br", "Kr", "Rb", "Sr", "Y", "Zr", "Nb", "Mo", "Tc", "Ru", "Rh", "Pd", "Ag", "Cd", "In",
    "Sn", "Sb", "Te", "I", "Xe", "Cs", "Ba", "La", "Ce", "Pr", "Nd", "Pm", "Sm", "Eu", "Gd", "Tb",
    "Dy", "Ho", "Er", "Tm", "Yb", "Lu", "Hf", "Ta", "W", "Re", "Os", "Ir", "Pt", "Au", "Hg", "Tl",
    "Pb", "Bi", "Po", "At", "Rn", "Fr", "Ra", "Ac", "Th", "Pa", "U", "Np", "Pu", "Am", "Cm", "Bk",
    "Cf", "Es", "Fm", "Md", "No", "Lr", "Rf", "Db", "Sg", "Bh", "Hs", "Mt", "Ds", "Rg", "Cn", "Nh",
    "Fl", "Mc", "Lv", "Ts", "Og",
];

/// Atomic number of a symbol such as `Cl`; case matters.
#[must_use]
pub fn atomic_number(symbol: &str) -> Option<u8> {
    SYMBOLS
        .iter()
        .position(|s| *s == symbol)
        .map(|i| i as u8 + 1)
}

/// Symbol of an atomic number; `X` for none.
#[must_use]
pub fn symbol(atomic_number: u8) -> &'static str {
    (atomic_number as usize)
        .checked_sub(1)
        .and_then(|i| SYMBOLS.get(i))
        .copied()
        .unwrap_or("X")
}

/// Hill formula: carbon, hydrogen, then the rest by symbol.
#[must_use]
pub fn formula(species: &[u8]) -> String {
    let mut counts = std::collections::BTreeMap::<(u8, &str), usize>::new();
    for &z in species {
        let rank = match z {
            6 => 0,
            1 => 1,
            _ => 2,
        };
        *counts.entry((rank, symbol(z))).or_default() += 1;
    }
    counts
        .into_iter()
        .map(|((_, s), n)| {
            if n == 1 {
                s.to_owned()
            } else {
                format!("{s}{n}")
            }
        })
        .collect()
}

/// Covalent radius in Å (Cordero et al. 2008) of the elements that force-field sets hold; 1.5 for others.
#[must_use]
pub fn covalent_radius(atomic_number: u8) -> f64 {
    match atomic_number {
        1 => 0.31,
        3 => 1.28,
        5 => 0.84,
        6 => 0.76,
        7 => 0.71,
        8 => 0.66,
        9 => 0.57,
        11 => 1.66,
        12 => 1.41,
        14 => 1.11,
        15 => 1.07,
        16 => 1.05,
        17 => 1.02,
        19 => 2.03,
        20 => 1.76,
        34 => 1.20,
        35 => 1.20,
        53 => 1.39,
        _ => 1.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_and_numbers_are_inverse() {
        assert!((1..=118).all(|z| atomic_number(symbol(z)) == Some(z)));
        assert_eq!(
            (symbol(0), symbol(119), atomic_number("cl")),
            ("X", "X", None)
        );
    }

    #[test]
    fn a_formula_is_in_hill_order() {
        assert_eq!(formula(&[8, 1, 6, 1, 17, 1]), "CH3ClO");
        assert_eq!(formula(&[1, 1, 8]), "H2O");
    }
}
