//! A batch as plain numbers on the host, checked, and where its tensors go.

use crate::bins::Cloud;
use burn::tensor::{Device, Tensor};
use equivbench_plugin::{Batch, PluginError, PluginResult, Precision};

/// Everything that the network reads, in f64.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    /// `[chains + 1]`: chain `k` owns the residues `offsets[k]..offsets[k + 1]`.
    pub(crate) offsets: Vec<usize>,
    /// `[residues, 3]`, nm.
    pub(crate) positions: Vec<f64>,
    /// `[chains]`, 0 (noise) to 1 (data).
    pub(crate) flow_time: Vec<f64>,
    /// `[residues]` author numbers.
    pub(crate) residue_index: Vec<i64>,
    /// `[residues]`: whether the next residue is too far away to be bonded.
    pub(crate) chain_break: Vec<bool>,
    /// `[residues, 3]`, nm: an estimate of the clean cloud.
    pub(crate) self_conditioning: Option<Vec<f64>>,
    /// Where tensors go.
    pub(crate) site: Site,
}

/// The inputs that rotate, on the device, nm.
#[derive(Clone, Debug)]
pub(crate) struct Cartesian {
    /// `[residues, 3]`.
    pub(crate) positions: Tensor<2>,
    /// `[residues, 3]`.
    pub(crate) self_conditioning: Option<Tensor<2>>,
}

/// A device and the precision of its numbers.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) device: Device,
    pub(crate) precision: Precision,
}

impl Site {
    /// Puts numbers on the device.
    pub(crate) fn upload<const D: usize>(&self, values: Vec<f64>, shape: [usize; D]) -> Tensor<D> {
        self.precision.upload(values, shape, &self.device)
    }

    /// Puts numbers on the device as a loss compares them: not in 16 bits.
    pub(crate) fn upload_in_full<const D: usize>(
        &self,
        values: Vec<f64>,
        shape: [usize; D],
    ) -> Tensor<D> {
        self.precision.full().upload(values, shape, &self.device)
    }

    /// A prediction as a loss compares it.
    pub(crate) fn in_full(&self, prediction: Tensor<2>) -> Tensor<2> {
        if self.precision.full() == self.precision {
            prediction
        } else {
            prediction.cast(self.precision.full().dtype())
        }
    }
}

impl Inputs {
    /// Reads a batch.
    ///
    /// # Errors
    /// Missing fields, other shapes, numbers that are not finite, flow times outside [0, 1], chain breaks other than 0 and 1, empty
    /// chains.
    pub(crate) fn read(batch: &Batch<'_>) -> PluginResult<Self> {
        let offsets = batch.offsets().to_vec();
        if let Some(empty) = offsets.windows(2).position(|w| w[0] == w[1]) {
            return Err(PluginError::BadRequest(format!(
                "proteina: sample {empty} of the batch has no residues"
            )));
        }
        let self_conditioning = batch
            .has("self_conditioning")
            .then(|| cloud(batch, "self_conditioning"))
            .transpose()?;
        Ok(Self {
            positions: cloud(batch, "positions")?,
            flow_time: flow_time(batch)?,
            residue_index: one_each(batch, "residue_index")?,
            chain_break: chain_break(batch)?,
            self_conditioning,
            offsets,
            site: Site {
                device: batch.device().clone(),
                precision: batch.precision(),
            },
        })
    }

    /// The numbers that rotate.
    pub(crate) fn cartesian(&self) -> Cartesian {
        let upload = |points: &Vec<f64>| self.site.upload(points.clone(), [points.len() / 3, 3]);
        Cartesian {
            positions: upload(&self.positions),
            self_conditioning: self.self_conditioning.as_ref().map(upload),
        }
    }

    /// The estimate of the clean cloud, where there is one.
    pub(crate) fn estimate(&self) -> Option<Cloud<'_>> {
        self.self_conditioning
            .as_ref()
            .map(|points| Cloud::new(points, self.site.precision))
    }

    /// The velocities of a batch in training, `[residues, 3]`, nm.
    pub(crate) fn target(batch: &Batch<'_>) -> PluginResult<Vec<f64>> {
        cloud(batch, "target")
    }

    /// `x_t + (1 - t) v`: the clean cloud that velocities `[residues, 3]` mean.
    pub(crate) fn clean(&self, velocity: &[f64]) -> Vec<f64> {
        let remaining = self
            .flow_time
            .iter()
            .zip(self.offsets.windows(2))
            .flat_map(|(t, w)| std::iter::repeat_n(1.0 - t, 3 * (w[1] - w[0])));
        self.positions
            .iter()
            .zip(velocity)
            .zip(remaining)
            .map(|((x, v), remaining)| x + remaining * v)
            .collect()
    }
}

/// Vectors of residues, `[residues, 3]`.
fn cloud(batch: &Batch<'_>, name: &str) -> PluginResult<Vec<f64>> {
    let shape = batch.shape(name)?;
    if shape != [batch.points(), 3] {
        return Err(PluginError::BadRequest(format!(
            "proteina: field \"{name}\" has shape {shape:?}, [residues, 3] was expected"
        )));
    }
    let values = batch.floats(name)?;
    match values.iter().position(|x| !x.is_finite()) {
        None => Ok(values),
        Some(at) => Err(PluginError::BadData(format!(
            "proteina: field \"{name}\" is not finite at residue {} of the batch",
            at / 3
        ))),
    }
}

fn flow_time(batch: &Batch<'_>) -> PluginResult<Vec<f64>> {
    let times = batch.floats("flow_time")?;
    if times.len() != batch.samples() {
        let (count, samples) = (times.len(), batch.samples());
        return Err(PluginError::BadRequest(format!(
            "proteina: field \"flow_time\" has {count} numbers for {samples} samples"
        )));
    }
    match times.iter().position(|t| !(0.0..=1.0).contains(t)) {
        None => Ok(times),
        Some(at) => Err(PluginError::BadData(format!(
            "proteina: the flow time of sample {at} is {}, it must lie in [0, 1]",
            times[at]
        ))),
    }
}

/// One integer for each residue.
fn one_each(batch: &Batch<'_>, name: &str) -> PluginResult<Vec<i64>> {
    let values = batch.ints(name)?;
    if values.len() == batch.points() {
        return Ok(values);
    }
    let shape = batch.shape(name)?;
    Err(PluginError::BadRequest(format!(
        "proteina: field \"{name}\" has shape {shape:?}, [residues] was expected"
    )))
}

fn chain_break(batch: &Batch<'_>) -> PluginResult<Vec<bool>> {
    let read = |(residue, value): (usize, i64)| match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(PluginError::BadData(format!(
            "proteina: the chain break of residue {residue} of the batch is {value}, it must be 0 or 1"
        ))),
    };
    one_each(batch, "chain_break")?
        .into_iter()
        .enumerate()
        .map(read)
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Chains of 4, 4 and 2 residues at two flow times.
    pub(crate) fn three_chains() -> Inputs {
        Inputs {
            offsets: vec![0, 4, 8, 10],
            flow_time: vec![0.25, 0.5, 0.25],
            residue_index: vec![3, 4, 5, 9, -2, -1, 0, 1, 7, 8],
            chain_break: vec![
                false, false, true, false, false, false, false, false, false, false,
            ],
            self_conditioning: None,
            site: Site {
                device: Device::flex(),
                precision: Precision::F64,
            },
            positions: (0..30).map(|k| (f64::from(k) * 0.37).sin() * 1.5).collect(),
        }
    }
}
