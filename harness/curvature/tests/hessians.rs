//! Hessians of linear heads: products of features against differences of gradients, kept batches against whole predictions, unbiased
//! estimates against exact averages, and a toy whose spectrum is known.

mod support;

use equivbench_core::{
    Batch, Estimator, Field, FieldKind, LossPart, Model, Portion, RotatedCopies, Rows, Supervised,
};
use equivbench_curvature::{
    Differences, Limits, PartStudy, Subset, SubsetOf, gauss_newton, hessians, study, study_single,
};
use faer::Mat;
use support::{Features, Head, portion, with_plans};

fn all(weigh_samples: bool) -> SubsetOf<'static> {
    SubsetOf {
        group: "all",
        weigh_samples,
    }
}

fn ask<R>(
    head: &mut Head,
    portion: &Portion,
    weigh: bool,
    ask: impl FnOnce(&mut Subset<'_>) -> R,
) -> R {
    let copies = RotatedCopies::new(&*head, portion).unwrap();
    let watch = &mut || Ok(());
    let mut subset = Subset::new(head, &copies, all(weigh), watch).unwrap();
    ask(&mut subset)
}

const CASES: [(&str, Estimator); 4] = [
    ("random-4", Estimator::Unbiased),
    ("random-3", Estimator::PlugIn),
    ("tetrahedral-x2", Estimator::Unbiased),
    ("octahedral", Estimator::Unbiased),
];

fn cases() -> impl Iterator<Item = (Features, &'static str, Estimator, bool)> {
    let features = [Features::Shared, Features::Own, Features::Grid];
    features.into_iter().flat_map(|f| {
        let fits = move |case: &(&str, Estimator)| f != Features::Grid || case.0 == "octahedral";
        let weighed = |(s, e)| [false, true].map(|w| (s, e, w));
        CASES
            .into_iter()
            .filter(fits)
            .flat_map(weighed)
            .map(move |(s, e, w)| (f, s, e, w))
    })
}

fn distance(a: &Mat<f64>, b: &Mat<f64>) -> f64 {
    (a - b).norm_max() / b.norm_max()
}

#[test]
fn products_of_features_are_the_hessians_of_all_parts() {
    for (features, scheme, estimator, weigh) in cases() {
        let portion = portion(features, scheme, estimator, 5);
        let what = format!("{features:?} {scheme} {estimator:?} {weigh}");
        let mut head = Head::new(features, true);
        let (products, differences) = ask(&mut head, &portion, weigh, |subset| {
            let products = gauss_newton::<f64>(subset).unwrap();
            let start = subset.start().unwrap();
            let mut at = |p: &[f64]| {
                let held = subset.move_to(p)?;
                Ok((held, subset.gradients(&LossPart::ALL)?))
            };
            (
                products,
                hessians(&start, Differences::Central, &mut at).unwrap(),
            )
        });
        for (part, (direct, asymmetry)) in LossPart::ALL.into_iter().zip(differences) {
            // Gradients are linear in the parameters here: rounding over the step, 1e-16 / 1e-4.
            let off = distance(&products.hessian(part), &direct);
            assert!(off < 1e-10, "{what} {part:?}: {off:e}");
            assert!(asymmetry < 1e-10 * direct.norm_max());
        }
    }
}

#[test]
fn kept_batches_and_whole_predictions_give_the_same_losses_and_gradients() {
    for (features, scheme, estimator, weigh) in cases() {
        let portion = portion(features, scheme, estimator, 7);
        let [kept, whole] = [true, false].map(|keeps| {
            let mut head = Head::new(features, keeps);
            let before = head.parameters.clone();
            let found = ask(&mut head, &portion, weigh, |subset| {
                assert_eq!(subset.is_kept(), keeps);
                let moved: Vec<f64> = subset.start().unwrap().iter().map(|p| p + 0.1).collect();
                subset.move_to(&moved).unwrap();
                (
                    subset.losses().unwrap(),
                    subset.gradients(&LossPart::ALL).unwrap(),
                )
            });
            assert_eq!(head.parameters, before, "the model is as before");
            found
        });
        // The same sums in another order: the head adds up all copies of a kept batch at once.
        let scale = kept.1[0].iter().fold(0.0_f64, |a, v| a.max(v.abs()));
        let pairs = kept.1.iter().flatten().zip(whole.1.iter().flatten());
        for (a, b) in pairs {
            assert!(
                (a - b).abs() < 1e-13 * scale,
                "{features:?} {scheme}: {a} {b}"
            );
        }
        assert_eq!(kept.0, whole.0, "{features:?} {scheme}");
        let sum: Vec<f64> = kept.1[1]
            .iter()
            .zip(&kept.1[2])
            .map(|(a, b)| a + b)
            .collect();
        assert!(
            sum.iter()
                .zip(&kept.1[0])
                .all(|(s, t)| (s - t).abs() < 1e-13 * scale)
        );
        assert!((kept.0[1] + kept.0[2] - kept.0[0]).abs() < 1e-14 * kept.0[0]);
    }
}

#[test]
fn losses_of_a_linear_head_are_what_its_hessian_says() {
    let portion = portion(Features::Own, "tetrahedral-x2", Estimator::Unbiased, 3);
    let mut head = Head::new(Features::Own, true);
    let parameters = head.parameters.clone();
    let (loss, hessian) = ask(&mut head, &portion, false, |subset| {
        let hessian = gauss_newton::<f64>(subset)
            .unwrap()
            .hessian(LossPart::Equivariance);
        (subset.losses().unwrap()[2], hessian)
    });
    let p = faer::ColRef::from_slice(&parameters);
    let form = 0.5 * (p.transpose() * (&hessian * p));
    assert!((form / loss - 1.0).abs() < 1e-12, "{form} {loss}");
}

/// Hessians and gradients of all parts.
type Found = ([Mat<f64>; 3], Vec<Vec<f64>>);

/// The twisted prediction of own features has degree 2 in the rotation, so the octahedral group averages it exactly; so does every coset
/// of the tetrahedral group. Independent rotations do so in the mean.
#[test]
fn unbiased_hessians_and_gradients_average_to_the_exact_ones() {
    let of = |scheme: &str, estimator, seed| {
        let portion = portion(Features::Own, scheme, estimator, seed);
        ask(
            &mut Head::new(Features::Own, true),
            &portion,
            false,
            |subset| {
                let products = gauss_newton::<f64>(subset).unwrap();
                let gradients = subset.gradients(&LossPart::ALL).unwrap();
                (LossPart::ALL.map(|part| products.hessian(part)), gradients)
            },
        )
    };
    // Over whole cosets L itself is of degree 4, which 24 rotations average exactly too.
    let exact = of("octahedral-x2", Estimator::Unbiased, 1);
    let structured = of("octahedral-x2", Estimator::Unbiased, 2);
    for (a, b) in exact.0.iter().zip(&structured.0) {
        assert!(distance(a, b) < 1e-12);
    }
    let repeats = 400;
    let drawn: Vec<_> = (0..repeats)
        .map(|s| of("random-3", Estimator::Unbiased, 100 + s))
        .collect();
    let plug_in: Vec<_> = (0..repeats)
        .map(|s| of("random-3", Estimator::PlugIn, 100 + s))
        .collect();
    let (mut worst, mut worst_plug_in) = (0.0_f64, 0.0_f64);
    for part in 0..3 {
        let p = exact.0[part].nrows();
        let entries = (0..p).flat_map(|i| (0..=i).map(move |j| (i, j)));
        for (i, j) in entries {
            let z = |all: &[Found]| {
                deviation(all.iter().map(|d| d.0[part][(i, j)]), exact.0[part][(i, j)])
            };
            worst = worst.max(z(&drawn));
            worst_plug_in = worst_plug_in.max(z(&plug_in));
        }
        for i in 0..p {
            let own = drawn.iter().map(|d| d.1[part][i]);
            worst = worst.max(deviation(own, exact.1[part][i]));
        }
    }
    // The largest of 270 standard normal numbers (of which many go together) is below 4.5 in all but 2 of 1,000 draws; the seeds are fixed.
    assert!(worst < 4.5, "{worst}");
    // The plug-in Hessian of L_mean carries a third of that of L_equiv.
    assert!(worst_plug_in > 10.0, "{worst_plug_in}");
}

/// How many standard errors a mean is from what is expected.
fn deviation(values: impl Iterator<Item = f64>, expected: f64) -> f64 {
    let values: Vec<f64> = values.collect();
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
    // An entry that does not vary is right to rounding.
    let error = (variance / n).sqrt().max(1e-13 * expected.abs().max(1e-3));
    (mean - expected).abs() / error
}

const WIDTH: usize = 16;
const CONDITION: f64 = 1e5;

/// Rows `h` with `Σ h hᵀ` of known eigenvalues: the k-th row is an axis of an orthonormal basis times the root of its eigenvalue.
fn known_head() -> (Head, Supervised, Vec<f64>) {
    let eigenvalues: Vec<f64> = (0..WIDTH)
        .map(|k| CONDITION.powf(-(k as f64) / (WIDTH as f64 - 1.0)))
        .collect();
    // A reflection: symmetric and orthonormal.
    let v: Vec<f64> = (0..WIDTH).map(|k| (k as f64 + 1.0).sin()).collect();
    let square: f64 = v.iter().map(|v| v * v).sum();
    let basis = |i: usize, j: usize| f64::from(i == j) - 2.0 * v[i] * v[j] / square;
    let table = (0..WIDTH).flat_map(|r| {
        let root = eigenvalues[r].sqrt();
        (0..WIDTH).map(move |k| (r, k, root))
    });
    let table = table.map(|(r, k, root)| root * basis(r, k)).collect();
    // Points on the unit sphere.
    let unit = |r: usize| {
        let x = [1.0, 2.0, 3.0].map(|a| (a * (r as f64 + 0.7)).sin());
        let length = x.iter().map(|v| v * v).sum::<f64>().sqrt();
        x.map(|v| v / length)
    };
    let cloud = |name: &str, shift: usize| {
        let values = (0..WIDTH).flat_map(|r| unit(r + shift)).collect();
        Field::real(name, FieldKind::Vector, Rows::Point, vec![WIDTH, 3], values)
    };
    let samples = Supervised {
        inputs: Batch {
            offsets: vec![0, WIDTH],
            fields: vec![cloud("positions", 0)],
        },
        target: Some(cloud("target", 5)),
        labels: Vec::new(),
    };
    (Head::with_table(WIDTH, table), samples, eigenvalues)
}

fn limits() -> Limits {
    Limits {
        max_dense: 4096,
        max_bytes: 1 << 30,
        lanczos_steps: 40,
        probes: 2,
        differences: Differences::Richardson,
    }
}

fn part(studies: &[PartStudy], part: LossPart) -> &PartStudy {
    studies.iter().find(|s| s.part == part).unwrap()
}

/// `f_c = u_c w_c·h`: `L_mean` sees the mean of the rows `w_c` with `2/9D` of the eigenvalues thrice, `L_equiv` what is left with `2/3D`,
/// twice each; both have the condition number of `Σ h hᵀ` on their range.
#[test]
fn a_toy_with_a_known_spectrum_is_reported_right_and_the_papers_number_is_not() {
    let (mut head, samples, eigenvalues) = known_head();
    let portion = with_plans(samples, "tetrahedral-x2", Estimator::Unbiased, 4);
    let probe = |_: usize, n: usize| (0..n).map(|i| (i as f64 * 2.3).sin()).collect();
    let (double, single) = ask(&mut head, &portion, false, |subset| {
        let double = study(subset, &limits(), &probe).unwrap().parts;
        (double, study_single(subset, &limits()).unwrap().unwrap())
    });
    let components = 3.0 * WIDTH as f64;
    for (which, rank) in [
        (LossPart::Twirled, WIDTH),
        (LossPart::Equivariance, 2 * WIDTH),
    ] {
        let (found, rounded) = (part(&double, which), part(&single, which));
        let figures = found.figures.clone().unwrap();
        assert_eq!(figures.rank, rank);
        // Both factors are 2/3D: (2/9D) · 3 for the mean.
        let scale = 2.0 / (3.0 * components);
        assert!((figures.largest / scale / eigenvalues[0] - 1.0).abs() < 1e-12);
        // Eigenvalues are good to a few ε of the largest: 1e-15 · 1e5 of the smallest.
        assert!((figures.condition.unwrap() / CONDITION - 1.0).abs() < 1e-9);
        assert!(found.residual.unwrap() < 1e-13);
        let in_single = rounded.figures.clone().unwrap();
        assert_eq!((in_single.rank, rounded.precision), (rank, "f32"));
        // A few f32 ε of the largest, 1e-7, over the smallest, 1e-5.
        assert!((in_single.condition.unwrap() / CONDITION - 1.0).abs() < 0.05);
        // The paper's number is that of rounding, in either precision: beyond what the matrix has by orders of magnitude.
        let paper = |f: &equivbench_curvature::Figures| f.condition_paper.unwrap();
        assert!(paper(&figures) > 1e13, "{:e}", paper(&figures));
        assert!(
            paper(&in_single) > 30.0 * CONDITION,
            "{:e}",
            paper(&in_single)
        );
        // Decay is the same in both.
        for (a, b) in [
            (found.decay.half, rounded.decay.half),
            (found.decay.most, rounded.decay.most),
            (found.decay.nearly_all, rounded.decay.nearly_all),
        ] {
            let (a, b) = (a.unwrap(), b.unwrap());
            assert!((a / b - 1.0).abs() < 0.02, "{which:?} {a} {b}");
        }
    }
}

#[test]
fn without_the_matrix_lanczos_sees_the_same_ends_and_the_same_decay() {
    let (mut head, samples, _) = known_head();
    let portion = with_plans(samples, "tetrahedral-x2", Estimator::Unbiased, 4);
    let probe = |i: usize, n: usize| (0..n).map(|k| ((k + 7 * i) as f64 * 2.3).sin()).collect();
    let [dense, free] = [4096, 10].map(|max_dense| {
        let limits = Limits {
            max_dense,
            ..limits()
        };
        ask(&mut head, &portion, false, |subset| {
            study(subset, &limits, &probe).unwrap().parts
        })
    });
    for which in LossPart::ALL {
        let (a, b) = (part(&dense, which), part(&free, which));
        assert_eq!(b.method.name(), "lanczos");
        assert!((a.largest / b.largest - 1.0).abs() < 1e-9);
        assert!(b.figures.is_none());
        // Each part has sixteen different eigenvalues: the run ends by itself, and is exact but for the errors of differences.
        let (a, b) = (a.decay.most.unwrap(), b.decay.most.unwrap());
        assert!((a / b - 1.0).abs() < 1e-4, "{which:?} {a} {b}");
    }
    let none = Limits {
        max_dense: 10,
        max_bytes: 100,
        ..limits()
    };
    let refused = ask(&mut head, &portion, false, |subset| {
        study(subset, &none, &probe)
    });
    assert!(refused.err().unwrap().to_string().contains("max_gb"));
    assert!(none.why_not_dense(48).unwrap().contains("max_dense = 10"));
    let mut out = Vec::new();
    head.parameters_into("all", &mut out).unwrap();
    assert_eq!(out.len(), 48);
}

/// Gradients in single precision would be off by their rounding over the step; the f64 matrix rounded is off by its own rounding only.
#[test]
fn hessians_of_differences_are_rounded_and_not_differenced_in_single_precision() {
    let (head, samples, _) = known_head();
    let portion = with_plans(samples, "tetrahedral-x2", Estimator::Unbiased, 4);
    let probe = |_: usize, n: usize| vec![1.0; n];
    let study_of = |keeps: bool| {
        let (mut head, ..) = known_head();
        head.keeps = keeps;
        ask(&mut head, &portion, false, |subset| {
            let found = study(subset, &limits(), &probe).unwrap();
            (
                found.rounded().unwrap(),
                study_single(subset, &limits()).unwrap(),
            )
        })
    };
    assert!(head.keeps);
    let (from_features, products) = study_of(true);
    assert!(
        from_features.is_none(),
        "single precision makes products itself"
    );
    let (rounded, none) = study_of(false);
    assert!(none.is_none(), "there are no features to multiply");
    let (rounded, products) = (rounded.unwrap(), products.unwrap());
    for which in LossPart::ALL {
        let (a, b) = (part(&rounded, which), part(&products, which));
        assert_eq!((a.precision, a.method.name()), ("f32", "differences"));
        // A few units in the last place of f32, 1e-7, of sums of 48 products.
        assert!((a.largest / b.largest - 1.0).abs() < 1e-5);
        let ranks = [a, b].map(|s| s.figures.clone().unwrap().rank);
        assert_eq!(ranks[0], ranks[1], "{which:?}");
    }
}
