//! Cluster files as MMseqs2 writes them: on each line a representative, a tabulator, a member.
//!
//! A chain is called `<file stem>_<author chain>`, as `1abc_A`. Where the stem is an entry of the archive (`1abc`, also `pdb1abc` or
//! `pdb_00001abc`), its case does not matter; that of the chain always does. Other stems are compared as they are.

use equivbench_plugin::{PluginError, PluginResult};
use std::{
    collections::HashMap,
    fs::File,
    io::{BufRead, BufReader},
};

/// Cluster of each chain that a file names.
#[derive(Debug, Default)]
pub(crate) struct ClusterFile {
    /// Number of its cluster by the normal form of its name.
    clusters: HashMap<String, u32>,
    representatives: Vec<String>,
    first: String,
}

impl ClusterFile {
    /// Reads a file, also one compressed with gzip.
    ///
    /// # Errors
    /// A file that cannot be read; a line without two columns; a member of two clusters.
    pub(crate) fn read(path: &str) -> PluginResult<Self> {
        let open = || -> std::io::Result<Box<dyn BufRead>> {
            let mut reader = BufReader::new(File::open(path)?);
            let compressed = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
            Ok(if compressed {
                Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(reader)))
            } else {
                Box::new(reader)
            })
        };
        let unreadable = |e: std::io::Error| {
            PluginError::BadData(format!(
                "[dataset] clusters: {path} cannot be read ({e}); check the path, or leave clusters out to cluster here"
            ))
        };
        let mut table = Self::default();
        let mut numbers = HashMap::new();
        for (i, line) in open().map_err(unreadable)?.lines().enumerate() {
            let line = line.map_err(unreadable)?;
            if !line.trim().is_empty() {
                table.line(&line, &mut numbers).map_err(|e| {
                    PluginError::BadData(format!("[dataset] clusters: {path}, line {}: {e}", i + 1))
                })?;
            }
        }
        if table.clusters.is_empty() {
            return Err(PluginError::BadData(format!(
                "[dataset] clusters: {path} is empty; give a file that MMseqs2 wrote (..._cluster.tsv)"
            )));
        }
        Ok(table)
    }

    fn line(&mut self, line: &str, numbers: &mut HashMap<String, u32>) -> Result<(), String> {
        let columns: Vec<&str> = line
            .trim_end_matches('\r')
            .split('\t')
            .map(str::trim)
            .collect();
        let [representative, member] = columns[..] else {
            return Err(format!(
                "{} columns where two were expected: representative, tabulator, member",
                columns.len()
            ));
        };
        if self.first.is_empty() {
            member.clone_into(&mut self.first);
        }
        let next = self.representatives.len() as u32;
        let number = *numbers
            .entry(normal(representative))
            .or_insert_with_key(|name| {
                self.representatives.push(name.clone());
                next
            });
        match self.clusters.insert(normal(member), number) {
            Some(other) if other != number => Err(format!("{member} is a member of two clusters")),
            _ => Ok(()),
        }
    }

    /// Representative of a chain's cluster.
    pub(crate) fn representative(&self, id: &str) -> Option<&str> {
        self.clusters
            .get(&normal(id))
            .and_then(|&n| self.representatives.get(n as usize))
            .map(String::as_str)
    }

    /// Names in the file.
    pub(crate) fn len(&self) -> usize {
        self.clusters.len()
    }

    /// The first member of the file, to show how its names look.
    pub(crate) fn first(&self) -> &str {
        &self.first
    }
}

/// The form in which names are compared.
pub(crate) fn normal(id: &str) -> String {
    // A chain id has no underscore; without one the whole is a stem.
    let (stem, chain) = id
        .rsplit_once('_')
        .map_or((id, None), |(stem, chain)| (stem, Some(chain)));
    match (entry(stem), chain) {
        (Some(entry), Some(chain)) => format!("{entry}_{chain}"),
        (Some(entry), None) => entry,
        (None, _) => entry(id).unwrap_or_else(|| id.to_owned()),
    }
}

/// The entry of the archive that a stem names: four characters, the first a digit, in small letters.
fn entry(stem: &str) -> Option<String> {
    let lower = stem.to_ascii_lowercase();
    let rest = lower
        .strip_prefix("pdb_0000")
        .or_else(|| lower.strip_prefix("pdb_"))
        .or_else(|| lower.strip_prefix("pdb"))
        .unwrap_or(&lower);
    let is_entry = rest.len() == 4
        && rest.bytes().next().is_some_and(|c| c.is_ascii_digit())
        && rest.bytes().all(|c| c.is_ascii_alphanumeric());
    is_entry.then(|| rest.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_the_same_in_any_case_and_chains_are_not() {
        for (id, expected) in [
            ("1abc_A", "1abc_A"),
            ("1ABC_A", "1abc_A"),
            ("1ABC_a", "1abc_a"),
            ("pdb1abc_A", "1abc_A"),
            ("PDB_00001ABC_AA", "1abc_AA"),
            ("pdb_1aki_A", "1aki_A"),
            ("pdb_1aki", "1aki"),
            ("1abc", "1abc"),
            ("AF-P12345-F1_A", "AF-P12345-F1_A"),
            ("1A2K_l_u_C", "1A2K_l_u_C"),
            ("Model_1", "Model_1"),
        ] {
            assert_eq!(normal(id), expected, "{id}");
        }
    }

    fn table(text: &str) -> PluginResult<ClusterFile> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        ClusterFile::read(file.path().to_str().unwrap())
    }

    #[test]
    fn members_find_their_representative() {
        let table = table("1ABC_A\t1ABC_A\r\n1ABC_A\t2xyz_B\n\nother_1\tother_1\n").unwrap();
        assert_eq!(
            ["2XYZ_B", "1abc_A", "other_1", "2xyz_b"].map(|id| table.representative(id)),
            [Some("1abc_A"), Some("1abc_A"), Some("other_1"), None]
        );
        assert_eq!((table.len(), table.first()), (3, "1ABC_A"));
    }

    #[test]
    fn files_of_other_kinds_are_refused() {
        let refused = |text: &str| table(text).unwrap_err().to_string();
        assert!(refused("a,b\n").contains("line 1: 1 columns where two were expected"));
        assert!(refused("a\ta\nb\tb\nb\ta\n").contains("line 3: a is a member of two clusters"));
        assert!(refused("\n").contains("is empty"));
        assert!(
            ClusterFile::read("no/such.tsv")
                .unwrap_err()
                .to_string()
                .contains("no/such.tsv cannot be read")
        );
    }
}
