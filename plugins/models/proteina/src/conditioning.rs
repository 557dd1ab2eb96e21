//! What the network knows beside the cloud: flow time and fold. All residues of a chain share it, so it is computed once for each
//! different flow time. Registers are conditioned on zeros.

use crate::{
    ProteinaConfig,
    features::Features,
    layers::{Gated, Linear},
    layout::{NoteRows, Notes},
};
use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use equivbench_kernels::{RowIndex, gather_rows};
use equivbench_plugin::{Draw, Law};

/// The three fold vectors. Chains carry no fold labels here, so one vector of each table is all that is ever used.
#[derive(Module, Debug)]
pub(crate) struct FoldVectors {
    /// `[1, fold_width]`: class.
    embedding_c: Param<Tensor<2>>,
    /// `[1, fold_width]`: architecture.
    embedding_a: Param<Tensor<2>>,
    /// `[1, fold_width]`: topology.
    embedding_t: Param<Tensor<2>>,
}

/// Flow time and fold to a first conditioning vector.
#[derive(Module, Debug)]
pub(crate) struct ConditioningFactory {
    fold: FoldVectors,
    linear_out: Linear,
}

/// The conditioning of tokens.
#[derive(Module, Debug)]
pub(crate) struct Conditioning {
    cond_factory: ConditioningFactory,
    transition_c_1: Gated,
    transition_c_2: Gated,
}

impl Conditioning {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        let (width, fold) = (config.conditioning_width, config.fold_width);
        let mut vector = || draw.parameter([1, fold], Law::Normal(1.0));
        let fold_vectors = FoldVectors {
            embedding_c: vector(),
            embedding_a: vector(),
            embedding_t: vector(),
        };
        let cond_factory = ConditioningFactory {
            fold: fold_vectors,
            linear_out: Linear::new(config.time_width + 3 * fold, width, draw),
        };
        Self {
            cond_factory,
            transition_c_1: Gated::new(width, 2 * width, draw),
            transition_c_2: Gated::new(width, 2 * width, draw),
        }
    }

    /// `[1 + times, c]`: zeros for registers, then a vector for each flow time.
    pub(crate) fn table(&self, features: &Features, notes: &Notes) -> Tensor<2> {
        let time = features.time_embedding.clone();
        let FoldVectors {
            embedding_c,
            embedding_a,
            embedding_t,
        } = &self.cond_factory.fold;
        let fold = Tensor::cat(
            vec![embedding_c.val(), embedding_a.val(), embedding_t.val()],
            1,
        );
        let linear = self.cond_factory.linear_out.forward(Tensor::cat(
            vec![time.clone(), fold.repeat_dim(0, time.dims()[0])],
            1,
        ));
        let first = self.transition_c_1.forward(linear.clone());
        let second = self.transition_c_2.forward(first.clone());
        notes.add(
            NoteRows::Chains,
            || "time_emb".into(),
            || of_chains(time, features),
        );
        for (name, x) in [
            ("cond_linear", &linear),
            ("cond_after_t1", &first),
            ("cond", &second),
        ] {
            notes.add(
                NoteRows::Residues,
                || name.into(),
                || of_residues(x.clone(), features),
            );
        }
        Tensor::cat(vec![second.zeros_like().narrow(0, 0, 1), second], 0)
    }
}

/// Rows of times for every chain.
fn of_chains(x: Tensor<2>, features: &Features) -> Tensor<2> {
    let rows = RowIndex::new(x.dims()[0], &features.time_of_chain)
        .expect("chains have times that are there");
    gather_rows(x, &rows)
}

/// Rows of times for every residue.
fn of_residues(x: Tensor<2>, features: &Features) -> Tensor<2> {
    let lengths = features.layout.lengths();
    let times: Vec<usize> = features
        .time_of_chain
        .iter()
        .zip(lengths)
        .flat_map(|(&time, &n)| std::iter::repeat_n(time, n))
        .collect();
    let rows = RowIndex::new(x.dims()[0], &times).expect("chains have times that are there");
    gather_rows(x, &rows)
}
