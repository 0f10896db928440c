//! One training run: its state and the update.

use std::sync::Arc;
use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{Adam, AdamConfig, GradientsParams, Optimizer};
use burn::prelude::Tensor;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::amortiser::{self, Amortiser, Mlp};
use super::average::Average;
use super::config::{Method, TrainConfig};
use super::inner;
use super::least_squares::DAMPING;
use super::objective::{Batch, Likelihood, loss};
use super::ops::{BurnOps, Ranked};
use super::parameters::{Parameters, network_of};
use crate::conjugate::{ConjugateSolver, Status};
use crate::error::{Error, Result, check_len};
use crate::gaussian::{Gaussian, QuadraticStart};
use crate::gibbs_start::GibbsStart;
use crate::icnn::{Icnn, Weights, initial_weights, initial_weights_for_samples};
use crate::linalg::dot;
use crate::preconditioner::Preconditioner;
use crate::sampler::{Sampler, Ula};
use crate::source::Source;

/// The differentiating backend.
pub(super) type Backend = Autodiff<Flex>;
/// One optimiser a group of parameters: forms, positive weights, head.
pub(super) type Optimisers = [OptimizerAdaptor<Adam, Parameters<Backend>, Backend>; 3];

/// Updates between two estimates of λ_max.
const LAMBDA_EVERY: usize = 20;
/// rms residual at which a conjugate is good enough for one update.
const CONJUGATE_TOLERANCE: f64 = 1e-2;
/// Margin on the estimate, which power iteration approaches from below and training moves.
const LAMBDA_MARGIN: f64 = 1.1;
/// Power iterations on the particles per estimate, warm-started, and how many particles are used.
const LAMBDA_ITERATIONS: usize = 8;
const LAMBDA_PARTICLES: usize = 32;

/// Langevin steps from the data's Gaussian to the Gibbs factor of a network that a run starts from.
const WARM_UP_STEPS: usize = 100;

/// What one update saw.
#[derive(Debug, Clone, Copy)]
pub struct Metrics {
    /// Updates done, this one included.
    pub update: usize,
    /// Seconds spent in updates, over all sessions of the run.
    pub seconds: f64,
    /// Whether the update was CMFGen's, the likelihood's or an energy's.
    pub objective: &'static str,
    /// The largest eigenvalue over particles of the Hessian preconditioned by the start's.
    pub lambda_max: f64,
    /// rms residual of the conjugate solves (CMFGen) or worst relative residual of the linear solves.
    pub residual: f64,
    /// Root mean square of ∇w(H(x)) - x for the amortiser's guesses H(x), before they are solved; none without
    /// an amortiser or in updates without conjugate solves.
    pub guess_residual: Option<f64>,
    /// The standard deviation of w over the particles, with sqrt(d/2) for a Gaussian Gibbs factor: it
    /// drifts when Langevin steps are unstable.
    pub particle_spread: f64,
    /// Factor of the learning rates.
    pub rate: f64,
    /// Standard deviation over the batch of E + log ρ_w, in nats; 0 for a model that is exact there. None
    /// without an energy.
    pub deviation: Option<f64>,
}

/// A run in progress.
pub struct Trainer {
    pub(super) config: TrainConfig,
    pub(super) start: QuadraticStart,
    pub(super) metric: Arc<Preconditioner>,
    pub(super) parameters: Option<Parameters<Backend>>,
    pub(super) optimisers: Optimisers,
    pub(super) average: Average,
    pub(super) rng: ChaCha8Rng,
    pub(super) particles: Vec<f64>,
    pub(super) conjugates: Vec<f64>,
    pub(super) amortiser: Option<Amortiser>,
    pub(super) power: Vec<f64>,
    pub(super) lambda: f64,
    /// Of least-squares steps.
    pub(super) damping: f64,
    pub(super) update: usize,
    pub(super) seconds: f64,
}

/// What an update begins with.
pub(super) struct Begun {
    /// Taken out of the trainer until the update puts them back.
    pub(super) parameters: Parameters<Backend>,
    /// Their effective weights.
    pub(super) weights: Weights<Ranked<Backend>>,
    /// The network of these.
    pub(super) network: Icnn<f32>,
}

pub(super) fn optimisers(config: &TrainConfig) -> Optimisers {
    let (b1, b2) = config.betas;
    std::array::from_fn(|_| {
        AdamConfig::new().with_beta_1(b1 as f32).with_beta_2(b2 as f32).with_epsilon(1e-8).init()
    })
}

impl Trainer {
    /// Starts a run at the closed-form potential of `gaussian`, the data's mean and covariance with σ²
    /// added.
    pub fn new(config: TrainConfig, gaussian: &Gaussian) -> Result<Self> {
        Self::start_at(config, gaussian, None)
    }

    /// Starts a run at a network that is known already, that of a model file, say; `gaussian` is still that of
    /// the data, whose Gibbs factor preconditions the inner loops.
    ///
    /// Fails if the network's architecture is not that of the settings. Weights that must be positive and are 0
    /// become 1e-6 of their unit, and a constant of the potential is dropped: log Z is estimated anew.
    pub fn from_network(config: TrainConfig, gaussian: &Gaussian, network: &Icnn<f32>) -> Result<Self> {
        if *network.architecture() != config.architecture {
            return Err(Error::Invalid(format!(
                "the network to start from is {:?}, the settings say {:?}",
                network.architecture(),
                config.architecture
            )));
        }
        Self::start_at(config, gaussian, Some(network))
    }

    fn start_at(config: TrainConfig, gaussian: &Gaussian, known: Option<&Icnn<f32>>) -> Result<Self> {
        config.validate()?;
        let d = config.architecture.dim;
        check_len("the data's dimension", gaussian.dim(), d)?;
        let start = gaussian.quadratic_start_from(config.method.source())?;
        let gibbs = GibbsStart::new(&start)?;
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        let network = match known {
            Some(network) => network.cast()?,
            None => {
                let initial = match config.method {
                    Method::Energy { .. } => initial_weights,
                    Method::Samples | Method::GaussianIcnn => initial_weights_for_samples,
                };
                let weights = initial(&config.architecture, &start, rng.random())?;
                Icnn::new(config.architecture.clone(), weights)?
            }
        };
        let parameters = Parameters::from_network(&network, &Default::default())?;
        let particles = match (known, config.method.source()) {
            (Some(network), Source::Gibbs) => {
                let (n, seed) = (config.particles, rng.random());
                gibbs.gibbs(network, n, WARM_UP_STEPS, seed, &mut |_, _| true)?.state.x
            }
            // Exact draws from the start's source need no warm-up, and its map gives their conjugates.
            _ => gibbs.draw(&inner::normal(&mut rng, config.particles * d))?,
        };
        let conjugates = gibbs.map(&particles)?;
        let power = inner::normal(&mut rng, LAMBDA_PARTICLES.min(config.particles) * d);
        let amortiser =
            config.amortise.then(|| Amortiser::new(Mlp::new(d, &mut rng), amortiser::optimiser(), &gibbs));
        Ok(Trainer {
            amortiser,
            optimisers: optimisers(&config),
            average: Average::new(&network.cast()?),
            parameters: Some(parameters),
            config,
            start,
            metric: gibbs.covariance,
            rng,
            particles,
            conjugates,
            power,
            lambda: 1.0,
            damping: DAMPING,
            update: 0,
            seconds: 0.0,
        })
    }

    /// The settings of the run.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// Updates done.
    pub fn updates_done(&self) -> usize {
        self.update
    }

    /// The closed-form potential that the run started from.
    pub fn start(&self) -> &QuadraticStart {
        &self.start
    }

    /// The averaged network.
    pub fn network(&self) -> Result<Icnn<f32>> {
        self.average.network()
    }

    /// The Gibbs particles: [particles, d].
    pub fn particles(&self) -> &[f64] {
        &self.particles
    }

    /// Takes one update on training data of `rows` rows, which `read` copies by index into [indices, d].
    pub fn step(
        &mut self,
        rows: usize,
        read: impl Fn(&[usize], &mut [f64]) -> Result<()>,
    ) -> Result<Metrics> {
        if matches!(self.config.method, Method::Energy { .. }) {
            return Err(Error::Invalid("this run learns from an energy, not from samples".into()));
        }
        let clock = Instant::now();
        let arch = self.config.architecture.clone();
        let Begun { parameters, weights, network } = self.begin()?;
        let y = self.draw(rows, read)?;
        let particle_spread = self.move_particles(&network)?;

        let device = Default::default();
        let ops = BurnOps::<Backend>::new(device);
        let likelihood = self.update >= self.config.conjugate_updates;
        let weight = if likelihood { self.config.conjugate_weight } else { 1.0 };
        let (conjugate_residual, guess_residual) =
            (weight > 0.0).then(|| self.solve_conjugates(&network)).transpose()?.unwrap_or_default();
        let (parts, solve_residual) =
            likelihood.then(|| self.likelihood_parts(&network, &y)).transpose()?.unzip();
        let batch = Batch {
            data: &y,
            particles: &self.particles,
            conjugate: (weight > 0.0).then_some((self.conjugates.as_slice(), weight)),
            likelihood: parts.as_ref(),
        };
        let loss = loss(&ops, &arch, &weights, &batch, &device);
        let rate = self.descend(parameters, loss)?;
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(Metrics {
            update: self.update,
            seconds: self.seconds,
            objective: if likelihood { "likelihood" } else { "conjugate" },
            lambda_max: self.lambda,
            residual: solve_residual.unwrap_or(conjugate_residual),
            guess_residual,
            particle_spread,
            rate,
            deviation: None,
        })
    }

    /// Takes the parameters out; their network enters the average.
    pub(super) fn begin(&mut self) -> Result<Begun> {
        let parameters = self.parameters.take().ok_or_else(|| {
            Error::Invalid("the run stopped in the middle of an update; resume it from its checkpoint".into())
        })?;
        let weights = parameters.weights(&self.config.architecture);
        let network = network_of(&self.config.architecture, &weights)?;
        // Early on, an average over all updates so far: it forgets the start at once.
        let decay = self.config.average.min(self.update as f64 / (self.update as f64 + 10.0));
        self.average.update(&network, decay);
        Ok(Begun { parameters, weights, network })
    }

    /// Takes one Adam step down `loss` and returns the factor of the learning rates that it was taken with.
    pub(super) fn descend(
        &mut self,
        mut parameters: Parameters<Backend>,
        loss: Tensor<Backend, 1>,
    ) -> Result<f64> {
        let value: f64 = f64::from(loss.clone().into_scalar());
        if !value.is_finite() {
            return Err(Error::NotFinite(format!("the loss of update {}", self.update + 1)));
        }
        let rate = self.config.rate(self.update);
        let mut gradients = loss.backward();
        let groups = parameters.groups();
        let rates =
            [self.config.learning_rate, self.config.learning_rate_positive, self.config.learning_rate_head];
        for ((optimiser, group), learning_rate) in self.optimisers.iter_mut().zip(&groups).zip(rates) {
            let gradients = GradientsParams::from_params(&mut gradients, &parameters, group);
            parameters = optimiser.step(rate * learning_rate, parameters, gradients);
        }
        self.update += 1;
        self.parameters = Some(parameters);
        Ok(rate)
    }

    /// What the likelihood needs at the batch `y`, and the worst relative residual of its solves.
    fn likelihood_parts(&mut self, network: &Icnn<f32>, y: &[f64]) -> Result<(Likelihood, f64)> {
        let image = inner::gradient(network, y)?;
        let (image, along) = match self.config.method.source() {
            Source::Gibbs => {
                let along = inner::gradient(network, &image)?;
                (Some(image), along)
            }
            Source::Gaussian => (None, image),
        };
        let probe = inner::signs(&mut self.rng, y.len());
        let (tolerance, most) = (self.config.solve_tolerance, self.config.solve_steps);
        let (solved, residual) = inner::hessian_solve(network, &self.metric, y, &probe, tolerance, most)?;
        Ok((Likelihood { image, along, solved, probe }, residual))
    }

    /// A batch of noisy data.
    fn draw(&mut self, rows: usize, read: impl Fn(&[usize], &mut [f64]) -> Result<()>) -> Result<Vec<f64>> {
        if rows == 0 {
            return Err(Error::Invalid("the data set is empty".into()));
        }
        let indices: Vec<usize> = (0..self.config.batch).map(|_| self.rng.random_range(0..rows)).collect();
        let mut y = vec![0.0; indices.len() * self.config.architecture.dim];
        read(&indices, &mut y)?;
        let noise = inner::normal(&mut self.rng, y.len());
        y.iter_mut().zip(&noise).for_each(|(y, n)| *y += self.config.sigma * n);
        Ok(y)
    }

    /// Langevin steps on the particles with the step size that λ_max allows; returns the spread of w over
    /// them. From N(0, I), the exact transition over the same time of an Ornstein-Uhlenbeck process.
    pub(super) fn move_particles(&mut self, network: &Icnn<f32>) -> Result<f64> {
        if self.update.is_multiple_of(LAMBDA_EVERY) {
            let probed = &self.particles[..self.power.len()];
            let found = inner::lambda_max(network, &self.metric, probed, &mut self.power, LAMBDA_ITERATIONS)?;
            self.lambda = LAMBDA_MARGIN * found;
            if !self.lambda.is_finite() {
                return Err(Error::NotFinite("the largest Hessian eigenvalue".into()));
            }
        }
        let spread = |value: &[f64]| {
            let mean = value.iter().sum::<f64>() / value.len() as f64;
            (value.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / value.len() as f64).sqrt()
        };
        if self.config.method.source() == Source::Gaussian {
            let kept = (-(self.config.langevin_steps as f64) * self.config.langevin_step).exp();
            let noise = inner::normal(&mut self.rng, self.particles.len());
            let fresh = (1.0 - kept * kept).sqrt();
            self.particles.iter_mut().zip(noise).for_each(|(x, xi)| *x = kept * *x + fresh * xi);
            let rows = self.particles.chunks_exact(self.config.architecture.dim);
            return Ok(spread(&rows.map(|x| 0.5 * dot(x, x)).collect::<Vec<f64>>()));
        }
        let step = self.config.langevin_step / self.lambda;
        let ula = Ula { step, preconditioner: Some(self.metric.clone()) };
        let mut state = ula.init(network, std::mem::take(&mut self.particles))?;
        for _ in 0..self.config.langevin_steps {
            ula.step(network, &mut state, &mut self.rng)?;
        }
        self.particles = state.x;
        Ok(spread(&state.value))
    }

    /// Moves the conjugates towards ∇w*(particles) from where the last update left them, or from the
    /// amortiser's guess; returns their worst residual and the guess's. A row that fails keeps its last conjugate.
    pub(super) fn solve_conjugates(&mut self, network: &Icnn<f32>) -> Result<(f64, Option<f64>)> {
        let d = self.config.architecture.dim;
        let solver = ConjugateSolver {
            tolerance: CONJUGATE_TOLERANCE,
            max_steps: self.config.conjugate_steps,
            preconditioner: Some(self.metric.clone()),
            ..ConjugateSolver::default()
        };
        let guess = self.amortiser.as_ref().map(|a| a.guess(&self.particles)).transpose()?;
        let guess_residual =
            guess.as_ref().map(|y| inner::residual(network, y, &self.particles)).transpose()?;
        let start = guess.as_ref().unwrap_or(&self.conjugates);
        let solution = solver.solve(network, &self.particles, Some(start))?;
        if let Some(amortiser) = &mut self.amortiser {
            let converged: Vec<bool> =
                solution.rows.iter().map(|row| row.status == Status::Converged).collect();
            amortiser.learn(&self.particles, &solution.y, &converged)?;
        }
        let rows = self.conjugates.chunks_exact_mut(d).zip(solution.y.chunks_exact(d));
        for ((old, new), outcome) in rows.zip(&solution.rows) {
            if outcome.status != Status::NonFinite {
                old.copy_from_slice(new);
            }
        }
        Ok((solution.worst_residual(), guess_residual))
    }
}
