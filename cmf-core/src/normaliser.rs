//! log Z = log ∫ e^{-w} by annealed importance sampling from a Gaussian of known log Z.

use std::sync::Arc;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, check_len};
use crate::gaussian::QuadraticStart;
use crate::linalg::{dot, plus};
use crate::potential::{Potential, check_hvp, check_value_and_gradient};
use crate::preconditioner::Preconditioner;
use crate::sampler::{Hmc, Sampler, State, standard_normals};

/// An estimate of log Z with its error; not an exact quantity.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LogZ {
    /// The estimate in nats: the logarithm of the mean weight, low by about `standard_error`²/2 on average.
    pub value: f64,
    /// Standard error in nats by the delta method: sd(weights) / (mean(weights) √chains).
    pub standard_error: f64,
    /// (Σ weights)² / Σ weights², of `chains`; far below it the standard error is not to be trusted.
    pub effective_sample_size: f64,
    /// Independent chains.
    pub chains: usize,
    /// Temperatures between the Gaussian and w.
    pub temperatures: usize,
    /// The seed it can be repeated with.
    pub seed: u64,
}

/// Annealed importance sampling (Neal, 2001) along the geometric path between a Gaussian and e^{-w}.
///
/// A pilot run of few chains tunes the leapfrog step at every temperature and places the temperatures
/// where the weights vary; the main run keeps both fixed, so that the mean weight stays unbiased.
#[derive(Debug, Clone, Copy)]
pub struct AnnealedImportance {
    /// Chains of the main run, at least 2.
    pub chains: usize,
    /// Temperatures, at least 1.
    pub temperatures: usize,
    /// Leapfrog steps at each temperature, at least 1.
    pub leapfrog: usize,
    /// Seed of all randomness.
    pub seed: u64,
}

impl Default for AnnealedImportance {
    /// 64 chains, 300 temperatures, 4 leapfrog steps: 0.1 nats in d = 784 where the Gaussian is near.
    fn default() -> Self {
        AnnealedImportance { chains: 64, temperatures: 300, leapfrog: 4, seed: 0 }
    }
}

const PILOT_CHAINS: usize = 16;
/// Mean acceptance that the pilot steers each temperature's step size to.
const TARGET_ACCEPTANCE: f64 = 0.8;
/// How fast: the step is multiplied by e^{GAIN (acceptance - target)} from one temperature to the next.
const GAIN: f64 = 0.3;

/// A temperature β in (0, 1] with the leapfrog step that suits it.
#[derive(Clone, Copy)]
struct Stage {
    beta: f64,
    step: f64,
}

/// What the pilot sees at a stage: the step size that it used and the spread of u - q there.
struct Seen {
    stage: Stage,
    deviation: f64,
}

impl AnnealedImportance {
    /// Estimates log ∫ e^{-w} from the Gaussian e^{-start}.
    ///
    /// `progress` is called after every temperature with the fraction done and returns whether to go on;
    /// if not, the result is [`Error::Interrupted`]. Fails where w is not finite at a draw of the Gaussian.
    /// Costs about 1.25 · temperatures · leapfrog gradients of `chains` rows; memory a few [chains, d].
    pub fn log_z(
        &self,
        w: &dyn Potential,
        start: &QuadraticStart,
        progress: &mut dyn FnMut(f64) -> bool,
    ) -> Result<LogZ> {
        if self.chains < 2 || self.temperatures == 0 || self.leapfrog == 0 {
            return Err(Error::Invalid("log Z needs 2 chains, 1 temperature and 1 leapfrog step".into()));
        }
        if w.gibbs().is_some() {
            return Err(Error::Invalid(
                "log Z of the Gibbs factor of the head is known: ask the head for it".into(),
            ));
        }
        let u = Whitened::new(w, start)?;
        let work = (PILOT_CHAINS + self.chains) as f64 * self.temperatures as f64;
        let mut done = 0;
        let mut report = |chains: usize| {
            done += chains;
            if progress(done as f64 / work) { Ok(()) } else { Err(Error::Interrupted) }
        };
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        let stages = self.pilot(&u, &mut rng, &mut || report(PILOT_CHAINS))?;
        let mut particles = Particles::new(&u, self.chains, &mut rng)?;
        let mut from = 0.0;
        for stage in stages {
            particles.reweight(stage.beta - from);
            from = stage.beta;
            particles.transition(&u, stage, self.leapfrog, &mut rng)?;
            report(self.chains)?;
        }
        self.summarise(&particles.log_weights, start.log_z)
    }

    /// Chooses the temperatures and step sizes of the main run.
    fn pilot(
        &self,
        u: &Whitened<'_>,
        rng: &mut ChaCha8Rng,
        report: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<Stage>> {
        let mut particles = Particles::new(u, PILOT_CHAINS, rng)?;
        // The trajectory of a standard normal in dimension d keeps its acceptance with steps of order d^{-1/4}.
        let mut step = (u.dim() as f64).powf(-0.25);
        let first = Stage { beta: 0.0, step };
        let mut seen = vec![Seen { stage: first, deviation: particles.deviation() }];
        for k in 1..=self.temperatures {
            // Quadratic spacing: the weights vary most near the Gaussian.
            let beta = (k as f64 / self.temperatures as f64).powi(2);
            let stage = Stage { beta, step };
            let acceptance = particles.transition(u, stage, self.leapfrog, rng)?;
            seen.push(Seen { stage, deviation: particles.deviation() });
            step *= (GAIN * (acceptance - TARGET_ACCEPTANCE)).exp();
            report()?;
        }
        Ok(equalise(&seen, self.temperatures))
    }

    fn summarise(&self, log_weights: &[f64], log_z_start: f64) -> Result<LogZ> {
        let top = log_weights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = log_weights.iter().map(|l| (l - top).exp()).collect();
        let n = weights.len() as f64;
        let mean = weights.iter().sum::<f64>() / n;
        let variance = weights.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let value = log_z_start + top + mean.ln();
        if !value.is_finite() {
            return Err(Error::NotFinite("the estimate of log Z".into()));
        }
        Ok(LogZ {
            value,
            standard_error: (variance / n).sqrt() / mean,
            effective_sample_size: (n * mean).powi(2) / dot(&weights, &weights),
            chains: self.chains,
            temperatures: self.temperatures,
            seed: self.seed,
        })
    }
}

/// Places `count` temperatures with equal increments of ∫ sd_β(u - q) dβ, the thermodynamic length, which
/// minimises the variance of the log weights (Gelman and Meng, 1998); steps are interpolated.
fn equalise(seen: &[Seen], count: usize) -> Vec<Stage> {
    let mut length = vec![0.0];
    for pair in seen.windows(2) {
        // A floor keeps β moving where the pilot saw no spread, as when w is the Gaussian itself.
        let speed = 0.5 * (pair[0].deviation + pair[1].deviation) + 1e-6;
        length.push(length[length.len() - 1] + speed * (pair[1].stage.beta - pair[0].stage.beta));
    }
    let total = length[length.len() - 1];
    let place = |k: usize| {
        let at = total * k as f64 / count as f64;
        let right = length.partition_point(|l| *l < at).clamp(1, seen.len() - 1);
        let (a, b) = (seen[right - 1].stage, seen[right].stage);
        let t = (at - length[right - 1]) / (length[right] - length[right - 1]);
        Stage { beta: a.beta + t * (b.beta - a.beta), step: a.step + t * (b.step - a.step) }
    };
    let mut stages: Vec<Stage> = (1..count).map(place).collect();
    stages.push(Stage { beta: 1.0, step: seen[seen.len() - 1].stage.step });
    stages
}

/// u(z) = w(a + L z): the potential in coordinates where the starting Gaussian is N(0, I).
struct Whitened<'a> {
    w: &'a dyn Potential,
    centre: &'a [f64],
    factor: Arc<Preconditioner>,
}

impl<'a> Whitened<'a> {
    fn new(w: &'a dyn Potential, start: &'a QuadraticStart) -> Result<Self> {
        let d = w.dim();
        check_len("centre of the Gaussian", start.centre.len(), d)?;
        Ok(Whitened { w, centre: &start.centre, factor: Arc::new(start.inverse_hessian()?) })
    }

    fn x(&self, z: &[f64]) -> Result<Vec<f64>> {
        Ok(plus(self.factor.colour(z)?, self.centre))
    }
}

impl Potential for Whitened<'_> {
    fn dim(&self) -> usize {
        self.centre.len()
    }

    fn value_and_gradient(&self, z: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        check_value_and_gradient(self.dim(), z, value, gradient)?;
        self.w.value_and_gradient(&self.x(z)?, value, gradient)?;
        gradient.copy_from_slice(&self.factor.pull_back(gradient)?);
        Ok(())
    }

    fn hvp(&self, z: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        check_hvp(self.dim(), z, v, hv)?;
        self.w.hvp(&self.x(z)?, &self.factor.colour(v)?, hv)?;
        hv.copy_from_slice(&self.factor.pull_back(hv)?);
        Ok(())
    }
}

/// β u(z) + (1-β) q(z), q(z) = ½|z|².
struct Bridge<'a> {
    u: &'a dyn Potential,
    beta: f64,
}

impl Bridge<'_> {
    /// The state of the bridge where `u` is the state of its end.
    fn mix(&self, u: &State) -> State {
        let mut state = u.clone();
        let d = state.dim();
        state.gradient.iter_mut().zip(&u.x).for_each(|(g, z)| *g = self.beta * *g + (1.0 - self.beta) * z);
        for (value, z) in state.value.iter_mut().zip(u.x.chunks_exact(d)) {
            *value = self.beta * *value + (1.0 - self.beta) * 0.5 * dot(z, z);
        }
        state
    }

    /// The inverse of [`Bridge::mix`], for β > 0: spares a second evaluation of u.
    fn unmix(&self, mut state: State) -> State {
        let d = state.dim();
        for (value, z) in state.value.iter_mut().zip(state.x.chunks_exact(d)) {
            *value = (*value - (1.0 - self.beta) * 0.5 * dot(z, z)) / self.beta;
        }
        let gradient = state.gradient.iter_mut().zip(&state.x);
        gradient.for_each(|(g, z)| *g = (*g - (1.0 - self.beta) * z) / self.beta);
        state
    }
}

impl Potential for Bridge<'_> {
    fn dim(&self) -> usize {
        self.u.dim()
    }

    fn value_and_gradient(&self, z: &[f64], value: &mut [f64], gradient: &mut [f64]) -> Result<()> {
        self.u.value_and_gradient(z, value, gradient)?;
        let ends = State::of(z.to_vec(), value.to_vec(), gradient.to_vec());
        let mixed = self.mix(&ends);
        value.copy_from_slice(&mixed.value);
        gradient.copy_from_slice(&mixed.gradient);
        Ok(())
    }

    fn hvp(&self, z: &[f64], v: &[f64], hv: &mut [f64]) -> Result<()> {
        self.u.hvp(z, v, hv)?;
        hv.iter_mut().zip(v).for_each(|(h, v)| *h = self.beta * *h + (1.0 - self.beta) * v);
        Ok(())
    }
}

/// The annealed chains: their state under u and their log weights so far.
struct Particles {
    state: State,
    log_weights: Vec<f64>,
}

impl Particles {
    /// Exact draws of N(0, I).
    fn new(u: &Whitened<'_>, chains: usize, rng: &mut ChaCha8Rng) -> Result<Self> {
        let state = State::new(u, standard_normals(rng, chains * u.dim()))?;
        Ok(Particles { state, log_weights: vec![0.0; chains] })
    }

    /// q - u at each chain: the log weight gained by unit of β.
    fn gains(&self) -> impl Iterator<Item = f64> {
        let rows = self.state.x.chunks_exact(self.state.dim());
        rows.zip(&self.state.value).map(|(z, u)| 0.5 * dot(z, z) - u)
    }

    /// Moves from one temperature to the next, `increment` away.
    fn reweight(&mut self, increment: f64) {
        let gains: Vec<f64> = self.gains().collect();
        self.log_weights.iter_mut().zip(gains).for_each(|(l, gain)| *l += increment * gain);
    }

    /// Standard deviation over the chains of u - q.
    fn deviation(&self) -> f64 {
        let n = self.log_weights.len() as f64;
        let mean = self.gains().sum::<f64>() / n;
        (self.gains().map(|g| (g - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
    }

    /// One Hamiltonian transition that leaves the stage's law invariant; returns its acceptance.
    fn transition(
        &mut self,
        u: &Whitened<'_>,
        stage: Stage,
        leapfrog: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<f64> {
        let bridge = Bridge { u, beta: stage.beta };
        let mut state = bridge.mix(&self.state);
        let sampler = Hmc { step: stage.step, leapfrog, preconditioner: None };
        let info = sampler.step(&bridge, &mut state, rng)?;
        self.state = bridge.unmix(state);
        Ok(info.acceptance)
    }
}
