//! Notes of a traced pass, for parity tests and for people who look inside; free in every other pass.

use burn::tensor::Tensor;
use std::{cell::RefCell, fmt::Display};

/// One quantity of a traced pass.
#[derive(Clone, Debug)]
pub struct Note {
    /// Path of the quantity, as the parameters beside it are named: `down.3.attn`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// The numbers, row-major.
    pub values: Vec<f64>,
}

/// Where a pass puts its notes, and at which module it is.
pub(crate) struct Notes<'a> {
    kept: Option<&'a RefCell<Vec<Note>>>,
    path: String,
}

impl<'a> Notes<'a> {
    pub(crate) const NONE: Notes<'static> = Notes {
        kept: None,
        path: String::new(),
    };

    pub(crate) fn kept(notes: &'a RefCell<Vec<Note>>) -> Self {
        Self {
            kept: Some(notes),
            path: String::new(),
        }
    }

    /// The notes of a module inside of this one.
    pub(crate) fn inside(&self, module: impl Display) -> Self {
        let path = if self.kept.is_none() || self.path.is_empty() {
            self.kept.map_or(String::new(), |_| module.to_string())
        } else {
            format!("{}.{module}", self.path)
        };
        Self {
            kept: self.kept,
            path,
        }
    }

    /// Notes what a module gave.
    pub(crate) fn add<const D: usize>(&self, x: &Tensor<D>) {
        if let Some(notes) = self.kept {
            let values = x.clone().into_data().iter::<f64>().collect();
            notes.borrow_mut().push(Note {
                name: self.path.clone(),
                shape: x.dims().to_vec(),
                values,
            });
        }
    }
}
