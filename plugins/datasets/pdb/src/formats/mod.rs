//! Structure files of any format, told by their content: mmCIF, PDB, BinaryCIF, each also compressed with gzip.

mod bcif;
mod cif;
mod lines;
mod mmcif;
mod pdb;

use crate::entry::Entry;
use flate2::bufread::MultiGzDecoder;
use std::io::{BufRead, BufReader, Error, ErrorKind};

/// Endings of structure files in folders and archives, each also with `.gz`.
pub(crate) const SUFFIXES: [&str; 6] = [".cif", ".mmcif", ".pdb", ".ent", ".bcif", ".pdbx"];

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    MmCif,
    Pdb,
    BinaryCif,
    /// Compressed with gzip.
    Gzip,
    /// An archive of files.
    Tar,
}

const BUFFER: usize = 1 << 16;

/// What a file holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Entry(Entry),
    /// A tar archive, whose members are read one by one.
    Archive,
}

/// Reads a structure from its first to its last byte; an archive is only told.
///
/// # Errors
/// Another format, damage: what is wrong, without the name of the file.
pub(crate) fn read(input: &mut dyn BufRead, take_modified: bool) -> Result<Content, String> {
    if format(input)? != Some(Format::Gzip) {
        return read_plain(input, take_modified);
    }
    let mut unpacked = BufReader::with_capacity(BUFFER, MultiGzDecoder::new(input));
    read_plain(&mut unpacked, take_modified)
}

fn read_plain(input: &mut dyn BufRead, take_modified: bool) -> Result<Content, String> {
    match format(input)? {
        Some(Format::MmCif) => mmcif::read(input, take_modified).map(Content::Entry),
        Some(Format::Pdb) => pdb::read(input, take_modified).map(Content::Entry),
        Some(Format::BinaryCif) => bcif::read(input, take_modified).map(Content::Entry),
        Some(Format::Tar) => Ok(Content::Archive),
        Some(Format::Gzip) => Err("it is compressed twice".into()),
        None if fill(input)?.is_empty() => Err("it is empty".into()),
        None => Err("its content is not mmCIF, PDB or BinaryCIF".into()),
    }
}

/// The format of what comes next, without taking it.
///
/// # Errors
/// The input cannot be read.
pub(crate) fn format(input: &mut dyn BufRead) -> Result<Option<Format>, String> {
    fill(input).map(sniff)
}

fn fill(input: &mut dyn BufRead) -> Result<&[u8], String> {
    input.fill_buf().map_err(|e| unreadable(&e))
}

/// What went wrong while reading, in words.
pub(crate) fn unreadable(error: &Error) -> String {
    match error.kind() {
        ErrorKind::UnexpectedEof => "it ends too early: a download or a copy was cut off".into(),
        ErrorKind::InvalidData | ErrorKind::InvalidInput => {
            format!("its compression is damaged ({error})")
        }
        _ => format!("it cannot be read ({error})"),
    }
}

/// Records with which PDB files begin, or begin after lines that others put before them.
const RECORDS: [&[u8]; 16] = [
    b"HEADER", b"ATOM  ", b"HETATM", b"REMARK", b"CRYST1", b"TITLE ", b"MODEL ", b"COMPND",
    b"EXPDTA", b"OBSLTE", b"AUTHOR", b"SEQRES", b"KEYWDS", b"SOURCE", b"HELIX ", b"NUMMDL",
];

pub(crate) fn sniff(head: &[u8]) -> Option<Format> {
    match head {
        [0x1f, 0x8b, ..] => return Some(Format::Gzip),
        // A map of MessagePack (three ways to say its length), then a short text: its first key.
        [0x81..=0x8f, 0xa1..=0xbf, ..]
        | [0xde, _, _, 0xa1..=0xbf, ..]
        | [0xdf, _, _, _, _, 0xa1..=0xbf, ..] => {
            return Some(Format::BinaryCif);
        }
        _ => {}
    }
    if head.get(257..262) == Some(b"ustar") {
        return Some(Format::Tar);
    }
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let mut lines = head
        .split(|&c| c == b'\n')
        .map(<[u8]>::trim_ascii_end)
        .filter(|l| !l.is_empty());
    let is_cif = |line: &[u8]| {
        [&b"data_"[..], b"loop_", b"_"].iter().any(|k| {
            line.get(..k.len())
                .is_some_and(|l| l.eq_ignore_ascii_case(k))
        })
    };
    if lines
        .clone()
        .find(|l| !l.starts_with(b"#"))
        .is_some_and(|l| is_cif(l.trim_ascii_start()))
    {
        return Some(Format::MmCif);
    }
    lines
        .any(|l| {
            RECORDS.iter().any(|r| {
                l.starts_with(r.trim_ascii_end())
                    && l.get(..6).unwrap_or(l).trim_ascii_end() == r.trim_ascii_end()
            })
        })
        .then_some(Format::Pdb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_first_bytes() {
        for (head, format) in [
            (&b"data_1ABC\n#\n"[..], Some(Format::MmCif)),
            (b"# a comment\n\n DATA_x\n", Some(Format::MmCif)),
            (b"HEADER    HYDROLASE\n", Some(Format::Pdb)),
            (b"MASK\nATOM      1  N   ALA A   1", Some(Format::Pdb)),
            (b"\x83\xa7encoder", Some(Format::BinaryCif)),
            (b"\x1f\x8b\x08", Some(Format::Gzip)),
            (b"ATOMS of the world\n", None),
            (b"\x89PNG\r\n\x1a\n", None),
            (b"hello", None),
            (b"", None),
        ] {
            assert_eq!(sniff(head), format, "{head:?}");
        }
    }
}
