//! What the benches of plugins share: where the libraries lie, and files that are made here, so that a bench needs no data beside the
//! project.
//!
//! One program can hold a single plugin as a crate, as all export the same symbol; datasets are therefore opened as the harness opens
//! them, from their shared libraries.

mod library;
mod release;
mod structures;

pub use library::library;
pub use release::Release;
pub use structures::Structures;

/// A folder that vanishes with the value.
///
/// # Errors
/// The temporary folder of the machine cannot be written.
fn folder() -> Result<tempfile::TempDir, String> {
    tempfile::tempdir().map_err(|e| {
        format!("a temporary folder could not be made ({e}); set TMPDIR to one that can be written")
    })
}

/// Numbers that look like coordinates: between -8 and 8, no two alike in a file.
fn coordinate(i: usize) -> f64 {
    8.0 * (i as f64 * 0.731).sin()
}
