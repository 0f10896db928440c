//! Conjugate moment and moment potentials on the line, by exact fixed-point iterations.
//!
//! On the line the optimal map from μ to ν is T = Q_ν ∘ F_μ, with the distribution function of one and the
//! quantiles of the other, so the fixed-point maps of which the potentials are fixed points (Vesseron,
//! Béthune and Cuturi, 2025, equations 7, 10 and 11) can be applied without a network:
//!
//! * conjugate: w' ← Q_{P_w} ∘ F_ρ, the map from ρ to the Gibbs factor P_w = e^{-w}/Z on ρ's domain;
//! * moment: u' ← Q_ρ ∘ F_{P_u}, the map from P_u to ρ.
//!
//! Laws are constant on the cells of an even grid ([`Law`]): a histogram of samples, or a density.

mod law;
mod mixture;
mod solver;

pub use law::{Law, transport};
pub use mixture::{MIXTURES, Mixture, NamedMixture};
pub use solver::{FixedPoint, Solution, Status};
