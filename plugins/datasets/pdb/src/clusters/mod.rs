//! Clusters of chains by sequence: from a file of MMseqs2, or made here.

mod align;
mod greedy;
mod mmseqs;

use crate::{
    cache::Cache,
    inputs::file_name,
    options::Options,
    store::{ChainRecord, hex},
};
use equivbench_plugin::{PluginError, PluginResult};
use greedy::Thresholds;
use mmseqs::ClusterFile;
use sha2::{Digest, Sha256};
use std::{collections::HashMap, path::Path};

/// A cluster for each chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clusters {
    /// Number of the cluster of each record; `None` if the cluster file does not name the chain.
    pub(crate) of_record: Vec<Option<u32>>,
    /// What stands for each cluster when splits are drawn: it does not depend on other clusters.
    pub(crate) keys: Vec<String>,
    /// How they were made, for the report.
    pub(crate) about: String,
}

impl Clusters {
    /// Reads the file of the options, or clusters here.
    ///
    /// # Errors
    /// A file that cannot be read or that names none of the chains.
    pub(crate) fn new(
        records: &[ChainRecord],
        options: &Options,
        cache: Option<&Cache>,
    ) -> PluginResult<Self> {
        match &options.clusters {
            Some(path) => Self::from_file(records, path),
            None => Ok(Self::own(records, options, cache)),
        }
    }

    fn from_file(records: &[ChainRecord], path: &str) -> PluginResult<Self> {
        let table = ClusterFile::read(path)?;
        let about = format!("read from {}", file_name(Path::new(path)));
        let clusters = Self::numbered(
            records
                .iter()
                .map(|r| table.representative(&r.id).map(ToOwned::to_owned)),
            about,
        );
        if clusters.keys.is_empty() {
            let id = records.first().map_or("", |r| &r.id);
            return Err(PluginError::BadData(format!(
                "[dataset] clusters: {path} names {} chains, but none of the {} chains here; there they look like \"{}\", here like \"{id}\" \
                 (file stem, underscore, chain): rename one or the other, or leave clusters out to cluster here",
                table.len(),
                records.len(),
                table.first()
            )));
        }
        Ok(clusters)
    }

    fn own(records: &[ChainRecord], options: &Options, cache: Option<&Cache>) -> Self {
        let sequences: Vec<&str> = records.iter().map(|r| r.sequence.as_str()).collect();
        let thresholds = Thresholds {
            identity: options.identity,
            coverage: options.coverage,
        };
        let key = own_key(&sequences, thresholds);
        let known = cache
            .and_then(|c| c.recall("clusters", &key))
            .filter(|k| is_clustering(k, records.len()));
        let representatives = known.unwrap_or_else(|| {
            let made = greedy::cluster(&sequences, thresholds);
            if let Some(cache) = cache {
                cache.remember("clusters", &key, &made);
            }
            made
        });
        let about = format!(
            "made here: greedy, sequence identity {} over at least {} of the shorter chain",
            thresholds.identity, thresholds.coverage
        );
        Self::numbered(
            representatives
                .iter()
                .map(|&r| sequences.get(r as usize).map(|s| (*s).to_owned())),
            about,
        )
    }

    fn numbered(keys: impl Iterator<Item = Option<String>>, about: String) -> Self {
        let mut clusters = Self {
            about,
            ..Self::default()
        };
        let mut numbers = HashMap::new();
        for key in keys {
            let number = key.map(|key| {
                *numbers.entry(key).or_insert_with_key(|key: &String| {
                    clusters.keys.push(key.clone());
                    clusters.keys.len() as u32 - 1
                })
            });
            clusters.of_record.push(number);
        }
        clusters
    }

    /// Chains of the largest cluster.
    pub(crate) fn largest(&self) -> u64 {
        let mut sizes = vec![0; self.keys.len()];
        self.of_record
            .iter()
            .flatten()
            .for_each(|&c| sizes[c as usize] += 1);
        sizes.into_iter().max().unwrap_or(0)
    }

    /// Chains that the cluster file does not name.
    pub(crate) fn missing(&self) -> u64 {
        self.of_record.iter().filter(|c| c.is_none()).count() as u64
    }
}

/// Raise it when the clustering gives other clusters for the same sequences.
const METHOD: u32 = 1;

fn own_key(sequences: &[&str], thresholds: Thresholds) -> String {
    let mut hasher = Sha256::new();
    sequences
        .iter()
        .for_each(|s| hasher.update(format!("{s}\n")));
    format!(
        "method {METHOD} identity {} coverage {} sequences {}",
        thresholds.identity,
        thresholds.coverage,
        hex(&hasher.finalize())
    )
}

fn is_clustering(representatives: &[u32], records: usize) -> bool {
    representatives.len() == records
        && representatives
            .iter()
            .all(|&r| representatives.get(r as usize) == Some(&r))
}
