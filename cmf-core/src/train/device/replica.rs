//! What one device does of an update: it has the parameters, as every device of the run does, and rows of its own.

use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::backend::AutodiffBackend;

use super::super::activation::Activates;
use super::super::amortiser::Amortiser;
use super::super::checkpoint::{Numbers, Packed, unpack_amortiser};
use super::super::config::TrainConfig;
use super::super::noise_control::{self, Differentiated};
use super::super::objective::{Batch, Law, Likelihood, rows};
use super::super::ops::{BurnOps, Precise, Ranked};
use super::super::parameters::Parameters;
use super::super::solve_metric;
use super::super::source_mixture::HeadLaw;
use super::super::trainer::{LAMBDA_ITERATIONS, Optimisers, adam, decay, grouped};
use super::agreement::agrees;
use super::conjugate::conjugate;
use super::draws::{Moves, Part, part};
use super::langevin::{lambda_max, langevin};
use super::metric::{Metric, choose};
use super::slopes::{Sent, Slopes};
use super::solve::hessian_solve;
use super::{Potential, at, inner_weights, ranked, read, scalar};
use crate::error::{Error, Result};
use crate::gaussian::QuadraticStart;
use crate::gibbs_start::GibbsStart;
use crate::head_factor::HeadFactor;
use crate::icnn::formula::Formula;
use crate::icnn::{Architecture, GibbsFactor, Weights};
use crate::preconditioner::Preconditioner;
use crate::source::Source;

/// A device of a run.
pub(super) struct Replica<B: AutodiffBackend> {
    /// Its number among the devices.
    number: usize,
    device: B::Device,
    metric: Metric<B::InnerBackend>,
    /// Of linear solves.
    solve_metric: Metric<B::InnerBackend>,
    /// a of the start: [1, d].
    centre: Tensor<B::InnerBackend, 2>,
    pub parameters: Option<Parameters<B>>,
    pub optimisers: Optimisers<B>,
    /// Averaged effective weights, in the order of [`Weights::named`].
    pub average: Vec<Tensor<B::InnerBackend, 2>>,
    /// Its own: [share of the particles, d].
    pub particles: Tensor<B::InnerBackend, 2>,
    pub conjugates: Tensor<B::InnerBackend, 2>,
    /// Of the first device, which alone looks at λ_max.
    pub power: Tensor<B::InnerBackend, 2>,
    pub amortiser: Option<Amortiser<B>>,
}

/// What an update goes by on every device.
#[derive(Clone, Copy)]
pub(super) struct Now<'a> {
    pub config: &'a TrainConfig,
    pub update: usize,
    pub langevin_step: f64,
    pub kappa: f64,
}

/// An update that has begun.
pub(super) struct Begun<B: AutodiffBackend> {
    /// Taken out of the replica until [`Replica::descend`] puts them back.
    parameters: Parameters<B>,
    weights: Weights<Ranked<B>>,
    /// Without their graph.
    inner: Weights<Ranked<B::InnerBackend>>,
    y: Tensor<B::InnerBackend, 2>,
    part: Part,
}

/// One whose particles and conjugates have moved.
pub(super) struct Moved<B: AutodiffBackend> {
    begun: Begun<B>,
    figures: Figures<B::InnerBackend>,
    /// ∇w(y), if the update follows the likelihood: [n, d].
    image: Option<Tensor<B::InnerBackend, 2>>,
    /// The Hessian's mean over so many of y, where it is time to look: [d, d].
    pub mean_hessian: Option<(usize, Vec<f64>)>,
}

/// One whose loss is differentiated.
pub(super) struct Sloped<B: AutodiffBackend> {
    parameters: Parameters<B>,
    slopes: Slopes<B>,
    loss: Tensor<B::InnerBackend, 1>,
    figures: Figures<B::InnerBackend>,
    solve_residual: Option<f64>,
}

/// The law of the head, and what a mixture adds to ∇V at this part's images: [n, d], or empty.
type LawPart<'a> = (&'a HeadLaw, &'a [f64]);

/// What moving the points had to say.
struct Figures<B: Backend> {
    /// The share of Langevin steps that was accepted.
    accepted: Tensor<B, 1>,
    /// The worst residual of conjugates.
    conjugate: Option<Tensor<B, 1>>,
    /// Of the amortiser's guesses.
    guess: Option<Tensor<B, 1>>,
}

/// What an update says of its part.
pub(super) struct Seen {
    pub accepted: f64,
    pub conjugate_residual: Option<f64>,
    pub guess_residual: Option<f64>,
    pub solve_residual: Option<f64>,
    /// How far κ was above the best, in updates that measure it.
    pub correction: Option<f64>,
    /// Factor of the learning rates.
    pub rate: f64,
}

/// What a replica begins with, as one of several.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub config: &'a TrainConfig,
    pub start: &'a QuadraticStart,
    pub gibbs: &'a GibbsStart,
    pub learned: &'a Packed,
    pub numbers: &'a Numbers,
    pub solve_metric: &'a Preconditioner,
}

impl<B: AutodiffBackend<InnerBackend: Precise> + Activates> Replica<B> {
    /// Number `i` of `n`, on `device`. Fails if its gradients and Hessian products are not the host's.
    pub fn new(origin: Origin<'_>, device: B::Device, i: usize, n: usize) -> Result<Self> {
        let Origin { config, start, gibbs, learned, numbers, solve_metric } = origin;
        let arch = &config.architecture;
        let (parameters, optimisers) = learned.clone().unpack::<B>(config, start, &device)?;
        let upload = |a: &[f64]| rows::<B::InnerBackend>(a, arch.dim, &device);
        let weights = parameters.weights(arch);
        let average = numbers
            .average
            .iter()
            .zip(weights.named(arch))
            .map(|(a, (_, shape, _))| Tensor::from_data(TensorData::new(a.clone(), shape), &device));
        let replica = Replica {
            number: i,
            average: average.collect(),
            amortiser: unpack_amortiser(numbers.amortiser.clone(), &numbers.rng, gibbs, &device)?,
            metric: Metric::new(&gibbs.covariance, &device)?,
            solve_metric: Metric::new(solve_metric, &device)?,
            centre: upload(&gibbs.centre),
            particles: upload(part(&numbers.particles, i, n)),
            conjugates: upload(part(&numbers.conjugates, i, n)),
            power: upload(&numbers.power),
            parameters: Some(parameters),
            optimisers,
            device,
        };
        agrees::<B>(arch, &weights, &replica.particles)?;
        Ok(replica)
    }

    fn upload(&self, a: &[f64]) -> Tensor<B::InnerBackend, 2> {
        rows(a, self.centre.dims()[1], &self.device)
    }

    fn ops(&self) -> BurnOps<B::InnerBackend> {
        BurnOps::precise(self.device.clone())
    }

    /// Takes the parameters out, whose weights enter the average, and this part of the data in.
    pub fn begin(&mut self, now: Now<'_>, part: Part) -> Result<Begun<B>> {
        let arch = &now.config.architecture;
        let parameters = self.parameters.take().ok_or_else(|| {
            Error::Invalid("the run stopped in the middle of an update; resume it from its checkpoint".into())
        })?;
        let weights = parameters.weights(arch);
        let inner = inner_weights(arch, &weights)?;
        let new = 1.0 - decay(now.config, now.update);
        for (mean, (.., weight)) in self.average.iter_mut().zip(inner.named(arch)) {
            *mean = mean.clone() + (weight.clone().matrix() - mean.clone()) * new;
        }
        let y = self.upload(&part.y);
        Ok(Begun { parameters, weights, inner, y, part })
    }

    /// The rows at which λ_max is looked for: the particles, or the data where there are none.
    pub fn probed<'a>(&'a self, begun: &'a Begun<B>) -> &'a Tensor<B::InnerBackend, 2> {
        if let Moves::Nothing = begun.part.moves { &begun.y } else { &self.particles }
    }

    /// λ_max over the first of them, or of those of `all` parts where there are several.
    pub fn look_at_lambda(&mut self, now: Now<'_>, begun: &Begun<B>, all: Option<&[f64]>) -> Result<f64> {
        let (ops, arch) = (self.ops(), &now.config.architecture);
        let w = Formula::new(&ops, arch, &begun.inner);
        let points = match all {
            Some(all) => self.upload(&all[..all.len().min(self.power.dims()[0] * arch.dim)]),
            None => self.probed(begun).clone(),
        };
        let n = points.dims()[0].min(self.power.dims()[0]);
        let [probed, power] = [&points, &self.power].map(|a| a.clone().narrow(0, 0, n));
        let (found, power) = lambda_max(&w, &self.metric, &probed, power, LAMBDA_ITERATIONS);
        self.power = self.power.clone().slice_assign([0..n, 0..arch.dim], power);
        let lambda = scalar(found)?;
        match lambda.is_finite() {
            true => Ok(lambda),
            false => Err(Error::NotFinite("the largest Hessian eigenvalue".into())),
        }
    }

    /// Moves particles and, where they are asked for, conjugates; maps the data.
    pub fn move_points(&mut self, now: Now<'_>, begun: Begun<B>) -> Result<Moved<B>> {
        let (ops, arch) = (self.ops(), &now.config.architecture);
        let w = Formula::new(&ops, arch, &begun.inner);
        let accepted = self.move_particles(now, &w, &begun.part.moves);
        let (likelihood, weight) = now.config.objective(now.update);
        let (conjugate, guess) = (weight > 0.0).then(|| self.solve_conjugates(now.config, &w)).unzip();
        let image = likelihood.then(|| at(&w, &begun.y).1);
        // Those of its rows that are among the first of all parts'.
        let points = if likelihood { solve_metric::points(now.config, now.update) } else { 0 };
        let rows = begun.y.dims()[0];
        let points = points.saturating_sub(self.number * rows).min(rows);
        let mean_hessian = (points > 0).then(|| {
            let some = ranked(&begun.y.clone().narrow(0, 0, points));
            Ok((points, read(w.mean_hessian(points, &some).matrix())?))
        });
        let mean_hessian = mean_hessian.transpose()?;
        let figures = Figures { accepted, conjugate, guess: guess.flatten() };
        Ok(Moved { begun, figures, image, mean_hessian })
    }

    /// Moves the particles; returns the share of steps that was accepted, as the host's `move_particles` does.
    fn move_particles(
        &mut self,
        now: Now<'_>,
        w: &Potential<'_, B::InnerBackend>,
        moves: &Moves,
    ) -> Tensor<B::InnerBackend, 1> {
        match moves {
            Moves::Nothing => Tensor::ones([1], &self.device),
            Moves::Exact(noise) => {
                let config = now.config;
                let kept = (-(config.langevin_steps as f64) * config.langevin_step).exp();
                let fresh = self.upload(noise) * (1.0 - kept * kept).sqrt();
                self.particles = self.particles.clone() * kept + fresh;
                Tensor::ones([1], &self.device)
            }
            Moves::Langevin(chances) => {
                let from = self.particles.clone();
                let (x, accepted) = langevin(w, &self.metric, from, now.langevin_step, chances);
                self.particles = x;
                accepted
            }
        }
    }

    /// Moves the conjugates towards ∇w*(particles), as the host's `solve_conjugates` does; returns their worst
    /// residual and the guess's.
    fn solve_conjugates(
        &mut self,
        config: &TrainConfig,
        w: &Potential<'_, B::InnerBackend>,
    ) -> (Tensor<B::InnerBackend, 1>, Option<Tensor<B::InnerBackend, 1>>) {
        let x = self.particles.clone();
        let (tolerance, calls) = (config.conjugate_tolerance, config.conjugate_steps);
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

    /// The metric of linear solves from here on.
    pub fn solve_in(&mut self, metric: &Preconditioner) -> Result<()> {
        self.solve_metric = Metric::new(metric, &self.device)?;
        Ok(())
    }

    /// Differentiates the loss; `law` is of the head, where the Gibbs factor is of that.
    pub fn differentiate(
        &self,
        now: Now<'_>,
        moved: Moved<B>,
        law: Option<LawPart<'_>>,
    ) -> Result<Sloped<B>> {
        let Moved { begun: Begun { parameters, weights, inner, y, part }, figures, image, .. } = moved;
        let (ops, config) = (self.ops(), now.config);
        let arch = &config.architecture;
        let w = Formula::new(&ops, arch, &inner);
        let likelihood = image.zip(part.probes.as_ref());
        let likelihood = likelihood.map(|(image, probes)| self.likelihood(now, &w, (&y, image), probes, law));
        let (likelihood, solve_residual) = likelihood.transpose()?.unzip();
        let weight = config.objective(now.update).1;
        let batch = Batch {
            data: Tensor::from_inner(y),
            source: match law {
                Some((law, _)) => Law::Head(law.of_head.on(arch.dim, &self.device)),
                None => Law::Particles(Tensor::from_inner(self.particles.clone())),
            },
            conjugate: (weight > 0.0).then(|| (Tensor::from_inner(self.conjugates.clone()), weight)),
            likelihood: likelihood.map(|parts| parts.map(Tensor::from_inner)),
        };
        let Differentiated { loss, gradients, control } = noise_control::differentiated(
            config,
            now.update,
            now.kappa,
            (&parameters, &weights),
            batch,
            || Tensor::from_inner(self.upload(&part.noise)),
        );
        let slopes = Slopes { groups: grouped(&parameters, gradients), control };
        Ok(Sloped { parameters, slopes, loss: loss.inner(), figures, solve_residual })
    }

    /// What the likelihood needs at y with its `image`, and the worst relative residual of its solves.
    fn likelihood(
        &self,
        now: Now<'_>,
        w: &Potential<'_, B::InnerBackend>,
        (y, image): (&Tensor<B::InnerBackend, 2>, Tensor<B::InnerBackend, 2>),
        probes: &[f64],
        law: Option<LawPart<'_>>,
    ) -> Result<(Likelihood<Tensor<B::InnerBackend, 2>>, f64)> {
        let config = now.config;
        let (image, along) = match (config.method.source(), law) {
            (Source::Gibbs, None) => {
                let along = at(w, &image).1;
                (Some(image), along)
            }
            (Source::Gibbs, Some((_, more))) => {
                let mut along = w.head_value_and_gradient(&ranked(&image)).1.matrix();
                if !more.is_empty() {
                    along = along + self.upload(more);
                }
                (Some(image), along)
            }
            (Source::Gaussian, _) => (None, image),
        };
        let probe = self.upload(probes);
        let points = y.clone().repeat_dim(0, probe.dims()[0] / y.dims()[0]);
        let (tolerance, most) = (config.solve_tolerance, config.solve_steps);
        let (solved, residual) = hessian_solve(w, &self.solve_metric, &points, &probe, tolerance, most)?;
        Ok((Likelihood { image, along, solved, probe }, residual))
    }

    /// Takes the step along `mean`, that of all parts' slopes, or along its own, and waits for the device.
    pub fn descend(&mut self, now: Now<'_>, sloped: Sloped<B>, mean: Option<&Sent>) -> Result<Seen> {
        let Sloped { parameters, slopes, loss, figures, solve_residual } = sloped;
        let slopes = mean.map_or(slopes, |mean| Slopes::receive(mean, &parameters));
        let correction = slopes.correction(&parameters);
        let (parameters, rate) =
            adam(now.config, now.update, &mut self.optimisers, parameters, slopes.groups);
        let optional = [figures.conjugate, figures.guess, correction];
        let known = optional.each_ref().map(Option::is_some);
        let all = [loss, figures.accepted].into_iter().chain(optional.into_iter().flatten());
        let mut all = read(Tensor::cat(all.collect(), 0))?.into_iter();
        let (loss, accepted) = (all.next().unwrap_or(f64::NAN), all.next().unwrap_or(f64::NAN));
        let [conjugate_residual, guess_residual, correction] =
            known.map(|known| if known { all.next() } else { None });
        let finite = |v: f64, what: &str| match v.is_finite() {
            true => Ok(v),
            false => Err(Error::NotFinite(format!("{what} of update {}", now.update + 1))),
        };
        finite(loss, "the loss")?;
        guess_residual.map(|v| finite(v, "the amortiser's guess")).transpose()?;
        self.parameters = Some(parameters);
        Ok(Seen { accepted, conjugate_residual, guess_residual, solve_residual, correction, rate })
    }
}

impl<B: AutodiffBackend<InnerBackend: Precise> + Activates> Moved<B> {
    /// Whether the head's law is wanted: the update follows the likelihood with a Gibbs factor of the head.
    pub fn wants_head(&self, config: &TrainConfig) -> bool {
        let of_head =
            config.architecture.gibbs == GibbsFactor::Head && config.method.source() == Source::Gibbs;
        of_head && self.image.is_some()
    }

    /// ∇w(y), once the device has come to it: [n, d].
    pub fn image(&self) -> Result<Vec<f64>> {
        self.image.clone().map_or_else(|| Ok(Vec::new()), read)
    }

    /// The head as the host has it.
    pub fn head(&self, arch: &Architecture) -> Result<HeadFactor> {
        let weights = &self.begun.inner;
        let from = (1 + arch.rank) * arch.units();
        let rows = read(weights.x_side.clone().matrix().narrow(0, from, arch.head_rows()))?;
        let spikes = weights.spikes.as_ref().map(|spikes| {
            Ok((read(spikes.floor.clone().matrix())?[0], read(spikes.excess.clone().matrix())?))
        });
        HeadFactor::of_rows(rows, spikes.transpose()?, read(weights.centre.clone().matrix())?)
    }
}

impl<B: AutodiffBackend> Sloped<B> {
    /// Waits for the device and copies the slopes, which this then has no more, to the host.
    pub fn send(&mut self) -> Result<Sent> {
        self.slopes.send(&self.parameters)
    }
}
