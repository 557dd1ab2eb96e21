//! Parity with the reference implementation: every tensor, gradient and optimiser step of the fixtures.
//!
//! Reads every `NAME.config.json` + `NAME.safetensors` (plain or `.gz`) in `tests/parity/escaip`, which our own PyTorch wrote, and in
//! the directories of `EQUIVBENCH_PARITY` (a path list), by default `parity/escaip` of the shared data, which the reference wrote.
//! `--nocapture` shows the largest deviation of each quantity.

mod support;

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use equivbench_abi::{Weights, descriptor::ModelRequest};
use equivbench_escaip::{Escaip, EscaipConfig, NoteRows, Trace};
use equivbench_plugin::{
    Batch, ModelPlugin, Precision, Trainer,
    parameters::{self, Flat, Gradients},
};
use equivbench_testkit::{Array, Deviations, largest, read_arrays, transpose};
use std::{collections::BTreeMap, path::Path};
use support::{OwnedBatch, is_transposed};

/// What rounding leaves: measured f64 deviations are near 1e-14, f32 ones near 1e-6 (the reference's own f32 run differs from
/// its f64 run by up to 7e-6 in intermediate tensors and 1e-5 in gradients).
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F64 => 1e-10,
        Precision::F32 | Precision::Bf16 => 1e-4,
    }
}

/// Deviations within what rounding may leave in a precision.
struct Report {
    precision: Precision,
    deviations: Deviations,
}

impl Report {
    fn new(fixture: &Fixture, precision: Precision) -> Self {
        Self {
            precision,
            deviations: Deviations::new(format!("{} {precision:?}", fixture.name)),
        }
    }

    /// Compares with a tensor of the fixture: largest deviation over the largest value of the tensor.
    fn compare(&mut self, quantity: &str, name: &str, ours: &[f64], theirs: &[f64]) {
        self.compare_within(tolerance(self.precision), quantity, name, ours, theirs);
    }

    fn compare_within(
        &mut self,
        tolerance: f64,
        quantity: &str,
        name: &str,
        ours: &[f64],
        theirs: &[f64],
    ) {
        self.compare_scaled(tolerance, 0.0, quantity, name, ours, theirs);
    }

    /// As [`Self::compare`], over at least `least`.
    fn compare_scaled(
        &mut self,
        tolerance: f64,
        least: f64,
        quantity: &str,
        name: &str,
        ours: &[f64],
        theirs: &[f64],
    ) {
        let scale = largest(theirs).max(least);
        let scale = if scale > 0.0 { scale } else { 1.0 };
        self.deviations
            .compare([scale, tolerance], quantity, name, ours, theirs);
    }

    fn print(&self) {
        self.deviations.print();
    }
}

struct Fixture {
    name: String,
    about: serde_json::Value,
    arrays: BTreeMap<String, Array>,
}

impl Fixture {
    /// `None` for fixtures of other models.
    fn read(config: &Path) -> Option<Self> {
        let name = config
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".config.json")
            .to_owned();
        let about: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(config).unwrap()).unwrap();
        about["config"]["atten_num_heads"].as_u64()?;
        let arrays = read_arrays(&config.with_file_name(format!("{name}.safetensors")));
        Some(Self {
            name,
            about,
            arrays,
        })
    }

    fn get(&self, name: &str) -> &Array {
        self.arrays
            .get(name)
            .unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }

    fn values(&self, name: &str) -> &[f64] {
        &self.get(name).values
    }

    fn scalar(&self, name: &str) -> f64 {
        self.values(name)[0]
    }

    /// The configuration in our words.
    fn config(&self) -> EscaipConfig {
        let theirs = &self.about["config"];
        let size = |key: &str| {
            theirs[key]
                .as_u64()
                .unwrap_or_else(|| panic!("config has no {key}")) as usize
        };
        let number = |key: &str| {
            theirs[key]
                .as_f64()
                .unwrap_or_else(|| panic!("config has no {key}"))
        };
        EscaipConfig::new(
            size("hidden_size"),
            size("atten_num_heads"),
            size("num_layers"),
        )
        .with_atom_embedding(size("atom_embedding_size"))
        .with_elements(size("max_num_elements"))
        .with_radial_functions(size("edge_distance_expansion_size"))
        .with_radial_embedding(size("edge_distance_embedding_size"))
        .with_boo_orders(size("node_direction_expansion_size"))
        .with_boo_embedding(size("node_direction_embedding_size"))
        .with_cutoff(number("max_radius"))
        .with_neighbours(size("max_neighbors"))
        .with_block_multiplier(size("ffn_hidden_layer_multiplier"))
        .with_readout_multiplier(size("readout_hidden_layer_multiplier"))
        .with_output_multiplier(size("output_hidden_layer_multiplier"))
        .with_attention_dropout(number("atten_dropout"))
        .with_mlp_dropout(number("mlp_dropout"))
        .with_stochastic_depth(number("stochastic_depth_prob"))
    }

    fn sizes(&self) -> Vec<usize> {
        self.get("in.natoms")
            .ints()
            .into_iter()
            .map(|n| n as usize)
            .collect()
    }

    fn batch_at(&self, positions: &[f64]) -> OwnedBatch {
        OwnedBatch::new(
            positions,
            &self.get("in.atomic_numbers").ints(),
            &self.sizes(),
        )
    }

    fn batch(&self) -> OwnedBatch {
        self.batch_at(self.values("in.positions"))
            .with_target(self.values("in.target"))
            .with_energy(self.values("in.target_energy"))
    }

    fn rotations(&self) -> Vec<[[f64; 3]; 3]> {
        let matrix = |m: &[f64]| [[m[0], m[1], m[2]], [m[3], m[4], m[5]], [m[6], m[7], m[8]]];
        self.values("in.rotations")
            .chunks_exact(9)
            .map(matrix)
            .collect()
    }

    /// A trainer with the weights of the fixture.
    fn trainer(&self, precision: Precision, recipe: &str) -> Trainer<Escaip> {
        let precision_name = if precision == Precision::F64 {
            "f64"
        } else {
            "f32"
        };
        let request = ModelRequest {
            model: "escaip".into(),
            size: "nano".into(),
            config: serde_json::to_string(&self.config()).unwrap(),
            recipe: recipe.into(),
            precision: precision_name.into(),
            steps_per_epoch: 1,
            ..ModelRequest::default()
        };
        let mut trainer = Trainer::<Escaip>::open(&request).unwrap();
        let weights = trainer
            .parameters()
            .iter()
            .map(|p| ours(&p.name, &p.shape, self.get(&format!("w.{}", p.name))));
        let named = self.arrays.keys().filter(|k| k.starts_with("w.")).count();
        assert_eq!(
            weights.len(),
            named,
            "{}: every weight of the fixture has a place",
            self.name
        );
        let flat = match precision {
            Precision::F64 => Flat::F64(weights.collect()),
            Precision::F32 | Precision::Bf16 => Flat::F32(
                weights
                    .map(|w| w.into_iter().map(|v| v as f32).collect())
                    .collect(),
            ),
        };
        trainer.restart_from(flat);
        trainer
    }
}

/// A parameter of the reference in our layout.
fn ours(name: &str, shape: &[usize], theirs: &Array) -> Vec<f64> {
    if !is_transposed(name, shape) {
        assert_eq!(
            theirs.values.len(),
            shape.iter().product::<usize>(),
            "{name}"
        );
        return theirs.values.clone();
    }
    assert_eq!(theirs.shape, [shape[1], shape[0]], "{name}");
    transpose(&theirs.values, shape[1], shape[0])
}

fn flat(values: &Flat, index: usize) -> Vec<f64> {
    match values {
        Flat::F64(v) => v[index].clone(),
        Flat::F32(v) => v[index].iter().map(|&x| f64::from(x)).collect(),
    }
}

fn numbers(x: Tensor<2>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

fn fixtures() -> Vec<Fixture> {
    equivbench_testkit::fixtures("escaip", Fixture::read)
}

fn for_each_fixture(check: impl Fn(&Fixture, Precision)) {
    for fixture in fixtures() {
        for precision in [Precision::F64, Precision::F32] {
            check(&fixture, precision);
        }
    }
}

fn traced(trainer: &Trainer<Escaip>, batch: &OwnedBatch, precision: Precision) -> Trace {
    let device = Device::flex();
    batch.lend(|raw| {
        trainer
            .model()
            .valid()
            .trace(&Batch::new(raw, &device, precision, None).unwrap())
            .unwrap()
    })
}

/// Edge or pair rows as `[atoms, slots, width]` with zeros in empty slots.
fn padded(trace: &Trace, rows: NoteRows, width: usize, values: &[f64], slots: usize) -> Vec<f64> {
    let graph = &trace.features.graph;
    let mut out = vec![0.0; graph.atoms() * slots * width];
    for (atom, range) in graph.offsets.windows(2).enumerate() {
        for (slot, edge) in (range[0]..range[1]).enumerate() {
            let row = if rows == NoteRows::Pairs {
                graph.pairs[edge]
            } else {
                edge
            };
            let to = (atom * slots + slot) * width;
            out[to..to + width].copy_from_slice(&values[row * width..(row + 1) * width]);
        }
    }
    out
}

fn compare_neighbours(fixture: &Fixture, trace: &Trace, prefix: &str, slots: usize) {
    let graph = &trace.features.graph;
    let mut list = vec![-1; graph.atoms() * slots];
    for (atom, range) in graph.offsets.windows(2).enumerate() {
        for (slot, edge) in (range[0]..range[1]).enumerate() {
            list[atom * slots + slot] = graph.senders[edge] as i64;
        }
    }
    let mask: Vec<i64> = list.iter().map(|&j| i64::from(j >= 0)).collect();
    let name = &fixture.name;
    let theirs = fixture.get(&format!("{prefix}neighbor_mask")).ints();
    assert_eq!(mask, theirs, "{name}: {prefix}neighbor_mask");
    let used = |list: &[i64]| {
        list.iter()
            .zip(&theirs)
            .filter(|(_, m)| **m == 1)
            .map(|(j, _)| *j)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        used(&list),
        used(&fixture.get(&format!("{prefix}neighbor_list")).ints()),
        "{name}: {prefix}neighbor_list"
    );
}

#[test]
fn graph_and_intermediate_tensors_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let slots = fixture.config().neighbours;
        let trace = traced(&fixture.trainer(precision, ""), &fixture.batch(), precision);
        compare_neighbours(fixture, &trace, "mid.graph.", slots);
        let mut seen = 0;
        for note in &trace.notes {
            let name = format!("mid.{}", note.name);
            let Some(theirs) = fixture.arrays.get(&name) else {
                continue;
            };
            let values = match note.rows {
                NoteRows::Atoms => note.values.clone(),
                rows => padded(&trace, rows, note.width(), &note.values, slots),
            };
            let quantity = name
                .rsplit_once(".block")
                .map_or("graph, input, readouts", |_| "blocks");
            report.compare(quantity, &name, &values, &theirs.values);
            seen += 1;
        }
        // All but the lists compared above and C, which follows from a and u.
        let expected = fixture
            .arrays
            .keys()
            .filter(|k| k.starts_with("mid."))
            .count()
            - 3;
        assert_eq!(
            seen, expected,
            "{}: every intermediate tensor is compared",
            fixture.name
        );
        report.compare(
            "energies",
            "out.energy",
            &numbers(trace.energies.unwrap()),
            fixture.values("out.energy"),
        );
        report.compare(
            "forces",
            "out.forces",
            &numbers(trace.forces),
            fixture.values("out.forces"),
        );
        report.print();
    });
}

fn latent(trainer: &Trainer<Escaip>, batch: &OwnedBatch, precision: Precision) -> Vec<f64> {
    let device = Device::flex();
    batch.lend(|raw| {
        let batch = Batch::new(raw, &device, precision, None).unwrap();
        numbers(trainer.model().valid().latent("last", &batch).unwrap())
    })
}

#[test]
fn the_latent_is_what_the_last_block_gives_and_no_rotation_changes_it() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let trainer = fixture.trainer(precision, "");
        let own = latent(&trainer, &fixture.batch(), precision);
        let last = fixture.config().layers - 1;
        let theirs = fixture.get(&format!("mid.block{last}.out.node"));
        let [declared] = &Escaip::latents(&fixture.config())[..] else {
            panic!("one latent is declared")
        };
        assert_eq!(declared.width, [theirs.shape[1] as u64]);
        report.compare("latent", "last", &own, &theirs.values);
        if precision == Precision::F64 {
            for t in fixture.rotations() {
                let turned = fixture.batch_at(&rotate(&t, fixture.values("in.positions")));
                let of_turned = latent(&trainer, &turned, precision);
                report.compare("latent of rotated inputs", "last", &of_turned, &own);
            }
        }
        report.print();
    });
}

fn gradients(
    trainer: &Trainer<Escaip>,
    batch: &OwnedBatch,
    precision: Precision,
    loss: &str,
) -> (f64, Vec<Option<Vec<f64>>>) {
    let device = Device::flex().autodiff();
    let model = trainer.model();
    batch.lend(|raw| {
        let value = model
            .loss(loss, &Batch::new(raw, &device, precision, None).unwrap())
            .unwrap();
        let number = value.clone().into_data().iter::<f64>().next().unwrap();
        let grads = GradientsParams::from_grads(value.backward(), model);
        let found =
            match parameters::flatten_gradients(parameters::gradients(model, grads), precision) {
                Gradients::F64(g) => g,
                Gradients::F32(g) => g
                    .into_iter()
                    .map(|g| g.map(|g| g.into_iter().map(f64::from).collect()))
                    .collect(),
            };
        (number, found)
    })
}

fn norm<'a>(parts: impl Iterator<Item = &'a Vec<f64>>) -> f64 {
    parts.flatten().map(|g| g * g).sum::<f64>().sqrt()
}

#[test]
fn losses_and_the_gradient_of_every_parameter_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let trainer = fixture.trainer(precision, "");
        let without: Vec<&str> = fixture.about["no_grad_under_force_mse"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_str().unwrap())
            .collect();
        for (loss, prefix, value_name, norm_name) in [
            ("mse", "grad.", "out.loss", "out.gradnorm_loss"),
            (
                "reference",
                "gradref.",
                "out.loss_ref",
                "out.gradnorm_loss_ref",
            ),
        ] {
            let (value, found) = gradients(&trainer, &fixture.batch(), precision, loss);
            report.compare(
                &format!("loss {loss}"),
                value_name,
                &[value],
                fixture.values(value_name),
            );
            report.compare(
                &format!("gradient norm {loss}"),
                norm_name,
                &[norm(found.iter().flatten())],
                fixture.values(norm_name),
            );
            let known = || {
                fixture
                    .arrays
                    .iter()
                    .filter(|(name, _)| name.starts_with(prefix))
            };
            // A small gradient is the difference of large contributions, whose f32 rounding it inherits: the reference's own
            // f32 gradients are only good relative to the whole vector. Of all tensors one needs this, at 1.02e-4 of its own scale, which is
            // 8e-4 of the largest gradient. In f64 every tensor stands for itself.
            let share = if precision == Precision::F32 {
                1e-3
            } else {
                0.0
            };
            let least = share * known().fold(0.0f64, |m, (_, g)| m.max(largest(&g.values)));
            let mut pairs = Vec::new();
            for (parameter, gradient) in trainer.parameters().iter().zip(&found) {
                let name = format!("{prefix}{}", parameter.name);
                assert_eq!(
                    gradient.is_none(),
                    loss == "mse" && without.contains(&parameter.name.as_str()),
                    "{name}"
                );
                if let (Some(gradient), Some(theirs)) = (gradient, fixture.arrays.get(&name)) {
                    let theirs = ours(&parameter.name, &parameter.shape, theirs);
                    report.compare_scaled(
                        tolerance(precision),
                        least,
                        &format!("gradient {loss}"),
                        &name,
                        gradient,
                        &theirs,
                    );
                    pairs.push((gradient.clone(), theirs));
                }
            }
            assert_eq!(pairs.len(), known().count(), "{}: {prefix}", fixture.name);
            let apart: Vec<Vec<f64>> = pairs
                .iter()
                .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a - b).collect())
                .collect();
            let relative = norm(apart.iter()) / norm(pairs.iter().map(|p| &p.1));
            report.compare_scaled(
                tolerance(precision),
                1.0,
                &format!("gradient {loss}, whole vector"),
                prefix,
                &[relative],
                &[0.0],
            );
        }
        report.print();
    });
}

fn rotate(t: &[[f64; 3]; 3], rows: &[f64]) -> Vec<f64> {
    rows.chunks_exact(3)
        .flat_map(|x| [0, 1, 2].map(|r| (0..3).map(|c| t[r][c] * x[c]).sum::<f64>()))
        .collect()
}

fn transposed(t: &[[f64; 3]; 3]) -> [[f64; 3]; 3] {
    [0, 1, 2].map(|r| [0, 1, 2].map(|c| t[c][r]))
}

fn mean_square(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64
}

/// The blind measurement: rotate the input, predict, rotate back.
struct Measured {
    twisted: Vec<Vec<f64>>,
    twirled: Vec<f64>,
}

impl Measured {
    fn of(fixture: &Fixture, trainer: &mut Trainer<Escaip>, rotations: &[[[f64; 3]; 3]]) -> Self {
        let twist = |t: &[[f64; 3]; 3]| {
            let turned = fixture.batch_at(&rotate(t, fixture.values("in.positions")));
            let prediction =
                turned.lend(|raw| numbers(trainer.predict(raw, Weights::Raw).unwrap()));
            rotate(&transposed(t), &prediction)
        };
        let twisted: Vec<Vec<f64>> = rotations.iter().map(twist).collect();
        let sum = |k: usize| twisted.iter().map(|z| z[k]).sum::<f64>();
        let twirled = (0..twisted[0].len())
            .map(|k| sum(k) / rotations.len() as f64)
            .collect();
        Self { twisted, twirled }
    }

    /// `[L, L_mean, L_equiv]` over a range of components.
    fn losses(&self, target: &[f64], range: std::ops::Range<usize>) -> [f64; 3] {
        let average = |to: &[f64]| {
            self.twisted
                .iter()
                .map(|z| mean_square(&z[range.clone()], &to[range.clone()]))
                .sum::<f64>()
                / self.twisted.len() as f64
        };
        [
            average(target),
            mean_square(&self.twirled[range.clone()], &target[range.clone()]),
            average(&self.twirled),
        ]
    }

    /// Gradients of `[L, L_mean, L_equiv]` by products with cotangents, one prediction at a time.
    fn gradients(
        &self,
        fixture: &Fixture,
        trainer: &Trainer<Escaip>,
        rotations: &[[[f64; 3]; 3]],
        group: &str,
    ) -> [Vec<f64>; 3] {
        let target = fixture.values("in.target");
        let scale = 2.0 / (target.len() * rotations.len()) as f64;
        let mut sums: [Vec<f64>; 3] = Default::default();
        for (t, z) in rotations.iter().zip(&self.twisted) {
            let turned = fixture.batch_at(&rotate(t, fixture.values("in.positions")));
            let apart = |a: &[f64], b: &[f64]| {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| scale * (a - b))
                    .collect::<Vec<_>>()
            };
            let cotangents = [
                apart(z, target),
                apart(&self.twirled, target),
                apart(z, &self.twirled),
            ];
            for (sum, cotangent) in sums.iter_mut().zip(cotangents) {
                let product =
                    turned.lend(|raw| trainer.vjp(raw, rotate(t, &cotangent), group).unwrap());
                let count = match &product {
                    Flat::F64(v) => v.len(),
                    Flat::F32(v) => v.len(),
                };
                let part: Vec<f64> = (0..count).flat_map(|k| flat(&product, k)).collect();
                sum.resize(part.len(), 0.0);
                sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
            }
        }
        sums
    }
}

const NAMES: [&str; 3] = ["L", "L_mean", "L_equiv"];

#[test]
fn twisted_predictions_and_the_plug_in_decomposition_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let mut trainer = fixture.trainer(precision, "");
        let (rotations, target) = (fixture.rotations(), fixture.values("in.target"));
        let measured = Measured::of(fixture, &mut trainer, &rotations);
        report.compare(
            "twisted",
            "out.twisted",
            &measured.twisted.concat(),
            fixture.values("out.twisted"),
        );
        report.compare(
            "twirled",
            "out.twirled",
            &measured.twirled,
            fixture.values("out.twirled"),
        );
        let pooled = measured.losses(target, 0..target.len());
        let mut permol = [0.0; 3];
        let mut first = 0;
        for atoms in fixture.sizes() {
            let losses = measured.losses(target, 3 * first..3 * (first + atoms));
            (0..3).for_each(|k| permol[k] += losses[k] / fixture.sizes().len() as f64);
            first += atoms;
        }
        let all = measured.gradients(fixture, &trainer, &rotations, "all");
        let head = measured.gradients(fixture, &trainer, &rotations, "head");
        for (k, name) in NAMES.iter().enumerate() {
            report.compare(
                "L, L_mean, L_equiv",
                name,
                &[pooled[k]],
                fixture.values(&format!("out.{name}")),
            );
            report.compare(
                "L per molecule",
                name,
                &[permol[k]],
                fixture.values(&format!("out.permol_{name}")),
            );
            report.compare(
                "gradient norms of L",
                name,
                &[norm([&all[k]].into_iter())],
                fixture.values(&format!("out.gradnorm_{name}")),
            );
            report.compare(
                "head gradient of L",
                name,
                &in_reference_order(fixture, &head[k]),
                fixture.values(&format!("out.grad_{name}.head")),
            );
        }
        report.print();
    });
}

/// The head group, flattened in our layout, as the fixture flattens it.
fn in_reference_order(fixture: &Fixture, head: &[f64]) -> Vec<f64> {
    let mut rest = head;
    let mut out = Vec::new();
    for parameter in fixture.about["hessian_params"].as_array().unwrap() {
        let shape: Vec<usize> = parameter["shape"]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap() as usize)
            .collect();
        let (part, tail) = rest.split_at(shape.iter().product());
        match shape[..] {
            [rows, columns] => out.extend(transpose(part, columns, rows)),
            _ => out.extend(part),
        }
        rest = tail;
    }
    out
}

#[test]
fn exact_averages_equal_the_reference_and_the_measurement_over_the_cube_group() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let mut trainer = fixture.trainer(precision, "");
        let (target, atoms) = (
            fixture.values("in.target"),
            fixture.values("in.target").len() / 3,
        );
        let device = Device::flex();
        let exact = fixture.batch().lend(|raw| {
            trainer
                .model()
                .valid()
                .exact_twirl(&Batch::new(raw, &device, precision, None).unwrap())
                .unwrap()
        });
        let (mu, variances) = exact.split_at(3 * atoms);
        report.compare(
            "exact mu",
            "out.exact.mu",
            mu,
            fixture.values("out.exact.mu"),
        );
        let loss_equiv = variances.iter().sum::<f64>() / (3 * atoms) as f64;
        let loss_mean = mean_square(mu, target);
        for (name, value) in NAMES
            .iter()
            .zip([loss_mean + loss_equiv, loss_mean, loss_equiv])
        {
            report.compare(
                "exact L, L_mean, L_equiv",
                name,
                &[value],
                fixture.values(&format!("out.exact.{name}")),
            );
        }
        // The 24 rotations of the cube average this model exactly, gradients included.
        let rotations = cube_rotations();
        let measured = Measured::of(fixture, &mut trainer, &rotations);
        let blind = measured.losses(target, 0..target.len());
        let all = measured.gradients(fixture, &trainer, &rotations, "all");
        for (k, name) in NAMES.iter().enumerate() {
            report.compare(
                "blind, cube group",
                name,
                &[blind[k]],
                fixture.values(&format!("out.exact.{name}")),
            );
            let theirs = fixture.scalar(&format!("out.exact.gradnorm_{name}"));
            report.compare(
                "exact gradient norms",
                name,
                &[norm([&all[k]].into_iter())],
                &[theirs],
            );
        }
        report.print();
    });
}

fn cube_rotations() -> Vec<[[f64; 3]; 3]> {
    let orders = [
        ([0, 1, 2], 1),
        ([1, 2, 0], 1),
        ([2, 0, 1], 1),
        ([0, 2, 1], -1),
        ([2, 1, 0], -1),
        ([1, 0, 2], -1),
    ];
    let mut found = Vec::new();
    for (order, parity) in orders {
        for signs in 0..8u32 {
            let odd = if signs.count_ones() % 2 == 1 { -1 } else { 1 };
            if odd == parity {
                let mut t = [[0.0; 3]; 3];
                (0..3).for_each(|r| t[r][order[r]] = if signs >> r & 1 == 1 { -1.0 } else { 1.0 });
                found.push(t);
            }
        }
    }
    found
}

/// Three steps of AdamW with warm-up, clipping and moving average on one batch.
#[test]
fn three_optimiser_steps_with_both_losses_equal_the_reference() {
    for fixture in fixtures() {
        let mut report = Report::new(&fixture, Precision::F64);
        for (section, loss) in [("after3", "mse"), ("after3ref", "reference")] {
            let log = &fixture.about[section];
            let figure = |key: &str| {
                log[key]
                    .as_f64()
                    .unwrap_or_else(|| panic!("{section} has no {key}"))
            };
            let recipe = serde_json::json!({
                "loss": loss, "lr": figure("lr_initial"), "clip_norm": figure("clip_grad_norm"), "eps": figure("eps"),
                "beta1": log["betas"][0], "beta2": log["betas"][1], "weight_decay": figure("weight_decay"),
                "schedule": "warmup-cosine", "warmup_epochs": figure("warmup_steps"), "warmup_factor": figure("warmup_factor"),
                "schedule_epochs": figure("total_steps"), "min_factor": figure("lr_min_factor"), "ema_decay": figure("ema_decay"),
            });
            let mut trainer = fixture.trainer(Precision::F64, &recipe.to_string());
            check_decay_rule(&fixture, &trainer);
            for (k, step) in log["steps"].as_array().unwrap().iter().enumerate() {
                let figures = fixture.batch().lend(|raw| trainer.train_step(raw).unwrap());
                for (name, value) in ["loss", "lr", "grad_norm_before_clip"].iter().zip(figures) {
                    let label = format!("step {k} {name}");
                    report.compare_within(
                        1e-9,
                        &format!("{section} figures"),
                        &label,
                        &[value],
                        &[step[name].as_f64().unwrap()],
                    );
                }
            }
            let state = trainer.state();
            for (kind, values) in [
                ("", &trainer.values()),
                ("ema.", state.average.as_ref().unwrap()),
            ] {
                let mut compared = 0;
                for (index, parameter) in trainer.parameters().iter().enumerate() {
                    let name = format!("out.{section}.{kind}{}", parameter.name);
                    if let Some(theirs) = fixture.arrays.get(&name) {
                        let theirs = ours(&parameter.name, &parameter.shape, theirs);
                        report.compare_within(
                            1e-9,
                            &format!("{section} {kind}weights"),
                            &name,
                            &flat(values, index),
                            &theirs,
                        );
                        compared += 1;
                    }
                }
                assert!(
                    compared > 0,
                    "{}: {section} {kind} holds weights",
                    fixture.name
                );
            }
        }
        report.print();
    }
}

/// The name rule of the recipe spares exactly the parameters that the reference spares.
fn check_decay_rule(fixture: &Fixture, trainer: &Trainer<Escaip>) {
    let recipe = Escaip::recipe(&fixture.config());
    let mut spared: Vec<&str> = Vec::new();
    for parameter in trainer.parameters() {
        if recipe
            .no_decay
            .iter()
            .any(|word| parameter.name.contains(word.as_str()))
        {
            spared.push(&parameter.name);
        }
    }
    spared.sort_unstable();
    let mut theirs: Vec<&str> = fixture.about["no_weight_decay_names"]
        .as_array()
        .unwrap()
        .iter()
        .map(|n| n.as_str().unwrap())
        .collect();
    theirs.sort_unstable();
    assert_eq!(spared, theirs, "{}", fixture.name);
}

#[test]
fn a_lonely_atom_follows_the_rule_of_the_reference() {
    for_each_fixture(|fixture, precision| {
        if !fixture.arrays.contains_key("sing.positions") {
            return;
        }
        let mut report = Report::new(fixture, precision);
        let numbers_of_atoms = fixture.get("sing.atomic_numbers").ints();
        let batch = OwnedBatch::new(
            fixture.values("sing.positions"),
            &numbers_of_atoms,
            &[numbers_of_atoms.len()],
        );
        let trace = traced(&fixture.trainer(precision, ""), &batch, precision);
        let slots = fixture.config().neighbours;
        compare_neighbours(fixture, &trace, "sing.", slots);
        let directions = trace
            .notes
            .iter()
            .find(|n| n.name == "graph.edge_direction")
            .unwrap();
        let padded = padded(&trace, NoteRows::Edges, 3, &directions.values, slots);
        report.compare(
            "lonely atom",
            "sing.edge_direction",
            &padded,
            fixture.values("sing.edge_direction"),
        );
        report.compare(
            "lonely atom",
            "sing.forces",
            &numbers(trace.forces),
            fixture.values("sing.forces"),
        );
        report.compare(
            "lonely atom",
            "sing.energy",
            &numbers(trace.energies.unwrap()),
            fixture.values("sing.energy"),
        );
        report.print();
    });
}

#[test]
fn instantiated_sizes_have_the_published_parameter_counts() {
    for (size, published) in [
        ("6M", Some(6_137_222)),
        ("4M", Some(4_374_660)),
        ("1M", Some(997_889)),
        ("nano", None),
    ] {
        let config = Escaip::sizes().into_iter().find(|s| s.0 == size).unwrap().1;
        let counted = Escaip::init(&config, &Device::flex()).num_params() as u64;
        assert_eq!(counted, Escaip::parameter_count(&config), "{size}");
        assert!(published.is_none_or(|p| p == counted), "{size}: {counted}");
        let without = config.with_energy_head(false);
        assert_eq!(
            Escaip::init(&without, &Device::flex()).num_params() as u64,
            Escaip::parameter_count(&without)
        );
        println!(
            "{size}: {counted} parameters, {} without the energy head",
            Escaip::parameter_count(&without)
        );
    }
}
