//! Times training steps of EScAIP on molecule-like batches.
//!
//! `step_time` trains `6M` (2 molecules, 44 atoms) and `1M` (8 molecules, 185 atoms) and prints seconds of a step.
//! `step_time --serve --size 6M [--write-batch FILE] [--write-weights FILE]` takes turns with another program: it prints
//! `ready` and answers `step`, `predict` and `memory` on its standard input, as `benchmarks/peers/README.md` says.
//! Options: `--steps N`, `--size NAME`, `--precision f32|f64`, `--threads N`, `--loss mse|reference`, `--recipe JSON`.

#[path = "../../../../benchmarks/peers/ours/serving.rs"]
mod serving;
#[path = "../tests/support/mod.rs"]
mod support;

use equivbench_abi::descriptor::ModelRequest;
use equivbench_escaip::Escaip;
use equivbench_plugin::{Trainer, parameters::Flat};
use equivbench_testkit::transpose;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};
use std::time::Instant;
use support::{OwnedBatch, is_transposed};

fn main() {
    let base = serving::Base::now();
    equivbench_kernels::tune_allocator();
    let options = Options::from_arguments();
    if options.serve {
        return serve(&options, base);
    }
    let sizes = options
        .size
        .as_ref()
        .map_or(vec!["6M", "1M"], |s| vec![s.as_str()]);
    for size in sizes {
        measure(size, &options);
    }
}

#[derive(Default)]
struct Options {
    serve: bool,
    size: Option<String>,
    write_batch: Option<String>,
    write_weights: Option<String>,
    steps: usize,
    threads: u64,
    precision: String,
    recipe: String,
    config: String,
}

impl Options {
    fn from_arguments() -> Self {
        let mut options = Self {
            steps: 20,
            ..Self::default()
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let mut value = || {
                arguments
                    .next()
                    .unwrap_or_else(|| panic!("{name} needs a value"))
            };
            match name.as_str() {
                "--serve" => options.serve = true,
                "--size" => options.size = Some(value()),
                "--write-batch" => options.write_batch = Some(value()),
                "--write-weights" => options.write_weights = Some(value()),
                "--steps" => options.steps = value().parse().expect("--steps needs a number"),
                "--threads" => options.threads = value().parse().expect("--threads needs a number"),
                "--precision" => options.precision = value(),
                "--loss" => options.recipe = format!("{{\"loss\": \"{}\"}}", value()),
                "--recipe" => options.recipe = value(),
                "--config" => options.config = value(),
                _ => panic!("unknown option {name}"),
            }
        }
        options
    }

    fn trainer(&self, size: &str) -> Trainer<Escaip> {
        let request = ModelRequest {
            model: "escaip".into(),
            size: size.into(),
            recipe: self.recipe.clone(),
            config: self.config.clone(),
            precision: self.precision.clone(),
            threads: self.threads,
            seed: 1,
            // 950 k molecules in batches of 64, as in the paper: the learning rate of a few steps is still warming up.
            steps_per_epoch: 14_844,
            ..ModelRequest::default()
        };
        Trainer::open(&request).unwrap_or_else(|e| panic!("{e}"))
    }
}

/// Molecules of a batch: the two shapes that were timed with the reference, and a small one.
fn molecule_sizes(size: &str) -> Vec<usize> {
    match size {
        "1M" => vec![23, 23, 23, 23, 23, 23, 23, 24],
        "nano" => vec![20; 8],
        _ => vec![22, 22],
    }
}

struct Molecules {
    positions: Vec<f64>,
    species: Vec<i64>,
    sizes: Vec<usize>,
    target: Vec<f64>,
}

impl Molecules {
    fn new(sizes: Vec<usize>) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let atoms: usize = sizes.iter().sum();
        let positions = sizes
            .iter()
            .flat_map(|&n| grow(n, &mut rng))
            .map(|x| f64::from(x as f32))
            .collect();
        let species = (0..atoms)
            .map(|_| [1, 1, 1, 6, 6, 7, 8][rng.random_range(0..7)])
            .collect();
        let target = (0..3 * atoms)
            .map(|_| f64::from(rng.random_range(-1.7f32..1.7)))
            .collect();
        Self {
            positions,
            species,
            sizes,
            target,
        }
    }

    fn batch(&self) -> OwnedBatch {
        OwnedBatch::new(&self.positions, &self.species, &self.sizes)
            .with_target(&self.target)
            .with_energy(&vec![0.0; self.sizes.len()])
    }
}

/// Atoms added one by one, 1.0 to 1.6 angstrom from one that is there and at least 1.0 from all.
fn grow(atoms: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut points: Vec<[f64; 3]> = vec![[0.0; 3]];
    while points.len() < atoms {
        let from = points[rng.random_range(0..points.len())];
        let step = [0, 1, 2].map(|_| rng.random_range(-1.6..1.6));
        let length = f64::sqrt(step.iter().map(|x| x * x).sum());
        let new = [0, 1, 2].map(|c| from[c] + step[c]);
        let far = |p: &[f64; 3]| (0..3).map(|c| (p[c] - new[c]).powi(2)).sum::<f64>() >= 1.0;
        if (1.0..1.6).contains(&length) && points.iter().all(far) {
            points.push(new);
        }
    }
    points.concat()
}

fn measure(size: &str, options: &Options) {
    let mut trainer = options.trainer(size);
    let molecules = Molecules::new(molecule_sizes(size));
    let batch = molecules.batch();
    let mut step =
        || batch.lend(|raw| trainer.train_step(raw).unwrap_or_else(|e| panic!("{e}")))[0];
    let first = (0..3).map(|_| step()).next().unwrap_or(f64::NAN);
    let cpu = user_seconds();
    let mut last = f64::NAN;
    let mut seconds: Vec<f64> = (0..options.steps)
        .map(|_| {
            let start = Instant::now();
            last = step();
            start.elapsed().as_secs_f64()
        })
        .collect();
    let cpu = (user_seconds() - cpu) / options.steps as f64;
    seconds.sort_by(f64::total_cmp);
    println!(
        "{size}: {} molecules, {} atoms; seconds of a step: median {:.4}, min {:.4}, processor {cpu:.4} ({} steps; loss {first:.4} -> {last:.4})",
        molecules.sizes.len(),
        molecules.species.len(),
        seconds[seconds.len() / 2],
        seconds[0],
        options.steps,
    );
}

/// User seconds of this process and its threads so far; 0 where /proc is missing.
fn user_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // utime is field 14, in ticks of 10 ms; the name in field 2 may hold blanks.
    let ticks = text
        .rsplit(')')
        .next()
        .and_then(|rest| rest.split_whitespace().nth(11)?.parse::<f64>().ok());
    ticks.unwrap_or(0.0) / 100.0
}

fn serve(options: &Options, base: serving::Base) {
    let size = options.size.as_deref().unwrap_or("6M");
    let mut trainer = options.trainer(size);
    let molecules = Molecules::new(molecule_sizes(size));
    if let Some(path) = &options.write_batch {
        write_batch(path, &molecules);
    }
    if let Some(path) = &options.write_weights {
        write_weights(path, &trainer);
    }
    let batch = molecules.batch();
    serving::serve(
        &mut trainer,
        |work| batch.lend(|raw| work(raw)),
        &molecules.target,
        base,
    );
}

fn floats(values: &[f64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&v| (v as f32).to_le_bytes())
        .collect()
}

fn integers(values: impl Iterator<Item = i64>) -> Vec<u8> {
    values.flat_map(i64::to_le_bytes).collect()
}

fn write_batch(path: &str, molecules: &Molecules) {
    let offsets = std::iter::once(0).chain(molecules.sizes.iter().scan(0i64, |end, &n| {
        *end += n as i64;
        Some(*end)
    }));
    let atoms = molecules.species.len();
    let arrays = [
        (
            "positions",
            Dtype::F32,
            vec![atoms, 3],
            floats(&molecules.positions),
        ),
        (
            "target",
            Dtype::F32,
            vec![atoms, 3],
            floats(&molecules.target),
        ),
        (
            "atomic_numbers",
            Dtype::I64,
            vec![atoms],
            integers(molecules.species.iter().copied()),
        ),
        (
            "offsets",
            Dtype::I64,
            vec![molecules.sizes.len() + 1],
            integers(offsets),
        ),
    ];
    write(
        path,
        &arrays.map(|(name, dtype, shape, bytes)| (name.to_owned(), dtype, shape, bytes)),
    );
}

/// Under the names of the reference and in its layout.
fn write_weights(path: &str, trainer: &Trainer<Escaip>) {
    let Flat::F32(values) = &trainer.values() else {
        panic!("weights are written from an f32 instance")
    };
    let arrays: Vec<_> = trainer
        .parameters()
        .iter()
        .zip(values)
        .map(|(parameter, values)| {
            let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            let (name, shape) = (parameter.name.clone(), parameter.shape.clone());
            if name.ends_with("attn_scalar") {
                return (name, Dtype::F32, vec![], floats(&values));
            }
            if !is_transposed(&name, &shape) {
                return (name, Dtype::F32, shape, floats(&values));
            }
            let turned = transpose(&values, shape[0], shape[1]);
            (name, Dtype::F32, vec![shape[1], shape[0]], floats(&turned))
        })
        .collect();
    write(path, &arrays);
}

fn write(path: &str, arrays: &[(String, Dtype, Vec<usize>, Vec<u8>)]) {
    let views = arrays.iter().map(|(name, dtype, shape, bytes)| {
        (
            name.clone(),
            TensorView::new(*dtype, shape.clone(), bytes).expect("shape and bytes fit"),
        )
    });
    let bytes = safetensors::serialize(views, None).expect("arrays can be written");
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{path}: {e}"));
}
