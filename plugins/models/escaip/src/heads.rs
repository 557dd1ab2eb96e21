//! The heads: where the invariant latent meets the unit vectors, and equivariance has to be learnt.

use crate::{
    EscaipConfig,
    layers::{Ffn, Linear, States},
    pass::{NoteRows, Pass},
};
use burn::{module::Module, tensor::Tensor};
use equivbench_kernels::{product, segment_sum};
use equivbench_plugin::Draw;

/// A feed-forward network with a skip and a last linear map without bias.
#[derive(Module, Debug)]
pub(crate) struct OutputLayer {
    ffn: Ffn,
    pub(crate) final_output: Linear,
}

impl OutputLayer {
    fn new(config: &EscaipConfig, outputs: usize, gain: f64, draw: &mut Draw<'_>) -> Self {
        Self {
            ffn: Ffn::new(config.hidden, config.output_multiplier, gain, draw),
            final_output: Linear::scaled(config.hidden, outputs, gain, draw),
        }
    }

    /// The input of the last linear map.
    fn hidden(&self, x: Tensor<2>, pass: &Pass<'_, '_>) -> Tensor<2> {
        self.ffn.added(x, None, pass)
    }

    fn forward(&self, x: Tensor<2>, pass: &Pass<'_, '_>) -> Tensor<2> {
        product(self.hidden(x, pass), self.final_output.weight.val())
    }
}

/// Forces: `f_i = m_i Σ_j a_ij ⊙ u_ij`, component by component, which is why they need not rotate.
#[derive(Module, Debug)]
pub(crate) struct ForceHead {
    pub(crate) force_direction_layer: OutputLayer,
    force_magnitude_layer: OutputLayer,
}

/// What the force head makes of the latent; invariant under rotations.
#[derive(Clone, Debug)]
pub(crate) struct ForceFactors {
    /// `a [edges, 3]`.
    pub(crate) direction: Tensor<2>,
    /// `m [atoms, 1]`.
    pub(crate) magnitude: Tensor<2>,
}

impl ForceHead {
    fn factors(&self, latent: States, pass: &Pass<'_, '_>) -> ForceFactors {
        let hidden = self.force_direction_layer.hidden(latent.edge, pass);
        pass.note(NoteRows::Edges, || "head.h".into(), &hidden);
        let direction = product(hidden, self.force_direction_layer.final_output.weight.val());
        let magnitude = self.force_magnitude_layer.forward(latent.node, pass);
        pass.note(NoteRows::Edges, || "head.a".into(), &direction);
        pass.note(NoteRows::Atoms, || "head.magnitude".into(), &magnitude);
        ForceFactors {
            direction,
            magnitude,
        }
    }
}

impl ForceFactors {
    /// `[atoms, 3]`.
    pub(crate) fn forces(self, pass: &Pass<'_, '_>) -> Tensor<2> {
        self.magnitude * pass.sum_edges(self.direction * pass.features.directions.clone())
    }
}

/// Energies: the mean of a number per atom.
#[derive(Module, Debug)]
pub(crate) struct EnergyHead {
    energy_layer: OutputLayer,
}

/// All heads of a model.
#[derive(Module, Debug)]
pub(crate) struct Heads {
    pub(crate) forces: ForceHead,
    energy: Option<EnergyHead>,
}

impl Heads {
    pub(crate) fn new(config: &EscaipConfig, draw: &mut Draw<'_>) -> Self {
        let forces = ForceHead {
            force_direction_layer: OutputLayer::new(config, 3, 1.0, draw),
            force_magnitude_layer: OutputLayer::new(config, 1, 1.0, draw),
        };
        // The reference starts the energy small.
        let energy = config.energy_head.then(|| EnergyHead {
            energy_layer: OutputLayer::new(config, 1, 0.01, draw),
        });
        Self { forces, energy }
    }

    pub(crate) fn force_factors(&self, latent: States, pass: &Pass<'_, '_>) -> ForceFactors {
        self.forces.factors(latent, pass)
    }

    /// `[molecules, 1]`, or `None` without an energy head.
    pub(crate) fn energies(&self, node: Tensor<2>, pass: &Pass<'_, '_>) -> Option<Tensor<2>> {
        let of_atom = self.energy.as_ref()?.energy_layer.forward(node, pass);
        Some(
            segment_sum(of_atom, &pass.features.atoms_of_molecule)
                * pass.features.molecule_mean_factor.clone(),
        )
    }
}
