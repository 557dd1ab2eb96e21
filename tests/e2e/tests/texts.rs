//! What people read, as snapshots: headers of tables, help, the summary, refusals. Paths, hashes and numbers that a processor rounds
//! in its own way are replaced by a word.
//!
//! After a change that is meant: `INSTA_UPDATE=always cargo nextest run --release -p equivbench-e2e --test texts`, and read the diff.

use equivbench_e2e::{build_folder, equivbench, library, table};
use insta::Settings;
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// A snapshot of a text with what differs from machine to machine replaced. `folder` is the temporary folder of the test.
fn check(name: &str, text: &str, folder: Option<&Path>) {
    let mut settings = Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut replace = |path: &Path, word: &str| {
        settings.add_filter(&literal(&path.to_string_lossy()), word);
    };
    if let Some(folder) = folder {
        replace(&folder.canonicalize().unwrap(), "[folder]");
        replace(folder, "[folder]");
    }
    replace(&build_folder(), "[build]");
    // Run ids end with a hash that plugin files enter.
    settings.add_filter("-s(\\d+)-[0-9a-f]{10}", "-s$1-[hash]");
    settings.add_filter("\\.(so|dylib)\\b", ".[library]");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// A pattern that matches a text as it is.
fn literal(text: &str) -> String {
    let escaped = text.chars().flat_map(|c| {
        let is_plain = c.is_alphanumeric() || c == '/' || c == '_';
        [(!is_plain).then_some('\\'), Some(c)]
    });
    escaped.flatten().collect()
}

fn stdout(arguments: &[&str]) -> String {
    let assert = equivbench(arguments).assert().success();
    String::from_utf8(assert.get_output().stdout.clone()).unwrap()
}

/// Columns of every table, as the program declares them.
fn declared() -> Vec<(String, Vec<String>)> {
    let tables: serde_json::Value =
        serde_json::from_str(&stdout(&["columns", "--format", "json"])).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let columns = |table: &serde_json::Value| {
        let columns = table["columns"].as_array().unwrap();
        columns.iter().map(|c| text(&c["name"])).collect()
    };
    let tables = tables.as_array().unwrap();
    tables
        .iter()
        .map(|table| (text(&table["table"]), columns(table)))
        .collect()
}

#[test]
fn tables_have_their_columns_in_order() {
    let text = declared()
        .iter()
        .fold(String::new(), |text, (table, columns)| {
            format!("{text}{table}.csv\n  {}\n", columns.join("\n  "))
        });
    check("columns", &text, None);
}

/// The names after a heading of the help, up to the next empty line.
fn commands(help: &str) -> Vec<&str> {
    let after = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    after
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[test]
fn every_command_explains_itself() {
    let help = stdout(&["--help"]);
    check("help", &help, None);
    let commands = commands(&help);
    assert!(commands.contains(&"run"), "{commands:?}");
    for command in commands {
        check(
            &format!("help_{command}"),
            &stdout(&[command, "--help"]),
            None,
        );
    }
}

/// Decimals as a word, and one space and one dash for many, as their number follows from that of the digits.
fn without_decimals(text: &str) -> String {
    let word = |word: &str| {
        let number = word.trim_matches(['[', ']', ',']);
        let is_decimal = number.contains('.') && number.parse::<f64>().is_ok();
        if is_decimal {
            word.replace(number, "(number)")
        } else {
            word.to_owned()
        }
    };
    text.lines().fold(String::new(), |mut all, line| {
        let words: Vec<String> = line.split_whitespace().map(word).collect();
        let line = words.join(" ");
        let dashes = line.chars().next().is_some_and(|c| "─═".contains(c));
        let _ = writeln!(all, "{}", if dashes { "───" } else { &line });
        all
    })
}

#[test]
fn an_experiment_ends_with_its_summary_and_the_declared_headers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let path = out.to_string_lossy();
    let text = stdout(&[
        "run",
        "--plugins",
        "point-mlp",
        "--out",
        &path,
        "--protocols",
        "all",
        "--set",
        "train.steps=40",
        "--set",
        "measure.samples=8",
        "--set",
        "run.clock=steps",
        "--set",
        "run.seed=[0, 1]",
    ]);
    check("summary", &without_decimals(&text), Some(folder.path()));
    let declared = declared();
    let written: Vec<PathBuf> = std::fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "csv"))
        .collect();
    assert!(!written.is_empty());
    for path in written {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let columns = declared.iter().find(|(table, _)| *table == name);
        let (_, columns) = columns.unwrap_or_else(|| panic!("{name}.csv is not declared"));
        assert_eq!(table(&out, &name).0, *columns, "{name}");
    }
}

/// What the program says to some commands, each with its exit code.
struct Refusals {
    text: String,
    folder: tempfile::TempDir,
}

impl Refusals {
    fn new() -> Self {
        Self {
            text: String::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    /// Adds a command that must fail.
    fn add(&mut self, arguments: &[&str]) {
        let mut command = equivbench(arguments);
        command
            .env("HOME", self.folder.path())
            .env_remove("XDG_DATA_HOME");
        let assert = command.assert().failure();
        let output = assert.get_output();
        let (stdout, stderr) = (&output.stdout, String::from_utf8_lossy(&output.stderr));
        assert!(stdout.is_empty(), "{}", String::from_utf8_lossy(stdout));
        let code = output.status.code().expect("it ends by itself");
        let _ = writeln!(
            self.text,
            "$ equivbench {}\n{stderr}exit code {code}\n",
            arguments.join(" ")
        );
    }

    /// The same for a run of a plugin into the folder `out`, which stays as it was.
    fn add_run(&mut self, arguments: &[&str]) {
        let out = self.path("out");
        let there = Path::new(&out).exists();
        self.add(&[&["run", "--quiet", "--out", &out][..], arguments].concat());
        assert_eq!(Path::new(&out).exists(), there, "{arguments:?}");
    }

    fn check(self, name: &str) {
        check(name, &self.text, Some(self.folder.path()));
    }
}

#[test]
fn wrong_arguments_and_keys_are_refused_with_the_nearest_known() {
    let mut refusals = Refusals::new();
    refusals.add(&["rnu"]);
    refusals.add(&["run"]);
    refusals.add_run(&["--plugins", "point-mlp", "--sets", "train.lr=1"]);
    refusals.add_run(&["--plugins", "point-mlp", "--suite", "quikc"]);
    refusals.add_run(&["--plugins", "point-mlp", "--protocols", "dip"]);
    refusals.add_run(&["--plugins", "point-mlp", "--seeds", "0"]);
    refusals.add_run(&[
        "--plugins",
        "point-mlp",
        "--seeds",
        "3",
        "--set",
        "run.seed=1",
    ]);
    refusals.add_run(&["--plugins", "point-mlp", "--fair", "--suite", "throughput"]);
    for set in [
        "train.lr",
        "train.leraning_rate=1",
        "train.optimizer=adam",
        "trian.lr=1",
        "measure.scheme=random",
        "measure.loss=huber",
        "measure.samples=0",
        "measure.samples=many",
        "measure.weights=[\"raww\"]",
        "model.size=huge",
        "run.clock=sundial",
        "run.precision=f16",
        "run.seed=[]",
    ] {
        refusals.add_run(&["--plugins", "point-mlp", "--set", set]);
    }
    refusals.check("refusals_of_arguments");
}

#[test]
fn plugins_data_and_devices_that_are_not_there_are_refused_with_what_is() {
    let mut refusals = Refusals::new();
    let text = refusals.path("text.so");
    std::fs::write(&text, "not a library").unwrap();
    let other = library("fixture_other_version");
    let crashing = library("fixture_crashes_in_describe");
    for plugin in [
        "point-mpl",
        "spring-cloud",
        &text,
        &other.to_string_lossy(),
        &crashing.to_string_lossy(),
    ] {
        refusals.add_run(&["--plugins", plugin]);
    }
    refusals.add_run(&[
        "--plugins",
        "point-mlp",
        "--set",
        "dataset.name=spring-clod",
    ]);
    refusals.add_run(&["--plugins", "voxmol", "--set", "dataset.name=spring-cloud"]);
    // Refusals of a GPU depend on the machine and on how plugins were built; `misuse` tries one.
    refusals.add_run(&["--plugins", "point-mlp", "--device", "gpu"]);
    refusals.add(&["check", "point-mlp", "--only", "no-such-check"]);
    refusals.add(&["check", "point-mlp", "--target", "no-such-model"]);
    refusals.add(&["worker", &refusals.path("")]);
    refusals.check("refusals_of_plugins");
}

#[test]
fn folders_that_hold_something_else_are_refused_with_what_to_do() {
    let mut refusals = Refusals::new();
    let short = ["--plugins", "point-mlp", "--set", "train.steps=5"];
    refusals.add_run(&[&short[..], &["--resume"]].concat());
    let out = refusals.path("out");
    equivbench(&[&["run", "--quiet", "--out", &out][..], &short].concat())
        .assert()
        .success();
    refusals.add_run(&short);
    refusals.add_run(&["--plugins", "point-mlp", "--set", "train.steps=6"]);
    refusals.add_run(&[
        "--plugins",
        "point-mlp",
        "--set",
        "train.steps=6",
        "--resume",
    ]);
    let foreign = refusals.path("thesis");
    std::fs::create_dir(&foreign).unwrap();
    std::fs::write(Path::new(&foreign).join("thesis.tex"), "text").unwrap();
    refusals.add(&[
        "run",
        "--quiet",
        "--out",
        &foreign,
        "--plugins",
        "point-mlp",
    ]);
    let file = refusals.path("thesis/thesis.tex");
    refusals.add(&["run", "--quiet", "--out", &file, "--plugins", "point-mlp"]);
    let below = refusals.path("thesis/thesis.tex/out");
    refusals.add(&["run", "--quiet", "--out", &below, "--plugins", "point-mlp"]);
    refusals.check("refusals_of_folders");
}

#[test]
fn what_only_a_plugin_can_refuse_fails_the_run_with_its_words() {
    let mut refusals = Refusals::new();
    for (index, set) in [
        "model.config.hiden=3",
        "train.optimiser=lion",
        "dataset.options.cluods=9",
        "train.examples=0.01%",
        "measure.split=holdout",
    ]
    .into_iter()
    .enumerate()
    {
        let out = refusals.path(&index.to_string());
        refusals.add(&[
            "run",
            "--quiet",
            "--out",
            &out,
            "--plugins",
            "point-mlp",
            "--seeds",
            "1",
            "--set",
            set,
        ]);
    }
    refusals.check("refusals_of_runs");
}
