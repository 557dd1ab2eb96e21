//! A table of results that keeps the rows that are not measured anew.

use anyhow::{Context, Result};
use std::path::PathBuf;

/// Rows of cells under fixed columns.
pub(crate) struct Table {
    path: PathBuf,
    columns: Vec<&'static str>,
    /// How many columns, from the first, tell rows apart.
    keys: usize,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// What is in the file, if there is one. Cells of columns that it lacks are empty, columns that it should not have are dropped.
    pub(crate) fn read(path: PathBuf, columns: Vec<&'static str>, keys: usize) -> Result<Self> {
        let rows = if path.exists() {
            rows(&path, &columns).with_context(|| path.display().to_string())?
        } else {
            Vec::new()
        };
        Ok(Self {
            path,
            columns,
            keys,
            rows,
        })
    }

    /// Replaces the row with the same keys, or adds one, and writes the file in the order of `order`, a list of keys.
    pub(crate) fn put(&mut self, row: Vec<String>, order: &[Vec<String>]) -> Result<()> {
        let keys = self.keys;
        self.rows.retain(|old| old[..keys] != row[..keys]);
        self.rows.push(row);
        self.rows.sort_by_key(|row| {
            order
                .iter()
                .position(|key| row[..keys] == key[..])
                .unwrap_or(order.len())
        });
        self.write()
            .with_context(|| self.path.display().to_string())
    }

    fn write(&self) -> Result<()> {
        let mut writer = csv::Writer::from_path(&self.path)?;
        writer.write_record(&self.columns)?;
        self.rows
            .iter()
            .try_for_each(|row| writer.write_record(row))?;
        Ok(writer.flush()?)
    }
}

fn rows(path: &PathBuf, columns: &[&str]) -> Result<Vec<Vec<String>>> {
    let mut reader = csv::Reader::from_path(path)?;
    let headers = reader.headers()?.clone();
    let places: Vec<Option<usize>> = columns
        .iter()
        .map(|column| headers.iter().position(|header| header == *column))
        .collect();
    let row = |record: csv::StringRecord| {
        let cell = |place: &Option<usize>| {
            place
                .and_then(|place| record.get(place))
                .unwrap_or_default()
                .to_owned()
        };
        places.iter().map(cell).collect()
    };
    reader.records().map(|record| Ok(row(record?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_replaces_its_like_and_others_are_kept_in_order() {
        let path =
            std::env::temp_dir().join(format!("equivbench-table-{}.csv", std::process::id()));
        std::fs::write(&path, "name,old,seconds\nb,1,2\n\"a, c\",3,4\n").unwrap();
        let mut table = Table::read(path.clone(), vec!["name", "seconds", "memory"], 1).unwrap();
        let order = ["a, c", "b"].map(|name| vec![name.to_owned()]);
        table
            .put(vec!["b".into(), "7".into(), "8".into()], &order)
            .unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(written, "name,seconds,memory\n\"a, c\",4,\nb,7,8\n");
    }
}
