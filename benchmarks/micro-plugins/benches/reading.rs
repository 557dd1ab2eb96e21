//! What it costs to open data and to serve a batch of it, beside reading the bytes of the files (from the page cache) or copying the numbers.

use equivbench_abi::descriptor::DatasetRequest;
use equivbench_core::Dataset;
use equivbench_host::{Library, LoadedDataset};
use equivbench_micro::{Case, run};
use equivbench_micro_plugins::{Release, Structures, library};
use std::{
    hint::black_box,
    path::{Path, PathBuf},
};

/// Opens data as the harness does.
fn open(library: &Library, dataset: &str, options: &str) -> Result<LoadedDataset, String> {
    let request = DatasetRequest {
        dataset: dataset.into(),
        options: options.into(),
        seed: 1,
        ..DatasetRequest::default()
    };
    library.open_dataset(&request).map_err(|e| e.to_string())
}

/// A case that opens data again and again, beside reading the bytes of its files. `keep` is what must outlive it.
fn opening(
    name: &'static str,
    dataset: &'static str,
    options: String,
    files: Vec<PathBuf>,
    keep: impl Sized + 'static,
) -> Result<Case, String> {
    let library = library(dataset)?;
    open(&library, dataset, &options)?;
    let work = move || {
        let _files_stay = &keep;
        black_box(open(&library, dataset, &options).unwrap_or_else(|e| panic!("{e}")));
    };
    Ok(Case::new(name, "reading the bytes", work, move || {
        files.iter().for_each(|file| read(file))
    }))
}

fn read(file: &Path) {
    black_box(std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display())));
}

/// Opening a release reads, hashes and checks all of it, as it is below 256 MiB.
fn open_release() -> Result<Case, String> {
    let made = Release::new(256, 20)?;
    let (bytes, molecules) = (
        made.bytes as f64,
        (made.molecules * made.conformations) as f64,
    );
    let options = serde_json::json!({ "path": made.path() }).to_string();
    let case = opening(
        "reading/spice-hdf5-256x20",
        "spice",
        options,
        vec![made.path()],
        made,
    )?;
    Ok(case
        .counting("bytes", bytes)
        .counting("molecules", molecules))
}

/// All atoms are read as text, C-alphas are kept, the files are hashed.
fn open_structures() -> Result<Case, String> {
    let made = Structures::new(8, 300)?;
    let (bytes, residues) = (made.bytes as f64, (made.files * made.residues) as f64);
    let options = serde_json::json!({ "path": made.path(), "clusters": made.clusters(), "cache": "none", "max_length": 1000 }).to_string();
    let case = opening("reading/mmcif-8x300", "pdb", options, made.paths(), made)?;
    Ok(case.counting("bytes", bytes).counting("residues", residues))
}

/// A training batch of a file that is open, through the boundary.
fn load_a_batch() -> Result<Case, String> {
    const SAMPLES: usize = 64;
    let made = Release::new(256, 20)?;
    let mut data = open(
        &library("spice")?,
        "spice",
        &serde_json::json!({ "path": made.path() }).to_string(),
    )?;
    // Spread over the molecules, as a shuffled epoch is.
    let indices: Vec<u64> = (0..SAMPLES as u64).map(|i| 61 * i).collect();
    let from = data.load("train", &indices).map_err(|e| e.to_string())?;
    let work = move || {
        let _file_stays = &made;
        black_box(
            data.load("train", black_box(&indices))
                .unwrap_or_else(|e| panic!("{e}")),
        );
    };
    let floor = move || {
        black_box(black_box(&from).clone());
    };
    Ok(Case::new(
        "reading/load-64-molecules",
        "copying the batch",
        work,
        floor,
    )
    .counting("molecules", SAMPLES as f64))
}

fn main() {
    run(&[open_release, open_structures, load_a_batch]);
}
