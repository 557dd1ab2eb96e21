//! The complete training state as bytes: a safetensors document, so that any tool can open a checkpoint.

use crate::{
    PluginError, PluginResult,
    optimiser::OptimiserState,
    parameters::{Flat, ParameterInfo},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::HashMap;

/// Names of the four sections.
const VALUES: &str = "value";
const FIRST: &str = "first";
const SECOND: &str = "second";
const AVERAGE: &str = "average";

/// Serialises parameters, moments, averages and counters.
pub(crate) fn save(state: &OptimiserState, parameters: &[ParameterInfo], identity: &str) -> PluginResult<Vec<u8>> {
    let mut views = Vec::new();
    let mut sections = vec![(VALUES, &state.values), (FIRST, &state.first), (SECOND, &state.second)];
    sections.extend(state.average.as_ref().map(|a| (AVERAGE, a)));
    for (section, flat) in sections {
        for (index, parameter) in parameters.iter().enumerate() {
            let (dtype, bytes) = bytes(flat, index);
            let view = TensorView::new(dtype, parameter.shape.clone(), bytes).map_err(failed)?;
            views.push((format!("{section}/{}", parameter.name), view));
        }
    }
    let updates: Vec<String> = state.updates.iter().map(u64::to_string).collect();
    let about = HashMap::from([
        ("identity".to_owned(), identity.to_owned()),
        ("step".to_owned(), state.step.to_string()),
        ("updates".to_owned(), updates.join(" ")),
    ]);
    safetensors::serialize(views, Some(about)).map_err(failed)
}

/// Restores what [`save`] wrote, into a state of the same model.
pub(crate) fn load(bytes: &[u8], state: &mut OptimiserState, parameters: &[ParameterInfo], identity: &str) -> PluginResult<()> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(failed)?;
    let about = header.metadata().clone().unwrap_or_default();
    let found = about.get("identity").map_or("", String::as_str);
    if found != identity {
        return Err(PluginError::BadRequest(format!("the saved state is of \"{found}\", this model is \"{identity}\"")));
    }
    let tensors = SafeTensors::deserialize(bytes).map_err(failed)?;
    let read = |section: &str, flat: &mut Flat| -> PluginResult<()> {
        for (index, parameter) in parameters.iter().enumerate() {
            let view = tensors.tensor(&format!("{section}/{}", parameter.name)).map_err(failed)?;
            fill(flat, index, view.data())?;
        }
        Ok(())
    };
    read(VALUES, &mut state.values)?;
    read(FIRST, &mut state.first)?;
    read(SECOND, &mut state.second)?;
    if let Some(average) = &mut state.average {
        read(AVERAGE, average)?;
    }
    state.step = number(about.get("step"))?;
    let updates = about.get("updates").map_or("", String::as_str);
    state.updates = updates.split_whitespace().map(|n| number(Some(&n.to_owned()))).collect::<PluginResult<_>>()?;
    if state.updates.len() != parameters.len() {
        return Err(PluginError::BadData("the saved state has another number of parameters".into()));
    }
    Ok(())
}

fn bytes(flat: &Flat, index: usize) -> (Dtype, &[u8]) {
    match flat {
        Flat::F32(v) => (Dtype::F32, bytemuck::cast_slice(&v[index])),
        Flat::F64(v) => (Dtype::F64, bytemuck::cast_slice(&v[index])),
    }
}

fn fill(flat: &mut Flat, index: usize, data: &[u8]) -> PluginResult<()> {
    let target: &mut [u8] = match flat {
        Flat::F32(v) => bytemuck::cast_slice_mut(&mut v[index]),
        Flat::F64(v) => bytemuck::cast_slice_mut(&mut v[index]),
    };
    if target.len() != data.len() {
        return Err(PluginError::BadData("the saved state has another shape or precision".into()));
    }
    target.copy_from_slice(data);
    Ok(())
}

fn number(text: Option<&String>) -> PluginResult<u64> {
    text.and_then(|t| t.parse().ok()).ok_or_else(|| PluginError::BadData("the saved state lacks its counters".into()))
}

fn failed(error: impl std::fmt::Display) -> PluginError {
    PluginError::BadData(format!("saved state: {error}"))
}
