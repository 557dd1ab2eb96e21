//! VoxMol: denoising of molecules on density grids, a convolutional U-net that must learn to rotate.
//!
//! The input is a noisy grid with a channel for each element, the output the clean grid. Nothing in the network knows of rotations:
//! kernels are generic, and strided convolutions look at every second voxel from the first on. Sizes from 7M to 111M, training losses
//! `sse` and `mse`; the subspace of parameters with which the network commutes with the rotations of the cube is known in closed form.
//!
//! | file | owns |
//! |---|---|
//! | `config` | sizes, checks, parameter formula, recipe |
//! | `grids` | a batch as checked grids |
//! | `draw` | laws of fresh weights |
//! | `layers` | convolutions, norms, attention |
//! | `blocks` | residual blocks, stages, the middle |
//! | `symmetry` | projection onto kernels that the rotations of the cube leave alone |
//! | `notes` | what a traced pass keeps |
//! | `model` | the plugin |

mod blocks;
mod config;
mod draw;
mod grids;
mod layers;
mod model;
mod notes;
mod symmetry;

pub use config::VoxmolConfig;
pub use model::{Trace, Voxmol};
pub use notes::Note;

equivbench_plugin::export_model!(Voxmol);
