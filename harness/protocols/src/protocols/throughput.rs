//! Protocol 9, throughput: how fast training goes, evaluation excluded, with its spread.

use crate::{
    Ending, NoSettings, Protocol, Schedule, Snapshot, Step, columns,
    protocol::{from_bytes, to_bytes},
};
use equivbench_core::{Column, CoreError, Sink, Table, TableInfo};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

/// Steps that are not timed: compilers, caches and allocators settle.
const WARM_UP: u64 = 10;
/// Width of a histogram bin in the logarithm of the step time: quantiles are good to 1%.
const BIN: f64 = 0.01;

/// How fast a run trained.
static THROUGHPUT: LazyLock<Table<Row>> = LazyLock::new(|| Table {
    name: "throughput",
    about: "training speed after warm-up, evaluation excluded",
    columns: columns(),
});

/// A complete run.
struct Row {
    steps: StepTimes,
    ending: Ending,
}

fn columns() -> Vec<Column<Row>> {
    vec![
        columns::version(),
        Column::new("device", "", "device", |r: &Row| {
            r.ending.about.device.clone()
        }),
        Column::new("precision", "", "precision of training steps", |r: &Row| {
            r.ending.about.precision.clone()
        }),
        Column::timing(
            "threads",
            "threads",
            "threads the model may use; 0 for all",
            |r: &Row| r.ending.about.threads,
        ),
        Column::new("parameters", "", "trained parameters", |r: &Row| {
            r.ending.about.parameters
        }),
        Column::new(
            "batch_size",
            "samples",
            "samples in a full batch",
            |r: &Row| r.ending.about.batch_size,
        ),
        Column::new(
            "train_steps",
            "steps",
            "optimiser steps of the run",
            |r: &Row| r.steps.steps,
        ),
        Column::new(
            "timed_steps",
            "steps",
            "steps after warm-up that were timed",
            |r: &Row| r.steps.timed,
        ),
        Column::timing(
            "steps_per_s",
            "1/s",
            "timed steps over their seconds",
            |r: &Row| r.steps.rate(r.steps.timed),
        ),
        Column::timing(
            "samples_per_s",
            "1/s",
            "samples of the timed steps over their seconds",
            |r: &Row| r.steps.rate(r.steps.samples),
        ),
        Column::timing(
            "step_s_median",
            "s",
            "median seconds of a step, with making its batch (to 1%)",
            |r: &Row| r.steps.quantile(0.5),
        ),
        Column::timing(
            "step_s_p05",
            "s",
            "5% quantile of the seconds of a step",
            |r: &Row| r.steps.quantile(0.05),
        ),
        Column::timing(
            "step_s_p95",
            "s",
            "95% quantile of the seconds of a step",
            |r: &Row| r.steps.quantile(0.95),
        ),
        Column::timing(
            "step_s_sd",
            "s",
            "standard deviation of the seconds of a step",
            |r: &Row| r.steps.sd(),
        ),
        Column::timing(
            "train_s",
            "s",
            "training seconds of the whole run, warm-up included, evaluation excluded",
            |r: &Row| r.ending.train_s,
        ),
        Column::timing(
            "cpu_s",
            "s",
            "processor seconds of training, all threads of the worker together",
            |r: &Row| r.ending.cpu_s,
        ),
        Column::timing("evaluation_s", "s", "seconds spent measuring", |r: &Row| {
            r.ending.evaluation_s
        }),
        Column::timing(
            "gpu_h",
            "h",
            "GPU-hours of training; empty on a CPU",
            |r: &Row| r.ending.gpu_h,
        ),
        Column::timing(
            "peak_memory_bytes",
            "bytes",
            "peak resident memory of the worker process",
            |r: &Row| r.ending.peak_memory_bytes,
        ),
        Column::timing(
            "run_s",
            "s",
            "seconds of the run: training, evaluation, tables, checkpoints; loading excluded",
            |r: &Row| r.ending.run_s,
        ),
        Column::timing(
            "model_s",
            "s",
            "seconds of these inside calls into the model plugin",
            |r: &Row| r.ending.model_s,
        ),
        Column::timing(
            "harness_percent",
            "%",
            "what the harness adds: 100 (1 - model_s / run_s)",
            |r: &Row| harness_percent(&r.ending),
        ),
    ]
}

/// Running figures of the step times.
#[derive(Clone, Default, Serialize, Deserialize)]
struct StepTimes {
    steps: u64,
    timed: u64,
    samples: u64,
    seconds: f64,
    squares: f64,
    /// Counts by `floor(ln(seconds) / BIN)`.
    histogram: BTreeMap<i64, u64>,
}

impl StepTimes {
    fn push(&mut self, step: &Step) {
        self.steps = step.step;
        if step.step <= WARM_UP {
            return;
        }
        self.timed += 1;
        self.samples += step.samples;
        self.seconds += step.seconds;
        self.squares += step.seconds * step.seconds;
        let bin = (step.seconds.max(1e-9).ln() / BIN).floor() as i64;
        *self.histogram.entry(bin).or_default() += 1;
    }

    fn rate(&self, amount: u64) -> Option<f64> {
        (self.seconds > 0.0).then(|| amount as f64 / self.seconds)
    }

    fn sd(&self) -> Option<f64> {
        let n = Some(self.timed as f64).filter(|n| *n > 1.0)?;
        let mean = self.seconds / n;
        Some(((self.squares - n * mean * mean).max(0.0) / (n - 1.0)).sqrt())
    }

    fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.timed as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.histogram
            .iter()
            .find(|(_, count)| {
                seen += **count;
                seen >= rank
            })
            .map(|(bin, _)| ((*bin as f64 + 0.5) * BIN).exp())
    }
}

/// Percent of a run outside the model.
fn harness_percent(ending: &Ending) -> Option<f64> {
    let model_s = ending.model_s.filter(|_| ending.run_s > 0.0)?;
    Some(100.0 * (1.0 - model_s / ending.run_s))
}

/// Times every step; it has no question to the model.
pub(super) struct Throughput(StepTimes);

impl Protocol for Throughput {
    const NAME: &'static str = "throughput";
    const ABOUT: &'static str = "steps and samples a second after warm-up, training seconds with evaluation excluded, peak memory, GPU-hours";
    const FOLLOWS_A_RUN: bool = true;
    type Settings = NoSettings;

    fn tables() -> Vec<TableInfo> {
        vec![THROUGHPUT.info()]
    }

    fn start(_: NoSettings, _: Arc<Schedule>) -> Self {
        Self(StepTimes::default())
    }

    fn due(&self, _: u64) -> bool {
        false
    }

    fn measure(&mut self, _: &mut Snapshot<'_>, _: &mut dyn Sink) -> Result<(), CoreError> {
        Ok(())
    }

    fn trained(&mut self, step: &Step) {
        self.0.push(step);
    }

    fn finish(&mut self, ending: &Ending, sink: &mut dyn Sink) -> Result<(), CoreError> {
        let row = Row {
            steps: self.0.clone(),
            ending: ending.clone(),
        };
        THROUGHPUT.write(sink, &row)
    }

    fn save(&self) -> Result<Vec<u8>, CoreError> {
        to_bytes(&self.0)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        self.0 = from_bytes(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_good_to_a_percent_and_warm_up_is_not_counted() {
        let mut times = StepTimes::default();
        for step in 1..=1010u64 {
            let seconds = if step <= WARM_UP {
                100.0
            } else {
                (step - WARM_UP) as f64 / 1000.0
            };
            times.push(&Step {
                step,
                seconds,
                samples: 4,
                figures: Default::default(),
            });
        }
        assert_eq!((times.timed, times.samples), (1000, 4000));
        assert!((times.quantile(0.5).unwrap() / 0.5 - 1.0).abs() < 0.011);
        assert!((times.quantile(0.95).unwrap() / 0.95 - 1.0).abs() < 0.011);
    }
}
