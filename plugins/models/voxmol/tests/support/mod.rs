//! Batches of grids that own their memory, and blobs to put into them. Used by the tests and by the timing example.
#![allow(dead_code, reason = "each user needs another part")]

use equivbench_abi::{
    self as abi, ElementType, FieldKind, Rows,
    abi_stable::std_types::{RSlice, RStr},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Grids `[samples, channels, side, side, side]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Grids {
    pub(crate) samples: usize,
    pub(crate) channels: usize,
    pub(crate) side: usize,
    pub(crate) values: Vec<f64>,
}

impl Grids {
    pub(crate) fn shape(&self) -> [usize; 5] {
        [self.samples, self.channels, self.side, self.side, self.side]
    }

    /// Numbers of one sample.
    pub(crate) fn width(&self) -> usize {
        self.channels * self.side.pow(3)
    }

    pub(crate) fn batch(&self) -> OwnedBatch {
        OwnedBatch {
            samples: self.samples,
            fields: Vec::new(),
        }
        .with_grids("density", self)
    }

    /// Some of the samples, in the order that is given.
    pub(crate) fn select(&self, samples: &[usize]) -> Self {
        let width = self.width();
        let values = samples
            .iter()
            .flat_map(|&s| self.values[s * width..(s + 1) * width].to_vec())
            .collect();
        Self {
            samples: samples.len(),
            values,
            ..self.clone()
        }
    }
}

/// Noisy densities of a few atoms at random places in the middle of the box, and the clean ones; numbers that an f32 holds.
pub(crate) fn noisy_blobs(
    samples: usize,
    channels: usize,
    side: usize,
    seed: u64,
) -> (Grids, Grids) {
    /// Deviation of the noise.
    const SIGMA: f64 = 0.9;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut clean = vec![0.0f64; samples * channels * side.pow(3)];
    for sample in clean.chunks_exact_mut(channels * side.pow(3)) {
        for atom in 0..side {
            let mut coordinate = || side as f64 * rng.random_range(0.2..0.8);
            let at = [coordinate(), coordinate(), coordinate()];
            add_atom(
                &mut sample[atom % channels * side.pow(3)..][..side.pow(3)],
                side,
                at,
            );
        }
    }
    let values: Vec<f64> = clean.iter().map(|&v| f64::from(v as f32)).collect();
    let noisy = values
        .iter()
        .map(|v| f64::from((v + SIGMA * normal(&mut rng)) as f32))
        .collect();
    let clean = Grids {
        samples,
        channels,
        side,
        values,
    };
    (
        Grids {
            values: noisy,
            ..clean.clone()
        },
        clean,
    )
}

/// `1 - Π (1 - v)` with a Gaussian `v` of 1.86 voxels, as far as it can be seen.
fn add_atom(grid: &mut [f64], side: usize, at: [f64; 3]) {
    let near =
        |axis: usize| (at[axis] as usize).saturating_sub(5)..(at[axis] as usize + 6).min(side);
    let square = |axis: usize, c: usize| (at[axis] - c as f64).powi(2);
    for x in near(0) {
        for y in near(1) {
            for z in near(2) {
                let v = (-(square(0, x) + square(1, y) + square(2, z)) / 1.86f64.powi(2)).exp();
                let value = &mut grid[(x * side + y) * side + z];
                *value = 1.0 - (1.0 - *value) * (1.0 - v);
            }
        }
    }
}

/// A standard normal number (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
    (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A batch that owns its arrays.
#[derive(Clone)]
pub(crate) struct OwnedBatch {
    samples: usize,
    fields: Vec<(&'static str, Vec<u64>, Vec<u8>)>,
}

impl OwnedBatch {
    /// Adds grids.
    pub(crate) fn with_grids(self, name: &'static str, grids: &Grids) -> Self {
        self.with_array(name, &grids.shape(), &grids.values)
    }

    /// Adds grids of any shape.
    pub(crate) fn with_array(
        mut self,
        name: &'static str,
        shape: &[usize],
        values: &[f64],
    ) -> Self {
        self.fields.push((
            name,
            shape.iter().map(|&n| n as u64).collect(),
            bytemuck::cast_slice(values).to_vec(),
        ));
        self
    }

    /// Leaves out a field.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|field| field.0 != name);
        self
    }

    /// Calls `f` with the batch as it crosses the boundary: samples without points.
    pub(crate) fn lend<R>(&self, f: impl FnOnce(&abi::Batch<'_>) -> R) -> R {
        let fields: Vec<abi::Field<'_>> = self
            .fields
            .iter()
            .map(|(name, shape, bytes)| abi::Field {
                name: RStr::from_str(name),
                kind: FieldKind::VoxelGrid.code(),
                rows: Rows::Sample.code(),
                element: ElementType::F64.code(),
                shape: RSlice::from_slice(shape),
                bytes: RSlice::from_slice(bytes),
            })
            .collect();
        let offsets = vec![0; self.samples + 1];
        let samples = self.samples as u64;
        f(&abi::Batch {
            samples,
            offsets: RSlice::from_slice(&offsets),
            fields: RSlice::from_slice(&fields),
        })
    }
}
