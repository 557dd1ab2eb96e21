//! Activations whose gradients are those of their definitions, in the precision of their input.
//!
//! Burn's own gradient of a GELU is that of its approximation by a hyperbolic tangent (off by 1e-3), and its logistic function goes
//! through f32.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;

use super::function::{Function, apply};

/// `x Φ(x)`.
pub(crate) fn gelu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activated(Kind::Gelu, x)
}

/// `1 / (1 + exp(-x))`.
pub(crate) fn sigmoid<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activated(Kind::Sigmoid, x)
}

/// `x / (1 + exp(-x))`.
pub(crate) fn silu<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    activated(Kind::Silu, x)
}

fn activated<const D: usize>(kind: Kind, x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(apply(Activation::<D>(kind), [x.into_dispatch()]))
}

/// The numbers are those that kernels know.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Gelu = 0,
    Sigmoid = 1,
    Silu = 2,
}

#[derive(Debug)]
struct Activation<const D: usize>(Kind);

impl<const D: usize> Function<1> for Activation<D> {
    fn forward(&self, [x]: [DispatchTensor; 1]) -> DispatchTensor {
        #[cfg(feature = "cuda")]
        if let Some(y) = crate::cube::activated(self.0 as u32, &x) {
            return y;
        }
        let x = Tensor::<D>::from_dispatch(x);
        match self.0 {
            Kind::Gelu => x.clone() * below(x),
            Kind::Sigmoid => logistic(x),
            Kind::Silu => x.clone() * logistic(x),
        }
        .into_dispatch()
    }

    fn backward(
        &self,
        [x]: [DispatchTensor; 1],
        gradient: DispatchTensor,
        _: [bool; 1],
    ) -> [Option<DispatchTensor>; 1] {
        #[cfg(feature = "cuda")]
        if let Some(found) = crate::cube::pulled_back(self.0 as u32, &x, &gradient) {
            return [Some(found)];
        }
        let x = Tensor::<D>::from_dispatch(x);
        let slope = match self.0 {
            Kind::Gelu => {
                let density = x.clone().square().mul_scalar(-0.5).exp();
                below(x.clone()) + x * density.mul_scalar((2.0 * PI).sqrt().recip())
            }
            Kind::Sigmoid => {
                let s = logistic(x);
                s.clone() - s.square()
            }
            Kind::Silu => {
                let s = logistic(x.clone());
                s.clone() + x * (s.clone() - s.square())
            }
        };
        [Some(
            (Tensor::<D>::from_dispatch(gradient) * slope).into_dispatch(),
        )]
    }
}

/// The normal distribution up to x.
fn below<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    let halves = x.mul_scalar(FRAC_1_SQRT_2).erf();
    halves.add_scalar(1.0).mul_scalar(0.5)
}

/// An exponential that overflows ends as 0.
fn logistic<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    x.neg().exp().add_scalar(1.0).recip()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};
    use crate::{gelu as fused_gelu, silu as fused_silu};

    #[test]
    fn values_and_gradients_are_those_of_the_definitions() {
        let inputs = [numbers(300, 1).iter().map(|x| 4.0 * x).collect::<Vec<_>>()];
        check(
            |x| gelu(x[0].clone()),
            |x| fused_gelu(x[0].clone()),
            &inputs,
        );
        check(
            |x| silu(x[0].clone()),
            |x| fused_silu(x[0].clone()),
            &inputs,
        );
        check(
            |x| sigmoid(x[0].clone()),
            |x| x[0].clone().neg().exp().add_scalar(1.0).recip(),
            &inputs,
        );
    }

    #[test]
    fn far_out_nothing_becomes_no_number() {
        let device = burn::tensor::Device::flex().autodiff();
        let x = Tensor::<1>::from_floats([-1e30, -200.0, 200.0, 1e30], &device).require_grad();
        for f in [gelu, silu, sigmoid] {
            let gradients = f(x.clone()).sum().backward();
            let slopes = x.grad(&gradients).unwrap().into_data();
            assert_eq!(
                slopes.iter::<f32>().filter(|s| s.is_nan()).count(),
                0,
                "{slopes}"
            );
        }
    }
}
