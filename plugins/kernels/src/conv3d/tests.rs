//! Convolutions against their compositions, against the sums that define them, and against each other.

use burn::tensor::{DType, Device, Tensor};

use super::*;
use crate::testing::{check, constant, numbers, to_vec, value_and_gradients};

/// Kind, batch, channels of `x` and of the result, side of `x`.
type Case = (Conv3d, [usize; 4]);

/// Odd sides, sides of 1 and 2, channels that fill no block, one item and some that fill no group.
const CASES: [Case; 14] = [
    (Conv3d::Same3, [1, 1, 1, 1]),
    (Conv3d::Same3, [2, 3, 5, 2]),
    (Conv3d::Same3, [1, 5, 3, 5]),
    (Conv3d::Same3, [3, 17, 8, 4]),
    (Conv3d::Same3, [5, 1, 3, 3]),
    (Conv3d::Same3, [1, 8, 4, 9]),
    (Conv3d::Down3, [1, 1, 3, 2]),
    (Conv3d::Down3, [2, 5, 17, 4]),
    (Conv3d::Down3, [3, 3, 5, 6]),
    (Conv3d::Up4, [1, 3, 1, 1]),
    (Conv3d::Up4, [2, 5, 8, 2]),
    (Conv3d::Up4, [1, 8, 3, 3]),
    (Conv3d::Point, [2, 5, 17, 3]),
    (Conv3d::Point, [1, 3, 1, 1]),
];

fn result_side(kind: Conv3d, side: usize) -> usize {
    match kind {
        Conv3d::Same3 | Conv3d::Point => side,
        Conv3d::Down3 => side / 2,
        Conv3d::Up4 => 2 * side,
    }
}

fn shapes((kind, [batch, inputs, outputs, side]): Case) -> ([usize; 5], [usize; 5]) {
    let width = kind.stencil().width;
    let [first, second] = if kind == Conv3d::Up4 {
        [inputs, outputs]
    } else {
        [outputs, inputs]
    };
    (
        [batch, inputs, side, side, side],
        [first, second, width, width, width],
    )
}

fn inputs(case: Case) -> [Vec<f64>; 3] {
    let (x, weight) = shapes(case);
    // Weights shrink as for a layer, so that results are of order one and tolerances mean what they say.
    let scale = 1.0 / ((x[1] * weight[2].pow(3)) as f64).sqrt();
    let weights = numbers(weight.iter().product(), 2)
        .into_iter()
        .map(|weight| weight * scale);
    [
        numbers(x.iter().product(), 1),
        weights.collect(),
        numbers(case.1[2], 3),
    ]
}

fn apply(
    convolution: fn(Tensor<5>, Tensor<5>, Tensor<1>, Conv3d) -> Tensor<5>,
    case: Case,
    leaves: &[Tensor<1>],
) -> Tensor<1> {
    let (x, weight) = shapes(case);
    let output = convolution(
        leaves[0].clone().reshape(x),
        leaves[1].clone().reshape(weight),
        leaves[2].clone(),
        case.0,
    );
    let side = result_side(case.0, x[2]);
    assert_eq!(output.dims(), [x[0], case.1[2], side, side, side]);
    let len = output.shape().num_elements();
    output.reshape([len])
}

#[test]
fn convolutions_agree_with_their_compositions_for_any_size() {
    for case in CASES {
        check(
            |leaves| apply(conv3d, case, leaves),
            |leaves| apply(plain::conv3d, case, leaves),
            &inputs(case),
        );
    }
}

/// Every weight of every pair of a place in `x` and one in the result: weight, place in `x`, place in the result.
fn terms(case: Case) -> impl Iterator<Item = [usize; 3]> {
    let (kind, [batch, inputs, outputs, side]) = case;
    let (width, result) = (kind.stencil().width, result_side(kind, side));
    let volume = (side * side * side, result * result * result);
    let axis = move |k: usize| {
        (0..side)
            .flat_map(move |from| (0..result).map(move |to| (k, from, to)))
            .filter(move |&(k, from, to)| match kind {
                Conv3d::Same3 => from + 1 == to + k,
                Conv3d::Down3 => from + 1 == 2 * to + k,
                Conv3d::Up4 => to + 1 == 2 * from + k,
                Conv3d::Point => from == to,
            })
    };
    let line = move || (0..width).flat_map(axis);
    let space = move || {
        line()
            .flat_map(move |z| line().flat_map(move |y| line().map(move |x| [z, y, x])))
            .map(move |[z, y, x]| {
                let flat = |side: usize, of: fn((usize, usize, usize)) -> usize| {
                    (of(z) * side + of(y)) * side + of(x)
                };
                [
                    flat(width, |axis| axis.0),
                    flat(side, |axis| axis.1),
                    flat(result, |axis| axis.2),
                ]
            })
    };
    let channels = (0..batch).flat_map(move |item| {
        (0..inputs).flat_map(move |i| (0..outputs).map(move |o| [item, i, o]))
    });
    channels.flat_map(move |[item, i, o]| {
        let pair = if kind == Conv3d::Up4 {
            i * outputs + o
        } else {
            o * inputs + i
        };
        space().map(move |[k, from, to]| {
            [
                pair * width.pow(3) + k,
                (item * inputs + i) * volume.0 + from,
                (item * outputs + o) * volume.1 + to,
            ]
        })
    })
}

#[test]
fn results_and_gradients_are_the_sums_that_define_them() {
    for case in CASES {
        let inputs = inputs(case);
        let [value, for_x, for_weight, for_bias] = value_and_gradients(
            &|leaves: &[Tensor<1>]| apply(conv3d, case, leaves),
            &inputs,
            DType::F64,
        )
        .try_into()
        .unwrap();
        let [x, weights, bias] = &inputs;
        let channel = |place: usize| place / result_side(case.0, case.1[3]).pow(3) % case.1[2];
        let cotangent = numbers(value.len(), 99);
        let mut expected = [
            (0..value.len()).map(|place| bias[channel(place)]).collect(),
            vec![0.0; x.len()],
            vec![0.0; weights.len()],
        ];
        for [weight, from, to] in terms(case) {
            expected[0][to] += weights[weight] * x[from];
            expected[1][from] += weights[weight] * cotangent[to];
            expected[2][weight] += x[from] * cotangent[to];
        }
        let mut expected_bias = vec![0.0; bias.len()];
        cotangent
            .iter()
            .enumerate()
            .for_each(|(place, cotangent)| expected_bias[channel(place)] += cotangent);
        let [expected, expected_x, expected_weight] = expected;
        for (actual, expected) in [
            (value, expected),
            (for_x, expected_x),
            (for_weight, expected_weight),
            (for_bias, expected_bias),
        ] {
            assert_eq!(actual.len(), expected.len());
            for (actual, expected) in actual.iter().zip(&expected) {
                // Up to 6,000 terms below 4, each rounded to 1e-16 of the sum: 1e-12 with room.
                assert!(
                    (actual - expected).abs() < 1e-12,
                    "{case:?}: {actual} instead of {expected}"
                );
            }
        }
    }
}

/// Grids that are cut into several units, rows of blocks and blocks of channels.
#[test]
fn large_grids_do_not_depend_on_threads_and_agree_with_their_compositions() {
    let cases = [
        (Conv3d::Same3, [2, 12, 20, 16]),
        (Conv3d::Same3, [3, 70, 36, 4]),
        (Conv3d::Down3, [2, 20, 9, 16]),
        (Conv3d::Up4, [3, 33, 18, 4]),
    ];
    for case in cases {
        let inputs = inputs(case);
        let run = || {
            value_and_gradients(
                &|leaves: &[Tensor<1>]| apply(conv3d, case, leaves),
                &inputs,
                DType::F32,
            )
        };
        let on = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(run)
        };
        let (one, expected) = (
            on(1),
            value_and_gradients(
                &|leaves: &[Tensor<1>]| apply(plain::conv3d, case, leaves),
                &inputs,
                DType::F64,
            ),
        );
        assert!(
            [2, 3, 4].into_iter().all(|threads| on(threads) == one),
            "{case:?} depends on the number of threads"
        );
        for (actual, expected) in one.iter().zip(&expected) {
            let scale = expected
                .iter()
                .fold(1.0_f64, |scale, value| scale.max(value.abs()));
            for (actual, expected) in actual.iter().zip(expected) {
                // Inputs and some thousand sums, in chains of hundreds, rounded to 6e-8 each; errors mostly cancel.
                assert!(
                    (actual - expected).abs() < 5e-6 * scale,
                    "{case:?}: {actual} instead of {expected}"
                );
            }
        }
    }
}

/// A channel of one unit is larger than the part of the cache that a block of the result may fill: every number is written all the same.
#[test]
fn grids_beyond_the_cache_are_written_whole() {
    for case in [(Conv3d::Up4, [8, 1, 1, 33]), (Conv3d::Same3, [8, 1, 1, 65])] {
        for dtype in [DType::F32, DType::F64] {
            let leaves = |dtype| -> Vec<Tensor<1>> {
                let like = Tensor::from_data([0.0], (&Device::flex(), dtype));
                inputs(case)
                    .iter()
                    .map(|values| constant(values, [values.len()], &like))
                    .collect()
            };
            let (ours, expected) = (
                apply(conv3d, case, &leaves(dtype)),
                apply(plain::conv3d, case, &leaves(DType::F64)),
            );
            // Sums of 27 or 8 numbers below 4, in f32 or f64.
            let tolerance = if dtype == DType::F32 { 1e-5 } else { 1e-13 };
            let worst = to_vec(ours)
                .iter()
                .zip(&to_vec(expected))
                .fold(0.0_f64, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst < tolerance, "{case:?} {dtype:?}: {worst:e}");
        }
    }
}

/// The gradient with respect to `x` alone, and nothing else, is computed when only it is wanted.
#[test]
fn gradients_can_be_wanted_one_by_one() {
    let case = (Conv3d::Down3, [2, 3, 5, 4]);
    let all = value_and_gradients(
        &|leaves: &[Tensor<1>]| apply(conv3d, case, leaves),
        &inputs(case),
        DType::F64,
    );
    for wanted in 0..3 {
        let function = |leaf: &[Tensor<1>]| {
            let constants = inputs(case).map(|values| constant(&values, [values.len()], &leaf[0]));
            let mut leaves = constants.to_vec();
            leaves[wanted] = leaf[0].clone();
            apply(conv3d, case, &leaves)
        };
        let alone = value_and_gradients(&function, &[inputs(case)[wanted].clone()], DType::F64);
        assert_eq!(alone, [all[0].clone(), all[wanted + 1].clone()]);
    }
}

#[test]
fn doubling_is_the_adjoint_of_a_convolution_with_four_weights_and_steps_of_two() {
    let device = Device::flex();
    let random = |shape: [usize; 5], seed| {
        let values: Vec<f64> = numbers(shape.iter().product(), seed);
        Tensor::<5>::from_data(
            burn::tensor::TensorData::new(values, shape),
            (&device, DType::F64),
        )
    };
    let (x, y, weight) = (
        random([2, 3, 6, 6, 6], 1),
        random([2, 5, 3, 3, 3], 2),
        random([5, 3, 4, 4, 4], 3),
    );
    let zeros = Tensor::zeros([3], (&device, DType::F64));
    let options = burn::tensor::ops::ConvOptions::new([2; 3], [1; 3], [1; 3], 1);
    let halved = burn::tensor::module::conv3d(x.clone(), weight.clone(), None, options);
    let doubled = conv3d(y.clone(), weight, zeros, Conv3d::Up4);
    let [one, other] =
        [(halved * y), (x * doubled)].map(|product| to_vec(product).iter().sum::<f64>());
    // Some 10,000 terms of order 10.
    assert!(
        (one - other).abs() < 1e-9 && one.abs() > 1.0,
        "{one} and {other}"
    );
}

#[test]
fn an_empty_batch_gives_no_result_and_zero_gradients() {
    let device = Device::flex().autodiff();
    for kind in [Conv3d::Same3, Conv3d::Down3, Conv3d::Up4, Conv3d::Point] {
        let (x, weight) = shapes((kind, [0, 3, 5, 4]));
        let weight = Tensor::<5>::ones(weight, &device).require_grad();
        let bias = Tensor::<1>::ones([5], &device).require_grad();
        let output = conv3d(
            Tensor::zeros(x, &device),
            weight.clone(),
            bias.clone(),
            kind,
        );
        assert_eq!(output.dims()[..2], [0, 5]);
        let gradients = output.sum().backward();
        assert!(
            to_vec(weight.grad(&gradients).unwrap())
                .iter()
                .all(|&gradient| gradient == 0.0)
        );
        assert_eq!(to_vec(bias.grad(&gradients).unwrap()), [0.0; 5]);
    }
}

#[test]
#[should_panic(expected = "even side to be halved, not 3")]
fn odd_grids_cannot_be_halved() {
    let device = Device::flex();
    conv3d(
        Tensor::zeros([1, 1, 3, 3, 3], &device),
        Tensor::zeros([1, 1, 3, 3, 3], &device),
        Tensor::zeros([1], &device),
        Conv3d::Down3,
    );
}

#[test]
#[should_panic(expected = "axis 1 of the weights")]
fn channels_must_match() {
    let device = Device::flex();
    conv3d(
        Tensor::zeros([1, 2, 3, 3, 3], &device),
        Tensor::zeros([1, 1, 3, 3, 3], &device),
        Tensor::zeros([1], &device),
        Conv3d::Same3,
    );
}
