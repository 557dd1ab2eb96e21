//! The group action: one function over field kinds, for every model and dataset.

use crate::{Batch, CoreError, Field, FieldKind, GridRotation, Rotation, Rows, Values};
use rayon::prelude::*;

/// Writes `T_s x_s` for every sample `s` into `out`, each sample with its own rotation.
///
/// `out` is reused: its buffers are kept when they fit. Rotations act in f64. Grids move by exact index permutation and
/// accept cube rotations only; they may be in single precision.
///
/// # Errors
/// A number of rotations other than the number of samples, a vector field whose last axis is not 3, or a rotation that does
/// not map the grid to itself.
pub fn act(rotations: &[Rotation], batch: &Batch, out: &mut Batch) -> Result<(), CoreError> {
    if rotations.len() != batch.samples() {
        return Err(CoreError::Shape(format!(
            "{} rotations for {} samples",
            rotations.len(),
            batch.samples()
        )));
    }
    out.offsets.clone_from(&batch.offsets);
    out.fields.truncate(batch.fields.len());
    for (index, source) in batch.fields.iter().enumerate() {
        // What rotates is written below; only what stays is copied, as grids are large.
        match out.fields.get_mut(index) {
            Some(target) if source.kind != FieldKind::Invariant && is_alike(source, target) => {
                target.name.clone_from(&source.name)
            }
            Some(target) => target.clone_from(source),
            None => out.fields.push(source.clone()),
        }
        let target = &mut out.fields[index];
        for (sample, rotation) in rotations.iter().enumerate() {
            act_on_sample(rotation, batch, source, target, sample)?;
        }
    }
    Ok(())
}

/// Whether the numbers of one field can take the place of those of the other.
fn is_alike(source: &Field, target: &Field) -> bool {
    let room = match (&source.values, &target.values) {
        (Values::Real(a), Values::Real(b)) => a.len() == b.len(),
        (Values::Single(a), Values::Single(b)) => a.len() == b.len(),
        _ => false,
    };
    room && (source.kind, source.rows, &source.shape) == (target.kind, target.rows, &target.shape)
}

fn act_on_sample(
    rotation: &Rotation,
    batch: &Batch,
    source: &Field,
    target: &mut Field,
    sample: usize,
) -> Result<(), CoreError> {
    if source.kind == FieldKind::Invariant {
        return Ok(());
    }
    let range = element_range(batch, source, sample);
    let rotated = match (&source.values, &mut target.values) {
        (Values::Real(from), Values::Real(to)) => rotate_rows(
            rotation,
            source.kind,
            &source.shape,
            &from[range.clone()],
            &mut to[range],
        ),
        (Values::Single(from), Values::Single(to)) if source.kind == FieldKind::VoxelGrid => {
            permute_grids(
                rotation,
                &source.shape,
                &from[range.clone()],
                &mut to[range],
            )
        }
        (Values::Single(_), _) => Err("only grids rotate in single precision".into()),
        _ => Err("labels cannot rotate".into()),
    };
    rotated.map_err(|why| CoreError::Action {
        field: source.name.clone(),
        why,
    })
}

fn element_range(batch: &Batch, field: &Field, sample: usize) -> std::ops::Range<usize> {
    let rows = batch.rows_of(field.rows, sample);
    rows.start * field.width()..rows.end * field.width()
}

/// Un-rotates the rows of one sample of a prediction, in place.
///
/// `shape` is the shape of the whole prediction, of which `values` holds the rows of the sample.
///
/// # Errors
/// As [`act`].
pub fn act_inverse_on_rows(
    rotation: &Rotation,
    kind: FieldKind,
    shape: &[usize],
    values: &mut [f64],
) -> Result<(), CoreError> {
    let inverse = rotation.inverse();
    let rotated = match kind {
        FieldKind::Invariant => Ok(()),
        // In place: a copy of the rows of a molecule costs as much as rotating them.
        FieldKind::Vector => check_vectors(shape).map(|()| {
            values
                .chunks_exact_mut(3)
                .for_each(|v| rotate_vector(&inverse, v))
        }),
        FieldKind::VoxelGrid => {
            let from = values.to_vec();
            permute_grids(&inverse, shape, &from, values)
        }
    };
    rotated.map_err(|why| CoreError::Action {
        field: "prediction".into(),
        why,
    })
}

fn rotate_vector(rotation: &Rotation, v: &mut [f64]) {
    v.copy_from_slice(&rotation.apply([v[0], v[1], v[2]]));
}

fn check_vectors(shape: &[usize]) -> Result<(), String> {
    if shape.last() == Some(&3) {
        Ok(())
    } else {
        Err(format!(
            "a vector field needs a last axis of 3, its shape is {shape:?}"
        ))
    }
}

fn rotate_rows(
    rotation: &Rotation,
    kind: FieldKind,
    shape: &[usize],
    from: &[f64],
    to: &mut [f64],
) -> Result<(), String> {
    match kind {
        FieldKind::Invariant => to.copy_from_slice(from),
        FieldKind::Vector => {
            check_vectors(shape)?;
            for (v, w) in from.chunks_exact(3).zip(to.chunks_exact_mut(3)) {
                w.copy_from_slice(&rotation.apply([v[0], v[1], v[2]]));
            }
        }
        FieldKind::VoxelGrid => permute_grids(rotation, shape, from, to)?,
    }
    Ok(())
}

/// Moves the content at grid point `p` to `T (p − mid) + mid`.
fn permute_grids<T: Copy + Default + Send + Sync>(
    rotation: &Rotation,
    shape: &[usize],
    from: &[T],
    to: &mut [T],
) -> Result<(), String> {
    let turn = grid_rotation(rotation, shape)?;
    let points = turn.points();
    from.par_chunks_exact(points)
        .zip(to.par_chunks_exact_mut(points))
        .for_each(|(from, to)| turn.rotate(from, to));
    Ok(())
}

/// The rotation of grids of a shape.
pub(crate) fn grid_rotation(rotation: &Rotation, shape: &[usize]) -> Result<GridRotation, String> {
    let [.., nx, ny, nz] = shape else {
        return Err(format!(
            "a voxel grid needs three axes, its shape is {shape:?}"
        ));
    };
    if nx != ny || ny != nz || *nx == 0 {
        return Err(format!(
            "a voxel grid must be a cube, its shape is {shape:?}"
        ));
    }
    GridRotation::new(rotation, *nx)
        .ok_or_else(|| "voxels can be permuted by the rotations of the cube only".into())
}

/// Rows of a prediction that belong to a sample, in elements.
pub(crate) fn prediction_range(
    batch: &Batch,
    rows: Rows,
    width: usize,
    sample: usize,
) -> std::ops::Range<usize> {
    let rows = batch.rows_of(rows, sample);
    rows.start * width..rows.end * width
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FiniteGroup, Seed};
    use proptest::prelude::*;

    fn cloud(points: usize, samples: usize) -> Batch {
        let mut stream = Seed::new(5).stream("cloud");
        let n = points * samples;
        let positions = (0..3 * n)
            .map(|_| crate::seed::uniform(&mut stream) - 0.5)
            .collect();
        let grid = (0..samples * 27)
            .map(|_| crate::seed::uniform(&mut stream))
            .collect();
        Batch {
            offsets: (0..=samples).map(|s| s * points).collect(),
            fields: vec![
                Field::real(
                    "positions",
                    FieldKind::Vector,
                    Rows::Point,
                    vec![n, 3],
                    positions,
                ),
                Field::real(
                    "grid",
                    FieldKind::VoxelGrid,
                    Rows::Sample,
                    vec![samples, 1, 3, 3, 3],
                    grid,
                ),
                Field {
                    name: "species".into(),
                    kind: FieldKind::Invariant,
                    rows: Rows::Point,
                    shape: vec![n],
                    values: Values::Index(vec![1; n]),
                },
            ],
        }
    }

    #[test]
    fn acting_twice_is_acting_with_the_product_on_vectors_and_grids() {
        let cube = FiniteGroup::Octahedral.elements();
        let batch = cloud(4, 2);
        let (mut once, mut twice, mut product) =
            (Batch::default(), Batch::default(), Batch::default());
        for a in &cube {
            for b in &cube {
                act(&[*b, *a], &batch, &mut once).unwrap();
                act(&[*a, *b], &once, &mut twice).unwrap();
                act(&[a.compose(b), b.compose(a)], &batch, &mut product).unwrap();
                assert_eq!(twice, product);
            }
        }
    }

    #[test]
    fn a_grid_turns_as_its_points_do() {
        // One voxel at p must arrive at T(p - mid) + mid.
        let r = Rotation([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]);
        let mut from = vec![0.0; 27];
        from[(2 * 3 + 1) * 3] = 1.0; // p = (2, 1, 0), relative (1, 0, -1) -> (0, 1, -1) -> (1, 2, 0)
        let mut to = vec![0.0; 27];
        permute_grids(&r, &[1, 3, 3, 3], &from, &mut to).unwrap();
        assert_eq!(to.iter().position(|&v| v == 1.0), Some((3 + 2) * 3));
    }

    #[test]
    fn a_rotation_that_is_not_of_the_cube_is_refused_on_grids() {
        let error = act(
            &[Rotation::about([1.0, 1.0, 0.0], 0.3); 2],
            &cloud(4, 2),
            &mut Batch::default(),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("rotations of the cube only"),
            "{error}"
        );
    }

    #[test]
    fn rounded_grids_turn_into_the_rounded_turned_grids_and_rounded_vectors_do_not_turn() {
        let batch = Batch {
            fields: vec![cloud(4, 2).fields[1].clone()],
            ..cloud(4, 2)
        };
        let mut rounded = batch.clone();
        rounded.round_grids(crate::Precision::Single).unwrap();
        let (mut turned, mut turned_rounded) = (Batch::default(), Batch::default());
        for a in FiniteGroup::Octahedral.elements() {
            act(&[a, a.inverse()], &batch, &mut turned).unwrap();
            act(&[a, a.inverse()], &rounded, &mut turned_rounded).unwrap();
            let mut expected = turned.clone();
            expected.round_grids(crate::Precision::Single).unwrap();
            assert_eq!(turned_rounded, expected);
        }
        rounded.fields[0].kind = FieldKind::Vector;
        let error = act(
            &[Rotation::about([1.0, 1.0, 0.0], 0.3); 2],
            &rounded,
            &mut turned,
        )
        .unwrap_err()
        .to_string();
        assert!(
            error.contains("only grids rotate in single precision"),
            "{error}"
        );
    }

    #[test]
    fn rows_are_turned_back_as_a_batch_is_turned_by_the_inverse() {
        let mut stream = Seed::new(6).stream("r");
        let batch = cloud(4, 1);
        let vectors = Batch {
            offsets: batch.offsets.clone(),
            fields: vec![batch.fields[0].clone()],
        };
        let r = Rotation::haar(&mut stream);
        let (mut turned, mut rows) = (
            Batch::default(),
            vectors.fields[0].reals().unwrap().to_vec(),
        );
        act(&[r.inverse()], &vectors, &mut turned).unwrap();
        act_inverse_on_rows(&r, FieldKind::Vector, &[4, 3], &mut rows).unwrap();
        assert_eq!(rows, turned.fields[0].reals().unwrap());
        let before = rows.clone();
        act_inverse_on_rows(&r, FieldKind::Invariant, &[4, 3], &mut rows).unwrap();
        assert_eq!(rows, before);
        let error = act_inverse_on_rows(&r, FieldKind::Vector, &[6, 2], &mut rows).unwrap_err();
        assert!(error.to_string().contains("[6, 2]"), "{error}");
    }

    proptest! {
        #[test]
        fn the_inverse_undoes_a_rotation(seed in 0u64..1000) {
            let r = Rotation::haar(&mut Seed::new(seed).stream("r"));
            let batch = cloud(3, 1);
            let mut out = Batch { fields: vec![], offsets: vec![] };
            let vectors = Batch { offsets: batch.offsets.clone(), fields: vec![batch.fields[0].clone()] };
            act(&[r], &vectors, &mut out).unwrap();
            let mut back = out.fields[0].reals().unwrap().to_vec();
            act_inverse_on_rows(&r, FieldKind::Vector, &[3, 3], &mut back).unwrap();
            for (a, b) in back.iter().zip(vectors.fields[0].reals().unwrap()) {
                // 1e-15: two roundings of numbers below one.
                prop_assert!((a - b).abs() < 1e-15);
            }
        }
    }
}
