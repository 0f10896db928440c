//! One training run: its state and the update.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use burn::backend::{Autodiff, Flex};
use burn::optim::adaptor::OptimizerAdaptor;
use burn::optim::{Adam, AdamConfig, GradientsParams, Optimizer};
use burn::prelude::Tensor;
use burn::tensor::backend::AutodiffBackend;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::amortiser::{self, Amortiser, Mlp};
use super::average::Average;
use super::config::{Method, TrainConfig};
use super::inner;
use super::least_squares::DAMPING;
use super::noise_control::{self, Differentiated};
use super::objective::{Batch, Law, Likelihood, OfHead, rows};
use super::ops::Ranked;
use super::parameters::{Parameters, network_of};
use super::solve::hessian_solve;
use super::solve_metric;
use super::source_mixture::{HeadLaw, RunSource};
use super::training::{Metrics, ReadRows, Training};
use crate::conjugate::{ConjugateSolver, Status};
use crate::error::{Error, Result, check_len};
use crate::gaussian::{Gaussian, QuadraticStart};
use crate::gibbs_start::GibbsStart;
use crate::head_factor::HeadFactor;
use crate::icnn::{Icnn, Weights, initial_weights, initial_weights_for_samples};
use crate::potential::{Potential, gibbs_of};
use crate::preconditioner::Preconditioner;
use crate::sampler::{Mala, Sampler};
use crate::source::Source;

/// The differentiating backend of this machine's processor.
pub(super) type Backend = Autodiff<Flex>;
type Gradients = <Backend as AutodiffBackend>::Gradients;
/// One optimiser a group of parameters: forms, positive weights, head.
pub(super) type Optimisers<B> = [OptimizerAdaptor<Adam, Parameters<B>, B>; 3];

/// Updates between two estimates of λ_max.
pub(super) const LAMBDA_EVERY: usize = 20;
/// How fast the logarithm of the Langevin step follows the acceptance: training moves what it should be over hundreds of
/// updates.
const STEP_GAIN: f64 = 0.1;
/// Power iterations on the particles per estimate, warm-started, and how many particles are used.
pub(super) const LAMBDA_ITERATIONS: usize = 8;
const LAMBDA_PARTICLES: usize = 32;

/// Langevin steps from the data's Gaussian to the Gibbs factor of a network that a run starts from.
const WARM_UP_STEPS: usize = 100;

/// A run whose updates this machine's processor computes, the inner loops on the host interpreter.
pub struct Trainer {
    pub(super) config: TrainConfig,
    pub(super) start: QuadraticStart,
    pub(super) metric: Arc<Preconditioner>,
    /// The Hessian's mean over data when it was last looked at, empty before; and the metric of linear solves.
    pub(super) mean_hessian: Vec<f64>,
    pub(super) solve_metric: Arc<Preconditioner>,
    pub(super) parameters: Option<Parameters<Backend>>,
    pub(super) optimisers: Optimisers<Backend>,
    pub(super) average: Average,
    pub(super) rng: ChaCha8Rng,
    pub(super) particles: Vec<f64>,
    pub(super) conjugates: Vec<f64>,
    pub(super) amortiser: Option<Amortiser<Backend>>,
    pub(super) power: Vec<f64>,
    pub(super) lambda: f64,
    /// γ of the next Langevin steps; 0 before the first.
    pub(super) langevin_step: f64,
    /// κ of the likelihood's control variate; 0 before it is measured.
    pub(super) kappa: f64,
    /// Of least-squares steps.
    pub(super) damping: f64,
    pub(super) source: RunSource,
    pub(super) update: usize,
    pub(super) seconds: f64,
}

/// What the likelihood needs, of the head where the Gibbs factor is of that, and a residual.
type Parts = (Likelihood<Vec<f64>>, Option<OfHead<Tensor<Backend, 2>>>, f64);

/// What an update begins with.
pub(super) struct Begun {
    /// Taken out of the trainer until the update puts them back.
    pub(super) parameters: Parameters<Backend>,
    /// Their effective weights.
    pub(super) weights: Weights<Ranked<Backend>>,
    /// The network of these.
    pub(super) network: Icnn<f32>,
}

pub(super) fn optimisers<B: AutodiffBackend>(config: &TrainConfig) -> Optimisers<B> {
    let (b1, b2) = config.betas;
    std::array::from_fn(|_| {
        AdamConfig::new().with_beta_1(b1 as f32).with_beta_2(b2 as f32).with_epsilon(1e-8).init()
    })
}

/// The gradients of each group of parameters.
pub(super) fn grouped<B: AutodiffBackend>(
    parameters: &Parameters<B>,
    mut gradients: B::Gradients,
) -> [GradientsParams; 3] {
    parameters.groups().map(|group| GradientsParams::from_params(&mut gradients, parameters, &group))
}

/// One Adam step against the gradients of each group at update number `update`, and the factor of the learning rates
/// that it was taken with.
pub(super) fn adam<B: AutodiffBackend>(
    config: &TrainConfig,
    update: usize,
    optimisers: &mut Optimisers<B>,
    mut parameters: Parameters<B>,
    gradients: [GradientsParams; 3],
) -> (Parameters<B>, f64) {
    let rate = config.rate(update);
    let rates = [config.learning_rate, config.learning_rate_positive, config.learning_rate_head];
    for ((optimiser, gradients), learning_rate) in optimisers.iter_mut().zip(gradients).zip(rates) {
        parameters = optimiser.step(rate * learning_rate, parameters, gradients);
    }
    (parameters, rate)
}

/// The Langevin step after one of size `step` that was accepted with the probability `accepted`.
pub(super) fn tuned(config: &TrainConfig, step: f64, accepted: f64) -> f64 {
    step * (STEP_GAIN * (accepted - config.langevin_acceptance)).exp()
}

/// The decay of the average of weights at update number `update`.
pub(super) fn decay(config: &TrainConfig, update: usize) -> f64 {
    // Early on, an average over all updates so far: it forgets the start at once.
    config.average.min(update as f64 / (update as f64 + 10.0))
}

/// What stands for the particles of a run that needs none: [particles, d].
pub(super) fn draws_of(head: &HeadFactor, config: &TrainConfig) -> Result<Vec<f64>> {
    // A stream of its own: held-out rows, which previews are compared with, have their noise from the first.
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
    rng.set_stream(1);
    head.draw(config.particles, &mut rng)
}

/// A batch of data, by the numbers of its rows, and its noise.
pub(super) struct DataRows {
    indices: Vec<usize>,
    /// ε, standard normal: [batch, d].
    pub(super) noise: Vec<f64>,
}

/// Draws a batch out of `of` rows.
pub(super) fn draw_rows(config: &TrainConfig, rng: &mut ChaCha8Rng, of: usize) -> Result<DataRows> {
    if of == 0 {
        return Err(Error::Invalid("the data set is empty".into()));
    }
    let indices = (0..config.batch).map(|_| rng.random_range(0..of)).collect();
    Ok(DataRows::new(indices, config.architecture.dim, rng))
}

impl DataRows {
    /// Rows of dimension `d` by their numbers, and noise for them.
    pub(super) fn new(indices: Vec<usize>, d: usize, rng: &mut ChaCha8Rng) -> Self {
        let noise = inner::normal(rng, indices.len() * d);
        DataRows { indices, noise }
    }

    /// The noisy data: [batch, d].
    pub(super) fn read(&self, sigma: f64, read: &ReadRows<'_>) -> Result<Vec<f64>> {
        let mut y = vec![0.0; self.noise.len()];
        read(&self.indices, &mut y)?;
        y.iter_mut().zip(&self.noise).for_each(|(y, n)| *y += sigma * n);
        Ok(y)
    }
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
    /// Its mixture, if it has one, is the source's from the first where the settings allow more than one component. Fails if
    /// the network's architecture is not that of the settings. Weights that must be positive and are 0
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
        let source = RunSource::of_network(&network, config.components)?;
        let parameters = Parameters::from_network(&network, &Default::default())?;
        let particles = match (known, config.method.source()) {
            (Some(network), Source::Gibbs) if network.gibbs().is_none() => {
                let (n, seed) = (config.particles, rng.random());
                gibbs.gibbs(network, n, WARM_UP_STEPS, seed, &mut |_| true)?.state.x
            }
            // Exact draws from the start's source need no warm-up, and its map gives their conjugates.
            _ => gibbs.draw(&inner::normal(&mut rng, config.particles * d))?,
        };
        let conjugates = gibbs.map(&particles)?;
        let power = inner::normal(&mut rng, LAMBDA_PARTICLES.min(config.particles) * d);
        let amortiser = config.amortise.then(|| {
            Amortiser::new(Mlp::new(d, &mut rng, &Default::default()), amortiser::optimiser(), &gibbs)
        });
        Ok(Trainer {
            amortiser,
            optimisers: optimisers(&config),
            average: Average::new(&network.cast()?),
            parameters: Some(parameters),
            config,
            start,
            mean_hessian: Vec::new(),
            solve_metric: gibbs.covariance.clone(),
            metric: gibbs.covariance,
            rng,
            particles,
            conjugates,
            power,
            lambda: 1.0,
            langevin_step: 0.0,
            kappa: 0.0,
            damping: DAMPING,
            source,
            update: 0,
            seconds: 0.0,
        })
    }
}

impl Training for Trainer {
    fn config(&self) -> &TrainConfig {
        &self.config
    }

    fn updates_done(&self) -> usize {
        self.update
    }

    fn start(&self) -> &QuadraticStart {
        &self.start
    }

    fn network(&self) -> Result<Icnn<f32>> {
        self.source.placed_in(self.average.network()?)
    }

    fn particles(&self) -> Result<Vec<f64>> {
        match self.network()?.gibbs() {
            Some(head) => draws_of(head, &self.config),
            None => Ok(self.particles.clone()),
        }
    }

    fn step(&mut self, of: usize, read: &ReadRows<'_>) -> Result<Metrics> {
        if matches!(self.config.method, Method::Energy { .. }) {
            return Err(Error::Invalid("this run learns from an energy, not from samples".into()));
        }
        let clock = Instant::now();
        self.mix_source(of, read, &mut |_| true)?;
        let arch = self.config.architecture.clone();
        let Begun { parameters, weights, network } = self.begin()?;
        let drawn = draw_rows(&self.config, &mut self.rng, of)?;
        let y = drawn.read(self.config.sigma, read)?;
        let acceptance = match network.gibbs() {
            // The gradient needs no draws of a Gaussian.
            Some(_) => self.find_lambda(&network, &y).map(|()| 1.0)?,
            None => self.move_particles(&network)?,
        };

        let (likelihood, weight) = self.config.objective(self.update);
        let (conjugate_residual, guess_residual) =
            (weight > 0.0).then(|| self.solve_conjugates(&network)).transpose()?.unwrap_or_default();
        let parts = likelihood.then(|| self.likelihood_parts(&network, &y)).transpose()?;
        let (parts, head, solve_residual) = match parts {
            Some((parts, head, residual)) => (Some(parts), head, Some(residual)),
            None => (None, None, None),
        };
        let device = Default::default();
        let on_burn = |a: &[f64]| rows::<Backend>(a, arch.dim, &device);
        let batch = Batch {
            data: on_burn(&y),
            source: match head {
                Some(head) => Law::Head(head),
                None => Law::Particles(on_burn(&self.particles)),
            },
            conjugate: (weight > 0.0).then(|| (on_burn(&self.conjugates), weight)),
            likelihood: parts.map(|parts| parts.map(|a| on_burn(&a))),
        };
        let Differentiated { loss, gradients, control } = noise_control::differentiated(
            &self.config,
            self.update,
            self.kappa,
            (&parameters, &weights),
            batch,
            || on_burn(&drawn.noise),
        );
        self.check(&loss)?;
        let whole = parameters.forms.val().grad(&gradients);
        let correction = whole.zip(control).map(|(whole, control)| noise_control::correction(whole, control));
        self.kappa = noise_control::corrected(self.kappa, correction.map(|c| f64::from(c.into_scalar())));
        let rate = self.descend(parameters, gradients);
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(Metrics {
            update: self.update,
            seconds: self.seconds,
            objective: if likelihood { "likelihood" } else { "conjugate" },
            lambda_max: self.lambda,
            residual: solve_residual.unwrap_or(conjugate_residual),
            guess_residual,
            acceptance,
            rate,
            deviation: None,
        })
    }

    fn mix_source(
        &mut self,
        of: usize,
        read: &ReadRows<'_>,
        hear: &mut dyn FnMut(f64) -> bool,
    ) -> Result<()> {
        let at = (&self.config, self.update);
        self.source.mix(at, &self.start, &self.parameters, (of, read), hear)
    }

    fn step_on_energy(&mut self, energy: &dyn Potential) -> Result<Metrics> {
        self.energy_update(energy)
    }

    fn save(&self, path: &Path) -> Result<()> {
        self.state()?.write(path)
    }
}

impl Trainer {
    /// Takes the parameters out; their network enters the average.
    pub(super) fn begin(&mut self) -> Result<Begun> {
        let parameters = self.parameters.take().ok_or_else(|| {
            Error::Invalid("the run stopped in the middle of an update; resume it from its checkpoint".into())
        })?;
        let weights = parameters.weights(&self.config.architecture);
        let network = network_of(&self.config.architecture, &weights)?;
        self.average.update(&network, decay(&self.config, self.update));
        Ok(Begun { parameters, weights, network })
    }

    /// Fails if an update's loss is not a number.
    pub(super) fn check(&self, loss: &Tensor<Backend, 1>) -> Result<()> {
        match loss.clone().into_scalar().is_finite() {
            true => Ok(()),
            false => Err(Error::NotFinite(format!("the loss of update {}", self.update + 1))),
        }
    }

    /// Takes one Adam step against `gradients` and returns the factor of the learning rates that it was taken with.
    pub(super) fn descend(&mut self, parameters: Parameters<Backend>, gradients: Gradients) -> f64 {
        let gradients = grouped(&parameters, gradients);
        let (parameters, rate) = adam(&self.config, self.update, &mut self.optimisers, parameters, gradients);
        self.update += 1;
        self.parameters = Some(parameters);
        rate
    }

    /// What the likelihood needs at the batch `y`, of the head where the Gibbs factor is of that, and the worst relative
    /// residual of its solves.
    fn likelihood_parts(&mut self, network: &Icnn<f32>, y: &[f64]) -> Result<Parts> {
        let image = inner::gradient(network, y)?;
        let (image, along, head) = match self.config.method.source() {
            Source::Gibbs => {
                let mut along = inner::gradient(gibbs_of(network), &image)?;
                let mut law = None;
                if let Some(head) = network.gibbs() {
                    let (form, known) = (self.config.architecture.head, || Ok(image.clone()));
                    let HeadLaw { of_head, along: more } =
                        self.source.law_of_head(form, || Ok(Cow::Borrowed(head)), known)?;
                    along.iter_mut().zip(more).for_each(|(along, more)| *along += more);
                    law = Some(of_head.on(network.dim(), &Default::default()));
                }
                (Some(image), along, law)
            }
            Source::Gaussian => (None, image, None),
        };
        let probe = inner::probes(&mut self.rng, self.config.batch, network.dim());
        let (tolerance, most) = (self.config.solve_tolerance, self.config.solve_steps);
        self.look_at_hessian(network, y)?;
        let points = inner::tiled(y, &probe);
        let (solved, residual) =
            hessian_solve(network, &self.solve_metric, &points, &probe, tolerance, most)?;
        Ok((Likelihood { image, along, solved, probe }, head, residual))
    }

    /// Every so often, the mean Hessian over the first of the batch `y`, and the metric of linear solves with it.
    fn look_at_hessian(&mut self, network: &Icnn<f32>, y: &[f64]) -> Result<()> {
        let points = solve_metric::points(&self.config, self.update);
        if points > 0 {
            let mean = network.mean_hessian(&y[..points * network.dim()])?;
            // An indefinite one leaves the metric of before, and a checkpoint what that stands for.
            if let Some(metric) = Preconditioner::of_mean_hessian(&mean)? {
                (self.mean_hessian, self.solve_metric) = (mean, Arc::new(metric));
            }
        }
        Ok(())
    }

    /// Every so often, λ_max over the first of `points` [n, d].
    fn find_lambda(&mut self, network: &Icnn<f32>, points: &[f64]) -> Result<()> {
        if !self.update.is_multiple_of(LAMBDA_EVERY) {
            return Ok(());
        }
        let len = points.len().min(self.power.len());
        let (points, power) = (&points[..len], &mut self.power[..len]);
        self.lambda = inner::lambda_max(network, &self.metric, points, power, LAMBDA_ITERATIONS)?;
        match self.lambda.is_finite() {
            true => Ok(()),
            false => Err(Error::NotFinite("the largest Hessian eigenvalue".into())),
        }
    }

    /// Metropolis-adjusted Langevin steps on the particles; returns the mean probability that they were accepted, by
    /// which the next ones' size is tuned. The first goes by λ_max.
    ///
    /// From N(0, I), the exact transition over the same time of an Ornstein-Uhlenbeck process.
    pub(super) fn move_particles(&mut self, network: &Icnn<f32>) -> Result<f64> {
        let probed = self.particles[..self.power.len()].to_vec();
        self.find_lambda(network, &probed)?;
        if self.update == 0 {
            self.langevin_step = self.config.langevin_step / self.lambda;
        }
        if self.config.method.source() == Source::Gaussian {
            let kept = (-(self.config.langevin_steps as f64) * self.config.langevin_step).exp();
            let noise = inner::normal(&mut self.rng, self.particles.len());
            let fresh = (1.0 - kept * kept).sqrt();
            self.particles.iter_mut().zip(noise).for_each(|(x, xi)| *x = kept * *x + fresh * xi);
            return Ok(1.0);
        }
        let mala = Mala { step: self.langevin_step, preconditioner: Some(self.metric.clone()) };
        let mut state = mala.init(network, std::mem::take(&mut self.particles))?;
        let mut accepted = 0.0;
        for _ in 0..self.config.langevin_steps {
            accepted += mala.step(network, &mut state, &mut self.rng)?.acceptance;
        }
        self.particles = state.x;
        accepted /= self.config.langevin_steps as f64;
        self.langevin_step = tuned(&self.config, self.langevin_step, accepted);
        Ok(accepted)
    }

    /// Moves the conjugates towards ∇w*(particles) from where the last update left them, or from the
    /// amortiser's guess; returns their worst residual and the guess's. A row that fails keeps its last conjugate.
    pub(super) fn solve_conjugates(&mut self, network: &Icnn<f32>) -> Result<(f64, Option<f64>)> {
        let d = self.config.architecture.dim;
        let solver = ConjugateSolver {
            tolerance: self.config.conjugate_tolerance,
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
