//! What a table cannot say: versions, hashes, devices, the configuration as it was resolved.

use equivbench_protocols::PROTOCOL_VERSION;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The manifest of an experiment, beside its merged tables.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Manifest {
    /// Version of the program.
    pub equivbench_version: String,
    /// Commit the program was built from, where it is known.
    pub commit: String,
    /// Version of the protocols.
    pub protocol_version: u64,
    /// Name of the suite.
    pub suite: String,
    /// Processor and operating system.
    pub machine: String,
    /// Settings in which models differ that a reader may take for equal, one line each: see [`unfair`](crate::unfair).
    pub comparison: Vec<String>,
    /// Plugins that were used.
    pub plugins: Vec<PluginFacts>,
    /// Runs, in the order of the tables.
    pub runs: Vec<RunManifest>,
}

impl Manifest {
    /// An empty manifest of this version.
    #[must_use]
    pub fn new(suite: &str) -> Self {
        Self {
            suite: suite.into(),
            protocol_version: PROTOCOL_VERSION,
            ..Self::default()
        }
    }
}

/// A plugin file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PluginFacts {
    /// Name it declares.
    pub name: String,
    /// Version it declares.
    pub version: String,
    /// SHA-256 of the file.
    pub sha256: String,
}

/// How a check that failed is marked in [`DataFacts::checks`].
pub const NOT_PASSED: &str = "NOT passed";

/// The data of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DataFacts {
    /// Name as in the tables.
    pub name: String,
    /// File or origin.
    pub source: String,
    /// Files and folders that the options name, each with a fingerprint: names, sizes and the ends of files.
    pub files: BTreeMap<String, String>,
    /// Licence.
    pub licence: String,
    /// How the labels were computed.
    pub level_of_theory: String,
    /// Content hash.
    pub content_hash: String,
    /// Samples of each split.
    pub splits: BTreeMap<String, u64>,
    /// Normalisation of targets: `[mean, scale]`.
    pub normalisers: BTreeMap<String, [f64; 2]>,
    /// Checks the dataset made: `name: value unit (passed)`.
    pub checks: Vec<String>,
}

impl DataFacts {
    /// The checks that failed.
    pub fn failed_checks(&self) -> impl Iterator<Item = &String> {
        self.checks
            .iter()
            .filter(|check| check.contains(&format!("({NOT_PASSED})")))
    }
}

/// What is known about one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunManifest {
    /// Run id.
    pub run: String,
    /// `finished`, `failed`, `interrupted`.
    pub status: String,
    /// Why it failed.
    pub reason: String,
    /// SHA-256 of the program.
    pub program_sha256: String,
    /// Device.
    pub device: String,
    /// Instruction set of the model's loops on the processor; empty where the plugin does not say.
    pub kernels: String,
    /// Instruction set of its matrix products, where the plugin chooses it.
    pub matrix_products: String,
    /// Features of the processor that numbers or speed may depend on.
    pub processor_flags: Vec<String>,
    /// Threads the model was given; 0 for all.
    pub threads: u64,
    /// Trained parameters.
    pub parameters: u64,
    /// Recipe as it was resolved, JSON.
    pub recipe: String,
    /// Model configuration as it was resolved, JSON.
    pub model_config: String,
    /// The task with its settings as they were resolved, JSON.
    pub task: String,
    /// The run's configuration as it was resolved, JSON.
    pub config: String,
    /// Optimiser steps.
    pub total_steps: u64,
    /// What skill is measured against.
    pub baseline: String,
    /// Rotation scheme; where the model chose it (`measure.scheme = auto`), why.
    pub scheme: String,
    /// Data.
    pub data: DataFacts,
    /// Measurements of kept checkpoints, in the order of the tables.
    pub measurements: Vec<MeasurementFacts>,
}

/// A finished measurement of a kept checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MeasurementFacts {
    /// What stands in the column `measurement`: the step and a hash of all that can change a row.
    pub measurement: String,
    /// Optimiser steps of the checkpoint.
    pub step: u64,
    /// Protocols that were asked.
    pub protocols: Vec<String>,
    /// What was set otherwise than in the run, each as for `--set`.
    pub set: Vec<String>,
    /// SHA-256 of the program, where it is another build than that of the run.
    pub program_sha256: String,
}
