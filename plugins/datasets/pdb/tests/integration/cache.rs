//! The cache: used when nothing changed, never when something did, and never seen in the numbers.

use crate::{
    chains, check,
    make::{chain, cif, folder, write},
    open, refused,
};
use equivbench_plugin::{DatasetDescriptor, DatasetPlugin};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

fn set(count: u64) -> tempfile::TempDir {
    let folder = folder(&[]);
    for i in 1..=count {
        write(
            folder.path(),
            &format!("m{i:02}.cif"),
            cif(&chain("A", i, 60)).as_bytes(),
        );
    }
    age(folder.path());
    folder
}

/// Makes all files an hour old, so that their times tell whether they changed.
fn age(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "cif") {
            touch(&path, Duration::from_secs(3600));
        }
    }
}

fn touch(path: &Path, ago: Duration) {
    File::options()
        .write(true)
        .open(path)
        .unwrap()
        .set_modified(SystemTime::now() - ago)
        .unwrap();
}

/// The index files of a folder.
fn indexes(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    all.filter(|p| {
        p.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(".equivbench-pdb-index-")
    })
    .collect()
}

fn described(folder: &Path) -> DatasetDescriptor {
    open(folder, |o| o.cache = None).describe()
}

/// Number of the file on its disk: another one after it was written anew.
fn identity(path: &Path) -> (SystemTime, u64) {
    let metadata = fs::metadata(path).unwrap();
    (metadata.modified().unwrap(), metadata.len())
}

#[test]
fn a_cache_lies_beside_the_data_and_gives_the_same_numbers() {
    let set = set(6);
    let without = open(set.path(), |_| ()).describe();
    assert!(indexes(set.path()).is_empty());
    let first = described(set.path());
    let [index] = &indexes(set.path())[..] else {
        panic!("one index")
    };
    let before = identity(index);
    let second = described(set.path());
    assert_eq!((&first, &second), (&without, &first));
    assert_eq!(identity(index), before, "it was used, not written anew");
    let (mut cached, mut direct) = (
        open(set.path(), |o| o.cache = None),
        open(set.path(), |_| ()),
    );
    assert_eq!(chains(&mut cached), chains(&mut direct));
    assert_eq!(check(&second, "files read"), 6.0);
}

#[test]
fn the_cache_is_what_is_read() {
    let set = set(6);
    let first = described(set.path());
    // Bytes of the same size and the same time: only a reader that trusts the cache does not see them.
    let path = set.path().join("m03.cif");
    let (bytes, time) = (
        fs::read(&path).unwrap(),
        fs::metadata(&path).unwrap().modified().unwrap(),
    );
    fs::write(&path, vec![b'#'; bytes.len()]).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_eq!(described(set.path()), first);
}

#[test]
fn changed_new_and_missing_files_are_seen() {
    let set = set(6);
    let first = described(set.path());
    let other = cif(&chain("A", 40, 60));
    write(set.path(), "m03.cif", other.as_bytes());
    let changed = described(set.path());
    assert_ne!(changed.content_hash, first.content_hash);
    write(set.path(), "m07.cif", cif(&chain("A", 7, 60)).as_bytes());
    assert_eq!(check(&described(set.path()), "files read"), 7.0);
    fs::remove_file(set.path().join("m07.cif")).unwrap();
    fs::remove_file(set.path().join("m06.cif")).unwrap();
    assert_eq!(check(&described(set.path()), "files read"), 5.0);
}

#[test]
fn a_change_of_the_same_size_within_one_tick_is_seen() {
    let folder = folder(&[]);
    let path = write(folder.path(), "m.cif", cif(&chain("A", 1, 60)).as_bytes());
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    let first = described(folder.path());
    let text = fs::read_to_string(&path)
        .unwrap()
        .replacen("0.000", "0.001", 1);
    fs::write(&path, text).unwrap();
    // As on a file system that counts whole seconds.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
    assert_ne!(described(folder.path()).content_hash, first.content_hash);
}

#[test]
fn new_times_with_old_bytes_keep_the_cache() {
    let set = set(6);
    let first = described(set.path());
    let [index] = &indexes(set.path())[..] else {
        panic!("one index")
    };
    let data = fs::read(index).unwrap();
    touch(&set.path().join("m02.cif"), Duration::from_secs(1800));
    assert_eq!(described(set.path()), first);
    let renewed = fs::read(index).unwrap();
    assert_ne!(renewed, data, "it has the new time");
    let before = identity(index);
    assert_eq!(described(set.path()), first);
    assert_eq!(identity(index), before);
}

#[test]
fn a_damaged_cache_is_made_anew() {
    let set = set(3);
    let first = described(set.path());
    let [index] = &indexes(set.path())[..] else {
        panic!("one index")
    };
    let whole = fs::read(index).unwrap();
    let cuts = [0, 7, 40, whole.len() / 2, whole.len() - 1].map(|n| whole[..n].to_vec());
    let flips = (0..whole.len()).step_by(whole.len() / 60).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        bytes
    });
    for damaged in cuts.into_iter().chain(flips) {
        fs::write(index, &damaged).unwrap();
        assert_eq!(described(set.path()), first);
        assert_ne!(fs::read(index).unwrap(), damaged);
    }
}

#[test]
fn a_cache_that_changes_while_it_is_open_is_an_error() {
    let set = set(3);
    let mut data = open(set.path(), |o| o.cache = None);
    let [index] = &indexes(set.path())[..] else {
        panic!("one index")
    };
    let mut bytes = fs::read(index).unwrap();
    bytes[60..200].fill(0);
    fs::write(index, bytes).unwrap();
    let messages: Vec<String> = (0..3)
        .filter_map(|i| data.chain("train", i).err())
        .map(|e| e.to_string())
        .collect();
    assert!(
        messages.len() == 1 && messages[0].contains("its checksum differs"),
        "{messages:?}"
    );
}

#[test]
fn options_that_select_chains_have_caches_of_their_own() {
    let set = set(4);
    let all = described(set.path());
    let none = refused(set.path(), |o| (o.cache, o.min_length) = (None, Some(60)));
    assert!(
        none.contains("4 chains not longer than min_length"),
        "{none}"
    );
    assert_eq!(described(set.path()), all);
    assert_eq!(indexes(set.path()).len(), 2);
}

#[test]
fn a_named_folder_holds_the_cache_and_must_be_writable() {
    let (set, place) = (set(3), folder(&[("file", b"")]));
    let named = place.path().join("new/folder");
    let with = |path: &Path| {
        open(set.path(), |o| {
            o.cache = Some(path.to_str().unwrap().into())
        })
        .describe()
    };
    assert_eq!(with(&named), with(&named));
    assert!(indexes(set.path()).is_empty() && indexes(&named).len() == 1);
    let message = refused(set.path(), |o| {
        o.cache = Some(place.path().join("file").to_str().unwrap().into())
    });
    assert!(
        message.contains("[dataset] cache:") && message.contains("cache = \"none\""),
        "{message}"
    );
}

#[test]
fn the_hash_is_of_what_is_served_and_not_of_where_it_lies() {
    let (a, b) = (set(5), set(5));
    touch(&b.path().join("m01.cif"), Duration::from_secs(10));
    let hash = |folder: &Path, seed_valid: f64| {
        open(folder, |o| o.valid_fraction = seed_valid)
            .describe()
            .content_hash
    };
    assert_eq!(hash(a.path(), 0.0), hash(b.path(), 0.0));
    assert_ne!(hash(a.path(), 0.0), hash(a.path(), 0.3), "another split");
    let with = |change: fn(&mut crate::make::Atom)| {
        let mut atoms = chain("A", 5, 60);
        change(&mut atoms[17]);
        write(b.path(), "m05.cif", cif(&atoms).as_bytes());
        hash(b.path(), 0.0)
    };
    let same = with(|_| ());
    assert_eq!(same, hash(a.path(), 0.0));
    assert_ne!(with(|a| a.position[2] += 0.001), same);
    assert_ne!(with(|a| a.insertion = "B"), with(|a| a.number = 99));
    assert_ne!(with(|a| a.number = 99), same);
}
