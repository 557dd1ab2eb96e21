//! Batches that own their memory, and chains to put into them. Used by the tests and by the timing example.
#![allow(dead_code, reason = "each user needs another part")]

use equivbench_abi::{
    self as abi, ElementType, FieldKind, Rows,
    abi_stable::std_types::{RSlice, RStr},
};
use equivbench_proteina::ProteinaConfig;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Chains as the model reads them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chains {
    /// `[residues, 3]`, nm.
    pub(crate) positions: Vec<f64>,
    pub(crate) flow_time: Vec<f64>,
    pub(crate) residue_index: Vec<i64>,
    pub(crate) chain_break: Vec<i64>,
    /// Residues of each chain.
    pub(crate) sizes: Vec<usize>,
}

impl Chains {
    pub(crate) fn batch(&self) -> OwnedBatch {
        let offsets = std::iter::once(0).chain(self.sizes.iter().scan(0, |end, &n| {
            *end += n as u64;
            Some(*end)
        }));
        OwnedBatch {
            offsets: offsets.collect(),
            fields: Vec::new(),
        }
        .with_cloud("positions", &self.positions)
        .with_times(&self.flow_time)
        .with_integers("residue_index", &self.residue_index)
        .with_integers("chain_break", &self.chain_break)
    }

    /// Some of the chains, in the order that is given.
    pub(crate) fn select(&self, chains: &[usize]) -> Self {
        let mut selected = Self::default();
        for &chain in chains {
            let range = self.range(chain);
            selected
                .positions
                .extend(&self.positions[3 * range.start..3 * range.end]);
            selected.flow_time.push(self.flow_time[chain]);
            selected
                .residue_index
                .extend(&self.residue_index[range.clone()]);
            selected
                .chain_break
                .extend(&self.chain_break[range.clone()]);
            selected.sizes.push(range.len());
        }
        selected
    }

    /// The chains, each rotated in its own way.
    pub(crate) fn rotated(&self, rotations: &[Rotation]) -> Self {
        Self {
            positions: self.rotate(&self.positions, rotations),
            ..self.clone()
        }
    }

    /// Vectors of residues `[residues, 3]`, those of each chain rotated in its own way.
    pub(crate) fn rotate(&self, vectors: &[f64], rotations: &[Rotation]) -> Vec<f64> {
        let of_chain = |chain: usize| {
            let range = self.range(chain);
            vectors[3 * range.start..3 * range.end]
                .chunks_exact(3)
                .flat_map(move |v| rotations[chain].map(|row| dot(&row, v)))
        };
        (0..self.sizes.len()).flat_map(of_chain).collect()
    }

    /// Residues of a chain.
    pub(crate) fn range(&self, chain: usize) -> std::ops::Range<usize> {
        let first: usize = self.sizes[..chain].iter().sum();
        first..first + self.sizes[chain]
    }
}

/// Chains on their way from noise to a trace, and the velocities that lead there.
pub(crate) fn noisy_chains(sizes: &[usize], flow_time: &[f64], seed: u64) -> (Chains, Vec<f64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut chains, mut target) = (
        Chains {
            sizes: sizes.to_vec(),
            flow_time: flow_time.to_vec(),
            ..Chains::default()
        },
        Vec::new(),
    );
    for (&n, &t) in sizes.iter().zip(flow_time) {
        let (clean, noise) = (centred(trace(n, &mut rng)), centred(noise(n, &mut rng)));
        chains.positions.extend(
            clean
                .iter()
                .zip(&noise)
                .map(|(x1, x0)| f64::from(((1.0 - t) * x0 + t * x1) as f32)),
        );
        target.extend(
            clean
                .iter()
                .zip(&noise)
                .map(|(x1, x0)| f64::from((x1 - x0) as f32)),
        );
        chains
            .residue_index
            .extend((0..n as i64).map(|k| k + 5 + 4 * i64::from(k > n as i64 / 2)));
        chains
            .chain_break
            .extend((0..n).map(|k| i64::from(k == n / 2 && n > 2)));
    }
    (chains, target)
}

/// A C-alpha trace of a random walk with stiff bonds of 0.38 nm, nm.
fn trace(residues: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let (mut points, mut at, mut direction) = (Vec::new(), [0.0; 3], [1.0, 0.0, 0.0]);
    for _ in 0..residues {
        points.extend(at);
        let turned: [f64; 3] =
            std::array::from_fn(|axis| direction[axis] + rng.random_range(-0.9..0.9));
        let length = turned.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-3);
        direction = turned.map(|x| x / length);
        at = std::array::from_fn(|axis| at[axis] + 0.38 * direction[axis]);
    }
    points
}

/// Numbers of mean 0 and variance 1: twelve uniform ones added up.
fn noise(residues: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    (0..3 * residues)
        .map(|_| (0..12).map(|_| rng.random_range(-0.5..0.5)).sum())
        .collect()
}

fn centred(mut points: Vec<f64>) -> Vec<f64> {
    let n = (points.len() / 3) as f64;
    for axis in 0..3 {
        let mean = points.iter().skip(axis).step_by(3).sum::<f64>() / n;
        points
            .iter_mut()
            .skip(axis)
            .step_by(3)
            .for_each(|x| *x -= mean);
    }
    points
}

/// A rotation matrix, row by row.
pub(crate) type Rotation = [[f64; 3]; 3];

/// Haar-random rotations.
pub(crate) fn rotations(count: usize, seed: u64) -> Vec<Rotation> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| rotation(&mut rng)).collect()
}

/// From a random unit quaternion: a point of a cube that lies in the ball, brought to the sphere.
fn rotation(rng: &mut ChaCha8Rng) -> Rotation {
    loop {
        let q: [f64; 4] = std::array::from_fn(|_| rng.random_range(-1.0..1.0));
        let length = dot(&q, &q).sqrt();
        if (0.1..1.0).contains(&length) {
            let [w, x, y, z] = q.map(|component| component / length);
            return [
                [
                    1.0 - 2.0 * (y * y + z * z),
                    2.0 * (x * y - w * z),
                    2.0 * (x * z + w * y),
                ],
                [
                    2.0 * (x * y + w * z),
                    1.0 - 2.0 * (x * x + z * z),
                    2.0 * (y * z - w * x),
                ],
                [
                    2.0 * (x * z - w * y),
                    2.0 * (y * z + w * x),
                    1.0 - 2.0 * (x * x + y * y),
                ],
            ];
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A batch that owns its arrays.
#[derive(Clone)]
pub(crate) struct OwnedBatch {
    pub(crate) offsets: Vec<u64>,
    fields: Vec<OwnedField>,
}

#[derive(Clone)]
struct OwnedField {
    name: &'static str,
    kind: FieldKind,
    rows: Rows,
    element: ElementType,
    shape: Vec<u64>,
    bytes: Vec<u8>,
}

impl OwnedBatch {
    /// Adds vectors of residues, `[residues, 3]`.
    pub(crate) fn with_cloud(self, name: &'static str, values: &[f64]) -> Self {
        let (shape, bytes) = (
            vec![values.len() as u64 / 3, 3],
            bytemuck::cast_slice(values).to_vec(),
        );
        self.push(OwnedField {
            name,
            kind: FieldKind::Vector,
            rows: Rows::Point,
            element: ElementType::F64,
            shape,
            bytes,
        })
    }

    /// Adds the flow times `[samples]`.
    pub(crate) fn with_times(self, values: &[f64]) -> Self {
        let (shape, bytes) = (
            vec![values.len() as u64],
            bytemuck::cast_slice(values).to_vec(),
        );
        let (kind, rows) = (FieldKind::Invariant, Rows::Sample);
        self.push(OwnedField {
            name: "flow_time",
            kind,
            rows,
            element: ElementType::F64,
            shape,
            bytes,
        })
    }

    /// Adds integers of residues, `[residues]`.
    pub(crate) fn with_integers(self, name: &'static str, values: &[i64]) -> Self {
        let (shape, bytes) = (
            vec![values.len() as u64],
            bytemuck::cast_slice(values).to_vec(),
        );
        self.push(OwnedField {
            name,
            kind: FieldKind::Invariant,
            rows: Rows::Point,
            element: ElementType::I64,
            shape,
            bytes,
        })
    }

    /// Leaves out a field.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.fields.retain(|field| field.name != name);
        self
    }

    fn push(mut self, field: OwnedField) -> Self {
        self.fields.push(field);
        self
    }

    /// Calls `f` with the batch as it crosses the boundary.
    pub(crate) fn lend<R>(&self, f: impl FnOnce(&abi::Batch<'_>) -> R) -> R {
        let fields: Vec<abi::Field<'_>> = self
            .fields
            .iter()
            .map(|field| abi::Field {
                name: RStr::from_str(field.name),
                kind: field.kind.code(),
                rows: field.rows.code(),
                element: field.element.code(),
                shape: RSlice::from_slice(&field.shape),
                bytes: RSlice::from_slice(&field.bytes),
            })
            .collect();
        let samples = self.offsets.len() as u64 - 1;
        f(&abi::Batch {
            samples,
            offsets: RSlice::from_slice(&self.offsets),
            fields: RSlice::from_slice(&fields),
        })
    }
}

/// Whether the reference stores this parameter transposed: `[out, in]`, where ours is `[in, out]`.
pub(crate) fn is_transposed(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && name != "registers" && !name.contains("embedding_")
}

/// A configuration that is small in every width, without updates of the pair representation.
pub(crate) fn small() -> ProteinaConfig {
    ProteinaConfig::new(12, 2, 3)
        .with_conditioning_width(8)
        .with_pair_width(10)
        .with_triangle_width(6)
        .with_time_width(8)
        .with_index_width(6)
        .with_fold_width(3)
        .with_position_bins(9)
        .with_self_conditioning_bins(7)
        .with_sequence_separation_bins(11)
        .with_registers(2)
        .with_distogram_bins(8)
}
