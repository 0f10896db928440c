//! Energies E with ρ ∝ e^{-E}: where they live, whether they can be learned from, and the Gaussian to start at.
//!
//! An energy is a [`Potential`](crate::Potential) that need not be convex. [`check_gradient`] compares its
//! gradient with its values, [`survey`] looks for its mass, and what is wrong is said before anything is learned.

mod domain;
mod gradient;
mod survey;
#[cfg(test)]
mod tests;

pub use domain::Domain;
pub use gradient::check_gradient;
pub use survey::{Survey, survey};
