//! What `measure.scheme = auto` asks before a session measures anything: how predictions of a few samples depend on the rotation.
//!
//! The model is as it stands when the session begins (a run: untrained). The choice is a function of seed, samples and that model, is kept
//! in every checkpoint, and does not change along a run, so that curves are comparable from step to step.

use crate::{Snapshot, Twisted};
use equivbench_core::{
    Condition, CoreError, RotationPlan, Scheme, SchemeChoice, Seed, Spectrum, Weights,
    choose_scheme,
};

/// Samples that are asked at most.
const SAMPLES: usize = 16;
/// Independent rotations of each.
const ROTATIONS: usize = 64;

/// Chooses a scheme that does under every condition, by first passes with the raw weights; `None` where nothing tells schemes apart.
pub(crate) fn choose(snapshot: &mut Snapshot<'_>) -> Result<Option<SchemeChoice>, CoreError> {
    // What a further pass predicts is as sure as what the first does, and what is fed back is not known here.
    let conditions = snapshot.first_passes();
    let found: Result<Vec<_>, _> = conditions.iter().map(|c| spectra(snapshot, c)).collect();
    let conditions = found?;
    Ok(choose_scheme(&conditions))
}

fn spectra(snapshot: &mut Snapshot<'_>, condition: &Condition) -> Result<Vec<Spectrum>, CoreError> {
    let (frozen, seed) = (snapshot.frozen(), snapshot.seed());
    let balance = snapshot.task().balance();
    let asked = Twisted {
        weights: Weights::Raw,
        condition,
        most: SAMPLES,
    };
    let mut found = Vec::new();
    snapshot.twisted_samples(
        &asked,
        &mut |index, _, _| Ok(plan(seed, index)),
        &mut |sample| {
            found.extend(Spectrum::of(
                frozen.group_of(sample.index),
                &plan(seed, sample.index).rotations,
                sample.predictions.iter().map(|z| z.to_vec()).collect(),
                sample.target,
                1.0 / balance.divisor(sample.target.len() as f64),
            ));
            Ok(())
        },
    )?;
    Ok(found)
}

fn plan(seed: Seed, sample: u64) -> RotationPlan {
    let any = Scheme::Random {
        rotations: ROTATIONS,
    };
    any.draw(&mut seed.indexed_stream("scheme", sample))
}
