//! `equivbench check`: the conformance kit, each check in a child process, so that a plugin that crashes or hangs fails one check.

use crate::{
    args::{CheckArgs, Format},
    exit,
};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use equivbench_conformance::{Check, CheckOutcome, Target, list_checks, run_check, targets};
use equivbench_host::{DESCRIBE_LIMIT, SearchPath, describe_in_child, run_child};
use equivbench_runner::RunnerError;
use std::{
    path::Path,
    process::{Command, ExitCode},
    time::Duration,
};

/// One line of the report.
struct Line {
    target: String,
    check: &'static str,
    about: &'static str,
    outcome: CheckOutcome,
}

/// `equivbench check PLUGIN`.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    let path = SearchPath::standard(&args.plugin_dir).resolve(&args.plugin)?;
    let targets = chosen_targets(args, &path)?;
    let mut lines = Vec::new();
    for target in &targets {
        for check in list_checks().iter().filter(|c| c.kind() == target.kind()) {
            if args.only.is_empty() || args.only.iter().any(|o| o == check.name) {
                let outcome = if args.in_process {
                    run_check(&path, target, check.name)
                } else {
                    in_child(&path, target, check, args.limit_s)?
                };
                lines.push(Line {
                    target: name(target),
                    check: check.name,
                    about: check.about,
                    outcome,
                });
            }
        }
    }
    if lines.is_empty() {
        let known: Vec<&str> = list_checks().iter().map(|c| c.name).collect();
        return Err(RunnerError::Config(format!(
            "no check was chosen; there are: {}",
            known.join(", ")
        ))
        .into());
    }
    print(&lines, args.format)?;
    let failed = lines
        .iter()
        .any(|l| matches!(l.outcome, CheckOutcome::Failed { .. }));
    Ok(if failed {
        ExitCode::from(exit::FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The targets of the library, or the one that `--target` names (by name, or as JSON for a size, options or a device).
fn chosen_targets(args: &CheckArgs, path: &Path) -> anyhow::Result<Vec<Target>> {
    if let Some(json) = args.target.as_ref().filter(|t| t.starts_with('{')) {
        let target = serde_json::from_str(json)
            .map_err(|e| RunnerError::Config(format!("--target {json}: {e}")))?;
        return Ok(vec![target]);
    }
    let descriptor = describe_in_child(&std::env::current_exe()?, path, DESCRIBE_LIMIT)?;
    let mut found = targets(&descriptor);
    if let Some(wanted) = &args.target {
        let known: Vec<String> = found.iter().map(name).collect();
        found.retain(|t| name(t) == *wanted);
        if found.is_empty() {
            return Err(RunnerError::Config(format!(
                "{} holds no \"{wanted}\" that can be checked; it has: {}",
                path.display(),
                known.join(", ")
            ))
            .into());
        }
    }
    Ok(found)
}

fn name(target: &Target) -> String {
    match target {
        Target::Model { model, .. } => model.clone(),
        Target::Dataset { dataset, .. } => dataset.clone(),
    }
}

fn in_child(
    path: &Path,
    target: &Target,
    check: &Check,
    limit_s: u64,
) -> anyhow::Result<CheckOutcome> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("check").arg(path).args([
        "--only",
        check.name,
        "--in-process",
        "--format",
        "json",
        "--target",
    ]);
    command.arg(serde_json::to_string(target)?);
    let report = run_child(command, Duration::from_secs(limit_s))?;
    // A plugin may print too; the outcome is the last line.
    let spoken = report
        .stdout
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let outcome = spoken.and_then(|v| serde_json::from_value(v["checks"][0].clone()).ok());
    Ok(outcome.unwrap_or_else(|| CheckOutcome::Failed {
        why: format!("{} in the middle of the check", report.ending),
    }))
}

fn print(lines: &[Line], format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        let checks: Vec<_> = lines
            .iter()
            .map(|l| {
                let mut value = serde_json::to_value(&l.outcome)?;
                value["target"] = l.target.as_str().into();
                value["check"] = l.check.into();
                Ok(value)
            })
            .collect::<anyhow::Result<_>>()?;
        println!(
            "{}",
            serde_json::json!({ "checks": serde_json::Value::Array(checks) })
        );
        return Ok(());
    }
    let mut table = Table::new();
    table
        .load_style(UTF8_HORIZONTAL_ONLY)
        .set_header(["", "target", "check", "what was seen"]);
    for line in lines {
        let (mark, text) = match &line.outcome {
            CheckOutcome::Passed { figure } => (
                "passed",
                if figure.is_empty() {
                    line.about
                } else {
                    figure
                },
            ),
            CheckOutcome::Failed { why } => ("FAILED", why.as_str()),
            CheckOutcome::Skipped { why } => ("skipped", why.as_str()),
        };
        table.add_row([mark, &line.target, line.check, text]);
    }
    println!("{table}");
    let count = |f: fn(&CheckOutcome) -> bool| lines.iter().filter(|l| f(&l.outcome)).count();
    println!(
        "{} passed, {} failed, {} skipped",
        count(|o| matches!(o, CheckOutcome::Passed { .. })),
        count(|o| matches!(o, CheckOutcome::Failed { .. })),
        count(|o| matches!(o, CheckOutcome::Skipped { .. }))
    );
    Ok(())
}
