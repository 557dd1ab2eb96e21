//! The 95% interval covers the truth in 93 to 97 of 100 simulated experiments.

use equivbench_core::{
    Estimator, MeasuredSample, PointLoss, Rotation, Scheme, Seed, TwirlAccumulator, pool,
};
use rand::Rng;

/// A standard normal number (Box-Muller).
fn normal(stream: &mut impl Rng) -> f64 {
    let mut uniform = || ((stream.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
}

/// A molecule of 6 to 29 atoms; the model is `x + c_s + noise_s(T)`: a bias whose size varies from sample to sample, so that
/// the terms are skewed. Returns its target, its bias and the positions.
fn sample(stream: &mut impl Rng) -> (Vec<[f64; 3]>, Vec<[f64; 3]>, [f64; 3]) {
    let atoms = 6 + (stream.next_u64() % 24) as usize;
    let mut vector = || [normal(stream), normal(stream), normal(stream)];
    let positions: Vec<[f64; 3]> = (0..atoms).map(|_| vector()).collect();
    let targets = (0..atoms).map(|_| vector()).collect();
    let size = 0.3 * (0.4 * vector()[0]).exp();
    let bias = vector().map(|c| size * c);
    (positions, targets, bias)
}

/// The exact terms of one sample: `μ = x`, so `L_mean·D = Σ‖x − y‖²` and `L_equiv·D = N‖c‖²`.
fn truth(positions: &[[f64; 3]], targets: &[[f64; 3]], bias: [f64; 3]) -> (f64, f64) {
    let mean: f64 = positions
        .iter()
        .zip(targets)
        .flat_map(|(x, y)| (0..3).map(move |i| (x[i] - y[i]).powi(2)))
        .sum();
    (
        mean,
        positions.len() as f64 * bias.iter().map(|c| c * c).sum::<f64>(),
    )
}

#[test]
fn the_interval_covers_the_truth_as_often_as_it_says() {
    let population = Seed::new(1);
    let mut stream = population.stream("population");
    let (mut all_mean, mut all_equiv) = (0.0, 0.0);
    for _ in 0..200_000 {
        let (x, y, c) = sample(&mut stream);
        let (mean, equiv) = truth(&x, &y, c);
        all_mean += mean;
        all_equiv += equiv;
    }
    let percent = 100.0 * all_equiv / (all_mean + all_equiv);

    let scheme = Scheme::Random { rotations: 10 };
    let repeats = 1000;
    let mut covered = 0;
    for repeat in 0..repeats {
        let seed = Seed::new(1000 + repeat);
        let mut stream = seed.stream("samples");
        let terms: Vec<_> = (0..64)
            .map(|s| {
                let (x, y, c) = sample(&mut stream);
                let plan = scheme.plan(seed, s);
                let target: Vec<f64> = y.iter().flatten().copied().collect();
                let mut twirl = TwirlAccumulator::new(target, 3, plan.cosets, PointLoss::Mse);
                for (i, t) in plan.rotations.iter().enumerate() {
                    twirl.push(plan.coset_of(i), &twisted(t, &x, c));
                }
                MeasuredSample {
                    index: s,
                    group: s,
                    terms: twirl.finish(Estimator::Unbiased),
                    baseline: 0.0,
                }
            })
            .collect();
        let interval = pool(&terms, true, seed).sampling.percent.unwrap();
        covered += u32::from(interval.lower <= percent && percent <= interval.upper);
    }
    let share = f64::from(covered) / repeats as f64;
    println!(
        "coverage {share} over {repeats} repeats of 64 samples x 10 rotations, true percent {percent:.3}"
    );
    assert!((0.93..=0.97).contains(&share), "coverage {share}");
}

/// `T⁻¹ (T x + c)`.
fn twisted(t: &Rotation, positions: &[[f64; 3]], bias: [f64; 3]) -> Vec<f64> {
    let c = t.inverse().apply(bias);
    positions
        .iter()
        .flat_map(|x| [x[0] + c[0], x[1] + c[1], x[2] + c[2]])
        .collect()
}
