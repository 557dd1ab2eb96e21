//! Writes `data/geom-mini.safetensors` anew: `cargo run --release -p equivbench-geom --example make_geom_mini SDF_FILE [FILE]`.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let source = arguments
        .next()
        .ok_or("name the SDF file: data/README.md says which")?;
    let path = arguments.next().unwrap_or_else(|| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/data/geom-mini.safetensors").into()
    });
    let bytes = equivbench_geom::embedded::make(&source)?;
    std::fs::write(&path, &bytes)?;
    println!("{}: {} bytes", path.display(), bytes.len());
    Ok(())
}
