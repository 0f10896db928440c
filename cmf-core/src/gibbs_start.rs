//! The closed-form start at work: where samplers, conjugate solves and training begin.

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::conjugate::{ConjugateSolver, Solution};
use crate::error::{Error, Result};
use crate::gaussian::{QuadraticStart, mean};
use crate::linalg::{centred, plus};
use crate::potential::{Potential, Whitened};
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

/// Samples of a conjugate moment measure, and how they came about.
pub struct Draws {
    /// Draws of the source: [n, d].
    pub source: Vec<f64>,
    /// The Langevin chains that ended there, with their diagnostics; none where the source is a Gaussian, drawn exactly.
    pub chains: Option<Samples>,
    /// What the transport map moves them to. Its steps and calls are those in w's own coordinates, after those in whitened ones.
    pub solution: Solution,
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

    /// Draws `n` points of the Gibbs factor of `w`: exact ones of its head, or else each the end of its own chain from
    /// a draw of this start's.
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
        if let Some(head) = w.gibbs() {
            // As chains that were there at once.
            let state = State::new(head, head.draw(n, &mut ChaCha8Rng::seed_from_u64(seed))?)?;
            let effective_sample_size = Some(n as f64);
            return Ok(Samples {
                state,
                step_size: 0.0,
                acceptance: 1.0,
                r_hat: None,
                effective_sample_size,
            });
        }
        self.gibbs_in(w.whitened(&self.covariance)?.as_ref(), w, n, steps, seed, observe)
    }

    /// [`gibbs`](Self::gibbs) by chains in whitened coordinates, if w has any.
    fn gibbs_in(
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

    /// Draws `n` points of the source of `w`, as [`gibbs`](Self::gibbs) or exactly from N(0, I), and maps them to the
    /// data, as [`conjugate`](Self::conjugate).
    pub fn samples(
        &self,
        w: &dyn Potential,
        n: usize,
        steps: usize,
        seed: u64,
        observe: &mut dyn FnMut(usize) -> bool,
    ) -> Result<Draws> {
        if self.source == Source::Gaussian {
            let source = self.draws(n, &mut ChaCha8Rng::seed_from_u64(seed))?;
            let solution = self.conjugate(w, &source)?;
            return Ok(Draws { source, chains: None, solution });
        }
        let whitened = w.whitened(&self.covariance)?;
        let (source, chains) = match w.gibbs() {
            Some(head) => (head.draw(n, &mut ChaCha8Rng::seed_from_u64(seed))?, None),
            None => {
                let chains = self.gibbs_in(whitened.as_ref(), w, n, steps, seed, observe)?;
                (chains.state.x.clone(), Some(chains))
            }
        };
        let start = match &whitened {
            Some(whitened) => self.conjugate_in(whitened, &source)?,
            None => self.map(&source)?,
        };
        let solution = self.solver().solve(w, &source, Some(&start))?;
        Ok(Draws { source, chains, solution })
    }

    /// Solves y = argmax ⟨x, y⟩ - w(y) for each row of `x` [n, d], from a + P x on.
    pub fn conjugate(&self, w: &dyn Potential, x: &[f64]) -> Result<Solution> {
        self.solver().solve(w, x, Some(&self.map(x)?))
    }

    fn solver(&self) -> ConjugateSolver {
        ConjugateSolver {
            max_steps: MOST_STEPS,
            preconditioner: Some(self.covariance.clone()),
            ..ConjugateSolver::default()
        }
    }

    /// ȳ + x - E ∇w(y) of points y like the data, in whitened coordinates: the conjugate, where the Hessian is the identity
    /// there. `x`: [n, d] in these coordinates -> [n, d].
    fn affine_start(&self, whitened: &Whitened, x: &[f64]) -> Result<Vec<f64>> {
        let Whitened { potential, coordinates } = whitened;
        let draws = self.draws(TYPICAL, &mut ChaCha8Rng::seed_from_u64(0))?;
        let points = coordinates.whiten(&self.map(&draws)?)?;
        let mut gradient = vec![0.0; points.len()];
        potential.value_and_gradient(&points, &mut vec![0.0; TYPICAL], &mut gradient)?;
        let offset = centred(&mean(&points, potential.dim())?, &mean(&gradient, potential.dim())?);
        Ok(plus(x.to_vec(), &offset))
    }

    /// The conjugates of `x` [n, d], solved in whitened coordinates: y = L z with z = argmax ⟨L'x, z⟩ - w(L z).
    ///
    /// Residuals there are L' times those here: their tolerance is smaller by the geometric mean of L's scales, and w
    /// itself has the last word on every row.
    fn conjugate_in(&self, whitened: &Whitened, x: &[f64]) -> Result<Vec<f64>> {
        let Whitened { potential, coordinates } = whitened;
        let usual = self.solver();
        let scale = (coordinates.log_det() / (2 * potential.dim()) as f64).exp();
        let solver = ConjugateSolver { tolerance: scale * usual.tolerance, preconditioner: None, ..usual };
        let x = coordinates.pull_back(x)?;
        let start = self.affine_start(whitened, &x)?;
        let solution = solver.solve(potential.as_ref(), &x, Some(&start))?;
        coordinates.colour(&solution.y)
    }
}

/// Points like the data by whose mean gradient conjugates' solves start.
const TYPICAL: usize = 64;

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
