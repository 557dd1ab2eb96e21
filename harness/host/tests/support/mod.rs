//! Where the fixture libraries lie: cargo builds them as dev-dependencies, beside the test.

use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::{Path, PathBuf},
};

/// A fixture library by its crate's name.
pub(crate) fn fixture(name: &str) -> PathBuf {
    let path = beside_the_test().join(format!("{DLL_PREFIX}fixture_{name}{DLL_SUFFIX}"));
    assert!(path.is_file(), "{} was not built", path.display());
    path
}

/// Copies a fixture into a folder, under the file name of a plugin.
pub(crate) fn install(name: &str, folder: &Path, plugin: &str) -> PathBuf {
    let path = folder.join(equivbench_host::file_name_of(plugin));
    std::fs::create_dir_all(folder).unwrap();
    std::fs::copy(fixture(name), &path).unwrap();
    path
}

/// The program that describes plugins.
pub(crate) fn describer() -> PathBuf {
    let deps = beside_the_test();
    let places = [
        deps.join("examples/describe_plugin"),
        deps.join("../examples/describe_plugin"),
    ];
    places
        .into_iter()
        .find(|p| p.is_file())
        .expect("the example describe_plugin is built together with the tests")
}

fn beside_the_test() -> PathBuf {
    std::env::current_exe()
        .unwrap()
        .parent()
        .unwrap()
        .to_owned()
}
