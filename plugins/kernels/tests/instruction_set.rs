//! Matrix products follow the instruction set that a process has chosen, those of Burn as well as those of the kernels. A process chooses
//! once, so each set is tried in a child.

use burn::tensor::{Device, Tensor};
use equivbench_kernels::{
    affine,
    instruction_set::{InstructionSet, choose},
    product_set,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::process::Command;

/// Names the set to a child.
const VARIABLE: &str = "EQUIVBENCH_TEST_INSTRUCTION_SET";
/// Rows, columns and terms of a product: few enough terms that no cache cuts the sum, and sides that no vector divides.
const SIZES: [usize; 3] = [19, 21, 37];

fn numbers(count: usize, draws: &mut ChaCha8Rng) -> Vec<f32> {
    (0..count)
        .map(|_| (draws.next_u32() >> 8) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

/// `a b`, each element one sum in the order of its terms: with one rounding for each term, or with two.
fn product(a: &[f32], b: &[f32], fused: bool) -> Vec<f32> {
    let [rows, columns, terms] = SIZES;
    let element = |at: usize| {
        let (row, column) = (at / columns, at % columns);
        (0..terms).fold(0.0_f32, |sum, k| {
            let (x, y) = (a[row * terms + k], b[k * columns + column]);
            if fused {
                x.mul_add(y, sum)
            } else {
                x * y + sum
            }
        })
    };
    (0..rows * columns).map(element).collect()
}

#[test]
#[ignore = "run by another test, as a process chooses once"]
fn multiplies_in_the_set_of_the_environment() {
    let Ok(name) = std::env::var(VARIABLE) else {
        return;
    };
    let set = choose(&name).unwrap();
    let mut draws = ChaCha8Rng::seed_from_u64(3);
    let [rows, columns, terms] = SIZES;
    let (a, b) = (
        numbers(rows * terms, &mut draws),
        numbers(terms * columns, &mut draws),
    );
    let device = Device::flex();
    let tensor = |values: &[f32], shape: [usize; 2]| {
        Tensor::<1>::from_floats(values, &device).reshape(shape)
    };
    let (left, right) = (tensor(&a, [rows, terms]), tensor(&b, [terms, columns]));
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    // Plain loops of `gemm` round a product before they add it, the others fuse the two.
    let expected = product(&a, &b, set != InstructionSet::Plain);
    assert_ne!(
        bits(&expected),
        bits(&product(&a, &b, set == InstructionSet::Plain)),
        "the oracle tells the sets apart"
    );
    let burn: Vec<f32> = left
        .clone()
        .matmul(right.clone())
        .into_data()
        .try_to_vec::<f32>()
        .unwrap();
    assert_eq!(bits(&burn), bits(&expected), "Burn, {name}");
    let zero = Tensor::<1>::zeros([columns], &device);
    let ours: Vec<f32> = affine(left, (right, zero))
        .into_data()
        .try_to_vec::<f32>()
        .unwrap();
    assert_eq!(bits(&ours), bits(&expected), "kernels, {name}");
    assert_eq!(product_set(), Some(set));
}

#[cfg(target_arch = "x86_64")]
#[test]
fn products_follow_every_set_that_the_processor_has() {
    let there = |set: &InstructionSet| set.lacks().is_empty();
    for set in InstructionSet::ALL.into_iter().filter(there) {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "multiplies_in_the_set_of_the_environment"])
            .args(["--ignored", "--nocapture"])
            .env(VARIABLE, set.name())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{}: {text}{}",
            set.name(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn products_follow_a_process_that_chose_nothing() {
    assert_eq!(product_set(), Some(InstructionSet::widest()));
}
