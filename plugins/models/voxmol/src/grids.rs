//! A batch as checked grids.

use crate::VoxmolConfig;
use burn::tensor::Tensor;
use equivbench_plugin::{Batch, PluginError, PluginResult};

/// The noisy grids `[samples, elements, side, side, side]`.
///
/// # Errors
/// A missing field, another shape, another number of channels, a side that cannot be halved often enough, numbers that are not finite.
pub(crate) fn density(batch: &Batch<'_>, config: &VoxmolConfig) -> PluginResult<Tensor<5>> {
    const NAME: &str = "density";
    let refused = |what: String| {
        Err(PluginError::BadRequest(format!(
            "voxmol: field \"{NAME}\" {what}"
        )))
    };
    let shape = batch.shape(NAME)?;
    let &[_, elements, x, y, z] = shape.as_slice() else {
        return refused(format!(
            "has shape {shape:?}; it must be [samples, elements, side, side, side]"
        ));
    };
    if x != y || x != z {
        return refused(format!(
            "has grids of {x} x {y} x {z} voxels; they must be cubes"
        ));
    }
    if elements != config.elements {
        let expected = config.elements;
        return refused(format!(
            "has {elements} channels, the model {expected}; set elements = {elements} in its configuration"
        ));
    }
    if x == 0 || !x.is_multiple_of(config.shrinkage()) {
        return refused(format!(
            "has grids of side {x}; {} levels need one divisible by {}",
            config.levels(),
            config.shrinkage()
        ));
    }
    let grids = batch.tensor::<5>(NAME)?;
    // One pass over large grids; which number it was matters only when one is found.
    if !grids.clone().sum().into_scalar::<f64>().is_finite()
        && let Some(at) = batch.floats(NAME)?.iter().position(|v| !v.is_finite())
    {
        return refused(format!(
            "is not finite in sample {} of the batch",
            at / (elements * x * x * x)
        ));
    }
    Ok(grids)
}
