//! Log lines on standard error; `EQUIVBENCH_LOG` refines them.

use tracing_subscriber::EnvFilter;

/// Starts logging at the level that `-q` and `-v` ask for.
pub(crate) fn start(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        _ => "debug",
    };
    let filter =
        EnvFilter::try_from_env("EQUIVBENCH_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
}
