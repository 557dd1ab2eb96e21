//! Says how far a long piece of work is, to whoever runs the plugin.

use equivbench_abi::{PROGRESS_VARIABLE, descriptor::LongWork};
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Time between two replacements of the file.
const EVERY: Duration = Duration::from_millis(200);
/// Beats of this process, whatever the piece of work.
static BEAT: AtomicU64 = AtomicU64::new(0);

/// A long piece of work, such as reading many files: a person sees how far it is and when it will end, and the harness sees that it
/// lives. Shared by threads. Silent when nobody asks; a failure to write costs the display only.
///
/// ```
/// let progress = equivbench_plugin::Progress::new("reading files", 2);
/// for _file in ["a.cif", "b.cif"] {
///     progress.add(1);
/// }
/// ```
#[derive(Debug)]
pub struct Progress {
    what: String,
    total: u64,
    done: AtomicU64,
    path: Option<PathBuf>,
    every: Duration,
    told: Mutex<Option<Instant>>,
}

impl Progress {
    /// Begins a piece of work of `total` pieces.
    #[must_use]
    pub fn new(what: &str, total: u64) -> Self {
        Self::into_file(
            std::env::var_os(PROGRESS_VARIABLE).map(Into::into),
            what,
            total,
            EVERY,
        )
    }

    fn into_file(path: Option<PathBuf>, what: &str, total: u64, every: Duration) -> Self {
        let progress = Self {
            what: what.into(),
            total,
            done: AtomicU64::new(0),
            path,
            every,
            told: Mutex::new(None),
        };
        progress.add(0);
        progress
    }

    /// Says that so many more pieces are done; cheap to call often.
    pub fn add(&self, pieces: u64) {
        let done = self.done.fetch_add(pieces, Ordering::Relaxed) + pieces;
        let Some(path) = &self.path else { return };
        // Whoever finds another thread at it leaves it to that one.
        let Ok(mut told) = self.told.try_lock() else {
            return;
        };
        if told.is_some_and(|t| t.elapsed() < self.every) {
            return;
        }
        *told = Some(Instant::now());
        let beat = BEAT.fetch_add(1, Ordering::Relaxed) + 1;
        let _ = replace(
            path,
            &LongWork {
                what: self.what.clone(),
                done,
                total: self.total,
                beat,
            },
        );
    }
}

/// Readers see the old content or the new.
fn replace(path: &Path, work: &LongWork) -> std::io::Result<()> {
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, serde_json::to_vec(work)?)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("equivbench-{name}-{}.json", std::process::id()))
    }

    fn read(path: &Path) -> LongWork {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn the_file_says_how_far_the_work_is_and_beats() {
        let path = file("progress");
        let progress = Progress::into_file(Some(path.clone()), "reading", 7, Duration::ZERO);
        let first = read(&path);
        assert_eq!(
            (first.what.as_str(), first.done, first.total),
            ("reading", 0, 7)
        );
        progress.add(2);
        let second = read(&path);
        assert_eq!(second.done, 2);
        assert!(second.beat > first.beat);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn nothing_is_told_again_too_soon() {
        let path = file("progress-too-soon");
        let progress = Progress::into_file(Some(path.clone()), "reading", 7, Duration::MAX);
        let first = read(&path);
        progress.add(1);
        assert_eq!(read(&path), first);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn nobody_who_asks_means_nothing_is_written() {
        let progress = Progress::into_file(None, "reading", 7, Duration::ZERO);
        progress.add(3);
        assert_eq!(*progress.told.lock().unwrap(), None);
    }
}
