//! Remembers descriptions by path, size and time of a file. A cache that cannot be read or written is no cache, never an error.

use equivbench_abi::descriptor::PluginDescriptor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// Switches the cache off.
const OFF_VARIABLE: &str = "EQUIVBENCH_NO_CACHE";

/// What identifies a file without reading it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Key {
    path: PathBuf,
    bytes: u64,
    modified_ns: u128,
    /// Another version of this program may read descriptions differently.
    program: String,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: Key,
    descriptor: PluginDescriptor,
}

/// What is known about a file, if it has not changed since.
pub(crate) fn read(path: &Path) -> Option<PluginDescriptor> {
    let (key, file) = locate(path)?;
    let entry: Entry = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (entry.key == key).then_some(entry.descriptor)
}

/// Remembers a description, as well as it can.
pub(crate) fn write(path: &Path, descriptor: &PluginDescriptor) {
    let attempt = || -> Option<()> {
        let (key, file) = locate(path)?;
        std::fs::create_dir_all(file.parent()?).ok()?;
        let text = serde_json::to_vec(&Entry {
            key,
            descriptor: descriptor.clone(),
        })
        .ok()?;
        // Another process may read while this one writes.
        let unfinished = file.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&unfinished, text).ok()?;
        std::fs::rename(unfinished, file).ok()
    };
    if attempt().is_none() {
        tracing::debug!("the description of {} was not remembered", path.display());
    }
}

fn locate(path: &Path) -> Option<(Key, PathBuf)> {
    if std::env::var_os(OFF_VARIABLE).is_some_and(|v| !v.is_empty()) {
        return None;
    }
    let facts = std::fs::metadata(path).ok()?;
    let modified_ns = facts
        .modified()
        .ok()?
        .duration_since(UNIX_EPOCH)
        .ok()?
        .as_nanos();
    let program = format!(
        "{} {}",
        env!("CARGO_PKG_VERSION"),
        equivbench_abi::ABI_VERSION
    );
    let key = Key {
        path: path.to_owned(),
        bytes: facts.len(),
        modified_ns,
        program,
    };
    let digest = Sha256::digest(path.as_os_str().as_encoded_bytes());
    let name: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    let folder = directories::BaseDirs::new()?
        .cache_dir()
        .join("equivbench/descriptions");
    Some((key, folder.join(format!("{name}.json"))))
}
