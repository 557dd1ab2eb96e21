//! Protocol 9, throughput: how fast training goes, evaluation excluded, with its spread.

use crate::{
    About, Measured, PROTOCOL_VERSION, Protocol, ProtocolInfo, Step, Totals,
    protocol::{from_bytes, to_bytes},
};
use equivbench_core::{Column, CoreError, Sink, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Steps that are not timed: compilers, caches and allocators settle.
const WARM_UP: u64 = 10;
/// Width of a histogram bin in the logarithm of the step time: quantiles are good to 1%.
const BIN: f64 = 0.01;

/// How fast a run trained.
pub(crate) static THROUGHPUT: Table = Table {
    name: "throughput",
    about: "training speed after warm-up, evaluation excluded",
    groups: &[&[
        Column::new("protocol_version", "", "version of the protocols"),
        Column::new("device", "", "device"),
        Column::new("precision", "", "precision of training steps"),
        Column::timing("threads", "threads", "threads the model may use; 0 for all"),
        Column::new("parameters", "", "trained parameters"),
        Column::new("batch_size", "samples", "samples in a full batch"),
        Column::new("train_steps", "steps", "optimiser steps of the run"),
        Column::new(
            "timed_steps",
            "steps",
            "steps after warm-up that were timed",
        ),
        Column::timing("steps_per_s", "1/s", "timed steps over their seconds"),
        Column::timing(
            "samples_per_s",
            "1/s",
            "samples of the timed steps over their seconds",
        ),
        Column::timing(
            "step_s_median",
            "s",
            "median seconds of a step, with making its batch (to 1%)",
        ),
        Column::timing("step_s_p05", "s", "5% quantile of the seconds of a step"),
        Column::timing("step_s_p95", "s", "95% quantile of the seconds of a step"),
        Column::timing(
            "step_s_sd",
            "s",
            "standard deviation of the seconds of a step",
        ),
        Column::timing(
            "train_s",
            "s",
            "training seconds of the whole run, warm-up included, evaluation excluded",
        ),
        Column::timing("evaluation_s", "s", "seconds spent measuring"),
        Column::timing("gpu_h", "h", "GPU-hours of training; empty on a CPU"),
        Column::timing(
            "peak_memory_bytes",
            "bytes",
            "peak resident memory of the worker process",
        ),
        Column::timing(
            "run_s",
            "s",
            "seconds of the run: training, evaluation, tables, checkpoints; loading excluded",
        ),
        Column::timing(
            "model_s",
            "s",
            "seconds of these inside calls into the model plugin",
        ),
        Column::timing(
            "harness_percent",
            "%",
            "what the harness adds: 100 (1 - model_s / run_s)",
        ),
    ]],
};

/// Running figures of the step times.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Throughput {
    steps: u64,
    timed: u64,
    samples: u64,
    seconds: f64,
    squares: f64,
    /// Counts by `floor(ln(seconds) / BIN)`.
    histogram: BTreeMap<i64, u64>,
    train_s: f64,
    gpu_h: Option<f64>,
    evaluation_s: f64,
}

impl Throughput {
    pub(crate) const INFO: ProtocolInfo = ProtocolInfo {
        name: "throughput",
        about: "steps and samples a second after warm-up, training seconds with evaluation excluded, peak memory, GPU-hours",
        tables: &[&THROUGHPUT],
        start: || Box::<Self>::default(),
    };

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
fn harness_percent(totals: &Totals) -> Option<f64> {
    totals
        .model_s
        .filter(|_| totals.run_s > 0.0)
        .map(|model_s| 100.0 * (1.0 - model_s / totals.run_s))
}

impl Protocol for Throughput {
    fn on_step(&mut self, step: &Step) -> Result<(), CoreError> {
        self.steps = step.step;
        if step.step <= WARM_UP {
            return Ok(());
        }
        self.timed += 1;
        self.samples += step.samples;
        self.seconds += step.seconds;
        self.squares += step.seconds * step.seconds;
        *self
            .histogram
            .entry((step.seconds.max(1e-9).ln() / BIN).floor() as i64)
            .or_default() += 1;
        Ok(())
    }

    fn on_evaluation(
        &mut self,
        _about: &About,
        measured: &Measured,
        _sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        self.train_s = measured.evaluation.train_s;
        self.gpu_h = measured.evaluation.gpu_h;
        self.evaluation_s = measured.evaluation_s;
        Ok(())
    }

    fn on_finish(
        &mut self,
        about: &About,
        totals: &Totals,
        sink: &mut dyn Sink,
    ) -> Result<(), CoreError> {
        let timed = (self.timed > 0).then_some(self.timed as f64);
        let mean = timed.map(|n| self.seconds / n);
        let rate = |amount: u64| (self.seconds > 0.0).then(|| amount as f64 / self.seconds);
        let sd = timed
            .filter(|n| *n > 1.0)
            .zip(mean)
            .map(|(n, m)| ((self.squares - n * m * m).max(0.0) / (n - 1.0)).sqrt());
        sink.row(
            &THROUGHPUT,
            vec![
                PROTOCOL_VERSION.into(),
                about.device.as_str().into(),
                about.precision.as_str().into(),
                about.threads.into(),
                about.parameters.into(),
                about.batch_size.into(),
                self.steps.into(),
                self.timed.into(),
                rate(self.timed).into(),
                rate(self.samples).into(),
                self.quantile(0.5).into(),
                self.quantile(0.05).into(),
                self.quantile(0.95).into(),
                sd.into(),
                self.train_s.into(),
                self.evaluation_s.into(),
                self.gpu_h.into(),
                totals.peak_memory_bytes.into(),
                totals.run_s.into(),
                totals.model_s.into(),
                harness_percent(totals).into(),
            ],
        )
    }

    fn save(&self) -> Result<Vec<u8>, CoreError> {
        to_bytes(self)
    }

    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        *self = from_bytes(state)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_good_to_a_percent_and_warm_up_is_not_counted() {
        let mut throughput = Throughput::default();
        for step in 1..=1010u64 {
            let seconds = if step <= WARM_UP {
                100.0
            } else {
                (step - WARM_UP) as f64 / 1000.0
            };
            throughput
                .on_step(&Step {
                    step,
                    seconds,
                    samples: 4,
                    figures: Default::default(),
                })
                .unwrap();
        }
        assert_eq!((throughput.timed, throughput.samples), (1000, 4000));
        assert!((throughput.quantile(0.5).unwrap() / 0.5 - 1.0).abs() < 0.011);
        assert!((throughput.quantile(0.95).unwrap() / 0.95 - 1.0).abs() < 0.011);
    }
}
