//! Maps of the edges of a graph whose input has parts that belong to the two ends of an edge.
//!
//! What belongs to an end is multiplied once per node and then gathered, and what belongs to the pair once per pair; all
//! other steps are done on a block of edges while it is in the cache.

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use super::feed_forward::{activate, activate_and_pull_back};
use super::product::{Job, Matrix, add_rows, affine, block_rows, multiply, weight_gradients};
use crate::dispatch::{Kernel, fused, tensor, values};
use crate::dropout::Dropout;
use crate::gather::{ByRow, RowIndex};
use crate::parallel::build_each;
use crate::plain;
use crate::scalar::Scalar;

/// The two ends of every edge, as rows of node tensors.
#[derive(Debug, Clone)]
pub(crate) struct Ends {
    pub(crate) senders: RowIndex,
    pub(crate) receivers: RowIndex,
}

impl Ends {
    /// # Panics
    /// If the two do not belong to the same edges and nodes.
    pub(crate) fn of([senders, receivers]: [&RowIndex; 2]) -> Self {
        let size = |index: &RowIndex| [index.index().len(), index.rows()];
        assert_eq!(
            size(senders),
            size(receivers),
            "edges: number of edges and nodes of senders and receivers"
        );
        Self {
            senders: senders.clone(),
            receivers: receivers.clone(),
        }
    }

    fn nodes(&self) -> usize {
        self.senders.rows()
    }

    fn edges(&self) -> usize {
        self.senders.index().len()
    }

    /// `output[edge] = of_sender[sender] + of_receiver[receiver]` for the edges from number `first` on.
    fn join<T: Scalar>(
        &self,
        first: usize,
        width: usize,
        of_sender: &[T],
        of_receiver: &[T],
        output: &mut [T],
    ) {
        let ends = self.senders.index()[first..]
            .iter()
            .zip(&self.receivers.index()[first..]);
        for (row, (&sender, &receiver)) in output.chunks_exact_mut(width.max(1)).zip(ends) {
            let ends = of_sender[sender as usize * width..][..width]
                .iter()
                .zip(&of_receiver[receiver as usize * width..][..width]);
            for (value, (&a, &b)) in row.iter_mut().zip(ends) {
                *value = a + b;
            }
        }
    }

    /// The parts of an affine map that belong to the ends, `[nodes, outputs]` each; the receiver's has the bias.
    fn parts<T: Scalar>(&self, nodes: [&[T]; 2], weights: [&[T]; 2], bias: &[T]) -> [Vec<T>; 2] {
        let (count, outputs) = (self.nodes(), bias.len());
        let inputs = nodes[0].len() / count.max(1);
        let block = block_rows(count);
        let size = [block * outputs; 2];
        build_each(
            [count * outputs; 2],
            size,
            |number, [of_sender, of_receiver]| {
                let rows = of_sender.len() / outputs.max(1);
                let [a, b] = nodes.map(|nodes| {
                    Matrix::new(&nodes[number * block * inputs..][..rows * inputs], inputs)
                });
                multiply(a, Matrix::new(weights[0], outputs), false, of_sender);
                affine(b, Matrix::new(weights[1], outputs), bias, of_receiver);
            },
        )
    }

    /// Gradients of the parts from those of the edges, `[nodes, width]` each.
    fn pull_back<T: Scalar>(&self, width: usize, for_edges: &[T]) -> [Vec<T>; 2] {
        let block = block_rows(self.nodes());
        build_each(
            [self.nodes() * width; 2],
            [block * width; 2],
            |number, [for_sender, for_receiver]| {
                sum_rows(
                    self.senders.by_row(),
                    number * block,
                    width,
                    for_edges,
                    for_sender,
                );
                sum_rows(
                    self.receivers.by_row(),
                    number * block,
                    width,
                    for_edges,
                    for_receiver,
                );
            },
        )
    }
}

/// Sums, for the rows from number `first` on, the rows of `given` at which they occur, in order.
fn sum_rows<T: Scalar>(by_row: &ByRow, first: usize, width: usize, given: &[T], output: &mut [T]) {
    for (run, output) in by_row.offsets[first..]
        .windows(2)
        .zip(output.chunks_exact_mut(width.max(1)))
    {
        for &item in &by_row.positions[run[0] as usize..run[1] as usize] {
            add_rows(&given[item as usize * width..][..width], output);
        }
    }
}

/// Copies the rows that `index` names from its entry `first` on.
fn pick<T: Scalar>(index: &RowIndex, first: usize, width: usize, given: &[T], output: &mut [T]) {
    for (row, output) in index.index()[first..]
        .iter()
        .zip(output.chunks_exact_mut(width.max(1)))
    {
        output.copy_from_slice(&given[*row as usize * width..][..width]);
    }
}

/// See [`crate::edge_attributes`].
pub(crate) fn edge_attributes(
    pairs: &RowIndex,
    ends: Ends,
    embedding: Tensor<2>,
    nodes: [Tensor<2>; 2],
    (weight, bias): (Tensor<2>, Tensor<1>),
    dropouts: [Option<Dropout>; 2],
) -> Tensor<2> {
    let [[pair_rows, wide], [node_rows, inputs]] = [embedding.dims(), nodes[0].dims()];
    assert_eq!(
        [pair_rows, node_rows],
        [pairs.rows(), ends.nodes()],
        "edge_attributes: number of pairs and nodes"
    );
    assert_eq!(
        nodes[1].dims(),
        nodes[0].dims(),
        "edge_attributes: shape of the nodes"
    );
    assert_eq!(
        weight.dims(),
        [wide + 2 * inputs, bias.dims()[0]],
        "edge_attributes: shape of the weight"
    );
    assert_eq!(
        [pairs.index().len(), ends.receivers.index().len()],
        [ends.edges(); 2],
        "edge_attributes: number of edges"
    );
    let dropouts = dropouts.map(|dropout| dropout.filter(Dropout::acts));
    let kernel = Attributes {
        pairs: pairs.clone(),
        ends: ends.clone(),
        dropouts,
    };
    let [source, target] = nodes.map(Tensor::into_dispatch);
    match fused(
        kernel,
        [
            embedding.into_dispatch(),
            source,
            target,
            weight.into_dispatch(),
            bias.into_dispatch(),
        ],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([embedding, source, target, weight, bias]) => {
            let nodes = [source, target].map(Tensor::from_dispatch);
            let map = (Tensor::from_dispatch(weight), Tensor::from_dispatch(bias));
            composed_attributes(
                pairs,
                ends,
                Tensor::from_dispatch(embedding),
                nodes,
                map,
                dropouts,
            )
        }
    }
}

/// The same as ordinary tensor operations.
fn composed_attributes(
    pairs: &RowIndex,
    ends: Ends,
    embedding: Tensor<2>,
    [source, target]: [Tensor<2>; 2],
    (weight, bias): (Tensor<2>, Tensor<1>),
    dropouts: [Option<Dropout>; 2],
) -> Tensor<2> {
    let ([wide, inputs], outputs) = ([embedding.dims()[1], source.dims()[1]], bias.dims()[0]);
    let rows =
        |first: usize, count: usize| weight.clone().slice([first..first + count, 0..outputs]);
    let embedded = plain::product(
        activated(plain::gather_rows(embedding, pairs), dropouts[0]),
        rows(0, wide),
    );
    let source = plain::product(source, rows(wide, inputs));
    let target = plain::mapped(target, rows(wide + inputs, inputs), bias);
    let sum = embedded
        + plain::gather_rows(source, &ends.senders)
        + plain::gather_rows(target, &ends.receivers);
    activated(sum, dropouts[1])
}

fn activated(x: Tensor<2>, dropout: Option<Dropout>) -> Tensor<2> {
    match dropout {
        Some(dropout) => plain::dropout(plain::gelu(x), dropout),
        None => plain::gelu(x),
    }
}

#[derive(Debug)]
struct Attributes {
    pairs: RowIndex,
    ends: Ends,
    dropouts: [Option<Dropout>; 2],
}

impl Kernel<5> for Attributes {
    /// Embedding, nodes of both ends, weight, and values before the last activation.
    type Saved = [FlexTensor; 5];

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 5]) -> (FlexTensor, Self::Saved) {
        let [embedding, source, target, weight, bias] = inputs.map(|input| input.to_contiguous());
        let (edges, wide, outputs) = (self.ends.edges(), embedding.shape()[1], bias.shape()[0]);
        let (of_pair, [for_pair, for_source, for_target]) = (
            values::<T>(&embedding),
            cut(values::<T>(&weight), wide * outputs),
        );
        let nodes = [values::<T>(&source), values::<T>(&target)];
        let [of_sender, of_receiver] =
            self.ends
                .parts(nodes, [for_source, for_target], values::<T>(&bias));
        let shared = self.dropouts[0]
            .is_none()
            .then(|| shared_part(of_pair, wide, for_pair, outputs));
        let block = block_rows(edges);
        let [output, before] = build_each(
            [edges * outputs; 2],
            [block * outputs; 2],
            |number, [output, before]| {
                let first = number * block;
                let rows = output.len() / outputs.max(1);
                self.ends
                    .join(first, outputs, &of_sender, &of_receiver, before);
                match &shared {
                    Some(shared) => {
                        for (&pair, row) in self.pairs.index()[first..]
                            .iter()
                            .zip(before.chunks_exact_mut(outputs.max(1)))
                        {
                            add_rows(&shared[pair as usize * outputs..][..outputs], row);
                        }
                    }
                    None => {
                        let (mut picked, mut dropped) =
                            (vec![T::ZERO; rows * wide], vec![T::ZERO; rows * wide]);
                        pick(&self.pairs, first, wide, of_pair, &mut picked);
                        activate(&picked, self.dropouts[0], first * wide, &mut dropped);
                        multiply(
                            Matrix::new(&dropped, wide),
                            Matrix::new(for_pair, outputs),
                            true,
                            before,
                        );
                    }
                }
                activate(before, self.dropouts[1], first * outputs, output);
            },
        );
        (
            tensor(output, [edges, outputs]),
            [
                embedding,
                source,
                target,
                weight,
                tensor(before, [edges, outputs]),
            ],
        )
    }

    fn backward<T: Scalar>(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; 5],
    ) -> [Option<FlexTensor>; 5] {
        let [embedding, source, target, weight, before] = saved;
        let gradient = gradient.to_contiguous();
        let (outputs, inputs, wide) =
            (gradient.shape()[1], source.shape()[1], embedding.shape()[1]);
        let (given, before, of_pair) = (
            values::<T>(&gradient),
            values::<T>(&before),
            values::<T>(&embedding),
        );
        let nodes = [values::<T>(&source), values::<T>(&target)];
        let [for_pair, for_source, for_target] = cut(values::<T>(&weight), wide * outputs);
        let Pulled {
            for_before,
            activated,
            for_rows,
        } = self.pull_back_edges(before, given, of_pair, wide, for_pair);
        let (pairs, ends) = rayon::join(
            || self.pull_back_pairs(of_pair, wide, for_pair, &for_before, for_rows.as_deref()),
            || self.ends.pull_back(outputs, &for_before),
        );
        let for_nodes = |number: usize, weight| {
            let mut for_node = vec![T::ZERO; nodes[number].len()];
            multiply(
                Matrix::new(&ends[number], outputs),
                Matrix::new(weight, outputs).transposed(),
                false,
                &mut for_node,
            );
            tensor(for_node, [self.ends.nodes(), inputs])
        };
        let (left, right) = match &pairs.shared {
            Some((activated, for_shared)) => (activated, for_shared),
            None => (&activated, &for_before),
        };
        let ((for_source, for_target), for_weights) = rayon::join(
            || rayon::join(|| for_nodes(0, for_source), || for_nodes(1, for_target)),
            || {
                weight_gradients([
                    Job {
                        left,
                        inputs: wide,
                        right,
                        outputs,
                    },
                    Job {
                        left: nodes[0],
                        inputs,
                        right: &ends[0],
                        outputs,
                    },
                    Job {
                        left: nodes[1],
                        inputs,
                        right: &ends[1],
                        outputs,
                    },
                ])
            },
        );
        let mut for_bias = vec![T::ZERO; outputs];
        add_rows(&ends[1], &mut for_bias);
        let results = [
            tensor(pairs.for_embedding, embedding.shape()),
            for_source,
            for_target,
            tensor(for_weights.concat(), weight.shape()),
            tensor(for_bias, [outputs]),
        ];
        let mut wanted = wanted.into_iter();
        results.map(|gradient| wanted.next().unwrap_or(false).then_some(gradient))
    }
}

/// What the first step back leaves: gradients of the values before the last activation, and, with dropout of the embedding,
/// that of every edge with its gradient.
struct Pulled<T> {
    for_before: Vec<T>,
    activated: Vec<T>,
    for_rows: Option<Vec<T>>,
}

/// Gradients of the embedding; without dropout also the activated embedding and the gradient of its product with the weight.
struct PulledPairs<T> {
    for_embedding: Vec<T>,
    shared: Option<(Vec<T>, Vec<T>)>,
}

impl Attributes {
    fn pull_back_edges<T: Scalar>(
        &self,
        before: &[T],
        given: &[T],
        of_pair: &[T],
        wide: usize,
        weight: &[T],
    ) -> Pulled<T> {
        let edges = self.ends.edges();
        let outputs = given.len() / edges.max(1);
        let block = block_rows(edges);
        let kept = if self.dropouts[0].is_some() { wide } else { 0 };
        let lens = [edges * outputs, edges * kept, edges * kept];
        let chunks = [block * outputs, block * kept, block * kept];
        let [for_before, activated, for_rows] =
            build_each(lens, chunks, |number, [for_before, activated, for_rows]| {
                let first = number * block;
                let range = first * outputs..first * outputs + for_before.len();
                for_before.copy_from_slice(&given[range.clone()]);
                let mut scratch = vec![T::ZERO; range.len()];
                activate_and_pull_back(
                    &before[range],
                    self.dropouts[1],
                    first * outputs,
                    for_before,
                    &mut scratch,
                );
                if kept > 0 {
                    multiply(
                        Matrix::new(for_before, outputs),
                        Matrix::new(weight, outputs).transposed(),
                        false,
                        for_rows,
                    );
                    let mut picked = vec![T::ZERO; for_rows.len()];
                    pick(&self.pairs, first, wide, of_pair, &mut picked);
                    activate_and_pull_back(
                        &picked,
                        self.dropouts[0],
                        first * wide,
                        for_rows,
                        activated,
                    );
                }
            });
        Pulled {
            for_before,
            activated,
            for_rows: (kept > 0).then_some(for_rows),
        }
    }

    fn pull_back_pairs<T: Scalar>(
        &self,
        of_pair: &[T],
        wide: usize,
        weight: &[T],
        for_before: &[T],
        for_rows: Option<&[T]>,
    ) -> PulledPairs<T> {
        let (pairs, by_pair) = (self.pairs.rows(), self.pairs.by_row());
        let block = block_rows(pairs);
        if let Some(for_rows) = for_rows {
            let [for_embedding] = build_each([pairs * wide], [block * wide], |number, [output]| {
                sum_rows(by_pair, number * block, wide, for_rows, output);
            });
            return PulledPairs {
                for_embedding,
                shared: None,
            };
        }
        let outputs = weight.len() / wide.max(1);
        let (lens, chunks) = (
            [pairs * wide, pairs * wide, pairs * outputs],
            [block * wide, block * wide, block * outputs],
        );
        let [for_embedding, activated, for_shared] = build_each(
            lens,
            chunks,
            |number, [for_embedding, activated, for_shared]| {
                let first = number * block;
                sum_rows(by_pair, first, outputs, for_before, for_shared);
                multiply(
                    Matrix::new(for_shared, outputs),
                    Matrix::new(weight, outputs).transposed(),
                    false,
                    for_embedding,
                );
                activate_and_pull_back(
                    &of_pair[first * wide..][..for_embedding.len()],
                    None,
                    0,
                    for_embedding,
                    activated,
                );
            },
        );
        PulledPairs {
            for_embedding,
            shared: Some((activated, for_shared)),
        }
    }
}

/// `gelu(embedding) W` of every pair.
fn shared_part<T: Scalar>(of_pair: &[T], wide: usize, weight: &[T], outputs: usize) -> Vec<T> {
    let pairs = of_pair.len() / wide.max(1);
    let block = block_rows(pairs);
    let [shared] = build_each([pairs * outputs], [block * outputs], |number, [shared]| {
        let rows = shared.len() / outputs.max(1);
        let mut activated = vec![T::ZERO; rows * wide];
        activate(
            &of_pair[number * block * wide..][..rows * wide],
            None,
            0,
            &mut activated,
        );
        multiply(
            Matrix::new(&activated, wide),
            Matrix::new(weight, outputs),
            false,
            shared,
        );
    });
    shared
}

/// The first `count` elements and two halves of the rest.
fn cut<T>(values: &[T], count: usize) -> [&[T]; 3] {
    let (first, rest) = values.split_at(count);
    let (second, third) = rest.split_at(rest.len() / 2);
    [first, second, third]
}

/// See [`crate::edge_messages`].
pub(crate) fn edge_messages(
    ends: Ends,
    attributes: Tensor<2>,
    node: Tensor<2>,
    maps: [(Tensor<2>, Tensor<1>); 3],
    dropout: Option<Dropout>,
) -> Tensor<2> {
    let [edges, hidden] = attributes.dims();
    let [nodes, inputs] = node.dims();
    let shapes = maps
        .each_ref()
        .map(|(weight, bias)| (weight.dims(), bias.dims()[0]));
    assert_eq!(
        [edges, nodes],
        [ends.edges(), ends.nodes()],
        "edge_messages: number of edges and nodes"
    );
    assert_eq!(
        shapes[0].0,
        [2 * inputs, shapes[0].1],
        "edge_messages: shape of the first weight"
    );
    assert_eq!(
        shapes[1].0,
        [hidden + shapes[0].1, shapes[1].1],
        "edge_messages: shape of the second weight"
    );
    assert_eq!(
        shapes[2].0,
        [shapes[1].1, shapes[2].1],
        "edge_messages: shape of the third weight"
    );
    let dropout = dropout.filter(Dropout::acts);
    let [(wn, bn), (wm, bm), (wp, bp)] =
        maps.map(|(weight, bias)| (weight.into_dispatch(), bias.into_dispatch()));
    let kernel = Messages {
        ends: ends.clone(),
        dropout,
    };
    match fused(
        kernel,
        [
            attributes.into_dispatch(),
            node.into_dispatch(),
            wn,
            bn,
            wm,
            bm,
            wp,
            bp,
        ],
    ) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([attributes, node, wn, bn, wm, bm, wp, bp]) => {
            let maps = [(wn, bn), (wm, bm), (wp, bp)]
                .map(|(w, b)| (Tensor::from_dispatch(w), Tensor::from_dispatch(b)));
            composed_messages(
                ends,
                Tensor::from_dispatch(attributes),
                Tensor::from_dispatch(node),
                maps,
                dropout,
            )
        }
    }
}

/// The same as ordinary tensor operations.
fn composed_messages(
    ends: Ends,
    attributes: Tensor<2>,
    node: Tensor<2>,
    [of_ends, of_message, packed]: [(Tensor<2>, Tensor<1>); 3],
    dropout: Option<Dropout>,
) -> Tensor<2> {
    let both = vec![
        plain::gather_rows(node.clone(), &ends.senders),
        plain::gather_rows(node, &ends.receivers),
    ];
    let map = |x: Tensor<2>, (weight, bias): (Tensor<2>, Tensor<1>)| plain::mapped(x, weight, bias);
    let joined = activated(map(Tensor::cat(both, 1), of_ends), dropout);
    map(
        plain::gelu(map(Tensor::cat(vec![attributes, joined], 1), of_message)),
        packed,
    )
}

#[derive(Debug)]
struct Messages {
    ends: Ends,
    dropout: Option<Dropout>,
}

/// What the backward pass of messages needs.
#[derive(Debug, Clone)]
struct SavedMessages {
    attributes: FlexTensor,
    node: FlexTensor,
    /// Of the ends, of the message, of what is packed.
    weights: [FlexTensor; 3],
    /// Parts of the ends, `[nodes, ends]`.
    parts: [FlexTensor; 2],
    /// Messages before their activation.
    before: FlexTensor,
}

impl Kernel<8> for Messages {
    type Saved = SavedMessages;

    fn forward<T: Scalar>(&self, inputs: [FlexTensor; 8]) -> (FlexTensor, SavedMessages) {
        let [attributes, node, wn, bn, wm, bm, wp, bp] = inputs.map(|input| input.to_contiguous());
        let [edges, hidden] = [attributes.shape()[0], attributes.shape()[1]];
        let [joint, width, outputs] = [&bn, &bm, &bp].map(|bias| bias.shape()[0]);
        let (given, nodes) = (values::<T>(&attributes), values::<T>(&node));
        let halves = values::<T>(&wn).split_at(wn.shape()[0] / 2 * joint);
        let (of_attributes, of_joint) = values::<T>(&wm).split_at(hidden * width);
        let (bias, packed) = (values::<T>(&bm), (values::<T>(&wp), values::<T>(&bp)));
        let [of_sender, of_receiver] =
            self.ends
                .parts([nodes; 2], [halves.0, halves.1], values::<T>(&bn));
        let block = block_rows(edges);
        let [output, before] = build_each(
            [edges * outputs, edges * width],
            [block * outputs, block * width],
            |number, [output, before]| {
                let first = number * block;
                let rows = block.min(edges - first);
                let (mut joined, mut dropped) =
                    (vec![T::ZERO; rows * joint], vec![T::ZERO; rows * joint]);
                self.ends
                    .join(first, joint, &of_sender, &of_receiver, &mut joined);
                activate(&joined, self.dropout, first * joint, &mut dropped);
                let attributes = Matrix::new(&given[first * hidden..][..rows * hidden], hidden);
                affine(attributes, Matrix::new(of_attributes, width), bias, before);
                multiply(
                    Matrix::new(&dropped, joint),
                    Matrix::new(of_joint, width),
                    true,
                    before,
                );
                let mut message = vec![T::ZERO; before.len()];
                activate(before, None, 0, &mut message);
                affine(
                    Matrix::new(&message, width),
                    Matrix::new(packed.0, outputs),
                    packed.1,
                    output,
                );
            },
        );
        let parts = [of_sender, of_receiver].map(|part| tensor(part, [self.ends.nodes(), joint]));
        let saved = SavedMessages {
            attributes,
            node,
            weights: [wn, wm, wp],
            parts,
            before: tensor(before, [edges, width]),
        };
        (tensor(output, [edges, outputs]), saved)
    }

    fn backward<T: Scalar>(
        &self,
        saved: SavedMessages,
        gradient: FlexTensor,
        wanted: [bool; 8],
    ) -> [Option<FlexTensor>; 8] {
        let gradient = gradient.to_contiguous();
        let given = values::<T>(&gradient);
        let [edges, hidden] = [saved.attributes.shape()[0], saved.attributes.shape()[1]];
        let (inputs, nodes) = (saved.node.shape()[1], values::<T>(&saved.node));
        let [joint, width, outputs] = saved.weights.each_ref().map(|weight| weight.shape()[1]);
        let [wn, wm, wp] = saved.weights.each_ref().map(values::<T>);
        let pulled = self.pull_back_edges::<T>(&saved, given);
        let ends = self.ends.pull_back(joint, &pulled.for_joint);
        let (for_sender, for_receiver) = wn.split_at(inputs * joint);
        let (for_node, [packed, of_attributes, of_joint, of_sender, of_receiver]) = rayon::join(
            || {
                let mut for_node = vec![T::ZERO; nodes.len()];
                multiply(
                    Matrix::new(&ends[0], joint),
                    Matrix::new(for_sender, joint).transposed(),
                    false,
                    &mut for_node,
                );
                multiply(
                    Matrix::new(&ends[1], joint),
                    Matrix::new(for_receiver, joint).transposed(),
                    true,
                    &mut for_node,
                );
                for_node
            },
            || {
                weight_gradients([
                    Job {
                        left: &pulled.message,
                        inputs: width,
                        right: given,
                        outputs,
                    },
                    Job {
                        left: values::<T>(&saved.attributes),
                        inputs: hidden,
                        right: &pulled.for_before,
                        outputs: width,
                    },
                    Job {
                        left: &pulled.joined,
                        inputs: joint,
                        right: &pulled.for_before,
                        outputs: width,
                    },
                    Job {
                        left: nodes,
                        inputs,
                        right: &ends[0],
                        outputs: joint,
                    },
                    Job {
                        left: nodes,
                        inputs,
                        right: &ends[1],
                        outputs: joint,
                    },
                ])
            },
        );
        let mut for_bias = vec![T::ZERO; joint];
        add_rows(&ends[1], &mut for_bias);
        let mut sums = vec![T::ZERO; width + outputs];
        add_rows(&pulled.partial, &mut sums);
        let for_packed_bias = sums.split_off(width);
        debug_assert_eq!(
            [wm.len(), wp.len()],
            [of_attributes.len() + of_joint.len(), packed.len()]
        );
        let results = [
            tensor(pulled.for_attributes, [edges, hidden]),
            tensor(for_node, saved.node.shape()),
            tensor([of_sender, of_receiver].concat(), [2 * inputs, joint]),
            tensor(for_bias, [joint]),
            tensor([of_attributes, of_joint].concat(), [hidden + joint, width]),
            tensor(sums, [width]),
            tensor(packed, [width, outputs]),
            tensor(for_packed_bias, [outputs]),
        ];
        let mut wanted = wanted.into_iter();
        results.map(|gradient| wanted.next().unwrap_or(false).then_some(gradient))
    }
}

/// Edge by edge: gradients, and what the gradients of the weights are made of.
struct PulledMessages<T> {
    for_attributes: Vec<T>,
    message: Vec<T>,
    for_before: Vec<T>,
    joined: Vec<T>,
    for_joint: Vec<T>,
    /// Sums over blocks: of `for_before`, of the given gradient.
    partial: Vec<T>,
}

impl Messages {
    fn pull_back_edges<T: Scalar>(&self, saved: &SavedMessages, given: &[T]) -> PulledMessages<T> {
        let [edges, hidden] = [saved.attributes.shape()[0], saved.attributes.shape()[1]];
        let [joint, width, outputs] = saved.weights.each_ref().map(|weight| weight.shape()[1]);
        let [_, wm, wp] = saved.weights.each_ref().map(values::<T>);
        let (to_attributes, to_joint) = wm.split_at(hidden * width);
        let before = values::<T>(&saved.before);
        let [of_sender, of_receiver] = saved.parts.each_ref().map(values::<T>);
        let block = block_rows(edges);
        let widths =
            [hidden, width, width, joint, joint].map(|width| (edges * width, block * width));
        let [a, b, c, d, e] = widths.map(|width| width.0);
        let lens = [a, b, c, d, e, edges.div_ceil(block) * (width + outputs)];
        let [a, b, c, d, e] = widths.map(|width| width.1);
        let [
            for_attributes,
            message,
            for_before,
            joined,
            for_joint,
            partial,
        ] = build_each(lens, [a, b, c, d, e, width + outputs], |number, parts| {
            let [
                for_attributes,
                message,
                for_before,
                joined,
                for_joint,
                partial,
            ] = parts;
            let first = number * block;
            let rows = block.min(edges - first);
            let given = &given[first * outputs..][..rows * outputs];
            let (for_bias, for_packed_bias) = partial.split_at_mut(width);
            add_rows(given, for_packed_bias);
            multiply(
                Matrix::new(given, outputs),
                Matrix::new(wp, outputs).transposed(),
                false,
                for_before,
            );
            activate_and_pull_back(
                &before[first * width..][..rows * width],
                None,
                0,
                for_before,
                message,
            );
            add_rows(for_before, for_bias);
            let for_message = Matrix::new(for_before, width);
            multiply(
                for_message,
                Matrix::new(to_attributes, width).transposed(),
                false,
                for_attributes,
            );
            multiply(
                for_message,
                Matrix::new(to_joint, width).transposed(),
                false,
                for_joint,
            );
            let mut sum = vec![T::ZERO; rows * joint];
            self.ends
                .join(first, joint, of_sender, of_receiver, &mut sum);
            activate_and_pull_back(&sum, self.dropout, first * joint, for_joint, joined);
        });
        PulledMessages {
            for_attributes,
            message,
            for_before,
            joined,
            for_joint,
            partial,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    const NODES: usize = 9;

    /// Every node sends to the next four or so; both directions of a pair share its row.
    fn graph() -> (RowIndex, Ends) {
        let edges: Vec<[usize; 2]> = (0..NODES)
            .flat_map(|node| (1..5).map(move |step| [node, (node + step * step) % NODES]))
            .filter(|e| e[0] != e[1])
            .collect();
        let mut pairs: Vec<[usize; 2]> = edges
            .iter()
            .map(|e| [e[0].min(e[1]), e[0].max(e[1])])
            .collect();
        let of_edge = pairs.clone();
        pairs.sort_unstable();
        pairs.dedup();
        let pair = of_edge
            .iter()
            .map(|pair| pairs.binary_search(pair).unwrap())
            .collect::<Vec<_>>();
        let index = |end: usize| {
            RowIndex::new(
                NODES,
                &edges.iter().map(|edge| edge[end]).collect::<Vec<_>>(),
            )
            .unwrap()
        };
        (
            RowIndex::new(pairs.len(), &pair).unwrap(),
            Ends {
                senders: index(1),
                receivers: index(0),
            },
        )
    }

    fn scaled(x: &Tensor<1>, rows: usize, columns: usize) -> Tensor<2> {
        x.clone().reshape([rows, columns]) / (rows as f64).sqrt()
    }

    #[test]
    fn attributes_agree_with_their_composition() {
        let ((pairs, ends), (wide, inputs, outputs)) = (graph(), (11, 5, 7));
        let [inner, outer] = [3, 4].map(|seed| {
            Some(Dropout {
                probability: 0.3,
                seed,
            })
        });
        for dropouts in [[None; 2], [inner, outer], [None, outer], [inner, None]] {
            type Attributes = fn(
                &RowIndex,
                Ends,
                Tensor<2>,
                [Tensor<2>; 2],
                (Tensor<2>, Tensor<1>),
                [Option<Dropout>; 2],
            ) -> Tensor<2>;
            let apply = |attributes: Attributes, x: &[Tensor<1>]| {
                let nodes = [1, 2].map(|at| x[at].clone().reshape([NODES, inputs]));
                let map = (scaled(&x[3], wide + 2 * inputs, outputs), x[4].clone());
                let embedding = x[0].clone().reshape([pairs.rows(), wide]);
                attributes(&pairs, ends.clone(), embedding, nodes, map, dropouts)
                    .reshape([ends.edges() * outputs])
            };
            let sizes = [
                pairs.rows() * wide,
                NODES * inputs,
                NODES * inputs,
                (wide + 2 * inputs) * outputs,
                outputs,
            ];
            let given: Vec<_> = (0..)
                .zip(sizes)
                .map(|(seed, size)| numbers(size, seed))
                .collect();
            check(
                |x| apply(edge_attributes, x),
                |x| apply(composed_attributes, x),
                &given,
            );
        }
    }

    #[test]
    fn messages_agree_with_their_composition() {
        let ((_, ends), [hidden, inputs, joint, width, outputs]) = (graph(), [6, 5, 4, 7, 9]);
        for dropout in [
            None,
            Some(Dropout {
                probability: 0.3,
                seed: 8,
            }),
        ] {
            type Messages = fn(
                Ends,
                Tensor<2>,
                Tensor<2>,
                [(Tensor<2>, Tensor<1>); 3],
                Option<Dropout>,
            ) -> Tensor<2>;
            let apply = |messages: Messages, x: &[Tensor<1>]| {
                let maps = [
                    (scaled(&x[2], 2 * inputs, joint), x[3].clone()),
                    (scaled(&x[4], hidden + joint, width), x[5].clone()),
                    (scaled(&x[6], width, outputs), x[7].clone()),
                ];
                let (attributes, node) = (
                    x[0].clone().reshape([ends.edges(), hidden]),
                    x[1].clone().reshape([NODES, inputs]),
                );
                messages(ends.clone(), attributes, node, maps, dropout)
                    .reshape([ends.edges() * outputs])
            };
            let sizes = [
                ends.edges() * hidden,
                NODES * inputs,
                2 * inputs * joint,
                joint,
                (hidden + joint) * width,
                width,
                width * outputs,
                outputs,
            ];
            let given: Vec<_> = (0..)
                .zip(sizes)
                .map(|(seed, size)| numbers(size, seed))
                .collect();
            check(
                |x| apply(edge_messages, x),
                |x| apply(composed_messages, x),
                &given,
            );
        }
    }

    #[test]
    fn a_graph_without_edges_has_no_attributes_and_no_messages() {
        let device = burn::tensor::Device::flex().autodiff();
        let none = RowIndex::new(2, &[]).unwrap();
        let ends = Ends::of([&none, &none]);
        let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &device);
        let map = |inputs: usize| {
            (
                Tensor::<2>::ones([inputs, 3], &device).require_grad(),
                Tensor::<1>::zeros([3], &device),
            )
        };
        let node = zeros([2, 3]).require_grad();
        let (first, maps) = (map(10), [map(6), map(7), map(3)]);
        let attributes = edge_attributes(
            &none,
            ends.clone(),
            zeros([2, 4]),
            [node.clone(), node.clone()],
            first.clone(),
            [None; 2],
        );
        let messages = edge_messages(ends, zeros([0, 4]), node.clone(), maps.clone(), None);
        assert_eq!([attributes.dims(), messages.dims()], [[0, 3]; 2]);
        let gradients = (attributes.sum() + messages.sum()).backward();
        for weight in [&first.0, &maps[0].0, &maps[1].0, &maps[2].0, &node] {
            assert_eq!(
                weight
                    .grad(&gradients)
                    .unwrap()
                    .abs()
                    .sum()
                    .into_scalar::<f32>(),
                0.0
            );
        }
    }

    #[test]
    #[should_panic(expected = "senders and receivers")]
    fn ends_of_other_edges_are_refused() {
        Ends::of([
            &RowIndex::new(2, &[0, 1]).unwrap(),
            &RowIndex::new(2, &[0]).unwrap(),
        ]);
    }
}
