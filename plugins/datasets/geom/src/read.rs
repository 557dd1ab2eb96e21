//! Reads the files of a path one after the other: a thread unpacks ahead, bytes count as progress. Archives (npz, torch) are moved about
//! in, so that they have no such thread and count when they end.

use crate::{
    collect::Collector,
    conformer::Conformer,
    crude,
    inputs::{Format, Input},
    npz, pth, sdf, xyz,
};
use equivbench_dataset_tools::{bad_data, input};
use equivbench_plugin::{PluginError, PluginResult, Progress};
use std::{io::BufRead, sync::Arc};

/// Conformers after which a reader that counts no bytes shows a sign of life.
const BEAT: u64 = 64;

/// Reads all files into the collector; with more than one thread a second one unpacks those that are streams.
///
/// # Errors
/// What the reader of the format refuses, with the number of conformers before it; a file of drawings or without hydrogens.
pub(crate) fn read_all(
    files: &[Input],
    threads: u64,
    collector: &mut Collector<'_>,
) -> PluginResult<()> {
    let progress = Arc::new(Progress::new(
        "reading conformers",
        files.iter().map(|f| f.bytes).sum(),
    ));
    for file in files {
        let result = read(file, threads, &progress, collector);
        // Damage counts first; of a file that ends early, what came before the end may be too little to judge.
        result.map_err(|e| with_count(e, collector.seen()))?;
        collector.end_file(&file.name)?;
    }
    Ok(())
}

fn read(
    file: &Input,
    threads: u64,
    progress: &Arc<Progress>,
    collector: &mut Collector<'_>,
) -> PluginResult<()> {
    let mut sink = |conformer: Conformer| {
        if collector.seen().is_multiple_of(BEAT) {
            progress.add(0);
        }
        collector.take(&conformer)
    };
    let name = file.name.as_str();
    match file.format {
        Format::Sdf => return sdf::read(open(file, threads, progress)?, name, &mut sink),
        Format::Xyz => return xyz::read(open(file, threads, progress)?, name, &mut sink),
        Format::Crude => return crude::read(open(file, threads, progress)?, name, &mut sink),
        Format::Npz => npz::read(&file.path, name, &mut sink)?,
        Format::Torch => pth::read(&file.path, name, &mut sink)?,
    }
    // These two move about in their files.
    progress.add(file.bytes);
    Ok(())
}

fn open(
    file: &Input,
    threads: u64,
    progress: &Arc<Progress>,
) -> PluginResult<Box<dyn BufRead + Send>> {
    let opened = input::open_with(&file.path, progress).and_then(|input| {
        if threads == 1 {
            Ok(input)
        } else {
            input::read_ahead(input)
        }
    });
    opened.map_err(|e| {
        bad_data(
            &file.name,
            "",
            input::unreadable(&e),
            "check the disk and the permissions",
        )
    })
}

fn with_count(error: PluginError, conformers: u64) -> PluginError {
    match error {
        PluginError::BadData(message) => PluginError::BadData(format!(
            "{message} ({conformers} conformers had been read before)"
        )),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, options::Settings};

    /// The crude file of the fixtures, read as a stream; what was counted as progress, and how many conformers.
    fn read_crude(bytes: &[u8], threads: u64) -> (PluginResult<()>, String, u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("crude.msgpack.gz");
        std::fs::write(&path, bytes).unwrap();
        let file = Input {
            name: "crude.msgpack.gz".into(),
            format: Format::Crude,
            bytes: bytes.len() as u64,
            path,
        };
        let progress = Arc::new(Progress::new("reading", file.bytes));
        let settings = Settings::new(Options::default()).unwrap();
        let mut collector = Collector::new(&settings);
        let result = read(&file, threads, &progress, &mut collector);
        (result, format!("{progress:?}"), collector.seen())
    }

    #[test]
    fn a_packed_crude_file_counts_its_own_bytes_once_with_any_number_of_threads() {
        let packed = include_bytes!("../tests/fixtures/crude.msgpack.gz");
        for threads in [1, 2] {
            let (result, progress, seen) = read_crude(packed, threads);
            result.unwrap();
            assert_eq!(seen, 5);
            assert!(
                progress.contains(&format!("done: {},", packed.len())),
                "{progress}"
            );
            // A file that is cut counts what was read of it, not what it should have.
            let (result, progress, _) = read_crude(&packed[..packed.len() - 12], threads);
            assert!(
                result
                    .unwrap_err()
                    .to_string()
                    .contains("ends inside a value")
            );
            assert!(
                progress.contains(&format!("done: {},", packed.len() - 12)),
                "{progress}"
            );
        }
    }
}
