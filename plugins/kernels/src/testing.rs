//! Compares a fused function with its plain composition, with finite differences and with itself.

use burn::tensor::{DType, Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::simd::tests::at_every_level;

/// A function of flat tensors with a flat result; it reshapes as it likes.
pub(crate) trait Function: Fn(&[Tensor<1>]) -> Tensor<1> + Sync {}

impl<F: Fn(&[Tensor<1>]) -> Tensor<1> + Sync> Function for F {}

/// `count` numbers between -2 and 2.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..count).map(|_| random.random_range(-2.0..2.0)).collect()
}

/// A constant in the type and on the device of `like`.
pub(crate) fn constant<const D: usize>(
    values: &[f64],
    shape: [usize; D],
    like: &Tensor<1>,
) -> Tensor<D> {
    let data = TensorData::new(values.to_vec(), shape).convert_dtype(like.dtype());
    Tensor::from_data(data, (&like.device().inner(), like.dtype()))
}

pub(crate) fn to_vec<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor
        .into_data()
        .convert_dtype(DType::F64)
        .try_to_vec()
        .expect("f64 data")
}

/// The result and the gradient of every input, for a fixed random cotangent.
pub(crate) fn value_and_gradients(
    function: &impl Function,
    inputs: &[Vec<f64>],
    dtype: DType,
) -> Vec<Vec<f64>> {
    let device = Device::flex().autodiff();
    let leaf = |values: &Vec<f64>| {
        let data = TensorData::new(values.clone(), [values.len()]).convert_dtype(dtype);
        Tensor::<1>::from_data(data, (&device, dtype)).require_grad()
    };
    let leaves: Vec<_> = inputs.iter().map(leaf).collect();
    let output = function(&leaves);
    assert_eq!(
        output.dtype(),
        dtype,
        "the result keeps the type of its inputs"
    );
    let cotangent = constant(&numbers(output.dims()[0], 99), output.dims(), &output);
    let value = to_vec(output.clone());
    let gradients = (output * cotangent).sum().backward();
    let gradients = leaves
        .iter()
        .map(|leaf| to_vec(leaf.grad(&gradients).expect("every input has a gradient")));
    std::iter::once(value).chain(gradients).collect()
}

/// Largest difference, relative to the largest magnitude (at least 1).
#[track_caller]
fn assert_close(actual: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    let scale = expected
        .iter()
        .fold(1.0_f64, |scale, value| scale.max(value.abs()));
    for (at, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let difference = (actual - expected).abs() / scale;
        assert!(
            difference <= tolerance,
            "{what}, element {at}: {actual} instead of {expected}, off by {difference:e}"
        );
    }
}

/// Checks everything that a fused function promises, on inputs of `f64` and the same rounded to `f32`.
#[track_caller]
pub(crate) fn check(fused: impl Function, plain: impl Function, inputs: &[Vec<f64>]) {
    // Sums of at most some thousand terms of order one, each rounded once: 1e-13 in f64.
    let exact = value_and_gradients(&plain, inputs, DType::F64);
    agree(
        &value_and_gradients(&fused, inputs, DType::F64),
        &exact,
        1e-13,
        "f64",
    );
    // The reference is f64 on inputs that f32 holds exactly; some roundings of 6e-8 of terms that may cancel remain.
    let rounded: Vec<Vec<f64>> = inputs
        .iter()
        .map(|values| {
            values
                .iter()
                .map(|&value| f64::from(value as f32))
                .collect()
        })
        .collect();
    let exact = value_and_gradients(&plain, &rounded, DType::F64);
    agree(
        &value_and_gradients(&fused, &rounded, DType::F32),
        &exact,
        5e-6,
        "f32",
    );

    check_differences(&fused, inputs);
    check_bits(&fused, inputs);
}

#[track_caller]
fn agree(actual: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64, dtype: &str) {
    for (number, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let what = if number == 0 {
            format!("{dtype} result")
        } else {
            format!("{dtype} gradient of input {}", number - 1)
        };
        assert_close(actual, expected, tolerance, &what);
    }
}

/// Gradients of f64 are central differences, along a random direction per input.
#[track_caller]
fn check_differences(fused: &impl Function, inputs: &[Vec<f64>]) {
    const STEP: f64 = 1e-5;
    let gradients = &value_and_gradients(fused, inputs, DType::F64)[1..];
    for (number, gradient) in gradients.iter().enumerate() {
        let direction = numbers(gradient.len(), 7 + number as u64);
        let loss = |step: f64| -> f64 {
            let mut moved = inputs.to_vec();
            moved[number]
                .iter_mut()
                .zip(&direction)
                .for_each(|(value, direction)| *value += step * direction);
            let value = &value_and_gradients(fused, &moved, DType::F64)[0];
            value
                .iter()
                .zip(numbers(value.len(), 99))
                .map(|(value, cotangent)| value * cotangent)
                .sum()
        };
        let slope = (loss(STEP) - loss(-STEP)) / (2.0 * STEP);
        let expected: f64 = gradient
            .iter()
            .zip(&direction)
            .map(|(gradient, direction)| gradient * direction)
            .sum();
        // The third derivative leaves 1e-10, rounding 1e-11 per unit of the loss.
        let scale: f64 = gradient
            .iter()
            .zip(&direction)
            .map(|(a, b)| (a * b).abs())
            .sum::<f64>()
            .max(1.0);
        assert!(
            (slope - expected).abs() < 1e-8 * scale,
            "input {number}: slope {slope}, gradient says {expected}"
        );
    }
}

/// The same bits for every number of threads and every instruction set.
#[track_caller]
fn check_bits(fused: &impl Function, inputs: &[Vec<f64>]) {
    for dtype in [DType::F32, DType::F64] {
        let reference = value_and_gradients(fused, inputs, dtype);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads start");
            let other = pool.install(|| value_and_gradients(fused, inputs, dtype));
            assert!(
                other == reference,
                "{threads} threads give other bits in {dtype:?}"
            );
        }
        for (level, other) in at_every_level(|| value_and_gradients(fused, inputs, dtype))
            .into_iter()
            .enumerate()
        {
            assert!(
                other == reference,
                "instruction set {level} gives other bits in {dtype:?}"
            );
        }
    }
}
