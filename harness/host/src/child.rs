//! Runs a program to its end or to a time limit, and says how it ended in words.

use std::{
    io::Read,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

/// What a child wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildReport {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How it ended.
    pub ending: Ending,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With this status; 0 is success.
    Status(i32),
    /// By this signal.
    Signal(i32),
    /// It was ended because the time was up.
    TimedOut(Duration),
}

impl Ending {
    /// How a process with this status ended.
    #[must_use]
    pub fn of(status: ExitStatus) -> Self {
        #[cfg(unix)]
        if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
            return Self::Signal(signal);
        }
        Self::Status(status.code().unwrap_or(-1))
    }

    /// Whether the process ended by itself and without complaint.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Status(0)
    }
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "exited with status {status}"),
            Self::Signal(signal) => write!(f, "died of signal {signal} ({})", signal_name(*signal)),
            Self::TimedOut(limit) => write!(
                f,
                "was still running after {} s and was ended",
                limit.as_secs_f64()
            ),
        }
    }
}

/// Common signals of Linux and macOS in words.
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => "hang-up",
        2 => "interrupt",
        4 => "illegal instruction",
        6 => "abort",
        7 | 10 => "bus error",
        8 => "arithmetic error",
        9 => "killed, perhaps for want of memory",
        11 => "segmentation fault",
        15 => "terminated",
        24 => "processor time limit",
        31 => "forbidden system call",
        _ => "see signal(7)",
    }
}

/// Runs a command without input until it ends, at most for `limit`.
///
/// # Errors
/// A program that cannot be started.
pub fn run_child(mut command: Command, limit: Duration) -> std::io::Result<ChildReport> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let ending = wait(&mut child, limit)?;
    Ok(ChildReport {
        stdout: text(&stdout),
        stderr: text(&stderr),
        ending,
    })
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Ending> {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ending::of(status));
        }
        if start.elapsed() >= limit {
            child.kill()?;
            child.wait()?;
            return Ok(Ending::TimedOut(limit));
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Enough for any description; a child that writes more is not read further.
const LONGEST_OUTPUT: u64 = 64 << 20;

fn collect(pipe: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(pipe) = pipe {
            // What was read before an error is worth showing.
            let _ = pipe.take(LONGEST_OUTPUT).read_to_end(&mut bytes);
        }
        // The receiver has gone when the output is no longer wanted.
        let _ = sender.send(bytes);
    });
    receiver
}

/// A grandchild may hold the pipe open after the child has ended; then the output is given up. Long enough for a thread that only has
/// to be woken, however busy the machine is: less, and an answer is lost that had been written.
const PATIENCE: Duration = Duration::from_secs(20);

fn text(pipe: &Receiver<Vec<u8>>) -> String {
    let bytes = pipe.recv_timeout(PATIENCE).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn shell(script: &str, limit_ms: u64) -> ChildReport {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        run_child(command, Duration::from_millis(limit_ms)).unwrap()
    }

    #[test]
    fn every_way_to_end_has_a_sentence() {
        assert!(shell("echo out; echo err >&2", 600_000).ending.is_success());
        assert_eq!(
            shell("exit 3", 600_000).ending.to_string(),
            "exited with status 3"
        );
        assert_eq!(
            shell("kill -11 $$", 600_000).ending.to_string(),
            "died of signal 11 (segmentation fault)"
        );
        assert_eq!(
            shell("exec sleep 20", 50).ending.to_string(),
            "was still running after 0.05 s and was ended"
        );
    }

    #[test]
    fn output_is_kept_apart() {
        let report = shell("echo out; echo err >&2; exit 1", 600_000);
        assert_eq!(
            (report.stdout.as_str(), report.stderr.as_str()),
            ("out\n", "err\n")
        );
    }
}
