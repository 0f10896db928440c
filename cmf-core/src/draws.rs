//! Samples of a model: draws of its source, carried to the data by the transport map y = ∇w*(x).

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::conjugate::{ConjugateSolver, Solution};
use crate::error::Result;
use crate::gaussian::{Gaussian, mean};
use crate::gibbs_start::{GibbsStart, solver};
use crate::linalg::{centred, plus};
use crate::potential::{Potential, Purpose, Whitened};
use crate::preconditioner::Preconditioner;
use crate::sampler::{Samples, State, standard_normals};
use crate::source::Source;

/// Samples of a model, and how they came about.
pub struct Draws {
    /// Draws of the source: [n, d].
    pub source: Vec<f64>,
    /// The Langevin chains that ended there, with their diagnostics; none where the source was drawn exactly.
    pub chains: Option<Samples>,
    /// What the transport map moves them to. Its steps and calls are those in w's own coordinates, after those in whitened ones.
    pub solution: Solution,
}

/// Points like the data, at which the Hessian and the gradient are averaged for solves. With 8, 16 and 64 points a conjugate
/// of a digits' network takes 30, 27 and 25 gradients, in the coordinates of S^{1/3} 39.
const TYPICAL: usize = 64;

/// Draws `n` points of the Gibbs factor of `w`: exact ones of its head, or else as [`GibbsStart::gibbs`] does.
///
/// `data` has about the mean and covariance of the data; `observe` hears how many of the `steps` of chains are done and says
/// whether to go on.
pub fn gibbs(
    w: &dyn Potential,
    data: &Gaussian,
    n: usize,
    steps: usize,
    seed: u64,
    observe: &mut dyn FnMut(usize) -> bool,
) -> Result<Samples> {
    if let Some(head) = w.gibbs() {
        // As chains that were there at once.
        let state = State::new(head, head.draw(n, &mut ChaCha8Rng::seed_from_u64(seed))?)?;
        let effective_sample_size = Some(n as f64);
        return Ok(Samples { state, step_size: 0.0, acceptance: 1.0, r_hat: None, effective_sample_size });
    }
    GibbsStart::new(&data.quadratic_start()?)?.gibbs(w, n, steps, seed, observe)
}

/// Draws `n` points of the source of `w`, as [`gibbs`] or exactly from N(0, I), and carries them to the data, whose mean and
/// covariance are about those of `data`.
pub fn samples(
    w: &dyn Potential,
    data: &Gaussian,
    source: Source,
    n: usize,
    steps: usize,
    seed: u64,
    observe: &mut dyn FnMut(usize) -> bool,
) -> Result<Draws> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    if let (Source::Gibbs, Some(head)) = (source, w.gibbs()) {
        let source = head.draw(n, rng)?;
        let solution = conjugates(w, data, Source::Gibbs, &source)?;
        return Ok(Draws { source, chains: None, solution });
    }
    let start = GibbsStart::new(&data.quadratic_start_from(source)?)?;
    if source == Source::Gaussian {
        let source = start.draws(n, rng)?;
        let solution = start.conjugate(w, &source)?;
        return Ok(Draws { source, chains: None, solution });
    }
    let whitened = w.whitened(Purpose::Chains(&start.covariance))?;
    let chains = start.gibbs_in(whitened.as_ref(), w, n, steps, seed, observe)?;
    let source = chains.state.x.clone();
    let solution = match whitened {
        Some(whitened) => conjugates_in(whitened, w, &plus(deviations(data)?, &data.mean), &source)?,
        None => start.conjugate(w, &source)?,
    };
    Ok(Draws { source, chains: Some(chains), solution })
}

/// Solves y = argmax ⟨x, y⟩ - w(y) for each row of `x` [n, d], draws of the `source` of `w`: in coordinates in which the mean
/// Hessian is the identity, where the Gibbs factor is of the head and w has such, and else from the closed-form start on.
pub fn conjugates(w: &dyn Potential, data: &Gaussian, source: Source, x: &[f64]) -> Result<Solution> {
    if let Some(head) = w.gibbs() {
        let deviations = deviations(data)?;
        // About a, which is nearer to the pixels' dark end than their mean is and where most units bend: with points about
        // the mean a conjugate takes another gradient.
        let purpose = Purpose::Conjugates(&plus(deviations.clone(), head.centre()));
        if let Some(whitened) = w.whitened(purpose)? {
            return conjugates_in(whitened, w, &plus(deviations, &data.mean), x);
        }
    }
    GibbsStart::new(&data.quadratic_start_from(source)?)?.conjugate(w, x)
}

/// Draws of N(0, S), always the same: [[`TYPICAL`], d].
fn deviations(data: &Gaussian) -> Result<Vec<f64>> {
    let noise = standard_normals(&mut ChaCha8Rng::seed_from_u64(0), TYPICAL * data.dim());
    Preconditioner::new(&data.covariance)?.colour(&noise)
}

/// The conjugates of `x` [n, d], solved in whitened coordinates, y = L z with z = argmax ⟨L'x, z⟩ - w(L z), from the affine
/// map on that is right where the Hessian is the identity there: z̄ + L'x - E ∇w(L z) over `points` [m, d].
///
/// Residuals there are L' times those here: their tolerance is smaller by the geometric mean of L's scales, and w itself has
/// the last word on every row.
fn conjugates_in(whitened: Whitened, w: &dyn Potential, points: &[f64], x: &[f64]) -> Result<Solution> {
    let Whitened { potential, coordinates } = whitened;
    let d = w.dim();
    let points = coordinates.whiten(points)?;
    let mut gradient = vec![0.0; points.len()];
    potential.value_and_gradient(&points, &mut vec![0.0; points.len() / d], &mut gradient)?;
    let offset = centred(&mean(&points, d)?, &mean(&gradient, d)?);

    let scale = (coordinates.log_det() / (2 * d) as f64).exp();
    let usual = solver(None);
    let within = ConjugateSolver { tolerance: scale * usual.tolerance, ..usual };
    let along = coordinates.pull_back(x)?;
    let start = plus(along.clone(), &offset);
    let found = within.solve(potential.as_ref(), &along, Some(&start))?;
    let start = coordinates.colour(&found.y)?;
    solver(Some(coordinates)).solve(w, x, Some(&start))
}
