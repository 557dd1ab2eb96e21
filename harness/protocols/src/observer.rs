//! What a session tells of and asks for while it runs.

use equivbench_core::{CoreError, Model, SchemeChoice, Sink};
use serde::{Deserialize, Serialize};

/// What a checkpoint keeps besides the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    /// Optimiser steps done.
    pub step: u64,
    /// Training seconds.
    pub train_s: f64,
    /// Processor seconds of training, all threads together.
    pub cpu_s: f64,
    /// Evaluation seconds.
    pub evaluation_s: f64,
    /// Seconds of everything.
    pub run_s: f64,
    /// Seconds inside calls into the model.
    pub model_s: f64,
    /// The last optimiser step: loss, learning rate, gradient norm.
    pub last_step: Option<[f64; 3]>,
    /// States of the protocols, in order.
    pub protocols: Vec<Vec<u8>>,
    /// The rotation scheme, where it was chosen (`measure.scheme = auto`).
    #[serde(default)]
    pub scheme: Option<SchemeChoice>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Optimiser steps done.
    pub step: u64,
    /// Optimiser steps of the run.
    pub total: u64,
    /// Training loss of the last step.
    pub loss: Option<f64>,
    /// Percent loss from equivariance error at the last evaluation, the mean over the inputs of conditions.
    pub percent: Option<f64>,
    /// Whether it is measuring now.
    pub measuring: bool,
}

/// What a session needs from whoever runs it.
pub trait Observer {
    /// Called often.
    fn progress(&mut self, progress: &Progress);
    /// Asked after each step and after each call into the model while it is measured.
    fn should_stop(&mut self) -> bool;
    /// Keeps the state. Rows written so far belong to it.
    ///
    /// # Errors
    /// A state that could not be kept.
    fn checkpoint(&mut self, state: &SessionState, model: &dyn Model) -> Result<(), CoreError>;
    /// The sink of rows.
    fn sink(&mut self) -> &mut dyn Sink;
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps done, all rows written.
    Finished,
    /// Stopped on request after a checkpoint.
    Stopped,
}
