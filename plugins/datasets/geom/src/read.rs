//! Reads the files of a path one after the other: a thread unpacks ahead, bytes count as progress.

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

/// Reads all files into the collector; with more than one thread a second one unpacks.
///
/// # Errors
/// What the reader of the format refuses, with the number of conformers before it; a file of drawings or without hydrogens.
pub(crate) fn read_all(files: &[Input], threads: u64, collector: &mut Collector<'_>) -> PluginResult<()> {
    let progress = Arc::new(Progress::new("reading conformers", files.iter().map(|f| f.bytes).sum()));
    for file in files {
        let result = read(file, threads, &progress, collector);
        // Damage counts first; of a file that ends early, what came before the end may be too little to judge.
        result.map_err(|e| with_count(e, collector.seen()))?;
        collector.end_file(&file.name)?;
    }
    Ok(())
}

fn read(file: &Input, threads: u64, progress: &Arc<Progress>, collector: &mut Collector<'_>) -> PluginResult<()> {
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
        Format::Npz => npz::read(&file.path, name, &mut sink)?,
        Format::Crude => crude::read(&file.path, name, &mut sink)?,
        Format::Torch => pth::read(&file.path, name, &mut sink)?,
    }
    // These readers move about in their files.
    progress.add(file.bytes);
    Ok(())
}

fn open(file: &Input, threads: u64, progress: &Arc<Progress>) -> PluginResult<Box<dyn BufRead + Send>> {
    let opened = input::open_with(&file.path, progress).and_then(|input| if threads == 1 { Ok(input) } else { input::read_ahead(input) });
    opened.map_err(|e| bad_data(&file.name, "", input::unreadable(&e), "check the disk and the permissions"))
}

fn with_count(error: PluginError, conformers: u64) -> PluginError {
    match error {
        PluginError::BadData(message) => PluginError::BadData(format!("{message} ({conformers} conformers had been read before)")),
        other => other,
    }
}
