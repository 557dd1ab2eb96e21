//! A program that does one piece of work for each line it reads.

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// One side of a comparison. While it waits for a request it uses no processor time.
pub(crate) struct Process {
    /// What messages call it.
    name: String,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it says about itself.
    pub(crate) description: Value,
}

impl Process {
    /// Starts the program and waits until it says that it is ready.
    pub(crate) fn start(name: &str, mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let input = child.stdin.take().context("no input")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let mut process = Self {
            name: name.to_owned(),
            child,
            input,
            output,
            description: Value::Null,
        };
        let line = process
            .read()
            .with_context(|| format!("{command:?} did not start"))?;
        let description = line
            .strip_prefix("ready")
            .with_context(|| format!("{command:?} should have said that it is ready: {line}"))?;
        process.description = serde_json::from_str(description)
            .with_context(|| format!("{command:?} described itself as {description}"))?;
        Ok(process)
    }

    fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("{} ended; what it wrote above may say why", self.name);
        }
        Ok(line)
    }

    /// The answer to a request.
    pub(crate) fn ask(&mut self, request: &str) -> Result<Value> {
        writeln!(self.input, "{request}")
            .and_then(|()| self.input.flush())
            .with_context(|| format!("{} is gone", self.name))?;
        let line = self.read()?;
        let answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("{} answered {request} with {line}", self.name))?;
        match answer.get("error") {
            Some(error) => bail!("{} cannot {request}: {error}", self.name),
            None => Ok(answer),
        }
    }

    /// One figure of the answer to a request.
    pub(crate) fn figure(&mut self, request: &str, key: &str) -> Result<f64> {
        let answer = self.ask(request)?;
        answer[key]
            .as_f64()
            .with_context(|| format!("{} answered {request} without {key}: {answer}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "quit");
        let _ = self.child.wait();
    }
}

/// `python3` with one of the timing scripts.
pub(crate) fn script(name: &str) -> Command {
    let mut command = Command::new("python3");
    command
        .arg(super::folder().join("torch").join(name))
        .args(["--threads", super::THREADS]);
    command
}

/// One of our examples, ready for requests.
pub(crate) fn example(name: &str) -> Command {
    let mut command = Command::new(crate::target().join("examples").join(name));
    command
        .arg("--serve")
        .env("RAYON_NUM_THREADS", super::THREADS);
    command
}
