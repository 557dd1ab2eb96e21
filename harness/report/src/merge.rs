//! Tables of all runs of an experiment, one under the other in a fixed order, and the atomic replacement of files.

use crate::{Extent, MEASUREMENT, ReportError, key_columns, writer::header};
use equivbench_core::{Cell, CoreError, Sink, Table, TableInfo};
use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

/// A folder with tables: of a run, or of one measurement of a kept checkpoint of it.
#[derive(Clone, Debug, Default)]
pub struct TableSource {
    /// The folder.
    pub folder: PathBuf,
    /// What stands in the column `measurement`.
    pub measurement: String,
    /// What was written into each table, where the writing is finished.
    pub finished: Option<BTreeMap<String, Extent>>,
}

/// One merged table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedTable {
    /// Name without ending.
    pub name: &'static str,
    /// Column names.
    pub header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// Rows as they stand in a file.
#[derive(Default)]
struct Texts(Vec<Vec<String>>);

impl Sink for Texts {
    fn row(&mut self, _: &'static str, cells: Vec<Cell>) -> Result<(), CoreError> {
        self.0.push(cells.iter().map(Cell::text).collect());
        Ok(())
    }
}

/// A row of a table, its cells by name and as what they are.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    header: &'a [String],
    cells: &'a [String],
}

impl<'a> Row<'a> {
    /// The text of a cell; empty for one that was not measured.
    ///
    /// # Panics
    /// A column that the table does not have: a fault of whoever asks.
    #[must_use]
    pub fn text(&self, column: &str) -> &'a str {
        let at = self.header.iter().position(|c| c == column);
        let at = at.unwrap_or_else(|| panic!("the table has no column {column}"));
        &self.cells[at]
    }

    /// The text of a cell; `None` for a column that the table does not have.
    #[must_use]
    pub fn find(&self, column: &str) -> Option<&'a str> {
        let at = self.header.iter().position(|c| c == column)?;
        Some(&self.cells[at])
    }

    /// The number in a cell of a column that the table may not have.
    #[must_use]
    pub fn find_real(&self, column: &str) -> Option<f64> {
        Cell::parse(self.find(column)?).real()
    }

    /// The cell as what it is.
    #[must_use]
    pub fn cell(&self, column: &str) -> Cell {
        Cell::parse(self.text(column))
    }

    /// A number; `None` where it was not measured.
    #[must_use]
    pub fn real(&self, column: &str) -> Option<f64> {
        self.cell(column).real()
    }

    /// A count; `None` where it was not measured.
    #[must_use]
    pub fn count(&self, column: &str) -> Option<u64> {
        match self.cell(column) {
            Cell::Count(n) => Some(n),
            _ => None,
        }
    }

    /// Yes or no; `None` where it was not measured.
    #[must_use]
    pub fn flag(&self, column: &str) -> Option<bool> {
        self.cell(column).flag()
    }
}

impl MergedTable {
    fn new(table: &TableInfo) -> Self {
        let mut header: Vec<String> = header(table).into_iter().map(Into::into).collect();
        header.insert(key_columns().len(), MEASUREMENT.name.into());
        Self {
            name: table.name,
            header,
            rows: Vec::new(),
        }
    }

    /// A table of these rows.
    #[must_use]
    pub fn of(name: &'static str, header: &[&str], rows: Vec<Vec<String>>) -> Self {
        Self {
            name,
            header: header.iter().map(|c| (*c).to_owned()).collect(),
            rows,
        }
    }

    /// A table of typed rows, without the key columns of a run.
    ///
    /// # Errors
    /// A number that is not finite: a fault of whoever made the rows.
    pub fn made<R: 'static>(table: &Table<R>, rows: &[R]) -> Result<Self, CoreError> {
        let mut texts = Texts::default();
        rows.iter()
            .try_for_each(|row| table.write(&mut texts, row))?;
        let header: Vec<&str> = table.columns.iter().map(|c| c.info.name).collect();
        Ok(Self::of(table.name, &header, texts.0))
    }

    /// Whether it has a column.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        self.header.iter().any(|name| name == column)
    }

    /// Rows of all runs.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = Row<'_>> {
        let header = &self.header;
        self.rows.iter().map(move |cells| Row { header, cells })
    }

    /// Adds columns that take rows of several runs, a list of cells for each row, in their order.
    ///
    /// # Panics
    /// Where there is not one list for each row: a fault of whoever made them.
    pub fn add_columns(&mut self, names: &[&str], cells: Vec<Vec<Cell>>) {
        assert_eq!(
            cells.len(),
            self.rows.len(),
            "one list of cells for each row"
        );
        self.header.extend(names.iter().map(|n| (*n).to_owned()));
        for (row, cells) in self.rows.iter_mut().zip(cells) {
            row.extend(cells.iter().map(Cell::text));
        }
    }

    /// Writes `<out>/<name>.csv`, in one step.
    ///
    /// # Errors
    /// No space, no permission.
    pub fn write(&self, out: &Path) -> Result<(), ReportError> {
        let path = out.join(format!("{}.csv", self.name));
        write_atomically(&path, &self.to_csv().map_err(ReportError::io(&path))?)
    }

    /// The table as CSV.
    ///
    /// # Errors
    /// None that memory does not make.
    pub fn to_csv(&self) -> std::io::Result<Vec<u8>> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(&self.header)
            .map_err(std::io::Error::other)?;
        for row in &self.rows {
            csv.write_record(row).map_err(std::io::Error::other)?;
        }
        csv.into_inner().map_err(|e| e.into_error())
    }
}

/// Reads a merged table of a results directory; `None` where there is none.
///
/// # Errors
/// A file that cannot be read or is no table.
pub fn read_merged(out: &Path, name: &'static str) -> Result<Option<MergedTable>, ReportError> {
    let path = &out.join(format!("{name}.csv"));
    if !path.exists() {
        return Ok(None);
    }
    let damaged = |e: csv::Error| ReportError::content(path, format!("not a table: {e}"));
    let mut reader = csv::Reader::from_path(path).map_err(damaged)?;
    let header = reader.headers().map_err(damaged)?;
    let header = header.iter().map(Into::into).collect();
    let cells = |record: csv::StringRecord| record.iter().map(Into::into).collect();
    let rows = reader.records().map(|r| r.map(cells).map_err(damaged));
    Ok(Some(MergedTable {
        name,
        header,
        rows: rows.collect::<Result<_, _>>()?,
    }))
}

/// Merges tables, in the order of their sources. A source without a table adds no rows.
///
/// # Errors
/// A file that cannot be read, one with other columns, or one that was changed after it was finished.
pub fn merge_tables(
    sources: &[TableSource],
    tables: &[TableInfo],
) -> Result<Vec<MergedTable>, ReportError> {
    let mut merged = Vec::new();
    for table in tables {
        let mut whole = MergedTable::new(table);
        for source in sources {
            whole.rows.extend(read(source, table)?);
        }
        merged.push(whole);
    }
    Ok(merged)
}

fn read(source: &TableSource, table: &TableInfo) -> Result<Vec<Vec<String>>, ReportError> {
    let path = &source.folder.join(format!("{}.csv", table.name));
    let finished = source.finished.as_ref().and_then(|t| t.get(table.name));
    if !path.exists() && finished.is_none() {
        return Ok(Vec::new());
    }
    if source.finished.is_some() && finished.is_none() {
        let what = "status.toml beside it does not know this table: one of the two was changed since; restore it, or delete the folder that it lies in to measure it anew";
        return Err(ReportError::content(path, what));
    }
    let damaged =
        |e: csv::Error| ReportError::content(path, format!("not a table of this program: {e}"));
    let mut text = std::fs::read(path).map_err(ReportError::io(path))?;
    if let Some(extent) = finished {
        extent.check(path, &text)?;
        if extent.bytes < text.len() as u64 {
            let what = "rows were added after it was finished; remove them, or delete the folder that it lies in to measure it anew";
            return Err(ReportError::content(path, what));
        }
    }
    // A run that died while it wrote may leave a torn last line; a row counts once its line has an end.
    text.truncate(
        text.iter()
            .rposition(|&b| b == b'\n')
            .map_or(0, |end| end + 1),
    );
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut reader = csv::Reader::from_reader(text.as_slice());
    if reader.headers().map_err(damaged)?.iter().ne(header(table)) {
        let what = "its columns are those of another version; keep it apart, or delete the folder that it lies in to measure it anew";
        return Err(ReportError::content(path, what));
    }
    let keys = key_columns().len();
    let row = |record: csv::StringRecord| -> Vec<String> {
        let mut cells: Vec<String> = record.iter().map(Into::into).collect();
        cells.insert(keys, source.measurement.clone());
        cells
    };
    reader
        .records()
        .map(|r| r.map(row).map_err(damaged))
        .collect()
}

/// Replaces a file in one step: readers see the old content or the new, never a part.
///
/// # Errors
/// No space, no permission.
pub fn write_atomically(path: &Path, content: &[u8]) -> Result<(), ReportError> {
    write_parts_atomically(path, &[content])
}

/// As [`write_atomically`], for a content that lies in several places.
///
/// # Errors
/// No space, no permission.
pub fn write_parts_atomically(path: &Path, parts: &[&[u8]]) -> Result<(), ReportError> {
    let io = || ReportError::io(path);
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&temporary)?;
        parts.iter().try_for_each(|part| file.write_all(part))?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)
    };
    write()
        .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
        .map_err(io())
}
