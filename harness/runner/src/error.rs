//! What the runner refuses, in paragraphs with the file, the place and the remedy.

use equivbench_host::HostError;
use equivbench_report::ReportError;
use std::path::{Path, PathBuf};

/// An error of planning or running an experiment.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunnerError {
    /// A suite, an option or a combination of them that cannot work.
    #[error("{0}")]
    Config(String),
    /// A results directory that belongs to something else.
    #[error("{0}")]
    Conflict(String),
    /// The file system refuses.
    #[error("{}: {source}. Check that the folder exists, that you may write there and that the disk has space left", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// A plugin could not be found, loaded or used.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A table or manifest could not be read or written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A run failed.
    #[error("{0}")]
    Run(String),
    /// Stopped on request.
    #[error("stopped on request; the same command begins it again")]
    Stopped,
}

impl RunnerError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.into(),
            source,
        }
    }
}
