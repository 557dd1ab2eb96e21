//! Whatever kills a run, and whenever: after `--resume` every table is the same, byte for byte.

use equivbench_e2e::{csv_files, equivbench, program};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// What is interrupted, and how often.
struct Subject {
    /// Settings of the run. The clock counts steps, so that timing columns repeat too.
    settings: &'static [&'static str],
    plugin: &'static str,
    /// Kills that meet a running program.
    moments: usize,
}

/// Two runs of about a second together: many steps, evaluations and checkpoints.
const FORCES: Subject = Subject {
    settings: &[
        "run.checkpoint_every_steps=40",
        "train.steps=1200",
        "train.ema_decay=0.99",
        "run.seed=[0, 1]",
    ],
    plugin: "point-mlp",
    moments: 30,
};

/// Flow matching with self-conditioning in training and measurement, all random streams in use.
const FLOW: Subject = Subject {
    settings: &[
        "run.checkpoint_every_steps=4",
        "train.steps=40",
        "train.batch_size=2",
        "train.ema_decay=0.9",
        "measure.samples=2",
        "measure.scheme=random-2",
        "measure.points_per_decade=4",
        "measure.flow_times=[0.0, 0.9]",
        "model.config.layers=1",
    ],
    plugin: "proteina",
    moments: 10,
};

/// Denoising of grids with dropout: augmentation, noise and masks, batches that were prepared ahead and are lost.
const VOXELS: Subject = Subject {
    settings: &[
        "run.checkpoint_every_steps=4",
        "train.steps=30",
        "train.batch_size=2",
        "measure.samples=3",
        "measure.points_per_decade=4",
        "model.config.grid=8",
    ],
    plugin: "voxmol",
    moments: 10,
};

fn arguments(subject: &Subject, out: &Path) -> Vec<String> {
    let mut all: Vec<String> = [
        "run",
        "--plugins",
        subject.plugin,
        "--quiet",
        "--set",
        "run.clock=steps",
    ]
    .map(Into::into)
    .to_vec();
    all.extend(
        subject
            .settings
            .iter()
            .flat_map(|s| ["--set".to_owned(), (*s).to_owned()]),
    );
    all.extend(["--out".to_owned(), out.to_string_lossy().into_owned()]);
    all
}

fn start(subject: &Subject, out: &Path) -> Child {
    let mut command = Command::new(program());
    command
        .args(arguments(subject, out))
        .env("EQUIVBENCH_NO_CACHE", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .process_group(0)
        .spawn()
        .expect("the program starts")
}

fn resume(subject: &Subject, out: &Path) {
    let mut arguments = arguments(subject, out);
    // Killed before anything was set up, there is nothing to resume.
    if out.join("experiment.toml").exists() {
        arguments.push("--resume".into());
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    equivbench(&arguments).assert().success();
}

fn kill(target: &str) {
    // The target may be gone already.
    let _ = Command::new("kill")
        .args(["-9", "--", target])
        .stderr(Stdio::null())
        .status();
}

/// Children of a process, as the system lists them.
fn children(process: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"))
        .unwrap_or_default();
    list.split_whitespace().map(Into::into).collect()
}

fn undisturbed(subject: &Subject, folder: &Path) -> (Vec<(String, Vec<u8>)>, Duration) {
    let out = folder.join("undisturbed");
    let begin = Instant::now();
    assert!(start(subject, &out).wait().expect("it ends").success());
    let files = csv_files(&out);
    assert_eq!(
        files.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(),
        ["curve.csv", "dip.csv", "final.csv", "throughput.csv"]
    );
    (files, begin.elapsed())
}

fn survives(subject: &Subject, seed: u64, strike: impl Fn(&Child)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (expected, lasts) = undisturbed(subject, folder.path());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut interrupted = 0;
    // Some kills come when the program is done.
    for moment in 0..10 * subject.moments {
        if interrupted == subject.moments {
            break;
        }
        let out = folder.path().join(format!("killed-{moment}"));
        let mut child = start(subject, &out);
        let fraction = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        std::thread::sleep(lasts.mul_f64(fraction));
        let running = child.try_wait().expect("a child can be asked").is_none();
        strike(&child);
        let _ = child.wait();
        interrupted += usize::from(running);
        resume(subject, &out);
        for ((name, bytes), (_, found)) in expected.iter().zip(csv_files(&out)) {
            assert!(
                *bytes == found,
                "{name} differs after a kill at {fraction:.3} of the run"
            );
        }
        assert_eq!(csv_files(&out).len(), expected.len());
    }
    println!("{interrupted} kills met a running program; a run lasts {lasts:.2?}");
    assert_eq!(
        interrupted, subject.moments,
        "the kills came too late to show anything"
    );
}

#[test]
fn a_killed_worker_leaves_the_same_tables_after_resume() {
    survives(&FORCES, 1, |pool| {
        children(pool.id()).iter().for_each(|worker| kill(worker))
    });
}

#[test]
fn a_killed_run_of_flow_matching_leaves_the_same_tables_after_resume() {
    survives(&FLOW, 3, |pool| kill(&format!("-{}", pool.id())));
}

#[test]
fn a_killed_run_of_voxel_denoising_leaves_the_same_tables_after_resume() {
    survives(&VOXELS, 4, |pool| kill(&format!("-{}", pool.id())));
}

#[test]
fn a_killed_process_group_leaves_the_same_tables_after_resume() {
    survives(&FORCES, 2, |pool| kill(&format!("-{}", pool.id())));
}

#[test]
fn ctrl_c_makes_a_checkpoint_and_stops_with_its_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (expected, lasts) = undisturbed(&FORCES, folder.path());
    let out = folder.path().join("stopped");
    let mut child = start(&FORCES, &out);
    std::thread::sleep(lasts.mul_f64(0.4));
    let _ = Command::new("kill")
        .args(["-2", "--", &format!("-{}", child.id())])
        .status();
    let code = child.wait().expect("it ends").code();
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
    resume(&FORCES, &out);
    assert_eq!(csv_files(&out), expected);
}
