//! How often 95% intervals cover the truth, over simulated experiments. `docs/intervals.md` has the figures; to make them again:
//!
//! ```sh
//! cargo test --release -p equivbench-core --test spread_coverage -- --include-ignored --nocapture
//! ```
//!
//! A thousand repeats know a coverage of 95% to ± 1.4 points (two standard errors).

use equivbench_core::{
    Sampling, Seed, Stream, Support, group_interval, log_difference, mean_log_variance,
    paired_log_variance, seed_interval, studentised_interval, sums_by_group,
};
use rand::Rng;

const REPEATS: u32 = 1000;
const LEVEL: f64 = 0.95;
/// Spread of the logarithm over seeds: EScAIP's, measured.
const SEED_SD: f64 = 0.4;
/// Groups of the measured set, and the spread of their percents.
const GROUPS: usize = 24;
const GROUP_SD: f64 = 0.5;
/// How much the percent of a group depends on the seed besides.
const OWN_SD: f64 = 0.2;

/// A standard normal number (Box-Muller).
fn normal(stream: &mut Stream) -> f64 {
    let mut uniform = || ((stream.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    (-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()
}

/// The share of repeats that cover, each with a stream of its own.
fn share(name: &str, repeats: u32, covers: impl Fn(&mut Stream) -> bool) -> f64 {
    let seed = Seed::new(17);
    let covered = (0..repeats)
        .filter(|&r| covers(&mut seed.indexed_stream(name, u64::from(r))))
        .count();
    covered as f64 / f64::from(repeats)
}

fn assert_covers(what: &str, share: f64) {
    println!("{what}: {:.1}", 100.0 * share);
    assert!((0.93..=0.97).contains(&share), "{what}: {share}");
}

/// Percents of seeds that were measured on one set of groups: sums of equivariance error and of loss, for each seed.
///
/// `ln percent = ln(median) + SEED_SD z_s + GROUP_SD z_g + OWN_SD z_sg`; what groups share over seeds is `shared`.
fn seeds_on(
    shared: &[f64],
    seeds: usize,
    median: f64,
    stream: &mut Stream,
) -> Vec<Vec<(f64, f64)>> {
    (0..seeds)
        .map(|_| {
            let of_seed = median * (SEED_SD * normal(stream)).exp();
            shared
                .iter()
                .map(|z| {
                    let ratio = of_seed * (GROUP_SD * z + OWN_SD * normal(stream)).exp();
                    (ratio, 1.0)
                })
                .collect()
        })
        .collect()
}

/// What the mean logarithm of [`seeds_on`] is over all seeds, each measured on all groups there are.
fn log_percent(median: f64) -> f64 {
    median.ln() + 0.5 * (GROUP_SD.powi(2) + OWN_SD.powi(2))
}

fn group_effects(groups: usize, stream: &mut Stream) -> Vec<f64> {
    (0..groups).map(|_| normal(stream)).collect()
}

fn percents(seeds: &[Vec<(f64, f64)>]) -> Vec<f64> {
    let ratio = |sums: &Vec<(f64, f64)>| {
        sums.iter().map(|s| s.0).sum::<f64>() / sums.iter().map(|s| s.1).sum::<f64>()
    };
    seeds.iter().map(ratio).collect()
}

fn sampling(variance: f64, groups: usize) -> Option<Sampling> {
    Some(Sampling { variance, groups })
}

/// Coverage over new seeds, given that all groups there are were measured.
fn seeds_given_the_set(seeds: usize, repeats: u32) -> f64 {
    share("given", repeats, |stream| {
        let values: Vec<f64> = (0..seeds)
            .map(|_| (SEED_SD * normal(stream)).exp())
            .collect();
        let i = seed_interval(&values, LEVEL, None).unwrap();
        i.lower <= 1.0 && 1.0 <= i.upper
    })
}

/// Coverage over new seeds and new groups: with the part of the samples, and without.
fn seeds_and_samples(seeds: usize, repeats: u32, with: bool) -> f64 {
    let truth = log_percent(1.0).exp();
    share("sampled", repeats, |stream| {
        let measured = seeds_on(&group_effects(GROUPS, stream), seeds, 1.0, stream);
        let part = sampling(mean_log_variance(&measured).unwrap(), GROUPS).filter(|_| with);
        let i = seed_interval(&percents(&measured), LEVEL, part).unwrap();
        i.lower <= truth && truth <= i.upper
    })
}

/// Welch's difference of two models, one 1.7 times the other, measured on the same groups or on different ones.
fn differences(seeds: (usize, usize), repeats: u32, paired: bool) -> f64 {
    let truth = 1.7;
    share("welch", repeats, |stream| {
        let first = group_effects(GROUPS, stream);
        let second = if paired {
            first.clone()
        } else {
            group_effects(GROUPS, stream)
        };
        let a = seeds_on(&first, seeds.0, truth, stream);
        let b = seeds_on(&second, seeds.1, 1.0, stream);
        let variance = if paired {
            paired_log_variance(&a, &b).unwrap()
        } else {
            mean_log_variance(&a).unwrap() + mean_log_variance(&b).unwrap()
        };
        let part = sampling(variance, GROUPS);
        let d = log_difference(&percents(&a), &percents(&b), LEVEL, part).unwrap();
        d.ratio.lower <= truth && truth <= d.ratio.upper
    })
}

/// Samples of families of one to six members: the ratio of a sample is lognormal, `family_sd` from its family and 0.3 its own;
/// losses vary too.
fn families(
    count: usize,
    family_sd: f64,
    ratio: f64,
    stream: &mut Stream,
) -> (Vec<(f64, f64)>, Vec<u64>) {
    let mut samples = Vec::new();
    for family in 0..count as u64 {
        let of_family = ratio * (family_sd * normal(stream)).exp();
        let loss_of_family = (0.2 * normal(stream)).exp();
        for _ in 0..=stream.next_u64() % 6 {
            let loss = loss_of_family * (0.3 * normal(stream)).exp();
            let of_sample = of_family * (0.3 * normal(stream)).exp();
            samples.push(((loss * of_sample, loss), family));
        }
    }
    samples.into_iter().unzip()
}

/// A ratio that is resampled.
#[derive(Clone, Copy)]
enum Quantity {
    /// `Σ equivariance / Σ total`, around 2%.
    Percent,
    /// `Σ spread / Σ (power + spread)`, around a third: the numerator is part of the denominator.
    Relative,
}

/// Coverage of the bootstrap over families, and of the one that takes samples for independent.
fn bootstrap_over_families(
    quantity: Quantity,
    count: usize,
    family_sd: f64,
    repeats: u32,
    grouped: bool,
) -> f64 {
    let ratio = match quantity {
        Quantity::Percent => 0.02,
        Quantity::Relative => 0.5,
    };
    let mean = ratio * (0.5 * (family_sd.powi(2) + 0.09)).exp();
    let truth = match quantity {
        Quantity::Percent => mean,
        Quantity::Relative => mean / (1.0 + mean),
    };
    share("families", repeats, |stream| {
        let (mut terms, group) = families(count, family_sd, ratio, stream);
        if matches!(quantity, Quantity::Relative) {
            terms.iter_mut().for_each(|t| t.1 += t.0);
        }
        let i = if grouped {
            group_interval(&terms, &group, LEVEL, Support::NonNegative, stream)
        } else {
            studentised_interval(&terms, LEVEL, Support::NonNegative, stream)
        }
        .unwrap();
        assert!(sums_by_group(&terms, &group).len() == count);
        i.lower <= truth && truth <= i.upper
    })
}

#[test]
fn the_interval_over_seeds_covers_as_often_as_it_says() {
    for seeds in [3, 5, 10] {
        let found = seeds_given_the_set(seeds, REPEATS);
        assert_covers(&format!("{seeds} seeds, given the measured set"), found);
        let found = seeds_and_samples(seeds, REPEATS, true);
        assert_covers(&format!("{seeds} seeds and {GROUPS} groups"), found);
    }
}

#[test]
fn welchs_interval_covers_as_often_as_it_says() {
    for seeds in [(3, 3), (5, 5), (10, 10), (3, 8)] {
        for paired in [true, false] {
            let found = differences(seeds, REPEATS, paired);
            assert_covers(&format!("Welch, {seeds:?} seeds, paired {paired}"), found);
        }
    }
}

#[test]
fn the_bootstrap_over_groups_covers_as_often_as_it_says() {
    for families in [12, 15, 18] {
        for (name, quantity) in [
            ("percent", Quantity::Percent),
            ("relative error", Quantity::Relative),
        ] {
            let found = bootstrap_over_families(quantity, families, 0.5, REPEATS, true);
            assert_covers(&format!("{families} families, {name}"), found);
        }
    }
}

#[test]
#[ignore = "slow: a minute for the tables of docs/intervals.md"]
fn the_tables_of_the_page_on_intervals() {
    println!("| seeds | given the measured set | with the part of the samples | without it |");
    for seeds in [3, 5, 10] {
        println!(
            "| {seeds} | {:.1} | {:.1} | {:.1} |",
            100.0 * seeds_given_the_set(seeds, REPEATS),
            100.0 * seeds_and_samples(seeds, REPEATS, true),
            100.0 * seeds_and_samples(seeds, REPEATS, false),
        );
    }
    println!(
        "| families | sigma | percent | relative error | percent, samples taken for independent |"
    );
    for families in [12, 15, 18, 24, 64] {
        for sd in [0.5, 0.7, 1.0, 1.5] {
            let found = |quantity, grouped| {
                100.0 * bootstrap_over_families(quantity, families, sd, REPEATS, grouped)
            };
            println!(
                "| {families} | {sd} | {:.1} | {:.1} | {:.1} |",
                found(Quantity::Percent, true),
                found(Quantity::Relative, true),
                found(Quantity::Percent, false),
            );
        }
    }
}

#[test]
#[ignore = "slow: half a minute for a table of docs/intervals.md"]
fn the_bootstrap_over_groups_known_to_half_a_point() {
    println!("| families | percent, sigma 0.5, 10,000 repeats |");
    for families in [12, 15, 18, 24] {
        let found = bootstrap_over_families(Quantity::Percent, families, 0.5, 10_000, true);
        println!("| {families} | {:.1} |", 100.0 * found);
    }
}
