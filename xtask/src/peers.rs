//! `cargo xtask peers`: training steps of ours beside PyTorch's, interleaved in one run, same batch, same weights, same threads.

use anyhow::{Context, Result, bail};
use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Steps of each side before anything is counted.
const WARM_UP: usize = 3;
const THREADS: &str = "2";

/// One side of a comparison: a process that does one step for each line it reads.
struct Peer {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Peer {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().with_context(|| format!("{command:?}"))?;
        let input = child.stdin.take().context("no input")?;
        let mut output = BufReader::new(child.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        if !line.starts_with("ready") {
            bail!("{command:?} did not start: {line}");
        }
        Ok(Self { child, input, output })
    }

    /// Seconds of one step, as the peer measures it.
    fn step(&mut self) -> Result<f64> {
        writeln!(self.input, "step")?;
        self.input.flush()?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let answer: serde_json::Value = serde_json::from_str(&line).with_context(|| format!("a peer answered: {line}"))?;
        answer["seconds"].as_f64().context("a peer answered without seconds")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = writeln!(self.input, "quit");
        let _ = self.child.wait();
    }
}

/// One comparison: an example of ours beside a script, on a batch and weights that ours writes.
struct Work {
    /// Name in the table.
    name: &'static str,
    /// What a person reads.
    about: &'static str,
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
    example: "step_time",
    size: "6M",
    script: "time_escaip.py",
    opponent: "eager",
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
    opponent: "eager, as the reference",
    options: &[],
    // The opponent has no self-conditioning: every step is one pass on either side.
    own_options: &["--config", r#"{"self_conditioning_probability":0.0}"#],
    one_file: true,
};

const VOXMOL: Work = Work {
    name: "voxmol-7M-step",
    about: "4 samples x 32^3 voxels",
    example: "voxmol_step_time",
    size: "7M",
    script: "time_voxmol.py",
    opponent: "eager",
    options: &[],
    // The opponent reads this from the problem.
    own_options: &["--batch", "4", "--grid", "32", "--dropout", "0.1"],
    one_file: true,
};

/// Every comparison, in the order of the table.
const WORKS: &[Work] = &[
    ESCAIP,
    Work { name: "escaip-1M-step", about: "8 molecules x 23 atoms", size: "1M", ..ESCAIP },
    PROTEINA,
    Work { opponent: "eager, with the same exact savings", options: &["--savings"], ..PROTEINA },
    VOXMOL,
    Work { opponent: "eager, channels last", options: &["--channels-last"], ..VOXMOL },
    Work {
        name: "voxmol-111M-step",
        about: "1 sample x 32^3 voxels",
        size: "111M",
        own_options: &["--batch", "1", "--grid", "32", "--dropout", "0.1"],
        ..VOXMOL
    },
];

/// Runs the comparisons; the arguments are a number of pairs and, if wanted, a part of the names to run. Rows that are not run anew are
/// kept.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let pairs: usize = arguments.first().map_or(Ok(15), |n| n.parse()).context("the first argument is a number of pairs")?;
    let wanted = arguments.get(1).map_or("", String::as_str);
    if pairs == 0 || !WORKS.iter().any(|w| w.name.contains(wanted)) {
        let known = WORKS.iter().map(|w| w.name).collect::<Vec<_>>().join(", ");
        bail!("use at least one pair and a part of one of these names: {known}");
    }
    crate::cargo(&["build", "--release", "--workspace", "--examples"])?;
    let folder = crate::target().join("peers");
    std::fs::create_dir_all(&folder)?;
    let table = crate::root().join("benchmarks/peers/results.csv");
    let kept = std::fs::read_to_string(&table).unwrap_or_default();
    let mut csv = String::from("work,opponent,ours_s,torch_s,ratio,ratio_p25,ratio_p75,pairs,threads\n");
    for work in WORKS {
        if work.name.contains(wanted) {
            csv.push_str(&measure(work, pairs, &folder)?);
        } else if let Some(row) = kept.lines().find(|row| row.starts_with(&key(work))) {
            let _ = writeln!(csv, "{row}");
        }
    }
    std::fs::write(&table, csv).with_context(|| table.display().to_string())
}

/// The first cells of a row.
fn key(work: &Work) -> String {
    format!("{},\"{}\",", work.name, work.opponent)
}

fn measure(work: &Work, pairs: usize, folder: &Path) -> Result<String> {
    let (ours, theirs) = compare(work, pairs, folder)?;
    let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
    let (a, b) = (median(&mut ours.clone()), median(&mut theirs.clone()));
    let ratio = median(&mut ratios);
    let (low, high) = (ratios[ratios.len() / 4], ratios[3 * ratios.len() / 4]);
    println!(
        "{} ({}): ours {a:.3} s, PyTorch ({}) {b:.3} s, ratio {ratio:.2} [{low:.2}, {high:.2}] over {pairs} pairs",
        work.name, work.about, work.opponent
    );
    Ok(format!("{}{a:.4},{b:.4},{ratio:.3},{low:.3},{high:.3},{pairs},{THREADS}\n", key(work)))
}

fn compare(work: &Work, pairs: usize, folder: &Path) -> Result<(Vec<f64>, Vec<f64>)> {
    let file = |what: &str| folder.join(format!("{}.{what}.safetensors", work.name));
    let (batch, weights) = (file("batch"), file("weights"));
    let mut ours = Command::new(crate::target().join("examples").join(work.example));
    ours.args(["--serve", "--size", work.size]).args(work.own_options).env("RAYON_NUM_THREADS", THREADS);
    let mut theirs = Command::new("python3");
    theirs.arg(crate::root().join("benchmarks/peers/torch").join(work.script));
    theirs.args(["--threads", THREADS, "--batch"]).arg(&batch).args(work.options);
    if work.one_file {
        ours.arg("--write-problem").arg(&batch);
    } else {
        ours.arg("--write-batch").arg(&batch).arg("--write-weights").arg(&weights);
        theirs.args(["--size", work.size, "--weights"]).arg(&weights);
    }
    let mut ours = Peer::start(ours)?;
    let mut theirs = Peer::start(theirs).context("PyTorch is needed: pip install -r benchmarks/peers/requirements.txt")?;
    for _ in 0..WARM_UP {
        ours.step()?;
        theirs.step()?;
    }
    (0..pairs).map(|_| Ok((ours.step()?, theirs.step()?))).collect::<Result<Vec<_>>>().map(|v| v.into_iter().unzip())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
