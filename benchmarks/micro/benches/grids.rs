//! Grids: rotating 24 ways and averaging, beside a plain copy; voxelising a molecule, beside writing the grid.

use criterion::{Criterion, Throughput, criterion_group};
use equivbench_core::{FiniteGroup, GridRotation, PointLoss, Rotation, Seed, TwirlAccumulator, VoxelAtom, voxelise};
use equivbench_micro::{Ratio, interleaved};
use rayon::prelude::*;
use std::hint::black_box;

/// A drug-like density: 8 channels of 64³ voxels, 16.8 MB.
const SIDE: usize = 64;
const CHANNELS: usize = 8;
const POINTS: usize = SIDE * SIDE * SIDE;
const NUMBERS: usize = CHANNELS * POINTS;
const ATOMS: usize = 45;
const PAIRS: usize = 21;

fn density() -> Vec<f64> {
    (0..NUMBERS).map(|i| (i as f64 * 0.37).sin()).collect()
}

fn rotations() -> Vec<GridRotation> {
    FiniteGroup::Octahedral.elements().iter().filter_map(|r| GridRotation::new(r, SIDE)).collect()
}

/// What a measurement does with 24 predictions: rotated back on the way into running mean and scatter.
struct Twirl {
    predictions: Vec<f64>,
    rotations: Vec<GridRotation>,
    accumulator: TwirlAccumulator,
}

impl Twirl {
    fn new() -> Self {
        let accumulator = TwirlAccumulator::new(vec![0.0; NUMBERS], NUMBERS, 1, PointLoss::Mse);
        Self { predictions: density(), rotations: rotations(), accumulator }
    }

    fn run(&mut self) {
        self.rotations.iter().for_each(|turn| self.accumulator.push_rotated(0, turn, black_box(&self.predictions)));
    }

    /// The prediction is read, the mean is read and written.
    fn bytes(&self) -> f64 {
        (self.rotations.len() * 3 * NUMBERS * size_of::<f64>()) as f64
    }
}

/// As many copies as rotations, with the same threads.
fn copy(from: &[f64], to: &mut [f64]) {
    for _ in 0..24 {
        black_box(&mut *to).par_chunks_mut(POINTS).zip(black_box(from).par_chunks(POINTS)).for_each(|(to, from)| to.copy_from_slice(from));
    }
}

fn copied_bytes() -> f64 {
    (24 * 2 * NUMBERS * size_of::<f64>()) as f64
}

/// Atoms on a sphere-filling spiral of bond length, elements in turns.
fn molecule() -> Vec<VoxelAtom> {
    let mut stream = Seed::new(1).stream("molecule");
    let atom = |i: usize| {
        let direction = Rotation::haar(&mut stream).apply([1.0, 0.0, 0.0]);
        let radius = 6.0 * ((i + 1) as f64 / ATOMS as f64).cbrt();
        VoxelAtom { position: direction.map(|d| d * radius), channel: i % CHANNELS }
    };
    (0..ATOMS).map(atom).collect()
}

fn groups(c: &mut Criterion) {
    let mut group = c.benchmark_group("grids");
    group.sample_size(20);
    let mut twirl = Twirl::new();
    group.throughput(Throughput::Bytes(twirl.bytes() as u64));
    group.bench_function("rotate-24-and-average", |b| b.iter(|| twirl.run()));
    let (from, mut to) = (density(), vec![0.0; NUMBERS]);
    group.throughput(Throughput::Bytes(copied_bytes() as u64));
    group.bench_function("copy-24-times", |b| b.iter(|| copy(&from, &mut to)));
    let atoms = molecule();
    group.throughput(Throughput::Bytes((NUMBERS * size_of::<f64>()) as u64));
    group.bench_function("voxelise-45-atoms", |b| b.iter(|| voxelise(black_box(&atoms), SIDE, &mut to)));
    group.bench_function("write-the-grid", |b| b.iter(|| black_box(&mut to).fill(0.0)));
    group.finish();
}

/// The ratios that the project holds itself to.
fn ratios() {
    let mut twirl = Twirl::new();
    let (from, mut to) = (density(), vec![0.0; NUMBERS]);
    let (ours, plain) = (twirl.bytes(), copied_bytes());
    let pair = interleaved(PAIRS, || twirl.run(), || copy(&from, &mut to));
    let share = |seconds: f64| ours / plain / seconds;
    let Ratio { quartiles: [low, median, high], .. } = pair;
    println!("rotate 24 ways and average, against 24 copies: {pair}");
    println!(
        "  memory bandwidth {:.1} GB/s against {:.1} GB/s: share {:.2} [{:.2}, {:.2}]",
        ours / pair.medians_s[0] / 1e9,
        plain / pair.medians_s[1] / 1e9,
        share(median),
        share(high),
        share(low)
    );
    let atoms = molecule();
    let mut grid = vec![0.0; NUMBERS];
    let written = interleaved(10 * PAIRS, || voxelise(black_box(&atoms), SIDE, &mut grid), || black_box(&mut to).fill(0.0));
    println!("voxelise {ATOMS} atoms at {SIDE}^3 x {CHANNELS}, against writing the grid: {written}");
}

criterion_group!(benches, groups);

fn main() {
    ratios();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
