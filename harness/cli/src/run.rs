//! `equivbench run` and `equivbench worker`.

use crate::{args::RunArgs, exit, listing, progress::Display, signals::Signals};
use equivbench_analysis::{dip_summary, final_summary, notes};
use equivbench_report::unfair;
use equivbench_runner::{
    RunnerError,
    experiment::Experiment,
    plan::{Request, gpu_count, plan},
    pool::Pool,
    run_dir::{RunDir, RunSpec, State},
    suite::{Suite, parse_override},
    worker::work,
};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The commit the program was built from, where the build says so.
pub(crate) const COMMIT: &str = match option_env!("EQUIVBENCH_COMMIT") {
    Some(commit) => commit,
    None => "",
};

/// `equivbench run`.
pub(crate) fn run(args: &RunArgs, quiet: bool, signals: &Signals) -> anyhow::Result<ExitCode> {
    let mut suite = Suite::load(&args.suite)?;
    if args.fair {
        suite = suite.fair()?;
    }
    let specs = specs(args, &suite)?;
    let out = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from("results").join(&suite.name));
    let jobs = args.jobs.unwrap_or_else(|| default_jobs(&suite, &specs));
    // A folder that is begun is set up whole, so that whatever stops it later can be resumed.
    let stop = signals.as_flag();
    let experiment = Experiment::open(&out, &suite.name, specs, args.resume)?;
    let pool = Pool {
        program: std::env::current_exe()?,
        jobs,
        stop,
    };
    let mut display = Display::new(quiet);
    pool.execute(&experiment.run_dirs(), |event| display.tell(event))?;
    doubtful_data(&experiment)
        .iter()
        .for_each(|doubt| tracing::warn!("{doubt}"));
    warn_of_unfairness(&experiment, args.fair);
    let tables = experiment.merge(COMMIT)?;
    if !quiet {
        if let Some(summary) = tables.iter().find(|table| table.name == "summary") {
            println!("{}\n{}", final_summary(summary), dip_summary(summary));
        }
        notes(&tables).iter().for_each(|note| println!("{note}"));
        println!(
            "Tables: {}",
            tables
                .iter()
                .map(|t| out.join(format!("{}.csv", t.name)).display().to_string())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    verdict(&experiment)
}

/// What datasets found wrong with themselves, each once.
fn doubtful_data(experiment: &Experiment) -> BTreeSet<String> {
    let data = experiment
        .run_dirs()
        .into_iter()
        .filter_map(|dir| dir.manifest())
        .map(|manifest| manifest.data);
    data.flat_map(|data| {
        data.failed_checks()
            .map(|check| format!("data {}: {check}", data.name))
            .collect::<Vec<_>>()
    })
    .collect()
}

/// Models that are compared although they were not trained alike, each difference once.
fn warn_of_unfairness(experiment: &Experiment, asked_to_be_fair: bool) {
    let runs = experiment.run_dirs();
    let manifests: Vec<_> = runs.iter().filter_map(RunDir::manifest).collect();
    let differences = unfair(&manifests);
    for difference in &differences {
        tracing::warn!("not a fair comparison: {difference}");
    }
    if !differences.is_empty() && !asked_to_be_fair {
        tracing::warn!("--fair trains all models alike");
    }
}

fn specs(args: &RunArgs, suite: &Suite) -> anyhow::Result<Vec<RunSpec>> {
    let mut overrides = args
        .set
        .iter()
        .map(|s| parse_override(s))
        .collect::<Result<Vec<_>, _>>()?;
    overrides.extend(seeds(args, &overrides)?);
    overrides.extend(
        args.device
            .iter()
            .map(|d| ("run.device".to_owned(), toml::Value::String(d.clone()))),
    );
    let (search, mut catalogue) = listing::catalogue(&args.plugin_dir)?;
    for refused in &catalogue.refused {
        tracing::warn!("{refused}");
    }
    let mut models = Vec::new();
    for name in &args.plugins {
        models.push(listing::resolve(name, &search, &mut catalogue)?);
    }
    let available = catalogue
        .plugins
        .iter()
        .map(listing::plugin_file)
        .collect::<anyhow::Result<_>>()?;
    Ok(plan(&Request {
        suite,
        models,
        available,
        overrides,
        protocols: args.protocols.clone(),
    })?)
}

/// `--seeds` as for `--set`.
fn seeds(
    args: &RunArgs,
    overrides: &[(String, toml::Value)],
) -> Result<Option<(String, toml::Value)>, RunnerError> {
    const KEY: &str = "run.seed";
    let Some(seeds) = args.seeds else {
        return Ok(None);
    };
    if overrides.iter().any(|(key, _)| key == KEY) {
        return Err(RunnerError::Config(format!(
            "--seeds {seeds} and --set {KEY} say the same thing twice; leave out one of them"
        )));
    }
    let list = (0..i64::from(seeds)).map(toml::Value::from).collect();
    Ok(Some((KEY.into(), toml::Value::Array(list))))
}

/// One run for each GPU; on a processor what the suite says, as far as there are cores.
fn default_jobs(suite: &Suite, specs: &[RunSpec]) -> usize {
    let on_gpu = specs
        .iter()
        .any(|s| s.config.run.device.starts_with("cuda"));
    if on_gpu {
        return gpu_count().max(1);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    suite.jobs.clamp(1, cores)
}

fn verdict(experiment: &Experiment) -> anyhow::Result<ExitCode> {
    let statuses = experiment.statuses();
    let failed: Vec<_> = statuses
        .iter()
        .filter(|(_, s)| s.state == State::Failed)
        .collect();
    for (id, status) in &failed {
        eprintln!("equivbench: run {id} failed: {}", status.reason);
    }
    let open = statuses
        .iter()
        .filter(|(_, s)| !matches!(s.state, State::Finished | State::Failed))
        .count();
    if open > 0 {
        eprintln!(
            "equivbench: {open} of {} runs are not finished; continue with --resume",
            statuses.len()
        );
        return Ok(ExitCode::from(exit::STOPPED));
    }
    Ok(if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::FAILED)
    })
}

/// `equivbench worker DIR`.
pub(crate) fn worker(dir: &Path, signals: &Signals) -> anyhow::Result<ExitCode> {
    let stop = signals.as_flag();
    if !dir.join("run.toml").is_file() {
        return Err(RunnerError::Config(format!(
            "{} is no run directory: it has no run.toml",
            dir.display()
        ))
        .into());
    }
    Ok(match work(&RunDir::at(dir), stop)? {
        State::Finished => ExitCode::SUCCESS,
        State::Interrupted => ExitCode::from(exit::STOPPED),
        _ => ExitCode::from(exit::FAILED),
    })
}
