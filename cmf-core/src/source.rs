//! The law P that the transport map ∇w* carries to the data.

use serde::{Deserialize, Serialize};

/// The law of x in y = ∇w*(x), with density e^{-V}/Z.
///
/// The density of y is ρ(y) = exp(-V(∇w(y))) det ∇²w(y) / Z for either V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// V = w: a conjugate moment measure (Vesseron, Béthune and Cuturi, 2025, Theorem 1). Or the head of w alone, where
    /// [`Potential::gibbs`](crate::Potential::gibbs) says so.
    #[default]
    Gibbs,
    /// V = ½|x|², N(0, I): a generative input-convex network, their baseline.
    Gaussian,
}
