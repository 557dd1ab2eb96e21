//! One measurement: rotate the inputs, predict, un-rotate the outputs, accumulate. The model sees batches only.
//!
//! The model predicts on the calling thread. Making and rotating the next inputs, and gathering the last predictions, happen on two
//! others meanwhile; each works in order, so results do not depend on who is faster. An evaluation is one stream of portions: while the
//! model predicts the last copies of one, the first of the next are made.

use crate::{
    Batch, CoreError, Deviation, Estimator, FieldKind, Model, PointLoss, Rotation, RotationPlan,
    Rows, SampleTerms, Supervised, Task, TwirlAccumulator, Values, Variant, Weights,
    action::{act, act_inverse_on_rows, grid_rotation, prediction_range},
    numbers::map_into,
};
use rayon::prelude::*;
use std::{
    panic::resume_unwind,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
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

/// What is measured together: a batch with the rotations of its samples.
#[derive(Clone, Debug)]
pub struct Portion {
    /// Inputs and target.
    pub samples: Arc<Supervised>,
    /// The rotations of each sample; all plans have the same length. Pass `i` rotates every sample by its own `i`-th rotation.
    pub plans: Arc<[RotationPlan]>,
    /// With which weights, and what of it.
    pub how: Measurement,
    /// Whether the model shares work among the rotated copies.
    pub sharing: bool,
    /// What is then predicted by the blind path as well.
    pub checked: Option<Checked>,
}

/// What a measurement from shared work predicts by the blind path as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The pass, an index into the rotations of a plan.
    pub pass: usize,
    /// Samples of the batch.
    pub samples: Vec<usize>,
}

/// What was measured of a portion.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// One list for each variant: the terms of every sample.
    pub terms: Vec<Vec<SampleTerms>>,
    /// How far shared predictions were from blind ones.
    pub deviation: Deviation,
}

/// Splits the loss of every sample of a batch into its twirled and its equivariance part, in one pass of the model for each rotation.
///
/// # Errors
/// Plans that do not fit the batch, a prediction of the wrong size, or what the model reports.
pub fn measure(
    model: &mut dyn Model,
    samples: &Supervised,
    plans: &[RotationPlan],
    how: Measurement,
) -> Result<Vec<SampleTerms>, CoreError> {
    let portion = portion(samples, plans, how);
    let mut found = Passes {
        model,
        feeding: None,
        told: &mut || (),
    }
    .run(std::iter::once(Ok(portion)))?;
    Ok(found.swap_remove(0).terms.swap_remove(0))
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
    let portion = portion(samples, plans, how);
    let mut found = measure_portions(
        model,
        task,
        variants,
        std::iter::once(Ok(portion)),
        &mut || (),
    )?;
    Ok(found.swap_remove(0).terms)
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
) -> Result<Found, CoreError> {
    let portion = Portion {
        sharing: true,
        checked: checked.cloned(),
        ..portion(samples, plans, how)
    };
    Ok(measure_portions(
        model,
        task,
        variants,
        std::iter::once(Ok(portion)),
        &mut || (),
    )?
    .swap_remove(0))
}

/// Measures one portion after the other, and tells when each has been predicted. Portions are made on another thread, ahead of the model.
///
/// # Errors
/// As [`measure_variants`], and the first portion that could not be made.
pub fn measure_portions(
    model: &mut dyn Model,
    task: &dyn Task,
    variants: &[Variant],
    portions: impl Iterator<Item = Result<Portion, CoreError>> + Send,
    told: &mut dyn FnMut(),
) -> Result<Vec<Found>, CoreError> {
    let feeding = variants.contains(&Variant::SelfConditioned).then_some(task);
    let found = Passes {
        model,
        feeding,
        told,
    }
    .run(portions)?;
    Ok(found
        .into_iter()
        .map(|found| Found {
            terms: by_variant(&found.terms, variants),
            ..found
        })
        .collect())
}

fn portion(samples: &Supervised, plans: &[RotationPlan], how: Measurement) -> Portion {
    Portion {
        samples: Arc::new(samples.clone()),
        plans: plans.into(),
        how,
        sharing: false,
        checked: None,
    }
}

/// One list of terms for each variant, from those of the first pass and, where there is one, of the second.
fn by_variant(terms: &[Vec<SampleTerms>], variants: &[Variant]) -> Vec<Vec<SampleTerms>> {
    let of = |variant: &Variant| {
        if *variant == Variant::Plain {
            &terms[0]
        } else {
            &terms[terms.len() - 1]
        }
    };
    variants.iter().map(|variant| of(variant).clone()).collect()
}

impl Portion {
    fn passes(&self) -> Result<usize, CoreError> {
        let passes = self.plans.first().map_or(0, |p| p.rotations.len());
        let samples = self.samples.inputs.samples();
        if self.plans.len() != samples
            || passes == 0
            || self.plans.iter().any(|p| p.rotations.len() != passes)
        {
            return Err(CoreError::Shape(format!(
                "{} rotation plans for {samples} samples",
                self.plans.len()
            )));
        }
        Ok(passes)
    }

    /// The rotation of each sample in a pass.
    fn rotations(&self, pass: usize) -> Vec<Rotation> {
        self.plans.iter().map(|plan| plan.rotations[pass]).collect()
    }
}

/// How a prediction is laid out.
#[derive(Clone, Copy, Debug)]
struct Output {
    kind: FieldKind,
    rows: Rows,
    width: usize,
}

/// A rotated copy, and what the shared path predicts for it.
type Kept = (Batch, Vec<f64>);

/// All passes over all portions.
struct Passes<'a> {
    model: &'a mut dyn Model,
    /// What makes the input of a second pass, where there is one.
    feeding: Option<&'a dyn Task>,
    told: &'a mut dyn FnMut(),
}

impl Passes<'_> {
    /// The terms of first passes and, where there are, of second passes, for each portion.
    fn run(
        mut self,
        portions: impl Iterator<Item = Result<Portion, CoreError>> + Send,
    ) -> Result<Vec<Found>, CoreError> {
        std::thread::scope(|scope| {
            let copies = Copies::ahead(scope, portions);
            let gatherer = Gatherer::start(scope);
            let deviations = self.all(&copies, &gatherer);
            // Its own error is the cause where the model's thread found it gone.
            let terms = gatherer.finish()?;
            Ok(terms
                .into_iter()
                .zip(deviations?)
                .map(|(terms, deviation)| Found { terms, deviation })
                .collect())
        })
    }

    fn all(
        &mut self,
        copies: &Copies,
        gatherer: &Gatherer<'_>,
    ) -> Result<Vec<Deviation>, CoreError> {
        let mut deviations = Vec::new();
        while let Some(first) = copies.next()? {
            deviations.push(self.portion(first, copies, gatherer)?);
            (self.told)();
        }
        Ok(deviations)
    }

    /// Predicts every copy of a portion and hands the predictions on.
    fn portion(
        &mut self,
        first: Turned,
        copies: &Copies,
        gatherer: &Gatherer<'_>,
    ) -> Result<Deviation, CoreError> {
        let portion = Arc::clone(&first.of);
        if !portion.sharing {
            return self
                .predict(first, copies, gatherer)
                .map(|_| Deviation::default());
        }
        self.model
            .share(&portion.samples.inputs, portion.how.weights)?;
        let kept = self.predict(first, copies, gatherer);
        let ended = self.model.end_sharing();
        let kept = kept?;
        ended?;
        let mut deviation = Deviation::default();
        let mut blind = Vec::new();
        for (copy, shared) in kept {
            self.model
                .predict_into(&copy, portion.how.weights, &mut blind)?;
            deviation.compare(&shared, &blind, copy.samples());
        }
        Ok(deviation)
    }

    fn predict(
        &mut self,
        first: Turned,
        copies: &Copies,
        gatherer: &Gatherer<'_>,
    ) -> Result<Vec<Kept>, CoreError> {
        let mut kept = Vec::new();
        let portion = Arc::clone(&first.of);
        let inputs = &portion.samples.inputs;
        let output = Output {
            kind: self.model.output_kind(),
            rows: self.model.output_rows(),
            width: self.model.output_width(inputs),
        };
        let mut next = Some(first);
        for pass in 0..portion.passes()? {
            let Some(Turned { mut copy, .. }) = next
                .take()
                .map_or_else(|| copies.next(), |turned| Ok(Some(turned)))?
            else {
                return Err(CoreError::Shape(
                    "the thread that rotates the inputs has ended".into(),
                ));
            };
            let prediction = self.predict_one(&portion, &copy, gatherer)?;
            keep(&portion, pass, &copy, &prediction, output, &mut kept);
            let fed = self
                .feeding
                .map(|task| fed_field(task, &copy, &prediction))
                .transpose()?;
            gatherer.push(Arrived {
                of: Arc::clone(&portion),
                output,
                is_second: false,
                pass,
                prediction,
            })?;
            if let Some(fed) = fed {
                copy.fields.push(fed);
                let prediction = self.predict_one(&portion, &copy, gatherer)?;
                keep(&portion, pass, &copy, &prediction, output, &mut kept);
                gatherer.push(Arrived {
                    of: Arc::clone(&portion),
                    output,
                    is_second: true,
                    pass,
                    prediction,
                })?;
            }
            copies.give_back(copy);
        }
        Ok(kept)
    }

    fn predict_one(
        &mut self,
        portion: &Portion,
        copy: &Batch,
        gatherer: &Gatherer<'_>,
    ) -> Result<Values, CoreError> {
        let mut prediction = gatherer.buffer();
        self.model
            .predict_values_into(copy, portion.how.weights, &mut prediction)?;
        let expected = portion.samples.target_values()?.len();
        if prediction.len() != expected {
            return Err(CoreError::Shape(format!(
                "the model predicts {} numbers, the target has {expected}",
                prediction.len()
            )));
        }
        Ok(prediction)
    }
}

/// Keeps what is to be checked.
fn keep(
    portion: &Portion,
    pass: usize,
    copy: &Batch,
    prediction: &Values,
    output: Output,
    kept: &mut Vec<Kept>,
) {
    let Some(checked) = portion
        .checked
        .as_ref()
        .filter(|checked| portion.sharing && checked.pass == pass)
    else {
        return;
    };
    let prediction = prediction.widened();
    let own = checked
        .samples
        .iter()
        .flat_map(|&s| &prediction[prediction_range(copy, output.rows, output.width, s)]);
    kept.push((copy.select(&checked.samples), own.copied().collect()));
}

fn fed_field(
    task: &dyn Task,
    copy: &Batch,
    prediction: &Values,
) -> Result<crate::Field, CoreError> {
    let fed = task.feed_back(copy, &prediction.widened())?;
    fed.ok_or_else(|| {
        CoreError::Shape(format!(
            "task {} has no self-conditioned variant",
            task.name()
        ))
    })
}

/// One rotated copy of the samples of a portion.
struct Turned {
    of: Arc<Portion>,
    copy: Batch,
}

/// Copies, or predictions, that wait for whoever takes them, besides the one that is made and the one that is used.
const WAITING: usize = 1;

/// Rotated copies, made ahead of the model. Buffers go round.
struct Copies {
    made: Receiver<Result<Turned, CoreError>>,
    used: Sender<Batch>,
}

impl Copies {
    fn ahead<'scope, 'env>(
        scope: &'scope Scope<'scope, 'env>,
        portions: impl Iterator<Item = Result<Portion, CoreError>> + Send + 'scope,
    ) -> Self {
        let (to_model, made) = sync_channel(WAITING);
        let (used, free): (Sender<Batch>, Receiver<Batch>) = channel();
        scope.spawn(move || {
            for portion in portions {
                // Nobody waits for it where the model failed; nothing follows what could not be made.
                if !send_copies(portion, &to_model, &free) {
                    break;
                }
            }
        });
        Self { made, used }
    }

    /// The next copy; `None` after the last.
    fn next(&self) -> Result<Option<Turned>, CoreError> {
        self.made.recv().ok().transpose()
    }

    fn give_back(&self, copy: Batch) {
        // The last copies are not wanted any more.
        let _ = self.used.send(copy);
    }
}

/// Whether all of them were made and taken.
fn send_copies(
    portion: Result<Portion, CoreError>,
    to_model: &SyncSender<Result<Turned, CoreError>>,
    free: &Receiver<Batch>,
) -> bool {
    let checked = portion.and_then(|portion| Ok((portion.passes()?, Arc::new(portion))));
    let (passes, portion) = match checked {
        Ok(checked) => checked,
        Err(error) => {
            let _ = to_model.send(Err(error));
            return false;
        }
    };
    (0..passes).all(|pass| {
        let mut copy = free.try_recv().unwrap_or_default();
        let made =
            act(&portion.rotations(pass), &portion.samples.inputs, &mut copy).map(|()| Turned {
                of: Arc::clone(&portion),
                copy,
            });
        let is_made = made.is_ok();
        to_model.send(made).is_ok() && is_made
    })
}

/// A prediction on its way to the twirls.
struct Arrived {
    of: Arc<Portion>,
    output: Output,
    /// Whether it is of the pass that is fed with the prediction of the first.
    is_second: bool,
    pass: usize,
    prediction: Values,
}

/// Terms by kind of pass, for each sample.
type Terms = Vec<Vec<SampleTerms>>;

/// Takes predictions and adds them to the twirls, beside the model's thread. Buffers go round.
struct Gatherer<'scope> {
    predictions: SyncSender<Arrived>,
    free: Receiver<Values>,
    thread: ScopedJoinHandle<'scope, Result<Vec<Terms>, CoreError>>,
}

impl<'scope> Gatherer<'scope> {
    fn start(scope: &'scope Scope<'scope, '_>) -> Self {
        let (predictions, arriving) = sync_channel(WAITING);
        let (used, free) = channel();
        let thread = scope.spawn(move || gather(&arriving, &used));
        Self {
            predictions,
            free,
            thread,
        }
    }

    fn buffer(&self) -> Values {
        self.free.try_recv().unwrap_or_default()
    }

    fn push(&self, arrived: Arrived) -> Result<(), CoreError> {
        self.predictions
            .send(arrived)
            .map_err(|_| CoreError::Shape("the thread that gathers predictions has ended".into()))
    }

    /// The terms of each portion, in order.
    fn finish(self) -> Result<Vec<Terms>, CoreError> {
        drop(self.predictions);
        self.thread
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn gather(arriving: &Receiver<Arrived>, used: &Sender<Values>) -> Result<Vec<Terms>, CoreError> {
    let mut found = Vec::new();
    // Of the portion that is gathered, one for each kind of pass.
    let mut twirls: Vec<Twirls> = Vec::new();
    while let Ok(Arrived {
        of,
        output,
        is_second,
        pass,
        mut prediction,
    }) = arriving.recv()
    {
        if pass == 0 && !is_second {
            finish(&mut twirls, &mut found);
        }
        if pass == 0 {
            twirls.push(Twirls::new(of, output)?);
        }
        twirls[usize::from(is_second)].push(pass, &mut prediction)?;
        let _ = used.send(prediction);
    }
    finish(&mut twirls, &mut found);
    Ok(found)
}

fn finish(twirls: &mut Vec<Twirls>, found: &mut Vec<Terms>) {
    if !twirls.is_empty() {
        found.push(twirls.drain(..).map(|twirls| twirls.finish()).collect());
    }
}

/// The twisted predictions of a batch, as they come.
struct Twirls {
    of: Arc<Portion>,
    output: Output,
    accumulators: Vec<TwirlAccumulator>,
    /// Numbers that are rotated in double precision.
    wide: Vec<f64>,
}

impl Twirls {
    fn new(of: Arc<Portion>, output: Output) -> Result<Self, CoreError> {
        let Output { rows, width, .. } = output;
        let (inputs, target) = (&of.samples.inputs, of.samples.target_values()?);
        let of_sample = |s: usize| -> Result<TwirlAccumulator, CoreError> {
            let own = target.get(prediction_range(inputs, rows, width, s));
            let own = own.ok_or_else(|| {
                CoreError::Shape(format!(
                    "the target has {} numbers, too few for rows of {width}",
                    target.len()
                ))
            })?;
            Ok(TwirlAccumulator::new(
                own.to_vec(),
                width,
                of.plans[s].cosets,
                of.how.loss,
            ))
        };
        let accumulators = (0..inputs.samples())
            .map(of_sample)
            .collect::<Result<_, _>>()?;
        Ok(Self {
            of,
            output,
            accumulators,
            wide: Vec::new(),
        })
    }

    /// Un-rotates a prediction and adds it.
    fn push(&mut self, pass: usize, prediction: &mut Values) -> Result<(), CoreError> {
        if self.output.kind == FieldKind::VoxelGrid {
            return self.push_grids(pass, prediction);
        }
        match prediction {
            Values::Real(values) => self.push_rows(pass, values),
            Values::Single(values) => {
                let mut wide = std::mem::take(&mut self.wide);
                map_into(values, &mut wide, f64::from);
                let pushed = self.push_rows(pass, &mut wide);
                self.wide = wide;
                pushed
            }
            Values::Index(_) => Err(CoreError::Shape(
                "the model predicts labels, numbers were expected".into(),
            )),
        }
    }

    fn push_rows(&mut self, pass: usize, prediction: &mut [f64]) -> Result<(), CoreError> {
        let Self {
            of,
            output: Output { kind, rows, width },
            accumulators,
            ..
        } = self;
        let shape = of
            .samples
            .target
            .as_ref()
            .map(|t| t.shape.as_slice())
            .unwrap_or_default();
        for (sample, (accumulator, plan)) in
            accumulators.iter_mut().zip(of.plans.iter()).enumerate()
        {
            let values =
                &mut prediction[prediction_range(&of.samples.inputs, *rows, *width, sample)];
            act_inverse_on_rows(&plan.rotations[pass], *kind, shape, values)?;
            accumulator.push(plan.coset_of(pass), values);
        }
        Ok(())
    }

    /// Grids are rotated on the way, in the precision in which they come.
    fn push_grids(&mut self, pass: usize, prediction: &Values) -> Result<(), CoreError> {
        let Self {
            of,
            output: Output { rows, width, .. },
            accumulators,
            ..
        } = self;
        let shape = of
            .samples
            .target
            .as_ref()
            .map(|t| t.shape.as_slice())
            .unwrap_or_default();
        for (sample, (accumulator, plan)) in
            accumulators.iter_mut().zip(of.plans.iter()).enumerate()
        {
            let own = prediction_range(&of.samples.inputs, *rows, *width, sample);
            let turn = grid_rotation(&plan.rotations[pass].inverse(), shape);
            let turn = turn.map_err(|why| CoreError::Action {
                field: "prediction".into(),
                why,
            })?;
            match prediction {
                Values::Single(values) => {
                    accumulator.push_rotated(plan.coset_of(pass), &turn, &values[own])
                }
                values => {
                    accumulator.push_rotated(plan.coset_of(pass), &turn, &values.widened()[own])
                }
            }
        }
        Ok(())
    }

    fn finish(&self) -> Vec<SampleTerms> {
        self.accumulators
            .par_iter()
            .map(|t| t.finish(self.of.how.estimator))
            .collect()
    }
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
        fn predict_into(
            &mut self,
            batch: &Batch,
            _: Weights,
            out: &mut Vec<f64>,
        ) -> Result<(), CoreError> {
            self.passes += 1;
            *out = batch
                .field("positions")?
                .reals()?
                .chunks(3)
                .flat_map(|x| times(&A, x))
                .collect();
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
        fn vjp_into(
            &mut self,
            _: &Batch,
            _: &[f64],
            _: &str,
            _: &mut Vec<f64>,
        ) -> Result<(), CoreError> {
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
        let cloud = |name: &str, values: Vec<f64>| {
            Field::real(name, FieldKind::Vector, Rows::Point, vec![2, 3], values)
        };
        let inputs = Batch {
            offsets: vec![0, 2],
            fields: vec![
                cloud("positions", X.to_vec()),
                Field::real(
                    "flow_time",
                    FieldKind::Invariant,
                    Rows::Sample,
                    vec![1],
                    vec![TIME],
                ),
            ],
        };
        Supervised {
            inputs,
            target: Some(cloud("target", vec![0.0; 6])),
            labels: Vec::new(),
        }
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
        let how = Measurement {
            weights: Weights::Raw,
            loss: PointLoss::Mse,
            estimator: Estimator::Unbiased,
        };
        let mut model = Linear::default();
        let terms = measure_variants(
            &mut model,
            &FlowMatching,
            &samples,
            &plans,
            how,
            &Variant::ALL,
        )
        .unwrap();
        assert_eq!(
            model.passes, 24,
            "two passes for each of 12 rotations serve both variants"
        );
        // Linear maps are averaged exactly by the tetrahedral group; sums of 12 rotations round at 1e-15.
        assert!((terms[0][0].loss_equiv / spread(&A) - 1.0).abs() < 1e-13);
        assert!((terms[1][0].loss_equiv / spread(&composite) - 1.0).abs() < 1e-13);
        let plain = measure_variants(
            &mut model,
            &FlowMatching,
            &samples,
            &plans,
            how,
            &[Variant::Plain],
        )
        .unwrap();
        assert_eq!((model.passes, &plain[0]), (36, &terms[0]));
        assert!(
            measure_variants(
                &mut model,
                &crate::ForceField,
                &samples,
                &plans,
                how,
                &Variant::ALL
            )
            .is_err()
        );
    }

    fn exhaustive() -> ([RotationPlan; 1], Measurement) {
        let how = Measurement {
            weights: Weights::Raw,
            loss: PointLoss::Mse,
            estimator: Estimator::Unbiased,
        };
        (
            [Scheme::Exhaustive(FiniteGroup::Tetrahedral).plan(Seed::new(1), 0)],
            how,
        )
    }

    #[test]
    fn shared_passes_are_checked_against_blind_ones_of_the_same_copies() {
        let ((plans, how), samples) = (exhaustive(), sample());
        let mut model = Linear::default();
        let blind = measure_variants(
            &mut model,
            &FlowMatching,
            &samples,
            &plans,
            how,
            &Variant::ALL,
        )
        .unwrap();
        let shared = |wrong_by, checked: Option<usize>| {
            let mut model = Linear {
                wrong_by,
                ..Linear::default()
            };
            let checked = checked.map(|pass| Checked {
                pass,
                samples: vec![0],
            });
            let found = measure_shared(
                &mut model,
                &FlowMatching,
                &samples,
                &plans,
                how,
                &Variant::ALL,
                checked.as_ref(),
            )
            .unwrap();
            assert!(!model.sharing);
            found
        };
        let Found { terms, deviation } = shared(0.0, Some(5));
        assert_eq!(
            (terms, deviation.relative(), deviation.predictions),
            (blind, Some(0.0), 2)
        );
        assert!(shared(0.1, Some(5)).deviation.relative().unwrap() > 0.01);
        assert_eq!(shared(0.1, None).deviation.relative(), None);
    }

    #[test]
    fn a_stream_of_portions_is_measured_as_each_for_itself_until_one_cannot_be_made() {
        let how = |weights| Measurement {
            weights,
            loss: PointLoss::Mse,
            estimator: Estimator::Unbiased,
        };
        let plans = |group| [Scheme::Exhaustive(group).plan(Seed::new(1), 0)];
        let portions = || {
            let of = |group, weights| portion(&sample(), &plans(group), how(weights));
            let shared = |portion| Portion {
                sharing: true,
                checked: Some(Checked {
                    pass: 3,
                    samples: vec![0],
                }),
                ..portion
            };
            let (short, long) = (
                of(FiniteGroup::Tetrahedral, Weights::Raw),
                of(FiniteGroup::Octahedral, Weights::Ema),
            );
            vec![
                Ok(short.clone()),
                Ok(shared(long.clone())),
                Ok(long),
                Ok(short),
            ]
        };
        let each = |portion: Portion| {
            let own = std::iter::once(Ok(portion));
            measure_portions(
                &mut Linear::default(),
                &FlowMatching,
                &Variant::ALL,
                own,
                &mut || (),
            )
            .unwrap()
            .swap_remove(0)
        };
        let mut told = 0;
        let found = measure_portions(
            &mut Linear::default(),
            &FlowMatching,
            &Variant::ALL,
            portions().into_iter(),
            &mut || told += 1,
        );
        let expected: Vec<Found> = portions()
            .into_iter()
            .map(|portion| each(portion.unwrap()))
            .collect();
        assert_eq!((found.unwrap(), told), (expected, 4));
        let mut broken = portions();
        broken[2] = Err(CoreError::Dataset("sample 7 is damaged".into()));
        let mut model = Linear::default();
        let error = measure_portions(
            &mut model,
            &FlowMatching,
            &[Variant::Plain],
            broken.into_iter(),
            &mut || (),
        )
        .unwrap_err();
        assert!(error.to_string().contains("sample 7 is damaged"), "{error}");
        assert_eq!(
            model.passes,
            12 + 24 + 1,
            "what came before is predicted, and one check"
        );
        assert_eq!(
            measure_portions(
                &mut model,
                &FlowMatching,
                &Variant::ALL,
                std::iter::empty(),
                &mut || ()
            )
            .unwrap(),
            []
        );
    }

    #[test]
    fn what_goes_wrong_in_one_pass_is_told_and_ends_the_others() {
        let ((plans, how), samples) = (exhaustive(), sample());
        let mut model = Linear {
            short_at: Some(3),
            ..Linear::default()
        };
        let error = measure_shared(
            &mut model,
            &FlowMatching,
            &samples,
            &plans,
            how,
            &Variant::ALL,
            None,
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains("predicts 5 numbers, the target has 6"),
            "{error}"
        );
        assert_eq!((model.passes, model.sharing), (3, false));
        let mut grid = sample();
        grid.inputs.fields.push(Field::real(
            "grid",
            FieldKind::VoxelGrid,
            Rows::Sample,
            vec![1, 1, 2, 2, 2],
            vec![0.0; 8],
        ));
        let skew = [Scheme::Random { rotations: 2 }.plan(Seed::new(1), 0)];
        let error = measure(&mut Linear::default(), &grid, &skew, how).unwrap_err();
        assert!(
            error.to_string().contains("rotations of the cube only"),
            "{error}"
        );
    }
}
