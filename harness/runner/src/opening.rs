//! From a run's specification to what a session needs: plugins opened, the task fitted, training samples drawn.

use crate::{
    RunnerError,
    config::MeasureConfig,
    identity::check_data,
    plan::configure,
    run_dir::{RunSpec, State},
};
use equivbench_core::{
    Condition, CoreError, Dataset, Estimator, Model, PointLoss, Seed, Task, Weights, conditions_of,
};
use equivbench_host::{
    Library, LoadedDataset, LoadedModel,
    descriptor::{DatasetRequest, ModelRequest, Recipe},
};
use equivbench_protocols::{
    About, Measuring, Observer, OpenDouble, Outcome, Running, SampleSet, Schedule, Session,
    SessionConfig, SetName, Training, evaluation_steps, protocol_by_name,
};
use equivbench_report::{DataFacts, NOT_PASSED, RunKeys, RunManifest};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Name of the environment variable with the threads a worker may use, where the run does not say.
pub(crate) const THREADS_VARIABLE: &str = "EQUIVBENCH_THREADS";

/// Splits do not follow the seed of a run, so that runs of different seeds are measured on the same molecules.
const SPLIT_SEED: u64 = 0;

/// Everything a session needs that depends on the plugins.
pub(crate) struct Opened {
    pub(crate) model: LoadedModel,
    pub(crate) task: Arc<dyn Task>,
    pub(crate) session: SessionConfig,
    pub(crate) about: About,
    threads: u64,
    /// What the model was asked for, to open another instance of it.
    request: ModelRequest,
}

impl Opened {
    /// What opens another instance of the model, in double precision: its numbers cross the boundary in f64.
    pub(crate) fn double(&self, spec: &RunSpec) -> DoubleOpener {
        DoubleOpener {
            path: spec.model_library.clone(),
            sha256: spec.model_plugin.sha256.clone(),
            request: ModelRequest {
                precision: "f64".into(),
                ..self.request.clone()
            },
        }
    }

    /// The protocols of a run, started.
    ///
    /// # Errors
    /// A protocol of another version, or a setting that cannot be.
    pub(crate) fn start_protocols(
        &self,
        spec: &RunSpec,
    ) -> Result<Vec<Box<dyn Running>>, RunnerError> {
        let total = self.session.training.total_steps;
        let schedule = Arc::new(Schedule {
            steps: evaluation_steps(total, self.session.measuring.points_per_decade),
            total,
        });
        let start = |name: &String| {
            let info = protocol_by_name(name).ok_or_else(|| {
                RunnerError::Conflict(format!("protocol \"{name}\" is of another version"))
            })?;
            let settings = spec.config.protocols.get(name);
            let settings = settings
                .map(serde_json::to_value)
                .transpose()
                .map_err(failed)?;
            let settings = match settings {
                Some(serde_json::Value::Object(settings)) => settings,
                _ => serde_json::Map::new(),
            };
            let bad = |e: CoreError| RunnerError::Config(e.to_string());
            (info.start)(settings, Arc::clone(&schedule)).map_err(bad)
        };
        spec.protocols.iter().map(start).collect()
    }

    /// The key cells of the run.
    pub(crate) fn keys(&self, spec: &RunSpec, dataset: &LoadedDataset) -> RunKeys {
        RunKeys {
            run: spec.id.clone(),
            model: spec.config.model.name.clone(),
            size: spec.config.model.size.clone(),
            dataset: dataset.descriptor().name.clone(),
            train_samples: self.session.training.samples.len() as u64,
            settings: spec.settings.clone(),
            seed: spec.config.run.seed,
        }
    }
}

/// Opens a model in double precision.
pub(crate) struct DoubleOpener {
    path: PathBuf,
    sha256: String,
    request: ModelRequest,
}

impl DoubleOpener {
    /// A fresh instance.
    ///
    /// # Errors
    /// A file that changed, or what the plugin refuses.
    pub(crate) fn open(&self) -> Result<LoadedModel, RunnerError> {
        Ok(open_library(&self.path, &self.sha256)?.open_model(&self.request)?)
    }

    /// As protocols ask for it.
    pub(crate) fn for_protocols(self) -> OpenDouble<'static> {
        Box::new(move || match self.open() {
            Ok(model) => Ok(Box::new(model) as Box<dyn Model>),
            Err(error) => Err(CoreError::Model(error.to_string())),
        })
    }
}

pub(crate) fn failed(error: impl std::fmt::Display) -> RunnerError {
    RunnerError::Run(error.to_string())
}

/// Opens the plugins of a run and works out its session.
///
/// # Errors
/// A plugin that changed, is not there or refuses; a setting that cannot be.
pub(crate) fn open(spec: &RunSpec) -> Result<(LoadedDataset, Opened), RunnerError> {
    check_data(spec)?;
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
        kernels: config.run.kernels.clone(),
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
        train_samples,
        request.total_steps,
        recipe.batch_size as usize,
        &*task,
        &model,
        &dataset,
    )?;
    let about = about(&session, &model, threads);
    Ok((
        dataset,
        Opened {
            model,
            task,
            session,
            about,
            threads,
            request,
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
    train_samples: Vec<u64>,
    total_steps: u64,
    batch_size: usize,
    task: &dyn Task,
    model: &LoadedModel,
    dataset: &LoadedDataset,
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
    let conditions = conditions(spec, task, model)?;
    let scheme = measure.scheme_of(task).map_err(RunnerError::Config)?;
    task.check_scheme(&scheme)
        .map_err(|e| RunnerError::Config(format!("measure.scheme: {e}")))?;
    let training = &spec.config.run;
    let keep_checkpoints = training
        .keep_checkpoints
        .iter()
        .map(|kept| kept.of(total_steps));
    Ok(SessionConfig {
        seed: Seed::new(training.seed),
        training: Training {
            total_steps,
            batch_size,
            samples: train_samples,
            checkpoint_every: training.checkpoint_every_steps,
            keep_checkpoints: keep_checkpoints
                .collect::<Result<BTreeSet<_>, _>>()
                .map_err(RunnerError::Config)?,
        },
        measuring: Measuring {
            seed: Seed::new(measure.seed),
            points_per_decade: measure.points_per_decade,
            set: SampleSet {
                name: SetName::Measured,
                split: measure.split.clone(),
                samples: measure.samples as usize,
            },
            final_sets: final_sets(measure, dataset)?,
            batch_size: measure.batch_size as usize,
            scheme,
            estimator: Estimator::parse(&measure.estimator).map_err(bad)?,
            loss: PointLoss::parse(&measure.loss).map_err(bad)?,
            weights,
            sharing: measure.sharing,
            conditions,
        },
    })
}

/// What is measured after the last step besides the samples of the curves: the rest of their split, and the split for reporting.
///
/// # Errors
/// A split for reporting that was named and is not there. Data without the usual one are measured without it.
fn final_sets(
    measure: &MeasureConfig,
    dataset: &LoadedDataset,
) -> Result<Vec<SampleSet>, RunnerError> {
    let set = |name, split: &String, samples: u64| SampleSet {
        name,
        split: split.clone(),
        samples: samples as usize,
    };
    let available = dataset.samples(&measure.split) as u64;
    let whole = available.min(measure.whole_samples);
    let mut sets = Vec::new();
    // Where the curves are of the whole split already, their last evaluation says it.
    if whole > measure.samples.min(available) {
        sets.push(set(SetName::Whole, &measure.split, whole));
    }
    let reports = !measure.test_split.is_empty() && measure.test_split != measure.split;
    if reports && dataset.samples(&measure.test_split) > 0 {
        sets.push(set(SetName::Test, &measure.test_split, measure.samples));
    } else if reports && measure.test_split != MeasureConfig::default().test_split {
        let splits = dataset.descriptor().splits.iter();
        let known: Vec<&str> = splits.map(|split| split.name.as_str()).collect();
        return Err(RunnerError::Config(format!(
            "measure.test_split: \"{}\" is no split of {}; there are: {}. Leave it empty to report on none",
            measure.test_split,
            dataset.descriptor().name,
            known.join(", ")
        )));
    }
    Ok(sets)
}

/// The conditions asked for, or all that task and model know.
fn conditions(
    spec: &RunSpec,
    task: &dyn Task,
    model: &LoadedModel,
) -> Result<Vec<Condition>, RunnerError> {
    let instance = model.instance();
    let has = |capability: &str| instance.capabilities.iter().any(|c| c == capability);
    let setting = |key: &str| spec.config.measure.axis(key);
    conditions_of(task, &setting, &has).map_err(|e| {
        RunnerError::Config(format!(
            "{e} (model {}, task {})",
            instance.model,
            task.name()
        ))
    })
}

fn about(session: &SessionConfig, model: &LoadedModel, threads: u64) -> About {
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
        batch_size: session.training.batch_size as u64,
        measure_seed: session.measuring.seed.value(),
        scheme: session.measuring.scheme.name(),
        rotations: session.measuring.scheme.rotations() as u64,
        estimator: session
            .measuring
            .estimator
            .named_for(&session.measuring.scheme, session.measuring.loss)
            .into(),
        loss: session.measuring.loss.name().into(),
    }
}

/// Settles the rotation scheme of a session where it is the model's to choose: as it was chosen before, or now. Asked to stop meanwhile,
/// it chooses none.
///
/// # Errors
/// What data or model report.
pub(crate) fn settle_scheme(
    spec: &RunSpec,
    session: &mut Session<'_>,
    observer: &mut dyn Observer,
) -> Result<Outcome, RunnerError> {
    if !spec.config.measure.is_scheme_chosen() {
        return Ok(Outcome::Finished);
    }
    if let Some(before) = session.chosen_scheme().cloned() {
        session.use_scheme(before).map_err(failed)?;
        return Ok(Outcome::Finished);
    }
    let outcome = session.choose_scheme(observer).map_err(failed)?;
    if let Some(choice) = session.chosen_scheme() {
        tracing::info!("measure.scheme = auto: {}: {}", choice.scheme, choice.why);
    }
    Ok(outcome)
}

/// What the manifest adds once there is a session: what skill is measured against, and which scheme was chosen, and why.
pub(crate) fn with_session(listed: RunManifest, session: &Session<'_>) -> RunManifest {
    let chosen = session.chosen_scheme();
    let scheme = chosen.map(|choice| format!("{}, chosen: {}", choice.scheme, choice.why));
    RunManifest {
        baseline: session.baseline(),
        scheme: scheme.unwrap_or_else(|| listed.scheme.clone()),
        ..listed
    }
}

/// What a table cannot say of the run. The session, once there is one, adds what skill is measured against.
pub(crate) fn manifest(spec: &RunSpec, opened: &Opened, dataset: &LoadedDataset) -> RunManifest {
    let data = dataset.descriptor();
    let instance = opened.model.instance();
    RunManifest {
        run: spec.id.clone(),
        status: State::Running.name().into(),
        reason: String::new(),
        program_sha256: spec.program_sha256.clone(),
        device: instance.device.clone(),
        kernels: instance.kernels.clone(),
        matrix_products: instance.matrix_products.clone(),
        processor_flags: instance.processor_flags.clone(),
        threads: opened.threads,
        parameters: opened.about.parameters,
        recipe: json(&instance.recipe),
        model_config: instance.config.clone(),
        task: json(&serde_json::json!({ opened.task.name(): opened.task.settings() })),
        config: json(&spec.config),
        total_steps: opened.session.training.total_steps,
        baseline: String::new(),
        scheme: opened.about.scheme.clone(),
        measurements: Vec::new(),
        data: DataFacts {
            name: data.name.clone(),
            source: data.source.clone(),
            files: spec.data_files.clone(),
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
