//! A run directory: what pins a run, where it stands, and who holds it.

use crate::{RunnerError, config::RunConfig};
use equivbench_host::descriptor::LongWork;
use equivbench_report::{Extent, PluginFacts, RunManifest, TableSource, write_atomically};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// What pins a run: `run.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Run id: a hash of everything that can change a number.
    pub id: String,
    /// The same hash without the seed: equal for the seeds of one experiment.
    pub settings: String,
    /// Protocols by name, in order.
    pub protocols: Vec<String>,
    /// Version of the protocols.
    pub protocol_version: u64,
    /// SHA-256 of the program that planned the run.
    pub program_sha256: String,
    /// File of the model plugin.
    pub model_library: PathBuf,
    /// What it was when the run was planned.
    pub model_plugin: PluginFacts,
    /// File of the dataset plugin.
    pub dataset_library: PathBuf,
    /// What it was when the run was planned.
    pub dataset_plugin: PluginFacts,
    /// Files and folders that options of the dataset name, each with a fingerprint of its content.
    pub data_files: BTreeMap<String, String>,
    /// The configuration.
    pub config: RunConfig,
}

#[cfg(test)]
impl RunSpec {
    /// A run of these settings and of nothing else.
    pub(crate) fn of(config: RunConfig) -> Self {
        Self {
            id: "run".into(),
            settings: String::new(),
            protocols: Vec::new(),
            protocol_version: 0,
            program_sha256: String::new(),
            model_library: "p.so".into(),
            model_plugin: PluginFacts::default(),
            dataset_library: "p.so".into(),
            dataset_plugin: PluginFacts::default(),
            data_files: BTreeMap::new(),
            config,
        }
    }
}

/// How a run stands: `status.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Planned.
    #[default]
    Pending,
    /// A worker is at it (or was, when it died).
    Running,
    /// All rows written.
    Finished,
    /// Ended with a reason.
    Failed,
    /// Stopped on request or by a limit; can be resumed.
    Interrupted,
}

impl State {
    /// Name in manifests and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }
}

/// `status.toml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// How it stands.
    pub state: State,
    /// Why it failed or stopped.
    pub reason: String,
    /// Optimiser steps done.
    pub step: u64,
    /// Peak resident memory of the worker in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// What stands in each table of a finished run.
    pub tables: BTreeMap<String, Extent>,
}

/// `progress.json`: where a worker is, replaced several times a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProgressFile {
    /// Optimiser steps done.
    pub step: u64,
    /// Optimiser steps of the run.
    pub total: u64,
    /// Training loss of the last step.
    pub loss: Option<f64>,
    /// Percent at the last evaluation, the mean over the inputs of conditions.
    pub percent: Option<f64>,
    /// `loading`, `training` or `measuring`.
    pub phase: String,
    /// Counts replacements: a sign of life.
    pub beat: u64,
}

/// The directory of one run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// A run directory at a path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Folder of the checkpoints.
    #[must_use]
    pub fn checkpoints(&self) -> PathBuf {
        self.0.join("checkpoints")
    }

    /// Folder of what `equivbench measure` added.
    #[must_use]
    pub fn measured(&self) -> PathBuf {
        self.0.join("measured")
    }

    /// The tables of the run, and those of every finished measurement of its checkpoints.
    ///
    /// # Errors
    /// A `status.toml` that cannot be read: it says what the tables should hold.
    pub fn table_sources(&self) -> Result<Vec<TableSource>, RunnerError> {
        let status = self.checked_status()?;
        let mut sources = vec![TableSource {
            folder: self.0.clone(),
            measurement: String::new(),
            finished: (status.state == State::Finished).then_some(status.tables),
        }];
        for (dir, status) in self.measurements()? {
            sources.push(TableSource {
                measurement: dir.name(),
                folder: dir.0,
                finished: Some(status.tables),
            });
        }
        Ok(sources)
    }

    /// The finished measurements of kept checkpoints, in the order of their rows.
    ///
    /// # Errors
    /// A `status.toml` that cannot be read.
    pub fn measurements(&self) -> Result<Vec<(Self, Status)>, RunnerError> {
        let entries = std::fs::read_dir(self.measured()).into_iter().flatten();
        let mut dirs: Vec<Self> = entries.flatten().map(|e| Self(e.path())).collect();
        dirs.sort();
        let mut finished = Vec::new();
        for dir in dirs {
            let status = dir.checked_status()?;
            if status.state == State::Finished {
                finished.push((dir, status));
            }
        }
        Ok(finished)
    }

    /// Name of the folder.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.0.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// How the run stands; a run without a status is planned, one with a status that cannot be read is an error.
    fn checked_status(&self) -> Result<Status, RunnerError> {
        if self.0.join("status.toml").exists() {
            return self.read_toml("status.toml");
        }
        Ok(Status::default())
    }

    /// What the worker printed.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Creates the folder with its `run.toml`.
    ///
    /// # Errors
    /// No space, no permission.
    pub fn create(&self, spec: &RunSpec) -> Result<(), RunnerError> {
        std::fs::create_dir_all(&self.0).map_err(RunnerError::io(&self.0))?;
        self.write_toml("run.toml", spec)
    }

    /// Removes the folder with everything in it, if it is there.
    ///
    /// # Errors
    /// No permission.
    pub fn clear(&self) -> Result<(), RunnerError> {
        match std::fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(RunnerError::io(&self.0)(e)),
            _ => Ok(()),
        }
    }

    /// Reads `run.toml`.
    ///
    /// # Errors
    /// A folder that is no run, or was written by another version.
    pub fn spec(&self) -> Result<RunSpec, RunnerError> {
        self.read_toml("run.toml")
    }

    /// Reads `status.toml`; a run without one is pending.
    #[must_use]
    pub fn status(&self) -> Status {
        self.read_toml("status.toml").unwrap_or_default()
    }

    /// Replaces `status.toml`.
    ///
    /// # Errors
    /// No space, no permission.
    pub fn set_status(&self, status: &Status) -> Result<(), RunnerError> {
        self.write_toml("status.toml", status)
    }

    /// Reads `manifest.toml`.
    #[must_use]
    pub fn manifest(&self) -> Option<RunManifest> {
        self.read_toml("manifest.toml").ok()
    }

    /// Replaces `manifest.toml`.
    ///
    /// # Errors
    /// No space, no permission.
    pub fn set_manifest(&self, manifest: &RunManifest) -> Result<(), RunnerError> {
        self.write_toml("manifest.toml", manifest)
    }

    /// Where a plugin may say how far a long piece of work is, while the worker itself is busy with that call.
    #[must_use]
    pub fn plugin_progress(&self) -> PathBuf {
        self.0.join("plugin-progress.json")
    }

    /// The worker's progress, if it wrote any, else that of the plugin that it opens.
    #[must_use]
    pub fn latest_progress(&self) -> Option<ProgressFile> {
        self.progress().or_else(|| {
            let work: LongWork =
                serde_json::from_slice(&std::fs::read(self.plugin_progress()).ok()?).ok()?;
            Some(ProgressFile {
                step: work.done,
                total: work.total,
                phase: work.what,
                beat: work.beat,
                ..ProgressFile::default()
            })
        })
    }

    /// The worker's progress, if it wrote any.
    #[must_use]
    pub fn progress(&self) -> Option<ProgressFile> {
        serde_json::from_slice(&std::fs::read(self.0.join("progress.json")).ok()?).ok()
    }

    /// Replaces the progress; a failure costs the display only.
    pub fn set_progress(&self, progress: &ProgressFile) {
        if let Ok(text) = serde_json::to_vec(progress) {
            let temporary = self.0.join("progress.json.tmp");
            let _ = std::fs::write(&temporary, text)
                .and_then(|()| std::fs::rename(&temporary, self.0.join("progress.json")));
        }
    }

    /// Holds the run for this process until the returned file is dropped, also when the process dies.
    ///
    /// # Errors
    /// A run that another process holds.
    pub fn lock(&self) -> Result<File, RunnerError> {
        let path = self.0.join("lock");
        let file = File::create(&path).map_err(RunnerError::io(&path))?;
        // A worker whose pool was killed notices it after its next step: wait a little for it.
        let patience = Instant::now();
        let mut tried = file.try_lock();
        while matches!(tried, Err(std::fs::TryLockError::WouldBlock))
            && patience.elapsed() < Duration::from_secs(20)
        {
            std::thread::sleep(Duration::from_millis(100));
            tried = file.try_lock();
        }
        match tried {
            Ok(()) => Ok(file),
            Err(std::fs::TryLockError::WouldBlock) => Err(RunnerError::Conflict(format!(
                "run {} is being executed by another process; wait for it or end it first",
                self.0.display()
            ))),
            Err(std::fs::TryLockError::Error(source)) => Err(RunnerError::Io { path, source }),
        }
    }

    fn write_toml<T: Serialize>(&self, name: &str, value: &T) -> Result<(), RunnerError> {
        let path = self.0.join(name);
        let text = toml::to_string(value)
            .map_err(|e| RunnerError::Run(format!("{}: {e}", path.display())))?;
        Ok(write_atomically(&path, text.as_bytes())?)
    }

    fn read_toml<T: DeserializeOwned>(&self, name: &str) -> Result<T, RunnerError> {
        let path = self.0.join(name);
        let text = std::fs::read_to_string(&path).map_err(RunnerError::io(&path))?;
        toml::from_str(&text).map_err(|e| {
            RunnerError::Conflict(format!(
                "{}: not a file of this version ({}); use another --out",
                path.display(),
                e.message()
            ))
        })
    }
}
