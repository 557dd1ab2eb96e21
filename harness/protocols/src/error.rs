//! Why a session fails.

use equivbench_core::CoreError;

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The training loss is not a number any more.
    #[error(
        "the training loss became {loss} at step {step}; the rows until then are kept. Lower train.lr, raise train.clip_norm, or check the data"
    )]
    LossNotFinite {
        /// Step at which it happened.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A configuration that leaves nothing to do.
    #[error("{0}")]
    Empty(String),
    /// What went wrong below.
    #[error("at step {step}: {source}")]
    At {
        /// Steps done.
        step: u64,
        /// The error.
        source: CoreError,
    },
}

impl SessionError {
    pub(crate) fn at(step: u64) -> impl Fn(CoreError) -> Self {
        move |source| Self::At { step, source }
    }
}
