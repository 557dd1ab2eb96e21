//! The list of all checks, and how one is run.

use crate::{
    abilities, data, gradient, refusals,
    subject::{DatasetSubject, ModelSubject, Target},
    training, values,
    verdict::{CheckOutcome, Kind, Stop, Verdict, skip},
};
use equivbench_host::Library;
use std::path::Path;

#[derive(Clone, Copy)]
enum Run {
    Model(fn(&ModelSubject<'_>) -> Verdict),
    Dataset(fn(&DatasetSubject<'_>) -> Verdict),
}

/// One check.
pub struct Check {
    /// Name on the command line.
    pub name: &'static str,
    /// What a plugin that passes does.
    pub about: &'static str,
    run: Run,
}

impl Check {
    /// What the check looks at.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.run {
            Run::Model(_) => Kind::Model,
            Run::Dataset(_) => Kind::Dataset,
        }
    }
}

const fn model(
    name: &'static str,
    run: fn(&ModelSubject<'_>) -> Verdict,
    about: &'static str,
) -> Check {
    Check {
        name,
        about,
        run: Run::Model(run),
    }
}

const fn dataset(
    name: &'static str,
    run: fn(&DatasetSubject<'_>) -> Verdict,
    about: &'static str,
) -> Check {
    Check {
        name,
        about,
        run: Run::Dataset(run),
    }
}

const CHECKS: &[Check] = &[
    model(
        "describe",
        values::describe,
        "describes an instance twice in the same words; parameters, groups and sizes add up",
    ),
    model(
        "shapes",
        values::shapes,
        "predicts finite numbers in the shape it declares, for batches of several sizes",
    ),
    model(
        "determinism",
        values::determinism,
        "predicts the same bits twice, and in two instances of one seed",
    ),
    model(
        "order",
        values::order,
        "gives each sample the same prediction in whatever order the samples come",
    ),
    model(
        "company",
        values::company,
        "gives each sample the same prediction whoever shares its batch",
    ),
    model(
        "threads",
        values::threads,
        "predicts the same bits when called from another thread",
    ),
    model(
        "gradient",
        gradient::differences,
        "its vjp agrees with finite differences of its predictions in random directions",
    ),
    model(
        "linearity",
        gradient::linearity,
        "its vjp is linear in the cotangent",
    ),
    model(
        "groups",
        gradient::groups,
        "parameters and vjp of every named group are the entries of `all`",
    ),
    model(
        "parameters",
        training::parameters,
        "returns the parameters that it was given, and predicts with them",
    ),
    model(
        "continue",
        training::continues,
        "goes on bit for bit from a saved state in a fresh instance",
    ),
    model(
        "learning",
        training::learning,
        "lowers its loss on a toy batch",
    ),
    model(
        "independence",
        training::independence,
        "training one instance leaves another one alone",
    ),
    model(
        "evaluation",
        training::evaluation,
        "predictions and gradients leave the training state alone",
    ),
    model(
        "averages",
        training::averages,
        "its averaged weights differ from the raw ones after training",
    ),
    model(
        "not-finite",
        refusals::not_finite,
        "does not invent numbers where NaN or infinity goes in",
    ),
    model(
        "empty",
        refusals::empty,
        "refuses an empty batch with an error",
    ),
    model(
        "lengths",
        refusals::lengths,
        "refuses buffers of a wrong length and missing fields with an error",
    ),
    model(
        "names",
        refusals::names,
        "refuses unknown groups, weights, sizes, keys and abilities with an error",
    ),
    model(
        "abilities",
        abilities::abilities,
        "keeps the promises of the abilities it offers",
    ),
    dataset(
        "describe",
        data::describe,
        "describes itself twice in the same words; splits, fields and normalisers make sense",
    ),
    dataset(
        "content-hash",
        data::content_hash,
        "its content hash is the same each time it is opened",
    ),
    dataset(
        "self-report",
        data::self_report,
        "everything it checked about itself passed",
    ),
    dataset(
        "finite",
        data::finite,
        "the samples of every split are finite",
    ),
    dataset(
        "shapes",
        data::shapes,
        "positions and forces are vectors of points, energies are numbers of samples, no sample is empty",
    ),
    dataset("species", data::species, "species are atomic numbers"),
    dataset(
        "repeatable",
        data::repeatable,
        "the same indices give the same bytes, also when it is opened again",
    ),
    dataset(
        "order",
        data::order,
        "samples come in the order of the indices",
    ),
    dataset(
        "groups",
        data::groups,
        "says of every sample which group it belongs to, always the same one; no group lies in two splits",
    ),
    dataset(
        "range",
        data::range,
        "refuses indices beyond a split with an error",
    ),
    dataset(
        "names",
        data::names,
        "refuses unknown splits and options with an error",
    ),
];

/// All checks, in the order in which they are run.
#[must_use]
pub fn list_checks() -> &'static [Check] {
    CHECKS
}

/// Runs one check on one model or dataset of a library, in this process. A plugin that crashes takes this process along.
#[must_use]
pub fn run_check(library: &Path, target: &Target, name: &str) -> CheckOutcome {
    let kind = target.kind();
    let Some(check) = CHECKS
        .iter()
        .find(|check| check.name == name && check.kind() == kind)
    else {
        let known: Vec<&str> = CHECKS
            .iter()
            .filter(|check| check.kind() == kind)
            .map(|check| check.name)
            .collect();
        return CheckOutcome::Failed {
            why: format!(
                "check \"{name}\" is not known; there are: {}",
                known.join(", ")
            ),
        };
    };
    match run(library, target, check) {
        Ok(figure) => CheckOutcome::Passed { figure },
        Err(Stop::Failed(why)) => CheckOutcome::Failed { why },
        Err(Stop::Skipped(why)) => CheckOutcome::Skipped { why },
    }
}

fn run(library: &Path, target: &Target, check: &Check) -> Verdict {
    let library = Library::open(library)?;
    match (check.run, target) {
        (Run::Model(run), Target::Model { .. }) => run(&ModelSubject::new(&library, target)?),
        (Run::Dataset(run), Target::Dataset { .. }) => run(&DatasetSubject::new(&library, target)),
        _ => skip("it is for the other kind of target"),
    }
}
