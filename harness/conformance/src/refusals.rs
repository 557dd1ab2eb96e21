//! Input that the harness never sends: a plugin must answer it with an error. These checks go round the host's own checks.

use crate::{
    subject::ModelSubject,
    toy::Toy,
    values::predict,
    verdict::{Stop, Verdict, fail},
};
use equivbench_abi::{self as abi, ElementType, ModelBox, Weights, code};
use equivbench_core::{Batch, Model, Values};
use equivbench_host::LoadedModel;

/// Bytes of one number of an instance.
fn number_bytes(model: &LoadedModel) -> usize {
    if model.is_double() {
        ElementType::F64.bytes()
    } else {
        ElementType::F32.bytes()
    }
}

/// A buffer of some bytes, aligned for every number.
struct Buffer(Vec<f64>, usize);

impl Buffer {
    fn of(bytes: usize) -> Self {
        Self(vec![0.0; bytes.div_ceil(8)], bytes)
    }
    fn read(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.0)[..self.1]
    }
    fn write(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.0)[..self.1]
    }
}

/// A raw prediction into a buffer: the plugin's message if it refuses.
fn raw_prediction(model: &mut LoadedModel, batch: &Batch, out: &mut Buffer) -> Result<(), String> {
    let weights = Weights::Raw.code();
    model.with_raw(batch, |object, raw| {
        answer(object.predict_into(raw, weights, out.write().into()))
    })
}

fn answer<T>(result: abi::AbiResult<T>) -> Result<(), String> {
    result
        .into_result()
        .map(drop)
        .map_err(|e| e.message.into_string())
}

/// NaN in, error or NaN out.
pub(crate) fn not_finite(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open()?;
    let toy = Toy::of(subject.descriptor, 1);
    let length = predict(&mut model, &toy.inputs)?.len() * number_bytes(&model);
    let mut answers = Vec::new();
    for poison in [f64::NAN, f64::INFINITY] {
        let mut batch = toy.inputs.clone();
        let Some(field) = batch
            .fields
            .iter_mut()
            .find(|f| matches!(f.values, Values::Real(_)))
        else {
            return Ok("no input holds real numbers".into());
        };
        let name = field.name.clone();
        if let Values::Real(values) = &mut field.values {
            values[0] = poison;
        }
        let mut out = Buffer::of(length);
        answers.push(match raw_prediction(&mut model, &batch, &mut out) {
            Err(_) => "refused",
            Ok(()) if !all_finite(&model, out.read()) => "passed on, for the host to refuse",
            Ok(()) => {
                return fail(format!(
                    "field \"{name}\" held {poison}, and a finite prediction came out"
                ));
            }
        });
    }
    Ok(format!("NaN is {}, infinity is {}", answers[0], answers[1]))
}

fn all_finite(model: &LoadedModel, bytes: &[u8]) -> bool {
    if model.is_double() {
        bytemuck::pod_collect_to_vec::<u8, f64>(bytes)
            .iter()
            .all(|v| v.is_finite())
    } else {
        bytemuck::pod_collect_to_vec::<u8, f32>(bytes)
            .iter()
            .all(|v| v.is_finite())
    }
}

/// No samples, no answer.
pub(crate) fn empty(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open()?;
    let nothing = Toy::of(subject.descriptor, 1).training.select(&[]);
    let mut parameters = Buffer::of(all_scalars(&model) * number_bytes(&model));
    expect_refusal(
        raw_prediction(&mut model, &nothing, &mut Buffer::of(0)),
        "a prediction of an empty batch",
    )?;
    let mut report = [0.0; 3];
    let trained = model.with_raw(&nothing, |object, raw| {
        answer(object.train_step(raw, (&mut report[..]).into()))
    });
    expect_refusal(trained, "an optimiser step on an empty batch")?;
    let product = model.with_raw(&nothing, |object, raw| {
        answer(object.vjp_into(
            raw,
            (&[][..]).into(),
            "all".into(),
            parameters.write().into(),
        ))
    });
    expect_refusal(product, "a vjp of an empty batch")?;
    Ok("three calls refused".into())
}

fn all_scalars(model: &LoadedModel) -> usize {
    model
        .instance()
        .groups
        .iter()
        .find(|g| g.name == "all")
        .map_or(0, |g| g.scalars as usize)
}

fn expect_refusal(result: Result<(), String>, what: &str) -> Result<(), Stop> {
    match result {
        Err(message) if !message.trim().is_empty() => Ok(()),
        Err(_) => fail(format!("{what} was refused without a message")),
        Ok(()) => fail(format!("{what} was accepted; it must be an error")),
    }
}

/// Wrong lengths and missing fields.
pub(crate) fn lengths(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open()?;
    let toy = Toy::of(subject.descriptor, 1);
    let outputs = predict(&mut model, &toy.inputs)?.len();
    // Parameters, not the saved state: two saved states of one instance may differ in the order of their metadata.
    let mut before = Vec::new();
    model.parameters_into("all", &mut before)?;
    let length = outputs * number_bytes(&model);
    let refused = predictions(&mut model, &toy, outputs)?
        + products(&mut model, &toy, outputs)?
        + parameters(&mut model, &toy)?
        + fields(&mut model, &toy, length)?;
    let mut after = Vec::new();
    model.parameters_into("all", &mut after)?;
    if after != before {
        return fail("a refused call changed the parameters");
    }
    Ok(format!("{refused} calls refused, parameters unchanged"))
}

/// Predictions into buffers of a wrong length.
fn predictions(model: &mut LoadedModel, toy: &Toy, outputs: usize) -> Result<usize, Stop> {
    let width = number_bytes(model);
    let lengths = [(outputs - 1) * width, (outputs + 1) * width, 0];
    for bytes in lengths {
        expect_refusal(
            raw_prediction(model, &toy.inputs, &mut Buffer::of(bytes)),
            &format!(
                "a prediction of {} bytes into a buffer of {bytes}",
                outputs * width
            ),
        )?;
    }
    Ok(lengths.len())
}

/// Vector-Jacobian products with a cotangent or a result of a wrong length.
fn products(model: &mut LoadedModel, toy: &Toy, outputs: usize) -> Result<usize, Stop> {
    let (width, scalars) = (number_bytes(model), all_scalars(model));
    let lengths = [
        (outputs - 1, scalars),
        (outputs + 1, scalars),
        (outputs, scalars - 1),
        (outputs, scalars + 1),
    ];
    for (cotangent, out) in lengths {
        let (cotangent, mut out) = (Buffer::of(cotangent * width), Buffer::of(out * width));
        let product = model.with_raw(&toy.inputs, |object, raw| {
            answer(object.vjp_into(
                raw,
                cotangent.read().into(),
                "all".into(),
                out.write().into(),
            ))
        });
        expect_refusal(
            product,
            "a vjp with a cotangent or a result of a wrong length",
        )?;
    }
    Ok(lengths.len())
}

/// Parameters from and into buffers of a wrong length.
fn parameters(model: &mut LoadedModel, toy: &Toy) -> Result<usize, Stop> {
    let (width, scalars) = (number_bytes(model), all_scalars(model));
    let counts = [scalars - 1, scalars + 1, 0];
    for count in counts {
        let mut values = Buffer::of(count * width);
        let set = model.with_raw(&toy.inputs, |object, _| {
            answer(object.set_parameters("all".into(), values.read().into()))
        });
        expect_refusal(set, &format!("setting {count} of {scalars} parameters"))?;
        let got = model.with_raw(&toy.inputs, |object, _| {
            answer(object.parameters_into("all".into(), values.write().into()))
        });
        expect_refusal(
            got,
            &format!("reading {scalars} parameters into a buffer of {count}"),
        )?;
    }
    Ok(2 * counts.len())
}

/// Fields that are missing, or shorter than their shape; a step without a target.
fn fields(model: &mut LoadedModel, toy: &Toy, length: usize) -> Result<usize, Stop> {
    let mut refused = 0;
    for index in 0..toy.inputs.fields.len() {
        let name = &toy.inputs.fields[index].name;
        let mut short = toy.inputs.clone();
        match &mut short.fields[index].values {
            Values::Real(values) => values.truncate(values.len() - 1),
            Values::Single(values) => values.truncate(values.len() - 1),
            Values::Index(values) => values.truncate(values.len() - 1),
        }
        let result = raw_prediction(model, &short, &mut Buffer::of(length));
        expect_refusal(
            result,
            &format!("field \"{name}\" with fewer numbers than its shape says"),
        )?;
        refused += 1;
    }
    // A model may declare an input that it does not need; without any it cannot predict.
    let bare = Batch {
        fields: Vec::new(),
        ..toy.inputs.clone()
    };
    expect_refusal(
        raw_prediction(model, &bare, &mut Buffer::of(length)),
        "a batch without any field",
    )?;
    let mut report = [0.0; 3];
    let trained = model.with_raw(&toy.inputs, |object, raw| {
        answer(object.train_step(raw, (&mut report[..]).into()))
    });
    expect_refusal(trained, "an optimiser step without a target")?;
    Ok(refused + 2)
}

/// Names that are not known.
pub(crate) fn names(subject: &ModelSubject<'_>) -> Verdict {
    let mut model = subject.open()?;
    let toy = Toy::of(subject.descriptor, 1);
    let length = predict(&mut model, &toy.inputs)?.len() * number_bytes(&model);
    let mut parameters = Buffer::of(all_scalars(&model) * number_bytes(&model));
    let read = |object: &mut ModelBox, out: &mut Buffer| {
        answer(object.parameters_into("no-such-group".into(), out.write().into()))
    };
    expect_refusal(
        model.with_raw(&toy.inputs, |object, _| read(object, &mut parameters)),
        "an unknown parameter group",
    )?;
    let mut out = Buffer::of(length);
    let predicted = model.with_raw(&toy.inputs, |object, raw| {
        answer(object.predict_into(raw, 99, out.write().into()))
    });
    expect_refusal(predicted, "an unknown kind of weights")?;
    if !model.instance().weights.iter().any(|w| w == "ema") {
        let ema = Weights::Ema.code();
        let predicted = model.with_raw(&toy.inputs, |object, raw| {
            answer(object.predict_into(raw, ema, out.write().into()))
        });
        expect_refusal(
            predicted,
            "a prediction with averaged weights where none are kept",
        )?;
    }
    match model.with_raw(&toy.inputs, |object, raw| {
        object
            .capability(
                "no-such-ability".into(),
                raw,
                (&[][..]).into(),
                (&mut [][..]).into(),
            )
            .into_result()
    }) {
        Err(error) if error.code == code::UNSUPPORTED => {}
        Err(error) => {
            return fail(format!(
                "an unknown ability was refused with code {}, {} was expected",
                error.code,
                code::UNSUPPORTED
            ));
        }
        Ok(_) => return fail("an unknown ability was accepted"),
    }
    requests(subject)?;
    Ok("groups, weights, abilities, sizes, keys and precisions".into())
}

/// Requests with names that are not known.
fn requests(subject: &ModelSubject<'_>) -> Result<(), Stop> {
    let good = subject.request();
    let cases = [
        (
            "an unknown size",
            abi::descriptor::ModelRequest {
                size: "no-such-size".into(),
                ..good.clone()
            },
        ),
        (
            "an unknown key of the configuration",
            abi::descriptor::ModelRequest {
                config: r#"{"no_such_key":1}"#.into(),
                ..good.clone()
            },
        ),
        (
            "an unknown key of the recipe",
            abi::descriptor::ModelRequest {
                recipe: r#"{"no_such_key":1}"#.into(),
                ..good.clone()
            },
        ),
        (
            "an unknown precision",
            abi::descriptor::ModelRequest {
                precision: "f8".into(),
                ..good.clone()
            },
        ),
        (
            "an unknown device",
            abi::descriptor::ModelRequest {
                device: "abacus:0".into(),
                ..good
            },
        ),
    ];
    for (what, request) in cases {
        if subject.open_with(&request).is_ok() {
            return fail(format!("{what} was accepted; it must be an error"));
        }
    }
    Ok(())
}
