//! The dataset behind the boundary: opens the sources, divides them, surveys them, fills batches.

use crate::{
    checks::{self, Survey, check},
    content::ContentHash,
    embedded::{self, Embedded},
    inventory::{Conformation, Frame, Inventory},
    options::{Normalisation, Options, Settings},
    source::{self, Source},
    split::{self, Splits},
};
use equivbench_dataset_tools::file_name;
use equivbench_plugin::{
    DataCheck, DatasetDescriptor, DatasetPlugin, FieldBuffers, FieldDescriptor, Normaliser,
    PluginError, PluginResult, SplitDescriptor, field,
};
use std::{collections::BTreeMap, path::PathBuf};

/// EScAIP's normalisation of SPICE (its public configuration): forces / 1.0758, (energy + 140.80) / 69.17.
const SPICE_FORCES: Normaliser = Normaliser {
    mean: 0.0,
    scale: 1.075_799_982_214_481_3,
};
const SPICE_ENERGY: Normaliser = Normaliser {
    mean: -140.803_565_190_357_92,
    scale: 69.166_716_932_850_4,
};
/// Small files with at most this many atoms are surveyed completely.
const SURVEYED_ATOMS: u64 = 1_000_000;
/// Conformations that are surveyed of larger ones, so that a release of two million opens fast.
const SURVEYED: usize = 2048;
/// Training conformations that a normaliser from the data is taken from: the first of the split, which are a random draw.
const NORMALISED: usize = 4096;
/// Conformations that are read at once while surveying.
const READ_AT_ONCE: usize = 256;

/// Force-field data in SPICE's formats, or the embedded sample.
pub struct Spice {
    inventory: Inventory,
    sources: Vec<Box<dyn Source>>,
    splits: Splits,
    scratch: Conformation,
    descriptor: DatasetDescriptor,
}

impl Spice {
    /// Reads one conformation of a split.
    ///
    /// # Errors
    /// An unknown split, an index beyond it, unreadable or non-finite data.
    pub fn conformation(&mut self, split: &str, index: u64) -> PluginResult<Conformation> {
        let frame = self.frame(split, index)?;
        self.read(frame)?;
        Ok(self.scratch.clone())
    }

    /// The key of the molecule of a sample: the same for every conformation of it in every file.
    ///
    /// # Errors
    /// An unknown split or an index beyond it.
    pub fn molecule(&self, split: &str, index: u64) -> PluginResult<&str> {
        Ok(&self.inventory.molecules[self.frame(split, index)?.molecule as usize])
    }

    fn frame(&self, split: &str, index: u64) -> PluginResult<Frame> {
        let known = || {
            self.splits
                .splits
                .iter()
                .map(|s| s.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let found = self.splits.splits.iter().find(|s| s.name == split);
        let found = found.ok_or_else(|| {
            PluginError::BadRequest(format!(
                "dataset \"spice\" has no split \"{split}\"; there are: {}",
                known()
            ))
        })?;
        let frame = usize::try_from(index)
            .ok()
            .and_then(|i| found.frames.get(i));
        let frame = frame.ok_or_else(|| {
            PluginError::BadRequest(format!(
                "split \"{split}\" has {} samples, number {index} was asked for",
                found.frames.len()
            ))
        })?;
        Ok(self.inventory.frames[*frame as usize])
    }

    fn read(&mut self, frame: Frame) -> PluginResult<()> {
        read(&mut self.sources, frame, &mut self.scratch)
    }
}

fn read(
    sources: &mut [Box<dyn Source>],
    frame: Frame,
    into: &mut Conformation,
) -> PluginResult<()> {
    sources[frame.source as usize].read(frame.place, into)?;
    if into.species.len() == frame.atoms as usize {
        return Ok(());
    }
    Err(PluginError::BadData("a conformation changed its size since the file was opened; do not write to files that are in use".into()))
}

/// Lets every source load what a batch of frames needs.
fn prepare(sources: &mut [Box<dyn Source>], frames: &[Frame]) -> PluginResult<()> {
    for (number, source) in sources.iter_mut().enumerate() {
        let places: Vec<u64> = frames
            .iter()
            .filter(|f| f.source as usize == number)
            .map(|f| f.place)
            .collect();
        if !places.is_empty() {
            source.prepare(&places)?;
        }
    }
    Ok(())
}

/// Reads frames in order and shows each to `visit`.
fn visit(
    sources: &mut [Box<dyn Source>],
    frames: &[Frame],
    mut visit: impl FnMut(&Conformation),
) -> PluginResult<()> {
    let mut scratch = Conformation::default();
    for frames in frames.chunks(READ_AT_ONCE) {
        prepare(sources, frames)?;
        for &frame in frames {
            read(sources, frame, &mut scratch)?;
            visit(&scratch);
        }
    }
    Ok(())
}

/// At most `count` frames, one from each of as many equal stretches, at a place in the stretch that follows no period of the data.
fn spread(frames: &[Frame], count: usize) -> Vec<Frame> {
    let count = count.min(frames.len());
    let pick = |i: usize| {
        let (start, end) = (i * frames.len() / count, (i + 1) * frames.len() / count);
        // The golden ratio's multiples fill the unit interval evenly.
        let jitter = (i as f64 * 0.618_033_988_749_894_9).fract();
        frames[start + ((end - start) as f64 * jitter) as usize]
    };
    (0..count).map(pick).collect()
}

impl DatasetPlugin for Spice {
    type Options = Options;
    const NAME: &'static str = "spice";
    const ABOUT: &'static str = "Molecules with forces: SPICE release HDF5, extended XYZ, ASE LMDB; without a path an embedded sample labelled with GFN2-xTB";
    const EMBEDDED: Option<&'static str> = Some(embedded::NAME);

    fn open(options: Options, seed: u64) -> PluginResult<Self> {
        let settings = Settings::new(options)?;
        let mut inventory = Inventory::default();
        let mut opened = OpenSources::open(&settings, &mut inventory)?;
        inventory.finish(&opened.files, &settings)?;
        let splits = split::divide(&inventory, &settings, seed)?;
        if !opened.small {
            opened.hash.index(&inventory);
        }
        let survey = opened.survey(&inventory)?;
        let descriptor = opened.describe(&settings, &inventory, &splits, &survey)?;
        Ok(Self {
            inventory,
            sources: opened.sources,
            splits,
            scratch: Conformation::default(),
            descriptor,
        })
    }

    fn describe(&self) -> DatasetDescriptor {
        self.descriptor.clone()
    }

    /// Numbers of molecules in the order of the files; nothing where frames of a trajectory were divided, which keeps nothing together.
    fn groups(&self, split: &str, indices: &[u64]) -> PluginResult<Option<Vec<u64>>> {
        let groups = indices.iter().map(|&i| self.frame(split, i));
        let groups = groups.map(|frame| Ok(u64::from(frame?.molecule)));
        let groups = groups.collect::<PluginResult<_>>()?;
        Ok((!self.splits.by_frame).then_some(groups))
    }

    fn points(&self, split: &str, indices: &[u64], out: &mut [u64]) -> PluginResult<()> {
        if indices.len() != out.len() {
            return Err(PluginError::BadRequest(format!(
                "{} indices, but room for {} counts",
                indices.len(),
                out.len()
            )));
        }
        for (&index, out) in indices.iter().zip(out) {
            *out = u64::from(self.frame(split, index)?.atoms);
        }
        Ok(())
    }

    fn samples(
        &mut self,
        split: &str,
        indices: &[u64],
        out: &mut FieldBuffers<'_>,
    ) -> PluginResult<()> {
        let frames: Vec<Frame> = indices
            .iter()
            .map(|&i| self.frame(split, i))
            .collect::<PluginResult<_>>()?;
        prepare(&mut self.sources, &frames)?;
        let wanted = Wanted::of(out);
        let mut atom = 0;
        for (sample, &frame) in frames.iter().enumerate() {
            self.read(frame)?;
            wanted.write(&self.scratch, sample, atom, out)?;
            atom += self.scratch.species.len();
        }
        Ok(())
    }
}

/// Which fields the host asked for.
struct Wanted {
    species: bool,
    positions: bool,
    forces: bool,
    energy: bool,
}

impl Wanted {
    fn of(out: &FieldBuffers<'_>) -> Self {
        Self {
            species: out.wants("species"),
            positions: out.wants("positions"),
            forces: out.wants("forces"),
            energy: out.wants("energy"),
        }
    }

    fn write(
        &self,
        from: &Conformation,
        sample: usize,
        atom: usize,
        out: &mut FieldBuffers<'_>,
    ) -> PluginResult<()> {
        let atoms = from.species.len();
        let rows = 3 * atom..3 * (atom + atoms);
        if self.species {
            let numbers = out
                .i64("species")?
                .get_mut(atom..atom + atoms)
                .ok_or_else(|| short("species"))?;
            numbers
                .iter_mut()
                .zip(&from.species)
                .for_each(|(to, &z)| *to = i64::from(z));
        }
        if self.positions {
            out.f64("positions")?
                .get_mut(rows.clone())
                .ok_or_else(|| short("positions"))?
                .copy_from_slice(&from.positions);
        }
        if self.forces {
            out.f64("forces")?
                .get_mut(rows)
                .ok_or_else(|| short("forces"))?
                .copy_from_slice(&from.forces);
        }
        if self.energy {
            *out.f64("energy")?
                .get_mut(sample)
                .ok_or_else(|| short("energy"))? = from.energy;
        }
        Ok(())
    }
}

fn short(field: &str) -> PluginError {
    PluginError::BadRequest(format!(
        "the buffer of field \"{field}\" is smaller than the samples asked for"
    ))
}

/// The fields of every dataset of this plugin.
fn fields() -> Vec<FieldDescriptor> {
    vec![
        field("positions", "vector", "point", "f64", &[3], "angstrom"),
        field("species", "invariant", "point", "i64", &[], ""),
        field("forces", "vector", "point", "f64", &[3], "eV/angstrom"),
        field("energy", "invariant", "sample", "f64", &[], "eV"),
    ]
}

/// Open sources and what is known of them as a whole.
struct OpenSources {
    sources: Vec<Box<dyn Source>>,
    hash: ContentHash,
    /// File names, for tables and messages.
    files: String,
    stem: String,
    small: bool,
    embedded: bool,
}

impl OpenSources {
    fn open(settings: &Settings, inventory: &mut Inventory) -> PluginResult<Self> {
        let mut hash = ContentHash::new(settings);
        let Some(path) = &settings.options.path else {
            hash.bytes(embedded::BYTES);
            let source = Embedded::open(0, settings, inventory)?;
            let (files, stem) = (embedded::FILE.to_owned(), "spice-mini".to_owned());
            return Ok(Self {
                sources: vec![Box::new(source)],
                hash,
                files,
                stem,
                small: true,
                embedded: true,
            });
        };
        let paths = source::expand(path)?;
        let (mut sources, mut small) = (Vec::new(), true);
        for (number, path) in paths.iter().enumerate() {
            sources.push(source::open(path, number as u32, settings, inventory)?);
            hash.file(path)?;
            small &= std::fs::metadata(path).is_ok_and(|m| m.len() <= settings.small_file_bytes);
        }
        Ok(Self {
            sources,
            hash,
            files: names(&paths, file_name),
            stem: names(&paths, source::file_stem),
            small,
            embedded: false,
        })
    }

    /// Looks at all of the data if they are small, at a sample otherwise. Small files are read completely in any case, so that a
    /// number that is not finite is found now.
    fn survey(&mut self, inventory: &Inventory) -> PluginResult<Survey> {
        let mut survey = Survey::new();
        let atoms: u64 = inventory.frames.iter().map(|f| u64::from(f.atoms)).sum();
        if self.small && atoms <= SURVEYED_ATOMS {
            visit(&mut self.sources, &inventory.frames, |c| survey.add(c))?;
            return Ok(survey);
        }
        visit(
            &mut self.sources,
            &spread(&inventory.frames, SURVEYED),
            |c| survey.add(c),
        )?;
        if self.small {
            visit(&mut self.sources, &inventory.frames, |_| ())?;
        }
        Ok(survey)
    }

    fn describe(
        &mut self,
        settings: &Settings,
        inventory: &Inventory,
        splits: &Splits,
        survey: &Survey,
    ) -> PluginResult<DatasetDescriptor> {
        let provenance = self.provenance(inventory);
        let hash = std::mem::replace(&mut self.hash, ContentHash::new(settings)).finish();
        let (normalisers, normalisation) =
            self.normalisers(settings, inventory, splits, provenance.is_spice)?;
        let mut checks = self.about_sources();
        checks.extend(checks::counts(inventory, splits.by_frame));
        checks.extend(survey.checks());
        checks.push(normalisation);
        Ok(DatasetDescriptor {
            name: provenance.name,
            source: self.files.clone(),
            licence: provenance.licence,
            level_of_theory: provenance.level,
            content_hash: hash,
            tasks: Spice::TASKS.iter().map(|&t| t.into()).collect(),
            fields: fields(),
            splits: splits
                .splits
                .iter()
                .map(|s| SplitDescriptor {
                    name: s.name.into(),
                    samples: s.frames.len() as u64,
                    groups: s.groups,
                })
                .collect(),
            normalisers,
            checks,
        })
    }

    fn about_sources(&self) -> Vec<DataCheck> {
        let line = |s: &dyn Source| {
            let u = s.units();
            check(
                "unit of force",
                u.force,
                "eV/angstrom",
                true,
                format!(
                    "{}; one unit of length is {} angstrom, one of energy {} eV",
                    s.about(),
                    u.length,
                    u.energy
                ),
            )
        };
        self.sources.iter().map(|s| line(s.as_ref())).collect()
    }

    fn provenance(&self, inventory: &Inventory) -> Provenance {
        let unknown = || "not stated in the file".to_owned();
        if self.embedded {
            let level = self.sources[0].level().unwrap_or_default().to_owned();
            return Provenance {
                name: embedded::NAME.into(),
                licence: "CC0-1.0".into(),
                level,
                is_spice: false,
            };
        }
        let levels: std::collections::BTreeSet<&str> =
            self.sources.iter().filter_map(|s| s.level()).collect();
        if !levels.is_empty() {
            let short: Vec<&str> = levels
                .iter()
                .map(|l| l.split([' ', ',']).next().unwrap_or(l))
                .collect();
            let all = self.sources.iter().all(|s| s.level().is_some());
            let rest = if all { "" } else { " and unknown" };
            let level = levels.iter().copied().collect::<Vec<_>>().join(" | ") + rest;
            return Provenance {
                name: format!("{} ({}{rest})", self.stem, short.join(", ")),
                licence: unknown(),
                level,
                is_spice: false,
            };
        }
        let subsets = &inventory.subsets;
        let spice = self.sources.iter().all(|s| s.is_release())
            && !subsets.is_empty()
            && subsets
                .iter()
                .all(|s| s.starts_with("SPICE ") && !s.to_lowercase().contains("xtb"));
        match spice {
            true => Provenance {
                name: format!("{} (wB97M-D3BJ)", self.stem),
                licence: "CC0-1.0".into(),
                level: "wB97M-D3(BJ)/def2-TZVPPD (Psi4), as SPICE's releases; the file does not state another".into(),
                is_spice: true,
            },
            false => Provenance { name: self.stem.clone(), licence: unknown(), level: unknown(), is_spice: false },
        }
    }

    fn normalisers(
        &mut self,
        settings: &Settings,
        inventory: &Inventory,
        splits: &Splits,
        is_spice: bool,
    ) -> PluginResult<(BTreeMap<String, Normaliser>, DataCheck)> {
        let constants = settings.normalisation == Normalisation::Spice
            || settings.normalisation == Normalisation::Auto && is_spice;
        let (forces, energy, about) = match constants {
            true => (
                SPICE_FORCES,
                SPICE_ENERGY,
                "scale of the forces; the constants of EScAIP on SPICE".to_owned(),
            ),
            false => {
                let frames: Vec<Frame> = splits.splits[0]
                    .frames
                    .iter()
                    .take(NORMALISED)
                    .map(|&f| inventory.frames[f as usize])
                    .collect();
                let (forces, energy) = from_data(&mut self.sources, &frames)?;
                (
                    forces,
                    energy,
                    format!(
                        "scale of the forces: RMS of a component over {} training conformations",
                        frames.len()
                    ),
                )
            }
        };
        let check = check("normaliser", forces.scale, "eV/angstrom", true, about);
        Ok((
            BTreeMap::from([("forces".to_owned(), forces), ("energy".to_owned(), energy)]),
            check,
        ))
    }
}

/// RMS of a force component; mean and standard deviation of the energy. A scale is 1 where the data give none (one conformation, zero forces).
fn from_data(
    sources: &mut [Box<dyn Source>],
    frames: &[Frame],
) -> PluginResult<(Normaliser, Normaliser)> {
    let (mut square, mut components, mut energies) = (0.0, 0, Vec::new());
    visit(sources, frames, |c| {
        square += c.forces.iter().map(|f| f * f).sum::<f64>();
        components += c.forces.len();
        energies.push(c.energy);
    })?;
    let positive = |x: f64| if x > 0.0 && x.is_finite() { x } else { 1.0 };
    let n = energies.len().max(1) as f64;
    let mean = energies.iter().sum::<f64>() / n;
    let variance = energies.iter().map(|e| (e - mean).powi(2)).sum::<f64>() / n;
    let rms = (square / components.max(1) as f64).sqrt();
    Ok((
        Normaliser {
            mean: 0.0,
            scale: positive(rms),
        },
        Normaliser {
            mean,
            scale: positive(variance.sqrt()),
        },
    ))
}

struct Provenance {
    name: String,
    licence: String,
    level: String,
    is_spice: bool,
}

/// One name, or the first and how many more.
fn names(paths: &[PathBuf], name: impl Fn(&std::path::Path) -> String) -> String {
    match paths {
        [one] => name(one),
        [first, rest @ ..] => format!("{} and {} more", name(first), rest.len()),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_takes_every_frame_of_few_and_all_residues_of_many() {
        let frames: Vec<Frame> = (0..20_000)
            .map(|place| Frame {
                source: 0,
                molecule: 0,
                atoms: 2,
                place,
            })
            .collect();
        assert_eq!(spread(&frames[..7], 10), frames[..7]);
        let picked = spread(&frames, 2000);
        assert!(picked.len() == 2000 && picked.windows(2).all(|w| w[0].place < w[1].place));
        let residues: std::collections::BTreeSet<u64> =
            picked.iter().map(|f| f.place % 50).collect();
        assert_eq!(residues.len(), 50);
    }
}
