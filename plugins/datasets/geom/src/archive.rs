//! Zip archives (npz and torch files are such) whose entries are read side by side.

use equivbench_dataset_tools::{DAMAGED, bad_data};
use equivbench_plugin::PluginResult;
use std::{
    io::{self, BufReader, Read, Seek, SeekFrom},
    rc::Rc,
};
use zip::{ZipArchive, read::ZipFile};

/// What a size in a damaged file may not exceed; the largest molecule of GEOM has 181 atoms.
pub(crate) const MAX_ATOMS: usize = 100_000;
/// An open archive. Its clones share the table of contents and have a reading position each.
pub(crate) type Archive<R> = ZipArchive<Reopened<R>>;
/// One entry while it is read.
pub(crate) type Entry<'a, R> = ZipFile<'a, Reopened<R>>;

/// Opens an archive; `reopen` gives its bytes from the start, once per entry that is read side by side with others.
///
/// # Errors
/// The file cannot be opened or is no zip archive.
pub(crate) fn open<R: Read + Seek>(
    source: &str,
    reopen: impl Fn() -> io::Result<R> + 'static,
) -> PluginResult<Archive<R>> {
    let reader = Reopened {
        reopen: Rc::new(reopen),
        reader: None,
    };
    ZipArchive::new(reader).map_err(|e| {
        bad_data(
            source,
            "",
            format!("it cannot be read as a zip archive ({e})"),
            DAMAGED,
        )
    })
}

/// The entry of this name.
///
/// # Errors
/// It is missing, encrypted or compressed in an unknown way.
pub(crate) fn entry<'a, R: Read + Seek>(
    archive: &'a mut Archive<R>,
    source: &str,
    name: &str,
) -> PluginResult<Entry<'a, R>> {
    archive.by_name(name).map_err(|e| {
        bad_data(
            source,
            &format!("entry {name}"),
            format!("it cannot be read ({e})"),
            DAMAGED,
        )
    })
}

/// A file that opens itself again for each clone, so that clones do not move each other's position.
pub(crate) struct Reopened<R> {
    reopen: Rc<dyn Fn() -> io::Result<R>>,
    reader: Option<BufReader<R>>,
}

impl<R: Read> Reopened<R> {
    fn reader(&mut self) -> io::Result<&mut BufReader<R>> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => BufReader::new((self.reopen)()?),
        };
        Ok(self.reader.insert(reader))
    }
}

impl<R> Clone for Reopened<R> {
    fn clone(&self) -> Self {
        Self {
            reopen: Rc::clone(&self.reopen),
            reader: None,
        }
    }
}

impl<R: Read> Read for Reopened<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader()?.read(buffer)
    }
}

impl<R: Read + Seek> Seek for Reopened<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader()?.seek(to)
    }
}

/// What the tests of the readers share.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::conformer::{Conformer, Sink};
    use std::{io::Cursor, path::PathBuf};

    /// What a reader hands over, and how it ends.
    pub(crate) fn collect(
        read: impl FnOnce(&mut Sink<'_>) -> PluginResult<()>,
    ) -> (Vec<Conformer>, PluginResult<()>) {
        let mut conformers = Vec::new();
        let result = read(&mut |conformer| {
            conformers.push(conformer);
            Ok(())
        });
        (conformers, result)
    }

    /// A file of tests/fixtures.
    pub(crate) fn fixture(name: &str) -> PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures")
            .join(name)
    }

    /// An archive with these entries.
    pub(crate) fn zip(entries: &[(&str, &[u8])], is_deflated: bool) -> Vec<u8> {
        use std::io::Write;
        let method = if is_deflated {
            zip::CompressionMethod::Deflated
        } else {
            zip::CompressionMethod::Stored
        };
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (name, bytes) in entries {
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    /// Opens an archive that lies in memory.
    pub(crate) fn open_bytes(bytes: &[u8]) -> PluginResult<Archive<Cursor<Rc<[u8]>>>> {
        let bytes: Rc<[u8]> = bytes.into();
        open("memory", move || Ok(Cursor::new(Rc::clone(&bytes))))
    }

    /// What `tests/fixtures/make_reader_fixtures.py` writes.
    pub(crate) fn fixture_conformers() -> Vec<Conformer> {
        let molecules: [(&str, &[u8], usize); 3] = [
            ("O", &[8, 1, 1], 2),
            ("C#N", &[6, 7, 1], 2),
            ("CO", &[6, 8], 1),
        ];
        let position = |m: usize, c: usize, a: usize| {
            let (m, c, a) = (m as f64, c as f64, a as f64);
            [m + 1.0 + a / 4.0, c - a / 2.0, a / 8.0 - m]
        };
        let conformers = molecules
            .iter()
            .enumerate()
            .flat_map(|(m, &(molecule, numbers, n))| {
                (0..n).map(move |c| Conformer {
                    molecule: molecule.into(),
                    numbers: numbers.to_vec(),
                    positions: (0..numbers.len()).map(|a| position(m, c, a)).collect(),
                    ..Conformer::default()
                })
            });
        conformers.collect()
    }

    /// The largest distance between coordinates of conformers that must agree in everything else.
    pub(crate) fn largest_difference(a: &[Conformer], b: &[Conformer]) -> f64 {
        assert_eq!(a.len(), b.len());
        let mut largest = 0.0_f64;
        for (a, b) in a.iter().zip(b) {
            assert_eq!(a.numbers, b.numbers);
            assert_eq!(a.positions.len(), b.positions.len());
            let pairs = a
                .positions
                .iter()
                .flatten()
                .zip(b.positions.iter().flatten());
            largest = pairs.fold(largest, |largest, (a, b)| largest.max((a - b).abs()));
        }
        largest
    }

    /// Copies with one bit flipped, at pseudorandom positions.
    pub(crate) fn flipped(bytes: &[u8], times: usize) -> impl Iterator<Item = Vec<u8>> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..times).map(move |_| {
            // xorshift64 (Marsaglia 2003).
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut copy = bytes.to_vec();
            let bit = (state >> 16) as usize % (8 * bytes.len());
            copy[bit / 8] ^= 1 << (bit % 8);
            copy
        })
    }
}
