//! Training steps and predictions of the models: `benchmarks/peers/results.csv`.

use super::{
    Request,
    interleave::{Seconds, Sides, cell, start_compiled},
    process::{Process, example, script},
    summary,
    table::Table,
};
use crate::machine;
use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Steps or predictions of each side before anything is counted.
const WARM_UP: usize = 3;
/// Of the mean squared error of the first prediction, relative. Both sides compute in f32 (6e-8) through tens of layers, in another order,
/// and errors of single components average out: 2e-7 was the most that was seen.
const TOLERANCE: f64 = 1e-5;
const CRATES: [&str; 3] = [
    "equivbench-escaip",
    "equivbench-proteina",
    "equivbench-voxmol",
];

/// One comparison: an example of ours beside a script, on a batch and weights that ours writes.
struct Work {
    /// Name in the table.
    name: &'static str,
    /// What a person reads.
    about: &'static str,
    /// What to ask both for: `step` or `predict`.
    request: &'static str,
    example: &'static str,
    size: &'static str,
    script: &'static str,
    /// What tells this opponent from the other ones of the same script.
    opponent: &'static str,
    options: &'static [&'static str],
    /// More options of ours.
    own_options: &'static [&'static str],
    /// Whether ours writes one file for everything, or batch and weights apart.
    one_file: bool,
}

const ESCAIP: Work = Work {
    name: "escaip-6M-step",
    about: "2 molecules x 22 atoms",
    request: "step",
    example: "step_time",
    size: "6M",
    script: "time_escaip.py",
    opponent: "as the reference",
    options: &[],
    own_options: &[],
    one_file: false,
};
const PROTEINA: Work = Work {
    name: "proteina-60M-step",
    about: "3 chains x 128 residues",
    example: "proteina_step_time",
    size: "60M",
    script: "time_proteina.py",
    // The opponent has no self-conditioning: every step is one pass on either side.
    own_options: &["--config", r#"{"self_conditioning_probability":0.0}"#],
    one_file: true,
    ..ESCAIP
};
const VOXMOL: Work = Work {
    name: "voxmol-7M-step",
    about: "4 samples x 32^3 voxels",
    example: "voxmol_step_time",
    size: "7M",
    script: "time_voxmol.py",
    // The opponent reads this from the problem.
    own_options: &["--batch", "4", "--grid", "32", "--dropout", "0.1"],
    one_file: true,
    ..ESCAIP
};
const SMALL_ESCAIP: Work = Work {
    name: "escaip-1M-step",
    about: "8 molecules x 23 atoms",
    size: "1M",
    ..ESCAIP
};
const SAVING_PROTEINA: Work = Work {
    opponent: "with the same exact savings",
    options: &["--savings"],
    ..PROTEINA
};
const CHANNELS_LAST_VOXMOL: Work = Work {
    opponent: "channels last",
    options: &["--channels-last"],
    ..VOXMOL
};

const fn prediction(name: &'static str, of: Work) -> Work {
    Work {
        name,
        request: "predict",
        ..of
    }
}

/// Every comparison, in the order of the table.
const WORKS: &[Work] = &[
    ESCAIP,
    prediction("escaip-6M-predict", ESCAIP),
    SMALL_ESCAIP,
    prediction("escaip-1M-predict", SMALL_ESCAIP),
    PROTEINA,
    SAVING_PROTEINA,
    prediction("proteina-60M-predict", PROTEINA),
    prediction("proteina-60M-predict", SAVING_PROTEINA),
    VOXMOL,
    CHANNELS_LAST_VOXMOL,
    prediction("voxmol-7M-predict", VOXMOL),
    prediction("voxmol-7M-predict", CHANNELS_LAST_VOXMOL),
    Work {
        name: "voxmol-111M-step",
        about: "1 sample x 32^3 voxels",
        size: "111M",
        own_options: &["--batch", "1", "--grid", "32", "--dropout", "0.1"],
        ..VOXMOL
    },
];

/// Measures the works that are asked for.
pub(crate) fn run(request: &Request) -> Result<()> {
    let wanted = request.select(WORKS.iter().map(|work| work.name))?;
    let crates = CRATES.iter().flat_map(|name| ["-p", name]);
    crate::cargo(
        &["build", "--release", "--examples"]
            .into_iter()
            .chain(crates)
            .collect::<Vec<_>>(),
    )?;
    let folder = crate::target().join("peers");
    std::fs::create_dir_all(&folder)?;
    let columns = ["work", "opponent"]
        .into_iter()
        .chain(Seconds::COLUMNS)
        .chain(MEMORY_COLUMNS)
        .chain(["processor", "instructions", "torch"]);
    let mut table = Table::read(super::folder().join("results.csv"), columns.collect(), 2)?;
    let order: Vec<Vec<String>> = WORKS
        .iter()
        .map(|work| vec![work.name.to_owned(), work.opponent.to_owned()])
        .collect();
    let mut failed = Vec::new();
    for work in WORKS.iter().filter(|work| wanted.contains(&work.name)) {
        match measure(work, request, &folder) {
            Ok(row) => table.put(row, &order)?,
            Err(error) => {
                eprintln!("xtask: {} ({}): {error:#}", work.name, work.opponent);
                failed.push(format!("{} ({})", work.name, work.opponent));
            }
        }
    }
    summary(&failed)
}

const MEMORY_COLUMNS: [&str; 4] = [
    "ours_peak_mb",
    "torch_peak_mb",
    "ours_base_mb",
    "torch_base_mb",
];

/// One row of the table.
fn measure(work: &Work, request: &Request, folder: &Path) -> Result<Vec<String>> {
    let problem = Problem {
        work,
        batch: folder.join(format!("{}.batch", work.name)),
        weights: folder.join(format!("{}.weights", work.name)),
    };
    problem.write()?;
    let eager = Process::start("PyTorch", problem.theirs())
        .context("pip install -r benchmarks/peers/requirements.txt")?;
    let compiled = start_compiled(request.compiled, || {
        let mut command = problem.theirs();
        command.arg("--compile");
        Process::start("torch.compile", command)
    });
    let mut sides = Sides {
        ours: Process::start("ours", problem.ours())?,
        eager,
        compiled,
    };
    check(work, &mut sides)?;
    // The first one compiles, which takes minutes and may fail.
    sides.try_compiled(|compiled| compiled.figure(work.request, "seconds"));
    // Asking for the peak starts a new one.
    for side in [&mut sides.ours, &mut sides.eager] {
        side.ask("memory")?;
    }
    sides.interleave(work.request, WARM_UP)?;
    let seconds = sides.interleave(work.request, request.pairs)?;
    let memory = [sides.ours.ask("memory")?, sides.eager.ask("memory")?];
    let memory = ["peak_mb", "base_mb"].into_iter().flat_map(|key| {
        memory
            .iter()
            .map(move |answer| cell(answer[key].as_f64(), 0))
    });
    let memory: Vec<String> = memory.collect();
    println!(
        "{} ({}; {}): {}; peak MB {}",
        work.name,
        work.about,
        work.opponent,
        seconds.sentence(),
        memory[..2].join(" and ")
    );
    let torch = sides.eager.description["torch"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let first = [work.name.to_owned(), work.opponent.to_owned()];
    let last = [
        machine::processor(),
        machine::instructions().to_owned(),
        torch,
    ];
    Ok(first
        .into_iter()
        .chain(seconds.cells())
        .chain(memory)
        .chain(last)
        .collect())
}

/// Refuses to time what is not the same: the first predictions, of the same weights and batch. The compiled network is asked too where
/// predictions are what is timed; for a step that would compile a second network.
fn check(work: &Work, sides: &mut Sides) -> Result<()> {
    let ours = sides.ours.figure("predict", "loss")?;
    agree(ours, sides.eager.figure("predict", "loss")?)?;
    if work.request == "predict" {
        sides.try_compiled(|compiled| agree(ours, compiled.figure("predict", "loss")?));
    }
    Ok(())
}

fn agree(ours: f64, theirs: f64) -> Result<()> {
    let close = (ours - theirs).abs() <= TOLERANCE * theirs.abs();
    ensure!(
        close,
        "these are not the same network: the mean squared error of a prediction is {ours} here and {theirs} in PyTorch"
    );
    Ok(())
}

/// The weights and the batch that both sides read.
struct Problem<'a> {
    work: &'a Work,
    batch: PathBuf,
    weights: PathBuf,
}

impl Problem<'_> {
    /// By a process of its own, so that the memory it takes to write is not counted.
    fn write(&self) -> Result<()> {
        let mut command = self.ours();
        if self.work.one_file {
            command.arg("--write-problem").arg(&self.batch);
        } else {
            command
                .arg("--write-batch")
                .arg(&self.batch)
                .arg("--write-weights")
                .arg(&self.weights);
        }
        Process::start("ours", command).map(drop)
    }

    fn ours(&self) -> Command {
        let mut command = example(self.work.example);
        command
            .args(["--size", self.work.size])
            .args(self.work.own_options);
        command
    }

    fn theirs(&self) -> Command {
        let mut command = script(self.work.script);
        command
            .arg("--batch")
            .arg(&self.batch)
            .args(self.work.options);
        if !self.work.one_file {
            command
                .args(["--size", self.work.size, "--weights"])
                .arg(&self.weights);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_agrees_and_another_network_does_not() {
        agree(1.0 + 1e-6, 1.0).unwrap();
        assert!(agree(1.001, 1.0).is_err());
        assert!(agree(f64::NAN, 1.0).is_err());
    }

    #[test]
    fn no_two_rows_have_the_same_keys() {
        let mut keys: Vec<_> = WORKS
            .iter()
            .map(|work| (work.name, work.opponent))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), WORKS.len());
    }
}
