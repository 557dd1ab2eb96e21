//! The complete training state as bytes: a safetensors document, so that any tool can open a checkpoint.

use crate::{
    PluginError, PluginResult,
    optimiser::OptimiserState,
    parameters::{Flat, ParameterInfo},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Names of the four sections.
const VALUES: &str = "value";
const FIRST: &str = "first";
const SECOND: &str = "second";
const AVERAGE: &str = "average";
/// Key of the counters among the metadata.
const COUNTERS: &str = "counters";

/// What is no tensor.
#[derive(Serialize, Deserialize)]
struct Counters {
    /// Model, configuration and precision: a state of another one is refused.
    identity: String,
    /// Steps of the run.
    step: u64,
    /// Updates of each parameter.
    updates: Vec<u64>,
}

/// Serialises parameters, moments, averages and counters.
pub(crate) fn save(
    values: &Flat,
    state: &OptimiserState,
    parameters: &[ParameterInfo],
    identity: &str,
) -> PluginResult<Vec<u8>> {
    let mut views = Vec::new();
    let mut sections = vec![
        (VALUES, values),
        (FIRST, &state.first),
        (SECOND, &state.second),
    ];
    sections.extend(state.average.as_ref().map(|a| (AVERAGE, a)));
    for (section, flat) in sections {
        for (index, parameter) in parameters.iter().enumerate() {
            let view = TensorView::new(dtype(flat), parameter.shape.clone(), flat.bytes(index))
                .map_err(failed)?;
            views.push((format!("{section}/{}", parameter.name), view));
        }
    }
    let counters = Counters {
        identity: identity.into(),
        step: state.step,
        updates: state.updates.clone(),
    };
    // One entry: a map of several is written in an order of its own each time, and one state must give one file.
    let about = HashMap::from([(
        COUNTERS.to_owned(),
        serde_json::to_string(&counters).map_err(failed)?,
    )]);
    safetensors::serialize(views, Some(about)).map_err(failed)
}

/// Restores what [`save`] wrote, into values and a state of the same model.
pub(crate) fn load(
    bytes: &[u8],
    values: &mut Flat,
    state: &mut OptimiserState,
    parameters: &[ParameterInfo],
    identity: &str,
) -> PluginResult<()> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(failed)?;
    let about = header
        .metadata()
        .as_ref()
        .and_then(|m| m.get(COUNTERS))
        .ok_or_else(|| failed("it lacks its counters"))?;
    let counters: Counters = serde_json::from_str(about).map_err(failed)?;
    if counters.identity != identity {
        let found = &counters.identity;
        return Err(PluginError::BadRequest(format!(
            "the saved state is of \"{found}\", this model is \"{identity}\""
        )));
    }
    if counters.updates.len() != parameters.len() {
        return Err(failed("it has another number of parameters"));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(failed)?;
    let read = |section: &str, flat: &mut Flat| -> PluginResult<()> {
        for (index, parameter) in parameters.iter().enumerate() {
            let view = tensors
                .tensor(&format!("{section}/{}", parameter.name))
                .map_err(failed)?;
            fill(flat, index, view.data())?;
        }
        Ok(())
    };
    read(VALUES, values)?;
    read(FIRST, &mut state.first)?;
    read(SECOND, &mut state.second)?;
    if let Some(average) = &mut state.average {
        read(AVERAGE, average)?;
    }
    state.step = counters.step;
    state.updates = counters.updates;
    Ok(())
}

fn dtype(flat: &Flat) -> Dtype {
    match flat {
        Flat::F32(_) => Dtype::F32,
        Flat::F64(_) => Dtype::F64,
    }
}

fn fill(flat: &mut Flat, index: usize, data: &[u8]) -> PluginResult<()> {
    let target = flat.bytes_mut(index);
    if target.len() != data.len() {
        return Err(PluginError::BadData(
            "the saved state has another shape or precision".into(),
        ));
    }
    target.copy_from_slice(data);
    Ok(())
}

fn failed(error: impl std::fmt::Display) -> PluginError {
    PluginError::BadData(format!("saved state: {error}"))
}
