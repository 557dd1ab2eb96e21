//! `cargo xtask profile`: where the processor time of a training step goes, in percent by part, from `perf`.

use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, path::Path, process::Command};

const HELP: &str = "\
cargo xtask profile [PART-OF-NAME]
    training steps of the models under `perf record` with two threads; percent of processor time by part, as Markdown";

const THREADS: &str = "2";
/// Samples a second.
const FREQUENCY: &str = "299";

/// A training step: an example and what it is given.
struct Step {
    name: &'static str,
    example: &'static str,
    arguments: &'static [&'static str],
}

const STEPS: &[Step] = &[
    Step {
        name: "escaip-6M",
        example: "step_time",
        arguments: &["--size", "6M", "--steps", "40"],
    },
    Step {
        name: "escaip-1M",
        example: "step_time",
        arguments: &["--size", "1M", "--steps", "60"],
    },
    Step {
        name: "proteina-60M",
        example: "proteina_step_time",
        arguments: &[
            "--size",
            "60M",
            "--steps",
            "8",
            "--config",
            r#"{"self_conditioning_probability":0.0}"#,
        ],
    },
    Step {
        name: "voxmol-7M",
        example: "voxmol_step_time",
        arguments: &[
            "--size",
            "7M",
            "--batch",
            "4",
            "--grid",
            "32",
            "--dropout",
            "0.1",
            "--steps",
            "16",
        ],
    },
];

/// Parts of a step by what their symbols hold; the first that fits counts.
const PARTS: &[(&str, &[&str])] = &[
    ("convolution", &["conv3d"]),
    (
        "fused affine maps, element by element",
        &["kernels::affine"],
    ),
    ("attention", &["attention", "kernels::softmax"]),
    (
        "norms",
        &[
            "layer_norm",
            "group_norm",
            "equivbench_kernels::norm",
            "residual",
        ],
    ),
    (
        "activations, gates, dropout",
        &["kernels::activation", "kernels::gate", "kernels::dropout"],
    ),
    (
        "gather, sums, look-ups, radial",
        &["kernels::gather", "kernels::lookup", "kernels::radial"],
    ),
    ("optimiser", &["kernels::optimiser"]),
    ("matrix products", &["gemm", "matmul"]),
    (
        "copies, zeros, transposes",
        &[
            "memmove",
            "memset",
            "memcpy",
            "copy_",
            "to_contiguous",
            "flatten",
        ],
    ),
    (
        "allocation",
        &[
            "malloc",
            "_int_free",
            "cfree",
            "page_fault",
            "clear_page",
            "mmap",
            "munmap",
            "brk",
            "zap_",
            "folio",
        ],
    ),
    (
        "waiting and scheduling",
        &[
            "sched",
            "yield",
            "futex",
            "crossbeam",
            "rayon_core",
            "spin",
            "task_switch",
            "syscall",
            "hrtimer",
            "idle",
        ],
    ),
    (
        "other element-wise work",
        &[
            "burn_flex",
            "macerator",
            "rayon",
            "burn_",
            "core::ops",
            "alloc::",
        ],
    ),
];

/// Runs the profiles that the arguments ask for.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let part = match arguments {
        [] => "",
        [one] if !one.starts_with('-') => one.as_str(),
        _ => {
            println!("{HELP}");
            return Ok(());
        }
    };
    let wanted: Vec<&Step> = STEPS.iter().filter(|s| s.name.contains(part)).collect();
    if wanted.is_empty() {
        bail!(
            "no step has the part \"{part}\"; there are {}",
            STEPS.iter().map(|s| s.name).collect::<Vec<_>>().join(", ")
        );
    }
    crate::cargo(&["build", "--release", "--workspace", "--examples"])?;
    wanted.into_iter().try_for_each(profile)
}

fn profile(step: &Step) -> Result<()> {
    let folder = crate::target().join("profile");
    std::fs::create_dir_all(&folder)?;
    let record = folder.join(format!("{}.perf", step.name));
    let mut command = Command::new("perf");
    command
        .args(["record", "-q", "-F", FREQUENCY, "-o"])
        .arg(&record)
        .arg("--");
    command
        .arg(crate::target().join("examples").join(step.example))
        .args(step.arguments)
        .env("RAYON_NUM_THREADS", THREADS);
    let output = command
        .output()
        .context("perf is needed: it comes with the packages linux-perf or linux-tools")?;
    if !output.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    println!(
        "## {}\n\n{}",
        step.name,
        String::from_utf8_lossy(&output.stdout).trim()
    );
    println!("\n| part | percent of processor time |\n|---|---|");
    for (part, percent) in parts(&report(&record)?) {
        println!("| {part} | {percent:.1} |");
    }
    println!();
    Ok(())
}

/// `percent symbol` lines.
fn report(record: &Path) -> Result<String> {
    let arguments = [
        "report",
        "--no-children",
        "-g",
        "none",
        "--stdio",
        "-F",
        "overhead,symbol",
        "-i",
    ];
    let output = Command::new("perf").args(arguments).arg(record).output()?;
    if !output.status.success() {
        bail!(
            "perf report failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Percent by part, the largest first.
fn parts(report: &str) -> Vec<(&'static str, f64)> {
    let mut sums: BTreeMap<&'static str, f64> = BTreeMap::new();
    for line in report.lines() {
        let Some((percent, symbol)) = line.trim().split_once('%') else {
            continue;
        };
        let Ok(percent) = percent.parse::<f64>() else {
            continue;
        };
        *sums.entry(part_of(symbol.trim())).or_default() += percent;
    }
    let mut parts: Vec<_> = sums.into_iter().collect();
    parts.sort_by(|a, b| b.1.total_cmp(&a.1));
    parts
}

fn part_of(symbol: &str) -> &'static str {
    let holds = |words: &&(&str, &[&str])| words.1.iter().any(|word| symbol.contains(word));
    // What the kernel of the system does for nobody in particular.
    let rest = if symbol.starts_with("[k]") {
        "system"
    } else {
        "rest"
    };
    PARTS.iter().find(holds).map_or(rest, |part| part.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_summed_by_part() {
        let report = "# overhead\n    39.87%  [.] gemm_f32::microkernel::fma::f32::x2x6\n     6.00%  [.] __memmove_avx_unaligned_erms\n\
                      \x20    4.50%  [.] __memset_avx2_unaligned_erms\n     1.00%  [k] __schedule\n  0.5% [.] main\n nonsense\n";
        let parts = parts(report);
        assert_eq!(parts[0], ("matrix products", 39.87));
        assert_eq!(parts[1], ("copies, zeros, transposes", 10.5));
        assert_eq!(parts[2..], [("waiting and scheduling", 1.0), ("rest", 0.5)]);
    }
}
