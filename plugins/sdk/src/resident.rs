//! Weights, moments and averages that live on a device, and the optimiser's step there.
//!
//! All parameters lie one after the other in one tensor, so that a step is some twenty launches whatever their number. The host's version
//! ([`Optimiser::update`]) is the definition: the same formulas, the same order.

use crate::{
    Precision,
    optimiser::{Optimiser, OptimiserState, StepFigures},
    parameters::{Flat, ParameterInfo},
};
use burn::tensor::{Device, Tensor, TensorData};
use equivbench_kernels::{UpdateFactors, UpdateRule};
use std::ops::Range;

/// What a step changes, on its device, in the precision of the weights.
#[derive(Debug)]
pub(crate) struct Resident {
    values: Tensor<1>,
    first: Tensor<1>,
    second: Tensor<1>,
    average: Option<Tensor<1>>,
    /// 1 where a parameter takes part and its weights decay, and 1 where it takes part.
    decaying: Tensor<1>,
    acting: Tensor<1>,
    /// Which parameters took part in the last step.
    present: Vec<bool>,
    /// Places of the parameters.
    spans: Vec<Range<usize>>,
    precision: Precision,
    device: Device,
}

impl Resident {
    /// Puts weights, moments and averages on a device.
    pub(crate) fn new(
        values: &Flat,
        state: &OptimiserState,
        parameters: &[ParameterInfo],
        device: &Device,
    ) -> Self {
        let mut end = 0;
        let spans = parameters.iter().map(|parameter| {
            end += parameter.len();
            end - parameter.len()..end
        });
        let nothing = || Tensor::zeros([0], device);
        Self {
            spans: spans.collect(),
            values: upload(values, device),
            first: upload(&state.first, device),
            second: upload(&state.second, device),
            average: state
                .average
                .as_ref()
                .map(|average| upload(average, device)),
            decaying: nothing(),
            acting: nothing(),
            present: Vec::new(),
            precision: match values {
                Flat::F32(_) => Precision::F32,
                Flat::F64(_) => Precision::F64,
            },
            device: device.clone(),
        }
    }

    /// One update: see [`Optimiser::update`]. `None`, and nothing done, where parameters differ in their number of updates or
    /// the rule is not one of Adam's.
    pub(crate) fn update(
        &mut self,
        optimiser: &Optimiser,
        state: &mut OptimiserState,
        gradients: &[Option<Tensor<1>>],
    ) -> Option<StepFigures> {
        let UpdateRule::Adam { beta1, beta2, eps } = optimiser.update_rule() else {
            return None;
        };
        let present: Vec<bool> = gradients.iter().map(Option::is_some).collect();
        let mut acting = state
            .updates
            .iter()
            .zip(&present)
            .filter(|(_, acts)| **acts);
        let updates = *acting.next()?.0;
        if !acting.all(|(other, _)| *other == updates) {
            return None;
        }
        let lr = optimiser.learning_rate(state.step);
        self.take_part(optimiser, present);
        let gradient = self.joined(gradients);
        let norm = scalar(gradient.clone().square().sum().sqrt());
        let factors = optimiser.rates(updates + 1, lr, optimiser.gradient_scale(norm));
        self.step(gradient, factors, [beta1, beta2], eps);
        if let Some(average) = self.average.take() {
            let share = 1.0 - optimiser.average_decay();
            let off = average.clone() - self.values.clone();
            self.average = Some(average - off.mul_scalar(share));
        }
        for (count, acts) in state.updates.iter_mut().zip(&self.present) {
            *count += u64::from(*acts);
        }
        state.step += 1;
        Some(StepFigures {
            lr,
            gradient_norm: norm,
        })
    }

    fn step(
        &mut self,
        gradient: Tensor<1>,
        factors: UpdateFactors,
        [beta1, beta2]: [f64; 2],
        eps: f64,
    ) {
        let mut values = self.values.clone();
        let mut gradient = gradient.mul_scalar(factors.gradient_scale);
        if factors.pull != 0.0 {
            gradient = gradient + values.clone() * self.decaying.clone().mul_scalar(factors.pull);
        }
        self.first =
            self.first.clone().mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
        self.second =
            self.second.clone().mul_scalar(beta2) + gradient.square().mul_scalar(1.0 - beta2);
        let root = self.second.clone().sqrt().mul_scalar(factors.root_scale);
        let root = root.add_scalar(eps);
        // Division by infinity is no step; 0 / 0 would be no number.
        let never = root.clone().equal_elem(0.0);
        let root = root.mask_fill(never, f64::INFINITY);
        if factors.shrink != 1.0 {
            let lost = self.decaying.clone().mul_scalar(1.0 - factors.shrink);
            values = values.clone() - values * lost;
        }
        let step = self.first.clone() / root * self.acting.clone();
        self.values = values - step.mul_scalar(factors.step);
    }

    /// Notes which parameters take part.
    fn take_part(&mut self, optimiser: &Optimiser, present: Vec<bool>) {
        if self.present == present {
            return;
        }
        let mask = |wanted: &dyn Fn(usize) -> bool| {
            let parts = self.spans.iter().enumerate().map(|(index, span)| {
                let value = f32::from(u8::from(wanted(index)));
                std::iter::repeat_n(value, span.len())
            });
            let numbers: Vec<f32> = parts.flatten().collect();
            let count = numbers.len();
            Tensor::from_data(
                TensorData::new(numbers, [count]),
                (&self.device, self.precision.dtype()),
            )
        };
        self.acting = mask(&|index| present[index]);
        self.decaying = mask(&|index| present[index] && optimiser.decays(index));
        self.present = present;
    }

    /// All gradients one after the other, zeros where there are none.
    fn joined(&self, gradients: &[Option<Tensor<1>>]) -> Tensor<1> {
        let parts = gradients.iter().zip(&self.spans);
        let parts = parts.map(|(gradient, span)| match gradient {
            Some(gradient) => gradient.clone().cast(self.precision.dtype()),
            None => Tensor::zeros([span.len()], (&self.device, self.precision.dtype())),
        });
        Tensor::cat(parts.collect(), 0)
    }

    /// Every parameter as a tensor of its own, in a precision.
    pub(crate) fn parts(&self, precision: Precision) -> Vec<Tensor<1>> {
        let values = self.values.clone().cast(precision.dtype());
        let part = |span: &Range<usize>| values.clone().slice([span.clone()]);
        self.spans.iter().map(part).collect()
    }

    /// The weights on the host.
    pub(crate) fn values(&self) -> Flat {
        self.fetch(&self.values)
    }

    /// The moving average on the host.
    pub(crate) fn average(&self) -> Option<Flat> {
        self.average.as_ref().map(|average| self.fetch(average))
    }

    /// Moments and averages on the host, with the counters of `state`.
    pub(crate) fn state(&self, state: &OptimiserState) -> OptimiserState {
        OptimiserState {
            first: self.fetch(&self.first),
            second: self.fetch(&self.second),
            average: self.average(),
            updates: state.updates.clone(),
            step: state.step,
        }
    }

    fn fetch(&self, tensor: &Tensor<1>) -> Flat {
        let data = tensor.clone().into_data();
        let part = |span: &Range<usize>| span.clone();
        match self.precision {
            Precision::F64 => {
                let all: Vec<f64> = data.iter::<f64>().collect();
                Flat::F64(self.spans.iter().map(|s| all[part(s)].to_vec()).collect())
            }
            Precision::F32 | Precision::Bf16 => {
                let all: Vec<f32> = data.iter::<f32>().collect();
                Flat::F32(self.spans.iter().map(|s| all[part(s)].to_vec()).collect())
            }
        }
    }
}

fn upload(values: &Flat, device: &Device) -> Tensor<1> {
    let (data, dtype) = match values {
        Flat::F32(v) => {
            let all = v.concat();
            let count = all.len();
            (TensorData::new(all, [count]), Precision::F32.dtype())
        }
        Flat::F64(v) => {
            let all = v.concat();
            let count = all.len();
            (TensorData::new(all, [count]), Precision::F64.dtype())
        }
    };
    Tensor::from_data(data, (device, dtype))
}

fn scalar(x: Tensor<1>) -> f64 {
    x.into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;
    use equivbench_abi::descriptor::Recipe;

    fn parameters(lengths: &[usize]) -> Vec<ParameterInfo> {
        let info = |(index, &length): (usize, &usize)| ParameterInfo {
            name: format!("{}{index}", if index == 1 { "bias" } else { "weight" }),
            shape: vec![length],
            id: ParamId::new(),
        };
        lengths.iter().enumerate().map(info).collect()
    }

    fn waves(count: usize, phase: f64) -> Vec<f64> {
        (0..count).map(|i| (i as f64 * 0.7 + phase).sin()).collect()
    }

    /// Steps on a device (here the processor, by tensors) and by the host's loops, the same to rounding.
    fn check(recipe: &Recipe) {
        let (device, parameters) = (Device::flex(), parameters(&[5, 3, 4]));
        let optimiser = Optimiser::new(recipe, &parameters, 7).unwrap();
        let mut values = Flat::F64(vec![waves(5, 0.0), waves(3, 1.0), waves(4, 2.0)]);
        let mut state = OptimiserState::new(&values, recipe);
        let mut counters = state.clone();
        let mut resident = Resident::new(&values, &state, &parameters, &device);
        for step in 0..5 {
            // The last parameter never takes part.
            let gradients = [
                Some(waves(5, 3.0 + f64::from(step))),
                Some(waves(3, 9.0)),
                None,
            ];
            let data = gradients.clone().map(|g| {
                g.map(|g| {
                    let count = g.len();
                    TensorData::new(g, [count])
                })
            });
            let tensors = data.clone().map(|data| {
                data.map(|data| Tensor::<1>::from_data(data, (&device, Precision::F64.dtype())))
            });
            let expected = optimiser.update(&mut values, &mut state, &data);
            let figures = resident
                .update(&optimiser, &mut counters, &tensors)
                .unwrap();
            // Sums of twelve terms in another order.
            assert!((figures.gradient_norm / expected.gradient_norm - 1.0).abs() < 1e-14);
            assert_eq!((figures.lr, counters.step), (expected.lr, state.step));
            assert_eq!(counters.updates, state.updates);
        }
        let ours = resident.state(&counters);
        agree(&resident.values(), &values);
        agree(&ours.first, &state.first);
        agree(&ours.second, &state.second);
        match (&ours.average, &state.average) {
            (Some(ours), Some(theirs)) => agree(ours, theirs),
            (ours, theirs) => assert_eq!(ours.is_some(), theirs.is_some()),
        }
    }

    fn agree(ours: &Flat, theirs: &Flat) {
        let (Flat::F64(ours), Flat::F64(theirs)) = (ours, theirs) else {
            panic!("both are f64")
        };
        for (a, b) in ours.iter().flatten().zip(theirs.iter().flatten()) {
            // Five steps of some ten roundings each, of numbers of order one.
            assert!((a - b).abs() < 1e-14, "{a} instead of {b}");
        }
    }

    #[test]
    fn a_step_on_the_device_is_that_of_the_host() {
        let decaying = Recipe {
            weight_decay: 0.1,
            clip_norm: 0.5,
            ema_decay: 0.9,
            no_decay: vec!["bias".into()],
            ..Recipe::adamw(1e-2)
        };
        check(&decaying);
        check(&Recipe {
            optimiser: "adam".into(),
            ema_decay: 0.0,
            ..decaying.clone()
        });
        check(&Recipe {
            eps: 0.0,
            ..decaying
        });
    }

    #[test]
    fn what_the_device_cannot_do_is_left_to_the_host() {
        let parameters = parameters(&[2, 2]);
        let values = Flat::F64(vec![vec![1.0; 2]; 2]);
        let gradient = || {
            Some(Tensor::<1>::ones(
                [2],
                (&Device::flex(), Precision::F64.dtype()),
            ))
        };
        let tried = |optimiser: &str, updates: Vec<u64>| {
            let recipe = Recipe {
                optimiser: optimiser.into(),
                ..Recipe::adamw(1e-2)
            };
            let mut state = OptimiserState::new(&values, &recipe);
            state.updates = updates;
            let optimiser = Optimiser::new(&recipe, &parameters, 1).unwrap();
            Resident::new(&values, &state, &parameters, &Device::flex())
                .update(&optimiser, &mut state, &[gradient(), gradient()])
                .is_some()
        };
        assert!(tried("adamw", vec![4, 4]));
        assert!(!tried("adamw", vec![4, 5]));
        assert!(!tried("sgd", vec![4, 4]));
    }
}
