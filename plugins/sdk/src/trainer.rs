//! A model in training, behind the boundary: the optimiser loop, predictions, products with cotangents, checkpoints.

mod frozen;

use crate::{
    Batch, ModelPlugin, PluginError, PluginResult, Precision, Shared,
    arrays::splitmix,
    device,
    guard::guard,
    optimiser::{Optimiser, OptimiserState, StepFigures},
    parameters::{self, Flat, ParameterInfo},
    registry,
    resident::Resident,
    state,
};
use burn::{
    optim::GradientsParams,
    tensor::{Device, Tensor},
};
use equivbench_abi::{
    self as abi, AbiResult, Weights,
    abi_stable::std_types::{RSlice, RSliceMut, RStr, RString, RVec},
    descriptor::{GroupDescriptor, InstanceDescriptor, ModelRequest, ParameterDescriptor, Recipe},
};
use equivbench_kernels::instruction_set::{self, InstructionSet};
use std::{
    borrow::Cow,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// Burn's generator is one for the whole process: whoever seeds it and draws from it holds this, so that instances in several threads
/// leave each other's draws alone.
static GENERATOR: Mutex<()> = Mutex::new(());

fn hold_generator() -> MutexGuard<'static, ()> {
    // What it guards has no state of its own, so a panic of another holder breaks nothing.
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A model in training.
pub struct Trainer<M: ModelPlugin> {
    /// On the device with autodiff; it owns the parameters.
    model: M,
    /// A copy of the parameters where the device is not the host, so that a step need not fetch them, and where the model has them in
    /// 16 bits only.
    on_host: Option<Flat>,
    /// Weights, moments and averages on the device, where steps are made there: then those of `state` are of an earlier step, but
    /// for its counters, and `on_host` is empty.
    resident: Option<Resident>,
    /// Without autodiff, made when first needed after a step.
    raw_for_prediction: Option<M>,
    average_for_prediction: Option<M>,
    /// What predictions of rotated copies of a batch share, and the weights that it was computed with.
    shared: Option<(Weights, Shared)>,
    /// What lies below parameter groups.
    frozen: frozen::Slots,
    /// Whether parameters were taken out of the model and not put back: what a panic in between leaves.
    is_hollow: bool,
    parameters: Vec<ParameterInfo>,
    optimiser: Optimiser,
    state: OptimiserState,
    recipe: Recipe,
    config: M::Config,
    request: ModelRequest,
    device: Device,
    /// Of weights and of numbers at the boundary.
    precision: Precision,
    /// Of the arithmetic of training steps.
    training: Precision,
    /// Of the arithmetic of predictions and products with cotangents.
    evaluation: Precision,
}

impl<M: ModelPlugin> Trainer<M> {
    /// Builds a model from a request: size, overrides, device, precision, seed.
    ///
    /// # Errors
    /// An unknown size, an unknown or impossible configuration or recipe, or a device that is not there.
    pub fn open(request: &ModelRequest) -> PluginResult<Self> {
        instruction_set::choose(&request.kernels)
            .map_err(|e| PluginError::BadRequest(e.to_string()))?;
        limit_threads(request.threads);
        let config = resolve_config::<M>(request)?;
        M::validate(&config)?;
        let recipe: Recipe = registry::merge("recipe", &M::recipe(&config), &request.recipe)?;
        if !M::losses().contains(&recipe.loss.as_str()) {
            let known = M::losses().join(", ");
            return Err(PluginError::BadRequest(format!(
                "loss \"{}\" is not known to {}; it knows: {known}",
                recipe.loss,
                M::NAME
            )));
        }
        let (training, evaluation) = Precision::parse(&request.precision, &request.device)?;
        let device = device::parse_device(&request.device)?;
        let held = hold_generator();
        // Weights are drawn on the host, so that a seed gives the same ones on every device.
        let host = Device::flex();
        host.seed(request.seed);
        let model = M::init(&config, &host.clone().autodiff());
        let request = request.clone();
        let parameters = parameters::list(&model);
        let optimiser = Optimiser::new(&recipe, &parameters, request.steps_per_epoch.max(1))?;
        let precision = training.full();
        // Burn's own layers draw their weights when they are first read.
        let values = parameters::read(&model, precision);
        drop(held);
        let model = if device == host {
            model
        } else {
            model.fork(&device)
        };
        let state = OptimiserState::new(&values, &recipe);
        let mut trainer = Self {
            model,
            on_host: None,
            resident: None,
            raw_for_prediction: None,
            average_for_prediction: None,
            shared: None,
            frozen: frozen::Slots::new(),
            is_hollow: false,
            parameters,
            optimiser,
            state,
            recipe,
            config,
            request,
            device,
            precision,
            training,
            evaluation,
        };
        trainer.give(values);
        Ok(trainer)
    }

    /// The module, on the device with autodiff.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// Parameters in the order in which they are flattened.
    pub fn parameters(&self) -> &[ParameterInfo] {
        &self.parameters
    }

    /// A copy of all parameters.
    pub fn values(&self) -> Flat {
        if let Some(resident) = &self.resident {
            return resident.values();
        }
        self.on_host
            .clone()
            .unwrap_or_else(|| parameters::read(&self.model, self.precision))
    }

    /// What the optimiser remembers: moments, averages, counters.
    pub fn state(&self) -> Cow<'_, OptimiserState> {
        match &self.resident {
            Some(resident) => Cow::Owned(resident.state(&self.state)),
            None => Cow::Borrowed(&self.state),
        }
    }

    /// Replaces all parameters (and restarts moments and averages from them).
    pub fn restart_from(&mut self, values: Flat) {
        self.resident = None;
        self.frozen.clear();
        self.state = OptimiserState::new(&values, &self.recipe);
        self.give(values);
    }

    /// Everything about the instance that the host needs to know.
    ///
    /// # Errors
    /// A configuration that cannot be written as JSON.
    pub fn instance(&self) -> PluginResult<InstanceDescriptor> {
        let size = if self.request.size.is_empty() {
            M::sizes().first().map_or("", |s| s.0)
        } else {
            &self.request.size
        };
        let mut groups = vec![(
            "all".to_owned(),
            (0..self.parameters.len()).collect::<Vec<_>>(),
        )];
        groups.extend(
            M::groups()
                .into_iter()
                .map(|(name, prefixes)| (name.to_owned(), self.members(&prefixes))),
        );
        Ok(InstanceDescriptor {
            model: M::NAME.into(),
            size: size.into(),
            config: registry::to_json(&self.config)?.into(),
            recipe: self.recipe.clone(),
            parameters: self
                .parameters
                .iter()
                .map(|p| ParameterDescriptor {
                    name: p.name.clone(),
                    shape: p.shape.iter().map(|&n| n as u64).collect(),
                })
                .collect(),
            groups: groups
                .into_iter()
                .map(|(name, members)| GroupDescriptor {
                    name,
                    scalars: members
                        .iter()
                        .map(|&i| self.parameters[i].len() as u64)
                        .sum(),
                    parameters: members
                        .iter()
                        .map(|&i| self.parameters[i].name.clone())
                        .collect(),
                })
                .collect(),
            precision: if self.precision == Precision::F32 {
                "f32"
            } else {
                "f64"
            }
            .into(),
            training_precision: if self.training == Precision::Bf16 {
                "bf16"
            } else {
                ""
            }
            .into(),
            device: if self.request.device.is_empty() {
                "cpu".into()
            } else {
                self.request.device.clone()
            },
            weights: if self.state.average.is_some() {
                vec!["raw".into(), "ema".into()]
            } else {
                vec!["raw".into()]
            },
            capabilities: M::CAPABILITIES.iter().map(|&c| c.into()).collect(),
            inputs: M::inputs_for(&self.config),
            latents: M::latents(&self.config),
            kernels: instruction_set::current().name().into(),
            matrix_products: equivbench_kernels::product_set()
                .map_or("", InstructionSet::name)
                .into(),
            processor_flags: instruction_set::processor_flags()
                .into_iter()
                .map(Into::into)
                .collect(),
            frozen_groups: M::frozen_groups().into_iter().map(Into::into).collect(),
            linear: M::linear_groups(&self.config),
        })
    }

    fn members(&self, prefixes: &[&str]) -> Vec<usize> {
        (0..self.parameters.len())
            .filter(|&i| {
                prefixes
                    .iter()
                    .any(|p| self.parameters[i].name.starts_with(p))
            })
            .collect()
    }

    fn group(&self, name: &str) -> PluginResult<Vec<usize>> {
        if name == "all" {
            return Ok((0..self.parameters.len()).collect());
        }
        let groups = M::groups();
        match groups.iter().find(|(n, _)| *n == name) {
            Some((_, prefixes)) => Ok(self.members(prefixes)),
            None => {
                let known: Vec<&str> = std::iter::once("all")
                    .chain(groups.iter().map(|g| g.0))
                    .collect();
                Err(PluginError::BadRequest(format!(
                    "parameter group \"{name}\" is not known; there are: {}",
                    known.join(", ")
                )))
            }
        }
    }

    /// One optimiser step; returns `[loss, learning rate, gradient norm before clipping]`.
    ///
    /// # Errors
    /// A batch that the model cannot read.
    pub fn train_step(&mut self, raw: &abi::Batch<'_>) -> PluginResult<[f64; 3]> {
        self.check_whole()?;
        self.forget_predictions();
        self.frozen.clear();
        let seed = splitmix(self.request.seed ^ splitmix(self.state.step));
        let device = self.device.clone().autodiff();
        let mut batch = Batch::new(raw, &device, self.training, Some(seed))?;
        let loss = {
            // Anything an author draws from Burn's own generator is a function of seed and step too.
            let _held = hold_generator();
            self.device.seed(seed);
            // The generator is held out here: a thread of the pool that waits may take up the step of another instance.
            let device = self.device.clone();
            in_pool(&device, (&mut *self, &mut batch), |(own, batch)| {
                own.model.loss(&own.recipe.loss, batch)
            })?
        };
        let value = self
            .model
            .reported_loss(&self.recipe.loss, scalar(&loss), &batch)?;
        // Its tensors may hold parameters, which could then not be moved.
        drop(batch);
        let device = self.device.clone();
        let figures = in_pool(&device, (self, loss), |(own, loss)| own.descend(loss));
        Ok([value, figures.lr, figures.gradient_norm])
    }

    /// Gradients of a loss, and an update of the parameters.
    fn descend(&mut self, loss: Tensor<1>) -> StepFigures {
        let mut grads = GradientsParams::from_grads(loss.backward(), &self.model);
        drop(loss);
        if self.device != Device::flex()
            && let Some(figures) = self.descend_on_device(&mut grads)
        {
            return figures;
        }
        let gradients = parameters::gradients(&self.model, grads).into_iter();
        let gradients: Vec<_> = gradients
            .map(|gradient| gradient.map(|g| g.convert_dtype(self.precision.dtype())))
            .collect();
        let mut values = self.take();
        let figures = self
            .optimiser
            .update(&mut values, &mut self.state, &gradients);
        self.give(values);
        figures
    }

    /// The update where gradients, moments and averages stay on the device; `None`, and nothing changed, where the host has to do it.
    fn descend_on_device(&mut self, grads: &mut GradientsParams) -> Option<StepFigures> {
        let mut resident = self.resident.take().unwrap_or_else(|| {
            Resident::new(&self.values(), &self.state, &self.parameters, &self.device)
        });
        let gradients = parameters::gradient_tensors(&self.model, grads);
        let figures = resident.update(&self.optimiser, &mut self.state, &gradients);
        if figures.is_some() {
            self.forget_predictions();
            self.on_host = None;
            self.model = parameters::put(self.model.clone(), resident.parts(self.training));
        } else {
            parameters::return_gradients(&self.model, grads, gradients);
        }
        self.resident = Some(resident);
        figures
    }

    /// Takes the parameters in order to change them; [`give`](Self::give) puts them back.
    fn take(&mut self) -> Flat {
        self.forget_predictions();
        if let Some(resident) = self.resident.take() {
            self.state = resident.state(&self.state);
            self.is_hollow = true;
            return resident.values();
        }
        self.is_hollow = true;
        self.on_host
            .take()
            .unwrap_or_else(|| parameters::take(&mut self.model, self.precision))
    }

    fn give(&mut self, values: Flat) {
        self.forget_predictions();
        self.is_hollow = false;
        if self.training != self.precision {
            self.model = parameters::write(self.model.clone(), &values, self.training);
            self.on_host = Some(values);
            return;
        }
        self.on_host = (self.device != Device::flex()).then(|| values.clone());
        parameters::give(&mut self.model, values, &self.parameters);
    }

    fn check_whole(&self) -> PluginResult<()> {
        let hollow = "an optimiser step of this instance ended in the middle and took the weights along; load a saved state or open it anew";
        if self.is_hollow {
            Err(PluginError::Other(hollow.into()))
        } else {
            Ok(())
        }
    }

    /// Drops what was derived from the parameters.
    fn forget_predictions(&mut self) {
        self.raw_for_prediction = None;
        self.average_for_prediction = None;
        self.shared = None;
    }

    /// The model, one that has these parameters, for predictions and products: it shares them where the precision is the same.
    fn for_evaluation(&self, model: M) -> M {
        if self.evaluation == self.training {
            model
        } else {
            parameters::write(model, &self.values(), self.evaluation)
        }
    }

    /// Predicts in evaluation mode, `[rows, width]`; of a rotated copy, while [`share`](Self::share) is in force for these weights.
    ///
    /// # Errors
    /// A batch that the model cannot read, or averaged weights where none are kept.
    pub fn predict(&mut self, raw: &abi::Batch<'_>, weights: Weights) -> PluginResult<Tensor<2>> {
        let batch = Batch::new(raw, &self.device, self.evaluation, None)?;
        let device = self.device.clone();
        in_pool(&device, (self, batch), |(own, batch)| {
            match own.shared.take_if(|(of, _)| *of == weights) {
                Some((of, shared)) => {
                    let prediction = own.for_prediction(weights)?.forward_shared(&shared, &batch);
                    own.shared = Some((of, shared));
                    prediction
                }
                None => own.for_prediction(weights)?.forward(&batch),
            }
        })
    }

    /// Computes once what predictions of rotated copies of a batch share; an empty batch ends that, and so does whatever changes weights.
    ///
    /// # Errors
    /// A model without the capability, or as [`predict`](Self::predict).
    pub fn share(&mut self, raw: &abi::Batch<'_>, weights: Weights) -> PluginResult<()> {
        self.shared = None;
        if raw.samples > 0 {
            let batch = Batch::new(raw, &self.device, self.evaluation, None)?;
            let device = self.device.clone();
            let shared = in_pool(&device, (&mut *self, batch), |(own, batch)| {
                own.for_prediction(weights)?.share(&batch)
            })?;
            self.shared = Some((weights, shared));
        }
        Ok(())
    }

    /// The model without autodiff, with these weights.
    fn for_prediction(&mut self, weights: Weights) -> PluginResult<&M> {
        self.check_whole()?;
        if weights == Weights::Raw {
            let model = self
                .raw_for_prediction
                .take()
                .unwrap_or_else(|| self.for_evaluation(self.model.valid()));
            return Ok(self.raw_for_prediction.insert(model));
        }
        if self.state.average.is_none() {
            return Err(PluginError::BadRequest(
                "the recipe keeps no moving average of the weights".into(),
            ));
        }
        let model = match self.average_for_prediction.take() {
            Some(model) => model,
            None => {
                let fetched = self.resident.as_ref().and_then(Resident::average);
                let average = fetched.as_ref().or(self.state.average.as_ref());
                let average = average.expect("the recipe keeps an average");
                parameters::write(self.model.valid(), average, self.evaluation)
            }
        };
        Ok(self.average_for_prediction.insert(model))
    }

    /// Gradient of `sum(cotangent · prediction)` with respect to a group, evaluation mode, flattened.
    ///
    /// # Errors
    /// A cotangent of another shape than the prediction, or an unknown group.
    pub fn vjp(
        &self,
        raw: &abi::Batch<'_>,
        cotangent: Vec<f64>,
        group: &str,
    ) -> PluginResult<Flat> {
        self.check_whole()?;
        let members = self.group(group)?;
        let device = self.device.clone().autodiff();
        let batch = Batch::new(raw, &device, self.evaluation, None)?;
        let model = self.for_evaluation(self.model.clone());
        let prediction = model.forward(&batch)?;
        self.pulled_back(&model, prediction, cotangent, &members, self.precision)
    }

    /// Gradient of `sum(cotangent · prediction)` with respect to some parameters of the model that predicted.
    fn pulled_back(
        &self,
        model: &M,
        prediction: Tensor<2>,
        cotangent: Vec<f64>,
        members: &[usize],
        precision: Precision,
    ) -> PluginResult<Flat> {
        let shape = prediction.dims();
        if shape[0] * shape[1] != cotangent.len() {
            return Err(PluginError::BadRequest(format!(
                "the cotangent has {} numbers, the prediction {shape:?}",
                cotangent.len()
            )));
        }
        let device = self.device.clone().autodiff();
        let cotangent = self.evaluation.upload::<2>(cotangent, shape, &device);
        let product = (prediction * cotangent).sum();
        let grads = GradientsParams::from_grads(product.backward(), model);
        let mut found =
            parameters::flatten_gradients(parameters::gradients(model, grads), precision);
        Ok(match &mut found {
            parameters::Gradients::F32(g) => Flat::F32(
                members
                    .iter()
                    .map(|&i| self.or_zeros(i, g[i].take()))
                    .collect(),
            ),
            parameters::Gradients::F64(g) => Flat::F64(
                members
                    .iter()
                    .map(|&i| self.or_zeros(i, g[i].take()))
                    .collect(),
            ),
        })
    }

    fn or_zeros<F: Clone + Default>(&self, index: usize, gradient: Option<Vec<F>>) -> Vec<F> {
        gradient.unwrap_or_else(|| vec![F::default(); self.parameters[index].len()])
    }

    /// The raw parameters of a group.
    pub(crate) fn read_group(&self, group: &str) -> PluginResult<Flat> {
        self.check_whole()?;
        let members = self.group(group)?;
        Ok(match &mut self.values() {
            Flat::F32(v) => Flat::F32(members.iter().map(|&i| std::mem::take(&mut v[i])).collect()),
            Flat::F64(v) => Flat::F64(members.iter().map(|&i| std::mem::take(&mut v[i])).collect()),
        })
    }

    /// Replaces them; what lies frozen below this or a wider group stays.
    pub(crate) fn write_group(&mut self, group: &str, bytes: &[u8]) -> PluginResult<()> {
        self.check_whole()?;
        let members = self.group(group)?;
        let scalars: usize = members.iter().map(|&i| self.parameters[i].len()).sum();
        if bytes.len() != scalars * self.precision.bytes() {
            let got = bytes.len() / self.precision.bytes();
            return Err(PluginError::BadRequest(format!(
                "group \"{group}\" has {scalars} parameters, {got} were given"
            )));
        }
        self.release_outside(&members)?;
        let mut values = self.take();
        let mut rest = bytes;
        for &i in &members {
            let target = values.bytes_mut(i);
            let (head, tail) = rest.split_at(target.len());
            target.copy_from_slice(head);
            rest = tail;
        }
        self.give(values);
        Ok(())
    }

    fn identity(&self) -> PluginResult<String> {
        Ok(format!(
            "{} {} {:?}",
            M::NAME,
            registry::to_json(&self.config)?,
            self.precision
        ))
    }

    /// An intermediate quantity of a prediction with the raw weights.
    fn latent(&self, name: &str, raw: &abi::Batch<'_>) -> PluginResult<Vec<f64>> {
        let batch = Batch::new(raw, &self.device, self.evaluation, None)?;
        let model = self.for_evaluation(self.model.valid());
        Ok(model
            .latent(name, &batch)?
            .into_data()
            .iter::<f64>()
            .collect())
    }

    fn run_capability(
        &mut self,
        name: &str,
        raw: &abi::Batch<'_>,
        input: &[u8],
    ) -> PluginResult<Vec<f64>> {
        match name.split_once(':') {
            Some(("latent", latent)) => return self.latent(latent, raw),
            Some((
                ability @ (abi::FROZEN_BELOW | abi::PREDICT_ABOVE | abi::VJP_ABOVE | abi::FEATURES),
                group,
            )) => return self.run_frozen(ability, group, raw, &floats(input, Precision::F64)),
            _ => {}
        }
        if !M::CAPABILITIES.contains(&name) {
            return Err(PluginError::Unsupported(name.into()));
        }
        match name {
            "equivariant-subspace" => {
                let mut values = floats(input, Precision::F64);
                self.model.project_equivariant(&mut values)?;
                Ok(values)
            }
            "exact-twirl" => {
                let batch = Batch::new(raw, &self.device, self.evaluation, None)?;
                self.for_evaluation(self.model.valid()).exact_twirl(&batch)
            }
            abi::SHARED_ROTATIONS => {
                let code = floats(input, Precision::F64)
                    .first()
                    .map_or(u32::MAX, |code| *code as u32);
                let weights = Weights::from_code(code).ok_or_else(|| {
                    PluginError::BadRequest(format!("{name}: weights code {code}"))
                })?;
                self.share(raw, weights)?;
                Ok(Vec::new())
            }
            _ => Err(PluginError::Unsupported(name.into())),
        }
    }
}

impl<M: ModelPlugin> abi::Model for Trainer<M> {
    fn describe(&self) -> AbiResult<RString> {
        guard(|| registry::to_json(&self.instance()?))
    }

    fn train_step(
        &mut self,
        batch: abi::Batch<'_>,
        mut report: RSliceMut<'_, f64>,
    ) -> AbiResult<()> {
        guard(|| {
            let figures = Trainer::train_step(self, &batch)?;
            let report = report.as_mut_slice();
            let n = report.len().min(figures.len());
            report[..n].copy_from_slice(&figures[..n]);
            Ok(())
        })
    }

    fn predict_into(
        &mut self,
        batch: abi::Batch<'_>,
        weights: u32,
        mut out: RSliceMut<'_, u8>,
    ) -> AbiResult<()> {
        guard(|| {
            let weights = Weights::from_code(weights)
                .ok_or_else(|| PluginError::BadRequest(format!("weights code {weights}")))?;
            let data = self.predict(&batch, weights)?.into_data();
            let data = if data.dtype() == self.precision.dtype() {
                data
            } else {
                data.convert_dtype(self.precision.dtype())
            };
            copy_out(data.as_bytes(), out.as_mut_slice(), "prediction")
        })
    }

    fn vjp_into(
        &mut self,
        batch: abi::Batch<'_>,
        cotangent: RSlice<'_, u8>,
        group: RStr<'_>,
        mut out: RSliceMut<'_, u8>,
    ) -> AbiResult<()> {
        guard(|| {
            let product = self.vjp(
                &batch,
                floats(cotangent.as_slice(), self.precision),
                group.as_str(),
            )?;
            copy_flat(&product, out.as_mut_slice())
        })
    }

    fn parameters_into(&self, group: RStr<'_>, mut out: RSliceMut<'_, u8>) -> AbiResult<()> {
        guard(|| copy_flat(&self.read_group(group.as_str())?, out.as_mut_slice()))
    }

    fn set_parameters(&mut self, group: RStr<'_>, values: RSlice<'_, u8>) -> AbiResult<()> {
        guard(|| self.write_group(group.as_str(), values.as_slice()))
    }

    fn save(&self) -> AbiResult<RVec<u8>> {
        guard(|| {
            self.check_whole()?;
            Ok(state::save(
                &self.values(),
                &self.state(),
                &self.parameters,
                &self.identity()?,
            )?
            .into())
        })
    }

    fn load(&mut self, bytes: RSlice<'_, u8>) -> AbiResult<()> {
        guard(|| {
            let identity = self.identity()?;
            // A damaged state must leave this instance as it was.
            let (mut values, mut restored) = (self.state.first.zeros_like(), self.state.clone());
            state::load(
                bytes.as_slice(),
                &mut values,
                &mut restored,
                &self.parameters,
                &identity,
            )?;
            self.resident = None;
            self.frozen.clear();
            self.state = restored;
            self.give(values);
            Ok(())
        })
    }

    fn synchronise(&mut self) -> AbiResult<()> {
        guard(|| {
            self.device
                .sync()
                .map_err(|e| PluginError::Device(format!("device {}: {e:?}", self.request.device)))
        })
    }

    fn capability(
        &mut self,
        name: RStr<'_>,
        batch: abi::Batch<'_>,
        input: RSlice<'_, u8>,
        mut out: RSliceMut<'_, u8>,
    ) -> AbiResult<u64> {
        guard(|| {
            let values = self.run_capability(name.as_str(), &batch, input.as_slice())?;
            let bytes: &[u8] = bytemuck::cast_slice(&values);
            copy_out(bytes, out.as_mut_slice(), name.as_str())?;
            Ok(bytes.len() as u64)
        })
    }
}

/// The size's configuration with the request's overrides on top.
fn resolve_config<M: ModelPlugin>(request: &ModelRequest) -> PluginResult<M::Config> {
    let sizes = M::sizes();
    let known = || sizes.iter().map(|s| s.0).collect::<Vec<_>>().join(", ");
    let base = match request.size.as_str() {
        "" => sizes.first(),
        name => sizes.iter().find(|s| s.0 == name),
    };
    let Some((_, base)) = base else {
        return Err(PluginError::BadRequest(format!(
            "model {}: size \"{}\" is not known; there are: {}",
            M::NAME,
            request.size,
            known()
        )));
    };
    registry::merge("model", base, &request.config)
}

/// First call of the process decides, as rayon's global pool can be built once only.
fn limit_threads(threads: u64) {
    use std::sync::Once;
    static POOL: Once = Once::new();
    POOL.call_once(|| {
        equivbench_kernels::tune_allocator();
        // Steps run on its threads (see `in_pool`): as much stack as a main thread has. 0 threads are as many as there are cores. Fails
        // only when a pool exists already, and then that pool is used.
        let _ = rayon::ThreadPoolBuilder::new()
            .num_threads(threads as usize)
            .stack_size(8 << 20)
            .build_global();
    });
}

/// Runs work on a thread of the pool, where it and its parallel parts need not wait for each other to be woken up. Work for another
/// device than the processor stays where it is: devices may keep queues by thread.
fn in_pool<A: Send, R: Send>(device: &Device, on: A, work: impl FnOnce(A) -> R + Send) -> R {
    if *device == Device::flex() {
        rayon::scope(|_| work(on))
    } else {
        work(on)
    }
}

fn scalar(loss: &Tensor<1>) -> f64 {
    loss.clone()
        .inner()
        .into_data()
        .iter::<f64>()
        .next()
        .unwrap_or(f64::NAN)
}

fn floats(bytes: &[u8], precision: Precision) -> Vec<f64> {
    match precision {
        Precision::F32 | Precision::Bf16 => bytemuck::pod_collect_to_vec::<u8, f32>(bytes)
            .into_iter()
            .map(f64::from)
            .collect(),
        Precision::F64 => bytemuck::pod_collect_to_vec(bytes),
    }
}

fn copy_flat(flat: &Flat, out: &mut [u8]) -> PluginResult<()> {
    let parts: Vec<&[u8]> = (0..flat.count()).map(|index| flat.bytes(index)).collect();
    copy_out(&parts.concat(), out, "parameters")
}

fn copy_out(bytes: &[u8], out: &mut [u8], what: &str) -> PluginResult<()> {
    if bytes.len() != out.len() {
        return Err(PluginError::BadRequest(format!(
            "{what}: {} bytes to write, the host's buffer has {}",
            bytes.len(),
            out.len()
        )));
    }
    out.copy_from_slice(bytes);
    Ok(())
}
