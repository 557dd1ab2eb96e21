//! Updates of the pair representation: tokens to pairs, triangle multiplications, a transition. Registers take part.

use crate::{
    ProteinaConfig,
    layers::{Affine, LayerNorm, Linear},
    layout::{ChainRun, Layout, NoteRows, Notes},
};
use burn::{
    module::Module,
    tensor::{Tensor, activation::relu},
};
use equivbench_kernels::{is_host, lookup_sum, sigmoid_gate};
use equivbench_plugin::{Draw, Law};

/// The way in which a triangle multiplication sums over the third token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// `w_ij = Σ_k a_ik b_jk`.
    Outgoing,
    /// `w_ij = Σ_k a_ki b_kj`.
    Incoming,
}

/// Triangle multiplication.
#[derive(Module, Debug)]
pub(crate) struct Triangle {
    layer_norm_in: LayerNorm,
    linear_a_p: Affine,
    linear_a_g: Affine,
    linear_b_p: Affine,
    linear_b_g: Affine,
    layer_norm_out: LayerNorm,
    linear_z: Affine,
    linear_g: Affine,
}

impl Triangle {
    fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        let (p, q) = (config.pair_width, config.triangle_width);
        let (zeros, ones) = (Law::Constant(0.0), Law::Constant(1.0));
        let value = Law::Truncated((1.0 / p as f64).sqrt());
        Self {
            layer_norm_in: LayerNorm::new(p, draw),
            linear_a_p: Affine::of_laws([p, q], [value, zeros], draw),
            linear_a_g: Affine::of_laws([p, q], [zeros, ones], draw),
            linear_b_p: Affine::of_laws([p, q], [value, zeros], draw),
            linear_b_g: Affine::of_laws([p, q], [zeros, ones], draw),
            layer_norm_out: LayerNorm::new(q, draw),
            linear_z: Affine::of_laws([q, p], [zeros, zeros], draw),
            linear_g: Affine::of_laws([p, p], [zeros, ones], draw),
        }
    }

    /// The increment of the representation `[pairs, p]`.
    fn forward(&self, z: Tensor<2>, layout: &Layout, direction: Direction) -> Tensor<2> {
        let normed = self.layer_norm_in.forward(z);
        let a = sigmoid_gate(
            self.linear_a_p.forward(normed.clone()),
            self.linear_a_g.forward(normed.clone()),
        );
        let b = sigmoid_gate(
            self.linear_b_p.forward(normed.clone()),
            self.linear_b_g.forward(normed.clone()),
        );
        let w = multiply_triangles(a, b, layout, direction);
        sigmoid_gate(
            self.linear_z.forward(self.layer_norm_out.forward(w)),
            self.linear_g.forward(normed),
        )
    }
}

/// `a`, `b` and the result are `[pairs, q]`; sums over the tokens of the same chain.
fn multiply_triangles(
    a: Tensor<2>,
    b: Tensor<2>,
    layout: &Layout,
    direction: Direction,
) -> Tensor<2> {
    let width = a.dims()[1];
    let of_run = |x: &Tensor<2>, run: &ChainRun| {
        let own = if layout.runs.len() == 1 {
            x.clone()
        } else {
            x.clone().slice([run.pair_rows(), 0..width])
        };
        own.reshape([run.chains, run.tokens, run.tokens, width])
            .permute([0, 3, 1, 2])
    };
    let products = layout.runs.iter().map(|run| {
        let (a, b) = (of_run(&a, run), of_run(&b, run));
        let w: Tensor<4> = match direction {
            Direction::Outgoing => a.matmul(b.swap_dims(2, 3)),
            Direction::Incoming => a.swap_dims(2, 3).matmul(b),
        };
        w.permute([0, 2, 3, 1])
            .reshape([run.pair_rows().len(), width])
    });
    Tensor::cat(products.collect(), 0)
}

/// The sum over both ends of every pair, run by run.
fn broadcast_sum(of_column: Tensor<2>, of_row: Tensor<2>, layout: &Layout) -> Tensor<2> {
    let width = of_row.dims()[1];
    let sums = layout.runs.iter().map(|run| {
        let [column, row] = [&of_column, &of_row].map(|x| {
            x.clone()
                .slice([run.token_rows(), 0..width])
                .reshape([run.chains, run.tokens, width])
        });
        (column.unsqueeze_dim::<4>(1) + row.unsqueeze_dim::<4>(2))
            .reshape([run.pair_rows().len(), width])
    });
    Tensor::cat(sums.collect(), 0)
}

/// `W_2 relu( W_1 LN(z) )`.
#[derive(Module, Debug)]
pub(crate) struct PairTransition {
    layer_norm: LayerNorm,
    linear_1: Affine,
    linear_2: Affine,
}

impl PairTransition {
    fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        let p = config.pair_width;
        let (zeros, value) = (Law::Constant(0.0), Law::Truncated((2.0 / p as f64).sqrt()));
        Self {
            layer_norm: LayerNorm::new(p, draw),
            linear_1: Affine::of_laws([p, 2 * p], [value, zeros], draw),
            linear_2: Affine::of_laws([2 * p, p], [zeros, zeros], draw),
        }
    }

    fn forward(&self, z: Tensor<2>) -> Tensor<2> {
        self.linear_2
            .forward(relu(self.linear_1.forward(self.layer_norm.forward(z))))
    }
}

/// Tokens to pairs, triangles, transition.
#[derive(Module, Debug)]
pub(crate) struct PairUpdate {
    layer_norm_in: LayerNorm,
    linear_x: Linear,
    tri_mult_out: Triangle,
    tri_mult_in: Triangle,
    transition_out: PairTransition,
}

impl PairUpdate {
    pub(crate) fn new(config: &ProteinaConfig, draw: &mut Draw<'_>) -> Self {
        Self {
            layer_norm_in: LayerNorm::new(config.token_width, draw),
            linear_x: Linear::new(config.token_width, 2 * config.pair_width, draw),
            tri_mult_out: Triangle::new(config, draw),
            tri_mult_in: Triangle::new(config, draw),
            transition_out: PairTransition::new(config, draw),
        }
    }

    /// From `z [pairs, p]` and the tokens after layer `layer`.
    pub(crate) fn forward(
        &self,
        z: Tensor<2>,
        tokens: Tensor<2>,
        layout: &Layout,
        notes: &Notes,
        layer: usize,
    ) -> Tensor<2> {
        let z = z + self.outer_sum(tokens, layout);
        let z = self.noted(z, "tri_out", notes, layer, |z| {
            self.tri_mult_out.forward(z, layout, Direction::Outgoing)
        });
        let z = self.noted(z, "tri_in", notes, layer, |z| {
            self.tri_mult_in.forward(z, layout, Direction::Incoming)
        });
        let z = self.noted(z, "transition", notes, layer, |z| {
            self.transition_out.forward(z)
        });
        notes.add(
            NoteRows::TokenPairs,
            || format!("pair_after_update{layer}"),
            || z.clone(),
        );
        z
    }

    fn noted(
        &self,
        z: Tensor<2>,
        name: &str,
        notes: &Notes,
        layer: usize,
        branch: impl FnOnce(Tensor<2>) -> Tensor<2>,
    ) -> Tensor<2> {
        let increment = branch(z.clone());
        notes.add(
            NoteRows::TokenPairs,
            || format!("p{layer}.{name}"),
            || increment.clone(),
        );
        z + increment
    }

    /// `α_j + β_i` of every pair `i, j`: the first half of the map belongs to the column, the second to the row.
    fn outer_sum(&self, tokens: Tensor<2>, layout: &Layout) -> Tensor<2> {
        let both = self.linear_x.forward(self.layer_norm_in.forward(tokens));
        let width = both.dims()[1] / 2;
        let (of_column, of_row) = (
            both.clone().narrow(1, 0, width),
            both.narrow(1, width, width),
        );
        if !is_host(&of_row.device()) {
            return broadcast_sum(of_column, of_row, layout);
        }
        let [rows, columns] = layout.ends_of_pairs().expect("ends of pairs are tokens");
        lookup_sum(vec![of_column, of_row], &[columns, rows])
    }
}
