//! One optimiser step of all parameters in one pass over their numbers, and the global norm of gradients.
//!
//! With gradient `g' = scale g + pull p` of a parameter `p`, first moment `m`, second moment `v` and average `a`, in PyTorch's conventions:
//!
//! * Adam: `m = β1 m + (1 - β1) g'`, `v = β2 v + (1 - β2) g'²`, `p = shrink p - step m / (root_scale sqrt(v) + eps)`;
//! * SGD: `m = β m + g'`, `p = p - step m`;
//! * then, where an average is kept, `a = a - (1 - decay) (a - p)`.
//!
//! All numbers are rounded to the type of the parameters after each operation, and no operation is fused: a loop without vectors gives
//! the same bits.

use std::cmp::Reverse;

use rayon::prelude::*;

use crate::parallel::{CHUNK, MIN_PIECES};
use crate::scalar::Scalar;
use crate::simd::simd;

/// How moments and parameters follow from gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateRule {
    /// Adam, and AdamW, which differ in the factors of a parameter only.
    Adam {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment. It may be 0: an entry whose denominator is 0 keeps its place, but for `shrink`.
        eps: f64,
    },
    /// Gradient descent with momentum, which is the first moment; the second is not used.
    Sgd {
        /// Decay of the momentum.
        momentum: f64,
    },
}

/// Factors of one parameter in one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UpdateFactors {
    /// On the gradient: 1, or less where the global norm is clipped.
    pub gradient_scale: f64,
    /// Share of the parameter that joins the gradient: weight decay of Adam and SGD.
    pub pull: f64,
    /// On the parameter before the step: decoupled weight decay of AdamW, else 1. SGD ignores it.
    pub shrink: f64,
    /// Length of the step; for Adam with the correction of the first moment.
    pub step: f64,
    /// Correction of the root of the second moment.
    pub root_scale: f64,
}

/// One parameter with what the optimiser remembers of it; all slices have one length.
#[derive(Debug)]
pub struct ParameterUpdate<'a, T> {
    /// The parameter.
    pub values: &'a mut [T],
    /// First moments.
    pub first: &'a mut [T],
    /// Second moments.
    pub second: &'a mut [T],
    /// Moving average, where one is kept.
    pub average: Option<&'a mut [T]>,
    /// Gradient.
    pub gradient: &'a [T],
    /// Factors of this step.
    pub factors: UpdateFactors,
}

/// The number types of parameters, `f32` and `f64`.
pub trait Real: sealed::Loops {}

impl Real for f32 {}
impl Real for f64 {}

/// Updates all parameters, in one parallel pass; averages follow with `average_decay`. Leave out parameters without a gradient.
///
/// Results do not depend on the number of threads or the instruction set.
///
/// # Panics
/// If the slices of a parameter differ in length.
pub fn optimiser_step<T: Real>(
    rule: UpdateRule,
    average_decay: f64,
    parameters: Vec<ParameterUpdate<'_, T>>,
) {
    let pieces: Vec<_> = parameters.into_iter().flat_map(pieces).collect();
    pieces
        .into_par_iter()
        .with_min_len(MIN_PIECES)
        .for_each(|piece| T::update(rule, average_decay, piece));
}

/// Square root of the sum of all squares, each square and each sum in f64, in an order that depends on the lengths only.
pub fn global_norm<T: Real>(tensors: &[&[T]]) -> f64 {
    let pieces = tensors.iter().flat_map(|tensor| tensor.chunks(NORM_PIECE));
    let mut pieces: Vec<(usize, &[T])> = pieces.enumerate().collect();
    // Pieces that are summed side by side should end together.
    pieces.sort_by_key(|(_, piece)| Reverse(piece.len()));
    let mut sums: Vec<(usize, f64)> = pieces
        .par_chunks(SIDE_BY_SIDE)
        .flat_map_iter(sums_of_pieces)
        .collect();
    sums.sort_unstable_by_key(|(number, _)| *number);
    let mut sums = sums.into_iter().map(|(_, sum)| sum);
    let of_tensor = |tensor: &&[T]| {
        sums.by_ref()
            .take(tensor.len().div_ceil(NORM_PIECE))
            .sum::<f64>()
    };
    tensors
        .iter()
        .map(of_tensor)
        .fold(0.0, |sum, tensor| sum + tensor)
        .sqrt()
}

/// The sum of squares of each piece, with its number.
fn sums_of_pieces<T: Real>(pieces: &[(usize, &[T])]) -> impl Iterator<Item = (usize, f64)> {
    let slices: Vec<&[T]> = pieces.iter().map(|(_, piece)| *piece).collect();
    pieces
        .iter()
        .map(|(number, _)| *number)
        .zip(T::sums_of_squares(&slices))
}

/// Elements that one sum of squares covers.
const NORM_PIECE: usize = 1 << 15;

/// Sums that one thread adds to in turn, as each of its additions waits for the one before.
const SIDE_BY_SIDE: usize = 8;

/// The parameter in pieces that stay in the second-level cache while they are updated.
fn pieces<T>(parameter: ParameterUpdate<'_, T>) -> impl Iterator<Item = ParameterUpdate<'_, T>> {
    let ParameterUpdate {
        values,
        first,
        second,
        average,
        gradient,
        factors,
    } = parameter;
    let len = values.len();
    let average_len = average.as_ref().map_or(len, |average| average.len());
    assert_eq!(
        [first.len(), second.len(), gradient.len(), average_len],
        [len; 4],
        "optimiser_step: lengths of the slices of a parameter"
    );
    let mut averages = average.map(|average| average.chunks_mut(CHUNK));
    let others = first
        .chunks_mut(CHUNK)
        .zip(second.chunks_mut(CHUNK))
        .zip(gradient.chunks(CHUNK));
    values
        .chunks_mut(CHUNK)
        .zip(others)
        .map(move |(values, ((first, second), gradient))| {
            let average = averages.as_mut().and_then(Iterator::next);
            ParameterUpdate {
                values,
                first,
                second,
                average,
                gradient,
                factors,
            }
        })
}

mod sealed {
    use super::*;

    /// The loops of a number type.
    pub trait Loops: Copy + Send + Sync {
        /// Updates a piece of a parameter.
        fn update(rule: UpdateRule, average_decay: f64, piece: ParameterUpdate<'_, Self>);
        /// The sum of squares of each of at most [`SIDE_BY_SIDE`] slices.
        fn sums_of_squares(slices: &[&[Self]]) -> Vec<f64>;
    }

    impl<T: Scalar> Loops for T {
        fn update(rule: UpdateRule, average_decay: f64, piece: ParameterUpdate<'_, Self>) {
            update::<T>(rule, average_decay, piece);
        }
        fn sums_of_squares(slices: &[&[Self]]) -> Vec<f64> {
            sums_of_squares::<T>(slices)
        }
    }
}

simd! {
    fn update<T, L>(rule: UpdateRule, average_decay: f64, piece: ParameterUpdate<'_, T>) {
        let ParameterUpdate { values, first, second, average, gradient, factors } = piece;
        match rule {
            UpdateRule::Adam { .. } => adam(&AdamScalars::new(rule, factors), values, first, second, gradient),
            UpdateRule::Sgd { momentum } => sgd(T::of(momentum), factors, values, first, gradient),
        }
        if let Some(average) = average {
            follow(T::of(1.0 - average_decay), average, values);
        }
    }
}

simd! {
    fn sums_of_squares<T, L>(slices: &[&[T]]) -> Vec<f64> {
        let mut sums = [0.0; SIDE_BY_SIDE];
        let mut done = 0;
        if let Ok(slices) = <[&[T]; SIDE_BY_SIDE]>::try_from(slices) {
            done = slices.iter().map(|slice| slice.len()).min().unwrap_or(0);
            let slices = slices.map(|slice| &slice[..done]);
            for at in 0..done {
                for (sum, slice) in sums.iter_mut().zip(slices) {
                    *sum += slice[at].wide() * slice[at].wide();
                }
            }
        }
        for (sum, slice) in sums.iter_mut().zip(slices) {
            for value in &slice[done..] {
                *sum += value.wide() * value.wide();
            }
        }
        sums[..slices.len()].to_vec()
    }
}

/// The factors of an Adam step in the type of the parameters.
struct AdamScalars<T> {
    gradient_scale: T,
    pull: T,
    shrink: T,
    step: T,
    root_scale: T,
    eps: T,
    /// Decays of the two moments, and what they leave for the gradient.
    decays: [T; 2],
    shares: [T; 2],
}

impl<T: Scalar> AdamScalars<T> {
    #[inline(always)]
    fn new(rule: UpdateRule, factors: UpdateFactors) -> Self {
        let UpdateRule::Adam { beta1, beta2, eps } = rule else {
            unreachable!("asked for Adam only")
        };
        let UpdateFactors {
            gradient_scale,
            pull,
            shrink,
            step,
            root_scale,
        } = factors;
        Self {
            gradient_scale: T::of(gradient_scale),
            pull: T::of(pull),
            shrink: T::of(shrink),
            step: T::of(step),
            root_scale: T::of(root_scale),
            eps: T::of(eps),
            decays: [T::of(beta1), T::of(beta2)],
            shares: [T::of(1.0 - beta1), T::of(1.0 - beta2)],
        }
    }
}

#[inline(always)]
fn adam<T: Scalar>(
    s: &AdamScalars<T>,
    values: &mut [T],
    first: &mut [T],
    second: &mut [T],
    gradient: &[T],
) {
    let never = T::of(f64::INFINITY);
    for (((p, m), v), &g) in values.iter_mut().zip(first).zip(second).zip(gradient) {
        let g = g * s.gradient_scale + s.pull * *p;
        *m = s.decays[0] * *m + s.shares[0] * g;
        *v = s.decays[1] * *v + s.shares[1] * g * g;
        let root = v.sqrt() * s.root_scale + s.eps;
        // Division by infinity is no step; 0 / 0 would be no number.
        let root = if root == T::ZERO { never } else { root };
        *p = *p * s.shrink - s.step * *m / root;
    }
}

#[inline(always)]
fn sgd<T: Scalar>(
    momentum: T,
    factors: UpdateFactors,
    values: &mut [T],
    first: &mut [T],
    gradient: &[T],
) {
    let [scale, pull, step] = [factors.gradient_scale, factors.pull, factors.step].map(T::of);
    for ((p, m), &g) in values.iter_mut().zip(first).zip(gradient) {
        *m = momentum * *m + (g * scale + pull * *p);
        *p = *p - step * *m;
    }
}

/// Moves the average towards the values by the share.
#[inline(always)]
fn follow<T: Scalar>(share: T, average: &mut [T], values: &[T]) {
    for (a, &p) in average.iter_mut().zip(values) {
        *a = *a - share * (*a - p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::tests::at_every_level;
    use crate::testing::numbers;

    /// Empty, tiny, around the ends of vectors and of pieces, and longer than two pieces of the norm.
    const SIZES: [usize; 9] = [0, 1, 7, 8, 33, 0, CHUNK - 1, CHUNK + 1, 2 * NORM_PIECE + 5];
    const AVERAGE_DECAY: f64 = 0.99;
    const RULES: [UpdateRule; 3] = [
        UpdateRule::Adam {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
        },
        UpdateRule::Adam {
            beta1: 0.9,
            beta2: 0.999,
            eps: 0.0,
        },
        UpdateRule::Sgd { momentum: 0.9 },
    ];

    fn factors(parameter: usize) -> UpdateFactors {
        let n = parameter as f64;
        UpdateFactors {
            gradient_scale: 0.7 + 0.01 * n,
            pull: 0.01 * n,
            shrink: 1.0 - 1e-3 * n,
            step: 0.1 / (1.0 + n),
            root_scale: 1.5 + n,
        }
    }

    /// Values, first, second moments and averages of parameters.
    #[derive(Clone, Debug, PartialEq)]
    struct State<T>([Vec<Vec<T>>; 4]);

    fn tensors<T: Scalar>(seed: u64) -> Vec<Vec<T>> {
        SIZES
            .iter()
            .zip(seed..)
            .map(|(&size, seed)| numbers(size, seed).into_iter().map(T::of).collect())
            .collect()
    }

    /// Every third entry of a gradient is 0.
    fn gradients<T: Scalar>(seed: u64) -> Vec<Vec<T>> {
        let mut gradients = tensors::<T>(seed);
        gradients
            .iter_mut()
            .for_each(|gradient| gradient.iter_mut().step_by(3).for_each(|g| *g = T::ZERO));
        gradients
    }

    fn start<T: Scalar>() -> State<T> {
        let zeros = SIZES.map(|size| vec![T::ZERO; size]).to_vec();
        State([tensors(1), zeros.clone(), zeros, tensors(50)])
    }

    fn three_steps<T: Scalar + Real>(rule: UpdateRule) -> State<T> {
        let mut state = start::<T>();
        for seed in [100, 200, 300] {
            let gradients = gradients::<T>(seed);
            let State([values, first, second, averages]) = &mut state;
            let moments = first.iter_mut().zip(second.iter_mut());
            let updates = values
                .iter_mut()
                .zip(moments)
                .zip(averages.iter_mut())
                .zip(&gradients)
                .enumerate();
            let updates = updates.map(
                |(parameter, (((values, (first, second)), average), gradient))| ParameterUpdate {
                    values,
                    first,
                    second,
                    average: (parameter != 3).then_some(average),
                    gradient,
                    factors: factors(parameter),
                },
            );
            optimiser_step(rule, AVERAGE_DECAY, updates.collect());
        }
        state
    }

    /// The formulas of the head of this file in f64, entry by entry, rounded to `T` after each operation.
    fn three_obvious_steps<T: Scalar>(rule: UpdateRule) -> State<T> {
        let round = |x: f64| T::of(x).wide();
        let mut state = start::<T>();
        for seed in [100, 200, 300] {
            for (parameter, gradient) in gradients::<T>(seed).iter().enumerate() {
                let f = factors(parameter);
                for (at, g) in gradient.iter().enumerate() {
                    let [p, m, v, a] =
                        [0, 1, 2, 3].map(|part: usize| state.0[part][parameter][at].wide());
                    let g =
                        round(round(g.wide() * round(f.gradient_scale)) + round(round(f.pull) * p));
                    let (p, m, v) = match rule {
                        UpdateRule::Adam { beta1, beta2, eps } => {
                            let m = round(round(round(beta1) * m) + round(round(1.0 - beta1) * g));
                            let v = round(
                                round(round(beta2) * v) + round(round(round(1.0 - beta2) * g) * g),
                            );
                            let root =
                                round(round(round(v.sqrt()) * round(f.root_scale)) + round(eps));
                            let move_by = if root == 0.0 {
                                0.0
                            } else {
                                round(round(round(f.step) * m) / root)
                            };
                            (round(round(p * round(f.shrink)) - move_by), m, v)
                        }
                        UpdateRule::Sgd { momentum } => {
                            let m = round(round(round(momentum) * m) + g);
                            (round(p - round(round(f.step) * m)), m, v)
                        }
                    };
                    let a = if parameter == 3 {
                        a
                    } else {
                        round(a - round(round(1.0 - AVERAGE_DECAY) * round(a - p)))
                    };
                    for (part, number) in [p, m, v, a].into_iter().enumerate() {
                        state.0[part][parameter][at] = T::of(number);
                    }
                }
            }
        }
        state
    }

    #[test]
    fn three_steps_have_the_bits_of_an_obvious_loop_for_any_size() {
        for rule in RULES {
            assert!(
                three_steps::<f64>(rule) == three_obvious_steps(rule),
                "{rule:?} in f64"
            );
            // One operation of two f32, done in f64 and rounded twice, is rounded as if once: f64 has more than twice the digits.
            assert!(
                three_steps::<f32>(rule) == three_obvious_steps(rule),
                "{rule:?} in f32"
            );
        }
    }

    #[test]
    fn threads_and_instruction_sets_give_the_same_bits() {
        for rule in RULES {
            let reference = three_steps::<f32>(rule);
            let norm = global_norm(&slices(&reference.0[0]));
            for threads in [1, 3] {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .expect("threads start");
                assert!(
                    pool.install(|| three_steps::<f32>(rule)) == reference,
                    "{threads} threads"
                );
                assert_eq!(
                    pool.install(|| global_norm(&slices(&reference.0[0]))),
                    norm,
                    "{threads} threads"
                );
            }
            for other in at_every_level(|| {
                (
                    three_steps::<f32>(rule),
                    global_norm(&slices(&reference.0[0])),
                )
            }) {
                assert!(other.0 == reference && other.1 == norm);
            }
        }
    }

    fn slices<T>(tensors: &[Vec<T>]) -> Vec<&[T]> {
        tensors.iter().map(Vec::as_slice).collect()
    }

    #[test]
    fn the_norm_sums_squares_in_f64_piece_by_piece() {
        let tensors = tensors::<f32>(5);
        let squares = |piece: &[f32]| {
            piece
                .iter()
                .fold(0.0, |sum, &x| sum + f64::from(x) * f64::from(x))
        };
        let of_tensor = |tensor: &Vec<f32>| {
            tensor
                .chunks(NORM_PIECE)
                .map(squares)
                .fold(0.0, |sum, piece| sum + piece)
        };
        let expected = tensors
            .iter()
            .map(of_tensor)
            .fold(0.0, |sum, tensor| sum + tensor)
            .sqrt();
        assert_eq!(global_norm(&slices(&tensors)), expected);
        // Many equal tensors fill the sums that are taken side by side.
        let many = vec![&tensors[8][..NORM_PIECE + 3]; 11];
        let one = squares(&many[0][..NORM_PIECE]) + squares(&many[0][NORM_PIECE..]);
        assert_eq!(
            global_norm(&many),
            (0..11).fold(0.0, |sum, _| sum + one).sqrt()
        );
    }

    #[test]
    fn the_norm_of_nothing_is_zero_and_that_of_three_and_four_is_five() {
        assert_eq!(global_norm::<f32>(&[]), 0.0);
        assert_eq!(global_norm::<f64>(&[&[], &[]]), 0.0);
        assert_eq!(global_norm(&[&[3.0_f32][..], &[], &[-4.0]]), 5.0);
        assert!(global_norm(&[&[1.0, f64::NAN]]).is_nan());
    }

    #[test]
    fn an_entry_that_never_had_a_gradient_only_shrinks_when_epsilon_is_zero() {
        let (mut values, mut first, mut second) = ([2.0_f32, 2.0], [0.0; 2], [0.0; 2]);
        // The square of 1e-30 underflows in f32.
        let (gradient, factors) = (
            [0.0, 1e-30],
            UpdateFactors {
                gradient_scale: 1.0,
                pull: 0.0,
                shrink: 0.5,
                step: 0.1,
                root_scale: 1.0,
            },
        );
        let update = ParameterUpdate {
            values: &mut values,
            first: &mut first,
            second: &mut second,
            average: None,
            gradient: &gradient,
            factors,
        };
        optimiser_step(RULES[1], 0.0, vec![update]);
        assert_eq!(values, [1.0, 1.0]);
    }

    #[test]
    #[should_panic(expected = "optimiser_step: lengths of the slices of a parameter")]
    fn slices_of_different_lengths_are_refused() {
        let (mut values, mut moments, mut short) = ([1.0; 3], [0.0; 3], [0.0; 2]);
        let gradient = [0.0; 3];
        let update = ParameterUpdate {
            values: &mut values,
            first: &mut moments,
            second: &mut short,
            average: None,
            gradient: &gradient,
            factors: factors(0),
        };
        optimiser_step(RULES[0], 0.0, vec![update]);
    }
}
