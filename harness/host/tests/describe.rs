//! Descriptions in a child process. One test, because the child's behaviour is chosen by the environment of this process.
#![cfg(unix)]
#![expect(dead_code, reason = "the support module serves several tests")]

mod support;

use equivbench_host::{DESCRIBE_LIMIT, HostError, describe_in_child};
use std::{path::Path, process::Command, time::Duration};
use support::{describer, fixture};

/// Runs this test program again with a variable set, so that no test changes the environment of another.
fn again(test: &str, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--nocapture", "--ignored"])
        .envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn describe(path: &Path, limit: Duration) -> String {
    match describe_in_child(&describer(), path, limit) {
        Ok(descriptor) => format!("name {}", descriptor.name),
        Err(HostError::Crashed { how, .. }) => format!("crashed: {how}"),
        Err(HostError::Refused { reason, .. }) => format!("refused: {reason}"),
        Err(other) => panic!("{other}"),
    }
}

#[test]
#[ignore = "run by the others, with variables set"]
fn describes_the_crashing_fixture() {
    // Only a plugin that hangs meets a limit, and then a short one does: others may take as long as a busy machine needs.
    let hangs = std::env::var("EQUIVBENCH_FIXTURE_DESCRIBE").is_ok_and(|kind| kind == "hang");
    let limit = if hangs {
        Duration::from_secs(2)
    } else {
        Duration::from_secs(600)
    };
    println!("{}", describe(&fixture("crashes_in_describe"), limit));
}

#[test]
#[ignore = "run by the others, with variables set"]
fn describes_twice() {
    let path = fixture("misbehaving");
    assert_eq!(describe(&path, DESCRIBE_LIMIT), "name misbehaving");
    // The second answer comes from the cache: the program that would describe is not even there.
    match describe_in_child(Path::new("/no/such/program"), &path, DESCRIBE_LIMIT) {
        Ok(descriptor) => println!("remembered {}", descriptor.name),
        Err(error) => println!("asked again: {error}"),
    }
}

fn crash(kind: &str) -> String {
    again(
        "describes_the_crashing_fixture",
        &[
            ("EQUIVBENCH_FIXTURE_DESCRIBE", kind),
            ("EQUIVBENCH_NO_CACHE", "1"),
        ],
    )
}

#[test]
fn a_plugin_that_dies_while_it_is_described_is_reported_and_the_host_lives() {
    assert!(
        crash("segfault")
            .contains("crashed: died of signal 11 (segmentation fault) while it was described")
    );
}

#[test]
fn a_plugin_that_hangs_while_it_is_described_is_ended() {
    assert!(
        crash("hang")
            .contains("crashed: was still running after 2 s and was ended while it was described")
    );
}

#[test]
fn a_plugin_that_exits_or_answers_nonsense_is_reported() {
    assert!(crash("exit").contains("crashed: ended its process without a description"));
    assert!(crash("garbage").contains("refused: its description cannot be read"));
}

#[test]
fn a_plugin_may_print_while_it_is_described() {
    assert!(crash("talk").contains("name talks"));
}

#[test]
fn refusals_arrive_from_the_child_with_their_reason() {
    let text = describe(&fixture("other_version"), DESCRIBE_LIMIT);
    assert!(
        text.starts_with("refused: it speaks version 9.0.0"),
        "{text}"
    );
}

#[test]
fn descriptions_are_remembered_unless_that_is_switched_off() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().to_str().unwrap();
    let variables = [("HOME", home), ("XDG_CACHE_HOME", home)];
    assert!(
        again(
            "describes_twice",
            &[variables[0], variables[1], ("EQUIVBENCH_NO_CACHE", "")]
        )
        .contains("remembered misbehaving")
    );
    assert!(
        again(
            "describes_twice",
            &[variables[0], variables[1], ("EQUIVBENCH_NO_CACHE", "1")]
        )
        .contains("asked again")
    );
}
