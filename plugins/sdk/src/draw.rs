//! Fresh weights: the laws they follow, and draws that depend on one seed of the device and on nothing else.

use burn::{
    module::Param,
    tensor::{DType, Device, Distribution, Tensor, TensorData},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Numbers that come from one stream: enough to occupy a thread, and the same number on every machine.
const PIECE: usize = 1 << 15;

/// The law of a fresh parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Law {
    /// One number everywhere.
    Constant(f64),
    /// Uniform between minus and plus this bound.
    Uniform(f64),
    /// Normal with this standard deviation.
    Normal(f64),
    /// Normal cut at two standard deviations, with this standard deviation after the cut.
    Truncated(f64),
}

impl Law {
    /// What PyTorch gives a linear map or a convolution: uniform within `1 / sqrt(inputs)`, where `inputs` counts the numbers
    /// that one output adds up.
    #[must_use]
    pub fn usual(inputs: usize) -> Self {
        Self::Uniform(1.0 / (inputs as f64).sqrt())
    }

    /// Xavier's uniform law for a linear map, times a gain: within `gain · sqrt(6 / (inputs + outputs))`.
    #[must_use]
    pub fn xavier(inputs: usize, outputs: usize, gain: f64) -> Self {
        Self::Uniform(gain * (6.0 / (inputs + outputs) as f64).sqrt())
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> f64 {
        /// Standard deviation of a standard normal number cut at 2.
        const CUT: f64 = 0.879_596_566;
        match self {
            Self::Constant(value) => value,
            Self::Uniform(bound) => bound * rng.random_range(-1.0..1.0),
            Self::Normal(deviation) => deviation * normal(rng),
            Self::Truncated(deviation) => loop {
                let x = normal(rng);
                if x.abs() <= 2.0 {
                    return deviation / CUT * x;
                }
            },
        }
    }
}

/// A standard normal number (Box and Muller).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(0.0..1.0), rng.random_range(0.0..1.0));
    (-2.0 * (1.0 - u).ln()).sqrt() * (TAU * v).cos()
}

/// Draws the fresh weights of one model, in the order in which it asks for its parameters.
///
/// The device is asked for a single number, the seed: weights do not depend on the generator of a backend, on the order in which
/// parameters are first used, or on the number of threads.
///
/// ```
/// use burn::tensor::Device;
/// use equivbench_plugin::{Draw, Law};
/// let device = Device::flex();
/// let mut draw = Draw::from_device(&device);
/// let weight = draw.parameter([64, 32], Law::usual(64));
/// let bias = draw.filled([32], 0.0);
/// assert_eq!((weight.dims(), bias.dims()), ([64, 32], [32]));
/// ```
#[derive(Debug)]
pub struct Draw<'a> {
    streams: Streams,
    device: &'a Device,
}

/// Where the numbers come from.
#[derive(Debug)]
enum Streams {
    /// A stream for every piece of every parameter.
    Pieces { seed: u64, parameters: u64 },
    /// One for all parameters.
    One(Box<ChaCha8Rng>),
}

impl<'a> Draw<'a> {
    /// Draws from streams of their own for every parameter and every piece of 32,768 numbers, by all threads of the pool.
    #[must_use]
    pub fn from_device(device: &'a Device) -> Self {
        Self::from_seed(seed_of(device), device)
    }

    /// Draws one number after the other from one stream, on one thread: how EScAIP has drawn its weights since its first results.
    /// A new model takes [`Self::from_device`], where a law that draws more numbers moves no other parameter.
    #[must_use]
    pub fn in_one_stream(device: &'a Device) -> Self {
        Self::one_from_seed(seed_of(device), device)
    }

    fn from_seed(seed: u64, device: &'a Device) -> Self {
        Self {
            streams: Streams::Pieces {
                seed,
                parameters: 0,
            },
            device,
        }
    }

    fn one_from_seed(seed: u64, device: &'a Device) -> Self {
        Self {
            streams: Streams::One(Box::new(ChaCha8Rng::seed_from_u64(seed))),
            device,
        }
    }

    /// A parameter of this shape, every number drawn by the law and rounded to f32. A constant law takes a stream too, so that
    /// another law in its place moves no parameter that follows.
    pub fn parameter<const D: usize>(&mut self, shape: [usize; D], law: Law) -> Param<Tensor<D>> {
        let values = self.values(shape.iter().product(), law);
        self.uploaded(values, shape)
    }

    /// A parameter with one number everywhere; nothing is drawn, and no stream taken.
    #[must_use]
    pub fn filled<const D: usize>(&self, shape: [usize; D], value: f32) -> Param<Tensor<D>> {
        self.uploaded(vec![value; shape.iter().product()], shape)
    }

    fn uploaded<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, shape),
            (self.device, DType::F32),
        ))
    }

    fn values(&mut self, count: usize, law: Law) -> Vec<f32> {
        match &mut self.streams {
            Streams::One(rng) => (0..count).map(|_| law.draw(rng) as f32).collect(),
            Streams::Pieces { seed, parameters } => {
                let (seed, parameter) = (*seed, *parameters);
                *parameters += 1;
                let mut values = vec![0.0; count];
                values
                    .par_chunks_mut(PIECE)
                    .enumerate()
                    .for_each(|(piece, values)| {
                        let mut rng = ChaCha8Rng::seed_from_u64(seed);
                        rng.set_stream((parameter << 32) | piece as u64);
                        values.fill_with(|| law.draw(&mut rng) as f32);
                    });
                values
            }
        }
    }
}

/// A seed from the device's generator.
fn seed_of(device: &Device) -> u64 {
    // 24 bits of each number: what an f32 holds exactly.
    let range = Distribution::Uniform(0.0, 16_777_216.0);
    let draws = Tensor::<1>::random([2], range, (device, DType::F32)).into_data();
    draws
        .iter::<f64>()
        .fold(0, |seed, x| (seed << 24) | x as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 7;

    fn numbers<const D: usize>(parameter: &Param<Tensor<D>>) -> Vec<f32> {
        parameter.val().into_data().iter().collect()
    }

    /// Mean and standard deviation of 40,000 numbers of a law.
    fn moments(law: Law) -> [f64; 2] {
        let device = Device::flex();
        let values = numbers(&Draw::from_seed(SEED, &device).parameter([40_000], law));
        let n = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2));
        [mean, (squares.sum::<f64>() / n).sqrt()]
    }

    #[test]
    fn each_law_has_mean_zero_and_its_own_spread() {
        // Four standard errors, of a mean and of the standard deviation of a normal number (no law here has heavier tails).
        let (of_mean, of_deviation) = (4.0 / 40_000_f64.sqrt(), 4.0 / 80_000_f64.sqrt());
        let laws = [
            (Law::Uniform(1.5), 1.5 / 3_f64.sqrt()),
            (Law::Normal(0.3), 0.3),
            (Law::Truncated(2.0), 2.0),
        ];
        for (law, expected) in laws {
            let [mean, deviation] = moments(law);
            assert!(mean.abs() < of_mean * expected, "{law:?}: {mean}");
            let off = (deviation / expected - 1.0).abs();
            assert!(off < of_deviation, "{law:?}: {deviation}");
        }
    }

    #[test]
    fn no_number_of_a_cut_law_lies_beyond_the_cut() {
        let device = Device::flex();
        let values =
            numbers(&Draw::from_seed(SEED, &device).parameter([10_000], Law::Truncated(1.0)));
        let largest = values.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        assert!((2.2..=2.0 / 0.879_596_5).contains(&largest), "{largest}");
    }

    /// What begins at a piece does not depend on the number of threads, nor on how long the parameters before it are.
    #[test]
    fn a_law_that_draws_more_moves_no_other_parameter() {
        let device = Device::flex();
        let second = |first: Law, width: usize| {
            let mut draw = Draw::from_seed(SEED, &device);
            let _ = draw.parameter([width], first);
            let _ = draw.filled([width], 1.0);
            numbers(&draw.parameter([2 * PIECE + 3], Law::usual(9)))
        };
        let expected = second(Law::Constant(1.0), 1);
        assert_eq!(second(Law::Truncated(1.0), 3 * PIECE), expected);
        assert_ne!(expected[..PIECE], expected[PIECE..2 * PIECE]);
    }

    #[test]
    fn one_stream_goes_on_from_parameter_to_parameter() {
        let device = Device::flex();
        let law = Law::xavier(3, 4, 1.0);
        let whole = numbers(&Draw::one_from_seed(SEED, &device).parameter([10], law));
        let mut draw = Draw::one_from_seed(SEED, &device);
        let mut parts = numbers(&draw.parameter([2, 2], law));
        let _ = draw.parameter([5], Law::Constant(1.0));
        parts.extend(numbers(&draw.parameter([6], law)));
        assert_eq!(parts, whole);
    }

    /// Results of two versions can be compared only as long as these hold. No function of a library of mathematics has part in them.
    #[test]
    fn fresh_weights_do_not_move_between_versions() {
        let device = Device::flex();
        let mut pieces = Draw::from_seed(SEED, &device);
        let _ = pieces.parameter([5], Law::Constant(0.0));
        let mut one = Draw::one_from_seed(SEED, &device);
        let found =
            [&mut pieces, &mut one].map(|draw| numbers(&draw.parameter([3], Law::Uniform(1.0))));
        assert_eq!(
            found,
            [
                [-0.26499143, -0.26634732, -0.14840943],
                [-0.68440783, -0.66402125, 0.40855226]
            ]
        );
    }
}
