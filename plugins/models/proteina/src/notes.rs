//! Notes of a traced pass, for parity tests and for people who look inside; free in every other pass.

use burn::tensor::Tensor;
use std::cell::RefCell;

/// One quantity of a traced pass.
#[derive(Clone, Debug)]
pub struct Note {
    /// Name of the quantity.
    pub name: String,
    /// What its rows are.
    pub rows: NoteRows,
    /// Numbers in a row.
    pub width: usize,
    /// The numbers, row-major.
    pub values: Vec<f64>,
}

/// What the rows of a [`Note`] stand for, chain after chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoteRows {
    /// Chains.
    Chains,
    /// Residues.
    Residues,
    /// Registers and residues of every chain.
    Tokens,
    /// Pairs of residues of every chain.
    ResiduePairs,
    /// Pairs of tokens of every chain, registers included.
    TokenPairs,
}

/// Where a pass puts its notes.
pub(crate) struct Notes(Option<RefCell<Vec<Note>>>);

impl Notes {
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn kept() -> Self {
        Self(Some(RefCell::default()))
    }

    /// Notes a quantity; neither the name nor the tensor is made where nobody asked.
    pub(crate) fn add(
        &self,
        rows: NoteRows,
        name: impl FnOnce() -> String,
        make: impl FnOnce() -> Tensor<2>,
    ) {
        if let Some(notes) = &self.0 {
            let x = make();
            let width = x.dims()[1];
            notes.borrow_mut().push(Note {
                name: name(),
                rows,
                width,
                values: x.into_data().iter::<f64>().collect(),
            });
        }
    }

    pub(crate) fn into_vec(self) -> Vec<Note> {
        self.0.map(RefCell::into_inner).unwrap_or_default()
    }
}
