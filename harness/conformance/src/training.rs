//! Training: parameters, checkpoints, learning, and that nothing else touches the state.

use crate::{
    subject::ModelSubject,
    toy::Toy,
    values::predict,
    verdict::{Stop, Verdict, fail, skip},
};
use equivbench_core::{Batch, Model, Weights};
use equivbench_host::LoadedModel;
use std::time::{Duration, Instant};

/// Steps before and after a checkpoint: moments, averages, schedules and random streams have all moved by then.
const STEPS: usize = 3;
/// Steps in which a loss must have fallen.
const LEARNING_STEPS: usize = 400;
/// After this time a model that has not learnt yet is left undecided: slow is not wrong. Half of what `equivbench check` allows a check.
const LEARNING_LIMIT: Duration = Duration::from_secs(60);
/// The loss must fall to this fraction.
const LEARNT: f64 = 0.9;

fn flattened(model: &LoadedModel) -> Result<Vec<f64>, Stop> {
    let mut out = Vec::new();
    model.parameters_into("all", &mut out)?;
    Ok(out)
}

/// Batches that differ from step to step, so that a state that lags behind shows.
fn batches(subject: &ModelSubject<'_>, count: usize) -> Vec<Batch> {
    (0..count)
        .map(|step| Toy::of(subject.descriptor, 10 + step as u64).training)
        .collect()
}

fn train(model: &mut LoadedModel, batches: &[Batch]) -> Result<Vec<f64>, Stop> {
    batches
        .iter()
        .map(|batch| Ok(model.train_step(batch)?.loss))
        .collect()
}

/// Whether two runs of losses are the same bits.
fn same(a: &[f64], b: &[f64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// What goes in comes out, and is used.
pub(crate) fn parameters(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open()?;
    let toy = Toy::of(subject.descriptor, 1);
    let (before, prediction) = (flattened(&model)?, predict(&mut model, &toy.inputs)?);
    model.set_parameters("all", &before)?;
    if !same(&flattened(&model)?, &before) || predict(&mut model, &toy.inputs)? != prediction {
        return fail("setting the parameters to their own values changed them or the prediction");
    }
    let mut request = subject.request();
    request.seed += 1;
    request.precision = "f32".into();
    let mut other = subject.open_with(&request)?;
    let foreign = flattened(&other)?;
    model.set_parameters("all", &foreign)?;
    if !same(&flattened(&model)?, &foreign) {
        return fail("other parameters were set, and did not come out as they went in");
    }
    if predict(&mut model, &toy.inputs)? != predict(&mut other, &toy.inputs)? {
        return fail(
            "with the parameters of another instance the predictions differ from that instance's; something is not a parameter",
        );
    }
    Ok(format!(
        "{} parameters in and out bit for bit",
        before.len()
    ))
}

/// Three steps, saved, three more; against a fresh instance that loads what was saved.
pub(crate) fn continues(subject: &ModelSubject<'_>) -> Verdict {
    let batches = batches(subject, 2 * STEPS);
    let mut model = subject.open()?;
    train(&mut model, &batches[..STEPS])?;
    let state = model.save()?;
    let straight = train(&mut model, &batches[STEPS..])?;
    let mut fresh = subject.open()?;
    fresh.load(&state)?;
    let resumed = train(&mut fresh, &batches[STEPS..])?;
    if !same(&straight, &resumed) {
        return fail(format!(
            "losses after resuming are {resumed:?}, undisturbed they are {straight:?}; something is not in the saved state"
        ));
    }
    if !same(&flattened(&model)?, &flattened(&fresh)?) {
        return fail(
            "the losses after resuming agree, the parameters do not; something is not in the saved state",
        );
    }
    averages_agree(subject, &mut model, &mut fresh)?;
    damaged(&mut fresh, &state)?;
    Ok(format!(
        "{} bytes, {STEPS} steps on bit for bit",
        state.len()
    ))
}

fn averages_agree(
    subject: &ModelSubject<'_>,
    a: &mut LoadedModel,
    b: &mut LoadedModel,
) -> Result<(), Stop> {
    if !a.instance().weights.iter().any(|w| w == "ema") {
        return Ok(());
    }
    let toy = Toy::of(subject.descriptor, 1);
    let (mut first, mut second) = (Vec::new(), Vec::new());
    a.predict_into(&toy.inputs, Weights::Ema, &mut first)?;
    b.predict_into(&toy.inputs, Weights::Ema, &mut second)?;
    if first == second {
        Ok(())
    } else {
        fail("the averaged weights after resuming differ; they are not in the saved state")
    }
}

/// A damaged state is refused, and leaves the instance as it was.
fn damaged(model: &mut LoadedModel, state: &[u8]) -> Result<(), Stop> {
    let before = flattened(model)?;
    for (what, bytes) in [
        ("half a saved state", &state[..state.len() / 2]),
        ("an empty saved state", &[][..]),
    ] {
        if model.load(bytes).is_ok() {
            return fail(format!("{what} was loaded without an error"));
        }
    }
    if same(&flattened(model)?, &before) {
        Ok(())
    } else {
        fail("a damaged state was refused, but the parameters changed")
    }
}

/// The loss on one fixed batch falls.
pub(crate) fn learning(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open_recipe(r#"{"schedule":"constant"}"#)?;
    let batch = Toy::of(subject.descriptor, 1).training;
    let start = Instant::now();
    learns(
        || Ok(model.train_step(&batch)?.loss),
        || start.elapsed() > LEARNING_LIMIT,
    )
}

/// Steps until the loss has fallen, or is not going to. What decides is their number; where time runs out before, nothing does.
fn learns(mut step: impl FnMut() -> Result<f64, Stop>, out_of_time: impl Fn() -> bool) -> Verdict {
    let mut losses: Vec<f64> = Vec::new();
    while losses.len() < LEARNING_STEPS {
        if !losses.is_empty() && out_of_time() {
            return skip(format!(
                "not decided: {} of {LEARNING_STEPS} steps took more than {} s; check a smaller size. {}",
                losses.len(),
                LEARNING_LIMIT.as_secs(),
                course(&losses)
            ));
        }
        let loss = step()?;
        if !loss.is_finite() {
            return fail(format!("the loss is {loss} in step {}", losses.len() + 1));
        }
        losses.push(loss);
        if losses.len() >= 10 && mean(last(&losses)) < LEARNT * mean(first(&losses)) {
            return Ok(course(&losses));
        }
    }
    fail(format!(
        "{} on one fixed batch; it must fall by a tenth",
        course(&losses)
    ))
}

fn first(losses: &[f64]) -> &[f64] {
    &losses[..losses.len().min(3)]
}

fn last(losses: &[f64]) -> &[f64] {
    &losses[losses.len().saturating_sub(5)..]
}

fn course(losses: &[f64]) -> String {
    format!(
        "the loss went from {:.3e} to {:.3e} in {} steps",
        mean(first(losses)),
        mean(last(losses)),
        losses.len()
    )
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Instances share nothing.
pub(crate) fn independence(subject: &ModelSubject<'_>) -> Verdict {
    let toy = Toy::of(subject.descriptor, 1);
    let batches = batches(subject, STEPS);
    let (mut one, mut two) = (subject.open()?, subject.open()?);
    let before = predict(&mut two, &toy.inputs)?;
    let trained = train(&mut one, &batches)?;
    if predict(&mut two, &toy.inputs)? != before {
        return fail("training one instance changed the predictions of another");
    }
    if !same(&train(&mut two, &batches)?, &trained) || !same(&flattened(&one)?, &flattened(&two)?) {
        return fail("two instances of one seed, trained alike one after the other, differ");
    }
    Ok(format!(
        "two instances, {STEPS} steps each, equal bit for bit"
    ))
}

/// Evaluation in between does not disturb.
pub(crate) fn evaluation(subject: &ModelSubject<'_>) -> Verdict {
    let toy = Toy::of(subject.descriptor, 1);
    let other = toy.inputs.select(&[1]);
    let batches = batches(subject, STEPS);
    let (mut plain, mut watched) = (subject.open()?, subject.open()?);
    let losses = train(&mut plain, &batches)?;
    let mut watched_losses = Vec::new();
    for batch in &batches {
        let first = predict(&mut watched, &toy.inputs)?;
        predict(&mut watched, &other)?;
        watched.vjp_into(&toy.inputs, &vec![1.0; first.len()], "all", &mut Vec::new())?;
        watched.save()?;
        if predict(&mut watched, &toy.inputs)? != first {
            return fail("a prediction changed after other predictions and gradients");
        }
        watched_losses.push(watched.train_step(batch)?.loss);
    }
    if !same(&losses, &watched_losses) || !same(&flattened(&plain)?, &flattened(&watched)?) {
        return fail(
            "training with predictions in between differs from training without; evaluation must not touch the training state",
        );
    }
    Ok(format!(
        "{STEPS} steps with evaluation in between, equal bit for bit"
    ))
}

/// Averaged weights are kept apart.
pub(crate) fn averages(subject: &ModelSubject<'_>) -> Verdict {
    let Ok(mut model) = subject.open_recipe(r#"{"ema_decay":0.5}"#) else {
        return skip("its recipe takes no ema_decay");
    };
    if !model.instance().weights.iter().any(|w| w == "ema") {
        return skip("it keeps no averaged weights");
    }
    let toy = Toy::of(subject.descriptor, 1);
    train(&mut model, &batches(subject, STEPS))?;
    let raw = predict(&mut model, &toy.inputs)?;
    let mut average = Vec::new();
    model.predict_into(&toy.inputs, Weights::Ema, &mut average)?;
    if average == raw {
        return fail(format!(
            "after {STEPS} steps with ema_decay 0.5 the averaged weights predict the same as the raw ones"
        ));
    }
    if predict(&mut model, &toy.inputs)? != raw {
        return fail("a prediction with averaged weights changed the raw ones");
    }
    let mut plain = subject.open_recipe(r#"{"ema_decay":0.0}"#)?;
    train(&mut plain, &batches(subject, STEPS))?;
    if predict(&mut plain, &toy.inputs)? != raw {
        return fail("keeping an average changed the raw weights");
    }
    Ok("averaged and raw weights differ, and the raw ones are untouched".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The verdict on losses that shrink by a factor a step, with as much time as a number of steps takes.
    fn verdict(factor: f64, steps_in_time: usize) -> Verdict {
        let done = std::cell::Cell::new(0);
        let step = || {
            done.set(done.get() + 1);
            Ok(factor.powi(done.get()))
        };
        learns(step, || done.get() as usize > steps_in_time)
    }

    #[test]
    fn steps_decide_whether_a_model_learns_and_time_decides_nothing() {
        assert!(matches!(verdict(0.99, usize::MAX), Ok(seen) if seen.contains("steps")));
        let Err(Stop::Failed(why)) = verdict(1.0, usize::MAX) else {
            panic!("a constant loss does not fall")
        };
        assert!(why.contains("in 400 steps"), "{why}");
        let Err(Stop::Skipped(why)) = verdict(1.0, 30) else {
            panic!("thirty steps decide nothing")
        };
        assert!(why.contains("not decided: 31 of 400 steps"), "{why}");
    }
}
