//! When to train and when to measure: a file for each protocol, and one slice ([`PROTOCOLS`]) that lists them.
//!
//! A [`Session`] trains a model by its recipe and evaluates it on a log-spaced schedule; protocols watch and write rows.

mod dip_timing;
mod final_percent;
mod order;
mod preparer;
mod protocol;
mod schedule;
mod session;
mod throughput;
mod train_and_measure;

pub use order::BatchOrder;
pub use protocol::{
    About, Measured, PROTOCOLS, Protocol, ProtocolInfo, Step, Totals, protocol_by_name,
};
pub use schedule::evaluation_steps;
pub use session::{
    Observer, Outcome, Progress, Session, SessionConfig, SessionError, SessionState,
};

/// Version of the protocols: rows of different versions are never compared silently. 2: conditions (flow time, variant).
pub const PROTOCOL_VERSION: u64 = 2;
