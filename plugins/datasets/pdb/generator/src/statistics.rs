//! What the generator aims at: how pseudo-bond angles and pseudo-torsions of real chains are distributed.
//!
//! Source of the constants: mixtures of axis-parallel normal distributions in (angle, torsion, next angle), fitted by expectation
//! maximisation to all runs of four unbroken C-alpha atoms in 338 chains of 40 to 256 residues from wwPDB entries. A run counts as helix
//! where at least three successive ones have torsions within 25° of 51° and both angles within 14° of 91.5°; as strand where at least
//! two successive ones have torsions within 50° of 195° and both angles above 103°; as loop elsewhere (26 %, 24 % and 50 % of them).

use crate::{blueprint::SecondaryStructure, geometry::wrapped_deg};

/// One normal component: weight, means and standard deviations (degrees) of angle, torsion and next angle.
struct Component {
    weight: f64,
    mean: [f64; 3],
    sd: [f64; 3],
}

const fn c(weight: f64, mean: [f64; 3], sd: [f64; 3]) -> Component {
    Component { weight, mean, sd }
}

const HELIX: &[Component] = &[
    c(0.678, [91.3, 50.5, 91.3], [2.5, 4.3, 2.5]),
    c(0.322, [92.3, 50.2, 93.3], [4.7, 10.7, 5.1]),
];

const STRAND: &[Component] = &[
    c(0.510, [119.4, -154.2, 118.0], [7.6, 18.1, 7.3]),
    c(0.299, [122.8, -178.8, 134.3], [9.8, 14.4, 6.4]),
    c(0.191, [136.4, -142.3, 122.1], [6.3, 16.2, 9.3]),
];

const LOOP: &[Component] = &[
    c(0.192, [95.3, 115.8, 113.0], [5.2, 33.0, 14.0]),
    c(0.119, [117.4, -134.5, 93.2], [11.9, 21.4, 5.0]),
    c(0.103, [125.2, -99.8, 114.2], [9.7, 15.5, 6.5]),
    c(0.080, [90.5, 62.1, 91.9], [3.5, 11.4, 4.0]),
    c(0.071, [115.4, 13.9, 111.9], [16.1, 63.5, 16.1]),
    c(0.069, [97.3, 24.0, 136.7], [6.4, 43.0, 7.0]),
    c(0.066, [112.9, -154.6, 123.3], [12.4, 27.0, 9.5]),
    c(0.060, [110.3, -179.5, 97.1], [8.0, 16.3, 5.3]),
    c(0.059, [139.6, -87.5, 117.3], [6.2, 30.7, 12.8]),
    c(0.049, [94.8, 31.2, 104.9], [5.4, 13.3, 6.5]),
    c(0.048, [113.9, 6.8, 93.4], [8.3, 24.0, 3.7]),
    c(0.032, [91.7, -98.9, 95.3], [3.4, 35.2, 4.7]),
    c(0.027, [122.0, 132.1, 143.0], [11.8, 32.4, 5.0]),
    c(0.025, [131.0, -96.8, 90.4], [8.2, 13.6, 3.4]),
];

/// The distributions of the three kinds, with the logarithms of their constants.
pub(crate) struct Statistics([Vec<Prepared>; 3]);

/// A component ready for use: means, inverse standard deviations, and the logarithm of weight and normalisation for the angle alone.
struct Prepared {
    mean: [f64; 3],
    inverse_sd: [f64; 3],
    log_first: f64,
    log_rest: f64,
}

impl Statistics {
    pub(crate) fn new() -> Self {
        Self([HELIX, STRAND, LOOP].map(|mixture| mixture.iter().map(Prepared::new).collect()))
    }

    fn of(&self, kind: SecondaryStructure) -> &[Prepared] {
        match kind {
            SecondaryStructure::Helix => &self.0[0],
            SecondaryStructure::Strand => &self.0[1],
            SecondaryStructure::Loop => &self.0[2],
        }
    }

    /// `-ln p(angle)`: the energy of the first angle of a chain.
    pub(crate) fn angle_energy(&self, kind: SecondaryStructure, angle: f64) -> f64 {
        let mut marginal = LogSum::default();
        self.of(kind)
            .iter()
            .for_each(|c| marginal.add(c.log_angle(angle)));
        -marginal.ln()
    }

    /// `-ln p(torsion, next angle | angle)`: the energy of four residues in units of kT, so that a free chain at kT = 1 is the Markov
    /// chain with the measured statistics.
    pub(crate) fn local_energy(
        &self,
        kind: SecondaryStructure,
        angle: f64,
        torsion: f64,
        next_angle: f64,
    ) -> f64 {
        let (mut joint, mut marginal) = (LogSum::default(), LogSum::default());
        for c in self.of(kind) {
            let first = c.log_angle(angle);
            marginal.add(first);
            joint.add(
                first + c.log_rest
                    - half_square(wrapped_deg(torsion - c.mean[1]) * c.inverse_sd[1])
                    - half_square((next_angle - c.mean[2]) * c.inverse_sd[2]),
            );
        }
        marginal.ln() - joint.ln()
    }
}

impl Prepared {
    fn new(c: &Component) -> Self {
        let log_norm = |sd: f64| -libm::log(sd * std::f64::consts::TAU.sqrt());
        Self {
            mean: c.mean,
            inverse_sd: c.sd.map(|sd| 1.0 / sd),
            log_first: libm::log(c.weight) + log_norm(c.sd[0]),
            log_rest: log_norm(c.sd[1]) + log_norm(c.sd[2]),
        }
    }

    fn log_angle(&self, angle: f64) -> f64 {
        self.log_first - half_square((angle - self.mean[0]) * self.inverse_sd[0])
    }
}

fn half_square(z: f64) -> f64 {
    0.5 * z * z
}

/// `ln Σ exp(x)` of terms that come one by one, however small they are: the energy keeps its slope far from every component.
struct LogSum {
    largest: f64,
    sum: f64,
}

impl Default for LogSum {
    fn default() -> Self {
        Self {
            largest: f64::NEG_INFINITY,
            sum: 0.0,
        }
    }
}

impl LogSum {
    fn add(&mut self, x: f64) {
        if x > self.largest {
            self.sum = 1.0 + self.sum * libm::exp(self.largest - x);
            self.largest = x;
        } else if x > self.largest - 40.0 {
            // Terms below e^-40 of the largest are below f64's resolution of the sum.
            self.sum += libm::exp(x - self.largest);
        }
    }

    fn ln(&self) -> f64 {
        self.largest + libm::log(self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Riemann sum over torsion and next angle; the components are smooth on a grid of 1.5 degrees (smallest sd 2.5).
    #[test]
    fn the_conditional_densities_integrate_to_one() {
        let statistics = Statistics::new();
        for kind in [
            SecondaryStructure::Helix,
            SecondaryStructure::Strand,
            SecondaryStructure::Loop,
        ] {
            for angle in [90.0, 112.0, 125.0] {
                let step = 1.5;
                let cells = (0..240).flat_map(|t| {
                    (0..120).map(move |a| (-180.0 + step * f64::from(t), step * f64::from(a)))
                });
                let total: f64 = cells
                    .map(|(torsion, next)| {
                        (-statistics.local_energy(kind, angle, torsion, next)).exp() * step * step
                    })
                    .sum();
                // Normal tails of wrapped torsions (sd up to 63.5°) leave 0.5 % of one component outside of a turn.
                assert!((total - 1.0).abs() < 2e-3, "{kind:?} {angle}: {total}");
            }
        }
    }

    #[test]
    fn a_left_handed_helix_costs_more_than_a_right_handed_one() {
        let helix = |torsion| {
            Statistics::new().local_energy(SecondaryStructure::Helix, 91.0, torsion, 91.0)
        };
        assert!(helix(-50.0) > helix(50.0) + 20.0);
    }

    #[test]
    fn energies_far_from_every_component_keep_their_slope() {
        let energy =
            |next| Statistics::new().local_energy(SecondaryStructure::Helix, 150.0, 50.0, next);
        assert!(energy(160.0) > energy(150.0) + 10.0 && energy(150.0) > 50.0);
    }
}
