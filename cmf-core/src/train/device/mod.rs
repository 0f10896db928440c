//! Runs whose updates a device computes: particles, conjugates, linear solves, loss and Adam steps stay on it.
//!
//! The inner loops are ordinary tensor code over the formulas, generic in Burn's backend, and take the same random
//! numbers in the same order as the host's ([`Trainer`](super::Trainer)), drawn from the seed by a thread beside. So a
//! seed gives one run, checkpoints go both ways, and on Burn's processor backend tests compare the two step by step.
//!
//! An update waits for the device once, for its figures, besides the looks of the linear solves at their residuals
//! (`solve.rs`), one eigenvalue in twenty updates, and for a Gibbs factor of the head a full head and, with a mixture, ∇w(y).

mod conjugate;
mod draws;
mod langevin;
mod metric;
mod solve;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::path::Path;
use std::time::Instant;

use burn::prelude::*;
use burn::tensor::backend::AutodiffBackend;
use rand_chacha::ChaCha8Rng;

use super::activation::Activates;
use super::amortiser::Amortiser;
use super::average::Average;
use super::checkpoint::{Late, Numbers, Packed, State, pack_amortiser, unpack_amortiser};
use super::config::{Method, TrainConfig};
use super::noise_control::{self, Differentiated};
use super::objective::{Batch, Law, Likelihood, OfHead, loss, rows};
use super::ops::{BurnOps, Precise, Ranked};
use super::parameters::{Parameters, network_of};
use super::solve_metric;
use super::source_mixture::RunSource;
use super::trainer::{
    Backend as HostBackend, LAMBDA_EVERY, LAMBDA_ITERATIONS, Optimisers, adam, decay, draws_of, tuned,
};
use super::training::{Metrics, ReadRows, Training};
use crate::error::{Error, Result};
use crate::gaussian::QuadraticStart;
use crate::gibbs_start::GibbsStart;
use crate::head_factor::HeadFactor;
use crate::icnn::formula::Formula;
use crate::icnn::{Architecture, GibbsFactor, Icnn, Weights};
use crate::potential::Potential as HostPotential;
use crate::preconditioner::Preconditioner;
use crate::source::Source;
use conjugate::conjugate;
use draws::{Ahead, Moves};
use langevin::{lambda_max, langevin};
use metric::{Metric, choose};
use solve::hessian_solve;

/// The network on a device, at the weights of one update.
type Potential<'a, B> = Formula<'a, BurnOps<B>>;

/// Largest difference from the host's f64 answers that a device may begin with, relative to the largest number.
const AGREEMENT: f64 = 1e-4;
/// The same for the differentiated pass, whose products may round their factors to 11 bits: some sums of them later, and
/// far below the noise of a gradient from a hundred points.
const GRADIENT_AGREEMENT: f64 = 1e-2;

fn ranked<B: Backend>(a: &Tensor<B, 2>) -> Ranked<B> {
    Ranked::Two(a.clone())
}

/// w and ∇w at the rows of `x`: [n, d] -> [n, 1], [n, d].
fn at<B: Activates>(w: &Potential<'_, B>, x: &Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let (value, gradient) = w.value_and_gradient(&ranked(x));
    (value.matrix(), gradient.matrix())
}

/// The numbers of `a`, once the device has come to them.
fn read_single<B: Backend, const D: usize>(a: Tensor<B, D>) -> Result<Vec<f32>> {
    let failed = |message: String| Error::Engine { engine: "burn", message };
    let data = a.try_into_data().map_err(|e| failed(e.to_string()))?;
    data.convert::<f32>().to_vec().map_err(|e| failed(format!("{e:?}")))
}

/// The same in f64.
fn read<B: Backend, const D: usize>(a: Tensor<B, D>) -> Result<Vec<f64>> {
    Ok(read_single(a)?.into_iter().map(f64::from).collect())
}

/// The one number of `a`, once the device has come to it.
fn scalar<B: Backend>(a: Tensor<B, 1>) -> Result<f64> {
    Ok(read(a)?[0])
}

/// Fails if a number of `found` is off by more than `agreement` of the largest in `want`.
fn close(what: &str, found: &[f64], want: &[f64], agreement: f64) -> Result<()> {
    let size = want.iter().fold(0.0f64, |top, v| top.max(v.abs()));
    let off = found.iter().zip(want).map(|(a, b)| (a - b).abs());
    let off = off.fold(0.0, |top: f64, off| if off.is_nan() { f64::INFINITY } else { top.max(off) });
    if off <= agreement * size {
        return Ok(());
    }
    let message = format!(
        "its {what} differ from the processor's by {off:e} where the largest is {size:e}; {:e} is allowed",
        agreement * size
    );
    Err(Error::Engine { engine: "burn", message })
}

/// A likelihood's derivative in the linear and squared forms, with the points `x` in every place.
fn in_forms<B: AutodiffBackend + Activates>(
    network: &Icnn<f32>,
    x: &[f64],
    device: &B::Device,
) -> Result<Vec<f64>> {
    let arch = network.architecture();
    let parameters = Parameters::<B>::from_network(network, device)?;
    let x = rows::<B>(x, arch.dim, device);
    let likelihood =
        Likelihood { image: Some(x.clone()), along: x.clone(), solved: x.clone(), probe: x.clone() };
    let source = Law::Particles(x.clone() * 0.5);
    let batch = Batch { data: x, source, conjugate: None, likelihood: Some(likelihood) };
    let loss = loss(&BurnOps::new(device.clone()), arch, &parameters.weights(arch), batch);
    let gradient = parameters.forms.val().grad(&loss.backward());
    gradient.map_or_else(|| Err(Error::Engine { engine: "burn", message: "no derivative".into() }), read)
}

/// The weights without their graph.
pub(super) fn inner_weights<B: AutodiffBackend>(
    arch: &Architecture,
    weights: &Weights<Ranked<B>>,
) -> Result<Weights<Ranked<B::InnerBackend>>> {
    // `build` asks in the order of `named`.
    let mut all = weights.named(arch).into_iter();
    Weights::build(arch, |name, _| match all.next() {
        Some((found, _, t)) if found == name => Ok(Ranked::Two(t.clone().matrix().inner())),
        _ => Err(Error::Invalid(format!("no array {name}"))),
    })
}

/// What the likelihood needs, of the head where the Gibbs factor is of that, and a residual.
type Parts<B> =
    (Likelihood<Tensor<<B as AutodiffBackend>::InnerBackend, 2>>, Option<OfHead<Tensor<B, 2>>>, f64);

/// A run on a device.
pub(super) struct DeviceTrainer<B: AutodiffBackend> {
    config: TrainConfig,
    start: QuadraticStart,
    device: B::Device,
    metric: Metric<B::InnerBackend>,
    /// The Hessian's mean over data when it was last looked at, empty before; and the metric of linear solves.
    mean_hessian: Vec<f64>,
    solve_metric: Metric<B::InnerBackend>,
    /// a of the start: [1, d].
    centre: Tensor<B::InnerBackend, 2>,
    parameters: Option<Parameters<B>>,
    optimisers: Optimisers<B>,
    /// Averaged effective weights, in the order of [`Weights::named`].
    average: Vec<Tensor<B::InnerBackend, 2>>,
    /// As the last update left it.
    rng: ChaCha8Rng,
    ahead: Ahead,
    particles: Tensor<B::InnerBackend, 2>,
    conjugates: Tensor<B::InnerBackend, 2>,
    power: Tensor<B::InnerBackend, 2>,
    amortiser: Option<Amortiser<B>>,
    lambda: f64,
    langevin_step: f64,
    kappa: f64,
    damping: f64,
    /// With its mixture kept by the host.
    source: RunSource,
    update: usize,
    seconds: f64,
}

impl<B: AutodiffBackend<InnerBackend: Precise> + Activates> DeviceTrainer<B> {
    /// Goes on from a state on `device`. Fails for runs that learn from an energy, which the host evaluates, and if
    /// the device's gradients and Hessian products are not the host's.
    pub(super) fn from_state(state: State, device: B::Device) -> Result<Self> {
        let State { config, start, learned, numbers, late } = state;
        let Late { damping, langevin_step, kappa, mean_hessian, source } = late;
        if matches!(config.method, Method::Energy { .. }) {
            return Err(Error::Invalid(
                "energies, their Hessians' factors and least-squares steps are computed by the processor"
                    .into(),
            ));
        }
        let d = config.architecture.dim;
        let gibbs = GibbsStart::new(&start)?;
        let (parameters, optimisers) = learned.unpack::<B>(&config, &start, &device)?;
        let Numbers { average, rng, particles, conjugates, amortiser, power, lambda, update, seconds } =
            numbers;
        let upload = |a: &[f64]| rows::<B::InnerBackend>(a, d, &device);
        let shapes = parameters.weights(&config.architecture);
        let average = average
            .into_iter()
            .zip(shapes.named(&config.architecture))
            .map(|(a, (_, shape, _))| Tensor::from_data(TensorData::new(a, shape), &device));
        let run = DeviceTrainer {
            source: RunSource::load(source, d)?,
            average: average.collect(),
            amortiser: unpack_amortiser(amortiser, &rng, &gibbs, &device)?,
            metric: Metric::new(&gibbs.covariance, &device)?,
            solve_metric: Metric::new(
                solve_metric::kept(&mean_hessian)?.as_ref().unwrap_or(&gibbs.covariance),
                &device,
            )?,
            mean_hessian,
            centre: upload(&gibbs.centre),
            particles: upload(&particles),
            conjugates: upload(&conjugates),
            power: upload(&power),
            parameters: Some(parameters),
            config,
            start,
            device,
            optimisers,
            rng,
            ahead: Ahead::default(),
            lambda,
            langevin_step,
            kappa,
            damping,
            update,
            seconds,
        };
        run.agrees(&shapes)?;
        Ok(run)
    }

    /// Compares the device's gradients, Hessian products and derivatives in the weights at the particles with the
    /// host's; makes the device compile most of its kernels.
    fn agrees(&self, weights: &Weights<Ranked<B>>) -> Result<()> {
        let arch = &self.config.architecture;
        let single = network_of(arch, weights)?;
        let host: Icnn<f64> = single.cast()?;
        let (ops, inner) = (BurnOps::precise(self.device.clone()), inner_weights(arch, weights)?);
        let w = Formula::new(&ops, arch, &inner);
        let on_device = &self.particles;
        let x = read(on_device.clone())?;
        let (mut value, mut gradient, mut product) =
            (vec![0.0; self.config.particles], vec![0.0; x.len()], vec![0.0; x.len()]);
        host.value_and_gradient(&x, &mut value, &mut gradient)?;
        host.hvp(&x, &x, &mut product)?;
        let hvp = w.hvp(&w.linearise(&ranked(on_device)), &ranked(on_device)).matrix();
        close("gradients", &read(at(&w, on_device).1)?, &gradient, AGREEMENT)?;
        close("Hessian products", &read(hvp)?, &product, AGREEMENT)?;
        let found = in_forms::<B>(&single, &x, &self.device)?;
        let want = in_forms::<HostBackend>(&single, &x, &Default::default())?;
        close("derivatives in the weights", &found, &want, GRADIENT_AGREEMENT)
    }

    /// The averaged weights, in the order of [`Weights::named`].
    fn averaged(&self) -> Result<Vec<Vec<f32>>> {
        self.average.iter().map(|a| read_single(a.clone())).collect()
    }

    fn upload(&self, a: &[f64]) -> Tensor<B::InnerBackend, 2> {
        rows(a, self.config.architecture.dim, &self.device)
    }

    /// Moves the particles; returns the share of steps that was accepted, as the host's `move_particles` does.
    fn move_particles(
        &mut self,
        w: &Potential<'_, B::InnerBackend>,
        y: &Tensor<B::InnerBackend, 2>,
        moves: &Moves,
    ) -> Result<Tensor<B::InnerBackend, 1>> {
        if self.update.is_multiple_of(LAMBDA_EVERY) {
            let points = if let Moves::Nothing = moves { y } else { &self.particles };
            let n = points.dims()[0].min(self.power.dims()[0]);
            let [probed, power] = [points, &self.power].map(|a| a.clone().narrow(0, 0, n));
            let (found, power) = lambda_max(w, &self.metric, &probed, power, LAMBDA_ITERATIONS);
            self.power = self.power.clone().slice_assign([0..n, 0..self.config.architecture.dim], power);
            self.lambda = scalar(found)?;
            if !self.lambda.is_finite() {
                return Err(Error::NotFinite("the largest Hessian eigenvalue".into()));
            }
        }
        if self.update == 0 && !matches!(moves, Moves::Nothing) {
            self.langevin_step = self.config.langevin_step / self.lambda;
        }
        match moves {
            Moves::Nothing => Ok(Tensor::ones([1], &self.device)),
            Moves::Exact(noise) => {
                let kept = (-(self.config.langevin_steps as f64) * self.config.langevin_step).exp();
                let fresh = self.upload(noise) * (1.0 - kept * kept).sqrt();
                self.particles = self.particles.clone() * kept + fresh;
                Ok(Tensor::ones([1], &self.device))
            }
            Moves::Langevin(chances) => {
                let from = self.particles.clone();
                let (x, accepted) = langevin(w, &self.metric, from, self.langevin_step, chances);
                self.particles = x;
                Ok(accepted)
            }
        }
    }

    /// Moves the conjugates towards ∇w*(particles), as the host's `solve_conjugates` does; returns their worst
    /// residual and the guess's.
    fn solve_conjugates(
        &mut self,
        w: &Potential<'_, B::InnerBackend>,
    ) -> (Tensor<B::InnerBackend, 1>, Option<Tensor<B::InnerBackend, 1>>) {
        let x = self.particles.clone();
        let (tolerance, calls) = (self.config.conjugate_tolerance, self.config.conjugate_steps);
        let by_start = self.metric.apply(x.clone()) + self.centre.clone();
        let shifted = Tensor::<B, 2>::from_inner(x.clone() - self.centre.clone());
        let guess = self.amortiser.as_ref().map(|a| a.correction(shifted.clone()).inner() + by_start.clone());
        let guess_residual = guess.as_ref().map(|y| {
            let off = at(w, y).1 - x.clone();
            (off.clone() * off).mean().sqrt()
        });
        let start = guess.unwrap_or_else(|| self.conjugates.clone());
        let solved = conjugate(w, &self.metric, &x, start, tolerance, calls);
        if let Some(amortiser) = &mut self.amortiser {
            let converged = solved.residual.clone().lower_equal_elem(tolerance);
            let target = choose(&converged, solved.y.clone() - by_start, &x.zeros_like());
            let counts = converged.float();
            // Where no row converged the step goes by Adam's memory alone.
            let share = counts.clone() / counts.sum().clamp_min(1.0).unsqueeze_dim(0);
            let difference = amortiser.correction(shifted) - Tensor::from_inner(target);
            let squares = difference.powi_scalar(2).sum_dim(1) * Tensor::from_inner(share);
            amortiser.descend(squares.sum());
        }
        // Comparisons with NaN are false.
        let finite = solved.residual.clone().lower_elem(f32::MAX);
        self.conjugates = choose(&finite, solved.y, &self.conjugates);
        let infinite = solved.residual.zeros_like() + f32::INFINITY;
        (choose(&finite, solved.residual, &infinite).max(), guess_residual)
    }

    /// The head as the host has it.
    fn head(arch: &Architecture, weights: &Weights<Ranked<B::InnerBackend>>) -> Result<HeadFactor> {
        let from = (1 + arch.rank) * arch.units();
        let rows = read(weights.x_side.clone().matrix().narrow(0, from, arch.head_rows()))?;
        let spikes = weights.spikes.as_ref().map(|spikes| {
            Ok((read(spikes.floor.clone().matrix())?[0], read(spikes.excess.clone().matrix())?))
        });
        HeadFactor::of_rows(rows, spikes.transpose()?, read(weights.centre.clone().matrix())?)
    }

    /// As the host's; the device averages, and the processor inverts.
    fn look_at_hessian(
        &mut self,
        w: &Potential<'_, B::InnerBackend>,
        y: &Tensor<B::InnerBackend, 2>,
    ) -> Result<()> {
        let points = solve_metric::points(&self.config, self.update);
        if points > 0 {
            let some = ranked(&y.clone().narrow(0, 0, points));
            let mean = read(w.mean_hessian(points, &some).matrix())?;
            if let Some(metric) = Preconditioner::of_mean_hessian(&mean)? {
                (self.mean_hessian, self.solve_metric) = (mean, Metric::new(&metric, &self.device)?);
            }
        }
        Ok(())
    }

    /// What the likelihood needs at the batch `y`, of the head where the Gibbs factor is of that, and the worst relative
    /// residual of its solves. The host inverts the head, a factor of d³/3 operations that tensors do not have, and has its
    /// mixture.
    fn likelihood_parts(
        &mut self,
        (w, weights): (&Potential<'_, B::InnerBackend>, &Weights<Ranked<B::InnerBackend>>),
        y: &Tensor<B::InnerBackend, 2>,
        probes: &[f64],
    ) -> Result<Parts<B>> {
        let image = at(w, y).1;
        let (image, along, head) = match (self.config.method.source(), self.config.architecture.gibbs) {
            (Source::Gibbs, GibbsFactor::Whole) => {
                let along = at(w, &image).1;
                (Some(image), along, None)
            }
            (Source::Gibbs, GibbsFactor::Head) => {
                let arch = &self.config.architecture;
                let known = || Self::head(arch, weights).map(Cow::Owned);
                let image_of = || read(image.clone());
                let (head, more) = self.source.law_of_head(arch.head, known, image_of, &self.device)?;
                let mut along = w.head_value_and_gradient(&ranked(&image)).1.matrix();
                if !more.is_empty() {
                    along = along + self.upload(&more);
                }
                (Some(image), along, Some(head))
            }
            (Source::Gaussian, _) => (None, image, None),
        };
        self.look_at_hessian(w, y)?;
        let probe = self.upload(probes);
        let points = y.clone().repeat_dim(0, probe.dims()[0] / self.config.batch);
        let (tolerance, most) = (self.config.solve_tolerance, self.config.solve_steps);
        let (solved, residual) = hessian_solve(w, &self.solve_metric, &points, &probe, tolerance, most)?;
        Ok((Likelihood { image, along, solved, probe }, head, residual))
    }
}

impl<B: AutodiffBackend<InnerBackend: Precise> + Activates> Training for DeviceTrainer<B> {
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
        let average = Average::from_arrays(self.config.architecture.clone(), self.averaged()?);
        self.source.placed_in(average.network()?)
    }

    fn particles(&self) -> Result<Vec<f64>> {
        match self.network()?.gibbs() {
            Some(head) => draws_of(head, &self.config),
            None => read(self.particles.clone()),
        }
    }

    fn step(&mut self, of: usize, read_rows: &ReadRows<'_>) -> Result<Metrics> {
        let clock = Instant::now();
        self.mix_source(of, read_rows, &mut |_| true)?;
        let arch = self.config.architecture.clone();
        let parameters = self.parameters.take().ok_or_else(|| {
            Error::Invalid("the run stopped in the middle of an update; resume it from its checkpoint".into())
        })?;
        let weights = parameters.weights(&arch);
        let (ops, inner) = (BurnOps::precise(self.device.clone()), inner_weights(&arch, &weights)?);
        let new = 1.0 - decay(&self.config, self.update);
        for (mean, (.., now)) in self.average.iter_mut().zip(inner.named(&arch)) {
            *mean = mean.clone() + (now.clone().matrix() - mean.clone()) * new;
        }
        let w = Formula::new(&ops, &arch, &inner);
        let draws = self.ahead.next(&self.config, self.update, of, &self.rng)?;
        let y = self.upload(&draws.rows.read(self.config.sigma, read_rows)?);
        let accepted = self.move_particles(&w, &y, &draws.moves)?;

        let (likelihood, weight) = self.config.objective(self.update);
        let conjugate = (weight > 0.0).then(|| self.solve_conjugates(&w));
        let parts = draws.probes.as_ref().map(|probes| self.likelihood_parts((&w, &inner), &y, probes));
        let (parts, head, solve_residual) = match parts.transpose()? {
            Some((parts, head, residual)) => (Some(parts), head, Some(residual)),
            None => (None, None, None),
        };
        let batch = Batch {
            data: Tensor::from_inner(y),
            source: match head {
                Some(head) => Law::Head(head),
                None => Law::Particles(Tensor::from_inner(self.particles.clone())),
            },
            conjugate: (weight > 0.0).then(|| (Tensor::from_inner(self.conjugates.clone()), weight)),
            likelihood: parts.map(|parts| parts.map(Tensor::from_inner)),
        };
        let Differentiated { loss, gradients, correction } = noise_control::differentiated(
            &self.config,
            self.update,
            self.kappa,
            (&parameters, &weights),
            batch,
            || Tensor::from_inner(self.upload(&draws.rows.noise)),
        );
        let mut figures = vec![loss.clone().inner(), accepted];
        let (residual, guess) = conjugate.unzip();
        let guess = guess.flatten();
        figures.extend(residual);
        let guess_at = guess.is_some().then_some(figures.len());
        figures.extend(guess);
        let correction_at = correction.is_some().then_some(figures.len());
        figures.extend(correction);
        let (parameters, rate) = adam(&self.config, self.update, &mut self.optimisers, parameters, gradients);

        // Here the update waits for the device.
        let figures = read(Tensor::cat(figures, 0))?;
        let finite = |i: usize, what: &str| match figures[i].is_finite() {
            true => Ok(figures[i]),
            false => Err(Error::NotFinite(format!("{what} of update {}", self.update + 1))),
        };
        finite(0, "the loss")?;
        let guess_residual = guess_at.map(|i| finite(i, "the amortiser's guess")).transpose()?;
        self.kappa = noise_control::corrected(self.kappa, correction_at.map(|at| figures[at]));
        if let Moves::Langevin(_) = draws.moves {
            self.langevin_step = tuned(&self.config, self.langevin_step, figures[1]);
        }
        self.update += 1;
        self.rng = draws.rng;
        self.parameters = Some(parameters);
        self.seconds += clock.elapsed().as_secs_f64();
        Ok(Metrics {
            update: self.update,
            seconds: self.seconds,
            objective: if likelihood { "likelihood" } else { "conjugate" },
            lambda_max: self.lambda,
            residual: solve_residual.unwrap_or_else(|| figures[2]),
            guess_residual,
            acceptance: figures[1],
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

    fn step_on_energy(&mut self, _: &dyn HostPotential) -> Result<Metrics> {
        Err(Error::Invalid("this run learns from samples, not from an energy".into()))
    }

    fn save(&self, path: &Path) -> Result<()> {
        let state = State {
            config: self.config.clone(),
            start: self.start.clone(),
            learned: Packed::new(&self.parameters, &self.optimisers)?,
            numbers: Numbers {
                average: self.averaged()?,
                rng: self.rng.clone(),
                particles: read(self.particles.clone())?,
                conjugates: read(self.conjugates.clone())?,
                amortiser: pack_amortiser(&self.amortiser)?,
                power: read(self.power.clone())?,
                lambda: self.lambda,
                update: self.update,
                seconds: self.seconds,
            },
            late: Late {
                damping: self.damping,
                langevin_step: self.langevin_step,
                kappa: self.kappa,
                mean_hessian: self.mean_hessian.clone(),
                source: self.source.save(),
            },
        };
        state.write(path)
    }
}
