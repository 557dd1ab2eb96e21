//! Parameters as flat numbers: names, shapes, reading, writing, gradients. The order is the order of the module tree.

use crate::{Precision, model::ModelPlugin};
use burn::{
    module::{ModuleMapper, ModuleVisitor, Param, ParamId},
    optim::GradientsParams,
    tensor::{DType, Tensor, TensorData},
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
            Precision::F32 => Self::F32(Vec::new()),
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

    /// The same numbers in another precision.
    #[must_use]
    pub fn to_precision(&self, precision: Precision) -> Self {
        match (self, precision) {
            (Self::F32(v), Precision::F64) => Self::F64(v.iter().map(|p| p.iter().map(|&x| f64::from(x)).collect()).collect()),
            (Self::F64(v), Precision::F32) => Self::F32(v.iter().map(|p| p.iter().map(|&x| x as f32).collect()).collect()),
            _ => self.clone(),
        }
    }

    fn push(&mut self, data: TensorData) {
        match self {
            Self::F32(v) => v.push(numbers(data)),
            Self::F64(v) => v.push(numbers(data)),
        }
    }

    fn data(&self, index: usize, shape: &[usize]) -> TensorData {
        match self {
            Self::F32(v) => TensorData::new(v[index].clone(), shape.to_vec()),
            Self::F64(v) => TensorData::new(v[index].clone(), shape.to_vec()),
        }
    }
}

/// The elements of host data, without a copy where the element type already fits.
fn numbers<E: burn::tensor::Element>(data: TensorData) -> Vec<E> {
    if data.dtype() == E::dtype() {
        return data.try_into_vec().expect("the element type was just compared");
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
            self.found.push(ParameterInfo { name, shape: param.val().dims().to_vec(), id: param.id });
        }
    }
    let mut visitor = Visitor { path: Vec::new(), found: Vec::new(), rename: M::parameter_name };
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

/// A copy of the model with these parameter values; identities are kept.
#[must_use]
pub fn write<M: ModelPlugin>(model: M, values: &Flat, precision: Precision) -> M {
    struct Mapper<'a> {
        values: &'a Flat,
        next: usize,
        dtype: DType,
    }
    impl ModuleMapper for Mapper<'_> {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let data = self.values.data(self.next, &tensor.dims());
            self.next += 1;
            let device = tensor.device();
            let fresh = Tensor::from_data(data, (&device, self.dtype));
            let fresh = if device.is_autodiff() { fresh.require_grad() } else { fresh };
            Param::from_mapped_value(id, fresh, mapper)
        }
    }
    model.map(&mut Mapper { values, next: 0, dtype: precision.dtype() })
}

/// Gradients in the order of the parameters; `None` where a parameter took no part.
#[must_use]
pub fn gradients<M: ModelPlugin>(model: &M, mut grads: GradientsParams) -> Vec<Option<TensorData>> {
    struct Visitor<'a> {
        grads: &'a mut GradientsParams,
        found: Vec<Option<TensorData>>,
    }
    impl ModuleVisitor for Visitor<'_> {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(self.grads.remove::<D>(param.id).map(Tensor::into_data));
        }
    }
    let mut visitor = Visitor { grads: &mut grads, found: Vec::new() };
    model.visit(&mut visitor);
    visitor.found
}

/// Gradients as flat numbers of the instance's precision.
#[must_use]
pub fn flatten_gradients(gradients: Vec<Option<TensorData>>, precision: Precision) -> Gradients {
    match precision {
        Precision::F32 => Gradients::F32(gradients.into_iter().map(|g| g.map(numbers)).collect()),
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
