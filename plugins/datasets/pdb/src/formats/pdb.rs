//! PDB files: fixed columns. A reader of its own because general ones refuse or fail on files with odd headers, and because all that
//! is needed are C-alphas, the method, the resolution and SEQRES.
//!
//! Columns (from 1): atom name 13-16, alternate location 17, residue 18-20, chain 22, number 23-26, insertion 27, x y z 31-54,
//! element 77-78, which is often empty and holds digits or a segment in some files.

use super::lines::Lines;
use crate::{
    entry::{Entry, EntryBuilder, Residue, is_usable, letters},
    residues::one_letter,
};
use std::{collections::HashMap, io::BufRead};

/// Reads a file to its end.
///
/// # Errors
/// A line that cannot be read, with its number; a file without atoms.
pub(crate) fn read(input: &mut dyn BufRead, take_modified: bool) -> Result<Entry, String> {
    let mut reader = Reader {
        entry: EntryBuilder::new(take_modified),
        sequences: HashMap::new(),
        models: 0,
        first_model_ended: false,
    };
    let mut lines = Lines::new(input);
    while let Some(line) = lines.next()? {
        reader
            .line(line)
            .map_err(|e| format!("line {}: {e}", lines.number))?;
    }
    reader.finish()
}

struct Reader {
    entry: EntryBuilder,
    /// Residue names of SEQRES by chain.
    sequences: HashMap<String, Vec<String>>,
    models: u64,
    first_model_ended: bool,
}

impl Reader {
    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        match line.get(..6).unwrap_or(line).trim_ascii_end() {
            b"ATOM" | b"HETATM" if !self.first_model_ended => self.atom(line),
            b"MODEL" => {
                self.models += 1;
                self.first_model_ended |= self.models > 1;
                Ok(())
            }
            b"ENDMDL" => {
                self.first_model_ended = true;
                Ok(())
            }
            b"EXPDTA" => {
                let text = text(line, 11, 79)?.to_uppercase();
                self.entry.methods.extend(
                    text.split(';')
                        .map(str::trim)
                        .filter(|m| !m.is_empty())
                        .map(ToOwned::to_owned),
                );
                Ok(())
            }
            b"REMARK" => {
                self.remark(line);
                Ok(())
            }
            b"SEQRES" => self.sequence(line),
            _ => Ok(()),
        }
    }

    /// `REMARK   2 RESOLUTION.    1.90 ANGSTROMS.`
    fn remark(&mut self, line: &[u8]) {
        let Ok(text) = std::str::from_utf8(line) else {
            return;
        };
        let mut words = text.split_ascii_whitespace().skip(1);
        if words.next() == Some("2") && words.next() == Some("RESOLUTION.") {
            let stated = words
                .next()
                .and_then(|w| w.parse().ok())
                .filter(|r| is_usable(*r));
            self.entry.resolution = self.entry.resolution.or(stated);
        }
    }

    fn sequence(&mut self, line: &[u8]) -> Result<(), String> {
        let names = text(line, 20, 70)?
            .split_ascii_whitespace()
            .map(ToOwned::to_owned);
        self.sequences
            .entry(text(line, 12, 12)?.to_owned())
            .or_default()
            .extend(names);
        Ok(())
    }

    fn atom(&mut self, line: &[u8]) -> Result<(), String> {
        let (chain, name) = (text(line, 22, 22)?, text(line, 18, 20)?);
        let residue = Residue {
            hetero: line.starts_with(b"H"),
            chain,
            number: number(line)?,
            insertion: text(line, 27, 27)?,
            name,
            entity: chain,
        };
        self.entry.atom(&residue);
        if is_alpha(line)? {
            self.entry.alpha(text(line, 17, 17)?, position(line)?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Entry, String> {
        if !self.entry.has_atoms {
            return Err("it holds no ATOM or HETATM records".into());
        }
        self.entry.stated = self
            .sequences
            .iter()
            .map(|(chain, names)| (chain.clone(), letters(names.iter().map(String::as_str))))
            .collect();
        Ok(self.entry.finish())
    }
}

/// Text of columns `first` to `last`, counted from 1, without blanks around it; empty beyond the end of the line.
fn text(line: &[u8], first: usize, last: usize) -> Result<&str, String> {
    let bytes = line
        .get(first - 1..last.min(line.len()))
        .unwrap_or_default();
    std::str::from_utf8(bytes.trim_ascii())
        .map_err(|_| format!("columns {first} to {last} are no text"))
}

/// Whether the atom is a C-alpha. Calcium is `CA` too, but its name starts in column 13, and it is no part of an amino acid.
fn is_alpha(line: &[u8]) -> Result<bool, String> {
    if text(line, 13, 16)? != "CA" {
        return Ok(false);
    }
    let element = text(line, 77, 78)?;
    let amino_acid = one_letter(text(line, 18, 20)?).is_some();
    Ok(line.get(12) == Some(&b' ')
        || element.eq_ignore_ascii_case("C")
        || amino_acid && !element.eq_ignore_ascii_case("CA"))
}

fn position(line: &[u8]) -> Result<[f64; 3], String> {
    let mut position = [0.0; 3];
    for (axis, x) in position.iter_mut().enumerate() {
        let (first, last) = (31 + 8 * axis, 38 + 8 * axis);
        let word = text(line, first, last)?;
        let value: Option<f64> = word.parse().ok();
        *x = value.filter(|v| is_usable(*v)).ok_or_else(|| {
            format!("columns {first} to {last} hold \"{word}\", which is no coordinate")
        })?;
    }
    Ok(position)
}

fn number(line: &[u8]) -> Result<i32, String> {
    let word = text(line, 23, 26)?;
    word.parse()
        .ok()
        .or_else(|| hybrid_36(word))
        .ok_or_else(|| format!("columns 23 to 26 hold \"{word}\", which is no residue number"))
}

/// Numbers above 9999 in four columns: `A000` is 10000, `ZZZZ` is followed by `a000`.
fn hybrid_36(word: &str) -> Option<i32> {
    let first = word.bytes().next()?;
    let uniform = |c: u8| {
        c.is_ascii_digit()
            || c.is_ascii_alphabetic() && c.is_ascii_uppercase() == first.is_ascii_uppercase()
    };
    if word.len() != 4 || !first.is_ascii_alphabetic() || !word.bytes().all(uniform) {
        return None;
    }
    // "A000" in base 36 becomes 10000; the lower-case range follows the 26 * 36^3 upper-case numbers.
    let start = if first.is_ascii_uppercase() {
        10_000
    } else {
        10_000 + 26 * 36 * 36 * 36
    };
    Some(i32::from_str_radix(word, 36).ok()? - 10 * 36 * 36 * 36 + start)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "EXPDTA    X-RAY DIFFRACTION; NEUTRON DIFFRACTION\nREMARK   2\nREMARK   2 RESOLUTION.    1.90 ANGSTROMS.\nSEQRES   1 A    3  ALA GLY MSE\n";
    const BODY: &str = "\
ATOM      2  CA  ALA A   1      11.111  -2.000   3.125  1.00  0.00           C
HETATM    3 CA    CA A 301       1.000   2.000   3.000  1.00  0.00          CA
ATOM      4  CA  GLY A   2A     14.000  -2.000   3.125  1.00  0.00
";

    fn parse(text: &str) -> Result<Entry, String> {
        read(&mut text.as_bytes(), false)
    }

    #[test]
    fn columns_become_a_trace_and_calcium_does_not() {
        let entry = parse(&format!("{HEAD}{BODY}")).unwrap();
        let chain = &entry.chains[0];
        assert_eq!(
            (
                chain.name.as_str(),
                chain.sequence.as_str(),
                chain.numbers.clone()
            ),
            ("A", "AG", vec![1, 2])
        );
        assert_eq!(
            chain.positions,
            [[11.111, -2.0, 3.125], [14.0, -2.0, 3.125]]
        );
        assert_eq!(
            (chain.stated.as_deref(), entry.resolution),
            (Some("AGM"), Some(1.9))
        );
        assert_eq!(entry.methods, ["X-RAY DIFFRACTION", "NEUTRON DIFFRACTION"]);
    }

    #[test]
    fn an_odd_element_column_does_not_hide_a_c_alpha() {
        let odd = BODY
            .replace("  0.00           C\n", "  0.00      A   12\n")
            .replace("CA  GLY", "CA  HIE");
        assert_eq!(parse(&odd).unwrap().chains[0].sequence, "AH");
        // A name that starts in column 13 needs an element or a residue that is none of calcium's.
        let left = |element: &str| {
            BODY.replace("  CA  ALA", " CA   ALA")
                .replace("           C\n", element)
        };
        assert_eq!(
            ["           C\n", "\n", "          CA\n"]
                .map(|e| parse(&left(e)).unwrap().chains[0].sequence.clone()),
            ["AG", "AG", "G"]
        );
    }

    #[test]
    fn later_models_are_passed_over() {
        for text in [
            format!("MODEL        1\n{BODY}ENDMDL\nMODEL        2\n{BODY}ENDMDL\n"),
            format!("MODEL        1\n{BODY}MODEL        2\n{BODY}"),
            format!("{BODY}ENDMDL\n{BODY}"),
        ] {
            assert_eq!(parse(&text).unwrap().chains[0].positions.len(), 2);
        }
    }

    #[test]
    fn bad_lines_are_refused_with_their_number() {
        let refused = |from: &str, to: &str| parse(&BODY.replacen(from, to, 1)).unwrap_err();
        assert_eq!(
            refused("11.111", "   nan"),
            "line 1: columns 31 to 38 hold \"nan\", which is no coordinate"
        );
        assert_eq!(
            refused("-2.000", "****.*"),
            "line 1: columns 39 to 46 hold \"****.*\", which is no coordinate"
        );
        assert_eq!(
            refused("A   2A", "A   xA"),
            "line 3: columns 23 to 26 hold \"x\", which is no residue number"
        );
        assert_eq!(
            parse(&BODY[..41]).unwrap_err(),
            "line 1: columns 39 to 46 hold \"-\", which is no coordinate"
        );
        assert_eq!(
            parse("REMARK\n").unwrap_err(),
            "it holds no ATOM or HETATM records"
        );
        assert!(parse("ATOM\n").unwrap_err().starts_with("line 1"));
    }

    #[test]
    fn numbers_beyond_four_digits_are_read() {
        assert_eq!(
            ["A000", "A001", "ZZZZ", "a000"].map(hybrid_36),
            [Some(10_000), Some(10_001), Some(1_223_055), Some(1_223_056)]
        );
        assert_eq!(["Aa00", "A00", "", "0000"].map(hybrid_36), [None; 4]);
    }
}
