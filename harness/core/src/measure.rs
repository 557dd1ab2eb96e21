//! One measurement: rotate the inputs, predict, un-rotate the outputs, accumulate. The model sees batches only.

use crate::{
    Batch, CoreError, Estimator, Model, PointLoss, Rotation, RotationPlan, SampleTerms, Supervised, TwirlAccumulator, Weights,
    action::{act, act_inverse_on_rows, prediction_range},
};

/// How a batch is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Raw or averaged weights.
    pub weights: Weights,
    /// The loss that is split.
    pub loss: PointLoss,
    /// Plug-in or unbiased.
    pub estimator: Estimator,
}

/// Splits the loss of every sample of a batch into its twirled and its equivariance part.
///
/// `plans` holds the rotations of each sample; all plans have the same length. Pass `i` rotates every sample by its own `i`-th
/// rotation, so a measurement is one prediction of the whole batch for each rotation.
///
/// # Errors
/// Plans that do not fit the batch, a prediction of the wrong size, or what the model reports.
pub fn measure(
    model: &mut dyn Model,
    samples: &Supervised,
    plans: &[RotationPlan],
    how: Measurement,
) -> Result<Vec<SampleTerms>, CoreError> {
    let inputs = &samples.inputs;
    let passes = equal_lengths(plans, inputs)?;
    let (kind, rows, width) = (model.output_kind(), model.output_rows(), model.output_width(inputs));
    let target = samples.target_values()?;
    let range = |sample: usize| prediction_range(inputs, rows, width, sample);
    let mut twirls: Vec<TwirlAccumulator> =
        (0..inputs.samples()).map(|s| TwirlAccumulator::new(target[range(s)].to_vec(), width, plans[s].cosets, how.loss)).collect();
    let shape = samples.target.as_ref().map(|t| t.shape.clone()).unwrap_or_default();
    let (mut rotated, mut prediction) = (Batch::default(), Vec::new());
    for pass in 0..passes {
        let rotations: Vec<Rotation> = plans.iter().map(|p| p.rotations[pass]).collect();
        act(&rotations, inputs, &mut rotated)?;
        model.predict_into(&rotated, how.weights, &mut prediction)?;
        if prediction.len() != target.len() {
            return Err(CoreError::Shape(format!("the model predicts {} numbers, the target has {}", prediction.len(), target.len())));
        }
        for (sample, twirl) in twirls.iter_mut().enumerate() {
            let values = &mut prediction[range(sample)];
            act_inverse_on_rows(&rotations[sample], kind, &shape, values)?;
            twirl.push(plans[sample].coset_of(pass), values);
        }
    }
    Ok(twirls.iter().map(|t| t.finish(how.estimator)).collect())
}

fn equal_lengths(plans: &[RotationPlan], inputs: &Batch) -> Result<usize, CoreError> {
    let passes = plans.first().map_or(0, |p| p.rotations.len());
    if plans.len() != inputs.samples() || passes == 0 || plans.iter().any(|p| p.rotations.len() != passes) {
        return Err(CoreError::Shape(format!("{} rotation plans for {} samples", plans.len(), inputs.samples())));
    }
    Ok(passes)
}
