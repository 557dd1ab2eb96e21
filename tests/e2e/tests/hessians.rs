//! Gradients of the parts of the loss and Hessians over the head, through the boundary, against the fixtures of the three models.

use equivbench_core::{
    Estimator, LossPart, Measurement, PointLoss, Portion, RotatedCopies, RotationPlan, Scheme,
    Seed, Weights, norm,
};
use equivbench_curvature::{Differences, Subset, SubsetOf, eigenvalues, gauss_newton, hessians};
use equivbench_e2e::reference::Reference;
use equivbench_host::LoadedModel;
use faer::Mat;

/// The names of the parts in the fixtures.
const PARTS: [(LossPart, &str); 3] = [
    (LossPart::Total, "L"),
    (LossPart::Twirled, "mean"),
    (LossPart::Equivariance, "equiv"),
];

/// The fixture's samples with its rotations, plug-in; grids with the whole group.
fn portion(fixture: &Reference) -> Portion {
    let samples = fixture.samples();
    let count = samples.inputs.samples();
    let plans: Vec<RotationPlan> = match fixture.model {
        "voxmol" => vec![Scheme::parse("octahedral").unwrap().plan(Seed::new(0), 0); count],
        _ => fixture.plans(count),
    };
    let how = Measurement {
        weights: Weights::Raw,
        loss: PointLoss::Mse,
        estimator: Estimator::PlugIn,
    };
    Portion::new(samples, &plans, how)
}

fn ask<R>(
    fixture: &Reference,
    model: &mut LoadedModel,
    group: &str,
    ask: impl FnOnce(&mut Subset<'_>) -> R,
) -> R {
    let portion = portion(fixture);
    let copies = RotatedCopies::new(&*model, &portion).unwrap();
    let of = SubsetOf {
        group,
        // Every protein weighs the same.
        weigh_samples: fixture.model == "proteina",
    };
    let watch = &mut || Ok(());
    let mut subset = Subset::new(model, &copies, of, watch).unwrap();
    ask(&mut subset)
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |a, v| a.max(v.abs()))
}

/// Largest difference over the largest number.
fn off(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let apart = ours.iter().zip(theirs).map(|(a, b)| (a - b).abs());
    apart.fold(0.0, f64::max) / largest(theirs)
}

#[test]
fn gradients_of_all_parts_have_the_norms_of_the_reference() {
    let mut compared = 0;
    for model in ["escaip", "proteina", "voxmol"] {
        for fixture in Reference::all(model) {
            let named = |name: &str| {
                let names = [
                    format!("out.gradnorm_{name}"),
                    format!("out.gradnorm_L_{name}"),
                ];
                let found = names.iter().find_map(|n| fixture.arrays.get(n));
                found.map(|array| array.values[0])
            };
            if named("mean").is_none() {
                continue;
            }
            let mut opened = fixture.open("f64");
            let parts = PARTS.map(|(part, _)| part);
            let found = ask(&fixture, &mut opened, "all", |s| {
                s.gradients(&parts).unwrap()
            });
            for ((_, name), gradient) in PARTS.iter().zip(found) {
                let theirs = named(name).unwrap();
                let deviation = (norm(&gradient) / theirs - 1.0).abs();
                println!("{} |grad {name}|: {deviation:.1e}", fixture.name);
                // Rounding leaves 1e-13; the issue of these fixtures asks for 1e-9.
                assert!(deviation < 1e-9, "{} {name}: {deviation:e}", fixture.name);
                compared += 1;
            }
        }
    }
    // Our own fixtures of each model, without anybody else's.
    assert!(compared >= 18, "{compared}");
}

/// A Hessian and its eigenvalues in the fixture, and how exactly they are stored.
struct Known<'a> {
    hessian: Option<&'a [f64]>,
    eigenvalues: &'a [f64],
    /// Of an entry, over the largest.
    entries: f64,
}

/// Names of Hessians and eigenvalues: of the group, by the fixture's prefix.
fn known<'a>(fixture: &'a Reference, prefix: &str, part: &str) -> Option<Known<'a>> {
    let array = |name: String| fixture.arrays.get(&name);
    let hessian = array(format!("out.{prefix}_{part}"));
    let eigenvalues = [
        format!("out.eig_{part}"),
        format!("out.hesseig_{part}"),
        format!("out.{prefix}_{part}_eigvals"),
    ];
    let eigenvalues = eigenvalues.into_iter().find_map(array)?;
    Some(Known {
        hessian: hessian.map(|a| a.values.as_slice()),
        eigenvalues: &eigenvalues.values,
        // VoxMol's are stored in f32 but for one: rounding of the largest, 6e-8.
        entries: match fixture.model {
            "voxmol" if !(fixture.name.ends_with("_a") && part == "mean") => 2e-7,
            _ => 1e-9,
        },
    })
}

/// Our Hessian in the order of the fixture.
fn reordered(ours: &Mat<f64>, order: &[usize]) -> Vec<f64> {
    let n = order.len();
    let mut all = vec![0.0; n * n];
    for (i, a) in order.iter().enumerate() {
        for (j, b) in order.iter().enumerate() {
            all[a * n + b] = ours[(i, j)];
        }
    }
    all
}

fn compare(fixture: &Reference, known: &Known<'_>, ours: &Mat<f64>, order: &[usize], what: &str) {
    let name = &fixture.name;
    let values = eigenvalues(ours).unwrap();
    let eigen = off(&values, known.eigenvalues);
    let entries = known
        .hessian
        .map(|theirs| off(&reordered(ours, order), theirs));
    println!("{name} {what}: eigenvalues {eigen:.1e}, entries {entries:?}");
    assert!(eigen < 1e-9, "{name} {what}: {eigen:e}");
    let entries = entries.unwrap_or(0.0);
    assert!(entries < known.entries, "{name} {what}: {entries:e}");
}

#[test]
fn hessians_over_the_head_and_their_eigenvalues_equal_the_reference() {
    let mut compared = 0;
    for (model, group, prefix) in [
        ("escaip", "head", "hess"),
        ("proteina", "head", "hess"),
        ("proteina", "head-norm", "hess2"),
        ("voxmol", "head", "hess"),
    ] {
        for fixture in Reference::all(model) {
            let has = |part: &str| known(&fixture, prefix, part).is_some();
            if !PARTS.iter().any(|(_, part)| has(part)) {
                continue;
            }
            let mut opened = fixture.open("f64");
            let order = fixture.order(&opened, group);
            let (products, differences) = ask(&fixture, &mut opened, group, |subset| {
                assert!(subset.is_kept(), "{model} keeps what lies below {group}");
                let products = subset
                    .linear()
                    .map(|_| gauss_newton::<f64>(subset).unwrap());
                let start = subset.start().unwrap();
                let parts = PARTS.map(|(part, _)| part);
                let mut at = |p: &[f64]| {
                    let held = subset.move_to(p)?;
                    Ok((held, subset.gradients(&parts)?))
                };
                (
                    products,
                    hessians(&start, Differences::Richardson, &mut at).unwrap(),
                )
            });
            for ((part, name), (direct, asymmetry)) in PARTS.into_iter().zip(differences) {
                let Some(known) = known(&fixture, prefix, name) else {
                    continue;
                };
                compare(
                    &fixture,
                    &known,
                    &direct,
                    &order,
                    &format!("{group} {name}, differences"),
                );
                assert!(asymmetry < 1e-9 * largest(known.eigenvalues));
                if let Some(products) = &products {
                    let exact = products.hessian(part);
                    compare(
                        &fixture,
                        &known,
                        &exact,
                        &order,
                        &format!("{group} {name}, products"),
                    );
                }
                compared += 1;
            }
        }
    }
    println!("{compared} Hessians");
    assert!(compared > 0, "our own fixtures have Hessians");
}
