//! Samplers of the Gibbs law P_w = e^{-w}/Z on R^d, several chains at once as rows.

pub mod diagnostics;
mod driver;
mod hmc;
mod langevin;
mod step_size;

use std::sync::Arc;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use rayon::prelude::*;

pub use driver::{Run, Samples, sample};
pub use hmc::{Hmc, Mala};
pub use langevin::Ula;
pub use step_size::{DualAveraging, lambda_max};

use crate::error::{Error, Result};
use crate::linalg::least_rows;
use crate::potential::{Potential, rows};
use crate::preconditioner::Preconditioner;

/// The chains' positions with the potential there. All finite.
///
/// To move chains by hand make a new state: samplers keep beside the fields what they derived from them.
#[derive(Debug, Clone)]
pub struct State {
    /// Positions: [n, d].
    pub x: Vec<f64>,
    /// w(x_i): [n].
    pub value: Vec<f64>,
    /// ∇w(x_i): [n, d].
    pub gradient: Vec<f64>,
    /// L'∇w(x_i) [n, d] where a sampler has made it, with the preconditioner L L' that it is of.
    pub(crate) pulled: Option<(Arc<Preconditioner>, Vec<f64>)>,
    /// What steps before have left behind.
    pub(crate) spare: Spare,
}

/// Arrays to write to again: an allocator gives megabytes back to the kernel, which clears every page of new ones.
#[derive(Debug, Default)]
pub(crate) struct Spare(Vec<Vec<f64>>);

impl Spare {
    /// `len` numbers, whatever they are.
    fn take(&mut self, len: usize) -> Vec<f64> {
        self.0.pop().filter(|array| array.len() == len).unwrap_or_else(|| vec![0.0; len])
    }

    fn give(&mut self, array: Vec<f64>) {
        self.0.push(array);
    }
}

/// Of a copy there is nothing to keep.
impl Clone for Spare {
    fn clone(&self) -> Self {
        Spare::default()
    }
}

impl State {
    /// Evaluates w at `x` [n, d]; fails where the result is not finite.
    pub fn new(w: &dyn Potential, x: Vec<f64>) -> Result<Self> {
        let state = State::evaluate(w, x, &mut Spare::default())?;
        match state.not_finite() {
            Some(i) => Err(Error::NotFinite(format!("the potential at chain {i}"))),
            None => Ok(state),
        }
    }

    /// Evaluates w at `x` [n, d], finite or not.
    fn evaluate(w: &dyn Potential, x: Vec<f64>, spare: &mut Spare) -> Result<Self> {
        let n = rows(&x, w.dim())?;
        if n == 0 {
            return Err(Error::Invalid("a sampler needs at least one chain".into()));
        }
        let (mut value, mut gradient) = (vec![0.0; n], spare.take(x.len()));
        w.value_and_gradient(&x, &mut value, &mut gradient)?;
        Ok(State::of(x, value, gradient))
    }

    /// The state at `x` [n, d] with w's values [n] and gradients [n, d] there.
    pub(crate) fn of(x: Vec<f64>, value: Vec<f64>, gradient: Vec<f64>) -> Self {
        State { x, value, gradient, pulled: None, spare: Spare::default() }
    }

    /// L'∇w(x_i): [n, d], made where it is not there yet.
    fn pulled_back(&mut self, preconditioner: Option<&Arc<Preconditioner>>) -> Result<&[f64]> {
        let Some(preconditioner) = preconditioner else { return Ok(&self.gradient) };
        let known = self.pulled.take().filter(|(p, _)| Arc::ptr_eq(p, preconditioner));
        let pulled = match known {
            Some(known) => known,
            None => (preconditioner.clone(), preconditioner.pull_back(&self.gradient)?),
        };
        Ok(&self.pulled.insert(pulled).1)
    }

    /// The chains of `moves` are from now on where `other` has them, which knows as much of its gradients.
    fn take(&mut self, other: State, moves: &[bool]) {
        let d = self.dim();
        let rows = |mine: &mut Vec<f64>, its: &[f64], d: usize| {
            let rows = mine.par_chunks_mut(d).zip(its.par_chunks(d)).zip(moves);
            let moving = rows.with_min_len(least_rows(d)).filter(|(_, moves)| **moves);
            moving.for_each(|((mine, its), _)| mine.copy_from_slice(its));
        };
        rows(&mut self.x, &other.x, d);
        rows(&mut self.gradient, &other.gradient, d);
        rows(&mut self.value, &other.value, 1);
        if let (Some((_, mine)), Some((_, its))) = (&mut self.pulled, &other.pulled) {
            rows(mine, its, d);
        }
        self.spare.give(other.x);
        self.spare.give(other.gradient);
    }

    /// The first chain that is where w or its gradient is not finite.
    fn not_finite(&self) -> Option<usize> {
        let d = self.dim();
        let rows = self.value.par_iter().zip(self.gradient.par_chunks(d)).with_min_len(least_rows(d));
        rows.position_first(|(value, gradient)| !value.is_finite() || gradient.iter().any(|g| !g.is_finite()))
    }

    /// The number of chains n.
    pub fn chains(&self) -> usize {
        self.value.len()
    }

    /// The dimension d.
    pub fn dim(&self) -> usize {
        self.x.len() / self.value.len()
    }
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Info {
    /// Mean over the chains of the probability of acceptance; 1 for a sampler that does not reject.
    pub acceptance: f64,
}

/// A Markov kernel that leaves e^{-w} invariant, exactly or with a stated bias.
pub trait Sampler {
    /// The state at `x` [n, d]; fails where w is not finite.
    fn init(&self, w: &dyn Potential, x: Vec<f64>) -> Result<State> {
        State::new(w, x)
    }

    /// Moves every chain once.
    fn step(&self, w: &dyn Potential, state: &mut State, rng: &mut ChaCha8Rng) -> Result<Info>;

    /// The step size, in the sampler's own unit.
    fn step_size(&self) -> f64;

    /// Replaces the step size.
    fn set_step_size(&mut self, step: f64);

    /// The mean acceptance that a warm-up should tune the step size to, if it should.
    fn target_acceptance(&self) -> Option<f64>;
}

/// `len` independent standard normals: by blocks with streams of their own, the same on any number of threads.
pub(crate) fn standard_normals(rng: &mut ChaCha8Rng, len: usize) -> Vec<f64> {
    let mut normals = vec![0.0; len];
    fill_standard_normals(rng, &mut normals);
    normals
}

/// Writes what [`standard_normals`] returns.
fn fill_standard_normals(rng: &mut ChaCha8Rng, normals: &mut [f64]) {
    const BLOCK: usize = 1 << 14;
    let source = ChaCha8Rng::seed_from_u64(rng.random());
    normals.par_chunks_mut(BLOCK).enumerate().for_each(|(i, block)| {
        let mut stream = source.clone();
        stream.set_stream(i as u64);
        block.iter_mut().for_each(|v| *v = stream.sample(StandardNormal));
    });
}

/// Fails unless the step size is positive and finite.
fn check_step(step: f64) -> Result<()> {
    if step > 0.0 && step.is_finite() {
        return Ok(());
    }
    Err(Error::Invalid(format!("sampler step {step}: must be positive")))
}
