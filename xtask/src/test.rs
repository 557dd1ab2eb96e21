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
    let tally = run_tests()?;
    println!(
        "{} passed, {} failed, {} skipped",
        tally.passed, tally.failed, tally.skipped
    );
    if tally.failed > 0 || tally.passed == 0 || !tally.exited_well {
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

struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    exited_well: bool,
}

/// Runs `cargo test`, shows its output, and counts. A test without its data prints `skipped: why` and returns; it counts as
/// skipped, not as passed.
fn run_tests() -> Result<Tally> {
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
        .current_dir(root());
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cargo test could not be started")?;
    let mut tally = Tally {
        passed: 0,
        failed: 0,
        skipped: 0,
        exited_well: false,
    };
    let output = child.stdout.take().context("cargo test has no output")?;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if line.starts_with("skipped: ") {
            tally.skipped += 1;
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
            tally.passed += number(" passed");
            tally.failed += number(" failed");
        }
    }
    tally.exited_well = child.wait()?.success();
    tally.passed = tally.passed.saturating_sub(tally.skipped);
    Ok(tally)
}
