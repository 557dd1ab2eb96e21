//! Numbers through the boundary: both precisions, labels withheld, wrong numbers refused with their place.
#![expect(dead_code, reason = "the support module serves several tests")]

mod support;

use equivbench_abi::{
    code,
    descriptor::{DatasetRequest, ModelRequest},
};
use equivbench_core::{Batch, CoreError, Dataset, Field, FieldKind, Model, Rows, Values, Weights};
use equivbench_host::{HostError, Library, LoadedDataset, LoadedModel};
use support::fixture;

fn library() -> Library {
    Library::open(&fixture("misbehaving")).unwrap()
}

fn request(model: &str, precision: &str) -> ModelRequest {
    ModelRequest {
        model: model.into(),
        precision: precision.into(),
        seed: 5,
        ..ModelRequest::default()
    }
}

fn model(name: &str, precision: &str) -> LoadedModel {
    library().open_model(&request(name, precision)).unwrap()
}

fn dataset(name: &str) -> LoadedDataset {
    library()
        .open_dataset(&DatasetRequest {
            dataset: name.into(),
            ..DatasetRequest::default()
        })
        .unwrap()
}

/// Two samples of two and one atoms.
fn batch() -> Batch {
    let positions = vec![0.1, 0.2, 0.3, 1.1, -0.7, 0.5, 0.4, 0.9, -1.3];
    let target = vec![1.0; 9];
    Batch {
        offsets: vec![0, 2, 3],
        fields: vec![
            Field::real(
                "positions",
                FieldKind::Vector,
                Rows::Point,
                vec![3, 3],
                positions,
            ),
            Field {
                name: "species".into(),
                kind: FieldKind::Invariant,
                rows: Rows::Point,
                shape: vec![3],
                values: Values::Index(vec![1, 6, 8]),
            },
            Field::real("target", FieldKind::Vector, Rows::Point, vec![3, 3], target),
        ],
    }
}

fn train(model: &mut LoadedModel, steps: usize) {
    for _ in 0..steps {
        model.train_step(&batch()).unwrap();
    }
}

fn by_hand(parameters: &[f64], batch: &Batch) -> Vec<f64> {
    let positions = batch.field("positions").unwrap().reals().unwrap();
    let row = |x: &[f64], r: usize| {
        parameters[9 + r] + (0..3).map(|c| parameters[3 * r + c] * x[c]).sum::<f64>()
    };
    positions
        .chunks_exact(3)
        .flat_map(|x| [row(x, 0), row(x, 1), row(x, 2)])
        .collect()
}

#[test]
fn predictions_agree_with_a_sum_by_hand_in_both_precisions() {
    // f64 rounds at 2.2e-16, f32 at 6e-8; both sums have four terms of size 1.
    for (precision, tolerance) in [("f64", 1e-15), ("f32", 5e-7)] {
        let mut model = model("good", precision);
        let (mut parameters, mut out) = (Vec::new(), Vec::new());
        model.parameters_into("all", &mut parameters).unwrap();
        model
            .predict_into(&batch(), Weights::Raw, &mut out)
            .unwrap();
        let largest = out
            .iter()
            .zip(by_hand(&parameters, &batch()))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        assert!(largest <= tolerance, "{precision}: {largest}");
        assert_eq!(model.is_double(), precision == "f64");
    }
}

#[test]
fn training_moves_the_loss_and_reports_its_figures() {
    let mut model = model("good", "f32");
    let first = model.train_step(&batch()).unwrap();
    let last = (0..50)
        .map(|_| model.train_step(&batch()).unwrap())
        .last()
        .unwrap();
    assert!(
        last.loss < 0.5 * first.loss,
        "{} -> {}",
        first.loss,
        last.loss
    );
    assert_eq!(first.lr, 0.05);
    assert!(first.gradient_norm > 0.0);
    model.synchronise().unwrap();
}

#[test]
fn a_model_never_sees_the_answer_while_it_predicts() {
    let mut model = model("good", "f64");
    let mut with_labels = batch();
    with_labels.fields[2].values = Values::Real(vec![f64::NAN; 9]);
    let mut out = Vec::new();
    // A label that is not a number would be refused as an input; that the call succeeds shows that it was not passed on.
    model
        .predict_into(&with_labels, Weights::Raw, &mut out)
        .unwrap();
    model
        .vjp_into(&with_labels, &[1.0; 9], "all", &mut out)
        .unwrap();
    assert!(matches!(
        model.train_step(&with_labels),
        Err(CoreError::NotFinite(_))
    ));
}

#[test]
fn predictions_that_are_not_finite_are_refused_with_their_place() {
    let after = |name: &str, precision: &str| {
        let mut model = model(name, precision);
        train(&mut model, 3);
        model
            .predict_into(&batch(), Weights::Raw, &mut Vec::new())
            .unwrap_err()
            .to_string()
    };
    for precision in ["f32", "f64"] {
        let text = after("predicts-nan", precision);
        assert!(
            text.contains("plugin \"misbehaving\"")
                && text.contains("NaN in row 0, column 0 (sample 0 of the batch)"),
            "{text}"
        );
        let text = after("half-written", precision);
        assert!(
            text.contains("left unwritten")
                && text.contains("row 1, column 1 (sample 0 of the batch)"),
            "{text}"
        );
        let text = after("wrong-shape", precision);
        assert!(
            text.contains("6 numbers to write, the host's buffer has 9"),
            "{text}"
        );
    }
}

#[test]
fn inputs_that_are_not_finite_are_refused_with_their_place() {
    let mut bad = batch();
    let Values::Real(values) = &mut bad.fields[0].values else {
        unreachable!()
    };
    values[7] = 1e300;
    let text = model("good", "f32")
        .predict_into(&bad, Weights::Raw, &mut Vec::new())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("field \"positions\"") && text.contains("row 2 (sample 1 of the batch)"),
        "{text}"
    );
    model("good", "f64")
        .predict_into(&bad, Weights::Raw, &mut Vec::new())
        .unwrap();
}

#[test]
fn a_loss_that_is_not_finite_is_handed_on() {
    let mut model = model("loss-nan", "f32");
    let losses: Vec<f64> = (0..6)
        .map(|_| model.train_step(&batch()).unwrap().loss)
        .collect();
    assert!(
        losses[3].is_finite() && losses[4].is_nan() && losses[5].is_nan(),
        "{losses:?}"
    );
}

#[test]
fn a_panic_behind_a_guard_is_an_error_with_the_plugins_name() {
    let mut model = model("panics", "f32");
    model.train_step(&batch()).unwrap();
    model.train_step(&batch()).unwrap();
    let text = model.train_step(&batch()).unwrap_err().to_string();
    assert!(
        text.contains("plugin \"misbehaving\": plugin panicked"),
        "{text}"
    );
}

#[test]
#[ignore = "run by another test, which expects this process to end"]
fn trains_the_model_of_the_environment() {
    let Ok(name) = std::env::var("EQUIVBENCH_FIXTURE_MODEL") else {
        return;
    };
    train(&mut model(&name, "f32"), 4);
}

#[cfg(unix)]
#[test]
fn every_way_in_which_a_plugin_ends_a_process_is_told_apart() {
    use equivbench_host::{Ending, run_child};
    use std::{process::Command, time::Duration};
    // Only the model that hangs meets a limit, and then a short one does.
    let [short, long] = [2, 600].map(Duration::from_secs);
    for (name, ending) in [
        ("segfaults", Ending::Signal(11)),
        ("aborts", Ending::Signal(6)),
        ("exits", Ending::Status(3)),
        ("panics-unguarded", Ending::Status(1)),
        ("hangs", Ending::TimedOut(short)),
        ("good", Ending::Status(0)),
    ] {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "trains_the_model_of_the_environment",
                "--ignored",
            ])
            .env("EQUIVBENCH_FIXTURE_MODEL", name);
        let limit = if name == "hangs" { short } else { long };
        assert_eq!(run_child(command, limit).unwrap().ending, ending, "{name}");
    }
}

#[test]
fn unknown_models_groups_weights_devices_and_abilities_are_refused() {
    let library = library();
    assert!(matches!(
        library.open_model(&request("no-such", "f32")),
        Err(HostError::Plugin {
            code: code::BAD_REQUEST,
            ..
        })
    ));
    let cuda = ModelRequest {
        device: "cuda:0".into(),
        ..request("good", "f32")
    };
    assert!(matches!(
        library.open_model(&cuda),
        Err(HostError::Device { .. })
    ));
    let mut model = model("good", "f32");
    assert!(matches!(
        model.parameters_into("head", &mut Vec::new()),
        Err(CoreError::Unknown { .. })
    ));
    assert!(matches!(
        model.predict_into(&batch(), Weights::Ema, &mut Vec::new()),
        Err(CoreError::Unknown { .. })
    ));
    assert!(matches!(
        model.exact_twirl(&batch()),
        Err(HostError::Plugin {
            code: code::UNSUPPORTED,
            ..
        })
    ));
    assert!(matches!(
        model.set_parameters("all", &[1.0; 11]),
        Err(CoreError::Model(_))
    ));
    assert!(matches!(
        model.vjp_into(&batch(), &[1.0; 8], "all", &mut Vec::new()),
        Err(CoreError::Shape(_))
    ));
}

#[test]
fn what_lies_frozen_below_a_group_answers_for_the_whole_model_in_both_precisions() {
    for precision in ["f32", "f64"] {
        let mut model = model("freezes", precision);
        assert_eq!(model.groups(), [("all".to_owned(), 12)]);
        let (mut whole, mut gradient, mut out) = (Vec::new(), Vec::new(), Vec::new());
        model
            .frozen_below("all")
            .unwrap()
            .freeze(2, &batch(), 1)
            .unwrap();
        model.set_parameters("all", &[0.25; 12]).unwrap();
        model
            .predict_into(&batch(), Weights::Raw, &mut whole)
            .unwrap();
        let cotangent: Vec<f64> = (0..9).map(f64::from).collect();
        model
            .vjp_into(&batch(), &cotangent, "all", &mut gradient)
            .unwrap();
        let mut below = model.frozen_below("all").unwrap();
        // The precision of an instance is that of its weights and inputs; what is written in f64 is rounded no further.
        let near = |a: &[f64], b: &[f64]| {
            a.iter()
                .zip(b)
                .all(|(a, b)| (a - b).abs() < 1e-6 * b.abs().max(1.0))
        };
        below.predict_into(2, &mut out).unwrap();
        assert!(out.len() == 9 && near(&out, &whole), "{out:?} {whole:?}");
        below.vjp_into(2, &cotangent, &mut out).unwrap();
        assert!(
            out.len() == 12 && near(&out, &gradient),
            "{out:?} {gradient:?}"
        );
        let linear = below.linear().unwrap();
        below.features_into(2, 1..3, &mut out).unwrap();
        assert!(near(&linear.apply(&out, &[0.25; 12]), &whole[3..]));
        below.release().unwrap();
        assert!(below.predict_into(2, &mut out).is_err());
    }
}

#[test]
fn slots_rows_and_groups_that_are_not_there_are_refused() {
    assert!(model("good", "f64").frozen_below("all").is_none());
    let mut model = model("freezes", "f64");
    assert!(model.frozen_below("head").is_none());
    let mut below = model.frozen_below("all").unwrap();
    let mut out = Vec::new();
    let text = below.predict_into(4, &mut out).unwrap_err().to_string();
    assert!(
        text.contains("no batch was frozen below group \"all\" in slot 4"),
        "{text}"
    );
    // Two samples are no three copies of anything; the batch has three atoms.
    assert!(matches!(
        below.freeze(0, &batch(), 3),
        Err(CoreError::Shape(_))
    ));
    below.freeze(0, &batch(), 1).unwrap();
    assert!(matches!(
        below.features_into(0, 2..4, &mut out),
        Err(CoreError::Shape(_))
    ));
    assert!(matches!(
        below.vjp_into(0, &[1.0; 8], &mut out),
        Err(CoreError::Shape(_))
    ));
    drop(below);
    train(&mut model, 1);
    let mut below = model.frozen_below("all").unwrap();
    let text = below.predict_into(0, &mut out).unwrap_err().to_string();
    assert!(text.contains("the slot is empty"), "{text}");
    drop(below);
    assert!(!model.project_equivariant(&mut vec![1.0]).unwrap());
}

#[test]
fn kernels_that_a_plugin_does_not_take_are_refused() {
    let ask = |kernels: &str| {
        library().open_model(&ModelRequest {
            kernels: kernels.into(),
            ..request("good", "f32")
        })
    };
    assert!(ask("auto").is_ok());
    let Err(error) = ask("plain") else {
        panic!("the fixture knows nothing of kernels")
    };
    let text = error.to_string();
    assert!(
        text.contains("kernels \"plain\" were asked for, and it does not say which it takes"),
        "{text}"
    );
}

#[test]
fn a_saved_model_continues_bit_for_bit() {
    let (mut a, mut b) = (model("good", "f32"), model("good", "f32"));
    train(&mut a, 4);
    b.load(&a.save().unwrap()).unwrap();
    assert_eq!(
        a.train_step(&batch()).unwrap(),
        b.train_step(&batch()).unwrap()
    );
    assert!(b.load(b"no state").is_err());
}

#[test]
fn samples_arrive_in_order_and_in_the_core_s_types() {
    let mut data = dataset("good-data");
    assert_eq!((data.samples("train"), data.samples("nowhere")), (64, 0));
    let pair = data.load("train", &[7, 2]).unwrap();
    let (seven, two) = (
        data.load("train", &[7]).unwrap(),
        data.load("train", &[2]).unwrap(),
    );
    assert_eq!(
        pair.offsets,
        [0, seven.points(), seven.points() + two.points()]
    );
    let reals = |batch: &Batch, field: &str| batch.field(field).unwrap().reals().unwrap().to_vec();
    for field in ["positions", "forces", "energy"] {
        assert_eq!(
            reals(&pair, field),
            [reals(&seven, field), reals(&two, field)].concat(),
            "{field}"
        );
    }
    assert_eq!(pair.field("positions").unwrap().shape, [pair.points(), 3]);
    assert!(
        matches!(&pair.field("species").unwrap().values, Values::Index(v) if v.iter().all(|&z| z > 0))
    );
}

#[test]
fn a_sample_that_is_not_finite_is_named() {
    let mut data = dataset("nan-data");
    data.load("train", &[0, 1, 3]).unwrap();
    let text = data.load("train", &[5, 2]).err().unwrap().to_string();
    assert!(
        text.contains("split \"train\", sample 2: field \"forces\" holds NaN in row 0"),
        "{text}"
    );
    assert!(data.load_unchecked("train", &[2]).is_ok());
}

#[test]
fn indices_beyond_a_split_and_unknown_splits_are_refused() {
    let mut data = dataset("good-data");
    assert!(matches!(
        data.load("train", &[64]),
        Err(CoreError::Dataset(_))
    ));
    assert!(matches!(
        data.load("nowhere", &[0]),
        Err(CoreError::Dataset(_))
    ));
}

#[test]
fn groups_arrive_in_the_order_of_the_indices() {
    let mut data = dataset("good-data");
    // Samples 2 k and 2 k + 1 are of one group; the split "valid" begins at sample 64.
    assert_eq!(
        data.groups("train", &[7, 2, 6]).unwrap(),
        Some(vec![3, 1, 3])
    );
    assert_eq!(data.groups("valid", &[0, 15]).unwrap(), Some(vec![32, 39]));
    assert_eq!(data.groups("train", &[]).unwrap(), Some(Vec::new()));
    assert!(matches!(
        data.groups("train", &[64]),
        Err(CoreError::Dataset(_))
    ));
}

#[test]
fn a_dataset_need_not_know_groups_but_may_not_leave_one_out() {
    assert_eq!(
        dataset("groupless-data").groups("train", &[0, 3]).unwrap(),
        None
    );
    let mut data = dataset("half-grouped-data");
    assert!(data.groups("train", &[0, 2]).is_ok());
    let text = data.groups("train", &[0, 3]).unwrap_err().to_string();
    assert!(
        text.contains("split \"train\": the group of sample 3 was left unwritten"),
        "{text}"
    );
}
