//! A run from the first step to the last: trains by the recipe, asks the protocols that are due, offers checkpoints.
//!
//! Everything random is a function of seed, step and sample index, so the state to keep is small ([`SessionState`]) and a
//! resumed run gives the same bytes. A checkpoint lies after an optimiser step and before the questions of that step.

use crate::{
    About, BatchOrder, Ending, Frozen, Moment, Observer, OpenDouble, Outcome, Progress, Running,
    SessionConfig, SessionError, SessionState, Snapshot, Source, Step, choosing,
    preparer::{Prepared, Preparer},
    snapshot::View,
    splits::{Bench, mean_percent},
};
use equivbench_core::{
    Baseline, Clock, CoreError, Model, Scheme, SchemeChoice, Sink, StepFigures, Task,
};
use std::sync::{Arc, mpsc::Receiver};

/// A run in progress.
pub struct Session<'a> {
    config: SessionConfig,
    about: Arc<About>,
    model: &'a mut dyn Model,
    source: &'a Source<'a>,
    preparer: Preparer,
    baseline: Arc<dyn Baseline>,
    frozen: Frozen,
    clock: &'a dyn Clock,
    protocols: Vec<Box<dyn Running>>,
    double: Option<OpenDouble<'a>>,
    state: SessionState,
    last_percent: Option<f64>,
}

impl<'a> Session<'a> {
    /// Gives protocols an instance in double precision to ask.
    #[must_use]
    pub fn with_double(mut self, open: OpenDouble<'a>) -> Self {
        self.double = Some(open);
        self
    }

    /// What skill is measured against, for manifests.
    #[must_use]
    pub fn baseline(&self) -> String {
        self.baseline.about()
    }

    /// Prepares a run: freezes the measured samples with their rotations.
    ///
    /// # Errors
    /// No training samples, an empty measured split, an unbiased estimate over one coset, or unreadable data.
    pub fn new(
        config: SessionConfig,
        about: About,
        model: &'a mut dyn Model,
        source: &'a Source<'a>,
        task: Arc<dyn Task>,
        clock: &'a dyn Clock,
        protocols: Vec<Box<dyn Running>>,
    ) -> Result<Self, SessionError> {
        let training = &config.training;
        if training.samples.is_empty() || training.batch_size == 0 {
            return Err(SessionError::Empty("there are no training samples; raise train.examples or check the dataset's filters".into()));
        }
        let measuring = &config.measuring;
        let preparer = Preparer {
            task,
            order: BatchOrder::new(training.samples.clone(), training.batch_size, config.seed),
            seed: config.seed,
            measure_seed: measuring.seed,
            normalisers: source.normalisers(),
            precision: model.precision(),
        };
        let condition = measuring.conditions.first().cloned().unwrap_or_default();
        let baseline = preparer
            .fit_baseline(source, &condition, measuring.batch_size)
            .map_err(SessionError::at(0))?;
        let frozen = Frozen::new(
            measuring,
            &measuring.set,
            &*preparer.task,
            Arc::clone(&baseline),
            source,
        )?;
        Ok(Self {
            config,
            about: Arc::new(about),
            model,
            source,
            preparer,
            baseline,
            frozen,
            clock,
            protocols,
            double: None,
            state: SessionState::default(),
            last_percent: None,
        })
    }

    /// Chooses the rotation scheme by the model as it is now (`measure.scheme = auto`), before anything is measured; where there is
    /// nothing to choose by, the scheme stays. Asked to stop meanwhile, it chooses none.
    ///
    /// # Errors
    /// What data or model report.
    pub fn choose_scheme(&mut self, observer: &mut dyn Observer) -> Result<Outcome, SessionError> {
        let at = SessionError::at(self.state.step);
        let choice = match self.question(observer, choosing::choose) {
            Err(CoreError::Stopped) => return Ok(Outcome::Stopped),
            choice => choice.map_err(&at)?,
        };
        let choice = choice.unwrap_or_else(|| SchemeChoice {
            scheme: self.config.measuring.scheme.name(),
            why: "there is no equivariance error yet to choose by".into(),
        });
        self.use_scheme(choice).map_err(at)?;
        Ok(Outcome::Finished)
    }

    /// Measures by a scheme that was chosen before, of which checkpoints tell ([`SessionState::scheme`]).
    ///
    /// # Errors
    /// A scheme of another version.
    pub fn use_scheme(&mut self, choice: SchemeChoice) -> Result<(), CoreError> {
        let scheme = Scheme::parse(&choice.scheme)?;
        let measuring = &mut self.config.measuring;
        self.frozen.rotate_by(&scheme, measuring.seed);
        let about = Arc::make_mut(&mut self.about);
        about.scheme = scheme.name();
        about.rotations = scheme.rotations() as u64;
        measuring.scheme = scheme;
        self.state.scheme = Some(choice);
        Ok(())
    }

    /// The scheme that was chosen, and why; `None` where a suite names it.
    #[must_use]
    pub fn chosen_scheme(&self) -> Option<&SchemeChoice> {
        self.state.scheme.as_ref()
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
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Outcome, SessionError> {
        let (preparer, source) = (self.preparer.clone(), self.source);
        let steps = self.state.step..self.config.training.total_steps;
        std::thread::scope(|scope| {
            let batches = preparer.ahead(scope, source, steps);
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
        let resumed_at = (self.state.step > 0).then_some(self.state.step);
        loop {
            let step = self.state.step;
            let at = SessionError::at(step);
            let stop = observer.should_stop();
            if stop || (resumed_at != Some(step) && self.keeps(step)) {
                timer.note(self);
                self.checkpoint(observer).map_err(&at)?;
            }
            if stop || self.ask(observer, &timer).map_err(&at)? == Outcome::Stopped {
                return Ok(Outcome::Stopped);
            }
            if step >= self.config.training.total_steps {
                break;
            }
            self.train_one(batches)?;
            observer.progress(&self.progress(false));
        }
        timer.note(self);
        self.finish(observer.sink())
            .map_err(SessionError::at(self.state.step))?;
        Ok(Outcome::Finished)
    }

    /// Whether a checkpoint is due after a step.
    fn keeps(&self, step: u64) -> bool {
        let training = &self.config.training;
        let regular = step > 0 && step.is_multiple_of(training.checkpoint_every.max(1));
        regular || training.keep_checkpoints.contains(&step)
    }

    fn train_one(&mut self, batches: &Receiver<Prepared>) -> Result<(), SessionError> {
        let at = SessionError::at(self.state.step);
        let (start, cpu_start) = (self.clock.now_s(), self.clock.cpu_s());
        let ended = |_| CoreError::Dataset("the thread that prepares batches has ended".into());
        let batch = batches
            .recv()
            .map_err(ended)
            .and_then(|prepared| prepared)
            .map_err(&at)?;
        let figures = self.model.train_step(&batch).map_err(&at)?;
        self.clock.step_done();
        let seconds = self.clock.now_s() - start;
        self.state.step += 1;
        self.state.train_s += seconds;
        if let (Some(before), Some(now)) = (cpu_start, self.clock.cpu_s()) {
            self.state.cpu_s += now - before;
        }
        self.state.last_step = Some([figures.loss, figures.lr, figures.gradient_norm]);
        if !figures.loss.is_finite() {
            return Err(SessionError::LossNotFinite {
                step: self.state.step,
                loss: figures.loss,
            });
        }
        let done = Step {
            step: self.state.step,
            seconds,
            samples: batch.samples() as u64,
            figures,
        };
        self.protocols.iter_mut().for_each(|p| p.trained(&done));
        Ok(())
    }

    /// Lets the protocols that are due ask their questions. Asked to stop meanwhile, it keeps a checkpoint of the moment before and
    /// ends: a resumed run asks again.
    fn ask(&mut self, observer: &mut dyn Observer, timer: &Timer) -> Result<Outcome, CoreError> {
        let step = self.state.step;
        if !self.protocols.iter().any(|p| p.due(step)) {
            return Ok(Outcome::Finished);
        }
        let before = self.saved_protocols()?;
        let start = self.clock.now_s();
        match self.answer(observer) {
            Err(CoreError::Stopped) => {
                timer.note(self);
                self.state.protocols = before;
                observer.checkpoint(&self.state, &*self.model)?;
                return Ok(Outcome::Stopped);
            }
            answered => answered?,
        }
        self.state.evaluation_s += self.clock.now_s() - start;
        observer.progress(&self.progress(false));
        Ok(Outcome::Finished)
    }

    /// One snapshot for all who are due.
    fn answer(&mut self, observer: &mut dyn Observer) -> Result<(), CoreError> {
        // Rows are written when all have answered: a moment that was not measured to its end leaves none.
        let mut rows = Waiting::default();
        let mut protocols = std::mem::take(&mut self.protocols);
        let step = self.state.step;
        let answered = self.question(observer, |snapshot| {
            for protocol in protocols.iter_mut().filter(|p| p.due(step)) {
                protocol.measure(snapshot, &mut rows)?;
            }
            let splits = snapshot.splits_if_measured();
            Ok(splits.map(|splits| mean_percent(snapshot.frozen(), splits)))
        });
        self.protocols = protocols;
        if let Some(percent) = answered? {
            self.last_percent = percent;
        }
        rows.write(observer.sink())
    }

    /// Asks something of the model as it is now.
    fn question<R>(
        &mut self,
        observer: &mut dyn Observer,
        ask: impl FnOnce(&mut Snapshot<'_>) -> Result<R, CoreError>,
    ) -> Result<R, CoreError> {
        let (moment, progress) = (self.moment(), self.progress(true));
        let view = View {
            bench: Bench {
                measuring: &self.config.measuring,
                frozen: &self.frozen,
                preparer: &self.preparer,
            },
            source: self.source,
            baseline: &self.baseline,
            about: &self.about,
            double: self.double.as_ref(),
        };
        observer.progress(&progress);
        let mut watch = || {
            observer.progress(&progress);
            if observer.should_stop() {
                Err(CoreError::Stopped)
            } else {
                Ok(())
            }
        };
        ask(&mut Snapshot::new(moment, view, self.model, &mut watch))
    }

    fn finish(&mut self, sink: &mut dyn Sink) -> Result<(), CoreError> {
        let moment = self.moment();
        let model_s = self
            .model
            .busy_s()
            .filter(|_| self.clock.is_wall())
            .map(|_| self.state.model_s);
        let ending = Ending {
            about: Arc::clone(&self.about),
            train_s: moment.train_s,
            cpu_s: moment.cpu_s,
            gpu_h: moment.gpu_h,
            evaluation_s: self.state.evaluation_s,
            run_s: self.state.run_s,
            model_s,
            peak_memory_bytes: self.clock.peak_memory_bytes(),
        };
        self.protocols
            .iter_mut()
            .try_for_each(|p| p.finish(&ending, sink))
    }

    fn saved_protocols(&self) -> Result<Vec<Vec<u8>>, CoreError> {
        self.protocols.iter().map(|p| p.save()).collect()
    }

    fn checkpoint(&mut self, observer: &mut dyn Observer) -> Result<(), CoreError> {
        self.state.protocols = self.saved_protocols()?;
        observer.checkpoint(&self.state, &*self.model)
    }

    fn progress(&self, measuring: bool) -> Progress {
        Progress {
            step: self.state.step,
            total: self.config.training.total_steps,
            loss: self.state.last_step.map(|s| s[0]),
            percent: self.last_percent,
            measuring,
        }
    }

    fn moment(&self) -> Moment {
        let state = &self.state;
        let figures = |[loss, lr, gradient_norm]: [f64; 3]| StepFigures {
            loss,
            lr,
            gradient_norm,
        };
        Moment {
            step: state.step,
            epoch: self.preparer.order.epoch_after(state.step),
            train_s: state.train_s,
            cpu_s: self.clock.cpu_s().map(|_| state.cpu_s),
            gpu_h: self.about.is_gpu.then(|| state.train_s / 3600.0),
            last_step: state.last_step.map(figures),
        }
    }
}

/// Lets protocols question the moment that a session was restored to, due or not, once.
///
/// # Errors
/// What the protocols report, or a request to stop.
pub fn measure_once(
    session: &mut Session<'_>,
    observer: &mut dyn Observer,
) -> Result<(), SessionError> {
    let at = SessionError::at(session.state.step);
    let protocols = std::mem::take(&mut session.protocols);
    session.protocols = protocols
        .into_iter()
        .map(|p| Box::new(Once(p)) as _)
        .collect();
    session.answer(observer).map_err(at)
}

/// A protocol that is due now.
struct Once(Box<dyn Running>);

impl Running for Once {
    fn due(&self, _: u64) -> bool {
        true
    }
    fn measure(
        &mut self,
        snapshot: &mut Snapshot<'_>,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        self.0.measure(snapshot, sink)
    }
    fn trained(&mut self, step: &Step) {
        self.0.trained(step);
    }
    fn finish(&mut self, ending: &Ending, sink: &mut dyn Sink) -> Result<(), CoreError> {
        self.0.finish(ending, sink)
    }
    fn save(&self) -> Result<Vec<u8>, CoreError> {
        self.0.save()
    }
    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        self.0.load(state)
    }
}

/// Rows of one moment.
#[derive(Default)]
struct Waiting(Vec<(&'static str, Vec<equivbench_core::Cell>)>);

impl Waiting {
    fn write(self, sink: &mut dyn Sink) -> Result<(), CoreError> {
        let mut rows = self.0.into_iter();
        rows.try_for_each(|(table, cells)| sink.row(table, cells))
    }
}

impl Sink for Waiting {
    fn row(
        &mut self,
        table: &'static str,
        cells: Vec<equivbench_core::Cell>,
    ) -> Result<(), CoreError> {
        self.0.push((table, cells));
        Ok(())
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
