//! Functions whose gradients are written down in tensor operations, on any backend.

use std::fmt::Debug;

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Autodiff, BackendTensor, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, Flex,
};

use super::Reachable;

/// A differentiable function of `N` tensors, which all lie on one device. Inputs and results are constants for autodiff.
pub(crate) trait Function<const N: usize>: Debug + Send + 'static {
    fn forward(&self, inputs: [DispatchTensor; N]) -> DispatchTensor;

    /// The gradient of every input that is `wanted`, from the inputs and the gradient of the result.
    fn backward(
        &self,
        inputs: [DispatchTensor; N],
        gradient: DispatchTensor,
        wanted: [bool; N],
    ) -> [Option<DispatchTensor>; N];
}

/// Applies a function, and tells autodiff.
pub(crate) fn apply<F: Function<N>, const N: usize>(
    function: F,
    inputs: [DispatchTensor; N],
) -> DispatchTensor {
    let autodiff = inputs.iter().map(|input| input.autodiff).fold(
        DispatchAutodiffContext::Disabled,
        DispatchAutodiffContext::merge,
    );
    let kinds = inputs.map(|input| input.kind);
    let kind = match innermost(&kinds[0]) {
        DispatchTensorKind::Flex(_) => on_backend::<Flex, F, N>(function, kinds, autodiff),
        #[cfg(feature = "cuda")]
        DispatchTensorKind::Cube(_) => {
            on_backend::<burn::backend::Cube, F, N>(function, kinds, autodiff)
        }
        other => unreachable!("a float tensor was expected, not {other:?}"),
    };
    DispatchTensor { kind, autodiff }
}

fn innermost(kind: &DispatchTensorKind) -> &DispatchTensorKind {
    match kind {
        DispatchTensorKind::Autodiff(inner) => innermost(inner),
        kind => kind,
    }
}

fn on_backend<B: Reachable, F: Function<N>, const N: usize>(
    function: F,
    inputs: [DispatchTensorKind; N],
    autodiff: DispatchAutodiffContext,
) -> DispatchTensorKind {
    if matches!(autodiff, DispatchAutodiffContext::Disabled) {
        let inputs = inputs.map(|input| constant::<B>(B::reach(input).float()));
        return B::wrap(BackendTensor::Float(primitive::<B>(
            function.forward(inputs),
        )));
    }
    let mut nodes = Vec::with_capacity(N);
    let saved = inputs.map(|input| {
        let (values, node) = tracked::<B>(input).into_parts();
        nodes.push(node);
        values
    });
    let Ok(nodes) = nodes.try_into() else {
        unreachable!("one node per input")
    };
    let output = primitive::<B>(function.forward(saved.clone().map(constant::<B>)));
    // The strategy matters only for operations that ask to be recomputed; these never do.
    let prepared = Backward::<B, N>::prepare::<NoCheckpointing>(Written(function), nodes);
    let output = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish(saved, output),
        OpsKind::UnTracked(preparation) => preparation.finish(output),
    };
    DispatchTensorKind::Autodiff(Box::new(B::wrap(BackendTensor::Autodiff(output))))
}

/// The tensor as autodiff sees it; one that autodiff does not know becomes a constant.
fn tracked<B: Reachable>(kind: DispatchTensorKind) -> FloatTensor<Autodiff<B>> {
    match kind {
        DispatchTensorKind::Autodiff(inner) => tracked::<B>(*inner),
        kind => match B::reach(kind) {
            BackendTensor::Autodiff(tensor) => tensor,
            constant => FloatTensor::<Autodiff<B>>::new(constant.float()),
        },
    }
}

fn constant<B: Reachable>(values: FloatTensor<B>) -> DispatchTensor {
    DispatchTensor {
        kind: B::wrap(BackendTensor::Float(values)),
        autodiff: DispatchAutodiffContext::Disabled,
    }
}

fn primitive<B: Reachable>(values: DispatchTensor) -> FloatTensor<B> {
    B::reach(values.kind).float()
}

#[derive(Debug)]
struct Written<F>(F);

impl<B: Reachable, F: Function<N>, const N: usize> Backward<B, N> for Written<F> {
    type State = [FloatTensor<B>; N];

    fn backward(self, ops: Ops<Self::State, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = constant::<B>(gradients.consume::<B>(&ops.node));
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = self
            .0
            .backward(ops.state.map(constant::<B>), gradient, wanted);
        for (parent, found) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(found)) = (parent, found) {
                gradients.register::<B>(parent.id, primitive::<B>(found));
            }
        }
    }
}
