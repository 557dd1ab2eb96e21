//! Picking rows by index and summing rows by segment, each the gradient of the other.

use std::sync::{Arc, OnceLock};

use burn::tensor::Device;

use burn::Tensor;
use burn::backend::TensorMetadata;
use burn::backend::flex::FlexTensor;

use crate::dispatch::{Kernel, fused, tensor, values};
use crate::parallel::{build, rows_per_chunk};
use crate::scalar::Scalar;
use crate::wide::Plan;
use crate::{KernelError, plain};

/// A checked list of row numbers, made once per graph and shared by every gather over it. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct RowIndex(Arc<RowIndexData>);

#[derive(Debug)]
struct RowIndexData {
    rows: usize,
    index: Vec<u32>,
    by_row: OnceLock<ByRow>,
    /// On the device that used it first.
    plan: OnceLock<Arc<Plan>>,
}

/// The positions at which each row occurs: row `r` at `positions[offsets[r]..offsets[r + 1]]`, ascending.
#[derive(Debug)]
pub(crate) struct ByRow {
    pub(crate) offsets: Vec<u32>,
    pub(crate) positions: Vec<u32>,
}

impl RowIndex {
    /// Checks that all of `index` is below `rows`, the number of rows of the tensors to gather from.
    ///
    /// # Errors
    /// [`KernelError::RowOutOfRange`] names the first entry that is not.
    pub fn new(rows: usize, index: &[usize]) -> Result<Self, KernelError> {
        fits("row index", rows.max(index.len()))?;
        if let Some((position, &index)) =
            index.iter().enumerate().find(|&(_, &index)| index >= rows)
        {
            return Err(KernelError::RowOutOfRange {
                position,
                index,
                rows,
            });
        }
        let index = index.iter().map(|&index| index as u32).collect();
        Ok(Self::of_owners(rows, index))
    }

    /// Of rows that are known to be in range.
    pub(crate) fn of_owners(rows: usize, index: Vec<u32>) -> Self {
        Self(Arc::new(RowIndexData {
            rows,
            index,
            by_row: OnceLock::new(),
            plan: OnceLock::new(),
        }))
    }

    /// The same row numbers on a device.
    pub(crate) fn plan(&self, device: &Device) -> Arc<Plan> {
        let make = || Arc::new(Plan::new(device, self));
        let kept = self.0.plan.get_or_init(make);
        if kept.is_on(device) {
            kept.clone()
        } else {
            make()
        }
    }

    /// Rows of the tensors to gather from.
    pub fn rows(&self) -> usize {
        self.0.rows
    }

    /// The row numbers.
    pub fn index(&self) -> &[u32] {
        &self.0.index
    }

    pub(crate) fn by_row(&self) -> &ByRow {
        self.0
            .by_row
            .get_or_init(|| ByRow::new(self.rows(), self.index()))
    }
}

impl ByRow {
    /// A counting sort, hence stable.
    pub(crate) fn new(rows: usize, index: &[u32]) -> Self {
        let mut offsets = vec![0u32; rows + 1];
        for &row in index {
            offsets[row as usize + 1] += 1;
        }
        for row in 0..rows {
            offsets[row + 1] += offsets[row];
        }
        let mut next = offsets.clone();
        let mut positions = vec![0u32; index.len()];
        for (position, &row) in index.iter().enumerate() {
            positions[next[row as usize] as usize] = position as u32;
            next[row as usize] += 1;
        }
        Self { offsets, positions }
    }
}

/// Checked offsets of consecutive runs of rows: segment `s` is `offsets[s]..offsets[s + 1]`. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Segments(Arc<[u32]>);

impl Segments {
    /// Takes `n + 1` offsets for `n` segments, the first 0, none below the one before; segments may be empty.
    ///
    /// # Errors
    /// [`KernelError::UnsortedOffsets`] names the first offset that breaks the order (or 0 where there is none at all).
    pub fn new(offsets: &[usize]) -> Result<Self, KernelError> {
        if offsets.first() != Some(&0) {
            return Err(KernelError::UnsortedOffsets {
                position: 0,
                offset: offsets.first().copied().unwrap_or(0),
            });
        }
        if let Some(at) = offsets.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(KernelError::UnsortedOffsets {
                position: at + 1,
                offset: offsets[at + 1],
            });
        }
        fits("segments", offsets.len().max(offsets[offsets.len() - 1]))?;
        Ok(Self(offsets.iter().map(|&offset| offset as u32).collect()))
    }

    /// Number of segments.
    pub fn count(&self) -> usize {
        self.0.len() - 1
    }

    /// Number of rows in all segments together.
    pub fn items(&self) -> usize {
        self.0[self.count()] as usize
    }

    /// The offsets, one more than there are segments.
    pub fn offsets(&self) -> &[u32] {
        &self.0
    }

    /// The segment of every row.
    pub(crate) fn owners(&self) -> Vec<u32> {
        let runs = self.0.windows(2).enumerate();
        runs.flat_map(|(segment, run)| {
            std::iter::repeat_n(segment as u32, (run[1] - run[0]) as usize)
        })
        .collect()
    }
}

pub(crate) fn fits(what: &'static str, count: usize) -> Result<(), KernelError> {
    if count >= u32::MAX as usize {
        Err(KernelError::TooLarge { what, count })
    } else {
        Ok(())
    }
}

/// The rows of `x [rows, width]` that `index` names, `[index, width]`; the gradient adds up over repeated rows, in order.
///
/// # Panics
/// If `x` has not the number of rows that `index` was made for.
pub fn gather_rows(x: Tensor<2>, index: &RowIndex) -> Tensor<2> {
    assert_eq!(x.dims()[0], index.rows(), "gather_rows: number of rows");
    match fused(Gather(index.clone()), [x.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x]) => plain::gather_rows(Tensor::from_dispatch(x), index),
    }
}

/// The sum of each segment of rows of `x [items, width]`, `[segments, width]`; an empty segment sums to 0.
///
/// # Panics
/// If `x` has not the number of rows that `segments` cover.
pub fn segment_sum(x: Tensor<2>, segments: &Segments) -> Tensor<2> {
    assert_eq!(x.dims()[0], segments.items(), "segment_sum: number of rows");
    match fused(SegmentSum(segments.clone()), [x.into_dispatch()]) {
        Ok(output) => Tensor::from_dispatch(output),
        Err([x]) => plain::segment_sum(Tensor::from_dispatch(x), segments),
    }
}

#[derive(Debug)]
struct Gather(RowIndex);

impl Kernel<1> for Gather {
    type Saved = ();

    fn forward<T: Scalar>(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
        (picked::<T>(&x, self.0.index()), ())
    }

    fn backward<T: Scalar>(
        &self,
        (): (),
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        let by_row = self.0.by_row();
        [Some(summed::<T>(&gradient, &by_row.offsets, |item| {
            by_row.positions[item] as usize
        }))]
    }
}

#[derive(Debug)]
struct SegmentSum(Segments);

impl Kernel<1> for SegmentSum {
    type Saved = ();

    fn forward<T: Scalar>(&self, [x]: [FlexTensor; 1]) -> (FlexTensor, ()) {
        (summed::<T>(&x, self.0.offsets(), |item| item), ())
    }

    fn backward<T: Scalar>(
        &self,
        (): (),
        gradient: FlexTensor,
        _: [bool; 1],
    ) -> [Option<FlexTensor>; 1] {
        [Some(picked::<T>(&gradient, &self.0.owners()))]
    }
}

/// The rows of `x` that `index` names.
fn picked<T: Scalar>(x: &FlexTensor, index: &[u32]) -> FlexTensor {
    let x = x.to_contiguous();
    let (given, width) = (values::<T>(&x), x.shape()[1]);
    let output = build(
        index.len() * width,
        rows_per_chunk(width) * width,
        |first, output| {
            for (row, output) in index[first / width..]
                .iter()
                .zip(output.chunks_exact_mut(width))
            {
                output.copy_from_slice(&given[*row as usize * width..][..width]);
            }
        },
    );
    tensor(output, [index.len(), width])
}

/// Row `r` of the result is the sum of rows `item(i)` of `x` for `i` in `offsets[r]..offsets[r + 1]`, in this order.
fn summed<T: Scalar>(
    x: &FlexTensor,
    offsets: &[u32],
    item: impl Fn(usize) -> usize + Sync,
) -> FlexTensor {
    let x = x.to_contiguous();
    let (given, width, rows) = (values::<T>(&x), x.shape()[1], offsets.len() - 1);
    let output = build(
        rows * width,
        rows_per_chunk(width) * width,
        |first, output: &mut [T]| {
            for (run, output) in offsets[first / width..]
                .windows(2)
                .zip(output.chunks_exact_mut(width))
            {
                for item in (run[0] as usize..run[1] as usize).map(&item) {
                    for (total, &value) in output.iter_mut().zip(&given[item * width..][..width]) {
                        *total += value;
                    }
                }
            }
        },
    );
    tensor(output, [rows, width])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn gathering_agrees_with_its_composition() {
        for (rows, width, index) in [
            (1, 1, vec![0]),
            (5, 3, vec![4, 0, 4, 4, 2]),
            (40, 130, (0..900).map(|i| i * i % 37).collect()),
        ] {
            let index = RowIndex::new(rows, &index).unwrap();
            let shape = [index.index().len() * width];
            check(
                |x| gather_rows(x[0].clone().reshape([rows, width]), &index).reshape(shape),
                |x| plain::gather_rows(x[0].clone().reshape([rows, width]), &index).reshape(shape),
                &[numbers(rows * width, 1)],
            );
        }
    }

    #[test]
    fn segment_sums_agree_with_their_composition() {
        for (width, offsets) in [
            (1, vec![0, 1]),
            (3, vec![0, 2, 2, 5]),
            (130, (0..80).map(|i| i * i / 9).collect()),
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
    fn nothing_gathers_to_nothing_and_empty_segments_sum_to_zero() {
        let device = burn::tensor::Device::flex();
        let nothing = gather_rows(
            Tensor::ones([3, 2], &device),
            &RowIndex::new(3, &[]).unwrap(),
        );
        assert_eq!(nothing.dims(), [0, 2]);
        let sums = segment_sum(
            Tensor::ones([0, 2], &device),
            &Segments::new(&[0, 0, 0]).unwrap(),
        );
        assert_eq!(sums.into_data().try_to_vec::<f32>().unwrap(), [0.0; 4]);
        assert_eq!(
            gather_rows(
                Tensor::ones([3, 0], &device),
                &RowIndex::new(3, &[1]).unwrap()
            )
            .dims(),
            [1, 0]
        );
    }

    #[test]
    fn transposed_rows_are_gathered_in_their_own_order() {
        let index = RowIndex::new(4, &[3, 3, 1]).unwrap();
        let view = |x: &Tensor<1>| x.clone().reshape([6, 4]).transpose();
        check(
            |x| gather_rows(view(&x[0]), &index).reshape([18]),
            |x| plain::gather_rows(view(&x[0]), &index).reshape([18]),
            &[numbers(24, 1)],
        );
    }

    #[test]
    fn wrong_indices_are_named() {
        let error = RowIndex::new(3, &[0, 3]).unwrap_err();
        assert_eq!(
            error,
            KernelError::RowOutOfRange {
                position: 1,
                index: 3,
                rows: 3
            }
        );
        assert_eq!(
            Segments::new(&[1, 2]).unwrap_err(),
            KernelError::UnsortedOffsets {
                position: 0,
                offset: 1
            }
        );
        assert_eq!(
            Segments::new(&[0, 2, 1]).unwrap_err(),
            KernelError::UnsortedOffsets {
                position: 2,
                offset: 1
            }
        );
        assert!(Segments::new(&[]).is_err());
    }
}
