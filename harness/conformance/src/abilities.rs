//! Optional abilities: those that this kit knows are held to what they promise.

use crate::{
    frozen,
    subject::ModelSubject,
    toy::Toy,
    values::{any_rotation, predict, relative_difference},
    verdict::{Stop, Verdict, fail, skip},
};
use equivbench_abi::SHARED_ROTATIONS;
use equivbench_core::{Batch, FieldKind, Model, Rotation, Rows, Seed, Weights, act};
use equivbench_host::LoadedModel;

/// Runs every ability that the model offers and the kit knows.
pub(crate) fn abilities(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open_precise()?;
    let offered = model.instance().capabilities.clone();
    if offered != subject.descriptor.capabilities {
        return fail("the instance offers other abilities than the model");
    }
    let groups = model.instance().frozen_groups.clone();
    if offered.is_empty() && groups.is_empty() {
        return skip("it offers none");
    }
    let mut reports = Vec::new();
    for ability in &offered {
        reports.push(match ability.as_str() {
            "equivariant-subspace" => subspace(&mut model)?,
            "exact-twirl" => twirl(&mut model, &Toy::of(subject.descriptor, 1))?,
            SHARED_ROTATIONS => sharing(&mut model, &Toy::of(subject.descriptor, 1))?,
            other => format!("{other}: not known to this kit"),
        });
    }
    for linear in &model.instance().linear {
        if !groups.contains(&linear.group) {
            let group = &linear.group;
            return fail(format!(
                "group \"{group}\" is linear, but nothing can be frozen below it"
            ));
        }
    }
    for group in &groups {
        reports.push(frozen::below(subject, group)?);
    }
    Ok(reports.join("; "))
}

/// A projection changes nothing the second time.
fn subspace(model: &mut LoadedModel) -> Result<String, Stop> {
    let mut values = Vec::new();
    model.parameters_into("equivariant-subspace", &mut values)?;
    model.project_equivariant(&mut values)?;
    let once = values.clone();
    model.project_equivariant(&mut values)?;
    let twice = values;
    let difference = relative_difference(&twice, &once);
    // An average of a few numbers rounds at 1e-16.
    if difference > 1e-12 {
        return fail(format!(
            "equivariant-subspace: projecting twice differs from projecting once by {difference:.1e}"
        ));
    }
    Ok(format!(
        "equivariant-subspace: {} parameters, a projection to {difference:.0e}",
        once.len()
    ))
}

/// The averages have the right shape, and a mean square is not negative. Their values are held against the blind measurement elsewhere.
fn twirl(model: &mut LoadedModel, toy: &Toy) -> Result<String, Stop> {
    let count = predict(model, &toy.inputs)?.len();
    let (mean, spread) = model.exact_twirl(&toy.inputs)?;
    let rows = match model.output_rows() {
        Rows::Sample => toy.inputs.samples(),
        Rows::Point => toy.inputs.points(),
    };
    if mean.len() != count || spread.len() != rows {
        return fail(format!(
            "exact-twirl: {} and {} numbers for {rows} rows",
            mean.len(),
            spread.len()
        ));
    }
    // A variance that is computed as a difference may fall below zero by rounding.
    match spread.iter().find(|s| **s < -1e-9) {
        Some(negative) => fail(format!("exact-twirl: a mean square of {negative:.1e}")),
        None => Ok(format!("exact-twirl: {rows} rows")),
    }
}

/// Predictions of rotated copies, each sample rotated in its own way, are those of the blind path; and sharing ends when it is told to.
fn sharing(model: &mut LoadedModel, toy: &Toy) -> Result<String, Stop> {
    let base = &toy.inputs;
    let has_grid = base.fields.iter().any(|f| f.kind == FieldKind::VoxelGrid);
    let mut stream = Seed::new(1).stream("sharing");
    let (mut copy, mut largest) = (Batch::default(), 0.0_f64);
    for _ in 0..3 {
        let rotations: Vec<Rotation> = (0..base.samples())
            .map(|_| any_rotation(has_grid, &mut stream))
            .collect();
        act(&rotations, base, &mut copy)?;
        let blind = predict(model, &copy)?;
        model.share(base, Weights::Raw)?;
        let shared = predict(model, &copy)?;
        model.end_sharing()?;
        if predict(model, &copy)? != blind {
            return fail(
                "shared-rotations: a prediction after sharing has ended differs from the one before it began",
            );
        }
        largest = largest.max(relative_difference(&shared, &blind));
    }
    // f64 throughout: rounding of some hundred operations; anything that changes with rotation differs by parts in a thousand and more.
    if largest > 1e-9 {
        return fail(format!(
            "shared-rotations: predictions of rotated copies differ from blind ones by {largest:.1e} of their size"
        ));
    }
    Ok(format!("shared-rotations: {largest:.0e}"))
}
