//! `cargo xtask test`: what CI runs. Checks first, then one build, then every test, with skipped ones counted.

use crate::{build, cargo, cargo_with, circles, layers, root, target};
use anyhow::{Context, Result, bail};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

/// Formatting, arrows, one build, generated pages, lints, documentation, all tests.
pub(crate) fn all() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    layers::check()?;
    circles::check()?;
    build()?;
    check_pages()?;
    lints()?;
    let tally = run_tests(&[])?;
    println!("{tally}");
    if !tally.is_good() {
        bail!("tests failed");
    }
    Ok(())
}

/// What `cargo xtask check` does.
pub(crate) fn checks() -> Result<()> {
    cargo(&["fmt", "--all", "--check"])?;
    layers::check()?;
    circles::check()?;
    lints()?;
    build()?;
    check_pages()
}

/// Clippy and rustdoc without a warning. Both read the metadata of dependencies, so that the second one compiles none again.
fn lints() -> Result<()> {
    cargo(&[
        "clippy",
        "--release",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ])?;
    cargo_with(
        &[("RUSTDOCFLAGS", "-D warnings")],
        &["doc", "--release", "--workspace", "--no-deps"],
    )
}

/// Pages that are generated from the program: path and command.
const PAGES: &[(&str, &[&str])] = &[("docs/columns.md", &["columns", "--format", "markdown"])];

fn page(arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(target().join("equivbench"))
        .args(arguments)
        .output()
        .context("equivbench could not be started")?;
    if !output.status.success() {
        bail!("equivbench {} failed", arguments.join(" "));
    }
    Ok(output.stdout)
}

fn check_pages() -> Result<()> {
    for (path, arguments) in PAGES {
        let found = std::fs::read(root().join(path)).unwrap_or_default();
        if found != page(arguments)? {
            bail!("{path} is not up to date; run `cargo xtask docs` and commit it");
        }
    }
    Ok(())
}

/// Writes the generated pages.
pub(crate) fn write_pages() -> Result<()> {
    build()?;
    for (path, arguments) in PAGES {
        std::fs::write(root().join(path), page(arguments)?).with_context(|| (*path).to_owned())?;
        println!("{path} written");
    }
    Ok(())
}

/// What came out of a series of tests.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Names of those that are only for the night: `#[ignore = "slow: ..."]`.
    pub(crate) slow: Vec<String>,
    exited_well: bool,
}

impl Tally {
    /// Whether tests ran, and none failed.
    pub(crate) fn is_good(&self) -> bool {
        self.failed == 0 && self.passed > 0 && self.exited_well
    }

    /// A test without its data prints `skipped: why` and returns; it counts as skipped, not as passed.
    fn read(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped += 1;
        }
        if let Some((name, _)) = line.split_once(" ... ignored, slow:") {
            let name = name.strip_prefix("test ").unwrap_or(name);
            self.slow.push(name.to_owned());
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            let number = |word: &str| -> u64 {
                let before = counts.split(word).next().unwrap_or_default();
                before
                    .split_whitespace()
                    .last()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0)
            };
            self.passed += number(" passed");
            self.failed += number(" failed");
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            passed,
            failed,
            skipped,
            ..
        } = self;
        write!(f, "{passed} passed, {failed} failed, {skipped} skipped")
    }
}

/// Runs `cargo test` with some arguments for the tests, shows its output, and counts.
pub(crate) fn run_tests(arguments: &[&str]) -> Result<Tally> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args([
            "test",
            "--release",
            "--workspace",
            "--no-fail-fast",
            "--",
            "--show-output",
        ])
        .args(arguments)
        .current_dir(root());
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo test could not be started")?;
    let mut tally = Tally::default();
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        tally.read(&line);
    }
    tally.exited_well = child.wait()?.success();
    tally.passed = tally.passed.saturating_sub(tally.skipped);
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_counted_and_those_for_the_night_are_named() {
        let mut tally = Tally::default();
        for line in [
            "test laws::quick ... ok",
            "test laws::long ... ignored, slow: 1,000 repeats take minutes",
            "test calls::child ... ignored, run by another test",
            "skipped: no data",
            "test result: ok. 12 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            tally.read(line);
        }
        assert_eq!(tally.to_string(), "15 passed, 1 failed, 1 skipped");
        assert_eq!(tally.slow, ["laws::long"]);
    }
}
