//! Products of many rows with a small matrix.

use burn::backend::DispatchTensor;
use burn::tensor::Tensor;

use super::collapse;
use super::function::{Function, apply};

/// Rows that one partial product of a weight's gradient adds up at least.
const FEWEST: usize = 256;
/// Elements of a result that one group of threads makes: a square of this side.
const TILE: usize = 64;
/// Groups of threads that keep a device busy.
const GROUPS: usize = 528;

/// `x [rows, inputs]` times `weight [inputs, outputs]`.
pub(crate) fn product(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let inputs = [x, weight].map(Tensor::into_dispatch);
    Tensor::from_dispatch(apply(Product, inputs))
}

#[derive(Debug)]
struct Product;

impl Function<2> for Product {
    fn forward(&self, inputs: [DispatchTensor; 2]) -> DispatchTensor {
        let [x, weight] = inputs.map(Tensor::<2>::from_dispatch);
        x.matmul(weight).into_dispatch()
    }

    fn backward(
        &self,
        inputs: [DispatchTensor; 2],
        gradient: DispatchTensor,
        [of_x, of_weight]: [bool; 2],
    ) -> [Option<DispatchTensor>; 2] {
        let [x, weight] = inputs.map(Tensor::<2>::from_dispatch);
        let gradient = Tensor::<2>::from_dispatch(gradient);
        let for_weight = of_weight.then(|| weight_gradient(x, gradient.clone()).into_dispatch());
        let for_x = of_x.then(|| gradient.matmul(weight.transpose()).into_dispatch());
        [for_x, for_weight]
    }
}

/// `xᵀ gradient`, in parts of the rows that are added up: as one product it would occupy a few groups of threads only.
fn weight_gradient(x: Tensor<2>, gradient: Tensor<2>) -> Tensor<2> {
    let ([rows, inputs], outputs) = (x.dims(), gradient.dims()[1]);
    let tiles = inputs.div_ceil(TILE) * outputs.div_ceil(TILE);
    let parts = GROUPS.div_ceil(tiles.max(1)).min(rows / FEWEST).max(1);
    if parts == 1 {
        return x.transpose().matmul(gradient);
    }
    let each = rows / parts;
    let whole = parts * each;
    let split = |x: &Tensor<2>, width: usize| {
        let own = x.clone().slice([0..whole, 0..width]);
        own.reshape([parts, each, width])
    };
    let products = split(&x, inputs)
        .swap_dims(1, 2)
        .matmul(split(&gradient, outputs));
    let sum = collapse(products.reshape([1, parts, inputs * outputs])).reshape([inputs, outputs]);
    if whole == rows {
        return sum;
    }
    let left = x.slice([whole..rows, 0..inputs]).transpose();
    sum + left.matmul(gradient.slice([whole..rows, 0..outputs]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{check, numbers};

    #[test]
    fn products_in_parts_agree_with_whole_ones() {
        for (rows, inputs, outputs) in [(1, 1, 1), (300, 3, 5), (2 * FEWEST, 4, 2), (2311, 7, 3)] {
            let size = rows * outputs;
            let shaped = |x: &[Tensor<1>]| {
                (
                    x[0].clone().reshape([rows, inputs]),
                    x[1].clone().reshape([inputs, outputs]),
                )
            };
            check(
                |x| {
                    let (x, weight) = shaped(x);
                    product(x, weight).reshape([size])
                },
                |x| {
                    let (x, weight) = shaped(x);
                    x.matmul(weight).reshape([size])
                },
                &[numbers(rows * inputs, 1), numbers(inputs * outputs, 2)],
            );
        }
    }
}
