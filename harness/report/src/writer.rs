//! One CSV file of a run: a row is written once and flushed; a resumed run cuts back to what its checkpoint covers.

use crate::{KEY_COLUMNS, ReportError, RunKeys};
use equivbench_core::{Cell, Table};
use std::{
    fs::{File, OpenOptions},
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// The header line of a table, without line end.
#[must_use]
pub fn header(table: &Table) -> Vec<&'static str> {
    KEY_COLUMNS
        .iter()
        .chain(table.columns())
        .map(|c| c.name)
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
    columns: usize,
}

impl TableWriter {
    /// Opens `<folder>/<table>.csv`, keeps its first `covered` bytes and drops the rest. With nothing to keep, the header is written.
    ///
    /// # Errors
    /// A file that cannot be opened or is shorter than what a checkpoint covers.
    pub fn open(folder: &Path, table: &Table, covered: u64) -> Result<Self, ReportError> {
        let path = folder.join(format!("{}.csv", table.name));
        let io = || ReportError::io(&path);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io())?;
        let length = file.metadata().map_err(io())?.len();
        if length < covered {
            let what = format!(
                "the checkpoint covers {covered} bytes of this table, the file has {length}; delete the run's folder to start it anew"
            );
            return Err(ReportError::content(&path, what));
        }
        file.set_len(covered).map_err(io())?;
        file.seek(SeekFrom::Start(covered)).map_err(io())?;
        let columns = header(table).len();
        let mut writer = Self {
            path,
            file,
            bytes: covered,
            columns,
        };
        if covered == 0 {
            writer.write(&header(table))?;
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
        let texts: Vec<String> = keys.cells().iter().chain(cells).map(Cell::text).collect();
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
        Ok(())
    }

    /// Bytes written so far: what a checkpoint covers.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
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
    use equivbench_core::Column;

    static TABLE: Table = Table {
        name: "t",
        about: "",
        groups: &[&[Column::new("x", "", "")]],
    };

    #[test]
    fn reopening_cuts_back_to_what_is_covered() {
        let folder = tempfile::tempdir().unwrap();
        let keys = RunKeys {
            run: "r".into(),
            dataset: "a, b".into(),
            ..RunKeys::default()
        };
        let mut writer = TableWriter::open(folder.path(), &TABLE, 0).unwrap();
        writer.row(&keys, &[0.5.into()]).unwrap();
        let covered = writer.bytes();
        writer.row(&keys, &[Cell::Missing]).unwrap();
        let mut writer = TableWriter::open(folder.path(), &TABLE, covered).unwrap();
        writer.row(&keys, &[7u64.into()]).unwrap();
        let text = std::fs::read_to_string(folder.path().join("t.csv")).unwrap();
        assert_eq!(
            text,
            "run,model,size,dataset,train_samples,seed,x\nr,,,\"a, b\",0,0,0.5\nr,,,\"a, b\",0,0,7\n"
        );
        assert!(TableWriter::open(folder.path(), &TABLE, 10_000).is_err());
    }
}
