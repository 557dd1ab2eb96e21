//! `equivbench`: arguments, logging, progress, exit codes and wiring. Whatever can be tested without a process lives below.

mod args;
mod check;
mod compare;
mod exit;
mod listing;
mod logging;
mod measure;
mod progress;
mod run;
mod signals;

use args::{Cli, Command, Format};
use clap::{CommandFactory, Parser};
use signals::Signals;
use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let signals = match Signals::install() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("equivbench: signal handlers cannot be installed: {error}");
            return ExitCode::from(exit::FAILED);
        }
    };
    let cli = Cli::parse();
    logging::start(cli.verbose, cli.quiet);
    match dispatch(&cli, &signals) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("equivbench: {error}");
            exit::code_of(&error)
        }
    }
}

fn dispatch(cli: &Cli, signals: &Signals) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Run(run) => run::run(run, cli.quiet, signals),
        Command::Measure(measure) => measure::measure(measure, cli.quiet, signals),
        Command::Compare(compare) => compare::compare(compare),
        Command::List(list) => listing::list(list),
        Command::Columns { format } => {
            print_columns(*format)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(check) => check::check(check),
        Command::Worker { dir } => run::worker(dir, signals),
        Command::DescribePlugin { file } => Ok(equivbench_host::describe_main(Path::new(file))),
        Command::Completions { shell } => {
            clap_complete::generate(
                *shell,
                &mut Cli::command(),
                "equivbench",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn print_columns(format: Format) -> anyhow::Result<()> {
    match format {
        Format::Text | Format::Markdown => print!("{}", equivbench_analysis::columns_markdown()),
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&equivbench_analysis::columns_json())?
        ),
    }
    Ok(())
}
