//! When to train and when to measure: a file for each protocol in one folder, and one slice ([`PROTOCOLS`]) that lists them.
//!
//! A [`Session`] trains a model by its recipe. A [`Protocol`] says when it is due; it is then given a [`Snapshot`], one moment of
//! training, to question, and writes rows.

mod choosing;
pub mod columns;
mod error;
mod frozen;
mod observer;
mod order;
mod preparer;
mod protocol;
mod protocols;
mod schedule;
mod session;
mod settings;
mod snapshot;
mod source;
mod splits;
mod twisted;
mod when;

pub use error::SessionError;
pub use frozen::{BatchKey, Frozen, InputKey, Inputs, SetAbout};
pub use observer::{Observer, Outcome, Progress, SessionState};
pub use order::BatchOrder;
pub use protocol::{
    Ending, NoSettings, Protocol, ProtocolInfo, Running, Schedule, Step, from_bytes, to_bytes,
};
pub use protocols::{PROTOCOLS, protocol_by_name, tables, tables_of};
pub use schedule::evaluation_steps;
pub use session::{Session, measure_once};
pub use settings::{About, Measuring, OpenDouble, SampleSet, SessionConfig, SetName, Training};
pub use snapshot::{EachCopy, MeasuredSet, Moment, Snapshot};
pub use source::Source;
pub use twisted::{EachSample, PlanOf, Twisted, TwistedSample};

/// Version of the protocols: rows of different versions are never compared silently. 2: conditions (flow time, variant).
/// 3: measured samples by `measure.seed` and group, skill against the baseline of the task, kinds of crossings.
pub const PROTOCOL_VERSION: u64 = 3;
