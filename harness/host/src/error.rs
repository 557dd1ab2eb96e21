//! What the host refuses, in paragraphs that name the file, the place and the remedy.

use equivbench_abi::{AbiError, code};
use equivbench_core::CoreError;
use std::path::{Path, PathBuf};

/// An error of finding, loading or calling a plugin.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// No file of that name.
    #[error("{}", not_found(name, tried, nearest.as_deref()))]
    NotFound {
        /// The name or path that was asked for.
        name: String,
        /// Every place that was tried, in order.
        tried: Vec<PathBuf>,
        /// The nearest name of a plugin that is there.
        nearest: Option<String>,
    },
    /// A file that is no plugin for this program.
    #[error("plugin file {} was refused: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// What stands in the way and what to do.
        reason: String,
    },
    /// Two different files with one plugin name.
    #[error(
        "two different files declare the name \"{name}\": {} and {}. Remove one of them, or give the path of the one that is meant",
        first.display(), second.display()
    )]
    Duplicate {
        /// The name.
        name: String,
        /// The file that comes first in the search order.
        first: PathBuf,
        /// The other file.
        second: PathBuf,
    },
    /// What a plugin answered.
    #[error("plugin \"{plugin}\": {message}")]
    Plugin {
        /// Name of the plugin.
        plugin: String,
        /// One of [`equivbench_abi::code`].
        code: u32,
        /// Its own words.
        message: String,
    },
    /// The device is not there or refuses.
    #[error("plugin \"{plugin}\": {message}")]
    Device {
        /// Name of the plugin.
        plugin: String,
        /// Its own words.
        message: String,
    },
    /// The plugin ended the process that described it, or held it up.
    #[error("plugin file {} {how}. This is a fault of the plugin: report it to its author", path.display())]
    Crashed {
        /// The file.
        path: PathBuf,
        /// How it ended.
        how: String,
    },
}

impl HostError {
    /// Makes the error of a refused file.
    pub(crate) fn refused(path: &Path, reason: impl Into<String>) -> Self {
        Self::Refused {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    /// Makes the error of a plugin's answer.
    pub(crate) fn answered(plugin: &str, error: AbiError) -> Self {
        let (plugin, message) = (plugin.to_owned(), error.message.into_string());
        match error.code {
            code::DEVICE => Self::Device { plugin, message },
            code => Self::Plugin {
                plugin,
                code,
                message,
            },
        }
    }

    /// Makes an error of a plugin that answered without an error, but wrongly.
    pub(crate) fn nonsense(plugin: &str, message: impl Into<String>) -> Self {
        Self::Plugin {
            plugin: plugin.to_owned(),
            code: code::OTHER,
            message: message.into(),
        }
    }

    /// The reason without the name of the file in front.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Refused { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// As an error of a model.
    pub(crate) fn of_model(self) -> CoreError {
        CoreError::Model(self.to_string())
    }

    /// As an error of a dataset.
    pub(crate) fn of_dataset(self) -> CoreError {
        CoreError::Dataset(self.to_string())
    }
}

fn not_found(name: &str, tried: &[PathBuf], nearest: Option<&str>) -> String {
    let places: String = tried
        .iter()
        .map(|p| format!("\n  {}", p.display()))
        .collect();
    let guess = nearest.map_or(String::new(), |n| format!(" Did you mean \"{n}\"?"));
    format!(
        "plugin \"{name}\" was not found.{guess} These places were tried:{places}\n\
         Build or install the plugin, name its folder with --plugin-dir or EQUIVBENCH_PLUGIN_PATH, or give the path of the file."
    )
}
