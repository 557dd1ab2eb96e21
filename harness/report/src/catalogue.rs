//! Every table there is, from the protocols that declare them.

use equivbench_core::Table;
use equivbench_protocols::PROTOCOLS;

/// All tables, in the order of the protocols.
#[must_use]
pub fn tables() -> Vec<&'static Table> {
    PROTOCOLS
        .iter()
        .flat_map(|p| p.tables.iter().copied())
        .collect()
}
