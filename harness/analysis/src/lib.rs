//! What takes several runs: the spread over seeds (`summary.csv`), percent of what could still be learnt, comparisons of two
//! architectures, and what a person sees at the end.
//!
//! Everything is computed from merged tables, so that anybody can compute it again from the files (`tests/oracle` does).

mod compare;
mod docs;
mod excess;
mod groups;
mod notes;
mod places;
mod summary;
mod terminal;

pub use compare::{
    CompareError, Compared, Selection, compare_tables, comparison_csv, comparison_text,
};
pub use docs::{columns_json, columns_markdown};
pub use excess::{EXCESS, add_excess};
pub use notes::notes;
pub use summary::{summarise, summary_info};
pub use terminal::{dip_summary, final_summary};

/// Level of every interval.
const LEVEL: f64 = 0.95;
