//! How a check ends.

use equivbench_core::CoreError;
use equivbench_host::HostError;
use serde::{Deserialize, Serialize};

/// How a check ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum CheckOutcome {
    /// The plugin does what it must.
    Passed {
        /// How well, in a few words.
        figure: String,
    },
    /// The plugin does something else.
    Failed {
        /// What was tried, what came out, and what should have.
        why: String,
    },
    /// The check does not apply.
    Skipped {
        /// Why not.
        why: String,
    },
}

/// What a check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

/// Why a check did not pass.
pub(crate) enum Stop {
    Failed(String),
    Skipped(String),
}

/// The figure of a check, or why there is none.
pub(crate) type Verdict = Result<String, Stop>;

impl From<CoreError> for Stop {
    fn from(error: CoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<HostError> for Stop {
    fn from(error: HostError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Ends a check as failed.
pub(crate) fn fail<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(why.into()))
}

/// Ends a check as not applicable.
pub(crate) fn skip<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Skipped(why.into()))
}
