//! `measure.scheme = auto`: the cheapest rotation scheme whose error does not matter beside that of the samples.
//!
//! **The error of a scheme.** With `K` cosets of a group `G` and twirled error `m̃ = m − μ` of a coset mean, the unbiased estimate of a
//! sample is `mean ‖Z − μ‖² − cross(m̃_j·m̃_k)`, and the two parts are uncorrelated. Averaging over a coset leaves of degree `l` what `G`
//! leaves invariant, `φ_l = n_l/(2l+1)` of its energy on average over orientations of the sample (`n_l`: invariants of `G` in that degree,
//! `1/|G|` of the many degrees above). So the linearised percent, `ρ(T) = ‖Z − μ‖²/Σ L_equiv − ‖Z − y‖²/Σ L` of each sample, has the variance
//! `Σ_l φ_l R_l / K + 2 ‖C‖²_F / (K(K−1)) / (Σ L_equiv)²`, `R_l` the energies of `ρ` and `C` the covariance of coset means. Of single
//! rotations `‖C‖²_F` is measured; of cosets it is at most `(tr C)² = (Σ_l φ_l E_l)²`, which is small where cosets do what they are for.
//!
//! **The error of the samples** is that of `equiv_percent_log_se`: the linearised variance over groups. Both fall alike with the number of
//! samples, so a few samples tell which one is larger.

use crate::{
    DEGREES, FiniteGroup, Rotation, Scatter, Scheme, character, degree_energies, log_variance,
    sums_by_group,
};

/// The error from rotations may be this much of that from samples: it then adds a twentieth to the interval.
pub const ROTATION_SHARE: f64 = 1.0 / 3.0;

/// What there is to choose from.
const CANDIDATES: [Scheme; 14] = [
    random(8),
    random(12),
    random(16),
    structured(FiniteGroup::Tetrahedral, 2),
    structured(FiniteGroup::Tetrahedral, 3),
    structured(FiniteGroup::Octahedral, 2),
    structured(FiniteGroup::Tetrahedral, 4),
    structured(FiniteGroup::Octahedral, 3),
    structured(FiniteGroup::Tetrahedral, 6),
    structured(FiniteGroup::Octahedral, 4),
    structured(FiniteGroup::Icosahedral, 2),
    structured(FiniteGroup::Octahedral, 8),
    structured(FiniteGroup::Icosahedral, 4),
    structured(FiniteGroup::Icosahedral, 8),
];

const fn random(rotations: usize) -> Scheme {
    Scheme::Random { rotations }
}

const fn structured(group: FiniteGroup, cosets: usize) -> Scheme {
    Scheme::Structured { group, cosets }
}

/// How one sample depends on its rotation.
#[derive(Clone, Debug)]
pub struct Spectrum {
    group: u64,
    rotations: Vec<Rotation>,
    /// `‖Z_i − μ̂‖²` and `‖Z_i − y‖²`.
    squares: Vec<f64>,
    losses: Vec<f64>,
    energies: [f64; DEGREES],
    concentration: f64,
    loss_equiv: f64,
}

impl Spectrum {
    /// Of twisted predictions under independent Haar rotations. `weight` is that of a component: what balances samples.
    ///
    /// `None` for fewer than three rotations.
    ///
    /// # Panics
    /// Where there is not one rotation for each prediction.
    #[must_use]
    pub fn of(
        group: u64,
        rotations: &[Rotation],
        twisted: Vec<Vec<f64>>,
        target: &[f64],
        weight: f64,
    ) -> Option<Self> {
        let loss = |z: &Vec<f64>| {
            let squares = z.iter().zip(target).map(|(z, y)| (z - y).powi(2));
            weight * squares.sum::<f64>()
        };
        let losses: Vec<f64> = twisted.iter().map(loss).collect();
        let scatter = Scatter::of(twisted);
        let mut energies = [0.0; DEGREES];
        let found = degree_energies(rotations, &scatter, DEGREES)?;
        energies
            .iter_mut()
            .zip(found)
            .for_each(|(e, f)| *e = weight * f);
        Some(Self {
            group,
            rotations: rotations.to_vec(),
            squares: scatter.squares().map(|s| weight * s).collect(),
            losses,
            energies,
            concentration: scatter.concentration(),
            loss_equiv: weight * scatter.sum() / (scatter.count() as f64 - 1.0),
        })
    }

    fn loss(&self) -> f64 {
        self.losses.iter().sum::<f64>() / self.losses.len() as f64
    }
}

/// Shares of energies that a scheme's groups leave: of the degrees that are told apart, and of those above.
struct Left {
    shares: [f64; DEGREES],
    above: f64,
    cosets: f64,
    is_single: bool,
}

impl Left {
    fn by(scheme: &Scheme) -> Self {
        let (elements, cosets) = match scheme {
            Scheme::Structured { group, cosets } => (group.elements(), *cosets),
            Scheme::Random { rotations } => (vec![Rotation::IDENTITY], *rotations),
            // Used whole they are no draws; they are not to be chosen from.
            _ => (vec![Rotation::IDENTITY], 1),
        };
        let order = elements.len() as f64;
        let share = |l: usize| {
            let invariants = elements.iter().map(|g| character(l, g)).sum::<f64>() / order;
            // Rounding of a number that is whole.
            invariants.round() / (2 * l + 1) as f64
        };
        Self {
            shares: std::array::from_fn(|at| share(at + 1)),
            above: 1.0 / order,
            cosets: cosets as f64,
            is_single: elements.len() == 1,
        }
    }

    /// Of energies that add up to `all`. Estimates below 0 count as none, and where the others are then more than all there is, all are
    /// less in proportion: noise would add up otherwise.
    fn of(&self, energies: &[f64; DEGREES], all: f64) -> f64 {
        let known: f64 = energies.iter().map(|e| e.max(0.0)).sum();
        let own = energies.iter().zip(self.shares);
        let own: f64 = own.map(|(e, share)| e.max(0.0) * share).sum();
        if known > all {
            own * all / known
        } else {
            own + (all - known) * self.above
        }
    }
}

/// What the samples of one condition say.
struct Distribution {
    /// Relative variance of percent over groups of samples.
    sampling: f64,
    /// Energies of the linearised percents of all samples, and their sum over all degrees.
    percents: [f64; DEGREES],
    percents_all: f64,
    samples: Vec<Share>,
}

/// What one sample has of the pooled `L_equiv`.
struct Share {
    /// By degree, and all.
    energies: [f64; DEGREES],
    all: f64,
    concentration: f64,
}

impl Distribution {
    /// `None` where percent is 0 or has no variance over groups.
    fn of(spectra: &[Spectrum]) -> Option<Self> {
        let terms: Vec<(f64, f64)> = spectra.iter().map(|s| (s.loss_equiv, s.loss())).collect();
        let groups: Vec<u64> = spectra.iter().map(|s| s.group).collect();
        let sampling = log_variance(&sums_by_group(&terms, &groups))?;
        let (equiv, total) = terms.iter().fold((0.0, 0.0), |s, t| (s.0 + t.0, s.1 + t.1));
        let mut own = Self {
            sampling,
            percents: [0.0; DEGREES],
            percents_all: 0.0,
            samples: Vec::new(),
        };
        for spectrum in spectra {
            let both = spectrum.squares.iter().zip(&spectrum.losses);
            let percents = both.map(|(square, loss)| vec![square / equiv - loss / total]);
            let scatter = Scatter::of(percents.collect());
            own.percents_all += scatter.sum() / (scatter.count() as f64 - 1.0);
            let energies = degree_energies(&spectrum.rotations, &scatter, DEGREES)?;
            own.percents
                .iter_mut()
                .zip(energies)
                .for_each(|(p, e)| *p += e);
            own.samples.push(Share {
                energies: spectrum.energies.map(|e| e / equiv),
                all: spectrum.loss_equiv / equiv,
                concentration: spectrum.concentration,
            });
        }
        (sampling > 0.0 && sampling.is_finite()).then_some(own)
    }

    /// Relative variance of percent from the rotations of a scheme.
    fn rotation(&self, scheme: &Scheme) -> f64 {
        let left = Left::by(scheme);
        let first = left.of(&self.percents, self.percents_all) / left.cosets;
        let square = |sample: &Share| {
            let covariance = left.of(&sample.energies, sample.all).powi(2);
            if left.is_single {
                covariance * sample.concentration
            } else {
                covariance
            }
        };
        let squares: f64 = self.samples.iter().map(square).sum();
        first + 2.0 * squares / (left.cosets * (left.cosets - 1.0))
    }

    /// The error of a scheme over that of the samples.
    fn ratio(&self, scheme: &Scheme) -> f64 {
        (self.rotation(scheme) / self.sampling).sqrt()
    }

    /// Shares of `L_equiv` by degree, the last above.
    fn degrees(&self) -> Vec<f64> {
        let of = |l: usize| self.samples.iter().map(|s| s.energies[l]).sum::<f64>();
        let mut all: Vec<f64> = (0..DEGREES).map(of).collect();
        all.push(1.0 - all.iter().sum::<f64>());
        all
    }
}

/// A scheme, and why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SchemeChoice {
    /// Its name.
    pub scheme: String,
    /// Why it was chosen, for people.
    pub why: String,
}

/// The cheapest scheme whose rotations err by at most [`ROTATION_SHARE`] of what the samples do, under every condition; where none does,
/// the one that errs least. `None` where no condition has an equivariance error that differs between groups of samples.
#[must_use]
pub fn choose_scheme(conditions: &[Vec<Spectrum>]) -> Option<SchemeChoice> {
    let known: Vec<Distribution> = conditions
        .iter()
        .filter_map(|spectra| Distribution::of(spectra))
        .collect();
    let worst = |scheme: &Scheme| {
        let ratios = known.iter().map(|d| d.ratio(scheme));
        ratios.fold(0.0, f64::max)
    };
    let mut ordered = CANDIDATES;
    // Stable: of two that cost the same, the one that is listed first.
    ordered.sort_by_key(Scheme::rotations);
    let ratios: Vec<(Scheme, f64)> = ordered.iter().map(|s| (*s, worst(s))).collect();
    let enough = ratios.iter().position(|(_, r)| *r <= ROTATION_SHARE);
    let least = || {
        let by_ratio = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
        let all = ratios.iter().enumerate().map(|(i, (_, r))| (i, *r));
        all.min_by(by_ratio).map(|(i, _)| i)
    };
    let at = enough.or_else(least)?;
    let (scheme, _) = ratios[at];
    let of = known
        .iter()
        .max_by(|a, b| a.ratio(&scheme).total_cmp(&b.ratio(&scheme)))?;
    Some(SchemeChoice {
        scheme: scheme.name(),
        why: reason(of, &ratios, at, enough.is_some()),
    })
}

fn reason(of: &Distribution, ratios: &[(Scheme, f64)], at: usize, enough: bool) -> String {
    let (scheme, ratio) = &ratios[at];
    let degrees: Vec<String> = of.degrees().iter().map(|e| format!("{e:.2}")).collect();
    let cheaper = ratios[..at]
        .iter()
        .map(|(s, r)| format!("{} {r:.2}", s.name()));
    let cheaper: Vec<String> = cheaper.collect();
    let verdict = match (enough, cheaper.is_empty()) {
        (true, true) => "the cheapest there is".to_owned(),
        (true, false) => format!("cheaper ones err more: {}", cheaper.join(", ")),
        (false, _) => "none errs less".to_owned(),
    };
    format!(
        "{} rotations of {} samples err by {:.1e} of percent, the choice of the samples by {:.1e}: {ratio:.2} of it, a third is allowed; {verdict}. \
         L_equiv is by degree 1 to 5 and above {}",
        scheme.rotations(),
        of.samples.len(),
        of.rotation(scheme).sqrt(),
        of.sampling.sqrt(),
        degrees.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Estimator, PointLoss, Seed, TwirlAccumulator};

    const X: [f64; 9] = [0.3, -1.2, 0.7, 1.1, 0.1, -0.4, -0.9, 0.6, 0.2];

    /// Linear, of degrees 1 and 2.
    fn linear(x: &[f64]) -> Vec<f64> {
        const A: [[f64; 3]; 3] = [[1.3, 0.3, -0.4], [0.1, 0.8, 0.2], [0.3, -0.2, 0.9]];
        let of = |x: &[f64]| A.map(|row| row[0] * x[0] + row[1] * x[1] + row[2] * x[2]);
        x.chunks_exact(3).flat_map(of).collect()
    }

    /// Of high degrees.
    fn wild(x: &[f64]) -> Vec<f64> {
        let of = |x: &[f64]| {
            [
                (3.0 * x[0]).sin(),
                (2.0 * x[1] + x[2]).cos(),
                x[0] * x[1] * x[2],
            ]
        };
        x.chunks_exact(3).flat_map(of).collect()
    }

    fn turned(by: &Rotation, x: &[f64]) -> Vec<f64> {
        x.chunks_exact(3)
            .flat_map(|x| by.apply([x[0], x[1], x[2]]))
            .collect()
    }

    fn twisted(f: fn(&[f64]) -> Vec<f64>, x: &[f64], by: &Rotation) -> Vec<f64> {
        turned(&by.inverse(), &f(&turned(by, x)))
    }

    /// A sample in one of many orientations, and a multiple of it as its target.
    fn oriented(sample: u64, multiple: f64) -> (Vec<f64>, Vec<f64>) {
        let frame = Rotation::haar(&mut Seed::new(5).indexed_stream("frame", sample));
        let x = turned(&frame, &X);
        let y = x.iter().map(|x| multiple * x).collect();
        (x, y)
    }

    fn spectrum(f: fn(&[f64]) -> Vec<f64>, sample: u64, multiple: f64) -> Spectrum {
        let mut stream = Seed::new(6).indexed_stream("scheme", sample);
        let rotations: Vec<Rotation> = (0..64).map(|_| Rotation::haar(&mut stream)).collect();
        let (x, y) = oriented(sample, multiple);
        let all = rotations.iter().map(|r| twisted(f, &x, r)).collect();
        Spectrum::of(sample, &rotations, all, &y, 1.0).unwrap()
    }

    /// Relative variance of the percent of one sample, over rotations and orientations.
    fn simulated(f: fn(&[f64]) -> Vec<f64>, scheme: &Scheme) -> f64 {
        let estimate = |sample: u64| {
            let (x, y) = oriented(sample, 0.8);
            let plan = scheme.plan(Seed::new(7), sample);
            let mut twirl = TwirlAccumulator::new(y, 3, plan.cosets, PointLoss::Mse);
            for (i, t) in plan.rotations.iter().enumerate() {
                twirl.push(plan.coset_of(i), &twisted(f, &x, t));
            }
            let terms = twirl.finish(Estimator::Unbiased);
            (terms.loss_equiv, terms.loss_total)
        };
        let all: Vec<(f64, f64)> = (0..1000).map(estimate).collect();
        let n = all.len() as f64;
        let (equiv, total) = all
            .iter()
            .fold((0.0, 0.0), |s, t| (s.0 + t.0 / n, s.1 + t.1 / n));
        all.iter()
            .map(|(e, t)| (e / equiv - t / total).powi(2))
            .sum::<f64>()
            / n
    }

    #[test]
    fn the_predicted_error_of_a_scheme_is_that_of_simulated_measurements() {
        for (f, schemes) in [
            (linear as fn(&[f64]) -> Vec<f64>, ["random-8", "random-16"]),
            (wild, ["random-8", "tetrahedral-x2"]),
            (wild, ["octahedral-x2", "tetrahedral-x4"]),
        ] {
            let spectra: Vec<Spectrum> = (0..60).map(|s| spectrum(f, s, 0.8)).collect();
            let own = Distribution::of(&spectra).unwrap();
            for scheme in schemes.map(|name| Scheme::parse(name).unwrap()) {
                // Of the sum of sixty samples; of one it is sixty times as much.
                let predicted = 60.0 * own.rotation(&scheme);
                let found = simulated(f, &scheme);
                let ratio = (predicted / found).sqrt();
                // Sixty samples and 1,000 repeats are good to some five percent each, and the bound is no equality.
                assert!((0.8..1.25).contains(&ratio), "{scheme:?}: {ratio}");
            }
        }
    }

    #[test]
    fn what_is_left_of_low_degrees_is_what_the_designs_say() {
        let left = Left::by(&structured(FiniteGroup::Tetrahedral, 2));
        assert_eq!(left.shares, [0.0, 0.0, 1.0 / 7.0, 1.0 / 9.0, 0.0]);
        let left = Left::by(&structured(FiniteGroup::Icosahedral, 2));
        assert_eq!((left.shares, left.above), ([0.0; 5], 1.0 / 60.0));
        let left = Left::by(&random(8));
        assert_eq!((left.shares, left.above, left.cosets), ([1.0; 5], 1.0, 8.0));
        // 3 of energies 1, 1, −0.1, 0, 0 is above.
        assert_eq!(left.of(&[1.0, 1.0, -0.1, 0.0, 0.0], 5.0), 5.0);
        assert_eq!(left.of(&[1.0, 1.0, -0.1, 0.0, 0.0], 1.9), 1.9);
    }

    #[test]
    fn the_cheapest_scheme_that_errs_little_enough_is_chosen() {
        let of = |f, multiple: fn(u64) -> f64| -> Vec<Spectrum> {
            (0..16).map(|s| spectrum(f, s, multiple(s))).collect()
        };
        // Samples whose percents differ much, and some that are alike.
        let different = of(linear, |s| if s % 2 == 0 { 0.2 } else { 1.2 });
        let wild_and_alike = of(wild, |_| 0.8);
        let name = |of: &[&Vec<Spectrum>]| {
            let conditions: Vec<Vec<Spectrum>> = of.iter().map(|s| (*s).clone()).collect();
            choose_scheme(&conditions).unwrap()
        };
        let easy = name(&[&different]);
        let harder = name(&[&wild_and_alike]);
        let cost = |c: &SchemeChoice| Scheme::parse(&c.scheme).unwrap().rotations();
        assert!(cost(&easy) < cost(&harder));
        // Under both conditions it must do.
        assert_eq!(name(&[&different, &wild_and_alike]).scheme, harder.scheme);
        assert_eq!(name(&[&different]), easy, "it repeats");
    }

    #[test]
    fn without_an_equivariance_error_there_is_nothing_to_choose_by() {
        let none: Vec<Spectrum> = (0..4)
            .map(|s| spectrum(|x| vec![0.0; x.len()], s, 1.0))
            .collect();
        assert_eq!(choose_scheme(&[none]), None);
        assert_eq!(choose_scheme(&[vec![spectrum(linear, 0, 1.0)]]), None);
        assert_eq!(choose_scheme(&[]), None);
    }
}
