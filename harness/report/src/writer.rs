//! One CSV file of a run: a row is written once and flushed; a resumed run cuts back to what its checkpoint covers. Length and hash of
//! what was written are kept, so that a row that was deleted or edited since is noticed.

use crate::{ReportError, RunKeys, key_columns};
use equivbench_core::{Cell, TableInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The header line of a table of a run, without line end.
#[must_use]
pub fn header(table: &TableInfo) -> Vec<&'static str> {
    let keys = key_columns();
    keys.iter().chain(&table.columns).map(|c| c.name).collect()
}

/// The beginning of a table: its length and what stands in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of these bytes, in hexadecimal digits; empty for none.
    pub sha256: String,
}

impl Extent {
    /// The extent of a whole content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        Self {
            bytes: content.len() as u64,
            sha256: hex(&Sha256::new_with_prefix(content)),
        }
    }

    /// Whether a table still begins with what it was.
    ///
    /// # Errors
    /// Names the file and what is wrong with it.
    pub fn check(&self, path: &Path, content: &[u8]) -> Result<(), ReportError> {
        let bytes = content.len() as u64;
        if bytes < self.bytes {
            let what = format!(
                "{} bytes of this table were written, the file has {bytes}: rows are gone; delete the folder that it lies in to start it anew",
                self.bytes
            );
            return Err(ReportError::content(path, what));
        }
        let own = Self::of(&content[..self.bytes as usize]);
        if self.bytes > 0 && own.sha256 != self.sha256 {
            let what = "what was written into this table was changed since; restore it, or delete the folder that it lies in to start it anew";
            return Err(ReportError::content(path, what));
        }
        Ok(())
    }
}

fn hex(hash: &Sha256) -> String {
    hash.clone()
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Forces the rows of a table to the disk.
pub struct TableSync {
    path: PathBuf,
    file: File,
}

impl TableSync {
    /// Returns when they are there.
    ///
    /// # Errors
    /// No space, or another refusal of the file system.
    pub fn sync(&self) -> Result<(), ReportError> {
        self.file.sync_data().map_err(ReportError::io(&self.path))
    }
}

/// Appends rows to the CSV file of one table.
pub struct TableWriter {
    path: PathBuf,
    file: File,
    bytes: u64,
    hash: Sha256,
    columns: usize,
}

impl TableWriter {
    /// Opens `<folder>/<table>.csv`, keeps what is covered and drops the rest. With nothing to keep, the header is written.
    ///
    /// # Errors
    /// A file that cannot be opened, is shorter than what is covered, or was changed since.
    pub fn open(folder: &Path, table: &TableInfo, covered: &Extent) -> Result<Self, ReportError> {
        let path = folder.join(format!("{}.csv", table.name));
        let io = || ReportError::io(&path);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io())?;
        let mut content = Vec::new();
        let kept = (&mut file).take(covered.bytes).read_to_end(&mut content);
        kept.map_err(io())?;
        covered.check(&path, &content)?;
        file.set_len(covered.bytes).map_err(io())?;
        file.seek(SeekFrom::Start(covered.bytes)).map_err(io())?;
        let header = header(table);
        let mut writer = Self {
            path,
            file,
            bytes: covered.bytes,
            hash: Sha256::new_with_prefix(&content),
            columns: header.len(),
        };
        if covered.bytes == 0 {
            writer.write(&header)?;
        }
        Ok(writer)
    }

    /// Writes one row and flushes it.
    ///
    /// # Errors
    /// No space, or another refusal of the file system.
    ///
    /// # Panics
    /// A row with another number of cells than the table has columns: a protocol that breaks its own declaration.
    pub fn row(&mut self, keys: &RunKeys, cells: &[Cell]) -> Result<(), ReportError> {
        let mut texts = keys.texts();
        texts.extend(cells.iter().map(Cell::text));
        assert_eq!(
            texts.len(),
            self.columns,
            "a row of {} has a cell for each declared column",
            self.path.display()
        );
        self.write(&texts)
    }

    fn write<T: AsRef<[u8]>>(&mut self, cells: &[T]) -> Result<(), ReportError> {
        let mut line = csv::Writer::from_writer(Vec::new());
        let text = line
            .write_record(cells)
            .map_err(std::io::Error::other)
            .and_then(|()| line.into_inner().map_err(|e| e.into_error()));
        let text = text.map_err(ReportError::io(&self.path))?;
        self.file
            .write_all(&text)
            .and_then(|()| self.file.flush())
            .map_err(ReportError::io(&self.path))?;
        self.bytes += text.len() as u64;
        self.hash.update(&text);
        Ok(())
    }

    /// What was written so far: what a checkpoint covers.
    #[must_use]
    pub fn extent(&self) -> Extent {
        Extent {
            bytes: self.bytes,
            sha256: hex(&self.hash),
        }
    }

    /// What forces the rows written so far to the disk, on any thread.
    ///
    /// # Errors
    /// No more file handles.
    pub fn to_sync(&self) -> Result<TableSync, ReportError> {
        let file = self.file.try_clone().map_err(ReportError::io(&self.path))?;
        Ok(TableSync {
            path: self.path.clone(),
            file,
        })
    }

    /// Forces the rows to the disk.
    ///
    /// # Errors
    /// A refusal of the file system.
    pub fn sync(&self) -> Result<(), ReportError> {
        self.file.sync_data().map_err(ReportError::io(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equivbench_core::ColumnInfo;

    fn table() -> TableInfo {
        TableInfo {
            name: "t",
            about: "",
            columns: vec![ColumnInfo {
                name: "x",
                unit: "",
                about: "",
                timing: false,
            }],
        }
    }

    fn keys() -> RunKeys {
        RunKeys {
            run: "r".into(),
            dataset: "a, b".into(),
            ..RunKeys::default()
        }
    }

    #[test]
    fn reopening_cuts_back_to_what_is_covered() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TableWriter::open(folder.path(), &table(), &Extent::default()).unwrap();
        writer.row(&keys(), &[0.5.into()]).unwrap();
        let covered = writer.extent();
        writer.row(&keys(), &[Cell::Missing]).unwrap();
        let mut writer = TableWriter::open(folder.path(), &table(), &covered).unwrap();
        writer.row(&keys(), &[7u64.into()]).unwrap();
        let text = std::fs::read_to_string(folder.path().join("t.csv")).unwrap();
        assert_eq!(
            text,
            "run,model,size,dataset,train_samples,settings,seed,x\nr,,,\"a, b\",0,,0,0.5\nr,,,\"a, b\",0,,0,7\n"
        );
        assert_eq!(writer.extent(), Extent::of(text.as_bytes()));
    }

    #[test]
    fn a_row_that_is_gone_or_edited_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = TableWriter::open(folder.path(), &table(), &Extent::default()).unwrap();
        writer.row(&keys(), &[0.5.into()]).unwrap();
        writer.row(&keys(), &[0.25.into()]).unwrap();
        let (covered, path) = (writer.extent(), folder.path().join("t.csv"));
        let whole = std::fs::read_to_string(&path).unwrap();
        let shorter = whole
            .lines()
            .take(2)
            .map(|l| format!("{l}\n"))
            .collect::<String>();
        for (text, said) in [
            (shorter, "rows are gone"),
            (whole.replace("0.25", "0.35"), "changed"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = TableWriter::open(folder.path(), &table(), &covered)
                .err()
                .unwrap();
            assert!(error.to_string().contains(said), "{error}");
        }
        // Rows beyond what is covered are those of a run that died: they may be anything.
        std::fs::write(&path, whole + "torn").unwrap();
        assert!(TableWriter::open(folder.path(), &table(), &covered).is_ok());
    }
}
