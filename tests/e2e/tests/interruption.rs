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

/// Kills of each kind that meet a running program.
const MOMENTS: usize = 30;
/// Attempts at most: some kills come when the program is done.
const ATTEMPTS: usize = 300;

/// A run of about a second: many steps, evaluations and checkpoints. The clock counts steps, so that timing columns repeat too.
const ARGUMENTS: &[&str] = &[
    "run",
    "--plugins",
    "point-mlp",
    "--quiet",
    "--set",
    "run.clock=steps",
    "--set",
    "run.checkpoint_every_steps=40",
    "--set",
    "train.steps=1200",
    "--set",
    "train.ema_decay=0.99",
    "--set",
    "run.seed=[0, 1]",
    "--out",
];

fn start(out: &Path) -> Child {
    let mut command = Command::new(program());
    command.args(ARGUMENTS).arg(out).env("EQUIVBENCH_NO_CACHE", "1").stdout(Stdio::null()).stderr(Stdio::null());
    command.process_group(0).spawn().expect("the program starts")
}

fn resume(out: &Path) {
    let mut arguments = ARGUMENTS.to_vec();
    let path = out.to_string_lossy();
    arguments.push(&path);
    // Killed before anything was set up, there is nothing to resume.
    if out.join("experiment.toml").exists() {
        arguments.push("--resume");
    }
    equivbench(&arguments).assert().success();
}

fn kill(target: &str) {
    // The target may be gone already.
    let _ = Command::new("kill").args(["-9", "--", target]).stderr(Stdio::null()).status();
}

/// Children of a process, as the system lists them.
fn children(process: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    list.split_whitespace().map(Into::into).collect()
}

fn undisturbed(folder: &Path) -> (Vec<(String, Vec<u8>)>, Duration) {
    let out = folder.join("undisturbed");
    let begin = Instant::now();
    assert!(start(&out).wait().expect("it ends").success());
    let files = csv_files(&out);
    assert_eq!(files.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), ["curve.csv", "dip.csv", "final.csv", "throughput.csv"]);
    (files, begin.elapsed())
}

fn survives(seed: u64, strike: impl Fn(&Child)) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (expected, lasts) = undisturbed(folder.path());
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut interrupted = 0;
    for moment in 0..ATTEMPTS {
        if interrupted == MOMENTS {
            break;
        }
        let out = folder.path().join(format!("killed-{moment}"));
        let mut child = start(&out);
        let fraction = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        std::thread::sleep(lasts.mul_f64(fraction));
        let running = child.try_wait().expect("a child can be asked").is_none();
        strike(&child);
        let _ = child.wait();
        interrupted += usize::from(running);
        resume(&out);
        for ((name, bytes), (_, found)) in expected.iter().zip(csv_files(&out)) {
            assert!(*bytes == found, "{name} differs after a kill at {fraction:.3} of the run");
        }
        assert_eq!(csv_files(&out).len(), expected.len());
    }
    println!("{interrupted} kills met a running program; a run lasts {lasts:.2?}");
    assert_eq!(interrupted, MOMENTS, "the kills came too late to show anything");
}

#[test]
fn a_killed_worker_leaves_the_same_tables_after_resume() {
    survives(1, |pool| children(pool.id()).iter().for_each(|worker| kill(worker)));
}

#[test]
fn a_killed_process_group_leaves_the_same_tables_after_resume() {
    survives(2, |pool| kill(&format!("-{}", pool.id())));
}

#[test]
fn ctrl_c_makes_a_checkpoint_and_stops_with_its_code() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (expected, lasts) = undisturbed(folder.path());
    let out = folder.path().join("stopped");
    let mut child = start(&out);
    std::thread::sleep(lasts.mul_f64(0.4));
    let _ = Command::new("kill").args(["-2", "--", &format!("-{}", child.id())]).status();
    let code = child.wait().expect("it ends").code();
    assert!(matches!(code, Some(130 | 0)), "{code:?}");
    resume(&out);
    assert_eq!(csv_files(&out), expected);
}
