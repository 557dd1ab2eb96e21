//! A results directory: which experiment it holds, its runs, its merged tables and its manifest.

use crate::{
    RunnerError,
    request::set_otherwise,
    run_dir::{RunDir, RunSpec, State, Status},
};
use equivbench_analysis::{add_excess, summarise};
use equivbench_protocols::{PROTOCOL_VERSION, PROTOCOLS};
use equivbench_report::{
    Manifest, MeasurementFacts, MergedTable, PluginFacts, RunManifest, TableSource, merge_tables,
    unfair, write_atomically,
};
use serde::{Deserialize, Serialize};
use std::{
    fs::DirEntry,
    path::{Path, PathBuf},
};

/// Marks a folder as an experiment: `experiment.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    suite: String,
    equivbench_version: String,
    protocol_version: u64,
    protocols: Vec<String>,
    runs: Vec<String>,
}

const MARKER: &str = "experiment.toml";
const MANIFEST: &str = "manifest.toml";

/// An experiment in its results directory.
pub struct Experiment {
    out: PathBuf,
    suite: String,
    runs: Vec<(RunDir, RunSpec)>,
}

impl Experiment {
    /// Opens the results directory for these runs, creating what is missing.
    ///
    /// A folder may be new, empty, hold an experiment of which no run wrote a row, or, with `resume`, the same experiment.
    ///
    /// # Errors
    /// A folder with another experiment, another version or foreign files; no permission, no space.
    pub fn open(
        out: &Path,
        suite: &str,
        specs: Vec<RunSpec>,
        resume: bool,
    ) -> Result<Self, RunnerError> {
        let marker = Marker {
            suite: suite.into(),
            equivbench_version: env!("CARGO_PKG_VERSION").into(),
            protocol_version: PROTOCOL_VERSION,
            protocols: specs
                .first()
                .map(|s| s.protocols.clone())
                .unwrap_or_default(),
            runs: specs.iter().map(|s| s.id.clone()).collect(),
        };
        let fresh = check_folder(out, &marker, resume)?;
        let runs: Vec<_> = specs
            .into_iter()
            .map(|spec| (RunDir::at(out.join("runs").join(&spec.id)), spec))
            .collect();
        if fresh {
            std::fs::create_dir_all(out).map_err(RunnerError::io(out))?;
            remove_unfinished_markers(out)?;
            for (dir, spec) in &runs {
                // What a folder without a marker still holds is of no experiment.
                dir.clear()?;
                dir.create(spec)?;
            }
            // Last, so that a folder with a marker has all its runs.
            let text = toml::to_string(&marker).map_err(|e| RunnerError::Run(e.to_string()))?;
            write_atomically(&out.join(MARKER), text.as_bytes())?;
        } else {
            // Limits, threads and paths may differ from the first time; what can change a number is in the id.
            let mut unfinished = runs
                .iter()
                .filter(|(dir, _)| dir.status().state != State::Finished);
            unfinished.try_for_each(|(dir, spec)| dir.create(&with_kept_steps(dir, spec)))?;
        }
        Ok(Self {
            out: out.into(),
            suite: suite.into(),
            runs,
        })
    }

    /// The experiment that a run directory belongs to; `None` for a run directory on its own.
    ///
    /// # Errors
    /// A folder whose marker or runs cannot be read.
    pub fn of_run(run: &RunDir) -> Result<Option<Self>, RunnerError> {
        let path = run.path();
        let path = path.canonicalize().map_err(RunnerError::io(path))?;
        let Some(out) = path.parent().and_then(Path::parent) else {
            return Ok(None);
        };
        let marker = out.join(MARKER);
        let Ok(text) = std::fs::read_to_string(&marker) else {
            return Ok(None);
        };
        let marker: Marker = toml::from_str(&text)
            .map_err(|e| RunnerError::Conflict(format!("{}: {}", marker.display(), e.message())))?;
        let runs = run_dirs_of(out, &marker).map(|dir| dir.spec().map(|spec| (dir, spec)));
        Ok(Some(Self {
            out: out.into(),
            runs: runs.collect::<Result<_, _>>()?,
            suite: marker.suite,
        }))
    }

    /// The results directory.
    #[must_use]
    pub fn out(&self) -> &Path {
        &self.out
    }

    /// Run directories, in the order of their rows.
    #[must_use]
    pub fn run_dirs(&self) -> Vec<RunDir> {
        self.runs.iter().map(|(dir, _)| dir.clone()).collect()
    }

    /// How each run stands.
    #[must_use]
    pub fn statuses(&self) -> Vec<(String, Status)> {
        self.runs
            .iter()
            .map(|(dir, spec)| (spec.id.clone(), dir.status()))
            .collect()
    }

    /// Merges the tables of all runs and writes the manifest.
    ///
    /// # Errors
    /// A table of another version; no space, no permission.
    pub fn merge(&self, commit: &str) -> Result<Vec<MergedTable>, RunnerError> {
        let sources = self.sources()?;
        let asked = |name: &str| {
            let of_runs = self
                .runs
                .iter()
                .any(|(_, s)| s.protocols.iter().any(|p| p == name));
            of_runs || sources.iter().any(|s| measured_with(s, name))
        };
        let wanted: Vec<_> = PROTOCOLS
            .iter()
            .filter(|p| asked(p.name))
            .flat_map(|p| (p.tables)())
            .collect();
        let mut merged = merge_tables(&sources, &wanted)?;
        add_excess(&mut merged);
        merged.push(summarise(&merged).map_err(|e| RunnerError::Run(e.to_string()))?);
        merged.iter().try_for_each(|table| table.write(&self.out))?;
        let mut manifest = Manifest::new(&self.suite);
        manifest.equivbench_version = env!("CARGO_PKG_VERSION").into();
        manifest.commit = commit.into();
        manifest.machine = machine();
        manifest.plugins = self.plugins();
        manifest.runs = self
            .runs
            .iter()
            .map(|(dir, spec)| run_manifest(dir, spec))
            .collect::<Result<_, _>>()?;
        manifest.comparison = unfair(&manifest.runs);
        let text = toml::to_string(&manifest).map_err(|e| RunnerError::Run(e.to_string()))?;
        write_atomically(&self.out.join(MANIFEST), text.as_bytes())?;
        Ok(merged)
    }

    fn sources(&self) -> Result<Vec<TableSource>, RunnerError> {
        let mut all = Vec::new();
        for (dir, _) in &self.runs {
            all.extend(dir.table_sources()?);
        }
        Ok(all)
    }

    fn plugins(&self) -> Vec<PluginFacts> {
        let mut all: Vec<PluginFacts> = Vec::new();
        for plugin in self
            .runs
            .iter()
            .flat_map(|(_, s)| [&s.model_plugin, &s.dataset_plugin])
        {
            if !all.contains(plugin) {
                all.push(plugin.clone());
            }
        }
        all
    }
}

/// Whether a measurement of a checkpoint asked a protocol.
fn measured_with(source: &TableSource, protocol: &str) -> bool {
    let tables = equivbench_protocols::tables_of(&[protocol.to_owned()]);
    let finished = source
        .finished
        .iter()
        .filter(|_| !source.measurement.is_empty());
    finished
        .flat_map(|f| f.keys())
        .any(|name| tables.iter().any(|t| t.name == name))
}

/// The specification with the steps, too, whose checkpoints were to stay before: what is kept is not lost by resuming.
fn with_kept_steps(dir: &RunDir, spec: &RunSpec) -> RunSpec {
    let mut spec = spec.clone();
    if let Ok(before) = dir.spec() {
        let kept = &mut spec.config.run.keep_checkpoints;
        for step in before.config.run.keep_checkpoints {
            if !kept.contains(&step) {
                kept.push(step);
            }
        }
    }
    spec
}

fn run_manifest(dir: &RunDir, spec: &RunSpec) -> Result<RunManifest, RunnerError> {
    let status = dir.status();
    let manifest = dir.manifest().unwrap_or_default();
    Ok(RunManifest {
        run: spec.id.clone(),
        status: status.state.name().into(),
        reason: status.reason,
        measurements: measurements(dir, spec)?,
        ..manifest
    })
}

/// What was measured of the kept checkpoints of a run.
fn measurements(dir: &RunDir, trained: &RunSpec) -> Result<Vec<MeasurementFacts>, RunnerError> {
    let facts = |(dir, status): (RunDir, Status)| {
        let measured = dir.spec()?;
        Ok(MeasurementFacts {
            measurement: dir.name(),
            step: status.step,
            set: set_otherwise(trained, &measured),
            program_sha256: match measured.program_sha256 == trained.program_sha256 {
                true => String::new(),
                false => measured.program_sha256,
            },
            protocols: measured.protocols,
        })
    };
    dir.measurements()?.into_iter().map(facts).collect()
}

/// Whether the folder is to be set up; an error when it holds something else.
fn check_folder(out: &Path, marker: &Marker, resume: bool) -> Result<bool, RunnerError> {
    let conflict = |what: String| {
        Err(RunnerError::Conflict(format!(
            "results directory {}: {what}",
            out.display()
        )))
    };
    if out.is_file() {
        return conflict("this is a file; give a folder with --out".into());
    }
    let path = out.join(MARKER);
    if let Ok(text) = std::fs::read_to_string(&path) {
        let Ok(found) = toml::from_str::<Marker>(&text) else {
            return conflict(format!("{MARKER} cannot be read; use another --out"));
        };
        if !resume && holds_nothing(out, &found) {
            run_dirs_of(out, &found).try_for_each(|dir| dir.clear())?;
            return Ok(true);
        }
        if found == *marker {
            return if resume {
                Ok(false)
            } else {
                conflict("it holds this experiment already; continue it with --resume, or use another --out".into())
            };
        }
        if found.equivbench_version != marker.equivbench_version
            || found.protocol_version != marker.protocol_version
        {
            return conflict(format!(
                "it was written by version {} (protocols {}), this is {} (protocols {}); use another --out",
                found.equivbench_version,
                found.protocol_version,
                marker.equivbench_version,
                marker.protocol_version
            ));
        }
        return conflict(
            "it holds another experiment (another build of the program, other plugins, plugin builds, data, settings, protocols or suite); use another --out, or repeat the command that began it".into(),
        );
    }
    if resume && !out.exists() {
        return conflict("there is nothing to resume; leave out --resume".into());
    }
    if is_empty(out) {
        return Ok(true);
    }
    conflict("it holds files of something else; use another --out".into())
}

/// Whether every run failed before it wrote a row: a wrong setting that only a plugin could see. A corrected command may take the folder.
fn holds_nothing(out: &Path, marker: &Marker) -> bool {
    let has_rows =
        |path: &Path| std::fs::read_to_string(path).map_or(true, |text| text.lines().count() > 1);
    let wrote = |dir: &RunDir| {
        let Ok(entries) = std::fs::read_dir(dir.path()) else {
            return false;
        };
        entries
            .flatten()
            .map(|e| e.path())
            .any(|p| p.extension().is_some_and(|e| e == "csv") && has_rows(&p))
    };
    let keeps = |dir: &RunDir| {
        let checkpoints = std::fs::read_dir(dir.checkpoints()).into_iter().flatten();
        checkpoints.flatten().next().is_some() || dir.measured().exists()
    };
    run_dirs_of(out, marker)
        .all(|dir| dir.status().state == State::Failed && !wrote(&dir) && !keeps(&dir))
}

fn run_dirs_of<'a>(out: &'a Path, marker: &'a Marker) -> impl Iterator<Item = RunDir> + 'a {
    marker
        .runs
        .iter()
        .map(|id| RunDir::at(out.join("runs").join(id)))
}

/// Whether the folder holds nothing but what an interrupted set-up leaves: `runs`, and a marker
/// that has not yet its name.
fn is_empty(out: &Path) -> bool {
    std::fs::read_dir(out).map_or(true, |mut entries| {
        entries.all(|e| e.is_ok_and(|e| e.file_name() == "runs" || is_unfinished_marker(&e)))
    })
}

/// `experiment.toml.PID.tmp`: see [`write_atomically`].
fn is_unfinished_marker(entry: &DirEntry) -> bool {
    let name = entry.file_name();
    let process = name.to_str().and_then(|n| {
        n.strip_prefix(MARKER)?
            .strip_prefix('.')?
            .strip_suffix(".tmp")
    });
    process.is_some_and(|p| p.parse::<u32>().is_ok())
}

fn remove_unfinished_markers(out: &Path) -> Result<(), RunnerError> {
    let entries = std::fs::read_dir(out).map_err(RunnerError::io(out))?;
    for entry in entries.flatten().filter(is_unfinished_marker) {
        std::fs::remove_file(entry.path()).map_err(RunnerError::io(out))?;
    }
    Ok(())
}

fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok();
    let cpu = cpu
        .as_deref()
        .and_then(|t| t.lines().find(|l| l.starts_with("model name")))
        .and_then(|l| l.split(':').nth(1));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{} {}, {}, {cores} cores",
        std::env::consts::OS,
        std::env::consts::ARCH,
        cpu.unwrap_or("unknown processor").trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_up_that_was_interrupted_is_begun_anew_with_or_without_resume() {
        for resume in [false, true] {
            let out = tempfile::tempdir().unwrap();
            std::fs::create_dir(out.path().join("runs")).unwrap();
            let left = out.path().join(format!("{MARKER}.4711.tmp"));
            std::fs::write(&left, "half").unwrap();
            Experiment::open(out.path(), "quick", Vec::new(), resume).unwrap();
            assert!(out.path().join(MARKER).exists() && !left.exists());
        }
    }

    #[test]
    fn files_that_only_look_like_it_are_of_something_else() {
        for name in [
            "experiment.toml.old.tmp",
            "experiment.toml.tmp",
            "thesis.4711.tmp",
        ] {
            let out = tempfile::tempdir().unwrap();
            std::fs::write(out.path().join(name), "text").unwrap();
            let refused = Experiment::open(out.path(), "quick", Vec::new(), false);
            assert!(matches!(refused, Err(RunnerError::Conflict(_))), "{name}");
        }
    }
}
