//! Measures a kept checkpoint of a run: other protocols, other rotations, more samples, double precision. Rows go to a folder of their
//! own under the run, `measured/STEP-HASH/`; what is finished there is never touched again.

use crate::{
    RunnerError,
    checkpoint::{self, Checkpoint},
    identity::program_sha256,
    opening::{Opened, failed, manifest, open, settle_scheme, with_session},
    request::{MeasureRequest, Trained},
    run_dir::{RunDir, RunSpec, State, Status},
    watch::{RunTables, Watch},
    worker::{accept, clock},
};
use equivbench_core::{Model, Weights};
use equivbench_host::{Library, LoadedModel, sha256_of};
use equivbench_protocols::{Outcome, Session, SessionError, SessionState, Source, measure_once};
use equivbench_report::{PluginFacts, header};
use sha2::{Digest, Sha256};
use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool};

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
    let total_steps = dir
        .manifest()
        .map_or(trained.config.train.steps, |m| m.total_steps);
    let step = request.at.of(total_steps);
    let step = step.map_err(|e| RunnerError::Config(e.replace("run.keep_checkpoints", "--at")))?;
    let saved = checkpoint::at(&dir.checkpoints(), step)?;
    let spec = measured_spec(dir, &trained, total_steps, request)?;
    let name = format!("{step}-{}", hash(&spec));
    let out = RunDir::at(dir.measured().join(name));
    std::fs::create_dir_all(out.path()).map_err(RunnerError::io(out.path()))?;
    // Whoever comes second waits here, and finds what the first one wrote.
    let _lock = out.lock()?;
    if out.status().state == State::Finished {
        return Ok(out);
    }
    out.create(&spec)?;
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

/// The specification of a run with what is to be measured differently.
fn measured_spec(
    dir: &RunDir,
    trained: &RunSpec,
    total_steps: u64,
    request: &MeasureRequest,
) -> Result<RunSpec, RunnerError> {
    let model = plugin_of(
        dir,
        "model_library",
        &trained.model_library,
        &trained.model_plugin,
    )?;
    let dataset = plugin_of(
        dir,
        "dataset_library",
        &trained.dataset_library,
        &trained.dataset_plugin,
    )?;
    let trained = Trained {
        spec: trained,
        total_steps,
        model: &model.descriptor,
        dataset: &dataset.descriptor,
    };
    // Rows that another build adds to a run are told apart by the name of their measurement, and in the manifest.
    Ok(RunSpec {
        program_sha256: program_sha256()?.into(),
        ..trained.measured(request)?
    })
}

/// A plugin that the run was trained with.
///
/// # Errors
/// A file that is not where it was, or is another build: says which one is needed, and what to do.
fn plugin_of(
    dir: &RunDir,
    key: &str,
    path: &Path,
    facts: &PluginFacts,
) -> Result<Library, RunnerError> {
    let what = if !path.is_file() {
        "is not there any more"
    } else if sha256_of(path).map_err(RunnerError::io(path))? != facts.sha256 {
        "is another build than the one that the run was trained with"
    } else {
        return Ok(Library::open(path)?);
    };
    Err(RunnerError::Conflict(format!(
        "plugin file {} {what}: a checkpoint is measured with the file that wrote it, {} {} with SHA-256 {}. Put it back, or write into {} where it lies now ({key} = \"...\"); where it is lost, train again",
        path.display(),
        facts.name,
        facts.version,
        facts.sha256,
        dir.path().join("run.toml").display(),
    )))
}

/// A name for what is measured: everything that can change a row.
fn hash(spec: &RunSpec) -> String {
    let pinned = serde_json::json!({
        "measure": spec.config.measure,
        "protocols": [serde_json::json!(spec.protocols), serde_json::json!(spec.config.protocols)],
        "precision": spec.config.run.precision,
        "device": spec.config.run.device,
        "program": spec.program_sha256,
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
    let listed = manifest(spec, &opened, &dataset);
    out.set_manifest(&listed)?;
    let keys = opened.keys(trained, &dataset);
    let tables = RunTables::open(out.path(), &spec.protocols, keys, &Extents::new())?;
    let data_hash = dataset.descriptor().content_hash.clone();
    let mut observer = Watch::new(out, spec, tables, data_hash, stop, BTreeSet::new());
    let protocols = opened.start_protocols(spec)?;
    let (clock, source) = (clock(spec), Source::new(&mut dataset));
    let open_double = opened.double(spec).for_protocols();
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
    .map_err(failed)?
    .with_double(open_double);
    session
        .restore(state_for(
            &spec.protocols,
            &trained.protocols,
            saved.session,
        ))
        .map_err(failed)?;
    if settle_scheme(spec, &mut session, &mut observer)? == Outcome::Stopped {
        return Err(RunnerError::Stopped);
    }
    out.set_manifest(&with_session(listed, &session))?;
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
    let mut model = opened.double(spec).open()?;
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
