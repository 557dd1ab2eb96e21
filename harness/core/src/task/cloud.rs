//! What tasks do to clouds of points before they make inputs of them.

use crate::{CoreError, Field, FieldKind, Rotation, Rows};

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
