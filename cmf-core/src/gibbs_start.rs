//! The closed-form start at work: where samplers, conjugate solves and training begin.

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::conjugate::{ConjugateSolver, Solution};
use crate::error::{Error, Result};
use crate::gaussian::QuadraticStart;
use crate::linalg::plus;
use crate::potential::{Potential, Purpose, Whitened};
use crate::preconditioner::Preconditioner;
use crate::sampler::{Mala, Run, Samples, State, lambda_max, sample, standard_normals};
use crate::source::Source;

/// The source of a closed-form start, its Gibbs factor N(a, P) with P = S^{1/3} or else N(0, I), and its
/// transport map x ↦ a + P x.
#[derive(Clone)]
pub struct GibbsStart {
    /// P, near whose inverse the Hessian of a model stays; the Gibbs factor's covariance.
    pub covariance: Arc<Preconditioner>,
    /// a: [d].
    pub centre: Vec<f64>,
    source: Source,
}

/// Rows on which the largest eigenvalue for the first step size is estimated, and power iterations.
const LAMBDA_ROWS: usize = 16;
const LAMBDA_ITERATIONS: usize = 10;
/// Steps that the solve of one conjugate may take. Most take twenty; where a law on a curve sends mass across a gap, w has
/// a long valley, on whose floor the residual does not fall before the end (of 4,000 points of a learned s-curve 22
/// took 500 to 900 steps).
const MOST_STEPS: usize = 5000;

impl GibbsStart {
    /// The source of `start`.
    pub fn new(start: &QuadraticStart) -> Result<Self> {
        let (covariance, centre) = (Arc::new(start.inverse_hessian()?), start.centre.clone());
        Ok(GibbsStart { covariance, centre, source: start.source })
    }

    /// Exact draws of the source from standard normal numbers ξ: a + L ξ with L L' = P, or ξ itself.
    /// [n, d] -> [n, d].
    pub fn draw(&self, noise: &[f64]) -> Result<Vec<f64>> {
        match self.source {
            Source::Gibbs => Ok(plus(self.covariance.colour(noise)?, &self.centre)),
            Source::Gaussian => Ok(noise.to_vec()),
        }
    }

    /// `n` exact draws of the source: [n, d].
    pub fn draws(&self, n: usize, rng: &mut ChaCha8Rng) -> Result<Vec<f64>> {
        self.draw(&standard_normals(rng, n * self.centre.len()))
    }

    /// a + P x, the gradient of the start's conjugate: [n, d] -> [n, d].
    pub fn map(&self, x: &[f64]) -> Result<Vec<f64>> {
        Ok(plus(self.covariance.colour(&self.covariance.pull_back(x)?)?, &self.centre))
    }

    /// Draws `n` points of e^{-w}/Z, each the end of its own chain from a draw of this start's, in whitened coordinates if
    /// w has any.
    ///
    /// Metropolis-adjusted Langevin steps preconditioned by P; the first half of `steps` tunes their size.
    /// `observe` hears how many steps are done and says whether to go on.
    pub fn gibbs(
        &self,
        w: &dyn Potential,
        n: usize,
        steps: usize,
        seed: u64,
        observe: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Samples> {
        if self.source == Source::Gaussian {
            return Err(Error::Invalid("the source of this model is N(0, I), not e^{-w}: use `draw`".into()));
        }
        let whitened = w.whitened(Purpose::Chains(&self.covariance))?;
        self.gibbs_in(whitened.as_ref(), w, n, steps, seed, observe)
    }

    /// [`gibbs`](Self::gibbs) by chains in coordinates that are known.
    pub(crate) fn gibbs_in(
        &self,
        whitened: Option<&Whitened>,
        w: &dyn Potential,
        n: usize,
        steps: usize,
        seed: u64,
        observe: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Samples> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let x = self.draws(n, &mut rng)?;
        let warmup = steps / 2;
        let run = Run { warmup, steps: steps - warmup, seed };
        if let Some(Whitened { potential, coordinates }) = whitened {
            let mut samples =
                chains(potential.as_ref(), coordinates.whiten(&x)?, None, run, &mut rng, observe)?;
            samples.state = State::new(w, coordinates.colour(&samples.state.x)?)?;
            return Ok(samples);
        }
        chains(w, x, Some(self.covariance.clone()), run, &mut rng, observe)
    }

    /// Solves y = argmax ⟨x, y⟩ - w(y) for each row of `x` [n, d], from a + P x on.
    pub fn conjugate(&self, w: &dyn Potential, x: &[f64]) -> Result<Solution> {
        solver(Some(self.covariance.clone())).solve(w, x, Some(&self.map(x)?))
    }
}

/// Solves of conjugates in the metric of `preconditioner`.
pub(crate) fn solver(preconditioner: Option<Arc<Preconditioner>>) -> ConjugateSolver {
    ConjugateSolver { max_steps: MOST_STEPS, preconditioner, ..ConjugateSolver::default() }
}

/// Langevin chains from `x` [n, d] on.
fn chains(
    w: &dyn Potential,
    x: Vec<f64>,
    preconditioner: Option<Arc<Preconditioner>>,
    run: Run,
    rng: &mut ChaCha8Rng,
    observe: &mut dyn FnMut(usize) -> bool,
) -> Result<Samples> {
    let few = &x[..x.len().min(w.dim() * LAMBDA_ROWS)];
    let lambda = lambda_max(w, few, preconditioner.as_deref(), LAMBDA_ITERATIONS, rng)?;
    sample(w, Mala { step: 0.5 / lambda, preconditioner }, x, run, &mut |done, _| observe(done))
}
