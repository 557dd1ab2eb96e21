//! Whatever stops a run, and whenever: it can be resumed, and after that every table is the same, byte for byte.
#![cfg(target_os = "linux")]

use equivbench_e2e::{
    csv_files, equivbench,
    process::{Signal, Started, catches, is_alive, strike, wait_for},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::path::{Path, PathBuf};

/// What is interrupted, and how often.
struct Subject {
    /// Settings of the run. The clock counts steps, so that timing columns repeat too.
    settings: &'static [&'static str],
    plugin: &'static str,
    /// Kills that meet a running program.
    kills: usize,
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
    kills: 30,
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
        "run.seed=0",
    ],
    plugin: "proteina",
    kills: 10,
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
        "run.seed=0",
    ],
    plugin: "voxmol",
    kills: 10,
};

/// A folder with what a subject gives undisturbed, and with all that is interrupted.
struct Bench {
    subject: &'static Subject,
    folder: tempfile::TempDir,
    expected: Vec<(String, Vec<u8>)>,
}

impl Bench {
    fn of(subject: &'static Subject) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut bench = Self {
            subject,
            folder,
            expected: Vec::new(),
        };
        let out = bench.out("undisturbed");
        let status = bench.start(&out).end();
        assert!(status.success(), "{}", bench.words(&out));
        bench.expected = csv_files(&out);
        assert!(!bench.expected.is_empty());
        bench
    }

    fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn arguments(&self, out: &Path) -> Vec<String> {
        let fixed = ["run", "--quiet", "--plugins", self.subject.plugin, "--out"];
        let mut all: Vec<String> = fixed.map(Into::into).to_vec();
        all.push(out.to_string_lossy().into_owned());
        let settings = self.subject.settings.iter().copied();
        for setting in settings.chain(["run.clock=steps"]) {
            all.extend(["--set".to_owned(), setting.to_owned()]);
        }
        all
    }

    fn start(&self, out: &Path) -> Started {
        Started::new(&self.arguments(out), &out.with_extension("stderr"))
    }

    /// What the program said.
    fn words(&self, out: &Path) -> String {
        std::fs::read_to_string(out.with_extension("stderr")).unwrap_or_default()
    }

    /// Resumes what there is to resume, and compares.
    fn resume(&self, out: &Path, how: &str) {
        let mut arguments = self.arguments(out);
        // Ended before anything was set up, there is nothing to resume.
        if out.exists() {
            arguments.push("--resume".into());
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let resumed = equivbench(&arguments).assert();
        let words = String::from_utf8_lossy(&resumed.get_output().stderr).into_owned();
        assert_eq!(
            resumed.get_output().status.code(),
            Some(0),
            "{how}: {words}"
        );
        let found = csv_files(out);
        for ((name, expected), (own, bytes)) in self.expected.iter().zip(&found) {
            assert!(name == own && expected == bytes, "{how}: {name} differs");
        }
        assert_eq!(self.expected.len(), found.len(), "{how}");
    }
}

/// Run directories of an experiment.
fn runs(out: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(out.join("runs")).into_iter().flatten();
    let mut paths: Vec<_> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    paths
}

/// Rows of the curves of all runs.
fn rows(out: &Path) -> usize {
    let of = |run: &PathBuf| std::fs::read(run.join("curve.csv")).unwrap_or_default();
    let lines = |bytes: Vec<u8>| bytes.iter().filter(|b| **b == b'\n').count();
    runs(out)
        .iter()
        .map(|run| lines(of(run)).saturating_sub(1))
        .sum()
}

/// Steps of the newest checkpoint of a run; its file is named after them.
fn checkpoint(run: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(run.join("checkpoints"))
        .into_iter()
        .flatten();
    let steps = |path: PathBuf| -> Option<u64> {
        let is_whole = path.extension().is_some_and(|e| e == "ckpt");
        let digits: String = path
            .file_stem()?
            .to_str()?
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        digits.parse().ok().filter(|_| is_whole)
    };
    entries.flatten().filter_map(|e| steps(e.path())).max()
}

/// Steps that checkpoints of all runs cover.
fn covered(out: &Path) -> u64 {
    runs(out).iter().filter_map(|run| checkpoint(run)).sum()
}

fn status(run: &Path) -> String {
    std::fs::read_to_string(run.join("status.toml")).unwrap_or_default()
}

fn is_in_state(run: &Path, state: &str) -> bool {
    status(run).contains(&format!("state = \"{state}\""))
}

/// A number from 0 to `most`.
fn up_to(random: &mut ChaCha8Rng, most: u64) -> u64 {
    random.next_u64() % (most + 1)
}

/// Kills at moments all over a run: at a row of its curve or a checkpoint, and a little later.
fn survives(subject: &'static Subject, seed: u64, kill: impl Fn(&Started)) {
    let bench = Bench::of(subject);
    let (all_rows, all_steps) = (
        rows(&bench.out("undisturbed")),
        covered(&bench.out("undisturbed")),
    );
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut met, mut late) = (0, 0);
    while met < subject.kills {
        let out = bench.out(&format!("killed-{met}-{late}"));
        let (row, step) = (
            up_to(&mut random, all_rows as u64),
            up_to(&mut random, all_steps),
        );
        let by_row = met % 2 == 0;
        let mut program = bench.start(&out);
        let mut little = up_to(&mut random, 20);
        wait_for("a moment of the run", || {
            let is_there = if by_row {
                rows(&out) as u64 >= row
            } else {
                covered(&out) >= step
            };
            little -= u64::from(is_there && little > 0);
            (is_there && little == 0 || !program.is_running()).then_some(())
        });
        kill(&program);
        // The last rows and checkpoints come when the program is nearly done.
        if program.end().success() {
            late += 1;
            assert!(late < 20 * subject.kills, "every kill comes too late");
        } else {
            met += 1;
            let moment = if by_row {
                format!("row {row}")
            } else {
                format!("step {step}")
            };
            bench.resume(&out, &format!("killed at {moment}"));
        }
    }
    println!("{met} kills met a running program, {late} came too late");
}

#[test]
fn a_killed_worker_leaves_the_same_tables_after_resume() {
    survives(&FORCES, 1, |program| {
        program
            .workers()
            .into_iter()
            .for_each(|worker| strike(Signal::Kill, worker));
    });
}

#[test]
fn a_killed_run_of_flow_matching_leaves_the_same_tables_after_resume() {
    survives(&FLOW, 3, |program| program.strike_group(Signal::Kill));
}

#[test]
fn a_killed_run_of_voxel_denoising_leaves_the_same_tables_after_resume() {
    survives(&VOXELS, 4, |program| program.strike_group(Signal::Kill));
}

#[test]
fn a_killed_process_group_leaves_the_same_tables_after_resume() {
    survives(&FORCES, 2, |program| program.strike_group(Signal::Kill));
}

/// Who gets a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    /// As from a terminal.
    Group,
    /// As from a person who knows the number of the process.
    Program,
    /// As from a scheduler that sees only the last.
    Workers,
}

impl Target {
    fn strike(self, signal: Signal, program: &Started) {
        match self {
            Self::Group => program.strike_group(signal),
            Self::Program => strike(signal, program.id()),
            Self::Workers => program
                .workers()
                .into_iter()
                .for_each(|worker| strike(signal, worker)),
        }
    }
}

/// A moment of a run, and whether it has come.
type Moment = (&'static str, fn(&Started, &Path) -> bool);

/// From the first on: before, no program can have handlers.
const MOMENTS: &[Moment] = &[
    ("handlers stand", |program, _| {
        catches(Signal::Interrupt, program.id()) && catches(Signal::Terminate, program.id())
    }),
    ("the folder is there", |_, out| out.exists()),
    ("a run is set up", |_, out| {
        runs(out).iter().any(|run| run.join("run.toml").exists())
    }),
    ("the experiment is set up", |_, out| {
        out.join("experiment.toml").exists()
    }),
    ("a worker is there", |program, _| {
        !program.workers().is_empty()
    }),
    ("a worker has handlers", |program, _| {
        program
            .workers()
            .iter()
            .any(|w| catches(Signal::Terminate, *w))
    }),
    ("a run has begun", |_, out| {
        runs(out).iter().any(|run| is_in_state(run, "running"))
    }),
    ("a row is written", |_, out| rows(out) > 0),
    ("a checkpoint is written", |_, out| covered(out) > 0),
    ("a second run has begun", |_, out| {
        let is_any = |state: &str| runs(out).iter().any(|run| is_in_state(run, state));
        is_any("finished") && is_any("running")
    }),
];

/// Repeats what may come too late on a busy machine, which says nothing; `None` is too late.
fn repeated<T>(what: &str, attempt: impl FnMut(usize) -> Option<T>) -> T {
    let mut attempts = 0..50;
    attempts
        .find_map(attempt)
        .unwrap_or_else(|| panic!("{what}: always too late"))
}

/// Strikes at a moment; gives the folder of a program that was met at work and ended with the code of a stop.
fn stopped_at(
    bench: &Bench,
    (name, has_come): Moment,
    signal: Signal,
    target: Target,
) -> (String, PathBuf) {
    let how = format!("{signal:?} to {target:?} once {name}");
    repeated(&how, |attempt| {
        let out = bench.out(&format!("{how} {attempt}"));
        let mut program = bench.start(&out);
        wait_for(name, || {
            (has_come(&program, &out) || !program.is_running()).then_some(())
        });
        target.strike(signal, &program);
        let code = program.end().code();
        assert!(
            matches!(code, Some(0 | 130)),
            "{how}: {code:?} {}",
            bench.words(&out)
        );
        (code == Some(130)).then(|| (how.clone(), out))
    })
}

/// The same, and it can be resumed; nothing counts as failed.
fn stops_and_resumes(bench: &Bench, moment: Moment, signal: Signal, target: Target) {
    let (how, out) = stopped_at(bench, moment, signal, target);
    for run in runs(&out) {
        assert!(!is_in_state(&run, "failed"), "{how}: {}", status(&run));
    }
    bench.resume(&out, &how);
}

#[test]
fn a_signal_to_the_group_at_any_moment_stops_with_its_code_and_can_be_resumed() {
    let bench = Bench::of(&FORCES);
    for moment in MOMENTS {
        for signal in [Signal::Interrupt, Signal::Terminate] {
            stops_and_resumes(&bench, *moment, signal, Target::Group);
        }
    }
}

#[test]
fn a_signal_to_the_program_alone_stops_its_workers_too() {
    let bench = Bench::of(&FORCES);
    for moment in MOMENTS {
        stops_and_resumes(&bench, *moment, Signal::Terminate, Target::Program);
    }
}

#[test]
fn a_signal_to_a_worker_alone_is_no_fault_of_its_plugin() {
    let bench = Bench::of(&FORCES);
    let with_workers = MOMENTS
        .iter()
        .skip_while(|(name, _)| *name != "a worker is there");
    for moment in with_workers {
        stops_and_resumes(&bench, *moment, Signal::Terminate, Target::Workers);
    }
}

#[test]
fn ctrl_c_makes_a_checkpoint_and_stops_with_its_code() {
    let bench = Bench::of(&FORCES);
    let moment: Moment = ("a checkpoint is written", |_, out| covered(out) > 0);
    let (how, out) = stopped_at(&bench, moment, Signal::Interrupt, Target::Group);
    for run in runs(&out).iter().filter(|r| is_in_state(r, "interrupted")) {
        let steps = checkpoint(run).expect("a stopped run has a checkpoint");
        let status = status(run);
        assert!(
            status.contains(&format!("\nstep = {steps}\n")),
            "step {steps}: {status}"
        );
        assert!(status.contains("stopped on request"), "{status}");
    }
    bench.resume(&out, &how);
}

#[test]
fn a_second_signal_ends_the_program_at_once() {
    let bench = Bench::of(&FORCES);
    let out = repeated("two signals", |attempt| {
        let out = bench.out(&format!("impatient-{attempt}"));
        let mut program = bench.start(&out);
        let worker = wait_for("a worker", || program.workers().first().copied());
        // A worker that cannot answer: the program waits for it.
        strike(Signal::Stop, worker);
        strike(Signal::Interrupt, program.id());
        let is_asked = || runs(&out).iter().any(|run| run.join("stop").exists());
        wait_for("a worker is asked to stop", || {
            (is_asked() || !program.is_running()).then_some(())
        });
        strike(Signal::Interrupt, program.id());
        let code = program.end().code();
        strike(Signal::Continue, worker);
        wait_for("the worker stops by itself", || {
            (!is_alive(worker)).then_some(())
        });
        (code == Some(130)).then_some(out)
    });
    bench.resume(&out, "two signals");
}
