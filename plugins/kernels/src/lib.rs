//! Fused, differentiable operations for [`burn::Tensor`].
//!
//! Burn's `flex` CPU backend runs element-wise operations on one thread and builds most composite operations (softmax,
//! norms, attention) from many small passes. The functions here do the same mathematics in one pass forward and one
//! pass backward, in parallel, for `f32` and `f64`.
//!
//! * On any other device (CUDA, ...) every function falls back to a composition of ordinary tensor operations, which
//!   [`plain`] also exposes: it is the definition that the fused kernels are tested against.
//! * Results do not depend on the number of threads: work is cut at fixed places, and partial sums are combined in order.
//! * Nor on the instruction set, but for matrix products (`gemm`, as in Burn). A process may choose its set: [`instruction_set::choose`].
//! * Only first derivatives exist, as in Burn's autodiff itself.
//!
//! | operation | result | gradients |
//! |---|---|---|
//! | [`gelu`], [`silu`] | activations, element by element | `x` |
//! | [`swiglu`] | `a · silu(g)` of the halves `a`, `g` of the last axis | `x` |
//! | [`sigmoid_gate`] | `x · σ(gate)` | `x`, `gate` |
//! | [`gated_residual`] | `x + y · σ(gates[group of the row])` | `x`, `y`, `gates` |
//! | [`dropout`] | `x` with random elements dropped | `x` |
//! | [`rms_norm`] | `gain · x / rms(x)` over the last axis | `x`, `gain` |
//! | [`layer_norm`] | `(x - mean) / deviation`, times weight, plus bias | `x`, `weight`, `bias` |
//! | [`adaptive_layer_norm`] | the same, with a scale and a shift for each group of rows | `x`, `scale`, `shift` |
//! | [`group_norm_silu`] | SiLU of the group norm of voxel grids, then dropout | `x`, `scale`, `shift` |
//! | [`softmax`] | `softmax(scores)` over the last axis | `scores` |
//! | [`masked_softmax`] | `softmax(scores + bias_scale · bias)` over valid keys | `scores`, `bias_scale` |
//! | [`slot_attention`] | attention among some twenty slots of each centre | `qkv`, `bias_scale` |
//! | [`pair_biased_attention`] | attention among some hundred tokens with a bias for each pair | `q`, `k`, `v`, `bias` |
//! | [`gather_rows`] | rows of `x` by index | `x` |
//! | [`lookup_sum`] | sums of rows of one to three small tables by index | the tables |
//! | [`segment_sum`] | sums over consecutive rows | `x` |
//! | [`affine()`], [`activated_affine`] | `x W + b`, and `dropout(gelu(x W + b))` | `x`, weight, bias |
//! | [`feed_forward()`] | a feed-forward network with its norm, dropouts and residual connection | `x`, gain, weights, biases |
//! | [`edge_attributes`], [`edge_messages`] | affine maps of what edges of a graph and their ends hold | all tensors |
//! | [`conv3d()`] | convolution of cubic grids: same side, halved or doubled | `x`, `weight`, `bias` |
//! | [`banded_radial`] | product of a banded matrix with a weight, plus a bias | `weight`, `bias` |
//!
//! Two functions work on plain slices, for the optimiser of the training loop: [`optimiser_step`] updates all parameters, moments and
//! averages in one parallel pass, [`global_norm`] is the norm of all gradients.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//!
//! let device = Device::flex().autodiff();
//! let x = Tensor::<2>::from_floats([[-1.0, 0.0, 2.0]], &device).require_grad();
//! let gradients = equivbench_kernels::gelu(x.clone()).sum().backward();
//! assert_eq!(x.grad(&gradients).unwrap().dims(), [1, 3]);
//! ```

mod activation;
mod affine;
mod allocator;
mod attention;
mod choice;
mod conv3d;
#[cfg(feature = "cuda")]
mod cube;
mod dispatch;
mod dropout;
mod error;
mod gate;
mod gather;
mod group_norm;
mod lanes;
mod layer_norm;
mod lookup;
mod norm;
mod optimiser;
mod pair_attention;
mod parallel;
pub mod plain;
mod radial;
mod residual;
mod scalar;
mod simd;
mod softmax;
#[cfg(test)]
mod testing;
mod tile;
mod wide;

pub use activation::{gelu, silu};
pub use affine::{
    activated_affine, affine, edge_attributes, edge_messages, feed_forward, product_set,
};
pub use allocator::tune_allocator;
pub use attention::{SlotAttention, slot_attention};
pub use choice::RowChoice;
pub use conv3d::{Conv3d, conv3d};
pub use dropout::{Dropout, dropout};
pub use equivbench_instruction_set as instruction_set;
pub use error::KernelError;
pub use gate::{sigmoid_gate, swiglu};
pub use gather::{RowIndex, Segments, gather_rows, segment_sum};
pub use group_norm::group_norm_silu;
pub use layer_norm::{adaptive_layer_norm, layer_norm};
pub use lookup::lookup_sum;
pub use norm::rms_norm;
pub use optimiser::{
    ParameterUpdate, Real, UpdateFactors, UpdateRule, global_norm, optimiser_step,
};
pub use pair_attention::pair_biased_attention;
pub use plain::{product, sigmoid};
pub use radial::{Bands, banded_radial};
pub use residual::gated_residual;
pub use softmax::{masked_softmax, softmax};
pub use wide::is_host;
