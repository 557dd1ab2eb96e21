//! Where forces point: the unit vectors of the edges, the only part of the inputs that a rotation changes.

use crate::{
    graph::NeighbourGraph,
    pass::{Features, checked_positions},
};
use burn::tensor::Tensor;
use equivbench_kernels::{KernelError, Segments};
use equivbench_plugin::{Batch, PluginError, PluginResult};

/// The edges of one or several rotated copies of a batch, one copy after the other.
#[derive(Clone, Debug)]
pub(crate) struct Frames {
    pub(crate) copies: usize,
    /// `[copies * edges, 3]` unit vectors from the neighbour to the centre.
    pub(crate) directions: Tensor<2>,
    /// Edges of each atom of one copy.
    pub(crate) edges_of_atom: Segments,
    /// Edges of each atom of all copies.
    pub(crate) edges_of_all: Segments,
}

impl Frames {
    /// Of one batch.
    pub(crate) fn of(features: &Features) -> Self {
        Self {
            copies: 1,
            directions: features.directions.clone(),
            edges_of_atom: features.edges_of_atom.clone(),
            edges_of_all: features.edges_of_atom.clone(),
        }
    }

    /// Of a batch of rotated copies, from what follows from the first of them.
    ///
    /// # Errors
    /// Positions that the model cannot read.
    pub(crate) fn of_copies(
        first: &Features,
        batch: &Batch<'_>,
        copies: usize,
    ) -> PluginResult<Self> {
        let graph = &first.graph;
        let positions = checked_positions(batch)?;
        let directions: Vec<f64> = positions
            .chunks_exact(3 * graph.atoms())
            .flat_map(|copy| directions(graph, copy))
            .collect();
        Ok(Self {
            copies,
            directions: batch.upload(directions, vec![copies * graph.edges(), 3]),
            edges_of_atom: first.edges_of_atom.clone(),
            edges_of_all: repeated(&graph.offsets, copies)
                .map_err(|e| PluginError::Other(format!("escaip: {e}")))?,
        })
    }
}

/// Unit vectors of the edges of one copy.
fn directions(graph: &NeighbourGraph, positions: &[f64]) -> Vec<f64> {
    let owned = graph.offsets.windows(2).enumerate();
    owned
        .flat_map(|(centre, range)| {
            graph.senders[range[0]..range[1]]
                .iter()
                .map(move |s| (centre, *s))
        })
        .flat_map(|(centre, sender)| unit(positions, centre, sender))
        .collect()
}

/// The segments of copies that lie one after the other.
fn repeated(offsets: &[usize], copies: usize) -> Result<Segments, KernelError> {
    let items = offsets[offsets.len() - 1];
    let ends = (0..copies).flat_map(|copy| offsets[1..].iter().map(move |end| copy * items + end));
    Segments::new(&std::iter::once(0).chain(ends).collect::<Vec<_>>())
}

/// From the neighbour to the centre; `(1, 0, 0)` for a lonely atom, as in the graph.
pub(crate) fn unit(positions: &[f64], centre: usize, sender: usize) -> [f64; 3] {
    if centre == sender {
        return [1.0, 0.0, 0.0];
    }
    let d = [0, 1, 2].map(|k| positions[3 * centre + k] - positions[3 * sender + k]);
    let length = d.iter().map(|x| x * x).sum::<f64>().sqrt();
    d.map(|x| x / length)
}
