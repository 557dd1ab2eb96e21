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

/// Compares the sizes `6M` and `1M`; the argument is the number of pairs.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let pairs: usize = arguments.first().map_or(Ok(15), |n| n.parse()).context("the argument is a number of pairs")?;
    crate::cargo(&["build", "--release", "--workspace", "--examples"])?;
    let mut csv = String::from("work,ours_s,torch_eager_s,ratio_eager,ratio_eager_p25,ratio_eager_p75,pairs,threads\n");
    let folder = crate::target().join("peers");
    std::fs::create_dir_all(&folder)?;
    for size in ["6M", "1M"] {
        let (ours, theirs) = compare(size, pairs, &folder)?;
        let mut ratios: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a / b).collect();
        let (a, b) = (median(&mut ours.clone()), median(&mut theirs.clone()));
        let ratio = median(&mut ratios);
        let (low, high) = (ratios[ratios.len() / 4], ratios[3 * ratios.len() / 4]);
        println!("escaip {size} step: ours {a:.3} s, PyTorch eager {b:.3} s, ratio {ratio:.2} [{low:.2}, {high:.2}] over {pairs} pairs");
        let _ = writeln!(csv, "escaip-{size}-step,{a:.4},{b:.4},{ratio:.3},{low:.3},{high:.3},{pairs},{THREADS}");
    }
    std::fs::write(crate::root().join("benchmarks/peers/results.csv"), csv).context("benchmarks/peers/results.csv")
}

fn compare(size: &str, pairs: usize, folder: &Path) -> Result<(Vec<f64>, Vec<f64>)> {
    let (batch, weights) = (folder.join(format!("{size}.batch.safetensors")), folder.join(format!("{size}.weights.safetensors")));
    let mut ours = Command::new(crate::target().join("examples/step_time"));
    ours.args(["--serve", "--size", size, "--write-batch"])
        .arg(&batch)
        .arg("--write-weights")
        .arg(&weights)
        .env("RAYON_NUM_THREADS", THREADS);
    let mut ours = Peer::start(ours)?;
    let mut theirs = Command::new("python3");
    theirs.arg(crate::root().join("benchmarks/peers/torch/time_escaip.py"));
    theirs.args(["--size", size, "--threads", THREADS, "--batch"]).arg(&batch).arg("--weights").arg(&weights);
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
