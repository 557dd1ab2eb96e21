//! Tables of all runs of an experiment, one under the other in a fixed order, and the atomic replacement of files.

use crate::{ReportError, writer::header};
use equivbench_core::Table;
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// One merged table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MergedTable {
    /// Name without ending.
    pub name: &'static str,
    /// Column names.
    pub header: Vec<String>,
    /// Rows of all runs.
    pub rows: Vec<Vec<String>>,
}

impl MergedTable {
    /// Index of a column.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|c| c == name)
    }

    fn to_csv(&self) -> std::io::Result<Vec<u8>> {
        let mut csv = csv::Writer::from_writer(Vec::new());
        csv.write_record(&self.header)
            .map_err(std::io::Error::other)?;
        for row in &self.rows {
            csv.write_record(row).map_err(std::io::Error::other)?;
        }
        csv.into_inner().map_err(|e| e.into_error())
    }
}

/// Merges the tables of the runs, in the order given, and writes `<out>/<table>.csv`. A run without a table adds no rows.
///
/// # Errors
/// A file that cannot be read or written, or one with other columns.
pub fn merge_tables(
    out: &Path,
    runs: &[PathBuf],
    tables: &[&'static Table],
) -> Result<Vec<MergedTable>, ReportError> {
    let mut merged = Vec::new();
    for table in tables {
        let mut whole = MergedTable {
            name: table.name,
            header: header(table).into_iter().map(Into::into).collect(),
            rows: Vec::new(),
        };
        for run in runs {
            let path = run.join(format!("{}.csv", table.name));
            if path.exists() {
                whole.rows.extend(read(&path, &whole.header)?);
            }
        }
        let path = out.join(format!("{}.csv", table.name));
        write_atomically(&path, &whole.to_csv().map_err(ReportError::io(&path))?)?;
        merged.push(whole);
    }
    Ok(merged)
}

fn read(path: &Path, expected: &[String]) -> Result<Vec<Vec<String>>, ReportError> {
    let damaged =
        |e: csv::Error| ReportError::content(path, format!("not a table of this program: {e}"));
    let mut text = std::fs::read(path).map_err(ReportError::io(path))?;
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
    if reader
        .headers()
        .map_err(damaged)?
        .iter()
        .ne(expected.iter().map(String::as_str))
    {
        let what = "its columns are those of another version; keep it apart, or delete the run's folder to measure it anew";
        return Err(ReportError::content(path, what));
    }
    reader
        .records()
        .map(|r| {
            r.map(|r| r.iter().map(Into::into).collect())
                .map_err(damaged)
        })
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
