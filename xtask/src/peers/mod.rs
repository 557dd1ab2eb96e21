//! `cargo xtask peers`: ours beside PyTorch's, eager and compiled, interleaved in one run; same numbers, same threads.

mod interleave;
mod kernels;
mod models;
mod process;
mod table;

use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// Threads of every process.
const THREADS: &str = "2";

const HELP: &str = "\
cargo xtask peers [PAIRS [PART]] [--eager-only]
    training steps and predictions of the models; writes benchmarks/peers/results.csv
cargo xtask peers kernels [PAIRS [PART]] [--eager-only]
    fused operations, forward and backward; writes benchmarks/peers/kernels.csv

PAIRS         rounds; in each, every program does the same piece of work once [default: 15]
PART          a part of the names to run; rows that are not run anew are kept [default: all]
--eager-only  leaves out torch.compile, which needs a C++ compiler and minutes for each row

`python3` needs the packages of benchmarks/peers/requirements.txt. Leave the machine alone meanwhile.";

/// What to run, from the command line.
#[derive(Debug, PartialEq)]
struct Request {
    kernels: bool,
    pairs: usize,
    /// A part of the names.
    part: String,
    compiled: bool,
}

impl Request {
    /// None asks for help.
    fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let mut request = Self {
            kernels: false,
            pairs: 15,
            part: String::new(),
            compiled: true,
        };
        let mut plain = Vec::new();
        for argument in arguments {
            match argument.as_str() {
                "--help" | "-h" | "help" => return Ok(None),
                "--eager-only" => request.compiled = false,
                "kernels" if plain.is_empty() && !request.kernels => request.kernels = true,
                option if option.starts_with('-') => bail!("{option} is not an option\n\n{HELP}"),
                other => plain.push(other),
            }
        }
        let mut plain = plain.into_iter();
        if let Some(pairs) = plain.next() {
            request.pairs = pairs
                .parse()
                .ok()
                .filter(|&n| n > 0)
                .with_context(|| format!("{pairs} is no number of pairs\n\n{HELP}"))?;
        }
        request.part = plain.next().unwrap_or_default().to_owned();
        match plain.next() {
            Some(more) => bail!("{more} is one argument too many\n\n{HELP}"),
            None => Ok(Some(request)),
        }
    }

    /// The names to run.
    ///
    /// # Errors
    /// If there are none.
    fn select<'a>(&self, names: impl Iterator<Item = &'a str> + Clone) -> Result<Vec<&'a str>> {
        let mut wanted: Vec<&str> = names
            .clone()
            .filter(|name| name.contains(&self.part))
            .collect();
        wanted.dedup();
        if wanted.is_empty() {
            bail!(
                "no name has the part \"{}\"; there are {}",
                self.part,
                names.collect::<Vec<_>>().join(", ")
            );
        }
        Ok(wanted)
    }
}

/// Runs the comparisons that the arguments ask for. One that fails is told and does not keep the others from running.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match Request::parse(arguments)? {
        None => {
            println!("{HELP}");
            Ok(())
        }
        Some(request) if request.kernels => kernels::run(&request),
        Some(request) => models::run(&request),
    }
}

/// The folder of scripts and tables.
fn folder() -> PathBuf {
    crate::root().join("benchmarks/peers")
}

/// An error for all that failed, if anything did.
fn summary(failed: &[String]) -> Result<()> {
    if failed.is_empty() {
        return Ok(());
    }
    bail!("not measured: {}", failed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Request>> {
        Request::parse(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_command_line_names_table_pairs_and_part_in_this_order() {
        let all = Request {
            kernels: false,
            pairs: 15,
            part: String::new(),
            compiled: true,
        };
        assert_eq!(parse("").unwrap(), Some(all));
        let some = Request {
            kernels: true,
            pairs: 5,
            part: "conv".into(),
            compiled: false,
        };
        assert_eq!(parse("kernels 5 conv --eager-only").unwrap(), Some(some));
        assert_eq!(parse("5 --help").unwrap(), None);
    }

    #[test]
    fn nonsense_on_the_command_line_is_refused() {
        for line in ["0", "escaip", "5 escaip 6M", "--eager"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
