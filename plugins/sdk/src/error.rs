//! The error of a plugin, and how it crosses the boundary.

use equivbench_abi::{AbiError, code};

/// What a plugin call can fail with. The text says what was tried, on what, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The request or the batch is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// The batch has no such field.
    #[error("field \"{missing}\" is missing from the batch; it offers: {offered}")]
    MissingField {
        /// The field asked for.
        missing: String,
        /// The fields that are there.
        offered: String,
    },
    /// The data are damaged, foreign or not finite.
    #[error("{0}")]
    BadData(String),
    /// The device is not there or refuses.
    #[error("{0}")]
    Device(String),
    /// The capability is not offered.
    #[error("capability \"{0}\" is not offered by this model")]
    Unsupported(String),
    /// Caught by the guard.
    #[error("plugin panicked: {0}")]
    Panic(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Result of a plugin call. Named so that it does not shadow the `Result` that Burn's derives write.
pub type PluginResult<T> = std::result::Result<T, PluginError>;

impl From<PluginError> for AbiError {
    fn from(error: PluginError) -> Self {
        let code = match &error {
            PluginError::BadRequest(_) | PluginError::MissingField { .. } => code::BAD_REQUEST,
            PluginError::BadData(_) => code::BAD_DATA,
            PluginError::Device(_) => code::DEVICE,
            PluginError::Unsupported(_) => code::UNSUPPORTED,
            PluginError::Panic(_) => code::PANIC,
            PluginError::Other(_) => code::OTHER,
        };
        Self {
            code,
            message: error.to_string().into(),
        }
    }
}
