//! The curvature of the parts of a loss: Hessians over a subset of the parameters, their spectra, and how fast gradient descent would
//! remove each part.
//!
//! Everything is measured through predictions and products with cotangents, at a fixed batch with fixed rotations. Where the prediction
//! is linear in the subset, Hessians are Gauss-Newton products of its features ([`GaussNewton`]); elsewhere they are differences of
//! gradients ([`hessians`]); where they do not fit, there is [`lanczos`].

mod decay;
mod differences;
mod eigenpairs;
mod figures;
mod gauss_newton;
mod lanczos;
mod number;
mod sandwich;
mod study;
mod subset;

pub use decay::{Decay, Node, decay};
pub use differences::{Differences, GradientsAt, hessians, product};
pub use eigenpairs::{Eigenpairs, eigenpairs, eigenvalues};
pub use figures::{Figures, MASSES, figures};
pub use gauss_newton::{GaussNewton, gauss_newton};
pub use lanczos::{Lanczos, LanczosRun, MapVector, lanczos};
pub use number::{Number, scaled};
pub use sandwich::{Sandwich, sandwich};
pub use study::{
    Axes, Limits, Method, PartStudy, Probe, SpectrumNode, Study, axes, study, study_single,
};
pub use subset::{Subset, SubsetOf, Watch};
