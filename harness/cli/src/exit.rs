//! Exit codes, documented in `--help`.

use equivbench_host::HostError;
use equivbench_report::ReportError;
use equivbench_runner::{
    RunnerError,
    pool::{CONFLICT_EXIT_CODE, STOPPED_EXIT_CODE},
};
use std::process::ExitCode;

/// Some runs or checks failed.
pub(crate) const FAILED: u8 = 1;
/// Wrong arguments, suite or keys.
const USAGE: u8 = 2;
/// A plugin was not found, refused, or crashed.
const PLUGIN: u8 = 3;
/// The device is not there.
const DEVICE: u8 = 5;
/// Files could not be read or written.
const FILES: u8 = 7;
/// Stopped on request.
pub(crate) const STOPPED: u8 = STOPPED_EXIT_CODE;

/// The exit code of an error.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    if let Some(host) = error.downcast_ref::<HostError>() {
        return ExitCode::from(of_host(host));
    }
    match error.downcast_ref::<RunnerError>() {
        Some(runner) => ExitCode::from(of_runner(runner)),
        None => ExitCode::from(FAILED),
    }
}

fn of_host(error: &HostError) -> u8 {
    match error {
        HostError::Device { .. } => DEVICE,
        _ => PLUGIN,
    }
}

fn of_runner(error: &RunnerError) -> u8 {
    match error {
        RunnerError::Config(_) => USAGE,
        RunnerError::Conflict(_) => CONFLICT_EXIT_CODE,
        RunnerError::Io { .. } | RunnerError::Report(ReportError::Io { .. }) => FILES,
        RunnerError::Report(_) => CONFLICT_EXIT_CODE,
        RunnerError::Host(host) => of_host(host),
        RunnerError::Stopped => STOPPED,
        _ => FAILED,
    }
}
