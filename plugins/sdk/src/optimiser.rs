//! The optimiser loop as data: AdamW, Adam and SGD with name-based weight decay, clipping, schedule and moving average.
//!
//! One pass of `equivbench-kernels` over the numbers updates parameters, moments and averages together. Conventions are PyTorch's: decay multiplies
//! the parameter before the update, `p -= lr/(1-β1^k) · m / (sqrt(v/(1-β2^k)) + eps)`; a parameter without a gradient is
//! left alone, its own step count `k` included; the clip factor is `max_norm / (norm + 1e-6)`, at most 1. `eps` may be 0: an entry
//! whose denominator is 0, one that never had a gradient, does not step (it decays like the others).

use crate::{
    PluginError, PluginResult,
    parameters::{Flat, ParameterInfo},
};
use burn::tensor::{Element, TensorData};
use equivbench_abi::descriptor::Recipe;
use equivbench_kernels::{
    ParameterUpdate, Real, UpdateFactors, UpdateRule, global_norm, optimiser_step,
};

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepFigures {
    /// Learning rate used.
    pub lr: f64,
    /// Global L2 norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// Everything the optimiser remembers about parameters; the parameters themselves are the model's.
#[derive(Clone, Debug)]
pub struct OptimiserState {
    /// First moments.
    pub first: Flat,
    /// Second moments.
    pub second: Flat,
    /// Moving average, where the recipe keeps one.
    pub average: Option<Flat>,
    /// Updates of each parameter.
    pub updates: Vec<u64>,
    /// Steps of the run.
    pub step: u64,
}

impl OptimiserState {
    /// Starts from these parameters; the average starts at them.
    #[must_use]
    pub fn new(values: &Flat, recipe: &Recipe) -> Self {
        Self {
            first: values.zeros_like(),
            second: values.zeros_like(),
            average: (recipe.ema_decay > 0.0).then(|| values.clone()),
            updates: vec![0; values.count()],
            step: 0,
        }
    }
}

/// A recipe made ready for a parameter list.
#[derive(Clone, Debug)]
pub struct Optimiser {
    recipe: Recipe,
    rule: Rule,
    decays: Vec<bool>,
    steps_per_epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    AdamW,
    Adam,
    Sgd,
}

impl Optimiser {
    /// Checks the recipe and applies its name rule for weight decay.
    ///
    /// # Errors
    /// An unknown optimiser or schedule, or a figure out of range.
    pub fn new(
        recipe: &Recipe,
        parameters: &[ParameterInfo],
        steps_per_epoch: u64,
    ) -> PluginResult<Self> {
        let rule = match recipe.optimiser.as_str() {
            "adamw" => Rule::AdamW,
            "adam" => Rule::Adam,
            "sgd" => Rule::Sgd,
            other => {
                return Err(PluginError::BadRequest(format!(
                    "optimiser \"{other}\" is not known; use adamw, adam or sgd"
                )));
            }
        };
        check(recipe)?;
        let decays = parameters
            .iter()
            .map(|p| {
                !recipe
                    .no_decay
                    .iter()
                    .any(|word| p.name.contains(word.as_str()))
            })
            .collect();
        Ok(Self {
            recipe: recipe.clone(),
            rule,
            decays,
            steps_per_epoch,
        })
    }

    /// Learning rate of step `s` (0 for the first).
    #[must_use]
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.recipe.lr * schedule_factor(&self.recipe, step, self.steps_per_epoch)
    }

    /// One update, in place. Gradients are in the order and in the precision of the parameters; a parameter without one stays as it is.
    ///
    /// # Panics
    /// If a gradient has another precision or another number of elements than its parameter.
    pub fn update(
        &self,
        values: &mut Flat,
        state: &mut OptimiserState,
        gradients: &[Option<TensorData>],
    ) -> StepFigures {
        let lr = self.learning_rate(state.step);
        for (count, gradient) in state.updates.iter_mut().zip(gradients) {
            *count += u64::from(gradient.is_some());
        }
        let gradient_norm = match (values, &mut state.first, &mut state.second) {
            (Flat::F32(p), Flat::F32(m), Flat::F32(v)) => {
                let averages = match &mut state.average {
                    Some(Flat::F32(a)) => a.as_mut_slice(),
                    _ => &mut [],
                };
                self.sweep(lr, gradients, [p, m, v, averages], &state.updates)
            }
            (Flat::F64(p), Flat::F64(m), Flat::F64(v)) => {
                let averages = match &mut state.average {
                    Some(Flat::F64(a)) => a.as_mut_slice(),
                    _ => &mut [],
                };
                self.sweep(lr, gradients, [p, m, v, averages], &state.updates)
            }
            _ => unreachable!("parameters and moments of one instance share their precision"),
        };
        state.step += 1;
        StepFigures { lr, gradient_norm }
    }

    /// Updates values, first, second moments and averages (none where there are none); returns the norm of the gradient.
    fn sweep<F: Real + Element>(
        &self,
        lr: f64,
        gradients: &[Option<TensorData>],
        [values, first, second, averages]: [&mut [Vec<F>]; 4],
        updates: &[u64],
    ) -> f64 {
        let gradients: Vec<Option<&[F]>> = gradients
            .iter()
            .map(|gradient| gradient.as_ref().map(numbers))
            .collect();
        let gradient_norm = global_norm(&gradients.iter().copied().flatten().collect::<Vec<_>>());
        let scale = self.gradient_scale(gradient_norm);
        let mut averages = averages.iter_mut();
        let numbers = values.iter_mut().zip(first).zip(second);
        let parameters = numbers.zip(gradients).enumerate().filter_map(
            |(index, (((values, first), second), gradient))| {
                let average = averages.next().map(Vec::as_mut_slice);
                let factors = self.factors(index, updates[index], lr, scale);
                gradient.map(|gradient| ParameterUpdate {
                    values,
                    first,
                    second,
                    average,
                    gradient,
                    factors,
                })
            },
        );
        optimiser_step(
            self.update_rule(),
            self.recipe.ema_decay,
            parameters.collect(),
        );
        gradient_norm
    }

    /// The factor that clips the gradient.
    pub(crate) fn gradient_scale(&self, gradient_norm: f64) -> f64 {
        let clip = self.recipe.clip_norm;
        if clip > 0.0 {
            (clip / (gradient_norm + 1e-6)).min(1.0)
        } else {
            1.0
        }
    }

    pub(crate) fn update_rule(&self) -> UpdateRule {
        let Recipe {
            beta1, beta2, eps, ..
        } = self.recipe;
        match self.rule {
            Rule::AdamW | Rule::Adam => UpdateRule::Adam { beta1, beta2, eps },
            Rule::Sgd => UpdateRule::Sgd { momentum: beta1 },
        }
    }

    /// Whether the weights of a parameter decay.
    pub(crate) fn decays(&self, index: usize) -> bool {
        self.decays[index]
    }

    /// What the moving average keeps of itself in a step.
    pub(crate) fn average_decay(&self) -> f64 {
        self.recipe.ema_decay
    }

    /// The factors of a parameter whose weights decay.
    pub(crate) fn rates(&self, updates: u64, lr: f64, gradient_scale: f64) -> UpdateFactors {
        self.factors_with(self.recipe.weight_decay, updates, lr, gradient_scale)
    }

    fn factors(&self, index: usize, updates: u64, lr: f64, gradient_scale: f64) -> UpdateFactors {
        let decay = if self.decays[index] {
            self.recipe.weight_decay
        } else {
            0.0
        };
        self.factors_with(decay, updates, lr, gradient_scale)
    }

    fn factors_with(
        &self,
        decay: f64,
        updates: u64,
        lr: f64,
        gradient_scale: f64,
    ) -> UpdateFactors {
        let k = updates.max(1) as i32;
        UpdateFactors {
            gradient_scale,
            shrink: if self.rule == Rule::AdamW {
                1.0 - lr * decay
            } else {
                1.0
            },
            pull: if self.rule == Rule::AdamW { 0.0 } else { decay },
            step: if self.rule == Rule::Sgd {
                lr
            } else {
                lr / (1.0 - self.recipe.beta1.powi(k))
            },
            root_scale: 1.0 / (1.0 - self.recipe.beta2.powi(k)).sqrt(),
        }
    }
}

/// The numbers of a gradient.
fn numbers<F: Element>(gradient: &TensorData) -> &[F] {
    gradient
        .as_slice()
        .expect("gradients have the precision of the parameters")
}

fn check(recipe: &Recipe) -> PluginResult<()> {
    let bad = |what: &str| Err(PluginError::BadRequest(format!("recipe: {what}")));
    let fraction = |x: f64| (0.0..1.0).contains(&x);
    if !(recipe.lr.is_finite() && recipe.lr >= 0.0) {
        return bad("lr must be finite and not negative");
    }
    if !fraction(recipe.beta1) || !fraction(recipe.beta2) || !fraction(recipe.ema_decay) {
        return bad("beta1, beta2 and ema_decay must lie in [0, 1)");
    }
    if !(recipe.eps.is_finite() && recipe.eps >= 0.0) {
        return bad("eps must be finite and not negative");
    }
    if !(recipe.epochs.is_finite() && recipe.epochs > 0.0) {
        return bad("epochs must be finite and above 0");
    }
    if recipe.batch_size == 0 {
        return bad("batch_size must be at least 1");
    }
    if !matches!(recipe.schedule.as_str(), "constant" | "warmup-cosine") {
        return bad(&format!(
            "schedule \"{}\" is not known; use constant or warmup-cosine",
            recipe.schedule
        ));
    }
    Ok(())
}

/// The factor on the peak learning rate at a step.
///
/// `warmup-cosine`: with `W = floor(warmup_epochs · n)` and `T = floor(schedule_epochs · n)`, n steps an epoch:
/// `s ≤ W: f + (1 − f) s/W`; `W < s < T: min + (1 − min)/2 · (1 + cos(π s/T))`; then `min`. The cosine counts from step 0,
/// not from the end of the warm-up, as the reference implementation of EScAIP does.
#[must_use]
pub fn schedule_factor(recipe: &Recipe, step: u64, steps_per_epoch: u64) -> f64 {
    if recipe.schedule == "constant" {
        return 1.0;
    }
    let n = steps_per_epoch as f64;
    let (warmup, total) = (
        (recipe.warmup_epochs * n).floor(),
        (recipe.schedule_epochs * n).floor(),
    );
    let s = step as f64;
    if s <= warmup {
        let progress = if warmup > 0.0 { s / warmup } else { 1.0 };
        return recipe.warmup_factor + (1.0 - recipe.warmup_factor) * progress;
    }
    if s < total {
        return recipe.min_factor
            + 0.5 * (1.0 - recipe.min_factor) * (1.0 + (std::f64::consts::PI * s / total).cos());
    }
    recipe.min_factor
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;

    fn gradient<F: Element>(numbers: &[F]) -> Vec<Option<TensorData>> {
        vec![Some(TensorData::new(numbers.to_vec(), [numbers.len()]))]
    }

    fn one_parameter(name: &str) -> Vec<ParameterInfo> {
        vec![ParameterInfo {
            name: name.into(),
            shape: vec![1],
            id: ParamId::new(),
        }]
    }

    #[test]
    fn the_first_adamw_step_moves_by_the_learning_rate_and_decays_first() {
        let recipe = Recipe {
            lr: 0.1,
            weight_decay: 0.5,
            eps: 0.0,
            ..Recipe::default()
        };
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut values = Flat::F64(vec![vec![2.0]]);
        let mut state = OptimiserState::new(&values, &recipe);
        optimiser.update(&mut values, &mut state, &gradient(&[-3.0]));
        // m/(1-b1) = g and sqrt(v/(1-b2)) = |g|: the step is -lr * sign(g), after p *= 1 - lr * wd.
        let Flat::F64(p) = &values else {
            unreachable!()
        };
        assert!((p[0][0] - (2.0 * 0.95 + 0.1)).abs() < 1e-15, "{p:?}");
    }

    /// Written out in the order of operations of the reference, entry by entry.
    fn reference_steps(
        p: &mut [f64],
        average: &mut [f64],
        gradients: &[Vec<f64>],
        recipe: &Recipe,
    ) {
        let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
        for (k, g) in (1..).zip(gradients) {
            for i in 0..p.len() {
                p[i] *= 1.0 - recipe.lr * recipe.weight_decay;
                m[i] = recipe.beta1 * m[i] + (1.0 - recipe.beta1) * g[i];
                v[i] = recipe.beta2 * v[i] + (1.0 - recipe.beta2) * g[i] * g[i];
                let denominator = v[i].sqrt() / (1.0 - recipe.beta2.powi(k)).sqrt();
                let denominator = if denominator == 0.0 {
                    f64::INFINITY
                } else {
                    denominator
                };
                p[i] -= recipe.lr / (1.0 - recipe.beta1.powi(k)) * (m[i] / denominator);
                average[i] = recipe.ema_decay * average[i] + (1.0 - recipe.ema_decay) * p[i];
            }
        }
    }

    /// Gradients of three steps: large, tiny, of changing sign, 0 at first, 0 always.
    const WITH_ZEROS: [[f64; 5]; 3] = [
        [3.0, 1e-9, -2.0, 0.0, 0.0],
        [2.5, -1e-9, 0.5, 0.0, 0.0],
        [-1.0, 2e-9, 0.0, 1e-3, 0.0],
    ];

    #[test]
    fn without_epsilon_steps_equal_the_reference_and_an_entry_that_never_had_a_gradient_only_decays()
     {
        let recipe = Recipe {
            lr: 1e-2,
            beta1: 0.99,
            beta2: 0.999,
            weight_decay: 1e-2,
            eps: 0.0,
            ema_decay: 0.999,
            ..Recipe::default()
        };
        let start = vec![0.7, -0.3, 1.5, 0.2, -0.9];
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut double = Flat::F64(vec![start.clone()]);
        let mut single = double.to_precision(crate::Precision::F32);
        let (mut state, mut state32) = (
            OptimiserState::new(&double, &recipe),
            OptimiserState::new(&single, &recipe),
        );
        for g in WITH_ZEROS {
            optimiser.update(&mut double, &mut state, &gradient(&g));
            optimiser.update(&mut single, &mut state32, &gradient(&g.map(|g| g as f32)));
        }
        let (mut values, mut average) = (start.clone(), start.clone());
        reference_steps(
            &mut values,
            &mut average,
            &WITH_ZEROS.map(|g| g.to_vec()),
            &recipe,
        );
        let (Flat::F64(p), Some(Flat::F64(a)), Flat::F32(p32)) = (&double, &state.average, &single)
        else {
            unreachable!()
        };
        for i in 0..start.len() {
            // A few roundings of numbers below 2.
            assert!(
                (p[0][i] - values[i]).abs() < 1e-14 && (a[0][i] - average[i]).abs() < 1e-14,
                "entry {i}: {} {}",
                p[0][i],
                values[i]
            );
            assert!(
                (f64::from(p32[0][i]) - values[i]).abs() < 1e-6,
                "entry {i} in f32: {} {}",
                p32[0][i],
                values[i]
            );
        }
        let decayed = start[4] * (1.0 - 1e-4f64).powi(3);
        assert!((p[0][4] - decayed).abs() < 1e-15);
        // However small a gradient is, the first step has the length of the learning rate.
        let first = start[1] * (1.0 - 1e-4) - 1e-2;
        let mut values = Flat::F64(vec![start.clone()]);
        let mut state = OptimiserState::new(&values, &recipe);
        optimiser.update(&mut values, &mut state, &gradient(&WITH_ZEROS[0]));
        let Flat::F64(p) = &values else {
            unreachable!()
        };
        assert!((p[0][1] - first).abs() < 1e-14, "{p:?}");
    }

    #[test]
    fn a_gradient_whose_square_underflows_makes_no_infinite_step() {
        let recipe = Recipe {
            lr: 1e-2,
            eps: 0.0,
            ..Recipe::default()
        };
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut values = Flat::F32(vec![vec![1.0, 1.0]]);
        let mut state = OptimiserState::new(&values, &recipe);
        optimiser.update(&mut values, &mut state, &gradient(&[1e-30_f32, 0.0]));
        assert_eq!(values, Flat::F32(vec![vec![1.0, 1.0]]));
    }

    #[test]
    fn epsilon_may_be_zero_and_must_be_a_number() {
        let with = |eps: f64| {
            Optimiser::new(
                &Recipe {
                    eps,
                    ..Recipe::default()
                },
                &one_parameter("w"),
                1,
            )
        };
        assert!(with(0.0).is_ok());
        for eps in [-1e-8, f64::NAN, f64::INFINITY] {
            assert!(
                with(eps)
                    .unwrap_err()
                    .to_string()
                    .contains("eps must be finite and not negative")
            );
        }
    }

    #[test]
    fn a_name_rule_exempts_from_decay_and_a_missing_gradient_from_everything() {
        let recipe = Recipe {
            lr: 0.1,
            weight_decay: 0.5,
            no_decay: vec!["bias".into()],
            ..Recipe::default()
        };
        let optimiser = Optimiser::new(&recipe, &one_parameter("layer.bias"), 1).unwrap();
        let mut values = Flat::F64(vec![vec![2.0]]);
        let mut state = OptimiserState::new(&values, &recipe);
        optimiser.update(&mut values, &mut state, &gradient(&[0.0]));
        assert_eq!(values, Flat::F64(vec![vec![2.0]]));
        let decayed = Optimiser::new(&recipe, &one_parameter("layer.weight"), 1).unwrap();
        decayed.update(&mut values, &mut state, &[None]);
        assert_eq!(values, Flat::F64(vec![vec![2.0]]));
        assert_eq!(state.updates, [1]);
    }

    #[test]
    fn averages_stay_with_their_parameters_when_one_before_has_no_gradient() {
        let recipe = Recipe {
            optimiser: "sgd".into(),
            beta1: 0.0,
            lr: 1.0,
            ema_decay: 0.5,
            ..Recipe::default()
        };
        let parameters = [one_parameter("a"), one_parameter("b")].concat();
        let optimiser = Optimiser::new(&recipe, &parameters, 1).unwrap();
        let mut values = Flat::F64(vec![vec![5.0], vec![1.0]]);
        let mut state = OptimiserState::new(&values, &recipe);
        optimiser.update(
            &mut values,
            &mut state,
            &[None, gradient(&[-1.0]).remove(0)],
        );
        assert_eq!(values, Flat::F64(vec![vec![5.0], vec![2.0]]));
        assert_eq!(state.average, Some(Flat::F64(vec![vec![5.0], vec![1.5]])));
    }

    #[test]
    fn clipping_scales_the_whole_gradient_to_the_norm() {
        let recipe = Recipe {
            optimiser: "sgd".into(),
            beta1: 0.0,
            lr: 1.0,
            clip_norm: 1.0,
            ..Recipe::default()
        };
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut values = Flat::F64(vec![vec![0.0, 0.0]]);
        let mut state = OptimiserState::new(&values, &recipe);
        let figures = optimiser.update(&mut values, &mut state, &gradient(&[3.0, 4.0]));
        assert_eq!(figures.gradient_norm, 5.0);
        let Flat::F64(p) = &values else {
            unreachable!()
        };
        assert!((p[0][0] + 3.0 / (5.0 + 1e-6)).abs() < 1e-15);
    }

    #[test]
    fn the_schedule_has_the_reference_figures() {
        // The parity fixtures: warm-up 1 step of 20, lr 1e-3 -> 2e-4, 1e-3, 9.877641290737885e-4.
        let recipe = Recipe {
            schedule: "warmup-cosine".into(),
            warmup_epochs: 1.0,
            warmup_factor: 0.2,
            schedule_epochs: 20.0,
            min_factor: 0.5,
            ..Recipe::default()
        };
        let factors: Vec<f64> = (0..3).map(|s| schedule_factor(&recipe, s, 1)).collect();
        assert_eq!(factors[0], 0.2);
        assert_eq!(factors[1], 1.0);
        assert!((factors[2] - 0.987_764_129_073_788_5).abs() < 1e-15);
        assert_eq!(schedule_factor(&recipe, 25, 1), 0.5);
    }

    #[test]
    fn the_average_follows_with_its_decay() {
        let recipe = Recipe {
            optimiser: "sgd".into(),
            beta1: 0.0,
            lr: 1.0,
            ema_decay: 0.9,
            ..Recipe::default()
        };
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut values = Flat::F64(vec![vec![0.0]]);
        let mut state = OptimiserState::new(&values, &recipe);
        optimiser.update(&mut values, &mut state, &gradient(&[-1.0]));
        let Some(Flat::F64(a)) = &state.average else {
            panic!("the recipe keeps an average")
        };
        assert!((a[0][0] - 0.1).abs() < 1e-15);
    }
}
