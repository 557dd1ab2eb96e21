//! One measurement: rotate the inputs, predict, un-rotate the outputs, accumulate. The model sees batches only.
//!
//! The model predicts on the calling thread. Rotating the next inputs and gathering the last predictions happen on two others
//! meanwhile; each hands over one batch at a time, in order, so results do not depend on who is faster.

use crate::{
    Batch, CoreError, Deviation, Estimator, FieldKind, Model, PointLoss, Rotation, RotationPlan, Rows, SampleTerms, Supervised, Task,
    TwirlAccumulator, Variant, Weights,
    action::{act, act_inverse_on_rows, grid_rotation, prediction_range},
};
use std::{
    panic::resume_unwind,
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::{Scope, ScopedJoinHandle},
};

/// How a batch is measured.
#[derive(Clone, Copy, Debug)]
pub struct Measurement {
    /// Raw or averaged weights.
    pub weights: Weights,
    /// The loss that is split.
    pub loss: PointLoss,
    /// Plug-in or unbiased.
    pub estimator: Estimator,
}

/// Splits the loss of every sample of a batch into its twirled and its equivariance part, in one pass of the model.
///
/// `plans` holds the rotations of each sample; all plans have the same length. Pass `i` rotates every sample by its own `i`-th
/// rotation, so a measurement is one prediction of the whole batch for each rotation.
///
/// # Errors
/// Plans that do not fit the batch, a prediction of the wrong size, or what the model reports.
pub fn measure(
    model: &mut dyn Model,
    samples: &Supervised,
    plans: &[RotationPlan],
    how: Measurement,
) -> Result<Vec<SampleTerms>, CoreError> {
    let passes = Passes { samples, plans, how, feeding: None, checked: None };
    Ok(passes.run(model)?.0.swap_remove(0))
}

/// As [`measure`], for several variants of the prediction: one list of terms for each. The plain prediction is the first pass of the
/// self-conditioned one, so both together cost two passes.
///
/// # Errors
/// As [`measure`], and a self-conditioned variant of a task that has none.
pub fn measure_variants(
    model: &mut dyn Model,
    task: &dyn Task,
    samples: &Supervised,
    plans: &[RotationPlan],
    how: Measurement,
    variants: &[Variant],
) -> Result<Vec<Vec<SampleTerms>>, CoreError> {
    let passes = Passes { samples, plans, how, feeding: feeding(task, variants), checked: None };
    Ok(by_variant(passes.run(model)?.0, variants))
}

/// What a measurement from shared work predicts by the blind path as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The pass, an index into the rotations of a plan.
    pub pass: usize,
    /// Samples of the batch.
    pub samples: Vec<usize>,
}

/// As [`measure_variants`] with a model that shares work among rotated copies. What is checked is then predicted again by the blind path,
/// each rotated copy for itself, and compared.
///
/// # Errors
/// As [`measure_variants`].
pub fn measure_shared(
    model: &mut dyn Model,
    task: &dyn Task,
    samples: &Supervised,
    plans: &[RotationPlan],
    how: Measurement,
    variants: &[Variant],
    checked: Option<&Checked>,
) -> Result<(Vec<Vec<SampleTerms>>, Deviation), CoreError> {
    let passes = Passes { samples, plans, how, feeding: feeding(task, variants), checked };
    model.share(&samples.inputs, how.weights)?;
    let outcome = passes.run(model);
    let ended = model.end_sharing();
    let (terms, kept) = outcome?;
    ended?;
    let mut deviation = Deviation::default();
    let mut blind = Vec::new();
    for (copy, shared) in kept {
        model.predict_into(&copy, how.weights, &mut blind)?;
        deviation.compare(&shared, &blind, copy.samples());
    }
    Ok((by_variant(terms, variants), deviation))
}

fn feeding<'a>(task: &'a dyn Task, variants: &[Variant]) -> Option<&'a dyn Task> {
    variants.contains(&Variant::SelfConditioned).then_some(task)
}

/// One list of terms for each variant, from those of the first pass and, where there is one, of the second.
fn by_variant(terms: Vec<Vec<SampleTerms>>, variants: &[Variant]) -> Vec<Vec<SampleTerms>> {
    let of = |variant: &Variant| if *variant == Variant::Plain { &terms[0] } else { &terms[terms.len() - 1] };
    variants.iter().map(|variant| of(variant).clone()).collect()
}

/// A rotated copy and what the model predicts for it.
type Kept = (Batch, Vec<f64>);

/// All passes over a batch.
#[derive(Clone, Copy)]
struct Passes<'a> {
    samples: &'a Supervised,
    plans: &'a [RotationPlan],
    how: Measurement,
    /// What makes the input of a second pass, where there is one.
    feeding: Option<&'a dyn Task>,
    /// Whose copies and predictions are kept.
    checked: Option<&'a Checked>,
}

impl Passes<'_> {
    /// The terms of first passes and, where there are, of second passes; and what was to be kept.
    fn run(&self, model: &mut dyn Model) -> Result<(Vec<Vec<SampleTerms>>, Vec<Kept>), CoreError> {
        let passes = equal_lengths(self.plans, &self.samples.inputs)?;
        let kinds = 1 + usize::from(self.feeding.is_some());
        let twirls = (0..kinds).map(|_| Twirls::new(model, self.samples, self.plans, self.how)).collect::<Result<Vec<_>, _>>()?;
        std::thread::scope(|scope| {
            let copies = Copies::ahead(scope, self.samples, self.plans, passes);
            let gatherer = Gatherer::start(scope, twirls);
            let kept = self.predict(model, passes, &copies, &gatherer);
            // Its own error is the cause where the model's thread found it gone.
            let twirls = gatherer.finish()?;
            Ok((twirls.iter().map(Twirls::finish).collect(), kept?))
        })
    }

    /// Predicts every copy and hands the predictions on.
    fn predict(&self, model: &mut dyn Model, passes: usize, copies: &Copies, gatherer: &Gatherer<'_>) -> Result<Vec<Kept>, CoreError> {
        let mut kept = Vec::new();
        let rows = (model.output_rows(), model.output_width(&self.samples.inputs));
        for pass in 0..passes {
            let mut copy = copies.next()?;
            let mut prediction = gatherer.buffer();
            self.predict_one(model, &copy, &mut prediction)?;
            self.keep(pass, &copy, &prediction, rows, &mut kept);
            let fed = self.feeding.map(|task| fed_field(task, &copy, &prediction)).transpose()?;
            gatherer.push(0, pass, prediction)?;
            if let Some(fed) = fed {
                copy.fields.push(fed);
                let mut prediction = gatherer.buffer();
                self.predict_one(model, &copy, &mut prediction)?;
                self.keep(pass, &copy, &prediction, rows, &mut kept);
                gatherer.push(1, pass, prediction)?;
            }
            copies.give_back(copy);
        }
        Ok(kept)
    }

    fn predict_one(&self, model: &mut dyn Model, copy: &Batch, prediction: &mut Vec<f64>) -> Result<(), CoreError> {
        model.predict_into(copy, self.how.weights, prediction)?;
        let expected = self.samples.target_values()?.len();
        if prediction.len() != expected {
            return Err(CoreError::Shape(format!("the model predicts {} numbers, the target has {expected}", prediction.len())));
        }
        Ok(())
    }

    fn keep(&self, pass: usize, copy: &Batch, prediction: &[f64], (rows, width): (Rows, usize), kept: &mut Vec<Kept>) {
        let Some(checked) = self.checked.filter(|checked| checked.pass == pass) else { return };
        let own = checked.samples.iter().flat_map(|&s| &prediction[prediction_range(copy, rows, width, s)]);
        kept.push((copy.select(&checked.samples), own.copied().collect()));
    }
}

fn fed_field(task: &dyn Task, copy: &Batch, prediction: &[f64]) -> Result<crate::Field, CoreError> {
    let fed = task.feed_back(copy, prediction)?;
    fed.ok_or_else(|| CoreError::Shape(format!("task {} has no self-conditioned variant", task.name())))
}

/// Rotated copies, made one ahead of the model. Buffers go round.
struct Copies {
    made: Receiver<Result<Batch, CoreError>>,
    used: Sender<Batch>,
}

impl Copies {
    fn ahead<'scope, 'env>(scope: &'scope Scope<'scope, 'env>, of: &'env Supervised, plans: &'env [RotationPlan], passes: usize) -> Self {
        let (to_model, made) = sync_channel(0);
        let (used, free): (Sender<Batch>, Receiver<Batch>) = channel();
        scope.spawn(move || {
            for pass in 0..passes {
                let mut copy = free.try_recv().unwrap_or_default();
                let made = act(&rotations(plans, pass), &of.inputs, &mut copy).map(|()| copy);
                // Nobody waits for it where the model failed.
                if to_model.send(made).is_err() {
                    break;
                }
            }
        });
        Self { made, used }
    }

    fn next(&self) -> Result<Batch, CoreError> {
        self.made.recv().unwrap_or_else(|_| Err(CoreError::Shape("the thread that rotates the inputs has ended".into())))
    }

    fn give_back(&self, copy: Batch) {
        // The last copies are not wanted any more.
        let _ = self.used.send(copy);
    }
}

/// Takes predictions and adds them to the twirls, beside the model's thread. Buffers go round.
struct Gatherer<'scope> {
    predictions: SyncSender<(usize, usize, Vec<f64>)>,
    free: Receiver<Vec<f64>>,
    thread: ScopedJoinHandle<'scope, Result<Vec<Twirls<'scope>>, CoreError>>,
}

impl<'scope> Gatherer<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>, mut twirls: Vec<Twirls<'scope>>) -> Self {
        let (predictions, arriving): (SyncSender<(usize, usize, Vec<f64>)>, _) = sync_channel(0);
        let (used, free) = channel();
        let thread = scope.spawn(move || {
            while let Ok((kind, pass, mut prediction)) = arriving.recv() {
                let twirl: &mut Twirls<'_> = &mut twirls[kind];
                twirl.push(pass, &mut prediction)?;
                let _ = used.send(prediction);
            }
            Ok(twirls)
        });
        Self { predictions, free, thread }
    }

    fn buffer(&self) -> Vec<f64> {
        self.free.try_recv().unwrap_or_default()
    }

    fn push(&self, kind: usize, pass: usize, prediction: Vec<f64>) -> Result<(), CoreError> {
        let gone = |_| CoreError::Shape("the thread that gathers predictions has ended".into());
        self.predictions.send((kind, pass, prediction)).map_err(gone)
    }

    fn finish(self) -> Result<Vec<Twirls<'scope>>, CoreError> {
        drop(self.predictions);
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// The twisted predictions of a batch, as they come.
struct Twirls<'a> {
    samples: &'a Supervised,
    plans: &'a [RotationPlan],
    how: Measurement,
    output: (FieldKind, Rows, usize),
    accumulators: Vec<TwirlAccumulator>,
}

impl<'a> Twirls<'a> {
    fn new(model: &dyn Model, samples: &'a Supervised, plans: &'a [RotationPlan], how: Measurement) -> Result<Self, CoreError> {
        let inputs = &samples.inputs;
        let (kind, rows, width) = (model.output_kind(), model.output_rows(), model.output_width(inputs));
        let target = samples.target_values()?;
        let of_sample = |s: usize| -> Result<TwirlAccumulator, CoreError> {
            let own = target.get(prediction_range(inputs, rows, width, s));
            let own =
                own.ok_or_else(|| CoreError::Shape(format!("the target has {} numbers, too few for rows of {width}", target.len())))?;
            Ok(TwirlAccumulator::new(own.to_vec(), width, plans[s].cosets, how.loss))
        };
        let accumulators = (0..inputs.samples()).map(of_sample).collect::<Result<_, _>>()?;
        Ok(Self { samples, plans, how, output: (kind, rows, width), accumulators })
    }

    /// Un-rotates a prediction and adds it.
    fn push(&mut self, pass: usize, prediction: &mut [f64]) -> Result<(), CoreError> {
        let (kind, rows, width) = self.output;
        let shape = self.samples.target.as_ref().map(|t| t.shape.clone()).unwrap_or_default();
        let rotations = rotations(self.plans, pass);
        for (sample, accumulator) in self.accumulators.iter_mut().enumerate() {
            let values = &mut prediction[prediction_range(&self.samples.inputs, rows, width, sample)];
            let coset = self.plans[sample].coset_of(pass);
            if kind == FieldKind::VoxelGrid {
                let turn = grid_rotation(&rotations[sample].inverse(), &shape);
                let turn = turn.map_err(|why| CoreError::Action { field: "prediction".into(), why })?;
                accumulator.push_rotated(coset, &turn, values);
            } else {
                act_inverse_on_rows(&rotations[sample], kind, &shape, values)?;
                accumulator.push(coset, values);
            }
        }
        Ok(())
    }

    fn finish(&self) -> Vec<SampleTerms> {
        self.accumulators.iter().map(|t| t.finish(self.how.estimator)).collect()
    }
}

/// The rotation of each sample in a pass.
fn rotations(plans: &[RotationPlan], pass: usize) -> Vec<Rotation> {
    plans.iter().map(|plan| plan.rotations[pass]).collect()
}

fn equal_lengths(plans: &[RotationPlan], inputs: &Batch) -> Result<usize, CoreError> {
    let passes = plans.first().map_or(0, |p| p.rotations.len());
    if plans.len() != inputs.samples() || passes == 0 || plans.iter().any(|p| p.rotations.len() != passes) {
        return Err(CoreError::Shape(format!("{} rotation plans for {} samples", plans.len(), inputs.samples())));
    }
    Ok(passes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, FiniteGroup, FlowMatching, Rows, Scheme, Seed, StepFigures};

    const A: [[f64; 3]; 3] = [[2.0, 0.3, -1.0], [0.0, 0.5, 0.7], [1.1, -0.2, -1.0]];
    const B: [[f64; 3]; 3] = [[0.1, 0.0, 0.4], [-0.3, 0.2, 0.0], [0.0, 0.6, -0.5]];
    const TIME: f64 = 0.25;

    fn times(m: &[[f64; 3]; 3], x: &[f64]) -> [f64; 3] {
        m.map(|row| row[0] * x[0] + row[1] * x[1] + row[2] * x[2])
    }

    /// `A x + B x_sc`, the second term where there is a self-conditioning input. Counts its passes.
    #[derive(Default)]
    struct Linear {
        passes: usize,
        /// Whether predictions are of rotated copies, and how much the shared path then adds to each number.
        sharing: bool,
        wrong_by: f64,
        /// The pass that predicts a number too few.
        short_at: Option<usize>,
    }

    impl Model for Linear {
        fn output_kind(&self) -> FieldKind {
            FieldKind::Vector
        }
        fn output_rows(&self) -> Rows {
            Rows::Point
        }
        fn output_width(&self, _: &Batch) -> usize {
            3
        }
        fn predict_into(&mut self, batch: &Batch, _: Weights, out: &mut Vec<f64>) -> Result<(), CoreError> {
            self.passes += 1;
            *out = batch.field("positions")?.reals()?.chunks(3).flat_map(|x| times(&A, x)).collect();
            if let Ok(fed) = batch.field("self_conditioning") {
                let more = fed.reals()?.chunks(3).flat_map(|x| times(&B, x));
                out.iter_mut().zip(more).for_each(|(o, m)| *o += m);
            }
            if self.sharing {
                out.iter_mut().for_each(|o| *o += self.wrong_by);
            }
            if self.short_at == Some(self.passes) {
                out.pop();
            }
            Ok(())
        }
        fn shares_rotations(&self) -> bool {
            true
        }
        fn share(&mut self, base: &Batch, _: Weights) -> Result<(), CoreError> {
            assert_eq!(base.field("positions")?.reals()?, X);
            self.sharing = true;
            Ok(())
        }
        fn end_sharing(&mut self) -> Result<(), CoreError> {
            self.sharing = false;
            Ok(())
        }
        fn train_step(&mut self, _: &Batch) -> Result<StepFigures, CoreError> {
            Err(CoreError::Model("it does not train".into()))
        }
        fn vjp_into(&mut self, _: &Batch, _: &[f64], _: &str, _: &mut Vec<f64>) -> Result<(), CoreError> {
            Err(CoreError::Model("it has no gradient".into()))
        }
        fn parameters_into(&self, _: &str, _: &mut Vec<f64>) -> Result<(), CoreError> {
            Ok(())
        }
        fn set_parameters(&mut self, _: &str, _: &[f64]) -> Result<(), CoreError> {
            Ok(())
        }
        fn save(&self) -> Result<Vec<u8>, CoreError> {
            Ok(Vec::new())
        }
        fn load(&mut self, _: &[u8]) -> Result<(), CoreError> {
            Ok(())
        }
        fn synchronise(&mut self) -> Result<(), CoreError> {
            Ok(())
        }
    }

    const X: [f64; 6] = [0.3, -1.2, 0.7, 2.0, 0.1, -0.4];

    fn sample() -> Supervised {
        let cloud = |name: &str, values: Vec<f64>| Field::real(name, FieldKind::Vector, Rows::Point, vec![2, 3], values);
        let inputs = Batch {
            offsets: vec![0, 2],
            fields: vec![cloud("positions", X.to_vec()), Field::real("flow_time", FieldKind::Invariant, Rows::Sample, vec![1], vec![TIME])],
        };
        Supervised { inputs, target: Some(cloud("target", vec![0.0; 6])), labels: Vec::new() }
    }

    /// `E‖Z − μ‖²` of `x ↦ M x`: `(‖M‖²_F / 3 − (tr M / 3)²) ‖x‖²`.
    fn spread(m: &[[f64; 3]; 3]) -> f64 {
        let trace = (m[0][0] + m[1][1] + m[2][2]) / 3.0;
        let frobenius: f64 = m.iter().flatten().map(|v| v * v).sum();
        (frobenius / 3.0 - trace * trace) * X.iter().map(|x| x * x).sum::<f64>()
    }

    #[test]
    fn a_self_conditioned_linear_model_is_measured_as_its_two_pass_composite() {
        // f2(x) = A x + B (x + (1 − t) A x), linear again.
        let mut composite = A;
        for (i, row) in composite.iter_mut().enumerate() {
            for (j, entry) in row.iter_mut().enumerate() {
                let product: f64 = (0..3).map(|k| B[i][k] * A[k][j]).sum();
                *entry += B[i][j] + (1.0 - TIME) * product;
            }
        }
        let samples = sample();
        let plans = [Scheme::Exhaustive(FiniteGroup::Tetrahedral).plan(Seed::new(1), 0)];
        let how = Measurement { weights: Weights::Raw, loss: PointLoss::Mse, estimator: Estimator::Unbiased };
        let mut model = Linear::default();
        let terms = measure_variants(&mut model, &FlowMatching, &samples, &plans, how, &Variant::ALL).unwrap();
        assert_eq!(model.passes, 24, "two passes for each of 12 rotations serve both variants");
        // Linear maps are averaged exactly by the tetrahedral group; sums of 12 rotations round at 1e-15.
        assert!((terms[0][0].loss_equiv / spread(&A) - 1.0).abs() < 1e-13);
        assert!((terms[1][0].loss_equiv / spread(&composite) - 1.0).abs() < 1e-13);
        let plain = measure_variants(&mut model, &FlowMatching, &samples, &plans, how, &[Variant::Plain]).unwrap();
        assert_eq!((model.passes, &plain[0]), (36, &terms[0]));
        assert!(measure_variants(&mut model, &crate::ForceField, &samples, &plans, how, &Variant::ALL).is_err());
    }

    fn exhaustive() -> ([RotationPlan; 1], Measurement) {
        let how = Measurement { weights: Weights::Raw, loss: PointLoss::Mse, estimator: Estimator::Unbiased };
        ([Scheme::Exhaustive(FiniteGroup::Tetrahedral).plan(Seed::new(1), 0)], how)
    }

    #[test]
    fn shared_passes_are_checked_against_blind_ones_of_the_same_copies() {
        let ((plans, how), samples) = (exhaustive(), sample());
        let mut model = Linear::default();
        let blind = measure_variants(&mut model, &FlowMatching, &samples, &plans, how, &Variant::ALL).unwrap();
        let shared = |wrong_by, checked: Option<usize>| {
            let mut model = Linear { wrong_by, ..Linear::default() };
            let checked = checked.map(|pass| Checked { pass, samples: vec![0] });
            let found = measure_shared(&mut model, &FlowMatching, &samples, &plans, how, &Variant::ALL, checked.as_ref()).unwrap();
            assert!(!model.sharing);
            found
        };
        let (terms, deviation) = shared(0.0, Some(5));
        assert_eq!((terms, deviation.relative(), deviation.predictions), (blind, Some(0.0), 2));
        assert!(shared(0.1, Some(5)).1.relative().unwrap() > 0.01);
        assert_eq!(shared(0.1, None).1.relative(), None);
    }

    #[test]
    fn what_goes_wrong_in_one_pass_is_told_and_ends_the_others() {
        let ((plans, how), samples) = (exhaustive(), sample());
        let mut model = Linear { short_at: Some(3), ..Linear::default() };
        let error = measure_shared(&mut model, &FlowMatching, &samples, &plans, how, &Variant::ALL, None).unwrap_err();
        assert!(error.to_string().contains("predicts 5 numbers, the target has 6"), "{error}");
        assert_eq!((model.passes, model.sharing), (3, false));
        let mut grid = sample();
        grid.inputs.fields.push(Field::real("grid", FieldKind::VoxelGrid, Rows::Sample, vec![1, 1, 2, 2, 2], vec![0.0; 8]));
        let skew = [Scheme::Random { rotations: 2 }.plan(Seed::new(1), 0)];
        let error = measure(&mut Linear::default(), &grid, &skew, how).unwrap_err();
        assert!(error.to_string().contains("rotations of the cube only"), "{error}");
    }
}
