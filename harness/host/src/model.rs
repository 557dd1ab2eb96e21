//! A plugin's model as the harness sees it.

use crate::{
    HostError,
    convert::{
        Staging, check_inputs, in_double, incoming, kind_of, name_of, outgoing, precision_of,
        received, rows_of, widen,
    },
    frozen::{Frozen, FrozenSizes, KeepsBelow, linear_groups, no_batch},
};
use equivbench_abi::{
    self as abi, AbiError, ModelBox,
    descriptor::{FieldDescriptor, GroupDescriptor, InstanceDescriptor, ModelDescriptor},
};
use equivbench_core::{
    Batch, CoreError, FieldKind, FrozenBelow, LatentInfo, LinearGroup, Model, Precision, Rows,
    StepFigures, Values, Weights, first_that,
};
use std::{
    cell::Cell,
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What a model must not see while it predicts: the answers. [`Model::train_step`] passes everything.
const LABELS: [&str; 3] = ["target", "energy", "forces"];

fn is_input(field: &str) -> bool {
    !LABELS.contains(&field)
}

fn is_any(_: &str) -> bool {
    true
}

/// A model of a plugin, open and ready to train.
pub struct LoadedModel {
    plugin: String,
    object: ModelBox,
    descriptor: ModelDescriptor,
    instance: InstanceDescriptor,
    latents: Vec<LatentInfo>,
    precision: Precision,
    output_kind: FieldKind,
    output_rows: Rows,
    /// Groups in which the prediction is linear.
    linear: BTreeMap<String, LinearGroup>,
    frozen: FrozenSizes,
    staging: Staging,
    sent: Vec<f32>,
    received: Vec<f32>,
    busy: Busy,
}

impl LoadedModel {
    pub(crate) fn new(
        plugin: &str,
        descriptor: ModelDescriptor,
        object: ModelBox,
    ) -> Result<Self, HostError> {
        let text = object
            .describe()
            .into_result()
            .map_err(|e| HostError::answered(plugin, e))?;
        let instance: InstanceDescriptor = serde_json::from_str(text.as_str()).map_err(|e| {
            HostError::nonsense(
                plugin,
                format!(
                    "the description of model {} cannot be read: {e}",
                    descriptor.name
                ),
            )
        })?;
        let unknown = |what: &str, value: &str| {
            HostError::nonsense(
                plugin,
                format!(
                    "model {}: {what} \"{value}\" is not known to this program",
                    descriptor.name
                ),
            )
        };
        let output = &descriptor.output;
        let linear = linear_groups(&instance.linear).map_err(|what| {
            HostError::nonsense(plugin, format!("model {}: {what}", descriptor.name))
        })?;
        let latent = |field: &FieldDescriptor| {
            Ok(LatentInfo {
                name: field.name.clone(),
                kind: kind_of(&field.kind).ok_or_else(|| unknown("latent kind", &field.kind))?,
                rows: rows_of(&field.rows).ok_or_else(|| unknown("latent rows", &field.rows))?,
                width: field.width.iter().map(|&n| n as usize).collect(),
            })
        };
        let latents: Result<_, HostError> = instance.latents.iter().map(latent).collect();
        Ok(Self {
            plugin: plugin.to_owned(),
            precision: precision_of(&instance.precision)
                .ok_or_else(|| unknown("precision", &instance.precision))?,
            output_kind: kind_of(&output.kind)
                .ok_or_else(|| unknown("output kind", &output.kind))?,
            output_rows: rows_of(&output.rows)
                .ok_or_else(|| unknown("output rows", &output.rows))?,
            latents: latents?,
            object,
            descriptor,
            instance,
            linear,
            frozen: FrozenSizes::new(),
            staging: Staging::default(),
            sent: Vec::new(),
            received: Vec::new(),
            busy: Busy::default(),
        })
    }

    /// The model family: sizes, inputs, output.
    #[must_use]
    pub fn descriptor(&self) -> &ModelDescriptor {
        &self.descriptor
    }

    /// This instance: configuration, recipe, parameters, groups, device.
    #[must_use]
    pub fn instance(&self) -> &InstanceDescriptor {
        &self.instance
    }

    /// The shape of one row of an input field in this configuration; an axis of length 0 takes any.
    #[must_use]
    pub fn input_width(&self, field: &str) -> Option<Vec<usize>> {
        let all = if self.instance.inputs.is_empty() {
            &self.descriptor.inputs
        } else {
            &self.instance.inputs
        };
        let found = all.iter().find(|f| f.name == field)?;
        Some(found.width.iter().map(|&n| n as usize).collect())
    }

    /// Whether the instance computes in f64.
    #[must_use]
    pub fn is_double(&self) -> bool {
        self.precision == Precision::Double
    }

    /// Reads the description of the instance again.
    ///
    /// # Errors
    /// Whatever the model reports.
    pub fn describe(&self) -> Result<InstanceDescriptor, HostError> {
        let text = self
            .object
            .describe()
            .into_result()
            .map_err(|e| self.failed(e))?;
        serde_json::from_str(text.as_str()).map_err(|e| {
            HostError::nonsense(&self.plugin, format!("the description cannot be read: {e}"))
        })
    }

    /// Runs an optional ability by name. `input` and the `length` numbers of the answer cross in f64, whatever the precision of the
    /// instance.
    ///
    /// # Errors
    /// An ability that the model does not offer, or whatever it reports.
    pub fn capability(
        &mut self,
        name: &str,
        batch: &Batch,
        input: &[f64],
        length: usize,
    ) -> Result<Vec<f64>, HostError> {
        self.staging.fill(batch, self.precision, is_input);
        let (staging, object, busy, precision) =
            (&self.staging, &mut self.object, &self.busy, self.precision);
        let mut values = Vec::new();
        let mut written = 0;
        let call = |bytes: &mut [u8]| {
            let answer = staging.lend(batch, precision, is_input, |raw| {
                busy.during(|| {
                    object
                        .capability(
                            name.into(),
                            raw,
                            bytemuck::cast_slice(input).into(),
                            bytes.into(),
                        )
                        .into_result()
                })
            });
            written = answer? as usize;
            Ok(())
        };
        incoming(
            length,
            Precision::Double,
            &mut self.received,
            &mut values,
            call,
        )
        .map_err(|e| HostError::answered(&self.plugin, e))?;
        if written != length * size_of::<f64>() {
            let message = format!(
                "capability \"{name}\" wrote {written} bytes, {} were expected",
                length * size_of::<f64>()
            );
            return Err(HostError::nonsense(&self.plugin, message));
        }
        match values.iter().position(|v| !v.is_finite()) {
            Some(at) => Err(HostError::nonsense(
                &self.plugin,
                format!(
                    "capability \"{name}\": number {at} is {}",
                    name_of(values[at])
                ),
            )),
            None => Ok(values),
        }
    }

    /// The exact Haar averages of the capability `exact-twirl`: the twirled prediction `[rows, width]`, and for each row the mean
    /// squared distance of the twisted prediction from it.
    ///
    /// # Errors
    /// A model without the capability.
    pub fn exact_twirl(&mut self, batch: &Batch) -> Result<(Vec<f64>, Vec<f64>), HostError> {
        let (rows, width) = (self.row_count(batch), self.output_width(batch));
        let mut twirled = self.capability("exact-twirl", batch, &[], rows * width + rows)?;
        let spread = twirled.split_off(rows * width);
        Ok((twirled, spread))
    }

    /// An intermediate quantity of the prediction with the raw weights (capability `latent:NAME`), `[rows, width]` as the instance
    /// declares it.
    ///
    /// # Errors
    /// A name that the instance does not list, or whatever the model reports.
    pub fn latent(&mut self, name: &str, batch: &Batch) -> Result<Vec<f64>, HostError> {
        let Some(declared) = self.latents.iter().find(|latent| latent.name == name) else {
            let known: Vec<&str> = self.latents.iter().map(|l| l.name.as_str()).collect();
            let model = &self.instance.model;
            return Err(HostError::nonsense(
                &self.plugin,
                format!(
                    "model {model} shows no \"{name}\"; it has: {}",
                    known.join(", ")
                ),
            ));
        };
        let rows = match declared.rows {
            Rows::Point => batch.points(),
            Rows::Sample => batch.samples(),
        };
        let length = rows * declared.width.iter().product::<usize>();
        self.capability(&format!("latent:{name}"), batch, &[], length)
    }

    /// Lends the object behind the boundary together with a batch as it crosses: all fields, nothing checked. For tests of what a
    /// plugin does with input that the harness would never send.
    pub fn with_raw<R>(
        &mut self,
        batch: &Batch,
        call: impl FnOnce(&mut ModelBox, abi::Batch<'_>) -> R,
    ) -> R {
        self.staging.fill(batch, self.precision, is_any);
        let object = &mut self.object;
        self.staging
            .lend(batch, self.precision, is_any, |raw| call(object, raw))
    }

    fn failed(&self, error: AbiError) -> HostError {
        HostError::answered(&self.plugin, error)
    }

    fn row_count(&self, batch: &Batch) -> usize {
        match self.output_rows {
            Rows::Sample => batch.samples(),
            Rows::Point => batch.points(),
        }
    }

    /// Numbers in the prediction of a batch.
    fn prediction_size(&self, batch: &Batch) -> usize {
        self.row_count(batch) * self.output_width(batch)
    }

    /// Refuses a batch with inputs that a model cannot read.
    fn check_batch(&self, batch: &Batch) -> Result<(), CoreError> {
        check_inputs(batch, self.precision, is_input)
    }

    /// Number of scalars in a group.
    fn scalars_of(&self, group: &str) -> Result<usize, CoreError> {
        Ok(self.group(group)?.scalars as usize)
    }

    fn offers(&self, capability: &str) -> bool {
        self.instance.capabilities.iter().any(|c| c == capability)
    }

    fn group(&self, name: &str) -> Result<&GroupDescriptor, CoreError> {
        let groups = &self.instance.groups;
        groups
            .iter()
            .find(|g| g.name == name)
            .ok_or_else(|| CoreError::Unknown {
                what: "parameter group",
                name: name.into(),
                known: groups
                    .iter()
                    .map(|g| g.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// The parameter that owns a scalar of a group.
    fn parameter_at(&self, group: &GroupDescriptor, at: usize) -> String {
        let mut first = 0;
        for name in &group.parameters {
            let shape = self
                .instance
                .parameters
                .iter()
                .find(|p| p.name == *name)
                .map(|p| p.shape.as_slice());
            let next = first + shape.map_or(0, |s| s.iter().product::<u64>() as usize);
            if at < next {
                return format!("{name}, entry {}", at - first);
            }
            first = next;
        }
        format!("entry {at}")
    }

    fn check_prediction(&self, batch: &Batch, width: usize, out: &Values) -> Result<(), CoreError> {
        let Some((at, value)) = out.not_finite() else {
            return Ok(());
        };
        // A mark is one in the precision of the plugin only.
        let value = if let Values::Single(values) = out {
            widen(values[at])
        } else {
            value
        };
        let row = at / width.max(1);
        let sample = self.output_rows.sample_of(&batch.offsets, row);
        let place = format!(
            "row {row}, column {} (sample {sample} of the batch)",
            at % width.max(1)
        );
        Err(CoreError::NotFinite(format!(
            "plugin \"{}\": the prediction of model {} holds {} in {place}",
            self.plugin,
            self.instance.model,
            name_of(value)
        )))
    }

    fn check_weights(&self, weights: Weights) -> Result<(), CoreError> {
        if self.instance.weights.iter().any(|w| w == weights.name()) {
            return Ok(());
        }
        Err(CoreError::Unknown {
            what: "kind of weights",
            name: weights.name().into(),
            known: self.instance.weights.join(", "),
        })
    }
}

const fn weights_code(weights: Weights) -> u32 {
    match weights {
        Weights::Raw => abi::Weights::Raw.code(),
        Weights::Ema => abi::Weights::Ema.code(),
    }
}

/// Time spent inside calls.
#[derive(Debug, Default)]
struct Busy(Cell<Duration>);

impl Busy {
    fn during<R>(&self, call: impl FnOnce() -> R) -> R {
        let start = Instant::now();
        let answer = call();
        self.0.set(self.0.get() + start.elapsed());
        answer
    }
}

impl KeepsBelow for LoadedModel {
    fn capability(
        &mut self,
        name: &str,
        batch: &Batch,
        input: &[f64],
        length: usize,
    ) -> Result<Vec<f64>, HostError> {
        Self::capability(self, name, batch, input, length)
    }
    fn check_batch(&self, batch: &Batch) -> Result<(), CoreError> {
        Self::check_batch(self, batch)
    }
    fn prediction_size(&self, batch: &Batch) -> usize {
        Self::prediction_size(self, batch)
    }
    fn scalars_of(&self, group: &str) -> Result<usize, CoreError> {
        Self::scalars_of(self, group)
    }
    fn linear(&self, group: &str) -> Option<&LinearGroup> {
        self.linear.get(group)
    }
    fn sizes(&mut self) -> &mut FrozenSizes {
        &mut self.frozen
    }
}

impl Model for LoadedModel {
    fn output_kind(&self) -> FieldKind {
        self.output_kind
    }

    fn output_rows(&self) -> Rows {
        self.output_rows
    }

    /// The width of the descriptor. A 0 in it means that the width depends on the data: then it is that of the first input of the same
    /// kind and rows.
    fn output_width(&self, batch: &Batch) -> usize {
        let declared: u64 = self.descriptor.output.width.iter().product();
        let alike = |f: &&equivbench_core::Field| {
            f.kind == self.output_kind && f.rows == self.output_rows && is_input(&f.name)
        };
        match declared {
            0 => batch
                .fields
                .iter()
                .find(alike)
                .map_or(0, equivbench_core::Field::width),
            width => width as usize,
        }
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn predict_into(
        &mut self,
        batch: &Batch,
        weights: Weights,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        let mut single = std::mem::take(&mut self.received);
        let predicted = in_double(self.precision, &mut single, out, |values| {
            self.predict_values_into(batch, weights, values)
        });
        self.received = single;
        predicted
    }

    fn predict_values_into(
        &mut self,
        batch: &Batch,
        weights: Weights,
        out: &mut Values,
    ) -> Result<(), CoreError> {
        self.check_weights(weights)?;
        check_inputs(batch, self.precision, is_input)?;
        let (width, count) = (self.output_width(batch), self.prediction_size(batch));
        self.staging.fill(batch, self.precision, is_input);
        let (staging, object, busy, precision) =
            (&self.staging, &mut self.object, &self.busy, self.precision);
        let call = |bytes: &mut [u8]| {
            staging.lend(batch, precision, is_input, |raw| {
                busy.during(|| {
                    object
                        .predict_into(raw, weights_code(weights), bytes.into())
                        .into_result()
                })
            })
        };
        received(count, precision, out, call).map_err(|e| self.failed(e).of_model())?;
        self.check_prediction(batch, width, out)
    }

    /// A loss that is not finite is returned as it is: the caller knows the step and what to do.
    fn train_step(&mut self, batch: &Batch) -> Result<StepFigures, CoreError> {
        check_inputs(batch, self.precision, is_any)?;
        self.staging.fill(batch, self.precision, is_any);
        let (object, busy) = (&mut self.object, &self.busy);
        let mut report = [0.0; 3];
        let answer = self.staging.lend(batch, self.precision, is_any, |raw| {
            busy.during(|| {
                object
                    .train_step(raw, (&mut report[..]).into())
                    .into_result()
            })
        });
        answer.map_err(|e| self.failed(e).of_model())?;
        let [loss, lr, gradient_norm] = report;
        Ok(StepFigures {
            loss,
            lr,
            gradient_norm,
        })
    }

    fn vjp_into(
        &mut self,
        batch: &Batch,
        cotangent: &[f64],
        group: &str,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        check_inputs(batch, self.precision, is_input)?;
        let (rows, width) = (self.row_count(batch), self.output_width(batch));
        if cotangent.len() != rows * width {
            return Err(CoreError::Shape(format!(
                "the cotangent has {} numbers, the prediction {rows} x {width}",
                cotangent.len()
            )));
        }
        let scalars = self.group(group)?.scalars as usize;
        self.staging.fill(batch, self.precision, is_input);
        let cotangent = outgoing(cotangent, self.precision, &mut self.sent);
        let (staging, object, busy, precision) =
            (&self.staging, &mut self.object, &self.busy, self.precision);
        let call = |bytes: &mut [u8]| {
            staging.lend(batch, precision, is_input, |raw| {
                busy.during(|| {
                    object
                        .vjp_into(raw, cotangent.into(), group.into(), bytes.into())
                        .into_result()
                })
            })
        };
        incoming(scalars, precision, &mut self.received, out, call)
            .map_err(|e| self.failed(e).of_model())?;
        let Some(at) = first_that(out, |v| !v.is_finite()) else {
            return Ok(());
        };
        let place = self.parameter_at(self.group(group)?, at);
        Err(CoreError::NotFinite(format!(
            "plugin \"{}\": the gradient of {place} is {}",
            self.plugin,
            name_of(out[at])
        )))
    }

    fn shares_rotations(&self) -> bool {
        self.offers(abi::SHARED_ROTATIONS)
    }

    fn share(&mut self, batch: &Batch, weights: Weights) -> Result<(), CoreError> {
        self.check_weights(weights)?;
        check_inputs(batch, self.precision, is_input)?;
        self.capability(
            abi::SHARED_ROTATIONS,
            batch,
            &[f64::from(weights_code(weights))],
            0,
        )
        .map(drop)
        .map_err(HostError::of_model)
    }

    fn end_sharing(&mut self) -> Result<(), CoreError> {
        self.capability(abi::SHARED_ROTATIONS, &no_batch(), &[0.0], 0)
            .map(drop)
            .map_err(HostError::of_model)
    }

    fn busy_s(&self) -> Option<f64> {
        Some(self.busy.0.get().as_secs_f64())
    }

    fn latents(&self) -> Vec<LatentInfo> {
        self.latents.clone()
    }

    fn latent_into(
        &mut self,
        name: &str,
        batch: &Batch,
        out: &mut Vec<f64>,
    ) -> Result<(), CoreError> {
        *out = self.latent(name, batch).map_err(HostError::of_model)?;
        Ok(())
    }

    fn parameters_into(&self, group: &str, out: &mut Vec<f64>) -> Result<(), CoreError> {
        let scalars = self.group(group)?.scalars as usize;
        let mut received = Vec::new();
        let call = |bytes: &mut [u8]| {
            self.object
                .parameters_into(group.into(), bytes.into())
                .into_result()
        };
        incoming(scalars, self.precision, &mut received, out, call)
            .map_err(|e| self.failed(e).of_model())
    }

    fn set_parameters(&mut self, group: &str, values: &[f64]) -> Result<(), CoreError> {
        let bytes = outgoing(values, self.precision, &mut self.sent);
        let answer = self
            .object
            .set_parameters(group.into(), bytes.into())
            .into_result();
        answer.map_err(|e| self.failed(e).of_model())
    }

    fn groups(&self) -> Vec<(String, usize)> {
        let groups = self.instance.groups.iter();
        groups
            .map(|g| (g.name.clone(), g.scalars as usize))
            .collect()
    }

    fn project_equivariant(&mut self, values: &mut Vec<f64>) -> Result<bool, CoreError> {
        const SUBSPACE: &str = "equivariant-subspace";
        if !self.offers(SUBSPACE) {
            return Ok(false);
        }
        *values = self
            .capability(SUBSPACE, &no_batch(), values, values.len())
            .map_err(HostError::of_model)?;
        Ok(true)
    }

    fn frozen_below(&mut self, group: &str) -> Option<Box<dyn FrozenBelow + '_>> {
        if !self.instance.frozen_groups.iter().any(|g| g == group) {
            return None;
        }
        Some(Box::new(Frozen {
            model: self,
            group: group.to_owned(),
        }))
    }

    fn save(&self) -> Result<Vec<u8>, CoreError> {
        let state = self
            .busy
            .during(|| self.object.save())
            .into_result()
            .map_err(|e| self.failed(e).of_model())?;
        // `into_vec` of a vector that another library allocated copies as well.
        Ok(state.as_slice().to_vec())
    }

    fn load(&mut self, state: &[u8]) -> Result<(), CoreError> {
        let object = &mut self.object;
        self.busy
            .during(|| object.load(state.into()))
            .into_result()
            .map_err(|e| self.failed(e).of_model())
    }

    fn synchronise(&mut self) -> Result<(), CoreError> {
        let object = &mut self.object;
        self.busy
            .during(|| object.synchronise())
            .into_result()
            .map_err(|e| self.failed(e).of_model())
    }
}
