//! The best predictor that knows nothing: what a task compares skill with. Its coefficients come from training data, its loss is that of
//! the measured samples with their own noise.
//!
//! Every baseline commutes with rotations, so it has no equivariance error of its own.

use super::Supervised;
use crate::{CoreError, PointLoss};

/// A predictor without structure.
pub trait Baseline: Send + Sync {
    /// One line for manifests: what it predicts, with its coefficients.
    fn about(&self) -> String;

    /// Predicts in the frame of the inputs: as many numbers as the target has.
    ///
    /// # Errors
    /// Inputs of another task.
    fn predict(&self, samples: &Supervised) -> Result<Vec<f64>, CoreError>;
}

/// Samples prepared from training data, one batch after the other, for as long as a task asks for them.
pub type Examples<'a> = dyn Iterator<Item = Result<Supervised, CoreError>> + 'a;

/// Predicts nothing: the best where no constant commutes with rotations.
pub(super) struct Nothing;

impl Baseline for Nothing {
    fn about(&self) -> String {
        "predicts nothing".into()
    }

    fn predict(&self, samples: &Supervised) -> Result<Vec<f64>, CoreError> {
        Ok(vec![0.0; samples.target_values()?.len()])
    }
}

/// The loss of a baseline, summed over the components of each sample (over rows for the loss `l2`).
///
/// # Errors
/// A prediction that does not fit the target.
pub fn baseline_sums(
    baseline: &dyn Baseline,
    samples: &Supervised,
    loss: PointLoss,
) -> Result<Vec<f64>, CoreError> {
    let (prediction, target) = (baseline.predict(samples)?, samples.target_values()?);
    if prediction.len() != target.len() {
        return Err(CoreError::Shape(format!(
            "a baseline predicts {} numbers for {} of the target",
            prediction.len(),
            target.len()
        )));
    }
    let Some(field) = &samples.target else {
        return Ok(Vec::new());
    };
    let width = field.width();
    let of = |sample: usize| {
        let rows = samples.inputs.rows_of(field.rows, sample);
        let own = rows.start * width..rows.end * width;
        loss.sum(&prediction[own.clone()], &target[own], width)
    };
    Ok((0..samples.inputs.samples()).map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, Field, FieldKind, Rows};

    #[test]
    fn sums_are_those_of_each_sample() {
        let target = vec![1.0, 2.0, 2.0, 0.0, 3.0, 4.0, -1.0, 0.0, 0.0];
        let field = Field::real("target", FieldKind::Vector, Rows::Point, vec![3, 3], target);
        let samples = Supervised {
            inputs: Batch {
                offsets: vec![0, 2, 3],
                fields: Vec::new(),
            },
            target: Some(field),
            labels: Vec::new(),
        };
        let of = |loss| baseline_sums(&Nothing, &samples, loss).unwrap();
        assert_eq!(of(PointLoss::Mse), [34.0, 1.0]);
        assert_eq!(of(PointLoss::Mae), [12.0, 1.0]);
        assert_eq!(of(PointLoss::L2), [8.0, 1.0]);
    }
}
