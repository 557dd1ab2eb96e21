//! Says how far a long piece of work is, to whoever runs the plugin.

use equivbench_abi::{PROGRESS_VARIABLE, descriptor::LongWork};
use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Time between two replacements of the file.
const EVERY: Duration = Duration::from_millis(200);
/// Beats of this process, whatever the piece of work.
static BEAT: AtomicU64 = AtomicU64::new(0);

/// A long piece of work, such as reading many files: a person sees how far it is and when it will end, and the harness sees that it
/// lives. Silent when nobody asks; a failure to write costs the display only.
///
/// ```
/// let files = ["a.cif", "b.cif"];
/// let mut progress = equivbench_plugin::Progress::new("reading structure files", files.len() as u64);
/// for (number, _file) in files.iter().enumerate() {
///     progress.tell(number as u64 + 1);
/// }
/// ```
#[derive(Debug)]
pub struct Progress {
    work: LongWork,
    path: Option<PathBuf>,
    told: Option<Instant>,
}

impl Progress {
    /// Begins a piece of work of `total` pieces.
    #[must_use]
    pub fn new(what: &str, total: u64) -> Self {
        Self::into_file(std::env::var_os(PROGRESS_VARIABLE).map(Into::into), what, total)
    }

    fn into_file(path: Option<PathBuf>, what: &str, total: u64) -> Self {
        let mut progress = Self { work: LongWork { what: what.into(), done: 0, total, beat: 0 }, path, told: None };
        progress.tell(0);
        progress
    }

    /// Says how many pieces are done; cheap to call often.
    pub fn tell(&mut self, done: u64) {
        let Some(path) = &self.path else { return };
        if self.told.is_some_and(|t| t.elapsed() < EVERY) {
            return;
        }
        self.work.done = done;
        self.work.beat = BEAT.fetch_add(1, Ordering::Relaxed) + 1;
        self.told = Some(Instant::now());
        let _ = replace(path, &self.work);
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

    #[test]
    fn the_file_says_how_far_the_work_is_and_beats() {
        let path = std::env::temp_dir().join(format!("equivbench-progress-{}.json", std::process::id()));
        let read = || serde_json::from_slice::<LongWork>(&std::fs::read(&path).unwrap()).unwrap();
        let mut progress = Progress::into_file(Some(path.clone()), "reading", 7);
        let first = read();
        assert_eq!((first.what.as_str(), first.done, first.total), ("reading", 0, 7));
        // At once: too soon to tell again.
        progress.tell(1);
        assert_eq!(read(), first);
        std::thread::sleep(EVERY);
        progress.tell(2);
        let second = read();
        assert_eq!(second.done, 2);
        assert!(second.beat > first.beat);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn nobody_who_asks_means_nothing_is_written() {
        let mut progress = Progress::into_file(None, "reading", 7);
        progress.tell(3);
        assert_eq!(progress.told, None);
    }
}
