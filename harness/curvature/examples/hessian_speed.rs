//! Hessians of `L`, `L_mean` and `L_equiv` over a linear head beside PyTorch's, interleaved:
//!
//! ```text
//! cargo run --release -p equivbench-curvature --example hessian_speed -- [ROUNDS [PYTHON]]
//! ```
//!
//! A head of 512 x 3 on features of 252 residues under ten rotations (three chains of 84: the paper's batch), plug-in, f64, two threads on
//! both sides (PyTorch's Hessian in every tenth round). Both get the same numbers, and their Hessians must agree. Printed: seconds, the ratio with its 95% interval over rounds,
//! and the most memory of either.

use equivbench_core::{
    Batch, CoreError, Estimator, Field, FieldKind, FrozenBelow, LinearGroup, LinearRows, LossPart,
    Measurement, Model, PointLoss, Portion, RotatedCopies, Rotation, RotationPlan, Rows,
    StepFigures, Supervised, Weights,
};
use equivbench_curvature::{Subset, SubsetOf, gauss_newton};
use faer::Mat;
use std::{
    io::{BufRead, BufReader, Write},
    ops::Range,
    process::{Child, ChildStdin, Command, Stdio},
    time::Instant,
};

const RESIDUES: usize = 252;
const WIDTH: usize = 512;
const ROTATIONS: usize = 10;

/// Numbers of a stream between -1 and 1, those of the peer: 24 bits of a splitmix64.
fn uniform(seed: u64, count: usize) -> Vec<f64> {
    let one = |i: u64| {
        let mut z = i
            .wrapping_add(seed << 40)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f64 / 8_388_608.0 - 1.0
    };
    (0..count as u64).map(one).collect()
}

/// A head on given features of each copy.
struct Head {
    features: Vec<f64>,
    weight: Vec<f64>,
    first: Vec<usize>,
}

impl Model for Head {
    fn output_kind(&self) -> FieldKind {
        FieldKind::Vector
    }
    fn output_rows(&self) -> Rows {
        Rows::Point
    }
    fn output_width(&self, _: &Batch) -> usize {
        3
    }
    fn predict_into(&mut self, _: &Batch, _: Weights, _: &mut Vec<f64>) -> Result<(), CoreError> {
        Err(CoreError::Model("features are given".into()))
    }
    fn vjp_into(
        &mut self,
        _: &Batch,
        _: &[f64],
        _: &str,
        _: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        Err(CoreError::Model("features are given".into()))
    }
    fn parameters_into(&self, _: &str, out: &mut Vec<f64>) -> Result<(), CoreError> {
        out.clone_from(&self.weight);
        Ok(())
    }
    fn set_parameters(&mut self, _: &str, values: &[f64]) -> Result<(), CoreError> {
        self.weight = values.to_vec();
        Ok(())
    }
    fn frozen_below(&mut self, _: &str) -> Option<Box<dyn FrozenBelow + '_>> {
        Some(Box::new(Below(self)))
    }
    fn train_step(&mut self, _: &Batch) -> Result<StepFigures, CoreError> {
        Ok(StepFigures::default())
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        Ok(Vec::new())
    }
    fn load(&mut self, _: &[u8]) -> Result<(), CoreError> {
        Ok(())
    }
    fn synchronise(&mut self) -> Result<(), CoreError> {
        Ok(())
    }
}

struct Below<'a>(&'a mut Head);

impl FrozenBelow for Below<'_> {
    /// Slots come in the order of the copies.
    fn freeze(&mut self, slot: usize, _: &Batch, copies: usize) -> Result<(), CoreError> {
        let first = &mut self.0.first;
        first.resize(slot + 1, 0);
        first.push(first[slot] + copies);
        Ok(())
    }
    fn predict_into(&mut self, _: usize, _: &mut Vec<f64>) -> Result<(), CoreError> {
        Err(CoreError::Model("not asked".into()))
    }
    fn vjp_into(&mut self, _: usize, _: &[f64], _: &mut Vec<f64>) -> Result<(), CoreError> {
        Err(CoreError::Model("not asked".into()))
    }
    fn linear(&self) -> Option<LinearGroup> {
        let place = |c: usize| (0..WIDTH).map(move |k| 3 * k + c);
        Some(LinearGroup {
            blocks: 3,
            width: WIDTH,
            shared: true,
            rows: LinearRows::Point,
            index: (0..3).flat_map(place).collect(),
        })
    }
    fn features_into(
        &mut self,
        slot: usize,
        rows: Range<usize>,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        let first = self.0.first[slot] * RESIDUES;
        out.clear();
        out.extend_from_slice(
            &self.0.features[(first + rows.start) * WIDTH..(first + rows.end) * WIDTH],
        );
        Ok(())
    }
    fn release(&mut self) -> Result<(), CoreError> {
        self.0.first.clear();
        Ok(())
    }
}

fn portion() -> Portion {
    let quaternions = uniform(2, 4 * ROTATIONS);
    // The peer multiplies rows by the matrix: that of the rotation that leads back is its transpose.
    let rotations = quaternions.chunks(4).map(|q| {
        let length = q.iter().map(|v| v * v).sum::<f64>().sqrt();
        Rotation::from_quaternion([q[0] / length, q[1] / length, q[2] / length, q[3] / length])
    });
    let plan = RotationPlan {
        cosets: ROTATIONS,
        rotations: rotations.collect(),
    };
    let cloud = |name: &str, seed: u64| {
        let shape = vec![RESIDUES, 3];
        Field::real(
            name,
            FieldKind::Vector,
            Rows::Point,
            shape,
            uniform(seed, 3 * RESIDUES),
        )
    };
    let samples = Supervised {
        inputs: Batch {
            offsets: vec![0, RESIDUES],
            fields: vec![cloud("positions", 5)],
        },
        target: Some(cloud("target", 3)),
        labels: Vec::new(),
    };
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator: Estimator::PlugIn,
    };
    Portion::new(samples, &[plan], how)
}

fn ours(head: &mut Head, portion: &Portion) -> Result<[Mat<f64>; 3], CoreError> {
    let copies = RotatedCopies::new(&*head, portion)?;
    let of = SubsetOf {
        group: "head",
        weigh_samples: false,
    };
    let watch = &mut || Ok(());
    let mut subset = Subset::new(head, &copies, of, watch)?;
    let products = gauss_newton::<f64>(&mut subset)?;
    Ok(LossPart::ALL.map(|part| products.hessian(part)))
}

/// The peer, asked line by line.
struct Peer {
    child: Child,
    to: ChildStdin,
    from: BufReader<std::process::ChildStdout>,
}

impl Peer {
    fn start(python: &str) -> std::io::Result<Self> {
        let script = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../benchmarks/peers/torch/time_hessians.py"
        );
        let mut child = Command::new(python)
            .args([script, "--threads", "2"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (to, from) = (child.stdin.take(), child.stdout.take());
        let gone = || std::io::Error::other("the peer has no pipes");
        let mut peer = Self {
            child,
            to: to.ok_or_else(gone)?,
            from: BufReader::new(from.ok_or_else(gone)?),
        };
        print!("{}", peer.line()?);
        Ok(peer)
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(line)
    }

    fn ask(&mut self, request: &str) -> std::io::Result<Vec<f64>> {
        writeln!(self.to, "{request}")?;
        let line = self.line()?;
        let is_number = |c: char| c.is_ascii_digit() || "+-.e".contains(c);
        let words = line.split(|c: char| !is_number(c));
        Ok(words.filter_map(|w| w.parse().ok()).collect())
    }
}

/// Median and 95% interval of the median by order statistics.
fn median(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    let reach = (0.98 * (n as f64).sqrt()).ceil() as usize;
    [
        n / 2,
        (n / 2).saturating_sub(reach),
        (n / 2 + reach).min(n - 1),
    ]
    .map(|i| values[i])
}

fn peak_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(Ok(30), |a| a.parse())?;
    let python = arguments.next().unwrap_or_else(|| "python3".into());
    let mut head = Head {
        features: uniform(1, ROTATIONS * RESIDUES * WIDTH),
        weight: uniform(4, 3 * WIDTH),
        first: Vec::new(),
    };
    let portion = portion();
    let mut peer = Peer::start(&python)?;
    let found = ours(&mut head, &portion)?;
    for way in ["hessian", "gauss_newton"] {
        let theirs = peer.ask(&format!("check {way}"))?;
        for (matrix, theirs) in found.iter().zip(theirs.chunks(2)) {
            let trace: f64 = (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum();
            let own = [trace, matrix.norm_l2()];
            for (a, b) in own.iter().zip(theirs) {
                // Sums of thousands of f64 products, in another order.
                assert!((a / b - 1.0).abs() < 1e-10, "{way}: {own:?} {theirs:?}");
            }
        }
    }
    peer.ask("memory")?;
    let mut seconds: [Vec<f64>; 3] = Default::default();
    for round in 0..rounds {
        // Who goes first changes from round to round. PyTorch's Hessian takes minutes, so it has its turn in every tenth.
        for turn in 0..3 {
            let who = (round + turn) % 3;
            if who == 1 && round % 10 != 0 {
                continue;
            }
            let took = if who == 0 {
                let start = Instant::now();
                ours(&mut head, &portion)?;
                start.elapsed().as_secs_f64()
            } else {
                peer.ask(["", "time hessian", "time gauss_newton"][who])?[0]
            };
            seconds[who].push(took);
        }
    }
    for (who, name) in [
        (1, "torch.func.hessian"),
        (2, "Gauss-Newton by torch.func.jacrev"),
    ] {
        let every = if who == 1 { 10 } else { 1 };
        let own = seconds[0].iter().step_by(every);
        let ratios: Vec<f64> = seconds[who].iter().zip(own).map(|(t, o)| t / o).collect();
        let count = ratios.len();
        let [middle, low, high] = median(ratios);
        let [theirs, ..] = median(seconds[who].clone());
        let [own, ..] = median(seconds[0].clone());
        println!(
            "{name}: {theirs:.3} s, ours {own:.3} s: {middle:.1} times faster [{low:.1}, {high:.1}] over {count} rounds"
        );
    }
    let memory = peer.ask("memory")?;
    let own = peak_mb().map_or(String::new(), |mb| format!("{mb:.0} MB"));
    println!(
        "most memory: ours {own}, torch {:.0} MB ({:.0} MB before it had anything to do)",
        memory[0], memory[1]
    );
    writeln!(peer.to, "quit")?;
    peer.child.wait()?;
    Ok(())
}
