//! Tasks: how samples become inputs and targets. One file, one slice that lists them.

use crate::{Batch, CoreError, Field, Stream, Values};

/// Samples made ready for a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Supervised {
    /// What the model may see.
    pub inputs: Batch,
    /// What it should predict, in the frame of the inputs, named `target`.
    pub target: Option<Field>,
    /// Further labels a training loss may use.
    pub labels: Vec<Field>,
}

impl Supervised {
    /// Inputs, target and labels together, for an optimiser step.
    #[must_use]
    pub fn training_batch(&self) -> Batch {
        let mut batch = self.inputs.clone();
        batch.fields.extend(self.target.clone());
        batch.fields.extend(self.labels.iter().cloned());
        batch
    }

    /// The target's numbers.
    ///
    /// # Errors
    /// A task that gave none.
    pub fn target_values(&self) -> Result<&[f64], CoreError> {
        self.target.as_ref().ok_or_else(|| CoreError::Shape("the task made no target".into()))?.reals()
    }
}

/// A learning task.
pub trait Task: Send + Sync {
    /// Name in suites, descriptors and tables.
    fn name(&self) -> &'static str;
    /// The target's name in the dataset.
    fn target_field(&self) -> &'static str;
    /// Turns raw samples into inputs and target; `normaliser` gives `(mean, scale)` of a field. Whatever is random comes from
    /// `stream`.
    ///
    /// # Errors
    /// A missing field, or numbers that are not finite.
    fn prepare(&self, raw: Batch, normaliser: &dyn Fn(&str) -> Option<(f64, f64)>, stream: &mut Stream) -> Result<Supervised, CoreError>;
}

/// All tasks.
const TASKS: &[&dyn Task] = &[&ForceField];

/// The task of a name.
///
/// # Errors
/// An unknown name.
pub fn task_by_name(name: &str) -> Result<&'static dyn Task, CoreError> {
    TASKS.iter().copied().find(|t| t.name() == name).ok_or_else(|| CoreError::Unknown {
        what: "task",
        name: name.into(),
        known: TASKS.iter().map(|t| t.name()).collect::<Vec<_>>().join(", "),
    })
}

/// Atoms to force vectors. Inputs: `positions [atoms, 3]`, `species [atoms]`. Target: `forces [atoms, 3]`, divided by the
/// dataset's force scale; label: `energy [samples]`, normalised.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForceField;

impl Task for ForceField {
    fn name(&self) -> &'static str {
        "force-field"
    }

    fn target_field(&self) -> &'static str {
        "forces"
    }

    fn prepare(
        &self,
        mut raw: Batch,
        normaliser: &dyn Fn(&str) -> Option<(f64, f64)>,
        _stream: &mut Stream,
    ) -> Result<Supervised, CoreError> {
        raw.check_finite()?;
        let mut target = normalised(raw.take("forces")?, normaliser("forces"))?;
        target.name = "target".into();
        let labels = match raw.take("energy") {
            Ok(energy) => vec![normalised(energy, normaliser("energy"))?],
            Err(_) => Vec::new(),
        };
        raw.field("positions")?;
        raw.field("species")?;
        Ok(Supervised { inputs: raw, target: Some(target), labels })
    }
}

/// `(value − mean) / scale`.
fn normalised(mut field: Field, normaliser: Option<(f64, f64)>) -> Result<Field, CoreError> {
    let (mean, scale) = normaliser.unwrap_or((0.0, 1.0));
    if !(scale.is_finite() && scale > 0.0 && mean.is_finite()) {
        return Err(CoreError::NotFinite(format!("the normaliser of \"{}\" is ({mean}, {scale})", field.name)));
    }
    if let Values::Real(values) = &mut field.values {
        values.iter_mut().for_each(|v| *v = (*v - mean) / scale);
    }
    Ok(field)
}
