//! Errors about files, in one form for all datasets.

use equivbench_plugin::PluginError;
use std::path::Path;

/// What to do about a damaged file.
pub const DAMAGED: &str = "the file is damaged or cut off: compare its size and checksum with the source and fetch it again";

/// An error about the content of a file: the file, the place (empty if it is the whole), what is wrong, what to do.
pub fn bad_data(
    file: &str,
    place: &str,
    what: impl std::fmt::Display,
    remedy: &str,
) -> PluginError {
    let place = if place.is_empty() {
        String::new()
    } else {
        format!(", {place}")
    };
    PluginError::BadData(format!("{file}{place}: {what}; {remedy}"))
}

/// Whether a number of a file can be used: finite, and not so large that a change of unit or a square leaves the range of f64.
#[must_use]
pub fn is_usable(x: f64) -> bool {
    x.abs() < 1e100
}

/// File name without its folders: what may stand in a table.
#[must_use]
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(
        || path.display().to_string(),
        |n| n.to_string_lossy().into_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_file_the_place_and_the_remedy() {
        let message = |place| bad_data("a.sdf", place, "it is empty", "fetch it again").to_string();
        assert!(
            message("line 3").ends_with("a.sdf, line 3: it is empty; fetch it again"),
            "{}",
            message("line 3")
        );
        assert!(message("").ends_with("a.sdf: it is empty; fetch it again"));
    }

    #[test]
    fn numbers_that_are_not_finite_or_absurd_are_not_usable() {
        assert!(
            is_usable(-1e99)
                && !is_usable(1e100)
                && !is_usable(f64::NAN)
                && !is_usable(f64::NEG_INFINITY)
        );
    }
}
