//! Atoms to force vectors.

use super::{
    CloudAugmentation, Occasion, Preparation, Supervised, Task, TaskRequest,
    cloud::{check_vectors, turn_sample},
};
use crate::{Batch, CoreError, Field, Rotation, Values};
use serde_json::{Map, Value};

/// Inputs: `positions [atoms, 3]`, `species [atoms]`. Target: `forces [atoms, 3]`, divided by the dataset's force scale; label:
/// `energy [samples]`, normalised.
///
/// Training molecules are as the dataset has them unless `task.augmentation = "rotate"`. The best predictor that knows nothing predicts
/// nothing, since no constant vector commutes with rotations.
#[derive(Clone, Copy, Debug)]
pub struct ForceField {
    augmentation: CloudAugmentation,
}

const NAME: &str = "force-field";

impl Default for ForceField {
    fn default() -> Self {
        Self {
            augmentation: CloudAugmentation::None,
        }
    }
}

impl ForceField {
    /// Reads the settings.
    ///
    /// # Errors
    /// An unknown key or value.
    pub fn configure(request: &TaskRequest<'_>) -> Result<Self, CoreError> {
        let published = Self::default().augmentation;
        let augmentation = CloudAugmentation::configure(NAME, request, published)?;
        Ok(Self { augmentation })
    }
}

impl Task for ForceField {
    fn name(&self) -> &'static str {
        NAME
    }

    fn settings(&self) -> Map<String, Value> {
        self.augmentation.settings()
    }

    fn prepare(&self, mut raw: Batch, how: &Preparation<'_>) -> Result<Supervised, CoreError> {
        raw.check_finite()?;
        let mut target = normalised(raw.take("forces")?, (how.normaliser)("forces"))?;
        target.name = "target".into();
        let labels = match raw.take("energy") {
            Ok(energy) => vec![normalised(energy, (how.normaliser)("energy"))?],
            Err(_) => Vec::new(),
        };
        check_vectors(raw.field("positions")?, NAME)?;
        raw.field("species")?;
        let rotates = self.augmentation == CloudAugmentation::Rotate;
        if rotates && how.occasion == Occasion::Training {
            check_vectors(&target, NAME)?;
            for sample in 0..raw.samples() {
                let rotation = Rotation::haar(&mut (how.stream)(sample));
                turn_sample(&mut raw, sample, &mut target, &rotation)?;
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldKind, Rows, Seed};
    use serde_json::json;

    fn configured(settings: Value) -> Result<ForceField, CoreError> {
        let Value::Object(settings) = settings else {
            panic!("settings are an object")
        };
        ForceField::configure(&TaskRequest {
            settings: &settings,
            input_width: &|_| None,
        })
    }

    /// Two molecules; the force on an atom is its distance vector from the mean of its molecule.
    fn molecules() -> Batch {
        let positions: Vec<f64> = (0..15).map(|i| (f64::from(i) * 1.3).sin() + 4.0).collect();
        let mut forces = positions.clone();
        super::super::cloud::centre(&mut forces[..6]);
        super::super::cloud::centre(&mut forces[6..]);
        let cloud = |name: &str, values| {
            Field::real(name, FieldKind::Vector, Rows::Point, vec![5, 3], values)
        };
        let species = Field {
            name: "species".into(),
            kind: FieldKind::Invariant,
            rows: Rows::Point,
            shape: vec![5],
            values: Values::Index(vec![6, 1, 8, 1, 1]),
        };
        Batch {
            offsets: vec![0, 2, 5],
            fields: vec![
                cloud("positions", positions),
                species,
                cloud("forces", forces),
            ],
        }
    }

    fn prepared(task: ForceField, occasion: Occasion<'_>) -> Supervised {
        let stream = |sample: usize| Seed::new(1).indexed_stream("test", sample as u64);
        let how = Preparation {
            occasion,
            normaliser: &|_| None,
            stream: &stream,
        };
        task.prepare(molecules(), &how).unwrap()
    }

    #[test]
    fn a_rotated_molecule_keeps_its_mean_its_distances_and_what_its_forces_mean() {
        let rotating = configured(json!({"augmentation": "rotate"})).unwrap();
        let turned = prepared(rotating, Occasion::Training);
        let plain = molecules();
        let (x, f) = (
            turned.inputs.field("positions").unwrap().reals().unwrap(),
            turned.target_values().unwrap(),
        );
        let before = plain.fields[0].reals().unwrap();
        assert!((x[0] - before[0]).abs() > 1e-3, "it was not turned");
        for range in [0..6, 6..15] {
            let (mut now, mut then) = (x[range.clone()].to_vec(), before[range.clone()].to_vec());
            let mean = |v: &[f64]| v.iter().step_by(3).sum::<f64>() / (v.len() / 3) as f64;
            // Sums of numbers of order four.
            assert!((mean(&now) - mean(&then)).abs() < 1e-14);
            super::super::cloud::centre(&mut now);
            super::super::cloud::centre(&mut then);
            // The forces turned with the molecule: they still are the vectors from the mean.
            for (x, f) in now.iter().zip(&f[range]) {
                assert!((x - f).abs() < 1e-14);
            }
            let square = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>();
            assert!((square(&now) / square(&then) - 1.0).abs() < 1e-13);
        }
    }

    #[test]
    fn measured_molecules_and_those_of_a_run_without_augmentation_are_as_the_dataset_has_them() {
        let rotating = configured(json!({"augmentation": "rotate"})).unwrap();
        let condition = crate::Condition::default();
        for (task, occasion) in [
            (rotating, Occasion::Measurement(&condition)),
            (ForceField::default(), Occasion::Training),
        ] {
            let supervised = prepared(task, occasion);
            let positions = supervised.inputs.field("positions").unwrap();
            assert_eq!(positions, &molecules().fields[0]);
        }
    }

    #[test]
    fn settings_are_checked() {
        for (settings, said) in [
            (
                json!({"augmentation": "cube"}),
                "use \"none\" or \"rotate\"",
            ),
            (json!({"sigma": 1.0}), "task.sigma is not known"),
        ] {
            let error = configured(settings).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        let shown = ForceField::default().settings();
        assert_eq!(shown["augmentation"], json!("none"));
    }
}
