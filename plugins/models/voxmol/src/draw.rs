//! Fresh weights: uniform within one over the root of the number of inputs, biases too, as PyTorch has it.

use burn::{
    module::Param,
    tensor::{DType, Device, Distribution, Tensor, TensorData},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Draws fresh weights, a stream for every piece of every parameter.
///
/// The device is asked for a single number, the seed: the weights do not depend on the generator of a backend, on the order in
/// which parameters are first used, or on the number of threads.
pub(crate) struct Draw<'a> {
    seed: u64,
    parameters: u64,
    device: &'a Device,
}

impl<'a> Draw<'a> {
    pub(crate) fn from_device(device: &'a Device) -> Self {
        let options = (device, DType::F32);
        let draws =
            Tensor::<1>::random([2], Distribution::Uniform(0.0, 16_777_216.0), options).into_data();
        // 24 bits of each: what an f32 holds exactly.
        let seed = draws
            .iter::<f64>()
            .fold(0u64, |seed, x| (seed << 24) | x as u64);
        Self {
            seed,
            parameters: 0,
            device,
        }
    }

    /// Uniform within `1 / sqrt(inputs)`, where `inputs` counts the numbers that one output adds up.
    pub(crate) fn uniform<const D: usize>(
        &mut self,
        shape: [usize; D],
        inputs: usize,
    ) -> Param<Tensor<D>> {
        const PIECE: usize = 1 << 15;
        let bound = 1.0 / (inputs as f64).sqrt();
        let (seed, parameter) = (self.seed, self.parameters);
        self.parameters += 1;
        let mut values = vec![0.0; shape.iter().product()];
        values
            .par_chunks_mut(PIECE)
            .enumerate()
            .for_each(|(piece, values)| {
                let mut rng = ChaCha8Rng::seed_from_u64(seed);
                rng.set_stream((parameter << 32) | piece as u64);
                values
                    .iter_mut()
                    .for_each(|value| *value = (bound * rng.random_range(-1.0..1.0f64)) as f32);
            });
        self.parameter(values, shape)
    }

    /// One number everywhere.
    pub(crate) fn constant(&self, width: usize, value: f32) -> Param<Tensor<1>> {
        self.parameter(vec![value; width], [width])
    }

    fn parameter<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, shape),
            (self.device, DType::F32),
        ))
    }
}
