//! The conformance kit passes on our plugins and fails on the misbehaving ones.

use equivbench_e2e::{equivbench, library};

fn outcomes(plugin: &str, extra: &[&str]) -> serde_json::Value {
    // A limit that no busy machine meets; the check of a model that hangs gives its own.
    let mut arguments = vec!["check", plugin, "--format", "json"];
    if !extra.contains(&"--limit-s") {
        arguments.extend(["--limit-s", "1800"]);
    }
    arguments.extend(extra);
    let output = equivbench(&arguments).output().unwrap();
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)))
}

#[test]
fn every_check_passes_on_our_plugins() {
    for plugin in ["escaip", "spice", "point-mlp", "spring-cloud"] {
        let checks = outcomes(plugin, &[])["checks"].as_array().unwrap().clone();
        assert!(checks.len() >= 9, "{plugin}");
        for check in &checks {
            assert_ne!(check["outcome"], "failed", "{plugin}: {check}");
        }
        assert!(
            checks.iter().filter(|c| c["outcome"] == "passed").count() >= 9,
            "{plugin}"
        );
    }
}

#[test]
fn a_check_that_crashes_or_hangs_fails_alone() {
    let plugin = library("fixture_misbehaving")
        .to_string_lossy()
        .into_owned();
    for (model, check) in [
        ("segfaults", "learning"),
        ("aborts", "learning"),
        ("wrong-shape", "shapes"),
        ("predicts-nan", "shapes"),
        ("panics", "learning"),
    ] {
        let target =
            serde_json::json!({"kind": "model", "model": model, "config": "{\"at_step\": 0}"})
                .to_string();
        let outcome = outcomes(&plugin, &["--target", &target, "--only", check]);
        assert_eq!(
            outcome["checks"][0]["outcome"], "failed",
            "{model}: {outcome}"
        );
    }
    let hang = outcomes(
        &plugin,
        &["--target", "hangs", "--only", "learning", "--limit-s", "2"],
    );
    assert_eq!(hang["checks"][0]["outcome"], "failed", "{hang}");
    let why = hang["checks"][0]["why"].as_str().unwrap();
    assert!(why.contains("was still running after 2 s"), "{why}");
    let good = outcomes(&plugin, &["--target", "good"]);
    assert!(
        good["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["outcome"] != "failed"),
        "{good}"
    );
}
