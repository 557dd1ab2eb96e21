//! The program as a process among others: waiting for what it does, and striking it meanwhile.

use crate::equivbench_command;
use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// Far longer than anything that is waited for takes beside busy neighbours: what is not there by then never comes.
const PATIENCE: Duration = Duration::from_secs(900);
/// Pause between two looks. No result depends on it.
const PAUSE: Duration = Duration::from_millis(1);

/// Waits until a condition gives something.
///
/// # Panics
/// When it never does; `what` is named.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(
            start.elapsed() < PATIENCE,
            "{what}: did not happen within {PATIENCE:?}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// A signal by its name for `kill`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// What Ctrl-C sends.
    Interrupt,
    /// What a scheduler sends first.
    Terminate,
    /// What nobody can catch.
    Kill,
    /// Stops a process until it is continued.
    Stop,
    /// Continues a stopped process.
    Continue,
}

impl Signal {
    const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }

    const fn number(self) -> u32 {
        match self {
            Self::Interrupt => 2,
            Self::Terminate => 15,
            Self::Kill => 9,
            Self::Stop => 19,
            Self::Continue => 18,
        }
    }
}

/// Sends a signal to a process, or to its group with a minus; it may be gone already.
fn send(signal: Signal, target: &str) {
    let _ = Command::new("kill")
        .args(["-s", signal.name(), "--", target])
        .stderr(Stdio::null())
        .status();
}

/// Sends a signal to one process, which may be gone already.
pub fn strike(signal: Signal, process: u32) {
    send(signal, &process.to_string());
}

/// Whether a process has a handler of its own for a signal; `false` for one that is gone.
#[must_use]
pub fn catches(signal: Signal, process: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status
        .lines()
        .find_map(|line| line.strip_prefix("SigCgt:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask >> (signal.number() - 1) & 1 == 1)
}

/// Whether a process exists and has not ended.
#[must_use]
pub fn is_alive(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name of the program, in brackets, may hold anything; the state is the letter after it.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The program at work, in a process group of its own that is killed when this is dropped.
pub struct Started(Child);

impl Started {
    /// Starts the program with some arguments, silently.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn new(arguments: &[String], stderr: &Path) -> Self {
        let stderr = std::fs::File::create(stderr).expect("a file for what the program says");
        let mut command = equivbench_command();
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .process_group(0);
        Self(command.spawn().expect("the program starts"))
    }

    /// Process id, and that of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Sends a signal to the program and to whatever it started.
    pub fn strike_group(&self, signal: Signal) {
        send(signal, &format!("-{}", self.0.id()));
    }

    /// Workers at the moment.
    #[must_use]
    pub fn workers(&self) -> Vec<u32> {
        let id = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let is_worker = |process: &u32| {
            let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).nth(1) == Some(&b"worker"[..])
        };
        children
            .unwrap_or_default()
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .filter(is_worker)
            .collect()
    }

    /// Whether it has not ended yet.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child can be asked").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it never ends.
    pub fn end(&mut self) -> ExitStatus {
        wait_for("the end of the program", || {
            self.0.try_wait().expect("a child can be asked")
        })
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        self.strike_group(Signal::Kill);
        // Only so that no dead entry stays in the list of processes.
        let _ = self.0.wait();
    }
}
