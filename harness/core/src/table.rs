//! A column is declared once: header, cells, documentation and snapshot follow from it.

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
            // A number that is not finite was not measured.
            Self::Real(x) if !x.is_finite() => String::new(),
            Self::Real(x) if *x != 0.0 && (x.abs() < 1e-4 || x.abs() >= 1e15) => format!("{x:e}"),
            Self::Real(x) => format!("{x}"),
            Self::Flag(b) => b.to_string(),
            Self::Missing => String::new(),
        }
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

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name, with the unit in it.
    pub name: &'static str,
    /// Unit; empty for names and pure numbers.
    pub unit: &'static str,
    /// What it means and how to read it.
    pub about: &'static str,
    /// Whether it depends on the clock or the machine, so that two runs of one seed differ in it.
    pub timing: bool,
}

impl Column {
    /// A column that is the same for every run of one seed.
    #[must_use]
    pub const fn new(name: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self {
            name,
            unit,
            about,
            timing: false,
        }
    }
    /// A column that depends on the clock or the machine.
    #[must_use]
    pub const fn timing(name: &'static str, unit: &'static str, about: &'static str) -> Self {
        Self {
            name,
            unit,
            about,
            timing: true,
        }
    }
}

/// A table: its file name without ending, what it holds, and its columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// `curve` for `curve.csv`.
    pub name: &'static str,
    /// One line about its rows.
    pub about: &'static str,
    /// Columns after the key columns, in groups that tables may share.
    pub groups: &'static [&'static [Column]],
}

impl Table {
    /// All columns in order.
    pub fn columns(&self) -> impl Iterator<Item = &'static Column> {
        self.groups.iter().copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_real_reads_back_exactly_and_a_missing_one_is_empty() {
        for x in [0.1, 1.0 / 3.0, 1e-300, 123_456_789.125, -2.5e-7, 0.0] {
            assert_eq!(Cell::Real(x).text().parse::<f64>().unwrap(), x);
        }
        assert_eq!(Cell::Real(f64::NAN).text(), "");
        assert_eq!(Cell::from(None::<f64>).text(), "");
    }
}
