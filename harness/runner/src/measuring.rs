//! Measures a kept checkpoint of a run: other protocols, other rotations, more samples, double precision. Rows go to a folder of their
//! own under the run, `measured/STEP-HASH/`; what is finished there is never touched again.

use crate::{
    RunnerError,
    checkpoint::{self, Checkpoint},
    config::{KeptStep, RunConfig},
    opening::{Opened, failed, manifest, open},
    plan::{check, resolve_protocols},
    run_dir::{RunDir, RunSpec, State, Status},
    suite::override_config,
    watch::{RunTables, Watch},
    worker::{accept, clock},
};
use equivbench_core::{Model, Scheme, Weights};
use equivbench_host::LoadedModel;
use equivbench_protocols::{
    Session, SessionError, SessionState, Source, measure_once, protocol_by_name,
};
use equivbench_report::header;
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, sync::atomic::AtomicBool};

/// What is asked of a checkpoint.
#[derive(Clone, Debug)]
pub struct MeasureRequest {
    /// Which checkpoint.
    pub at: KeptStep,
    /// Protocols by name, or `all`; empty for those of the run.
    pub protocols: Vec<String>,
    /// Settings that differ from the run's: keys of `measure` and `protocols`, `run.precision = f64`, `run.device`, `run.threads`.
    pub overrides: Vec<(String, toml::Value)>,
}

/// Measures a checkpoint of a run and returns the folder with the tables.
///
/// # Errors
/// No such checkpoint, a setting that would change the training, whatever makes a run fail, or a request to stop.
pub fn measure_checkpoint(
    dir: &RunDir,
    request: &MeasureRequest,
    stop: &AtomicBool,
) -> Result<RunDir, RunnerError> {
    let trained = dir.spec()?;
    let saved = checkpoint_of(dir, &trained, &request.at)?;
    let spec = measured_spec(&trained, request)?;
    let name = format!("{}-{}", saved.session.step, hash(&spec));
    let out = RunDir::at(dir.measured().join(name));
    std::fs::create_dir_all(out.path()).map_err(RunnerError::io(out.path()))?;
    // Whoever comes second waits here, and finds what the first one wrote.
    let _lock = out.lock()?;
    if out.status().state == State::Finished {
        return Ok(out);
    }
    out.create(&spec)?;
    let step = saved.session.step;
    let measured = measure(&trained, &spec, saved, &out, stop);
    let (state, reason) = match &measured {
        Ok(_) => (State::Finished, String::new()),
        Err(RunnerError::Stopped) => (State::Interrupted, "stopped on request".into()),
        Err(error) => (State::Failed, error.to_string()),
    };
    out.set_status(&Status {
        state,
        reason,
        step,
        tables: measured.as_ref().cloned().unwrap_or_default(),
        ..Status::default()
    })?;
    measured.map(|_| out)
}

fn checkpoint_of(dir: &RunDir, spec: &RunSpec, at: &KeptStep) -> Result<Checkpoint, RunnerError> {
    let total = dir
        .manifest()
        .map_or(spec.config.train.steps, |m| m.total_steps);
    let step = match at {
        KeptStep::Step(step) => *step,
        named => named
            .of(total)
            .map_err(|e| RunnerError::Config(e.replace("run.keep_checkpoints", "--at")))?,
    };
    checkpoint::at(&dir.checkpoints(), step)
}

/// The specification of a run with what is to be measured differently.
fn measured_spec(trained: &RunSpec, request: &MeasureRequest) -> Result<RunSpec, RunnerError> {
    let own = ["run.precision", "run.device", "run.threads"];
    for (key, value) in &request.overrides {
        if key == "run.precision" && value.as_str() != Some("f64") {
            return Err(RunnerError::Config(format!(
                "run.precision = {value}: a checkpoint is measured in the precision of its run, or in f64"
            )));
        }
        let is_free = key.starts_with("measure.") || key.starts_with("protocols.");
        if !is_free && !own.contains(&key.as_str()) {
            return Err(RunnerError::Config(format!(
                "--set {key}: this belongs to the training, which is over; a measurement can set keys of measure and protocols, {}",
                own.join(", ")
            )));
        }
    }
    let mut config: RunConfig = override_config(&trained.config, &request.overrides)?;
    check(&config).map_err(RunnerError::Config)?;
    Scheme::parse(&config.measure.scheme)
        .map_err(|e| RunnerError::Config(format!("measure.scheme: {e}")))?;
    let protocols = protocols(trained, &request.protocols)?;
    config
        .protocols
        .retain(|name, _| protocols.iter().any(|p| p == name));
    Ok(RunSpec {
        protocols,
        config,
        ..trained.clone()
    })
}

/// Those asked for, or those of the run: of either, those that can say something about one moment.
fn protocols(trained: &RunSpec, asked: &[String]) -> Result<Vec<String>, RunnerError> {
    let follows = |name: &String| protocol_by_name(name).is_some_and(|p| p.follows_a_run);
    if asked.is_empty() || asked.iter().any(|name| name == "all") {
        let mut own = match asked.is_empty() {
            true => trained.protocols.clone(),
            false => resolve_protocols(asked)?,
        };
        own.retain(|name| !follows(name));
        return Ok(own);
    }
    match asked.iter().find(|name| follows(name)) {
        None => resolve_protocols(asked),
        Some(name) => Err(RunnerError::Config(format!(
            "protocol {name} follows a run from its beginning; it has nothing to say about one checkpoint"
        ))),
    }
}

/// A name for what is measured: everything that can change a row.
fn hash(spec: &RunSpec) -> String {
    let pinned = serde_json::json!({
        "measure": spec.config.measure,
        "protocols": [serde_json::json!(spec.protocols), serde_json::json!(spec.config.protocols)],
        "precision": spec.config.run.precision,
        "device": spec.config.run.device,
    });
    let digest = Sha256::digest(pinned.to_string().as_bytes());
    digest.iter().take(5).map(|b| format!("{b:02x}")).collect()
}

type Extents = std::collections::BTreeMap<String, equivbench_report::Extent>;

fn measure(
    trained: &RunSpec,
    spec: &RunSpec,
    saved: Checkpoint,
    out: &RunDir,
    stop: &AtomicBool,
) -> Result<Extents, RunnerError> {
    // The state is of the precision that was trained in.
    let mut as_trained = spec.clone();
    as_trained
        .config
        .run
        .precision
        .clone_from(&trained.config.run.precision);
    let (mut dataset, mut opened) = open(&as_trained)?;
    let saved = accept(saved, trained, &dataset.descriptor().content_hash)?;
    Model::load(&mut opened.model, &saved.model).map_err(failed)?;
    let mut double = in_double(trained, spec, &mut opened)?;
    out.set_manifest(&manifest(spec, &opened, &dataset))?;
    let keys = opened.keys(trained, &dataset);
    let tables = RunTables::open(out.path(), &spec.protocols, keys, &Extents::new())?;
    let data_hash = dataset.descriptor().content_hash.clone();
    let mut observer = Watch::new(out, spec, tables, data_hash, stop, BTreeSet::new());
    let protocols = opened.start_protocols(spec)?;
    let (clock, source) = (clock(spec), Source::new(&mut dataset));
    let model: &mut dyn Model = match &mut double {
        Some(model) => model,
        None => &mut opened.model,
    };
    let (config, about) = (opened.session, opened.about);
    let mut session = Session::new(
        config,
        about,
        model,
        &source,
        opened.task,
        &*clock,
        protocols,
    )
    .map_err(failed)?;
    session
        .restore(state_for(
            &spec.protocols,
            &trained.protocols,
            saved.session,
        ))
        .map_err(failed)?;
    measure_once(&mut session, &mut observer).map_err(|error| match error {
        SessionError::At {
            source: equivbench_core::CoreError::Stopped,
            ..
        } => RunnerError::Stopped,
        other => failed(other),
    })?;
    observer.tables.sync()?;
    without_empty(out, spec, observer.tables.extents())
}

/// A second instance with the trained parameters, exactly, where double precision is asked for and was not trained in. Of averaged
/// weights nothing crosses the boundary, so the raw ones are measured.
fn in_double(
    trained: &RunSpec,
    spec: &RunSpec,
    opened: &mut Opened,
) -> Result<Option<LoadedModel>, RunnerError> {
    if spec.config.run.precision == trained.config.run.precision {
        return Ok(None);
    }
    let mut model = opened.in_double(spec)?;
    let mut parameters = Vec::new();
    opened
        .model
        .parameters_into("all", &mut parameters)
        .map_err(failed)?;
    model.set_parameters("all", &parameters).map_err(failed)?;
    opened
        .session
        .measuring
        .weights
        .retain(|w| *w == Weights::Raw);
    if opened.session.measuring.weights.is_empty() {
        return Err(RunnerError::Config(
            "in f64 a checkpoint is measured with its raw weights only; add \"raw\" to measure.weights".into(),
        ));
    }
    Ok(Some(model))
}

/// The state of a session with the states of these protocols, where the run asked them too.
fn state_for(wanted: &[String], kept: &[String], state: SessionState) -> SessionState {
    let of = |name: &String| {
        let at = kept.iter().position(|k| k == name)?;
        state.protocols.get(at).cloned()
    };
    SessionState {
        protocols: wanted
            .iter()
            .map(|name| of(name).unwrap_or_default())
            .collect(),
        ..state
    }
}

/// Removes the tables of protocols that had nothing to say of one moment.
fn without_empty(
    out: &RunDir,
    spec: &RunSpec,
    mut extents: Extents,
) -> Result<Extents, RunnerError> {
    for table in equivbench_protocols::tables_of(&spec.protocols) {
        let empty = header(&table).join(",").len() as u64 + 1;
        if extents.get(table.name).is_some_and(|e| e.bytes == empty) {
            let path = out.path().join(format!("{}.csv", table.name));
            std::fs::remove_file(&path).map_err(RunnerError::io(&path))?;
            extents.remove(table.name);
        }
    }
    Ok(extents)
}
