//! One array of an npz, read from front to back. Little-endian numbers and text; Python objects are never unpickled.

use crate::archive::{self, Archive};
use equivbench_dataset_tools::{DAMAGED, bad_data};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    fmt::Display,
    io::{BufReader, Cursor, Read, Seek},
};

const MAGIC: &[u8] = b"\x93NUMPY";
const MAX_HEADER_BYTES: u32 = 1 << 16;
/// One string, and all strings of an array, may not exceed these.
const MAX_TEXT_BYTES: usize = 1 << 20;
const MAX_TEXTS_BYTES: usize = 1 << 30;
/// An array in Fortran order is turned in memory.
const MAX_TURNED_BYTES: u64 = 1 << 30;
const NUMERIC: &str =
    "save it as a little-endian array of f4/f8 or u1/i4/i8 (numpy.ascontiguousarray, astype)";

/// An array that is being read.
pub(super) struct Column<'a> {
    reader: Box<dyn Read + 'a>,
    source: &'a str,
    name: String,
    header: Header,
    /// Elements that were not read yet.
    left: u64,
    buffer: Vec<u8>,
}

/// What an npy header says.
#[derive(Debug, PartialEq)]
struct Header {
    kind: Kind,
    item_bytes: usize,
    shape: Vec<u64>,
    /// The first index runs fastest.
    is_fortran: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Float,
    Signed,
    Unsigned,
    /// UTF-32, four bytes a character.
    Unicode,
    Bytes,
}

impl<'a> Column<'a> {
    pub(super) fn open<R: Read + Seek>(
        archive: &'a mut Archive<R>,
        source: &'a str,
        name: &str,
    ) -> PluginResult<Self> {
        let name = format!("{name}.npy");
        let wrong = |what: &str, remedy: &str| bad_data(source, &name, what, remedy);
        let mut reader = BufReader::new(archive::entry(archive, source, &name)?);
        let text =
            header_text(&mut reader).ok_or_else(|| wrong("it has no npy header", DAMAGED))?;
        let header = Header::parse(&text).map_err(|what| wrong(&what, NUMERIC))?;
        let left = header
            .shape
            .iter()
            .try_fold(1_u64, |n, &d| n.checked_mul(d));
        let left = left.ok_or_else(|| wrong("its shape overflows", DAMAGED))?;
        let reader: Box<dyn Read> = if header.is_fortran {
            let bytes = transposed(reader, &header, left).map_err(|what| wrong(&what, NUMERIC))?;
            Box::new(Cursor::new(bytes))
        } else {
            Box::new(reader)
        };
        Ok(Self {
            reader,
            source,
            name,
            header,
            left,
            buffer: Vec::new(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shape(&self) -> &[u64] {
        &self.header.shape
    }

    /// The next integer.
    pub(super) fn integer(&mut self) -> PluginResult<i64> {
        let (kind, size) = (self.header.kind, self.header.item_bytes);
        let bytes = self.take(1)?;
        integer(kind, bytes).ok_or_else(|| {
            self.wrong(
                format!("it should hold integers, not {kind:?} of {size} bytes"),
                NUMERIC,
            )
        })
    }

    /// The atomic numbers of the next atoms.
    pub(super) fn elements(&mut self, atoms: usize) -> PluginResult<Vec<u8>> {
        let (kind, size) = (self.header.kind, self.header.item_bytes);
        let items = self.take(atoms)?.chunks_exact(size);
        let numbers: Option<Vec<i64>> = items.map(|item| integer(kind, item)).collect();
        let numbers = numbers.ok_or_else(|| {
            self.wrong(
                format!("it should hold integers, not {kind:?} of {size} bytes"),
                NUMERIC,
            )
        })?;
        let element = |z: i64| {
            let z = u8::try_from(z).ok().filter(|z| (1..=118).contains(z));
            z.ok_or_else(|| {
                self.wrong(
                    "it holds a number that is no atomic number",
                    "leave padding out: use ptr",
                )
            })
        };
        numbers.into_iter().map(element).collect()
    }

    /// The positions of the next atoms, in Å.
    pub(super) fn positions(&mut self, atoms: usize, factor: f64) -> PluginResult<Vec<[f64; 3]>> {
        let (kind, size) = (self.header.kind, self.header.item_bytes);
        let items = self.take(3 * atoms)?.chunks_exact(size);
        let values: Option<Vec<f64>> = items.map(|item| float(kind, item)).collect();
        let values = values.ok_or_else(|| {
            self.wrong(
                format!("it should hold f4 or f8, not {kind:?} of {size} bytes"),
                NUMERIC,
            )
        })?;
        let (rows, _) = values.as_chunks::<3>();
        Ok(rows.iter().map(|row| row.map(|x| x * factor)).collect())
    }

    /// All strings of an array of text.
    pub(super) fn texts(mut self) -> PluginResult<Vec<String>> {
        let (kind, size) = (self.header.kind, self.header.item_bytes);
        if !matches!(kind, Kind::Unicode | Kind::Bytes) || size > MAX_TEXT_BYTES {
            return Err(self.wrong(
                format!("it should hold short text, not {kind:?} of {size} bytes"),
                "save it as an array of str",
            ));
        }
        let (mut texts, mut total) = (Vec::new(), 0);
        for _ in 0..self.left {
            let text = text(kind, self.take(1)?)
                .ok_or_else(|| self.wrong("a string is no text", DAMAGED))?;
            total += text.len() + size_of::<String>();
            if total > MAX_TEXTS_BYTES {
                return Err(self.wrong("its text takes more than 1 GiB", "split the file"));
            }
            texts.push(text);
        }
        self.finish()?;
        Ok(texts)
    }

    /// The lines of a text that was stored as u1.
    pub(super) fn lines(mut self) -> PluginResult<Vec<String>> {
        if self.header.kind != Kind::Unsigned
            || self.header.item_bytes != 1
            || self.left > MAX_TEXTS_BYTES as u64
        {
            return Err(self.wrong(
                "it should hold UTF-8 as u1, at most 1 GiB",
                "save it with numpy.frombuffer(text.encode(), numpy.uint8)",
            ));
        }
        let mut bytes = Vec::new();
        self.reader
            .by_ref()
            .take(self.left)
            .read_to_end(&mut bytes)
            .map_err(|e| self.unreadable(&e))?;
        if bytes.len() as u64 != self.left {
            return Err(self.wrong("it ends early", DAMAGED));
        }
        self.left = 0;
        let text = String::from_utf8(bytes).map_err(|_| self.wrong("it is no UTF-8", DAMAGED))?;
        self.finish()?;
        Ok(text.lines().map(ToOwned::to_owned).collect())
    }

    /// Checks that the array ends here; the archive compares its checksum at this point.
    pub(super) fn finish(mut self) -> PluginResult<()> {
        if self.left > 0 {
            return Err(self.wrong(
                format!("{} elements belong to no conformer", self.left),
                DAMAGED,
            ));
        }
        match self.reader.read(&mut [0]) {
            Ok(0) => Ok(()),
            Ok(_) => Err(self.wrong("bytes follow the last element", DAMAGED)),
            Err(e) => Err(self.unreadable(&e)),
        }
    }

    /// A refusal that names this array.
    pub(super) fn wrong(&self, what: impl Display, remedy: &str) -> PluginError {
        bad_data(self.source, &self.name, what, remedy)
    }

    fn unreadable(&self, error: &std::io::Error) -> PluginError {
        self.wrong(
            format!(
                "it cannot be read, {} elements before its end ({error})",
                self.left
            ),
            DAMAGED,
        )
    }

    /// The bytes of the next elements; callers bound their number.
    fn take(&mut self, elements: usize) -> PluginResult<&[u8]> {
        if elements as u64 > self.left {
            return Err(self.wrong(
                format!(
                    "{elements} more elements are needed, {} are left",
                    self.left
                ),
                DAMAGED,
            ));
        }
        self.buffer.resize(elements * self.header.item_bytes, 0);
        self.reader
            .read_exact(&mut self.buffer)
            .map_err(|e| self.unreadable(&e))?;
        self.left -= elements as u64;
        Ok(&self.buffer)
    }
}

fn float(kind: Kind, item: &[u8]) -> Option<f64> {
    match (kind, item.len()) {
        (Kind::Float, 4) => Some(f32::from_le_bytes(item.try_into().ok()?).into()),
        (Kind::Float, 8) => Some(f64::from_le_bytes(item.try_into().ok()?)),
        _ => None,
    }
}

fn integer(kind: Kind, item: &[u8]) -> Option<i64> {
    let mut wide = [0; 8];
    wide.get_mut(..item.len())?.copy_from_slice(item);
    let unsigned = u64::from_le_bytes(wide);
    let spare = 64_u32
        .checked_sub(8 * item.len() as u32)
        .filter(|&bits| bits < 64)?;
    match kind {
        Kind::Unsigned => i64::try_from(unsigned).ok(),
        // Shifting up and down again extends the sign.
        Kind::Signed => Some((unsigned << spare).cast_signed() >> spare),
        _ => None,
    }
}

fn text(kind: Kind, item: &[u8]) -> Option<String> {
    let text = match kind {
        Kind::Bytes => String::from_utf8(item.to_vec()).ok()?,
        _ => item
            .as_chunks::<4>()
            .0
            .iter()
            .map(|&c| char::from_u32(u32::from_le_bytes(c)))
            .collect::<Option<String>>()?,
    };
    Some(text.trim_end_matches('\0').to_owned())
}

/// An array in Fortran order (sGDML's files have some), turned into C order: one cannot stream it frame by frame.
fn transposed(reader: impl Read, header: &Header, elements: u64) -> Result<Vec<u8>, String> {
    let (size, bytes) = (
        header.item_bytes,
        elements
            .checked_mul(header.item_bytes as u64)
            .filter(|&b| b <= MAX_TURNED_BYTES),
    );
    let bytes = bytes.ok_or("it is in Fortran order and larger than 1 GiB")?;
    let mut columns = Vec::new();
    // One byte more than promised: only the end makes the archive compare the checksum.
    reader
        .take(bytes + 1)
        .read_to_end(&mut columns)
        .map_err(|e| format!("it cannot be read ({e})"))?;
    if columns.len() as u64 != bytes {
        return Err("its size is not that of its shape".into());
    }
    let mut rows = Vec::with_capacity(columns.len());
    let mut index = vec![0_u64; header.shape.len()];
    for _ in 0..elements {
        let from = index
            .iter()
            .zip(&header.shape)
            .rev()
            .fold(0, |n, (&i, &d)| n * d + i) as usize
            * size;
        rows.extend_from_slice(columns.get(from..from + size).unwrap_or_default());
        for (i, &d) in index.iter_mut().zip(&header.shape).rev() {
            *i = (*i + 1) % d;
            if *i > 0 {
                break;
            }
        }
    }
    Ok(rows)
}

/// The dictionary in front of the data: magic, version, length, text.
fn header_text(reader: &mut impl Read) -> Option<String> {
    let mut start = [0; 8];
    reader.read_exact(&mut start).ok()?;
    let [magic @ .., major, _minor] = start;
    let mut length = [0; 4];
    reader
        .read_exact(length.get_mut(..if major == 1 { 2 } else { 4 })?)
        .ok()?;
    let length =
        Some(u32::from_le_bytes(length)).filter(|&n| n <= MAX_HEADER_BYTES && magic == *MAGIC)?;
    let mut text = vec![0; length as usize];
    reader.read_exact(&mut text).ok()?;
    String::from_utf8(text).ok()
}

impl Header {
    /// Reads `{'descr': '<f4', 'fortran_order': False, 'shape': (5, 3), }`.
    fn parse(text: &str) -> Result<Self, String> {
        let value = |key: &str| {
            text.split_once(&format!("'{key}':"))
                .map(|(_, rest)| rest.trim_start())
        };
        let missing = |key: &str| format!("its header has no {key}");
        let descr = value("descr").ok_or_else(|| missing("descr"))?;
        let descr = descr
            .strip_prefix('\'')
            .and_then(|d| d.split_once('\''))
            .map(|(d, _)| d);
        let (kind, item_bytes) = item(descr.ok_or("it is a structured array")?)?;
        let shape = value("shape")
            .and_then(|s| s.strip_prefix('(')?.split_once(')'))
            .map(|(s, _)| s);
        let dimensions = shape
            .ok_or_else(|| missing("shape"))?
            .split(',')
            .map(str::trim)
            .filter(|d| !d.is_empty());
        // Python 2 wrote long integers as 3L.
        let shape: Option<Vec<u64>> = dimensions
            .map(|d| d.trim_end_matches('L').parse().ok())
            .collect();
        let shape = shape.ok_or("its shape is no list of numbers")?;
        let is_fortran = !value("fortran_order")
            .ok_or_else(|| missing("fortran_order"))?
            .starts_with("False");
        Ok(Self {
            kind,
            item_bytes,
            shape,
            is_fortran,
        })
    }
}

/// Kind and size of one element, of `<f4`, `|u1`, `<U20`, `|S5`.
fn item(descr: &str) -> Result<(Kind, usize), String> {
    let refused = || format!("its dtype {descr} is not read");
    let mut letters = descr.chars();
    let (order, kind) = (letters.next(), letters.next());
    let size: usize = match letters.as_str() {
        "" => 1,
        digits => digits
            .parse()
            .ok()
            .filter(|n| (1..=MAX_TEXT_BYTES).contains(n))
            .ok_or_else(refused)?,
    };
    let kind = match (order, kind) {
        (_, Some('O')) => {
            return Err(
                "it is an array of Python objects (a pickle), which is never unpacked".into(),
            );
        }
        (Some('>'), _) => return Err(format!("its dtype {descr} is big-endian")),
        (Some('<' | '|'), Some('f')) => Kind::Float,
        (Some('<' | '|'), Some('i')) => Kind::Signed,
        (Some('<' | '|'), Some('u')) => Kind::Unsigned,
        (Some('<' | '|'), Some('U')) => return Ok((Kind::Unicode, 4 * size)),
        (Some('<' | '|'), Some('S')) => return Ok((Kind::Bytes, size)),
        _ => return Err(refused()),
    };
    if matches!(size, 1 | 2 | 4 | 8) {
        Ok((kind, size))
    } else {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_gives_type_and_shape() {
        let header = |descr: &str, shape: &str| {
            Header::parse(&format!(
                "{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"
            ))
        };
        let expected = |kind, item_bytes, shape: &[u64]| {
            Ok(Header {
                kind,
                item_bytes,
                shape: shape.to_vec(),
                is_fortran: false,
            })
        };
        assert_eq!(header("'<f4'", "(5, 3)"), expected(Kind::Float, 4, &[5, 3]));
        assert_eq!(header("'|u1'", "(7,)"), expected(Kind::Unsigned, 1, &[7]));
        assert_eq!(header("'<i8'", "(3L,)"), expected(Kind::Signed, 8, &[3]));
        assert_eq!(header("'<U12'", "()"), expected(Kind::Unicode, 48, &[]));
        assert_eq!(header("'|S12'", "()"), expected(Kind::Bytes, 12, &[]));
        let refused = |descr: &str| header(descr, "(1,)").unwrap_err();
        assert!(refused("'|O'").contains("Python objects"));
        assert!(refused("'>f4'").contains("big-endian"));
        assert!(refused("[('a', '<f4')]").contains("structured"));
        assert!(refused("'<f2000000000000000000000'").contains("not read"));
        assert!(refused("'<f16'").contains("not read"));
        assert!(refused("'<U0'").contains("not read"));
        assert!(
            Header::parse("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2), }")
                .unwrap()
                .is_fortran
        );
        assert!(header("'<f4'", "(-5, 3)").is_err());
    }

    #[test]
    fn fortran_order_is_turned_into_c_order() {
        // Element (i, j, k) of shape (2, 3, 4) is 100 i + 10 j + k.
        let (mut fortran, mut c) = (Vec::new(), Vec::new());
        for k in 0..4 {
            for j in 0..3 {
                (0..2).for_each(|i| fortran.extend((100 * i + 10 * j + k as i16).to_le_bytes()));
            }
        }
        for i in 0..2 {
            for j in 0..3 {
                (0..4).for_each(|k| c.extend((100 * i + 10 * j + k as i16).to_le_bytes()));
            }
        }
        let header = Header {
            kind: Kind::Signed,
            item_bytes: 2,
            shape: vec![2, 3, 4],
            is_fortran: true,
        };
        assert_eq!(transposed(&fortran[..], &header, 24).unwrap(), c);
        assert!(transposed(&fortran[1..], &header, 24).is_err());
        let huge = Header {
            kind: Kind::Signed,
            item_bytes: 2,
            shape: vec![1 << 40],
            is_fortran: true,
        };
        assert!(
            transposed(&fortran[..], &huge, 1 << 40)
                .unwrap_err()
                .contains("1 GiB")
        );
    }

    #[test]
    fn integers_of_every_width_keep_their_sign() {
        assert_eq!(integer(Kind::Signed, &[0xfe]), Some(-2));
        assert_eq!(integer(Kind::Unsigned, &[0xfe]), Some(254));
        assert_eq!(
            integer(Kind::Signed, &(-70_000_i32).to_le_bytes()),
            Some(-70_000)
        );
        assert_eq!(
            integer(Kind::Signed, &i64::MIN.to_le_bytes()),
            Some(i64::MIN)
        );
        assert_eq!(integer(Kind::Unsigned, &u64::MAX.to_le_bytes()), None);
        assert_eq!(integer(Kind::Float, &[0; 4]), None);
        assert_eq!(integer(Kind::Signed, &[]), None);
    }
}
