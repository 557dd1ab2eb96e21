//! Parameters as flat numbers: names, shapes, reading, writing, gradients. The order is the order of the module tree.

use crate::{Precision, model::ModelPlugin};
use burn::{
    module::{ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{Device, Tensor, TensorData, Transaction},
};

/// One parameter of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Name, from [`ModelPlugin::parameter_name`].
    pub name: String,
    /// Shape as the module stores it.
    pub shape: Vec<usize>,
    /// Burn's identity of the parameter in this process.
    pub id: ParamId,
}

impl ParameterInfo {
    /// Number of scalars.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether the parameter holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Flat numbers in the precision of an instance, one vector for each parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Flat {
    /// 32-bit.
    F32(Vec<Vec<f32>>),
    /// 64-bit.
    F64(Vec<Vec<f64>>),
}

impl Flat {
    /// Nothing, in a precision.
    pub(crate) fn empty(precision: Precision) -> Self {
        match precision {
            Precision::F32 | Precision::Bf16 => Self::F32(Vec::new()),
            Precision::F64 => Self::F64(Vec::new()),
        }
    }

    /// Zeros of the same shape.
    pub(crate) fn zeros_like(&self) -> Self {
        match self {
            Self::F32(v) => Self::F32(v.iter().map(|p| vec![0.0; p.len()]).collect()),
            Self::F64(v) => Self::F64(v.iter().map(|p| vec![0.0; p.len()]).collect()),
        }
    }

    /// Number of parameters.
    pub(crate) fn count(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// The bytes of one parameter.
    pub(crate) fn bytes(&self, index: usize) -> &[u8] {
        match self {
            Self::F32(v) => bytemuck::cast_slice(&v[index]),
            Self::F64(v) => bytemuck::cast_slice(&v[index]),
        }
    }

    /// The bytes of one parameter, to be overwritten.
    pub(crate) fn bytes_mut(&mut self, index: usize) -> &mut [u8] {
        match self {
            Self::F32(v) => bytemuck::cast_slice_mut(&mut v[index]),
            Self::F64(v) => bytemuck::cast_slice_mut(&mut v[index]),
        }
    }

    /// The same numbers in another precision.
    #[must_use]
    pub fn to_precision(&self, precision: Precision) -> Self {
        match (self, precision) {
            (Self::F32(v), Precision::F64) => Self::F64(v.iter().map(|p| wider(p)).collect()),
            (Self::F64(v), Precision::F32 | Precision::Bf16) => {
                Self::F32(v.iter().map(|p| narrower(p)).collect())
            }
            _ => self.clone(),
        }
    }

    fn push(&mut self, data: TensorData) {
        match self {
            Self::F32(v) => v.push(numbers(data)),
            Self::F64(v) => v.push(numbers(data)),
        }
    }

    /// A copy of one parameter as tensor data.
    fn data(&self, index: usize, shape: Vec<usize>, precision: Precision) -> TensorData {
        match (self, precision) {
            (Self::F32(v), Precision::F32) => TensorData::new(v[index].clone(), shape),
            (Self::F32(v), Precision::F64) => TensorData::new(wider(&v[index]), shape),
            (Self::F64(v), Precision::F32) => TensorData::new(narrower(&v[index]), shape),
            (Self::F64(v), Precision::F64) => TensorData::new(v[index].clone(), shape),
            (Self::F32(v), Precision::Bf16) => {
                TensorData::new(v[index].clone(), shape).convert_dtype(precision.dtype())
            }
            (Self::F64(v), Precision::Bf16) => {
                TensorData::new(narrower(&v[index]), shape).convert_dtype(precision.dtype())
            }
        }
    }
}

fn wider(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().map(|&x| f64::from(x)).collect()
}

fn narrower(numbers: &[f64]) -> Vec<f32> {
    numbers.iter().map(|&x| x as f32).collect()
}

/// The elements of host data, without a copy where the element type already fits.
fn numbers<E: burn::tensor::Element>(data: TensorData) -> Vec<E> {
    if data.dtype() == E::dtype() {
        return data
            .try_into_vec()
            .expect("the element type was just compared");
    }
    data.iter::<E>().collect()
}

/// Names, shapes and ids of all parameters.
#[must_use]
pub fn list<M: ModelPlugin>(model: &M) -> Vec<ParameterInfo> {
    struct Visitor {
        path: Vec<String>,
        found: Vec<ParameterInfo>,
        rename: fn(&str) -> String,
    }
    impl ModuleVisitor for Visitor {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let name = (self.rename)(&self.path.join("."));
            self.found.push(ParameterInfo {
                name,
                shape: param.val().dims().to_vec(),
                id: param.id,
            });
        }
    }
    let mut visitor = Visitor {
        path: Vec::new(),
        found: Vec::new(),
        rename: M::parameter_name,
    };
    model.visit(&mut visitor);
    visitor.found
}

/// Reads all parameters.
#[must_use]
pub fn read<M: ModelPlugin>(model: &M, precision: Precision) -> Flat {
    struct Visitor(Flat);
    impl ModuleVisitor for Visitor {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.0.push(param.val().into_data());
        }
    }
    let mut visitor = Visitor(Flat::empty(precision));
    model.visit(&mut visitor);
    visitor.0
}

/// Takes all parameters out of the model, which keeps empty tensors in their place until [`give`] is called. On the CPU numbers move and
/// are not copied, unless someone else holds the tensor too.
pub(crate) fn take<M: ModelPlugin>(model: &mut M, precision: Precision) -> Flat {
    struct Mapper(Option<Flat>);
    impl ModuleMapper for Mapper {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let empty = Tensor::empty([0; D], &tensor.device());
            if let Some(found) = &mut self.0 {
                found.push(tensor.inner().into_data());
            }
            Param::from_mapped_value(id, empty, mapper)
        }
    }
    // A map consumes its model, and numbers move only out of a model that nobody else has: the one that stays is emptied first.
    let emptied = model.clone().map(&mut Mapper(None));
    let full = std::mem::replace(model, emptied);
    let mut mapper = Mapper(Some(Flat::empty(precision)));
    full.map(&mut mapper);
    mapper.0.unwrap_or_else(|| Flat::empty(precision))
}

/// Moves parameters into the model, those that [`take`] found or others of the same shapes.
pub(crate) fn give<M: ModelPlugin>(model: &mut M, values: Flat, parameters: &[ParameterInfo]) {
    let shapes = parameters.iter().map(|parameter| parameter.shape.clone());
    *model = match values {
        Flat::F32(v) => place(
            model.clone(),
            v.into_iter()
                .zip(shapes)
                .map(|(p, shape)| TensorData::new(p, shape)),
        ),
        Flat::F64(v) => place(
            model.clone(),
            v.into_iter()
                .zip(shapes)
                .map(|(p, shape)| TensorData::new(p, shape)),
        ),
    };
}

/// A copy of the model with these parameter values, in a precision; identities are kept.
#[must_use]
pub fn write<M: ModelPlugin>(model: M, values: &Flat, precision: Precision) -> M {
    let shapes = list(&model).into_iter().map(|parameter| parameter.shape);
    place(
        model,
        shapes
            .enumerate()
            .map(|(index, shape)| values.data(index, shape, precision)),
    )
}

/// The model with these tensors as its parameters; identities are kept.
fn place<M: ModelPlugin>(model: M, data: impl Iterator<Item = TensorData>) -> M {
    struct Mapper<I>(I);
    impl<I: Iterator<Item = TensorData>> ModuleMapper for Mapper<I> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let data = self
                .0
                .next()
                .expect("every parameter of the model has values");
            let (device, dtype) = (tensor.device(), data.dtype());
            let fresh = Tensor::from_data(data, (&device, dtype));
            let fresh = if device.is_autodiff() {
                fresh.require_grad()
            } else {
                fresh
            };
            Param::from_mapped_value(id, fresh, mapper)
        }
    }
    model.map(&mut Mapper(data))
}

/// Gradients in the order of the parameters; `None` where a parameter took no part. On the CPU numbers move and are not copied, where
/// they are in order and nobody else holds them.
#[must_use]
pub fn gradients<M: ModelPlugin>(model: &M, mut grads: GradientsParams) -> Vec<Option<TensorData>> {
    struct Visitor<'a> {
        grads: &'a mut GradientsParams,
        found: Vec<Option<TensorData>>,
        /// Those on another device than the host, which are waited for once and not one by one, and whose they are.
        awaited: Transaction,
        places: Vec<usize>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.grads.remove::<D>(param.id);
            self.found.push(match gradient {
                Some(gradient) if gradient.device() != Device::flex() => {
                    self.places.push(self.found.len());
                    self.awaited = std::mem::take(&mut self.awaited).register(gradient);
                    None
                }
                gradient => gradient.map(Tensor::into_data),
            });
        }
    }
    let mut visitor = Visitor {
        grads: &mut grads,
        found: Vec::new(),
        awaited: Transaction::default(),
        places: Vec::new(),
    };
    model.visit(&mut visitor);
    if !visitor.places.is_empty() {
        for (place, gradient) in visitor.places.into_iter().zip(visitor.awaited.execute()) {
            visitor.found[place] = Some(gradient);
        }
    }
    visitor.found
}

/// Gradients in the order of the parameters, flattened, where they are.
pub(crate) fn gradient_tensors<M: ModelPlugin>(
    model: &M,
    grads: &mut GradientsParams,
) -> Vec<Option<Tensor<1>>> {
    struct Visitor<'a> {
        grads: &'a mut GradientsParams,
        found: Vec<Option<Tensor<1>>>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let gradient = self.grads.remove::<D>(param.id);
            self.found.push(gradient.map(|gradient| {
                let count = gradient.shape().num_elements();
                gradient.reshape([count])
            }));
        }
    }
    let mut visitor = Visitor {
        grads,
        found: Vec::new(),
    };
    model.visit(&mut visitor);
    visitor.found
}

/// Puts back what [`gradient_tensors`] took.
pub(crate) fn return_gradients<M: ModelPlugin>(
    model: &M,
    grads: &mut GradientsParams,
    gradients: Vec<Option<Tensor<1>>>,
) {
    struct Visitor<'a> {
        grads: &'a mut GradientsParams,
        gradients: std::vec::IntoIter<Option<Tensor<1>>>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if let Some(gradient) = self.gradients.next().flatten() {
                self.grads
                    .register::<D>(param.id, gradient.reshape(param.val().dims()));
            }
        }
    }
    model.visit(&mut Visitor {
        grads,
        gradients: gradients.into_iter(),
    });
}

/// The model with these numbers as its parameters, flattened and on its device; identities are kept.
pub(crate) fn put<M: ModelPlugin>(model: M, parts: Vec<Tensor<1>>) -> M {
    struct Mapper(std::vec::IntoIter<Tensor<1>>);
    impl ModuleMapper for Mapper {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let part = self
                .0
                .next()
                .expect("every parameter of the model has numbers");
            let fresh = part.reshape(tensor.dims());
            let fresh = if tensor.device().is_autodiff() {
                Tensor::from_inner(fresh).require_grad()
            } else {
                fresh
            };
            Param::from_mapped_value(id, fresh, mapper)
        }
    }
    model.map(&mut Mapper(parts.into_iter()))
}

/// Gradients as flat numbers of the instance's precision.
#[must_use]
pub fn flatten_gradients(gradients: Vec<Option<TensorData>>, precision: Precision) -> Gradients {
    match precision {
        Precision::F32 | Precision::Bf16 => {
            Gradients::F32(gradients.into_iter().map(|g| g.map(numbers)).collect())
        }
        Precision::F64 => Gradients::F64(gradients.into_iter().map(|g| g.map(numbers)).collect()),
    }
}

/// Flat gradients, `None` where a parameter took no part.
#[derive(Clone, Debug)]
pub enum Gradients {
    /// 32-bit.
    F32(Vec<Option<Vec<f32>>>),
    /// 64-bit.
    F64(Vec<Option<Vec<f64>>>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Batch, PluginResult, Recipe};
    use burn::{config::Config, module::Module};

    #[derive(Config, Debug)]
    struct AffineConfig {
        width: usize,
    }

    #[derive(Module, Debug)]
    struct Affine {
        weight: Param<Tensor<2>>,
        bias: Param<Tensor<1>>,
    }

    impl ModelPlugin for Affine {
        type Config = AffineConfig;
        const NAME: &'static str = "affine";

        fn sizes() -> Vec<(&'static str, AffineConfig)> {
            vec![("three", AffineConfig::new(3))]
        }

        fn init(config: &AffineConfig, device: &Device) -> Self {
            let width = config.width;
            let ramp = |count: usize| (0..count).map(|i| i as f32).collect::<Vec<_>>();
            let weight =
                Tensor::from_data(TensorData::new(ramp(width * width), [width, width]), device);
            let bias = Tensor::from_data(TensorData::new(ramp(width), [width]), device);
            Self {
                weight: Param::from_tensor(weight),
                bias: Param::from_tensor(bias),
            }
        }

        fn forward(&self, batch: &Batch) -> PluginResult<Tensor<2>> {
            Ok(batch.tensor::<2>("positions")?.matmul(self.weight.val())
                + self.bias.val().unsqueeze())
        }

        fn recipe(_: &AffineConfig) -> Recipe {
            Recipe::adamw(1e-2)
        }
    }

    impl Affine {
        fn gradients(&self) -> Vec<Option<TensorData>> {
            let x = Tensor::<2>::ones([2, 3], &self.bias.val().device().inner());
            let loss = x.matmul(self.weight.val()).powi_scalar(2).sum();
            gradients(self, GradientsParams::from_grads(loss.backward(), self))
        }
    }

    fn three() -> Affine {
        Affine::init(&AffineConfig::new(3), &Device::flex().autodiff())
    }

    fn addresses(values: &Flat) -> Vec<*const u8> {
        (0..values.count())
            .map(|index| values.bytes(index).as_ptr())
            .collect()
    }

    #[test]
    fn numbers_move_out_of_a_model_and_back_without_a_copy_also_after_a_gradient() {
        let mut model = three();
        let parameters = list(&model);
        let values = read(&model, Precision::F32);
        give(&mut model, values.clone(), &parameters);
        let before = model.gradients();
        let first = take(&mut model, Precision::F32);
        let places = addresses(&first);
        assert_eq!(first, values);
        assert_eq!(model.weight.val().dims(), [0, 0]);

        give(&mut model, first, &parameters);
        assert_eq!(
            (list(&model), read(&model, Precision::F32)),
            (parameters, values)
        );
        assert_eq!(model.gradients(), before, "the model learns as before");
        assert_eq!(addresses(&take(&mut model, Precision::F32)), places);
    }

    #[test]
    fn who_shares_the_parameters_keeps_them_when_they_are_taken_and_changed() {
        let mut model = three();
        let (parameters, values) = (list(&model), read(&model, Precision::F32));
        let (copy, valid) = (model.clone(), model.valid());
        let Flat::F32(mut taken) = take(&mut model, Precision::F32) else {
            panic!("f32 was asked for")
        };
        taken[1][0] = 100.0;
        give(&mut model, Flat::F32(taken), &parameters);
        assert_eq!(
            [read(&copy, Precision::F32), read(&valid, Precision::F32)],
            [values.clone(), values]
        );
        assert_eq!(
            model.bias.val().into_data().try_to_vec::<f32>().unwrap(),
            [100.0, 1.0, 2.0]
        );
    }

    #[test]
    fn weights_written_in_another_precision_are_the_same_numbers() {
        let model = three();
        let values = read(&model, Precision::F32);
        let double = write(model.clone(), &values, Precision::F64);
        assert_eq!(
            read(&double, Precision::F64),
            values.to_precision(Precision::F64)
        );
        assert_eq!(
            read(
                &write(double, &values.to_precision(Precision::F64), Precision::F32),
                Precision::F32
            ),
            values
        );
        assert_eq!(
            model
                .gradients()
                .iter()
                .map(Option::is_some)
                .collect::<Vec<_>>(),
            [true, false],
            "the bias took no part"
        );
    }
}
