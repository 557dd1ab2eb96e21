//! The heads: where the invariant latent meets the unit vectors, and equivariance has to be learnt.

use crate::{
    EscaipConfig,
    frames::Frames,
    layers::{Ffn, Linear, States},
    pass::{NoteRows, Pass},
};
use burn::{module::Module, tensor::Tensor};
use equivbench_kernels::{Dropout, product, segment_sum};
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
    pub(crate) fn hidden(&self, x: Tensor<2>, dropouts: [Option<Dropout>; 2]) -> Tensor<2> {
        self.ffn.added_dropping(x, None, dropouts)
    }

    /// The last linear map.
    pub(crate) fn last(&self, hidden: Tensor<2>) -> Tensor<2> {
        product(hidden, self.final_output.weight.val())
    }

    fn forward(&self, x: Tensor<2>, pass: &Pass<'_, '_>) -> Tensor<2> {
        self.last(self.hidden(x, [pass.map_dropout(), pass.map_dropout()]))
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
    /// `m [atoms, 1]`.
    pub(crate) fn magnitude(&self, node: Tensor<2>, pass: &Pass<'_, '_>) -> Tensor<2> {
        self.force_magnitude_layer.forward(node, pass)
    }

    fn factors(&self, latent: States, pass: &Pass<'_, '_>) -> ForceFactors {
        let dropouts = [pass.map_dropout(), pass.map_dropout()];
        let hidden = self.force_direction_layer.hidden(latent.edge, dropouts);
        pass.note(NoteRows::Edges, || "head.h".into(), &hidden);
        let direction = self.force_direction_layer.last(hidden);
        let magnitude = self.magnitude(latent.node, pass);
        pass.note(NoteRows::Edges, || "head.a".into(), &direction);
        pass.note(NoteRows::Atoms, || "head.magnitude".into(), &magnitude);
        ForceFactors {
            direction,
            magnitude,
        }
    }
}

impl ForceFactors {
    /// `[copies * atoms, 3]`: the factors of one copy serve all.
    pub(crate) fn forces(self, frames: &Frames) -> Tensor<2> {
        let [edges, axes] = self.direction.dims();
        let [atoms, _] = self.magnitude.dims();
        let copies = frames.copies;
        let directions = frames.directions.clone().reshape([copies, edges, axes]);
        let pulled = self.direction.unsqueeze::<3>() * directions;
        let sums = segment_sum(pulled.reshape([copies * edges, axes]), &frames.edges_of_all);
        let forces = self.magnitude.unsqueeze::<3>() * sums.reshape([copies, atoms, axes]);
        forces.reshape([copies * atoms, axes])
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
