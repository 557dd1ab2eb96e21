//! Lines of `cubecl-cuda` that must be others in a CUDA build. Cargo is shown a copy of the crate, as the registry has it, in which they
//! are: nothing of it lies in this repository. Each change is found exactly once, or the build stops.

use crate::{root, target};
use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The crate and version whose lines are changed.
const CRATE: (&str, &str) = ("cubecl-cuda", "0.11.3");

/// A change: in which file, what stands there, and what is to stand there.
struct Change {
    file: &'static str,
    from: &'static str,
    to: &'static str,
}

/// Every change, with its reason.
const CHANGES: &[Change] = &[
    // Products of f32 matrices are rounded to TF32 (about 1e-3) wherever the type is offered, and there is no setting against it.
    Change {
        file: "src/runtime.rs",
        from: "            device_props
                .register_type_usage(ElemType::Float(FloatKind::TF32), TypeUsage::Conversion);",
        to: "            if is_allowed(\"tf32\") {
                device_props
                    .register_type_usage(ElemType::Float(FloatKind::TF32), TypeUsage::Conversion);
            }",
    },
    // Kernels that use it include headers that take seconds to compile.
    Change {
        file: "src/runtime.rs",
        from: "device_props.features.tma.insert(Tma::Base);",
        to: "if is_allowed(\"tma\") { device_props.features.tma.insert(Tma::Base); }",
    },
    Change {
        file: "src/runtime.rs",
        from: "fn tensor_cores_per_sm(",
        to: "/// Whether the user asked for it.
fn is_allowed(feature: &str) -> bool {
    std::env::var(\"EQUIVBENCH_CUDA_ALLOW\")
        .is_ok_and(|allowed| allowed.split(',').any(|name| name.trim() == feature))
}

fn tensor_cores_per_sm(",
    },
    // Machine code that NVRTC makes is thrown away: the driver assembles the PTX in any case.
    Change {
        file: "src/compute/context.rs",
        from: "--gpu-architecture=sm_{}a",
        to: "--gpu-architecture=compute_{}a",
    },
    Change {
        file: "src/compute/context.rs",
        from: "--gpu-architecture=sm_{}\"",
        to: "--gpu-architecture=compute_{}\"",
    },
    // NVRTC (12.8 and later) keeps parsed headers, if nothing stands in front of them.
    Change {
        file: "src/compute/context.rs",
        from: "let c_source = CString::from_str(source).unwrap();",
        to: "let (head, body): (Vec<&str>, Vec<&str>) =
                source.lines().partition(|line| line.starts_with(\"#include\"));
            let source = format!(\"{}\\n{}\\n\", head.join(\"\\n\"), body.join(\"\\n\"));
            let c_source = CString::from_str(&source).unwrap();",
    },
    Change {
        file: "src/compute/context.rs",
        from: "if cudarc::nvrtc::result::compile_program(program, &options).is_err() {",
        to: "let kept: Vec<&str> = options.iter().copied().chain([\"--pch\"]).collect();
            if cudarc::nvrtc::result::compile_program(program, &kept).is_err()
                && cudarc::nvrtc::result::compile_program(program, &options).is_err()
            {",
    },
];

/// A copy of the crate with the changes, in the build folder.
pub(crate) fn changed_copy() -> Result<PathBuf> {
    let copy = target().join("..").join("cuda").join(CRATE.0);
    if copy.exists() {
        std::fs::remove_dir_all(&copy)?;
    }
    copy_sources(&published()?, &copy)?;
    for change in CHANGES {
        let path = copy.join(change.file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let changed = replaced(&text, change).with_context(|| path.display().to_string())?;
        std::fs::write(&path, changed)?;
    }
    copy.canonicalize().context("the copy is there")
}

fn replaced(text: &str, change: &Change) -> Result<String> {
    match text.matches(change.from).count() {
        1 => Ok(text.replacen(change.from, change.to, 1)),
        n => bail!(
            "{:?} stands there {n} times, once was expected",
            change.from
        ),
    }
}

/// Where cargo keeps the crate as it was published.
fn published() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--all-features"])
        .current_dir(root())
        .output()
        .context("cargo metadata could not be started")?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let packages = metadata["packages"].as_array().context("packages")?;
    let is_it = |p: &&serde_json::Value| p["name"] == CRATE.0 && p["version"] == CRATE.1;
    let found = packages.iter().find(is_it);
    let manifest = found.and_then(|p| p["manifest_path"].as_str());
    let manifest = manifest.with_context(|| format!("{} {} is not used", CRATE.0, CRATE.1))?;
    Ok(Path::new(manifest).parent().context("a folder")?.to_owned())
}

fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)
        .with_context(|| from.display().to_string())?
        .flatten()
    {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            copy_sources(&path, &to.join(name))?;
        } else if name != ".cargo-ok" {
            std::fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_finds_its_place_in_the_published_crate() {
        // Where cargo has not fetched the crate, there is nothing to look at.
        let Ok(published) = published() else {
            println!("skipped: cargo does not know {} {}", CRATE.0, CRATE.1);
            return;
        };
        for change in CHANGES {
            let text = std::fs::read_to_string(published.join(change.file)).unwrap();
            assert!(replaced(&text, change).unwrap().contains(change.to));
        }
    }

    #[test]
    fn a_place_that_is_gone_or_twice_there_stops_the_build() {
        let change = Change {
            file: "",
            from: "a",
            to: "b",
        };
        assert_eq!(replaced("xay", &change).unwrap(), "xby");
        assert!(replaced("xy", &change).is_err());
        assert!(replaced("xaya", &change).is_err());
    }
}
