//! A column is declared once, with what reads its cell from a row: header, cells, documentation and typed readers follow from it.

use crate::CoreError;
use std::sync::Arc;

/// What a table cell holds. `Missing` prints as an empty cell, never as 0.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Text.
    Text(String),
    /// A count.
    Count(u64),
    /// A real number, written with the fewest digits that read back exactly.
    Real(f64),
    /// Yes or no.
    Flag(bool),
    /// Not measured.
    Missing,
}

impl Cell {
    /// The cell as it stands in a CSV file.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Text(t) => t.clone(),
            Self::Count(n) => n.to_string(),
            Self::Real(x) if *x != 0.0 && (x.abs() < 1e-4 || x.abs() >= 1e15) => format!("{x:e}"),
            Self::Real(x) => format!("{x}"),
            Self::Flag(b) => b.to_string(),
            Self::Missing => String::new(),
        }
    }

    /// Reads what [`text`](Self::text) wrote: a number where it is one. An empty text is `Missing`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        if text.is_empty() {
            return Self::Missing;
        }
        if let Ok(count) = text.parse() {
            return Self::Count(count);
        }
        match text {
            "true" => Self::Flag(true),
            "false" => Self::Flag(false),
            _ => match text.parse::<f64>() {
                Ok(x) if x.is_finite() => Self::Real(x),
                _ => Self::Text(text.to_owned()),
            },
        }
    }

    /// The number in it; a count is one too.
    #[must_use]
    pub fn real(&self) -> Option<f64> {
        match self {
            Self::Real(x) => Some(*x),
            Self::Count(n) => Some(*n as f64),
            _ => None,
        }
    }

    /// The flag in it.
    #[must_use]
    pub fn flag(&self) -> Option<bool> {
        match self {
            Self::Flag(b) => Some(*b),
            _ => None,
        }
    }

    /// Whether nothing was measured.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        *self == Self::Missing
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Missing, Into::into)
    }
}
impl From<f64> for Cell {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}
impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Count(value)
    }
}
impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Flag(value)
    }
}
impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.to_owned())
    }
}
impl From<String> for Cell {
    fn from(value: String) -> Self {
        Self::Text(value)
    }
}

/// What a column says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// Name, with the unit in it.
    pub name: &'static str,
    /// Unit; empty for names and pure numbers.
    pub unit: &'static str,
    /// What it means and how to read it.
    pub about: &'static str,
    /// Whether it depends on the clock or the machine, so that two runs of one seed differ in it.
    pub timing: bool,
}

/// Reads the cell of a column from a row.
type ReadCell<R> = Arc<dyn Fn(&R) -> Cell + Send + Sync>;

/// A column of a table whose rows are `R`.
pub struct Column<R> {
    /// Name, unit, meaning.
    pub info: ColumnInfo,
    cell: ReadCell<R>,
}

impl<R: 'static> Column<R> {
    /// A column that is the same for every run of one seed.
    #[must_use]
    pub fn new<C: Into<Cell>>(
        name: &'static str,
        unit: &'static str,
        about: &'static str,
        cell: impl Fn(&R) -> C + Send + Sync + 'static,
    ) -> Self {
        let info = ColumnInfo {
            name,
            unit,
            about,
            timing: false,
        };
        Self {
            info,
            cell: Arc::new(move |row| cell(row).into()),
        }
    }

    /// A column that depends on the clock or the machine.
    #[must_use]
    pub fn timing<C: Into<Cell>>(
        name: &'static str,
        unit: &'static str,
        about: &'static str,
        cell: impl Fn(&R) -> C + Send + Sync + 'static,
    ) -> Self {
        let mut column = Self::new(name, unit, about, cell);
        column.info.timing = true;
        column
    }

    /// The cell of a row.
    #[must_use]
    pub fn read(&self, row: &R) -> Cell {
        (self.cell)(row)
    }

    /// The same column in a table whose rows hold an `R`.
    #[must_use]
    pub fn within<Q: 'static>(self, part: fn(&Q) -> &R) -> Column<Q> {
        let cell = self.cell;
        Column {
            info: self.info,
            cell: Arc::new(move |row| cell(part(row))),
        }
    }
}

/// Columns that several tables share, in the rows of one that holds an `R`.
#[must_use]
pub fn within<R: 'static, Q: 'static>(
    columns: Vec<Column<R>>,
    part: fn(&Q) -> &R,
) -> Vec<Column<Q>> {
    columns.into_iter().map(|c| c.within(part)).collect()
}

/// What a table says of itself: its file name without ending, what it holds, and its columns after the key columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// `curve` for `curve.csv`.
    pub name: &'static str,
    /// One line about its rows.
    pub about: &'static str,
    /// Columns in order.
    pub columns: Vec<ColumnInfo>,
}

/// A table whose rows are `R`.
pub struct Table<R> {
    /// `curve` for `curve.csv`.
    pub name: &'static str,
    /// One line about its rows.
    pub about: &'static str,
    /// Columns after the key columns.
    pub columns: Vec<Column<R>>,
}

impl<R: 'static> Table<R> {
    /// What readers of the table need to know.
    #[must_use]
    pub fn info(&self) -> TableInfo {
        TableInfo {
            name: self.name,
            about: self.about,
            columns: self.columns.iter().map(|c| c.info).collect(),
        }
    }

    /// Writes one row.
    ///
    /// # Errors
    /// A number that is not finite: a fault of the protocol that made the row. What the sink reports.
    pub fn write(&self, sink: &mut dyn Sink, row: &R) -> Result<(), CoreError> {
        let mut cells = Vec::with_capacity(self.columns.len());
        for column in &self.columns {
            let cell = column.read(row);
            if let Cell::Real(x) = cell
                && !x.is_finite()
            {
                return Err(CoreError::NotFinite(format!(
                    "a row of {}.csv has {x} in column {}: a number that was not measured must be left out by the protocol that writes it",
                    self.name, column.info.name
                )));
            }
            cells.push(cell);
        }
        sink.row(self.name, cells)
    }
}

/// Where rows go.
pub trait Sink {
    /// Writes one row of a table: a cell for each of its columns.
    ///
    /// # Errors
    /// A table that was not opened, or a row that could not be written.
    fn row(&mut self, table: &'static str, cells: Vec<Cell>) -> Result<(), CoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Kept(Vec<Vec<Cell>>);

    impl Sink for Kept {
        fn row(&mut self, _: &'static str, cells: Vec<Cell>) -> Result<(), CoreError> {
            self.0.push(cells);
            Ok(())
        }
    }

    #[test]
    fn a_real_reads_back_exactly_and_a_missing_one_is_empty() {
        for x in [0.1, 1.0 / 3.0, 1e-300, 123_456_789.125, -2.5e-7, 0.5] {
            assert_eq!(Cell::Real(x).text().parse::<f64>().unwrap(), x);
            assert_eq!(Cell::parse(&Cell::Real(x).text()), Cell::Real(x));
        }
        for cell in [
            Cell::Count(7),
            Cell::Flag(true),
            Cell::Text("raw".into()),
            Cell::Missing,
        ] {
            assert_eq!(Cell::parse(&cell.text()), cell);
        }
        assert_eq!(Cell::parse("0").real(), Some(0.0));
        assert_eq!(Cell::from(None::<f64>).text(), "");
    }

    #[test]
    fn a_row_has_a_cell_for_each_column_and_none_that_is_not_finite() {
        let squared = || Column::new("x2", "", "", |x: &f64| x * x);
        let table: Table<(f64, Option<f64>)> = Table {
            name: "t",
            about: "",
            columns: vec![
                squared().within(|row: &(f64, Option<f64>)| &row.0),
                Column::timing("y", "s", "", |row: &(f64, Option<f64>)| row.1),
            ],
        };
        let mut kept = Kept::default();
        table.write(&mut kept, &(3.0, None)).unwrap();
        assert_eq!(kept.0, [[Cell::Real(9.0), Cell::Missing]]);
        let error = table.write(&mut kept, &(f64::NAN, None)).unwrap_err();
        assert!(
            error.to_string().contains("t.csv has NaN in column x2"),
            "{error}"
        );
        assert!(table.write(&mut kept, &(1.0, Some(f64::INFINITY))).is_err());
        assert_eq!(kept.0.len(), 1);
        assert!(table.info().columns[1].timing);
    }
}
