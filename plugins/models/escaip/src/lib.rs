//! EScAIP: an interatomic potential of attention among neighbour slots, whose forces must learn to rotate.
//!
//! The backbone is invariant by construction; only the force head multiplies its latent with unit vectors, component by
//! component. Direct forces, sizes of the configuration published for SPICE, both training losses (`mse`, `reference`).
//!
//! | file | owns |
//! |---|---|
//! | `config` | sizes, checks, parameter formula, recipe |
//! | `graph` | nearest neighbours, unit vectors, bond-orientational orders: a pure function |
//! | `pass` | the graph as tensors, dropout, notes for tests |
//! | `layers`, `backbone`, `heads` | the network |
//! | `frames` | the unit vectors of one or several rotated copies |
//! | `frozen` | what lies below a group of the force head |
//! | `sharing` | all rotations of a batch from one pass |
//! | `twirl` | exact averages over rotations |
//! | `model` | the plugin |

mod backbone;
mod config;
mod frames;
mod frozen;
pub mod graph;
mod heads;
mod layers;
mod model;
mod pass;
mod sharing;
pub mod twirl;

pub use config::EscaipConfig;
pub use model::{Escaip, Trace};
pub use pass::{Features, NoteRows};

equivbench_plugin::export_model!(Escaip);
