//! Where the shared libraries of plugins lie: cargo builds those of dependencies beside the program.

use equivbench_host::Library;
use std::{
    env::consts::{DLL_PREFIX, DLL_SUFFIX},
    path::PathBuf,
};

/// Opens the library of a plugin by its name in Rust, such as `point_mlp`.
///
/// # Errors
/// It was not built, with what builds it; a file that cannot be loaded.
pub fn library(name: &str) -> Result<Library, String> {
    let file = format!("{DLL_PREFIX}equivbench_{name}{DLL_SUFFIX}");
    let program =
        std::env::current_exe().map_err(|e| format!("this program cannot be found ({e})"))?;
    let folder = program.parent().map(PathBuf::from).unwrap_or_default();
    let found = [folder.join(&file), folder.join("..").join(&file)]
        .into_iter()
        .find(|p| p.is_file());
    let package = name.replace('_', "-");
    let missing = || {
        format!(
            "{file} is not in {}; build it first: cargo build --release -p equivbench-{package}",
            folder.display()
        )
    };
    Library::open(&found.ok_or_else(missing)?).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_refused_with_what_builds_it() {
        let refused = library("no_such").err().unwrap();
        assert!(
            refused.ends_with("build it first: cargo build --release -p equivbench-no-such"),
            "{refused}"
        );
        assert_eq!(library("spice").unwrap().descriptor.name, "spice");
    }
}
