//! Names, folders, duplicates.
#![expect(dead_code, reason = "the support module serves several tests")]

mod support;

use equivbench_abi::descriptor::{ModelDescriptor, PluginDescriptor};
use equivbench_host::{Catalogue, HostError, SearchPath, describe_in_process, file_name_of};
use std::path::{Path, PathBuf};
use support::{fixture, install};

fn folders(root: &Path, names: &[&str]) -> SearchPath {
    SearchPath::of(names.iter().map(|n| root.join(n)))
}

#[test]
fn folders_are_searched_in_order_and_copies_count_as_one() {
    let root = tempfile::tempdir().unwrap();
    let search = folders(root.path(), &["a", "b", "c"]);
    let third = install("misbehaving", &root.path().join("c"), "misbehaving");
    assert_eq!(search.resolve("misbehaving").unwrap(), third);
    let second = install("misbehaving", &root.path().join("b"), "misbehaving");
    assert_eq!(search.resolve("misbehaving").unwrap(), second);
}

#[test]
fn two_different_files_of_one_name_are_refused_and_both_are_named() {
    let root = tempfile::tempdir().unwrap();
    let search = folders(root.path(), &["a", "b"]);
    let first = install("misbehaving", &root.path().join("a"), "same");
    let second = install("skew", &root.path().join("b"), "same");
    let error = search.resolve("same").unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, HostError::Duplicate { .. }), "{text}");
    assert!(
        text.contains(first.to_str().unwrap()) && text.contains(second.to_str().unwrap()),
        "{text}"
    );
    assert_eq!(
        search.resolve(second.to_str().unwrap()).unwrap(),
        second,
        "a path says which is meant"
    );
}

#[test]
fn a_name_that_is_not_there_lists_every_place_and_the_nearest_name() {
    let root = tempfile::tempdir().unwrap();
    install("misbehaving", &root.path().join("b"), "point-mlp");
    let text = folders(root.path(), &["a", "b"])
        .resolve("point-mpl")
        .unwrap_err()
        .to_string();
    assert!(text.contains("Did you mean \"point-mlp\"?"), "{text}");
    for folder in ["a", "b"] {
        assert!(
            text.contains(
                root.path()
                    .join(folder)
                    .join(file_name_of("point-mpl"))
                    .to_str()
                    .unwrap()
            ),
            "{text}"
        );
    }
}

#[test]
fn a_path_is_taken_as_given() {
    let search = SearchPath::of([]);
    let path = fixture("misbehaving");
    assert_eq!(search.resolve(path.to_str().unwrap()).unwrap(), path);
    assert!(matches!(
        search.resolve("./no-such-file.so"),
        Err(HostError::NotFound { .. })
    ));
    assert!(
        matches!(search.resolve("libno_such.so"), Err(HostError::NotFound { tried, .. }) if tried == [PathBuf::from("libno_such.so")])
    );
}

#[test]
fn named_folders_come_before_the_usual_places() {
    let standard = SearchPath::standard(&[PathBuf::from("/given")]);
    let beside = std::env::current_exe()
        .unwrap()
        .canonicalize()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    assert_eq!(standard.directories()[0], PathBuf::from("/given"));
    let place = |dir: &Path| standard.directories().iter().position(|d| d == dir);
    assert!(place(&beside) < place(&beside.join("plugins")));
    assert!(place(&beside.join("plugins")) < place(&beside.join("../lib/equivbench/plugins")));
}

#[test]
#[ignore = "run by another test, with a variable set"]
fn prints_the_usual_places() {
    for place in SearchPath::standard(&["/given".into()]).directories() {
        println!("place {}", place.display());
    }
}

#[test]
fn the_variable_names_more_folders_and_the_users_own_come_last() {
    let list = std::env::join_paths(["/first", "/second"]).unwrap();
    let mut again = std::process::Command::new(std::env::current_exe().unwrap());
    again.args([
        "--exact",
        "prints_the_usual_places",
        "--nocapture",
        "--ignored",
    ]);
    again
        .env("EQUIVBENCH_PLUGIN_PATH", list)
        .env("HOME", "/home/somebody")
        .env_remove("XDG_DATA_HOME");
    let text = String::from_utf8(again.output().unwrap().stdout).unwrap();
    let places: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split("place ").nth(1))
        .collect();
    assert_eq!(places[..3], ["/given", "/first", "/second"], "{text}");
    assert!(
        places.last().unwrap().starts_with("/home/somebody")
            && places.last().unwrap().ends_with("equivbench/plugins"),
        "{text}"
    );
}

#[test]
fn one_bad_candidate_does_not_hide_the_others() {
    let root = tempfile::tempdir().unwrap();
    let search = folders(root.path(), &["a"]);
    install("misbehaving", &root.path().join("a"), "misbehaving");
    install("other_version", &root.path().join("a"), "other");
    std::fs::write(root.path().join("a").join(file_name_of("text")), "text").unwrap();
    std::fs::write(root.path().join("a/libunrelated.so"), "text").unwrap();
    let catalogue = Catalogue::scan(&search, &mut |path| describe_in_process(path));
    assert_eq!(catalogue.plugins.len(), 1);
    assert_eq!(catalogue.refused.len(), 2, "{:?}", catalogue.refused);
}

fn holding(name: &str, models: &[&str]) -> PluginDescriptor {
    let model = |m: &&str| ModelDescriptor {
        name: (*m).into(),
        ..ModelDescriptor::default()
    };
    PluginDescriptor {
        name: name.into(),
        models: models.iter().map(model).collect(),
        ..PluginDescriptor::default()
    }
}

#[test]
fn two_plugins_that_declare_one_name_are_refused_whatever_their_files_are_called() {
    let root = tempfile::tempdir().unwrap();
    let search = folders(root.path(), &["a"]);
    let first = install("misbehaving", &root.path().join("a"), "one");
    let second = install("skew", &root.path().join("a"), "two");
    let mut catalogue = Catalogue::scan(&search, &mut |_| Ok(holding("twin", &["m"])));
    assert!(catalogue.plugins.is_empty());
    let [
        HostError::Duplicate {
            first: a,
            second: b,
            ..
        },
    ] = catalogue.refused.as_slice()
    else {
        panic!("{:?}", catalogue.refused)
    };
    assert_eq!((a, b), (&first, &second));
    assert!(matches!(
        catalogue.model("twin"),
        Err(HostError::Duplicate { .. })
    ));
    catalogue.add(first.clone(), holding("twin", &["m"]));
    assert_eq!(
        catalogue.model("twin").unwrap().0.path,
        first,
        "a path says which is meant"
    );
}

#[test]
fn models_are_found_by_name_by_plugin_and_by_both() {
    let mut catalogue = Catalogue::default();
    catalogue.add("/b".into(), holding("b", &["y", "shared"]));
    catalogue.add("/a".into(), holding("a", &["x", "shared"]));
    let found = |name: &str| {
        catalogue
            .model(name)
            .map(|(f, m)| (f.descriptor.name.clone(), m.name.clone()))
    };
    assert_eq!(found("y").unwrap(), ("b".into(), "y".into()));
    assert_eq!(
        found("a").unwrap(),
        ("a".into(), "x".into()),
        "the first model of the plugin"
    );
    assert_eq!(found("b:shared").unwrap(), ("b".into(), "shared".into()));
    assert!(matches!(found("shared"), Err(HostError::Duplicate { .. })));
    let Err(HostError::NotFound { nearest, .. }) = found("shard") else {
        panic!()
    };
    assert_eq!(nearest.as_deref(), Some("shared"));
}
