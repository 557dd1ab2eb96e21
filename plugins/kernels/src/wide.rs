//! Compositions for devices with many thousands of threads.
//!
//! Such a device gives every element of a result its own thread. What [`plain`](crate::plain) writes as one long sum per
//! element (rows added up by index, gradients of a bias that many rows share, means over whole grids) would keep it waiting for
//! a few hundred threads. Here such sums are taken in stages of at most [`STAGE`] terms, always in the same order, so that
//! results repeat to the last bit.

mod activation;
mod conv3d;
mod function;
mod product;

use std::sync::{Arc, OnceLock};

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::NoCheckpointing};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{
    Autodiff, Backend, BackendTensor, DispatchTensor, DispatchTensorKind, Flex, Slice,
    TensorMetadata,
};
use burn::tensor::{DType, Device, Int, Shape, Tensor, TensorData};

use crate::gather::ByRow;
use crate::{Dropout, RowChoice, RowIndex, Segments};

/// Terms of one stage of a sum.
const STAGE: usize = 64;

pub(crate) use activation::{gelu, sigmoid, silu};
pub(crate) use conv3d::conv3d;
pub(crate) use product::product;

/// Whether a device is the processor, for which fused kernels exist.
pub fn is_host(device: &Device) -> bool {
    device.clone().inner() == Device::flex()
}

/// See [`crate::gather_rows`].
pub(crate) fn gather_rows(x: Tensor<2>, index: &RowIndex) -> Tensor<2> {
    let rows = Rows::on(&x.device().inner(), index.clone());
    apply(Linear::Pick(rows), x)
}

/// See [`crate::segment_sum`].
pub(crate) fn segment_sum(x: Tensor<2>, segments: &Segments) -> Tensor<2> {
    let owners = RowIndex::of_owners(segments.count(), segments.owners());
    let rows = Rows::on(&x.device().inner(), owners);
    apply(Linear::Sum(rows), x)
}

/// The chosen row of `table` for every choice, zeros where nothing was chosen.
pub(crate) fn chosen_rows(table: Tensor<2>, choice: &RowChoice) -> Tensor<2> {
    let nothing = Tensor::zeros([1, table.dims()[1]], (&table.device(), table.dtype()));
    gather_rows(Tensor::cat(vec![table, nothing], 0), choice.extended())
}

/// `values [width]` as `rows` equal rows.
pub(crate) fn equal_rows(values: Tensor<1>, rows: usize) -> Tensor<2> {
    let width = values.dims()[0];
    repeat(values.reshape([1, 1, width]), rows).reshape([rows, width])
}

/// `[outer, 1, inner]` to `[outer, count, inner]`.
pub(crate) fn repeat(x: Tensor<3>, count: usize) -> Tensor<3> {
    apply(Linear::Repeat(count), x)
}

/// Sums over the middle axis, `[outer, n, inner]` to `[outer, 1, inner]`.
pub(crate) fn collapse(x: Tensor<3>) -> Tensor<3> {
    let count = x.dims()[1];
    apply(Linear::Collapse(count), x)
}

/// See [`crate::group_norm_silu`].
pub(crate) fn group_norm_silu(
    x: Tensor<5>,
    [scale, shift]: [Tensor<1>; 2],
    groups: usize,
    epsilon: f64,
    dropout: Option<Dropout>,
) -> Tensor<5> {
    let shape @ [batch, channels, ..] = x.dims();
    let voxels = shape[2..].iter().product::<usize>();
    let count = channels / groups * voxels;
    let mean = |x: Tensor<3>| collapse(x).mul_scalar(1.0 / count as f64);
    let x = x.reshape([batch * groups, count, 1]);
    let centred = x.clone() - repeat(mean(x), count);
    let root = mean(centred.clone().square()).add_scalar(epsilon).sqrt();
    let normal = centred * repeat(root.recip(), count);
    let [scale, shift] = [scale, shift].map(|values| of_voxels(values, batch, voxels));
    let normal = normal.reshape([batch * channels, voxels, 1]);
    let output = silu(normal * scale + shift).reshape(shape);
    match dropout.filter(Dropout::acts) {
        Some(dropout) => self::dropout(output, dropout),
        None => output,
    }
}

/// `[channels]` for every voxel of a batch of grids, `[batch * channels, voxels, 1]`.
fn of_voxels(values: Tensor<1>, batch: usize, voxels: usize) -> Tensor<3> {
    let channels = values.dims()[0];
    let of_samples = repeat(values.reshape([1, 1, channels]), batch);
    repeat(of_samples.reshape([batch * channels, 1, 1]), voxels)
}

/// Adds a number to all voxels of a channel.
pub(crate) fn add_to_channels(x: Tensor<5>, values: Tensor<1>) -> Tensor<5> {
    let shape @ [batch, channels, ..] = x.dims();
    let voxels = shape[2..].iter().product::<usize>();
    let x = x.reshape([batch * channels, voxels, 1]);
    (x + of_voxels(values, batch, voxels)).reshape(shape)
}

/// See [`crate::dropout`].
pub(crate) fn dropout<const D: usize>(x: Tensor<D>, dropout: Dropout) -> Tensor<D> {
    dropped(x, dropout, Dropout::COLUMNS)
}

/// The product with a mask of rows of this many columns, in row-major order.
pub(crate) fn dropped<const D: usize>(x: Tensor<D>, dropout: Dropout, columns: usize) -> Tensor<D> {
    let drop = Dropping::<D> { dropout, columns };
    Tensor::from_dispatch(function::apply(drop, [x.into_dispatch()]))
}

/// Forward and backward pass are the same product.
#[derive(Debug)]
struct Dropping<const D: usize> {
    dropout: Dropout,
    columns: usize,
}

impl<const D: usize> Dropping<D> {
    fn of(&self, x: DispatchTensor) -> DispatchTensor {
        let x = Tensor::<D>::from_dispatch(x);
        let elements = x.shape().num_elements();
        let rows = elements.div_ceil(self.columns);
        #[cfg(feature = "cuda")]
        {
            let keys = (0..rows as u64).flat_map(|row| self.dropout.row_key(row));
            let keys = TensorData::new(keys.collect::<Vec<u32>>(), [2 * rows]);
            let keys = Tensor::<1, Int>::from_data(keys, (&x.device(), DType::U32));
            let x = x.clone().into_dispatch();
            if let Some(y) =
                crate::cube::dropped(self.dropout, self.columns, keys.into_dispatch(), &x)
            {
                return y;
            }
        }
        let mask = mask(self.dropout, rows, self.columns, &x).reshape([rows * self.columns]);
        (x.clone() * mask.slice(0..elements).reshape(x.dims())).into_dispatch()
    }
}

impl<const D: usize> function::Function<1> for Dropping<D> {
    fn forward(&self, [x]: [DispatchTensor; 1]) -> DispatchTensor {
        self.of(x)
    }

    fn backward(
        &self,
        _: [DispatchTensor; 1],
        gradient: DispatchTensor,
        _: [bool; 1],
    ) -> [Option<DispatchTensor>; 1] {
        [Some(self.of(gradient))]
    }
}

/// A mask `[rows, columns]` of 0 and the inverse chance of survival, made on the device and in the type of `like`: the numbers of
/// [`Dropout::mask`].
pub(crate) fn mask<const D: usize>(
    dropout: Dropout,
    rows: usize,
    columns: usize,
    like: &Tensor<D>,
) -> Tensor<2> {
    let device = like.device().inner();
    let upload = |values: Vec<u32>, shape: [usize; 2]| {
        Tensor::<2, Int>::from_data(TensorData::new(values, shape), (&device, DType::U32))
    };
    let keys: Vec<[u32; 2]> = (0..rows as u64).map(|row| dropout.row_key(row)).collect();
    let [first, second] =
        [0, 1].map(|half| upload(keys.iter().map(|key| key[half]).collect(), [rows, 1]));
    let spread = (0..columns as u32).map(|column| column.wrapping_mul(Dropout::SPREAD));
    let columns = upload(spread.collect(), [1, columns]);
    let bits = mixed(mixed(columns.bitwise_xor(first)).add(second));
    let kept = bits.greater_equal_elem(dropout.threshold());
    kept.float().cast(like.dtype()).mul_scalar(dropout.scale())
}

fn mixed(bits: Tensor<2, Int>) -> Tensor<2, Int> {
    let [first, second] = Dropout::MULTIPLIERS;
    let folded = |bits: Tensor<2, Int>, by: u32| {
        bits.clone()
            .bitwise_xor(bits.bitwise_right_shift_scalar(by))
    };
    let bits = folded(bits, 16).mul_scalar(first);
    folded(folded(bits, 15).mul_scalar(second), 16)
}

/// Row numbers, and the same on a device.
#[derive(Debug, Clone)]
struct Rows {
    index: RowIndex,
    plan: Arc<Plan>,
}

impl Rows {
    fn on(device: &Device, index: RowIndex) -> Self {
        Self {
            plan: index.plan(device),
            index,
        }
    }

    fn stages(&self) -> &[Stage] {
        let plan = &self.plan;
        plan.stages
            .get_or_init(|| Stage::all(self.index.by_row(), &plan.device))
    }
}

/// Row numbers on a device: which row every position takes, and how the positions of every row are added up.
#[derive(Debug)]
pub(crate) struct Plan {
    device: Device,
    index: Tensor<1, Int>,
    stages: OnceLock<Vec<Stage>>,
}

/// One stage of a sum: every group of `terms` rows becomes a row.
#[derive(Debug)]
struct Stage {
    /// `[groups * terms]`; the row behind the last one stands for zeros.
    index: Tensor<1, Int>,
    groups: usize,
    terms: usize,
    /// Whether any term is a zero.
    is_padded: bool,
}

impl Plan {
    pub(crate) fn new(device: &Device, rows: &RowIndex) -> Self {
        Self {
            device: device.clone(),
            index: upload(rows.index().iter().copied(), device),
            stages: OnceLock::new(),
        }
    }

    pub(crate) fn is_on(&self, device: &Device) -> bool {
        self.device == *device
    }
}

impl Stage {
    fn all(ByRow { offsets, positions }: &ByRow, device: &Device) -> Vec<Self> {
        let (mut stage, mut left) = Self::new(offsets, Some(positions), device);
        let mut stages = Vec::new();
        while let Some(offsets) = left {
            stages.push(stage);
            (stage, left) = Self::new(&offsets, None, device);
        }
        stages.push(stage);
        stages
    }

    /// The stage for rows whose terms are `positions[offsets[row]..offsets[row + 1]]`, and what is left to add up after it.
    fn new(
        offsets: &[u32],
        positions: Option<&[u32]>,
        device: &Device,
    ) -> (Self, Option<Vec<u32>>) {
        let runs = || offsets.windows(2).map(|run| [run[0], run[1]]);
        let most = runs().map(|[from, to]| to - from).max().unwrap_or(0) as usize;
        let terms = most.clamp(1, STAGE);
        let nothing = offsets[offsets.len() - 1];
        // A row without terms is a group of zeros.
        let groups_of = |[from, to]: [u32; 2]| ((to - from) as usize).div_ceil(terms).max(1);
        let groups: usize = runs().map(groups_of).sum();
        let mut index = Vec::with_capacity(groups * terms);
        let mut left = vec![0];
        for run @ [from, to] in runs() {
            let own = (from..to).map(|at| positions.map_or(at, |positions| positions[at as usize]));
            index.extend(own);
            left.push(left[left.len() - 1] + groups_of(run) as u32);
            index.resize(left[left.len() - 1] as usize * terms, nothing);
        }
        let stage = Self {
            is_padded: index.contains(&nothing),
            index: upload(index.into_iter(), device),
            groups,
            terms,
        };
        (stage, (groups + 1 > offsets.len()).then_some(left))
    }

    fn sum<B: Reachable>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let width = x.shape()[1];
        let x = if self.is_padded {
            let (device, dtype) = (x.device(), x.dtype());
            let zeros = B::float_zeros(Shape::new([1, width]), &device, dtype.into());
            B::float_cat(vec![x, zeros], 0)
        } else {
            x
        };
        let terms = B::float_select(x, 0, int::<B>(&self.index));
        let terms = B::float_reshape(terms, Shape::new([self.groups, self.terms, width]));
        B::float_reshape(B::float_sum_dim(terms, 1), Shape::new([self.groups, width]))
    }
}

fn upload(values: impl ExactSizeIterator<Item = u32>, device: &Device) -> Tensor<1, Int> {
    let count = values.len();
    let values: Vec<i32> = values.map(|value| value as i32).collect();
    Tensor::from_data(TensorData::new(values, [count]), device)
}

/// A linear map of rows; each is the transpose of another one.
#[derive(Debug, Clone)]
enum Linear {
    /// Rows by index.
    Pick(Rows),
    /// Sums of the rows with the same index.
    Sum(Rows),
    /// This many copies along the middle axis.
    Repeat(usize),
    /// The sum over the middle axis, of this length.
    Collapse(usize),
}

impl Linear {
    fn forward<B: Reachable>(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        match self {
            Self::Pick(rows) => B::float_select(x, 0, int::<B>(&rows.plan.index)),
            Self::Sum(rows) => {
                let (count, shape) = (rows.index.rows(), x.shape());
                if count == 0 || shape.num_elements() == 0 {
                    let shape = Shape::new([count, shape[1]]);
                    return B::float_zeros(shape, &x.device(), x.dtype().into());
                }
                rows.stages().iter().fold(x, |x, stage| stage.sum::<B>(x))
            }
            Self::Repeat(count) => {
                let shape = x.shape();
                B::float_expand(x, Shape::new([shape[0], *count, shape[2]]))
            }
            Self::Collapse(_) => staged_sum::<B>(x),
        }
    }

    fn transposed(&self) -> Self {
        match self {
            Self::Pick(rows) => Self::Sum(rows.clone()),
            Self::Sum(rows) => Self::Pick(rows.clone()),
            Self::Repeat(count) => Self::Collapse(*count),
            Self::Collapse(count) => Self::Repeat(*count),
        }
    }
}

/// `[outer, n, inner]` to `[outer, 1, inner]`.
fn staged_sum<B: Reachable>(mut x: FloatTensor<B>) -> FloatTensor<B> {
    let (outer, inner) = (x.shape()[0], x.shape()[2]);
    while x.shape()[1] > STAGE {
        let count = x.shape()[1];
        let (groups, rest) = (count / STAGE, count % STAGE);
        let part = |from: usize, to: usize| {
            let slices = [0..outer, from..to, 0..inner].map(Slice::from);
            if to - from == count {
                x.clone()
            } else {
                B::float_slice(x.clone(), &slices)
            }
        };
        let whole = B::float_reshape(
            part(0, groups * STAGE),
            Shape::new([outer, groups, STAGE, inner]),
        );
        let sums = B::float_reshape(
            B::float_sum_dim(whole, 2),
            Shape::new([outer, groups, inner]),
        );
        x = if rest == 0 {
            sums
        } else {
            let rest = B::float_sum_dim(part(groups * STAGE, count), 1);
            B::float_cat(vec![sums, rest], 1)
        };
    }
    B::float_sum_dim(x, 1)
}

impl<B: Reachable> Backward<B, 1> for Linear {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<B>(&ops.node);
        if let [Some(parent)] = ops.parents {
            gradients.register::<B>(parent.id, self.transposed().forward::<B>(gradient));
        }
    }
}

/// A backend whose tensors can be taken out of what [`Tensor`] wraps.
pub(crate) trait Reachable: Backend {
    fn reach(kind: DispatchTensorKind) -> BackendTensor<Self>;
    fn wrap(tensor: BackendTensor<Self>) -> DispatchTensorKind;
}

impl Reachable for Flex {
    fn reach(kind: DispatchTensorKind) -> BackendTensor<Self> {
        match kind {
            DispatchTensorKind::Flex(tensor) => tensor,
            other => unreachable!("all tensors of an operation lie on one device, not {other:?}"),
        }
    }

    fn wrap(tensor: BackendTensor<Self>) -> DispatchTensorKind {
        DispatchTensorKind::Flex(tensor)
    }
}

#[cfg(feature = "cuda")]
impl Reachable for burn::backend::Cube {
    fn reach(kind: DispatchTensorKind) -> BackendTensor<Self> {
        match kind {
            DispatchTensorKind::Cube(tensor) => tensor,
            other => unreachable!("all tensors of an operation lie on one device, not {other:?}"),
        }
    }

    fn wrap(tensor: BackendTensor<Self>) -> DispatchTensorKind {
        DispatchTensorKind::Cube(tensor)
    }
}

fn int<B: Reachable>(index: &Tensor<1, Int>) -> IntTensor<B> {
    B::reach(index.clone().into_dispatch().kind).int()
}

fn apply<const D: usize>(map: Linear, x: Tensor<D>) -> Tensor<D> {
    let DispatchTensor { kind, autodiff } = x.into_dispatch();
    let kind = match kind {
        DispatchTensorKind::Autodiff(inner) => {
            DispatchTensorKind::Autodiff(Box::new(on_kind(map, *inner)))
        }
        kind => on_kind(map, kind),
    };
    Tensor::from_dispatch(DispatchTensor { kind, autodiff })
}

fn on_kind(map: Linear, kind: DispatchTensorKind) -> DispatchTensorKind {
    match kind {
        DispatchTensorKind::Flex(x) => DispatchTensorKind::Flex(on_backend(map, x)),
        #[cfg(feature = "cuda")]
        DispatchTensorKind::Cube(x) => DispatchTensorKind::Cube(on_backend(map, x)),
        other => unreachable!("a float tensor was expected, not {other:?}"),
    }
}

fn on_backend<B: Reachable>(map: Linear, x: BackendTensor<B>) -> BackendTensor<B> {
    match x {
        BackendTensor::Autodiff(x) => BackendTensor::Autodiff(tracked::<B>(map, x)),
        constant => BackendTensor::Float(map.forward::<B>(constant.float())),
    }
}

fn tracked<B: Reachable>(map: Linear, x: FloatTensor<Autodiff<B>>) -> FloatTensor<Autodiff<B>> {
    let (values, node) = x.into_parts();
    let output = map.forward::<B>(values);
    // The strategy matters only for operations that ask to be recomputed; these never do.
    let prepared = Backward::<B, 1>::prepare::<NoCheckpointing>(map, [node]);
    match prepared.compute_bound().stateful() {
        OpsKind::Tracked(preparation) => preparation.finish((), output),
        OpsKind::UnTracked(preparation) => preparation.finish(output),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain;
    use crate::testing::{check, numbers};

    #[test]
    fn rows_by_index_and_sums_of_segments_agree_with_their_definitions() {
        for (rows, width, index) in [
            (1, 1, vec![0]),
            (5, 3, vec![4, 0, 4, 4, 2]),
            // Rows with more terms than two stages have, and rows without any.
            (40, 3, (0..9000).map(|i| i * i % 37 % 5).collect()),
        ] {
            let index = RowIndex::new(rows, &index).unwrap();
            let shape = [index.index().len() * width];
            check(
                |x| gather_rows(x[0].clone().reshape([rows, width]), &index).reshape(shape),
                |x| plain::gather_rows(x[0].clone().reshape([rows, width]), &index).reshape(shape),
                &[numbers(rows * width, 1)],
            );
        }
        for (width, offsets) in [
            (3, vec![0, 2, 2, 5]),
            (2, vec![0, 0, 5000, 5001]),
            (13, (0..80).map(|i| i * i / 9).collect()),
        ] {
            let segments = Segments::new(&offsets).unwrap();
            let (rows, shape) = (segments.items(), [segments.count() * width]);
            check(
                |x| segment_sum(x[0].clone().reshape([rows, width]), &segments).reshape(shape),
                |x| {
                    plain::segment_sum(x[0].clone().reshape([rows, width]), &segments)
                        .reshape(shape)
                },
                &[numbers(rows * width, 1)],
            );
        }
    }

    #[test]
    fn chosen_rows_agree_with_a_sum_of_look_ups() {
        let choose = |at: u32| if at % 9 == 4 { RowChoice::NONE } else { at % 7 };
        let choice = RowChoice::new(7, (0..2500).map(choose).collect::<Vec<_>>()).unwrap();
        check(
            |x| chosen_rows(x[0].clone().reshape([7, 3]), &choice).reshape([7500]),
            |x| {
                plain::lookup_sum(
                    vec![x[0].clone().reshape([7, 3])],
                    std::slice::from_ref(&choice),
                )
                .reshape([7500])
            },
            &[numbers(21, 1)],
        );
    }

    #[test]
    fn repeated_and_collapsed_axes_agree_with_expanded_and_summed_ones() {
        for count in [1, 5, STAGE, 70 * STAGE + 3] {
            check(
                |x| repeat(x[0].clone().reshape([2, 1, 3]), count).reshape([6 * count]),
                |x| {
                    x[0].clone()
                        .reshape([2, 1, 3])
                        .expand([2, count, 3])
                        .reshape([6 * count])
                },
                &[numbers(6, 1)],
            );
            check(
                |x| collapse(x[0].clone().reshape([2, count, 3])).reshape([6]),
                |x| x[0].clone().reshape([2, count, 3]).sum_dim(1).reshape([6]),
                &[numbers(6 * count, 1)],
            );
        }
    }

    #[test]
    fn group_norms_and_biases_of_grids_agree_with_their_definitions() {
        let (shape, size) = ([2, 4, 5, 5, 5], 1000);
        let dropout = Some(Dropout {
            probability: 0.25,
            seed: 3,
        });
        let apply = |x: &[Tensor<1>], wide: bool| {
            let (grids, scale, shift) = (x[0].clone().reshape(shape), x[1].clone(), x[2].clone());
            let y = if wide {
                group_norm_silu(grids, [scale, shift], 2, 1e-5, dropout)
            } else {
                plain::group_norm_silu(grids, scale, shift, 2, 1e-5, dropout)
            };
            y.reshape([size])
        };
        let inputs = [numbers(size, 1), numbers(4, 2), numbers(4, 3)];
        check(|x| apply(x, true), |x| apply(x, false), &inputs);
        check(
            |x| add_to_channels(x[0].clone().reshape(shape), x[1].clone()).reshape([size]),
            |x| {
                (x[0].clone().reshape(shape) + x[1].clone().reshape([1, 4, 1, 1, 1]))
                    .reshape([size])
            },
            &inputs[..2],
        );
    }

    #[test]
    fn masks_made_of_integer_tensors_are_those_of_the_loops() {
        let dropout = Dropout {
            probability: 0.3,
            seed: 11,
        };
        let like = Tensor::<1>::zeros([1], (&Device::flex(), DType::F64));
        let made = mask(dropout, 7, 100, &like).into_data();
        assert_eq!(made.try_to_vec::<f64>().unwrap(), dropout.mask(7, 100));
    }
}
