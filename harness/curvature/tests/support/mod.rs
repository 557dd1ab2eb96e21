//! Heads that are linear in their parameters, on top of features that are not: with and without what they keep below.
#![allow(dead_code, reason = "not every file of tests uses all of it")]

use equivbench_core::{
    Batch, CoreError, Estimator, Field, FieldKind, FrozenBelow, LinearGroup, LinearRows,
    Measurement, Model, PointLoss, Portion, RotationPlan, Rows, Scheme, Seed, StepFigures,
    Supervised, Weights,
};
use std::ops::Range;

/// How features come from positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Features {
    /// `φ[r, k]`, the same for all components, neither invariant nor equivariant: `P[r, c] = Σ_k φ_k(x_r) W[k, c]`.
    Shared,
    /// `φ[r, c, k] = h_k(|x_r|) x_rc`: as a force head's, with invariant `h`.
    Own,
    /// Of voxels: values of a voxel and of its neighbours along one axis, and a constant.
    Grid,
}

/// Features of a row, or of a voxel.
const WIDTH: usize = 4;
/// Channels of grids.
const CHANNELS: usize = 2;
/// Side of grids.
pub(crate) const SIDE: usize = 4;

/// A linear head.
pub(crate) struct Head {
    pub(crate) features: Features,
    pub(crate) width: usize,
    pub(crate) parameters: Vec<f64>,
    pub(crate) keeps: bool,
    /// Invariant features of each row by its index, where they are given: rows of `[rows, width]`.
    pub(crate) table: Vec<f64>,
    slots: Vec<Option<Batch>>,
}

impl Head {
    pub(crate) fn new(features: Features, keeps: bool) -> Self {
        let blocks = if features == Features::Grid {
            CHANNELS
        } else {
            3
        };
        let width = if features == Features::Grid { 3 } else { WIDTH };
        let parameters = (0..blocks * width)
            .map(|i| (i as f64 * 1.9 + 0.4).sin())
            .collect();
        Self {
            features,
            width,
            parameters,
            keeps,
            table: Vec::new(),
            slots: Vec::new(),
        }
    }

    /// Own features from a table `[rows, width]` by row.
    pub(crate) fn with_table(width: usize, table: Vec<f64>) -> Self {
        Self {
            width,
            table,
            parameters: (0..3 * width)
                .map(|i| (i as f64 * 1.9 + 0.4).sin())
                .collect(),
            ..Self::new(Features::Own, true)
        }
    }

    fn blocks(&self) -> usize {
        self.parameters.len() / self.width
    }

    /// Flat place of `θ[c, k]`: the columns of a matrix `[k, c]`, but for grids, whose kernels come channel by channel.
    fn place(&self, c: usize, k: usize) -> usize {
        match self.features {
            Features::Grid => c * self.width + k,
            _ => k * self.blocks() + c,
        }
    }

    /// `[rows, row]`.
    fn features(&self, batch: &Batch) -> Vec<f64> {
        if self.features == Features::Grid {
            return grid_features(batch);
        }
        let x = batch.field("positions").unwrap().reals().unwrap();
        let rows = x.chunks(3).enumerate();
        rows.flat_map(|(r, x)| self.row(r, x)).collect()
    }

    fn row(&self, r: usize, x: &[f64]) -> Vec<f64> {
        if self.features == Features::Shared {
            let of = |k: usize| (x[k % 3] * (1.0 + k as f64)).sin() + 0.3 * x[(k + 1) % 3];
            return (0..self.width).map(of).collect();
        }
        let square: f64 = x.iter().map(|v| v * v).sum();
        let invariant = |k: usize| match self.table.is_empty() {
            true => (square * (k as f64 + 0.5)).cos(),
            false => {
                let rows = self.table.len() / self.width;
                self.table[r % rows * self.width + k]
            }
        };
        let own = |c: usize| (0..self.width).map(move |k| (c, k));
        (0..3)
            .flat_map(own)
            .map(|(c, k)| invariant(k) * x[c])
            .collect()
    }

    /// The prediction from features, as the task lays it out.
    fn predict(&self, features: &[f64]) -> Vec<f64> {
        let (blocks, width) = (self.blocks(), self.width);
        let at = |c: usize, own: &[f64]| -> f64 {
            (0..width)
                .map(|k| own[k] * self.parameters[self.place(c, k)])
                .sum()
        };
        let shared = self.features != Features::Own;
        let row = if shared { width } else { width * blocks };
        let own = |c: usize, f: &[f64]| {
            if shared {
                at(c, f)
            } else {
                at(c, &f[c * width..])
            }
        };
        if self.features != Features::Grid {
            let rows = features.chunks(row);
            return rows
                .flat_map(|f| (0..blocks).map(move |c| own(c, f)))
                .collect();
        }
        let samples = features.chunks(row * SIDE.pow(3));
        let channel =
            |c: usize, f: &[f64]| -> Vec<f64> { f.chunks(row).map(|f| own(c, f)).collect() };
        samples
            .flat_map(|f| {
                (0..blocks)
                    .flat_map(move |c| channel(c, f))
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// `Jᵀ c`.
    fn pull(&self, features: &[f64], cotangent: &[f64]) -> Vec<f64> {
        let (blocks, width) = (self.blocks(), self.width);
        let shared = self.features != Features::Own;
        let row = if shared { width } else { width * blocks };
        let mut gradient = vec![0.0; self.parameters.len()];
        for (r, f) in features.chunks(row).enumerate() {
            for c in 0..blocks {
                let voxels = SIDE.pow(3);
                let at = match self.features {
                    Features::Grid => (r / voxels * blocks + c) * voxels + r % voxels,
                    _ => r * blocks + c,
                };
                let own = if shared { f } else { &f[c * width..] };
                for k in 0..width {
                    gradient[self.place(c, k)] += own[k] * cotangent[at];
                }
            }
        }
        gradient
    }
}

fn grid_features(batch: &Batch) -> Vec<f64> {
    let density = batch.field("density").unwrap();
    let values = density.values.widened();
    let voxels = SIDE.pow(3);
    let mut all = Vec::new();
    for grid in values.chunks(voxels) {
        for v in 0..voxels {
            let next = (v + 1) % voxels;
            all.extend([grid[v], grid[v] * grid[next], 1.0]);
        }
    }
    all
}

impl Model for Head {
    fn output_kind(&self) -> FieldKind {
        match self.features {
            Features::Grid => FieldKind::VoxelGrid,
            _ => FieldKind::Vector,
        }
    }
    fn output_rows(&self) -> Rows {
        match self.features {
            Features::Grid => Rows::Sample,
            _ => Rows::Point,
        }
    }
    fn output_width(&self, _: &Batch) -> usize {
        match self.features {
            Features::Grid => CHANNELS * SIDE.pow(3),
            _ => 3,
        }
    }
    fn predict_into(
        &mut self,
        batch: &Batch,
        _: Weights,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        *out = self.predict(&self.features(batch));
        Ok(())
    }
    fn vjp_into(
        &mut self,
        batch: &Batch,
        cotangent: &[f64],
        _: &str,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        *out = self.pull(&self.features(batch), cotangent);
        Ok(())
    }
    fn set_parameters(&mut self, _: &str, values: &[f64]) -> Result<(), CoreError> {
        self.parameters = values.to_vec();
        Ok(())
    }
    fn parameters_into(&self, _: &str, out: &mut Vec<f64>) -> Result<(), CoreError> {
        out.clone_from(&self.parameters);
        Ok(())
    }
    fn frozen_below(&mut self, _: &str) -> Option<Box<dyn FrozenBelow + '_>> {
        self.keeps.then(|| Box::new(Below(self)) as _)
    }
    fn groups(&self) -> Vec<(String, usize)> {
        let count = self.parameters.len();
        let mut all = vec![("all".to_owned(), count)];
        if self.features == Features::Own {
            all.push(("equivariant-subspace".to_owned(), count));
        }
        all
    }
    /// With own features of each component the head is equivariant where all components have the same weights.
    fn project_equivariant(&mut self, values: &mut Vec<f64>) -> Result<bool, CoreError> {
        if self.features != Features::Own {
            return Ok(false);
        }
        for axes in values.chunks_exact_mut(3) {
            let mean = axes.iter().sum::<f64>() / 3.0;
            axes.fill(mean);
        }
        Ok(true)
    }
    /// Shrinks every weight towards a fixed one: no descent, but a way that depends on nothing.
    fn train_step(&mut self, _: &Batch) -> Result<StepFigures, CoreError> {
        for (i, p) in self.parameters.iter_mut().enumerate() {
            *p = 0.8 * *p + 0.2 * (i as f64).cos();
        }
        Ok(StepFigures {
            loss: 1.0,
            lr: 0.01,
            gradient_norm: 0.5,
        })
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        Ok(self
            .parameters
            .iter()
            .flat_map(|p| p.to_le_bytes())
            .collect())
    }
    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        let number = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap());
        self.parameters = state.chunks(8).map(number).collect();
        Ok(())
    }
    fn synchronise(&mut self) -> Result<(), CoreError> {
        Ok(())
    }
}

struct Below<'a>(&'a mut Head);

impl Below<'_> {
    fn kept(&self, slot: usize) -> Vec<f64> {
        self.0.features(self.0.slots[slot].as_ref().unwrap())
    }
}

impl FrozenBelow for Below<'_> {
    fn freeze(&mut self, slot: usize, batch: &Batch, _: usize) -> Result<(), CoreError> {
        self.0.slots.resize(self.0.slots.len().max(slot + 1), None);
        self.0.slots[slot] = Some(batch.clone());
        Ok(())
    }
    fn predict_into(&mut self, slot: usize, out: &mut Vec<f64>) -> Result<(), CoreError> {
        *out = self.0.predict(&self.kept(slot));
        Ok(())
    }
    fn vjp_into(
        &mut self,
        slot: usize,
        cotangent: &[f64],
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        *out = self.0.pull(&self.kept(slot), cotangent);
        Ok(())
    }
    fn linear(&self) -> Option<LinearGroup> {
        let (blocks, width) = (self.0.blocks(), self.0.width);
        let place = |c: usize| (0..width).map(move |k| (c, k));
        Some(LinearGroup {
            blocks,
            width,
            shared: self.0.features != Features::Own,
            rows: match self.0.features {
                Features::Grid => LinearRows::Voxel,
                _ => LinearRows::Point,
            },
            index: (0..blocks)
                .flat_map(place)
                .map(|(c, k)| self.0.place(c, k))
                .collect(),
        })
    }
    fn features_into(
        &mut self,
        slot: usize,
        rows: Range<usize>,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        let row = self.linear().unwrap().row_width();
        *out = self.kept(slot)[rows.start * row..rows.end * row].to_vec();
        Ok(())
    }
    fn release(&mut self) -> Result<(), CoreError> {
        self.0.slots.clear();
        Ok(())
    }
}

/// Samples of two and of one point, or two grids, with rotations.
pub(crate) fn portion(
    features: Features,
    scheme: &str,
    estimator: Estimator,
    seed: u64,
) -> Portion {
    let wave = |n: usize, shift: f64| (0..n).map(|i| (i as f64 * 1.3 + shift).sin()).collect();
    let samples = match features {
        Features::Grid => {
            let grid = |name: &str, channels: usize, shift: f64| {
                let shape = vec![2, channels, SIDE, SIDE, SIDE];
                let values = wave(shape.iter().product(), shift);
                Field::real(name, FieldKind::VoxelGrid, Rows::Sample, shape, values)
            };
            Supervised {
                inputs: Batch {
                    offsets: vec![0, 0, 0],
                    fields: vec![grid("density", 1, 0.2)],
                },
                target: Some(grid("target", CHANNELS, 2.0)),
                labels: Vec::new(),
            }
        }
        _ => {
            let cloud = |name: &str, shift: f64| {
                Field::real(
                    name,
                    FieldKind::Vector,
                    Rows::Point,
                    vec![3, 3],
                    wave(9, shift),
                )
            };
            Supervised {
                inputs: Batch {
                    offsets: vec![0, 2, 3],
                    fields: vec![cloud("positions", 0.2)],
                },
                target: Some(cloud("target", 2.0)),
                labels: Vec::new(),
            }
        }
    };
    with_plans(samples, scheme, estimator, seed)
}

/// Samples with their rotations.
pub(crate) fn with_plans(
    samples: Supervised,
    scheme: &str,
    estimator: Estimator,
    seed: u64,
) -> Portion {
    let scheme = Scheme::parse(scheme).unwrap();
    let plans: Vec<RotationPlan> = (0..samples.inputs.samples() as u64)
        .map(|s| scheme.plan(Seed::new(seed), s))
        .collect();
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator,
    };
    Portion::new(samples, &plans, how)
}
