//! Atoms to force vectors.

use super::{Preparation, Supervised, Task};
use crate::{Batch, CoreError, Field, Values};

/// Inputs: `positions [atoms, 3]`, `species [atoms]`. Target: `forces [atoms, 3]`, divided by the dataset's force scale; label:
/// `energy [samples]`, normalised.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForceField;

impl Task for ForceField {
    fn name(&self) -> &'static str {
        "force-field"
    }

    fn prepare(&self, mut raw: Batch, how: &Preparation<'_>) -> Result<Supervised, CoreError> {
        raw.check_finite()?;
        let mut target = normalised(raw.take("forces")?, (how.normaliser)("forces"))?;
        target.name = "target".into();
        let labels = match raw.take("energy") {
            Ok(energy) => vec![normalised(energy, (how.normaliser)("energy"))?],
            Err(_) => Vec::new(),
        };
        raw.field("positions")?;
        raw.field("species")?;
        Ok(Supervised {
            inputs: raw,
            target: Some(target),
            labels,
        })
    }
}

/// `(value − mean) / scale`.
fn normalised(mut field: Field, normaliser: Option<(f64, f64)>) -> Result<Field, CoreError> {
    let (mean, scale) = normaliser.unwrap_or((0.0, 1.0));
    if !(scale.is_finite() && scale > 0.0 && mean.is_finite()) {
        return Err(CoreError::NotFinite(format!(
            "the normaliser of \"{}\" is ({mean}, {scale})",
            field.name
        )));
    }
    if let Values::Real(values) = &mut field.values {
        values.iter_mut().for_each(|v| *v = (*v - mean) / scale);
    }
    Ok(field)
}
