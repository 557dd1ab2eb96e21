//! The index: all chains of the files that pass the filters, each once, and a report on what was met on the way.

use crate::{
    chain::{self, BREAK_ABOVE, Chain},
    entry::{Entry, EntryChain, Tally},
    filter::Reason,
    options::Selection,
    store::{ChainRecord, checksum, pack},
};
use equivbench_plugin::{PluginError, PluginResult};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, HashSet},
    io::{self, Write},
};

/// Chains without their coordinates, and what was met.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Index {
    pub(crate) records: Vec<ChainRecord>,
    pub(crate) report: ReadingReport,
}

/// Figures of the whole reading.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ReadingReport {
    /// Structure files that were read.
    pub(crate) files: u64,
    /// Structure files that were not, and the first few with the reason.
    pub(crate) unreadable: u64,
    pub(crate) first_unreadable: Vec<String>,
    /// Files that hold no protein chain.
    pub(crate) without_chain: u64,
    /// Chains with a C-alpha.
    pub(crate) chains: u64,
    pub(crate) left_out: BTreeMap<Reason, u64>,
    pub(crate) tally: Tally,
    /// Residues, breaks, and median of the other steps from C-alpha to C-alpha (Å) of the chains that are kept.
    pub(crate) residues: u64,
    pub(crate) breaks: u64,
    pub(crate) median_step: Option<f64>,
}

/// Unreadable files that the report names.
const NAMED: usize = 5;
/// Å: steps are counted in bins of this width, since the archive has 30 million.
const BIN: f64 = 0.001;

/// What one file gives, filtered.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    kept: Vec<EntryChain>,
    left_out: Vec<Reason>,
    tally: Tally,
}

impl Parsed {
    pub(crate) fn new(mut entry: Entry, selection: &Selection) -> Self {
        let chains = std::mem::take(&mut entry.chains);
        let mut parsed = Self {
            tally: entry.tally,
            ..Self::default()
        };
        for chain in chains {
            match selection.refuses(&entry, &chain) {
                Some(reason) => parsed.left_out.push(reason),
                None => parsed.kept.push(chain),
            }
        }
        parsed
    }
}

/// Collects chains in the order of the files and writes their coordinates.
pub(crate) struct IndexBuilder<W> {
    output: W,
    offset: u64,
    index: Index,
    seen: HashSet<[u8; 32]>,
    steps: Vec<u64>,
}

impl<W: Write> IndexBuilder<W> {
    pub(crate) fn new(output: W) -> Self {
        let bins = (BREAK_ABOVE / BIN).round() as usize + 1;
        Self {
            output,
            offset: 0,
            index: Index::default(),
            seen: HashSet::new(),
            steps: vec![0; bins],
        }
    }

    /// Adds what was read of a file, or why it was not.
    ///
    /// # Errors
    /// Coordinates cannot be written.
    pub(crate) fn file(&mut self, name: &str, result: Result<Parsed, String>) -> io::Result<()> {
        let report = &mut self.index.report;
        let parsed = match result {
            Ok(parsed) => parsed,
            Err(why) => {
                report.unreadable += 1;
                if report.first_unreadable.len() < NAMED {
                    report.first_unreadable.push(format!("{name}: {why}"));
                }
                return Ok(());
            }
        };
        report.files += 1;
        report.chains += (parsed.kept.len() + parsed.left_out.len()) as u64;
        report.without_chain += u64::from(parsed.kept.is_empty() && parsed.left_out.is_empty());
        report.tally.add(parsed.tally);
        parsed
            .left_out
            .into_iter()
            .for_each(|reason| self.leave_out(reason));
        let stem = crate::inputs::stem(name);
        for chain in parsed.kept {
            let id = if chain.name.is_empty() {
                stem.clone()
            } else {
                format!("{stem}_{}", chain.name)
            };
            self.keep(id, chain)?;
        }
        Ok(())
    }

    /// Adds a chain that comes from no file.
    ///
    /// # Errors
    /// A residue number that does not fit into 32 bits; coordinates cannot be written.
    pub(crate) fn chain(&mut self, chain: Chain, selection: &Selection) -> io::Result<()> {
        let numbers: Result<Vec<i32>, _> = chain
            .residue_numbers
            .iter()
            .map(|&n| i32::try_from(n))
            .collect();
        let numbers = numbers.map_err(io::Error::other)?;
        let entry = EntryChain {
            sequence: chain.sequence,
            positions: chain.positions,
            numbers,
            ..EntryChain::default()
        };
        self.index.report.chains += 1;
        match selection.refuses_chain(&entry) {
            Some(reason) => self.leave_out(reason),
            None => self.keep(chain.id, entry)?,
        }
        Ok(())
    }

    fn leave_out(&mut self, reason: Reason) {
        *self.index.report.left_out.entry(reason).or_default() += 1;
    }

    fn keep(&mut self, id: String, chain: EntryChain) -> io::Result<()> {
        if !self.seen.insert(identity(&chain)) {
            self.leave_out(Reason::Duplicate);
            return Ok(());
        }
        let packed = pack(&chain.positions, &chain.numbers);
        self.output.write_all(&packed)?;
        self.survey(&chain.positions);
        let checksum = checksum(&packed, &chain.sequence);
        self.index.records.push(ChainRecord {
            id,
            sequence: chain.sequence,
            checksum,
            offset: self.offset,
        });
        self.offset += packed.len() as u64;
        Ok(())
    }

    fn survey(&mut self, positions: &[[f64; 3]]) {
        self.index.report.residues += positions.len() as u64;
        for step in chain::steps(positions) {
            match self
                .steps
                .get_mut((step / BIN) as usize)
                .filter(|_| step <= BREAK_ABOVE)
            {
                Some(bin) => *bin += 1,
                None => self.index.report.breaks += 1,
            }
        }
    }

    /// The index, and where the coordinates were written with their number of bytes.
    pub(crate) fn finish(mut self) -> (Index, W, u64) {
        self.index.report.median_step = median(&self.steps);
        (self.index, self.output, self.offset)
    }
}

/// Middle of the bin that holds the median; none without any step.
fn median(bins: &[u64]) -> Option<f64> {
    let half = bins.iter().sum::<u64>().div_ceil(2);
    let mut below = 0;
    let reaches = |n: &u64| {
        below += n;
        below >= half && half > 0
    };
    bins.iter()
        .position(reaches)
        .map(|bin| (bin as f64 + 0.5) * BIN)
}

/// Two chains of one sequence and the same coordinates are one, whatever the files call them and number their residues.
fn identity(chain: &EntryChain) -> [u8; 32] {
    Sha256::new()
        .chain_update(&chain.sequence)
        .chain_update(pack(&chain.positions, &[]))
        .finalize()
        .into()
}

impl Index {
    /// Refuses an index without chains, and files of which none could be read.
    ///
    /// # Errors
    /// With the reasons and what to do.
    pub(crate) fn check(&self, name: &str) -> PluginResult<()> {
        let report = &self.report;
        if !self.records.is_empty() {
            return Ok(());
        }
        let unreadable = || {
            format!(
                "{} could not be read, among them {}",
                report.unreadable,
                report.first_unreadable.join("; ")
            )
        };
        if report.files == 0 {
            return Err(PluginError::BadData(format!(
                "{name}: no structure file could be read; {}; fetch the files again, or give mmCIF, PDB or BinaryCIF files",
                unreadable()
            )));
        }
        let mut reasons: Vec<String> = report
            .left_out
            .iter()
            .map(|(reason, n)| format!("{n} {}", reason.about()))
            .collect();
        if report.without_chain > 0 {
            reasons.push(format!(
                "{} files hold no protein chain",
                report.without_chain
            ));
        }
        if report.unreadable > 0 {
            reasons.push(unreadable());
        }
        Err(PluginError::BadData(format!(
            "{name}: none of the {} chains in {} files can be used; left out: {}. Relax the option that removed them, or give other files",
            report.chains,
            report.files,
            reasons.join("; ")
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Options, Settings};

    fn chain(x: f64) -> EntryChain {
        let positions: Vec<[f64; 3]> = (0..60)
            .map(|i| [x, 0.0, 3.8 * f64::from(i) + if i > 30 { 5.0 } else { 0.0 }])
            .collect();
        EntryChain {
            name: "A".into(),
            sequence: "G".repeat(60),
            positions,
            numbers: (1..=60).collect(),
            stated: None,
        }
    }

    fn parsed(chains: Vec<EntryChain>) -> Parsed {
        let selection = Settings::new(Options {
            path: Some("x".into()),
            ..Options::default()
        })
        .unwrap()
        .selection;
        Parsed::new(
            Entry {
                chains,
                ..Entry::default()
            },
            &selection,
        )
    }

    #[test]
    fn copies_are_kept_once_and_unreadable_files_are_named() {
        let mut builder = IndexBuilder::new(Vec::new());
        builder
            .file("a/1abc.cif.gz", Ok(parsed(vec![chain(0.0), chain(1.0)])))
            .unwrap();
        builder.file("b.pdb", Err("it is empty".into())).unwrap();
        builder.file("c.pdb", Ok(parsed(vec![chain(0.0)]))).unwrap();
        builder.file("d.pdb", Ok(parsed(vec![]))).unwrap();
        let (index, bytes, length) = builder.finish();
        assert_eq!(
            index
                .records
                .iter()
                .map(|r| r.id.as_str())
                .collect::<Vec<_>>(),
            ["1abc_A", "1abc_A"]
        );
        let report = &index.report;
        assert_eq!(
            (
                report.files,
                report.unreadable,
                report.without_chain,
                report.chains
            ),
            (3, 1, 1, 3)
        );
        assert_eq!(report.left_out, BTreeMap::from([(Reason::Duplicate, 1)]));
        assert_eq!(report.first_unreadable, ["b.pdb: it is empty"]);
        assert_eq!(
            (bytes.len() as u64, index.records[1].offset),
            (length, length / 2)
        );
        assert_eq!((report.residues, report.breaks), (120, 2));
        // Half a bin.
        let median = report.median_step.unwrap();
        assert!((median - 3.8).abs() <= 5e-4 + 1e-12, "{median}");
    }

    #[test]
    fn nothing_left_says_why() {
        let mut builder = IndexBuilder::new(Vec::new());
        let mut short = chain(0.0);
        short.sequence.truncate(10);
        builder.file("a.pdb", Ok(parsed(vec![short]))).unwrap();
        let message = builder.finish().0.check("set").unwrap_err().to_string();
        assert!(
            message.contains("none of the 1 chains in 1 files")
                && message.contains("1 chains not longer than min_length"),
            "{message}"
        );
        let mut builder = IndexBuilder::new(Vec::new());
        builder.file("a.pdb", Err("it is empty".into())).unwrap();
        let message = builder.finish().0.check("set").unwrap_err().to_string();
        assert!(message.contains("no structure file could be read; 1 could not be read, among them a.pdb: it is empty"), "{message}");
        assert_eq!(median(&[0, 0]), None);
    }
}
