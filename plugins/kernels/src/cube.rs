//! Kernels for CUDA, for what is many passes as tensor operations: activations with their gradients, and dropout.
//!
//! Arithmetic is in f32 for tensors of 32 and of 16 bits; f64 keeps the compositions. They have not run on a card yet, so that they
//! are used only where `EQUIVBENCH_CUDA_KERNELS=1` asks for them.

use std::sync::OnceLock;

use burn::backend::{BackendTensor, DispatchTensor, DispatchTensorKind, TensorMetadata};
use burn::tensor::DType;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::std::tensor::layout::linear::{LinearView, LinearViewMut};
use cubecl::{calculate_cube_count_elemwise, prelude::*};

use crate::Dropout;

/// Activations by the numbers that kernels know them by; any other number is the SiLU.
const GELU: u32 = 0;
const SIGMOID: u32 = 1;

/// The tensor, contiguous, if kernels are to work on it.
fn eligible(x: &DispatchTensor) -> Option<CubeTensor> {
    static WANTED: OnceLock<bool> = OnceLock::new();
    let wanted = *WANTED
        .get_or_init(|| std::env::var("EQUIVBENCH_CUDA_KERNELS").is_ok_and(|value| value == "1"));
    match &x.kind {
        DispatchTensorKind::Cube(BackendTensor::Float(x))
            if wanted
                && matches!(x.dtype, DType::F32 | DType::BF16)
                && x.meta.num_elements() > 0 =>
        {
            Some(into_contiguous(x.clone()))
        }
        _ => None,
    }
}

fn wrapped(x: CubeTensor, like: &DispatchTensor) -> DispatchTensor {
    DispatchTensor {
        kind: DispatchTensorKind::Cube(BackendTensor::Float(x)),
        autodiff: like.autodiff,
    }
}

/// Numbers that one thread works on: whole vectors of the last axis.
fn lanes(x: &CubeTensor) -> usize {
    let last = x.shape().last().copied().unwrap_or(1);
    if last.is_multiple_of(4) { 4 } else { 1 }
}

fn fresh(like: &CubeTensor) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        like.shape(),
        like.dtype,
    )
}

fn elem(x: &CubeTensor) -> ElemType {
    burn::backend::cubecl::dtype_to_storage_type(x.dtype)
}

/// The activation of every element.
pub(crate) fn activated(kind: u32, x: &DispatchTensor) -> Option<DispatchTensor> {
    let input = eligible(x)?;
    let (output, lanes) = (fresh(&input), lanes(&input));
    let units = input.meta.num_elements() / lanes;
    let cube_dim = CubeDim::new(&input.client, units);
    let cube_count = calculate_cube_count_elemwise(&input.client, units, cube_dim);
    let (client, dtype) = (input.client.clone(), elem(&input));
    let address = input.required_address_type();
    // SAFETY: every thread checks that its place lies inside of the output, which has the shape of the input.
    unsafe {
        activate::launch_unchecked(
            &client,
            cube_count,
            cube_dim,
            address,
            lanes,
            input.into_linear_view(),
            output.clone().into_linear_view(),
            kind,
            dtype,
        );
    }
    Some(wrapped(output, x))
}

/// The gradient times the slope of the activation.
pub(crate) fn pulled_back(
    kind: u32,
    x: &DispatchTensor,
    gradient: &DispatchTensor,
) -> Option<DispatchTensor> {
    let (input, gradient) = (eligible(x)?, eligible(gradient)?);
    let (output, lanes) = (fresh(&input), lanes(&input));
    let units = input.meta.num_elements() / lanes;
    let cube_dim = CubeDim::new(&input.client, units);
    let cube_count = calculate_cube_count_elemwise(&input.client, units, cube_dim);
    let (client, dtype) = (input.client.clone(), elem(&input));
    let address = input.required_address_type();
    // SAFETY: every thread checks that its place lies inside of the output; all three have one shape.
    unsafe {
        slope::launch_unchecked(
            &client,
            cube_count,
            cube_dim,
            address,
            lanes,
            input.into_linear_view(),
            gradient.into_linear_view(),
            output.clone().into_linear_view(),
            kind,
            dtype,
        );
    }
    Some(wrapped(output, x))
}

/// The elements that a mask of rows of `columns` columns leaves, scaled; `keys [2 rows]` are those of its rows, as 32-bit integers.
pub(crate) fn dropped(
    dropout: Dropout,
    columns: usize,
    keys: DispatchTensor,
    x: &DispatchTensor,
) -> Option<DispatchTensor> {
    let input = eligible(x)?;
    let DispatchTensorKind::Cube(BackendTensor::Int(keys)) = keys.kind else {
        return None;
    };
    let output = fresh(&input);
    let units = input.meta.num_elements();
    let cube_dim = CubeDim::new(&input.client, units);
    let cube_count = calculate_cube_count_elemwise(&input.client, units, cube_dim);
    let (client, dtype) = (input.client.clone(), elem(&input));
    let address = input.required_address_type();
    let [first, second] = Dropout::MULTIPLIERS;
    // SAFETY: every thread checks that its place lies inside of the output, which has the shape of the input; there are keys for all
    // of its rows.
    unsafe {
        drop_out::launch_unchecked(
            &client,
            cube_count,
            cube_dim,
            address,
            input.into_linear_view(),
            keys.into_linear_view(),
            output.clone().into_linear_view(),
            columns,
            dropout.threshold(),
            dropout.scale() as f32,
            [Dropout::SPREAD, first, second],
            dtype,
        );
    }
    Some(wrapped(output, x))
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn activate<F: Float, N: Size>(
    input: LinearView<'_, Vector<F, N>>,
    mut output: LinearViewMut<'_, Vector<F, N>>,
    #[comptime] kind: u32,
    #[define(F)] _dtype: ElemType,
) {
    if !output.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let x = Vector::<f32, N>::cast_from(input.read(ABSOLUTE_POS));
    let value = if comptime!(kind == GELU) {
        x * below::<N>(x)
    } else if comptime!(kind == SIGMOID) {
        logistic::<N>(x)
    } else {
        x * logistic::<N>(x)
    };
    output.write(ABSOLUTE_POS, Vector::cast_from(value));
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn slope<F: Float, N: Size>(
    input: LinearView<'_, Vector<F, N>>,
    gradient: LinearView<'_, Vector<F, N>>,
    mut output: LinearViewMut<'_, Vector<F, N>>,
    #[comptime] kind: u32,
    #[define(F)] _dtype: ElemType,
) {
    if !output.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let x = Vector::<f32, N>::cast_from(input.read(ABSOLUTE_POS));
    let gradient = Vector::<f32, N>::cast_from(gradient.read(ABSOLUTE_POS));
    let slope = if comptime!(kind == GELU) {
        let density = Vector::exp(x * x * Vector::new(-0.5f32)) * Vector::new(0.398_942_3f32);
        below::<N>(x) + x * density
    } else if comptime!(kind == SIGMOID) {
        let s = logistic::<N>(x);
        s - s * s
    } else {
        let s = logistic::<N>(x);
        s + x * (s - s * s)
    };
    output.write(ABSOLUTE_POS, Vector::cast_from(gradient * slope));
}

/// The normal distribution up to x.
#[cube]
fn below<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let half = Vector::new(0.5f32);
    half + half * Vector::erf(x * Vector::new(0.707_106_77f32))
}

#[cube]
fn logistic<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let one = Vector::new(1.0f32);
    one / (one + Vector::exp(Vector::new(0.0f32) - x))
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn drop_out<F: Float>(
    input: LinearView<'_, F>,
    keys: LinearView<'_, u32>,
    mut output: LinearViewMut<'_, F>,
    #[comptime] columns: usize,
    threshold: u32,
    scale: f32,
    #[comptime] constants: [u32; 3],
    #[define(F)] _dtype: ElemType,
) {
    if !output.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let row = ABSOLUTE_POS / columns;
    let column = (ABSOLUTE_POS % columns) as u32;
    let first = keys.read(2 * row);
    let second = keys.read(2 * row + 1);
    let spread = comptime!(constants[0]);
    let once = mixed((column * spread) ^ first, constants);
    let bits = mixed(once + second, constants);
    let x = f32::cast_from(input.read(ABSOLUTE_POS));
    let value = select(bits >= threshold, x * scale, 0.0f32);
    output.write(ABSOLUTE_POS, F::cast_from(value));
}

#[cube]
fn mixed(bits: u32, #[comptime] constants: [u32; 3]) -> u32 {
    let first = comptime!(constants[1]);
    let second = comptime!(constants[2]);
    let a = (bits ^ (bits >> 16)) * first;
    let b = (a ^ (a >> 15)) * second;
    b ^ (b >> 16)
}
