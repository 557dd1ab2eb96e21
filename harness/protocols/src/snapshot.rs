//! One moment of training, for protocols to question: the frozen samples, the model as it is then, and what follows from both.

use crate::{
    About, Frozen, OpenDouble, SampleSet, SessionError, SetAbout, SetName,
    frozen::{BatchKey, choose},
    preparer::Preparer,
    source::Samples,
    splits::Bench,
};
use equivbench_core::{
    Balance, Baseline, Batch, Condition, CoreError, Estimator, GradientSum, LatentInfo, LossPart,
    Measurement, Model, PointLoss, Portion, Precision, RotatedCopies, RotationPlan, Scheme, Seed,
    Split, StepFigures, Supervised, Task, Weights,
};
use equivbench_curvature::{Subset, SubsetOf};
use std::sync::Arc;

/// Where in training.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moment {
    /// Optimiser steps done.
    pub step: u64,
    /// Passes over the training samples done, a fraction.
    pub epoch: f64,
    /// Training seconds so far.
    pub train_s: f64,
    /// Processor seconds of them, all threads together, where the clock tells.
    pub cpu_s: Option<f64>,
    /// GPU-hours of training so far; `None` on a CPU.
    pub gpu_h: Option<f64>,
    /// The last optimiser step, if there was one.
    pub last_step: Option<StepFigures>,
}

/// What a snapshot looks at, besides the model.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) bench: Bench<'a>,
    pub(crate) source: &'a dyn Samples,
    pub(crate) baseline: &'a Arc<dyn Baseline>,
    pub(crate) about: &'a Arc<About>,
    pub(crate) double: Option<&'a OpenDouble<'a>>,
}

/// Takes in the twisted predictions of a copy: how they are laid out, which copy, and the numbers.
pub type EachCopy<'a> = dyn FnMut(&RotatedCopies<'_>, usize, &[f64]) -> Result<(), CoreError> + 'a;

/// As [`EachCopy`], and keeps the numbers.
type TakeCopy<'a> = dyn FnMut(&RotatedCopies<'_>, usize, Vec<f64>) -> Result<(), CoreError> + 'a;

/// What was measured of a set of samples.
#[derive(Clone, Debug)]
pub struct MeasuredSet {
    /// Which samples.
    pub about: Arc<SetAbout>,
    /// The split of the loss under every condition with every kind of weights.
    pub splits: Arc<[Arc<Split>]>,
}

/// One moment of training. It answers questions about the model; what it changes to do so, it puts back.
pub struct Snapshot<'a> {
    moment: Moment,
    view: View<'a>,
    model: &'a mut dyn Model,
    watch: &'a mut dyn FnMut() -> Result<(), CoreError>,
    measured: Vec<MeasuredSet>,
    /// The instance in double precision, once somebody asked it.
    opened: Option<Box<dyn Model>>,
    /// Parameters of groups as they were, the last change last.
    changed: Vec<(String, Vec<f64>)>,
}

impl<'a> Snapshot<'a> {
    pub(crate) fn new(
        moment: Moment,
        view: View<'a>,
        model: &'a mut dyn Model,
        watch: &'a mut dyn FnMut() -> Result<(), CoreError>,
    ) -> Self {
        Self {
            moment,
            view,
            model,
            watch,
            measured: Vec::new(),
            opened: None,
            changed: Vec::new(),
        }
    }

    /// Where in training.
    #[must_use]
    pub fn moment(&self) -> &Moment {
        &self.moment
    }

    /// What stays the same during a run.
    #[must_use]
    pub fn about(&self) -> &Arc<About> {
        self.view.about
    }

    /// The measured samples, their rotations and conditions.
    #[must_use]
    pub fn frozen(&self) -> &'a Frozen {
        self.view.bench.frozen
    }

    /// The seed of measuring: a protocol draws from streams of it that have its name.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.view.bench.measuring.seed
    }

    /// The loss that is measured.
    #[must_use]
    pub fn loss(&self) -> PointLoss {
        self.view.bench.measuring.loss
    }

    /// The learning task.
    #[must_use]
    pub fn task(&self) -> &'a dyn Task {
        &*self.view.bench.preparer.task
    }

    /// The precision of the numbers that the model reads and writes.
    #[must_use]
    pub fn precision(&self) -> Precision {
        self.model.precision()
    }

    /// The conditions whose predictions are first passes of the model: what a further pass is fed depends on the frame, and is neither
    /// rotated nor differentiated by protocols.
    #[must_use]
    pub fn first_passes(&self) -> Vec<Condition> {
        let is_first = |c: &&Condition| self.task().pass(c) == 0;
        let all = self.frozen().conditions().iter();
        all.filter(is_first).cloned().collect()
    }

    /// The splits of the loss under every condition with every kind of weights, in the order of their rows. Measured once, at the first
    /// question, and shared by all who ask.
    ///
    /// # Errors
    /// What data or model report, a loss that is not finite, shared work that cannot be trusted, or a request to stop.
    pub fn splits(&mut self) -> Result<Arc<[Arc<Split>]>, CoreError> {
        Ok(self.set(SetName::Measured)?.splits)
    }

    /// The sets of samples that are measured after the last step, those of every evaluation first.
    #[must_use]
    pub fn sets(&self) -> Vec<SetName> {
        let further = self.view.bench.measuring.final_sets.iter().map(|s| s.name);
        std::iter::once(SetName::Measured).chain(further).collect()
    }

    /// What [`splits`](Self::splits) says, of a set of samples.
    ///
    /// # Errors
    /// As there; a set that is not measured here.
    pub fn set(&mut self, name: SetName) -> Result<MeasuredSet, CoreError> {
        if let Some(known) = self.measured.iter().find(|set| set.about.name == name) {
            return Ok(known.clone());
        }
        let bench = self.view.bench;
        let set = match name {
            SetName::Measured => self.measure(bench)?,
            _ => {
                let frozen = self.freeze(name)?;
                self.measure(Bench {
                    frozen: &frozen,
                    ..bench
                })?
            }
        };
        self.measured.push(set.clone());
        Ok(set)
    }

    fn measure(&mut self, bench: Bench<'_>) -> Result<MeasuredSet, CoreError> {
        let splits = bench.splits(self.moment.step, self.model, self.watch)?;
        Ok(MeasuredSet {
            about: Arc::clone(bench.frozen.about()),
            splits: splits.into(),
        })
    }

    fn freeze(&self, name: SetName) -> Result<Frozen, CoreError> {
        let measuring = self.view.bench.measuring;
        let set = measuring.final_sets.iter().find(|set| set.name == name);
        let set = set.ok_or_else(|| {
            CoreError::Shape(format!("the set {} is not measured here", name.name()))
        })?;
        let baseline = Arc::clone(self.view.baseline);
        let frozen = Frozen::new(measuring, set, self.task(), baseline, self.view.source);
        frozen.map_err(|error| match error {
            SessionError::At { source, .. } => source,
            other => CoreError::Dataset(other.to_string()),
        })
    }

    /// The split under one condition. All are measured together, see [`splits`](Self::splits).
    ///
    /// # Errors
    /// As [`splits`](Self::splits); weights or a condition that are not measured.
    pub fn split(
        &mut self,
        weights: Weights,
        condition: &Condition,
    ) -> Result<Arc<Split>, CoreError> {
        let splits = self.splits()?;
        let own = |split: &&Arc<Split>| split.weights == weights && split.condition == *condition;
        splits.iter().find(own).cloned().ok_or_else(|| {
            let weights = weights.name();
            CoreError::Shape(format!(
                "{weights} weights at {condition:?} are not measured here"
            ))
        })
    }

    /// The splits as they were asked for already; `None` if nobody did.
    #[must_use]
    pub fn splits_if_measured(&self) -> Option<&[Arc<Split>]> {
        let frozen = self.measured.iter();
        let mut frozen = frozen.filter(|set| set.about.name == SetName::Measured);
        frozen.next().map(|set| &*set.splits)
    }

    /// Frozen samples as the model sees them under a condition, before they are rotated.
    ///
    /// # Errors
    /// A condition that is not measured, or what the task refuses.
    pub fn inputs(
        &self,
        batch: BatchKey,
        condition: &Condition,
    ) -> Result<Arc<Supervised>, CoreError> {
        let (key, _) = self.frozen().inputs_of(condition)?;
        self.frozen().made(batch, key, self.preparer())
    }

    /// Samples of the split of the frozen ones with their groups, up to `count` and as many as there are, in the order in which the frozen
    /// samples were chosen: those come first.
    ///
    /// # Errors
    /// What the dataset reports.
    pub fn samples(&self, count: usize) -> Result<Vec<(u64, u64)>, CoreError> {
        let measuring = self.view.bench.measuring;
        let set = SampleSet {
            samples: count,
            ..measuring.set.clone()
        };
        choose(measuring.seed, &set, self.view.source)
    }

    /// What [`inputs`](Self::inputs) says of frozen samples, of any samples of their split, by index.
    ///
    /// # Errors
    /// As there; what the dataset reports.
    pub fn load(&self, samples: &[u64], condition: &Condition) -> Result<Supervised, CoreError> {
        let split = &self.view.bench.measuring.set.split;
        let (_, inputs) = self.frozen().inputs_of(condition)?;
        let raw = self.view.source.load(split, samples)?;
        self.preparer().measured(raw, samples, &inputs.condition)
    }

    /// Samples in a batch of the measurement.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.view.bench.measuring.batch_size.max(1)
    }

    /// Gradient of a part of the loss of the frozen samples with respect to a parameter group (raw weights), flattened: what
    /// [`split`](Self::split) reports, differentiated.
    ///
    /// # Errors
    /// A condition that is not measured or reads a further pass, an unknown group, what the model reports, or a request to stop.
    pub fn gradient(
        &mut self,
        part: LossPart,
        group: &str,
        condition: &Condition,
    ) -> Result<Vec<f64>, CoreError> {
        let mut gradients = self.gradients(&[part], group, condition)?;
        Ok(gradients.swap_remove(0))
    }

    /// [`gradient`](Self::gradient) of some parts, which share predictions.
    ///
    /// # Errors
    /// As there.
    pub fn gradients(
        &mut self,
        parts: &[LossPart],
        group: &str,
        condition: &Condition,
    ) -> Result<Vec<Vec<f64>>, CoreError> {
        let mut sum = GradientSum::of(parts);
        for batch in self.frozen().batches() {
            let portion = self.portion(batch, Weights::Raw, condition)?;
            self.with_subset(&portion, group, |subset| subset.add_gradients(&mut sum))?;
        }
        Ok(sum.means())
    }

    /// The twisted predictions of a batch of frozen samples, by the first pass with a kind of weights, under rotations of one's own: the
    /// portion, and for each copy what every sample predicts, rotated back.
    ///
    /// # Errors
    /// A condition that is not measured, plans that do not fit the batch, what the model reports, what `each` returns, or a request to
    /// stop.
    pub fn twisted(
        &mut self,
        batch: BatchKey,
        weights: Weights,
        condition: &Condition,
        plans: Arc<[RotationPlan]>,
        each: &mut EachCopy<'_>,
    ) -> Result<(), CoreError> {
        let portion = Portion {
            plans,
            ..self.portion(batch, weights, condition)?
        };
        self.twist(&portion, &mut |copies, index, twisted| {
            each(copies, index, &twisted)
        })
    }

    /// Every twisted prediction of a portion, handed over.
    pub(crate) fn twist(
        &mut self,
        portion: &Portion,
        each: &mut TakeCopy<'_>,
    ) -> Result<(), CoreError> {
        let copies = RotatedCopies::new(self.model, portion)?;
        for index in 0..copies.count() {
            let (_, twisted) = copies.predict(self.model, index)?;
            each(&copies, index, twisted)?;
            (self.watch)()?;
        }
        Ok(())
    }

    /// A batch of frozen samples under a condition, with a kind of weights, measured blind.
    pub(crate) fn portion(
        &self,
        batch: BatchKey,
        weights: Weights,
        condition: &Condition,
    ) -> Result<Portion, CoreError> {
        let frozen = self.frozen();
        let (key, inputs) = frozen.inputs_of(condition)?;
        let mut readings = inputs.readings.iter();
        let reading = readings.find(|r| r.condition == *condition);
        let reading = reading.cloned().unwrap_or_default();
        Ok(Portion {
            samples: frozen.made(batch, key, self.preparer())?,
            indices: Arc::clone(frozen.indices(batch)),
            plans: Arc::clone(frozen.plans(batch)),
            readings: [reading].into(),
            how: self.view.bench.how(weights),
            sharing: false,
            checked: None,
        })
    }

    /// The raw parameters of a group, flattened.
    ///
    /// # Errors
    /// An unknown group, or what the model reports.
    pub fn parameters(&self, group: &str) -> Result<Vec<f64>, CoreError> {
        let mut values = Vec::new();
        self.model.parameters_into(group, &mut values)?;
        Ok(values)
    }

    /// Asks questions about the model with other parameters in a group; afterwards it is as before. Read back with
    /// [`parameters`](Self::parameters) what rounding to the model's precision left of them.
    ///
    /// # Errors
    /// An unknown group, what the model reports, or what `ask` returns.
    pub fn with_parameters<R>(
        &mut self,
        group: &str,
        values: &[f64],
        ask: impl FnOnce(&mut Self) -> Result<R, CoreError>,
    ) -> Result<R, CoreError> {
        let before = self.parameters(group)?;
        let measured = std::mem::take(&mut self.measured);
        self.changed.push((group.to_owned(), before));
        let answer = match self.model.set_parameters(group, values) {
            Ok(()) => ask(self),
            Err(error) => Err(error),
        };
        let restored = self.put_back();
        self.measured = measured;
        restored.and(answer)
    }

    /// Undoes the last change.
    fn put_back(&mut self) -> Result<(), CoreError> {
        match self.changed.pop() {
            Some((group, values)) => self.model.set_parameters(&group, &values),
            None => Ok(()),
        }
    }

    /// The intermediate quantities that the model shows.
    #[must_use]
    pub fn latents(&self) -> Vec<LatentInfo> {
        self.model.latents()
    }

    /// An intermediate quantity of the prediction for a batch, with the raw weights, flattened.
    ///
    /// # Errors
    /// A name that the model does not show, what it reports, or a request to stop.
    pub fn latent(&mut self, name: &str, batch: &Batch) -> Result<Vec<f64>, CoreError> {
        let mut values = Vec::new();
        self.model.latent_into(name, batch, &mut values)?;
        (self.watch)()?;
        Ok(values)
    }

    /// Asks questions of an instance in double precision with the same raw parameters; of the model itself where it computes in it, or
    /// where nobody opens another. It is opened once in the life of a snapshot.
    ///
    /// # Errors
    /// What the plugin refuses, or what `ask` returns.
    pub fn in_double<R>(
        &mut self,
        ask: impl FnOnce(&mut Snapshot<'_>) -> Result<R, CoreError>,
    ) -> Result<R, CoreError> {
        let open = match self.view.double {
            Some(open) if self.model.precision() != Precision::Double => open,
            _ => return ask(self),
        };
        let mut model = match self.opened.take() {
            Some(model) => model,
            None => open()?,
        };
        model.set_parameters("all", &self.parameters("all")?)?;
        let answer = ask(&mut Snapshot::new(
            self.moment,
            self.view,
            &mut *model,
            self.watch,
        ));
        self.opened = Some(model);
        answer
    }

    /// Named parameter groups of the model with their numbers of scalars; `all` is always there.
    #[must_use]
    pub fn groups(&self) -> Vec<(String, usize)> {
        self.model.groups()
    }

    /// Projects parameters of the group `equivariant-subspace` onto the subspace; `None` where the model names none.
    ///
    /// # Errors
    /// What the model reports.
    pub fn projected(&mut self, values: &[f64]) -> Result<Option<Vec<f64>>, CoreError> {
        let mut values = values.to_vec();
        let is_named = self.model.project_equivariant(&mut values)?;
        Ok(is_named.then_some(values))
    }

    /// Training samples as they are trained on, with rotations: the same for every run, as they follow the seed of measurements. 0 samples
    /// are as many as a training batch has.
    ///
    /// # Errors
    /// What dataset or task refuse.
    pub fn fixed_batch(
        &self,
        samples: u64,
        scheme: &Scheme,
        estimator: Estimator,
    ) -> Result<Portion, CoreError> {
        let samples = match samples {
            0 => self.about().batch_size,
            n => n,
        } as usize;
        let seed = self.view.bench.measuring.seed;
        let (supervised, indices) = self.preparer().fixed(self.view.source, samples)?;
        let how = Measurement {
            estimator,
            ..self.view.bench.how(Weights::Raw)
        };
        let plans: Vec<RotationPlan> = indices.iter().map(|&i| scheme.plan(seed, i)).collect();
        Ok(Portion {
            indices: indices.into(),
            ..Portion::new(supervised, &plans, how)
        })
    }

    /// The parts of the loss of a portion as functions of a group of parameters; afterwards the model is as before.
    ///
    /// # Errors
    /// An unknown group, what the model reports, or what `ask` returns.
    pub fn with_subset<R>(
        &mut self,
        portion: &Portion,
        group: &str,
        ask: impl FnOnce(&mut Subset<'_>) -> Result<R, CoreError>,
    ) -> Result<R, CoreError> {
        let copies = RotatedCopies::new(self.model, portion)?;
        let of = SubsetOf {
            group,
            weigh_samples: self.task().balance() == Balance::Samples,
        };
        let mut subset = Subset::new(self.model, &copies, of, self.watch)?;
        ask(&mut subset)
    }

    /// Frozen samples of a batch under a condition, with their rotations, as a portion.
    ///
    /// # Errors
    /// A condition that is not measured, or what the task refuses.
    pub fn measured_portion(
        &self,
        batch: BatchKey,
        condition: &Condition,
    ) -> Result<Portion, CoreError> {
        self.portion(batch, Weights::Raw, condition)
    }

    /// The training batch of a step (0 for the first), as it is trained on: with target, noise and augmentation.
    ///
    /// # Errors
    /// What dataset or task refuse.
    pub fn training_batch(&self, step: u64) -> Result<Batch, CoreError> {
        self.preparer().clone().training(self.view.source, step)
    }

    fn preparer(&self) -> &'a Preparer {
        self.view.bench.preparer
    }
}

impl Drop for Snapshot<'_> {
    /// After a panic in a question the model is as before too.
    fn drop(&mut self) {
        while !self.changed.is_empty() {
            // The panic is what is told.
            let _ = self.put_back();
        }
    }
}
