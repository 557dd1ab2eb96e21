//! Voxeliser, augmentation and grid rotations against the fixtures of the reference implementation.

use equivbench_core::{GridRotation, Rotation, VoxelAtom, euler_rotation, voxelise};
use equivbench_testkit::{Array, parity_dirs, read_arrays};
use std::{collections::BTreeMap, path::PathBuf};

/// Densities of the voxeliser that is written out in Python, and of the reference where its fixtures are there.
fn fixtures() -> Vec<BTreeMap<String, Array>> {
    let named = |ending| move |dir: &PathBuf| dir.join(format!("voxelizer.safetensors{ending}"));
    let dirs = parity_dirs("voxmol");
    let found = dirs
        .iter()
        .filter(|dir| named("")(dir).is_file() || named(".gz")(dir).is_file());
    let found: Vec<_> = found.map(|dir| read_arrays(&named("")(dir))).collect();
    assert!(!found.is_empty(), "tests/parity/voxmol has densities");
    found
}

/// Atoms of sample `b`; padding has the channel 999.
fn atoms(arrays: &BTreeMap<String, Array>, case: &str, b: usize) -> Vec<VoxelAtom> {
    let (coordinates, channels) = (
        &arrays[&format!("{case}.in.coords")],
        &arrays[&format!("{case}.in.atoms_channel")],
    );
    let n = channels.shape[1];
    (0..n)
        .map(|a| {
            (
                channels.values[b * n + a],
                &coordinates.values[3 * (b * n + a)..][..3],
            )
        })
        .filter(|(channel, _)| *channel < 999.0)
        .map(|(channel, p)| VoxelAtom {
            position: [p[0], p[1], p[2]],
            channel: channel as usize,
        })
        .collect()
}

const CASES: [(&str, usize); 4] = [
    ("g16_mol", 16),
    ("g16_probe", 16),
    ("g32_mol", 32),
    ("g64_mol", 64),
];

#[test]
fn densities_equal_the_reference_and_their_sums_the_formula() {
    fixtures().iter().for_each(compare_densities);
}

fn compare_densities(arrays: &BTreeMap<String, Array>) {
    let (mut worst, mut worst_sum, mut compared) = (0.0f64, 0.0f64, 0);
    for (case, side) in CASES {
        let sums = &arrays[&format!("{case}.out.channel_sum_f64formula")];
        let [samples, channels] = sums.shape[..] else {
            panic!("{case}: shape {:?}", sums.shape)
        };
        let points = side * side * side;
        let mut densities = vec![f64::NAN; samples * channels * points];
        for (b, density) in densities.chunks_exact_mut(channels * points).enumerate() {
            voxelise(&atoms(arrays, case, b), side, density);
        }
        for (channel, expected) in densities.chunks_exact(points).zip(&sums.values) {
            worst_sum = worst_sum
                .max((channel.iter().sum::<f64>() - expected).abs() / expected.abs().max(1.0));
        }
        let expected: Vec<(usize, f64)> = match arrays.get(&format!("{case}.out.grid")) {
            Some(grid) => grid.values.iter().copied().enumerate().collect(),
            None => {
                let index = arrays[&format!("{case}.out.probe_flat_index")].ints();
                index
                    .iter()
                    .map(|&i| i as usize)
                    .zip(
                        arrays[&format!("{case}.out.probe_value")]
                            .values
                            .iter()
                            .copied(),
                    )
                    .collect()
            }
        };
        compared += expected.len();
        worst = expected.iter().fold(worst, |worst, (i, value)| {
            worst.max((densities[*i] - value).abs())
        });
    }
    println!(
        "{compared} voxels: largest difference {worst:.1e}; sums of channels {worst_sum:.1e} relative"
    );
    // The reference computes in f32 through a logarithm: 2.3e-6 was measured between it and the formula.
    assert!(worst < 3e-6, "{worst:e}");
    // Both f64; sums over up to 262,144 voxels in different orders.
    assert!(worst_sum < 1e-12, "{worst_sum:e}");
}

#[test]
fn molecules_are_placed_as_the_reference_places_them() {
    fixtures().iter().for_each(compare_places);
}

fn compare_places(arrays: &BTreeMap<String, Array>) {
    let numbers = |name: &str| arrays[&format!("augment.{name}")].values.clone();
    let angles = numbers("in.angles_xyz");
    let rotation = euler_rotation([angles[0], angles[1], angles[2]]);
    // Entries below one, computed and stored in f32.
    assert!(
        rotation
            .0
            .as_flattened()
            .iter()
            .zip(numbers("out.rotation"))
            .all(|(a, b)| (a - b).abs() < 1e-6)
    );
    let shift: Vec<f64> = numbers("in.uniform_shift")
        .iter()
        .map(|u| (2.0 * u - 1.0) * 0.5)
        .collect();
    let (centred, turned, shifted) = (
        numbers("out.centered"),
        numbers("out.rotated"),
        numbers("out.shifted"),
    );
    let mut worst = 0.0f64;
    let atoms = numbers("in.atoms_channel")
        .iter()
        .filter(|channel| **channel < 999.0)
        .count();
    for (at, from) in centred.chunks(3).enumerate().take(atoms) {
        let found = rotation.apply([from[0], from[1], from[2]]);
        for axis in 0..3 {
            worst = worst.max((found[axis] - turned[3 * at + axis]).abs());
            worst = worst.max((found[axis] + shift[axis] - shifted[3 * at + axis]).abs());
        }
    }
    println!("{atoms} atoms: largest difference {worst:.1e} angstrom");
    // Coordinates of some ångströms in f32, through a mean, a product and a sum.
    assert!(worst < 3e-6, "{worst:e}");
}

#[test]
fn grids_rotate_as_the_tables_say() {
    fixtures().iter().for_each(compare_tables);
}

fn compare_tables(arrays: &BTreeMap<String, Array>) {
    let matrices = &arrays["rot.matrices"].values;
    let rotations: Vec<Rotation> = matrices
        .chunks_exact(9)
        .map(|m| Rotation([0, 3, 6].map(|row| [m[row], m[row + 1], m[row + 2]])))
        .collect();
    assert_eq!(rotations.len(), 24);
    for side in [2, 4, 5] {
        let tables = &arrays[&format!("rot.gather_g{side}")];
        for (rotation, table) in rotations
            .iter()
            .zip(tables.ints().chunks_exact(side * side * side))
        {
            let from: Vec<f64> = (0..table.len()).map(|i| i as f64).collect();
            let mut to = vec![f64::NAN; from.len()];
            GridRotation::new(rotation, side)
                .unwrap()
                .rotate(&from, &mut to);
            assert!(
                to.iter()
                    .zip(table)
                    .all(|(found, source)| *found == *source as f64),
                "side {side}, {rotation:?}"
            );
        }
    }
    let at = |r: &Rotation| {
        rotations
            .iter()
            .position(|known| known.distance(r) == 0.0)
            .unwrap() as i64
    };
    for (i, a) in rotations.iter().enumerate() {
        assert_eq!(at(&a.inverse()), arrays["rot.inverse"].ints()[i]);
        for (j, b) in rotations.iter().enumerate() {
            assert_eq!(at(&a.compose(b)), arrays["rot.product"].ints()[24 * i + j]);
        }
    }
}
