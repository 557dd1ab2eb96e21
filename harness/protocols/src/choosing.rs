//! What `measure.scheme = auto` asks before a session measures anything: how predictions of a few samples depend on the rotation.
//!
//! The model is as it stands when the session begins (a run: untrained). The choice is a function of seed, samples and that model, is kept
//! in every checkpoint, and does not change along a run, so that curves are comparable from step to step.

use crate::Snapshot;
use equivbench_core::{
    Balance, Condition, CoreError, RotatedCopies, Rotation, RotationPlan, SchemeChoice, Spectrum,
    choose_scheme,
};
use std::sync::Arc;

/// Samples that are asked at most.
const SAMPLES: usize = 16;
/// Independent rotations of each.
const ROTATIONS: usize = 64;

/// Chooses a scheme that does under every condition, by first passes with the raw weights; `None` where nothing tells schemes apart.
pub(crate) fn choose(snapshot: &mut Snapshot<'_>) -> Result<Option<SchemeChoice>, CoreError> {
    let mut conditions = Vec::new();
    for condition in snapshot.frozen().conditions() {
        // What a further pass predicts is as sure as what the first does, and what is fed back is not known here.
        if snapshot.task().pass(condition) == 0 {
            conditions.push(spectra(snapshot, condition)?);
        }
    }
    Ok(choose_scheme(&conditions))
}

fn spectra(snapshot: &mut Snapshot<'_>, condition: &Condition) -> Result<Vec<Spectrum>, CoreError> {
    let mut found = Vec::new();
    for batch in snapshot.frozen().batches() {
        let indices = Arc::clone(snapshot.frozen().indices(batch));
        let places: Vec<usize> = (0..indices.len().min(SAMPLES - found.len())).collect();
        if places.is_empty() {
            break;
        }
        let own = places.iter().map(|&s| plan(snapshot, indices[s]));
        let plans: Arc<[RotationPlan]> = own.collect();
        let mut twisted: Vec<Vec<Vec<f64>>> = vec![Vec::new(); places.len()];
        let mut targets: Vec<Vec<f64>> = Vec::new();
        let mut each = |copies: &RotatedCopies<'_>, index: usize, predicted: &[f64]| {
            for (s, sample) in twisted.iter_mut().enumerate() {
                if index == 0 {
                    targets.push(copies.target(s).to_vec());
                }
                sample.push(predicted[copies.range(s)].to_vec());
            }
            Ok(())
        };
        let of = (batch, places.as_slice());
        snapshot.twisted_of(of, condition, Arc::clone(&plans), &mut each)?;
        let balance = snapshot.task().balance();
        for ((&s, twisted), target) in places.iter().zip(twisted).zip(&targets) {
            let group = snapshot.frozen().group_of(indices[s]);
            let weight = match balance {
                Balance::Components => 1.0,
                Balance::Samples => 1.0 / target.len() as f64,
            };
            found.extend(Spectrum::of(
                group,
                &plans[s].rotations,
                twisted,
                target,
                weight,
            ));
        }
    }
    Ok(found)
}

fn plan(snapshot: &Snapshot<'_>, sample: u64) -> RotationPlan {
    let mut stream = snapshot.seed().indexed_stream("scheme", sample);
    let draw = |_| Rotation::haar(&mut stream);
    RotationPlan {
        cosets: ROTATIONS,
        rotations: (0..ROTATIONS).map(draw).collect(),
    }
}
