//! Grids: rotating 24 ways and averaging, beside a plain copy; voxelising a molecule, beside writing the grid.

use equivbench_core::{
    FiniteGroup, GridRotation, PointLoss, Rotation, Seed, TwirlAccumulator, VoxelAtom, voxelise,
};
use equivbench_micro::{Case, run};
use rayon::prelude::*;
use std::hint::black_box;

/// A drug-like density: 8 channels of 64³ voxels, 16.8 MB.
const SIDE: usize = 64;
const CHANNELS: usize = 8;
const POINTS: usize = SIDE * SIDE * SIDE;
const NUMBERS: usize = CHANNELS * POINTS;
const ATOMS: usize = 45;

fn density() -> Vec<f64> {
    (0..NUMBERS).map(|i| (i as f64 * 0.37).sin()).collect()
}

fn rotations() -> Vec<GridRotation> {
    FiniteGroup::Octahedral
        .elements()
        .iter()
        .filter_map(|r| GridRotation::new(r, SIDE))
        .collect()
}

/// What a measurement does with 24 predictions: rotated back on the way into running mean and scatter. The prediction is read, the mean
/// is read and written; a copy reads and writes.
fn rotate_and_average() -> Result<Case, String> {
    let (prediction, rotations) = (density(), rotations());
    let mut twirl = TwirlAccumulator::new(vec![0.0; NUMBERS], NUMBERS, 1, PointLoss::Mse);
    let (from, mut to) = (density(), vec![0.0; NUMBERS]);
    let bytes = (24 * NUMBERS * size_of::<f64>()) as f64;
    let work = move || {
        rotations
            .iter()
            .for_each(|turn| twirl.push_rotated(0, turn, black_box(&prediction)))
    };
    Ok(Case::new(
        "grids/rotate-24-and-average",
        "24 copies",
        work,
        move || copy(&from, &mut to),
    )
    .sharing("bytes", 3.0 * bytes, 2.0 * bytes))
}

/// As many copies as rotations, with the same threads.
fn copy(from: &[f64], to: &mut [f64]) {
    for _ in 0..24 {
        black_box(&mut *to)
            .par_chunks_mut(POINTS)
            .zip(black_box(from).par_chunks(POINTS))
            .for_each(|(to, from)| to.copy_from_slice(from));
    }
}

/// Atoms on a sphere-filling spiral of bond length, elements in turns.
fn molecule() -> Vec<VoxelAtom> {
    let mut stream = Seed::new(1).stream("molecule");
    let atom = |i: usize| {
        let direction = Rotation::haar(&mut stream).apply([1.0, 0.0, 0.0]);
        let radius = 6.0 * ((i + 1) as f64 / ATOMS as f64).cbrt();
        VoxelAtom {
            position: direction.map(|d| d * radius),
            channel: i % CHANNELS,
        }
    };
    (0..ATOMS).map(atom).collect()
}

fn voxelise_a_molecule() -> Result<Case, String> {
    let (atoms, mut grid, mut written) = (molecule(), vec![0.0; NUMBERS], vec![0.0; NUMBERS]);
    let bytes = (NUMBERS * size_of::<f64>()) as f64;
    let work = move || voxelise(black_box(&atoms), SIDE, &mut grid);
    let floor = move || black_box(&mut written).fill(0.0);
    Ok(
        Case::new("grids/voxelise-45-atoms", "writing the grid", work, floor)
            .sharing("bytes", bytes, bytes),
    )
}

fn main() {
    run(&[rotate_and_average, voxelise_a_molecule]);
}
