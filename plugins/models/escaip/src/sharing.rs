//! All rotations of a batch from one pass: the backbone sees distances and angles only, so its result serves every rotated copy, and
//! `f_i = m_i Σ_j a_ij ⊙ u_ij` needs the rotated unit vectors alone.

use crate::{frames::unit, heads::ForceFactors, pass::checked_positions};
use burn::tensor::Tensor;
use equivbench_plugin::{Batch, PluginError, PluginResult};
use rayon::prelude::*;

/// What rotated copies of a batch share.
pub(crate) struct SharedFactors {
    /// `[molecules + 1]` first atoms of the molecules.
    molecules: Vec<usize>,
    /// `[atoms]` atomic numbers.
    species: Vec<i64>,
    /// `[atoms + 1]` first edges of the atoms.
    offsets: Vec<usize>,
    /// `[edges]` neighbours; a lonely atom is its own.
    senders: Vec<usize>,
    /// `a [edges]`.
    direction: Vec<[f64; 3]>,
    /// `m [atoms]`.
    magnitude: Vec<f64>,
}

impl SharedFactors {
    /// Keeps what the force head made of a pass over a batch.
    ///
    /// # Errors
    /// A batch without species.
    pub(crate) fn new(
        factors: ForceFactors,
        offsets: &[usize],
        senders: &[usize],
        batch: &Batch<'_>,
    ) -> PluginResult<Self> {
        let numbers = |x: Tensor<2>| x.into_data().iter::<f64>().collect::<Vec<_>>();
        Ok(Self {
            molecules: batch.offsets().to_vec(),
            species: batch.ints("species")?,
            offsets: offsets.to_vec(),
            senders: senders.to_vec(),
            direction: numbers(factors.direction)
                .chunks_exact(3)
                .map(|a| [a[0], a[1], a[2]])
                .collect(),
            magnitude: numbers(factors.magnitude),
        })
    }

    /// Forces `[atoms, 3]` of a rotated copy.
    ///
    /// # Errors
    /// A batch of other molecules.
    pub(crate) fn forces(&self, rotated: &Batch<'_>) -> PluginResult<Tensor<2>> {
        if rotated.offsets() != self.molecules || rotated.ints("species")? != self.species {
            return Err(PluginError::BadRequest(format!(
                "escaip: a rotated copy of {} atoms was expected, the batch has {} in {} molecules, or other species",
                self.magnitude.len(),
                rotated.points(),
                rotated.samples()
            )));
        }
        let positions = checked_positions(rotated)?;
        let forces: Vec<f64> = (0..self.magnitude.len())
            .into_par_iter()
            .flat_map_iter(|atom| self.force(atom, &positions))
            .collect();
        Ok(rotated.upload(forces, vec![self.magnitude.len(), 3]))
    }

    fn force(&self, atom: usize, positions: &[f64]) -> [f64; 3] {
        let mut force = [0.0; 3];
        for edge in self.offsets[atom]..self.offsets[atom + 1] {
            let (a, unit) = (
                self.direction[edge],
                unit(positions, atom, self.senders[edge]),
            );
            force
                .iter_mut()
                .zip(a)
                .zip(unit)
                .for_each(|((f, a), u)| *f += a * u);
        }
        force.map(|f| self.magnitude[atom] * f)
    }
}
