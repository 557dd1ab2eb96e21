//! The same functions as compositions of ordinary tensor operations: their definition, their test oracle, and what runs
//! on devices that have no fused kernel.

use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData, activation};

use crate::{Bands, Dropout, RowIndex, Segments, SlotAttention};

/// See [`crate::gelu`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::gelu(x)
}

/// See [`crate::silu`].
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activation::silu(x)
}

/// See [`crate::rms_norm`].
pub fn rms_norm<const D: usize>(x: Tensor<D>, gain: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let root = x.clone().square().mean_dim(D - 1).add_scalar(epsilon).sqrt();
    x.div(root).mul(gain.unsqueeze())
}

/// See [`crate::masked_softmax`].
pub fn masked_softmax(scores: Tensor<4>, bias: Tensor<3>, bias_scale: Tensor<1>, key_mask: Tensor<2>) -> Tensor<4> {
    // Low enough to lose against any score, and finite so that a row without valid keys makes no NaN.
    const MASKED: f64 = -1e30;
    let [n, keys] = key_mask.dims();
    let masked = key_mask.reshape([n, 1, 1, keys]).equal_elem(0);
    let logits = scores + (bias * bias_scale.unsqueeze()).unsqueeze_dim(1);
    let masked = masked.expand(logits.dims());
    let logits = logits.mask_fill(masked.clone(), MASKED);
    let highest = logits.clone().detach().max_dim(3);
    let weights = (logits - highest).exp().mask_fill(masked, 0.0);
    // The highest valid key adds exp(0) = 1, so the bound acts only where no key is valid.
    let total = weights.clone().sum_dim(3).clamp_min(0.5);
    weights / total
}

/// See [`crate::slot_attention`].
pub fn slot_attention(qkv: Tensor<3>, options: SlotAttention) -> Tensor<3> {
    let SlotAttention { heads, bias, bias_scale, key_mask, dropout } = options;
    let [n, slots, packed] = qkv.dims();
    let width = packed / 3;
    let dim = width / heads;
    let part = |which: usize| {
        let columns = qkv.clone().slice([0..n, 0..slots, which * width..(which + 1) * width]);
        columns.reshape([n, slots, heads, dim]).swap_dims(1, 2)
    };
    let scores = part(0).matmul(part(1).swap_dims(2, 3)).mul_scalar(1.0 / (dim as f64).sqrt());
    let mut weights = masked_softmax(scores, bias, bias_scale, key_mask);
    if let Some(dropout) = dropout {
        weights = weights * mask(dropout, n * heads * slots, slots, &qkv).reshape([n, heads, slots, slots]);
    }
    weights.matmul(part(2)).swap_dims(1, 2).reshape([n, slots, width])
}

/// See [`crate::dropout`].
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    let elements = x.shape().num_elements();
    let rows = elements.div_ceil(Dropout::COLUMNS);
    let mask = mask(dropout, rows, Dropout::COLUMNS, &x).slice(0..elements).reshape(x.dims());
    x * mask
}

/// A flat mask of 0 and the inverse chance of survival, on the device and in the type of `like`.
fn mask<const D: usize>(dropout: Dropout, rows: usize, columns: usize, like: &Tensor<D>) -> Tensor<1> {
    let mask = dropout.mask(rows, columns);
    let data = TensorData::new(mask, [rows * columns]).convert_dtype(like.dtype());
    Tensor::from_data(data, (&like.device().inner(), like.dtype()))
}

/// See [`crate::gather_rows`].
pub fn gather_rows(x: Tensor<2>, index: &RowIndex) -> Tensor<2> {
    let index = int_tensor(index.index(), &x.device());
    x.select(0, index)
}

/// See [`crate::segment_sum`].
pub fn segment_sum(x: Tensor<2>, segments: &Segments) -> Tensor<2> {
    let owners = int_tensor(&segments.owners(), &x.device());
    let zeros = Tensor::zeros([segments.count(), x.dims()[1]], (&x.device(), x.dtype()));
    zeros.select_assign(0, owners, x, IndexingUpdateOp::Add)
}

/// See [`crate::banded_radial`].
pub fn banded_radial(bands: &Bands, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    dense(bands, &weight.device(), weight.dtype()).matmul(weight) + bias.unsqueeze()
}

/// The bands as a full matrix `[rows, basis]`.
fn dense(bands: &Bands, device: &Device, dtype: DType) -> Tensor<2> {
    let [rows, width] = bands.values.dims();
    let first = bands.start.iter();
    let columns: Vec<i64> = first.flat_map(|&start| (0..width as i64).map(move |k| i64::from(start) + k)).collect();
    let columns = Tensor::<2, Int>::from_data(TensorData::new(columns, [rows, width]), device);
    let zeros = Tensor::zeros([rows, bands.basis()], (device, dtype));
    zeros.scatter(1, columns, bands.values.clone(), IndexingUpdateOp::Add)
}

fn int_tensor(values: &[u32], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.iter().map(|&value| i64::from(value)).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
