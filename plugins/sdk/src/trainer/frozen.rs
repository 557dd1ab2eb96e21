//! What lies frozen below parameter groups: slots, what empties them, and the abilities of the boundary that use them.

use super::{Trainer, in_pool};
use crate::{Batch, ModelPlugin, PluginError, PluginResult, Precision, Shared, parameters::Flat};
use burn::tensor::Tensor;
use equivbench_abi::{self as abi, Weights};
use std::{collections::BTreeMap, ops::Range};

/// What was kept, by group and slot.
pub(super) type Slots = BTreeMap<(String, u64), Shared>;

impl<M: ModelPlugin> Trainer<M> {
    /// Keeps what lies below a group for `copies` rotated copies of the same samples, with the raw weights, in a slot.
    ///
    /// # Errors
    /// A group that cannot be frozen below, or a batch that is not made of such copies or that the model cannot read; the slot is empty
    /// then.
    pub fn freeze(
        &mut self,
        group: &str,
        slot: u64,
        raw: &abi::Batch<'_>,
        copies: usize,
    ) -> PluginResult<()> {
        if !M::frozen_groups().contains(&group) {
            let ability = abi::FROZEN_BELOW;
            return Err(PluginError::Unsupported(format!("{ability}:{group}")));
        }
        let key = (group.to_owned(), slot);
        self.frozen.remove(&key);
        let batch = Batch::new(raw, &self.device, self.evaluation, None)?;
        batch.check_copies(copies)?;
        let device = self.device.clone();
        let below = in_pool(&device, (&mut *self, batch), |(own, batch)| {
            own.for_prediction(Weights::Raw)?
                .below(group, &batch, copies)
        })?;
        self.frozen.insert(key, below);
        Ok(())
    }

    /// The prediction of the batch in a slot, `[rows, width]`.
    ///
    /// # Errors
    /// An empty slot.
    pub fn predict_above(&mut self, group: &str, slot: u64) -> PluginResult<Tensor<2>> {
        self.with_slot(group, slot, |own, below| {
            own.for_prediction(Weights::Raw)?.above(group, below)
        })
    }

    /// Gradient of `sum(cotangent · prediction)` with respect to a group, flattened, in the precision of predictions.
    ///
    /// # Errors
    /// An empty slot, or a cotangent of another shape than the prediction.
    pub fn vjp_above(&mut self, group: &str, slot: u64, cotangent: Vec<f64>) -> PluginResult<Flat> {
        let members = self.group(group)?;
        self.with_slot(group, slot, |own, below| {
            own.check_whole()?;
            let model = own.for_evaluation(own.model.clone());
            let prediction = model.above(group, below)?;
            own.pulled_back(&model, prediction, cotangent, &members, own.evaluation)
        })
    }

    /// Rows of the features of a linear group, `[rows, width]` or `[rows, blocks * width]`.
    ///
    /// # Errors
    /// An empty slot, a group that is not linear, or rows that are not there.
    pub fn features(
        &mut self,
        group: &str,
        slot: u64,
        rows: Range<usize>,
    ) -> PluginResult<Tensor<2>> {
        self.with_slot(group, slot, |own, below| {
            own.for_prediction(Weights::Raw)?
                .features(group, below, rows)
        })
    }

    /// Empties a slot of a group, or all of them.
    pub fn release(&mut self, group: &str, slot: Option<u64>) {
        self.frozen
            .retain(|(of, number), _| of != group || slot.is_some_and(|slot| slot != *number));
    }

    /// Before parameters are changed: empties the slots of every group that does not hold all of them.
    pub(super) fn release_outside(&mut self, changed: &[usize]) -> PluginResult<()> {
        for group in M::frozen_groups() {
            let members = self.group(group)?;
            if !changed.iter().all(|parameter| members.contains(parameter)) {
                self.release(group, None);
            }
        }
        Ok(())
    }

    fn with_slot<R: Send>(
        &mut self,
        group: &str,
        slot: u64,
        work: impl FnOnce(&mut Self, &Shared) -> PluginResult<R> + Send,
    ) -> PluginResult<R> {
        let key = (group.to_owned(), slot);
        let Some(below) = self.frozen.remove(&key) else {
            let filled = self.frozen.keys().filter(|(of, _)| of == group);
            let filled: Vec<String> = filled.map(|(_, number)| number.to_string()).collect();
            return Err(PluginError::BadRequest(format!(
                "slot {slot} holds nothing that lies below group \"{group}\" (filled: {}); a training step, a loaded state and new parameters \
                 of anything else empty all slots",
                filled.join(", ")
            )));
        };
        let device = self.device.clone();
        let (below, answer) = in_pool(&device, (&mut *self, below), |(own, below)| {
            let answer = work(own, &below);
            (below, answer)
        });
        self.frozen.insert(key, below);
        answer
    }

    /// Runs one of the abilities that go with [`abi::FROZEN_BELOW`]; the numbers to write.
    pub(super) fn run_frozen(
        &mut self,
        ability: &str,
        group: &str,
        raw: &abi::Batch<'_>,
        input: &[f64],
    ) -> PluginResult<Vec<f64>> {
        if !M::frozen_groups().contains(&group) {
            return Err(PluginError::Unsupported(format!("{ability}:{group}")));
        }
        let numbers = |x: Tensor<2>| x.into_data().iter::<f64>().collect();
        match (ability, raw.samples, input) {
            (abi::FROZEN_BELOW, 0, []) => self.release(group, None),
            (abi::FROZEN_BELOW, 0, &[slot]) => self.release(group, Some(whole(slot)?)),
            (abi::FROZEN_BELOW, 1.., &[slot, copies]) => {
                self.freeze(group, whole(slot)?, raw, whole(copies)? as usize)?;
            }
            (abi::PREDICT_ABOVE, 0, &[slot]) => {
                return self.predict_above(group, whole(slot)?).map(numbers);
            }
            (abi::VJP_ABOVE, 0, [slot, cotangent @ ..]) => {
                let product = self.vjp_above(group, whole(*slot)?, cotangent.to_vec())?;
                let Flat::F64(parts) = product.to_precision(Precision::F64) else {
                    unreachable!("f64 was asked for")
                };
                return Ok(parts.concat());
            }
            (abi::FEATURES, 0, &[slot, first, rows]) => {
                let (first, rows) = (whole(first)? as usize, whole(rows)? as usize);
                if rows > 0 {
                    let rows = first..first.saturating_add(rows);
                    return self.features(group, whole(slot)?, rows).map(numbers);
                }
            }
            (_, samples, input) => {
                return Err(PluginError::BadRequest(format!(
                    "{ability}:{group} does not take {} numbers and a batch of {samples} samples",
                    input.len()
                )));
            }
        }
        Ok(Vec::new())
    }
}

/// A number that counts something.
fn whole(number: f64) -> PluginResult<u64> {
    // Beyond that not every whole number is an f64.
    if number >= 0.0 && number < 2f64.powi(53) && number.fract() == 0.0 {
        return Ok(number as u64);
    }
    Err(PluginError::BadRequest(format!(
        "{number} is no whole number from 0 on"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        LinearGroupDescriptor, Recipe, linear_map, rows_within, testing::frozen_deviations,
    };
    use abi::{
        ElementType, Field, FieldKind, Model as _, Rows,
        abi_stable::std_types::{RSlice, RStr},
    };
    use burn::{
        config::Config,
        module::{Module, Param},
        tensor::{Device, TensorData},
    };
    use equivbench_abi::descriptor::ModelRequest;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// How often what lies below was computed, by the width of the model: tests run side by side.
    static PASSES: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];

    #[derive(Config, Debug)]
    struct TwoMapsConfig {
        width: usize,
    }

    /// `tanh(x A) B + b`.
    #[derive(Module, Debug)]
    struct TwoMaps {
        lift: Param<Tensor<2>>,
        head: Param<Tensor<2>>,
        shift: Param<Tensor<2>>,
    }

    impl TwoMaps {
        fn hidden(&self, batch: &Batch<'_>) -> PluginResult<Tensor<2>> {
            Ok(batch
                .tensor::<2>("positions")?
                .matmul(self.lift.val())
                .tanh())
        }

        fn last(&self, hidden: Tensor<2>) -> Tensor<2> {
            hidden.matmul(self.head.val())
        }
    }

    impl ModelPlugin for TwoMaps {
        type Config = TwoMapsConfig;
        const NAME: &'static str = "two-maps";

        fn sizes() -> Vec<(&'static str, TwoMapsConfig)> {
            vec![("four", TwoMapsConfig::new(4))]
        }

        fn init(config: &TwoMapsConfig, device: &Device) -> Self {
            let filled = |rows: usize, columns: usize| {
                let values: Vec<f32> = (0..rows * columns)
                    .map(|k| (k as f32 * 1.3).sin())
                    .collect();
                Param::from_tensor(Tensor::from_data(
                    TensorData::new(values, [rows, columns]),
                    device,
                ))
            };
            let width = config.width;
            Self {
                lift: filled(3, width),
                head: filled(width, 3),
                shift: filled(1, 3),
            }
        }

        fn forward(&self, batch: &Batch<'_>) -> PluginResult<Tensor<2>> {
            Ok(self.last(self.hidden(batch)?) + self.shift.val())
        }

        fn recipe(_: &TwoMapsConfig) -> Recipe {
            Recipe::adamw(1e-2)
        }

        fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
            vec![
                ("head", vec!["head", "shift"]),
                ("map", vec!["head"]),
                ("lift", vec!["lift"]),
            ]
        }

        fn frozen_groups() -> Vec<&'static str> {
            vec!["head", "map"]
        }

        fn below(&self, _: &str, batch: &Batch<'_>, copies: usize) -> PluginResult<Shared> {
            assert_eq!(
                batch.part(0..batch.samples() / copies).points() * copies,
                batch.points()
            );
            let hidden = self.hidden(batch)?;
            PASSES[hidden.dims()[1]].fetch_add(1, Ordering::Relaxed);
            Ok(Shared::new(hidden))
        }

        fn above(&self, _: &str, below: &Shared) -> PluginResult<Tensor<2>> {
            Ok(self.last(below.get::<Tensor<2>>()?.clone()) + self.shift.val())
        }

        fn linear_groups(config: &TwoMapsConfig) -> Vec<LinearGroupDescriptor> {
            let width = config.width as u64;
            let bias = (0..3u64).map(move |c| 3 * width + c);
            let map = linear_map("head", config.width, 3, true);
            let index = map.index.chunks(config.width).zip(bias);
            vec![LinearGroupDescriptor {
                width: width + 1,
                index: index
                    .flat_map(|(own, bias)| own.iter().copied().chain([bias]))
                    .collect(),
                ..map
            }]
        }

        fn features(&self, _: &str, below: &Shared, rows: Range<usize>) -> PluginResult<Tensor<2>> {
            let hidden = below.get::<Tensor<2>>()?.clone();
            rows_within(&rows, hidden.dims()[0])?;
            let ones = hidden.clone().narrow(1, 0, 1).ones_like();
            Ok(Tensor::cat(vec![hidden, ones], 1).narrow(0, rows.start, rows.len()))
        }
    }

    fn open(width: usize, precision: &str) -> Trainer<TwoMaps> {
        Trainer::open(&ModelRequest {
            config: format!("{{\"width\": {width}}}"),
            precision: precision.into(),
            ..ModelRequest::default()
        })
        .unwrap()
    }

    /// Samples of two points and one, `copies` times, with species, and targets for a step.
    fn lend<R>(copies: usize, species: &[i64], call: impl FnOnce(abi::Batch<'_>) -> R) -> R {
        let points = 3 * copies;
        let offsets: Vec<u64> = (0..=2 * copies as u64)
            .map(|s| s / 2 * 3 + s % 2 * 2)
            .collect();
        let positions: Vec<f64> = (0..3 * points).map(|k| (0.9 * k as f64).cos()).collect();
        let (shape, flat) = ([points as u64, 3], [points as u64]);
        let field = |name, element: ElementType, kind: FieldKind, shape, bytes| Field {
            name: RStr::from_str(name),
            kind: kind.code(),
            rows: Rows::Point.code(),
            element: element.code(),
            shape: RSlice::from_slice(shape),
            bytes: RSlice::from_slice(bytes),
        };
        let bytes: &[u8] = bytemuck::cast_slice(&positions);
        let vector = |name| field(name, ElementType::F64, FieldKind::Vector, &shape[..], bytes);
        let labels = bytemuck::cast_slice(&species[..points]);
        let labels = field(
            "species",
            ElementType::I64,
            FieldKind::Invariant,
            &flat[..],
            labels,
        );
        let fields = [vector("positions"), labels, vector("target")];
        call(abi::Batch {
            samples: 2 * copies as u64,
            offsets: RSlice::from_slice(&offsets),
            fields: RSlice::from_slice(&fields),
        })
    }

    const SPECIES: [i64; 9] = [1, 6, 8, 1, 6, 8, 1, 6, 8];

    #[test]
    fn answers_are_those_of_the_whole_model_also_for_other_parameters_of_the_group() {
        // Rounding of sums of five terms: 1e-16 in f64, 6e-8 in f32.
        for (precision, limit) in [("f64", 1e-14), ("f32", 2e-6), ("f32+f64", 1e-14)] {
            let mut trainer = open(5, precision);
            for group in ["head", "map"] {
                let found = lend(3, &SPECIES, |raw| {
                    frozen_deviations(&mut trainer, &raw, 3, group)
                })
                .unwrap();
                // What crosses in f32, gradients of the whole model among it, is rounded to it.
                let products = if precision == "f32+f64" { 2e-6 } else { limit };
                assert!(
                    found.predictions < limit && found.products < products,
                    "{precision}: {found:?}"
                );
                assert_eq!(found.features.is_some(), group == "head");
                assert!(
                    found.features.unwrap_or(0.0) < limit,
                    "{precision}: {found:?}"
                );
            }
        }
    }

    #[test]
    fn what_lies_below_is_computed_once_for_any_number_of_products() {
        let mut trainer = open(6, "f64");
        let passes = || PASSES[6].load(Ordering::Relaxed);
        lend(1, &SPECIES, |raw| trainer.freeze("head", 0, &raw, 1)).unwrap();
        let zeros = vec![0u8; 8 * 21];
        for _ in 0..3 {
            trainer.write_group("head", &zeros).unwrap();
            trainer.vjp_above("head", 0, vec![1.0; 9]).unwrap();
            trainer.predict_above("head", 0).unwrap();
        }
        assert_eq!(passes(), 1);
    }

    #[test]
    fn whatever_changes_what_lies_below_empties_the_slots_and_nothing_else_does() {
        let mut trainer = open(4, "f64");
        let fill = |trainer: &mut Trainer<TwoMaps>| {
            for (group, slot) in [("head", 0), ("head", 3), ("map", 0)] {
                lend(1, &SPECIES, |raw| trainer.freeze(group, slot, &raw, 1)).unwrap();
            }
        };
        let filled = |trainer: &mut Trainer<TwoMaps>| {
            [("head", 0), ("head", 3), ("map", 0)]
                .map(|(group, slot)| trainer.predict_above(group, slot).is_ok())
        };
        let state = trainer.save().into_result().unwrap();
        let set = |trainer: &mut Trainer<TwoMaps>, group: &str| {
            let Flat::F64(values) = trainer.read_group(group).unwrap() else {
                panic!()
            };
            trainer
                .write_group(group, bytemuck::cast_slice(&values.concat()))
                .unwrap();
        };
        let step = |trainer: &mut Trainer<TwoMaps>| {
            lend(1, &SPECIES, |raw| Trainer::train_step(trainer, &raw)).unwrap();
        };
        type Change<'a> = &'a dyn Fn(&mut Trainer<TwoMaps>);
        let changes: [(&str, Change<'_>, [bool; 3]); 8] = [
            ("map", &|t| set(t, "map"), [true, true, true]),
            ("head", &|t| set(t, "head"), [true, true, false]),
            ("lift", &|t| set(t, "lift"), [false, false, false]),
            ("all", &|t| set(t, "all"), [false, false, false]),
            ("step", &|t| step(t), [false, false, false]),
            (
                "load",
                &|t| t.load(RSlice::from_slice(&state)).into_result().unwrap(),
                [false, false, false],
            ),
            (
                "one slot",
                &|t| t.release("head", Some(3)),
                [true, false, true],
            ),
            (
                "a group",
                &|t| t.release("head", None),
                [false, false, true],
            ),
        ];
        for (name, change, expected) in changes {
            fill(&mut trainer);
            assert_eq!(filled(&mut trainer), [true; 3]);
            change(&mut trainer);
            assert_eq!(filled(&mut trainer), expected, "{name}");
        }
        // Refused values change nothing.
        fill(&mut trainer);
        assert!(trainer.write_group("all", &[0; 8]).is_err());
        assert_eq!(filled(&mut trainer), [true; 3]);
    }

    #[test]
    fn what_is_not_there_is_refused_with_the_reason() {
        let mut trainer = open(3, "f64");
        let mut run = |name: &str, copies: usize, species: &[i64], input: &[f64]| {
            let input = bytemuck::cast_slice(input);
            let call = |raw: abi::Batch<'_>| {
                let raw = if copies == 0 {
                    abi::Batch { samples: 0, ..raw }
                } else {
                    raw
                };
                trainer.run_capability(name, &raw, input)
            };
            lend(copies.max(1), species, call)
        };
        let refused = |answer: PluginResult<Vec<f64>>| answer.unwrap_err().to_string();
        run("frozen-below:head", 2, &SPECIES, &[5.0, 2.0]).unwrap();
        for (name, copies, input, why) in [
            (
                "frozen-below:lift",
                2,
                &[0.0, 2.0][..],
                "capability \"frozen-below:lift\" is not offered",
            ),
            (
                "predict-above:no-such",
                0,
                &[0.0],
                "capability \"predict-above:no-such\"",
            ),
            (
                "predict-above:head",
                0,
                &[4.0],
                "slot 4 holds nothing that lies below group \"head\" (filled: 5)",
            ),
            ("predict-above:head", 0, &[0.5], "0.5 is no whole number"),
            (
                "predict-above:head",
                0,
                &[f64::NAN],
                "NaN is no whole number",
            ),
            (
                "predict-above:head",
                1,
                &[5.0],
                "does not take 1 numbers and a batch of 2 samples",
            ),
            (
                "vjp-above:head",
                0,
                &[5.0, 1.0],
                "the cotangent has 1 numbers, the prediction [6, 3]",
            ),
            (
                "features:head",
                0,
                &[5.0, 4.0, 3.0],
                "rows 4 to 7 of the features were asked for, there are 6",
            ),
            (
                "frozen-below:head",
                2,
                &[0.0, 3.0],
                "a batch of 4 samples does not hold 3 copies",
            ),
            (
                "frozen-below:head",
                2,
                &[0.0, 0.0],
                "a batch of 4 samples does not hold 0 copies",
            ),
            (
                "frozen-below:head",
                3,
                &[0.0, 2.0],
                "copy 1 of the samples has other sizes",
            ),
        ] {
            let text = refused(run(name, copies, &SPECIES, input));
            assert!(text.contains(why), "{name}: {text}");
        }
        let text = refused(run(
            "frozen-below:head",
            2,
            &[1, 6, 8, 1, 6, 7],
            &[0.0, 2.0],
        ));
        assert!(
            text.contains("copy 1 of the samples has another field \"species\""),
            "{text}"
        );
        assert!(
            run("features:head", 0, &SPECIES, &[5.0, 2.0, 0.0])
                .unwrap()
                .is_empty()
        );
        assert_eq!(
            run("features:head", 0, &SPECIES, &[5.0, 2.0, 2.0])
                .unwrap()
                .len(),
            8
        );
        run("frozen-below:head", 0, &SPECIES, &[5.0]).unwrap();
        assert!(refused(run("predict-above:head", 0, &SPECIES, &[5.0])).contains("(filled: )"));
    }
}
