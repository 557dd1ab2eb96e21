//! Files as streams: compressed ones are unpacked, bytes count as progress, and a thread of its own reads ahead.

use equivbench_plugin::Progress;
use flate2::read::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
};

const BUFFER: usize = 1 << 16;
/// Bytes of one block that is read ahead, and how many blocks may wait.
const BLOCK: usize = 1 << 18;
const BLOCKS: usize = 8;

/// Whether a file begins like one of gzip.
///
/// # Errors
/// It cannot be read.
pub fn is_gzip(path: &Path) -> io::Result<bool> {
    let mut magic = Vec::new();
    File::open(path)?.take(2).read_to_end(&mut magic)?;
    Ok(magic == [0x1f, 0x8b])
}

/// Opens a plain or gzip file, told by its first bytes. A compressed file that ends too early is an error of the read that meets the end.
///
/// # Errors
/// It cannot be opened.
pub fn open(path: &Path) -> io::Result<Box<dyn BufRead + Send>> {
    unpacked(File::open(path)?)
}

/// As [`open`]; bytes of the file, as it lies on the disk, count as progress.
///
/// # Errors
/// It cannot be opened.
pub fn open_with(path: &Path, progress: &Arc<Progress>) -> io::Result<Box<dyn BufRead + Send>> {
    unpacked(Counted {
        input: File::open(path)?,
        progress: Arc::clone(progress),
    })
}

fn unpacked(input: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    match input.fill_buf()? {
        [0x1f, 0x8b, ..] => Ok(Box::new(BufReader::with_capacity(
            BUFFER,
            MultiGzDecoder::new(input),
        ))),
        _ => Ok(Box::new(input)),
    }
}

/// Counts what is read.
struct Counted<R> {
    input: R,
    progress: Arc<Progress>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.progress.add(read as u64);
        Ok(read)
    }
}

/// Reads (and unpacks) in a thread of its own, some blocks ahead of whoever takes the bytes. The thread ends with the input, or when nobody
/// takes any more.
///
/// # Errors
/// The system gives no thread.
pub fn read_ahead(mut input: Box<dyn BufRead + Send>) -> io::Result<Box<dyn BufRead + Send>> {
    let (to, blocks) = sync_channel(BLOCKS);
    let read = move || {
        loop {
            let mut block = Vec::with_capacity(BLOCK);
            let result = input.by_ref().take(BLOCK as u64).read_to_end(&mut block);
            // What was read before a failure is handed over first: an error then names the right place. An empty block is the end.
            let is_empty = block.is_empty();
            let is_end = is_empty && result.is_ok();
            if (is_end || !is_empty) && to.send(Ok(block)).is_err() {
                return;
            }
            if let Err(error) = result {
                let _ = to.send(Err(error));
                return;
            }
            if is_end {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("read ahead".into())
        .spawn(read)?;
    Ok(Box::new(Ahead {
        blocks,
        block: Vec::new(),
        at: 0,
        is_at_end: false,
    }))
}

struct Ahead {
    blocks: Receiver<io::Result<Vec<u8>>>,
    block: Vec<u8>,
    at: usize,
    is_at_end: bool,
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.block.len() && !self.is_at_end {
            // A channel that closes before the empty block is no end: the thread died, or it had told of an error already.
            self.block = self
                .blocks
                .recv()
                .unwrap_or_else(|_| Err(io::Error::other("the thread that reads ahead stopped")))?;
            self.at = 0;
            self.is_at_end = self.block.is_empty();
        }
        Ok(&self.block[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = (self.at + amount).min(self.block.len());
    }
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

/// What went wrong while reading, in words.
#[must_use]
pub fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            "it ends too early: a download or a copy was cut off".into()
        }
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
            format!("its compression is damaged ({error})")
        }
        _ => format!("it cannot be read ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Three blocks and a bit, which repeat only after a prime number of bytes.
    fn content() -> Vec<u8> {
        (0..3 * BLOCK + 17).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn plain_compressed_and_concatenated_files_read_the_same() {
        let content = content();
        let (first, second) = content.split_at(100_000);
        for bytes in [
            content.clone(),
            packed(&content),
            [packed(first), packed(second)].concat(),
        ] {
            let (_folder, path) = written(&bytes);
            assert_eq!(is_gzip(&path).unwrap(), bytes.starts_with(&[0x1f, 0x8b]));
            for ahead in [false, true] {
                let progress = Arc::new(Progress::new("reading", bytes.len() as u64));
                let mut input = open_with(&path, &progress).unwrap();
                if ahead {
                    input = read_ahead(input).unwrap();
                }
                let mut read = Vec::new();
                input.read_to_end(&mut read).unwrap();
                assert!(read == content, "{ahead}");
            }
        }
    }

    #[test]
    fn what_comes_before_the_damage_is_handed_over_first() {
        let content = content();
        let mut bytes = packed(&content);
        bytes.truncate(bytes.len() - 20);
        let (_folder, path) = written(&bytes);
        let mut input = read_ahead(open(&path).unwrap()).unwrap();
        let mut read = Vec::new();
        let error = input.read_to_end(&mut read).unwrap_err();
        assert_eq!(
            unreadable(&error),
            "it ends too early: a download or a copy was cut off"
        );
        assert!(read.len() > BLOCK && content.starts_with(&read));
    }

    struct Dying;

    impl Read for Dying {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            panic!("the decompressor dies (on purpose, in a test)")
        }
    }

    #[test]
    fn a_thread_that_dies_is_an_error_and_no_end() {
        let content = content();
        let input = io::Cursor::new(content.clone()).chain(BufReader::new(Dying));
        let mut input = read_ahead(Box::new(input)).unwrap();
        let mut read = Vec::new();
        let error = input.read_to_end(&mut read).unwrap_err();
        assert_eq!(
            unreadable(&error),
            "it cannot be read (the thread that reads ahead stopped)"
        );
        assert!(read.len() >= 3 * BLOCK && content.starts_with(&read));
    }

    #[test]
    fn the_end_stays_the_end_and_an_error_stays_an_error() {
        let mut input = read_ahead(Box::new(io::Cursor::new(vec![1, 2, 3]))).unwrap();
        for expected in [3, 0, 0] {
            assert_eq!(input.read_to_end(&mut Vec::new()).unwrap(), expected);
        }
        let mut bytes = packed(&content());
        bytes.truncate(bytes.len() - 20);
        let (_folder, path) = written(&bytes);
        let mut input = read_ahead(open(&path).unwrap()).unwrap();
        for _ in 0..3 {
            assert!(input.read_to_end(&mut Vec::new()).is_err());
        }
    }

    #[test]
    fn a_reader_that_is_dropped_ends_the_thread() {
        let (_folder, path) = written(&content());
        let mut input = read_ahead(open(&path).unwrap()).unwrap();
        input.read_exact(&mut [0; 10]).unwrap();
        drop(input);
    }

    #[test]
    fn an_empty_file_is_empty() {
        let (_folder, path) = written(b"");
        assert!(!is_gzip(&path).unwrap());
        assert_eq!(
            read_ahead(open(&path).unwrap())
                .unwrap()
                .read_to_end(&mut Vec::new())
                .unwrap(),
            0
        );
    }
}
