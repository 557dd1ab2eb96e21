//! A run from the first step to the last: trains by the recipe, evaluates on schedule, tells the protocols, offers checkpoints.
//!
//! Everything random is a function of seed, step and sample index, so the state to keep is small ([`SessionState`]) and a
//! resumed run gives the same bytes. A checkpoint lies after an optimiser step and before the evaluation of that step.

use crate::{
    About, BatchOrder, Measured, Protocol, Step, Totals, evaluation_steps,
    preparer::{Prepared, Preparer},
};
use equivbench_core::{
    Balance, Batch, Checked, Clock, Condition, CoreError, Dataset, Deviation, Estimate, Estimator,
    Evaluation, Found, Measurement, Model, PointLoss, Portion, RotationPlan, SampleTerms, Scheme,
    Seed, Sink, StepFigures, Supervised, Task, Variant, Weights, measure_portions, pool,
};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, OnceLock, mpsc::Receiver};

/// What a session needs to know.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Seed of the run.
    pub seed: Seed,
    /// Optimiser steps.
    pub total_steps: u64,
    /// Samples in a batch.
    pub batch_size: usize,
    /// Training samples that are used, indices into the split `train`.
    pub train_samples: Vec<u64>,
    /// Evaluations a decade of steps.
    pub points_per_decade: u32,
    /// Split that is measured.
    pub split: String,
    /// Samples that are measured.
    pub samples: usize,
    /// Samples in a batch of the measurement.
    pub evaluation_batch: usize,
    /// Rotations.
    pub scheme: Scheme,
    /// Plug-in or unbiased.
    pub estimator: Estimator,
    /// Loss that is split.
    pub loss: PointLoss,
    /// Kinds of weights that are measured.
    pub weights: Vec<Weights>,
    /// Whether a model that can share work among rotated copies does.
    pub sharing: bool,
    /// Flow times that are measured; `[None]` for a task without.
    pub flow_times: Vec<Option<f64>>,
    /// Variants of the prediction that are measured.
    pub variants: Vec<Variant>,
    /// Steps between checkpoints.
    pub checkpoint_every: u64,
}

/// What a checkpoint keeps besides the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SessionState {
    /// Optimiser steps done.
    pub step: u64,
    /// Training seconds.
    pub train_s: f64,
    /// Evaluation seconds.
    pub evaluation_s: f64,
    /// Seconds of everything.
    pub run_s: f64,
    /// Seconds inside calls into the model.
    pub model_s: f64,
    /// The last optimiser step: loss, learning rate, gradient norm.
    pub last_step: Option<[f64; 3]>,
    /// States of the protocols, in order.
    pub protocols: Vec<Vec<u8>>,
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Optimiser steps done.
    pub step: u64,
    /// Optimiser steps of the run.
    pub total: u64,
    /// Training loss of the last step.
    pub loss: Option<f64>,
    /// Percent loss from equivariance error at the last evaluation, the mean over flow times.
    pub percent: Option<f64>,
    /// Whether it is measuring now.
    pub measuring: bool,
}

/// What a session needs from whoever runs it.
pub trait Observer {
    /// Called often.
    fn progress(&mut self, progress: &Progress);
    /// Asked after each step.
    fn should_stop(&mut self) -> bool;
    /// Keeps the state. Rows written so far belong to it.
    ///
    /// # Errors
    /// A state that could not be kept.
    fn checkpoint(&mut self, state: &SessionState, model: &dyn Model) -> Result<(), CoreError>;
    /// The sink of rows.
    fn sink(&mut self) -> &mut dyn Sink;
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps done, all rows written.
    Finished,
    /// Stopped on request after a checkpoint.
    Stopped,
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The training loss is not a number any more.
    #[error(
        "the training loss became {loss} at step {step}; the rows until then are kept. Lower train.lr, raise train.clip_norm, or check the data"
    )]
    LossNotFinite {
        /// Step at which it happened.
        step: u64,
        /// The loss.
        loss: f64,
    },
    /// A configuration that leaves nothing to do.
    #[error("{0}")]
    Empty(String),
    /// What went wrong below.
    #[error("at step {step}: {source}")]
    At {
        /// Steps done.
        step: u64,
        /// The error.
        source: CoreError,
    },
}

/// Relative difference between shared and blind predictions that is always too much.
const TOLERATED_DEVIATION: f64 = 1e-2;
/// Relative difference that rounding of f32 predictions may cause at most, with a distance or two at the edge of a bin.
const ROUNDING: f64 = 1e-4;
/// Beyond rounding: share of the equivariance error that sharing may account for, as a mean square.
const TOLERATED_OF_EQUIV: f64 = 0.1;

/// Samples that an evaluation predicts both ways at most: a random few, as each costs a whole pass of its own.
const CHECKED_SAMPLES: usize = 4;

/// What an evaluation predicts both ways, and where.
struct CheckedAt {
    flow_time: usize,
    batch: usize,
    what: Checked,
}

/// What an evaluation found with one kind of weights.
type Estimates = (Vec<(Condition, Estimate)>, Deviation);

/// Some measured samples as the dataset gave them, with their rotations. What a task makes of them may be a thousand times larger
/// (grids) and is a function of seed, sample and flow time, so it is kept where it is small and made anew where it is not.
struct MeasuredBatch {
    raw: Batch,
    samples: Vec<u64>,
    plans: Arc<[RotationPlan]>,
    /// What the task made of them, for each flow time.
    made: Vec<OnceLock<Arc<Supervised>>>,
}

/// Bytes of measured samples that are kept from one evaluation to the next.
const KEPT_BYTES: usize = 64 << 20;

impl MeasuredBatch {
    /// Inputs and target at one of the flow times; kept if they take no more than these bytes.
    fn at(
        &self,
        preparer: &Preparer,
        flow_times: &[Option<f64>],
        index: usize,
        keep: usize,
    ) -> Result<Arc<Supervised>, CoreError> {
        if let Some(made) = self.made[index].get() {
            return Ok(Arc::clone(made));
        }
        let made =
            Arc::new(preparer.measured(self.raw.clone(), &self.samples, flow_times[index])?);
        if made.bytes() <= keep {
            // The thread that makes portions is the only one that sets it.
            let _ = self.made[index].set(Arc::clone(&made));
        }
        Ok(made)
    }
}

/// A run in progress.
pub struct Session<'a> {
    config: SessionConfig,
    about: About,
    model: &'a mut dyn Model,
    preparer: Preparer,
    clock: &'a dyn Clock,
    protocols: Vec<Box<dyn Protocol>>,
    measured: Vec<MeasuredBatch>,
    state: SessionState,
    last_percent: Option<f64>,
}

impl<'a> Session<'a> {
    /// Prepares a run: freezes the measured samples with their rotations.
    ///
    /// # Errors
    /// No training samples, an empty measured split, an unbiased estimate over one coset, or unreadable data.
    pub fn new(
        config: SessionConfig,
        about: About,
        model: &'a mut dyn Model,
        dataset: &mut dyn Dataset,
        task: Arc<dyn Task>,
        clock: &'a dyn Clock,
        protocols: Vec<Box<dyn Protocol>>,
    ) -> Result<Self, SessionError> {
        if config.train_samples.is_empty() || config.batch_size == 0 {
            return Err(SessionError::Empty("there are no training samples; raise train.examples or check the dataset's filters".into()));
        }
        let order = BatchOrder::new(config.train_samples.clone(), config.batch_size, config.seed);
        let measured = freeze(&config, dataset)?;
        let preparer = Preparer {
            task,
            order,
            seed: config.seed,
            normalisers: dataset.normalisers(),
            precision: model.precision(),
        };
        Ok(Self {
            config,
            about,
            model,
            preparer,
            clock,
            protocols,
            measured,
            state: SessionState::default(),
            last_percent: None,
        })
    }

    /// Continues from a checkpoint; the model's state is restored by the caller.
    ///
    /// # Errors
    /// A state of other protocols.
    pub fn restore(&mut self, state: SessionState) -> Result<(), CoreError> {
        if state.protocols.len() != self.protocols.len() {
            return Err(CoreError::Shape(
                "the checkpoint was written with other protocols".into(),
            ));
        }
        for (protocol, saved) in self.protocols.iter_mut().zip(&state.protocols) {
            if !saved.is_empty() {
                protocol.load(saved)?;
            }
        }
        self.state = state;
        Ok(())
    }

    /// Trains and measures until the last step or until asked to stop. Batches are prepared ahead on another thread.
    ///
    /// # Errors
    /// A loss that is not finite, or what model, dataset or sink report, with the step.
    pub fn run(
        &mut self,
        dataset: &mut (dyn Dataset + Send),
        observer: &mut dyn Observer,
    ) -> Result<Outcome, SessionError> {
        let preparer = self.preparer.clone();
        let steps = self.state.step..self.config.total_steps;
        std::thread::scope(|scope| {
            let batches = preparer.ahead(scope, dataset, steps);
            // The receiver is dropped before the scope waits for the thread.
            self.train_and_measure(&batches, observer)
        })
    }

    fn train_and_measure(
        &mut self,
        batches: &Receiver<Prepared>,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, SessionError> {
        let timer = Timer::start(self);
        let schedule = evaluation_steps(self.config.total_steps, self.config.points_per_decade);
        loop {
            if schedule.binary_search(&self.state.step).is_ok() {
                let at = self.state.step;
                self.evaluate(observer)
                    .map_err(|source| SessionError::At { step: at, source })?;
            }
            if self.state.step >= self.config.total_steps {
                break;
            }
            self.train_one(batches)?;
            observer.progress(&self.progress(false));
            let stop = observer.should_stop();
            if stop
                || self
                    .state
                    .step
                    .is_multiple_of(self.config.checkpoint_every.max(1))
            {
                timer.note(self);
                self.checkpoint(observer)
                    .map_err(|source| SessionError::At {
                        step: self.state.step,
                        source,
                    })?;
            }
            if stop {
                return Ok(Outcome::Stopped);
            }
        }
        timer.note(self);
        let model_s = self
            .model
            .busy_s()
            .filter(|_| self.clock.is_wall())
            .map(|_| self.state.model_s);
        let totals = Totals {
            run_s: self.state.run_s,
            model_s,
            peak_memory_bytes: self.clock.peak_memory_bytes(),
        };
        for protocol in &mut self.protocols {
            protocol
                .on_finish(&self.about, &totals, observer.sink())
                .map_err(|source| SessionError::At {
                    step: self.state.step,
                    source,
                })?;
        }
        Ok(Outcome::Finished)
    }

    fn progress(&self, measuring: bool) -> Progress {
        Progress {
            step: self.state.step,
            total: self.config.total_steps,
            loss: self.state.last_step.map(|s| s[0]),
            percent: self.last_percent,
            measuring,
        }
    }

    fn train_one(&mut self, batches: &Receiver<Prepared>) -> Result<(), SessionError> {
        let step = self.state.step;
        let at = |source| SessionError::At { step, source };
        let start = self.clock.now_s();
        let ended = |_| CoreError::Dataset("the thread that prepares batches has ended".into());
        let batch = batches
            .recv()
            .map_err(ended)
            .and_then(|prepared| prepared)
            .map_err(at)?;
        let figures = self.model.train_step(&batch).map_err(at)?;
        self.clock.step_done();
        let seconds = self.clock.now_s() - start;
        self.state.step += 1;
        self.state.train_s += seconds;
        self.state.last_step = Some([figures.loss, figures.lr, figures.gradient_norm]);
        if !figures.loss.is_finite() {
            return Err(SessionError::LossNotFinite {
                step: self.state.step,
                loss: figures.loss,
            });
        }
        let told = Step {
            step: self.state.step,
            seconds,
            samples: batch.samples() as u64,
            figures,
        };
        self.protocols
            .iter_mut()
            .try_for_each(|p| p.on_step(&told))
            .map_err(at)
    }

    fn checkpoint(&mut self, observer: &mut dyn Observer) -> Result<(), CoreError> {
        self.state.protocols = self
            .protocols
            .iter()
            .map(|p| p.save())
            .collect::<Result<_, _>>()?;
        observer.checkpoint(&self.state, &*self.model)
    }

    fn evaluate(&mut self, observer: &mut dyn Observer) -> Result<(), CoreError> {
        observer.progress(&self.progress(true));
        let start = self.clock.now_s();
        let checked: Vec<_> = self
            .config
            .weights
            .iter()
            .map(|&weights| self.checked(weights))
            .collect();
        let found = self.measure(&checked, observer)?;
        let estimates: Vec<_> = (0..checked.len())
            .map(|w| self.estimates(w, &found, checked[w].as_ref()))
            .collect::<Result<_, _>>()?;
        self.state.evaluation_s += self.clock.now_s() - start;
        for (weights, (estimates, deviation)) in
            self.config.weights.clone().into_iter().zip(estimates)
        {
            if weights == Weights::Raw {
                self.last_percent = mean_percent(&estimates);
            }
            for (condition, estimate) in estimates {
                let told = Measured {
                    deviation,
                    ..self.told(weights, condition, estimate)
                };
                for protocol in &mut self.protocols {
                    protocol.on_evaluation(&self.about, &told, observer.sink())?;
                }
            }
        }
        observer.progress(&self.progress(false));
        Ok(())
    }

    /// What is found of every measured batch, by flow time, batch and kind of weights, the last the fastest: both kinds see the samples
    /// that were made once.
    fn measure(
        &mut self,
        checked: &[Option<CheckedAt>],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Found>, CoreError> {
        let progress = self.progress(true);
        let Self {
            config,
            model,
            preparer,
            measured,
            ..
        } = self;
        let sharing = config.sharing && model.shares_rotations();
        let (config, preparer, measured) = (&*config, &*preparer, &*measured);
        let keep = KEPT_BYTES / (config.flow_times.len() * measured.len()).max(1);
        let places =
            (0..config.flow_times.len()).flat_map(|f| (0..measured.len()).map(move |b| (f, b)));
        let portions = places.flat_map(move |(f, b)| {
            let batch = &measured[b];
            let samples = batch.at(preparer, &config.flow_times, f, keep);
            let portion = |samples: &Arc<Supervised>, w: usize| Portion {
                samples: Arc::clone(samples),
                plans: Arc::clone(&batch.plans),
                how: Measurement {
                    weights: config.weights[w],
                    loss: config.loss,
                    estimator: config.estimator,
                },
                sharing,
                checked: checked[w]
                    .as_ref()
                    .filter(|c| (c.flow_time, c.batch) == (f, b))
                    .map(|c| c.what.clone()),
            };
            match samples {
                Ok(samples) => (0..config.weights.len())
                    .map(|w| Ok(portion(&samples, w)))
                    .collect(),
                Err(error) => vec![Err(error)],
            }
        });
        measure_portions(
            *model,
            &*preparer.task,
            &config.variants,
            portions,
            &mut || observer.progress(&progress),
        )
    }

    /// One estimate for each flow time and variant, in the order of their rows; and how far shared predictions were from blind ones.
    fn estimates(
        &self,
        weights: usize,
        found: &[Found],
        checked: Option<&CheckedAt>,
    ) -> Result<Estimates, CoreError> {
        let own = || {
            found
                .iter()
                .skip(weights)
                .step_by(self.config.weights.len())
        };
        let mut deviation = Deviation::default();
        own().for_each(|found| deviation.add(found.deviation));
        let mut estimates = Vec::new();
        for (f, &flow_time) in self.config.flow_times.iter().enumerate() {
            let batches = || {
                own()
                    .skip(f * self.measured.len())
                    .take(self.measured.len())
            };
            for (v, &variant) in self.config.variants.iter().enumerate() {
                let terms: Vec<_> = batches()
                    .flat_map(|found| &found.terms[v])
                    .map(|terms| self.balanced(terms))
                    .collect();
                let estimate = pool(
                    &terms,
                    self.config.loss == PointLoss::Mse,
                    &mut self.config.seed.stream("bootstrap"),
                );
                if !estimate.pooled.total().is_finite() {
                    return Err(CoreError::NotFinite(format!(
                        "the measured loss is {}",
                        estimate.pooled.total()
                    )));
                }
                estimates.push((Condition { flow_time, variant }, estimate));
            }
        }
        self.trust(checked, &estimates, &deviation)?;
        Ok((estimates, deviation))
    }

    fn balanced(&self, terms: &SampleTerms) -> SampleTerms {
        match self.preparer.task.balance() {
            Balance::Components => *terms,
            Balance::Samples => terms.averaged(),
        }
    }

    /// Whether shared predictions are close enough to blind ones for the equivariance error that was found.
    fn trust(
        &self,
        checked: Option<&CheckedAt>,
        found: &[(Condition, Estimate)],
        deviation: &Deviation,
    ) -> Result<(), CoreError> {
        let (Some(relative), Some(square), Some(checked)) =
            (deviation.relative(), deviation.mean_square(), checked)
        else {
            return Ok(());
        };
        let of_flow_time = found
            .iter()
            .skip(checked.flow_time * self.config.variants.len())
            .take(self.config.variants.len());
        // Another loss than the squared error has no scale in common with the difference.
        let equiv = of_flow_time
            .map(|(_, e)| e.pooled.equivariance)
            .fold(f64::INFINITY, f64::min);
        let of_equiv = if self.config.loss == PointLoss::Mse {
            square / equiv.max(f64::MIN_POSITIVE)
        } else {
            0.0
        };
        // Written so that what is not a number is not trusted.
        if relative <= ROUNDING
            || (relative <= TOLERATED_DEVIATION && of_equiv <= TOLERATED_OF_EQUIV)
        {
            return Ok(());
        }
        Err(CoreError::Sharing { relative, of_equiv })
    }

    /// What an evaluation with these weights predicts both ways: another batch and rotation each time, chosen by seed.
    fn checked(&self, weights: Weights) -> Option<CheckedAt> {
        let seed = &self.config.seed;
        let name = |what: &str| format!("shared/{}/{}/{what}", self.state.step, weights.name());
        let draw =
            |what: &str, count: usize| (seed.derived(&name(what)) % count.max(1) as u64) as usize;
        let batch = draw("batch", self.measured.len());
        let plans = &self.measured.get(batch)?.plans;
        let mut samples: Vec<usize> = seed
            .permutation(&name("samples"), plans.len())
            .into_iter()
            .map(|s| s as usize)
            .collect();
        samples.truncate(CHECKED_SAMPLES);
        let what = Checked {
            pass: draw("pass", plans.first()?.rotations.len()),
            samples,
        };
        Some(CheckedAt {
            flow_time: draw("flow time", self.config.flow_times.len()),
            batch,
            what,
        })
    }

    fn told(&self, weights: Weights, condition: Condition, estimate: Estimate) -> Measured {
        let evaluation = Evaluation {
            step: self.state.step,
            epoch: self.preparer.order.epoch_after(self.state.step),
            train_s: self.state.train_s,
            gpu_h: self.about.is_gpu.then(|| self.state.train_s / 3600.0),
            percent: estimate.pooled.percent(),
            skill: estimate.skill,
            relative_equiv: estimate.relative_equiv,
        };
        let last_step = self
            .state
            .last_step
            .map(|[loss, lr, gradient_norm]| StepFigures {
                loss,
                lr,
                gradient_norm,
            });
        let squared = self.config.loss == PointLoss::Mse;
        let clean_sample_factor = condition
            .flow_time
            .filter(|_| squared)
            .and_then(|t| self.preparer.task.clean_sample_factor(t));
        Measured {
            evaluation,
            weights,
            condition,
            clean_sample_factor,
            estimate,
            last_step,
            deviation: Deviation::default(),
            evaluation_s: self.state.evaluation_s,
        }
    }
}

/// Keeps account of the seconds of a session, those of its earlier parts included.
struct Timer {
    begun_s: f64,
    model_begun_s: f64,
    before: [f64; 2],
}

impl Timer {
    fn start(session: &Session<'_>) -> Self {
        let (begun_s, model_begun_s) =
            (session.clock.now_s(), session.model.busy_s().unwrap_or(0.0));
        Self {
            begun_s,
            model_begun_s,
            before: [session.state.run_s, session.state.model_s],
        }
    }

    /// Writes the seconds so far into the state.
    fn note(&self, session: &mut Session<'_>) {
        session.state.run_s = self.before[0] + session.clock.now_s() - self.begun_s;
        session.state.model_s =
            self.before[1] + session.model.busy_s().unwrap_or(0.0) - self.model_begun_s;
    }
}

/// The mean percent over the flow times of the first variant.
fn mean_percent(estimates: &[(Condition, Estimate)]) -> Option<f64> {
    let first = estimates.first()?.0.variant;
    let percents: Vec<f64> = estimates
        .iter()
        .filter(|(c, _)| c.variant == first)
        .map(|(_, e)| e.pooled.percent())
        .collect();
    Some(percents.iter().sum::<f64>() / percents.len() as f64)
}

/// The fixed validation subset with its rotations: chosen by seed, the same at every evaluation.
fn freeze(
    config: &SessionConfig,
    dataset: &mut dyn Dataset,
) -> Result<Vec<MeasuredBatch>, SessionError> {
    let available = dataset.samples(&config.split);
    if available == 0 || config.samples == 0 {
        return Err(SessionError::Empty(format!(
            "split \"{}\" has {available} samples and measure.samples is {}: there is nothing to measure",
            config.split, config.samples
        )));
    }
    if config.estimator == Estimator::Unbiased
        && config.scheme.is_sampled()
        && config.scheme.plan(config.seed, 0).cosets < 2
    {
        return Err(SessionError::Empty(format!(
            "scheme {} draws one rotation, an unbiased estimate needs two; use e.g. tetrahedral-x2 or random-10",
            config.scheme.name()
        )));
    }
    let mut chosen = config.seed.permutation("measured", available);
    chosen.truncate(config.samples);
    let freeze = |samples: &[u64]| -> Result<MeasuredBatch, CoreError> {
        let raw = dataset.load(&config.split, samples)?;
        let plans = samples
            .iter()
            .map(|&sample| config.scheme.plan(config.seed, sample))
            .collect();
        let made = config.flow_times.iter().map(|_| OnceLock::new()).collect();
        Ok(MeasuredBatch {
            raw,
            samples: samples.to_vec(),
            plans,
            made,
        })
    };
    let frozen: Result<_, _> = chosen
        .chunks(config.evaluation_batch.max(1))
        .map(freeze)
        .collect();
    frozen.map_err(|source| SessionError::At { step: 0, source })
}
