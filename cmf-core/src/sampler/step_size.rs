//! Step sizes: the largest curvature by power iteration, and dual averaging towards an acceptance.

use rand_chacha::ChaCha8Rng;

use super::standard_normals;
use crate::error::{Error, Result};
use crate::linalg::dot;
use crate::potential::{Potential, rows};
use crate::preconditioner::{self, Preconditioner, colour, pull_back};

/// The largest eigenvalue of L' ∇²w(x_i) L over the rows of `x` [n, d], by power iteration.
///
/// Each row iterates its own random start, `iterations` Hessian products each, and the largest |H v|
/// with |v| = 1 is returned. That is a lower bound; 10 iterations come within a few percent when the
/// spectrum is as compressed as a trained potential's. A step γ = c/λ_max with c ≤ 1 keeps the
/// unadjusted Langevin algorithm stable, with the variance bias that [`super::Ula`] states.
pub fn lambda_max(
    w: &dyn Potential,
    x: &[f64],
    preconditioner: Option<&Preconditioner>,
    iterations: usize,
    rng: &mut ChaCha8Rng,
) -> Result<f64> {
    let d = w.dim();
    if rows(x, d)? == 0 || iterations == 0 {
        return Err(Error::Invalid("power iteration needs a row and an iteration".into()));
    }
    preconditioner::check(preconditioner, d)?;
    let mut v = standard_normals(rng, x.len());
    let mut product = vec![0.0; x.len()];
    let mut largest: f64 = 0.0;
    for _ in 0..iterations {
        for row in v.chunks_exact_mut(d) {
            let norm = dot(row, row).sqrt();
            // A row of zeros has been annihilated: its eigenvalue is 0 and stays so.
            if norm > 0.0 {
                row.iter_mut().for_each(|v| *v /= norm);
            }
        }
        w.hvp(x, &colour(preconditioner, &v)?, &mut product)?;
        v = pull_back(preconditioner, &product)?;
        if v.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite("a Hessian product in the power iteration".into()));
        }
        largest = v.chunks_exact(d).map(|row| dot(row, row).sqrt()).fold(0.0, f64::max);
    }
    Ok(largest)
}

/// Tunes log ε so that the mean acceptance meets a target (Hoffman and Gelman, 2014, section 3.2).
#[derive(Debug, Clone)]
pub struct DualAveraging {
    target: f64,
    /// Where log ε is pulled to: a little above the first guess, since large steps are cheap to try.
    anchor: f64,
    /// Running mean of target - acceptance.
    shortfall: f64,
    log_average: f64,
    count: f64,
}

impl DualAveraging {
    const GAMMA: f64 = 0.05;
    const T0: f64 = 10.0;
    const KAPPA: f64 = 0.75;

    /// Starts at `step` with the target acceptance in (0, 1).
    pub fn new(step: f64, target: f64) -> Self {
        DualAveraging {
            target,
            anchor: (10.0 * step).ln(),
            shortfall: 0.0,
            log_average: step.ln(),
            count: 0.0,
        }
    }

    /// Takes in the acceptance of one step and returns the step size to try next.
    pub fn update(&mut self, acceptance: f64) -> f64 {
        self.count += 1.0;
        let weight = 1.0 / (self.count + Self::T0);
        self.shortfall += weight * (self.target - acceptance - self.shortfall);
        let log_step = self.anchor - self.count.sqrt() / Self::GAMMA * self.shortfall;
        let weight = self.count.powf(-Self::KAPPA);
        self.log_average += weight * (log_step - self.log_average);
        log_step.exp()
    }

    /// The averaged step size, to keep once the warm-up is over.
    pub fn step_size(&self) -> f64 {
        self.log_average.exp()
    }
}
