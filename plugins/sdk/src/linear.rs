//! Descriptions of parameter groups in which a prediction is linear.

use crate::{PluginError, PluginResult};
use equivbench_abi::descriptor::LinearGroupDescriptor;
use std::ops::Range;

/// A linear map without bias that ends a prediction of rows of points: its only parameter is a matrix `[width, blocks]`. `shared` says
/// whether all components have the same features.
///
/// ```
/// let head = equivbench_plugin::linear_map("head", 2, 3, true);
/// assert_eq!(head.index, [0, 3, 1, 4, 2, 5]);
/// ```
#[must_use]
pub fn linear_map(group: &str, width: usize, blocks: usize, shared: bool) -> LinearGroupDescriptor {
    let place = |component: usize| (0..width).map(move |k| (k * blocks + component) as u64);
    LinearGroupDescriptor {
        group: group.into(),
        blocks: blocks as u64,
        width: width as u64,
        shared,
        index: (0..blocks).flat_map(place).collect(),
        rows: "point".into(),
    }
}

/// A convolution with bias that ends a prediction of grids: its parameters are a kernel `[channels, taps]`, where `taps` counts those of all
/// input channels, and a bias `[channels]`. The last feature of a voxel is 1.
///
/// ```
/// let head = equivbench_plugin::linear_convolution("head", 2, 3);
/// assert_eq!(head.index, [0, 1, 2, 6, 3, 4, 5, 7]);
/// ```
#[must_use]
pub fn linear_convolution(group: &str, channels: usize, taps: usize) -> LinearGroupDescriptor {
    let place =
        |channel: usize| (channel * taps..(channel + 1) * taps).chain([channels * taps + channel]);
    LinearGroupDescriptor {
        group: group.into(),
        blocks: channels as u64,
        width: taps as u64 + 1,
        shared: true,
        index: (0..channels).flat_map(place).map(|at| at as u64).collect(),
        rows: "voxel".into(),
    }
}

/// Checks rows of features that were asked for.
///
/// # Errors
/// Rows beyond the last.
pub fn rows_within(rows: &Range<usize>, count: usize) -> PluginResult<()> {
    if rows.start <= rows.end && rows.end <= count {
        return Ok(());
    }
    Err(PluginError::BadRequest(format!(
        "rows {} to {} of the features were asked for, there are {count}",
        rows.start, rows.end
    )))
}
