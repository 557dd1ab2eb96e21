//! The connection table of V3000: lines `M  V30 ...`, continued after a hyphen.

use super::{End, Lines, MAX_ATOMS, mark_isotope, number};
use crate::conformer::Conformer;
use equivbench_plugin::PluginResult;
use std::{collections::HashMap, io::BufRead};

/// Reads atoms and bonds up to `M  END`.
pub(super) fn read(
    lines: &mut Lines<'_, impl BufRead>,
    conformer: &mut Conformer,
) -> PluginResult<End> {
    let (mut counts, mut rows, mut block) = (None, HashMap::new(), Block::Other);
    loop {
        lines.expect()?;
        if lines.line.starts_with(b"M  END") {
            break;
        }
        if lines.line.starts_with(b"$$$$") {
            return Err(lines.wrong("the structure ends without \"M  END\""));
        }
        let Some(text) = logical_line(lines)? else {
            continue;
        };
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match (words.as_slice(), block) {
            (["BEGIN", "ATOM", ..], _) => block = Block::Atoms,
            (["BEGIN", "BOND", ..], _) => block = Block::Bonds,
            (["END" | "BEGIN", ..], _) => block = Block::Other,
            (["COUNTS", atoms, bonds, ..], Block::Other) if counts.is_none() => {
                let expected = "COUNTS with numbers of atoms and bonds";
                let parsed = parse_counts(atoms, bonds);
                counts = Some(parsed.ok_or_else(|| lines.unexpected(expected))?);
            }
            (atom, Block::Atoms) => {
                let atom = parse_atom(atom).ok_or_else(|| lines.unexpected("an atom"))?;
                add_atom(atom, conformer, &mut rows).map_err(|what| lines.wrong(&what))?;
            }
            ([_, _, a, b, ..], Block::Bonds) => {
                let row = |word: &str| rows.get(&word.parse::<u64>().ok()?).copied();
                let bond = row(a).zip(row(b));
                conformer
                    .bonds
                    .push(bond.ok_or_else(|| lines.unexpected("a bond between two atoms"))?);
            }
            _ => {}
        }
    }
    let found = (conformer.numbers.len(), conformer.bonds.len());
    match counts {
        Some(counts) if counts == found => Ok(End::Structure),
        Some((atoms, bonds)) => Err(lines.wrong(&format!(
            "COUNTS states {atoms} atoms and {bonds} bonds, there are {} and {}",
            found.0, found.1
        ))),
        None => Err(lines.wrong("the structure has no COUNTS")),
    }
}

fn parse_counts(atoms: &str, bonds: &str) -> Option<(usize, usize)> {
    let counts = (atoms.parse().ok()?, bonds.parse().ok()?);
    (counts.0 <= MAX_ATOMS).then_some(counts)
}

/// Adds an atom; `rows` says at which row the atom with an index lies.
fn add_atom(
    (index, z, position): (u64, u8, [f64; 3]),
    conformer: &mut Conformer,
    rows: &mut HashMap<u64, u32>,
) -> Result<(), String> {
    let row = conformer.numbers.len() as u32;
    if rows.insert(index, row).is_some() || rows.len() > MAX_ATOMS {
        return Err(format!(
            "atom {index} stands there twice, or there are too many"
        ));
    }
    conformer.numbers.push(z);
    conformer.positions.push(position);
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Atoms,
    Bonds,
    Other,
}

/// The text after `M  V30`, with the lines that continue it; `None` for another line.
fn logical_line(lines: &mut Lines<'_, impl BufRead>) -> PluginResult<Option<String>> {
    let Some(text) = content(&lines.line) else {
        return Ok(None);
    };
    let mut text = text.to_owned();
    while text.ends_with('-') {
        text.pop();
        lines.expect()?;
        text += content(&lines.line)
            .ok_or_else(|| lines.unexpected("a line that continues the one before"))?;
    }
    Ok(Some(text))
}

fn content(line: &[u8]) -> Option<&str> {
    std::str::from_utf8(line.strip_prefix(b"M  V30 ")?)
        .ok()
        .map(str::trim_end)
}

/// `index type x y z map [KEY=value ...]`.
fn parse_atom(words: &[&str]) -> Option<(u64, u8, [f64; 3])> {
    let [index, symbol, rest @ ..] = words else {
        return None;
    };
    let at = list_end(symbol, rest);
    let [x, y, z, options @ ..] = rest.get(at..)? else {
        return None;
    };
    let mut element = if at > 0 {
        crate::conformer::UNKNOWN
    } else {
        number(symbol.as_bytes())
    };
    if let Some(mass) = options
        .iter()
        .find_map(|o| o.strip_prefix("MASS=")?.parse().ok())
    {
        mark_isotope(&mut element, mass);
    }
    Some((
        index.parse().ok()?,
        element,
        [x.parse().ok()?, y.parse().ok()?, z.parse().ok()?],
    ))
}

/// An atom list such as `NOT [C,N]` or `"a name"` may have several words: how many follow the first.
fn list_end(symbol: &str, rest: &[&str]) -> usize {
    let (opens, closes) = match symbol {
        s if s.starts_with('"') => (!s[1..].ends_with('"'), '"'),
        s if s.starts_with('[') => (!s.ends_with(']'), ']'),
        s => (s.eq_ignore_ascii_case("not"), ']'),
    };
    if opens {
        rest.iter()
            .position(|w| w.ends_with(closes))
            .map_or(0, |i| i + 1)
    } else {
        0
    }
}
