//! Writes `data/backbones-mini.bin.gz` anew: `cargo run --release -p equivbench-pdb --example make_backbones_mini [FILE]`.

use equivbench_pdb::{embedded::LEVEL, generator};
use std::{path::PathBuf, time::Instant};

fn main() -> std::io::Result<()> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/data/backbones-mini.bin.gz");
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let start = Instant::now();
    let traces = generator::generate(generator::SEED);
    let bytes = generator::encode(&traces, generator::SEED, LEVEL)?;
    std::fs::write(&path, &bytes)?;
    let residues: usize = traces.iter().map(|t| t.positions.len()).sum();
    println!(
        "{}: {} chains, {residues} residues, {} bytes, {:.0} s",
        path.display(),
        traces.len(),
        bytes.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
