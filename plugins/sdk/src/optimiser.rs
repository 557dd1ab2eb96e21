//! The optimiser loop as data: AdamW, Adam and SGD with name-based weight decay, clipping, schedule and moving average.
//!
//! One pass over flat numbers updates parameter, moments and average together. Conventions are PyTorch's: decay multiplies
//! the parameter before the update, `p -= lr/(1-β1^k) · m / (sqrt(v/(1-β2^k)) + eps)`; a parameter without a gradient is
//! left alone, its own step count `k` included; the clip factor is `max_norm / (norm + 1e-6)`, at most 1. `eps` may be 0: an entry
//! whose denominator is 0, one that never had a gradient, does not step (it decays like the others).

use crate::{
    PluginError, PluginResult,
    parameters::{Flat, Gradients, ParameterInfo},
};
use equivbench_abi::descriptor::Recipe;
use rayon::prelude::*;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepFigures {
    /// Learning rate used.
    pub lr: f64,
    /// Global L2 norm of the gradient before clipping.
    pub gradient_norm: f64,
}

/// Parameters with everything the optimiser remembers about them.
#[derive(Clone, Debug)]
pub struct OptimiserState {
    /// Parameters.
    pub values: Flat,
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
    pub fn new(values: Flat, recipe: &Recipe) -> Self {
        let count = match &values {
            Flat::F32(v) => v.len(),
            Flat::F64(v) => v.len(),
        };
        Self {
            first: values.zeros_like(),
            second: values.zeros_like(),
            average: (recipe.ema_decay > 0.0).then(|| values.clone()),
            values,
            updates: vec![0; count],
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
    pub fn new(recipe: &Recipe, parameters: &[ParameterInfo], steps_per_epoch: u64) -> PluginResult<Self> {
        let rule = match recipe.optimiser.as_str() {
            "adamw" => Rule::AdamW,
            "adam" => Rule::Adam,
            "sgd" => Rule::Sgd,
            other => return Err(PluginError::BadRequest(format!("optimiser \"{other}\" is not known; use adamw, adam or sgd"))),
        };
        check(recipe)?;
        let decays = parameters.iter().map(|p| !recipe.no_decay.iter().any(|word| p.name.contains(word.as_str()))).collect();
        Ok(Self { recipe: recipe.clone(), rule, decays, steps_per_epoch })
    }

    /// Learning rate of step `s` (0 for the first).
    #[must_use]
    pub fn learning_rate(&self, step: u64) -> f64 {
        self.recipe.lr * schedule_factor(&self.recipe, step, self.steps_per_epoch)
    }

    /// One update.
    pub fn update(&self, state: &mut OptimiserState, gradients: &Gradients) -> StepFigures {
        let lr = self.learning_rate(state.step);
        let gradient_norm = norm(gradients);
        let clip = self.recipe.clip_norm;
        let scale = if clip > 0.0 { (clip / (gradient_norm + 1e-6)).min(1.0) } else { 1.0 };
        let present: Vec<bool> = match gradients {
            Gradients::F32(g) => g.iter().map(Option::is_some).collect(),
            Gradients::F64(g) => g.iter().map(Option::is_some).collect(),
        };
        for (count, present) in state.updates.iter_mut().zip(&present) {
            *count += u64::from(*present);
        }
        let factors = (0..present.len()).map(|i| self.factors(i, state.updates[i], lr, scale)).collect::<Vec<_>>();
        match (gradients, &mut state.values, &mut state.first, &mut state.second) {
            (Gradients::F32(g), Flat::F32(p), Flat::F32(m), Flat::F32(v)) => {
                let average = match &mut state.average {
                    Some(Flat::F32(a)) => Some(a),
                    _ => None,
                };
                self.sweep(g, p, m, v, average, &factors);
            }
            (Gradients::F64(g), Flat::F64(p), Flat::F64(m), Flat::F64(v)) => {
                let average = match &mut state.average {
                    Some(Flat::F64(a)) => Some(a),
                    _ => None,
                };
                self.sweep(g, p, m, v, average, &factors);
            }
            _ => unreachable!("gradients and parameters of one instance share their precision"),
        }
        state.step += 1;
        StepFigures { lr, gradient_norm }
    }

    fn factors(&self, index: usize, updates: u64, lr: f64, gradient_scale: f64) -> Factors {
        let k = updates.max(1) as i32;
        let decay = if self.decays[index] { self.recipe.weight_decay } else { 0.0 };
        Factors {
            gradient_scale,
            shrink: if self.rule == Rule::AdamW { 1.0 - lr * decay } else { 1.0 },
            pull: if self.rule == Rule::AdamW { 0.0 } else { decay },
            step: if self.rule == Rule::Sgd { lr } else { lr / (1.0 - self.recipe.beta1.powi(k)) },
            root_scale: 1.0 / (1.0 - self.recipe.beta2.powi(k)).sqrt(),
        }
    }

    fn sweep<F: Real>(
        &self,
        gradients: &[Option<Vec<F>>],
        values: &mut [Vec<F>],
        first: &mut [Vec<F>],
        second: &mut [Vec<F>],
        average: Option<&mut Vec<Vec<F>>>,
        factors: &[Factors],
    ) {
        /// Elements of one task: fixed, so that nothing depends on the number of threads.
        const CHUNK: usize = 1 << 15;
        let tail = F::from_f64(1.0 - self.recipe.ema_decay);
        let mut averages: Vec<Option<&mut Vec<F>>> = match average {
            Some(a) => a.iter_mut().map(Some).collect(),
            None => values.iter().map(|_| None).collect(),
        };
        let tasks = values.iter_mut().zip(first).zip(second).zip(gradients).zip(factors).zip(averages.iter_mut());
        for (((((p, m), v), g), f), a) in tasks {
            let Some(g) = g else { continue };
            p.par_chunks_mut(CHUNK)
                .zip(m.par_chunks_mut(CHUNK))
                .zip(v.par_chunks_mut(CHUNK))
                .zip(g.par_chunks(CHUNK))
                .for_each(|(((p, m), v), g)| self.update_chunk(p, m, v, g, f));
            if let Some(a) = a {
                a.par_chunks_mut(CHUNK).zip(p.par_chunks(CHUNK)).for_each(|(a, p)| {
                    for (a, &p) in a.iter_mut().zip(p) {
                        *a = *a - tail * (*a - p);
                    }
                });
            }
        }
    }

    fn update_chunk<F: Real>(&self, p: &mut [F], m: &mut [F], v: &mut [F], g: &[F], f: &Factors) {
        let (scale, shrink, pull) = (F::from_f64(f.gradient_scale), F::from_f64(f.shrink), F::from_f64(f.pull));
        let (step, root_scale, eps) = (F::from_f64(f.step), F::from_f64(f.root_scale), F::from_f64(self.recipe.eps));
        let (b1, b2) = (F::from_f64(self.recipe.beta1), F::from_f64(self.recipe.beta2));
        let (c1, c2) = (F::from_f64(1.0 - self.recipe.beta1), F::from_f64(1.0 - self.recipe.beta2));
        let (zero, never) = (F::from_f64(0.0), F::from_f64(f64::INFINITY));
        if self.rule == Rule::Sgd {
            for ((p, m), &g) in p.iter_mut().zip(m).zip(g) {
                *m = b1 * *m + (g * scale + pull * *p);
                *p = *p - step * *m;
            }
            return;
        }
        for (((p, m), v), &g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * scale + pull * *p;
            *m = b1 * *m + c1 * g;
            *v = b2 * *v + c2 * g * g;
            let root = v.root() * root_scale + eps;
            // Division by infinity is no step; 0 / 0 would be no number.
            let root = if root == zero { never } else { root };
            *p = *p * shrink - step * *m / root;
        }
    }
}

/// Scalars of one parameter in one step.
struct Factors {
    gradient_scale: f64,
    shrink: f64,
    pull: f64,
    step: f64,
    root_scale: f64,
}

/// The two float types, for one generic sweep.
trait Real:
    Copy
    + Send
    + Sync
    + PartialEq
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
{
    fn from_f64(x: f64) -> Self;
    fn root(self) -> Self;
}
impl Real for f32 {
    fn from_f64(x: f64) -> Self {
        x as Self
    }
    fn root(self) -> Self {
        self.sqrt()
    }
}
impl Real for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }
    fn root(self) -> Self {
        self.sqrt()
    }
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
        return bad(&format!("schedule \"{}\" is not known; use constant or warmup-cosine", recipe.schedule));
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
    let (warmup, total) = ((recipe.warmup_epochs * n).floor(), (recipe.schedule_epochs * n).floor());
    let s = step as f64;
    if s <= warmup {
        let progress = if warmup > 0.0 { s / warmup } else { 1.0 };
        return recipe.warmup_factor + (1.0 - recipe.warmup_factor) * progress;
    }
    if s < total {
        return recipe.min_factor + 0.5 * (1.0 - recipe.min_factor) * (1.0 + (std::f64::consts::PI * s / total).cos());
    }
    recipe.min_factor
}

/// Global L2 norm, accumulated in f64 parameter by parameter in a fixed order.
fn norm(gradients: &Gradients) -> f64 {
    const CHUNK: usize = 1 << 15;
    fn squares<F: Copy + Send + Sync + Into<f64>>(g: &[F]) -> f64 {
        let parts: Vec<f64> = g.par_chunks(CHUNK).map(|c| c.iter().map(|&x| Into::<f64>::into(x).powi(2)).sum::<f64>()).collect();
        parts.iter().sum()
    }
    match gradients {
        Gradients::F32(g) => g.iter().flatten().map(|g| squares(g)).sum::<f64>().sqrt(),
        Gradients::F64(g) => g.iter().flatten().map(|g| squares(g)).sum::<f64>().sqrt(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::module::ParamId;

    fn one_parameter(name: &str) -> Vec<ParameterInfo> {
        vec![ParameterInfo { name: name.into(), shape: vec![1], id: ParamId::new() }]
    }

    #[test]
    fn the_first_adamw_step_moves_by_the_learning_rate_and_decays_first() {
        let recipe = Recipe { lr: 0.1, weight_decay: 0.5, eps: 0.0, ..Recipe::default() };
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut state = OptimiserState::new(Flat::F64(vec![vec![2.0]]), &recipe);
        optimiser.update(&mut state, &Gradients::F64(vec![Some(vec![-3.0])]));
        // m/(1-b1) = g and sqrt(v/(1-b2)) = |g|: the step is -lr * sign(g), after p *= 1 - lr * wd.
        let Flat::F64(p) = &state.values else { unreachable!() };
        assert!((p[0][0] - (2.0 * 0.95 + 0.1)).abs() < 1e-15, "{p:?}");
    }

    /// Written out in the order of operations of the reference, entry by entry.
    fn reference_steps(p: &mut [f64], average: &mut [f64], gradients: &[Vec<f64>], recipe: &Recipe) {
        let (mut m, mut v) = (vec![0.0; p.len()], vec![0.0; p.len()]);
        for (k, g) in (1..).zip(gradients) {
            for i in 0..p.len() {
                p[i] *= 1.0 - recipe.lr * recipe.weight_decay;
                m[i] = recipe.beta1 * m[i] + (1.0 - recipe.beta1) * g[i];
                v[i] = recipe.beta2 * v[i] + (1.0 - recipe.beta2) * g[i] * g[i];
                let denominator = v[i].sqrt() / (1.0 - recipe.beta2.powi(k)).sqrt();
                let denominator = if denominator == 0.0 { f64::INFINITY } else { denominator };
                p[i] -= recipe.lr / (1.0 - recipe.beta1.powi(k)) * (m[i] / denominator);
                average[i] = recipe.ema_decay * average[i] + (1.0 - recipe.ema_decay) * p[i];
            }
        }
    }

    /// Gradients of three steps: large, tiny, of changing sign, 0 at first, 0 always.
    const WITH_ZEROS: [[f64; 5]; 3] = [[3.0, 1e-9, -2.0, 0.0, 0.0], [2.5, -1e-9, 0.5, 0.0, 0.0], [-1.0, 2e-9, 0.0, 1e-3, 0.0]];

    #[test]
    fn without_epsilon_steps_equal_the_reference_and_an_entry_that_never_had_a_gradient_only_decays() {
        let recipe = Recipe { lr: 1e-2, beta1: 0.99, beta2: 0.999, weight_decay: 1e-2, eps: 0.0, ema_decay: 0.999, ..Recipe::default() };
        let start = vec![0.7, -0.3, 1.5, 0.2, -0.9];
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut state = OptimiserState::new(Flat::F64(vec![start.clone()]), &recipe);
        let mut single = OptimiserState::new(state.values.to_precision(crate::Precision::F32), &recipe);
        for g in WITH_ZEROS {
            optimiser.update(&mut state, &Gradients::F64(vec![Some(g.to_vec())]));
            optimiser.update(&mut single, &Gradients::F32(vec![Some(g.map(|g| g as f32).to_vec())]));
        }
        let (mut values, mut average) = (start.clone(), start.clone());
        reference_steps(&mut values, &mut average, &WITH_ZEROS.map(|g| g.to_vec()), &recipe);
        let (Flat::F64(p), Some(Flat::F64(a)), Flat::F32(p32)) = (&state.values, &state.average, &single.values) else { unreachable!() };
        for i in 0..start.len() {
            // A few roundings of numbers below 2.
            assert!((p[0][i] - values[i]).abs() < 1e-14 && (a[0][i] - average[i]).abs() < 1e-14, "entry {i}: {} {}", p[0][i], values[i]);
            assert!((f64::from(p32[0][i]) - values[i]).abs() < 1e-6, "entry {i} in f32: {} {}", p32[0][i], values[i]);
        }
        let decayed = start[4] * (1.0 - 1e-4f64).powi(3);
        assert!((p[0][4] - decayed).abs() < 1e-15);
        // However small a gradient is, the first step has the length of the learning rate.
        let first = start[1] * (1.0 - 1e-4) - 1e-2;
        let mut state = OptimiserState::new(Flat::F64(vec![start.clone()]), &recipe);
        optimiser.update(&mut state, &Gradients::F64(vec![Some(WITH_ZEROS[0].to_vec())]));
        let Flat::F64(p) = &state.values else { unreachable!() };
        assert!((p[0][1] - first).abs() < 1e-14, "{p:?}");
    }

    #[test]
    fn a_gradient_whose_square_underflows_makes_no_infinite_step() {
        let recipe = Recipe { lr: 1e-2, eps: 0.0, ..Recipe::default() };
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut state = OptimiserState::new(Flat::F32(vec![vec![1.0, 1.0]]), &recipe);
        optimiser.update(&mut state, &Gradients::F32(vec![Some(vec![1e-30, 0.0])]));
        assert_eq!(state.values, Flat::F32(vec![vec![1.0, 1.0]]));
    }

    #[test]
    fn epsilon_may_be_zero_and_must_be_a_number() {
        let with = |eps: f64| Optimiser::new(&Recipe { eps, ..Recipe::default() }, &one_parameter("w"), 1);
        assert!(with(0.0).is_ok());
        for eps in [-1e-8, f64::NAN, f64::INFINITY] {
            assert!(with(eps).unwrap_err().to_string().contains("eps must be finite and not negative"));
        }
    }

    #[test]
    fn a_name_rule_exempts_from_decay_and_a_missing_gradient_from_everything() {
        let recipe = Recipe { lr: 0.1, weight_decay: 0.5, no_decay: vec!["bias".into()], ..Recipe::default() };
        let optimiser = Optimiser::new(&recipe, &one_parameter("layer.bias"), 1).unwrap();
        let mut state = OptimiserState::new(Flat::F64(vec![vec![2.0]]), &recipe);
        optimiser.update(&mut state, &Gradients::F64(vec![Some(vec![0.0])]));
        assert_eq!(state.values, Flat::F64(vec![vec![2.0]]));
        let decayed = Optimiser::new(&recipe, &one_parameter("layer.weight"), 1).unwrap();
        decayed.update(&mut state, &Gradients::F64(vec![None]));
        assert_eq!(state.values, Flat::F64(vec![vec![2.0]]));
        assert_eq!(state.updates, [1]);
    }

    #[test]
    fn clipping_scales_the_whole_gradient_to_the_norm() {
        let recipe = Recipe { optimiser: "sgd".into(), beta1: 0.0, lr: 1.0, clip_norm: 1.0, ..Recipe::default() };
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut state = OptimiserState::new(Flat::F64(vec![vec![0.0, 0.0]]), &recipe);
        let figures = optimiser.update(&mut state, &Gradients::F64(vec![Some(vec![3.0, 4.0])]));
        assert_eq!(figures.gradient_norm, 5.0);
        let Flat::F64(p) = &state.values else { unreachable!() };
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
        let recipe = Recipe { optimiser: "sgd".into(), beta1: 0.0, lr: 1.0, ema_decay: 0.9, ..Recipe::default() };
        let optimiser = Optimiser::new(&recipe, &one_parameter("w"), 1).unwrap();
        let mut state = OptimiserState::new(Flat::F64(vec![vec![0.0]]), &recipe);
        optimiser.update(&mut state, &Gradients::F64(vec![Some(vec![-1.0])]));
        let Some(Flat::F64(a)) = &state.average else { panic!("the recipe keeps an average") };
        assert!((a[0][0] - 0.1).abs() < 1e-15);
    }
}
