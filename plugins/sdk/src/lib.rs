//! What a plugin author implements, and everything that is given for free.
//!
//! A model is a config, a Burn module and one `impl` of [`ModelPlugin`]; a dataset is one `impl` of [`DatasetPlugin`];
//! [`export_model!`], [`export_dataset!`] or [`export_plugin!`] makes the shared library loadable. Loss, optimiser loop,
//! checkpoints, parameter groups, vector-Jacobian products, fresh weights ([`Draw`]), notes of a traced pass ([`Notes`]), panic guard
//! and version handshake come from here.
//!
//! ```ignore
//! impl ModelPlugin for PointMlp {
//!     type Config = PointMlpConfig;
//!     const NAME: &'static str = "point-mlp";
//!     fn sizes() -> Vec<(&'static str, PointMlpConfig)> { vec![("tiny", PointMlpConfig::new(16))] }
//!     fn init(config: &PointMlpConfig, device: &Device) -> Self { /* ... */ }
//!     fn forward(&self, batch: &Batch) -> PluginResult<Tensor<2>> { /* ... */ }
//!     fn recipe(_: &PointMlpConfig) -> Recipe { Recipe::adamw(1e-2) }
//! }
//! export_model!(PointMlp);
//! ```

mod arrays;
mod dataset;
mod device;
mod draw;
mod error;
mod guard;
mod linear;
mod model;
mod notes;
pub mod optimiser;
pub mod parameters;
mod progress;
mod registry;
mod resident;
mod sharing;
mod state;
pub mod testing;
mod trainer;

pub use arrays::{Batch, Precision};
pub use dataset::{DatasetPlugin, FieldBuffers};
pub use device::{available_devices, parse_device};
pub use draw::{Draw, Law};
pub use equivbench_abi::{
    FieldKind, Rows,
    descriptor::{
        DataCheck, DatasetDescriptor, DatasetRequest, FieldDescriptor, LinearGroupDescriptor,
        Normaliser, Recipe, SplitDescriptor,
    },
};
pub use error::{PluginError, PluginResult};
pub use linear::{linear_convolution, linear_map, rows_within};
pub use model::{ModelPlugin, field};
pub use notes::{Note, Notes};
pub use progress::Progress;
pub use sharing::Shared;
pub use trainer::Trainer;

/// What [`export_plugin!`] needs; not part of the interface for authors.
#[doc(hidden)]
pub mod private {
    pub use crate::registry::{
        DatasetEntry, ModelEntry, describe_plugin, open_dataset, open_model,
    };
    pub use equivbench_abi as abi;
}
