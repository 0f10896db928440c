//! Hamiltonian Monte Carlo, and the Metropolis-adjusted Langevin algorithm as its case of one step.

use std::sync::Arc;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{Info, Sampler, State, check_step, fill_standard_normals};
use crate::error::{Error, Result};
use crate::linalg::{dot, least_rows};
use crate::potential::Potential;
use crate::preconditioner::{self, Preconditioner};

/// Hamiltonian Monte Carlo with a fixed number of leapfrog steps (Neal, 2011, section 2.3).
///
/// The energy is w(x) + ½ |p|² with momenta p in coordinates where x = L z; e^{-w} is invariant.
#[derive(Debug, Clone)]
pub struct Hmc {
    /// The leapfrog step ε.
    pub step: f64,
    /// Leapfrog steps a proposal; at least 1.
    pub leapfrog: usize,
    /// P = L L', the inverse mass matrix; the identity if absent.
    pub preconditioner: Option<Arc<Preconditioner>>,
}

/// The Metropolis-adjusted Langevin algorithm (Roberts and Tweedie, 1996): e^{-w} is invariant.
///
/// Proposes x' = x - γ P ∇w(x) + √(2γ) L ξ and accepts or rejects it. One leapfrog step of length
/// √(2γ) makes this proposal and its energy error is the Metropolis-Hastings ratio (Neal, 2011,
/// section 5.2), so it is computed that way, without P^{-1}.
#[derive(Debug, Clone)]
pub struct Mala {
    /// γ.
    pub step: f64,
    /// P, the identity if absent.
    pub preconditioner: Option<Arc<Preconditioner>>,
}

impl Sampler for Hmc {
    fn step(&self, w: &dyn Potential, state: &mut State, rng: &mut ChaCha8Rng) -> Result<Info> {
        transition(w, state, self.step, self.leapfrog, self.preconditioner.as_ref(), rng)
    }

    fn step_size(&self) -> f64 {
        self.step
    }

    fn set_step_size(&mut self, step: f64) {
        self.step = step;
    }

    /// Between the optimum for long trajectories, 0.651 (Beskos et al., 2013), and Stan's cautious 0.8.
    fn target_acceptance(&self) -> Option<f64> {
        Some(0.7)
    }
}

impl Sampler for Mala {
    fn step(&self, w: &dyn Potential, state: &mut State, rng: &mut ChaCha8Rng) -> Result<Info> {
        transition(w, state, (2.0 * self.step).sqrt(), 1, self.preconditioner.as_ref(), rng)
    }

    fn step_size(&self) -> f64 {
        self.step
    }

    fn set_step_size(&mut self, step: f64) {
        self.step = step;
    }

    /// The optimum in high dimension (Roberts and Rosenthal, 1998).
    fn target_acceptance(&self) -> Option<f64> {
        Some(0.574)
    }
}

/// One leapfrog trajectory of every chain, each accepted or rejected on its own energy error.
fn transition(
    w: &dyn Potential,
    state: &mut State,
    step: f64,
    leapfrog: usize,
    preconditioner: Option<&Arc<Preconditioner>>,
    rng: &mut ChaCha8Rng,
) -> Result<Info> {
    check_step(step)?;
    if leapfrog == 0 {
        return Err(Error::Invalid("HMC needs at least 1 leapfrog step".into()));
    }
    let d = state.dim();
    preconditioner::check(preconditioner.map(Arc::as_ref), d)?;
    let mut spare = std::mem::take(&mut state.spare);
    let mut momentum = spare.take(state.x.len());
    fill_standard_normals(rng, &mut momentum);
    let [before, _] = kick(&mut momentum, state.pulled_back(preconditioner)?, 0.5 * step, d);
    let x = drift(&state.x, &momentum, step, preconditioner, &state.x, spare.take(state.x.len()), d)?;
    let mut next = State::evaluate(w, x, &mut spare)?;
    for _ in 1..leapfrog {
        kick(&mut momentum, next.pulled_back(preconditioner)?, step, d);
        let x = drift(&next.x, &momentum, step, preconditioner, &state.x, spare.take(state.x.len()), d)?;
        next = State::evaluate(w, x, &mut spare)?;
    }
    let [_, after] = kick(&mut momentum, next.pulled_back(preconditioner)?, 0.5 * step, d);
    let mut total = 0.0;
    let mut moves = Vec::with_capacity(before.len());
    for (i, (before, after)) in before.into_iter().zip(after).enumerate() {
        let error = next.value[i] - state.value[i] + after - before;
        // A trajectory that left the finite numbers, or whose gradients did, has no finite momentum either.
        let probability = if error.is_finite() { (-error).exp().min(1.0) } else { 0.0 };
        total += probability;
        moves.push(rng.random::<f64>() < probability);
    }
    spare.give(momentum);
    state.spare = spare;
    state.take(next, &moves);
    Ok(Info { acceptance: total / moves.len() as f64 })
}

/// p <- p - length · force, force = L'∇w, for the rows of `momentum` and `force` [n, d]. Returns ½ |p_i|² before and after:
/// [n] each.
fn kick(momentum: &mut [f64], force: &[f64], length: f64, d: usize) -> [Vec<f64>; 2] {
    let rows = momentum.par_chunks_mut(d).zip(force.par_chunks(d)).with_min_len(least_rows(d));
    let kinetic = rows.map(|(p, force)| {
        let before = 0.5 * dot(p, p);
        p.iter_mut().zip(force).for_each(|(p, g)| *p -= length * g);
        (before, 0.5 * dot(p, p))
    });
    let (before, after) = kinetic.unzip();
    [before, after]
}

/// x + step · L p for the rows of `x` and `momentum` [n, d], in place of `moved`.
///
/// A position that is not finite is spared the engine, which gets `fallback` instead; its momentum stays so and
/// rejects the chain.
fn drift(
    x: &[f64],
    momentum: &[f64],
    step: f64,
    preconditioner: Option<&Arc<Preconditioner>>,
    fallback: &[f64],
    mut moved: Vec<f64>,
    d: usize,
) -> Result<Vec<f64>> {
    let coloured = preconditioner.map(|p| p.colour(momentum)).transpose()?;
    let velocity = coloured.as_deref().unwrap_or(momentum);
    let rows =
        moved.par_chunks_mut(d).zip(x.par_chunks(d)).zip(velocity.par_chunks(d)).zip(fallback.par_chunks(d));
    rows.with_min_len(least_rows(d)).for_each(|(((moved, x), velocity), fallback)| {
        moved.iter_mut().zip(x.iter().zip(velocity)).for_each(|(m, (x, v))| *m = x + step * v);
        if moved.iter().any(|v| !v.is_finite()) {
            moved.copy_from_slice(fallback);
        }
    });
    Ok(moved)
}
