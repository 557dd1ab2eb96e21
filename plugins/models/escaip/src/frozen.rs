//! What lies below a group of the force head, for rotated copies of a batch: the invariant latent of the first copy, which serves all, and
//! the unit vectors of each.

use crate::{
    frames::Frames,
    heads::{ForceFactors, ForceHead},
    layers::States,
    pass::Pass,
};
use burn::tensor::Tensor;
use equivbench_kernels::segment_sum;
use equivbench_plugin::{PluginError, PluginResult, rows_within};
use std::ops::Range;

/// The direction branch of the force head: a feed-forward network and the last map.
pub(crate) const HEAD: &str = "head";
/// Its last map, in which forces are linear.
pub(crate) const LAST_MAP: &str = "equivariant-subspace";

/// What was kept.
#[derive(Debug)]
pub(crate) struct Below {
    edges: Edges,
    /// `m [atoms, 1]`.
    magnitude: Tensor<2>,
    frames: Frames,
}

/// `[edges, hidden]` of one copy.
#[derive(Debug)]
enum Edges {
    /// The latent that enters the head.
    Latent(Tensor<2>),
    /// What enters the last map.
    Hidden(Tensor<2>),
}

impl Below {
    /// From the latent of the first copy of a batch.
    ///
    /// # Errors
    /// A group that is none of the head.
    pub(crate) fn new(
        head: &ForceHead,
        group: &str,
        latent: States,
        pass: &Pass<'_, '_>,
        frames: Frames,
    ) -> PluginResult<Self> {
        let edges = match group {
            HEAD => Edges::Latent(latent.edge),
            LAST_MAP => Edges::Hidden(head.force_direction_layer.hidden(latent.edge, [None, None])),
            _ => return Err(PluginError::Unsupported(format!("frozen-below:{group}"))),
        };
        Ok(Self {
            edges,
            magnitude: head.magnitude(latent.node, pass),
            frames,
        })
    }

    /// `[copies * atoms, 3]`.
    pub(crate) fn forces(&self, head: &ForceHead) -> Tensor<2> {
        let layer = &head.force_direction_layer;
        let hidden = match &self.edges {
            Edges::Latent(latent) => layer.hidden(latent.clone(), [None, None]),
            Edges::Hidden(hidden) => hidden.clone(),
        };
        let factors = ForceFactors {
            direction: layer.last(hidden),
            magnitude: self.magnitude.clone(),
        };
        factors.forces(&self.frames)
    }

    /// `phi[i, c, k] = m_i sum_j h_ijk u_ijc` of the last map, `[rows, 3 * hidden]`.
    ///
    /// # Errors
    /// A latent that has not passed the feed-forward network, or rows that are not there.
    pub(crate) fn features(&self, rows: Range<usize>) -> PluginResult<Tensor<2>> {
        let Edges::Hidden(hidden) = &self.edges else {
            return Err(PluginError::Unsupported(format!("features:{HEAD}")));
        };
        let [atoms, _] = self.magnitude.dims();
        rows_within(&rows, self.frames.copies * atoms)?;
        let (first, last) = (rows.start / atoms, rows.end.div_ceil(atoms));
        let copies = (first..last)
            .map(|copy| self.features_of_copy(hidden, copy))
            .collect();
        Ok(Tensor::cat(copies, 0).narrow(0, rows.start - first * atoms, rows.len()))
    }

    /// `[atoms, 3 * hidden]`.
    fn features_of_copy(&self, hidden: &Tensor<2>, copy: usize) -> Tensor<2> {
        let [edges, _] = hidden.dims();
        let directions = self
            .frames
            .directions
            .clone()
            .narrow(0, copy * edges, edges);
        let of_axis = |axis: usize| {
            let weighted = hidden.clone() * directions.clone().narrow(1, axis, 1);
            segment_sum(weighted, &self.frames.edges_of_atom) * self.magnitude.clone()
        };
        Tensor::cat([0, 1, 2].map(of_axis).to_vec(), 1)
    }
}
