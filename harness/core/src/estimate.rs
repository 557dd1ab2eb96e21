//! From samples to one estimate with its interval.

use crate::{
    Interval, LossDecomposition, PointLoss, Scheme, Seed, Support, group_interval, log_variance,
    sums_by_group,
};

/// How the average over rotations is estimated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Estimator {
    /// As the paper reports it: `E[L_equiv] = (1 − 1/n) L_equiv`.
    PlugIn,
    /// Without bias.
    Unbiased,
}

impl Estimator {
    /// Reads `plug-in` or `unbiased`.
    ///
    /// # Errors
    /// An unknown name.
    pub fn parse(name: &str) -> Result<Self, crate::CoreError> {
        match name {
            "plug-in" => Ok(Self::PlugIn),
            "unbiased" => Ok(Self::Unbiased),
            _ => Err(crate::CoreError::Unknown {
                what: "estimator",
                name: name.into(),
                known: "unbiased, plug-in".into(),
            }),
        }
    }

    /// Name in suites and tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlugIn => "plug-in",
            Self::Unbiased => "unbiased",
        }
    }

    /// What an estimate over a scheme is called in tables: `exact` over a set used whole; of other losses than the squared error no
    /// unbiased estimate is known, `l(μ̂, y)` is a plug-in.
    #[must_use]
    pub const fn named_for(self, scheme: &Scheme, loss: PointLoss) -> &'static str {
        match (scheme.is_sampled(), loss) {
            (false, _) => "exact",
            (true, PointLoss::Mse) => self.name(),
            (true, _) => Self::PlugIn.name(),
        }
    }
}

/// What one sample contributes: sums over its components, averaged over its rotations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleTerms {
    /// What the loss sums are divided by (D for the squared error).
    pub components: f64,
    /// `E_T ‖Z − y‖²`.
    pub loss_total: f64,
    /// `E_T ‖Z − μ‖²`.
    pub loss_equiv: f64,
    /// The same as a plug-in estimate has it; of other losses than the squared error there is no other.
    pub loss_equiv_plug_in: f64,
    /// `‖y‖²`.
    pub power_target: f64,
    /// `‖μ‖²`.
    pub power_twirled: f64,
    /// `E_T ‖Z − μ‖²`, whatever the loss.
    pub power_spread: f64,
    /// Components of the prediction.
    pub prediction_components: f64,
}

impl SampleTerms {
    /// The same sample with the weight of one component: what a task that balances samples pools.
    #[must_use]
    pub fn averaged(&self) -> Self {
        Self {
            components: 1.0,
            loss_total: self.loss_total / self.components,
            loss_equiv: self.loss_equiv / self.components,
            loss_equiv_plug_in: self.loss_equiv_plug_in / self.components,
            power_target: self.power_target / self.prediction_components,
            power_twirled: self.power_twirled / self.prediction_components,
            power_spread: self.power_spread / self.prediction_components,
            prediction_components: 1.0,
        }
    }
}

/// What one measured sample contributed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeasuredSample {
    /// Index in the measured split of the dataset.
    pub index: u64,
    /// Samples that are not independent of each other share a group; a sample of which nothing is known has one of its own.
    pub group: u64,
    /// Its sums, as the task balances samples.
    pub terms: SampleTerms,
    /// The loss of the task's baseline for it, summed (and balanced) as that of the model is.
    pub baseline: f64,
}

impl MeasuredSample {
    /// Samples of which nothing is known: each a group of its own, and a baseline that predicts nothing (squared error).
    #[must_use]
    pub fn independent(terms: &[SampleTerms]) -> Vec<Self> {
        let sample = |(index, terms): (usize, &SampleTerms)| Self {
            index: index as u64,
            group: index as u64,
            terms: *terms,
            baseline: terms.power_target,
        };
        terms.iter().enumerate().map(sample).collect()
    }
}

/// The measured split of a loss over a set of samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// Pooled over all components of all samples.
    pub pooled: LossDecomposition,
    /// Percent when each sample's loss is averaged over its components first.
    pub percent_per_sample: f64,
    /// Pooled percent by the plug-in estimate, `(1 − 1/n)` of the unbiased one for `n` random rotations.
    pub percent_plug_in: f64,
    /// `P_y`.
    pub power_target: f64,
    /// `P_mu`; an unbiased estimate, which may fall below 0 where next to nothing is predicted.
    pub power_twirled: f64,
    /// `L_equiv / (P_mu + L_equiv)`, at most 1.
    pub relative_equiv: f64,
    /// `L_b`, the loss of the task's baseline for the same samples.
    pub baseline_loss: f64,
    /// `1 − L_mean / L_b`, squared error only.
    pub skill: Option<f64>,
    /// `1 − L_mean / P_y`: skill against predicting nothing, squared error only.
    pub skill_over_zero: Option<f64>,
    /// How far groups of samples make them uncertain.
    pub sampling: Sampled,
    /// Number of samples.
    pub samples: usize,
    /// Number of groups of samples.
    pub groups: usize,
}

/// What the choice of measured groups leaves open: 95% intervals by the studentised bootstrap over groups, each with its samples and
/// their rotations. `None` for fewer than five groups.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    /// Of the pooled percent.
    pub percent: Option<Interval>,
    /// Of the pooled loss.
    pub loss: Option<Interval>,
    /// Of the skill.
    pub skill: Option<Interval>,
    /// Of the relative error, between 0 and 1.
    pub relative_equiv: Option<Interval>,
    /// Standard error of the logarithm of the percent, by linearisation.
    pub percent_log_se: Option<f64>,
    /// Standard error of the logarithm of the loss.
    pub loss_log_se: Option<f64>,
}

/// Level of every interval.
const LEVEL: f64 = 0.95;

/// Pools samples; the bootstrap draws from streams of the seed.
#[must_use]
pub fn pool(samples: &[MeasuredSample], squared: bool, seed: Seed) -> Estimate {
    let sum = |f: fn(&SampleTerms) -> f64| samples.iter().map(|s| f(&s.terms)).sum::<f64>();
    let over = sum(|t| t.components);
    let (total, equivariance) = (sum(|t| t.loss_total) / over, sum(|t| t.loss_equiv) / over);
    let pooled = LossDecomposition {
        twirled: total - equivariance,
        equivariance,
    };
    let with_plug_in = LossDecomposition {
        twirled: total - sum(|t| t.loss_equiv_plug_in) / over,
        equivariance: sum(|t| t.loss_equiv_plug_in) / over,
    };
    let per_sample = LossDecomposition {
        twirled: sum(|t| (t.loss_total - t.loss_equiv) / t.components),
        equivariance: sum(|t| t.loss_equiv / t.components),
    };
    let prediction = sum(|t| t.prediction_components);
    let (power_target, power_twirled) = (
        sum(|t| t.power_target) / prediction,
        sum(|t| t.power_twirled) / prediction,
    );
    let spread = sum(|t| t.power_spread) / prediction;
    let baseline_loss = samples.iter().map(|s| s.baseline).sum::<f64>() / over;
    let over_loss =
        |reference: f64| (squared && reference > 0.0).then(|| 1.0 - pooled.twirled / reference);
    let mut groups: Vec<u64> = samples.iter().map(|s| s.group).collect();
    groups.sort_unstable();
    groups.dedup();
    let power = power_twirled + spread;
    Estimate {
        pooled,
        percent_per_sample: per_sample.percent(),
        percent_plug_in: with_plug_in.percent(),
        power_target,
        power_twirled,
        relative_equiv: if power > 0.0 {
            (spread / power).min(1.0)
        } else {
            0.0
        },
        baseline_loss,
        skill: over_loss(baseline_loss),
        skill_over_zero: over_loss(power_target),
        sampling: sampled(samples, squared, seed),
        samples: samples.len(),
        groups: groups.len(),
    }
}

/// Every figure is a ratio of sums over samples.
fn sampled(samples: &[MeasuredSample], squared: bool, seed: Seed) -> Sampled {
    type Ratio = fn(&MeasuredSample) -> (f64, f64);
    let percent: Ratio = |s| (100.0 * s.terms.loss_equiv, s.terms.loss_total);
    let loss: Ratio = |s| (s.terms.loss_total, s.terms.components);
    let relative: Ratio = |s| {
        let power = s.terms.power_twirled + s.terms.power_spread;
        (s.terms.power_spread, power)
    };
    let skill: Ratio = |s| {
        let twirled = s.terms.loss_total - s.terms.loss_equiv;
        (s.baseline - twirled, s.baseline)
    };
    let groups: Vec<u64> = samples.iter().map(|s| s.group).collect();
    let pairs = |of: Ratio| -> Vec<(f64, f64)> { samples.iter().map(of).collect() };
    let interval = |of: Ratio, name: &str, support| {
        group_interval(&pairs(of), &groups, LEVEL, support, &mut seed.stream(name))
    };
    // A percent of a loss ends at 100; an unbiased estimate may lie a little above.
    let ending = |most: f64| {
        move |i: Interval| Interval {
            upper: i.upper.min(most.max(i.lower)),
            ..i
        }
    };
    let log_se = |of: Ratio| {
        let variance = log_variance(&sums_by_group(&pairs(of), &groups))?;
        Some(variance.sqrt()).filter(|se| se.is_finite())
    };
    let own = |of: Ratio| {
        let (a, b) = pairs(of)
            .iter()
            .fold((0.0, 0.0), |s, p| (s.0 + p.0, s.1 + p.1));
        a / b
    };
    Sampled {
        percent: interval(percent, "bootstrap", Support::NonNegative)
            .map(ending(own(percent).max(100.0))),
        loss: interval(loss, "bootstrap/loss", Support::NonNegative),
        skill: squared
            .then(|| interval(skill, "bootstrap/skill", Support::Real))
            .flatten(),
        relative_equiv: interval(relative, "bootstrap/relative", Support::NonNegative)
            .map(ending(1.0)),
        percent_log_se: log_se(percent),
        loss_log_se: log_se(loss),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FiniteGroup, PointLoss, Rotation, Scheme, Seed, TwirlAccumulator};

    const X: [f64; 6] = [0.3, -1.2, 0.7, 2.0, 0.1, -0.4];
    const Y: [f64; 6] = [0.5, 0.0, -0.2, 0.1, 1.0, 0.3];

    fn twist(f: impl Fn([f64; 3]) -> [f64; 3], t: &Rotation) -> Vec<f64> {
        X.chunks_exact(3)
            .flat_map(|x| t.inverse().apply(f(t.apply([x[0], x[1], x[2]]))))
            .collect()
    }

    fn terms(
        f: impl Fn([f64; 3]) -> [f64; 3] + Copy,
        scheme: Scheme,
        estimator: Estimator,
        sample: u64,
        loss: PointLoss,
    ) -> SampleTerms {
        let plan = scheme.plan(Seed::new(11), sample);
        let mut twirl = TwirlAccumulator::new(Y.to_vec(), 3, plan.cosets, loss);
        for (i, t) in plan.rotations.iter().enumerate() {
            twirl.push(plan.coset_of(i), &twist(f, t));
        }
        twirl.finish(estimator)
    }

    /// x ↦ A x has the twirl (tr A / 3) x and E‖Z − μ‖² = (‖A‖²_F/3 − (tr A/3)²) ‖x‖².
    const A: [[f64; 3]; 3] = [[2.0, 0.3, -1.0], [0.0, 0.5, 0.7], [1.1, -0.2, -1.0]];
    fn linear(x: [f64; 3]) -> [f64; 3] {
        A.map(|row| row[0] * x[0] + row[1] * x[1] + row[2] * x[2])
    }
    fn linear_truth() -> (f64, f64) {
        let trace = (A[0][0] + A[1][1] + A[2][2]) / 3.0;
        let frobenius: f64 = A.iter().flatten().map(|v| v * v).sum();
        let power: f64 = X.iter().map(|x| x * x).sum();
        let mean: f64 = X.iter().zip(Y).map(|(x, y)| (trace * x - y).powi(2)).sum();
        (mean, (frobenius / 3.0 - trace * trace) * power)
    }

    #[test]
    fn a_constant_bias_has_a_third_of_its_square_as_equivariance_error() {
        let biased = |x: [f64; 3]| [x[0] + 0.5, x[1] - 1.0, x[2] + 2.0];
        let t = terms(
            biased,
            Scheme::Exhaustive(FiniteGroup::Tetrahedral),
            Estimator::Unbiased,
            0,
            PointLoss::Mse,
        );
        // Two points, c = (0.5, -1, 2): E‖T⁻¹c‖² = ‖c‖² each; divided by D = 6 it is ‖c‖²/3.
        assert!((t.loss_equiv / t.components - 5.25 / 3.0).abs() < 1e-14);
    }

    #[test]
    fn a_linear_map_is_measured_exactly_by_every_structured_scheme() {
        let (mean, equiv) = linear_truth();
        for scheme in [
            "tetrahedral",
            "octahedral",
            "icosahedral",
            "tetrahedral-x2",
            "octahedral-x3",
            "icosahedral-x2",
        ] {
            let t = terms(
                linear,
                Scheme::parse(scheme).unwrap(),
                Estimator::Unbiased,
                3,
                PointLoss::Mse,
            );
            // 1e-12: sums of 60 rotations of numbers of order ten.
            assert!((t.loss_equiv / equiv - 1.0).abs() < 1e-12, "{scheme}");
            assert!(
                ((t.loss_total - t.loss_equiv) / mean - 1.0).abs() < 1e-12,
                "{scheme}"
            );
        }
    }

    #[test]
    fn the_plug_in_estimate_is_biased_by_one_minus_one_over_n_and_the_unbiased_is_not() {
        let (mean, equiv) = linear_truth();
        let (n, repeats) = (5usize, 20_000u64);
        let scheme = Scheme::Random { rotations: n };
        let average = |estimator, f: fn(&SampleTerms) -> f64| -> (f64, f64) {
            let values: Vec<f64> = (0..repeats)
                .map(|s| f(&terms(linear, scheme, estimator, s, PointLoss::Mse)))
                .collect();
            let m = values.iter().sum::<f64>() / repeats as f64;
            let v = values.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (repeats as f64 - 1.0);
            (m, (v / repeats as f64).sqrt())
        };
        let shrink = 1.0 - 1.0 / n as f64;
        type Case = (Estimator, fn(&SampleTerms) -> f64, f64);
        let cases: [Case; 4] = [
            (Estimator::PlugIn, |t| t.loss_equiv, shrink * equiv),
            (
                Estimator::PlugIn,
                |t| t.loss_total - t.loss_equiv,
                mean + equiv / n as f64,
            ),
            (Estimator::Unbiased, |t| t.loss_equiv, equiv),
            (Estimator::Unbiased, |t| t.loss_total - t.loss_equiv, mean),
        ];
        for (estimator, f, truth) in cases {
            let (m, se) = average(estimator, f);
            // Four standard errors; and the bias is seen, not lost in the spread.
            assert!(
                (m - truth).abs() < 4.0 * se,
                "{estimator:?}: {m} ± {se}, truth {truth}"
            );
            assert!(
                se < 0.05 * equiv / n as f64,
                "the spread {se} hides the bias"
            );
        }
    }

    #[test]
    fn the_power_of_the_twirled_prediction_is_unbiased_too() {
        let trace = (A[0][0] + A[1][1] + A[2][2]) / 3.0;
        let truth = trace * trace * X.iter().map(|x| x * x).sum::<f64>();
        let n = 20_000;
        let values: Vec<f64> = (0..n)
            .map(|s| {
                terms(
                    linear,
                    Scheme::Random { rotations: 4 },
                    Estimator::Unbiased,
                    s,
                    PointLoss::Mse,
                )
                .power_twirled
            })
            .collect();
        let m = values.iter().sum::<f64>() / n as f64;
        let se = (values.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (n * n) as f64).sqrt();
        assert!((m - truth).abs() < 4.0 * se, "{m} ± {se}, truth {truth}");
    }

    #[test]
    fn the_streamed_decomposition_equals_the_slow_one_for_every_convex_loss() {
        for loss in [PointLoss::Mse, PointLoss::Mae, PointLoss::L2] {
            let bend = |x: [f64; 3]| [x[0].sin() + x[1], x[1] * x[2], x[2].cos()];
            let scheme = Scheme::Random { rotations: 7 };
            let plan = scheme.plan(Seed::new(11), 2);
            let twisted: Vec<Vec<f64>> = plan.rotations.iter().map(|t| twist(bend, t)).collect();
            let slow = LossDecomposition::of(loss, &twisted, &Y, 3);
            let t = terms(bend, scheme, Estimator::PlugIn, 2, loss);
            assert!(
                (t.loss_total / t.components - slow.total()).abs() < 1e-13,
                "{loss:?}"
            );
            assert!(
                (t.loss_equiv / t.components - slow.equivariance).abs() < 1e-13,
                "{loss:?}"
            );
            assert!(slow.equivariance >= 0.0);
        }
    }

    #[test]
    fn an_equivariant_map_has_no_equivariance_error_and_doubling_a_loss_leaves_the_percent_alone() {
        let radial = |x: [f64; 3]| x.map(|v| v * (x[0] * x[0] + x[1] * x[1] + x[2] * x[2]));
        let t = terms(
            radial,
            Scheme::Random { rotations: 10 },
            Estimator::Unbiased,
            0,
            PointLoss::Mse,
        );
        assert!(t.loss_equiv < 1e-28, "{}", t.loss_equiv);
        let a = LossDecomposition {
            twirled: 3.0,
            equivariance: 1.0,
        };
        let b = LossDecomposition {
            twirled: 6.0,
            equivariance: 2.0,
        };
        assert_eq!(a.percent(), 25.0);
        assert_eq!(a.percent(), b.percent());
        assert!((a.percent() - 100.0 * a.loss_ratio() / (1.0 + a.loss_ratio())).abs() < 1e-12);
    }

    #[test]
    fn averaged_terms_give_the_mean_over_samples_of_their_mean_losses() {
        let scheme = Scheme::Random { rotations: 6 };
        let own: Vec<SampleTerms> = (0..3)
            .map(|s| terms(linear, scheme, Estimator::Unbiased, s, PointLoss::Mse))
            .collect();
        // Samples of different size: the second counts as if it had ten times the components.
        let sized: Vec<SampleTerms> = own
            .iter()
            .enumerate()
            .map(|(i, t)| scaled(t, [1.0, 10.0, 3.0][i]))
            .collect();
        let mean = |f: fn(&SampleTerms) -> f64| own.iter().map(|t| f(t) / 6.0).sum::<f64>() / 3.0;
        let averaged: Vec<SampleTerms> = sized.iter().map(SampleTerms::averaged).collect();
        let estimate = pool(&MeasuredSample::independent(&averaged), true, Seed::new(1));
        assert!((estimate.pooled.total() / mean(|t| t.loss_total) - 1.0).abs() < 1e-14);
        assert!((estimate.pooled.equivariance / mean(|t| t.loss_equiv) - 1.0).abs() < 1e-14);
        assert!((estimate.power_target / mean(|t| t.power_target) - 1.0).abs() < 1e-14);
        // Then both percents are the same, where pooling over components tells them apart.
        assert!((estimate.pooled.percent() - estimate.percent_per_sample).abs() < 1e-12);
        let by_components = pool(&MeasuredSample::independent(&sized), true, Seed::new(1));
        assert!((by_components.pooled.percent() - by_components.percent_per_sample).abs() > 1e-6);
    }

    /// The terms of a sample that is `n` copies of this one.
    fn scaled(t: &SampleTerms, n: f64) -> SampleTerms {
        SampleTerms {
            components: n * t.components,
            loss_total: n * t.loss_total,
            loss_equiv: n * t.loss_equiv,
            loss_equiv_plug_in: n * t.loss_equiv_plug_in,
            power_target: n * t.power_target,
            power_twirled: n * t.power_twirled,
            power_spread: n * t.power_spread,
            prediction_components: n * t.prediction_components,
        }
    }

    #[test]
    fn predicting_nothing_has_no_skill_and_a_perfect_model_has_all() {
        let nothing = terms(
            |_| [0.0; 3],
            Scheme::Random { rotations: 4 },
            Estimator::Unbiased,
            0,
            PointLoss::Mse,
        );
        let estimate = pool(&MeasuredSample::independent(&[nothing]), true, Seed::new(1));
        assert_eq!(
            (estimate.skill, estimate.skill_over_zero),
            (Some(0.0), Some(0.0))
        );
        assert_eq!(estimate.pooled.percent(), 0.0);
        assert_eq!(estimate.sampling.percent, None);
    }

    #[test]
    fn skill_is_against_the_baseline_of_the_same_samples_and_its_interval_over_groups() {
        let scheme = Scheme::Random { rotations: 6 };
        let own: Vec<SampleTerms> = (0..12)
            .map(|s| terms(linear, scheme, Estimator::Unbiased, s, PointLoss::Mse))
            .collect();
        let mut samples = MeasuredSample::independent(&own);
        for (i, sample) in samples.iter_mut().enumerate() {
            sample.group = (i / 2) as u64;
            sample.baseline =
                (2.0 + i as f64) * (sample.terms.loss_total - sample.terms.loss_equiv);
        }
        let estimate = pool(&samples, true, Seed::new(1));
        let twirled: f64 = own.iter().map(|t| t.loss_total - t.loss_equiv).sum();
        let baseline: f64 = samples.iter().map(|s| s.baseline).sum();
        assert!((estimate.skill.unwrap() - (1.0 - twirled / baseline)).abs() < 1e-14);
        assert_eq!((estimate.samples, estimate.groups), (12, 6));
        let interval = estimate.sampling.skill.unwrap();
        assert!(
            interval.lower < estimate.skill.unwrap() && estimate.skill.unwrap() < interval.upper
        );
        // The model that is the baseline has no skill, whatever it is.
        for sample in &mut samples {
            sample.baseline = sample.terms.loss_total - sample.terms.loss_equiv;
        }
        let equal = pool(&samples, true, Seed::new(1));
        assert!(equal.skill.unwrap().abs() < 1e-15);
        assert!(equal.sampling.skill.unwrap().lower <= 0.0);
    }

    #[test]
    fn a_plug_in_percent_stands_beside_the_unbiased_one_and_a_relative_error_ends_at_one() {
        let scheme = Scheme::Random { rotations: 5 };
        let own: Vec<SampleTerms> = (0..6)
            .map(|s| terms(linear, scheme, Estimator::Unbiased, s, PointLoss::Mse))
            .collect();
        let plug_in: Vec<SampleTerms> = (0..6)
            .map(|s| terms(linear, scheme, Estimator::PlugIn, s, PointLoss::Mse))
            .collect();
        let estimate = pool(&MeasuredSample::independent(&own), true, Seed::new(1));
        let other = pool(&MeasuredSample::independent(&plug_in), true, Seed::new(1));
        assert!((estimate.percent_plug_in - other.pooled.percent()).abs() < 1e-12);
        assert!((estimate.percent_plug_in / estimate.pooled.percent() - 0.8).abs() < 1e-12);
        let mut below = MeasuredSample::independent(&own);
        below
            .iter_mut()
            .for_each(|s| s.terms.power_twirled = -0.5 * s.terms.power_spread);
        let estimate = pool(&below, true, Seed::new(1));
        assert_eq!(estimate.relative_equiv, 1.0);
        assert!(estimate.power_twirled < 0.0);
    }
}
