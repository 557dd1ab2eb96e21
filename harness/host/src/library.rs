//! Opens a plugin library. The only file of the host with unsafe code.
//!
//! Libraries are never unloaded: objects, error texts and thread-locals of a plugin may live anywhere. Two libraries share
//! nothing: `RTLD_LOCAL`, and the root module is read from the header of *this* library (abi_stable's `load_from_file` keeps one
//! static for each root type and would hand out the first library again).

use crate::{HostError, LoadedDataset, LoadedModel, elf, layout};
use abi_stable::{
    StableAbi,
    library::{LibHeader, LibraryError, RootModule, lib_header_from_path},
};
use equivbench_abi::{
    PluginRootRef,
    descriptor::{DatasetRequest, ModelRequest, PluginDescriptor},
};
use sha2::{Digest, Sha256};
use std::{
    fmt::Write,
    path::{Path, PathBuf},
};

/// An open plugin library.
pub struct Library {
    /// What it holds.
    pub descriptor: PluginDescriptor,
    /// Where it lies, absolute.
    pub path: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    root: PluginRootRef,
}

impl Library {
    /// Checks a file, opens it in this process and reads its description.
    ///
    /// A plugin that crashes takes this process along: describe files of unknown quality in a child first
    /// (`describe_in_child`).
    ///
    /// # Errors
    /// A file that is not there or is no plugin for this program, or a plugin that cannot describe itself.
    pub fn open(path: &Path) -> Result<Self, HostError> {
        let (path, sha256) = check_file(path)?;
        let root: PluginRootRef =
            open_root(&path).map_err(|reason| HostError::refused(&path, reason))?;
        let text = root.describe()().into_result();
        let text = text.map_err(|e| {
            HostError::refused(
                &path,
                format!("it could not describe itself: {}", e.message),
            )
        })?;
        let descriptor: PluginDescriptor = serde_json::from_str(text.as_str()).map_err(|e| {
            HostError::refused(
                &path,
                format!(
                    "its description cannot be read: {e}. Its author should use the author crate"
                ),
            )
        })?;
        if descriptor.name.is_empty() {
            return Err(HostError::refused(&path, "its description has no name"));
        }
        Ok(Self {
            descriptor,
            path,
            sha256,
            root,
        })
    }

    /// Opens a model of the library.
    ///
    /// # Errors
    /// A model that is not in the library, or what the plugin answers: unknown size, impossible configuration, missing device, kernels
    /// that the processor lacks; a plugin that takes other kernels than those asked for.
    pub fn open_model(&self, request: &ModelRequest) -> Result<LoadedModel, HostError> {
        let descriptor = self
            .descriptor
            .models
            .iter()
            .find(|m| m.name == request.model)
            .ok_or_else(|| {
                let names: Vec<&str> = self
                    .descriptor
                    .models
                    .iter()
                    .map(|m| m.name.as_str())
                    .collect();
                self.refuses("model", &request.model, &names)
            })?;
        let object = self.root.open_model()(self.document(request)?.as_str().into());
        let object = object
            .into_result()
            .map_err(|e| HostError::answered(&self.descriptor.name, e))?;
        let model = LoadedModel::new(&self.descriptor.name, descriptor.clone(), object)?;
        self.check_kernels(&request.kernels, &model.instance().kernels)?;
        Ok(model)
    }

    /// A plugin that does not know the key `kernels` ignores it: then a number would be called what it is not.
    fn check_kernels(&self, wanted: &str, taken: &str) -> Result<(), HostError> {
        if matches!(wanted, "" | "auto") || wanted == taken {
            return Ok(());
        }
        let taken = match taken {
            "" => "it does not say which it takes".to_owned(),
            taken => format!("it takes \"{taken}\""),
        };
        Err(HostError::Plugin {
            plugin: self.descriptor.name.clone(),
            code: equivbench_abi::code::UNSUPPORTED,
            message: format!(
                "kernels \"{wanted}\" were asked for, and {taken}. Build the plugin against equivbench-abi {}, or leave the choice to it \
                 (auto)",
                equivbench_abi::ABI_VERSION
            ),
        })
    }

    /// Opens a dataset of the library.
    ///
    /// # Errors
    /// A dataset that is not in the library, or what the plugin answers: missing or damaged files, unknown options.
    pub fn open_dataset(&self, request: &DatasetRequest) -> Result<LoadedDataset, HostError> {
        if !self
            .descriptor
            .datasets
            .iter()
            .any(|d| d.name == request.dataset)
        {
            let names: Vec<&str> = self
                .descriptor
                .datasets
                .iter()
                .map(|d| d.name.as_str())
                .collect();
            return Err(self.refuses("dataset", &request.dataset, &names));
        }
        let object = self.root.open_dataset()(self.document(request)?.as_str().into());
        let object = object
            .into_result()
            .map_err(|e| HostError::answered(&self.descriptor.name, e))?;
        LoadedDataset::new(&self.descriptor.name, object)
    }

    fn refuses(&self, what: &str, name: &str, names: &[&str]) -> HostError {
        let there = if names.is_empty() {
            format!("it holds no {what}s")
        } else {
            format!("there are: {}", names.join(", "))
        };
        let message = format!("no {what} \"{name}\" in {}; {there}", self.path.display());
        HostError::Plugin {
            plugin: self.descriptor.name.clone(),
            code: equivbench_abi::code::BAD_REQUEST,
            message,
        }
    }

    fn document<T: serde::Serialize>(&self, request: &T) -> Result<String, HostError> {
        serde_json::to_string(request).map_err(|e| {
            HostError::nonsense(
                &self.descriptor.name,
                format!("the request cannot be written: {e}"),
            )
        })
    }
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library")
            .field("name", &self.descriptor.name)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// Looks at a file without opening it as a library: is it there, complete, and for this machine? Returns its absolute path and its
/// SHA-256. On systems other than Linux only its presence is checked.
///
/// # Errors
/// A file that is missing, unreadable, truncated or foreign.
pub fn check_file(path: &Path) -> Result<(PathBuf, String), HostError> {
    let absolute = path.canonicalize().map_err(|_| not_there(path))?;
    if absolute.is_dir() {
        return Err(HostError::refused(
            path,
            "it is a directory. Give the path of the library in it, or name the directory with --plugin-dir",
        ));
    }
    let data = std::fs::read(&absolute)
        .map_err(|e| HostError::refused(path, format!("it cannot be read: {e}")))?;
    if cfg!(target_os = "linux") {
        elf::check(&data).map_err(|reason| HostError::refused(path, reason))?;
    }
    Ok((absolute, hexadecimal(&data)))
}

fn not_there(path: &Path) -> HostError {
    HostError::NotFound {
        name: path.display().to_string(),
        tried: vec![path.to_owned()],
        nearest: None,
    }
}

/// SHA-256 of a file, hexadecimal.
///
/// # Errors
/// A file that cannot be read.
pub fn sha256_of(path: &Path) -> std::io::Result<String> {
    Ok(hexadecimal(&std::fs::read(path)?))
}

fn hexadecimal(data: &[u8]) -> String {
    Sha256::digest(data)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// Opens a library for good and returns its root module, after comparing version and layout.
fn open_root<M: RootModule + StableAbi>(path: &Path) -> Result<M, String> {
    keep_open(path)?;
    let header: &'static LibHeader = lib_header_from_path(path).map_err(header_missing)?;
    let versions = (M::VERSION_STRINGS, header.version_strings());
    layout::check_version(versions.0, versions.1)?;
    let Some(theirs) = header.layout() else {
        return Err("it does not say how its types are laid out. Build it with export_plugin! of the author crate".into());
    };
    layout::check_layout(<M as StableAbi>::LAYOUT, theirs, versions)?;
    // SAFETY: the layout of the root module was compared with `M` just now, in one direction or the other; both sides add to the
    // end of prefix types only, and fields beyond the shorter side are never read without asking.
    let root = unsafe { header.unchecked_layout::<M>() };
    root.map_err(|e| format!("it failed to start: {}", e.to_string().trim()))
}

/// Opens a library with all its symbols resolved: a missing one is an error here, not an exit in the middle of a run.
#[cfg(unix)]
fn keep_open(path: &Path) -> Result<(), String> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // SAFETY: the file is a complete library of this machine as far as its headers tell. Its initialisers are code that the user
    // chose to run; files of unknown quality are described in a child process first.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    std::mem::forget(library.map_err(|e| linker_says(&e))?);
    Ok(())
}

/// Opens a library for good.
#[cfg(not(unix))]
fn keep_open(path: &Path) -> Result<(), String> {
    // SAFETY: the initialisers of the library are code that the user chose to run.
    let library = unsafe { libloading::Library::new(path) };
    std::mem::forget(library.map_err(|e| linker_says(&e))?);
    Ok(())
}

/// libloading prints "dlopen failed"; the cause is in its source.
fn linker_says(error: &libloading::Error) -> String {
    let cause =
        std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    let remedy =
        if cause.contains("undefined symbol") || cause.contains("cannot open shared object") {
            "Install what it needs, or build it again on this machine"
        } else {
            "Build it again on this machine"
        };
    format!("the dynamic linker says: {cause}. {remedy}")
}

fn header_missing(error: LibraryError) -> String {
    match error {
        LibraryError::GetSymbolError { .. } => {
            "it is a shared library, but no equivbench plugin: it exports no root module. Its crate needs one line, \
             export_model!, export_dataset! or export_plugin! of the author crate"
                .into()
        }
        LibraryError::InvalidAbiHeader(found) => format!(
            "it was built with abi_stable {}.{}, which this program does not understand. Build it against equivbench-abi {}",
            found.abi_major,
            found.abi_minor,
            equivbench_abi::ABI_VERSION
        ),
        LibraryError::InvalidCAbi { .. } => "its compiler passes arguments in another way. Build it again on this machine".into(),
        other => {
            tracing::debug!("header of the plugin: {other}");
            "its header cannot be read. Build it again on this machine".into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixture_skew::{broken, newer, older};

    fn older_plugin() -> PathBuf {
        let folder = std::env::current_exe()
            .unwrap()
            .parent()
            .unwrap()
            .to_owned();
        folder.join(format!(
            "{}fixture_skew{}",
            std::env::consts::DLL_PREFIX,
            std::env::consts::DLL_SUFFIX
        ))
    }

    #[test]
    fn an_older_plugin_works_in_a_newer_host_and_new_methods_run_their_default() {
        let root: newer::RootRef = open_root(&older_plugin()).unwrap();
        let mut counter = root.open()();
        assert_eq!(counter.next(), 1);
        assert_eq!(
            counter.skip(),
            3,
            "the default body, because the plugin has none"
        );
        assert!(
            root.start().is_none(),
            "a field that the older plugin does not have"
        );
    }

    #[test]
    fn the_layouts_of_one_plugin_leave_no_trace_when_the_next_is_checked() {
        let path = older_plugin();
        assert!(open_root::<older::RootRef>(&path).is_ok());
        assert!(open_root::<newer::RootRef>(&path).is_ok());
        assert!(open_root::<older::RootRef>(&path).is_ok());
    }

    #[test]
    fn a_newer_plugin_works_in_an_older_host() {
        let versions = (
            older::RootRef::VERSION_STRINGS,
            newer::RootRef::VERSION_STRINGS,
        );
        layout::check_version(versions.0, versions.1).unwrap();
        layout::check_layout(
            <older::RootRef as StableAbi>::LAYOUT,
            <newer::RootRef as StableAbi>::LAYOUT,
            versions,
        )
        .unwrap();
    }

    #[test]
    fn a_field_in_the_middle_is_refused_in_three_lines() {
        let Err(reason) = open_root::<broken::RootRef>(&older_plugin()) else {
            panic!("it was accepted")
        };
        assert_eq!(reason.lines().count(), 3, "{reason}");
        assert!(
            reason.len() < 500 && reason.contains("0.1.0") && reason.contains("0.1.1"),
            "{reason}"
        );
        println!("{reason}");
    }

    #[test]
    fn a_library_without_a_root_of_the_right_type_is_refused() {
        assert!(open_root::<PluginRootRef>(&older_plugin()).is_err());
    }
}
