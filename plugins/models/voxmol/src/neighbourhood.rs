//! The last convolution as a linear map: what it multiplies its parameters with at each voxel.

use burn::tensor::{DType, Tensor};
use equivbench_plugin::{PluginResult, Precision, rows_within};
use std::ops::Range;

/// For each voxel the 27 values around it in every channel, 0 outside of the grid, and a 1 for the bias: `[rows, 27 * channels + 1]`. Rows
/// are voxels of `[samples, channels, side, side, side]`, one sample after the other.
///
/// # Errors
/// Rows that are not there.
pub(crate) fn neighbourhoods(grids: &Tensor<5>, rows: Range<usize>) -> PluginResult<Tensor<2>> {
    let [samples, channels, side, _, _] = grids.dims();
    let voxels = side.pow(3);
    rows_within(&rows, samples * voxels)?;
    let (first, last) = (rows.start / voxels, rows.end.div_ceil(voxels));
    let values: Vec<f64> = grids
        .clone()
        .narrow(0, first, last - first)
        .into_data()
        .iter::<f64>()
        .collect();
    let mut found = Vec::with_capacity(rows.len() * (27 * channels + 1));
    for row in rows.clone() {
        let (sample, voxel) = (row / voxels - first, row % voxels);
        for channel in 0..channels {
            let grid = &values[(sample * channels + channel) * voxels..][..voxels];
            add_taps(grid, side, voxel, &mut found);
        }
        found.push(1.0);
    }
    let precision = match grids.dtype() {
        DType::F64 => Precision::F64,
        _ => Precision::F32,
    };
    Ok(precision.upload(found, [rows.len(), 27 * channels + 1], &grids.device()))
}

/// The values around a voxel in the order of a kernel `[3, 3, 3]`.
fn add_taps(grid: &[f64], side: usize, voxel: usize, out: &mut Vec<f64>) {
    let around = |at: usize| (at..at + 3).map(move |k| k.checked_sub(1).filter(|&k| k < side));
    let (x, y, z) = (voxel / (side * side), voxel / side % side, voxel % side);
    for x in around(x) {
        for y in around(y) {
            for z in around(z) {
                out.push(match (x, y, z) {
                    (Some(x), Some(y), Some(z)) => grid[(x * side + y) * side + z],
                    _ => 0.0,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn a_voxel_sees_its_neighbours_and_zeros_beyond_the_edge() {
        let values: Vec<f64> = (0..54).map(f64::from).collect();
        let grids = Precision::F64.upload::<5>(values, [2, 1, 3, 3, 3], &Device::flex());
        let rows = neighbourhoods(&grids, 13..28).unwrap();
        assert_eq!(rows.dims(), [15, 28]);
        let rows: Vec<f64> = rows.into_data().iter::<f64>().collect();
        // The middle of the first grid sees all of it.
        assert_eq!(rows[..27], (0..27).map(f64::from).collect::<Vec<_>>());
        assert_eq!(rows[27], 1.0);
        // The first corner of the second sees the eight voxels at that corner.
        let corner = &rows[14 * 28..];
        let inside: Vec<f64> = corner[..27].iter().copied().filter(|v| *v != 0.0).collect();
        assert_eq!(inside, [27.0, 28.0, 30.0, 31.0, 36.0, 37.0, 39.0, 40.0]);
        assert_eq!(corner[13], 27.0);
        assert!(neighbourhoods(&grids, 50..55).is_err());
    }
}
