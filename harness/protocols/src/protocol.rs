//! What a protocol is: it is told of steps and evaluations, and writes rows.

use crate::{
    dip_timing::DipTiming, final_percent::FinalPercent, throughput::Throughput,
    train_and_measure::TrainAndMeasure,
};
use equivbench_core::{
    Condition, CoreError, Deviation, Estimate, Evaluation, Sink, StepFigures, Table, Weights,
};

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
    /// Rotation scheme.
    pub scheme: String,
    /// Rotations of each sample.
    pub rotations: u64,
    /// `unbiased`, `plug-in` or `exact`.
    pub estimator: String,
    /// Loss that is split.
    pub loss: String,
}

/// One optimiser step.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Steps done, this one included.
    pub step: u64,
    /// Seconds it took, with making its batch.
    pub seconds: f64,
    /// Samples in its batch.
    pub samples: u64,
    /// What it reported.
    pub figures: StepFigures,
}

/// One evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Where in training, and the percents.
    pub evaluation: Evaluation,
    /// Which weights.
    pub weights: Weights,
    /// At which flow time, and how the prediction came about.
    pub condition: Condition,
    /// Factor from the losses to those of the clean-sample prediction, for squared errors of tasks that have one.
    pub clean_sample_factor: Option<f64>,
    /// The split of the loss.
    pub estimate: Estimate,
    /// The last optimiser step, if there was one.
    pub last_step: Option<StepFigures>,
    /// How far predictions from shared work were from blind ones, where that was compared.
    pub deviation: Deviation,
    /// Seconds spent evaluating so far.
    pub evaluation_s: f64,
}

/// What a complete run took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Seconds of the run: training, evaluation, rows, checkpoints.
    pub run_s: f64,
    /// Seconds of these inside calls into the model, where they are known.
    pub model_s: Option<f64>,
    /// Peak resident memory, where it is known.
    pub peak_memory_bytes: Option<u64>,
}

/// Watches a run and writes rows.
pub trait Protocol {
    /// An optimiser step was done.
    ///
    /// # Errors
    /// A row that could not be written.
    fn on_step(&mut self, _step: &Step) -> Result<(), CoreError> {
        Ok(())
    }
    /// An evaluation was done.
    ///
    /// # Errors
    /// A row that could not be written.
    fn on_evaluation(
        &mut self,
        _about: &About,
        _measured: &Measured,
        _sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        Ok(())
    }
    /// The run is complete.
    ///
    /// # Errors
    /// A row that could not be written.
    fn on_finish(
        &mut self,
        _about: &About,
        _totals: &Totals,
        _sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        Ok(())
    }
    /// What a checkpoint keeps, as CBOR, which keeps every bit of a number.
    ///
    /// # Errors
    /// A state that could not be written.
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        Ok(Vec::new())
    }
    /// Continues from a checkpoint.
    ///
    /// # Errors
    /// A state that could not be read.
    fn load(&mut self, _state: &[u8]) -> Result<(), CoreError> {
        Ok(())
    }
}

/// A protocol in the list.
pub struct ProtocolInfo {
    /// Name on the command line.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Tables it writes.
    pub tables: &'static [&'static Table],
    /// Starts it.
    pub start: fn() -> Box<dyn Protocol>,
}

/// All protocols, in the order in which they are told of events.
pub const PROTOCOLS: &[ProtocolInfo] = &[
    TrainAndMeasure::INFO,
    DipTiming::INFO,
    FinalPercent::INFO,
    Throughput::INFO,
];

/// The protocol of a name.
#[must_use]
pub fn protocol_by_name(name: &str) -> Option<&'static ProtocolInfo> {
    PROTOCOLS.iter().find(|p| p.name == name)
}

/// A protocol's state as bytes.
pub(crate) fn to_bytes<T: serde::Serialize>(state: &T) -> Result<Vec<u8>, CoreError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(state, &mut bytes)
        .map_err(|e| CoreError::Sink(format!("protocol state: {e}")))?;
    Ok(bytes)
}

/// A protocol's state from bytes.
pub(crate) fn from_bytes<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, CoreError> {
    ciborium::from_reader(bytes).map_err(|e| CoreError::Sink(format!("protocol state: {e}")))
}
