//! Writes `backbones-mini.safetensors` of the dataset anew: `cargo run --release -p equivbench-backbone-generator [FILE]`.

use equivbench_backbone_generator::{SEED, generate, sample};
use std::{path::PathBuf, time::Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let beside = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../data/backbones-mini.safetensors"
    );
    let path = std::env::args_os()
        .nth(1)
        .map_or_else(|| PathBuf::from(beside), PathBuf::from);
    let start = Instant::now();
    let sample = sample(generate(SEED));
    let bytes = sample.encode(SEED)?;
    std::fs::write(&path, &bytes)?;
    let residues: usize = sample.chains.iter().map(|c| c.positions.len()).sum();
    println!(
        "{}: {} chains, {residues} residues, {} bytes, {:.0} s",
        path.display(),
        sample.chains.len(),
        bytes.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
