//! The dataset behind the boundary: opens the files, divides the conformers, fills batches.

use crate::{
    checks,
    collect::{Collected, Collector},
    embedded, inputs,
    options::{Options, Paths, Settings},
    reach, read,
    split::{self, Split},
    store::Store,
};
use equivbench_plugin::{
    DatasetDescriptor, DatasetPlugin, DatasetRequest, FieldBuffers, FieldDescriptor, PluginError,
    PluginResult, SplitDescriptor, field,
};
use sha2::{Digest, Sha256};

/// Conformers of drug-like molecules from files, or the embedded sample.
pub struct Geom {
    store: Store,
    groups: Vec<String>,
    splits: Vec<Split>,
    descriptor: DatasetDescriptor,
}

impl Geom {
    /// Atomic numbers `[atoms]` and positions `[atoms, 3]` in ångström of one sample.
    ///
    /// # Errors
    /// An unknown split or an index beyond it.
    pub fn conformer(&self, split: &str, index: u64) -> PluginResult<(&[u8], &[[f32; 3]])> {
        let number = self.number(split, index)?;
        Ok((self.store.numbers(number), self.store.positions(number)))
    }

    /// The key of the molecule of a sample: the same for every conformer of it in every file.
    ///
    /// # Errors
    /// An unknown split or an index beyond it.
    pub fn molecule(&self, split: &str, index: u64) -> PluginResult<&str> {
        let number = self.number(split, index)?;
        let group = self
            .store
            .groups()
            .get(number as usize)
            .and_then(|&group| self.groups.get(group as usize));
        Ok(group.map_or("", String::as_str))
    }

    /// Number of the conformer of a sample.
    fn number(&self, split: &str, index: u64) -> PluginResult<u32> {
        let known = || {
            self.splits
                .iter()
                .map(|s| s.name)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let found = self.splits.iter().find(|s| s.name == split);
        let found = found.ok_or_else(|| {
            PluginError::BadRequest(format!(
                "dataset \"geom\" has no split \"{split}\"; there are: {}",
                known()
            ))
        })?;
        let number = usize::try_from(index)
            .ok()
            .and_then(|i| found.conformers.get(i));
        number.copied().ok_or_else(|| {
            PluginError::BadRequest(format!(
                "split \"{split}\" has {} samples, number {index} was asked for",
                found.conformers.len()
            ))
        })
    }
}

impl DatasetPlugin for Geom {
    type Options = Options;
    const NAME: &'static str = "geom";
    const ABOUT: &'static str = "Drug-like conformers: SDF, XYZ, npz, GEOM's crude msgpack, VoxMol's .pth, split by molecule; without a path an embedded sample";
    const TASKS: &'static [&'static str] = &["voxel-denoising"];
    const EMBEDDED: Option<&'static str> = Some(embedded::NAME);

    fn open(options: Options, seed: u64) -> PluginResult<Self> {
        Self::open_for(
            options,
            &DatasetRequest {
                seed,
                ..DatasetRequest::default()
            },
        )
    }

    fn open_for(options: Options, request: &DatasetRequest) -> PluginResult<Self> {
        let settings = Settings::new(options)?;
        let (collected, about) = match &settings.options.path {
            Some(paths) => from_files(paths, &settings, request.threads)?,
            None => from_sample(&settings)?,
        };
        let splits = split::divide(
            &collected.groups,
            collected.store.groups(),
            &settings.options,
            request.seed,
        )?;
        let descriptor = about.descriptor(&collected, &splits, &request.task);
        Ok(Self {
            store: collected.store,
            groups: collected.groups,
            splits,
            descriptor,
        })
    }

    fn describe(&self) -> DatasetDescriptor {
        self.descriptor.clone()
    }

    /// Numbers of molecules in the order of the files.
    fn groups(&self, split: &str, indices: &[u64]) -> PluginResult<Option<Vec<u64>>> {
        let of_conformer = self.store.groups();
        let groups = indices.iter().map(|&i| self.number(split, i));
        let groups = groups.map(|number| Ok(u64::from(of_conformer[number? as usize])));
        groups.collect::<PluginResult<_>>().map(Some)
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
            *out = self.store.numbers(self.number(split, index)?).len() as u64;
        }
        Ok(())
    }

    fn samples(
        &mut self,
        split: &str,
        indices: &[u64],
        out: &mut FieldBuffers<'_>,
    ) -> PluginResult<()> {
        let mut start = 0;
        for &index in indices {
            let number = self.number(split, index)?;
            let numbers = self.store.numbers(number);
            let rows = start..start + numbers.len();
            if out.wants("positions") {
                let to = out
                    .f32("positions")?
                    .get_mut(3 * rows.start..3 * rows.end)
                    .ok_or_else(|| short("positions"))?;
                to.copy_from_slice(self.store.positions(number).as_flattened());
            }
            if out.wants("species") {
                let to = out
                    .i64("species")?
                    .get_mut(rows.clone())
                    .ok_or_else(|| short("species"))?;
                to.iter_mut()
                    .zip(numbers)
                    .for_each(|(to, &z)| *to = i64::from(z));
            }
            start = rows.end;
        }
        Ok(())
    }
}

fn short(field: &str) -> PluginError {
    PluginError::BadRequest(format!(
        "the buffer of field \"{field}\" is smaller than the samples asked for"
    ))
}

/// The fields of this plugin.
fn fields() -> Vec<FieldDescriptor> {
    vec![
        field("positions", "vector", "point", "f32", &[3], "angstrom"),
        field("species", "invariant", "point", "i64", &[], ""),
    ]
}

/// Where the data come from.
struct About {
    name: String,
    source: String,
    licence: String,
    level: String,
    passed_over: u64,
}

fn from_files(
    paths: &Paths,
    settings: &Settings,
    threads: u64,
) -> PluginResult<(Collected, About)> {
    let inputs = inputs::find(paths)?;
    let mut collector = Collector::new(settings);
    read::read_all(&inputs.files, threads, &mut collector)?;
    let source = match &inputs.files[..] {
        [one] => one.name.clone(),
        files => format!("{} ({} files)", inputs.stem, files.len()),
    };
    let formats: std::collections::BTreeSet<&str> =
        inputs.files.iter().map(|f| f.format.about()).collect();
    let about = About {
        level: format!(
            "geometries as in the files ({}), which do not say how they were made",
            formats.into_iter().collect::<Vec<_>>().join(", ")
        ),
        name: inputs.stem,
        licence: "not stated in the files; GEOM is CC0-1.0".into(),
        passed_over: inputs.passed_over,
        source,
    };
    Ok((collector.finish(&about.source)?, about))
}

fn from_sample(settings: &Settings) -> PluginResult<(Collected, About)> {
    let mut collector = Collector::new(settings);
    embedded::read(&mut |conformer| collector.take(&conformer))?;
    collector.end_file(embedded::FILE)?;
    let about = About {
        name: embedded::NAME.into(),
        source: embedded::FILE.into(),
        licence: embedded::LICENCE.into(),
        level: embedded::level()?,
        passed_over: 0,
    };
    Ok((collector.finish(embedded::FILE)?, about))
}

impl About {
    fn descriptor(self, collected: &Collected, splits: &[Split], task: &str) -> DatasetDescriptor {
        let mut checks = checks::checks(collected, self.passed_over);
        checks.extend(reach::checks(&collected.store, task));
        DatasetDescriptor {
            name: self.name,
            source: self.source,
            licence: self.licence,
            level_of_theory: self.level,
            content_hash: content_hash(&collected.store, splits),
            tasks: Geom::TASKS.iter().map(|&t| t.into()).collect(),
            fields: fields(),
            splits: splits
                .iter()
                .map(|s| SplitDescriptor {
                    name: s.name.into(),
                    samples: s.conformers.len() as u64,
                    groups: s.groups,
                })
                .collect(),
            checks,
            ..DatasetDescriptor::default()
        }
    }
}

/// Raise it when the same conformers are served in other units or fields.
const SERVED: &str = "equivbench-geom 1: positions, species\0";

/// SHA-256 over what is served: atomic numbers and positions of all conformers, split by split, in their order. Places, names and times
/// of files do not count.
fn content_hash(store: &Store, splits: &[Split]) -> String {
    let mut hasher = Sha256::new().chain_update(SERVED);
    let mut bytes = Vec::new();
    for split in splits {
        hasher.update(format!("{} {}\n", split.name, split.conformers.len()));
        for &conformer in &split.conformers {
            let numbers = store.numbers(conformer);
            bytes.clear();
            bytes.extend_from_slice(&(numbers.len() as u64).to_le_bytes());
            bytes.extend_from_slice(numbers);
            bytes.extend(
                store
                    .positions(conformer)
                    .as_flattened()
                    .iter()
                    .flat_map(|x| x.to_le_bytes()),
            );
            hasher.update(&bytes);
        }
    }
    hasher
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
