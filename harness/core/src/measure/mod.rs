//! One measurement: rotate the inputs, predict, un-rotate the outputs, accumulate. The model sees batches only.
//!
//! The model predicts on the calling thread ([`passes`]). Making and rotating the next inputs ([`copies`]), and gathering the last
//! predictions ([`gather`]), happen on two others meanwhile; each works in order, so results do not depend on who is faster. An
//! evaluation is one stream of portions: while the model predicts the last copies of one, the first of the next are made.

mod copies;
mod gather;
mod passes;
mod portion;
#[cfg(test)]
mod tests;

pub use portion::{Checked, Measured, Measurement, Portion, Reading};

use crate::{CoreError, Model, RotationPlan, SampleTerms, Supervised, Task};

/// Splits the loss of every sample of a batch into its twirled and its equivariance part, in one pass of the model for each rotation.
///
/// # Errors
/// Plans that do not fit the batch, a prediction of the wrong size, or what the model reports.
pub fn measure(
    model: &mut dyn Model,
    samples: &Supervised,
    plans: &[RotationPlan],
    how: Measurement,
) -> Result<Vec<SampleTerms>, CoreError> {
    let portion = Portion::new(samples.clone(), plans, how);
    let mut measured = passes::run(model, None, std::iter::once(Ok(portion)), &mut || Ok(()))?;
    Ok(measured.swap_remove(0).readings.swap_remove(0).1)
}

/// Measures one portion after the other; `watch` is asked after each call into the model and may end the measurement. Portions are made
/// on another thread, ahead of the model.
///
/// # Errors
/// As [`measure`], the first portion that could not be made, and whatever `watch` returns.
pub fn measure_stream(
    model: &mut dyn Model,
    task: &dyn Task,
    portions: impl Iterator<Item = Result<Portion, CoreError>> + Send,
    watch: &mut dyn FnMut() -> Result<(), CoreError>,
) -> Result<Vec<Measured>, CoreError> {
    passes::run(model, Some(task), portions, watch)
}
