//! Checkpoints: atomic, checksummed, the last two kept; when the newest is damaged the older one serves.

use crate::RunnerError;
use equivbench_protocols::SessionState;
use equivbench_report::{Extent, write_parts_atomically};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// First bytes of a checkpoint file.
const MAGIC: &[u8; 8] = b"EQVCKPT1";
/// How many are kept besides those that stay.
const KEPT: usize = 2;

/// Everything a run needs to continue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Run id; a checkpoint of another run is refused.
    pub run: String,
    /// Content hash of the data it was trained on.
    pub data_hash: String,
    /// State of the session.
    pub session: SessionState,
    /// What of each table it covers.
    pub covered: BTreeMap<String, Extent>,
    /// The model's complete training state.
    #[serde(skip)]
    pub model: Vec<u8>,
}

fn file_name(step: u64) -> String {
    format!("step-{step:012}.ckpt")
}

/// Writes a checkpoint and removes those beyond the last two, but for the steps that stay.
///
/// # Errors
/// No space, no permission.
pub fn save(
    folder: &Path,
    checkpoint: &Checkpoint,
    stay: &BTreeSet<u64>,
) -> Result<(), RunnerError> {
    std::fs::create_dir_all(folder).map_err(RunnerError::io(folder))?;
    let mut head = Vec::new();
    // CBOR keeps every bit of a number; JSON as it is usually read does not.
    ciborium::into_writer(checkpoint, &mut head)
        .map_err(|e| RunnerError::Run(format!("checkpoint: {e}")))?;
    // In parts: a large state is not copied once more.
    let length = (head.len() as u64).to_le_bytes();
    let body: [&[u8]; 4] = [MAGIC, &length, &head, &checkpoint.model];
    let sum = body
        .iter()
        .fold(Sha256::new(), |hash, part| hash.chain_update(part))
        .finalize();
    let path = folder.join(file_name(checkpoint.session.step));
    write_parts_atomically(&path, &[body[0], body[1], body[2], body[3], &sum])?;
    let stays: Vec<PathBuf> = stay
        .iter()
        .map(|&step| folder.join(file_name(step)))
        .collect();
    for old in list(folder)?
        .into_iter()
        .rev()
        .filter(|path| !stays.contains(path))
        .skip(KEPT)
    {
        // A leftover costs space only.
        let _ = std::fs::remove_file(old);
    }
    Ok(())
}

/// The checkpoint of a step.
///
/// # Errors
/// Names the steps that have one where this has none, or says what is wrong with the file.
pub fn at(folder: &Path, step: u64) -> Result<Checkpoint, RunnerError> {
    let path = folder.join(file_name(step));
    if !path.is_file() {
        let steps: Vec<String> = list(folder)?
            .iter()
            .filter_map(|p| {
                p.file_stem()?
                    .to_str()?
                    .strip_prefix("step-")?
                    .parse::<u64>()
                    .ok()
            })
            .map(|step| step.to_string())
            .collect();
        let there = if steps.is_empty() {
            "none".into()
        } else {
            steps.join(", ")
        };
        return Err(RunnerError::Config(format!(
            "{} has no checkpoint of step {step}; it has: {there}. Keep those that you want to measure with run.keep_checkpoints = [{step}, \"last\"]",
            folder.display()
        )));
    }
    let told = |what: String| RunnerError::Conflict(format!("{}: {what}", path.display()));
    let found = read(&path).map_err(told)?;
    if found.session.step != step {
        return Err(told(format!(
            "it is of step {}; the file was renamed",
            found.session.step
        )));
    }
    Ok(found)
}

/// Damaged checkpoint files, each with what is wrong with it.
pub type Damaged = Vec<(PathBuf, String)>;

/// The newest checkpoint that is whole; damaged ones are passed over and named.
///
/// # Errors
/// A folder that cannot be read.
pub fn newest(folder: &Path) -> Result<(Option<Checkpoint>, Damaged), RunnerError> {
    let mut damaged = Vec::new();
    for path in list(folder)?.into_iter().rev() {
        match read(&path) {
            Ok(checkpoint) => return Ok((Some(checkpoint), damaged)),
            Err(what) => damaged.push((path, what)),
        }
    }
    Ok((None, damaged))
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, RunnerError> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(RunnerError::io(folder))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "ckpt"))
        .collect();
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<Checkpoint, String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let split = bytes.len().checked_sub(32).ok_or("too short")?;
    let (body, sum) = bytes.split_at(split);
    if Sha256::digest(body).as_slice() != sum {
        return Err("its checksum does not fit".into());
    }
    let rest = body
        .strip_prefix(MAGIC)
        .ok_or("not a checkpoint of this version")?;
    let (length, rest) = rest.split_at_checked(8).ok_or("too short")?;
    let length = u64::from_le_bytes(length.try_into().map_err(|_| "too short")?) as usize;
    let (head, model) = rest.split_at_checked(length).ok_or("too short")?;
    let mut checkpoint: Checkpoint = ciborium::from_reader(head).map_err(|e| e.to_string())?;
    checkpoint.model = model.to_vec();
    Ok(checkpoint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(step: u64) -> Checkpoint {
        Checkpoint {
            run: "r".into(),
            data_hash: "h".into(),
            session: SessionState {
                step,
                train_s: 0.1 + step as f64,
                ..SessionState::default()
            },
            covered: BTreeMap::from([("curve".into(), Extent::of(b"17"))]),
            model: vec![1, 2, 3, step as u8],
        }
    }

    #[test]
    fn the_last_two_are_kept_and_a_damaged_one_falls_back_to_the_older() {
        let folder = tempfile::tempdir().unwrap();
        for step in [5, 10, 15] {
            save(folder.path(), &state(step), &BTreeSet::new()).unwrap();
        }
        assert_eq!(list(folder.path()).unwrap().len(), 2);
        assert_eq!(newest(folder.path()).unwrap(), (Some(state(15)), vec![]));
        let last = list(folder.path()).unwrap().pop().unwrap();
        let mut bytes = std::fs::read(&last).unwrap();
        for cut in [0, 7, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&last, &bytes[..cut]).unwrap();
            let (found, damaged) = newest(folder.path()).unwrap();
            assert_eq!((found, damaged.len()), (Some(state(10)), 1));
        }
        bytes[40] ^= 1;
        std::fs::write(&last, &bytes).unwrap();
        assert_eq!(newest(folder.path()).unwrap().0, Some(state(10)));
    }

    #[test]
    fn steps_that_stay_are_not_removed_and_can_be_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        for step in [5, 10, 15, 20] {
            save(folder.path(), &state(step), &BTreeSet::from([5])).unwrap();
        }
        assert_eq!(super::at(folder.path(), 5).unwrap(), state(5));
        let error = super::at(folder.path(), 10).unwrap_err().to_string();
        assert!(error.contains("it has: 5, 15, 20"), "{error}");
    }
}
