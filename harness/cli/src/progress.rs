//! Bars with step, loss, percent and time left; plain lines when not at a terminal; nothing with `-q`.

use equivbench_runner::{pool::Event, run_dir::ProgressFile, run_dir::RunDir, run_dir::State};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Seconds between plain lines of one run.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Shows what the pool tells.
pub(crate) struct Display {
    mode: Mode,
    runs: BTreeMap<RunDir, Shown>,
}

enum Mode {
    Quiet,
    Lines,
    Bars(MultiProgress),
}

struct Shown {
    bar: Option<ProgressBar>,
    /// When and at which step the present decade of steps began: evaluations are dense at first, so the time left follows from
    /// the recent pace.
    since: Option<(Instant, u64)>,
    line: Option<Instant>,
}

impl Display {
    /// Bars at a terminal, lines elsewhere, nothing when quiet.
    pub(crate) fn new(quiet: bool) -> Self {
        let mode = match (quiet, std::io::stderr().is_terminal()) {
            (true, _) => Mode::Quiet,
            (false, true) => Mode::Bars(MultiProgress::new()),
            (false, false) => Mode::Lines,
        };
        Self {
            mode,
            runs: BTreeMap::new(),
        }
    }

    /// Takes one event.
    pub(crate) fn tell(&mut self, event: Event<'_>) {
        match event {
            Event::Started(dir) => self.started(dir),
            Event::Progress(dir, progress) => self.progress(dir, progress),
            Event::Ended(dir, status) => {
                let text = match status.state {
                    State::Finished => "finished".to_owned(),
                    state => format!("{}: {}", state.name(), status.reason),
                };
                self.ended(dir, &text);
            }
        }
    }

    fn started(&mut self, dir: &RunDir) {
        let bar = match &self.mode {
            Mode::Bars(bars) => {
                let bar = bars.add(ProgressBar::new(0));
                if let Ok(style) = ProgressStyle::with_template(
                    "{prefix:36!} {bar:24} {pos}/{len} {msg} [{elapsed} < {eta}]",
                ) {
                    bar.set_style(style);
                }
                bar.set_prefix(name(dir));
                bar.set_message("loading");
                bar.enable_steady_tick(Duration::from_millis(250));
                Some(bar)
            }
            Mode::Lines => {
                eprintln!("{}: started", name(dir));
                None
            }
            Mode::Quiet => None,
        };
        self.runs.insert(
            dir.clone(),
            Shown {
                bar,
                since: None,
                line: None,
            },
        );
    }

    fn progress(&mut self, dir: &RunDir, progress: &ProgressFile) {
        let Some(shown) = self.runs.get_mut(dir) else {
            return;
        };
        let (then, first) = *shown.since.get_or_insert((Instant::now(), progress.step));
        // Fewer steps than before: another piece of work began.
        if progress.step > 4 * first.max(10) || progress.step < first {
            shown.since = Some((Instant::now(), progress.step));
        }
        match (&self.mode, &shown.bar) {
            (Mode::Bars(_), Some(bar)) => {
                if bar.length() != Some(progress.total) {
                    bar.set_position(progress.step);
                    bar.set_length(progress.total);
                    bar.reset_eta();
                }
                bar.set_position(progress.step);
                bar.set_message(figures(progress));
            }
            (Mode::Lines, _) if shown.line.is_none_or(|t| t.elapsed() > LINE_EVERY) => {
                shown.line = Some(Instant::now());
                let left = time_left(then.elapsed(), first, progress);
                eprintln!(
                    "{}: {}/{} {}{left}",
                    name(dir),
                    progress.step,
                    progress.total,
                    figures(progress)
                );
            }
            _ => {}
        }
    }

    fn ended(&mut self, dir: &RunDir, text: &str) {
        match (&self.mode, self.runs.get(dir).and_then(|s| s.bar.as_ref())) {
            (Mode::Bars(_), Some(bar)) => bar.finish_with_message(text.to_owned()),
            (Mode::Lines, _) => eprintln!("{}: {text}", name(dir)),
            _ => {}
        }
    }
}

fn name(dir: &RunDir) -> String {
    dir.path()
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn figures(progress: &ProgressFile) -> String {
    let loss = progress
        .loss
        .map(|l| format!(" loss {l:.4}"))
        .unwrap_or_default();
    let percent = progress
        .percent
        .map(|p| format!(" equiv {p:.3}%"))
        .unwrap_or_default();
    format!("{}{loss}{percent}", progress.phase)
}

fn time_left(elapsed: Duration, first: u64, progress: &ProgressFile) -> String {
    let done = progress.step.saturating_sub(first);
    if done == 0 || progress.total <= progress.step {
        return String::new();
    }
    let left = elapsed.as_secs_f64() / done as f64 * (progress.total - progress.step) as f64;
    format!(", about {left:.0} s left")
}
