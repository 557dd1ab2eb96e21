//! Our side of a timing run of a model: steps, predictions and memory on request. The same as `../torch/serving.py`.
//!
//! Each model's timing example includes this file.

mod lines;

use equivbench_abi::{Batch, Weights};
use equivbench_plugin::{ModelPlugin, Trainer};
use lines::answer_lines;
use std::time::{Duration, Instant};

/// What a process held before it had weights and a batch, in units of 10⁶ bytes; none where the system does not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base(Option<f64>);

impl Base {
    /// To be called first of all.
    pub(crate) fn now() -> Self {
        Self(status_mb("VmRSS:"))
    }
}

/// Answers `step`, `predict` and `memory`; `lend` calls a function with the one batch, `target` is what that batch aims at.
///
/// # Panics
/// If the model cannot read the batch.
pub(crate) fn serve<M: ModelPlugin>(
    trainer: &mut Trainer<M>,
    lend: impl Fn(&mut dyn FnMut(&Batch<'_>)),
    target: &[f64],
    base: Base,
) {
    answer_lines("{}", |request| match request {
        "step" => {
            let (mut loss, start) = (f64::NAN, Instant::now());
            lend(&mut |raw| loss = trainer.train_step(raw).unwrap_or_else(|e| panic!("{e}"))[0]);
            Some(figures(start.elapsed(), loss))
        }
        "predict" => {
            let (mut prediction, start) = (None, Instant::now());
            lend(&mut |raw| {
                prediction = Some(
                    trainer
                        .predict(raw, Weights::Raw)
                        .unwrap_or_else(|e| panic!("{e}"))
                        .into_data(),
                )
            });
            let taken = start.elapsed();
            let prediction: Vec<f64> = prediction
                .into_iter()
                .flat_map(|data| data.iter::<f64>().collect::<Vec<_>>())
                .collect();
            Some(figures(taken, mean_square_difference(&prediction, target)))
        }
        "memory" => Some(memory(base)),
        _ => None,
    });
}

fn figures(taken: Duration, loss: f64) -> String {
    format!(r#"{{"seconds": {}, "loss": {loss}}}"#, taken.as_secs_f64())
}

fn mean_square_difference(prediction: &[f64], target: &[f64]) -> f64 {
    assert_eq!(
        prediction.len(),
        target.len(),
        "a prediction has the shape of its target"
    );
    prediction
        .iter()
        .zip(target)
        .map(|(x, y)| (x - y).powi(2))
        .sum::<f64>()
        / target.len() as f64
}

/// The most memory since the last such request, which starts anew from here.
fn memory(base: Base) -> String {
    let json =
        |value: Option<f64>| value.map_or_else(|| "null".to_owned(), |value| value.to_string());
    let answer = format!(
        r#"{{"peak_mb": {}, "base_mb": {}}}"#,
        json(status_mb("VmHWM:")),
        json(base.0)
    );
    // Where this fails the peak is that of the whole life of the process, which is not less.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    answer
}

/// A line of this process's status, in units of 10⁶ bytes.
fn status_mb(name: &str) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix(name))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()?;
    Some(kib * 1024.0 / 1e6)
}
