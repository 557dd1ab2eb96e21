//! Checkpoints are written beside the training: the state is copied, then a thread forces rows to the disk, hashes and writes.

use crate::{
    RunnerError,
    checkpoint::{self, Checkpoint},
};
use equivbench_report::TableSync;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    thread::JoinHandle,
};

/// Writes checkpoints into a folder, one after the other.
pub struct Keeper {
    folder: PathBuf,
    /// Steps whose checkpoints stay.
    stay: BTreeSet<u64>,
    writing: Option<JoinHandle<Result<(), RunnerError>>>,
}

impl Keeper {
    /// A keeper of checkpoints in this folder; those of some steps stay.
    #[must_use]
    pub fn new(folder: &Path, stay: BTreeSet<u64>) -> Self {
        Self {
            folder: folder.to_owned(),
            stay,
            writing: None,
        }
    }

    /// Begins to write a checkpoint, after the rows that it covers; waits for the one before.
    ///
    /// # Errors
    /// What happened to the one before.
    pub fn keep(
        &mut self,
        checkpoint: Checkpoint,
        tables: Vec<TableSync>,
    ) -> Result<(), RunnerError> {
        self.finish()?;
        let (folder, stay) = (self.folder.clone(), self.stay.clone());
        self.writing = Some(std::thread::spawn(move || {
            // Rows reach the disk before the checkpoint that covers them.
            tables.iter().try_for_each(TableSync::sync)?;
            checkpoint::save(&folder, &checkpoint, &stay)
        }));
        Ok(())
    }

    /// Waits until the last checkpoint is on the disk.
    ///
    /// # Errors
    /// No space, no permission.
    pub fn finish(&mut self) -> Result<(), RunnerError> {
        let Some(thread) = self.writing.take() else {
            return Ok(());
        };
        thread.join().unwrap_or_else(|_| {
            Err(RunnerError::Run(
                "the thread that writes checkpoints panicked".into(),
            ))
        })
    }
}

impl Drop for Keeper {
    /// A run that failed keeps the checkpoint that was under way.
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!("{error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use equivbench_protocols::SessionState;

    fn at(step: u64) -> Checkpoint {
        let session = SessionState {
            step,
            ..SessionState::default()
        };
        Checkpoint {
            run: "r".into(),
            data_hash: "d".into(),
            session,
            covered: Default::default(),
            model: vec![7; 1 << 20],
        }
    }

    #[test]
    fn checkpoints_are_whole_in_order_and_there_when_it_has_finished() {
        let folder = tempfile::tempdir().unwrap();
        let mut keeper = Keeper::new(folder.path(), BTreeSet::new());
        for step in 1..=5 {
            keeper.keep(at(step), Vec::new()).unwrap();
        }
        keeper.finish().unwrap();
        let (newest, damaged) = checkpoint::newest(folder.path()).unwrap();
        assert_eq!((newest, damaged.len()), (Some(at(5)), 0));
    }

    #[test]
    fn a_checkpoint_that_could_not_be_written_is_told_of_by_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "in the way").unwrap();
        let mut keeper = Keeper::new(&file, BTreeSet::new());
        keeper.keep(at(1), Vec::new()).unwrap();
        let error = keeper.keep(at(2), Vec::new()).unwrap_err();
        assert!(error.to_string().contains("file"), "{error}");
    }
}
