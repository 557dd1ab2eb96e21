//! Names of amino acid residues and their one-letter codes.

/// Names under which the 20 amino acids are known: the standard ones and those that force fields give to protonation states.
const STANDARD: [(&str, u8); 40] = [
    ("ALA", b'A'),
    ("ARG", b'R'),
    ("ASN", b'N'),
    ("ASP", b'D'),
    ("CYS", b'C'),
    ("GLN", b'Q'),
    ("GLU", b'E'),
    ("GLY", b'G'),
    ("HIS", b'H'),
    ("ILE", b'I'),
    ("LEU", b'L'),
    ("LYS", b'K'),
    ("MET", b'M'),
    ("PHE", b'F'),
    ("PRO", b'P'),
    ("SER", b'S'),
    ("THR", b'T'),
    ("TRP", b'W'),
    ("TYR", b'Y'),
    ("VAL", b'V'),
    // Histidine by where its hydrogens sit (Amber, CHARMM, OPLS).
    ("HID", b'H'),
    ("HIE", b'H'),
    ("HIP", b'H'),
    ("HSD", b'H'),
    ("HSE", b'H'),
    ("HSP", b'H'),
    ("HSC", b'H'),
    ("HIN", b'H'),
    // Cysteine in a disulfide bridge or without its hydrogen.
    ("CYX", b'C'),
    ("CYM", b'C'),
    ("CYN", b'C'),
    // Acids with, bases without the extra hydrogen.
    ("ASH", b'D'),
    ("ASX", b'X'),
    ("GLH", b'E'),
    ("GLX", b'X'),
    ("LYN", b'K'),
    ("LSN", b'K'),
    ("ARN", b'R'),
    ("TYM", b'Y'),
    ("UNK", b'X'),
];

/// Modified residues of a peptide chain and the amino acid that they were made from, as the archive assigns it.
const MODIFIED: [(&str, u8); 42] = [
    ("MSE", b'M'),
    ("FME", b'M'),
    ("MHO", b'M'),
    ("SME", b'M'),
    ("SEP", b'S'),
    ("SAC", b'S'),
    ("OAS", b'S'),
    ("TPO", b'T'),
    ("BMT", b'T'),
    ("PTR", b'Y'),
    ("TYS", b'Y'),
    ("TPQ", b'Y'),
    ("CSO", b'C'),
    ("CSD", b'C'),
    ("CSS", b'C'),
    ("CSX", b'C'),
    ("CME", b'C'),
    ("OCS", b'C'),
    ("SMC", b'C'),
    ("YCM", b'C'),
    ("CAS", b'C'),
    ("SCH", b'C'),
    ("SNC", b'C'),
    ("CAF", b'C'),
    ("HYP", b'P'),
    ("MLY", b'K'),
    ("M3L", b'K'),
    ("MLZ", b'K'),
    ("ALY", b'K'),
    ("KCX", b'K'),
    ("LLP", b'K'),
    ("LYR", b'K'),
    ("HIC", b'H'),
    ("NEP", b'H'),
    ("CGU", b'E'),
    ("PCA", b'Q'),
    ("MEN", b'N'),
    ("AIB", b'A'),
    ("NLE", b'L'),
    ("AGM", b'R'),
    ("SEC", b'U'),
    ("PYL", b'O'),
];

/// One-letter code of a residue name, `None` for what is no amino acid here. Selenocysteine, pyrrolysine and unknown residues are `X`.
pub(crate) fn one_letter(name: &str) -> Option<u8> {
    let find = |table: &[(&str, u8)]| {
        table
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, letter)| *letter)
    };
    find(&STANDARD)
        .or_else(|| find(&MODIFIED))
        .map(|letter| if is_standard(letter) { letter } else { b'X' })
}

/// Whether the residue is a modified one: what the option `hetatm = "modified"` adds.
pub(crate) fn is_modified(name: &str) -> bool {
    MODIFIED.iter().any(|(n, _)| *n == name)
}

/// Whether a letter is one of the 20.
pub(crate) const fn is_standard(letter: u8) -> bool {
    matches!(letter, b'A' | b'C'..=b'I' | b'K'..=b'N' | b'P'..=b'T' | b'V' | b'W' | b'Y')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_twenty_standard_letters() {
        assert_eq!(
            (0..=u8::MAX)
                .filter(|&c| is_standard(c))
                .map(char::from)
                .collect::<String>(),
            "ACDEFGHIKLMNPQRSTVWY"
        );
    }

    #[test]
    fn names_have_the_letter_of_their_parent() {
        for (name, letter) in [
            ("HIE", Some(b'H')),
            ("MSE", Some(b'M')),
            ("SEC", Some(b'X')),
            ("UNK", Some(b'X')),
            ("HOH", None),
            ("CA", None),
        ] {
            assert_eq!(one_letter(name), letter, "{name}");
        }
        assert!(is_modified("MSE") && !is_modified("MET"));
    }
}
