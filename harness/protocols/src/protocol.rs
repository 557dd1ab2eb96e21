//! What a protocol is: it says when it is due, asks a snapshot, and writes rows.

use crate::{About, Snapshot};
use equivbench_core::{CoreError, Sink, StepFigures, TableInfo};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The settings of a protocol that has none.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct NoSettings {}

/// When a run is evaluated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Steps of the log-spaced schedule, the first and the last step among them.
    pub steps: Vec<u64>,
    /// Optimiser steps of the run.
    pub total: u64,
}

impl Schedule {
    /// Whether the schedule holds a step.
    #[must_use]
    pub fn holds(&self, step: u64) -> bool {
        self.steps.binary_search(&step).is_ok()
    }
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

/// What a complete run took.
#[derive(Clone, Debug, Default)]
pub struct Ending {
    /// What stayed the same.
    pub about: Arc<About>,
    /// Training seconds.
    pub train_s: f64,
    /// Processor seconds of training, all threads together, where the clock tells.
    pub cpu_s: Option<f64>,
    /// GPU-hours of training; `None` on a CPU.
    pub gpu_h: Option<f64>,
    /// Seconds spent measuring.
    pub evaluation_s: f64,
    /// Seconds of the run: training, evaluation, rows, checkpoints.
    pub run_s: f64,
    /// Seconds of these inside calls into the model, where they are known.
    pub model_s: Option<f64>,
    /// Peak resident memory, where it is known.
    pub peak_memory_bytes: Option<u64>,
}

/// Asks questions of a run and writes rows.
pub trait Protocol: Sized + 'static {
    /// Name on the command line and in suites.
    const NAME: &'static str;
    /// What it measures.
    const ABOUT: &'static str;
    /// Whether it follows a run from its beginning, so that one moment alone tells it nothing.
    const FOLLOWS_A_RUN: bool = false;
    /// Its table of a suite, `[protocols.NAME]`; the default stands for what a suite leaves out.
    type Settings: Default + Serialize + DeserializeOwned;

    /// The tables that it writes.
    fn tables() -> Vec<TableInfo>;
    /// Starts it for one run.
    fn start(settings: Self::Settings, schedule: Arc<Schedule>) -> Self;
    /// Whether it has questions after this many optimiser steps.
    fn due(&self, step: u64) -> bool;
    /// Asks its questions and writes rows.
    ///
    /// # Errors
    /// What the snapshot cannot answer, or a row that could not be written.
    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError>;
    /// An optimiser step was done.
    fn trained(&mut self, _step: &Step) {}
    /// The run is complete.
    ///
    /// # Errors
    /// A row that could not be written.
    fn finish(&mut self, _ending: &Ending, _sink: &mut dyn Sink) -> Result<(), CoreError> {
        Ok(())
    }
    /// What a checkpoint keeps, as CBOR, which keeps every bit of a number (see [`to_bytes`]).
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

/// A protocol at work, whatever its settings.
pub trait Running {
    /// See [`Protocol::due`].
    fn due(&self, step: u64) -> bool;
    /// See [`Protocol::measure`].
    ///
    /// # Errors
    /// As there.
    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError>;
    /// See [`Protocol::trained`].
    fn trained(&mut self, step: &Step);
    /// See [`Protocol::finish`].
    ///
    /// # Errors
    /// As there.
    fn finish(&mut self, ending: &Ending, sink: &mut dyn Sink) -> Result<(), CoreError>;
    /// See [`Protocol::save`].
    ///
    /// # Errors
    /// As there.
    fn save(&self) -> Result<Vec<u8>, CoreError>;
    /// See [`Protocol::load`].
    ///
    /// # Errors
    /// As there.
    fn load(&mut self, state: &[u8]) -> Result<(), CoreError>;
}

impl<P: Protocol> Running for P {
    fn due(&self, step: u64) -> bool {
        Protocol::due(self, step)
    }
    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        Protocol::measure(self, snapshot, sink)
    }
    fn trained(&mut self, step: &Step) {
        Protocol::trained(self, step);
    }
    fn finish(&mut self, ending: &Ending, sink: &mut dyn Sink) -> Result<(), CoreError> {
        Protocol::finish(self, ending, sink)
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        Protocol::save(self)
    }
    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        Protocol::load(self, state)
    }
}

/// Starts a protocol with its settings.
type Start = fn(Map<String, Value>, Arc<Schedule>) -> Result<Box<dyn Running>, CoreError>;

/// A protocol in the list.
#[derive(Clone, Copy)]
pub struct ProtocolInfo {
    /// Name on the command line and in suites.
    pub name: &'static str,
    /// What it measures.
    pub about: &'static str,
    /// Whether it follows a run from its beginning, so that one moment alone tells it nothing.
    pub follows_a_run: bool,
    /// Tables it writes.
    pub tables: fn() -> Vec<TableInfo>,
    /// Its settings with their defaults.
    pub settings: fn() -> Map<String, Value>,
    /// Starts it, or says which setting is wrong.
    pub start: Start,
}

impl ProtocolInfo {
    /// The entry of a protocol.
    #[must_use]
    pub const fn of<P: Protocol>() -> Self {
        Self {
            name: P::NAME,
            about: P::ABOUT,
            follows_a_run: P::FOLLOWS_A_RUN,
            tables: P::tables,
            settings: defaults::<P>,
            start: start::<P>,
        }
    }
}

fn defaults<P: Protocol>() -> Map<String, Value> {
    match serde_json::to_value(P::Settings::default()) {
        Ok(Value::Object(settings)) => settings,
        _ => Map::new(),
    }
}

/// The settings of a suite over the defaults.
fn start<P: Protocol>(
    settings: Map<String, Value>,
    schedule: Arc<Schedule>,
) -> Result<Box<dyn Running>, CoreError> {
    let mut all = defaults::<P>();
    all.extend(settings);
    let settings = serde_json::from_value(Value::Object(all))
        .map_err(|e| CoreError::Shape(format!("protocols.{}: {e}", P::NAME)))?;
    Ok(Box::new(P::start(settings, schedule)))
}

/// A protocol's state as bytes.
///
/// # Errors
/// A state that cannot be written.
pub fn to_bytes<T: Serialize>(state: &T) -> Result<Vec<u8>, CoreError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(state, &mut bytes)
        .map_err(|e| CoreError::Sink(format!("protocol state: {e}")))?;
    Ok(bytes)
}

/// A protocol's state from bytes.
///
/// # Errors
/// Bytes of another version.
pub fn from_bytes<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CoreError> {
    ciborium::from_reader(bytes).map_err(|e| CoreError::Sink(format!("protocol state: {e}")))
}
