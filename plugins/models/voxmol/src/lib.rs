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
//! | `layers` | convolutions, norms, attention |
//! | `blocks` | residual blocks, stages, the middle |
//! | `neighbourhood` | the last convolution as a linear map |
//! | `symmetry` | projection onto kernels that the rotations of the cube leave alone |
//! | `model` | the plugin |

mod blocks;
mod config;
mod grids;
mod layers;
mod model;
mod neighbourhood;
mod symmetry;

pub use config::VoxmolConfig;
pub use model::{Trace, Voxmol};

equivbench_plugin::export_model!(Voxmol);
