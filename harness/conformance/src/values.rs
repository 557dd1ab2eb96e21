//! Predictions: their shape, that they repeat, and that samples do not disturb each other.

use crate::{
    subject::ModelSubject,
    toy::Toy,
    verdict::{Stop, Verdict, fail},
};
use equivbench_core::{Batch, FiniteGroup, Model, Rotation, Rows, Stream, Weights};
use equivbench_host::{
    LoadedModel,
    descriptor::{InstanceDescriptor, ParameterDescriptor},
};
use rand::Rng;

/// Raw-weight predictions of a batch.
pub(crate) fn predict(model: &mut LoadedModel, batch: &Batch) -> Result<Vec<f64>, Stop> {
    let mut out = Vec::new();
    model.predict_into(batch, Weights::Raw, &mut out)?;
    Ok(out)
}

/// Largest difference, relative to the root mean square of the second.
pub(crate) fn relative_difference(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let size = (b.iter().map(|x| x * x).sum::<f64>() / b.len().max(1) as f64).sqrt();
    let largest = a
        .iter()
        .zip(b)
        .map(|(x, y)| (x - y).abs())
        .fold(0.0, f64::max);
    if largest == 0.0 {
        0.0
    } else {
        largest / size.max(f64::MIN_POSITIVE)
    }
}

/// What reordering a sum may change: rounding of one operation is 1.1e-16 and 6e-8; sums of a model run over up to about 1,000 terms
/// and pass a few dozen layers.
pub(crate) fn rounding(model: &LoadedModel) -> f64 {
    if model.is_double() { 1e-10 } else { 2e-4 }
}

/// Instance descriptors repeat, and their numbers add up.
pub(crate) fn describe(subject: &ModelSubject<'_>) -> Verdict {
    let model = subject.open()?;
    let instance = model.instance();
    if model.describe()? != *instance {
        return fail("two descriptions of one instance differ");
    }
    let total: u64 = instance.parameters.iter().map(scalars).sum();
    groups_add_up(instance, total)?;
    let declared = subject
        .descriptor
        .sizes
        .iter()
        .find(|s| s.name == instance.size);
    match declared {
        Some(size) if subject.request().config.is_empty() && size.parameters != total => {
            fail(format!(
                "size {} declares {} parameters, the instance has {total}",
                size.name, size.parameters
            ))
        }
        _ => Ok(format!(
            "{total} parameters in {} tensors, {} groups",
            instance.parameters.len(),
            instance.groups.len()
        )),
    }
}

fn scalars(parameter: &ParameterDescriptor) -> u64 {
    parameter.shape.iter().product()
}

/// Every group holds as many scalars as its parameters do, and `all` holds all of them.
fn groups_add_up(instance: &InstanceDescriptor, total: u64) -> Result<(), Stop> {
    let Some(all) = instance.groups.iter().find(|g| g.name == "all") else {
        return fail("there is no parameter group \"all\"");
    };
    if all.scalars != total || all.parameters.len() != instance.parameters.len() {
        return fail(format!(
            "group \"all\" has {} scalars, the parameters have {total}",
            all.scalars
        ));
    }
    let size_of = |name: &String| {
        let named = instance.parameters.iter().find(|p| p.name == *name);
        named.map(scalars)
    };
    for group in &instance.groups {
        match group.parameters.iter().map(size_of).sum::<Option<u64>>() {
            None => {
                return fail(format!(
                    "group \"{}\" names a parameter that is not there",
                    group.name
                ));
            }
            Some(size) if size != group.scalars => {
                return fail(format!(
                    "group \"{}\" does not have {} scalars",
                    group.name, group.scalars
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// Shape and finiteness for a whole batch, its parts, and larger batches.
pub(crate) fn shapes(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open()?;
    let toy = Toy::of(subject.descriptor, 1);
    let all: Vec<usize> = (0..toy.inputs.samples()).collect();
    let mut numbers = 0;
    for samples in [
        &all[..],
        &all[..1],
        &all[2..3],
        &all[1..],
        &[all.as_slice(), &all, &all].concat(),
    ] {
        let batch = toy.inputs.select(samples);
        let rows = match model.output_rows() {
            Rows::Sample => batch.samples(),
            Rows::Point => batch.points(),
        };
        let out = predict(&mut model, &batch)?;
        if out.len() != rows * model.output_width(&batch) || out.is_empty() {
            return fail(format!("{} numbers for {rows} rows", out.len()));
        }
        numbers += out.len();
    }
    Ok(format!(
        "{numbers} finite numbers in 5 batches of 1 to {} samples",
        3 * all.len()
    ))
}

/// The same bits twice.
pub(crate) fn determinism(subject: &ModelSubject<'_>) -> Verdict {
    let toy = Toy::of(subject.descriptor, 1);
    let (mut model, mut twin) = (subject.open()?, subject.open()?);
    let first = predict(&mut model, &toy.inputs)?;
    if predict(&mut model, &toy.inputs)? != first {
        return fail(
            "two predictions of one batch differ; dropout and other noise must be off in evaluation",
        );
    }
    if predict(&mut twin, &toy.inputs)? != first {
        return fail(
            "two instances of one seed predict differently; all randomness must come from the seed of the request",
        );
    }
    let mut request = subject.request();
    request.seed += 1;
    let mut other = subject.open_with(&request)?;
    if predict(&mut other, &toy.inputs)? == first {
        return fail("two seeds give the same weights; the seed of the request must be used");
    }
    Ok(format!("{} numbers equal bit for bit", first.len()))
}

/// Samples in another order.
pub(crate) fn order(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open_precise()?;
    let toy = Toy::of(subject.descriptor, 1);
    let whole = predict(&mut model, &toy.inputs)?;
    let order = [2, 0, 3, 1];
    let found = predict(&mut model, &toy.inputs.select(&order))?;
    let expected: Vec<f64> = order
        .iter()
        .flat_map(|&s| part(&model, &toy.inputs, &whole, s).to_vec())
        .collect();
    judge(
        &model,
        relative_difference(&found, &expected),
        "a sample's prediction depends on its place in the batch",
    )
}

/// Samples alone and in company.
pub(crate) fn company(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open_precise()?;
    let toy = Toy::of(subject.descriptor, 1);
    let whole = predict(&mut model, &toy.inputs)?;
    let mut worst: f64 = 0.0;
    for sample in 0..toy.inputs.samples() {
        let alone = predict(&mut model, &toy.inputs.select(&[sample]))?;
        let own = part(&model, &toy.inputs, &whole, sample);
        // Relative to the whole batch: one sample alone may have a vanishing prediction.
        let size = rms(&whole);
        let difference = alone
            .iter()
            .zip(own)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        worst = worst.max(if alone.len() == own.len() {
            difference / size.max(f64::MIN_POSITIVE)
        } else {
            f64::INFINITY
        });
    }
    judge(
        &model,
        worst,
        "a sample's prediction depends on who shares its batch, for example through padding or batch statistics",
    )
}

fn rms(values: &[f64]) -> f64 {
    (values.iter().map(|x| x * x).sum::<f64>() / values.len().max(1) as f64).sqrt()
}

/// The rows of a prediction that belong to a sample.
fn part<'a>(model: &LoadedModel, batch: &Batch, prediction: &'a [f64], sample: usize) -> &'a [f64] {
    let (rows, width) = (
        batch.rows_of(model.output_rows(), sample),
        model.output_width(batch),
    );
    &prediction[rows.start * width..rows.end * width]
}

fn judge(model: &LoadedModel, difference: f64, fault: &str) -> Verdict {
    let (limit, precision) = (rounding(model), &model.instance().precision);
    if difference <= limit {
        return Ok(format!(
            "largest relative difference {difference:.1e} in {precision}"
        ));
    }
    fail(format!(
        "{fault}: relative difference {difference:.1e} in {precision}, rounding explains {limit:.0e}"
    ))
}

/// Calls from a thread that did not open the model.
pub(crate) fn threads(subject: &ModelSubject<'_>) -> Verdict {
    let toy = Toy::of(subject.descriptor, 1);
    let mut model = subject.open()?;
    let here = predict(&mut model, &toy.inputs)?;
    let elsewhere = std::thread::spawn(move || {
        model.train_step(&toy.training)?;
        model.predict_into(&toy.inputs, Weights::Raw, &mut Vec::new())?;
        Ok::<_, equivbench_core::CoreError>((model, toy))
    });
    let Ok(trained) = elsewhere.join() else {
        return fail("the call from another thread panicked");
    };
    let (mut trained, toy) = trained?;
    let mut model = subject.open()?;
    let there = std::thread::scope(|scope| scope.spawn(|| predict(&mut model, &toy.inputs)).join());
    let Ok(there) = there else {
        return fail("the call from another thread panicked");
    };
    if there? != here {
        return fail("another thread gets another prediction");
    }
    predict(&mut trained, &toy.inputs)?;
    Ok("opened here, called there, and back".into())
}

/// Haar, or of the cube where there are grids.
pub(crate) fn any_rotation(of_the_cube: bool, stream: &mut Stream) -> Rotation {
    let cube = FiniteGroup::Octahedral.elements();
    if of_the_cube {
        cube[(stream.next_u64() % cube.len() as u64) as usize]
    } else {
        Rotation::haar(stream)
    }
}
