//! The kit passes what is right and names what is wrong.

use equivbench_conformance::{CheckOutcome, Kind, Target, list_checks, run_check, targets};
use equivbench_host::Library;
use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::PathBuf,
};

fn library() -> PathBuf {
    let folder = std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned();
    folder.join(format!("{DLL_PREFIX}fixture_misbehaving{DLL_SUFFIX}"))
}

fn model(name: &str, at_step: u64) -> Target {
    let config = format!("{{\"at_step\":{at_step}}}");
    Target::Model {
        model: name.into(),
        size: String::new(),
        config,
        device: String::new(),
    }
}

fn dataset(name: &str) -> Target {
    Target::Dataset {
        dataset: name.into(),
        options: String::new(),
    }
}

fn names(kind: Kind) -> Vec<&'static str> {
    list_checks()
        .iter()
        .filter(|c| c.kind() == kind)
        .map(|c| c.name)
        .collect()
}

/// Names of the checks that fail on a target.
fn failures(target: &Target) -> Vec<&'static str> {
    let failed = |name: &&str| match run_check(&library(), target, name) {
        CheckOutcome::Failed { why } => {
            println!("{name}: {why}");
            true
        }
        other => {
            println!("{name}: {other:?}");
            false
        }
    };
    names(target.kind()).into_iter().filter(failed).collect()
}

#[test]
fn a_well_behaved_model_passes_every_check() {
    assert_eq!(failures(&model("good", 3)), Vec::<&str>::new());
}

#[test]
fn a_model_that_keeps_what_lies_below_its_parameters_passes_every_check() {
    let freezes = model("freezes", 3);
    assert_eq!(failures(&freezes), Vec::<&str>::new());
    let CheckOutcome::Passed { figure } = run_check(&library(), &freezes, "abilities") else {
        panic!()
    };
    assert!(
        figure.starts_with("frozen-below:all: predictions ")
            && figure.contains(", linear, features "),
        "{figure}"
    );
}

#[test]
fn each_fault_of_what_is_frozen_fails_the_check_of_abilities_alone() {
    for (name, reason) in [
        ("wrong-index", "features:all differs from the whole model"),
        (
            "frozen-weights",
            "predict-above:all differs from the whole model",
        ),
        ("stale-slots", "a training step left slot 0"),
    ] {
        assert_eq!(failures(&model(name, 0)), ["abilities"], "{name}");
        let CheckOutcome::Failed { why } = run_check(&library(), &model(name, 0), "abilities")
        else {
            panic!()
        };
        assert!(why.contains(reason), "{name}: {why}");
    }
}

#[test]
fn a_well_behaved_dataset_passes_every_check() {
    assert_eq!(failures(&dataset("good-data")), Vec::<&str>::new());
}

#[test]
fn each_fault_of_a_model_is_caught_by_its_check() {
    for (name, check) in [
        ("wrong-gradient", "gradient"),
        ("mixes-samples", "company"),
        ("forgets", "continue"),
        ("shares-state", "independence"),
        ("trains-in-evaluation", "evaluation"),
        ("careless", "lengths"),
        ("careless", "not-finite"),
        ("wrong-shape", "shapes"),
        ("half-written", "shapes"),
        ("predicts-nan", "shapes"),
        ("loss-nan", "learning"),
        ("panics", "learning"),
    ] {
        let failed = failures(&model(name, 0));
        assert!(
            failed.contains(&check),
            "{name}: {check} passed; failed: {failed:?}"
        );
    }
}

#[test]
fn a_wrong_gradient_fails_no_check_but_the_one_about_gradients() {
    assert_eq!(failures(&model("wrong-gradient", 0)), ["gradient"]);
}

#[test]
fn each_fault_of_a_dataset_is_caught_by_its_check() {
    assert!(failures(&dataset("nan-data")).contains(&"finite"));
    assert_eq!(failures(&dataset("unordered-data")), ["order", "groups"]);
    assert_eq!(failures(&dataset("endless-data")), ["range"]);
    assert_eq!(failures(&dataset("moody-data")), ["groups"]);
    assert_eq!(failures(&dataset("half-grouped-data")), ["groups"]);
    assert_eq!(failures(&dataset("groupless-data")), Vec::<&str>::new());
}

#[test]
fn a_group_in_two_splits_is_named_with_a_sample_of_each() {
    let leaky = dataset("leaky-data");
    assert_eq!(failures(&leaky), ["groups"]);
    let CheckOutcome::Failed { why } = run_check(&library(), &leaky, "groups") else {
        panic!()
    };
    assert!(
        why.contains("group 0 lies in two splits: sample 0 of \"train\" and sample 15 of \"test\""),
        "{why}"
    );
}

#[test]
fn the_targets_of_a_library_are_its_models_and_its_embedded_datasets() {
    let library = Library::open(&library()).unwrap();
    let targets = targets(&library.descriptor);
    assert_eq!(
        targets.len(),
        library.descriptor.models.len() + library.descriptor.datasets.len()
    );
    let text = serde_json::to_string(&targets).unwrap();
    assert_eq!(serde_json::from_str::<Vec<Target>>(&text).unwrap(), targets);
}

#[test]
fn unknown_checks_are_refused_with_the_known_ones() {
    let CheckOutcome::Failed { why } = run_check(&library(), &model("good", 3), "no-such-check")
    else {
        panic!()
    };
    assert!(
        why.contains("gradient") && !why.contains("content-hash"),
        "{why}"
    );
}
