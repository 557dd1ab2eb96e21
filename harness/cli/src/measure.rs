//! `equivbench measure`.

use crate::{args::MeasureArgs, run::COMMIT, signals::Signals};
use equivbench_runner::{
    MeasureRequest, RunnerError, config::KeptStep, experiment::Experiment, measure_checkpoint,
    run_dir::RunDir, suite::parse_override,
};
use std::process::ExitCode;

/// Measures a checkpoint of a run, and merges the tables of its experiment anew.
pub(crate) fn measure(
    args: &MeasureArgs,
    quiet: bool,
    signals: &Signals,
) -> anyhow::Result<ExitCode> {
    if !args.run.join("run.toml").is_file() {
        return Err(RunnerError::Config(format!(
            "{} is no run directory: it has no run.toml; run directories lie in RESULTS/runs",
            args.run.display()
        ))
        .into());
    }
    let overrides = args.set.iter().map(|s| parse_override(s));
    let request = MeasureRequest {
        at: match args.at.parse() {
            Ok(step) => KeptStep::Step(step),
            Err(_) => KeptStep::Named(args.at.clone()),
        },
        protocols: args.protocols.clone(),
        overrides: overrides.collect::<Result<_, _>>()?,
    };
    let run = RunDir::at(&args.run);
    let measured = measure_checkpoint(&run, &request, signals.as_flag())?;
    if let Some(experiment) = Experiment::of_run(&run)? {
        experiment.merge(COMMIT)?;
    }
    if !quiet {
        for table in measured.status().tables.keys() {
            println!("{}", measured.path().join(format!("{table}.csv")).display());
        }
    }
    Ok(ExitCode::SUCCESS)
}
