//! What the dataset finds out about itself when it is opened: units, signs, distances, what was left out.

use crate::inventory::{Conformation, Inventory};
use equivbench_dataset_tools::elements;
use equivbench_plugin::DataCheck;
use std::collections::BTreeMap;

/// Sums over the conformations that were looked at.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    conformations: u64,
    components: u64,
    force_square: f64,
    worst_force_sum: f64,
    closest: f64,
    bonds: BTreeMap<u8, BondForce>,
}

/// Moments of bond length and of the force along the bond, for hydrogens bound to one element.
#[derive(Debug, Default, Clone, Copy)]
struct BondForce {
    n: f64,
    d: f64,
    f: f64,
    dd: f64,
    ff: f64,
    df: f64,
}

/// Longer than any X-H bond of the main groups, shorter than a hydrogen bond (Si-H, the longest, has 1.5 Å).
const LONGEST_XH_BOND: f64 = 1.7;
/// Fewer pairs say nothing.
const MIN_BONDS: f64 = 50.0;

impl Survey {
    pub(crate) fn new() -> Self {
        Self {
            closest: f64::INFINITY,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, conformation: &Conformation) {
        let Conformation {
            species,
            positions,
            forces,
            ..
        } = conformation;
        self.conformations += 1;
        self.components += forces.len() as u64;
        self.force_square += forces.iter().map(|f| f * f).sum::<f64>();
        let sum: [f64; 3] = std::array::from_fn(|k| forces.iter().skip(k).step_by(3).sum());
        self.worst_force_sum = self.worst_force_sum.max(norm(sum));
        for a in 0..species.len() {
            let nearest = (0..species.len())
                .filter(|&b| b != a)
                .map(|b| (norm(between(positions, a, b)), b))
                .min_by(|x, y| x.0.total_cmp(&y.0));
            let Some((d, b)) = nearest else { continue };
            self.closest = self.closest.min(d);
            if species[a] == 1 && species[b] > 1 && d < LONGEST_XH_BOND && d > 0.0 {
                let (u, f) = (between(positions, a, b), between(forces, a, b));
                let along = (0..3).map(|k| u[k] * f[k]).sum::<f64>() / d;
                self.bonds.entry(species[b]).or_default().add(d, along);
            }
        }
    }

    /// Root mean square of a force component, eV/Å.
    pub(crate) fn force_rms(&self) -> f64 {
        (self.force_square / self.components.max(1) as f64).sqrt()
    }

    /// Correlation of bond length and force along the bond within each kind of X-H bond: a stretched bond pulls back.
    fn bond_correlation(&self) -> Option<f64> {
        let kinds = self.bonds.values().filter(|b| b.n >= MIN_BONDS);
        let (dd, ff, df) = kinds
            .map(BondForce::centred)
            .fold((0.0, 0.0, 0.0), |s, c| (s.0 + c.0, s.1 + c.1, s.2 + c.2));
        (dd > 0.0 && ff > 0.0).then(|| df / (dd * ff).sqrt())
    }

    pub(crate) fn checks(&self) -> Vec<DataCheck> {
        let rms = self.force_rms();
        let mut checks = vec![
            check(
                "conformations surveyed",
                self.conformations as f64,
                "",
                true,
                "the figures below are over these: all of small data, else a sample spread over them".into(),
            ),
            check(
                "force RMS",
                rms,
                "eV/angstrom",
                (0.2..=4.0).contains(&rms),
                "0.5 to 2 is usual near room temperature; below 0.2 or above 4 the unit is likely wrong (kcal/mol is a factor 23, hartree/bohr 51): set force_unit".into(),
            ),
            check(
                "largest |sum of forces|",
                self.worst_force_sum,
                "eV/angstrom",
                self.worst_force_sum < 0.05,
                "0 for a molecule on its own; DFT grids leave up to 0.01; more means missing atoms, an outer field or mixed-up columns".into(),
            ),
            check(
                "smallest interatomic distance",
                self.closest,
                "angstrom",
                self.closest > 0.6,
                "0.74 is H2; below 0.6 the length unit is likely wrong: set length_unit".into(),
            ),
        ];
        if let Some(correlation) = self.bond_correlation() {
            checks.push(check(
                "correlation of X-H bond length and force along the bond",
                correlation,
                "",
                correlation < -0.3,
                "near -1: stretched bonds pull back, so forces are negative gradients; positive means the sign is wrong (a gradient under forces_key?)".into(),
            ));
        }
        checks
    }
}

impl BondForce {
    fn add(&mut self, d: f64, f: f64) {
        self.n += 1.0;
        self.d += d;
        self.f += f;
        self.dd += d * d;
        self.ff += f * f;
        self.df += d * f;
    }

    fn centred(&self) -> (f64, f64, f64) {
        let product = |xy: f64, x: f64, y: f64| xy - x * y / self.n;
        (
            product(self.dd, self.d, self.d),
            product(self.ff, self.f, self.f),
            product(self.df, self.d, self.f),
        )
    }
}

/// Counts: what is there and what was left out.
pub(crate) fn counts(inventory: &Inventory, by_frame: bool) -> Vec<DataCheck> {
    let formulas =
        !inventory.molecules.is_empty() && inventory.molecules.iter().all(|m| !m.contains(' '));
    let about = match (by_frame, formulas) {
        (true, _) => {
            "too few molecules to keep apart (or split_by = \"frame\"): splits are contiguous blocks of frames, so neighbours in time lie on both sides of a border"
        }
        (false, true) => {
            "no SMILES: molecules are told apart by name or formula; isomers stay in one split"
        }
        (false, false) => {
            "told apart by the graph of their SMILES: whatever the subset or the order of atoms, a molecule lies in one split only"
        }
    };
    let mut checks = vec![check(
        "molecules",
        inventory.molecules.len() as f64,
        "",
        true,
        about.into(),
    )];
    for (why, n) in &inventory.skipped {
        checks.push(check("left out", *n as f64, "", true, why.about().into()));
    }
    let names: Vec<&str> = inventory
        .elements
        .iter()
        .map(|&z| elements::symbol(z))
        .collect();
    checks.push(check(
        "elements",
        names.len() as f64,
        "",
        true,
        names.join(" "),
    ));
    checks
}

pub(crate) fn check(name: &str, value: f64, unit: &str, passed: bool, about: String) -> DataCheck {
    DataCheck {
        name: name.into(),
        value,
        unit: unit.into(),
        passed,
        about,
    }
}

fn between(v: &[f64], a: usize, b: usize) -> [f64; 3] {
    std::array::from_fn(|k| v[3 * a + k] - v[3 * b + k])
}

fn norm(v: [f64; 3]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// O-H pairs on a spring of rest length 1 Å.
    fn springs(sign: f64, scale: f64) -> Survey {
        let mut survey = Survey::new();
        for i in 0..100 {
            let d = 0.9 + 0.002 * f64::from(i);
            let f = -20.0 * (d - 1.0) * sign * scale;
            survey.add(&Conformation {
                species: vec![8, 1],
                positions: vec![0.0, 0.0, 0.0, d, 0.0, 0.0],
                forces: vec![-f, 0.0, 0.0, f, 0.0, 0.0],
                energy: 0.0,
            });
        }
        survey
    }

    fn passed(survey: &Survey, name: &str) -> bool {
        survey
            .checks()
            .iter()
            .find(|c| c.name.contains(name))
            .unwrap()
            .passed
    }

    #[test]
    fn a_wrong_sign_is_seen() {
        assert!(
            passed(&springs(1.0, 1.0), "correlation")
                && !passed(&springs(-1.0, 1.0), "correlation")
        );
    }

    #[test]
    fn a_wrong_unit_is_seen() {
        assert!(
            passed(&springs(1.0, 1.0), "RMS")
                && !passed(&springs(1.0, 23.0), "RMS")
                && !passed(&springs(1.0, 1.0 / 51.0), "RMS")
        );
    }

    #[test]
    fn a_net_force_and_a_short_distance_are_seen() {
        let mut survey = springs(1.0, 1.0);
        assert!(passed(&survey, "sum") && passed(&survey, "distance"));
        survey.add(&Conformation {
            species: vec![8, 1],
            positions: vec![0.0, 0.0, 0.0, 0.1, 0.0, 0.0],
            forces: vec![1.0; 6],
            energy: 0.0,
        });
        assert!(!passed(&survey, "sum") && !passed(&survey, "distance"));
    }
}
