//! What a worker does for its session: tables, progress, checkpoints, and reasons to stop.

use crate::{
    RunnerError,
    checkpoint::Checkpoint,
    keeper::Keeper,
    run_dir::{ProgressFile, RunDir, RunSpec},
};
use equivbench_core::{Cell, CoreError, Model, Sink};
use equivbench_protocols::{Observer, Progress, SessionState, tables_of};
use equivbench_report::{Extent, RunKeys, TableWriter};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Name of the environment variable with the process id of the pool that started a worker: it stops when the pool is gone.
pub(crate) const POOL_VARIABLE: &str = "EQUIVBENCH_POOL";
/// A file of this name in a run directory asks its worker to stop.
pub(crate) const STOP_FILE: &str = "stop";

/// The tables of a run or of a measurement, open for rows.
pub(crate) struct RunTables {
    keys: RunKeys,
    writers: BTreeMap<&'static str, TableWriter>,
}

impl RunTables {
    /// Opens the tables of some protocols, cut back to what is covered.
    ///
    /// # Errors
    /// A table that cannot be opened, or was changed since.
    pub(crate) fn open(
        folder: &Path,
        protocols: &[String],
        keys: RunKeys,
        covered: &BTreeMap<String, Extent>,
    ) -> Result<Self, RunnerError> {
        let nothing = Extent::default();
        let writers = tables_of(protocols).into_iter().map(|table| {
            let covered = covered.get(table.name).unwrap_or(&nothing);
            Ok((table.name, TableWriter::open(folder, &table, covered)?))
        });
        Ok(Self {
            keys,
            writers: writers.collect::<Result<_, RunnerError>>()?,
        })
    }

    /// What was written into each.
    pub(crate) fn extents(&self) -> BTreeMap<String, Extent> {
        let extent = |(name, writer): (&&str, &TableWriter)| ((*name).to_owned(), writer.extent());
        self.writers.iter().map(extent).collect()
    }

    /// Forces all rows to the disk.
    ///
    /// # Errors
    /// A refusal of the file system.
    pub(crate) fn sync(&self) -> Result<(), RunnerError> {
        Ok(self.writers.values().try_for_each(TableWriter::sync)?)
    }
}

impl Sink for RunTables {
    fn row(&mut self, table: &'static str, cells: Vec<Cell>) -> Result<(), CoreError> {
        let writer = self
            .writers
            .get_mut(table)
            .ok_or_else(|| CoreError::Sink(format!("{table} was not opened")))?;
        writer
            .row(&self.keys, &cells)
            .map_err(|e| CoreError::Sink(e.to_string()))
    }
}

/// Tables, progress and checkpoints of a run.
pub(crate) struct Watch<'a> {
    dir: &'a RunDir,
    spec: &'a RunSpec,
    pub(crate) tables: RunTables,
    pub(crate) keeper: Keeper,
    data_hash: String,
    stop: &'a AtomicBool,
    started: Instant,
    written: Option<Instant>,
    beat: u64,
    pub(crate) last: Progress,
    pub(crate) why_stopped: String,
    pool: Option<u32>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(
        dir: &'a RunDir,
        spec: &'a RunSpec,
        tables: RunTables,
        data_hash: String,
        stop: &'a AtomicBool,
        stay: BTreeSet<u64>,
    ) -> Self {
        Self {
            dir,
            spec,
            tables,
            keeper: Keeper::new(&dir.checkpoints(), stay),
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
        }
    }

    pub(crate) fn write_progress(&mut self, phase: &str) {
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
            covered: self.tables.extents(),
            model: model.save()?,
        };
        let tables = self
            .tables
            .writers
            .values()
            .map(TableWriter::to_sync)
            .collect::<Result<_, _>>();
        self.keeper
            .keep(checkpoint, tables.map_err(|e| kept(e.into()))?)
            .map_err(kept)
    }

    fn sink(&mut self) -> &mut dyn Sink {
        &mut self.tables
    }
}
