//! BinaryCIF: columns of mmCIF in a MessagePack map, each packed by a chain of encodings that is undone from its last link.
//!
//! `dataBlocks[] → categories[] {name, rowCount, columns[]} → {name, data {data, encoding[]}, mask}`. Encodings: ByteArray, FixedPoint,
//! IntervalQuantization, RunLength, Delta, IntegerPacking, StringArray. A mask holds 0 for a value, 1 for `.`, 2 for `?`.
//! No kept reader of the format exists in Rust. Every length is checked against the number of rows before memory is taken, because a
//! few bytes of a damaged file can promise millions of values.

use super::cif::{ATOM_ITEMS, AtomRow, CifEntry, Item, METADATA, check_columns};
use crate::entry::Entry;
use rmpv::{
    ValueRef,
    decode::{read_value_ref_with_max_depth, value_ref::BorrowRead},
};
use std::io::{BufRead, Read};

/// Bytes of a file. The largest entries of the archive have about 60 MB.
const MOST_BYTES: u64 = 1 << 28;
/// Rows of a category. The largest entries have about 5 million atoms.
const MOST_ROWS: usize = 20_000_000;
/// Values of the MessagePack document; arrays of numbers are one value each. Real files have about 20,000.
const MOST_VALUES: u64 = 2_000_000;
/// Nesting of the MessagePack document; the format has 12 levels.
const DEEPEST: usize = 48;

type Map<'a> = [(ValueRef<'a>, ValueRef<'a>)];

/// Reads a file to its end. The first data block with atoms counts.
///
/// # Errors
/// Damage; a file without atoms.
pub(crate) fn read(input: &mut dyn BufRead, take_modified: bool) -> Result<Entry, String> {
    let mut bytes = Vec::new();
    let read = input
        .take(MOST_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| super::unreadable(&e))?;
    if read as u64 == MOST_BYTES {
        return Err("it is too long for a BinaryCIF file".into());
    }
    let mut source = Budget {
        rest: &bytes,
        values: MOST_VALUES,
    };
    let document = read_value_ref_with_max_depth(&mut source, DEEPEST)
        .map_err(|e| format!("it is no MessagePack document ({e})"))?;
    for block in array(get(map(&document)?, "dataBlocks")?)? {
        let categories = array(get(map(block)?, "categories")?)?;
        if find(categories, "atom_site")?.is_some_and(|c| rows(c).is_ok_and(|n| n > 0)) {
            return entry(categories, take_modified);
        }
    }
    Err("it holds no _atom_site category with atoms".into())
}

/// Bytes that end after a number of values, so that a document cannot grow far beyond its bytes.
struct Budget<'a> {
    rest: &'a [u8],
    values: u64,
}

impl Read for Budget<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.values = self
            .values
            .checked_sub(1)
            .ok_or_else(|| std::io::Error::other("it has too many values"))?;
        self.rest.read(to)
    }
}

impl<'a> BorrowRead<'a> for Budget<'a> {
    fn fill_buf(&self) -> &'a [u8] {
        self.rest
    }

    fn consume(&mut self, length: usize) {
        self.rest = self.rest.get(length..).unwrap_or_default();
    }
}

fn entry(categories: &[ValueRef<'_>], take_modified: bool) -> Result<Entry, String> {
    let mut cif = CifEntry::new(take_modified);
    for (number, (name, items)) in METADATA.into_iter().enumerate() {
        let Some(category) = find(categories, name)? else {
            continue;
        };
        let table = WantedColumns::new(category, name, items)?;
        for row in 0..table.rows {
            let texts: Vec<Option<String>> = table
                .columns
                .iter()
                .map(|c| c.as_ref().and_then(|c| c.as_text(row)))
                .collect();
            cif.metadata(
                number,
                &texts.iter().map(Option::as_deref).collect::<Vec<_>>(),
            );
        }
    }
    if let Some(category) = find(categories, "atom_site")? {
        let table = WantedColumns::new(category, "atom_site", &ATOM_ITEMS)?;
        check_columns(|item| table.columns.get(item).is_some_and(Option::is_some))?;
        for row in 0..table.rows {
            cif.atom(&WantedRow { table: &table, row })
                .map_err(|e| format!("row {} of _atom_site: {e}", row + 1))?;
        }
    }
    cif.finish()
}

/// The wanted columns of a category.
struct WantedColumns<'a> {
    rows: usize,
    columns: Vec<Option<Column<'a>>>,
}

impl<'a> WantedColumns<'a> {
    fn new(category: &'a ValueRef<'a>, name: &str, items: &[&str]) -> Result<Self, String> {
        let rows = rows(category)?;
        let columns = array(get(map(category)?, "columns")?)?;
        let column = |item: &&str| {
            let Some(found) = find(columns, item)? else {
                return Ok(None);
            };
            Column::new(map(found)?, rows)
                .map(Some)
                .map_err(|e| format!("column _{name}.{item}: {e}"))
        };
        Ok(Self {
            rows,
            columns: items.iter().map(column).collect::<Result<_, String>>()?,
        })
    }
}

struct WantedRow<'a> {
    table: &'a WantedColumns<'a>,
    row: usize,
}

impl WantedRow<'_> {
    fn column(&self, item: Item) -> Option<&Column<'_>> {
        self.table
            .columns
            .get(item as usize)?
            .as_ref()
            .filter(|c| !c.is_masked(self.row))
    }
}

impl AtomRow for WantedRow<'_> {
    fn text(&self, item: Item) -> Option<&str> {
        match &self.column(item)?.values {
            Values::Texts(places, texts) => text_at(places, texts, self.row),
            Values::Integers(_) | Values::Reals(_) => None,
        }
    }

    fn integer(&self, item: Item) -> Result<Option<i32>, String> {
        let Some(column) = self.column(item) else {
            return Ok(None);
        };
        match &column.values {
            Values::Integers(values) => Ok(values.get(self.row).copied()),
            Values::Texts(..) => column
                .as_text(self.row)
                .map(|t| t.parse().map_err(|_| no_number(item, &t)))
                .transpose(),
            Values::Reals(_) => Err(no_number(item, "a real number")),
        }
    }

    fn real(&self, item: Item) -> Result<Option<f64>, String> {
        let Some(column) = self.column(item) else {
            return Ok(None);
        };
        match &column.values {
            Values::Reals(values) => Ok(values.get(self.row).copied()),
            Values::Integers(values) => Ok(values.get(self.row).copied().map(f64::from)),
            Values::Texts(..) => column
                .as_text(self.row)
                .map(|t| t.parse().map_err(|_| no_number(item, &t)))
                .transpose(),
        }
    }
}

fn no_number(item: Item, found: &str) -> String {
    format!(
        "{} holds \"{found}\", which is no number",
        ATOM_ITEMS[item as usize]
    )
}

/// A decoded column.
struct Column<'a> {
    values: Values<'a>,
    mask: Option<Vec<i32>>,
}

/// Values in the course of decoding.
enum Values<'a> {
    Integers(Vec<i32>),
    Reals(Vec<f64>),
    /// Places in a list of texts; -1 is none.
    Texts(Vec<i32>, Vec<&'a str>),
}

impl<'a> Column<'a> {
    fn new(column: &'a Map<'a>, rows: usize) -> Result<Self, String> {
        let values = decode(map(get(column, "data")?)?, rows)?;
        let mask = match get(column, "mask") {
            Ok(ValueRef::Nil) | Err(_) => None,
            Ok(mask) => Some(decode(map(mask)?, rows)?.integers()?),
        };
        if values.len() != rows || mask.as_ref().is_some_and(|m| m.len() != rows) {
            return Err(format!("{} values for {rows} rows", values.len()));
        }
        Ok(Self { values, mask })
    }

    fn is_masked(&self, row: usize) -> bool {
        self.mask.as_ref().is_some_and(|m| m.get(row) != Some(&0))
    }

    fn as_text(&self, row: usize) -> Option<String> {
        if self.is_masked(row) {
            return None;
        }
        match &self.values {
            Values::Integers(values) => values.get(row).map(ToString::to_string),
            Values::Reals(values) => values.get(row).map(ToString::to_string),
            Values::Texts(places, texts) => text_at(places, texts, row).map(ToOwned::to_owned),
        }
    }
}

/// An empty text is what mmCIF writes as `.`.
fn text_at<'a>(places: &[i32], texts: &[&'a str], row: usize) -> Option<&'a str> {
    let place = usize::try_from(*places.get(row)?).ok()?;
    texts.get(place).copied().filter(|t| !t.is_empty())
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Integers(v) | Self::Texts(v, _) => v.len(),
            Self::Reals(v) => v.len(),
        }
    }

    fn integers(self) -> Result<Vec<i32>, String> {
        match self {
            Self::Integers(values) => Ok(values),
            Self::Reals(_) | Self::Texts(..) => Err("integers were expected".into()),
        }
    }
}

/// Undoes the encodings of `{data, encoding[]}`, from the last to the first. `most` bounds the number of values at any stage.
fn decode<'a>(data: &'a Map<'a>, most: usize) -> Result<Values<'a>, String> {
    let encodings = array(get(data, "encoding")?)?;
    decode_chain(bytes(get(data, "data")?)?, encodings, most)
}

fn decode_chain<'a>(
    data: &'a [u8],
    encodings: &'a [ValueRef<'a>],
    most: usize,
) -> Result<Values<'a>, String> {
    let (last, rest) = encodings.split_last().ok_or("it has no encoding")?;
    let last = map(last)?;
    let mut values = match text(get(last, "kind")?)? {
        "ByteArray" => byte_array(data, integer(get(last, "type")?)?)?,
        "StringArray" => string_array(data, last, most)?,
        kind => return Err(format!("encoding \"{kind}\" cannot come last")),
    };
    for encoding in rest.iter().rev() {
        values = undo(values, map(encoding)?, most)?;
    }
    Ok(values)
}

fn undo<'a>(values: Values<'a>, encoding: &Map<'_>, most: usize) -> Result<Values<'a>, String> {
    let number = |key: &str| real(get(encoding, key)?);
    Ok(match text(get(encoding, "kind")?)? {
        "FixedPoint" => {
            let factor = number("factor")?;
            // The quotient is the double nearest to the decimal number in mmCIF; a product with 1/factor would not be.
            Values::Reals(
                values
                    .integers()?
                    .into_iter()
                    .map(|v| f64::from(v) / factor)
                    .collect(),
            )
        }
        "IntervalQuantization" => {
            let (min, max, steps) = (number("min")?, number("max")?, number("numSteps")?);
            let width = (max - min) / (steps - 1.0);
            Values::Reals(
                values
                    .integers()?
                    .into_iter()
                    .map(|v| min + width * f64::from(v))
                    .collect(),
            )
        }
        "RunLength" => Values::Integers(run_length(&values.integers()?, most)?),
        "Delta" => Values::Integers(delta(
            values.integers()?,
            integer(get(encoding, "origin")?)?,
        )?),
        "IntegerPacking" => {
            let unsigned = matches!(get(encoding, "isUnsigned")?, ValueRef::Boolean(true));
            Values::Integers(unpack(
                &values.integers()?,
                integer(get(encoding, "byteCount")?)?,
                unsigned,
            )?)
        }
        kind => return Err(format!("encoding \"{kind}\" is not known here")),
    })
}

fn byte_array<'a>(data: &[u8], kind: i64) -> Result<Values<'a>, String> {
    fn each<const N: usize, T>(
        data: &[u8],
        convert: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, String> {
        let (chunks, rest) = data.as_chunks::<N>();
        if rest.is_empty() {
            Ok(chunks.iter().map(|c| convert(*c)).collect())
        } else {
            Err("its bytes end in the middle of a number".into())
        }
    }
    Ok(match kind {
        1 => Values::Integers(each(data, |b| i32::from(i8::from_le_bytes(b)))?),
        2 => Values::Integers(each(data, |b| i32::from(i16::from_le_bytes(b)))?),
        3 => Values::Integers(each(data, i32::from_le_bytes)?),
        4 => Values::Integers(each(data, |b| i32::from(u8::from_le_bytes(b)))?),
        5 => Values::Integers(each(data, |b| i32::from(u16::from_le_bytes(b)))?),
        6 => {
            let wide = each(data, u32::from_le_bytes)?;
            let narrow: Result<_, _> = wide.into_iter().map(i32::try_from).collect();
            Values::Integers(narrow.map_err(|_| "a number is larger than any that belongs here")?)
        }
        32 => Values::Reals(each(data, |b| f64::from(f32::from_le_bytes(b)))?),
        33 => Values::Reals(each(data, f64::from_le_bytes)?),
        other => return Err(format!("number type {other} is not known")),
    })
}

/// Pairs of value and count.
fn run_length(pairs: &[i32], most: usize) -> Result<Vec<i32>, String> {
    let mut values = Vec::new();
    for pair in pairs.chunks(2) {
        let &[value, count] = pair else {
            return Err("a run has no length".into());
        };
        let count = usize::try_from(count)
            .ok()
            .filter(|c| c.saturating_add(values.len()) <= most);
        let count = count.ok_or_else(|| format!("its runs do not fit into {most} rows"))?;
        values.resize(values.len() + count, value);
    }
    Ok(values)
}

/// Sums: each value is stored as the difference from the one before, the first from `origin`.
fn delta(mut values: Vec<i32>, origin: i64) -> Result<Vec<i32>, String> {
    let mut sum = origin;
    for value in &mut values {
        sum += i64::from(*value);
        *value = i32::try_from(sum).map_err(|_| "its differences leave the range of integers")?;
    }
    Ok(values)
}

/// Joins packed integers: the largest and the smallest of a byte (or two) say that the next one is to be added.
fn unpack(packed: &[i32], byte_count: i64, unsigned: bool) -> Result<Vec<i32>, String> {
    let (low, high) = match (byte_count, unsigned) {
        (1, false) => (i32::from(i8::MIN), i32::from(i8::MAX)),
        (1, true) => (-1, i32::from(u8::MAX)),
        (2, false) => (i32::from(i16::MIN), i32::from(i16::MAX)),
        (2, true) => (-1, i32::from(u16::MAX)),
        _ => {
            return Err(format!(
                "integers packed into {byte_count} bytes are not known"
            ));
        }
    };
    let (mut values, mut sum) = (Vec::new(), 0_i64);
    for &part in packed {
        sum += i64::from(part);
        if part != low && part != high {
            values.push(
                i32::try_from(sum).map_err(|_| "a packed number leaves the range of integers")?,
            );
            sum = 0;
        }
    }
    if packed.last().is_some_and(|&p| p == low || p == high) {
        Err("its last packed number does not end".into())
    } else {
        Ok(values)
    }
}

/// Places of texts in a list; the list is one text cut at `offsets`.
fn string_array<'a>(
    data: &'a [u8],
    encoding: &'a Map<'a>,
    most: usize,
) -> Result<Values<'a>, String> {
    let places = decode_chain(data, array(get(encoding, "dataEncoding")?)?, most)?.integers()?;
    let all = text(get(encoding, "stringData")?)?;
    // One more than texts, and no more texts than bytes that are not empty, plus the empty one.
    let offsets = bytes(get(encoding, "offsets")?)?;
    let offsets = decode_chain(
        offsets,
        array(get(encoding, "offsetEncoding")?)?,
        all.len() + 2,
    )?
    .integers()?;
    let cut = |pair: &[i32]| {
        let [from, to] = [pair.first()?, pair.last()?].map(|i| usize::try_from(*i).ok());
        all.get(from?..to?)
    };
    let texts: Option<Vec<&str>> = offsets.windows(2).map(cut).collect();
    Ok(Values::Texts(
        places,
        texts.ok_or("its texts lie outside of their bytes")?,
    ))
}

/// The category or column of this name; names of categories begin with `_`.
fn find<'a>(named: &'a [ValueRef<'a>], name: &str) -> Result<Option<&'a ValueRef<'a>>, String> {
    for value in named {
        let found = text(get(map(value)?, "name")?)?;
        if found
            .strip_prefix('_')
            .unwrap_or(found)
            .eq_ignore_ascii_case(name)
        {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn rows(category: &ValueRef<'_>) -> Result<usize, String> {
    let rows = integer(get(map(category)?, "rowCount")?)?;
    usize::try_from(rows)
        .ok()
        .filter(|n| *n <= MOST_ROWS)
        .ok_or_else(|| format!("a category promises {rows} rows"))
}

fn get<'a>(map: &'a Map<'a>, key: &str) -> Result<&'a ValueRef<'a>, String> {
    let is_key = |k: &ValueRef<'_>| matches!(k, ValueRef::String(s) if s.as_str() == Some(key));
    map.iter()
        .find(|(k, _)| is_key(k))
        .map(|(_, v)| v)
        .ok_or_else(|| format!("key \"{key}\" is missing"))
}

fn map<'a>(value: &'a ValueRef<'a>) -> Result<&'a Map<'a>, String> {
    match value {
        ValueRef::Map(map) => Ok(map),
        _ => Err("a map was expected".into()),
    }
}

fn array<'a>(value: &'a ValueRef<'a>) -> Result<&'a [ValueRef<'a>], String> {
    match value {
        ValueRef::Array(array) => Ok(array),
        _ => Err("an array was expected".into()),
    }
}

fn bytes<'a>(value: &'a ValueRef<'a>) -> Result<&'a [u8], String> {
    match value {
        ValueRef::Binary(bytes) => Ok(bytes),
        _ => Err("bytes were expected".into()),
    }
}

fn text<'a>(value: &'a ValueRef<'a>) -> Result<&'a str, String> {
    match value {
        ValueRef::String(text) => text.into_str().ok_or_else(|| "a text is not UTF-8".into()),
        _ => Err("a text was expected".into()),
    }
}

fn integer(value: &ValueRef<'_>) -> Result<i64, String> {
    let whole = |x: f64| (x.fract() == 0.0 && x.abs() < 1e15).then_some(x as i64);
    match value {
        ValueRef::Integer(i) => i.as_i64(),
        ValueRef::F64(x) => whole(*x),
        ValueRef::F32(x) => whole(f64::from(*x)),
        _ => None,
    }
    .ok_or_else(|| "an integer was expected".into())
}

fn real(value: &ValueRef<'_>) -> Result<f64, String> {
    match value {
        ValueRef::Integer(i) => i.as_f64(),
        ValueRef::F64(x) => Some(*x),
        ValueRef::F32(x) => Some(f64::from(*x)),
        _ => None,
    }
    .ok_or_else(|| "a number was expected".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_integers_are_joined() {
        assert_eq!(
            unpack(&[1, 127, 127, 5, -128, -3, -7], 1, false).unwrap(),
            [1, 259, -131, -7]
        );
        assert_eq!(unpack(&[255, 0, 254], 1, true).unwrap(), [255, 254]);
        assert_eq!(unpack(&[32767, 1], 2, false).unwrap(), [32768]);
        assert!(unpack(&[1, 127], 1, false).is_err() && unpack(&[1], 4, false).is_err());
    }

    #[test]
    fn runs_and_differences_are_bounded() {
        assert_eq!(run_length(&[7, 3, 8, 1], 4).unwrap(), [7, 7, 7, 8]);
        assert!(
            run_length(&[7, 3, 8, 2], 4).is_err()
                && run_length(&[7, -1], 4).is_err()
                && run_length(&[7], 4).is_err()
        );
        assert!(run_length(&[7, i32::MAX], 1000).is_err());
        assert_eq!(delta(vec![0, 2, -3], 10).unwrap(), [10, 12, 9]);
        assert!(delta(vec![i32::MAX, 1], 0).is_err());
    }

    #[test]
    fn a_document_of_countless_values_is_refused() {
        // An array that promises 2^31 values of one byte each.
        let mut bytes = vec![0x81, 0xaa];
        bytes.extend(b"dataBlocks");
        bytes.extend([0xdd, 0x7f, 0xff, 0xff, 0xff]);
        bytes.resize(5_000_000, 0xc0);
        let message = read(&mut &bytes[..], false).unwrap_err();
        assert!(message.contains("too many values"), "{message}");
    }
}
