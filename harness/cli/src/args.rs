//! The command line. Names are fixed: scripts rely on them.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const RUN_EXAMPLES: &str = "\
Examples:
  equivbench run --plugins escaip,./libequivbench_mine.so --set dataset.name=spice --fair   all models trained alike, three seeds each
  equivbench run --plugins escaip
  equivbench run --plugins escaip,./libequivbench_mine.so --suite quick --out results/mine
  equivbench run --plugins escaip --set train.lr=[1e-3,3e-3] --seeds 5 --jobs 2
  equivbench run --plugins escaip --set dataset.options.path=SPICE-2.0.1.hdf5 --suite paper-escaip --device cuda:0
  equivbench run --plugins escaip --resume        continue what was interrupted

A list given for a key that holds one value means one run for each of its values.";

const MEASURE_EXAMPLES: &str = "\
Examples:
  equivbench run --plugins escaip --set 'run.keep_checkpoints=[500, \"last\"]'
  equivbench measure results/quick/runs/RUN-ID --at 500
  equivbench measure results/quick/runs/RUN-ID --at last --protocols final-percent --set measure.scheme=octahedral-x4 --set measure.samples=200
  equivbench measure results/quick/runs/RUN-ID --at 500 --set run.precision=f64

Tables go to RUN/measured/STEP-HASH; a finished one is never touched again. The tables of the experiment are merged anew.";

const COMPARE_EXAMPLES: &str = "\
Examples:
  equivbench compare results/quick:model=escaip results/mine:model=painn
  equivbench compare results/before results/after          each architecture with itself
  equivbench compare results/quick:model=proteina results/real:model=proteina --format csv

Ratios of geometric means over seeds by Welch's t, paired by groups of samples where both were measured on the same
ones; the number of seeds that a factor of 1.5 and of 2 would need. Fewer than three seeds a side: no verdict.";

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    some runs or checks failed; the others are complete
  2    wrong arguments, suite or keys
  3    a plugin was not found, refused, or crashed
  5    the device is not there
  6    the results directory holds something else
  7    files could not be read or written
  130  stopped on request; continue with --resume";

/// Is a symmetry-respecting architecture worth its cost? Trains model plugins under one protocol and measures, blind, how fast
/// each learns 3D-rotation equivariance.
#[derive(Parser)]
#[command(name = "equivbench", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// Say less: no progress, no summary
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    /// Say more; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Train and measure plugins, write tables
    Run(Box<RunArgs>),
    /// Ask protocols about a kept checkpoint of a run
    Measure(Box<MeasureArgs>),
    /// Compare two architectures, or each architecture of two experiments
    Compare(CompareArgs),
    /// Show plugins, models, sizes, datasets and devices, and why a file was refused
    List(ListArgs),
    /// Show every table's columns with units and meaning
    Columns {
        /// How to print
        #[arg(long, value_enum, default_value = "text")]
        format: Format,
    },
    /// Run the conformance kit on a plugin
    Check(CheckArgs),
    /// Execute or resume one run directory (what the pool and Slurm start)
    Worker {
        /// Run directory, with its run.toml
        dir: PathBuf,
    },
    /// Print a plugin's description; started in a child process by the others
    #[command(hide = true)]
    DescribePlugin {
        /// Plugin file
        file: PathBuf,
    },
    /// Print shell completions
    Completions {
        /// Shell
        shell: clap_complete::Shell,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Markdown,
    Json,
}

#[derive(Args)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct RunArgs {
    /// Model plugins: names or paths, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    pub(crate) plugins: Vec<String>,
    /// Suite: a name (quick, paper-escaip) or a TOML file
    #[arg(long, default_value = "quick")]
    pub(crate) suite: String,
    /// Override a key of the suite; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Seeds 0 to N - 1 for every run, instead of the suite's
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) seeds: Option<u32>,
    // Not a doc comment: rustdoc would take the table for a link.
    #[arg(
        long,
        help = "The same batch size, steps, schedule and moving average for every model, as the table [fair] of the suite has them; learning rates stay their own"
    )]
    pub(crate) fair: bool,
    /// Protocols, separated by commas, or all [default: the suite's]
    #[arg(long, value_delimiter = ',')]
    pub(crate) protocols: Vec<String>,
    /// cpu, cuda:N or auto; the same as --set run.device=D
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Runs at a time [default: the suite's, or one for each GPU]
    #[arg(long)]
    pub(crate) jobs: Option<usize>,
    /// Results directory [default: results/SUITE]
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Continue the experiment in the results directory
    #[arg(long)]
    pub(crate) resume: bool,
    /// Look for plugins here first; may be repeated
    #[arg(long)]
    pub(crate) plugin_dir: Vec<PathBuf>,
}

#[derive(Args)]
#[command(after_help = MEASURE_EXAMPLES)]
pub(crate) struct MeasureArgs {
    /// Run directory, RESULTS/runs/RUN-ID
    pub(crate) run: PathBuf,
    /// Step of the checkpoint, or last
    #[arg(long, value_name = "STEP")]
    pub(crate) at: String,
    /// Protocols, separated by commas, or all [default: those of the run]
    #[arg(long, value_delimiter = ',')]
    pub(crate) protocols: Vec<String>,
    /// Set a key of measure or protocols, run.precision=f64, run.device or run.threads; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args)]
#[command(after_help = COMPARE_EXAMPLES)]
pub(crate) struct CompareArgs {
    /// DIR or DIR:COLUMN=VALUE,... with model, size, dataset, train_samples, settings
    pub(crate) a: String,
    /// The other
    pub(crate) b: String,
    /// How to print; csv has every set of samples
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: ComparisonFormat,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ComparisonFormat {
    Text,
    Csv,
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Look for plugins here first; may be repeated
    #[arg(long)]
    pub(crate) plugin_dir: Vec<PathBuf>,
}

#[derive(Args)]
pub(crate) struct CheckArgs {
    /// Plugin: a name or a path
    pub(crate) plugin: String,
    /// Run this check only; may be repeated
    #[arg(long)]
    pub(crate) only: Vec<String>,
    /// Check this model or dataset of the plugin only
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Run in this process (for a debugger); a plugin that crashes takes it along
    #[arg(long)]
    pub(crate) in_process: bool,
    /// How to print
    #[arg(long, value_enum, default_value = "text")]
    pub(crate) format: Format,
    /// Seconds one check may take
    #[arg(long, default_value_t = 120)]
    pub(crate) limit_s: u64,
    /// Look for plugins here first; may be repeated
    #[arg(long)]
    pub(crate) plugin_dir: Vec<PathBuf>,
}
