//! Tables against an oracle that shares no line with the program: `tests/oracle/oracle.py` recomputes them from the rows of samples,
//! and finds every cell that was changed.

use assert_cmd::Command;
use equivbench_e2e::{equivbench, table};
use std::path::{Path, PathBuf};

/// The script in a Python that can run it; `None`, and a line that counts as skipped, where there is none.
fn oracle() -> Option<Command> {
    let mut python = std::process::Command::new("python3");
    let can = python.args(["-c", "import numpy, tomllib"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        equivbench_testkit::skip("python3 (3.11 or later) with numpy is not here");
        return None;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../oracle/oracle.py");
    let mut command = Command::new("python3");
    command.arg(script);
    Some(command)
}

/// Three seeds of the toy, every sample of every evaluation with a row of its own.
fn three_seeds(out: &Path) {
    let settings = [
        "run.seed=[0,1,2]",
        "train.steps=60",
        "train.ema_decay=0.9",
        "measure.samples=20",
        "measure.seed=4",
        "protocols.samples.rows=all",
    ];
    let mut arguments = vec!["run", "--plugins", "point-mlp", "--protocols"];
    arguments.push("train-and-measure,dip-timing,final-percent,throughput,samples");
    arguments.extend(["--quiet", "--device", "cpu"]);
    settings.iter().for_each(|s| arguments.extend(["--set", s]));
    let out = out.to_string_lossy().into_owned();
    arguments.extend(["--out", &out]);
    equivbench(&arguments).assert().success();
}

/// What the script says, and its exit status.
fn said_of(out: &Path) -> Option<(String, Option<i32>)> {
    let output = oracle()?.arg(out).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    Some((said, output.status.code()))
}

/// Multiplies the first number in a column by 1 + 1e-6, a thousand times what the script lets pass, and returns both texts.
fn edit(path: &Path, column: &str) -> (String, String) {
    let folder = path.parent().unwrap();
    let name = path.file_stem().unwrap().to_str().unwrap();
    let (header, mut rows) = table(folder, name);
    let at = header.iter().position(|c| c == column).unwrap();
    let is_number = |text: &str| text.parse::<f64>().is_ok_and(|x| x != 0.0);
    let cell = rows.iter_mut().map(|row| &mut row[at]);
    let cell = cell.into_iter().find(|text| is_number(text)).unwrap();
    let before = cell.clone();
    *cell = (before.parse::<f64>().unwrap() * (1.0 + 1e-6)).to_string();
    let after = cell.clone();
    let mut writer = csv::Writer::from_path(path).unwrap();
    writer.write_record(&header).unwrap();
    rows.iter()
        .for_each(|row| writer.write_record(row).unwrap());
    writer.flush().unwrap();
    (before, after)
}

#[test]
fn an_independent_script_recomputes_every_table_and_names_every_cell_that_was_edited() {
    let Some(mut of_itself) = oracle() else {
        return;
    };
    of_itself.arg("--self-test").assert().success();
    let folder = tempfile::tempdir().unwrap();
    refuses_what_is_no_results_directory(folder.path());
    three_seeds(folder.path());
    agrees(folder.path());
    names_edited_cells(folder.path());
}

fn refuses_what_is_no_results_directory(empty: &Path) {
    let missing: PathBuf = empty.join("nowhere");
    for arguments in [vec![empty], vec![&missing], vec![]] {
        oracle().unwrap().args(arguments).assert().code(2);
    }
}

fn agrees(results: &Path) {
    let (said, status) = said_of(results).unwrap();
    assert_eq!(status, Some(0), "{said}");
    for table in ["curve", "final", "dip", "summary"] {
        let line = said
            .lines()
            .find(|l| l.starts_with(&format!("{table}.csv: ")));
        let line = line.unwrap_or_else(|| panic!("nothing of {table}.csv: {said}"));
        assert!(
            line.ends_with("agree, 0 differences") && !line.contains(" 0 cells"),
            "{line}"
        );
    }
    assert!(!said.contains("not checked"), "{said}");
}

fn names_edited_cells(results: &Path) {
    let edits = [
        ("summary.csv", "upper"),
        ("dip.csv", "percent_reached"),
        ("final.csv", "skill_sampling_lower"),
        ("curve.csv", "relative_equiv_percent"),
    ];
    for (name, column) in edits {
        let path = results.join(name);
        let whole = std::fs::read(&path).unwrap();
        let (before, after) = edit(&path, column);
        let (said, status) = said_of(results).unwrap();
        assert_eq!(status, Some(1), "{said}");
        let found = said.lines().find(|line| {
            line.starts_with(&format!("DIFFERENT: {name}, "))
                && line.contains(&format!(": {column} is {after}, recomputed "))
        });
        let found = found.unwrap_or_else(|| panic!("{name}, {column}: {said}"));
        // Twelve digits of sixteen: what is recomputed may differ in the last.
        assert!(
            found.contains(&before[..before.len().min(12)]),
            "{before}: {found}"
        );
        std::fs::write(&path, whole).unwrap();
    }
}
