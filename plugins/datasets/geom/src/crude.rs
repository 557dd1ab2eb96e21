//! GEOM's crude MessagePack: a stream of maps SMILES -> {conformers: [{xyz: [[Z, x, y, z], ..], ..}, ..], ..}, plain or gzipped.
//!
//! The real file is tens of gigabytes, so values are pulled one by one and unknown ones are skipped without being kept. Keys of an
//! entry may come in any order.

use crate::{
    archive::MAX_ATOMS,
    conformer::{Conformer, Sink},
    inputs::{TAR, is_tar},
};
use equivbench_dataset_tools::{DAMAGED, bad_data, input};
use equivbench_plugin::{PluginError, PluginResult};
use rmp::Marker;
use std::io::BufRead;

/// The longest SMILES of GEOM has a few hundred characters.
const MAX_TEXT_BYTES: u64 = 1 << 16;
/// `[Z, x, y, z]` as four f64: the marker of an array of 4, then 4 times a marker and 8 bytes.
const ROW_BYTES: usize = 37;
const FOUR_VALUES: u8 = 0x94;
const F64: u8 = 0xcb;

/// Reads the maps of a stream, unpacked, to its end; the name is for messages.
///
/// # Errors
/// The stream is damaged, cut off, or of another layout; what was handed over before stands in front of the damage.
pub(crate) fn read(stream: impl BufRead, source: &str, sink: &mut Sink<'_>) -> PluginResult<()> {
    let mut crude = Crude {
        stream,
        source,
        offset: 0,
        map: 0,
        entry: String::new(),
    };
    crude.refuse_tar()?;
    while !crude.is_at_end()? {
        crude.map += 1;
        crude.map(sink)?;
    }
    if crude.map == 0 {
        Err(crude.wrong("it is empty"))
    } else {
        Ok(())
    }
}

/// A stream of maps and how far it was read.
struct Crude<'a, R> {
    stream: R,
    source: &'a str,
    offset: u64,
    map: usize,
    /// The SMILES that is being read, for messages.
    entry: String,
}

impl<R: BufRead> Crude<'_, R> {
    fn refuse_tar(&mut self) -> PluginResult<()> {
        if self
            .stream
            .fill_buf()
            .map(is_tar)
            .map_err(|e| self.unreadable(&e))?
        {
            return Err(bad_data(self.source, "", TAR.0, TAR.1));
        }
        Ok(())
    }

    /// One map of about a thousand molecules.
    fn map(&mut self, sink: &mut Sink<'_>) -> PluginResult<()> {
        for _ in 0..self.map_len()? {
            self.entry = self.text()?;
            self.molecule(sink)?;
            self.entry.clear();
        }
        Ok(())
    }

    fn molecule(&mut self, sink: &mut Sink<'_>) -> PluginResult<()> {
        let mut found = false;
        for _ in 0..self.map_len()? {
            if self.text()? == "conformers" {
                found = true;
                for _ in 0..self.array_len()? {
                    let conformer = self.conformer()?;
                    sink(conformer)?;
                }
            } else {
                self.skip()?;
            }
        }
        if found {
            Ok(())
        } else {
            Err(self.foreign("the entry has no \"conformers\""))
        }
    }

    fn conformer(&mut self) -> PluginResult<Conformer> {
        let mut conformer = Conformer {
            molecule: self.entry.clone(),
            ..Conformer::default()
        };
        let mut found = false;
        for _ in 0..self.map_len()? {
            if self.text()? == "xyz" {
                found = true;
                self.atoms(&mut conformer)?;
            } else {
                self.skip()?;
            }
        }
        if found {
            Ok(conformer)
        } else {
            Err(self.foreign("a conformer has no \"xyz\""))
        }
    }

    fn atoms(&mut self, into: &mut Conformer) -> PluginResult<()> {
        let atoms = self.array_len()? as usize;
        if atoms > MAX_ATOMS {
            return Err(self.wrong(format!("a conformer claims {atoms} atoms")));
        }
        for _ in 0..atoms {
            let [z, position @ ..] = match self.plain_row() {
                Some(row) => row,
                None => self.row()?,
            };
            if z.fract() != 0.0 || !(1.0..=118.0).contains(&z) {
                return Err(self.wrong(format!("{z} is no atomic number")));
            }
            into.numbers.push(z as u8);
            into.positions.push(position);
        }
        Ok(())
    }

    /// A row as msgpack-python writes it, four f64, if it lies in the buffer: five times fewer calls.
    fn plain_row(&mut self) -> Option<[f64; 4]> {
        let &[head, ref cells @ ..] = self.stream.fill_buf().ok()?.first_chunk::<ROW_BYTES>()?;
        let (cells, _) = cells.as_chunks::<9>();
        if head != FOUR_VALUES || cells.iter().any(|cell| cell[0] != F64) {
            return None;
        }
        let mut row = [0.0; 4];
        for (value, &[_, ref bytes @ ..]) in row.iter_mut().zip(cells) {
            *value = f64::from_be_bytes(*bytes);
        }
        self.stream.consume(ROW_BYTES);
        self.offset += ROW_BYTES as u64;
        Some(row)
    }

    fn row(&mut self) -> PluginResult<[f64; 4]> {
        match self.array_len()? {
            4 => Ok([
                self.number()?,
                self.number()?,
                self.number()?,
                self.number()?,
            ]),
            _ => Err(self.foreign("a row of \"xyz\" is not [Z, x, y, z]")),
        }
    }

    // ---- values of MessagePack ----

    fn map_len(&mut self) -> PluginResult<u32> {
        match self.marker()? {
            Marker::FixMap(n) => Ok(n.into()),
            Marker::Map16 => Ok(u16::from_be_bytes(self.bytes()?).into()),
            Marker::Map32 => Ok(u32::from_be_bytes(self.bytes()?)),
            other => Err(self.unexpected("a map", other)),
        }
    }

    fn array_len(&mut self) -> PluginResult<u32> {
        match self.marker()? {
            Marker::FixArray(n) => Ok(n.into()),
            Marker::Array16 => Ok(u16::from_be_bytes(self.bytes()?).into()),
            Marker::Array32 => Ok(u32::from_be_bytes(self.bytes()?)),
            other => Err(self.unexpected("an array", other)),
        }
    }

    fn number(&mut self) -> PluginResult<f64> {
        Ok(match self.marker()? {
            Marker::F64 => f64::from_be_bytes(self.bytes()?),
            Marker::F32 => f32::from_be_bytes(self.bytes()?).into(),
            Marker::FixPos(n) => n.into(),
            Marker::FixNeg(n) => n.into(),
            Marker::U8 => self.bytes::<1>()?[0].into(),
            Marker::U16 => u16::from_be_bytes(self.bytes()?).into(),
            Marker::U32 => u32::from_be_bytes(self.bytes()?).into(),
            Marker::I8 => i8::from_be_bytes(self.bytes()?).into(),
            Marker::I16 => i16::from_be_bytes(self.bytes()?).into(),
            Marker::I32 => i32::from_be_bytes(self.bytes()?).into(),
            other => return Err(self.unexpected("a number", other)),
        })
    }

    /// A key; old writers mark text as binary.
    fn text(&mut self) -> PluginResult<String> {
        let bytes: u64 = match self.marker()? {
            Marker::FixStr(n) => n.into(),
            Marker::Str8 | Marker::Bin8 => self.bytes::<1>()?[0].into(),
            Marker::Str16 | Marker::Bin16 => u16::from_be_bytes(self.bytes()?).into(),
            Marker::Str32 | Marker::Bin32 => u32::from_be_bytes(self.bytes()?).into(),
            other => return Err(self.unexpected("text", other)),
        };
        if bytes > MAX_TEXT_BYTES {
            return Err(self.wrong(format!("a key claims {bytes} bytes")));
        }
        let mut text = vec![0; bytes as usize];
        self.fill(&mut text)?;
        String::from_utf8(text).map_err(|_| self.wrong("a key is no UTF-8 text"))
    }

    /// Passes over one value with all that is inside, without recursion.
    fn skip(&mut self) -> PluginResult<()> {
        let mut pending = 1_u64;
        while pending > 0 {
            let (bytes, values) = self.extent()?;
            self.pass(bytes)?;
            pending = (pending - 1)
                .checked_add(values)
                .ok_or_else(|| self.wrong("an array claims more values than a file can hold"))?;
        }
        Ok(())
    }

    /// How many bytes follow a marker and its length, and how many values lie inside.
    fn extent(&mut self) -> PluginResult<(u64, u64)> {
        Ok(match self.marker()? {
            Marker::Null | Marker::True | Marker::False | Marker::FixPos(_) | Marker::FixNeg(_) => {
                (0, 0)
            }
            Marker::U8 | Marker::I8 => (1, 0),
            Marker::U16 | Marker::I16 | Marker::FixExt1 => (2, 0),
            Marker::FixExt2 => (3, 0),
            Marker::U32 | Marker::I32 | Marker::F32 => (4, 0),
            Marker::FixExt4 => (5, 0),
            Marker::U64 | Marker::I64 | Marker::F64 => (8, 0),
            Marker::FixExt8 => (9, 0),
            Marker::FixExt16 => (17, 0),
            Marker::FixStr(n) => (n.into(), 0),
            Marker::Str8 | Marker::Bin8 => (self.bytes::<1>()?[0].into(), 0),
            Marker::Str16 | Marker::Bin16 => (u16::from_be_bytes(self.bytes()?).into(), 0),
            Marker::Str32 | Marker::Bin32 => (u32::from_be_bytes(self.bytes()?).into(), 0),
            Marker::Ext8 => (u64::from(self.bytes::<1>()?[0]) + 1, 0),
            Marker::Ext16 => (u64::from(u16::from_be_bytes(self.bytes()?)) + 1, 0),
            Marker::Ext32 => (u64::from(u32::from_be_bytes(self.bytes()?)) + 1, 0),
            Marker::FixArray(n) => (0, n.into()),
            Marker::Array16 => (0, u16::from_be_bytes(self.bytes()?).into()),
            Marker::Array32 => (0, u32::from_be_bytes(self.bytes()?).into()),
            Marker::FixMap(n) => (0, 2 * u64::from(n)),
            Marker::Map16 => (0, 2 * u64::from(u16::from_be_bytes(self.bytes()?))),
            Marker::Map32 => (0, 2 * u64::from(u32::from_be_bytes(self.bytes()?))),
            Marker::Reserved => {
                return Err(self.wrong("the byte 0xc1 means nothing in MessagePack"));
            }
        })
    }

    // ---- bytes ----

    fn is_at_end(&mut self) -> PluginResult<bool> {
        self.stream
            .fill_buf()
            .map(<[u8]>::is_empty)
            .map_err(|e| self.unreadable(&e))
    }

    fn marker(&mut self) -> PluginResult<Marker> {
        Ok(Marker::from_u8(self.bytes::<1>()?[0]))
    }

    fn bytes<const N: usize>(&mut self) -> PluginResult<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, into: &mut [u8]) -> PluginResult<()> {
        self.stream
            .read_exact(into)
            .map_err(|e| self.unreadable(&e))?;
        self.offset += into.len() as u64;
        Ok(())
    }

    fn pass(&mut self, mut bytes: u64) -> PluginResult<()> {
        while bytes > 0 {
            let buffered = self
                .stream
                .fill_buf()
                .map(|buffer| buffer.len() as u64)
                .map_err(|e| self.unreadable(&e))?;
            if buffered == 0 {
                return Err(self.wrong("it ends inside a value"));
            }
            let step = buffered.min(bytes);
            self.stream.consume(step as usize);
            self.offset += step;
            bytes -= step;
        }
        Ok(())
    }

    // ---- refusals ----

    fn place(&self) -> String {
        let entry = if self.entry.is_empty() {
            String::new()
        } else {
            format!(", entry \"{}\"", self.entry)
        };
        format!("map {}{entry}, byte {}", self.map, self.offset)
    }

    fn wrong(&self, what: impl std::fmt::Display) -> PluginError {
        bad_data(self.source, &self.place(), what, DAMAGED)
    }

    fn unreadable(&self, error: &std::io::Error) -> PluginError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.wrong("it ends inside a value"),
            _ => self.wrong(input::unreadable(error)),
        }
    }

    fn unexpected(&self, wanted: &str, found: Marker) -> PluginError {
        self.foreign(&format!("it should hold {wanted} here and holds {found:?}"))
    }

    fn foreign(&self, what: &str) -> PluginError {
        bad_data(
            self.source,
            &self.place(),
            what,
            "GEOM's crude files (drugs_crude.msgpack, qm9_crude.msgpack) are read, not the featurized ones; if it is crude, the file is damaged",
        )
    }
}

#[cfg(test)]
mod tests;
