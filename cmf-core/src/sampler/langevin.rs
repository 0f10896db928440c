//! The unadjusted Langevin algorithm.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use super::{Info, Sampler, Spare, State, check_step, standard_normals};
use crate::error::{Error, Result};
use crate::potential::Potential;
use crate::preconditioner::{self, Preconditioner, colour, pull_back};

/// x' = x - γ P ∇w(x) + √(2γ) L ξ with ξ ~ N(0, I), P = L L' (Roberts and Tweedie, 1996).
///
/// It never rejects, and its stationary law is wider than e^{-w}: along an eigenvector of a quadratic
/// with P ∇²w = λ the variance is 1/(1 - γλ/2) times too large. It needs γ < 2/λ_max; see
/// [`super::lambda_max`] for choosing γ = c/λ_max.
#[derive(Debug, Clone)]
pub struct Ula {
    /// γ.
    pub step: f64,
    /// P, the identity if absent.
    pub preconditioner: Option<Arc<Preconditioner>>,
}

impl Sampler for Ula {
    fn step(&self, w: &dyn Potential, state: &mut State, rng: &mut ChaCha8Rng) -> Result<Info> {
        check_step(self.step)?;
        let preconditioner = self.preconditioner.as_deref();
        preconditioner::check(preconditioner, state.dim())?;
        let noise = (2.0 * self.step).sqrt();
        let mut drift = pull_back(preconditioner, &state.gradient)?;
        let normals = standard_normals(rng, drift.len());
        drift.iter_mut().zip(normals).for_each(|(g, xi)| *g = noise * xi - self.step * *g);
        let mut x = colour(preconditioner, &drift)?;
        x.iter_mut().zip(&state.x).for_each(|(m, x)| *m += x);
        let next = State::evaluate(w, x, &mut Spare::default())?;
        if let Some(i) = next.not_finite() {
            return Err(Error::NotFinite(format!(
                "chain {i} of the unadjusted Langevin algorithm (step {}; it needs less than 2/lambda_max)",
                self.step
            )));
        }
        *state = next;
        Ok(Info { acceptance: 1.0 })
    }

    fn step_size(&self) -> f64 {
        self.step
    }

    fn set_step_size(&mut self, step: f64) {
        self.step = step;
    }

    fn target_acceptance(&self) -> Option<f64> {
        None
    }
}
