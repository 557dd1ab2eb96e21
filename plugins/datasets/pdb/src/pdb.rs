//! The dataset behind the boundary: opens the files, divides the chains, fills batches.

use crate::{
    cache::{self, Cache, OpenChains},
    chain::{self, Chain},
    checks,
    clusters::Clusters,
    embedded,
    index::{Index, IndexBuilder},
    inputs,
    options::{Options, Settings},
    split::{self, Split},
    store::{ChainRecord, Store, hex},
};
use equivbench_plugin::{
    DatasetDescriptor, DatasetPlugin, FieldBuffers, FieldDescriptor, PluginError, PluginResult,
    SplitDescriptor, field,
};
use sha2::{Digest, Sha256};

/// Å in a nanometre.
const ANGSTROM_PER_NM: f64 = 10.0;

/// C-alpha traces of protein chains from files, or the embedded sample.
pub struct Pdb {
    records: Vec<ChainRecord>,
    store: Store,
    clusters: Clusters,
    splits: Vec<Split>,
    descriptor: DatasetDescriptor,
}

impl Pdb {
    /// Reads one chain of a split, in ångström as in its file.
    ///
    /// # Errors
    /// An unknown split, an index beyond it, a cache that was changed while it was open.
    pub fn chain(&mut self, split: &str, index: u64) -> PluginResult<Chain> {
        let number = self.number(split, index)?;
        let record = &self.records[number];
        let trace = self.store.read(record)?;
        Ok(Chain {
            id: record.id.clone(),
            sequence: record.sequence.clone(),
            positions: trace.positions,
            residue_numbers: trace.numbers.into_iter().map(i64::from).collect(),
        })
    }

    /// What all members of the cluster of a chain have in common: its representative's name or sequence.
    ///
    /// # Errors
    /// An unknown split or an index beyond it.
    pub fn cluster(&self, split: &str, index: u64) -> PluginResult<&str> {
        let cluster = self.clusters.of_record[self.number(split, index)?];
        Ok(cluster.map_or("", |c| &self.clusters.keys[c as usize]))
    }

    /// Number of the record of a sample.
    fn number(&self, split: &str, index: u64) -> PluginResult<usize> {
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
                "dataset \"pdb\" has no split \"{split}\"; there are: {}",
                known()
            ))
        })?;
        let number = usize::try_from(index)
            .ok()
            .and_then(|i| found.records.get(i));
        number.map(|&n| n as usize).ok_or_else(|| {
            PluginError::BadRequest(format!(
                "split \"{split}\" has {} samples, number {index} was asked for",
                found.records.len()
            ))
        })
    }
}

impl DatasetPlugin for Pdb {
    type Options = Options;
    const NAME: &'static str = "pdb";
    const ABOUT: &'static str = "Protein backbones: C-alpha traces of mmCIF, PDB and BinaryCIF files, split by sequence cluster; without a path an embedded sample";
    const TASKS: &'static [&'static str] = &["flow-matching"];
    const EMBEDDED: Option<&'static str> = Some(embedded::NAME);

    fn open(options: Options, seed: u64) -> PluginResult<Self> {
        let settings = Settings::new(options)?;
        let (opened, cache, about) = match &settings.options.path {
            Some(path) => from_files(path, &settings)?,
            None => (from_sample(&settings)?, None, About::sample()),
        };
        let OpenChains { index, store } = opened;
        index.check(&about.name)?;
        let clusters = Clusters::new(&index.records, &settings.options, cache.as_ref())?;
        let splits = split::divide(&clusters, &settings.options, seed)?;
        let descriptor = about.descriptor(&index, &clusters, &splits);
        Ok(Self {
            records: index.records,
            store,
            clusters,
            splits,
            descriptor,
        })
    }

    fn describe(&self) -> DatasetDescriptor {
        self.descriptor.clone()
    }

    /// Numbers of clusters in the order of the files.
    fn groups(&self, split: &str, indices: &[u64]) -> PluginResult<Option<Vec<u64>>> {
        let mut groups = Vec::with_capacity(indices.len());
        for &index in indices {
            // No split has a chain without a cluster.
            let cluster = self.clusters.of_record[self.number(split, index)?];
            groups.extend(cluster.map(u64::from));
        }
        Ok(Some(groups))
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
            *out = self.records[self.number(split, index)?].residues() as u64;
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
            let trace = self.store.read(&self.records[self.number(split, index)?])?;
            let rows = start..start + trace.numbers.len();
            if out.wants("positions") {
                let to = out
                    .f64("positions")?
                    .get_mut(3 * rows.start..3 * rows.end)
                    .ok_or_else(|| short("positions"))?;
                to.iter_mut()
                    .zip(trace.positions.as_flattened())
                    .for_each(|(to, x)| *to = x / ANGSTROM_PER_NM);
            }
            if out.wants("residue_index") {
                let to = out
                    .i64("residue_index")?
                    .get_mut(rows.clone())
                    .ok_or_else(|| short("residue_index"))?;
                to.iter_mut()
                    .zip(&trace.numbers)
                    .for_each(|(to, &n)| *to = i64::from(n));
            }
            if out.wants("chain_break") {
                let to = out
                    .i64("chain_break")?
                    .get_mut(rows.clone())
                    .ok_or_else(|| short("chain_break"))?;
                to.copy_from_slice(&chain::breaks(&trace.positions));
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
        field("positions", "vector", "point", "f64", &[3], "nm"),
        field("residue_index", "invariant", "point", "i64", &[], ""),
        field("chain_break", "invariant", "point", "i64", &[], ""),
    ]
}

/// Where the data come from.
struct About {
    name: String,
    source: String,
    licence: String,
    level: String,
}

fn from_files(path: &str, settings: &Settings) -> PluginResult<(OpenChains, Option<Cache>, About)> {
    let inputs = inputs::find(path)?;
    let cache = Cache::new(&inputs, settings);
    let opened = cache::open(&cache, &inputs, settings)?;
    let about = About {
        source: match &inputs.files[..] {
            [one] => inputs::file_name(&one.path),
            files => format!("{} ({} files)", inputs.stem, files.len()),
        },
        name: inputs.stem,
        licence: "not stated in the files; entries of the wwPDB are CC0-1.0".into(),
        level: "C-alpha coordinates as deposited".into(),
    };
    Ok((opened, Some(cache), about))
}

fn from_sample(settings: &Settings) -> PluginResult<OpenChains> {
    let mut builder = IndexBuilder::new(Vec::new());
    for chain in embedded::chains()? {
        builder
            .chain(chain, &settings.selection)
            .map_err(|e| PluginError::Other(e.to_string()))?;
    }
    let (index, bytes, _) = builder.finish();
    Ok(OpenChains {
        index,
        store: Store::Memory(bytes),
    })
}

impl About {
    fn sample() -> Self {
        Self {
            name: embedded::NAME.into(),
            source: embedded::FILE.into(),
            licence: embedded::LICENCE.into(),
            level: embedded::LEVEL.into(),
        }
    }

    fn descriptor(self, index: &Index, clusters: &Clusters, splits: &[Split]) -> DatasetDescriptor {
        let train = splits
            .iter()
            .find(|s| s.name == "train")
            .map_or(0, |s| s.records.len());
        DatasetDescriptor {
            name: self.name,
            source: self.source,
            licence: self.licence,
            level_of_theory: format!("{}; clusters {}", self.level, clusters.about),
            content_hash: content_hash(&index.records, splits),
            tasks: Pdb::TASKS.iter().map(|&t| t.into()).collect(),
            fields: fields(),
            splits: splits
                .iter()
                .map(|s| SplitDescriptor {
                    name: s.name.into(),
                    samples: s.records.len() as u64,
                    groups: s.clusters,
                })
                .collect(),
            checks: checks::checks(&index.report, clusters, index.records.len(), train),
            ..DatasetDescriptor::default()
        }
    }
}

/// Raise it when the same chains are served in other units or fields.
const SERVED: &str = "equivbench-pdb 1: positions / 10, residue_index, chain_break above 4\0";

/// SHA-256 over what is served: the checksums of all chains, split by split, in their order. Places, names and times of files do not count.
fn content_hash(records: &[ChainRecord], splits: &[Split]) -> String {
    let mut hasher = Sha256::new().chain_update(SERVED);
    for split in splits {
        hasher.update(format!("{} {}\n", split.name, split.records.len()));
        split
            .records
            .iter()
            .for_each(|&r| hasher.update(&records[r as usize].checksum));
    }
    hex(&hasher.finalize())
}
