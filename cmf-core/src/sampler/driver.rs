//! Runs a sampler: warm-up with step-size tuning, draws, traces and their diagnostics.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{DualAveraging, Sampler, State, diagnostics, standard_normals};
use crate::error::{Error, Result};
use crate::linalg::{dot, least_rows};
use crate::potential::Potential;

/// How long to run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    /// Steps before the draws that count; the step size is tuned during these.
    pub warmup: usize,
    /// Steps after the warm-up, each of which is a draw.
    pub steps: usize,
    /// Seed of all randomness: the same seed gives the same bits on one engine.
    pub seed: u64,
}

/// What a run ends with.
#[derive(Debug, Clone)]
pub struct Samples {
    /// The chains after the last step.
    pub state: State,
    /// The step size that the draws were made with, after tuning.
    pub step_size: f64,
    /// Mean acceptance over the draws; 0 without any.
    pub acceptance: f64,
    /// The worst split R-hat of the traced quantities; `None` when the draws are too few to tell.
    pub r_hat: Option<f64>,
    /// The least effective sample size of the traced quantities, over all chains together.
    pub effective_sample_size: Option<f64>,
}

/// Coordinates along fixed random directions that are traced beside w.
const PROJECTIONS: usize = 4;

/// Runs `sampler` from `start` [n, d], one chain a row.
///
/// The diagnostics come from traces of w and of 4 random projections, so that no draw need be kept. After
/// every step `observe` is called with the number of steps done (warm-up included) and the state; it may
/// keep draws, and returns whether to go on: if not, the result is [`Error::Interrupted`].
pub fn sample(
    w: &dyn Potential,
    mut sampler: impl Sampler,
    start: Vec<f64>,
    run: Run,
    observe: &mut dyn FnMut(usize, &State) -> bool,
) -> Result<Samples> {
    let mut rng = ChaCha8Rng::seed_from_u64(run.seed);
    let mut state = sampler.init(w, start)?;
    let mut tuning = sampler.target_acceptance().map(|t| DualAveraging::new(sampler.step_size(), t));
    for done in 1..=run.warmup {
        let info = sampler.step(w, &mut state, &mut rng)?;
        if let Some(tuning) = &mut tuning {
            let next = tuning.update(info.acceptance);
            sampler.set_step_size(if done == run.warmup { tuning.step_size() } else { next });
        }
        go_on(observe(done, &state))?;
    }
    let mut traces = Traces::new(&state, run, &mut rng);
    let mut acceptance = 0.0;
    for done in 1..=run.steps {
        acceptance += sampler.step(w, &mut state, &mut rng)?.acceptance;
        traces.record(&state);
        go_on(observe(run.warmup + done, &state))?;
    }
    Ok(Samples {
        state,
        step_size: sampler.step_size(),
        acceptance: acceptance / run.steps.max(1) as f64,
        r_hat: traces.each(diagnostics::split_r_hat).map(|all| all.into_iter().fold(0.0, f64::max)),
        effective_sample_size: traces
            .each(diagnostics::effective_sample_size)
            .map(|all| all.into_iter().fold(f64::INFINITY, f64::min)),
    })
}

fn go_on(go_on: bool) -> Result<()> {
    if go_on { Ok(()) } else { Err(Error::Interrupted) }
}

/// Scalar quantities of every chain at every draw.
struct Traces {
    directions: Vec<f64>,
    /// Of each chain, [draw][quantity]; quantity 0 is w.
    draws: Vec<Vec<[f64; 1 + PROJECTIONS]>>,
}

impl Traces {
    fn new(state: &State, run: Run, rng: &mut ChaCha8Rng) -> Self {
        Traces {
            directions: standard_normals(rng, PROJECTIONS * state.dim()),
            draws: vec![Vec::with_capacity(run.steps); state.chains()],
        }
    }

    fn record(&mut self, state: &State) {
        let d = state.dim();
        let chains = self.draws.par_iter_mut().zip(&state.value).zip(state.x.par_chunks(d));
        chains.with_min_len(least_rows(d)).for_each(|((draws, value), x)| {
            let mut quantities = [*value; 1 + PROJECTIONS];
            for (quantity, direction) in quantities[1..].iter_mut().zip(self.directions.chunks_exact(d)) {
                *quantity = dot(direction, x);
            }
            draws.push(quantities);
        });
    }

    /// The diagnostic of each quantity; none if the draws cannot tell.
    fn each(&self, diagnostic: impl Fn(&[Vec<f64>]) -> Option<f64>) -> Option<Vec<f64>> {
        let of = |k: usize| -> Vec<Vec<f64>> {
            self.draws.iter().map(|chain| chain.iter().map(|draw| draw[k]).collect()).collect()
        };
        (0..=PROJECTIONS).map(|k| diagnostic(&of(k))).collect()
    }
}
