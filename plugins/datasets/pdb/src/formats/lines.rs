//! Lines of a text file of any size in a buffer of bounded size.

use std::io::{BufRead, Read};

/// A line longer than this is no line of a structure file.
const LONGEST_LINE: u64 = 1 << 24;
/// Text beyond this is refused: the largest entry of the archive has 1 GB, so it is a decompression bomb or damage.
const LONGEST_TEXT: u64 = 1 << 33;

/// A reader of lines that counts them.
pub(crate) struct Lines<'a> {
    input: &'a mut dyn BufRead,
    line: Vec<u8>,
    bytes: u64,
    /// Number of the last line, from 1.
    pub(crate) number: u64,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(input: &'a mut dyn BufRead) -> Self {
        Self {
            input,
            line: Vec::new(),
            bytes: 0,
            number: 0,
        }
    }

    /// The next line without its end, `None` after the last.
    ///
    /// # Errors
    /// What the input reports (a truncated gzip file); a line or a text that is too long.
    pub(crate) fn next(&mut self) -> Result<Option<&[u8]>, String> {
        self.line.clear();
        let read = (&mut *self.input)
            .take(LONGEST_LINE)
            .read_until(b'\n', &mut self.line)
            .map_err(|e| super::unreadable(&e))?;
        self.number += u64::from(read > 0);
        self.bytes += read as u64;
        if read as u64 == LONGEST_LINE || self.bytes > LONGEST_TEXT {
            return Err(format!(
                "line {}: it is too long for a structure file",
                self.number
            ));
        }
        if read == 0 {
            return Ok(None);
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        // Some editors begin a file with a byte order mark.
        let line = line
            .strip_prefix(b"\xef\xbb\xbf")
            .filter(|_| self.number == 1)
            .unwrap_or(line);
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }
}
