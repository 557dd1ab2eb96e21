//! Connects kernels with Burn: finds out whether tensors live on the `flex` backend, and registers backward passes.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex,
    TensorMetadata,
};
use burn::tensor::{DType, Shape, TensorData};

use crate::scalar::Scalar;

type Tracked = FloatTensor<Autodiff<Flex>>;

/// A differentiable function of `N` tensors, as loops over the memory of the CPU.
pub(crate) trait Kernel<const N: usize>: Debug + Send + 'static {
    /// What the backward pass needs from the forward pass.
    type Saved: Clone + Debug + Send + 'static;

    /// The result, and what [`Self::backward`] will need.
    fn forward<T: Scalar>(&self, inputs: [FlexTensor; N]) -> (FlexTensor, Self::Saved);

    /// The gradient of every input that is `wanted`, from that of the result.
    fn backward<T: Scalar>(
        &self,
        saved: Self::Saved,
        gradient: FlexTensor,
        wanted: [bool; N],
    ) -> [Option<FlexTensor>; N];
}

/// Applies the kernel if all tensors are `flex` tensors of `f32` or all of `f64`; gives them back if not.
pub(crate) fn fused<K: Kernel<N>, const N: usize>(
    kernel: K,
    inputs: [DispatchTensor; N],
) -> Result<DispatchTensor, [DispatchTensor; N]> {
    let dtype = inputs[0].dtype();
    let known = matches!(dtype, DType::F32 | DType::F64);
    if !known
        || !inputs
            .iter()
            .all(|input| is_flex(&input.kind) && input.dtype() == dtype)
    {
        return Err(inputs);
    }
    let autodiff = inputs.iter().map(|input| input.autodiff).fold(
        DispatchAutodiffContext::Disabled,
        DispatchAutodiffContext::merge,
    );
    let kind = match autodiff {
        DispatchAutodiffContext::Disabled => {
            let inputs = inputs.map(|input| tracked(input.kind).into_parts().0);
            DispatchTensorKind::Flex(BackendTensor::Float(forward(&kernel, inputs).0))
        }
        DispatchAutodiffContext::Enabled(_) => {
            let output = BackendTensor::Autodiff(forward_tracked(
                kernel,
                inputs.map(|input| tracked(input.kind)),
            ));
            DispatchTensorKind::Autodiff(Box::new(DispatchTensorKind::Flex(output)))
        }
    };
    Ok(DispatchTensor { kind, autodiff })
}

fn is_flex(kind: &DispatchTensorKind) -> bool {
    match kind {
        DispatchTensorKind::Flex(_) => true,
        DispatchTensorKind::Autodiff(inner) => matches!(**inner, DispatchTensorKind::Flex(_)),
        #[allow(
            unreachable_patterns,
            reason = "whether other backends exist depends on features of burn"
        )]
        _ => false,
    }
}

/// The tensor as autodiff sees it; one that autodiff does not know becomes a constant.
fn tracked(kind: DispatchTensorKind) -> Tracked {
    match kind {
        DispatchTensorKind::Flex(BackendTensor::Float(constant)) => Tracked::new(constant),
        DispatchTensorKind::Flex(BackendTensor::Autodiff(tensor)) => tensor,
        DispatchTensorKind::Autodiff(inner) => tracked(*inner),
        other => unreachable!("a float tensor of the flex backend was expected, not {other:?}"),
    }
}

fn forward<K: Kernel<N>, const N: usize>(
    kernel: &K,
    inputs: [FlexTensor; N],
) -> (FlexTensor, K::Saved) {
    match inputs[0].dtype() {
        DType::F64 => kernel.forward::<f64>(inputs),
        _ => kernel.forward::<f32>(inputs),
    }
}

fn forward_tracked<K: Kernel<N>, const N: usize>(kernel: K, inputs: [Tracked; N]) -> Tracked {
    let mut nodes = Vec::with_capacity(N);
    let inputs = inputs.map(|input| {
        let (values, node) = input.into_parts();
        nodes.push(node);
        values
    });
    let Ok(nodes) = nodes.try_into() else {
        unreachable!("one node per input")
    };
    let (output, saved) = forward(&kernel, inputs);
    // The strategy matters only for operations that ask to be recomputed; these never do.
    match KernelBackward(kernel)
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(preparation) => preparation.finish(saved, output),
        OpsKind::UnTracked(preparation) => preparation.finish(output),
    }
}

#[derive(Debug)]
struct KernelBackward<K>(K);

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for KernelBackward<K> {
    type State = K::Saved;

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let inputs = match gradient.dtype() {
            DType::F64 => self.0.backward::<f64>(ops.state, gradient, wanted),
            _ => self.0.backward::<f32>(ops.state, gradient, wanted),
        };
        for (parent, gradient) in ops.parents.into_iter().zip(inputs) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// All elements of a contiguous tensor, in row-major order.
pub(crate) fn values<T: Scalar>(contiguous: &FlexTensor) -> &[T] {
    contiguous.storage::<T>()
}

/// A tensor that takes over `values`.
pub(crate) fn tensor<T: Scalar>(values: Vec<T>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
