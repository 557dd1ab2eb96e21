//! A run of every protocol, for all three systems: every table, and what must hold in it.

use equivbench_e2e::{equivbench, table};
use std::{collections::BTreeSet, path::Path, time::Instant};

/// The cells of a column, with the models of their rows.
fn cells(out: &Path, name: &str, column: &str) -> Vec<(String, String)> {
    let (header, rows) = table(out, name);
    let at = |wanted: &str| header.iter().position(|c| c == wanted).unwrap();
    let (model, column) = (at("model"), at(column));
    rows.iter()
        .map(|r| (r[model].clone(), r[column].clone()))
        .collect()
}

/// Tables of the new protocols, and the systems that have rows in them: a flow-matching model names no subspace.
const TABLES: [(&str, &[&str]); 14] = [
    ("gradients", &["escaip", "proteina", "voxmol"]),
    ("purity", &["escaip", "proteina", "voxmol"]),
    ("condition", &["escaip", "proteina", "voxmol"]),
    ("spectra", &["escaip", "proteina", "voxmol"]),
    ("landscape", &["escaip", "proteina", "voxmol"]),
    ("roughness", &["escaip", "proteina", "voxmol"]),
    ("subspace", &["escaip", "voxmol"]),
    ("subspace_scaling", &["escaip", "voxmol"]),
    ("subspace_exponents", &["escaip", "voxmol"]),
    ("latent", &["escaip", "proteina", "voxmol"]),
    ("latent_samples", &["escaip", "proteina", "voxmol"]),
    ("post", &["escaip", "proteina", "voxmol"]),
    ("rotations", &["escaip", "proteina", "voxmol"]),
    ("measures", &["escaip", "proteina", "voxmol"]),
];

#[test]
#[ignore = "slow: a quick run of every protocol takes some ten minutes on two cores"]
fn a_quick_run_of_every_protocol_fills_every_table_and_the_sandwich_holds() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let path = out.to_string_lossy().into_owned();
    let arguments = [
        "run",
        "--quiet",
        "--plugins",
        "escaip,proteina,voxmol",
        "--protocols",
        "all",
    ];
    let more = ["--seeds", "1", "--out", &path];
    let start = Instant::now();
    equivbench(&[&arguments[..], &more[..]].concat())
        .assert()
        .success();
    println!("{} seconds", start.elapsed().as_secs());
    for (name, models) in TABLES {
        let found: BTreeSet<String> = cells(&out, name, "model")
            .into_iter()
            .map(|(model, _)| model)
            .collect();
        let expected: BTreeSet<String> = models.iter().map(|m| (*m).to_owned()).collect();
        assert_eq!(found, expected, "{name}");
    }
    // Theorem 4 at every evaluation of a head that is linear in its parameters.
    let verdicts = cells(&out, "subspace", "theorem4");
    let escaip: Vec<&str> = verdicts
        .iter()
        .filter(|(m, _)| m == "escaip")
        .map(|(_, v)| v.as_str())
        .collect();
    assert!(
        escaip.len() > 10 && escaip.iter().all(|v| *v == "holds"),
        "{escaip:?}"
    );
    let verdicts = cells(&out, "gradients", "proposition2");
    println!("Proposition 2: {:?}", counted(&verdicts));
    println!(
        "Proposition 3: {:?}",
        counted(&cells(&out, "purity", "proposition3"))
    );
}

/// How often each verdict stands for each model.
fn counted(verdicts: &[(String, String)]) -> std::collections::BTreeMap<(String, String), u32> {
    let mut counts = std::collections::BTreeMap::new();
    verdicts
        .iter()
        .for_each(|v| *counts.entry(v.clone()).or_default() += 1);
    counts
}
