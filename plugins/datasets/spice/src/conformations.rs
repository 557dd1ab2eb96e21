//! The conformation files of SPICE's source repository: nanometres, no labels, elements only in the mapped SMILES. They are no training
//! data; this reader serves tools that label them, and its bond check finds rows that do not follow the SMILES.

use crate::{
    hdf5::{Hdf5, MoleculeGroup},
    units,
};
use equivbench_dataset_tools::{elements::covalent_radius, is_usable, smiles};
use equivbench_plugin::PluginResult;
use std::path::Path;

/// A bond of the SMILES that is longer than this many times the sum of its covalent radii cannot be one.
const LONGEST_BOND: f64 = 1.35;
/// No two heavy atoms of a molecule come closer than this, in Å.
const CLOSEST_HEAVY_ATOMS: f64 = 1.05;

/// One molecule of a conformation file.
#[derive(Clone, Debug, PartialEq)]
pub struct ConformationGroup {
    /// Name of the group.
    pub name: String,
    /// Mapped SMILES.
    pub smiles: String,
    /// Atomic numbers by row, from the map numbers.
    pub species: Vec<u8>,
    /// Bonds of the SMILES as pairs of rows.
    pub bonds: Vec<(usize, usize)>,
    /// Å, `[conformations, atoms, 3]`.
    pub positions: Vec<f64>,
}

/// What the bond check of a file found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BondReport {
    /// Groups with conformations.
    pub groups: usize,
    /// Conformations looked at.
    pub conformations: usize,
    /// Groups without conformations.
    pub empty_groups: usize,
    /// Groups in which at least one conformation fails.
    pub bad_groups: usize,
    /// Conformations whose rows do not follow the SMILES.
    pub bad_conformations: usize,
}

impl ConformationGroup {
    /// Number of conformations.
    #[must_use]
    pub fn conformations(&self) -> usize {
        self.positions.len() / (3 * self.species.len()).max(1)
    }

    /// Whether the rows of a conformation can be what the SMILES says: no bond longer than 1.35 times the sum of covalent radii, no
    /// heavy atoms closer than 1.05 Å.
    ///
    /// # Panics
    /// If there is no such conformation.
    #[must_use]
    pub fn bonds_hold(&self, conformation: usize) -> bool {
        let atoms = self.species.len();
        let x = &self.positions[3 * atoms * conformation..3 * atoms * (conformation + 1)];
        let distance = |a: usize, b: usize| {
            (0..3)
                .map(|k| (x[3 * a + k] - x[3 * b + k]).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let limit = |a: usize, b: usize| {
            LONGEST_BOND * (covalent_radius(self.species[a]) + covalent_radius(self.species[b]))
        };
        let heavy: Vec<usize> = (0..atoms).filter(|&a| self.species[a] > 1).collect();
        let apart = |&a: &usize| {
            heavy
                .iter()
                .all(|&b| b <= a || distance(a, b) >= CLOSEST_HEAVY_ATOMS)
        };
        self.bonds
            .iter()
            .all(|&(a, b)| distance(a, b) <= limit(a, b))
            && heavy.iter().all(apart)
    }
}

/// Reads a conformation file group by group, converts to Å and hands each to `visit`. Groups without conformations are counted by the result.
///
/// # Errors
/// A file that is damaged or of another layout, a SMILES whose map numbers do not name the rows, numbers that are not finite.
pub fn for_each_group(
    path: &Path,
    mut visit: impl FnMut(ConformationGroup),
) -> PluginResult<usize> {
    let file = Hdf5::open(path)?;
    let root = file.root()?;
    let mut empty = 0;
    for name in file.group_names()? {
        match read(&file.group(&root, &name)?, &name)? {
            Some(group) => visit(group),
            None => empty += 1,
        }
    }
    Ok(empty)
}

/// Runs the bond check over a whole conformation file.
///
/// # Errors
/// As [`for_each_group`].
pub fn check_bonds(path: &Path) -> PluginResult<BondReport> {
    let mut report = BondReport::default();
    let empty = for_each_group(path, |group| {
        let bad = (0..group.conformations())
            .filter(|&c| !group.bonds_hold(c))
            .count();
        report.groups += 1;
        report.conformations += group.conformations();
        report.bad_conformations += bad;
        report.bad_groups += usize::from(bad > 0);
    })?;
    report.empty_groups = empty;
    Ok(report)
}

fn read(group: &MoleculeGroup<'_>, name: &str) -> PluginResult<Option<ConformationGroup>> {
    const REMEDY: &str = "this is not a conformation file of the SPICE repository";
    let missing = |what: &str| {
        group.wrong(
            format!(
                "dataset \"{what}\" is missing; there are: {}",
                group.dataset_names()
            ),
            REMEDY,
        )
    };
    let dataset = group
        .dataset("conformations")?
        .ok_or_else(|| missing("conformations"))?;
    if dataset.ndim() < 3 || dataset.shape()[0] == 0 {
        return Ok(None);
    }
    let smiles = group.text("smiles")?.ok_or_else(|| missing("smiles"))?;
    let mapped = smiles::parse(&smiles).and_then(|graph| graph.by_map());
    let (species, bonds) = mapped.map_err(|what| {
        group.wrong(
            what,
            "rows cannot be given elements without a mapped SMILES",
        )
    })?;
    if dataset.shape()[1..] != [species.len() as u64, 3] {
        return Err(group.wrong(
            format!(
                "conformations {:?} do not fit {} atoms of the SMILES",
                dataset.shape(),
                species.len()
            ),
            REMEDY,
        ));
    }
    let unit = group
        .attribute(&dataset, "units")
        .unwrap_or_else(|| "nanometers".into());
    let factor = units::length(&unit).map_err(|e| group.wrong(e, REMEDY))?;
    let mut positions = group.floats("conformations", &dataset)?;
    positions.iter_mut().for_each(|x| *x *= factor);
    if let Some(i) = positions.iter().position(|&x| !is_usable(x)) {
        let place = i / (3 * species.len());
        return Err(group.wrong(
            format!("conformation {place} holds a number that is not finite"),
            "remove it from the file",
        ));
    }
    Ok(Some(ConformationGroup {
        name: name.to_owned(),
        smiles,
        species,
        bonds,
        positions,
    }))
}
