//! What a run is the same as: the program, plugins, data and settings that can change a number, as hashes.

use crate::{RunnerError, config::ExecutionConfig, run_dir::RunSpec};
use equivbench_host::sha256_of;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    sync::OnceLock,
};
use toml::{Table, Value};

/// Of a file of data the first and the last so many bytes are read: releases of 30 GB are named in milliseconds.
const ENDS: u64 = 1 << 20;

/// Pins runs to the program and to the data that they are planned with.
pub(crate) struct Identity {
    program: String,
    data: Fingerprints,
}

impl Identity {
    /// Of the program that runs.
    ///
    /// # Errors
    /// A program whose file cannot be read.
    pub(crate) fn of_this_program() -> Result<Self, RunnerError> {
        Ok(Self {
            program: program_sha256()?.into(),
            data: Fingerprints::default(),
        })
    }

    /// The run with its program, its data, and the hashes of them all.
    pub(crate) fn pin(&mut self, mut spec: RunSpec) -> RunSpec {
        spec.program_sha256.clone_from(&self.program);
        spec.data_files = self.data.of(&spec.config.dataset.options);
        spec.settings = settings(&spec);
        spec.id = run_id(&spec);
        spec
    }
}

/// SHA-256 of the program that runs, read once.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn program_sha256() -> Result<&'static str, RunnerError> {
    static HASH: OnceLock<String> = OnceLock::new();
    if let Some(hash) = HASH.get() {
        return Ok(hash);
    }
    // Linux gives the file that runs, also where a new build has taken its name since.
    let hash = sha256_of(Path::new("/proc/self/exe")).or_else(|_| {
        let path = std::env::current_exe()?;
        sha256_of(&path)
    });
    let hash = hash.map_err(RunnerError::io(Path::new("the program")))?;
    Ok(HASH.get_or_init(|| hash))
}

/// Refuses a run that another build of the program planned: its rows would be of two programs, and its id of one.
///
/// # Errors
/// Another build.
pub(crate) fn check_program(spec: &RunSpec) -> Result<(), RunnerError> {
    let this = program_sha256()?;
    if spec.program_sha256 == this {
        return Ok(());
    }
    let short = |hash: &str| hash.get(..12).unwrap_or(hash).to_owned();
    Err(RunnerError::Conflict(format!(
        "run {} was planned by another build of equivbench (SHA-256 {}, this is {}), and numbers of two builds may differ; continue it with that \
         build, or begin it anew with this one and another --out",
        spec.id,
        short(&spec.program_sha256),
        short(this)
    )))
}

/// Refuses data that are not those that the run was planned with.
///
/// # Errors
/// A file or folder with another fingerprint.
pub(crate) fn check_data(spec: &RunSpec) -> Result<(), RunnerError> {
    let now = Fingerprints::default().of(&spec.config.dataset.options);
    let differs =
        |(name, before): &(&String, &String)| now.get(*name).is_some_and(|n| n != *before);
    match spec.data_files.iter().find(differs) {
        None => Ok(()),
        Some((name, _)) => Err(RunnerError::Conflict(format!(
            "the data in {name} changed since run {} was planned; restore them, or use another --out",
            spec.id
        ))),
    }
}

/// Everything that can change a number. Limits, checkpoints, threads, the clock's seconds and where data lie are left out.
fn pinned(spec: &RunSpec) -> Json {
    let mut config = spec.config.clone();
    let keep = ExecutionConfig::default();
    config.run.threads = keep.threads;
    config.run.checkpoint_every_steps = keep.checkpoint_every_steps;
    config.run.keep_checkpoints = keep.keep_checkpoints;
    config.run.time_limit_s = keep.time_limit_s;
    config.run.stall_limit_s = keep.stall_limit_s;
    for option in config.dataset.options.iter_mut().map(|(_, value)| value) {
        texts(option, &mut |text| {
            if let Some(fingerprint) = spec.data_files.get(text) {
                *text = format!("sha256:{fingerprint}");
            }
        });
    }
    serde_json::json!({
        "config": config,
        "program": spec.program_sha256,
        "model_plugin": spec.model_plugin.sha256,
        "dataset_plugin": spec.dataset_plugin.sha256,
        "protocol_version": spec.protocol_version,
    })
}

/// The first bytes of a hash, hexadecimal.
fn short_hash(pinned: &Json, bytes: usize) -> String {
    let digest = Sha256::digest(pinned.to_string().as_bytes());
    hexadecimal(&digest[..bytes])
}

fn run_id(spec: &RunSpec) -> String {
    format!(
        "{}-{}-s{}-{}",
        spec.config.model.name,
        spec.config.model.size,
        spec.config.run.seed,
        short_hash(&pinned(spec), 5)
    )
}

/// What seeds of one experiment have in common: 8 digits that are equal for runs that differ in `run.seed` only.
fn settings(spec: &RunSpec) -> String {
    let mut any_seed = spec.clone();
    any_seed.config.run.seed = 0;
    short_hash(&pinned(&any_seed), 4)
}

/// Fingerprints of files and folders; each is looked at once.
#[derive(Default)]
pub(crate) struct Fingerprints(BTreeMap<String, Option<String>>);

impl Fingerprints {
    /// The files and folders that options of a dataset name, with their fingerprints. What cannot be read is left to the plugin, which
    /// knows whether it is a path at all.
    pub(crate) fn of(&mut self, options: &Table) -> BTreeMap<String, String> {
        let mut named = Vec::new();
        for mut option in options.iter().map(|(_, value)| value.clone()) {
            texts(&mut option, &mut |text| named.push(text.clone()));
        }
        let found = named.into_iter().filter_map(|name| {
            let known = self.0.entry(name.clone());
            let fingerprint = known.or_insert_with(|| fingerprint(Path::new(&name)).ok().flatten());
            fingerprint.clone().map(|fingerprint| (name, fingerprint))
        });
        found.collect()
    }
}

/// Every text in a value.
fn texts(value: &mut Value, with: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => with(text),
        Value::Array(items) => items.iter_mut().for_each(|item| texts(item, with)),
        Value::Table(table) => table.iter_mut().for_each(|(_, item)| texts(item, with)),
        _ => {}
    }
}

/// A hash of name, size and both ends of a file, or of the names and sizes of all that lies in a folder; `None` for anything else. Where
/// they lie does not enter. The content hash of the dataset, which checkpoints carry, is of every byte that is served.
fn fingerprint(path: &Path) -> io::Result<Option<String>> {
    let about = fs::metadata(path)?;
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(path.file_name().unwrap_or_default().as_encoded_bytes());
    if about.is_file() {
        add(&about.len().to_le_bytes());
        let mut file = File::open(path)?;
        for start in [0, about.len().saturating_sub(ENDS)] {
            file.seek(SeekFrom::Start(start))?;
            let mut end = Vec::new();
            Read::by_ref(&mut file).take(ENDS).read_to_end(&mut end)?;
            add(&end);
        }
    // An option that is "/" is hardly a folder of data, and nobody waits for a walk through the whole disk.
    } else if about.is_dir() && path.canonicalize()?.parent().is_some() {
        for (name, size) in content(path)? {
            add(&name);
            add(&size.to_le_bytes());
        }
    } else {
        return Ok(None);
    }
    Ok(Some(hexadecimal(&hash.finalize())))
}

/// Files below a folder with their sizes, sorted. Links to folders are not followed (they may lead in a circle) and count by name.
fn content(folder: &Path) -> io::Result<BTreeMap<Vec<u8>, u64>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at)? {
            let path = entry?.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
                continue;
            }
            let size = fs::metadata(&path).map_or(0, |m| if m.is_file() { m.len() } else { 0 });
            let name = path.strip_prefix(folder).unwrap_or(&path);
            found.insert(name.as_os_str().as_encoded_bytes().to_vec(), size);
        }
    }
    Ok(found)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RunConfig;

    fn spec(path: &Path) -> RunSpec {
        let mut config = RunConfig::default();
        config.model.name = "m".into();
        let path = path.to_string_lossy().into_owned();
        let options = &mut config.dataset.options;
        options.insert("path".into(), Value::String(path.clone()));
        options.insert("more".into(), Value::Array(vec![Value::String(path)]));
        options.insert("units".into(), "eV".into());
        RunSpec::of(config)
    }

    fn pin(spec: RunSpec) -> RunSpec {
        Identity::of_this_program().unwrap().pin(spec)
    }

    /// A file of three mebibytes, whose bytes at the start, in the middle and at the end can be chosen.
    fn write(path: &Path, [start, middle, end]: [u8; 3]) {
        let mut bytes = vec![0; 3 << 20];
        let last = bytes.len() - 1;
        (bytes[0], bytes[last / 2], bytes[last]) = (start, middle, end);
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn seeds_have_ids_of_their_own_and_settings_in_common() {
        let one = pin(spec(Path::new("nowhere")));
        let mut two = spec(Path::new("nowhere"));
        two.config.run.seed = 7;
        let two = pin(two);
        assert_ne!(one.id, two.id);
        assert!(two.id.starts_with("m--s7-"), "{}", two.id);
        assert_eq!(one.settings, two.settings);
        assert_eq!(one.settings.len(), 8);
        let mut other = spec(Path::new("nowhere"));
        other.config.train.steps = 5;
        assert_ne!(pin(other).settings, one.settings);
    }

    #[test]
    fn the_program_enters_ids_and_threads_and_limits_do_not() {
        let one = pin(spec(Path::new("nowhere")));
        let mut patient = spec(Path::new("nowhere"));
        patient.config.run.threads = 3;
        patient.config.run.stall_limit_s = 1;
        assert_eq!(pin(patient).id, one.id);
        let mut elsewhere = Identity {
            program: "0".repeat(64),
            data: Fingerprints::default(),
        };
        let other = elsewhere.pin(spec(Path::new("nowhere")));
        assert_ne!((&other.id, &other.settings), (&one.id, &one.settings));
        assert!(check_program(&one).is_ok());
        let refused = check_program(&other).unwrap_err();
        assert!(matches!(refused, RunnerError::Conflict(_)));
        let refused = refused.to_string();
        assert!(
            refused.contains("another build of equivbench (SHA-256 000000000000, this is ")
                && refused.contains("another --out"),
            "{refused}"
        );
    }

    #[test]
    fn a_file_is_known_by_name_size_and_ends_wherever_it_lies() {
        let folder = tempfile::tempdir().unwrap();
        let (here, there) = (folder.path().join("a.h5"), folder.path().join("b/a.h5"));
        fs::create_dir(folder.path().join("b")).unwrap();
        write(&here, [1, 2, 3]);
        write(&there, [1, 2, 3]);
        let (one, moved) = (pin(spec(&here)), pin(spec(&there)));
        assert_eq!((&one.id, &one.settings), (&moved.id, &moved.settings));
        assert_eq!(one.data_files.len(), 1, "{:?}", one.data_files);
        assert!(check_data(&one).is_ok());
        for ends in [[0, 2, 3], [1, 2, 0]] {
            write(&there, ends);
            assert_ne!(pin(spec(&there)).id, one.id, "{ends:?}");
        }
        // The middle of a large file is not read: the content hash of the dataset covers it.
        write(&there, [1, 0, 3]);
        assert_eq!(pin(spec(&there)).id, one.id);
        let renamed = folder.path().join("c.h5");
        fs::rename(&there, &renamed).unwrap();
        assert_ne!(pin(spec(&renamed)).id, one.id);
        fs::write(&here, "shorter").unwrap();
        let changed = check_data(&one).unwrap_err().to_string();
        assert!(changed.contains("a.h5 changed since run m-"), "{changed}");
    }

    #[test]
    fn a_folder_is_known_by_the_names_and_sizes_of_all_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("chains");
        fs::create_dir_all(data.join("ab")).unwrap();
        fs::write(data.join("ab/1abc.cif"), "12345").unwrap();
        let of = || fingerprint(&data).unwrap().unwrap();
        let first = of();
        fs::write(data.join("ab/1abc.cif"), "54321").unwrap();
        assert_eq!(of(), first);
        fs::write(data.join("ab/1abc.cif"), "123456").unwrap();
        let larger = of();
        assert_ne!(larger, first);
        fs::write(data.join("2abc.cif"), "").unwrap();
        assert_ne!(of(), larger);
        assert_eq!(fingerprint(Path::new("/")).unwrap(), None);
        assert!(fingerprint(&folder.path().join("nothing")).is_err());
    }
}
