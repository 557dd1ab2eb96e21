//! Splits a pickle into its operations. Only those of the whitelist pass; text is bounded and bytes are never kept.

use super::CONVERT;
use equivbench_dataset_tools::{DAMAGED, bad_data};
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    collections::HashSet,
    fmt::Display,
    io::{BufRead, BufReader, Read},
    rc::Rc,
};

/// Longer text (the molecule's bytes) is passed over.
const MAX_TEXT_BYTES: u64 = 1 << 14;
const MAX_NAME_BYTES: u64 = 256;

/// One step of a pickle.
#[derive(Debug)]
pub(super) enum Op {
    /// Changes nothing: protocol and frame headers.
    Nothing,
    /// None, numbers that are no integers, bytes, long text: values without a content that matters.
    Inert,
    Int(i64),
    Text(Rc<str>),
    /// A name, as `module name`.
    Global(String),
    StackGlobal,
    Mark,
    EmptyList,
    EmptyDict,
    Append,
    Appends,
    SetItem,
    SetItems,
    EmptyTuple,
    /// A tuple of the topmost 1 to 3 values.
    Tuple(usize),
    TupleToMark,
    PersistentId,
    Reduce,
    Build,
    /// Remember the topmost value; without an index, under the next one.
    Put(Option<u32>),
    Get(u32),
    Stop,
}

/// The operations of a pickle, one by one.
pub(super) struct Lexer<'a, R> {
    reader: BufReader<R>,
    source: &'a str,
    pickle: &'a str,
    offset: u64,
    /// Where the latest operation began.
    start: u64,
}

impl<'a, R: Read> Lexer<'a, R> {
    pub(super) fn new(reader: BufReader<R>, source: &'a str, pickle: &'a str) -> Self {
        Self {
            reader,
            source,
            pickle,
            offset: 0,
            start: 0,
        }
    }

    /// Goes through the whole pickle and collects what it will ask its memory for; the rest need not be remembered.
    pub(super) fn memo_indices_fetched(mut self) -> PluginResult<HashSet<u32>> {
        let mut fetched = HashSet::new();
        loop {
            match self.step()? {
                Op::Get(index) => drop(fetched.insert(index)),
                Op::Stop => break,
                _ => (),
            }
        }
        // Reading to the end makes the archive compare its checksum.
        let rest = self
            .reader
            .fill_buf()
            .map(<[u8]>::len)
            .map_err(|e| self.unreadable(&e))?;
        if rest > 0 {
            Err(self.wrong("bytes follow its end", DAMAGED))
        } else {
            Ok(fetched)
        }
    }

    /// The next operation.
    pub(super) fn step(&mut self) -> PluginResult<Op> {
        self.start = self.offset;
        let code = self.byte()?;
        Ok(match code {
            0x80 => self.number::<1>().map(|_| Op::Nothing)?,
            0x95 => self.number::<8>().map(|_| Op::Nothing)?,
            b'.' => Op::Stop,
            b'(' => Op::Mark,
            b'N' => Op::Inert,
            0x88 => Op::Int(1),
            0x89 => Op::Int(0),
            b'K' => Op::Int(self.number::<1>()? as i64),
            b'M' => Op::Int(self.number::<2>()? as i64),
            b'J' => Op::Int((self.number::<4>()? as u32).cast_signed().into()),
            0x8a => self.long()?,
            b'G' => self.pass(8)?,
            b'X' => self.text::<4>()?,
            0x8c => self.text::<1>()?,
            0x8d => self.text::<8>()?,
            b'B' => self.bytes::<4>()?,
            b'C' => self.bytes::<1>()?,
            0x8e => self.bytes::<8>()?,
            b'c' => Op::Global(format!("{} {}", self.line()?, self.line()?)),
            0x93 => Op::StackGlobal,
            b']' => Op::EmptyList,
            b'}' => Op::EmptyDict,
            b')' => Op::EmptyTuple,
            0x85 => Op::Tuple(1),
            0x86 => Op::Tuple(2),
            0x87 => Op::Tuple(3),
            b't' => Op::TupleToMark,
            b'a' => Op::Append,
            b'e' => Op::Appends,
            b's' => Op::SetItem,
            b'u' => Op::SetItems,
            b'Q' => Op::PersistentId,
            b'R' => Op::Reduce,
            b'b' => Op::Build,
            b'q' => Op::Put(Some(self.number::<1>()? as u32)),
            b'r' => Op::Put(Some(self.number::<4>()? as u32)),
            0x94 => Op::Put(None),
            b'h' => Op::Get(self.number::<1>()? as u32),
            b'j' => Op::Get(self.number::<4>()? as u32),
            other => return Err(self.refused(other)),
        })
    }

    /// A refusal that names the latest operation's place.
    pub(super) fn wrong(&self, what: impl Display, remedy: &str) -> PluginError {
        bad_data(
            self.source,
            &format!("{}, byte {}", self.pickle, self.start),
            what,
            remedy,
        )
    }

    fn refused(&self, code: u8) -> PluginError {
        let name = name(code).map_or_else(String::new, |name| format!(" ({name})"));
        self.wrong(format!("the pickle operation 0x{code:02x}{name} is refused, since files of VoxMol's layout have none"), CONVERT)
    }

    fn unreadable(&self, error: &std::io::Error) -> PluginError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.wrong("it ends inside a value", DAMAGED),
            _ => self.wrong(format!("it cannot be read ({error})"), DAMAGED),
        }
    }

    fn byte(&mut self) -> PluginResult<u8> {
        Ok(self.number::<1>()? as u8)
    }

    /// A little-endian number of N bytes.
    fn number<const N: usize>(&mut self) -> PluginResult<u64> {
        let mut bytes = [0; 8];
        let (low, _) = bytes.split_at_mut(N);
        self.reader
            .read_exact(low)
            .map_err(|e| self.unreadable(&e))?;
        self.offset += N as u64;
        Ok(u64::from_le_bytes(bytes))
    }

    /// An integer of up to 8 bytes in two's complement.
    fn long(&mut self) -> PluginResult<Op> {
        let length = u32::from(self.byte()?);
        if length > 8 {
            return Err(self.wrong(format!("an integer of {length} bytes"), CONVERT));
        }
        let mut value = 0_i64;
        for i in 0..length {
            value |= i64::from(self.byte()?) << (8 * i);
        }
        // Shifting up and down again extends the sign.
        let unused = 64 - 8 * length;
        Ok(Op::Int(if length == 0 {
            0
        } else {
            value << unused >> unused
        }))
    }

    fn text<const N: usize>(&mut self) -> PluginResult<Op> {
        let length = self.number::<N>()?;
        if length > MAX_TEXT_BYTES {
            return self.pass(length);
        }
        let mut text = vec![0; length as usize];
        self.reader
            .read_exact(&mut text)
            .map_err(|e| self.unreadable(&e))?;
        self.offset += length;
        let text =
            String::from_utf8(text).map_err(|_| self.wrong("a str is no UTF-8 text", DAMAGED))?;
        Ok(Op::Text(text.into()))
    }

    fn bytes<const N: usize>(&mut self) -> PluginResult<Op> {
        let length = self.number::<N>()?;
        self.pass(length)
    }

    fn pass(&mut self, bytes: u64) -> PluginResult<Op> {
        let mut left = bytes;
        while left > 0 {
            let buffered = self
                .reader
                .fill_buf()
                .map(|buffer| buffer.len() as u64)
                .map_err(|e| self.unreadable(&e))?;
            if buffered == 0 {
                return Err(self.wrong("it ends inside a value", DAMAGED));
            }
            let step = buffered.min(left);
            self.reader.consume(step as usize);
            left -= step;
        }
        self.offset += bytes;
        Ok(Op::Inert)
    }

    fn line(&mut self) -> PluginResult<String> {
        let mut line = Vec::new();
        let read = self
            .reader
            .by_ref()
            .take(MAX_NAME_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|e| self.unreadable(&e))?;
        self.offset += read as u64;
        if line.pop() != Some(b'\n') {
            return Err(self.wrong(
                format!("a name has no end within {MAX_NAME_BYTES} bytes"),
                DAMAGED,
            ));
        }
        String::from_utf8(line).map_err(|_| self.wrong("a name is no UTF-8 text", DAMAGED))
    }
}

/// What Python calls an operation that is refused.
fn name(code: u8) -> Option<&'static str> {
    Some(match code {
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'F' => "FLOAT",
        b'I' => "INT",
        b'L' => "LONG",
        b'P' => "PERSID",
        b'S' => "STRING",
        b'T' => "BINSTRING",
        b'U' => "SHORT_BINSTRING",
        b'V' => "UNICODE",
        b'd' => "DICT",
        b'g' => "GET",
        b'i' => "INST",
        b'l' => "LIST",
        b'o' => "OBJ",
        b'p' => "PUT",
        0x81 => "NEWOBJ",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8b => "LONG4",
        0x8f => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x92 => "NEWOBJ_EX",
        0x96 => "BYTEARRAY8",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return None,
    })
}
