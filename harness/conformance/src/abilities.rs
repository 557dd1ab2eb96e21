//! Optional abilities: those that this kit knows are held to what they promise.

use crate::{
    check::{Stop, Verdict, fail, skip},
    subject::ModelSubject,
    toy::Toy,
    values::{predict, relative_difference},
};
use equivbench_core::{Model, Rows};
use equivbench_host::LoadedModel;

/// Runs every ability that the model offers and the kit knows.
pub(crate) fn abilities(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open_precise()?;
    let offered = model.instance().capabilities.clone();
    if offered != subject.descriptor.capabilities {
        return fail("the instance offers other abilities than the model");
    }
    if offered.is_empty() {
        return skip("it offers none");
    }
    let mut reports = Vec::new();
    for ability in &offered {
        reports.push(match ability.as_str() {
            "equivariant-subspace" => subspace(&mut model)?,
            "exact-twirl" => twirl(&mut model, &Toy::of(subject.descriptor, 1))?,
            other => format!("{other}: not known to this kit"),
        });
    }
    Ok(reports.join("; "))
}

/// A projection changes nothing the second time.
fn subspace(model: &mut LoadedModel) -> Result<String, Stop> {
    let mut values = Vec::new();
    model.parameters_into("equivariant-subspace", &mut values)?;
    let once = model.project_equivariant(&values)?;
    let twice = model.project_equivariant(&once)?;
    let difference = relative_difference(&twice, &once);
    // An average of a few numbers rounds at 1e-16.
    if difference > 1e-12 {
        return fail(format!("equivariant-subspace: projecting twice differs from projecting once by {difference:.1e}"));
    }
    Ok(format!("equivariant-subspace: {} parameters, a projection to {difference:.0e}", values.len()))
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
        return fail(format!("exact-twirl: {} and {} numbers for {rows} rows", mean.len(), spread.len()));
    }
    // A variance that is computed as a difference may fall below zero by rounding.
    match spread.iter().find(|s| **s < -1e-9) {
        Some(negative) => fail(format!("exact-twirl: a mean square of {negative:.1e}")),
        None => Ok(format!("exact-twirl: {rows} rows")),
    }
}
