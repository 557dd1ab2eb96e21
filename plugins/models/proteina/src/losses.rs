//! The training losses: velocities, weighted towards the clean cloud, and the distogram.

use crate::{
    ProteinaConfig,
    bins::{Boundaries, Cloud},
    inputs::Inputs,
};
use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};

/// How the squared error of the velocities of a chain is weighted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weighting {
    /// All flow times alike.
    Velocity,
    /// The squared error of the clean cloud over `(1 - t)² + 1e-5`: the same, except very close to `t = 1`.
    FlowMatching,
}

impl Weighting {
    fn factor(self, t: f64) -> f64 {
        let square = (1.0 - t).powi(2);
        match self {
            Self::Velocity => 1.0,
            Self::FlowMatching => square / (square + 1e-5),
        }
    }
}

/// The mean over chains of `factor · mean |u - v|²`, the latter over residues and components; `velocity` and `target [residues, 3]`.
pub(crate) fn velocity_loss(
    velocity: Tensor<2>,
    target: &[f64],
    inputs: &Inputs,
    weighting: Weighting,
) -> Tensor<1> {
    let chains = inputs.flow_time.len() as f64;
    let weights = inputs
        .flow_time
        .iter()
        .zip(inputs.offsets.windows(2))
        .flat_map(|(&t, w)| {
            let n = w[1] - w[0];
            std::iter::repeat_n(weighting.factor(t) / (chains * 3.0 * n as f64), n)
        });
    let rows = velocity.dims()[0];
    let weights = inputs.site.upload_in_full(weights.collect(), [rows, 1]);
    let target = inputs.site.upload_in_full(target.to_vec(), [rows, 3]);
    ((inputs.site.in_full(velocity) - target).square() * weights).sum()
}

/// The mean over chains of the cross entropy of the classes of distances in the clean cloud `[residues, 3]`, for flow times above the
/// configured one; `logits [pairs of residues, classes]`.
pub(crate) fn distogram_loss(
    logits: Tensor<2>,
    clean: &[f64],
    inputs: &Inputs,
    config: &ProteinaConfig,
) -> Tensor<1> {
    let boundaries = Boundaries::new(
        0.0,
        config.distogram_to_nm,
        config.distogram_bins,
        inputs.site.precision,
    );
    let chains = inputs.flow_time.len() as f64;
    let rows = logits.dims()[0];
    let (mut classes, mut weights) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
    for (&t, w) in inputs.flow_time.iter().zip(inputs.offsets.windows(2)) {
        let n = w[1] - w[0];
        let cloud = Cloud::new(&clean[3 * w[0]..3 * w[1]], inputs.site.precision);
        classes.extend(
            (0..n * n).map(|pair| boundaries.class(cloud.distance(pair / n, pair % n)) as i64),
        );
        let counts = f64::from(u8::from(t > config.distogram_after));
        weights.extend(std::iter::repeat_n(
            counts / (chains * ((n * n) as f64 + 1e-10)),
            n * n,
        ));
    }
    let classes = Tensor::<2, Int>::from_data(
        TensorData::new(classes, [rows, 1]),
        &logits.device().inner(),
    );
    let weights = inputs.site.upload_in_full(weights, [rows, 1]);
    (log_softmax(inputs.site.in_full(logits), 1).gather(1, classes) * weights)
        .sum()
        .neg()
}
