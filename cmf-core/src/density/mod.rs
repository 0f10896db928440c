//! The log-density of a conjugate moment measure, exact by Cholesky or estimated by Lanczos.
//!
//! With G = ∇w and H = ∇²w (Vesseron, Béthune and Cuturi, 2025, equation 9):
//!
//! ```text
//! log ρ(y)  = -V(G(y)) + log det H(y) - log Z
//! ∇ log ρ(y) = -H(y) ∇V(G(y)) + ∇_y log det H(y),   ∂_k log det H = ⟨H^{-1}, ∂_k H⟩
//! ```
//!
//! where V = w, or its quadratic head if the Gibbs factor is of that ([`Potential::gibbs`](crate::Potential::gibbs)).
//!
//! No conjugate appears, so a density costs two gradients and one Hessian. Exact numbers have the
//! type [`ExactLogDensity`], estimates [`EstimatedLogDensity`]; neither ever holds a NaN.

mod by_products;
mod exact;
mod lanczos;
mod score;
#[cfg(test)]
pub(crate) mod tests;

pub use by_products::ByProducts;
pub use exact::{
    Denoise, ExactLogDensity, exact_log_density, exact_log_density_and_score, exact_log_density_from,
    exact_log_density_from_gaussian, tweedie, without_noise,
};
pub use lanczos::{EstimatedLogDensity, Lanczos, estimated_log_density};
pub use score::{ScoreEstimator, ScoreReport};

use crate::error::Result;
use crate::linalg::dot;
use crate::potential::{Potential, SecondOrder, gibbs_of};
use crate::source::Source;

/// Up to this dimension Hessians are formed and factored.
pub const MOST_EXACT: usize = 2048;

/// Whether log-densities of `w` are exact here: up to [`MOST_EXACT`] dimensions, or directions along which it bends
/// ([`SecondOrder::subspace`]).
pub fn is_exact(w: &dyn SecondOrder) -> bool {
    w.subspace().map_or(w.dim(), |subspace| subspace.along.dim()) <= MOST_EXACT
}

/// How the evaluation of one row ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The value holds.
    Evaluated,
    /// The Hessian has no Cholesky factor (or a negative Ritz value); the value is -∞.
    NotPositiveDefinite,
    /// The row or what the potential made of it is NaN or infinite; the value is -∞.
    NotFinite,
    /// Lanczos ran out of steps: the value is finite, its error may exceed the standard error.
    QuadratureUnconverged,
}

/// Bits per dimension of a density of images with 256 grey levels.
///
/// An image whose values span `range` = (lo, hi) is read in units of one grey level, (hi - lo)/256, so
/// that bpd = (-log ρ/ln 2)/d + log2(256/(hi - lo)). `log_density` in nats per image; with pixels in
/// [0, 1] it is -log ρ/(d ln 2) + 8. A continuous density needs noise on the grey levels for this to
/// bound a code length (Theis, van den Oord and Bethge, 2016, section 3.1).
pub fn bits_per_dimension(log_density: f64, d: usize, range: (f64, f64)) -> f64 {
    -log_density / (d as f64 * std::f64::consts::LN_2) + (256.0 / (range.1 - range.0)).log2()
}

/// V(G(y)) and ∇V(G(y)) of a batch of rows, with V = w or its head for the Gibbs source: all of log ρ but the Hessian.
struct Pushed {
    /// V(G(y)): [n].
    value: Vec<f64>,
    /// ∇V(G(y)): [n, d].
    twice: Vec<f64>,
}

impl Pushed {
    fn new(w: &dyn Potential, source: Source, y: &[f64]) -> Result<Self> {
        let d = w.dim();
        let n = crate::potential::rows(y, d)?;
        let (mut value, mut once) = (vec![0.0; n], vec![0.0; y.len()]);
        w.value_and_gradient(y, &mut value, &mut once)?;
        let twice = match source {
            Source::Gibbs => {
                let mut twice = vec![0.0; y.len()];
                gibbs_of(w).value_and_gradient(&once, &mut value, &mut twice)?;
                twice
            }
            Source::Gaussian => {
                value.iter_mut().zip(once.chunks_exact(d)).for_each(|(v, x)| *v = 0.5 * dot(x, x));
                once
            }
        };
        Ok(Pushed { value, twice })
    }
}

pub(crate) fn finite(values: &[f64]) -> bool {
    values.iter().all(|v| v.is_finite())
}
