//! What can be wrong with the index structures that callers build.

/// Why a [`RowIndex`](crate::RowIndex), [`Segments`](crate::Segments) or [`Bands`](crate::Bands) was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// An index points past the last row.
    #[error("row index: entry {position} is {index}, but there are only {rows} rows")]
    RowOutOfRange {
        /// Which entry of the index.
        position: usize,
        /// Its value.
        index: usize,
        /// Rows that exist.
        rows: usize,
    },
    /// Offsets must begin with 0 and never decrease.
    #[error(
        "segments: offset {position} is {offset}; offsets must begin with 0 and never decrease"
    )]
    UnsortedOffsets {
        /// Which offset.
        position: usize,
        /// Its value.
        offset: usize,
    },
    /// A band reaches past the last basis function.
    #[error(
        "bands: row {row} starts at {start} and is {width} wide, but there are only {basis} basis functions"
    )]
    BandOutOfRange {
        /// Which row.
        row: usize,
        /// Its first basis function.
        start: usize,
        /// Functions per row.
        width: usize,
        /// Basis functions that exist.
        basis: usize,
    },
    /// The number of starts must equal the number of rows of values.
    #[error("bands: {starts} starts for {rows} rows of values")]
    BandCount {
        /// Starts given.
        starts: usize,
        /// Rows of values given.
        rows: usize,
    },
    /// The index type holds 32 bits.
    #[error("{what}: {count} does not fit into 32 bits")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How many there are.
        count: usize,
    },
}
