//! Toy batches from a model's own description of its inputs: a few molecule-like samples of different sizes.

use equivbench_abi::descriptor::{FieldDescriptor, ModelDescriptor};
use equivbench_core::{Batch, Field, FieldKind, Rows, Seed, Stream, Values};
use rand::Rng;

/// Points in each sample: neighbours differ, so that offsets that are mixed up show.
const SIZES: [usize; 4] = [3, 5, 2, 4];
/// Hydrogen, carbon, nitrogen and oxygen: every model of molecules knows them.
const SPECIES: [i64; 4] = [6, 1, 8, 7];
/// Edge of a grid whose descriptor leaves it open.
const GRID: usize = 8;

/// A batch with inputs and the field `target`.
pub(crate) struct Toy {
    /// What a model may see.
    pub(crate) inputs: Batch,
    /// Inputs and target, for an optimiser step.
    pub(crate) training: Batch,
}

impl Toy {
    /// The toy of a model; another number gives another toy.
    pub(crate) fn of(model: &ModelDescriptor, number: u64) -> Self {
        let mut stream = Seed::new(number).stream("conformance");
        let mut offsets = vec![0];
        SIZES
            .iter()
            .for_each(|n| offsets.push(offsets[offsets.len() - 1] + n));
        let fields = model
            .inputs
            .iter()
            .map(|d| input(d, &offsets, &mut stream))
            .collect();
        let inputs = Batch { offsets, fields };
        let mut training = inputs.clone();
        training
            .fields
            .push(target(&model.output, &inputs, &mut stream));
        Self { inputs, training }
    }
}

/// A number from [0, 1).
pub(crate) fn uniform(stream: &mut Stream) -> f64 {
    (stream.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// A number from the standard normal distribution (Box and Muller).
pub(crate) fn normal(stream: &mut Stream) -> f64 {
    let radius = (-2.0 * (1.0 - uniform(stream)).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(stream)).cos()
}

fn kind(name: &str) -> FieldKind {
    match name {
        "vector" => FieldKind::Vector,
        "voxel-grid" => FieldKind::VoxelGrid,
        _ => FieldKind::Invariant,
    }
}

fn rows(name: &str) -> Rows {
    if name == "sample" {
        Rows::Sample
    } else {
        Rows::Point
    }
}

fn shape(descriptor: &FieldDescriptor, offsets: &[usize]) -> Vec<usize> {
    let count = match rows(&descriptor.rows) {
        Rows::Sample => offsets.len() - 1,
        Rows::Point => offsets[offsets.len() - 1],
    };
    let width = descriptor
        .width
        .iter()
        .map(|&n| if n == 0 { GRID } else { n as usize });
    std::iter::once(count).chain(width).collect()
}

fn input(descriptor: &FieldDescriptor, offsets: &[usize], stream: &mut Stream) -> Field {
    let (kind, rows, shape) = (
        kind(&descriptor.kind),
        rows(&descriptor.rows),
        shape(descriptor, offsets),
    );
    let count: usize = shape.iter().product();
    let values = if descriptor.element == "i64" {
        Values::Index(labels(descriptor, offsets, shape[0], count))
    } else if kind == FieldKind::Vector
        && rows == Rows::Point
        && descriptor.name.contains("position")
        && shape[1..] == [3]
    {
        Values::Real(molecules(offsets, stream))
    } else if kind == FieldKind::Invariant
        && ["time", "flow_time", "t", "noise", "sigma"].contains(&descriptor.name.as_str())
    {
        Values::Real((0..count).map(|_| 0.1 + 0.8 * uniform(stream)).collect())
    } else if kind == FieldKind::VoxelGrid {
        Values::Real((0..count).map(|_| uniform(stream)).collect())
    } else {
        Values::Real((0..count).map(|_| normal(stream)).collect())
    };
    Field {
        name: descriptor.name.clone(),
        kind,
        rows,
        shape,
        values,
    }
}

/// Species for species, positions in the sample for indices, small numbers for anything else.
fn labels(descriptor: &FieldDescriptor, offsets: &[usize], rows: usize, count: usize) -> Vec<i64> {
    let place = |row: usize| {
        let first = offsets
            .iter()
            .rev()
            .find(|&&o| o <= row)
            .copied()
            .unwrap_or(0);
        (row - first) as i64
    };
    let label = |row: usize| match descriptor.name.as_str() {
        "species" => SPECIES[row % SPECIES.len()],
        name if name.contains("index") => place(row),
        "chain_break" => (row % 2) as i64,
        _ => (row % 4) as i64,
    };
    let width = count / rows.max(1);
    (0..count).map(|at| label(at / width.max(1))).collect()
}

/// Each point lies 1.0 to 1.6 from some earlier point of its sample and at least 0.9 from all. Centres lie near the origin, but not
/// on it: a mean over the batch must not vanish by construction.
fn molecules(offsets: &[usize], stream: &mut Stream) -> Vec<f64> {
    offsets
        .windows(2)
        .flat_map(|pair| molecule(pair[1] - pair[0], stream))
        .flatten()
        .collect()
}

fn molecule(points: usize, stream: &mut Stream) -> Vec<[f64; 3]> {
    let mut found: Vec<[f64; 3]> = vec![[0.0; 3]];
    while found.len() < points {
        let from = found[(uniform(stream) * found.len() as f64) as usize];
        let direction = [normal(stream), normal(stream), normal(stream)];
        let norm = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
        let length = 1.0 + 0.6 * uniform(stream);
        let point: [f64; 3] =
            std::array::from_fn(|axis| from[axis] + length * direction[axis] / norm);
        if found.iter().all(|other| distance(other, &point) > 0.9) {
            found.push(point);
        }
    }
    let centre: [f64; 3] =
        std::array::from_fn(|axis| found.iter().map(|p| p[axis]).sum::<f64>() / points as f64);
    let place = [normal(stream), normal(stream), normal(stream)];
    found
        .iter()
        .map(|p| std::array::from_fn(|axis| p[axis] - centre[axis] + 0.2 * place[axis]))
        .collect()
}

fn distance(a: &[f64; 3], b: &[f64; 3]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - y).powi(2))
        .sum::<f64>()
        .sqrt()
}

/// For vectors of points a spring to the centre, which every model can learn a little of; for anything else a fixed random target.
fn target(output: &FieldDescriptor, inputs: &Batch, stream: &mut Stream) -> Field {
    let (kind, rows) = (kind(&output.kind), rows(&output.rows));
    // A width that the descriptor leaves open is that of the input of the same kind.
    let alike = inputs
        .fields
        .iter()
        .find(|f| f.kind == kind && f.rows == rows);
    let shape = match alike {
        Some(field) if output.width.contains(&0) => field.shape.clone(),
        _ => shape(output, &inputs.offsets),
    };
    let count: usize = shape.iter().product();
    let values = match inputs.field("positions").and_then(Field::reals) {
        Ok(positions)
            if kind == FieldKind::Vector && rows == Rows::Point && positions.len() == count =>
        {
            springs(inputs, positions)
        }
        _ => (0..count).map(|_| normal(stream)).collect(),
    };
    Field {
        name: "target".into(),
        kind,
        rows,
        shape,
        values: Values::Real(values),
    }
}

/// Minus the distance from the centre of the sample.
fn springs(batch: &Batch, positions: &[f64]) -> Vec<f64> {
    let of_sample = |sample: usize| {
        let own = &positions[3 * batch.offsets[sample]..3 * batch.offsets[sample + 1]];
        let points = own.len() as f64 / 3.0;
        let centre: [f64; 3] =
            std::array::from_fn(|axis| own.iter().skip(axis).step_by(3).sum::<f64>() / points);
        own.iter().enumerate().map(move |(i, x)| centre[i % 3] - x)
    };
    (0..batch.samples()).flat_map(of_sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, kind: &str, rows: &str, element: &str, width: &[u64]) -> FieldDescriptor {
        let [name, kind, rows, element] = [name, kind, rows, element].map(str::to_owned);
        FieldDescriptor {
            name,
            kind,
            rows,
            element,
            width: width.to_vec(),
            unit: String::new(),
        }
    }

    #[test]
    fn a_toy_fits_its_description_and_atoms_keep_their_distance() {
        let model = ModelDescriptor {
            inputs: vec![
                field("positions", "vector", "point", "f32", &[3]),
                field("species", "invariant", "point", "i64", &[]),
                field("time", "invariant", "sample", "f32", &[]),
                field("density", "voxel-grid", "sample", "f32", &[2, 0, 0, 0]),
                field("residue_index", "invariant", "point", "i64", &[]),
            ],
            output: field("noise", "voxel-grid", "sample", "f32", &[2, 0, 0, 0]),
            ..ModelDescriptor::default()
        };
        let toy = Toy::of(&model, 1);
        assert_eq!(toy.inputs.points(), 14);
        assert_eq!(
            toy.inputs.field("density").unwrap().shape,
            [4, 2, GRID, GRID, GRID]
        );
        assert_eq!(
            toy.training.field("target").unwrap().shape,
            [4, 2, GRID, GRID, GRID]
        );
        let positions = toy.inputs.field("positions").unwrap().reals().unwrap();
        let points: Vec<[f64; 3]> = positions
            .chunks_exact(3)
            .map(|c| [c[0], c[1], c[2]])
            .collect();
        for sample in 0..toy.inputs.samples() {
            let own = &points[toy.inputs.rows_of(Rows::Point, sample)];
            for (i, a) in own.iter().enumerate() {
                assert!(own[..i].iter().all(|b| distance(a, b) > 0.9));
            }
        }
        let Values::Index(residues) = &toy.inputs.field("residue_index").unwrap().values else {
            panic!()
        };
        assert_eq!(residues[..9], [0, 1, 2, 0, 1, 2, 3, 4, 0]);
    }

    #[test]
    fn selecting_all_samples_in_order_changes_nothing() {
        let model = ModelDescriptor {
            inputs: vec![field("positions", "vector", "point", "f32", &[3])],
            ..ModelDescriptor::default()
        };
        let toy = Toy::of(&model, 2);
        assert_eq!(toy.inputs.select(&[0, 1, 2, 3]), toy.inputs);
        let twice = toy.inputs.select(&[3, 1, 0, 2]).select(&[2, 1, 3, 0]);
        assert_eq!(twice, toy.inputs);
    }
}
