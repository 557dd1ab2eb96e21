//! mmCIF: a reader of the tokens of STAR and, of what they say, C-alphas, method, resolution and sequences. It goes line by line and keeps
//! the columns it needs of one row, whatever their order. A reader of its own, because general ones keep every atom, and refuse or fail
//! on files without optional items.
//!
//! The first data block with atoms counts.

use super::{
    cif::{ATOM_ITEMS, AtomRow, CifEntry, Item, METADATA, check_columns},
    lines::Lines,
};
use crate::entry::Entry;
use std::io::BufRead;

/// A text field longer than this is no part of a structure file.
const LONGEST_FIELD: usize = 1 << 24;

/// Reads a file to its end.
///
/// # Errors
/// Damage, with the number of the line; a file without atoms.
pub(crate) fn read(input: &mut dyn BufRead, take_modified: bool) -> Result<Entry, String> {
    let mut reader = Reader::new(take_modified);
    let mut lines = Lines::new(input);
    while let Some(line) = lines.next()? {
        reader
            .line(line)
            .map_err(|e| format!("line {}: {e}", lines.number))?;
    }
    reader
        .finish()
        .map_err(|e| format!("line {}: {e}", lines.number))
}

/// What a token is; values say whether they are `.` or `?`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Data,
    Loop,
    Tag(&'a [u8]),
    Value { text: &'a [u8], null: bool },
}

/// Columns of a category that are wanted: for each column of the file the slot of its value.
#[derive(Debug, Default)]
struct Columns {
    category: Category,
    slots: Vec<Option<usize>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Category {
    #[default]
    Other,
    Atoms,
    Metadata(usize),
}

impl Category {
    fn of(name: &[u8]) -> Self {
        if name.eq_ignore_ascii_case(b"atom_site") {
            return Self::Atoms;
        }
        METADATA
            .iter()
            .position(|(n, _)| name.eq_ignore_ascii_case(n.as_bytes()))
            .map_or(Self::Other, Self::Metadata)
    }

    fn items(self) -> &'static [&'static str] {
        match self {
            Self::Other => &[],
            Self::Atoms => &ATOM_ITEMS,
            Self::Metadata(i) => METADATA[i].1,
        }
    }
}

enum State {
    /// Between categories.
    Idle,
    /// After `loop_`: tags are collected.
    Header,
    /// Values of a loop; `next` is the column of the next one.
    Rows { next: usize },
    /// After a tag outside of a loop.
    Item { slot: Option<usize> },
}

/// Values of the wanted columns of one row.
#[derive(Debug, Default)]
struct Row {
    values: Vec<Option<String>>,
    spare: Vec<String>,
}

impl Row {
    fn clear(&mut self, width: usize) {
        self.spare.extend(self.values.drain(..).flatten());
        self.values.resize(width, None);
    }

    fn set(&mut self, slot: usize, text: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(text).map_err(|_| "a value is no text")?;
        let mut value = self.spare.pop().unwrap_or_default();
        value.clear();
        value.push_str(text);
        if let Some(place) = self.values.get_mut(slot) {
            *place = Some(value);
        }
        Ok(())
    }

    fn number<T: std::str::FromStr>(&self, item: Item, kind: &str) -> Result<Option<T>, String> {
        let parse = |text: &str| {
            text.parse().map_err(|_| {
                format!(
                    "{} holds \"{text}\", which is no {kind}",
                    ATOM_ITEMS[item as usize]
                )
            })
        };
        self.text(item).map(parse).transpose()
    }
}

impl AtomRow for Row {
    fn text(&self, item: Item) -> Option<&str> {
        self.values.get(item as usize)?.as_deref()
    }

    fn integer(&self, item: Item) -> Result<Option<i32>, String> {
        self.number(item, "integer")
    }

    /// A standard uncertainty in brackets, `1.234(5)`, is cut off.
    fn real(&self, item: Item) -> Result<Option<f64>, String> {
        match self.text(item).and_then(|t| t.split_once('(')) {
            Some((value, _)) => value
                .parse()
                .map(Some)
                .map_err(|_| format!("{} holds no number", ATOM_ITEMS[item as usize])),
            None => self.number(item, "number"),
        }
    }
}

struct Reader {
    cif: CifEntry,
    state: State,
    columns: Columns,
    row: Row,
    /// A text field that is not closed yet.
    field: Option<Vec<u8>>,
    /// The block with the atoms is over.
    done: bool,
    take_modified: bool,
}

impl Reader {
    fn new(take_modified: bool) -> Self {
        Self {
            cif: CifEntry::new(take_modified),
            state: State::Idle,
            columns: Columns::default(),
            row: Row::default(),
            field: None,
            done: false,
            take_modified,
        }
    }

    fn line(&mut self, line: &[u8]) -> Result<(), String> {
        if self.done {
            return Ok(());
        }
        if let Some(field) = &mut self.field {
            if line.first() != Some(&b';') {
                field.extend_from_slice(line);
                field.push(b'\n');
                return if field.len() > LONGEST_FIELD {
                    Err("a text field does not end".into())
                } else {
                    Ok(())
                };
            }
            let text = std::mem::take(field);
            self.field = None;
            self.token(Token::Value {
                text: text.strip_suffix(b"\n").unwrap_or(&text),
                null: false,
            })?;
            return self.tokens(line.get(1..).unwrap_or_default());
        }
        match line.split_first() {
            Some((b';', rest)) => {
                self.field = Some([rest, b"\n"].concat());
                Ok(())
            }
            _ => self.tokens(line),
        }
    }

    fn tokens(&mut self, mut line: &[u8]) -> Result<(), String> {
        while let Some((token, rest)) = next_token(line)? {
            self.token(token)?;
            line = rest;
        }
        Ok(())
    }

    fn token(&mut self, token: Token<'_>) -> Result<(), String> {
        match token {
            Token::Data => {
                self.end_category()?;
                self.done = self.cif.has_atoms();
                if !self.done {
                    self.cif = CifEntry::new(self.take_modified);
                }
            }
            Token::Loop => {
                self.end_category()?;
                self.state = State::Header;
            }
            Token::Tag(tag) => self.tag(tag)?,
            Token::Value { text, null } => self.value(text, null)?,
        }
        Ok(())
    }

    fn tag(&mut self, tag: &[u8]) -> Result<(), String> {
        let dot = tag.iter().position(|&c| c == b'.').unwrap_or(tag.len());
        let (category, item) = (
            Category::of(&tag[1..dot]),
            tag.get(dot + 1..).unwrap_or_default(),
        );
        let slot = category
            .items()
            .iter()
            .position(|i| item.eq_ignore_ascii_case(i.as_bytes()));
        if category == Category::Atoms
            && self.cif.has_atoms()
            && !matches!(self.state, State::Rows { .. })
        {
            return Err("_atom_site occurs twice in one data block".into());
        }
        if let State::Header = self.state {
            self.columns.category = category;
            self.columns.slots.push(slot);
            return Ok(());
        }
        if matches!(self.state, State::Rows { .. }) || category != self.columns.category {
            self.end_category()?;
            self.columns.category = category;
            self.row.clear(category.items().len());
        }
        self.state = State::Item { slot };
        Ok(())
    }

    fn value(&mut self, text: &[u8], null: bool) -> Result<(), String> {
        let width = self.columns.slots.len();
        let (slot, next) = match self.state {
            State::Idle => return Err("a value without a tag".into()),
            State::Header if width == 0 => return Err("a loop without columns".into()),
            State::Item { slot } => (slot, None),
            State::Header => (self.columns.slots[0], Some(1)),
            State::Rows { next } => (self.columns.slots[next], Some(next + 1)),
        };
        if matches!(self.state, State::Header) && self.columns.category == Category::Atoms {
            check_columns(|item| self.columns.slots.contains(&Some(item)))?;
        }
        if next == Some(1) && self.columns.category != Category::Other {
            self.row.clear(self.columns.category.items().len());
        }
        if let Some(slot) = slot.filter(|_| !null) {
            self.row.set(slot, text)?;
        }
        match next {
            None => {
                self.state = State::Item { slot: None };
                return Ok(());
            }
            Some(next) => self.state = State::Rows { next: next % width },
        }
        if next == Some(width) {
            self.end_row()
        } else {
            Ok(())
        }
    }

    fn end_row(&mut self) -> Result<(), String> {
        match self.columns.category {
            Category::Other => Ok(()),
            Category::Atoms => self.cif.atom(&self.row),
            Category::Metadata(category) => {
                let values: Vec<Option<&str>> =
                    self.row.values.iter().map(Option::as_deref).collect();
                self.cif.metadata(category, &values);
                Ok(())
            }
        }
    }

    /// Ends a loop, or the items of a category outside of one, which make a single row.
    fn end_category(&mut self) -> Result<(), String> {
        match self.state {
            State::Rows { next } if next > 0 && self.columns.category != Category::Other => {
                return Err(format!(
                    "the loop of _{} ends in the middle of a row",
                    self.name()
                ));
            }
            State::Item { .. } => self.end_row()?,
            _ => {}
        }
        (self.state, self.columns) = (State::Idle, Columns::default());
        Ok(())
    }

    fn name(&self) -> &'static str {
        match self.columns.category {
            Category::Metadata(i) => METADATA[i].0,
            _ => "atom_site",
        }
    }

    fn finish(mut self) -> Result<Entry, String> {
        if self.field.is_some() {
            return Err("a text field does not end".into());
        }
        self.end_category()?;
        self.cif.finish()
    }
}

/// The first token of a line and what follows it; `None` at its end or before a comment.
fn next_token(line: &[u8]) -> Result<Option<(Token<'_>, &[u8])>, String> {
    let line = line.trim_ascii_start();
    let Some(&first) = line.first() else {
        return Ok(None);
    };
    match first {
        b'#' => Ok(None),
        b'\'' | b'"' => {
            // A quote inside of the text is one that no blank follows.
            let closes =
                |i: usize| line[i] == first && line.get(i + 1).is_none_or(u8::is_ascii_whitespace);
            let end = (1..line.len())
                .find(|&i| closes(i))
                .ok_or("a quoted value does not end on its line")?;
            Ok(Some((
                Token::Value {
                    text: &line[1..end],
                    null: false,
                },
                &line[end + 1..],
            )))
        }
        _ => {
            let end = line
                .iter()
                .position(u8::is_ascii_whitespace)
                .unwrap_or(line.len());
            let (word, rest) = line.split_at(end);
            Ok(Some((keyword(word), rest)))
        }
    }
}

fn keyword(word: &[u8]) -> Token<'_> {
    let begins = |with: &[u8]| {
        word.get(..with.len())
            .is_some_and(|w| w.eq_ignore_ascii_case(with))
    };
    match word {
        [b'_', ..] => Token::Tag(word),
        [b'.' | b'?'] => Token::Value {
            text: word,
            null: true,
        },
        _ if begins(b"data_") => Token::Data,
        _ if word.eq_ignore_ascii_case(b"loop_") => Token::Loop,
        _ => Token::Value {
            text: word,
            null: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOP: &str = "\
loop_
_atom_site.Cartn_z
_atom_site.group_PDB
_atom_site.label_atom_id
_atom_site.label_comp_id
_atom_site.type_symbol
_atom_site.auth_asym_id
_atom_site.auth_seq_id
_atom_site.label_entity_id
_atom_site.Cartn_x
_atom_site.Cartn_y
";
    const ROWS: &str = "\
3.0 ATOM CA ALA C AAA -1 1 1.5 2.25
3.5 ATOM \"C'A\" ALA C AAA -1 1 1.5 2.25
9.0 ATOM CA GLY C AAA 0 1 ? .
3.25
ATOM 'CA' GLY C
AAA 1 1 4.75 2.125(3)
1.0 HETATM CA CA CA AAA 301 2 1 1
1.0 HETATM O HOH O AAA . 3 1 1
";

    fn parse(text: &str) -> Result<Entry, String> {
        read(&mut text.as_bytes(), false)
    }

    fn block(before: &str) -> String {
        format!("data_X\n{before}{LOOP}{ROWS}# the end\n")
    }

    #[test]
    fn rows_of_any_order_and_over_any_lines_become_a_trace() {
        let entry = parse(&block("")).unwrap();
        let chain = &entry.chains[0];
        assert_eq!(
            (
                chain.name.as_str(),
                chain.sequence.as_str(),
                chain.numbers.clone()
            ),
            ("AAA", "AG", vec![-1, 1])
        );
        assert_eq!(chain.positions, [[1.5, 2.25, 3.0], [4.75, 2.125, 3.25]]);
        // The residue whose coordinates are `?`.
        assert_eq!(entry.tally.without_alpha, 1);
        assert_eq!(
            (chain.stated.clone(), entry.resolution, entry.methods.len()),
            (None, None, 0)
        );
    }

    #[test]
    fn metadata_are_read_from_items_loops_and_text_fields() {
        let text = block(
            "_exptl.entry_id X\n_exptl.method\n;x-ray diffraction\n;\n_refine.ls_d_res_high 1.9\n_refine.title 'it's _exptl.method'\n\
             loop_\n_entity_poly_seq.entity_id\n_entity_poly_seq.num\n_entity_poly_seq.mon_id\n1 1 ALA 1 1 SER\n1 2 GLY 1 3 MSE 1 4 ABC 2 1 HOH\n",
        );
        let entry = parse(&text).unwrap();
        assert_eq!(
            (entry.methods, entry.resolution),
            (vec!["X-RAY DIFFRACTION".to_owned()], Some(1.9))
        );
        assert_eq!(entry.chains[0].stated.as_deref(), Some("AGMX"));
    }

    #[test]
    fn a_single_atom_outside_of_a_loop_is_a_chain() {
        let values = ["3.0", "ATOM", "CA", "ALA", "C", "A", "7", "1", "1.0", "2.0"];
        let items: Vec<String> = LOOP
            .lines()
            .skip(1)
            .zip(values)
            .map(|(tag, v)| format!("{tag} {v}"))
            .collect();
        let entry = parse(&format!("data_X\n{}\n_cell.length_a 1\n", items.join("\n"))).unwrap();
        assert_eq!(
            (
                entry.chains[0].numbers.clone(),
                entry.chains[0].positions[0]
            ),
            (vec![7], [1.0, 2.0, 3.0])
        );
    }

    #[test]
    fn only_the_first_model_and_the_first_block_with_atoms_count() {
        let two = LOOP.to_owned()
            + "_atom_site.pdbx_PDB_model_num\n3 ATOM CA ALA C A 1 1 1 2 5\n3 ATOM CA ALA C A 2 1 1 2 6\n";
        assert_eq!(
            parse(&format!("data_X\n{two}")).unwrap().chains[0].numbers,
            [1]
        );
        let blocks = format!(
            "data_empty\n_exptl.method NMR\n{}{}",
            block("_exptl.method EM\n"),
            block("")
        );
        let entry = parse(&blocks).unwrap();
        assert_eq!(
            (entry.methods, entry.chains[0].numbers.len()),
            (vec!["EM".to_owned()], 2)
        );
    }

    #[test]
    fn atoms_without_coordinates_and_a_second_table_of_atoms_are_refused() {
        let table = "loop_\n_atom_site.label_atom_id\n_atom_site.label_seq_id\n_atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\nCA 4 1 2 3\n";
        let flat = format!(
            "data_X\n{}",
            table
                .replace("_atom_site.Cartn_z\n", "")
                .replace(" 3\n", "\n")
        );
        assert_eq!(
            parse(&flat).unwrap_err(),
            "line 7: _atom_site has no column Cartn_z"
        );
        assert_eq!(
            parse(&format!("data_X\n{table}{table}")).unwrap_err(),
            "line 10: _atom_site occurs twice in one data block"
        );
    }

    #[test]
    fn missing_columns_have_stand_ins() {
        let text = "data_X\nloop_\n_atom_site.label_atom_id\n_atom_site.label_comp_id\n_atom_site.label_asym_id\n_atom_site.label_seq_id\n\
                    _atom_site.Cartn_x\n_atom_site.Cartn_y\n_atom_site.Cartn_z\nCA ALA B 5 1 2 3\nCA CA B 6 1 2 3\n";
        let entry = parse(text).unwrap();
        assert_eq!(
            (
                entry.chains[0].name.as_str(),
                entry.chains[0].numbers.clone()
            ),
            ("B", vec![5])
        );
    }

    #[test]
    fn damage_is_refused_with_the_line() {
        let broken = |from: &str, to: &str| parse(&block("").replacen(from, to, 1)).unwrap_err();
        assert_eq!(
            broken("2.25", "nan"),
            "line 13: Cartn_y holds NaN, which is no coordinate"
        );
        assert_eq!(
            broken("2.25", "2.x"),
            "line 13: Cartn_y holds \"2.x\", which is no number"
        );
        assert_eq!(
            broken("AAA -1", "AAA one"),
            "line 13: auth_seq_id holds \"one\", which is no integer"
        );
        assert_eq!(
            broken("AAA -1", "AAA ?"),
            "line 13: an atom has neither auth_seq_id nor label_seq_id"
        );
        assert_eq!(
            broken("\"C'A\"", "\"C'A"),
            "line 14: a quoted value does not end on its line"
        );
        assert_eq!(
            broken("1.0 HETATM O HOH O AAA . 3 1 1", "1.0"),
            "line 21: the loop of _atom_site ends in the middle of a row"
        );
        assert_eq!(
            broken("# the end", ";the end"),
            "line 21: a text field does not end"
        );
        assert_eq!(
            parse("data_X\n1\n").unwrap_err(),
            "line 2: a value without a tag"
        );
        assert_eq!(
            parse("data_X\nloop_ 1\n").unwrap_err(),
            "line 2: a loop without columns"
        );
        assert_eq!(
            parse("data_X\n").unwrap_err(),
            "line 1: it holds no _atom_site category with atoms"
        );
    }
}
