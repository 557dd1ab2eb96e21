//! Descriptions of plugin files, read in a child process so that a crash stays there.

use crate::{Ending, HostError, Library, cache, check_file, run_child};
use equivbench_abi::descriptor::PluginDescriptor;
use std::{
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

/// The hidden command of the program that prints a description: `equivbench describe-plugin FILE`.
pub const DESCRIBE_COMMAND: &str = "describe-plugin";
/// How long a plugin may take to describe itself. Loading takes milliseconds; a cold file on a busy network disk takes longer.
pub const DESCRIBE_LIMIT: Duration = Duration::from_secs(60);

/// Describes a plugin in a child process: runs `program describe-plugin path`, which answers with [`describe_main`].
///
/// Descriptions are remembered in the user's cache directory by path, size and time of the file, unless `EQUIVBENCH_NO_CACHE` is set.
///
/// # Errors
/// A file that is no plugin for this program, or a plugin that crashed, hung or talked nonsense.
pub fn describe_in_child(
    program: &Path,
    path: &Path,
    limit: Duration,
) -> Result<PluginDescriptor, HostError> {
    let (absolute, _) = check_file(path)?;
    if let Some(known) = cache::read(&absolute) {
        return Ok(known);
    }
    let mut command = Command::new(program);
    command.arg(DESCRIBE_COMMAND).arg(&absolute);
    let report = run_child(command, limit).map_err(|e| {
        HostError::refused(
            path,
            format!("{} could not be started: {e}", program.display()),
        )
    })?;
    let crashed = |how: String| {
        Err(HostError::Crashed {
            path: path.to_owned(),
            how,
        })
    };
    match report.ending {
        Ending::Status(0) => {
            match last_line(&report.stdout).and_then(|line| serde_json::from_str(line).ok()) {
                Some(descriptor) => {
                    cache::write(&absolute, &descriptor);
                    Ok(descriptor)
                }
                None => crashed(format!(
                    "ended its process without a description{}",
                    words(&report.stdout)
                )),
            }
        }
        Ending::Status(status) if last_line(&report.stderr).is_none() => crashed(format!(
            "ended its process with status {status} while it was described"
        )),
        Ending::Status(_) => Err(HostError::refused(path, report.stderr.trim())),
        ending => crashed(format!(
            "{ending} while it was described{}",
            words(&report.stderr)
        )),
    }
}

/// A plugin may print while it is described; the description is one line, and the last.
fn last_line(text: &str) -> Option<&str> {
    text.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty())
}

/// The last words of a process, shortened.
fn words(text: &str) -> String {
    last_line(text).map_or(String::new(), |line| {
        format!(
            "; its last words: {}",
            line.chars().take(200).collect::<String>()
        )
    })
}

/// Describes a plugin in this process. A plugin that crashes takes this process along.
///
/// # Errors
/// A file that is no plugin for this program.
pub fn describe_in_process(path: &Path) -> Result<PluginDescriptor, HostError> {
    Ok(Library::open(path)?.descriptor)
}

/// What `describe-plugin FILE` does: prints the description as one line of JSON, or the reason why there is none on standard error.
#[must_use]
pub fn describe_main(path: &Path) -> ExitCode {
    let described = describe_in_process(path).and_then(|descriptor| {
        serde_json::to_string(&descriptor).map_err(|e| {
            HostError::refused(path, format!("its description cannot be written: {e}"))
        })
    });
    match described {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", error.reason());
            ExitCode::FAILURE
        }
    }
}
