//! The same functions as compositions of ordinary tensor operations: their definition, their test oracle, and what runs
//! on devices that have no fused kernel.

use burn::tensor::ops::{ConvOptions, ConvTransposeOptions};
use burn::tensor::{
    Bool, DType, Device, IndexingUpdateOp, Int, Tensor, TensorData, activation, module,
};

use crate::{
    Bands, Conv3d, Dropout, RowChoice, RowIndex, Segments, SlotAttention,
    wide::{self, is_host},
};

/// See [`crate::gelu`].
pub fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_host(&x.device()) {
        activation::gelu(x)
    } else {
        wide::gelu(x)
    }
}

/// See [`crate::silu`].
pub fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_host(&x.device()) {
        activation::silu(x)
    } else {
        wide::silu(x)
    }
}

/// See [`crate::rms_norm`].
pub fn rms_norm<const D: usize>(x: Tensor<D>, gain: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let root = x
        .clone()
        .square()
        .mean_dim(D - 1)
        .add_scalar(epsilon)
        .sqrt();
    x.clone().div(root).mul(along_rows(gain, &x))
}

/// See [`crate::layer_norm`].
pub fn layer_norm<const D: usize>(
    x: Tensor<D>,
    affine: Option<(Tensor<1>, Tensor<1>)>,
    epsilon: f64,
) -> Tensor<D> {
    let centred = x.clone() - x.mean_dim(D - 1);
    let root = centred
        .clone()
        .square()
        .mean_dim(D - 1)
        .add_scalar(epsilon)
        .sqrt();
    let normal = centred / root;
    match affine {
        Some((weight, bias)) => {
            let [weight, bias] = [weight, bias].map(|values| along_rows(values, &normal));
            normal * weight + bias
        }
        None => normal,
    }
}

/// See [`crate::group_norm_silu`].
pub fn group_norm_silu(
    x: Tensor<5>,
    scale: Tensor<1>,
    shift: Tensor<1>,
    groups: usize,
    epsilon: f64,
    dropout: Option<Dropout>,
) -> Tensor<5> {
    if !is_host(&x.device()) {
        return wide::group_norm_silu(x, [scale, shift], groups, epsilon, dropout);
    }
    let shape @ [batch, channels, ..] = x.dims();
    let voxels = shape[2..].iter().product::<usize>();
    let normal = layer_norm(
        x.reshape([batch, groups, channels / groups * voxels]),
        None,
        epsilon,
    );
    let [scale, shift] = [scale, shift].map(|values| values.reshape([1, channels, 1]));
    let output =
        activation::silu(normal.reshape([batch, channels, voxels]) * scale + shift).reshape(shape);
    match dropout.filter(Dropout::acts) {
        Some(dropout) => self::dropout(output, dropout),
        None => output,
    }
}

/// See [`crate::adaptive_layer_norm`].
pub fn adaptive_layer_norm(
    x: Tensor<2>,
    scale: Tensor<2>,
    shift: Tensor<2>,
    groups: &RowChoice,
    epsilon: f64,
) -> Tensor<2> {
    let x = x.clone().mask_fill(chose_nothing(groups, &x), 0.0);
    layer_norm(x, None, epsilon) * chosen_rows(scale, groups) + chosen_rows(shift, groups)
}

/// See [`crate::swiglu`].
pub fn swiglu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let width = x.dims()[D - 1] / 2;
    let [a, gate] = [0, 1].map(|half| x.clone().narrow(D - 1, half * width, width));
    a * silu(gate)
}

/// See [`crate::sigmoid_gate`].
pub fn sigmoid_gate<const D: usize>(x: Tensor<D>, gate: Tensor<D>) -> Tensor<D> {
    x * sigmoid(gate)
}

/// See [`crate::lookup_sum`].
pub fn lookup_sum(tables: Vec<Tensor<2>>, choices: &[RowChoice]) -> Tensor<2> {
    let products = tables
        .into_iter()
        .zip(choices)
        .map(|(table, choice)| chosen_rows(table, choice));
    products.reduce(Tensor::add).expect("one table or more")
}

/// The chosen row of `table` for every choice, zeros where nothing was chosen.
fn chosen_rows(table: Tensor<2>, choice: &RowChoice) -> Tensor<2> {
    if is_host(&table.device()) {
        one_hot(choice, &table).matmul(table)
    } else {
        wide::chosen_rows(table, choice)
    }
}

/// Where no row was chosen, in the shape of `like [choices, width]`.
fn chose_nothing(choice: &RowChoice, like: &Tensor<2>) -> Tensor<2, Bool> {
    let nothing = choice.index().iter().map(|&row| row == RowChoice::NONE);
    let nothing = TensorData::new(nothing.collect::<Vec<bool>>(), [choice.index().len(), 1]);
    Tensor::<2, Bool>::from_data(nothing, &like.device().inner()).expand(like.dims())
}

/// `values [width]` for every row of `like [.., width]`, to be added or multiplied.
pub(crate) fn along_rows<const D: usize>(values: Tensor<1>, like: &Tensor<D>) -> Tensor<D> {
    if is_host(&like.device()) {
        return values.unsqueeze();
    }
    let (rows, width) = (
        like.shape().num_elements() / values.dims()[0].max(1),
        like.dims(),
    );
    wide::equal_rows(values, rows).reshape(width)
}

/// `x W + b`.
pub(crate) fn mapped(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let product = product(x, weight);
    let bias = along_rows(bias, &product);
    product + bias
}

/// `x W` for `x [rows, inputs]` and `W [inputs, outputs]`, Burn's own on the processor; on other devices the gradient of the weight is
/// added up in parts of the rows.
pub fn product(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    if is_host(&x.device()) {
        x.matmul(weight)
    } else {
        wide::product(x, weight)
    }
}

/// `1 / (1 + exp(-x))`, Burn's own on the processor; on other devices in the precision of `x`.
pub fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    if is_host(&x.device()) {
        activation::sigmoid(x)
    } else {
        wide::sigmoid(x)
    }
}

/// `[choices, rows]`: 1 at the row that was chosen, 0 elsewhere, on the device and in the type of `like`.
fn one_hot<const D: usize>(choice: &RowChoice, like: &Tensor<D>) -> Tensor<2> {
    let (device, dtype) = (like.device().inner(), like.dtype());
    let chosen = choice.index().iter().map(|&row| {
        if row == RowChoice::NONE {
            -1
        } else {
            i64::from(row)
        }
    });
    let chosen = TensorData::new(chosen.collect::<Vec<i64>>(), [choice.index().len(), 1]);
    let chosen = Tensor::<2, Int>::from_data(chosen, &device);
    let rows = Tensor::<1, Int>::arange(0..choice.rows() as i64, &device).unsqueeze::<2>();
    chosen.equal(rows).float().cast(dtype)
}

/// See [`crate::softmax`].
pub fn softmax<const D: usize>(scores: Tensor<D>) -> Tensor<D> {
    activation::softmax(scores, D - 1)
}

/// See [`crate::masked_softmax`].
pub fn masked_softmax(
    scores: Tensor<4>,
    bias: Tensor<3>,
    bias_scale: Tensor<1>,
    key_mask: Tensor<2>,
) -> Tensor<4> {
    softmax_over_valid(
        scores + (bias * bias_scale.unsqueeze()).unsqueeze_dim(1),
        key_mask,
    )
}

/// Softmax over the keys of `logits [n, heads, queries, keys]` that are valid by `key_mask [n, keys]`.
fn softmax_over_valid(logits: Tensor<4>, key_mask: Tensor<2>) -> Tensor<4> {
    // Low enough to lose against any score, and finite so that a row without valid keys makes no NaN.
    const MASKED: f64 = -1e30;
    let [n, keys] = key_mask.dims();
    let masked = key_mask.reshape([n, 1, 1, keys]).equal_elem(0);
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
    let SlotAttention {
        heads,
        bias,
        bias_scale,
        key_mask,
        dropout,
    } = options;
    let [n, slots, packed] = qkv.dims();
    let width = packed / 3;
    let dim = width / heads;
    let part = |which: usize| {
        let columns = qkv
            .clone()
            .slice([0..n, 0..slots, which * width..(which + 1) * width]);
        columns.reshape([n, slots, heads, dim]).swap_dims(1, 2)
    };
    let scores = part(0)
        .matmul(part(1).swap_dims(2, 3))
        .mul_scalar(1.0 / (dim as f64).sqrt());
    let mut weights = masked_softmax(scores, bias, bias_scale, key_mask);
    if let Some(dropout) = dropout {
        weights = if is_host(&qkv.device()) {
            weights
                * mask(dropout, n * heads * slots, slots, &qkv).reshape([n, heads, slots, slots])
        } else {
            wide::dropped(weights, dropout, slots)
        };
    }
    weights
        .matmul(part(2))
        .swap_dims(1, 2)
        .reshape([n, slots, width])
}

/// See [`crate::pair_biased_attention`].
pub fn pair_biased_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    bias: Tensor<4>,
    key_mask: Option<Tensor<2>>,
) -> Tensor<4> {
    let scale = 1.0 / (q.dims()[3] as f64).sqrt();
    let logits = q.matmul(k.swap_dims(2, 3)).mul_scalar(scale) + bias.permute([0, 3, 1, 2]);
    let weights = match key_mask {
        Some(key_mask) => softmax_over_valid(logits, key_mask),
        None => activation::softmax(logits, 3),
    };
    weights.matmul(v)
}

/// See [`crate::gated_residual`].
pub fn gated_residual(
    x: Tensor<2>,
    y: Tensor<2>,
    gates: Tensor<2>,
    groups: &RowChoice,
) -> Tensor<2> {
    x + y * chosen_rows(sigmoid(gates), groups)
}

/// See [`crate::dropout`].
pub fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    if !is_host(&x.device()) {
        return wide::dropout(x, dropout);
    }
    let elements = x.shape().num_elements();
    let rows = elements.div_ceil(Dropout::COLUMNS);
    let mask = mask(dropout, rows, Dropout::COLUMNS, &x)
        .slice(0..elements)
        .reshape(x.dims());
    x * mask
}

/// A flat mask of 0 and the inverse chance of survival, on the device and in the type of `like`.
fn mask<const D: usize>(
    dropout: Dropout,
    rows: usize,
    columns: usize,
    like: &Tensor<D>,
) -> Tensor<1> {
    let mask = dropout.mask(rows, columns);
    let data = TensorData::new(mask, [rows * columns]).convert_dtype(like.dtype());
    Tensor::from_data(data, (&like.device().inner(), like.dtype()))
}

/// See [`crate::gather_rows`].
pub fn gather_rows(x: Tensor<2>, index: &RowIndex) -> Tensor<2> {
    if !is_host(&x.device()) {
        return wide::gather_rows(x, index);
    }
    let index = int_tensor(index.index(), &x.device());
    x.select(0, index)
}

/// See [`crate::segment_sum`].
pub fn segment_sum(x: Tensor<2>, segments: &Segments) -> Tensor<2> {
    if !is_host(&x.device()) {
        return wide::segment_sum(x, segments);
    }
    let owners = int_tensor(&segments.owners(), &x.device());
    let zeros = Tensor::zeros([segments.count(), x.dims()[1]], (&x.device(), x.dtype()));
    zeros.select_assign(0, owners, x, IndexingUpdateOp::Add)
}

/// See [`crate::conv3d()`].
pub fn conv3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>, kind: Conv3d) -> Tensor<5> {
    if !is_host(&x.device()) {
        return wide::add_to_channels(wide::conv3d(x, weight, kind), bias);
    }
    let [stride, padding] = match kind {
        Conv3d::Same3 => [1, 1],
        Conv3d::Down3 | Conv3d::Up4 => [2, 1],
        Conv3d::Point => [1, 0],
    };
    let (stride, padding, dilation) = ([stride; 3], [padding; 3], [1; 3]);
    if kind == Conv3d::Up4 {
        return module::conv_transpose3d(
            x,
            weight,
            Some(bias),
            ConvTransposeOptions::new(stride, padding, [0; 3], dilation, 1),
        );
    }
    module::conv3d(
        x,
        weight,
        Some(bias),
        ConvOptions::new(stride, padding, dilation, 1),
    )
}

/// See [`crate::banded_radial`].
pub fn banded_radial(bands: &Bands, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    let product = product(dense(bands, &weight.device(), weight.dtype()), weight);
    let bias = along_rows(bias, &product);
    product + bias
}

/// The bands as a full matrix `[rows, basis]`.
fn dense(bands: &Bands, device: &Device, dtype: DType) -> Tensor<2> {
    let [rows, width] = bands.values.dims();
    let first = bands.start.iter();
    let columns: Vec<i64> = first
        .flat_map(|&start| (0..width as i64).map(move |k| i64::from(start) + k))
        .collect();
    let columns = Tensor::<2, Int>::from_data(TensorData::new(columns, [rows, width]), device);
    // Other devices add atomically, and not in 16 bits.
    let adds_in = if is_host(device) || dtype == DType::F64 {
        dtype
    } else {
        DType::F32
    };
    let zeros = Tensor::zeros([rows, bands.basis()], (device, adds_in));
    let values = bands.values.clone().cast(adds_in);
    zeros
        .scatter(1, columns, values, IndexingUpdateOp::Add)
        .cast(dtype)
}

fn int_tensor(values: &[u32], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.iter().map(|&value| i64::from(value)).collect();
    let count = values.len();
    Tensor::from_data(TensorData::new(values, [count]), device)
}
