//! `cargo xtask nightly`: what takes too long for every change. The suite; then the tests that are only for the night,
//! `#[ignore = "slow: why"]`, simulations of many repeats among them; then the suite again beside a busy loop on every core, where
//! whatever trusts a clock fails. A report says what came out.

use crate::{
    build, commit, machine, root,
    test::{Tally, run_tests},
};
use anyhow::{Context, Result, bail};
use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

/// Where the report goes; git ignores it like all results.
const REPORT: &str = "results/nightly/REPORT.md";

/// One part of the night.
struct Part {
    name: String,
    tally: Tally,
    seconds: u64,
}

/// Runs all parts, also after one that failed, and writes the report.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let rounds = busy_rounds(arguments)?;
    build()?;
    let mut parts = vec![part("suite", || run_tests(&[]))?];
    let slow = std::mem::take(&mut parts[0].tally.slow);
    if !slow.is_empty() {
        let named = slow.iter().map(String::as_str);
        let only: Vec<&str> = ["--ignored", "--exact"].into_iter().chain(named).collect();
        parts.push(part("slow tests", || run_tests(&only))?);
    }
    for round in 1..=rounds {
        let _load = Load::start();
        let name = format!("suite beside busy loops, {round} of {rounds}");
        parts.push(part(&name, || run_tests(&[]))?);
    }
    let text = report(&parts);
    let path = root().join(REPORT);
    std::fs::create_dir_all(path.parent().context("a report lies in a folder")?)?;
    std::fs::write(&path, &text).context(REPORT)?;
    println!("{text}\n{REPORT} written");
    if parts.iter().any(|part| !part.tally.is_good()) {
        bail!("the night failed");
    }
    Ok(())
}

/// `--busy N`: how often the suite runs beside busy loops; once where nothing is said.
fn busy_rounds(arguments: &[String]) -> Result<u32> {
    match arguments {
        [] => Ok(1),
        [option, rounds] if option == "--busy" => rounds
            .parse()
            .with_context(|| format!("--busy {rounds}: write a number of rounds, 0 for none")),
        _ => bail!("usage: cargo xtask nightly [--busy N]"),
    }
}

fn part(name: &str, tests: impl FnOnce() -> Result<Tally>) -> Result<Part> {
    let start = Instant::now();
    let tally = tests()?;
    Ok(Part {
        name: name.into(),
        tally,
        seconds: start.elapsed().as_secs(),
    })
}

fn report(parts: &[Part]) -> String {
    let mut text = format!(
        "# Nightly\n\nCommit {}, {}, {} cores.\n\n| part | passed | failed | skipped | seconds | |\n|---|---|---|---|---|---|\n",
        commit(),
        machine::processor(),
        cores()
    );
    for Part {
        name,
        tally,
        seconds,
    } in parts
    {
        let verdict = if tally.is_good() { "" } else { "FAILED" };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} | {seconds} | {verdict} |",
            tally.passed, tally.failed, tally.skipped
        );
    }
    text
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A busy loop on every core, until it is dropped.
struct Load {
    stop: Arc<AtomicBool>,
    loops: Vec<JoinHandle<()>>,
}

impl Load {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let busy = |_| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        let loops = (0..cores()).map(busy).collect();
        Self { stop, loops }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for busy in self.loops.drain(..) {
            // A loop that spins has nothing to panic about.
            let _ = busy.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_beside_busy_loops_are_a_number() {
        let rounds = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            busy_rounds(&words)
        };
        assert_eq!(rounds(&[]).unwrap(), 1);
        assert_eq!(rounds(&["--busy", "3"]).unwrap(), 3);
        assert!(rounds(&["--busy", "many"]).is_err() && rounds(&["busy"]).is_err());
    }

    #[test]
    fn a_part_without_a_test_is_a_failure() {
        let parts = [Part {
            name: "suite".into(),
            tally: Tally::default(),
            seconds: 7,
        }];
        let text = report(&parts);
        assert!(
            text.ends_with("| suite | 0 | 0 | 0 | 7 | FAILED |\n"),
            "{text}"
        );
    }
}
