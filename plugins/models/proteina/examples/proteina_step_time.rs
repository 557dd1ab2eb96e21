//! Times training steps and predictions of Proteina on synthetic C-alpha traces.
//!
//! `proteina_step_time [SIZE [CHAINS RESIDUES]]` trains (`60M`, 3 chains of 128 residues by default; 4 of 70 for `nano`) and prints
//! seconds of a step. `proteina_step_time --serve --size 60M [--write-problem FILE]` takes turns with another program: it prints
//! `ready` and answers `step`, `predict` and `memory` on its standard input, as `benchmarks/peers/README.md` says; `FILE` holds its
//! weights and its batch under the names and in the layout of the reference implementation.
//!
//! Options: `--steps N`, `--size NAME`, `--chains N`, `--residues N`, `--predict N` (predictions of N chains at once instead of
//! steps), `--self-conditioning P` (share of steps with a first prediction; 0 by default), `--precision f32|f64`, `--threads N`,
//! `--recipe JSON`, `--config JSON`.

#[path = "../../../../benchmarks/peers/ours/serving.rs"]
mod serving;
#[path = "../tests/support/mod.rs"]
mod support;

use equivbench_abi::{Weights, descriptor::ModelRequest};
use equivbench_plugin::{Trainer, parameters::Flat};
use equivbench_proteina::{Proteina, ProteinaConfig};
use equivbench_testkit::transpose;
use safetensors::{Dtype, tensor::TensorView};
use std::{collections::HashMap, time::Instant};
use support::{Chains, OwnedBatch, is_transposed, noisy_chains};

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
    chains: Option<usize>,
    residues: Option<usize>,
    predict: Option<usize>,
    write_problem: Option<String>,
    steps: usize,
    self_conditioning: f64,
    threads: u64,
    precision: String,
    recipe: String,
    config: String,
}

impl Options {
    fn from_arguments() -> Self {
        let mut options = Self {
            steps: 10,
            size: "60M".into(),
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
                "--chains" => options.chains = Some(number(&name, &value())),
                "--residues" => options.residues = Some(number(&name, &value())),
                "--predict" => options.predict = Some(number(&name, &value())),
                "--write-problem" => options.write_problem = Some(value()),
                "--steps" => options.steps = number(&name, &value()),
                "--threads" => options.threads = number(&name, &value()),
                "--self-conditioning" => options.self_conditioning = number(&name, &value()),
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
            1 => self.chains = Some(number("CHAINS", &value)),
            2 => self.residues = Some(number("RESIDUES", &value)),
            _ => panic!("{value} is one argument too many"),
        }
    }

    fn trainer(&self) -> Trainer<Proteina> {
        let given = if self.config.is_empty() {
            "{}"
        } else {
            &self.config
        };
        let mut config: serde_json::Value =
            serde_json::from_str(given).unwrap_or_else(|e| panic!("--config: {e}"));
        if config.get("self_conditioning_probability").is_none() {
            config["self_conditioning_probability"] = self.self_conditioning.into();
        }
        let request = ModelRequest {
            model: "proteina".into(),
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

    /// Chains of one length at flow times that differ, and their velocities.
    fn problem(&self, chains: usize) -> (Chains, Vec<f64>) {
        let residues = self
            .residues
            .unwrap_or(if self.size == "nano" { 70 } else { 128 });
        let times: Vec<f64> = (0..chains)
            .map(|k| f64::from((0.2 + 0.7 * k as f64 / chains as f64) as f32))
            .collect();
        noisy_chains(&vec![residues; chains], &times, 7)
    }

    fn batch_size(&self) -> usize {
        self.chains
            .unwrap_or(if self.size == "nano" { 4 } else { 3 })
    }
}

fn number<N: std::str::FromStr>(name: &str, value: &str) -> N {
    value
        .parse()
        .unwrap_or_else(|_| panic!("{name} needs a number, not {value}"))
}

fn with_target((chains, target): &(Chains, Vec<f64>)) -> OwnedBatch {
    chains.batch().with_cloud("target", target)
}

fn measure(options: &Options) {
    let start = Instant::now();
    let mut trainer = options.trainer();
    println!(
        "{}: opened in {:.2} s",
        options.size,
        start.elapsed().as_secs_f64()
    );
    let problem = options.problem(options.predict.unwrap_or(options.batch_size()));
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
        "{}: {} chains of {} residues; seconds of a {what}: median {:.4}, min {:.4}, processor {cpu:.4} ({} times; {first:.3} -> {figure:.3})",
        options.size,
        problem.0.sizes.len(),
        problem.0.sizes[0],
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
    let mut trainer = options.trainer();
    let problem = options.problem(options.batch_size());
    if let Some(path) = &options.write_problem {
        write_problem(path, &trainer, &problem);
    }
    let batch = with_target(&problem);
    serving::serve(
        &mut trainer,
        |work| batch.lend(|raw| work(raw)),
        &problem.1,
        base,
    );
}

/// Name, element type, shape and bytes of an array of a file.
type Array = (String, Dtype, Vec<usize>, Vec<u8>);

fn floats(values: &[f64]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|&v| (v as f32).to_le_bytes())
        .collect()
}

/// Weights as `w.NAME`, the batch as `in.NAME`, sizes in the metadata.
fn write_problem(path: &str, trainer: &Trainer<Proteina>, (chains, target): &(Chains, Vec<f64>)) {
    let mut arrays = weights(trainer);
    let (count, n) = (chains.sizes.len(), chains.sizes[0]);
    let mut add = |name: &str, dtype, shape: &[usize], bytes| {
        arrays.push((format!("in.{name}"), dtype, shape.to_vec(), bytes))
    };
    add("x_t", Dtype::F32, &[count, n, 3], floats(&chains.positions));
    add("target", Dtype::F32, &[count, n, 3], floats(target));
    add("t", Dtype::F32, &[count], floats(&chains.flow_time));
    add(
        "mask",
        Dtype::F32,
        &[count, n],
        floats(&vec![1.0; count * n]),
    );
    let breaks: Vec<f64> = chains.chain_break.iter().map(|&b| b as f64).collect();
    add(
        "chain_breaks_per_residue",
        Dtype::F32,
        &[count, n],
        floats(&breaks),
    );
    add(
        "residue_pdb_idx",
        Dtype::I64,
        &[count, n],
        chains
            .residue_index
            .iter()
            .flat_map(|k| k.to_le_bytes())
            .collect(),
    );
    write(path, &arrays, &sizes_of_peer(trainer.model().config()));
}

/// Under the names of the reference and in its layout.
fn weights(trainer: &Trainer<Proteina>) -> Vec<Array> {
    let Flat::F32(values) = &trainer.values() else {
        panic!("weights are written from an f32 instance")
    };
    let pairs = trainer.parameters().iter().zip(values);
    pairs
        .map(|(parameter, values)| {
            let (name, shape) = (format!("w.{}", parameter.name), parameter.shape.clone());
            let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
            if !is_transposed(&parameter.name, &shape) {
                return (name, Dtype::F32, shape, floats(&values));
            }
            let turned = transpose(&values, shape[0], shape[1]);
            (name, Dtype::F32, vec![shape[1], shape[0]], floats(&turned))
        })
        .collect()
}

/// The sizes in the words of the other program.
fn sizes_of_peer(config: &ProteinaConfig) -> serde_json::Value {
    let last = ["self_conditioning", "chain_break"];
    let order = if config.chain_break_first {
        [last[1], last[0]]
    } else {
        last
    };
    serde_json::json!({
        "token_width": config.token_width, "layers": config.layers, "heads": config.heads,
        "conditioning_width": config.conditioning_width, "pair_width": config.pair_width, "triangle_width": config.triangle_width,
        "time_width": config.time_width, "index_width": config.index_width, "fold_width": config.fold_width,
        "position_bins": config.position_bins, "self_conditioning_bins": config.self_conditioning_bins,
        "sequence_separation_bins": config.sequence_separation_bins, "registers": config.registers,
        "distogram_bins": config.distogram_bins, "update_every": config.update_every,
        "position_range_nm": [config.position_from_nm, config.position_to_nm],
        "self_conditioning_range_nm": [config.self_conditioning_from_nm, config.self_conditioning_to_nm],
        "distogram_max_nm": config.distogram_to_nm, "token_features": ["index", order[0], order[1]],
    })
}

fn write(path: &str, arrays: &[Array], sizes: &serde_json::Value) {
    let views = arrays.iter().map(|(name, dtype, shape, bytes)| {
        (
            name.clone(),
            TensorView::new(*dtype, shape.clone(), bytes).expect("shape and bytes fit"),
        )
    });
    let metadata = HashMap::from([("config".to_owned(), sizes.to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata)).expect("arrays can be written");
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("{path}: {e}"));
}
