//! Proteina: flow matching on C-alpha traces, a transformer whose velocities must learn to rotate.
//!
//! The pair path sees distances and residue numbers only and is invariant; Cartesian components enter the tokens through generic
//! linear maps and leave through a linear head, and nothing in between treats them as components. Sizes with and without triangle
//! multiplications, training losses `flow-matching`, `velocity-mse` and `mse`.
//!
//! | file | owns |
//! |---|---|
//! | `config` | sizes, checks, parameter formula, recipe |
//! | `inputs` | a batch as checked numbers |
//! | `bins` | classes of distances and separations: pure functions |
//! | `layout` | rows of tokens and pairs of ragged chains, and of what is noted of them |
//! | `features` | everything that follows from the inputs alone and that no rotation changes |
//! | `kinds` | classes of pairs, and which pairs are alike |
//! | `layers`, `conditioning`, `tokens`, `pairs`, `triangles`, `trunk` | the network |
//! | `context` | what the network computes once for all rotations of a batch |
//! | `losses` | training losses |
//! | `model` | the plugin |

mod bins;
mod conditioning;
mod config;
mod context;
mod features;
mod inputs;
mod kinds;
mod layers;
mod layout;
mod losses;
mod model;
mod pairs;
mod tokens;
mod triangles;
mod trunk;

pub use config::ProteinaConfig;
pub use layout::NoteRows;
pub use model::{Proteina, Trace};

equivbench_plugin::export_model!(Proteina);
