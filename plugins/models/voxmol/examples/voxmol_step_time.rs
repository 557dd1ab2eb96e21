//! Times training steps and predictions of VoxMol on synthetic density grids.
//!
//! `voxmol_step_time [SIZE [BATCH GRID]]` trains (`7M`, 4 samples on grids of side 32 by default; 8 of 16 for `nano`) and prints
//! seconds of a step. `voxmol_step_time --serve --size 7M [--write-problem FILE]` takes turns with another program: it prints `ready`
//! and answers `step`, `predict` and `memory` on its standard input, as `benchmarks/peers/README.md` says; `FILE` holds its weights and
//! its batch under the names and in the layout of the reference implementation.
//!
//! Options: `--steps N`, `--size NAME`, `--batch N`, `--grid N`, `--predict N` (predictions of N samples at once instead of steps),
//! `--dropout P` (0 by default, so that two programs can compare losses), `--precision f32|f64`, `--threads N`, `--recipe JSON`,
//! `--config JSON`.

#[path = "../../../../benchmarks/peers/ours/serving.rs"]
mod serving;
#[path = "../tests/support/mod.rs"]
mod support;

use equivbench_abi::{Weights, descriptor::ModelRequest};
use equivbench_plugin::{Trainer, parameters::Flat};
use equivbench_voxmol::{Voxmol, VoxmolConfig};
use safetensors::{Dtype, tensor::TensorView};
use std::{collections::HashMap, time::Instant};
use support::{Grids, OwnedBatch, noisy_blobs};

fn main() {
    let base = serving::Base::now();
    equivbench_kernels::tune_allocator();
    let options = Options::from_arguments();
    if options.serve {
        return serve(&options, base);
    }
    measure(&options);
}

#[derive(Default)]
struct Options {
    serve: bool,
    size: String,
    batch: Option<usize>,
    grid: Option<usize>,
    predict: Option<usize>,
    write_problem: Option<String>,
    steps: usize,
    dropout: f64,
    threads: u64,
    precision: String,
    recipe: String,
    config: String,
}

impl Options {
    fn from_arguments() -> Self {
        let mut options = Self {
            steps: 10,
            size: "7M".into(),
            ..Self::default()
        };
        let mut arguments = std::env::args().skip(1);
        let mut plain = 0;
        while let Some(name) = arguments.next() {
            if !name.starts_with("--") {
                options.take_plain(plain, name);
                plain += 1;
                continue;
            }
            let mut value = || {
                arguments
                    .next()
                    .unwrap_or_else(|| panic!("{name} needs a value"))
            };
            match name.as_str() {
                "--serve" => options.serve = true,
                "--size" => options.size = value(),
                "--batch" => options.batch = Some(number(&name, &value())),
                "--grid" => options.grid = Some(number(&name, &value())),
                "--predict" => options.predict = Some(number(&name, &value())),
                "--write-problem" => options.write_problem = Some(value()),
                "--steps" => options.steps = number(&name, &value()),
                "--threads" => options.threads = number(&name, &value()),
                "--dropout" => options.dropout = number(&name, &value()),
                "--precision" => options.precision = value(),
                "--recipe" => options.recipe = value(),
                "--config" => options.config = value(),
                _ => panic!("unknown option {name}"),
            }
        }
        options
    }

    fn take_plain(&mut self, place: usize, value: String) {
        match place {
            0 => self.size = value,
            1 => self.batch = Some(number("BATCH", &value)),
            2 => self.grid = Some(number("GRID", &value)),
            _ => panic!("{value} is one argument too many"),
        }
    }

    fn side(&self) -> usize {
        self.grid
            .unwrap_or(if self.size == "nano" { 16 } else { 32 })
    }

    fn trainer(&self) -> Trainer<Voxmol> {
        let given = if self.config.is_empty() {
            "{}"
        } else {
            &self.config
        };
        let mut config: serde_json::Value =
            serde_json::from_str(given).unwrap_or_else(|e| panic!("--config: {e}"));
        if config.get("dropout").is_none() {
            config["dropout"] = self.dropout.into();
        }
        config["grid"] = self.side().into();
        let request = ModelRequest {
            model: "voxmol".into(),
            size: self.size.clone(),
            recipe: self.recipe.clone(),
            config: config.to_string(),
            precision: self.precision.clone(),
            threads: self.threads,
            seed: 1,
            steps_per_epoch: 1,
            ..ModelRequest::default()
        };
        Trainer::open(&request).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Noisy grids and the clean ones, with as many channels as the model has elements.
    fn problem(&self, samples: usize, config: &VoxmolConfig) -> (Grids, Grids) {
        noisy_blobs(samples, config.elements, self.side(), 7)
    }

    fn batch_size(&self) -> usize {
        self.batch
            .unwrap_or(if self.size == "nano" { 8 } else { 4 })
    }
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> N {
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name} needs a number, not {value}"))
}

fn with_target((noisy, clean): &(Grids, Grids)) -> OwnedBatch {
    noisy.batch().with_grids("target", clean)
}

fn measure(options: &Options) {
    let start = Instant::now();
    let mut trainer = options.trainer();
    println!(
        "{}: opened in {:.2} s",
        options.size,
        start.elapsed().as_secs_f64()
    );
    let problem = options.problem(
        options.predict.unwrap_or(options.batch_size()),
        trainer.model().config(),
    );
    let (what, batch) = if options.predict.is_some() {
        ("prediction", problem.0.batch())
    } else {
        ("step", with_target(&problem))
    };
    let mut figure = f64::NAN;
    let mut work = || {
        figure = batch.lend(|raw| match options.predict {
            Some(_) => trainer
                .predict(raw, Weights::Raw)
                .unwrap_or_else(|e| panic!("{e}"))
                .into_data()
                .iter::<f64>()
                .sum(),
            None => trainer.train_step(raw).unwrap_or_else(|e| panic!("{e}"))[0],
        });
        figure
    };
    let first = work();
    work();
    let cpu = user_seconds();
    let timed = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    let mut seconds: Vec<f64> = (0..options.steps).map(timed).collect();
    let cpu = (user_seconds() - cpu) / options.steps as f64;
    seconds.sort_by(f64::total_cmp);
    println!(
        "{}: {} grids of side {}; seconds of a {what}: median {:.4}, min {:.4}, processor {cpu:.4} ({} times; {first:.3e} -> {figure:.3e}; \
         peak {:.2} GiB)",
        options.size,
        problem.0.samples,
        problem.0.side,
        seconds[seconds.len() / 2],
        seconds[0],
        options.steps,
        peak_gib(),
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

/// Most memory that this process had so far; 0 where /proc is missing.
fn peak_gib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.unwrap_or(0.0) / f64::from(1 << 20)
}

fn serve(options: &Options, base: serving::Base) {
    let mut trainer = options.trainer();
    let problem = options.problem(options.batch_size(), trainer.model().config());
    if let Some(path) = &options.write_problem {
        write_problem(path, &trainer, &problem);
    }
    let batch = with_target(&problem);
    serving::serve(
        &mut trainer,
        |work| batch.lend(|raw| work(raw)),
        &problem.1.values,
        base,
    );
}

/// Name, shape and bytes of an array of a file.
type Array = (String, Vec<usize>, Vec<u8>);

/// Weights as `w.NAME`, the batch as `in.noisy` and `in.target`, sizes in the metadata.
fn write_problem(path: &str, trainer: &Trainer<Voxmol>, (noisy, clean): &(Grids, Grids)) {
    let Flat::F32(values) = &trainer.values() else {
        panic!("weights are written from an f32 instance")
    };
    let pairs = trainer.parameters().iter().zip(values);
    let mut arrays: Vec<Array> = pairs
        .map(|(p, v)| {
            (
                format!("w.{}", p.name),
                p.shape.clone(),
                bytemuck::cast_slice(v).to_vec(),
            )
        })
        .collect();
    for (name, grids) in [("in.noisy", noisy), ("in.target", clean)] {
        let bytes = grids
            .values
            .iter()
            .flat_map(|&v| (v as f32).to_le_bytes())
            .collect();
        arrays.push((name.into(), grids.shape().to_vec(), bytes));
    }
    write(path, &arrays, &sizes_of_peer(trainer.model().config()));
}

/// The sizes in the words of the other program.
fn sizes_of_peer(config: &VoxmolConfig) -> serde_json::Value {
    serde_json::json!({
        "elements": config.elements, "width": config.width, "multipliers": config.multipliers, "attention": config.attention,
        "blocks": config.blocks, "groups": config.groups, "dropout": config.dropout, "grid": config.grid,
    })
}

fn write(path: &str, arrays: &[Array], sizes: &serde_json::Value) {
    let views = arrays.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).expect("shape and bytes fit");
        (name.clone(), view)
    });
    let metadata = HashMap::from([("config".to_owned(), sizes.to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata)).expect("arrays can be written");
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{path}: {e}"));
}
