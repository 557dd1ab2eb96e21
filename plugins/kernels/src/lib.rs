//! Fused, differentiable operations for [`burn::Tensor`].
//!
//! Burn's `flex` CPU backend runs element-wise operations on one thread and builds most composite operations (softmax,
//! norms, attention) from many small passes. The functions here do the same mathematics in one pass forward and one
//! pass backward, in parallel, for `f32` and `f64`.
//!
//! * On any other device (CUDA, ...) every function falls back to a composition of ordinary tensor operations, which
//!   [`plain`] also exposes: it is the definition that the fused kernels are tested against.
//! * Results do not depend on the number of threads: work is cut at fixed places, and partial sums are combined in order.
//! * Only first derivatives exist, as in Burn's autodiff itself.
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
mod allocator;
mod attention;
mod dispatch;
mod dropout;
mod error;
mod gather;
mod lanes;
mod norm;
mod parallel;
pub mod plain;
mod radial;
mod scalar;
mod simd;
mod softmax;
#[cfg(test)]
mod testing;
mod tile;

pub use activation::{gelu, silu};
pub use allocator::tune_allocator;
pub use attention::{SlotAttention, slot_attention};
pub use dropout::{Dropout, dropout};
pub use error::KernelError;
pub use gather::{RowIndex, Segments, gather_rows, segment_sum};
pub use norm::rms_norm;
pub use radial::{Bands, banded_radial};
pub use softmax::masked_softmax;
