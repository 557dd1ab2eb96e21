//! The local pool: workers as child processes, some at a time, watched for crashes, stalls and limits.

use crate::{
    RunnerError,
    opening::THREADS_VARIABLE,
    plan::gpu_count,
    run_dir::{ProgressFile, RunDir, State, Status},
    watch::{POOL_VARIABLE, STOP_FILE},
};
use equivbench_host::PROGRESS_VARIABLE;
use std::{
    collections::VecDeque,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// How the pool works.
pub struct Pool<'a> {
    /// The program; its command `worker DIR` executes a run.
    pub program: PathBuf,
    /// Runs at a time.
    pub jobs: usize,
    /// Asks all workers for a checkpoint and an end.
    pub stop: &'a AtomicBool,
}

/// What the pool tells of.
pub enum Event<'a> {
    /// A worker was started.
    Started(&'a RunDir),
    /// A worker made progress.
    Progress(&'a RunDir, &'a ProgressFile),
    /// A run ended.
    Ended(&'a RunDir, &'a Status),
}

struct Working {
    dir: RunDir,
    /// Place in the pool, which picks the GPU.
    slot: usize,
    child: Child,
    /// The word of an earlier worker, which is not that of this one.
    before: Status,
    started: Instant,
    alive: Instant,
    beat: u64,
    stall_limit: Duration,
    hard_limit: Duration,
    asked_to_stop: Option<Instant>,
}

/// Exit code of the program, and so of a worker, that may not touch a run or a results directory.
pub const CONFLICT_EXIT_CODE: u8 = 6;
/// Exit code of the program, and so of a worker, that was stopped on request.
pub const STOPPED_EXIT_CODE: u8 = 130;
/// Grace between asking a worker to stop and ending it.
const GRACE: Duration = Duration::from_secs(60);

impl Pool<'_> {
    /// Executes all runs that are not finished, those of the lowest seed first, so that every model is seen early and long runs do not all
    /// come last. A run that fails takes no other along.
    ///
    /// # Errors
    /// A worker that cannot be started.
    pub fn execute(
        &self,
        runs: &[RunDir],
        mut tell: impl FnMut(Event<'_>),
    ) -> Result<(), RunnerError> {
        let unfinished = runs.iter().filter(|d| d.status().state != State::Finished);
        let seed = |dir: &RunDir| Ok((dir.spec()?.config.run.seed, dir.clone()));
        let mut waiting: Vec<(u64, RunDir)> =
            unfinished.map(seed).collect::<Result<_, RunnerError>>()?;
        waiting.sort_by_key(|(seed, _)| *seed);
        let mut waiting: VecDeque<RunDir> = waiting.into_iter().map(|(_, dir)| dir).collect();
        let mut working: Vec<Working> = Vec::new();
        while !working.is_empty() || (!waiting.is_empty() && !self.stopping()) {
            while working.len() < self.jobs.max(1) && !self.stopping() {
                let Some(dir) = waiting.pop_front() else {
                    break;
                };
                let slot = (0..)
                    .find(|s| working.iter().all(|w: &Working| w.slot != *s))
                    .unwrap_or(0);
                working.push(self.start(&dir, slot)?);
                tell(Event::Started(&dir));
            }
            std::thread::sleep(Duration::from_millis(50));
            let mut still = Vec::new();
            for mut worker in working {
                match self.look_after(&mut worker, &mut tell)? {
                    Some(status) => tell(Event::Ended(&worker.dir, &status)),
                    None => still.push(worker),
                }
            }
            working = still;
        }
        Ok(())
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn start(&self, dir: &RunDir, slot: usize) -> Result<Working, RunnerError> {
        let spec = dir.spec()?;
        let log = dir.log();
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(RunnerError::io(&log))?;
        let twin = file.try_clone().map_err(RunnerError::io(&log))?;
        for stale in [dir.path().join("progress.json"), dir.plugin_progress()] {
            let _ = std::fs::remove_file(stale);
        }
        let mut command = Command::new(&self.program);
        command
            .arg("worker")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(twin);
        command.env(POOL_VARIABLE, std::process::id().to_string());
        command.env(
            PROGRESS_VARIABLE,
            std::path::absolute(dir.plugin_progress()).map_err(RunnerError::io(dir.path()))?,
        );
        if self.jobs > 1 {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            command.env(THREADS_VARIABLE, (cores / self.jobs).max(1).to_string());
        }
        // `auto` names the first GPU; with several runs at a time each worker sees a GPU of its own as the first.
        if self.jobs > 1 && spec.config.run.device == "cuda:0" && gpu_count() > 1 {
            command.env("CUDA_VISIBLE_DEVICES", (slot % gpu_count()).to_string());
        }
        let before = dir.status();
        let child = command.spawn().map_err(RunnerError::io(&self.program))?;
        let seconds = |s: u64| {
            if s == 0 {
                Duration::MAX
            } else {
                Duration::from_secs(s)
            }
        };
        Ok(Working {
            dir: dir.clone(),
            slot,
            child,
            before,
            started: Instant::now(),
            alive: Instant::now(),
            beat: 0,
            stall_limit: seconds(spec.config.run.stall_limit_s),
            hard_limit: seconds(spec.config.run.time_limit_s).saturating_add(GRACE),
            asked_to_stop: None,
        })
    }

    fn look_after(
        &self,
        worker: &mut Working,
        tell: &mut impl FnMut(Event<'_>),
    ) -> Result<Option<Status>, RunnerError> {
        if let Some(progress) = worker
            .dir
            .latest_progress()
            .filter(|p| p.beat != worker.beat)
        {
            worker.beat = progress.beat;
            worker.alive = Instant::now();
            tell(Event::Progress(&worker.dir, &progress));
        }
        let dir = worker.dir.clone();
        if let Some(exit) = worker
            .child
            .try_wait()
            .map_err(RunnerError::io(dir.path()))?
        {
            return Ok(Some(settle(&dir, &worker.before, exit, None)?));
        }
        if self.stopping() {
            // Again if need be: a worker removes the file once, when it begins.
            let stop = dir.path().join(STOP_FILE);
            if !stop.exists() {
                std::fs::write(&stop, b"").map_err(RunnerError::io(&stop))?;
            }
            worker.asked_to_stop.get_or_insert_with(Instant::now);
        }
        // A long evaluation is no hang: as long as there are signs of life, the worker stops by itself after its next step.
        let lives = worker.alive.elapsed() < GRACE;
        let ended = match () {
            () if worker.alive.elapsed() > worker.stall_limit => Some(format!(
                "no sign of life for {} s (run.stall_limit_s): the plugin hangs",
                worker.stall_limit.as_secs()
            )),
            () if !lives && worker.started.elapsed() > worker.hard_limit => {
                Some("run.time_limit_s passed and the plugin did not return".into())
            }
            () if !lives && worker.asked_to_stop.is_some_and(|t| t.elapsed() > GRACE) => {
                Some("asked to stop and did not".into())
            }
            () => None,
        };
        let Some(reason) = ended else { return Ok(None) };
        let io = || RunnerError::io(dir.path());
        worker.child.kill().map_err(io())?;
        let exit = worker.child.wait().map_err(io())?;
        Ok(Some(settle(&dir, &worker.before, exit, Some(reason))?))
    }
}

/// The status of a run whose worker is gone: its own word, or what its end says.
fn settle(
    dir: &RunDir,
    before: &Status,
    exit: ExitStatus,
    ended: Option<String>,
) -> Result<Status, RunnerError> {
    let own = dir.status();
    let has_spoken = matches!(
        own.state,
        State::Finished | State::Failed | State::Interrupted
    );
    if ended.is_none() && is_stop(exit) && (own == *before || !has_spoken) {
        let status = Status {
            state: State::Interrupted,
            reason: "stopped on request before it could make a checkpoint; continue with --resume"
                .into(),
            ..own
        };
        dir.set_status(&status)?;
        return Ok(status);
    }
    if ended.is_none() && has_spoken {
        return Ok(own);
    }
    if exit.code() == Some(i32::from(CONFLICT_EXIT_CODE)) {
        let reason = format!(
            "another process executes this run, or its files changed; see {}",
            dir.log().display()
        );
        return Ok(Status {
            state: State::Interrupted,
            reason,
            ..own
        });
    }
    let progress = dir.progress().unwrap_or_default();
    let how = ended.unwrap_or_else(|| describe(exit));
    let status = Status {
        state: State::Failed,
        reason: format!(
            "{how}, after step {}; see {}",
            progress.step,
            dir.log().display()
        ),
        step: progress.step,
        ..Status::default()
    };
    dir.set_status(&status)?;
    Ok(status)
}

/// Whether the worker was asked to end by a signal: before its handlers stood, or twice.
fn is_stop(exit: ExitStatus) -> bool {
    /// SIGINT and SIGTERM.
    #[cfg(unix)]
    const SIGNALS: [i32; 2] = [2, 15];
    #[cfg(unix)]
    if std::os::unix::process::ExitStatusExt::signal(&exit).is_some_and(|s| SIGNALS.contains(&s)) {
        return true;
    }
    exit.code() == Some(i32::from(STOPPED_EXIT_CODE))
}

fn describe(exit: ExitStatus) -> String {
    #[cfg(unix)]
    {
        use std::os::unix::process::ExitStatusExt;
        if let Some(signal) = exit.signal() {
            let name = match signal {
                4 => "illegal instruction",
                6 => "aborted",
                7 => "bus error",
                8 => "arithmetic error",
                9 => "killed; the system may have been out of memory",
                11 => "segmentation fault",
                _ => "signal",
            };
            return format!(
                "the worker process died of signal {signal} ({name}): a fault of the plugin, or someone ended it"
            );
        }
    }
    format!(
        "the worker process ended with exit code {} in the middle of the run: the plugin called exit",
        exit.code().unwrap_or(-1)
    )
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::{config::RunConfig, run_dir::RunSpec};
    use std::{os::unix::fs::PermissionsExt, path::Path};

    fn spec() -> RunSpec {
        RunSpec::of(RunConfig::default())
    }

    /// A run in a folder, whose worker is a shell script: `$2` is the run directory.
    fn run_of(folder: &Path, script: &str) -> (RunDir, PathBuf) {
        let program = folder.join("worker");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        let dir = RunDir::at(folder.join("run"));
        dir.create(&spec()).unwrap();
        (dir, program)
    }

    /// How the run ends, with the status that an earlier worker left.
    fn ends(script: &str, before: Option<State>) -> Status {
        let folder = tempfile::tempdir().unwrap();
        let (dir, program) = run_of(folder.path(), script);
        if let Some(state) = before {
            let reason = "of an earlier worker".into();
            let status = Status {
                state,
                reason,
                ..Status::default()
            };
            dir.set_status(&status).unwrap();
        }
        let stop = AtomicBool::new(false);
        let pool = Pool {
            program,
            jobs: 1,
            stop: &stop,
        };
        pool.execute(std::slice::from_ref(&dir), |_| {}).unwrap();
        dir.status()
    }

    #[test]
    fn a_worker_that_a_signal_ends_before_it_says_anything_is_no_fault_of_a_plugin() {
        for script in ["kill -TERM $$", "exit 130"] {
            for before in [None, Some(State::Failed), Some(State::Interrupted)] {
                let status = ends(script, before);
                assert_eq!(
                    status.state,
                    State::Interrupted,
                    "{script} after {before:?}"
                );
                assert!(status.reason.contains("--resume"), "{}", status.reason);
            }
        }
    }

    #[test]
    fn other_ends_without_a_word_fail_and_a_last_word_counts_whatever_comes_after() {
        let crashed = ends("kill -SEGV $$", None);
        assert_eq!(crashed.state, State::Failed);
        assert!(
            crashed.reason.contains("segmentation fault"),
            "{}",
            crashed.reason
        );
        let says =
            |state: &str| format!("echo 'state = \"{state}\"' > $2/status.toml; kill -TERM $$");
        assert_eq!(ends(&says("finished"), None).state, State::Finished);
        assert_eq!(ends(&says("failed"), None).state, State::Failed);
    }

    #[test]
    fn a_request_to_stop_that_comes_before_a_worker_begins_is_made_again() {
        // What a worker does first is to remove the request to an earlier one.
        let wait = "while [ ! -e $2/stop ]; do sleep 0.01; done";
        let folder = tempfile::tempdir().unwrap();
        let (dir, program) = run_of(
            folder.path(),
            &format!("{wait}; rm $2/stop; {wait}; exit 130"),
        );
        let stop = AtomicBool::new(false);
        let pool = Pool {
            program,
            jobs: 1,
            stop: &stop,
        };
        let tell = |event: Event<'_>| {
            if matches!(event, Event::Started(_)) {
                stop.store(true, Ordering::Relaxed);
            }
        };
        pool.execute(std::slice::from_ref(&dir), tell).unwrap();
        assert_eq!(dir.status().state, State::Interrupted);
    }
}
