//! Arrows between crates only point down. Read from `cargo metadata`, checked against one list.

use anyhow::{Context, Result, bail};
use std::{collections::BTreeMap, process::Command};

/// Crate, and the crates of this workspace that it may depend on. Plugins and fixtures follow [`PLUGIN_MAY`].
const MAY: &[(&str, &[&str])] = &[
    ("equivbench-feature-union", &[]),
    ("equivbench-abi", &["equivbench-feature-union"]),
    ("equivbench-instruction-set", &[]),
    ("gemm", &["equivbench-instruction-set"]),
    (
        "equivbench-kernels",
        &[
            "equivbench-feature-union",
            "equivbench-instruction-set",
            "gemm",
        ],
    ),
    ("equivbench-core", &[]),
    (
        "equivbench-plugin",
        &["equivbench-abi", "equivbench-kernels"],
    ),
    ("equivbench-dataset-tools", &["equivbench-plugin"]),
    ("equivbench-host", &["equivbench-abi", "equivbench-core"]),
    (
        "equivbench-conformance",
        &["equivbench-abi", "equivbench-core", "equivbench-host"],
    ),
    ("equivbench-curvature", &["equivbench-core"]),
    (
        "equivbench-protocols",
        &["equivbench-core", "equivbench-curvature"],
    ),
    (
        "equivbench-report",
        &["equivbench-core", "equivbench-protocols"],
    ),
    (
        "equivbench-analysis",
        &[
            "equivbench-core",
            "equivbench-protocols",
            "equivbench-report",
        ],
    ),
    (
        "equivbench-runner",
        &[
            "equivbench-analysis",
            "equivbench-core",
            "equivbench-host",
            "equivbench-protocols",
            "equivbench-report",
        ],
    ),
    (
        "equivbench",
        &[
            "equivbench-analysis",
            "equivbench-conformance",
            "equivbench-core",
            "equivbench-host",
            "equivbench-protocols",
            "equivbench-report",
            "equivbench-runner",
        ],
    ),
    (
        "equivbench-device-trial",
        &["equivbench-abi", "equivbench-core", "equivbench-host"],
    ),
    (
        "equivbench-e2e",
        &[
            "equivbench-abi",
            "equivbench-core",
            "equivbench-host",
            "equivbench-testkit",
        ],
    ),
    ("equivbench-micro", &[]),
    (
        "equivbench-micro-plugins",
        &[
            "equivbench-escaip",
            "equivbench-host",
            "equivbench-micro",
            "equivbench-pdb",
            "equivbench-plugin",
            "equivbench-point-mlp",
            "equivbench-spice",
        ],
    ),
    ("equivbench-backbone-generator", &["equivbench-pdb"]),
    ("equivbench-testkit", &[]),
    ("xtask", &[]),
];

/// What a plugin may depend on.
const PLUGIN_MAY: &[&str] = &[
    "equivbench-plugin",
    "equivbench-kernels",
    "equivbench-abi",
    "equivbench-dataset-tools",
];

/// What tests may use on top.
const TESTS_MAY: &[&str] = &[
    "equivbench-testkit",
    "equivbench-host",
    "equivbench-core",
    "equivbench-curvature",
    "equivbench-abi",
];

/// Checks every dependency between crates of the workspace.
pub(crate) fn check() -> Result<()> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(crate::root())
        .output()
        .context("cargo metadata")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cargo metadata printed no JSON")?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let allowed: BTreeMap<&str, &[&str]> = MAY.iter().copied().collect();
    let names: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let may = allowed.get(name).copied().unwrap_or(PLUGIN_MAY);
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let for_tests = dependency["kind"] == "dev";
            let test_only = TESTS_MAY.contains(&on) || on.starts_with("equivbench-fixture-");
            if names.contains(&on) && !may.contains(&on) && !(for_tests && test_only) {
                wrong.push(format!("{name} -> {on}"));
            }
        }
    }
    if !wrong.is_empty() {
        bail!(
            "these arrows point up or sideways: {}; see ARCHITECTURE.md",
            wrong.join(", ")
        );
    }
    println!("layers: {} crates, all arrows point down", names.len());
    Ok(())
}
