//! Builds, runs, tests and checks the project. Depends on nothing of it.

mod bench;
mod circles;
mod cubecl;
mod cuda;
mod layers;
mod machine;
mod nightly;
mod peers;
mod profile;
mod test;

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const HELP: &str = "\
cargo equivbench ARGS...   build program and plugins, then run `equivbench ARGS...`
cargo xtask test           build everything, run all checks and tests (what CI runs)
cargo xtask nightly [--busy N]
                           the tests, the slow ones too, and N times beside a busy loop on every core [default: 1]; writes results/nightly/REPORT.md
cargo xtask check          formatting, lints, documentation, arrows, generated pages
cargo xtask layers         arrows between crates, and between files of the harness
cargo xtask docs           write the generated pages
cargo xtask install [DIR]  install program and plugins into DIR/bin and DIR/lib/equivbench/plugins [default: ~/.local]
cargo xtask bench [--save] [PART-OF-NAME]
                           hot paths beside their floors, compared with benchmarks/micro/baseline.csv (or written to it)
cargo xtask cuda [--cpu]   one file for a GPU machine: program and plugins with CUDA, scripts, PyTorch peers
cargo xtask peers ...      steps, predictions and kernels beside PyTorch, interleaved (--help tells how)
cargo xtask profile [PART-OF-NAME]
                           where the time of a training step goes, in percent (needs perf)";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = arguments
        .split_first()
        .map_or(("help", &[][..]), |(c, r)| (c.as_str(), r));
    let done = match command {
        "equivbench" => return equivbench(rest),
        "test" => test::all(),
        "nightly" => nightly::run(rest),
        "check" => test::checks(),
        "layers" => layers::check().and_then(|()| circles::check()),
        "docs" => test::write_pages(),
        "install" => install(rest),
        "bench" => bench::run(rest),
        "cuda" => cuda::run(rest),
        "peers" => peers::run(rest),
        "profile" => profile::run(rest),
        _ => {
            println!("{HELP}");
            Ok(())
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Folder of the release build.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), PathBuf::from)
        .join("release")
}

/// Runs cargo in the root of the workspace.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    cargo_with(&[], arguments)
}

/// Runs cargo in the root of the workspace, with variables of its environment.
pub(crate) fn cargo_with(variables: &[(&str, &str)], arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = command
        .args(arguments)
        .current_dir(root())
        .env("EQUIVBENCH_COMMIT", commit())
        .envs(variables.iter().copied())
        .status()
        .context("cargo could not be started")?;
    if !status.success() {
        bail!("cargo {} failed", arguments.join(" "));
    }
    Ok(())
}

/// Builds program and plugins. Always the whole workspace, so that every command shares one set of features and one build of Burn.
pub(crate) fn build() -> Result<()> {
    cargo(&["build", "--release", "--workspace"])
}

fn equivbench(arguments: &[String]) -> ExitCode {
    if let Err(error) = build() {
        eprintln!("xtask: {error:#}");
        return ExitCode::FAILURE;
    }
    let status = Command::new(target().join("equivbench"))
        .args(arguments)
        .status();
    match status {
        Ok(status) => ExitCode::from(u8::try_from(status.code().unwrap_or(1)).unwrap_or(1)),
        Err(error) => {
            eprintln!("xtask: equivbench could not be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The commit of the working tree, `-dirty` where files that it tracks have changed since, empty where git does not say. Part of the
/// manifest, not of any number.
pub(crate) fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(root())
            .output();
        let output = output.ok().filter(|o| o.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(head) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return String::new();
    };
    // Results are written while the program runs, and change none of its numbers.
    let changed = git(&[
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        ".",
        ":!results",
    ]);
    match changed.is_some_and(|files| !files.is_empty()) {
        true => format!("{head}-dirty"),
        false => head,
    }
}

fn install(arguments: &[String]) -> Result<()> {
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local"));
    let prefix = arguments
        .first()
        .map(PathBuf::from)
        .or_else(home)
        .context("name a folder: cargo xtask install DIR")?;
    build()?;
    let (bin, plugins) = (prefix.join("bin"), prefix.join("lib/equivbench/plugins"));
    for folder in [&bin, &plugins] {
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    copy(&target().join("equivbench"), &bin)?;
    let stem = format!("{}equivbench_", std::env::consts::DLL_PREFIX);
    for entry in std::fs::read_dir(target())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(&stem) && name.ends_with(std::env::consts::DLL_SUFFIX) {
            copy(&entry.path(), &plugins)?;
        }
    }
    println!(
        "Installed in {}; `{}` lists the plugins.",
        prefix.display(),
        bin.join("equivbench list").display()
    );
    Ok(())
}

/// Replaces a file by a rename, so that a running program keeps the old one.
fn copy(file: &Path, folder: &Path) -> Result<()> {
    let name = file.file_name().context("a file has a name")?;
    let temporary = folder.join(format!(".{}.new", name.to_string_lossy()));
    std::fs::copy(file, &temporary).with_context(|| format!("{}", file.display()))?;
    std::fs::rename(&temporary, folder.join(name)).with_context(|| format!("{}", folder.display()))
}
