//! What tasks do to clouds of points before they make inputs of them.

use super::TaskRequest;
use crate::{Batch, CoreError, Field, FieldKind, Rotation, Rows, Values};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How training clouds are placed: `task.augmentation` of tasks on clouds of points.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloudAugmentation {
    /// As the dataset has them.
    None,
    /// Turned by a Haar rotation about the mean of the points, drawn anew each time.
    Rotate,
}

impl CloudAugmentation {
    /// Reads the settings of a task that has only this one.
    ///
    /// # Errors
    /// Another key, or a value that is not known.
    pub(super) fn configure(
        task: &str,
        request: &TaskRequest<'_>,
        published: Self,
    ) -> Result<Self, CoreError> {
        let bad = |what: String| CoreError::Setting {
            task: task.into(),
            what,
        };
        let mut chosen = published;
        for (key, value) in request.settings {
            if key != "augmentation" {
                return Err(bad(format!(
                    "task.{key} is not known: this task has the setting augmentation"
                )));
            }
            chosen = serde_json::from_value(value.clone()).map_err(|_| {
                bad(format!(
                    "task.augmentation = {value} is not known; use \"none\" or \"rotate\""
                ))
            })?;
        }
        Ok(chosen)
    }

    /// As it stands in manifests.
    pub(super) fn settings(self) -> Map<String, Value> {
        let value = serde_json::to_value(self).unwrap_or_default();
        Map::from_iter([("augmentation".to_owned(), value)])
    }
}

/// Turns the points of one sample about their mean, and the vectors that belong to them.
pub(super) fn turn_sample(
    batch: &mut Batch,
    sample: usize,
    vectors: &mut Field,
    rotation: &Rotation,
) -> Result<(), CoreError> {
    let range = 3 * batch.offsets[sample]..3 * batch.offsets[sample + 1];
    let positions = batch.fields.iter_mut().find(|f| f.name == "positions");
    if let Some(Values::Real(positions)) = positions.map(|field| &mut field.values) {
        let cloud = &mut positions[range.clone()];
        let before: Vec<f64> = cloud.to_vec();
        centre(cloud);
        let mean: Vec<f64> = before
            .iter()
            .zip(&*cloud)
            .take(3)
            .map(|(x, c)| x - c)
            .collect();
        turn(cloud, rotation);
        cloud
            .iter_mut()
            .zip(mean.iter().cycle())
            .for_each(|(x, m)| *x += m);
    }
    match &mut vectors.values {
        Values::Real(values) => turn(&mut values[range], rotation),
        _ => vectors.reals().map(drop)?,
    }
    Ok(())
}

/// Subtracts the mean of the points.
pub(super) fn centre(cloud: &mut [f64]) {
    let points = (cloud.len() / 3).max(1) as f64;
    for axis in 0..3 {
        let mean = cloud.iter().skip(axis).step_by(3).sum::<f64>() / points;
        cloud
            .iter_mut()
            .skip(axis)
            .step_by(3)
            .for_each(|x| *x -= mean);
    }
}

/// Turns every point about the origin.
pub(super) fn turn(cloud: &mut [f64], rotation: &Rotation) {
    for point in cloud.chunks_exact_mut(3) {
        let turned = rotation.apply([point[0], point[1], point[2]]);
        point.copy_from_slice(&turned);
    }
}

/// Refuses a field that does not hold one vector for each point.
pub(super) fn check_vectors(field: &Field, task: &str) -> Result<(), CoreError> {
    if field.rows == Rows::Point && field.kind == FieldKind::Vector && field.width() == 3 {
        return Ok(());
    }
    let what = format!(
        "field \"{}\" has shape {:?}; {task} needs vectors [points, 3]",
        field.name, field.shape
    );
    Err(CoreError::Shape(what))
}
