//! A run from the command line to the tables, on the example plugins and on ours.

use equivbench_e2e::{csv_files, equivbench, numbers, table};
use std::path::Path;

fn run(out: &Path, arguments: &[&str]) -> assert_cmd::assert::Assert {
    let path = out.to_string_lossy();
    let mut all = vec!["run", "--quiet", "--out", &path];
    all.extend(arguments);
    // The suite has three; what is tested here needs one, where it does not say which.
    if arguments.iter().all(|a| !a.starts_with("run.seed=")) {
        all.extend(["--seeds", "1"]);
    }
    equivbench(&all).assert()
}

/// The laws that hold in every row of every curve.
fn check_curve(out: &Path) {
    let column = |name: &str| numbers(out, "curve", name, |_| true);
    let (total, twirled, equiv) = (
        column("loss_total"),
        column("loss_twirled"),
        column("loss_equiv"),
    );
    assert!(!total.is_empty());
    for ((l, m), e) in total.iter().zip(&twirled).zip(&equiv) {
        // 1e-9 relative: what the tables promise; they are written with all digits.
        assert!((l - m - e).abs() <= 1e-9 * l.abs(), "{l} is not {m} + {e}");
        assert!(*e >= 0.0);
    }
    for ((p, e), l) in column("equiv_percent").iter().zip(&equiv).zip(&total) {
        assert!((p - 100.0 * e / l).abs() <= 1e-9 * p.abs());
    }
}

#[test]
fn the_example_plugins_give_all_tables_and_the_same_bytes_again() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "--plugins",
        "point-mlp",
        "--set",
        "train.steps=60",
        "--set",
        "run.clock=steps",
        "--set",
        "measure.samples=8",
    ];
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    run(&one, &arguments).success();
    run(&two, &arguments).success();
    check_curve(&one);
    assert_eq!(csv_files(&one), csv_files(&two));
    let (header, rows) = table(&one, "dip");
    // Raw weights, two quantities, six thresholds, four readings; nothing is reached or it has a step.
    assert_eq!(rows.len(), 12 * 4);
    let at = |name: &str| header.iter().position(|h| h == name).unwrap();
    assert!(
        rows.iter()
            .all(|r| (r[at("reached")] == "true") != r[at("step_reached")].is_empty())
    );
    let manifest = std::fs::read_to_string(one.join("manifest.toml")).unwrap();
    assert!(
        manifest.contains("spring-cloud (exact)") && manifest.contains("sha256"),
        "{manifest}"
    );
}

#[test]
fn thread_counts_change_no_byte() {
    let folder = tempfile::tempdir().unwrap();
    let base = [
        "--plugins",
        "escaip",
        "--set",
        "train.steps=6",
        "--set",
        "run.clock=steps",
        "--set",
        "measure.samples=4",
        "--protocols",
        "train-and-measure",
    ];
    let mut files = Vec::new();
    for threads in ["run.threads=1", "run.threads=2"] {
        let out = folder.path().join(threads);
        run(&out, &[&base[..], &["--set", threads]].concat()).success();
        files.push(csv_files(&out));
    }
    assert_eq!(files[0], files[1]);
}

#[test]
fn escaip_learns_on_its_embedded_data_and_says_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("escaip");
    run(
        &out,
        &[
            "--plugins",
            "escaip",
            "--set",
            "train.steps=40",
            "--set",
            "measure.samples=8",
        ],
    )
    .success();
    check_curve(&out);
    let loss = numbers(&out, "curve", "loss_total", |cell| cell("weights") == "raw");
    assert!(loss.last().unwrap() < loss.first().unwrap(), "{loss:?}");
    let (header, rows) = table(&out, "curve");
    let dataset = header.iter().position(|h| h == "dataset").unwrap();
    assert!(
        rows.iter().all(|r| r[dataset] == "spice-mini (GFN2-xTB)"),
        "{:?}",
        rows[0]
    );
}

#[test]
fn a_sweep_gives_a_run_for_each_value_and_a_second_run_into_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("sweep");
    let arguments = [
        "--plugins",
        "point-mlp",
        "--jobs",
        "2",
        "--set",
        "run.seed=[0, 1, 2]",
        "--set",
        "train.steps=20",
        "--set",
        "measure.samples=4",
    ];
    run(&out, &arguments).success();
    let mut seeds = numbers(&out, "final", "seed", |cell| cell("set") == "measured");
    seeds.sort_by(f64::total_cmp);
    assert_eq!(seeds, [0.0, 1.0, 2.0]);
    let refused = run(&out, &arguments).code(6);
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("--resume"));
    let finished = csv_files(&out);
    run(&out, &[&arguments[..], &["--resume"]].concat()).success();
    assert_eq!(csv_files(&out), finished);
    let other = run(&out, &["--plugins", "point-mlp", "--set", "train.lr=0.5"]).code(6);
    assert!(String::from_utf8_lossy(&other.get_output().stderr).contains("another experiment"));
}

#[test]
fn a_setting_that_only_a_plugin_can_refuse_leaves_the_folder_to_the_corrected_command() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("corrected");
    let arguments = |lr: &'static str| {
        [
            "--plugins",
            "point-mlp",
            "--set",
            "train.steps=5",
            "--set",
            "measure.samples=8",
            "--set",
            lr,
        ]
    };
    run(&out, &arguments("train.lr=-1")).code(1);
    run(&out, &arguments("train.lr=0.01")).success();
    // Once there are rows, another command is refused as ever.
    run(&out, &arguments("train.lr=0.02")).code(6);
}

#[test]
fn real_and_labelled_files_train_and_report() {
    let Some(shared) = equivbench_testkit::shared_dir() else {
        return equivbench_testkit::skip("the shared folder is not there: real data were not run");
    };
    let files = [
        ("data/xtb/des_monomers_gfn2.hdf5", "des"),
        ("data/real/spice/SPICE-1.1.4_n2.hdf5", "spice114"),
        ("data/real/qm/BOTNet/3BPA_train_300K.xyz.gz", "3bpa"),
        ("data/real/qm/BOTNet/ethanol_train.xyz.gz", "ethanol"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (file, name) in files {
        let out = folder.path().join(name);
        let path = format!("dataset.options.path={}", shared.join(file).display());
        run(
            &out,
            &[
                "--plugins",
                "escaip",
                "--set",
                &path,
                "--set",
                "train.steps=30",
                "--set",
                "train.batch_size=4",
                "--set",
                "measure.samples=4",
            ],
        )
        .success();
        check_curve(&out);
        let loss = numbers(&out, "curve", "loss_total", |cell| cell("weights") == "raw");
        println!(
            "{file}: loss {:.3} -> {:.3} in 30 steps",
            loss[0],
            loss[loss.len() - 1]
        );
        assert!(loss[loss.len() - 1] < loss[0], "{file}: {loss:?}");
    }
}

#[test]
fn evaluating_in_double_precision_changes_only_rounding() {
    // What `f32` means on CUDA, tried on the processor: train in f32, evaluate in f64.
    let folder = tempfile::tempdir().unwrap();
    let percents: Vec<Vec<f64>> = ["f32", "f32+f64"]
        .iter()
        .map(|precision| {
            let out = folder.path().join(precision);
            let set = format!("run.precision={precision}");
            run(
                &out,
                &[
                    "--plugins",
                    "point-mlp",
                    "--set",
                    &set,
                    "--set",
                    "train.steps=20",
                    "--set",
                    "measure.samples=8",
                ],
            )
            .success();
            numbers(&out, "curve", "equiv_percent", |_| true)
        })
        .collect();
    assert_ne!(percents[0], percents[1]);
    for (single, double) in percents[0].iter().zip(&percents[1]) {
        // f32 predictions carry errors of 1e-7; the percent is a ratio of their squares' differences.
        assert!((single - double).abs() < 1e-4 * double, "{single} {double}");
    }
}

/// The shared path and the blind one measure the same, and say how far apart they are; 16 bits are for training only.
#[test]
fn shared_work_is_checked_and_bf16_trains_while_evaluation_stays_in_f32() {
    let folder = tempfile::tempdir().unwrap();
    let base = [
        "--plugins",
        "escaip",
        "--set",
        "train.steps=3",
        "--set",
        "measure.samples=8",
    ];
    let (shared, blind) = (folder.path().join("shared"), folder.path().join("blind"));
    run(
        &shared,
        &[&base[..], &["--set", r#"run.precision=["f32","bf16"]"#]].concat(),
    )
    .success();
    run(
        &blind,
        &[&base[..], &["--set", "measure.sharing=false"]].concat(),
    )
    .success();
    let at = |out: &Path, name: &str, column: &str| -> Vec<String> {
        let (header, rows) = table(out, name);
        let at = header.iter().position(|h| h == column).unwrap();
        rows.iter().map(|row| row[at].clone()).collect()
    };
    // Runs are in the order of their hashes.
    let mut precisions = at(&shared, "throughput", "precision");
    precisions.sort();
    assert_eq!(precisions, ["bf16", "f32"]);
    assert!(
        at(&blind, "curve", "shared_deviation")
            .iter()
            .chain(&at(&blind, "curve", "shared_checked"))
            .all(String::is_empty)
    );
    for (deviation, checked) in
        at(&shared, "curve", "shared_deviation")
            .iter()
            .zip(at(&shared, "curve", "shared_checked"))
    {
        // Rounding in f32; exactly 0 would mean that nothing was computed twice.
        let deviation: f64 = deviation.parse().unwrap();
        assert!(
            deviation > 0.0 && deviation < 1e-4 && checked == "4",
            "{deviation:e} of {checked}"
        );
    }
    // Fresh weights are the same in all three, and so is what is measured, to rounding in f32 predictions.
    let fresh = |out: &Path| {
        numbers(out, "curve", "loss_equiv", |cell| {
            cell("step") == "0" && cell("weights") == "raw"
        })
    };
    let (two, one) = (fresh(&shared), fresh(&blind));
    assert_eq!(two[0], two[1]);
    assert!((two[0] / one[0] - 1.0).abs() < 1e-4, "{two:?} {one:?}");
    let harness: Vec<f64> = numbers(&shared, "throughput", "harness_percent", |_| true);
    assert!(
        harness.iter().all(|percent| (0.0..100.0).contains(percent)),
        "{harness:?}"
    );
}

#[test]
fn the_suite_for_throughput_serves_every_model() {
    let folder = tempfile::tempdir().unwrap();
    let short = [
        "--suite",
        "throughput",
        "--set",
        "model.size=nano",
        "--set",
        "train.steps=12",
        "--set",
        "train.batch_size=2",
    ];
    for model in ["escaip", "proteina", "voxmol"] {
        let out = folder.path().join(model);
        run(&out, &[&["--plugins", model][..], &short].concat()).success();
        assert_eq!(numbers(&out, "throughput", "timed_steps", |_| true), [2.0]);
    }
}
