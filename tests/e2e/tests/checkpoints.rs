//! `equivbench measure`: a kept checkpoint, asked again, gives the rows that the run itself wrote, byte for byte; other questions give
//! rows of their own, which merging takes in; what is finished is not touched. And what was written is noticed when it changes.

use equivbench_e2e::{equivbench, table};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Twenty steps with checkpoints of step 5 and of the last.
fn trained(out: &Path, more: &[&str]) -> PathBuf {
    let mut arguments = vec![
        "run",
        "--plugins",
        "point-mlp",
        "--quiet",
        "--device",
        "cpu",
        "--seeds",
        "1",
    ];
    let settings = [
        "train.steps=20",
        "train.ema_decay=0.9",
        "run.clock=steps",
        "measure.samples=8",
        r#"run.keep_checkpoints=[5, "last"]"#,
        "run.checkpoint_every_steps=3",
    ];
    settings
        .iter()
        .chain(more)
        .for_each(|s| arguments.extend(["--set", s]));
    let out = out.to_string_lossy().into_owned();
    arguments.extend(["--out", &out]);
    equivbench(&arguments).assert().success();
    let runs = fs::read_dir(Path::new(&out).join("runs")).unwrap();
    let mut runs: Vec<PathBuf> = runs.map(|e| e.unwrap().path()).collect();
    assert_eq!(runs.len(), 1);
    runs.swap_remove(0)
}

/// Runs `measure` and returns the folder with the tables that it names.
fn measured(run: &Path, more: &[&str]) -> PathBuf {
    let run = run.to_string_lossy().into_owned();
    let mut arguments = vec!["measure", &run];
    arguments.extend(more);
    let output = equivbench(&arguments)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let output = String::from_utf8(output).unwrap();
    PathBuf::from(output.lines().next().unwrap())
        .parent()
        .unwrap()
        .to_owned()
}

fn refused(run: &Path, more: &[&str]) -> String {
    let run = run.to_string_lossy().into_owned();
    let mut arguments = vec!["measure", &run];
    arguments.extend(more);
    let output = equivbench(&arguments)
        .assert()
        .failure()
        .get_output()
        .stderr
        .clone();
    String::from_utf8(output).unwrap()
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(Into::into).collect()
}

/// Rows of a step in the curve of a run.
fn at_step(run: &Path, step: &str) -> Vec<String> {
    let (header, rows) = table(run, "curve");
    let column = header.iter().position(|c| c == "step").unwrap();
    let whole = lines(&run.join("curve.csv"));
    let own = rows
        .iter()
        .zip(&whole[1..])
        .filter(|(row, _)| row[column] == step);
    own.map(|(_, line)| line.clone()).collect()
}

#[test]
fn a_kept_checkpoint_gives_the_rows_of_the_run_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("out"), &[]);
    for step in ["5", "20"] {
        let out = measured(&run, &["--at", if step == "20" { "last" } else { step }]);
        let expected = at_step(&run, step);
        assert_eq!(expected.len(), 2, "raw and averaged weights");
        assert_eq!(lines(&out.join("curve.csv"))[1..], expected);
    }
    let last = measured(&run, &["--at", "last"]);
    assert_eq!(
        lines(&last.join("final.csv")),
        lines(&run.join("final.csv"))
    );
    for name in ["dip.csv", "throughput.csv"] {
        assert!(!last.join(name).exists(), "{name} follows a whole run");
    }
}

#[test]
fn other_questions_have_rows_of_their_own_which_merging_takes_in_and_nobody_touches_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = trained(&out, &[]);
    let asked = [
        "--at",
        "5",
        "--protocols",
        "final-percent",
        "--set",
        "measure.samples=4",
    ];
    let first = measured(&run, &asked);
    let written = fs::metadata(first.join("final.csv"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(measured(&run, &asked), first);
    let again = fs::metadata(first.join("final.csv"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(again, written);
    let double = [&asked[..], &["--set", "run.precision=f64"]].concat();
    let second = measured(&run, &double);
    assert_ne!(second, first);
    let (header, rows) = table(&out, "final");
    let column = |name: &str| header.iter().position(|c| c == name).unwrap();
    let (measurement, samples) = (column("measurement"), column("samples"));
    let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
    let of = |key: &str| {
        rows.iter()
            .filter(|r| r[measurement] == key)
            .collect::<Vec<_>>()
    };
    // Raw and averaged weights of three sets: the measured samples, all of their split, and the split for reporting.
    assert_eq!((of("").len(), of(&name(&first)).len()), (6, 6));
    assert_eq!(of(&name(&second)).len(), 3, "raw weights only, in f64");
    assert_eq!(of(&name(&first))[0][samples], "4");
    let loss = |key: &str| of(key)[0][column("loss_total")].parse::<f64>().unwrap();
    let (single, double) = (loss(&name(&first)), loss(&name(&second)));
    // Rounding of f32 predictions, not another model.
    assert!(
        single != double && (single / double - 1.0).abs() < 1e-5,
        "{single} {double}"
    );
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_can() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("out"), &[]);
    let there = refused(&run, &["--at", "7"]);
    assert!(
        there.contains("no checkpoint of step 7") && there.contains("5, "),
        "{there}"
    );
    assert!(refused(&run, &["--at", "soon"]).contains("neither a step nor \"last\""));
    let training = refused(&run, &["--at", "5", "--set", "train.lr=1"]);
    assert!(training.contains("belongs to the training"), "{training}");
    let precision = refused(&run, &["--at", "5", "--set", "run.precision=bf16"]);
    assert!(precision.contains("or in f64"), "{precision}");
    let condition = refused(&run, &["--at", "5", "--set", "measure.flow_times=[0.5]"]);
    assert!(
        condition.contains("the task force-field does not have this condition"),
        "{condition}"
    );
    assert!(refused(folder.path(), &["--at", "5"]).contains("no run directory"));
    assert!(refused(&run, &["--at", "5", "--protocols", "dip"]).contains("dip-timing"));
    let follows = refused(&run, &["--at", "5", "--protocols", "dip-timing"]);
    assert!(
        follows.contains("follows a run from its beginning"),
        "{follows}"
    );
}

#[test]
fn the_manifest_lists_measurements_with_what_was_set() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = trained(&out, &[]);
    let asked = ["--at", "5", "--protocols", "final-percent"];
    let set = ["--set", "measure.samples=4", "--set", "run.device=auto"];
    let first = measured(&run, &[&asked[..], &set].concat());
    let manifest = fs::read_to_string(out.join("manifest.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let listed = manifest["runs"][0]["measurements"].as_array().unwrap();
    let name = first.file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["measurement"].as_str(), Some(name.as_str()));
    assert_eq!(listed[0]["step"].as_integer(), Some(5));
    assert_eq!(listed[0]["protocols"].to_string(), r#"["final-percent"]"#);
    assert_eq!(listed[0]["set"].to_string(), r#"["measure.samples=4"]"#);
}

#[test]
fn a_protocol_whose_settings_leave_no_rows_writes_nothing_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("out"), &[]);
    let path = run.to_string_lossy().into_owned();
    let asked = ["--protocols", "samples,final-percent"];
    let silent = ["--set", "protocols.samples.rows=none"];
    let arguments = [&["measure", &path, "--at", "5"][..], &asked, &silent].concat();
    let done = equivbench(&arguments).assert().success();
    let output = done.get_output();
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(said.contains("protocol samples leaves no rows"), "{said}");
    let tables = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(
        tables.contains("final.csv") && !tables.contains("samples.csv"),
        "{tables}"
    );
    let nothing = refused(
        &run,
        &[&["--at", "5"][..], &asked[..1], &["samples"], &silent].concat(),
    );
    assert!(nothing.contains("there is nothing to measure"), "{nothing}");
}

#[test]
fn a_plugin_file_that_moved_or_changed_is_named_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(&folder.path().join("out"), &[]);
    let pinned = run.join("run.toml");
    let text = fs::read_to_string(&pinned).unwrap();
    let spec: toml::Table = text.parse().unwrap();
    let library = spec["model_library"].as_str().unwrap();
    let elsewhere = folder.path().join("moved.so");
    let at = |path: &Path| text.replacen(library, &path.to_string_lossy(), 1);
    fs::write(&pinned, at(&elsewhere)).unwrap();
    let moved = refused(&run, &["--at", "5"]);
    assert!(
        moved.contains("moved.so is not there any more") && moved.contains("(model_library = "),
        "{moved}"
    );
    let other = spec["dataset_library"].as_str().unwrap();
    fs::copy(other, &elsewhere).unwrap();
    let changed = refused(&run, &["--at", "5"]);
    assert!(
        changed.contains("is another build") && changed.contains("run.toml where it lies now"),
        "{changed}"
    );
    // What the message advises works.
    fs::copy(library, &elsewhere).unwrap();
    measured(&run, &["--at", "5"]);
}

#[test]
fn a_row_that_was_deleted_or_edited_is_noticed_when_tables_are_merged() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let run = trained(&out, &[]);
    let again = || {
        let out = out.to_string_lossy().into_owned();
        let mut arguments = vec![
            "run",
            "--plugins",
            "point-mlp",
            "--quiet",
            "--device",
            "cpu",
            "--seeds",
            "1",
        ];
        for s in [
            "train.steps=20",
            "train.ema_decay=0.9",
            "run.clock=steps",
            "measure.samples=8",
        ] {
            arguments.extend(["--set", s]);
        }
        arguments.extend(["--resume", "--out", &out]);
        equivbench(&arguments).assert()
    };
    again().success();
    let path = run.join("curve.csv");
    let whole = fs::read_to_string(&path).unwrap();
    let shorter: Vec<&str> = whole
        .lines()
        .enumerate()
        .filter(|(i, _)| *i != 3)
        .map(|(_, l)| l)
        .collect();
    let edits = [
        (shorter.join("\n") + "\n", "rows are gone"),
        (whole.replacen(",raw,", ",ema,", 1), "was changed"),
        (
            format!("{whole}{}\n", whole.lines().last().unwrap()),
            "rows were added",
        ),
    ];
    for (text, said) in edits {
        fs::write(&path, text).unwrap();
        let assert = again().failure();
        let error = String::from_utf8(assert.get_output().stderr.clone()).unwrap();
        assert!(
            error.contains(said) && error.contains("curve.csv"),
            "{error}"
        );
    }
    fs::write(&path, &whole).unwrap();
    again().success();
}
