//! Vector-Jacobian products: against finite differences, linear, and the same for every group.

use crate::{
    subject::ModelSubject,
    toy::{Toy, normal},
    values::{predict, relative_difference, rounding},
    verdict::{Stop, Verdict, fail},
};
use equivbench_core::{Batch, Model, Seed, Stream, dot, norm};
use equivbench_host::LoadedModel;

/// Directions that are tried: a gradient that lacks a part is seen in all of them.
const DIRECTIONS: usize = 3;

fn stream() -> Stream {
    Seed::new(1).stream("conformance gradient")
}

/// Standard normal numbers.
pub(crate) fn normals(stream: &mut Stream, count: usize) -> Vec<f64> {
    (0..count).map(|_| normal(stream)).collect()
}

/// The product of a cotangent with the Jacobian of a group.
pub(crate) fn vjp(
    model: &mut LoadedModel,
    batch: &Batch,
    cotangent: &[f64],
    group: &str,
) -> Result<Vec<f64>, Stop> {
    let mut out = Vec::new();
    model.vjp_into(batch, cotangent, group, &mut out)?;
    Ok(out)
}

/// `cotangent · (f(θ + h u) − f(θ − h u)) / 2h` against `vjp(cotangent) · u`.
pub(crate) fn differences(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open_precise()?;
    let toy = Toy::of(subject.descriptor, 1);
    let mut stream = stream();
    let mut parameters = Vec::new();
    model.parameters_into("all", &mut parameters)?;
    // Some layers start at zero, where a gradient of zero would prove nothing: move all parameters a little.
    let typical = norm(&parameters) / (parameters.len().max(1) as f64).sqrt();
    parameters
        .iter_mut()
        .for_each(|p| *p += 0.1 * typical * normal(&mut stream));
    model.set_parameters("all", &parameters)?;
    model.parameters_into("all", &mut parameters)?;
    // The step balances rounding (1e-16 and 6e-8 over the step) against curvature (the square of the step). The limit leaves
    // room for the kinks of piecewise-linear activations; a gradient that lacks a part is off by much more.
    let (step, limit) = if model.is_double() {
        (1e-5, 1e-4)
    } else {
        (5e-3, 3e-2)
    };
    let step = step * typical;
    let mut worst: f64 = 0.0;
    for _ in 0..DIRECTIONS {
        let cotangent = {
            let n = predict(&mut model, &toy.inputs)?.len();
            normals(&mut stream, n)
        };
        let direction = normals(&mut stream, parameters.len());
        let gradient = vjp(&mut model, &toy.inputs, &cotangent, "all")?;
        let measured = slope(
            &mut model,
            &toy.inputs,
            &cotangent,
            &parameters,
            &direction,
            step,
        )?;
        let claimed = dot(&gradient, &direction);
        // In units of the slope that a direction typically has: a random direction may have none.
        worst = worst.max(
            (claimed - measured).abs() / norm(&gradient).max(measured.abs()).max(f64::MIN_POSITIVE),
        );
    }
    let precision = &model.instance().precision;
    if worst <= limit {
        return Ok(format!(
            "largest relative difference {worst:.1e} over {DIRECTIONS} directions in {precision}"
        ));
    }
    fail(format!(
        "vjp and finite differences differ by {worst:.1e} of the gradient in {precision}; {limit:.0e} is allowed"
    ))
}

fn slope(
    model: &mut LoadedModel,
    batch: &Batch,
    cotangent: &[f64],
    parameters: &[f64],
    direction: &[f64],
    step: f64,
) -> Result<f64, Stop> {
    let mut at = |side: f64| {
        let moved: Vec<f64> = parameters
            .iter()
            .zip(direction)
            .map(|(p, d)| p + side * step * d)
            .collect();
        model.set_parameters("all", &moved)?;
        predict(model, batch)
    };
    let (above, below) = (at(1.0)?, at(-1.0)?);
    model.set_parameters("all", parameters)?;
    Ok((dot(cotangent, &above) - dot(cotangent, &below)) / (2.0 * step))
}

/// `vjp(a c₁ + b c₂) = a vjp(c₁) + b vjp(c₂)`.
pub(crate) fn linearity(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open_precise()?;
    let toy = Toy::of(subject.descriptor, 1);
    let mut stream = stream();
    let count = predict(&mut model, &toy.inputs)?.len();
    let (first, second) = (normals(&mut stream, count), normals(&mut stream, count));
    // Powers of two keep the coefficients themselves out of the rounding.
    let mix = |a: &[f64], b: &[f64]| -> Vec<f64> {
        a.iter().zip(b).map(|(x, y)| 2.0 * x - 0.5 * y).collect()
    };
    let mixed = vjp(&mut model, &toy.inputs, &mix(&first, &second), "all")?;
    let (one, two) = (
        vjp(&mut model, &toy.inputs, &first, "all")?,
        vjp(&mut model, &toy.inputs, &second, "all")?,
    );
    let difference = norm(
        &mix(&one, &two)
            .iter()
            .zip(&mixed)
            .map(|(a, b)| a - b)
            .collect::<Vec<_>>(),
    );
    let relative = difference / (2.0 * norm(&one) + 0.5 * norm(&two)).max(f64::MIN_POSITIVE);
    if relative <= rounding(&model) {
        return Ok(format!(
            "relative difference {relative:.1e} in {}",
            model.instance().precision
        ));
    }
    fail(format!(
        "the vjp of a mixture differs from the mixture of the vjps by {relative:.1e}"
    ))
}

/// Groups are views of `all`.
pub(crate) fn groups(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open_precise()?;
    let toy = Toy::of(subject.descriptor, 1);
    let count = predict(&mut model, &toy.inputs)?.len();
    let cotangent = normals(&mut stream(), count);
    let instance = model.instance().clone();
    let gradient = vjp(&mut model, &toy.inputs, &cotangent, "all")?;
    let mut parameters = Vec::new();
    model.parameters_into("all", &mut parameters)?;
    for group in &instance.groups {
        let entries = entries(&instance, &group.parameters);
        let pick = |all: &[f64]| -> Vec<f64> { entries.iter().map(|&i| all[i]).collect() };
        let mut own = Vec::new();
        model.parameters_into(&group.name, &mut own)?;
        if own != pick(&parameters) {
            return fail(format!(
                "the parameters of group \"{}\" are not the entries of \"all\" that it names",
                group.name
            ));
        }
        let difference = relative_difference(
            &vjp(&mut model, &toy.inputs, &cotangent, &group.name)?,
            &pick(&gradient),
        );
        if difference > rounding(&model) {
            return fail(format!(
                "the vjp of group \"{}\" differs from that of \"all\" by {difference:.1e}",
                group.name
            ));
        }
        model.set_parameters(&group.name, &own)?;
    }
    let mut after = Vec::new();
    model.parameters_into("all", &mut after)?;
    if after != parameters {
        return fail("setting every group to its own values changed the parameters");
    }
    Ok(format!("{} group(s)", instance.groups.len()))
}

/// Places in the flattened `all` of the scalars of some parameters.
fn entries(
    instance: &equivbench_abi::descriptor::InstanceDescriptor,
    names: &[String],
) -> Vec<usize> {
    let mut first = 0;
    let mut places = std::collections::BTreeMap::new();
    for parameter in &instance.parameters {
        let length = parameter.shape.iter().product::<u64>() as usize;
        places.insert(parameter.name.as_str(), first..first + length);
        first += length;
    }
    names
        .iter()
        .filter_map(|name| places.get(name.as_str()).cloned())
        .flatten()
        .collect()
}
