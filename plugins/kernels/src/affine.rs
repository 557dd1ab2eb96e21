//! Affine maps, fused with what comes before and after them: norm, activation, dropout, residual, look-ups along the edges of a graph.

mod edges;
mod feed_forward;
mod linear;
mod product;

use burn::Tensor;

use crate::{Dropout, RowIndex};
use edges::Ends;
use linear::Then;

pub use product::product_set;

/// `x W + b` for `x [rows, inputs]`, `W [inputs, outputs]` and `b [outputs]`, in parallel and with the bias added in place.
///
/// # Panics
/// If the shapes do not fit together.
pub fn affine(x: Tensor<2>, map: (Tensor<2>, Tensor<1>)) -> Tensor<2> {
    linear::linear(x, map, Then::Nothing)
}

/// `dropout(gelu(x W + b))`, as [`affine`].
///
/// # Panics
/// If the shapes do not fit together, or the dropout probability is not in `0.0..1.0`.
pub fn activated_affine(
    x: Tensor<2>,
    map: (Tensor<2>, Tensor<1>),
    dropout: Option<Dropout>,
) -> Tensor<2> {
    linear::linear(x, map, Then::Gelu(dropout))
}

/// `x + dropout(dropout(gelu(norm(x) W1 + b1)) W2 + b2)`: a feed-forward network with its residual connection.
///
/// `x [rows, width]`; `norm` is the gain `[width]` and the epsilon of an [`rms_norm`](crate::rms_norm) in front, if there is
/// one; `maps` are two pairs of a weight `[inputs, outputs]` and a bias; `dropouts`, where they are on, have the masks that
/// [`dropout`](crate::dropout()) has.
///
/// # Panics
/// If the shapes do not fit together, or a dropout probability is not in `0.0..1.0`.
pub fn feed_forward(
    x: Tensor<2>,
    norm: Option<(Tensor<1>, f64)>,
    maps: [(Tensor<2>, Tensor<1>); 2],
    dropouts: [Option<Dropout>; 2],
) -> Tensor<2> {
    feed_forward::feed_forward(x, norm, maps, dropouts)
}

/// `dropout(gelu(dropout(gelu(embedding))[pair] W1 + source[sender] W2 + target[receiver] W3 + b))` for the edges of a graph,
/// `[edges, outputs]`; `pairs` holds the pair of every edge, `ends` its sender and its receiver.
///
/// `embedding [pairs, wide]`; `nodes`, source and target, `[nodes, inputs]`; `map` is the weight `[wide + 2 inputs, outputs]`,
/// W1, W2 and W3 one below the other, and the bias.
///
/// # Panics
/// If the shapes do not fit together, or a dropout probability is not in `0.0..1.0`.
pub fn edge_attributes(
    pairs: &RowIndex,
    ends: [&RowIndex; 2],
    embedding: Tensor<2>,
    nodes: [Tensor<2>; 2],
    map: (Tensor<2>, Tensor<1>),
    dropouts: [Option<Dropout>; 2],
) -> Tensor<2> {
    edges::edge_attributes(pairs, Ends::of(ends), embedding, nodes, map, dropouts)
}

/// `gelu([attributes, dropout(gelu([node[sender], node[receiver]] W1 + b1))] W2 + b2) W3 + b3` for the edges of a graph,
/// `[edges, outputs]`, with `attributes [edges, hidden]`, `node [nodes, inputs]` and three `maps` of a weight and a bias.
///
/// # Panics
/// If the shapes do not fit together, or the dropout probability is not in `0.0..1.0`.
pub fn edge_messages(
    ends: [&RowIndex; 2],
    attributes: Tensor<2>,
    node: Tensor<2>,
    maps: [(Tensor<2>, Tensor<1>); 3],
    dropout: Option<Dropout>,
) -> Tensor<2> {
    edges::edge_messages(Ends::of(ends), attributes, node, maps, dropout)
}
