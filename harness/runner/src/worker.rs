//! Executes or resumes exactly one run directory. The same worker serves the local pool, a GPU and a Slurm array task.

use crate::{
    RunnerError,
    checkpoint::{self, Checkpoint},
    clock::{StepClock, SystemClock, peak_memory_bytes},
    keeper::Keeper,
    plan::configure,
    run_dir::{ProgressFile, RunDir, RunSpec, State, Status},
};
use equivbench_core::{
    Cell, Clock, CoreError, Dataset, Estimator, Model, PointLoss, Scheme, Seed, Sink, Table, Task,
    Variant, Weights,
};
use equivbench_host::{
    Library, LoadedDataset, LoadedModel,
    descriptor::{DatasetRequest, ModelRequest, Recipe},
};
use equivbench_protocols::{
    About, Observer, Outcome, Progress, Protocol, Session, SessionConfig, SessionState,
    protocol_by_name,
};
use equivbench_report::{DataFacts, NOT_PASSED, RunKeys, RunManifest, TableWriter, tables};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

/// Name of the environment variable with the process id of the pool that started a worker: it stops when the pool is gone.
pub const POOL_VARIABLE: &str = "EQUIVBENCH_POOL";
/// Name of the environment variable with the threads a worker may use, where the run does not say.
pub const THREADS_VARIABLE: &str = "EQUIVBENCH_THREADS";
/// A file of this name in a run directory asks its worker to stop.
pub const STOP_FILE: &str = "stop";

/// Splits do not follow the seed of a run, so that runs of different seeds are measured on the same molecules.
const SPLIT_SEED: u64 = 0;

/// Executes or resumes the run. `stop` asks for a checkpoint and an end.
///
/// # Errors
/// Whatever makes the run fail; its status says so too.
pub fn work(dir: &RunDir, stop: &AtomicBool) -> Result<State, RunnerError> {
    let spec = dir.spec()?;
    let _lock = dir.lock()?;
    if dir.status().state == State::Finished {
        return Ok(State::Finished);
    }
    let _ = std::fs::remove_file(dir.path().join(STOP_FILE));
    dir.set_status(&Status {
        state: State::Running,
        step: dir.status().step,
        ..Status::default()
    })?;
    let mut step = 0;
    let result = run(dir, &spec, stop, &mut step);
    let peak_memory_bytes = peak_memory_bytes("self");
    let (state, reason) = match &result {
        Ok((state, reason)) => (*state, reason.clone()),
        Err(error) => (State::Failed, error.to_string()),
    };
    dir.set_status(&Status {
        state,
        reason: reason.clone(),
        step,
        peak_memory_bytes,
    })?;
    if let Some(manifest) = dir.manifest() {
        dir.set_manifest(&RunManifest {
            status: state.name().into(),
            reason,
            ..manifest
        })?;
    }
    result.map(|(state, _)| state)
}

fn run(
    dir: &RunDir,
    spec: &RunSpec,
    stop: &AtomicBool,
    step: &mut u64,
) -> Result<(State, String), RunnerError> {
    let (mut dataset, mut opened) = open(spec)?;
    let keys = RunKeys {
        run: spec.id.clone(),
        model: spec.config.model.name.clone(),
        size: spec.config.model.size.clone(),
        dataset: dataset.descriptor().name.clone(),
        train_samples: opened.session.train_samples.len() as u64,
        seed: spec.config.run.seed,
    };
    dir.set_manifest(&manifest(spec, &opened, &dataset))?;
    let data_hash = dataset.descriptor().content_hash.clone();
    let (found, damaged) = checkpoint::newest(&dir.checkpoints())?;
    for (path, what) in damaged {
        tracing::warn!("damaged checkpoint removed: {}: {what}", path.display());
        // Left where it is, it would count as the newest and push whole ones out.
        std::fs::remove_file(&path).map_err(RunnerError::io(&path))?;
    }
    let saved = found.map(|c| accept(c, spec, &data_hash)).transpose()?;
    if let Some(saved) = &saved {
        Model::load(&mut opened.model, &saved.model).map_err(failed)?;
        tracing::info!("continuing at step {}", saved.session.step);
    }
    let clock: Box<dyn Clock> = match spec.config.run.clock.as_str() {
        "steps" => Box::<StepClock>::default(),
        _ => Box::<SystemClock>::default(),
    };
    let covered = saved
        .as_ref()
        .map(|c| c.covered.clone())
        .unwrap_or_default();
    let mut observer = Watch::new(dir, spec, keys, data_hash, stop, &covered)?;
    let protocols = start_protocols(spec)?;
    observer.write_progress("loading");
    let mut session = Session::new(
        opened.session,
        opened.about,
        &mut opened.model,
        &mut dataset,
        opened.task,
        &*clock,
        protocols,
    )
    .map_err(failed)?;
    if let Some(saved) = saved {
        session.restore(saved.session).map_err(failed)?;
    }
    let outcome = session.run(&mut dataset, &mut observer);
    *step = observer.last.step;
    let outcome = outcome.map_err(failed)?;
    observer.keeper.finish()?;
    observer.write_progress("done");
    match outcome {
        Outcome::Finished => {
            observer.sync()?;
            Ok((State::Finished, String::new()))
        }
        Outcome::Stopped => Ok((State::Interrupted, observer.why_stopped)),
    }
}

fn accept(
    checkpoint: Checkpoint,
    spec: &RunSpec,
    data_hash: &str,
) -> Result<Checkpoint, RunnerError> {
    if checkpoint.run != spec.id {
        return Err(RunnerError::Conflict(format!(
            "the checkpoint is of run {}, this is {}; use another --out",
            checkpoint.run, spec.id
        )));
    }
    if checkpoint.data_hash != data_hash {
        return Err(RunnerError::Conflict(format!(
            "the data changed since the checkpoint was written (content hash {} then, {data_hash} now); restore them, or use another --out",
            checkpoint.data_hash
        )));
    }
    Ok(checkpoint)
}

fn failed(error: impl std::fmt::Display) -> RunnerError {
    RunnerError::Run(error.to_string())
}

fn start_protocols(spec: &RunSpec) -> Result<Vec<Box<dyn Protocol>>, RunnerError> {
    let start = |name: &String| {
        let info = protocol_by_name(name).ok_or_else(|| {
            RunnerError::Conflict(format!("protocol \"{name}\" is of another version"))
        })?;
        Ok((info.start)())
    };
    spec.protocols.iter().map(start).collect()
}

/// Everything a session needs that depends on the plugins.
struct Opened {
    model: LoadedModel,
    task: Arc<dyn Task>,
    session: SessionConfig,
    about: About,
    threads: u64,
}

fn open(spec: &RunSpec) -> Result<(LoadedDataset, Opened), RunnerError> {
    let config = &spec.config;
    let threads = match config.run.threads {
        0 => std::env::var(THREADS_VARIABLE)
            .ok()
            .and_then(|t| t.parse().ok())
            .unwrap_or(0),
        n => n,
    };
    if threads > 0 {
        // Of the harness; a plugin has its own. Fails only when there is a pool already, and then that one is used.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(threads as usize)
            .build_global();
    }
    let seed = Seed::new(config.run.seed);
    let library = open_library(&spec.model_library, &spec.model_plugin.sha256)?;
    let mut request = ModelRequest {
        model: config.model.name.clone(),
        size: config.model.size.clone(),
        config: serde_json::to_string(&config.model.config).map_err(failed)?,
        recipe: serde_json::to_string(&config.train.recipe).map_err(failed)?,
        seed: seed.derived("model"),
        device: config.run.device.clone(),
        precision: config.run.precision.clone(),
        threads,
        steps_per_epoch: 1,
        total_steps: 1,
    };
    // The batch size is the recipe's and the shape of inputs the configuration's, so the length of an epoch and the settings of the
    // task are known only once these are resolved.
    let datasets = open_library(&spec.dataset_library, &spec.dataset_plugin.sha256)?;
    let (recipe, task) = probe(spec, &library, &datasets, &request)?;
    let dataset = open_dataset(spec, &datasets, &*task, threads)?;
    let available = dataset.samples("train") as u64;
    let examples = config
        .train
        .examples
        .of(available)
        .map_err(RunnerError::Config)?;
    let mut train_samples = seed.permutation("subset", available as usize);
    train_samples.truncate(examples as usize);
    request.steps_per_epoch = examples.div_ceil(recipe.batch_size.max(1));
    request.total_steps = match config.train.steps {
        0 => (recipe.epochs * request.steps_per_epoch as f64).round() as u64,
        n => n,
    };
    let model = library.open_model(&request)?;
    let session = session_config(
        spec,
        seed,
        train_samples,
        request.total_steps,
        recipe.batch_size as usize,
        &*task,
        &model,
    )?;
    let about = about(spec, &session, &model, threads);
    Ok((
        dataset,
        Opened {
            model,
            task,
            session,
            about,
            threads,
        },
    ))
}

/// The resolved recipe, and the task that model and dataset share, fitted to what the model reads. The model is gone when the data are
/// read.
fn probe(
    spec: &RunSpec,
    library: &Library,
    datasets: &Library,
    request: &ModelRequest,
) -> Result<(Recipe, Arc<dyn Task>), RunnerError> {
    let model = library.open_model(request)?;
    let offered = datasets
        .descriptor
        .datasets
        .iter()
        .find(|d| d.name == spec.config.dataset.name);
    let offered = offered.map(|d| d.tasks.clone()).unwrap_or_default();
    let name = model
        .descriptor()
        .tasks
        .iter()
        .find(|t| offered.contains(t))
        .cloned()
        .unwrap_or_default();
    let task = configure(&name, &spec.config.task, &|field| model.input_width(field))
        .map_err(RunnerError::Config)?;
    Ok((model.instance().recipe.clone(), task))
}

/// The dataset, told of the task.
fn open_dataset(
    spec: &RunSpec,
    library: &Library,
    task: &dyn Task,
    threads: u64,
) -> Result<LoadedDataset, RunnerError> {
    let (wanted, name) = (&spec.config.dataset, task.name());
    let mut settings = task.settings();
    settings.insert("name".into(), name.into());
    let request = DatasetRequest {
        dataset: wanted.name.clone(),
        options: serde_json::to_string(&wanted.options).map_err(failed)?,
        seed: SPLIT_SEED,
        threads,
        task: serde_json::to_string(&settings).map_err(failed)?,
    };
    let dataset = library.open_dataset(&request)?;
    if !dataset.descriptor().tasks.iter().any(|task| task == name) {
        let serves = dataset.descriptor().tasks.join(", ");
        return Err(RunnerError::Config(format!(
            "dataset {} opened here serves {serves}, the run needs {name}",
            dataset.descriptor().name
        )));
    }
    Ok(dataset)
}

fn open_library(path: &Path, sha256: &str) -> Result<Library, RunnerError> {
    let library = Library::open(path)?;
    if library.sha256 != sha256 {
        return Err(RunnerError::Conflict(format!(
            "plugin file {} changed since the run was planned; use another --out to measure the new one",
            path.display()
        )));
    }
    Ok(library)
}

fn session_config(
    spec: &RunSpec,
    seed: Seed,
    train_samples: Vec<u64>,
    total_steps: u64,
    batch_size: usize,
    task: &dyn Task,
    model: &LoadedModel,
) -> Result<SessionConfig, RunnerError> {
    let measure = &spec.config.measure;
    let bad = |e: CoreError| RunnerError::Config(e.to_string());
    let mut weights = Vec::new();
    for name in &measure.weights {
        let kind = [Weights::Raw, Weights::Ema]
            .into_iter()
            .find(|w| w.name() == name);
        let kind = kind.ok_or_else(|| {
            RunnerError::Config(format!(
                "measure.weights: \"{name}\" is not known; use raw, ema"
            ))
        })?;
        if model.instance().weights.iter().any(|w| w == kind.name()) && !weights.contains(&kind) {
            weights.push(kind);
        }
    }
    if weights.is_empty() {
        return Err(RunnerError::Config("measure.weights leaves nothing to measure: the recipe keeps no moving average; use raw".into()));
    }
    Ok(SessionConfig {
        flow_times: flow_times(&measure.flow_times, task),
        variants: variants(&measure.variants, task, model)?,
        seed,
        total_steps,
        batch_size,
        train_samples,
        points_per_decade: measure.points_per_decade,
        split: measure.split.clone(),
        samples: measure.samples as usize,
        evaluation_batch: measure.batch_size as usize,
        scheme: Scheme::parse(&measure.scheme).map_err(bad)?,
        estimator: Estimator::parse(&measure.estimator).map_err(bad)?,
        loss: PointLoss::parse(&measure.loss).map_err(bad)?,
        weights,
        sharing: measure.sharing,
        checkpoint_every: spec.config.run.checkpoint_every_steps,
    })
}

/// Those asked for, without repeats, or the task's own; a task without has one condition.
fn flow_times(asked: &[f64], task: &dyn Task) -> Vec<Option<f64>> {
    if task.flow_times().is_empty() {
        return vec![None];
    }
    let mut times: Vec<Option<f64>> = Vec::new();
    for &time in if asked.is_empty() {
        task.flow_times()
    } else {
        asked
    } {
        if !times.contains(&Some(time)) {
            times.push(Some(time));
        }
    }
    times
}

/// Those asked for, or all that task and model know.
fn variants(
    asked: &[String],
    task: &dyn Task,
    model: &LoadedModel,
) -> Result<Vec<Variant>, RunnerError> {
    let instance = model.instance();
    let understood = task
        .feed_back_capability()
        .is_some_and(|needed| instance.capabilities.iter().any(|c| c == needed));
    let asked = asked
        .iter()
        .map(|name| Variant::parse(name))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| RunnerError::Config(e.to_string()))?;
    if asked.contains(&Variant::SelfConditioned) && !understood {
        return Err(RunnerError::Config(format!(
            "measure.variants asks for self-conditioned predictions; model {} on task {} has none; use [\"plain\"] or leave it out",
            instance.model,
            task.name()
        )));
    }
    let wanted = |v: &Variant| {
        if asked.is_empty() {
            *v == Variant::Plain || understood
        } else {
            asked.contains(v)
        }
    };
    Ok(Variant::ALL.into_iter().filter(wanted).collect())
}

fn about(spec: &RunSpec, session: &SessionConfig, model: &LoadedModel, threads: u64) -> About {
    let instance = model.instance();
    let parameters = instance
        .groups
        .iter()
        .find(|g| g.name == "all")
        .map_or(0, |g| g.scalars);
    About {
        device: instance.device.clone(),
        is_gpu: instance.device.starts_with("cuda"),
        precision: if instance.training_precision.is_empty() {
            &instance.precision
        } else {
            &instance.training_precision
        }
        .clone(),
        threads,
        parameters,
        batch_size: session.batch_size as u64,
        scheme: session.scheme.name(),
        rotations: session.scheme.plan(session.seed, 0).rotations.len() as u64,
        estimator: match (session.scheme.is_sampled(), session.loss) {
            (false, _) => "exact".into(),
            (true, PointLoss::Mse) => spec.config.measure.estimator.clone(),
            // For other convex losses no unbiased estimate is known: l(μ̂, y) is a plug-in.
            (true, _) => Estimator::PlugIn.name().into(),
        },
        loss: session.loss.name().into(),
    }
}

fn manifest(spec: &RunSpec, opened: &Opened, dataset: &LoadedDataset) -> RunManifest {
    let data = dataset.descriptor();
    let instance = opened.model.instance();
    RunManifest {
        run: spec.id.clone(),
        status: State::Running.name().into(),
        reason: String::new(),
        device: instance.device.clone(),
        threads: opened.threads,
        parameters: opened.about.parameters,
        recipe: json(&instance.recipe),
        model_config: instance.config.clone(),
        task: json(&serde_json::json!({ opened.task.name(): opened.task.settings() })),
        config: json(&spec.config),
        total_steps: opened.session.total_steps,
        data: DataFacts {
            name: data.name.clone(),
            source: data.source.clone(),
            licence: data.licence.clone(),
            level_of_theory: data.level_of_theory.clone(),
            content_hash: data.content_hash.clone(),
            splits: data
                .splits
                .iter()
                .map(|s| (s.name.clone(), s.samples))
                .collect(),
            normalisers: data
                .normalisers
                .iter()
                .map(|(k, n)| (k.clone(), [n.mean, n.scale]))
                .collect(),
            checks: data
                .checks
                .iter()
                .map(|c| {
                    format!(
                        "{}: {} {} ({}) {}",
                        c.name,
                        c.value,
                        c.unit,
                        if c.passed { "passed" } else { NOT_PASSED },
                        c.about
                    )
                })
                .collect(),
        },
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Tables, progress and checkpoints of a run.
struct Watch<'a> {
    dir: &'a RunDir,
    spec: &'a RunSpec,
    rows: Rows,
    keeper: Keeper,
    data_hash: String,
    stop: &'a AtomicBool,
    started: Instant,
    written: Option<Instant>,
    beat: u64,
    last: Progress,
    why_stopped: String,
    pool: Option<u32>,
}

/// The tables of a run.
struct Rows {
    keys: RunKeys,
    writers: BTreeMap<&'static str, TableWriter>,
}

impl Sink for Rows {
    fn row(&mut self, table: &'static Table, cells: Vec<Cell>) -> Result<(), CoreError> {
        let writer = self
            .writers
            .get_mut(table.name)
            .ok_or_else(|| CoreError::Sink(format!("{} was not opened", table.name)))?;
        writer
            .row(&self.keys, &cells)
            .map_err(|e| CoreError::Sink(e.to_string()))
    }
}

impl<'a> Watch<'a> {
    fn new(
        dir: &'a RunDir,
        spec: &'a RunSpec,
        keys: RunKeys,
        data_hash: String,
        stop: &'a AtomicBool,
        covered: &BTreeMap<String, u64>,
    ) -> Result<Self, RunnerError> {
        let asked = |t: &&'static Table| {
            spec.protocols
                .iter()
                .filter_map(|p| protocol_by_name(p))
                .any(|p| p.tables.iter().any(|own| own.name == t.name))
        };
        let writers = tables().into_iter().filter(asked).map(|t| {
            let bytes = covered.get(t.name).copied().unwrap_or(0);
            Ok((t.name, TableWriter::open(dir.path(), t, bytes)?))
        });
        Ok(Self {
            dir,
            spec,
            rows: Rows {
                keys,
                writers: writers.collect::<Result<_, RunnerError>>()?,
            },
            keeper: Keeper::new(&dir.checkpoints()),
            data_hash,
            stop,
            started: Instant::now(),
            written: None,
            beat: 0,
            last: Progress::default(),
            why_stopped: String::new(),
            pool: std::env::var(POOL_VARIABLE)
                .ok()
                .and_then(|p| p.parse().ok()),
        })
    }

    fn write_progress(&mut self, phase: &str) {
        self.beat += 1;
        self.dir.set_progress(&ProgressFile {
            step: self.last.step,
            total: self.last.total,
            loss: self.last.loss,
            percent: self.last.percent,
            phase: phase.into(),
            beat: self.beat,
        });
        self.written = Some(Instant::now());
    }

    fn sync(&self) -> Result<(), RunnerError> {
        Ok(self.rows.writers.values().try_for_each(TableWriter::sync)?)
    }

    fn reason_to_stop(&self) -> Option<String> {
        let limit = self.spec.config.run.time_limit_s;
        if self.stop.load(Ordering::Relaxed) || self.dir.path().join(STOP_FILE).exists() {
            return Some("stopped on request; continue with --resume".into());
        }
        if limit > 0 && self.started.elapsed() > Duration::from_secs(limit) {
            return Some(format!(
                "stopped by run.time_limit_s = {limit}; raise it and continue with --resume"
            ));
        }
        #[cfg(unix)]
        if self
            .pool
            .is_some_and(|pool| std::os::unix::process::parent_id() != pool)
        {
            return Some(
                "the process that started this run is gone; continue with --resume".into(),
            );
        }
        None
    }
}

impl Observer for Watch<'_> {
    fn progress(&mut self, progress: &Progress) {
        self.last = *progress;
        if self
            .written
            .is_none_or(|t| t.elapsed() > Duration::from_millis(200))
        {
            self.write_progress(if progress.measuring {
                "measuring"
            } else {
                "training"
            });
        }
    }

    fn should_stop(&mut self) -> bool {
        match self.reason_to_stop() {
            Some(reason) => {
                self.why_stopped = reason;
                true
            }
            None => false,
        }
    }

    fn checkpoint(&mut self, state: &SessionState, model: &dyn Model) -> Result<(), CoreError> {
        let kept = |e: RunnerError| CoreError::Sink(e.to_string());
        // The one before is written first: a third copy of a large state might not fit.
        self.keeper.finish().map_err(kept)?;
        let checkpoint = Checkpoint {
            run: self.spec.id.clone(),
            data_hash: self.data_hash.clone(),
            session: state.clone(),
            covered: self
                .rows
                .writers
                .iter()
                .map(|(name, w)| ((*name).into(), w.bytes()))
                .collect(),
            model: model.save()?,
        };
        let tables = self
            .rows
            .writers
            .values()
            .map(TableWriter::to_sync)
            .collect::<Result<_, _>>();
        self.keeper
            .keep(checkpoint, tables.map_err(|e| kept(e.into()))?)
            .map_err(kept)
    }

    fn sink(&mut self) -> &mut dyn Sink {
        &mut self.rows
    }
}
