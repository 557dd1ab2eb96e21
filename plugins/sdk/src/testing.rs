//! For an author's own tests: holds an ability against what it promises. `equivbench check` does the same through the boundary.

use crate::{ModelPlugin, PluginError, PluginResult, Precision, Trainer, parameters::Flat};
use burn::tensor::Tensor;
use equivbench_abi::{self as abi, Weights, descriptor::LinearGroupDescriptor};

/// How far answers from what lies frozen below a group are from those of the whole model: largest differences over the root mean square.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct FrozenDeviations {
    /// Of predictions.
    pub predictions: f64,
    /// Of products with a cotangent.
    pub products: f64,
    /// Of predictions that are put together from features, where the group is linear.
    pub features: Option<f64>,
}

/// Freezes what lies below a group for a batch of rotated copies, and compares for the weights as they are and for others of the group,
/// which the model keeps.
///
/// # Errors
/// Whatever the model reports; an index that does not name each parameter of the group once.
pub fn frozen_deviations<M: ModelPlugin>(
    trainer: &mut Trainer<M>,
    batch: &abi::Batch<'_>,
    copies: usize,
    group: &str,
) -> PluginResult<FrozenDeviations> {
    const SLOT: u64 = 7;
    let linear = trainer.instance()?.linear;
    let linear = linear.iter().find(|linear| linear.group == group);
    let mut worst = FrozenDeviations::default();
    trainer.freeze(group, SLOT, batch, copies)?;
    for moved in [false, true] {
        if moved {
            move_group(trainer, group)?;
        }
        let whole = numbers(trainer.predict(batch, Weights::Raw)?);
        let above = numbers(trainer.predict_above(group, SLOT)?);
        worst.predictions = worst.predictions.max(deviation(&above, &whole));
        let cotangent: Vec<f64> = (0..whole.len()).map(|k| (1.7 * k as f64).sin()).collect();
        let product = doubles(&trainer.vjp(batch, cotangent.clone(), group)?);
        let above = doubles(&trainer.vjp_above(group, SLOT, cotangent)?);
        worst.products = worst.products.max(deviation(&above, &product));
        if let Some(linear) = linear {
            let parameters = doubles(&trainer.read_group(group)?);
            let (count, samples) = (whole.len(), batch.samples as usize);
            let rebuilt = rebuild(trainer, linear, SLOT, &parameters, [count, samples])?;
            let difference = deviation(&rebuilt, &whole);
            worst.features = Some(worst.features.unwrap_or(0.0).max(difference));
        }
    }
    trainer.release(group, Some(SLOT));
    Ok(worst)
}

/// Moves every parameter of a group by some tenths of their size.
fn move_group<M: ModelPlugin>(trainer: &mut Trainer<M>, group: &str) -> PluginResult<()> {
    let mut values = trainer.read_group(group)?;
    let size = root_mean_square(&doubles(&values)).max(0.1);
    let step = |k: usize| 0.3 * size * (2.3 * k as f64 + 0.5).sin();
    match &mut values {
        Flat::F32(parts) => {
            let all = parts.iter_mut().flatten().enumerate();
            all.for_each(|(k, v)| *v += step(k) as f32);
        }
        Flat::F64(parts) => {
            let all = parts.iter_mut().flatten().enumerate();
            all.for_each(|(k, v)| *v += step(k));
        }
    }
    let parts: Vec<&[u8]> = (0..values.count())
        .map(|index| values.bytes(index))
        .collect();
    trainer.write_group(group, &parts.concat())
}

/// `P[r, c] = sum_k phi[r, (c,) k] theta[index[c, k]]`, from features that are fetched in two parts; `count` numbers of `samples`.
fn rebuild<M: ModelPlugin>(
    trainer: &mut Trainer<M>,
    linear: &LinearGroupDescriptor,
    slot: u64,
    parameters: &[f64],
    [count, samples]: [usize; 2],
) -> PluginResult<Vec<f64>> {
    let (blocks, width) = (linear.blocks as usize, linear.width as usize);
    let mut places = linear.index.clone();
    places.sort_unstable();
    if !places.into_iter().eq(0..parameters.len() as u64) || linear.index.len() != blocks * width {
        return Err(PluginError::Other(format!(
            "linear group \"{}\": the index does not name each of {} parameters once",
            linear.group,
            parameters.len()
        )));
    }
    let rows = count / blocks;
    let mut features = Vec::new();
    for part in [0..rows / 3, rows / 3..rows] {
        features.extend(numbers(trainer.features(&linear.group, slot, part)?));
    }
    let stride = if linear.shared { width } else { blocks * width };
    // The voxels of a sample lie side by side, the components of a point do.
    let voxels = if linear.rows == "voxel" {
        rows / samples
    } else {
        1
    };
    let mut rebuilt = vec![0.0; count];
    for row in 0..rows {
        for c in 0..blocks {
            let first = row * stride + if linear.shared { 0 } else { c * width };
            let own = &features[first..first + width];
            let theta = &linear.index[c * width..(c + 1) * width];
            rebuilt[(row / voxels * blocks + c) * voxels + row % voxels] = own
                .iter()
                .zip(theta)
                .map(|(x, &at)| x * parameters[at as usize])
                .sum();
        }
    }
    Ok(rebuilt)
}

fn numbers(x: Tensor<2>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

fn doubles(flat: &Flat) -> Vec<f64> {
    match flat.to_precision(Precision::F64) {
        Flat::F64(parts) => parts.concat(),
        Flat::F32(_) => unreachable!("f64 was asked for"),
    }
}

fn root_mean_square(values: &[f64]) -> f64 {
    (values.iter().map(|x| x * x).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// Infinite for other sizes and for what is no number.
fn deviation(a: &[f64], b: &[f64]) -> f64 {
    let apart = |(a, b): (&f64, &f64)| {
        let difference = (a - b).abs();
        if difference.is_nan() {
            f64::INFINITY
        } else {
            difference
        }
    };
    let largest = a.iter().zip(b).map(apart).fold(0.0, f64::max);
    match (a.len() == b.len(), largest == 0.0) {
        (false, _) => f64::INFINITY,
        (true, true) => 0.0,
        (true, false) => largest / root_mean_square(b),
    }
}
