//! `equivbench`: arguments, logging, progress, exit codes and wiring. Whatever can be tested without a process lives below.

mod args;
mod check;
mod exit;
mod listing;
mod logging;
mod progress;
mod run;

use args::{Cli, Command, Format};
use clap::{CommandFactory, Parser};
use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.verbose, cli.quiet);
    match dispatch(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("equivbench: {error}");
            exit::code_of(&error)
        }
    }
}

fn dispatch(cli: &Cli) -> anyhow::Result<ExitCode> {
    match &cli.command {
        Command::Run(run) => run::run(run, cli.quiet),
        Command::List(list) => listing::list(list),
        Command::Columns { format } => {
            print_columns(*format)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Check(check) => check::check(check),
        Command::Worker { dir } => run::worker(dir),
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
        Format::Text | Format::Markdown => print!("{}", equivbench_report::columns_markdown()),
        Format::Json => println!(
            "{}",
            serde_json::to_string_pretty(&equivbench_report::columns_json())?
        ),
    }
    Ok(())
}
