//! What a session needs to know, and what its rows say of it.

use equivbench_core::{Condition, CoreError, Estimator, Model, PointLoss, Scheme, Seed, Weights};
use std::collections::BTreeSet;

/// How a run trains.
#[derive(Clone, Debug)]
pub struct Training {
    /// Optimiser steps.
    pub total_steps: u64,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Training samples that are used, indices into the split `train`.
    pub samples: Vec<u64>,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
    /// Steps whose checkpoints stay.
    pub keep_checkpoints: BTreeSet<u64>,
}

/// Which samples a figure is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SetName {
    /// The frozen samples of every evaluation.
    #[default]
    Measured,
    /// The whole split that they are drawn from, once, after the last step.
    Whole,
    /// Samples of the split for reporting, once, after the last step.
    Test,
}

impl SetName {
    /// Name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::Whole => "whole",
            Self::Test => "test",
        }
    }
}

/// Samples to measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleSet {
    /// Which.
    pub name: SetName,
    /// Split of the dataset.
    pub split: String,
    /// Samples at most, drawn one for each group first.
    pub samples: usize,
}

/// How a run is measured.
#[derive(Clone, Debug)]
pub struct Measuring {
    /// Seed of measured samples, their rotations and their noise: the same for every run that is to be compared.
    pub seed: Seed,
    /// Evaluations a decade of steps.
    pub points_per_decade: u32,
    /// What every evaluation measures.
    pub set: SampleSet,
    /// What is measured besides, once, after the last step.
    pub final_sets: Vec<SampleSet>,
    /// Samples in a batch of the measurement.
    pub batch_size: usize,
    /// Rotations.
    pub scheme: Scheme,
    /// Plug-in or unbiased.
    pub estimator: Estimator,
    /// Loss that is split.
    pub loss: PointLoss,
    /// Kinds of weights that are measured.
    pub weights: Vec<Weights>,
    /// Whether a model that can share work among rotated copies does.
    pub sharing: bool,
    /// Conditions that are measured, in the order of their rows.
    pub conditions: Vec<Condition>,
}

/// Everything a session needs to know.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Seed of everything random in training.
    pub seed: Seed,
    /// How it trains.
    pub training: Training,
    /// How it is measured.
    pub measuring: Measuring,
}

/// What stays the same during a run.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Device as a person would name it.
    pub device: String,
    /// Whether training time counts as GPU time.
    pub is_gpu: bool,
    /// `f32` or `f64`.
    pub precision: String,
    /// Threads that the model may use; 0 for all.
    pub threads: u64,
    /// Trained parameters.
    pub parameters: u64,
    /// Samples in a batch.
    pub batch_size: u64,
    /// Seed of measured samples, rotations and noise.
    pub measure_seed: u64,
    /// Rotation scheme.
    pub scheme: String,
    /// Rotations of each sample.
    pub rotations: u64,
    /// `unbiased`, `plug-in` or `exact`.
    pub estimator: String,
    /// Loss that is split.
    pub loss: String,
}

/// Opens another instance of the model, in double precision, with weights of its own.
pub type OpenDouble<'a> = Box<dyn Fn() -> Result<Box<dyn Model>, CoreError> + 'a>;
