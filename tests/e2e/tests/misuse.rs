//! Bad plugins, bad input, bad places: one paragraph, the documented exit code, nothing half-written.

use equivbench_e2e::{equivbench, library, table};
use std::path::Path;

fn run(out: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let path = out.to_string_lossy();
    let mut all = vec![
        "run",
        "--quiet",
        "--out",
        &path,
        "--set",
        "train.steps=12",
        "--set",
        "measure.samples=4",
        "--seeds",
        "1",
    ];
    all.extend(arguments);
    equivbench(&all).assert()
}

fn stderr(assert: &assert_cmd::assert::Assert) -> String {
    String::from_utf8_lossy(&assert.get_output().stderr).into_owned()
}

#[test]
fn each_misbehaving_model_fails_its_own_run_with_the_reason_and_the_good_one_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("mixed");
    let plugins = library("fixture_misbehaving");
    let plugins = plugins.to_string_lossy();
    // Only the model that hangs meets a limit: the others may take as long as a busy machine needs.
    let suite = folder.path().join("impatient.toml");
    std::fs::write(&suite, "[models.hangs.run]\nstall_limit_s = 5\n").unwrap();
    let assert = run(
        &out,
        &[
            "--plugins",
            &plugins,
            "--suite",
            &suite.to_string_lossy(),
            "--set",
            "dataset.name=spring-cloud",
        ],
    )
    .code(1);
    let text = stderr(&assert);
    for (model, reason) in [
        ("panics", "panicked"),
        ("segfaults", "segmentation fault"),
        ("aborts", "aborted"),
        ("hangs", "no sign of life"),
        ("wrong-shape", ""),
        ("predicts-nan", ""),
        ("loss-nan", "training loss became NaN at step"),
        ("exits", "exit"),
    ] {
        let line = text
            .lines()
            .find(|l| l.contains(&format!("run {model}-")))
            .unwrap_or_else(|| panic!("{model} is not named in: {text}"));
        assert!(line.contains("failed") && line.contains(reason), "{line}");
    }
    let (header, rows) = table(&out, "final");
    let model = header.iter().position(|h| h == "model").unwrap();
    let finished: Vec<&str> = rows.iter().map(|r| r[model].as_str()).collect();
    assert!(finished.contains(&"good"));
    for faulty in [
        "panics",
        "panics-unguarded",
        "segfaults",
        "aborts",
        "hangs",
        "wrong-shape",
        "half-written",
        "predicts-nan",
        "loss-nan",
        "exits",
    ] {
        assert!(!finished.contains(&faulty), "{faulty} finished");
    }
    // The run whose loss became NaN keeps its rows.
    let (_, rows) = table(&out, "curve");
    assert!(rows.iter().any(|r| r[model] == "loss-nan"));
}

#[test]
fn files_that_are_no_plugins_are_refused_with_code_3_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let good = std::fs::read(library("equivbench_point_mlp")).unwrap();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty.so", vec![], "plugin file"),
        (
            "text.so",
            b"not a library".to_vec(),
            "not a Linux shared library",
        ),
        ("truncated.so", good[..good.len() / 2].to_vec(), "truncated"),
    ];
    for (name, bytes, words) in cases {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let text = stderr(&run(&out, &["--plugins", &path.to_string_lossy()]).code(3));
        assert!(
            text.contains(name) && text.contains(words),
            "{name}: {text}"
        );
        assert!(!out.exists());
    }
    for stem in ["fixture_other_version", "fixture_crashes_in_describe"] {
        let text = stderr(&run(&out, &["--plugins", &library(stem).to_string_lossy()]).code(3));
        assert!(text.contains(stem), "{text}");
        assert!(
            text.len() < 2000,
            "a message, not a dump: {} characters",
            text.len()
        );
        assert!(!out.exists());
    }
    let text = stderr(&run(&out, &["--plugins", "escaipp"]).code(3));
    assert!(
        text.contains("escaip") && text.contains("libequivbench_escaipp"),
        "{text}"
    );
}

#[test]
fn unknown_keys_protocols_sizes_and_schemes_are_refused_with_the_nearest_known_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (arguments, words) in [
        (vec!["--set", "train.learning_rate=1"], "did you mean"),
        (vec!["--set", "train.lr"], "KEY=VALUE"),
        (vec!["--protocols", "dip"], "dip-timing"),
        (vec!["--set", "model.size=huge"], "there are: tiny, small"),
        (vec!["--set", "dataset.name=nothing"], "nothing"),
        (vec!["--suite", "no-such-suite"], "quick"),
        (vec!["--set", "measure.scheme=random"], "tetrahedral-xK"),
        (vec!["--set", "measure.loss=huber"], "mse, mae, l2"),
        (vec!["--set", "measure.weights=[\"raww\"]"], "raw, ema"),
        (vec!["--set", "run.clock=sundial"], "system, steps"),
        (vec!["--set", "measure.samples=0"], "must not be empty"),
    ] {
        let assert = run(
            &out,
            &[&["--plugins", "point-mlp"][..], &arguments].concat(),
        );
        let code = assert.get_output().status.code();
        assert!(matches!(code, Some(2 | 3)), "{arguments:?}: {code:?}");
        assert!(
            stderr(&assert).contains(words),
            "{arguments:?}: {}",
            stderr(&assert)
        );
        assert!(!out.exists());
    }
}

#[test]
fn what_a_plugin_refuses_fails_the_run_with_its_words() {
    let folder = tempfile::tempdir().unwrap();
    for (index, (arguments, words)) in [
        (
            vec!["--set", "model.config.hiden=3"],
            "did you mean \"hidden\"",
        ),
        (vec!["--set", "train.optimiser=lion"], "adamw, adam or sgd"),
        (vec!["--set", "dataset.options.clouds=0"], "at least 1"),
        (
            vec!["--set", "dataset.options.cluods=9"],
            "did you mean \"clouds\"",
        ),
        (vec!["--set", "train.examples=0.01%"], "leaves 0"),
        (vec!["--set", "measure.split=holdout"], "nothing to measure"),
        (
            vec![
                "--set",
                "train.lr=1e30",
                "--set",
                "train.optimiser=sgd",
                "--set",
                "train.steps=40",
            ],
            "at step",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let out = folder.path().join(index.to_string());
        let assert = run(
            &out,
            &[&["--plugins", "point-mlp"][..], &arguments].concat(),
        )
        .code(1);
        assert!(
            stderr(&assert).contains(words),
            "{arguments:?}: {}",
            stderr(&assert)
        );
    }
}

#[test]
fn a_gpu_that_is_not_there_has_its_own_code() {
    if Path::new("/dev/nvidia0").exists() {
        return equivbench_testkit::skip("this machine has a GPU");
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = stderr(&run(&out, &["--plugins", "point-mlp", "--device", "cuda:0"]).code(5));
    assert!(
        text.contains("cuda:0") && text.contains("--device cpu"),
        "{text}"
    );
    assert!(!out.exists());
}

#[test]
fn foreign_folders_and_closed_folders_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let foreign = folder.path().join("foreign");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(foreign.join("thesis.tex"), "text").unwrap();
    let text = stderr(&run(&foreign, &["--plugins", "point-mlp"]).code(6));
    assert!(text.contains("something else"), "{text}");
    assert_eq!(std::fs::read_dir(&foreign).unwrap().count(), 1);
    let file = folder.path().join("file");
    std::fs::write(&file, "text").unwrap();
    run(&file, &["--plugins", "point-mlp"]).code(6);
    run(&file.join("below"), &["--plugins", "point-mlp"]).code(7);
    run(
        &folder.path().join("nothing"),
        &["--plugins", "point-mlp", "--resume"],
    )
    .code(6);
}

#[test]
fn list_shows_models_datasets_and_why_a_file_was_refused() {
    let folder = tempfile::tempdir().unwrap();
    let name = format!(
        "{}equivbench_bad{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    std::fs::write(folder.path().join(name), "not a library").unwrap();
    let crashing = format!(
        "{}equivbench_crashing{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    std::fs::copy(
        library("fixture_crashes_in_describe"),
        folder.path().join(crashing),
    )
    .unwrap();
    let dir = folder.path().to_string_lossy().into_owned();
    let assert = equivbench(&["list", "--plugin-dir", &dir])
        .assert()
        .success();
    let text = String::from_utf8_lossy(&assert.get_output().stdout).into_owned();
    for words in [
        "escaip",
        "6137222",
        "spice-mini (GFN2-xTB)",
        "point-mlp",
        "refused:",
        "equivbench_bad",
        "equivbench_crashing",
    ] {
        assert!(text.contains(words), "{words} is missing in:\n{text}");
    }
    let assert = equivbench(&["list", "--format", "json", "--plugin-dir", &dir])
        .assert()
        .success();
    let json: serde_json::Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(json["refused"].as_array().unwrap().len(), 2);
}
