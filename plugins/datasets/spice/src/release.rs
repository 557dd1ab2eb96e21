//! The layout of SPICE's release files (1.x and 2.x): one group per molecule, bohr and hartree, gradients. Read by streaming:
//! opening looks at names, shapes, atomic numbers and SMILES; coordinates are read when they are asked for.

use crate::{
    hdf5::{Hdf5, MoleculeGroup, Numbers},
    inventory::{Conformation, Frame, Identity, Inventory, Skip},
    lru::Lru,
    options::{ForceLimits, Settings},
    source::Source,
    units::{self, Units},
};
use equivbench_dataset_tools::{bad_data, is_usable};
use equivbench_plugin::{PluginError, PluginResult};
use rayon::prelude::*;
use std::{path::Path, sync::Arc};

/// Positions and gradients of about 20,000 medium molecules.
const CACHE_BYTES: usize = 1 << 28;
/// Groups between two reopenings of the file, which bounds the headers that the library keeps (about 10 kB a group).
const GROUPS_PER_OPENING: usize = 8192;

/// An open release file.
pub(crate) struct Release {
    file: Hdf5,
    keys: Keys,
    units: Units,
    limits: ForceLimits,
    groups: Vec<GroupIndex>,
    cache: Lru<Arc<Arrays>>,
    opened: usize,
    level: Option<String>,
}

struct Keys {
    energy: String,
    /// Name of gradient or forces.
    force: String,
    /// -1 for a gradient, +1 for forces.
    sign: f64,
}

struct GroupIndex {
    name: String,
    conformations: usize,
    species: Vec<u8>,
}

/// The coordinates of one group.
struct Arrays {
    positions: Numbers,
    forces: Numbers,
    energies: Vec<f64>,
}

/// What the index pass learns of a group.
struct GroupFacts {
    species: Vec<u8>,
    smiles: Option<String>,
    subset: Option<String>,
    conformations: usize,
    admitted: Option<Vec<bool>>,
}

impl Release {
    pub(crate) fn open(
        path: &Path,
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<Self> {
        let file = Hdf5::open(path)?;
        let names = file.group_names()?;
        let options = &settings.options;
        let keys = Keys {
            energy: options
                .energy_key
                .clone()
                .unwrap_or_else(|| "formation_energy".into()),
            force: options
                .forces_key
                .clone()
                .or_else(|| options.gradient_key.clone())
                .unwrap_or_else(|| "dft_total_gradient".into()),
            sign: if options.forces_key.is_some() {
                1.0
            } else {
                -1.0
            },
        };
        let level = file.root_text("level_of_theory")?;
        let mut release = Self {
            file,
            keys,
            units: Units::ATOMIC,
            limits: settings.limits,
            groups: Vec::new(),
            cache: Lru::new(CACHE_BYTES),
            opened: 0,
            level,
        };
        if names.is_empty() {
            return Err(bad_data(
                &release.file.name,
                "root group",
                "it holds no groups",
                "this is not a SPICE release file; give one, or extended XYZ or .aselmdb",
            ));
        }
        release.read_attributes(&names, settings)?;
        for names in names.chunks(GROUPS_PER_OPENING) {
            release.index(names, source, settings, inventory)?;
            release.file.reopen()?;
        }
        Ok(release)
    }

    /// Units, and the level of theory where the root does not name it, from the first group that has conformations.
    fn read_attributes(&mut self, names: &[String], settings: &Settings) -> PluginResult<()> {
        let (units, level) = self.attributes(names, settings)?;
        self.units = units;
        self.level = self.level.take().or(level);
        Ok(())
    }

    fn attributes(
        &self,
        names: &[String],
        settings: &Settings,
    ) -> PluginResult<(Units, Option<String>)> {
        let root = self.file.root()?;
        for name in names {
            let group = self.file.group(&root, name)?;
            let Some(positions) = group.dataset("conformations")? else {
                continue;
            };
            if positions.ndim() != 3 {
                continue;
            }
            let forces = self.labels(&group, &self.keys.force)?;
            let energies = self.labels(&group, &self.keys.energy)?;
            let unit =
                |option: &Option<String>,
                 dataset,
                 fallback,
                 parse: fn(&str) -> PluginResult<f64>,
                 key| match (option, group.attribute(dataset, "units")) {
                    (None, Some(text)) => parse(&text)
                        .map_err(|e| group.wrong(e, &format!("say what it is with {key}"))),
                    _ => Ok(fallback),
                };
            let options = &settings.options;
            let units = settings.units_or(Units {
                length: unit(
                    &options.length_unit,
                    &positions,
                    Units::ATOMIC.length,
                    units::length,
                    "length_unit",
                )?,
                energy: unit(
                    &options.energy_unit,
                    &energies,
                    Units::ATOMIC.energy,
                    units::energy,
                    "energy_unit",
                )?,
                force: unit(
                    &options.force_unit,
                    &forces,
                    Units::ATOMIC.force,
                    units::force,
                    "force_unit",
                )?,
            });
            return Ok((units, group.attribute(&forces, "level_of_theory")));
        }
        Ok((settings.units_or(Units::ATOMIC), None))
    }

    /// A dataset of labels, or an error that says which names there are.
    fn labels(&self, group: &MoleculeGroup<'_>, key: &str) -> PluginResult<hdf5_reader::Dataset> {
        if let Some(dataset) = group.dataset(key)? {
            return Ok(dataset);
        }
        let unlabelled = group.dataset(&self.keys.energy)?.is_none()
            && group.dataset(&self.keys.force)?.is_none();
        if unlabelled
            && group.dataset("smiles")?.is_some()
            && group.dataset("atomic_numbers")?.is_none()
        {
            return Err(group.wrong(
                "the file holds conformations only and has no energies/forces, so nothing can be learnt from it",
                "label it first (data/generators/label_xtb.py of this plugin does it with GFN2-xTB), or give a release file",
            ));
        }
        let which = if key == self.keys.energy {
            "energy_key"
        } else {
            "gradient_key (or forces_key)"
        };
        Err(group.wrong(
            format!("dataset \"{key}\" is missing"),
            &format!(
                "choose one of those that are there with {which}: {}",
                group.dataset_names()
            ),
        ))
    }

    fn index(
        &mut self,
        names: &[String],
        source: u32,
        settings: &Settings,
        inventory: &mut Inventory,
    ) -> PluginResult<()> {
        let root = self.file.root()?;
        let found: Vec<PluginResult<Option<GroupFacts>>> = names
            .par_iter()
            .map(|name| self.look(&self.file.group(&root, name)?))
            .collect();
        for (name, found) in names.iter().zip(found) {
            let Some(found) = found? else {
                inventory.skip(Skip::EmptyGroup, 1);
                continue;
            };
            let identity = Identity {
                name: Some(name),
                smiles: found.smiles.as_deref(),
                subset: found.subset.as_deref(),
                charge: None,
                species: &found.species,
            };
            let molecule = match inventory.admit(&identity, settings)? {
                Ok(molecule) => molecule,
                Err(why) => {
                    inventory.skip(why, found.conformations as u64);
                    continue;
                }
            };
            let group = self.groups.len() as u64;
            for row in 0..found.conformations {
                if found
                    .admitted
                    .as_ref()
                    .is_some_and(|admitted| !admitted[row])
                {
                    inventory.skip(Skip::Force, 1);
                    continue;
                }
                inventory.frames.push(Frame {
                    source,
                    molecule,
                    atoms: found.species.len() as u32,
                    place: group << 32 | row as u64,
                });
            }
            self.groups.push(GroupIndex {
                name: name.clone(),
                conformations: found.conformations,
                species: found.species,
            });
        }
        Ok(())
    }

    /// Names, shapes and numbers of one group; `None` if it has no conformations.
    fn look(&self, group: &MoleculeGroup<'_>) -> PluginResult<Option<GroupFacts>> {
        let Some(positions) = group.dataset("conformations")? else {
            return Err(group.wrong(
                format!(
                    "dataset \"conformations\" is missing; there are: {}",
                    group.dataset_names()
                ),
                "this is not a SPICE file; give a SPICE release file, extended XYZ or .aselmdb",
            ));
        };
        let shape = positions.shape().to_vec();
        if shape.len() < 3 || shape[0] == 0 {
            return Ok(None);
        }
        let energies = self.labels(group, &self.keys.energy)?;
        let forces = self.labels(group, &self.keys.force)?;
        let Some(numbers) = group.dataset("atomic_numbers")? else {
            return Err(group.wrong(
                "dataset \"atomic_numbers\" is missing",
                "this is not a SPICE release file",
            ));
        };
        let species = group.atomic_numbers(&numbers)?;
        let count: u64 = energies.shape().iter().product();
        if shape[1..] != [species.len() as u64, 3] || forces.shape() != shape || count != shape[0] {
            return Err(group.wrong(
                format!(
                    "shapes do not fit together: conformations {shape:?}, {} {:?}, {} {:?}, {} atomic numbers",
                    self.keys.force,
                    forces.shape(),
                    self.keys.energy,
                    energies.shape(),
                    species.len()
                ),
                "the file is damaged or not in SPICE's layout",
            ));
        }
        let admitted = if self.limits.any() {
            Some(self.within_limits(group, &forces, 3 * species.len())?)
        } else {
            None
        };
        Ok(Some(GroupFacts {
            species,
            smiles: group.text("smiles")?,
            subset: group.text("subset")?,
            conformations: shape[0] as usize,
            admitted,
        }))
    }

    fn within_limits(
        &self,
        group: &MoleculeGroup<'_>,
        forces: &hdf5_reader::Dataset,
        row: usize,
    ) -> PluginResult<Vec<bool>> {
        let values = group.floats(&self.keys.force, forces)?;
        Ok(values
            .chunks(row.max(1))
            .map(|r| self.limits.admit(r.iter().map(|f| f * self.units.force)))
            .collect())
    }

    /// Reads the coordinates of a group and refuses what is not finite.
    fn load(&self, root: &hdf5_reader::group::Group, index: &GroupIndex) -> PluginResult<Arrays> {
        let group = self.file.group(root, &index.name)?;
        let missing = |name: &str| {
            group.wrong(
                format!("dataset \"{name}\" is missing"),
                "the file changed while it was open",
            )
        };
        let positions = group
            .dataset("conformations")?
            .ok_or_else(|| missing("conformations"))?;
        let forces = group
            .dataset(&self.keys.force)?
            .ok_or_else(|| missing(&self.keys.force))?;
        let energies = group
            .dataset(&self.keys.energy)?
            .ok_or_else(|| missing(&self.keys.energy))?;
        let arrays = Arrays {
            positions: group.numbers("conformations", &positions)?,
            forces: group.numbers(&self.keys.force, &forces)?,
            energies: group.floats(&self.keys.energy, &energies)?,
        };
        let row = 3 * index.species.len();
        let bad = [
            (
                "conformations",
                arrays.positions.first_unusable().map(|i| i / row),
            ),
            (
                self.keys.force.as_str(),
                arrays.forces.first_unusable().map(|i| i / row),
            ),
            (
                self.keys.energy.as_str(),
                arrays.energies.iter().position(|&e| !is_usable(e)),
            ),
        ];
        if let Some((name, conformation)) = bad.into_iter().find_map(|(n, c)| Some((n, c?))) {
            return Err(group.wrong(
                format!("dataset \"{name}\", conformation {conformation} holds a number that is not finite"),
                "leave the group out with a filter (subset, elements), or remove the conformation from the file",
            ));
        }
        let values = index.conformations * row;
        let lengths = |n: &Numbers| match n {
            Numbers::F32(v) => v.len(),
            Numbers::F64(v) => v.len(),
        };
        if lengths(&arrays.positions) != values
            || lengths(&arrays.forces) != values
            || arrays.energies.len() != index.conformations
        {
            return Err(group.wrong(
                "an array changed its shape since the file was opened",
                "do not write to a file that is in use",
            ));
        }
        Ok(arrays)
    }
}

impl Source for Release {
    fn prepare(&mut self, places: &[u64]) -> PluginResult<()> {
        let mut wanted: Vec<u32> = places
            .iter()
            .map(|p| (p >> 32) as u32)
            .filter(|g| !self.cache.touch(*g))
            .collect();
        wanted.sort_unstable();
        wanted.dedup();
        if wanted.is_empty() {
            return Ok(());
        }
        if self.opened > GROUPS_PER_OPENING {
            self.file.reopen()?;
            self.opened = 0;
        }
        self.opened += wanted.len();
        let root = self.file.root()?;
        let loaded: Vec<_> = wanted
            .par_iter()
            .map(|&g| self.load(&root, &self.groups[g as usize]))
            .collect();
        for (group, arrays) in wanted.into_iter().zip(loaded) {
            let arrays = arrays?;
            let bytes =
                arrays.positions.bytes() + arrays.forces.bytes() + 8 * arrays.energies.len();
            self.cache.insert(group, Arc::new(arrays), bytes);
        }
        Ok(())
    }

    fn read(&mut self, place: u64, into: &mut Conformation) -> PluginResult<()> {
        let (group, conformation) = ((place >> 32) as u32, (place & 0xffff_ffff) as usize);
        let arrays = match self.cache.get(group) {
            Some(arrays) => arrays.clone(),
            None => {
                self.prepare(&[place])?;
                let loaded = self.cache.get(group).cloned();
                loaded.ok_or_else(|| PluginError::Other("a group larger than the cache".into()))?
            }
        };
        let index = &self.groups[group as usize];
        let row = 3 * index.species.len();
        let range = conformation * row..(conformation + 1) * row;
        into.species.clone_from(&index.species);
        arrays
            .positions
            .scaled(range.clone(), self.units.length, &mut into.positions);
        arrays
            .forces
            .scaled(range, self.keys.sign * self.units.force, &mut into.forces);
        into.energy = arrays.energies[conformation] * self.units.energy;
        Ok(())
    }

    fn level(&self) -> Option<&str> {
        self.level.as_deref()
    }

    fn is_release(&self) -> bool {
        true
    }

    fn about(&self) -> String {
        let forces = if self.keys.sign < 0.0 {
            format!("forces from the negative of {}", self.keys.force)
        } else {
            format!("forces from {}", self.keys.force)
        };
        format!(
            "{}: HDF5, {forces}, energy from {}",
            self.file.name, self.keys.energy
        )
    }

    fn units(&self) -> Units {
        self.units
    }
}
