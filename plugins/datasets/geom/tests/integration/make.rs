//! Files that tests write: molecules as SDF, also compressed.

use std::io::Write;

/// Symbol and position (Å).
pub(crate) type Atom = (&'static str, [f64; 3]);

/// Methanol, moved along x by a hundredth of a number, so that two numbers give two conformers.
pub(crate) fn methanol(number: usize) -> Vec<Atom> {
    [
        ("C", [-0.0503, 0.6685, 0.0]),
        ("O", [-0.0503, -0.7585, 0.0]),
        ("H", [-1.0807, 1.0417, 0.0]),
        ("H", [0.4650, 1.0417, 0.8924]),
        ("H", [0.4650, 1.0417, -0.8924]),
        ("H", [0.8544, -1.0417, 0.0]),
    ]
    .map(|(symbol, [x, y, z])| (symbol, [x + 0.01 * number as f64, y, z]))
    .to_vec()
}

/// A structure without bonds and a title; fields may follow.
pub(crate) fn record(title: &str, atoms: &[Atom], fields: &str) -> String {
    let rows: String = atoms
        .iter()
        .map(|(s, [x, y, z])| format!("{x:10.4}{y:10.4}{z:10.4} {s:<3} 0  0\n"))
        .collect();
    format!(
        "{title}\n  test\n\n{:3}  0  0  0  0  0            999 V2000\n{rows}M  END\n{fields}$$$$\n",
        atoms.len()
    )
}

/// Structures named m0, m1, ... with some conformers each.
pub(crate) fn molecules(molecules: usize, conformers: usize) -> String {
    let one = |i: usize| record(&format!("m{}", i / conformers), &methanol(i), "");
    (0..molecules * conformers).map(one).collect()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
