//! A reader of LMDB files (data version 1) without a memory map: pages are read by position and every number in them is checked,
//! so a damaged file is an error and never a crash, no lock file is made, and no unsafe code is needed.
//!
//! Layout: pages of one size; pages 0 and 1 are meta pages, the younger of which names the root of the main B-tree. A page has a
//! header of 16 bytes (number u64, padding u16, flags u16, lower u16, upper u16) and then offsets of its nodes; a node has data size or
//! child page (u16 low, u16 high, u16 flags) and key size (u16), then key and data; large data lie on overflow pages.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

const MAGIC: u32 = 0xBEEF_C0DE;
const HEADER: usize = 16;
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const BIG_DATA: u16 = 0x01;
/// Sub-databases and duplicates, which flat key-value files do not have.
const NESTED: u16 = 0x06;
const MAX_DEPTH: usize = 32;

/// Whether a file begins like an LMDB data file.
pub(crate) fn has_magic(head: &[u8]) -> bool {
    u32_at(head, HEADER) == Some(MAGIC)
}

/// An open LMDB file.
pub(crate) struct Lmdb {
    file: File,
    page_bytes: usize,
    pages: u64,
    root: Option<u64>,
}

/// Where a value lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValuePlace {
    offset: u64,
    bytes: u32,
}

type Result<T> = std::result::Result<T, String>;

impl Lmdb {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| e.to_string())?;
        let length = file.metadata().map_err(|e| e.to_string())?.len();
        let first = read_at(&mut file, 0, 4096.min(length as usize))?;
        let first = Meta::parse(&first)?;
        let page_bytes = first.page_bytes;
        // The other meta page may be the younger one; if it is damaged the first stands.
        let second = read_at(&mut file, page_bytes as u64, 4096)
            .ok()
            .and_then(|page| Meta::parse(&page).ok());
        let newest = second
            .filter(|m| m.transaction > first.transaction && m.page_bytes == page_bytes)
            .unwrap_or(first);
        let root = (newest.root != u64::MAX).then_some(newest.root);
        Ok(Self {
            file,
            page_bytes,
            pages: length / page_bytes as u64,
            root,
        })
    }

    /// All keys in order, each with the place of its value.
    pub(crate) fn entries(&mut self) -> Result<Vec<(Vec<u8>, ValuePlace)>> {
        let mut out = Vec::new();
        let mut visited = 0;
        if let Some(root) = self.root {
            self.walk(root, 0, &mut visited, &mut out)?;
        }
        Ok(out)
    }

    /// The bytes of a value.
    pub(crate) fn value(&mut self, value: ValuePlace) -> Result<Vec<u8>> {
        read_at(&mut self.file, value.offset, value.bytes as usize)
    }

    fn walk(
        &mut self,
        number: u64,
        depth: usize,
        visited: &mut u64,
        out: &mut Vec<(Vec<u8>, ValuePlace)>,
    ) -> Result<()> {
        *visited += 1;
        if depth > MAX_DEPTH || *visited > self.pages {
            return Err("the tree of pages has a loop".into());
        }
        let page = self.page(number)?;
        let flags = u16_at(&page, 10).unwrap_or(0);
        let nodes = usize::from(u16_at(&page, 12).unwrap_or(0))
            .checked_sub(HEADER)
            .ok_or_else(|| broken(number))?
            / 2;
        for i in 0..nodes {
            let at = usize::from(u16_at(&page, HEADER + 2 * i).ok_or_else(|| broken(number))?);
            if flags & BRANCH != 0 {
                self.walk(
                    child(&page, at).ok_or_else(|| broken(number))?,
                    depth + 1,
                    visited,
                    out,
                )?;
            } else if flags & LEAF != 0 {
                out.push(self.leaf(&page, number, at)?);
            } else {
                return Err(broken(number));
            }
        }
        Ok(())
    }

    fn leaf(&mut self, page: &[u8], number: u64, at: usize) -> Result<(Vec<u8>, ValuePlace)> {
        let field = |offset| u16_at(page, at + offset).ok_or_else(|| broken(number));
        let bytes = u32::from(field(0)?) | u32::from(field(2)?) << 16;
        let (flags, key_bytes) = (field(4)?, usize::from(field(6)?));
        let key = page
            .get(at + 8..at + 8 + key_bytes)
            .ok_or_else(|| broken(number))?
            .to_vec();
        let data = at + 8 + key_bytes;
        if flags & NESTED != 0 {
            return Err(format!(
                "page {number} holds a database inside the database, so this is not a flat key-value file"
            ));
        }
        if flags & BIG_DATA == 0 {
            page.get(data..data + bytes as usize)
                .ok_or_else(|| broken(number))?;
            return Ok((
                key,
                ValuePlace {
                    offset: number * self.page_bytes as u64 + data as u64,
                    bytes,
                },
            ));
        }
        let first = u64_at(page, data).ok_or_else(|| broken(number))?;
        let header = self.page_header(first)?;
        if u16_at(&header, 10).unwrap_or(0) & OVERFLOW == 0 {
            return Err(broken(first));
        }
        let offset = first * self.page_bytes as u64 + HEADER as u64;
        if offset + u64::from(bytes) > self.pages * self.page_bytes as u64 {
            return Err(format!(
                "a value of {bytes} bytes reaches beyond the end of the file"
            ));
        }
        Ok((key, ValuePlace { offset, bytes }))
    }

    fn page(&mut self, number: u64) -> Result<Vec<u8>> {
        self.check(number)?;
        read_at(
            &mut self.file,
            number * self.page_bytes as u64,
            self.page_bytes,
        )
    }

    fn page_header(&mut self, number: u64) -> Result<Vec<u8>> {
        self.check(number)?;
        read_at(&mut self.file, number * self.page_bytes as u64, HEADER)
    }

    fn check(&self, number: u64) -> Result<()> {
        if number < self.pages {
            Ok(())
        } else {
            Err(format!(
                "page {number} lies beyond the end of the file ({} pages)",
                self.pages
            ))
        }
    }
}

struct Meta {
    page_bytes: usize,
    root: u64,
    transaction: u64,
}

impl Meta {
    /// After the page header: magic u32, version u32, address u64, map size u64, two databases of 48 bytes (free list, main), last page u64,
    /// transaction u64. The page size stands in the first four bytes of the free list's entry, a root in the last eight of an entry.
    fn parse(page: &[u8]) -> Result<Self> {
        let short = || "the meta page is cut off".to_owned();
        if !has_magic(page) {
            return Err("it does not begin like an LMDB file".into());
        }
        let version = u32_at(page, 20).ok_or_else(short)?;
        if version != 1 {
            return Err(format!(
                "its LMDB data version is {version}, only 1 is known"
            ));
        }
        let page_bytes = u32_at(page, 40).ok_or_else(short)? as usize;
        if !page_bytes.is_power_of_two() || !(512..=65536).contains(&page_bytes) {
            return Err(format!("a page size of {page_bytes} is not possible"));
        }
        let root = u64_at(page, 128).ok_or_else(short)?;
        let transaction = u64_at(page, 144).ok_or_else(short)?;
        Ok(Self {
            page_bytes,
            root,
            transaction,
        })
    }
}

fn child(page: &[u8], at: usize) -> Option<u64> {
    let word = |i| u16_at(page, at + i).map(u64::from);
    Some(word(0)? | word(2)? << 16 | word(4)? << 32)
}

fn broken(number: u64) -> String {
    format!("page {number} is damaged")
}

fn read_at(file: &mut File, offset: u64, bytes: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.read_exact(&mut buffer))
        .map_err(|e| format!("reading at byte {offset} failed ({e})"))?;
    Ok(buffer)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deep() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&include_bytes!("../tests/fixtures/deep.lmdb.gz")[..])
            .read_to_end(&mut bytes)
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep.lmdb");
        std::fs::write(&path, &bytes).unwrap();
        (folder, path, bytes)
    }

    /// The file was written by liblmdb (see tests/fixtures/make_fixtures.py): three levels, overflow pages, deletions.
    #[test]
    fn every_value_of_a_deep_file_is_what_liblmdb_wrote() {
        let (_folder, path, _) = deep();
        let mut lmdb = Lmdb::open(&path).unwrap();
        let entries = lmdb.entries().unwrap();
        assert_eq!(entries.len(), 3428);
        assert!(
            entries.windows(2).all(|w| w[0].0 < w[1].0),
            "keys come in order"
        );
        for (key, value) in entries {
            let i: usize = String::from_utf8(key).unwrap().parse().unwrap();
            assert_ne!(i % 7, 0, "deleted in the second transaction");
            let length = if i.is_multiple_of(100) {
                9000
            } else {
                200 + i % 100
            };
            assert_eq!(lmdb.value(value).unwrap(), vec![(i % 251) as u8; length]);
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_or_smaller_but_never_a_panic() {
        let (_folder, path, bytes) = deep();
        for length in (0..bytes.len()).step_by(bytes.len() / 50 + 1) {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let read = Lmdb::open(&path).and_then(|mut l| l.entries());
            assert!(read.is_err(), "{length} of {} bytes", bytes.len());
        }
        for i in 0..400 {
            let mut flipped = bytes.clone();
            // Headers of pages, where damage does most: a stride that visits all offsets of the first 64 bytes.
            let at = (i * 7919 % (bytes.len() / 4096)) * 4096 + i % 64;
            flipped[at] ^= 1 << (i % 8) | 0x80;
            std::fs::write(&path, &flipped).unwrap();
            let _ = Lmdb::open(&path).and_then(|mut l| {
                let entries = l.entries()?;
                entries
                    .into_iter()
                    .try_for_each(|(_, v)| l.value(v).map(drop))
            });
        }
    }
}
