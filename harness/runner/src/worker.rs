//! Executes or resumes exactly one run directory. The same worker serves the local pool, a GPU and a Slurm array task.

use crate::{
    RunnerError,
    checkpoint::{self, Checkpoint},
    clock::{StepClock, SystemClock, peak_memory_bytes},
    identity::check_program,
    opening::{failed, manifest, open, settle_scheme, with_session},
    run_dir::{RunDir, RunSpec, State, Status},
    watch::{RunTables, STOP_FILE, Watch},
};
use equivbench_core::{Clock, Model};
use equivbench_protocols::{Outcome, Session, Source};
use equivbench_report::{Extent, RunManifest};
use std::{collections::BTreeMap, sync::atomic::AtomicBool};

/// How a run ended, and what its tables then hold.
struct Ended {
    state: State,
    reason: String,
    tables: BTreeMap<String, Extent>,
}

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
    let (state, reason, tables) = match &result {
        Ok(ended) => (ended.state, ended.reason.clone(), ended.tables.clone()),
        Err(error) => (State::Failed, error.to_string(), BTreeMap::new()),
    };
    dir.set_status(&Status {
        state,
        reason: reason.clone(),
        step,
        peak_memory_bytes: peak_memory_bytes("self"),
        tables,
    })?;
    if let Some(manifest) = dir.manifest() {
        dir.set_manifest(&RunManifest {
            status: state.name().into(),
            reason,
            ..manifest
        })?;
    }
    result.map(|ended| ended.state)
}

fn run(
    dir: &RunDir,
    spec: &RunSpec,
    stop: &AtomicBool,
    step: &mut u64,
) -> Result<Ended, RunnerError> {
    check_program(spec)?;
    let (mut dataset, mut opened) = open(spec)?;
    let keys = opened.keys(spec, &dataset);
    let listed = manifest(spec, &opened, &dataset);
    dir.set_manifest(&listed)?;
    let data_hash = dataset.descriptor().content_hash.clone();
    let saved = newest_checkpoint(dir, spec, &data_hash)?;
    if let Some(saved) = &saved {
        Model::load(&mut opened.model, &saved.model).map_err(failed)?;
        tracing::info!("continuing at step {}", saved.session.step);
    }
    let clock = clock(spec);
    let covered = saved
        .as_ref()
        .map(|c| c.covered.clone())
        .unwrap_or_default();
    let tables = RunTables::open(dir.path(), &spec.protocols, keys, &covered)?;
    let stay = opened.session.training.keep_checkpoints.clone();
    let mut observer = Watch::new(dir, spec, tables, data_hash, stop, stay);
    let protocols = opened.start_protocols(spec)?;
    observer.write_progress("loading");
    let source = Source::new(&mut dataset);
    let open_double = opened.double(spec).for_protocols();
    let mut session = Session::new(
        opened.session,
        opened.about,
        &mut opened.model,
        &source,
        opened.task,
        &*clock,
        protocols,
    )
    .map_err(failed)?
    .with_double(open_double);
    if let Some(saved) = saved {
        session.restore(saved.session).map_err(failed)?;
    }
    let settled = settle_scheme(spec, &mut session, &mut observer)?;
    dir.set_manifest(&with_session(listed, &session))?;
    let outcome = match settled {
        Outcome::Finished => session.run(&mut observer),
        // Nothing was done yet that a checkpoint could keep.
        Outcome::Stopped => Ok(Outcome::Stopped),
    };
    *step = observer.last.step;
    let outcome = outcome.map_err(failed)?;
    observer.keeper.finish()?;
    observer.write_progress("done");
    let (state, reason) = match outcome {
        Outcome::Finished => {
            observer.tables.sync()?;
            (State::Finished, String::new())
        }
        Outcome::Stopped => (State::Interrupted, observer.why_stopped.clone()),
    };
    Ok(Ended {
        state,
        reason,
        tables: observer.tables.extents(),
    })
}

/// The newest whole checkpoint of this run; damaged ones are removed.
fn newest_checkpoint(
    dir: &RunDir,
    spec: &RunSpec,
    data_hash: &str,
) -> Result<Option<Checkpoint>, RunnerError> {
    let (found, damaged) = checkpoint::newest(&dir.checkpoints())?;
    for (path, what) in damaged {
        tracing::warn!("damaged checkpoint removed: {}: {what}", path.display());
        // Left where it is, it would count as the newest and push whole ones out.
        std::fs::remove_file(&path).map_err(RunnerError::io(&path))?;
    }
    found.map(|c| accept(c, spec, data_hash)).transpose()
}

/// The clock that a run asks for.
pub(crate) fn clock(spec: &RunSpec) -> Box<dyn Clock> {
    match spec.config.run.clock.as_str() {
        "steps" => Box::<StepClock>::default(),
        _ => Box::<SystemClock>::default(),
    }
}

/// A checkpoint of this run, on these data.
///
/// # Errors
/// One of another run or of other data.
pub(crate) fn accept(
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
