//! Notes of a traced pass, for parity tests and for people who look inside a network; free in every other pass.

use burn::tensor::Tensor;
use std::cell::RefCell;

/// One quantity of a traced pass. `Rows` is the model's own type that says what the rows of a quantity stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct Note<Rows = ()> {
    /// Name of the quantity.
    pub name: String,
    /// What its rows are.
    pub rows: Rows,
    /// Row-major shape, `[rows, width]` in most models.
    pub shape: Vec<usize>,
    /// The numbers, row-major.
    pub values: Vec<f64>,
}

impl<Rows> Note<Rows> {
    /// The last side of the shape: numbers in a row of `[rows, width]`.
    #[must_use]
    pub fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }
}

/// Where a pass puts its notes: nowhere, unless it is traced.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use equivbench_plugin::Notes;
/// let x = Tensor::<2>::ones([4, 3], &Device::flex());
/// let notes = Notes::kept();
/// notes.add((), || "block0.out".into(), || x.clone());
/// assert_eq!(notes.into_vec()[0].shape, [4, 3]);
/// ```
#[derive(Debug)]
pub struct Notes<Rows = ()>(Option<RefCell<Vec<Note<Rows>>>>);

impl<Rows> Notes<Rows> {
    /// Notes of a pass that nobody traces.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Notes of a traced pass.
    #[must_use]
    pub fn kept() -> Self {
        Self(Some(RefCell::default()))
    }

    /// Whether the pass is traced: what is computed for notes alone can be left out otherwise.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Notes a quantity; neither its name nor its tensor is made where nobody asked.
    pub fn add<const D: usize>(
        &self,
        rows: Rows,
        name: impl FnOnce() -> String,
        quantity: impl FnOnce() -> Tensor<D>,
    ) {
        if let Some(notes) = &self.0 {
            let x = quantity();
            notes.borrow_mut().push(Note {
                name: name(),
                rows,
                shape: x.dims().to_vec(),
                values: x.into_data().iter::<f64>().collect(),
            });
        }
    }

    /// The notes in the order in which they were made.
    #[must_use]
    pub fn into_vec(self) -> Vec<Note<Rows>> {
        self.0.map(RefCell::into_inner).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn notes_come_back_in_order_with_their_shapes() {
        let notes = Notes::kept();
        let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex());
        notes.add('a', || "first".into(), || x.clone());
        notes.add('b', || "second".into(), || x.clone().reshape([6]));
        let expected = |name: &str, rows, shape: &[usize]| Note {
            name: name.into(),
            rows,
            shape: shape.to_vec(),
            values: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        };
        let notes = notes.into_vec();
        assert_eq!(
            notes,
            [
                expected("first", 'a', &[2, 3]),
                expected("second", 'b', &[6])
            ]
        );
        assert_eq!((notes[0].width(), notes[1].width()), (3, 6));
    }

    #[test]
    fn a_pass_that_nobody_traces_makes_nothing_for_notes() {
        let notes = Notes::none();
        notes.add::<2>(
            (),
            || unreachable!("a name that nobody asked for"),
            || unreachable!("a quantity that nobody asked for"),
        );
        assert!(!notes.are_kept() && notes.into_vec().is_empty());
    }
}
