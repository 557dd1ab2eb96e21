//! Tries a model plugin on a device, through its library and without the rest of the harness.
//!
//! ```text
//! device_trial parity LIBRARY DEVICE [KEY=VALUE ...]    size=nano samples=2 points=24 steps=2
//! device_trial time   LIBRARY DEVICE [KEY=VALUE ...]    precision=f32 steps=20 predictions=5 batch=FOLDER
//! ```
//!
//! `parity` compares predictions, products with cotangents and training steps (dropout included) with those of the same library on
//! the processor in f64, for the same weights, and prints the largest deviation of each over the largest value. `time` prints
//! seconds of training steps and of predictions, and writes the batch that it used as plain little-endian files where `batch` names
//! a folder, so that another program can time the same work.

use abi_stable::std_types::{RSlice, RSliceMut, RStr};
use equivbench_abi::{
    Batch, ElementType, Field, FieldKind, Rows, Weights, descriptor::ModelRequest,
};
use equivbench_host::{Library, LoadedModel};
use std::{
    collections::BTreeMap,
    error::Error,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

type Failure = Box<dyn Error>;

/// One array of a made batch.
struct Column {
    name: &'static str,
    kind: FieldKind,
    rows: Rows,
    shape: Vec<u64>,
    values: Numbers,
}

enum Numbers {
    Real(Vec<f32>),
    Index(Vec<i64>),
}

impl Numbers {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Real(values) => bytemuck::cast_slice(values),
            Self::Index(values) => bytemuck::cast_slice(values),
        }
    }
    fn element(&self) -> ElementType {
        match self {
            Self::Real(_) => ElementType::F32,
            Self::Index(_) => ElementType::I64,
        }
    }
}

/// A batch that owns its arrays.
struct Made {
    offsets: Vec<u64>,
    columns: Vec<Column>,
}

impl Made {
    fn lend<R>(&self, call: impl FnOnce(Batch<'_>) -> R) -> R {
        let fields: Vec<Field<'_>> = self
            .columns
            .iter()
            .map(|column| Field {
                name: RStr::from_str(column.name),
                kind: column.kind.code(),
                rows: column.rows.code(),
                element: column.values.element().code(),
                shape: RSlice::from_slice(&column.shape),
                bytes: RSlice::from_slice(column.values.bytes()),
            })
            .collect();
        call(Batch {
            samples: self.offsets.len() as u64 - 1,
            offsets: RSlice::from_slice(&self.offsets),
            fields: RSlice::from_slice(&fields),
        })
    }

    /// Numbers of a prediction: as many as those of the target.
    fn outputs(&self) -> usize {
        let target = self.columns.iter().find(|column| column.name == "target");
        target.map_or(0, |column| column.shape.iter().product::<u64>() as usize)
    }

    /// `NAME.bin` for every array, little-endian, and `shapes.json`.
    fn write(&self, folder: &Path) -> Result<(), Failure> {
        std::fs::create_dir_all(folder)?;
        let mut shapes = serde_json::Map::new();
        shapes.insert("offsets".into(), vec![self.offsets.len()].into());
        std::fs::write(
            folder.join("offsets.bin"),
            bytemuck::cast_slice::<u64, u8>(&self.offsets),
        )?;
        for column in &self.columns {
            shapes.insert(column.name.into(), column.shape.clone().into());
            std::fs::write(
                folder.join(format!("{}.bin", column.name)),
                column.values.bytes(),
            )?;
        }
        std::fs::write(
            folder.join("shapes.json"),
            serde_json::Value::Object(shapes).to_string(),
        )?;
        Ok(())
    }
}

/// SplitMix64, and numbers made of it.
struct Stream(u64);

impl Stream {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// In `0.0..1.0`.
    fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
    fn normal(&mut self) -> f32 {
        let (u, v) = (self.uniform(), self.uniform());
        ((-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
    }
    fn normals(&mut self, count: usize) -> Numbers {
        Numbers::Real((0..count).map(|_| self.normal()).collect())
    }
}

/// Sizes of a made batch: samples, and points of each or the side of its grid.
#[derive(Clone, Copy)]
struct Extent {
    samples: usize,
    points: usize,
}

fn made(model: &LoadedModel, extent: Extent) -> Result<Made, Failure> {
    let stream = &mut Stream(7);
    let config: serde_json::Value = serde_json::from_str(model.instance().config.as_str())?;
    match model.instance().model.as_str() {
        "escaip" => Ok(molecules(extent, stream)),
        "proteina" => Ok(chains(extent, stream)),
        "voxmol" => {
            let channels = config["elements"].as_u64().unwrap_or(1) as usize;
            Ok(grids(extent, channels, stream))
        }
        other => Err(format!("no batches can be made for {other}").into()),
    }
}

/// Sizes of samples between three quarters and five quarters of `points`.
fn offsets(extent: Extent, stream: &mut Stream) -> Vec<u64> {
    let mut offsets = vec![0];
    for _ in 0..extent.samples {
        let size = (extent.points as f64 * (0.75 + 0.5 * stream.uniform())) as u64;
        offsets.push(offsets[offsets.len() - 1] + size.max(2));
    }
    offsets
}

/// Atoms on a shaken cubic lattice of 1.5 angstrom.
fn molecules(extent: Extent, stream: &mut Stream) -> Made {
    let offsets = offsets(extent, stream);
    let atoms = offsets[offsets.len() - 1] as usize;
    let mut positions = Vec::with_capacity(3 * atoms);
    for run in offsets.windows(2) {
        let count = (run[1] - run[0]) as usize;
        let side = (1..).find(|side| side * side * side >= count).unwrap_or(1);
        for atom in 0..count {
            let cell = [atom % side, atom / side % side, atom / side / side];
            positions.extend(cell.map(|place| 1.5 * place as f32 + 0.15 * stream.normal()));
        }
    }
    let species = (0..atoms).map(|_| [1, 6, 7, 8][(stream.bits() % 4) as usize]);
    let columns = vec![
        vectors("positions", atoms, Numbers::Real(positions)),
        labels("species", species.collect()),
        vectors("target", atoms, stream.normals(3 * atoms)),
        of_samples("energy", stream.normals(extent.samples), extent.samples),
    ];
    Made { offsets, columns }
}

/// Noisy random walks with steps of 0.38 nm, all of one length.
fn chains(extent: Extent, stream: &mut Stream) -> Made {
    let Extent { samples, points } = extent;
    let offsets: Vec<u64> = (0..=samples)
        .map(|sample| (sample * points) as u64)
        .collect();
    let residues = samples * points;
    let mut positions = Vec::with_capacity(3 * residues);
    let mut place = [0.0_f32; 3];
    for residue in 0..residues {
        if residue % points == 0 {
            place = [0.0; 3];
        }
        place = place.map(|x| x + 0.22 * stream.normal());
        positions.extend(place);
    }
    let times = (0..samples).map(|_| stream.uniform() as f32).collect();
    let numbers = (0..residues).map(|residue| (residue % points) as i64);
    let columns = vec![
        vectors("positions", residues, Numbers::Real(positions)),
        labels("residue_index", numbers.collect()),
        labels("chain_break", vec![0; residues]),
        of_samples("flow_time", Numbers::Real(times), samples),
        vectors("target", residues, stream.normals(3 * residues)),
    ];
    Made { offsets, columns }
}

fn grids(extent: Extent, channels: usize, stream: &mut Stream) -> Made {
    let Extent { samples, points } = extent;
    let count = samples * channels * points.pow(3);
    let grid = |name, values| Column {
        name,
        kind: FieldKind::VoxelGrid,
        rows: Rows::Sample,
        shape: [samples, channels, points, points, points]
            .map(|n| n as u64)
            .to_vec(),
        values,
    };
    let target: Vec<f32> = (0..count).map(|_| stream.uniform() as f32).collect();
    let noisy = target.iter().map(|x| x + 0.9 * stream.normal()).collect();
    Made {
        // Grids have no points of their own.
        offsets: vec![0; samples + 1],
        columns: vec![
            grid("density", Numbers::Real(noisy)),
            grid("target", Numbers::Real(target)),
        ],
    }
}

fn vectors(name: &'static str, points: usize, values: Numbers) -> Column {
    Column {
        name,
        kind: FieldKind::Vector,
        rows: Rows::Point,
        shape: vec![points as u64, 3],
        values,
    }
}

fn labels(name: &'static str, values: Vec<i64>) -> Column {
    Column {
        name,
        kind: FieldKind::Invariant,
        rows: Rows::Point,
        shape: vec![values.len() as u64],
        values: Numbers::Index(values),
    }
}

fn of_samples(name: &'static str, values: Numbers, samples: usize) -> Column {
    Column {
        name,
        kind: FieldKind::Invariant,
        rows: Rows::Sample,
        shape: vec![samples as u64],
        values,
    }
}

/// A model behind the boundary.
struct Trial {
    model: LoadedModel,
    is_double: bool,
}

impl Trial {
    fn open(
        library: &Library,
        given: &Given,
        device: &str,
        precision: &str,
    ) -> Result<Self, Failure> {
        let request = ModelRequest {
            model: library.descriptor.models[0].name.clone(),
            size: given.text("size", "nano"),
            config: given.text("config", ""),
            seed: 5,
            device: device.into(),
            precision: precision.into(),
            steps_per_epoch: 100,
            total_steps: 1000,
            ..ModelRequest::default()
        };
        let model = library.open_model(&request)?;
        Ok(Self {
            is_double: model.instance().precision == "f64",
            model,
        })
    }

    fn scalars(&self) -> usize {
        let shapes = self.model.instance().parameters.iter();
        shapes
            .map(|p| p.shape.iter().product::<u64>() as usize)
            .sum()
    }

    fn width(&self) -> usize {
        if self.is_double { 8 } else { 4 }
    }

    fn numbers(&self, bytes: &[u8]) -> Vec<f64> {
        if self.is_double {
            return bytemuck::pod_collect_to_vec(bytes);
        }
        let values: Vec<f32> = bytemuck::pod_collect_to_vec(bytes);
        values.into_iter().map(f64::from).collect()
    }

    fn bytes(&self, numbers: &[f64]) -> Vec<u8> {
        if self.is_double {
            return bytemuck::cast_slice(numbers).to_vec();
        }
        let values: Vec<f32> = numbers.iter().map(|&x| x as f32).collect();
        bytemuck::cast_slice(&values).to_vec()
    }

    fn call<R>(
        &mut self,
        batch: &Made,
        call: impl FnOnce(&mut equivbench_abi::ModelBox, Batch<'_>) -> equivbench_abi::AbiResult<R>,
    ) -> Result<R, Failure> {
        let nothing = equivbench_core::Batch {
            offsets: vec![0],
            fields: vec![],
        };
        let answer = self
            .model
            .with_raw(&nothing, |object, _| batch.lend(|own| call(object, own)));
        answer
            .into_result()
            .map_err(|e| e.message.to_string().into())
    }

    fn predict(&mut self, batch: &Made) -> Result<Vec<f64>, Failure> {
        let mut out = vec![0u8; batch.outputs() * self.width()];
        self.call(batch, |object, own| {
            object.predict_into(
                own,
                Weights::Raw.code(),
                RSliceMut::from_mut_slice(&mut out),
            )
        })?;
        Ok(self.numbers(&out))
    }

    fn vjp(&mut self, batch: &Made, cotangent: &[f64]) -> Result<Vec<f64>, Failure> {
        let cotangent = self.bytes(cotangent);
        let mut out = vec![0u8; self.scalars() * self.width()];
        self.call(batch, |object, own| {
            object.vjp_into(
                own,
                RSlice::from_slice(&cotangent),
                RStr::from_str("all"),
                RSliceMut::from_mut_slice(&mut out),
            )
        })?;
        Ok(self.numbers(&out))
    }

    /// The loss before the step.
    fn step(&mut self, batch: &Made) -> Result<f64, Failure> {
        let mut report = [0.0; 3];
        self.call(batch, |object, own| {
            object.train_step(own, RSliceMut::from_mut_slice(&mut report))
        })?;
        Ok(report[0])
    }

    fn synchronise(&mut self, batch: &Made) -> Result<(), Failure> {
        self.call(batch, |object, _| object.synchronise())
    }

    fn parameters(&mut self, batch: &Made) -> Result<Vec<f64>, Failure> {
        let mut out = vec![0u8; self.scalars() * self.width()];
        self.call(batch, |object, _| {
            object.parameters_into(RStr::from_str("all"), RSliceMut::from_mut_slice(&mut out))
        })?;
        Ok(self.numbers(&out))
    }

    fn set_parameters(&mut self, batch: &Made, values: &[f64]) -> Result<(), Failure> {
        let values = self.bytes(values);
        self.call(batch, |object, _| {
            object.set_parameters(RStr::from_str("all"), RSlice::from_slice(&values))
        })
    }
}

/// Largest deviation over the largest expected value.
fn deviation(actual: &[f64], expected: &[f64]) -> f64 {
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let pairs = actual.iter().zip(expected);
    let off = pairs.fold(0.0_f64, |most, (a, b)| {
        let off = (a - b).abs();
        if off.is_nan() {
            f64::INFINITY
        } else {
            most.max(off)
        }
    });
    off / largest.max(f64::MIN_POSITIVE)
}

/// What the processor says in f64, for weights that f32 holds.
struct Oracle {
    weights: Vec<f64>,
    prediction: Vec<f64>,
    cotangent: Vec<f64>,
    product: Vec<f64>,
    losses: Vec<f64>,
    trained: Vec<f64>,
}

impl Oracle {
    fn of(mut trial: Trial, batch: &Made, steps: usize) -> Result<Self, Failure> {
        let rounded = |values: Vec<f64>| values.iter().map(|&x| f64::from(x as f32)).collect();
        let stream = &mut Stream(3);
        let mut weights: Vec<f64> = rounded(trial.parameters(batch)?);
        // Layers that begin at zero would hide what stands in front of them.
        weights
            .iter_mut()
            .for_each(|w| *w = f64::from((*w + 0.02 * f64::from(stream.normal())) as f32));
        trial.set_parameters(batch, &weights)?;
        let prediction = trial.predict(batch)?;
        let cotangent: Vec<f64> = prediction
            .iter()
            .map(|_| f64::from(stream.normal()))
            .collect();
        let product = trial.vjp(batch, &cotangent)?;
        let losses = (0..steps)
            .map(|_| trial.step(batch))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            trained: trial.parameters(batch)?,
            weights,
            prediction,
            cotangent,
            product,
            losses,
        })
    }
}

fn parity(library: &Library, given: &Given, device: &str) -> Result<(), Failure> {
    let reference = Trial::open(library, given, "cpu", "f64")?;
    let batch = made(&reference.model, given.extent(2, 24)?)?;
    let fresh = Trial::open(library, given, "cpu", "f32")?.parameters(&batch)?;
    let oracle = Oracle::of(reference, &batch, given.number("steps", 2)?)?;
    for precision in given.text("precisions", "f64,f32").split(',') {
        let clock = Instant::now();
        let report = |what: &str, value: f64| {
            let (name, seconds) = (
                &library.descriptor.models[0].name,
                clock.elapsed().as_secs_f64(),
            );
            println!("parity,{name},{device},{precision},{what},{value:.3e},{seconds:.1}");
        };
        let mut trial = Trial::open(library, given, device, precision)?;
        if !trial.is_double {
            report(
                "fresh weights",
                deviation(&trial.parameters(&batch)?, &fresh),
            );
        }
        trial.set_parameters(&batch, &oracle.weights)?;
        report(
            "prediction",
            deviation(&trial.predict(&batch)?, &oracle.prediction),
        );
        let product = trial.vjp(&batch, &oracle.cotangent)?;
        report(
            "product with a cotangent",
            deviation(&product, &oracle.product),
        );
        for (step, expected) in oracle.losses.iter().enumerate() {
            let loss = trial.step(&batch)?;
            report(
                &format!("loss of step {step}"),
                (loss / expected - 1.0).abs(),
            );
        }
        let moved = |values: &[f64]| -> Vec<f64> {
            values
                .iter()
                .zip(&oracle.weights)
                .map(|(a, b)| a - b)
                .collect()
        };
        let (ours, theirs) = (moved(&trial.parameters(&batch)?), moved(&oracle.trained));
        let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
        let off: Vec<f64> = ours.iter().zip(&theirs).map(|(a, b)| a - b).collect();
        report("change of the weights", norm(&off) / norm(&theirs));
    }
    Ok(())
}

fn time(library: &Library, given: &Given, device: &str) -> Result<(), Failure> {
    let precision = given.text("precision", "f32");
    let clock = Instant::now();
    let mut trial = Trial::open(library, given, device, &precision)?;
    let batch = made(&trial.model, given.extent(4, 32)?)?;
    if let Some(folder) = given.0.get("batch") {
        batch.write(Path::new(folder))?;
    }
    let name = library.descriptor.models[0].name.clone();
    let mut label = precision.clone();
    for (variable, word) in [
        ("EQUIVBENCH_CUDA_ALLOW", ""),
        ("EQUIVBENCH_CUDA_KERNELS", "kernels="),
    ] {
        if let Ok(value) = std::env::var(variable) {
            label += &format!("/{word}{value}");
        }
    }
    let size = &trial.model.instance().size;
    let size = format!(
        "{size} {} x {}",
        batch.offsets.len() - 1,
        given.text("points", "32")
    );
    let report = |what: &str, value: f64| {
        println!("time,{name},{size},{device},{label},{what},{value:.6}");
    };
    report("parameters", trial.scalars() as f64);
    report("open, s", clock.elapsed().as_secs_f64());
    if given.number("training", 10)? > 0 {
        trial.step(&batch)?;
    }
    if given.number("prediction", 10)? > 0 {
        trial.predict(&batch)?;
    }
    trial.synchronise(&batch)?;
    report("first of each, s", clock.elapsed().as_secs_f64());
    wait_at_gate()?;
    for what in ["training step", "prediction"] {
        let count = given.number(what.split(' ').next().unwrap_or(what), 10)?;
        if count > 0 {
            let seconds = timed(&mut trial, &batch, what, count)?;
            report(
                &format!("{what}, s (median of {count})"),
                seconds[count / 2],
            );
            report(&format!("{what}, s (least)"), seconds[0]);
        }
    }
    Ok(())
}

/// Seconds of `count` steps or predictions after one that is not timed, in ascending order.
fn timed(trial: &mut Trial, batch: &Made, what: &str, count: usize) -> Result<Vec<f64>, Failure> {
    let mut seconds = Vec::with_capacity(count);
    for number in 0..=count {
        let clock = Instant::now();
        if what == "prediction" {
            trial.predict(batch)?;
        } else {
            trial.step(batch)?;
        }
        trial.synchronise(batch)?;
        if number > 0 {
            seconds.push(clock.elapsed().as_secs_f64());
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds)
}

/// Says by `GATE.ready` that everything is compiled, and waits for the file that the variable `GATE` names: so that programs may compile at
/// the same time and be timed one by one.
fn wait_at_gate() -> Result<(), Failure> {
    let Some(gate) = std::env::var_os("GATE").map(PathBuf::from) else {
        return Ok(());
    };
    std::fs::write(gate.with_added_extension("ready"), "")?;
    while !gate.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    Ok(())
}

/// `KEY=VALUE` arguments.
struct Given(BTreeMap<String, String>);

impl Given {
    fn read(arguments: &[String]) -> Result<Self, Failure> {
        let pairs = arguments.iter().map(|argument| {
            let (key, value) = argument
                .split_once('=')
                .ok_or_else(|| format!("{argument} is not KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        });
        Ok(Self(pairs.collect::<Result<_, Failure>>()?))
    }

    fn text(&self, key: &str, default: &str) -> String {
        self.0.get(key).map_or(default, String::as_str).to_owned()
    }

    fn number(&self, key: &str, default: usize) -> Result<usize, Failure> {
        Ok(self.0.get(key).map_or(Ok(default), |text| text.parse())?)
    }

    fn extent(&self, samples: usize, points: usize) -> Result<Extent, Failure> {
        Ok(Extent {
            samples: self.number("samples", samples)?,
            points: self.number("points", points)?,
        })
    }
}

fn run(arguments: &[String]) -> Result<(), Failure> {
    let [command, library, device, rest @ ..] = arguments else {
        return Err("usage: device_trial parity|time LIBRARY DEVICE [KEY=VALUE ...]".into());
    };
    let library = Library::open(&PathBuf::from(library))?;
    let given = Given::read(rest)?;
    match command.as_str() {
        "parity" => parity(&library, &given, device),
        "time" => time(&library, &given, device),
        other => Err(format!("{other} is neither parity nor time").into()),
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("device_trial: {error}");
            ExitCode::FAILURE
        }
    }
}
