//! `cargo xtask cuda`: one file with everything that a GPU machine needs.

use crate::cubecl;
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

const USAGE: &str = "usage: cargo xtask cuda [--cpu]";
/// The pack may be as large as this.
const LIMIT: u64 = 64 << 20;
const PROGRAMS: [&str; 2] = ["equivbench", "device_trial"];
const MODELS: [&str; 3] = ["escaip", "proteina", "voxmol"];
const DATASETS: [&str; 3] = ["spice", "pdb", "geom"];
/// Scripts, from the folder of benchmarks.
const SCRIPTS: [&str; 5] = [
    "gpu/stages.sh",
    "gpu/measure.sh",
    "gpu/machine.py",
    "gpu/peer.py",
    "gpu/curves.py",
];
const PEERS: [&str; 5] = [
    "escaip.py",
    "proteina.py",
    "voxmol.py",
    "serving.py",
    "threads.py",
];

/// Builds with CUDA (with `--cpu` without, to try the way), strips, packs, prints every size.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let features = match arguments {
        [] => MODELS
            .map(|model| format!("equivbench-{model}/cuda"))
            .join(","),
        [flag] if flag == "--cpu" => String::new(),
        _ => bail!("{USAGE}"),
    };
    build(&features)?;
    let folder = crate::target().join("../gpu/equivbench-gpu");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    fill(&folder)?;
    let pack = folder.with_extension("tar.xz");
    compress(&folder, &pack)?;
    let bytes = size(&pack)?;
    println!("{:>10}  {}", megabytes(bytes), pack.display());
    if bytes > LIMIT {
        bail!("the pack is larger than {}", megabytes(LIMIT));
    }
    Ok(())
}

fn build(features: &str) -> Result<()> {
    let names = [
        "equivbench".to_owned(),
        "equivbench-device-trial".to_owned(),
    ];
    let plugins = MODELS.iter().chain(&DATASETS);
    let names = names
        .into_iter()
        .chain(plugins.map(|name| format!("equivbench-{name}")));
    let names: Vec<String> = names.flat_map(|name| ["-p".to_owned(), name]).collect();
    let mut arguments = vec!["build", "--release", "--features", features];
    arguments.extend(names.iter().map(String::as_str));
    if features.is_empty() {
        return crate::cargo(&arguments);
    }
    let paths = format!("paths=[\"{}\"]", cubecl::changed_copy()?.display());
    arguments.extend(["--config", &paths]);
    // The build says of itself that its f32 products are exact.
    crate::cargo_with(&[("EQUIVBENCH_EXACT_F32", "1")], &arguments)
}

/// Puts stripped programs and plugins, scripts and peers into a folder.
fn fill(folder: &Path) -> Result<()> {
    let benchmarks = crate::root().join("benchmarks");
    for name in PROGRAMS {
        stripped(&crate::target().join(name), &folder.join("bin"))?;
    }
    for name in MODELS.iter().chain(&DATASETS) {
        let file = crate::target().join(format!("libequivbench_{name}.so"));
        stripped(&file, &folder.join("plugins"))?;
    }
    for name in SCRIPTS {
        copy(&benchmarks.join(name), folder)?;
    }
    for name in PEERS {
        copy(
            &benchmarks.join("peers/torch").join(name),
            &folder.join("peers"),
        )?;
    }
    Ok(())
}

fn copy(file: &Path, folder: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let to = folder.join(file.file_name().context("a file has a name")?);
    std::fs::copy(file, &to).with_context(|| file.display().to_string())?;
    Ok(to)
}

fn stripped(file: &Path, folder: &Path) -> Result<()> {
    let to = copy(file, folder)?;
    tool(Command::new("strip").arg(&to))?;
    println!("{:>10}  {}", megabytes(size(&to)?), to.display());
    Ok(())
}

fn compress(folder: &Path, pack: &Path) -> Result<()> {
    let (parent, name) = (folder.parent(), folder.file_name());
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(parent.context("the pack has a folder")?);
    tar.args(["--use-compress-program", "xz -T0 -6", "-cf"])
        .arg(pack);
    tool(tar.arg(name.context("the pack has a name")?))
}

fn tool(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("{} could not be started", command.get_program().display()))?;
    if !status.success() {
        bail!("{} failed", command.get_program().display());
    }
    Ok(())
}

fn size(file: &Path) -> Result<u64> {
    let about = std::fs::metadata(file).with_context(|| file.display().to_string())?;
    Ok(about.len())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
