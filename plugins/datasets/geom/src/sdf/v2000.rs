//! The connection table of V2000.

use super::{End, Lines, find, mark_isotope, number};
use crate::conformer::Conformer;
use equivbench_plugin::PluginResult;
use std::io::BufRead;

/// Reads atoms, bonds and properties.
pub(super) fn read(
    lines: &mut Lines<'_, impl BufRead>,
    counts: &[u8],
    conformer: &mut Conformer,
) -> PluginResult<End> {
    let Some([atoms, bonds]) = (!find(counts, b"$$$$"))
        .then(|| integers::<2>(counts, 0))
        .flatten()
    else {
        return Err(lines.unexpected("a counts line (numbers of atoms and bonds)"));
    };
    for _ in 0..atoms {
        lines.expect()?;
        let (z, position) =
            atom(&lines.line).ok_or_else(|| lines.unexpected(&format!("one of {atoms} atoms")))?;
        conformer.numbers.push(z);
        conformer.positions.push(position);
    }
    for _ in 0..bonds {
        lines.expect()?;
        let bond =
            integers::<2>(&lines.line, 0).filter(|b| b.iter().all(|a| (1..=atoms).contains(a)));
        let [a, b] = bond.ok_or_else(|| {
            lines.unexpected(&format!("one of {bonds} bonds between atoms 1 to {atoms}"))
        })?;
        conformer.bonds.push((a as u32 - 1, b as u32 - 1));
    }
    properties(lines, conformer)
}

/// Reads properties up to `M  END`; of those only isotopes matter. Old files go on to `$$$$` without it.
fn properties(lines: &mut Lines<'_, impl BufRead>, conformer: &mut Conformer) -> PluginResult<End> {
    let mut is_first = true;
    loop {
        lines.expect()?;
        match lines.line.as_slice() {
            l if l.starts_with(b"M  END") => return Ok(End::Structure),
            l if l.starts_with(b"$$$$") => return Ok(End::Record),
            l if l.starts_with(b">") => return Ok(End::Structure),
            l if l.starts_with(b"M  ISO") => isotopes(l, &mut conformer.numbers),
            // The text of an alias or an abbreviation is a line of its own, which may look like anything.
            l if l.starts_with(b"A  ") || l.starts_with(b"G  ") => lines.expect()?,
            l if is_first && (atom(l).is_some() || looks_like_bond(l)) => {
                return Err(lines.unexpected(
                    "the end of the structure (its counts line states fewer atoms or bonds)",
                ));
            }
            _ => {}
        }
        is_first = false;
    }
}

/// `xxxxx.xxxxyyyyy.yyyyzzzzz.zzzz aaaddcccssshhhbbbvvvHHHrrriiimmmnnneee`.
fn atom(line: &[u8]) -> Option<(u8, [f64; 3])> {
    let (position, symbol, difference) = by_columns(line).or_else(|| by_words(line))?;
    symbol
        .first()
        .filter(|c| c.is_ascii_alphabetic() || **c == b'*')?;
    let mut z = number(symbol);
    // "dd" is the difference of the mass from the commonest isotope.
    mark_isotope(&mut z, 1 + difference);
    Some((z, position))
}

type Atom<'a> = ([f64; 3], &'a [u8], i64);

fn by_columns(line: &[u8]) -> Option<Atom<'_>> {
    let symbol = line.get(31..line.len().min(34))?.trim_ascii();
    if line.get(30) != Some(&b' ') || symbol.contains(&b' ') {
        return None;
    }
    let mut position = [0.0; 3];
    for (axis, x) in position.iter_mut().enumerate() {
        *x = float(line.get(10 * axis..10 * axis + 10)?.trim_ascii())?;
    }
    let difference = line
        .get(34..36)
        .and_then(|d| std::str::from_utf8(d.trim_ascii()).ok()?.parse().ok());
    Some((position, symbol, difference.unwrap_or(0)))
}

fn by_words(line: &[u8]) -> Option<Atom<'_>> {
    let mut words = line
        .split(u8::is_ascii_whitespace)
        .filter(|w| !w.is_empty());
    let position = [
        float(words.next()?)?,
        float(words.next()?)?,
        float(words.next()?)?,
    ];
    Some((position, words.next()?, 0))
}

fn float(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Fields of three columns from a place on, or words.
fn integers<const N: usize>(line: &[u8], from: usize) -> Option<[usize; N]> {
    let parse = |field: &[u8]| {
        std::str::from_utf8(field.trim_ascii())
            .ok()?
            .parse::<usize>()
            .ok()
    };
    let by_columns = || {
        let mut fields = [0; N];
        for (i, field) in fields.iter_mut().enumerate() {
            *field = parse(line.get(from + 3 * i..from + 3 * i + 3)?)?;
        }
        Some(fields)
    };
    by_columns().or_else(|| {
        let mut words = line
            .get(from..)?
            .split(u8::is_ascii_whitespace)
            .filter(|w| !w.is_empty());
        let mut fields = [0; N];
        for field in &mut fields {
            *field = parse(words.next()?)?;
        }
        Some(fields)
    })
}

fn looks_like_bond(line: &[u8]) -> bool {
    integers::<3>(line, 0).is_some()
}

/// `M  ISO  n aaa vvv ...`: mass numbers of atoms; atoms that are not there are passed over.
fn isotopes(line: &[u8], numbers: &mut [u8]) {
    let words = line
        .get(6..)
        .unwrap_or_default()
        .split(u8::is_ascii_whitespace)
        .filter(|w| !w.is_empty());
    let values: Vec<i64> = words
        .skip(1)
        .map_while(|w| std::str::from_utf8(w).ok()?.parse().ok())
        .collect();
    for &[atom, mass] in values.as_chunks::<2>().0 {
        let place = atom
            .checked_sub(1)
            .and_then(|i| usize::try_from(i).ok())
            .and_then(|i| numbers.get_mut(i));
        if let Some(z) = place {
            mark_isotope(z, mass);
        }
    }
}
