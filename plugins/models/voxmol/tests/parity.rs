//! Parity with the reference implementation: every tensor, gradient, latent and optimiser step of the fixtures.
//!
//! Reads every `NAME.config.json` + `NAME.safetensors` (plain or `.gz`) in `tests/parity/voxmol`, which our own PyTorch wrote, and in
//! the directories of `EQUIVBENCH_PARITY` (a path list), by default `parity/voxmol` of the shared data, which the reference wrote.
//! `--nocapture` shows the largest deviation of each quantity.

mod support;

use burn::{
    module::Module,
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use equivbench_abi::{Weights, descriptor::ModelRequest};
use equivbench_plugin::{
    Batch, ModelPlugin, Precision, Trainer,
    parameters::{self, Flat, Gradients},
};
use equivbench_testkit::{Array, Deviations, largest, read_arrays};
use equivbench_voxmol::{Trace, Voxmol, VoxmolConfig};
use std::{collections::BTreeMap, path::Path};
use support::{Grids, OwnedBatch};

const PRECISIONS: [Precision; 2] = [Precision::F64, Precision::F32];

/// What rounding may leave. The f32 limits are ten times what the reference's own f32 run differs from its f64 run.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Tensors of a forward pass that the fixture holds in f64, of the largest entry.
    Tensor,
    /// The same, held in f32: half a unit of its last place is 6e-8.
    Rounded,
    /// Losses, relative.
    Loss,
    /// Norms of gradients, relative.
    Norm,
    /// Gradients of a parameter, held in f32, of the largest entry.
    Gradient,
    /// Hessian matrices of the head and sums of powers of their eigenvalues, of the largest.
    Hessian,
    /// Weights after three optimiser steps, absolute; each moves by about 6e-5.
    Weights,
}

fn tolerance(kind: Kind, precision: Precision) -> f64 {
    match (kind, precision) {
        (Kind::Tensor, Precision::F64) => 1e-10,
        (Kind::Rounded | Kind::Gradient, Precision::F64) => 2e-7,
        (Kind::Hessian, Precision::F64) => 1e-11,
        (Kind::Loss | Kind::Norm | Kind::Weights, Precision::F64) => 1e-12,
        (Kind::Tensor | Kind::Rounded | Kind::Hessian, Precision::F32 | Precision::Bf16) => 1e-5,
        (Kind::Loss | Kind::Norm, Precision::F32 | Precision::Bf16) => 5e-6,
        (Kind::Gradient, Precision::F32 | Precision::Bf16) => 5e-5,
        (Kind::Weights, Precision::F32 | Precision::Bf16) => 1e-6,
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

    /// Compares numbers: the largest deviation over `scale`.
    fn compare_over(
        &mut self,
        scale: f64,
        kind: Kind,
        quantity: &str,
        name: &str,
        ours: &[f64],
        theirs: &[f64],
    ) {
        self.deviations.compare(
            [scale, tolerance(kind, self.precision)],
            quantity,
            name,
            ours,
            theirs,
        );
    }

    /// Compares with an array of the fixture, over its largest entry.
    fn array(&mut self, quantity: &str, name: &str, ours: &[f64], theirs: &Array) {
        let kind = if theirs.double {
            Kind::Tensor
        } else {
            Kind::Rounded
        };
        self.compare_over(
            largest(&theirs.values),
            kind,
            quantity,
            name,
            ours,
            &theirs.values,
        );
    }

    fn scalar(&mut self, kind: Kind, quantity: &str, name: &str, ours: f64, theirs: f64) {
        self.compare_over(
            theirs.abs().max(f64::MIN_POSITIVE),
            kind,
            quantity,
            name,
            &[ours],
            &[theirs],
        );
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
        about["ch_mults"].as_array()?;
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
    fn config(&self) -> VoxmolConfig {
        let about = &self.about;
        let size = |key: &str| {
            about[key]
                .as_u64()
                .unwrap_or_else(|| panic!("config has no {key}")) as usize
        };
        let list = |key: &str| {
            about[key]
                .as_array()
                .unwrap_or_else(|| panic!("config has no {key}"))
                .iter()
        };
        VoxmolConfig::new(size("n_channels"), size("n_groups"))
            .with_elements(size("n_elements"))
            .with_multipliers(
                list("ch_mults")
                    .map(|m| m.as_u64().unwrap() as usize)
                    .collect(),
            )
            .with_attention(list("is_attn").map(|a| a.as_bool().unwrap()).collect())
            .with_blocks(size("n_blocks"))
            .with_dropout(about["dropout"].as_f64().unwrap())
            .with_grid(size("grid_dim"))
    }

    fn grids(&self, name: &str) -> Grids {
        grids(self.get(name))
    }

    fn batch(&self) -> OwnedBatch {
        self.grids("in.noisy")
            .batch()
            .with_grids("target", &self.grids("in.target"))
    }

    /// Numbers in a batch of grids.
    fn components(&self) -> f64 {
        self.values("in.noisy").len() as f64
    }

    fn rotations(&self) -> Vec<Matrix> {
        let whole = |v: f64| v as i64;
        let matrix = |m: &[f64]| {
            [[m[0], m[1], m[2]], [m[3], m[4], m[5]], [m[6], m[7], m[8]]].map(|row| row.map(whole))
        };
        self.values("in.rotations")
            .chunks_exact(9)
            .map(matrix)
            .collect()
    }

    fn indices(&self, name: &str) -> Vec<usize> {
        self.get(name)
            .ints()
            .into_iter()
            .map(|v| v as usize)
            .collect()
    }

    /// A trainer with the weights of the fixture.
    fn trainer(&self, precision: Precision, recipe: &str) -> Trainer<Voxmol> {
        let precision_name = if precision == Precision::F64 {
            "f64"
        } else {
            "f32"
        };
        let request = ModelRequest {
            model: "voxmol".into(),
            config: serde_json::to_string(&self.config()).unwrap(),
            recipe: recipe.into(),
            precision: precision_name.into(),
            steps_per_epoch: 1,
            ..ModelRequest::default()
        };
        let mut trainer = Trainer::<Voxmol>::open(&request).unwrap();
        let weights = trainer.parameters().iter().map(|p| {
            let theirs = self.get(&format!("w.{}", p.name));
            assert_eq!(theirs.shape, p.shape, "{}", p.name);
            theirs.values.clone()
        });
        let named = self.arrays.keys().filter(|k| k.starts_with("w.")).count();
        assert_eq!(
            weights.len(),
            named,
            "{}: every weight of the fixture has a place",
            self.name
        );
        let flat = Flat::F64(weights.collect()).to_precision(precision);
        trainer.restart_from(flat);
        trainer
    }
}

fn grids(array: &Array) -> Grids {
    let [samples, channels, side, ..] = array.shape[array.shape.len() - 5..] else {
        panic!("grids have five axes")
    };
    Grids {
        samples,
        channels,
        side,
        values: array.values.clone(),
    }
}

type Matrix = [[i64; 3]; 3];

/// The voxel that a rotation about the middle of the grid maps a voxel to.
fn moved(rotation: &Matrix, side: usize, voxel: usize) -> usize {
    let last = side as i64 - 1;
    let centred =
        [voxel / (side * side), voxel / side % side, voxel % side].map(|c| 2 * c as i64 - last);
    let [x, y, z] =
        rotation.map(|row| ((0..3).map(|a| row[a] * centred[a]).sum::<i64>() + last) as usize / 2);
    (x * side + y) * side + z
}

/// Turns grids `[.., side, side, side]`: what was at `p` comes to `R p`.
fn rotate(rotation: &Matrix, side: usize, values: &[f64]) -> Vec<f64> {
    let mut turned = vec![0.0; values.len()];
    for (from, to) in values
        .chunks_exact(side.pow(3))
        .zip(turned.chunks_exact_mut(side.pow(3)))
    {
        from.iter()
            .enumerate()
            .for_each(|(voxel, &value)| to[moved(rotation, side, voxel)] = value);
    }
    turned
}

fn transposed(t: &Matrix) -> Matrix {
    [0, 1, 2].map(|r| [0, 1, 2].map(|c| t[c][r]))
}

fn flat(values: &Flat, index: usize) -> Vec<f64> {
    match values {
        Flat::F64(v) => v[index].clone(),
        Flat::F32(v) => v[index].iter().map(|&x| f64::from(x)).collect(),
    }
}

fn numbers<const D: usize>(x: Tensor<D>) -> Vec<f64> {
    x.into_data().iter::<f64>().collect()
}

fn fixtures() -> Vec<Fixture> {
    equivbench_testkit::fixtures("voxmol", Fixture::read)
}

fn for_each_fixture(check: impl Fn(&Fixture, Precision)) {
    for fixture in fixtures() {
        PRECISIONS
            .into_iter()
            .for_each(|precision| check(&fixture, precision));
    }
}

/// Calls `f` with the model without autodiff and a batch that it can read.
fn with_model<R>(
    trainer: &Trainer<Voxmol>,
    batch: &OwnedBatch,
    precision: Precision,
    f: impl FnOnce(&Voxmol, &Batch<'_>) -> R,
) -> R {
    let device = Device::flex();
    batch.lend(|raw| {
        f(
            &trainer.model().valid(),
            &Batch::new(raw, &device, precision, None).unwrap(),
        )
    })
}

fn traced(trainer: &Trainer<Voxmol>, batch: &OwnedBatch, precision: Precision) -> Trace {
    with_model(trainer, batch, precision, |model, batch| {
        model.trace(batch).unwrap()
    })
}

fn silu(x: &f64) -> f64 {
    x / (1.0 + (-x).exp())
}

/// Where our notes hold an intermediate tensor of the fixture, and what makes them comparable: norms are noted with the activation
/// behind them.
fn noted_as(fixture: &Fixture, name: &str) -> (String, bool) {
    let levels = fixture.config().multipliers.len();
    let last_of_encoder = levels * fixture.config().blocks + levels - 2;
    match name {
        "act" => ("norm".into(), false),
        "norm" => ("norm".into(), true),
        "enc_out" => (format!("down.{last_of_encoder}"), false),
        "bottleneck" => ("middle".into(), false),
        name => (name.into(), name.contains(".norm")),
    }
}

/// `[B, c, N]` as `[B, N, c]`.
fn tokens(values: &[f64], [samples, tokens, width]: [usize; 3]) -> Vec<f64> {
    assert_eq!(values.len(), samples * tokens * width);
    let sample = |s: usize| {
        equivbench_testkit::transpose(
            &values[s * width * tokens..(s + 1) * width * tokens],
            width,
            tokens,
        )
    };
    (0..samples).flat_map(sample).collect()
}

#[test]
fn intermediate_tensors_and_outputs_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let trace = traced(&fixture.trainer(precision, ""), &fixture.batch(), precision);
        for (name, theirs) in fixture
            .arrays
            .iter()
            .filter_map(|(name, array)| Some((name.strip_prefix("mid.")?, array)))
        {
            let (noted, activated) = noted_as(fixture, name);
            let note = trace
                .notes
                .iter()
                .find(|note| note.name == noted)
                .unwrap_or_else(|| panic!("no note of {name}"));
            let ours = match theirs.shape[..] {
                [samples, voxels, width] => tokens(&note.values, [samples, voxels, width]),
                _ => {
                    assert_eq!(note.shape, theirs.shape, "{name}");
                    note.values.clone()
                }
            };
            let theirs_activated: Vec<f64> = theirs
                .values
                .iter()
                .map(|x| if activated { silu(x) } else { *x })
                .collect();
            report.compare_over(
                largest(&theirs.values),
                Kind::Rounded,
                "mid",
                name,
                &ours,
                &theirs_activated,
            );
        }
        report.array(
            "prediction",
            "out.pred",
            &numbers(trace.density),
            fixture.get("out.pred"),
        );
        report.print();
    });
}

fn gradients(
    trainer: &Trainer<Voxmol>,
    batch: &OwnedBatch,
    precision: Precision,
    loss: &str,
) -> (f64, Vec<Vec<f64>>) {
    let device = Device::flex().autodiff();
    let model = trainer.model();
    batch.lend(|raw| {
        let value = model
            .loss(loss, &Batch::new(raw, &device, precision, None).unwrap())
            .unwrap();
        let number = value.clone().into_data().iter::<f64>().next().unwrap();
        let grads = GradientsParams::from_grads(value.backward(), model);
        let found: Vec<Option<Vec<f64>>> =
            match parameters::flatten_gradients(parameters::gradients(model, grads), precision) {
                Gradients::F64(g) => g,
                Gradients::F32(g) => g
                    .into_iter()
                    .map(|g| g.map(|g| g.into_iter().map(f64::from).collect()))
                    .collect(),
            };
        for (parameter, found) in trainer.parameters().iter().zip(&found) {
            assert_eq!(
                found.is_none(),
                parameter.name.contains("attn.norm."),
                "{}",
                parameter.name
            );
        }
        let zeros = trainer.parameters().iter().map(|p| vec![0.0; p.len()]);
        (
            number,
            found
                .into_iter()
                .zip(zeros)
                .map(|(found, zeros)| found.unwrap_or(zeros))
                .collect(),
        )
    })
}

fn norm(parts: &[Vec<f64>]) -> f64 {
    parts.iter().flatten().map(|g| g * g).sum::<f64>().sqrt()
}

#[test]
fn losses_and_the_gradient_of_every_parameter_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let trainer = fixture.trainer(precision, "");
        for (loss, name, factor) in [
            ("mse", "out.loss", 1.0),
            ("sse", "out.loss_sum", fixture.components()),
        ] {
            let (value, found) = gradients(&trainer, &fixture.batch(), precision, loss);
            report.scalar(
                Kind::Loss,
                &format!("loss {loss}"),
                name,
                value,
                fixture.scalar(name),
            );
            // Gradients that are mathematically 0 are rounding noise on both sides.
            let noise = if precision == Precision::F64 {
                1e-12
            } else {
                1e-6 * largest(found.iter().flatten()) / factor
            };
            for (parameter, gradient) in trainer.parameters().iter().zip(&found) {
                let name = format!("grad.{}", parameter.name);
                let theirs = fixture.values(&name);
                let ours: Vec<f64> = gradient.iter().map(|g| g / factor).collect();
                let scale = largest(theirs).max(noise / tolerance(Kind::Gradient, precision));
                report.compare_over(
                    scale,
                    Kind::Gradient,
                    &format!("gradient {loss}"),
                    &name,
                    &ours,
                    theirs,
                );
            }
            assert_eq!(
                found.len(),
                fixture
                    .arrays
                    .keys()
                    .filter(|k| k.starts_with("grad."))
                    .count()
            );
        }
        report.print();
    });
}

/// The blind measurement: rotate the input, predict, rotate back.
struct Measured {
    rotations: Vec<Matrix>,
    /// What was predicted from.
    turned: Vec<Grids>,
    twisted: Vec<Vec<f64>>,
}

/// Sums of squares over this many numbers are means over components.
struct Losses {
    total: f64,
    twirled: f64,
    equiv: f64,
}

impl Losses {
    fn named(&self) -> [(&'static str, f64); 3] {
        [
            ("L", self.total),
            ("L_mean", self.twirled),
            ("L_equiv", self.equiv),
        ]
    }
}

impl Measured {
    fn of(fixture: &Fixture, trainer: &mut Trainer<Voxmol>) -> Self {
        let (rotations, noisy) = (fixture.rotations(), fixture.grids("in.noisy"));
        let turn = |t: &Matrix| Grids {
            values: rotate(t, noisy.side, &noisy.values),
            ..noisy.clone()
        };
        let turned: Vec<Grids> = rotations.iter().map(turn).collect();
        let mut predict = |grids: &Grids| {
            grids
                .batch()
                .lend(|raw| numbers(trainer.predict(raw, Weights::Raw).unwrap()))
        };
        let back = |(grids, t)| rotate(&transposed(t), noisy.side, &predict(grids));
        let twisted = turned.iter().zip(&rotations).map(back).collect();
        Self {
            rotations,
            turned,
            twisted,
        }
    }

    fn all(&self) -> Vec<usize> {
        (0..self.rotations.len()).collect()
    }

    /// The mean over some of the rotations.
    fn twirled(&self, listed: &[usize]) -> Vec<f64> {
        let mean = |k: usize| {
            listed.iter().map(|&r| self.twisted[r][k]).sum::<f64>() / listed.len() as f64
        };
        (0..self.twisted[0].len()).map(mean).collect()
    }

    /// Over some of the rotations, each in f64 on its own: nothing is a difference of the others.
    fn losses(&self, target: &[f64], listed: &[usize]) -> Losses {
        let twirled = self.twirled(listed);
        let average = |to: &[f64]| {
            listed
                .iter()
                .map(|&r| mean_square(&self.twisted[r], to))
                .sum::<f64>()
                / listed.len() as f64
        };
        Losses {
            total: average(target),
            twirled: mean_square(&twirled, target),
            equiv: average(&twirled),
        }
    }

    /// Gradients of `[L, L_mean, L_equiv]` for every parameter, by products with cotangents, one prediction at a time.
    fn gradients(&self, target: &[f64], trainer: &Trainer<Voxmol>) -> [Vec<Vec<f64>>; 3] {
        let (twirled, side) = (self.twirled(&self.all()), self.turned[0].side);
        let factor = 2.0 / (self.rotations.len() * target.len()) as f64;
        let mut sums = [(); 3].map(|()| {
            trainer
                .parameters()
                .iter()
                .map(|p| vec![0.0; p.len()])
                .collect::<Vec<_>>()
        });
        for ((t, z), grids) in self.rotations.iter().zip(&self.twisted).zip(&self.turned) {
            let apart = |a: &[f64], b: &[f64]| {
                a.iter()
                    .zip(b)
                    .map(|(a, b)| factor * (a - b))
                    .collect::<Vec<_>>()
            };
            let cotangents = [
                apart(z, target),
                apart(&twirled, target),
                apart(z, &twirled),
            ];
            for (sum, cotangent) in sums.iter_mut().zip(cotangents) {
                let product = grids.batch().lend(|raw| {
                    trainer
                        .vjp(raw, rotate(t, side, &cotangent), "all")
                        .unwrap()
                });
                for (index, sum) in sum.iter_mut().enumerate() {
                    sum.iter_mut()
                        .zip(flat(&product, index))
                        .for_each(|(s, p)| *s += p);
                }
            }
        }
        sums
    }
}

fn mean_square(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64
}

#[test]
fn rotations_move_voxels_as_the_gather_table_of_the_reference() {
    for fixture in fixtures() {
        let voxels: Vec<f64> = (0..64).map(f64::from).collect();
        let turned: Vec<f64> = fixture
            .rotations()
            .iter()
            .flat_map(|t| rotate(t, 4, &voxels))
            .collect();
        assert_eq!(
            turned,
            fixture.values("in.rot_gather_g4"),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn twisted_predictions_and_the_decomposition_over_every_list_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let measured = Measured::of(fixture, &mut fixture.trainer(precision, ""));
        let target = fixture.values("in.target");
        let twisted: Vec<f64> = fixture
            .indices("in.twisted_idx")
            .into_iter()
            .flat_map(|r| measured.twisted[r].clone())
            .collect();
        report.array(
            "twisted",
            "out.twisted",
            &twisted,
            fixture.get("out.twisted"),
        );
        report.array(
            "twirled",
            "out.twirled",
            &measured.twirled(&measured.all()),
            fixture.get("out.twirled"),
        );
        let lists = [
            ("out.", measured.all()),
            ("out.setA.", fixture.indices("in.setA_idx")),
            ("out.setB.", fixture.indices("in.setB_idx")),
        ];
        for (prefix, listed) in lists {
            let losses = measured.losses(target, &listed);
            for (name, loss) in losses.named() {
                let name = format!("{prefix}{name}");
                report.scalar(
                    Kind::Loss,
                    "L, L_mean, L_equiv",
                    &name,
                    loss,
                    fixture.scalar(&name),
                );
            }
            if prefix == "out." {
                let percent = 100.0 * losses.equiv / losses.total;
                report.scalar(
                    Kind::Loss,
                    "percent",
                    "out.percent",
                    percent,
                    fixture.scalar("out.percent"),
                );
            }
        }
        let twirled = measured.twirled(&measured.all());
        let width = measured.turned[0].width();
        let of_sample = |values: &[f64], s: usize| values[s * width..(s + 1) * width].to_vec();
        for (sample, theirs) in fixture.values("out.L_equiv_per_sample").iter().enumerate() {
            let mean = of_sample(&twirled, sample);
            let equiv = measured
                .twisted
                .iter()
                .map(|z| mean_square(&of_sample(z, sample), &mean))
                .sum::<f64>()
                / 24.0;
            report.scalar(
                Kind::Loss,
                "L_equiv of a sample",
                &sample.to_string(),
                equiv,
                *theirs,
            );
        }
        report.print();
    });
}

/// Weights and biases of the last convolution, in this order.
fn of_head(trainer: &Trainer<Voxmol>, gradients: &[Vec<f64>]) -> Vec<f64> {
    let named = trainer
        .parameters()
        .iter()
        .zip(gradients)
        .filter(|(p, _)| p.name.starts_with("final."));
    named.flat_map(|(_, g)| g.clone()).collect()
}

#[test]
fn gradients_of_the_decomposition_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let mut trainer = fixture.trainer(precision, "");
        let measured = Measured::of(fixture, &mut trainer);
        let gradients = measured.gradients(fixture.values("in.target"), &trainer);
        for (name, gradient) in ["L", "mean", "equiv"].into_iter().zip(&gradients) {
            let norm_name = format!("out.gradnorm_{name}");
            report.scalar(
                Kind::Norm,
                "gradient norms",
                &norm_name,
                norm(gradient),
                fixture.scalar(&norm_name),
            );
            let head_name = format!("out.headgrad_{name}");
            report.array(
                "gradients of the head",
                &head_name,
                &of_head(&trainer, gradient),
                fixture.get(&head_name),
            );
        }
        report.print();
    });
}

/// What one output channel of the last convolution adds up at every voxel, in the frame of the input: 27 neighbours of every channel,
/// and a 1 for the bias. `[samples · voxels, width]`.
fn neighbours(activated: &Grids, rotation: &Matrix) -> Vec<Vec<f64>> {
    let side = activated.side;
    let at = |sample: usize, voxel: usize| {
        let turned = moved(rotation, side, voxel);
        let centre = [turned / (side * side), turned / side % side, turned % side];
        let mut row = Vec::with_capacity(27 * activated.channels + 1);
        for channel in 0..activated.channels {
            for tap in 0..27 {
                let place = [tap / 9, tap / 3 % 3, tap % 3]
                    .into_iter()
                    .zip(centre)
                    .map(|(k, c)| (c + k).checked_sub(1).filter(|&p| p < side));
                let place = place.collect::<Option<Vec<usize>>>();
                let voxel = place.map(|p| {
                    ((sample * activated.channels + channel) * side.pow(3))
                        + (p[0] * side + p[1]) * side
                        + p[2]
                });
                row.push(voxel.map_or(0.0, |v| activated.values[v]));
            }
        }
        row.push(1.0);
        row
    };
    (0..activated.samples)
        .flat_map(|sample| (0..side.pow(3)).map(move |voxel| (sample, voxel)))
        .map(|(s, v)| at(s, v))
        .collect()
}

fn add_square(sum: &mut [f64], row: &[f64], factor: f64) {
    for (a, left) in row.iter().enumerate() {
        let left = factor * left;
        sum[a * row.len()..(a + 1) * row.len()]
            .iter_mut()
            .zip(row)
            .for_each(|(s, right)| *s += left * right);
    }
}

/// The blocks of the Hessians of `[L, L_mean, L_equiv]` that belong to one output channel, row-major.
fn hessian_blocks(features: &[Vec<Vec<f64>>], components: f64) -> [Vec<f64>; 3] {
    let width = features[0][0].len();
    let mut blocks = [(); 3].map(|()| vec![0.0; width * width]);
    let repeats = features.len() as f64;
    for voxel in 0..features[0].len() {
        let rows = || features.iter().map(|rows| &rows[voxel]);
        let mean: Vec<f64> = (0..width)
            .map(|k| rows().map(|row| row[k]).sum::<f64>() / repeats)
            .collect();
        let [total, twirled, equiv] = &mut blocks;
        add_square(twirled, &mean, 2.0 / components);
        for row in rows() {
            add_square(total, row, 2.0 / components / repeats);
            let apart: Vec<f64> = row.iter().zip(&mean).map(|(a, m)| a - m).collect();
            add_square(equiv, &apart, 2.0 / components / repeats);
        }
    }
    blocks
}

/// The whole matrix over weights `[out, in, 3, 3, 3]` and biases: the same block for each output channel, nothing between them.
fn spread(block: &[f64], channels: usize) -> Vec<f64> {
    let width = (block.len() as f64).sqrt() as usize;
    let weights = width - 1;
    let size = channels * width;
    let place = |channel: usize, k: usize| {
        if k < weights {
            channel * weights + k
        } else {
            channels * weights + channel
        }
    };
    let mut matrix = vec![0.0; size * size];
    for channel in 0..channels {
        for a in 0..width {
            for b in 0..width {
                matrix[place(channel, a) * size + place(channel, b)] = block[a * width + b];
            }
        }
    }
    matrix
}

/// The Hessians are those of a linear map: sums of products of what the last convolution reads.
#[test]
fn hessians_of_the_head_from_what_it_reads_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let mut trainer = fixture.trainer(precision, "");
        let measured = Measured::of(fixture, &mut trainer);
        let read_by_head = |(turned, t): (&Grids, &Matrix)| {
            let trace = traced(&trainer, &turned.batch(), precision);
            let note = trace.notes.iter().find(|n| n.name == "norm").unwrap();
            neighbours(
                &grids(&Array {
                    shape: note.shape.clone(),
                    values: note.values.clone(),
                    double: true,
                }),
                t,
            )
        };
        let features: Vec<Vec<Vec<f64>>> = measured
            .turned
            .iter()
            .zip(&measured.rotations)
            .map(read_by_head)
            .collect();
        let channels = fixture.config().elements;
        for (name, block) in ["L", "mean", "equiv"]
            .into_iter()
            .zip(hessian_blocks(&features, fixture.components()))
        {
            let eigenvalues = fixture.values(&format!("out.hesseig_{name}"));
            let scale = largest(eigenvalues);
            let hessian_name = format!("out.hess_{name}");
            if let Some(theirs) = fixture.arrays.get(&hessian_name) {
                report.array(
                    "Hessians of the head",
                    &hessian_name,
                    &spread(&block, channels),
                    theirs,
                );
            }
            // Sums of eigenvalues and of their squares.
            let width = (block.len() as f64).sqrt() as usize;
            let (count, trace) = (
                channels as f64,
                (0..width).map(|k| block[k * width + k]).sum::<f64>(),
            );
            let squares = block.iter().map(|h| h * h).sum::<f64>();
            for (power, ours, theirs) in [
                (1, count * trace, eigenvalues.iter().sum::<f64>()),
                (
                    2,
                    count * squares,
                    eigenvalues.iter().map(|e| e * e).sum::<f64>(),
                ),
            ] {
                let name = format!("power {power} of those of {name}");
                report.compare_over(
                    scale.powi(power),
                    Kind::Hessian,
                    "eigenvalues of the head",
                    &name,
                    &[ours],
                    &[theirs],
                );
            }
        }
        report.print();
    });
}

/// A latent of grids, `[samples, width, side³]`.
fn latent(trainer: &Trainer<Voxmol>, name: &str, grids: &Grids, precision: Precision) -> Vec<f64> {
    with_model(trainer, &grids.batch(), precision, |model, batch| {
        numbers(model.latent(name, batch).unwrap())
    })
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn latents_their_pools_and_their_cosines_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let trainer = fixture.trainer(precision, "");
        let noisy = fixture.grids("in.noisy");
        for (declared, noted) in Voxmol::latents(&fixture.config())
            .iter()
            .zip(["mid.enc_out", "mid.bottleneck"])
        {
            let name = declared.name.as_str();
            let shape: Vec<usize> = declared.width.iter().map(|&n| n as usize).collect();
            let &[width, side, ..] = shape.as_slice() else {
                panic!("latents are grids")
            };
            assert_eq!(shape, fixture.get(noted).shape[1..], "{name}");
            let own = latent(&trainer, name, &noisy, precision);
            report.array("latents", noted, &own, fixture.get(noted));
            let pool = |values: &[f64]| -> Vec<f64> {
                values
                    .chunks_exact(side.pow(3))
                    .map(|cells| cells.iter().sum::<f64>() / cells.len() as f64)
                    .collect()
            };
            let pool_name = format!("out.latent_pool_{name}");
            report.array(
                "pooled latents",
                &pool_name,
                &pool(&own),
                fixture.get(&pool_name),
            );
            let (mut pools, mut pooled, mut spatial) = (Vec::new(), Vec::new(), Vec::new());
            for t in fixture.rotations() {
                let turned = Grids {
                    values: rotate(&t, noisy.side, &noisy.values),
                    ..noisy.clone()
                };
                let of_turned = latent(&trainer, name, &turned, precision);
                let expected = rotate(&t, side, &own);
                let cells = width * side.pow(3);
                let samples = |values: &[f64], size: usize| {
                    values
                        .chunks_exact(size)
                        .map(<[f64]>::to_vec)
                        .collect::<Vec<_>>()
                };
                let cosines = |a: &[f64], b: &[f64], size: usize| -> Vec<f64> {
                    samples(a, size)
                        .iter()
                        .zip(samples(b, size))
                        .map(|(a, b)| cosine(a, &b))
                        .collect()
                };
                spatial.extend(cosines(&expected, &of_turned, cells));
                pooled.extend(cosines(&pool(&own), &pool(&of_turned), width));
                pools.extend(pool(&of_turned));
            }
            for (name, ours) in [
                (format!("out.latent_pool_{name}_rot"), pools),
                (format!("out.cos_pool_{name}"), pooled),
                (format!("out.cos_spatial_{name}"), spatial),
            ] {
                let quantity = if name.contains("cos") {
                    "cosines of latents"
                } else {
                    "pooled latents"
                };
                report.array(quantity, &name, &ours, fixture.get(&name));
            }
        }
        report.print();
    });
}

/// Entries of a parameter whose gradient is mathematically 0: without epsilon, steps follow the sign of rounding noise.
fn is_noise(fixture: &Fixture, name: &str, entry: usize, entries: usize) -> bool {
    let last_block = format!("up.{}.res.", last_of_decoder(fixture));
    // Keys are the middle third. Biases before a norm whose groups have one channel are subtracted again.
    let key =
        name.ends_with("attn.projection.bias") && (entries / 3..2 * entries / 3).contains(&entry);
    let one_channel = fixture.config().width == fixture.config().groups;
    key || one_channel
        && name.starts_with(&last_block)
        && name.ends_with(".bias")
        && !name.contains(".norm")
}

fn last_of_decoder(fixture: &Fixture) -> usize {
    let levels = fixture.config().multipliers.len();
    levels * (fixture.config().blocks + 1) + levels - 2
}

/// Three steps of AdamW without epsilon and with a moving average, on one batch and the summed loss.
#[test]
fn three_optimiser_steps_equal_the_reference() {
    for_each_fixture(|fixture, precision| {
        let mut report = Report::new(fixture, precision);
        let figure = |key: &str| {
            fixture.about["optimiser"][key]
                .as_f64()
                .unwrap_or_else(|| panic!("optimiser has no {key}"))
        };
        let betas = &fixture.about["optimiser"]["betas"];
        let recipe = serde_json::json!({
            "lr": figure("lr"), "eps": figure("eps"), "beta1": betas[0], "beta2": betas[1], "weight_decay": figure("weight_decay"),
            "ema_decay": figure("ema_decay"),
        });
        let mut trainer = fixture.trainer(precision, &recipe.to_string());
        let losses = fixture.values("out.after3.losses");
        let components = fixture.components();
        for (step, theirs) in losses[..3].iter().enumerate() {
            let [loss, ..] = fixture.batch().lend(|raw| trainer.train_step(raw).unwrap());
            report.scalar(
                Kind::Loss,
                "optimiser losses",
                &format!("step {step}"),
                loss * components,
                *theirs,
            );
        }
        let last = gradients(&trainer, &fixture.batch(), precision, "sse").0;
        report.scalar(
            Kind::Loss,
            "optimiser losses",
            "after the last step",
            last,
            losses[3],
        );
        let state = trainer.state();
        for (kind, values) in [
            ("after3", &trainer.values()),
            ("after3_ema", state.average.as_ref().unwrap()),
        ] {
            let mut compared = 0;
            for (index, parameter) in trainer.parameters().iter().enumerate() {
                let (name, found) = (
                    format!("out.{kind}.{}", parameter.name),
                    flat(values, index),
                );
                if parameter.name.contains("attn.norm.") {
                    assert_eq!(
                        found,
                        fixture.values(&format!("w.{}", parameter.name)),
                        "{name} moved"
                    );
                }
                let Some(theirs) = fixture.arrays.get(&name) else {
                    continue;
                };
                let kept = |values: &[f64]| -> Vec<f64> {
                    let noise = |k: usize| is_noise(fixture, &parameter.name, k, values.len());
                    values
                        .iter()
                        .enumerate()
                        .map(|(k, v)| if noise(k) { 0.0 } else { *v })
                        .collect()
                };
                report.compare_over(
                    1.0,
                    Kind::Weights,
                    kind,
                    &name,
                    &kept(&found),
                    &kept(&theirs.values),
                );
                compared += 1;
            }
            let prefix = format!("out.{kind}.");
            let stored = fixture
                .arrays
                .keys()
                .filter(|k| k.starts_with(&prefix) && !k.ends_with(".losses"))
                .count();
            assert_eq!(compared, stored, "{}: {kind}", fixture.name);
        }
        report.print();
    });
}

#[test]
fn projected_weights_commute_with_every_rotation_of_the_cube() {
    for fixture in fixtures() {
        let mut trainer = fixture.trainer(Precision::F64, "");
        let target = fixture.values("in.target").to_vec();
        let Flat::F64(values) = trainer.values() else {
            panic!("f64 was asked for")
        };
        let mut rest: Vec<f64> = values.concat();
        trainer.model().project_equivariant(&mut rest).unwrap();
        let mut rest = rest.into_iter();
        let projected = values
            .iter()
            .map(|p| rest.by_ref().take(p.len()).collect())
            .collect();
        trainer.restart_from(Flat::F64(projected));
        let measured = Measured::of(&fixture, &mut trainer);
        let losses = measured.losses(&target, &measured.all());
        println!(
            "{}: L_equiv / L = {:.1e} with projected weights",
            fixture.name,
            losses.equiv / losses.total
        );
        // Rounding, squared: 1e-16 of the prediction is 1e-32 of its square.
        assert!(
            losses.equiv / losses.total < 1e-24,
            "{}: {:.1e}",
            fixture.name,
            losses.equiv / losses.total
        );
        assert!(losses.total > 0.0 && losses.equiv.is_finite());
    }
}

#[test]
fn an_instantiated_model_has_the_parameters_that_the_formula_and_the_fixture_count() {
    for fixture in fixtures() {
        let counted = Voxmol::init(&fixture.config(), &Device::flex()).num_params() as u64;
        assert_eq!(
            counted,
            Voxmol::parameter_count(&fixture.config()),
            "{}",
            fixture.name
        );
        assert_eq!(
            counted,
            fixture.about["n_params"].as_u64().unwrap(),
            "{}",
            fixture.name
        );
    }
}
