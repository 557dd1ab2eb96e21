//! What one forward pass carries along: the batch, its graph as tensors, dropout, and the notes a test asks for.

use crate::{
    EscaipConfig,
    graph::{GraphLimits, NeighbourGraph},
};
use burn::tensor::Tensor;
use equivbench_kernels::{
    Bands, Dropout, KernelError, RowIndex, Segments, banded_radial, gather_rows, segment_sum,
};
use equivbench_plugin::{Batch, Note, Notes, PluginError, PluginResult, Precision};

/// The fixed inputs of the network: everything that follows from atoms and positions alone.
#[derive(Debug)]
pub struct Features {
    /// The graph itself, in f64 on the host.
    pub graph: NeighbourGraph,
    /// `[atoms]` rows of the atom tables.
    pub(crate) species: RowIndex,
    /// `[edges]` rows of node tensors: neighbours.
    pub(crate) senders: RowIndex,
    /// `[edges]` rows of node tensors: centres.
    pub(crate) receivers: RowIndex,
    /// `[edges]` rows of pair tensors.
    pub(crate) pairs: RowIndex,
    /// Edges of each atom.
    pub(crate) edges_of_atom: Segments,
    /// Atoms of each molecule.
    pub(crate) atoms_of_molecule: Segments,
    /// `[atoms]`: the molecule of each atom.
    pub(crate) molecule_of_atom: RowIndex,
    /// `[atoms, slots]` between edges and padded slots; `None` where all slots are in use.
    pub(crate) padding: Option<Padding>,
    /// Radial expansion of every pair, the few functions that are not 0.
    pub(crate) radial: Bands,
    /// `[atoms, orders]`.
    pub(crate) orders: Tensor<2>,
    /// `[edges, 3]` unit vectors from the neighbour to the centre.
    pub(crate) directions: Tensor<2>,
    /// `[atoms, slots, slots]` cosines between the edges of an atom.
    pub(crate) cosines: Tensor<3>,
    /// `[atoms, slots]`: 1 where a slot is in use.
    pub(crate) mask: Tensor<2>,
    /// `[atoms, 1]`: `1 / (n_i + 1e-5)`.
    pub(crate) mean_factor: Tensor<2>,
    /// `[molecules, 1]`: one over the number of atoms.
    pub(crate) molecule_mean_factor: Tensor<2>,
}

/// Row numbers between the edges and `[atoms, slots]`.
#[derive(Debug)]
pub(crate) struct Padding {
    /// `[atoms * slots]` rows of edge tensors; an unused slot repeats the atom's first edge.
    pub(crate) fill: RowIndex,
    /// `[edges]` rows of padded tensors.
    pub(crate) drop: RowIndex,
}

impl Features {
    /// Reads atoms and positions from a batch and builds everything that does not depend on weights.
    ///
    /// # Errors
    /// Missing fields, atomic numbers without a row in the atom tables, positions that are not finite, empty molecules.
    pub fn new(batch: &Batch<'_>, config: &EscaipConfig) -> PluginResult<Self> {
        let positions = checked_positions(batch)?;
        let species = checked_species(batch, config.elements)?;
        let molecules = batch.offsets();
        if let Some(empty) = molecules.windows(2).position(|w| w[0] == w[1]) {
            return Err(PluginError::BadRequest(format!(
                "escaip: sample {empty} of the batch has no atoms"
            )));
        }
        let limits = GraphLimits {
            cutoff: config.cutoff,
            neighbours: config.neighbours,
            orders: config.boo_orders,
        };
        let graph = NeighbourGraph::build(&positions, molecules, limits);
        Self::upload(graph, &species, molecules, batch, config)
            .map_err(|e| PluginError::Other(format!("escaip: {e}")))
    }

    fn upload(
        graph: NeighbourGraph,
        species: &[usize],
        molecules: &[usize],
        batch: &Batch<'_>,
        config: &EscaipConfig,
    ) -> Result<Self, KernelError> {
        let (atoms, edges, slots) = (graph.atoms(), graph.edges(), config.neighbours);
        let owned = |offsets: &[usize]| offsets.windows(2).map(|w| w[1] - w[0]).collect::<Vec<_>>();
        let counts = owned(&graph.offsets);
        let mask = counts
            .iter()
            .flat_map(|&n| (0..slots).map(move |s| f64::from(u8::from(s < n))))
            .collect();
        let molecule_sizes = owned(molecules);
        let molecule_of_atom: Vec<usize> = molecule_sizes
            .iter()
            .enumerate()
            .flat_map(|(g, &n)| std::iter::repeat_n(g, n))
            .collect();
        Ok(Self {
            species: RowIndex::new(config.elements, species)?,
            senders: RowIndex::new(atoms, &graph.senders)?,
            receivers: RowIndex::new(atoms, &graph.receivers())?,
            pairs: RowIndex::new(graph.distances.len(), &graph.pairs)?,
            edges_of_atom: Segments::new(&graph.offsets)?,
            atoms_of_molecule: Segments::new(molecules)?,
            molecule_of_atom: RowIndex::new(molecule_sizes.len(), &molecule_of_atom)?,
            padding: Padding::between(&graph, slots)?,
            radial: radial_bands(&graph.distances, batch, config)?,
            orders: batch.upload(graph.orders.clone(), vec![atoms, config.boo_orders]),
            directions: batch.upload(graph.directions.concat(), vec![edges, 3]),
            cosines: batch.upload(graph.cosines(slots), vec![atoms, slots, slots]),
            mask: batch.upload(mask, vec![atoms, slots]),
            mean_factor: batch.upload(
                counts.iter().map(|&n| 1.0 / (n as f64 + 1e-5)).collect(),
                vec![atoms, 1],
            ),
            molecule_mean_factor: batch.upload(
                molecule_sizes.iter().map(|&n| 1.0 / n as f64).collect(),
                vec![molecule_sizes.len(), 1],
            ),
            graph,
        })
    }
}

impl Features {
    /// Neighbours and centres of the edges.
    pub(crate) fn ends(&self) -> [&RowIndex; 2] {
        [&self.senders, &self.receivers]
    }
}

impl Padding {
    fn between(graph: &NeighbourGraph, slots: usize) -> Result<Option<Self>, KernelError> {
        let (atoms, edges) = (graph.atoms(), graph.edges());
        if edges == atoms * slots {
            return Ok(None);
        }
        let (mut fill, mut drop) = (Vec::with_capacity(atoms * slots), Vec::with_capacity(edges));
        for (atom, range) in graph.offsets.windows(2).enumerate() {
            let used = range[1] - range[0];
            fill.extend((0..slots).map(|s| range[0] + if s < used { s } else { 0 }));
            drop.extend((0..used).map(|s| atom * slots + s));
        }
        Ok(Some(Self {
            fill: RowIndex::new(edges, &fill)?,
            drop: RowIndex::new(atoms * slots, &drop)?,
        }))
    }
}

pub(crate) fn checked_positions(batch: &Batch<'_>) -> PluginResult<Vec<f64>> {
    let shape = batch.shape("positions")?;
    if shape[1..] != [3] {
        return Err(PluginError::BadRequest(format!(
            "escaip: positions have shape {shape:?}, [atoms, 3] was expected"
        )));
    }
    let positions = batch.floats("positions")?;
    match positions.iter().position(|x| !x.is_finite()) {
        None => Ok(positions),
        Some(at) => Err(PluginError::BadData(format!(
            "escaip: the position of atom {} of the batch is not finite",
            at / 3
        ))),
    }
}

fn checked_species(batch: &Batch<'_>, elements: usize) -> PluginResult<Vec<usize>> {
    let known = |(atom, &z): (usize, &i64)| match usize::try_from(z) {
        Ok(row) if (1..elements).contains(&row) => Ok(row),
        _ => Err(PluginError::BadData(format!(
            "escaip: atom {atom} of the batch has atomic number {z}; this model knows 1 to {} (config key elements = {elements})",
            elements - 1
        ))),
    };
    batch
        .ints("species")?
        .iter()
        .enumerate()
        .map(known)
        .collect()
}

/// Half the number of Gaussians kept around a distance. Centres are half a width apart, so what is dropped is below
/// `exp(-(half + 0.5)² / 8)`: 4e-9 in f32, 3e-17 in f64.
fn half_band(precision: Precision) -> usize {
    match precision {
        Precision::F32 | Precision::Bf16 => 12,
        Precision::F64 => 17,
    }
}

/// `phi_b(d) = exp(-(d - b delta)² / (2 (2 delta)²))`, delta = cutoff / (B - 1), as a band around `d / delta`.
fn radial_bands(
    distances: &[f64],
    batch: &Batch<'_>,
    config: &EscaipConfig,
) -> Result<Bands, KernelError> {
    let basis = config.radial_functions;
    let delta = config.cutoff / (basis - 1) as f64;
    let half = half_band(batch.precision());
    let width = (2 * half + 1).min(basis);
    // An infinite distance ends at the last start, where every Gaussian of it is 0.
    let start_of = |d: &f64| {
        ((d / delta).round() as usize)
            .saturating_sub(half)
            .min(basis - width)
    };
    let starts: Vec<usize> = distances.iter().map(start_of).collect();
    let gaussian = |d: f64, b: usize| (-((d - b as f64 * delta) / delta).powi(2) / 8.0).exp();
    let values = distances
        .iter()
        .zip(&starts)
        .flat_map(|(&d, &start)| (start..start + width).map(move |b| gaussian(d, b)));
    Bands::new(
        basis,
        &starts,
        batch.upload(values.collect(), vec![distances.len(), width]),
    )
}

/// What the rows of a [note](equivbench_plugin::Note) stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteRows {
    /// Atoms.
    Atoms,
    /// Directed edges.
    Edges,
    /// Unordered pairs of atoms.
    Pairs,
}

/// The context of one forward pass.
pub(crate) struct Pass<'a, 'b> {
    pub(crate) batch: &'a Batch<'b>,
    pub(crate) features: Features,
    config: &'a EscaipConfig,
    notes: Notes<NoteRows>,
}

impl<'a, 'b> Pass<'a, 'b> {
    pub(crate) fn new(batch: &'a Batch<'b>, config: &'a EscaipConfig) -> PluginResult<Self> {
        Ok(Self {
            batch,
            features: Features::new(batch, config)?,
            config,
            notes: Notes::none(),
        })
    }

    /// A pass that keeps notes, those on the fixed inputs first.
    pub(crate) fn traced(batch: &'a Batch<'b>, config: &'a EscaipConfig) -> PluginResult<Self> {
        let pass = Self {
            notes: Notes::kept(),
            ..Self::new(batch, config)?
        };
        let features = &pass.features;
        let [atoms, slots] = features.mask.dims();
        pass.note(
            NoteRows::Edges,
            || "graph.edge_direction".into(),
            &features.directions,
        );
        pass.note(
            NoteRows::Atoms,
            || "graph.node_direction_expansion".into(),
            &features.orders,
        );
        pass.note(
            NoteRows::Atoms,
            || "graph.angle_cosine".into(),
            &features.cosines.clone().reshape([atoms, slots * slots]),
        );
        pass.note(
            NoteRows::Pairs,
            || "graph.edge_distance_expansion".into(),
            &pass.dense_expansion(),
        );
        Ok(pass)
    }

    /// The radial expansion with its zeros, `[pairs, B]`.
    fn dense_expansion(&self) -> Tensor<2> {
        let basis = self.config.radial_functions;
        let identity = (0..basis * basis)
            .map(|k| f64::from(u8::from(k % (basis + 1) == 0)))
            .collect();
        let zeros = self.batch.upload(vec![0.0; basis], vec![basis]);
        banded_radial(
            &self.features.radial,
            self.batch.upload(identity, vec![basis, basis]),
            zeros,
        )
    }

    /// Whether [`Self::map_dropout`] changes anything.
    pub(crate) fn drops(&self) -> bool {
        self.batch.is_training() && self.config.mlp_dropout > 0.0
    }

    /// Dropout after an affine map.
    pub(crate) fn map_dropout(&self) -> Option<Dropout> {
        self.next_dropout(self.config.mlp_dropout)
    }

    /// Dropout of attention weights.
    pub(crate) fn attention_dropout(&self) -> Option<Dropout> {
        self.next_dropout(self.config.attention_dropout)
    }

    fn next_dropout(&self, probability: f64) -> Option<Dropout> {
        let seed = self.batch.next_dropout_seed()?;
        (probability > 0.0).then_some(Dropout { probability, seed })
    }

    /// Stochastic depth: in training, one factor for each atom, the same in a molecule.
    pub(crate) fn depth_factor(&self) -> Option<Tensor<2>> {
        let probability = self.config.stochastic_depth;
        if probability == 0.0 {
            return None;
        }
        let seed = self.batch.next_dropout_seed()?;
        let molecules = self.batch.samples();
        let kept = equivbench_kernels::dropout(
            self.batch.upload(vec![1.0; molecules], vec![molecules, 1]),
            probability,
            seed,
        );
        Some(gather_rows(kept, &self.features.molecule_of_atom))
    }

    /// `x [atoms, width]` of the neighbour of every edge.
    pub(crate) fn of_sender(&self, x: Tensor<2>) -> Tensor<2> {
        gather_rows(x, &self.features.senders)
    }

    /// `x [atoms, width]` of the centre of every edge.
    pub(crate) fn of_receiver(&self, x: Tensor<2>) -> Tensor<2> {
        gather_rows(x, &self.features.receivers)
    }

    /// Sum over the edges of every atom, `[edges, width]` to `[atoms, width]`.
    pub(crate) fn sum_edges(&self, x: Tensor<2>) -> Tensor<2> {
        segment_sum(x, &self.features.edges_of_atom)
    }

    /// Mean over the edges of every atom, as the reference takes it: `sum / (n + 1e-5)`.
    pub(crate) fn mean_edges(&self, x: Tensor<2>) -> Tensor<2> {
        self.sum_edges(x) * self.features.mean_factor.clone()
    }

    /// Whether notes are kept.
    pub(crate) fn is_traced(&self) -> bool {
        self.notes.are_kept()
    }

    /// Notes a tensor in a traced pass; free otherwise.
    pub(crate) fn note(&self, rows: NoteRows, name: impl FnOnce() -> String, x: &Tensor<2>) {
        self.notes.add(rows, name, || x.clone());
    }

    pub(crate) fn into_notes(self) -> (Features, Vec<Note<NoteRows>>) {
        (self.features, self.notes.into_vec())
    }
}
