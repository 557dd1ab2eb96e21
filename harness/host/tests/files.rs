//! Every kind of file that is no plugin gets a sentence, and none of them harms the host.
#![cfg(target_os = "linux")]
#![expect(dead_code, reason = "the support module serves several tests")]

mod support;

use equivbench_host::{HostError, Library, check_file};
use std::path::{Path, PathBuf};
use support::fixture;

fn reason(path: &Path) -> String {
    match Library::open(path) {
        Err(HostError::Refused { reason, .. }) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{} was accepted", path.display()),
    }
}

fn written(folder: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

fn patched(folder: &tempfile::TempDir, at: usize, bytes: &[u8]) -> PathBuf {
    let mut data = std::fs::read(fixture("misbehaving")).unwrap();
    data[at..at + bytes.len()].copy_from_slice(bytes);
    written(folder, "patched.so", &data)
}

#[test]
fn a_file_that_is_not_there_is_not_found() {
    let error = Library::open(Path::new("/no/such/libplugin.so")).unwrap_err();
    assert!(matches!(error, HostError::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("/no/such/libplugin.so"));
}

#[test]
fn files_that_are_no_libraries_are_named_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    assert!(reason(folder.path()).contains("it is a directory"));
    assert!(reason(&written(&folder, "empty.so", b"")).contains("the file is empty"));
    assert!(reason(&written(&folder, "text.so", b"hello, world\n")).contains("text"));
    assert!(reason(&written(&folder, "lib.dll", b"MZ\x90\0 and so on")).contains("Windows"));
    assert!(
        reason(&written(
            &folder,
            "lib.dylib",
            &[0xcf, 0xfa, 0xed, 0xfe, 0, 0]
        ))
        .contains("macOS")
    );
    assert!(reason(&written(&folder, "lib.a", b"!<arch>\nxyz")).contains("static library"));
    assert!(reason(&written(&folder, "noise.so", &[7, 1, 200, 3])).contains("something else"));
    assert!(reason(&std::env::current_exe().unwrap()).contains("executable program"));
}

#[test]
fn libraries_for_other_machines_are_refused_before_the_linker_misleads() {
    let folder = tempfile::tempdir().unwrap();
    assert!(reason(&patched(&folder, 4, &[1])).contains("32-bit"));
    assert!(reason(&patched(&folder, 5, &[2])).contains("byte order"));
    let other: u16 = if cfg!(target_arch = "aarch64") {
        62
    } else {
        183
    };
    let text = reason(&patched(&folder, 18, &other.to_le_bytes()));
    assert!(
        text.contains("was built for") && text.contains(std::env::consts::ARCH),
        "{text}"
    );
    assert!(reason(&patched(&folder, 16, &1u16.to_le_bytes())).contains("object file"));
}

#[test]
fn a_truncated_library_is_refused_at_every_length() {
    let folder = tempfile::tempdir().unwrap();
    let whole = std::fs::read(fixture("misbehaving")).unwrap();
    for percent in [1, 5, 20, 50, 90, 99] {
        let text = reason(&written(
            &folder,
            "cut.so",
            &whole[..whole.len() * percent / 100],
        ));
        assert!(text.contains("truncated"), "{percent}%: {text}");
    }
    let text = reason(&written(&folder, "cut.so", &whole[..whole.len() - 1]));
    assert!(text.contains("table of sections ends at byte"), "{text}");
}

/// Compiles a C library; `None` where there is no C compiler.
fn compiled(
    folder: &tempfile::TempDir,
    name: &str,
    source: &str,
    more: &[&str],
) -> Option<PathBuf> {
    let (code, path) = (
        folder.path().join(format!("{name}.c")),
        folder.path().join(format!("lib{name}.so")),
    );
    std::fs::write(&code, source).unwrap();
    let mut command = std::process::Command::new("cc");
    let status = command
        .current_dir(folder.path())
        .args(["-shared", "-fPIC", "-o"])
        .arg(&path)
        .arg(&code)
        .args(more)
        .status();
    if !status.is_ok_and(|s| s.success()) {
        println!("skipped: there is no C compiler here");
        return None;
    }
    Some(path)
}

#[test]
fn a_library_that_is_no_plugin_is_told_what_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = compiled(&folder, "plain", "int one(void) { return 1; }", &[]) else {
        return;
    };
    let text = reason(&path);
    assert!(
        text.contains("exports no root module") && text.contains("export_model!"),
        "{text}"
    );
}

#[test]
fn a_symbol_that_is_nowhere_is_found_out_at_once_and_not_in_the_middle_of_a_run() {
    let folder = tempfile::tempdir().unwrap();
    let source = "int no_such_function(void); int one(void) { return no_such_function(); }";
    let Some(path) = compiled(&folder, "needy", source, &[]) else {
        return;
    };
    let text = reason(&path);
    assert!(
        text.contains("undefined symbol: no_such_function"),
        "{text}"
    );
}

#[test]
fn a_library_that_needs_another_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let Some(dependency) = compiled(&folder, "dependency", "int two(void) { return 2; }", &[])
    else {
        return;
    };
    let source = "int two(void); int one(void) { return two(); }";
    let Some(path) = compiled(&folder, "dependent", source, &["-L.", "-ldependency"]) else {
        return;
    };
    std::fs::remove_file(dependency).unwrap();
    let text = reason(&path);
    assert!(
        text.contains("libdependency.so: cannot open shared object file"),
        "{text}"
    );
}

#[test]
fn another_version_of_the_interface_is_refused_in_one_sentence() {
    let text = reason(&fixture("other_version"));
    assert!(
        text.contains("speaks version 9.0.0") && text.contains(equivbench_abi::ABI_VERSION),
        "{text}"
    );
    assert!(text.len() < 300, "{text}");
}

#[test]
fn a_root_module_of_another_shape_is_refused_in_three_lines() {
    let text = reason(&fixture("skew"));
    assert!(text.lines().count() <= 3 && text.len() < 600, "{text}");
}

#[test]
fn a_good_library_opens_and_tells_its_hash() {
    let library = Library::open(&fixture("misbehaving")).unwrap();
    assert_eq!(library.descriptor.name, "misbehaving");
    assert_eq!(library.sha256.len(), 64);
    assert_eq!(
        check_file(&fixture("misbehaving")).unwrap(),
        (library.path.clone(), library.sha256.clone())
    );
    assert!(library.descriptor.models.iter().any(|m| m.name == "good"));
}

#[test]
fn two_libraries_in_one_process_are_two() {
    let folder = tempfile::tempdir().unwrap();
    let copy = support::install("misbehaving", folder.path(), "copy");
    let first = Library::open(&fixture("misbehaving")).unwrap();
    let second = Library::open(&copy).unwrap();
    assert_ne!(first.path, second.path);
    assert_eq!(first.sha256, second.sha256);
    assert_eq!(first.descriptor, second.descriptor);
}
