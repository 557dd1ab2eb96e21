//! Files that were cut off or changed: an error with the name and how far reading came, never a panic.

use crate::{fixture, make, refused, says, try_open, written};

#[test]
fn a_cut_gzip_file_says_how_many_conformers_were_read() {
    let text = make::molecules(500, 2);
    let packed = make::gzip(text.as_bytes());
    let (_folder, path) = written("a.sdf.gz", &packed[..packed.len() - packed.len() / 4]);
    let message = refused(&path, |_| ());
    says(
        &message,
        &[
            "a.sdf.gz, structure ",
            "line ",
            "ends too early",
            "conformers had been read before",
        ],
    );
    let count: u64 = message
        .rsplit_once('(')
        .unwrap()
        .1
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!((100..1000).contains(&count), "{message}");
}

#[test]
fn a_cut_or_lying_sdf_file_names_the_line() {
    let text = make::molecules(3, 1);
    let (_folder, path) = written("a.sdf", &text.as_bytes()[..text.len() - 60]);
    says(
        &refused(&path, |_| ()),
        &[
            "a.sdf, structure 3, line ",
            "(2 conformers had been read before)",
        ],
    );
    let lies = text.replacen("  6  0  0", "  9  0  0", 1);
    let (_folder, path) = written("a.sdf", lies.as_bytes());
    says(
        &refused(&path, |_| ()),
        &["structure 1, line 11: one of 9 atoms was expected, found \"M  END\""],
    );
}

/// Pseudorandom changes of files in every format; most are seen, and none is a panic.
#[test]
fn changed_bytes_never_panic() {
    let text = make::molecules(20, 2);
    let mut files = vec![
        ("a.sdf".to_owned(), text.clone().into_bytes()),
        ("a.sdf.gz".into(), make::gzip(text.as_bytes())),
    ];
    for name in ["small.msgpack.gz", "small.pth", "small.npz"] {
        files.push((name.into(), std::fs::read(fixture(name)).unwrap()));
    }
    let mut state = 7_u64;
    let mut random = |below: usize| {
        // Knuth's MMIX generator; its high bits are good.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for (name, bytes) in files {
        let mut refusals = 0;
        for _ in 0..60 {
            let mut changed = bytes.clone();
            let at = random(changed.len());
            changed[at] ^= 1 << random(8);
            if random(4) == 0 {
                changed.truncate(at);
            }
            let (_folder, path) = written(&name, &changed);
            if let Err(message) = try_open(&path, |_| ()) {
                assert!(message.contains(&name), "{message}");
                refusals += 1;
            }
        }
        println!("{name}: {refusals} of 60 changed files were refused");
        assert!(refusals > 5);
    }
}
