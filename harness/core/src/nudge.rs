//! What rounding alone does to predictions: each input nudged by one unit in the last place of the model's precision.

use crate::{Batch, CoreError, Model, Precision, Stream, Values, Weights};
use rand::Rng;

/// Mean square per component of the difference between predictions for a batch and for the nudged batch.
///
/// # Errors
/// What the model reports.
pub fn nudge_power(
    model: &mut dyn Model,
    inputs: &Batch,
    weights: Weights,
    stream: &mut Stream,
) -> Result<f64, CoreError> {
    let nudged = nudged(inputs, model.precision(), stream);
    let (mut here, mut there) = (Vec::new(), Vec::new());
    model.predict_into(inputs, weights, &mut here)?;
    model.predict_into(&nudged, weights, &mut there)?;
    let squares: f64 = here.iter().zip(&there).map(|(a, b)| (a - b).powi(2)).sum();
    Ok(squares / here.len().max(1) as f64)
}

/// The batch with every real number moved up or down by one unit in the last place, drawn.
fn nudged(inputs: &Batch, precision: Precision, stream: &mut Stream) -> Batch {
    let mut batch = inputs.clone();
    for field in &mut batch.fields {
        match &mut field.values {
            Values::Real(values) if precision == Precision::Double => {
                values.iter_mut().for_each(|v| *v = double(*v, up(stream)));
            }
            Values::Real(values) => values
                .iter_mut()
                .for_each(|v| *v = f64::from(single(*v as f32, up(stream)))),
            Values::Single(values) => {
                values.iter_mut().for_each(|v| *v = single(*v, up(stream)));
            }
            Values::Index(_) => {}
        }
    }
    batch
}

fn up(stream: &mut Stream) -> bool {
    stream.next_u32() & 1 == 1
}

fn double(v: f64, up: bool) -> f64 {
    if up { v.next_up() } else { v.next_down() }
}

fn single(v: f32, up: bool) -> f32 {
    if up { v.next_up() } else { v.next_down() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, FieldKind, Rows, Seed};

    #[test]
    fn every_number_moves_by_one_unit_in_the_last_place_and_labels_do_not() {
        let values = vec![1.0, -3.5, 0.0, 1e-30, 7.25, 2.0];
        let batch = Batch {
            offsets: vec![0, 2],
            fields: vec![
                Field::real(
                    "x",
                    FieldKind::Vector,
                    Rows::Point,
                    vec![2, 3],
                    values.clone(),
                ),
                Field {
                    name: "species".into(),
                    kind: FieldKind::Invariant,
                    rows: Rows::Point,
                    shape: vec![2],
                    values: Values::Index(vec![6, 1]),
                },
            ],
        };
        for (precision, epsilon) in [
            (Precision::Double, f64::EPSILON),
            (Precision::Single, f64::from(f32::EPSILON)),
        ] {
            let moved = nudged(&batch, precision, &mut Seed::new(0).stream("nudge"));
            assert_eq!(moved.fields[1], batch.fields[1]);
            for (a, b) in values.iter().zip(moved.fields[0].reals().unwrap()) {
                assert_ne!(a, b);
                assert!((a - b).abs() <= epsilon * a.abs().max(1e-30));
            }
        }
    }
}
